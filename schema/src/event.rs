//! Events: append-only facts about a job, run, server or sign-in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{JobId, RunId, ServerId, SiteId, TraceId, UserId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActorKind {
    User,
    Executor,
    /// Somebody who had not signed in.
    Anonymous,
    /// Rackhand itself.
    #[default]
    System,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Position for `after`, `before` and `Last-Event-ID`: opaque, ordered, never skipped.
    pub cursor: String,
    pub at: Timestamp,
    /// What happened: `job.approved`, `run.state`, `run.phase`, `run.log`, `login.failed`, …
    pub kind: String,
    pub level: Level,
    pub message: String,
    pub site_id: Option<SiteId>,
    pub job_id: Option<JobId>,
    pub run_id: Option<RunId>,
    pub server_id: Option<ServerId>,
    /// Whom it is about, where that is a person.
    #[serde(default)]
    pub user_id: Option<UserId>,
    /// Their name.
    #[serde(default)]
    pub user: Option<String>,
    pub trace_id: Option<TraceId>,
    /// Who did it: a person's or an executor's name, as it is now.
    pub actor: String,
    #[serde(default)]
    pub actor_kind: ActorKind,
    /// Reported by an executor whose lease had passed on meanwhile: kept as an observation.
    pub late: bool,
    pub data: serde_json::Value,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub items: Vec<Event>,
    /// Continue in the same direction from here; also given when there was nothing more.
    pub cursor: String,
    /// There may be more already: a page ends at `limit`, or at about 1 MiB.
    pub more: bool,
}
