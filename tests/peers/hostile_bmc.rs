//! BMCs that answer with what no client should survive by luck: nested 100,000 deep, 64 MB, every type wrong,
//! or no text at all. Runs end with a code of the registry and a text; executors go on working.

use std::time::Duration;

use rackhand_lab::{Fault, HostileShape, Model, ServerSpec, Times};
use rackhand_schema::ErrorCode;
use rackhand_tests::{StackConfig, TestStack};
use serde_json::{Value, json};

const SHAPES: [(&str, HostileShape); 4] = [
    ("deep", HostileShape::Deep),
    ("huge", HostileShape::Huge),
    ("wrong-types", HostileShape::WrongTypes),
    ("garbage", HostileShape::Garbage),
];

fn config() -> StackConfig {
    let models = [Model::R650, Model::R750, Model::R730, Model::R770];
    let mut servers: Vec<_> =
        SHAPES.iter().zip(models).map(|((name, _), model)| ServerSpec::new(*name, model)).collect();
    servers.push(ServerSpec::new("sound", Model::R750));
    StackConfig { executors: 1, ..StackConfig::new(servers) }
}

/// Over all of them, whatever fails.
fn inventory(targets: &[String]) -> Value {
    json!({"kind": "inventory", "params": {}, "targets": targets,
        "policy": {"max_parallel": 8, "pause_after_failures": 0}})
}

fn arm(stack: &TestStack, times: Times) {
    for (name, shape) in SHAPES {
        stack.lab.fault(name, Fault::HostileBody { shape }, times).unwrap();
    }
}

/// A run that did not succeed says why, by a known code and in words.
fn classified(run: &Value) {
    let code = run["reason"].as_str().unwrap();
    assert!(ErrorCode::parse(code).is_some_and(|code| code.status() == 200), "{run}");
    assert!(run["detail"].as_str().unwrap().len() > 20, "{run}");
    assert!(run["detail"].as_str().unwrap().len() < 4000, "no device may fill a page: {run}");
}

async fn executors_live(stack: &TestStack) {
    for executor in &stack.executors {
        let pid = executor.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the executor lives");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak_kb: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
        assert!(peak_kb < 600 * 1024, "{peak_kb} kB at most for bodies of 64 MB");
        let log = std::fs::read_to_string(&executor.log).unwrap();
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_end_an_inventory_with_a_reason() {
    let stack = TestStack::registered(config()).await;
    arm(&stack, Times::Always);
    let targets: Vec<_> = stack.ids.values().cloned().collect();
    let job = stack.create(inventory(&targets)).await;
    stack.ended(&job, Duration::from_secs(120)).await;
    for (name, run) in stack.runs(&job).await {
        match (name.as_str(), run["state"].as_str().unwrap()) {
            ("sound", state) => assert_eq!(state, "succeeded", "{}", stack.story(&job).await),
            (_, "failed") => classified(&run),
            (_, state) => {
                // A document whose every type is wrong may still be read: then what is missing is named.
                assert_eq!(state, "succeeded", "{name}: {run}");
                let server = stack.get(&format!("/v1/servers/{}", stack.ids[&name])).await;
                assert_ne!(server["unreadable"], json!({}), "{server}");
                assert_eq!(server["service_tag"], Value::Null, "nothing made up: {server}");
            }
        }
    }
    executors_live(&stack).await;

    // One bad answer among good ones: the read is whole, or names what is missing.
    for (name, fault) in SHAPES.map(|(name, _)| (name, "hostile_body")) {
        stack.lab.clear_fault(name, fault).unwrap();
    }
    arm(&stack, Times::Once);
    let job = stack.create(inventory(&targets)).await;
    stack.ended(&job, Duration::from_secs(120)).await;
    for (name, run) in stack.runs(&job).await {
        if run["state"] != "succeeded" {
            assert_ne!(name, "sound", "{run}");
            classified(&run);
        }
    }
    let job = stack.create(inventory(&targets)).await;
    let done = stack.ended(&job, Duration::from_secs(120)).await;
    assert_eq!(done["state"], "succeeded", "well again: {}", stack.story(&job).await);
    executors_live(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_bodies_end_a_firmware_run_with_a_reason_and_harm_nothing() {
    let stack = TestStack::start(config()).await;
    let names: Vec<_> = stack.ids.keys().map(String::as_str).collect();
    let job = stack.approved(stack.firmware("159", &names)).await;
    // Whenever it strikes: some runs have begun, some have not.
    stack
        .until("a flash begins", Duration::from_secs(60), async || !stack.lab.counters().flashes.is_empty())
        .await;
    arm(&stack, Times::Count(6));
    stack.ended(&job, Duration::from_secs(150)).await;
    for (name, run) in stack.runs(&job).await {
        match run["state"].as_str().unwrap() {
            "succeeded" => {
                let server = stack.get(&format!("/v1/servers/{}", stack.ids[&name])).await;
                assert_eq!(server["bios_version"], stack.lab.status(&name).unwrap().bios_version, "{name}");
            }
            _ => {
                assert_ne!(name, "sound", "{}", stack.story(&job).await);
                classified(&run);
            }
        }
    }
    let counters = stack.lab.counters();
    assert_eq!(counters.bricked, 0);
    for name in names {
        let flashes = counters.flashes.iter().filter(|flash| flash.bmc == name).count();
        assert!(flashes <= 1, "{name} was flashed {flashes} times");
    }
    executors_live(&stack).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bmc_that_only_talks_nonsense_is_never_flashed() {
    let stack = TestStack::start(config()).await;
    let names: Vec<_> = stack.ids.keys().map(String::as_str).collect();
    arm(&stack, Times::Always);
    let job = stack.approved(stack.firmware("159", &names)).await;
    stack.ended(&job, Duration::from_secs(150)).await;
    for (name, run) in stack.runs(&job).await {
        if name == "sound" {
            assert_eq!(run["state"], "succeeded", "{}", stack.story(&job).await);
            continue;
        }
        assert_eq!(run["state"], "failed", "{name}: {run}");
        classified(&run);
        assert_eq!(stack.lab.counters_of(&name).unwrap().flashes.len(), 0, "{name}");
    }
    executors_live(&stack).await;
}
