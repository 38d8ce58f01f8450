//! One controller, from a pod that waits to a node that goes.

use super::*;
use crate::model::LaunchState;

#[tokio::test(start_paused = true)]
async fn a_pod_that_cannot_be_scheduled_gets_a_node_within_a_second() {
    let shared = shared(2);
    let daemon = Daemon::start(&shared, "one");
    seconds(5).await;
    pending_pod(&shared, "big", 1900);
    pending_pod(&shared, "bigger", 1950);
    pending_pod(&shared, "biggest", 1990);
    daemon.urge();
    seconds(1).await;
    assert_eq!(shared.truth().launched.len(), 1, "two pods fit the nodes that exist");
    seconds(60).await;
    let truth = shared.truth();
    assert_eq!(truth.view.nodes.len(), 3);
    let done = truth
        .journal
        .values()
        .all(|operation| matches!(operation, Operation::Launch(launch) if matches!(launch.state, LaunchState::Done { .. })));
    assert!(done, "{:?}", truth.journal);
}

#[tokio::test(start_paused = true)]
async fn an_idle_fleet_shrinks_to_the_minimum_one_node_at_a_time() {
    let shared = shared(4);
    let _daemon = Daemon::start(&shared, "one");
    seconds(13 * 60).await;
    assert_eq!(shared.truth().terminated.len(), 1);
    seconds(3600).await;
    let truth = shared.truth();
    assert_eq!((truth.terminated.len(), truth.view.nodes.len(), truth.instances.len()), (2, 2, 2));
    let zones: BTreeSet<_> = truth.view.nodes.values().filter_map(Node::zone).collect();
    assert_eq!(zones.len(), 2, "a node stays in each zone");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_lost_brings_one_instance_and_no_second() {
    let shared = shared(1);
    let daemon = Daemon::start(&shared, "one");
    daemon.world.answers_lost.store(true, Ordering::SeqCst);
    seconds(30).await;
    daemon.world.answers_lost.store(false, Ordering::SeqCst);
    seconds(120).await;
    let truth = shared.truth();
    assert_eq!(truth.launched.len(), 1);
    assert!(truth.requests.values().all(|times| *times > 1), "the request was repeated");
    assert_eq!(truth.instances.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn instances_that_never_join_are_given_back_and_their_offers_stop() {
    let shared = shared(1);
    shared.truth().never_joins = true;
    let _daemon = Daemon::start(&shared, "one");
    seconds(6 * 60).await;
    assert!(!shared.truth().terminated.is_empty());
    seconds(24 * 3600).await;
    let truth = shared.truth();
    assert_eq!(truth.instances.len(), 1, "nothing leaks");
    // On-demand in two zones and spot in two zones, three launches each.
    assert_eq!(truth.launched.len(), 12);
}

#[tokio::test(start_paused = true)]
async fn a_pause_finishes_what_is_in_flight_and_starts_nothing() {
    let shared = shared(1);
    let daemon = Daemon::start(&shared, "one");
    seconds(10).await;
    assert_eq!(shared.truth().launched.len(), 1);
    daemon.pause().await;
    pending_pod(&shared, "a", 1900);
    pending_pod(&shared, "b", 1900);
    pending_pod(&shared, "c", 1900);
    daemon.urge();
    seconds(600).await;
    {
        let truth = shared.truth();
        assert_eq!((truth.launched.len(), truth.view.nodes.len()), (1, 2));
    }
    assert!(daemon.is_paused());
    daemon.resume().await;
    seconds(120).await;
    assert_eq!(shared.truth().view.nodes.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_instance_whose_node_cannot_be_read_is_not_given_back() {
    let shared = shared(1);
    shared.truth().unreadable = true;
    let _daemon = Daemon::start(&shared, "one");
    seconds(20 * 60).await;
    let truth = shared.truth();
    assert_eq!((truth.launched.len(), truth.instances.len(), truth.terminated.len()), (1, 2, 0));
    assert_eq!(truth.view.refused_nodes.len(), 1, "it has joined");
}

#[tokio::test(start_paused = true)]
async fn however_many_pods_wait_a_blind_fleet_looks_again_every_few_seconds() {
    let shared = shared(2);
    let daemon = Daemon::start(&shared, "one");
    seconds(5).await;
    {
        let mut truth = shared.truth();
        (truth.blind, truth.views) = (true, 0);
    }
    for _ in 0..20 {
        daemon.urge();
        seconds(1).await;
    }
    seconds(100).await;
    let views = shared.truth().views;
    // One for each ring, one in five seconds, one for the tick.
    assert!((20 + 15..=20 + 120 / 5 + 2).contains(&views), "{views}");
    shared.truth().blind = false;
    for name in ["a", "b", "c"] {
        pending_pod(&shared, name, 1900);
    }
    seconds(6).await;
    assert_eq!(shared.truth().launched.len(), 1, "nobody rang again");
}

#[tokio::test(start_paused = true)]
async fn an_operators_word_outlives_what_the_ledger_said_before_it() {
    let shared = shared(1);
    let daemon = Daemon::start(&shared, "one");
    seconds(10).await;
    shared.truth().slow_pause = Duration::from_secs(5);
    pending_pod(&shared, "a", 1900);
    pending_pod(&shared, "b", 1900);
    pending_pod(&shared, "c", 1900);
    daemon.urge();
    seconds(2).await;
    daemon.pause().await;
    seconds(20).await;
    assert!(daemon.is_paused());
    assert_eq!(shared.truth().launched.len(), 1, "the turn that was under way started something");
    daemon.urge();
    seconds(2).await;
    daemon.resume().await;
    for _ in 0..20 {
        assert!(!daemon.is_paused());
        seconds(1).await;
    }
    assert_eq!(shared.truth().launched.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn foreign_instances_and_nodes_live_through_everything() {
    let shared = shared(4);
    {
        let mut truth = shared.truth();
        let mut foreign = node("foreign", "a");
        foreign.labels.remove(POOL_LABEL);
        foreign.readiness = Readiness::NotReady { since: foreign.created };
        let mut server = node("server", "a");
        server.control_plane = true;
        truth.view.nodes.insert("foreign".into(), foreign);
        truth.view.nodes.insert("server".into(), server);
    }
    let _daemon = Daemon::start(&shared, "one");
    seconds(4 * 3600).await;
    let truth = shared.truth();
    assert!(truth.view.nodes.contains_key("foreign") && truth.view.nodes.contains_key("server"));
    assert_eq!(truth.instances.len(), 2);
}
