//! Event log, inventory and users: equal to what was configured and to what the reference clients print.

use rackhand_ipmi::{
    Carrier,
    commands::{
        fru::{self, Inventory},
        sdr::SdrCache,
        sel::{self, Content, Entry, Text},
        user::{self, User},
    },
};
use rackhand_ipmi_tests::{
    Bmc, Hardware,
    fru::CHASSIS_TYPE,
    hardware::{ADMINISTRATOR, Privilege},
    reference::{FreeIpmi, Ipmitool},
};

use crate::ours::{config, connect};

/// The LAN channel of `ipmi_sim`.
const CHANNEL: u8 = 1;
/// Seconds from 1970-01-01 to 1996-01-01, where the minutes of a FRU board begin.
const FRU_EPOCH: u32 = 820_454_400;

/// What one BMC's records say to our client.
pub struct Records {
    entries: Vec<Entry>,
    inventory: Inventory,
    users: Vec<User>,
}

fn whole(log: sel::Log) -> Vec<Entry> {
    assert_eq!(log.cut_short, None);
    log.entries
}

impl Records {
    pub async fn from(carrier: &impl Carrier) -> Self {
        Self {
            entries: whole(sel::read(carrier).await.unwrap()),
            inventory: fru::read(carrier, 0).await.unwrap(),
            users: user::list(carrier, CHANNEL).await.unwrap().users,
        }
    }

    pub fn are_what_was_configured(&self, hardware: &Hardware) {
        let found: Vec<_> = self.entries.iter().map(|entry| (entry.id(), entry.raw)).collect();
        let given: Vec<_> = hardware.events.iter().map(|event| (event.id, event.record)).collect();
        assert_eq!(found, given, "BMC {}", hardware.index);
        for (entry, event) in self.entries.iter().zip(&hardware.events) {
            assert_eq!(time(entry), event.time());
        }
        self.inventory_is_what_was_configured(hardware);
        let named = self.users.iter().filter(|user| !user.name.is_empty());
        let found: Vec<_> = named.map(|user| (user.id, user.name.as_str(), user.access.privilege)).collect();
        let given = hardware.users.iter().map(|user| (user.number, user.name, Some(ours(user.privilege))));
        assert_eq!(found, given.collect::<Vec<_>>());
    }

    fn inventory_is_what_was_configured(&self, hardware: &Hardware) {
        let (found, given) = (&self.inventory, &hardware.fru);
        assert!(found.problems.is_empty() && found.records.is_empty(), "{found:?}");
        let chassis = found.chassis.as_ref().unwrap();
        assert_eq!(
            (chassis.chassis_type, &chassis.part_number, &chassis.serial),
            (CHASSIS_TYPE, &given.chassis_part, &given.chassis_serial)
        );
        let board = found.board.as_ref().unwrap();
        assert_eq!(board.manufactured, Some(FRU_EPOCH + 60 * given.board_minutes));
        assert_eq!(
            [&board.manufacturer, &board.name, &board.serial, &board.part_number],
            [&given.board_manufacturer, &given.board_product, &given.board_serial, &given.board_part]
        );
        let product = found.product.as_ref().unwrap();
        assert_eq!(
            [
                &product.manufacturer,
                &product.name,
                &product.part_number,
                &product.version,
                &product.serial,
                &product.asset_tag
            ],
            [
                &given.product_manufacturer,
                &given.product_name,
                &given.product_part,
                &given.product_version,
                &given.product_serial,
                &given.product_asset
            ]
        );
    }

    /// The same fields, by the names that ipmitool prints.
    pub fn are_what_ipmitool_prints(&self, ipmitool: &Ipmitool) {
        let printed = ipmitool.sel();
        assert_eq!(printed.len(), self.entries.len());
        for (entry, printed) in self.entries.iter().zip(&printed) {
            let field = |name: &str| {
                printed.iter().find(|(field, _)| field == name).map_or("", |(_, value)| value.as_str())
            };
            assert_eq!(field("SEL Record ID"), format!("{:04x}", entry.id()));
            let Content::Event { event, .. } = entry.content() else {
                assert!(field("Record Type").starts_with(&format!("{:02x}", entry.record_type())));
                continue;
            };
            let direction = if event.deasserted { "Deassertion Event" } else { "Assertion Event" };
            assert_eq!(field("Event Direction"), direction);
            assert_eq!(field("Sensor Type"), event.sensor_type.to_string());
            assert_eq!(field("Sensor Number"), format!("{:02x}", event.number));
            let [a, b, c] = event.data;
            assert_eq!(field("Event Data"), format!("{a:02x}{b:02x}{c:02x}"));
            let said = Text { entry, cache: None }.to_string().to_lowercase();
            let description = field("Description").to_lowercase();
            // The same event in other words than the specification's.
            let other = [("timestamp clock sync", "clock synchronised")];
            let same = |(theirs, ours): &(&str, &str)| description == *theirs && said.contains(ours);
            let same = said.contains(&description) || other.iter().any(same);
            assert!(same, "ipmitool: {description}, ours: {said}");
        }
        let printed = ipmitool.fru();
        for (name, value) in self.inventory_fields() {
            assert!(printed.contains(&(name.to_owned(), value.clone())), "{name} {value}: {printed:?}");
        }
        let users = self.users.iter().filter(|user| !user.name.is_empty());
        let users = users.map(|user| {
            let privilege = user.access.privilege.map(|level| level.to_string().to_uppercase());
            (user.id, user.name.clone(), privilege.unwrap_or_default())
        });
        assert_eq!(users.collect::<Vec<_>>(), ipmitool.users());
    }

    pub fn are_what_freeipmi_prints(&self, freeipmi: &FreeIpmi, cache: &SdrCache) {
        let printed = freeipmi.sel();
        assert_eq!(printed.len(), self.entries.len());
        for (entry, row) in self.entries.iter().zip(&printed) {
            let [id, date, clock, name, _, direction, event_text] = &row[..] else { panic!("{row:?}") };
            assert_eq!(*id, entry.id().to_string());
            let Content::Event { time, event } = entry.content() else { continue };
            // `Jan-02-2026`, `03:04:05`; ours `2026-01-02 03:04:05`.
            let time = time.to_string();
            assert_eq!((&time[..4], &time[8..10], &time[11..]), (&date[7..], &date[4..6], clock.as_str()));
            let deasserted = direction == "Deassertion Event";
            assert_eq!(event.deasserted, deasserted, "{row:?}");
            let said = Text { entry, cache: Some(cache) }.to_string();
            if cache.sensor(event.generator, event.lun, event.number).is_some() {
                assert!(said.starts_with(name.as_str()), "{said}, {row:?}");
            }
            // `… ; Sensor Reading = 90.00 C ; Threshold = 85.00 C`
            for number in event_text.split(" = ").skip(1).filter_map(|text| text.split(' ').next()) {
                let Ok(number) = number.parse::<f64>() else { continue };
                assert!(said.contains(&number.to_string()), "{said}, {row:?}");
            }
        }
        let printed = freeipmi.fru();
        for (name, value) in self.inventory_fields() {
            assert!(printed.iter().any(|(_, printed)| *printed == value), "{name} {value}: {printed:?}");
        }
    }

    fn inventory_fields(&self) -> Vec<(&'static str, String)> {
        let Inventory { chassis, board, product, .. } = &self.inventory;
        let (chassis, board, product) =
            (chassis.as_ref().unwrap(), board.as_ref().unwrap(), product.as_ref().unwrap());
        let fields = [
            ("Chassis Part Number", &chassis.part_number),
            ("Chassis Serial", &chassis.serial),
            ("Board Mfg", &board.manufacturer),
            ("Board Product", &board.name),
            ("Board Serial", &board.serial),
            ("Board Part Number", &board.part_number),
            ("Product Manufacturer", &product.manufacturer),
            ("Product Name", &product.name),
            ("Product Part Number", &product.part_number),
            ("Product Version", &product.version),
            ("Product Serial", &product.serial),
            ("Product Asset Tag", &product.asset_tag),
        ];
        fields.into_iter().map(|(name, value)| (name, value.clone())).collect()
    }
}

fn time(entry: &Entry) -> Option<u32> {
    match entry.content() {
        Content::Event { time, .. } | Content::OemTimed { time, .. } => Some(time.0),
        Content::Oem { .. } | Content::Other { .. } => None,
    }
}

fn ours(privilege: Privilege) -> rackhand_ipmi::session::Privilege {
    match privilege {
        Privilege::User => rackhand_ipmi::session::Privilege::User,
        Privilege::Operator => rackhand_ipmi::session::Privilege::Operator,
        Privilege::Administrator => rackhand_ipmi::session::Privilege::Administrator,
    }
}

/// By reservation: what the reference client then sees is an empty log.
#[tokio::test]
async fn a_cleared_log_is_empty_for_everybody() {
    let bmc = Bmc::start(Hardware::numbered(4)).await;
    let client = connect(bmc.address(), config(ADMINISTRATOR, &bmc.hardware.password)).await.unwrap();
    let ipmitool = Ipmitool::new(bmc.address(), ADMINISTRATOR, &bmc.hardware.password);
    assert_eq!(ipmitool.sel().len(), bmc.hardware.events.len());
    sel::clear(&client).await.unwrap();
    assert!(whole(sel::read(&client).await.unwrap()).is_empty());
    client.close().await;
    assert!(ipmitool.sel().is_empty());
}
