//! Get Sensor Reading (section 35.14): a number, states, or the reason why there are none.

use super::record::{Sensor, SensorKind};
use super::states::States;
use super::threshold::Status;
use crate::wire::bytes::Reader;
use crate::{Command, Malformed, NetFn, Request};

/// Get Sensor Reading.
#[derive(Clone, Copy, Debug)]
pub struct GetSensorReading {
    pub number: u8,
    pub lun: u8,
}

/// The answer as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RawReading {
    pub raw: u8,
    pub events_enabled: bool,
    pub scanning_enabled: bool,
    /// The reading or state is not (yet) available.
    pub unavailable: bool,
    /// Passed thresholds (bits 5:0) or asserted states (bits 14:0); `None` if the BMC sent none.
    pub states: Option<u16>,
}

impl Command for GetSensorReading {
    type Answer = RawReading;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::SENSOR, code: 0x2d, lun: self.lun, data: vec![self.number] }
    }

    fn parse(&self, data: &[u8]) -> Result<RawReading, Malformed> {
        let mut reader = Reader::new("sensor reading", data);
        let (raw, flags) = (reader.u8()?, reader.u8()?);
        let states = match *reader.rest() {
            [] => None,
            [low] => Some(u16::from(low)),
            // Bit 15 is reserved and reads as one.
            [low, high, ..] => Some(u16::from_le_bytes([low, high & 0x7f])),
        };
        Ok(RawReading {
            raw,
            events_enabled: flags & 0x80 != 0,
            scanning_enabled: flags & 0x40 != 0,
            unavailable: flags & 0x20 != 0,
            states,
        })
    }
}

/// What a sensor showed.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Value {
    /// A threshold sensor's number, in the units of its sensor.
    Number {
        raw: u8,
        value: f64,
        status: Status,
    },
    /// A discrete sensor's states; some vendors give such a sensor a number as well.
    States {
        states: States,
        number: Option<f64>,
    },
    Unavailable(Unavailable),
}

/// Why a sensor shows nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unavailable {
    #[error("no reading")]
    NoReading,
    /// A discrete sensor's answer ends before its states.
    #[error("the BMC sent no states")]
    NoStates,
    #[error("scanning disabled")]
    ScanningDisabled,
    #[error("event only")]
    EventOnly,
    #[error("not present")]
    NotPresent,
    /// The sensor of another controller or of system software, which a session with the BMC does not reach.
    #[error("behind controller {0:#04x}")]
    OtherController(u8),
    /// A threshold sensor of which no record says how its byte is a number.
    #[error("no conversion")]
    NoConversion,
    /// Its function has no finite value for this reading.
    #[error("not a finite number")]
    NotFinite,
}

impl RawReading {
    /// What the bytes say for this sensor. `factors` are the sensor's, or those of the reading if it is non-linear.
    pub(super) fn value(&self, sensor: &Sensor, factors: Option<&super::Factors>) -> Value {
        if self.unavailable {
            return Value::Unavailable(Unavailable::NoReading);
        }
        if !self.scanning_enabled {
            return Value::Unavailable(Unavailable::ScanningDisabled);
        }
        let number = factors.map(|factors| factors.convert(self.raw));
        if sensor.event_type.is_threshold() {
            let told = self.states.map(|states| Status { passed: states.to_le_bytes()[0] & 0x3f });
            return match number {
                Some(Some(value)) => {
                    let compared =
                        factors.map(|factors| Status::of(self.raw, factors.format, &sensor.raw_thresholds));
                    let status = told.or(compared).unwrap_or_default();
                    Value::Number { raw: self.raw, value, status }
                }
                Some(None) => Value::Unavailable(Unavailable::NotFinite),
                None => Value::Unavailable(Unavailable::NoConversion),
            };
        }
        let Some(bits) = self.states else { return Value::Unavailable(Unavailable::NoStates) };
        let states =
            States { bits: bits & 0x7fff, sensor_type: sensor.sensor_type, event_type: sensor.event_type };
        let has_number = sensor.kind == SensorKind::Full && !sensor.units.is_unspecified();
        Value::States { states, number: number.flatten().filter(|_| has_number) }
    }
}
