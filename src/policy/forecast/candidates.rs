//! The ways in which a fleet may follow its demand, among which the portfolio chooses.

use super::features::FARTHEST;
use super::predictor::{Excess, HORIZONS, LEVELS, Outlook, Predictor};
use super::shadow::Rests;
use crate::model::prospect::Wanted;
use serde::Serialize;

/// The cautions that are tried, ascending.
const CAUTIONS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
/// The minutes for which reactive ways hold, ascending.
const WINDOWS: [usize; 5] = [1, 5, 10, 20, 60];
/// What is more than so many nodes above the lowest that may be needed is beyond any forecast.
const MOST_AHEAD: u32 = 1000;

/// So many nodes are looked at together: a processor computes them side by side.
const AT_ONCE: usize = 4;

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
    /// Buys for one quantile of the forecast, the largest from the time a node bought an evaluation later would be ready
    /// until one of the next purchase would be, and holds the largest of another one until a node given back this minute could
    /// be bought again.
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
    /// What kinds there are.
    pub const KINDS: [&str; 3] = ["reactive", "quantiles", "balance"];

    /// Names its kind.
    #[must_use]
    pub fn kind_name(self) -> &'static str {
        let [reactive, quantiles, balance] = Self::KINDS;
        match self {
            Self::Reactive { .. } => reactive,
            Self::Quantiles { .. } => quantiles,
            Self::Balance { .. } => balance,
        }
    }

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

/// What is known in the minute of a decision, common to all ways.
pub(super) struct Scene<'a> {
    /// The highest demand within each of `WINDOWS`.
    pub highest: [f32; WINDOWS.len()],
    /// Demand that one node serves.
    pub node: f64,
    /// Minutes from a launch to a ready node.
    pub boot: usize,
    /// Minutes for which a node is paid whatever becomes of it, and after which one that was given back is replaced.
    pub replaced_in: usize,
    /// What a node-minute of unmet demand costs in node-minutes.
    pub price: f64,
    /// How the fleet is left alone between changes.
    pub rests: Rests,
    /// Whether an evaluation is made: only then nodes are given back.
    pub is_due: bool,
    /// The forecast at each of `HORIZONS`; empty where there is none.
    pub outlooks: &'a [Outlook],
    /// What the forecast means for each node; `None` where there is none.
    pub ladder: Option<Ladder>,
}

/// The horizon at which a node serves that is so many minutes away: the latest full minute is one behind.
pub(super) fn lead(minutes: usize) -> usize {
    (minutes + 1).min(FARTHEST)
}

/// The ways that are tried. The order breaks ties: the plain ones come first.
pub(super) fn ways() -> Vec<Way> {
    let mut ways = Vec::new();
    for headroom in [0.0, 0.05, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 3.0] {
        for window in WINDOWS {
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
    for caution in CAUTIONS {
        for patience in [0.5, 1.0] {
            ways.push(Way::Balance { caution, patience });
        }
    }
    ways
}

/// Gives the highest of the latest levels within each of `WINDOWS`.
pub(super) fn highest(levels: &[f32]) -> [f32; WINDOWS.len()] {
    WINDOWS.map(|window| levels[levels.len().saturating_sub(window)..].iter().fold(0.0, |high, value| value.max(high)))
}

/// Counts the nodes that a demand in nodes needs.
///
/// What exceeds whole nodes by no more than the digits that single precision has, is nothing: 28.7 cores on nodes of 0.7
/// need 41 of them.
#[must_use]
pub fn whole_nodes(demand: f64) -> u32 {
    const ROUNDING: f64 = 2.5e-7;
    let nothing = (ROUNDING * demand).max(1e-6);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
    let nodes = (demand - nothing).ceil() as u32;
    nodes
}

impl Scene<'_> {
    /// Says what a way wants in this minute.
    pub(super) fn want(&self, way: Way) -> Wanted {
        match way {
            Way::Reactive { headroom, window } => self.reactive(headroom, window),
            Way::Quantiles { buy, hold } => self.quantiles(buy, hold),
            Way::Balance { caution, patience } => self.balance(caution, patience),
        }
    }

    /// Counts the nodes that the latest demand needs.
    pub(super) fn needed(&self) -> u32 {
        self.nodes(f64::from(self.highest[0]))
    }

    fn nodes(&self, demand: f64) -> u32 {
        whole_nodes(demand / self.node)
    }

    fn reactive(&self, headroom: f64, window: usize) -> Wanted {
        let place = WINDOWS.partition_point(|it| *it < window).min(WINDOWS.len() - 1);
        let need = |demand: f32| self.nodes(f64::from(demand) * (1.0 + headroom));
        Wanted { buy: need(self.highest[0]), hold: need(self.highest[place]) }
    }

    fn quantiles(&self, buy: f64, hold: f64) -> Wanted {
        let (buy, hold) = (level_of(buy), level_of(hold));
        // What a purchase does not bring has to wait for the nodes of the next one that may be made, and what is known
        // by then may ask for an evaluation more.
        let until = self.replaced_in.saturating_add(self.rests.between_purchases()).min(FARTHEST);
        let bought = (lead(self.replaced_in)..=until.max(lead(self.replaced_in)))
            .map(|ahead| interpolated(ahead, |place| self.outlooks[place].quantiles[buy]));
        let buy = self.nodes(bought.fold(0.0, f64::max));
        let last = self.replaced_in.saturating_mul(2).saturating_add(1).min(FARTHEST);
        let within = HORIZONS.iter().zip(self.outlooks).filter(|(ahead, _)| **ahead <= last);
        let highest = within.map(|(_, outlook)| outlook.quantiles[hold]).fold(0.0, f64::max);
        Wanted { buy, hold: self.nodes(highest).max(buy) }
    }

    fn balance(&self, caution: f64, patience: f64) -> Wanted {
        let place = CAUTIONS.partition_point(|it| *it < caution).min(CAUTIONS.len() - 1);
        let Some(ladder) = &self.ladder else { return Wanted::default() };
        let mut want = Wanted { buy: ladder.first, hold: ladder.first };
        for (layer, worth) in (ladder.first + 1..).zip(&ladder.nodes) {
            if worth.launch[place] > patience * self.replaced_in as f64 {
                want.buy = layer;
            }
            if worth.keep[place] > 0.0 {
                want.hold = layer;
            } else {
                break;
            }
        }
        Wanted { hold: want.hold.max(want.buy), ..want }
    }
}

/// What each node is worth over the minutes to come.
///
/// Nodes stand in order: each serves what those below it leave. So whatever a policy holds, the node above it is worth
/// the same, and one table serves all of them.
#[derive(Debug, Clone)]
pub(super) struct Ladder {
    /// So many nodes at the bottom are never idle.
    first: u32,
    /// The nodes above them.
    nodes: Vec<Worth>,
}

/// What a node is worth, in node-minutes, at each of `CAUTIONS`.
#[derive(Debug, Clone, Copy)]
struct Worth {
    /// To have it rather than not in the next minute.
    keep: [f64; CAUTIONS.len()],
    /// To have it in the first minute that one launched now serves.
    launch: [f64; CAUTIONS.len()],
}

impl Ladder {
    /// Looks at the nodes from the last that is never idle to the first that is worth nothing at any caution.
    /// Another node replaces one that is given back in `replaced_in` minutes.
    pub(super) fn of(predictor: &Predictor, outlooks: &[Outlook], node: f64, replaced_in: usize, price: f64) -> Option<Self> {
        let farthest = replaced_in.saturating_mul(3).saturating_add(6).min(FARTHEST);
        let last = HORIZONS.partition_point(|ahead| *ahead < farthest).min(HORIZONS.len() - 1);
        let outlooks = outlooks.get(..=last)?;
        let lowest = outlooks.iter().map(|it| it.quantiles[0] - 2.0 * it.size).fold(f64::INFINITY, f64::min).max(0.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
        let first = (lowest / node).floor() as u32;
        let bottom = f64::from(first) * node;
        let mut demand: Vec<Excess> = outlooks.iter().enumerate().map(|(place, it)| predictor.above(place, it, bottom)).collect();
        let mut excess = |nodes: u32| {
            let mut excess = [0.0; HORIZONS.len()];
            excess.iter_mut().zip(&mut demand).for_each(|(excess, demand)| *excess = demand.over(f64::from(nodes) * node));
            excess
        };
        let (mut below, mut nodes) = (excess(first), Vec::new());
        let mut number = first;
        while number < first.saturating_add(MOST_AHEAD) {
            let waits: [[f64; HORIZONS.len()]; AT_ONCE] = std::array::from_fn(|_| {
                number = number.saturating_add(1);
                let above = excess(number);
                let waits = std::array::from_fn(|place| (below[place] - above[place]) / node);
                below = above;
                waits
            });
            let worths = Worth::of(&waits, HORIZONS[last], price, replaced_in);
            let is_last = |worth: &Worth| worth.keep[CAUTIONS.len() - 1] <= 0.0;
            let end = worths.iter().position(is_last);
            nodes.extend(&worths[..end.map_or(AT_ONCE, |last| last + 1)]);
            if end.is_some() {
                break;
            }
        }
        Some(Self { first, nodes })
    }
}

impl Worth {
    /// Goes back from the last minute that matters. To have a node is worth what would wait without it, less the minute
    /// that is paid; never less than nothing, since it can be given back, and never more than another one that replaces it.
    /// `waits` is what is expected to wait without it in a minute, at each of `HORIZONS`; that of several nodes, which is
    /// faster than one after the other.
    fn of<const N: usize>(waits: &[[f64; HORIZONS.len()]; N], farthest: usize, price: f64, replaced_in: usize) -> [Self; N] {
        let lead = lead(replaced_in);
        let mut gain = [[0.0_f64; CAUTIONS.len()]; N];
        let mut worths = gain.map(|gain| Self { keep: gain, launch: gain });
        for ahead in (1..=farthest).rev() {
            for ((waits, gain), worth) in waits.iter().zip(&mut gain).zip(&mut worths) {
                let here = price * interpolated(ahead, |place| waits[place]);
                for (at, caution) in CAUTIONS.iter().enumerate() {
                    let net = caution * here - 1.0 + gain[at];
                    worth.keep[at] = net;
                    gain[at] = net.clamp(0.0, replaced_in as f64);
                }
            }
            if ahead == lead {
                for worth in &mut worths {
                    worth.launch = worth.keep;
                }
            }
        }
        worths
    }
}

/// Interpolates a value between the horizons that have a model.
pub(super) fn interpolated(ahead: usize, value: impl Fn(usize) -> f64) -> f64 {
    let (place, part) = BETWEEN[ahead.min(FARTHEST)];
    let here = value(place);
    if part > 0.0 { here + part * (value(place + 1) - here) } else { here }
}

/// For each minute ahead, the horizon at or before it, and which part of the way to the next one it lies further.
const BETWEEN: [(usize, f64); FARTHEST + 1] = {
    let (mut between, mut place, mut ahead) = ([(0, 0.0); FARTHEST + 1], 0, HORIZONS[0]);
    while ahead < FARTHEST {
        if HORIZONS[place + 1] == ahead {
            place += 1;
        }
        let (from, to) = (HORIZONS[place], HORIZONS[place + 1]);
        between[ahead] = (place, (ahead - from) as f64 / (to - from) as f64);
        ahead += 1;
    }
    between[FARTHEST] = (HORIZONS.len() - 1, 0.0);
    between
};

/// Gives the place of the quantile among those that forecasts carry; the next higher one where it is none of them.
fn level_of(quantile: f64) -> usize {
    LEVELS.partition_point(|level| *level < quantile - 1e-9).min(LEVELS.len() - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_between_horizons_lies_on_the_line_between_them() {
        let square = |ahead| interpolated(ahead, |place| (HORIZONS[place] * HORIZONS[place]) as f64);
        for (ahead, expected) in [(1, 1.0), (2, 4.0), (5, 25.0), (6, 37.0), (7, 49.0), (9, 83.0), (25, 650.0), (30, 900.0)] {
            assert!((square(ahead) - expected).abs() < 1e-9, "{ahead}: {}", square(ahead));
        }
    }

    #[test]
    fn a_node_for_which_nobody_would_wait_costs_its_minute_and_gains_nothing() {
        let [worth] = Worth::of(&[[0.0; HORIZONS.len()]], 10, 20.0, 4);
        assert!(worth.keep.iter().chain(&worth.launch).all(|worth| (worth + 1.0).abs() < 1e-9), "{:?} {:?}", worth.keep, worth.launch);
    }
}
