//! What a number is measured in (section 43.17, table 43-15).

use std::fmt;

/// The three unit bytes of a full or compact sensor record.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Units {
    /// Base unit, an index of table 43-15.
    pub base: u8,
    /// Modifier unit, an index of the same table; what it does is in `relation`.
    pub modifier: u8,
    pub relation: Relation,
    pub rate: Rate,
    pub percentage: bool,
}

/// How the modifier unit joins the base unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Relation {
    #[default]
    None,
    /// base / modifier
    Per,
    /// base × modifier
    Times,
}

/// A rate in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rate {
    #[default]
    None,
    Microsecond,
    Millisecond,
    Second,
    Minute,
    Hour,
    Day,
}

impl Units {
    /// From "sensor units 1", "2" (base) and "3" (modifier).
    pub const fn of(flags: u8, base: u8, modifier: u8) -> Self {
        let relation = match flags >> 1 & 0b11 {
            1 => Relation::Per,
            2 => Relation::Times,
            _ => Relation::None,
        };
        let rate = match flags >> 3 & 0b111 {
            1 => Rate::Microsecond,
            2 => Rate::Millisecond,
            3 => Rate::Second,
            4 => Rate::Minute,
            5 => Rate::Hour,
            6 => Rate::Day,
            _ => Rate::None,
        };
        Self { base, modifier, relation, rate, percentage: flags & 1 != 0 }
    }

    /// Whether a number has any unit at all.
    pub const fn is_unspecified(self) -> bool {
        self.base == 0 && !self.percentage
    }
}

/// Such as `degrees C`, `percent`, `joules/second` or `kilobyte per second`; empty when unspecified.
impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percentage, self.base) {
            (true, 0) => f.write_str("percent")?,
            (true, base) => write!(f, "% {}", unit_name(base))?,
            (false, 0) => {}
            (false, base) => f.write_str(unit_name(base))?,
        }
        match self.relation {
            Relation::None => {}
            Relation::Per => write!(f, "/{}", unit_name(self.modifier))?,
            Relation::Times => write!(f, "*{}", unit_name(self.modifier))?,
        }
        f.write_str(match self.rate {
            Rate::None => "",
            Rate::Microsecond => " per microsecond",
            Rate::Millisecond => " per millisecond",
            Rate::Second => " per second",
            Rate::Minute => " per minute",
            Rate::Hour => " per hour",
            Rate::Day => " per day",
        })
    }
}

/// The name of a unit code.
pub fn unit_name(code: u8) -> &'static str {
    NAMES.get(usize::from(code)).copied().unwrap_or("unknown unit")
}

#[rustfmt::skip]
const NAMES: &[&str] = &[
    "unspecified", "degrees C", "degrees F", "degrees K", "Volts", "Amps", "Watts", "Joules", "Coulombs", "VA",
    "Nits", "lumen", "lux", "Candela", "kPa", "PSI", "Newton", "CFM", "RPM", "Hz",
    "microsecond", "millisecond", "second", "minute", "hour", "day", "week", "mil", "inches", "feet",
    "cu in", "cu feet", "mm", "cm", "m", "cu cm", "cu m", "liters", "fluid ounce", "radians",
    "steradians", "revolutions", "cycles", "gravities", "ounce", "pound", "ft-lb", "oz-in", "gauss", "gilberts",
    "henry", "millihenry", "farad", "microfarad", "ohms", "siemens", "mole", "becquerel", "PPM", "reserved",
    "Decibels", "dBA", "dBC", "gray", "sievert", "color temp deg K", "bit", "kilobit", "megabit", "gigabit",
    "byte", "kilobyte", "megabyte", "gigabyte", "word", "dword", "qword", "line", "hit", "miss",
    "retry", "reset", "overflow", "underrun", "collision", "packets", "messages", "characters", "error",
    "correctable error", "uncorrectable error", "fatal error", "grams",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_as_people_say_them() {
        for (bytes, text) in [
            ((0, 1, 0), "degrees C"),
            ((1, 0, 0), "percent"),
            ((1, 18, 0), "% RPM"),
            ((1 << 1, 7, 22), "Joules/second"),
            ((2 << 1, 16, 34), "Newton*m"),
            ((3 << 3, 71, 0), "kilobyte per second"),
            ((0, 0, 0), ""),
            ((0, 92, 0), "grams"),
            ((0, 93, 0), "unknown unit"),
        ] {
            assert_eq!(Units::of(bytes.0, bytes.1, bytes.2).to_string(), text);
        }
    }
}
