//! What the fuzzer has found once, and must not find again.

use super::story::exercise;
use crate::sim::front::{Scenario, run};
use crate::sim::workload::Curve;
use crate::sim::{Fault, Planned};
use std::time::Duration;

/// Seeds that once broke an invariant, of the daemon or of the world's own.
const SEEDS: [u64; 17] = [39, 198, 768, 777, 949, 1080, 1217, 1834, 2194, 2223, 2389, 2718, 2999, 3927, 5899, 6071, 17199];

#[test]
fn worlds_that_once_broke_an_invariant_break_none() {
    for seed in SEEDS {
        let outcome = run(&Scenario::from_seed(seed, 24.0, &Fault::ALL));
        assert_eq!(outcome.violations, [], "node-fleet fuzz --seeds {seed} --hours 24 --faults all --log");
    }
}

fn planned(fault: Fault, from: u64, minutes: u64) -> Planned {
    Planned { fault, at: Duration::from_mins(from), lasts: Duration::from_mins(minutes) }
}

/// Machines that never join are asked to end, EC2 says that it does not know them, and they live: they count.
#[test]
fn machines_that_ec2_denies_count_towards_the_maximum() {
    let mut scenario = exercise(5);
    scenario.settings.policy.pools[0].max = 5;
    scenario.faults = vec![planned(Fault::NeverJoins, 20, 90), planned(Fault::TerminateNotFound, 20, 120)];
    let outcome = run(&scenario);
    assert!([Fault::NeverJoins, Fault::TerminateNotFound].iter().all(|fault| outcome.hits.contains_key(fault)), "{:?}", outcome.hits);
    assert_eq!(outcome.violations, [], "{}", outcome.log.join("\n"));
}

/// The watch shows the cluster as it was for longer than machines may take to join.
#[test]
fn a_machine_that_joins_behind_a_stale_watch_is_not_given_back() {
    let mut scenario = exercise(5);
    let longer = scenario.settings.policy.join_timeout.as_secs() / 60 + 10;
    scenario.faults = vec![planned(Fault::StaleList, 33, longer)];
    let outcome = run(&scenario);
    let joined = |line: &&String| line.contains(" joins ");
    assert!(outcome.hits.contains_key(&Fault::StaleList) && outcome.log.iter().any(|line| joined(&line)), "{}", outcome.log.join("\n"));
    assert_eq!(outcome.violations, [], "{}", outcome.log.join("\n"));
}

/// Nothing is displaced when the room of an hourly job goes, so nothing is regretted: it is not held between the runs.
#[test]
fn the_room_of_an_hourly_job_is_held_for_its_runs_alone() {
    let mut scenario = exercise(5);
    scenario.hours = 24.0;
    scenario.peace_from = None;
    scenario.rollouts.clear();
    let jobs = Curve::Cron { every: Duration::from_hours(1), length: Duration::from_mins(5), height: 2.0 };
    scenario.workloads[0].curve = Curve::Sum(vec![Curve::Constant(2.0), jobs]);
    scenario.settings.policy.scale_down.longest_cooldown = Duration::from_hours(6);
    let outcome = run(&scenario);
    let number = |what: &str| outcome.log.iter().filter(|line| line.contains(what)).count();
    let (bought, gone) = (number(" buys "), number(" removes the object of "));
    assert!((20..=24).contains(&bought) && (20..=24).contains(&gone), "{bought} bought, {gone} gone:\n{}", outcome.log.join("\n"));
    assert_eq!(outcome.violations, []);
}
