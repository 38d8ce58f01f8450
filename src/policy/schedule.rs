//! Recurring moments, which a cron pattern names, and recurring spans, from each moment of one pattern to the next of another.

use croner::Cron;
use croner::parser::{CronParser, Seconds};
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Recurring moments, in the local time of one zone, daylight saving included.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrence {
    pattern: Cron,
    zone: TimeZone,
}

/// A recurring span.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    start: Recurrence,
    end: Recurrence,
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

impl Recurrence {
    /// Builds one from a cron pattern of five fields and an IANA zone.
    ///
    /// # Errors
    /// When the pattern or the zone cannot be read.
    pub fn new(pattern: &str, zone: &str) -> Result<Self, ScheduleError> {
        let parsed = CronParser::builder().seconds(Seconds::Disallowed).build().parse(pattern);
        Ok(Self {
            pattern: parsed.map_err(|error| ScheduleError::Pattern { pattern: pattern.to_owned(), why: error.to_string() })?,
            zone: TimeZone::get(zone).map_err(|_| ScheduleError::Zone { zone: zone.to_owned() })?,
        })
    }

    /// Tells whether a moment lies after `since`, and not after `now`.
    #[must_use]
    pub fn is_due(&self, since: Timestamp, now: Timestamp) -> bool {
        self.latest(now).is_some_and(|latest| latest > since)
    }

    /// Gives the latest moment that is not after `now`.
    fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let local = now.to_zoned(self.zone.clone());
        self.pattern.find_previous_occurrence(&local, true).ok().map(|zoned| zoned.timestamp())
    }
}

impl Schedule {
    /// Builds a schedule from two cron patterns of five fields and an IANA zone.
    ///
    /// # Errors
    /// When a pattern or the zone cannot be read.
    pub fn new(start: &str, end: &str, zone: &str) -> Result<Self, ScheduleError> {
        Ok(Self { start: Recurrence::new(start, zone)?, end: Recurrence::new(end, zone)? })
    }

    /// Tells whether `now` lies in a span: the latest start is later than the latest end.
    ///
    /// A start and an end that match at once leave the span closed.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        #[cfg(test)]
        ASKED.set(ASKED.get() + 1);
        match (self.start.latest(now), self.end.latest(now)) {
            (Some(start), Some(end)) => start > end,
            (Some(_), None) => true,
            (None, _) => false,
        }
    }
}

#[cfg(test)]
thread_local! {
    /// How often schedules were asked on this thread: reading a pattern backwards costs far more than opening a node.
    pub(super) static ASKED: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
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

    /// Gives the moments that are due between two times, for one who looks every ten seconds.
    fn due(pattern: &str, from: &str, to: &str) -> Vec<String> {
        let (recurrence, step) = (Recurrence::new(pattern, "europe/berlin").expect("it is one"), jiff::SignedDuration::from_secs(10));
        let looks = std::iter::successors(Some(at(from)), |look| Some(*look + step)).take_while(|look| *look < at(to));
        looks.filter(|look| recurrence.is_due(*look, *look + step)).map(|look| (look + step).to_string()).collect()
    }

    #[test]
    fn a_moment_is_due_once_over_both_changes_of_daylight_saving() {
        for (pattern, from, to, moments) in [
            ("0 8 * * *", "2026-03-28T20:00:00Z", "2026-03-29T20:00:00Z", &["2026-03-29T06:00:00Z"][..]),
            // There is no half past two: it is due when the clocks have been put forward.
            ("30 2 * * *", "2026-03-28T20:00:00Z", "2026-03-29T20:00:00Z", &["2026-03-29T01:00:00Z"]),
            // Half past two is twice.
            ("30 2 * * *", "2026-10-24T20:00:00Z", "2026-10-25T20:00:00Z", &["2026-10-25T00:30:00Z"]),
            ("0 8 * * *", "2026-10-24T20:00:00Z", "2026-10-25T20:00:00Z", &["2026-10-25T07:00:00Z"]),
            ("@daily", "2026-06-01T20:00:00Z", "2026-06-02T20:00:00Z", &["2026-06-01T22:00:00Z"]),
        ] {
            assert_eq!(due(pattern, from, to), moments, "{pattern} from {from}");
        }
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
