//! What the oracle looks at beyond the planted bugs: each look can tell something.

use super::interventions::journal_removal;
use crate::sim::front::{Scenario, Stage};
use crate::sim::oracle::Sent;
use std::time::Duration;

async fn at_rest() -> Stage {
    let world = Stage::begin(Scenario::quiet(1, 1000.0, 2));
    tokio::time::sleep(Duration::from_mins(10)).await;
    world.with(crate::sim::universe::Truth::settles);
    world
}

fn only(world: &Stage) -> String {
    let violations = world.violations();
    assert_eq!(violations.len(), 1, "{violations:?}");
    violations.into_iter().next().expect("it is one")
}

#[tokio::test(start_paused = true)]
async fn a_fleet_at_rest_buys_nothing() {
    let world = at_rest().await;
    world.load(5.4);
    tokio::time::sleep(Duration::from_mins(5)).await;
    let first = world.violations().into_iter().next().expect("a violation");
    assert!(first.starts_with("I10") && first.contains("the fleet buys"), "{first}");
}

#[tokio::test(start_paused = true)]
async fn a_node_at_rest_is_not_cordoned_again_and_again() {
    let world = at_rest().await;
    let name = world.with(|truth| truth.kubernetes.nodes().keys().find(|name| name.as_str().starts_with("worker")).cloned());
    let name = name.expect("a worker");
    world.with(|truth| (0..3).for_each(|_| truth.check_cordon(&name)));
    assert_eq!(world.violations(), [""; 0]);
    world.with(|truth| truth.check_cordon(&name));
    assert!(only(&world).contains("is cordoned more than"));
}

#[tokio::test(start_paused = true)]
async fn a_removal_for_economy_is_judged_as_one_also_where_the_node_is_not_ready() {
    let world = at_rest().await;
    world.with(|truth| {
        let node = truth.kubernetes.nodes().values().find(|node| node.pool().is_some()).cloned().expect("a worker");
        let id = node.instance.clone().expect("its machine");
        let sent = Sent { ours: true, ready: false };
        truth.check_terminate(&id, sent);
        assert!(truth.oracle.violations().is_empty(), "nobody says that it is for economy");
        journal_removal(truth, &node);
        truth.check_terminate(&id, sent);
    });
    assert!(only(&world).contains("without a cordon"));
}
