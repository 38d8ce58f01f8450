//! What holds of every plan, over random clusters.

use super::*;
use proptest::prelude::*;

prop_compose! {
    /// A pool of some nodes with some pods, some of which wait.
    fn scenes()(
        nodes in 0_usize..12,
        placed in prop::collection::vec((0_usize..12, 50_u64..900), 0..30),
        waiting in prop::collection::vec(50_u64..4500, 0..40),
        cpu in 0.0_f64..1.0,
        memory in 0.0_f64..1.0,
        unready in prop::option::of(0_usize..12),
        blind in any::<bool>(),
        share in prop::sample::select(vec![0.1, 0.3, 1.0]),
    ) -> (Scene, bool) {
        let mut scene = Scene::with_nodes(nodes);
        scene.settings.scale_down.share_at_once = share;
        let pods = placed.into_iter().enumerate().filter(|(_, (at, _))| *at < nodes);
        let pods: Vec<Pod> = pods.map(|(index, (at, cpu))| running(&format!("r{index:02}"), cpu, &format!("n{at}"))).collect();
        scene = scene.pods(pods).pods(waiting.into_iter().enumerate().map(|(index, cpu)| pending(&format!("w{index:02}"), cpu)));
        scene = scene.busy(cpu, memory);
        if let Some(node) = unready.and_then(|index| scene.view.nodes.get_mut(format!("n{index}").as_str())) {
            node.readiness = Readiness::NotReady { since: start() };
        }
        (scene, blind)
    }
}

/// Twelve minutes of turns; `Scene::turn` holds each plan against the invariants.
fn live(mut scene: Scene, blind: bool) -> (Plan, Memory) {
    for minute in (0..12).step_by(2) {
        scene.turn(after(minute));
    }
    let mut snapshot = scene.observed(after(12));
    if blind {
        snapshot.utilisation = Observed::Unknown(crate::model::Missing::Empty);
    }
    (scene.turn_with(&snapshot, after(12)), scene.memory)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(300)) })]

    #[test]
    fn every_plan_passes_the_audit_and_stays_within_its_bounds((scene, blind) in scenes()) {
        let nodes = u32::try_from(scene.instances.len()).expect("few nodes");
        let (plan, _) = live(scene, blind);
        prop_assert!(launched(&plan) == 0 || nodes + launched(&plan) <= 10);
        prop_assert!(!blind || retirements(&plan).iter().all(|order| !order.reason.is_voluntary()));
        prop_assert!(launches(&plan).iter().all(|order| order.count > 0 && !order.instance_types.is_empty()));
    }

    #[test]
    fn the_same_input_gives_the_same_plan_whatever_its_order((scene, blind) in scenes()) {
        let mut turned = scene.clone();
        turned.offers.reverse();
        turned.instances.reverse();
        let (plan, memory) = live(scene, blind);
        let (other, other_memory) = live(turned, blind);
        prop_assert_eq!(plan.actions, other.actions);
        prop_assert_eq!(memory, other_memory);
    }

    #[test]
    fn a_plan_that_is_being_carried_out_asks_for_nothing_more((scene, _) in scenes()) {
        let mut scene = scene;
        let plan = scene.turn(start());
        let begun = launches(&plan).into_iter().enumerate().map(|(index, order)| begun(&format!("op-{index}"), order.clone()));
        scene.snapshot.operations = begun.map(|operation| (operation.id().clone(), operation)).collect();
        let again = scene.turn(start());
        prop_assert_eq!(launches(&again).len(), 0, "{:?} after {:?}", again.actions, plan.actions);
    }

    #[test]
    fn a_higher_maximum_never_buys_less((scene, _) in scenes(), more in 1_u32..20) {
        let mut roomy = scene.clone();
        roomy.settings.pools[0].max += more;
        let (tight, wide) = (scene.clone().turn(start()), roomy.turn(start()));
        prop_assert!(launched(&tight) <= launched(&wide));
    }

    #[test]
    fn more_pods_never_buy_fewer_nodes_of_one_type(count in 0_u64..20) {
        let bought = |pods: u64| {
            let mut scene = Scene::with_nodes(2).pods((0..pods).map(|index| pending(&format!("w{index:02}"), 900)));
            scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
            launched(&scene.turn(start()))
        };
        prop_assert!(bought(count) <= bought(count + 1));
    }
}
