//! Killed between any two journal writes and resumed by another executor: the same final state, each component
//! flashed at most once, no effect open. And the same with the dead executor itself coming back.

use std::{sync::atomic::Ordering, time::Duration};

use rackhand_executor::journal::Write;
use rackhand_lab::{Model, ServerSpec};
use rackhand_schema::{
    id::RunId,
    job::{PowerAction, Reboot},
    run::{EffectState, Outcome},
};

use super::support::{StopAt, World};

const BIOS: &str = "BIOS.Setup.1-1";

/// One kind of run on one kind of server.
#[derive(Clone, Copy, Debug)]
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
}

impl Scenario {
    fn server(self) -> ServerSpec {
        match self {
            Self::Staged | Self::Direct | Self::Power => ServerSpec::new("bmc-01", Model::R750),
            Self::HostOff => ServerSpec::new("bmc-01", Model::R750).powered_off(),
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
            Self::Power => world.power(0, PowerAction::ForceOff),
        }
    }

    async fn check(self, world: &World, run: RunId, when: &str) {
        let row = world.end_of(run).await;
        let finish = row.finish.clone().unwrap();
        let story = || format!("{self:?} {when}\n{}", row.story());
        // A power run that a crash interrupts may find its state reached without having seen its own request.
        let good = match self {
            Self::Power => matches!(finish.outcome, Outcome::Succeeded | Outcome::NoChange),
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
        let off = matches!(self, Self::HostOff | Self::Power);
        assert_eq!(status.power_state, if off { "Off" } else { "On" }, "{}", story());
        // Only what a dead process had not delivered is sent from an old lease, and only by its own successor.
        assert!(row.stale == 0 || when.ends_with("by 0"), "state of a dead lease was sent {}", story());
    }
}

/// Kills executor 0 at its `n`-th write, lets `successor` go on. False when it ended before.
async fn killed_at(scenario: Scenario, n: u64, successor: usize) -> bool {
    let world = World::new(vec![scenario.server()]);
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
}

/// Every phase is run twice: its executor dies right after the control plane has heard that it is done.
#[tokio::test(start_paused = true)]
async fn every_phase_run_twice_is_as_if_run_once() {
    for phase in ["check", "package", "stage", "reboot", "apply", "verify", "settle"] {
        let scenario = Scenario::HostOff;
        let world = World::new(vec![scenario.server()]);
        let run = scenario.begin(&world);
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
        let victim = world.start(0, Some(stop.clone())).await;
        stop.reached.notified().await;
        drop(victim);
        let _successor = world.start(1, None).await;
        scenario.check(&world, run, &format!("{phase} twice")).await;
        let resets = world.lab.total().host_resets;
        assert_eq!(resets.get("On").copied(), Some(1), "{phase}: {resets:?}");
    }
}
