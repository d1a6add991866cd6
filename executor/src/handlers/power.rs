//! `power`: changes the host's power state and reads it back.
//!
//! On and off are known by the state itself. A restart leaves the state as it was: it is done when the device's log,
//! the time of the last reset or a state seen in between says so ([`super::restart`]). Without any of them a lost
//! answer stays unknown and nothing is repeated; a forced restart that the device took counts as done and says that
//! it was not verified, a polite one, which the operating system may still follow, does not. Whatever it is, it is
//! refused while the device is at work or about to be ([`super::work`]): that is looked at before the intent, and
//! again once the permit is at hand. The transport is chosen before the intent, which names it: Redfish, or IPMI
//! where Redfish does not answer or does not know the action. After the intent the other one is only looked through.
//! It may prove that the change came, never that it did not: a request on its way may still arrive. A polite request
//! that the operating system does not follow ends in `power-not-reached`: it is never turned into a forced one.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    event::Level,
    job::PowerAction,
    protocol::{Finish, Intent},
    run::Outcome,
    server::PowerState,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    inventory::cancelled,
    restart::{Mark, Mute},
    work::{self, Busy, Why},
};
use crate::{
    bmc::{BmcError, BmcErrorKind, PowerTrace, Via},
    broker::Pick,
    engine::{
        Activity, Context, Ended, Interrupt, Probe, Stop, fault, perform,
        shell::{Prepared, Unprepared},
        success,
    },
    lease::MutationPermit,
};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// The device has taken the request.
    acted: bool,
    before: Option<PowerState>,
    /// The transport that took the request.
    #[serde(default)]
    via: Option<Via>,
    /// For restarts: what log and host said before.
    #[serde(default)]
    mark: Mark,
    /// For restarts: the host was seen not to be on.
    #[serde(default)]
    seen_off: bool,
    /// What the device was at when that was last seen.
    #[serde(default)]
    work: Work,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Work {
    #[default]
    None,
    Job,
    /// A boot, or what one has begun.
    Boot,
}

struct Change {
    action: PowerAction,
    state: State,
    /// Chosen for the next intent.
    chosen: Via,
    /// Since when all looks at the device's work were answered.
    answers: Option<Duration>,
    /// When it was last looked at.
    looked: Option<Duration>,
    /// Whether that showed no work, or nothing.
    quiet: bool,
    /// What told the power last.
    told_by: Option<Via>,
    /// [`Line::missed`](crate::broker::Line::missed) at the last look.
    missed: u64,
    /// Since the look before that one a question was missed, too.
    missing: bool,
    mute: Mute,
}

/// While nothing may begin, and no work is seen, it is looked at so often.
const HELD_LOOK: Duration = Duration::from_secs(60);

/// The state that ends `action`.
fn wanted(action: PowerAction) -> PowerState {
    match action {
        PowerAction::ForceOff | PowerAction::GracefulShutdown => PowerState::Off,
        PowerAction::On
        | PowerAction::GracefulRestart
        | PowerAction::ForceRestart
        | PowerAction::PowerCycle => PowerState::On,
    }
}

/// Whether the state before and after is the same, so that it proves nothing.
fn is_restart(action: PowerAction) -> bool {
    matches!(action, PowerAction::GracefulRestart | PowerAction::ForceRestart | PowerAction::PowerCycle)
}

/// The transport that an intent names. Those of older executors name none and meant Redfish.
pub(super) fn named(intent: &Intent) -> Via {
    let via = intent.before.get("via").cloned().unwrap_or_default();
    serde_json::from_value(via).unwrap_or(Via::Redfish)
}

/// The transport of an unresolved intent or of a request that was taken is away, and the other one shows nothing that
/// would settle it.
pub(super) fn proves_nothing(via: Via, other: Via, shows: &str) -> BmcError {
    let detail =
        format!("{via} took the request and does not answer; {other} shows {shows}, which proves nothing");
    BmcError::new(BmcErrorKind::Unreachable, detail)
}

impl Change {
    fn limit(&self, context: &Context) -> Duration {
        match self.action {
            PowerAction::GracefulShutdown | PowerAction::GracefulRestart => context.timing().graceful,
            _ => context.timing().power_change,
        }
    }

    fn is_polite(&self) -> bool {
        matches!(self.action, PowerAction::GracefulShutdown | PowerAction::GracefulRestart)
    }

    /// The device took the restart `waited` ago: has it come?
    async fn restarted(
        &mut self,
        context: &Context,
        by: Via,
        power: PowerState,
        waited: Duration,
    ) -> Result<Probe, BmcError> {
        let between = matches!(power, PowerState::Off | PowerState::PoweringOff | PowerState::PoweringOn);
        // What it was at before the request proves nothing.
        self.state.seen_off |= between && self.state.before == Some(PowerState::On);
        let trace = match self.state.via.filter(|via| *via != by) {
            _ if self.state.seen_off => PowerTrace::Seen,
            Some(via) => return Err(proves_nothing(via, by, &word(&json!(power)))),
            None => self.state.mark.trace(context, by).await?,
        };
        if power == PowerState::On && trace == PowerTrace::Seen {
            return Ok(Probe::Done(json!({ "power": power, "via": by })));
        }
        if waited <= self.limit(context) {
            return Ok(in_flight(context, power));
        }
        Ok(match trace {
            PowerTrace::Seen => self.not_reached(context, &format!("is {}", word(&json!(power))), waited),
            PowerTrace::Nothing => self.not_reached(context, "its log shows no restart", waited),
            PowerTrace::Untold if power == PowerState::On && !self.is_polite() => {
                Probe::Done(json!({ "power": power, "via": by, "verified": false }))
            }
            PowerTrace::Untold => Probe::Ambiguous(
                "the device took the request, and neither its log nor its last reset nor its power tells more".into(),
            ),
        })
    }

    fn not_reached(&self, context: &Context, shows: &str, waited: Duration) -> Probe {
        let text = format!(
            "{} took the request ({}) but {shows} after {} s. Nothing was forced. Look at its console.",
            context.server(),
            word(&json!(self.action)),
            waited.as_secs()
        );
        Probe::Impossible(fault(ErrorCode::PowerNotReached, text, json!({ "wanted": wanted(self.action) })))
    }

    /// Whether what the device is at is waited for: a boot and what it has begun, and what it may not show yet.
    fn passes(&self, busy: &Busy) -> bool {
        self.state.work == Work::Boot || busy.why == Why::Unsure
    }

    fn is_due(&self, context: &Context) -> bool {
        self.looked.is_none_or(|at| context.now().saturating_sub(at) >= HELD_LOOK)
    }

    /// Is the device at work? Once work was seen, also by a predecessor, none counts only where a device that has answered
    /// for a while shows none: not where its queue cannot be read any more, nor where that is gone or empty after a
    /// restart, over whatever transport power is changed.
    async fn look(&mut self, context: &Context, power: PowerState) -> Result<Option<Busy>, BmcError> {
        let seen = self.state.work;
        let looked = work::look(context, power).await;
        let missed = context.line.missed();
        let misses = std::mem::replace(&mut self.missed, missed) != missed;
        let shows_work = matches!(&looked, Ok(Some(_)));
        if misses && (shows_work || !self.missing) {
            // Redfish was away, if only for a question that IPMI has answered. Where it never answers that one, each miss
            // tells nothing new, but work that was seen beside it leaves its doubt.
            self.answers = None;
        }
        self.missing = misses;
        self.answers = looked.is_ok().then(|| self.answers.unwrap_or_else(|| context.now()));
        let answers = self.answers.unwrap_or_else(|| context.now());
        let work = match looked {
            Err(error) if error.kind == BmcErrorKind::NoQueue && seen == Work::None => return Ok(None),
            Err(BmcError {
                kind: BmcErrorKind::Unreachable | BmcErrorKind::NotFound | BmcErrorKind::NoQueue,
                detail,
                ..
            }) if seen != Work::None => {
                let detail = format!("the device was at work, and its jobs cannot be read now: {detail}");
                return Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, detail));
            }
            other => other?,
        };
        let lasted = context.now().saturating_sub(answers).min(context.answered_for());
        if work.is_none() && seen != Work::None && lasted < context.timing().upload_visibility {
            return Ok(Some(work::shows_none(context)));
        }
        self.state.work = match (&work, seen) {
            (None, Work::None) => Work::None,
            // Of a boot that is over nothing is left but doubt: what comes now it has not begun.
            (None, _) => Work::Job,
            (Some(Busy { why: Why::Boot, .. }), _) | (Some(_), Work::Boot) => Work::Boot,
            (Some(_), _) => Work::Job,
        };
        Ok(work)
    }

    /// Over IPMI it goes on when the job queue cannot be read, and says so: the one who asks may have no other way.
    async fn refuse_beside_work(
        &mut self,
        context: &mut Context,
        power: PowerState,
    ) -> Result<(), Unprepared> {
        let server = context.server().to_owned();
        match self.look(context, power).await {
            Ok(None) => Ok(()),
            Ok(Some(busy)) if self.passes(&busy) => Err(not_now(busy.words).into()),
            Ok(Some(Busy { words, .. })) => Err(fault(
                ErrorCode::ForeignDeviceJob,
                format!(
                    "{server}: {words}. Its power was not touched: without power a component that is being written is \
                     destroyed. Wait until the job has ended, or delete one that does not begin, then retry."
                ),
                Value::Null,
            )
            .into()),
            Err(error) if self.chosen == Via::Ipmi && error.kind == BmcErrorKind::Unreachable => {
                let text = format!(
                    "{server}: its job queue cannot be read ({error}); a firmware update under way would not be seen"
                );
                Ok(context.event(Level::Warn, text, Value::Null).await?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Activity for Change {
    fn phase(&self) -> &'static str {
        "power"
    }

    fn action(&self) -> &'static str {
        "reset_host"
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn interrupt(&self) -> Interrupt {
        if self.state.acted { Interrupt::Never } else { Interrupt::Safe }
    }

    fn poll(&self, context: &Context) -> Duration {
        context.timing().power_poll
    }

    fn window(&self, context: &Context) -> Duration {
        // An operating system that was asked shows nothing until it has shut down.
        match self.action {
            PowerAction::GracefulShutdown | PowerAction::GracefulRestart => context.timing().graceful,
            _ => context.timing().settle,
        }
    }

    fn outage(&self, context: &Context) -> Duration {
        if self.state.acted { context.timing().bmc_outage } else { context.timing().power_change }
    }

    async fn probe(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let held = context.hold(context.short_limit()).is_some();
        let via = intent.map(named).or(self.state.via);
        let (by, power) = context.line.power(via.map_or(Pick::Best, Pick::First)).await?;
        let other = via.filter(|via| *via != by);
        let target = wanted(self.action);
        let reached = power == target;
        if let Some(intent) = intent.filter(|_| !self.state.acted) {
            if !is_restart(self.action) {
                let moving = matches!(
                    (power, target),
                    (PowerState::PoweringOn, PowerState::On) | (PowerState::PoweringOff, PowerState::Off)
                );
                self.state.acted = reached || moving;
                if self.state.acted {
                    self.state.via = Some(named(intent));
                }
                return match (reached, moving, other) {
                    (true, ..) => Ok(Probe::Done(json!({ "power": power, "via": by }))),
                    (_, true, _) => Ok(in_flight(context, power)),
                    (_, _, Some(via)) => Err(proves_nothing(via, by, &word(&json!(power)))),
                    _ => Ok(Probe::NotStarted),
                };
            }
            self.state.mark = Mark::of(intent);
            let before = intent.before.get("power").cloned().unwrap_or_default();
            self.state.before = serde_json::from_value(before).ok();
            let trace = match (power, other) {
                (PowerState::On | PowerState::Unknown, None) => self.state.mark.trace(context, by).await?,
                (PowerState::On | PowerState::Unknown, Some(via)) => {
                    return Err(proves_nothing(via, by, &word(&json!(power))));
                }
                _ if self.state.before == Some(PowerState::On) => PowerTrace::Seen,
                _ => return Ok(changing(power)),
            };
            return Ok(match trace {
                PowerTrace::Seen => {
                    self.state.acted = true;
                    self.state.via = Some(named(intent));
                    in_flight(context, power)
                }
                PowerTrace::Nothing => Probe::NotStarted,
                PowerTrace::Untold => Probe::Ambiguous(
                    "the power state is the same before and after, and no log tells what happened".into(),
                ),
            });
        }
        if self.state.acted {
            let waited = context.waited("taken");
            if is_restart(self.action) {
                return self.restarted(context, by, power, waited).await;
            }
            if reached {
                return Ok(Probe::Done(json!({ "power": power, "via": by })));
            }
            if waited <= self.limit(context) {
                return Ok(in_flight(context, power));
            }
            return Ok(self.not_reached(context, &format!("its power is {}", word(&json!(power))), waited));
        }
        if reached && !is_restart(self.action) {
            return Ok(Probe::Done(json!({ "power": power })));
        }
        if is_restart(self.action) && power == PowerState::Off {
            return Ok(Probe::Impossible(fault(
                ErrorCode::DeviceRefused,
                format!("{} is off and cannot be restarted. Power it on instead.", context.server()),
                json!({ "power": power }),
            )));
        }
        // A boot is waited for here: each try before the intent counts. Whatever else there is, `prepare` says.
        // What the boot has begun is waited for as well.
        if self.told_by.replace(by).is_some_and(|before| before != by) {
            // Redfish was away, if only between two looks.
            self.answers = None;
        }
        let quiet = self.quiet || self.state.work == Work::None;
        if held && quiet && !self.is_due(context) {
            work::nothing_seen(context);
            return Ok(Probe::Unlooked);
        }
        self.looked = Some(context.now());
        let seen = self.look(context, power).await;
        // A boot that hangs is seen on: its time would begin anew.
        self.quiet = !work::boots(context) && !matches!(&seen, Ok(Some(busy)) if busy.why != Why::Unsure);
        if held {
            // People may take their time: that is no wait for the device. What was seen is remembered.
            let idle = matches!(seen, Ok(None)) && !is_changing(power);
            return Ok(if idle { Probe::NotStarted } else { Probe::Unlooked });
        }
        match seen {
            Ok(Some(busy)) if self.passes(&busy) => {
                return Ok(Probe::NotReady { reason: busy.why.reason(), detail: busy.words });
            }
            Err(error) if self.state.work != Work::None => return Err(error),
            _ => {}
        }
        Ok(if is_changing(power) { changing(power) } else { Probe::NotStarted })
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        let (via, power) = context.line.power_for(self.action).await?;
        if is_changing(power) {
            return Err(not_now(format!("the host is {}", word(&json!(power)))).into());
        }
        self.state.before = Some(power);
        self.chosen = via;
        if via == Via::Ipmi && context.line.has(Via::Redfish) {
            let text = format!("{}: Redfish cannot do this now; using IPMI", context.server());
            context.event(Level::Warn, text, Value::Null).await?;
        }
        self.refuse_beside_work(context, power).await?;
        self.state.mark = match is_restart(self.action) {
            true => Mark::take(context, via, &mut self.mute).await,
            false => Mark::default(),
        };
        let Mark { log_mark, last_reset } = &self.state.mark;
        Ok(Prepared {
            before: json!({
                "power": power, "log_mark": log_mark, "last_reset": last_reset, "action": self.action, "via": via,
            }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        // The acknowledgement may have taken its time: the host may have changed meanwhile, or a job have begun.
        let (_, power) = context.line.power(Pick::Only(self.chosen)).await?;
        if Some(power) != self.state.before {
            let changed = "the host's power has changed meanwhile";
            return Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, changed));
        }
        match self.look(context, power).await {
            Ok(None) => {}
            Ok(Some(busy)) if self.passes(&busy) => return Err(not_now(busy.words)),
            Ok(Some(Busy { words, .. })) => return Err(BmcError::new(BmcErrorKind::ForeignJob, words)),
            Err(error) if self.chosen == Via::Ipmi && error.kind == BmcErrorKind::Unreachable => {}
            Err(error) => return Err(error),
        }
        context.line.reset(permit, self.chosen, self.action).await?;
        self.state.acted = true;
        self.state.via = Some(self.chosen);
        Ok(json!({ "accepted": self.action, "via": self.chosen }))
    }
}

fn not_now(words: String) -> BmcError {
    BmcError::new(BmcErrorKind::NotReady { retry_after: None }, words)
}

fn is_changing(power: PowerState) -> bool {
    matches!(power, PowerState::PoweringOn | PowerState::PoweringOff)
}

fn changing(power: PowerState) -> Probe {
    Probe::NotReady { reason: "power_changing", detail: format!("the host is {}", word(&json!(power))) }
}

fn in_flight(context: &Context, power: PowerState) -> Probe {
    let detail = format!("{}: the power is {}", context.server(), word(&json!(power)));
    Probe::InFlight { reason: "power_changing", detail, percent: None }
}

pub(super) fn word(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").replace('_', " ")
}

pub async fn run(context: &mut Context, action: PowerAction) -> Result<Finish, Stop> {
    let state: State = serde_json::from_value(context.grant.checkpoint.clone()).unwrap_or_default();
    let chosen = state.via.unwrap_or(Via::Redfish);
    let mut change = Change {
        action,
        state,
        chosen,
        answers: None,
        looked: None,
        quiet: false,
        told_by: None,
        missed: 0,
        missing: false,
        mute: Mute::default(),
    };
    Ok(match perform(context, &mut change).await? {
        Ended::Done(evidence) if change.state.acted => {
            let how = match evidence.get("verified") {
                Some(Value::Bool(false)) => {
                    "taken by the device, not verified: neither its log nor its last reset tells"
                }
                _ => "done, read back",
            };
            let detail = format!("{}: {} {how}.", context.server(), word(&json!(action)));
            success(Outcome::Succeeded, detail, evidence)
        }
        Ended::Done(evidence) => {
            let state = word(&json!(wanted(action)));
            success(Outcome::NoChange, format!("{} was {state} already.", context.server()), evidence)
        }
        Ended::Finish(finish) => finish,
        Ended::Cancelled => cancelled(context, "Its power was not touched."),
    })
}
