//! Whole runs in paused time, over the lab's BMCs and a model of the control plane.

use rackhand_lab::{Model, ServerSpec};
use rackhand_schema::{
    job::{PowerAction, Reboot},
    run::Outcome,
    server::PowerState,
};

use super::support::World;

fn r750() -> ServerSpec {
    ServerSpec::new("bmc-01", Model::R750)
}

const BIOS: &str = "BIOS.Setup.1-1";
const BIOS_R750: &str = "BIOS_R750_1.15.2.EXE";

#[tokio::test(start_paused = true)]
async fn an_inventory_is_read_and_reported() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = world.inventory(0);
    let row = world.end_of(run).await;
    let finish = row.finish.unwrap();
    assert_eq!(finish.outcome, Outcome::Succeeded, "{finish:?}");
    let inventory = row.inventory.unwrap();
    assert_eq!(inventory.power, PowerState::On);
    assert_eq!(inventory.generation.as_deref(), Some("idrac9"));
    assert!(inventory.components.iter().any(|component| component.key == BIOS), "{inventory:?}");
}

#[tokio::test(start_paused = true)]
async fn power_is_changed_and_read_back_and_a_second_time_is_no_change() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let off = world.power(0, PowerAction::ForceOff);
    assert_eq!(world.end_of(off).await.finish.unwrap().outcome, Outcome::Succeeded);
    let again = world.power(0, PowerAction::ForceOff);
    assert_eq!(world.end_of(again).await.finish.unwrap().outcome, Outcome::NoChange);
    let on = world.power(0, PowerAction::On);
    assert_eq!(world.end_of(on).await.finish.unwrap().outcome, Outcome::Succeeded);
    let resets = world.lab.total().host_resets;
    assert_eq!(resets.values().sum::<u64>(), 2, "{resets:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bios_update_is_staged_applied_and_read_back() {
    let world = World::new(vec![r750()]);
    let _executor = world.start(0, None).await;
    let run = world.update(0, BIOS, BIOS_R750, Reboot::Host);
    let row = world.end_of(run).await;
    let finish = row.finish.clone().unwrap();
    assert_eq!(finish.outcome, Outcome::Succeeded, "{}", row.story());
    assert_eq!(world.version(0, BIOS).as_deref(), Some("1.15.2"));
    let total = world.lab.total();
    assert_eq!(total.most_flashes_of_one(), 1);
    assert_eq!(total.overlapping_mutations, 0);
    assert!(row.effects.iter().all(|effect| !effect.state.is_open()), "{:?}", row.effects);
    let again = world.update(0, BIOS, BIOS_R750, Reboot::Host);
    assert_eq!(world.end_of(again).await.finish.unwrap().outcome, Outcome::NoChange);
}
