//! What must never happen to hardware: a package handed over beside our own job, a run that ends `failed`
//! while the device may be flashing, power cut under a device job, a restart that nobody has seen, another
//! machine than the planned one, tries without end. In paused time over the lab's BMCs.

use std::{sync::atomic::Ordering, time::Duration};

use super::support::{Reach, StopAt, World, plane::RunRow};
use proptest::prelude::*;
use rackhand_executor::{journal::Write, service::Handle, timing::Timing};
use rackhand_lab::{Fault, ForeignJob, Model, MutationKind, ServerSpec, Times};
use rackhand_schema::{
    ErrorCode,
    id::{EffectId, RunId},
    job::{FirmwarePackage, FirmwareUpdateParams, JobSpec, Machine, PowerAction, Reboot},
    protocol::{Finish, ReportBody},
    run::{Effect, EffectState, Outcome},
};
use serde_json::json;

const BIOS: &str = "BIOS.Setup.1-1";
const BIOS_R750: &str = "BIOS_R750_1.15.2.EXE";
const ONCE: Times = Times::Count(1);

fn r750() -> ServerSpec {
    ServerSpec::new("bmc-01", Model::R750)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn bios(world: &World) -> RunId {
    world.update(0, BIOS, BIOS_R750, Reboot::Host)
}

async fn end(world: &World, run: RunId) -> (RunRow, Finish) {
    let row = world.end_of(run).await;
    let finish = row.finish.clone().unwrap();
    (row, finish)
}

fn resets(world: &World) -> u64 {
    world.lab.total().host_resets.values().sum()
}

fn uploads(world: &World) -> u64 {
    world.lab.total().mutations.get(&MutationKind::MultipartUpdate).copied().unwrap_or_default()
}

/// A job that runs on the device without us.
async fn foreign_flash(world: &World) {
    world
        .lab
        .foreign_job("bmc-01", &ForeignJob { package: Some(BIOS_R750.into()), immediate: true })
        .unwrap();
    flash_begins(world).await;
}

/// Nobody else may be asking: the model's time moves when it is looked at.
async fn flash_begins(world: &World) {
    for _ in 0..3_600 {
        world.lab.status("bmc-01").unwrap();
        if !world.lab.total().flashes.is_empty() {
            return;
        }
        tokio::time::sleep(seconds(1)).await;
    }
    panic!("no flash has begun");
}

// ---- hand-overs -------------------------------------------------------------------------------------------

/// How a hand-over goes wrong, twice.
#[derive(Clone, Debug)]
struct Late {
    /// Jobs become visible so late, seconds.
    hidden: [u64; 2],
    /// What happens to the first answers: `Some(accepted)` is cut.
    cuts: Vec<bool>,
    /// Answers name no job.
    unnamed: bool,
    /// The device has no log that would tell of a job.
    no_log: bool,
    /// Kills: after how long, and for how long.
    kills: Vec<(u64, u64)>,
}

fn late() -> impl Strategy<Value = Late> {
    (
        [240..=330u64, 240..=330u64],
        prop::collection::vec(any::<bool>(), 0..3),
        any::<bool>(),
        any::<bool>(),
        prop::collection::vec((1..900u64, 0..120u64), 0..3),
    )
        .prop_map(|(hidden, cuts, unnamed, no_log, kills)| Late { hidden, cuts, unnamed, no_log, kills })
}

async fn play(late: &Late) {
    let world = World::new(vec![r750()]);
    world.wire.unnamed.store(late.unnamed, Ordering::Relaxed);
    world.wire.no_log.store(late.no_log, Ordering::Relaxed);
    for accepted in &late.cuts {
        let fault = if *accepted { Fault::CutAfterAccept } else { Fault::CutBeforeAccept };
        world.lab.fault("bmc-01", fault, ONCE).unwrap();
    }
    let hide = |seconds| world.lab.fault("bmc-01", Fault::JobVisibilityDelay { seconds }, ONCE).unwrap();
    hide(late.hidden[0]);
    let run = bios(&world);
    let mut executors: [Option<Handle>; 2] =
        [Some(world.start(0, None).await), Some(world.start(1, None).await)];
    let mut hidden = false;
    let mut kills = late.kills.iter();
    let mut next = kills.next();
    let mut waited = 0;
    while world.plane.run(run).finish.is_none() && waited < 40_000 {
        if world.lab.total().jobs_created == 1 && !std::mem::replace(&mut hidden, true) {
            hide(late.hidden[1]);
        }
        if let Some((_, back)) = next.filter(|(after, _)| waited >= *after) {
            executors[0] = None;
            tokio::time::sleep(seconds(*back)).await;
            executors[0] = Some(world.start(0, None).await);
            next = kills.next();
        }
        tokio::time::sleep(seconds(1)).await;
        waited += 1;
    }
    let (row, finish) = end(&world, run).await;
    let story = row.story();
    let total = world.lab.total();
    assert!(matches!(finish.outcome, Outcome::Succeeded | Outcome::Unknown), "{story}");
    assert!(total.most_flashes_of_one() <= 1, "flashed twice\n{story}");
    assert!(uploads(&world) <= 2 + u64::try_from(late.kills.len()).unwrap(), "{story}");
    assert_eq!((total.bricked, total.overlapping_mutations), (0, 0), "{story}");
    if finish.outcome == Outcome::Succeeded {
        assert_eq!(world.version(0, BIOS).as_deref(), Some("1.15.2"), "{story}");
    }
    drop(executors);
}

fn late_jobs(cases: u32) {
    let config = ProptestConfig { cases, max_shrink_iters: 50, ..ProptestConfig::default() };
    proptest!(config, |(late in late())| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(&late));
    });
}

#[test]
fn a_late_job_is_flashed_once_or_unknown() {
    late_jobs(16);
}

#[test]
#[ignore = "a thousand schedules take minutes; a sample of them runs always"]
fn a_late_job_is_flashed_once_or_unknown_in_a_thousand_schedules() {
    late_jobs(1_000);
}

/// The answer is lost, the device has no log, and the job shows up after the time in which it should have.
#[tokio::test(start_paused = true)]
async fn a_job_that_shows_up_later_than_its_time_is_never_joined_by_a_second_flash() {
    for hidden in [100, 299, 345, 362, 400, 700] {
        let world = World::new(vec![r750()]);
        world.wire.no_log.store(true, Ordering::Relaxed);
        world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
        world.lab.fault("bmc-01", Fault::JobVisibilityDelay { seconds: hidden }, ONCE).unwrap();
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, bios(&world)).await;
        assert!(matches!(finish.outcome, Outcome::Succeeded | Outcome::Unknown), "{hidden}: {}", row.story());
        assert!(world.lab.total().most_flashes_of_one() <= 1, "{hidden}: {}", row.story());
        // Within five minutes it is found, and nothing is handed over beside it.
        assert!(hidden > 300 || uploads(&world) == 1, "{hidden}: {}", row.story());
    }
}

/// Taken twice without a job to show for it, or cut every time: two hand-overs at most, then a person
/// decides.
#[tokio::test(start_paused = true)]
async fn hand_overs_without_a_trace_end_after_the_second() {
    let world = World::new(vec![r750()]);
    world.wire.no_log.store(true, Ordering::Relaxed);
    world.lab.fault("bmc-01", Fault::CutBeforeAccept, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, bios(&world)).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(uploads(&world), 2, "{}", row.story());
}

/// A run that succeeded after two hand-overs says that a job of the other one may still come; one hand-over
/// says nothing.
#[tokio::test(start_paused = true)]
async fn a_second_hand_over_is_told_at_the_end() {
    for (cuts, told) in [(0, false), (1, true)] {
        let world = World::new(vec![r750()]);
        world.wire.no_log.store(true, Ordering::Relaxed);
        if cuts > 0 {
            world.lab.fault("bmc-01", Fault::CutBeforeAccept, ONCE).unwrap();
        }
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, bios(&world)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
        assert_eq!(uploads(&world), 1 + cuts, "{}", row.story());
        assert_eq!(finish.detail.contains("handed over twice"), told, "{}", finish.detail);
    }
}

/// The answer names a job that the device never lists: it may still come, and flash at any boot.
#[tokio::test(start_paused = true)]
async fn a_named_job_that_never_shows_up_ends_unknown() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::JobVisibilityDelay { seconds: 1_000_000 }, ONCE).unwrap();
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, bios(&world)).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!((uploads(&world), resets(&world)), (1, 0), "{}", row.story());
}

/// A job that another console adds while the package is on its way holds the hand-over.
#[tokio::test(start_paused = true)]
async fn a_job_that_appears_before_the_hand_over_holds_it() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.plane.run(run).grant.phase != "package" {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    world.lab.foreign_job("bmc-01", &ForeignJob::default()).unwrap();
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{}", row.story());
    assert_eq!(uploads(&world), 0, "{}", row.story());
}

/// The answer is lost, people cancel, the job shows up when the run has ended: it waits for the next boot.
#[tokio::test(start_paused = true)]
async fn a_cancelled_run_with_a_lost_hand_over_is_unknown() {
    let world = World::new(vec![r750()]);
    world.wire.no_log.store(true, Ordering::Relaxed);
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    world.lab.fault("bmc-01", Fault::JobVisibilityDelay { seconds: 700 }, ONCE).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(seconds(1)).await;
    }
    tokio::time::sleep(seconds(60)).await;
    world.plane.cancel(run);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert!(!finish.detail.contains("taken out"), "{}", finish.detail);
}

/// The answer is lost and a job shows up in the queue: whether it is ours nobody knows, so that it is not
/// deleted.
#[tokio::test(start_paused = true)]
async fn a_job_that_was_found_in_the_queue_is_not_deleted() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    world.lab.fault("bmc-01", Fault::StuckScheduled, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.plane.run(run).grant.phase != "reboot" {
        tokio::time::sleep(seconds(1)).await;
    }
    world.plane.cancel(run);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(world.lab.total().jobs_deleted, 0, "{}", row.story());
}

/// A job that was found in the queue fails. It may have been somebody else's, and ours still to come.
#[tokio::test(start_paused = true)]
async fn a_job_that_was_found_in_the_queue_and_fails_proves_nothing() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    world.lab.fault("bmc-01", Fault::FlashFailsPr21, ONCE).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
}

// ---- outcomes ---------------------------------------------------------------------------------------------

/// What refuses the look in mid-flash. The flash takes six minutes; each ends before or long after it.
#[tokio::test(start_paused = true)]
async fn no_run_fails_because_a_flash_cannot_be_looked_at() {
    for (refusal, passes) in [(401, true), (401, false), (403, true), (403, false), (0, true), (0, false)] {
        let world = World::new(vec![r750()]);
        let _executor = world.start(0, None).await;
        let run = bios(&world);
        while world.lab.total().flashes.is_empty() {
            tokio::time::sleep(seconds(1)).await;
        }
        if refusal == 0 {
            world.wire.other_key.store(true, Ordering::Relaxed);
        } else {
            *world.wire.refuses.lock().unwrap() = (u32::MAX, refusal);
        }
        tokio::time::sleep(seconds(180)).await;
        assert!(world.plane.run(run).finish.is_none(), "{refusal}: ended in mid-flash");
        if passes {
            world.wire.other_key.store(false, Ordering::Relaxed);
            *world.wire.refuses.lock().unwrap() = (0, 0);
        }
        let (row, finish) = end(&world, run).await;
        let honest = match finish.outcome {
            Outcome::Unknown => true,
            Outcome::Succeeded => passes && world.version(0, BIOS).as_deref() == Some("1.15.2"),
            _ => false,
        };
        assert!(honest, "{refusal} {passes}: {}", row.story());
    }
}

/// The answer to the restart is lost and the BMC refuses every look from then on: whether it came is not
/// known.
#[tokio::test(start_paused = true)]
async fn an_open_intent_never_ends_as_failed() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceRestart);
    while world.lab.total().mutations.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.wire.other_key.store(true, Ordering::Relaxed);
    let (row, finish) = end(&world, run).await;
    assert_eq!(
        (finish.outcome, finish.code.as_str()),
        (Outcome::Unknown, "outcome-unknown"),
        "{}",
        row.story()
    );
}

// ---- power ------------------------------------------------------------------------------------------------

#[tokio::test(start_paused = true)]
async fn power_is_not_cut_under_a_device_job() {
    for reach in [Reach::Redfish, Reach::Both] {
        for action in [
            PowerAction::ForceOff,
            PowerAction::ForceRestart,
            PowerAction::PowerCycle,
            PowerAction::GracefulShutdown,
            PowerAction::GracefulRestart,
        ] {
            let world = World::new(vec![r750()]).reached(reach);
            foreign_flash(&world).await;
            let before = resets(&world);
            let _executor = world.start(0, None).await;
            let (row, finish) = end(&world, world.power(0, action)).await;
            assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{action:?} {}", row.story());
            assert_eq!((resets(&world), world.lab.total().bricked), (before, 0), "{action:?}");
        }
    }
}

const IDRAC_FILE: &str = "iDRAC-with-Lifecycle-Controller_Firmware_15G_7.10.50.10.EXE";

/// What happens after the look before an intent and before its request, while the acknowledgement takes its
/// time.
#[derive(Clone, Copy, Debug)]
enum Meanwhile {
    /// A job of another console begins.
    Flash,
    /// Another console cuts the host's power.
    PowerCut,
    /// Another console empties the device's queue.
    QueueCleared,
    /// Another console has the host boot from the network once.
    PxeOnce,
}

/// Starts an executor, and lets that happen at its first intent to `action`.
async fn in_between(world: &World, action: &'static str, meanwhile: Meanwhile) -> Handle {
    let announced = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = std::sync::Arc::clone(&announced);
    let hold = StopAt::when(move |_, write| {
        if matches!(write, Write::Intent { intent, .. } if intent.action == action) {
            tell.notify_one();
        }
        false
    });
    let executor = world.start(0, Some(hold)).await;
    announced.notified().await;
    // Shorter than what would call for a new look anyway.
    world.link(0).partitioned.store(true, Ordering::Relaxed);
    match meanwhile {
        Meanwhile::Flash => {
            let before = world.lab.total().flashes.len();
            let job = ForeignJob { package: Some(IDRAC_FILE.into()), immediate: true };
            world.lab.foreign_job("bmc-01", &job).unwrap();
            while world.lab.total().flashes.len() == before {
                world.lab.status("bmc-01").unwrap();
                tokio::time::sleep(seconds(1)).await;
            }
        }
        Meanwhile::PowerCut => {
            world.other_console_resets(0, "ForceOff").await;
            tokio::time::sleep(seconds(10)).await;
        }
        Meanwhile::QueueCleared => {
            let clear = http::Request::post(
                "/redfish/v1/Managers/iDRAC.Embedded.1/Oem/Dell/DellJobService/Actions/DellJobService.DeleteJobQueue",
            );
            world.other_console(0, clear, &json!({ "JobID": "JID_CLEARALL" })).await;
        }
        Meanwhile::PxeOnce => {
            let set = http::Request::patch("/redfish/v1/Systems/System.Embedded.1");
            let once = json!({ "BootSourceOverrideTarget": "Pxe", "BootSourceOverrideEnabled": "Once" });
            world.other_console(0, set, &json!({ "Boot": once })).await;
            tokio::time::sleep(seconds(10)).await;
        }
    }
    world.link(0).partitioned.store(false, Ordering::Relaxed);
    executor
}

/// That nothing was requested of the host in the half minute that a fresh look forbids.
async fn nothing_follows(world: &World, meanwhile: Meanwhile) {
    let before = resets(world);
    tokio::time::sleep(seconds(30)).await;
    if matches!(meanwhile, Meanwhile::Flash) {
        assert_eq!(resets(world), before, "a reset during a flash");
    }
}

#[tokio::test(start_paused = true)]
async fn power_is_looked_at_again_once_the_permit_is_at_hand() {
    let world = World::new(vec![r750()]);
    let run = world.power(0, PowerAction::ForceOff);
    let _executor = in_between(&world, "reset_host", Meanwhile::Flash).await;
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{}", row.story());
    assert_eq!(resets(&world), 0, "{}", row.story());
}

/// The restart of an update, and the power-off at its end: each looks at jobs and power once more.
#[tokio::test(start_paused = true)]
async fn resets_of_an_update_look_again_once_the_permit_is_at_hand() {
    for (action, server) in [("reset_host", r750()), ("power_off", r750().powered_off())] {
        for meanwhile in [Meanwhile::Flash, Meanwhile::PowerCut] {
            let world = World::new(vec![server.clone()]);
            let run = bios(&world);
            let _executor = in_between(&world, action, meanwhile).await;
            nothing_follows(&world, meanwhile).await;
            let (row, finish) = end(&world, run).await;
            let story = row.story();
            assert_eq!(finish.outcome, Outcome::Succeeded, "{action} {meanwhile:?}: {story}");
            assert!(story.contains("meanwhile") || story.contains("under way"), "{action}: {story}");
            assert!(!story.contains("PSU502"), "a host that is off was asked: {story}");
            assert_eq!(world.lab.total().bricked, 0, "{action} {meanwhile:?}: {story}");
        }
    }
}

/// At the end of an update its host goes off again. Meanwhile another console flashes it, and the BMC restarts: its queue
/// is empty for a while. Looks fail for as long as it is away, or only the one right before the request, or none: the
/// acknowledgement takes longer than the restart.
#[tokio::test(start_paused = true)]
async fn an_empty_queue_after_a_restart_of_the_bmc_switches_no_host_off_again() {
    for (late, away) in [(0, 20), (0, 0), (2, 0), (90, 0)] {
        let world = World::new(vec![r750().powered_off()]);
        let run = bios(&world);
        let _executor = in_between(&world, "power_off", Meanwhile::Flash).await;
        world.link(0).partitioned.store(late > 0, Ordering::Relaxed);
        world.wire.redfish_down.store(late == 0, Ordering::Relaxed);
        *world.wire.retold.lock().unwrap() = Some(hides_jobs);
        tokio::time::sleep(seconds(late)).await;
        world.link(0).partitioned.store(false, Ordering::Relaxed);
        let before = resets(&world);
        while !world.plane.run(run).story().contains("\"not_applied\"") {
            assert_eq!(resets(&world), before, "{late} {away} {}", world.plane.run(run).story());
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        tokio::time::sleep(seconds(away)).await;
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        tokio::time::sleep(seconds(100)).await;
        assert_eq!(resets(&world), before, "{late} {away} {}", world.plane.run(run).story());
        *world.wire.retold.lock().unwrap() = None;
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{late} {away} {}", row.story());
        assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "Off", "{}", row.story());
    }
}

/// A BMC has restarted between the look and the request, which only the login of that request meets: it may be at work that
/// its queue does not show yet.
#[tokio::test(start_paused = true)]
async fn a_restart_that_only_the_login_of_a_request_meets_counts_as_one() {
    let world = World::new(vec![r750().powered_off()]);
    let run = bios(&world);
    let announced = std::sync::Arc::new(tokio::sync::Notify::new());
    let tell = std::sync::Arc::clone(&announced);
    let stop = StopAt::when(move |_, write| {
        if matches!(write, Write::Intent { intent, .. } if intent.action == "power_off") {
            tell.notify_one();
        }
        false
    });
    let _executor = world.start(0, Some(stop)).await;
    announced.notified().await;
    world.link(0).partitioned.store(true, Ordering::Relaxed);
    let job = ForeignJob { package: Some(IDRAC_FILE.into()), immediate: true };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    *world.wire.retold.lock().unwrap() = Some(hides_jobs);
    world.wire.restarted.store(true, Ordering::Relaxed);
    tokio::time::sleep(seconds(5)).await;
    world.link(0).partitioned.store(false, Ordering::Relaxed);
    let before = resets(&world);
    tokio::time::sleep(seconds(100)).await;
    assert!(!world.wire.restarted.load(Ordering::Relaxed), "{}", world.plane.run(run).story());
    assert_eq!(resets(&world), before, "{}", world.plane.run(run).story());
}

/// So many times twenty minutes of work, and then a pause of the site.
async fn pause_now_and_then(world: &World, times: u32, pause: Duration) {
    for _ in 0..times {
        tokio::time::sleep(seconds(20 * 60)).await;
        world.plane.pause(true);
        tokio::time::sleep(pause).await;
        world.plane.pause(false);
    }
}

/// A host says without end that it powers on, and people pause the site for two minutes now and then: a run beside it ends
/// as without them.
#[tokio::test(start_paused = true)]
async fn short_pauses_do_not_keep_a_run_beside_a_host_that_powers_on_for_ever() {
    let world = World::new(vec![r750()]);
    *world.wire.retold.lock().unwrap() = Some(powers_on);
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceOff);
    pause_now_and_then(&world, 12, seconds(130)).await;
    let row = world.plane.run(run);
    assert_eq!(
        row.finish.as_ref().map(|finish| finish.code.as_str()),
        Some("device-busy"),
        "{}",
        row.story()
    );
}

/// Nobody restarts a host for a job that is gone by then.
#[tokio::test(start_paused = true)]
async fn the_job_is_looked_at_again_once_the_permit_is_at_hand() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    let _executor = in_between(&world, "reset_host", Meanwhile::QueueCleared).await;
    let (row, finish) = end(&world, run).await;
    assert_eq!(resets(&world), 0, "{}", row.story());
    assert_eq!(finish.code, ErrorCode::VersionNotReached.as_str(), "{}", row.story());
}

/// What was seen long before the acknowledgement is no ground to act on, whether the announcement took its
/// time or what came before it. What another console has set meanwhile is seen instead of set again.
#[tokio::test(start_paused = true)]
async fn a_late_acknowledgement_calls_for_a_fresh_look() {
    let limits: [fn(&mut Timing) -> &mut Duration; 2] =
        [|timing| &mut timing.settle, |timing| &mut timing.bmc_outage];
    for limit in limits {
        let mut world = World::new(vec![r750()]);
        *limit(&mut world.timing) = seconds(5);
        let run = world.boot(0, super::crash::PXE_ONCE);
        let _executor = in_between(&world, "set_boot_override", Meanwhile::PxeOnce).await;
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.outcome, Outcome::NoChange, "{}", row.story());
        assert!(world.wire.redfish_changes.lock().unwrap().is_empty(), "{}", row.story());
    }
}

/// Broken off at the end of its lease is only what carries the fence of one.
#[tokio::test(start_paused = true)]
async fn every_request_that_changes_something_carries_the_fence_of_its_lease() {
    let world = World::new(vec![r750().powered_off()]);
    let _executor = world.start(0, None).await;
    let withdrawn = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.plane.cancel(withdrawn);
    end(&world, withdrawn).await;
    end(&world, world.boot(0, super::crash::PXE_ONCE)).await;
    end(&world, bios(&world)).await;
    let changes = world.wire.redfish_changes.lock().unwrap();
    for kind in ["DeleteJobQueue", "PATCH ", "/MultipartUpload", "ComputerSystem.Reset"] {
        assert!(changes.iter().any(|(request, _)| request.contains(kind)), "no {kind}: {changes:?}");
    }
    assert!(changes.iter().all(|(_, fenced)| *fenced), "{changes:?}");
}

/// An operating system or a BMC that ignores a restart: never "read back".
#[tokio::test(start_paused = true)]
async fn a_restart_without_evidence_is_not_called_read_back() {
    for (reach, no_log, action, outcome) in [
        (Reach::Redfish, false, PowerAction::GracefulRestart, Outcome::Failed),
        (Reach::Redfish, false, PowerAction::ForceRestart, Outcome::Failed),
        (Reach::Redfish, true, PowerAction::GracefulRestart, Outcome::Unknown),
        (Reach::Ipmi, false, PowerAction::ForceRestart, Outcome::Succeeded),
    ] {
        let world = World::new(vec![r750()]).reached(reach);
        world.wire.no_log.store(no_log, Ordering::Relaxed);
        world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, world.power(0, action)).await;
        assert_eq!(finish.outcome, outcome, "{reach:?} {action:?} {}", row.story());
        assert!(!finish.detail.contains("read back"), "{}", finish.detail);
        if outcome == Outcome::Succeeded {
            assert!(finish.detail.contains("not verified"), "{}", finish.detail);
        }
    }
}

/// With evidence of any kind it is done, and not before the host has been down.
#[tokio::test(start_paused = true)]
async fn a_restart_is_done_once_it_was_seen() {
    for (no_log, action) in [
        (false, PowerAction::GracefulRestart),
        (true, PowerAction::GracefulRestart),
        (false, PowerAction::ForceRestart),
        (true, PowerAction::ForceRestart),
    ] {
        let world = World::new(vec![r750()]);
        world.wire.no_log.store(no_log, Ordering::Relaxed);
        world.lab.fault("bmc-01", Fault::SlowPower { seconds: 40 }, ONCE).unwrap();
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, world.power(0, action)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{no_log} {action:?} {}", row.story());
        assert!(finish.detail.contains("read back"), "{}", finish.detail);
        assert_eq!(resets(&world), 1, "done before the host went down: {}", row.story());
    }
}

// ---- the reboot of an update ------------------------------------------------------------------------------

/// This device lists no polite restart, and the policy forbids force.
#[tokio::test(start_paused = true)]
async fn forced_restarts_that_the_policy_forbids_are_not_made() {
    for allowed in [false, true] {
        let server = ServerSpec::new("bmc-01", Model::R730);
        let mut world = World::new(vec![server]);
        world.policy.allow_forced_restart = allowed;
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, world.update(0, BIOS, "BIOS_R730_2.19.0.EXE", Reboot::Host)).await;
        let forced = world.lab.total().host_resets.get("ForceRestart").copied().unwrap_or_default();
        if allowed {
            assert_eq!((finish.outcome, forced), (Outcome::Succeeded, 1), "{}", row.story());
        } else {
            assert_eq!(finish.code, ErrorCode::PolicyRefused.as_str(), "{}", row.story());
            assert_eq!((resets(&world), world.lab.total().jobs_deleted), (0, 1), "{}", row.story());
        }
    }
}

/// Somebody else's job, staged after ours, would run in our restart.
#[tokio::test(start_paused = true)]
async fn a_foreign_job_that_waits_for_a_restart_holds_ours() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.lab.foreign_job("bmc-01", &ForeignJob::default()).unwrap();
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{}", row.story());
    assert_eq!((resets(&world), world.lab.total().jobs_deleted), (0, 1), "{}", row.story());
    let waits = row.items.iter().any(|item| match &item.body {
        ReportBody::Checkpoint { waiting: Some(waiting), .. } => waiting.reason == "foreign_device_job",
        _ => false,
    });
    assert!(waits, "the wait is visible: {}", row.story());
    assert!(row.items.len() < 120, "{} reports", row.items.len());
}

/// The answer to the restart is lost and no log tells: nothing is repeated.
#[tokio::test(start_paused = true)]
async fn a_lost_restart_is_not_repeated_without_evidence() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::StuckScheduled, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.wire.no_log.store(true, Ordering::Relaxed);
    world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    let power = world.lab.total().mutations.get(&MutationKind::Power).copied();
    assert_eq!(power, Some(1), "{}", row.story());
}

/// The host follows the polite restart; the device does not begin. The approved plan has one restart in it.
#[tokio::test(start_paused = true)]
async fn a_host_that_followed_is_not_restarted_by_force() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::StuckScheduled, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.code, ErrorCode::DeviceStalled.as_str(), "{}", row.story());
    let restarts = world.lab.total().host_resets;
    assert_eq!((restarts.get("GracefulRestart"), restarts.get("ForceRestart")), (Some(&1), None));
}

/// Nothing tells whether the host has followed: neither another restart nor "failed".
#[tokio::test(start_paused = true)]
async fn a_host_that_may_have_followed_is_not_restarted_by_force() {
    let world = World::new(vec![r750()]);
    world.wire.no_log.store(true, Ordering::Relaxed);
    world.lab.fault("bmc-01", Fault::StuckScheduled, Times::Always).unwrap();
    world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(world.lab.total().host_resets.get("ForceRestart"), None, "{}", row.story());
}

/// The executor dies before its intent to power the host on is told. Then a person powers it on.
#[tokio::test(start_paused = true)]
async fn a_host_that_a_person_powered_on_is_not_shut_down() {
    let world = World::new(vec![r750().powered_off()]);
    let stop = StopAt::when(
        |_, write| matches!(write, Write::Intent { intent, .. } if intent.action == "reset_host"),
    );
    let first = world.start(0, Some(stop.clone())).await;
    let run = bios(&world);
    stop.reached.notified().await;
    tokio::time::sleep(seconds(2)).await;
    drop(first);
    assert!(world.plane.run(run).grant.intent.is_none(), "never told");
    world.other_console_resets(0, "On").await;
    let _second = world.start(1, None).await;
    let (row, _) = end(&world, run).await;
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "On", "{:?} {}", row.effects, row.story());
}

/// An effect reached the control plane, its intent did not: what the device shows, others have done.
#[tokio::test(start_paused = true)]
async fn an_effect_without_its_intent_is_not_undone() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    let powered = Effect {
        id: EffectId::generate(),
        object: "host_power".to_owned(),
        property: "state".to_owned(),
        prior: json!("off"),
        wanted: json!("on"),
        state: EffectState::Intended,
    };
    world.plane.leave(run, powered);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "On", "{:?}", row.effects);
}

// ---- the machine ------------------------------------------------------------------------------------------

fn tagged(tag: &str) -> Option<Machine> {
    Some(Machine { service_tag: Some(tag.to_owned()), ..Machine::default() })
}

/// Every kind of run that changes something, over every transport: another machine is not touched.
#[tokio::test(start_paused = true)]
async fn another_machine_is_not_touched() {
    for reach in [Reach::Redfish, Reach::Ipmi, Reach::Both] {
        let mut world = World::new(vec![r750()]).reached(reach);
        world.machine = tagged("OTHER01");
        if reach == Reach::Both {
            world.wire.redfish_down.store(true, Ordering::Relaxed);
        }
        let mut runs = vec![world.power(0, PowerAction::ForceOff), world.boot(0, super::crash::PXE_ONCE)];
        if reach == Reach::Redfish {
            runs.push(bios(&world));
        }
        let _executor = world.start(0, None).await;
        for run in runs {
            let (row, finish) = end(&world, run).await;
            assert_eq!(finish.code, ErrorCode::AnotherMachine.as_str(), "{reach:?} {}", row.story());
            assert_eq!(finish.outcome, Outcome::Failed, "nothing was begun: {}", row.story());
        }
        assert!(world.lab.total().mutations.is_empty(), "{reach:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_planned_machine_is_recognised_over_every_transport() {
    for reach in [Reach::Redfish, Reach::Ipmi] {
        let mut world = World::new(vec![r750()]).reached(reach);
        world.machine = tagged(&r750().service_tag);
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{reach:?} {}", row.story());
        assert!(!row.story().contains("could not be checked"), "{}", row.story());
    }
}

/// A UUID cannot be compared over IPMI: the run goes on and says so.
#[tokio::test(start_paused = true)]
async fn an_unreadable_identity_is_said() {
    let mut world = World::new(vec![r750()]).reached(Reach::Ipmi);
    world.machine = Some(Machine { uuid: Some("4c4c4544-0042".into()), ..Machine::default() });
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert!(row.story().contains("could not be checked"), "{}", row.story());
}

/// The BMC is registered anew while the executor is away: the successor sees another machine, or another
/// address, and says that what was begun on the first one is not known.
#[tokio::test(start_paused = true)]
async fn a_successor_does_not_go_on_with_another_machine() {
    for by_address in [false, true] {
        let other = ServerSpec::new("bmc-02", Model::R750);
        let mut world = World::new(vec![r750(), other]);
        world.machine = Some(Machine {
            url: by_address.then(|| "https://bmc-01".to_owned()),
            service_tag: (!by_address).then(|| r750().service_tag),
            ..Machine::default()
        });
        let run = bios(&world);
        let stop = StopAt::when(
            |_, write| matches!(write, Write::Intent { intent, .. } if intent.action == "reset_host"),
        );
        let first = world.start(0, Some(stop.clone())).await;
        stop.reached.notified().await;
        drop(first);
        let target = world.target(1);
        world.plane.edit(run, |grant| grant.target = target);
        let _second = world.start(1, None).await;
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.code, ErrorCode::AnotherMachine.as_str(), "{}", row.story());
        assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
        assert!(world.lab.counters("bmc-02").unwrap().mutations.is_empty(), "{}", row.story());
        assert!(row.effects.iter().all(|effect| !effect.state.is_open()), "{:?}", row.effects);
    }
}

// ---- bounds -----------------------------------------------------------------------------------------------

/// The device says busy to every hand-over, for ever.
#[tokio::test(start_paused = true)]
async fn tries_end_and_the_wait_is_visible() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    world.lab.fault("bmc-01", Fault::SlowPower { seconds: 1 }, ONCE).unwrap();
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Between staging and restart: a job of another console runs, and does not end.
    let story = || world.plane.run(run).story();
    world.lab.fault("bmc-01", Fault::StuckScheduled, Times::Always).unwrap();
    world.lab.foreign_job("bmc-01", &ForeignJob::default()).unwrap();
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Failed, "{}", story());
    let intents = row.items.iter().filter(|item| matches!(item.body, ReportBody::Intent(_))).count();
    assert!(intents <= 4 && row.items.len() < 150, "{intents} of {}: {}", row.items.len(), story());
    assert!(row.effects.len() <= 2, "{:?}", row.effects);
}

/// An effect of a kind that only newer executors know: given back, with long pauses, never finished over.
#[tokio::test(start_paused = true)]
async fn an_unknown_effect_is_left_to_a_newer_executor() {
    let world = World::new(vec![r750()]);
    let run = world.power(0, PowerAction::ForceOff);
    world.plane.leave(
        run,
        Effect {
            id: EffectId::generate(),
            object: "maintenance_mode".into(),
            property: "state".into(),
            prior: json!("off"),
            wanted: json!("on"),
            state: EffectState::Applied,
        },
    );
    let _executor = world.start(0, None).await;
    tokio::time::sleep(seconds(24 * 3600)).await;
    let row = world.plane.run(run);
    assert!(row.finish.is_none(), "{}", row.story());
    let given = row.items.iter().filter(|item| matches!(item.body, ReportBody::Yield { .. })).count();
    assert!((1..=60).contains(&given), "{given} times in a day: {}", row.story());
    assert!(row.items.len() < 300, "{} reports in a day", row.items.len());
    assert!(row.story().contains("maintenance_mode"), "{}", row.story());
}

/// What people's requests are checked for, a control plane may still grant: the executor checks it again.
#[tokio::test(start_paused = true)]
async fn a_grant_that_is_not_valid_is_refused_before_anything_is_done() {
    let world = World::new(vec![r750()]);
    let sound = FirmwarePackage {
        name: "BIOS".into(),
        file_name: BIOS_R750.into(),
        url: "https://repository.example/BIOS.EXE".into(),
        sha256: "ab".repeat(32),
        size: 1,
        software_id: "159".into(),
        version: "1".into(),
    };
    let _executor = world.start(0, None).await;
    for (package, said) in [
        (FirmwarePackage { sha256: "/etc/cron.d/x".into(), ..sound.clone() }, "sha256"),
        (FirmwarePackage { size: 0, ..sound.clone() }, "size"),
        (FirmwarePackage { file_name: "../x".into(), ..sound.clone() }, "file_name"),
        (FirmwarePackage { url: "file:///etc/passwd".into(), ..sound.clone() }, "url"),
    ] {
        let packages = [("any".to_owned(), package)].into();
        let params = FirmwareUpdateParams { packages, allow_downgrade: false };
        let (row, finish) = end(&world, world.add(0, JobSpec::FirmwareUpdate(params), vec![])).await;
        assert_eq!(finish.code, ErrorCode::PolicyRefused.as_str(), "{}", row.story());
        assert!(finish.detail.contains(said) && finish.detail.contains("bmc-01"), "{}", finish.detail);
    }
    assert_eq!(world.lab.total().requests, 0);
}

/// Updates are tasks, beside a job service that holds other things.
#[tokio::test(start_paused = true)]
async fn a_lost_hand_over_of_a_task_is_not_repeated() {
    let world = World::new(vec![r750()]);
    world.wire.no_log.store(true, Ordering::Relaxed);
    world.wire.tasks_apart.store(true, Ordering::Relaxed);
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, bios(&world)).await;
    assert_eq!((uploads(&world), finish.outcome), (1, Outcome::Succeeded), "{}", row.story());
    assert_eq!(world.lab.total().most_flashes_of_one(), 1, "{}", row.story());
}

#[tokio::test(start_paused = true)]
async fn power_is_not_cut_under_a_task() {
    let world = World::new(vec![r750()]);
    world.wire.tasks_apart.store(true, Ordering::Relaxed);
    foreign_flash(&world).await;
    let before = resets(&world);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{}", row.story());
    assert_eq!((resets(&world), world.lab.total().bricked), (before, 0), "{}", row.story());
}

/// An update whose job is in the device's queue, and begins with no restart.
async fn has_a_job_that_waits(world: &World) -> (Handle, RunId) {
    world.lab.fault("bmc-01", Fault::StuckScheduled, Times::Always).unwrap();
    let run = bios(world);
    let executor = world.start(0, None).await;
    while world.plane.run(run).grant.phase != "reboot" {
        assert!(world.plane.run(run).finish.is_none());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (executor, run)
}

/// Somebody cancels: the task is deleted where it is listed, and does not flash at a later restart.
#[tokio::test(start_paused = true)]
async fn a_cancelled_update_takes_its_task_out_of_the_task_service() {
    let world = World::new(vec![r750()]);
    world.wire.tasks_apart.store(true, Ordering::Relaxed);
    let (_executor, run) = has_a_job_that_waits(&world).await;
    world.plane.cancel(run);
    let (row, _) = end(&world, run).await;
    let changes = world.wire.redfish_changes.lock().unwrap().clone();
    let deleted: Vec<_> = changes.iter().filter(|(what, _)| what.starts_with("DELETE")).collect();
    assert!(!deleted.is_empty(), "{changes:?} {}", row.story());
    assert!(deleted.iter().all(|(what, _)| what.contains("/TaskService/Tasks/")), "{deleted:?}");
}

/// People cancel while the site is paused, and what is behind the BMC's web server restarts: its queue is empty for two
/// minutes, and then lists the job that nobody has deleted.
#[tokio::test(start_paused = true)]
async fn a_queue_that_is_empty_after_a_restart_is_no_proof_that_a_job_is_gone() {
    for away in [20, 40] {
        let world = World::new(vec![r750()]);
        let (_executor, run) = has_a_job_that_waits(&world).await;
        world.plane.pause(true);
        world.plane.cancel(run);
        tokio::time::sleep(seconds(120)).await;
        *world.wire.refuses.lock().unwrap() = (u32::MAX, 503);
        *world.wire.retold.lock().unwrap() = Some(hides_jobs);
        tokio::time::sleep(seconds(away)).await;
        *world.wire.refuses.lock().unwrap() = (0, 0);
        tokio::time::sleep(seconds(120)).await;
        *world.wire.retold.lock().unwrap() = None;
        let row = world.plane.run(run);
        assert!(row.finish.is_none(), "{away} {}", row.story());
        world.plane.pause(false);
        let (row, _) = end(&world, run).await;
        assert!(row.story().contains("delete_job accepted"), "{away} {}", row.story());
    }
}

/// Somebody cancels, and the job is not shown any more, by a BMC that is away for a moment every few minutes: the run does
/// not wait without end for it to stay absent, and says what is left.
#[tokio::test(start_paused = true)]
async fn a_job_that_a_flaky_bmc_does_not_show_is_not_waited_for_without_end() {
    let world = World::new(vec![r750()]);
    let (_executor, run) = has_a_job_that_waits(&world).await;
    *world.wire.retold.lock().unwrap() = Some(hides_jobs);
    world.plane.cancel(run);
    for passed in (0..3600).step_by(10) {
        world.wire.redfish_down.store(passed % 240 < 20, Ordering::Relaxed);
        tokio::time::sleep(seconds(10)).await;
        let row = world.plane.run(run);
        if let Some(settle) = &row.grant.settle {
            assert!(settle.detail.contains("is not shown"), "{settle:?}");
            assert!(passed > 40 * 60, "after {passed} s");
            assert!(row.effects.iter().any(|effect| effect.state.is_open()));
            return;
        }
    }
    panic!("{}", world.plane.run(run).story());
}

/// A BMC that has just restarted answers 404 for its queue: that is no proof that it has none.
#[tokio::test(start_paused = true)]
async fn power_is_not_cut_while_the_queue_is_not_found() {
    let world = World::new(vec![r750()]);
    foreign_flash(&world).await;
    let before = resets(&world);
    world.wire.no_queue.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.code, ErrorCode::DeviceBusy.as_str(), "{}", row.story());
    assert_eq!((resets(&world), world.lab.total().bricked), (before, 0), "{}", row.story());
}

/// The first job never had its package. The second one is named and never shows up: it may still come.
#[tokio::test(start_paused = true)]
async fn a_second_job_that_never_shows_up_ends_unknown() {
    let world = World::new(vec![r750()]);
    world.wire.never_had.store(true, Ordering::Relaxed);
    world.lab.fault("bmc-01", Fault::FlashFailsPr21, ONCE).unwrap();
    let run = bios(&world);
    let _executor = world.start(0, None).await;
    while resets(&world) == 0 || world.plane.run(run).grant.phase != "stage" {
        assert!(world.plane.run(run).finish.is_none(), "{}", world.plane.run(run).story());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.lab.fault("bmc-01", Fault::JobVisibilityDelay { seconds: 1_000_000 }, ONCE).unwrap();
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(uploads(&world), 2, "{}", row.story());
}

/// A run of which the next checkpoint cannot be reported ends with a code of its own before anything is done.
#[tokio::test(start_paused = true)]
async fn a_run_that_is_too_large_to_report_ends_and_says_so() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    world.plane.edit(run, |grant| grant.checkpoint = json!({ "progress": "x".repeat(70_000) }));
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, run).await;
    assert_eq!(
        (finish.outcome, finish.code.as_str()),
        (Outcome::Failed, "report-too-large"),
        "{}",
        row.story()
    );
    assert_eq!(uploads(&world), 0, "{}", row.story());
}

// ---- looks and slots --------------------------------------------------------------------------------------

/// Readers of a slow BMC, so that whoever gives its slot back waits for a whole inventory.
fn crowd(world: &mut World) {
    world.capacity = 64;
    world.lab.fault("bmc-01", Fault::SlowResponses { milliseconds: 3_000 }, Times::Always).unwrap();
    for _ in 0..40 {
        world.inventory(0);
    }
}

/// A foreign job begins to flash at any moment around a power-off: it is never hit.
#[tokio::test(start_paused = true)]
async fn a_reset_does_not_follow_an_old_look() {
    for begins in (150..300).step_by(10) {
        let mut world = World::new(vec![r750()]);
        let run = world.power(0, PowerAction::ForceOff);
        crowd(&mut world);
        let _executor = world.start(0, None).await;
        tokio::time::sleep(seconds(begins - 130)).await;
        let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: true };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        let (row, _) = end(&world, run).await;
        assert_eq!(world.lab.total().bricked, 0, "{begins} {}", row.story());
    }
}

/// Whatever is sent, the queue was looked at right before, however many read beside it.
#[tokio::test(start_paused = true)]
async fn no_change_follows_an_old_look_at_the_queue() {
    let (mut off, mut cancelled, mut power) =
        (World::new(vec![r750().powered_off()]), World::new(vec![r750()]), World::new(vec![r750()]));
    let update = bios(&off);
    crowd(&mut off);
    let executor = off.start(0, None).await;
    end(&off, update).await;
    drop(executor);
    let update = bios(&cancelled);
    crowd(&mut cancelled);
    let executor = cancelled.start(0, None).await;
    while cancelled.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    cancelled.plane.cancel(update);
    end(&cancelled, update).await;
    drop(executor);
    let run = power.power(0, PowerAction::ForceOff);
    crowd(&mut power);
    let _executor = power.start(0, None).await;
    end(&power, run).await;
    let looks = [&off, &cancelled, &power].map(|world| world.wire.looks.lock().unwrap().clone()).concat();
    for kind in ["MultipartUpload", "ComputerSystem.Reset", "DeleteJobQueue"] {
        assert!(looks.iter().any(|(change, _)| change.contains(kind)), "{kind}: {looks:?}");
    }
    let old: Vec<_> = looks.iter().filter(|(_, age)| *age > seconds(12)).collect();
    assert!(old.is_empty(), "{old:?} of {looks:?}");
}

// ---- a host that stays off --------------------------------------------------------------------------------

/// The host follows the polite restart half the way: it shuts down and does not come back.
#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_come_back_from_a_restart_is_not_left_off() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    let _executor = world.start(0, None).await;
    while resets(&world) == 0 {
        assert!(world.plane.run(run).finish.is_none());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    world.other_console_resets(0, "ForceOff").await;
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "On", "{}", row.story());
    assert!(row.effects.iter().all(|effect| effect.state == EffectState::Settled), "{:?}", row.effects);
}

/// The executor is killed once the update was read back, and the host goes down before what was changed is put back.
async fn goes_down_before_clean_up(world: &World) {
    let stop = StopAt::when(
        |_, write| matches!(write, Write::Outbox { item, .. } if item.contains("\"phase\":\"verify\",\"state\":\"done\"")),
    );
    let first = world.start(0, Some(stop.clone())).await;
    stop.reached.notified().await;
    drop(first);
    world.other_console_resets(0, "ForceOff").await;
    tokio::time::sleep(seconds(60)).await;
}

/// A host that ran goes down after the update was read back, before what was changed is put back: it is powered on.
/// One that cannot be powered on is left to a person, who is told.
#[tokio::test(start_paused = true)]
async fn a_restarted_host_is_given_back_on() {
    for refuses in [false, true] {
        let world = World::new(vec![r750()]);
        let run = bios(&world);
        goes_down_before_clean_up(&world).await;
        if refuses {
            world.wire.refuses_resets.store(u32::MAX, Ordering::Relaxed);
        }
        let _second = world.start(1, None).await;
        let (row, finish) = end(&world, run).await;
        let power = world.lab.status("bmc-01").unwrap().power_state;
        let left = row.effects.iter().any(|effect| effect.state == EffectState::Conflict);
        assert_eq!(
            (power.as_str(), left),
            if refuses { ("Off", true) } else { ("On", false) },
            "{}",
            row.story()
        );
        assert_eq!(finish.detail.contains("Power it on."), refuses, "{finish:?}");
    }
}

// ---- at work, or about to be ------------------------------------------------------------------------------

/// Answers to such requests are on their way for so long.
fn slow(world: &World, such: fn(&str) -> bool, lasts: u64) {
    world.wire.slow.lock().unwrap().push((such, seconds(lasts)));
}

/// Only the whole listing is slow: a second look at names and live jobs is recent enough, and misses no job.
#[tokio::test(start_paused = true)]
async fn power_is_switched_beside_a_long_queue_and_never_under_its_jobs() {
    let mut succeeded = 0;
    for waits in (0..150).step_by(10) {
        let world = World::new(vec![r750()]);
        slow(&world, |uri| uri.contains("/Jobs?"), 30);
        let run = world.power(0, PowerAction::ForceOff);
        let _executor = world.start(0, None).await;
        if waits > 0 {
            tokio::time::sleep(seconds(waits)).await;
            let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: true };
            world.lab.foreign_job("bmc-01", &job).unwrap();
        }
        let (row, finish) = end(&world, run).await;
        assert_eq!(world.lab.total().bricked, 0, "{waits} {}", row.story());
        succeeded += u32::from(finish.outcome == Outcome::Succeeded);
        assert!(waits > 0 || finish.outcome == Outcome::Succeeded, "{}", row.story());
    }
    assert!(succeeded > 0);
}

/// Not even a short look comes in time: nothing is sent, the run ends and says why.
#[tokio::test(start_paused = true)]
async fn a_bmc_that_is_too_slow_for_a_recent_look_is_told_so() {
    let world = World::new(vec![r750()]);
    slow(&world, |uri| uri.contains("/Jobs"), 30);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.code, ErrorCode::DeviceBusy.as_str(), "{}", row.story());
    assert!(finish.detail.contains("answers slowly"), "{}", finish.detail);
    assert_eq!(resets(&world), 0, "{}", row.story());
}

/// What the client reads before it sends, an update's capabilities, makes the look older, too.
#[tokio::test(start_paused = true)]
async fn no_package_leaves_on_a_look_that_slow_capabilities_have_aged() {
    let world = World::new(vec![r750()]);
    slow(&world, |uri| uri.ends_with("/UpdateService"), 40);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, bios(&world)).await;
    assert_eq!(finish.code, ErrorCode::DeviceBusy.as_str(), "{}", row.story());
    assert_eq!(uploads(&world), 0, "{}", row.story());
}

/// Field report D36: as an iDRAC tells a job that nobody has scheduled, for ever.
fn unscheduled(document: &mut serde_json::Value) {
    if document.get("JobState").is_some_and(|state| state == "Scheduled") {
        document["JobState"] = "New".into();
        document["StartTime"] = "TIME_NA".into();
        document["MessageId"] = "JCP000".into();
    }
}

/// A host that hangs in its boot, at a prompt, and `state` in place of a job that waits.
fn hangs(document: &mut serde_json::Value, state: &str, start: Option<&str>, message: &str) {
    if document.get("JobState").is_some_and(|state| state == "Scheduled") {
        document["JobState"] = state.into();
        document["MessageId"] = message.into();
        if let Some(start) = start {
            document["StartTime"] = start.into();
        }
    }
    if document.get("ServerStatus").is_some() {
        document["ServerStatus"] = "InPOST".into();
    }
}

/// A job may wait for the boot in which the host is. But a person has to be able to end one that hangs, whatever stands
/// in the queue: for ever (field report D36), or as the record of an update that ended long ago.
#[tokio::test(start_paused = true)]
async fn a_host_that_hangs_in_its_boot_can_be_switched_off_after_the_time_of_a_boot() {
    let retellings: [fn(&mut serde_json::Value); 4] = [
        |document| hangs(document, "Completed", None, "RED029"),
        |document| hangs(document, "New", Some("TIME_NA"), "JCP000"),
        |document| hangs(document, "RebootPending", None, "RED029"),
        |document| hangs(document, "Scheduled", None, "JCP001"),
    ];
    for (number, retelling) in retellings.into_iter().enumerate() {
        let world = World::new(vec![r750()]);
        *world.wire.retold.lock().unwrap() = Some(retelling);
        world
            .lab
            .foreign_job("bmc-01", &ForeignJob { package: Some(BIOS_R750.into()), immediate: false })
            .unwrap();
        tokio::time::sleep(seconds(3600)).await;
        // A BMC that is busy then may have restarted, and its host as well.
        let refused = u32::from(number == 3);
        world.wire.refuses_resets.store(refused, Ordering::Relaxed);
        let _executor = world.start(0, None).await;
        let began = tokio::time::Instant::now();
        let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{number} {}", row.story());
        let took = began.elapsed();
        let least = 20 * 60 * (1 + u64::from(refused));
        assert!(took > seconds(least) && took < seconds(least + 20 * 60), "{number}: {took:?}");
    }
}

/// A host that is off is powered on beside a job that nobody has scheduled.
#[tokio::test(start_paused = true)]
async fn a_job_that_stays_new_for_ever_keeps_no_host_off() {
    let world = World::new(vec![r750().powered_off()]);
    *world.wire.retold.lock().unwrap() = Some(unscheduled);
    world.lab.foreign_job("bmc-01", &ForeignJob { package: None, immediate: false }).unwrap();
    tokio::time::sleep(seconds(6 * 3600)).await;
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::On)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
}

/// A job that waits is no reason, whether the device tells what its host is at or not.
#[tokio::test(start_paused = true)]
async fn power_is_switched_beside_a_job_that_waits() {
    for tells in [true, false] {
        let world = World::new(vec![r750()]);
        world.wire.tasks_apart.store(!tells, Ordering::Relaxed);
        world
            .lab
            .foreign_job("bmc-01", &ForeignJob { package: Some(BIOS_R750.into()), immediate: false })
            .unwrap();
        tokio::time::sleep(seconds(120)).await;
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{tells} {}", row.story());
        assert_eq!(world.wire.readiness_asked.load(Ordering::Relaxed) > 0, tells);
    }
}

/// A boot is waited for, and so is the job that begins in it.
#[tokio::test(start_paused = true)]
async fn power_waits_for_what_a_boot_begins() {
    let world = World::new(vec![r750()]);
    let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    tokio::time::sleep(seconds(120)).await;
    let _executor = world.start(0, None).await;
    world.other_console_resets(0, "ForceRestart").await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(world.lab.total().bricked, 0, "{}", row.story());
}

/// Another console has a host booted into its flash, and a run is to force it off: until the run tells `seen`.
async fn waits_beside_a_flash(world: &World, seen: &str) -> (Handle, RunId) {
    waits_with(world, PowerAction::ForceOff, seen).await
}

async fn waits_with(world: &World, action: PowerAction, seen: &str) -> (Handle, RunId) {
    let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    tokio::time::sleep(seconds(120)).await;
    let executor = world.start(0, None).await;
    world.other_console_resets(0, "ForceRestart").await;
    let run = world.power(0, action);
    while !world.plane.run(run).story().contains(seen) {
        assert!(world.plane.run(run).finish.is_none(), "{}", world.plane.run(run).story());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    (executor, run)
}

async fn stays_or_crashes(world: &World, executor: Handle, crashes: bool) -> Handle {
    if !crashes {
        return executor;
    }
    drop(executor);
    world.start(1, None).await
}

/// The run has seen the boot, and what is flashed in it. Then the web server of the BMC goes away, and IPMI answers, for
/// this executor or for its successor.
#[tokio::test(start_paused = true)]
async fn a_flash_that_was_seen_is_not_cut_over_ipmi() {
    for (after, away, crashes) in
        [(0, 120, false), (20, 120, true), (60, 6, false), (75, 120, true), (90, 6, false), (180, 6, true)]
    {
        let world = World::new(vec![r750()]).reached(Reach::Both);
        let (first, run) = waits_beside_a_flash(&world, "host is at work").await;
        tokio::time::sleep(seconds(after)).await;
        world.wire.redfish_down.store(true, Ordering::Relaxed);
        let _now = stays_or_crashes(&world, first, crashes).await;
        tokio::time::sleep(seconds(away)).await;
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        let (row, finish) = end(&world, run).await;
        let story = row.story();
        assert_eq!(finish.outcome, Outcome::Succeeded, "{after} {crashes} {story}");
        assert!(world.lab.total().bricked == 0 && !story.contains("IPMI"), "{after} {crashes} {story}");
    }
}

/// As a BMC that has just restarted shows its queues: empty.
fn hides_jobs(document: &mut serde_json::Value) {
    let of_jobs =
        document["@odata.id"].as_str().is_some_and(|id| id.contains("/Jobs") || id.contains("/Tasks"));
    if of_jobs && document.get("Members").is_some() {
        document["Members"] = serde_json::json!([]);
        document["Members@odata.count"] = 0.into();
    }
}

/// The BMC restarts under the flash that the run has seen, and shows its queue a minute after it answers.
#[tokio::test(start_paused = true)]
async fn a_queue_that_is_empty_after_a_restart_of_the_bmc_ends_no_work_that_was_seen() {
    for crashes in [false, true] {
        let world = World::new(vec![r750()]);
        let (first, run) = waits_beside_a_flash(&world, "is under way").await;
        world.wire.redfish_down.store(true, Ordering::Relaxed);
        *world.wire.retold.lock().unwrap() = Some(hides_jobs);
        let _now = stays_or_crashes(&world, first, crashes).await;
        tokio::time::sleep(seconds(20)).await;
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        tokio::time::sleep(seconds(60)).await;
        *world.wire.retold.lock().unwrap() = None;
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{crashes} {}", row.story());
        assert_eq!(world.lab.total().bricked, 0, "{crashes} {}", row.story());
    }
}

/// People pause the site beside a run that has seen a flash. As the pause ends, long after that flash, the BMC has
/// restarted under another one.
#[tokio::test(start_paused = true)]
async fn an_empty_queue_is_doubtful_also_long_after_the_work_that_was_seen() {
    let world = World::new(vec![r750()]);
    let (_executor, run) = waits_beside_a_flash(&world, "is under way").await;
    world.plane.pause(true);
    tokio::time::sleep(seconds(3600)).await;
    let (before, read) = (resets(&world), world.wire.redfish_requests.load(Ordering::Relaxed));
    tokio::time::sleep(seconds(600)).await;
    let read = world.wire.redfish_requests.load(Ordering::Relaxed) - read;
    assert!(read < 150, "{read} in ten minutes of a pause, with nothing at work");
    let job = ForeignJob { package: Some(IDRAC_FILE.into()), immediate: true };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    *world.wire.retold.lock().unwrap() = Some(hides_jobs);
    world.wire.redfish_down.store(true, Ordering::Relaxed);
    tokio::time::sleep(seconds(70)).await;
    world.wire.redfish_down.store(false, Ordering::Relaxed);
    world.plane.pause(false);
    tokio::time::sleep(seconds(100)).await;
    assert_eq!(resets(&world), before, "{}", world.plane.run(run).story());
    assert_eq!(world.lab.total().bricked, 0);
}

/// A power run that is held sees a boot. Long after it another console begins a flash: that is refused as it would be by a
/// run that has seen nothing, and not waited for.
#[tokio::test(start_paused = true)]
async fn work_that_begins_long_after_a_boot_is_foreign() {
    let world = World::new(vec![r750()]);
    let (_executor, run) = waits_beside_a_flash(&world, "host is at work").await;
    world.plane.pause(true);
    tokio::time::sleep(seconds(3600)).await;
    let job = ForeignJob { package: Some(IDRAC_FILE.into()), immediate: true };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    tokio::time::sleep(seconds(5)).await;
    world.plane.pause(false);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{}", row.story());
}

/// The job queue is away for a whole pause, after work was seen.
#[tokio::test(start_paused = true)]
async fn a_held_run_whose_bmc_shows_nothing_asks_for_little() {
    let world = World::new(vec![r750()]);
    let (_executor, _run) = waits_beside_a_flash(&world, "is under way").await;
    world.plane.pause(true);
    world.wire.no_queue.store(true, Ordering::Relaxed);
    tokio::time::sleep(seconds(120)).await;
    let read = world.wire.redfish_requests.load(Ordering::Relaxed);
    tokio::time::sleep(seconds(600)).await;
    let read = world.wire.redfish_requests.load(Ordering::Relaxed) - read;
    assert!((100..250).contains(&read), "{read} in ten minutes");
}

/// Redfish is away for seconds while a run is held, between two looks, and IPMI tells the power meanwhile. Another console
/// flashes, and the queue is empty for a while after the restart.
#[tokio::test(start_paused = true)]
async fn an_outage_between_two_looks_of_a_held_run_makes_an_empty_queue_doubtful() {
    for offset in [0, 10, 20, 30, 40, 50] {
        let world = World::new(vec![r750()]).reached(Reach::Both);
        let (_executor, run) = waits_beside_a_flash(&world, "is under way").await;
        world.plane.pause(true);
        tokio::time::sleep(seconds(3600 + offset)).await;
        let before = resets(&world);
        *world.wire.retold.lock().unwrap() = Some(hides_jobs);
        world.wire.redfish_down.store(true, Ordering::Relaxed);
        let job = ForeignJob { package: Some(IDRAC_FILE.into()), immediate: true };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        tokio::time::sleep(seconds(20)).await;
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        tokio::time::sleep(seconds(20)).await;
        world.plane.pause(false);
        tokio::time::sleep(seconds(60)).await;
        let row = world.plane.run(run);
        assert!(row.finish.is_none() && resets(&world) == before, "{offset} {}", row.story());
    }
}

/// The BMC is away while a power change is being prepared, and at no other look: IPMI tells the power meanwhile.
#[tokio::test(start_paused = true)]
async fn an_outage_while_a_change_is_prepared_makes_an_empty_queue_doubtful() {
    for away in [1, 20, 58, 90] {
        let world = World::new(vec![r750()]).reached(Reach::Both);
        let (_executor, run) = waits_beside_a_flash(&world, "is under way").await;
        world.plane.pause(true);
        tokio::time::sleep(seconds(3600)).await;
        let before = resets(&world);
        *world.wire.hangs_after_queue.lock().unwrap() = Some(seconds(away));
        world.plane.pause(false);
        while world.wire.hangs_after_queue.lock().unwrap().is_some() {
            assert!(world.plane.run(run).finish.is_none(), "{away} {}", world.plane.run(run).story());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        *world.wire.retold.lock().unwrap() = Some(hides_jobs);
        let job = ForeignJob { package: Some(IDRAC_FILE.into()), immediate: true };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        tokio::time::sleep(seconds(120)).await;
        let row = world.plane.run(run);
        assert!(row.finish.is_none() && resets(&world) == before, "{away} {}", row.story());
        assert!(row.story().contains("using IPMI"), "{away} {}", row.story());
        assert_eq!(world.lab.total().bricked, 0, "{away}");
    }
}

/// A BMC that takes seconds for each answer, as old ones do, has answered all the same.
#[tokio::test(start_paused = true)]
async fn a_slow_device_is_trusted_like_a_quick_one() {
    for lasts in [3, 9] {
        let world = World::new(vec![r750()]);
        world.lab.fault("bmc-01", Fault::CutBeforeAccept, ONCE).unwrap();
        slow(&world, |_| true, lasts);
        let _executor = world.start(0, None).await;
        let (row, finish) = end(&world, bios(&world)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{lasts} {}", row.story());
    }
    let world = World::new(vec![r750()]);
    let (_executor, run) = waits_beside_a_flash(&world, "is under way").await;
    slow(&world, |_| true, 9);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
}

/// What the BMC never answers tells nothing new each time: the log that a restart would be seen in, or, where IPMI tells
/// the power, Redfish's own word of it.
#[tokio::test(start_paused = true)]
async fn what_is_never_answered_holds_nothing_back() {
    type Such = fn(&str) -> bool;
    let log: Such = |uri| uri.contains("LogServices");
    let power: Such = |uri| uri.ends_with("/Systems/System.Embedded.1");
    for (reach, action, silent) in
        [(Reach::Redfish, PowerAction::ForceRestart, log), (Reach::Both, PowerAction::ForceOff, power)]
    {
        let world = World::new(vec![r750()]).reached(reach);
        let (_executor, run) = waits_with(&world, action, "is under way").await;
        *world.wire.silent.lock().unwrap() = Some(silent);
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{action:?} {}", row.story());
        // The time of the last reset still tells.
        assert!(finish.detail.ends_with("done, read back."), "{}", finish.detail);
        assert_eq!(world.lab.total().bricked, 0, "{action:?}");
    }
}

/// IPMI tells the power all the time, because Redfish never does. Then Redfish is away as a whole between two looks, and
/// its queue, in which a job was seen, is empty afterwards.
#[tokio::test(start_paused = true)]
async fn an_outage_beside_a_question_that_is_never_answered_makes_an_empty_queue_doubtful() {
    let world = World::new(vec![r750()]).reached(Reach::Both);
    let in_job: fn(&mut serde_json::Value) = |document| hangs(document, "Running", None, "RED025");
    *world.wire.retold.lock().unwrap() = Some(in_job);
    let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    tokio::time::sleep(seconds(120)).await;
    let _executor = world.start(0, None).await;
    world.plane.pause(true);
    let run = world.power(0, PowerAction::ForceOff);
    *world.wire.silent.lock().unwrap() = Some(|uri| uri.ends_with("/Systems/System.Embedded.1"));
    tokio::time::sleep(seconds(1800)).await;
    let before = resets(&world);
    *world.wire.retold.lock().unwrap() = Some(hides_jobs);
    world.plane.pause(false);
    tokio::time::sleep(seconds(150)).await;
    let row = world.plane.run(run);
    assert!(row.finish.is_none() && resets(&world) == before, "{}", row.story());
}

/// A host hangs in its boot while hardware operations are paused. Whoever resumes them to force it off need not wait for
/// one more boot.
#[tokio::test(start_paused = true)]
async fn a_pause_does_not_renew_the_patience_with_a_boot_that_hangs() {
    let world = World::new(vec![r750()]);
    *world.wire.retold.lock().unwrap() = Some(|document| hangs(document, "Scheduled", None, "JCP001"));
    let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    tokio::time::sleep(seconds(120)).await;
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceOff);
    tokio::time::sleep(seconds(60)).await;
    world.plane.pause(true);
    tokio::time::sleep(seconds(1300)).await;
    world.plane.pause(false);
    let resumed = tokio::time::Instant::now();
    let (row, finish) = end(&world, run).await;
    let took = resumed.elapsed().as_secs();
    assert!(finish.outcome == Outcome::Succeeded && took < 120, "{took} {}", row.story());
}

/// The same after a boot that was seen for longer than an empty queue needs to count: what counts is how long the BMC has
/// answered since it was away as a whole.
#[tokio::test(start_paused = true)]
async fn a_bmc_that_was_away_as_a_whole_has_to_answer_for_a_while_again() {
    // Its web server, or what is behind that.
    for behind in [false, true] {
        let world = World::new(vec![r750()]);
        let in_boot: fn(&mut serde_json::Value) = |document| hangs(document, "Scheduled", None, "JCP001");
        *world.wire.retold.lock().unwrap() = Some(in_boot);
        let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        tokio::time::sleep(seconds(120)).await;
        let _executor = world.start(0, None).await;
        let run = world.power(0, PowerAction::ForceOff);
        tokio::time::sleep(seconds(400)).await;
        if behind {
            *world.wire.refuses.lock().unwrap() = (u32::MAX, 503);
        } else {
            world.wire.redfish_down.store(true, Ordering::Relaxed);
        }
        *world.wire.retold.lock().unwrap() = Some(hides_jobs);
        tokio::time::sleep(seconds(30)).await;
        *world.wire.refuses.lock().unwrap() = (0, 0);
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        tokio::time::sleep(seconds(120)).await;
        let row = world.plane.run(run);
        assert!(row.finish.is_none() && resets(&world) == 0, "{behind} {}", row.story());
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{behind} {}", row.story());
    }
}

/// A boot is waited for as long as one takes. What was not seen in between may have been its end, and a job that began is
/// one: the next boot has its whole time.
#[tokio::test(start_paused = true)]
async fn the_next_boot_has_its_whole_time() {
    let in_boot: fn(&mut serde_json::Value) = |document| hangs(document, "Scheduled", None, "JCP001");
    let in_job: fn(&mut serde_json::Value) = |document| hangs(document, "Running", None, "RED025");
    for goes_away in [true, false] {
        let world = World::new(vec![r750()]);
        *world.wire.retold.lock().unwrap() = Some(in_boot);
        let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        tokio::time::sleep(seconds(3600)).await;
        let _executor = world.start(0, None).await;
        let run = world.power(0, PowerAction::ForceOff);
        // Not in the middle of a look, which ends it by itself when it fails.
        tokio::time::sleep(seconds(5 * 60 + 2)).await;
        if goes_away {
            world.wire.redfish_down.store(true, Ordering::Relaxed);
        } else {
            *world.wire.retold.lock().unwrap() = Some(in_job);
        }
        tokio::time::sleep(seconds(90)).await;
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        *world.wire.retold.lock().unwrap() = Some(in_boot);
        let began = tokio::time::Instant::now();
        let (row, finish) = end(&world, run).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{goes_away} {}", row.story());
        let took = began.elapsed();
        assert!(took > seconds(19 * 60) && took < seconds(30 * 60), "{goes_away}: {took:?}");
    }
}

/// A paused site: what the device is at is looked at now and then.
#[tokio::test(start_paused = true)]
async fn a_power_run_that_is_held_asks_its_bmc_for_little() {
    let world = World::new(vec![r750()]);
    world.plane.pause(true);
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceOff);
    tokio::time::sleep(seconds(60)).await;
    let before = world.wire.redfish_requests.load(Ordering::Relaxed);
    tokio::time::sleep(seconds(600)).await;
    let asked = world.wire.redfish_requests.load(Ordering::Relaxed) - before;
    assert!((60..150).contains(&asked), "{asked} in ten minutes");
    world.plane.pause(false);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
}

/// As a host that powers on, or off, is told.
fn powers_on(document: &mut serde_json::Value) {
    if document.get("PowerState").is_some_and(|state| state == "On") {
        document["PowerState"] = "PoweringOn".into();
    }
}

/// The pause ends while the BMC is looked at. A host whose power changes by itself is not restarted, and what is seen of
/// that change is no proof of a restart.
#[tokio::test(start_paused = true)]
async fn a_pause_that_ends_in_a_look_hides_no_change_of_power() {
    for offset in (60..130).step_by(3) {
        let world = World::new(vec![r750()]);
        *world.wire.retold.lock().unwrap() = Some(powers_on);
        world.plane.pause(true);
        let _executor = world.start(0, None).await;
        slow(&world, |uri| uri.contains("/Jobs"), 6);
        let run = world.power(0, PowerAction::ForceRestart);
        tokio::time::sleep(seconds(offset)).await;
        world.plane.pause(false);
        tokio::time::sleep(seconds(60)).await;
        assert_eq!(resets(&world), 0, "{offset} {}", world.plane.run(run).story());
    }
}

/// A site is paused for ten hours, and a BMC of it is away for a minute in ten: its runs wait.
#[tokio::test(start_paused = true)]
async fn a_bmc_that_is_away_now_and_then_ends_no_run_in_a_long_pause() {
    for (power, flash) in [(true, false), (true, true), (false, false)] {
        let world = World::new(vec![r750()]);
        if flash {
            *world.wire.retold.lock().unwrap() =
                Some(|document| hangs(document, "Scheduled", None, "JCP001"));
            let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
            world.lab.foreign_job("bmc-01", &job).unwrap();
            tokio::time::sleep(seconds(120)).await;
        }
        world.plane.pause(true);
        let _executor = world.start(0, None).await;
        let run = if power { world.power(0, PowerAction::ForceOff) } else { bios(&world) };
        tokio::time::sleep(seconds(300)).await;
        *world.wire.retold.lock().unwrap() =
            if flash { Some(|document| hangs(document, "Running", None, "RED025")) } else { None };
        for _ in 0..60 {
            world.wire.redfish_down.store(true, Ordering::Relaxed);
            tokio::time::sleep(seconds(60)).await;
            world.wire.redfish_down.store(false, Ordering::Relaxed);
            tokio::time::sleep(seconds(540)).await;
        }
        let finish = world.plane.run(run).finish;
        assert!(finish.is_none(), "{power} {flash} {finish:?}");
    }
}

/// Redfish is away for good, under a flash that the run has seen, and people pause the site for a minute now and then:
/// that neither uses up the run's patience nor gives it a new one.
#[tokio::test(start_paused = true)]
async fn short_pauses_keep_no_power_run_for_ever() {
    let world = World::new(vec![r750()]).reached(Reach::Both);
    let (_executor, run) = waits_beside_a_flash(&world, "host is at work").await;
    tokio::time::sleep(seconds(20)).await;
    world.wire.redfish_down.store(true, Ordering::Relaxed);
    pause_now_and_then(&world, 6, seconds(60)).await;
    let row = world.plane.run(run);
    assert_eq!(row.finish.unwrap().code, ErrorCode::DeviceBusy.as_str());
    assert_eq!(resets(&world), 1, "another console's alone");
}

/// The site is paused while the host boots and is flashed, for longer than a run waits for a device. The run lasts, and
/// still knows of the flash when Redfish is away as the pause ends.
#[tokio::test(start_paused = true)]
async fn a_pause_ends_no_power_run_and_makes_it_forget_no_flash() {
    let world = World::new(vec![r750()]).reached(Reach::Both);
    *world.wire.retold.lock().unwrap() = Some(|document| hangs(document, "Scheduled", None, "JCP001"));
    let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: false };
    world.lab.foreign_job("bmc-01", &job).unwrap();
    tokio::time::sleep(seconds(120)).await;
    world.plane.pause(true);
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceOff);
    tokio::time::sleep(seconds(120)).await;
    *world.wire.retold.lock().unwrap() = Some(|document| hangs(document, "Running", None, "RED025"));
    tokio::time::sleep(seconds(2 * 3600)).await;
    assert!(world.plane.run(run).finish.is_none(), "{}", world.plane.run(run).story());
    world.wire.redfish_down.store(true, Ordering::Relaxed);
    tokio::time::sleep(seconds(50)).await;
    world.plane.pause(false);
    tokio::time::sleep(seconds(60)).await;
    let story = world.plane.run(run).story();
    assert!(world.plane.run(run).finish.is_none() && !story.contains("accepted"), "{story}");
    *world.wire.retold.lock().unwrap() = None;
    world.wire.redfish_down.store(false, Ordering::Relaxed);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
}

/// A host is not powered on either while something is written: some boards are flashed with their host off.
#[tokio::test(start_paused = true)]
async fn a_host_is_not_powered_on_beside_a_job_that_is_under_way() {
    let world = World::new(vec![r750().powered_off()]);
    let idrac = "iDRAC-with-Lifecycle-Controller_Firmware_15G_7.10.50.10.EXE".to_owned();
    world.lab.foreign_job("bmc-01", &ForeignJob { package: Some(idrac), immediate: true }).unwrap();
    flash_begins(&world).await;
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::On)).await;
    assert_eq!(finish.code, ErrorCode::ForeignDeviceJob.as_str(), "{}", row.story());
    assert_eq!(resets(&world), 0, "{}", row.story());
}

/// While the BMC that comes back tells no power state (`null`), nobody knows that the host is on.
#[tokio::test(start_paused = true)]
async fn a_host_whose_power_is_not_told_is_not_taken_for_one_that_is_on() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    goes_down_before_clean_up(&world).await;
    world.wire.no_power.store(true, Ordering::Relaxed);
    let _second = world.start(1, None).await;
    tokio::time::sleep(seconds(300)).await;
    world.wire.no_power.store(false, Ordering::Relaxed);
    let (row, finish) = end(&world, run).await;
    let power = world.lab.status("bmc-01").unwrap().power_state;
    let left = row.effects.iter().any(|effect| effect.state == EffectState::Conflict);
    assert!(power == "On" || left, "{power} {finish:?} {:?} {}", row.effects, row.story());
}

/// The queue is read before the (slow) readiness, and the reset follows the latter: a job begins in between.
#[tokio::test(start_paused = true)]
async fn a_restart_does_not_follow_a_queue_that_a_slow_readiness_has_aged() {
    let mut bricked = Vec::new();
    let mut ages = Vec::new();
    for asked in 1..=10 {
        let world = World::new(vec![r750()]);
        slow(&world, |uri| uri.ends_with("GetRemoteServicesAPIStatus"), 40);
        let run = bios(&world);
        let _executor = world.start(0, None).await;
        while world.wire.readiness_asked.load(Ordering::Relaxed) < asked
            && world.plane.run(run).finish.is_none()
        {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        if world.plane.run(run).finish.is_none() {
            let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: true };
            world.lab.foreign_job("bmc-01", &job).unwrap();
        }
        let (row, finish) = end(&world, run).await;
        if world.lab.total().bricked > 0 {
            bricked.push((asked, finish.outcome, finish.detail, row.story()));
        }
        ages.extend(
            world.wire.looks.lock().unwrap().iter().filter(|(what, _)| what.contains("Reset")).cloned(),
        );
    }
    let old: Vec<_> = ages.iter().filter(|(_, age)| *age > seconds(12)).collect();
    assert!(bricked.is_empty() && old.is_empty(), "{old:?} {bricked:?}");
}

/// A long queue takes its time to be told (20 to 30 s on iDRACs): what it said of its first jobs is as old as that.
#[tokio::test(start_paused = true)]
async fn power_is_not_cut_on_a_queue_that_took_long_to_be_read() {
    let (mut bricked, mut tried) = (Vec::new(), 0);
    for waits in (0..130).step_by(5) {
        let world = World::new(vec![r750()]);
        slow(&world, |uri| uri.contains("/Jobs"), 30);
        let run = world.power(0, PowerAction::ForceOff);
        let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: true };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        tokio::time::sleep(seconds(waits)).await;
        let _executor = world.start(0, None).await;
        let (_, finish) = end(&world, run).await;
        tried += 1;
        if world.lab.total().bricked > 0 {
            bricked.push((waits, finish.outcome, finish.detail));
        }
    }
    assert!(bricked.is_empty(), "{} of {tried}: {bricked:?}", bricked.len());
}

/// A BMC that answers at once: the host is in POST (`ServerStatus`), on its way into a `Scheduled` job, which writes
/// in the next moment.
#[tokio::test(start_paused = true)]
async fn power_is_not_cut_in_front_of_a_job_that_is_about_to_flash() {
    let (mut bricked, mut cut) = (Vec::new(), Vec::new());
    for tenths in (1_390..1_470).step_by(1) {
        let world = World::new(vec![r750()]);
        let run = world.power(0, PowerAction::ForceOff);
        let job = ForeignJob { package: Some(BIOS_R750.into()), immediate: true };
        world.lab.foreign_job("bmc-01", &job).unwrap();
        tokio::time::sleep(Duration::from_millis(tenths * 100)).await;
        let _executor = world.start(0, None).await;
        let (_, finish) = end(&world, run).await;
        if world.lab.total().bricked > 0 {
            bricked.push(tenths);
        }
        if finish.outcome == Outcome::Succeeded {
            cut.push(tenths);
        }
    }
    assert!(bricked.is_empty(), "bricked {bricked:?}, cut {cut:?}");
}
