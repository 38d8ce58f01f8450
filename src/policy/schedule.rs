//! Recurring spans of time: from each match of one cron pattern to the next match of another.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A recurring span, in the local time of one zone, daylight saving included.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    start: Cron,
    end: Cron,
    zone: TimeZone,
}

/// Says which part of a schedule cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// The pattern of the start or the end.
    #[error("`{pattern}` is no cron pattern: {why} (right would be `0 21 * * *`: minute hour day month weekday)")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What the parser says.
        why: String,
    },
    /// The time zone.
    #[error("`{zone}` is no IANA time zone (right would be `Europe/Berlin` or `UTC`)")]
    Zone {
        /// The zone.
        zone: String,
    },
}

impl Schedule {
    /// Builds a schedule from two cron patterns of five fields and an IANA zone.
    ///
    /// # Errors
    /// When a pattern or the zone cannot be read.
    pub fn new(start: &str, end: &str, zone: &str) -> Result<Self, ScheduleError> {
        let unknown = || ScheduleError::Zone { zone: zone.to_owned() };
        Ok(Self { start: pattern(start)?, end: pattern(end)?, zone: TimeZone::get(zone).map_err(|_| unknown())? })
    }

    /// Tells whether `now` lies in a span: the latest start is later than the latest end.
    ///
    /// A start and an end that match at once leave the span closed.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        let local = now.to_zoned(self.zone.clone());
        let latest = |cron: &Cron| cron.find_previous_occurrence(&local, true).ok().map(|zoned| zoned.timestamp());
        match (latest(&self.start), latest(&self.end)) {
            (Some(start), Some(end)) => start > end,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

fn pattern(text: &str) -> Result<Cron, ScheduleError> {
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .build()
        .parse(text)
        .map_err(|error| ScheduleError::Pattern { pattern: text.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn spans_midnight_in_local_time() {
        let nights = Schedule::new("0 21 * * *", "0 9 * * *", "Europe/Berlin").expect("a schedule");
        for (instant, active) in [
            ("2026-01-10T19:59:59Z", false), // 20:59:59 in Berlin
            ("2026-01-10T20:00:00Z", true),
            ("2026-01-11T03:00:00Z", true),
            ("2026-01-11T07:59:59Z", true),
            ("2026-01-11T08:00:00Z", false),
            ("2026-07-10T19:00:00Z", true), // summer: 21:00 is 19:00Z
            ("2026-07-10T18:59:59Z", false),
        ] {
            assert_eq!(nights.is_active(at(instant)), active, "{instant}");
        }
    }

    #[test]
    fn keeps_its_span_over_both_changes_of_daylight_saving() {
        let nights = Schedule::new("0 21 * * *", "0 9 * * *", "Europe/Berlin").expect("a schedule");
        for night in ["2026-03-29T00:59:00Z", "2026-03-29T01:01:00Z", "2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"] {
            assert!(nights.is_active(at(night)), "{night}");
        }
        assert!(!nights.is_active(at("2026-03-29T07:00:00Z")));
        assert!(!nights.is_active(at("2026-10-25T08:00:00Z")));
    }

    #[test]
    fn names_what_cannot_be_read() {
        assert!(
            matches!(Schedule::new("0 25 * * *", "0 9 * * *", "UTC"), Err(ScheduleError::Pattern { pattern, .. }) if pattern == "0 25 * * *")
        );
        assert!(
            matches!(Schedule::new("0 21 * * *", "0 9 * * *", "Mars/Olympus"), Err(ScheduleError::Zone { zone }) if zone == "Mars/Olympus")
        );
    }
}
