//! A controller's two clocks, which may run fast or be set while the world's own time goes on.

use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How a controller reads the time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SkewedClock {
    /// How many seconds its monotonic clock counts in one.
    rate: f64,
    /// The world's time at which the rate was set.
    since: Duration,
    /// What the monotonic clock showed then.
    base: Duration,
    /// By how much the wall clock is wrong.
    offset: SignedDuration,
}

impl Default for SkewedClock {
    fn default() -> Self {
        Self { rate: 1.0, since: Duration::ZERO, base: Duration::ZERO, offset: SignedDuration::ZERO }
    }
}

impl SkewedClock {
    /// Reads the monotonic clock at the world's time `now`.
    pub fn monotonic(&self, now: Duration) -> Duration {
        self.base + now.saturating_sub(self.since).mul_f64(self.rate)
    }

    /// Reads the wall clock when the world's own shows `truth`.
    pub fn wall(&self, truth: Timestamp) -> Timestamp {
        truth + self.offset
    }

    /// Lets the monotonic clock run at another rate from `now` on.
    pub fn run_at(&mut self, rate: f64, now: Duration) {
        self.base = self.monotonic(now);
        self.since = now;
        self.rate = rate;
    }

    /// Sets the wall clock wrong by so much.
    pub fn set_wrong_by(&mut self, offset: SignedDuration) {
        self.offset = offset;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_rate_never_turns_the_monotonic_clock_back() {
        let mut clock = SkewedClock::default();
        let seconds = Duration::from_secs;
        assert_eq!(clock.monotonic(seconds(10)), seconds(10));
        clock.run_at(2.0, seconds(10));
        assert_eq!(clock.monotonic(seconds(20)), seconds(30));
        clock.run_at(1.0, seconds(20));
        assert_eq!(clock.monotonic(seconds(21)), seconds(31));
    }
}
