//! When a node goes, and which.

use super::*;
use crate::model::Missing;
use crate::model::operation::LaunchFailure;
use crate::model::plan::{Hold, RetireReason};
use crate::model::scheduling::{Constraints, Operator, PodAffinityTerm, Requirement, Selector};
use crate::model::snapshot::{DisruptionBudget, Pause};
use crate::policy::learn;
use crate::policy::schedule::Schedule;
use crate::policy::{BoundsSchedule, Consolidation};

/// Three idle nodes; n2 carries the least.
fn idle() -> Scene {
    let pods = [running("a", 900, "n0"), running("b", 600, "n1"), running("c", 100, "n2")];
    Scene::with_nodes(3).pods(pods).busy(0.1, 0.1)
}

fn hold(plan: &Plan) -> Option<Hold> {
    plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "scale_down").and_then(|finding| finding.hold.clone())
}

fn first(plan: &Plan) -> Option<&str> {
    retirements(plan).first().and_then(|order| order.node.as_ref()).map(|node| node.name.as_str())
}

#[test]
fn gives_the_least_loaded_node_back_after_ten_idle_minutes() {
    let mut scene = idle();
    assert_eq!(retirements(&scene.turns(0, 8)).len(), 0);
    let plan = scene.turn(after(10));
    assert_eq!(first(&plan), Some("n2"));
    assert!(matches!(retirements(&plan)[0].reason, RetireReason::Underused { .. }));
    scene.memory.pools.get_mut("workers").expect("the pool").last_down = None;
    let node = scene.view.nodes.get_mut("n1").expect("the node");
    node.keep = Some("node-fleet.io/do-not-remove".into());
    let findings = scene.turn(after(10)).pools.remove(0).findings;
    let passed_over = findings.into_iter().find(|finding| finding.wants < 0).map(|finding| finding.passed_over);
    assert_eq!(passed_over, Some(vec!["n1: it is annotated node-fleet.io/do-not-remove".to_owned()]));
}

#[test]
fn never_goes_below_the_minimum() {
    let plan = Scene::with_nodes(2).busy(0.01, 0.01).turns(0, 120);
    assert_eq!(retirements(&plan).len(), 0);
    assert_eq!(hold(&plan), Some(Hold::AtMinimum { min: 2 }));
}

#[test]
fn whatever_is_missing_or_doubtful_keeps_every_node() {
    type Change = fn(&mut Scene, &mut Snapshot);
    let rows: [(&str, Change); 6] = [
        ("Prometheus down", |_, snapshot| snapshot.utilisation = Observed::Unknown(Missing::Unreachable { why: "refused".into() })),
        ("empty answer", |_, snapshot| {
            snapshot.utilisation = Observed::Known { value: UtilisationReport { nodes: BTreeMap::new(), warming_up: false }, at: start() }
        }),
        ("one node missing", |scene, snapshot| {
            let mut nodes = scene.load.clone();
            nodes.remove("n1");
            snapshot.utilisation = Observed::Known { value: UtilisationReport { nodes, warming_up: false }, at: start() };
        }),
        ("stale memory", |scene, snapshot| {
            let mut nodes = scene.load.clone();
            nodes.get_mut("n1").expect("the node").memory = Reading::Missing(Missing::Stale { sampled: start() });
            snapshot.utilisation = Observed::Known { value: UtilisationReport { nodes, warming_up: false }, at: start() };
        }),
        ("Prometheus restarted", |scene, snapshot| {
            snapshot.utilisation =
                Observed::Known { value: UtilisationReport { nodes: scene.load.clone(), warming_up: true }, at: start() };
        }),
        ("Kubernetes down", |_, snapshot| snapshot.cluster = Observed::Unknown(Missing::Unreachable { why: "refused".into() })),
    ];
    for (what, change) in rows {
        let mut scene = idle();
        scene.turns(0, 8);
        let mut snapshot = scene.observed(after(10));
        change(&mut scene, &mut snapshot);
        assert_eq!(retirements(&scene.turn_with(&snapshot, after(10))).len(), 0, "{what}");
    }
    assert_eq!(retirements(&idle().turns(0, 10)).len(), 1, "and with everything in order one goes");
}

/// The load of the pool is known in full, and an answer with holes elsewhere is still no ground to give a node of it back.
#[test]
fn holes_in_another_pools_readings_keep_every_node() {
    let gone = |unknown: usize| {
        let mut scene = idle();
        scene.settings.min_coverage = 0.8;
        let mut others = Scene::with_nodes(6);
        for n in 3..6 {
            let name = format!("n{n}");
            let mut instance = others.instances.remove(3);
            instance.pool = Some("others".into());
            scene.instances.push(instance);
            let node = others.view.nodes.remove(name.as_str()).expect("the node");
            scene.view.nodes.insert(name.as_str().into(), node);
            scene.load.insert(name.as_str().into(), scene.load["n0"].clone());
        }
        let pool = PoolSettings { name: "others".into(), min: 3, max: 3, ..scene.settings.pools[0].clone() };
        scene.settings.pools.push(pool);
        for n in 3..3 + unknown {
            scene.load.remove(format!("n{n}").as_str());
        }
        (0..=5).map(|turn| retirements(&scene.turn(after(2 * turn))).len()).sum::<usize>()
    };
    assert_eq!(gone(0), 1);
    assert_eq!(gone(1), 1, "five of six are enough");
    assert_eq!(gone(2), 0);
    assert_eq!(gone(3), 0);
}

#[test]
fn a_node_that_must_not_go_stays_and_says_why() {
    type Change = fn(&mut Scene);
    let rows: [(&str, Change, &str); 9] = [
        (
            "annotated",
            |scene| scene.view.nodes.get_mut("n2").expect("the node").keep = Some("node-fleet.io/do-not-remove".into()),
            "do-not-remove",
        ),
        ("young", |scene| scene.view.nodes.get_mut("n2").expect("the node").created = after(5), "younger"),
        ("a server", |scene| scene.view.nodes.get_mut("n2").expect("the node").control_plane = true, "server"),
        ("cordoned by hand", |scene| scene.view.nodes.get_mut("n2").expect("the node").cordoned = true, "cordoned"),
        ("critical pod", |scene| change_pod(scene, |pod| pod.priority = 2_000_000_000), "critical"),
        ("not safe to evict", |scene| change_pod(scene, |pod| pod.safe_to_evict = Some(false)), "safe-to-evict"),
        ("do not disrupt", |scene| change_pod(scene, |pod| pod.do_not_disrupt = true), "do-not-disrupt"),
        ("no controller", |scene| change_pod(scene, |pod| pod.owner = Owner::Nobody), "no controller"),
        ("kube-system without a budget", |scene| change_pod(scene, |pod| pod.key.namespace = "kube-system".into()), "kube-system"),
    ];
    for (what, change, word) in rows {
        let mut scene = idle();
        scene.settings.pools[0].min = 1;
        change(&mut scene);
        scene.turns(0, 8);
        let plan = scene.turn(after(10));
        assert_ne!(first(&plan), Some("n2"), "{what}");
        for other in ["n0", "n1"] {
            scene.view.nodes.get_mut(other).expect("the node").keep = Some("node-fleet.io/do-not-remove".into());
        }
        scene.memory.pools.get_mut("workers").expect("the pool").last_down = None;
        let Some(Hold::NoCandidate { why }) = hold(&scene.turn(after(12))) else { panic!("{what}: somebody goes") };
        assert!(why.iter().any(|line| line.starts_with("n2") && line.contains(word)), "{what}: {why:?}");
    }
}

fn change_pod(scene: &mut Scene, change: impl Fn(&mut Pod)) {
    for pod in &mut scene.view.pods {
        if pod.node == Some("n2".into()) {
            change(Arc::make_mut(pod));
        }
    }
}

#[test]
fn pods_that_only_another_pool_could_take_do_not() {
    let turns = |millis| {
        let mut scene = idle().pods([pending("w", millis)]);
        let full = PoolSettings { name: "other".into(), min: 0, max: 0, ..scene.settings.pools[0].clone() };
        let large = |offer: &Offer| Offer { pool: "other".into(), allocatable: capacity(63_000, 250), ..offer.clone() };
        scene.offers.extend(scene.offers.clone().iter().map(large));
        scene.settings.pools.push(full);
        rest_everywhere(&mut scene);
        scene.turns(0, 10)
    };
    assert_eq!(hold(&turns(1_900)), Some(Hold::PodsWaiting { pods: 1 }), "a node of either pool would take it");
    let plan = turns(32_000);
    assert!(plan.unplaceable.is_empty() && plan.pools[1].findings[0].hold == Some(Hold::AtMaximum { max: 0 }));
    assert_eq!(first(&plan), Some("n2"));
}

#[test]
fn a_budget_that_allows_nothing_now_forbids() {
    let mut scene = idle();
    let budget = |allowed| DisruptionBudget { namespace: "default".into(), name: "b".into(), selector: Some(Selector::default()), allowed };
    scene.view.budgets = vec![budget(0)];
    assert!(matches!(hold(&scene.clone().turns(0, 10)), Some(Hold::NoCandidate { .. })));
    scene.view.budgets = vec![budget(1)];
    assert_eq!(first(&scene.turns(0, 10)), Some("n2"));
}

#[test]
fn a_node_whose_pods_fit_nowhere_else_stays() {
    let pods = [running("a", 1800, "n0"), running("b", 1800, "n1"), running("c", 1800, "n2")];
    let mut scene = Scene::with_nodes(3).pods(pods).busy(0.1, 0.1);
    (scene.settings.pools[0].min, scene.settings.pools[0].on_demand_base) = (1, 0);
    let Some(Hold::NoCandidate { why }) = hold(&scene.turns(0, 10)) else { panic!("a node goes") };
    assert!(why.len() == 3 && why.iter().all(|line| line.contains("find no place")), "{why:?}");
}

#[test]
fn pods_that_wait_keep_every_node() {
    let mut scene = idle().pods([pending("w", 3_000)]);
    assert_eq!(hold(&scene.clone().turns(0, 10)), Some(Hold::Underway { operation: "of this turn".into() }));
    rest_everywhere(&mut scene);
    assert_eq!(hold(&scene.turns(0, 10)), Some(Hold::PodsWaiting { pods: 1 }));
}

#[test]
fn a_pod_that_waits_for_more_than_the_maximum_keeps_no_node() {
    let mut scene = idle().pods([pending("w", 3_000)]);
    scene.settings.pools[0].max = 3;
    let plan = scene.turns(0, 10);
    assert_eq!((first(&plan), launched(&plan)), (Some("n2"), 0), "it makes way for a node that could take it");
    scene.settings.pools[0].max = 2;
    assert_eq!(retirements(&scene.turns(20, 20))[0].reason, RetireReason::AboveMaximum);
}

#[test]
fn pods_that_no_node_could_ever_serve_keep_none() {
    let placeholder = Pod { priority: -100, ..pending("placeholder", 3_000) };
    let plan = idle().pods([pending("huge", 64_000), placeholder]).turns(0, 10);
    assert_eq!(first(&plan), Some("n2"));
    assert_eq!((plan.pending, plan.unplaceable_pods), (2, 1));
}

#[test]
fn a_node_that_is_not_ready_does_not_count_towards_the_minimum() {
    let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
    scene.settings.max_unready_share = 0.5;
    scene.view.nodes.get_mut("n2").expect("the node").readiness = Readiness::NotReady { since: start() };
    assert_eq!(hold(&scene.turns(0, 10)), Some(Hold::AtMinimum { min: 2 }));
}

#[test]
fn a_node_that_stays_unready_is_replaced_and_a_sick_network_is_not() {
    let sick = |names: &[&str]| {
        let mut scene = Scene::with_nodes(4);
        for name in names {
            scene.view.nodes.get_mut(*name).expect("the node").readiness = Readiness::NotReady { since: start() };
        }
        scene.turns(0, 30)
    };
    let plan = sick(&["n3"]);
    assert!(matches!(retirements(&plan)[0].reason, RetireReason::Unhealthy { .. }), "{plan:?}");
    assert_eq!(retirements(&sick(&["n2", "n3"])).len(), 0);
}

#[test]
fn nothing_is_given_back_for_being_no_node_while_a_node_cannot_be_identified() {
    let mut scene = Scene::with_nodes(3);
    scene.view.nodes.get_mut("n2").expect("the node").instance = None;
    let plan = scene.turns(0, 60);
    assert_eq!(retirements(&plan).len(), 0);
    assert!(plan.alerts.iter().any(|alert| alert.name == "node_unidentified" && alert.text.contains("n2")), "{:?}", plan.alerts);
}

#[test]
fn more_than_a_fifth_unready_halts_scale_down() {
    let mut scene = Scene::with_nodes(4).busy(0.1, 0.1);
    scene.view.nodes.get_mut("n3").expect("the node").readiness = Readiness::NotReady { since: start() };
    assert_eq!(hold(&scene.turns(0, 10)), Some(Hold::UnreadyNodes { unready: 1, total: 4 }));
}

#[test]
fn cooldowns_run_after_additions_and_removals() {
    for change in [
        |memory: &mut crate::model::memory::PoolMemory| memory.last_up = Some(after(5)),
        |memory: &mut crate::model::memory::PoolMemory| memory.last_down = Some(after(5)),
    ] {
        let mut scene = idle();
        scene.turns(0, 8);
        change(scene.memory.pools.get_mut("workers").expect("the pool"));
        assert_eq!(hold(&scene.turn(after(10))), Some(Hold::CoolingDown { until: after(15) }));
    }
}

#[test]
fn nothing_goes_while_paused() {
    let mut scene = idle();
    scene.turns(0, 8);
    scene.snapshot.pause = Some(Pause { since: start(), by: "ada".into(), reason: "maintenance".into() });
    assert_eq!(scene.turn(after(10)).actions, []);
}

#[test]
fn off_peak_shrinks_to_the_minimum_whatever_the_load() {
    let mut scene = idle().busy(0.3, 0.2);
    let schedule = Schedule::new("0 12 * * *", "0 20 * * *", "UTC").expect("a schedule");
    scene.settings.pools[0].schedules.push(BoundsSchedule { schedule, min: 2, max: 2 });
    let plan = scene.turn(after(2));
    assert_eq!(retirements(&plan)[0].reason, RetireReason::AboveMaximum);
    assert!(scene.memory.pools["workers"].last_down.is_some());
}

#[test]
fn a_removal_that_would_empty_a_zone_or_break_the_on_demand_base_comes_last() {
    // n0 and n2 are in zone a, n1 and n3 in b; n0 is the on-demand base.
    let mut scene = Scene::with_nodes(4).busy(0.1, 0.1);
    let plan = scene.turns(0, 10);
    assert_eq!(first(&plan), Some("n1"), "ties are broken by name, and n0 is the on-demand base");
    scene.view.nodes.remove("n1");
    scene.instances.retain(|instance| instance.id.as_str() != "i-n1");
    let mut scene = scene.busy(0.1, 0.1);
    let plan = scene.turns(12, 20);
    assert_eq!(first(&plan), Some("n2"), "n3 is alone in its zone");
}

#[test]
fn nodes_leave_together_as_far_as_their_share_the_minimum_and_their_pods_allow() {
    let gone = |share: f64, pods: Vec<Pod>| {
        let mut scene = Scene::with_nodes(10).pods(pods).busy(0.1, 0.1);
        scene.settings.scale_down.share_at_once = share;
        retirements(&scene.turns(0, 10)).len()
    };
    let small = || (0..10).map(|index| running(&format!("p{index}"), 100, &format!("n{index}"))).collect();
    assert_eq!(gone(0.1, small()), 1);
    assert_eq!(gone(0.3, small()), 3);
    assert_eq!(gone(1.0, small()), 8, "two are the minimum");
    assert_eq!(gone(0.1, Vec::new()), 8, "without pods the share is no matter");
    // A third of a node each: three fit on a node.
    let thirds = || (0..10).map(|index| running(&format!("p{index}"), 600, &format!("n{index}"))).collect();
    assert_eq!(gone(1.0, thirds()), 6, "ten pods of 600m need four nodes of 1900m");
    assert_eq!(gone(1.0, (0..10).map(|index| running(&format!("p{index}"), 1000, &format!("n{index}"))).collect()), 0);
}

#[test]
fn nodes_that_leave_together_share_the_budgets_of_their_pods() {
    let mut scene =
        Scene::with_nodes(10).pods((0..10).map(|index| running(&format!("p{index}"), 300, &format!("n{index}")))).busy(0.1, 0.1);
    scene.settings.scale_down.share_at_once = 1.0;
    scene.view.budgets =
        vec![DisruptionBudget { namespace: "default".into(), name: "p".into(), selector: Some(Selector::default()), allowed: 3 }];
    assert_eq!(retirements(&scene.turns(0, 10)).len(), 3);
}

/// Two nodes keep their pods and have room for 1000m each.
fn two_that_stay() -> Vec<Pod> {
    let stays = |name: &str, on: &str| Pod { do_not_disrupt: true, ..running(name, 900, on) };
    vec![stays("s0", "n0"), stays("s1", "n1")]
}

fn gone(pods: Vec<Pod>) -> Vec<String> {
    let mut scene = Scene::with_nodes(4).pods(pods).busy(0.1, 0.1);
    scene.settings.scale_down.share_at_once = 1.0;
    let plan = scene.turns(0, 10);
    retirements(&plan).iter().filter_map(|order| Some(order.node.as_ref()?.name.to_string())).collect()
}

#[test]
fn nodes_leave_together_only_if_their_pods_fit_however_they_mix() {
    let rest = |pods: Vec<Pod>| two_that_stay().into_iter().chain(pods).collect();
    // First 900m and then 500m twice fit; 500m twice and then 900m do not.
    let mixed = vec![running("a", 900, "n2"), running("b", 500, "n3"), running("c", 500, "n3")];
    assert_eq!(gone(rest(mixed)), ["n2"]);
    let even = vec![running("a", 450, "n2"), running("d", 450, "n2"), running("b", 500, "n3"), running("c", 500, "n3")];
    assert_eq!(gone(rest(even)), ["n2", "n3"]);
}

#[test]
fn a_workload_without_a_budget_is_not_all_away_at_once() {
    let labels: Arc<Labels> = Arc::new(Labels::from([("app".into(), "x".into())]));
    let x = |name: &str, on: &str| Pod { labels: Arc::clone(&labels), ..running(name, 100, on) };
    let two = || two_that_stay().into_iter().chain([x("x0", "n2"), x("x1", "n3")]);
    assert_eq!(gone(two().collect()), ["n2"]);
    assert_eq!(gone(two().chain([x("x2", "n0")]).collect()), ["n2", "n3"]);
    let number = |pod: Pod| {
        let mut labels = (*pod.labels).clone();
        labels.insert("apps.kubernetes.io/pod-index".into(), pod.key.name.clone());
        Pod { labels: Arc::new(labels), ..pod }
    };
    assert_eq!(gone(two().map(number).collect()), ["n2"], "replicas of a stateful set carry numbers");
    let revise = |pod: Pod| {
        let mut labels = (*pod.labels).clone();
        labels.insert("pod-template-hash".into(), pod.key.name.clone());
        Pod { labels: Arc::new(labels), ..pod }
    };
    assert_eq!(gone(two().map(revise).collect()), ["n2"], "replicas of two revisions are of one workload");
    let ends = Pod { terminating_since: Some(start()), ..x("x2", "n0") };
    assert_eq!(gone(two().chain([ends]).collect()), ["n2"], "who ends is no replica");
}

#[test]
fn what_leaves_another_pool_already_counts_for_a_workload_and_a_budget() {
    let labels: Arc<Labels> = Arc::new(Labels::from([("app".into(), "x".into())]));
    let x = |name: &str, on: &str| Pod { labels: Arc::clone(&labels), ..running(name, 100, on) };
    let scene = |leaves: bool, budget: Option<u32>| {
        let pods = two_that_stay().into_iter().chain([x("x0", "n2"), x("x1", "n3")]);
        let mut scene = Scene::with_nodes(4).pods(pods).busy(0.1, 0.1);
        scene.settings.pools.push(PoolSettings { name: "other".into(), min: 0, ..scene.settings.pools[0].clone() });
        scene.instances.iter_mut().filter(|instance| instance.id.as_str() == "i-n2").for_each(|it| it.pool = Some("other".into()));
        let selector = Some(Selector(vec![Requirement { key: "app".into(), operator: Operator::In(["x".to_owned()].into()) }]));
        let budget = budget.map(|allowed| DisruptionBudget { namespace: "default".into(), name: "x".into(), selector, allowed });
        scene.view.budgets.extend(budget);
        if leaves {
            let Operation::Retire(mut gone) = retire("n2", RetireReason::AboveMaximum, RetireState::Draining { since: after(0) }) else {
                unreachable!("a retirement")
            };
            gone.order.pool = "other".into();
            scene.snapshot.operations = [(gone.id.clone(), Operation::Retire(gone))].into();
            scene.view.nodes.get_mut("n2").expect("the node").cordoned = true;
        }
        retirements(&scene.turns(0, 10)).iter().any(|order| order.node.as_ref().is_some_and(|node| node.name.as_str() == "n3"))
    };
    assert!(scene(false, None));
    assert!(!scene(true, None), "the other replica is on its way out");
    assert!(!scene(true, Some(1)));
    assert!(scene(true, Some(2)));
}

#[test]
fn a_pod_that_ends_keeps_others_like_it_out_until_it_is_gone() {
    let is = Selector(vec![Requirement { key: "app".into(), operator: Operator::In(["x".to_owned()].into()) }]);
    let apart = PodAffinityTerm { selector: Some(is), namespaces: None, topology_key: ZONE_LABEL.into() };
    let labels: Arc<Labels> = Arc::new(Labels::from([("app".into(), "x".into())]));
    let constraints = Arc::new(Constraints { pod_anti_affinity: vec![apart], ..Constraints::default() });
    let x = |name: &str, on: &str| Pod { labels: Arc::clone(&labels), constraints: Arc::clone(&constraints), ..running(name, 100, on) };
    let busy = Pod { do_not_disrupt: true, ..running("busy", 100, "n3") };
    // n0 and n2 are in one zone, n1 and n3 in the other.
    let one = || two_that_stay().into_iter().chain([busy.clone(), x("x0", "n2")]);
    assert_eq!(gone(one().collect()), ["n2"], "the other zone takes it at once");
    assert_eq!(gone(one().chain([x("x1", "n1")]).collect()), [""; 0], "it would wait until it has ended itself");
}

#[test]
fn a_pool_that_is_not_idle_is_consolidated_when_its_pods_fit_and_its_load_allows_it() {
    let scene = |load: f64| {
        let mut scene = idle().busy(load, load);
        scene.settings.consolidation = Some(Consolidation { cpu_below: 0.5, memory_below: 0.6, sustain: Duration::from_mins(20) });
        scene
    };
    let mut moderate = scene(0.39);
    assert_eq!(retirements(&moderate.turns(0, 18)).len(), 0, "not sustained");
    let plan = moderate.turn(after(20));
    assert_eq!(first(&plan), Some("n2"));
    assert!(matches!(retirements(&plan)[0].reason, RetireReason::Consolidated { .. }));
    assert!(matches!(hold(&scene(0.45).turns(0, 20)), Some(Hold::NoCandidate { .. })), "two nodes would be at 67.5 %");
    assert!(matches!(hold(&scene(0.55).turns(0, 20)), Some(Hold::NotSustained { .. })));
}

#[test]
fn an_instance_that_nobody_knows_is_reaped_after_its_grace() {
    let mut scene = Scene::with_nodes(2);
    scene.instances.push(instance("lost", "a", Market::Spot));
    assert_eq!(retirements(&scene.turns(0, 8)).len(), 0);
    let plan = scene.turn(after(10));
    assert_eq!(retirements(&plan)[0].reason, RetireReason::Leaked);
    assert_eq!(retirements(&plan)[0].instance, Some("i-lost".into()));
}

#[test]
fn a_node_without_an_instance_goes_after_its_grace_but_only_if_it_is_silent() {
    let mut scene = Scene::with_nodes(3);
    scene.instances.retain(|instance| instance.id.as_str() != "i-n2");
    assert_eq!(retirements(&scene.clone().turns(0, 20)).len(), 0, "a Ready node has an instance, whatever EC2's list says");
    scene.view.nodes.get_mut("n2").expect("the node").readiness = Readiness::NotReady { since: start() };
    let plan = scene.turns(0, 10);
    assert_eq!(retirements(&plan)[0].reason, RetireReason::InstanceGone);
    assert_eq!(retirements(&plan)[0].instance, None);
}

#[test]
fn no_instance_is_a_leak_while_a_node_cannot_be_read() {
    let mut scene = Scene::with_nodes(3);
    scene.view.nodes.remove("n2");
    scene.view.refused = vec!["node n2: allocatable cpu: `?`".into()];
    scene.view.refused_nodes.insert("n2".into());
    let plan = scene.turns(0, 60);
    assert!(retirements(&plan).iter().all(|order| order.instance != Some("i-n2".into())), "{plan:?}");
    assert!(plan.alerts.iter().any(|alert| alert.name == "object_refused" && alert.text.contains("node n2")), "{:?}", plan.alerts);
}

#[test]
fn foreign_nodes_are_never_named() {
    let mut scene = idle();
    let mut foreign = node("foreign", "a");
    foreign.labels.remove(POOL_LABEL);
    foreign.readiness = Readiness::NotReady { since: start() };
    scene.view.nodes.insert("foreign".into(), foreign);
    let plan = scene.turns(0, 60);
    assert!(retirements(&plan).iter().all(|order| order.node.as_ref().is_none_or(|node| node.name.as_str() != "foreign")));
}

#[test]
fn an_offer_rests_longer_each_time_and_recovers_with_a_success() {
    let (settings, mut memory) = (settings(), Memory::default());
    let key = OfferKey { instance_type: "m5.large".into(), zone: "a".into(), market: Market::Spot };
    let mut pauses = Vec::new();
    for _ in 0..7 {
        memory = learn(&settings, memory, &failed(LaunchFailure::InsufficientCapacity), &[], start());
        pauses.push(memory.offers[&key].until.duration_since(start()).as_mins());
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    let joined =
        vec![crate::model::operation::LaunchedInstance { id: "i-1".into(), instance_type: "m5.large".into(), node: Some("n".into()) }];
    memory = learn(&settings, memory, &ended(LaunchState::Done { joined, never_joined: Vec::new(), left: Vec::new() }), &[], start());
    assert!(memory.offers.is_empty());
}

#[test]
fn three_launches_in_a_row_that_never_join_stop_the_offer() {
    let (settings, mut memory) = (settings(), Memory::default());
    let key = OfferKey { instance_type: "m5.large".into(), zone: "a".into(), market: Market::Spot };
    for failures in 1..=3 {
        let late = crate::model::operation::LaunchedInstance { id: "i-1".into(), instance_type: "m5.large".into(), node: None };
        let never = LaunchState::Done { joined: Vec::new(), never_joined: vec![late], left: Vec::new() };
        memory = learn(&settings, memory, &ended(never), &[], start());
        assert_eq!(memory.pool_offers[&("workers".into(), key.clone())].stopped, failures == 3);
    }
    let mut scene = Scene::with_nodes(2);
    scene.memory = memory;
    assert!(scene.turn(start()).alerts.iter().any(|alert| alert.name == "offer_stopped"));
}

#[test]
fn the_memory_survives_the_ledger() {
    let mut scene = idle();
    scene.turns(0, 8);
    let key = OfferKey { instance_type: "m5.large".into(), zone: "a".into(), market: Market::Spot };
    let rest = Rest { until: after(24 * 60), failures: 3, since: start(), why: "never joined".into(), stopped: true };
    scene.memory.offers.insert(key.clone(), rest.clone());
    scene.memory.pool_offers.insert(("workers".into(), key), rest);
    let text = serde_json::to_string(&scene.memory).expect("it is written");
    assert_eq!(serde_json::from_str::<Memory>(&text).expect("it is read"), scene.memory);
}

fn failed(failure: LaunchFailure) -> Operation {
    ended(LaunchState::Failed { failure })
}

fn ended(state: LaunchState) -> Operation {
    let order = LaunchOrder {
        pool: "workers".into(),
        zone: "a".into(),
        subnet: "subnet-a".into(),
        market: Market::Spot,
        instance_types: vec!["m5.large".into()],
        count: 1,
        price: HourlyPrice(1),
        reason: crate::model::plan::LaunchReason::BelowMinimum,
        pods: Vec::new(),
    };
    launch("op", order, state)
}
