//! What the client reads, as types. Every value that a BMC may leave out is an `Option` or has an `Unknown`.

use serde::{Deserialize, Serialize};

use crate::{
    document::{self, Evidence, Message},
    error::Error,
    version::Generation,
};

/// Something that could not be read while the rest went on.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// What, in words: `update service`, or the path of a member.
    pub what: String,
    /// Why.
    pub error: Error,
}

/// Who the server is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The vendor as the service says it (`Dell`, `Contoso`), without `Inc.`.
    pub vendor: Option<String>,
    /// The model of the system.
    pub model: Option<String>,
    /// The service tag: the SKU of a Dell system, otherwise none.
    pub service_tag: Option<String>,
    /// The serial number of the system (on a Dell: of its board).
    pub serial: Option<String>,
    /// The UUID of the system, as sent.
    pub uuid: Option<String>,
    /// The generation of the BMC.
    pub generation: Generation,
    /// The model of the BMC as sent, such as `15G Monolithic`.
    pub bmc_model: Option<String>,
    /// The firmware version of the BMC.
    pub bmc_version: Option<String>,
    /// The version of the BIOS.
    pub bios_version: Option<String>,
    /// `RedfishVersion` of the service root.
    pub redfish_version: Option<String>,
    /// What could not be read; the values above that come from it are `None`.
    pub unreadable: Vec<Unreadable>,
    /// The answers the values come from.
    pub evidence: Vec<Evidence>,
}

/// Power state of a system (DSP2046 `ComputerSystem.PowerState`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PowerState {
    /// Powered.
    On,
    /// Not powered, except the BMC.
    Off,
    /// Off → On is under way.
    PoweringOn,
    /// On → Off is under way.
    PoweringOff,
    /// Not said, or another value.
    Unknown,
}

/// Health (DSP2046 `Status.Health`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Not said.
    Unknown,
    /// Normal.
    Ok,
    /// Needs attention.
    Warning,
    /// Needs attention now.
    Critical,
}

/// A reset of a system (DSP2046 `Resource.ResetType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the protocol's own values, spelt the same")]
pub enum ResetKind {
    On,
    ForceOff,
    GracefulShutdown,
    GracefulRestart,
    ForceRestart,
    PowerCycle,
    PushPowerButton,
    Nmi,
    ForceOn,
}

impl ResetKind {
    /// The protocol's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::On => "On",
            Self::ForceOff => "ForceOff",
            Self::GracefulShutdown => "GracefulShutdown",
            Self::GracefulRestart => "GracefulRestart",
            Self::ForceRestart => "ForceRestart",
            Self::PowerCycle => "PowerCycle",
            Self::PushPowerButton => "PushPowerButton",
            Self::Nmi => "Nmi",
            Self::ForceOn => "ForceOn",
        }
    }

    /// From the protocol's value; `None` when this client does not know it.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        const ALL: [ResetKind; 9] = [
            ResetKind::On,
            ResetKind::ForceOff,
            ResetKind::GracefulShutdown,
            ResetKind::GracefulRestart,
            ResetKind::ForceRestart,
            ResetKind::PowerCycle,
            ResetKind::PushPowerButton,
            ResetKind::Nmi,
            ResetKind::ForceOn,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == value)
    }
}

/// A system now.
#[derive(Clone, Debug)]
pub struct System {
    /// Its path.
    pub path: String,
    /// Its id.
    pub id: Option<String>,
    /// Its host name, when the service knows it.
    pub host_name: Option<String>,
    /// Power.
    pub power: PowerState,
    /// Its own health.
    pub health: Health,
    /// Health including everything in it.
    pub health_rollup: Health,
    /// `BootProgress.LastState`, such as `OSRunning`.
    pub boot_progress: Option<String>,
    /// The resets it declares, of those this client knows. Empty when it declares none.
    pub reset_kinds: Vec<ResetKind>,
    /// `LastResetTime` as sent: without trust in the clock, only good for "has changed".
    pub last_reset: Option<String>,
    /// The answer.
    pub evidence: Evidence,
}

/// Health of the parts that report it.
#[derive(Clone, Debug)]
pub struct HealthReport {
    /// The worst that was reported.
    pub worst: Health,
    /// What was read: path, name and health.
    pub parts: Vec<PartHealth>,
    /// What could not be read.
    pub unreadable: Vec<Unreadable>,
}

/// Health of one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartHealth {
    /// Its path.
    pub path: String,
    /// Its name.
    pub name: String,
    /// The worse of its `Health` and `HealthRollup`.
    pub health: Health,
    /// `Status.State` as sent.
    pub state: Option<String>,
    /// Why it is so (DSP0268, `Resource.Status.Conditions`), at most 16.
    pub conditions: Vec<Message>,
}

/// Which firmware a row speaks of. Dell lists all three for a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FirmwareRow {
    /// Runs now, or after the next reboot.
    Installed,
    /// Runs now (listed by Dell next to `Installed`).
    Current,
    /// Kept for a rollback.
    Previous,
    /// Staged.
    Available,
    /// Kept beside the one that runs: its `Status.State` is `StandbySpare` or `StandbyOffline`, or its manager names
    /// another image as the active one.
    Standby,
    /// The service makes no difference; read as installed.
    Plain,
}

/// The four PCI ids of a device, as Dell's inventory gives them (hexadecimal text, upper case).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the four PCI ids need no further words")]
pub struct PciIds {
    pub vendor: String,
    pub device: String,
    pub sub_vendor: String,
    pub sub_device: String,
}

/// One row of the firmware inventory.
#[derive(Clone, Debug)]
pub struct FirmwareComponent {
    /// Its path.
    pub path: String,
    /// Its id, such as `Installed-159-1.8.2__BIOS.Setup.1-1`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The version; `None` when the service cannot say, which never means "downgraded".
    pub version: Option<String>,
    /// Dell: the component id that packages list; 0 for devices which are matched by PCI ids.
    pub software_id: Option<String>,
    /// Whether it can be updated; `None`: not said.
    pub updateable: Option<bool>,
    /// Which firmware the row speaks of.
    pub row: FirmwareRow,
    /// Its `Status.State`, where that says that this version does not run: it proves nothing about what does.
    pub inactive: Option<&'static str>,
    /// It is an image of the manager itself, which runs the version that the manager shows.
    pub of_bmc: bool,
    /// Dell: the device, such as `BIOS.Setup.1-1` or `NIC.Integrated.1-1-1`.
    pub fqdd: Option<String>,
    /// Dell: `BIOS`, `FRMW`, `APAC` …
    pub component_type: Option<String>,
    /// Dell: PCI ids of the device.
    pub pci: Option<PciIds>,
    /// When it was installed, as sent. BMC clocks are not to be trusted.
    pub installed_at: Option<String>,
    /// The row as it came, in an answer of its own or within an expanded collection.
    pub raw: serde_json::Value,
}

impl FirmwareComponent {
    /// Dell: whether an update of this device runs at once instead of being staged; it may still end with a reboot
    /// pending. `None`: not said (iDRAC-Redfish-Scripting issue 375).
    #[must_use]
    pub fn sideband_update_capable(&self) -> Option<bool> {
        let dell = document::at(&self.raw, &["Oem", "Dell", "DellSoftwareInventory"])?;
        document::bool_at(dell, "SidebandUpdateCapable")
    }
}

/// The firmware of a server.
#[derive(Clone, Debug)]
pub struct FirmwareInventory {
    /// The rows that could be read.
    pub components: Vec<FirmwareComponent>,
    /// The rows that could not.
    pub unreadable: Vec<Unreadable>,
    /// Whether every declared row was read. If not, a missing row proves nothing.
    pub complete: bool,
    /// Whether every row is either read or named as unreadable, by its path or its id.
    pub names_all: bool,
    /// The version of the BMC's own firmware, for managers that do not tell theirs.
    pub bmc_version: Option<String>,
}

impl FirmwareInventory {
    /// The row that tells what runs on a device: `Installed`, or the plain one.
    #[must_use]
    pub fn installed(&self, fqdd: &str) -> Option<&FirmwareComponent> {
        self.components.iter().find(|component| {
            let plain = component.row == FirmwareRow::Plain && component.id == fqdd;
            plain || component.row == FirmwareRow::Installed && component.fqdd.as_deref() == Some(fqdd)
        })
    }
}

/// When an update is applied (DSP2046 `Settings.OperationApplyTime`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the protocol's own values, spelt the same")]
pub enum ApplyTime {
    Immediate,
    OnReset,
    OnStartUpdateRequest,
    AtMaintenanceWindowStart,
    InMaintenanceWindowOnReset,
}

impl ApplyTime {
    /// The protocol's value.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Immediate => "Immediate",
            Self::OnReset => "OnReset",
            Self::OnStartUpdateRequest => "OnStartUpdateRequest",
            Self::AtMaintenanceWindowStart => "AtMaintenanceWindowStart",
            Self::InMaintenanceWindowOnReset => "InMaintenanceWindowOnReset",
        }
    }

    /// From the protocol's value; `None` when this client does not know it.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        const ALL: [ApplyTime; 5] = [
            ApplyTime::Immediate,
            ApplyTime::OnReset,
            ApplyTime::OnStartUpdateRequest,
            ApplyTime::AtMaintenanceWindowStart,
            ApplyTime::InMaintenanceWindowOnReset,
        ];
        ALL.into_iter().find(|kind| kind.as_str() == value)
    }
}

/// What a service declares to be able to do. Absence of a declaration is absence of the ability.
#[derive(Clone, Debug, Default)]
pub struct Capabilities {
    /// SimpleUpdate, when declared.
    pub simple_update: Option<SimpleUpdateSupport>,
    /// Path for multipart uploads.
    pub multipart_push: Option<String>,
    /// Path for plain uploads.
    pub http_push: Option<String>,
    /// Apply times declared outside SimpleUpdate (`MultipartHttpPushUri@…`, `HttpPushUriOptions`), or else those
    /// of SimpleUpdate.
    pub push_apply_times: Vec<ApplyTime>,
    /// The largest image in bytes, when said.
    pub max_image_bytes: Option<u64>,
    /// Dell's own job queue.
    pub oem_jobs: Option<String>,
    /// The job service's jobs.
    pub jobs: Option<String>,
    /// The task service's tasks.
    pub tasks: Option<String>,
    /// Dell's Lifecycle Controller service with `GetRemoteServicesAPIStatus`.
    pub readiness: Option<String>,
    /// The Lifecycle log's records.
    pub lifecycle_log: Option<String>,
    /// The session collection.
    pub sessions: Option<String>,
    /// Capacity of Dell's job queue.
    pub max_jobs: Option<u64>,
    /// Resets of the system.
    pub reset_kinds: Vec<ResetKind>,
    /// Resets of the manager, as declared.
    pub manager_reset_kinds: Vec<String>,
    /// What could not be read. What it would have declared is missing above without proof of absence.
    pub unreadable: Vec<Unreadable>,
}

/// SimpleUpdate as declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SimpleUpdateSupport {
    /// Where to POST.
    pub target: String,
    /// `TransferProtocol` values, upper case; empty when not declared.
    pub protocols: Vec<String>,
    /// Apply times; empty when not declared, and then none may be sent.
    pub apply_times: Vec<ApplyTime>,
}

/// What an update request sets in motion on this firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateSemantics {
    /// With `OnReset` the update is staged and waits for a reboot that somebody else causes.
    Staged,
    /// The request reboots the host by itself when the package needs a reboot: the POST is the reboot.
    RebootsByItself,
    /// The service does not say; expect a reboot.
    Unknown,
}

/// State of a job or task, over all the vocabularies of `DellJob`, `Job` and `Task`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskState {
    /// Created; not scheduled yet.
    New,
    /// The package is being fetched or has been fetched.
    Downloading,
    /// Waits for its time or for a reboot of the host.
    Scheduled,
    /// Runs.
    Running,
    /// Paused by somebody, or waiting for another.
    Waiting,
    /// Done without an error.
    Completed,
    /// Done, and the host must be rebooted to take it over.
    CompletedRebootPending,
    /// Done; some of it failed.
    CompletedWithErrors,
    /// Failed.
    Failed,
    /// Cancelled or deleted while it was known.
    Cancelled,
    /// No source knows it any more, and the log does not tell how it ended.
    Vanished,
    /// Another value, as sent.
    Other(String),
}

impl TaskState {
    /// Whether nothing will change any more by itself. `Vanished` is not an end: it is the lack of knowledge.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::CompletedRebootPending
                | Self::CompletedWithErrors
                | Self::Failed
                | Self::Cancelled
        )
    }
}

/// A job in a queue, or a task.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its path.
    pub path: String,
    /// Its id, such as `JID_102241909559`.
    pub id: String,
    /// Its id in the task service, where job service and task service list it under one number.
    pub task_id: Option<String>,
    /// Its name, such as `Firmware Update: BIOS`.
    pub name: String,
    /// `DellJob.JobType`, such as `FirmwareUpdate`.
    pub kind: Option<String>,
    /// Its state, after status and message were taken into account.
    pub state: TaskState,
    /// The state as sent.
    pub raw_state: Option<String>,
    /// Percent done.
    pub percent: Option<u8>,
    /// The latest message.
    pub message: Option<Message>,
    /// Start and end as sent; BMC clocks carry no zone and lie.
    pub started: Option<String>,
    /// See `started`.
    pub ended: Option<String>,
    /// What it acts on, when said: paths or device names.
    pub targets: Vec<String>,
    /// The job as it came.
    pub raw: serde_json::Value,
}

/// A queue.
#[derive(Clone, Debug)]
pub struct Jobs {
    /// The jobs that could be read.
    pub jobs: Vec<Job>,
    /// Which collections they come from.
    pub sources: Vec<TaskSource>,
    /// The jobs that could not.
    pub unreadable: Vec<Unreadable>,
    /// Whether every declared job was read.
    pub complete: bool,
}

/// Who told about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskSource {
    /// The task itself, or the task monitor.
    Task,
    /// `JobService/Jobs`.
    JobService,
    /// The manager's own queue (`DellJob`).
    OemJobs,
    /// The Lifecycle log.
    LifecycleLog,
    /// Nobody.
    None,
}

/// A handle on work inside a BMC. Serialisable, without secrets: made for a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Path of the task, job or task monitor.
    pub path: Option<String>,
    /// Its id, the last segment of the path or as the body gave it.
    pub id: Option<String>,
    /// The newest Lifecycle record from before the request: the log is only searched after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_mark: Option<u64>,
}

/// Where a task stands.
#[derive(Clone, Debug)]
pub struct TaskProgress {
    /// Who told.
    pub source: TaskSource,
    /// Where it stands.
    pub state: TaskState,
    /// Percent done.
    pub percent: Option<u8>,
    /// Short id of the deciding message, such as `PR19`.
    pub message_id: Option<String>,
    /// Its text.
    pub message: String,
    /// The name of the job, when there is one.
    pub name: Option<String>,
    /// The answers this comes from, in the order they were asked.
    pub evidence: Vec<Evidence>,
}

/// A mutation the service took.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// HTTP status.
    pub status: u16,
    /// The work it started; `None` when none was named (a reset, or [`Accepted::up_to_date`]).
    pub task: Option<TaskRef>,
    /// The service said that there is nothing to do. Read back to be sure.
    pub up_to_date: bool,
    /// The first message of the answer.
    pub message: Option<Message>,
    /// The answer.
    pub evidence: Evidence,
}

/// A record of the Lifecycle log.
#[derive(Clone, Debug, PartialEq)]
pub struct LogRecord {
    /// Its number; `None` when its id is not a number.
    pub number: Option<u64>,
    /// Its id as sent.
    pub id: String,
    /// Its time as sent.
    pub created: Option<String>,
    /// Its message.
    pub message: Message,
    /// Dell: `Audit`, `Configuration`, `Updates`, `SystemHealth` …
    pub category: Option<String>,
    /// The record as it came.
    pub raw: serde_json::Value,
}

/// Records of a log, newest first.
#[derive(Clone, Debug)]
pub struct LogRecords {
    /// The records.
    pub records: Vec<LogRecord>,
    /// Whether the log was read back to where it was asked to; otherwise older records are missing.
    pub complete: bool,
}

/// Answer of `DellLCService.GetRemoteServicesAPIStatus`; values as sent. The known ones are those of the schema
/// `DellLCService` as an R750 serves it.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Lifecycle Controller: `Ready`, `NotInitialized`, `ReloadingData`, `Disabled`, `InRecovery`, `InUse`.
    pub lc: Option<String>,
    /// Real-time monitoring: `Ready`, `NotReady`.
    pub rt: Option<String>,
    /// Host: `OutOfPOST`, `InPOST`, `PoweredOff`, `CollectingSystemInventory`, `AutomatedTaskExecution`,
    /// `EnteredF2Setup`, `EnteredF11BootManager`, `LCUSC`.
    pub server: Option<String>,
    /// Overall: `Ready`, `NotReady`, `ReloadingData`, `Disabled`, `InRecovery`, `InUse`.
    pub status: Option<String>,
    /// The answer.
    pub evidence: Evidence,
}

impl Readiness {
    /// Whether the Lifecycle Controller takes jobs. A powered-off host does not matter.
    #[must_use]
    pub fn lc_ready(&self) -> bool {
        match (&self.lc, &self.status) {
            (Some(lc), _) => lc == "Ready",
            (None, Some(status)) => status == "Ready",
            (None, None) => false,
        }
    }

    /// Whether the Lifecycle Controller and real-time monitoring are both ready (unsaid counts as ready for the
    /// latter, which old firmware leaves out).
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.lc_ready() && self.rt.as_deref().is_none_or(|rt| rt == "Ready")
    }
}
