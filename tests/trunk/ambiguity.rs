//! Invariant 4: a lost answer is resolved by looking, never by asking again.

use std::time::Duration;

use rackhand_lab::{Fault, ForeignJob, Model, MutationKind, ServerSpec, Times};
use rackhand_tests::{StackConfig, TestStack};

const YEAR: i64 = 31_536_000;

fn r750(name: &str) -> ServerSpec {
    ServerSpec::new(name, Model::R750)
}

fn uploads(stack: &TestStack, name: &str) -> u64 {
    let counters = stack.lab.counters_of(name).unwrap();
    counters.mutations.get(&MutationKind::MultipartUpdate).copied().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_flash_whatever_becomes_of_the_answer() {
    let servers = vec![
        r750("cut"),
        r750("hidden"),
        r750("cut-and-hidden"),
        r750("last-year").clock_offset(-YEAR),
        r750("next-year").clock_offset(YEAR),
        r750("busy"),
    ];
    let stack = TestStack::start(StackConfig::new(servers)).await;
    let hidden = Fault::JobVisibilityDelay { seconds: 45 };
    for name in ["cut", "cut-and-hidden", "last-year", "next-year"] {
        stack.lab.fault(name, Fault::CutAfterAccept, Times::Once).unwrap();
    }
    for name in ["hidden", "cut-and-hidden"] {
        stack.lab.fault(name, hidden.clone(), Times::Once).unwrap();
    }
    // Somebody's BIOS configuration waits for a reboot.
    stack.lab.foreign_job("busy", &ForeignJob::default()).unwrap();

    let updated = ["cut", "hidden", "cut-and-hidden", "last-year", "next-year"];
    let job = stack.approved(stack.firmware("159", &[updated.as_slice(), &["busy"]].concat())).await;
    stack.ended(&job, Duration::from_secs(120)).await;
    let (runs, story) = (stack.runs(&job).await, stack.story(&job).await);
    for name in updated {
        assert_eq!(runs[name]["state"], "succeeded", "{name}: {story}");
        assert_eq!(uploads(&stack, name), 1, "{name} was handed its package once: {story}");
        assert_eq!(stack.lab.counters_of(name).unwrap().flashes.len(), 1, "{name}");
        let server = stack.get(&format!("/v1/servers/{}", stack.ids[name])).await;
        assert_eq!(server["bios_version"], stack.lab.status(name).unwrap().bios_version, "{name}");
    }
    assert_eq!(
        (&runs["busy"]["state"], &runs["busy"]["reason"]),
        (&"failed".into(), &"foreign-device-job".into())
    );
    let busy = stack.lab.counters_of("busy").unwrap();
    assert!(busy.mutations.is_empty(), "foreign work was left alone: {:?}", busy.mutations);
    assert_eq!(stack.lab.counters().overlapping_mutations, 0, "{story}");
    assert_eq!(stack.open_effects().await, 0, "{story}");
}

/// Nobody is left who sent the request, and its job is not to be seen yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_cut_and_its_executor_killed() {
    let mut stack = TestStack::start(StackConfig::new(vec![r750("orphan")])).await;
    stack.lab.fault("orphan", Fault::CutAfterAccept, Times::Once).unwrap();
    stack.lab.fault("orphan", Fault::JobVisibilityDelay { seconds: 45 }, Times::Once).unwrap();
    let job = stack.approved(stack.firmware("159", &["orphan"])).await;
    let began = async || stack.runs(&job).await["orphan"]["phase"] == "stage";
    stack.until("the stage phase begins", Duration::from_secs(60), began).await;
    let first = stack.executor_of(&job, "orphan").await;
    let until = std::time::Instant::now() + Duration::from_secs(30);
    while stack.lab.counters().jobs_created == 0 {
        assert!(std::time::Instant::now() < until, "{}", stack.story(&job).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    stack.executors[first].kill();

    stack.ended(&job, Duration::from_secs(120)).await;
    let (runs, story) = (stack.runs(&job).await, stack.story(&job).await);
    assert_ne!(stack.executor_of(&job, "orphan").await, first, "{story}");
    let counters = stack.lab.counters();
    assert_eq!(uploads(&stack, "orphan"), 1, "it was not handed over again: {story}");
    match runs["orphan"]["state"].as_str().unwrap() {
        "succeeded" => assert_eq!(counters.flashes.len(), 1, "{story}"),
        "unknown" => assert!(counters.flashes.len() <= 1, "{story}"),
        other => panic!("one flash or an honest unknown, not {other}: {story}"),
    }
    assert_eq!((counters.overlapping_mutations, counters.bricked), (0, 0), "{story}");
}
