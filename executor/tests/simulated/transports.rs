//! Redfish and IPMI to the same BMC: which one is taken, and that no request goes over the second one once
//! the first one may have done it (docs/adr/0014-a-transport-is-chosen-before-the-intent.md).

use std::{sync::atomic::Ordering, time::Duration};

use rackhand_executor::{
    bmc::{BmcErrorKind, Via},
    journal::{Journal as _, Write},
};
use rackhand_lab::{Fault, Lab, LabConfig, Model, ServerSpec, Times};
use rackhand_schema::{
    ErrorCode,
    id::RunId,
    job::{BootMode, BootOverrideParams, BootTarget, BootTimes, PowerAction},
    protocol::{Finish, ReportBody},
    run::Outcome,
    server::{Health, PowerState},
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{
    crash::PXE_ONCE,
    support::{PASSWORD, Reach, StopAt, World, plane::RunRow},
};

fn world(reach: Reach) -> World {
    World::new(vec![ServerSpec::new("bmc-01", Model::R750)]).reached(reach)
}

async fn end(world: &World, run: RunId) -> (RunRow, Finish) {
    let row = world.end_of(run).await;
    let finish = row.finish.clone().unwrap();
    (row, finish)
}

/// The transports that intents named, in order.
fn named(row: &RunRow) -> Vec<String> {
    let intents = row.items.iter().filter_map(|item| match &item.body {
        ReportBody::Intent(intent) => intent.before["via"].as_str(),
        _ => None,
    });
    intents.map(str::to_owned).collect()
}

fn resets(world: &World) -> u64 {
    world.lab.total().host_resets.values().sum()
}

#[tokio::test(start_paused = true)]
async fn redfish_goes_first_and_ipmi_is_left_alone() {
    let world = world(Reach::Both);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(named(&row), ["redfish"]);
    assert_eq!(world.wire.ipmi_logins.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn power_falls_back_to_ipmi_before_the_intent() {
    let world = world(Reach::Both);
    world.wire.redfish_down.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(named(&row), ["ipmi"]);
    assert_eq!((resets(&world), world.lab.status("bmc-01").unwrap().power_state.as_str()), (1, "Off"));
}

/// Redfish takes the request, its answer is lost, and it stays away: what IPMI shows proves it done.
#[tokio::test(start_paused = true)]
async fn after_the_intent_ipmi_only_looks() {
    let world = world(Reach::Both);
    world.wire.redfish_cuts.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(finish.evidence["via"], "ipmi", "{}", row.story());
    assert_eq!((named(&row), resets(&world)), (vec!["redfish".to_owned()], 1));
    let chassis_controls = world.lab.total().mutations;
    assert_eq!(chassis_controls.values().sum::<u64>(), 1, "{chassis_controls:?}");
}

/// The same, but nothing came of it: what IPMI shows proves nothing, so nobody acts again.
#[tokio::test(start_paused = true)]
async fn a_request_without_a_trace_is_not_made_again_over_the_other_transport() {
    let world = world(Reach::Both);
    world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
    world.wire.redfish_cuts.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(finish.code, ErrorCode::OutcomeUnknown.as_str());
    assert_eq!(named(&row), ["redfish"], "{}", row.story());
    assert_eq!(world.lab.total().mutations.values().sum::<u64>(), 1);
}

/// A restart over IPMI whose answer is lost and of which the log says nothing stays unknown.
#[tokio::test(start_paused = true)]
async fn a_lost_restart_over_ipmi_is_never_repeated() {
    let world = world(Reach::Ipmi);
    world.lab.fault("bmc-01", Fault::PowerIgnored, Times::Always).unwrap();
    world.wire.ipmi_cuts.store(true, Ordering::Relaxed);
    let _executor = world.start(0, None).await;
    let run = world.power(0, PowerAction::ForceRestart);
    tokio::time::sleep(Duration::from_secs(60)).await;
    world.wire.ipmi_down.store(false, Ordering::Relaxed);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(world.lab.total().mutations.values().sum::<u64>(), 1, "{}", row.story());
}

/// What Redfish of this BMC does not know goes over IPMI, and the other way round.
#[tokio::test(start_paused = true)]
async fn an_action_that_ipmi_has_not_goes_over_redfish_or_not_at_all() {
    let both = world(Reach::Both);
    let _executor = both.start(0, None).await;
    let (row, finish) = end(&both, both.power(0, PowerAction::GracefulRestart)).await;
    assert_eq!(
        (finish.outcome, named(&row)),
        (Outcome::Succeeded, vec!["redfish".to_owned()]),
        "{}",
        row.story()
    );
    let ipmi = world(Reach::Ipmi);
    let _executor = ipmi.start(0, None).await;
    let (row, finish) = end(&ipmi, ipmi.power(0, PowerAction::GracefulRestart)).await;
    assert_eq!(finish.code, ErrorCode::DeviceUnsupported.as_str(), "{}", row.story());
    assert_eq!(resets(&ipmi), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bmc_without_redfish_is_read_and_switched() {
    let world = world(Reach::Ipmi);
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.inventory(0)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    let inventory = row.inventory.unwrap();
    assert_eq!(inventory.power, PowerState::On);
    assert_ne!(inventory.health, Health::Unknown);
    assert!(inventory.model.is_some() && inventory.service_tag.is_some(), "{inventory:?}");
    assert!(
        inventory.bmc_version.is_some() && inventory.unreadable.contains_key("firmware"),
        "{inventory:?}"
    );
    for (action, state) in [(PowerAction::ForceOff, "Off"), (PowerAction::On, "On")] {
        let (row, finish) = end(&world, world.power(0, action)).await;
        assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
        assert_eq!(world.lab.status("bmc-01").unwrap().power_state, state);
    }
    let (row, finish) = end(&world, world.power(0, PowerAction::PowerCycle)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(world.wire.redfish_requests.load(Ordering::Relaxed), 0);
    assert_eq!(world.lab.total().ipmi.sessions_opened, 1, "one session for all of it");
}

/// A wrong password: one attempt in the whole site, whichever transport comes first.
#[tokio::test(start_paused = true)]
async fn a_wrong_password_over_ipmi_counts_once() {
    let servers = (1..=3).map(|n| ServerSpec::new(format!("bmc-0{n}"), Model::R750)).collect();
    let world = World::new(servers).reached(Reach::Ipmi);
    world.plane.use_password("wrong");
    let (_first, _second) = (world.start(0, None).await, world.start(1, None).await);
    let (_, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.code, ErrorCode::BmcAuthFailed.as_str(), "{finish:?}");
    for server in [0, 1, 2] {
        let (_, finish) = end(&world, world.power(server, PowerAction::ForceOff)).await;
        let closed = [ErrorCode::CredentialSuspended.as_str(), ErrorCode::BmcAuthFailed.as_str()];
        assert!(closed.contains(&finish.code.as_str()), "{finish:?}");
    }
    assert_eq!(world.wire.ipmi_logins.load(Ordering::Relaxed), 1);
}

/// Redfish refuses the password: IPMI would present the same.
#[tokio::test(start_paused = true)]
async fn a_password_that_redfish_refused_is_not_presented_over_ipmi() {
    let world = world(Reach::Both);
    world.plane.use_password("wrong");
    let _executor = world.start(0, None).await;
    let (_, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.code, ErrorCode::BmcAuthFailed.as_str(), "{finish:?}");
    assert_eq!(world.wire.ipmi_logins.load(Ordering::Relaxed), 0);
    assert_eq!(world.lab.total().auth_failures, 1);
}

#[tokio::test(start_paused = true)]
async fn the_suite_that_worked_is_kept_and_the_session_closed() {
    let world = world(Reach::Ipmi);
    let executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::ForceOff)).await;
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    executor.drain();
    executor.ended().await;
    assert_eq!(world.lab.total().ipmi.sessions_open, 0);
    let kept = world.journal(0).metas("ipmi_suite:").await.unwrap();
    assert_eq!(kept.into_iter().map(|(_, suite)| suite).collect::<Vec<_>>(), ["17"]);
    // A BMC, or somebody in between, that offers less from now on is not logged in to.
    world.lab.fault("bmc-01", Fault::IpmiRefuses17, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.power(0, PowerAction::On)).await;
    assert_eq!(finish.code, ErrorCode::DeviceUnsupported.as_str(), "{}", row.story());
    let log = format!("{:?}", world.journal(0).log());
    assert!(!log.contains(super::support::PASSWORD), "no password in the journal");
}

#[tokio::test(start_paused = true)]
async fn a_boot_override_is_set_read_back_and_cleared() {
    for reach in [Reach::Redfish, Reach::Ipmi] {
        let world = world(reach);
        let _executor = world.start(0, None).await;
        for (target, times, shown) in [
            (BootTarget::Pxe, BootTimes::Once, ("Pxe", "Once")),
            (BootTarget::Cd, BootTimes::Continuous, ("Cd", "Continuous")),
            (BootTarget::BiosSetup, BootTimes::Once, ("BiosSetup", "Once")),
            (BootTarget::None, BootTimes::Once, ("None", "Disabled")),
        ] {
            let params = BootOverrideParams { target, times, mode: Some(BootMode::Uefi) };
            let (row, finish) = end(&world, world.boot(0, params)).await;
            assert_eq!(finish.outcome, Outcome::Succeeded, "{reach:?} {}", row.story());
            let (target, times, mode) = world.lab.status("bmc-01").unwrap().boot_override;
            assert_eq!((target.as_str(), times.as_str()), shown, "{reach:?}");
            assert!(mode == "UEFI" || target == "None", "{reach:?} {mode}");
        }
        let again = BootOverrideParams { target: BootTarget::None, times: BootTimes::Once, mode: None };
        let (row, finish) = end(&world, world.boot(0, again)).await;
        assert_eq!(finish.outcome, Outcome::NoChange, "{reach:?} {}", row.story());
    }
}

#[tokio::test(start_paused = true)]
async fn a_boot_override_falls_back_before_the_intent_and_is_proved_by_the_other_after_it() {
    let before = world(Reach::Both);
    before.wire.redfish_down.store(true, Ordering::Relaxed);
    let _executor = before.start(0, None).await;
    let (row, finish) = end(&before, before.boot(0, PXE_ONCE)).await;
    assert_eq!(
        (finish.outcome, named(&row)),
        (Outcome::Succeeded, vec!["ipmi".to_owned()]),
        "{}",
        row.story()
    );
    let after = world(Reach::Both);
    after.wire.redfish_cuts.store(true, Ordering::Relaxed);
    let _executor = after.start(0, None).await;
    let (row, finish) = end(&after, after.boot(0, PXE_ONCE)).await;
    assert_eq!(
        (finish.outcome, named(&row)),
        (Outcome::Succeeded, vec!["redfish".to_owned()]),
        "{}",
        row.story()
    );
    assert_eq!(finish.evidence["via"], "ipmi", "{}", row.story());
}

/// The answer is lost and the host boots before anybody looks: setting it once more would boot it there
/// twice.
#[tokio::test(start_paused = true)]
async fn an_override_that_a_boot_may_have_used_up_is_not_set_again() {
    let world = world(Reach::Redfish);
    let stop =
        StopAt::when(|_, write| matches!(write, Write::Outbox { item, .. } if item.contains("accepted")));
    let run = world.boot(0, PXE_ONCE);
    let victim = world.start(0, Some(stop.clone())).await;
    stop.reached.notified().await;
    drop(victim);
    world.lab.power_failure("bmc-01").unwrap();
    let on = world.power(0, PowerAction::On);
    world.plane.hold(run);
    let _successor = world.start(1, None).await;
    end(&world, on).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    world.plane.release(run);
    let (row, finish) = end(&world, run).await;
    assert_eq!(finish.outcome, Outcome::Unknown, "{}", row.story());
    assert_eq!(world.lab.status("bmc-01").unwrap().boots, ["Pxe"], "{}", row.story());
}

#[tokio::test(start_paused = true)]
async fn a_setting_that_is_ignored_is_not_called_done() {
    let world = world(Reach::Redfish);
    world.lab.fault("bmc-01", Fault::SettingIgnored, Times::Always).unwrap();
    let _executor = world.start(0, None).await;
    let (row, finish) = end(&world, world.boot(0, PXE_ONCE)).await;
    assert_eq!(finish.code, ErrorCode::SettingNotReached.as_str(), "{}", row.story());
    assert_eq!(named(&row).len(), 1);
}

/// A boot mode that this generation does not list is refused before anything is announced.
#[tokio::test(start_paused = true)]
async fn d28_a_mode_that_is_not_listed_is_refused_before_the_intent() {
    let world = World::new(vec![ServerSpec::new("bmc-01", Model::R770)]);
    let _executor = world.start(0, None).await;
    let legacy = BootOverrideParams { mode: Some(BootMode::Legacy), ..PXE_ONCE };
    let (row, finish) = end(&world, world.boot(0, legacy)).await;
    assert_eq!(finish.code, ErrorCode::DeviceUnsupported.as_str(), "{}", row.story());
    assert!(named(&row).is_empty());
}

/// The lab's Redfish has no sensors: whoever asks for them is answered over IPMI.
#[tokio::test(start_paused = true)]
async fn sensors_come_over_the_transport_that_has_them() {
    let both = world(Reach::Both);
    let (via, report) = both.line(0).await.sensors().await.unwrap();
    let readings = report.readings;
    assert_eq!(via, Via::Ipmi);
    assert!(
        readings.iter().any(|reading| reading.value.is_some() && reading.health == Health::Ok),
        "{readings:?}"
    );
    let redfish = world(Reach::Redfish);
    let error = redfish.line(0).await.sensors().await.unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Unsupported, "{error}");
    let error = redfish.line(0).await.console().await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind, BmcErrorKind::Unsupported, "D42: {error}");
}

/// The serial console over real datagrams: one reader at a time, and free again once its stream is dropped.
#[tokio::test]
async fn d39_a_console_has_one_reader_and_is_given_back() {
    let server = ServerSpec::new("bmc-01", Model::R750);
    let sockets = Lab::start(LabConfig::new(vec![server.clone()], PASSWORD)).await.unwrap();
    let mut world = World::new(vec![server]).reached(Reach::Ipmi);
    world.udp = sockets.bmc("bmc-01").unwrap().ipmi;
    let (first, second) = (world.line(0).await, world.line(0).await);
    let (via, mut console) = first.console().await.unwrap();
    assert_eq!(via, Via::Ipmi);
    console.write_all(b"hello\r").await.unwrap();
    let mut shown = Vec::new();
    while !shown.windows(5).any(|window| window == b"hello") {
        let mut part = [0; 256];
        let read =
            tokio::time::timeout(Duration::from_secs(10), console.read(&mut part)).await.unwrap().unwrap();
        assert_ne!(read, 0, "the console ended");
        shown.extend_from_slice(&part[..read]);
    }
    let error = second.console().await.map(|_| ()).unwrap_err();
    assert!(matches!(error.kind, BmcErrorKind::NotReady { .. }), "{error}");
    drop(console);
    let again = async {
        while second.console().await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.unwrap();
}
