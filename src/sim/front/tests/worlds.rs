//! Worlds as a whole.

use super::story::exercise;
use crate::sim::front::{Scenario, ScenarioError, run};
use crate::sim::{Fault, Trace};

#[test]
fn the_same_seed_gives_the_same_log_byte_for_byte() {
    for seed in [3, 17] {
        let scenario = Scenario::from_seed(seed, 12.0, &Fault::ALL);
        let (one, two) = (run(&scenario), run(&scenario));
        assert_eq!(one.log, two.log);
        assert_eq!((one.digest, one.calls, one.launches), (two.digest, two.calls, two.launches));
        assert_ne!(one.digest, run(&Scenario::from_seed(seed + 1, 12.0, &Fault::ALL)).digest);
    }
}

#[test]
fn a_quiet_world_stays_as_it_is() {
    let outcome = run(&Scenario::quiet(1, 24.0, 4));
    assert_eq!(outcome.violations, []);
    assert_eq!((outcome.launches, outcome.most_nodes), (4, 4));
    assert!((outcome.node_hours - 96.0).abs() < 0.1 && (outcome.dollars - 9.216).abs() < 0.01, "{outcome:?}");
}

#[test]
fn the_exercise_buys_and_gives_back_without_a_fault() {
    let outcome = run(&exercise(11));
    assert_eq!(outcome.violations, [], "{}", outcome.log.join("\n"));
    assert!(outcome.launches > 15 && outcome.most_nodes >= 8, "{}", outcome.log.join("\n"));
    assert!(outcome.waits.longest.as_secs() < 120, "{:?}", outcome.waits);
}

#[test]
fn a_recording_begins_at_the_time_of_the_week_at_which_it_was_made() {
    let trace = Trace { begin: "2019-05-08T13:45:00Z".parse().expect("a time, on a Wednesday"), minutes: vec![Some(1.0)] };
    let start = Scenario::recorded(1, 1.0, &trace, 1.0).beginning().start;
    assert_eq!(start.to_string(), "2026-03-04T13:45:00Z");
}

#[test]
fn an_impossible_world_is_refused_before_anything_runs() {
    let mut none = Scenario::quiet(1, 1.0, 2);
    none.pools[0].types = vec!["z9.huge"];
    assert!(matches!(none.check(), Err(ScenarioError::NoOffers { known, .. }) if known.contains("m5.large")));
    let mut narrow = Scenario::quiet(1, 1.0, 2);
    narrow.settings.policy.pools[0].min = 20;
    assert!(matches!(narrow.check(), Err(ScenarioError::Bounds { min: 20, .. })));
    let mut nowhere = Scenario::quiet(1, 1.0, 2);
    nowhere.zones.clear();
    assert_eq!(nowhere.check(), Err(ScenarioError::NoZones));
}
