//! What the policy remembers from turn to turn. The ledger keeps it, so a standby
//! carries on where the leader stopped.

use super::ids::{InstanceId, InstanceType, NodeName, PoolName, RuleName};
use super::offer::{OfferKey, Quota};
use super::plan::ReplacementCause;
use super::resources::Resources;
use super::scheduling::Taint;
use super::spend::Spend;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// An unbroken run of readings that meet a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Streak {
    /// The first of them.
    pub since: Timestamp,
    /// The latest of them.
    pub latest: Timestamp,
    /// How many there were.
    pub readings: u32,
}

/// An offer, or what falls under a limit, that is not bought for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Until when.
    pub until: Timestamp,
    /// Failures in a row; the pause grows with them.
    pub failures: u32,
    /// When the latest of them was learned of: what was begun later may show that it is over. Records of old do not say.
    #[serde(default)]
    pub since: Timestamp,
    /// Why.
    pub why: String,
    /// So many launches in a row never joined that the pause is the longest there is, and a human should look.
    #[serde(default)]
    pub stopped: bool,
}

/// Something that happened and that a human should look at for some time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    /// What happened.
    pub text: String,
    /// How long it is shown.
    pub until: Timestamp,
}

/// What nodes of a type were seen to have for pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocatable {
    /// What the newest of them has; of extended resources, the most volumes that it attaches alone.
    pub has: Resources,
    /// What a pod of each daemon set asks for there, by the set's namespace and name: the least of those that were seen.
    #[serde(default)]
    pub sets: BTreeMap<String, Resources>,
    /// What the other pods ask for that stay with a node, static ones most of all: the least of all its nodes.
    #[serde(default)]
    pub others: Resources,
    /// When one was last seen.
    pub seen: Timestamp,
}

/// How the nodes that come to a pool differ from what its offers say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The newest of them.
    pub node: NodeName,
    /// Keys of the labels that it should have and lacks, or has with another value.
    pub labels: BTreeSet<String>,
    /// The taints that it has besides.
    pub taints: Vec<Taint>,
    /// How many nodes in a row have shown it to those that tried again; it is believed for longer each time.
    pub failures: u32,
    /// How long it is believed.
    pub until: Timestamp,
}

/// A node that is to be replaced, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// Its pool.
    pub pool: PoolName,
    /// What speaks for it.
    pub cause: ReplacementCause,
    /// The same in words.
    pub evidence: String,
    /// When its successors were decided on.
    pub since: Timestamp,
    /// It came to nothing: the node is not looked at again before `until`.
    pub failed: bool,
    /// How long its successors are waited for, and the node after that.
    pub until: Timestamp,
}

/// What is remembered of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolMemory {
    /// When capacity was last added.
    pub last_up: Option<Timestamp>,
    /// When a rule last added capacity: what pods buy, or what takes another node's place, is no reason for it to wait.
    pub last_rule_up: Option<Timestamp>,
    /// When capacity was last given back.
    pub last_down: Option<Timestamp>,
    /// When pods last bought what had only just been given back.
    pub regretted: Option<Timestamp>,
    /// How many removals in a row were regretted.
    pub regrets: u32,
    /// Rules above their threshold.
    pub above: BTreeMap<RuleName, Streak>,
    /// Seconds from the order to the last Ready node, of the latest launches all of whose instances joined.
    pub boots: Vec<u32>,
    /// The pool is idle by every measure.
    pub idle: Option<Streak>,
    /// The pool is not idle, and quiet enough to be made smaller if its pods fit.
    pub roomy: Option<Streak>,
}

impl Memory {
    /// Gives the rest of an offer for a pool that lasts the longest, if it rests at all.
    #[must_use]
    pub fn rest(&self, pool: &PoolName, offer: &OfferKey) -> Option<&Rest> {
        let of_pool = (!self.pool_offers.is_empty()).then(|| self.pool_offers.get(&(pool.clone(), offer.clone()))).flatten();
        self.offers.get(offer).into_iter().chain(of_pool).max_by_key(|rest| rest.until)
    }
}

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// By pool.
    pub pools: BTreeMap<PoolName, PoolMemory>,
    /// Offers that rest for every pool: EC2 has none to give.
    #[serde(with = "super::offer::pairs")]
    pub offers: BTreeMap<OfferKey, Rest>,
    /// Offers that rest for one pool: its launches are refused or never join.
    #[serde(with = "super::offer::pairs")]
    pub pool_offers: BTreeMap<(PoolName, OfferKey), Rest>,
    /// Limits of the account that were reached: what falls under them rests.
    #[serde(with = "super::offer::pairs")]
    pub quotas: BTreeMap<Quota, Rest>,
    /// Launches in a row whose instances never joined.
    #[serde(with = "super::offer::pairs")]
    pub never_joined_by_pool: BTreeMap<(PoolName, OfferKey), u32>,
    /// By the name of their alert.
    pub incidents: BTreeMap<String, Incident>,
    /// Nodes whose drain failed, and until when they are left alone.
    pub resting_nodes: BTreeMap<NodeName, Timestamp>,
    /// Instances that EC2 recommends to replace, and since when.
    pub at_risk: BTreeMap<InstanceId, Timestamp>,
    /// Instances that EC2 has taken back, and when.
    pub reclaimed: BTreeMap<InstanceId, Timestamp>,
    /// Nodes for which successors were bought.
    pub successions: BTreeMap<NodeName, Succession>,
    /// What nodes of a type in a pool really have for pods.
    #[serde(with = "super::offer::pairs")]
    pub allocatable: BTreeMap<(PoolName, InstanceType), Allocatable>,
    /// By pool.
    pub differences: BTreeMap<PoolName, Difference>,
    /// Older nodes are no longer asked for differences: an operator has asked to forget them.
    pub trusted_from: Option<Timestamp>,
    /// Instances without a journal entry or node, nodes without an instance: since when.
    pub strays: BTreeMap<String, Timestamp>,
    /// What the fleet has cost.
    pub spend: Spend,
}
