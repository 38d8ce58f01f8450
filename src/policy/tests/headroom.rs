//! Room that is kept free.

use super::*;
use crate::model::plan::Hold;
use crate::policy::Headroom;
use crate::policy::schedule::Schedule;

fn headroom(pods: u32, milli_cpu: u64) -> Headroom {
    let each = Resources { cpu: MilliCpu(milli_cpu), memory: Bytes(GIB / 4), pods: 1, ..Resources::default() };
    Headroom { pods, each, schedule: None }
}

/// Two nodes with 900m free on each, in a pool that keeps room.
fn with_headroom(wanted: Vec<Headroom>) -> Scene {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1000, "n0"), running("b", 1000, "n1")]);
    scene.settings.pools[0].headroom = wanted;
    scene
}

#[test]
fn room_that_is_there_buys_nothing_and_room_that_is_not_is_bought_once() {
    for (pods, bought) in [(0, 0), (2, 0), (3, 1), (4, 1), (6, 2)] {
        let mut scene = with_headroom(vec![headroom(pods, 900)]);
        scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
        let plan = scene.turn(start());
        assert_eq!(launched(&plan), bought, "{pods} pods of 900m where two have room");
        let finding = plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "headroom").expect("a finding");
        assert_eq!((finding.wants, &finding.hold), (i64::from(bought), &None));
        assert_eq!((plan.pending, plan.unplaceable_pods), (0, 0), "they are no pods that wait");
        for order in launches(&plan) {
            assert_eq!((order.reason.to_string().as_str(), order.pods.len()), ("the headroom is not there", 0));
        }
        let begun = launches(&plan).into_iter().enumerate().map(|(number, order)| begun(&format!("op-{number}"), order.clone()));
        scene.snapshot.operations = begun.map(|operation| (operation.id().clone(), operation)).collect();
        assert_eq!(launched(&scene.turn(start())), 0, "what boots is room as well");
    }
}

#[test]
fn pods_that_wait_come_first_and_the_room_that_they_take_is_bought_again() {
    let mut scene = with_headroom(vec![headroom(2, 900)]).pods([pending("w", 800)]);
    scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 1);
    assert_eq!(launches(&plan)[0].reason.to_string(), "the headroom is not there", "the pod itself has room");
}

#[test]
fn no_node_goes_whose_room_is_kept_free() {
    let gone = |pods: u32| {
        let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
        scene.settings.pools[0].headroom = vec![headroom(pods, 1900)];
        let plan = scene.turns(0, 10);
        (retirements(&plan).len(), held(&plan, "scale_down"))
    };
    assert_eq!(gone(2).0, 1);
    let (number, hold) = gone(3);
    assert_eq!(number, 0);
    assert!(matches!(hold, Some(Hold::NoCandidate { .. })), "{hold:?}");
    assert_eq!(gone(30).0, 0, "what there is of it stays");
}

#[test]
fn a_removal_whose_pods_may_take_the_room_is_none() {
    let pods = [running("a", 1000, "n0"), running("b", 1000, "n1"), running("c", 450, "n2"), running("d", 450, "n2")];
    let keep = |pod: Pod| Pod { do_not_disrupt: pod.requests.cpu.0 == 1000, ..pod };
    let mut scene = Scene::with_nodes(3).pods(pods.map(keep)).busy(0.1, 0.1);
    assert_eq!(retirements(&scene.clone().turns(0, 10)).len(), 1);
    // Both of 450m fit on one node, and the scheduler puts one on each.
    scene.settings.pools[0].headroom = vec![headroom(1, 900)];
    assert_eq!(retirements(&scene.turns(0, 10)).len(), 0);
}

#[test]
fn headroom_comes_after_every_pod_however_unimportant() {
    let mut scene = with_headroom(vec![headroom(2, 900)]).pods([pending("w", 500)]);
    scene.settings.expendable_below = 0;
    scene.settings.pools[0].max = 2;
    let plan = scene.turn(start());
    assert_eq!((held(&plan, "pending_pods"), held(&plan, "headroom")), (None, Some(Hold::AtMaximum { max: 2 })));
}

#[test]
fn headroom_that_no_type_holds_says_so_and_keeps_no_other_node() {
    let mut scene = Scene::with_nodes(4).busy(0.1, 0.1).occupied();
    scene.settings.pools[0].headroom = vec![headroom(1, 100_000)];
    let plan = scene.turns(0, 10);
    assert!(matches!(held(&plan, "headroom"), Some(Hold::NoOffer { why }) if why.contains("not enough cpu")), "{plan:?}");
    assert_eq!(retirements(&plan).len(), 1);
}

#[test]
fn it_is_kept_at_its_times_alone() {
    let schedule = Schedule::new("0 13 * * *", "0 14 * * *", "UTC").expect("a schedule");
    let mut scene = with_headroom(vec![Headroom { schedule: Some(schedule), ..headroom(3, 900) }]);
    assert_eq!(launched(&scene.turn(after(59))), 0);
    assert_eq!(launched(&scene.turn(after(60))), 1);
}

#[test]
fn what_cannot_be_kept_says_why_and_holds_nothing_else_up() {
    let mut full = with_headroom(vec![headroom(4, 900)]);
    full.settings.pools[0].max = 2;
    let plan = full.turn(start());
    assert_eq!(held(&plan, "headroom"), Some(Hold::AtMaximum { max: 2 }));
    assert_eq!(launched(&plan), 0);
    let mut paused = with_headroom(vec![headroom(4, 900)]);
    paused.snapshot.pause = Some(crate::model::snapshot::Pause { since: start(), by: "me".into(), reason: "x".into() });
    assert_eq!(launched(&paused.turn(start())), 0);
    let mut tainted = with_headroom(vec![headroom(3, 900)]);
    let taint =
        crate::model::scheduling::Taint { key: "k".into(), value: "v".into(), effect: crate::model::scheduling::TaintEffect::NoSchedule };
    tainted.view.nodes.values_mut().for_each(|node| node.taints = vec![taint.clone()]);
    tainted.offers.iter_mut().for_each(|offer| offer.taints = vec![taint.clone()]);
    assert_eq!(launched(&tainted.turn(start())), 1, "the room is for whoever tolerates the pool's taints");
}
