//! Before anything is changed: is the server what the plan says, is it ready, and is the package at hand?

use std::time::Duration;

use rackhand_schema::{ErrorCode, protocol::Intent};
use serde_json::{Value, json};

use super::{CHECK, PACKAGE, Planned, State};
use crate::{
    bmc::BmcError,
    engine::{Activity, Context, Probe, fault},
    handlers::settle::host_power,
    package::PackageError,
};

/// Compares the device with the approved plan. Changes nothing.
pub struct Check<'a> {
    pub plan: &'a Planned,
    pub state: &'a mut State,
}

impl Activity for Check<'_> {
    fn phase(&self) -> &'static str {
        CHECK
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let readiness = context.line.readiness().await?;
        if !readiness.ready {
            return Ok(Probe::NotReady { reason: "lifecycle_controller", detail: readiness.detail });
        }
        let inventory = context.line.firmware_inventory().await?;
        if let Some(why) = inventory.unreadable.get("firmware") {
            return Ok(Probe::NotReady { reason: "inventory", detail: why.clone() });
        }
        let (plan, server) = (self.plan, context.server());
        let found = inventory.components.iter().find(|component| component.key == plan.component);
        let Some(found) = found else {
            return Ok(Probe::Impossible(fault(
                ErrorCode::ComponentMissing,
                format!(
                    "{server} shows no component {}. Nothing was changed. Take a new inventory and plan again.",
                    plan.component
                ),
                json!({ "component": plan.component }),
            )));
        };
        let evidence = json!({ "component": plan.component, "version": found.version });
        if found.version == plan.to {
            return Ok(Probe::Done(json!({ "already": found.version, "component": plan.component })));
        }
        if found.version != plan.from {
            return Ok(Probe::Impossible(fault(
                ErrorCode::VersionDrift,
                format!(
                    "{server} has {} {}, but the plan was made for {}. Nothing was changed. Plan again.",
                    plan.component_name, found.version, plan.from
                ),
                evidence,
            )));
        }
        let live = context.line.jobs().await?.into_iter().find(|job| job.phase.is_live());
        if let Some(job) = live {
            return Ok(Probe::Foreign(format!("device job {} ({})", job.id, job.name)));
        }
        self.state.support = context.line.update_support().await?;
        self.state.power = Some(host_power(context).await?);
        Ok(Probe::Done(evidence))
    }
}

/// Has the package fetched and checked.
pub struct Package<'a> {
    plan: &'a Planned,
    state: &'a State,
    since: Option<Duration>,
}

impl<'a> Package<'a> {
    pub fn new(plan: &'a Planned, state: &'a State) -> Self {
        Self { plan, state, since: None }
    }
}

impl Activity for Package<'_> {
    fn phase(&self) -> &'static str {
        PACKAGE
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let package = &self.plan.package;
        let since = *self.since.get_or_insert(context.now());
        let error = match context.shared.packages.repository.get(package).await {
            Ok(bytes) => {
                return Ok(Probe::Done(json!({ "sha256": package.sha256, "bytes": bytes.len() })));
            }
            Err(error) => error,
        };
        let patient = context.now().saturating_sub(since) < context.timing().settle * 3;
        if patient && matches!(error, PackageError::Unreachable(_)) {
            return Ok(Probe::NotReady { reason: "package", detail: error.to_string() });
        }
        Ok(Probe::Impossible(unavailable(&error, &package.name, context.server())))
    }
}

/// How a run ends without its package.
pub fn unavailable(error: &PackageError, package: &str, server: &str) -> rackhand_schema::protocol::Finish {
    let code = match error {
        PackageError::Unreachable(_) => ErrorCode::PackageUnreachable,
        PackageError::Mismatch(_) => ErrorCode::PackageMismatch,
        PackageError::Refused(_) => ErrorCode::PolicyRefused,
    };
    let text = format!("The package {package} for {server} {error}. Nothing was handed to the device.");
    fault(code, text, Value::Null)
}
