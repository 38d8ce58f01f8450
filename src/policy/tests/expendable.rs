//! Placeholders: pods below `expendable_below` use a node as long as nobody else needs it, and keep none.

use super::leaving::gone;
use super::*;
use crate::policy::{Headroom, Replacement};

/// A pod that nobody misses.
fn placeholder(name: &str, milli_cpu: u64, on: &str) -> Pod {
    Pod { priority: -100, ..running(name, milli_cpu, on) }
}

/// So many idle nodes, with a placeholder on each that fits on no other.
fn held_up(nodes: usize) -> Scene {
    let names = (0..nodes).map(|n| format!("n{n}"));
    let pods: Vec<Pod> = names.map(|name| placeholder(&format!("on-{name}"), 1500, &name)).collect();
    Scene::with_nodes(nodes).busy(0.05, 0.05).pods(pods)
}

fn keep(scene: Scene, names: &[&str]) -> Scene {
    names.iter().fold(scene, |scene, name| scene.with(name, |node| node.keep = Some("k".into())))
}

#[test]
fn a_node_with_nothing_but_placeholders_is_empty_and_goes_at_once() {
    let plan = held_up(6).turn(start());
    assert_eq!(gone(&plan).len(), 4, "all but the minimum: {:?}", held(&plan, "scale_down"));
    let missed = held_up(6).pods((0..6).map(|n| running(&format!("p{n}"), 400, &format!("n{n}")))).turn(start());
    assert_eq!(gone(&missed).len(), 0, "pods above the cutoff are not moved at once");
}

#[test]
fn a_pool_above_its_maximum_goes_down_to_it_whatever_placeholders_lie_there() {
    let mut scene = held_up(6);
    scene.settings.scale_down.share_at_once = 1.0;
    scene.settings.pools[0].max = 3;
    let plan = scene.turn(start());
    assert_eq!(gone(&plan).len(), 3, "{:?}", held(&plan, "scale_down"));
    assert!(retirements(&plan).iter().all(|order| order.reason == RetireReason::AboveMaximum));
}

#[test]
fn a_pod_that_moves_takes_a_placeholders_room_if_the_scheduler_would_preempt_for_it() {
    let moves = |change: fn(&mut Pod)| {
        let mut pod = running("p", 1000, "n2");
        change(&mut pod);
        let mut scene = keep(held_up(2), &["n0", "n1"]);
        scene.view.nodes.insert("n2".into(), node("n2", "a"));
        scene.instances.push(instance("n2", "a", Market::Spot));
        let plan = scene.pods([pod]).busy(0.05, 0.05).turns(0, 10);
        gone(&plan).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(moves(|_| {}), ["n2"]);
    assert_eq!(moves(|pod| pod.priority = -10), ["n2"], "at the cutoff");
    assert_eq!(moves(|pod| pod.priority = -11), ["n2"], "below it, it needs no room");
    assert_eq!(moves(|pod| pod.never_preempts = true), Vec::<String>::new());
    assert_eq!(moves(|pod| (pod.never_preempts, pod.requests.cpu) = (true, MilliCpu(400))), ["n2"], "there is room beside them");
    assert_eq!(moves(|pod| pod.requests.cpu = MilliCpu(1901)), Vec::<String>::new(), "no node holds it");
}

#[test]
fn the_room_of_a_daemon_is_taken_by_nobody_whatever_its_priority() {
    let daemon = |owner| Pod { owner, ..placeholder("d", 1500, "n0") };
    let goes = |owner| {
        let mut scene = keep(Scene::with_nodes(2), &["n0"]).pods([daemon(owner), running("p", 1000, "n1")]).busy(0.05, 0.05);
        scene.settings.pools[0].min = 1;
        gone(&scene.turns(0, 10)).len()
    };
    assert_eq!((goes(Owner::Controller), goes(Owner::DaemonSet), goes(Owner::Node)), (1, 0, 0));
}

#[test]
fn headroom_does_not_count_on_the_room_of_placeholders() {
    let gone = |free: usize| {
        // The last nodes have no placeholder.
        let mut scene = keep(Scene::with_nodes(2 + free), &["n0", "n1"]).busy(0.05, 0.05);
        scene = scene.pods([placeholder("a", 1500, "n0"), placeholder("b", 1500, "n1")]);
        let each = Resources { cpu: MilliCpu(1000), memory: Bytes(GIB), pods: 1, ..Resources::default() };
        scene.settings.pools[0].headroom = vec![Headroom { pods: 1, each, schedule: None }];
        let plan = scene.turn(start());
        assert_eq!(launched(&plan), 0);
        gone(&plan).len()
    };
    assert_eq!((gone(1), gone(2)), (0, 1), "else it would be bought again");
}

#[test]
fn a_placeholder_that_waits_and_has_room_on_a_node_does_not_keep_it() {
    let waits = |priority| {
        let scene = keep(Scene::with_nodes(3), &["n0", "n1"]).pods([running("a", 1500, "n0"), running("b", 1500, "n1")]);
        gone(&scene.pods([Pod { priority, ..pending("w", 1500) }]).busy(0.05, 0.05).turn(start())).len()
    };
    assert_eq!((waits(-100), waits(0)), (1, 0));
}

#[test]
fn an_old_node_is_replaced_though_its_placeholder_finds_no_other() {
    let mut scene = keep(held_up(3), &["n1", "n2"]).busy(0.55, 0.5);
    scene.settings.pools[0].min = 0;
    scene.settings.pools[0].max_node_age = Some(Duration::from_hours(1));
    scene.settings.replacement = Some(Replacement {
        saving_lasts: Duration::from_hours(12),
        least_saving: 0.15,
        price_of_a_move: 0.002,
        balances_zones: false,
        drifted: false,
        recommended: false,
    });
    scene.settings.scale_down.cpu_below = 0.0;
    let mut moving = scene.clone().pods([running("p", 300, "n0")]);
    for (what, scene) in [("alone", &mut scene), ("beside a pod that moves", &mut moving)] {
        let plan = scene.turn(start());
        let successors = launches(&plan).into_iter().filter(|order| matches!(order.reason, LaunchReason::Successor { .. }));
        assert_eq!(successors.count() + gone(&plan).len(), 1, "{what}: {:?}", held(&plan, "replacement"));
    }
}

#[test]
fn all_pods_of_a_workload_that_nobody_misses_may_be_away_at_once() {
    let labels = Arc::new(Labels::from([("app".into(), "x".into())]));
    let away = |priority| {
        let pods = (1..4).map(|n| Pod { priority, labels: Arc::clone(&labels), ..running(&format!("p{n}"), 100, &format!("n{n}")) });
        let mut scene = Scene::with_nodes(4).busy(0.05, 0.05).pods(pods.collect::<Vec<_>>());
        scene.settings.pools[0].min = 1;
        scene.settings.scale_down.share_at_once = 1.0;
        gone(&scene.turns(0, 10)).len()
    };
    assert_eq!((away(-100), away(0)), (3, 2));
}
