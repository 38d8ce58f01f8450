//! What people are told: each state of an operation once, whoever leads, and nothing that did not happen.

use super::story::{AT, LASTS, exercise};
use crate::model::happening::Milestone;
use crate::model::{Happening, Operation, OperationId, What};
use crate::ports::{Measurement, Telemetry};
use crate::sim::front::{Run, Scenario};
use crate::sim::{Fault, Planned};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Keeps what is told and what is counted.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<(Vec<What>, Vec<Measurement>)>>);

impl Telemetry for Listener {
    fn record(&self, measurement: Measurement) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(measurement);
    }

    fn tell(&self, happening: Happening) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(happening.what);
    }
}

/// Lives through a scenario and gives what all of its controllers told, in order.
fn told(scenario: Scenario) -> Vec<What> {
    told_and_counted(scenario).0
}

/// Gives what they counted, too.
fn told_and_counted(scenario: Scenario) -> (Vec<What>, Vec<Measurement>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("nothing but time");
    let listener = Listener::default();
    runtime.block_on(async {
        let mut run = Run::begin(scenario, |_| listener.clone());
        run.to_the_end().await;
    });
    std::mem::take(&mut listener.0.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Names an operation's reason, since another one begins it anew.
fn reason(operation: &Operation) -> &'static str {
    match operation {
        Operation::Launch(_) => "launch",
        Operation::Retire(retire) => retire.order.reason.name(),
    }
}

fn moves(told: &[What]) -> impl Iterator<Item = (&Operation, Milestone)> {
    told.iter().filter_map(|what| match what {
        What::Moved { operation, begins, .. } => Some((operation, Milestone::of(operation, *begins))),
        What::TookOver { .. }
        | What::Joined { .. }
        | What::Paused { .. }
        | What::Resumed { .. }
        | What::Waiting { .. }
        | What::Alerted { .. }
        | What::Refused { .. } => None,
    })
}

fn each_state_is_told_once(told: &[What]) {
    let mut seen = BTreeSet::new();
    for (operation, _) in moves(told) {
        let key = (operation.id().clone(), operation.state_name(), reason(operation));
        assert!(seen.insert(key.clone()), "{key:?} is told twice");
        let named = Operation::UNDER_WAY.contains(&(operation.kind_name(), operation.state_name()));
        assert_eq!(named, !operation.is_over(), "{key:?} is under way or over");
    }
}

#[test]
fn a_quiet_life_is_told_whole_and_in_order() {
    let told = told(exercise(11));
    each_state_is_told_once(&told);
    let mut stories: BTreeMap<OperationId, Vec<Milestone>> = BTreeMap::new();
    for (operation, milestone) in moves(&told).filter(|(_, milestone)| *milestone != Milestone::Step) {
        stories.entry(operation.id().clone()).or_default().push(milestone);
    }
    assert!(stories.len() > 10, "{}", stories.len());
    let whole = |story: &[Milestone]| {
        matches!(
            story,
            [Milestone::LaunchFailed]
                | [Milestone::Launched, Milestone::Arrived | Milestone::LaunchFailed]
                | [Milestone::Leaves | Milestone::Interrupted, Milestone::Left | Milestone::RolledBack]
                | [Milestone::Leaves, Milestone::Interrupted, Milestone::Left]
        )
    };
    // What began right before the end has no end yet.
    let cut = stories.values().filter(|story| !whole(story)).collect::<Vec<_>>();
    assert!(cut.len() <= 2, "{cut:?}");
}

#[test]
fn a_takeover_tells_nothing_twice_and_names_what_it_carries_on_with() {
    let mut takeovers = 0;
    let mut carried = 0;
    for seed in 0..4 {
        let mut scenario = exercise(seed);
        scenario.faults = [Fault::CrashAfterLaunch, Fault::CrashInDrain].map(|fault| Planned { fault, at: AT, lasts: LASTS }).into();
        let told = told(scenario);
        each_state_is_told_once(&told);
        for what in &told {
            if let What::TookOver { under_way, lately, .. } = what {
                takeovers += 1;
                carried += under_way.len() + lately.len();
            }
        }
    }
    assert!(takeovers > 4 && carried > 0, "{takeovers} takeovers carried on with {carried} operations");
}

fn with(mut scenario: Scenario, faults: &[Fault]) -> Scenario {
    scenario.faults = faults.iter().map(|&fault| Planned { fault, at: AT, lasts: LASTS }).collect();
    scenario
}

/// Names the operations that have come to a milestone.
fn come_to(told: &[What], wanted: Milestone) -> Vec<&OperationId> {
    moves(told).filter(|(_, milestone)| *milestone == wanted).map(|(operation, _)| operation.id()).collect()
}

#[test]
fn an_interruption_is_told_and_counted_once_however_often_it_is_announced() {
    let (mut announced, mut interrupted) = (0, 0);
    for seed in 0..4 {
        let scenario = Scenario { reclaims_per_hour: 4.0, ..exercise(seed) };
        let (told, counted) = told_and_counted(with(
            scenario,
            &[Fault::DuplicateMessage, Fault::ForgedMessage, Fault::PatchConflict, Fault::StuckTerminating],
        ));
        let counts = |is: fn(&Measurement) -> bool| counted.iter().filter(|it| is(it)).count();
        let ids = come_to(&told, Milestone::Interrupted);
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "one is told twice: {ids:?}");
        assert_eq!(counts(|it| matches!(it, Measurement::Interrupted { .. })), ids.len());
        interrupted += ids.len();
        announced += counts(|it| matches!(it, Measurement::NoticeReceived { kind: "spot_interruption" }));
    }
    assert!(interrupted > 0 && announced > interrupted, "{announced} announced, {interrupted} interrupted");
}

#[test]
fn a_drain_that_is_rolled_back_is_counted_among_the_failures() {
    let (told, counted) = told_and_counted(with(exercise(11), &[Fault::StuckTerminating]));
    let failed = Measurement::OperationFailed { kind: "retire", failure: "rolled_back" };
    let (failures, ids) = (counted.iter().filter(|it| **it == failed).count(), come_to(&told, Milestone::RolledBack));
    assert!(failures > 0 && failures == ids.len(), "{failures} failures: {ids:?}");
}

#[test]
fn an_alert_is_told_once_and_not_with_each_turn() {
    let mut scenario = exercise(11);
    scenario.faults = vec![Planned { fault: Fault::VcpuQuota, at: AT, lasts: LASTS }];
    let mut alerts = BTreeMap::new();
    for what in told(scenario) {
        if let What::Alerted { alert } = what {
            *alerts.entry((alert.name, alert.subject)).or_insert(0) += 1;
        }
    }
    assert!(!alerts.is_empty() && alerts.values().all(|times| *times == 1), "{alerts:?}");
}

/// Alarms call a join slow from five minutes on. They have something to see only if it is not given back by then.
#[test]
fn nodes_that_take_six_minutes_join_by_the_shipped_configuration_and_are_told_of() {
    let shipped = include_str!("../../../../config/node-fleet.toml");
    let limit = shipped.lines().find_map(|line| line.strip_prefix("join_timeout = \"")?.strip_suffix('"')).expect("it is set");
    let limit: Duration = limit.parse::<jiff::SignedDuration>().ok().and_then(|limit| limit.try_into().ok()).expect("a span");
    let mut scenario = exercise(11);
    scenario.hours = 3.0;
    scenario.peace_from = None;
    scenario.boot = (Duration::from_secs(350), Duration::from_secs(370));
    (scenario.settings.policy.join_timeout, scenario.settings.operations.join_timeout) = (limit, limit);
    let (told, counted) = told_and_counted(scenario);
    let joined = told.iter().filter_map(|what| if let What::Joined { took, .. } = what { Some(*took) } else { None });
    let measured = counted.iter().filter_map(|it| if let Measurement::Joined { took } = it { Some(*took) } else { None });
    for took in [joined.collect::<Vec<_>>(), measured.collect()] {
        assert!(took.len() > 2 && took.iter().all(|took| *took > Duration::from_mins(5)), "{took:?}");
    }
    assert!(moves(&told).all(|(_, milestone)| milestone != Milestone::LaunchFailed), "none is given back");
}
