//! Planning: what a job would do to each target, from what was last read. Pure: no database, no clock.
//!
//! A target that cannot be done is not an error but carries blockers; it is left out when the plan is
//! approved. The digest covers what people approve (targets in order, each with its machine, steps with packages and
//! prior versions, policy) and nothing else, so it is stable while forecasts and wording change.

use std::collections::{BTreeMap, BTreeSet};

use rackhand_schema::{
    digest,
    id::{CredentialId, ServerId, SiteId},
    job::{
        BootOverrideParams, BootTarget, BootTimes, FirmwareUpdateParams, JobPolicy, JobSpec, Machine, NewJob,
        Plan, PlanStep, PlanTarget, PowerAction, Reboot,
    },
    server::{Coverage, Covered, CredentialTarget, FirmwareComponent, NotCovered, PowerState},
    version,
};
use serde::{Deserialize, Serialize};

/// What `rackhand.job_context` gives.
#[derive(Debug, Clone, Deserialize)]
pub struct Context {
    pub servers: Vec<TargetContext>,
    /// Those of the servers.
    pub credentials: BTreeMap<CredentialId, CredentialContext>,
    /// Targets that the site does not have.
    pub missing: Vec<ServerId>,
    /// Whether an executor of the site is online.
    pub executors_online: bool,
    /// That hardware operations of the site are paused, and by whom; for people.
    pub hardware_paused: Option<String>,
}

/// A credential as whoever sealed it described it.
#[derive(Debug, Clone, Deserialize)]
pub struct CredentialContext {
    pub name: String,
    /// That its version is suspended, and who refused it; for people.
    pub suspended: Option<String>,
    /// Absent: not said, or beyond the targets that a plan looks at; no plan is held up by it.
    pub sealed_for: Option<Vec<CredentialTarget>>,
    /// It was said, and the lists of all credentials of the plan are too long together.
    pub not_looked_at: bool,
}

/// The same, with what its list allows.
struct Credential<'a> {
    name: &'a str,
    suspended: Option<&'a str>,
    coverage: Option<Coverage<'a>>,
}

/// A target as last read. Its machine is as it is registered and as it said it was: see [`Machine`].
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
    pub credential_id: Option<CredentialId>,
    pub has_pin: bool,
    /// The kind of a job whose run changes it, or will.
    pub changed_by: Option<String>,
    /// When its BMC last refused the credential version that is set; for people.
    pub refused_at: Option<String>,
    pub machine: Machine,
    /// What its BMC was last read to offer.
    pub capabilities: Vec<String>,
    pub components: Vec<FirmwareComponent>,
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("the site has no server {0}")]
    Missing(ServerId),
    #[error("{0} is named twice")]
    Twice(String),
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
        let known = context.servers.iter().find(|server| server.id == *twice);
        return Err(PlanError::Twice(known.map_or_else(|| twice.to_string(), |server| server.name.clone())));
    }
    let credentials: BTreeMap<_, _> = context
        .credentials
        .iter()
        .map(|(id, known)| {
            let coverage = known.sealed_for.as_deref().map(Coverage::of);
            (*id, Credential { name: &known.name, suspended: known.suspended.as_deref(), coverage })
        })
        .collect();
    let credential_of = |server: &TargetContext| credentials.get(server.credential_id.as_ref()?);
    let mut targets: Vec<_> =
        context.servers.iter().map(|server| plan_target(&job.spec, server, credential_of(server))).collect();
    for (server, target) in context.servers.iter().zip(&mut targets) {
        let credential = server.credential_id.and_then(|id| context.credentials.get(&id));
        if let Some(credential) = credential.filter(|credential| credential.not_looked_at) {
            target.warnings.push(format!(
                "Whether credential {} is sealed for this server was not checked: the credentials of this plan are \
                 sealed for more than 50,000 servers in all. If it is not, the executor refuses it. Plan fewer servers \
                 at once to have it checked.",
                credential.name
            ));
        }
    }
    warn_of_mixed_models(&context.servers, &mut targets);
    let paused = context.hardware_paused.as_deref().filter(|_| job.spec.mutates());
    let offline = (!context.executors_online).then_some(NO_EXECUTOR);
    for target in &mut targets {
        target.warnings.extend(paused.into_iter().chain(offline).map(str::to_owned));
    }
    Ok(Plan {
        digest: digest_of(job, &targets).map_err(PlanError::Digest)?,
        estimated_minutes: forecast(&targets, &job.policy),
        targets,
        approved_by_name: None,
        approved_at: None,
    })
}

/// A package that is chosen for a generation or for any server may meet models that it is not made for.
fn warn_of_mixed_models(servers: &[TargetContext], targets: &mut [PlanTarget]) {
    let package = |target: &PlanTarget| {
        target.steps.iter().find_map(|step| match step {
            PlanStep::Firmware { sha256, .. } => Some(sha256.clone()),
            _ => None,
        })
    };
    let mut models = BTreeMap::<String, BTreeSet<&str>>::new();
    for (server, target) in servers.iter().zip(targets.iter()) {
        if let (Some(sha256), Some(model)) = (package(target), &server.model) {
            models.entry(sha256).or_default().insert(model);
        }
    }
    for target in targets {
        let met = package(target).and_then(|sha256| models.get(&sha256)).filter(|met| met.len() > 1);
        if let Some(met) = met {
            let names = met.iter().copied().collect::<Vec<_>>().join(", ");
            target.warnings.push(format!(
                "One package is for several models here: {names}. Make sure that it is made for each of them."
            ));
        }
    }
}

const NO_EXECUTOR: &str = "No executor of the site is online: the run waits until one is.";

fn digest_of(job: &NewJob, targets: &[PlanTarget]) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Approved<'a> {
        site_id: SiteId,
        spec: &'a JobSpec,
        policy: &'a JobPolicy,
        targets: Vec<(ServerId, &'a Option<Machine>, &'a [PlanStep], bool)>,
    }
    digest::canonical(&Approved {
        site_id: job.site_id,
        spec: &job.spec,
        policy: &job.policy,
        targets: targets
            .iter()
            .map(|target| {
                (target.server_id, &target.machine, target.steps.as_slice(), target.blockers.is_empty())
            })
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

fn plan_target(spec: &JobSpec, server: &TargetContext, credential: Option<&Credential<'_>>) -> PlanTarget {
    let mut target = PlanTarget {
        server_id: server.id,
        server: server.name.clone(),
        steps: Vec::new(),
        blockers: Vec::new(),
        warnings: Vec::new(),
        estimated_minutes: 0,
        power: None,
        machine: Some(server.machine.clone()),
    };
    if server.credential_id.is_none() {
        target
            .blockers
            .push("No credential is set for its BMC: register the server again with one.".to_owned());
    }
    if !server.has_pin {
        target.blockers.push(
            "The TLS key of its BMC has not been approved: register the server again with that key."
                .to_owned(),
        );
    }
    if let Some(kind) = server.changed_by.as_deref().filter(|_| spec.mutates()) {
        target.warnings.push(format!(
            "Another job ({kind}) changes this server. This one waits for it, then begins without asking again."
        ));
    }
    let over_ipmi = credential.is_none_or(|credential| check_coverage(credential, server, &mut target));
    if let Some(suspended) = credential.and_then(|credential| credential.suspended) {
        target.warnings.push(format!(
            "{suspended} Seal a new version, or let it be tried again: on a server that refused it, or, if none that \
             uses it did, on any."
        ));
    } else if let Some(at) = &server.refused_at {
        target.warnings.push(format!(
            "The credential was refused on {at}; nothing was sent since. Seal a new version, or let the BMC be tried \
             again."
        ));
    }
    match spec {
        JobSpec::Inventory(_) => {
            target.steps.push(PlanStep::ReadInventory);
            target.estimated_minutes = 1;
        }
        JobSpec::Power(params) => {
            target.power = Some(server.power).filter(|power| *power != PowerState::Unknown);
            if let Some(warning) = power_warning(params.action, server.power) {
                target.warnings.push(warning.to_owned());
            }
            if !offers(server, params.action, over_ipmi) {
                target.blockers.push(format!(
                    "Its BMC does not offer this power action. It offers: {}.",
                    offered(server).collect::<Vec<_>>().join(", ").replace('_', " ")
                ));
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

/// Says where an executor would refuse to use the credential. Whether IPMI may be used beside Redfish.
fn check_coverage(credential: &Credential<'_>, server: &TargetContext, target: &mut PlanTarget) -> bool {
    let Machine { url: Some(url), ipmi, spki_sha256, .. } = &server.machine else { return true };
    let Some(coverage) = &credential.coverage else { return true };
    let name = credential.name;
    match (coverage.at(url, spki_sha256.as_deref(), ipmi.as_deref()), ipmi) {
        (Err(NotCovered::Address), _) => target.blockers.push(format!(
            "Its credential {name} is not sealed for {url}: seal it again for that address too, or register the \
             server with another one."
        )),
        (Err(NotCovered::Pin), _) => target.blockers.push(format!(
            "Its credential {name} is sealed for another TLS key of {url} than the one that is registered: compare \
             the key with the BMC's, then seal the credential again with it."
        )),
        (Ok(Covered { ipmi: false, .. }), Some(address)) => {
            target.warnings.push(format!(
                "Its credential {name} is not sealed for ipmi://{address}, so IPMI is not used for it."
            ));
            return false;
        }
        (Ok(_), _) => {}
    }
    true
}

/// The power actions that an inventory found, as `power_<action>`; none where it did not tell.
fn offered(server: &TargetContext) -> impl Iterator<Item = &str> {
    server.capabilities.iter().filter_map(|word| word.strip_prefix("power_"))
}

/// Whether the BMC is known, or may be hoped, to carry out `action`. IPMI can do all but a polite restart.
fn offers(server: &TargetContext, action: PowerAction, over_ipmi: bool) -> bool {
    let over_ipmi = over_ipmi && server.machine.ipmi.is_some() && action != PowerAction::GracefulRestart;
    over_ipmi || offered(server).next().is_none() || offered(server).any(|word| word == action.as_str())
}

fn power_warning(action: PowerAction, power: PowerState) -> Option<&'static str> {
    match (action, power) {
        (PowerAction::On, PowerState::On) => {
            Some("The host was on when last read: nothing is done if it still is.")
        }
        (PowerAction::On, _) => None,
        (PowerAction::ForceOff | PowerAction::GracefulShutdown, PowerState::Off) => {
            Some("The host was off when last read: nothing is done if it still is.")
        }
        (_, PowerState::Off) => Some("The host was off when last read: there is nothing to restart."),
        (PowerAction::ForceOff | PowerAction::ForceRestart | PowerAction::PowerCycle, _) => {
            Some("The OS is not shut down first: unsaved data is lost.")
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
    if version::same(&component.version, &package.version) {
        if let Some(doubt) = component.doubt(server.bmc_version.as_deref(), None) {
            target.blockers.push(format!(
                "When last read, {doubt}: run an inventory job when its update has ended, then plan again."
            ));
            return;
        }
        target.steps.push(PlanStep::AlreadyInstalled {
            component: component.key.clone(),
            version: component.version.clone(),
        });
        return;
    }
    if !component.updateable {
        target.blockers.push(format!("{} cannot be updated by its BMC.", component.name));
    }
    match version::compare(&component.version, &package.version) {
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
            Some("This BMC's firmware is old: the BMC restarts the host as soon as it has the package.")
        }
        _ => None,
    }
}

/// Which restart the package brings. BMC and Lifecycle Controller packages restart the BMC alone. iDRAC 7
/// and 8 before 2.75 and iDRAC9 before 5.00 restart the host by themselves on SimpleUpdate; a
/// version that is not known is taken for an old one.
fn reboot_of(component: &FirmwareComponent, generation: Option<&str>, bmc_version: Option<&str>) -> Reboot {
    let of_bmc = component.is_bmc()
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
    let waits = bmc_version.and_then(|version| version::compare(version, oldest_that_waits));
    match waits {
        Some(std::cmp::Ordering::Equal | std::cmp::Ordering::Greater) => Reboot::Host,
        Some(std::cmp::Ordering::Less) | None => Reboot::HostAtOnce,
    }
}

#[cfg(test)]
mod tests;
