//! What happens to the fleet, as people are told of it.
//!
//! The leader's loop tells; messages, CloudWatch's data and Kubernetes' Events are made from what it tells. An
//! operation is told of once the journal has it, so that nothing is told that did not happen.
//!
//! What is promised: one leader tells each of its operation's states once, in order, and without waiting. Nobody
//! writes down what was told, so the end of a process may swallow what it had not sent yet. Whoever takes over
//! therefore tells what is under way and what has ended within [`LATELY`] in one happening of its own
//! ([`What::TookOver`]), which may repeat that, and tells nothing that the journal shows as older.

use super::ids::{Epoch, InstanceId, InstanceType, NodeName, PoolName};
use super::offer::HourlyPrice;
use super::operation::{LaunchState, Operation, RetireState};
use super::plan::{Alert, RetireReason};
use super::pod::PodKey;
use super::snapshot::Pause;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// What has ended so recently may not have been told by the instance that led then.
pub const LATELY: SignedDuration = SignedDuration::from_mins(2);
/// How many waiting pods one happening names.
pub const WAITING_NAMED: usize = 50;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// When.
    pub at: Timestamp,
    /// What.
    pub what: What,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there are few at a time, and most are of operations")]
pub enum What {
    /// This instance has taken the lease and read the journal.
    TookOver {
        /// Its identity.
        owner: String,
        /// The epoch that began.
        epoch: Epoch,
        /// The switch, as the ledger has it.
        pause: Option<Pause>,
        /// Operations that it carries on with.
        under_way: Vec<Operation>,
        /// Operations that have ended within [`LATELY`].
        lately: Vec<Operation>,
    },
    /// An operation has come to another state, and the journal has it.
    Moved {
        /// The operation in its new state.
        operation: Operation,
        /// It has left its first state: its effects begin to show.
        begins: bool,
        /// What the decision that began it meant for its pool; `None` where another instance decided, or nobody did.
        change: Option<PoolChange>,
    },
    /// An instance has become a Ready node.
    Joined {
        /// The pool.
        pool: PoolName,
        /// The instance.
        instance: InstanceId,
        /// Its type.
        instance_type: InstanceType,
        /// The node.
        node: NodeName,
        /// From EC2's answer to the Ready node.
        took: Duration,
    },
    /// The fleet is paused.
    Paused {
        /// By whom and why.
        pause: Pause,
    },
    /// The fleet is no longer paused.
    Resumed {
        /// By whom, where this instance was asked.
        by: Option<String>,
    },
    /// Pods wait, and nothing is bought for them.
    Waiting {
        /// Each with the reason, at most [`WAITING_NAMED`].
        pods: Vec<WaitingPod>,
    },
    /// A condition has come up that a human should look at.
    Alerted {
        /// Which.
        alert: Alert,
    },
    /// The audit has refused a plan.
    Refused {
        /// What the plan would have broken.
        violations: Vec<String>,
    },
}

/// What a decision means for a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolChange {
    /// Instances that existed or were asked for.
    pub before: u32,
    /// Instances that the pool should have.
    pub after: u32,
    /// Dollars per hour before.
    pub price_before: HourlyPrice,
    /// Dollars per hour once the plan is carried out, at most.
    pub price_after: HourlyPrice,
}

/// A pod that waits although node-fleet knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingPod {
    /// The pod.
    pub pod: PodKey,
    /// Why nothing is bought for it.
    pub why: String,
}

/// What a move of an operation is to somebody who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Milestone {
    /// EC2 has launched instances.
    Launched,
    /// All instances of a launch are Ready nodes.
    Arrived,
    /// A launch failed, as a whole or for some of its instances.
    LaunchFailed,
    /// A node begins to go.
    Leaves,
    /// EC2 takes a node back.
    Interrupted,
    /// Node and instance are gone.
    Left,
    /// A node stays after all.
    RolledBack,
    /// A step on the way that only the log shows.
    Step,
}

impl Milestone {
    /// Says what the state of an operation means. `begins` as in [`What::Moved`].
    #[must_use]
    pub fn of(operation: &Operation, begins: bool) -> Self {
        match operation {
            Operation::Launch(launch) => match &launch.state {
                LaunchState::Journalled => Self::Step,
                LaunchState::Joining { .. } => Self::Launched,
                LaunchState::Done { never_joined, left, .. } if never_joined.is_empty() && left.is_empty() => Self::Arrived,
                LaunchState::Done { .. } | LaunchState::Failed { .. } => Self::LaunchFailed,
            },
            Operation::Retire(retire) => match &retire.state {
                RetireState::Done => Self::Left,
                RetireState::RolledBack { .. } => Self::RolledBack,
                RetireState::Journalled
                | RetireState::Draining { .. }
                | RetireState::Drained { .. }
                | RetireState::Terminated
                | RetireState::RollingBack { .. } => {
                    if begins {
                        Self::first(&retire.order.reason)
                    } else {
                        Self::Step
                    }
                }
            },
        }
    }

    /// Says what the first effect of a retirement means.
    fn first(reason: &RetireReason) -> Self {
        match reason {
            RetireReason::SpotInterruption { .. } => Self::Interrupted,
            RetireReason::Underused { .. }
            | RetireReason::Consolidated { .. }
            | RetireReason::AboveMaximum
            | RetireReason::Replaced { .. }
            | RetireReason::NeverJoined
            | RetireReason::Leaked
            | RetireReason::InstanceGone
            | RetireReason::Unhealthy { .. } => Self::Leaves,
        }
    }
}
