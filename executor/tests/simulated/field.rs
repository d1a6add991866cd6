//! What goes wrong in the field: in paused time, over the lab's BMCs.

use std::{sync::atomic::Ordering, time::Duration};

use super::support::{
    StopAt, World,
    plane::{RunRow, TTL},
};
use rackhand_lab::{Fault, ForeignJob, Model, MutationKind, ServerSpec, Times};
use rackhand_schema::{
    ErrorCode,
    id::{EffectId, RunId},
    job::{PowerAction, Reboot},
    protocol::{Finish, ReportBody, Resolution},
    run::{Effect, EffectState, Outcome},
};
use serde_json::json;

const BIOS: &str = "BIOS.Setup.1-1";
const IDRAC: &str = "iDRAC.Embedded.1-1";
const IDRAC_15G: &str = "iDRAC-with-Lifecycle-Controller_Firmware_15G_7.10.50.10.EXE";

fn r750() -> ServerSpec {
    ServerSpec::new("bmc-01", Model::R750)
}

fn bios(world: &World) -> RunId {
    world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host)
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// One update under one fault.
async fn under(server: ServerSpec, faults: &[(Fault, Times)]) -> (World, RunRow, Finish) {
    let world = World::new(vec![server]);
    for (fault, times) in faults {
        world.lab.fault("bmc-01", fault.clone(), *times).unwrap();
    }
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    let row = world.end_of(run).await;
    let finish = row.finish.clone().unwrap();
    let total = world.lab.total();
    assert!(total.most_flashes_of_one() <= 1, "{}", row.story());
    assert_eq!(total.bricked, 0);
    assert!(row.effects.iter().all(|effect| !effect.state.is_open()), "{}", row.story());
    (world, row, finish)
}

fn ended(row: &RunRow, finish: &Finish, outcome: Outcome, code: Option<ErrorCode>) {
    assert_eq!(finish.outcome, outcome, "{}", row.story());
    assert_eq!(finish.code, code.map_or("", ErrorCode::as_str), "{}", row.story());
    assert!(finish.detail.contains("bmc-01"), "the detail names the server: {}", finish.detail);
}

macro_rules! rows {
    ($($name:ident: $($fault:expr, $times:expr);+ => $outcome:ident $(, $code:ident)?;)*) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let faults = [$(($fault, $times)),+];
            let (_world, row, finish) = under(r750(), &faults).await;
            let code = [$(ErrorCode::$code)?].first().copied();
            ended(&row, &finish, Outcome::$outcome, code);
        }
    )*};
}

const ONCE: Times = Times::Count(1);

rows! {
    d01_session_table_full: Fault::SessionTableFull, Times::Count(3) => Succeeded;
    d02_session_dies: Fault::SessionDies, ONCE => Succeeded;
    d11_not_ready_swc0700: Fault::NotReadySwc0700, Times::Count(10) => Succeeded;
    d14_task_vanishes: Fault::TaskVanishes { seconds: 5, everywhere: false }, ONCE => Succeeded;
    d14_task_and_job_vanish: Fault::TaskVanishes { seconds: 5, everywhere: true }, ONCE => Succeeded;
    d15_completed_critical: Fault::CompletedCritical, ONCE => Failed, DeviceFailed;
    d15_completed_with_errors: Fault::CompletedWithErrors, ONCE => Failed, DeviceFailed;
    d17_bmc_resets_while_polled: Fault::BmcResetWhilePolled, Times::Count(2) => Succeeded;
    d18_answer_cut_after_acceptance: Fault::CutAfterAccept, ONCE => Succeeded;
    d18_cut_before_acceptance: Fault::CutBeforeAccept, ONCE => Succeeded;
    d18_visible_only_after_45_s: Fault::JobVisibilityDelay { seconds: 45 }, ONCE => Succeeded;
    d18_cut_and_visible_only_after_45_s:
        Fault::CutAfterAccept, ONCE; Fault::JobVisibilityDelay { seconds: 45 }, ONCE => Succeeded;
    d20_version_unchanged: Fault::VersionUnchanged, ONCE => Failed, VersionNotReached;
    d21_inventory_unreadable: Fault::InventoryUnreadable { seconds: 240 }, ONCE => Succeeded;
    d23_flash_fails: Fault::FlashFailsPr21, ONCE => Failed, DeviceFailed;
    d34_power_ignored: Fault::PowerIgnored, ONCE => Succeeded;
    d36_stuck_scheduled: Fault::StuckScheduled, Times::Always => Failed, DeviceStalled;
    hostile_bodies: Fault::HostileBody { shape: rackhand_lab::HostileShape::Garbage }, Times::Count(2) => Succeeded;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_a_year_off_changes_nothing() {
    let server = r750().clock_offset(-31_536_000);
    let (_world, row, finish) = under(server, &[(Fault::CutAfterAccept, ONCE)]).await;
    ended(&row, &finish, Outcome::Succeeded, None);
}

#[tokio::test(start_paused = true)]
async fn foreign_work_in_the_queue_is_left_alone() {
    let world = World::new(vec![r750()]);
    world.lab.foreign_job("bmc-01", &ForeignJob::default()).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Failed, Some(ErrorCode::ForeignDeviceJob));
    assert_eq!(world.lab.total().jobs_created, 1, "only the foreign one");
    assert!(world.lab.total().mutations.is_empty());
}

/// The answer is cut and another console adds a job of its own in the same moment: a person decides.
#[tokio::test(start_paused = true)]
async fn two_explanations_are_an_honest_unknown() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::CutAfterAccept, ONCE).unwrap();
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world
        .lab
        .foreign_job("bmc-01", &ForeignJob { package: Some("BIOS_R750_1.13.2.EXE".into()), immediate: false })
        .unwrap();
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Unknown, Some(ErrorCode::OutcomeUnknown));
    let uploads = world.lab.total().mutations.get(&MutationKind::MultipartUpdate).copied();
    assert_eq!(uploads, Some(1), "nothing was repeated");
    assert!(row.effects.iter().all(|effect| effect.state == EffectState::Conflict), "{:?}", row.effects);
}

#[tokio::test(start_paused = true)]
async fn drift_and_missing_components_end_before_anything_is_changed() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    // Between plan and run somebody else has updated it.
    let elsewhere = world.update(0, BIOS, "BIOS_R750_1.13.2.EXE", Reboot::Host);
    world.plane.hold(run);
    let _executor = world.start(0, None).await;
    assert_eq!(world.end_of(elsewhere).await.finish.unwrap().outcome, Outcome::Succeeded);
    world.plane.release(run);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Failed, Some(ErrorCode::VersionDrift));
    assert_eq!(world.lab.total().flashes.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_polite_request_that_is_ignored_is_not_forced() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::GracefulShutdown);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Failed, Some(ErrorCode::PowerNotReached));
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "On");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_update_takes_its_job_out_of_the_queue() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.plane.cancel(run);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Cancelled, Some(ErrorCode::CancelledByPerson));
    assert_eq!(world.version(0, BIOS).as_deref(), Some("1.8.2"));
    let total = world.lab.total();
    assert_eq!((total.jobs_deleted, total.flashes.len()), (1, 0), "{}", row.story());
    // It was still downloading: a device may refuse to delete it then, or say yes and keep it.
    assert!(row.story().contains("still taking its package in"), "{}", row.story());
    assert_eq!(total.mutations.get(&MutationKind::DeleteJob), Some(&1), "{}", row.story());
}

/// Hardware operations are paused for longer than a job may stall, so its deletion waits. Then somebody restarts the
/// host, and it runs: it has just begun.
#[tokio::test(start_paused = true)]
async fn a_job_whose_deletion_was_held_back_is_seen_to_its_end() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.plane.pause(true);
    tokio::time::sleep(seconds(30)).await;
    world.plane.cancel(run);
    tokio::time::sleep(world.timing.stall + seconds(600)).await;
    assert_eq!(world.lab.total().jobs_deleted, 0, "changes are held back");
    world.other_console_resets(0, "ForceRestart").await;
    while world.lab.total().flashes.is_empty() {
        tokio::time::sleep(seconds(1)).await;
    }
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Cancelled, Some(ErrorCode::CancelledByPerson));
    assert!(row.effects.iter().all(|effect| effect.state == EffectState::Settled), "{:?}", row.effects);
    assert_eq!(world.version(0, BIOS).as_deref(), Some("1.15.2"), "{}", row.story());
}

#[tokio::test(start_paused = true)]
async fn a_flash_under_way_is_not_cancelled() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().flashes.is_empty() {
        tokio::time::sleep(seconds(1)).await;
    }
    world.plane.cancel(run);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
}

/// Two hours without the control plane in mid-flash: nothing new is started, the outcome is right on return.
#[tokio::test(start_paused = true)]
async fn an_outage_of_two_hours_in_mid_flash_harms_nothing() {
    let world = World::new(vec![r750().powered_off()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().flashes.is_empty() {
        tokio::time::sleep(seconds(1)).await;
    }
    world.link(0).partitioned.store(true, Ordering::Relaxed);
    let lease_end = world.lab.now() + TTL;
    tokio::time::sleep(seconds(2 * 3600)).await;
    let last = world.lab.total().last_mutation.unwrap();
    assert!(last < lease_end.as_secs_f64(), "a mutation at {last} s without a lease");
    assert_eq!(world.version(0, BIOS).as_deref(), Some("1.15.2"), "the flash went on");
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "On", "compensation needs a lease too");
    world.link(0).partitioned.store(false, Ordering::Relaxed);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
    assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "Off");
    assert_eq!(world.lab.total().most_flashes_of_one(), 1);
}

/// Requests to power off are lost, the host stays on: the executor repeats them, forced only where the policy
/// allows.
#[tokio::test(start_paused = true)]
async fn a_lost_request_to_power_off_again_is_repeated() {
    for (allowed, lost, off) in [(true, 3, true), (true, 4, false), (false, 1, true), (false, 2, false)] {
        let mut world = World::new(vec![r750().powered_off()]);
        world.policy.allow_forced_restart = allowed;
        let _executor = world.start(0, None).await;
        let run = bios(&world);
        while world.lab.total().flashes.is_empty() {
            tokio::time::sleep(seconds(1)).await;
        }
        world.lab.fault("bmc-01", Fault::CutBeforeAccept, Times::Count(lost)).unwrap();
        let row = world.end_of(run).await;
        let finish = row.finish.clone().unwrap();
        assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
        let power = world.lab.status("bmc-01").unwrap().power_state;
        assert_eq!(power, if off { "Off" } else { "On" }, "allowed {allowed}, {lost} lost\n{}", row.story());
        assert_eq!(finish.detail.contains("Power it off."), !off, "{}", finish.detail);
        let forced = world.lab.total().host_resets.get("ForceOff").copied().unwrap_or_default();
        assert_eq!(forced, u64::from(allowed && off), "{}", row.story());
    }
}

/// A partitioned executor loses its run: the other one finishes, and what the first one saw arrives late.
#[tokio::test(start_paused = true)]
async fn a_partitioned_executor_makes_no_write_after_its_lease() {
    let world = World::new(vec![r750()]);
    // The partition hits in mid-upload.
    *world.wire.slow_update.lock().unwrap() = Some("bmc-01".into());
    let _first = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().mutation_log.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.link(0).partitioned.store(true, Ordering::Relaxed);
    let lease_end = (world.lab.now() + TTL).as_secs_f64();
    tokio::time::sleep(TTL * 2).await;
    let silent = world.lab.total();
    let upload = silent.mutation_log.first().unwrap();
    assert!(upload.ended.unwrap() < lease_end, "the upload is cut off with the lease: {upload:?}");
    assert_eq!(silent.mutation_log.len(), 1);
    world.lab.clear_fault("bmc-01", "slow_responses").unwrap();
    let _second = world.start(1, None).await;
    let row = world.end_of(run).await;
    world.link(0).partitioned.store(false, Ordering::Relaxed);
    tokio::time::sleep(seconds(120)).await;
    let row_after = world.plane.run(run);
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
    let total = world.lab.total();
    assert_eq!(total.overlapping_mutations, 0, "{}", row.story());
    assert_eq!(total.most_flashes_of_one(), 1);
    assert_eq!(row_after.finish.unwrap().outcome, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn lost_answers_of_the_control_plane_lose_nothing() {
    let world = World::new(vec![r750()]);
    world.link(0).lose_answers.store(1, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    for _ in 0..30 {
        tokio::time::sleep(seconds(20)).await;
        world.link(0).lose_answers.fetch_add(1, Ordering::Relaxed);
    }
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
    assert_eq!(row.stale, 0);
}

/// The crash comes after the intent was accepted and before anything was sent.
#[tokio::test(start_paused = true)]
async fn an_intent_without_a_trace_is_resolved_and_done_once() {
    let world = World::new(vec![r750()]);
    let run = bios(&world);
    let stop = StopAt::when(
        |_, write| matches!(write, rackhand_executor::journal::Write::Intent { intent, .. } if intent.action == "stage_package"),
    );
    let first = world.start(0, Some(stop.clone())).await;
    stop.reached.notified().await;
    drop(first);
    let _second = world.start(1, None).await;
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
    let uploads = world.lab.total().mutations.get(&MutationKind::MultipartUpdate).copied();
    assert_eq!(uploads, Some(1));
}

#[tokio::test(start_paused = true)]
async fn paused_hardware_waits_and_goes_on() {
    let world = World::new(vec![r750()]);
    world.plane.pause(true);
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceOff);
    tokio::time::sleep(seconds(600)).await;
    assert!(world.lab.total().mutations.is_empty(), "nothing is done while paused");
    world.plane.pause(false);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
}

#[tokio::test(start_paused = true)]
async fn a_drain_gives_the_run_back_and_leaves_no_session() {
    let world = World::new(vec![r750()]);
    let first = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().flashes.is_empty() {
        tokio::time::sleep(seconds(1)).await;
    }
    first.drain();
    assert_eq!(first.ended().await, rackhand_executor::service::Ended::Drained);
    assert_eq!(world.lab.total().sessions_open, 0);
    let _second = world.start(1, None).await;
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
    assert!(row.items.iter().any(|item| matches!(item.body, ReportBody::Yield { .. })), "{}", row.story());
}

/// Two executors, several servers, a wrong password: the blocking threshold is never reached.
#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_tried_once_in_the_whole_site() {
    let servers = (1..=4).map(|n| ServerSpec::new(format!("bmc-0{n}"), Model::R750)).collect();
    let world = World::new(servers);
    world.plane.use_password("wrong");
    let (_first, _second) = (world.start(0, None).await, world.start(1, None).await);
    let first_run = world.inventory(0);
    let finish = world.end_of(first_run).await.finish.unwrap();
    assert_eq!(finish.code, ErrorCode::BmcAuthFailed.as_str(), "{finish:?}");
    for run in [world.inventory(1), world.inventory(2), world.inventory(3)] {
        let finish = world.end_of(run).await.finish.unwrap();
        assert_eq!(finish.code, ErrorCode::CredentialSuspended.as_str(), "{finish:?}");
        assert!(finish.detail.contains("was not presented: suspended after a rejection"), "{finish:?}");
    }
    let total = world.lab.total();
    assert_eq!((total.auth_failures, total.addresses_blocked), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_refusal_names_the_key_and_touches_nothing() {
    let mut world = World::new(vec![r750()]);
    world.policy.servers = vec!["other-*".into()];
    let _executor = world.start(0, None).await;
    let run = world.inventory(0);
    let row = world.end_of(run).await;
    let finish = row.finish.clone().unwrap();
    ended(&row, &finish, Outcome::Failed, Some(ErrorCode::PolicyRefused));
    assert!(finish.detail.contains("`servers`"), "{}", finish.detail);
    assert_eq!(world.lab.total().requests, 0);
}

/// Others may be allowed to finish it, so it is given back, but each time is an entry in a trail that is
/// kept.
#[tokio::test(start_paused = true)]
async fn a_begun_run_that_the_policy_refuses_is_given_back_less_and_less_often() {
    let mut world = World::new(vec![r750()]);
    let executor = world.start(0, None).await;
    let run = bios(&world);
    while world.lab.total().jobs_created == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(executor);
    world.policy.servers = vec!["other-*".into()];
    let _refuses = world.start(1, None).await;
    tokio::time::sleep(seconds(24 * 3600)).await;
    let row = world.plane.run(run);
    let given_back = row.items.iter().filter(|item| matches!(item.body, ReportBody::Yield { .. })).count();
    assert!((10..40).contains(&given_back), "{given_back} times in a day");
    assert!(row.finish.is_none(), "{}", row.story());
}

/// A control plane that was taken over grants what no run of that kind leaves behind: undoing it would power the host
/// off, with an executor that may not.
#[tokio::test(start_paused = true)]
async fn what_no_run_of_that_kind_leaves_behind_is_not_undone() {
    let ending = json!({"outcome": "failed", "code": "", "detail": "", "evidence": null});
    // The kind, how many changes are allowed, and what is made up: the object of an effect, or how the run is to end.
    for (kind, changes, object, settle, checkpoint) in [
        ("inventory", 0, Some("host_power"), None, json!(null)),
        ("inventory", 16, Some("host_power"), None, json!(null)),
        ("inventory", 16, Some("bmc_job"), None, json!(null)),
        ("inventory", 16, None, Some(&ending), json!(null)),
        ("inventory", 16, None, None, json!({"finish": ending})),
        ("power", 16, Some("host_power"), None, json!(null)),
    ] {
        let mut world = World::new(vec![r750()]);
        world.policy.kinds = vec![kind.into()];
        world.policy.max_mutating_runs = changes;
        let run = match kind {
            "inventory" => world.inventory(0),
            _ => world.power(0, PowerAction::On),
        };
        world.plane.edit(run, |grant| {
            grant.settle = settle.map(|settle| serde_json::from_value(settle.clone()).unwrap());
            grant.checkpoint = checkpoint.clone();
        });
        if let Some(object) = object {
            let (id, object, property) = (EffectId::generate(), object.to_owned(), "state".to_owned());
            let wanted = json!({"job": "JID_1", "guessed": false});
            let state = EffectState::Applied;
            world.plane.leave(run, Effect { id, object, property, prior: json!("off"), wanted, state });
        }
        let _executor = world.start(0, None).await;
        tokio::time::sleep(seconds(3600)).await;
        let row = world.plane.run(run);
        assert!(row.finish.is_none(), "it is left to others: {}", row.story());
        let told = if changes == 0 { "`max_mutating_runs`" } else { "policy-refused" };
        assert!(row.story().contains(told), "{}", row.story());
        assert_eq!(world.lab.total().requests, 0, "{}", row.story());
        assert_eq!(world.lab.status("bmc-01").unwrap().power_state, "On");
    }
}

#[tokio::test(start_paused = true)]
async fn the_bmcs_own_firmware_needs_no_restart_of_the_host() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = world.update(0, IDRAC, IDRAC_15G, Reboot::Bmc);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Succeeded, None);
    assert!(world.lab.total().host_resets.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dead_bmc_ends_the_run_and_says_so() {
    let world = World::new(vec![r750()]);
    world.lab.fault("bmc-01", Fault::Partition, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let run = world.inventory(0);
    let row = world.end_of(run).await;
    ended(&row, &row.finish.clone().unwrap(), Outcome::Failed, Some(ErrorCode::BmcUnreachable));
}

/// The journal tells what was meant and what became of it.
#[tokio::test(start_paused = true)]
async fn the_journal_has_every_intent_with_its_outcome() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = bios(&world);
    world.end_of(run).await;
    let log = world.journal(0).log();
    let intents =
        log.iter().filter(|write| matches!(write, rackhand_executor::journal::Write::Intent { .. })).count();
    let applied = log
        .iter()
        .filter(|write| {
            matches!(
                write,
                rackhand_executor::journal::Write::Outcome { resolution: Resolution::Applied, .. }
            )
        })
        .count();
    assert_eq!((intents, applied), (2, 2));
    let text = format!("{log:?}");
    assert!(!text.contains(super::support::PASSWORD), "no password in the journal");
}

/// A lease whose task has ended here comes again under the same epoch: its numbers go on, so that no intent
/// is mistaken for one that was accepted before.
#[tokio::test]
async fn a_lease_granted_again_goes_on_counting() {
    use rackhand_executor::{journal::memory::MemoryJournal, outbox::Outbox};
    let outbox = Outbox::new(std::sync::Arc::new(MemoryJournal::default()));
    let run = RunId::generate();
    let phase = || ReportBody::Phase {
        phase: "check".into(),
        state: rackhand_schema::run::PhaseState::Running,
        evidence: serde_json::Value::Null,
    };
    outbox.open(run, 1, None);
    assert_eq!(outbox.push(run, 1, phase()).await.unwrap(), 1);
    assert_eq!(outbox.push(run, 1, phase()).await.unwrap(), 2);
    outbox.close(run, 1);
    outbox.open(run, 1, None);
    assert_eq!(outbox.push(run, 1, phase()).await.unwrap(), 3);
    outbox.open(run, 2, None);
    assert_eq!(outbox.push(run, 2, phase()).await.unwrap(), 1);
}
