//! Those outside who are told what happens: Slack, CloudWatch, and whoever reads Kubernetes' Events.
//!
//! No decision waits for any of them, and none is part of a [`super::World`]: the simulated world has nobody outside.

use crate::model::plan::NodeRef;
use crate::model::{PodKey, PoolName};
use jiff::Timestamp;
use serde_json::Value;
use std::future::Future;
use std::time::Duration;

/// Why somebody could not be told, named by what follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutletError {
    /// No answer, or a fault on the other side: try again later. What was sent may have arrived.
    #[error("{outlet} does not answer: {why}")]
    Unavailable {
        /// Who.
        outlet: &'static str,
        /// What went wrong.
        why: String,
    },
    /// Too much at once: try again after a while.
    #[error("{outlet} asks for patience")]
    Throttled {
        /// Who.
        outlet: &'static str,
        /// For how long, where it says so.
        pause: Option<Duration>,
    },
    /// Credentials, permissions or an address that is not valid: nothing helps but an operator.
    #[error("{outlet} refuses: {why}")]
    Denied {
        /// Who.
        outlet: &'static str,
        /// What is wrong, and what would be right.
        why: String,
    },
    /// This very thing is not accepted and never will be.
    #[error("{outlet} does not accept what was sent: {why}")]
    Unacceptable {
        /// Who.
        outlet: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// What it is about is not there any more, so nobody would read it.
    #[error("what {outlet} was to be told of is gone")]
    Gone {
        /// Who.
        outlet: &'static str,
    },
}

impl OutletError {
    /// Names the class, as metrics show it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Throttled { .. } => "throttled",
            Self::Denied { .. } => "denied",
            Self::Unacceptable { .. } => "invalid",
            Self::Gone { .. } => "gone",
        }
    }
}

/// A chat that takes messages: Slack.
pub trait Chat: Send + Sync {
    /// Posts one message, once; the call has a deadline of its own.
    fn post(&self, message: &Value) -> impl Future<Output = Result<(), OutletError>> + Send;
}

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Things.
    Count,
    /// 0 to 100.
    Percent,
    /// Time.
    Seconds,
    /// Anything else; the name says what.
    None,
}

impl Unit {
    /// Names it as CloudWatch does.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Count => "Count",
            Self::Percent => "Percent",
            Self::Seconds => "Seconds",
            Self::None => "None",
        }
    }
}

/// One figure of one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Datum {
    /// Its name.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// The pool; `None` is the cluster as a whole.
    pub pool: Option<PoolName>,
    /// When it was true.
    pub at: Timestamp,
    /// How much.
    pub value: f64,
}

/// A store of figures: CloudWatch.
pub trait MetricStore: Send + Sync {
    /// Stores at most [`DATA_AT_ONCE`] figures, all or none; repeats what fails in passing within its own deadline.
    fn put(&self, data: &[Datum]) -> impl Future<Output = Result<(), OutletError>> + Send;
}

/// How many figures one call takes: CloudWatch's own limit.
pub const DATA_AT_ONCE: usize = 1000;

/// What an Event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A pod.
    Pod(PodKey),
    /// A node.
    Node(NodeRef),
}

/// One Event, as `kubectl describe` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub about: Subject,
    /// Somebody should look.
    pub warning: bool,
    /// Its stable name, at most 128 characters: `TriggeredScaleUp`.
    pub reason: &'static str,
    /// What was done or not done: `ScaleUp`.
    pub action: &'static str,
    /// The rest in words, at most 1024 bytes.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// The Events of a cluster.
pub trait EventBoard: Send + Sync {
    /// Writes one; it is [`OutletError::Gone`] where its subject or their namespace goes or is gone.
    fn write(&self, note: &Note) -> impl Future<Output = Result<(), OutletError>> + Send;
}
