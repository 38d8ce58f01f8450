//! What nobody accounts for, and how it is got rid of.

use super::*;

fn leaked(nodes: usize, lost: usize) -> Scene {
    let mut scene = Scene::with_nodes(nodes);
    scene.settings.pools[0].max = 100;
    scene.instances.extend((0..lost).map(|n| instance(&format!("lost-{n:02}"), "a", Market::Spot)));
    scene
}

fn not_ready(since: Timestamp) -> impl Fn(&mut Node) {
    move |node| node.readiness = Readiness::NotReady { since }
}

#[test]
fn a_stray_is_left_alone_for_exactly_its_grace() {
    let mut scene = leaked(2, 1);
    assert_eq!(retirements(&scene.turn(start())).len(), 0);
    assert_eq!(scene.memory.strays, [("instance i-lost-00".to_owned(), start())].into());
    assert_eq!(retirements(&scene.turn(later(599))).len(), 0);
    assert_eq!(retirements(&scene.turn(later(600))).len(), 1);
}

#[test]
fn a_stray_that_was_accounted_for_in_between_has_its_grace_anew() {
    let mut scene = leaked(2, 1);
    scene.turn(start());
    let lost = scene.instances.pop().expect("the stray");
    scene.turn(after(2));
    assert_eq!(scene.memory.strays, BTreeMap::new());
    scene.instances.push(lost);
    assert_eq!(retirements(&scene.turns(4, 13)).len(), 0);
    assert_eq!(retirements(&scene.turn(after(14))).len(), 1);
}

#[test]
fn a_fifth_of_the_fleet_goes_at_once_at_least_one_and_at_most_five() {
    let rows = [(0, 1, 1), (0, 3, 1), (2, 3, 1), (2, 4, 2), (4, 6, 2), (4, 7, 3), (10, 10, 4), (15, 10, 5), (16, 10, 5), (2, 40, 5)];
    for (nodes, lost, expected) in rows {
        let mut scene = leaked(nodes, lost);
        scene.turn(start());
        let plan = scene.turn(after(10));
        let strays = retirements(&plan).iter().filter(|order| order.reason == RetireReason::Leaked).count();
        assert_eq!(strays, expected, "{lost} of {}", nodes + lost);
    }
}

#[test]
fn strays_that_go_already_take_their_share_of_those_that_may() {
    let rows = [
        ("leaked", RetireReason::Leaked, RetireState::Journalled, 0),
        ("gone", RetireReason::InstanceGone, RetireState::Journalled, 0),
        ("unhealthy", RetireReason::Unhealthy { since: start() }, RetireState::Journalled, 0),
        ("given back", underused(), RetireState::Journalled, 1),
        ("never joined", RetireReason::NeverJoined, RetireState::Journalled, 1),
        ("interrupted", RetireReason::SpotInterruption { deadline: start() }, RetireState::Journalled, 1),
        ("over", RetireReason::Leaked, RetireState::Done, 1),
        ("rolled back", RetireReason::Leaked, RetireState::RolledBack { reason: "r".into() }, 1),
    ];
    for (what, reason, state, expected) in rows {
        let mut scene = leaked(3, 1).under_way(retire("n9", reason, state));
        scene.turn(start());
        let plan = scene.turn(after(10));
        assert_eq!(retirements(&plan).iter().filter(|order| order.reason == RetireReason::Leaked).count(), expected, "{what}");
    }
}

#[test]
fn an_instance_is_leaked_only_if_nobody_waits_for_it() {
    let of_launch = |scene: &mut Scene| scene.instances[2].operation = Some("op".into());
    let rows = [
        ("lost", leaked(2, 1), true),
        ("launched", leaked(2, 1).under_way(begun("op", order(1))), false),
        ("of another launch", leaked(2, 1).under_way(begun("other", order(1))), true),
        ("leaving", leaked(2, 1).under_way(retire("lost-00", underused(), RetireState::Journalled)), false),
        ("a node", leaked(3, 0), false),
    ];
    for (what, mut scene, stray) in rows {
        of_launch(&mut scene);
        scene.turn(start());
        assert_eq!(scene.memory.strays.len(), usize::from(stray), "{what}");
    }
}

#[test]
fn a_node_is_unhealthy_when_it_has_not_been_ready_for_long_enough() {
    let keep = |node: &mut Node| node.keep = Some("node-fleet.io/do-not-remove".into());
    let rows = [
        ("for too short a time", later(-899), false, false),
        ("for just long enough", later(-900), false, true),
        ("for long", later(-9000), false, true),
        ("for long, and it is kept", later(-9000), true, false),
    ];
    for (what, since, kept, stray) in rows {
        let mut scene = Scene::with_nodes(4).with("n3", not_ready(since));
        if kept {
            scene = scene.with("n3", keep);
        }
        scene.turn(start());
        let expected = if stray { BTreeMap::from([("node n3 uid-n3".to_owned(), start())]) } else { BTreeMap::new() };
        assert_eq!(scene.memory.strays, expected, "{what}");
    }
    let server = |node: &mut Node| node.control_plane = true;
    let mut scene = Scene::with_nodes(4).with("n3", not_ready(later(-9000))).with("n3", server);
    scene.turn(start());
    assert_eq!(scene.memory.strays, BTreeMap::new(), "a server");
}

#[test]
fn more_unready_nodes_than_their_share_rounded_up_are_a_sick_network() {
    for (nodes, unready, strays) in [(1, 1, 1), (2, 2, 0), (5, 1, 1), (5, 2, 0), (6, 2, 2), (6, 3, 0), (10, 2, 2), (10, 3, 0)] {
        let mut scene = Scene::with_nodes(nodes);
        for n in 0..unready {
            scene = scene.with(&format!("n{n}"), not_ready(after(-60)));
        }
        scene.turn(start());
        assert_eq!(scene.memory.strays.len(), strays, "{unready} of {nodes}");
    }
    let none = |share| {
        let mut scene = Scene::with_nodes(4).with("n3", not_ready(after(-60)));
        scene.settings.max_unready_share = share;
        scene.turn(start());
        scene.memory.strays.len()
    };
    assert_eq!((none(0.0), none(1.0)), (1, 1), "one is always borne");
}

#[test]
fn a_node_whose_launch_or_removal_is_under_way_is_not_unhealthy() {
    let leaving = Scene::with_nodes(4).with("n3", not_ready(after(-60))).under_way(retire("n3", underused(), RetireState::Journalled));
    let mut booting = Scene::with_nodes(4).with("n3", not_ready(after(-60))).under_way(begun("op", order(1)));
    booting.instances[3].operation = Some("op".into());
    for (what, mut scene) in [("leaving", leaving), ("booting", booting)] {
        scene.turn(start());
        assert_eq!(scene.memory.strays, BTreeMap::new(), "{what}");
    }
}

#[test]
fn a_silent_node_of_ours_without_an_instance_is_a_stray() {
    let lost = || {
        let mut scene = Scene::with_nodes(4).with("n3", not_ready(start()));
        scene.instances.pop();
        scene
    };
    let mut listed = lost();
    listed.instances.push(instance("n3", "b", Market::Spot));
    let mut ending = lost();
    ending.instances.push(Instance { state: InstanceState::Ending, ..instance("n3", "b", Market::Spot) });
    let mut foreign = lost();
    foreign = foreign.with("n3", |node| node.labels.extend([(POOL_LABEL.to_owned(), "other".to_owned())]));
    let rows = [
        ("without an instance", lost(), true),
        ("whose instance is listed", listed, false),
        ("whose instance ends", ending, true),
        ("of another pool", foreign, false),
        ("that is a server", lost().with("n3", |node| node.control_plane = true), false),
        ("that is ready", lost().with("n3", |node| node.readiness = Readiness::Ready { since: start() }), false),
        ("that is removed already", lost().under_way(retire("n3", underused(), RetireState::Terminated)), false),
        ("whose removal is over", lost().under_way(retire("n3", underused(), RetireState::Done)), true),
        ("whose removal was another's", lost().under_way(retire("n2", underused(), RetireState::Terminated)), true),
    ];
    for (what, mut scene, stray) in rows {
        scene.turn(start());
        assert_eq!(scene.memory.strays.contains_key("node n3 uid-n3"), stray, "{what}");
    }
}
