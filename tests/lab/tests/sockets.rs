//! The same site over real sockets: HTTPS, refused and cut connections, downloads, control API, replay.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests fail the test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rackhand_lab::replay::{Replay, Tree};
use rackhand_lab::{Fault, Lab, LabConfig, Model, ServerSpec, Times};
use rustls_pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::time::{sleep, timeout};

const PASSWORD: &str = "correct horse";
const LIMIT: Duration = Duration::from_secs(60);

fn client() -> reqwest::Client {
    let builder = rackhand_lab::trusting_client().unwrap().timeout(Duration::from_secs(10));
    builder.pool_max_idle_per_host(0).build().unwrap()
}

/// An empty folder of this process.
fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("rackhand-lab-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// What a started process says about itself once it is ready.
async fn announced(ready: &Path) -> Value {
    loop {
        if let Ok(content) = std::fs::read(ready) {
            return serde_json::from_slice(&content).unwrap();
        }
        sleep(Duration::from_millis(50)).await;
    }
}

async fn read(client: &reqwest::Client, url: &str) -> Value {
    let response = client.get(url).basic_auth("root", Some(PASSWORD)).send().await.unwrap();
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn an_update_over_https_with_a_real_download() {
    timeout(LIMIT, async {
        let servers = vec![ServerSpec::new("one", Model::R750), ServerSpec::new("two", Model::R770)];
        let lab = Lab::start(LabConfig::new(servers, PASSWORD).speed(200.0)).await.unwrap();
        let client = client();
        let bmc = lab.bmc("one").unwrap().clone();
        let login = client
            .post(format!("{}/redfish/v1/SessionService/Sessions", bmc.url))
            .json(&json!({ "UserName": "root", "Password": PASSWORD }))
            .send()
            .await
            .unwrap();
        assert_eq!(login.status(), 201);
        let token = login.headers()["x-auth-token"].clone();
        let package = lab.packages().iter().find(|at| at.file_name == "BIOS_R750_1.13.2.EXE").unwrap();
        let response = client
            .post(format!("{}/redfish/v1/UpdateService/Actions/UpdateService.SimpleUpdate", bmc.url))
            .header("x-auth-token", token)
            .json(&json!({ "ImageURI": package.url, "@Redfish.OperationApplyTime": "Immediate" }))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 202);
        while lab.status("one").unwrap().bios_version != "1.13.2" {
            sleep(Duration::from_millis(100)).await;
        }
        let system = read(&client, &format!("{}/redfish/v1/Systems/System.Embedded.1", bmc.url)).await;
        assert_eq!(system["BiosVersion"], "1.13.2");
        let counters = lab.counters();
        assert_eq!((counters.most_flashes_of_one(), counters.logins, counters.bricked), (1, 1, 0));
        let update = &counters.mutation_log[0];
        assert!(update.began_real <= update.handled_real.unwrap());
        assert!(update.handled_real.unwrap() <= update.ended_real.unwrap());
        lab.shutdown().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_reset_refuses_connections_and_comes_back_on_the_same_port_with_the_same_key() {
    timeout(LIMIT, async {
        let lab =
            Lab::start(LabConfig::new(vec![ServerSpec::new("one", Model::R750)], PASSWORD).speed(100.0))
                .await
                .unwrap();
        let url = lab.bmc("one").unwrap().url.clone();
        let client = client();
        let reset = format!("{url}/redfish/v1/Managers/iDRAC.Embedded.1/Actions/Manager.Reset");
        let body = json!({ "ResetType": "GracefulRestart" });
        let response = client.post(reset).basic_auth("root", Some(PASSWORD)).json(&body).send().await;
        assert!(response.is_ok_and(|response| response.status() == 204));
        sleep(Duration::from_millis(100)).await;
        let address: SocketAddr = url.trim_start_matches("https://").parse().unwrap();
        let refused = tokio::net::TcpStream::connect(address).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        sleep(Duration::from_millis(2_000)).await;
        assert_eq!(read(&client, &format!("{url}/redfish/v1")).await["Vendor"], "Dell");
        assert_eq!(lab.counters().bmc_resets, 1);

        lab.fault("one", Fault::CutAfterAccept, Times::Once).unwrap();
        let power = format!("{url}/redfish/v1/Systems/System.Embedded.1/Actions/ComputerSystem.Reset");
        let cut = client
            .post(power)
            .basic_auth("root", Some(PASSWORD))
            .json(&json!({ "ResetType": "ForceOff" }))
            .send()
            .await;
        assert!(cut.is_err());
        sleep(Duration::from_millis(200)).await;
        assert_eq!(lab.status("one").unwrap().power_state, "Off");
        lab.shutdown().await;
    })
    .await
    .unwrap();
}

/// The key a server shows: the whole certificate will do, a new key means a new one.
async fn certificate(url: &str) -> Vec<u8> {
    let tls = rackhand_lab::trusting_tls().unwrap();
    let stream = tokio::net::TcpStream::connect(url.trim_start_matches("https://")).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(ServerName::try_from("bmc").unwrap(), stream).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn the_tls_key_changes_and_comes_back() {
    timeout(LIMIT, async {
        let lab =
            Lab::start(LabConfig::new(vec![ServerSpec::new("one", Model::R770)], PASSWORD)).await.unwrap();
        let url = lab.bmc("one").unwrap().url.clone();
        let usual = certificate(&url).await;
        lab.fault("one", Fault::ChangedTlsKey, Times::Always).unwrap();
        assert_ne!(certificate(&url).await, usual);
        lab.clear_fault("one", "changed_tls_key").unwrap();
        assert_eq!(certificate(&url).await, usual);
        lab.shutdown().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_control_api_shows_and_changes_everything() {
    timeout(LIMIT, async {
        let lab = Lab::start(LabConfig::new(ServerSpec::fleet(6, 3), PASSWORD)).await.unwrap();
        let (client, base) = (client(), format!("{}/lab", lab.control_url()));
        let site = read(&client, &base).await;
        assert_eq!(site["bmcs"].as_array().unwrap().len(), 6);
        assert!(!site.to_string().contains(PASSWORD));
        let name = site["bmcs"][0]["name"].as_str().unwrap();
        let package = client.get(site["packages"][0]["url"].as_str().unwrap()).send().await.unwrap();
        assert_eq!(
            package.bytes().await.unwrap().len() as u64,
            site["packages"][0]["size"].as_u64().unwrap()
        );

        let fault = format!("{base}/bmcs/{name}/faults/job_visibility_delay");
        let put = client.put(&fault).json(&json!({ "seconds": 45, "times": 2 })).send().await.unwrap();
        assert_eq!(put.status(), 204);
        let wrong = client.put(&fault).json(&json!({ "seconds": "x" })).send().await.unwrap();
        assert_eq!(wrong.status(), 400);
        let state = read(&client, &format!("{base}/bmcs/{name}")).await;
        assert_eq!(
            state["faults"][0],
            json!({ "fault": "job_visibility_delay", "seconds": 45, "remaining": 2 })
        );
        assert_eq!(client.delete(&fault).send().await.unwrap().status(), 204);
        assert_eq!(client.delete(&fault).send().await.unwrap().status(), 404);

        let job = client.post(format!("{base}/bmcs/{name}/foreign-job")).send().await.unwrap();
        assert_eq!(job.status(), 200);
        let time =
            client.post(format!("{base}/advance")).json(&json!({ "seconds": 3600 })).send().await.unwrap();
        let time: Value = serde_json::from_slice(&time.bytes().await.unwrap()).unwrap();
        assert!(time["simulated_seconds"].as_f64().unwrap() >= 3_600.0);
        let state = read(&client, &format!("{base}/bmcs/{name}")).await;
        assert_eq!(state["state"]["jobs"][0][2], "Scheduled");
        assert_eq!(read(&client, &format!("{base}/counters")).await["jobs_created"], 1);

        let partition = format!("{base}/bmcs/{name}/partition");
        assert_eq!(client.post(&partition).send().await.unwrap().status(), 204);
        sleep(Duration::from_millis(100)).await;
        let url = lab.bmc(name).unwrap().url.clone();
        assert!(client.get(format!("{url}/redfish/v1")).send().await.unwrap_err().is_connect());
        let heal = client.post(&partition).json(&json!({ "enabled": false })).send().await.unwrap();
        assert_eq!(heal.status(), 204);
        sleep(Duration::from_millis(100)).await;
        assert!(client.get(format!("{url}/redfish/v1")).send().await.is_ok());
        assert_eq!(client.get(format!("{base}/bmcs/nobody")).send().await.unwrap().status(), 404);
        lab.shutdown().await;
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_hundred_bmcs_are_cheap() {
    timeout(LIMIT, async {
        let started = tokio::time::Instant::now();
        let lab = Lab::start(LabConfig::new(ServerSpec::fleet(100, 1), PASSWORD).speed(50.0)).await.unwrap();
        let client = client();
        for bmc in lab.bmcs() {
            assert_eq!(client.get(format!("{}/redfish/v1", bmc.url)).send().await.unwrap().status(), 200);
        }
        lab.shutdown().await;
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    })
    .await
    .unwrap();
}

/// A small tree in the layout of the recorded one.
fn tree(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("tree.tar.gz");
    let file = std::fs::File::create(&path).unwrap();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(file, flate2::Compression::fast()));
    for (name, content) in [
        ("redfish/v1/index.json", r#"{"@odata.id":"/redfish/v1","Vendor":"Nobody"}"#),
        (
            "redfish/v1/Systems/index.json",
            r#"{"@odata.id":"/redfish/v1/Systems","Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#,
        ),
        ("redfish/v1/Systems/1/index.json", r#"{"@odata.id":"/redfish/v1/Systems/1","PowerState":"On"}"#),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap();
    path
}

#[tokio::test]
async fn a_recorded_tree_is_replayed_read_only() {
    timeout(LIMIT, async {
        let folder = folder("replay");
        let tree = Tree::read(&tree(&folder)).unwrap();
        let credentials = Some(("root".to_owned(), PASSWORD.to_owned()));
        let replay = Replay::start(tree, SocketAddr::from(([127, 0, 0, 1], 0)), credentials).await.unwrap();
        let (client, base) = (client(), format!("{}/redfish/v1", replay.url()));
        assert_eq!(client.get(&base).send().await.unwrap().status(), 200);
        assert_eq!(client.get(format!("{base}/Systems")).send().await.unwrap().status(), 401);
        for path in ["Systems", "Systems/"] {
            assert_eq!(read(&client, &format!("{base}/{path}")).await["@odata.id"], "/redfish/v1/Systems");
        }
        let members = read(&client, &format!("{base}/Systems?$expand=*($levels=1)")).await;
        assert_eq!(members["Members"][0]["PowerState"], "On");
        let missing = read(&client, &format!("{base}/Nothing")).await;
        assert!(missing["error"]["@Message.ExtendedInfo"].is_array());
        let login = client
            .post(format!("{base}/SessionService/Sessions"))
            .json(&json!({ "UserName": "root", "Password": PASSWORD }))
            .send()
            .await
            .unwrap();
        assert_eq!(login.status(), 201);
        let token = login.headers()["x-auth-token"].clone();
        let session = login.headers()["location"].to_str().unwrap().to_owned();
        let get = || client.get(format!("{base}/Systems")).header("x-auth-token", token.clone()).send();
        assert_eq!(get().await.unwrap().status(), 200);
        let refused = client
            .patch(format!("{base}/Systems"))
            .header("x-auth-token", token.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(refused.status(), 405);
        let logout =
            client.delete(format!("{}{session}", replay.url())).header("x-auth-token", token.clone());
        assert_eq!(logout.send().await.unwrap().status(), 204);
        assert_eq!(get().await.unwrap().status(), 401);
        replay.shutdown().await;
        std::fs::remove_dir_all(&folder).unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_process_announces_itself_and_ends_on_sigterm() {
    timeout(LIMIT, async {
        let folder = folder("serve");
        let ready = folder.join("ready.json");
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_rackhand-lab"))
            .args(["serve", "--servers", "2", "--speed", "30", "--password-stdin", "--ready-file"])
            .arg(&ready)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(format!("{PASSWORD}\n").as_bytes()).await.unwrap();
        let ready = announced(&ready).await;
        let url = ready["bmcs"][0]["url"].as_str().unwrap();
        assert!(read(&client(), &format!("{url}/redfish/v1/Systems")).await["Members"].is_array());
        let ipmi = ready["bmcs"][0]["ipmi"].as_str().unwrap().parse().unwrap();
        assert!(
            rackhand_ipmi::probe(&rackhand_ipmi::Sockets::new().unwrap(), ipmi).await.unwrap().answered()
        );
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(child.wait().await.unwrap().success());
        std::fs::remove_dir_all(&folder).unwrap();
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_process_ends_with_the_one_that_started_it() {
    timeout(LIMIT, async {
        let folder = folder("orphan");
        let (secret, ready) = (folder.join("password"), folder.join("ready.json"));
        std::fs::write(&secret, PASSWORD).unwrap();
        let script = r#""$0" serve --servers 1 --password-file "$1" --ready-file "$2" >/dev/null & wait"#;
        let mut shell = tokio::process::Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_rackhand-lab")])
            .args([&secret, &ready])
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let address =
            announced(&ready).await["control_url"].as_str().unwrap().trim_start_matches("http://").to_owned();
        assert!(tokio::net::TcpStream::connect(&address).await.is_ok());
        shell.kill().await.unwrap();
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
        std::fs::remove_dir_all(&folder).unwrap();
    })
    .await
    .unwrap();
}
