//! Which nodes are given back, at the borders.

use super::*;
use crate::model::memory::PoolMemory;
use crate::model::scheduling::{Constraints, Operator, Requirement, Selector, Toleration};
use crate::model::snapshot::DisruptionBudget;
use crate::policy::{Budgets, Consolidation, MetricGoal, MetricRule, forbids};

/// So many idle nodes without pods.
fn idle(nodes: usize) -> Scene {
    let mut scene = Scene::with_nodes(nodes).busy(0.1, 0.1);
    scene.settings.pools[0].max = 200;
    scene
}

fn hold(plan: &Plan) -> Option<Hold> {
    held(plan, "scale_down")
}

pub(super) fn gone(plan: &Plan) -> Vec<&str> {
    retirements(plan).into_iter().filter_map(|order| Some(order.node.as_ref()?.name.as_str())).collect()
}

pub(super) fn kept(scene: &mut Scene) -> &mut PoolMemory {
    scene.memory.pools.entry("workers".into()).or_default()
}

fn refusals(plan: &Plan) -> Vec<String> {
    let Some(Hold::NoCandidate { why }) = hold(plan) else { panic!("{plan:?}") };
    why
}

fn budget(namespace: &str, allowed: u32) -> DisruptionBudget {
    let is = Selector(vec![Requirement { key: "app".into(), operator: Operator::In(["x".to_owned()].into()) }]);
    DisruptionBudget { namespace: namespace.into(), name: "b".into(), selector: Some(is), allowed }
}

fn tolerate(pod: &mut Pod, key: Option<&str>) {
    let toleration = Toleration { key: key.map(Into::into), value: None, effect: None };
    pod.constraints = Arc::new(Constraints { tolerations: vec![toleration], ..Constraints::default() });
}

#[test]
fn a_pod_forbids_that_its_node_goes_or_does_not() {
    type Change = fn(&mut Pod);
    let none: Change = |_| {};
    let system: Change = |pod| pod.key.namespace = "kube-system".into();
    let rows: Vec<(&str, Change, Vec<DisruptionBudget>, Option<&str>)> = vec![
        ("nothing is the matter", none, vec![], None),
        ("nearly critical", |pod| pod.priority = 999_999_999, vec![], None),
        ("just critical", |pod| pod.priority = 1_000_000_000, vec![], Some("critical")),
        ("safe", |pod| pod.safe_to_evict = Some(true), vec![], None),
        ("not safe", |pod| pod.safe_to_evict = Some(false), vec![], Some("safe-to-evict")),
        ("not to be disrupted", |pod| pod.do_not_disrupt = true, vec![], Some("do-not-disrupt")),
        ("nobody's", |pod| pod.owner = Owner::Nobody, vec![], Some("no controller")),
        ("at home everywhere", |pod| tolerate(pod, None), vec![], Some("tolerates a cordon")),
        ("at home on nodes of a team", |pod| tolerate(pod, Some("team")), vec![], None),
        (
            "nobody's, and safe",
            |pod| {
                pod.owner = Owner::Nobody;
                pod.safe_to_evict = Some(true);
            },
            vec![],
            None,
        ),
        ("of the system", system, vec![], Some("kube-system")),
        ("of the system, under another namespace's budget", system, vec![budget("default", 1)], Some("kube-system")),
        ("of the system, under a budget", system, vec![budget("kube-system", 1)], None),
        ("of the system, under a budget that is used up", system, vec![budget("kube-system", 0)], Some("the budget b")),
        (
            "of the system, and safe",
            |pod| {
                pod.key.namespace = "kube-system".into();
                pod.safe_to_evict = Some(true);
            },
            vec![],
            None,
        ),
        ("under a budget", none, vec![budget("default", 1)], None),
        ("under a budget that is used up", none, vec![budget("default", 0)], Some("the budget b")),
        (
            "under two, which the eviction API refuses",
            none,
            vec![budget("default", 1), budget("default", 1)],
            Some("by the budgets b and b"),
        ),
        ("under two, one of them used up", none, vec![budget("default", 1), budget("default", 0)], Some("by the budgets b and b")),
        ("under one, and another namespace's", none, vec![budget("default", 1), budget("other", 1)], None),
        ("not under the budget that is used up", none, vec![budget("other", 0)], None),
        (
            "critical and a daemon set's",
            |pod| {
                pod.priority = 2_000_000_000;
                pod.owner = Owner::DaemonSet;
            },
            vec![],
            None,
        ),
        (
            "critical and over",
            |pod| {
                pod.priority = 2_000_000_000;
                pod.phase = PodPhase::Failed;
            },
            vec![],
            None,
        ),
    ];
    for (what, change, budgets, word) in rows {
        let mut pod = running("p", 100, "n0");
        pod.labels = Arc::new(Labels::from([("app".into(), "x".into())]));
        change(&mut pod);
        let why = forbids(&settings(), &pod, &Budgets::of(&budgets));
        match word {
            Some(word) => assert!(why.as_ref().is_some_and(|why| why.contains(word)), "{what}: {why:?}"),
            None => assert_eq!(why, None, "{what}"),
        }
    }
}

#[test]
fn a_pool_at_its_threshold_is_not_idle() {
    let found = |cpu: f64, memory: f64| {
        let mut scene = Scene::with_nodes(3).busy(cpu, memory).occupied();
        (scene.settings.scale_down.cpu_below, scene.settings.scale_down.memory_below) = (0.25, 0.25);
        let plan = scene.turns(0, 10);
        (gone(&plan).len(), hold(&plan))
    };
    let not_idle = || (0, Some(Hold::NotSustained { since: None }));
    assert_eq!(found(0.249, 0.249), (1, None));
    assert_eq!(found(0.25, 0.249), not_idle());
    assert_eq!(found(0.249, 0.25), not_idle());
}

#[test]
fn a_pool_at_the_threshold_of_consolidation_is_not_consolidated() {
    let found = |cpu: f64, memory: f64| {
        let mut scene = Scene::with_nodes(4).busy(cpu, memory).occupied();
        scene.settings.consolidation = Some(Consolidation { cpu_below: 0.25, memory_below: 0.5, sustain: Duration::from_mins(10) });
        scene.settings.scale_down.cpu_below = 0.1;
        gone(&scene.turns(0, 10)).len()
    };
    assert_eq!(found(0.249, 0.374), 1);
    assert_eq!(found(0.25, 0.374), 0);
    assert_eq!(found(0.249, 0.5), 0);
    assert_eq!(found(0.249, 0.48), 1, "just below, and 64 % on three");
}

#[test]
fn what_is_not_idle_for_long_enough_says_since_when() {
    let mut scene = idle(3).occupied();
    assert_eq!(hold(&scene.turns(0, 8)), Some(Hold::NotSustained { since: Some(after(0)) }));
    let mut scene = Scene::with_nodes(3).busy(0.35, 0.1).occupied();
    scene.settings.consolidation = Some(Consolidation { cpu_below: 0.5, memory_below: 0.5, sustain: Duration::from_mins(30) });
    scene.turns(0, 4);
    let mut scene = scene.busy(0.1, 0.1);
    assert_eq!(hold(&scene.turns(6, 8)), Some(Hold::NotSustained { since: Some(after(0)) }), "the earlier of two streaks");
}

#[test]
fn a_node_may_go_when_it_is_old_enough_and_its_rest_is_over() {
    let row = |change: &dyn Fn(&mut Scene)| {
        let mut scene = idle(3);
        for name in ["n0", "n1"] {
            scene = scene.with(name, |node| node.keep = Some("k".into()));
        }
        change(&mut scene);
        scene.turns(0, 8);
        gone(&scene.turn(after(10))).len()
    };
    let born = |scene: &mut Scene, second: i64| scene.view.nodes.get_mut("n2").expect("the node").created = later(second);
    let rests = |scene: &mut Scene, second: i64| scene.memory.resting_nodes.extend([("n2".into(), later(second))]);
    assert_eq!(row(&|scene| born(scene, 0)), 1, "ten minutes old");
    assert_eq!(row(&|scene| born(scene, 1)), 0, "a second younger");
    assert_eq!(row(&|scene| rests(scene, 600)), 1, "its rest ends now");
    assert_eq!(row(&|scene| rests(scene, 601)), 0, "it rests for a second more");
}

#[test]
fn cooldowns_are_over_at_their_end_and_the_longest_counts() {
    type Change = fn(&mut PoolMemory);
    let hours = |hours: i64| after(60 * hours);
    let rows: [(&str, Change, Option<Timestamp>); 11] = [
        ("an addition ten minutes ago", |kept| kept.last_up = Some(after(0)), None),
        ("an addition a second later", |kept| kept.last_up = Some(later(1)), Some(later(601))),
        ("a removal ten minutes ago", |kept| kept.last_down = Some(after(0)), None),
        ("a removal a second later", |kept| kept.last_down = Some(later(1)), Some(later(601))),
        (
            "both",
            |kept| {
                kept.last_up = Some(later(1));
                kept.last_down = Some(later(2));
            },
            Some(later(602)),
        ),
        ("a regret ten minutes ago", |kept| kept.regretted = Some(after(0)), None),
        (
            "one regret ten minutes ago",
            |kept| {
                kept.regretted = Some(after(0));
                kept.regrets = 1;
            },
            Some(after(20)),
        ),
        (
            "one regret twenty minutes ago",
            |kept| {
                kept.regretted = Some(after(-10));
                kept.regrets = 1;
            },
            None,
        ),
        (
            "three regrets",
            |kept| {
                kept.regretted = Some(after(0));
                kept.regrets = 3;
            },
            Some(after(80)),
        ),
        (
            "six regrets",
            |kept| {
                kept.regretted = Some(after(0));
                kept.regrets = 6;
            },
            Some(hours(6)),
        ),
        (
            "many regrets",
            |kept| {
                kept.regretted = Some(after(0));
                kept.regrets = 1000;
            },
            Some(hours(6)),
        ),
    ];
    for (what, change, until) in rows {
        let mut scene = idle(3);
        scene.turns(0, 8);
        change(kept(&mut scene));
        let plan = scene.turn(after(10));
        assert_eq!(
            (hold(&plan), gone(&plan).len()),
            (until.map(|until| Hold::CoolingDown { until }), usize::from(until.is_none())),
            "{what}"
        );
    }
    let mut scene = idle(3);
    scene.settings.scale_down.longest_cooldown = Duration::ZERO;
    scene.turns(0, 8);
    kept(&mut scene).regretted = Some(after(8));
    assert_eq!(hold(&scene.turn(after(10))), Some(Hold::CoolingDown { until: after(18) }), "never less than the cooldown");
}

#[test]
fn a_removal_that_was_not_regretted_clears_the_regrets() {
    let regrets = |regretted: i64, down: i64| {
        let mut scene = idle(3);
        scene.settings.scale_down.cooldown = Duration::ZERO;
        scene.settings.scale_down.longest_cooldown = Duration::ZERO;
        scene.turns(0, 8);
        *kept(&mut scene) =
            PoolMemory { regretted: Some(later(regretted)), last_down: Some(later(down)), regrets: 2, ..kept(&mut scene).clone() };
        assert_eq!(gone(&scene.turn(after(10))).len(), 1);
        assert_eq!(kept(&mut scene).last_down, Some(after(10)));
        kept(&mut scene).regrets
    };
    assert_eq!(regrets(1, 0), 2, "the last removal was regretted");
    assert_eq!(regrets(0, 0), 2, "and at once");
    assert_eq!(regrets(0, 1), 0, "it was not");
}

#[test]
fn just_so_many_unready_nodes_as_are_borne_keep_no_node() {
    let unready = |nodes: usize, unready: usize| {
        let mut scene = idle(nodes);
        for n in 0..unready {
            scene = scene.with(&format!("n{n}"), |node| node.readiness = Readiness::NotReady { since: start() });
        }
        hold(&scene.turns(0, 10))
    };
    assert_eq!(unready(5, 1), None);
    assert_eq!(unready(5, 2), Some(Hold::UnreadyNodes { unready: 2, total: 5 }));
    assert_eq!(unready(10, 2), None);
    assert_eq!(unready(10, 3), Some(Hold::UnreadyNodes { unready: 3, total: 10 }));
}

#[test]
fn nodes_that_boot_or_leave_are_not_among_the_unready_ones() {
    let sick = || idle(5).with("n4", |node| node.readiness = Readiness::NotReady { since: start() });
    let sick = || sick().with("n3", |node| node.readiness = Readiness::NotReady { since: start() });
    let other = |operation: Operation| match operation {
        Operation::Retire(mut retire) => {
            retire.order.pool = "other".into();
            Operation::Retire(retire)
        }
        launch @ Operation::Launch(_) => launch,
    };
    assert_eq!(hold(&sick().turns(0, 10)), Some(Hold::UnreadyNodes { unready: 2, total: 5 }));
    let mut leaving = sick().under_way(other(retire("n4", underused(), RetireState::Journalled)));
    assert_eq!(hold(&leaving.turns(0, 10)), Some(Hold::UnreadyNodes { unready: 1, total: 4 }));
    let mut booting = sick();
    booting.instances[4].operation = Some("op".into());
    let mut booting = booting.under_way(begun("op", LaunchOrder { pool: "other".into(), ..order(1) }));
    assert_eq!(hold(&booting.turns(0, 10)), Some(Hold::UnreadyNodes { unready: 1, total: 4 }));
}

#[test]
fn the_rest_may_be_loaded_up_to_the_target_and_no_further() {
    let leaves = |cpu_target: f64, memory_target: f64| {
        // Two nodes at a quarter are one at a half.
        let mut scene = Scene::with_nodes(2).busy(0.25, 0.25);
        scene.settings.pools[0].min = 1;
        (scene.settings.scale_up.cpu_target, scene.settings.scale_up.memory_target) = (cpu_target, memory_target);
        let plan = scene.turns(0, 10);
        gone(&plan).len()
    };
    assert_eq!(leaves(0.5, 0.5), 1);
    assert_eq!(leaves(0.499, 0.5), 0);
    assert_eq!(leaves(0.5, 0.499), 0);
}

#[test]
fn so_many_nodes_leave_together_as_every_bound_allows() {
    let leave = |nodes: usize, change: &dyn Fn(&mut Settings)| {
        let mut scene = idle(nodes).occupied();
        change(&mut scene.settings);
        gone(&scene.turns(0, 10)).len()
    };
    let share = |share: f64| move |settings: &mut Settings| settings.scale_down.share_at_once = share;
    assert_eq!(leave(9, &share(0.1)), 1, "one always");
    assert_eq!(leave(19, &share(0.1)), 1);
    assert_eq!(leave(20, &share(0.1)), 2);
    assert_eq!(leave(100, &share(0.29)), 29, "a whole share is not lost to rounding");
    assert_eq!(leave(10, &share(0.0)), 1);
    let most = |most: u32| {
        move |settings: &mut Settings| {
            settings.scale_down.share_at_once = 1.0;
            settings.scale_down.most_at_once = most;
        }
    };
    assert_eq!(leave(10, &most(3)), 3);
    assert_eq!(leave(10, &most(0)), 1);
    let maximum = |max: u32| {
        move |settings: &mut Settings| {
            settings.scale_down.share_at_once = 1.0;
            settings.pools[0].max = max;
        }
    };
    assert_eq!(leave(10, &maximum(7)), 3, "the maximum in force asks for no more");
    assert_eq!(leave(10, &maximum(10)), 8, "down to the minimum");
    let metric = |settings: &mut Settings| {
        settings.scale_down.share_at_once = 1.0;
        let (query, goal) = ("q".into(), MetricGoal::PerNode(1.0));
        settings.metrics.push(MetricRule { name: "queue".into(), pool: "other".into(), query, goal, sustain: Duration::ZERO });
    };
    assert_eq!(leave(10, &metric), 8, "a rule of another pool says nothing here");
}

#[test]
fn an_operation_of_the_pool_must_end_first() {
    let of_other = LaunchOrder { pool: "other".into(), ..order(1) };
    let over = LaunchState::Done { joined: Vec::new(), never_joined: Vec::new(), left: Vec::new() };
    let underway = |id: &str| Some(Hold::Underway { operation: id.into() });
    let rows = [
        ("none", None, None),
        ("a launch", Some(begun("op", order(1))), underway("op")),
        ("a launch of another pool", Some(begun("op", of_other)), None),
        ("a launch that is over", Some(launch("op", order(1), over)), None),
        ("a removal", Some(retire("n9", underused(), RetireState::Terminated)), underway("retire-n9")),
        ("a removal that is over", Some(retire("n9", underused(), RetireState::Done)), None),
    ];
    for (what, operation, expected) in rows {
        let mut scene = operation.into_iter().fold(idle(4), Scene::under_way);
        assert_eq!(hold(&scene.turns(0, 10)), expected, "{what}");
    }
}

#[test]
fn a_stray_of_the_same_turn_goes_alone() {
    let mut scene = idle(4);
    scene.instances.push(instance("lost", "a", Market::Spot));
    let plan = scene.turns(0, 10);
    assert_eq!((retirements(&plan).len(), hold(&plan)), (1, Some(Hold::Underway { operation: "of this turn".into() })));
}

#[test]
fn a_rule_above_its_threshold_keeps_every_node_before_it_fires() {
    let mut scene = idle(4);
    scene.turns(0, 8);
    scene.settings.scale_up.memory_above = 0.05;
    assert_eq!(hold(&scene.turn(after(10))), Some(Hold::Wanted { rule: "memory".into() }));
}

#[test]
fn scale_down_that_is_switched_off_gives_nothing_back() {
    let mut scene = idle(4);
    scene.settings.scale_down.enabled = false;
    scene.settings.pools[0].max = 2;
    let plan = scene.turns(0, 10);
    assert_eq!((gone(&plan).len(), hold(&plan)), (0, None));
}

#[test]
fn the_zones_and_the_markets_of_those_that_stay_decide_first() {
    let first = |nodes: usize, base: u32, share: f64, on_demand: &[usize]| {
        let mut scene = idle(nodes);
        (scene.settings.pools[0].on_demand_base, scene.settings.pools[0].spot_share) = (base, share);
        for (index, instance) in scene.instances.iter_mut().enumerate() {
            instance.market = if on_demand.contains(&index) { Market::OnDemand } else { Market::Spot };
        }
        gone(&scene.turns(0, 10))[0].to_owned()
    };
    // Even numbers are in one zone and odd ones in the other. On-demand is dearer, so that it goes first where it may.
    let rows = [
        ("the fuller zone", 5, 1, 1.0, vec![0], "n2"),
        ("zones that are even", 4, 1, 1.0, vec![0], "n1"),
        ("the base stays", 4, 2, 1.0, vec![0, 1], "n2"),
        ("what is above the base goes", 4, 1, 1.0, vec![0, 1], "n0"),
        ("no base, all spot", 4, 0, 1.0, vec![0], "n0"),
        ("half, and half would be left", 4, 0, 0.5, vec![0, 1], "n0"),
        ("half, and less would be left", 4, 0, 0.5, vec![0], "n1"),
        ("half above the base, and it would be left", 4, 1, 0.5, vec![0, 1, 2], "n0"),
        ("half above the base, and less would be left", 4, 1, 0.5, vec![0, 1], "n2"),
        ("a tenth of nine is less than one", 10, 0, 0.9, vec![0], "n0"),
        ("a tenth of ten is one", 11, 0, 0.9, vec![0], "n10"),
    ];
    for (what, nodes, base, share, on_demand, expected) in rows {
        assert_eq!(first(nodes, base, share, &on_demand), expected, "{what}");
    }
}

#[test]
fn the_least_disruption_for_each_dollar_goes_first() {
    let first = |n1: Vec<Pod>, n2: Vec<Pod>| {
        let mut scene = idle(4).pods(n1).pods(n2);
        (scene.settings.pools[0].on_demand_base, scene.settings.pools[0].spot_share) = (0, 1.0);
        // n1 costs 33,600 millionths an hour and n2 96,000.
        scene.instances[2].market = Market::OnDemand;
        for name in ["n0", "n3"] {
            scene = scene.with(name, |node| node.keep = Some("k".into()));
        }
        gone(&scene.turns(0, 10))[0].to_owned()
    };
    let heavy = |pod: Pod| Pod { requests: Resources { memory: Bytes(4 * GIB), ..pod.requests }, ..pod };
    let daemon = |pod: Pod| Pod { owner: Owner::DaemonSet, ..pod };
    let rows = [
        ("nothing on either", vec![], vec![], "n2"),
        ("more for the dearer, and not too much", vec![running("a", 100, "n1")], vec![running("b", 400, "n2")], "n2"),
        ("too much more", vec![running("a", 100, "n1")], vec![running("b", 500, "n2")], "n1"),
        ("much memory", vec![running("a", 100, "n1")], vec![heavy(running("b", 100, "n2"))], "n1"),
        ("a daemon set's pod is no disruption", vec![running("a", 100, "n1")], vec![daemon(running("b", 1500, "n2"))], "n2"),
        ("pods add up", vec![running("a", 100, "n1")], vec![running("b", 250, "n2"), running("c", 250, "n2")], "n1"),
    ];
    for (what, n1, n2, expected) in rows {
        assert_eq!(first(n1, n2), expected, "{what}");
    }
}

#[test]
fn ten_refusals_are_told() {
    let told = |nodes: usize| {
        let mut scene = idle(nodes);
        for node in scene.view.nodes.values_mut() {
            node.keep = Some("k".into());
        }
        refusals(&scene.turns(0, 10)).len()
    };
    assert_eq!((told(9), told(10), told(11)), (9, 10, 10));
}

#[test]
fn a_member_that_cannot_be_judged_stays_and_says_why() {
    let row = |change: &dyn Fn(Scene) -> Scene| {
        let mut scene = change(idle(4));
        let plan = scene.turns(0, 10);
        assert_eq!(gone(&plan), ["n2"]);
        for name in ["n0", "n1", "n2"] {
            scene = scene.with(name, |node| node.keep = Some("k".into()));
        }
        kept(&mut scene).last_down = None;
        refusals(&scene.turn(after(12))).into_iter().find(|why| why.starts_with("n3")).unwrap_or_default()
    };
    let first = |mut scene: Scene| {
        // Only n2 and n3 could go, and n3 would be the first if it were not for what is the matter with it.
        scene.settings.max_unready_share = 1.0;
        scene.settings.pools[0].min = 0;
        scene.settings.unhealthy_after = Duration::from_hours(10);
        for name in ["n0", "n1"] {
            scene = scene.with(name, |node| node.keep = Some("k".into()));
        }
        scene.pods([running("b", 500, "n2")])
    };
    assert!(row(&|scene| first(scene).with("n3", |node| node.cordoned = true)).contains("cordoned"));
    assert!(row(&|scene| first(scene).with("n3", |node| node.control_plane = true)).contains("server"));
    let unready = |node: &mut Node| node.readiness = Readiness::NotReady { since: start() };
    assert!(row(&|scene| first(scene).with("n3", unready)).contains("not ready"));
    let leaving = |scene: Scene| {
        let Operation::Retire(mut order) = retire("n3", underused(), RetireState::Journalled) else { panic!("a retirement") };
        order.order.pool = "other".into();
        first(scene).under_way(Operation::Retire(order))
    };
    assert!(row(&leaving).contains("being retired already"));
    let booting = |scene: Scene| {
        let mut scene = first(scene);
        scene.instances[3].operation = Some("op".into());
        scene.under_way(begun("op", LaunchOrder { pool: "other".into(), ..order(1) }))
    };
    assert!(row(&booting).contains("launch is not over"));
}

#[test]
fn nodes_that_leave_together_need_no_more_of_a_budget_than_it_allows() {
    let leave = |allowed: u32, pods_each: usize, owner: Owner, namespace: &str| {
        let labels: Arc<Labels> = Arc::new(Labels::from([("app".into(), "x".into())]));
        let pods = (0..10 * pods_each).map(|n| Pod {
            owner,
            labels: Arc::clone(&labels),
            ..running(&format!("p{n:02}"), 100, &format!("n{}", n % 10))
        });
        let mut scene = idle(10).pods(pods);
        scene.settings.scale_down.share_at_once = 1.0;
        scene.view.budgets = vec![budget(namespace, allowed)];
        gone(&scene.turns(0, 10)).len()
    };
    let rows = [
        ("one each, three allowed", 3, 1, Owner::Controller, "default", 3),
        ("two each, three allowed", 3, 2, Owner::Controller, "default", 1),
        ("two each, four allowed", 4, 2, Owner::Controller, "default", 2),
        ("a drain waits for its budget", 1, 2, Owner::Controller, "default", 1),
        ("more allowed than there are", 20, 1, Owner::Controller, "default", 8),
        ("the budget of another namespace", 1, 1, Owner::Controller, "other", 8),
        ("a daemon set's pods need none", 1, 1, Owner::DaemonSet, "default", 8),
    ];
    for (what, allowed, pods_each, owner, namespace, expected) in rows {
        assert_eq!(leave(allowed, pods_each, owner, namespace), expected, "{what}");
    }
}

#[test]
fn a_node_with_a_pod_that_two_budgets_cover_is_never_begun_with() {
    let labels = Arc::new(Labels::from([("app".into(), "x".into())]));
    let goes = |budgets: usize| {
        let mut scene =
            idle(3).pods((0..3).map(|n| Pod { labels: Arc::clone(&labels), ..running(&format!("p{n}"), 100, &format!("n{n}")) }));
        scene.view.budgets = (0..budgets).map(|_| budget("default", 1)).collect();
        gone(&scene.turns(0, 10)).len()
    };
    assert_eq!((goes(0), goes(1), goes(2)), (1, 1, 0));
}
