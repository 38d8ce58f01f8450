//! Kubernetes, as the controller needs it.

use crate::model::plan::NodeRef;
use crate::model::snapshot::Observed;
use crate::model::{ClusterView, InstanceId, Node, NodeName, OperationId, Pod, PodKey};
use std::future::Future;
use std::sync::Arc;

/// Why a call to the API server failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// No answer, or a fault on its side: try again later.
    #[error("the API server does not answer ({call}): {why}")]
    Unavailable {
        /// What was asked.
        call: &'static str,
        /// What went wrong.
        why: String,
    },
    /// The object has changed since it was read: read it again.
    #[error("{call}: the object has changed")]
    Conflict {
        /// What was asked.
        call: &'static str,
    },
    /// The object is not there, or another one has its name.
    #[error("{call}: the object is gone")]
    Gone {
        /// What was asked.
        call: &'static str,
    },
    /// Credentials or permissions: nothing helps but an operator.
    #[error("the API server refuses {call}: {why}; the daemon needs the rules of packaging/kubernetes/rbac.yaml")]
    Denied {
        /// What was asked.
        call: &'static str,
        /// The API server's own words.
        why: String,
    },
    /// The API server does not accept the request.
    #[error("{call}: {why}")]
    Invalid {
        /// What was asked.
        call: &'static str,
        /// The API server's own words.
        why: String,
    },
}

impl ClusterError {
    /// Names its class, as metrics show it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Conflict { .. } => "conflict",
            Self::Gone { .. } => "gone",
            Self::Denied { .. } => "denied",
            Self::Invalid { .. } => "invalid",
        }
    }
}

/// What became of an eviction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod is being deleted.
    Accepted,
    /// A disruption budget does not allow it now (429).
    Blocked,
    /// The pod is not there any more.
    Gone,
}

/// How a node is taken out of service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cordon {
    /// The operation that does it; kept in the annotation `node-fleet.io/cordoned-by`.
    pub operation: OperationId,
    /// Also taint it `node-fleet.io/interrupted:NoSchedule`, since its end is certain.
    pub taint: bool,
}

/// A node as it is right now, read past every cache.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeState {
    /// The node.
    pub node: Node,
    /// The pods bound to it, ended ones left out.
    pub pods: Vec<Pod>,
}

/// Kubernetes.
pub trait Cluster: Send + Sync {
    /// Gives what the watches have seen, with the time at which the API server was last heard.
    ///
    /// Asks the API server whether it is there; `Unknown` when it is not, or when a watch has not synced.
    fn view(&self) -> impl Future<Output = Observed<Arc<ClusterView>>> + Send;

    /// Gives what the watches have seen, without asking anyone.
    fn cached_view(&self) -> Option<Arc<ClusterView>>;

    /// Waits until a pod becomes unschedulable that was not so at the last call.
    fn urgent(&self) -> impl Future<Output = ()> + Send;

    /// Waits until something changes that an operation may wait for: a node or a pod's binding.
    fn changed(&self) -> impl Future<Output = ()> + Send;

    /// Reads one node with its pods past the cache. `Ok(None)` when there is none of that name.
    fn read_node(&self, name: &NodeName) -> impl Future<Output = Result<Option<NodeState>, ClusterError>> + Send;

    /// Tells which node an instance is, past the cache, also one that makes no sense otherwise.
    fn node_of(&self, instance: &InstanceId) -> impl Future<Output = Result<Option<NodeName>, ClusterError>> + Send;

    /// Takes the node out of service. Cordoning twice is a success.
    fn cordon(&self, node: &NodeRef, cordon: &Cordon) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Puts a node back into service that the operation has taken out of it: cordon, taint and annotation of node-fleet
    /// go. One that is out of service because of another operation stays so.
    fn uncordon(&self, node: &NodeRef, operation: &OperationId) -> impl Future<Output = Result<(), ClusterError>> + Send;

    /// Asks for the eviction of exactly this pod.
    fn evict(&self, pod: &PodKey, uid: &str) -> impl Future<Output = Result<Eviction, ClusterError>> + Send;

    /// Deletes the node's object, if it is still the same one. Gone already is a success.
    fn delete_node(&self, node: &NodeRef) -> impl Future<Output = Result<(), ClusterError>> + Send;
}
