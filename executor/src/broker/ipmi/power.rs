//! Power over IPMI: Chassis Control, Get Chassis Status (sections 28.2 and 28.3), and what the event log says.

use std::time::Duration;

use futures::future::BoxFuture;
use rackhand_ipmi::{
    Carrier, CompletionCode, Error,
    commands::{
        chassis::{ChassisControl, GetChassisStatus},
        sel::{
            Content, Entry,
            commands::{GetSelEntry, GetSelInfo},
        },
        sensor::SensorType,
    },
};
use rackhand_schema::{job::PowerAction, server::PowerState};

use super::{IpmiBmc, link::Session};
use crate::bmc::{BmcError, BmcErrorKind, EventLog, Power, PowerTrace};

/// The Chassis Control of an action; there is none that asks an operating system to restart.
fn control(action: PowerAction) -> Option<ChassisControl> {
    Some(match action {
        PowerAction::On => ChassisControl::PowerUp,
        PowerAction::ForceOff => ChassisControl::PowerDown,
        PowerAction::GracefulShutdown => ChassisControl::SoftShutdown,
        PowerAction::ForceRestart => ChassisControl::HardReset,
        PowerAction::PowerCycle => ChassisControl::PowerCycle,
        PowerAction::GracefulRestart => return None,
    })
}

impl Power for IpmiBmc {
    fn state(&self) -> BoxFuture<'_, Result<PowerState, BmcError>> {
        Box::pin(async move {
            let status = self.ask(GetChassisStatus).await?;
            Ok(if status.power_on { PowerState::On } else { PowerState::Off })
        })
    }

    fn supports(&self, action: PowerAction) -> BoxFuture<'_, Result<bool, BmcError>> {
        Box::pin(std::future::ready(Ok(control(action).is_some())))
    }

    fn switch(&self, action: PowerAction, _limit: Duration) -> BoxFuture<'_, Result<(), BmcError>> {
        Box::pin(async move {
            let Some(control) = control(action) else {
                return Err(BmcError::new(BmcErrorKind::Unsupported, "IPMI has no request for this action"));
            };
            let session = self.proved().await?;
            self.change(&session, &control).await
        })
    }
}

/// Sensor types that record changes of the host's power (table 42-3): Power Unit, System Boot Initiated, System ACPI
/// Power State.
const POWER_RECORDS: [SensorType; 3] = [SensorType(0x09), SensorType(0x1d), SensorType(0x22)];

/// Longest stretch of log that is read for one look.
const RECORDS: usize = 512;

fn tells_power(entry: &Entry) -> bool {
    matches!(entry.content(), Content::Event { event, .. } if POWER_RECORDS.contains(&event.sensor_type))
}

/// An entry as a mark: its time and id, so that an id used again after a clear is not taken for it.
fn mark_of(entry: &Entry) -> u64 {
    let time = match entry.content() {
        Content::Event { time, .. } | Content::OemTimed { time, .. } => time.0,
        Content::Oem { .. } | Content::Other { .. } => 0,
    };
    u64::from(time) << 16 | u64::from(entry.id())
}

async fn newest(session: Session) -> Result<Option<u64>, Error> {
    if session.run(&GetSelInfo).await?.entries == 0 {
        return Ok(None);
    }
    Ok(Some(mark_of(&session.run(&GetSelEntry { id: GetSelEntry::LAST }).await?.entry?)))
}

/// Silence proves nothing: many BMCs write no record of what they were asked to do.
async fn trace(session: Session, mark: u64) -> Result<PowerTrace, Error> {
    let id = u16::try_from(mark & 0xffff).unwrap_or_default();
    let mut at = match session.run(&GetSelEntry { id }).await {
        Ok(found) if found.entry.as_ref().is_ok_and(|entry| mark_of(entry) == mark) => found.next,
        Ok(_) | Err(Error::Refused { .. }) => return Ok(PowerTrace::Untold),
        Err(error) => return Err(error),
    };
    for _ in 0..RECORDS {
        if at == GetSelEntry::END {
            break;
        }
        let found = match session.run(&GetSelEntry { id: at }).await {
            Ok(found) => found,
            Err(Error::Refused { completion: CompletionCode::NOT_PRESENT, .. }) => break,
            Err(error) => return Err(error),
        };
        if found.entry.as_ref().is_ok_and(tells_power) {
            return Ok(PowerTrace::Seen);
        }
        at = found.next;
    }
    Ok(PowerTrace::Untold)
}

impl EventLog for IpmiBmc {
    fn mark(&self) -> BoxFuture<'_, Result<Option<u64>, BmcError>> {
        Box::pin(self.read(|session| Box::pin(newest(session))))
    }

    fn power_since(&self, mark: u64) -> BoxFuture<'_, Result<PowerTrace, BmcError>> {
        Box::pin(self.read(move |session| Box::pin(trace(session, mark))))
    }
}
