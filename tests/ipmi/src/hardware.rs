//! What a simulated BMC has: sensors, event log, inventory and users, and how `ipmi_sim` and `sdrcomp` are
//! told.
//!
//! [`Hardware::numbered`] gives each BMC other values; nothing about them comes from the client under test,
//! so that what is written here is what its answers are compared with.

mod records;
mod sensors;

use std::fmt::Write as _;

use crate::fru::Fru;

pub use records::{Event, events, stored};
pub use sensors::{Analog, Discrete, Format, Kind, Sensor, catalogue, fans};

/// Privileges as `lan.conf` names them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Privilege {
    User = 2,
    Operator = 3,
    Administrator = 4,
}

impl Privilege {
    fn in_lan_conf(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Operator => "operator",
            Self::Administrator => "admin",
        }
    }
}

#[derive(Clone, Debug)]
pub struct User {
    pub number: u8,
    pub name: &'static str,
    pub privilege: Privilege,
    pub enabled: bool,
}

#[derive(Clone, Debug)]
pub struct Hardware {
    pub index: usize,
    pub sensors: Vec<Sensor>,
    pub events: Vec<Event>,
    pub fru: Fru,
    pub users: Vec<User>,
    pub on: bool,
    /// As `ipmi_sim` names it: `none`, `pxe`, `default`, `cdrom` or `bios`.
    pub boot: &'static str,
    pub password: String,
}

pub const ADMINISTRATOR: &str = "admin";
pub const OPERATOR: &str = "operator";
pub const READER: &str = "reader";

const BOOT: [&str; 5] = ["none", "pxe", "default", "cdrom", "bios"];

impl Hardware {
    pub fn numbered(index: usize) -> Self {
        let user = |number, name, privilege| User { number, name, privilege, enabled: true };
        Self {
            index,
            sensors: catalogue(index),
            events: events(index),
            fru: fru(index),
            users: vec![
                user(2, OPERATOR, Privilege::Operator),
                user(3, ADMINISTRATOR, Privilege::Administrator),
                user(4, READER, Privilege::User),
                User { enabled: false, ..user(5, "retired", Privilege::Administrator) },
            ],
            on: index.is_multiple_of(2),
            boot: BOOT[index % BOOT.len()],
            password: format!("Kq7-planted-{index:03}"),
        }
    }

    /// With fans added until there are so many sensors.
    pub fn with_sensors(mut self, count: usize) -> Self {
        self.sensors.truncate(count);
        let more = count - self.sensors.len();
        let first = self.sensors.last().map_or(1, |sensor| sensor.number + 1);
        self.sensors.extend(fans(self.index, first, more));
        self
    }

    /// The source of the SDR repository, for `sdrcomp`.
    pub fn sdr_source(&self) -> String {
        let mut source: String = self.sensors.iter().map(Sensor::sdr).collect();
        source.push_str(concat!(
            "sdr type 17\n device_access_address 0x20\n fru_device_address 0\n logical_fru true\n lun 0\n",
            " private_bus_id 0\n channel_number 0\n device_type 0x10\n device_type_modifier 0\n",
            " fru_entity_id 7\n fru_entity_instance 1\n id_string \"System Board\"\nendsdr\n",
            "sdr type 18\n device_slave_address 0x20\n device_channel_number 0\n fru_inventory true\n sel true\n",
            " sdr true\n sensor true\n entity_id 46\n entity_instance 1\n id_string \"LABBMC\"\nendsdr\n",
        ));
        source
    }

    /// The commands that build the BMC in `ipmi_sim`; `directory` holds the files that it polls.
    pub fn commands(&self, directory: &std::path::Path) -> String {
        let at = directory.display();
        let size = self.fru.encoded().len();
        let mut commands = String::from("mc_setbmc 0x20\n");
        // Device 0, revision 3, firmware 9.08, all but the bridge and the event generator, OpenIPMI's own
        // numbers.
        commands.push_str("mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n");
        commands.push_str("sel_enable 0x20 1000 0x0a\n");
        let _ = writeln!(commands, "mc_add_fru_data 0x20 0 {size} file 0 \"{at}/fru\"");
        for sensor in &self.sensors {
            sensor.write_commands(&mut commands, &directory.join(format!("sensor-{}", sensor.number)));
        }
        commands.push_str("mc_enable 0x20\n");
        commands
    }

    /// `lan.conf`: where it listens, who may sign in, its console and its chassis.
    pub fn lan_conf(&self, name: &str, port: u16, console: Option<u16>, chassis: &std::path::Path) -> String {
        let mut text = format!(
            "name \"{name}\"\nset_working_mc 0x20\n startlan 1\n  addr 127.0.0.1 {port}\n  priv_limit admin\n  \
             allowed_auths_callback none md2 md5 straight\n  allowed_auths_user none md2 md5 straight\n  \
             allowed_auths_operator none md2 md5 straight\n  allowed_auths_admin none md2 md5 straight\n  \
             guid {:032x}\n endlan\n chassis_control \"{}\"\n user 1 false \"\" \"\" user 10 none md2 md5 straight\n",
            self.guid(),
            chassis.display(),
        );
        for user in &self.users {
            let _ = writeln!(
                text,
                " user {} {} \"{}\" \"{}\" {} 10 none md2 md5 straight",
                user.number,
                user.enabled,
                user.name,
                self.password,
                user.privilege.in_lan_conf()
            );
        }
        if let Some(console) = console {
            let _ = writeln!(text, " sol \"tcp:127.0.0.1:{console}\" 115200");
        }
        text
    }

    fn guid(&self) -> u128 {
        0xa123_4567_89ab_cdef_0000_0000_0000_0000 + self.index as u128
    }
}

fn fru(index: usize) -> Fru {
    Fru {
        chassis_part: format!("CH-{:04}", 9_000 + index),
        chassis_serial: format!("CS{index:06}"),
        board_minutes: 15_000_000 + 61 * u32::try_from(index).unwrap(),
        board_manufacturer: "Nobody Here".to_owned(),
        board_product: format!("Board rev {}", index % 7),
        board_serial: format!("BS{index:08}"),
        board_part: "BP-77/b".to_owned(),
        product_manufacturer: "Somebody Else".to_owned(),
        product_name: format!("Server model {}", index % 3),
        product_part: "PP-0001".to_owned(),
        product_version: format!("v{}.{}", index / 10, index % 10),
        product_serial: format!("SN-{index:05}"),
        product_asset: format!("rack {} unit {}", index / 40, 1 + index % 40),
    }
}
