//! Updates, power, logins and the queue on a BMC that behaves.

use std::net::IpAddr;

use bytes::Bytes;
use http::{Method, Request};
use rackhand_lab::{CallError, ForeignJob, Model, ServerSpec};
use serde_json::{Value, json};

use crate::bench::{Bench, NAME, PASSWORD, basic, bench, message_id, multipart, r750};

#[tokio::test(start_paused = true)]
async fn a_staged_bios_update_changes_the_version_only_after_the_flash_in_the_reboot() {
    let bench = r750();
    let job = bench.update("BIOS", Some("OnReset")).await;
    bench.wait(60).await;
    assert_eq!(bench.state(&job).0, "Scheduled");
    let task = bench.get(&format!("/redfish/v1/TaskService/Tasks/{job}")).await;
    assert_eq!(task["TaskState"], "Starting");
    assert_eq!(task["Oem"]["Dell"]["MessageId"], "JCP001");
    bench.wait(3_600).await;
    assert_eq!((bench.state(&job).0.as_str(), bench.bios().as_str()), ("Scheduled", "1.8.2"));

    assert_eq!(bench.reset("GracefulRestart").await.status(), 204);
    bench.wait(200).await;
    assert_eq!(bench.state(&job).0, "Running");
    let status = bench.lab.status(NAME).unwrap();
    assert!(status.flashing);
    assert_eq!(status.server_status, "AutomatedTaskExecution");
    assert_eq!(bench.bios(), "1.8.2", "nothing changes before the flash ends");
    bench.wait(400).await;
    assert_eq!(bench.state(&job), ("Completed".to_owned(), "IDRAC.2.7.PR19".to_owned()));
    assert_eq!(bench.bios(), "1.13.2");
    bench.wait(200).await;
    assert_eq!(bench.lab.status(NAME).unwrap().server_status, "OutOfPOST");
    let system = bench.get("/redfish/v1/Systems/System.Embedded.1").await;
    assert_eq!(system["BiosVersion"], "1.13.2");
    let rows = bench.get("/redfish/v1/UpdateService/FirmwareInventory").await.to_string();
    assert!(rows.contains("Previous-159-1.8.2__BIOS.Setup.1-1"));
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!(counters.flashes_completed["159@1.13.2"], 1);
    assert_eq!((counters.most_flashes_of_one(), counters.bricked, counters.overlapping_mutations), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_outcome_does_not_depend_on_how_often_anybody_looks() {
    let mut histories = Vec::new();
    for step in [1, 7, 1_500] {
        let bench = r750();
        bench.update("BIOS", Some("Immediate")).await;
        for _ in 0..1_500 / step {
            bench.wait(step).await;
        }
        let flash = bench.lab.counters(NAME).unwrap().flashes[0].clone();
        histories.push((flash.started, flash.ended, bench.bios()));
    }
    assert_eq!(histories[0], histories[1]);
    assert_eq!(histories[0], histories[2]);
}

#[tokio::test(start_paused = true)]
async fn firmware_that_reboots_by_itself_does_so_on_simple_update() {
    for (model, version) in [(Model::R650, "4.40.10.00"), (Model::R730, "2.63.60.61")] {
        let bench = bench(ServerSpec::new(NAME, model).idrac(version));
        bench.update("BIOS", None).await;
        bench.wait(900).await;
        assert_eq!(bench.bios(), model.bios_versions()[1], "{model:?}");
        assert_eq!(bench.lab.counters(NAME).unwrap().self_reboots, 1);
    }
    let bench = bench(ServerSpec::new(NAME, Model::R730));
    let job = bench.update("BIOS", None).await;
    bench.wait(900).await;
    assert_eq!(bench.state(&job).0, "Scheduled", "2.86 waits for a reboot");
}

#[tokio::test(start_paused = true)]
async fn an_idrac_update_is_direct_resets_the_bmc_and_loses_sessions() {
    let bench = r750();
    let login = bench
        .post("/redfish/v1/SessionService/Sessions", json!({ "UserName": "root", "Password": PASSWORD }))
        .await;
    assert_eq!(login.status(), 201);
    let token = login.headers()["x-auth-token"].clone();
    let job = bench.update("iDRAC", Some("Immediate")).await;
    bench.wait(300).await;
    let refused = bench.send(Method::GET, "/redfish/v1", Value::Null).await;
    assert_eq!(refused.unwrap_err(), CallError::NotSent, "it resets itself");
    bench.wait(300).await;
    let early = bench.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap();
    assert!(early.status() == 503 || early.status() == 200);
    bench.wait(120).await;
    assert_eq!(bench.state(&job).0, "Completed");
    let manager = bench.get("/redfish/v1/Managers/iDRAC.Embedded.1").await;
    assert_eq!(manager["FirmwareVersion"], "7.10.50.10");
    let request =
        Request::get("/redfish/v1/Systems").header("x-auth-token", token).body(Bytes::new()).unwrap();
    assert_eq!(bench.lab.call(0, request).await.unwrap().status(), 401);
    assert_eq!(bench.lab.status(NAME).unwrap().power_state, "On", "the host never noticed");
}

#[tokio::test(start_paused = true)]
async fn power_loss_while_flashing_bricks_the_component() {
    let bench = r750();
    let job = bench.update("BIOS", Some("Immediate")).await;
    bench.wait(240).await;
    assert!(bench.lab.status(NAME).unwrap().flashing);
    assert_eq!(bench.reset("ForceOff").await.status(), 204);
    bench.wait(10).await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.bricked, counters.power_losses_while_flashing), (1, 1));
    assert_eq!(bench.state(&job).0, "Failed");
    assert_eq!(bench.reset("On").await.status(), 204);
    bench.wait(3_600).await;
    assert_eq!(bench.lab.status(NAME).unwrap().server_status, "InPOST", "it never boots again");
    let system = bench.get("/redfish/v1/Systems/System.Embedded.1").await;
    assert_eq!(system["Status"]["Health"], "Critical");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_off_flashes_when_it_is_turned_on() {
    let bench = bench(ServerSpec::new(NAME, Model::R770).powered_off());
    let job = bench.update("BIOS", Some("Immediate")).await;
    bench.wait(1_000).await;
    assert_eq!(bench.state(&job).0, "Scheduled");
    assert_eq!(bench.reset("ForceOff").await.status(), 409);
    assert_eq!(bench.reset("On").await.status(), 204);
    bench.wait(700).await;
    assert_eq!(bench.bios(), "1.2.6");
    let response = bench.reset("On").await;
    assert_eq!((response.status().as_u16(), message_id(&response).as_str()), (409, "IDRAC.2.9.PSU501"));
}

#[tokio::test(start_paused = true)]
async fn packages_are_known_by_their_content() {
    let bench = r750();
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    let wrong_model = "http://lab.invalid/packages/BIOS_R770_1.2.6.EXE";
    for (image, expected) in [(wrong_model, "SUP024"), ("http://lab.invalid/packages/none.EXE", "RED006")] {
        let body = json!({ "ImageURI": image, "@Redfish.OperationApplyTime": "OnReset" });
        let response = bench.post(path, body).await;
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        bench.wait(60).await;
        let (state, message) = bench.state(location.rsplit('/').next().unwrap());
        assert_eq!((state.as_str(), message), ("Failed", format!("IDRAC.2.7.{expected}")));
    }
    let package = bench.lab.package("BIOS_R750_1.13.2.EXE").unwrap();
    let job = multipart(&bench, &package.corrupted()).await;
    bench.wait(60).await;
    assert_eq!(bench.state(&job), ("Failed".to_owned(), "IDRAC.2.7.RED007".to_owned()));
    let job = multipart(&bench, &package.bytes).await;
    bench.wait(60).await;
    assert_eq!(bench.state(&job).0, "Scheduled");
    let refused = bench.post(path, json!({ "ImageURI": "ftp://x/y" })).await;
    assert_eq!((refused.status().as_u16(), message_id(&refused).as_str()), (400, "IDRAC.2.7.SYS426"));
    let refused = bench.post(path, json!({})).await;
    assert_eq!(message_id(&refused), "IDRAC.2.7.SYS428");
    let two = json!({ "ImageURI": "http://x/y", "Targets": ["/a", "/b"] });
    assert_eq!(message_id(&bench.post(path, two).await), "IDRAC.2.7.SYS442");
}

#[tokio::test(start_paused = true)]
async fn pushed_packages_become_available_and_installable() {
    let bench = bench(ServerSpec::new(NAME, Model::R730));
    let package = bench.lab.package("BIOS_R730_2.17.0.EXE").unwrap();
    let request = Request::post("/redfish/v1/UpdateService/FirmwareInventory")
        .header("authorization", &bench.auth)
        .body(package.bytes)
        .unwrap();
    let response = bench.lab.call(0, request).await.unwrap();
    assert_eq!(response.status(), 201);
    let image = response.headers()["location"].to_str().unwrap().to_owned();
    assert_eq!(bench.get(&image).await["Version"], "2.17.0");
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    assert_eq!(bench.post(path, json!({ "ImageURI": image })).await.status(), 202);
    bench.wait(60).await;
    bench.reset("ForceRestart").await;
    bench.wait(600).await;
    assert_eq!(bench.bios(), "2.17.0");
}

#[tokio::test(start_paused = true)]
async fn d03_an_address_is_blocked_after_three_failures_in_a_minute() {
    let bench = r750();
    let wrong = Bench { auth: basic("guess"), lab: bench.lab.clone(), model: bench.model };
    for _ in 0..2 {
        assert_eq!(wrong.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap().status(), 401);
    }
    bench.wait(61).await;
    assert_eq!(wrong.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap().status(), 401);
    bench.get("/redfish/v1/Systems").await;
    for _ in 0..3 {
        assert_eq!(wrong.send(Method::GET, "/redfish/v1/Systems", Value::Null).await.unwrap().status(), 401);
    }
    let refused = bench.send(Method::GET, "/redfish/v1/Systems", Value::Null).await;
    assert_eq!(refused.unwrap_err(), CallError::NotSent, "even with the right password");
    let neighbour = Bench {
        lab: bench.lab.from_client(IpAddr::from([127, 0, 0, 9])),
        auth: bench.auth.clone(),
        model: bench.model,
    };
    neighbour.get("/redfish/v1/Systems").await;
    bench.wait(61).await;
    bench.get("/redfish/v1/Systems").await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.auth_failures, counters.addresses_blocked, counters.blocked), (6, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn d01_the_session_table_is_finite_and_sessions_expire() {
    let bench = r750();
    let path = "/redfish/v1/SessionService/Sessions";
    let body = json!({ "UserName": "root", "Password": PASSWORD });
    let mut last = String::new();
    for _ in 0..8 {
        let response = bench.post(path, body.clone()).await;
        assert_eq!(response.status(), 201);
        last = response.headers()["location"].to_str().unwrap().to_owned();
    }
    let full = bench.post(path, body.clone()).await;
    assert_eq!((full.status().as_u16(), message_id(&full).as_str()), (503, "IDRAC.2.7.RAC0218"));
    assert_eq!(bench.send(Method::DELETE, &last, Value::Null).await.unwrap().status(), 204);
    assert_eq!(bench.post(path, body.clone()).await.status(), 201);
    bench.wait(1_801).await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.sessions_open, counters.sessions_peak, counters.logouts), (0, 8, 1));
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_capped_and_jobs_can_be_deleted() {
    let bench = r750();
    for _ in 0..256 {
        bench.lab.foreign_job(NAME, &ForeignJob::default()).unwrap();
    }
    bench.wait(10).await;
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    let body = json!({ "ImageURI": bench.package("BIOS") });
    let full = bench.post(path, body).await;
    assert_eq!((full.status().as_u16(), message_id(&full).as_str()), (400, "IDRAC.2.7.JCP017"));
    let first = bench.lab.status(NAME).unwrap().jobs[0].0.clone();
    let job = format!("/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/Jobs/{first}");
    assert_eq!(bench.send(Method::DELETE, &job, Value::Null).await.unwrap().status(), 200);
    assert_eq!(bench.send(Method::DELETE, &job, Value::Null).await.unwrap().status(), 404);
    bench.update("BIOS", Some("OnReset")).await;
}

#[tokio::test(start_paused = true)]
async fn mutations_of_two_clients_overlap_and_are_counted() {
    let bench = r750();
    let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
    let body = json!({ "ImageURI": bench.package("BIOS"), "@Redfish.OperationApplyTime": "OnReset" });
    let (one, two) = tokio::join!(bench.post(path, body.clone()), bench.post(path, body));
    assert_eq!((one.status().as_u16(), two.status().as_u16()), (202, 202));
    assert_eq!(bench.lab.counters(NAME).unwrap().overlapping_mutations, 1);
    bench.wait(120).await;
    bench.reset("ForceRestart").await;
    bench.wait(120).await;
    assert!(bench.lab.status(NAME).unwrap().flashing);
    let neighbour = Bench {
        lab: bench.lab.from_client(IpAddr::from([127, 0, 0, 9])),
        auth: bench.auth.clone(),
        model: bench.model,
    };
    let body = json!({ "ImageURI": bench.package("Diagnostics") });
    neighbour.post(path, body).await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!((counters.overlapping_mutations, counters.flash_attempts_while_flashing), (2, 1));
    bench.wait(3_600).await;
    assert_eq!(bench.lab.counters(NAME).unwrap().most_flashes_of_one(), 2, "the same package went in twice");
}

#[tokio::test(start_paused = true)]
async fn updates_can_wait_for_start_update() {
    let bench = r750();
    let job = bench.update("BIOS", Some("OnStartUpdateRequest")).await;
    bench.wait(60).await;
    assert_eq!(bench.state(&job).0, "Downloaded");
    bench.reset("ForceRestart").await;
    bench.wait(600).await;
    assert_eq!((bench.state(&job).0.as_str(), bench.bios().as_str()), ("Downloaded", "1.8.2"));
    let start = "/redfish/v1/UpdateService/Actions/UpdateService.StartUpdate";
    assert_eq!(bench.post(start, json!({})).await.status(), 204);
    bench.wait(600).await;
    assert_eq!(bench.bios(), "1.13.2");
}

#[tokio::test(start_paused = true)]
async fn components_without_an_id_are_matched_by_their_pci_tuple_and_flashed_once() {
    let bench = r750();
    bench.update("Network_Firmware_CX6", Some("Immediate")).await;
    bench.wait(900).await;
    let status = bench.lab.status(NAME).unwrap();
    assert_eq!(status.versions["InfiniBand.Slot.7-1"], "20.36.10.10");
    assert_eq!(status.versions["InfiniBand.Slot.7-2"], "20.36.10.10");
    assert_eq!(status.versions["Disk.Bay.0:Enclosure.Internal.0-1"], "2.1.3");
    let flashes = bench.lab.counters(NAME).unwrap().flashes;
    assert_eq!((flashes.len(), flashes[0].targets.len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn several_staged_updates_share_one_reboot() {
    let bench = r750();
    for prefix in ["BIOS", "Network_Firmware_BCM", "Power"] {
        bench.update(prefix, Some("OnReset")).await;
        bench.wait(60).await;
    }
    bench.reset("GracefulRestart").await;
    bench.wait(2_000).await;
    let counters = bench.lab.counters(NAME).unwrap();
    assert_eq!(counters.flashes_completed.values().sum::<u64>(), 3);
    assert_eq!(counters.host_resets.values().sum::<u64>(), 1);
    assert_eq!(bench.lab.status(NAME).unwrap().server_status, "OutOfPOST");
}
