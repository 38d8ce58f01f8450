//! The rules on utilisation and on metrics, at their thresholds.

use super::*;
use crate::model::Missing;
use crate::model::memory::{PoolMemory, Streak};
use crate::policy::fleet::Fleet;
use crate::policy::rules::{Demand, NoLoad, PoolLoad, Strength, Verdict, extend, lasted, metrics, nodes, pool_load};
use crate::policy::{MetricGoal, MetricRule};

fn load_of(scene: &Scene) -> Result<PoolLoad, NoLoad> {
    let snapshot = scene.observed(start());
    let fleet = Fleet::new(&scene.settings, &snapshot);
    pool_load(&scene.settings, fleet.pool(&"workers".into()), &snapshot.utilisation)
}

#[test]
fn a_streak_grows_with_each_reading_and_breaks_in_a_hole_of_more_than_three_turns() {
    let old = Streak { since: start(), latest: after(4), readings: 3 };
    let grown = |latest, readings| Some(Streak { since: start(), latest, readings });
    let new = |now| Some(Streak { since: now, latest: now, readings: 1 });
    let rows = [
        ("a turn later", true, after(6), grown(after(6), 4)),
        ("three turns later", true, after(10), grown(after(10), 4)),
        ("more than three turns later", true, later(601), new(later(601))),
        ("at the same time", true, after(4), grown(after(4), 3)),
        ("a clock that went back", true, later(239), new(later(239))),
        ("not met", false, after(6), None),
    ];
    for (what, met, now, expected) in rows {
        assert_eq!(extend(Some(old.clone()), met, Duration::from_mins(2), now), expected, "{what}");
    }
    assert_eq!(extend(None, true, Duration::from_mins(2), start()), new(start()));
    assert_eq!(extend(None, false, Duration::from_mins(2), start()), None);
}

#[test]
fn a_streak_has_lasted_after_two_readings_and_its_time() {
    let streak = |readings| Streak { since: start(), latest: start(), readings };
    let rows = [(2, 240, true), (2, 239, false), (2, 241, true), (1, 240, false), (3, 0, false)];
    for (readings, second, expected) in rows {
        assert_eq!(lasted(&streak(readings), Duration::from_mins(4), later(second)), expected, "{readings} readings, {second} s");
    }
    assert!(lasted(&streak(2), Duration::ZERO, start()));
    assert!(!lasted(&streak(1), Duration::ZERO, start()));
}

#[test]
fn a_pools_load_weighs_each_serving_node_by_its_size() {
    let value = |value| Reading::Value { value, sampled: start() };
    let mut scene = Scene::with_nodes(2).with("n1", |node| node.allocatable = capacity(5700, 21));
    scene.load.insert("n0".into(), Utilisation { cpu: value(1.0), memory: value(0.5) });
    scene.load.insert("n1".into(), Utilisation { cpu: value(0.0), memory: value(1.0) });
    let load = load_of(&scene).expect("a load");
    assert!((load.cpu - 0.25).abs() < 1e-12 && (load.memory - 0.875).abs() < 1e-12, "{load:?}");
    assert!((load.cores - 7.6).abs() < 1e-12 && (load.bytes - 28.0 * 1_073_741_824.0).abs() < 1.0, "{load:?}");
    let cordoned = scene.clone().with("n1", |node| node.cordoned = true);
    assert_eq!(load_of(&cordoned).map(|load| (load.cpu, load.memory)), Ok((1.0, 0.5)));
}

#[test]
fn as_many_nodes_as_the_coverage_asks_for_must_be_known() {
    let rows = [(0.5, 2, true), (0.5, 3, false), (0.0, 3, true), (0.0, 4, false), (1.0, 0, true), (1.0, 1, false)];
    for (coverage, unknown, known) in rows {
        let mut scene = Scene::with_nodes(4);
        scene.settings.min_coverage = coverage;
        for n in 0..unknown {
            scene.load.get_mut(format!("n{n}").as_str()).expect("the node").memory = Reading::Missing(Missing::Empty);
        }
        let load = load_of(&scene);
        assert_eq!(load.is_ok(), known, "{unknown} unknown, coverage {coverage}");
        if let Err(why) = load {
            let text = format!("only {} of 4 nodes have usable metrics (node n0: memory: the source has no such value)", 4 - unknown);
            assert_eq!(why, NoLoad::Doubtful(text));
        }
    }
    assert_eq!(load_of(&Scene::with_nodes(0)), Err(NoLoad::NoNodes));
}

#[test]
fn a_rule_fires_above_its_threshold_and_not_at_it() {
    let bought = |cpu: f64, memory: f64| {
        let mut scene = Scene::with_nodes(4).busy(cpu, memory);
        (scene.settings.scale_up.cpu_above, scene.settings.scale_up.cpu_target) = (0.5, 0.25);
        (scene.settings.scale_up.memory_above, scene.settings.scale_up.memory_target) = (0.5, 0.25);
        let plan = scene.turns(0, 4);
        let above = &scene.memory.pools["workers"].above;
        (launched(&plan) > 0, above.contains_key("cpu"), above.contains_key("memory"))
    };
    assert_eq!(bought(0.5, 0.5), (false, false, false));
    assert_eq!(bought(0.501, 0.5), (true, true, false));
    assert_eq!(bought(0.5, 0.501), (true, false, true));
}

/// So many nodes at these shares, with both rules at a half; what they buy, in nodes of one size.
fn at_a_half(cpu: f64, memory: f64, nodes: usize, booting: u32) -> Plan {
    let mut scene = Scene::with_nodes(nodes).busy(cpu, memory);
    (scene.settings.scale_up.cpu_above, scene.settings.scale_up.cpu_target) = (0.5, 0.5);
    (scene.settings.scale_up.memory_above, scene.settings.scale_up.memory_target) = (0.5, 0.5);
    scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
    if booting > 0 {
        scene = scene.under_way(begun("op", order(booting)));
    }
    scene.turns(0, 4)
}

#[test]
fn a_rule_buys_up_to_its_target_and_no_further() {
    // Twice the target is one more for each.
    for (share, nodes, expected) in [(1.0, 2, 2), (1.0, 4, 4), (0.75, 4, 2), (0.76, 4, 3), (0.51, 2, 1), (0.74, 2, 1)] {
        assert_eq!(launched(&at_a_half(share, 0.4, nodes, 0)), expected, "cpu at {share} of {nodes}");
        assert_eq!(launched(&at_a_half(0.4, share, nodes, 0)), expected, "memory at {share} of {nodes}");
        assert_eq!(launched(&at_a_half(share, share, nodes, 0)), expected, "both at {share} of {nodes}, which the same nodes serve");
    }
}

#[test]
fn the_cooldown_of_a_rule_is_over_at_its_end() {
    for (second, hold, bought) in [(-60, None, 1), (-59, Some(Hold::CoolingDown { until: later(241) }), 0)] {
        let mut scene = Scene::with_nodes(4).busy(0.71, 0.5);
        scene.memory.pools.entry("workers".into()).or_default().last_rule_up = Some(later(second));
        let plan = scene.turns(0, 4);
        assert_eq!((held(&plan, "cpu"), launched(&plan)), (hold, bought), "{second} s");
    }
}

#[test]
fn what_boots_covers_what_a_rule_wants() {
    let underway = || Some(Hold::Underway { operation: "op".into() });
    // Just covered, more than covered, one short, three short.
    for (booting, share, expected, hold) in [(2, 0.75, 0, underway()), (3, 0.75, 0, underway()), (1, 0.75, 1, None), (1, 1.0, 3, None)] {
        for (rule, cpu, memory) in [("cpu", share, 0.4), ("memory", 0.4, share)] {
            let plan = at_a_half(cpu, memory, 4, booting);
            assert_eq!((launched(&plan), held(&plan, rule)), (expected, hold.clone()), "{rule} at {share}, {booting} boot");
        }
    }
}

#[test]
fn wishes_are_rounded_up_to_whole_nodes() {
    let rows = [(-1.0, 0), (0.0, 0), (0.001, 1), (1.0, 1), (1.001, 2), (1e20, u32::MAX), (f64::INFINITY, u32::MAX), (f64::NEG_INFINITY, 0)];
    for (wish, expected) in rows {
        assert_eq!(nodes(wish), expected, "{wish}");
    }
    assert_eq!(nodes(f64::NAN), 0);
}

/// What a metric's rule says in its second turn.
fn verdict(goal: MetricGoal, reading: Option<Reading>, total: u32, serving: u32) -> Verdict {
    let mut scene = Scene::with_nodes(0);
    let rule = |name: &str, pool: &str| MetricRule {
        name: name.into(),
        pool: pool.into(),
        query: "q".into(),
        goal,
        sustain: Duration::from_mins(2),
    };
    scene.settings.metrics = vec![rule("elsewhere", "other"), rule("queue", "workers")];
    scene.snapshot.metrics.extend(reading.map(|reading| ("queue".into(), reading)));
    let mut memory = PoolMemory::default();
    let mut judge = |now| {
        let strength = Strength { total, serving };
        let mut verdicts = metrics(&scene.settings, &scene.settings.pools[0], &scene.snapshot, strength, &mut memory, now);
        assert_eq!(verdicts.len(), 1);
        verdicts.remove(0)
    };
    let first = judge(after(0));
    assert_eq!(first.demand, None, "one reading is not enough");
    judge(after(2))
}

#[test]
fn a_metric_wants_nodes_and_vetoes_their_removal() {
    let (share, limit) = (MetricGoal::PerNode(100.0), MetricGoal::Threshold(100.0));
    // The value, the nodes that stay and those that serve; the nodes it wants in all, and whether one may go.
    let rows = [
        (share, 300.0, 4, 4, None, false),
        (share, 300.1, 4, 4, None, true),
        (share, 400.0, 4, 4, None, true),
        (share, 400.1, 4, 4, Some(5), true),
        (share, 900.0, 4, 2, Some(9), true),
        (share, 0.0, 1, 1, None, false),
        (share, 0.0, 0, 0, None, false),
        (limit, 75.0, 4, 4, None, false),
        (limit, 75.1, 4, 4, None, true),
        (limit, 100.0, 4, 4, None, true),
        (limit, 100.1, 4, 4, Some(5), true),
        (limit, 125.0, 4, 4, Some(5), true),
        (limit, 126.0, 4, 4, Some(6), true),
        (limit, 200.0, 4, 4, Some(8), true),
        (limit, 200.0, 6, 4, Some(8), true),
        (limit, 110.0, 6, 4, Some(6), true),
        (limit, 0.0, 1, 1, None, false),
        (limit, 0.1, 1, 1, None, true),
        (limit, 0.0, 0, 0, None, false),
        (limit, 0.1, 0, 0, None, true),
        (limit, 101.0, 0, 0, Some(1), true),
    ];
    for (goal, value, total, serving, wanted, vetoes) in rows {
        let reading = Some(Reading::Value { value, sampled: start() });
        let verdict = verdict(goal, reading, total, serving);
        let what = format!("{goal:?}, {value}, {serving} of {total} serve");
        assert_eq!((verdict.demand, verdict.vetoes_removal), (wanted.map(Demand::Nodes), vetoes), "{what}");
        let hold = if wanted.is_some() { None } else { Some(Hold::NotSustained { since: None }) };
        assert_eq!(verdict.hold, hold, "{what}");
    }
}

#[test]
fn a_metric_that_is_missing_keeps_every_node_and_one_that_was_not_asked_for_keeps_none() {
    let rows = [
        (Some(Reading::Missing(Missing::Empty)), true),
        (Some(Reading::Missing(Missing::Unreachable { why: "refused".into() })), true),
        (Some(Reading::Missing(Missing::NotAsked)), false),
        (None, false),
    ];
    for (reading, doubtful) in rows {
        let verdict = verdict(MetricGoal::PerNode(1.0), reading.clone(), 4, 4);
        assert_eq!((verdict.vetoes_removal, verdict.demand), (doubtful, None), "{reading:?}");
        assert_eq!(matches!(verdict.hold, Some(Hold::BadData { .. })), doubtful, "{reading:?}");
    }
}
