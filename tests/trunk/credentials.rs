//! A wrong password: two executors together stay far below what makes a BMC block them.

use std::time::Duration;

use rackhand_lab::{Model, ServerSpec};
use rackhand_tests::{StackConfig, TestStack, stack::BMC_PASSWORD};
use serde_json::json;

/// Failed logins within a minute after which an iDRAC blocks an address.
const BLOCKS_AT: u64 = 3;
/// What a wrong password may cost in the whole site.
const SITE_BUDGET: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_blocks_nobody_and_a_new_version_heals() {
    let names = ["a", "b", "c", "d"];
    let servers = names.map(|name| ServerSpec::new(name, Model::R750)).to_vec();
    let wrong = StackConfig { password: "not the password".to_owned(), ..StackConfig::new(servers) };
    let stack = TestStack::registered(wrong).await;
    let targets: Vec<_> = stack.ids.values().cloned().collect();
    let mut jobs = vec![];
    // Several at once, then once more: the refusals are remembered.
    for _ in 0..2 {
        let both = [0; 2].map(|_| {
            json!({"kind": "inventory", "params": {}, "targets": targets,
            "policy": {"max_parallel": 50, "pause_after_failures": 0}})
        });
        for job in both {
            jobs.push(stack.create(job).await);
        }
        for job in &jobs {
            assert_eq!(stack.ended(job, Duration::from_secs(60)).await["state"], "failed");
            let story = stack.story(job).await;
            for (name, run) in stack.runs(job).await {
                let reason = run["reason"].as_str().unwrap();
                assert!(
                    ["bmc-auth-failed", "credential-suspended"].contains(&reason),
                    "{name} {reason}: {story}"
                );
            }
        }
    }
    for name in names {
        let counters = stack.lab.counters_of(name).unwrap();
        assert!(counters.auth_failures < BLOCKS_AT, "{name}: {}", counters.auth_failures);
    }
    let counters = stack.lab.counters();
    assert!((1..=SITE_BUDGET).contains(&counters.auth_failures), "{}", counters.auth_failures);
    assert_eq!((counters.addresses_blocked, counters.blocked, counters.logins), (0, 0, 0));

    stack.store_credential("lab", 2, BMC_PASSWORD, &names).await;
    let again = stack.control(&jobs[0], "retry-failed").await["id"].as_str().unwrap().to_owned();
    let ended = stack.ended(&again, Duration::from_secs(60)).await;
    assert_eq!(ended["state"], "succeeded", "{}", stack.story(&again).await);
    assert_eq!(stack.lab.counters().auth_failures, counters.auth_failures);
}
