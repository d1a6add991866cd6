//! The sensors of a model: what is measured, their records (chapter 43), and what they show in each state of
//! the host.
//!
//! Records are the same for every server of a model and are shared. Numbers are those of a two-socket server
//! in a room of 22 °C; names are like Dell's.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use crate::spec::Model;

/// Lower non-critical, critical, non-recoverable; upper the same; raw.
pub(super) type Thresholds = [Option<u8>; 6];
const NONE: Thresholds = [None; 6];

/// How a reading follows the host and the fans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Follows {
    /// The same whether the host is on or off.
    Nothing,
    /// Without a reading while the host is off.
    Host,
    /// This raw value while the host is off.
    HostOr(u8),
    /// Turned by the BMC, or by hand; without a reading while the host is off.
    Fan,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Analog {
    /// Unit (section 43.17).
    pub unit: u8,
    pub m: i16,
    pub b: i16,
    pub r_exp: i8,
    pub thresholds: Thresholds,
    /// Raw value of a running host, and how far it wanders up from there.
    pub raw: u8,
    pub wander: u8,
    pub follows: Follows,
}

/// States by offset while the host is on and while it is off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Discrete {
    pub event_type: u8,
    pub on: u16,
    pub off: u16,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Analog(Analog),
    Discrete(Discrete),
}

#[derive(Clone, Debug)]
pub(super) struct Sensor {
    pub number: u8,
    pub name: String,
    /// Sensor type (section 42.2) and entity (section 43.14) with its instance.
    pub sensor_type: u8,
    pub entity: (u8, u8),
    pub kind: Kind,
}

/// The sensors of a model and their records.
#[derive(Debug)]
pub(super) struct Catalogue {
    pub sensors: BTreeMap<u8, Sensor>,
    /// Whole records, header included; record `n` has the id `n + 1`.
    pub records: Vec<Vec<u8>>,
}

/// The event log's own sensor, which says that it was cleared.
pub(crate) const LOG: u8 = 0x38;
/// The host's power state.
pub(crate) const ACPI: u8 = 0x3a;
/// Mains.
pub(crate) const MAINS: u8 = 0x3b;

static CATALOGUES: LazyLock<BTreeMap<Model, Arc<Catalogue>>> =
    LazyLock::new(|| Model::ALL.into_iter().map(|model| (model, Arc::new(Catalogue::new(model)))).collect());

impl Catalogue {
    pub fn of(model: Model) -> Arc<Self> {
        match CATALOGUES.get(&model) {
            Some(catalogue) => Arc::clone(catalogue),
            None => Arc::new(Self::new(model)),
        }
    }

    fn new(model: Model) -> Self {
        let sensors = sensors(model);
        let mut records: Vec<Vec<u8>> = sensors.iter().map(Sensor::record).collect();
        records.push(fru_locator());
        records.push(controller_locator());
        for (id, record) in (1_u16..).zip(&mut records) {
            if let Some(place) = record.get_mut(..2) {
                place.copy_from_slice(&id.to_le_bytes());
            }
        }
        Self { sensors: sensors.into_iter().map(|sensor| (sensor.number, sensor)).collect(), records }
    }
}

fn analog(number: u8, name: &str, sensor_type: u8, entity: (u8, u8), analog: Analog) -> Sensor {
    Sensor { number, name: name.to_owned(), sensor_type, entity, kind: Kind::Analog(analog) }
}

fn discrete(
    number: u8,
    name: &str,
    sensor_type: u8,
    entity: (u8, u8),
    event_type: u8,
    states: (u16, u16),
) -> Sensor {
    let (on, off) = states;
    let kind = Kind::Discrete(Discrete { event_type, on, off });
    Sensor { number, name: name.to_owned(), sensor_type, entity, kind }
}

/// Degrees Celsius with an offset of -128, as Dell's.
fn temperature(celsius: u8, wander: u8, limits: [i16; 4], follows: Follows) -> Analog {
    let raw = |value: i16| u8::try_from(value + 128).ok();
    let [lower, lowest, upper, highest] = limits;
    Analog {
        unit: 1,
        m: 1,
        b: -128,
        r_exp: 0,
        thresholds: [raw(lower), raw(lowest), None, raw(upper), raw(highest), None],
        raw: celsius.saturating_add(128),
        wander,
        follows,
    }
}

/// Volts in hundredths per step of `m`.
fn volts(m: i16, raw: u8, follows: Follows) -> Analog {
    let off = u8::try_from(u16::from(raw) * 9 / 10).ok();
    let over = u8::try_from(u16::from(raw) * 11 / 10).ok();
    Analog {
        unit: 4,
        m,
        b: 0,
        r_exp: -2,
        thresholds: [None, off, None, None, over, None],
        raw,
        wander: 1,
        follows,
    }
}

fn sensors(model: Model) -> Vec<Sensor> {
    let room = [3, -7, 43, 47];
    let cores = [8, 3, 92, 97];
    let hot = if model == Model::R730 { 46 } else { 54 };
    let mut list = vec![
        analog(0x01, "CPU1 Temp", 1, (3, 1), temperature(hot, 4, cores, Follows::Host)),
        analog(0x02, "CPU2 Temp", 1, (3, 2), temperature(hot - 2, 4, cores, Follows::Host)),
        analog(0x04, "Inlet Temp", 1, (7, 1), temperature(22, 1, room, Follows::Nothing)),
        analog(
            0x05,
            "Exhaust Temp",
            1,
            (7, 1),
            temperature(35, 2, [8, 3, 75, 80], Follows::HostOr(128 + 23)),
        ),
    ];
    let fan = Analog {
        unit: 18,
        m: 120,
        b: 0,
        r_exp: 0,
        thresholds: [Some(5), Some(3), None, None, None, None],
        raw: 42,
        wander: 2,
        follows: Follows::Fan,
    };
    for (number, rotor) in (0x40_u8..).zip(0_u8..12) {
        let name = format!("Fan{}{}", rotor / 2 + 1, char::from(b'A' + rotor % 2));
        list.push(analog(number, &name, 4, (29, rotor / 2 + 1), fan));
    }
    let watts = Analog {
        unit: 6,
        m: 4,
        b: 0,
        r_exp: 0,
        thresholds: [None, None, None, Some(210), Some(230), None],
        raw: 71,
        wander: 9,
        follows: Follows::HostOr(5),
    };
    let amperes = Analog {
        unit: 5,
        m: 2,
        b: 0,
        r_exp: -1,
        thresholds: NONE,
        raw: 6,
        wander: 1,
        follows: Follows::HostOr(1),
    };
    let mains = Analog { r_exp: 0, thresholds: NONE, ..volts(2, 115, Follows::Nothing) };
    list.extend([
        analog(0x10, "PSU1 Voltage", 2, (10, 1), mains),
        analog(0x11, "PSU2 Voltage", 2, (10, 2), mains),
        analog(0x12, "PSU1 Current", 3, (10, 1), amperes),
        analog(0x13, "PSU2 Current", 3, (10, 2), amperes),
        analog(0x14, "Pwr Consumption", 11, (7, 1), watts),
        analog(0x15, "12V", 2, (7, 1), volts(6, 201, Follows::Host)),
        analog(0x16, "5V", 2, (7, 1), volts(3, 167, Follows::Host)),
        analog(0x17, "3.3V", 2, (7, 1), volts(2, 165, Follows::Nothing)),
        analog(0x18, "VBAT", 2, (7, 1), volts(2, 151, Follows::Nothing)),
        analog(0x19, "CPU1 VCORE", 2, (3, 1), volts(1, 179, Follows::Host)),
        analog(0x1a, "CPU2 VCORE", 2, (3, 2), volts(1, 178, Follows::Host)),
        // Present; with the offsets of section 42.2.
        discrete(0x20, "PS1 Status", 8, (10, 1), 0x6f, (1, 1)),
        discrete(0x21, "PS2 Status", 8, (10, 2), 0x6f, (1, 1)),
        // Fully redundant.
        discrete(0x22, "PS Redundancy", 8, (7, 1), 0x0b, (1, 1)),
        discrete(0x23, "Fan Redundancy", 4, (7, 1), 0x0b, (1, 0)),
        discrete(0x24, "Intrusion", 5, (7, 1), 0x6f, (0, 0)),
        // Presence detected.
        discrete(0x25, "CPU1 Status", 7, (3, 1), 0x6f, (0x80, 0x80)),
        discrete(0x26, "CPU2 Status", 7, (3, 2), 0x6f, (0x80, 0x80)),
        discrete(0x27, "ECC Corr Err", 12, (34, 1), 0x6f, (0, 0)),
        discrete(0x28, "ECC Uncorr Err", 12, (34, 1), 0x6f, (0, 0)),
        // Device enabled, or disabled.
        discrete(0x29, "DIMM PG", 12, (32, 1), 0x09, (0x02, 0x01)),
        discrete(LOG, "SEL", 16, (7, 1), 0x6f, (0, 0)),
        // Working, or off.
        discrete(ACPI, "ACPI State", 34, (7, 1), 0x6f, (0x01, 0x40)),
        discrete(MAINS, "Power Unit", 9, (7, 1), 0x6f, (0x00, 0x01)),
    ]);
    list
}

impl Sensor {
    fn record(&self) -> Vec<u8> {
        match &self.kind {
            Kind::Analog(analog) => self.full(analog),
            Kind::Discrete(discrete) => self.compact(discrete),
        }
    }

    /// A full sensor record (section 43.1).
    fn full(&self, analog: &Analog) -> Vec<u8> {
        let mut mask = 0_u8;
        for (bit, threshold) in analog.thresholds.iter().enumerate() {
            mask |= u8::from(threshold.is_some()) << bit;
        }
        // Re-arms itself, readable hysteresis; thresholds can be read and set where there are any.
        let capabilities = if mask == 0 { 0x50 } else { 0x58 };
        let mut body = self.common(capabilities, 0x01);
        // Events: none are sent for thresholds.
        body.extend([0, 0, 0, 0, mask, mask]);
        body.extend([0x00, analog.unit, 0x00, 0x00]);
        let ([m, m_high], [b, b_high]) = (analog.m.to_le_bytes(), analog.b.to_le_bytes());
        body.extend([m, (m_high & 0x03) << 6, b, (b_high & 0x03) << 6, 0]);
        let exponent = analog.r_exp.to_le_bytes()[0] << 4;
        // Nominal reading given; sensor maximum and minimum are those of a byte.
        body.extend([exponent, 0x01, analog.raw, 0, 0, 0xff, 0x00]);
        let [lnc, lc, lnr, unc, uc, unr] = analog.thresholds.map(Option::unwrap_or_default);
        body.extend([unr, uc, unc, lnr, lc, lnc, 1, 1, 0, 0, 0]);
        self.finish(0x01, body)
    }

    /// A compact sensor record (section 43.2).
    fn compact(&self, discrete: &Discrete) -> Vec<u8> {
        let mut body = self.common(0x40, discrete.event_type);
        let states = (discrete.on | discrete.off | 1).to_le_bytes();
        body.extend([states, states, states].concat());
        body.extend([0xc0, 0, 0]);
        body.extend([0x01, 0, 0, 0, 0, 0, 0, 0]);
        self.finish(0x02, body)
    }

    fn common(&self, capabilities: u8, event_type: u8) -> Vec<u8> {
        let (entity, instance) = self.entity;
        vec![0x20, 0, self.number, entity, instance, 0x7f, capabilities, self.sensor_type, event_type]
    }

    fn finish(&self, kind: u8, body: Vec<u8>) -> Vec<u8> {
        finish(kind, body, &self.name)
    }
}

/// Header and name around a record's body (section 43.1, bytes 1 to 5).
fn finish(kind: u8, mut body: Vec<u8>, name: &str) -> Vec<u8> {
    let length = name.len().min(16);
    body.push(0xc0 | u8::try_from(length).unwrap_or_default());
    body.extend(name.bytes().take(length));
    let mut record = vec![0, 0, 0x51, kind, u8::try_from(body.len()).unwrap_or(u8::MAX)];
    record.append(&mut body);
    record
}

/// FRU device 0 (section 43.8).
fn fru_locator() -> Vec<u8> {
    finish(0x11, vec![0x20, 0x00, 0x80, 0x00, 0x00, 0x10, 0x00, 0x07, 0x01, 0x00], "System Board")
}

/// The BMC itself (section 43.9): inventory, event log, records and sensors.
fn controller_locator() -> Vec<u8> {
    finish(0x12, vec![0x20, 0x00, 0x00, 0x0f, 0x00, 0x00, 0x00, 0x2e, 0x01, 0x00], "iDRAC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_forty_sensors_of_different_numbers_and_shares_its_records() {
        for model in Model::ALL {
            let catalogue = Catalogue::of(model);
            assert_eq!(catalogue.sensors.len(), 40, "{model:?}");
            assert_eq!(catalogue.records.len(), 42);
            assert!(Arc::ptr_eq(&catalogue, &Catalogue::of(model)));
        }
    }
}
