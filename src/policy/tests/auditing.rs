//! Each invariant, broken once and just kept.

use super::*;
use crate::model::snapshot::Pause;
use crate::policy::{Invariant, Violation};
use Invariant::{Evidence, Maximum, Minimum, Ownership};

/// A change of the world.
type Change = fn(&mut Scene);

fn buys(count: u32) -> Action {
    Action::Launch(order(count))
}

fn gives(name: &str, reason: RetireReason) -> Action {
    Action::Retire(retire_order(name, reason))
}

fn gone() -> RetireReason {
    RetireReason::InstanceGone
}

fn changed(name: &str, change: impl FnOnce(&mut RetireOrder)) -> Action {
    let mut order = retire_order(name, gone());
    change(&mut order);
    Action::Retire(order)
}

fn broken_in(scene: &Scene, snapshot: &Snapshot, actions: Vec<Action>) -> Vec<Invariant> {
    let plan = Plan { actions, ..Plan::default() };
    audit(&scene.settings, snapshot, &plan, start()).into_iter().map(|violation| violation.invariant).collect()
}

fn broken(nodes: usize, change: Change, actions: Vec<Action>) -> Vec<Invariant> {
    let mut scene = Scene::with_nodes(nodes);
    change(&mut scene);
    broken_in(&scene, &scene.observed(start()), actions)
}

fn paused(scene: &mut Scene) {
    scene.snapshot.pause = Some(Pause { since: start(), by: "ada".into(), reason: "maintenance".into() });
}

fn alter(scene: &mut Scene, change: impl FnOnce(&mut Node)) {
    change(scene.view.nodes.get_mut("n2").expect("the node"));
}

#[test]
fn the_maximum_holds_for_what_is_there_and_what_is_bought() {
    let as_is: Change = |_| {};
    let begun_two: Change = |scene| *scene = scene.clone().under_way(begun("op", order(2)));
    let leaving: Change = |scene| *scene = scene.clone().under_way(retire("n0", underused(), RetireState::Journalled));
    let other = || Action::Launch(LaunchOrder { pool: "other".into(), ..order(1) });
    let rows = [
        ("up to it", 2, as_is, vec![buys(8)], vec![]),
        ("beyond it", 2, as_is, vec![buys(9)], vec![Maximum]),
        ("beyond it in two orders", 2, as_is, vec![buys(4), buys(5)], vec![Maximum]),
        ("up to it with what is under way", 2, begun_two, vec![buys(6)], vec![]),
        ("beyond it with what is under way", 2, begun_two, vec![buys(7)], vec![Maximum]),
        ("what leaves counts as well", 2, leaving, vec![buys(9)], vec![Maximum]),
        ("too many are there already and nothing is bought", 12, as_is, vec![], vec![]),
        ("too many are there already and one is bought", 12, as_is, vec![buys(1)], vec![Maximum]),
        ("a pool that nobody knows", 2, as_is, vec![other()], vec![Maximum]),
        ("what another pool buys does not count", 2, as_is, vec![buys(8), other()], vec![Maximum]),
    ];
    for (what, nodes, change, actions, expected) in rows {
        assert_eq!(broken(nodes, change, actions), expected, "{what}");
    }
}

#[test]
fn the_price_ceiling_holds_for_the_whole_fleet() {
    // Two nodes are 129,600 millionths an hour, and two more spot nodes 67,200.
    let ceiling: Change = |scene| scene.settings.price_ceiling = Some(HourlyPrice(196_800));
    let below: Change = |scene| scene.settings.price_ceiling = Some(HourlyPrice(196_799));
    let unpriced: Change = |scene| {
        scene.settings.price_ceiling = Some(HourlyPrice(1_000_000));
        scene.instances[1].instance_type = "m4.large".into();
    };
    let none: Change = |scene| scene.settings.price_ceiling = None;
    let low: Change = |scene| scene.settings.price_ceiling = Some(HourlyPrice(1));
    let rows = [
        ("reached", ceiling, vec![buys(2)], vec![]),
        ("reached in two orders", ceiling, vec![buys(1), buys(1)], vec![]),
        ("broken", below, vec![buys(2)], vec![Maximum]),
        ("broken in two orders", below, vec![buys(1), buys(1)], vec![Maximum]),
        ("what is there already may be dearer", low, vec![gives("n1", gone())], vec![]),
        ("a member's price is not known", unpriced, vec![buys(1)], vec![Maximum]),
        ("there is none", none, vec![buys(8)], vec![]),
    ];
    for (what, change, actions, expected) in rows {
        assert_eq!(broken(2, change, actions), expected, "{what}");
    }
}

#[test]
fn the_minimum_holds_for_what_serves_and_against_our_own_wishes_only() {
    let as_is: Change = |_| {};
    let unready: Change = |scene| alter(scene, |node| node.readiness = Readiness::NotReady { since: start() });
    let leaving: Change = |scene| *scene = scene.clone().under_way(retire("n2", underused(), RetireState::Journalled));
    let booting: Change = |scene| *scene = scene.clone().under_way(begun("op", order(1)));
    let consolidated = || RetireReason::Consolidated { evidence: String::new() };
    let rows = [
        ("down to it", as_is, vec![gives("n0", underused())], vec![]),
        ("below it", as_is, vec![gives("n0", underused()), gives("n1", underused())], vec![Minimum]),
        ("for consolidation", as_is, vec![gives("n0", consolidated()), gives("n1", consolidated())], vec![Minimum]),
        ("below a new maximum", as_is, vec![gives("n0", RetireReason::AboveMaximum), gives("n1", underused())], vec![Minimum]),
        ("what must go goes", as_is, vec![gives("n0", gone()), gives("n1", gone())], vec![]),
        ("what must go does not count", as_is, vec![gives("n0", underused()), gives("n1", gone())], vec![]),
        ("what does not serve does not count", unready, vec![gives("n0", underused())], vec![Minimum]),
        ("what leaves does not count", leaving, vec![gives("n0", underused())], vec![Minimum]),
        ("what boots makes up for nothing", booting, vec![gives("n0", underused()), gives("n1", underused())], vec![Minimum]),
        ("one node twice", as_is, vec![gives("n0", gone()), gives("n0", gone())], vec![Minimum]),
    ];
    for (what, change, actions, expected) in rows {
        assert_eq!(broken(3, change, actions), expected, "{what}");
    }
}

#[test]
fn what_is_foreign_a_server_or_kept_is_not_touched() {
    let as_is: Change = |_| {};
    let server: Change = |scene| alter(scene, |node| node.control_plane = true);
    let kept: Change = |scene| alter(scene, |node| node.keep = Some("node-fleet.io/do-not-remove".into()));
    let successor: Change = |scene| alter(scene, |node| node.uid = "uid-of-a-successor".into());
    let lost: Change = |scene| alter(scene, |node| node.instance = None);
    let absent: Change = |scene| scene.instances.retain(|instance| instance.id.as_str() != "i-n2");
    let adopted: Change = |scene| scene.instances[2].pool = Some("other".into());
    let of_other = |reason| {
        changed("n2", |order| {
            order.pool = "other".into();
            order.reason = reason;
        })
    };
    let rows = [
        ("ours", as_is, gives("n2", gone()), vec![]),
        ("a server", server, gives("n2", gone()), vec![Ownership]),
        ("kept, against our wish", kept, gives("n2", underused()), vec![Ownership]),
        ("kept, and it must go", kept, gives("n2", gone()), vec![]),
        ("a successor of the same name", successor, gives("n2", gone()), vec![Ownership]),
        (
            "a node that is not there",
            as_is,
            changed("n2", |order| order.node = Some(NodeRef { name: "n9".into(), uid: "uid-n2".into() })),
            vec![Ownership],
        ),
        ("an instance that EC2 does not list", absent, gives("n2", gone()), vec![Ownership]),
        ("an instance of another pool", adopted, gives("n2", gone()), vec![Ownership]),
        ("the node of another instance", as_is, changed("n2", |order| order.instance = Some("i-n1".into())), vec![Ownership]),
        ("a node of which nobody knows the instance", lost, gives("n2", gone()), vec![Ownership]),
        ("a node alone", absent, changed("n2", |order| order.instance = None), vec![]),
        ("an instance alone", as_is, changed("n2", |order| order.node = None), vec![]),
        ("a pool that nobody knows, as a wish", adopted, of_other(underused()), vec![Ownership]),
        ("a pool that nobody knows, of necessity", adopted, of_other(gone()), vec![]),
    ];
    for (what, change, action, expected) in rows {
        assert_eq!(broken(3, change, vec![action]), expected, "{what}");
    }
}

#[test]
fn nothing_is_given_back_voluntarily_without_evidence() {
    let scene = Scene::with_nodes(3);
    let known = scene.observed(start());
    let empty = || crate::model::Missing::Empty;
    let report = |warming_up| Observed::Known { value: UtilisationReport { nodes: BTreeMap::new(), warming_up }, at: start() };
    let rows = [
        ("known", known.clone(), vec![], vec![]),
        ("unknown", Snapshot { utilisation: Observed::Unknown(empty()), ..known.clone() }, vec![Evidence], vec![]),
        ("warming up", Snapshot { utilisation: report(true), ..known.clone() }, vec![Evidence], vec![]),
        ("warm", Snapshot { utilisation: report(false), ..known.clone() }, vec![], vec![]),
        ("no nodes", Snapshot { cluster: unknown_view(), ..known.clone() }, vec![Minimum, Evidence], vec![Evidence]),
        ("no instances", Snapshot { instances: Observed::Unknown(empty()), ..known.clone() }, vec![Minimum, Evidence], vec![Evidence]),
    ];
    for (what, snapshot, voluntarily, of_necessity) in rows {
        assert_eq!(broken_in(&scene, &snapshot, vec![gives("n1", underused())]), voluntarily, "{what}");
        assert_eq!(broken_in(&scene, &snapshot, vec![gives("n1", gone())]), of_necessity, "{what}, of necessity");
        assert_eq!(broken_in(&scene, &snapshot, Vec::new()), [], "{what}, and nothing is done");
    }
}

#[test]
fn nothing_is_started_while_paused_but_what_replaces_an_interrupted_node() {
    let replacement = || Action::Launch(LaunchOrder { reason: LaunchReason::Replacement { node: "n1".into() }, ..order(1) });
    let minimum = || Action::Launch(LaunchOrder { reason: LaunchReason::BelowMinimum, ..order(1) });
    let pause: Change = paused;
    let replacing: Change = |scene| {
        paused(scene);
        scene.settings.replace_interrupted_while_paused = true;
    };
    let rows = [
        ("a launch", pause, buys(1), true),
        ("a retirement", pause, gives("n1", gone()), true),
        ("a replacement", pause, replacement(), true),
        ("a replacement where these are wanted", replacing, replacement(), false),
        ("growth where replacements are wanted", replacing, buys(1), true),
        ("the minimum where replacements are wanted", replacing, minimum(), true),
        ("a retirement where replacements are wanted", replacing, gives("n1", gone()), true),
    ];
    for (what, change, action, breaks) in rows {
        assert_eq!(broken(3, change, vec![action.clone()]), if breaks { vec![Invariant::Pause] } else { Vec::new() }, "{what}");
        assert_eq!(broken(3, |_| {}, vec![action]), [], "{what}, not paused");
    }
}

#[test]
fn a_violation_says_the_invariant_and_how_it_is_broken() {
    let names = [(Maximum, "I2"), (Minimum, "I3"), (Ownership, "I4"), (Evidence, "I6"), (Invariant::Pause, "I11")];
    for (invariant, name) in names {
        assert_eq!(invariant.name(), name);
    }
    let scene = Scene::with_nodes(3);
    let plan = Plan { actions: vec![buys(8), gives("n1", underused()), gives("n2", underused())], ..Plan::default() };
    let said: Vec<String> = audit(&scene.settings, &scene.observed(start()), &plan, start()).iter().map(Violation::to_string).collect();
    assert_eq!(said, ["I2: pool workers would have 11 of at most 10", "I3: pool workers would keep 1 of at least 2"]);
}
