//! What a plan tells of what it looked at and did not choose.

use super::*;
use crate::model::Question;
use crate::model::scheduling::Constraints;
use crate::model::snapshot::DaemonSet;
use crate::policy::{Replacement, explain};

/// What the finding of a rule says of what was passed over.
fn passed_over(plan: &Plan, rule: &str) -> Vec<String> {
    let findings = plan.pools[0].findings.iter().filter(|finding| finding.rule.as_str() == rule);
    findings.flat_map(|finding| finding.passed_over.clone()).collect()
}

fn says(lines: &[String], words: &str) -> bool {
    lines.iter().any(|line| line.contains(words))
}

/// Two full nodes, on-demand in a and spot in b, and a pod that waits.
fn waiting() -> Scene {
    Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("w", 1000)])
}

#[test]
fn a_purchase_tells_why_each_other_offer_is_not_bought() {
    let mut scene = waiting();
    scene.settings.pools[0].on_demand_base = 2;
    // Of its market and zone: one that is as good a choice, one that costs too much, one too small, one at rest.
    scene.offers.push(offer("m6.large", "a", Market::OnDemand, 100_000, capacity(1900, 7)));
    scene.offers.push(offer("t3.small", "a", Market::OnDemand, 20_000, capacity(900, 1)));
    scene.offers.push(offer("m4.large", "a", Market::OnDemand, 90_000, capacity(1900, 7)));
    let key = OfferKey { instance_type: "m4.large".into(), zone: "a".into(), market: Market::OnDemand };
    let rest = Rest { until: after(60), failures: 1, since: start(), why: "insufficient capacity".into(), stopped: false };
    scene.memory.offers.insert(key, rest);
    let plan = scene.turn(start());
    let order = launches(&plan)[0];
    assert_eq!((order.market, order.zone.as_str(), order.instance_types.len()), (Market::OnDemand, "a", 2), "{order:?}");
    let told = passed_over(&plan, "pending_pods");
    for words in [
        "on-demand m5.xlarge in a at $0.1920/h: costs more than m5.large at $0.0960/h",
        "on-demand t3.small in a at $0.0200/h: not enough cpu to stand in for m5.large at $0.0960/h",
        "on-demand m4.large in a at $0.0900/h: rests until 2026-03-02T13:00:00Z: insufficient capacity",
        "on-demand m5.large in b at $0.0960/h, on-demand m5.xlarge in b at $0.1920/h: the node is to be in a, where the pool has fewest",
        "spot m5.large in a at $0.0336/h, spot m5.xlarge in a at $0.0672/h, spot m5.large in b at $0.0336/h and 1 others: \
         the pool's next node is to be on-demand",
    ] {
        assert!(says(&told, words), "`{words}` is not among {told:#?}");
    }
    assert!(!says(&told, "on-demand m6.large"), "EC2 may choose it: {told:#?}");
}

#[test]
fn what_is_told_is_bounded_however_many_offers_there_are() {
    let mut scene = waiting();
    for number in 0..500 {
        let price = 200_000 + number;
        scene.offers.push(offer(&format!("big{number}.large"), "a", Market::Spot, price, capacity(1900, 7)));
        let rest = Rest {
            until: later(1000 + i64::try_from(number).expect("small")),
            failures: 1,
            since: start(),
            why: "none".into(),
            stopped: false,
        };
        scene.memory.offers.insert(scene.offers.last().expect("an offer").key.clone(), rest);
    }
    let told = passed_over(&scene.turn(start()), "pending_pods");
    assert!((1..=13).contains(&told.len()), "{}", told.len());
    assert!(told.iter().all(|line| line.len() < 400), "{told:#?}");
}

#[test]
fn a_turn_that_buys_nothing_passes_nothing_over() {
    let plan = Scene::with_nodes(2).turn(start());
    assert_eq!(plan.actions, []);
    assert!(plan.pools[0].findings.iter().all(|finding| finding.passed_over.is_empty()), "{plan:?}");
}

#[test]
fn dearer_ways_of_buying_are_told_with_their_price() {
    // Three pods of two fifths of the large type: one by one on small nodes, or together on a large one.
    let mut scene = Scene::with_nodes(0).pods((0..3).map(|number| pending(&format!("p{number}"), 1200)));
    scene.offers = vec![
        offer("small", "a", Market::OnDemand, 50_000, capacity(1300, 7)),
        offer("large", "a", Market::OnDemand, 110_000, capacity(3900, 15)),
    ];
    (scene.settings.pools[0].min, scene.settings.pools[0].spot_share) = (0, 0.0);
    let plan = scene.turn(start());
    assert_eq!(launches(&plan)[0].instance_types[0].as_str(), "large");
    let told = passed_over(&plan, "pending_pods");
    assert!(says(&told, "nodes of small wherever they will do: 3 nodes for $0.1500/h, instead of 1 for $0.1100/h"), "{told:#?}");
}

#[test]
fn the_minimum_and_the_rules_tell_it_too() {
    let mut scene = Scene::with_nodes(1);
    let told = passed_over(&scene.turn(start()), "bounds");
    assert!(says(&told, "m5.xlarge in b at $0.0672/h: costs more than m5.large at $0.0336/h"), "{told:#?}");
    let mut busy = Scene::with_nodes(2).occupied().busy(0.9, 0.2);
    let plan = busy.turns(0, 4);
    assert!(launched(&plan) > 0, "{plan:?}");
    assert!(!passed_over(&plan, "cpu").is_empty(), "{plan:?}");
}

#[test]
fn daemons_of_the_node_do_not_speak_against_other_types() {
    let mut scene = waiting();
    let similar = scene.offers.iter().filter(|offer| offer.key.instance_type.as_str() == "m5.large").cloned();
    let similar: Vec<Offer> =
        similar.map(|it| offer("m6.large", it.key.zone.as_str(), it.key.market, it.price.0, it.allocatable)).collect();
    scene.offers.extend(similar);
    let daemons = |cpu| DaemonSet {
        namespace: "kube-system".into(),
        name: "agent".into(),
        labels: Labels::new(),
        requests: Resources { cpu: MilliCpu(cpu), pods: 1, ..Resources::default() },
        constraints: Constraints::default(),
    };
    scene.view.daemon_sets.push(daemons(600));
    // The pod and the daemon fill the node, but not with the daemon once more.
    let order = launches(&scene.clone().turn(start()))[0].clone();
    assert_eq!(order.instance_types.len(), 2, "{order:?}");
    // A node for no pod is as large as was reckoned with, whatever its daemons ask for.
    scene.view.pods.clear();
    scene.settings.pools[0].min = 3;
    scene.offers.extend(["a", "b"].map(|zone| offer("tiny", zone, Market::Spot, 33_700, capacity(700, 7))));
    let order = launches(&scene.turn(start()))[0].clone();
    assert!(order.instance_types.iter().all(|name| name.as_str() != "tiny"), "{order:?}");
}

#[test]
fn a_replacement_tells_which_nodes_stay_and_which_offers_are_not_bought() {
    let pods = [running("a", 1500, "n0"), running("b", 1500, "n1"), running("c", 1500, "n2")];
    let mut scene = Scene::with_nodes(3).pods(pods).busy(0.55, 0.5);
    scene.settings.replacement = Some(Replacement {
        saving_lasts: Duration::from_hours(12),
        least_saving: 0.15,
        price_of_a_move: 0.002,
        balances_zones: false,
        drifted: false,
        recommended: false,
    });
    (scene.settings.pools[0].on_demand_base, scene.settings.pools[0].spot_share) = (0, 1.0);
    let plan = scene.clone().turn(start());
    assert_eq!(launched(&plan), 1, "{plan:?}");
    let told = passed_over(&plan, "replacement");
    assert!(says(&told, "spot m5.xlarge in a at $0.0672/h: costs more than m5.large at $0.0336/h"), "{told:#?}");
    // A saving that is too small is told with its figures.
    if let Some(rule) = &mut scene.settings.replacement {
        rule.least_saving = 0.9;
    }
    let plan = scene.turn(start());
    assert_eq!(plan.actions, []);
    let told = passed_over(&plan, "replacement");
    assert!(says(&told, "n0: not as cheaper: its 1 pods have room for $0.0336 instead of $0.0960 an hour"), "{told:#?}");
}

#[test]
fn offers_are_explained_by_what_the_next_turn_buys() {
    let scene = waiting();
    let answer = explain(&scene.settings, &scene.observed(start()), &scene.memory, &Question::Offers, start()).expect("an answer");
    assert_eq!(answer.verdict, "8 of 8 offers can be bought; the next turn buys 1 spot m5.large in a: 1 pods cannot be scheduled");
    let reason = answer.reasons.iter().find(|reason| reason.why.starts_with("can be bought; not in the next turn: costs more"));
    assert_eq!(reason.map(|reason| reason.names.clone()), Some(vec!["spot m5.xlarge in a at $0.0672/h for pool workers".to_owned()]));
}
