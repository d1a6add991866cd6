//! Undoes what is left open before a run ends, whoever opened it.
//!
//! Two kinds of effects exist so far: `bmc_job`, a device job that may still wait for a reboot, is deleted;
//! `host_power`, a host that was powered on for an update, is shut down again, and one that ran and was restarted for
//! it is powered on if it has stayed off. Both look first: a job that runs is seen to its end, a host is never
//! switched while the device is at work or about to be ([`super::work`]), and a state that somebody else has changed
//! is left alone. An effect of unknown fate becomes a `conflict` for a person to see; one whose BMC does not answer
//! or refuses the look stays open, and the control plane grants the run again to settle it. So does one of a kind
//! that this version does not know: a newer executor may. What the kind of a run does not make is not undone for it
//! ([`refusal`]).

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    event::Level,
    job::{JobSpec, PowerAction},
    protocol::{Finish, Intent, RunGrant},
    run::{Effect, EffectState, Outcome},
    server::PowerState,
};
use serde_json::{Value, json};

use super::{
    power::word,
    work::{at_work, may_be_at_work},
};
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
/// The phase in which what is left of the work is taken away, and what was changed for it is put back.
pub const PHASE: &str = "clean_up";
/// Requests to shut down that a host gets whose power must not be forced.
const POLITE_TRIES: u32 = 2;
/// Forced power-offs of a host that did not shut down when it was requested to.
const FORCED_TRIES: u32 = 3;
/// Requests to power on a host that has stayed off.
pub(super) const ON_TRIES: u32 = 3;

/// Whether a former lease has left something to this one: an open effect, an intent, or how the run is to end.
pub fn has_past(grant: &RunGrant) -> bool {
    !grant.effects.is_empty()
        || grant.intent.is_some()
        || grant.settle.is_some()
        || interrupted(&grant.checkpoint).is_some()
}

/// Why nothing is undone for `grant`: no run of its kind leaves that. Undoing changes the server, and `kinds` in
/// policy.toml is about the kind alone.
pub fn refusal(grant: &RunGrant) -> Option<String> {
    let kind = grant.spec.kind();
    if !grant.spec.mutates() && has_past(grant) {
        return Some(format!("a run of the kind {kind} changes nothing, so there is nothing to undo"));
    }
    let made: &[&str] = match grant.spec {
        JobSpec::FirmwareUpdate(_) => &[BMC_JOB, HOST_POWER],
        JobSpec::Inventory(_) | JobSpec::Power(_) | JobSpec::BootOverride(_) => &[],
    };
    let mut objects = grant.effects.iter().map(|effect| effect.object.as_str());
    let foreign = objects.find(|object| [BMC_JOB, HOST_POWER].contains(object) && !made.contains(object))?;
    Some(format!("a run of the kind {kind} has no effect `{foreign}`, so it is not undone"))
}

/// Settles every open effect and says how the run ends.
pub async fn settle(context: &mut Context, mut finish: Finish) -> Result<Finish, Stop> {
    if finish.outcome == Outcome::Unknown {
        // Undoing could hit the very work whose fate is unknown.
        if let Some(word) = leave_as_it_is(context).await? {
            finish.detail = format!("{} {word}", finish.detail);
        }
        conflicts(context).await?;
        return Ok(finish);
    }
    name_job(context).await?;
    // The job first: power is safe to touch only without one.
    for object in [BMC_JOB, HOST_POWER] {
        while let Some(effect) = context.open_effect(object).cloned() {
            let ended = undo(context, &effect, &finish).await?;
            let state = match ended {
                Ended::Done(evidence) => {
                    if evidence.get("found").is_some_and(ran) && finish.outcome == Outcome::Failed {
                        finish.detail =
                            format!("{} The device job has run to its end meanwhile.", finish.detail);
                    }
                    EffectState::Settled
                }
                Ended::Cancelled => EffectState::Conflict,
                Ended::Finish(why) if why.code == ErrorCode::AnotherMachine.as_str() => {
                    // What was changed is on a machine that this run cannot reach any more.
                    conflicts(context).await?;
                    let detail = format!("{} Not undone: {}", finish.detail, why.detail);
                    return Ok(Finish { outcome: Outcome::Unknown, detail, ..why });
                }
                Ended::Finish(why) => {
                    let text = format!("{}: {object} is not undone: {}", context.server(), why.detail);
                    finish.detail = format!("{} Not undone: {}", finish.detail, why.detail);
                    let away = [
                        ErrorCode::BmcUnreachable,
                        ErrorCode::DeviceBusy,
                        ErrorCode::HeldBack,
                        ErrorCode::OutcomeUnknown,
                    ];
                    if away.iter().any(|code| code.as_str() == why.code) {
                        return later(context, finish, &text).await;
                    }
                    context.event(Level::Error, text, Value::Null).await?;
                    EffectState::Conflict
                }
            };
            context.report_effect(Effect { state, ..effect }).await?;
        }
    }
    if let Some(effect) = context.effects.iter().find(|effect| effect.state.is_open()) {
        let text = format!(
            "{}: `{}` is not undone: this executor does not know how. Upgrade it, or start a newer one.",
            context.server(),
            effect.object
        );
        return later(context, finish, &text).await;
    }
    Ok(finish)
}

/// Whether what became of a device job is that it ran.
fn ran(found: &Value) -> bool {
    [JobPhase::Completed, JobPhase::RebootPending].iter().any(|phase| *found == json!(phase))
}

/// Leaves what is open to a later lease. The first one says how the run ends; the ones that follow wait longer and
/// tell nothing new.
async fn later(context: &mut Context, finish: Finish, why: &str) -> Result<Finish, Stop> {
    if context.grant.settle.is_some() {
        let pause = context.timing().ready_wait;
        return Err(context.give_back("settling", why, pause).await?);
    }
    context.event(Level::Error, why, Value::Null).await?;
    Ok(finish)
}

/// A restarted host that is on again needs nobody. Of one that is not, or cannot be seen, says how it was found.
async fn leave_as_it_is(context: &mut Context) -> Result<Option<String>, Stop> {
    let Some(effect) = context.open_effect(HOST_POWER).filter(|effect| ran_before(effect)).cloned() else {
        return Ok(None);
    };
    match host_power(context).await {
        Ok(PowerState::On) => {
            context.report_effect(Effect { state: EffectState::Settled, ..effect }).await?;
            Ok(None)
        }
        Ok(power) => {
            Ok(Some(format!("It was on before the update; its power is {} now.", word(&json!(power)))))
        }
        Err(error) => Ok(Some(format!("Whether the host is on again cannot be read: {error}."))),
    }
}

/// Whether the host ran before it was touched.
fn ran_before(effect: &Effect) -> bool {
    effect.prior == json!(PowerState::On)
}

/// Hands every open effect to a person.
async fn conflicts(context: &mut Context) -> Result<(), Stop> {
    for effect in context.effects.clone().into_iter().filter(|effect| effect.state.is_open()) {
        context.report_effect(Effect { state: EffectState::Conflict, ..effect }).await?;
    }
    Ok(())
}

/// What the effect of a device job says about it. `guessed`: the device has not named it in answer to our hand-over,
/// it was found in the queue and may be somebody else's.
pub(super) fn job_wanted(id: Option<&str>, guessed: bool) -> Value {
    json!({ "job": id, "guessed": guessed })
}

/// The device's id of the job may stand in the checkpoint only.
async fn name_job(context: &mut Context) -> Result<(), Stop> {
    let checkpoint = &context.grant.checkpoint;
    let id = checkpoint.get("job").and_then(|job| job.get("id")).and_then(Value::as_str);
    let Some(id) = id else { return Ok(()) };
    let guessed = checkpoint.get("lost").is_some_and(|lost| !lost.is_null());
    match context.open_effect(BMC_JOB).cloned() {
        Some(effect) if effect.wanted.get("job").is_none_or(Value::is_null) => {
            let wanted = job_wanted(Some(id), guessed);
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
    let mut refused = context.grant.checkpoint.get(REFUSED).and_then(Value::as_u64).unwrap_or_default();
    let state = |refused: u64| json!({ "finish": finish, REFUSED: refused });
    if effect.object == BMC_JOB {
        let id = effect.wanted.get("job").and_then(Value::as_str).map(str::to_owned);
        let Some(id) = id else {
            // Never identified: nothing that could be deleted by name.
            return Ok(Ended::Cancelled);
        };
        if effect.wanted.get("guessed").and_then(Value::as_bool) == Some(true) {
            // Perhaps somebody else's: it is not ours to delete.
            return Ok(Ended::Done(json!({ "job": id, "found": "left_alone" })));
        }
        return perform(context, &mut DeleteJob { id, state: state(refused) }).await;
    }
    let forced = context.shared.policy.allow_forced_restart;
    loop {
        let (ended, answered) = if ran_before(effect) {
            let mut on = PowerOn { state: state(refused), refused: false };
            let ended = perform(context, &mut on).await?;
            (ended, on.refused)
        } else {
            let force = refused > 0 && forced;
            let mut off = PowerOff {
                state: state(refused),
                next: PowerAction::GracefulShutdown,
                force,
                refused: false,
            };
            let ended = perform(context, &mut off).await?;
            (ended, off.refused)
        };
        if !answered || !is_refused(&ended) {
            return Ok(ended);
        }
        refused += 1;
        context.checkpoint(PHASE, state(refused), None, None).await?;
        if refused >= PATIENCES {
            return Ok(Ended::Finish(match ran_before(effect) {
                true => PowerOn::stays_off(context),
                false => PowerOff::stays_on(context, PowerState::On),
            }));
        }
        // What was refused politely is requested by force at once; anything else by a later lease.
        if refused > 1 || ran_before(effect) || !forced {
            return Ok(ended);
        }
    }
}

/// Whether it ended because a request was not taken, by a device that answers.
fn is_refused(ended: &Ended) -> bool {
    let refusals = [ErrorCode::DeviceBusy, ErrorCode::DeviceRefused, ErrorCode::DeviceUnsupported];
    matches!(ended, Ended::Finish(why) if refusals.iter().any(|code| code.as_str() == why.code))
}

/// Whether the device has answered a request, and refused it.
fn is_refusal(result: &Result<(), BmcError>) -> bool {
    let kinds = |kind| {
        matches!(kind, BmcErrorKind::NotReady { .. } | BmcErrorKind::Refused | BmcErrorKind::Unsupported)
    };
    result.as_ref().err().is_some_and(|error| kinds(error.kind))
}

struct DeleteJob {
    id: String,
    state: Value,
}

/// The device has shown the job, and has answered since ([`PASSING`](crate::engine::PASSING)).
const SHOWN: &str = "~shown";
/// The device does not show the job, and has answered since.
const ABSENT: &str = "~absent";
/// It has not shown the job since, whether it answered or not.
const MISSING: &str = "missing";

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
        let Some(job) = jobs.into_iter().find(|job| job.is(&self.id)) else {
            // An accepted job may show up late, and what was away shows its queue later than it answers: absence counts
            // only when it lasts.
            let timing = context.timing();
            let shown = context.waits_begun(SHOWN) > 0;
            let hidden = if shown { timing.job_visibility } else { timing.upload_visibility };
            return Ok(if context.waited(ABSENT) >= hidden {
                Probe::Done(json!({ "job": self.id, "found": "gone" }))
            } else if context.waited(MISSING) > timing.stall {
                Probe::Ambiguous(format!(
                    "job {} is not shown, but was not seen to stay away for {} s without a break",
                    self.id,
                    hidden.as_secs()
                ))
            } else {
                Probe::InFlight {
                    reason: "device_job",
                    detail: format!("makes sure that job {} is gone", self.id),
                    percent: None,
                }
            });
        };
        for gone in [ABSENT, MISSING] {
            context.end_wait(gone);
        }
        context.begin_wait(SHOWN);
        // Before it runs it may be listed for as long as people hold changes back.
        let runs = matches!(job.phase, JobPhase::Running | JobPhase::Other(_));
        if !runs {
            context.end_wait("runs");
        }
        let stalled = runs && context.waited("runs") > context.timing().stall;
        Ok(match job.phase {
            JobPhase::New | JobPhase::Scheduled | JobPhase::Waiting => Probe::NotStarted,
            // Deleting a download in progress is refused by some firmware and ignored by other: let it end.
            JobPhase::Downloading => Probe::NotReady {
                reason: "device_job",
                detail: format!("job {} is still taking its package in", self.id),
            },
            JobPhase::Running | JobPhase::Other(_) if stalled => {
                Probe::Ambiguous(format!("job {} does not come to an end", self.id))
            }
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
        // Again, now that the permit is at hand: it may have begun, and is not stopped then.
        let jobs = context.line.jobs().await?;
        let found = jobs.iter().find(|job| job.is(&self.id)).map(|job| &job.phase);
        if !matches!(found, Some(JobPhase::New | JobPhase::Scheduled | JobPhase::Waiting)) {
            let detail = format!("job {} does not wait any more", self.id);
            return Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, detail));
        }
        match context.line.delete_job(permit, &self.id).await {
            Err(error) if error.kind == BmcErrorKind::NotFound => {}
            other => other?,
        }
        Ok(json!({ "deleted": self.id }))
    }
}

/// The wait for the host to follow the last request to power off.
const ASKED: &str = "asked";
/// The wait for a host that is off to come back by itself.
const OFF: &str = "off";
/// The member of the checkpoint that counts how often the device has refused requests for a whole patience.
const REFUSED: &str = "refused";
/// After so many of them a person has to see to it: some hours.
const PATIENCES: u64 = 6;

/// Powers a host on that ran before the update and has stayed off.
struct PowerOn {
    state: Value,
    /// The device answered the last request with a refusal.
    refused: bool,
}

impl PowerOn {
    fn stays_off(context: &Context) -> Finish {
        let server = context.server();
        fault(
            ErrorCode::PowerNotReached,
            format!("{server} was on before the update, is off now and does not power on. Power it on."),
            json!({ "power": PowerState::Off }),
        )
    }
}

impl Activity for PowerOn {
    fn phase(&self) -> &'static str {
        PHASE
    }

    fn action(&self) -> &'static str {
        "power_on"
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
        let server = context.server();
        let wait = |detail: String| Ok(Probe::InFlight { reason: "host_booting", detail, percent: None });
        match power {
            PowerState::On => return Ok(Probe::Done(json!({ "power": power }))),
            PowerState::Off if intent.is_some() => return Ok(Probe::NotStarted),
            PowerState::Off => {}
            _ if context.waited("changes") > context.timing().graceful => {
                return Ok(Probe::Impossible(Self::stays_off(context)));
            }
            _ => return wait(format!("{server} restarts")),
        }
        if let Some(busy) = at_work(context, PowerState::Off).await? {
            return Ok(Probe::NotReady { reason: busy.why.reason(), detail: busy.words });
        }
        let asked = context.waits_begun(ASKED);
        if context.waited(if asked > 0 { ASKED } else { OFF }) < context.timing().power_change {
            return wait(format!("{server} is off; waits until it comes back"));
        }
        Ok(if asked < ON_TRIES { Probe::NotStarted } else { Probe::Impossible(Self::stays_off(context)) })
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        Ok(Prepared {
            before: json!({ "power": PowerState::Off, "reset": PowerAction::On }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        self.refused = false;
        let busy = |why: &str| BmcError::new(BmcErrorKind::NotReady { retry_after: None }, why);
        if host_power(context).await? != PowerState::Off {
            return Err(busy("the host's power has changed meanwhile"));
        }
        if let Some(job) = at_work(context, PowerState::Off).await? {
            return Err(busy(&job.words));
        }
        let result = context.line.reset(permit, Via::Redfish, PowerAction::On).await;
        self.refused = is_refusal(&result);
        if result.as_ref().err().is_none_or(|error| error.kind == BmcErrorKind::Ambiguous) {
            context.begin_wait(ASKED);
        }
        result.map(|()| json!({ "asked": PowerAction::On }))
    }
}

struct PowerOff {
    state: Value,
    next: PowerAction,
    /// Polite requests were refused for a whole patience.
    force: bool,
    /// The device answered the last request with a refusal.
    refused: bool,
}

impl PowerOff {
    fn stays_on(context: &Context, power: PowerState) -> Finish {
        let why = match context.shared.policy.allow_forced_restart {
            true => "",
            false => " `allow_forced_restart` in policy.toml forbids to force it.",
        };
        let server = context.server();
        fault(
            ErrorCode::PowerNotReached,
            format!("{server} was off before the update and does not power off again.{why} Power it off."),
            json!({ "power": power }),
        )
    }

    /// Politely once, or for a whole patience if the device refuses the request, then by force where the policy
    /// allows, politely again where it does not. More than once, because a request may be lost; power is read before
    /// each, so none hits a host that is off.
    fn tries_left(&self, context: &Context) -> bool {
        context.waits_begun(ASKED)
            < if context.shared.policy.allow_forced_restart { 1 + FORCED_TRIES } else { POLITE_TRIES }
    }
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

    fn window(&self, context: &Context) -> Duration {
        // An operating system that was asked shows nothing until it has shut down.
        context.timing().graceful
    }

    async fn probe(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let power = host_power(context).await?;
        if power == PowerState::Off {
            return Ok(Probe::Done(json!({ "power": power })));
        }
        if intent.is_some() && power != PowerState::PoweringOff {
            return Ok(Probe::NotStarted);
        }
        if let Some(busy) = may_be_at_work(context, power).await? {
            return Ok(Probe::NotReady { reason: busy.why.reason(), detail: busy.words });
        }
        let wait = |detail: String| Probe::InFlight { reason: "host_powering_off", detail, percent: None };
        let server = context.server();
        if power == PowerState::PoweringOff {
            return Ok(wait(format!("{server} is shutting down again")));
        }
        if context.waits_begun(ASKED) > 0 && context.waited(ASKED) < context.timing().graceful {
            return Ok(wait(format!("{server} was requested to shut down again")));
        }
        if !self.tries_left(context) {
            return Ok(Probe::Impossible(Self::stays_on(context, power)));
        }
        Ok(Probe::NotStarted)
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        if !self.tries_left(context) {
            return Err(Self::stays_on(context, PowerState::On).into());
        }
        if let Some(job) = may_be_at_work(context, PowerState::On).await? {
            return Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, job.words).into());
        }
        // The host was off: nobody works on it. Politely first all the same, it has an operating system.
        let first = context.waits_begun(ASKED) == 0 && !self.force;
        let polite = first || !context.shared.policy.allow_forced_restart;
        self.next = if polite { PowerAction::GracefulShutdown } else { PowerAction::ForceOff };
        Ok(Prepared {
            before: json!({ "power": PowerState::On, "reset": self.next }),
            limit: context.short_limit(),
            upload: false,
            effect: None,
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        // Again, now that the permit is at hand.
        self.refused = false;
        let busy = |why: &str| BmcError::new(BmcErrorKind::NotReady { retry_after: None }, why);
        if host_power(context).await? != PowerState::On {
            return Err(busy("the host's power has changed meanwhile"));
        }
        if let Some(job) = may_be_at_work(context, PowerState::On).await? {
            return Err(busy(&job.words));
        }
        let result = context.line.reset(permit, Via::Redfish, self.next).await;
        self.refused = is_refusal(&result);
        // The device may have taken it. What it refused has not been asked of the host.
        if result.as_ref().err().is_none_or(|error| error.kind == BmcErrorKind::Ambiguous) {
            context.begin_wait(ASKED);
        }
        result.map(|()| json!({ "asked": self.next }))
    }
}

/// The host's power as the transport shows it that knows the device's jobs, too: beside an update no other one counts.
///
/// # Errors
/// Also when the device does not tell, as while it starts: that is neither on nor off, and is looked at again.
pub(super) async fn host_power(context: &Context) -> Result<PowerState, BmcError> {
    match context.line.power(Pick::Only(Via::Redfish)).await?.1 {
        PowerState::Unknown => {
            let detail = format!("{} does not tell whether its host is on", context.server());
            Err(BmcError::new(BmcErrorKind::NotReady { retry_after: None }, detail))
        }
        told => Ok(told),
    }
}
