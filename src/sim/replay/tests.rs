//! What each policy is documented to do, and that none of them sees what is to come.

mod daemon;
mod paper;
mod tuning;

use super::*;
use crate::model::prospect::Wanted;
use crate::policy::{ForecastRule, PredictiveMode, Settings};
use crate::sim::front::scenario::{base_policy, base_pool};

/// The daemon's usual settings, with bounds that are out of the way.
fn usual() -> Settings {
    let mut settings = base_policy(vec![base_pool("workers")]);
    (settings.pools[0].min, settings.pools[0].max) = (0, 1000);
    settings.forecasts = vec![ForecastRule { name: "demand".into(), pool: "workers".into(), query: "q".into(), per_node: 1.0 }];
    settings
}

fn operator(settings: &Settings) -> Operator {
    Operator::new(settings, &"workers".into(), &"demand".into()).expect("it has the pool")
}

fn conditions(boot: Boot, price_of_waiting: f64, dollars_per_hour: f64) -> Conditions {
    let rates = Rates::on_demand_only(dollars_per_hour);
    Conditions { boot, price_of_waiting, rates, seed: 1, operator: operator(&usual()), path: Path::Counts }
}

/// Lets a policy follow a demand with nodes that boot two minutes; gives what was paid for in each minute.
fn followed(policy: &mut dyn Policy, demand: &[f32], begin: u32) -> Vec<u32> {
    let (mut fleet, mut served) = (Fleet::new(Boot::Fixed(120), begin, 0), begin);
    let decide = |minute: usize| {
        fleet.begin();
        let view = View { demand: &demand[..minute], measured: minute > 0, served, fleet: &fleet };
        let want = if minute == 0 { Wanted { buy: 0, hold: u32::MAX } } else { policy.decide(&view) };
        let tick = fleet.pass(want.buy, want.hold);
        served = tick.ready;
        tick.paid
    };
    (0..demand.len()).map(decide).collect()
}

fn steps(parts: &[(f32, usize)]) -> Vec<f32> {
    parts.iter().flat_map(|(value, minutes)| std::iter::repeat_n(*value, *minutes)).collect()
}

/// Gives the minutes in which the number of nodes changed, with the number after it.
fn changes(paid: &[u32]) -> Vec<(usize, u32)> {
    (1..paid.len()).filter(|at| paid[*at] != paid[at - 1]).map(|at| (at, paid[at])).collect()
}

#[test]
fn the_static_peak_never_changes() {
    assert!(changes(&followed(&mut StaticPeak(7), &steps(&[(1.0, 20), (6.5, 20)]), 7)).is_empty());
}

#[test]
fn the_threshold_of_one_step_grows_after_four_minutes_and_rests_five() {
    // Two nodes at 1.6 are 80 % busy from minute 10 on, which is seen in minute 11.
    let paid = followed(&mut Threshold::new(false), &steps(&[(1.0, 10), (2.4, 30)]), 2);
    assert_eq!(changes(&paid), [(14, 3), (19, 4)]);
}

#[test]
fn the_threshold_shrinks_after_ten_minutes_and_rests_ten() {
    let paid = followed(&mut Threshold::new(false), &steps(&[(3.0, 5), (0.2, 30)]), 5);
    assert_eq!(changes(&paid), [(15, 4), (25, 3)]);
    let paid = followed(&mut Threshold::new(true), &steps(&[(3.0, 5), (0.2, 30)]), 5);
    assert_eq!(changes(&paid), [(15, 1)]);
}

#[test]
fn the_proportional_threshold_goes_to_the_right_number_at_once() {
    // 4.2 over 0.7 is 6.
    let paid = followed(&mut Threshold::new(true), &steps(&[(1.0, 10), (4.2, 30)]), 2);
    assert_eq!(changes(&paid), [(14, 6)]);
}

#[test]
fn a_cluster_autoscaler_grows_at_once_and_shrinks_after_ten_minutes_unneeded() {
    let demand = steps(&[(2.0, 12), (4.0, 3), (2.0, 30)]);
    let paid = followed(&mut ClusterAutoscalerLike::new(0.0), &demand, 2);
    // Seen in minute 13; the last minute of the peak is 14, and ten later ones did not need it.
    assert_eq!(changes(&paid), [(13, 4), (25, 2)]);
    let paid = followed(&mut ClusterAutoscalerLike::new(0.5), &demand, 3);
    assert_eq!(changes(&paid), [(13, 6), (25, 3)]);
}

#[test]
fn a_cluster_autoscaler_removes_nothing_within_ten_minutes_of_an_addition() {
    let demand = steps(&[(5.0, 12), (1.0, 9), (6.0, 1), (1.0, 30)]);
    let paid = followed(&mut ClusterAutoscalerLike::new(0.0), &demand, 5);
    assert_eq!(changes(&paid), [(22, 6), (32, 1)]);
}

#[test]
fn karpenter_grows_and_shrinks_at_once() {
    let paid = followed(&mut KarpenterLike { headroom: 0.0 }, &steps(&[(2.0, 10), (4.0, 5), (2.0, 10)]), 2);
    assert_eq!(changes(&paid), [(11, 4), (16, 2)]);
}

#[test]
fn the_aws_like_policy_buys_before_the_hour_that_was_busy_yesterday() {
    // Two days, busy from 10 to 11.
    let day = steps(&[(1.4, 600), (7.0, 60), (1.4, 780)]);
    let paid = followed(&mut AwsPredictiveLike::default(), &[day.clone(), day].concat(), 2);
    assert_eq!(paid[1440 + 594], 2);
    assert_eq!(paid[1440 + 595], 10, "five minutes ahead of the hour");
    assert_eq!(paid[600], 2, "nothing is known on the first day");
    assert_eq!(paid[1440 + 720], 2, "target tracking gives it back");
}

#[test]
fn persistence_adds_the_rise_that_is_exceeded_as_often_as_waiting_is_worth() {
    // One minute in ten is two nodes higher: at a price of 20 the margin covers it, at one of 2 it does not.
    let demand: Vec<f32> = (0..600).map(|minute| if minute % 10 == 0 { 4.0 } else { 2.0 }).collect();
    let nodes = |price: f64| followed(&mut Persistence::new(2, price), &demand, 2)[485];
    assert_eq!((nodes(20.0), nodes(2.0)), (4, 2));
}

#[test]
fn no_policy_sees_what_is_to_come() {
    let recording = Shape::Bursty.days(1, 3).scaled(12.0);
    let past = 1000;
    let mut other = recording.clone();
    other.values[past..].iter_mut().for_each(|value| *value = Some(1.0));
    let conditions = conditions(Boot::Fixed(120), 20.0, 1.0);
    // The static peak is the one that knows what it is not told.
    for contestant in Contestant::ALL.into_iter().filter(|contestant| *contestant != Contestant::StaticPeak) {
        let wants = |recording: &Recording| -> Vec<Wanted> {
            let mut policy = contestant.policy(recording, &conditions);
            let (demand, mut fleet) = (recording.carried(), Fleet::new(conditions.boot, 3, 1));
            let mut served = 3;
            let decide = |minute: usize| {
                fleet.begin();
                let want = policy.decide(&View { demand: &demand[..minute], measured: true, served, fleet: &fleet });
                served = fleet.pass(want.buy, want.hold).ready;
                want
            };
            (1..recording.values.len()).map(decide).collect()
        };
        let (one, two) = (wants(&recording), wants(&other));
        // The minute `past` is decided on what was before it; the first decision is that of minute 1.
        let differs = one.iter().zip(&two).position(|(one, other)| one != other).map(|at| at + 1);
        assert!(differs.is_some_and(|minute| minute > past), "{}: {differs:?}", contestant.name());
    }
}

struct Silent;

impl Progress for Silent {
    fn begins(&mut self, _: &str) {}
    fn passed(&mut self, _: u64) {}
}

#[test]
fn nobody_is_cheaper_than_the_optimum_and_ours_sees_jobs_coming() {
    let recording = Shape::Cron.days(4, 1).scaled(8.0);
    let conditions = conditions(Boot::Fixed(120), 60.0, 2.0);
    let found = side_by_side(&recording, &conditions, &mut Silent);
    for outcome in &found.outcomes {
        assert!(outcome.to_clairvoyant.is_some_and(|ratio| ratio >= 1.0 - 1e-6), "{outcome:?}");
        assert!((outcome.dollars - 2.0 * outcome.node_hours).abs() < 1e-6);
    }
    let best = found.outcomes.iter().find(|outcome| outcome.policy.starts_with("best in hindsight")).expect("it is there");
    let ratio = best.ours_to_this.expect("it has one").ratio;
    assert!(ratio < 0.9, "{ratio} of the best reactive policy in hindsight");
    assert!(found.coverage.is_some());
}

#[test]
fn gaps_are_not_counted_and_booting_at_random_is_the_same_each_time() {
    let mut recording = Shape::Daily.days(2, 1).scaled(6.0);
    recording.values[2000..2300].iter_mut().for_each(|value| *value = None);
    let boot = Boot::Spread { least: 60, most: 180, failing: 0.02 };
    let conditions = conditions(boot, 20.0, 1.0);
    let found = side_by_side(&recording, &conditions, &mut Silent);
    let peak = found.outcomes.iter().find(|outcome| outcome.policy == "static peak").expect("it is there");
    assert!((found.days * 1440.0 - 1140.0).abs() < 1e-6 && (found.warm_up_days - 1.0).abs() < 1e-9, "{} days", found.days);
    // Six nodes and something, for the day that counts without the gap.
    assert!((peak.node_hours - 7.0 * (1440.0 - 300.0) / 60.0).abs() < 8.0, "{peak:?}");
    assert_eq!(found, side_by_side(&recording, &conditions, &mut Silent));
}

#[test]
fn node_fleet_does_what_the_configured_mode_does_and_its_forecast_has_a_row_of_its_own_where_that_differs() {
    let recording = Shape::Cron.days(4, 1).scaled(8.0);
    let row = |found: &SideBySide, name: &str| found.outcomes.iter().find(|outcome| outcome.policy == name).cloned();
    let figures = |outcome: &Outcome| (outcome.node_hours, outcome.unmet_node_minutes, outcome.launches);
    // Four days are less than the week of the trial, so that `auto` is reactive to the end.
    for mode in PredictiveMode::ALL {
        let mut conditions = conditions(Boot::Fixed(120), 60.0, 2.0);
        conditions.operator.settings_mut().predictive.mode = mode;
        let found = side_by_side(&recording, &conditions, &mut Silent);
        let (ours, reactive) = (&found.outcomes[0], row(&found, "node-fleet, reactive only").expect("it is there"));
        assert_eq!(ours.policy, "node-fleet");
        assert!(found.coverage.is_some(), "forecasts are made in one of the rows");
        match row(&found, "node-fleet, with its forecast") {
            None => assert!(mode == PredictiveMode::On && ours.cost < 0.9 * reactive.cost, "{mode:?}: {ours:?}"),
            Some(forecasting) => {
                assert_ne!(mode, PredictiveMode::On);
                assert_eq!(figures(ours), figures(&reactive), "{mode:?}");
                assert!(forecasting.cost < 0.9 * ours.cost, "{mode:?}: {forecasting:?}");
            }
        }
    }
}

#[test]
fn a_forecast_that_knows_its_week_before_what_counts_needs_no_row_of_its_own() {
    let mut conditions = conditions(Boot::Fixed(120), 20.0, 1.0);
    conditions.operator.settings_mut().predictive.mode = PredictiveMode::Auto;
    let mut recording = Recording::whole(Shape::Daily.days(1, 1).start, &vec![5.0; 28 * 1440]);
    let has_row = |recording: &Recording| Contestant::table(recording, 14 * 1440, &conditions).contains(&Contestant::OursForecasting);
    assert!(!has_row(&recording));
    recording.values[..8 * 1440].fill(None);
    assert!(has_row(&recording), "six days of the two weeks were measured");
}

#[test]
fn a_replay_passes_as_many_minutes_as_it_said_and_the_optimum_tells_how_far_it_is() {
    #[derive(Default)]
    struct Passed {
        in_all: u64,
        of_the_optimum: usize,
        name: String,
    }
    impl Progress for Passed {
        fn begins(&mut self, name: &str) {
            name.clone_into(&mut self.name);
        }
        fn passed(&mut self, minutes: u64) {
            self.in_all += minutes;
            self.of_the_optimum += usize::from(self.name == "clairvoyant optimum");
        }
    }
    let mut recording = Shape::Daily.days(1, 1).scaled(30.0);
    recording.values[900..1000].fill(None);
    let conditions = conditions(Boot::Fixed(120), 20.0, 1.0);
    let mut passed = Passed::default();
    let _ = side_by_side(&recording, &conditions, &mut passed);
    assert_eq!(passed.in_all, work(&recording, &conditions));
    assert!(passed.of_the_optimum >= 20, "{} layers", passed.of_the_optimum);
    let parts = Parts { taught: 0, searched: 720, minutes: 1440 };
    let operator = conditions.operator.clone();
    let tuned = Tuned { changes: Changes::from([("a", "b")]), operator, tried: 1, cost_before: 1.0, cost_after: 0.5 };
    let mut passed = Passed::default();
    held_out(&recording, &parts, &conditions, &tuned, &mut passed);
    assert_eq!(passed.in_all, held_out_work(&recording, &parts, &tuned));
}

#[test]
fn a_demand_of_exactly_so_many_nodes_needs_no_more_of_them_however_large() {
    for (demand, size, nodes) in [(28.7, 0.7, 41_u32), (2.1, 0.7, 3), (30_000.3, 0.3, 100_001), (6_000.6, 0.6, 10_001)] {
        let recording = Recording::whole(Shape::Daily.days(1, 1).start, &vec![demand; 300]).divided(size);
        let value = f64::from(recording.values[0].expect("it is measured"));
        assert_eq!(crate::policy::forecast::whole_nodes(value), nodes, "{demand} over {size}");
        let mut tally = Tally::default();
        tally.count(0, value, Tick { ready: nodes, paid: nodes, launched: 0 });
        assert_eq!((tally.minutes_over, tally.sum().unmet), (0, 0.0), "{demand} over {size}");
    }
    let recording = Recording::whole(Shape::Daily.days(1, 1).start, &vec![28.7; 300]).divided(0.7);
    let found = side_by_side(&recording, &conditions(Boot::Fixed(120), 20.0, 1.0), &mut Silent);
    for outcome in &found.outcomes {
        let exact = ["node-fleet", "static peak", "cluster-autoscaler-like", "Karpenter-like", "clairvoyant optimum"];
        if exact.contains(&outcome.policy.as_str()) {
            assert!((outcome.node_hours - 41.0 * 2.5).abs() < 1e-9, "{outcome:?}");
        }
    }
    assert_eq!(crate::policy::forecast::whole_nodes(41.001), 42);
    assert_eq!(crate::policy::forecast::whole_nodes(0.0), 0);
}

#[test]
fn launches_lie_in_their_own_hour_whatever_the_hour_a_recording_begins_in() {
    // Two days of a job in the last ten minutes of each hour; the recording begins at half past.
    let demand: Vec<f32> = (30..2 * 1440 + 30).map(|minute| if minute % 60 >= 50 { 6.0 } else { 2.0 }).collect();
    let recording = Recording::whole(Shape::Daily.days(1, 1).start.plus(30), &demand);
    let found = side_by_side(&recording, &conditions(Boot::Fixed(120), 20.0, 1.0), &mut Silent);
    for outcome in &found.outcomes {
        assert_eq!(outcome.launches_by_hour.iter().sum::<u64>(), outcome.launches, "{outcome:?}");
    }
    let karpenter = found.outcomes.iter().find(|outcome| outcome.policy == "Karpenter-like").expect("it is there");
    assert_eq!(karpenter.launches_by_hour, [4; 24]);
}
