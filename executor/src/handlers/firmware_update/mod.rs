//! `firmware_update`: installs one package and reads the version back.
//!
//! `check → package → stage → reboot → apply → verify`, then the open effects are settled. Each phase is an
//! [`crate::engine::Activity`] over one [`State`], which is the checkpoint: a successor on another machine goes
//! on from it. `reboot` and `apply` may alternate once more when a finished job asks for another restart; a job that
//! failed before it had its package is staged again, at most [`MAX_STAGES`] times. A package whose hand-over got no
//! answer and left no trace is handed over once more, and never a third time. Everything else ends the run: there is no
//! blind second try.

mod apply;
mod check;
mod evidence;
mod reboot;
mod stage;
mod verify;

use rackhand_schema::{
    ErrorCode,
    job::{FirmwarePackage, FirmwareUpdateParams, PlanStep, PowerAction, Reboot},
    protocol::Finish,
    run::{EffectState, Outcome, PhaseState},
    server::{FirmwareComponent, Inventory, PowerState},
    version,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{inventory::cancelled, restart::Mark, settle::BMC_JOB};
use crate::{
    bmc::{JobRef, UpdateSupport},
    engine::{Context, Ended, Stop, fault, perform, success},
};

/// Tries to get a package into the device, as long as it provably never had it.
const MAX_STAGES: u32 = 3;

/// A hand-over whose answer was lost. It may show up later than anybody thought, so that its `before` is what all
/// later looks are compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostHandover {
    /// Job ids in the device's queue before it.
    pub before: Vec<String>,
    /// Newest log record before it.
    pub log_mark: Option<u64>,
    /// The package was handed over a second time after it.
    pub again: bool,
}

/// Where the update stands. Everything a successor needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct State {
    /// Power of the host before anything was done.
    pub power: Option<PowerState>,
    pub support: UpdateSupport,
    /// The device's handle on the update.
    pub job: Option<JobRef>,
    /// The device said that it has this version.
    pub up_to_date: bool,
    pub stages: u32,
    /// The first hand-over that got no answer.
    pub lost: Option<LostHandover>,
    /// The device took the package and did not name the job.
    pub unnamed: bool,
    /// The device has shown the job.
    pub seen: bool,
    /// Marks of the inventory's keys before anything was done, where they may be version hashes. See [`mark_of`].
    pub keys: Vec<String>,
    /// Resets the device took for the job at hand.
    pub resets: Vec<PowerAction>,
    /// What the host showed before the last one.
    pub mark: Mark,
    /// The finished job asks for a restart.
    pub restart_pending: bool,
    /// Last progress seen, to tell a slow job from a stalled one.
    pub progress: String,
}

impl State {
    /// Forgets the job at hand: the next hand-over makes another one, of which nothing is known yet.
    fn begin_anew(&mut self) {
        let Self { power, support, stages, lost, keys, up_to_date, .. } = std::mem::take(self);
        *self = Self { power, support, stages, lost, keys, up_to_date, ..Self::default() };
    }

    /// The planned component as `found` shows it: under its key or, where an update may replace keys, in a row that
    /// was not there before and has the wanted version, rather one that runs.
    pub fn component<'a>(&self, plan: &Planned, found: &'a Inventory) -> Option<&'a FirmwareComponent> {
        let named = found.components.iter().find(|component| component.key == plan.component);
        if self.keys.is_empty() || named.is_some_and(|named| plan.ends_with(&named.version)) {
            return named;
        }
        let is_new = |component: &&FirmwareComponent| {
            !self.keys.contains(&mark_of(&component.key)) && plan.ends_with(&component.version)
        };
        found.components.iter().filter(is_new).min_by_key(|component| component.inactive.is_some()).or(named)
    }
}

/// Components that a device may list whose update may replace their keys. The checkpoint holds a mark of each.
const MAX_KEYS: usize = 1_500;

/// Tells a key from others in few bytes, however long the device makes it.
fn mark_of(key: &str) -> String {
    let sum = Sha256::digest(key);
    hex::encode(sum.get(..8).unwrap_or_default())
}

/// What the approved plan says about this target.
#[derive(Debug, Clone)]
pub struct Planned {
    pub component: String,
    pub component_name: String,
    pub from: String,
    pub to: String,
    pub reboot: Reboot,
    pub package: FirmwarePackage,
}

impl Planned {
    /// Whether `found` is the version that the plan starts from.
    pub fn starts_from(&self, found: &str) -> bool {
        version::same(found, &self.from)
    }

    /// Whether `found` is the version that the plan ends with.
    pub fn ends_with(&self, found: &str) -> bool {
        version::same(found, &self.to)
    }

    /// Why `found`, which shows the version that the plan ends with, does not prove that it runs.
    pub fn doubt(&self, found: &FirmwareComponent, inventory: &Inventory) -> Option<String> {
        let unreadable = inventory.unreadable.get("manager").filter(|_| found.is_bmc());
        found
            .doubt(inventory.bmc_version.as_deref(), Some(&self.from))
            .or_else(|| unreadable.map(|why| format!("what the BMC runs cannot be read: {why}")))
    }

    /// Whether the approved plan includes a restart of the host.
    pub fn may_restart_host(&self) -> bool {
        matches!(self.reboot, Reboot::Host | Reboot::HostAtOnce)
    }
}

/// The plan's firmware step and the package it names.
fn planned(context: &Context, params: &FirmwareUpdateParams) -> Result<Planned, Finish> {
    for step in &context.grant.plan.steps {
        match step {
            PlanStep::Firmware { component, component_name, from, to, sha256, reboot } => {
                let package = params.packages.values().find(|package| package.sha256 == *sha256);
                let Some(package) = package.cloned() else {
                    return Err(fault(
                        ErrorCode::PackageMismatch,
                        format!(
                            "The plan for {} names a package that the job does not hold. Plan again.",
                            context.server()
                        ),
                        json!({ "sha256": sha256 }),
                    ));
                };
                return Ok(Planned {
                    component: component.clone(),
                    component_name: component_name.clone(),
                    from: from.clone(),
                    to: to.clone(),
                    reboot: *reboot,
                    package,
                });
            }
            PlanStep::AlreadyInstalled { component, version } => {
                return Err(success(
                    Outcome::NoChange,
                    format!("{} has {component} {version} already; nothing was planned.", context.server()),
                    json!({ "component": component, "version": version }),
                ));
            }
            PlanStep::ReadInventory | PlanStep::Power { .. } | PlanStep::BootOverride { .. } => {}
        }
    }
    Err(fault(
        ErrorCode::PlanStale,
        format!("The plan for {} has no firmware step. Plan again.", context.server()),
        Value::Null,
    ))
}

const CHECK: &str = "check";
const PACKAGE: &str = "package";
const STAGE: &str = "stage";
const REBOOT: &str = "reboot";
const APPLY: &str = "apply";
const VERIFY: &str = "verify";

/// # Errors
/// [`Stop`]: the run goes on elsewhere, or nowhere for now.
pub async fn run(context: &mut Context, params: &FirmwareUpdateParams) -> Result<Finish, Stop> {
    let plan = match planned(context, params) {
        Ok(plan) => plan,
        Err(finish) => return Ok(finish),
    };
    let mut state: State = serde_json::from_value(context.grant.checkpoint.clone()).unwrap_or_default();
    let at = context.unresolved_phase().unwrap_or(&context.grant.phase).to_owned();
    let mut phase = [CHECK, PACKAGE, STAGE, REBOOT, APPLY, VERIFY]
        .into_iter()
        .find(|known| *known == at)
        .unwrap_or(CHECK);
    // Lives as long as the run: a BMC that fetches by itself does so while the job is followed.
    let mut offer = None;
    if state.job.is_some() {
        stage::name_effect(context, &state).await?;
    }
    loop {
        let ended = match phase {
            CHECK => perform(context, &mut check::Check { plan: &plan, state: &mut state }).await?,
            PACKAGE => perform(context, &mut check::Package::new(&plan, &state)).await?,
            STAGE => {
                let mut stage = stage::Stage::new(&plan, &mut state, &mut offer);
                let ended = perform(context, &mut stage).await?;
                if matches!(ended, Ended::Done(_)) {
                    stage::name_effect(context, &state).await?;
                }
                ended
            }
            REBOOT if !needs_reboot_phase(&plan, &state) => {
                context.phase(REBOOT, PhaseState::Skipped, Value::Null).await?;
                Ended::Done(Value::Null)
            }
            REBOOT => perform(context, &mut reboot::Restart::new(&plan, &mut state)).await?,
            APPLY if state.up_to_date => {
                context.phase(APPLY, PhaseState::Skipped, Value::Null).await?;
                Ended::Done(Value::Null)
            }
            APPLY => perform(context, &mut apply::Apply::new(&plan, &mut state)).await?,
            _ => perform(context, &mut verify::Verify::new(&plan, &state)).await?,
        };
        let evidence = match ended {
            Ended::Done(evidence) => evidence,
            Ended::Finish(finish) => return Ok(doubted(context, &state, finish)),
            Ended::Cancelled => {
                let done = match &state.job {
                    _ if state.lost.is_some() => "Its queue was left as it is.",
                    None => "Nothing was changed.",
                    Some(_) => "The update is taken out of the device's queue before it begins.",
                };
                return Ok(doubted(context, &state, cancelled(context, done)));
            }
        };
        if phase == APPLY {
            // The device has the package; its room is for others.
            offer = None;
        }
        phase = match phase {
            CHECK if evidence.get("already").is_some() => {
                return Ok(success(
                    Outcome::NoChange,
                    format!("{} has {} {} already.", context.server(), plan.component_name, plan.to),
                    evidence,
                ));
            }
            CHECK => PACKAGE,
            PACKAGE => STAGE,
            STAGE if state.up_to_date => VERIFY,
            STAGE => REBOOT,
            REBOOT => APPLY,
            APPLY if evidence.get("restart").is_some() => {
                state.restart_pending = true;
                state.resets.clear();
                REBOOT
            }
            // It looked as if it had begun, and waits for a restart after all.
            APPLY if evidence.get("scheduled").is_some() => REBOOT,
            APPLY if evidence.get("stage_again").is_some() => {
                context.move_effects(BMC_JOB, &[EffectState::Applied], EffectState::Settled).await?;
                state.begin_anew();
                STAGE
            }
            APPLY => VERIFY,
            _ => {
                let reset = if state.resets.is_empty() { "" } else { ", after a restart of the host" };
                return Ok(success(
                    Outcome::Succeeded,
                    format!(
                        "{}: {} {} → {}, read back{reset}.{}",
                        context.server(),
                        plan.component_name,
                        plan.from,
                        plan.to,
                        left_behind(&state)
                    ),
                    evidence,
                ));
            }
        };
    }
}

/// How a run ends whose package may be inside the device without a job that is certainly its own: never as `failed`,
/// and never as `cancelled`. A job that was found by comparing queues may be somebody else's, and ours still to come.
fn doubted(context: &Context, state: &State, finish: Finish) -> Finish {
    let ended = matches!(finish.outcome, Outcome::Failed | Outcome::Cancelled);
    if !ended || state.lost.is_none() {
        return finish;
    }
    fault(
        ErrorCode::OutcomeUnknown,
        format!(
            "The package for {} was handed over without a clear answer, and a job of it may still show up or wait. Then: {} \
             Look at the server's job queue, then decide.",
            context.server(),
            finish.detail
        ),
        finish.evidence,
    )
}

/// What an update that succeeded may have left in the device. Of two hand-overs one job was followed at most; that of
/// the other would flash the same version at a later restart, and nobody else would know of it.
fn left_behind(state: &State) -> &'static str {
    match &state.lost {
        Some(lost) if lost.again => {
            " The package was handed over twice, because the first answer was lost. A second job may still show up and \
             run at a later restart: look at the server's job queue before that."
        }
        _ => "",
    }
}

/// How long a job may stay invisible after its package was handed over, clocks and queues included.
fn late_visibility(context: &Context) -> std::time::Duration {
    context.timing().upload_visibility + context.timing().settle
}

/// Direct updates need no restart; the others wait in `reboot` until the device has begun.
fn needs_reboot_phase(plan: &Planned, state: &State) -> bool {
    !state.up_to_date && (plan.may_restart_host() || state.restart_pending)
}

#[cfg(test)]
mod tests {
    use rackhand_schema::protocol::MAX_ITEM_BYTES;

    use super::*;

    #[test]
    fn the_largest_state_fits_into_a_report() {
        let long = "\u{fc}".repeat(crate::text::MAX_CHARS);
        let state = State {
            keys: (0..MAX_KEYS).map(|n| mark_of(&format!("{n}{long}"))).collect(),
            lost: Some(LostHandover {
                before: vec!["x".repeat(stage::MAX_QUEUE_BYTES)],
                ..LostHandover::default()
            }),
            progress: long,
            ..State::default()
        };
        let size = json!(state).to_string().len();
        assert!(size < MAX_ITEM_BYTES - 8 * 1024, "{size}");
    }

    #[test]
    fn of_a_job_that_is_given_up_nothing_is_left_for_the_next_one() {
        let mut state = State {
            power: Some(PowerState::On),
            job: Some(JobRef::default()),
            stages: 2,
            unnamed: true,
            seen: true,
            keys: vec!["a key".to_owned()],
            resets: vec![PowerAction::On],
            restart_pending: true,
            progress: "90 %".to_owned(),
            ..State::default()
        };
        let kept = State { power: state.power, stages: 2, keys: state.keys.clone(), ..State::default() };
        state.begin_anew();
        assert_eq!(state, kept);
    }
}
