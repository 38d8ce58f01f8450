//! Pods that want room: who comes first, who buys, and what is said of the rest.

use super::*;
use crate::model::snapshot::Pause;

fn full() -> Scene {
    Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1")])
}

fn alert<'a>(plan: &'a Plan, name: &str) -> Option<&'a str> {
    plan.alerts.iter().find(|alert| alert.name == name).map(|alert| alert.text.as_str())
}

fn with_memory(pod: Pod, gib: u64) -> Pod {
    Pod { requests: Resources { memory: Bytes(gib * GIB), ..pod.requests }, ..pod }
}

#[test]
fn the_important_come_first_and_then_the_large() {
    type Wish = (u64, u64, i32);
    // CPU, memory and priority of the one that is served, and of the one that is not.
    let rows: [(&str, Wish, Wish); 4] = [
        ("more cpu", (1800, 1, 0), (1500, 1, 0)),
        ("more memory", (1000, 6, 0), (1000, 1, 0)),
        ("as large a share, and more cpu", (1000, 1, 0), (950, 6, 0)),
        ("a higher priority", (1500, 1, 1), (1800, 1, 0)),
    ];
    for (what, served, left) in rows {
        for (first, second) in [("x", "y"), ("y", "x")] {
            let make = |name: &str, (cpu, gib, priority): Wish| Pod { priority, ..with_memory(pending(name, cpu), gib) };
            let mut scene = full().pods([make(first, served), make(second, left)]);
            scene.settings.pools[0].max = 3;
            scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
            let plan = scene.turn(start());
            assert_eq!(launches(&plan)[0].pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), [first], "{what}");
            assert_eq!(held(&plan, "pending_pods"), Some(Hold::AtMaximum { max: 3 }), "{what}");
            assert_eq!(plan.pools[0].findings[0].evidence, "0 pods covered by nodes that exist or boot, 1 buy nodes, 1 held", "{what}");
        }
    }
}

#[test]
fn a_pod_buys_from_the_priority_on_below_which_pods_are_expendable() {
    for (priority, bought) in [(-11, 0), (-10, 1), (-9, 1)] {
        assert_eq!(launched(&full().pods([Pod { priority, ..pending("c", 1000) }]).turn(start())), bought, "{priority}");
    }
}

#[test]
fn the_scheduler_disagrees_when_a_pod_waits_for_over_a_minute_where_it_seems_to_fit() {
    let plan = |pods: usize, second: i64| Scene::with_nodes(2).pods((0..pods).map(|n| pending(&format!("p{n}"), 100))).turn(later(second));
    for (second, says) in [(0, false), (60, false), (61, true)] {
        let plan = plan(1, second);
        assert_eq!((alert(&plan, "scheduler_disagrees").is_some(), launched(&plan)), (says, 0), "after {second} s");
    }
    let text = "pod default/p0 is unschedulable although node n0 seems to have room; it buys no node, and neither do 2 others like it";
    assert_eq!(alert(&plan(3, 61), "scheduler_disagrees"), Some(text));
    let booting = |second: i64| full().pods([pending("c", 1000)]).under_way(begun("op", order(1))).turn(later(second));
    assert_eq!((alert(&booting(600), "scheduler_disagrees"), launched(&booting(600))), (None, 0), "its node is on its way");
}

#[test]
fn unplaceable_pods_are_all_counted_and_fifty_are_named() {
    for (pods, named) in [(49, 49), (50, 50), (51, 50)] {
        let plan = full().pods((0..pods).map(|n| pending(&format!("giant-{n:02}"), 64_000))).turn(start());
        assert_eq!((plan.unplaceable_pods as usize, plan.unplaceable.len()), (pods, named));
        assert_eq!((plan.pending as usize, launched(&plan)), (pods, 0));
    }
}

#[test]
fn pods_of_an_interrupted_node_buy_its_replacement() {
    type Change = fn(&mut Pod);
    let interruption = || RetireReason::SpotInterruption { deadline: after(2) };
    let reason = || "r".to_owned();
    let as_is: Change = |_| {};
    let rows = [
        ("it drains", interruption(), RetireState::Draining { since: start() }, as_is, 1),
        ("it is terminated and its pods are still there", interruption(), RetireState::Terminated, as_is, 1),
        ("it is over", interruption(), RetireState::Done, as_is, 0),
        ("it is back in service", interruption(), RetireState::RolledBack { reason: reason() }, as_is, 0),
        ("it goes for economy", underused(), RetireState::Draining { since: start() }, as_is, 0),
        ("it is above the maximum", RetireReason::AboveMaximum, RetireState::Draining { since: start() }, as_is, 0),
        ("its pod ends already", interruption(), RetireState::Journalled, |pod| pod.terminating_since = Some(start()), 0),
        ("its pod has ended", interruption(), RetireState::Journalled, |pod| pod.phase = PodPhase::Succeeded, 0),
        ("its pod belongs to it", interruption(), RetireState::Journalled, |pod| pod.owner = Owner::DaemonSet, 0),
        ("its pod is expendable", interruption(), RetireState::Journalled, |pod| pod.priority = -11, 0),
    ];
    for (what, reason, state, change, expected) in rows {
        let mut moves = running("b", 1800, "n1");
        change(&mut moves);
        let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), moves]).under_way(retire("n1", reason, state));
        scene.settings.pools[0].min = 0;
        let plan = scene.turn(start());
        let replaces = |order: &&&LaunchOrder| order.reason == LaunchReason::Replacement { node: "n1".into() };
        assert_eq!(launches(&plan).iter().filter(replaces).count(), expected, "{what}");
        assert_eq!((launched(&plan) as usize, plan.pending), (expected, 0), "{what}");
    }
}

#[test]
fn a_pod_of_an_interrupted_node_that_nothing_could_take_is_named_and_does_not_wait_yet() {
    let drains = |reason| retire("n1", reason, RetireState::Draining { since: start() });
    let interrupted = drains(RetireReason::SpotInterruption { deadline: after(2) });
    let plan = full().pods([running("huge", 64_000, "n1")]).under_way(interrupted).turn(start());
    assert_eq!((plan.unplaceable.len(), plan.unplaceable_pods, plan.pending), (1, 0, 0));
}

#[test]
fn while_paused_only_what_is_interrupted_is_replaced_and_only_where_that_is_wanted() {
    for (wanted, interrupted, expected) in [(true, true, 1), (false, true, 0), (true, false, 0)] {
        let mut scene = full().pods([pending("c", 1800)]);
        scene.settings.replace_interrupted_while_paused = wanted;
        scene.settings.pools[0].max = 3;
        scene.snapshot.pause = Some(Pause { since: start(), by: "ada".into(), reason: "maintenance".into() });
        if interrupted {
            let reason = RetireReason::SpotInterruption { deadline: after(2) };
            scene = scene.under_way(retire("n1", reason, RetireState::Draining { since: start() }));
        }
        let plan = scene.turn(start());
        assert_eq!((launched(&plan), plan.pending), (expected, 1), "{wanted} {interrupted}");
        assert!(launches(&plan).iter().all(|order| !order.reason_is_discretionary()));
    }
}

#[test]
fn a_promised_node_is_for_its_pods() {
    // The small pod was there first; a larger one has come since.
    let promised = LaunchOrder { pods: vec![pending("small", 1000).key], ..order(1) };
    let scene = full().pods([pending("small", 1000), pending("tall", 1800)]).under_way(begun("op", promised));
    let plan = scene.clone().turn(start());
    assert_eq!(launches(&plan)[0].pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["tall"]);
    assert_eq!(plan.pools[0].findings[0].evidence, "1 pods covered by nodes that exist or boot, 1 buy nodes, 0 held");
    let mut unpromised = full().pods([pending("small", 1000), pending("tall", 1800)]).under_way(begun("op", order(1)));
    assert_eq!(launches(&unpromised.turn(start()))[0].pods[0].name, "small", "else the largest comes first");
}

#[test]
fn a_pod_that_the_scheduler_refuses_keeps_no_node_for_longer_than_its_patience() {
    let turns = |pod: Pod, minutes: i64| Scene::with_nodes(4).busy(0.1, 0.1).occupied().pods([pod]).turns(0, minutes);
    let hold = |plan: &Plan| held(plan, "scale_down");
    let waiting = Some(Hold::PodsWaiting { pods: 1 });
    assert_eq!(hold(&turns(pending("p", 100), 10)), waiting);
    let late = turns(pending("p", 100), 12);
    assert_eq!((hold(&late), retirements(&late).len()), (None, 1));
    assert!(alert(&late, "scheduler_disagrees").is_some());
    let mut booting = Scene::with_nodes(4).busy(0.1, 0.1).pods([pending("p", 3_800)]).under_way(begun("op", order(1)));
    assert_eq!(hold(&booting.turns(0, 12)), Some(Hold::Underway { operation: "op".into() }), "its node is on its way");
}

#[test]
fn only_pods_that_may_buy_and_need_not_move_keep_every_node() {
    let idle = || Scene::with_nodes(4).busy(0.1, 0.1);
    let waiting = || Some(Hold::PodsWaiting { pods: 1 });
    let interrupted = |scene: Scene| {
        let reason = RetireReason::SpotInterruption { deadline: after(20) };
        scene.under_way(retire("n3", reason, RetireState::Draining { since: start() }))
    };
    let at_maximum = |mut scene: Scene| {
        scene.settings.pools[0].max = 4;
        scene
    };
    let resting = |mut scene: Scene| {
        rest_everywhere(&mut scene);
        scene
    };
    let underway = || Some(Hold::Underway { operation: "retire-n3".into() });
    let rows = [
        ("nobody waits", idle(), None),
        ("one that fits", idle().pods([pending("p", 100)]), waiting()),
        ("one that fits and is expendable", idle().pods([Pod { priority: -11, ..pending("p", 100) }]), None),
        ("one that is held", resting(idle().pods([pending("p", 3800)])), waiting()),
        ("one that is held by the maximum", at_maximum(idle().pods([pending("p", 3800)])), None),
        ("one that moves and fits", interrupted(idle().pods([running("p", 100, "n3")])), underway()),
        ("one that moves and is held", at_maximum(interrupted(idle().pods([running("p", 3800, "n3")]))), underway()),
    ];
    for (what, mut scene, expected) in rows {
        assert_eq!(held(&scene.turns(0, 10), "scale_down"), expected, "{what}");
    }
}

/// A pod for which the scheduler ends others on a node.
fn nominated(name: &str, milli_cpu: u64, to: &str) -> Pod {
    Pod { nominated_node: Some(to.into()), ..pending(name, milli_cpu) }
}

#[test]
fn the_room_that_preemption_makes_for_a_pod_is_nobody_elses() {
    let bought =
        |made: Option<Pod>| launched(&Scene::with_nodes(2).pods([running("a", 1800, "n0"), pending("q", 1000)]).pods(made).turn(start()));
    assert_eq!(bought(None), 0, "it has room on the other node");
    assert_eq!(bought(Some(nominated("p", 1500, "n1"))), 1, "which the scheduler keeps for another");
    assert_eq!(bought(Some(nominated("p", 500, "n1"))), 0, "there is enough for both");
    let ends = Pod { terminating_since: Some(start()), ..nominated("p", 1500, "n1") };
    assert_eq!(bought(Some(ends)), 0, "it ends before it has come");
}

#[test]
fn a_node_on_which_preemption_makes_room_for_a_pod_stays() {
    let goes = |made: Option<Pod>| {
        let victim = Pod { terminating_since: Some(start()), ..running("v", 1500, "n3") };
        let mut scene = Scene::with_nodes(4).busy(0.1, 0.1).pods([victim]).pods(made);
        for name in ["n0", "n1", "n2"] {
            scene = scene.with(name, |node| node.keep = Some("k".into()));
        }
        let plan = scene.turns(0, 10);
        (retirements(&plan).len(), held(&plan, "scale_down"))
    };
    assert_eq!(goes(None), (1, None));
    let (gone, hold) = goes(Some(nominated("p", 1500, "n3")));
    let Some(Hold::NoCandidate { why }) = hold else { panic!("{hold:?}") };
    assert!(gone == 0 && why.contains(&"n3: a pod that waits has room on it".to_owned()), "{why:?}");
    assert_eq!(goes(Some(nominated("p", 100, "n0"))).0, 1, "elsewhere");
    assert_eq!(goes(Some(Pod { priority: -100, ..nominated("p", 100, "n3") })).0, 1, "one that is expendable keeps none");
}
