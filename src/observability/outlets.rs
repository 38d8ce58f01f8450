//! What all outlets share: how their state reaches the status, and how long they wait after a failure.

use crate::control::status::Outlets;
use crate::ports::{Measurement, OutletError, Telemetry};
use std::future::Future;
use std::time::Duration;
use tokio::sync::broadcast::error::TryRecvError;
use tokio::sync::{broadcast, watch};
use tracing::{info, warn};

/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// The longest that somebody who asks for patience is given.
const MOST_PATIENCE: Duration = Duration::from_mins(10);

/// What is left at the end is told within this, or not at all.
pub(super) const LAST_WORDS: Duration = Duration::from_millis(1500);

/// What to do with what could not be told.
pub(super) enum Next {
    /// Keep it, and try again after so long.
    Wait(Duration),
    /// Go on with what follows it. It is counted.
    Drop,
}

/// How it stands with one outlet.
pub struct Line<T> {
    name: &'static str,
    telemetry: T,
    states: watch::Sender<Outlets>,
    failures: u32,
}

impl<T: Telemetry> Line<T> {
    /// Begins one: `states` is where the status has it from.
    pub fn new(name: &'static str, telemetry: T, states: watch::Sender<Outlets>) -> Self {
        Self { name, telemetry, states, failures: 0 }
    }

    /// Notes that so much has arrived.
    pub(super) fn sent(&mut self, number: usize) {
        self.count("sent", number);
        if std::mem::take(&mut self.failures) > 0 {
            info!(outlet = self.name, "it takes what is sent again");
        }
        self.show(Ok(()));
    }

    /// Notes that so much is lost for ever.
    pub(super) fn dropped(&self, number: usize) {
        if number > 0 {
            self.count("dropped", number);
            warn!(outlet = self.name, number, "what was to be told is dropped");
        }
    }

    /// Notes that `number` things could not be told, all for the same reason, and gives what to do with them. `jitter` is
    /// from 0 to 1.
    pub(super) fn failed(&mut self, error: &OutletError, number: usize, jitter: f64) -> Next {
        let asked = match error {
            // That is life, and no failure.
            OutletError::Gone { .. } => {
                self.count("dropped", number);
                return Next::Drop;
            }
            OutletError::Throttled { pause, .. } => *pause,
            OutletError::Unavailable { .. } | OutletError::Denied { .. } | OutletError::Unacceptable { .. } => None,
        };
        self.telemetry.record(Measurement::PortFailed { port: self.name, class: error.class() });
        // It was refused for what it is: the next one may be taken.
        if let OutletError::Unacceptable { .. } = error {
            warn!(outlet = self.name, %error, "it is dropped");
            self.count("dropped", number);
            return Next::Drop;
        }
        if self.failures == 0 {
            warn!(outlet = self.name, %error, "what happens cannot be told");
        }
        self.failures = self.failures.saturating_add(1);
        self.show(Err(error.to_string()));
        if let Some(asked) = asked {
            return Next::Wait(asked.clamp(FIRST_PAUSE, MOST_PATIENCE));
        }
        let longest = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        Next::Wait(longest.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0))
    }

    /// Tells whether the latest thing sent has arrived, or none has been sent.
    pub(super) fn works(&self) -> bool {
        self.failures == 0
    }

    fn count(&self, outcome: &'static str, number: usize) {
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        self.telemetry.record(Measurement::Told { outlet: self.name, outcome, number });
    }

    fn show(&self, state: Result<(), String>) {
        self.states.send_if_modified(|states| {
            let differs = states.get(self.name) != Some(&state);
            states.insert(self.name, state);
            differs
        });
    }
}

/// Lets an outlet work until it is done, and at most [`LAST_WORDS`] beyond the moment at which the daemon is to end.
pub(super) async fn bounded(mut stop: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    let overdue = async {
        stopped(&mut stop).await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        biased;
        () = work => {}
        () = overdue => {}
    }
}

/// Gives what has been told already and not been heard yet, and how much of it is lost.
pub(super) fn unheard<T: Clone>(told: &mut broadcast::Receiver<T>) -> (Vec<T>, u64) {
    let (mut rest, mut lost) = (Vec::new(), 0);
    loop {
        match told.try_recv() {
            Ok(one) => rest.push(one),
            Err(TryRecvError::Lagged(number)) => lost += number,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return (rest, lost),
        }
    }
}

/// Waits until the daemon is to end; an end of the sender is one, too.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
