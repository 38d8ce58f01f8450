//! When capacity is added, and which.

use super::*;
use crate::model::Missing;
use crate::model::plan::{Hold, LaunchReason};
use crate::model::scheduling::{Constraints, Operator, PodAffinityTerm, Requirement, Selector};
use crate::model::snapshot::{DaemonSet, Pause};
use crate::policy::schedule::Schedule;
use crate::policy::{BoundsSchedule, MetricGoal, MetricRule};
use std::collections::BTreeSet;

#[test]
fn buys_for_an_unschedulable_pod_at_once() {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 1);
    assert_eq!(launches(&plan)[0].reason, LaunchReason::PendingPods { pods: 1 });
    assert_eq!(launches(&plan)[0].pods[0].name, "c");
}

#[test]
fn buys_nothing_for_a_pod_that_is_pending_for_another_reason() {
    let mut image_does_not_pull = pod("c", 1000);
    image_does_not_pull.node = Some("n0".into());
    let mut gated = pending("d", 1000);
    gated.gated = true;
    let mut nominated = pending("e", 1000);
    nominated.nominated_node = Some("n0".into());
    let mut placeholder = pending("f", 1500);
    placeholder.priority = -11;
    let full = [running("a", 1800, "n0"), running("b", 1800, "n1")];
    let mut scene = Scene::with_nodes(2).pods(full).pods([image_does_not_pull, gated, nominated, placeholder]);
    assert_eq!(launched(&scene.turn(start())), 0);
}

#[test]
fn buys_nothing_for_a_pod_that_no_node_of_ours_could_take_and_says_so() {
    let mut scene = Scene::with_nodes(2).pods([pending("giant", 64_000)]);
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 0);
    assert_eq!(plan.unplaceable.len(), 1);
    assert!(plan.unplaceable[0].why.contains("cpu"), "{}", plan.unplaceable[0].why);
}

#[test]
fn subtracts_what_daemon_sets_will_take_on_the_new_node() {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 3800)]);
    assert_eq!(launches(&scene.clone().turn(start()))[0].instance_types[0].as_str(), "m5.xlarge");
    let requests = Resources { cpu: MilliCpu(200), pods: 1, ..Resources::default() };
    scene.view.daemon_sets.push(DaemonSet {
        namespace: "kube-system".into(),
        name: "agent".into(),
        labels: Labels::new(),
        requests,
        constraints: Constraints::default(),
    });
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 0);
    assert_eq!(plan.unplaceable.len(), 1);
}

#[test]
fn packs_many_pods_into_few_nodes_in_both_zones() {
    let pods = (0..12).map(|index| pending(&format!("p{index:02}"), 900));
    let full = [running("a", 1800, "n0"), running("b", 1800, "n1")];
    let plan = Scene::with_nodes(2).pods(full).pods(pods).turn(start());
    let pods_served: u32 =
        launches(&plan).iter().map(|order| if let LaunchReason::PendingPods { pods } = order.reason { pods } else { 0 }).sum();
    assert_eq!(pods_served, 12);
    let in_zone = |zone: &str| launches(&plan).iter().filter(|order| order.zone.as_str() == zone).map(|order| order.count).sum::<u32>();
    assert!(in_zone("a").abs_diff(in_zone("b")) <= 1, "a {} b {}", in_zone("a"), in_zone("b"));
    assert!(launched(&plan) <= 6);
}

#[test]
fn keeps_the_spot_share_above_the_on_demand_base() {
    let pods = (0..8).map(|index| pending(&format!("p{index}"), 1800));
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1")]).pods(pods);
    scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 8);
    let on_demand: u32 = launches(&plan).iter().filter(|order| order.market == Market::OnDemand).map(|order| order.count).sum();
    // Ten in all: one as the base, thirty per cent of the nine above it.
    assert_eq!(on_demand, 2);
}

#[test]
fn never_buys_beyond_the_maximum_launching_instances_included() {
    let pods = (0..30).map(|index| pending(&format!("p{index:02}"), 3800));
    let plan = Scene::with_nodes(4).pods(pods).turn(start());
    assert_eq!(launched(&plan), 6);
    let held =
        plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "pending_pods").and_then(|finding| finding.hold.clone());
    assert_eq!(held, Some(Hold::AtMaximum { max: 10 }));
}

#[test]
fn the_price_ceiling_is_a_bound_as_well() {
    let pods = (0..30).map(|index| pending(&format!("p{index:02}"), 1800));
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1")]).pods(pods);
    scene.settings.price_ceiling = Some(HourlyPrice(300_000));
    let plan = scene.turn(start());
    let spent: u64 = launches(&plan).iter().map(|order| order.price.0 * u64::from(order.count)).sum();
    assert!(launched(&plan) > 0 && spent + 96_000 + 33_600 <= 300_000, "{spent}");
}

#[test]
fn what_boots_already_is_not_bought_again() {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let plan = scene.turn(start());
    scene.snapshot.operations.insert("op".into(), begun("op", launches(&plan)[0].clone()));
    assert_eq!(launched(&scene.turn(after(1))), 0);
}

#[test]
fn what_boots_is_not_bought_again_when_its_type_is_no_longer_to_be_had() {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let plan = scene.turn(start());
    scene.snapshot.operations.insert("op".into(), begun("op", launches(&plan)[0].clone()));
    let bought = launches(&plan)[0].instance_types.clone();
    scene.offers.retain(|offer| !bought.contains(&offer.key.instance_type));
    assert!(!scene.offers.is_empty());
    assert_eq!(launched(&scene.turn(after(1))), 0);
}

#[test]
fn fills_up_to_the_minimum_at_once() {
    let mut scene = Scene::with_nodes(0);
    scene.memory.pools.entry("workers".into()).or_default().last_rule_up = Some(start());
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 2);
    assert!(launches(&plan).iter().all(|order| order.reason == LaunchReason::BelowMinimum));
}

#[test]
fn seventy_one_per_cent_for_four_minutes_buys() {
    let mut scene = Scene::with_nodes(4).busy(0.71, 0.5);
    assert_eq!(launched(&scene.turn(after(0))), 0);
    assert_eq!(launched(&scene.turn(after(2))), 0);
    let plan = scene.turn(after(4));
    // 4 x 1.9 cores at 71 % are 5.4 cores in use; at 60 % they need 9, that is 1.4 more.
    assert_eq!(launched(&plan), 1);
    assert!(matches!(&launches(&plan)[0].reason, LaunchReason::Rule { rule, .. } if rule.as_str() == "cpu"));
}

#[test]
fn a_spike_of_two_minutes_and_sixty_nine_per_cent_do_not_buy() {
    let mut spike = Scene::with_nodes(4).busy(0.95, 0.5);
    assert_eq!(launched(&spike.turns(0, 2)), 0);
    let mut spike = spike.busy(0.5, 0.5);
    assert_eq!(launched(&spike.turns(4, 4)), 0);
    let mut spike = spike.busy(0.95, 0.5);
    assert_eq!(launched(&spike.turns(6, 8)), 0);
    assert_eq!(launched(&Scene::with_nodes(4).busy(0.69, 0.5).turns(0, 60)), 0);
}

#[test]
fn a_high_load_buys_proportionally_and_not_one_by_one() {
    let plan = Scene::with_nodes(4).busy(1.0, 0.5).turns(0, 4);
    // 7.6 cores in use at 60 % are 12.7, that is 5.1 more.
    let bought: u64 = launches(&plan)
        .iter()
        .map(|order| u64::from(order.count) * if order.instance_types[0].as_str() == "m5.large" { 1900 } else { 3900 })
        .sum();
    assert!((5066..=8000).contains(&bought), "{bought}");
}

#[test]
fn memory_above_seventy_five_per_cent_buys() {
    let plan = Scene::with_nodes(4).busy(0.2, 0.80).turns(0, 4);
    assert!(launched(&plan) >= 1);
}

#[test]
fn what_pods_buy_holds_no_rule() {
    let mut scene = Scene::with_nodes(4).busy(0.9, 0.5).pods([pending("big", 3800)]);
    assert_eq!(launched(&scene.turn(after(2))), 1);
    scene.view.pods.clear();
    let plan = [4, 6].into_iter().map(|minutes| scene.turn(after(minutes))).find(|plan| launched(plan) > 0).expect("the rule buys");
    assert!(matches!(&launches(&plan)[0].reason, LaunchReason::Rule { rule, .. } if rule.as_str() == "cpu"));
}

#[test]
fn the_cooldown_holds_rules_but_not_pending_pods() {
    let mut scene = Scene::with_nodes(4).busy(0.9, 0.5);
    scene.memory.pools.entry("workers".into()).or_default().last_rule_up = Some(after(3));
    let plan = scene.turns(0, 4);
    assert_eq!(launched(&plan), 0);
    let cpu = plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "cpu").expect("the rule reports");
    assert_eq!(cpu.hold, Some(Hold::CoolingDown { until: after(8) }));
    let mut scene = scene.pods([pending("big", 3800)]);
    assert_eq!(launched(&scene.turn(after(5))), 1);
}

#[test]
fn missing_metrics_abstain_and_break_the_streak() {
    let mut scene = Scene::with_nodes(4).busy(0.9, 0.5);
    scene.turns(0, 2);
    let missing = Reading::Missing(Missing::Nonsense { value: "NaN".into() });
    let kept = scene.load.clone();
    scene.load.get_mut("n0").expect("the node").cpu = missing;
    let plan = scene.turn(after(4));
    assert_eq!(launched(&plan), 0);
    let cpu = plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "cpu").expect("the rule reports");
    assert!(matches!(&cpu.hold, Some(Hold::BadData { why }) if why.contains("n0")), "{cpu:?}");
    scene.load = kept;
    assert_eq!(launched(&scene.turn(after(6))), 0, "one reading after the gap is not enough");
}

#[test]
fn a_turn_that_did_not_ask_prometheus_leaves_streaks_alone() {
    let mut scene = Scene::with_nodes(4).busy(0.9, 0.5);
    scene.turns(0, 2);
    let urgent = Snapshot { utilisation: Observed::Unknown(Missing::NotAsked), ..scene.observed(after(3)) };
    scene.turn_with(&urgent, after(3));
    assert!(launched(&scene.turn(after(4))) > 0);
}

#[test]
fn an_offer_without_capacity_rests_and_another_takes_its_place() {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let first = launches(&scene.clone().turn(start()))[0].clone();
    for instance_type in ["m5.large", "m5.xlarge"] {
        let key = OfferKey { instance_type: instance_type.into(), zone: first.zone.clone(), market: first.market };
        scene
            .memory
            .offers
            .insert(key, Rest { until: after(5), failures: 1, since: start(), why: "insufficient capacity".into(), stopped: false });
    }
    let plan = scene.turn(start());
    assert_eq!(launched(&plan), 1);
    assert_ne!((&launches(&plan)[0].zone, launches(&plan)[0].market), (&first.zone, first.market));
}

#[test]
fn on_demand_takes_the_place_of_spot_when_no_spot_is_to_be_had() {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    for offer in scene.offers.iter().filter(|offer| offer.key.market == Market::Spot) {
        scene.memory.offers.insert(
            offer.key.clone(),
            Rest { until: after(5), failures: 1, since: start(), why: "insufficient capacity".into(), stopped: false },
        );
    }
    let plan = scene.turn(start());
    assert_eq!(launches(&plan)[0].market, Market::OnDemand);
    assert!(plan.alerts.iter().any(|alert| alert.name == "spot_exhausted"));
}

#[test]
fn nothing_is_bought_while_paused() {
    let mut scene = Scene::with_nodes(0).pods([pending("c", 1000)]);
    scene.snapshot.pause = Some(Pause { since: start(), by: "ada".into(), reason: "maintenance".into() });
    let plan = scene.turn(start());
    assert_eq!(plan.actions, []);
    assert!(matches!(&plan.holds[0], Hold::Paused { reason } if reason.contains("ada")));
}

#[test]
fn nothing_is_decided_without_kubernetes_or_ec2() {
    let mut scene = Scene::with_nodes(0);
    let down = || Missing::Unreachable { why: "connection refused".into() };
    for snapshot in [
        Snapshot { cluster: Observed::Unknown(down()), ..scene.observed(start()) },
        Snapshot { instances: Observed::Unknown(down()), ..scene.observed(start()) },
    ] {
        let plan = scene.turn_with(&snapshot, start());
        assert_eq!(plan.actions, []);
        assert!(matches!(plan.holds[..], [Hold::Blind { .. }]));
    }
}

#[test]
fn anti_affinity_over_hosts_takes_a_node_for_each_pod() {
    let apart = Constraints {
        pod_anti_affinity: vec![PodAffinityTerm {
            selector: Some(Selector(vec![Requirement { key: "app".into(), operator: Operator::In(BTreeSet::from(["db".into()])) }])),
            namespaces: Some(BTreeSet::from(["default".into()])),
            topology_key: "kubernetes.io/hostname".into(),
        }],
        ..Constraints::default()
    };
    let (constraints, labels) = (Arc::new(apart), Arc::new(Labels::from([("app".into(), "db".into())])));
    let pods = (0..3).map(|index| Pod {
        constraints: Arc::clone(&constraints),
        labels: Arc::clone(&labels),
        ..pending(&format!("db-{index}"), 100)
    });
    let plan = Scene::with_nodes(0).pods(pods).turn(start());
    assert_eq!(launched(&plan), 3);
}

#[test]
fn a_volume_draws_the_node_into_its_zone() {
    let bound = Constraints { volume_zones: vec![BTreeSet::from(["b".into()])], ..Constraints::default() };
    let full = [running("a", 1800, "n0"), running("b", 1800, "n1")];
    let plan = Scene::with_nodes(2).pods(full).pods([Pod { constraints: Arc::new(bound), ..pending("db", 1000) }]).turn(start());
    assert_eq!(launches(&plan)[0].zone.as_str(), "b");
}

#[test]
fn a_queue_buys_its_share_of_nodes() {
    let mut scene = Scene::with_nodes(2);
    scene.settings.metrics.push(MetricRule {
        name: "queue".into(),
        pool: "workers".into(),
        query: "sum(queue_depth)".into(),
        goal: MetricGoal::PerNode(100.0),
        sustain: Duration::from_mins(2),
    });
    scene.snapshot.metrics.insert("queue".into(), Reading::Value { value: 450.0, sampled: start() });
    assert_eq!(launched(&scene.turn(after(0))), 0);
    assert_eq!(launched(&scene.turn(after(2))), 3);
}

#[test]
fn a_schedule_changes_the_bounds() {
    let mut scene = Scene::with_nodes(2);
    let schedule = Schedule::new("0 9 * * *", "0 21 * * *", "UTC").expect("a schedule");
    scene.settings.pools[0].schedules.push(BoundsSchedule { schedule, min: 5, max: 10 });
    assert_eq!(launched(&scene.turn(start())), 3, "at noon");
    assert_eq!(launched(&scene.turn(after(12 * 60))), 0, "at midnight");
}

#[test]
fn what_nodes_of_a_type_really_have_is_learnt() {
    let wants = 1800;
    let mut scene = Scene::with_nodes(1).pods([running("a", 200, "n0"), pending("w", wants)]);
    scene.settings.pools[0].min = 0;
    scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
    assert_eq!(launched(&scene.turn(start())), 1, "an empty m5.large is said to have 1900m");
    scene.view.nodes.get_mut("n0").expect("the node").allocatable.cpu = MilliCpu(1700);
    let plan = scene.turn(start());
    assert_eq!((launched(&plan), plan.unplaceable_pods), (0, 1), "the one that there is has 1700m: another would not take it either");
    // Only its daemon sets and its labels tell it from another; one that is not Ready tells nothing.
    scene.view.nodes.clear();
    scene.instances.clear();
    assert_eq!(scene.turn(after(60)).unplaceable_pods, 1, "it is remembered");
    assert_eq!(scene.turn(after(25 * 60)).unplaceable_pods, 0, "for a day");
}

#[test]
fn extended_resources_are_not_learnt_from_nodes_whose_plugin_does_not_run_yet() {
    let gpu = |resources: &mut Resources| resources.extended.extend([("nvidia.com/gpu".to_owned(), 1)]);
    let mut waits = pending("w", 100);
    gpu(&mut waits.requests);
    let mut scene = Scene::with_nodes(1).pods([waits]);
    scene.settings.pools[0].min = 0;
    scene.offers.iter_mut().for_each(|offer| gpu(&mut offer.allocatable));
    let plan = scene.turn(start());
    assert_eq!((launched(&plan), plan.unplaceable_pods), (1, 0));
}

#[test]
fn how_many_volumes_a_node_attaches_is_learnt_and_bought_for() {
    let ebs = |resources: &mut Resources, volumes: u64| {
        resources.extended.insert(format!("{}ebs.csi.aws.com", crate::model::resources::ATTACHABLE_VOLUMES), volumes);
    };
    let waits = |index: usize| {
        let mut pod = pending(&format!("w{index}"), 100);
        ebs(&mut pod.requests, 1);
        pod
    };
    let mut scene = Scene::with_nodes(1).pods((0..6).map(waits));
    scene.settings.pools[0].min = 0;
    scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
    scene.view.nodes.get_mut("n0").expect("the node").cordoned = true;
    assert_eq!(launched(&scene.clone().turn(start())), 1, "nobody says that there is a limit");
    let limited = |node: &mut Node| ebs(&mut node.allocatable, 2);
    let mut scene = scene.with("n0", |node| node.cordoned = false).with("n0", limited);
    assert_eq!(launched(&scene.turn(start())), 2, "two volumes are there, and two for each new node");
    let mut scene = scene.with("n0", |node| node.allocatable.extended.clear()).pods([running("full", 1900, "n0")]);
    assert_eq!(launched(&scene.turn(after(1))), 3, "a node whose driver says nothing yet is no proof that there is no limit");
}

#[test]
fn the_price_is_told_before_and_after() {
    let prices = |plan: &Plan| (plan.pools[0].price.0, plan.pools[0].price_after.0);
    let mut quiet = Scene::with_nodes(2);
    let plan = quiet.turn(start());
    let now = prices(&plan).0;
    assert_eq!(prices(&plan), (now, now));
    let mut grows = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("w", 1800), pending("v", 1800)]);
    let plan = grows.turn(start());
    let bought: u64 = launches(&plan).iter().map(|order| order.price.0 * u64::from(order.count)).sum();
    assert!(bought > 0);
    assert_eq!(prices(&plan), (now, now + bought));
    let mut shrinks = Scene::with_nodes(3).busy(0.1, 0.1);
    let plan = shrinks.turns(0, 10);
    assert_eq!(retirements(&plan).len(), 1);
    let spot = 33_600;
    assert_eq!(prices(&plan), (now + spot, now), "the spot node goes");
}

#[test]
fn a_large_pod_buys_no_room_for_those_that_have_it_already() {
    let types = [("m5.large", 1900, 96_000), ("m5.4xlarge", 15_500, 700_000), ("m5.xlarge", 3900, 192_000)];
    let mut scene = Scene::with_nodes(0);
    scene.offers = types.iter().map(|(name, cpu, price)| offer(name, "a", Market::OnDemand, *price, capacity(*cpu, 60))).collect();
    (scene.settings.pools[0].min, scene.settings.pools[0].max, scene.settings.pools[0].spot_share) = (0, 10_000, 0.0);
    let mut scene = scene.pods((0..900).map(|index| pending(&format!("w{index:04}"), 600)));
    let plan = scene.turn(start());
    let begun = launches(&plan).into_iter().enumerate().map(|(number, order)| begun(&format!("op-{number}"), order.clone()));
    scene.snapshot.operations = begun.map(|operation| (operation.id().clone(), operation)).collect();
    assert_eq!(launched(&scene.turn(start())), 0);
    let mut scene = scene.pods([pending("large", 3000)]);
    let plan = scene.turn(start());
    assert_eq!((launched(&plan), launches(&plan)[0].instance_types[0].as_str()), (1, "m5.xlarge"), "{:?}", plan.actions);
}
