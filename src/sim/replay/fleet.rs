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
        (self.longest().div_ceil(60) as usize).max(1)
    }

    /// Gives the seconds that the slowest node takes.
    #[must_use]
    pub fn longest(self) -> u32 {
        match self {
            Self::Fixed(seconds) => seconds,
            Self::Spread { most, .. } => most,
        }
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

/// A launch some of whose nodes still boot, or have just ended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The minute in which it was launched.
    pub minute: i64,
    /// Nodes that still boot.
    pub coming: u32,
    /// Nodes that turned out to have failed.
    pub failed: u32,
    /// What its slowest node takes, in seconds.
    pub slowest: u32,
}

/// Nodes that joined in the same minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// The minute; a day before the first one for those that a replay begins with.
    pub minute: i64,
    /// How many of them there were.
    pub all: u32,
    /// How many of them were given back.
    pub gone: u32,
}

/// Nodes that are ready after a boot, or have failed.
#[derive(Debug, Clone, Copy)]
struct Arrival {
    launched: i64,
    ready: u32,
    failed: u32,
}

/// Nodes that serve and nodes that boot.
///
/// A node is paid for from its launch until it is given back, by the minute: with boot times of a minute or more, the
/// minimum of 60 seconds of a billing by the second is always reached. Only ready nodes are given back, the oldest first.
#[derive(Debug)]
pub struct Fleet {
    boot: Boot,
    random: ChaCha8Rng,
    minute: i64,
    ready: u32,
    /// What arrives in each of the minutes to come, the next one first.
    booting: VecDeque<Vec<Arrival>>,
    coming: u32,
    batches: VecDeque<Batch>,
    over: Vec<Batch>,
    joined: VecDeque<Joined>,
}

impl Fleet {
    /// Makes one that begins with so many ready nodes.
    #[must_use]
    pub fn new(boot: Boot, ready: u32, seed: u64) -> Self {
        let first = (ready > 0).then_some(Joined { minute: -1440, all: ready, gone: 0 });
        Self {
            boot,
            random: ChaCha8Rng::seed_from_u64(seed),
            minute: -1,
            ready,
            booting: VecDeque::new(),
            coming: 0,
            batches: VecDeque::new(),
            over: Vec::new(),
            joined: first.into_iter().collect(),
        }
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

    /// Launches that are under way, the oldest first.
    pub fn batches(&self) -> impl Iterator<Item = &Batch> {
        self.batches.iter()
    }

    /// Launches that ended as this minute began.
    #[must_use]
    pub fn over(&self) -> &[Batch] {
        &self.over
    }

    /// Nodes that serve, the oldest first.
    #[must_use]
    pub fn joined(&self) -> impl DoubleEndedIterator<Item = &Joined> {
        self.joined.iter()
    }

    /// Lets a minute begin: what has booted serves.
    pub fn begin(&mut self) {
        self.minute += 1;
        self.over.clear();
        for Arrival { launched, ready, failed } in self.booting.pop_front().unwrap_or_default() {
            self.ready += ready;
            self.coming -= ready + failed;
            if let Some(batch) = self.batches.iter_mut().find(|batch| batch.minute == launched) {
                batch.coming -= ready + failed;
                batch.failed += failed;
            }
            match self.joined.back_mut().filter(|joined| joined.minute == self.minute) {
                Some(joined) => joined.all += ready,
                None if ready > 0 => self.joined.push_back(Joined { minute: self.minute, all: ready, gone: 0 }),
                None => {}
            }
        }
        self.over.extend(self.batches.iter().filter(|batch| batch.coming == 0));
        self.batches.retain(|batch| batch.coming > 0);
    }

    /// Launches up to `buy` nodes and gives ready ones back down to `hold`; then the minute passes.
    pub fn pass(&mut self, buy: u32, hold: u32) -> Tick {
        let have = self.have();
        let launched = buy.saturating_sub(have);
        if launched > 0 {
            self.launch(launched);
        }
        self.give_back(have.saturating_sub(hold.max(buy)).min(self.ready));
        Tick { ready: self.ready, paid: self.have(), launched }
    }

    fn launch(&mut self, launched: u32) {
        self.batches.push_back(Batch { minute: self.minute, coming: 0, failed: 0, slowest: 0 });
        match self.boot {
            Boot::Fixed(seconds) => self.comes(seconds, launched, 0),
            Boot::Spread { least, most, failing } => {
                for _ in 0..launched {
                    let seconds = self.random.random_range(least..=most);
                    let failed = u32::from(self.random.random_bool(failing));
                    self.comes(seconds, 1 - failed, failed);
                }
            }
        }
    }

    /// Lets nodes of the latest launch come after so many seconds.
    fn comes(&mut self, seconds: u32, ready: u32, failed: u32) {
        let minutes = (seconds.div_ceil(60) as usize).max(1);
        if self.booting.len() < minutes {
            self.booting.resize_with(minutes, Vec::new);
        }
        let launched = self.minute;
        let slot = &mut self.booting[minutes - 1];
        match slot.iter_mut().find(|arrival| arrival.launched == launched) {
            Some(arrival) => (arrival.ready, arrival.failed) = (arrival.ready + ready, arrival.failed + failed),
            None => slot.push(Arrival { launched, ready, failed }),
        }
        self.coming += ready + failed;
        if let Some(batch) = self.batches.back_mut() {
            batch.coming += ready + failed;
            batch.slowest = batch.slowest.max(seconds);
        }
    }

    fn give_back(&mut self, mut nodes: u32) {
        self.ready -= nodes;
        while nodes > 0
            && let Some(oldest) = self.joined.front_mut()
        {
            let gone = nodes.min(oldest.all - oldest.gone);
            oldest.gone += gone;
            nodes -= gone;
            if oldest.gone == oldest.all {
                self.joined.pop_front();
            }
        }
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

    #[test]
    fn it_knows_its_launches_and_the_age_of_its_nodes() {
        let mut fleet = Fleet::new(Boot::Fixed(90), 2, 0);
        fleet.begin();
        fleet.pass(5, 5);
        assert_eq!(fleet.batches().collect::<Vec<_>>(), [&Batch { minute: 0, coming: 3, failed: 0, slowest: 90 }]);
        fleet.begin();
        fleet.pass(5, 5);
        fleet.begin();
        assert_eq!(fleet.over(), [Batch { minute: 0, coming: 0, failed: 0, slowest: 90 }]);
        assert_eq!(fleet.batches().count(), 0);
        fleet.pass(0, 2);
        assert_eq!(fleet.joined().collect::<Vec<_>>(), [&Joined { minute: 2, all: 3, gone: 1 }], "the oldest went first");
    }
}
