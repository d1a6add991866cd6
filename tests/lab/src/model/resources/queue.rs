//! Jobs in their three guises: Dell's queue, the DMTF job service, and tasks.

use serde_json::{Value, json};

use super::{JOBS, TASKS, collection, link, resource, with};
use crate::model::bmc::Bmc;
use crate::model::job::{Job, State};
use crate::model::jobs::JOB_LIMIT;
use crate::model::traits::Traits;

impl Bmc {
    pub(super) fn queue_document(&self, path: &str) -> Option<Value> {
        let traits = self.traits();
        let visible = || self.jobs.iter().filter(|job| job.is_visible(self.now));
        match path {
            "/redfish/v1/TaskService" => {
                return Some(with(
                    resource(path, "TaskService.v1_2_0.TaskService", "TaskService", "Task Service"),
                    json!({
                        "DateTime": self.clock().zoned(self.now),
                        "Description": "Long-running operations.",
                        "ServiceEnabled": true,
                        "Status": { "Health": "OK", "State": "Enabled" },
                        "Tasks": link(TASKS),
                    }),
                ));
            }
            TASKS => {
                let members = members(TASKS, self.tasks(&traits));
                return Some(collection(path, "TaskCollection", "Task Collection", &members));
            }
            "/redfish/v1/JobService" if traits.job_service => return Some(self.job_service()),
            JOBS if traits.job_service => {
                return Some(collection(path, "JobCollection", "JobCollection", &members(JOBS, visible())));
            }
            _ if Some(path) == traits.dell_jobs => {
                return Some(collection(path, "DellJobCollection", "JobQueue", &members(path, visible())));
            }
            _ => {}
        }
        let (parent, id) = path.rsplit_once('/')?;
        if parent == TASKS {
            return self.tasks(&traits).find(|job| job.id == id).map(|job| self.task(job));
        }
        let job = visible().find(|job| job.id == id)?;
        if parent == JOBS && traits.job_service {
            Some(self.dmtf_job(job))
        } else if Some(parent) == traits.dell_jobs {
            Some(self.dell_job(job, path))
        } else {
            None
        }
    }

    fn tasks(&self, traits: &Traits) -> impl Iterator<Item = &Job> {
        let retention = traits.task_retention;
        self.jobs.iter().filter(move |job| job.has_task(self.now, retention))
    }

    fn job_service(&self) -> Value {
        with(
            resource("/redfish/v1/JobService", "JobService.v1_0_4.JobService", "JobService", "Job Service"),
            json!({
                "DateTime": self.clock().zoned(self.now),
                "Description": "The job service.",
                "Jobs": link(JOBS),
                "Log": link(&Traits::log("Lclog")),
                "ServiceCapabilities": { "MaxJobs": JOB_LIMIT, "MaxSteps": 1, "Scheduling": true },
                "ServiceEnabled": true,
                "Status": { "Health": "OK", "State": "Enabled" },
            }),
        )
    }

    /// Message and id as the job shows them; a job that waits for the Lifecycle Controller says so.
    fn shown(&self, job: &Job) -> (String, &'static str) {
        if job.state == State::New && !self.lc_is_free() {
            return (
                "The Lifecycle Controller is in use; the job starts when it is free.".to_owned(),
                "RED023",
            );
        }
        (job.message.text.clone(), job.message.id)
    }

    fn dell_job(&self, job: &Job, path: &str) -> Value {
        let clock = self.clock();
        let bare = |at: Option<std::time::Duration>| at.map(|at| clock.bare(at));
        let (message, id) = self.shown(job);
        with(
            resource(path, "DellJob.v1_2_0.DellJob", &job.id, &job.name),
            json!({
                "ActualRunningStartTime": bare(job.started),
                "ActualRunningStopTime": bare(job.started.and(job.ended)),
                "CompletionTime": bare(job.ended),
                "Description": "Job Instance",
                "EndTime": "TIME_NA",
                "JobState": job.state.dell(),
                "JobType": job.job_type,
                "Message": message,
                "MessageArgs": job.message.args,
                "MessageArgs@odata.count": job.message.args.len(),
                "MessageId": id,
                "PercentComplete": job.percent(self.now),
                "StartTime": if job.state == State::New {
                    "TIME_NOW".to_owned()
                } else {
                    clock.bare(job.created)
                },
                "TargetSettingsURI": null,
            }),
        )
    }

    fn messages(&self, job: &Job) -> Value {
        let (message, id) = self.shown(job);
        json!([{
            "Message": message,
            "MessageArgs": job.message.args,
            "MessageArgs@odata.count": job.message.args.len(),
            "MessageId": format!("{}.{id}", self.traits().registry),
        }])
    }

    fn dmtf_job(&self, job: &Job) -> Value {
        let clock = self.clock();
        with(
            resource(&format!("{JOBS}/{}", job.id), "Job.v1_0_7.Job", &job.id, &job.name),
            json!({
                "Description": "A job of this BMC",
                "EndTime": job.ended.map_or("TIME_NA".to_owned(), |at| clock.zoned(at)),
                "JobState": job.state.dmtf(),
                "JobStatus": status(job),
                "Messages": self.messages(job),
                "Messages@odata.count": 1,
                "PercentComplete": job.percent(self.now),
                "StartTime": clock.zoned(job.created),
            }),
        )
    }

    fn task(&self, job: &Job) -> Value {
        let clock = self.clock();
        let path = format!("{TASKS}/{}", job.id);
        with(
            resource(&path, "Task.v1_5_1.Task", &job.id, &job.name),
            json!({
                "Description": "A task of this BMC",
                "EndTime": job.ended.map(|at| clock.zoned(at)),
                "Messages": self.messages(job),
                "Messages@odata.count": 1,
                "Oem": { "Dell": self.dell_job(job, &path) },
                "PercentComplete": job.percent(self.now),
                "StartTime": clock.zoned(job.created),
                "TaskState": job.state.task(),
                "TaskStatus": status(job),
            }),
        )
    }
}

fn status(job: &Job) -> &'static str {
    match (job.critical, job.state) {
        (true, _) | (_, State::Failed) => "Critical",
        (_, State::CompletedWithErrors) => "Warning",
        _ => "OK",
    }
}

fn members<'a>(parent: &str, jobs: impl Iterator<Item = &'a Job>) -> Vec<String> {
    jobs.map(|job| format!("{parent}/{}", job.id)).collect()
}
