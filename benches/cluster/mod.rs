//! Clusters for the benchmarks: nodes, pods and what can be bought.

use jiff::{SignedDuration, Timestamp};
use node_fleet::model::instance::InstanceState;
use node_fleet::model::offer::HourlyPrice;
use node_fleet::model::pod::Owner;
use node_fleet::model::reading::Utilisation;
use node_fleet::model::scheduling::{Labels, POOL_LABEL, ZONE_LABEL};
use node_fleet::model::snapshot::{Observed, UtilisationReport};
use node_fleet::model::{
    Bytes, ClusterView, Instance, Market, Memory, MilliCpu, Node, NodeName, Offer, OfferKey, Pod, PodKey, PodPhase, Readiness, Reading,
    Resources, Snapshot,
};
use node_fleet::policy::{self, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;

const EXAMPLE: &str = include_str!("../../config/node-fleet.toml");

pub fn now() -> Timestamp {
    Timestamp::from_second(1_770_000_000).expect("a time")
}

/// The shipped settings, for a pool of up to so many nodes at any hour.
pub fn settings(max: u32) -> Settings {
    let mut settings = node_fleet::config::parse(EXAMPLE, "node-fleet.toml", []).expect("the example is fine").policy;
    for pool in &mut settings.pools {
        pool.max = max;
        pool.schedules.clear();
    }
    settings
}

pub fn resources(milli_cpu: u64, mib: u64, pods: u64) -> Resources {
    Resources { cpu: MilliCpu(milli_cpu), memory: Bytes(mib << 20), pods, ephemeral_storage: Bytes::default(), extended: BTreeMap::new() }
}

pub fn zone(index: usize) -> &'static str {
    if index.is_multiple_of(2) { "a" } else { "b" }
}

pub fn node(index: usize) -> Node {
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

pub fn instance(index: usize) -> Instance {
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
        ended: None,
        template: None,
    }
}

/// A pod of the workload `labels`, which all its replicas share.
pub fn pod(name: String, labels: &Arc<Labels>, milli_cpu: u64) -> Pod {
    Pod {
        uid: name.clone(),
        labels: Arc::clone(labels),
        key: PodKey { namespace: "default".into(), name },
        owner: Owner::Controller,
        requests: resources(milli_cpu, 128, 1),
        ..Pod::default()
    }
}

pub fn offers() -> Vec<Offer> {
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

/// The labels of a workload.
pub fn app(name: &str) -> Arc<Labels> {
    Arc::new(Labels::from([("app".into(), name.into())]))
}

/// The pod on a node.
pub fn on(pod: Pod, node: usize) -> Pod {
    Pod { node: Some(format!("node-{node}").as_str().into()), phase: PodPhase::Running, ..pod }
}

/// The pod as it waits for a node.
pub fn unschedulable(pod: Pod) -> Pod {
    Pod { unschedulable_since: Some(now()), phase: PodPhase::Pending, ..pod }
}

/// What is seen of so many nodes with these pods, all nodes at this load.
pub fn snapshot(nodes: usize, pods: Vec<Pod>, load: f64) -> Snapshot {
    let mut pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
    pods.sort_by(|a, b| a.key.cmp(&b.key));
    let instances = (0..nodes).map(instance).collect();
    let nodes: BTreeMap<_, _> = (0..nodes).map(|index| (format!("node-{index}").as_str().into(), node(index))).collect();
    let reading = |value| Reading::Value { value, sampled: now() };
    let utilisation = nodes.keys().map(|name: &NodeName| (name.clone(), Utilisation { cpu: reading(load), memory: reading(load) }));
    let at = now();
    Snapshot {
        utilisation: Observed::Known { value: UtilisationReport { nodes: utilisation.collect(), warming_up: false }, at },
        cluster: Observed::Known { value: Arc::new(ClusterView { nodes, pods, ..ClusterView::default() }), at },
        instances: Observed::Known { value: instances, at },
        offers: Observed::Known { value: Arc::new(offers()), at },
        prices: Arc::default(),
        metrics: BTreeMap::new(),
        prospects: BTreeMap::new(),
        operations: BTreeMap::new(),
        templates: BTreeMap::new(),
        pause: None,
    }
}

/// Lets the memory see the load for as long as the rules want it sustained.
pub fn sustained(settings: &Settings, snapshot: &Snapshot) -> Memory {
    let mut memory = Memory::default();
    for minutes in (2..=30).rev().step_by(2) {
        memory = policy::plan(settings, snapshot, &memory, now() - SignedDuration::from_mins(minutes)).1;
    }
    memory
}
