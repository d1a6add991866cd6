//! The time of a record (section 37): seconds, and two ways of not knowing them.

use std::fmt;

/// Seconds as a BMC writes them. A BMC knows no time zone: the seconds count from 1970 in whatever zone its clock was
/// set to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timestamp(pub u32);

/// What a [`Timestamp`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Moment {
    /// `0xffffffff`: invalid or unspecified.
    Unspecified,
    /// Up to `0x20000000`: seconds since the controller started, because its clock was not set yet.
    SinceStart(u32),
    /// Seconds since 1970-01-01.
    Unix(u32),
}

impl Timestamp {
    pub const UNSPECIFIED: Self = Self(u32::MAX);
    const LAST_SINCE_START: u32 = 0x2000_0000;

    pub const fn moment(self) -> Moment {
        match self.0 {
            u32::MAX => Moment::Unspecified,
            0..=Self::LAST_SINCE_START => Moment::SinceStart(self.0),
            seconds => Moment::Unix(seconds),
        }
    }
}

/// `2026-11-21 08:06:55`, `+00:01:05` since the start, or `unspecified`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.moment() {
            Moment::Unspecified => f.write_str("unspecified"),
            Moment::SinceStart(seconds) => {
                write!(f, "+{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
            }
            Moment::Unix(seconds) => write_date(f, seconds),
        }
    }
}

/// Days to a date of the proleptic Gregorian calendar, by counting years of 365.2425 days from a March.
fn write_date(f: &mut fmt::Formatter<'_>, seconds: u32) -> fmt::Result {
    let day = i64::from(seconds / 86_400) + 719_468;
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let of_month = of_year - (153 * shifted_month + 2) / 5 + 1;
    let time = seconds % 86_400;
    write!(f, "{year:04}-{month:02}-{of_month:02} {:02}:{:02}:{:02}", time / 3600, time / 60 % 60, time % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_says_what_it_knows() {
        for (seconds, text) in [
            (u32::MAX, "unspecified"),
            (65, "+00:01:05"),
            (0x2000_0000, "+149130:48:32"),
            (951_782_400, "2000-02-29 00:00:00"),
            (1_795_248_415, "2026-11-21 08:06:55"),
            (4_107_542_399, "2100-02-28 23:59:59"),
            (4_107_542_400, "2100-03-01 00:00:00"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), text);
        }
    }
}
