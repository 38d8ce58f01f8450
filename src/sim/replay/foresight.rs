//! What would be forecast of one demand in each of its minutes, for many replays of it.

use super::recording::Recording;
use crate::model::prospect::Wanted;
use crate::policy::forecast::{ForecastSettings, Forecaster};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What is wanted in a minute, and whether nothing is because the demand is not known.
type Said = (Option<Wanted>, bool);

/// Forecasts of one demand, made once for each boot.
///
/// They act from the first minute, without a trial. In a daemon the boot changes when launches show another boot; here
/// each boot is forecast as if it had always been so, and for the same rests, whatever those are that a replay tries.
/// That is close enough to choose by, and costs a hundredth.
#[derive(Debug)]
pub(super) struct Foresight {
    recording: Recording,
    settings: ForecastSettings,
    /// By boot, in minutes; then by the minute of the recording.
    said: RefCell<BTreeMap<usize, Vec<Said>>>,
}

impl Foresight {
    /// Makes one for a demand; the lead is another one each time.
    pub(super) fn new(recording: Recording, settings: ForecastSettings) -> Self {
        Self { recording, settings, said: RefCell::default() }
    }

    /// Gives what is said in a minute, counted from the recording's first, with nodes that are `boot` minutes away.
    pub(super) fn say(&self, boot: usize, minute: usize) -> Said {
        let mut said = self.said.borrow_mut();
        said.entry(boot).or_insert_with(|| self.forecast(boot)).get(minute).copied().unwrap_or((None, true))
    }

    /// Says of each minute what was known before it.
    fn forecast(&self, boot: usize) -> Vec<Said> {
        let Recording { start, values, .. } = &self.recording;
        let mut forecaster = Forecaster::new(ForecastSettings { boot, ..self.settings.clone() });
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
