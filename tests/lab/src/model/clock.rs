//! The BMC's calendar: it turns simulated time into the dates a BMC would print, wrong clock and zone
//! included.

use std::time::Duration;

/// A BMC's idea of wall-clock time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BmcClock {
    /// Seconds since 1970 at simulated time zero, as the BMC believes.
    pub(crate) start_unix: i64,
    pub(crate) utc_offset_minutes: i32,
}

impl BmcClock {
    fn unix(self, at: Duration) -> i64 {
        self.start_unix.saturating_add(i64::try_from(at.as_secs()).unwrap_or(i64::MAX))
    }

    /// UTC seconds since 1970, as far as 32 bits go: timestamps of IPMI (section 37).
    pub(crate) fn seconds(self, at: Duration) -> u32 {
        u32::try_from(self.unix(at).max(0)).unwrap_or(u32::MAX)
    }

    /// Local time without a zone, as in jobs: `2026-01-15T03:00:00`.
    pub(crate) fn bare(self, at: Duration) -> String {
        civil(self.unix(at) + i64::from(self.utc_offset_minutes) * 60)
    }

    /// Local time with its offset, as in `Manager.DateTime`: `2026-01-15T03:00:00-05:00`.
    pub(crate) fn zoned(self, at: Duration) -> String {
        format!("{}{}", self.bare(at), self.offset())
    }

    /// UTC with `Z`, as in `InstallationDate`.
    pub(crate) fn utc(self, at: Duration) -> String {
        format!("{}Z", civil(self.unix(at)))
    }

    pub(crate) fn offset(self) -> String {
        let minutes = self.utc_offset_minutes.unsigned_abs();
        let sign = if self.utc_offset_minutes < 0 { '-' } else { '+' };
        format!("{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }

    /// Hundredths of a second since 1970, the stuff job ids are made of.
    pub(crate) fn centiseconds(self, at: Duration) -> u64 {
        let whole = u64::try_from(self.unix(at)).unwrap_or(0);
        whole.wrapping_mul(100).wrapping_add(u64::from(at.subsec_millis() / 10))
    }
}

/// `YYYY-MM-DDTHH:MM:SS` of seconds since 1970 in the proleptic Gregorian calendar (days-to-civil by eras of
/// 400 years that start on 1 March).
fn civil(unix: i64) -> String {
    let (days, rest) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_before_1970() {
        assert_eq!(civil(0), "1970-01-01T00:00:00");
        assert_eq!(civil(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(civil(1_768_464_000), "2026-01-15T08:00:00");
        assert_eq!(civil(-1), "1969-12-31T23:59:59");
    }

    #[test]
    fn zones_show_where_they_should() {
        let clock = BmcClock { start_unix: 1_768_464_000, utc_offset_minutes: -330 };
        assert_eq!(clock.bare(Duration::from_secs(60)), "2026-01-15T02:31:00");
        assert_eq!(clock.zoned(Duration::ZERO), "2026-01-15T02:30:00-05:30");
        assert_eq!(clock.utc(Duration::ZERO), "2026-01-15T08:00:00Z");
    }
}
