//! Invariant 13: a control plane that is away for long harms nothing.

use std::time::Duration;

use rackhand_lab::{Model, ServerSpec};
use rackhand_tests::{StackConfig, TestStack};

/// The host was off, so that there is something to undo when the flash has ended: not without a lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hours_without_a_control_plane_in_mid_flash() {
    let servers = vec![
        ServerSpec::new("asleep", Model::R750).powered_off(),
        ServerSpec::new("running", Model::R7525),
        ServerSpec::new("old", Model::R730),
    ];
    let names = ["asleep", "running", "old"];
    let config = StackConfig::new(servers);
    let ttl = Duration::from_millis(config.lease_ttl_ms.into());
    let stack = TestStack::start(config).await;
    let job = stack.approved(stack.firmware("159", &names)).await;
    let flashing = async || names.iter().all(|name| stack.lab.status(name).unwrap().flashing);
    stack.until("all are flashing", Duration::from_secs(60), flashing).await;

    stack.executors.iter().for_each(|executor| executor.relay.cut());
    let cut = stack.lab.now();
    let lease_end = (cut + ttl.mul_f64(120.0)).as_secs_f64();
    tokio::time::sleep(ttl).await;
    stack.lab.advance(Duration::from_secs(2 * 3600));
    tokio::time::sleep(ttl * 2).await;
    let away = stack.lab.counters();
    let last = away.last_mutation.unwrap();
    assert!(last < lease_end, "a mutation at {last} s, the leases ended at {lease_end} s");
    assert!(names.iter().all(|name| !stack.lab.status(name).unwrap().flashing), "the flashes went on");
    assert_eq!(stack.lab.status("asleep").unwrap().power_state, "On", "undoing needs a lease too");
    assert_eq!(away.flashes.len(), names.len());

    stack.executors.iter().for_each(|executor| executor.relay.mend());
    let ended = stack.ended(&job, Duration::from_secs(90)).await;
    let story = stack.story(&job).await;
    assert_eq!(ended["state"], "succeeded", "{story}");
    let counters = stack.lab.counters();
    assert_eq!(
        (counters.flashes.len(), counters.most_flashes_of_one(), counters.bricked),
        (3, 1, 0),
        "{story}"
    );
    assert_eq!(counters.overlapping_mutations, 0, "{story}");
    assert_eq!(stack.lab.status("asleep").unwrap().power_state, "Off", "{story}");
    assert_eq!(stack.open_effects().await, 0, "{story}");
    for name in names {
        let server = stack.get(&format!("/v1/servers/{}", stack.ids[name])).await;
        assert_eq!(server["bios_version"], stack.lab.status(name).unwrap().bios_version, "{name}");
    }
}
