//! `firmware_update`: installs one package and reads the version back.
//!
//! `check → package → stage → reboot → apply → verify`, then the open effects are settled. Each phase is an
//! [`crate::engine::Activity`] over one [`State`], which is the checkpoint: a successor on another machine goes
//! on from it. `reboot` and `apply` may alternate once more when a finished job asks for another restart
//! (FAILURE-MODES D16); a job that failed before it had its package is staged again, at most [`MAX_STAGES`]
//! times. Everything else ends the run: there is no blind second try.

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
    server::PowerState,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{inventory::cancelled, settle::BMC_JOB};
use crate::{
    bmc::{JobRef, UpdateSupport},
    engine::{Context, Ended, Stop, fault, perform, success},
};

/// Tries to get a package into the device, as long as it provably never had it.
const MAX_STAGES: u32 = 3;

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
    /// Resets the device took for the job at hand.
    pub resets: Vec<PowerAction>,
    /// The finished job asks for a restart.
    pub restart_pending: bool,
    /// Last progress seen, to tell a slow job from a stalled one.
    pub progress: String,
    /// How long there has been no progress, milliseconds, over all executors.
    pub quiet_ms: u64,
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
            Ended::Finish(finish) => return Ok(finish),
            Ended::Cancelled => {
                let done = match phase {
                    CHECK | PACKAGE => "Nothing was changed.",
                    _ => "The update was taken out of the device's queue before it began.",
                };
                return Ok(cancelled(context, done));
            }
        };
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
                state.job = None;
                state.resets.clear();
                STAGE
            }
            APPLY => VERIFY,
            _ => {
                let reset = if state.resets.is_empty() { "" } else { ", after a restart of the host" };
                return Ok(success(
                    Outcome::Succeeded,
                    format!(
                        "{}: {} {} → {}, read back{reset}.",
                        context.server(),
                        plan.component_name,
                        plan.from,
                        plan.to
                    ),
                    evidence,
                ));
            }
        };
    }
}

/// Direct updates need no restart; the others wait in `reboot` until the device has begun.
fn needs_reboot_phase(plan: &Planned, state: &State) -> bool {
    !state.up_to_date && (plan.may_restart_host() || state.restart_pending)
}
