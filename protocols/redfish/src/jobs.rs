//! Job queues and tasks: one reading for three vocabularies.
//!
//! Dell's own queue (`DellJob`), the job service (`Job`, DSP2046) and the task service (`Task`) describe the same
//! work with different words, and a state alone lies: a task can be `Completed`, 100 %, with a status of `Critical`
//! (metal-operator issue 453), or completed with a reboot still pending, which is said in words only
//! (iDRAC-Redfish-Scripting issue 266). So
//! the state of a [`Job`] is what state, status and messages say together.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    client::Client,
    discovery::{Collection, ROOT, is_document, own_path},
    document::{Message, at, field, items, link, message, number_at, short_id, str_at, text, text_at},
    error::Error,
    model::{Job, Jobs, TaskSource, TaskState, Unreadable},
};

impl Client {
    /// The jobs of the device: Dell's own queue where there is one, because it lists what the others do not; or else
    /// those of the job service and of the task service together. An update is a task (DSP0266), also where a job
    /// service holds other work.
    ///
    /// # Errors
    /// [`crate::Problem::NoQueue`]: none is declared. A declared one that cannot be read, or is not found, is another error: a
    /// service that is starting shows its resources one by one. Jobs that cannot be read are no error; jobs that vanish
    /// meanwhile neither, but leave the answer incomplete.
    pub async fn jobs(&self) -> Result<Jobs, Error> {
        self.gathered(None).await
    }

    /// As [`Client::jobs`], without those whose ids are in `ended`: they have been read, and are over. The queues
    /// then tell their members by name, and only the others are read: quick also where a whole queue takes half a
    /// minute.
    ///
    /// # Errors
    /// As [`Client::jobs`].
    pub async fn jobs_beside(&self, ended: &[String]) -> Result<Jobs, Error> {
        self.gathered(Some(ended)).await
    }

    async fn gathered(&self, ended: Option<&[String]>) -> Result<Jobs, Error> {
        let queues = match self.oem_jobs().await? {
            Some(path) => vec![(TaskSource::OemJobs, path)],
            None => self.standard_queues().await?,
        };
        if queues.is_empty() {
            return Err(self.no_queue());
        }
        let mut found =
            Jobs { jobs: Vec::new(), sources: Vec::new(), unreadable: Vec::new(), complete: true };
        let mut places = BTreeMap::new();
        let ended = ended.map(|ended| ended.iter().map(String::as_str).collect::<BTreeSet<_>>());
        for (source, path) in queues {
            let collection = match &ended {
                None => self.collection(&path, true).await?,
                Some(ended) => self.members_beside(&path, ended).await?,
            };
            found.sources.push(source);
            found.unreadable.extend(collection.unreadable);
            found.complete &= collection.complete;
            for member in collection.members {
                match job(&path, member) {
                    Some(job) => found.take_in(&mut places, job),
                    None => {
                        let error = self.not_declared(&path, "the Id of a job");
                        found.unreadable.push(Unreadable { what: "a job without an id".to_owned(), error });
                        found.complete = false;
                    }
                }
            }
        }
        Ok(found)
    }

    async fn members_beside(&self, queue: &str, ended: &BTreeSet<&str>) -> Result<Collection, Error> {
        let mut listed = self.collection(queue, false).await?;
        for member in std::mem::take(&mut listed.members) {
            let Some(path) = link(&member).filter(|_| !is_document(&member)) else {
                listed.members.push(member);
                continue;
            };
            if last_segment(path).is_some_and(|last| ended.contains(own_id(queue, last.to_owned()).as_str()))
            {
                continue;
            }
            match self.get(path).await {
                Ok(document) => listed.members.push(document.value),
                Err(error) => {
                    listed.complete = false;
                    listed.unreadable.push(Unreadable { what: path.to_owned(), error });
                }
            }
        }
        Ok(listed)
    }

    /// One job by its id, asked from each queue in turn; `None` when none of them knows it (any more).
    ///
    /// # Errors
    /// There is no queue, the id is not one, or a queue cannot be asked: then absence is not proved.
    pub async fn job(&self, id: &str) -> Result<Option<Job>, Error> {
        self.check_job_id(id)?;
        let mut queues = self.queues().await?;
        // Dell's own queue first: it has the job's type and its messages.
        queues.reverse();
        for (_, path) in queues {
            if let Some(member) = member_path(&path, id)
                && let Some(document) = self.find(&member).await?
                && let Some(job) = job(&path, document.value)
            {
                return Ok(Some(job));
            }
        }
        Ok(None)
    }

    /// The collections of work: tasks, the job service's jobs, Dell's own jobs.
    pub(crate) async fn queues(&self) -> Result<Vec<(TaskSource, String)>, Error> {
        let mut queues = self.standard_queues().await?;
        queues.reverse();
        queues.extend(self.oem_jobs().await?.map(|path| (TaskSource::OemJobs, path)));
        Ok(queues)
    }

    /// The job service's jobs, then the tasks.
    async fn standard_queues(&self) -> Result<Vec<(TaskSource, String)>, Error> {
        let service = self.job_service_jobs().await?.map(|path| (TaskSource::JobService, path));
        let tasks = self.task_service_tasks().await?.map(|path| (TaskSource::Task, path));
        Ok(service.into_iter().chain(tasks).collect())
    }

    /// Dell's own queue.
    async fn oem_jobs(&self) -> Result<Option<String>, Error> {
        Ok(self.manager_if_declared().await?.and_then(|links| links.oem_jobs.clone()))
    }

    /// Where the job with this id is: in Dell's queue where there is one, otherwise in the queue that shows it; `None`
    /// when none does.
    pub(crate) async fn place_of(&self, id: &str) -> Result<Option<String>, Error> {
        if let Some(queue) = self.oem_jobs().await? {
            return Ok(member_path(&queue, id));
        }
        let queues = self.standard_queues().await?;
        if queues.is_empty() {
            return Err(self.no_queue());
        }
        for member in queues.iter().filter_map(|(_, queue)| member_path(queue, id)) {
            if self.find(&member).await?.is_some() {
                return Ok(Some(member));
            }
        }
        Ok(None)
    }

    pub(crate) fn check_job_id(&self, id: &str) -> Result<(), Error> {
        let id = id.strip_prefix(OF_JOB_SERVICE).filter(|number| is_number(number)).unwrap_or(id);
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let wildcard = id.to_ascii_uppercase().contains("CLEARALL");
        if id.is_empty() || id.len() > 128 || !id.bytes().all(plain) || wildcard {
            return Err(self.bad_request(ROOT, "not the id of one job"));
        }
        Ok(())
    }
}

impl Jobs {
    /// What the job service and the task service both list under one id, or [as each other's mirror](mirrors), is one
    /// job; the account of it counts in which it is more alive. `places`: where each id stands, as a queue may be long.
    fn take_in(&mut self, places: &mut BTreeMap<String, usize>, job: Job) {
        let alive = |state: &TaskState| match state {
            TaskState::Running | TaskState::Other(_) => 2,
            state => u8::from(!state.is_final()),
        };
        let mirror = || places.get(&format!("{OF_JOB_SERVICE}{}", job.id)).copied();
        let mirror =
            || mirror().filter(|place| self.jobs.get(*place).is_some_and(|known| mirrors(known, &job)));
        let place = places.get(&job.id).copied().or_else(mirror);
        let Some(known) = place.and_then(|place| self.jobs.get_mut(place)) else {
            places.insert(job.id.clone(), self.jobs.len());
            self.jobs.push(job);
            return;
        };
        let (id, task_id) = (known.id.clone(), Some(job.id.clone()).filter(|id| *id != known.id));
        if alive(&known.state) < alive(&job.state) {
            *known = job;
        }
        known.id = id;
        known.task_id = task_id;
    }
}

/// Whether a job of the job service and a task of the same number are certainly one piece of work: either links to
/// the other, or both have the same name and began at the same moment. Services that count in both are rare: those
/// whose documents are public keep schedules and scripts as jobs, under words (Lenovo XCC) or numbers of their own
/// (Huawei, openUBMC), or the same work under ids that are no mere numbers (Dell). Two for one is a wait, one for two
/// hides work.
fn mirrors(job: &Job, task: &Job) -> bool {
    let linked = |one: &Job, other: &Job| {
        let links = field(&one.raw, "Links").and_then(Value::as_object);
        let paths = links.into_iter().flat_map(|links| links.values()).flat_map(items).filter_map(link);
        let other = other.path.trim_end_matches('/');
        !other.is_empty() && paths.take(64).any(|path| path.trim_end_matches('/') == other)
    };
    // A clock that was never set shows the same moment for all.
    let moment = job.started.as_deref().filter(|time| *time > "2001" && time.starts_with('2'));
    let alike = job.name == task.name && moment.is_some() && moment == task.started.as_deref();
    alike || linked(job, task) || linked(task, job)
}

/// Begins the ids of jobs of a job service that are mere numbers. Both services may count: job 1 is not task 1.
const OF_JOB_SERVICE: &str = "Jobs/";

fn is_number(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_of_job_service(path: &str) -> bool {
    path.contains("/JobService/")
}

/// The id by which this client knows the work that is called `id` at `path`.
pub(crate) fn own_id(path: &str, id: String) -> String {
    if is_of_job_service(path) && is_number(&id) { format!("{OF_JOB_SERVICE}{id}") } else { id }
}

/// The member of a collection with this id; `None` for the id of another collection. By the letter of DSP0266 such a
/// path is opaque; every service seen so far builds it like this, and a 404 leads on to the next source.
pub(crate) fn member_path(collection: &str, id: &str) -> Option<String> {
    let (of_job_service, name) = match id.strip_prefix(OF_JOB_SERVICE) {
        Some(number) => (true, number),
        None => (is_of_job_service(collection) && !is_number(id), id),
    };
    (of_job_service == is_of_job_service(collection))
        .then(|| format!("{}/{name}", collection.trim_end_matches('/')))
}

fn last_segment(path: &str) -> Option<&str> {
    path.trim_end_matches('/').rsplit('/').next().filter(|last| !last.is_empty())
}

/// Reads a `DellJob`, `Job` or `Task` of the collection at `queue`. `None`: it has no id.
pub(crate) fn job(queue: &str, raw: Value) -> Option<Job> {
    let path = own_path(&raw);
    let id = own_id(queue, text_at(&raw, "Id").or_else(|| last_segment(&path).map(str::to_owned))?);
    let raw_state = text_at(&raw, "JobState").or_else(|| text_at(&raw, "TaskState"));
    let messages = messages(&raw);
    let status = str_at(&raw, "JobStatus").or_else(|| str_at(&raw, "TaskStatus"));
    Some(Job {
        name: text_at(&raw, "Name").unwrap_or_else(|| id.clone()),
        kind: text_at(&raw, "JobType"),
        state: state(raw_state.as_deref(), status, &messages),
        percent: number_at(&raw, "PercentComplete").and_then(|percent| u8::try_from(percent.min(100)).ok()),
        message: messages.last().cloned(),
        started: text_at(&raw, "ActualRunningStartTime").or_else(|| text_at(&raw, "StartTime")),
        ended: text_at(&raw, "CompletionTime").or_else(|| text_at(&raw, "EndTime")),
        targets: targets(&raw),
        path,
        id,
        task_id: None,
        raw_state,
        raw,
    })
}

/// The messages of a job: a list in `Messages`, or `MessageId` and `Message` of the job itself (`DellJob`).
fn messages(raw: &Value) -> Vec<Message> {
    let listed: Vec<Message> =
        field(raw, "Messages").into_iter().flat_map(items).filter_map(message).take(64).collect();
    if listed.is_empty() { message(raw).into_iter().collect() } else { listed }
}

/// Targets as paths or as text; Dell names the device in the job's name only.
fn targets(raw: &Value) -> Vec<String> {
    let holders =
        [at(raw, &["Links", "AffectedResources"]), field(raw, "Targets"), field(raw, "TargetSettingsURI")];
    let values = holders.into_iter().flatten().flat_map(items);
    values.filter_map(|value| link(value).map(str::to_owned).or_else(|| text(value))).take(64).collect()
}

/// The state that state, status and messages amount to.
pub(crate) fn state(raw_state: Option<&str>, status: Option<&str>, messages: &[Message]) -> TaskState {
    let state = by_name(raw_state);
    let scheduled = || messages.last().is_some_and(|message| message.short_id() == Some("JCP001"));
    if state == TaskState::New && scheduled() {
        return TaskState::Scheduled;
    }
    if state != TaskState::Completed {
        return state;
    }
    // A list of messages is a history: the last one that speaks of an end counts.
    let told = messages.iter().rev().find_map(|message| ending(message.id.as_deref()?));
    if told == Some(TaskState::Failed) || status == Some("Critical") {
        return TaskState::Failed;
    }
    if told == Some(TaskState::CompletedWithErrors) || status == Some("Warning") {
        return TaskState::CompletedWithErrors;
    }
    let pending = |message: &Message| {
        let text = message.text.to_ascii_lowercase();
        message.short_id() == Some("RED029") || text.contains("reboot") && text.contains("pending")
    };
    if messages.iter().any(pending) {
        return TaskState::CompletedRebootPending;
    }
    TaskState::Completed
}

/// Ids of messages that end a job without success, from Dell's registry (see `classify.rs` for where it was read).
#[rustfmt::skip]
const FAILED: &[&str] = &[
    "PR21", "PR26", "PR30", "PR34", "JCP003", "JCP004", "JCP042", "JCP052",
    "RED004", "RED005", "RED006", "RED007", "RED008", "RED013", "RED016", "RED017", "RED022", "RED026", "RED050",
    "RED051", "RED056", "RED057", "RED091", "RED097", "RED098", "RED101", "RED103", "RED107", "RED108", "RED109",
    "RED114", "RED115", "RED116", "RED132", "RED144", "RED145", "RED146", "RED147", "RED148",
    "SUP0513", "SUP0515", "SUP0517", "SUP0519", "SUP0520", "SUP0522", "SUP0525", "SUP0526", "SUP0527", "SUP0537",
    "SUP0538", "SUP0542", "SUP0543", "SUP0547", "SUP0548", "SUP0549", "SUP0550", "SUP1907", "SUP1908", "SUP1909",
];
const WITH_ERRORS: &[&str] = &["JCP008", "PR31"];
const COMPLETED: &[&str] = &[
    "PR19", "JCP007", "JCP037", "RED001", "RED025", "RED063", "RED092", "RED143", "SUP0518", "SUP0536",
    "SUP1906",
];
const CANCELLED: &[&str] = &["PR24", "JCP009", "JCP036"];

/// Refines the state of an update's task by its last message. An iDRAC's tasks have coarser states than the jobs
/// behind them; its message tells them apart. From Dell's registry (see `classify.rs`): JCP001 "Task successfully
/// scheduled", RED002 "Package successfully downloaded", RED003 "Downloading package", RED029 "A reboot is pending".
pub(crate) fn refined(state: TaskState, message_id: Option<&str>) -> TaskState {
    match (&state, message_id) {
        (TaskState::New, Some("JCP001")) => TaskState::Scheduled,
        (TaskState::Scheduled, Some("RED029")) => TaskState::CompletedRebootPending,
        (TaskState::New | TaskState::Running, Some("RED002" | "RED003")) => TaskState::Downloading,
        _ => state,
    }
}

/// Whether a failed job provably never had its whole package, so that handing it over again may help. From Dell's
/// registry: RED006, RED016 and RED051 are failed transfers, RED007 and RED008 a package that arrived unreadable,
/// RED114 and RED115 a restart of the iDRAC before or during the download, SUP1909 a failed download.
#[must_use]
pub fn never_had_package(message_id: &str) -> bool {
    let ids = ["RED006", "RED007", "RED008", "RED016", "RED051", "RED114", "RED115", "SUP1909"];
    ids.contains(&short_id(message_id))
}

/// How a job ended, told by one log message about it.
pub(crate) fn ending(message_id: &str) -> Option<TaskState> {
    let id = short_id(message_id);
    match id {
        _ if FAILED.contains(&id) => Some(TaskState::Failed),
        _ if WITH_ERRORS.contains(&id) => Some(TaskState::CompletedWithErrors),
        _ if COMPLETED.contains(&id) => Some(TaskState::Completed),
        _ if CANCELLED.contains(&id) => Some(TaskState::Cancelled),
        _ => None,
    }
}

/// The union of `TaskState` and `JobState` (DSP2046) and of Dell's `JobState` (schema `DellJob` on an R750).
fn by_name(state: Option<&str>) -> TaskState {
    match state.unwrap_or_default() {
        "New" | "Starting" | "Validating" => TaskState::New,
        "Downloading" | "Downloaded" => TaskState::Downloading,
        "Scheduled" | "Scheduling" | "ReadyForExecution" | "PendingActivation" | "RebootPending"
        | "Pending" => TaskState::Scheduled,
        "Running" | "Stopping" | "Cancelling" | "Continue" => TaskState::Running,
        "Waiting" | "Paused" | "Suspended" | "Interrupted" | "UserIntervention" | "Service" => {
            TaskState::Waiting
        }
        // `Success` is Huawei's word for a task.
        "Completed" | "RebootCompleted" | "Success" => TaskState::Completed,
        "CompletedWithErrors" => TaskState::CompletedWithErrors,
        "Failed" | "RebootFailed" | "Exception" | "Invalid" => TaskState::Failed,
        "Cancelled" | "Killed" => TaskState::Cancelled,
        "" => TaskState::Other("not said".to_owned()),
        other => TaskState::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_as_far_as_its_message_says() {
        let of = |state, id| refined(state, Some(id));
        assert_eq!(of(TaskState::New, "JCP001"), TaskState::Scheduled);
        assert_eq!(of(TaskState::Running, "RED003"), TaskState::Downloading);
        assert_eq!(of(TaskState::Scheduled, "RED029"), TaskState::CompletedRebootPending);
        assert_eq!(of(TaskState::Completed, "RED002"), TaskState::Completed, "an end stands");
        assert_eq!(refined(TaskState::New, None), TaskState::New);
    }

    #[test]
    fn only_a_failed_transfer_is_worth_another() {
        assert!(never_had_package("IDRAC.2.7.RED006") && never_had_package("RED115"));
        // For another component; no rollback on this device: it had the package, or never wanted one.
        assert!(!never_had_package("RED097") && !never_had_package("RED018") && !never_had_package("PR21"));
    }
}
