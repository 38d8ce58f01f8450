//! Who is a member of a pool, and what it is good for.

use super::*;
use crate::model::operation::{LaunchFailure, LaunchedInstance};
use crate::model::scheduling::{Taint, TaintEffect};
use crate::policy::fleet::{Fleet, Member, cost, prices};

fn brought(ids: &[&str]) -> Vec<LaunchedInstance> {
    ids.iter().map(|id| LaunchedInstance { id: (*id).into(), instance_type: "m5.large".into(), node: None }).collect()
}

fn joining(ids: &[&str]) -> LaunchState {
    LaunchState::Joining { instances: brought(ids), since: start() }
}

/// An instance that the launch `op` has brought.
fn of_launch(name: &str) -> Instance {
    Instance { operation: Some("op".into()), ..instance(name, "a", Market::Spot) }
}

fn looked_at<T>(scene: &Scene, now: Timestamp, look: impl Fn(&Member<'_>) -> T) -> Vec<T> {
    let snapshot = scene.observed(now);
    let fleet = Fleet::new(&scene.settings, &snapshot);
    fleet.pool(&"workers".into()).iter().map(look).collect()
}

/// The ids of the pool's members; `?` where EC2 has not told.
fn members(scene: &Scene, now: Timestamp) -> Vec<String> {
    looked_at(scene, now, |member| member.id.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string))
}

#[test]
fn a_member_boots_or_serves_or_does_neither() {
    let (Operation::Launch(launch), Operation::Retire(retire)) = (begun("op", order(1)), retire("n", underused(), RetireState::Journalled))
    else {
        panic!("a launch and a retirement")
    };
    let ready = node("n", "a");
    let unready = Node { readiness: Readiness::NotReady { since: start() }, ..ready.clone() };
    let cordoned = Node { cordoned: true, ..ready.clone() };
    let plain = Member {
        id: None,
        instance: None,
        node: None,
        instance_type: "m5.large".into(),
        zone: "a".into(),
        market: Market::Spot,
        launch: None,
        leaving: None,
        late: false,
        starts: false,
    };
    let launched = Member { launch: Some(&launch), ..plain.clone() };
    let served = Member { node: Some(&ready), ..plain.clone() };
    let rows = [
        ("nobody waits for it", plain.clone(), false, false),
        ("it is launched", launched.clone(), true, false),
        ("its node is not ready yet", Member { node: Some(&unready), ..launched.clone() }, true, false),
        ("its node is ready before the others", Member { node: Some(&ready), ..launched.clone() }, false, true),
        ("it is late", Member { late: true, ..launched.clone() }, false, false),
        ("it is late and its node is not ready", Member { late: true, node: Some(&unready), ..launched.clone() }, false, false),
        ("it leaves before it has come", Member { leaving: Some(&retire), ..launched.clone() }, false, false),
        ("its node serves", served.clone(), false, true),
        ("its node has failed", Member { node: Some(&unready), ..plain.clone() }, false, false),
        ("its node is cordoned", Member { node: Some(&cordoned), ..plain.clone() }, false, false),
        ("its node starts", Member { starts: true, ..served.clone() }, true, false),
        ("its node leaves", Member { leaving: Some(&retire), ..served.clone() }, false, false),
        ("its node leaves while it starts", Member { leaving: Some(&retire), starts: true, ..served.clone() }, false, false),
    ];
    for (what, member, boots, serves) in rows {
        assert_eq!((member.boots(), member.serves()), (boots, serves), "{what}");
    }
}

#[test]
fn an_instance_of_ours_counts_until_it_ends() {
    let mut scene = Scene::with_nodes(2);
    scene.instances.push(Instance { pool: None, ..instance("foreign", "a", Market::Spot) });
    scene.instances.push(Instance { pool: Some("other".into()), ..instance("other", "a", Market::Spot) });
    scene.instances.push(Instance { state: InstanceState::Ending, ..instance("ending", "a", Market::Spot) });
    scene.instances.push(Instance { state: InstanceState::Stopped, ..instance("stopped", "a", Market::Spot) });
    assert_eq!(members(&scene, start()), ["i-n0", "i-n1", "i-stopped"]);
    let snapshot = scene.observed(start());
    let fleet = Fleet::new(&scene.settings, &snapshot);
    assert_eq!((fleet.total(&"workers".into()), fleet.total(&"other".into()), fleet.total(&"none".into())), (3, 1, 0));
    assert_eq!(fleet.members().count(), 4);
}

#[test]
fn a_retirement_makes_a_member_leave_and_then_be_gone() {
    let reason = || "r".to_owned();
    let rows = [
        (RetireState::Journalled, true, true),
        (RetireState::Draining { since: start() }, true, true),
        (RetireState::Drained { forced: 0 }, true, true),
        (RetireState::RollingBack { reason: reason() }, true, true),
        (RetireState::Terminated, false, false),
        (RetireState::Done, false, false),
        (RetireState::RolledBack { reason: reason() }, true, false),
    ];
    for (state, counts, leaves) in rows {
        let scene = Scene::with_nodes(2).under_way(retire("n1", underused(), state.clone()));
        let seen = looked_at(&scene, start(), |member| member.leaving.is_some());
        assert_eq!(seen, if counts { vec![false, leaves] } else { vec![false] }, "{state:?}");
        let snapshot = scene.observed(start());
        let staying = Fleet::new(&scene.settings, &snapshot).staying(&"workers".into());
        assert_eq!(staying, if counts && !leaves { 2 } else { 1 }, "{state:?}");
    }
}

#[test]
fn what_a_launch_brought_is_counted_once_whether_ec2_lists_it_or_not() {
    let gone = || retire("y", RetireReason::NeverJoined, RetireState::Terminated);
    let failed = LaunchState::Failed { failure: LaunchFailure::InsufficientCapacity };
    let rows = [
        ("asked for", order(2), LaunchState::Journalled, vec![], vec!["?", "?"]),
        ("asked for and partly listed", order(3), LaunchState::Journalled, vec!["x"], vec!["i-x", "?", "?"]),
        ("asked for and wholly listed", order(1), LaunchState::Journalled, vec!["x"], vec!["i-x"]),
        ("brought", order(2), joining(&["i-x", "i-z"]), vec![], vec!["i-x", "i-z"]),
        ("brought and partly listed", order(2), joining(&["i-x", "i-z"]), vec!["z"], vec!["i-z", "i-x"]),
        ("brought and partly taken back", order(2), joining(&["i-x", "i-y"]), vec![], vec!["i-x"]),
        ("taken back and listed all the same", order(2), joining(&["i-x", "i-y"]), vec!["x", "y"], vec!["i-x"]),
        ("failed", order(2), failed, vec![], vec![]),
    ];
    for (what, order, state, listed, expected) in rows {
        let mut scene = Scene::with_nodes(0).under_way(launch("op", order, state)).under_way(gone());
        scene.instances = listed.into_iter().map(of_launch).collect();
        assert_eq!(members(&scene, start()), expected, "{what}");
    }
}

#[test]
fn an_instance_of_another_launch_does_not_stand_for_one_that_was_asked_for() {
    let mut scene = Scene::with_nodes(0).under_way(begun("op", order(1)));
    scene.instances = vec![Instance { operation: Some("other".into()), ..of_launch("x") }];
    assert_eq!(members(&scene, start()), ["i-x", "?"]);
}

#[test]
fn what_has_just_joined_is_counted_for_a_minute_although_ec2_does_not_list_it() {
    let done = LaunchState::Done { joined: brought(&["i-x"]), never_joined: brought(&["i-y"]), left: Vec::new() };
    let mut scene = Scene::with_nodes(0).under_way(launch("op", order(2), done));
    for (second, expected) in [(0, vec!["i-x"]), (59, vec!["i-x"]), (60, vec![]), (61, vec![])] {
        assert_eq!(members(&scene, later(second)), expected, "after {second} s");
    }
    scene.instances = vec![of_launch("x"), of_launch("y")];
    assert_eq!(members(&scene, later(59)), ["i-x"], "one has joined, and the other was given back");
    assert_eq!(members(&scene, later(61)), ["i-x"]);
}

#[test]
fn a_launch_is_late_when_its_limit_and_the_lag_of_ec2s_list_are_over() {
    let listed = |state| {
        let mut scene = Scene::with_nodes(0).under_way(launch("op", order(1), state));
        scene.instances = vec![of_launch("x")];
        scene
    };
    let unlisted = |state| Scene::with_nodes(0).under_way(launch("op", order(1), state));
    for (second, late) in [(0, false), (300, false), (359, false), (360, false), (361, true), (3600, true)] {
        let seen = |scene: &Scene| looked_at(scene, later(second), |member| member.late);
        assert_eq!(seen(&listed(joining(&["i-x"]))), [late], "listed, after {second} s");
        assert_eq!(seen(&unlisted(joining(&["i-x"]))), [late], "not listed, after {second} s");
        assert_eq!(seen(&unlisted(LaunchState::Journalled)), [false], "not answered, after {second} s");
    }
}

#[test]
fn a_node_starts_while_it_is_young_and_carries_a_taint_of_the_start() {
    let taint = |key: &str| Taint { key: key.into(), value: String::new(), effect: TaintEffect::NoSchedule };
    let rows = [
        ("young", 0, vec!["init"], true),
        ("as old as it may be", 300, vec!["team", "init"], true),
        ("too old", 301, vec!["init"], false),
        ("rid of it", 0, vec![], false),
        ("tainted for another reason", 0, vec!["team"], false),
        ("old and rid of it", 3600, vec![], false),
    ];
    for (what, age, taints, starts) in rows {
        let mut scene = Scene::with_nodes(1).with("n0", |node| {
            node.created = start();
            node.taints = taints.into_iter().map(taint).collect();
        });
        scene.settings.startup_taints.insert("init".into());
        assert_eq!(looked_at(&scene, later(age), |member| (member.starts, member.boots())), [(starts, starts)], "{what}");
    }
}

#[test]
fn a_launch_that_is_not_listed_has_its_node_and_its_retirement_all_the_same() {
    let mut scene = Scene::with_nodes(1).under_way(launch("op", order(1), joining(&["i-n0"])));
    scene.instances.clear();
    let scene = scene.under_way(retire("n0", underused(), RetireState::Journalled));
    assert_eq!(looked_at(&scene, start(), |member| (member.node.is_some(), member.leaving.is_some())), [(true, true)]);
}

#[test]
fn the_fleet_costs_what_its_members_do_and_an_unknown_price_is_named() {
    let mut scene = Scene::with_nodes(2);
    let list = BTreeMap::new();
    let total = |scene: &Scene, list: &BTreeMap<OfferKey, HourlyPrice>| {
        let snapshot = scene.observed(start());
        cost(&Fleet::new(&scene.settings, &snapshot), &prices(&scene.offers, list))
    };
    assert_eq!(total(&scene, &list), Ok(HourlyPrice(96_000 + 33_600)));
    let old = OfferKey { instance_type: "m4.large".into(), zone: "a".into(), market: Market::Spot };
    scene.instances.push(Instance { instance_type: "m4.large".into(), ..instance("old", "a", Market::Spot) });
    assert_eq!(total(&scene, &list), Err(old.clone()));
    let own = OfferKey { instance_type: "m5.large".into(), ..old.clone() };
    let list = BTreeMap::from([(old, HourlyPrice(1)), (own, HourlyPrice(7))]);
    assert_eq!(total(&scene, &list), Ok(HourlyPrice(96_000 + 33_600 + 1)), "an offer knows better than the list");
}
