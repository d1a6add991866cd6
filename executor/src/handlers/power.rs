//! `power`: changes the host's power state and reads it back.
//!
//! On and off are known by the state itself. A restart leaves the state as it was, so a lost answer is resolved
//! by the lifecycle log or by a state seen in between; without either the outcome is unknown and nothing is
//! repeated. A polite request that the operating system does not follow ends in `power-not-reached`: it is never
//! turned into a forced one.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    job::PowerAction,
    protocol::{Finish, Intent},
    run::Outcome,
    server::PowerState,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inventory::cancelled;
use crate::{
    bmc::BmcError,
    engine::{
        Activity, Context, Ended, Interrupt, Probe, Stop, fault, perform,
        shell::{Prepared, Unprepared},
        success,
    },
    lease::MutationPermit,
};

/// Records of Dell's lifecycle log about the host's power: turning on, off, CPU reset (Dell EMC Event and Error
/// Message Reference, SYS1000–SYS1003).
const POWER_RECORDS: [&str; 4] = ["SYS1000", "SYS1001", "SYS1002", "SYS1003"];

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct State {
    /// The device has taken the request.
    acted: bool,
    before: Option<PowerState>,
}

struct Change {
    action: PowerAction,
    state: State,
    acted_at: Option<Duration>,
}

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

/// Whether the log after `mark` tells of a power change; unknown without a log.
pub(super) async fn power_record_since(context: &Context, mark: Option<u64>) -> Result<bool, BmcError> {
    let Some(mark) = mark else { return Ok(false) };
    let records = context.line.log_since(Some(mark)).await?;
    Ok(records.iter().any(|(id, _)| POWER_RECORDS.contains(&id.as_str())))
}

impl Change {
    fn limit(&self, context: &Context) -> Duration {
        match self.action {
            PowerAction::GracefulShutdown | PowerAction::GracefulRestart => context.timing().graceful,
            _ => context.timing().power_change,
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
        let power = context.line.power().await?;
        let target = wanted(self.action);
        let reached = power == target;
        if let Some(intent) = intent.filter(|_| !self.state.acted) {
            if !is_restart(self.action) {
                let moving = matches!(
                    (power, target),
                    (PowerState::PoweringOn, PowerState::On) | (PowerState::PoweringOff, PowerState::Off)
                );
                self.state.acted = reached || moving;
                return Ok(match (reached, moving) {
                    (true, _) => Probe::Done(json!({ "power": power })),
                    (_, true) => in_flight(context, power),
                    _ => Probe::NotStarted,
                });
            }
            let mark = intent.before.get("log_mark").and_then(Value::as_u64);
            if power != PowerState::On || power_record_since(context, mark).await? {
                self.state.acted = true;
                return Ok(in_flight(context, power));
            }
            return Ok(if mark.is_some() {
                Probe::NotStarted
            } else {
                Probe::Ambiguous("the power state is the same before and after, and there is no log".into())
            });
        }
        if self.state.acted {
            let since = *self.acted_at.get_or_insert(context.now());
            let waited = context.now().saturating_sub(since);
            // A restart shows "on" until it begins: give it the time to.
            let early = is_restart(self.action) && waited < context.timing().power_poll * 2;
            if reached && !early {
                return Ok(Probe::Done(json!({ "power": power })));
            }
            if waited <= self.limit(context) {
                return Ok(in_flight(context, power));
            }
            return Ok(Probe::Impossible(fault(
                ErrorCode::PowerNotReached,
                format!(
                    "{} took the request ({}) but its power is {} after {} s. Nothing was forced. Look at its console.",
                    context.server(),
                    word(&json!(self.action)),
                    word(&json!(power)),
                    waited.as_secs()
                ),
                json!({ "power": power, "wanted": target }),
            )));
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
        Ok(match power {
            PowerState::On | PowerState::Off | PowerState::Unknown => Probe::NotStarted,
            PowerState::PoweringOn | PowerState::PoweringOff => Probe::NotReady {
                reason: "power_changing",
                detail: format!("the host is {}", word(&json!(power))),
            },
        })
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        let power = context.line.power().await?;
        self.state.before = Some(power);
        // A server without a lifecycle log is no reason not to switch it.
        let log_mark = context.line.log_mark().await.unwrap_or_default();
        Ok(Prepared {
            before: json!({ "power": power, "log_mark": log_mark, "action": self.action }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        context.line.reset(permit, self.action).await?;
        self.state.acted = true;
        Ok(json!({ "accepted": self.action }))
    }
}

fn in_flight(context: &Context, power: PowerState) -> Probe {
    let detail = format!("{}: the power is {}", context.server(), word(&json!(power)));
    Probe::InFlight { reason: "power_changing", detail, percent: None }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("unknown").replace('_', " ")
}

pub async fn run(context: &mut Context, action: PowerAction) -> Result<Finish, Stop> {
    let state: State = serde_json::from_value(context.grant.checkpoint.clone()).unwrap_or_default();
    let mut change = Change { action, state, acted_at: None };
    Ok(match perform(context, &mut change).await? {
        Ended::Done(evidence) if change.state.acted => {
            let detail = format!("{}: {} done, read back.", context.server(), word(&json!(action)));
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
