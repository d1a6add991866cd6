//! Client CPU for one Redfish request over HTTPS, ours and PyPI `redfish`'s, against the same BMC of the lab.

use std::sync::Arc;

use rackhand_lab::{Lab, LabConfig, Model, ServerSpec};
use rackhand_redfish::{
    Client, Credentials, Endpoint, FirstRejectionCloses, HttpsTransport, TlsTrust, Unobserved,
};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use crate::{Peers, Row};

const REQUESTS: u32 = 1000;
const PASSWORD: &str = "bench-password";

pub async fn measure(peers: &Peers) -> Vec<Row> {
    let servers = vec![ServerSpec::new("one", Model::R750)];
    // A BMC takes its time to answer; here only what the client does with the answer counts.
    let config = LabConfig { speed: 1000.0, ..LabConfig::new(servers, PASSWORD) };
    let lab = Lab::start(config).await.unwrap();
    let bmc = lab.bmcs()[0].clone();
    let (url, user) = (bmc.url.clone(), bmc.username.clone());
    // A thread of its own, whose CPU clock counts the client alone.
    let ours = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(read(&url, &user))
    })
    .await
    .unwrap();
    let arguments = json!({"url": bmc.url, "user": bmc.username, "password": PASSWORD, "requests": REQUESTS});
    let peer = peers.run("python", "redfish_client.py", &[], &arguments.to_string());
    let theirs = peer[0]["cpu_ms"].as_f64().unwrap();
    lab.shutdown().await;
    vec![Row {
        work: format!(
            "client CPU for a Redfish request (one ComputerSystem over HTTPS, {REQUESTS} requests)"
        ),
        ours: format!("{ours:.3} ms"),
        peer: format!("python redfish: {theirs:.3} ms"),
        target: "≤ 0.12 ms".to_owned(),
        met: ours <= 0.12,
    }]
}

/// Milliseconds of this thread's CPU for each request.
async fn read(url: &str, user: &str) -> f64 {
    let client = Client::new(
        Arc::new(HttpsTransport::new(TlsTrust::FirstUse)),
        Endpoint::parse(url).unwrap(),
        Credentials::new(user, PASSWORD.to_owned().into()),
        Arc::new(FirstRejectionCloses::default()),
        Arc::new(Unobserved),
    );
    client.system().await.unwrap();
    let before = cpu_ms();
    for _ in 0..REQUESTS {
        client.system().await.unwrap();
    }
    let spent = cpu_ms() - before;
    client.close().await;
    spent / f64::from(REQUESTS)
}

fn cpu_ms() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
}
