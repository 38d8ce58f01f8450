//! The cheapest that any policy could have been, had it known what was to come.

use crate::policy::forecast::whole_nodes;

/// What the optimum costs, in node-minutes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Optimum {
    /// Nodes times minutes, boots included.
    pub node_minutes: f64,
    /// Node-minutes of demand that is left to wait, because serving it would cost more.
    pub unmet: f64,
    /// Nodes that were started.
    pub launches: u64,
}

impl Optimum {
    /// Gives what is minimised: node-minutes, and those unmet at their price.
    #[must_use]
    pub fn cost(&self, price: f64) -> f64 {
        self.node_minutes + price * self.unmet
    }
}

/// Finds the exact optimum for a demand in nodes, one value a minute.
///
/// The cost of a fleet separates by layer: what the `k`-th node leaves unserved when it is off is the demand between
/// `k - 1` and `k`, whatever the others do, and as the layers' demands lie above each other, so do the optimal layers.
/// Each is a programme of two states: on costs a minute, off costs the price of what waits, a start costs the boot.
/// What it begins with is free, so it is a bound for fleets that begin with anything. `O(minutes x nodes)`.
#[must_use]
pub fn clairvoyant(demand: &[f32], boot: f64, price: f64) -> Optimum {
    clairvoyant_paths(demand, boot, price, |_, _, _| {}, || {})
}

/// Counts the layers that the optimum is found by, one after the other.
#[must_use]
pub fn layers(demand: &[f32]) -> usize {
    whole_nodes(f64::from(demand.iter().fold(0.0_f32, |high, value| high.max(*value)))) as usize
}

/// Finds the optimum, and tells of each minute in which a layer is on: the layer from 0, the minute, and whether the layer
/// starts with it, a boot before. `is_done` is called after each layer.
pub fn clairvoyant_paths(
    demand: &[f32],
    boot: f64,
    price: f64,
    mut is_on: impl FnMut(usize, usize, bool),
    mut is_done: impl FnMut(),
) -> Optimum {
    let mut sum = Optimum::default();
    // Whether the cheapest way to be off (bit 0) or on (bit 1) in a minute was in the other state before it.
    let mut switched = vec![0_u8; demand.len()];
    for layer in 0..layers(demand) {
        let waits = |value: f32| (f64::from(value) - layer as f64).clamp(0.0, 1.0);
        let (mut off, mut on) = (0.0_f64, 0.0_f64);
        for (value, switched) in demand.iter().zip(&mut switched) {
            let (stop, start) = (on < off, off + boot < on);
            *switched = u8::from(stop) | u8::from(start) << 1;
            (off, on) = (if stop { on } else { off } + price * waits(*value), if start { off + boot } else { on } + 1.0);
        }
        let mut state = on < off;
        for minute in (0..demand.len()).rev() {
            let changed = switched[minute] >> u8::from(state) & 1 == 1;
            if state {
                is_on(layer, minute, changed);
                sum.node_minutes += 1.0;
            } else {
                sum.unmet += waits(demand[minute]);
            }
            if state && changed {
                sum.node_minutes += boot;
                sum.launches += 1;
            }
            state ^= changed;
        }
        is_done();
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Tries every sequence of node counts.
    fn exhaustive(demand: &[f32], most: u32, boot: f64, price: f64) -> f64 {
        let mut costs = vec![0.0_f64; most as usize + 1];
        for value in demand {
            let after = |now: usize| {
                let cheapest = costs.iter().enumerate().map(|(before, cost)| cost + boot * now.saturating_sub(before) as f64);
                let waits = (f64::from(*value) - now as f64).max(0.0);
                cheapest.fold(f64::INFINITY, f64::min) + now as f64 + price * waits
            };
            costs = (0..costs.len()).map(after).collect();
        }
        costs.into_iter().fold(f64::INFINITY, f64::min)
    }

    /// Walks through all paths, one by one: what `exhaustive` could share with the programme, this does not.
    fn every_path(demand: &[f32], most: u32, boot: f64, price: f64, before: Option<u32>) -> f64 {
        let Some((value, rest)) = demand.split_first() else { return 0.0 };
        let cost = |now: u32| {
            let starts = before.map_or(0, |before| now.saturating_sub(before));
            let waits = (f64::from(*value) - f64::from(now)).max(0.0);
            boot * f64::from(starts) + f64::from(now) + price * waits + every_path(rest, most, boot, price, Some(now))
        };
        (0..=most).map(cost).fold(f64::INFINITY, f64::min)
    }

    proptest! {
        #[test]
        fn agrees_with_an_exhaustive_search(
            demand in proptest::collection::vec(0.0_f32..3.0, 1..7), boot in 1_u8..4, price in 0.5_f64..30.0,
        ) {
            let found = clairvoyant(&demand, f64::from(boot), price);
            let expected = every_path(&demand, 3, f64::from(boot), price, None);
            prop_assert!((found.cost(price) - expected).abs() < 1e-4, "{found:?} {expected}");
        }

        #[test]
        fn agrees_with_a_search_over_all_node_counts_on_longer_demands(
            demand in proptest::collection::vec(0.0_f32..8.0, 1..200), boot in 1_u8..6, price in 0.5_f64..100.0,
        ) {
            let found = clairvoyant(&demand, f64::from(boot), price);
            let expected = exhaustive(&demand, 8, f64::from(boot), price);
            prop_assert!((found.cost(price) - expected).abs() < 1e-3 * expected, "{found:?} {expected}");
        }
    }

    #[test]
    fn it_lets_a_short_peak_wait_when_waiting_is_cheaper_than_a_boot() {
        let demand = [0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0];
        assert_eq!(clairvoyant(&demand, 2.0, 2.0), Optimum { node_minutes: 0.0, unmet: 1.0, launches: 0 });
        assert_eq!(clairvoyant(&demand, 2.0, 20.0), Optimum { node_minutes: 3.0, unmet: 0.0, launches: 1 });
    }
}
