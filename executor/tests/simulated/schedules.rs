//! Random schedules of what can go wrong between two executors, a control plane and a BMC. Whatever happens:
//! no component is flashed twice, nothing is bricked, no two mutations overlap, nothing stays open, and the
//! run ends well or says honestly that it does not know.

use std::{sync::atomic::Ordering, time::Duration};

use super::support::World;
use proptest::prelude::*;
use rackhand_executor::service::Handle;
use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_schema::{job::Reboot, run::Outcome};

#[derive(Clone, Debug)]
enum Disturbance {
    /// The executor dies and comes back after so many seconds.
    Kill { executor: usize, back_after: u64 },
    /// The control plane is away from one executor for so many seconds.
    Partition { executor: usize, seconds: u64 },
    /// Answers of the control plane get lost.
    LoseAnswers { executor: usize, count: u32 },
    /// The answer to the next mutation is cut.
    Cut { accepted: bool },
    /// The next job is visible late.
    Hide { seconds: u64 },
    /// The session at the BMC dies.
    ForgetSession,
}

#[derive(Clone, Debug)]
struct Schedule {
    off: bool,
    old: bool,
    /// Seconds to wait before each disturbance.
    steps: Vec<(u64, Disturbance)>,
}

fn disturbance() -> impl Strategy<Value = Disturbance> {
    prop_oneof![
        4 => (0..2usize, 0..120u64).prop_map(|(executor, back_after)| Disturbance::Kill { executor, back_after }),
        3 => (0..2usize, 1..400u64).prop_map(|(executor, seconds)| Disturbance::Partition { executor, seconds }),
        2 => (0..2usize, 1..4u32).prop_map(|(executor, count)| Disturbance::LoseAnswers { executor, count }),
        2 => any::<bool>().prop_map(|accepted| Disturbance::Cut { accepted }),
        1 => (1..50u64).prop_map(|seconds| Disturbance::Hide { seconds }),
        1 => Just(Disturbance::ForgetSession),
    ]
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let steps = prop::collection::vec((0..240u64, disturbance()), 0..8);
    (any::<bool>(), any::<bool>(), steps).prop_map(|(off, old, steps)| Schedule {
        off: off && !old,
        old,
        steps,
    })
}

async fn play(schedule: &Schedule) {
    let (model, file) = if schedule.old {
        (Model::R730, "BIOS_R730_2.19.0.EXE")
    } else {
        (Model::R750, "BIOS_R750_1.15.2.EXE")
    };
    let mut server = ServerSpec::new("bmc-01", model);
    if schedule.old {
        server = server.idrac(model.old_idrac());
    }
    if schedule.off {
        server = server.powered_off();
    }
    let world = World::new(vec![server]);
    let reboot = if schedule.old { Reboot::HostAtOnce } else { Reboot::Host };
    let run = world.update(0, "BIOS.Setup.1-1", file, reboot);
    let mut executors: [Option<Handle>; 2] =
        [Some(world.start(0, None).await), Some(world.start(1, None).await)];
    for (wait, disturbance) in &schedule.steps {
        tokio::time::sleep(Duration::from_millis(wait * 1_000 + 137)).await;
        match disturbance {
            Disturbance::Kill { executor, back_after } => {
                executors[*executor] = None;
                tokio::time::sleep(Duration::from_secs(*back_after)).await;
                executors[*executor] = Some(world.start(*executor, None).await);
            }
            Disturbance::Partition { executor, seconds } => {
                world.link(*executor).partitioned.store(true, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(*seconds)).await;
                world.link(*executor).partitioned.store(false, Ordering::Relaxed);
            }
            Disturbance::LoseAnswers { executor, count } => {
                world.link(*executor).lose_answers.fetch_add(*count, Ordering::Relaxed);
            }
            Disturbance::Cut { accepted } => {
                let fault = if *accepted { Fault::CutAfterAccept } else { Fault::CutBeforeAccept };
                world.lab.fault("bmc-01", fault, Times::Once).unwrap();
            }
            Disturbance::Hide { seconds } => {
                let fault = Fault::JobVisibilityDelay { seconds: *seconds };
                world.lab.fault("bmc-01", fault, Times::Once).unwrap();
            }
            Disturbance::ForgetSession => {
                world.lab.fault("bmc-01", Fault::SessionDies, Times::Once).unwrap();
            }
        }
    }
    let row = world.end_of(run).await;
    let finish = row.finish.clone().unwrap();
    let story = row.story();
    let good = matches!(finish.outcome, Outcome::Succeeded | Outcome::Unknown);
    assert!(good, "{story}");
    let total = world.lab.total();
    assert!(total.most_flashes_of_one() <= 1, "flashed twice\n{story}");
    assert_eq!(total.bricked, 0, "{story}");
    assert_eq!(total.overlapping_mutations, 0, "{:#?}\n{story}", total.mutation_log);
    assert_eq!(total.addresses_blocked, 0, "{story}");
    assert!(row.effects.iter().all(|effect| !effect.state.is_open()), "{story}");
    if finish.outcome == Outcome::Succeeded {
        let expected = if schedule.old { "2.19.0" } else { "1.15.2" };
        assert_eq!(world.version(0, "BIOS.Setup.1-1").as_deref(), Some(expected), "{story}");
        let power = world.lab.status("bmc-01").unwrap().power_state;
        let cut = schedule.steps.iter().filter(|(_, step)| matches!(step, Disturbance::Cut { .. })).count();
        if schedule.off && power == "On" {
            // Each request to power off was lost: then the run says so, and a person powers the host off.
            assert!(cut >= 4 && finish.detail.contains("Power it off."), "{story}");
        } else {
            assert_eq!(power, if schedule.off { "Off" } else { "On" }, "{story}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_flashes_twice_or_leaves_anything_open(schedule in schedule()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(play(&schedule));
    }
}
