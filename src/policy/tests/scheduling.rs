//! Which nodes a pod could go to, row by row: a pod that waits, and whether a node is bought for it.

use super::*;
use crate::model::scheduling::{Constraints, NodeSelectorTerm, Operator, Requirement, Selector, Taint, TaintEffect, Toleration};

fn requirement(key: &str, operator: Operator) -> Requirement {
    Requirement { key: key.into(), operator }
}

fn one_of(value: &str) -> Operator {
    Operator::In(BTreeSet::from([value.into()]))
}

fn labels(requirements: Vec<Requirement>) -> NodeSelectorTerm {
    NodeSelectorTerm { labels: Selector(requirements), fields: Selector::default() }
}

/// Tells whether a node is bought for a pod with these constraints.
fn is_bought(constraints: Constraints, change: fn(&mut Offer)) -> bool {
    let mut scene = Scene::with_nodes(0);
    scene.settings.pools[0].min = 0;
    scene.offers.iter_mut().for_each(change);
    launched(&scene.pods([Pod { constraints: Arc::new(constraints), ..pending("p", 500) }]).turn(start())) == 1
}

#[test]
fn selectors_and_affinity_are_those_of_kubernetes() {
    let selector = |operator| Constraints { node_selector: Selector(vec![requirement(ZONE_LABEL, operator)]), ..Constraints::default() };
    let affinity = |terms| Constraints { node_affinity: terms, ..Constraints::default() };
    let of = |key: &str, value: &str| requirement(key, one_of(value));
    let nowhere = || labels(vec![of(ZONE_LABEL, "z")]);
    let named = |name: &str| NodeSelectorTerm { labels: Selector::default(), fields: Selector(vec![of("metadata.name", name)]) };
    let rows = [
        ("no condition", Constraints::default(), true),
        ("a zone that there is", selector(one_of("b")), true),
        ("a zone that there is not", selector(one_of("z")), false),
        ("a label that must be absent", selector(Operator::DoesNotExist), false),
        ("one term that holds", affinity(vec![labels(vec![of(ZONE_LABEL, "a")])]), true),
        ("one term that does not", affinity(vec![nowhere()]), false),
        ("terms are alternatives", affinity(vec![nowhere(), labels(vec![of(ZONE_LABEL, "b")])]), true),
        ("conditions of a term must all hold", affinity(vec![labels(vec![of(ZONE_LABEL, "b"), of(ARCH_LABEL, "vax")])]), false),
        ("an empty term matches nothing", affinity(vec![labels(Vec::new())]), false),
        ("a new node has no name yet", affinity(vec![named("n0")]), false),
    ];
    for (what, constraints, expected) in rows {
        assert_eq!(is_bought(constraints, |_| {}), expected, "{what}");
    }
}

#[test]
fn taints_are_tolerated_as_kubernetes_does() {
    fn tainted(offer: &mut Offer, effect: TaintEffect) {
        offer.taints.push(Taint { key: "team".into(), value: "batch".into(), effect });
    }
    let tolerating = |key: Option<&str>, value: Option<&str>, effect| Constraints {
        tolerations: vec![Toleration { key: key.map(Into::into), value: value.map(Into::into), effect }],
        ..Constraints::default()
    };
    let no_schedule: fn(&mut Offer) = |offer| tainted(offer, TaintEffect::NoSchedule);
    let no_execute: fn(&mut Offer) = |offer| tainted(offer, TaintEffect::NoExecute);
    let prefer: fn(&mut Offer) = |offer| tainted(offer, TaintEffect::PreferNoSchedule);
    let rows = [
        ("none", Constraints::default(), no_schedule, false),
        ("none, and it would leave", Constraints::default(), no_execute, false),
        ("none, where the taint only prefers", Constraints::default(), prefer, true),
        ("the very taint", tolerating(Some("team"), Some("batch"), Some(TaintEffect::NoSchedule)), no_schedule, true),
        ("any value", tolerating(Some("team"), None, None), no_schedule, true),
        ("every taint", tolerating(None, None, None), no_execute, true),
        ("another value", tolerating(Some("team"), Some("web"), None), no_schedule, false),
        ("another key", tolerating(Some("role"), None, None), no_schedule, false),
        ("another effect", tolerating(Some("team"), None, Some(TaintEffect::NoExecute)), no_schedule, false),
    ];
    for (what, constraints, change, expected) in rows {
        assert_eq!(is_bought(constraints, change), expected, "{what}");
    }
}

#[test]
fn a_pod_that_names_a_node_counts_on_it_alone() {
    let terms = |name: &str| {
        let fields = Selector(vec![requirement("metadata.name", one_of(name))]);
        vec![NodeSelectorTerm { labels: Selector::default(), fields }]
    };
    let pod = |name: &str| {
        let constraints = Constraints { node_affinity: terms(name), ..Constraints::default() };
        Pod { constraints: Arc::new(constraints), ..pending("p", 500) }
    };
    // It fits its node, where the scheduler will see it; a node that is not there cannot be bought.
    for name in ["n0", "n9"] {
        assert_eq!(launched(&Scene::with_nodes(2).pods([pod(name)]).turn(start())), 0, "{name}");
    }
}
