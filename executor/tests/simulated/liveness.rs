//! What is dead, slow, full or refused harms nobody else: leases are kept, and what is kept in memory and on
//! disk has an end. In paused time.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use futures::future::BoxFuture;
use rackhand_executor::{
    clock::TokioClock,
    cloud::{Cloud, CloudError},
    credential::forget_version,
    journal::{Journal as _, Write, memory::MemoryJournal, sqlite::SqliteJournal},
    outbox::Outbox,
    service::Ended,
    site_key::KEPT,
    timing::Timing,
};
use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_schema::{
    ErrorCode,
    executor::SiteKey,
    id::RunId,
    job::{PowerAction, Reboot},
    protocol::{
        AttemptAnswer, CredentialAttempt, ItemResult, ItemStatus, LeaseRequest, LeaseResponse, Report,
        ReportBody, ReportItem, ReportResponse, Resolution, SuspendedCredential,
    },
    run::Outcome,
};

use super::support::{
    PASSWORD, StopAt, World,
    plane::{RunRow, TTL},
};

const BIOS: &str = "BIOS.Setup.1-1";

fn rack(n: usize) -> World {
    World::new((0..n).map(|n| ServerSpec::new(format!("bmc-{n:03}"), Model::R750)).collect())
}

fn update(world: &World, server: usize) -> RunId {
    world.update(server, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

async fn succeeded(world: &World, run: RunId) -> RunRow {
    let row = world.end_of(run).await;
    assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::Succeeded, "{}", row.story());
    row
}

async fn failed(world: &World, run: RunId, code: ErrorCode) -> RunRow {
    let row = world.end_of(run).await;
    assert_eq!(row.finish.as_ref().unwrap().code, code.as_str(), "{}", row.story());
    row
}

fn yields(row: &RunRow) -> usize {
    row.items.iter().filter(|item| matches!(item.body, ReportBody::Yield { .. })).count()
}

/// A rack of 40 loses its network with idle sessions, and its goodbyes take ten seconds each, while `others`
/// are updated.
async fn dark_rack(others: usize) {
    let mut world = rack(40 + others);
    world.capacity = 200;
    world.policy.max_mutating_runs = 100;
    let _executor = world.start(0, None).await;
    let read: Vec<RunId> = (0..40).map(|server| world.inventory(server)).collect();
    for run in read {
        succeeded(&world, run).await;
    }
    world.wire.dark.lock().unwrap().extend(0..40);
    // Their sessions are given up in two minutes.
    tokio::time::sleep(seconds(115)).await;
    let updates: Vec<RunId> = (40..40 + others).map(|server| update(&world, server)).collect();
    while updates.iter().any(|run| world.plane.run(*run).grant.epoch == 0) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Takes over whatever is not renewed in time.
    let _other = world.start(1, None).await;
    for run in updates {
        let row = succeeded(&world, run).await;
        assert_eq!((row.grant.epoch, row.stale), (1, 0), "no lease was lost: {}", row.story());
    }
    let uploads = world.lab.total().mutations.get(&rackhand_lab::MutationKind::MultipartUpdate).copied();
    assert_eq!(uploads, u64::try_from(others).ok(), "none was cut");
}

#[tokio::test(start_paused = true)]
async fn a_dark_rack_costs_nobody_else_a_lease() {
    dark_rack(6).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "64 whole updates: run with --full"]
async fn a_dark_rack_costs_64_others_no_lease() {
    dark_rack(64).await;
}

/// A connection swallows a lease request, again and again: there is time for another one before the lease
/// ends.
#[tokio::test(start_paused = true)]
async fn a_connection_that_swallows_packets_costs_no_lease() {
    let world = rack(1);
    let _executor = world.start(0, None).await;
    let run = update(&world, 0);
    while world.plane.run(run).grant.epoch == 0 {
        tokio::time::sleep(seconds(1)).await;
    }
    // Takes over whatever is not renewed in time.
    let _other = world.start(1, None).await;
    while world.plane.run(run).finish.is_none() {
        world.link(0).swallows.store(true, Ordering::Relaxed);
        tokio::time::sleep(TTL * 2).await;
    }
    let row = succeeded(&world, run).await;
    assert_eq!((row.grant.epoch, row.stale), (1, 0), "{}", row.story());
}

/// Without a journal nothing may be done: the service ends and says why.
#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_the_service() {
    let world = rack(1);
    let executor = world.start(0, None).await;
    let run = update(&world, 0);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(seconds(1)).await;
    }
    world.disk_full.store(true, Ordering::Relaxed);
    let ended = tokio::time::timeout(seconds(300), executor.ended()).await.unwrap();
    assert!(matches!(&ended, Ended::Failed(why) if why.contains("journal: disk full")), "{ended:?}");
    drop(executor);
    world.disk_full.store(false, Ordering::Relaxed);
    let _again = world.start(0, None).await;
    succeeded(&world, run).await;
    assert_eq!(world.lab.total().most_flashes_of_one(), 1);
}

/// A handler that panics, and an intent that the control plane does not take: the run is given back, each
/// time for longer, and goes on once it can.
#[tokio::test(start_paused = true)]
async fn a_run_that_breaks_off_here_is_given_back_with_growing_pauses() {
    let world = rack(2);
    let _executor = world.start(0, None).await;
    world.wire.repository_panics.store(true, Ordering::Relaxed);
    world.plane.refuse_intents(true);
    let runs = [update(&world, 0), world.power(1, PowerAction::ForceOff)];
    tokio::time::sleep(seconds(3600)).await;
    for run in runs {
        let row = world.plane.run(run);
        assert!((2..=8).contains(&yields(&row)), "{} times within an hour", yields(&row));
        assert!(row.items.len() < 200, "{}", row.story());
    }
    world.wire.repository_panics.store(false, Ordering::Relaxed);
    world.plane.refuse_intents(false);
    for run in runs {
        succeeded(&world, run).await;
    }
}

/// What this account may not read is unreadable; the next run is not shut out.
#[tokio::test(start_paused = true)]
async fn a_403_on_one_path_shuts_nobody_out() {
    let world = rack(1);
    let _executor = world.start(0, None).await;
    world.wire.forbids.lock().unwrap().replace("FirmwareInventory".into());
    let row = succeeded(&world, world.inventory(0)).await;
    let inventory = row.inventory.unwrap();
    assert!(inventory.unreadable["firmware"].contains("FirmwareInventory"), "{:?}", inventory.unreadable);
    succeeded(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(world.lab.total().logins, 1);
}

/// A grant without a credential, or for an address that cannot be spoken to, ends the run with its reason.
#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_reach_its_bmc_ends_with_the_reason() {
    let world = rack(2);
    let runs = [world.power(0, PowerAction::ForceOff), world.power(1, PowerAction::ForceOff)];
    world.plane.edit(runs[0], |grant| grant.target.credential = None);
    world.plane.edit(runs[1], |grant| grant.target.url.push_str("/no address"));
    let _executor = world.start(0, None).await;
    let row = failed(&world, runs[0], ErrorCode::CredentialRefused).await;
    let detail = &row.finish.as_ref().unwrap().detail;
    assert!(detail.contains("bmc-000") && detail.contains("has no credential"), "{detail}");
    let row = failed(&world, runs[1], ErrorCode::PolicyRefused).await;
    let detail = &row.finish.as_ref().unwrap().detail;
    assert!(detail.contains("bmc-001") && detail.contains("target.url"), "{detail}");
    assert_eq!(world.wire.redfish_requests.load(Ordering::Relaxed), 0);
}

/// A refused login bars a BMC for five minutes, not for good.
#[tokio::test(start_paused = true)]
async fn a_refused_login_is_tried_again_after_a_pause() {
    let world = rack(1);
    let _executor = world.start(0, None).await;
    succeeded(&world, world.inventory(0)).await;
    tokio::time::sleep(seconds(200)).await;
    world.wire.refuses_logins.store(1, Ordering::Relaxed);
    failed(&world, world.inventory(0), ErrorCode::BmcAuthFailed).await;
    let requests = world.wire.redfish_requests.load(Ordering::Relaxed);
    failed(&world, world.inventory(0), ErrorCode::BmcAuthFailed).await;
    assert_eq!(world.wire.redfish_requests.load(Ordering::Relaxed), requests, "nothing is sent meanwhile");
    tokio::time::sleep(Timing::default().auth_pause).await;
    succeeded(&world, world.inventory(0)).await;
}

/// A new version of a credential in the middle of a run: one client goes on, and no session stays behind.
#[tokio::test(start_paused = true)]
async fn a_credential_that_changes_during_a_run_leaves_no_session() {
    let world = rack(1);
    let executor = world.start(0, None).await;
    let run = update(&world, 0);
    while world.lab.total().flashes.is_empty() {
        tokio::time::sleep(seconds(1)).await;
    }
    world.credential_version.store(2, Ordering::Relaxed);
    succeeded(&world, world.inventory(0)).await;
    tokio::time::sleep(seconds(60)).await;
    let total = world.lab.total();
    assert_eq!((total.sessions_open, total.logins), (1, 2), "the old one is deleted");
    assert_eq!(world.journal(0).metas("bmc_session:").await.unwrap().len(), 1);
    succeeded(&world, run).await;
    executor.drain();
    assert_eq!(executor.ended().await, Ended::Drained);
    assert_eq!(world.lab.total().sessions_open, 0);
    assert_eq!(world.journal(0).metas("bmc_session:").await.unwrap(), []);
}

/// What a former executor sent may be under way for another minute: an executor that goes away leaves that wait to the
/// next one.
#[tokio::test(start_paused = true)]
async fn a_drain_does_not_wait_for_a_former_executors_request() {
    let world = rack(1);
    let run = world.power(0, PowerAction::ForceOff);
    let stop = StopAt::when(|_, write| matches!(write, Write::Outcome { .. }));
    let victim = world.start(0, Some(stop.clone())).await;
    stop.reached.notified().await;
    drop(victim);
    let successor = world.start(0, None).await;
    while world.plane.run(run).grant.epoch < 2 {
        tokio::time::sleep(seconds(1)).await;
    }
    tokio::time::sleep(seconds(2)).await;
    assert!(world.plane.run(run).grant.intent.is_some(), "nobody may know yet what became of it");
    let began = tokio::time::Instant::now();
    successor.drain();
    assert_eq!(successor.ended().await, Ended::Drained);
    assert!(began.elapsed() < seconds(10), "it took {:?}", began.elapsed());
    let row = world.plane.run(run);
    assert_eq!(yields(&row), 1, "{}", row.story());
    let _last = world.start(1, None).await;
    succeeded(&world, run).await;
}

/// A control plane that was restored from a backup has an older version; a person on the machine lets it
/// through, and that is reported once.
#[tokio::test(start_paused = true)]
async fn an_older_credential_is_used_when_a_person_said_so_and_that_is_reported() {
    let world = rack(1);
    let executor = world.start(0, None).await;
    world.credential_version.store(2, Ordering::Relaxed);
    succeeded(&world, world.inventory(0)).await;
    world.credential_version.store(1, Ordering::Relaxed);
    failed(&world, world.inventory(0), ErrorCode::CredentialRefused).await;
    assert_eq!(forget_version(world.journal(0), "bmc").await.unwrap(), Some(2));
    for reported in [1, 0] {
        let row = succeeded(&world, world.inventory(0)).await;
        let said = "ordered to forget that version 2 of the credential bmc was used. Version 1 is used now";
        assert_eq!(row.story().matches(said).count(), reported, "{}", row.story());
    }
    executor.drain();
    assert_eq!(executor.ended().await, Ended::Drained);
}

/// Whoever took over the control plane seals credentials of their own: one that no BMC accepts must not bar those of
/// people.
#[tokio::test(start_paused = true)]
async fn a_version_that_no_bmc_accepted_bars_no_other() {
    let world = rack(2);
    let _executor = world.start(0, None).await;
    succeeded(&world, world.inventory(1)).await;
    world.credential_version.store(u32::MAX, Ordering::Relaxed);
    world.plane.use_password("not the password");
    failed(&world, world.inventory(0), ErrorCode::BmcAuthFailed).await;
    world.credential_version.store(7, Ordering::Relaxed);
    world.plane.use_password(PASSWORD);
    succeeded(&world, world.inventory(1)).await;
    world.credential_version.store(6, Ordering::Relaxed);
    failed(&world, world.inventory(1), ErrorCode::CredentialRefused).await;
}

/// A session that could not be ended stays in the journal until the next session, or the next process, has ended it.
#[tokio::test(start_paused = true)]
async fn a_session_whose_end_is_not_certain_stays_in_the_journal() {
    for crashes in [false, true] {
        let world = rack(1);
        let first = world.start(0, None).await;
        succeeded(&world, world.inventory(0)).await;
        *world.wire.forbids.lock().unwrap() = Some("/Sessions/".into());
        *world.wire.refuses.lock().unwrap() = (1, 401);
        succeeded(&world, world.inventory(0)).await;
        assert_eq!(world.lab.total().sessions_open, 2);
        assert_eq!(world.journal(0).metas("bmc_session:").await.unwrap().len(), 2);
        *world.wire.forbids.lock().unwrap() = None;
        let _now = if crashes {
            drop(first);
            world.start(0, None).await
        } else {
            *world.wire.refuses.lock().unwrap() = (1, 401);
            first
        };
        succeeded(&world, world.inventory(0)).await;
        assert_eq!(world.lab.total().sessions_open, 1);
        assert_eq!(world.journal(0).metas("bmc_session:").await.unwrap().len(), 1);
    }
}

/// The sessions that a crash left in a rack that is dark now are a background matter.
#[tokio::test(start_paused = true)]
async fn leftover_sessions_of_a_dark_rack_delay_no_start() {
    let mut world = rack(41);
    world.capacity = 64;
    let crashed = world.start(0, None).await;
    let runs: Vec<RunId> = (0..40).map(|server| world.inventory(server)).collect();
    for run in runs {
        succeeded(&world, run).await;
    }
    drop(crashed);
    world.wire.dark.lock().unwrap().extend(0..40);
    let began = tokio::time::Instant::now();
    let _again = world.start(0, None).await;
    let run = world.inventory(40);
    while world.plane.run(run).finish.is_none() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(began.elapsed() < seconds(15), "{:?}", began.elapsed());
    tokio::time::sleep(seconds(120)).await;
    assert!(world.journal(0).metas("bmc_session:").await.unwrap().len() <= 1);
}

/// The brake counts requests, however few calls they are made for.
#[tokio::test(start_paused = true)]
async fn the_rate_counts_requests() {
    let mut world = rack(1);
    (world.timing.bmc_burst, world.timing.bmc_interval) = (1, seconds(2));
    let _executor = world.start(0, None).await;
    let began = tokio::time::Instant::now();
    succeeded(&world, world.inventory(0)).await;
    let requests = world.wire.redfish_requests.load(Ordering::Relaxed);
    assert!(requests > 5);
    assert!(began.elapsed() >= seconds(2 * (requests - 1)), "{requests} in {:?}", began.elapsed());
}

/// After an outage everything may stand elsewhere: the service is asked anew.
#[tokio::test(start_paused = true)]
async fn links_are_found_again_after_an_outage() {
    let world = rack(1);
    let line = world.line(0).await;
    let roots = || world.wire.redfish_roots.load(Ordering::Relaxed);
    line.jobs().await.unwrap();
    let before = roots();
    line.jobs().await.unwrap();
    assert_eq!(roots(), before, "remembered");
    world.lab.fault("bmc-000", Fault::Partition, Times::Always).unwrap();
    line.jobs().await.unwrap_err();
    world.lab.clear_fault("bmc-000", "partition").unwrap();
    line.jobs().await.unwrap();
    line.jobs().await.unwrap();
    assert_eq!(roots(), before + 1);
}

/// The next answer is asked for without further runs: what is under way keeps its lease.
#[tokio::test(start_paused = true)]
async fn answers_that_are_too_large_cost_no_lease() {
    let world = rack(2);
    let _executor = world.start(0, None).await;
    let run = update(&world, 0);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(seconds(1)).await;
    }
    world.link(0).too_large.store(true, Ordering::Relaxed);
    let other = update(&world, 1);
    for run in [run, other] {
        let row = succeeded(&world, run).await;
        assert_eq!((row.grant.epoch, yields(&row), row.stale), (1, 0, 0), "{}", row.story());
    }
}

/// Whoever reads its disk later does not find the key that it kept over restarts.
#[tokio::test(start_paused = true)]
async fn a_revoked_executor_keeps_nothing_of_the_key() {
    let world = rack(1);
    let executor = world.start(0, None).await;
    succeeded(&world, world.inventory(0)).await;
    assert!(world.journal(0).meta(KEPT).await.unwrap().is_some());
    world.link(0).revoked.store(true, Ordering::Relaxed);
    assert!(matches!(executor.ended().await, Ended::Revoked(_)));
    assert_eq!(world.journal(0).meta(KEPT).await.unwrap(), None);
}

/// The executor's own limit is told to the control plane: nothing is leased to be given back.
#[tokio::test(start_paused = true)]
async fn no_more_changes_are_asked_for_than_the_policy_allows() {
    let mut world = rack(6);
    world.policy.max_mutating_runs = 2;
    let _executor = world.start(0, None).await;
    let runs: Vec<RunId> = (0..6).map(|server| world.power(server, PowerAction::ForceOff)).collect();
    let look = world.inventory(5);
    for run in runs.into_iter().chain([look]) {
        let row = succeeded(&world, run).await;
        assert_eq!((row.grant.epoch, yields(&row)), (1, 0), "{}", row.story());
    }
    assert_eq!(
        world.plane.kinds_told(),
        [world.policy.kinds.clone()].into(),
        "what it can do stays the same"
    );
}

/// Takes everything, a second later.
struct Taking;

impl Cloud for Taking {
    fn lease<'a>(
        &'a self,
        _request: &'a LeaseRequest,
        _limit: Duration,
    ) -> BoxFuture<'a, Result<LeaseResponse, CloudError>> {
        Box::pin(std::future::pending())
    }

    fn report<'a>(&'a self, report: &'a Report) -> BoxFuture<'a, Result<ReportResponse, CloudError>> {
        Box::pin(async move {
            tokio::time::sleep(seconds(1)).await;
            let taken =
                |index| ItemResult { index, status: ItemStatus::Accepted, code: None, expected_seq: None };
            Ok(ReportResponse { results: (0..report.items.len()).map(taken).collect() })
        })
    }

    fn credential_attempt<'a>(
        &'a self,
        _attempt: &'a CredentialAttempt,
    ) -> BoxFuture<'a, Result<AttemptAnswer, CloudError>> {
        Box::pin(std::future::pending())
    }

    fn site_key<'a>(&'a self, _key: &'a SiteKey) -> BoxFuture<'a, Result<(), CloudError>> {
        Box::pin(std::future::pending())
    }
}

/// A lease that is given back ends before its last word is delivered; nothing of it stays.
#[tokio::test(start_paused = true)]
async fn a_lease_that_ends_with_words_on_their_way_leaves_nothing() {
    let outbox = Outbox::new(Arc::new(MemoryJournal::default()));
    for _ in 0..10 {
        let run = RunId::generate();
        outbox.open(run, 1, None);
        let body = ReportBody::Yield { reason: "draining".into(), detail: String::new(), resume_after_ms: 0 };
        outbox.push(run, 1, body).await.unwrap();
        outbox.close(run, 1);
    }
    assert_eq!(outbox.len(), 10);
    let (clock, timing) = (TokioClock::start(), Timing::default());
    let delivering = outbox.deliver(&Taking, &clock, &timing, || true);
    tokio::time::timeout(seconds(10), delivering).await.unwrap_err();
    assert_eq!(outbox.len(), 0);
}

/// Memory of this process that is resident, in kB (proc_pid_status(5)).
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Runs that wait for hours, half of them because hardware operations are paused, the others behind a
/// Lifecycle Controller that somebody else uses (they end after half an hour, and are begun anew). What is
/// written is in proportion to the time, small, and bounded on disk; and whoever looks sees why each of them
/// waits. The memory of the process after each hour.
async fn wait_for_hours(runs: usize, hours: u64) -> Vec<u64> {
    let mut world = rack(runs);
    world.capacity = 200;
    world.policy.max_mutating_runs = 100;
    let (paused, busy): (Vec<usize>, Vec<usize>) = (0..runs).partition(|server| server % 2 == 0);
    for server in &busy {
        world.lab.fault(&format!("bmc-{server:03}"), Fault::LcBusy, Times::Always).unwrap();
    }
    world.plane.pause(true);
    let directory = tempfile::tempdir().unwrap();
    tokio::time::resume();
    let disk = SqliteJournal::open(directory.path()).await.unwrap();
    tokio::time::pause();
    let _executor = world.start(0, None).await;
    let mut waiting: Vec<(usize, RunId)> =
        paused.iter().map(|server| (*server, world.power(*server, PowerAction::ForceOff))).collect();
    waiting.extend(busy.iter().map(|server| (*server, update(&world, *server))));
    let (mut begun, mut events, mut writes, mut memory) = (waiting.len(), 0, 0, Vec::new());
    for look in 1..=hours * 6 {
        tokio::time::sleep(seconds(600)).await;
        for (server, run) in &mut waiting {
            let row = world.plane.take(*run);
            assert!(row.stale == 0 && row.grant.epoch <= 1, "no lease was lost: {}", row.story());
            assert!(row.effects.len() <= 2, "effects do not pile up: {:?}", row.effects);
            events += row.items.iter().filter(|item| matches!(item.body, ReportBody::Event { .. })).count();
            if let Some(finish) = &row.finish {
                assert_eq!(finish.code, ErrorCode::DeviceBusy.as_str(), "{}", row.story());
                *run = update(&world, *server);
                begun += 1;
                continue;
            }
            let last = row.items.iter().rev().find_map(|item| match &item.body {
                ReportBody::Checkpoint { waiting, .. } => Some(waiting.clone()),
                _ => None,
            });
            let why = last.flatten().unwrap_or_else(|| panic!("waits, and does not say so: {}", row.story()));
            assert!(["hardware_paused", "lifecycle_controller"].contains(&why.reason.as_str()), "{why:?}");
            assert!(why.detail.contains(&format!("bmc-{server:03}")) && why.within_ms > 0, "{why:?}");
        }
        // The same, on a disk.
        let log = world.journal(0).take_log();
        writes += log.len();
        tokio::time::resume();
        disk.commit(log).await.unwrap();
        tokio::time::pause();
        if look % 6 == 0 {
            memory.push(resident());
        }
    }
    assert!(events <= begun * 10, "{events} events of {begun} runs");
    let per_hour = writes / runs / usize::try_from(hours).unwrap();
    assert!(per_hour <= 300, "{per_hour} writes for each run in an hour");
    let pending = world.journal(0).pending().await.unwrap().len();
    assert!(pending <= runs * 2, "{pending} items wait to be delivered");
    let size = std::fs::metadata(directory.path().join("journal.sqlite")).unwrap().len();
    assert!(size < 128 * 1024 * 1024, "{size} bytes");
    memory
}

#[tokio::test(start_paused = true)]
async fn runs_that_wait_for_hours_fill_nothing_and_say_why() {
    wait_for_hours(4, 2).await;
}

#[tokio::test(start_paused = true)]
#[ignore = "a day of 64 runs: run with --full"]
async fn runs_that_wait_for_a_day_fill_nothing_and_say_why() {
    let memory = wait_for_hours(64, 24).await;
    // Measured: 36 MB after an hour, and 1 MB more after a day, for the last numbers of 1,200 ended runs (at most
    // 10,000 are kept). Two numbers kept for each of 88,000 reported items would be above this. Each test has a
    // process of its own (nextest); one that runs beside others in the same process measures theirs, too.
    let grown = memory.last().unwrap().saturating_sub(memory[0]);
    assert!(grown < 3 * 1024, "{grown} kB in {} hours: {memory:?}", memory.len() - 1);
}

/// A repository that takes connections and sends nothing: each fetch ends, and there are not fetches for ever.
#[tokio::test(start_paused = true)]
async fn a_repository_that_sends_nothing_is_given_up() {
    let world = World::new(vec![ServerSpec::new("bmc-01", Model::R750)]);
    world.wire.repository_stalls.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let run = world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host);
    tokio::time::sleep(seconds(3600)).await;
    let row = world.plane.run(run);
    let finish = row.finish.as_ref().unwrap_or_else(|| panic!("{}", row.story()));
    assert_eq!(
        (finish.outcome, finish.code.as_str()),
        (Outcome::Failed, "package-unreachable"),
        "{finish:?}"
    );
    assert!(world.wire.repository_asked.load(Ordering::Relaxed) < 40);
    assert!(world.lab.total().mutations.is_empty());
}

/// The fetches that the executor may have at once are all taken by others, for ever.
#[tokio::test(start_paused = true)]
async fn a_package_that_never_comes_ends_its_run() {
    let world = World::new(vec![ServerSpec::new("bmc-01", Model::R750)]);
    world.wire.repository_never.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let run = world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host);
    tokio::time::sleep(seconds(2 * 3600)).await;
    assert!(world.plane.run(run).finish.is_none(), "others before it may take long");
    tokio::time::sleep(seconds(3600)).await;
    let row = world.plane.run(run);
    let finish = row.finish.as_ref().unwrap_or_else(|| panic!("{}", row.story()));
    assert_eq!(
        (finish.outcome, finish.code.as_str()),
        (Outcome::Failed, "package-unreachable"),
        "{finish:?}"
    );
    assert!(world.lab.total().mutations.is_empty());
}

/// A BMC that is busy and away in turns: each wait alone would begin anew for ever.
#[tokio::test(start_paused = true)]
async fn a_flapping_bmc_does_not_hold_a_run_for_ever() {
    let world = World::new(vec![ServerSpec::new("bmc-01", Model::R750)]);
    let _executor = world.start(0, None).await;
    let run = world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host);
    let mut minutes = 0;
    while world.plane.run(run).finish.is_none() {
        let away = minutes % 2 == 0;
        world.wire.redfish_down.store(away, Ordering::Relaxed);
        *world.wire.refuses.lock().unwrap() = if away { (0, 0) } else { (u32::MAX, 503) };
        tokio::time::sleep(Duration::from_secs(60)).await;
        minutes += 1;
        assert!(minutes < 24 * 60, "a day, and not ended: {}", world.plane.run(run).items.len());
    }
    let row = world.plane.run(run);
    assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::Failed, "{}", row.story());
    assert!(row.items.len() < 1500, "{} reports", row.items.len());
    assert!(world.lab.total().mutations.is_empty());
}

/// Executors that are restarted every few minutes go on counting: of looks in vain, and of tries.
#[tokio::test(start_paused = true)]
async fn restarts_do_not_make_a_run_wait_for_ever() {
    for refuses_reads in [true, false] {
        let world = World::new(vec![ServerSpec::new("bmc-01", Model::R750)]);
        if refuses_reads {
            *world.wire.refuses.lock().unwrap() = (u32::MAX, 503);
        } else {
            world.lab.fault("bmc-01", Fault::NotReadySwc0700, Times::Always).unwrap();
        }
        let run = world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host);
        let mut minutes = 0;
        while world.plane.run(run).finish.is_none() {
            let executor = world.start(minutes % 2, None).await;
            tokio::time::sleep(Duration::from_secs(5 * 60)).await;
            drop(executor);
            minutes += 5;
            assert!(minutes < 150, "not ended: {}", world.plane.run(run).story());
        }
        let row = world.plane.run(run);
        let finish = row.finish.as_ref().unwrap();
        assert_eq!(
            (finish.outcome, finish.code.as_str()),
            (Outcome::Failed, "device-busy"),
            "{}",
            row.story()
        );
        assert_eq!(world.lab.total().jobs_created, 0);
        assert!(row.items.len() < 500, "{} reports", row.items.len());
    }
}

/// The control plane was taken over: it seals a credential of its own under the name of people's, for a BMC of its own,
/// which accepts it.
#[tokio::test(start_paused = true)]
async fn a_bmc_of_the_control_planes_own_does_not_bar_what_people_sealed() {
    let world = rack(2);
    let _executor = world.start(0, None).await;
    world.credential_version.store(u32::MAX, Ordering::Relaxed);
    succeeded(&world, world.inventory(0)).await;
    world.credential_version.store(1, Ordering::Relaxed);
    succeeded(&world, world.inventory(1)).await;
    failed(&world, world.inventory(0), ErrorCode::CredentialRefused).await;
}

/// Two BMCs have refused it meanwhile: it is not presented to the one that has accepted it either, whoever has a client
/// for it already.
#[tokio::test(start_paused = true)]
async fn a_suspended_credential_is_not_presented_where_it_was_accepted() {
    let world = rack(1);
    let _executor = world.start(0, None).await;
    succeeded(&world, world.inventory(0)).await;
    let credential = world.target(0).credential.unwrap();
    world.plane.suspend(SuspendedCredential { id: credential.id, version: credential.version });
    // What can be asked in the session that is there goes on.
    succeeded(&world, world.inventory(0)).await;
    *world.wire.refuses.lock().unwrap() = (1, 401);
    failed(&world, world.inventory(0), ErrorCode::CredentialSuspended).await;
    assert_eq!(world.lab.total().logins, 1);
}

fn changes(world: &World) -> usize {
    world.wire.redfish_changes.lock().unwrap().len()
}

/// What its effects are could not be noted any more, so nothing is begun, and the run is not granted again and again.
#[tokio::test(start_paused = true)]
async fn a_run_that_has_reported_all_that_is_kept_ends() {
    let world = rack(1);
    world.plane.spend(true);
    let _executor = world.start(0, None).await;
    let row = failed(&world, update(&world, 0), ErrorCode::RunSpent).await;
    assert_eq!((row.grant.epoch, &row.grant.intent), (1, &None), "{}", row.story());
    assert_eq!((row.effects.len(), changes(&world)), (0, 0), "{}", row.story());
}

/// The intent beside it was taken.
#[tokio::test(start_paused = true)]
async fn nothing_is_done_whose_effect_was_not_taken() {
    let world = rack(1);
    world.plane.quarantine_effects(true);
    let _executor = world.start(0, None).await;
    let run = update(&world, 0);
    tokio::time::sleep(seconds(600)).await;
    let row = world.plane.run(run);
    assert_eq!((&row.grant.intent, changes(&world)), (&None, 0), "{}", row.story());
    world.plane.quarantine_effects(false);
    succeeded(&world, run).await;
}

/// With a lease that is renewed in time no mutation is held back, however its moment falls and however slowly the BMC
/// answers: an intent that came to nothing would stay in the trail.
#[tokio::test(start_paused = true)]
async fn a_healthy_lease_holds_nothing_back() {
    for milliseconds in [1_750, 4_000, 7_750, 9_250] {
        let world = rack(4);
        for server in 0..4 {
            let slow = Fault::SlowResponses { milliseconds };
            world.lab.fault(&format!("bmc-{server:03}"), slow, Times::Always).unwrap();
        }
        let _executor = world.start(0, None).await;
        for server in 0..4 {
            let row = world.end_of(world.power(server, PowerAction::ForceOff)).await;
            let held = |item: &&ReportItem| {
                matches!(&item.body, ReportBody::IntentResolved { resolution: Resolution::NotApplied, .. })
            };
            let held = row.items.iter().filter(held).count();
            assert_eq!(held, 0, "{milliseconds} ms: {}", row.story());
        }
    }
}

/// What this thread logs as a warning or worse, a line each.
fn warnings() -> (Arc<Mutex<Vec<u8>>>, tracing::subscriber::DefaultGuard) {
    struct Kept(Arc<Mutex<Vec<u8>>>);
    impl std::io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(false)
        .with_writer(move || Kept(Arc::clone(&kept)))
        .finish();
    (log, tracing::subscriber::set_default(subscriber))
}

/// The control plane has taken the end of a run, and says that it is not leased any more, before the answer to the
/// report is here.
#[tokio::test(start_paused = true)]
async fn a_run_that_has_just_ended_is_not_lost() {
    let (log, _guard) = warnings();
    let world = rack(3);
    world.link(0).slow_reports.store(3000, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let runs: Vec<RunId> = (0..3).map(|server| world.inventory(server)).collect();
    for run in runs {
        succeeded(&world, run).await;
    }
    tokio::time::sleep(2 * TTL).await;
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log, "");
}

/// One that another executor has now is: it is logged, and its task ends at once.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_taken_away_is_lost() {
    let (log, _guard) = warnings();
    let world = rack(1);
    let executor = world.start(0, None).await;
    let run = update(&world, 0);
    while world.plane.run(run).items.is_empty() {
        tokio::time::sleep(seconds(1)).await;
    }
    world.plane.take_away(run);
    tokio::time::sleep(TTL / 2).await;
    let requests = world.wire.redfish_requests.load(Ordering::Relaxed);
    tokio::time::sleep(seconds(60)).await;
    assert_eq!(world.wire.redfish_requests.load(Ordering::Relaxed), requests, "its task has ended");
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("the lease has passed on").count(), 1, "{log}");
    drop(executor);
}
