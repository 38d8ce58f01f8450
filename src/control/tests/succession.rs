//! Two controllers: one acts, and when it is gone or cut off the other goes on.

use super::*;
use crate::model::ids::Epoch;
use crate::model::operation::RetireState;
use crate::model::plan::{OnDrainTimeout, RetireReason};
use crate::model::{Retire, RetireOrder};

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_other_waits() {
    let shared = shared(2);
    let (one, two) = (Daemon::start(&shared, "one"), Daemon::start(&shared, "two"));
    seconds(600).await;
    assert!(one.leads() != two.leads());
    assert_eq!(shared.truth().epoch, 1);
}

#[tokio::test(start_paused = true)]
async fn a_standby_takes_over_within_thirty_seconds_of_a_kill_at_any_moment_of_a_launch() {
    for moment in [0, 50, 150, 350, 500, 1000, 20_000, 39_900, 41_000] {
        let shared = shared(1);
        let one = Daemon::start(&shared, "one");
        seconds(1).await;
        let two = Daemon::start(&shared, "two");
        tokio::time::sleep(Duration::from_millis(moment)).await;
        assert!(one.leads() && !two.leads());
        one.kill();
        seconds(30).await;
        assert!(two.leads(), "killed after {moment} ms");
        seconds(120).await;
        let truth = shared.truth();
        assert_eq!((truth.instances.len(), truth.view.nodes.len()), (2, 2), "killed after {moment} ms");
        assert_eq!(truth.launched.len(), 1, "killed after {moment} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_moment_of_a_retirement_leaves_nothing_behind() {
    for moment in (0..3000).step_by(250) {
        let shared = shared(3);
        let one = Daemon::start(&shared, "one");
        let retiring = async {
            while shared.truth().journal.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_mins(20), retiring).await.expect("a node goes");
        tokio::time::sleep(Duration::from_millis(moment)).await;
        one.kill();
        let two = Daemon::start(&shared, "two");
        seconds(120).await;
        assert!(two.leads());
        let truth = shared.truth();
        assert_eq!((truth.instances.len(), truth.view.nodes.len()), (2, 2), "killed after {moment} ms");
        assert!(truth.view.nodes.values().all(|node| !node.cordoned), "killed after {moment} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_the_other_begins() {
    let shared = shared(2);
    let one = Daemon::start(&shared, "one");
    seconds(5).await;
    let two = Daemon::start(&shared, "two");
    seconds(5).await;
    assert!(one.leads());
    one.world.ledger_up.store(false, Ordering::SeqCst);
    seconds(11).await;
    pending_pod(&shared, "a", 1900);
    pending_pod(&shared, "b", 1900);
    pending_pod(&shared, "c", 1900);
    one.urge();
    seconds(8).await;
    assert!(shared.truth().launched.is_empty(), "half the lease is over for the one, the whole is not for the other");
    seconds(10).await;
    assert!(two.leads());
    one.world.ledger_up.store(true, Ordering::SeqCst);
    seconds(120).await;
    assert!(!one.leads());
    assert_eq!(shared.truth().launched.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_ends_orderly_gives_the_lease_back() {
    let shared = shared(2);
    let one = Daemon::start(&shared, "one");
    seconds(5).await;
    let two = Daemon::start(&shared, "two");
    seconds(5).await;
    one.stop.send_replace(true);
    seconds(2).await;
    assert!(two.leads());
    assert_eq!(shared.truth().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn the_pause_survives_a_failover() {
    let shared = shared(1);
    shared.truth().pause = Some(Pause { since: shared.now(), by: "ada".into(), reason: "maintenance".into() });
    let one = Daemon::start(&shared, "one");
    seconds(5).await;
    one.kill();
    let two = Daemon::start(&shared, "two");
    seconds(300).await;
    assert!(two.leads() && two.handle.status.borrow().pause.is_some());
    assert!(shared.truth().launched.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_cordoned_and_may_stay_after_all_is_back_in_service_under_the_successor() {
    let shared = shared(3);
    let order = RetireOrder {
        pool: "workers".into(),
        instance: Some("i-s2".into()),
        node: Some(NodeRef { name: "s2".into(), uid: node("s2", "a").uid }),
        zone: "a".into(),
        market: Market::OnDemand,
        reason: RetireReason::Underused { evidence: String::new() },
        on_timeout: OnDrainTimeout::RollBack,
    };
    let now = shared.now();
    let retire = Retire { id: "r-1".into(), epoch: Epoch(0), created: now, updated: now, order, state: RetireState::Journalled };
    {
        // Its predecessor ended between the cordon and the journal, and then a person annotated the node.
        let mut truth = shared.truth();
        truth.journal.insert("r-1".into(), Operation::Retire(retire));
        let node = truth.view.nodes.get_mut("s2").expect("the node is there");
        (node.cordoned, node.cordoned_by, node.keep) = (true, Some("r-1".to_owned()), Some("node-fleet.io/do-not-remove".to_owned()));
    }
    let _daemon = Daemon::start(&shared, "two");
    seconds(30).await;
    let truth = shared.truth();
    assert!(!truth.view.nodes["s2"].cordoned, "{:?}", truth.journal);
    assert!(truth.terminated.is_empty());
}
