//! The fleet of a replay: nodes that boot, serve and are paid for, one minute after the other.

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use std::collections::VecDeque;

/// How long nodes take to boot.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Boot {
    /// All alike, in seconds.
    Fixed(u32),
    /// Evenly distributed between two numbers of seconds, with a share of launches that never become ready.
    Spread {
        /// The shortest.
        least: u32,
        /// The longest.
        most: u32,
        /// Share of launches that fail; they are paid for as long as they would have booted.
        failing: f64,
    },
}

impl Boot {
    /// Gives the minutes a policy reckons with: all that the slowest node takes.
    #[must_use]
    pub fn minutes(self) -> usize {
        let seconds = match self {
            Self::Fixed(seconds) => seconds,
            Self::Spread { most, .. } => most,
        };
        (seconds.div_ceil(60) as usize).max(1)
    }

    /// Gives the minutes that the clairvoyant pays for a start: what a launch takes in the mean.
    #[must_use]
    pub fn mean_minutes(self) -> f64 {
        match self {
            Self::Fixed(_) => self.minutes() as f64,
            Self::Spread { least, most, .. } => f64::from(least + most) / 120.0,
        }
    }
}

/// What happened in one minute.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tick {
    /// Nodes that served.
    pub ready: u32,
    /// Nodes that were paid for: those that served and those that booted.
    pub paid: u32,
    /// Nodes that were launched.
    pub launched: u32,
}

/// Nodes that serve and nodes that boot.
///
/// A node is paid for from its launch until it is given back, by the minute: with boot times of a minute or more, the
/// minimum of 60 seconds of a billing by the second is always reached. Only ready nodes are given back.
#[derive(Debug)]
pub struct Fleet {
    boot: Boot,
    random: ChaCha8Rng,
    ready: u32,
    /// For each of the minutes to come, how many become ready and how many turn out to have failed.
    booting: VecDeque<(u32, u32)>,
    coming: u32,
}

impl Fleet {
    /// Makes one that begins with so many ready nodes.
    #[must_use]
    pub fn new(boot: Boot, ready: u32, seed: u64) -> Self {
        Self { boot, random: ChaCha8Rng::seed_from_u64(seed), ready, booting: VecDeque::new(), coming: 0 }
    }

    /// Nodes that serve.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.ready
    }

    /// Nodes that serve or boot.
    #[must_use]
    pub fn have(&self) -> u32 {
        self.ready + self.coming
    }

    /// Lets a minute begin: what has booted serves.
    pub fn begin(&mut self) {
        if let Some((ready, failed)) = self.booting.pop_front() {
            self.ready += ready;
            self.coming -= ready + failed;
        }
    }

    /// Launches up to `buy` nodes and gives ready ones back down to `hold`; then the minute passes.
    pub fn pass(&mut self, buy: u32, hold: u32) -> Tick {
        let have = self.have();
        let launched = buy.saturating_sub(have);
        match self.boot {
            Boot::Fixed(_) => self.launch(self.boot.minutes(), launched, 0),
            Boot::Spread { least, most, failing } => {
                for _ in 0..launched {
                    let seconds = self.random.random_range(least..=most);
                    let failed = u32::from(self.random.random_bool(failing));
                    self.launch((seconds.div_ceil(60) as usize).max(1), 1 - failed, failed);
                }
            }
        }
        self.ready -= have.saturating_sub(hold.max(buy)).min(self.ready);
        Tick { ready: self.ready, paid: self.have(), launched }
    }

    fn launch(&mut self, minutes: usize, ready: u32, failed: u32) {
        if self.booting.len() < minutes {
            self.booting.resize(minutes, (0, 0));
        }
        let slot = &mut self.booting[minutes - 1];
        (slot.0, slot.1) = (slot.0 + ready, slot.1 + failed);
        self.coming += ready + failed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_serves_after_its_boot_and_is_paid_from_its_launch() {
        let mut fleet = Fleet::new(Boot::Fixed(120), 1, 0);
        let ticks: Vec<_> = [3, 3, 3, 0]
            .into_iter()
            .map(|hold| {
                fleet.begin();
                let tick = fleet.pass(hold, hold);
                (tick.ready, tick.paid, tick.launched)
            })
            .collect();
        assert_eq!(ticks, [(1, 3, 2), (1, 3, 0), (3, 3, 0), (0, 0, 0)]);
    }

    #[test]
    fn launches_fail_and_boot_as_often_and_as_long_as_is_said() {
        let mut fleet = Fleet::new(Boot::Spread { least: 60, most: 180, failing: 0.02 }, 0, 7);
        fleet.begin();
        assert_eq!(fleet.pass(10_000, 10_000).paid, 10_000);
        let mut seen = Vec::new();
        for _ in 0..3 {
            fleet.begin();
            seen.push(fleet.pass(0, u32::MAX).ready);
        }
        // One second in 121 is a minute sharp; the rest is half and half.
        assert!(seen[0] < 200 && (4_600..5_200).contains(&seen[1]) && (9_700..9_900).contains(&seen[2]), "{seen:?}");
        assert_eq!(fleet.have(), fleet.ready());
    }
}
