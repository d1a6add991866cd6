//! What counts as the planned component in the planned version: versions that are written differently, and
//! ids that an update replaces. In paused time over the lab's BMCs.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use rackhand_executor::journal::Write;
use rackhand_lab::{Fault, Model, ServerSpec, Times};
use rackhand_schema::{
    ErrorCode,
    id::RunId,
    job::{PlanStep, Reboot},
    run::Outcome,
};

use super::support::{StopAt, World, openbmc::image_id};

const BIOS: &str = "BIOS.Setup.1-1";

fn site() -> World {
    World::new(vec![ServerSpec::new("bmc-01", Model::R750)])
}

/// An update of the BIOS to 1.15.2 whose step of the plan is changed.
fn planned(world: &World, change: impl FnOnce(&mut String, &mut String, &mut String)) -> RunId {
    let run = world.update(0, BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host);
    world.plane.edit(run, |grant| match &mut grant.plan.steps[..] {
        [PlanStep::Firmware { component, from, to, .. }] => change(component, from, to),
        other => panic!("{other:?}"),
    });
    run
}

/// `1.8.2` as `01.08.02.0`.
fn padded(version: &str) -> String {
    let parts: Vec<_> = version.split('.').map(|part| format!("0{part}")).collect();
    format!("{}.0", parts.join("."))
}

#[tokio::test(start_paused = true)]
async fn a_version_is_the_same_however_it_is_written() {
    let world = site();
    let _executor = world.start(0, None).await;
    let run = planned(&world, |_, from, to| {
        *from = padded(from);
        *to = padded(to);
    });
    let row = world.end_of(run).await;
    assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(world.version(0, BIOS).as_deref(), Some("1.15.2"));

    let again = planned(&world, |_, from, to| (*from, *to) = ("1.8.2".to_owned(), padded(to)));
    let row = world.end_of(again).await;
    assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::NoChange, "{}", row.story());
}

/// Text that is in both is no proof: `1.9` is another version than `1.90`, and older than `1.10`.
#[tokio::test(start_paused = true)]
async fn a_version_that_only_begins_alike_is_drift() {
    for other in ["1.15", "1.15.20", "1.15.2-beta"] {
        let world = site();
        let _executor = world.start(0, None).await;
        let run = planned(&world, |_, from, _| other.clone_into(from));
        let row = world.end_of(run).await;
        assert_eq!(row.finish.as_ref().unwrap().code, ErrorCode::VersionDrift.as_str(), "{other}");
        assert!(world.lab.total().mutations.is_empty(), "{other}: {}", row.story());
    }
}

/// The list of firmware cannot be read when the package is about to be handed over: that is no drift.
#[tokio::test(start_paused = true)]
async fn an_unreadable_inventory_before_the_hand_over_is_waited_for() {
    let world = site();
    let wire = Arc::clone(&world.wire);
    let hide = StopAt::when(move |_, write| {
        let begins = r#""phase":"stage","state":"running""#;
        if matches!(write, Write::Outbox { item, .. } if item.contains(begins)) {
            wire.no_firmware_list.store(true, Ordering::Relaxed);
        }
        false
    });
    let _executor = world.start(0, Some(hide)).await;
    let run = planned(&world, |_, _, _| {});
    tokio::time::sleep(Duration::from_secs(10 * 60)).await;
    let row = world.plane.run(run);
    assert!(row.finish.is_none() && row.grant.phase == "stage", "{}", row.story());
    world.wire.no_firmware_list.store(false, Ordering::Relaxed);
    let row = world.end_of(run).await;
    assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::Succeeded, "{}", row.story());
}

/// The id under which the plan knows the component is gone after the update, with or without a lost answer.
#[tokio::test(start_paused = true)]
async fn an_update_that_replaces_the_components_id_is_read_back() {
    for cut in [false, true] {
        let world = site();
        world.wire.openbmc.store(true, Ordering::Relaxed);
        if cut {
            world.lab.fault("bmc-01", Fault::CutAfterAccept, Times::Count(1)).unwrap();
        }
        let _executor = world.start(0, None).await;
        let run = planned(&world, |component, from, _| *component = image_id(BIOS, from));
        let row = world.end_of(run).await;
        let finish = row.finish.as_ref().unwrap();
        assert_eq!(finish.outcome, Outcome::Succeeded, "{cut}: {}", row.story());
        assert_eq!(finish.evidence["component"], image_id(BIOS, "1.15.2"), "{cut}: {finish:?}");
        assert_eq!(world.lab.total().most_flashes_of_one(), 1, "{cut}: {}", row.story());
    }
}

/// A row that is `Updating` does not prove that its version runs, under a key that stays and under one that is new; nor
/// does the BMC's own row, be it an iDRAC's or an OpenBMC's, while its manager shows the version before.
#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_run_yet_is_waited_for() {
    let idrac =
        ("iDRAC.Embedded.1-1", "iDRAC-with-Lifecycle-Controller_Firmware_15G_7.10.50.10.EXE", Reboot::Bmc);
    let bios = (BIOS, "BIOS_R750_1.15.2.EXE", Reboot::Host);
    let updating = |seconds| Fault::RowUpdating { seconds };
    let stale = |seconds| Fault::ManagerStale { seconds };
    for ((component, package, reboot), openbmc, fault) in [
        (bios, false, updating as fn(u64) -> Fault),
        (bios, true, updating),
        (idrac, false, updating),
        (idrac, false, stale),
        (idrac, true, stale),
    ] {
        // Within the time for reading back, and beyond it.
        for (seconds, outcome) in [(600, Outcome::Succeeded), (24 * 3600, Outcome::Unknown)] {
            let world = site();
            world.wire.openbmc.store(openbmc, Ordering::Relaxed);
            world.lab.fault("bmc-01", fault(seconds), Times::Once).unwrap();
            let _executor = world.start(0, None).await;
            let run = world.update(0, component, package, reboot);
            if openbmc {
                world.plane.edit(run, |grant| match &mut grant.plan.steps[..] {
                    [PlanStep::Firmware { component, from, .. }] => *component = image_id(component, from),
                    other => panic!("{other:?}"),
                });
            }
            let row = world.end_of(run).await;
            let finish = row.finish.as_ref().unwrap();
            let about = format!("{component} {openbmc} {:?}: {}", fault(seconds), row.story());
            assert_eq!(finish.outcome, outcome, "{about}");
            let flashed = world.lab.total().flashes[0].ended.unwrap();
            let waited = world.lab.now().as_secs_f64() - flashed;
            assert_eq!(world.lab.total().flashes.len(), 1, "{about}");
            match outcome {
                Outcome::Succeeded => assert!(waited >= 600.0, "{waited} s after the flash: {about}"),
                _ => assert!(
                    ["as Updating", "but still runs"].iter().any(|why| finish.detail.contains(why)),
                    "{about}"
                ),
            }
        }
    }
}

/// Nor is the job over before it began: what is being written now may fail.
#[tokio::test(start_paused = true)]
async fn a_version_that_does_not_run_yet_is_not_there_already() {
    let world = site();
    world.lab.fault("bmc-01", Fault::RowUpdating { seconds: 1200 }, Times::Once).unwrap();
    let _executor = world.start(0, None).await;
    let first = planned(&world, |_, _, _| {});
    while world.version(0, BIOS).as_deref() != Some("1.15.2") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let flashed = world.lab.now();
    world.end_of(first).await;
    let second = planned(&world, |_, from, _| "1.8.2".clone_into(from));
    let row = world.end_of(second).await;
    assert_eq!(row.finish.as_ref().unwrap().outcome, Outcome::NoChange, "{}", row.story());
    assert!(world.lab.now() - flashed >= Duration::from_secs(1200), "{}", row.story());
}
