//! Follows the device job to its end.
//!
//! A BMC that goes away meanwhile is expected, within a limit (FAILURE-MODES D17); a job that vanishes is
//! followed into the log and then judged by the version (D14); one that makes no progress for long is stalled
//! (D36), and nothing is done about it but to say so: there is no safe way to stop a flash.

use std::time::Duration;

use rackhand_schema::{ErrorCode, protocol::Intent};
use serde_json::{Value, json};

use super::{APPLY, MAX_STAGES, Planned, State};
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

/// Tells a slow job from a stalled one, and a hidden one from a vanished one.
#[derive(Debug, Default)]
pub struct Watch {
    last_look: Option<Duration>,
    quiet: Option<Duration>,
    gone_since: Option<Duration>,
}

impl Watch {
    /// For a job that is alive or not to be seen.
    pub fn look(
        &mut self,
        context: &Context,
        state: &mut State,
        progress: &JobProgress,
        plan: &Planned,
    ) -> Probe {
        let now = context.now();
        let since_last = now.saturating_sub(self.last_look.replace(now).unwrap_or(now));
        let seen = format!("{:?} {:?} {}", progress.phase, progress.percent, progress.message);
        let seen = text::clean(&seen);
        let before = self.quiet.unwrap_or(Duration::from_millis(state.quiet_ms));
        let quiet = if seen == state.progress { before + since_last } else { Duration::ZERO };
        self.quiet = Some(quiet);
        state.progress = seen;
        // Whole minutes: a checkpoint is written when it changes.
        state.quiet_ms = quiet.as_secs() / 60 * 60_000;
        let server = context.server();
        if progress.phase == JobPhase::Vanished {
            let since = *self.gone_since.get_or_insert(now);
            if now.saturating_sub(since) > context.timing().job_visibility {
                return Probe::Done(json!({ "vanished": true }));
            }
            return Probe::InFlight {
                reason: "device_job",
                detail: format!("{server}: the job is not to be seen for the moment"),
                percent: None,
            };
        }
        self.gone_since = None;
        if quiet > context.timing().stall {
            return Probe::Impossible(fault(
                ErrorCode::DeviceStalled,
                format!(
                    "{server} has made no progress with {} {} for {} s ({}). Nothing was forced. Look at its job queue and console.",
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
            detail: format!("{server}: {}{percent}", text::clean(&progress.message)),
            percent: progress.percent,
        }
    }
}

pub struct Apply<'a> {
    plan: &'a Planned,
    state: &'a mut State,
    watch: Watch,
}

impl<'a> Apply<'a> {
    pub fn new(plan: &'a Planned, state: &'a mut State) -> Self {
        Self { plan, state, watch: Watch::default() }
    }

    async fn failed(&self, context: &Context, progress: &JobProgress) -> Result<Probe, BmcError> {
        let id = progress.message_id.as_deref().unwrap_or_default();
        if rackhand_redfish::up_to_date(id) {
            return Ok(Probe::Done(describe(progress)));
        }
        let inventory = context.line.firmware_inventory().await?;
        let found = inventory.components.into_iter().find(|found| found.key == self.plan.component);
        let version = found.map(|found| found.version);
        if version.as_deref() == Some(&self.plan.to) {
            // The device contradicts itself; what counts is what is installed.
            return Ok(Probe::Done(describe(progress)));
        }
        let untouched = version.as_deref() == Some(&self.plan.from);
        if untouched && rackhand_redfish::never_had_package(id) && self.state.stages < MAX_STAGES {
            return Ok(Probe::Done(json!({ "stage_again": true, "job": describe(progress) })));
        }
        let now_installed = version.unwrap_or_else(|| "an unreadable version".into());
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
                    "{}: somebody took the update out of the device's queue. Retry when that is settled.",
                    context.server()
                ),
                describe(&progress),
            ))),
            _ => Ok(self.watch.look(context, self.state, &progress, self.plan)),
        }
    }
}
