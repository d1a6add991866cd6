//! The update service and the firmware inventory.

use serde_json::{Value, json};

use super::{INVENTORY, collection, link, resource, set, with};
use crate::model::bmc::Bmc;
use crate::model::firmware::{Row, Slot};
use crate::package::PackageHeader;
use crate::spec::Kind;

const SERVICE: &str = "/redfish/v1/UpdateService";

impl Bmc {
    pub(super) fn update_document(&self, path: &str) -> Option<Value> {
        match path {
            SERVICE => return Some(self.update_service()),
            INVENTORY => {
                let rich = self.traits().rich_inventory;
                let mut members: Vec<String> = self
                    .components
                    .iter()
                    .flat_map(|component| component.rows(rich))
                    .map(|row| format!("{INVENTORY}/{}", row.id()))
                    .chain(self.pushed.keys().map(|id| format!("{INVENTORY}/{id}")))
                    .collect();
                members.sort();
                let name = "Firmware Inventory Collection";
                return Some(collection(path, "SoftwareInventoryCollection", name, &members));
            }
            "/redfish/v1/UpdateService/SoftwareInventory" => {
                let name = "Software Inventory Collection";
                return Some(collection(path, "SoftwareInventoryCollection", name, &[]));
            }
            _ => {}
        }
        let id = path.strip_prefix(INVENTORY)?.strip_prefix('/')?;
        if let Some(header) = self.pushed.get(id) {
            return Some(available(path, id, header));
        }
        let rich = self.traits().rich_inventory;
        self.components
            .iter()
            .flat_map(|component| component.rows(rich))
            .find(|row| row.id() == id)
            .map(|row| self.row(&row, rich))
    }

    fn update_service(&self) -> Value {
        let traits = self.traits();
        let mut simple = json!({
            "TransferProtocol@Redfish.AllowableValues": traits.protocols,
            "target": format!("{SERVICE}/Actions/UpdateService.SimpleUpdate"),
        });
        let mut actions = json!({});
        if !traits.apply_times.is_empty() {
            set(
                &mut simple,
                "@Redfish.OperationApplyTimeSupport",
                json!({
                    "@odata.type": "#Settings.v1_3_3.OperationApplyTimeSupport",
                    "SupportedValues": traits.apply_times,
                }),
            );
            let target = format!("{SERVICE}/Actions/UpdateService.StartUpdate");
            set(&mut actions, "#UpdateService.StartUpdate", json!({ "target": target }));
        }
        set(&mut actions, "#UpdateService.SimpleUpdate", simple);
        let mut service = with(
            resource(SERVICE, "UpdateService.v1_9_0.UpdateService", "UpdateService", "Update Service"),
            json!({
                "Actions": actions,
                "Description": "Represents the properties for the Update Service",
                "FirmwareInventory": link(INVENTORY),
                "MaxImageSizeBytes": null,
                "ServiceEnabled": true,
                "SoftwareInventory": link("/redfish/v1/UpdateService/SoftwareInventory"),
                "Status": { "Health": "OK", "State": "Enabled" },
            }),
        );
        if traits.push {
            set(&mut service, "HttpPushUri", json!(INVENTORY));
        }
        if traits.multipart {
            set(&mut service, "MultipartHttpPushUri", json!(format!("{SERVICE}/MultipartUpload")));
        }
        service
    }

    fn row(&self, row: &Row<'_>, rich: bool) -> Value {
        let id = row.id();
        let path = format!("{INVENTORY}/{id}");
        let spec = &row.component.spec;
        let updating = row.slot == Slot::Installed && self.now < row.component.updating_until;
        let mut document = with(
            resource(&path, "SoftwareInventory.v1_4_0.SoftwareInventory", &id, &spec.name),
            json!({
                "Description": "Represents Firmware Inventory",
                "ReleaseDate": "00:00:00Z",
                "SoftwareId": spec.software_id,
                "Status": { "Health": "OK", "State": if updating { "Updating" } else { "Enabled" } },
                "Updateable": spec.kind != Kind::Fixed,
                "Version": row.version,
            }),
        );
        if rich {
            let dell = self.dell_row(row, &path);
            set(
                &mut document,
                "Oem",
                json!({ "Dell": {
                    "@odata.type": "#DellOem.v1_3_0.DellOemResources",
                    "DellSoftwareInventory": dell,
                }}),
            );
        }
        document
    }

    fn dell_row(&self, row: &Row<'_>, path: &str) -> Value {
        let spec = &row.component.spec;
        let instance = format!("DCIM:{}_0x23_701__{}", row.slot.word().to_uppercase(), spec.fqdd);
        let (kind, class) =
            if spec.kind == Kind::Bios { ("BIOS", "BIOS/FCode") } else { ("FRMW", "Firmware") };
        let hex = |word: Option<u16>| word.map(|word| format!("{word:04X}"));
        let pci = spec.pci;
        let (identity, value) = match pci {
            Some(pci) => (
                "OrgID:ComponentType:VendorID:DeviceID:SubVendorID:SubDeviceID",
                format!(
                    "DCIM:firmware:{:04X}:{:04X}:{:04X}:{:04X}",
                    pci.vendor, pci.device, pci.subvendor, pci.subdevice
                ),
            ),
            None if spec.kind == Kind::Bios => {
                ("OrgID:ComponentType:ComponentID", format!("DCIM:BIOS:{}", spec.software_id))
            }
            None => ("OrgID:ComponentType:ComponentID", format!("DCIM:firmware:{}", spec.software_id)),
        };
        let numbers: Vec<u32> = row.version.split('.').map(|part| part.parse::<u32>().unwrap_or(0)).collect();
        let number = |at: usize| numbers.get(at).copied().unwrap_or(0);
        let installed = match (row.slot, row.component.installed) {
            (Slot::Installed, Some(at)) => self.clock().utc(at),
            (Slot::Installed, None) => "2022-11-16T02:31:46Z".to_owned(),
            _ => "NA".to_owned(),
        };
        with(
            resource(
                &format!("{path}/Oem/Dell/DellSoftwareInventory/{instance}"),
                "DellSoftwareInventory.v1_1_1.DellSoftwareInventory",
                &instance,
                "DellSoftwareInventory",
            ),
            json!({
                "BuildNumber": 0,
                "Classifications": [class],
                "Classifications@odata.count": 1,
                "ComponentID": spec.software_id,
                "ComponentType": kind,
                "Description": "Firmware of one device.",
                "DeviceID": hex(pci.map(|pci| pci.device)),
                "ElementName": spec.name,
                "HashValue": null,
                "IdentityInfoType": [identity],
                "IdentityInfoType@odata.count": 1,
                "IdentityInfoValue": [value],
                "IdentityInfoValue@odata.count": 1,
                "InstallationDate": installed,
                "IsEntity": true,
                "MajorVersion": number(0),
                "MinorVersion": number(1),
                "RevisionNumber": number(2),
                "RevisionString": null,
                "Status": if row.slot == Slot::Installed { "Installed" } else { "AvailableForInstallation" },
                "SubDeviceID": hex(pci.map(|pci| pci.subdevice)),
                "SubVendorID": hex(pci.map(|pci| pci.subvendor)),
                "VendorID": hex(pci.map(|pci| pci.vendor)),
                "impactsTPMmeasurements": spec.kind == Kind::Bios,
            }),
        )
    }
}

/// An uploaded package, waiting for `SimpleUpdate` with its own path as image.
fn available(path: &str, id: &str, header: &PackageHeader) -> Value {
    with(
        resource(path, "SoftwareInventory.v1_4_0.SoftwareInventory", id, &header.component),
        json!({
            "Description": "Represents Firmware Inventory",
            "ReleaseDate": "00:00:00Z",
            "SoftwareId": header.software_id,
            "Status": { "Health": "OK", "State": "Enabled" },
            "Updateable": true,
            "Version": header.version,
        }),
    )
}
