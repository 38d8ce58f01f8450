//! Operations: launches and retirements as the journal keeps them.
//!
//! An operation is written down before its first effect, with everything that a
//! successor needs to repeat that effect to the byte.

use super::ids::{Epoch, InstanceId, InstanceType, NodeName, OperationId, PoolName, SubnetId, Zone};
use super::instance::Market;
use super::offer::OfferKey;
use super::plan::{LaunchOrder, RetireOrder};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of the journal's records that this build writes.
///
/// A build refuses records of a later version instead of guessing.
pub const RECORD_VERSION: u32 = 1;

/// A `CreateFleet` request in full. The same request with the same token has one effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchRequest {
    /// The client token: the operation's id.
    pub token: OperationId,
    /// The launch template's id or name.
    pub launch_template: String,
    /// Its version, a number: `$Latest` would make a repetition another request.
    pub launch_template_version: String,
    /// The subnet, and with it the zone, that the operation is pinned to.
    pub subnet: SubnetId,
    /// The market.
    pub market: Market,
    /// The types that will do, best first.
    pub instance_types: Vec<InstanceType>,
    /// How many instances.
    pub count: u32,
    /// The tags that instances and volumes get at creation.
    pub tags: BTreeMap<String, String>,
}

/// An instance that a launch brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchedInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its type.
    pub instance_type: InstanceType,
    /// The node that it became, once that is Ready.
    pub node: Option<NodeName>,
}

/// Where a launch stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum LaunchState {
    /// Written down; the request may or may not have been sent.
    Journalled,
    /// EC2 has answered; the instances are on their way to becoming nodes.
    Joining {
        /// What was launched; may be fewer than asked for.
        instances: Vec<LaunchedInstance>,
        /// When the answer came. The deadline for joining counts from when the instance that leads saw it.
        since: Timestamp,
    },
    /// Over.
    Done {
        /// The instances that became nodes.
        joined: Vec<LaunchedInstance>,
        /// The instances that did not and were given back, but for those that had lost the tags that make them ours.
        never_joined: Vec<LaunchedInstance>,
        /// The instances that did not and live on, since EC2 refuses to end them or nobody can tell which node they are.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        left: Vec<LaunchedInstance>,
    },
    /// Over without an instance.
    Failed {
        /// Why, as the caller of the policy needs it.
        failure: LaunchFailure,
    },
}

/// Why a launch brought nothing, named by what follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "failure")]
pub enum LaunchFailure {
    /// EC2 has none of the offers: they rest, and others are tried.
    InsufficientCapacity,
    /// An account limit (vCPU quota, spot instance count): all offers of the market rest.
    Quota {
        /// EC2's own words.
        message: String,
    },
    /// The token has been used with other parameters: the operation is set aside, with an alert.
    TokenMismatch,
    /// The request is refused for good (template, parameters).
    Refused {
        /// EC2's own words.
        message: String,
    },
    /// EC2 was too busy and the token is spent: nothing is wrong with the offers.
    Busy {
        /// EC2's own words.
        message: String,
    },
    /// No answer came in time, and EC2 shows no instance of the operation: the offers rest.
    Unanswered {
        /// The last error.
        message: String,
    },
}

impl LaunchFailure {
    /// Gives its stable name, as metrics and logs show it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::InsufficientCapacity => "insufficient_capacity",
            Self::Quota { .. } => "quota",
            Self::TokenMismatch => "token_mismatch",
            Self::Refused { .. } => "refused",
            Self::Busy { .. } => "busy",
            Self::Unanswered { .. } => "unanswered",
        }
    }
}

/// The purchase of instances, from the journal entry to Ready nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Its id.
    pub id: OperationId,
    /// The epoch it was begun in.
    pub epoch: Epoch,
    /// When it was begun.
    pub created: Timestamp,
    /// When it entered its state.
    pub updated: Timestamp,
    /// What the plan asked for.
    pub order: LaunchOrder,
    /// What is sent to EC2.
    pub request: LaunchRequest,
    /// Where it stands.
    #[serde(flatten)]
    pub state: LaunchState,
}

impl Launch {
    /// Lists the offers that the request may be served from.
    pub fn offers(&self) -> impl Iterator<Item = OfferKey> + '_ {
        self.request.instance_types.iter().map(|instance_type| OfferKey {
            instance_type: instance_type.clone(),
            zone: self.order.zone.clone(),
            market: self.request.market,
        })
    }

    /// Names what became of a launch that did not bring all that it launched: its failure, or `never_joined`.
    #[must_use]
    pub fn failure_name(&self) -> &'static str {
        match &self.state {
            LaunchState::Failed { failure } => failure.name(),
            LaunchState::Journalled | LaunchState::Joining { .. } | LaunchState::Done { .. } => "never_joined",
        }
    }

    /// Counts the instances that may exist because of it and are not nodes yet.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        match &self.state {
            LaunchState::Journalled => self.request.count,
            LaunchState::Joining { instances, .. } => {
                u32::try_from(instances.iter().filter(|instance| instance.node.is_none()).count()).unwrap_or(u32::MAX)
            }
            LaunchState::Done { .. } | LaunchState::Failed { .. } => 0,
        }
    }
}

/// Where a retirement stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum RetireState {
    /// Written down; nothing has been touched.
    Journalled,
    /// The node takes no new pods; its pods are being evicted.
    Draining {
        /// Since when; the drain's deadline counts from here.
        since: Timestamp,
    },
    /// Nothing is left on the node that a drain would move; the instance is to be terminated.
    Drained {
        /// Pods that were still there when the deadline forced the end.
        forced: u32,
    },
    /// EC2 has taken the termination; the node's object is to go.
    Terminated,
    /// The drain did not end in time, or the node may no longer go: it is to be uncordoned.
    RollingBack {
        /// Why.
        reason: String,
    },
    /// Over: instance and node are gone.
    Done,
    /// Over: the node is back in service.
    RolledBack {
        /// Why.
        reason: String,
    },
}

/// The removal of one instance and its node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retire {
    /// Its id.
    pub id: OperationId,
    /// The epoch it was begun in.
    pub epoch: Epoch,
    /// When it was begun.
    pub created: Timestamp,
    /// When it entered its state.
    pub updated: Timestamp,
    /// What the plan asked for.
    pub order: RetireOrder,
    /// Where it stands.
    #[serde(flatten)]
    pub state: RetireState,
}

/// A launch or a retirement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
#[expect(clippy::large_enum_variant, reason = "there are few at a time, and most of what is said of them is of launches")]
pub enum Operation {
    /// Instances are bought.
    Launch(Launch),
    /// An instance is given back.
    Retire(Retire),
}

impl Operation {
    /// Kind and [state](Self::state_name) of all that is not [over](Self::is_over).
    pub const UNDER_WAY: [(&'static str, &'static str); 7] = [
        ("launch", "journalled"),
        ("launch", "joining"),
        ("retire", "journalled"),
        ("retire", "draining"),
        ("retire", "drained"),
        ("retire", "terminated"),
        ("retire", "rolling_back"),
    ];

    /// Names its kind, as metrics and the status show it.
    #[must_use]
    pub fn kind_name(&self) -> &'static str {
        match self {
            Self::Launch(_) => "launch",
            Self::Retire(_) => "retire",
        }
    }

    /// Gives its id.
    #[must_use]
    pub fn id(&self) -> &OperationId {
        match self {
            Self::Launch(launch) => &launch.id,
            Self::Retire(retire) => &retire.id,
        }
    }

    /// Gives its pool.
    #[must_use]
    pub fn pool(&self) -> &PoolName {
        match self {
            Self::Launch(launch) => &launch.order.pool,
            Self::Retire(retire) => &retire.order.pool,
        }
    }

    /// Gives when it was decided.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        match self {
            Self::Launch(launch) => launch.created,
            Self::Retire(retire) => retire.created,
        }
    }

    /// Tells when it entered its state.
    #[must_use]
    pub fn updated(&self) -> Timestamp {
        match self {
            Self::Launch(launch) => launch.updated,
            Self::Retire(retire) => retire.updated,
        }
    }

    /// Tells whether nothing is left to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::Launch(launch) => match launch.state {
                LaunchState::Journalled | LaunchState::Joining { .. } => false,
                LaunchState::Done { .. } | LaunchState::Failed { .. } => true,
            },
            Self::Retire(retire) => match retire.state {
                RetireState::Journalled
                | RetireState::Draining { .. }
                | RetireState::Drained { .. }
                | RetireState::Terminated
                | RetireState::RollingBack { .. } => false,
                RetireState::Done | RetireState::RolledBack { .. } => true,
            },
        }
    }

    /// Names its state, as logs and the status show it.
    #[must_use]
    pub fn state_name(&self) -> &'static str {
        match self {
            Self::Launch(launch) => match launch.state {
                LaunchState::Journalled => "journalled",
                LaunchState::Joining { .. } => "joining",
                LaunchState::Done { .. } => "done",
                LaunchState::Failed { .. } => "failed",
            },
            Self::Retire(retire) => match retire.state {
                RetireState::Journalled => "journalled",
                RetireState::Draining { .. } => "draining",
                RetireState::Drained { .. } => "drained",
                RetireState::Terminated => "terminated",
                RetireState::RollingBack { .. } => "rolling_back",
                RetireState::Done => "done",
                RetireState::RolledBack { .. } => "rolled_back",
            },
        }
    }

    /// Gives the zone that it buys in; a retirement has the zone of its order.
    #[must_use]
    pub fn zone(&self) -> &Zone {
        match self {
            Self::Launch(launch) => &launch.order.zone,
            Self::Retire(retire) => &retire.order.zone,
        }
    }
}
