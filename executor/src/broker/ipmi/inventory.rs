//! Who a server is, as far as IPMI tells: its FRU inventory, its power, and how its sensors are. Firmware other than
//! the BMC's own is not listed by IPMI and is named as not readable.

use std::collections::BTreeMap;

use rackhand_ipmi::commands::{
    chassis::{ChassisStatus, GetChassisStatus},
    device::GetDeviceId,
    fru::{self, Inventory as Fru},
};
use rackhand_schema::server::{Health, Inventory, PowerState};

use super::IpmiBmc;
use crate::bmc::{BmcError, BmcErrorKind, SensorReading, Sensors as _};

/// The first of these that says anything.
fn first<'a>(texts: impl IntoIterator<Item = Option<&'a String>>) -> Option<String> {
    let mut texts = texts.into_iter().flatten().map(|text| text.trim());
    texts.find(|text| !text.is_empty()).map(str::to_owned)
}

struct Names {
    vendor: Option<String>,
    model: Option<String>,
    serial: Option<String>,
}

/// The product is what was bought; a board's numbers stand in where it has none.
fn names(fru: &Fru) -> Names {
    let (product, board, chassis) = (fru.product.as_ref(), fru.board.as_ref(), fru.chassis.as_ref());
    Names {
        vendor: first([product.map(|part| &part.manufacturer), board.map(|part| &part.manufacturer)]),
        model: first([product.map(|part| &part.name), board.map(|part| &part.name)]),
        serial: first([
            product.map(|part| &part.serial),
            chassis.map(|part| &part.serial),
            board.map(|part| &part.serial),
        ]),
    }
}

fn chassis_health(status: &ChassisStatus) -> Health {
    if status.power_fault || status.control_fault || status.drive_fault || status.cooling_fault {
        Health::Critical
    } else if status.overload || status.interlock {
        Health::Warning
    } else {
        Health::Ok
    }
}

fn worst(health: Health, readings: &[SensorReading]) -> Health {
    let rank = |health: Health| match health {
        Health::Unknown => 0,
        Health::Ok => 1,
        Health::Warning => 2,
        Health::Critical => 3,
    };
    readings.iter().map(|reading| reading.health).fold(health, |a, b| if rank(b) > rank(a) { b } else { a })
}

/// Whether an error is about the way to the BMC: then nothing was read.
fn says_nothing(error: &BmcError) -> bool {
    !matches!(
        error.kind,
        BmcErrorKind::Unsupported
            | BmcErrorKind::Refused
            | BmcErrorKind::NotReady { .. }
            | BmcErrorKind::NotFound
    )
}

impl IpmiBmc {
    pub(super) async fn read_inventory(&self) -> Result<Inventory, BmcError> {
        let device = self.ask(GetDeviceId).await?;
        let status = self.ask(GetChassisStatus).await?;
        let mut unreadable = BTreeMap::new();
        unreadable.insert("firmware".to_owned(), "IPMI does not list firmware".to_owned());
        let mut keep = |what: &str, error: BmcError| match says_nothing(&error) {
            true => Err(error),
            false => {
                unreadable.insert(what.to_owned(), error.detail);
                Ok(())
            }
        };
        let mut known = Names { vendor: None, model: None, serial: None };
        match self.read(|session| Box::pin(async move { fru::read(&session, 0).await })).await {
            Ok(fru) => known = names(&fru),
            Err(error) => keep("fru", error)?,
        }
        let mut health = chassis_health(&status);
        match self.sensors().await {
            Ok(readings) => health = worst(health, &readings),
            Err(error) => keep("sensors", error)?,
        }
        let capabilities = ["power", "boot_override", "sensors", "event_log"].map(str::to_owned).to_vec();
        Ok(Inventory {
            vendor: known.vendor,
            model: known.model,
            service_tag: known.serial,
            generation: None,
            bmc_version: Some(format!("{}.{:02}", device.firmware_major, device.firmware_minor)),
            power: if status.power_on { PowerState::On } else { PowerState::Off },
            health,
            components: Vec::new(),
            capabilities,
            unreadable,
        })
    }
}
