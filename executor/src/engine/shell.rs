//! The shell around [`decide`]: it looks at the device, carries out the step, and starts over.

use std::{future::Future, time::Duration};

use rackhand_schema::{
    ErrorCode,
    event::Level,
    protocol::{Finish, Intent, Resolution, Waiting},
    run::{Effect, PhaseState},
};
use serde_json::{Value, json};

use super::{
    context::{Announced, Context, Stop},
    decide::{self, Interrupt, Probe, Reason, Refused, Situation, Step, decide},
    fault,
    patience::Patience,
};
use crate::{
    bmc::{BmcError, BmcErrorKind},
    broker::{Kept, LOOK_AGE},
    lease::{Hold, MutationPermit},
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

/// A failed read, as a probe: the device may be away or busy; anything else refuses the look.
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
        BmcErrorKind::ForeignJob => Probe::Foreign(detail),
        kind => Probe::Denied {
            finish: refusal(kind, &detail, server, phase),
            lasting: kind == BmcErrorKind::AnotherMachine,
        },
    }
}

fn refusal(kind: BmcErrorKind, detail: &str, server: &str, phase: &str) -> Finish {
    // What the control plane says is a sentence already; what a device says often is none.
    let said = detail.trim_end_matches('.');
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
                "The BMC of {server} refused the credential during {phase}: {said}. It is not tried again in this run."
            ),
        ),
        BmcErrorKind::AuthWithheld { .. } => (
            ErrorCode::CredentialSuspended,
            format!(
                "The credential for {server} was not presented: {said}. Seal a new version, or let it be tried \
                 again if the password is right, then retry."
            ),
        ),
        BmcErrorKind::AnotherMachine => (
            ErrorCode::AnotherMachine,
            format!(
                "{server} is not the planned machine: {said}. Nothing was sent to it in {phase}. Compare the \
                 service tags and correct the registration, then plan again."
            ),
        ),
        BmcErrorKind::Unsupported | BmcErrorKind::NoQueue => {
            (ErrorCode::DeviceUnsupported, format!("{server} cannot do what {phase} needs: {said}."))
        }
        _ => (ErrorCode::DeviceRefused, format!("{server} refused during {phase}: {said}.")),
    };
    fault(code, text, json!({ "phase": phase, "device": detail }))
}

/// Carries out `activity` to its end.
///
/// # Errors
/// [`Stop`]: the run goes on elsewhere, or nowhere for now.
pub async fn perform<A: Activity>(context: &mut Context, activity: &mut A) -> Result<Ended, Stop> {
    let phase = activity.phase();
    let kept = context.take_patience(phase, activity.action());
    context.turn(phase, kept.beside(activity.state()), PhaseState::Running, Value::Null).await?;
    let mut away_since: Option<Duration> = None;
    let mut kind_since = (std::mem::discriminant(&Probe::NotStarted), context.now());
    let (mut work_seen, mut blind_before) = (context.now(), kept.blind());
    let mut resolved_as: Option<Probe> = None;
    let mut told = false;
    let mut tries = Tries::of_predecessors(&kept, context.now());
    let mut looked_at = context.now();
    let mut kept_slot: Option<Kept> = None;
    loop {
        context.check()?;
        // Given back after this look, unless the mutation follows.
        let slot = kept_slot.take();
        if context.cancelled() && activity.interrupt() == Interrupt::Never && !told {
            told = true;
            let text =
                format!("{}: {phase} cannot be stopped any more; it is seen to its end", context.server());
            context.event(Level::Warn, text, Value::Null).await?;
        }
        let intent = context.intent(phase, activity.action()).cloned();
        let probe = match resolved_as.take() {
            Some(probe) => probe,
            None => {
                context.looks();
                let look = activity.probe(context, intent.as_ref()).await;
                match &look {
                    Ok(_) => context.answered(),
                    Err(_) => context.breaks(),
                }
                look.unwrap_or_else(|error| probe_of(error, context.server(), phase))
            }
        };
        context.tell_unidentified().await?;
        let (now, before) = (context.now(), looked_at);
        looked_at = now;
        if matches!(probe, Probe::Unreachable(_)) {
            away_since.get_or_insert(now);
        } else {
            away_since = None;
        }
        let hold = context.hold(context.short_limit());
        let passed = now.saturating_sub(before);
        if hold.is_some() {
            // What is held back for days sees its device away now and then.
            work_seen += passed;
        }
        if matches!(probe, Probe::Unlooked) {
            // What is waited for of the device neither goes on nor begins anew.
            kind_since.1 += passed;
        } else {
            if probe.shows_work() {
                (work_seen, blind_before) = (now, Duration::ZERO);
            }
            if kind_since.0 != std::mem::discriminant(&probe) {
                kind_since = (std::mem::discriminant(&probe), now);
            }
        }
        let blind = blind_before + now.saturating_sub(work_seen);
        let timing = context.timing();
        if let (Some(tries), Some(_)) = (&mut tries, hold) {
            tries.held_for(now.saturating_sub(before));
        }
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
            hold,
            away: away_since.map_or(Duration::ZERO, |since| now.saturating_sub(since)),
            waited: now.saturating_sub(kind_since.1),
            blind,
            refused: tries.as_ref().map(|tries| tries.refused(now)),
            outage: activity.outage(context),
            ready_wait: timing.ready_wait,
            foreign_wait: timing.foreign_wait,
            server: context.server(),
            phase,
        });
        let slot = match (&step, slot) {
            (Step::Act, Some(slot)) => Some(slot),
            (Step::Act, None) => {
                let asked = context.now();
                let slot = context.line.keep().await;
                if context.now().saturating_sub(asked) > LOOK_AGE {
                    // The look is as old as the wait was long: another one, over this slot.
                    kept_slot = Some(slot);
                    continue;
                }
                Some(slot)
            }
            _ => None,
        };
        match step {
            Step::Act => match attempt(context, activity, tries.as_ref(), slot).await? {
                Attempt::Taken => tries = None,
                Attempt::Lost => context.pause(activity.poll(context)).await,
                Attempt::NotTaken(held) => {
                    // From its end: before it, the control plane may have been away for hours.
                    let tried = Tries::after(tries.take(), context.now(), held);
                    let (waiting, pause) = tried.pause(context, activity.poll(context));
                    tries = Some(tried);
                    let state = kept_state(context, activity, tries.as_ref(), blind);
                    context.checkpoint(phase, state, Some(waiting), None).await?;
                    context.pause(pause).await;
                }
                Attempt::Finish(finish) => {
                    end_in_vain(context, activity, &finish.code).await?;
                    return Ok(Ended::Finish(finish));
                }
            },
            Step::Resolve(resolution) => {
                let state = kept_state(context, activity, tries.as_ref(), blind);
                context.checkpoint(phase, state, None, None).await?;
                let found = json!({ "found": describe(&probe) });
                context.resolve(resolution, activity.effect(), found).await?;
                // After "not applied" the device is looked at afresh: nothing is begun on an old look.
                resolved_as = (resolution == Resolution::Applied).then_some(probe);
            }
            Step::Advance(evidence) => {
                context.turn(phase, activity.state(), PhaseState::Done, evidence.clone()).await?;
                return Ok(Ended::Done(evidence));
            }
            Step::Wait { waiting, percent } => {
                let state = kept_state(context, activity, tries.as_ref(), blind);
                context.checkpoint(phase, state, Some(waiting), percent).await?;
                context.pause(activity.poll(context)).await;
            }
            Step::Finish(finish) => {
                if intent.is_some() {
                    let found = json!({ "found": describe(&probe) });
                    context.resolve(Resolution::Unknown, activity.effect(), found).await?;
                }
                end_in_vain(context, activity, &finish.code).await?;
                return Ok(Ended::Finish(finish));
            }
            Step::Cancel => {
                end_in_vain(context, activity, "cancelled").await?;
                return Ok(Ended::Cancelled);
            }
            Step::Yield => {
                let state = kept_state(context, activity, tries.as_ref(), blind);
                context.checkpoint(phase, state, None, None).await?;
                return Err(context.drained().await?);
            }
        }
    }
}

/// The activity's state and what was waited for it so far.
fn kept_state<A: Activity>(context: &Context, activity: &A, tries: Option<&Tries>, blind: Duration) -> Value {
    let [tried, held] = tries.map_or_else(Default::default, Tries::counted);
    context.patience(activity.action(), tried, held, blind).beside(activity.state())
}

/// The activity ends without its work done. What was waited for it is over, too: when it is begun anew later, as
/// undoing is under each new lease, it has its whole patience.
async fn end_in_vain<A: Activity>(context: &mut Context, activity: &A, code: &str) -> Result<(), Stop> {
    context.turn(activity.phase(), activity.state(), PhaseState::Failed, json!({ "code": code })).await
}

/// Why the device was not given the mutation, or did not take it; nothing has come of it.
struct NotTaken {
    reason: &'static str,
    detail: String,
}

impl NotTaken {
    /// By the look that the same error would give; none when trying again is in vain.
    fn by(probe: &Probe) -> Option<Self> {
        let (reason, detail) = match probe {
            Probe::NotReady { reason, detail } => (*reason, detail),
            Probe::Foreign(detail) => (FOREIGN, detail),
            Probe::Unreachable(detail) => ("bmc_unreachable", detail),
            _ => return None,
        };
        Some(Self { reason, detail: detail.clone() })
    }
}

/// Machine word of a wait behind somebody else's work.
const FOREIGN: &str = "foreign_device_job";
/// Machine word of a wait of this executor's own making.
const HELD: &str = "control_plane";

/// Tries of one kind, since the first of them.
#[derive(Clone, Copy, Default)]
struct Series {
    since: Duration,
    /// How long those of predecessors had lasted.
    before: Duration,
    count: u32,
}

impl Series {
    fn of_predecessors(count: u32, before: Duration, now: Duration) -> Self {
        Self { since: now, before, count }
    }

    fn one_more(self, now: Duration) -> Self {
        let since = if self.count == 0 { now } else { self.since };
        Self { since, count: self.count + 1, ..self }
    }

    fn lasted(&self, now: Duration) -> Duration {
        if self.count == 0 { Duration::ZERO } else { self.before + now.saturating_sub(self.since) }
    }
}

/// The tries at one mutation in vain. What this executor held back is no refusal by the device, and counted apart.
struct Tries {
    by_device: Series,
    held_back: Series,
    last: NotTaken,
    /// When that was, or this executor took over.
    at: Duration,
}

impl Tries {
    fn of_predecessors(kept: &Patience, now: Duration) -> Option<Self> {
        let reason = if kept.tries > 0 { "device_busy" } else { HELD };
        let last = NotTaken { reason, detail: "a former executor tried in vain".to_owned() };
        let by_device = Series::of_predecessors(kept.tries, kept.tried(), now);
        let held_back = Series::of_predecessors(kept.held, kept.held_for(), now);
        (kept.tries + kept.held > 0).then_some(Self { by_device, held_back, last, at: now })
    }

    fn after(earlier: Option<Self>, now: Duration, last: NotTaken) -> Self {
        let (mut by_device, mut held_back) =
            earlier.map_or_else(Default::default, |earlier| (earlier.by_device, earlier.held_back));
        let series = if last.reason == HELD { &mut held_back } else { &mut by_device };
        *series = series.one_more(now);
        Self { by_device, held_back, last, at: now }
    }

    fn reason(&self) -> Reason {
        match self.last.reason {
            FOREIGN => Reason::Foreign,
            HELD => Reason::Held,
            _ => Reason::Device,
        }
    }

    /// Those of the kind that the last one was.
    fn series(&self) -> &Series {
        if self.reason() == Reason::Held { &self.held_back } else { &self.by_device }
    }

    /// How many, and how long they have lasted: those that the device refused, and those that were held back.
    fn counted(&self) -> [(u32, Duration); 2] {
        [self.by_device, self.held_back].map(|series| (series.count, series.lasted(self.at)))
    }

    /// While people or the lease hold mutations back, the device is not tried.
    fn held_for(&mut self, duration: Duration) {
        self.by_device.since += duration;
        self.held_back.since += duration;
        self.at += duration;
    }

    fn refused(&self, now: Duration) -> Refused<'_> {
        Refused {
            tries: self.series().count,
            lasted: self.series().lasted(now),
            reason: self.reason(),
            detail: &self.last.detail,
        }
    }

    /// What is waited for, and for how long until the next try: longer each time.
    fn pause(&self, context: &Context, poll: Duration) -> (Waiting, Duration) {
        let lasted = self.series().lasted(context.now());
        let timing = context.timing();
        let patience = if self.reason() == Reason::Foreign { timing.foreign_wait } else { timing.ready_wait };
        let waiting = Waiting {
            reason: self.last.reason.to_owned(),
            detail: format!("{}: {}", context.server(), self.last.detail),
            within_ms: decide::millis(patience.saturating_sub(lasted)),
        };
        (waiting, poll * 2u32.pow(self.series().count.saturating_sub(1).min(3)))
    }

    /// Whether the last try ended with these words: then they are not told again.
    fn told(earlier: Option<&Self>, detail: &str) -> bool {
        earlier.is_some_and(|earlier| earlier.last.detail == detail)
    }
}

enum Attempt {
    /// The device has taken it.
    Taken,
    /// It was sent, and the answer is lost.
    Lost,
    NotTaken(NotTaken),
    Finish(Finish),
}

/// Announces the mutation and makes it once. All looks at the device from here on, and the mutation, share `_slot`.
async fn attempt<A: Activity>(
    context: &mut Context,
    activity: &mut A,
    earlier: Option<&Tries>,
    _slot: Option<Kept>,
) -> Result<Attempt, Stop> {
    let phase = activity.phase();
    let looked = context.now();
    let prepared = match activity.prepare(context).await {
        Ok(prepared) => prepared,
        Err(Unprepared::Stop(stop)) => return Err(stop),
        Err(Unprepared::Finish(finish)) => return Ok(Attempt::Finish(finish)),
        Err(Unprepared::Bmc(error)) => {
            if may_have_restarted(error.kind) {
                context.breaks();
            }
            if !Tries::told(earlier, &error.detail) {
                context.event(Level::Warn, format!("{phase}: {error}"), Value::Null).await?;
            }
            let probe = probe_of(error, context.server(), phase);
            return Ok(match (NotTaken::by(&probe), probe) {
                (Some(held), _) => Attempt::NotTaken(held),
                (None, Probe::Denied { finish, .. }) if activity.interrupt() == Interrupt::Safe => {
                    Attempt::Finish(finish)
                }
                // The next look is refused, too, and decides by what is under way.
                (None, Probe::Denied { finish, .. }) => {
                    Attempt::NotTaken(NotTaken { reason: "bmc_refuses", detail: finish.detail })
                }
                (None, _) => Attempt::Lost,
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
    let effect = prepared.effect.map(|effect| context.same_effect(effect));
    let acknowledged = match context.announce(intent, effect).await? {
        Announced::Acknowledged(intent) => intent,
        Announced::Spent => return Ok(spent(context, activity)),
    };
    // What was seen before a long outage of the control plane is no ground to act on.
    if context.now().saturating_sub(prepared_at) > context.timing().settle
        || context.now().saturating_sub(looked) > context.timing().bmc_outage
    {
        let detail = "the acknowledgement came late; nothing was sent";
        not_applied(context, activity, detail).await?;
        return Ok(Attempt::NotTaken(NotTaken { reason: HELD, detail: detail.to_owned() }));
    }
    if context.now().saturating_sub(prepared_at) > context.timing().settle / 2 {
        context.breaks();
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
            let state = kept_state(context, activity, None, Duration::ZERO);
            context.checkpoint(phase, state, None, None).await?;
            context.resolve(Resolution::Applied, activity.effect(), answer).await?;
            Ok(Attempt::Taken)
        }
        Err(error) => {
            if may_have_restarted(error.kind) {
                context.breaks();
            }
            let detail = error.detail.clone();
            if !Tries::told(earlier, &detail) {
                context
                    .event(Level::Warn, format!("{}: {action}: {detail}", context.server()), Value::Null)
                    .await?;
            }
            let kind = error.kind;
            match kind {
                BmcErrorKind::Ambiguous => Ok(Attempt::Lost),
                // The device, or this machine, is slow.
                BmcErrorKind::Held(Hold::OldLook) => {
                    not_applied(context, activity, &detail).await?;
                    Ok(Attempt::NotTaken(NotTaken { reason: "device_busy", detail }))
                }
                BmcErrorKind::Held(_) => {
                    not_applied(context, activity, &detail).await?;
                    Ok(Attempt::NotTaken(NotTaken { reason: HELD, detail }))
                }
                BmcErrorKind::Unreachable
                | BmcErrorKind::NotReady { .. }
                | BmcErrorKind::ForeignJob
                | BmcErrorKind::AuthWithheld { final_word: false } => {
                    not_applied(context, activity, &detail).await?;
                    let held = NotTaken::by(&probe_of(error, context.server(), phase));
                    Ok(held.map_or(Attempt::Lost, Attempt::NotTaken))
                }
                kind => {
                    not_applied(context, activity, &detail).await?;
                    Ok(Attempt::Finish(refusal(kind, &detail, context.server(), phase)))
                }
            }
        }
    }
}

/// Whether the device may have restarted where a request after the look ended so. One that says it is too busy may have,
/// too: that is what one says that starts, and it may be the answer to a login before the request.
fn may_have_restarted(kind: BmcErrorKind) -> bool {
    !matches!(kind, BmcErrorKind::ForeignJob | BmcErrorKind::Held(_))
}

/// Nothing else is begun in this run. Where something may be under way, looks decide how it ends.
fn spent<A: Activity>(context: &Context, activity: &A) -> Attempt {
    let detail = format!(
        "This run has reported as much as is kept of one, so {} was not begun at {}. Look at its events for what was \
         repeated.",
        activity.action(),
        context.server()
    );
    if activity.interrupt() == Interrupt::Never {
        return Attempt::NotTaken(NotTaken { reason: "run_spent", detail });
    }
    let evidence = json!({ "phase": activity.phase() });
    Attempt::Finish(fault(ErrorCode::RunSpent, detail, evidence))
}

async fn not_applied<A: Activity>(context: &mut Context, activity: &A, why: &str) -> Result<(), Stop> {
    context.resolve(Resolution::NotApplied, activity.effect(), json!({ "why": why })).await
}

fn describe(probe: &Probe) -> Value {
    match probe {
        Probe::NotStarted | Probe::Unlooked => json!("nothing"),
        Probe::InFlight { detail, .. } => json!({ "in_flight": detail }),
        Probe::Done(evidence) => json!({ "done": evidence }),
        Probe::NotReady { detail, .. } | Probe::Unreachable(detail) => json!({ "not_readable": detail }),
        Probe::Ambiguous(detail) | Probe::Foreign(detail) => json!({ "ambiguous": detail }),
        Probe::Impossible(finish) | Probe::Denied { finish, .. } => json!({ "failed": finish.code }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_within_a_sentence_ends_once() {
        for kind in [
            BmcErrorKind::Auth,
            BmcErrorKind::AuthWithheld { final_word: true },
            BmcErrorKind::AnotherMachine,
            BmcErrorKind::Unsupported,
            BmcErrorKind::Refused,
        ] {
            let said =
                refusal(kind, "BMCs refused it twice. Nothing was sent since.", "bmc-01", "check").detail;
            assert!(!said.contains("..") && said.contains("sent since."), "{said}");
        }
        // A later run may present it.
        let said = refusal(BmcErrorKind::Auth, "HTTP 401", "bmc-01", "check").detail;
        assert!(said.ends_with(": HTTP 401. It is not tried again in this run."), "{said}");
    }

    #[test]
    fn what_was_held_back_is_no_refusal_by_the_device() {
        let at = Duration::from_secs;
        let not_taken = |reason| NotTaken { reason, detail: String::new() };
        let mut tries = None;
        for n in 0..5 {
            tries = Some(Tries::after(tries, at(10 * n), not_taken("device_busy")));
            tries = Some(Tries::after(tries, at(10 * n + 5), not_taken(HELD)));
        }
        let mut tries = tries.unwrap();
        let refused = tries.refused(at(60));
        assert_eq!((refused.tries, refused.lasted, refused.reason), (5, at(55), Reason::Held));
        assert_eq!(tries.counted(), [(5, at(45)), (5, at(40))]);
        tries.last = not_taken("device_busy");
        let refused = tries.refused(at(60));
        assert_eq!((refused.tries, refused.lasted, refused.reason), (5, at(60), Reason::Device));
    }
}
