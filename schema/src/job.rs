//! Jobs and plans: an explicit intent, and the preview that people approve.

use std::collections::BTreeMap;

use garde::Validate;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Timestamp,
    id::{JobId, ServerId, SiteId, TraceId, UserId},
    server::PowerState,
};

/// What a job does, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(tag = "kind", content = "params", rename_all = "snake_case")]
pub enum JobSpec {
    /// Read identity, power, health and firmware from the BMC.
    Inventory(#[garde(dive)] InventoryParams),
    /// Change the host's power state and read it back.
    Power(#[garde(dive)] PowerParams),
    /// Set what the host boots from and read the setting back.
    BootOverride(#[garde(dive)] BootOverrideParams),
    /// Install one firmware package and read the version back.
    FirmwareUpdate(#[garde(dive)] FirmwareUpdateParams),
}

impl JobSpec {
    pub const KINDS: [&'static str; 4] = ["inventory", "power", "boot_override", "firmware_update"];

    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Inventory(_) => "inventory",
            Self::Power(_) => "power",
            Self::BootOverride(_) => "boot_override",
            Self::FirmwareUpdate(_) => "firmware_update",
        }
    }

    /// Whether a run of this job changes anything on the server: it then needs an approved plan, and at
    /// most one such run works on a server.
    pub const fn mutates(&self) -> bool {
        !matches!(self, Self::Inventory(_))
    }

    /// [`JobSpec::mutates`] of every job of this kind; true for a kind that this version does not know.
    pub fn kind_mutates(kind: &str) -> bool {
        kind != "inventory"
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InventoryParams {}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PowerAction {
    On,
    /// At once, without asking the operating system.
    ForceOff,
    /// Asks the operating system to shut down.
    GracefulShutdown,
    /// Asks the operating system to restart.
    GracefulRestart,
    /// Reset line; the host stays powered.
    ForceRestart,
    /// Off, then on.
    PowerCycle,
}

impl PowerAction {
    pub const ALL: [Self; 6] = [
        Self::On,
        Self::ForceOff,
        Self::GracefulShutdown,
        Self::GracefulRestart,
        Self::ForceRestart,
        Self::PowerCycle,
    ];

    /// As it is written on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::ForceOff => "force_off",
            Self::GracefulShutdown => "graceful_shutdown",
            Self::GracefulRestart => "graceful_restart",
            Self::ForceRestart => "force_restart",
            Self::PowerCycle => "power_cycle",
        }
    }

    /// The power state in which it leaves the host.
    pub const fn leads_to(self) -> PowerState {
        match self {
            Self::ForceOff | Self::GracefulShutdown => PowerState::Off,
            Self::On | Self::GracefulRestart | Self::ForceRestart | Self::PowerCycle => PowerState::On,
        }
    }

    /// Whether a host that is on is started anew.
    pub const fn restarts(self) -> bool {
        matches!(self, Self::GracefulRestart | Self::ForceRestart | Self::PowerCycle)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerParams {
    #[garde(skip)]
    pub action: PowerAction,
}

/// What a host is to boot from instead of its usual order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootTarget {
    /// Nothing: an override that stands is cleared.
    None,
    /// The network.
    Pxe,
    Disk,
    /// A CD or DVD drive, also a virtual one.
    Cd,
    /// The firmware's setup screen.
    BiosSetup,
}

/// For how many boots an override holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootTimes {
    /// For the next boot; that boot uses it up.
    #[default]
    Once,
    /// For every boot, until it is cleared.
    Continuous,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BootMode {
    Uefi,
    Legacy,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BootOverrideParams {
    #[garde(skip)]
    pub target: BootTarget,
    /// `once` if absent; does not matter for the target `none`.
    #[serde(default)]
    #[garde(skip)]
    pub times: BootTimes,
    /// Absent: as the firmware is set up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[garde(skip)]
    pub mode: Option<BootMode>,
}

/// One firmware package in the site's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FirmwarePackage {
    /// Shown to people, e.g. `BIOS 2.19.1`.
    #[garde(length(chars, min = 1, max = 200))]
    pub name: String,
    #[garde(custom(crate::check::file_name))]
    pub file_name: String,
    /// Where an executor of the site fetches it: `http://` or `https://`; the executor's policy names the
    /// hosts it may fetch from.
    #[garde(length(bytes, max = 1000), custom(crate::check::web_address))]
    pub url: String,
    /// Of the whole file, hex. Nothing else is ever handed to a BMC.
    #[garde(custom(crate::check::sha256_hex))]
    pub sha256: String,
    /// Bytes.
    #[garde(range(min = 1, max = 8_589_934_592))]
    pub size: u64,
    /// The firmware family it updates; equals [`crate::server::FirmwareComponent::software_id`].
    #[garde(length(chars, min = 1, max = 64))]
    pub software_id: String,
    /// The version that must be read back.
    #[garde(length(chars, min = 1, max = 64))]
    pub version: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FirmwareUpdateParams {
    /// The package for each server model (`PowerEdge R750`) or BMC generation (`idrac9`), or under `any` one for
    /// all the others.
    #[garde(length(min = 1, max = 32), custom(each_package))]
    pub packages: BTreeMap<String, FirmwarePackage>,
    /// Also install when the target version is older than the installed one.
    #[serde(default)]
    #[garde(skip)]
    pub allow_downgrade: bool,
}

fn each_package(packages: &BTreeMap<String, FirmwarePackage>, _: &()) -> garde::Result {
    for (generation, package) in packages {
        package.validate().map_err(|report| {
            garde::Error::new(format!("{generation}: {}", report.to_string().trim_end()))
        })?;
    }
    Ok(())
}

impl FirmwareUpdateParams {
    /// The package meant for a server: by its model, then by its BMC's generation, then `any`.
    pub fn package_for(&self, model: Option<&str>, generation: Option<&str>) -> Option<&FirmwarePackage> {
        [model, generation, Some("any")].into_iter().flatten().find_map(|key| self.packages.get(key))
    }
}

/// How a job is carried out over its targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct JobPolicy {
    /// At most this many of its runs at once.
    #[garde(range(min = 1, max = 1000))]
    pub max_parallel: u32,
    /// Pause the job when so many runs have failed or are unknown; 0 never pauses.
    #[garde(range(max = 1000))]
    pub pause_after_failures: u32,
    /// No run starts before; UTC, as `2026-12-01T22:00:00Z`. Absent: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    #[garde(inner(custom(crate::check::utc_time)))]
    pub start_after: Option<Timestamp>,
}

impl Default for JobPolicy {
    fn default() -> Self {
        Self { max_parallel: 8, pause_after_failures: 3, start_after: None }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewJob {
    #[garde(skip)]
    pub site_id: SiteId,
    #[serde(flatten)]
    #[garde(dive)]
    pub spec: JobSpec,
    #[garde(length(min = 1, max = 1000))]
    pub targets: Vec<ServerId>,
    #[serde(default)]
    #[garde(dive)]
    pub policy: JobPolicy,
    /// Why; kept in the audit.
    #[garde(length(chars, min = 3, max = 500))]
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// The plan waits for approval.
    Planned,
    Running,
    /// No new run starts; those under way go on to a safe end.
    Paused,
    Succeeded,
    /// At least one run did not succeed.
    Failed,
    Cancelled,
}

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Job {
    pub id: JobId,
    pub site_id: SiteId,
    pub site: String,
    #[serde(flatten)]
    pub spec: JobSpec,
    pub policy: JobPolicy,
    pub reason: String,
    pub state: JobState,
    /// Why it is in this state, for people; empty when there is nothing to say.
    pub state_reason: String,
    pub since: Timestamp,
    pub created_at: Timestamp,
    pub created_by: Option<UserId>,
    pub created_by_name: String,
    pub trace_id: TraceId,
    pub targets: u64,
    /// Someone has cancelled it. Runs that are in progress in a BMC are followed to their end first.
    pub cancel_requested: bool,
    /// Run state → number of runs.
    pub runs: BTreeMap<String, u64>,
    pub plan: Plan,
}

/// The server-computed preview of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// SHA-256 over targets, packages, prior versions, order and policy (not minutes), hex. Approval names it.
    pub digest: String,
    pub targets: Vec<PlanTarget>,
    /// A forecast, for people; not part of the digest.
    pub estimated_minutes: u32,
    pub approved_by_name: Option<String>,
    pub approved_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlanTarget {
    pub server_id: ServerId,
    pub server: String,
    pub steps: Vec<PlanStep>,
    /// Reasons why this target is left out; a plan with blocked targets may still be approved.
    pub blockers: Vec<String>,
    pub warnings: Vec<String>,
    pub estimated_minutes: u32,
    /// Of a power job: the host's power state when it was last read. Absent: not known. No part of the digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub power: Option<PowerState>,
    /// The machine that the plan is for. Absent: nothing was known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub machine: Option<Machine>,
}

/// A machine as the control plane knew it when the plan was made: where its BMC is and who it says it is. An
/// executor compares it before it changes anything; what is absent was not known and is not compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Machine {
    /// Address of the BMC as registered, [`crate::protocol::GrantTarget::url`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub url: Option<String>,
    /// `host[:port]` for IPMI, as registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub ipmi: Option<String>,
    /// SHA-256 of the BMC's approved SubjectPublicKeyInfo, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub spki_sha256: Option<String>,
    /// As in [`crate::server::Inventory::service_tag`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub service_tag: Option<String>,
    /// As in [`crate::server::Inventory::uuid`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub uuid: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum PlanStep {
    ReadInventory,
    Power {
        action: PowerAction,
    },
    BootOverride {
        target: BootTarget,
        times: BootTimes,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(required = false)]
        mode: Option<BootMode>,
    },
    /// Nothing to do: the version is installed already.
    AlreadyInstalled {
        component: String,
        version: String,
    },
    Firmware {
        /// [`crate::server::FirmwareComponent::key`].
        component: String,
        component_name: String,
        from: String,
        to: String,
        sha256: String,
        reboot: Reboot,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Reboot {
    None,
    /// The BMC restarts itself; the host keeps running.
    Bmc,
    /// The host is restarted by the job.
    Host,
    /// Old firmware: the BMC restarts the host automatically as soon as it has the package.
    HostAtOnce,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// The digest of the plan that was read.
    #[garde(custom(crate::check::sha256_hex))]
    pub digest: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    #[garde(length(chars, min = 3, max = 500))]
    pub reason: String,
}
