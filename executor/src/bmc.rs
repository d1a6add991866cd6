//! What handlers need from a BMC, whatever protocol carries it.
//!
//! [`Bmc`] is the narrow seam between handlers and transports: `broker/redfish.rs` implements it over
//! `rackhand-redfish`, tests over models. Handlers never hold a `Bmc` itself but a [`crate::broker::Line`],
//! which adds the rate, the priorities and the permits. Errors carry the one decision handlers take
//! ([`BmcErrorKind`]) and a text for people.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use futures::future::BoxFuture;
use rackhand_schema::{
    job::PowerAction,
    server::{Inventory, PowerState},
};
use serde::{Deserialize, Serialize};

/// What a caller can do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcErrorKind {
    /// No connection; nothing was sent. Expected while a BMC restarts itself.
    Unreachable,
    /// It answers, but is not ready or has too much to do; it asked to come back.
    NotReady { retry_after: Option<Duration> },
    /// It shows another TLS key than the pinned one. Nothing was sent.
    KeyChanged,
    /// It refuses the credential.
    Auth,
    /// The password may not be presented: budget spent, or the control plane cannot be asked.
    AuthWithheld { final_word: bool },
    /// It does not know the call.
    Unsupported,
    /// It knows the call and says no.
    Refused,
    /// There is no such object (any more).
    NotFound,
    /// A mutation was sent, and whether it was taken is not known.
    Ambiguous,
    /// The permit did not allow to send it; nothing was sent.
    Held(crate::lease::Hold),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BmcError {
    pub kind: BmcErrorKind,
    /// The vendor's message id, e.g. `SUP029`.
    pub message_id: Option<String>,
    /// For people; cleaned, without secrets.
    pub detail: String,
}

impl BmcError {
    pub fn new(kind: BmcErrorKind, detail: impl AsRef<str>) -> Self {
        Self { kind, message_id: None, detail: crate::text::clean(detail.as_ref()) }
    }
}

/// State of a device job, over all vendors' vocabularies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobPhase {
    New,
    Downloading,
    /// Waits for a reboot of the host (or for its time).
    Scheduled,
    Running,
    /// Paused, or behind another job.
    Waiting,
    Completed,
    /// Done, and taken over at the next reboot (FAILURE-MODES D16).
    RebootPending,
    Failed,
    Cancelled,
    /// No queue, task or log knows it any more (D14).
    Vanished,
    /// A word this executor does not know.
    Other(String),
}

impl JobPhase {
    /// Whether it still occupies the device. An unknown word counts as alive.
    pub fn is_live(&self) -> bool {
        !matches!(
            self,
            Self::Completed | Self::RebootPending | Self::Failed | Self::Cancelled | Self::Vanished
        )
    }

    /// Whether a reset now could hit it in the act.
    pub fn may_be_flashing(&self) -> bool {
        matches!(self, Self::Running | Self::Other(_))
    }
}

/// A job in a device's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceJob {
    pub id: String,
    pub name: String,
    pub phase: JobPhase,
    /// Whether it updates firmware, where the device tells.
    pub firmware: Option<bool>,
    /// What it acts on, where the device tells: component keys or paths.
    pub targets: Vec<String>,
}

/// Where a device job stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    pub phase: JobPhase,
    pub percent: Option<u8>,
    pub message_id: Option<String>,
    pub message: String,
}

/// A handle on accepted work; goes into journals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRef {
    pub id: Option<String>,
    pub path: Option<String>,
    /// Newest log record before the request: the log is searched after it only.
    pub log_mark: Option<u64>,
}

impl JobRef {
    pub fn names(&self, id: &str) -> bool {
        self.id.as_deref() == Some(id)
    }
}

/// Whether the device takes and carries out jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// The device's own words.
    pub detail: String,
}

/// How packages get in, and what happens then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateSupport {
    pub multipart_push: bool,
    /// SimpleUpdate's transfer protocols, upper case; empty and `simple_update` true: not said.
    pub simple_update: bool,
    pub protocols: BTreeSet<String>,
    /// `OnReset` is listed for SimpleUpdate or for pushes.
    pub on_reset: bool,
    /// The request itself restarts the host (old firmware).
    pub reboots_by_itself: bool,
    /// Power actions the device declares; empty: not said.
    pub resets: BTreeSet<String>,
}

/// How a package is handed over.
#[derive(Debug, Clone)]
pub enum Handover {
    /// Pushed by us.
    Push { file_name: String, bytes: Bytes },
    /// Fetched by the BMC.
    Pull { url: String },
}

#[derive(Debug, Clone)]
pub struct StageRequest {
    pub handover: Handover,
    /// Ask to wait for a reset; only where it is declared.
    pub on_reset: bool,
    pub log_mark: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staged {
    Started(JobRef),
    /// The device says that it has this version already (D22).
    UpToDate(String),
}

/// A BMC, as far as handlers go. Mutations end by `limit`; a lost answer is [`BmcErrorKind::Ambiguous`].
pub trait Bmc: Send + Sync {
    fn inventory(&self) -> BoxFuture<'_, Result<Inventory, BmcError>>;
    fn power(&self) -> BoxFuture<'_, Result<PowerState, BmcError>>;
    fn jobs(&self) -> BoxFuture<'_, Result<Vec<DeviceJob>, BmcError>>;
    /// Number of the newest record of the lifecycle log; none where there is no such log.
    fn log_mark(&self) -> BoxFuture<'_, Result<Option<u64>, BmcError>>;
    /// Messages recorded after `mark`, newest first: id and text.
    fn log_since(&self, mark: Option<u64>) -> BoxFuture<'_, Result<Vec<(String, String)>, BmcError>>;
    fn readiness(&self) -> BoxFuture<'_, Result<Readiness, BmcError>>;
    fn update_support(&self) -> BoxFuture<'_, Result<UpdateSupport, BmcError>>;
    fn follow<'a>(&'a self, job: &'a JobRef) -> BoxFuture<'a, Result<JobProgress, BmcError>>;

    fn stage(&self, request: StageRequest, limit: Duration) -> BoxFuture<'_, Result<Staged, BmcError>>;
    fn reset(&self, action: PowerAction, limit: Duration) -> BoxFuture<'_, Result<(), BmcError>>;
    fn delete_job<'a>(&'a self, id: &'a str, limit: Duration) -> BoxFuture<'a, Result<(), BmcError>>;

    /// Ends the session at the BMC.
    fn close(&self) -> BoxFuture<'_, ()>;
}
