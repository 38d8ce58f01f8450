//! Notices of EC2's own intentions, from EventBridge through SQS.

use crate::model::InstanceId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::future::Future;

/// What EC2 announces. Whether it is true of one of ours is for the receiver to find out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notice {
    /// The spot instance ends two minutes after `at`.
    SpotInterruption {
        /// Which.
        instance: InstanceId,
        /// When the event was made.
        at: Timestamp,
    },
    /// The spot instance is at elevated risk.
    RebalanceRecommendation {
        /// Which.
        instance: InstanceId,
    },
    /// The instance has changed its state.
    StateChange {
        /// Which.
        instance: InstanceId,
        /// EC2's name of the state.
        state: String,
    },
    /// AWS Health: maintenance is scheduled for the instances.
    ScheduledChange {
        /// Which.
        instances: Vec<InstanceId>,
    },
}

/// One message, and the handle by which it is deleted once its effect is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Deletes it.
    pub handle: String,
    /// What it says; `Err` says why it makes no sense. Such a message is left to the dead-letter queue.
    pub notice: Result<Notice, String>,
}

/// Why the queue did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoticeError {
    /// No answer, throttled, or a fault on its side: try again later.
    #[error("SQS does not answer {call}: {why}")]
    Unavailable {
        /// The API call.
        call: &'static str,
        /// What went wrong.
        why: String,
    },
    /// Credentials, permissions or a queue that does not exist: nothing helps but an operator.
    #[error("SQS refuses {call}: {why}; grant the daemon's role `sqs:{call}` on the queue")]
    Denied {
        /// The API call.
        call: &'static str,
        /// SQS's own words.
        why: String,
    },
}

/// SQS.
pub trait Notices: Send + Sync {
    /// Waits for messages, for at most one long poll. With no queue configured it waits for ever.
    fn receive(&self) -> impl Future<Output = Result<Vec<Delivery>, NoticeError>> + Send;

    /// Deletes a message whose effect is recorded.
    fn delete(&self, handle: &str) -> impl Future<Output = Result<(), NoticeError>> + Send;
}
