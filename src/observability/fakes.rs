//! Those outside, as tests need them: they answer by a script and keep what arrives.

use super::outlets::Line;
use crate::control::status::Outlets;
use crate::model::ids::Epoch;
use crate::model::offer::HourlyPrice;
use crate::model::operation::LaunchedInstance;
use crate::model::plan::{LaunchReason, NodeRef, OnDrainTimeout, RetireReason};
use crate::model::{
    Happening, Launch, LaunchOrder, LaunchRequest, LaunchState, Market, Operation, OperationId, PodKey, Retire, RetireOrder, RetireState,
};
use crate::ports::outlets::{Datum, Note};
use crate::ports::{Chat, Clock, Entropy, EventBoard, Measurement, MetricStore, Monotonic, OutletError, Telemetry};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// A clock that follows tokio's, and no randomness.
#[derive(Clone, Copy)]
pub struct Paused(Instant);

impl Paused {
    pub fn new() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Paused {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::try_from(self.0.elapsed()).expect("a test is short")
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.0.elapsed())
    }
}

impl Entropy for Paused {
    fn operation_id(&self) -> OperationId {
        OperationId::from("o")
    }

    fn record_version(&self) -> String {
        "v".into()
    }

    fn fraction(&self) -> f64 {
        1.0
    }
}

/// Keeps what arrives with the second of its arrival; each call takes the script's next answer, and all later ones are good.
pub struct Outside<T> {
    pub start: Instant,
    pub script: Mutex<VecDeque<Result<(), OutletError>>>,
    pub arrived: Mutex<Vec<(u64, T)>>,
    /// A call takes so long.
    pub takes: Duration,
}

impl<T> Outside<T> {
    pub fn new(script: impl IntoIterator<Item = OutletError>) -> Arc<Self> {
        let script = Mutex::new(script.into_iter().map(Err).collect());
        Arc::new(Self { start: Instant::now(), script, arrived: Mutex::default(), takes: Duration::ZERO })
    }

    async fn answer(&self, thing: T) -> Result<(), OutletError> {
        tokio::time::sleep(self.takes).await;
        let answer = self.script.lock().unwrap_or_else(PoisonError::into_inner).pop_front().unwrap_or(Ok(()));
        if answer.is_ok() {
            self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push((self.start.elapsed().as_secs(), thing));
        }
        answer
    }

    /// Takes what has arrived.
    pub fn take(&self) -> Vec<(u64, T)> {
        std::mem::take(&mut self.arrived.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Chat for Arc<Outside<Value>> {
    async fn post(&self, message: &Value) -> Result<(), OutletError> {
        self.answer(message.clone()).await
    }
}

impl MetricStore for Arc<Outside<Vec<Datum>>> {
    async fn put(&self, data: &[Datum]) -> Result<(), OutletError> {
        self.answer(data.to_vec()).await
    }
}

impl EventBoard for Arc<Outside<Note>> {
    async fn write(&self, note: &Note) -> Result<(), OutletError> {
        self.answer(note.clone()).await
    }
}

/// Keeps what is counted.
#[derive(Clone, Default)]
pub struct Counted(Arc<Mutex<Vec<Measurement>>>);

impl Counted {
    /// Sums up what was sent or dropped.
    pub fn told(&self, wanted: &str) -> u64 {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let number = |it: &Measurement| match it {
            Measurement::Told { outcome, number, .. } if *outcome == wanted => *number,
            _ => 0,
        };
        counted.iter().map(number).sum()
    }
}

impl Telemetry for Counted {
    fn record(&self, measurement: Measurement) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(measurement);
    }

    fn tell(&self, _: Happening) {}
}

/// A line whose state and counts a test can see.
pub fn line(name: &'static str) -> (Line<Counted>, Counted, watch::Receiver<Outlets>) {
    let (counted, (states, shown)) = (Counted::default(), watch::channel(Outlets::new()));
    (Line::new(name, counted.clone(), states), counted, shown)
}

pub fn unavailable() -> OutletError {
    OutletError::Unavailable { outlet: "slack", why: "500".into() }
}

pub fn instance(id: &str, node: Option<&str>) -> LaunchedInstance {
    LaunchedInstance { id: id.into(), instance_type: "m6a.large".into(), node: node.map(Into::into) }
}

pub fn launch(state: LaunchState) -> Operation {
    let pod = |name: &str| PodKey { namespace: "shop".into(), name: name.into() };
    Operation::Launch(Launch {
        id: "op-1".into(),
        epoch: Epoch(7),
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(74),
        order: LaunchOrder {
            pool: "workers".into(),
            zone: "eu-central-1a".into(),
            subnet: "subnet-1".into(),
            market: Market::Spot,
            instance_types: vec!["m6a.large".into(), "m5.large".into()],
            count: 2,
            price: HourlyPrice(38_500),
            reason: LaunchReason::PendingPods { pods: 5 },
            pods: ["web-0", "web-1"].map(pod).into(),
        },
        request: LaunchRequest {
            token: "op-1".into(),
            launch_template: "lt-1".into(),
            launch_template_version: "3".into(),
            subnet: "subnet-1".into(),
            market: Market::Spot,
            instance_types: vec!["m6a.large".into(), "m5.large".into()],
            count: 2,
            tags: BTreeMap::new(),
        },
        state,
    })
}

pub fn retire(reason: RetireReason, state: RetireState) -> Operation {
    Operation::Retire(Retire {
        id: "op-2".into(),
        epoch: Epoch(7),
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH + SignedDuration::from_secs(130),
        order: RetireOrder {
            pool: "workers".into(),
            instance: Some("i-0123456789abcdef0".into()),
            node: Some(NodeRef { name: "worker-3".into(), uid: "u-3".into() }),
            zone: "eu-central-1b".into(),
            market: Market::OnDemand,
            reason,
            on_timeout: OnDrainTimeout::RollBack,
        },
        state,
    })
}

pub fn joining(ids: &[&str]) -> LaunchState {
    LaunchState::Joining { instances: ids.iter().map(|id| instance(id, None)).collect(), since: Timestamp::UNIX_EPOCH }
}
