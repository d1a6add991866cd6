//! Hands the package to the device, once.
//!
//! The method is chosen by what the BMC declares, before the intent; afterwards nothing but a probe follows.
//! The intent stores the job ids of before, the last log record and the version. The effect `bmc_job` stands
//! for the job in the device's queue until it has run or was deleted.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    protocol::Intent,
    run::{Effect, EffectState},
};
use serde_json::{Value, json};

use super::{
    Planned, STAGE, State,
    check::unavailable,
    evidence::{Trace, trace},
};
use crate::{
    bmc::{BmcError, BmcErrorKind, Handover, JobRef, StageRequest, Staged},
    engine::{
        Activity, Context, Interrupt, Probe,
        context::intended,
        fault,
        shell::{Prepared, Unprepared},
    },
    handlers::settle::BMC_JOB,
    lease::MutationPermit,
    package::Offer,
};

pub struct Stage<'a> {
    plan: &'a Planned,
    state: &'a mut State,
    offer: &'a mut Option<Box<dyn Offer>>,
    request: Option<StageRequest>,
}

impl<'a> Stage<'a> {
    pub fn new(plan: &'a Planned, state: &'a mut State, offer: &'a mut Option<Box<dyn Offer>>) -> Self {
        Self { plan, state, offer, request: None }
    }

    async fn version(&self, context: &Context) -> Result<Option<String>, BmcError> {
        let inventory = context.line.firmware_inventory().await?;
        let component = inventory.components.into_iter().find(|found| found.key == self.plan.component);
        Ok(component.map(|component| component.version))
    }

    async fn look_for_traces(&mut self, context: &Context, intent: &Intent) -> Result<Probe, BmcError> {
        let before: Vec<String> = intent
            .before
            .get("jobs")
            .and_then(Value::as_array)
            .map(|ids| ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        let mark = intent.before.get("log_mark").and_then(Value::as_u64);
        let now = context.line.jobs().await?;
        let records = if mark.is_some() { context.line.log_since(mark).await? } else { Vec::new() };
        match trace(&before, &now, &records, &self.plan.component, &self.plan.component_name) {
            Trace::Job(id) => {
                self.state.job = Some(JobRef { id: Some(id.clone()), path: None, log_mark: mark });
                Ok(Probe::Done(json!({ "job": id, "found_by": "set_difference" })))
            }
            Trace::Foreign(what) => Ok(Probe::Foreign(what)),
            Trace::Several(what) => {
                if self.version(context).await?.as_deref() == Some(&self.plan.to) {
                    self.state.up_to_date = true;
                    return Ok(Probe::Done(json!({ "version": self.plan.to, "found_by": "version" })));
                }
                Ok(Probe::Ambiguous(what))
            }
            Trace::Nothing if self.version(context).await?.as_deref() == Some(&self.plan.to) => {
                self.state.up_to_date = true;
                Ok(Probe::Done(json!({ "version": self.plan.to, "found_by": "version" })))
            }
            Trace::Nothing => Ok(Probe::NotStarted),
        }
    }
}

impl Activity for Stage<'_> {
    fn phase(&self) -> &'static str {
        STAGE
    }

    fn action(&self) -> &'static str {
        "stage_package"
    }

    fn effect(&self) -> Option<&'static str> {
        // Settled by its job id, which is in the effect only once it is known: see `probe` and `act`.
        Some(BMC_JOB)
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn window(&self, context: &Context) -> Duration {
        context.timing().job_visibility.max(context.timing().settle)
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::Safe
    }

    async fn probe(&mut self, context: &Context, intent: Option<&Intent>) -> Result<Probe, BmcError> {
        if let Some(job) = &self.state.job {
            return Ok(Probe::Done(json!({ "job": job.id })));
        }
        if self.state.up_to_date {
            return Ok(Probe::Done(json!({ "version": self.plan.to })));
        }
        if let Some(intent) = intent {
            return self.look_for_traces(context, intent).await;
        }
        let readiness = context.line.readiness().await?;
        if !readiness.ready {
            return Ok(Probe::NotReady { reason: "lifecycle_controller", detail: readiness.detail });
        }
        let live = context.line.jobs().await?.into_iter().find(|job| job.phase.is_live());
        Ok(match live {
            Some(job) => Probe::Foreign(format!("device job {} ({})", job.id, job.name)),
            None => Probe::NotStarted,
        })
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        let package = &self.plan.package;
        let server = context.server().to_owned();
        let bytes = context
            .shared
            .packages
            .repository
            .get(package)
            .await
            .map_err(|error| unavailable(&error, &package.name, &server))?;
        // Looked at again, however long the package took.
        let found = self.version(context).await?;
        if found.as_deref() != Some(&self.plan.from) {
            return Err(fault(
                ErrorCode::VersionDrift,
                format!(
                    "{server} shows {} {} now, but the plan was made for {}. Nothing was handed over.",
                    self.plan.component_name,
                    found.unwrap_or_else(|| "nothing".into()),
                    self.plan.from
                ),
                Value::Null,
            )
            .into());
        }
        let jobs: Vec<String> = context.line.jobs().await?.into_iter().map(|job| job.id).collect();
        let log_mark = match context.line.log_mark().await {
            Err(error) if error.kind == BmcErrorKind::Unsupported => None,
            other => other?,
        };
        let support = &self.state.support;
        let http_pull =
            support.simple_update && (support.protocols.is_empty() || support.protocols.contains("HTTP"));
        let (handover, upload) = if support.multipart_push {
            (Handover::Push { file_name: package.file_name.clone(), bytes }, true)
        } else if http_pull {
            let Some(publisher) = &context.shared.packages.publisher else {
                return Err(fault(
                    ErrorCode::PolicyRefused,
                    format!("{server} fetches packages by itself, and this executor has no `package_listen` in policy.toml to serve them from. Nothing was handed over."),
                    Value::Null,
                )
                .into());
            };
            let offer = publisher
                .offer(&package.file_name, bytes)
                .map_err(|error| unavailable(&error, &package.name, &server))?;
            let url = offer.url().to_owned();
            *self.offer = Some(offer);
            (Handover::Pull { url }, false)
        } else {
            return Err(fault(
                ErrorCode::DeviceUnsupported,
                format!("{server} declares no way to take a package that this executor knows. Nothing was handed over."),
                json!({ "protocols": support.protocols }),
            )
            .into());
        };
        let on_reset = support.on_reset && self.plan.may_restart_host();
        self.request = Some(StageRequest { handover, on_reset, log_mark });
        Ok(Prepared {
            before: json!({ "jobs": jobs, "log_mark": log_mark, "version": self.plan.from }),
            limit: if upload { context.timing().upload } else { context.short_limit() },
            upload,
            effect: Some(intended(BMC_JOB, &self.plan.component, Value::Null, json!({ "job": null }))),
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        let Some(request) = self.request.take() else {
            return Err(BmcError::new(BmcErrorKind::Refused, "nothing was prepared"));
        };
        let log_mark = request.log_mark;
        let staged = context.line.stage(permit, request).await?;
        self.state.stages += 1;
        match staged {
            Staged::Started(job) => {
                let answer = json!({ "job": job.id });
                self.state.job = Some(JobRef { log_mark: job.log_mark.or(log_mark), ..job });
                Ok(answer)
            }
            Staged::UpToDate(words) => {
                self.state.up_to_date = true;
                Ok(json!({ "up_to_date": words }))
            }
        }
    }
}

/// Writes the job's id into its effect, so that whoever settles it knows what to delete.
pub async fn name_effect(context: &mut Context, state: &State) -> Result<(), crate::engine::Stop> {
    let Some(effect) = context.open_effect(BMC_JOB).cloned() else { return Ok(()) };
    let id = state.job.as_ref().and_then(|job| job.id.clone());
    let named = if id.is_some() { EffectState::Applied } else { EffectState::NotApplied };
    let wanted = json!({ "job": id });
    if effect.wanted == wanted && effect.state == named {
        return Ok(());
    }
    context.report_effect(Effect { wanted, state: named, ..effect }).await
}
