//! What people are told about a decision.

use super::*;
use crate::model::snapshot::Pause;
use crate::model::{Explanation, Question};
use crate::policy::explain;

fn ask(scene: &Scene, question: &Question) -> Option<Explanation> {
    explain(&scene.settings, &scene.observed(after(20)), &scene.memory, question, after(20))
}

fn of_pod(scene: &Scene, name: &str) -> Explanation {
    ask(scene, &Question::Pod(PodKey { namespace: "default".into(), name: name.into() })).expect("the pod is there")
}

fn of_node(scene: &Scene, name: &str) -> Explanation {
    ask(scene, &Question::Node(name.into())).expect("the node is there")
}

/// The things that an answer names for a reason.
fn named(explanation: &Explanation, why: &str) -> Vec<String> {
    explanation.reasons.iter().filter(|reason| reason.why.contains(why)).flat_map(|reason| reason.names.clone()).collect()
}

#[test]
fn a_pod_is_told_why_it_waits_and_what_would_take_it() {
    let full = || Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1")]);
    let scene = full().pods([pending("w", 1000)]);
    let answer = of_pod(&scene, "w");
    assert_eq!(answer.verdict, "the next turn buys spot m5.large in a for it");
    assert_eq!(named(&answer, "not enough cpu"), ["node n0", "node n1"]);
    assert_eq!(named(&answer, "can be bought").len(), 8, "two types, two zones, two markets");

    let huge = full().pods([pending("w", 64_000)]);
    let answer = of_pod(&huge, "w");
    assert_eq!(answer.verdict, "no node that can be launched would take it: not enough cpu");
    assert_eq!(named(&answer, "not enough cpu").len(), 10);

    let mut tight = full().pods([pending("w", 1000)]);
    tight.settings.pools[0].max = 2;
    assert_eq!(of_pod(&tight, "w").verdict, "pool workers buys nothing for it now: at the maximum of 2");

    let mut paused = full().pods([pending("w", 1000)]);
    paused.snapshot.pause = Some(Pause { since: start(), by: "me".into(), reason: "maintenance".into() });
    assert_eq!(of_pod(&paused, "w").verdict, "nothing is bought now: paused by me: maintenance");

    let roomy = Scene::with_nodes(2).pods([pending("w", 1000)]);
    assert_eq!(of_pod(&roomy, "w").verdict, "node n0 has room for it, so it buys none; the scheduler does not see it so");

    let cheap = full().pods([Pod { priority: -100, ..pending("w", 1000) }]);
    assert_eq!(of_pod(&cheap, "w").verdict, "its priority -100 is below expendable_below (-10): it buys no node");

    let mut coming = full().pods([pending("w", 1000)]);
    let plan = coming.turn(start());
    let order = launches(&plan)[0].clone();
    coming.snapshot.operations = [(OperationId::from("op-1"), begun("op-1", order))].into();
    let begun = explain(
        &coming.settings,
        &coming.observed(start()),
        &coming.memory,
        &Question::Pod(PodKey { namespace: "default".into(), name: "w".into() }),
        start(),
    );
    assert_eq!(begun.expect("the pod").verdict, "its node is on its way");
}

#[test]
fn a_pod_that_waits_for_no_node_is_told_so() {
    let gated = Pod { gated: true, ..pending("g", 100) };
    let unseen = pod("u", 100);
    let protected = Pod { do_not_disrupt: true, ..running("p", 100, "n1") };
    let scene = Scene::with_nodes(2).pods([gated, unseen, protected]);
    assert_eq!(of_pod(&scene, "g").verdict, "it buys no node: it waits for its scheduling gates");
    assert!(of_pod(&scene, "u").verdict.contains("has not marked it Unschedulable"));
    let answer = of_pod(&scene, "p");
    assert_eq!(answer.verdict, "it is on node n1");
    assert_eq!(named(&answer, "do-not-disrupt"), ["n1"]);
    assert_eq!(ask(&scene, &Question::Pod(PodKey { namespace: "default".into(), name: "nobody".into() })), None);
}

#[test]
fn a_node_is_told_why_it_stays() {
    let pods = [running("a", 900, "n0"), running("b", 600, "n1"), running("c", 100, "n2")];
    let mut scene = Scene::with_nodes(3).pods(pods).busy(0.1, 0.1);
    scene.turns(0, 18);
    scene.memory.pools.get_mut("workers").expect("the pool").last_down = None;
    assert!(of_node(&scene, "n2").verdict.starts_with("the next turn gives it back: the pool needs less"), "{:?}", of_node(&scene, "n2"));
    assert_eq!(of_node(&scene, "n1").verdict, "it could go; others go first, with less disruption for each dollar");
    scene.memory.pools.get_mut("workers").expect("the pool").last_down = Some(after(18));
    assert!(of_node(&scene, "n2").verdict.contains("gives nothing back now: cooling down until"));
    scene.view.nodes.get_mut("n2").expect("the node").keep = Some("node-fleet.io/do-not-remove".into());
    assert_eq!(of_node(&scene, "n2").verdict, "it stays: it is annotated node-fleet.io/do-not-remove");
    let foreign = Node { instance: None, labels: Labels::new(), ..node("other", "a") };
    scene.view.nodes.insert("other".into(), foreign);
    assert_eq!(of_node(&scene, "other").verdict, "no instance of this fleet stands behind it: a node of somebody else is never touched");
    scene.view.nodes.get_mut("other").expect("the node").control_plane = true;
    assert_eq!(of_node(&scene, "other").verdict, "it is a server: servers are never touched");
    scene.snapshot.pause = Some(Pause { since: start(), by: "me".into(), reason: "maintenance".into() });
    assert!(
        of_node(&scene, "n1").verdict.starts_with("it could go, but pool workers gives nothing back now: cpu"),
        "{:?}",
        of_node(&scene, "n1")
    );
    assert_eq!(ask(&scene, &Question::Node("nobody".into())), None);

    let crowded = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1")]);
    assert_eq!(of_node(&crowded, "n1").verdict, "it stays: pod default/b may find no place");
}

#[test]
fn offers_are_told_with_what_keeps_them_from_being_bought() {
    let mut scene = Scene::with_nodes(2);
    let all = ask(&scene, &Question::Offers).expect("an answer");
    assert_eq!(all.verdict, "8 of 8 offers can be bought");
    let rests = OfferKey { instance_type: "m5.large".into(), zone: "a".into(), market: Market::Spot };
    let rest = Rest { until: after(60), failures: 1, since: start(), why: "insufficient capacity".into(), stopped: false };
    scene.memory.offers.insert(rests, rest);
    let some = ask(&scene, &Question::Offers).expect("an answer");
    assert_eq!(some.verdict, "7 of 8 offers can be bought");
    assert_eq!(named(&some, "insufficient capacity"), ["spot m5.large in a at $0.0336/h for pool workers"]);
}

#[test]
fn who_sees_nothing_says_so() {
    let scene = Scene::with_nodes(2);
    let mut snapshot = scene.observed(start());
    snapshot.cluster = unknown_view();
    let answer = explain(&scene.settings, &snapshot, &scene.memory, &Question::Offers, start()).expect("an answer");
    assert!(answer.verdict.starts_with("Kubernetes is not seen"), "{answer:?}");
}

#[test]
fn every_pod_is_told_its_own_fate_however_many_wait() {
    let many = (0..600).map(|index| pending(&format!("w{index:03}"), 400));
    let mut scene = Scene::with_nodes(1).pods(many.chain([pending("huge", 64_000)]));
    scene.settings.pools[0].max = 1000;
    assert_eq!(of_pod(&scene, "w000").verdict, "node n0 has room for it, so it buys none; the scheduler does not see it so");
    for name in ["w300", "w599"] {
        assert!(of_pod(&scene, name).verdict.starts_with("the next turn buys "), "{:?}", of_pod(&scene, name));
    }
    assert_eq!(of_pod(&scene, "huge").verdict, "no node that can be launched would take it: not enough cpu");
}

#[test]
fn a_node_that_leaves_is_told_so() {
    let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
    let plan = scene.turns(0, 10);
    let gone = retirements(&plan)[0].node.as_ref().expect("a node").name.to_string();
    let operation = retire(&gone, retirements(&plan)[0].reason.clone(), RetireState::Journalled);
    let id = operation.id().clone();
    scene.snapshot.operations = [(id.clone(), operation)].into();
    let told = of_node(&scene, &gone).verdict;
    assert!(told.starts_with(&format!("it is leaving (operation {id}): the pool needs less")), "{told}");
}
