//! How the past of a demand is cut into what Prometheus is asked at once.

use jiff::{SignedDuration, Timestamp};

/// As much as is asked at once: as many minutes as Prometheus gives.
const LARGEST: SignedDuration = SignedDuration::from_hours(7 * 24);
/// What takes Prometheus too long is asked in smaller slices, down to this.
const SMALLEST: SignedDuration = SignedDuration::from_hours(1);

/// The slices, one after the other: halved after each failure, doubled after each answer.
#[derive(Debug, Clone, Copy)]
pub struct Slices {
    length: SignedDuration,
}

impl Default for Slices {
    fn default() -> Self {
        Self { length: LARGEST }
    }
}

impl Slices {
    /// Gives the first minute and the last of the next slice, after what was read and up to the latest; `None` where nothing is
    /// left. All are whole minutes.
    #[must_use]
    pub fn after(&self, read: Timestamp, latest: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let last = latest.min(read.saturating_add(self.length).unwrap_or(latest));
        let first = read.saturating_add(SignedDuration::from_mins(1)).unwrap_or(latest);
        (first <= last).then_some((first, last))
    }

    /// Takes larger ones again.
    pub fn answered(&mut self) {
        self.length = (self.length * 2).min(LARGEST);
    }

    /// Takes smaller ones, and tells whether there are any.
    pub fn failed(&mut self) -> bool {
        let before = self.length;
        // In whole minutes: between them there is nothing to ask for, and a minute would be left out.
        self.length = SignedDuration::from_mins(before.as_mins() / 2).max(SMALLEST);
        self.length < before
    }
}

/// Gives the beginning of a minute.
#[must_use]
pub fn whole_minute(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    #[test]
    fn the_past_is_cut_into_whole_minutes_that_follow_one_another() {
        let (mut read, latest) = (at("2026-03-04T10:20:00Z"), whole_minute(at("2026-03-20T10:20:45Z")));
        let mut cut = Vec::new();
        while let Some((first, last)) = Slices::default().after(read, latest) {
            assert!(first <= last && first.duration_since(read) == SignedDuration::from_mins(1));
            assert!(last.duration_since(first) <= LARGEST);
            cut.push((first, last));
            read = last;
        }
        assert_eq!((cut.len(), cut[2].1), (3, at("2026-03-20T10:20:00Z")));
    }

    #[test]
    fn a_failure_halves_them_down_to_an_hour_and_an_answer_doubles_them() {
        let (read, latest) = (at("2026-03-04T10:20:00Z"), at("2026-03-20T10:20:00Z"));
        let hours = |slices: &Slices| slices.after(read, latest).expect("there are some").1.duration_since(read).as_hours();
        let mut slices = Slices::default();
        assert_eq!(hours(&slices), 168);
        assert!(slices.failed());
        assert_eq!(hours(&slices), 84);
        while slices.failed() {
            assert_eq!(slices.length.as_secs() % 60, 0, "{slices:?}");
        }
        assert_eq!(hours(&slices), 1);
        slices.answered();
        assert_eq!(hours(&slices), 2);
    }
}
