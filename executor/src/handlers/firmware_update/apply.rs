//! Follows the device job to its end.
//!
//! A BMC that goes away meanwhile is expected, within a limit; a job that vanishes is
//! followed into the log and then judged by the version; one that makes no progress for long is stalled,
//! and nothing is done about it but to say so: there is no safe way to stop a flash.

use rackhand_schema::{ErrorCode, protocol::Intent};
use serde_json::{Value, json};

use super::{APPLY, MAX_STAGES, Planned, State, late_visibility};
use crate::{
    bmc::{BmcError, JobPhase, JobProgress},
    engine::{Activity, Context, Interrupt, Probe, fault},
    text,
};

/// What a look at a job shows, as evidence.
pub fn describe(progress: &JobProgress) -> Value {
    json!({
        "job_state": progress.phase,
        "percent": progress.percent,
        "message_id": progress.message_id,
        "message": text::clean(&progress.message),
    })
}

/// Tells a slow job from a stalled one, and a hidden one from a vanished one. For a job that is alive or not to be
/// seen.
pub fn watch(context: &Context, state: &mut State, progress: &JobProgress, plan: &Planned) -> Probe {
    let seen = text::clean(&format!("{:?} {:?} {}", progress.phase, progress.percent, progress.message));
    if seen != state.progress {
        state.progress = seen;
        context.begin_wait("quiet");
    }
    let quiet = context.waited("quiet");
    let server = context.server();
    if progress.phase == JobPhase::Vanished {
        let patience = if state.seen { context.timing().job_visibility } else { late_visibility(context) };
        if context.waited("vanished") > patience {
            return Probe::Done(json!({ "vanished": true }));
        }
        return Probe::InFlight {
            reason: "device_job",
            detail: format!(
                "{server}: the BMC does not list the update job {}",
                if state.seen { "at the moment" } else { "yet" }
            ),
            percent: None,
        };
    }
    context.end_wait("vanished");
    state.seen = true;
    if quiet > context.timing().stall {
        return Probe::Impossible(fault(
            ErrorCode::DeviceStalled,
            format!(
                "{server} has made no progress with {} {} for {} s ({}). Nothing was forced. Look at its job queue \
                 and console.",
                plan.component_name,
                plan.to,
                quiet.as_secs(),
                progress.message
            ),
            describe(progress),
        ));
    }
    let percent = progress.percent.map_or_else(String::new, |percent| format!(", {percent} %"));
    Probe::InFlight {
        reason: "device_job",
        detail: format!("{server}: {}{percent}", text::clean(&progress.message).trim_end_matches('.')),
        percent: progress.percent,
    }
}

pub struct Apply<'a> {
    plan: &'a Planned,
    state: &'a mut State,
}

impl<'a> Apply<'a> {
    pub fn new(plan: &'a Planned, state: &'a mut State) -> Self {
        Self { plan, state }
    }

    async fn failed(&self, context: &Context, progress: &JobProgress) -> Result<Probe, BmcError> {
        let id = progress.message_id.as_deref().unwrap_or_default();
        if rackhand_redfish::up_to_date(id) {
            return Ok(Probe::Done(describe(progress)));
        }
        let inventory = context.line.firmware_inventory().await?;
        let version = self.state.component(self.plan, &inventory).map(|found| &found.version);
        if version.is_some_and(|version| self.plan.ends_with(version)) {
            // The device contradicts itself; what counts is what is installed, and `verify` sees whether it runs.
            return Ok(Probe::Done(describe(progress)));
        }
        let untouched = version.is_some_and(|version| self.plan.starts_from(version));
        let alone = self.state.lost.is_none() && self.state.stages < MAX_STAGES;
        if untouched && alone && rackhand_redfish::never_had_package(id) {
            return Ok(Probe::Done(json!({ "stage_again": true, "job": describe(progress) })));
        }
        let now_installed = version.map_or("an unreadable version", String::as_str);
        Ok(Probe::Impossible(fault(
            ErrorCode::DeviceFailed,
            format!(
                "{} reports that the update of {} to {} failed: {} Installed is {now_installed}.",
                context.server(),
                self.plan.component_name,
                self.plan.to,
                progress.message
            ),
            describe(progress),
        )))
    }
}

impl Activity for Apply<'_> {
    fn phase(&self) -> &'static str {
        APPLY
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::Never
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let Some(job) = self.state.job.clone() else {
            return Ok(Probe::Done(json!({ "job": null })));
        };
        let progress = context.line.follow(&job).await?;
        self.state.seen |= progress.phase != JobPhase::Vanished;
        match progress.phase {
            JobPhase::Completed => Ok(Probe::Done(describe(&progress))),
            JobPhase::RebootPending if self.plan.may_restart_host() && self.state.resets.is_empty() => {
                Ok(Probe::Done(json!({ "restart": true, "job": describe(&progress) })))
            }
            JobPhase::Scheduled if self.plan.may_restart_host() => {
                Ok(Probe::Done(json!({ "scheduled": describe(&progress) })))
            }
            JobPhase::RebootPending => {
                self.state.progress = "RebootPending".to_owned();
                Ok(Probe::Done(describe(&progress)))
            }
            JobPhase::Failed => self.failed(context, &progress).await,
            JobPhase::Cancelled => Ok(Probe::Impossible(fault(
                ErrorCode::DeviceFailed,
                format!(
                    "{}: someone removed the update from the device's queue. Retry when that is settled.",
                    context.server()
                ),
                describe(&progress),
            ))),
            _ => Ok(watch(context, self.state, &progress, self.plan)),
        }
    }
}
