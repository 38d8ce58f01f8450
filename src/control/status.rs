//! What the controller shows of itself: one value, replaced as a whole, read by HTTP.

use crate::model::ids::Epoch;
use crate::model::prospect::Wanted;
use crate::model::snapshot::Pause;
use crate::model::spend::Cost;
use crate::model::{Explanation, Market, Operation, Plan, PoolName, Question, RuleName};
use crate::policy::forecast::Following;
pub use crate::policy::forecast::{Expected, Minute, Standing, Way};
use jiff::Timestamp;
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// How many decisions are kept.
pub const DECISIONS_KEPT: usize = 200;
/// How many commands may wait.
pub const COMMANDS_WAITING: usize = 16;

/// Who acts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "role")]
pub enum Role {
    /// This instance does.
    Leader {
        /// In this epoch.
        epoch: Epoch,
    },
    /// Another one does, or nobody yet.
    Standby {
        /// Who, as far as known.
        leader: Option<String>,
    },
}

/// One decision: a turn's plan and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Decision {
    /// When.
    pub at: Timestamp,
    /// What began the turn: `start`, `tick`, `pods`, `notice`, `recommendation`, `failure`, `operator`.
    pub trigger: &'static str,
    /// What was decided and why.
    pub plan: Plan,
    /// The audit's words, when it refused the plan.
    pub refused: Vec<String>,
    /// The ids of the operations that were begun.
    pub operations: Vec<String>,
}

/// The state of one source.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceStatus {
    /// It answered in the latest turn.
    pub ok: bool,
    /// What is the matter, when it did not.
    pub why: Option<String>,
    /// When it last answered.
    pub last_ok: Option<Timestamp>,
}

/// How it stands with the forecast of one demand.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ForecastStatus {
    /// The pool that serves the demand.
    pub pool: PoolName,
    /// All of it in words, and from when it acts where it does not yet.
    pub says: String,
    /// Whether it has earned a say.
    #[serde(flatten)]
    pub standing: Standing,
    /// How many nodes it wants, where it has a say.
    pub wanted: Option<Wanted>,
    /// Minutes of the past that are known.
    pub known_minutes: usize,
    /// The demand of the latest minute, in the query's unit.
    pub demand: Option<f64>,
    /// What is expected of the minute that is bought for: a boot and an evaluation ahead.
    pub expected: Option<Expected>,
    /// Which of the nodes follow which way.
    pub following: Vec<Stretch>,
    /// The forecast's loss as a share of the better naive one's, over about a day: below 1 it is worth its while.
    pub loss_ratio: Option<f64>,
    /// Shares of minutes whose demand stayed below the quantiles 0.90 and 0.95.
    pub coverage: Option<[f64; 2]>,
}

/// Nodes that follow one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// The first one, from 1.
    pub first: u32,
    /// The last one.
    pub last: u32,
    /// The kind of the way, of [`Way::KINDS`](crate::policy::forecast::Way::KINDS).
    pub kind: &'static str,
    /// The way, in words.
    pub way: String,
}

impl From<&Following> for Stretch {
    fn from(following: &Following) -> Self {
        let Following { from, to, way } = *following;
        Self { first: from + 1, last: to, kind: way.kind_name(), way: way.to_string() }
    }
}

/// Everything that is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// The build's version.
    pub version: &'static str,
    /// The cluster.
    pub cluster: String,
    /// This instance's identity.
    pub owner: String,
    /// Whether it acts.
    pub role: Role,
    /// When the daemon started.
    pub started: Timestamp,
    /// When this was put together, by the daemon's clock.
    pub published: Timestamp,
    /// When the latest turn ended.
    pub last_turn: Option<Timestamp>,
    /// Turns so far.
    pub turns: u64,
    /// The switch.
    pub pause: Option<Pause>,
    /// The latest plan.
    pub plan: Option<Arc<Plan>>,
    /// Operations that are under way, then those that are over, latest first.
    pub operations: Vec<Operation>,
    /// The sources `kubernetes`, `ec2`, `prometheus` and `dynamodb`, and the outlets `slack`, `cloudwatch` and `events`.
    pub sources: BTreeMap<&'static str, SourceStatus>,
    /// When the prices of a market were read from AWS; absent where the configuration's stand in.
    pub prices_read: BTreeMap<Market, Timestamp>,
    /// The forecasts, by rule.
    pub forecasts: BTreeMap<RuleName, ForecastStatus>,
    /// What the fleet has cost; `None` on a standby. Not part of `/api/v1/status`.
    #[serde(skip)]
    pub cost: Option<Arc<Cost>>,
    /// Why the latest reload of the configuration was refused, if it was.
    pub reload_error: Option<String>,
    /// The latest decisions, latest first. Not part of `/api/v1/status`.
    #[serde(skip)]
    pub decisions: VecDeque<Arc<Decision>>,
}

impl Status {
    /// Makes the status of an instance that has done nothing yet.
    #[must_use]
    pub fn first(cluster: &str, owner: &str, started: Timestamp) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            cluster: cluster.to_owned(),
            owner: owner.to_owned(),
            role: Role::Standby { leader: None },
            started,
            published: started,
            last_turn: None,
            turns: 0,
            pause: None,
            plan: None,
            operations: Vec::new(),
            sources: BTreeMap::new(),
            prices_read: BTreeMap::new(),
            forecasts: BTreeMap::new(),
            cost: None,
            reload_error: None,
            decisions: VecDeque::new(),
        }
    }
}

/// How it stands with those who are told what happens, by name; `Err` says what is the matter.
pub type Outlets = BTreeMap<&'static str, Result<(), String>>;

/// What an operator asks of the controller.
#[derive(Debug)]
pub enum Command {
    /// Stop starting things.
    Pause {
        /// Who asks.
        by: String,
        /// Why.
        reason: String,
        /// Told when it holds, or why it does not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Start things again.
    Resume {
        /// Who asks.
        by: String,
        /// Told when it holds, or why it does not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Forget which offers and markets rest, so that they are tried again.
    ResetOffers {
        /// Who asks.
        by: String,
        /// Told when it is done, or why it is not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Say why it is so.
    Explain {
        /// What is asked.
        question: Question,
        /// Told the answer, `None` when there is no such pod or node, or why there is no answer.
        done: oneshot::Sender<Result<Option<Explanation>, String>>,
    },
    /// Make a turn now.
    Evaluate {
        /// Told once the turn is over.
        done: oneshot::Sender<Result<Arc<Decision>, String>>,
    },
}

/// What HTTP holds of the controller: it can look, and it can ask.
#[derive(Clone, Debug)]
pub struct Handle {
    /// The latest status.
    pub status: watch::Receiver<Arc<Status>>,
    /// Asks, bounded by [`COMMANDS_WAITING`].
    pub commands: mpsc::Sender<Command>,
}
