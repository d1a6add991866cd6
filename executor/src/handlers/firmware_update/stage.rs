//! Hands the package to the device, once.
//!
//! The method is chosen by what the BMC declares, before the intent; afterwards nothing but a probe follows.
//! The intent stores the job ids of before, the last log record and the version. A lost hand-over is compared with
//! what was there before the first one, however many follow: one more, when nothing has shown up within
//! `upload_visibility`, and then a person decides. The effect `bmc_job` stands
//! for the job in the device's queue until it has run or was deleted.

use std::time::Duration;

use rackhand_schema::{
    ErrorCode,
    protocol::Intent,
    run::{Effect, EffectState},
};
use serde_json::{Value, json};

use super::{
    LostHandover, Planned, STAGE, State,
    check::unavailable,
    evidence::{self, Trace, trace},
    late_visibility,
};
use crate::{
    bmc::{BmcError, BmcErrorKind, Handover, JobRef, StageRequest, Staged},
    engine::{
        Activity, Context, Interrupt, Probe,
        context::intended,
        decide::IntentAge,
        fault,
        shell::{Prepared, Unprepared},
    },
    handlers::settle::{BMC_JOB, job_wanted},
    lease::MutationPermit,
    package::{Offer, PackageError},
    text,
};

/// Ids of the queue before the hand-over that its intent holds, as JSON; the rest of it is small.
pub const MAX_QUEUE_BYTES: usize = text::MAX_EVIDENCE_BYTES - 1_024;

pub struct Stage<'a> {
    plan: &'a Planned,
    state: &'a mut State,
    offer: &'a mut Option<Box<dyn Offer>>,
    request: Option<StageRequest>,
    /// Ids in the queue before this hand-over, or before the first one that got no answer.
    before: Vec<String>,
}

fn not_ready(why: impl AsRef<str>) -> BmcError {
    BmcError::new(BmcErrorKind::NotReady { retry_after: None }, why)
}

/// A device that is not ready need not show its whole queue: a look at it is none, see [`Context::answered_for`].
async fn ready(context: &Context) -> Result<(), BmcError> {
    let readiness = context.line.readiness().await?;
    if readiness.ready { Ok(()) } else { Err(not_ready(readiness.detail)) }
}

fn makes_sure(context: &Context) -> Probe {
    let detail = format!("{}: makes sure that no job of the first hand-over shows up", context.server());
    Probe::NotReady { reason: "device_job", detail }
}

impl<'a> Stage<'a> {
    pub fn new(plan: &'a Planned, state: &'a mut State, offer: &'a mut Option<Box<dyn Offer>>) -> Self {
        Self { plan, state, offer, request: None, before: Vec::new() }
    }

    /// An inventory that cannot be read says nothing about a version, and is no drift: it is looked at again.
    async fn version(&self, context: &Context) -> Result<Option<String>, BmcError> {
        let inventory = context.line.firmware_inventory().await?;
        if let Some(why) = inventory.unreadable.get("firmware") {
            return Err(not_ready(why));
        }
        Ok(self.state.component(self.plan, &inventory).map(|found| found.version.clone()))
    }

    /// Whether the device has the wanted version already. If it is not certain to run, `verify` finds out: the device
    /// must not be given the package again.
    async fn is_there(&self, context: &Context) -> Result<bool, BmcError> {
        Ok(self.version(context).await?.is_some_and(|version| self.plan.ends_with(&version)))
    }

    /// What the device shows of the hand-over since `lost`. `settled`: it would have shown by now.
    async fn look_for_traces(
        &mut self,
        context: &Context,
        lost: &LostHandover,
        settled: bool,
    ) -> Result<Probe, BmcError> {
        let mark = lost.log_mark;
        let now = context.line.jobs().await?;
        let log = match mark {
            Some(mark) => Some(context.line.log_since(mark).await?),
            None => None,
        };
        let plan = self.plan;
        match trace(&lost.before, &now, log.as_ref(), &plan.component, &plan.component_name) {
            // The other one of two hand-overs may still be on its way into the queue.
            Trace::Job(_) if lost.again && !settled => Ok(Probe::NotStarted),
            Trace::Job(id) => {
                self.state.job = Some(JobRef { id: Some(id.clone()), path: None, log_mark: mark });
                Ok(Probe::Done(json!({ "job": id, "found_by": "set_difference" })))
            }
            Trace::Foreign(what) => Ok(Probe::Foreign(what)),
            Trace::Several(what) if !self.is_there(context).await? => Ok(Probe::Ambiguous(what)),
            Trace::Nothing if !self.is_there(context).await? => Ok(match lost.again {
                true => Probe::Ambiguous("it was handed over twice, and no job has shown up".into()),
                false => Probe::NotStarted,
            }),
            Trace::Several(_) | Trace::Nothing => {
                self.state.up_to_date = true;
                Ok(Probe::Done(json!({ "version": self.plan.to, "found_by": "version" })))
            }
        }
    }

    /// The first hand-over without an answer, with what this one says.
    fn lost(&mut self, intent: &Intent) -> LostHandover {
        let ids = intent.before.get("jobs").and_then(Value::as_array).cloned().unwrap_or_default();
        let again = intent.before.get("again").and_then(Value::as_bool).unwrap_or_default();
        let lost = self.state.lost.get_or_insert_with(|| LostHandover {
            before: ids.iter().filter_map(|id| id.as_str().map(str::to_owned)).collect(),
            log_mark: intent.before.get("log_mark").and_then(Value::as_u64),
            again,
        });
        lost.again |= again;
        lost.clone()
    }

    /// Taken without a name: waits until the queue tells which job it is. It is never handed over again.
    async fn find_unnamed(&mut self, context: &Context) -> Result<Probe, BmcError> {
        let settled = context.waited("unnamed") > late_visibility(context);
        let lost = self.state.lost.clone().unwrap_or_default();
        Ok(match self.look_for_traces(context, &lost, settled).await? {
            Probe::Done(evidence) => Probe::Done(evidence),
            Probe::NotStarted | Probe::Ambiguous(_) | Probe::Foreign(_) if !settled => Probe::InFlight {
                reason: "device_job",
                detail: format!("{} took the package; its job is not visible yet", context.server()),
                percent: None,
            },
            Probe::NotStarted => Probe::Ambiguous("it took the package and shows no job".into()),
            Probe::Foreign(what) => Probe::Ambiguous(what),
            other => other,
        })
    }

    /// A job that the device has to carry out, or may be carrying out.
    async fn live_job(&self, context: &Context) -> Result<Option<String>, BmcError> {
        let live = context.line.jobs().await?.into_iter().find(|job| job.phase.is_live());
        Ok(live.map(|job| format!("device job {} ({})", job.id, job.name)))
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
        late_visibility(context)
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
        let lost = intent.map(|intent| self.lost(intent));
        if lost.is_none() && self.state.unnamed {
            return self.find_unnamed(context).await;
        }
        ready(context).await?;
        if let Some(lost) = lost {
            let settled = context.intent_age(self.window(context)) == IntentAge::Settled;
            return Ok(match self.look_for_traces(context, &lost, settled).await? {
                // A BMC that was away meanwhile shows its queue later than it answers.
                Probe::NotStarted if settled && !context.has_shown_all() => makes_sure(context),
                found => found,
            });
        }
        if let Some(lost) = self.state.lost.clone() {
            // Nothing had shown up within its time. It may have by now.
            let found = self.look_for_traces(context, &lost, true).await?;
            if found != Probe::NotStarted {
                return Ok(found);
            }
            if !context.has_shown_all() {
                return Ok(makes_sure(context));
            }
        }
        Ok(self.live_job(context).await?.map_or(Probe::NotStarted, Probe::Foreign))
    }

    async fn prepare(&mut self, context: &mut Context) -> Result<Prepared, Unprepared> {
        let package = &self.plan.package;
        let server = context.server().to_owned();
        let bytes = context.shared.packages.repository.get(package).await.map_err(|error| match error {
            PackageError::Coming(why) => Unprepared::Bmc(not_ready(why)),
            error => unavailable(&error, &package.name, &server).into(),
        })?;
        // Looked at again, however long the package took.
        let Some(found) = self.version(context).await? else {
            // `check` has seen it: a BMC that has just started shows its rows one by one.
            return Err(not_ready(format!("{} is not in the inventory", self.plan.component_name)).into());
        };
        if !self.plan.starts_from(&found) {
            return Err(fault(
                ErrorCode::VersionDrift,
                format!(
                    "{server} shows {} {found} now, but the plan was made for {}. Nothing was handed over.",
                    self.plan.component_name, self.plan.from
                ),
                Value::Null,
            )
            .into());
        }
        let queue = context.line.jobs().await?;
        if let Some(job) = queue.iter().find(|job| job.phase.is_live()) {
            let detail = format!("device job {} ({})", job.id, job.name);
            return Err(BmcError::new(BmcErrorKind::ForeignJob, detail).into());
        }
        let mut log_mark = match context.line.log_mark().await {
            Err(error) if error.kind == BmcErrorKind::Unsupported => None,
            other => other?,
        };
        self.before = evidence::ids(&queue);
        if let Some(lost) = &self.state.lost {
            self.before.clone_from(&lost.before);
            log_mark = lost.log_mark;
        }
        if json!(self.before).to_string().len() > MAX_QUEUE_BYTES {
            return Err(fault(
                ErrorCode::DeviceUnsupported,
                format!(
                    "{server} lists {} device jobs. After a lost answer they could not be told from the update's own. \
                     Nothing was handed over. Clear old jobs from its queue, then retry.",
                    self.before.len()
                ),
                Value::Null,
            )
            .into());
        }
        let again = self.state.lost.is_some();
        let support = &self.state.support;
        let http_pull =
            support.simple_update && (support.protocols.is_empty() || support.protocols.contains("HTTP"));
        let (handover, upload) = if support.multipart_push {
            (Handover::Push { file_name: package.file_name.clone(), bytes }, true)
        } else if http_pull {
            let Some(publisher) = &context.shared.packages.publisher else {
                return Err(fault(
                    ErrorCode::PolicyRefused,
                    format!("{server} fetches packages itself, and this executor has no `package_listen` in policy.toml to serve them from. Nothing was handed over."),
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
            before: json!({
                "jobs": self.before, "log_mark": log_mark, "version": self.plan.from, "again": again,
            }),
            limit: if upload { context.timing().upload } else { context.short_limit() },
            upload,
            effect: Some(intended(BMC_JOB, &self.plan.component, Value::Null, json!({ "job": null }))),
        })
    }

    async fn act(&mut self, context: &Context, permit: MutationPermit) -> Result<Value, BmcError> {
        let Some(request) = self.request.take() else {
            return Err(BmcError::new(BmcErrorKind::Refused, "nothing was prepared"));
        };
        // The acknowledgement may have taken its time. A device that is not ready need not show its whole queue.
        ready(context).await?;
        if let Some(job) = self.live_job(context).await? {
            return Err(BmcError::new(BmcErrorKind::ForeignJob, job));
        }
        let log_mark = request.log_mark;
        let staged = context.line.stage(permit, request).await?;
        if let Some(lost) = &mut self.state.lost {
            lost.again = true;
        }
        self.state.stages += 1;
        match staged {
            Staged::Started(job) => {
                let answer = json!({ "job": job.id });
                self.state.job = Some(JobRef { log_mark: job.log_mark.or(log_mark), ..job });
                Ok(answer)
            }
            Staged::Unnamed => {
                self.state.unnamed = true;
                let before = std::mem::take(&mut self.before);
                self.state.lost.get_or_insert(LostHandover { before, log_mark, again: false });
                Ok(json!({ "job": null }))
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
    let wanted = job_wanted(id.as_deref(), state.lost.is_some());
    if effect.wanted == wanted && effect.state == named {
        return Ok(());
    }
    context.report_effect(Effect { wanted, state: named, ..effect }).await
}
