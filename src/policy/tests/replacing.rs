//! Nodes that are replaced although they could stay, and the pools' own budgets.

use super::*;
use crate::model::memory::Succession;
use crate::model::operation::{LaunchFailure, LaunchedInstance};
use crate::model::plan::ReplacementCause;
use crate::model::scheduling::{Constraints, MARKET_LABEL, NodeSelectorTerm, Operator, Requirement, Selector};
use crate::policy::schedule::Schedule;
use crate::policy::{AtOnce, Disruption, MetricGoal, MetricRule, Replacement, learn};

fn rule() -> Replacement {
    Replacement {
        saving_lasts: Duration::from_hours(12),
        least_saving: 0.15,
        price_of_a_move: 0.002,
        balances_zones: false,
        drifted: false,
        recommended: false,
    }
}

/// Three nodes, busy enough that none is underused: the first is on-demand although all could be spot.
fn dear() -> Scene {
    let pods = [running("a", 1500, "n0"), running("b", 1500, "n1"), running("c", 1500, "n2")];
    let mut scene = Scene::with_nodes(3).pods(pods).busy(0.55, 0.5);
    scene.settings.replacement = Some(rule());
    scene.settings.pools[0].on_demand_base = 0;
    scene.settings.pools[0].spot_share = 1.0;
    scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
    scene
}

fn successor(plan: &Plan) -> Option<(&str, ReplacementCause)> {
    launches(plan).into_iter().find_map(|order| match &order.reason {
        LaunchReason::Successor { node, cause, .. } => Some((node.as_str(), *cause)),
        _ => None,
    })
}

/// The launch of a plan as an operation: under way, or over with a node that has joined.
fn bought(plan: &Plan, joined: bool) -> Operation {
    let order = launches(plan)[0].clone();
    let instance = LaunchedInstance { id: "i-n9".into(), instance_type: "m5.large".into(), node: Some("n9".into()) };
    let state = if joined {
        LaunchState::Done { joined: vec![instance], never_joined: Vec::new(), left: Vec::new() }
    } else {
        LaunchState::Journalled
    };
    launch("op", order, state)
}

/// Its node has joined: an empty one, of the market and zone that were bought.
fn join(scene: &mut Scene, plan: &Plan) {
    let order = launches(plan)[0].clone();
    scene.view.nodes.insert("n9".into(), node("n9", order.zone.as_str()));
    scene.instances.push(instance("n9", order.zone.as_str(), order.market));
    *scene = scene.clone().busy(0.5, 0.4);
}

#[test]
fn a_dear_node_goes_once_its_cheaper_successor_is_there() {
    // Busier than a purchase aims at: a removal would be out of the question.
    let mut scene = dear().busy(0.7, 0.5);
    let plan = scene.turn(start());
    assert_eq!(successor(&plan), Some(("n0", ReplacementCause::Cheaper)), "{plan:?}");
    assert_eq!((launched(&plan), launches(&plan)[0].market, retirements(&plan).len()), (1, Market::Spot, 0));
    // While it boots nothing else is begun, and nothing goes.
    let mut booting = scene.clone().under_way(bought(&plan, false));
    let next = booting.turn(after(2));
    assert_eq!(next.actions, []);
    assert!(matches!(held(&next, "replacement"), Some(Hold::Underway { .. })), "{next:?}");
    assert_eq!(held(&next, "scale_down").map(|_| ()), Some(()));
    // Once it has joined the old one goes, and with that it is over.
    join(&mut scene, &plan);
    let mut scene = scene.under_way(bought(&plan, true));
    let next = scene.turn(after(4));
    let [order] = retirements(&next)[..] else { panic!("{next:?}") };
    assert_eq!(order.node.as_ref().map(|node| node.name.as_str()), Some("n0"));
    assert_eq!((order.reason.name(), order.reason.is_voluntary()), ("cheaper", true));
    assert!(scene.memory.successions.is_empty());
}

#[test]
fn what_a_preference_has_bought_stays() {
    let mut scene = dear();
    let on_demand = Requirement { key: MARKET_LABEL.into(), operator: Operator::In(["on-demand".to_owned()].into()) };
    for offer in &mut scene.offers {
        offer.labels.insert(MARKET_LABEL.into(), offer.key.market.to_string());
    }
    let pod = Pod::clone(&scene.view.pods[0]);
    let liked = NodeSelectorTerm { labels: Selector(vec![on_demand]), ..NodeSelectorTerm::default() };
    let constraints = Arc::new(Constraints { node_affinity: vec![liked], ..Constraints::default() });
    assert_eq!(successor(&scene.clone().turn(start())), Some(("n0", ReplacementCause::Cheaper)));
    scene.view.pods[0] = Arc::new(Pod { preferring: Some(Arc::new(Pod { constraints, ..pod.clone() })), ..pod });
    assert_eq!(successor(&scene.turn(start())), None, "its pod would rather be on demand");
}

#[test]
fn those_that_cannot_be_replaced_do_not_hide_those_that_can() {
    let mut scene = Scene::with_nodes(40).busy(0.55, 0.5);
    scene.settings = dear().settings;
    (scene.settings.pools[0].max, scene.offers) = (60, dear().offers);
    scene.instances.iter_mut().for_each(|instance| instance.market = Market::OnDemand);
    for index in 0..40 {
        let name = format!("n{index}");
        let mut pod = running(&format!("p{index:02}"), 1000, &name);
        // All but one are at home on their node alone, and their nodes are emptier.
        if index == 20 {
            pod.requests.cpu = MilliCpu(1700);
        } else {
            let own = Requirement { key: "kubernetes.io/hostname".into(), operator: Operator::In([name].into()) };
            pod.constraints = Arc::new(Constraints { node_selector: Selector(vec![own]), ..Constraints::default() });
        }
        scene = scene.pods([pod]);
    }
    let first = successor(&scene.clone().turn(start())).map(|(node, _)| node.to_owned());
    let turns = (0..8).find_map(|turn| successor(&scene.turn(after(2 * turn))).map(|(node, _)| node.to_owned()));
    assert_eq!(turns.as_deref(), Some("n20"), "in the first turn: {first:?}");
}

#[test]
fn a_saving_must_be_worth_the_moves_and_the_double_pay() {
    // On-demand is 96,000 millionths, spot 33,600: 0.0624 saved an hour. Ten minutes of both cost 0.0056.
    let replaced = |hours_as_minutes: u64, price_of_a_move: f64| {
        let mut scene = dear();
        scene.settings.replacement = Some(Replacement { saving_lasts: Duration::from_mins(hours_as_minutes), price_of_a_move, ..rule() });
        successor(&scene.turn(start())).is_some()
    };
    assert!(replaced(60, 0.05));
    assert!(!replaced(60, 0.06), "one pod moves");
    assert!(replaced(6, 0.0));
    assert!(!replaced(5, 0.0), "what is saved in five minutes is less than the double pay");
}

#[test]
fn a_node_is_not_replaced_while_anything_stands_in_the_way() {
    type Change = fn(&mut Scene);
    let rows: [(&str, Change); 12] = [
        ("the rule is off", |scene| scene.settings.replacement = None),
        ("the pool wants more", |scene| *scene = scene.clone().busy(0.71, 0.5)),
        ("scale-down is off", |scene| scene.settings.scale_down.enabled = false),
        ("a pod waits that nothing can hold now", |scene| {
            scene.settings.pools[0].max = 3;
            scene.view.pods.push(Arc::new(pending("w", 1800)));
        }),
        ("at the maximum", |scene| scene.settings.pools[0].max = 3),
        ("the share wants it", |scene| scene.settings.pools[0].on_demand_base = 1),
        ("its pod may not move", |scene| scene.view.pods[0] = Arc::new(Pod { do_not_disrupt: true, ..running("a", 1500, "n0") })),
        ("its pod is bound to it", |scene| {
            let constraints = Constraints {
                node_selector: Selector(vec![Requirement {
                    key: "kubernetes.io/hostname".into(),
                    operator: Operator::In(["n0".to_owned()].into()),
                }]),
                ..Constraints::default()
            };
            scene.view.pods[0] = Arc::new(Pod { constraints: Arc::new(constraints), ..running("a", 1500, "n0") });
        }),
        ("it is young", |scene| scene.view.nodes.get_mut("n0").expect("the node").created = start()),
        ("metrics are missing", |scene| drop(scene.load.remove("n1"))),
        ("a cooldown runs", |scene| scene.memory.pools.entry("workers".into()).or_default().last_down = Some(start())),
        ("the budget forbids it", |scene| {
            let reasons = Some(["cheaper".to_owned()].into());
            scene.settings.pools[0].disruption = vec![Disruption { nodes: AtOnce::Nodes(0), reasons, schedule: None }];
        }),
    ];
    for (what, change) in rows {
        let mut scene = dear();
        change(&mut scene);
        assert_eq!(successor(&scene.turn(start())), None, "{what}");
    }
}

#[test]
fn a_node_whose_successor_never_came_is_left_alone_for_a_while() {
    let mut scene = dear();
    let plan = scene.turn(start());
    let failed = launch("op", launches(&plan)[0].clone(), LaunchState::Failed { failure: LaunchFailure::InsufficientCapacity });
    scene.memory = learn(&scene.settings, scene.memory, &failed, &[], after(1));
    scene.memory.offers.clear();
    let rest = scene.settings.rest.longest;
    for (minute, expected) in [
        (2, false),
        (i64::try_from(rest.as_secs() / 60).expect("small"), false),
        (i64::try_from(rest.as_secs() / 60).expect("small") + 2, true),
    ] {
        assert_eq!(successor(&scene.turn(after(minute))).is_some(), expected, "{minute}");
    }
}

#[test]
fn a_successor_that_still_boots_is_waited_for() {
    let mut scene = dear();
    let plan = scene.turn(start());
    let mut scene = scene.under_way(bought(&plan, false));
    let next = scene.turn(after(5 * 60));
    assert!(matches!(held(&next, "replacement"), Some(Hold::Underway { .. })), "{next:?}");
    assert!(!scene.memory.successions["n0"].failed);
}

#[test]
fn what_cannot_go_in_time_stays_for_a_day() {
    let mut scene = dear();
    let plan = scene.turn(start());
    join(&mut scene, &plan);
    // Somebody else has taken the room.
    scene.view.pods.push(Arc::new(running("d", 1500, "n9")));
    let mut scene = scene.under_way(bought(&plan, true));
    let join_timeout = i64::try_from(scene.settings.join_timeout.as_secs() / 60).expect("small");
    for minute in [4, 60 + join_timeout] {
        let next = scene.turn(after(minute));
        assert!(matches!(held(&next, "replacement"), Some(Hold::NoCandidate { .. })), "{minute}: {next:?}");
    }
    scene.turn(after(62 + join_timeout));
    let known = &scene.memory.successions["n0"];
    assert_eq!((known.failed, known.until), (true, after(62 + join_timeout + 24 * 60)));
}

#[test]
fn what_the_memory_lost_is_found_in_the_journal_and_what_never_was_is_dropped() {
    let plan = dear().turn(start());
    // The launch was journalled, and the memory was not.
    let mut scene = dear();
    join(&mut scene, &plan);
    let mut scene = scene.under_way(bought(&plan, true));
    assert_eq!(retirements(&scene.turn(after(2)))[0].reason.name(), "cheaper");
    // The memory was written, and the launch was not.
    let mut scene = dear();
    scene.turn(start());
    assert_eq!(successor(&scene.turn(after(2))), Some(("n0", ReplacementCause::Cheaper)), "it is decided anew");
    // One that has been given up is not taken up again.
    let mut scene = dear();
    scene.turn(start());
    scene.memory.successions.get_mut("n0").expect("it is known").failed = true;
    join(&mut scene, &plan);
    let mut scene = scene.under_way(bought(&plan, true));
    assert_eq!(retirements(&scene.turn(after(2))).len(), 0);
    assert!(scene.memory.successions["n0"].failed);
}

#[test]
fn a_replacement_whose_drain_was_rolled_back_is_not_tried_again_for_a_day() {
    let reason = RetireReason::Replaced { cause: ReplacementCause::Cheaper, evidence: "x".into() };
    let rolled_back = retire("n0", reason, RetireState::RolledBack { reason: "a webhook says no".into() });
    let mut scene = dear();
    scene.memory = learn(&scene.settings, scene.memory, &rolled_back, &[], start());
    for (minute, expected) in [(60, false), (24 * 60 - 1, false), (24 * 60, true)] {
        assert_eq!(successor(&scene.turn(after(minute))).is_some_and(|(node, _)| node == "n0"), expected, "{minute}");
    }
}

#[test]
fn a_rule_that_wants_the_nodes_gets_a_successor_for_each_and_bad_data_keeps_all() {
    let old = |busy: f64, value: Reading| {
        let mut scene = Scene::with_nodes(3).busy(busy, 0.4);
        scene.settings.pools[0].min = 1;
        scene.settings.pools[0].max_node_age = Some(Duration::from_hours(2));
        scene.view.nodes.get_mut("n1").expect("the node").created = start() - SignedDuration::from_hours(3);
        let rule = MetricRule {
            name: "queue".into(),
            pool: "workers".into(),
            query: "x".into(),
            goal: MetricGoal::PerNode(100.0),
            sustain: Duration::from_mins(4),
        };
        scene.settings.metrics.push(rule);
        scene.snapshot.metrics.insert("queue".into(), value);
        let plan = scene.turn(start());
        (launched(&plan), retirements(&plan).len(), held(&plan, "replacement"))
    };
    let value = |value| Reading::Value { value, sampled: start() };
    assert_eq!(old(0.4, value(50.0)), (0, 1, None), "one would do: the old one just goes");
    assert_eq!(old(0.4, value(300.0)), (1, 0, None), "three are wanted");
    assert_eq!(old(0.6, value(50.0)), (1, 0, None), "two would be too busy");
    let (bought, gone, hold) = old(0.4, Reading::Missing(crate::model::Missing::Empty));
    assert_eq!((bought, gone), (0, 0));
    assert!(matches!(hold, Some(Hold::BadData { .. })), "{hold:?}");
}

#[test]
fn on_demand_that_cannot_be_had_just_now_is_no_reason_to_give_up_the_base() {
    let replaced = |ceiling: Option<u64>| {
        let mut scene = dear();
        scene.settings.pools[0].on_demand_base = 1;
        scene.settings.price_ceiling = ceiling.map(HourlyPrice);
        successor(&scene.turn(start())).is_some()
    };
    assert!(!replaced(None));
    // Three cost 163,200: there is room for spot, and none for on-demand.
    assert!(!replaced(Some(200_000)));
}

#[test]
fn two_pools_do_not_spend_the_same_room_under_the_ceiling() {
    let mut scene = dear();
    let other = PoolSettings { name: "others".into(), min: 0, ..scene.settings.pools[0].clone() };
    scene.settings.pools.push(other);
    let of_others = scene.offers.iter().map(|offer| Offer { pool: "others".into(), ..offer.clone() }).collect::<Vec<_>>();
    scene.offers.extend(of_others);
    scene.instances[1].pool = Some("others".into());
    scene.instances[1].market = Market::OnDemand;
    scene.settings.price_ceiling = Some(HourlyPrice(96_000 * 2 + 33_600 * 2));
    // The turn holds its own plan against the invariants.
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 1, "{plan:?}");
}

#[test]
fn a_little_less_is_not_worth_it_where_prices_come_and_go() {
    let replaced = |price: u64| {
        let mut scene = dear();
        scene.settings.replacement = Some(Replacement { price_of_a_move: 0.0, ..rule() });
        scene.instances[0].market = Market::Spot;
        scene.snapshot.prices = Arc::new([(scene.offers[0].key.clone(), HourlyPrice(100_000))].into());
        for offer in &mut scene.offers {
            offer.price.0 = if offer.key.market == Market::Spot { price } else { 300_000 };
        }
        let known = |zone: &str| OfferKey { instance_type: "m4.large".into(), zone: zone.into(), market: Market::Spot };
        for (instance, zone) in scene.instances.iter_mut().zip(["a", "b", "a"]) {
            instance.instance_type = "m4.large".into();
            instance.zone = zone.into();
        }
        scene.snapshot.prices = Arc::new(["a", "b"].map(|zone| (known(zone), HourlyPrice(100_000))).into());
        successor(&scene.turn(start())).is_some()
    };
    assert!(replaced(85_000));
    assert!(!replaced(85_001));
}

#[test]
fn a_node_that_has_gone_needs_no_successor() {
    let mut scene = dear();
    let succession = Succession {
        pool: "workers".into(),
        cause: ReplacementCause::Cheaper,
        evidence: "x".into(),
        since: start(),
        failed: false,
        until: after(60),
    };
    scene.memory.successions.insert("n7".into(), succession);
    scene.turn(start());
    assert!(!scene.memory.successions.contains_key("n7"));
}

#[test]
fn an_old_node_is_replaced_at_its_age_or_up_to_a_tenth_before() {
    let replaced = |hours: i64| {
        let mut scene = dear();
        scene.settings.replacement = None;
        scene.settings.pools[0].max_node_age = Some(Duration::from_hours(100));
        scene.view.nodes.get_mut("n1").expect("the node").created = start() - SignedDuration::from_hours(hours);
        successor(&scene.turn(start())).map(|(node, cause)| (node.to_owned(), cause))
    };
    assert_eq!(replaced(89), None);
    assert_eq!(replaced(101), Some(("n1".to_owned(), ReplacementCause::Expired)));
}

#[test]
fn an_old_node_at_the_minimum_has_a_successor_even_if_its_pods_need_none() {
    let mut scene = Scene::with_nodes(2).busy(0.1, 0.1);
    scene.settings.pools[0].max_node_age = Some(Duration::from_hours(2));
    scene.view.nodes.get_mut("n1").expect("the node").created = start() - SignedDuration::from_hours(3);
    let plan = scene.turn(start());
    assert_eq!((successor(&plan).map(|(node, _)| node), launched(&plan)), (Some("n1"), 1));
    // Above it, it just goes.
    let mut scene = Scene::with_nodes(3).busy(0.1, 0.1).occupied();
    scene.settings.pools[0].max_node_age = Some(Duration::from_hours(2));
    scene.view.nodes.get_mut("n1").expect("the node").created = start() - SignedDuration::from_hours(3);
    let plan = scene.turn(start());
    assert_eq!(retirements(&plan).first().map(|order| order.reason.name()), Some("expired"), "{plan:?}");
    assert_eq!(launched(&plan), 0);
}

#[test]
fn a_node_that_should_be_replaced_and_cannot_be_says_why() {
    let mut scene = Scene::with_nodes(2).busy(0.1, 0.1).occupied();
    (scene.settings.pools[0].min, scene.settings.pools[0].max) = (2, 2);
    scene.settings.pools[0].max_node_age = Some(Duration::from_hours(2));
    scene.view.nodes.get_mut("n0").expect("the node").created = start() - SignedDuration::from_hours(1);
    scene.view.nodes.get_mut("n1").expect("the node").created = start() - SignedDuration::from_hours(3);
    let plan = scene.turn(start());
    let why = "n1: it is expired, but nothing can take its place: at the maximum of 2";
    assert_eq!(held(&plan, "replacement"), Some(Hold::NoCandidate { why: vec![why.into()] }));
    assert_eq!(held(&dear().turn(start()), "replacement"), None, "what is not worth it needs no words");
}

#[test]
fn a_node_from_an_old_launch_template_is_replaced_unless_nothing_is_known_of_it() {
    let replaced = |drifted: bool, has: Option<&str>, now: Option<&str>| {
        let mut scene = dear();
        scene.settings.replacement = Some(Replacement { drifted, saving_lasts: Duration::ZERO, ..rule() });
        scene.instances[1].template = has.map(ToOwned::to_owned);
        scene.snapshot.templates = now.map(|now| ("workers".into(), now.to_owned())).into_iter().collect();
        successor(&scene.turn(start())).map(|(node, cause)| (node.to_owned(), cause))
    };
    assert_eq!(replaced(true, Some("lt-1:1"), Some("lt-1:2")), Some(("n1".to_owned(), ReplacementCause::Drifted)));
    assert_eq!(replaced(false, Some("lt-1:1"), Some("lt-1:2")), None);
    assert_eq!(replaced(true, Some("lt-1:2"), Some("lt-1:2")), None);
    assert_eq!(replaced(true, None, Some("lt-1:2")), None);
    assert_eq!(replaced(true, Some("lt-1:1"), None), None);
}

#[test]
fn what_ec2_recommends_comes_first_if_it_is_followed_at_all() {
    let replaced = |recommended: bool| {
        let mut scene = dear();
        scene.settings.replacement = Some(Replacement { recommended, ..rule() });
        scene.memory.at_risk.insert("i-n2".into(), start());
        let plan = scene.turn(start());
        successor(&plan).map(|(node, cause)| (node.to_owned(), cause))
    };
    assert_eq!(replaced(true), Some(("n2".to_owned(), ReplacementCause::Recommended)));
    assert_eq!(replaced(false), Some(("n0".to_owned(), ReplacementCause::Cheaper)));
    let mut scene = dear();
    scene.memory.at_risk.insert("i-n2".into(), start());
    scene.turn(after(24 * 60 - 1));
    assert_eq!(scene.memory.at_risk.len(), 1);
    scene.turn(after(24 * 60));
    assert_eq!(scene.memory.at_risk.len(), 0);
}

#[test]
fn a_zone_with_two_nodes_more_loses_one_to_the_other() {
    let moved = |in_a: usize, dearer: u64| {
        let mut scene = Scene::with_nodes(0).busy(0.5, 0.5);
        scene.settings.replacement = Some(Replacement { balances_zones: true, ..rule() });
        (scene.settings.pools[0].on_demand_base, scene.settings.pools[0].spot_share) = (0, 1.0);
        for index in 0..=in_a {
            let (name, zone) = (format!("n{index}"), if index < in_a { "a" } else { "b" });
            scene.view.nodes.insert(name.as_str().into(), node(&name, zone));
            scene.instances.push(instance(&name, zone, Market::Spot));
            scene.view.pods.push(Arc::new(running(&format!("p{index}"), 1500, &name)));
        }
        let mut scene = scene.busy(0.5, 0.5);
        scene.offers = ["a", "b"].map(|zone| offer("m5.large", zone, Market::Spot, 100_000, capacity(1900, 7))).into();
        scene.offers[1].price.0 += dearer;
        let plan = scene.turn(start());
        successor(&plan).map(|(_, cause)| (cause, launches(&plan)[0].zone.to_string()))
    };
    let to_b = Some((ReplacementCause::Rebalanced, "b".to_owned()));
    assert_eq!(moved(2, 0), None);
    assert_eq!(moved(3, 0), to_b);
    assert_eq!(moved(3, 5_000), to_b);
    assert_eq!(moved(3, 5_001), None, "more than a twentieth dearer");
}

#[test]
fn the_smallest_budget_that_speaks_of_a_reason_holds() {
    let working_hours = Schedule::new("0 8 * * *", "0 18 * * *", "UTC").expect("a schedule");
    let mut pool = settings().pools.remove(0);
    let budget = |nodes, reasons: Option<&[&str]>, schedule| Disruption {
        nodes,
        reasons: reasons.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        schedule,
    };
    assert_eq!(pool.allows("underused", 10, start()), u32::MAX);
    pool.disruption = vec![
        budget(AtOnce::Nodes(3), None, None),
        budget(AtOnce::Share(0.1), Some(&["consolidated", "cheaper"]), None),
        budget(AtOnce::Nodes(0), Some(&["cheaper"]), Some(working_hours)),
    ];
    // The scenes begin at noon.
    let rows = [
        ("underused", 40, 0, 3),
        ("consolidated", 40, 0, 3),
        ("consolidated", 20, 0, 2),
        ("consolidated", 11, 0, 2),
        ("consolidated", 9, 0, 1),
        ("cheaper", 40, 0, 0),
        ("cheaper", 20, 12 * 60, 2),
    ];
    for (reason, nodes, minute, expected) in rows {
        assert_eq!(pool.allows(reason, nodes, after(minute)), expected, "{reason} of {nodes} after {minute} minutes");
    }
}

#[test]
fn a_budget_of_none_holds_an_idle_node() {
    let gone = |nodes| {
        let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
        scene.settings.pools[0].disruption = vec![Disruption { nodes, reasons: None, schedule: None }];
        let plan = scene.turns(0, 10);
        (retirements(&plan).len(), held(&plan, "scale_down"))
    };
    assert_eq!(gone(AtOnce::Nodes(1)), (1, None));
    assert_eq!(gone(AtOnce::Nodes(0)), (0, Some(Hold::Budget { reason: "underused".into() })));
}
