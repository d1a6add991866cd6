//! The documents of a BMC, rendered from its state when they are asked for.
//!
//! Paths, property names and value shapes follow the recorded R750; a test compares them;
//! what differs by generation comes from `traits`. Every link in a document leads to a document that is
//! served.

mod logs;
mod manager;
mod queue;
mod service;
mod system;
mod update;

pub(crate) use self::manager::job_service_path;
use serde_json::{Map, Value, json};

use super::bmc::Bmc;

pub(crate) const SYSTEM: &str = "/redfish/v1/Systems/System.Embedded.1";
pub(crate) const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";
pub(crate) const CHASSIS: &str = "/redfish/v1/Chassis/System.Embedded.1";
pub(crate) const INVENTORY: &str = "/redfish/v1/UpdateService/FirmwareInventory";
pub(crate) const TASKS: &str = "/redfish/v1/TaskService/Tasks";
pub(crate) const JOBS: &str = "/redfish/v1/JobService/Jobs";

impl Bmc {
    /// The document at a path without trailing slash.
    pub(crate) fn document(&self, path: &str) -> Option<Value> {
        self.service_document(path)
            .or_else(|| self.system_document(path))
            .or_else(|| self.manager_document(path))
            .or_else(|| self.update_document(path))
            .or_else(|| self.queue_document(path))
            .or_else(|| self.log_document(path))
    }

    /// Applies `$skip`, `$top`, `$expand` and `$select` where this firmware knows them.
    pub(crate) fn with_query(&self, mut document: Value, query: &str) -> Value {
        if !self.traits().query || query.is_empty() {
            return document;
        }
        let option = |name: &str| {
            query.split('&').find_map(|pair| {
                let (key, value) = pair.split_once('=')?;
                (key == name || key.strip_prefix("%24") == name.strip_prefix('$')).then(|| value.to_owned())
            })
        };
        let number = |name: &str| option(name).and_then(|value| value.parse::<usize>().ok());
        let path = document.get("@odata.id").and_then(Value::as_str).unwrap_or_default().to_owned();
        if let Some(members) = document.get_mut("Members").and_then(Value::as_array_mut) {
            let skip = number("$skip").unwrap_or(0).min(members.len());
            members.drain(..skip);
            if let Some(top) = number("$top") {
                let more = members.len() > top;
                members.truncate(top);
                if more {
                    let next = format!("{path}?$skip={}&$top={top}", skip + top);
                    set(&mut document, "Members@odata.nextLink", json!(next));
                }
            } else if skip > 0 {
                remove(&mut document, "Members@odata.nextLink");
            }
        }
        if option("$expand").is_some()
            && let Some(members) = document.get_mut("Members").and_then(Value::as_array_mut)
        {
            for member in members {
                let link = member.get("@odata.id").and_then(Value::as_str).unwrap_or_default();
                if let Some(full) = self.document(link) {
                    *member = full;
                }
            }
        }
        if let Some(wanted) = option("$select")
            && let Some(object) = document.as_object_mut()
        {
            let wanted: Vec<&str> =
                wanted.split(',').map(|name| name.split('/').next().unwrap_or(name)).collect();
            object.retain(|key, _| key.starts_with("@odata.") || wanted.contains(&key.as_str()));
        }
        document
    }
}

fn set(document: &mut Value, key: &str, value: Value) {
    if let Some(object) = document.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
}

fn remove(document: &mut Value, key: &str) {
    if let Some(object) = document.as_object_mut() {
        object.remove(key);
    }
}

/// `{"@odata.id": path}`
fn link(path: &str) -> Value {
    json!({ "@odata.id": path })
}

/// The three properties every resource starts with. `kind` is `Manager.v1_12_0.Manager`.
fn resource(path: &str, kind: &str, id: &str, name: &str) -> Value {
    let schema = kind.split('.').next().unwrap_or(kind);
    json!({
        "@odata.context": format!("/redfish/v1/$metadata#{schema}.{schema}"),
        "@odata.id": path,
        "@odata.type": format!("#{kind}"),
        "Id": id,
        "Name": name,
    })
}

/// `first` with the properties of `second`.
fn with(mut first: Value, second: Value) -> Value {
    if let (Some(into), Value::Object(from)) = (first.as_object_mut(), second) {
        into.extend(from);
    }
    first
}

/// A collection of links.
fn collection(path: &str, schema: &str, name: &str, members: &[String]) -> Value {
    collection_of(path, schema, name, members.iter().map(|member| link(member)).collect())
}

/// A collection of whatever is in `members`.
fn collection_of(path: &str, schema: &str, name: &str, members: Vec<Value>) -> Value {
    let mut document = Map::new();
    document.insert("@odata.context".to_owned(), json!(format!("/redfish/v1/$metadata#{schema}.{schema}")));
    document.insert("@odata.id".to_owned(), json!(path));
    document.insert("@odata.type".to_owned(), json!(format!("#{schema}.{schema}")));
    document.insert("Description".to_owned(), json!(name));
    document.insert("Members@odata.count".to_owned(), json!(members.len()));
    document.insert("Members".to_owned(), Value::Array(members));
    document.insert("Name".to_owned(), json!(name));
    Value::Object(document)
}
