//! Points in time, in UTC, to the microsecond.

use std::fmt;
use std::time::Duration;

use jiff::fmt::temporal::DateTimePrinter;

/// A point in time in UTC with microsecond precision.
///
/// It is written as RFC 3339 with `Z` and six digits, and read with any offset or with none. A text
/// without an offset means UTC, because the replaced service wrote naive UTC.
///
/// ```
/// use task_core::domain::Timestamp;
/// let naive: Timestamp = "2026-11-21T02:08:47.911595".parse().unwrap();
/// assert_eq!(naive.to_string(), "2026-11-21T02:08:47.911595Z");
/// let offset: Timestamp = "2026-11-21T04:08:47.911595+02:00".parse().unwrap();
/// assert_eq!(naive, offset);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// The time so many microseconds after 1970-01-01 UTC, clamped to the years −9999 to 9999.
    #[must_use]
    pub fn from_unix_micros(micros: i64) -> Self {
        let limit = if micros < 0 {
            jiff::Timestamp::MIN
        } else {
            jiff::Timestamp::MAX
        };
        Self(jiff::Timestamp::from_microsecond(micros).unwrap_or(limit))
    }

    /// Microseconds since 1970-01-01 UTC, negative before it.
    #[must_use]
    pub fn unix_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// Milliseconds since 1970-01-01 UTC, zero before it.
    #[must_use]
    pub fn unix_millis(self) -> u64 {
        u64::try_from(self.0.as_millisecond()).unwrap_or(0)
    }

    /// This time and a duration more, at most the year 9999.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        Self::from_unix_micros(self.unix_micros().saturating_add(micros))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(6));
        PRINTER
            .print_timestamp(&self.0, jiff::fmt::StdFmtWrite(f))
            .map_err(|_| fmt::Error)
    }
}

/// A text that is not a date and time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an RFC 3339 date and time")]
pub struct ParseTimestampError {
    text: String,
}

impl std::str::FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.parse::<jiff::Timestamp>().or_else(|_| {
            let naive: jiff::civil::DateTime = text.parse()?;
            jiff::tz::Offset::UTC.to_timestamp(naive)
        });
        match parsed {
            // Finer digits are cut, so that what is written reads back as the same time.
            Ok(time) => Ok(Self::from_unix_micros(time.as_microsecond())),
            Err(_) => Err(ParseTimestampError {
                text: text.chars().take(64).collect(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_keep_six_digits() {
        let time = Timestamp::from_unix_micros(1_795_228_713_000_000);
        assert_eq!(time.to_string(), "2026-11-21T02:38:33.000000Z");
    }

    #[test]
    fn every_time_reads_back_as_itself() {
        for micros in [i64::MIN, -1, 0, 1, 1_795_228_713_868_859, i64::MAX] {
            let time = Timestamp::from_unix_micros(micros);
            assert_eq!(time.to_string().parse(), Ok(time));
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for bad in ["", "now", "2026-13-01T00:00:00Z", "1795228713"] {
            assert!(bad.parse::<Timestamp>().is_err(), "{bad:?} was accepted");
        }
    }
}
