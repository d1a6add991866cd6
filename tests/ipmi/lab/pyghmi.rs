//! pyghmi as a client: an implementation of RMCP+ that shares nothing with ipmitool, FreeIPMI or ours.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use rackhand_ipmi_tests::venv::environment;
use rackhand_lab::Model;

use crate::{PASSWORD, beside, lab};

const SCRIPT: &str = include_str!("pyghmi_client.py");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pyghmi_reads_power_sensors_log_and_inventory() {
    let (lab, bmc, address) = lab(Model::R750).await;
    let output = beside(move || {
        let mut child = Command::new(environment("pyghmi", &["pyghmi==1.6.19"]).join("python"))
            .args(["-c", SCRIPT, &address.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(PASSWORD.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    })
    .await;
    assert!(output.status.success());
    let seen: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(seen["power"], "on", "{seen}");
    assert_eq!(seen["sensors"], 40, "{seen}");
    assert!(seen["inlet"].as_f64().unwrap() < 30.0, "{seen}");
    assert!(seen["inventory"].as_str().unwrap().contains(&bmc.service_tag), "{seen}");
    assert_eq!(seen["events"], 1, "{seen}");
    assert_eq!(seen["boot"], "network", "{seen}");
    assert_eq!(lab.status("bmc-7").unwrap().boot_override.0, "Pxe");
}
