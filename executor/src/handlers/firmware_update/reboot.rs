//! Restarts the host so that the staged job runs, and sees it begin.
//!
//! Never while a device job runs, the host is on its way through a boot, or somebody else's job would run along; and
//! only while the device shows our job still `Scheduled`. All that is looked at before the intent and again once the
//! permit is at hand. A running host is asked politely first; if it does not follow, or the device has no polite
//! restart, it is forced when the policy allows and the device's log says that the host has not restarted. A host
//! that was off is powered on, which is an effect (`host_power`) to be undone at the end. The restart of a running
//! host is one, too: it is given back on. A host that stays off after our reset is powered on. A reset whose answer
//! was lost is repeated only when the job has not begun within the time a host takes to boot and the device's log
//! says that the host has not restarted ([`crate::handlers::restart`]).

use std::{collections::BTreeSet, time::Duration};

use rackhand_schema::{ErrorCode, job::PowerAction, protocol::Intent, server::PowerState};
use serde_json::{Value, json};

use super::{
    Planned, REBOOT, State,
    apply::{describe, watch},
    late_visibility,
};
use crate::{
    bmc::{BmcError, BmcErrorKind, DeviceJob, JobPhase, JobRef, PowerTrace, Via},
    engine::{
        Activity, Context, Interrupt, Probe,
        context::intended,
        fault,
        shell::{Prepared, Unprepared},
    },
    handlers::{
        power::word,
        restart::{Mark, Mute},
        settle::{HOST_POWER, ON_TRIES, host_power},
        work::under_way,
    },
    lease::MutationPermit,
};

/// The wait for the job to begin after the last reset that was taken.
const RESET: &str = "reset";
/// The wait for a host that is off after our reset to come back by itself.
const OFF: &str = "off";

pub struct Restart<'a> {
    plan: &'a Planned,
    state: &'a mut State,
    next: PowerAction,
    /// The host's power when that was chosen.
    power: PowerState,
    /// What the host showed then.
    mark: Mark,
}

/// The reset that makes the device begin; none when it would be one by force and the policy forbids that. `declared`:
/// what the device lists; empty when it lists nothing. `asked`: a polite restart was ignored already.
fn next_reset(
    power: PowerState,
    declared: &BTreeSet<String>,
    asked: bool,
    force: bool,
) -> Option<PowerAction> {
    let polite = declared.is_empty() || declared.contains("GracefulRestart");
    match power {
        PowerState::Off => Some(PowerAction::On),
        _ if polite && !asked => Some(PowerAction::GracefulRestart),
        _ => force.then_some(PowerAction::ForceRestart),
    }
}

/// Whether `job` is the one that `ours` stands for.
fn is_ours(job: &DeviceJob, ours: &JobRef) -> bool {
    let by_path = || ours.path.as_ref()?.trim_end_matches('/').rsplit('/').next();
    ours.id.as_deref().or_else(by_path).is_some_and(|id| job.is(id))
}

/// Whether the reset that `intent` announced has come.
async fn reset_trace(context: &Context, intent: &Intent) -> Result<PowerTrace, BmcError> {
    if intent.before.get("power").and_then(Value::as_str) != Some("off") {
        return Mark::of(intent).trace(context, Via::Redfish).await;
    }
    let is_off = host_power(context).await? == PowerState::Off;
    Ok(if is_off { PowerTrace::Nothing } else { PowerTrace::Seen })
}

fn busy(detail: impl AsRef<str>) -> BmcError {
    BmcError::new(BmcErrorKind::NotReady { retry_after: None }, detail)
}

impl<'a> Restart<'a> {
    pub fn new(plan: &'a Planned, state: &'a mut State) -> Self {
        Self {
            plan,
            state,
            next: PowerAction::GracefulRestart,
            power: PowerState::Unknown,
            mark: Mark::default(),
        }
    }

    /// That nothing but our job stands between a restart and its end.
    async fn alone(&self, context: &Context, power: PowerState) -> Result<(), BmcError> {
        let ours = self.state.job.clone().unwrap_or_default();
        let work = context.line.work(|_| power != PowerState::Off).await?;
        // Ours waits, as it was followed right before; a list may be behind that.
        let begins = |job: &&DeviceJob| matches!(job.phase, JobPhase::New | JobPhase::Downloading);
        let foreign = |job: &&DeviceJob| !is_ours(job, &ours);
        if let Some(job) = under_way(work.jobs.iter().filter(|job| foreign(job) || !begins(job))) {
            return Err(busy(job));
        }
        let known = ours.id.is_some() || ours.path.is_some();
        if let Some(job) = work.jobs.iter().filter(foreign).find(|job| known && job.phase.is_live()) {
            let detail = format!("device job {} ({}), which a restart would run along", job.id, job.name);
            return Err(BmcError::new(BmcErrorKind::ForeignJob, detail));
        }
        work.host?.map_or(Ok(()), |host| Err(busy(host.words)))
    }

    /// The reset that an intent announced.
    fn announced(&self, intent: &Intent) -> PowerAction {
        let reset = intent.before.get("reset").cloned().unwrap_or_default();
        serde_json::from_value(reset).unwrap_or(self.next)
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
            return Ok(match reset_trace(context, intent).await? {
                PowerTrace::Seen => {
                    self.note_reset(context, self.announced(intent), Mark::of(intent));
                    booting("the host is on and boots")
                }
                PowerTrace::Nothing => Probe::NotStarted,
                PowerTrace::Untold => Probe::Ambiguous(
                    "the job still waits, and nothing tells whether the host has restarted".into(),
                ),
            });
        }
        if !self.state.resets.is_empty() {
            let power = host_power(context).await?;
            if let Some(found) = self.left_off(context, power) {
                return Ok(found);
            }
            let waited = context.waited(RESET);
            if waited < self.patience(context) {
                return Ok(booting("the host restarts; the device begins while it boots"));
            }
            let forced = self.state.resets.iter().any(|reset| *reset != PowerAction::GracefulRestart);
            let followed =
                if forced { PowerTrace::Seen } else { self.state.mark.trace(context, Via::Redfish).await? };
            // A slow shutdown took its time from the boot: that gets the whole of its own.
            let boot =
                self.patience(context) + if forced { Duration::ZERO } else { context.timing().host_boot };
            if followed != PowerTrace::Nothing && waited < boot {
                return Ok(booting("the host may have restarted; the device begins while it boots"));
            }
            if followed == PowerTrace::Untold {
                return Ok(Probe::Ambiguous(
                    "the job still waits, and nothing tells whether the host has followed the polite restart"
                        .into(),
                ));
            }
            if followed == PowerTrace::Seen || !context.shared.policy.allow_forced_restart {
                let seen = followed == PowerTrace::Seen;
                let done = if seen { "was restarted" } else { "did not follow a polite restart" };
                let power = word(&json!(power));
                return Ok(Probe::Impossible(fault(
                    ErrorCode::DeviceStalled,
                    format!(
                        "{server} {done} and its power is {power}, but the device has not begun the update within {} s. The update is taken out of its queue.",
                        waited.as_secs()
                    ),
                    json!({ "resets": self.state.resets }),
                )));
            }
            return Ok(Probe::NotStarted);
        }
        let scheduled = context.waited("scheduled");
        let twice = self.state.lost.as_ref().is_some_and(|lost| lost.again);
        if twice && scheduled < late_visibility(context) {
            return Ok(booting("the package was handed over twice; a second job may still show up"));
        }
        if self.state.support.reboots_by_itself && scheduled < context.timing().settle * 2 {
            return Ok(booting("this BMC firmware restarts the host automatically"));
        }
        Ok(Probe::NotStarted)
    }

    /// Our reset took the host down, and it has not come back.
    fn left_off(&self, context: &Context, power: PowerState) -> Option<Probe> {
        if power != PowerState::Off {
            context.end_wait(OFF);
            return None;
        }
        let server = context.server();
        if context.waited(OFF) < context.timing().power_change {
            return Some(Probe::InFlight {
                reason: "host_booting",
                detail: format!("{server}: the host is off; it is powered on if it stays off"),
                percent: None,
            });
        }
        let powered_on = self.state.resets.iter().filter(|reset| **reset == PowerAction::On).count();
        if powered_on < ON_TRIES as usize {
            return Some(Probe::NotStarted);
        }
        Some(Probe::Impossible(fault(
            ErrorCode::PowerNotReached,
            format!(
                "{server} is off after a restart for the update and does not power on. The update is taken out of the \
                 device's queue. Look at its console."
            ),
            json!({ "power": power, "resets": self.state.resets }),
        )))
    }

    fn note_reset(&mut self, context: &Context, action: PowerAction, mark: Mark) {
        self.state.resets.push(action);
        self.state.mark = mark;
        context.begin_wait(RESET);
        context.end_wait(OFF);
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
        self.state.seen |= progress.phase != JobPhase::Vanished;
        match progress.phase {
            JobPhase::Scheduled => self.scheduled(context, intent).await,
            JobPhase::RebootPending if self.state.restart_pending && intent.is_none() => {
                if self.state.resets.is_empty() {
                    return Ok(Probe::NotStarted);
                }
                let power = host_power(context).await?;
                Ok(self.left_off(context, power).unwrap_or(Probe::Done(seen)))
            }
            JobPhase::RebootPending if self.state.restart_pending => {
                // No job shows whether the restart came: only the host's record could.
                let Some(intent) = intent else { return Ok(Probe::NotStarted) };
                Ok(match Mark::of(intent).trace(context, Via::Redfish).await? {
                    PowerTrace::Seen => {
                        self.note_reset(context, self.announced(intent), Mark::of(intent));
                        Probe::Done(seen)
                    }
                    PowerTrace::Nothing => Probe::NotStarted,
                    PowerTrace::Untold => {
                        Probe::Ambiguous("nothing tells whether the host has restarted".into())
                    }
                })
            }
            JobPhase::New | JobPhase::Downloading | JobPhase::Waiting | JobPhase::Vanished => {
                if let Some(intent) = intent {
                    // A job that is hidden for a moment shows nothing of the reset whose answer was lost.
                    if reset_trace(context, intent).await? != PowerTrace::Seen {
                        let detail =
                            format!("{}, and nothing tells whether the host has restarted", progress.message);
                        return Ok(Probe::NotReady { reason: "device_job", detail });
                    }
                    self.note_reset(context, self.announced(intent), Mark::of(intent));
                }
                Ok(watch(context, self.state, &progress, self.plan))
            }
            _ => {
                if let Some(intent) = intent.filter(|_| self.state.resets.is_empty()) {
                    // It began: so the reset was taken.
                    self.note_reset(context, self.announced(intent), Mark::of(intent));
                }
                Ok(Probe::Done(seen))
            }
        }
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        let power = host_power(context).await?;
        if !matches!(power, PowerState::On | PowerState::Off) {
            return Err(busy("the host's power is changing").into());
        }
        self.alone(context, power).await?;
        let asked = self.state.resets.contains(&PowerAction::GracefulRestart);
        let force = context.shared.policy.allow_forced_restart;
        let Some(next) = next_reset(power, &self.state.support.resets, asked, force) else {
            return Err(fault(
                ErrorCode::PolicyRefused,
                format!(
                    "{} can only be restarted by force, which `allow_forced_restart` in this executor's policy.toml \
                     forbids. The host was not touched; the update is taken out of the device's queue.",
                    context.server()
                ),
                json!({ "resets": self.state.support.resets }),
            )
            .into());
        };
        (self.next, self.power) = (next, power);
        self.mark = Mark::take(context, Via::Redfish, &mut Mute::default()).await;
        let Mark { log_mark, last_reset } = &self.mark;
        let JobRef { id, .. } = self.state.job.clone().unwrap_or_default();
        let prior = if self.state.resets.is_empty() { power } else { PowerState::On };
        let wanted = if prior == PowerState::On { json!("restarted") } else { json!(PowerState::On) };
        let effect = context
            .open_effect(HOST_POWER)
            .is_none()
            .then(|| intended(HOST_POWER, "state", json!(prior), wanted));
        Ok(Prepared {
            before: json!({
                "power": power, "job": id, "log_mark": log_mark, "last_reset": last_reset, "reset": next,
            }),
            limit: context.short_limit(),
            upload: false,
            effect,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        // Announcing it took its time: a slow shutdown may have reached the boot in which the job runs.
        let progress = context.line.follow(&self.state.job.clone().unwrap_or_default()).await?;
        if !matches!(progress.phase, JobPhase::Scheduled | JobPhase::RebootPending) {
            return Err(busy(format!("the job does not wait for a restart any more: {}", progress.message)));
        }
        let power = host_power(context).await?;
        if power != self.power {
            return Err(busy("the host's power has changed meanwhile"));
        }
        self.alone(context, power).await?;
        context.line.reset(permit, Via::Redfish, self.next).await?;
        self.note_reset(context, self.next, self.mark.clone());
        Ok(json!({ "accepted": self.next }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn force_needs_the_policy_whatever_the_device_lists() {
        let listed = |kinds: &[&str]| kinds.iter().map(|kind| (*kind).to_owned()).collect::<BTreeSet<_>>();
        let (polite, rude) = (listed(&["GracefulRestart", "ForceRestart"]), listed(&["ForceRestart"]));
        let none = BTreeSet::new();
        for declared in [&polite, &rude, &none] {
            for asked in [false, true] {
                assert_eq!(next_reset(PowerState::Off, declared, asked, false), Some(PowerAction::On));
                let next = next_reset(PowerState::On, declared, asked, false);
                assert_ne!(next, Some(PowerAction::ForceRestart), "{declared:?} {asked}");
            }
        }
        assert_eq!(next_reset(PowerState::On, &polite, false, true), Some(PowerAction::GracefulRestart));
        assert_eq!(next_reset(PowerState::On, &polite, true, true), Some(PowerAction::ForceRestart));
        assert_eq!(next_reset(PowerState::On, &rude, false, true), Some(PowerAction::ForceRestart));
        assert_eq!(next_reset(PowerState::On, &rude, false, false), None);
    }
}
