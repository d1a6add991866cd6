//! Habits of BMCs in the field (`tests/ipmi/foreign`), through the broker: the inventory and the sensors are
//! right, and what cannot be read is named.

use std::net::SocketAddr;

use futures::{StreamExt as _, stream};
use rackhand_ipmi_tests::{
    QuirkyBmcs,
    quirky::{Case, cases, same},
};
use rackhand_lab::{Model, ServerSpec};
use serde_json::{Value, json};

use super::support::{PASSWORD, Reach, World};

/// BMCs at once.
const WIDTH: usize = 8;

#[tokio::test]
async fn what_foreign_bmcs_say_becomes_an_inventory() {
    let cases = cases();
    let bmcs = QuirkyBmcs::start(&cases, PASSWORD).await;
    let tried = cases.iter().map(|case| judge(case, bmcs.address(case)));
    let wrong: Vec<String> =
        stream::iter(tried).buffer_unordered(WIDTH).filter_map(async |judged| judged.err()).collect().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn judge(case: &Case, address: SocketAddr) -> Result<(), String> {
    let mut world = World::new(vec![ServerSpec::new("bmc-01", Model::R750)]).reached(Reach::Ipmi);
    world.udp = Some(address);
    let line = world.line(0).await;
    let is = |what: &str, found: Value, expected: Value| match same(&found, &expected) {
        true => Ok(()),
        false => Err(format!("{}: {what} {found}, expected {expected}", case.name)),
    };
    let inventory = match (line.inventory().await, case.expected.get("fails")) {
        (Ok((_, inventory)), None) => inventory,
        (Err(error), Some(fails)) => {
            let kind = format!("{:?}", error.kind);
            return is("fails", json!(kind.split(' ').next()), fails["executor"].clone());
        }
        (found, expected) => return Err(format!("{}: {found:?}, expected {expected:?}", case.name)),
    };
    let [fields, problems] = [&case.expected["fru"][0], &case.expected["fru"][1]];
    let first = |names: &[&str]| {
        let mut fields = names.iter().filter_map(|name| {
            fields.as_array()?.iter().find(|field| field[0] == *name).map(|field| field[1].clone())
        });
        fields.next().unwrap_or_default()
    };
    is("vendor", json!(inventory.vendor), first(&["product manufacturer", "board manufacturer"]))?;
    is("model", json!(inventory.model), first(&["product name", "board name"]))?;
    let serials = ["product serial", "chassis serial", "board serial"];
    is("serial", json!(inventory.service_tag), first(&serials))?;
    is("power", json!(inventory.power), case.expected["inspect"][2].clone())?;
    let named = |what: &str| json!(inventory.unreadable.contains_key(what));
    is("FRU is named", named("fru"), json!(problems != &json!([])))?;
    is("sensors are named", named("sensors"), json!(case.expected.contains_key("sensors_says")))?;
    let (_, sensors) = line.sensors().await.map_err(|error| format!("{}: {error}", case.name))?;
    let sensors = sensors.readings.iter().map(|sensor| json!([sensor.name, sensor.value])).collect();
    is("sensors", sensors, case.expected["sensors"].clone())
}
