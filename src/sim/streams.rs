//! Randomness: one stream for each purpose, so that a change in one place moves nothing elsewhere.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a stream of random numbers is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What the cluster consists of.
    Scenario,
    /// What its settings and pods ask for beyond the usual.
    Extras,
    /// Which faults come, and when.
    Faults,
    /// How long calls take.
    Latency,
    /// How long machines take to boot.
    Boot,
    /// Spot prices and interruptions.
    Market,
    /// What workloads ask for.
    Workload,
    /// Where faults strike.
    Strikes,
    /// The queue's order and repetitions.
    Messages,
    /// Ids, versions and jitter of a controller, each start with its own.
    Controller {
        /// Which controller.
        number: u32,
        /// Which start of it.
        incarnation: u32,
    },
}

/// Opens the stream of a purpose: the same seed and purpose give the same numbers.
pub fn open(seed: u64, purpose: Purpose) -> ChaCha8Rng {
    let stream = match purpose {
        Purpose::Scenario => 1,
        Purpose::Faults => 2,
        Purpose::Latency => 3,
        Purpose::Boot => 4,
        Purpose::Market => 5,
        Purpose::Workload => 6,
        Purpose::Strikes => 7,
        Purpose::Messages => 8,
        Purpose::Extras => 9,
        Purpose::Controller { number, incarnation } => (1 << 32) + (u64::from(number) << 24) + u64::from(incarnation),
    };
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    #[test]
    fn streams_repeat_and_differ_from_one_another() {
        let draw = |seed, purpose| open(seed, purpose).random_range(0..u64::MAX);
        assert_eq!(draw(7, Purpose::Boot), draw(7, Purpose::Boot));
        assert_ne!(draw(7, Purpose::Boot), draw(7, Purpose::Market));
        assert_ne!(draw(7, Purpose::Boot), draw(8, Purpose::Boot));
    }
}
