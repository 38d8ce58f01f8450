//! How a replay went, thinned out to what a plot can show.

use super::bill::Rates;
use super::daemon::Step;
use super::fleet::Tick;
use super::judge::Tally;
use serde::Serialize;

/// Minutes that are drawn as one.
const SHORTEST: usize = 10;
/// More intervals than these are more than a screen shows.
const MOST: usize = 6000;

/// How it went, from the first minute that counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Course {
    /// The first minute that counts, since 1970.
    pub start: i64,
    /// Minutes of the replay before it.
    pub warm_up: usize,
    /// Minutes of an interval.
    pub bin_minutes: usize,
    /// Policies whose nodes are drawn, node-fleet first.
    pub trajectories: Vec<Trajectory>,
    /// Demand, what was expected of it, and the quantiles 0.90 and 0.95, in the mean; `None` without a forecast.
    pub band: Vec<Option<[f32; 4]>>,
    /// The reactive imitations with headrooms.
    pub headrooms: Vec<Headroomed>,
    /// Turns of node-fleet that changed the fleet; their minutes are those of the replay.
    pub steps: Vec<Step>,
}

/// A policy over time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trajectory {
    /// Its name.
    pub policy: String,
    /// The intervals; `None` where nothing was measured.
    pub bins: Vec<Option<Bin>>,
}

/// Highest demand, fewest ready nodes, node-minutes paid, node-minutes unmet, launches, minutes measured.
pub type Bin = [f32; 6];

/// What a headroom costs and leaves waiting.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Headroomed {
    policy: String,
    dollars: f64,
    unmet_share: f64,
}

impl Headroomed {
    pub(super) fn of(policy: String, tally: &Tally, rates: &Rates) -> Self {
        let (sum, (on_demand, spot)) = (tally.sum(), tally.bill.dollars(rates));
        Self { policy, dollars: on_demand + spot, unmet_share: sum.unmet / tally.demand.max(f64::MIN_POSITIVE) }
    }
}

/// Minutes of an interval, for so many of them.
fn width(minutes: usize) -> usize {
    SHORTEST.max(minutes.div_ceil(MOST))
}

impl Course {
    pub(super) fn new(start: i64, warm_up: usize, minutes: usize) -> Self {
        Self { start, warm_up, bin_minutes: width(minutes), ..Self::default() }
    }
}

/// Intervals that are being filled.
#[derive(Debug)]
pub(super) struct Bins {
    width: usize,
    bins: Vec<Option<Bin>>,
}

impl Bins {
    pub(super) fn new(minutes: usize) -> Self {
        let width = width(minutes);
        Self { width, bins: vec![None; minutes.div_ceil(width)] }
    }

    #[expect(clippy::cast_precision_loss, reason = "single precision is more than a screen shows")]
    pub(super) fn add(&mut self, minute: usize, demand: f32, tick: Tick) {
        let ready = tick.ready as f32;
        let [highest, fewest, paid, unmet, launches, minutes] =
            self.bins[minute / self.width].get_or_insert([0.0, f32::INFINITY, 0.0, 0.0, 0.0, 0.0]);
        (*highest, *fewest) = (highest.max(demand), fewest.min(ready));
        *paid += tick.paid as f32;
        *unmet += (demand - ready).max(0.0);
        *launches += tick.launched as f32;
        *minutes += 1.0;
    }

    pub(super) fn finished(self) -> Vec<Option<Bin>> {
        self.bins
    }
}

/// The forecast beside what came.
#[derive(Debug)]
pub(super) struct Band {
    width: usize,
    sums: Vec<([f64; 4], f64)>,
}

impl Band {
    pub(super) fn new(minutes: usize) -> Self {
        let width = width(minutes);
        Self { width, sums: vec![([0.0; 4], 0.0); minutes.div_ceil(width)] }
    }

    pub(super) fn add(&mut self, minute: usize, demand: f32, said: [f64; 3]) {
        let (sums, number) = &mut self.sums[minute / self.width];
        for (sum, value) in sums.iter_mut().zip([f64::from(demand), said[0], said[1], said[2]]) {
            *sum += value;
        }
        *number += 1.0;
    }

    #[expect(clippy::cast_possible_truncation, reason = "single precision is more than a screen shows")]
    pub(super) fn finished(&self) -> Vec<Option<[f32; 4]>> {
        self.sums.iter().map(|(sums, number)| (*number > 0.0).then(|| sums.map(|sum| (sum / number) as f32))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_shows_the_highest_demand_and_the_fewest_nodes() {
        let mut bins = Bins::new(25);
        bins.add(0, 1.5, Tick { ready: 2, paid: 3, launched: 1 });
        bins.add(9, 4.0, Tick { ready: 3, paid: 3, launched: 0 });
        bins.add(24, 0.0, Tick { ready: 1, paid: 1, launched: 0 });
        assert_eq!(bins.finished(), [Some([4.0, 2.0, 6.0, 1.0, 1.0, 2.0]), None, Some([0.0, 1.0, 1.0, 0.0, 0.0, 1.0])]);
        assert!(525_600_usize.div_ceil(width(525_600)) <= MOST);
    }
}
