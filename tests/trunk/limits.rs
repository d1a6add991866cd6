//! One changing run at a time on a server; cancelling, pausing and the hardware switch, in every phase.

use std::time::Duration;

use rackhand_lab::{Fault, Model, MutationKind, ServerSpec, Times};
use rackhand_tests::{StackConfig, TestStack};

fn r750(name: &str) -> ServerSpec {
    ServerSpec::new(name, Model::R750)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_jobs_on_the_same_servers_take_turns() {
    let names = ["one", "two", "three"];
    let stack = TestStack::start(StackConfig::new(names.map(r750).to_vec())).await;
    let update = stack.approved(stack.firmware("159", &names)).await;
    // A restart now would destroy what is being written.
    let flashing = async || names.iter().any(|name| stack.lab.status(name).unwrap().flashing);
    stack.until("a flash begins", Duration::from_secs(60), flashing).await;
    let restart = stack.power("force_restart", &names).await;
    for job in [&update, &restart] {
        let ended = stack.ended(job, Duration::from_secs(120)).await;
        assert_eq!(ended["state"], "succeeded", "{}", stack.story(job).await);
    }
    let counters = stack.lab.counters();
    assert_eq!((counters.overlapping_mutations, counters.bricked), (0, 0), "{:?}", counters.mutation_log);
    assert_eq!((counters.flashes.len(), counters.most_flashes_of_one()), (3, 1));
    assert_eq!(counters.power_losses_while_flashing, 0);
    assert_eq!(stack.site.database.value("select coalesce(sum(used), 0) from rackhand.capacity").await, 0);
}

/// `early` has not been touched yet, `staged` waits in the device's queue, `flashing` cannot be stopped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelling_leaves_each_server_as_it_should_be() {
    let servers = vec![r750("early"), r750("staged").powered_off(), r750("flashing").powered_off()];
    // Slower, so that a package takes a second to arrive: time to cancel before the restart.
    let config = StackConfig { speed: 30.0, ..StackConfig::new(servers) };
    let stack = TestStack::start(config).await;
    stack.lab.fault("early", Fault::LcBusy, Times::Always).unwrap();
    let before = stack.lab.status("staged").unwrap().bios_version;
    let mut jobs = vec![];
    for name in ["early", "staged", "flashing"] {
        jobs.push(stack.approved(stack.firmware("159", &[name])).await);
    }
    let [early, staged, flashing] = jobs.as_slice() else { unreachable!() };

    let created = async || stack.lab.counters_of("staged").unwrap().jobs_created == 1;
    stack.until("the package is handed over", Duration::from_secs(60), created).await;
    stack.control(staged, "cancel").await;
    let waits = async || stack.runs(early).await["early"]["state"] == "waiting";
    stack.until("the update waits for the device", Duration::from_secs(60), waits).await;
    stack.control(early, "cancel").await;
    let writes = async || stack.lab.status("flashing").unwrap().flashing;
    stack.until("the flash begins", Duration::from_secs(60), writes).await;
    stack.control(flashing, "cancel").await;

    for (name, job) in [("early", early), ("staged", staged)] {
        let ended = stack.ended(job, Duration::from_secs(60)).await;
        let story = stack.story(job).await;
        assert_eq!(ended["state"], "cancelled", "{story}");
        let run = &stack.runs(job).await[name];
        assert_eq!((&run["state"], &run["reason"]), (&"cancelled".into(), &"cancelled".into()), "{story}");
        assert!(stack.lab.counters_of(name).unwrap().flashes.is_empty(), "{story}");
    }
    assert!(stack.lab.counters_of("early").unwrap().mutations.is_empty());
    let counters = stack.lab.counters_of("staged").unwrap();
    assert_eq!((counters.jobs_created, counters.jobs_deleted), (1, 1), "its job was taken out again");
    let status = stack.lab.status("staged").unwrap();
    assert_eq!((status.bios_version, status.power_state.as_str()), (before, "Off"));

    stack.ended(flashing, Duration::from_secs(120)).await;
    let story = stack.story(flashing).await;
    assert_eq!(
        stack.runs(flashing).await["flashing"]["state"],
        "succeeded",
        "it was seen to its end: {story}"
    );
    let status = stack.lab.status("flashing").unwrap();
    assert_eq!(status.power_state, "Off", "as it was: {story}");
    let counters = stack.lab.counters_of("flashing").unwrap();
    assert_eq!((counters.flashes.len(), counters.bricked, counters.jobs_deleted), (1, 0, 0), "{story}");
    assert_eq!(stack.lab.counters().overlapping_mutations, 0);
    assert_eq!(stack.open_effects().await, 0, "{story}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_jobs_and_paused_hardware_wait() {
    let names = ["first", "second"];
    let stack = TestStack::start(StackConfig::new(names.map(r750).to_vec())).await;
    let resets = || stack.lab.counters().mutations.get(&MutationKind::Power).copied().unwrap_or(0);

    // One after the other, and paused in between.
    let mut spec = stack.firmware("159", &names);
    spec["policy"]["max_parallel"] = 1.into();
    let job = stack.approved(spec).await;
    let began = async || !stack.lab.counters().flashes.is_empty();
    stack.until("the first flash begins", Duration::from_secs(60), began).await;
    assert_eq!(stack.control(&job, "pause").await["state"], "paused");
    let one_done = async || stack.runs(&job).await.values().any(|run| run["state"] == "succeeded");
    stack.until("the one under way goes on", Duration::from_secs(60), one_done).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let queued = stack.runs(&job).await.values().filter(|run| run["state"] == "queued").count();
    assert_eq!((stack.lab.counters().flashes.len(), queued), (1, 1), "no further one begins");
    stack.control(&job, "resume").await;
    stack
        .until("it goes on", Duration::from_secs(60), async || {
            stack.get(&format!("/v1/jobs/{job}")).await["state"] == "succeeded"
        })
        .await;
    assert_eq!(stack.lab.counters().flashes.len(), 2);

    // The switch: nothing changes any hardware, reading goes on.
    let before = resets();
    stack.pause_hardware(true).await;
    let off = stack.power("force_off", &names).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(resets(), before, "{}", stack.story(&off).await);
    let runs = stack.runs(&off).await;
    assert!(runs.values().all(|run| run["state"] == "queued"), "nobody takes them: {runs:?}");
    let targets: Vec<_> = stack.ids.values().cloned().collect();
    let read = stack.create(serde_json::json!({"kind": "inventory", "params": {}, "targets": targets})).await;
    assert_eq!(stack.ended(&read, Duration::from_secs(30)).await["state"], "succeeded");
    stack.pause_hardware(false).await;
    assert_eq!(stack.ended(&off, Duration::from_secs(60)).await["state"], "succeeded");
    assert_eq!(resets(), before + 2);
    for name in names {
        assert_eq!(stack.lab.status(name).unwrap().power_state, "Off");
    }
    assert_eq!(stack.lab.counters().overlapping_mutations, 0);
}

/// An executor has the run already, and it has done nothing yet: the executor itself must not begin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paused_hardware_stops_a_run_that_is_leased() {
    let stack = TestStack::start(StackConfig::new(vec![r750("leased")])).await;
    stack.lab.fault("leased", Fault::LcBusy, Times::Always).unwrap();
    let job = stack.approved(stack.firmware("159", &["leased"])).await;
    let waits = async || stack.runs(&job).await["leased"]["state"] == "waiting";
    stack.until("the update waits for the device", Duration::from_secs(60), waits).await;
    stack.pause_hardware(true).await;
    // An executor hears of it with its next lease call, at most a third of the lease later.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stack.lab.clear_fault("leased", "lc_busy").unwrap());
    let held = async || stack.runs(&job).await["leased"]["reason"] == "hardware_paused";
    stack.until("the executor holds it", Duration::from_secs(60), held).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(stack.lab.counters().mutations.is_empty(), "{:?}", stack.lab.counters().mutation_log);
    stack.pause_hardware(false).await;
    assert_eq!(stack.ended(&job, Duration::from_secs(90)).await["state"], "succeeded");
}
