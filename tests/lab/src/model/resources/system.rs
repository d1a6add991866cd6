//! The host: system and chassis.

use serde_json::{Value, json};

use super::{CHASSIS, MANAGER, SYSTEM, collection, link, resource, set, with};
use crate::model::bmc::Bmc;
use crate::spec::{Kind, Model};

impl Bmc {
    pub(super) fn system_document(&self, path: &str) -> Option<Value> {
        Some(match path {
            "/redfish/v1/Systems" => collection(
                path,
                "ComputerSystemCollection",
                "Computer System Collection",
                &[SYSTEM.to_owned()],
            ),
            "/redfish/v1/Chassis" => {
                collection(path, "ChassisCollection", "Chassis Collection", &[CHASSIS.to_owned()])
            }
            SYSTEM => self.system(),
            CHASSIS => self.chassis(),
            _ => return None,
        })
    }

    /// Health of the whole: something destroyed is critical.
    fn health(&self) -> &'static str {
        if self.components.iter().any(|component| component.dead) { "Critical" } else { "OK" }
    }

    pub(super) fn uuid(&self) -> String {
        let hex = format!("{:016x}{:016x}", self.seed, self.seed.rotate_left(17));
        let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
        format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
    }

    fn system(&self) -> Value {
        let traits = self.traits();
        let health = self.health();
        let status = json!({ "Health": health, "HealthRollup": health, "State": "Enabled" });
        let (processor, sockets, cores, memory) = match self.spec.model {
            Model::R730 => ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 2, 28, 256),
            Model::R650 | Model::R750 => ("Intel(R) Xeon(R) Gold 6354 CPU @ 3.00GHz", 2, 36, 512),
            Model::R7525 => ("AMD EPYC 7543 32-Core Processor", 2, 64, 1_024),
            Model::R770 => ("Intel(R) Xeon(R) 6740P", 2, 96, 1_024),
        };
        let mut system = with(
            resource(SYSTEM, "ComputerSystem.v1_16_0.ComputerSystem", "System.Embedded.1", "System"),
            json!({
                "Actions": { "#ComputerSystem.Reset": {
                    "ResetType@Redfish.AllowableValues": traits.reset_types,
                    "target": format!("{SYSTEM}/Actions/ComputerSystem.Reset"),
                }},
                "AssetTag": "",
                "BiosVersion": self.version_of(Kind::Bios),
                "Boot": self.boot_document(),
                "Description": "A physical server of the simulated site.",
                "HostName": format!("{}.host", self.spec.name),
                "IndicatorLED": "Lit",
                "LastResetTime": self.clock().zoned(self.last_boot),
                "Links": {
                    "Chassis": [link(CHASSIS)],
                    "Chassis@odata.count": 1,
                    "ManagedBy": [link(MANAGER)],
                    "ManagedBy@odata.count": 1,
                },
                "Manufacturer": "Dell Inc.",
                "MemorySummary": {
                    "MemoryMirroring": "System", "Status": status, "TotalSystemMemoryGiB": memory,
                },
                "Model": self.spec.model.product(),
                "Oem": { "Dell": {
                    "@odata.type": "#DellOem.v1_3_0.DellOemResources",
                    "DellSystem": self.dell_system(health),
                }},
                "PartNumber": "0LAB00A01",
                "PowerState": self.power_state(),
                "ProcessorSummary": {
                    "CoreCount": cores, "Count": sockets, "LogicalProcessorCount": cores * 2,
                    "Model": processor, "Status": status,
                },
                "SKU": self.spec.service_tag,
                "SerialNumber": format!("CNLAB{:09}", self.seed % 1_000_000_000),
                "Status": status,
                "SystemType": "Physical",
                "UUID": self.uuid(),
            }),
        );
        if traits.boot_progress {
            set(&mut system, "BootProgress", json!({ "LastState": self.host.boot_progress() }));
        }
        system
    }

    fn dell_system(&self, health: &str) -> Value {
        with(
            resource(
                &format!("{SYSTEM}/Oem/Dell/DellSystem/System.Embedded.1"),
                "DellSystem.v1_3_0.DellSystem",
                "System.Embedded.1",
                "DellSystem",
            ),
            json!({
                "BIOSReleaseDate": "09/14/2022",
                "CPURollupStatus": "OK",
                "ChassisServiceTag": self.spec.service_tag,
                "CurrentRollupStatus": health,
                "FanRollupStatus": "OK",
                "LastSystemInventoryTime": self.clock().utc(self.last_boot),
                "MaxCPUSockets": 2,
                "NodeID": self.spec.service_tag,
                "PSRollupStatus": "OK",
                "StorageRollupStatus": "OK",
                "SystemGeneration": self.spec.model.system_generation(),
                "SystemID": 2_318,
                "TempRollupStatus": "OK",
                "UUID": self.uuid(),
            }),
        )
    }

    fn chassis(&self) -> Value {
        let health = self.health();
        with(
            resource(CHASSIS, "Chassis.v1_16_0.Chassis", "System.Embedded.1", "Computer System Chassis"),
            json!({
                "Actions": { "#Chassis.Reset": {
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff"],
                    "target": format!("{CHASSIS}/Actions/Chassis.Reset"),
                }},
                "AssetTag": null,
                "ChassisType": "RackMount",
                "Description": "The server's enclosure.",
                "IndicatorLED": "Lit",
                "Links": {
                    "ComputerSystems": [link(SYSTEM)],
                    "ComputerSystems@odata.count": 1,
                    "ManagedBy": [link(MANAGER)],
                    "ManagedBy@odata.count": 1,
                },
                "Manufacturer": "Dell Inc.",
                "Model": self.spec.model.product(),
                "PartNumber": "0LAB00A01",
                "PowerState": self.power_state(),
                "SKU": self.spec.service_tag,
                "SerialNumber": format!("CNLAB{:09}", self.seed % 1_000_000_000),
                "Status": { "Health": health, "HealthRollup": health, "State": "Enabled" },
                "UUID": self.uuid(),
            }),
        )
    }
}
