//! EC2 instances and who they belong to.

use super::ids::{Epoch, InstanceId, InstanceType, OperationId, PoolName, SubnetId, Zone};
use super::scheduling::POOL_LABEL;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The tag that names the cluster an instance belongs to.
pub const CLUSTER_TAG: &str = "node-fleet.io/cluster";
/// The tag that names the operation that launched an instance.
pub const OPERATION_TAG: &str = "node-fleet.io/operation";
/// The tag that names the epoch in which an instance was launched.
pub const EPOCH_TAG: &str = "node-fleet.io/epoch";
/// The tag that names the launch template that an instance was launched from, and its version (`lt-0abc:7`).
pub const TEMPLATE_TAG: &str = "node-fleet.io/launch-template";
/// Tags that every instance of ours carries, with their values.
pub const FIXED_TAGS: [(&str, &str); 3] = [("Project", "node-fleet"), ("ManagedBy", "node-fleet"), ("Role", "k3s-worker")];

/// How an instance is paid for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Market {
    /// At the list price, for as long as one likes.
    OnDemand,
    /// At the market's price, with two minutes' notice.
    Spot,
}

impl Market {
    /// Names it, as everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OnDemand => "on-demand",
            Self::Spot => "spot",
        }
    }
}

impl fmt::Display for Market {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Where an instance stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum InstanceState {
    /// Being started.
    Pending,
    /// Running, and paid for.
    Running,
    /// On the way to its end, or at it.
    Ending,
    /// Stopped: it can come back, so it still counts.
    Stopped,
}

/// An instance that carries this cluster's tags: [`FIXED_TAGS`] and [`CLUSTER_TAG`].
///
/// An instance without all of them is not ours and never becomes one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id.
    pub id: InstanceId,
    /// Its type.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// Its subnet, where EC2 tells.
    pub subnet: Option<SubnetId>,
    /// How it is paid for.
    pub market: Market,
    /// Where it stands.
    pub state: InstanceState,
    /// When it was launched.
    pub launched: Timestamp,
    /// When it ended or was stopped, where EC2 tells.
    #[serde(default)]
    pub ended: Option<Timestamp>,
    /// The pool that its tag names.
    pub pool: Option<PoolName>,
    /// The operation that its tag names.
    pub operation: Option<OperationId>,
    /// The epoch that its tag names.
    pub epoch: Option<Epoch>,
    /// The launch template and version that its tag names.
    pub template: Option<String>,
}

impl Instance {
    /// Tells whether it counts towards the size of its pool.
    #[must_use]
    pub fn counts(&self) -> bool {
        match self.state {
            InstanceState::Pending | InstanceState::Running | InstanceState::Stopped => true,
            InstanceState::Ending => false,
        }
    }
}

/// Names a launch template in one of its versions, as [`TEMPLATE_TAG`] does.
#[must_use]
pub fn template_tag(template: &str, version: &str) -> String {
    format!("{template}:{version}")
}

/// Makes the tags that an instance of ours gets at its creation: all that tells it from others'.
#[must_use]
pub fn tags(cluster: &str, pool: &PoolName, operation: &OperationId, epoch: Epoch, template: &str) -> BTreeMap<String, String> {
    let own = [
        (CLUSTER_TAG, cluster.to_owned()),
        (POOL_LABEL, pool.to_string()),
        (OPERATION_TAG, operation.to_string()),
        (EPOCH_TAG, epoch.to_string()),
        (TEMPLATE_TAG, template.to_owned()),
    ];
    let fixed = FIXED_TAGS.iter().map(|(key, value)| (*key, (*value).to_owned()));
    fixed.chain(own).map(|(key, value)| (key.to_owned(), value)).collect()
}
