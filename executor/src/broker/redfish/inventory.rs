//! What a Redfish service tells about its server. What cannot be read is named; only a BMC that does not answer fails.

use std::{collections::BTreeMap, time::Duration};

use rackhand_redfish::{Class, Error, FirmwareRow, Unreadable, UpdateSemantics, update_semantics};
use rackhand_schema::{
    job::PowerAction,
    server::{FirmwareComponent, Health, Inventory, PowerState},
};
use tokio::time::{Instant, timeout_at};

use super::{RedfishBmc, power, reset_kind};
use crate::text;

/// A whole inventory ends within this, with what was read by then: before the broker gives up on the call.
const WHOLE: Duration = Duration::from_secs(8 * 60);

/// Whether a row speaks of what runs, not of what is kept beside it.
fn runs(row: &rackhand_redfish::FirmwareComponent) -> bool {
    matches!(row.row, FirmwareRow::Installed | FirmwareRow::Plain)
}

/// Stable key of a firmware row: Dell's device name, or the row's own id.
fn key(row: &rackhand_redfish::FirmwareComponent) -> &str {
    row.fqdd.as_deref().unwrap_or(&row.id)
}

/// `None`: its version is not told.
fn component(row: rackhand_redfish::FirmwareComponent) -> Option<FirmwareComponent> {
    Some(FirmwareComponent {
        key: key(&row).to_owned(),
        name: row.name,
        software_id: row.software_id,
        version: row.version?,
        updateable: row.updateable.unwrap_or(false),
        inactive: row.inactive.map(str::to_owned),
        of_bmc: row.of_bmc,
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

/// What is read of a part by `until`, or why it cannot be read.
///
/// # Errors
/// See [`says_nothing`].
async fn part<T>(
    until: Instant,
    reading: impl Future<Output = Result<T, Error>>,
) -> Result<Result<T, String>, Error> {
    match timeout_at(until, reading).await {
        Ok(Ok(read)) => Ok(Ok(read)),
        Ok(Err(error)) if says_nothing(&error) => Err(error),
        Ok(Err(error)) => Ok(Err(super::told(&error))),
        Err(_) => Ok(Err(format!("the inventory was not read within {} s", WHOLE.as_secs()))),
    }
}

/// Parts and why they cannot be read.
#[derive(Default)]
struct Missing(BTreeMap<String, String>);

impl Missing {
    fn note(&mut self, what: &str, why: String) {
        let known = self.0.entry(what.to_owned()).or_default();
        if known.is_empty() {
            *known = why;
        } else if !known.contains(&why) && known.len() < text::MAX_CHARS {
            known.push_str("; ");
            known.push_str(&why);
        }
    }

    fn note_all(&mut self, parts: &[Unreadable]) {
        for part in parts {
            self.note(&part.what, super::told(&part.error));
        }
    }

    /// What was read, if it was.
    fn keep<T>(&mut self, what: &str, read: Result<T, String>) -> Option<T> {
        read.map_err(|why| self.note(what, why)).ok()
    }
}

impl RedfishBmc {
    pub(super) async fn read_inventory(&self) -> Result<Inventory, Error> {
        let until = Instant::now() + WHOLE;
        let client = &self.client;
        let mut identity = client.identity().await?;
        if let Some(part) = identity.unreadable.iter().position(|part| says_nothing(&part.error)) {
            return Err(identity.unreadable.swap_remove(part).error);
        }
        let mut missing = Missing::default();
        missing.note_all(&identity.unreadable);
        let (mut state, mut health) = (PowerState::Unknown, Health::Unknown);
        if let Some(system) = missing.keep("system", part(until, client.system()).await?) {
            state = power(&system.power);
            health = super::health(system.health_rollup.max(system.health));
        } else if let Ok(report) = part(until, client.health()).await? {
            health = super::health(report.worst);
        }
        let mut components = Vec::new();
        if let Some(inventory) = missing.keep("firmware", part(until, client.firmware_inventory()).await?) {
            if inventory.names_all {
                missing.note_all(&inventory.unreadable);
            } else {
                // Rows have paths below the collection's; the others say why it is not known which rows there are.
                let (rows, why): (Vec<_>, Vec<_>) =
                    inventory.unreadable.into_iter().partition(|part| part.what.contains("Inventory/"));
                missing.note_all(&rows);
                for part in &why {
                    missing.note("firmware", format!("{}: {}", part.what, super::told(&part.error)));
                }
                if why.is_empty() {
                    missing.note("firmware", "not all of its rows were listed".to_owned());
                }
            }
            identity.bmc_version = identity.bmc_version.or(inventory.bmc_version);
            for row in inventory.components.into_iter().filter(runs) {
                let (path, key) = (row.path.clone(), key(&row).to_owned());
                match component(row) {
                    Some(component) => components.push(component),
                    // By the key under which it may be known already.
                    None => {
                        let what = if path.ends_with(&key) { &path } else { &key };
                        missing.note(what, "it tells no version".to_owned());
                    }
                }
            }
            components.sort_by(|a, b| (&a.key, &a.inactive).cmp(&(&b.key, &b.inactive)));
            components.dedup_by(|a, b| a.key == b.key);
        }
        let boot = part(until, client.boot()).await?.is_ok();
        let mut capabilities = Vec::new();
        if let Some(declared) = missing.keep("capabilities", part(until, client.capabilities()).await?) {
            missing.note_all(&declared.unreadable);
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
                ("apply_on_reset", declared.push_apply_times.contains(&rackhand_redfish::ApplyTime::OnReset)),
                (
                    "update_restarts_host",
                    update_semantics(&identity, &declared) == UpdateSemantics::RebootsByItself,
                ),
            ];
            capabilities.extend(words.iter().filter(|(_, has)| *has).map(|(word, _)| (*word).to_owned()));
            let actions = PowerAction::ALL.into_iter();
            let offered = actions.filter(|action| declared.reset_kinds.contains(&reset_kind(*action)));
            capabilities.extend(offered.map(|action| format!("power_{}", action.as_str())));
        }
        Ok(Inventory {
            vendor: identity.vendor,
            model: identity.model,
            service_tag: identity.service_tag,
            uuid: identity.uuid,
            generation: Some(identity.generation.to_string().to_lowercase()),
            bmc_version: identity.bmc_version,
            power: state,
            health,
            components,
            capabilities,
            unreadable: missing.0,
        })
    }
}
