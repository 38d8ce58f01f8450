//! What follows from a forecast.

use super::*;
use crate::model::prospect::{Prospect, Wanted};
use crate::policy::ForecastRule;

/// Idle nodes without pods, and a forecast that wants so many nodes.
fn scene(nodes: usize, mode: PredictiveMode, wanted: impl Into<Option<Wanted>>) -> Scene {
    let mut scene = Scene::with_nodes(nodes).busy(0.1, 0.1);
    scene.settings.pools[0].max = 20;
    scene.settings.scale_down.share_at_once = 1.0;
    scene.settings.predictive.mode = mode;
    scene.settings.forecasts = vec![ForecastRule { name: "requests".into(), pool: "workers".into(), query: "q".into(), per_node: 1.0 }];
    scene
        .snapshot
        .prospects
        .insert("requests".into(), Prospect { wanted: wanted.into(), blind_since: None, on_trial: false, evidence: "a rise".into() });
    scene
}

fn wanted(buy: u32, hold: u32) -> Wanted {
    Wanted { buy, hold }
}

#[test]
fn a_forecast_buys_ahead_and_holds_what_will_be_needed() {
    // The nodes that there are, what is wanted; how many are bought at once, and how many go once they have been idle.
    let rows = [
        (4, Some(wanted(4, 4)), 0, 0),
        (4, Some(wanted(7, 7)), 3, 0),
        (4, Some(wanted(3, 4)), 0, 0),
        (8, Some(wanted(3, 5)), 0, 3),
        (8, Some(wanted(0, 0)), 0, 6),
        (8, None, 0, 6),
    ];
    for (nodes, wanted, bought, gone) in rows {
        let mut scene = scene(nodes, PredictiveMode::On, wanted);
        let first = scene.turn(after(0));
        assert_eq!(launched(&first), bought, "{nodes} nodes, {wanted:?}");
        if bought > 0 {
            assert_eq!(launches(&first)[0].reason.to_string(), "rule requests: a rise");
            continue;
        }
        assert_eq!(retirements(&scene.turns(2, 10)).len(), gone, "{nodes} nodes, {wanted:?}");
    }
}

#[test]
fn what_only_watches_says_what_it_would_have_done() {
    for (mode, hold) in [(PredictiveMode::Shadow, Some(Hold::Shadowed { buy: 12, hold_nodes: 15 })), (PredictiveMode::Off, None)] {
        let mut scene = scene(8, mode, wanted(12, 15));
        let plan = scene.turn(after(0));
        assert_eq!((launched(&plan), held(&plan, "requests")), (0, hold), "{mode:?}");
        assert_eq!(retirements(&scene.turns(2, 10)).len(), 6, "{mode:?} holds nothing");
    }
}

#[test]
fn a_forecast_that_acts_of_itself_watches_on_its_trial_and_then_acts_while_it_is_trusted() {
    // On trial or not, what is wanted; the nodes that are bought at once, what is held back, and the nodes that go.
    let shadowed = Some(Hold::Shadowed { buy: 12, hold_nodes: 15 });
    let rows = [
        (true, Some(wanted(12, 15)), 0, shadowed, 6),
        (false, Some(wanted(12, 15)), 4, None, 0),
        // It is demoted, before and after the trial.
        (true, None, 0, None, 6),
        (false, None, 0, None, 6),
    ];
    for (on_trial, wanted, bought, hold, gone) in rows {
        let mut scene = scene(8, PredictiveMode::Auto, wanted);
        scene.snapshot.prospects.get_mut("requests").expect("it is there").on_trial = on_trial;
        let plan = scene.turn(after(0));
        assert_eq!((launched(&plan), held(&plan, "requests")), (bought, hold), "on trial: {on_trial}, {wanted:?}");
        if bought == 0 {
            assert_eq!(retirements(&scene.turns(2, 10)).len(), gone, "on trial: {on_trial}, {wanted:?}");
        }
    }
}

#[test]
fn a_forecast_that_acts_again_after_a_demotion_needs_no_second_trial() {
    let mut scene = scene(8, PredictiveMode::Auto, wanted(12, 12));
    for (wants, bought) in [(None, 0), (Some(wanted(12, 12)), 4)] {
        scene.snapshot.prospects.get_mut("requests").expect("it is there").wanted = wants;
        assert_eq!(launched(&scene.turn(after(0))), bought);
    }
}

#[test]
fn a_forecast_is_bound_by_the_maximum_and_by_the_cooldown() {
    let mut many = scene(4, PredictiveMode::On, wanted(50, 50));
    many.settings.pools[0].max = 6;
    let plan = many.turn(after(0));
    assert_eq!((launched(&plan), held(&plan, "requests")), (2, Some(Hold::AtMaximum { max: 6 })));
    let mut soon = scene(4, PredictiveMode::On, wanted(5, 5));
    soon.memory.pools.entry("workers".into()).or_default().last_rule_up = Some(after(0));
    let plan = soon.turn(after(2));
    assert_eq!((launched(&plan), held(&plan, "requests")), (0, Some(Hold::CoolingDown { until: after(5) })));
}

#[test]
fn above_a_maximum_that_falls_nothing_is_held() {
    let mut scene = scene(8, PredictiveMode::On, wanted(8, 8));
    scene.settings.pools[0].max = 5;
    assert_eq!(retirements(&scene.turns(0, 10)).len(), 3);
}

#[test]
fn a_demand_that_is_not_known_keeps_every_node_unless_it_is_only_watched() {
    let modes = [(PredictiveMode::On, 0), (PredictiveMode::Auto, 0), (PredictiveMode::Shadow, 6), (PredictiveMode::Off, 6)];
    for (mode, gone) in modes {
        for read in [false, true] {
            let mut scene = scene(8, mode, None);
            match scene.snapshot.prospects.get_mut("requests").filter(|_| read) {
                Some(prospect) => prospect.blind_since = Some(after(0)),
                None => scene.snapshot.prospects.clear(),
            }
            let plan = scene.turns(0, 10);
            assert_eq!(retirements(&plan).len(), gone, "{mode:?}, read: {read}");
            assert_eq!(matches!(held(&plan, "requests"), Some(Hold::BadData { .. })), gone == 0, "{mode:?}, read: {read}");
        }
    }
}

#[test]
fn what_nobody_mends_is_told_after_half_an_hour_and_holds_nothing_after_six() {
    // The mode, for how many minutes the demand is not known; the nodes that go, and whether it is told.
    let rows = [
        (PredictiveMode::On, 20, 0, false),
        (PredictiveMode::On, 60, 0, true),
        (PredictiveMode::Auto, 60, 0, true),
        (PredictiveMode::On, 345, 0, true),
        (PredictiveMode::On, 365, 6, true),
        (PredictiveMode::Auto, 365, 6, true),
        (PredictiveMode::Shadow, 60, 6, false),
        (PredictiveMode::Off, 60, 6, false),
    ];
    for (mode, minutes, gone, told) in rows {
        let mut scene = scene(8, mode, None);
        scene.snapshot.prospects.get_mut("requests").expect("it is there").blind_since = Some(after(-minutes));
        let plan = scene.turns(0, 10);
        assert_eq!(retirements(&plan).len(), gone, "{mode:?}, {minutes} minutes");
        assert_eq!(plan.alerts.iter().any(|alert| alert.name == "forecast_blind"), told, "{mode:?}, {minutes} minutes");
    }
}

#[test]
fn a_demand_that_is_not_known_keeps_nothing_on_trial() {
    let mut scene = scene(8, PredictiveMode::Auto, None);
    let prospect = scene.snapshot.prospects.get_mut("requests").expect("it is there");
    (prospect.blind_since, prospect.on_trial) = (Some(after(0)), true);
    assert_eq!(retirements(&scene.turns(0, 10)).len(), 6);
}

#[test]
fn a_forecast_of_another_pool_says_nothing_here() {
    let mut scene = scene(8, PredictiveMode::On, wanted(12, 12));
    scene.settings.forecasts[0].pool = "other".into();
    assert_eq!(launched(&scene.turn(after(0))), 0);
    assert_eq!(retirements(&scene.turns(2, 10)).len(), 6);
}
