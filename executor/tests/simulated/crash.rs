//! Killed between any two journal writes and resumed by another executor: the same final state, each
//! component flashed at most once, no effect open. And the same with the dead executor itself coming back.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rackhand_executor::{engine::decide::MAX_TRIES, journal::Write, service::Handle};
use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_schema::{
    id::RunId,
    job::{BootOverrideParams, BootTarget, BootTimes, PowerAction, Reboot},
    protocol::ReportBody,
    run::{EffectState, Outcome},
};

use super::support::{
    Reach, StopAt, World,
    plane::{RunRow, TTL},
};

const BIOS: &str = "BIOS.Setup.1-1";

pub const PXE_ONCE: BootOverrideParams =
    BootOverrideParams { target: BootTarget::Pxe, times: BootTimes::Once, mode: None };

/// One kind of run on one kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scenario {
    /// Pushed, staged, host restarted by us.
    Staged,
    /// Pushed and staged on a host that was off: powered on, and off again at the end.
    HostOff,
    /// Old firmware: fetches by itself and restarts the host by itself.
    RebootsByItself,
    /// The BMC's own firmware: direct, the BMC restarts.
    Direct,
    Power,
    /// IPMI alone.
    PowerOverIpmi,
    Boot,
    BootOverIpmi,
}

impl Scenario {
    fn server(self) -> ServerSpec {
        match self {
            Self::Staged | Self::Direct | Self::Power | Self::PowerOverIpmi | Self::Boot => {
                ServerSpec::new("bmc-01", Model::R750)
            }
            // Off before and after is what shows over IPMI that no boot has used the override up.
            Self::HostOff | Self::BootOverIpmi => ServerSpec::new("bmc-01", Model::R750).powered_off(),
            Self::RebootsByItself => ServerSpec::new("bmc-01", Model::R730).idrac(Model::R730.old_idrac()),
        }
    }

    fn begin(self, world: &World) -> RunId {
        match self {
            Self::Staged | Self::HostOff => world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host),
            Self::RebootsByItself => world.update(0, BIOS, "BIOS_R730_2.19.0.EXE", Reboot::HostAtOnce),
            Self::Direct => world.update(
                0,
                "iDRAC.Embedded.1-1",
                "iDRAC-with-Lifecycle-Controller_Firmware_15G_7.10.50.10.EXE",
                Reboot::Bmc,
            ),
            Self::Power | Self::PowerOverIpmi => world.power(0, PowerAction::ForceOff),
            Self::Boot | Self::BootOverIpmi => world.boot(0, PXE_ONCE),
        }
    }

    fn reach(self) -> Reach {
        match self {
            Self::PowerOverIpmi | Self::BootOverIpmi => Reach::Ipmi,
            _ => Reach::Redfish,
        }
    }

    fn world(self) -> World {
        World::new(vec![self.server()]).reached(self.reach())
    }

    async fn check(self, world: &World, run: RunId, when: &str) {
        let row = world.end_of(run).await;
        let finish = row.finish.clone().unwrap();
        let story = || format!("{self:?} {when}\n{}", row.story());
        // A power run that a crash interrupts may find its state reached without having seen its own request.
        let good = match self {
            Self::Power | Self::PowerOverIpmi | Self::Boot | Self::BootOverIpmi => {
                matches!(finish.outcome, Outcome::Succeeded | Outcome::NoChange)
            }
            _ => finish.outcome == Outcome::Succeeded,
        };
        assert!(good, "{}", story());
        let total = world.lab.total();
        assert!(total.most_flashes_of_one() <= 1, "{}", story());
        assert_eq!(total.overlapping_mutations, 0, "{}", story());
        assert_eq!(total.bricked, 0, "{}", story());
        for effect in &row.effects {
            assert!(
                matches!(effect.state, EffectState::Settled | EffectState::NotApplied),
                "{effect:?} {}",
                story()
            );
        }
        let status = world.lab.status("bmc-01").unwrap();
        if matches!(self, Self::Boot | Self::BootOverIpmi) {
            let (target, times, _) = &status.boot_override;
            assert_eq!((target.as_str(), times.as_str()), ("Pxe", "Once"), "{}", story());
        }
        let off = matches!(self, Self::HostOff | Self::Power | Self::PowerOverIpmi | Self::BootOverIpmi);
        assert_eq!(status.power_state, if off { "Off" } else { "On" }, "{}", story());
        // Only what a dead process had not delivered is sent from an old lease, and only by its own
        // successor.
        assert!(row.stale == 0 || when.ends_with("by 0"), "state of a dead lease was sent {}", story());
    }
}

/// Kills executor 0 at its `n`-th write, lets `successor` go on. False when it ended before.
async fn killed_at(scenario: Scenario, n: u64, successor: usize) -> bool {
    let world = scenario.world();
    let run = scenario.begin(&world);
    let stop = StopAt::write(n);
    let victim = world.start(0, Some(stop.clone())).await;
    tokio::select! {
        () = stop.reached.notified() => drop(victim),
        row = world.end_of(run) => {
            drop(row);
            scenario.check(&world, run, "without a crash").await;
            return false;
        }
    }
    // Dead for a while: the successor meets an expired lease, or the same executor resumes its session.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _successor = world.start(successor, None).await;
    scenario.check(&world, run, &format!("killed at write {n}, resumed by {successor}")).await;
    true
}

async fn killed_everywhere(scenario: Scenario, successor: usize) {
    let mut n = 1;
    while killed_at(scenario, n, successor).await {
        n += 1;
    }
    assert!(n > 10, "only {n} writes: the kill points are gone");
    println!("{scenario:?}: {n} kill points");
}

macro_rules! suite {
    ($($name:ident = $scenario:ident, $successor:literal;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            killed_everywhere(Scenario::$scenario, $successor).await;
        }
    )*};
}

suite! {
    staged_update_resumed_by_another = Staged, 1;
    staged_update_resumed_by_itself = Staged, 0;
    update_of_a_host_that_is_off = HostOff, 1;
    update_that_reboots_by_itself = RebootsByItself, 1;
    update_of_the_bmc_itself = Direct, 1;
    power_off = Power, 1;
    power_off_over_ipmi = PowerOverIpmi, 1;
    power_off_over_ipmi_resumed_by_itself = PowerOverIpmi, 0;
    boot_override = Boot, 1;
    boot_override_over_ipmi = BootOverIpmi, 1;
}

/// A copy of executor 0's data directory is started on another machine at its `n`-th write, while it runs on, cut off
/// from the control plane so that it does not hear of it. False when the run had ended before.
async fn copied_at(scenario: Scenario, n: u64) -> bool {
    let mut world = scenario.world();
    let run = scenario.begin(&world);
    let reached = Arc::new(tokio::sync::Notify::new());
    let writes = Arc::clone(&reached);
    let tell = StopAt::when(move |number, _| {
        if number == n {
            writes.notify_one();
        }
        false
    });
    let original = world.start(0, Some(tell)).await;
    tokio::select! {
        () = reached.notified() => {}
        _ = world.end_of(run) => return false,
    }
    world.link(0).partitioned.store(true, Ordering::Relaxed);
    let copy = world.copy(0).await;
    let _copy = world.start(copy, None).await;
    scenario.check(&world, run, &format!("copied at write {n}, delivered by 0")).await;
    drop(original);
    true
}

#[tokio::test(start_paused = true)]
async fn two_executors_with_one_data_directory_do_nothing_twice() {
    // A sample of the writes of the long one.
    for (scenario, step) in [(Scenario::Staged, 4), (Scenario::Power, 1), (Scenario::PowerOverIpmi, 1)] {
        let mut n = 1;
        while copied_at(scenario, n).await {
            n += step;
        }
        assert!(n > 10, "only {n} writes: the points are gone");
    }
}

/// The one phase of a run without an update, run twice: nothing is done a second time.
#[tokio::test(start_paused = true)]
async fn every_phase_over_ipmi_run_twice_is_as_if_run_once() {
    for (scenario, phase) in [(Scenario::PowerOverIpmi, "power"), (Scenario::BootOverIpmi, "boot_override")] {
        let world = scenario.world();
        let run = scenario.begin(&world);
        let victim = after_phase(&world, phase).await;
        drop(victim);
        let _successor = world.start(1, None).await;
        scenario.check(&world, run, &format!("{phase} twice")).await;
        let resets: u64 = world.lab.total().host_resets.values().sum();
        assert_eq!(resets, u64::from(scenario == Scenario::PowerOverIpmi), "{phase}");
    }
}

/// Executor 0, stopped right after the control plane has heard that `phase` is done.
async fn after_phase(world: &World, phase: &str) -> Handle {
    let done = std::sync::atomic::AtomicU64::new(0);
    let name = format!("\"phase\":\"{phase}\",\"state\":\"done\"");
    let stop = StopAt::when(move |_, write| match write {
        Write::Outbox { seq, item, .. } if item.contains(&name) => {
            done.store(*seq, Ordering::Relaxed);
            false
        }
        Write::Acknowledged { seq, .. } => *seq == done.load(Ordering::Relaxed),
        _ => false,
    });
    let executor = world.start(0, Some(stop.clone())).await;
    stop.reached.notified().await;
    executor
}

/// Every phase is run twice: its executor dies right after the control plane has heard that it is done.
#[tokio::test(start_paused = true)]
async fn every_phase_run_twice_is_as_if_run_once() {
    for phase in ["check", "package", "stage", "reboot", "apply", "verify", "clean_up"] {
        let scenario = Scenario::HostOff;
        let world = World::new(vec![scenario.server()]);
        let run = scenario.begin(&world);
        drop(after_phase(&world, phase).await);
        let _successor = world.start(1, None).await;
        scenario.check(&world, run, &format!("{phase} twice")).await;
        let resets = world.lab.total().host_resets;
        assert_eq!(resets.get("On").copied(), Some(1), "{phase}: {resets:?}");
    }
}

/// A device that refuses for ever, and executors that die every few tries: what is counted goes with the run.
#[tokio::test(start_paused = true)]
async fn tries_are_counted_over_all_executors() {
    let world = Scenario::Power.world();
    world.wire.refuses_changes.store(true, Ordering::Relaxed);
    let run = Scenario::Power.begin(&world);
    let mut lives = 0;
    while world.plane.run(run).finish.is_none() {
        assert!(lives < 40, "begun anew by each executor: {}", world.plane.run(run).story());
        let executor = world.start(lives % 2, None).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        drop(executor);
        // The session expires; then the other one takes over.
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        lives += 1;
    }
    let row = world.plane.run(run);
    let finish = row.finish.as_ref().unwrap();
    assert_eq!(finish.code, "device-busy", "{}", row.story());
    assert!(lives > 2, "ended within {lives} lives: nothing was taken over");
    // All of the tries, and the time over all lives.
    assert_eq!(finish.evidence["tries"], MAX_TRIES, "{finish:?}");
    assert!(finish.evidence["lasted_ms"].as_u64().unwrap() > 3 * 60_000, "{finish:?}");
    let intents = row.items.iter().filter(|item| matches!(item.body, ReportBody::Intent(_))).count();
    assert!(intents <= MAX_TRIES as usize + lives, "{intents} tries: {}", row.story());
}

/// Executors that die every few minutes, one after the other, until the run has ended.
async fn ended_by_the_mortal(world: &World, run: RunId, minutes: u64, most: usize) -> RunRow {
    let mut lives = 0;
    while world.plane.run(run).finish.is_none() {
        assert!(lives < most, "begun anew by each executor: {}", world.plane.run(run).story());
        let executor = world.start(lives % 2, None).await;
        tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
        drop(executor);
        tokio::time::sleep(TTL + Duration::from_secs(1)).await;
        lives += 1;
    }
    world.plane.run(run)
}

/// What an activity waits for goes with the run: the patience is that of one executor, however many had it.
#[tokio::test(start_paused = true)]
async fn waits_go_on_over_all_executors() {
    let update = |world: &World| Scenario::Staged.begin(world);
    let shutdown = |world: &World| world.power(0, PowerAction::GracefulShutdown);
    type Begin<'a> = &'a dyn Fn(&World) -> RunId;
    let cases: [(Fault, Begin<'_>, usize, &str); 3] = [
        (Fault::VersionUnchanged, &update, 15, "version-not-reached"),
        (Fault::StuckScheduled, &update, 20, "device-stalled"),
        (Fault::PowerIgnored, &shutdown, 6, "power-not-reached"),
    ];
    for (fault, begin, lives, code) in cases {
        let world = Scenario::Staged.world();
        world.lab.fault("bmc-01", fault, Times::Always).unwrap();
        let run = begin(&world);
        let row = ended_by_the_mortal(&world, run, 6, lives).await;
        assert_eq!(row.finish.as_ref().unwrap().code, code, "{}", row.story());
    }
}

/// A host that does not follow is requested politely once and forced three times, not so often by each executor.
#[tokio::test(start_paused = true)]
async fn requests_to_power_off_again_are_counted_over_all_executors() {
    let world = Scenario::HostOff.world();
    let run = Scenario::HostOff.begin(&world);
    drop(after_phase(&world, "verify").await);
    world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
    let row = ended_by_the_mortal(&world, run, 6, 15).await;
    assert!(row.effects.iter().any(|effect| effect.state == EffectState::Conflict), "{:?}", row.effects);
    let resets = row.items.iter().filter_map(|item| match &item.body {
        ReportBody::Intent(intent) if intent.action == "power_off" => intent.before["reset"].as_str(),
        _ => None,
    });
    let asked = resets.collect::<Vec<_>>();
    assert_eq!(asked, ["graceful_shutdown", "force_off", "force_off", "force_off"], "{}", row.story());
}

/// A request to shut down that the BMC refuses as busy has not reached the host: what follows is another one, no force.
#[tokio::test(start_paused = true)]
async fn a_refused_request_to_shut_down_is_not_followed_by_force() {
    let world = Scenario::HostOff.world();
    let run = Scenario::HostOff.begin(&world);
    drop(after_phase(&world, "verify").await);
    world.wire.refuses_resets.store(1, Ordering::Relaxed);
    let _successor = world.start(1, None).await;
    let row = world.end_of(run).await;
    let resets = world.lab.total().host_resets;
    assert_eq!(resets.get("ForceOff"), None, "{resets:?}: {}", row.story());
    assert_eq!(resets.get("GracefulShutdown"), Some(&1), "{resets:?}: {}", row.story());
}

/// A BMC that refuses the polite request as busy each time, as long as it is told so: after a whole patience it is
/// requested by force where the policy allows that. One that refuses that, too, is left to a person.
#[tokio::test(start_paused = true)]
async fn a_bmc_that_always_refuses_to_shut_down_has_an_end() {
    for (refused, force) in [(30, true), (u32::MAX, true), (u32::MAX, false)] {
        let mut world = Scenario::HostOff.world();
        world.policy.allow_forced_restart = force;
        let run = Scenario::HostOff.begin(&world);
        drop(after_phase(&world, "verify").await);
        world.wire.refuses_resets.store(refused, Ordering::Relaxed);
        let _successor = world.start(1, None).await;
        let row = world.end_of(run).await;
        let asked = row.items.iter().filter_map(|item| match &item.body {
            ReportBody::Intent(intent) if intent.action == "power_off" => intent.before["reset"].as_str(),
            _ => None,
        });
        let (forced, polite): (Vec<_>, Vec<_>) = asked.partition(|kind| *kind == "force_off");
        // Each five minutes of half an hour: a busy BMC may have restarted, and has to answer for a while again.
        assert_eq!(polite.len(), 6 * if force { 1 } else { 6 }, "{}", row.story());
        assert_eq!(!forced.is_empty(), force, "{}", row.story());
        let power = world.lab.status("bmc-01").unwrap().power_state;
        assert_eq!(power, if refused == u32::MAX { "On" } else { "Off" }, "{}", row.story());
        let left = row.effects.iter().any(|effect| effect.state == EffectState::Conflict);
        assert_eq!(left, refused == u32::MAX, "{:?}", row.effects);
    }
}

/// The answer to the reset is lost, and the queue shows no job for a moment. The host restarts once.
#[tokio::test(start_paused = true)]
async fn a_lost_reset_is_not_repeated_because_the_job_was_hidden_for_a_moment() {
    for slow in [false, true] {
        let world = Scenario::Staged.world();
        *world.wire.hides_jobs.lock().unwrap() = Some(("ComputerSystem.Reset", Duration::from_secs(40)));
        let (lab, armed) = (world.lab.clone(), std::sync::Once::new());
        let stop = StopAt::when(move |_, write| {
            if matches!(write, Write::Intent { intent, .. } if intent.action == "reset_host") {
                armed.call_once(|| {
                    lab.fault("bmc-01", Fault::CutAfterAccept, Times::Once).unwrap();
                    if slow {
                        lab.fault("bmc-01", Fault::SlowPower { seconds: 300 }, Times::Once).unwrap();
                    }
                });
            }
            false
        });
        let run = Scenario::Staged.begin(&world);
        let _executor = world.start(0, Some(stop)).await;
        let row = world.end_of(run).await;
        let changes = world.wire.redfish_changes.lock().unwrap().clone();
        let resets = changes.iter().filter(|(what, _)| what.ends_with("ComputerSystem.Reset")).count();
        assert_eq!(resets, 1, "slow {slow}: {}", row.story());
        assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::Succeeded, "{}", row.story());
    }
}

/// The answer to the hand-over is lost and the BMC is away; for its first three minutes it shows an empty queue, and no
/// log tells of the job. Nothing is handed over a second time.
#[tokio::test(start_paused = true)]
async fn an_empty_queue_of_a_bmc_that_was_away_is_no_trace() {
    for no_log in [false, true] {
        let world = Scenario::Staged.world();
        world.wire.no_log.store(no_log, Ordering::Relaxed);
        let away = Duration::from_secs(9 * 60);
        *world.wire.hides_jobs.lock().unwrap() = Some(("MultipartUpload", away + Duration::from_secs(180)));
        world.lab.fault("bmc-01", Fault::CutAfterAccept, Times::Once).unwrap();
        let run = Scenario::Staged.begin(&world);
        let _executor = world.start(0, None).await;
        while world.lab.total().jobs_created == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        world.wire.redfish_down.store(true, Ordering::Relaxed);
        tokio::time::sleep(away).await;
        world.wire.redfish_down.store(false, Ordering::Relaxed);
        let row = world.end_of(run).await;
        let changes = world.wire.redfish_changes.lock().unwrap().clone();
        let uploads = changes.iter().filter(|(what, _)| what.contains("MultipartUpload")).count();
        assert_eq!(uploads, 1, "no log {no_log}: {}", row.story());
        assert!(world.lab.total().most_flashes_of_one() <= 1);
    }
}

/// Pauses hardware when this mutation was announced and has not been sent.
fn pauses_between(world: &World, action: &'static str) -> Arc<StopAt> {
    let (plane, once) = (Arc::clone(&world.plane), std::sync::Once::new());
    StopAt::when(move |_, write| {
        if matches!(write, Write::Intent { intent, .. } if intent.action == action) {
            once.call_once(|| plane.pause(true));
        }
        false
    })
}

/// However long people pause hardware, and wherever the run is just then.
#[tokio::test(start_paused = true)]
async fn a_pause_between_intent_and_request_fails_no_run() {
    let cases = [
        (Scenario::Power, "reset_host"),
        (Scenario::Staged, "stage_package"),
        (Scenario::HostOff, "power_off"),
    ];
    for (scenario, action) in cases {
        let world = scenario.world();
        let run = scenario.begin(&world);
        let _executor = world.start(0, Some(pauses_between(&world, action))).await;
        tokio::time::sleep(Duration::from_secs(4 * 3600)).await;
        world.plane.pause(false);
        scenario.check(&world, run, "paused for hours").await;
    }
}

/// An intent whose executor died is waited for from the end of that executor's lease, also when its successors die
/// before the wait is over: they have sent nothing.
#[tokio::test(start_paused = true)]
async fn the_wait_for_an_open_intent_is_not_begun_anew() {
    let world = Scenario::Power.world();
    let run = Scenario::Power.begin(&world);
    let stop = StopAt::when(|_, write| matches!(write, Write::Outcome { .. }));
    let victim = world.start(0, Some(stop.clone())).await;
    stop.reached.notified().await;
    drop(victim);
    let mut lives = 1;
    assert!(world.plane.run(run).grant.intent.is_some());
    while world.plane.run(run).grant.intent.is_some() {
        assert!(lives < 8, "begun anew by each executor: {}", world.plane.run(run).story());
        let executor = world.start(lives % 2, None).await;
        tokio::time::sleep(TTL + Duration::from_secs(15)).await;
        drop(executor);
        lives += 1;
    }
    let _last = world.start(0, None).await;
    assert_eq!(world.end_of(run).await.finish.unwrap().outcome, Outcome::Succeeded);
}

/// The host cannot be powered off again: the device refuses every try of the first lease. Once it takes requests, a
/// later lease undoes what is open; the tries of the first one do not count against it.
#[tokio::test(start_paused = true)]
async fn undoing_is_tried_anew_under_a_later_lease() {
    let world = Scenario::HostOff.world();
    let run = Scenario::HostOff.begin(&world);
    drop(after_phase(&world, "verify").await);
    world.wire.refuses_changes.store(true, Ordering::Relaxed);
    let _successor = world.start(1, None).await;
    tokio::time::sleep(Duration::from_secs(2 * 3600)).await;
    let row = world.plane.run(run);
    assert!(row.finish.is_none() && row.grant.settle.is_some(), "not left to a later lease: {}", row.story());
    world.wire.refuses_changes.store(false, Ordering::Relaxed);
    let row = world.end_of(run).await;
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "Off", "{}", row.story());
    assert!(row.effects.iter().all(|effect| !effect.state.is_open()), "{:?}", row.effects);
}
