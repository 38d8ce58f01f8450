//! A fleet that exists on paper only: what a way would have had, and what it would have cost.

use crate::model::prospect::Wanted;
use std::collections::VecDeque;

/// Nodes that follow what a way wants, with the boot time that real ones have.
#[derive(Debug, Clone, Default)]
pub(super) struct Shadow {
    pub ready: u32,
    /// How many become ready in the minutes to come, the next one first.
    booting: VecDeque<u32>,
    pub coming: u32,
}

impl Shadow {
    /// Lets a minute begin: what has booted is ready, then what is wanted is bought or given back.
    pub(super) fn follow(&mut self, want: Wanted, boot: usize) {
        // More than one where boots have become shorter.
        while self.booting.len() >= boot.max(1)
            && let Some(booted) = self.booting.pop_front()
        {
            self.ready += booted;
            self.coming -= booted;
        }
        let have = self.have();
        let bought = want.buy.saturating_sub(have);
        // Above what is bought for nothing is given back, whatever is said of holding.
        let hold = want.hold.max(want.buy);
        self.booting.push_back(bought);
        self.coming += bought;
        self.ready -= have.saturating_sub(hold).min(self.ready);
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
            shadow.follow(Wanted { buy, hold }, 2);
            seen.push((shadow.ready, shadow.have()));
        }
        assert_eq!(seen, [(0, 2), (0, 2), (2, 2), (1, 1), (1, 1)]);
    }

    #[test]
    fn boots_that_become_shorter_let_all_that_is_due_be_ready() {
        let mut shadow = Shadow::default();
        (0..3).for_each(|more| shadow.follow(Wanted { buy: more + 1, hold: more + 1 }, 5));
        shadow.follow(Wanted { buy: 3, hold: 3 }, 1);
        assert_eq!((shadow.ready, shadow.coming), (3, 0));
    }
}
