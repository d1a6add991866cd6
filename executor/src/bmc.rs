//! What handlers need from a BMC, whatever protocol carries it.
//!
//! [`Bmc`] is the narrow seam between handlers and transports, and its capabilities ([`Power`], [`BootControl`],
//! [`EventLog`], [`Sensors`], [`Console`], [`Firmware`]) are small traits that each transport implements as far as its
//! protocol goes: `broker/redfish` over `rackhand-redfish`, `broker/ipmi` over `rackhand-ipmi`. Handlers never hold a
//! `Bmc` itself but a [`crate::broker::Line`], which chooses the transport and adds the rate, the priorities and the
//! permits. Errors carry the one decision handlers take ([`BmcErrorKind`]) and a text for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use rackhand_schema::{
    job::{BootMode, BootOverrideParams, BootTarget, BootTimes, PowerAction},
    server::{Health, Inventory, PowerState},
};
use serde::{Deserialize, Serialize};

/// What a caller can do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcErrorKind {
    /// No connection; nothing was sent. Expected while a BMC restarts itself.
    Unreachable,
    /// It answers, but is not ready or has too much to do; it asked to come back.
    NotReady { retry_after: Option<Duration> },
    /// Somebody else's work in the device is in the way; nothing was sent.
    ForeignJob,
    /// It shows another TLS key than the pinned one. Nothing was sent.
    KeyChanged,
    /// It belongs to another machine than the plan names. Nothing but that question was sent.
    AnotherMachine,
    /// It refuses the credential.
    Auth,
    /// The password may not be presented: budget spent, or the control plane cannot be asked.
    AuthWithheld { final_word: bool },
    /// It does not know the call.
    Unsupported,
    /// It declares no queue of jobs.
    NoQueue,
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
    /// Done, and taken over at the next reboot.
    RebootPending,
    Failed,
    Cancelled,
    /// No queue, task or log knows it any more.
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

    /// Whether it merely waits: for a boot of the host, its time or another job. Whatever else is alive runs, or
    /// begins by itself within seconds.
    pub fn waits(&self) -> bool {
        matches!(self, Self::Scheduled | Self::Waiting)
    }

    /// Whether a boot of the host carries it out.
    pub fn awaits_a_boot(&self) -> bool {
        self.waits() || *self == Self::RebootPending
    }
}

/// A job in a device's queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceJob {
    pub id: String,
    /// Its other id, where the device lists it in two places.
    #[serde(default)]
    pub other_id: Option<String>,
    pub name: String,
    pub phase: JobPhase,
    /// Whether it updates firmware, where the device tells.
    pub firmware: Option<bool>,
    /// What it acts on, where the device tells: component keys or paths.
    pub targets: Vec<String>,
}

impl DeviceJob {
    /// Whether it is the one with this id.
    pub fn is(&self, id: &str) -> bool {
        self.id == id || self.other_id.as_deref() == Some(id)
    }
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

/// Whether the device takes and carries out jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// Why a restart of the host would hit something in the act, where the device tells.
    pub host_at_work: Option<HostWork>,
    /// The device's own words.
    pub detail: String,
}

/// A host on its way into staged tasks, or in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostWork {
    pub words: String,
    /// It carries them out. Otherwise it is in a boot, which may hang for another reason.
    pub tasks: bool,
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

/// Who a machine says it is. Placeholders of its maker are as good as nothing and are sorted out when compared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Service tag, or the product's serial number.
    pub tag: Option<String>,
    /// Other serial numbers; one that is the expected tag proves the machine, another one proves nothing.
    pub serials: Vec<String>,
    pub uuid: Option<String>,
}

/// Records of a log, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSince {
    /// Id and text.
    pub records: Vec<(String, String)>,
    /// Nothing is missing between the mark and now: the log was not cleared, and was read whole.
    pub whole: bool,
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
    /// Taken, but the answer names no job: the queue must tell which one it is.
    Unnamed,
    /// The device says that it has this version already.
    UpToDate(String),
}

/// A way to speak to a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    Redfish,
    Ipmi,
}

impl std::fmt::Display for Via {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Redfish => "Redfish",
            Self::Ipmi => "IPMI",
        })
    }
}

type Answer<'a, T> = BoxFuture<'a, Result<T, BmcError>>;

/// The host's power. Mutations, here and below, end by `limit`; a lost answer is [`BmcErrorKind::Ambiguous`].
pub trait Power: Send + Sync {
    fn state(&self) -> Answer<'_, PowerState>;
    /// Whether the device knows the action; asked before an intent.
    fn supports(&self, action: PowerAction) -> Answer<'_, bool>;
    /// When the host was last reset, in the device's words: good for "has changed" only, as its clock may lie. None
    /// where it does not tell.
    fn last_reset(&self) -> Answer<'_, Option<String>> {
        Box::pin(std::future::ready(Ok(None)))
    }
    fn switch(&self, action: PowerAction, limit: Duration) -> Answer<'_, ()>;
}

/// What the host boots from, as the device shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootSetting {
    /// Absent: a source this executor has no word for; `shown` has the device's.
    pub target: Option<BootTarget>,
    /// Absent: no override stands.
    pub times: Option<BootTimes>,
    pub mode: Option<BootMode>,
    /// The device's own words.
    pub shown: String,
}

impl BootSetting {
    /// Whether it is what was asked for.
    pub fn is(&self, wanted: &BootOverrideParams) -> bool {
        if wanted.target == BootTarget::None {
            return self.times.is_none() || self.target == Some(BootTarget::None);
        }
        self.target == Some(wanted.target)
            && self.times == Some(wanted.times)
            && wanted.mode.is_none_or(|mode| self.mode == Some(mode))
    }
}

pub trait BootControl: Send + Sync {
    fn setting(&self) -> Answer<'_, BootSetting>;
    /// Whether the device knows these words; asked before an intent.
    fn supports(&self, wanted: BootOverrideParams) -> Answer<'_, bool>;
    fn set(&self, wanted: BootOverrideParams, limit: Duration) -> Answer<'_, ()>;
}

/// What a log says about the host's power since a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerTrace {
    /// It changed.
    Seen,
    /// It did not: this device writes every change down.
    Nothing,
    /// The log does not tell: there is none, it was cleared, or this device does not write every change down.
    Untold,
}

/// The device's log of what happened to the machine.
pub trait EventLog: Send + Sync {
    /// The newest record; none where there is no log, or nothing in it.
    fn mark(&self) -> Answer<'_, Option<u64>>;
    fn power_since(&self, mark: u64) -> Answer<'_, PowerTrace>;
}

/// One reading.
#[derive(Debug, Clone, PartialEq)]
pub struct SensorReading {
    pub name: String,
    /// In `unit`; absent for a sensor that has states only, or shows nothing.
    pub value: Option<f64>,
    pub unit: String,
    pub health: Health,
}

/// What the sensors of a server show.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SensorReport {
    /// In the device's order.
    pub readings: Vec<SensorReading>,
    /// Part → why it could not be read.
    pub unreadable: BTreeMap<String, String>,
}

pub trait Sensors: Send + Sync {
    /// Every sensor once.
    fn sensors(&self) -> Answer<'_, SensorReport>;
}

/// The host's serial console: bytes both ways, for one reader at a time.
pub trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Stream for T {}

pub trait Console: Send + Sync {
    /// Refused while somebody else has it. Dropping the stream gives it back.
    fn open(&self) -> Answer<'_, Box<dyn Stream>>;
}

/// The device's job queue and update service.
pub trait Firmware: Send + Sync {
    /// The queue.
    fn jobs(&self) -> Answer<'_, Vec<DeviceJob>>;
    /// The queue without the jobs of these ids, which were seen to be over: quicker where it is long.
    fn jobs_beside(&self, ended: Vec<String>) -> Answer<'_, Vec<DeviceJob>>;
    /// Number of the newest record of the lifecycle log; none where there is no such log.
    fn log_mark(&self) -> Answer<'_, Option<u64>>;
    /// Messages recorded after `mark`.
    fn log_since(&self, mark: u64) -> Answer<'_, LogSince>;
    fn readiness(&self) -> Answer<'_, Readiness>;
    fn update_support(&self) -> Answer<'_, UpdateSupport>;
    fn follow<'a>(&'a self, job: &'a JobRef) -> Answer<'a, JobProgress>;

    fn stage(&self, request: StageRequest, limit: Duration) -> Answer<'_, Staged>;
    fn delete_job<'a>(&'a self, id: &'a str, limit: Duration) -> Answer<'a, ()>;
}

/// A BMC over one transport. What the transport cannot carry at all is absent; what this very device cannot do shows
/// as [`BmcErrorKind::Unsupported`] when it is asked.
pub trait Bmc: Send + Sync {
    fn via(&self) -> Via;
    /// Who the machine says it is.
    fn machine(&self) -> Answer<'_, Shown>;
    fn inventory(&self) -> Answer<'_, Inventory>;

    fn power(&self) -> Option<&dyn Power> {
        None
    }

    fn boot_control(&self) -> Option<&dyn BootControl> {
        None
    }

    fn event_log(&self) -> Option<&dyn EventLog> {
        None
    }

    fn sensors(&self) -> Option<&dyn Sensors> {
        None
    }

    fn console(&self) -> Option<&dyn Console> {
        None
    }

    fn firmware(&self) -> Option<&dyn Firmware> {
        None
    }

    /// Whether it pays the BMC's rate for each request by itself; otherwise each call is paid for once.
    fn paces_itself(&self) -> bool {
        false
    }

    /// The device has been away or has been updated: where its parts stand may have changed.
    fn forget(&self) {}

    /// Ends the session at the BMC.
    fn close(&self) -> BoxFuture<'_, ()>;
}
