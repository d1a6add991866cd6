//! The path itself: registered, read, planned, approved, flashed once, read back.

use std::time::Duration;

use rackhand_lab::{Model, ServerSpec};
use rackhand_tests::{StackConfig, TestStack};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_generations_are_flashed_once_while_an_executor_is_killed() {
    let servers = vec![
        ServerSpec::new("old", Model::R730),
        ServerSpec::new("selfish", Model::R650).idrac("4.40.10.00"),
        ServerSpec::new("plain", Model::R750),
        ServerSpec::new("asleep", Model::R7525).powered_off(),
        ServerSpec::new("new", Model::R770),
    ];
    let mut stack = TestStack::start(StackConfig::new(servers)).await;
    let names: Vec<_> = stack.ids.keys().cloned().collect();
    let targets: Vec<_> = names.iter().map(String::as_str).collect();
    let job = stack.approved(stack.firmware("159", &targets)).await;

    stack
        .until("a flash begins", Duration::from_secs(60), async || !stack.lab.counters().flashes.is_empty())
        .await;
    stack.executors[0].kill();
    let ended = stack.ended(&job, Duration::from_secs(120)).await;
    assert_eq!(ended["state"], "succeeded", "{}", stack.story(&job).await);

    let counters = stack.lab.counters();
    assert_eq!(counters.flashes.len(), targets.len(), "each server flashed once: {:?}", counters.flashes);
    assert_eq!(counters.bricked, 0);
    for name in targets {
        let server = stack.get(&format!("/v1/servers/{}", stack.ids[name])).await;
        let status = stack.lab.status(name).unwrap();
        assert_eq!(server["bios_version"], status.bios_version, "{name}: what is shown was read back");
        assert_eq!(server["power"], if name == "asleep" { "off" } else { "on" }, "{name}: power as it was");
    }
    assert_eq!(
        stack
            .site
            .database
            .value("select count(*) from rackhand.effect where state in ('intended', 'applied', 'settling')")
            .await,
        0
    );
    assert_eq!(stack.site.database.value("select coalesce(sum(used), 0) from rackhand.capacity").await, 0);
}
