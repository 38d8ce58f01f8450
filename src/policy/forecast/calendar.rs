//! The days of a time zone: which minute of the days before was at the same time of the clock.
//!
//! Whoever makes the demand lives by the clock. Where it is set forward or back, a day has 23 or 25 hours, and what came at
//! eight in the morning comes at eight again.

use super::history::Minute;
use jiff::tz::TimeZone;

const DAY: i64 = 1440;
/// Offsets are known from so many minutes before the latest one: a week, and the hour by which it may be longer.
const BEHIND: i64 = 9 * DAY;
/// They are looked up again after so many minutes.
const AHEAD: i64 = DAY;

/// A time zone, with its offsets around the latest minute.
#[derive(Debug, Clone)]
pub(super) struct Calendar {
    zone: TimeZone,
    /// From which minute on the clock is so many minutes ahead of UTC, in order; the first holds before it, too.
    offsets: Vec<(i64, i64)>,
    /// The offsets hold from one minute to before another.
    known: (i64, i64),
}

impl Calendar {
    pub(super) fn new(zone: TimeZone) -> Self {
        Self { zone, offsets: vec![(0, 0)], known: (0, 0) }
    }

    /// Takes another zone, if it is another one.
    pub(super) fn set(&mut self, zone: &TimeZone) {
        if self.zone != *zone {
            *self = Self::new(zone.clone());
        }
    }

    /// Looks the offsets up where they are not known for the days before a minute, and for the hour after it.
    pub(super) fn look_up(&mut self, latest: Minute) {
        let (from, to) = (latest.0 - BEHIND, latest.0 + AHEAD);
        if self.known.0 <= from && latest.0 + 60 < self.known.1 {
            return;
        }
        self.known = (from, to);
        let begin = Minute(from).begin();
        let minutes = |offset: jiff::tz::Offset| i64::from(offset.seconds()).div_euclid(60);
        self.offsets = vec![(from, minutes(self.zone.to_offset(begin)))];
        let changes = self.zone.following(begin).take_while(|change| change.timestamp() < Minute(to).begin());
        self.offsets.extend(changes.map(|change| (Minute::of_second(change.timestamp().as_second()).0, minutes(change.offset()))));
    }

    /// Counts the minutes to the same time of the clock so many days, at most seven, before a minute around the latest one.
    pub(super) fn back(&self, minute: i64, days: usize) -> usize {
        let back = days as i64 * DAY;
        let here = self.offset(minute);
        // What was in force then is told by an hour that the change itself may move; once more settles it.
        let guess = minute - back + here - self.offset(minute - back);
        usize::try_from(back - here + self.offset(guess)).unwrap_or(0)
    }

    fn offset(&self, minute: i64) -> i64 {
        let found = self.offsets.iter().rev().find(|(from, _)| *from <= minute);
        found.or(self.offsets.first()).map_or(0, |(_, offset)| *offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn minute(text: &str) -> i64 {
        Minute::of_second(text.parse::<Timestamp>().expect("a time").as_second()).0
    }

    fn berlin() -> TimeZone {
        TimeZone::get("Europe/Berlin").expect("it is known")
    }

    #[test]
    fn the_day_of_a_change_is_an_hour_shorter_or_longer_and_the_others_are_not() {
        for (now, days, hours) in [
            // The clock is set forward on 29 March 2026 at one in UTC, and back on 25 October.
            ("2026-03-29T00:30:00Z", 1, 24),
            ("2026-03-29T01:30:00Z", 1, 23),
            ("2026-03-29T12:00:00Z", 1, 23),
            ("2026-03-30T06:00:00Z", 1, 24),
            ("2026-03-30T06:00:00Z", 2, 47),
            ("2026-04-04T06:00:00Z", 7, 7 * 24 - 1),
            ("2026-04-06T06:00:00Z", 7, 7 * 24),
            ("2026-10-25T06:00:00Z", 1, 25),
            ("2026-10-26T06:00:00Z", 1, 24),
            ("2026-10-26T06:00:00Z", 7, 7 * 24 + 1),
        ] {
            let mut calendar = Calendar::new(berlin());
            calendar.look_up(Minute(minute(now)));
            assert_eq!(calendar.back(minute(now), days), 60 * hours, "{days} days before {now}");
        }
    }

    #[test]
    fn offsets_are_looked_up_again_as_time_runs_and_when_the_zone_changes() {
        let mut calendar = Calendar::new(berlin());
        let (winter, summer) = (minute("2026-03-20T06:00:00Z"), minute("2026-03-29T06:00:00Z"));
        for now in winter..=summer {
            calendar.look_up(Minute(now));
        }
        assert_eq!(calendar.back(summer, 1), 23 * 60);
        calendar.look_up(Minute(winter));
        assert_eq!(calendar.back(winter, 1), 24 * 60, "time that runs backwards is looked up as well");
        calendar.set(&TimeZone::UTC);
        calendar.look_up(Minute(summer));
        assert_eq!(calendar.back(summer, 1), 24 * 60);
    }

    #[test]
    fn the_ends_of_time_have_days_too() {
        for now in [i64::MIN / 120, i64::MAX / 120] {
            let mut calendar = Calendar::new(berlin());
            calendar.look_up(Minute(now));
            assert!((23 * 60..=25 * 60).contains(&calendar.back(now, 1)));
        }
    }
}
