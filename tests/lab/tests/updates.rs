//! The model's behaviour in virtual time: what an update, a reset and a wrong password do to a BMC.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

use std::net::IpAddr;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use rackhand_lab::{
    CallError, Fault, ForeignJob, HostileShape, InProcess, Model, MutationKind, ServerSpec, SiteConfig, Times,
};
use serde_json::{Value, json};
use tokio::time::sleep;

const PASSWORD: &str = "correct horse";
const NAME: &str = "bmc-01";

struct Bench {
    lab: InProcess,
    auth: String,
    model: Model,
}

fn bench(spec: ServerSpec) -> Bench {
    let model = spec.model;
    let lab = InProcess::new(&SiteConfig::new(vec![spec], PASSWORD));
    Bench { lab, auth: basic(PASSWORD), model }
}

fn r750() -> Bench {
    bench(ServerSpec::new(NAME, Model::R750))
}

fn basic(password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(format!("root:{password}")))
}

fn json_of(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).unwrap_or(Value::Null)
}

impl Bench {
    async fn send(&self, method: Method, path: &str, body: Value) -> Result<Response<Bytes>, CallError> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", &self.auth)
            .header("content-type", "application/json")
            .body(body)
            .unwrap();
        self.lab.call(0, request).await
    }

    async fn get(&self, path: &str) -> Value {
        let response = self.send(Method::GET, path, Value::Null).await.unwrap();
        assert_eq!(response.status(), 200, "{path}: {:?}", response.body());
        json_of(&response)
    }

    async fn post(&self, path: &str, body: Value) -> Response<Bytes> {
        self.send(Method::POST, path, body).await.unwrap()
    }

    fn package(&self, prefix: &str) -> String {
        let product = self.model.product();
        let found = self.lab.packages().into_iter().find(|package| {
            package.file_name.starts_with(prefix) && package.header.models.iter().any(|at| at == product)
        });
        found.unwrap().url
    }

    /// Starts an update and returns the job's id.
    async fn update(&self, prefix: &str, apply: Option<&str>) -> String {
        let mut body = json!({ "ImageURI": self.package(prefix), "TransferProtocol": "HTTP" });
        if let Some(apply) = apply {
            body["@Redfish.OperationApplyTime"] = json!(apply);
        }
        let path = "/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate";
        let response = self.post(path, body).await;
        assert_eq!(response.status(), 202, "{:?}", response.body());
        let location = response.headers()["location"].to_str().unwrap();
        location.rsplit('/').next().unwrap().to_owned()
    }

    async fn reset(&self, kind: &str) -> Response<Bytes> {
        let path = "/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset";
        self.post(path, json!({ "ResetType": kind })).await
    }

    fn state(&self, job: &str) -> (String, String) {
        let status = self.lab.status(NAME).unwrap();
        let found = status.jobs.into_iter().find(|(id, ..)| id == job).unwrap();
        (found.2, found.3)
    }

    fn bios(&self) -> String {
        self.lab.status(NAME).unwrap().bios_version
    }

    async fn wait(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
        self.lab.skip(Duration::ZERO);
    }
}

fn message_id(response: &Response<Bytes>) -> String {
    let info = &json_of(response)["error"]["@Message.ExtendedInfo"];
    let first = if info.is_array() { &info[0] } else { info };
    first["MessageId"].as_str().unwrap_or_default().to_owned()
}

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

async fn multipart(bench: &Bench, file: &[u8]) -> String {
    let mut body = Vec::new();
    body.extend_from_slice(
        b"--XX\r\nContent-Disposition: form-data; name=\"UpdateParameters\"\r\nContent-Type: application/json\r\n\r\n\
          {\"@Redfish.OperationApplyTime\": \"OnReset\"}\r\n--XX\r\nContent-Disposition: form-data; \
          name=\"UpdateFile\"; filename=\"b.EXE\"\r\nContent-Type: application/octet-stream\r\n\r\n",
    );
    body.extend_from_slice(file);
    body.extend_from_slice(b"\r\n--XX--\r\n");
    let request = Request::post("/redfish/v1/UpdateService/MultipartUpload")
        .header("authorization", &bench.auth)
        .header("content-type", "multipart/form-data; boundary=XX")
        .body(Bytes::from(body))
        .unwrap();
    let response = bench.lab.call(0, request).await.unwrap();
    assert_eq!(response.status(), 202);
    response.headers()["location"].to_str().unwrap().rsplit('/').next().unwrap().to_owned()
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
async fn foreign_jobs_stand_in_the_queue_and_can_be_the_same_update() {
    let bench = r750();
    let foreign = ForeignJob { package: Some("BIOS_R750_1.13.2.EXE".to_owned()), immediate: false };
    let id = bench.lab.foreign_job(NAME, &foreign).unwrap();
    bench.wait(60).await;
    assert_eq!(bench.state(&id).0, "Scheduled");
    let ours = bench.update("BIOS", Some("OnReset")).await;
    assert_ne!(id, ours);
}
