//! What goes at once because it is empty, and what stays although it could go.

use super::leaving::{gone, kept};
use super::*;

fn hold(plan: &Plan) -> Option<Hold> {
    held(plan, "scale_down")
}

#[test]
fn an_empty_node_goes_at_once_where_the_others_are_not_too_busy_without_it() {
    let busy = |cpu: f64, on: &[&str]| {
        let mut scene = Scene::with_nodes(4).busy(cpu, 0.1).pods(on.iter().map(|name| running(&format!("on-{name}"), 100, name)));
        let plan = scene.turn(start());
        (gone(&plan).into_iter().map(str::to_owned).collect::<Vec<_>>(), hold(&plan))
    };
    let others = ["n0", "n1", "n2"];
    assert_eq!(busy(0.44, &others), (vec!["n3".to_owned()], None), "58.7 % on three, of 60 %");
    let (gone, held) = busy(0.46, &others);
    assert_eq!((gone.len(), matches!(held, Some(Hold::NoCandidate { .. }))), (0, true), "61.3 % on three");
    assert_eq!(busy(0.44, &["n0", "n1", "n2", "n3"]).1, Some(Hold::NotSustained { since: None }));
    let mut young = Scene::with_nodes(4).busy(0.44, 0.1).pods(others.map(|name| running(&format!("on-{name}"), 100, name)));
    young = young.with("n3", |node| node.created = start());
    let Some(Hold::NoCandidate { why }) = hold(&young.turn(after(9))) else { panic!("it is young") };
    assert!(why.contains(&"n0: it has pods, and the pool is not idle for long enough".to_owned()), "{why:?}");
    assert_eq!(self::gone(&young.turn(after(10))), ["n3"]);
}

#[test]
fn a_node_on_which_a_waiting_pod_has_room_stays_however_long_that_has_waited() {
    let others = ["n0", "n1", "n2"].map(|name| running(&format!("on-{name}"), 1800, name));
    let mut scene = Scene::with_nodes(5).busy(0.1, 0.1).pods(others).pods([pending("w", 1000)]);
    assert_eq!(gone(&scene.turns(0, 12)), ["n4"], "it fits n3");
    scene.view.nodes.remove("n4");
    scene.instances.pop();
    scene.settings.pools[0].max = 3;
    kept(&mut scene).last_down = None;
    assert_eq!(gone(&scene.turn(after(14))), ["n3"], "above the maximum nothing is kept for it");
}

#[test]
fn nodes_that_do_not_serve_are_no_base_and_none_of_a_zone() {
    let refused = |name: &str, change: fn(&mut Node)| {
        // n0 and n2 are on-demand, in zone a; n1 and n3 are spot, in zone b.
        let mut scene = Scene::with_nodes(4).busy(0.1, 0.1).occupied();
        scene.settings.max_unready_share = 1.0;
        scene.settings.min_coverage = 0.0;
        scene.instances[2].market = Market::OnDemand;
        for other in ["n0", "n1", "n2", "n3"].into_iter().filter(|other| *other != name) {
            scene = scene.with(other, |node| node.keep = Some("k".into()));
        }
        let partner = if name == "n0" { "n2" } else { "n3" };
        let plan = scene.with(partner, change).turns(0, 10);
        matches!(hold(&plan), Some(Hold::NoCandidate { why }) if why.iter().any(|why| why.starts_with(name)))
    };
    for name in ["n0", "n1"] {
        assert!(!refused(name, |_| {}), "{name}");
        assert!(refused(name, |node| node.cordoned = true), "{name}");
    }
}

#[test]
fn a_pool_keeps_its_base_and_its_last_node_in_a_zone_unless_it_is_above_its_maximum() {
    // n0 and n2 in zone a, n1 in zone b; of these only n0 is on-demand.
    let refusal = |change: fn(&mut Scene), name: &str| {
        let mut scene = Scene::with_nodes(3).busy(0.1, 0.1).occupied();
        for other in ["n0", "n1", "n2"].into_iter().filter(|other| *other != name) {
            scene = scene.with(other, |node| node.keep = Some("k".into()));
        }
        change(&mut scene);
        let plan = scene.turns(0, 10);
        match hold(&plan) {
            Some(Hold::NoCandidate { why }) => why.into_iter().find(|why| why.starts_with(name)),
            _ => gone(&plan).first().map(|gone| format!("{gone} goes")),
        }
    };
    assert_eq!(refusal(|_| {}, "n0").as_deref(), Some("n0: only 0 on-demand nodes would be left of the base of 1"));
    assert_eq!(refusal(|scene| scene.settings.pools[0].on_demand_base = 0, "n0").as_deref(), Some("n0 goes"));
    assert_eq!(refusal(|_| {}, "n1").as_deref(), Some("n1: it is the last one in zone b"));
    assert_eq!(refusal(|scene| scene.settings.pools[0].min = 1, "n1").as_deref(), Some("n1 goes"), "two zones are more than it must have");
    for name in ["n0", "n1"] {
        let shrunk = |scene: &mut Scene| (scene.settings.pools[0].min, scene.settings.pools[0].max) = (2, 2);
        assert_eq!(refusal(shrunk, name), Some(format!("{name} goes")), "above the maximum");
    }
}
