//! EC2, as the controller needs it.

use crate::model::offer::HourlyPrice;
use crate::model::operation::{LaunchRequest, LaunchedInstance};
use crate::model::{Instance, InstanceId, InstanceState, InstanceType, Market, Offer, OfferKey, PoolName};
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

/// Why a call to EC2 that reads or terminates failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudError {
    /// No answer, or a fault on EC2's side: try again later.
    #[error("EC2 does not answer {call}: {why}")]
    Unavailable {
        /// The API call.
        call: &'static str,
        /// What went wrong.
        why: String,
    },
    /// Too many requests: try again, slower.
    #[error("EC2 throttles {call}")]
    Throttled {
        /// The API call.
        call: &'static str,
    },
    /// Credentials or permissions: nothing helps but an operator.
    #[error("EC2 refuses {call}: {why}; grant the daemon's role `ec2:{call}`")]
    Denied {
        /// The API call.
        call: &'static str,
        /// EC2's own words.
        why: String,
    },
    /// EC2 does not know the instance: it is gone for long, or so young that not all of EC2 knows it yet.
    #[error("EC2 does not know the instance ({call})")]
    NotFound {
        /// The API call.
        call: &'static str,
    },
    /// The answer or the request makes no sense.
    #[error("EC2 and node-fleet disagree on {call}: {why}")]
    Invalid {
        /// The API call.
        call: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl CloudError {
    /// Names its class, as metrics show it.
    #[must_use]
    pub fn class(&self) -> &'static str {
        match self {
            Self::Unavailable { .. } => "unavailable",
            Self::Throttled { .. } => "throttled",
            Self::Denied { .. } => "denied",
            Self::NotFound { .. } => "not_found",
            Self::Invalid { .. } => "invalid",
        }
    }
}

/// Why a launch has no instances to show, named by what follows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// None of the offers has capacity: they rest.
    #[error("insufficient capacity")]
    InsufficientCapacity,
    /// An account limit: the market rests.
    #[error("account limit: {message}")]
    Quota {
        /// EC2's own words.
        message: String,
    },
    /// The token has been used with other parameters.
    #[error("the client token was used with other parameters")]
    TokenMismatch,
    /// Refused for good.
    #[error("EC2 refuses the launch: {message}")]
    Refused {
        /// EC2's own words.
        message: String,
    },
    /// Credentials or permissions. An earlier sending of the same request may have taken effect, so it is sent again.
    #[error("EC2 refuses the launch: {message}; grant the daemon's role `ec2:CreateFleet`, `ec2:RunInstances` and `ec2:CreateTags`")]
    Denied {
        /// EC2's own words.
        message: String,
    },
    /// EC2 had too much to do while it served the request, and the token is spent: another operation may try, later.
    #[error("EC2 was too busy for the launch: {message}")]
    Busy {
        /// EC2's own words.
        message: String,
    },
    /// It may have taken effect or not: the same request is sent again.
    #[error("the outcome is unknown: {why}")]
    Unknown {
        /// What went wrong.
        why: String,
    },
    /// It has not taken effect: the same request is sent again, later.
    #[error("EC2 throttles CreateFleet")]
    Throttled,
}

/// What a launch brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launched {
    /// The instances; may be fewer than asked for.
    pub instances: Vec<LaunchedInstance>,
    /// Types for which EC2 said that it has no capacity.
    pub without_capacity: Vec<InstanceType>,
}

/// What the account can launch: what the configuration names, joined with what EC2 knows of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Catalogue {
    /// All offers of all pools.
    pub offers: Arc<Vec<Offer>>,
    /// The current version, a number, of each pool's launch template.
    pub template_versions: BTreeMap<PoolName, String>,
    /// Prices of every known offer, those that no pool may buy included.
    pub prices: Arc<BTreeMap<OfferKey, HourlyPrice>>,
    /// When EC2 was asked; `None` is never.
    pub read_at: Option<Timestamp>,
    /// When the prices of a market were read; absent where the configuration's stand in.
    pub prices_read: BTreeMap<Market, Timestamp>,
}

/// What a look at one instance shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Where it stands.
    pub state: InstanceState,
    /// It carries all tags of this cluster's workers.
    pub ours: bool,
}

/// EC2.
pub trait Cloud: Send + Sync {
    /// Lists the instances that carry this cluster's tags, terminated ones included while EC2 shows them.
    fn instances(&self) -> impl Future<Output = Result<Vec<Instance>, CloudError>> + Send;

    /// Looks at one instance as it is now, whoever owns it. `None` when it is terminated or was never there.
    fn look(&self, instance: &InstanceId) -> impl Future<Output = Result<Option<Sight>, CloudError>> + Send;

    /// Gives what can be bought. Cached inside; `Err` only when there never was an answer.
    fn catalogue(&self) -> impl Future<Output = Result<Arc<Catalogue>, CloudError>> + Send;

    /// Sends the request, once. Repeating it with the same token has no second effect.
    fn launch(&self, request: &LaunchRequest) -> impl Future<Output = Result<Launched, LaunchError>> + Send;

    /// Terminates one instance. One that ends already is a success; one that EC2 does not know is
    /// [`CloudError::NotFound`].
    fn terminate(&self, instance: &InstanceId) -> impl Future<Output = Result<(), CloudError>> + Send;
}
