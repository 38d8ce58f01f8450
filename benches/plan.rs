//! How long a decision takes with 100 nodes and 3,000 pods: when nothing is to be done, when pods
//! wait, and when nodes may go.

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use node_fleet::model::instance::InstanceState;
use node_fleet::model::offer::HourlyPrice;
use node_fleet::model::pod::Owner;
use node_fleet::model::reading::Utilisation;
use node_fleet::model::scheduling::{Labels, POOL_LABEL, ZONE_LABEL};
use node_fleet::model::snapshot::{Observed, UtilisationReport};
use node_fleet::model::{
    Bytes, ClusterView, Instance, Market, Memory, MilliCpu, Node, Offer, OfferKey, Pod, PodKey, PodPhase, Readiness, Reading, Resources,
    Snapshot,
};
use node_fleet::policy::{self, Settings};
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

const NODES: usize = 100;
const PODS_ON_A_NODE: usize = 30;
const WAITING: usize = 200;
const EXAMPLE: &str = include_str!("../config/node-fleet.toml");

fn now() -> Timestamp {
    Timestamp::from_second(1_770_000_000).expect("a time")
}

fn settings() -> Settings {
    let mut settings = node_fleet::config::parse(EXAMPLE, "node-fleet.toml", []).expect("the example is fine").policy;
    for pool in &mut settings.pools {
        pool.max = 200;
        pool.schedules.clear();
    }
    settings
}

fn resources(milli_cpu: u64, mib: u64, pods: u64) -> Resources {
    Resources { cpu: MilliCpu(milli_cpu), memory: Bytes(mib << 20), pods, ephemeral_storage: Bytes::default(), extended: BTreeMap::new() }
}

fn zone(index: usize) -> &'static str {
    if index.is_multiple_of(2) { "a" } else { "b" }
}

fn node(index: usize) -> Node {
    let name = format!("node-{index}");
    Node {
        uid: name.clone(),
        instance: Some(format!("i-{index}").as_str().into()),
        labels: Labels::from([
            (POOL_LABEL.into(), "workers".into()),
            (ZONE_LABEL.into(), zone(index).into()),
            ("kubernetes.io/hostname".into(), name.as_str().into()),
        ]),
        name: name.as_str().into(),
        taints: Vec::new(),
        cordoned: false,
        cordoned_by: None,
        readiness: Readiness::Ready { since: now() - SignedDuration::from_hours(2) },
        allocatable: Resources { ephemeral_storage: Bytes(1 << 40), ..resources(3900, 15 << 10, 110) },
        created: now() - SignedDuration::from_hours(2),
        control_plane: false,
        keep: None,
    }
}

fn instance(index: usize) -> Instance {
    Instance {
        id: format!("i-{index}").as_str().into(),
        instance_type: "m5.xlarge".into(),
        zone: zone(index).into(),
        subnet: None,
        market: if index.is_multiple_of(3) { Market::OnDemand } else { Market::Spot },
        state: InstanceState::Running,
        launched: now() - SignedDuration::from_hours(2),
        pool: Some("workers".into()),
        operation: None,
        epoch: None,
    }
}

fn pod(name: String, milli_cpu: u64) -> Pod {
    Pod {
        uid: name.clone(),
        labels: Arc::new(Labels::from([("app".into(), name.split('-').next().unwrap_or_default().into())])),
        key: PodKey { namespace: "default".into(), name },
        owner: Owner::Controller,
        requests: resources(milli_cpu, 128, 1),
        ..Pod::default()
    }
}

fn offers() -> Vec<Offer> {
    let mut offers = Vec::new();
    for zone in ["a", "b"] {
        for (instance_type, cpu, price) in [("m5.large", 1900, 96_000), ("m5.xlarge", 3900, 192_000), ("m6i.large", 1900, 96_000)] {
            for (market, percent) in [(Market::OnDemand, 100), (Market::Spot, 35)] {
                offers.push(Offer {
                    key: OfferKey { instance_type: instance_type.into(), zone: zone.into(), market },
                    pool: "workers".into(),
                    subnet: format!("subnet-{zone}").as_str().into(),
                    price: HourlyPrice(price * percent / 100),
                    allocatable: Resources { ephemeral_storage: Bytes(1 << 40), ..resources(cpu, cpu * 4, 110) },
                    labels: Labels::from([(POOL_LABEL.into(), "workers".into()), (ZONE_LABEL.into(), zone.into())]),
                    taints: Vec::new(),
                });
            }
        }
    }
    offers
}

fn snapshot(waiting: usize, load: f64) -> Snapshot {
    let running = (0..NODES * PODS_ON_A_NODE).map(|index| Pod {
        node: Some(format!("node-{}", index % NODES).as_str().into()),
        phase: PodPhase::Running,
        ..pod(format!("web-{index}"), 50)
    });
    let waiting =
        (0..waiting).map(|index| Pod { unschedulable_since: Some(now()), phase: PodPhase::Pending, ..pod(format!("batch-{index}"), 3000) });
    let mut pods: Vec<Arc<Pod>> = running.chain(waiting).map(Arc::new).collect();
    pods.sort_by(|a, b| a.key.cmp(&b.key));
    let nodes: BTreeMap<_, _> = (0..NODES).map(|index| (format!("node-{index}").as_str().into(), node(index))).collect();
    let reading = |value| Reading::Value { value, sampled: now() };
    let utilisation =
        nodes.keys().map(|name: &node_fleet::model::NodeName| (name.clone(), Utilisation { cpu: reading(load), memory: reading(load) }));
    let at = now();
    Snapshot {
        utilisation: Observed::Known { value: UtilisationReport { nodes: utilisation.collect(), warming_up: false }, at },
        cluster: Observed::Known { value: Arc::new(ClusterView { nodes, pods, ..ClusterView::default() }), at },
        instances: Observed::Known { value: (0..NODES).map(instance).collect(), at },
        offers: Observed::Known { value: Arc::new(offers()), at },
        prices: Arc::default(),
        metrics: BTreeMap::new(),
        operations: BTreeMap::new(),
        pause: None,
    }
}

/// Lets the memory see the load for as long as the rules want it sustained.
fn sustained(settings: &Settings, snapshot: &Snapshot) -> Memory {
    let mut memory = Memory::default();
    for minutes in (2..=30).rev().step_by(2) {
        memory = policy::plan(settings, snapshot, &memory, now() - SignedDuration::from_mins(minutes)).1;
    }
    memory
}

fn plan(criterion: &mut Criterion) {
    let settings = settings();
    let cases = [("nothing to do", 0, 0.5), ("200 pods wait", WAITING, 0.5), ("nodes may go", 0, 0.05)];
    let mut group = criterion.benchmark_group("plan, 100 nodes, 3000 pods");
    for (name, waiting, load) in cases {
        let snapshot = snapshot(waiting, load);
        let memory = if waiting == 0 { sustained(&settings, &snapshot) } else { Memory::default() };
        let (plan, _) = policy::plan(&settings, &snapshot, &memory, now());
        assert_eq!(plan.actions.is_empty(), name == "nothing to do", "{name}: {:?}", plan.pools);
        group.bench_function(name, |bencher| bencher.iter(|| policy::plan(&settings, black_box(&snapshot), &memory, now())));
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
