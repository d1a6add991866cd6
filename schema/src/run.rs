//! Runs, phases and effects: one target's execution of a job.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{EffectId, ExecutorId, JobId, RunId, ServerId, SiteId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Waits for capacity, or for an executor.
    Queued,
    /// Granted to an executor that has not reported yet.
    Leased,
    Running,
    /// The device works, or something is awaited; `reason` says what.
    Waiting,
    /// Effects are being undone.
    Settling,
    Succeeded,
    NoChange,
    Failed,
    Cancelled,
    /// Whether the change happened could not be found out. Keeps its slots until a person decides.
    Unknown,
}

impl RunState {
    pub const fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::NoChange | Self::Failed | Self::Cancelled | Self::Unknown)
    }
}

/// How a run ended, reported by the executor that held its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Succeeded,
    NoChange,
    Failed,
    Cancelled,
    Unknown,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Run {
    pub id: RunId,
    pub job_id: JobId,
    pub site_id: SiteId,
    pub server_id: ServerId,
    pub server: String,
    pub state: RunState,
    /// Machine word for why (`lease_expired`, `capacity`, `device_job`, an error code …); may be empty.
    pub reason: String,
    /// The same for people.
    pub detail: String,
    pub since: Timestamp,
    /// The phase it is in.
    pub phase: String,
    /// 0–100 within the phase where the device tells.
    pub percent: Option<u8>,
    pub epoch: u64,
    pub executor: Option<ExecutorId>,
    pub executor_name: Option<String>,
    pub cancel_requested: bool,
    pub created_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

/// A run with its timeline.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    #[serde(flatten)]
    pub run: Run,
    pub phases: Vec<PhaseRecord>,
    pub effects: Vec<Effect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PhaseState {
    Running,
    Done,
    Skipped,
    Failed,
}

/// One phase of a run's timeline; a resumed phase keeps its row.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PhaseRecord {
    pub phase: String,
    pub state: PhaseState,
    pub started_at: Timestamp,
    pub finished_at: Option<Timestamp>,
    /// What was read back, or what the phase found.
    pub evidence: serde_json::Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EffectState {
    /// Announced; whether it was applied is not known yet.
    Intended,
    /// Applied and read back.
    Applied,
    NotApplied,
    Settling,
    /// Restored and read back.
    Settled,
    /// Somebody else changed it meanwhile; left alone, for a person to see.
    Conflict,
}

impl EffectState {
    /// Whether somebody still has to undo or resolve it.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Intended | Self::Applied | Self::Settling)
    }
}

/// A reversible change made on the way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Effect {
    pub id: EffectId,
    /// What was changed, e.g. `host_power` or `bmc_job`.
    pub object: String,
    /// Which property of it, e.g. `state` or the id of the device job.
    pub property: String,
    /// Its value before.
    pub prior: serde_json::Value,
    /// The value that was set; restored only while it is still there.
    pub wanted: serde_json::Value,
    pub state: EffectState,
}
