//! What the SDRs say about a sensor (sections 43.1 to 43.3).

use super::super::sdr::record::{entity, name, shared_name};
use super::factors::{AnalogFormat, Factors, Linearization};
use super::names::{Entity, SensorType};
use super::states::EventType;
use super::threshold::{Hysteresis, Thresholds};
use super::units::Units;
use crate::Malformed;
use crate::wire::bytes::Reader;

/// Which record a sensor is from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SensorKind {
    Full,
    Compact,
    /// It sends events and cannot be read.
    EventOnly,
}

/// A sensor, whichever record it is from.
#[derive(Clone, PartialEq, Debug)]
pub struct Sensor {
    pub record_id: u16,
    pub kind: SensorKind,
    /// 8-bit slave address of the controller, or with bit 0 set a system software id.
    pub owner: u8,
    pub channel: u8,
    pub lun: u8,
    pub number: u8,
    pub name: String,
    pub entity: Entity,
    pub sensor_type: SensorType,
    pub event_type: EventType,
    pub units: Units,
    /// `None` for a sensor without an analog reading.
    pub factors: Option<Factors>,
    /// Raw thresholds of the record: those that the sensor can be asked for, or has fixed.
    pub raw_thresholds: Thresholds<u8>,
    /// The same as numbers; replaced when the BMC is asked what is in force.
    pub thresholds: Thresholds<f64>,
    pub hysteresis: Option<Hysteresis>,
    /// Ignore the sensor if its entity is absent (sensor capabilities, bit 7).
    pub ignore_if_absent: bool,
}

/// The slave address of a BMC.
pub(crate) const BMC: u8 = 0x20;

/// The fields that full and compact records begin with.
struct Common {
    owner: u8,
    channel: u8,
    lun: u8,
    number: u8,
    entity: Entity,
    capabilities: u8,
    sensor_type: SensorType,
    event_type: EventType,
    /// For threshold sensors: the thresholds that can be read.
    readable: u8,
    units_1: u8,
    units: Units,
}

impl Sensor {
    /// Whether the BMC itself answers for it, rather than a controller behind it or software of the host.
    pub const fn is_behind_bmc(&self) -> bool {
        self.owner == BMC && self.channel == 0
    }

    /// A full sensor record (section 43.1) without its header.
    pub(crate) fn full(record_id: u16, bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("full sensor record", bytes);
        let common = Common::read(&mut reader)?;
        let linearization = Linearization::of(reader.u8()?);
        let factor_bytes = reader.array()?;
        // Analog flags, nominal reading, normal maximum and minimum, sensor maximum and minimum.
        let _characteristics = reader.array::<6>()?;
        let [unr, uc, unc, lnr, lc, lnc] = reader.array()?;
        let hysteresis = Hysteresis { positive: reader.u8()?, negative: reader.u8()? };
        let _reserved_and_oem = reader.array::<3>()?;
        let name = name(&mut reader)?;
        let factors =
            AnalogFormat::of(common.units_1).map(|format| Factors::of(format, linearization, factor_bytes));
        let is_threshold = common.event_type.is_threshold();
        // Capabilities bits 3:2: no thresholds, readable, settable, fixed; 5:4: the same for hysteresis.
        let mask = if common.capabilities & 0x0c != 0 && is_threshold { common.readable } else { 0 };
        let raw_thresholds = Thresholds::of(mask, [lnc, lc, lnr, unc, uc, unr]);
        let thresholds = match &factors {
            // The factors of a non-linear sensor are asked for each raw value.
            Some(factors) if factors.linearization != Linearization::NonLinear => {
                raw_thresholds.convert(|raw| factors.convert(raw))
            }
            _ => Thresholds::default(),
        };
        let hysteresis = (common.capabilities & 0x30 != 0 && is_threshold).then_some(hysteresis);
        Ok(Self {
            factors,
            raw_thresholds,
            thresholds,
            hysteresis,
            ..common.sensor(record_id, SensorKind::Full, name)
        })
    }

    /// A compact sensor record (section 43.2) without its header: as many sensors as share it.
    pub(crate) fn compact(record_id: u16, bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut reader = Reader::new("compact sensor record", bytes);
        let common = Common::read(&mut reader)?;
        let sharing = reader.array()?;
        let _hysteresis_reserved_and_oem = reader.array::<6>()?;
        let name = shared_name(&mut reader)?;
        let sharing = Sharing::of(sharing, &name);
        Ok(sharing.expand(&common.sensor(record_id, SensorKind::Compact, name)))
    }

    /// An event-only record (section 43.3) without its header.
    pub(crate) fn event_only(record_id: u16, bytes: &[u8]) -> Result<Vec<Self>, Malformed> {
        let mut reader = Reader::new("event-only record", bytes);
        let (owner, channel_lun, number) = (reader.u8()?, reader.u8()?, reader.u8()?);
        let entity = entity(&mut reader)?;
        let (sensor_type, event_type) = (SensorType(reader.u8()?), EventType(reader.u8()?));
        let sharing = reader.array()?;
        let _reserved_and_oem = reader.array::<2>()?;
        let name = shared_name(&mut reader)?;
        let sharing = Sharing::of(sharing, &name);
        let common = Common {
            owner,
            channel: channel_lun >> 4,
            lun: channel_lun & 0b11,
            number,
            entity,
            capabilities: 0,
            sensor_type,
            event_type,
            readable: 0,
            units_1: 0xc0,
            units: Units::default(),
        };
        Ok(sharing.expand(&common.sensor(record_id, SensorKind::EventOnly, name)))
    }
}

/// A record without a name gives its sensor's number, as event texts do: people have to call it something.
fn or_number(name: String, number: u8) -> String {
    if name.trim().is_empty() { format!("#{number:02x}h") } else { name }
}

impl Common {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (owner, channel_lun, number) = (reader.u8()?, reader.u8()?, reader.u8()?);
        let entity = entity(reader)?;
        let _initialization = reader.u8()?;
        let capabilities = reader.u8()?;
        let (sensor_type, event_type) = (SensorType(reader.u8()?), EventType(reader.u8()?));
        let _event_masks = reader.array::<4>()?;
        let [readable, _settable] = reader.array()?;
        let [units_1, base, modifier] = reader.array()?;
        Ok(Self {
            owner,
            channel: channel_lun >> 4,
            lun: channel_lun & 0b11,
            number,
            entity,
            capabilities,
            sensor_type,
            event_type,
            readable,
            units_1,
            units: Units::of(units_1, base, modifier),
        })
    }

    fn sensor(self, record_id: u16, kind: SensorKind, name: String) -> Sensor {
        Sensor {
            record_id,
            kind,
            owner: self.owner,
            channel: self.channel,
            lun: self.lun,
            number: self.number,
            name: or_number(name, self.number),
            entity: self.entity,
            sensor_type: self.sensor_type,
            event_type: self.event_type,
            units: self.units,
            factors: None,
            raw_thresholds: Thresholds::default(),
            thresholds: Thresholds::default(),
            hysteresis: None,
            ignore_if_absent: self.capabilities & 0x80 != 0,
        }
    }
}

/// How several sensors share one record (table 43-2, record sharing).
struct Sharing {
    /// The record has a name to share.
    named: bool,
    count: u8,
    letters: bool,
    offset: u8,
    instance_increments: bool,
}

impl Sharing {
    fn of([first, second]: [u8; 2], name: &str) -> Self {
        Self {
            named: !name.trim().is_empty(),
            count: first & 0x0f,
            letters: first >> 4 & 0b11 == 1,
            offset: second & 0x7f,
            instance_increments: second & 0x80 != 0,
        }
    }

    /// One sensor for each number; shared names get a number or letters at their end.
    fn expand(&self, first: &Sensor) -> Vec<Sensor> {
        if self.count <= 1 {
            return vec![Sensor { name: first.name.trim_end().to_owned(), ..first.clone() }];
        }
        (0..self.count)
            .map(|step| {
                let mut sensor = first.clone();
                sensor.number = first.number.wrapping_add(step);
                if self.instance_increments {
                    sensor.entity.instance = first.entity.instance.wrapping_add(step);
                }
                let suffix = u16::from(self.offset) + u16::from(step);
                sensor.name = match self.named {
                    true => format!("{}{}", first.name, Self::suffix(suffix, self.letters)),
                    false => or_number(String::new(), sensor.number),
                };
                sensor
            })
            .collect()
    }

    fn suffix(value: u16, letters: bool) -> String {
        if !letters {
            return value.to_string();
        }
        let letter = |value: u16| char::from(b'A' + (value % 26).to_le_bytes()[0]);
        match value / 26 {
            0 => letter(value).to_string(),
            high => [letter(high - 1), letter(value)].iter().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_go_on_after_z() {
        let names = [0, 25, 26, 51, 52].map(|value| Sharing::suffix(value, true));
        assert_eq!(names, ["A", "Z", "AA", "AZ", "BA"]);
        assert_eq!(Sharing::suffix(7, false), "7");
    }
}
