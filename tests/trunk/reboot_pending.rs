//! A direct update ends with "a reboot is pending". The plan has no restart, so the run ends
//! soon and says that the device wants one.

use std::time::Duration;

use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_tests::{StackConfig, TestStack};

/// Diagnostics: installed without a restart.
const DIRECT: &str = "25806";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_wants_a_restart_nobody_planned_says_so() {
    let config = StackConfig { executors: 1, ..StackConfig::new(vec![ServerSpec::new("d16", Model::R750)]) };
    let stack = TestStack::start(config).await;
    stack.lab.fault("d16", Fault::RebootPending, Times::Once).unwrap();
    let job = stack.approved(stack.firmware(DIRECT, &["d16"])).await;
    stack.ended(&job, Duration::from_secs(60)).await;
    let (run, story) = (stack.runs(&job).await["d16"].clone(), stack.story(&job).await);
    assert_eq!(run["reason"], "version-not-reached", "{story}");
    assert!(run["detail"].as_str().unwrap().contains("wants another restart"), "{run}");
    assert!(stack.lab.counters().host_resets.is_empty(), "nobody approved a restart: {story}");
    assert_eq!(stack.open_effects().await, 0, "{story}");
}
