//! A fleet that exists on paper only: what a way would have had, and what it would have cost.

use crate::model::prospect::Wanted;
use crate::policy::settings::Settings;
use std::collections::VecDeque;
use std::time::Duration;

/// How a fleet is left alone between changes, whatever is wanted: one on paper rests as the real one does, so that what
/// it costs is what following a way would.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rests {
    /// Minutes between two purchases for which no pod waits.
    pub up: usize,
    /// Minutes after a purchase or a removal in which nothing is given back.
    pub down: usize,
    /// No more nodes than these leave together; what is beyond all demand is without pods.
    pub most_at_once: u32,
}

impl Rests {
    /// Each minute all that is wanted is done.
    pub const NONE: Self = Self { up: 0, down: 0, most_at_once: u32::MAX };

    /// Gives those that the settings demand.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let minutes = |length: Duration| usize::try_from(length.as_secs().div_ceil(60)).unwrap_or(usize::MAX);
        let down = &settings.scale_down;
        Self { up: minutes(settings.scale_up.cooldown), down: minutes(down.cooldown), most_at_once: down.most_at_once.max(1) }
    }
}

/// Nodes that follow what a way wants, with the boot time and the rests that real ones have.
#[derive(Debug, Clone)]
pub(super) struct Shadow {
    pub ready: u32,
    /// How many become ready in the minutes to come, the next one first.
    booting: VecDeque<u32>,
    pub coming: u32,
    /// Minutes since a purchase for which no pod waited.
    since_ahead: usize,
    /// Minutes since any purchase or removal.
    since_change: usize,
}

impl Default for Shadow {
    fn default() -> Self {
        Self { ready: 0, booting: VecDeque::new(), coming: 0, since_ahead: usize::MAX, since_change: usize::MAX }
    }
}

impl Shadow {
    /// Lets a minute begin: what has booted is ready, then what is wanted is bought or given back. What pods need that
    /// wait, `needed` in all, is bought without a rest.
    pub(super) fn follow(&mut self, want: Wanted, needed: u32, boot: usize, rests: &Rests) {
        // More than one where boots have become shorter.
        while self.booting.len() >= boot.max(1)
            && let Some(booted) = self.booting.pop_front()
        {
            self.ready += booted;
            self.coming -= booted;
        }
        self.since_ahead = self.since_ahead.saturating_add(1);
        self.since_change = self.since_change.saturating_add(1);
        let have = self.have();
        let ahead = want.buy > needed.max(have) && self.since_ahead >= rests.up;
        let bought = if ahead { want.buy } else { needed }.saturating_sub(have);
        self.booting.push_back(bought);
        self.coming += bought;
        // Above what is bought for nothing is given back, whatever is said of holding.
        let surplus = have.saturating_sub(want.hold.max(want.buy).max(needed)).min(self.ready);
        let rests_down = rests.down > 0 && (self.coming > 0 || self.since_change < rests.down);
        let gone = if rests_down { 0 } else { surplus.min(rests.most_at_once) };
        self.ready -= gone;
        if ahead {
            self.since_ahead = 0;
        }
        if bought > 0 || gone > 0 {
            self.since_change = 0;
        }
    }

    /// Nodes that are paid for.
    pub(super) fn have(&self) -> u32 {
        self.ready + self.coming
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_paid_for_while_it_boots_and_serves_afterwards() {
        let mut shadow = Shadow::default();
        let mut seen = Vec::new();
        for (buy, hold) in [(2, 2), (2, 2), (2, 2), (0, 1), (0, 5)] {
            shadow.follow(Wanted { buy, hold }, 0, 2, &Rests::NONE);
            seen.push((shadow.ready, shadow.have()));
        }
        assert_eq!(seen, [(0, 2), (0, 2), (2, 2), (1, 1), (1, 1)]);
    }

    #[test]
    fn boots_that_become_shorter_let_all_that_is_due_be_ready() {
        let mut shadow = Shadow::default();
        (0..3).for_each(|more| shadow.follow(Wanted { buy: more + 1, hold: more + 1 }, 0, 5, &Rests::NONE));
        shadow.follow(Wanted { buy: 3, hold: 3 }, 0, 1, &Rests::NONE);
        assert_eq!((shadow.ready, shadow.coming), (3, 0));
    }

    #[test]
    fn it_rests_as_the_real_one_does_but_for_pods_that_wait() {
        let rests = Rests { up: 3, down: 4, most_at_once: 2 };
        let mut shadow = Shadow::default();
        let mut have = Vec::new();
        // Wanted, and needed at once.
        for (wanted, needed) in [(8, 0), (9, 0), (10, 9), (10, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)] {
            shadow.follow(Wanted { buy: wanted, hold: wanted }, needed, 1, &rests);
            have.push(shadow.have());
        }
        assert_eq!(have, [8, 8, 9, 10, 10, 10, 10, 8, 8, 8, 8, 6]);
    }
}
