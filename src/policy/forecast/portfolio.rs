//! All ways lived through on paper; each hour, the ones that were cheapest run.

use super::candidates::{Scene, Way, ways};
use super::shadow::Shadow;
use crate::model::prospect::Wanted;
use serde::Serialize;

/// How many layers of nodes are judged apart.
const LAYERS: usize = 64;
/// What a way has cost counts half after two days.
const HALF_LIFE_HOURS: f64 = 48.0;
/// What the record of the whole counts in a layer, beside its own: enough to decide where a layer has seen nothing.
const SHRINK: f64 = 0.03;
/// How a fleet is followed until there is a record: what a cluster-autoscaler with a little headroom does.
const FIRST: Way = Way::Reactive { headroom: 0.1, window: 10 };

/// What following a demand has cost lately, beyond the demand itself, in node-minutes. Older ones count less.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Cost {
    /// Node-minutes that were paid for and idle, or booting.
    pub spare: f64,
    /// Node-minutes of demand that waited.
    pub waits: f64,
}

impl Cost {
    /// Gives the sum at a price of waiting.
    #[must_use]
    pub fn at(self, price: f64) -> f64 {
        self.spare + price * self.waits
    }

    fn add(&mut self, other: Self) {
        self.spare += other.spare;
        self.waits += other.waits;
    }
}

/// The way that a stretch of nodes follows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Following {
    /// The first node, from 0.
    pub from: u32,
    /// The node after the last.
    pub to: u32,
    /// The way.
    pub way: Way,
}

/// The candidates and their records.
///
/// The cost of a fleet is the sum over its layers: the first node serves the first node's worth of demand, the second
/// what exceeds it, and so on. So each layer may follow a way of its own: the nodes at the bottom one that holds, those
/// at the top one that waits for a burst to be likely.
#[derive(Debug, Clone)]
pub(super) struct Portfolio {
    entrants: Vec<Entrant>,
    /// What the choice among them would have done.
    own: Shadow,
    own_cost: Cost,
    /// How many nodes a layer holds: a power of two.
    thickness: u32,
    /// The way that each layer follows.
    chosen: [usize; LAYERS],
    /// Whether some way that needs the forecast would have cost less lately than every one that does not.
    pays: bool,
    minutes: u64,
}

#[derive(Debug, Clone)]
struct Entrant {
    way: Way,
    shadow: Shadow,
    want: Wanted,
    costs: [Cost; LAYERS],
}

impl Entrant {
    fn total(&self) -> Cost {
        let mut sum = Cost::default();
        self.costs.iter().for_each(|cost| sum.add(*cost));
        sum
    }
}

impl Portfolio {
    pub(super) fn new() -> Self {
        let entrant = |way| Entrant { way, shadow: Shadow::default(), want: Wanted::default(), costs: [Cost::default(); LAYERS] };
        let entrants: Vec<Entrant> = ways().into_iter().map(entrant).collect();
        let first = entrants.iter().position(|entrant| entrant.way == FIRST).unwrap_or(0);
        Self { entrants, own: Shadow::default(), own_cost: Cost::default(), thickness: 1, chosen: [first; LAYERS], pays: false, minutes: 0 }
    }

    /// Charges each way for a minute's demand, in nodes, served by what the way then had.
    pub(super) fn charge(&mut self, demand: f64) {
        while demand > f64::from(self.thickness) * LAYERS as f64 {
            self.thicken();
        }
        for entrant in &mut self.entrants {
            charge(&mut entrant.costs, &entrant.shadow, demand, f64::from(self.thickness));
        }
        let (ready, have) = (f64::from(self.own.ready), f64::from(self.own.have()));
        self.own_cost.add(Cost { spare: have - demand.min(have), waits: (demand - ready).max(0.0) });
    }

    /// Lets each way decide on the scene, and the hourly choice be made. Predictive ways run only when trusted.
    pub(super) fn decide(&mut self, scene: &Scene, trusted: bool) -> Wanted {
        let needed = scene.needed();
        for entrant in &mut self.entrants {
            let can = !scene.outlooks.is_empty() || !entrant.way.is_predictive();
            entrant.want = scene.want(if can { entrant.way } else { FIRST });
            entrant.shadow.follow(entrant.want, needed, scene);
        }
        let is_hour = self.minutes.is_multiple_of(60);
        if is_hour || (!trusted && self.chosen.iter().any(|chosen| self.entrants[*chosen].way.is_predictive())) {
            self.choose(scene.price, trusted);
        }
        if is_hour {
            self.fade();
        }
        self.minutes += 1;
        let want = self.combined();
        self.own.follow(want, needed, scene);
        want
    }

    /// Lists which nodes follow which way, up to a number of nodes.
    pub(super) fn following(&self, nodes: u32) -> Vec<Following> {
        let mut list: Vec<Following> = Vec::new();
        for (layer, chosen) in (0..).zip(&self.chosen) {
            let (from, way) = (layer * self.thickness, self.entrants[*chosen].way);
            if from >= nodes {
                break;
            }
            let to = if layer as usize + 1 == LAYERS { nodes } else { nodes.min(from + self.thickness) };
            match list.last_mut() {
                Some(before) if before.way == way => before.to = to,
                Some(_) | None => list.push(Following { from, to, way }),
            }
        }
        list
    }

    /// Tells whether the forecast has paid lately: the cheapest way that needs it cost less than the cheapest that does not.
    pub(super) fn pays(&self) -> bool {
        self.pays
    }

    /// Gives what the choice has cost lately.
    pub(super) fn own_cost(&self) -> Cost {
        self.own_cost
    }

    /// Gives the reactive way that would have been cheapest lately, with its cost.
    pub(super) fn best_reactive(&self, price: f64) -> Option<(Way, Cost)> {
        let reactive = self.entrants.iter().filter(|entrant| !entrant.way.is_predictive());
        let costs = reactive.map(|entrant| (entrant.way, entrant.total()));
        costs.min_by(|(_, one), (_, other)| one.at(price).total_cmp(&other.at(price)))
    }

    fn combined(&self) -> Wanted {
        let mut sum = Wanted::default();
        for (layer, chosen) in (0..).zip(&self.chosen) {
            // The last layer takes whatever lies above it.
            let most = if layer as usize + 1 == LAYERS { u32::MAX } else { self.thickness };
            let inside = |nodes: u32| nodes.saturating_sub(layer * self.thickness).min(most);
            sum.buy += inside(self.entrants[*chosen].want.buy);
            sum.hold += inside(self.entrants[*chosen].want.hold);
        }
        sum
    }

    fn choose(&mut self, price: f64, trusted: bool) {
        let totals: Vec<f64> = self.entrants.iter().map(|entrant| entrant.total().at(price)).collect();
        let cheapest = |predictive: bool| {
            let of_kind = self.entrants.iter().zip(&totals).filter(|(entrant, _)| entrant.way.is_predictive() == predictive);
            of_kind.map(|(_, total)| *total).fold(f64::INFINITY, f64::min)
        };
        self.pays = cheapest(true) < cheapest(false);
        for layer in 0..LAYERS {
            let judge = |at: usize| {
                let cost = |layer: usize| self.entrants[at].costs[layer].at(price);
                let near = 0.5 * (cost(layer.saturating_sub(1)) + cost((layer + 1).min(LAYERS - 1)));
                cost(layer) + near + SHRINK * totals[at]
            };
            let eligible = (0..self.entrants.len()).filter(|at| trusted || !self.entrants[*at].way.is_predictive());
            if self.minutes > 0
                && let Some(best) = eligible.min_by(|one, other| judge(*one).total_cmp(&judge(*other)))
            {
                self.chosen[layer] = best;
            }
        }
    }

    fn fade(&mut self) {
        let fade = 0.5_f64.powf(1.0 / HALF_LIFE_HOURS);
        let costs = self.entrants.iter_mut().flat_map(|entrant| &mut entrant.costs).chain([&mut self.own_cost]);
        for cost in costs {
            (cost.spare, cost.waits) = (cost.spare * fade, cost.waits * fade);
        }
    }

    /// Makes the layers twice as thick, for a demand beyond the highest.
    fn thicken(&mut self) {
        for entrant in &mut self.entrants {
            entrant.costs = std::array::from_fn(|at| {
                let mut sum = Cost::default();
                entrant.costs.iter().skip(2 * at).take(2).for_each(|cost| sum.add(*cost));
                sum
            });
        }
        self.chosen = std::array::from_fn(|at| self.chosen[(2 * at).min(LAYERS - 1)]);
        self.thickness = self.thickness.saturating_mul(2);
    }
}

/// Adds a minute to the costs of the layers. Where a layer is on and used, or off and not needed, it costs nothing
/// beyond the demand, so only those between what was there and what was asked for are touched.
fn charge(costs: &mut [Cost; LAYERS], shadow: &Shadow, demand: f64, thickness: f64) {
    let (ready, have) = (f64::from(shadow.ready), f64::from(shadow.have()));
    let (from, to) = (ready.min(demand), have.max(demand));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
    let (first, last) = ((from / thickness) as usize, ((to / thickness).ceil() as usize).min(LAYERS));
    for (layer, cost) in costs.iter_mut().enumerate().take(last).skip(first) {
        let low = layer as f64 * thickness;
        let most = if layer + 1 == LAYERS { f64::INFINITY } else { thickness };
        let inside = |nodes: f64| (nodes - low).clamp(0.0, most);
        cost.spare += inside(have) - inside(demand.min(have));
        cost.waits += inside(demand) - inside(ready.min(demand));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layers_costs_add_up_to_those_of_the_fleet() {
        for (ready, coming, demand) in [(3, 0, 5.5), (5, 2, 3.25), (0, 0, 2.0), (80, 0, 3.0), (2, 4, 4.5)] {
            let mut shadow = Shadow::default();
            (shadow.ready, shadow.coming) = (ready, coming);
            let mut costs = [Cost::default(); LAYERS];
            charge(&mut costs, &shadow, demand, 1.0);
            let sum = costs.iter().fold((0.0, 0.0), |sum, cost| (sum.0 + cost.spare, sum.1 + cost.waits));
            let have = f64::from(ready + coming);
            let expected = (have - demand.min(have), (demand - f64::from(ready)).max(0.0));
            assert!((sum.0 - expected.0).abs() < 1e-9 && (sum.1 - expected.1).abs() < 1e-9, "{sum:?} {expected:?}");
        }
    }

    #[test]
    fn each_of_the_nodes_follows_one_way_and_no_others_are_listed() {
        let mut portfolio = Portfolio::new();
        let [one, other] = [portfolio.chosen[0], portfolio.chosen[0] + 1];
        (portfolio.chosen[2], portfolio.chosen[3], portfolio.thickness) = (other, other, 2);
        let listed = |nodes| portfolio.following(nodes).iter().map(|it| (it.from, it.to, it.way)).collect::<Vec<_>>();
        let [one, other] = [one, other].map(|at| portfolio.entrants[at].way);
        assert_eq!(listed(7), [(0, 4, one), (4, 7, other)]);
        assert_eq!(listed(1000), [(0, 4, one), (4, 8, other), (8, 1000, one)]);
        assert_eq!(listed(0), []);
    }

    #[test]
    fn a_larger_demand_makes_layers_thicker_and_loses_no_cost() {
        let mut portfolio = Portfolio::new();
        (0..10).for_each(|_| portfolio.charge(50.0));
        portfolio.charge(1000.0);
        assert_eq!(portfolio.thickness, 16);
        assert!((portfolio.entrants[0].total().waits - 1500.0).abs() < 1e-9);
    }
}
