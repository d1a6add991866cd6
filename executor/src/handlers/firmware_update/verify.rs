//! Done means read back: waits until the device is ready and shows the version.
//!
//! After a flash the inventory is stale, empty or unreadable for a while; an unreadable
//! version is never taken for an old one. Nor is a version that the BMC does not show to run taken for a new one.

use rackhand_schema::{ErrorCode, protocol::Intent};
use serde_json::{Value, json};

use super::{Planned, State, VERIFY};
use crate::{
    bmc::BmcError,
    engine::{Activity, Context, Interrupt, Probe, fault},
};

pub struct Verify<'a> {
    plan: &'a Planned,
    state: &'a State,
}

impl<'a> Verify<'a> {
    pub fn new(plan: &'a Planned, state: &'a State) -> Self {
        Self { plan, state }
    }
}

impl Activity for Verify<'_> {
    fn phase(&self) -> &'static str {
        VERIFY
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::Never
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let readiness = context.line.readiness().await?;
        if !readiness.ready {
            return Ok(Probe::NotReady { reason: "lifecycle_controller", detail: readiness.detail });
        }
        let patient = context.waited("reading_back") < context.timing().verify;
        let inventory = context.line.firmware_inventory().await?;
        let (plan, server) = (self.plan, context.server());
        let found = self.state.component(plan, &inventory);
        let evidence = json!({
            "component": found.map_or(&plan.component, |found| &found.key),
            "version": found.map(|found| &found.version),
        });
        let shown = found.filter(|found| plan.ends_with(&found.version));
        let doubt = shown.and_then(|found| plan.doubt(found, &inventory));
        match found {
            Some(_) if let Some(doubt) = doubt => Ok(if patient {
                let detail = format!("{server}: {doubt}");
                Probe::InFlight { reason: "reading_back", detail, percent: None }
            } else {
                Probe::Impossible(fault(
                    ErrorCode::OutcomeUnknown,
                    format!(
                        "{server}: the device job ended, but {doubt}. Nothing was repeated. Take an inventory \
                         when the device has settled."
                    ),
                    evidence,
                ))
            }),
            Some(_) if shown.is_some() => Ok(Probe::Done(evidence)),
            _ if patient => Ok(Probe::InFlight {
                reason: "reading_back",
                detail: match found {
                    Some(found) => format!("{server} still shows {}", found.version),
                    None => format!("{server} does not show {} yet", plan.component),
                },
                percent: None,
            }),
            // It took the package, named a job and never showed it: the job may still come.
            Some(_) if self.state.job.is_some() && !self.state.seen => Ok(Probe::Ambiguous(format!(
                "the device job has never shown up, and {} is not {} yet",
                plan.component_name, plan.to
            ))),
            Some(found) => {
                let pending = if self.state.progress.contains("RebootPending") {
                    " The device says that it wants another restart."
                } else {
                    ""
                };
                Ok(Probe::Impossible(fault(
                    ErrorCode::VersionNotReached,
                    format!(
                        "{server}: the device job ended, but {} is {} instead of {}.{pending} Look at the job's messages.",
                        plan.component_name, found.version, plan.to
                    ),
                    evidence,
                )))
            }
            None => Ok(Probe::Impossible(fault(
                ErrorCode::OutcomeUnknown,
                format!(
                    "{server}: the device job ended, but the version of {} cannot be read back. Nothing was repeated. Take an inventory when it is readable.",
                    plan.component_name
                ),
                json!({ "unreadable": inventory.unreadable }),
            ))),
        }
    }
}
