//! What a turn says of itself, what it forgets, and what it regrets.

use super::*;
use crate::model::Missing;
use crate::model::memory::{Incident, PoolMemory};
use crate::policy::schedule::Schedule;

#[test]
fn a_turn_forgets_what_has_run_out() {
    let key = OfferKey { instance_type: "m5.large".into(), zone: "a".into(), market: Market::Spot };
    let remembered = |second: i64| {
        let mut scene = Scene::with_nodes(2);
        let day = 24 * 60 * 60;
        let rest = |until| Rest { until, failures: 5, since: start(), why: "x".into(), stopped: false };
        scene.memory.offers.insert(key.clone(), rest(later(second - day)));
        scene.memory.quotas.insert(key.quota(), rest(later(second - day)));
        scene.memory.incidents.insert("token_mismatch".into(), Incident { text: "x".into(), until: later(second) });
        scene.memory.resting_nodes.insert("n0".into(), later(second));
        let plan = scene.turn(start());
        let shown = plan.alerts.iter().any(|alert| alert.name == "token_mismatch");
        let memory = scene.memory;
        [memory.offers.len(), memory.quotas.len(), memory.incidents.len(), memory.resting_nodes.len(), usize::from(shown)]
    };
    assert_eq!(remembered(1), [1; 5]);
    assert_eq!(remembered(0), [0; 5], "at the second at which it runs out");
    assert_eq!(remembered(-1), [0; 5]);
}

#[test]
fn a_report_counts_what_is_there_what_comes_and_what_leaves() {
    let mut scene = Scene::with_nodes(4)
        .pods([pending("c", 3800)])
        .with("n3", |node| node.readiness = Readiness::NotReady { since: start() })
        .under_way(begun("op", order(2)))
        .under_way(retire("n1", underused(), RetireState::Journalled));
    let plan = scene.turn(start());
    let report = &plan.pools[0];
    assert_eq!((report.owned, report.in_flight, report.ready, report.min, report.max), (4, 2, 2, 2, 10));
    // Five stay, and one is bought.
    assert_eq!((launched(&plan), report.desired), (1, 6));
    assert_eq!(report.price, HourlyPrice(96_000 + 5 * 33_600));
    assert_eq!((report.cpu.is_some(), report.memory.is_some()), (true, true));
    let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
    let plan = scene.turns(0, 10);
    assert_eq!((retirements(&plan).len(), plan.pools[0].desired), (1, 2));
    let finding = plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "scale_down").expect("the finding");
    assert_eq!((finding.wants, &finding.hold), (-1, &None));
}

#[test]
fn a_report_says_how_many_are_missing_and_why_they_do_not_come() {
    let bounds = |plan: &Plan| {
        let found = plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == "bounds").expect("the finding");
        (found.wants, found.hold.clone(), launched(plan))
    };
    assert_eq!(bounds(&Scene::with_nodes(2).turn(start())), (0, None, 0));
    assert_eq!(bounds(&Scene::with_nodes(1).turn(start())), (1, None, 1));
    assert_eq!(bounds(&Scene::with_nodes(1).under_way(begun("op", order(1))).turn(start())), (0, None, 0));
    let leaves = retire("n1", underused(), RetireState::Journalled);
    assert_eq!(bounds(&Scene::with_nodes(2).under_way(leaves).turn(start())), (1, None, 1));
    let mut none = Scene::with_nodes(0);
    none.offers.clear();
    assert_eq!(bounds(&none.turn(start())), (2, Some(Hold::NoOffer { why: "the pool has none".into() }), 0));
    let mut tight = Scene::with_nodes(0);
    tight.settings.price_ceiling = Some(HourlyPrice(100_000));
    // The base is on demand, for 96,000 millionths an hour, and nothing is left for a second.
    let (wants, hold, bought) = bounds(&tight.turn(start()));
    assert_eq!((wants, bought), (2, 1));
    assert!(matches!(hold, Some(Hold::NoOffer { why }) if why.contains("ceiling")));
}

#[test]
fn an_alert_names_the_first_five_nodes_that_cannot_be_identified() {
    let text = |nodes: usize| {
        let mut scene = Scene::with_nodes(6);
        for n in 0..nodes {
            scene = scene.with(&format!("n{n}"), |node| node.instance = None);
        }
        let plan = scene.turn(start());
        plan.alerts.into_iter().find(|alert| alert.name == "node_unidentified").map(|alert| alert.text)
    };
    assert_eq!(text(0), None);
    assert!(text(5).is_some_and(|text| text.ends_with(": n0, n1, n2, n3, n4")));
    assert!(text(6).is_some_and(|text| text.ends_with(": n0, n1, n2, n3, n4")));
}

#[test]
fn pods_that_buy_back_what_has_just_gone_are_a_regret() {
    let full = || Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let drains = || RetireState::Draining { since: start() };
    let unhealthy = || RetireReason::Unhealthy { since: start() };
    let memory = |down: Option<i64>, regretted: Option<i64>| PoolMemory {
        last_down: down.map(later),
        regretted: regretted.map(later),
        regrets: 3,
        ..PoolMemory::default()
    };
    let rows = [
        ("the node is gone for a minute", underused(), RetireState::Done, 60, memory(Some(0), None), true),
        ("the node is gone for longer", underused(), RetireState::Done, 61, memory(Some(0), None), false),
        ("the node still leaves", underused(), drains(), 600, memory(Some(0), None), true),
        ("the node had to go", unhealthy(), RetireState::Done, 0, memory(Some(0), None), false),
        ("an earlier removal was regretted", underused(), RetireState::Done, 0, memory(Some(0), Some(-1)), true),
        ("this removal was regretted before", underused(), RetireState::Done, 0, memory(Some(0), Some(0)), false),
        ("nothing was ever given back", underused(), RetireState::Done, 0, memory(None, None), false),
    ];
    for (what, reason, state, second, before, regrets) in rows {
        let mut scene = full().under_way(retire("n9", reason, state));
        scene.memory.pools.insert("workers".into(), before.clone());
        assert_eq!(launched(&scene.turn(later(second))), 1, "{what}");
        let kept = &scene.memory.pools["workers"];
        let expected = if regrets { (4, Some(later(second))) } else { (3, before.regretted) };
        assert_eq!((kept.regrets, kept.regretted), expected, "{what}");
        assert_eq!(kept.last_up, Some(later(second)), "{what}");
    }
    let mut minimum = Scene::with_nodes(1).under_way(retire("n9", underused(), RetireState::Done));
    minimum.memory.pools.insert("workers".into(), memory(Some(0), None));
    assert_eq!(launched(&minimum.turn(start())), 1);
    assert_eq!(minimum.memory.pools["workers"].regrets, 3, "only pods are a reason to regret");
}

#[test]
fn a_removal_in_another_pool_is_not_regretted_in_this_one() {
    let full = Scene::with_nodes(2).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("c", 1000)]);
    let Operation::Retire(mut other) = retire("n9", underused(), RetireState::Done) else { panic!("a retirement") };
    other.order.pool = "other".into();
    let mut scene = full.under_way(Operation::Retire(other));
    scene.memory.pools.entry("workers".into()).or_default().last_down = Some(start());
    assert_eq!(launched(&scene.turn(start())), 1);
    assert_eq!(scene.memory.pools["workers"].regrets, 0);
}

#[test]
fn readings_that_nobody_asked_for_leave_the_streak_of_idleness_alone_and_doubtful_ones_break_it() {
    let idle = |why: Missing| {
        let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
        scene.turns(0, 2);
        let snapshot = Snapshot { utilisation: Observed::Unknown(why), ..scene.observed(after(4)) };
        scene.turn_with(&snapshot, after(4));
        scene.memory.pools["workers"].idle.as_ref().map(|streak| (streak.since, streak.latest))
    };
    assert_eq!(idle(Missing::NotAsked), Some((after(0), after(2))));
    assert_eq!(idle(Missing::Empty), None);
}

#[test]
fn a_blind_turn_says_which_source_is_missing_and_remembers() {
    let mut scene = Scene::with_nodes(3).busy(0.1, 0.1);
    scene.turns(0, 2);
    let before = scene.memory.clone();
    for (snapshot, source) in [
        (Snapshot { cluster: unknown_view(), ..scene.observed(after(4)) }, "Kubernetes: "),
        (Snapshot { instances: Observed::Unknown(Missing::Empty), ..scene.observed(after(4)) }, "EC2: "),
    ] {
        let plan = scene.turn_with(&snapshot, after(4));
        assert!(matches!(&plan.holds[..], [Hold::Blind { why }] if why.starts_with(source)), "{plan:?}");
        assert_eq!(scene.memory, before);
    }
}

#[test]
fn a_schedule_is_closed_where_its_start_and_end_meet_and_open_where_it_never_ends() {
    let active = |from: &str, to: &str, minute: i64| Schedule::new(from, to, "UTC").expect("a schedule").is_active(after(minute));
    for (from, to, minute, expected) in [
        ("0 12 * * *", "0 12 * * *", 0, false),
        ("0 12 * * *", "0 13 * * *", 0, true),
        ("0 11 * * *", "0 12 * * *", 0, false),
        ("0 11 * * *", "0 12 * * *", -1, true),
        ("0 12 * * *", "0 0 30 2 *", 0, true),
        ("0 0 30 2 *", "0 12 * * *", 0, false),
    ] {
        assert_eq!(active(from, to, minute), expected, "from {from} to {to}, {minute} minutes after noon");
    }
}
