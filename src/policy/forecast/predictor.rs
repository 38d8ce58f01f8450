//! Forecasts of the next half hour, each with its distribution.

use super::features::{DOUBTS, FARTHEST, Past, WIDTH};
use super::residuals::{Above, Residuals};
use super::ridge::Ridge;
use std::collections::VecDeque;

/// The minutes ahead that have a model of their own; those between are interpolated.
pub(super) const HORIZONS: [usize; 10] = [1, 2, 3, 4, 5, 7, 10, 15, 20, 30];
/// The quantiles whose coverage is kept under control.
pub(super) const LEVELS: [f64; 8] = [0.5, 0.7, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995];

/// Rows lose half their weight in ten days: long enough for a week's pattern, short enough for a new release.
const HALF_LIFE: f64 = 10.0 * 1440.0;
/// The distribution of errors follows faster than the model.
const ERROR_HALF_LIFE: f64 = 4.0 * 1440.0;
const RIDGE: f64 = 1e-3;
/// How fast the level asked of the distribution follows the coverage seen.
const PACE: f64 = 0.004;

/// The regression, the size of its errors and their distribution, for each horizon.
#[derive(Debug, Clone)]
pub(super) struct Predictor {
    models: Vec<Model>,
    #[cfg(test)]
    wrecked: Option<f64>,
}

#[derive(Debug, Clone)]
struct Model {
    ahead: usize,
    change: Ridge<WIDTH>,
    size: Ridge<DOUBTS>,
    residuals: Residuals,
    /// What is asked of the residuals to cover what `LEVELS` promise.
    asked: [f64; LEVELS.len()],
    error_lately: f64,
    error_long: f64,
    /// Forecasts whose minute has not come, oldest first.
    open: VecDeque<Open>,
    learnt: usize,
}

/// A forecast that waits for its minute.
#[derive(Debug, Clone)]
struct Open {
    row: [f64; WIDTH],
    doubts: [f64; DOUBTS],
    level: f64,
    outlook: Outlook,
}

/// What is expected of one minute: a centre, the size of the error, and the quantiles of `LEVELS`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Outlook {
    pub centre: f64,
    pub size: f64,
    pub quantiles: [f64; LEVELS.len()],
}

#[cfg(test)]
impl Outlook {
    fn wrecked(self, factor: f64) -> Self {
        Self { centre: self.centre * factor, size: self.size, quantiles: self.quantiles.map(|quantile| quantile * factor) }
    }
}

impl Model {
    fn new(ahead: usize) -> Self {
        Self {
            ahead,
            change: Ridge::new(HALF_LIFE, RIDGE),
            size: Ridge::new(HALF_LIFE, RIDGE),
            residuals: Residuals::new(ERROR_HALF_LIFE),
            asked: LEVELS,
            error_lately: 0.0,
            error_long: 0.0,
            open: VecDeque::new(),
            learnt: 0,
        }
    }

    /// Learns from the forecast made for this minute; `None` in a gap, where nothing can be learnt.
    fn learn(&mut self, value: Option<f64>) {
        let Some(open) = (self.open.len() >= self.ahead).then(|| self.open.pop_front()).flatten() else { return };
        let Some(value) = value else { return };
        let error = (value - open.outlook.centre).abs();
        self.change.learn(&open.row, value - open.level);
        self.size.learn(&open.doubts, error);
        self.residuals.learn((value - open.outlook.centre) / open.outlook.size);
        self.error_lately += (error - self.error_lately) / 15.0;
        self.error_long += (error - self.error_long) / (1440.0_f64).min(self.learnt as f64 + 1.0);
        for ((asked, level), quantile) in self.asked.iter_mut().zip(LEVELS).zip(open.outlook.quantiles) {
            let covered = if value <= quantile { 1.0 } else { 0.0 };
            *asked = (*asked + PACE * (level - covered)).clamp(0.02, 0.9995);
        }
        self.learnt += 1;
    }

    fn look(&mut self, past: &Past, levels: &[f32]) -> Outlook {
        let level = f64::from(levels[levels.len() - 1]);
        let row = past.describe(levels, self.ahead);
        let centre = (level + self.change.predict(&row)).max(0.0);
        let doubts = past.doubts(self.ahead, centre, self.error_lately, self.error_long);
        let floor = 0.2 * self.error_long + 1e-4 * centre + f64::MIN_POSITIVE;
        let size = self.size.predict(&doubts).max(floor);
        let mut least = 0.0_f64;
        let quantiles = self.asked.map(|asked| {
            least = least.max(centre + size * self.residuals.quantile(asked));
            least
        });
        let outlook = Outlook { centre, size, quantiles };
        self.open.push_back(Open { row, doubts, level, outlook });
        outlook
    }
}

/// The expected excess of demand over one capacity after another, each larger than the one before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excess<'a> {
    centre: f64,
    size: f64,
    /// One over the size.
    per_size: f64,
    above: Above<'a>,
}

impl Excess<'_> {
    pub(super) fn over(&mut self, capacity: f64) -> f64 {
        self.size * self.above.excess((capacity - self.centre) * self.per_size)
    }
}

impl Predictor {
    pub(super) fn new() -> Self {
        Self {
            models: HORIZONS.iter().map(|ahead| Model::new(*ahead)).collect(),
            #[cfg(test)]
            wrecked: None,
        }
    }

    /// Learns what the minute brought that is the last of `levels`; `None` in a gap.
    pub(super) fn learn(&mut self, value: Option<f64>) {
        self.models.iter_mut().for_each(|model| model.learn(value));
    }

    /// Looks ahead from the last of `levels`.
    pub(super) fn look(&mut self, past: &Past, levels: &[f32]) -> Vec<Outlook> {
        let outlooks = self.models.iter_mut().map(|model| model.look(past, levels));
        #[cfg(test)]
        let outlooks = outlooks.map(|outlook| self.wrecked.map_or(outlook, |factor| outlook.wrecked(factor)));
        outlooks.collect()
    }

    #[cfg(test)]
    pub(super) fn wreck(&mut self, factor: f64) {
        self.wrecked = Some(factor);
    }

    /// Fits the models to what they have learnt.
    pub(super) fn fit(&mut self) {
        for model in &mut self.models {
            model.change.fit();
            model.size.fit();
        }
    }

    /// Brings the distributions of the errors up to date.
    pub(super) fn settle(&mut self) {
        self.models.iter_mut().for_each(|model| model.residuals.settle());
    }

    /// Asks for the expected excess of demand over capacities that grow, from this one on, at a horizon of [`HORIZONS`].
    pub(super) fn above(&self, at: usize, outlook: &Outlook, capacity: f64) -> Excess<'_> {
        let Outlook { centre, size, .. } = *outlook;
        let per_size = 1.0 / size;
        Excess { centre, size, per_size, above: self.models[at].residuals.above((capacity - centre) * per_size) }
    }
}

const _: () = assert!(HORIZONS[HORIZONS.len() - 1] == FARTHEST);
