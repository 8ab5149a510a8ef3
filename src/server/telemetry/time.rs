//! Wall clock times, in seconds, and their text form.

use std::fmt;
use std::time::SystemTime;

use serde::{Serialize, Serializer};

/// Seconds since 1970, UTC, up to 2106. Four bytes only, as every connection stores one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub u32);

impl UnixSeconds {
    /// Returns the current time.
    pub(crate) fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixSeconds(u32::try_from(since.as_secs()).unwrap_or(u32::MAX))
    }

    /// Returns the time from `self` to `now` in its two largest units, for people.
    pub(crate) fn age(self, now: UnixSeconds) -> String {
        let seconds = now.0.saturating_sub(self.0);
        let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
        match (days, hours, minutes) {
            (0, 0, 0) => format!("{seconds} s"),
            (0, 0, _) => format!("{minutes} min"),
            (0, _, _) => format!("{hours} h {minutes} min"),
            _ => format!("{days} d {hours} h"),
        }
    }
}

impl fmt::Display for UnixSeconds {
    /// Formats the time by RFC 3339: `2026-05-01T12:00:05Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, seconds) = (self.0 / 86_400, self.0 % 86_400);
        // Days are counted from 0000-03-01, so that a leap day is the last day of its year and of its
        // 400-year era.
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (year, month) = (era * 400 + year + month / 10, (month + 2) % 12 + 1);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl Serialize for UnixSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The expected texts are those of `date -u -d @N`.
    #[test]
    fn display_is_rfc_3339() {
        for (seconds, written) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (1_709_210_096, "2024-02-29T12:34:56Z"),
            (u32::MAX, "2106-02-07T06:28:15Z"),
        ] {
            assert_eq!(UnixSeconds(seconds).to_string(), written);
        }
    }

    #[test]
    fn age_has_two_units() {
        for (age, written) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(UnixSeconds(1_000).age(UnixSeconds(1_000 + age)), written);
        }
        assert_eq!(UnixSeconds(10).age(UnixSeconds(5)), "0 s");
    }
}
