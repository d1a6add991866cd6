//! `boot_override`: sets what the host boots from and reads the setting back.
//!
//! The host is not restarted. A `once` that nobody has used yet is what was asked for, so nothing is undone at the end.
//! Setting the same twice is harmless, but only while no boot came in between: a `once` that was set, used up and set
//! again would send the host there a second time. After a lost answer the setting is therefore made again only when the
//! device's log says that the host has not started since. The transport is chosen before the intent, as for `power`.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    job::{BootOverrideParams, BootTarget, BootTimes},
    protocol::{Finish, Intent},
    run::Outcome,
    server::PowerState,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    inventory::cancelled,
    power::{named, proves_nothing, word},
};
use crate::{
    bmc::{BmcError, BmcErrorKind, BootSetting, PowerTrace, Via},
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
    /// What the log and the host stood at before, and over which transport.
    via: Option<Via>,
    log_mark: Option<u64>,
    power: Option<PowerState>,
}

struct Set {
    wanted: BootOverrideParams,
    state: State,
}

impl Set {
    /// Whether a boot since the intent may have used the setting up. A host that was off and is off has not booted.
    async fn used_up(&self, context: &Context, via: Via) -> Result<PowerTrace, BmcError> {
        if self.wanted.times == BootTimes::Continuous || self.wanted.target == BootTarget::None {
            return Ok(PowerTrace::Nothing);
        }
        let trace = context.line.power_trace(via, self.state.log_mark).await?;
        if trace != PowerTrace::Untold || self.state.power != Some(PowerState::Off) {
            return Ok(trace);
        }
        let (_, power) = context.line.power(Pick::Only(via)).await?;
        Ok(if power == PowerState::Off { PowerTrace::Nothing } else { PowerTrace::Untold })
    }
}

fn evidence(setting: &BootSetting, via: Via) -> Value {
    json!({ "boot": setting, "via": via })
}

impl Activity for Set {
    fn phase(&self) -> &'static str {
        "boot_override"
    }

    fn action(&self) -> &'static str {
        "set_boot_override"
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

    async fn probe(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        if let Some(intent) = intent {
            let before = |name: &str| intent.before.get(name).cloned().unwrap_or_default();
            self.state.via = Some(named(intent));
            self.state.log_mark = before("log_mark").as_u64();
            self.state.power = serde_json::from_value(before("power")).ok();
        }
        let unsettled = self.state.via.filter(|_| intent.is_some() || self.state.acted);
        let (by, setting) = context.line.boot(unsettled.map_or(Pick::Best, Pick::First)).await?;
        if setting.is(&self.wanted) {
            self.state.acted |= intent.is_some();
            return Ok(Probe::Done(evidence(&setting, by)));
        }
        let Some(via) = unsettled else { return Ok(Probe::NotStarted) };
        if via != by {
            return Err(proves_nothing(via, by, &setting.shown));
        }
        let used_up = self.used_up(context, via).await?;
        if intent.is_some() && !self.state.acted {
            return Ok(match used_up {
                PowerTrace::Nothing => Probe::NotStarted,
                PowerTrace::Seen | PowerTrace::Untold => Probe::Ambiguous(format!(
                    "the setting is {}; a boot may have used up the requested one",
                    setting.shown
                )),
            });
        }
        if used_up == PowerTrace::Seen {
            let found = json!({ "boot": setting, "via": by, "used_up": true });
            return Ok(Probe::Done(found));
        }
        if context.waited("taken") <= context.timing().settle {
            let detail = format!("{} still shows {}", context.server(), setting.shown);
            return Ok(Probe::InFlight { reason: "setting", detail, percent: None });
        }
        Ok(Probe::Impossible(fault(
            ErrorCode::SettingNotReached,
            format!(
                "{} took the request ({}) but shows {}. Nothing was repeated. Look at its BMC's page.",
                context.server(),
                word(&json!(self.wanted.target)),
                setting.shown
            ),
            json!({ "boot": setting, "wanted": self.wanted, "via": by }),
        )))
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        let (via, setting) = context.line.boot_for(self.wanted).await?;
        let (_, power) = context.line.power(Pick::Only(via)).await?;
        let log_mark = context.line.event_mark(via).await.unwrap_or_default();
        self.state = State { acted: false, via: Some(via), log_mark, power: Some(power) };
        Ok(Prepared {
            before: json!({
                "boot": setting, "power": power, "log_mark": log_mark, "wanted": self.wanted, "via": via,
            }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        let via = self.state.via.unwrap_or(Via::Redfish);
        // The acknowledgement may have taken its time.
        let (_, setting) = context.line.boot(Pick::Only(via)).await?;
        if setting.is(&self.wanted) {
            let changed = "the setting has changed meanwhile";
            return Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, changed));
        }
        context.line.set_boot(permit, via, self.wanted).await?;
        self.state.acted = true;
        Ok(json!({ "accepted": self.wanted, "via": via }))
    }
}

pub async fn run(context: &mut Context, wanted: BootOverrideParams) -> Result<Finish, Stop> {
    let state: State = serde_json::from_value(context.grant.checkpoint.clone()).unwrap_or_default();
    let mut set = Set { wanted, state };
    let target = word(&json!(wanted.target));
    Ok(match perform(context, &mut set).await? {
        Ended::Done(evidence) if set.state.acted => {
            let detail = if evidence.get("used_up").is_some() {
                format!("{}: boot override {target} set; a boot has used it up already.", context.server())
            } else {
                format!("{}: boot override {target} set, read back.", context.server())
            };
            success(Outcome::Succeeded, detail, evidence)
        }
        Ended::Done(evidence) => {
            let detail = format!("{} had the boot override {target} already.", context.server());
            success(Outcome::NoChange, detail, evidence)
        }
        Ended::Finish(finish) => finish,
        Ended::Cancelled => cancelled(context, "Its boot override was not touched."),
    })
}
