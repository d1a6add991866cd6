//! What a Redfish service tells about its server. What cannot be read is named; only a BMC that does not answer fails.

use rackhand_redfish::{Class, Error, FirmwareRow, UpdateSemantics, update_semantics};
use rackhand_schema::server::{FirmwareComponent, Health, Inventory, PowerState};

use super::{RedfishBmc, power};

/// Stable key of a firmware row: Dell's device name, or the row's own id.
fn component(row: rackhand_redfish::FirmwareComponent) -> Option<FirmwareComponent> {
    if !matches!(row.row, FirmwareRow::Installed | FirmwareRow::Plain) {
        return None;
    }
    Some(FirmwareComponent {
        key: row.fqdd.unwrap_or(row.id),
        name: row.name,
        software_id: row.software_id,
        version: row.version?,
        updateable: row.updateable.unwrap_or(false),
    })
}

/// Whether an error is about the way to the BMC and not about the part that was asked for: then nothing was read,
/// and "unreadable" would be a wrong answer.
fn says_nothing(error: &Error) -> bool {
    matches!(
        error.class(),
        Class::Auth
            | Class::AuthWithheld { .. }
            | Class::Untrusted
            | Class::SessionLimit
            | Class::NotSent
            | Class::GoneForReset
    )
}

impl RedfishBmc {
    pub(super) async fn read_inventory(&self) -> Result<Inventory, Error> {
        let client = &self.client;
        let mut identity = client.identity().await?;
        if let Some(part) = identity.unreadable.iter().position(|part| says_nothing(&part.error)) {
            return Err(identity.unreadable.swap_remove(part).error);
        }
        let mut unreadable: std::collections::BTreeMap<String, String> =
            identity.unreadable.iter().map(|part| (part.what.clone(), part.error.to_string())).collect();
        let mut missing = |what: &str, error: &Error| {
            unreadable.insert(what.to_owned(), error.to_string());
        };
        let mut state = PowerState::Unknown;
        let mut health = Health::Unknown;
        match client.system().await {
            Ok(system) => {
                state = power(&system.power);
                health = super::health(system.health_rollup.max(system.health));
            }
            Err(error) if says_nothing(&error) => return Err(error),
            Err(error) => missing("system", &error),
        }
        let mut components = Vec::new();
        match client.firmware_inventory().await {
            Ok(inventory) => {
                for part in &inventory.unreadable {
                    missing(&part.what, &part.error);
                }
                components.extend(inventory.components.into_iter().filter_map(component));
                components.sort_by(|a, b| a.key.cmp(&b.key));
                components.dedup_by(|a, b| a.key == b.key);
            }
            Err(error) if says_nothing(&error) => return Err(error),
            Err(error) => missing("firmware", &error),
        }
        let boot = match client.boot().await {
            Ok(_) => true,
            Err(error) if says_nothing(&error) => return Err(error),
            Err(_) => false,
        };
        let mut capabilities = Vec::new();
        match client.capabilities().await {
            Ok(declared) => {
                let words = [
                    ("simple_update", declared.simple_update.is_some()),
                    ("multipart_update", declared.multipart_push.is_some()),
                    ("job_queue", declared.oem_jobs.is_some() || declared.jobs.is_some()),
                    ("task_service", declared.tasks.is_some()),
                    ("lifecycle_log", declared.lifecycle_log.is_some()),
                    ("readiness", declared.readiness.is_some()),
                    ("sessions", declared.sessions.is_some()),
                    ("power", !declared.reset_kinds.is_empty()),
                    ("boot_override", boot),
                    (
                        "apply_on_reset",
                        declared.push_apply_times.contains(&rackhand_redfish::ApplyTime::OnReset),
                    ),
                    (
                        "update_restarts_host",
                        update_semantics(&identity, &declared) == UpdateSemantics::RebootsByItself,
                    ),
                ];
                capabilities.extend(words.iter().filter(|(_, has)| *has).map(|(word, _)| (*word).to_owned()));
            }
            Err(error) if says_nothing(&error) => return Err(error),
            Err(error) => missing("capabilities", &error),
        }
        Ok(Inventory {
            vendor: identity.vendor,
            model: identity.model,
            service_tag: identity.service_tag,
            generation: Some(identity.generation.to_string().to_lowercase()),
            bmc_version: identity.bmc_version,
            power: state,
            health,
            components,
            capabilities,
            unreadable,
        })
    }
}
