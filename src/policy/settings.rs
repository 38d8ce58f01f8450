//! What an operator may decide of the policy. The configuration builds it, validated.

use super::schedule::Schedule;
use crate::model::offer::HourlyPrice;
use crate::model::plan::OnDrainTimeout;
use crate::model::{PoolName, Resources, RuleName};
use jiff::tz::TimeZone;
use std::collections::BTreeSet;
use std::time::Duration;

/// All settings of the policy. Every share is from 0 to 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The pools, in the order in which pods try them.
    pub pools: Vec<PoolSettings>,
    /// `[[metric]]` rules.
    pub metrics: Vec<MetricRule>,
    /// `[[forecast]]` rules.
    pub forecasts: Vec<ForecastRule>,
    /// What forecasts may do.
    pub predictive: Predictive,
    /// When utilisation adds capacity.
    pub scale_up: ScaleUp,
    /// When capacity is given back.
    pub scale_down: ScaleDown,
    /// When pods are moved together although the pool is not idle; `None`: never.
    pub consolidation: Option<Consolidation>,
    /// When a node is replaced by cheaper ones, or by one in a zone that has too few; `None`: never.
    pub replacement: Option<Replacement>,
    /// How failed offers rest.
    pub rest: OfferRest,
    /// How often a turn is made when nothing urgent happens.
    pub interval: Duration,
    /// Above this share of unready nodes nothing is given back.
    pub max_unready_share: f64,
    /// The share of a pool's Ready nodes whose utilisation must be known before it counts.
    pub min_coverage: f64,
    /// What the whole fleet may cost per hour.
    pub price_ceiling: Option<HourlyPrice>,
    /// An interrupted spot node is replaced while the fleet is paused, too.
    pub replace_interrupted_while_paused: bool,
    /// How long an instance without a journal entry or a node, or a node without an
    /// instance, is left alone before it is removed.
    pub stray_grace: Duration,
    /// A node that has not been Ready for so long, although its instance runs, is replaced.
    pub unhealthy_after: Duration,
    /// How long an instance may take to become a Ready node.
    pub join_timeout: Duration,
    /// Keys of taints that nodes start with and lose when they are ready for pods.
    pub startup_taints: BTreeSet<String>,
    /// Pods of at least this priority forbid the removal of their node.
    pub critical_priority: i32,
    /// Pods below this priority (placeholders) buy no node, keep none and make way for others.
    pub expendable_below: i32,
}

/// The settings of one pool.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSettings {
    /// Its name.
    pub name: PoolName,
    /// The fewest workers, launching ones included.
    pub min: u32,
    /// The most workers, launching ones included.
    pub max: u32,
    /// Times at which other bounds hold. The last one that is in force wins.
    pub schedules: Vec<BoundsSchedule>,
    /// Room that is kept free.
    pub headroom: Vec<Headroom>,
    /// How many nodes may go together for economy, beyond what holds for all pools.
    pub disruption: Vec<Disruption>,
    /// Older nodes are replaced; up to a tenth before, so that not all go on one day. `None`: whatever their age.
    pub max_node_age: Option<Duration>,
    /// Above this many on-demand instances the spot share applies.
    pub on_demand_base: u32,
    /// The share of instances above the base that are to be spot.
    pub spot_share: f64,
    /// What happens when a drain does not end in time.
    pub on_drain_timeout: OnDrainTimeout,
}

/// Room for so many more pods of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Headroom {
    /// How many.
    pub pods: u32,
    /// What each would request.
    pub each: Resources,
    /// When; `None` is always.
    pub schedule: Option<Schedule>,
}

/// How many of a pool's nodes may go together for economy.
#[derive(Clone, Debug, PartialEq)]
pub struct Disruption {
    /// The most.
    pub nodes: AtOnce,
    /// Names of the reasons that it speaks of; `None` is every one.
    pub reasons: Option<BTreeSet<String>>,
    /// When; `None` is always.
    pub schedule: Option<Schedule>,
}

/// A number of nodes that go together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AtOnce {
    /// So many.
    Nodes(u32),
    /// This share of the pool, rounded up.
    Share(f64),
}

/// Bounds that hold at certain times.
#[derive(Clone, Debug, PartialEq)]
pub struct BoundsSchedule {
    /// When.
    pub schedule: Schedule,
    /// The minimum then.
    pub min: u32,
    /// The maximum then.
    pub max: u32,
}

/// When utilisation adds capacity.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleUp {
    /// CPU above this share asks for capacity.
    pub cpu_above: f64,
    /// The capacity asked for brings CPU to this share.
    pub cpu_target: f64,
    /// For how long CPU must have been above.
    pub cpu_sustain: Duration,
    /// Memory above this share asks for capacity.
    pub memory_above: f64,
    /// The capacity asked for brings memory to this share.
    pub memory_target: f64,
    /// For how long memory must have been above.
    pub memory_sustain: Duration,
    /// The shortest time between two additions that are not urgent.
    pub cooldown: Duration,
}

/// When capacity is given back.
#[derive(Clone, Debug, PartialEq)]
pub struct ScaleDown {
    /// `false`: never.
    pub enabled: bool,
    /// CPU must be below this share.
    pub cpu_below: f64,
    /// Memory must be below this share.
    pub memory_below: f64,
    /// For how long both must have been below.
    pub sustain: Duration,
    /// The shortest time after an addition or a removal.
    pub cooldown: Duration,
    /// The cooldown doubles up to this with each removal in a row that pods take back at once.
    pub longest_cooldown: Duration,
    /// Younger nodes stay.
    pub min_node_age: Duration,
    /// The share of a pool's nodes that may leave together; one may always.
    pub share_at_once: f64,
    /// However large the pool is, no more nodes leave it together.
    pub most_at_once: u32,
}

/// When a pool that is not idle is made smaller, because its pods fit on fewer nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Consolidation {
    /// CPU must be below this share.
    pub cpu_below: f64,
    /// Memory must be below this share.
    pub memory_below: f64,
    /// For how long both must have been below.
    pub sustain: Duration,
}

/// When a node that could stay is replaced.
#[derive(Clone, Debug, PartialEq)]
pub struct Replacement {
    /// How long a lower price is reckoned to last.
    pub saving_lasts: Duration,
    /// The share of the node's price that must be saved at least, since spot prices come and go.
    pub least_saving: f64,
    /// What it is worth that a pod is left where it is, in dollars.
    pub price_of_a_move: f64,
    /// Zones with two nodes more than another one lose one to it.
    pub balances_zones: bool,
    /// Nodes whose launch template is no longer the one of their pool go.
    pub drifted: bool,
    /// Nodes go for which EC2 recommends it.
    pub recommended: bool,
}

/// How offers that failed rest: the first pause, doubled with each further failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferRest {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
    /// Launches in a row that never joined, after which an offer is stopped.
    pub stop_after_never_joined: u32,
    /// How long a stopped offer rests before it is tried once more.
    pub stopped: Duration,
    /// How long a node whose drain failed is left alone.
    pub node: Duration,
}

/// A rule on an application's metric.
#[derive(Clone, Debug, PartialEq)]
pub struct MetricRule {
    /// Its name.
    pub name: RuleName,
    /// The pool that grows.
    pub pool: PoolName,
    /// The query; it must give one value.
    pub query: String,
    /// What the value is held against.
    pub goal: MetricGoal,
    /// For how long the value must have been above.
    pub sustain: Duration,
}

/// What a metric is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricGoal {
    /// So much of it is one node's share: the pool should have `value / per_node` nodes.
    PerNode(f64),
    /// Above it, the pool should have `value / threshold` times as many nodes, at least one more.
    Threshold(f64),
}

/// A demand that is forecast.
#[derive(Clone, Debug, PartialEq)]
pub struct ForecastRule {
    /// Its name.
    pub name: RuleName,
    /// The pool that serves it.
    pub pool: PoolName,
    /// The query; it must give one value, the demand.
    pub query: String,
    /// How much of the demand one node serves; above 0.
    pub per_node: f64,
}

/// What forecasts may do.
#[derive(Clone, Debug, PartialEq)]
pub struct Predictive {
    /// Whether they take part.
    pub mode: PredictiveMode,
    /// What a node-minute of demand that waits is worth in node-minutes that are paid.
    pub price_of_waiting: f64,
    /// From a launch to a Ready node, until launches have shown it.
    pub boot: Duration,
    /// By whose clock the days of demands run.
    pub zone: TimeZone,
    /// From when on every forecast is wrong by a factor: a bug, planted for tests of what then happens.
    #[cfg(test)]
    pub wrecked: Option<(jiff::Timestamp, f64)>,
}

impl Predictive {
    /// Tells whether nothing is to be forecast.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.mode == PredictiveMode::Off
    }
}

/// Whether forecasts take part in decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PredictiveMode {
    /// Nothing is forecast.
    Off,
    /// They are made, scored and shown, and nothing follows.
    Shadow,
    /// As `Shadow` until a week of the demand is known, then as `On`.
    Auto,
    /// They buy ahead, and forbid removals that they would undo.
    On,
}

impl PredictiveMode {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Off, Self::Shadow, Self::Auto, Self::On];

    /// Gives its name, as the configuration has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Auto => "auto",
            Self::On => "on",
        }
    }
}
