//! Those outside, as tests need them: they answer by a script and keep what arrives.

use super::outlets::Line;
use crate::control::status::Outlets;
use crate::model::{Happening, OperationId};
use crate::ports::outlets::{Datum, Note};
use crate::ports::{Chat, Clock, Entropy, EventBoard, Measurement, MetricStore, Monotonic, OutletError, Telemetry};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::VecDeque;
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
