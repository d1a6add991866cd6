//! What next? Pure: what a probe found, what was announced and how much time has passed come in, one step comes
//! out. Everything that may touch hardware goes through [`decide`], so that the rules of invariants 3 and 4 stand
//! in one place: an unresolved intent is never repeated but resolved, nothing starts under a hold, nothing is tried
//! without end, and what may be under way inside a device never ends as `failed` because it could not be looked at.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    protocol::{Finish, Resolution, Waiting},
    run::Outcome,
};
use serde_json::{Value, json};

use super::fault;
use crate::lease::Hold;

/// What a look at the device shows about an activity. It is also the answer to a poll (`InFlight` is "wait",
/// `Impossible` "failed") and to a verification (`InFlight` is "not yet", `Ambiguous` "unknown").
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// No trace of it.
    NotStarted,
    /// Nothing may begin now, and what the device is at was not looked at, or is not told.
    Unlooked,
    /// Under way; nothing to do but look again.
    InFlight { reason: &'static str, detail: String, percent: Option<u8> },
    /// Done, with what was read back.
    Done(Value),
    /// The device answers but is not ready for it.
    NotReady { reason: &'static str, detail: String },
    /// The device does not answer.
    Unreachable(String),
    /// Evidence of more than one kind: a person must decide.
    Ambiguous(String),
    /// Somebody else's work is in the way.
    Foreign(String),
    /// The device or our access to it refuses the look: the credential, its TLS key, the call. That says nothing
    /// about the work. `lasting`: another look would be refused, too.
    Denied { finish: Finish, lasting: bool },
    /// It cannot be done, or has failed.
    Impossible(Finish),
}

/// Why a mutation was not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The device refused it, or was not ready for it.
    Device,
    /// Somebody else's work.
    Foreign,
    /// This executor sent nothing: its lease, the control plane or its last look did not allow it.
    Held,
}

/// A mutation that was tried and not taken, or could not be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused<'a> {
    /// Those that the device refused, or those that were held back, by `reason`.
    pub tries: u32,
    /// Since the first of them.
    pub lasted: Duration,
    pub reason: Reason,
    /// The last reason.
    pub detail: &'a str,
}

/// So often one mutation is tried. Pauses between tries double, so that its patience usually ends first.
pub const MAX_TRIES: u32 = 20;

/// When an activity may be left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Before it has acted.
    Safe,
    /// Also afterwards: its effects can be undone.
    Cancellable,
    /// Never: it must be seen to its end.
    Never,
}

/// The announced mutation that nobody has resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntentAge {
    None,
    /// The device may still hide its traces.
    Young,
    /// Traces would have shown by now.
    Settled,
}

/// Everything a decision depends on.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    pub probe: &'a Probe,
    pub intent: IntentAge,
    pub cancel: bool,
    pub draining: bool,
    pub interrupt: Interrupt,
    /// Why no mutation may start now.
    pub hold: Option<Hold>,
    /// How long the device has been unreachable without a break.
    pub away: Duration,
    /// How long the probe has said the same kind of thing.
    pub waited: Duration,
    /// How long no look has shown the work itself: the device was away, busy, refused or behind foreign work, in
    /// whatever turns.
    pub blind: Duration,
    /// What became of the tries so far; none before the first.
    pub refused: Option<Refused<'a>>,
    /// Limits for `away`, and for `waited` while not ready or behind foreign work.
    pub outage: Duration,
    pub ready_wait: Duration,
    pub foreign_wait: Duration,
    /// Name of the server, for texts.
    pub server: &'a str,
    pub phase: &'a str,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Announce the mutation, then make it.
    Act,
    /// Record what became of the announced mutation, then decide again.
    Resolve(Resolution),
    /// The activity is done.
    Advance(Value),
    Wait {
        waiting: Waiting,
        percent: Option<u8>,
    },
    Finish(Finish),
    /// People want it ended, and this is a safe point.
    Cancel,
    /// The executor goes away, and this is a safe point.
    Yield,
}

impl Situation<'_> {
    /// Whether a wait of `lasted` goes on: within its own limit, and, for a device that is away and busy in turns,
    /// within all of them together.
    fn is_patient(&self, lasted: Duration, limit: Duration) -> bool {
        lasted <= limit && self.blind <= self.outage + self.ready_wait + self.foreign_wait
    }
}

impl Probe {
    /// Whether it tells of the work itself, not only that it cannot be seen or begun.
    pub fn shows_work(&self) -> bool {
        match self {
            Self::Unlooked
            | Self::NotReady { .. }
            | Self::Unreachable(_)
            | Self::Foreign(_)
            | Self::Denied { .. } => false,
            Self::NotStarted
            | Self::InFlight { .. }
            | Self::Done(_)
            | Self::Ambiguous(_)
            | Self::Impossible(_) => true,
        }
    }
}

pub fn decide(now: &Situation<'_>) -> Step {
    match now.intent {
        IntentAge::None => undisturbed(now),
        age => unresolved(now, age),
    }
}

/// A mutation was announced and its outcome is not known: look, never repeat.
fn unresolved(now: &Situation<'_>, age: IntentAge) -> Step {
    let settled = age == IntentAge::Settled;
    match now.probe {
        Probe::InFlight { .. } | Probe::Done(_) => Step::Resolve(Resolution::Applied),
        Probe::NotStarted if settled => Step::Resolve(Resolution::NotApplied),
        Probe::NotStarted | Probe::Unlooked => {
            wait(now, "settling", "waits until the device would show traces", now.outage)
        }
        Probe::Ambiguous(what) | Probe::Foreign(what) if settled => Step::Finish(unknown(now, what)),
        Probe::Ambiguous(what) | Probe::Foreign(what) => wait(now, "settling", what, now.outage),
        Probe::NotReady { reason, detail } if now.is_patient(now.waited, now.ready_wait) => {
            wait(now, reason, detail, now.ready_wait)
        }
        Probe::NotReady { detail, .. } => Step::Finish(unknown(now, detail)),
        Probe::Unreachable(what) if now.is_patient(now.away, now.outage) => {
            wait(now, "bmc_unreachable", what, now.outage)
        }
        Probe::Unreachable(what) => Step::Finish(unknown(now, what)),
        Probe::Denied { finish, lasting } => denied(now, finish, *lasting),
        // The device may well have failed at something; whether that was this mutation it does not say.
        Probe::Impossible(finish) => Step::Finish(unknown(now, &finish.detail)),
    }
}

/// The look was refused while something may be under way: patience first, and never "failed".
fn denied(now: &Situation<'_>, finish: &Finish, lasting: bool) -> Step {
    if lasting {
        return Step::Finish(Finish { outcome: Outcome::Unknown, ..finish.clone() });
    }
    if now.is_patient(now.waited, now.outage) {
        return wait(now, "bmc_refuses", &finish.detail, now.outage);
    }
    Step::Finish(unknown(now, &finish.detail))
}

fn undisturbed(now: &Situation<'_>) -> Step {
    match now.probe {
        Probe::Done(evidence) => return Step::Advance(evidence.clone()),
        Probe::Impossible(finish) => return Step::Finish(finish.clone()),
        Probe::Ambiguous(what) => return Step::Finish(unknown(now, what)),
        _ => {}
    }
    let in_flight = matches!(now.probe, Probe::InFlight { .. });
    let may_leave = match now.interrupt {
        Interrupt::Safe => !in_flight,
        Interrupt::Cancellable => true,
        Interrupt::Never => false,
    };
    if now.cancel && may_leave {
        return Step::Cancel;
    }
    if now.draining {
        return Step::Yield;
    }
    match now.probe {
        Probe::NotStarted => match (now.hold, now.refused) {
            (Some(hold), _) => wait(now, hold_word(hold), &hold.to_string(), now.outage),
            (None, Some(refused)) if exhausted(now, &refused) => Step::Finish(gave_up(now, &refused)),
            (None, _) => Step::Act,
        },
        Probe::Unlooked => match now.hold {
            Some(hold) => wait(now, hold_word(hold), &hold.to_string(), now.outage),
            // It has ended meanwhile.
            None => wait(now, "settling", "is looked at next", now.outage),
        },
        Probe::InFlight { reason, detail, percent } => Step::Wait {
            waiting: Waiting {
                reason: (*reason).to_owned(),
                detail: detail.clone(),
                within_ms: millis(now.outage),
            },
            percent: *percent,
        },
        Probe::NotReady { reason, detail } if now.is_patient(now.waited, now.ready_wait) => {
            wait(now, reason, detail, now.ready_wait)
        }
        // What must be seen to its end may be under way behind it.
        Probe::NotReady { detail, .. } if now.interrupt == Interrupt::Never => {
            Step::Finish(unknown(now, detail))
        }
        Probe::NotReady { detail, .. } => Step::Finish(fault(
            ErrorCode::DeviceBusy,
            format!(
                "{} stayed busy before {}: {detail}. Nothing was changed by this phase. Plan again when it is ready.",
                now.server, now.phase
            ),
            json!({ "waited_ms": millis(now.waited) }),
        )),
        Probe::Foreign(what) if now.is_patient(now.waited, now.foreign_wait) => {
            wait(now, "foreign_device_job", what, now.foreign_wait)
        }
        Probe::Foreign(what) if now.interrupt == Interrupt::Never => Step::Finish(unknown(now, what)),
        Probe::Foreign(what) => Step::Finish(fault(
            ErrorCode::ForeignDeviceJob,
            format!(
                "{} has work that is not ours: {what}. It was left alone. Let it end or delete it, then retry.",
                now.server
            ),
            json!({ "waited_ms": millis(now.waited) }),
        )),
        Probe::Unreachable(what) if now.is_patient(now.away, now.outage) => {
            wait(now, "bmc_unreachable", what, now.outage)
        }
        Probe::Unreachable(what) if now.interrupt == Interrupt::Never => Step::Finish(unknown(now, what)),
        Probe::Unreachable(what) => Step::Finish(fault(
            ErrorCode::BmcUnreachable,
            format!(
                "The BMC of {} has not answered for {} s before {}: {what}. Check its network and power, then retry.",
                now.server,
                now.away.max(now.blind).as_secs(),
                now.phase
            ),
            json!({ "away_ms": millis(now.away) }),
        )),
        Probe::Denied { finish, .. } if now.interrupt == Interrupt::Safe => Step::Finish(finish.clone()),
        Probe::Denied { finish, lasting } => denied(now, finish, *lasting),
        Probe::Done(evidence) => Step::Advance(evidence.clone()),
        Probe::Impossible(finish) => Step::Finish(finish.clone()),
        Probe::Ambiguous(what) => Step::Finish(unknown(now, what)),
    }
}

fn exhausted(now: &Situation<'_>, refused: &Refused<'_>) -> bool {
    let patience = if refused.reason == Reason::Foreign { now.foreign_wait } else { now.ready_wait };
    refused.tries >= MAX_TRIES || refused.lasted > patience
}

fn gave_up(now: &Situation<'_>, refused: &Refused<'_>) -> Finish {
    let evidence = json!({ "tries": refused.tries, "lasted_ms": millis(refused.lasted) });
    let (code, why) = match refused.reason {
        Reason::Foreign => (ErrorCode::ForeignDeviceJob, "has work that is not ours"),
        Reason::Device => (ErrorCode::DeviceBusy, "stayed busy"),
        Reason::Held => {
            let text = format!(
                "{}: {} was held back {} times in {} s and nothing was sent: {}. Look whether the executor reaches the \
                 control plane in time and its machine is not overloaded, then retry.",
                now.server,
                now.phase,
                refused.tries,
                refused.lasted.as_secs(),
                refused.detail
            );
            return fault(ErrorCode::HeldBack, text, evidence);
        }
    };
    fault(
        code,
        format!(
            "{} {why}: {}. {} was tried {} times in {} s and not taken; nothing was changed by it. Let the \
             device finish its work, then retry.",
            now.server,
            refused.detail,
            now.phase,
            refused.tries,
            refused.lasted.as_secs()
        ),
        evidence,
    )
}

fn hold_word(hold: Hold) -> &'static str {
    match hold {
        Hold::Paused => "hardware_paused",
        Hold::LeaseTooShort => "control_plane",
        Hold::Draining => "draining",
        Hold::OldLook => "settling",
    }
}

fn wait(now: &Situation<'_>, reason: &str, detail: &str, within: Duration) -> Step {
    let detail = format!("{}: {detail}", now.server);
    Step::Wait {
        waiting: Waiting { reason: reason.to_owned(), detail, within_ms: millis(within) },
        percent: None,
    }
}

fn unknown(now: &Situation<'_>, what: &str) -> Finish {
    fault(
        ErrorCode::OutcomeUnknown,
        format!(
            "Whether {} happened on {} could not be found out: {what}. It was not repeated. Look at the server, then decide.",
            now.phase, now.server
        ),
        json!({ "phase": now.phase }),
    )
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    fn now(probe: &Probe) -> Situation<'_> {
        Situation {
            probe,
            intent: IntentAge::None,
            cancel: false,
            draining: false,
            interrupt: Interrupt::Safe,
            hold: None,
            away: Duration::ZERO,
            waited: Duration::ZERO,
            blind: Duration::ZERO,
            refused: None,
            outage: LIMIT,
            ready_wait: LIMIT,
            foreign_wait: LIMIT,
            server: "srv",
            phase: "stage",
        }
    }

    fn in_flight() -> Probe {
        Probe::InFlight { reason: "device_job", detail: String::new(), percent: None }
    }

    fn denied_by(lasting: bool) -> Probe {
        Probe::Denied { finish: fault(ErrorCode::BmcAuthFailed, "", Value::Null), lasting }
    }

    fn every_probe() -> [Probe; 11] {
        [
            Probe::NotStarted,
            Probe::Unlooked,
            in_flight(),
            Probe::Done(Value::Null),
            Probe::NotReady { reason: "device_busy", detail: String::new() },
            Probe::Unreachable(String::new()),
            Probe::Ambiguous(String::new()),
            Probe::Foreign(String::new()),
            Probe::Impossible(fault(ErrorCode::DeviceFailed, "", Value::Null)),
            denied_by(false),
            denied_by(true),
        ]
    }

    fn code(step: &Step) -> &str {
        match step {
            Step::Finish(finish) => &finish.code,
            _ => "",
        }
    }

    /// Invariants 3 and 4 in one table: nothing but a clean "not started" without hold, intent, cancellation or
    /// drain acts.
    #[test]
    fn only_a_clear_not_started_acts() {
        for probe in &every_probe() {
            for intent in [IntentAge::None, IntentAge::Young, IntentAge::Settled] {
                for hold in [None, Some(Hold::Paused), Some(Hold::LeaseTooShort)] {
                    for (cancel, draining) in [(false, false), (true, false), (false, true)] {
                        let situation = Situation { intent, hold, cancel, draining, ..now(probe) };
                        let clear = *probe == Probe::NotStarted
                            && intent == IntentAge::None
                            && hold.is_none()
                            && !cancel
                            && !draining;
                        assert_eq!(decide(&situation) == Step::Act, clear, "{situation:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_unresolved_intent_is_resolved_before_anything_else() {
        let resolved = |probe: &Probe, intent| decide(&Situation { intent, ..now(probe) });
        for age in [IntentAge::Young, IntentAge::Settled] {
            assert_eq!(resolved(&in_flight(), age), Step::Resolve(Resolution::Applied));
            assert_eq!(resolved(&Probe::Done(Value::Null), age), Step::Resolve(Resolution::Applied));
        }
        assert!(matches!(resolved(&Probe::NotStarted, IntentAge::Young), Step::Wait { .. }));
        let settled = resolved(&Probe::NotStarted, IntentAge::Settled);
        assert_eq!(settled, Step::Resolve(Resolution::NotApplied));
        for unclear in [Probe::Ambiguous(String::new()), Probe::Foreign(String::new())] {
            assert!(matches!(resolved(&unclear, IntentAge::Young), Step::Wait { .. }));
            assert_eq!(code(&resolved(&unclear, IntentAge::Settled)), "outcome-unknown");
        }
    }

    #[test]
    fn patience_ends_with_the_right_word() {
        let late = |probe: &Probe, intent, interrupt| {
            let past = LIMIT * 2;
            decide(&Situation { away: past, waited: past, intent, interrupt, ..now(probe) })
        };
        let (none, safe) = (IntentAge::None, Interrupt::Safe);
        let [_, _, _, _, not_ready, unreachable, _, foreign, ..] = every_probe();
        assert_eq!(code(&late(&not_ready, none, safe)), "device-busy");
        assert_eq!(code(&late(&foreign, none, safe)), "foreign-device-job");
        assert_eq!(code(&late(&unreachable, none, safe)), "bmc-unreachable");
        assert_eq!(code(&late(&unreachable, none, Interrupt::Never)), "outcome-unknown");
        assert_eq!(code(&late(&unreachable, IntentAge::Settled, safe)), "outcome-unknown");
    }

    /// An intent is open, or something must be seen to its end: whatever the look shows, for however long, the run
    /// never ends as `failed` unless the device itself says that this work has failed.
    #[test]
    fn what_may_be_under_way_never_ends_as_failed() {
        let intents = [IntentAge::None, IntentAge::Young, IntentAge::Settled];
        let interrupts = [Interrupt::Safe, Interrupt::Cancellable, Interrupt::Never];
        for probe in &every_probe() {
            for (intent, interrupt) in intents.into_iter().flat_map(|age| interrupts.map(|how| (age, how))) {
                for time in [Duration::ZERO, LIMIT * 2] {
                    let away = Situation { away: time, waited: time, ..now(probe) };
                    let situation = Situation { intent, interrupt, ..away };
                    let Step::Finish(finish) = decide(&situation) else { continue };
                    let told = matches!(probe, Probe::Impossible(_)) && intent == IntentAge::None;
                    let idle = intent == IntentAge::None && interrupt != Interrupt::Never;
                    let may_fail = told || idle;
                    assert!(may_fail || finish.outcome == Outcome::Unknown, "{situation:?} {finish:?}");
                }
            }
        }
    }

    #[test]
    fn a_refused_look_passes_or_ends_the_run_by_what_is_under_way() {
        let look = |lasting, intent, interrupt, waited| {
            let probe = denied_by(lasting);
            decide(&Situation { intent, interrupt, waited, ..now(&probe) })
        };
        let (none, young) = (IntentAge::None, IntentAge::Young);
        let zero = Duration::ZERO;
        assert_eq!(code(&look(false, none, Interrupt::Safe, zero)), "bmc-auth-failed");
        for (intent, interrupt) in
            [(none, Interrupt::Never), (none, Interrupt::Cancellable), (young, Interrupt::Safe)]
        {
            let first = look(false, intent, interrupt, zero);
            assert!(matches!(first, Step::Wait { .. }), "{first:?}");
            assert_eq!(code(&look(false, intent, interrupt, LIMIT * 2)), "outcome-unknown");
            let Step::Finish(lasting) = look(true, intent, interrupt, zero) else { panic!("waits in vain") };
            assert_eq!((lasting.outcome, lasting.code.as_str()), (Outcome::Unknown, "bmc-auth-failed"));
        }
    }

    /// Each wait is within its limit, all together are not.
    #[test]
    fn a_device_that_is_away_and_busy_in_turns_has_an_end() {
        let probes = [
            Probe::Unreachable(String::new()),
            Probe::NotReady { reason: "device_busy", detail: String::new() },
            Probe::Foreign(String::new()),
        ];
        for probe in &probes {
            assert!(!probe.shows_work());
            let step = |blind| decide(&Situation { blind, ..now(probe) });
            assert!(matches!(step(LIMIT * 3), Step::Wait { .. }), "{probe:?}");
            assert!(matches!(step(LIMIT * 4), Step::Finish(_)), "{probe:?}");
            let begun = Situation { blind: LIMIT * 4, interrupt: Interrupt::Never, ..now(probe) };
            let Step::Finish(finish) = decide(&begun) else { panic!("{probe:?}") };
            assert_eq!(finish.outcome, Outcome::Unknown, "{probe:?}");
        }
    }

    #[test]
    fn tries_are_counted_and_timed() {
        let tried = |tries, lasted, reason| {
            let refused = Some(Refused { tries, lasted, reason, detail: "queue full" });
            decide(&Situation { refused, foreign_wait: LIMIT / 2, ..now(&Probe::NotStarted) })
        };
        assert_eq!(tried(1, LIMIT, Reason::Device), Step::Act);
        assert_eq!(code(&tried(1, LIMIT * 2, Reason::Device)), "device-busy");
        assert_eq!(code(&tried(MAX_TRIES, Duration::ZERO, Reason::Device)), "device-busy");
        assert_eq!(code(&tried(1, LIMIT, Reason::Foreign)), "foreign-device-job");
        assert_eq!(tried(1, LIMIT, Reason::Held), Step::Act);
        assert_eq!(code(&tried(1, LIMIT * 2, Reason::Held)), "held-back");
        assert_eq!(code(&tried(MAX_TRIES, Duration::ZERO, Reason::Held)), "held-back");
    }

    #[test]
    fn cancelling_needs_a_safe_point() {
        let cancelled =
            |probe: &Probe, interrupt| decide(&Situation { cancel: true, interrupt, ..now(probe) });
        assert_eq!(cancelled(&Probe::NotStarted, Interrupt::Safe), Step::Cancel);
        assert!(matches!(cancelled(&in_flight(), Interrupt::Safe), Step::Wait { .. }));
        assert_eq!(cancelled(&in_flight(), Interrupt::Cancellable), Step::Cancel);
        assert!(matches!(cancelled(&in_flight(), Interrupt::Never), Step::Wait { .. }));
        let done = Probe::Done(Value::Null);
        assert_eq!(cancelled(&done, Interrupt::Safe), Step::Advance(Value::Null));
    }
}
