//! How well the forecast did against those that need no model.

use serde::Serialize;

/// The quantiles that are scored.
pub const SCORED: [f64; 2] = [0.9, 0.95];

/// A score counts half after so many minutes: a wrecked forecast is found out within the day.
const HALF_LIFE: f64 = 480.0;
/// Scores of fewer minutes than these say nothing.
const ENOUGH: f64 = 240.0;
/// Trust is lost when the loss exceeds the better naive one by this factor, and won back at none.
const LOST_AT: f64 = 1.1;
/// A forecast that loses so many times what the worse naive one does is wrong, whatever following it has paid lately, until it
/// is no longer worse than [`NOT_AS_BAD`].
const FAR_WORSE: f64 = 2.0;
/// See [`FAR_WORSE`]: between the two it stays what it is.
const NOT_AS_BAD: f64 = 1.5;
/// A loss of a smaller part of a node is no reason against a forecast, however little a naive one loses in a quiet time,
/// as over a weekend.
const HARMLESS: f64 = 0.01;
/// A loss below this share of the mean demand is nothing.
const NEGLIGIBLE: f64 = 0.01;

/// How a forecast did lately.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Score {
    /// Mean pinball loss over the scored quantiles, in units of demand.
    pub pinball: f64,
    /// Share of minutes whose demand was at most the quantile, for each of the scored ones.
    pub coverage: [f64; 2],
}

/// The forecast's record beside the naive ones, over about the last day.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Record {
    /// The forecast.
    pub forecast: Score,
    /// "As it is", with a margin.
    pub persistence: Score,
    /// "As it was at this time yesterday", with a margin; `None` before there is a yesterday.
    pub seasonal: Option<Score>,
    /// Mean demand, in the same weights.
    pub demand: f64,
    /// Minutes that were scored.
    pub minutes: u64,
}

impl Record {
    /// Gives the forecast's loss as a share of the better naive one's: below one, it is worth its while.
    ///
    /// A loss that is nothing beside the demand counts as that much: where every day is the same, the day before is
    /// without fault, and no forecast is better.
    #[must_use]
    pub fn relative_loss(&self) -> f64 {
        let naive = self.seasonal.map_or(self.persistence.pinball, |it| it.pinball.min(self.persistence.pinball));
        self.beside(naive)
    }

    /// Gives the forecast's loss as a share of the worse naive one's. Where the better one is nearly without fault, as for
    /// jobs that come each day, a forecast may lose many times more and be of great use; not so where even the worse is
    /// much better.
    fn loss_beside_the_worse(&self) -> f64 {
        self.beside(self.seasonal.map_or(self.persistence.pinball, |it| it.pinball.max(self.persistence.pinball)))
    }

    fn beside(&self, naive: f64) -> f64 {
        let naive = naive.max(NEGLIGIBLE * self.demand);
        if naive > 0.0 {
            self.forecast.pinball / naive
        } else if self.forecast.pinball > 0.0 {
            f64::MAX
        } else {
            1.0
        }
    }
}

/// Keeps the record, and the trust that follows from it.
#[derive(Debug, Clone)]
pub(super) struct Scorer {
    entrants: [Entrant; 3],
    /// Mean demand, and the weight of what it is the mean of.
    demand: (f64, f64),
    seasonal_minutes: u64,
    minutes: u64,
    trusted: bool,
    far_worse: bool,
}

/// What was said of a minute: the forecast's quantiles, and the two naive centres.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said {
    pub quantiles: [f64; 2],
    pub persistence: f64,
    pub seasonal: Option<f64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Entrant {
    score: Score,
    /// What a naive forecast adds for each quantile; it follows the coverage.
    margins: [f64; 2],
    error: f64,
    weight: f64,
}

impl Entrant {
    fn margin(&mut self, value: f64, centre: f64) -> [f64; 2] {
        let quantiles = self.margins.map(|margin| centre + margin);
        self.error += ((value - centre).abs() - self.error) / (self.weight + 1.0).min(1440.0);
        for ((margin, quantile), level) in self.margins.iter_mut().zip(quantiles).zip(SCORED) {
            let covered = if value <= quantile { 1.0 } else { 0.0 };
            *margin += 0.1 * self.error * (level - covered);
        }
        quantiles
    }

    fn add(&mut self, value: f64, quantiles: [f64; 2]) {
        self.weight = self.weight * fade() + 1.0;
        let step = 1.0 / self.weight;
        let loss = |quantile: f64, level: f64| (level * (value - quantile)).max((level - 1.0) * (value - quantile));
        let mean = f64::midpoint(loss(quantiles[0], SCORED[0]), loss(quantiles[1], SCORED[1]));
        self.score.pinball += step * (mean - self.score.pinball);
        for (coverage, quantile) in self.score.coverage.iter_mut().zip(quantiles) {
            let covered = if value <= quantile { 1.0 } else { 0.0 };
            *coverage += step * (covered - *coverage);
        }
    }
}

impl Scorer {
    pub(super) fn new() -> Self {
        Self { entrants: [Entrant::default(); 3], demand: (0.0, 0.0), seasonal_minutes: 0, minutes: 0, trusted: true, far_worse: false }
    }

    /// Scores what was said of a minute whose demand is known, of which a node serves so much.
    pub(super) fn score(&mut self, said: &Said, value: f64, node: f64) {
        let (mean, weight) = &mut self.demand;
        *weight = *weight * fade() + 1.0;
        *mean += (value - *mean) / *weight;
        let [forecast, persistence, seasonal] = &mut self.entrants;
        forecast.add(value, said.quantiles);
        let quantiles = persistence.margin(value, said.persistence);
        persistence.add(value, quantiles);
        if let Some(centre) = said.seasonal {
            let quantiles = seasonal.margin(value, centre);
            seasonal.add(value, quantiles);
            self.seasonal_minutes += 1;
        }
        self.minutes += 1;
        let record = self.record();
        let loss = record.relative_loss();
        let (bar, harms) = (if self.far_worse { NOT_AS_BAD } else { FAR_WORSE }, record.forecast.pinball > HARMLESS * node);
        self.far_worse = harms && record.loss_beside_the_worse() >= bar;
        self.trusted = !harms || if self.trusted { forecast_is_new(self.minutes) || loss <= LOST_AT } else { loss <= 1.0 };
    }

    pub(super) fn record(&self) -> Record {
        let [forecast, persistence, seasonal] = self.entrants.map(|entrant| entrant.score);
        let is_known = self.seasonal_minutes as f64 >= ENOUGH;
        Record { forecast, persistence, seasonal: is_known.then_some(seasonal), demand: self.demand.0, minutes: self.minutes }
    }

    /// Tells whether too little was scored to judge by.
    pub(super) fn is_new(&self) -> bool {
        forecast_is_new(self.minutes)
    }

    /// Counts the minutes that are still to be scored before it can be judged.
    #[expect(clippy::cast_possible_truncation, reason = "a few hundred")]
    pub(super) fn missing(&self) -> i64 {
        (ENOUGH - self.minutes as f64).max(0.0) as i64
    }

    /// Tells whether the forecast is so bad that nothing else speaks for it.
    pub(super) fn is_far_worse(&self) -> bool {
        self.far_worse
    }

    /// Tells whether the forecast has earned its place.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }
}

/// What a minute weighs one minute later.
fn fade() -> f64 {
    0.5_f64.powf(1.0 / HALF_LIFE)
}

fn forecast_is_new(minutes: u64) -> bool {
    (minutes as f64) < ENOUGH
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A demand that swings; the forecast knows it up to an error.
    fn scored(error: f64, minutes: i32) -> Scorer {
        let mut scorer = Scorer::new();
        for minute in 0..minutes {
            let value = |minute: i32| 10.0 + f64::from(minute % 20);
            let said = Said { quantiles: [value(minute) + error; 2], persistence: value(minute - 3), seasonal: None };
            scorer.score(&said, value(minute), 1.0);
        }
        scorer
    }

    #[test]
    fn a_good_forecast_is_trusted_and_a_bad_one_is_not() {
        assert!(scored(0.5, 1000).is_trusted());
        assert!(!scored(-30.0, 1000).is_trusted());
        assert!(scored(-30.0, 200).is_trusted(), "too few minutes to tell");
    }

    #[test]
    fn a_naive_forecast_without_fault_is_no_reason_against_one_that_is_nearly_so() {
        let scored = |error: f64| {
            let mut scorer = Scorer::new();
            for _ in 0..3000 {
                scorer.score(&Said { quantiles: [10.0 + error; 2], persistence: 10.0, seasonal: Some(10.0) }, 10.0, 1.0);
            }
            scorer
        };
        assert!(scored(0.5).is_trusted());
        assert!(!scored(-5.0).is_trusted());
        assert!(scored(0.5).record().relative_loss().is_finite());
    }

    #[test]
    fn what_is_far_worse_stays_so_until_it_is_much_better_and_a_part_of_a_node_is_none() {
        let far_worse = |losses: &[f64], node: f64| {
            let mut scorer = Scorer::new();
            // Long enough that what was before is forgotten. Beside a naive forecast without fault, 0.1 is nothing.
            losses
                .iter()
                .map(|loss| {
                    (0..10_000).for_each(|_| {
                        let said = Said { quantiles: [10.0 + loss / 0.075; 2], persistence: 10.0, seasonal: Some(10.0) };
                        scorer.score(&said, 10.0, node);
                    });
                    scorer.is_far_worse()
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(far_worse(&[0.18, 0.21, 0.18, 0.14, 0.18], 1.0), [false, true, true, false, false]);
        assert_eq!(far_worse(&[0.21, 0.5], 30.0), [false, true]);
    }

    #[test]
    fn the_naive_margins_cover_what_they_should() {
        let record = scored(0.5, 5000).record();
        for (coverage, level) in record.persistence.coverage.into_iter().zip(SCORED) {
            assert!((coverage - level).abs() < 0.03, "{coverage} {level}");
        }
        assert!(record.relative_loss() < 1.0);
    }

    #[test]
    fn the_margins_of_a_naive_forecast_that_is_right_stay_at_nothing() {
        let mut entrant = Entrant::default();
        for _ in 0..100 {
            let quantiles = entrant.margin(10.0, 10.0);
            assert!(quantiles.iter().all(|quantile| (quantile - 10.0).abs() < 1e-9), "{quantiles:?}");
        }
    }
}
