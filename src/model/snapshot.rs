//! All that is known of the world at the start of a turn, with the age of each part.

use super::ids::{NodeName, OperationId, PoolName, RuleName};
use super::instance::Instance;
use super::node::Node;
use super::offer::{HourlyPrice, Offer, OfferKey};
use super::operation::Operation;
use super::pod::Pod;
use super::prospect::Prospect;
use super::reading::{Missing, Reading, Utilisation};
use super::resources::Resources;
use super::scheduling::{Constraints, Labels, Selector};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What one source said, and when; or why it said nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observed<T> {
    /// The source answered.
    Known {
        /// What it said.
        value: T,
        /// When it was true.
        at: Timestamp,
    },
    /// The source did not answer.
    Unknown(Missing),
}

impl<T> Observed<T> {
    /// Gives what the source said, where it did.
    #[must_use]
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known { value, .. } => Some(value),
            Self::Unknown(_) => None,
        }
    }
}

/// A pod disruption budget.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisruptionBudget {
    /// Its namespace; it speaks of pods there only.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pods it speaks of; `None` selects none.
    pub selector: Option<Selector>,
    /// How many of them may be evicted now.
    pub allowed: u32,
}

/// A daemon set: what it will put on every node that takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DaemonSet {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The labels of its pods.
    #[serde(default)]
    pub labels: Labels,
    /// What one of its pods requests.
    pub requests: Resources,
    /// Where its pods may go.
    pub constraints: Constraints,
}

/// The Kubernetes side: one consistent reading of the watched objects.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClusterView {
    /// Nodes by name, servers included.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Pods in the order of their keys, ended ones left out.
    pub pods: Vec<Arc<Pod>>,
    /// Pod disruption budgets.
    pub budgets: Vec<DisruptionBudget>,
    /// Daemon sets.
    pub daemon_sets: Vec<DaemonSet>,
    /// Objects that made no sense and were left out, by name, with the reason (bounded).
    pub refused: Vec<String>,
    /// The nodes among them, all of them: their instances are nodes, although it is not known which.
    pub refused_nodes: BTreeSet<NodeName>,
}

/// The utilisation of all nodes, as one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UtilisationReport {
    /// By node; a node that is absent was not in the answer.
    pub nodes: BTreeMap<NodeName, Utilisation>,
    /// Prometheus has been up for less than the rate window, so that its rates cannot be trusted.
    pub warming_up: bool,
}

/// Why nothing may be started, and since when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl ClusterView {
    /// Lists the workers of which nobody can tell which instance they are: their provider id is no EC2 one.
    pub fn unidentified(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(|node| node.instance.is_none() && !node.control_plane && node.pool().is_some())
    }

    /// Tells whether an instance that seems to be no node may be one all the same.
    #[must_use]
    pub fn may_hide_a_node(&self) -> bool {
        !self.refused_nodes.is_empty() || self.unidentified().next().is_some()
    }
}

/// Everything a plan is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Kubernetes.
    pub cluster: Observed<Arc<ClusterView>>,
    /// EC2: the instances that carry this cluster's tags.
    pub instances: Observed<Vec<Instance>>,
    /// EC2: what can be bought, in no order of preference.
    pub offers: Observed<Arc<Vec<Offer>>>,
    /// What offers cost, those included that no pool may buy.
    #[serde(with = "super::offer::price_list")]
    pub prices: Arc<BTreeMap<OfferKey, HourlyPrice>>,
    /// Prometheus: how busy each node is.
    pub utilisation: Observed<UtilisationReport>,
    /// Prometheus: the value of each `[[metric]]` rule.
    pub metrics: BTreeMap<RuleName, Reading>,
    /// What each `[[forecast]]` rule's forecast says.
    pub prospects: BTreeMap<RuleName, Prospect>,
    /// The journal: operations that are under way.
    pub operations: BTreeMap<OperationId, Operation>,
    /// The launch template and version that a launch would take now, by pool, as instances' tags name it.
    pub templates: BTreeMap<PoolName, String>,
    /// The switch that stops everything.
    pub pause: Option<Pause>,
}

/// Joins a pod's labels with a budget.
impl DisruptionBudget {
    /// Tells whether the budget speaks of the pod.
    #[must_use]
    pub fn covers(&self, namespace: &str, labels: &Labels) -> bool {
        self.namespace == namespace && self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }
}
