//! Done means read back: waits until the device is ready and shows the version.
//!
//! After a flash the inventory is stale, empty or unreadable for a while (FAILURE-MODES D20, D21); an unreadable
//! version is never taken for an old one.

use std::time::Duration;

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
    since: Option<Duration>,
}

impl<'a> Verify<'a> {
    pub fn new(plan: &'a Planned, state: &'a State) -> Self {
        Self { plan, state, since: None }
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
        let since = *self.since.get_or_insert(context.now());
        let patient = context.now().saturating_sub(since) < context.timing().verify;
        let inventory = context.line.firmware_inventory().await?;
        let (plan, server) = (self.plan, context.server());
        let found = inventory.components.iter().find(|component| component.key == plan.component);
        let evidence = json!({ "component": plan.component, "version": found.map(|found| &found.version) });
        match found {
            Some(found) if found.version == plan.to => Ok(Probe::Done(evidence)),
            _ if patient => Ok(Probe::InFlight {
                reason: "reading_back",
                detail: match found {
                    Some(found) => format!("{server} still shows {}", found.version),
                    None => format!("{server} does not show {} yet", plan.component),
                },
                percent: None,
            }),
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
