//! The machine's clocks and its source of randomness.
#![expect(clippy::disallowed_methods, reason = "this is the one place where the clocks and the randomness of the machine are read")]

use crate::model::OperationId;
use crate::ports::{Clock, Entropy, Monotonic};
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;
use uuid::Uuid;

/// The machine's two clocks.
///
/// The monotonic one counts from the making of this value. It runs on while the process is
/// stopped (`SIGSTOP`) and while the machine sleeps, which is what the lease needs of it:
/// a rival's clock does not wait.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: Duration,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { start: since_boot() }
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
        Monotonic(since_boot().saturating_sub(self.start))
    }
}

/// Reads how long ago the machine was started, its sleep included, which `CLOCK_MONOTONIC` leaves out.
fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    // Neither part is ever negative.
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
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

    #[test]
    fn the_monotonic_clock_counts_real_time_from_its_start() {
        let pause = Duration::from_millis(20);
        let clock = SystemClock::new();
        let first = clock.monotonic();
        std::thread::sleep(pause);
        let passed = clock.monotonic().since(first);
        assert!(first.0 < Duration::from_mins(1), "{first:?}: it does not count from the machine's start");
        assert!((pause..Duration::from_mins(1)).contains(&passed), "{passed:?}");
    }

    #[test]
    fn the_monotonic_clock_is_the_one_that_goes_on_while_the_machine_sleeps() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux");
        let seconds: f64 = uptime.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
        assert!((since_boot().as_secs_f64() - seconds).abs() < 5.0, "{uptime}");
    }

    #[test]
    fn ids_are_client_tokens_that_ec2_accepts() {
        let id = SystemEntropy.operation_id();
        assert!(id.as_str().is_ascii() && id.as_str().len() <= 64, "{id}");
        assert_ne!(id, SystemEntropy.operation_id());
        assert!((0.0..=1.0).contains(&SystemEntropy.fraction()));
    }
}
