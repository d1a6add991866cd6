//! Planning: what a job would do to each target, from what was last read. Pure: no database, no clock.
//!
//! A target that cannot be done is not an error but carries blockers; it is left out when the plan is
//! approved. The digest covers what people approve (targets in order, steps with packages and prior
//! versions, policy) and nothing else, so it is stable while forecasts and wording change.

use std::collections::BTreeSet;

use rackhand_schema::{
    digest,
    id::{ServerId, SiteId},
    job::{
        BootOverrideParams, BootTarget, BootTimes, FirmwareUpdateParams, JobPolicy, JobSpec, NewJob, Plan,
        PlanStep, PlanTarget, PowerAction, Reboot,
    },
    server::{FirmwareComponent, PowerState},
};
use serde::{Deserialize, Serialize};

/// What `rackhand.job_context` gives.
#[derive(Debug, Clone, Deserialize)]
pub struct Context {
    pub servers: Vec<TargetContext>,
    /// Targets that the site does not have.
    pub missing: Vec<ServerId>,
}

/// A target as last read.
#[derive(Debug, Clone, Deserialize)]
pub struct TargetContext {
    pub id: ServerId,
    pub name: String,
    pub model: Option<String>,
    pub generation: Option<String>,
    pub bmc_version: Option<String>,
    pub power: PowerState,
    /// Whether the BMC was ever read.
    pub inventoried: bool,
    pub has_credential: bool,
    pub has_pin: bool,
    pub components: Vec<FirmwareComponent>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the site has no server {0}")]
    Missing(ServerId),
    #[error("{0} is named twice")]
    Twice(ServerId),
    #[error("digest of the plan")]
    Digest(#[source] serde_json::Error),
}

/// Plans `job` over `context`.
///
/// # Errors
/// When a target does not exist or is named twice.
pub fn plan(job: &NewJob, context: &Context) -> Result<Plan, PlanError> {
    if let Some(missing) = context.missing.first() {
        return Err(PlanError::Missing(*missing));
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = job.targets.iter().find(|target| !seen.insert(**target)) {
        return Err(PlanError::Twice(*twice));
    }
    let targets: Vec<_> = context.servers.iter().map(|server| plan_target(&job.spec, server)).collect();
    Ok(Plan {
        digest: digest_of(job, &targets).map_err(PlanError::Digest)?,
        estimated_minutes: forecast(&targets, &job.policy),
        targets,
        approved_by_name: None,
        approved_at: None,
    })
}

fn digest_of(job: &NewJob, targets: &[PlanTarget]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Approved<'a> {
        site_id: SiteId,
        spec: &'a JobSpec,
        policy: &'a JobPolicy,
        targets: Vec<(ServerId, &'a [PlanStep], bool)>,
    }
    digest::canonical(&Approved {
        site_id: job.site_id,
        spec: &job.spec,
        policy: &job.policy,
        targets: targets
            .iter()
            .map(|target| (target.server_id, target.steps.as_slice(), target.blockers.is_empty()))
            .collect(),
    })
}

/// With full use of the allowed parallelism, but never shorter than the longest target.
fn forecast(targets: &[PlanTarget], policy: &JobPolicy) -> u32 {
    let minutes =
        targets.iter().filter(|target| target.blockers.is_empty()).map(|target| target.estimated_minutes);
    let (sum, longest) =
        minutes.fold((0u32, 0u32), |(sum, longest), m| (sum.saturating_add(m), longest.max(m)));
    sum.div_ceil(policy.max_parallel.max(1)).max(longest)
}

fn plan_target(spec: &JobSpec, server: &TargetContext) -> PlanTarget {
    let mut target = PlanTarget {
        server_id: server.id,
        server: server.name.clone(),
        steps: Vec::new(),
        blockers: Vec::new(),
        warnings: Vec::new(),
        estimated_minutes: 0,
    };
    if !server.has_credential {
        target
            .blockers
            .push("No credential is set for its BMC: register the server again with one.".to_owned());
    }
    if !server.has_pin {
        target.blockers.push(
            "The TLS key of its BMC has not been approved: register the server again with its fingerprint."
                .to_owned(),
        );
    }
    match spec {
        JobSpec::Inventory(_) => {
            target.steps.push(PlanStep::ReadInventory);
            target.estimated_minutes = 1;
        }
        JobSpec::Power(params) => {
            if let Some(warning) = power_warning(params.action, server.power) {
                target.warnings.push(warning.to_owned());
            }
            target.steps.push(PlanStep::Power { action: params.action });
            target.estimated_minutes = match params.action {
                PowerAction::On | PowerAction::ForceOff => 2,
                PowerAction::GracefulShutdown => 6,
                PowerAction::GracefulRestart => 10,
                PowerAction::ForceRestart | PowerAction::PowerCycle => 6,
            };
        }
        JobSpec::BootOverride(params) => {
            let BootOverrideParams { target: source, times, mode } = *params;
            target.warnings.extend(boot_warning(source, times).map(str::to_owned));
            target.steps.push(PlanStep::BootOverride { target: source, times, mode });
            target.estimated_minutes = 1;
        }
        JobSpec::FirmwareUpdate(params) => plan_firmware(params, server, &mut target),
    }
    target
}

fn power_warning(action: PowerAction, power: PowerState) -> Option<&'static str> {
    match (action, power) {
        (PowerAction::On, PowerState::On) => Some("The host was on when last read."),
        (PowerAction::On, _) => None,
        (PowerAction::ForceOff | PowerAction::GracefulShutdown, PowerState::Off) => {
            Some("The host was off when last read.")
        }
        (_, PowerState::Off) => Some("The host was off when last read: there is nothing to restart."),
        (PowerAction::ForceOff | PowerAction::ForceRestart | PowerAction::PowerCycle, _) => {
            Some("The operating system is not asked: what it has not written is lost.")
        }
        _ => None,
    }
}

fn boot_warning(target: BootTarget, times: BootTimes) -> Option<&'static str> {
    match (target, times) {
        (BootTarget::None, _) => None,
        (_, BootTimes::Once) => {
            Some("The host is not restarted: the next boot, whoever starts it, uses this up.")
        }
        (_, BootTimes::Continuous) => Some("Every boot follows this until a job clears it."),
    }
}

const NO_INVENTORY: &str = "Its firmware is not known yet: run an inventory job first, then plan again.";
const NO_MODEL: &str = "Neither its model nor its BMC's generation is known, so no package can be chosen: run an \
    inventory job first, or give a package for any model.";

fn plan_firmware(params: &FirmwareUpdateParams, server: &TargetContext, target: &mut PlanTarget) {
    if !server.inventoried {
        target.blockers.push(NO_INVENTORY.to_owned());
        return;
    }
    let Some(package) = params.package_for(server.model.as_deref(), server.generation.as_deref()) else {
        target.blockers.push(match (&server.model, &server.generation) {
            (Some(model), Some(generation)) => format!("There is no package for {model} or {generation}."),
            (Some(one), None) | (None, Some(one)) => format!("There is no package for {one}."),
            (None, None) => NO_MODEL.to_owned(),
        });
        return;
    };
    let mut fitting = server
        .components
        .iter()
        .filter(|component| component.software_id.as_deref() == Some(package.software_id.as_str()));
    let Some(component) = fitting.next() else {
        target.blockers.push(format!(
            "Its inventory has no component with the software id {}: if it was fitted since, run an inventory job \
             first; else choose another package.",
            package.software_id
        ));
        return;
    };
    let others: Vec<_> = fitting.map(|other| other.key.as_str()).collect();
    if !others.is_empty() {
        target.blockers.push(format!(
            "Several components have the software id {}: {}, {}.",
            package.software_id,
            component.key,
            others.join(", ")
        ));
        return;
    }
    if component.version == package.version {
        target.steps.push(PlanStep::AlreadyInstalled {
            component: component.key.clone(),
            version: component.version.clone(),
        });
        return;
    }
    if !component.updateable {
        target.blockers.push(format!("{} cannot be updated by its BMC.", component.name));
    }
    match compare_versions(&component.version, &package.version) {
        Some(std::cmp::Ordering::Greater) if !params.allow_downgrade => target.blockers.push(format!(
            "{} has {}, which is newer than {}; downgrading was not allowed.",
            component.name, component.version, package.version
        )),
        Some(std::cmp::Ordering::Greater) => {
            target.warnings.push(format!("This is a downgrade from {}.", component.version));
        }
        Some(_) => {}
        None => target
            .warnings
            .push(format!("Whether {} is newer than {} cannot be told.", package.version, component.version)),
    }
    let reboot = reboot_of(component, server.generation.as_deref(), server.bmc_version.as_deref());
    target.warnings.extend(firmware_warning(reboot, server.power).map(str::to_owned));
    target.estimated_minutes = match reboot {
        Reboot::None => 5,
        Reboot::Bmc => 12,
        Reboot::Host | Reboot::HostAtOnce => 20,
    };
    target.steps.push(PlanStep::Firmware {
        component: component.key.clone(),
        component_name: component.name.clone(),
        from: component.version.clone(),
        to: package.version.clone(),
        sha256: package.sha256.clone(),
        reboot,
    });
}

fn firmware_warning(reboot: Reboot, power: PowerState) -> Option<&'static str> {
    match (reboot, power) {
        (Reboot::Host | Reboot::HostAtOnce, PowerState::Off) => {
            Some("The host was off when last read; the update needs it to start.")
        }
        (Reboot::HostAtOnce, _) => {
            Some("This BMC is old: it restarts the host by itself as soon as it has the package.")
        }
        _ => None,
    }
}

/// Which restart the package brings. iDRAC and Lifecycle Controller packages restart the BMC alone. iDRAC 7
/// and 8 before 2.75 and iDRAC9 before 5.00 restart the host by themselves on SimpleUpdate (DESIGN §5); a
/// version that is not known is taken for an old one.
fn reboot_of(component: &FirmwareComponent, generation: Option<&str>, bmc_version: Option<&str>) -> Reboot {
    let of_bmc = component.key.starts_with("iDRAC.")
        || component.key.contains("LC.Embedded")
        || component.name.contains("Lifecycle Controller")
        || component.name.contains("Dell Remote Access Controller");
    if of_bmc {
        return Reboot::Bmc;
    }
    let oldest_that_waits = match generation {
        Some("idrac7" | "idrac8") => "2.75",
        Some("idrac9") => "5.00",
        _ => return Reboot::Host,
    };
    let waits = bmc_version.and_then(|version| compare_versions(version, oldest_that_waits));
    match waits {
        Some(std::cmp::Ordering::Equal | std::cmp::Ordering::Greater) => Reboot::Host,
        Some(std::cmp::Ordering::Less) | None => Reboot::HostAtOnce,
    }
}

/// Compares dotted versions number by number, a missing number being 0. `None` where a part is neither a
/// number nor equal text.
fn compare_versions(a: &str, b: &str) -> Option<std::cmp::Ordering> {
    let (mut left, mut right) = (a.split(['.', '-']), b.split(['.', '-']));
    loop {
        let (l, r) = match (left.next(), right.next()) {
            (None, None) => return Some(std::cmp::Ordering::Equal),
            (l, r) => (l.unwrap_or("0"), r.unwrap_or("0")),
        };
        let order = match (l.parse::<u64>(), r.parse::<u64>()) {
            (Ok(l), Ok(r)) => l.cmp(&r),
            _ if l == r => std::cmp::Ordering::Equal,
            _ => return None,
        };
        if order.is_ne() {
            return Some(order);
        }
    }
}

#[cfg(test)]
mod tests;
