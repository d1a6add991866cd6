//! What the BMCs show: every link leads somewhere, and the R750 looks like the recorded one.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine as _;
use bytes::Bytes;
use http::Request;
use rackhand_lab::replay::Tree;
use rackhand_lab::{InProcess, Model, ServerSpec, SiteConfig};
use serde_json::Value;

const RECORDED: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data/redfish/dell-poweredge-r750.tar.gz");

fn lab(model: Model, version: &str) -> InProcess {
    InProcess::new(&SiteConfig::new(vec![ServerSpec::new("bmc", model).idrac(version)], "secret"))
}

async fn get(lab: &InProcess, path: &str) -> Option<Value> {
    let auth = base64::engine::general_purpose::STANDARD.encode("root:secret");
    let request =
        Request::get(path).header("authorization", format!("Basic {auth}")).body(Bytes::new()).unwrap();
    let response = lab.call(0, request).await.unwrap();
    (response.status() == 200).then(|| serde_json::from_slice(response.body()).unwrap())
}

fn links(value: &Value, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            // A lone @odata.id is a link; beside other properties it is the document's or an inline part's
            // own name.
            if let (1, Some(Value::String(path))) = (map.len(), map.get("@odata.id")) {
                into.insert(path.clone());
            }
            map.values().for_each(|value| links(value, into));
        }
        Value::Array(list) => list.iter().for_each(|value| links(value, into)),
        _ => {}
    }
}

#[tokio::test(start_paused = true)]
async fn every_link_of_every_generation_leads_to_a_document() {
    for (model, version) in [
        (Model::R730, "2.63.60.61"),
        (Model::R730, "2.86.86.86"),
        (Model::R650, "4.40.10.00"),
        (Model::R750, "6.00.30.00"),
        (Model::R7525, "7.00.00.00"),
        (Model::R770, "1.20.25.00"),
    ] {
        let lab = lab(model, version);
        lab.foreign_job("bmc", &rackhand_lab::ForeignJob::default()).unwrap();
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        let mut seen = BTreeSet::new();
        let mut todo = vec!["/redfish/v1".to_owned()];
        while let Some(path) = todo.pop() {
            if !seen.insert(path.clone()) {
                continue;
            }
            let document = get(&lab, &path).await.unwrap_or_else(|| panic!("{model:?} {version}: {path}"));
            assert_eq!(document["@odata.id"], path.as_str());
            let mut found = BTreeSet::new();
            links(&document, &mut found);
            todo.extend(found);
        }
        assert!(seen.len() > 30, "{model:?}: {}", seen.len());
        assert_eq!(
            seen.iter().any(|path| path.contains("/Oem/Dell/Jobs")),
            model == Model::R750 || model == Model::R7525
        );
        assert_eq!(seen.contains("/redfish/v1/JobService/Jobs"), model != Model::R730);
    }
}

#[tokio::test(start_paused = true)]
async fn query_options_work_where_they_are_offered() {
    let new = lab(Model::R750, "6.00.30.00");
    let rows = get(&new, "/redfish/v1/UpdateService/FirmwareInventory?$expand=*($levels=1)").await.unwrap();
    assert!(rows["Members"].as_array().unwrap().iter().all(|row| row["Version"].is_string()));
    let ids: Vec<&str> =
        rows["Members"].as_array().unwrap().iter().map(|row| row["Id"].as_str().unwrap()).collect();
    for slot in ["Installed-", "Current-", "Previous-", "Installed-0-"] {
        assert!(ids.iter().any(|id| id.starts_with(slot)), "{slot}");
    }
    let manager = get(&new, "/redfish/v1/Managers/iDRAC.Embedded.1?$select=FirmwareVersion").await.unwrap();
    assert!(manager["FirmwareVersion"].is_string() && manager["Model"].is_null());
    let old = lab(Model::R730, "2.63.60.61");
    let rows = get(&old, "/redfish/v1/UpdateService/FirmwareInventory?$expand=*($levels=1)").await.unwrap();
    assert!(rows["Members"].as_array().unwrap().iter().all(|row| row["Version"].is_null()));
    assert!(get(&new, "/redfish/v1/Systems/").await.is_some(), "a trailing slash does not matter");
}

#[tokio::test(start_paused = true)]
async fn logs_are_paged_newest_first() {
    let lab = lab(Model::R750, "6.00.30.00");
    for _ in 0..70 {
        lab.foreign_job("bmc", &rackhand_lab::ForeignJob::default()).unwrap();
    }
    let path = "/redfish/v1/Managers/iDRAC.Embedded.1/LogServices/Lclog/Entries";
    let first = get(&lab, path).await.unwrap();
    assert_eq!(first["Members"].as_array().unwrap().len(), 50);
    let id = |page: &Value, at: usize| page["Members"][at]["Id"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(id(&first, 0) > id(&first, 1));
    let second = get(&lab, first["Members@odata.nextLink"].as_str().unwrap()).await.unwrap();
    assert_eq!(id(&second, 0) + 1, id(&first, 49));
    assert!(second["Members@odata.nextLink"].is_null());
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Every property of `ours` that `theirs` has too must have the same JSON type (null is compatible with all).
fn compare(path: &str, at: &str, ours: &Value, theirs: &Value, wrong: &mut Vec<String>) {
    if ours.is_null() || theirs.is_null() {
        return;
    }
    if kind(ours) != kind(theirs) {
        wrong.push(format!("{path}{at}: {} here, {} recorded", kind(ours), kind(theirs)));
        return;
    }
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                match theirs.get(key) {
                    Some(recorded) => compare(path, &format!("{at}/{key}"), value, recorded, wrong),
                    None => wrong.push(format!("{path}{at}/{key}: not recorded")),
                }
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            if let (Some(ours), Some(theirs)) = (ours.first(), theirs.first()) {
                compare(path, &format!("{at}[]"), ours, theirs, wrong);
            }
        }
        _ => {}
    }
}

/// What a client of Rackhand reads: a recorded document has it, so ours must.
const USED: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "/Systems",
            "/Managers",
            "/Chassis",
            "/UpdateService",
            "/SessionService",
            "/Tasks",
            "/JobService",
            "/RedfishVersion",
            "/Vendor",
            "/Product",
            "/Links/Sessions",
            "/Oem/Dell/ServiceTag",
            "/ProtocolFeaturesSupported/ExpandQuery/Levels",
            "/ProtocolFeaturesSupported/SelectQuery",
        ],
    ),
    ("/SessionService", &["/Sessions", "/SessionTimeout", "/ServiceEnabled"]),
    ("/SessionService/Sessions", &["/Members", "/Members@odata.count"]),
    ("/Systems", &["/Members/0/@odata.id", "/Members@odata.count"]),
    (
        "/Systems/System.Embedded.1",
        &[
            "/Model",
            "/Manufacturer",
            "/SKU",
            "/SerialNumber",
            "/UUID",
            "/HostName",
            "/BiosVersion",
            "/PowerState",
            "/Status/Health",
            "/Status/HealthRollup",
            "/Status/State",
            "/LastResetTime",
            "/ProcessorSummary/Count",
            "/ProcessorSummary/Model",
            "/MemorySummary/TotalSystemMemoryGiB",
            "/Actions/#ComputerSystem.Reset/target",
            "/Actions/#ComputerSystem.Reset/ResetType@Redfish.AllowableValues",
            "/Links/Chassis",
            "/Links/ManagedBy",
            "/Boot/BootSourceOverrideEnabled",
            "/Boot/BootSourceOverrideTarget",
            "/Oem/Dell/DellSystem/SystemGeneration",
        ],
    ),
    ("/Managers", &["/Members/0/@odata.id"]),
    (
        "/Managers/iDRAC.Embedded.1",
        &[
            "/FirmwareVersion",
            "/Model",
            "/ManagerType",
            "/DateTime",
            "/DateTimeLocalOffset",
            "/Status/Health",
            "/Status/State",
            "/LogServices",
            "/LastResetTime",
            "/UUID",
            "/Links/ManagerForServers",
            "/Links/ActiveSoftwareImage",
            "/Links/SoftwareImages",
            "/Links/Oem/Dell/Jobs",
            "/Links/Oem/Dell/DellLCService",
            "/Links/Oem/Dell/DellJobService",
            "/Actions/#Manager.Reset/target",
            "/Actions/#Manager.Reset/ResetType@Redfish.AllowableValues",
        ],
    ),
    (
        "/Managers/iDRAC.Embedded.1/Oem/Dell/DellLCService",
        &["/Actions/#DellLCService.GetRemoteServicesAPIStatus/target"],
    ),
    (
        "/Managers/iDRAC.Embedded.1/Oem/Dell/DellJobService",
        &["/MaximumNumberOfJobs", "/CurrentNumberOfJobs", "/Actions/#DellJobService.DeleteJobQueue/target"],
    ),
    ("/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs", &["/Members", "/Members@odata.count", "/Name"]),
    ("/Managers/iDRAC.Embedded.1/LogServices", &["/Members/0/@odata.id", "/Members/1/@odata.id"]),
    ("/Managers/iDRAC.Embedded.1/LogServices/Lclog", &["/Entries", "/DateTime", "/LogEntryType"]),
    (
        "/Managers/iDRAC.Embedded.1/LogServices/Sel",
        &["/Entries", "/Actions/#LogService.ClearLog/target", "/LogEntryType"],
    ),
    (
        "/Managers/iDRAC.Embedded.1/LogServices/Lclog/Entries",
        &[
            "/Members/0/Id",
            "/Members/0/Created",
            "/Members/0/Message",
            "/Members/0/MessageId",
            "/Members/0/Severity",
            "/Members/0/MessageArgs",
            "/Members/0/Oem/Dell/Category",
        ],
    ),
    (
        "/Managers/iDRAC.Embedded.1/LogServices/Sel/Entries",
        &["/Members/0/Id", "/Members/0/Created", "/Members/0/Message", "/Members/0/Severity"],
    ),
    ("/Chassis", &["/Members/0/@odata.id"]),
    (
        "/Chassis/System.Embedded.1",
        &[
            "/ChassisType",
            "/Model",
            "/SKU",
            "/Status/Health",
            "/PowerState",
            "/Actions/#Chassis.Reset/target",
            "/Links/ComputerSystems",
            "/Links/ManagedBy",
        ],
    ),
    (
        "/UpdateService",
        &[
            "/FirmwareInventory",
            "/HttpPushUri",
            "/MultipartHttpPushUri",
            "/ServiceEnabled",
            "/Actions/#UpdateService.SimpleUpdate/target",
            "/Actions/#UpdateService.SimpleUpdate/TransferProtocol@Redfish.AllowableValues",
            "/Actions/#UpdateService.SimpleUpdate/@Redfish.OperationApplyTimeSupport/SupportedValues",
            "/Actions/#UpdateService.StartUpdate/target",
        ],
    ),
    ("/UpdateService/FirmwareInventory", &["/Members/0/@odata.id", "/Members@odata.count"]),
    (
        "/UpdateService/FirmwareInventory/Installed-159-1.8.2__BIOS.Setup.1-1",
        &[
            "/Id",
            "/Name",
            "/SoftwareId",
            "/Version",
            "/Updateable",
            "/Status/Health",
            "/ReleaseDate",
            "/Oem/Dell/DellSoftwareInventory/ComponentID",
            "/Oem/Dell/DellSoftwareInventory/ComponentType",
            "/Oem/Dell/DellSoftwareInventory/Status",
            "/Oem/Dell/DellSoftwareInventory/IdentityInfoValue/0",
            "/Oem/Dell/DellSoftwareInventory/InstallationDate",
        ],
    ),
    ("/UpdateService/FirmwareInventory/Installed-25227-6.00.30.00__iDRAC.Embedded.1-1", &["/Version"]),
    ("/UpdateService/FirmwareInventory/Installed-108076-00.2A.2B__PSU.Slot.2", &["/Version", "/SoftwareId"]),
    (
        "/UpdateService/FirmwareInventory/Installed-0-20.31.10.14__InfiniBand.Slot.7-2",
        &[
            "/SoftwareId",
            "/Oem/Dell/DellSoftwareInventory/VendorID",
            "/Oem/Dell/DellSoftwareInventory/DeviceID",
            "/Oem/Dell/DellSoftwareInventory/SubVendorID",
            "/Oem/Dell/DellSoftwareInventory/SubDeviceID",
        ],
    ),
    ("/UpdateService/FirmwareInventory/Current-108089-21.80.16.95__NIC.Integrated.1-1-1", &["/Version"]),
    ("/UpdateService/FirmwareInventory/Previous-159-1.2.4__BIOS.Setup.1-1", &["/Version"]),
    ("/TaskService", &["/Tasks", "/ServiceEnabled"]),
    ("/TaskService/Tasks", &["/Members", "/Members@odata.count"]),
    ("/JobService", &["/Jobs", "/ServiceCapabilities/MaxJobs"]),
    ("/JobService/Jobs", &["/Members", "/Members@odata.count"]),
];

#[tokio::test(start_paused = true)]
async fn the_r750_looks_like_the_recorded_one() {
    let path = Path::new(RECORDED);
    if !path.exists() {
        println!("SKIPPED: the recorded tree {RECORDED} is not there");
        return;
    }
    let tree = Tree::read(path).unwrap();
    let lab = lab(Model::R750, "6.00.30.00");
    let mut wrong = Vec::new();
    for (resource, properties) in USED {
        let path = format!("/redfish/v1{resource}");
        let recorded: Value = serde_json::from_slice(tree.get(&path).expect(&path)).unwrap();
        let Some(ours) = get(&lab, &path).await else {
            wrong.push(format!("{path}: missing here"));
            continue;
        };
        for property in *properties {
            // A pointer's own separator cannot occur in a Redfish property name.
            let (here, there) = (ours.pointer(property), recorded.pointer(property));
            assert!(there.is_some(), "{path}{property} is not in the recorded tree");
            if here.is_none() {
                wrong.push(format!("{path}{property}: missing here"));
            }
        }
        compare(&path, "", &ours, &recorded, &mut wrong);
    }
    // A job of another kind than the recorded one, in the same shape.
    let foreign = lab.foreign_job("bmc", &rackhand_lab::ForeignJob::default()).unwrap();
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    for parent in ["/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs", "/redfish/v1/JobService/Jobs"] {
        let recorded = tree.get(&format!("{parent}/JID_102241909559")).expect("the recorded job");
        let recorded: Value = serde_json::from_slice(recorded).unwrap();
        let ours = get(&lab, &format!("{parent}/{foreign}")).await.unwrap();
        compare(parent, "/job", &ours, &recorded, &mut wrong);
        for key in recorded.as_object().unwrap().keys() {
            assert!(ours.get(key).is_some(), "{parent}: a job has {key}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
