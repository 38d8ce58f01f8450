//! The machine's clocks and its source of randomness.
#![expect(clippy::disallowed_methods, reason = "this is the one place where the clocks and the randomness of the machine are read")]

use crate::model::OperationId;
use crate::ports::{Clock, Entropy, Monotonic};
use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

/// The machine's two clocks.
///
/// The monotonic one counts from the making of this value. It runs on while the process
/// is stopped (`SIGSTOP`), which is what the lease needs of it.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.start.elapsed())
    }
}

/// The operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemEntropy;

impl SystemEntropy {
    /// Makes a token that makes a repeated request to AWS have one effect (36 characters).
    pub(crate) fn token() -> String {
        Uuid::new_v4().to_string()
    }
}

impl Entropy for SystemEntropy {
    fn operation_id(&self) -> OperationId {
        OperationId::new(Uuid::new_v4().to_string())
    }

    fn record_version(&self) -> String {
        Uuid::new_v4().to_string()
    }

    fn fraction(&self) -> f64 {
        rand::random()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn the_monotonic_clock_counts_from_its_start() {
        let clock = SystemClock::new();
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(clock.monotonic(), Monotonic(Duration::from_secs(7)));
    }

    #[test]
    fn ids_are_client_tokens_that_ec2_accepts() {
        let id = SystemEntropy.operation_id();
        assert!(id.as_str().is_ascii() && id.as_str().len() <= 64, "{id}");
        assert_ne!(id, SystemEntropy.operation_id());
        assert!((0.0..=1.0).contains(&SystemEntropy.fraction()));
    }
}
