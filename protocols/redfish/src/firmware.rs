//! The firmware inventory, with Dell's rows read for what they are.
//!
//! Dell lists a component up to three times (`Installed`, `Current`, `Previous`), once for each NIC port and power
//! supply, and with a component id of 0 where PCI ids identify the device. A row that cannot be read right after an
//! update says nothing about its version (check_redfish issue 69): it is listed as unreadable. iLO 4 has no inventory
//! in its update service; its own is read instead (check_redfish issue 42).
//!
//! A row's `Status.State` says whether its version runs. OpenBMC shows an image as `Updating` while it is written,
//! and as `Disabled` when that failed or waits to be activated (bmcweb, `getRedfishSwState`; openbmc-test-automation,
//! `redfish/update_service/test_redfish_bmc_code_update.robot`).

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    classify::Class,
    client::Client,
    discovery::{MAX_MEMBERS, ROOT, own_path},
    document::{at, bool_at, field, items, link, link_at, str_at, text, text_at},
    error::Error,
    model::{FirmwareComponent, FirmwareInventory, FirmwareRow, PciIds, Unreadable},
};

/// States in which a resource does not operate (Redfish `Resource` schema, `State`): it is unavailable, is being
/// written, has yet to become enabled, or is not there. The others leave what runs running, perhaps restricted
/// (`InTest`, `Deferring`, `Quiesced`, `Degraded`) or in reserve (`StandbySpare`, `StandbyOffline`).
const INACTIVE: [&str; 5] = ["Absent", "Disabled", "Starting", "UnavailableOffline", "Updating"];

impl Client {
    /// Reads the firmware inventory of the update service, expanded in one request where the service can.
    ///
    /// # Errors
    /// There is no update service or inventory, or the collection itself cannot be read. Rows that cannot be read
    /// are no error.
    pub async fn firmware_inventory(&self) -> Result<FirmwareInventory, Error> {
        let inventory = match self.inventory_path().await {
            Ok(path) => path,
            Err(error) if matches!(error.class(), Class::Unsupported | Class::NotFound) => {
                return self.inventory_of_system().await?.ok_or(error);
            }
            Err(error) => return Err(error),
        };
        let collection = self.collection(&inventory, true).await?;
        let mut found = FirmwareInventory {
            components: Vec::with_capacity(collection.members.len()),
            unreadable: collection.unreadable,
            complete: collection.complete,
            names_all: collection.names_all,
            bmc_version: None,
        };
        let shared = shared_ids(&collection.members);
        for member in collection.members {
            match component(member, &shared) {
                Some(component) => found.components.push(component),
                None => {
                    let error = self.not_declared(&inventory, "an Id of an inventory row");
                    found.unreadable.push(Unreadable { what: "a row without an id".to_owned(), error });
                    (found.complete, found.names_all) = (false, false);
                }
            }
        }
        if found.components.iter().any(|row| row.row == FirmwareRow::Plain) {
            let document = self.manager().await.map_or(Value::Null, |(_, document)| document.value);
            let path = self.with_links(|links| links.manager_path());
            mark_images(&mut found.components, &document, path.as_deref());
        }
        let manager = self.with_links(|links| links.manager_path());
        found.bmc_version = bmc_version(&found.components, manager.as_deref());
        Ok(found)
    }

    async fn inventory_path(&self) -> Result<String, Error> {
        let service = self.get(&self.service("UpdateService").await?).await?;
        let inventory = link_at(&service.value, &["FirmwareInventory"]).map(str::to_owned);
        inventory.ok_or_else(|| self.not_declared(ROOT, "FirmwareInventory"))
    }

    /// The inventory that an iLO 4 has below its system: `Current`, with a list of parts for each kind of part.
    /// `None`: the system links none.
    async fn inventory_of_system(&self) -> Result<Option<FirmwareInventory>, Error> {
        let system = self.system_document().await?;
        let linked = |vendor| link_at(&system.value, &["Oem", vendor, "Links", "FirmwareInventory"]);
        let Some(path) = ["Hp", "Hpe"].into_iter().find_map(linked) else { return Ok(None) };
        let document = self.get(path).await?;
        let current = field(&document.value, "Current").and_then(Value::as_object);
        let kinds = current.ok_or_else(|| self.not_declared(path, "its current firmware"))?;
        let (mut components, mut unreadable) = (Vec::new(), Vec::new());
        for (kind, parts) in kinds {
            for (at, part) in items(parts).iter().enumerate().take(MAX_MEMBERS) {
                let id = if at == 0 { kind.clone() } else { format!("{kind}.{}", at + 1) };
                if part.is_object() {
                    components.push(part_of_system(path, id, part.clone()));
                } else {
                    let error = self.not_declared(path, "the firmware of a part");
                    unreadable.push(Unreadable { what: id, error });
                }
            }
        }
        let complete = unreadable.is_empty();
        Ok(Some(FirmwareInventory { components, unreadable, complete, names_all: true, bmc_version: None }))
    }
}

/// Marks the images of the manager, and those that it does not run. `Links.SoftwareImages` names all of them,
/// `Links.ActiveSoftwareImage` the one that runs. OpenBMC tells them apart by nothing else: there an image is `Enabled`
/// when it is installed, whether it runs or not. Of a manager that does not say which one runs, those are marked that
/// are related to it. So may be a part beside the BMC, such as a CPLD, whose name differs from that of the row with the
/// manager's version. A manager that cannot be read is `Null`.
fn mark_images(rows: &mut [FirmwareComponent], manager: &Value, path: Option<&str>) {
    let images: Vec<_> =
        at(manager, &["Links", "SoftwareImages"]).into_iter().flat_map(items).filter_map(link).collect();
    let is_image = |row: &FirmwareComponent| images.contains(&row.path.as_str());
    let mut plain: Vec<_> = rows.iter_mut().filter(|row| row.row == FirmwareRow::Plain).collect();
    if let Some(active) = link_at(manager, &["Links", "ActiveSoftwareImage"]) {
        for row in plain {
            row.of_bmc = row.path == active;
            if is_image(row) && !row.of_bmc {
                row.row = FirmwareRow::Standby;
            }
        }
        return;
    }
    plain.retain(|row| is_image(row) || is_related(row, path));
    let version = str_at(manager, "FirmwareVersion");
    let runs = plain.iter().find(|row| version.is_some() && row.version.as_deref() == version);
    let name = runs.map(|row| row.name.clone());
    for row in plain {
        row.of_bmc = name.as_ref().is_none_or(|name| row.name == *name);
    }
}

/// DSP0268, `SoftwareInventory.RelatedItem`.
fn is_related(row: &FirmwareComponent, manager: Option<&str>) -> bool {
    let mut related = at(&row.raw, &["RelatedItem"]).into_iter().flat_map(items).filter_map(link);
    manager.is_some() && related.any(|item| Some(item) == manager)
}

/// Of the one running row that is related to the manager, else of the one that is called `BMC`.
fn bmc_version(components: &[FirmwareComponent], manager: Option<&str>) -> Option<String> {
    let running = |row: &&FirmwareComponent| {
        matches!(row.row, FirmwareRow::Installed | FirmwareRow::Plain) && row.inactive.is_none()
    };
    let is_called = |row: &&FirmwareComponent| {
        [&row.id, &row.name].into_iter().any(|name| name.eq_ignore_ascii_case("BMC"))
    };
    let related: Vec<_> = components.iter().filter(running).filter(|row| is_related(row, manager)).collect();
    let called: Vec<_> = components.iter().filter(running).filter(is_called).collect();
    match (related.as_slice(), called.as_slice()) {
        ([row], _) | (_, [row]) => row.version.clone(),
        _ => None,
    }
}

fn part_of_system(path: &str, id: String, raw: Value) -> FirmwareComponent {
    FirmwareComponent {
        path: path.to_owned(),
        name: text_at(&raw, "Name").unwrap_or_else(|| id.clone()),
        version: text_at(&raw, "VersionString"),
        software_id: None,
        updateable: None,
        row: FirmwareRow::Plain,
        inactive: None,
        of_bmc: false,
        fqdd: None,
        component_type: None,
        pci: None,
        installed_at: None,
        id,
        raw,
    }
}

/// Ids that stand in several rows.
fn shared_ids(rows: &[Value]) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    rows.iter().filter_map(|row| text_at(row, "Id")).filter(|id| !known.insert(id.clone())).collect()
}

/// `shared`: ids that are no row's own; there the addresses tell the rows apart.
fn component(raw: Value, shared: &BTreeSet<String>) -> Option<FirmwareComponent> {
    let path = own_path(&raw);
    let last =
        path.trim_end_matches('/').rsplit('/').next().filter(|last| !last.is_empty()).map(str::to_owned);
    let id = match text_at(&raw, "Id") {
        Some(id) if shared.contains(&id) => last.unwrap_or(id),
        own => own.or(last)?,
    };
    let dell = at(&raw, &["Oem", "Dell", "DellSoftwareInventory"]).unwrap_or(&Value::Null);
    let (mut row, fqdd) = row_and_fqdd(&id, str_at(dell, "Status"));
    let state = at(&raw, &["Status"]).and_then(|status| str_at(status, "State"));
    if row == FirmwareRow::Plain && matches!(state, Some("StandbySpare" | "StandbyOffline")) {
        row = FirmwareRow::Standby;
    }
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
        inactive: INACTIVE.into_iter().find(|inactive| state == Some(*inactive)),
        of_bmc: false,
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
    let values = field(dell, "IdentityInfoValue").into_iter().flat_map(items).filter_map(text);
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_state_says_whether_the_version_runs() {
        for (id, state, row, inactive) in [
            ("bios", None, FirmwareRow::Plain, None),
            ("bios", Some("Enabled"), FirmwareRow::Plain, None),
            ("bios", Some("Degraded"), FirmwareRow::Plain, None),
            ("bios", Some("a vendor's own"), FirmwareRow::Plain, None),
            ("bios", Some("Disabled"), FirmwareRow::Plain, Some("Disabled")),
            ("bios", Some("Updating"), FirmwareRow::Plain, Some("Updating")),
            ("bios", Some("Starting"), FirmwareRow::Plain, Some("Starting")),
            ("bios", Some("Absent"), FirmwareRow::Plain, Some("Absent")),
            ("bios", Some("UnavailableOffline"), FirmwareRow::Plain, Some("UnavailableOffline")),
            ("bios", Some("StandbySpare"), FirmwareRow::Standby, None),
            ("Installed-1-2__BIOS.Setup.1-1", Some("Updating"), FirmwareRow::Installed, Some("Updating")),
        ] {
            let raw = json!({ "@odata.id": "/redfish/v1/row", "Id": id, "Status": { "State": state } });
            let found = component(raw, &BTreeSet::new()).unwrap();
            assert_eq!((found.row, found.inactive), (row, inactive), "{id} {state:?}");
        }
    }

    #[test]
    fn rows_that_share_an_id_are_told_apart_by_their_addresses() {
        let row = |path: &str, id: u32| json!({ "@odata.id": path, "Id": id });
        let rows = [row("/fw/NIC1", 7), row("/fw/NIC2", 7), row("/fw/BMC", 1)];
        let shared = shared_ids(&rows);
        let ids: Vec<_> = rows.into_iter().map(|row| component(row, &shared).unwrap().id).collect();
        assert_eq!(ids, ["NIC1", "NIC2", "1"]);
    }

    #[test]
    fn the_bmcs_version_is_not_taken_from_an_image_that_does_not_run() {
        let image = |id: &str, version: &str, state: &str| {
            let related = json!([{ "@odata.id": "/redfish/v1/Managers/bmc" }]);
            let status = json!({ "State": state });
            component(
                json!({ "Id": id, "Version": version, "Status": status, "RelatedItem": related }),
                &BTreeSet::new(),
            )
            .unwrap()
        };
        let images = [image("a", "1.0", "Enabled"), image("b", "2.0", "Updating")];
        assert_eq!(bmc_version(&images, Some("/redfish/v1/Managers/bmc")).as_deref(), Some("1.0"));
    }

    #[test]
    fn the_managers_images_are_told_from_parts_beside_it() {
        const MANAGER: &str = "/redfish/v1/Managers/bmc";
        let row = |(id, name, version): (&str, &str, &str)| {
            let related = json!([{ "@odata.id": MANAGER }]);
            component(json!({ "@odata.id": id, "Id": id, "Name": name, "Version": version, "RelatedItem": related }), &BTreeSet::new())
                .unwrap()
        };
        let images = [("/1", "image", "1.0"), ("/2", "image", "2.0"), ("/3", "CPLD", "0.7")];
        let links = |active: Option<&str>| {
            let mut links = json!({ "SoftwareImages": [{ "@odata.id": "/1" }, { "@odata.id": "/2" }] });
            if let Some(active) = active {
                links["ActiveSoftwareImage"] = json!({ "@odata.id": active });
            }
            links
        };
        let (plain, standby) = (FirmwareRow::Plain, FirmwareRow::Standby);
        for (manager, expected) in [
            // The one that the manager names, and no row that is merely related.
            (
                json!({ "FirmwareVersion": "1.0", "Links": links(Some("/1")) }),
                [(true, plain), (false, standby), (false, plain)],
            ),
            (json!({ "FirmwareVersion": "1.0" }), [(true, plain), (true, plain), (false, plain)]),
            (
                json!({ "FirmwareVersion": "1.0", "Links": links(None) }),
                [(true, plain), (true, plain), (false, plain)],
            ),
            (json!({ "FirmwareVersion": "0.9" }), [(true, plain); 3]),
            (Value::Null, [(true, plain); 3]),
        ] {
            let mut rows = images.map(row);
            mark_images(&mut rows, &manager, Some(MANAGER));
            assert_eq!(rows.map(|row| (row.of_bmc, row.row)), expected, "{manager}");
        }
        let mut unrelated = images.map(row);
        mark_images(&mut unrelated, &json!({ "FirmwareVersion": "1.0" }), Some("/redfish/v1/Managers/other"));
        assert!(unrelated.iter().all(|row| !row.of_bmc));
    }
}
