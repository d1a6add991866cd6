//! What next? Pure: what a probe found, what was announced and how much time has passed come in, one step comes
//! out. Everything that may touch hardware goes through [`decide`], so that the rules of invariants 3 and 4 stand
//! in one place: an unresolved intent is never repeated but resolved, and nothing starts under a hold.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    protocol::{Finish, Resolution, Waiting},
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
    /// It cannot be done, or has failed.
    Impossible(Finish),
}

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
        Probe::NotStarted => wait(now, "settling", "waits until the device would show traces", now.outage),
        Probe::Ambiguous(what) | Probe::Foreign(what) if settled => Step::Finish(unknown(now, what)),
        Probe::Ambiguous(what) | Probe::Foreign(what) => wait(now, "settling", what, now.outage),
        Probe::NotReady { reason, detail } if now.waited <= now.ready_wait => {
            wait(now, reason, detail, now.ready_wait)
        }
        Probe::NotReady { detail, .. } => Step::Finish(unknown(now, detail)),
        Probe::Unreachable(what) if now.away <= now.outage => wait(now, "bmc_unreachable", what, now.outage),
        Probe::Unreachable(what) => Step::Finish(unknown(now, what)),
        Probe::Impossible(finish) => Step::Finish(finish.clone()),
    }
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
        Probe::NotStarted => match now.hold {
            Some(hold) => wait(now, hold_word(hold), &hold.to_string(), now.outage),
            None => Step::Act,
        },
        Probe::InFlight { reason, detail, percent } => Step::Wait {
            waiting: Waiting {
                reason: (*reason).to_owned(),
                detail: detail.clone(),
                within_ms: millis(now.outage),
            },
            percent: *percent,
        },
        Probe::NotReady { reason, detail } if now.waited <= now.ready_wait => {
            wait(now, reason, detail, now.ready_wait)
        }
        Probe::NotReady { detail, .. } => Step::Finish(fault(
            ErrorCode::DeviceBusy,
            format!(
                "{} stayed busy before {}: {detail}. Nothing was changed by this phase. Plan again when it is ready.",
                now.server, now.phase
            ),
            json!({ "waited_ms": millis(now.waited) }),
        )),
        Probe::Foreign(what) if now.waited <= now.foreign_wait => {
            wait(now, "foreign_device_job", what, now.foreign_wait)
        }
        Probe::Foreign(what) => Step::Finish(fault(
            ErrorCode::ForeignDeviceJob,
            format!(
                "{} has work that is not ours: {what}. It was left alone. Let it end or delete it, then retry.",
                now.server
            ),
            json!({ "waited_ms": millis(now.waited) }),
        )),
        Probe::Unreachable(what) if now.away <= now.outage => wait(now, "bmc_unreachable", what, now.outage),
        Probe::Unreachable(what) if now.interrupt == Interrupt::Never => Step::Finish(unknown(now, what)),
        Probe::Unreachable(what) => Step::Finish(fault(
            ErrorCode::BmcUnreachable,
            format!(
                "The BMC of {} has not answered for {} s before {}: {what}. Check its network and power, then retry.",
                now.server,
                now.away.as_secs(),
                now.phase
            ),
            json!({ "away_ms": millis(now.away) }),
        )),
        Probe::Done(evidence) => Step::Advance(evidence.clone()),
        Probe::Impossible(finish) => Step::Finish(finish.clone()),
        Probe::Ambiguous(what) => Step::Finish(unknown(now, what)),
    }
}

fn hold_word(hold: Hold) -> &'static str {
    match hold {
        Hold::Paused => "hardware_paused",
        Hold::LeaseTooShort => "control_plane",
        Hold::Draining => "draining",
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

    fn every_probe() -> [Probe; 8] {
        [
            Probe::NotStarted,
            in_flight(),
            Probe::Done(Value::Null),
            Probe::NotReady { reason: "device_busy", detail: String::new() },
            Probe::Unreachable(String::new()),
            Probe::Ambiguous(String::new()),
            Probe::Foreign(String::new()),
            Probe::Impossible(fault(ErrorCode::DeviceFailed, "", Value::Null)),
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
        let [_, _, _, not_ready, unreachable, _, foreign, _] = every_probe();
        assert_eq!(code(&late(&not_ready, none, safe)), "device-busy");
        assert_eq!(code(&late(&foreign, none, safe)), "foreign-device-job");
        assert_eq!(code(&late(&unreachable, none, safe)), "bmc-unreachable");
        assert_eq!(code(&late(&unreachable, none, Interrupt::Never)), "outcome-unknown");
        assert_eq!(code(&late(&unreachable, IntentAge::Settled, safe)), "outcome-unknown");
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
