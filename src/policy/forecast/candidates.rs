//! The ways in which a fleet may follow its demand, among which the portfolio chooses.

use super::features::FARTHEST;
use super::predictor::{HORIZONS, LEVELS, Outlook, Predictor};
use serde::Serialize;

/// One way to follow demand.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Buys what demand and a headroom need at once, and holds what they needed within the window.
    Reactive {
        /// Share of demand that is held beyond it.
        headroom: f64,
        /// Minutes for which the largest need is held.
        window: usize,
    },
    /// Buys for one quantile of the forecast at the time a node bought this minute would be ready, and holds the
    /// largest of another one until a node given back this minute could be bought again.
    Quantiles {
        /// The quantile that is bought for.
        buy: f64,
        /// The quantile that is held.
        hold: f64,
    },
    /// Weighs for each node what it costs against what would wait without it, over the next half hour: the programme
    /// that is optimal for a known future, on the expected one.
    Balance {
        /// Factor upon the price of waiting, for expectations that are too bold or too timid.
        caution: f64,
        /// Which part of the boot's cost a launch must save; the rest is put down to waiting for better knowledge.
        patience: f64,
    },
}

impl Way {
    /// Tells whether it needs a forecast.
    #[must_use]
    pub fn is_predictive(self) -> bool {
        match self {
            Self::Reactive { .. } => false,
            Self::Quantiles { .. } | Self::Balance { .. } => true,
        }
    }
}

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Reactive { headroom, window } => write!(f, "reactive, headroom {:.0} %, held {window} min", headroom * 100.0),
            Self::Quantiles { buy, hold } => write!(f, "quantiles, buy {buy}, hold {hold}"),
            Self::Balance { caution, patience } => write!(f, "balance, caution {caution}, patience {patience}"),
        }
    }
}

/// How many nodes there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Want {
    /// With fewer than these, ready and booting, nodes are bought up to them.
    pub buy: u32,
    /// With more than these, nodes are given back down to them; never less than `buy`.
    pub hold: u32,
}

/// What is known in the minute of a decision, common to all ways.
pub(super) struct Scene<'a> {
    pub levels: &'a [f32],
    /// Demand that one node serves.
    pub node: f64,
    /// Minutes from a launch to a ready node.
    pub boot: usize,
    /// What a node-minute of unmet demand costs in node-minutes.
    pub price: f64,
    pub predictor: &'a Predictor,
    /// The forecast at each of `HORIZONS`; empty where there is none.
    pub outlooks: &'a [Outlook],
}

/// The horizon at which a node that is bought now serves: the latest full minute is one behind.
pub(super) fn lead(boot: usize) -> usize {
    (boot + 1).min(FARTHEST)
}

/// The ways that are tried. The order breaks ties: the plain ones come first.
pub(super) fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for headroom in [0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 3.0] {
        for window in [1, 5, 10, 20, 60] {
            ways.push(Way::Reactive { headroom, window });
        }
    }
    for (buy, hold) in [
        (0.5, 0.9),
        (0.7, 0.9),
        (0.8, 0.95),
        (0.9, 0.9),
        (0.9, 0.975),
        (0.95, 0.95),
        (0.95, 0.99),
        (0.975, 0.99),
        (0.99, 0.99),
        (0.99, 0.995),
    ] {
        ways.push(Way::Quantiles { buy, hold });
    }
    for caution in [0.5, 1.0, 2.0, 4.0] {
        for patience in [0.5, 1.0] {
            ways.push(Way::Balance { caution, patience });
        }
    }
    ways
}

impl Scene<'_> {
    /// Says what a way wants in this minute.
    pub(super) fn want(&self, way: Way) -> Want {
        match way {
            Way::Reactive { headroom, window } => self.reactive(headroom, window),
            Way::Quantiles { buy, hold } => self.quantiles(buy, hold),
            Way::Balance { caution, patience } => self.balance(caution * self.price, patience),
        }
    }

    fn nodes(&self, demand: f64) -> u32 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
        let nodes = (demand / self.node - 1e-6).ceil() as u32;
        nodes
    }

    fn reactive(&self, headroom: f64, window: usize) -> Want {
        let recent = &self.levels[self.levels.len().saturating_sub(window)..];
        let highest = recent.iter().fold(0.0_f32, |high, value| high.max(*value));
        let need = |demand: f32| self.nodes(f64::from(demand) * (1.0 + headroom));
        Want { buy: need(self.levels[self.levels.len() - 1]), hold: need(highest) }
    }

    fn quantiles(&self, buy: f64, hold: f64) -> Want {
        let (buy, hold) = (level_of(buy), level_of(hold));
        let buy = self.nodes(interpolated(lead(self.boot), |place| self.outlooks[place].quantiles[buy]));
        let last = (2 * self.boot + 1).min(FARTHEST);
        let within = HORIZONS.iter().zip(self.outlooks).filter(|(ahead, _)| **ahead <= last);
        let highest = within.map(|(_, outlook)| outlook.quantiles[hold]).fold(0.0, f64::max);
        Want { buy, hold: self.nodes(highest).max(buy) }
    }

    /// Nodes stand in order: each serves what those below it leave. For one of them, `gain` is what it is worth at a
    /// minute to have it rather than not, at most the cost of another boot, and never less than nothing.
    fn balance(&self, price: f64, patience: f64) -> Want {
        let (lead, boot) = (lead(self.boot), self.boot as f64);
        let last = HORIZONS.iter().position(|ahead| *ahead >= (3 * self.boot + 6).min(FARTHEST)).unwrap_or(HORIZONS.len() - 1);
        let outlooks = &self.outlooks[..=last];
        // Below the lowest, a node is never idle; above the highest, always.
        let lowest = outlooks.iter().map(|it| it.quantiles[0] - 2.0 * it.size).fold(f64::INFINITY, f64::min).max(0.0);
        let mut want = Want { buy: 0, hold: 0 };
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
        let mut layer = (lowest / self.node).floor() as u32;
        want.buy = layer;
        let excess = |layer: u32| -> [f64; HORIZONS.len()] {
            let capacity = f64::from(layer) * self.node;
            std::array::from_fn(|place| if place <= last { self.predictor.excess(place, &outlooks[place], capacity) } else { 0.0 })
        };
        let mut below = excess(layer);
        // A node more each time; what none of a thousand more is worth is beyond any forecast.
        for _ in 0..1000 {
            let above = excess(layer + 1);
            let waits: [f64; HORIZONS.len()] = std::array::from_fn(|place| (below[place] - above[place]) / self.node);
            let (keep, launch) = worth(&waits, last, price, boot, lead);
            if launch > patience * boot {
                want.buy = layer + 1;
            }
            if keep > 0.0 {
                want.hold = layer + 1;
            } else {
                break;
            }
            (layer, below) = (layer + 1, above);
        }
        Want { hold: want.hold.max(want.buy), ..want }
    }
}

/// Gives what it is worth to keep a node over the next minute, and to have launched one now, in node-minutes.
/// `waits` is what is expected to wait without it, a minute, at each of `HORIZONS`.
fn worth(waits: &[f64], last: usize, price: f64, boot: f64, lead: usize) -> (f64, f64) {
    let (mut gain, mut keep, mut launch) = (0.0_f64, 0.0, 0.0);
    let mut place = last;
    for ahead in (1..=HORIZONS[last]).rev() {
        while place > 0 && HORIZONS[place - 1] >= ahead {
            place -= 1;
        }
        let here = if HORIZONS[place] == ahead || place == 0 {
            waits[place]
        } else {
            let (from, to) = (HORIZONS[place - 1], HORIZONS[place]);
            let part = (ahead - from) as f64 / (to - from) as f64;
            waits[place - 1] + part * (waits[place] - waits[place - 1])
        };
        let net = price * here - 1.0 + gain;
        if ahead == lead {
            launch = net;
        }
        keep = net;
        gain = net.clamp(0.0, boot);
    }
    (keep, launch)
}

/// Interpolates a value between the horizons that have a model.
pub(super) fn interpolated(ahead: usize, value: impl Fn(usize) -> f64) -> f64 {
    let place = HORIZONS.partition_point(|horizon| *horizon < ahead).min(HORIZONS.len() - 1);
    if HORIZONS[place] == ahead || place == 0 {
        return value(place);
    }
    let (from, to) = (HORIZONS[place - 1], HORIZONS[place]);
    let part = (ahead - from) as f64 / (to - from) as f64;
    value(place - 1) + part * (value(place) - value(place - 1))
}

/// Gives the place of the quantile among those that forecasts carry; the next higher one where it is none of them.
fn level_of(quantile: f64) -> usize {
    LEVELS.partition_point(|level| *level < quantile - 1e-9).min(LEVELS.len() - 1)
}
