//! What would be forecast of one demand in each of its minutes, for many replays of it.

use super::recording::Recording;
use crate::model::prospect::Wanted;
use crate::policy::forecast::{ForecastSettings, Forecaster, Rests};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What is wanted in a minute, and whether nothing is because the demand is not known.
type Said = (Option<Wanted>, bool);

/// Forecasts of one demand, made once for each boot and each interval of evaluations.
///
/// They act from the first minute, without a trial. In a daemon the boot changes when launches show another one; here
/// each is forecast as if it had always been so, and for the same other rests, whatever those are that a replay tries.
/// That is close enough to choose by, and costs a hundredth; what was chosen is judged by forecasts of its own.
#[derive(Debug)]
pub(super) struct Foresight {
    recording: Recording,
    settings: ForecastSettings,
    /// By boot and interval, in minutes; then by the minute of the recording.
    said: RefCell<BTreeMap<(usize, usize), Vec<Said>>>,
}

impl Foresight {
    /// Makes one for a demand; boot and interval are others each time.
    pub(super) fn new(recording: Recording, settings: ForecastSettings) -> Self {
        Self { recording, settings, said: RefCell::default() }
    }

    /// Gives what is said in a minute, counted from the recording's first, with nodes that are `boot` minutes away
    /// and an evaluation `every` so many minutes.
    pub(super) fn say(&self, boot: usize, every: usize, minute: usize) -> Said {
        let mut said = self.said.borrow_mut();
        said.entry((boot, every)).or_insert_with(|| self.forecast(boot, every)).get(minute).copied().unwrap_or((None, true))
    }

    /// Says of each minute what was known before it.
    fn forecast(&self, boot: usize, every: usize) -> Vec<Said> {
        let Recording { start, values, .. } = &self.recording;
        let mut forecaster =
            Forecaster::new(ForecastSettings { boot, rests: Rests { every, ..self.settings.rests }, ..self.settings.clone() });
        let say = |(minute, value): (i64, &Option<f32>)| {
            let said = forecaster.say(start.plus(minute));
            if let Some(value) = value {
                // Demand that was read is finite and not negative, and minutes come in order: nothing is refused.
                let taken = forecaster.observe(start.plus(minute), f64::from(*value));
                debug_assert!(taken.is_ok(), "{taken:?}");
            }
            said
        };
        (0..).zip(values).map(say).collect()
    }
}
