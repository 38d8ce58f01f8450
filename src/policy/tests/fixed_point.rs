//! On a constant workload a fleet comes to rest: what a plan says happens at once, round after round.

use super::*;
use crate::model::operation::LaunchedInstance;
use crate::model::scheduling::{Constraints, HOSTNAME_LABEL, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint};
use crate::policy::fit::Board;
use crate::policy::{Consolidation, Replacement};
use proptest::prelude::*;
use std::cmp::Reverse;

/// Within so many turns the fleet is as it will be. Each removal may take a cooldown of two turns, and a replacement
/// two more.
const COMES_TO_REST: i64 = 120;
/// For so many turns it must stay so.
const RESTS: i64 = 30;

/// What pods of a workload want of each other.
#[derive(Clone, Copy, Debug)]
enum Company {
    Any,
    OnePerNode,
    EvenOverZones,
}

fn constraints(company: Company, app: &str) -> Constraints {
    let selector = || Selector(vec![Requirement { key: "app".into(), operator: Operator::In([app.to_owned()].into()) }]);
    let mut constraints = Constraints::default();
    match company {
        Company::Any => {}
        Company::OnePerNode => constraints.pod_anti_affinity.push(PodAffinityTerm {
            selector: Some(selector()),
            namespaces: None,
            topology_key: HOSTNAME_LABEL.into(),
        }),
        Company::EvenOverZones => constraints.spread.push(SpreadConstraint {
            topology_key: ZONE_LABEL.into(),
            max_skew: 1,
            selector: selector(),
            min_domains: None,
            ignores_node_affinity: false,
            honors_taints: false,
        }),
    }
    constraints
}

prop_compose! {
    /// Some nodes, and workloads whose pods all wait.
    fn scenes()(
        nodes in 2_usize..10,
        workloads in prop::collection::vec((1_usize..8, 50_u64..1800, 0_usize..3), 1..6),
        busy in 0.1_f64..0.9,
        share in prop::sample::select(vec![0.1, 0.5, 1.0]),
        min in 1_u32..4,
        replaces in any::<bool>(),
    ) -> (Scene, f64) {
        let mut scene = Scene::with_nodes(nodes);
        for (number, (replicas, cpu, company)) in workloads.into_iter().enumerate() {
            let app = format!("w{number}");
            let company = [Company::Any, Company::OnePerNode, Company::EvenOverZones][company];
            let constraints = Arc::new(constraints(company, &app));
            let labels = Arc::new(Labels::from([("app".into(), app.clone())]));
            scene = scene.pods((0..replicas).map(|replica| Pod {
                constraints: Arc::clone(&constraints),
                labels: Arc::clone(&labels),
                ..pending(&format!("{app}-{replica}"), cpu)
            }));
        }
        let settings = &mut scene.settings;
        settings.pools[0].min = min;
        settings.pools[0].max = 40;
        settings.scale_down.share_at_once = share;
        settings.scale_down.cooldown = Duration::from_mins(4);
        settings.scale_down.sustain = Duration::from_mins(2);
        settings.scale_down.min_node_age = Duration::ZERO;
        settings.scale_up.cooldown = Duration::from_mins(2);
        settings.replacement = replaces.then(|| Replacement {
            saving_lasts: Duration::from_hours(12),
            least_saving: 0.15,
            price_of_a_move: 0.002,
            balances_zones: true,
            drifted: true,
            recommended: true,
        });
        settings.consolidation = Some(Consolidation { cpu_below: 0.5, memory_below: 0.6, sustain: Duration::from_mins(4) });
        (scene, busy)
    }
}

/// Puts every pod without a node onto the emptiest that takes it, and gives the rest.
fn schedule(scene: &mut Scene) -> usize {
    let view = scene.view.clone();
    let mut board = Board::default();
    let names: Vec<&NodeName> = view.nodes.keys().collect();
    for node in view.nodes.values() {
        let index = board.add(Some(&node.name), &node.labels, &node.taints, &node.allocatable, true);
        view.pods.iter().filter(|pod| pod.node.as_ref() == Some(&node.name)).for_each(|pod| board.place(pod, index));
    }
    let mut waiting = 0;
    for (pod, original) in scene.view.pods.iter_mut().zip(&view.pods) {
        if original.node.is_some() {
            continue;
        }
        let shape = board.shape(original);
        let fitting = (0..board.nodes()).filter(|index| board.fits(shape, *index).is_ok());
        let Some(index) = fitting.min_by_key(|index| (Reverse(board.bin(*index).free.cpu), *index)) else {
            waiting += 1;
            continue;
        };
        board.place(original, index);
        *pod = Arc::new(Pod { node: Some(names[index].clone()), phase: PodPhase::Running, unschedulable_since: None, ..(**pod).clone() });
    }
    waiting
}

/// Lets what a plan says happen.
fn carry_out(scene: &mut Scene, plan: &Plan, round: i64) {
    for order in retirements(plan) {
        let gone = order.node.as_ref().expect("a node");
        scene.view.nodes.remove(&gone.name);
        scene.instances.retain(|instance| Some(&instance.id) != order.instance.as_ref());
        for pod in scene.view.pods.iter_mut().filter(|pod| pod.node.as_ref() == Some(&gone.name)) {
            let phase = PodPhase::Pending;
            *pod = Arc::new(Pod { node: None, phase, unschedulable_since: Some(after(2 * round)), ..(**pod).clone() });
        }
    }
    // As the journal forgets them.
    scene.snapshot.operations.retain(|_, operation| after(2 * round).duration_since(operation.updated()) < SignedDuration::from_mins(15));
    let mut number = 0;
    for order in launches(plan) {
        if matches!(order.reason, LaunchReason::Successor { .. }) {
            let instance = LaunchedInstance { id: "i-successor".into(), instance_type: "m5.large".into(), node: Some("successor".into()) };
            let state = LaunchState::Done { joined: vec![instance], never_joined: Vec::new(), left: Vec::new() };
            let Operation::Launch(done) = launch(&format!("op-{round}-{number}"), order.clone(), state) else { continue };
            let done = Launch { created: after(2 * round), updated: after(2 * round) - SignedDuration::from_mins(2), ..done };
            scene.snapshot.operations.insert(done.id.clone(), Operation::Launch(done));
        }
        for _ in 0..order.count {
            let name = format!("r{round}-{number}");
            number += 1;
            let offer = scene.offers.iter().find(|offer| offer.key.instance_type == order.instance_types[0]).expect("the offer");
            let allocatable = offer.allocatable.clone();
            scene.view.nodes.insert(name.as_str().into(), Node { allocatable, ..node(&name, order.zone.as_str()) });
            let bought = Instance { instance_type: order.instance_types[0].clone(), ..instance(&name, order.zone.as_str(), order.market) };
            scene.instances.push(bought);
        }
    }
}

/// The load of each node: a share of what its pods request.
fn load(scene: &mut Scene, busy: f64, now: Timestamp) {
    let value = |value| Reading::Value { value, sampled: now };
    let share = |part: u64, whole: u64| {
        busy * f64::from(u32::try_from(part / 1000).unwrap_or(u32::MAX))
            / f64::from(u32::try_from(whole / 1000).unwrap_or(u32::MAX)).max(1.0)
    };
    scene.load = scene
        .view
        .nodes
        .values()
        .map(|node| {
            let on_it = scene.view.pods.iter().filter(|pod| pod.node.as_ref() == Some(&node.name));
            let (cpu, memory) = on_it.fold((0, 0), |(cpu, memory), pod| (cpu + pod.requests.cpu.0, memory + pod.requests.memory.0));
            let load = Utilisation {
                cpu: value(share(cpu * 1000, node.allocatable.cpu.0 * 1000)),
                memory: value(share(memory, node.allocatable.memory.0)),
            };
            (node.name.clone(), load)
        })
        .collect();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(150)) })]

    /// `PROPTEST_CASES=10000` is the long form.
    #[test]
    fn a_constant_workload_comes_to_rest((scene, busy) in scenes()) {
        let (mut scene, mut lately) = (scene, Vec::new());
        for round in 0..COMES_TO_REST + RESTS {
            let waiting = schedule(&mut scene);
            load(&mut scene, busy, after(2 * round));
            let plan = scene.turn(after(2 * round));
            if round >= COMES_TO_REST {
                lately.extend(plan.actions.iter().map(|action| (round, action.clone())));
                prop_assert_eq!(waiting, usize::try_from(plan.unplaceable_pods).expect("few"), "{:?}", plan);
            }
            carry_out(&mut scene, &plan, round);
        }
        prop_assert!(lately.is_empty(), "{:#?}", lately);
    }
}
