//! Pods, trimmed to what a decision needs.

use super::ids::NodeName;
use super::resources::Resources;
use super::scheduling::{Constraints, Labels, Taint, TaintEffect, UNSCHEDULABLE_TAINT};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Names a pod within the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for PodKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// Where a pod stands in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PodPhase {
    /// Not all of its containers run yet.
    #[default]
    Pending,
    /// Bound to a node, with a container running.
    Running,
    /// Ended well; holds no resources.
    Succeeded,
    /// Ended badly; holds no resources.
    Failed,
    /// Its node does not say.
    Unknown,
}

/// Who makes a new pod when this one is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Owner {
    /// Nobody: once evicted it is gone.
    #[default]
    Nobody,
    /// A daemon set: it belongs to its node and leaves with it.
    DaemonSet,
    /// A node's own static (mirror) pod.
    Node,
    /// A replica set, stateful set, job or another controller.
    Controller,
}

/// One pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Pod {
    /// Its name.
    pub key: PodKey,
    /// Its unique id; a successor of the same name has another.
    pub uid: String,
    /// Who replaces it.
    pub owner: Owner,
    /// The node it is bound to.
    pub node: Option<NodeName>,
    /// Where it stands.
    pub phase: PodPhase,
    /// Since when the scheduler calls it `Unschedulable`; `None` when it does not.
    pub unschedulable_since: Option<Timestamp>,
    /// It waits for scheduling gates, so no node would help it.
    pub gated: bool,
    /// The node on which preemption makes room for it.
    pub nominated_node: Option<NodeName>,
    /// Since when it is being deleted.
    pub terminating_since: Option<Timestamp>,
    /// What it requests, init containers, sidecars and overhead included.
    pub requests: Resources,
    /// Its scheduling priority.
    pub priority: i32,
    /// The scheduler makes no room for it at the cost of pods of lower priority (`preemptionPolicy: Never`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never_preempts: bool,
    /// Its labels.
    pub labels: Arc<Labels>,
    /// What else decides where it may go.
    pub constraints: Arc<Constraints>,
    /// The same pod with its preferences as constraints, where it has some: they choose among the nodes that can be
    /// bought for it, or in place of its own, and are given up where none meets them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preferring: Option<Arc<Self>>,
    /// `cluster-autoscaler.kubernetes.io/safe-to-evict`, where set.
    pub safe_to_evict: Option<bool>,
    /// `node-fleet.io/do-not-disrupt` or `karpenter.sh/do-not-disrupt` is `"true"`.
    pub do_not_disrupt: bool,
}

impl Pod {
    /// Tells whether it takes up room on its node.
    #[must_use]
    pub fn holds_resources(&self) -> bool {
        match self.phase {
            PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => true,
            PodPhase::Succeeded | PodPhase::Failed => false,
        }
    }

    /// Tells whether it waits for a node that does not exist yet.
    ///
    /// A pod that is merely `Pending`, because its image does not pull, say, does not.
    #[must_use]
    pub fn wants_a_node(&self) -> bool {
        self.phase == PodPhase::Pending
            && self.node.is_none()
            && self.unschedulable_since.is_some()
            && self.nominated_node.is_none()
            && self.terminating_since.is_none()
            && !self.gated
    }

    /// Names the node on which it lies, or on which preemption makes room for it: the scheduler gives that room to no
    /// other, unless it is more important.
    #[must_use]
    pub fn has_room_on(&self) -> Option<&NodeName> {
        let nominated = || self.nominated_node.as_ref().filter(|_| self.terminating_since.is_none());
        self.node.as_ref().or_else(nominated)
    }

    /// Tells whether it may come to a node that is cordoned: evicted, it might come straight back.
    #[must_use]
    pub fn tolerates_a_cordon(&self) -> bool {
        let cordon = Taint { key: UNSCHEDULABLE_TAINT.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
        self.constraints.tolerations.iter().any(|toleration| toleration.tolerates(&cordon))
    }

    /// Tells whether a drain leaves it where it is, because it belongs to the node.
    #[must_use]
    pub fn stays_with_node(&self) -> bool {
        match self.owner {
            Owner::DaemonSet | Owner::Node => true,
            Owner::Nobody | Owner::Controller => false,
        }
    }

    /// Tells whether it is a placeholder: it has a node as long as nobody else needs it, and keeps none.
    #[must_use]
    pub fn is_expendable(&self, below: i32) -> bool {
        self.priority < below
    }

    /// Tells whether its node may go only if there is another place for it. An expendable one is evicted all the same,
    /// and waits where it finds none.
    #[must_use]
    pub fn must_find_a_place(&self, expendable_below: i32) -> bool {
        !self.stays_with_node() && !self.is_expendable(expendable_below)
    }
}
