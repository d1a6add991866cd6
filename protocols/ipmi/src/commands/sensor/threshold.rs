//! Thresholds and hysteresis of a sensor (sections 35.7 and 35.9).

use std::fmt;

use super::factors::AnalogFormat;
use crate::wire::bytes::Reader;
use crate::{Command, Malformed, NetFn, Request};

/// The six thresholds; the declaration's order is that of their bits and bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Threshold {
    LowerNonCritical,
    LowerCritical,
    LowerNonRecoverable,
    UpperNonCritical,
    UpperCritical,
    UpperNonRecoverable,
}

impl Threshold {
    pub const ALL: [Self; 6] = [
        Self::LowerNonCritical,
        Self::LowerCritical,
        Self::LowerNonRecoverable,
        Self::UpperNonCritical,
        Self::UpperCritical,
        Self::UpperNonRecoverable,
    ];

    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// One value for each threshold that a sensor has.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Thresholds<T> {
    pub lower_non_critical: Option<T>,
    pub lower_critical: Option<T>,
    pub lower_non_recoverable: Option<T>,
    pub upper_non_critical: Option<T>,
    pub upper_critical: Option<T>,
    pub upper_non_recoverable: Option<T>,
}

impl<T: Copy> Thresholds<T> {
    /// From values in the order of [`Threshold`], of which `mask` says the present ones.
    pub(crate) fn of(mask: u8, values: [T; 6]) -> Self {
        let [lnc, lc, lnr, unc, uc, unr] = values;
        let present = |threshold: Threshold, value| (mask & threshold.bit() != 0).then_some(value);
        Self {
            lower_non_critical: present(Threshold::LowerNonCritical, lnc),
            lower_critical: present(Threshold::LowerCritical, lc),
            lower_non_recoverable: present(Threshold::LowerNonRecoverable, lnr),
            upper_non_critical: present(Threshold::UpperNonCritical, unc),
            upper_critical: present(Threshold::UpperCritical, uc),
            upper_non_recoverable: present(Threshold::UpperNonRecoverable, unr),
        }
    }

    pub const fn get(&self, threshold: Threshold) -> Option<T> {
        match threshold {
            Threshold::LowerNonCritical => self.lower_non_critical,
            Threshold::LowerCritical => self.lower_critical,
            Threshold::LowerNonRecoverable => self.lower_non_recoverable,
            Threshold::UpperNonCritical => self.upper_non_critical,
            Threshold::UpperCritical => self.upper_critical,
            Threshold::UpperNonRecoverable => self.upper_non_recoverable,
        }
    }

    /// Each value converted; one without a finite value is absent.
    pub fn convert<U>(&self, mut convert: impl FnMut(T) -> Option<U>) -> Thresholds<U> {
        Thresholds {
            lower_non_critical: self.lower_non_critical.and_then(&mut convert),
            lower_critical: self.lower_critical.and_then(&mut convert),
            lower_non_recoverable: self.lower_non_recoverable.and_then(&mut convert),
            upper_non_critical: self.upper_non_critical.and_then(&mut convert),
            upper_critical: self.upper_critical.and_then(&mut convert),
            upper_non_recoverable: self.upper_non_recoverable.and_then(&mut convert),
        }
    }
}

/// How a threshold sensor compares with its thresholds, as the BMC says (section 35.14).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// [`Threshold::bit`]s of the thresholds that are passed.
    pub passed: u8,
}

/// How bad a [`Status`] is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    Ok,
    NonCritical,
    Critical,
    NonRecoverable,
}

impl Status {
    /// Compared here, for a BMC that sends a reading without its comparison: raw numbers, as BMCs do it.
    pub(super) fn of(raw: u8, format: AnalogFormat, thresholds: &Thresholds<u8>) -> Self {
        let value = format.number(raw);
        let is_passed = |threshold: &Threshold| match (threshold, thresholds.get(*threshold)) {
            (_, None) => false,
            (
                Threshold::LowerNonCritical | Threshold::LowerCritical | Threshold::LowerNonRecoverable,
                Some(limit),
            ) => value <= format.number(limit),
            (_, Some(limit)) => value >= format.number(limit),
        };
        let passed = Threshold::ALL.into_iter().filter(is_passed).fold(0, |bits, one| bits | one.bit());
        Self { passed }
    }

    pub const fn severity(self) -> Severity {
        const NON_RECOVERABLE: u8 =
            Threshold::LowerNonRecoverable.bit() | Threshold::UpperNonRecoverable.bit();
        const CRITICAL: u8 = Threshold::LowerCritical.bit() | Threshold::UpperCritical.bit();
        const NON_CRITICAL: u8 = Threshold::LowerNonCritical.bit() | Threshold::UpperNonCritical.bit();
        if self.passed & NON_RECOVERABLE != 0 {
            Severity::NonRecoverable
        } else if self.passed & CRITICAL != 0 {
            Severity::Critical
        } else if self.passed & NON_CRITICAL != 0 {
            Severity::NonCritical
        } else {
            Severity::Ok
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ok => "ok",
            Self::NonCritical => "non-critical",
            Self::Critical => "critical",
            Self::NonRecoverable => "non-recoverable",
        })
    }
}

/// Get Sensor Thresholds (section 35.9): the raw values that are in force now.
#[derive(Clone, Copy, Debug)]
pub struct GetThresholds {
    pub number: u8,
    pub lun: u8,
}

impl Command for GetThresholds {
    type Answer = Thresholds<u8>;

    fn request(&self) -> Request {
        Request { net_fn: NetFn::SENSOR, code: 0x27, lun: self.lun, data: vec![self.number] }
    }

    fn parse(&self, data: &[u8]) -> Result<Thresholds<u8>, Malformed> {
        let mut reader = Reader::new("sensor thresholds", data);
        Ok(Thresholds::of(reader.u8()?, reader.array()?))
    }
}

/// How far a value must come back before a threshold counts as left, in raw counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Hysteresis {
    pub positive: u8,
    pub negative: u8,
}

/// Get Sensor Hysteresis (section 35.7).
#[derive(Clone, Copy, Debug)]
pub struct GetHysteresis {
    pub number: u8,
    pub lun: u8,
}

impl Command for GetHysteresis {
    type Answer = Hysteresis;

    fn request(&self) -> Request {
        // The second byte is reserved for a mask and must be 0xff.
        Request { net_fn: NetFn::SENSOR, code: 0x25, lun: self.lun, data: vec![self.number, 0xff] }
    }

    fn parse(&self, data: &[u8]) -> Result<Hysteresis, Malformed> {
        let mut reader = Reader::new("sensor hysteresis", data);
        Ok(Hysteresis { positive: reader.u8()?, negative: reader.u8()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_the_mask_names() {
        let command = GetThresholds { number: 1, lun: 0 };
        let thresholds = command.parse(&[0b01_1010, 1, 2, 3, 4, 5, 6]).unwrap();
        let found = Threshold::ALL.map(|threshold| thresholds.get(threshold));
        assert_eq!(found, [None, Some(2), None, Some(4), Some(5), None]);
        assert!(command.parse(&[0x3f, 1, 2]).is_err());
    }

    #[test]
    fn the_worst_passed_threshold_counts() {
        for (passed, severity) in [
            (0, Severity::Ok),
            (0xc0, Severity::Ok),
            (0x08, Severity::NonCritical),
            (0x18, Severity::Critical),
            (0x07, Severity::NonRecoverable),
        ] {
            assert_eq!(Status { passed }.severity(), severity);
        }
    }

    #[test]
    fn hysteresis_is_two_bytes() {
        let command = GetHysteresis { number: 1, lun: 2 };
        assert_eq!(command.request().data, [1, 0xff]);
        assert_eq!(command.parse(&[2, 3]).unwrap(), Hysteresis { positive: 2, negative: 3 });
    }
}
