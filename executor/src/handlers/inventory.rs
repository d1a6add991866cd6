//! `inventory`: reads identity, power, health and firmware, and reports what could be read.
//!
//! Changes nothing. What cannot be read is named in `unreadable`; only a BMC that does not answer at all fails.

use std::time::Duration;

use rackhand_schema::{
    protocol::{Finish, Intent},
    run::Outcome,
    server::Inventory,
};
use serde_json::{Value, json};

use crate::{
    bmc::{BmcError, Via},
    engine::{Activity, Context, Ended, Probe, Stop, fault, perform, success},
    text,
};

#[derive(Default)]
struct Read {
    found: Option<Inventory>,
}

impl Activity for Read {
    fn phase(&self) -> &'static str {
        "read"
    }

    fn state(&self) -> Value {
        json!({})
    }

    fn outage(&self, context: &Context) -> Duration {
        context.timing().power_change
    }

    async fn probe(&mut self, context: &Context, _intent: Option<&Intent>) -> Result<Probe, BmcError> {
        let (via, inventory) = context.line.inventory().await?;
        let inventory = cleaned(inventory);
        // A BMC that has just started answers in part. What identifies the server and its firmware gets another
        // chance before "unreadable" is the answer.
        let essential = inventory.model.is_some() && !inventory.components.is_empty();
        // Dell's services come up one by one, for minutes. Another vendor's may simply not have these parts.
        let may_come =
            via == Via::Redfish && inventory.vendor.as_deref().is_none_or(|vendor| vendor.contains("Dell"));
        if !essential && may_come && context.waited("reading") < context.timing().power_change {
            let missing: Vec<_> =
                inventory.unreadable.iter().map(|(what, why)| format!("{what} ({why})")).collect();
            return Ok(Probe::InFlight {
                reason: "reading",
                detail: format!("{} does not show everything yet: {}", context.server(), missing.join(", ")),
                percent: None,
            });
        }
        let evidence = json!({
            "via": via,
            "model": inventory.model,
            "service_tag": inventory.service_tag,
            "components": inventory.components.len(),
            "unreadable": inventory.unreadable,
        });
        self.found = Some(inventory);
        Ok(Probe::Done(evidence))
    }
}

pub async fn run(context: &mut Context) -> Result<Finish, Stop> {
    let mut read = Read::default();
    Ok(match perform(context, &mut read).await? {
        Ended::Done(evidence) => {
            let unreadable: Vec<_> =
                read.found.iter().flat_map(|found| found.unreadable.keys().cloned()).collect();
            if let Some(found) = read.found {
                context.inventory(found).await?;
            }
            let server = context.server();
            let detail = match unreadable.as_slice() {
                [] => format!("Read everything from {server}."),
                few if few.len() <= 5 => {
                    format!("Read {server}, except: {}.", text::within(&few.join(", "), 300))
                }
                many => format!("Read {server}, except {} parts that its page names.", many.len()),
            };
            success(Outcome::Succeeded, detail, evidence)
        }
        Ended::Finish(finish) => finish,
        Ended::Cancelled => cancelled(context, "Nothing was changed."),
    })
}

/// Reports what the server looks like after a change. A BMC that cannot be read right now keeps its old inventory.
pub(super) async fn refresh(context: &mut Context) -> Result<(), Stop> {
    match context.line.inventory().await {
        Ok((_, found)) => context.inventory(cleaned(found)).await,
        Err(error) => {
            tracing::info!(%error, "the server was not read after the change");
            Ok(())
        }
    }
}

pub(super) fn cancelled(context: &Context, done: &str) -> Finish {
    let detail = format!("Cancelled on {}. {done}", context.server());
    fault(rackhand_schema::ErrorCode::CancelledByPerson, detail, Value::Null)
}

/// Device text made safe at its source.
pub fn cleaned(inventory: Inventory) -> Inventory {
    let tidy = |text: Option<String>| text.map(|text| text::clean(&text));
    Inventory {
        vendor: tidy(inventory.vendor),
        model: tidy(inventory.model),
        service_tag: tidy(inventory.service_tag),
        uuid: tidy(inventory.uuid),
        generation: tidy(inventory.generation),
        bmc_version: tidy(inventory.bmc_version),
        components: inventory
            .components
            .into_iter()
            .map(|component| rackhand_schema::server::FirmwareComponent {
                key: text::clean(&component.key),
                name: text::clean(&component.name),
                software_id: tidy(component.software_id),
                version: text::clean(&component.version),
                updateable: component.updateable,
                inactive: tidy(component.inactive),
                of_bmc: component.of_bmc,
            })
            .collect(),
        capabilities: inventory.capabilities.iter().map(|text| text::clean(text)).collect(),
        unreadable: inventory
            .unreadable
            .iter()
            .map(|(what, why)| (text::clean(what), text::clean(why)))
            .collect(),
        power: inventory.power,
        health: inventory.health,
    }
}
