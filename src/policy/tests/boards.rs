//! The cluster as a plan imagines it, node by node.

use super::*;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, NOT_READY_TAINT, NodeSelectorTerm, Operator, Requirement, Selector, SpreadConstraint, Taint, TaintEffect,
    Toleration, UNSCHEDULABLE_TAINT,
};
use crate::policy::fit::{Board, Misfit, node_accepts};
use crate::policy::survey;
use std::slice;

/// A closed node, a full one, a tainted one, and two that take everything.
fn nodes() -> [Node; 5] {
    let team = Taint { key: "team".into(), value: String::new(), effect: TaintEffect::NoSchedule };
    let full = Node { allocatable: capacity(100, 7), ..node("n1", "b") };
    let tainted = Node { taints: vec![team], ..node("n2", "a") };
    [Node { cordoned: true, ..node("n0", "a") }, full, tainted, node("n3", "b"), node("n4", "a")]
}

fn board(nodes: &[Node]) -> Board<'_> {
    let mut board = Board::default();
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(board.add(Some(&node.name), &node.labels, &node.taints, &node.allocatable, !node.cordoned), index);
    }
    board
}

#[test]
fn a_pod_finds_the_first_node_from_there_on_that_is_open_has_room_and_takes_it() {
    let (nodes, pod, giant) = (nodes(), pod("p", 1000), pod("giant", 2000));
    let mut board = board(&nodes);
    assert_eq!(board.nodes(), 5);
    let (shape, giant) = (board.shape(&pod), board.shape(&giant));
    let rows = [(0, Some(3), 2), (1, Some(3), 2), (2, Some(3), 2), (3, Some(3), 3), (4, Some(4), 4), (5, None, 5)];
    for (from, fits, has_room) in rows {
        assert_eq!((board.first_fit(shape, from), board.first_with_room(shape, from)), (fits, has_room), "from {from}");
        assert_eq!((board.first_fit(giant, from), board.first_with_room(giant, from)), (None, 5), "the giant, from {from}");
    }
    board.set_open(0, true);
    board.set_open(3, false);
    assert_eq!((board.first_fit(shape, 0), board.first_with_room(shape, 0)), (Some(0), 0));
    assert_eq!((board.first_fit(shape, 1), board.first_with_room(shape, 3)), (Some(4), 4));
}

#[test]
fn an_empty_board_has_no_node() {
    let pod = pod("p", 1000);
    let mut board = Board::default();
    let shape = board.shape(&pod);
    assert_eq!((board.nodes(), board.first_fit(shape, 0), board.first_with_room(shape, 0)), (0, None, 0));
}

#[test]
fn a_pod_that_takes_the_last_of_a_node_fits_and_the_next_one_does_not() {
    let nodes = [node("n0", "a")];
    let (one, other, last) = (pod("one", 1000), pod("other", 901), pod("last", 900));
    let mut board = board(&nodes);
    board.place(&one, 0);
    let (other, last_shape) = (board.shape(&other), board.shape(&last));
    assert_eq!(board.fits(other, 0), Err(Misfit::Resources(vec!["cpu".into()])));
    assert_eq!(board.fits(last_shape, 0), Ok(()));
    board.place(&last, 0);
    assert_eq!(board.bin(0).free.cpu, MilliCpu(0));
    assert_eq!(board.first_fit(last_shape, 0), None);
    board.take(&one, 0);
    assert_eq!((board.bin(0).free.cpu, board.bin(0).pods.len(), board.bin(0).shapes().len()), (MilliCpu(1000), 1, 1));
}

#[test]
fn many_pods_of_a_kind_take_as_much_as_one_after_the_other() {
    let nodes = [node("n0", "a"), node("n1", "b")];
    let pod = pod("p", 300);
    let mut board = board(&nodes);
    let shape = board.shape(&pod);
    board.load(shape, 3, 0);
    for _ in 0..3 {
        board.place(&pod, 1);
    }
    assert_eq!(board.bin(0).free, board.bin(1).free);
    assert_eq!((board.bin(0).shapes(), board.bin(1).shapes()), (&[(shape, 3)][..], &[(shape, 3)][..]));
    board.load(shape, 1, 0);
    assert_eq!((board.bin(0).free.cpu, board.bin(0).shapes()), (MilliCpu(700), &[(shape, 4)][..]));
    board.take_last(1);
    assert_eq!((board.bin(1).free.cpu, board.bin(1).shapes()), (MilliCpu(1300), &[(shape, 2)][..]));
}

#[test]
fn a_zone_of_a_node_that_was_only_looked_at_is_forgotten() {
    let zone = SpreadConstraint {
        topology_key: ZONE_LABEL.into(),
        selector: Selector(vec![Requirement { key: "app".into(), operator: Operator::Exists }]),
        max_skew: 1,
        min_domains: None,
        ignores_node_affinity: false,
        honors_taints: false,
    };
    let constraints = Arc::new(Constraints { spread: vec![zone], ..Constraints::default() });
    let even = Pod { constraints, labels: Arc::new(Labels::from([("app".into(), "web".into())])), ..pod("even", 100) };
    let (nodes, elsewhere) = ([node("n0", "a"), node("n1", "b")], node("n2", "c"));
    let mut board = board(&nodes);
    let shape = board.shape(&even);
    for index in 0..2 {
        board.place(&even, index);
    }
    assert_eq!(board.fits(shape, 0), Ok(()));
    board.add(None, &elsewhere.labels, &elsewhere.taints, &elsewhere.allocatable, true);
    assert!(board.fits(shape, 0).is_err(), "there is a zone that has none");
    board.truncate(2);
    assert_eq!(board.fits(shape, 0), Ok(()));
}

#[test]
fn a_node_that_is_cleared_is_closed_and_empty_until_it_is_restored() {
    let (nodes, pod) = ([node("n0", "a"), node("n1", "b")], pod("p", 300));
    let mut board = board(&nodes);
    board.place(&pod, 0);
    board.place(&pod, 0);
    let lay = board.clear(0);
    assert_eq!((lay.len(), board.bin(0).is_open(), board.bin(0).free.clone()), (2, false, nodes[0].allocatable.clone()));
    assert_eq!((board.bin(0).pods.len(), board.bin(0).shapes().len()), (0, 0));
    board.restore(0, &lay);
    assert_eq!((board.bin(0).pods.len(), board.bin(0).is_open(), board.bin(0).free.cpu), (2, true, MilliCpu(1300)));
    board.truncate(1);
    assert_eq!(board.nodes(), 1);
    board.truncate(1);
    assert_eq!(board.nodes(), 1);
}

#[test]
fn a_volume_must_be_reachable_and_attachable() {
    let zones = |zones: &[&str]| zones.iter().map(|zone| (*zone).into()).collect::<BTreeSet<_>>();
    let near = |zone: &str| {
        let requirement = Requirement { key: ZONE_LABEL.into(), operator: Operator::In([zone.to_owned()].into()) };
        vec![NodeSelectorTerm { labels: Selector(vec![requirement]), fields: Selector::default() }]
    };
    let labels = node("n0", "a").labels;
    let rows = [
        ("none", vec![], vec![], true),
        ("one zone", vec![zones(&["a"])], vec![], true),
        ("either zone", vec![zones(&["a", "b"])], vec![], true),
        ("another zone", vec![zones(&["b"])], vec![], false),
        ("two volumes, one of them elsewhere", vec![zones(&["a"]), zones(&["b"])], vec![], false),
        ("attachable here", vec![], vec![near("a")], true),
        ("attachable elsewhere", vec![zones(&["a"])], vec![near("b")], false),
        ("reachable elsewhere", vec![zones(&["b"])], vec![near("a")], false),
    ];
    for (what, volume_zones, volume_affinity, accepted) in rows {
        let constraints = Constraints { volume_zones, volume_affinity, ..Constraints::default() };
        let expected = if accepted { Ok(()) } else { Err(Misfit::Volume) };
        assert_eq!(node_accepts(&constraints, None, &labels, &[]), expected, "{what}");
    }
    let anywhere = Constraints { volume_zones: vec![zones(&["a"])], ..Constraints::default() };
    assert_eq!(node_accepts(&anywhere, None, &Labels::new(), &[]), Err(Misfit::Volume), "a node without a zone");
}

#[test]
fn a_survey_asks_the_nodes_that_take_new_pods_beside_what_lies_there() {
    let over = Pod { phase: PodPhase::Succeeded, ..running("over", 1800, "n4") };
    let scene = Scene::with_nodes(5)
        .pods([running("full", 1000, "n3"), over])
        .with("n1", |node| node.cordoned = true)
        .with("n2", |node| node.readiness = Readiness::NotReady { since: start() });
    let short = Err(Misfit::Resources(vec!["cpu".into()]));
    let expected = [("n0".into(), Ok(())), ("n3".into(), short), ("n4".into(), Ok(()))];
    assert_eq!(survey(&scene.view, &pending("p", 901)), expected.into());
}

#[test]
fn a_closed_node_is_a_domain_only_to_spread_that_ignores_taints_or_to_a_pod_that_tolerates_what_closes_it() {
    let key = |key: &str| Toleration { key: Some(key.to_owned()), value: None, effect: None };
    let (cordon, sickness) = (key(UNSCHEDULABLE_TAINT), key(NOT_READY_TAINT));
    let even = |honors_taints: bool, tolerations: &[Toleration]| {
        let spread = SpreadConstraint {
            topology_key: ZONE_LABEL.into(),
            selector: Selector(vec![Requirement { key: "app".into(), operator: Operator::Exists }]),
            max_skew: 1,
            min_domains: None,
            ignores_node_affinity: false,
            honors_taints,
        };
        let constraints = Arc::new(Constraints { spread: vec![spread], tolerations: tolerations.to_vec(), ..Constraints::default() });
        Pod { constraints, labels: Arc::new(Labels::from([("app".into(), "web".into())])), ..pod("even", 100) }
    };
    let cordoned = Node { cordoned: true, ..node("n2", "c") };
    let sick = Node { readiness: Readiness::NotReady { since: start() }, ..node("n2", "c") };
    let rows = [
        ("ignores a cordon", even(false, &[]), &cordoned, false),
        ("honours a cordon", even(true, &[]), &cordoned, true),
        ("tolerates it", even(true, slice::from_ref(&cordon)), &cordoned, false),
        ("tolerates something else", even(true, slice::from_ref(&sickness)), &cordoned, true),
        ("honours that it is not Ready", even(true, &[]), &sick, true),
        ("tolerates that", even(true, &[sickness]), &sick, false),
        ("tolerates a cordon alone", even(true, &[cordon]), &sick, true),
    ];
    for (what, pod, third, fits) in rows {
        let (first, second) = (node("n0", "a"), node("n1", "b"));
        let mut board = Board::default();
        for node in [&first, &second, third] {
            board.add_node(node, true);
        }
        board.place(&pod, 0);
        board.place(&pod, 1);
        let shape = board.shape(&pod);
        assert_eq!(board.fits(shape, 0).is_ok(), fits, "{what}: there is no third zone, or one that has none");
    }
}

#[test]
fn a_node_that_is_to_go_is_no_domain_from_then_on_to_spread_that_honours_taints() {
    let honors = |honors_taints: bool| {
        let spread = SpreadConstraint {
            topology_key: HOSTNAME_LABEL.into(),
            selector: Selector(vec![Requirement { key: "app".into(), operator: Operator::Exists }]),
            max_skew: 1,
            min_domains: Some(2),
            ignores_node_affinity: false,
            honors_taints,
        };
        let constraints = Arc::new(Constraints { spread: vec![spread], ..Constraints::default() });
        Pod { constraints, labels: Arc::new(Labels::from([("app".into(), "web".into())])), ..pod("even", 100) }
    };
    // With the node there are two domains and one pod more has a place; without it there are too few.
    let fits = |pod: &Pod, goes: bool| {
        let nodes = [node("n0", "a"), node("n1", "b")];
        let mut board = board(&nodes);
        board.place(pod, 0);
        board.place(pod, 1);
        let shape = board.shape(pod);
        board.set_open(1, !goes);
        let fits = board.fits(shape, 0).is_ok();
        board.set_open(1, true);
        assert_eq!(board.fits(shape, 0), Ok(()), "as before");
        let lay = board.clear(1);
        assert!(board.fits(shape, 0).is_err());
        board.restore(1, &lay);
        assert_eq!(board.fits(shape, 0), Ok(()), "as before");
        fits
    };
    assert_eq!((fits(&honors(true), false), fits(&honors(true), true), fits(&honors(false), true)), (true, false, true));
}
