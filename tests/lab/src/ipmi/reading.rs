//! Readings and thresholds (chapter 35), as the host and the fans have it.

use rackhand_ipmi::CompletionCode;

use super::answer::{Answer, done, exactly};
use super::config::Fans;
use super::sensors::{Analog, Discrete, Follows, Kind, Sensor};
use crate::model::Bmc;

/// A reading wanders by a step in this many simulated seconds.
const STEP: u64 = 60;
/// Scanning and events are on.
const ON: u8 = 0xc0;
const UNAVAILABLE: u8 = 0x20;

impl Bmc {
    pub(super) fn sensor(&mut self, code: u8, data: &[u8]) -> Answer {
        let number = *data.first().ok_or(CompletionCode::LENGTH_INVALID)?;
        let catalogue = std::sync::Arc::clone(&self.ipmi.catalogue);
        let sensor = catalogue.sensors.get(&number).ok_or(CompletionCode::NOT_PRESENT)?;
        match (code, sensor.kind) {
            (0x25, Kind::Analog(_)) => Ok(vec![1, 1]),
            (0x26, Kind::Analog(analog)) => self.set_thresholds(number, &analog, data),
            (0x27, Kind::Analog(analog)) => {
                let values = self.thresholds(number, &analog).map(Option::unwrap_or_default);
                Ok([[mask(&analog)].as_slice(), &values].concat())
            }
            (0x29, _) => Ok(vec![ON, 0, 0, 0, 0]),
            (0x2b, _) => {
                let reading = self.reading(sensor);
                let states = reading.get(2..).unwrap_or_default();
                let low = states.first().copied().unwrap_or_default();
                let high = states.get(1).copied().unwrap_or_default() & 0x7f;
                let status = reading.get(1).copied().unwrap_or_default();
                Ok(vec![status, if matches!(sensor.kind, Kind::Analog(_)) { 0 } else { low }, high, 0, 0])
            }
            (0x2d, _) => Ok(self.reading(sensor)),
            (0x2f, kind) => Ok(vec![
                sensor.sensor_type,
                if let Kind::Discrete(discrete) = kind { discrete.event_type } else { 0x01 },
            ]),
            (0x25..=0x27, Kind::Discrete(_)) => Err(CompletionCode::ILLEGAL_FOR_SENSOR),
            _ => Err(CompletionCode::INVALID_COMMAND),
        }
    }

    /// Get Sensor Reading (section 35.14).
    fn reading(&self, sensor: &Sensor) -> Vec<u8> {
        match &sensor.kind {
            Kind::Analog(analog) => match self.raw(sensor.number, analog) {
                None => vec![0, ON | UNAVAILABLE, 0xc0],
                Some(raw) => vec![raw, ON, 0xc0 | self.crossed(sensor.number, analog, raw)],
            },
            Kind::Discrete(Discrete { on, off, .. }) => {
                let states = if self.host.is_on() { *on } else { *off };
                let [low, high] = states.to_le_bytes();
                vec![0, ON, low, 0x80 | high]
            }
        }
    }

    /// The raw value; none where nothing is measured.
    fn raw(&self, number: u8, analog: &Analog) -> Option<u8> {
        let on = self.host.is_on();
        let usual = analog.raw.saturating_add(self.wander(number, analog.wander));
        match analog.follows {
            Follows::Nothing => Some(usual),
            Follows::Host => on.then_some(usual),
            Follows::HostOr(off) => Some(if on { usual } else { off }),
            Follows::Fan if !on => None,
            Follows::Fan => Some(match self.ipmi.fans {
                Fans::Automatic => usual,
                // 18,000 turns at full speed.
                Fans::Manual(percent) => {
                    u8::try_from(u16::from(percent.min(100)) * 150 / 100).unwrap_or(u8::MAX)
                }
            }),
        }
    }

    /// Up to `most` and back again, each sensor at its own time.
    fn wander(&self, number: u8, most: u8) -> u8 {
        let period = u64::from(most) * 2;
        if period == 0 {
            return 0;
        }
        let at = (self.now.as_secs() / STEP + u64::from(number) + self.seed % 7) % period;
        u8::try_from(at.min(period - at)).unwrap_or_default()
    }

    fn thresholds(&self, number: u8, analog: &Analog) -> [Option<u8>; 6] {
        match self.ipmi.thresholds.get(&number) {
            Some(set) => {
                let mut thresholds = analog.thresholds;
                for (place, value) in thresholds.iter_mut().zip(set) {
                    *place = place.map(|_| *value);
                }
                thresholds
            }
            None => analog.thresholds,
        }
    }

    /// Thresholds reached, by the bits of section 35.14.
    fn crossed(&self, number: u8, analog: &Analog, raw: u8) -> u8 {
        let thresholds = self.thresholds(number, analog);
        let mut bits = 0;
        for (bit, threshold) in thresholds.iter().enumerate() {
            let reached = threshold.is_some_and(|at| if bit < 3 { raw <= at } else { raw >= at });
            bits |= u8::from(reached) << bit;
        }
        bits
    }

    /// Set Sensor Thresholds (section 35.8): only those the sensor has.
    fn set_thresholds(&mut self, number: u8, analog: &Analog, data: &[u8]) -> Answer {
        let [_, which, values @ ..] = exactly::<8>(data)?;
        if which & !mask(analog) != 0 {
            return Err(CompletionCode::INVALID_FIELD);
        }
        let mut set = self.thresholds(number, analog).map(Option::unwrap_or_default);
        for (bit, (place, value)) in set.iter_mut().zip(values).enumerate() {
            if which & 1 << bit != 0 {
                *place = value;
            }
        }
        self.ipmi.thresholds.insert(number, set);
        done()
    }
}

fn mask(analog: &Analog) -> u8 {
    let bits = analog.thresholds.iter().enumerate();
    bits.fold(0, |mask, (bit, threshold)| mask | u8::from(threshold.is_some()) << bit)
}
