//! What the policy remembers from turn to turn. The ledger keeps it, so a standby
//! carries on where the leader stopped.

use super::ids::{NodeName, PoolName, RuleName};
use super::offer::OfferKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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

/// An offer that is not bought for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Until when; `None` is until an operator resets it.
    pub until: Option<Timestamp>,
    /// Failures in a row; the pause grows with them.
    pub failures: u32,
    /// Why.
    pub why: String,
}

/// What is remembered of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PoolMemory {
    /// When capacity was last added.
    pub last_up: Option<Timestamp>,
    /// When capacity was last given back.
    pub last_down: Option<Timestamp>,
    /// Rules above their threshold.
    pub above: BTreeMap<RuleName, Streak>,
    /// The pool is idle by every measure.
    pub idle: Option<Streak>,
}

/// All that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// By pool.
    pub pools: BTreeMap<PoolName, PoolMemory>,
    /// Offers that rest.
    #[serde(with = "pairs")]
    pub offers: BTreeMap<OfferKey, Rest>,
    /// Launches in a row whose instances never joined, by offer.
    #[serde(with = "pairs")]
    pub never_joined: BTreeMap<OfferKey, u32>,
    /// Nodes whose drain failed, and until when they are left alone.
    pub resting_nodes: BTreeMap<NodeName, Timestamp>,
    /// Instances without a journal entry or node, nodes without an instance: since when.
    pub strays: BTreeMap<String, Timestamp>,
}

/// Keeps a map as a list of pairs, since a JSON object's keys are texts only.
mod pairs {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::collections::BTreeMap;

    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(map: &BTreeMap<K, V>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(map)
    }

    pub fn deserialize<'de, K, V, D>(deserializer: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(deserializer)?.into_iter().collect())
    }
}
