//! A fleet that exists on paper only: what a way would have had, and what it would have cost.

use super::boots::whole_minutes;
use super::candidates::Scene;
use super::history::Minute;
use crate::model::prospect::Wanted;
use crate::policy::settings::Settings;
use std::collections::VecDeque;

/// Nodes that must be older than so many minutes to go are on paper as if they had to be as old.
const OLDEST: usize = 1440;

/// When a fleet is changed, whatever is wanted, in whole minutes: one on paper rests as the real one does, so that what
/// it costs is what following a way would.
///
/// `scale_down.sustain` is not among them: what a way would give back is beyond all demand, so no pod has to move, and
/// such nodes go without it. Left out are the longer rests after removals that pods regret, and the pool's bounds and
/// disruption budgets: paper shrinks a little sooner than the real one where those bind.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rests {
    /// From one evaluation to the next; nothing is given back in between.
    pub every: usize,
    /// Between two purchases for which no pod waits.
    pub up: usize,
    /// After a purchase or a removal, in which nothing is given back.
    pub down: usize,
    /// How long a node has served at least that is given back.
    pub age: usize,
    /// No more nodes than these leave together. Where `scale_down.enabled` is false it is the same: a fleet that only
    /// grew on paper would need no forecast after its first rise, and a real one that is made smaller by hand does.
    pub most_at_once: u32,
}

impl Rests {
    /// Each minute all that is wanted is done.
    pub const NONE: Self = Self { every: 1, up: 0, down: 0, age: 0, most_at_once: u32::MAX };

    /// Gives those that the settings demand.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        let down = &settings.scale_down;
        Self {
            every: whole_minutes(settings.interval).max(1),
            up: whole_minutes(settings.scale_up.cooldown),
            down: whole_minutes(down.cooldown),
            age: whole_minutes(down.min_node_age).min(OLDEST),
            most_at_once: down.most_at_once.max(1),
        }
    }

    /// Tells whether an evaluation is made as a minute begins.
    pub(super) fn is_due(&self, minute: Minute) -> bool {
        minute.0.rem_euclid(i64::try_from(self.every).unwrap_or(i64::MAX).max(1)) == 0
    }

    /// Counts the minutes from a purchase for which no pod waits to the next one: of the evaluations, the first that is
    /// no longer within the cooldown.
    pub(super) fn between_purchases(&self) -> usize {
        self.up.div_ceil(self.every.max(1)).max(1).saturating_mul(self.every.max(1))
    }
}

/// Nodes that follow what a way wants, with the boot time and the rests that real ones have.
#[derive(Debug, Clone, Default)]
pub(super) struct Shadow {
    pub ready: u32,
    /// How many of those that pods waited for become ready in the minutes to come, the next one first.
    urgent: VecDeque<u32>,
    /// How many of those that were bought ahead.
    early: VecDeque<u32>,
    pub coming: u32,
    minutes: usize,
    /// Ready nodes that are too young to go, by the minute they joined in, the oldest first.
    young: VecDeque<(usize, u32)>,
    /// The minute of the latest purchase for which no pod waited.
    ahead: Option<usize>,
    /// The minute of the latest purchase or removal.
    changed: Option<usize>,
}

impl Shadow {
    /// Lets a minute begin: what has booted is ready, then what is wanted is bought or given back. What pods need that
    /// wait, `needed` in all, is bought at once, without a rest, and is there after the boot alone. What is bought ahead
    /// comes an evaluation later, as if it were always decided just after one: that is up to an evaluation too careful,
    /// and makes up for the minutes between evaluations in which paper buys and the real fleet does not.
    pub(super) fn follow(&mut self, want: Wanted, needed: u32, scene: &Scene) {
        let rests = &scene.rests;
        self.minutes += 1;
        self.join(scene.boot, scene.replaced_in, rests.age);
        let rested = |since: Option<usize>, rest: usize| since.is_none_or(|since| self.minutes - since >= rest);
        let have = self.have();
        let ahead = want.buy > needed.max(have) && rested(self.ahead, rests.up);
        let urgent = needed.saturating_sub(have);
        let early = if ahead { want.buy - needed.max(have) } else { 0 };
        let bought = urgent + early;
        let rests_down = rests.down > 0 && (self.coming + bought > 0 || !rested(self.changed, rests.down));
        // Above what is bought for nothing is given back, whatever is said of holding.
        let surplus = have.saturating_sub(want.hold.max(want.buy).max(needed));
        let grown = self.ready - self.young.iter().map(|(_, nodes)| nodes).sum::<u32>();
        let gone = if rests_down || !scene.is_due { 0 } else { surplus.min(grown).min(rests.most_at_once) };
        self.urgent.push_back(urgent);
        self.early.push_back(early);
        self.coming += bought;
        self.ready -= gone;
        if ahead {
            self.ahead = Some(self.minutes);
        }
        if bought > 0 || gone > 0 {
            self.changed = Some(self.minutes);
        }
    }

    /// Lets nodes serve that have booted, and those grow up that have served for long enough.
    fn join(&mut self, boot: usize, lead: usize, age: usize) {
        let mut booted = 0;
        for (booting, minutes) in [(&mut self.urgent, boot), (&mut self.early, lead)] {
            // More than one where boots have become shorter.
            let over = (booting.len() + 1).saturating_sub(minutes.max(1));
            booted += booting.drain(..over).sum::<u32>();
        }
        self.ready += booted;
        self.coming -= booted;
        if booted > 0 {
            self.young.push_back((self.minutes, booted));
        }
        while self.young.front().is_some_and(|(joined, _)| self.minutes - joined >= age) {
            self.young.pop_front();
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

    /// A minute in which so many are wanted, and needed, with nodes that boot so long.
    fn minute(shadow: &mut Shadow, want: Wanted, needed: u32, boot: usize, rests: Rests, is_due: bool) {
        let replaced_in = boot + rests.every;
        let scene = Scene { highest: [0.0; _], node: 1.0, boot, replaced_in, price: 1.0, rests, is_due, outlooks: &[], ladder: None };
        shadow.follow(want, needed, &scene);
    }

    #[test]
    fn a_node_is_paid_for_while_it_boots_and_serves_afterwards() {
        let mut shadow = Shadow::default();
        let mut seen = Vec::new();
        for (buy, hold) in [(2, 2), (2, 2), (2, 2), (0, 1), (0, 5)] {
            minute(&mut shadow, Wanted { buy, hold }, 0, 2, Rests::NONE, true);
            seen.push((shadow.ready, shadow.have()));
        }
        assert_eq!(seen, [(0, 2), (0, 2), (0, 2), (1, 1), (1, 1)]);
    }

    #[test]
    fn boots_that_become_shorter_let_all_that_is_due_be_ready() {
        let mut shadow = Shadow::default();
        (0..3).for_each(|more| minute(&mut shadow, Wanted { buy: more + 1, hold: more + 1 }, 0, 5, Rests::NONE, true));
        minute(&mut shadow, Wanted { buy: 3, hold: 3 }, 0, 1, Rests::NONE, true);
        assert_eq!((shadow.ready, shadow.coming), (2, 1));
    }

    #[test]
    fn it_rests_as_the_real_one_does_but_for_pods_that_wait() {
        let rests = Rests { up: 3, down: 4, most_at_once: 2, ..Rests::NONE };
        let mut shadow = Shadow::default();
        let mut have = Vec::new();
        // Wanted, and needed at once.
        for (wanted, needed) in [(8, 0), (9, 0), (10, 9), (10, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0), (0, 0)] {
            minute(&mut shadow, Wanted { buy: wanted, hold: wanted }, needed, 1, rests, true);
            have.push(shadow.have());
        }
        assert_eq!(have, [8, 8, 9, 10, 10, 10, 10, 8, 8, 8, 8, 6]);
    }

    #[test]
    fn pods_that_wait_have_their_nodes_after_the_boot_alone_and_what_is_bought_ahead_comes_an_evaluation_later() {
        let rests = Rests { every: 2, ..Rests::NONE };
        let mut shadow = Shadow::default();
        let mut seen = Vec::new();
        // Wanted, and needed at once. In each even minute an evaluation is made, and only then nodes go.
        for (at, (wanted, needed)) in [(0, 0), (4, 0), (4, 1), (6, 5), (6, 5), (6, 5), (0, 0), (0, 0), (0, 0)].into_iter().enumerate() {
            minute(&mut shadow, Wanted { buy: wanted, hold: wanted }, needed, 2, rests, rests.is_due(Minute(at as i64)));
            seen.push((shadow.ready, shadow.have()));
        }
        assert_eq!(seen, [(0, 0), (0, 4), (0, 4), (0, 6), (0, 6), (5, 6), (0, 1), (1, 1), (0, 0)]);
    }

    #[test]
    fn nodes_grow_up_before_they_go_and_the_oldest_go_first() {
        let rests = Rests { age: 3, ..Rests::NONE };
        let mut shadow = Shadow::default();
        let mut have = Vec::new();
        for wanted in [2, 2, 5, 0, 0, 0, 0, 0] {
            minute(&mut shadow, Wanted { buy: wanted, hold: wanted }, 0, 1, rests, true);
            have.push(shadow.have());
        }
        // Two join in the third minute, three in the fifth.
        assert_eq!(have, [2, 2, 5, 5, 5, 3, 3, 0]);
    }

    #[test]
    fn the_next_purchase_is_made_in_the_first_evaluation_after_the_cooldown() {
        let between = |every, up| Rests { every, up, ..Rests::NONE }.between_purchases();
        assert_eq!((between(1, 0), between(2, 0), between(2, 5), between(2, 6), between(1, 5)), (1, 2, 6, 6, 5));
    }
}
