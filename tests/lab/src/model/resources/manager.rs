//! The BMC itself and Dell's services below it.

use serde_json::{Value, json};

use super::{CHASSIS, INVENTORY, MANAGER, SYSTEM, collection, link, resource, set, with};
use crate::model::bmc::Bmc;
use crate::model::firmware::Slot;
use crate::model::jobs::JOB_LIMIT;
use crate::model::traits::Traits;
use crate::spec::{Generation, Kind};

impl Bmc {
    pub(super) fn manager_document(&self, path: &str) -> Option<Value> {
        let traits = self.traits();
        Some(match path {
            "/redfish/v1/Managers" => collection(path, "ManagerCollection", "Manager", &[MANAGER.to_owned()]),
            MANAGER => self.manager(),
            _ if Some(path) == traits.lc_service => lc_service(path),
            _ if path == job_service_path(&traits)? => with(
                resource(path, "DellJobService.v1_2_0.DellJobService", "Job Service", "DellJobService"),
                json!({
                    "Actions": { "#DellJobService.DeleteJobQueue": {
                        "target": format!("{path}/Actions/DellJobService.DeleteJobQueue"),
                    }},
                    "CurrentNumberOfJobs": self.jobs.len(),
                    "DeleteOnCompletionTimeoutMinutes": 2_880,
                    "Description": "Manages the job queue.",
                    "MaximumNumberOfJobs": JOB_LIMIT,
                    "StartAutoDeleteAtThreshold": 128,
                }),
            ),
            _ => return None,
        })
    }

    fn manager(&self) -> Value {
        let traits = self.traits();
        let clock = self.clock();
        let mut manager = with(
            resource(MANAGER, "Manager.v1_12_0.Manager", "iDRAC.Embedded.1", "Manager"),
            json!({
                "Actions": { "#Manager.Reset": {
                    "ResetType@Redfish.AllowableValues": ["GracefulRestart"],
                    "target": format!("{MANAGER}/Actions/Manager.Reset"),
                }},
                "CommandShell": {
                    "ConnectTypesSupported": ["SSH", "IPMI"],
                    "ConnectTypesSupported@odata.count": 2,
                    "MaxConcurrentSessions": 5,
                    "ServiceEnabled": true,
                },
                "DateTime": clock.zoned(self.now),
                "DateTimeLocalOffset": clock.offset(),
                "Description": "BMC",
                "FirmwareVersion": self.manager_version(),
                "Links": self.manager_links(&traits),
                "LogServices": link(&format!("{MANAGER}/LogServices")),
                "ManagerType": "BMC",
                "Model": self.spec.model.system_generation(),
                "PowerState": "On",
                "Status": { "Health": "OK", "State": "Enabled" },
                "UUID": self.uuid(),
            }),
        );
        if traits.generation != Generation::Idrac8 {
            set(&mut manager, "LastResetTime", json!(clock.zoned(self.last_bmc_reset)));
            set(&mut manager, "TimeZoneName", json!("CST6CDT"));
        }
        manager
    }

    fn manager_links(&self, traits: &Traits) -> Value {
        let mut links = json!({
            "ManagerForChassis": [link(CHASSIS)],
            "ManagerForChassis@odata.count": 1,
            "ManagerForServers": [link(SYSTEM)],
            "ManagerForServers@odata.count": 1,
        });
        if traits.generation == Generation::Idrac8 {
            return links;
        }
        let mut dell = json!({ "@odata.type": "#DellOem.v1_3_0.DellOemLinks" });
        if let Some(path) = traits.lc_service {
            set(&mut dell, "DellLCService", link(path));
        }
        if let Some(path) = job_service_path(traits) {
            set(&mut dell, "DellJobService", link(path));
        }
        if let Some(path) = traits.dell_jobs {
            set(&mut dell, "Jobs", link(path));
        }
        set(&mut links, "ManagerInChassis", link(CHASSIS));
        set(&mut links, "Oem", json!({ "Dell": dell }));
        let images: Vec<(Slot, String)> = self
            .components
            .iter()
            .filter(|component| component.spec.kind == Kind::Idrac)
            .flat_map(|component| component.rows(traits.rich_inventory))
            .map(|row| (row.slot, format!("{INVENTORY}/{}", row.id())))
            .collect();
        if let Some((_, active)) = images.iter().find(|(slot, _)| *slot == Slot::Installed) {
            set(&mut links, "ActiveSoftwareImage", link(active));
        }
        set(&mut links, "SoftwareImages@odata.count", json!(images.len()));
        let images: Vec<Value> = images.iter().map(|(_, path)| link(path)).collect();
        set(&mut links, "SoftwareImages", Value::Array(images));
        links
    }

    /// The answer of `GetRemoteServicesAPIStatus`; values as in Dell's schema `DellLCService_v1.xml` of the
    /// recorded tree.
    pub(crate) fn remote_services_status(&self) -> Value {
        let ready = self.now >= self.lc_ready_at;
        let lc = match (ready, self.lc_is_free()) {
            (false, _) => "NotInitialized",
            (true, true) => "Ready",
            (true, false) => "InUse",
        };
        let overall = match (ready, lc) {
            (false, _) => "NotReady",
            (true, "InUse") => "InUse",
            (true, _) => "Ready",
        };
        json!({
            "LCStatus": lc,
            "RTStatus": if ready { "Ready" } else { "NotReady" },
            "ServerStatus": self.host.server_status(),
            "Status": overall,
        })
    }
}

/// `DellJobService`, which older firmware does not have in Redfish.
pub(crate) fn job_service_path(traits: &Traits) -> Option<&'static str> {
    match traits.generation {
        Generation::Idrac8 => None,
        _ if traits.self_reboots => Some("/redfish/v1/Dell/Managers/iDRAC.Embedded.1/DellJobService"),
        _ => Some("/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellJobService"),
    }
}

fn lc_service(path: &str) -> Value {
    with(
        resource(path, "DellLCService.v1_3_0.DellLCService", "DellLCService", "DellLCService"),
        json!({
            "Actions": { "#DellLCService.GetRemoteServicesAPIStatus": {
                "target": format!("{path}/Actions/DellLCService.GetRemoteServicesAPIStatus"),
            }},
            "Description": "Lifecycle Controller functions.",
        }),
    )
}
