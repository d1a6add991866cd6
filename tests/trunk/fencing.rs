//! Invariant 3: what an executor does after its lease has ended, to a BMC that cannot check a fence: nothing.
//!
//! An upload is slow, so that the executor is stopped or partitioned while half of the package has arrived.

use std::time::Duration;

use rackhand_lab::{Fault, Model, MutationRecord, Package, ServerSpec, Times};
use rackhand_tests::{StackConfig, TestStack, stack::Signal};
use sha2::{Digest as _, Sha256};

const SERVER: &str = "fenced";
/// Bytes a second: no lease lasts long enough for the package.
const SLOW: u32 = 40_000;
/// More than a kernel takes from a sender in advance (`net.ipv4.tcp_wmem` allows 4 MiB), so that most of the
/// package is still in the executor when it is stopped.
const LARGE: usize = 12 * 1024 * 1024;

/// The BIOS package with more filler.
fn large_package() -> Package {
    let offered = Package::repository();
    let latest = |package: &&Package| package.file_name == "BIOS_R750_1.15.2.EXE";
    let package = offered.iter().find(latest).unwrap().clone();
    let (content, _checksum) = package.bytes.split_at(package.bytes.len() - 32);
    let mut content = content.to_vec();
    content.resize(LARGE, 0);
    content.extend_from_slice(&Sha256::digest(&content));
    let sha256 = hex::encode(Sha256::digest(&content));
    Package { bytes: content.into(), sha256, ..package }
}

/// A stack with a slow line to its BMC, and a job whose upload has begun. With the executor that uploads.
async fn uploading() -> (TestStack, String, usize) {
    let servers = vec![ServerSpec::new(SERVER, Model::R750)];
    let stack = TestStack::start(StackConfig {
        bmc_relays: true,
        packages: vec![large_package()],
        ..StackConfig::new(servers)
    })
    .await;
    stack.bmc_relays[SERVER].throttle(SLOW);
    let job = stack.approved(stack.firmware("159", &[SERVER])).await;
    let began = async || !stack.lab.counters().mutation_log.is_empty();
    stack.until("the upload begins", Duration::from_secs(60), began).await;
    let owner = stack.executor_of(&job, SERVER).await;
    (stack, job, owner)
}

fn upload(stack: &TestStack) -> MutationRecord {
    stack.lab.counters().mutation_log.first().cloned().unwrap()
}

fn ttl(stack: &StackConfig) -> f64 {
    f64::from(stack.lease_ttl_ms) / 1000.0
}

/// The other executor has finished, the BMC saw no write without a lease, everything is as if nothing had
/// happened, and what `first` saw has arrived. `lease_end`: when `first` had lost its lease for certain, on
/// the lab's real clock.
async fn fenced(stack: &TestStack, job: &str, first: usize, session: &str, lease_end: f64) {
    let ended = stack.ended(job, Duration::from_secs(90)).await;
    let story = stack.story(job).await;
    assert_eq!(ended["state"], "succeeded", "{story}");
    assert_ne!(stack.executor_of(job, SERVER).await, first, "the other one finished: {story}");
    let counters = stack.lab.counters();
    for mutation in counters.mutation_log.iter().filter(|mutation| mutation.session == session) {
        assert!(mutation.began_real < lease_end, "begun without a lease ({lease_end}): {mutation:?}");
        let handled = mutation.handled_real.unwrap_or_default();
        assert!(handled < lease_end, "took effect without a lease ({lease_end}): {mutation:?}");
    }
    assert_eq!(counters.overlapping_mutations, 0, "{:?} {story}", counters.mutation_log);
    assert_eq!(
        (counters.flashes.len(), counters.most_flashes_of_one(), counters.bricked),
        (1, 1, 0),
        "{story}"
    );
    assert_eq!(stack.open_effects().await, 0, "{story}");
    let server = stack.get(&format!("/v1/servers/{}", stack.ids[SERVER])).await;
    assert_eq!(server["bios_version"], stack.lab.status(SERVER).unwrap().bios_version);
    stack
        .until("what it saw arrives", Duration::from_secs(20), async || {
            stack.events(job).await.iter().any(|event| {
                event["late"] == true && event["message"].as_str().unwrap().contains("stage_package")
            })
        })
        .await;
}

/// Stopped like a laptop's lid: the process knows nothing of the time that passed. Until the other executor
/// has the run.
async fn stopped_beyond_its_lease(stack: &TestStack, job: &str, first: usize) -> f64 {
    stack.executors[first].signal(Signal::STOP);
    let lease_end = stack.lab.real().as_secs_f64() + ttl(&StackConfig::new(vec![]));
    let taken_over = async || stack.executor_of(job, SERVER).await != first;
    stack.until("the other one takes over", Duration::from_secs(20), taken_over).await;
    let over = async || stack.lab.real().as_secs_f64() > lease_end;
    stack.until("the lease is over", Duration::from_secs(20), over).await;
    lease_end
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_stopped_in_mid_upload_writes_nothing_when_it_wakes() {
    let (stack, job, first) = uploading().await;
    let session = upload(&stack).session;
    let lease_end = stopped_beyond_its_lease(&stack, &job, first).await;
    assert_eq!(upload(&stack).handled, None, "half of it has arrived");
    stack.bmc_relays[SERVER].throttle(0);
    stack.executors[first].signal(Signal::CONT);
    fenced(&stack, &job, first, &session, lease_end).await;
    assert_eq!(upload(&stack).handled, None, "it was broken off");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_stopped_before_the_answer_leaves_the_rest_to_the_other() {
    let (stack, job, first) = uploading().await;
    // Nothing else is asked while the upload runs, so its answer is the slow one: 5 s of real time.
    stack.lab.fault(SERVER, Fault::SlowResponses { milliseconds: 600_000 }, Times::Once).unwrap();
    stack.bmc_relays[SERVER].throttle(0);
    let taken = async || upload(&stack).handled.is_some();
    stack.until("the BMC has the package", Duration::from_secs(10), taken).await;
    let session = upload(&stack).session;
    let lease_end = stopped_beyond_its_lease(&stack, &job, first).await;
    stack.executors[first].signal(Signal::CONT);
    fenced(&stack, &job, first, &session, lease_end).await;
    let uploads = stack.lab.counters().jobs_created;
    assert_eq!(uploads, 1, "the other one found the job and staged no second one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_executor_partitioned_in_mid_upload_breaks_it_off_with_its_lease() {
    let (stack, job, first) = uploading().await;
    let session = upload(&stack).session;
    stack.executors[first].relay.cut();
    let lease_end = stack.lab.real().as_secs_f64() + ttl(&StackConfig::new(vec![]));
    let over = async || stack.lab.real().as_secs_f64() > lease_end;
    stack.until("the lease is over", Duration::from_secs(20), over).await;
    // What the kernel has taken arrives; an upload that were still under way would now be complete at once.
    stack.bmc_relays[SERVER].throttle(0);
    let ended = async || upload(&stack).ended.is_some();
    stack.until("the upload ends", Duration::from_secs(10), ended).await;
    assert_eq!(upload(&stack).handled, None, "it was broken off");
    stack.ended(&job, Duration::from_secs(90)).await;
    stack.executors[first].relay.mend();
    fenced(&stack, &job, first, &session, lease_end).await;
}
