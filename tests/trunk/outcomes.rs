//! Devices that lie, stall and refuse, over HTTPS and through the whole system.

use std::time::Duration;

use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_tests::{StackConfig, TestStack};

struct Row {
    name: &'static str,
    fault: Fault,
    times: Times,
    state: &'static str,
    reason: &'static str,
    /// Whether the device wrote anything.
    flashed: bool,
}

const fn row(name: &'static str, fault: Fault, state: &'static str, reason: &'static str) -> Row {
    Row { name, fault, times: Times::Once, state, reason, flashed: true }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_read_back_decides() {
    let rows = [
        Row { times: Times::Count(2), ..row("d01", Fault::SessionTableFull, "succeeded", "") },
        Row { times: Times::Count(5), ..row("d11", Fault::NotReadySwc0700, "succeeded", "") },
        row("d14", Fault::TaskVanishes { seconds: 5, everywhere: true }, "succeeded", ""),
        row("d15", Fault::CompletedCritical, "failed", "device-failed"),
        row("d20", Fault::VersionUnchanged, "failed", "version-not-reached"),
        // "Up to date", says the device, and shows the old version: that is not what was asked for.
        Row { flashed: false, ..row("d22", Fault::UpToDateSup029, "failed", "version-not-reached") },
    ];
    let servers = rows.iter().map(|row| ServerSpec::new(row.name, Model::R750)).collect();
    let mut config = StackConfig::new(servers);
    config.executors = 1;
    let mut stack = TestStack::start(config).await;
    // Sessions of the inventory are gone, so that d01 needs a login.
    stack.executors[0].kill();
    for row in &rows {
        stack.lab.fault(row.name, row.fault.clone(), row.times).unwrap();
    }
    stack.executors[0].start();
    let names = rows.each_ref().map(|row| row.name);
    let job = stack.approved(stack.firmware("159", &names)).await;
    stack.ended(&job, Duration::from_secs(120)).await;
    let (runs, story) = (stack.runs(&job).await, stack.story(&job).await);
    for row in &rows {
        let run = &runs[row.name];
        let ended = (run["state"].as_str().unwrap(), run["reason"].as_str().unwrap());
        assert_eq!(ended, (row.state, row.reason), "{}: {story}", row.name);
        let counters = stack.lab.counters_of(row.name).unwrap();
        assert_eq!(counters.flashes.len(), usize::from(row.flashed), "{}: {story}", row.name);
        assert!(run["detail"].as_str().unwrap().contains(row.name), "{run}");
    }
    assert_eq!(stack.lab.counters().bricked, 0);
    assert_eq!(stack.open_effects().await, 0);
}

/// Two people plan the same update; whose run comes second finds it done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_is_there_already_is_no_change() {
    let mut config = StackConfig::new(vec![ServerSpec::new("twice", Model::R750)]);
    config.executors = 1;
    let stack = TestStack::start(config).await;
    let jobs = [
        stack.approved(stack.firmware("159", &["twice"])).await,
        stack.approved(stack.firmware("159", &["twice"])).await,
    ];
    let mut states = vec![];
    for job in &jobs {
        assert_eq!(
            stack.ended(job, Duration::from_secs(60)).await["state"],
            "succeeded",
            "{}",
            stack.story(job).await
        );
        states.push(stack.runs(job).await["twice"]["state"].clone());
    }
    assert_eq!(states, ["succeeded", "no_change"]);
    let counters = stack.lab.counters();
    assert_eq!((counters.flashes.len(), counters.overlapping_mutations), (1, 0));
}
