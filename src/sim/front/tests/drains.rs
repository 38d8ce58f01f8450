//! How nodes are emptied, and that those which EC2 takes back go whatever happens to them.

use super::interventions::{MINUTE, idle, pass, with_a_spot_node};
use crate::model::{Bytes, MilliCpu, NodeName, Resources};
use crate::sim::client::Mishap;
use crate::sim::front::{Scenario, Stage};
use crate::sim::universe::Truth;
use crate::sim::workload::{Curve, Workload};
use std::time::Duration;

/// An idle fleet with pods of `web`, and more important ones of `db`.
fn of_two_priorities() -> Scenario {
    let mut scenario = idle();
    let small = Resources { cpu: MilliCpu(100), memory: Bytes(64 << 20), pods: 1, ..Resources::default() };
    scenario.workloads = ["web", "db"].map(|name| Workload::new(name, small.clone(), Curve::Constant(0.4), 0.04)).into();
    scenario.workloads[1].priority = 1000;
    scenario.workloads.iter_mut().for_each(|workload| workload.grace = Duration::from_secs(20));
    scenario
}

/// Counts the pods of one priority on a node, and those of them that are on their way out.
fn leaving(truth: &Truth, name: &NodeName, important: bool) -> (usize, usize) {
    let pods = truth.kubernetes.on(name).filter(|pod| !pod.stays_with_node() && (pod.priority > 0) == important);
    pods.fold((0, 0), |(all, ending), pod| (all + 1, ending + usize::from(pod.terminating_since.is_some())))
}

#[tokio::test(start_paused = true)]
async fn the_least_important_pods_leave_a_node_first() {
    let world = Stage::begin(of_two_priorities());
    let name = world.cordoned().await;
    let (web, db) = world.with(|truth| (leaving(truth, &name, false).0, leaving(truth, &name, true).0));
    assert!(web > 0 && db > 0, "{web} and {db} pods lie on {name}: {}", world.log());
    for _ in 0..120 {
        pass(Duration::from_millis(500)).await;
        let (web, db) = world.with(|truth| (leaving(truth, &name, false), leaving(truth, &name, true)));
        assert!(web.0 == 0 || db.1 == 0, "{web:?} {db:?}: {}", world.log());
    }
    world.until("an empty node", MINUTE * 2, |truth| !truth.kubernetes.nodes().contains_key(&name)).await;
    world.is_sound();
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_has_used_half_of_its_time_waits_for_no_order() {
    let mut scenario = of_two_priorities();
    scenario.workloads[0].grace = MINUTE * 10;
    let half = scenario.settings.operations.drain_timeout / 2;
    let margin = Duration::from_secs(10);
    let world = Stage::begin(scenario);
    let name = world.cordoned().await;
    let db = world.with(|truth| leaving(truth, &name, true).0);
    pass(half.saturating_sub(margin)).await;
    let (web_then, db_then) = world.with(|truth| (leaving(truth, &name, false), leaving(truth, &name, true)));
    assert!(web_then.1 > 0 && db > 0 && db_then == (db, 0), "{web_then:?} {db_then:?}: {}", world.log());
    pass(margin * 2).await;
    let (web_now, db_now) = world.with(|truth| (leaving(truth, &name, false), leaving(truth, &name, true)));
    assert!(web_now.1 > 0 && (db_now.0 < db || db_now.1 > 0), "{web_now:?} {db_now:?}: {}", world.log());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_node_goes_although_somebody_puts_it_back_into_service() {
    let world = with_a_spot_node().await;
    world.with(|truth| truth.workloads[0].grace = Duration::from_mins(1));
    world.interrupt().expect("a spot machine");
    let name = world.cordoned().await;
    world.with(|truth| truth.kubernetes.change_node(&name, |node| node.cordoned = false));
    pass(MINUTE * 2).await;
    assert_eq!((world.count(" terminates "), world.count("the market takes")), (1, 0), "{}", world.log());
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_instance_goes_although_another_node_takes_its_name() {
    let world = with_a_spot_node().await;
    world.with(|truth| truth.workloads[0].grace = MINUTE);
    world.interrupt().expect("a spot machine");
    let name = world.cordoned().await;
    world.with(|truth| truth.kubernetes.change_node(&name, |node| node.uid = "uid-of-another".into()));
    pass(MINUTE * 2).await;
    assert_eq!((world.count(" terminates "), world.count("the market takes")), (1, 0), "{}", world.log());
}

#[tokio::test(start_paused = true)]
async fn a_termination_that_is_refused_is_tried_until_the_drains_time_is_up() {
    for (refusals, ends) in [(3, true), (1000, false)] {
        let world = Stage::begin(idle());
        world.with(|truth| truth.clients[0].mishaps = vec![("TerminateInstances", Mishap::Denied); refusals]);
        world.cordoned().await;
        pass(MINUTE * 7).await;
        let found = (world.count(" terminates ") > 0, world.count(" uncordons ") > 0);
        assert_eq!(found, (ends, !ends), "{refusals} refusals: {}", world.log());
    }
}
