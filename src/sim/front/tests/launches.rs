//! What becomes of launches that do not go as they should.

use super::interventions::{MINUTE, pass};
use crate::model::scheduling::{Constraints, Operator, Requirement, Selector};
use crate::model::{LaunchState, Operation};
use crate::sim::client::Mishap;
use crate::sim::front::{Scenario, Stage};
use crate::sim::universe::Truth;
use crate::sim::{Fault, Planned};
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;

#[tokio::test(start_paused = true)]
async fn a_launch_that_could_not_be_journalled_in_time_is_never_sent() {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    pass(MINUTE).await;
    // Heartbeats pass, and transactions do not.
    world.with(|truth| truth.clients[0].mishaps = vec![("record", Mishap::Throttled); 1000]);
    world.load(8.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    pass(MINUTE * 6).await;
    assert_eq!(world.with(|truth| truth.table.journal.len()), 0);
    world.with(|truth| truth.clients[0].mishaps.clear());
    world.until("room for all", MINUTE * 4, |truth| truth.kubernetes.waits() == 0).await;
    let begun_late = |truth: &mut Truth| {
        let launches = truth.table.journal.values().filter_map(|entry| match &entry.operation {
            Operation::Launch(launch) => Some((launch.updated.duration_since(launch.created), &launch.state)),
            Operation::Retire(_) => None,
        });
        launches.map(|(took, state)| (took > SignedDuration::from_mins(4), matches!(state, LaunchState::Failed { .. }))).collect::<Vec<_>>()
    };
    let launches = world.with(begun_late);
    assert!(launches.contains(&(true, true)) && launches.contains(&(false, false)), "{launches:?}");
    assert!(launches.iter().all(|(late, failed)| late == failed), "{launches:?}: {}", world.log());
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn pods_that_select_their_node_by_what_the_kubelet_wrote_of_old_get_one_bought() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    let is = |key: &str, value: &str| Requirement { key: key.into(), operator: Operator::In([value.to_owned()].into()) };
    let node_selector = Selector(vec![is("beta.kubernetes.io/os", "linux"), is("beta.kubernetes.io/arch", "amd64")]);
    scenario.workloads[0].constraints = Arc::new(Constraints { node_selector, ..Constraints::default() });
    let world = Stage::begin(scenario);
    pass(MINUTE).await;
    world.load(8.0);
    world.until("a launch", MINUTE * 3, |truth| truth.log.lines().any(|line| line.contains(" buys "))).await;
    world.until("room for all", MINUTE * 4, |truth| truth.marks > 0 && truth.kubernetes.waits() == 0).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn pods_whose_machine_never_joined_get_another_one_at_once() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    // A notice of the machine's end would begin a turn too.
    scenario.faults = vec![Planned { fault: Fault::QueueOutage, at: MINUTE, lasts: Duration::from_hours(1) }];
    let world = Stage::begin(scenario);
    pass(MINUTE).await;
    world.never_join(1);
    world.load(6.0);
    let is_over = |operation: &Operation| match operation {
        Operation::Launch(launch) => matches!(&launch.state, LaunchState::Done { never_joined, .. } if !never_joined.is_empty()),
        Operation::Retire(_) => false,
    };
    let gave_up = |truth: &mut Truth| truth.table.journal.values().any(|entry| is_over(&entry.operation));
    world.until("a launch that is given up", MINUTE * 15, gave_up).await;
    let bought = world.count(" buys ");
    pass(Duration::from_secs(5)).await;
    assert!(world.count(" buys ") > bought, "{}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_turn_for_pods_waits_for_more_of_them() {
    let mut scenario = Scenario::quiet(1, 1000.0, 2);
    scenario.settings.operations.batch = Duration::from_secs(5);
    let world = Stage::begin(scenario);
    // Half-way between two ticks.
    pass(MINUTE * 2).await;
    world.load(6.0);
    world.until("pods that find no node", MINUTE * 2, |truth| truth.marks > 0).await;
    let bought = world.count(" buys ");
    pass(Duration::from_secs(4)).await;
    assert_eq!(world.count(" buys "), bought, "{}", world.log());
    pass(Duration::from_secs(3)).await;
    assert!(world.count(" buys ") > bought, "{}", world.log());
}
