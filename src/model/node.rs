//! Nodes as Kubernetes shows them.

use super::ids::{InstanceId, NodeName, PoolName, Zone};
use super::resources::Resources;
use super::scheduling::{Labels, POOL_LABEL, Taint, ZONE_LABEL};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What the node's `Ready` condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    /// It takes pods.
    Ready {
        /// Since when.
        since: Timestamp,
    },
    /// Its kubelet reports trouble, or does not report at all.
    NotReady {
        /// Since when.
        since: Timestamp,
    },
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its unique id; a successor of the same name has another.
    pub uid: String,
    /// The EC2 instance behind it, from `spec.providerID` (`aws:///ZONE/INSTANCE`).
    pub instance: Option<InstanceId>,
    /// Its labels.
    pub labels: Labels,
    /// Its taints, without those that cordoning and readiness put there.
    pub taints: Vec<Taint>,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// The operation that cordoned it, from our annotation.
    pub cordoned_by: Option<String>,
    /// Whether it is ready.
    pub readiness: Readiness,
    /// What it can hold in all.
    pub allocatable: Resources,
    /// When its object was made.
    pub created: Timestamp,
    /// It carries a control-plane role: a server, never to be touched.
    pub control_plane: bool,
    /// The annotation that forbids its removal, by name.
    pub keep: Option<String>,
}

impl Node {
    /// Gives its zone.
    #[must_use]
    pub fn zone(&self) -> Option<Zone> {
        self.labels.get(ZONE_LABEL).map(|zone| Zone::from(zone.as_str()))
    }

    /// Gives the pool that its label names.
    #[must_use]
    pub fn pool(&self) -> Option<PoolName> {
        self.labels.get(POOL_LABEL).map(|pool| PoolName::from(pool.as_str()))
    }

    /// Tells whether it is ready for pods.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready_since().is_some()
    }

    /// Gives since when it is Ready, if it is.
    #[must_use]
    pub fn ready_since(&self) -> Option<Timestamp> {
        match self.readiness {
            Readiness::Ready { since } => Some(since),
            Readiness::NotReady { .. } => None,
        }
    }
}

/// Reads the instance id from a provider id (`aws:///eu-central-1a/i-0abc`).
#[must_use]
pub fn instance_of_provider_id(provider_id: &str) -> Option<InstanceId> {
    InstanceId::read(provider_id.strip_prefix("aws://")?.rsplit('/').next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_ec2_provider_id_names_an_instance() {
        assert_eq!(instance_of_provider_id("aws:///us-east-1a/i-0abc1234"), Some("i-0abc1234".into()));
        for other in
            ["", "aws:///us-east-1a/i-foo", "k3s://worker-1", "aws:///us-east-1a/", "i-0abc", "aws:///us-east-1a/fargate-ip-10-0-0-1"]
        {
            assert_eq!(instance_of_provider_id(other), None, "{other}");
        }
    }
}
