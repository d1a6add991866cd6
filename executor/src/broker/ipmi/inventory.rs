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
use crate::bmc::{BmcError, BmcErrorKind, SensorReading, Sensors as _, Shown};

/// How many things that are wrong with one part are told.
const MOST_PROBLEMS: usize = 8;

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

/// One line for all that is wrong with a part; none if nothing is.
fn fault(what: &str, problems: impl Iterator<Item = String>) -> Option<(String, String)> {
    let problems: Vec<String> = problems.take(MOST_PROBLEMS).collect();
    (!problems.is_empty()).then(|| (what.to_owned(), problems.join("; ")))
}

impl IpmiBmc {
    async fn fru(&self) -> Result<Fru, BmcError> {
        self.read(|session| Box::pin(async move { fru::read(&session, 0).await })).await
    }

    pub(super) async fn read_machine(&self) -> Result<Shown, BmcError> {
        let fru = self.fru().await?;
        let board = fru.board.as_ref().map(|part| part.serial.trim().to_owned());
        let chassis = fru.chassis.as_ref().map(|part| part.serial.trim().to_owned());
        Ok(Shown {
            tag: first([fru.product.as_ref().map(|part| &part.serial)]),
            serials: chassis.into_iter().chain(board).collect(),
            // The byte order of Get System GUID differs from maker to maker: it proves nothing.
            uuid: None,
        })
    }

    pub(super) async fn read_inventory(&self) -> Result<Inventory, BmcError> {
        let device = self.ask(GetDeviceId).await?;
        let status = self.ask(GetChassisStatus).await?;
        let mut unreadable = BTreeMap::new();
        // What was read all the same, and what is wrong with it.
        let mut faults = Vec::new();
        unreadable.insert("firmware".to_owned(), "IPMI does not list firmware".to_owned());
        let mut keep = |what: &str, error: BmcError| match says_nothing(&error) {
            true => Err(error),
            false => {
                unreadable.insert(what.to_owned(), error.detail);
                Ok(())
            }
        };
        let mut known = Names { vendor: None, model: None, serial: None };
        match self.fru().await {
            Ok(fru) => {
                known = names(&fru);
                faults.extend(fault("fru", fru.problems.iter().map(ToString::to_string)));
            }
            Err(error) => keep("fru", error)?,
        }
        let mut health = chassis_health(&status);
        match self.sensors().await {
            Ok(report) => {
                health = worst(health, &report.readings);
                faults.extend(fault("sensors", self.record_faults().await.into_iter()));
            }
            Err(error) => keep("sensors", error)?,
        }
        unreadable.extend(faults);
        let capabilities = ["power", "boot_override", "sensors", "event_log"].map(str::to_owned).to_vec();
        Ok(Inventory {
            vendor: known.vendor,
            model: known.model,
            service_tag: known.serial,
            uuid: None,
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
