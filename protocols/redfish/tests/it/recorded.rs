//! Every read against the recorded tree of a Dell PowerEdge R750 (iDRAC9 6.00.30.00).

use rackhand_redfish::{
    ApplyTime, Class, FirmwareRow, Generation, Health, PowerState, RULES, ResetKind, TaskRef, TaskSource,
    TaskState, UpdateSemantics, update_semantics,
};
use serde_json::{Value, json};

use crate::support::{Act, Bmc, bench};

#[tokio::test(start_paused = true)]
async fn reads_everything_with_one_session() {
    let Some(bmc) = Bmc::r750() else { return };
    let bench = bench(bmc);
    let client = &bench.client;

    let identity = client.identity().await.unwrap();
    assert_eq!(identity.vendor.as_deref(), Some("Dell"));
    assert_eq!(identity.model.as_deref(), Some("PowerEdge R750"));
    assert_eq!(identity.service_tag.as_deref(), Some("F54P1G3"));
    assert_eq!(identity.serial.as_deref(), Some("CNIVC0014M0388"));
    assert_eq!(identity.generation, Generation::Idrac9);
    assert_eq!(identity.bmc_version.as_deref(), Some("6.00.30.00"));
    assert_eq!(identity.bios_version.as_deref(), Some("1.8.2"));
    assert_eq!(identity.redfish_version.as_deref(), Some("1.13.1"));
    assert!(identity.unreadable.is_empty());
    assert_eq!(identity.evidence.len(), 3);

    let system = client.system().await.unwrap();
    assert_eq!(system.power, PowerState::On);
    assert_eq!(system.health_rollup, Health::Ok);
    assert!(system.reset_kinds.contains(&ResetKind::GracefulShutdown));
    assert_eq!(system.boot_progress, None);

    let health = client.health().await.unwrap();
    assert_eq!(health.worst, Health::Ok);
    assert_eq!(health.parts.len(), 3);

    let sensors = client.sensors().await.unwrap().readings;
    let fan = sensors.iter().find(|sensor| sensor.name == "System Board Fan1A").unwrap();
    assert_eq!((fan.value, fan.unit.as_str(), fan.health), (Some(18600.0), "RPM", Health::Ok));
    for unit in ["degrees C", "Volts", "Watts"] {
        assert!(sensors.iter().any(|sensor| sensor.unit == unit && sensor.value.is_some()), "{unit}");
    }

    let boot = client.boot().await.unwrap();
    assert!(boot.enabled.is_some() && boot.targets.iter().any(|target| target == "Pxe"), "{boot:?}");

    let capabilities = client.capabilities().await.unwrap();
    assert!(capabilities.unreadable.is_empty(), "{:?}", capabilities.unreadable);
    let simple = capabilities.simple_update.as_ref().unwrap();
    assert_eq!(simple.protocols, ["HTTP", "NFS", "CIFS", "TFTP", "HTTPS"]);
    assert_eq!(
        simple.apply_times,
        [ApplyTime::Immediate, ApplyTime::OnReset, ApplyTime::OnStartUpdateRequest]
    );
    assert_eq!(capabilities.multipart_push.as_deref(), Some("/redfish/v1/UpdateService/MultipartUpload"));
    assert_eq!(capabilities.max_jobs, Some(256));
    assert!(
        capabilities.readiness.is_some() && capabilities.oem_jobs.is_some() && capabilities.jobs.is_some()
    );
    assert!(capabilities.tasks.is_some() && capabilities.lifecycle_log.is_some());
    assert_eq!(update_semantics(&identity, &capabilities), UpdateSemantics::Staged);

    client.close().await;
    assert_eq!(bench.bmc.logins(), 1);
    assert_eq!(bench.bmc.open_sessions(), 0);
    assert!(bench.bmc.seen().iter().all(|seen| seen.proof != "basic"));
    assert_eq!(*bench.gate.asked.lock().unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn reads_dells_inventory_rows() {
    let Some(bmc) = Bmc::r750() else { return };
    let bench = bench(bmc);
    let inventory = bench.client.firmware_inventory().await.unwrap();
    assert!(inventory.complete);
    assert!(inventory.unreadable.is_empty());
    let bios = inventory.installed("BIOS.Setup.1-1").unwrap();
    assert_eq!(bios.version.as_deref(), Some("1.8.2"));
    assert_eq!(bios.software_id.as_deref(), Some("159"));
    assert_eq!(bios.component_type.as_deref(), Some("BIOS"));
    assert_eq!(bios.updateable, Some(true));
    let rows: Vec<FirmwareRow> = inventory
        .components
        .iter()
        .filter(|component| component.fqdd.as_deref() == Some("BIOS.Setup.1-1"))
        .map(|component| component.row)
        .collect();
    assert_eq!(rows, [FirmwareRow::Current, FirmwareRow::Installed, FirmwareRow::Previous]);
    let nic = inventory.installed("NIC.Integrated.1-1-1").unwrap();
    assert!(
        nic.pci.as_ref().is_some_and(|pci| pci.vendor == "14E4" || pci.vendor == "8086"),
        "{:?}",
        nic.pci
    );
}

#[tokio::test(start_paused = true)]
async fn reads_jobs_and_log() {
    let Some(bmc) = Bmc::r750() else { return };
    let bench = bench(bmc);
    let jobs = bench.client.jobs().await.unwrap();
    assert_eq!((jobs.sources, jobs.complete, jobs.jobs.len()), (vec![TaskSource::OemJobs], true, 1));
    let job = bench.client.job("JID_102241909559").await.unwrap().unwrap();
    assert_eq!(job.state, TaskState::Completed);
    assert_eq!(job.kind.as_deref(), Some("BIOSConfiguration"));
    assert!(bench.client.job("JID_1").await.unwrap().is_none());
    assert_eq!(bench.client.job("JID_CLEARALL").await.unwrap_err().class(), Class::Refused);

    let last = bench.client.last_lifecycle_record().await.unwrap().unwrap();
    assert_eq!(last.number, Some(83434));
    assert_eq!(last.message.short_id(), Some("USR0030"));
    let log = bench.client.lifecycle_log(Some(83430)).await.unwrap();
    assert!(log.complete);
    let numbers: Vec<_> = log.records.iter().filter_map(|record| record.number).collect();
    assert_eq!(numbers, [83434, 83433, 83432, 83431]);

    let task = TaskRef { id: Some("JID_102241909559".to_owned()), ..TaskRef::default() };
    let progress = bench.client.follow(&task).await.unwrap();
    assert_eq!((progress.source, progress.state), (TaskSource::JobService, TaskState::Completed));
    assert_eq!(progress.message_id.as_deref(), Some("PR19"));
}

#[tokio::test(start_paused = true)]
async fn asks_the_lifecycle_controller() {
    let Some(bmc) = Bmc::r750() else { return };
    let target = "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellLCService/Actions/DellLCService.GetRemoteServicesAPIStatus";
    let status = json!({ "LCStatus": "InUse", "RTStatus": "Ready", "ServerStatus": "OutOfPOST", "Status": "NotReady" });
    bmc.next("POST", target, Act::Answer(200, status));
    let bench = bench(bmc);
    let readiness = bench.client.readiness().await.unwrap().unwrap();
    assert!(!readiness.lc_ready());
    assert_eq!(readiness.server.as_deref(), Some("OutOfPOST"));
}

#[test]
fn every_rule_speaks_of_a_message_that_exists() {
    let Some(bmc) = Bmc::r750() else { return };
    let registry = |path: &str| -> Value {
        serde_json::from_slice(&bmc.document(&format!("/redfish/v1/Registries/{path}")).unwrap()).unwrap()
    };
    let known = [registry("Messages/EEMIRegistry"), registry("BaseMessages/BaseRegistry.json")];
    let messages: Vec<&str> = known
        .iter()
        .flat_map(|registry| registry["Messages"].as_object().unwrap().keys())
        .map(String::as_str)
        .collect();
    for rule in RULES {
        let exists = match rule.id.strip_suffix('*') {
            Some(beginning) => messages.iter().any(|id| id.starts_with(beginning)),
            None => messages.contains(&rule.id),
        };
        assert!(exists, "{}", rule.id);
    }
}
