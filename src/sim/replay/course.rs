//! How a replay went, thinned out to what a plot can show.

use super::bill::Rates;
use super::daemon::Step;
use super::judge::{Day, Tally};
use super::recording::Recording;
use serde::Serialize;

/// More intervals than these, the minutes of four weeks, are more than a page should carry.
const MOST: usize = 28 * 1440;

/// How it went, from the first minute that counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Course {
    /// The first minute that counts, since 1970.
    pub start: i64,
    /// Minutes of the replay before it.
    pub warm_up: usize,
    /// Minutes of an interval.
    pub bin_minutes: usize,
    /// The highest demand of each interval; `None` where nothing was measured.
    pub demand: Vec<Option<f32>>,
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
#[derive(Debug, Clone, PartialEq)]
pub struct Trajectory {
    /// Its name.
    pub policy: String,
    /// Whether it is among the few that are looked at first.
    pub leads: bool,
    /// The fewest nodes that served in each interval; `None` where nothing was measured.
    pub nodes: Vec<Option<u32>>,
    /// What it came to day by day, of 1440 minutes; none for the optimum, which is found layer by layer.
    pub days: Vec<Day>,
}

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
    minutes.div_ceil(MOST).max(1)
}

impl Course {
    /// Begins the course of a demand, whose first minutes do not count.
    pub(super) fn of(recording: &Recording, warm_up: usize) -> Self {
        let counted = &recording.values[warm_up..];
        let bin_minutes = width(counted.len());
        let highest = |bin: &[Option<f32>]| bin.iter().flatten().copied().reduce(f32::max);
        let demand = counted.chunks(bin_minutes).map(highest).collect();
        Self { start: recording.start.0 + warm_up as i64, warm_up, bin_minutes, demand, ..Self::default() }
    }
}

/// Intervals that are being filled.
#[derive(Debug)]
pub(super) struct Bins {
    width: usize,
    nodes: Vec<Option<u32>>,
}

impl Bins {
    pub(super) fn new(minutes: usize) -> Self {
        let width = width(minutes);
        Self { width, nodes: vec![None; minutes.div_ceil(width)] }
    }

    pub(super) fn add(&mut self, minute: usize, ready: u32) {
        let fewest = self.nodes[minute / self.width].get_or_insert(ready);
        *fewest = ready.min(*fewest);
    }

    pub(super) fn finished(self, policy: String, leads: bool, days: Vec<Day>) -> Trajectory {
        Trajectory { policy, leads, nodes: self.nodes, days }
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
        let mut recording = Recording::whole(crate::policy::forecast::Minute(7), &vec![0.5; 1 + 2 * MOST]);
        let values = &mut recording.values;
        (values[1], values[2], values[3], values[4]) = (Some(4.0), None, None, None);
        let course = Course::of(&recording, 1);
        assert_eq!((course.start, course.bin_minutes, course.demand.len()), (8, 2, MOST));
        assert_eq!(course.demand[..3], [Some(4.0), None, Some(0.5)]);
        let mut bins = Bins::new(2 * MOST);
        for (minute, ready) in [(0, 3), (1, 2), (5, 1)] {
            bins.add(minute, ready);
        }
        assert_eq!(bins.finished("a policy".into(), true, Vec::new()).nodes[..4], [Some(2), None, Some(1), None]);
        assert_eq!((width(0), width(MOST), width(MOST + 1)), (1, 1, 2));
    }
}
