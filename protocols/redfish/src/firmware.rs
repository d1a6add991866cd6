//! The firmware inventory, with Dell's rows read for what they are.
//!
//! Dell lists a component up to three times (`Installed`, `Current`, `Previous`), once for each NIC port and power
//! supply, and with a component id of 0 where PCI ids identify the device. A row that cannot be read right after an
//! update says nothing about its version (check_redfish issue 69): it is listed as unreadable.

use serde_json::Value;

use crate::{
    client::Client,
    discovery::{ROOT, own_path},
    document::{at, bool_at, items, link_at, str_at, text, text_at},
    error::Error,
    model::{FirmwareComponent, FirmwareInventory, FirmwareRow, PciIds, Unreadable},
};

impl Client {
    /// Reads the firmware inventory of the update service, expanded in one request where the service can.
    ///
    /// # Errors
    /// There is no update service or inventory, or the collection itself cannot be read. Rows that cannot be read
    /// are no error.
    pub async fn firmware_inventory(&self) -> Result<FirmwareInventory, Error> {
        let service = self.get(&self.service("UpdateService").await?).await?;
        let inventory = link_at(&service.value, &["FirmwareInventory"]);
        let inventory = inventory.ok_or_else(|| self.not_declared(ROOT, "FirmwareInventory"))?;
        let collection = self.collection(inventory, true).await?;
        let mut found = FirmwareInventory {
            components: Vec::with_capacity(collection.members.len()),
            unreadable: collection.unreadable,
            complete: collection.complete,
        };
        for member in collection.members {
            match component(member) {
                Some(component) => found.components.push(component),
                None => {
                    let error = self.not_declared(inventory, "an Id of an inventory row");
                    found.unreadable.push(Unreadable { what: "a row without an id".to_owned(), error });
                    found.complete = false;
                }
            }
        }
        Ok(found)
    }
}

fn component(raw: Value) -> Option<FirmwareComponent> {
    let path = own_path(&raw);
    let last = path.trim_end_matches('/').rsplit('/').next().filter(|last| !last.is_empty());
    let id = text_at(&raw, "Id").or_else(|| last.map(str::to_owned))?;
    let dell = at(&raw, &["Oem", "Dell", "DellSoftwareInventory"]).unwrap_or(&Value::Null);
    let (row, fqdd) = row_and_fqdd(&id, str_at(dell, "Status"));
    Some(FirmwareComponent {
        name: text_at(&raw, "Name").unwrap_or_else(|| id.clone()),
        version: text_at(&raw, "Version"),
        software_id: text_at(&raw, "SoftwareId").or_else(|| text_at(dell, "ComponentID")),
        updateable: bool_at(&raw, "Updateable"),
        component_type: text_at(dell, "ComponentType"),
        pci: pci(dell),
        installed_at: text_at(dell, "InstallationDate"),
        path,
        id,
        row,
        fqdd,
        raw,
    })
}

/// Dell's ids are `<row>-<component id>-<version>__<device>`, as recorded on an R750.
fn row_and_fqdd(id: &str, dell_status: Option<&str>) -> (FirmwareRow, Option<String>) {
    let known = |name: &str| match name {
        "Installed" => Some(FirmwareRow::Installed),
        "Current" => Some(FirmwareRow::Current),
        "Previous" => Some(FirmwareRow::Previous),
        "Available" => Some(FirmwareRow::Available),
        _ => None,
    };
    let by_id = id.split_once('-').and_then(|(name, _)| known(name));
    let row = by_id.or_else(|| dell_status.and_then(known)).unwrap_or(FirmwareRow::Plain);
    let fqdd = id.split_once("__").map(|(_, fqdd)| fqdd.to_owned());
    (row, fqdd.filter(|fqdd| row != FirmwareRow::Plain && !fqdd.is_empty()))
}

/// PCI ids as properties, or as `DCIM:firmware:VVVV:DDDD:SSSS:ssss` in `IdentityInfoValue`.
fn pci(dell: &Value) -> Option<PciIds> {
    let id = |name| text_at(dell, name).map(|id| id.to_ascii_uppercase());
    if let (Some(vendor), Some(device)) = (id("VendorID"), id("DeviceID")) {
        let sub_vendor = id("SubVendorID").unwrap_or_default();
        let sub_device = id("SubDeviceID").unwrap_or_default();
        return Some(PciIds { vendor, device, sub_vendor, sub_device });
    }
    let values = dell.get("IdentityInfoValue").into_iter().flat_map(items).filter_map(text);
    values.into_iter().find_map(|value| {
        let parts: Vec<&str> = value.split(':').collect();
        let [.., vendor, device, sub_vendor, sub_device] = parts.as_slice() else { return None };
        let hexadecimal = |part: &str| part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
        let all = [vendor, device, sub_vendor, sub_device];
        all.iter().all(|part| hexadecimal(part)).then(|| PciIds {
            vendor: vendor.to_ascii_uppercase(),
            device: device.to_ascii_uppercase(),
            sub_vendor: sub_vendor.to_ascii_uppercase(),
            sub_device: sub_device.to_ascii_uppercase(),
        })
    })
}
