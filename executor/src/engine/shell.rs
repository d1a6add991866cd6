//! The shell around [`decide`]: it looks at the device, carries out the step, and starts over.

use std::{future::Future, time::Duration};

use rackhand_schema::{
    ErrorCode,
    event::Level,
    protocol::{Finish, Intent, Resolution},
    run::{Effect, EffectState, PhaseState},
};
use serde_json::{Value, json};

use super::{
    context::{Context, Stop},
    decide::{self, Interrupt, Probe, Situation, Step, decide},
    fault,
};
use crate::{
    bmc::{BmcError, BmcErrorKind},
    lease::{AcknowledgedIntent, MutationPermit},
};

/// The mutation an activity is about to make.
pub struct Prepared {
    /// The state before, by which the outcome of a lost answer is found.
    pub before: Value,
    /// The request ends by then.
    pub limit: Duration,
    /// An upload may outlast the lease of its start, as long as renewals carry it.
    pub upload: bool,
    pub effect: Option<Effect>,
}

/// Why nothing could be prepared.
pub enum Unprepared {
    Bmc(BmcError),
    Finish(Finish),
    Stop(Stop),
}

impl From<BmcError> for Unprepared {
    fn from(error: BmcError) -> Self {
        Self::Bmc(error)
    }
}

impl From<Finish> for Unprepared {
    fn from(finish: Finish) -> Self {
        Self::Finish(finish)
    }
}

impl From<Stop> for Unprepared {
    fn from(stop: Stop) -> Self {
        Self::Stop(stop)
    }
}

/// One resumable unit of a handler.
pub trait Activity: Send {
    /// Name of the phase in reports.
    fn phase(&self) -> &'static str;

    /// Name of its mutation; empty for activities that only look.
    fn action(&self) -> &'static str {
        ""
    }

    /// The handler's whole state, for the checkpoint.
    fn state(&self) -> Value;

    fn interrupt(&self) -> Interrupt {
        Interrupt::Safe
    }

    /// Object of the effect its mutation has.
    fn effect(&self) -> Option<&'static str> {
        None
    }

    /// Between two looks.
    fn poll(&self, context: &Context) -> Duration {
        context.timing().poll
    }

    /// How long the BMC may stay away.
    fn outage(&self, context: &Context) -> Duration {
        context.timing().bmc_outage
    }

    /// How long the device may hide the traces of the mutation.
    fn window(&self, context: &Context) -> Duration {
        context.timing().settle
    }

    /// Looks at the device. `intent` is the announced mutation whose outcome is not known.
    fn probe(
        &mut self,
        context: &Context,
        intent: Option<&Intent>,
    ) -> impl Future<Output = Result<Probe, BmcError>> + Send;

    /// Reads what must be known before, and changes nothing.
    fn prepare(
        &mut self,
        _context: &mut Context,
    ) -> impl Future<Output = Result<Prepared, Unprepared>> + Send {
        async { Ok(Prepared { before: Value::Null, limit: Duration::ZERO, upload: false, effect: None }) }
    }

    /// Makes the mutation; `Ok` is what the device answered.
    fn act(
        &mut self,
        _context: &Context,
        _permit: MutationPermit,
    ) -> impl Future<Output = Result<Value, BmcError>> + Send {
        async { Ok(Value::Null) }
    }
}

/// How an activity ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    Done(Value),
    Finish(Finish),
    /// People want the run ended; nothing of this activity is under way.
    Cancelled,
}

/// A failed read, as a probe: the device may be away or busy; anything else ends the run.
pub fn probe_of(error: BmcError, server: &str, phase: &str) -> Probe {
    let detail = error.detail.clone();
    match error.kind {
        BmcErrorKind::Unreachable | BmcErrorKind::Ambiguous | BmcErrorKind::Held(_) => {
            Probe::Unreachable(detail)
        }
        BmcErrorKind::NotReady { .. } => Probe::NotReady { reason: "device_busy", detail },
        BmcErrorKind::AuthWithheld { final_word: false } => {
            Probe::NotReady { reason: "credential_budget", detail }
        }
        BmcErrorKind::NotFound => Probe::NotReady { reason: "device_busy", detail },
        kind => Probe::Impossible(refusal(kind, &detail, server, phase)),
    }
}

fn refusal(kind: BmcErrorKind, detail: &str, server: &str, phase: &str) -> Finish {
    let (code, text) = match kind {
        BmcErrorKind::KeyChanged => (
            ErrorCode::BmcKeyChanged,
            format!(
                "The BMC of {server} shows another TLS key than the approved one; nothing was sent. {detail}"
            ),
        ),
        BmcErrorKind::Auth => (
            ErrorCode::BmcAuthFailed,
            format!(
                "The BMC of {server} refused the credential during {phase}: {detail}. It is not tried again."
            ),
        ),
        BmcErrorKind::AuthWithheld { .. } => (
            ErrorCode::CredentialSuspended,
            format!(
                "The credential for {server} was not presented: {detail}. Store a new version, then retry."
            ),
        ),
        BmcErrorKind::Unsupported => {
            (ErrorCode::DeviceUnsupported, format!("{server} cannot do what {phase} needs: {detail}."))
        }
        _ => (ErrorCode::DeviceRefused, format!("{server} refused during {phase}: {detail}.")),
    };
    fault(code, text, json!({ "phase": phase, "device": detail }))
}

/// Carries out `activity` to its end.
///
/// # Errors
/// [`Stop`]: the run goes on elsewhere, or nowhere for now.
pub async fn perform<A: Activity>(context: &mut Context, activity: &mut A) -> Result<Ended, Stop> {
    let phase = activity.phase();
    context.turn(phase, activity.state(), PhaseState::Running, Value::Null).await?;
    let mut away_since: Option<Duration> = None;
    let mut kind_since = (std::mem::discriminant(&Probe::NotStarted), context.now());
    let mut resolved_as: Option<Probe> = None;
    let mut told = false;
    loop {
        context.check()?;
        if context.cancelled() && activity.interrupt() == Interrupt::Never && !told {
            told = true;
            let text =
                format!("{}: {phase} cannot be stopped any more; it is seen to its end", context.server());
            context.event(Level::Warn, text, Value::Null).await?;
        }
        let intent = context.intent(phase, activity.action()).cloned();
        let probe = match resolved_as.take() {
            Some(probe) => probe,
            None => match activity.probe(context, intent.as_ref()).await {
                Ok(probe) => probe,
                Err(error) => probe_of(error, context.server(), phase),
            },
        };
        let now = context.now();
        if matches!(probe, Probe::Unreachable(_)) {
            away_since.get_or_insert(now);
        } else {
            away_since = None;
        }
        if kind_since.0 != std::mem::discriminant(&probe) {
            kind_since = (std::mem::discriminant(&probe), now);
        }
        let timing = context.timing();
        let needs = context.short_limit();
        let step = decide(&Situation {
            probe: &probe,
            intent: if intent.is_some() {
                context.intent_age(activity.window(context))
            } else {
                decide::IntentAge::None
            },
            cancel: context.cancelled(),
            draining: context.signals().drain,
            interrupt: activity.interrupt(),
            hold: context.hold(needs),
            away: away_since.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            waited: now.saturating_sub(kind_since.1),
            outage: activity.outage(context),
            ready_wait: timing.ready_wait,
            foreign_wait: timing.foreign_wait,
            server: context.server(),
            phase,
        });
        match step {
            Step::Act => match attempt(context, activity).await? {
                Attempt::Again => {}
                Attempt::Pause => context.pause(activity.poll(context)).await,
                Attempt::Finish(finish) => {
                    context.phase(phase, PhaseState::Failed, json!({ "code": finish.code })).await?;
                    return Ok(Ended::Finish(finish));
                }
            },
            Step::Resolve(resolution) => {
                context.checkpoint(phase, activity.state(), None, None).await?;
                context.resolve(resolution, json!({ "found": describe(&probe) })).await?;
                if resolution == Resolution::NotApplied
                    && let Some(object) = activity.effect()
                {
                    context.move_effects(object, &[EffectState::Intended], EffectState::NotApplied).await?;
                }
                resolved_as = Some(probe);
            }
            Step::Advance(evidence) => {
                if let Some(object) = activity.effect() {
                    context.move_effects(object, &[EffectState::Intended], EffectState::Applied).await?;
                }
                context.turn(phase, activity.state(), PhaseState::Done, evidence.clone()).await?;
                return Ok(Ended::Done(evidence));
            }
            Step::Wait { waiting, percent } => {
                context.checkpoint(phase, activity.state(), Some(waiting), percent).await?;
                context.pause(activity.poll(context)).await;
            }
            Step::Finish(finish) => {
                if intent.is_some() {
                    context.resolve(Resolution::Unknown, json!({ "found": describe(&probe) })).await?;
                }
                context.phase(phase, PhaseState::Failed, json!({ "code": finish.code })).await?;
                return Ok(Ended::Finish(finish));
            }
            Step::Cancel => {
                context.phase(phase, PhaseState::Failed, json!({ "code": "cancelled" })).await?;
                return Ok(Ended::Cancelled);
            }
            Step::Yield => {
                context.checkpoint(phase, activity.state(), None, None).await?;
                return Err(context
                    .give_back("draining", "the executor is shutting down", Duration::ZERO)
                    .await?);
            }
        }
    }
}

enum Attempt {
    /// Look again at once.
    Again,
    /// Look again after a while.
    Pause,
    Finish(Finish),
}

/// Announces the mutation and makes it once.
async fn attempt<A: Activity>(context: &mut Context, activity: &mut A) -> Result<Attempt, Stop> {
    let phase = activity.phase();
    let looked = context.now();
    let prepared = match activity.prepare(context).await {
        Ok(prepared) => prepared,
        Err(Unprepared::Stop(stop)) => return Err(stop),
        Err(Unprepared::Finish(finish)) => return Ok(Attempt::Finish(finish)),
        Err(Unprepared::Bmc(error)) => {
            context.event(Level::Warn, format!("{phase}: {error}"), Value::Null).await?;
            return Ok(match probe_of(error, context.server(), phase) {
                Probe::Impossible(finish) => Attempt::Finish(finish),
                _ => Attempt::Pause,
            });
        }
    };
    let short = context.short_limit();
    let intent = Intent {
        phase: phase.to_owned(),
        action: activity.action().to_owned(),
        before: crate::text::clean_value(&prepared.before),
        deadline_ms: decide::millis(prepared.limit),
    };
    let prepared_at = context.now();
    let acknowledged: AcknowledgedIntent = context.announce(intent, prepared.effect).await?;
    // What was seen before a long outage of the control plane is no ground to act on.
    if context.now().saturating_sub(prepared_at) > context.timing().settle
        || context.now().saturating_sub(looked) > context.timing().bmc_outage
    {
        not_applied(context, activity, "the acknowledgement came late; nothing was sent").await?;
        return Ok(Attempt::Again);
    }
    let permit = if prepared.upload {
        MutationPermit::upload(&context.shared.leases, acknowledged, prepared.limit, short)
    } else {
        MutationPermit::short(&context.shared.leases, acknowledged, prepared.limit)
    };
    let action = activity.action();
    let result = activity.act(context, permit).await;
    context.request_ended();
    match result {
        Ok(answer) => {
            context
                .event(Level::Info, format!("{}: {action} accepted", context.server()), answer.clone())
                .await?;
            context.checkpoint(phase, activity.state(), None, None).await?;
            context.resolve(Resolution::Applied, answer).await?;
            Ok(Attempt::Again)
        }
        Err(error) => {
            let detail = error.detail.clone();
            context
                .event(Level::Warn, format!("{}: {action}: {detail}", context.server()), Value::Null)
                .await?;
            match error.kind {
                BmcErrorKind::Ambiguous => Ok(Attempt::Pause),
                BmcErrorKind::Held(_)
                | BmcErrorKind::Unreachable
                | BmcErrorKind::NotReady { .. }
                | BmcErrorKind::AuthWithheld { final_word: false } => {
                    not_applied(context, activity, &detail).await?;
                    Ok(Attempt::Pause)
                }
                kind => {
                    not_applied(context, activity, &detail).await?;
                    Ok(Attempt::Finish(refusal(kind, &detail, context.server(), phase)))
                }
            }
        }
    }
}

async fn not_applied<A: Activity>(context: &mut Context, activity: &A, why: &str) -> Result<(), Stop> {
    context.resolve(Resolution::NotApplied, json!({ "why": why })).await?;
    if let Some(object) = activity.effect() {
        context.move_effects(object, &[EffectState::Intended], EffectState::NotApplied).await?;
    }
    Ok(())
}

fn describe(probe: &Probe) -> Value {
    match probe {
        Probe::NotStarted => json!("nothing"),
        Probe::InFlight { detail, .. } => json!({ "in_flight": detail }),
        Probe::Done(evidence) => json!({ "done": evidence }),
        Probe::NotReady { detail, .. } | Probe::Unreachable(detail) => json!({ "not_readable": detail }),
        Probe::Ambiguous(detail) | Probe::Foreign(detail) => json!({ "ambiguous": detail }),
        Probe::Impossible(finish) => json!({ "failed": finish.code }),
    }
}
