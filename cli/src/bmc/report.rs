//! What `bmc inspect` found, as text and as JSON.

use rackhand_redfish::{
    Capabilities, Class, Client, Error, FirmwareInventory, FirmwareRow, Health, HealthReport, Identity,
    Message, System, Unreadable, UpdateSemantics, update_semantics,
};
use serde::Serialize;
use tokio::time::{Instant, error::Elapsed, timeout_at};

use super::{chain, survey::Ipmi};
use crate::output::{Output, dash, printable, word};

/// The JSON of `bmc inspect --json`. Stable: members are only added.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub url: String,
    /// SHA-256 of the service's public key, hex: the value for `--pin` and for `servers add --pin`.
    pub spki_sha256: Option<String>,
    pub vendor: Option<String>,
    pub model: Option<String>,
    pub service_tag: Option<String>,
    pub serial: Option<String>,
    pub uuid: Option<String>,
    pub host_name: Option<String>,
    pub generation: Option<String>,
    pub bmc_model: Option<String>,
    pub bmc_version: Option<String>,
    pub bios_version: Option<String>,
    pub redfish_version: Option<String>,
    pub power: Option<String>,
    pub health: Option<String>,
    /// Parts that are not well.
    pub ailing: Vec<Part>,
    pub capabilities: Vec<String>,
    /// How an update reaches the hardware: `staged`, `reboots_by_itself` or `unknown`.
    pub update_semantics: Option<String>,
    pub reset_kinds: Vec<String>,
    pub firmware: Vec<Firmware>,
    /// Whether every declared piece of firmware is listed.
    pub firmware_complete: bool,
    pub unreadable: Vec<Missing>,
    /// The vendor whose default password the account still has.
    pub default_password: Option<&'static str>,
    /// What IPMI on the same host tells without a login; none when nothing answers there.
    pub ipmi: Option<Ipmi>,
}

#[derive(Debug, Serialize)]
pub struct Part {
    pub path: String,
    pub name: String,
    pub health: String,
    /// Why, in the device's words.
    pub why: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Firmware {
    /// The device where the vendor names it, else the row's id.
    pub component: String,
    pub name: String,
    pub version: Option<String>,
    pub software_id: Option<String>,
    pub updateable: Option<bool>,
    pub row: String,
    /// The state in which the BMC says that this version does not run.
    pub inactive: Option<&'static str>,
}

#[derive(Debug, Serialize)]
pub struct Missing {
    pub what: String,
    pub why: String,
}

/// Reads everything that can be read until `end`; the report names what was not. Only a service that gives nothing
/// at all, or refuses the password, is an error. None: not even the service's identity was read in time.
pub async fn read(client: &Client, end: Instant) -> Result<Option<Report>, Error> {
    let mut report = Report::default();
    let Ok(identity) = timeout_at(end, client.identity()).await else { return Ok(None) };
    let identity = identity?;
    report.identify(&identity);
    let capabilities = report.keep("capabilities", timeout_at(end, client.capabilities()).await)?;
    if let Some(capabilities) = &capabilities {
        report.declare(&identity, capabilities);
    }
    if let Some(system) = report.keep("system", timeout_at(end, client.system()).await)? {
        report.power(&system);
    }
    if let Some(health) = report.keep("health", timeout_at(end, client.health()).await)? {
        report.health(health);
    }
    if let Some(firmware) =
        report.keep("firmware inventory", timeout_at(end, client.firmware_inventory()).await)?
    {
        report.list(firmware);
    }
    let mut seen: Vec<(String, String)> = Vec::new();
    report.unreadable.retain(|missing| {
        let key = (missing.what.clone(), missing.why.clone());
        let fresh = !seen.contains(&key);
        seen.push(key);
        fresh
    });
    Ok(Some(report))
}

impl Report {
    /// A part that cannot be read, or not in time, is noted; a refused password ends it all.
    fn keep<T>(&mut self, what: &str, read: Result<Result<T, Error>, Elapsed>) -> Result<Option<T>, Error> {
        let Ok(read) = read else {
            self.unreadable.push(Missing { what: what.to_owned(), why: "not read in time".to_owned() });
            return Ok(None);
        };
        match read {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.class(), Class::AuthWithheld { .. } | Class::Untrusted) => {
                Err(error)
            }
            Err(error) => {
                self.unreadable.push(Missing { what: what.to_owned(), why: chain(&error) });
                Ok(None)
            }
        }
    }

    fn note(&mut self, unreadable: &[Unreadable]) {
        let notes = unreadable.iter();
        self.unreadable
            .extend(notes.map(|part| Missing { what: part.what.clone(), why: chain(&part.error) }));
    }

    fn identify(&mut self, identity: &Identity) {
        self.vendor = identity.vendor.clone();
        self.model = identity.model.clone();
        self.service_tag = identity.service_tag.clone();
        self.serial = identity.serial.clone();
        self.uuid = identity.uuid.clone();
        self.generation = Some(word(&identity.generation)).filter(|name| name != "other");
        self.bmc_model = identity.bmc_model.clone();
        self.bmc_version = identity.bmc_version.clone();
        self.bios_version = identity.bios_version.clone();
        self.redfish_version = identity.redfish_version.clone();
        self.note(&identity.unreadable);
    }

    fn declare(&mut self, identity: &Identity, capabilities: &Capabilities) {
        let declared = [
            ("simple_update", capabilities.simple_update.is_some()),
            ("multipart_update", capabilities.multipart_push.is_some()),
            ("http_push", capabilities.http_push.is_some()),
            ("job_queue", capabilities.oem_jobs.is_some() || capabilities.jobs.is_some()),
            ("tasks", capabilities.tasks.is_some()),
            ("lifecycle_log", capabilities.lifecycle_log.is_some()),
            ("readiness", capabilities.readiness.is_some()),
            ("sessions", capabilities.sessions.is_some()),
        ];
        self.capabilities =
            declared.into_iter().filter(|(_, has)| *has).map(|(name, _)| name.to_owned()).collect();
        self.reset_kinds = capabilities.reset_kinds.iter().map(|kind| kind.as_str().to_owned()).collect();
        let updates = capabilities.simple_update.is_some()
            || capabilities.multipart_push.is_some()
            || capabilities.http_push.is_some();
        self.update_semantics = updates.then(|| word(&update_semantics(identity, capabilities)));
        self.note(&capabilities.unreadable);
    }

    fn power(&mut self, system: &System) {
        self.power = Some(word(&system.power));
        self.host_name = system.host_name.clone();
        self.health = Some(word(&system.health.max(system.health_rollup)));
    }

    fn health(&mut self, health: HealthReport) {
        self.health = Some(word(&health.worst));
        self.note(&health.unreadable);
        let ailing = health.parts.into_iter().filter(|part| part.health >= Health::Warning);
        self.ailing = ailing
            .map(|part| Part {
                why: part.conditions.iter().map(reason).collect(),
                path: part.path,
                name: part.name,
                health: word(&part.health),
            })
            .collect();
    }

    fn list(&mut self, inventory: FirmwareInventory) {
        self.firmware_complete = inventory.complete;
        self.bmc_version = self.bmc_version.take().or(inventory.bmc_version);
        self.note(&inventory.unreadable);
        // Dell lists what runs twice, as Installed and as Current.
        let rows = inventory.components.into_iter().filter(|row| row.row != FirmwareRow::Current);
        self.firmware = rows
            .map(|row| Firmware {
                component: row.fqdd.unwrap_or(row.id),
                name: row.name,
                version: row.version,
                software_id: row.software_id,
                updateable: row.updateable,
                row: word(&row.row),
                inactive: row.inactive,
            })
            .collect();
        self.firmware
            .sort_by(|left, right| (&left.component, &left.row).cmp(&(&right.component, &right.row)));
    }

    pub fn render(&self, out: Output) -> String {
        let list =
            |items: &[String]| if items.is_empty() { "none declared".to_owned() } else { items.join(" ") };
        let semantics = |semantics: &String| match semantics {
            staged if *staged == word(&UpdateSemantics::Staged) => "staged until a reboot".to_owned(),
            itself if *itself == word(&UpdateSemantics::RebootsByItself) => {
                "the BMC restarts the host automatically".to_owned()
            }
            _ => "unknown; expect a restart of the host".to_owned(),
        };
        let rows = [
            ("url", self.url.clone()),
            ("TLS key", dash(self.spki_sha256.as_deref())),
            ("vendor", dash(self.vendor.as_deref())),
            ("model", dash(self.model.as_deref())),
            ("service tag", dash(self.service_tag.as_deref())),
            ("serial", dash(self.serial.as_deref())),
            ("host name", dash(self.host_name.as_deref())),
            ("generation", dash(self.generation.as_deref())),
            ("BMC", format!("{} {}", dash(self.bmc_model.as_deref()), dash(self.bmc_version.as_deref()))),
            ("BIOS", dash(self.bios_version.as_deref())),
            ("Redfish", dash(self.redfish_version.as_deref())),
            ("power", dash(self.power.as_deref())),
            ("health", dash(self.health.as_deref())),
            ("capabilities", list(&self.capabilities)),
            ("updates", self.update_semantics.as_ref().map_or_else(|| "none declared".to_owned(), semantics)),
            ("resets", list(&self.reset_kinds)),
        ];
        let mut text: String =
            rows.iter().map(|(name, value)| format!("{name:13} {}\n", printable(value))).collect();
        for part in &self.ailing {
            let line = format!("{:13} {} ({})", part.health, part.name, part.path);
            let why = part.why.iter().map(|why| format!("{:13} {why}", ""));
            for line in std::iter::once(line).chain(why) {
                text.push_str(&printable(&line));
                text.push('\n');
            }
        }
        if !self.firmware.is_empty() {
            let rows: Vec<Vec<String>> = self
                .firmware
                .iter()
                .map(|row| {
                    let updateable = row.updateable.map_or("-", |yes| if yes { "yes" } else { "no" });
                    vec![
                        row.component.clone(),
                        crate::servers::version(row.version.as_deref(), row.inactive),
                        row.row.clone(),
                        updateable.to_owned(),
                        row.name.clone(),
                    ]
                })
                .collect();
            text.push('\n');
            text.push_str(&out.table(&["COMPONENT", "VERSION", "ROW", "UPDATEABLE", "NAME"], &rows));
        }
        if let Some(vendor) = self.default_password {
            text.push_str(&format!("\nweak          the account still has {vendor}'s default password\n"));
        }
        if let Some(ipmi) = &self.ipmi {
            text.push('\n');
            text.push_str(&ipmi.render());
        }
        if self.unreadable.is_empty() {
            text.push_str("\neverything requested could be read\n");
        } else {
            text.push_str("\ncould not be read:\n");
            for missing in &self.unreadable {
                text.push_str(&printable(&format!("  {}: {}", missing.what, missing.why)));
                text.push('\n');
            }
        }
        text
    }
}

/// The text of a message, or its id where it has no text.
fn reason(message: &Message) -> String {
    match (message.text.as_str(), &message.id) {
        ("", Some(id)) => id.clone(),
        (text, _) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn the_report_says_what_is_missing() {
        let report = Report {
            url: "https://10.0.0.1".into(),
            spki_sha256: Some("ab".repeat(32)),
            vendor: Some("Contoso".into()),
            power: Some("on".into()),
            capabilities: vec!["sessions".into()],
            firmware: vec![Firmware {
                component: "BMC".into(),
                name: "BMC firmware".into(),
                version: Some("1.0".into()),
                software_id: None,
                updateable: None,
                row: "plain".into(),
                inactive: Some("Updating"),
            }],
            unreadable: vec![Missing { what: "health".into(), why: "status 500".into() }],
            ..Report::default()
        };
        insta::assert_snapshot!(report.render(Output::plain(Format::Table)));
    }
}
