//! Where an update stands, over everybody who may know.
//!
//! A task disappears seconds after it completed (iDRAC9 7.00.00, iDRAC-Redfish-Scripting issue 275), so the same
//! work is looked for as task, in the job service, in Dell's own queue, and finally in the Lifecycle log. Each source
//! answers "I do not know it" with 404; any other failure ends the search with an error, because then nobody may
//! conclude that the work has vanished. [`TaskState::Vanished`] means: all were asked, nobody knows; look at the
//! inventory.

use http::Method;
use serde_json::Value;

use crate::{
    classify::Class,
    client::{Call, Client, evidence},
    document::{self, Evidence, str_at},
    error::Error,
    jobs::{self, ending, member_path},
    model::{Job, LogRecord, TaskProgress, TaskRef, TaskSource, TaskState},
};

impl Client {
    /// Where a task stands. See the module's introduction for the order of asking.
    ///
    /// Ids are looked up below the linked collections (`<collection>/<id>`), the one place where this client builds a
    /// path instead of following a link.
    ///
    /// # Errors
    /// A source that exists cannot be asked. While a BMC is expected to be away, that is no news.
    pub async fn follow(&self, task: &TaskRef) -> Result<TaskProgress, Error> {
        let mut evidence = Vec::new();
        let path = task.path.as_deref().and_then(|path| self.endpoint.path_of(path));
        if let Some(path) = path
            && let Some(progress) = self.ask_task(path, &mut evidence).await?
        {
            return Ok(TaskProgress { evidence, ..progress });
        }
        let Some(id) = task_id(task) else {
            return Ok(vanished(evidence));
        };
        if self.check_job_id(&id).is_ok() {
            for (source, queue) in self.queues().await? {
                let Some(member) = member_path(&queue, &id) else { continue };
                if Some(member.as_str()) == path {
                    continue;
                }
                let Some(document) = self.find(&member).await? else { continue };
                evidence.push(document.evidence.clone());
                if let Some(job) = jobs::job(&queue, document.value) {
                    return Ok(TaskProgress { evidence, ..progress(source, job) });
                }
            }
        }
        if self.log_entries().await?.is_none() {
            return Ok(vanished(evidence));
        }
        let log = self.lifecycle_log(task.log_mark).await?;
        let told = log.records.iter().filter(|record| mentions(record, &id));
        let told = told.filter_map(|record| Some((ending(record.message.id.as_deref()?)?, record))).next();
        Ok(match told {
            Some((state, record)) => {
                evidence.push(log_evidence(record));
                let message_id = record.message.short_id().map(str::to_owned);
                let (source, message) = (TaskSource::LifecycleLog, record.message.text.clone());
                TaskProgress { source, state, percent: None, message_id, message, name: None, evidence }
            }
            None => vanished(evidence),
        })
    }

    /// Asks the task, job or task monitor itself. `None`: it does not exist.
    async fn ask_task(
        &self,
        path: &str,
        evidence: &mut Vec<Evidence>,
    ) -> Result<Option<TaskProgress>, Error> {
        let response = match self.exchange(Call::get(path, self.read_deadline())).await {
            Ok(response) => response,
            Err(error) if error.class() == Class::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let status = response.status().as_u16();
        evidence.push(self::evidence(path, status, response.body()));
        let document = self.parse(response.body());
        let is_work =
            |value: &Value| ["TaskState", "JobState"].iter().any(|name| str_at(value, name).is_some());
        if let Some(value) = document.filter(is_work) {
            let source = source_of(&value);
            let Some(job) = jobs::job(path, value) else { return Ok(None) };
            return Ok(Some(progress(source, job)));
        }
        // A task monitor: 202 while the work goes on, its result afterwards (DSP0266).
        let state = match status {
            202 => TaskState::Running,
            204 => TaskState::Completed,
            _ if response.body().is_empty() => TaskState::Completed,
            _ => {
                let what = "neither a task, a job nor a task monitor".to_owned();
                let evidence = self::evidence(path, status, response.body());
                let problem = crate::error::Problem::Malformed { what, evidence };
                return Err(self.error(&Method::GET, path, false, problem));
            }
        };
        let (source, message) = (TaskSource::Task, String::new());
        let progress = TaskProgress {
            source,
            state,
            percent: None,
            message_id: None,
            message,
            name: None,
            evidence: Vec::new(),
        };
        Ok(Some(progress))
    }
}

fn task_id(task: &TaskRef) -> Option<String> {
    let last = |path: &String| {
        let id = path.trim_end_matches('/').rsplit('/').next()?;
        Some(jobs::own_id(path, id.to_owned()))
    };
    task.id.clone().or_else(|| task.path.as_ref().and_then(last)).filter(|id| !id.is_empty())
}

fn source_of(value: &Value) -> TaskSource {
    match str_at(value, "@odata.type") {
        Some(kind) if kind.starts_with("#DellJob.") => TaskSource::OemJobs,
        Some(kind) if kind.starts_with("#Job.") => TaskSource::JobService,
        _ => TaskSource::Task,
    }
}

fn progress(source: TaskSource, job: Job) -> TaskProgress {
    let message = job.message.unwrap_or_default();
    TaskProgress {
        source,
        state: jobs::refined(job.state, message.short_id()),
        percent: job.percent,
        message_id: message.short_id().map(str::to_owned),
        message: message.text,
        name: Some(job.name),
        evidence: Vec::new(),
    }
}

fn vanished(evidence: Vec<Evidence>) -> TaskProgress {
    TaskProgress {
        source: TaskSource::None,
        state: TaskState::Vanished,
        percent: None,
        message_id: None,
        message: "no source knows this task".to_owned(),
        name: None,
        evidence,
    }
}

fn mentions(record: &LogRecord, id: &str) -> bool {
    let in_text = || {
        let words =
            record.message.text.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-')));
        words.into_iter().any(|word| word == id)
    };
    record.message.args.iter().any(|arg| arg == id) || in_text()
}

fn log_evidence(record: &LogRecord) -> Evidence {
    let path = document::link(&record.raw).unwrap_or_default();
    evidence(path, 200, &record.raw.to_string().into())
}
