//! Policies that a replay puts side by side: what they imitate, and where they differ from it.

use super::fleet::Fleet;
use crate::model::prospect::Wanted;
use crate::policy::forecast::whole_nodes as nodes;
use std::collections::VecDeque;

/// What a policy sees in the minute of its decision.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Demand in nodes, up to the last full minute: one value or more. In a gap it is the value before it.
    pub demand: &'a [f32],
    /// Whether the last full minute was measured, or lies in a gap.
    pub measured: bool,
    /// Nodes that served in the last full minute.
    pub served: u32,
    /// The nodes.
    pub fleet: &'a Fleet,
}

impl View<'_> {
    /// Demand of the last full minute.
    #[must_use]
    pub fn last(&self) -> f64 {
        self.demand.last().map_or(0.0, |value| f64::from(*value))
    }

    /// The minute of the decision.
    #[must_use]
    pub fn now(&self) -> usize {
        self.demand.len()
    }

    /// Nodes that serve.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.fleet.ready()
    }

    /// Nodes that serve or boot.
    #[must_use]
    pub fn have(&self) -> u32 {
        self.fleet.have()
    }
}

/// A way to follow demand, asked once a minute.
pub trait Policy {
    /// Says how many nodes there should be.
    fn decide(&mut self, view: &View) -> Wanted;
}

fn exactly(nodes: u32) -> Wanted {
    Wanted { buy: nodes, hold: nodes }
}

/// As many nodes as the highest demand of the whole replay needs, always: what one buys who does not scale.
///
/// It knows the peak in advance, which nobody does.
#[derive(Debug)]
pub struct StaticPeak(pub u32);

impl Policy for StaticPeak {
    fn decide(&mut self, _: &View) -> Wanted {
        exactly(self.0)
    }
}

/// The rule that most scripts and alarms have: over 70 % busy for 4 minutes, grow; under 30 % for 10, shrink; 5 minutes
/// of rest after growth, 10 after shrinking.
///
/// With `proportional` it goes to the capacity that would be 70 % busy in place of one node more, or to the one of at
/// most 70 % in place of one less. Demand is seen whole, as with requests of pods: a measured CPU would stop at 100 %.
#[derive(Debug)]
pub struct Threshold {
    /// Whether it goes all the way at once.
    pub proportional: bool,
    utilisation: VecDeque<f64>,
    grown: Option<usize>,
    shrunk: Option<usize>,
}

impl Threshold {
    const HIGH: f64 = 0.7;
    const LOW: f64 = 0.3;
    const HIGH_FOR: usize = 4;
    const LOW_FOR: usize = 10;
    const REST_UP: usize = 5;
    const REST_DOWN: usize = 10;

    /// Makes one that goes by one node, or all the way.
    #[must_use]
    pub fn new(proportional: bool) -> Self {
        Self { proportional, utilisation: VecDeque::new(), grown: None, shrunk: None }
    }
}

impl Policy for Threshold {
    fn decide(&mut self, view: &View) -> Wanted {
        if self.utilisation.len() == Self::LOW_FOR {
            self.utilisation.pop_front();
        }
        let used = if view.ready() > 0 { view.last() / f64::from(view.ready()) } else { f64::from(u8::from(view.last() > 0.0)) };
        self.utilisation.push_back(used);
        let (now, have) = (view.now(), view.have());
        let rested = |since: Option<usize>, minutes: usize| since.is_none_or(|at| now - at >= minutes);
        let for_minutes = |minutes: usize, holds: &dyn Fn(f64) -> bool| {
            self.utilisation.len() >= minutes && self.utilisation.iter().rev().take(minutes).all(|used| holds(*used))
        };
        let right = nodes(view.last() / Self::HIGH);
        if for_minutes(Self::HIGH_FOR, &|used| used > Self::HIGH) && rested(self.grown, Self::REST_UP) {
            let want = if self.proportional { right.max(have) } else { have + 1 };
            if want > have {
                self.grown = Some(now);
            }
            return exactly(want);
        }
        let may_shrink = rested(self.shrunk, Self::REST_DOWN) && rested(self.grown, Self::REST_DOWN);
        if have > 1 && may_shrink && for_minutes(Self::LOW_FOR, &|used| used < Self::LOW) {
            self.shrunk = Some(now);
            return exactly(if self.proportional { right.clamp(1, have - 1) } else { have - 1 });
        }
        exactly(have)
    }
}

/// Like cluster-autoscaler with its defaults: up at once for what is pending, a node down after 10 minutes in which it
/// was not needed, and none within 10 minutes of an addition. The headroom is that of placeholder pods.
///
/// Demand is one number, so pods never fail to pack and no pod holds a node; "unneeded" is what the demand of each of
/// the ten minutes leaves over, where cluster-autoscaler asks whether a node is less than half used and could be emptied.
#[derive(Debug)]
pub struct ClusterAutoscalerLike {
    /// Share of demand that is held beyond it.
    pub headroom: f64,
    needs: VecDeque<u32>,
    added: Option<usize>,
}

impl ClusterAutoscalerLike {
    const UNNEEDED: usize = 10;

    /// Makes one with this headroom.
    #[must_use]
    pub fn new(headroom: f64) -> Self {
        Self { headroom, needs: VecDeque::new(), added: None }
    }
}

impl Policy for ClusterAutoscalerLike {
    fn decide(&mut self, view: &View) -> Wanted {
        let need = nodes(view.last() * (1.0 + self.headroom));
        if self.needs.len() == Self::UNNEEDED {
            self.needs.pop_front();
        }
        self.needs.push_back(need);
        if need > view.have() {
            self.added = Some(view.now());
        }
        let rests = self.added.is_some_and(|at| view.now() - at < Self::UNNEEDED);
        let needed = self.needs.iter().copied().max().unwrap_or(need);
        let hold = if rests || self.needs.len() < Self::UNNEEDED { view.have().max(need) } else { needed };
        Wanted { buy: need, hold }
    }
}

/// Like Karpenter: up at once for what is pending, down as soon as it is not needed.
///
/// Karpenter consolidates with `consolidateAfter: 0s`; it also changes types and moves pods, which one number of demand
/// does not show. The headroom is that of placeholder pods.
#[derive(Debug)]
pub struct KarpenterLike {
    /// Share of demand that is held beyond it.
    pub headroom: f64,
}

impl Policy for KarpenterLike {
    fn decide(&mut self, view: &View) -> Wanted {
        exactly(nodes(view.last() * (1.0 + self.headroom)))
    }
}

/// Like predictive scaling of EC2 Auto Scaling beside a target tracking policy, both at 70 %: the forecast of each hour
/// is the least capacity within it and five minutes ahead of it, and target tracking adds and removes above that.
///
/// Amazon's forecast is not published. This one is the mean of the same hour yesterday, over 14 days and a week ago.
/// Target tracking grows after 3 minutes over its target and shrinks after 15 minutes under nine tenths of it.
#[derive(Debug, Default)]
pub struct AwsPredictiveLike {
    above: usize,
    below: usize,
    /// Hours whose forecast is known, by the minute they begin in: what it rests on is a day old.
    forecasts: [Option<(usize, f64)>; 2],
}

impl AwsPredictiveLike {
    const TARGET: f64 = 0.7;
    const AHEAD: usize = 5;

    fn hour(demand: &[f32], begin: Option<usize>) -> Option<f64> {
        let hour = demand.get(begin?..begin? + 60)?;
        Some(hour.iter().map(|value| f64::from(*value)).sum::<f64>() / 60.0)
    }

    fn forecast(demand: &[f32], begin: usize) -> Option<f64> {
        let day = |days: usize| Self::hour(demand, begin.checked_sub(days * 1440));
        let days: Vec<f64> = (1..=14).filter_map(day).collect();
        if days.is_empty() {
            return None;
        }
        let mean = days.iter().sum::<f64>() / days.len() as f64;
        let votes = [day(1), Some(mean), day(7)];
        let votes: Vec<f64> = votes.into_iter().flatten().collect();
        Some(votes.iter().sum::<f64>() / votes.len() as f64)
    }
}

impl Policy for AwsPredictiveLike {
    fn decide(&mut self, view: &View) -> Wanted {
        let this = view.now() / 60 * 60;
        let next = (view.now() + Self::AHEAD) / 60 * 60;
        self.forecasts = [this, next].map(|hour| {
            let known = self.forecasts.iter().flatten().find(|(begin, _)| *begin == hour);
            Some(*known.unwrap_or(&(hour, Self::forecast(view.demand, hour).unwrap_or(0.0))))
        });
        let forecasts = self.forecasts.map(|forecast| forecast.map_or(0.0, |(_, demand)| demand));
        let least = nodes(forecasts[0].max(forecasts[1]) / Self::TARGET);
        let used = if view.ready() > 0 { view.last() / f64::from(view.ready()) } else { 1.0 };
        self.above = if used > Self::TARGET { self.above + 1 } else { 0 };
        self.below = if used < 0.9 * Self::TARGET { self.below + 1 } else { 0 };
        let right = nodes(view.last() / Self::TARGET);
        let mut want = view.have();
        if self.above >= 3 {
            want = want.max(right);
        } else if self.below >= 15 {
            want = right.min(want);
        }
        exactly(want.max(least))
    }
}

/// The last value plus a margin: the quantile `1 - 1/p` of how much demand rose within the time that a launch takes,
/// over the last eight days. The simplest forecast that is calibrated.
#[derive(Debug)]
pub struct Persistence {
    lead: usize,
    quantile: f64,
    margin: f64,
}

impl Persistence {
    const DAYS: usize = 8;

    /// Makes one for nodes that boot so many minutes, at a price of waiting.
    #[must_use]
    pub fn new(boot: usize, price: f64) -> Self {
        Self { lead: boot + 1, quantile: (1.0 - 1.0 / price).clamp(0.5, 0.999), margin: 0.0 }
    }
}

impl Policy for Persistence {
    fn decide(&mut self, view: &View) -> Wanted {
        // The margin moves slowly, and sorting eight days takes a while.
        if view.now().is_multiple_of(60) {
            let recent = &view.demand[view.now().saturating_sub(Self::DAYS * 1440)..];
            let mut rises: Vec<f32> = recent.windows(self.lead + 1).map(|window| window[self.lead] - window[0]).collect();
            if !rises.is_empty() {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
                let at = ((rises.len() as f64 * self.quantile) as usize).min(rises.len() - 1);
                self.margin = f64::from(*rises.select_nth_unstable_by(at, f32::total_cmp).1).max(0.0);
            }
        }
        exactly(nodes(view.last() + self.margin))
    }
}
