//! A Redfish service that nobody here wrote: sushy-tools' emulator. Its systems are registered, read,
//! switched off and on by a job and read back, though their power changes only seconds after the request.

use std::time::Duration;

use rackhand_tests::{
    StackConfig, TestStack,
    stack::{BMC_PASSWORD, ForeignBmc},
    sushy::SushyEmulator,
};
use serde_json::{Value, json};

/// Real time: the emulator knows no other.
async fn stack() -> TestStack {
    TestStack::start_empty(StackConfig { executors: 2, speed: 1.0, ..StackConfig::new(vec![]) }).await
}

async fn server(stack: &TestStack, name: &str) -> Value {
    stack.get(&format!("/v1/servers/{}", stack.ids[name])).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_service_is_read_and_its_systems_are_switched_and_read_back() {
    let (first, second) = (
        SushyEmulator::start(&["alpha"], BMC_PASSWORD).await,
        SushyEmulator::start(&["beta"], BMC_PASSWORD).await,
    );
    let mut stack = stack().await;
    let bmcs = [first.as_bmc("alpha"), second.as_bmc("beta")];
    stack.register_bmcs("foreign", SushyEmulator::USERNAME, BMC_PASSWORD, &bmcs).await;
    let targets: Vec<_> = stack.ids.values().cloned().collect();

    let job = stack.create(json!({"kind": "inventory", "params": {}, "targets": targets})).await;
    let done = stack.ended(&job, Duration::from_secs(120)).await;
    assert_eq!(done["state"], "succeeded", "{}", stack.story(&job).await);
    for name in ["alpha", "beta"] {
        let read = server(&stack, name).await;
        assert_eq!(read["vendor"], "Sushy Emulator", "{read}");
        assert_eq!(read["power"], "on");
        assert_eq!(read["health"], "ok");
        assert!(read["capabilities"].as_array().unwrap().contains(&json!("power")), "{read}");
        assert!(!read["capabilities"].as_array().unwrap().contains(&json!("sessions")), "{read}");
    }

    for (action, state) in [("force_off", "off"), ("on", "on")] {
        let before: Vec<_> = [&first, &second].map(resets).into();
        let spec = json!({"kind": "power", "params": {"action": action}, "targets": targets});
        let job = stack.approved(spec).await;
        let done = stack.ended(&job, Duration::from_secs(180)).await;
        assert_eq!(done["state"], "succeeded", "{}", stack.story(&job).await);
        for (run_server, run) in stack.runs(&job).await {
            assert_eq!(run["state"], "succeeded", "{run_server}: {run}");
            assert!(run["detail"].as_str().unwrap().contains("read back"), "{run}");
            assert_eq!(server(&stack, &run_server).await["power"], state, "{run_server}");
        }
        let after: Vec<_> = [&first, &second].map(resets).into();
        let once: Vec<_> = before.iter().map(|count| count + 1).collect();
        assert_eq!(after, once, "each was asked once, however long it took");
    }

    // This service has overrides that stand, and none for one boot.
    let params = json!({"target": "pxe", "times": "continuous"});
    for state in ["succeeded", "no_change"] {
        let spec = json!({"kind": "boot_override", "params": params, "targets": targets});
        let job = stack.approved(spec).await;
        let done = stack.ended(&job, Duration::from_secs(120)).await;
        assert_eq!(done["state"], "succeeded", "{}", stack.story(&job).await);
        for (run_server, run) in stack.runs(&job).await {
            assert_eq!(run["state"], state, "{run_server}: {run}");
        }
    }
    assert_eq!(first.requests("PATCH", "/redfish/v1/Systems/"), 1, "the second time there is nothing to do");
}

/// Reset requests that the emulator has answered.
fn resets(emulator: &SushyEmulator) -> usize {
    emulator.requests("POST", "/Actions/ComputerSystem.Reset")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_several_systems_is_refused_and_none_of_them_touched() {
    let emulator = SushyEmulator::start(&["one", "two", "three"], BMC_PASSWORD).await;
    let mut stack = stack().await;
    stack.register_bmcs("foreign", SushyEmulator::USERNAME, BMC_PASSWORD, &[emulator.as_bmc("many")]).await;
    let targets = [stack.ids["many"].clone()];
    let inventory = stack.create(json!({"kind": "inventory", "params": {}, "targets": targets})).await;
    let power =
        stack.approved(json!({"kind": "power", "params": {"action": "force_off"}, "targets": targets})).await;
    let mut path = String::new();
    for job in [inventory, power] {
        let done = stack.ended(&job, Duration::from_secs(120)).await;
        assert_eq!(done["state"], "failed", "{}", stack.story(&job).await);
        let run = stack.runs(&job).await["many"].clone();
        assert_eq!(run["reason"], "device-refused", "{run}");
        let detail = run["detail"].as_str().unwrap();
        assert!(detail.contains("the service holds 3 systems"), "{detail}");
        assert!(detail.contains("Name one in the server's address"), "{detail}");
        let system = detail.split("https://HOST").nth(1).unwrap();
        path = system.split_whitespace().next().unwrap().trim_end_matches('.').to_owned();
    }
    assert_eq!(resets(&emulator), 0, "{}", emulator.log());

    // The one that is named is read.
    let bmc = emulator.as_bmc("many");
    let named = ForeignBmc { url: format!("{}{path}", bmc.url), ..bmc };
    stack.register_bmcs("foreign-named", SushyEmulator::USERNAME, BMC_PASSWORD, &[named]).await;
    let inventory = stack.create(json!({"kind": "inventory", "params": {}, "targets": targets})).await;
    let done = stack.ended(&inventory, Duration::from_secs(120)).await;
    assert_eq!(done["state"], "succeeded", "{}", stack.story(&inventory).await);
}
