//! Firmware as OpenBMC's bmcweb shows it: one row for each image, whose id is a hash over its version. After
//! an update the old id is gone and a new one is there. The manager's links, which name rows of the Dell, are left out:
//! what relates an image to the manager is the image's `RelatedItem`.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use serde_json::{Value, json};

const MANAGER: &str = "/redfish/v1/Managers/iDRAC.Embedded.1";

/// The id of the image of `component` in this version.
pub fn image_id(component: &str, version: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (component, version).hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}

/// Rewrites one answer of a Dell of the lab.
pub fn retell(body: &mut Bytes) {
    let Ok(mut document) = serde_json::from_slice::<Value>(body) else { return };
    if document["Manufacturer"] == "Dell Inc." {
        document["Manufacturer"] = json!("OpenBMC");
    }
    let manager = document["@odata.id"] == MANAGER;
    if let Some(links) = document["Links"].as_object_mut().filter(|_| manager) {
        links.retain(|name, _| !name.contains("SoftwareImage"));
    }
    let rows = document["@odata.id"].as_str().is_some_and(|path| path.ends_with("/FirmwareInventory"));
    if let Some(members) = document["Members"].as_array_mut().filter(|_| rows) {
        *members = members.iter().filter_map(image).collect();
        let count = members.len();
        document["Members@odata.count"] = json!(count);
    }
    *body = serde_json::to_vec(&document).unwrap().into();
}

/// `Installed-<component id>-<version>__<device>` as an image; other rows have no counterpart.
fn image(row: &Value) -> Option<Value> {
    let (_, component) = row["Id"].as_str()?.strip_prefix("Installed-")?.split_once("__")?;
    let version = row["Version"].as_str()?;
    let id = image_id(component, version);
    Some(json!({
        "@odata.id": format!("/redfish/v1/UpdateService/FirmwareInventory/{id}"),
        "Id": id,
        "Name": "Software Inventory",
        "Version": version,
        "Updateable": true,
        "Status": row["Status"],
        "RelatedItem": if component.starts_with("iDRAC.") { json!([{ "@odata.id": MANAGER }]) } else { json!([]) },
    }))
}
