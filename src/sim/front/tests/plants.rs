//! A bug is planted for each invariant, and the oracle sees each.

use super::story::exercise;
use crate::sim::front::{Scenario, run};
use crate::sim::plants::Plant;
use crate::sim::{Fault, Invariant, Planned};
use std::collections::BTreeSet;
use std::time::Duration;

/// Makes the world in which a bug shows.
fn stage(plant: Plant) -> Scenario {
    let minutes = Duration::from_mins;
    let trouble = |fault, at: u64, lasts: u64| vec![Planned { fault, at: minutes(at), lasts: minutes(lasts) }];
    let mut scenario = exercise(11);
    scenario.plant = Some(plant);
    match plant {
        Plant::TrustsForEver => scenario.faults = trouble(Fault::Partition, 60, 90),
        Plant::MissingIsZero => scenario.faults = trouble(Fault::PrometheusDown, 40, 120),
        Plant::DeafToPause => scenario.faults = trouble(Fault::PauseInOperation, 60, 120),
        Plant::TellsSecrets => scenario.faults = trouble(Fault::RequestLimit, 60, 60),
        Plant::LeavesNodes => scenario.hours = 12.0,
        Plant::NeverGivesBack => {
            scenario.workloads[0].curve = crate::sim::workload::Curve::Constant(0.1);
            scenario.workloads.truncate(1);
            (scenario.workers, scenario.hours) = (6, 24.0);
        }
        // The load is far beyond what the promised maximum can hold.
        Plant::NoMaximum => scenario.workloads[0].cores_per_pod = 0.2,
        // There is next to nothing to do.
        Plant::NoMinimum => {
            scenario.workloads[0].curve = crate::sim::workload::Curve::Constant(0.1);
            scenario.workers = 3;
        }
        Plant::SecondToken | Plant::TakesStrangers | Plant::SeesNoPods | Plant::HotLoop | Plant::NeverBuys => {}
    }
    scenario
}

#[test]
fn a_lease_that_nobody_else_takes_ends_all_the_same() {
    let mut scenario = stage(Plant::TrustsForEver);
    scenario.controllers = 1;
    let outcome = run(&scenario);
    let late = |text: &str| text.contains("after its lease was taken or renewed");
    let found = outcome.violations.iter().any(|it| it.invariant == Invariant(5) && late(&it.text));
    assert!(found, "{:?}\n{}", outcome.violations, outcome.log.join("\n"));
}

#[test]
fn the_oracle_sees_a_planted_bug_for_each_invariant() {
    let mut seen = BTreeSet::new();
    for (plant, invariant) in Plant::ALL {
        let outcome = run(&stage(plant));
        assert!(
            outcome.violations.iter().any(|violation| violation.invariant == invariant),
            "{plant}: {:?}\n{}",
            outcome.violations,
            outcome.log.join("\n")
        );
        seen.insert(invariant);
        let sound = Scenario { plant: None, ..stage(plant) };
        assert_eq!(run(&sound).violations, [], "without {plant}");
    }
    assert_eq!(seen, BTreeSet::from(Invariant::ALL));
}
