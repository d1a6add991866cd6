//! Killed between any two journal writes and resumed by another executor: the same final state, each component
//! flashed at most once, no effect open. And the same with the dead executor itself coming back.

use std::{sync::atomic::Ordering, time::Duration};

use rackhand_executor::{journal::Write, service::Handle};
use rackhand_lab::{Model, ServerSpec};
use rackhand_schema::{
    id::RunId,
    job::{BootOverrideParams, BootTarget, BootTimes, PowerAction, Reboot},
    run::{EffectState, Outcome},
};

use super::support::{Reach, StopAt, World};

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
        // Only what a dead process had not delivered is sent from an old lease, and only by its own successor.
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
    for phase in ["check", "package", "stage", "reboot", "apply", "verify", "settle"] {
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
