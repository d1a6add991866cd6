//! What goes wrong in the field, as far as it is a switch here.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use rackhand_lab::{CallError, Fault, ForeignJob, HostileShape, Model, MutationKind, ServerSpec, Times};
use serde_json::{Value, json};

use crate::bench::{NAME, PASSWORD, bench, json_of, message_id, r750};

#[tokio::test(start_paused = true)]
async fn d18_a_cut_answer_leaves_a_job_that_shows_up_later() {
    let bench = r750();
    bench.lab.fault(NAME, Fault::CutAfterAccept, Times::Once).unwrap();
    bench.lab.fault(NAME, Fault::JobVisibilityDelay { seconds: 45 }, Times::Once).unwrap();
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    let body = json!({ "ImageURI": bench.package("BIOS"), "@Redfish.OperationApplyTime": "OnReset" });
    assert_eq!(bench.send(Method::POST, path, body.clone()).await.unwrap_err(), CallError::NoAnswer);
    bench.wait(40).await;
    let jobs = "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs";
    assert_eq!(bench.get(jobs).await["Members@odata.count"], 0);
    bench.wait(5).await;
    assert_eq!(bench.get(jobs).await["Members@odata.count"], 1);
    assert_eq!(bench.get("/redfish/v1/JobService/Jobs").await["Members@odata.count"], 1);

    bench.lab.fault(NAME, Fault::CutBeforeAccept, Times::Once).unwrap();
    assert_eq!(bench.send(Method::POST, path, body).await.unwrap_err(), CallError::NoAnswer);
    bench.wait(60).await;
    assert_eq!(bench.get(jobs).await["Members@odata.count"], 1);
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.jobs_created, counters.mutations[&MutationKind::SimpleUpdate]), (1, 2));
    let (accepted, lost) = (&counters.mutation_log[0], &counters.mutation_log[1]);
    assert_eq!((accepted.status, lost.status), (None, None));
    assert_eq!((accepted.handled.is_some(), lost.handled.is_some()), (true, false));
}

#[tokio::test(start_paused = true)]
async fn d14_d15_d20_d22_updates_that_lie() {
    let bench = r750();
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    bench.lab.fault(NAME, Fault::UpToDateSup029, Times::Once).unwrap();
    let refused = bench.post(path, json!({ "ImageURI": bench.package("BIOS") })).await;
    assert_eq!((refused.status().as_u16(), message_id(&refused).as_str()), (400, "IDRAC.2.7.SUP029"));

    bench.lab.fault(NAME, Fault::VersionUnchanged, Times::Once).unwrap();
    let job = bench.update("Diagnostics", None).await;
    bench.wait(200).await;
    assert_eq!(bench.state(&job).0, "Completed");
    let versions = bench.lab.status(NAME).unwrap().versions;
    assert_eq!(versions["Diagnostics.Embedded.1:LC.Embedded.1"], "4301A56");

    bench.lab.fault(NAME, Fault::CompletedCritical, Times::Once).unwrap();
    bench.lab.fault(NAME, Fault::TaskVanishes { seconds: 200, everywhere: false }, Times::Once).unwrap();
    let job = bench.update("Diagnostics", None).await;
    bench.wait(100).await;
    let task = bench.get(&format!("/redfish/v1/TaskService/Tasks/{job}")).await;
    assert_eq!((&task["TaskState"], &task["TaskStatus"]), (&json!("Completed"), &json!("Critical")));
    assert_eq!(
        (&task["PercentComplete"], &task["Oem"]["Dell"]["MessageId"]),
        (&json!(100), &json!("JCP052"))
    );
    bench.wait(200).await;
    let gone = bench.send(Method::GET, &format!("/redfish/v1/TaskService/Tasks/{job}"), Value::Null).await;
    assert_eq!(gone.unwrap().status(), 404);
    bench.get(&format!("/redfish/v1/JobService/Jobs/{job}")).await;
}

#[tokio::test(start_paused = true)]
async fn failed_flashes_leave_the_old_version() {
    let bench = r750();
    for (fault, state) in
        [(Fault::FlashFailsPr21, "Failed"), (Fault::CompletedWithErrors, "CompletedWithErrors")]
    {
        bench.lab.fault(NAME, fault, Times::Once).unwrap();
        let job = bench.update("BIOS", Some("Immediate")).await;
        bench.wait(900).await;
        assert_eq!((bench.state(&job).0.as_str(), bench.bios().as_str()), (state, "1.8.2"));
        assert_eq!(bench.lab.status(NAME).unwrap().server_status, "OutOfPOST", "the host came back");
    }
}

#[tokio::test(start_paused = true)]
async fn d16_d36_jobs_that_wait_for_something() {
    let bench = r750();
    bench.lab.fault(NAME, Fault::RebootPending, Times::Once).unwrap();
    let job = bench.update("Diagnostics", None).await;
    bench.wait(200).await;
    assert_eq!(bench.state(&job).0, "RebootPending");
    bench.reset("ForceRestart").await;
    bench.wait(10).await;
    assert_eq!(bench.state(&job).0, "Completed");

    bench.lab.fault(NAME, Fault::StuckScheduled, Times::Always).unwrap();
    let job = bench.update("BIOS", Some("OnReset")).await;
    bench.wait(60).await;
    bench.reset("ForceRestart").await;
    bench.wait(3_600).await;
    assert_eq!(bench.state(&job).0, "Scheduled");
    assert_eq!(bench.lab.status(NAME).unwrap().server_status, "OutOfPOST");
    bench.lab.clear_fault(NAME, "stuck_scheduled").unwrap();
    bench.reset("ForceRestart").await;
    bench.wait(600).await;
    assert_eq!(bench.bios(), "1.13.2");
}

#[tokio::test(start_paused = true)]
async fn d11_d17_d34_a_bmc_in_a_bad_mood() {
    let bench = r750();
    bench.lab.fault(NAME, Fault::NotReadySwc0700, Times::Count(2)).unwrap();
    for _ in 0..2 {
        let response = bench.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap();
        assert_eq!((response.status().as_u16(), message_id(&response).as_str()), (400, "IDRAC.2.7.SWC0700"));
    }
    bench.get("/redfish/v1/Systems").await;

    bench.lab.fault(NAME, Fault::PowerIgnored, Times::Once).unwrap();
    assert_eq!(bench.reset("ForceOff").await.status(), 204);
    bench.wait(60).await;
    assert_eq!(bench.lab.status(NAME).unwrap().power_state, "On");
    bench.lab.fault(NAME, Fault::SlowPower { seconds: 30 }, Times::Once).unwrap();
    assert_eq!(bench.reset("ForceOff").await.status(), 204);
    bench.wait(20).await;
    assert_eq!(bench.lab.status(NAME).unwrap().power_state, "On");
    bench.wait(20).await;
    assert_eq!(bench.lab.status(NAME).unwrap().power_state, "Off");

    let job = bench.update("BIOS", Some("OnReset")).await;
    bench.wait(5).await;
    bench.lab.fault(NAME, Fault::BmcResetWhilePolled, Times::Once).unwrap();
    let path = format!("/redfish/v1/TaskService/Tasks/{job}");
    assert_eq!(bench.send(Method::GET, &path, Value::Null).await.unwrap_err(), CallError::NoAnswer);
    assert_eq!(bench.send(Method::GET, &path, Value::Null).await.unwrap_err(), CallError::NotSent);
    bench.wait(180).await;
    assert_eq!(bench.state(&job).0, "Failed", "the download died with the BMC");
}

#[tokio::test(start_paused = true)]
async fn hostile_bodies_hang_and_partition() {
    let bench = r750();
    for shape in [HostileShape::Deep, HostileShape::WrongTypes, HostileShape::Garbage] {
        bench.lab.fault(NAME, Fault::HostileBody { shape }, Times::Once).unwrap();
        let response = bench.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap();
        assert_ne!(json_of(&response)["Members@odata.count"], 1, "{shape:?}");
    }
    bench.lab.fault(NAME, Fault::MalformedErrorJson, Times::Once).unwrap();
    let response = bench.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap();
    assert!(serde_json::from_slice::<Value>(response.body()).is_err());
    bench.lab.fault(NAME, Fault::Hang, Times::Once).unwrap();
    let hung = tokio::time::timeout(Duration::from_secs(60), bench.get("/redfish/v1/Systems")).await;
    assert!(hung.is_err());
    bench.lab.fault(NAME, Fault::Partition, Times::Always).unwrap();
    let refused = bench.send(Method::GET, "/redfish/v1", Value::Null).await;
    assert_eq!(refused.unwrap_err(), CallError::NotSent);
}

#[tokio::test(start_paused = true)]
async fn foreign_jobs_stand_in_the_queue_and_can_be_the_same_update() {
    let bench = r750();
    let foreign = ForeignJob { package: Some("BIOS_R750_1.13.2.EXE".to_owned()), immediate: false };
    let id = bench.lab.foreign_job(NAME, &foreign).unwrap();
    bench.wait(60).await;
    assert_eq!(bench.state(&id).0, "Scheduled");
    let ours = bench.update("BIOS", Some("OnReset")).await;
    assert_ne!(id, ours);
}
#[tokio::test(start_paused = true)]
async fn clocks_lie_and_job_times_have_no_zone() {
    let bench = bench(ServerSpec::new(NAME, Model::R750).clock_offset(-31_536_000));
    let manager = bench.get("/redfish/v1/Managers/iDRAC.Embedded.1").await;
    assert!(manager["DateTime"].as_str().unwrap().starts_with("2025-01-15T03:00:00-05:00"));
    let job = bench.update("BIOS", Some("OnReset")).await;
    bench.wait(10).await;
    let job = bench.get(&format!("/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs/{job}")).await;
    assert_eq!(job["StartTime"].as_str().unwrap().len(), "2025-01-15T03:00:00".len());
}

#[tokio::test(start_paused = true)]
async fn d02_d04_sessions_and_passwords_that_stop_working() {
    let bench = r750();
    let body = json!({ "UserName": "root", "Password": PASSWORD });
    let login = bench.post("/redfish/v1/SessionService/Sessions", body).await;
    let token = login.headers()["x-auth-token"].clone();
    let get = || {
        let request = Request::get("/redfish/v1/Systems").header("x-auth-token", token.clone());
        bench.lab.call(0, request.body(Bytes::new()).unwrap())
    };
    assert_eq!(get().await.unwrap().status(), 200);
    bench.lab.fault(NAME, Fault::SpuriousUnauthorized, Times::Once).unwrap();
    assert_eq!(get().await.unwrap().status(), 401);
    assert_eq!(get().await.unwrap().status(), 200);
    bench.lab.fault(NAME, Fault::SessionDies, Times::Once).unwrap();
    for _ in 0..5 {
        assert_eq!(get().await.unwrap().status(), 401);
    }
    bench.get("/redfish/v1/Systems").await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.sessions_open, counters.addresses_blocked), (0, 0), "dead tokens do not block");
    bench.lab.fault(NAME, Fault::SessionTableFull, Times::Once).unwrap();
    let body = json!({ "UserName": "root", "Password": PASSWORD });
    assert_eq!(bench.post("/redfish/v1/SessionService/Sessions", body.clone()).await.status(), 503);
    assert_eq!(bench.post("/redfish/v1/SessionService/Sessions", body).await.status(), 201);
}

#[tokio::test(start_paused = true)]
async fn d10_d12_d21_refusals_and_waiting() {
    let bench = r750();
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    bench.lab.fault(NAME, Fault::NoLicence, Times::Once).unwrap();
    let refused = bench.post(path, json!({ "ImageURI": bench.package("BIOS") })).await;
    assert_eq!((refused.status().as_u16(), message_id(&refused).as_str()), (400, "IDRAC.2.7.LIC501"));

    let status = "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellLCService/Actions/\
                  DellLCService.GetRemoteServicesAPIStatus";
    assert_eq!(json_of(&bench.post(status, json!({})).await)["LCStatus"], "Ready");
    bench.lab.fault(NAME, Fault::LcBusy, Times::Always).unwrap();
    let job = bench.update("Diagnostics", None).await;
    bench.wait(600).await;
    assert_eq!(json_of(&bench.post(status, json!({})).await)["LCStatus"], "InUse");
    let document = bench.get(&format!("/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs/{job}")).await;
    assert_eq!((&document["JobState"], &document["MessageId"]), (&json!("New"), &json!("RED023")));
    bench.lab.fault(NAME, Fault::InventoryUnreadable { seconds: 120 }, Times::Once).unwrap();
    bench.lab.clear_fault(NAME, "lc_busy").unwrap();
    bench.wait(100).await;
    assert_eq!(bench.state(&job).0, "Completed");
    let inventory = "/redfish/v1/UpdateService/FirmwareInventory";
    assert_eq!(bench.send(Method::GET, inventory, Value::Null).await.unwrap().status(), 503);
    bench.wait(120).await;
    bench.get(inventory).await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!(counters.mutations.len(), 1, "asking for a status changes nothing: {:?}", counters.mutations);
}

#[tokio::test(start_paused = true)]
async fn the_mains_fail() {
    let bench = r750();
    bench.update("BIOS", Some("Immediate")).await;
    bench.wait(240).await;
    bench.lab.power_failure(NAME).unwrap();
    let refused = bench.send(Method::GET, "/redfish/v1", Value::Null).await;
    assert_eq!(refused.unwrap_err(), CallError::NotSent);
    bench.wait(300).await;
    let status = bench.lab.status(NAME).unwrap();
    assert_eq!((status.power_state.as_str(), status.bios_version.as_str()), ("Off", "1.8.2"));
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.bricked, counters.power_losses_while_flashing), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn slow_answers_take_simulated_time() {
    let bench = r750();
    bench.lab.fault(NAME, Fault::SlowResponses { milliseconds: 30_000 }, Times::Once).unwrap();
    let before = bench.lab.now();
    bench.get("/redfish/v1/Systems").await;
    assert!(bench.lab.now() - before >= Duration::from_secs(30));
}
