//! What a turn decided, in full: execution chooses nothing.

use super::ids::{InstanceId, InstanceType, NodeName, OperationId, PoolName, RuleName, SubnetId, Zone};
use super::instance::Market;
use super::offer::HourlyPrice;
use super::pod::PodKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Buys `count` instances in one zone on one market.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchOrder {
    /// The pool that grows.
    pub pool: PoolName,
    /// The zone.
    pub zone: Zone,
    /// The subnet in it.
    pub subnet: SubnetId,
    /// The market.
    pub market: Market,
    /// The types that will do, best first.
    pub instance_types: Vec<InstanceType>,
    /// How many.
    pub count: u32,
    /// What one of them costs at most.
    pub price: HourlyPrice,
    /// Why.
    pub reason: LaunchReason,
    /// The pods it is bought for (at most [`PODS_NAMED`]): while it is under way, its nodes are theirs.
    pub pods: Vec<PodKey>,
}

impl LaunchOrder {
    /// Tells whether the launch is for growth, and not for what EC2 takes back.
    #[must_use]
    pub fn reason_is_discretionary(&self) -> bool {
        match self.reason {
            LaunchReason::PendingPods { .. }
            | LaunchReason::BelowMinimum
            | LaunchReason::Headroom
            | LaunchReason::Rule { .. }
            | LaunchReason::Successor { .. } => true,
            LaunchReason::Replacement { .. } => false,
        }
    }
}

/// How many pods an order names at most; it has to fit into an item of the journal.
pub const PODS_NAMED: usize = 250;

/// Why instances are bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum LaunchReason {
    /// Pods cannot be scheduled.
    PendingPods {
        /// How many this order would serve.
        pods: u32,
    },
    /// The pool is below its minimum.
    BelowMinimum,
    /// The room that is to be kept free is not there.
    Headroom,
    /// A utilisation or `[[metric]]` rule stayed above its threshold.
    Rule {
        /// Which.
        rule: RuleName,
        /// What it read, in words.
        evidence: String,
    },
    /// A node goes whose pods need room.
    Replacement {
        /// The node that goes.
        node: NodeName,
    },
    /// A node is to be replaced once this one is there.
    Successor {
        /// The node that goes then.
        node: NodeName,
        /// What speaks for it.
        cause: ReplacementCause,
        /// The same in words.
        evidence: String,
    },
}

/// Why a node that could stay is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplacementCause {
    /// EC2 recommends it: the market may soon want the instance back.
    Recommended,
    /// It has reached its greatest age.
    Expired,
    /// A launch would take another version of the launch template, or another template.
    Drifted,
    /// Its pods have room on nodes that cost less.
    Cheaper,
    /// Its zone has too many nodes, and another one too few.
    Rebalanced,
}

impl ReplacementCause {
    /// Gives its stable name, as metrics and logs show it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Recommended => "recommended",
            Self::Expired => "expired",
            Self::Drifted => "drifted",
            Self::Cheaper => "cheaper",
            Self::Rebalanced => "rebalanced",
        }
    }
}

impl LaunchReason {
    /// Names the rule whose finding tells of it.
    #[must_use]
    pub fn rule(&self) -> RuleName {
        match self {
            Self::PendingPods { .. } | Self::Replacement { .. } => "pending_pods".into(),
            Self::BelowMinimum => "bounds".into(),
            Self::Headroom => "headroom".into(),
            Self::Rule { rule, .. } => rule.clone(),
            Self::Successor { .. } => "replacement".into(),
        }
    }
}

impl fmt::Display for LaunchReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PendingPods { pods } => write!(formatter, "{pods} pods cannot be scheduled"),
            Self::BelowMinimum => formatter.write_str("the pool is below its minimum"),
            Self::Headroom => formatter.write_str("the headroom is not there"),
            Self::Rule { rule, evidence } => write!(formatter, "rule {rule}: {evidence}"),
            Self::Replacement { node } => write!(formatter, "node {node} goes and its pods need room"),
            Self::Successor { node, evidence, .. } => write!(formatter, "node {node} is to be replaced: {evidence}"),
        }
    }
}

/// What happens to a drain that does not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnDrainTimeout {
    /// The node goes back into service and rests.
    RollBack,
    /// The instance is terminated with what is left on it.
    Force,
}

/// Gives one instance back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetireOrder {
    /// The pool that shrinks.
    pub pool: PoolName,
    /// The instance; `None` when only a node's object is left to remove.
    pub instance: Option<InstanceId>,
    /// The node and its unique id; `None` when the instance never became one.
    pub node: Option<NodeRef>,
    /// The zone.
    pub zone: Zone,
    /// The market.
    pub market: Market,
    /// Why.
    pub reason: RetireReason,
    /// What happens when the drain does not end in time.
    pub on_timeout: OnDrainTimeout,
}

/// A node, sure to be the same one later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeRef {
    /// Its name.
    pub name: NodeName,
    /// Its unique id.
    pub uid: String,
}

/// Why an instance is given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum RetireReason {
    /// The pool has more than it needs.
    Underused {
        /// What was read, in words.
        evidence: String,
    },
    /// Its pods fit on the nodes that stay.
    Consolidated {
        /// What was read, in words.
        evidence: String,
    },
    /// The bounds in force allow fewer.
    AboveMaximum,
    /// Other nodes have taken its place.
    Replaced {
        /// What spoke for it.
        cause: ReplacementCause,
        /// The same in words.
        evidence: String,
    },
    /// EC2 takes it back.
    SpotInterruption {
        /// When EC2 ends it.
        deadline: Timestamp,
    },
    /// It was launched and is no Ready node within the limit.
    NeverJoined,
    /// No operation of the journal knows it and it is no node.
    Leaked,
    /// Its instance is gone and the node's object remains.
    InstanceGone,
    /// Its node has not been Ready for long, although the instance runs.
    Unhealthy {
        /// Since when.
        since: Timestamp,
    },
}

impl RetireReason {
    /// The names of the reasons that are our wish.
    pub const VOLUNTARY: [&'static str; 8] =
        ["above_maximum", "cheaper", "consolidated", "drifted", "expired", "rebalanced", "recommended", "underused"];

    /// Tells whether it is our wish, and so may be refused, delayed and rolled back.
    #[must_use]
    pub fn is_voluntary(&self) -> bool {
        match self {
            Self::Underused { .. } | Self::Consolidated { .. } | Self::AboveMaximum | Self::Replaced { .. } => true,
            Self::SpotInterruption { .. } | Self::NeverJoined | Self::Leaked | Self::InstanceGone | Self::Unhealthy { .. } => false,
        }
    }

    /// Tells whether EC2 takes the instance back: then nothing may take the time that is left.
    #[must_use]
    pub fn is_interruption(&self) -> bool {
        self.deadline().is_some()
    }

    /// When EC2 ends the instance, where EC2 takes it back.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        match self {
            Self::SpotInterruption { deadline } => Some(*deadline),
            Self::Underused { .. }
            | Self::Consolidated { .. }
            | Self::AboveMaximum
            | Self::Replaced { .. }
            | Self::NeverJoined
            | Self::Leaked
            | Self::InstanceGone
            | Self::Unhealthy { .. } => None,
        }
    }

    /// Gives its stable name, as metrics and logs show it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Underused { .. } => "underused",
            Self::Consolidated { .. } => "consolidated",
            Self::AboveMaximum => "above_maximum",
            Self::Replaced { cause, .. } => cause.name(),
            Self::SpotInterruption { .. } => "spot_interruption",
            Self::NeverJoined => "never_joined",
            Self::Leaked => "leaked",
            Self::InstanceGone => "instance_gone",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }
}

impl fmt::Display for RetireReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Underused { evidence } => write!(formatter, "the pool needs less: {evidence}"),
            Self::Consolidated { evidence } => write!(formatter, "its pods fit on fewer nodes: {evidence}"),
            Self::AboveMaximum => formatter.write_str("the pool is above the maximum in force"),
            Self::Replaced { evidence, .. } => write!(formatter, "other nodes have taken its place: {evidence}"),
            Self::SpotInterruption { deadline } => write!(formatter, "EC2 takes the instance back at {deadline:.0}"),
            Self::NeverJoined => formatter.write_str("the instance never became a Ready node"),
            Self::Leaked => formatter.write_str("the instance is in no journal and is no node"),
            Self::InstanceGone => formatter.write_str("the instance is gone and its node object remains"),
            Self::Unhealthy { since } => write!(formatter, "the node has not been Ready since {since:.0}"),
        }
    }
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Buy.
    Launch(LaunchOrder),
    /// Give back.
    Retire(RetireOrder),
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch(LaunchOrder { count, market, instance_types, zone, reason, .. }) => {
                let first = instance_types.first().map(InstanceType::as_str).unwrap_or_default();
                write!(formatter, "buys {count} {market} {first} in {zone}: {reason}")
            }
            Self::Retire(RetireOrder { instance, node, reason, .. }) => {
                let name = node.as_ref().map(|node| node.name.as_str());
                let name = name.or(instance.as_ref().map(InstanceId::as_str)).unwrap_or_default();
                write!(formatter, "gives {name} back: {reason}")
            }
        }
    }
}

/// Why something that a rule wanted, or might have wanted, is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "hold")]
pub enum Hold {
    /// An operator has paused the fleet.
    Paused {
        /// By whom and why.
        reason: String,
    },
    /// Kubernetes or EC2 does not answer, so nothing can be decided.
    Blind {
        /// Which source, and what it said.
        why: String,
    },
    /// Data that the rule needs is missing or doubtful.
    BadData {
        /// Which, and why.
        why: String,
    },
    /// A cooldown runs.
    CoolingDown {
        /// Until when.
        until: Timestamp,
    },
    /// The pool is at its maximum.
    AtMaximum {
        /// The maximum in force.
        max: u32,
    },
    /// The pool is at its minimum.
    AtMinimum {
        /// The minimum in force.
        min: u32,
    },
    /// An operation that is under way covers the need.
    Underway {
        /// Which.
        operation: OperationId,
    },
    /// The condition has not lasted long enough.
    NotSustained {
        /// Since when it holds; `None` when it does not.
        since: Option<Timestamp>,
    },
    /// The forecast only watches: it would have acted.
    Shadowed {
        /// With fewer nodes it would buy.
        buy: u32,
        /// Down to these it would give back.
        hold_nodes: u32,
    },
    /// Too many nodes are not ready.
    UnreadyNodes {
        /// How many.
        unready: u32,
        /// Of how many.
        total: u32,
    },
    /// Pods wait for room.
    PodsWaiting {
        /// How many.
        pods: u32,
    },
    /// A rule wants capacity, so none is given back.
    Wanted {
        /// Which.
        rule: RuleName,
    },
    /// A node is being replaced.
    Replacing {
        /// Which.
        node: NodeName,
    },
    /// The pool's own disruption budget allows none now.
    Budget {
        /// For which reason.
        reason: String,
    },
    /// No offer can be bought now.
    NoOffer {
        /// Why not, the most common reason first.
        why: String,
    },
    /// No node may go.
    NoCandidate {
        /// Why each candidate stays (bounded).
        why: Vec<String>,
    },
}

impl fmt::Display for Hold {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Paused { reason } => write!(formatter, "paused: {reason}"),
            Self::Blind { why } => write!(formatter, "blind: {why}"),
            Self::BadData { why } => write!(formatter, "bad data: {why}"),
            Self::CoolingDown { until } => write!(formatter, "cooling down until {until:.0}"),
            Self::AtMaximum { max } => write!(formatter, "at the maximum of {max}"),
            Self::AtMinimum { min } => write!(formatter, "at the minimum of {min}"),
            Self::Underway { operation } => write!(formatter, "operation {operation} is under way"),
            Self::NotSustained { since: Some(since) } => write!(formatter, "not yet sustained, since {since:.0}"),
            Self::NotSustained { since: None } => formatter.write_str("not sustained"),
            Self::Shadowed { buy, hold_nodes } => write!(formatter, "it only watches: it would buy for {buy} and hold {hold_nodes} nodes"),
            Self::UnreadyNodes { unready, total } => write!(formatter, "{unready} of {total} nodes are not ready"),
            Self::PodsWaiting { pods } => write!(formatter, "{pods} pods wait for room"),
            Self::Wanted { rule } => write!(formatter, "rule {rule} wants the capacity"),
            Self::Replacing { node } => write!(formatter, "node {node} is being replaced"),
            Self::Budget { reason } => write!(formatter, "the pool's disruption budget allows none now that is {reason}"),
            Self::NoOffer { why } => write!(formatter, "no offer: {why}"),
            Self::NoCandidate { why } if why.is_empty() => formatter.write_str("no node may go"),
            Self::NoCandidate { why } => write!(formatter, "no node may go: {}", why.join("; ")),
        }
    }
}

/// What one rule saw and wanted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule: `bounds`, `pending_pods`, `headroom`, `cpu`, `memory`, `scale_down`, `replacement` or that of a
    /// `[[metric]]` or `[[forecast]]`.
    pub rule: RuleName,
    /// What it read, in words.
    pub evidence: String,
    /// The nodes it wants more (or, below zero, fewer).
    pub wants: i64,
    /// Why it was not, or not wholly, followed.
    pub hold: Option<Hold>,
    /// What was looked at and is not chosen (bounded), each with its reason: nodes that do not go although others do, or
    /// are not replaced; offers that are not bought although others are, and dearer ways of buying.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<String>,
}

/// A pod that no node of ours could ever take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unplaceable {
    /// The pod.
    pub pod: PodKey,
    /// Why, for the offer that came nearest.
    pub why: String,
}

/// What was decided for a pool, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolReport {
    /// The pool.
    pub pool: PoolName,
    /// Instances that exist.
    pub owned: u32,
    /// How many of them are spot instances.
    #[serde(default)]
    pub spot: u32,
    /// Instances that are asked for and are not seen yet.
    pub in_flight: u32,
    /// Nodes that are Ready.
    pub ready: u32,
    /// The bounds in force.
    pub min: u32,
    /// The bounds in force.
    pub max: u32,
    /// What the pool should have after the plan.
    pub desired: u32,
    /// Dollars per hour of what exists, as far as prices are known.
    pub price: HourlyPrice,
    /// The same once the plan is carried out, at most.
    pub price_after: HourlyPrice,
    /// Mean CPU utilisation, 0 to 1, where it can be trusted.
    pub cpu: Option<f64>,
    /// Mean memory utilisation, 0 to 1, where it can be trusted.
    pub memory: Option<f64>,
    /// Each rule's finding.
    pub findings: Vec<Finding>,
}

/// What a turn decided.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// What to do, in this order.
    pub actions: Vec<Action>,
    /// Why, pool by pool.
    pub pools: Vec<PoolReport>,
    /// Reasons that hold for the whole fleet.
    pub holds: Vec<Hold>,
    /// Pods that wait for a node.
    pub pending: u32,
    /// Pods that no node of ours could take (bounded), so that they buy none.
    pub unplaceable: Vec<Unplaceable>,
    /// How many of the pods that wait no node of ours could take; pods of nodes that leave are named, and do not wait yet.
    pub unplaceable_pods: u32,
    /// Conditions that a human should look at, by a short stable name with a text.
    pub alerts: Vec<Alert>,
}

/// A condition that a human should look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Alert {
    /// Its stable name (`spot_exhausted`, `offer_stopped`, …), a metric label.
    pub name: String,
    /// Whom it concerns, of those that may have it beside one another: an offer, a pool; empty where there is but one.
    #[serde(default)]
    pub subject: String,
    /// What is the matter.
    pub text: String,
}
