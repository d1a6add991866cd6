//! Undoes what is left open before a run ends, whoever opened it.
//!
//! Two kinds of effects exist so far: `bmc_job`, a device job that may still wait for a reboot, is deleted;
//! `host_power`, a host that was powered on for an update, is shut down again. Both look first: a job that runs
//! is seen to its end, a host is never switched off while any device job is alive, and a state that somebody
//! else has changed is left alone. An effect of unknown fate becomes a `conflict` for a person to see; one whose
//! BMC does not answer stays open, and the control plane grants the run again to settle it.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    event::Level,
    job::PowerAction,
    protocol::{Finish, Intent},
    run::{Effect, EffectState, Outcome},
    server::PowerState,
};
use serde_json::{Value, json};

use crate::{
    bmc::{BmcError, BmcErrorKind, JobPhase, Via},
    broker::Pick,
    engine::{
        Activity, Context, Ended, Interrupt, Probe, Stop, fault, perform,
        shell::{Prepared, Unprepared},
    },
    lease::MutationPermit,
};

/// Name of the effect of a job in a device's queue.
pub const BMC_JOB: &str = "bmc_job";
/// Name of the effect of a host's power state.
pub const HOST_POWER: &str = "host_power";
/// The phase of undoing.
pub const PHASE: &str = "settle";

/// Settles every open effect and says how the run ends.
pub async fn settle(context: &mut Context, mut finish: Finish) -> Result<Finish, Stop> {
    if finish.outcome == Outcome::Unknown {
        // Undoing could hit the very work whose fate is unknown.
        for effect in context.effects.clone().into_iter().filter(|effect| effect.state.is_open()) {
            context.report_effect(Effect { state: EffectState::Conflict, ..effect }).await?;
        }
        return Ok(finish);
    }
    name_job(context).await?;
    // The job first: power is safe to touch only without one.
    for object in [BMC_JOB, HOST_POWER] {
        while let Some(effect) = context.open_effect(object).cloned() {
            let ended = undo(context, &effect, &finish).await?;
            let state = match ended {
                Ended::Done(_) => EffectState::Settled,
                Ended::Cancelled => EffectState::Conflict,
                Ended::Finish(why) => {
                    let text = format!("{}: {object} is not undone: {}", context.server(), why.detail);
                    context.event(Level::Error, text, Value::Null).await?;
                    finish.detail = format!("{} Not undone: {}", finish.detail, why.detail);
                    let away = [ErrorCode::BmcUnreachable, ErrorCode::DeviceBusy];
                    if away.iter().any(|code| code.as_str() == why.code) {
                        // Stays open: the control plane has it settled later.
                        if context.grant.settle.is_some() {
                            let pause = context.timing().bmc_outage / 3;
                            return Err(context.give_back("settling", &why.detail, pause).await?);
                        }
                        return Ok(finish);
                    }
                    EffectState::Conflict
                }
            };
            context.report_effect(Effect { state, ..effect }).await?;
        }
    }
    Ok(finish)
}

/// The device's id of the job may stand in the checkpoint only.
async fn name_job(context: &mut Context) -> Result<(), Stop> {
    let id = context.grant.checkpoint.get("job").and_then(|job| job.get("id")).and_then(Value::as_str);
    let Some(id) = id.map(str::to_owned) else { return Ok(()) };
    match context.open_effect(BMC_JOB).cloned() {
        Some(effect) if effect.wanted.get("job").is_none_or(Value::is_null) => {
            let wanted = json!({ "job": id });
            context.report_effect(Effect { wanted, state: EffectState::Applied, ..effect }).await
        }
        _ => Ok(()),
    }
}

/// How a run was about to end when its executor died while undoing.
pub fn interrupted(checkpoint: &Value) -> Option<Finish> {
    checkpoint.get("finish").and_then(|finish| serde_json::from_value(finish.clone()).ok())
}

async fn undo(context: &mut Context, effect: &Effect, finish: &Finish) -> Result<Ended, Stop> {
    let state = json!({ "finish": finish });
    if effect.object == BMC_JOB {
        let id = effect.wanted.get("job").and_then(Value::as_str).map(str::to_owned);
        let Some(id) = id else {
            // Never identified: nothing that could be deleted by name.
            return Ok(Ended::Cancelled);
        };
        return perform(context, &mut DeleteJob { id, state, absent_since: None }).await;
    }
    perform(context, &mut PowerOff { asked_at: None, state, tries: 0 }).await
}

struct DeleteJob {
    id: String,
    state: Value,
    absent_since: Option<Duration>,
}

impl Activity for DeleteJob {
    fn phase(&self) -> &'static str {
        PHASE
    }

    fn action(&self) -> &'static str {
        "delete_job"
    }

    fn state(&self) -> Value {
        self.state.clone()
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::Never
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let jobs = context.line.jobs().await?;
        let Some(job) = jobs.into_iter().find(|job| job.id == self.id) else {
            // An accepted job may show up late: absence counts only when it lasts.
            let since = *self.absent_since.get_or_insert(context.now());
            if context.now().saturating_sub(since) >= context.timing().job_visibility {
                return Ok(Probe::Done(json!({ "job": self.id, "found": "gone" })));
            }
            return Ok(Probe::InFlight {
                reason: "device_job",
                detail: format!("makes sure that job {} is gone", self.id),
                percent: None,
            });
        };
        self.absent_since = None;
        Ok(match job.phase {
            JobPhase::New | JobPhase::Scheduled | JobPhase::Waiting => Probe::NotStarted,
            // Deleting a download in progress is refused by some firmware and ignored by other: let it end.
            JobPhase::Downloading => Probe::NotReady {
                reason: "device_job",
                detail: format!("job {} is still taking its package in", self.id),
            },
            JobPhase::Running | JobPhase::Other(_) => Probe::InFlight {
                reason: "device_job",
                detail: format!("job {} runs and is seen to its end", self.id),
                percent: None,
            },
            ended => Probe::Done(json!({ "job": self.id, "found": ended })),
        })
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        Ok(Prepared {
            before: json!({ "job": self.id }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        match context.line.delete_job(permit, &self.id).await {
            Err(error) if error.kind == BmcErrorKind::NotFound => {}
            other => other?,
        }
        Ok(json!({ "deleted": self.id }))
    }
}

struct PowerOff {
    asked_at: Option<Duration>,
    state: Value,
    tries: u32,
}

impl Activity for PowerOff {
    fn phase(&self) -> &'static str {
        PHASE
    }

    fn action(&self) -> &'static str {
        "power_off"
    }

    fn state(&self) -> Value {
        self.state.clone()
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::Never
    }

    fn poll(&self, context: &Context) -> Duration {
        context.timing().power_poll
    }

    async fn probe(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let power = host_power(context).await?;
        if power == PowerState::Off {
            return Ok(Probe::Done(json!({ "power": power })));
        }
        if intent.is_some() && power != PowerState::PoweringOff {
            return Ok(Probe::NotStarted);
        }
        if let Some(busy) = alive_job(context).await? {
            return Ok(Probe::NotReady { reason: "device_job", detail: busy });
        }
        let wait = |detail: String| Probe::InFlight { reason: "host_powering_off", detail, percent: None };
        let server = context.server();
        match (power, self.asked_at) {
            (PowerState::PoweringOff, _) => Ok(wait(format!("{server} is shutting down again"))),
            (_, Some(at)) if context.now().saturating_sub(at) < context.timing().graceful => {
                Ok(wait(format!("{server} was asked to shut down again")))
            }
            (_, Some(_)) if self.tries >= 2 => Ok(Probe::Impossible(fault(
                ErrorCode::PowerNotReached,
                format!("{server} was off before the update and does not power off again. Power it off."),
                json!({ "power": power }),
            ))),
            _ => Ok(Probe::NotStarted),
        }
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        Ok(Prepared {
            before: json!({ "power": PowerState::On }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        // The host was off: nobody works on it. Politely first all the same, it has an operating system.
        let action = if self.tries == 0 { PowerAction::GracefulShutdown } else { PowerAction::ForceOff };
        self.tries += 1;
        let result = context.line.reset(permit, Via::Redfish, action).await;
        self.asked_at = Some(context.now());
        result.map(|()| json!({ "asked": action }))
    }
}

/// The host's power as the transport shows it that knows the device's jobs, too: beside an update no other one counts.
pub(super) async fn host_power(context: &Context) -> Result<PowerState, BmcError> {
    Ok(context.line.power(Pick::Only(Via::Redfish)).await?.1)
}

/// A job that could be flashing something, in words.
pub(super) async fn alive_job(context: &Context) -> Result<Option<String>, BmcError> {
    let jobs = context.line.jobs().await?;
    let alive = jobs.into_iter().find(|job| job.phase.may_be_flashing());
    Ok(alive.map(|job| format!("device job {} ({}) is under way", job.id, job.name)))
}
