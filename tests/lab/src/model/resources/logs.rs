//! The Lifecycle log and the system event log. Entries come newest first, fifty to a page.

use serde_json::{Value, json};

use super::{MANAGER, collection, collection_of, link, remove, resource, set, with};
use crate::model::bmc::Bmc;
use crate::model::log::Entry;
use crate::model::traits::Traits;

const PAGE: usize = 50;

impl Bmc {
    pub(super) fn log_document(&self, path: &str) -> Option<Value> {
        let traits = self.traits();
        let (lc, sel) = (Traits::log("Lclog"), Traits::log("Sel"));
        if path == format!("{MANAGER}/LogServices") {
            return Some(collection(path, "LogServiceCollection", "Log Service Collection", &[sel, lc]));
        }
        if path == lc {
            return Some(self.log_service(path, "Lclog", "OEM", 500_000, traits.lc_entries));
        }
        if path == sel {
            let mut service = self.log_service(path, "Sel", "SEL", 1_024, traits.sel_entries);
            let target = format!("{path}/Actions/LogService.ClearLog");
            set(&mut service, "Actions", json!({ "#LogService.ClearLog": { "target": target } }));
            return Some(service);
        }
        for (entries, log, is_sel) in
            [(traits.lc_entries, &self.lc, false), (traits.sel_entries, &self.sel, true)]
        {
            let Some(rest) = path.strip_prefix(entries) else { continue };
            if rest.is_empty() {
                let all: Vec<Value> =
                    log.newest_first().map(|entry| self.entry(entry, entries, is_sel)).collect();
                let name = "Log Entry Collection";
                return Some(collection_of(path, "LogEntryCollection", name, all));
            }
            let id = rest.strip_prefix('/')?.parse().ok()?;
            return log.find(id).map(|entry| self.entry(entry, entries, is_sel));
        }
        None
    }

    /// Cuts an entry collection to a page when the client did not say how much it wants.
    pub(crate) fn paged(&self, path: &str, mut document: Value, query: &str) -> Value {
        let traits = self.traits();
        if path != traits.lc_entries && path != traits.sel_entries || query.contains("top=") {
            return document;
        }
        let skip = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("$skip=").or_else(|| pair.strip_prefix("%24skip=")))
            .and_then(|value| value.parse::<usize>().ok())
            .unwrap_or(0);
        if let Some(members) = document.get_mut("Members").and_then(Value::as_array_mut)
            && members.len() > PAGE
        {
            members.truncate(PAGE);
            let next = format!("{path}?$skip={}", skip + PAGE);
            set(&mut document, "Members@odata.nextLink", json!(next));
        }
        document
    }

    fn log_service(&self, path: &str, id: &str, kind: &str, capacity: u32, entries: &str) -> Value {
        let clock = self.clock();
        let name = if id == "Sel" { "SEL Log Service" } else { "LifeCycle Controller Log Service" };
        with(
            resource(path, "LogService.v1_2_0.LogService", id, name),
            json!({
                "DateTime": clock.zoned(self.now),
                "DateTimeLocalOffset": clock.offset(),
                "Description": name,
                "Entries": link(entries),
                "LogEntryType": kind,
                "MaxNumberOfRecords": capacity,
                "OverWritePolicy": "WrapsWhenFull",
                "ServiceEnabled": true,
            }),
        )
    }

    fn entry(&self, entry: &Entry, parent: &str, is_sel: bool) -> Value {
        let id = entry.id.to_string();
        let title = format!("Log Entry {id}");
        let severity = match entry.message.severity {
            "Critical" => "Critical",
            "Warning" => "Warning",
            _ => "OK",
        };
        let mut document = with(
            resource(&format!("{parent}/{id}"), "LogEntry.v1_9_0.LogEntry", &id, &title),
            json!({
                "Created": self.clock().zoned(entry.at),
                "Description": title,
                "EntryType": if is_sel { "SEL" } else { "Oem" },
                "Links": {},
                "Message": entry.message.text,
                "MessageArgs": entry.message.args,
                "MessageArgs@odata.count": entry.message.args.len(),
                "MessageId": if is_sel {
                    entry.message.id.to_owned()
                } else {
                    entry.message.full_id(self.traits().registry)
                },
                "Severity": severity,
            }),
        );
        remove(&mut document, "@odata.context");
        if is_sel {
            return with(
                document,
                json!({ "EntryCode": "Assert", "GeneratorId": "0x00b1", "SensorNumber": entry.event.map_or(26, |event| event.sensor), "SensorType": null }),
            );
        }
        with(
            document,
            json!({
                "Oem": { "Dell": {
                    "@odata.type": "#DellLCLogEntry.v1_1_0.DellLCLogEntry",
                    "Category": entry.category,
                    "Comment": null,
                    "LastUpdatedByUser": null,
                }},
                "OemRecordFormat": "Dell",
            }),
        )
    }
}
