//! Events: append-only facts about a job, run, server or sign-in.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{JobId, RunId, ServerId, SiteId, TraceId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
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
    pub trace_id: Option<TraceId>,
    /// Who: a person's or an executor's name.
    pub actor: String,
    /// Reported by an executor whose lease had passed on meanwhile: kept as an observation.
    pub late: bool,
    pub data: serde_json::Value,
    /// Hash-chain link of its stream, hex: SHA-256 over the previous link and this event.
    pub hash: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub items: Vec<Event>,
    /// Continue in the same direction from here; also given when there was nothing more.
    pub cursor: String,
}
