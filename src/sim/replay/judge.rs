//! What a policy cost and what it left waiting, day by day.

use super::bill::Bill;
use super::fleet::Tick;
use crate::policy::forecast::whole_nodes;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng as _;
use serde::Serialize;

/// How often days are drawn for an interval.
const DRAWS: usize = 1000;
/// Drawings of fewer days than these are alike, and their interval would be too narrow.
const FEWEST_DAYS: usize = 7;

/// What happened in a day that counts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Day {
    /// Node-minutes that were paid for.
    pub paid: f64,
    /// Node-minutes of demand that waited.
    pub unmet: f64,
    /// Minutes that were measured.
    pub minutes: u32,
}

impl Day {
    /// Gives node-minutes, and those unmet at their price.
    #[must_use]
    pub fn cost(self, price: f64) -> f64 {
        self.paid + price * self.unmet
    }
}

/// The sums over all minutes that count.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Minutes that count: after the warm-up, and measured.
    pub minutes: u64,
    /// Each day, by 1440 minutes.
    pub days: Vec<Day>,
    /// Demand, in node-minutes.
    pub demand: f64,
    /// Minutes in which demand exceeded what was ready.
    pub minutes_over: u64,
    /// Nodes that were launched.
    pub launches: u64,
    /// What was paid for, by market and hour.
    pub bill: Bill,
    under: f64,
    over: f64,
    minutes_under: u64,
    minutes_idle: u64,
}

impl Tally {
    /// Counts a minute of a day.
    pub fn count(&mut self, day: usize, demand: f64, tick: Tick) {
        if self.days.len() <= day {
            self.days.resize(day + 1, Day::default());
        }
        let ready = f64::from(tick.ready);
        let needed = f64::from(whole_nodes(demand));
        let unmet = if needed > ready { demand - ready } else { 0.0 };
        self.days[day].paid += f64::from(tick.paid);
        self.days[day].unmet += unmet;
        self.days[day].minutes += 1;
        self.minutes += 1;
        self.demand += demand;
        self.minutes_over += u64::from(unmet > 0.0);
        self.launches += u64::from(tick.launched);
        // The elasticity metrics count whole nodes: what is needed against what serves.
        if needed > 0.0 {
            self.under += (needed - ready).max(0.0) / needed;
            self.over += (ready - needed).max(0.0) / needed;
        }
        self.minutes_under += u64::from(ready < needed);
        self.minutes_idle += u64::from(ready > needed);
    }

    /// Gives the sum of the days.
    #[must_use]
    pub fn sum(&self) -> Day {
        let add = |sum: Day, day: &Day| Day { paid: sum.paid + day.paid, unmet: sum.unmet + day.unmet, minutes: sum.minutes + day.minutes };
        self.days.iter().fold(Day::default(), add)
    }

    /// Gives the metrics of elasticity that the SPEC research group defined.
    #[must_use]
    pub fn elasticity(&self) -> Elasticity {
        let minutes = self.minutes.max(1) as f64;
        Elasticity {
            under_provisioning: self.under / minutes,
            over_provisioning: self.over / minutes,
            time_under: self.minutes_under as f64 / minutes,
            time_over: self.minutes_idle as f64 / minutes,
        }
    }
}

/// How closely capacity followed the nodes that were needed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Elasticity {
    /// Mean share of the needed nodes that was missing.
    pub under_provisioning: f64,
    /// Mean share of the needed nodes that was there beyond them.
    pub over_provisioning: f64,
    /// Share of minutes with too few nodes.
    pub time_under: f64,
    /// Share of minutes with too many nodes.
    pub time_over: f64,
}

/// A ratio of costs, with the interval in which 95 of 100 drawings of days have it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Ratio {
    /// The ratio over all days.
    pub ratio: f64,
    /// 2.5 of 100 drawings lie below; `None` where there are too few days to draw from.
    pub low: Option<f64>,
    /// 2.5 of 100 drawings lie above.
    pub high: Option<f64>,
}

/// Compares the costs of two policies on the same days, drawn with replacement; `None` where the other cost nothing. Days
/// of which nothing was measured are not among them.
#[must_use]
pub fn compare(one: &[Day], other: &[Day], price: f64, seed: u64) -> Option<Ratio> {
    let measured = one.iter().zip(other).filter(|(one, other)| one.minutes.min(other.minutes) > 0);
    let pairs: Vec<(f64, f64)> = measured.map(|(one, other)| (one.cost(price), other.cost(price))).collect();
    let days = pairs.len();
    let add = |sum: (f64, f64), pair: &(f64, f64)| (sum.0 + pair.0, sum.1 + pair.1);
    let (ours, others) = pairs.iter().fold((0.0, 0.0), add);
    let whole = ratio(ours, others)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = || {
        let (ours, others) = (0..days).map(|_| &pairs[random.random_range(0..days)]).fold((0.0, 0.0), add);
        ratio(ours, others)
    };
    // Days without any cost, drawn alone, say nothing.
    let mut drawn: Vec<f64> = (0..DRAWS).filter_map(|_| draw()).collect();
    drawn.sort_unstable_by(f64::total_cmp);
    let of = |at: usize| (days >= FEWEST_DAYS).then(|| drawn.get(at * drawn.len() / DRAWS).copied()).flatten();
    Some(Ratio { ratio: whole, low: of(DRAWS / 40), high: of(DRAWS - 1 - DRAWS / 40) })
}

/// Gives one cost over another; `None` where the other is nothing.
pub(super) fn ratio(one: f64, other: f64) -> Option<f64> {
    Some(one / other).filter(|ratio| ratio.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_a_hand_made_day() {
        let mut tally = Tally::default();
        for (demand, ready, paid) in [(1.5, 2, 2), (4.0, 2, 4), (0.0, 1, 1)] {
            tally.count(0, demand, Tick { ready, paid, launched: paid - ready });
        }
        assert_eq!(tally.sum(), Day { paid: 7.0, unmet: 2.0, minutes: 3 });
        assert_eq!((tally.minutes, tally.minutes_over, tally.launches), (3, 1, 2));
        let elasticity = tally.elasticity();
        assert!((elasticity.under_provisioning - 0.5 / 3.0).abs() < 1e-12 && elasticity.over_provisioning.abs() < 1e-12);
        assert!((elasticity.time_under - 1.0 / 3.0).abs() < 1e-12 && (elasticity.time_over - 1.0 / 3.0).abs() < 1e-12);
        assert!((Day { paid: 7.0, unmet: 2.0, minutes: 3 }.cost(20.0) - 47.0).abs() < 1e-12);
    }

    #[test]
    fn an_interval_holds_the_ratio_and_narrows_where_days_are_alike() {
        let day = |day: u32, swing: f64| Day { paid: 100.0 + swing * f64::from(day % 7), unmet: 0.0, minutes: 1440 };
        let days = |swing: f64| (0..28).map(|at| day(at, swing)).collect::<Vec<_>>();
        let compare = |one: &[Day], other: &[Day]| compare(one, other, 20.0, 1).expect("both cost something");
        let (even, uneven) = (compare(&days(0.0), &days(0.0)), compare(&days(50.0), &days(0.0)));
        let ends = |ratio: Ratio| ratio.low.zip(ratio.high).expect("four weeks are enough");
        assert!((ends(even).1 - ends(even).0).abs() < 1e-9);
        assert!(ends(uneven).0 < uneven.ratio && uneven.ratio < ends(uneven).1);
        assert_eq!(compare(&days(50.0)[..6], &days(0.0)).low, None, "six days are too few");
        assert_eq!(uneven, compare(&days(50.0), &days(0.0)));
    }

    #[test]
    fn days_that_were_not_measured_are_not_drawn() {
        let measured = |day: u32| Day { paid: 100.0 + f64::from(day), unmet: 0.0, minutes: 1440 };
        let gap = [Day::default(); 10];
        let (four, eight): (Vec<Day>, Vec<Day>) = ((0..4).map(measured).collect(), (0..8).map(measured).collect());
        let ratio = |days: &[Day]| compare(&[days, &gap].concat(), &vec![measured(0); days.len() + gap.len()], 20.0, 1);
        assert_eq!(ratio(&four).expect("it cost something").low, None, "four days are too few");
        assert_eq!(ratio(&eight), compare(&eight, &[measured(0); 8], 20.0, 1));
    }

    #[test]
    fn there_is_no_ratio_to_nothing() {
        let day = |paid: f64| Day { paid, unmet: 0.0, minutes: 1440 };
        let (free, rare) = (vec![day(0.0); 10], [&[day(1.0)][..], &[day(0.0); 9]].concat());
        assert_eq!((compare(&rare, &free, 20.0, 1), compare(&[], &[], 20.0, 1)), (None, None));
        assert_eq!(compare(&rare, &rare, 20.0, 1), Some(Ratio { ratio: 1.0, low: Some(1.0), high: Some(1.0) }));
    }
}
