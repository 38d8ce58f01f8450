//! What a forecast said, held against what came.

use super::course::Band;
use crate::policy::forecast::{Forecaster, Minute};
use serde::Serialize;
use std::collections::VecDeque;

/// Mean pinball loss over the quantiles 0.90 and 0.95, in nodes: what is lost by saying too much or too little.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pinball {
    /// The forecast's.
    pub forecast: f64,
    /// That of "as it is", with a margin.
    pub persistence: f64,
    /// That of "as it was at this time yesterday", with a margin; `None` where there was no yesterday.
    pub seasonal: Option<f64>,
}

/// Counts how often demand stayed below what the forecast promised, and what it lost.
#[derive(Debug)]
pub(super) struct Coverage {
    /// So many minutes ahead.
    ahead: usize,
    /// What was said of the minutes to come, the next one first: the centre and two quantiles.
    said: VecDeque<Option<[f64; 3]>>,
    covered: [u64; 2],
    minutes: u64,
    /// Sums of the losses as the forecaster keeps them, each of about the last day, and the minutes that they are of.
    losses: [(f64, u64); 3],
    pub band: Band,
}

impl Coverage {
    pub(super) fn new(ahead: usize, band: Band) -> Self {
        Self { ahead, said: VecDeque::new(), covered: [0; 2], minutes: 0, losses: [(0.0, 0); 3], band }
    }

    pub(super) fn has_begun(&self) -> bool {
        !self.said.is_empty()
    }

    /// Takes a minute with its demand, if that was measured, and its place among those that count.
    pub(super) fn minute(&mut self, forecaster: Option<&Forecaster>, now: Minute, value: Option<f32>, counts: Option<usize>) {
        self.said.push_back(forecaster.and_then(|forecaster| said_of(forecaster, now.plus(self.ahead as i64))));
        let said = if self.said.len() > self.ahead { self.said.pop_front().flatten() } else { None };
        let (Some(said), Some(value), Some(at)) = (said, value, counts) else { return };
        self.minutes += 1;
        self.band.add(at, value, said);
        for (covered, quantile) in self.covered.iter_mut().zip(&said[1..]) {
            *covered += u64::from(f64::from(value) <= *quantile);
        }
        if let Some(record) = forecaster.map(Forecaster::record) {
            let losses = [Some(record.forecast.pinball), Some(record.persistence.pinball), record.seasonal.map(|score| score.pinball)];
            for ((sum, minutes), loss) in self.losses.iter_mut().zip(losses) {
                *sum += loss.unwrap_or(0.0);
                *minutes += u64::from(loss.is_some());
            }
        }
    }

    pub(super) fn shares(&self) -> Option<[f64; 2]> {
        (self.minutes > 0).then(|| self.covered.map(|covered| covered as f64 / self.minutes as f64))
    }

    pub(super) fn pinball(&self) -> Option<Pinball> {
        let mean = |(sum, minutes): (f64, u64)| (minutes > 0).then(|| sum / minutes as f64);
        let [forecast, persistence, seasonal] = self.losses.map(mean);
        Some(Pinball { forecast: forecast?, persistence: persistence?, seasonal })
    }
}

/// Gives what is said of a minute. In a gap it is farther from the latest minute that is known.
fn said_of(forecaster: &Forecaster, minute: Minute) -> Option<[f64; 3]> {
    let ahead = usize::try_from(minute.0 - forecaster.history().latest()?.0).ok()?;
    let expected = forecaster.expect(ahead)?;
    Some([expected.centre, expected.quantile_90, expected.quantile_95])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::forecast::{ForecastSettings, Rests};
    use crate::sim::front::scenario::{base_policy, base_pool};

    #[test]
    fn what_is_said_in_a_gap_is_of_the_minute_that_it_is_held_against() {
        let rests = Rests::of(&base_policy(vec![base_pool("workers")]));
        let mut forecaster =
            Forecaster::new(ForecastSettings { node: 1.0, boot: 4, price_of_waiting: 20.0, rests, zone: jiff::tz::TimeZone::UTC });
        // A ramp: what is expected differs from minute to minute.
        for minute in 0..1000_u16 {
            forecaster.observe(Minute(i64::from(minute)), f64::from(minute % 500)).expect("it is demand");
        }
        let said = |minute| said_of(&forecaster, Minute(minute)).map(|[centre, ..]| centre);
        let expected = |ahead| forecaster.expect(ahead).map(|expected| expected.centre);
        // Minute 999 is the latest; eight minutes into a gap, minute 1010 is eleven ahead.
        assert_eq!((said(1002), said(1010)), (expected(3), expected(11)));
        assert_ne!(expected(3), expected(11));
        assert_eq!(said(1050), None, "as far as that nothing is forecast");
    }

    #[test]
    fn losses_are_those_of_the_forecaster_in_the_minutes_that_count() {
        let rests = Rests::of(&base_policy(vec![base_pool("workers")]));
        let mut forecaster =
            Forecaster::new(ForecastSettings { node: 1.0, boot: 4, price_of_waiting: 20.0, rests, zone: jiff::tz::TimeZone::UTC });
        let mut coverage = Coverage::new(2, Band::new(600));
        assert_eq!(coverage.pinball(), None);
        for minute in 0..1200_u16 {
            let value = f32::from(10 + minute % 60 / 6);
            let counts = usize::from(minute).checked_sub(600);
            coverage.minute(Some(&forecaster), Minute(i64::from(minute)), Some(value), counts);
            forecaster.observe(Minute(i64::from(minute)), f64::from(value)).expect("it is demand");
        }
        let pinball = coverage.pinball().expect("it was scored");
        assert!(0.0 < pinball.forecast && pinball.forecast < pinball.persistence, "{pinball:?}");
        assert_eq!(pinball.seasonal, None, "there was no yesterday");
    }
}
