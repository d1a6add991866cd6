//! Restarts the host so that the staged job runs, and sees it begin.
//!
//! Never while a device job runs, and only while the device shows our job still `Scheduled`. A running host is
//! asked politely first; if it does not follow, it is forced when the policy allows. A host that was off is
//! powered on, which is an effect (`host_power`) to be undone at the end. A reset whose answer was lost is
//! repeated only when the job has not begun within the time a host takes to boot.

use std::time::Duration;

use rackhand_schema::{ErrorCode, job::PowerAction, protocol::Intent, server::PowerState};
use serde_json::{Value, json};

use super::{
    Planned, REBOOT, State,
    apply::{Watch, describe},
};
use crate::{
    bmc::{BmcError, BmcErrorKind, JobPhase, JobRef, PowerTrace, Via},
    engine::{
        Activity, Context, Interrupt, Probe,
        context::intended,
        fault,
        shell::{Prepared, Unprepared},
    },
    handlers::settle::{HOST_POWER, alive_job, host_power},
    lease::MutationPermit,
};

pub struct Restart<'a> {
    plan: &'a Planned,
    state: &'a mut State,
    watch: Watch,
    /// When this process saw the reset taken, or took over after it.
    reset_at: Option<Duration>,
    entered: Option<Duration>,
    next: PowerAction,
}

impl<'a> Restart<'a> {
    pub fn new(plan: &'a Planned, state: &'a mut State) -> Self {
        Self {
            plan,
            state,
            watch: Watch::default(),
            reset_at: None,
            entered: None,
            next: PowerAction::GracefulRestart,
        }
    }

    /// How long the last reset may take until the job begins.
    fn patience(&self, context: &Context) -> Duration {
        match self.state.resets.last() {
            Some(PowerAction::GracefulRestart) => context.timing().graceful,
            _ => context.timing().host_boot,
        }
    }

    async fn scheduled(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let server = context.server();
        let booting = |detail: &str| Probe::InFlight {
            reason: "host_booting",
            detail: format!("{server}: {detail}"),
            percent: None,
        };
        if let Some(intent) = intent {
            // The answer to a reset was lost.
            let was_off = intent.before.get("power").and_then(Value::as_str) == Some("off");
            if was_off && host_power(context).await? != PowerState::Off {
                self.note_reset(PowerAction::On);
                return Ok(booting("the host is on and boots"));
            }
            return Ok(Probe::NotStarted);
        }
        let now = context.now();
        if !self.state.resets.is_empty() {
            let since = *self.reset_at.get_or_insert(now);
            if now.saturating_sub(since) < self.patience(context) {
                return Ok(booting("the host restarts; the device begins while it boots"));
            }
            let forced = self.state.resets.iter().any(|reset| *reset != PowerAction::GracefulRestart);
            if forced || !context.shared.policy.allow_forced_restart {
                let done = if forced { "was restarted" } else { "did not follow a polite restart" };
                return Ok(Probe::Impossible(fault(
                    ErrorCode::DeviceStalled,
                    format!(
                        "{server} {done}, but the device has not begun the update within {} s. The update is taken out of its queue.",
                        now.saturating_sub(since).as_secs()
                    ),
                    json!({ "resets": self.state.resets }),
                )));
            }
            return Ok(Probe::NotStarted);
        }
        let entered = *self.entered.get_or_insert(now);
        if self.state.support.reboots_by_itself && now.saturating_sub(entered) < context.timing().settle * 2 {
            return Ok(booting("this firmware restarts the host by itself"));
        }
        Ok(Probe::NotStarted)
    }

    fn note_reset(&mut self, action: PowerAction) {
        self.state.resets.push(action);
    }
}

impl Activity for Restart<'_> {
    fn phase(&self) -> &'static str {
        REBOOT
    }

    fn action(&self) -> &'static str {
        "reset_host"
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn effect(&self) -> Option<&'static str> {
        Some(HOST_POWER)
    }

    fn interrupt(&self) -> Interrupt {
        if self.state.resets.is_empty() { Interrupt::Cancellable } else { Interrupt::Never }
    }

    fn window(&self, context: &Context) -> Duration {
        context.timing().host_boot
    }

    async fn probe(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let job = self.state.job.clone().unwrap_or_default();
        let progress = context.line.follow(&job).await?;
        let seen = describe(&progress);
        match progress.phase {
            JobPhase::Scheduled => self.scheduled(context, intent).await,
            JobPhase::RebootPending if self.state.restart_pending && intent.is_none() => {
                if self.state.resets.is_empty() { Ok(Probe::NotStarted) } else { Ok(Probe::Done(seen)) }
            }
            JobPhase::RebootPending if self.state.restart_pending => {
                // No job shows whether the restart came: only the host's power record could.
                let mark = intent.and_then(|intent| intent.before.get("log_mark")).and_then(Value::as_u64);
                if context.line.power_trace(Via::Redfish, mark).await? == PowerTrace::Seen {
                    self.note_reset(self.next);
                    return Ok(Probe::Done(seen));
                }
                Ok(Probe::NotStarted)
            }
            JobPhase::New | JobPhase::Downloading | JobPhase::Waiting | JobPhase::Vanished => {
                Ok(self.watch.look(context, self.state, &progress, self.plan))
            }
            _ => {
                if intent.is_some() && self.state.resets.is_empty() {
                    // It began: so the reset was taken.
                    self.note_reset(self.next);
                }
                Ok(Probe::Done(seen))
            }
        }
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        if let Some(busy) = alive_job(context).await? {
            return Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, busy).into());
        }
        let power = host_power(context).await?;
        let asked = self.state.resets.contains(&PowerAction::GracefulRestart);
        let resets = &self.state.support.resets;
        let polite = resets.is_empty() || resets.contains("GracefulRestart");
        self.next = match power {
            PowerState::Off => PowerAction::On,
            PowerState::On if polite && !asked => PowerAction::GracefulRestart,
            PowerState::On => PowerAction::ForceRestart,
            PowerState::PoweringOn | PowerState::PoweringOff | PowerState::Unknown => {
                let kind = BmcErrorKind::NotReady { retry_after: None };
                return Err(BmcError::new(kind, "the host's power is changing").into());
            }
        };
        let log_mark = context.line.log_mark().await.unwrap_or_default();
        let JobRef { id, .. } = self.state.job.clone().unwrap_or_default();
        let effect = (power == PowerState::Off && context.open_effect(HOST_POWER).is_none())
            .then(|| intended(HOST_POWER, "state", json!(PowerState::Off), json!(PowerState::On)));
        Ok(Prepared {
            before: json!({ "power": power, "job": id, "log_mark": log_mark, "reset": self.next }),
            limit: context.short_limit(),
            upload: false,
            effect,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        context.line.reset(permit, Via::Redfish, self.next).await?;
        self.note_reset(self.next);
        self.reset_at = Some(context.now());
        Ok(json!({ "accepted": self.next }))
    }
}
