//! `rackhand bmc fru` and `rackhand bmc users`: what the BMC says of its hardware and its accounts.

use clap::Args;
use rackhand_ipmi::commands::{
    device::THIS_CHANNEL,
    fru::{self, Inventory},
    user,
};
use serde::Serialize;

use super::{
    ipmi::{Access, Bmc},
    sensors::records,
};
use crate::{
    error::Result,
    output::{Column, Output, json, printable, say, write_stdout},
};

#[derive(Debug, Args)]
pub struct Fru {
    #[command(flatten)]
    access: Access,
}

/// One device in the JSON of `bmc fru --json`.
#[derive(Debug, Serialize)]
struct Device {
    id: u8,
    name: String,
    /// In the order of the inventory; empty fields are omitted.
    fields: Vec<Field>,
    problems: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Field {
    name: &'static str,
    value: String,
}

pub async fn run(args: Fru, out: Output) -> Result<()> {
    let devices = args.access.session(async |bmc: &Bmc| read(bmc).await).await?;
    match out.format {
        crate::output::Format::Json => write_stdout(&json(&devices)?),
        _ => write_stdout(&devices.iter().map(render).collect::<String>()),
    }
}

async fn read(bmc: &Bmc) -> Result<Vec<Device>> {
    let known = match records(bmc).await {
        Ok(cache) => fru::devices(&cache),
        Err(failure) => {
            say(format!("only the BMC's own inventory can be found: {failure}"));
            vec![fru::Device { id: 0, name: String::new() }]
        }
    };
    let mut devices = Vec::new();
    for device in known {
        let read = fru::read(&bmc.client, device.id).await;
        let (fields, problems) = match read {
            Ok(inventory) => {
                (fields(&inventory), inventory.problems.iter().map(ToString::to_string).collect())
            }
            Err(error) => (Vec::new(), vec![error.to_string()]),
        };
        devices.push(Device { id: device.id, name: device.name, fields, problems });
    }
    Ok(devices)
}

fn fields(inventory: &Inventory) -> Vec<Field> {
    let mut fields = Vec::new();
    let mut add = |name, value: &str| {
        if !value.is_empty() {
            fields.push(Field { name, value: value.to_owned() });
        }
    };
    if let Some(chassis) = &inventory.chassis {
        add("chassis type", fru::chassis_type_name(chassis.chassis_type));
        add("chassis part number", &chassis.part_number);
        add("chassis serial", &chassis.serial);
        chassis.custom.iter().for_each(|value| add("chassis extra", value));
    }
    if let Some(board) = &inventory.board {
        add("board manufacturer", &board.manufacturer);
        add("board name", &board.name);
        add("board serial", &board.serial);
        add("board part number", &board.part_number);
        board.custom.iter().for_each(|value| add("board extra", value));
    }
    if let Some(product) = &inventory.product {
        add("product manufacturer", &product.manufacturer);
        add("product name", &product.name);
        add("product part number", &product.part_number);
        add("product version", &product.version);
        add("product serial", &product.serial);
        add("asset tag", &product.asset_tag);
        product.custom.iter().for_each(|value| add("product extra", value));
    }
    fields
}

fn render(device: &Device) -> String {
    let name = if device.name.is_empty() { "BMC" } else { &device.name };
    let mut text = printable(&format!("{name} (device {})", device.id)) + "\n";
    for field in &device.fields {
        text.push_str(&printable(&format!("  {:22} {}", field.name, field.value)));
        text.push('\n');
    }
    for problem in &device.problems {
        text.push_str(&printable(&format!("  problem: {problem}")));
        text.push('\n');
    }
    text
}

#[derive(Debug, Args)]
pub struct Users {
    #[command(flatten)]
    access: Access,
}

#[derive(Debug, Serialize)]
struct UserRow {
    id: u8,
    name: String,
    enabled: Option<bool>,
    /// Highest privilege on the channel of this session.
    privilege: Option<String>,
    ipmi: bool,
}

const USERS: [Column<UserRow>; 5] = [
    Column::new("ID", |user| user.id.to_string()),
    Column::new("NAME", |user| if user.name.is_empty() { "(null)".to_owned() } else { user.name.clone() }),
    Column::new("ENABLED", |user| match user.enabled {
        Some(true) => "yes".to_owned(),
        Some(false) => "no".to_owned(),
        None => "-".to_owned(),
    }),
    Column::new("PRIVILEGE", |user| user.privilege.clone().unwrap_or_else(|| "none".to_owned())),
    Column::new("IPMI", |user| if user.ipmi { "yes" } else { "no" }.to_owned()),
];

pub async fn users(args: Users, out: Output) -> Result<()> {
    let found = args
        .access
        .session(async |bmc: &Bmc| {
            let found = user::list(&bmc.client, THIS_CHANNEL).await.map_err(|error| bmc.failed(&error))?;
            if !found.untold.is_empty() {
                let slots: Vec<String> = found.untold.iter().map(u8::to_string).collect();
                say(bmc.says(format!("the BMC tells nothing of the slots {}", slots.join(", "))));
            }
            Ok(found)
        })
        .await?;
    let rows: Vec<UserRow> = found
        .users
        .into_iter()
        // Free slots.
        .filter(|user| !user.name.is_empty() || user.access.privilege.is_some())
        .map(|user| UserRow {
            id: user.id,
            name: user.name,
            enabled: user.access.enabled,
            privilege: user.access.privilege.map(|privilege| privilege.to_string()),
            ipmi: user.access.ipmi_messaging,
        })
        .collect();
    out.list(&rows, &USERS, |user| user.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    #[test]
    fn inventories_and_users_read_well() {
        let device = Device {
            id: 0,
            name: String::new(),
            fields: vec![Field { name: "board serial", value: "CN7\x1b[31m".into() }],
            problems: vec!["the product area's checksum is wrong".into()],
        };
        let user = |id, name: &str, enabled, privilege: Option<&str>| UserRow {
            id,
            name: name.into(),
            enabled,
            privilege: privilege.map(Into::into),
            ipmi: true,
        };
        let users = [user(1, "", None, None), user(2, "root", Some(true), Some("administrator"))];
        let table =
            Output::plain(Format::Table).render_list(&users, &USERS, |user| user.name.clone()).unwrap();
        insta::assert_snapshot!(format!("{}\n{table}", render(&device)));
    }
}
