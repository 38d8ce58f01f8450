//! Time and randomness.

use crate::model::OperationId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A point on this process's own clock, which no one sets and which never goes back.
///
/// Only differences mean something. The lease is reckoned with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Monotonic(pub Duration);

impl Monotonic {
    /// Gives the time from `earlier` to here; zero when that is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::ops::Add<Duration> for Monotonic {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// The two clocks. Sleeping is tokio's.
pub trait Clock: Send + Sync {
    /// Reads the wall clock.
    fn now(&self) -> Timestamp;
    /// Reads the monotonic clock.
    fn monotonic(&self) -> Monotonic;
}

/// Randomness, where something must be unique or jittered.
pub trait Entropy: Send + Sync {
    /// Makes an id that no operation ever had.
    fn operation_id(&self) -> OperationId;
    /// Makes a record version that no record ever had.
    fn record_version(&self) -> String;
    /// Draws a factor from 0 to 1 for jitter.
    fn fraction(&self) -> f64;
}
