//! Before anything is changed: is the server what the plan says, is it ready, and is the package at hand?

use std::time::Duration;

use rackhand_schema::{ErrorCode, protocol::Intent};
use serde_json::{Value, json};

use super::{CHECK, MAX_KEYS, PACKAGE, Planned, State, mark_of};
use crate::{
    bmc::{BmcError, Via},
    broker::Pick,
    engine::{Activity, Context, Interrupt, Probe, fault},
    package::{PackageError, cache::SLOWEST},
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
        if plan.ends_with(&found.version) {
            if let Some(detail) = plan.doubt(found, &inventory) {
                return Ok(Probe::NotReady { reason: "inventory", detail });
            }
            return Ok(Probe::Done(json!({ "already": found.version, "component": plan.component })));
        }
        if !plan.starts_from(&found.version) {
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
        // Dell's keys name slots and stay. Elsewhere they may be hashes of the version, which an update replaces.
        if !inventory.vendor.as_deref().is_some_and(|vendor| vendor.contains("Dell")) {
            let listed = inventory.components.len();
            if listed > MAX_KEYS {
                return Ok(Probe::Impossible(fault(
                    ErrorCode::DeviceUnsupported,
                    format!(
                        "{server} lists {listed} components, and an update may give one of them another name. Of more \
                         than {MAX_KEYS} that could not be read back. Nothing was changed."
                    ),
                    Value::Null,
                )));
            }
            self.state.keys = inventory.components.iter().map(|found| mark_of(&found.key)).collect();
        }
        self.state.support = context.line.update_support().await?;
        self.state.power = Some(context.line.power(Pick::Only(Via::Redfish)).await?.1);
        Ok(Probe::Done(evidence))
    }
}

/// Has the package fetched and checked.
pub struct Package<'a> {
    plan: &'a Planned,
    state: &'a State,
}

impl<'a> Package<'a> {
    pub fn new(plan: &'a Planned, state: &'a State) -> Self {
        Self { plan, state }
    }
}

impl Activity for Package<'_> {
    fn phase(&self) -> &'static str {
        PACKAGE
    }

    fn interrupt(&self) -> Interrupt {
        Interrupt::Cancellable
    }

    fn state(&self) -> Value {
        json!(self.state)
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let package = &self.plan.package;
        let error = match context.shared.packages.repository.get(package).await {
            Ok(bytes) => {
                return Ok(Probe::Done(json!({ "sha256": package.sha256, "bytes": bytes.len() })));
            }
            // It is on its way, or waits for others that are; until then a person may cancel.
            Err(error @ PackageError::Coming(_)) if context.waited("fetch") < longest(package.size) => {
                let detail = format!("{} {error}", package.name);
                return Ok(Probe::InFlight { reason: "package", detail, percent: None });
            }
            Err(error) => error,
        };
        let patient = context.waited("package") < context.timing().settle * 3;
        if patient && matches!(error, PackageError::Unreachable(_)) {
            return Ok(Probe::NotReady { reason: "package", detail: error.to_string() });
        }
        Ok(Probe::Impossible(unavailable(&error, &package.name, context.server())))
    }
}

/// How long a run waits for a package of `size` bytes: as long as the slowest fetch of it takes, and two hours for
/// those before it.
fn longest(size: u64) -> Duration {
    Duration::from_secs(2 * 3600 + size / SLOWEST)
}

/// How a run ends without its package.
pub fn unavailable(error: &PackageError, package: &str, server: &str) -> rackhand_schema::protocol::Finish {
    let code = match error {
        PackageError::Unreachable(_) | PackageError::Coming(_) => ErrorCode::PackageUnreachable,
        PackageError::Mismatch(_) => ErrorCode::PackageMismatch,
        PackageError::Refused(_) => ErrorCode::PolicyRefused,
    };
    let text = format!("The package {package} for {server} {error}. Nothing was handed to the device.");
    fault(code, text, Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_keeps_a_package_away_is_a_sentence() {
        let said = |error| unavailable(&error, "BIOS 1.15.2", "bmc-03").detail;
        assert_eq!(
            said(PackageError::Refused("`package_hosts` does not list repo".into())),
            "The package BIOS 1.15.2 for bmc-03 is forbidden by the executor's policy: `package_hosts` does not list repo. \
             Nothing was handed to the device."
        );
        let said = said(PackageError::Unreachable("no answer".into()));
        assert!(
            said.starts_with("The package BIOS 1.15.2 for bmc-03 cannot be fetched: no answer."),
            "{said}"
        );
    }
}
