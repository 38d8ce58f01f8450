//! Demand as it was: one value a minute, bounded, with gaps that stay gaps.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many minutes are kept: 28 days, four of each weekday.
pub const KEPT: usize = 28 * 1440;

/// A minute, counted from the Unix epoch in UTC. The demand of a minute is known when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Minute(pub i64);

impl Minute {
    /// Gives the minute a Unix time in seconds lies in.
    #[must_use]
    pub fn of_second(second: i64) -> Self {
        Self(second.div_euclid(60))
    }

    /// Gives the time at which it begins; the nearest that can be told where that is beyond all calendars.
    #[must_use]
    pub fn begin(self) -> Timestamp {
        let end = if self.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Timestamp::from_second(self.0.saturating_mul(60)).unwrap_or(end)
    }

    /// Gives the minute so many minutes later.
    #[must_use]
    pub fn plus(self, minutes: i64) -> Self {
        Self(self.0 + minutes)
    }
}

/// Why a value was not taken into a history.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum Refused {
    /// Time runs forward: a value for a minute that is over cannot come in again.
    #[error("minute {} is not after minute {}, the latest one known", minute.0, latest.0)]
    NotLater {
        /// The minute that was given.
        minute: Minute,
        /// The latest minute that has a value.
        latest: Minute,
    },
    /// Demand is a finite number that is not negative, and that a million nodes can serve: more is of another unit.
    #[error("demand is a number from 0 up to that of a million nodes, not {value}")]
    Absurd {
        /// The value that was given.
        value: f64,
    },
}

/// The demand of the last 28 days, in cores or bytes, four bytes a minute.
///
/// A minute without a value is a gap and never a zero: [`DemandHistory::get`] gives `None` for it. What computes
/// with levels uses [`DemandHistory::carried`], where the last known value stands until the next one.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct DemandHistory {
    /// The minute of the first value.
    first: i64,
    /// Values from `first` on, without holes; single precision resolves a thousandth of a core in ten thousand.
    values: Vec<f32>,
    /// Stretches of minutes without a value, from and to before, in order and apart.
    gaps: Vec<(i64, i64)>,
}

impl DemandHistory {
    /// Takes the demand of a minute. Minutes that were left out become a gap.
    ///
    /// A gap longer than the history is kept begins it anew: nothing of what was before is comparable.
    ///
    /// # Errors
    /// When the minute is not after the latest one, or the value is no demand.
    pub fn observe(&mut self, minute: Minute, value: f64) -> Result<(), Refused> {
        if !(0.0..=f64::from(f32::MAX)).contains(&value) {
            return Err(Refused::Absurd { value });
        }
        let missing = match self.latest() {
            Some(latest) if minute <= latest => return Err(Refused::NotLater { minute, latest }),
            Some(latest) => usize::try_from(minute.0 - latest.0 - 1).unwrap_or(usize::MAX),
            None => 0,
        };
        if self.values.is_empty() || missing >= KEPT {
            *self = Self { first: minute.0, values: Vec::new(), gaps: Vec::new() };
        } else if missing > 0 {
            let last = self.values[self.values.len() - 1];
            self.gaps.push((minute.0 - missing as i64, minute.0));
            self.values.resize(self.values.len() + missing, last);
        }
        #[expect(clippy::cast_possible_truncation, reason = "demand is measured to fewer digits than single precision has")]
        self.values.push(value as f32);
        // Trimmed by the day: shifting the rest costs less than a microsecond a minute that way.
        if self.values.len() >= KEPT + 1440 {
            self.values.drain(..1440);
            self.first += 1440;
            self.gaps.retain(|(_, end)| *end > self.first);
        }
        Ok(())
    }

    /// Gives the latest minute that has a value.
    #[must_use]
    pub fn latest(&self) -> Option<Minute> {
        (!self.values.is_empty()).then(|| Minute(self.first + self.values.len() as i64 - 1))
    }

    /// Gives the first minute that has a value.
    #[must_use]
    pub fn first(&self) -> Option<Minute> {
        (!self.values.is_empty()).then_some(Minute(self.first))
    }

    /// Gives the demand of a minute; `None` in a gap, before the first and after the latest value.
    #[must_use]
    pub fn get(&self, minute: Minute) -> Option<f64> {
        let after = self.gaps.partition_point(|(_, end)| *end <= minute.0);
        let in_gap = self.gaps.get(after).is_some_and(|(from, _)| *from <= minute.0);
        if in_gap { None } else { self.carried(minute) }
    }

    /// Gives the demand of a minute, in a gap the last one known before it.
    #[must_use]
    pub fn carried(&self, minute: Minute) -> Option<f64> {
        let at = usize::try_from(minute.0 - self.first).ok()?;
        self.values.get(at).map(|value| f64::from(*value))
    }

    /// Counts the minutes from the first to the latest value, gaps among them.
    #[must_use]
    pub fn span(&self) -> usize {
        self.values.len()
    }

    /// Counts the minutes that have a value.
    #[must_use]
    pub fn measured(&self) -> usize {
        // A gap whose beginning was trimmed away counts from the first minute that is kept.
        let missing: i64 = self.gaps.iter().map(|(from, to)| to - from.max(&self.first)).sum();
        self.values.len().saturating_sub(usize::try_from(missing).unwrap_or(0))
    }

    /// Lists the stretches without values: from, and to before.
    pub fn gaps(&self) -> impl Iterator<Item = (Minute, Minute)> {
        self.gaps.iter().map(|(from, to)| (Minute(*from), Minute(*to)))
    }

    /// Lists the values there are, in order. A forecaster that observes them again knows what it knew.
    pub fn iter(&self) -> impl Iterator<Item = (Minute, f64)> {
        let minutes = (self.first..).take(self.values.len()).map(Minute);
        minutes.filter_map(|minute| Some((minute, self.get(minute)?)))
    }

    /// Gives the carried values, oldest first.
    pub(super) fn levels(&self) -> &[f32] {
        &self.values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_no_zero_and_what_is_carried_is_the_last_value() {
        let mut history = DemandHistory::default();
        for (minute, value) in [(10, 4.0), (11, 5.0), (14, 7.0)] {
            history.observe(Minute(minute), value).expect("it is later");
        }
        let seen: Vec<_> = (9..16).map(|minute| history.get(Minute(minute))).collect();
        assert_eq!(seen, [None, Some(4.0), Some(5.0), None, None, Some(7.0), None]);
        assert_eq!(history.carried(Minute(13)), Some(5.0));
        assert_eq!(history.gaps().collect::<Vec<_>>(), [(Minute(12), Minute(14))]);
        assert_eq!((history.iter().count(), history.measured(), history.span()), (3, 3, 5));
    }

    #[test]
    fn what_is_no_demand_or_comes_late_is_refused_and_changes_nothing() {
        let mut history = DemandHistory::default();
        history.observe(Minute(5), 1.0).expect("the first");
        let before = history.clone();
        for value in [-0.1, f64::NAN, f64::INFINITY] {
            assert!(matches!(history.observe(Minute(6), value), Err(Refused::Absurd { .. })), "{value}");
        }
        for minute in [5, 4] {
            let refused = history.observe(Minute(minute), 1.0);
            assert_eq!(refused, Err(Refused::NotLater { minute: Minute(minute), latest: Minute(5) }));
        }
        assert_eq!(history, before);
    }

    #[test]
    fn it_keeps_28_days_and_begins_anew_after_a_longer_silence() {
        let mut history = DemandHistory::default();
        for minute in 0..60 * 1440 {
            history.observe(Minute(minute), 1.0).expect("it is later");
        }
        assert!((KEPT..KEPT + 1440).contains(&history.span()));
        history.observe(Minute(200 * 1440), 2.0).expect("it is later");
        assert_eq!((history.span(), history.gaps().count()), (1, 0));
    }
}
