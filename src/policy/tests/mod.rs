//! The policy from outside: a small cluster, changed row by row.

mod auditing;
mod boards;
mod buying;
mod choosing;
mod coming;
mod cost;
mod daemons;
mod expendable;
mod explaining;
mod fitting;
mod fixed_point;
mod fleet;
mod foreseeing;
mod giving_back;
mod headroom;
mod judging;
mod keeping;
mod learning;
mod leaving;
mod passing_over;
mod properties;
mod replacing;
mod reporting;
mod scheduling;
mod spending;
mod strays;
mod waiting;

use super::fleet::count;
use super::settings::{OfferRest, PoolSettings, Predictive, PredictiveMode, ScaleDown, ScaleUp, Settings};
use super::{audit, plan};
use crate::model::ids::Epoch;
use crate::model::instance::InstanceState;
use crate::model::memory::Rest;
use crate::model::offer::HourlyPrice;
use crate::model::operation::RetireState;
use crate::model::plan::{Hold, LaunchReason, NodeRef, OnDrainTimeout, RetireReason};
use crate::model::pod::Owner;
use crate::model::reading::Utilisation;
use crate::model::scheduling::{ARCH_LABEL, INSTANCE_TYPE_LABEL, Labels, POOL_LABEL, ZONE_LABEL};
use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{
    Action, Bytes, ClusterView, Instance, Launch, LaunchOrder, LaunchRequest, LaunchState, Market, Memory, MilliCpu, Node, NodeName, Offer,
    OfferKey, Operation, OperationId, Plan, Pod, PodKey, PodPhase, Readiness, Reading, Resources, Retire, RetireOrder, Snapshot,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const GIB: u64 = 1 << 30;

fn start() -> Timestamp {
    "2026-03-02T12:00:00Z".parse().expect("a timestamp")
}

fn after(minutes: i64) -> Timestamp {
    start() + SignedDuration::from_mins(minutes)
}

fn later(seconds: i64) -> Timestamp {
    start() + SignedDuration::from_secs(seconds)
}

pub(in crate::policy) fn settings() -> Settings {
    Settings {
        pools: vec![PoolSettings {
            name: "workers".into(),
            min: 2,
            max: 10,
            schedules: Vec::new(),
            headroom: Vec::new(),
            disruption: Vec::new(),
            max_node_age: None,
            on_demand_base: 1,
            spot_share: 0.7,
            on_drain_timeout: OnDrainTimeout::RollBack,
        }],
        metrics: Vec::new(),
        forecasts: Vec::new(),
        predictive: Predictive {
            mode: PredictiveMode::On,
            price_of_waiting: 20.0,
            boot: Duration::from_mins(2),
            zone: jiff::tz::TimeZone::UTC,
            wrecked: None,
        },
        scale_up: ScaleUp {
            cpu_above: 0.70,
            cpu_target: 0.60,
            cpu_sustain: Duration::from_mins(4),
            memory_above: 0.75,
            memory_target: 0.65,
            memory_sustain: Duration::from_mins(4),
            cooldown: Duration::from_mins(5),
        },
        scale_down: ScaleDown {
            enabled: true,
            cpu_below: 0.30,
            memory_below: 0.50,
            sustain: Duration::from_mins(10),
            cooldown: Duration::from_mins(10),
            longest_cooldown: Duration::from_hours(6),
            min_node_age: Duration::from_mins(10),
            share_at_once: 0.1,
            most_at_once: 50,
        },
        consolidation: None,
        replacement: None,
        rest: OfferRest {
            first: Duration::from_mins(1),
            longest: Duration::from_mins(30),
            stop_after_never_joined: 3,
            stopped: Duration::from_hours(24),
            node: Duration::from_mins(15),
        },
        interval: Duration::from_mins(2),
        max_unready_share: 0.2,
        min_coverage: 1.0,
        price_ceiling: None,
        replace_interrupted_while_paused: false,
        stray_grace: Duration::from_mins(10),
        unhealthy_after: Duration::from_mins(15),
        join_timeout: Duration::from_mins(5),
        startup_taints: BTreeSet::new(),
        critical_priority: 1_000_000_000,
        expendable_below: -10,
    }
}

/// How many cases a property is tried on: `PROPTEST_CASES`, or so many.
fn cases(number: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(number)
}

fn capacity(cpu: u64, gib: u64) -> Resources {
    Resources { cpu: MilliCpu(cpu), memory: Bytes(gib * GIB), ephemeral_storage: Bytes(100 * GIB), pods: 110, extended: BTreeMap::new() }
}

fn offer(instance_type: &str, zone: &str, market: Market, dollars_micro: u64, allocatable: Resources) -> Offer {
    let labels = Labels::from([
        (POOL_LABEL.into(), "workers".into()),
        (ZONE_LABEL.into(), zone.into()),
        (INSTANCE_TYPE_LABEL.into(), instance_type.into()),
        (ARCH_LABEL.into(), "amd64".into()),
    ]);
    Offer {
        key: OfferKey { instance_type: instance_type.into(), zone: zone.into(), market },
        pool: "workers".into(),
        subnet: format!("subnet-{zone}").as_str().into(),
        price: HourlyPrice(dollars_micro),
        allocatable,
        labels,
        taints: Vec::new(),
    }
}

fn offers() -> Vec<Offer> {
    let mut offers = Vec::new();
    for zone in ["a", "b"] {
        for (market, percent) in [(Market::OnDemand, 100), (Market::Spot, 35)] {
            offers.push(offer("m5.large", zone, market, 960 * percent, capacity(1900, 7)));
            offers.push(offer("m5.xlarge", zone, market, 1920 * percent, capacity(3900, 15)));
        }
    }
    offers
}

fn node(name: &str, zone: &str) -> Node {
    Node {
        name: name.into(),
        uid: format!("uid-{name}"),
        instance: Some(format!("i-{name}").as_str().into()),
        labels: Labels::from([
            (POOL_LABEL.into(), "workers".into()),
            (ZONE_LABEL.into(), zone.into()),
            ("kubernetes.io/hostname".into(), name.into()),
        ]),
        taints: Vec::new(),
        cordoned: false,
        cordoned_by: None,
        readiness: Readiness::Ready { since: start() - SignedDuration::from_hours(2) },
        allocatable: capacity(1900, 7),
        created: start() - SignedDuration::from_hours(2),
        control_plane: false,
        keep: None,
    }
}

fn instance(name: &str, zone: &str, market: Market) -> Instance {
    Instance {
        id: format!("i-{name}").as_str().into(),
        instance_type: "m5.large".into(),
        zone: zone.into(),
        subnet: None,
        market,
        state: InstanceState::Running,
        launched: start() - SignedDuration::from_hours(2),
        pool: Some("workers".into()),
        operation: None,
        epoch: None,
        ended: None,
        template: None,
    }
}

fn pod(name: &str, milli_cpu: u64) -> Pod {
    Pod {
        key: PodKey { namespace: "default".into(), name: name.into() },
        uid: format!("uid-{name}"),
        owner: Owner::Controller,
        phase: PodPhase::Pending,
        requests: Resources { cpu: MilliCpu(milli_cpu), memory: Bytes(GIB / 4), pods: 1, ..Resources::default() },
        ..Pod::default()
    }
}

fn pending(name: &str, milli_cpu: u64) -> Pod {
    Pod { unschedulable_since: Some(start()), ..pod(name, milli_cpu) }
}

fn running(name: &str, milli_cpu: u64, on: &str) -> Pod {
    Pod { phase: PodPhase::Running, node: Some(on.into()), ..pod(name, milli_cpu) }
}

/// A world under construction.
#[derive(Clone, Debug)]
struct Scene {
    settings: Settings,
    view: ClusterView,
    instances: Vec<Instance>,
    offers: Vec<Offer>,
    load: BTreeMap<NodeName, Utilisation>,
    snapshot: Snapshot,
    memory: Memory,
}

impl Scene {
    /// `nodes` workers of one type, on-demand first, in alternating zones, half busy.
    fn with_nodes(nodes: usize) -> Self {
        let unknown = || Observed::Unknown(crate::model::Missing::Empty);
        let snapshot = Snapshot {
            cluster: unknown_view(),
            instances: Observed::Unknown(crate::model::Missing::Empty),
            offers: Observed::Unknown(crate::model::Missing::Empty),
            prices: Arc::default(),
            utilisation: unknown(),
            metrics: BTreeMap::new(),
            prospects: BTreeMap::new(),
            operations: BTreeMap::new(),
            templates: BTreeMap::new(),
            pause: None,
        };
        let mut scene = Self {
            settings: settings(),
            view: ClusterView::default(),
            instances: Vec::new(),
            offers: offers(),
            load: BTreeMap::new(),
            snapshot,
            memory: Memory::default(),
        };
        for index in 0..nodes {
            let zone = if index % 2 == 0 { "a" } else { "b" };
            let name = format!("n{index}");
            scene.view.nodes.insert(name.as_str().into(), node(&name, zone));
            scene.instances.push(instance(&name, zone, if index == 0 { Market::OnDemand } else { Market::Spot }));
        }
        scene.busy(0.5, 0.5)
    }

    fn busy(mut self, cpu: f64, memory: f64) -> Self {
        let value = |value| Reading::Value { value, sampled: start() };
        self.load = self.view.nodes.keys().map(|name| (name.clone(), Utilisation { cpu: value(cpu), memory: value(memory) })).collect();
        self
    }

    fn pods(mut self, pods: impl IntoIterator<Item = Pod>) -> Self {
        self.view.pods.extend(pods.into_iter().map(Arc::new));
        self.view.pods.sort_by(|a, b| a.key.cmp(&b.key));
        self
    }

    /// Adds a small pod to every node.
    fn occupied(self) -> Self {
        let pods: Vec<Pod> = self.view.nodes.keys().map(|name| running(&format!("on-{name}"), 100, name.as_str())).collect();
        self.pods(pods)
    }

    /// Adds an operation to the journal.
    fn under_way(mut self, operation: Operation) -> Self {
        self.snapshot.operations.insert(operation.id().clone(), operation);
        self
    }

    /// Changes the node of this name.
    fn with(mut self, name: &str, change: impl FnOnce(&mut Node)) -> Self {
        change(self.view.nodes.get_mut(name).expect("the node"));
        self
    }

    fn observed(&self, now: Timestamp) -> Snapshot {
        Snapshot {
            cluster: Observed::Known { value: Arc::new(self.view.clone()), at: now },
            instances: Observed::Known { value: self.instances.clone(), at: now },
            offers: Observed::Known { value: Arc::new(self.offers.clone()), at: now },
            utilisation: Observed::Known { value: UtilisationReport { nodes: self.load.clone(), warming_up: false }, at: now },
            ..self.snapshot.clone()
        }
    }

    /// Makes a turn, holds its plan against the invariants and remembers.
    fn turn(&mut self, now: Timestamp) -> Plan {
        let snapshot = self.observed(now);
        self.turn_with(&snapshot, now)
    }

    fn turn_with(&mut self, snapshot: &Snapshot, now: Timestamp) -> Plan {
        let (plan, memory) = plan(&self.settings, snapshot, &self.memory, now);
        assert_eq!(audit(&self.settings, snapshot, &plan, now), []);
        self.memory = memory;
        plan
    }

    /// Makes a turn every two minutes from `from` to `to`, and gives the last plan.
    fn turns(&mut self, from: i64, to: i64) -> Plan {
        let mut last = Plan::default();
        for minute in (from..=to).step_by(2) {
            last = self.turn(after(minute));
        }
        last
    }
}

fn unknown_view() -> Observed<Arc<ClusterView>> {
    Observed::Unknown(crate::model::Missing::Empty)
}

fn launches(plan: &Plan) -> Vec<&LaunchOrder> {
    plan.actions.iter().filter_map(|action| if let Action::Launch(order) = action { Some(order) } else { None }).collect()
}

fn launched(plan: &Plan) -> u32 {
    launches(plan).iter().map(|order| order.count).sum()
}

/// Lets nothing be bought: EC2 has none of any offer for an hour.
fn rest_everywhere(scene: &mut Scene) {
    let rest = Rest { until: after(60), failures: 1, since: start(), why: "insufficient capacity".into(), stopped: false };
    scene.memory.offers = scene.offers.iter().map(|offer| (offer.key.clone(), rest.clone())).collect();
}

fn retirements(plan: &Plan) -> Vec<&RetireOrder> {
    plan.actions.iter().filter_map(|action| if let Action::Retire(order) = action { Some(order) } else { None }).collect()
}

/// A launch that has been written down and not been answered.
fn begun(id: &str, order: LaunchOrder) -> Operation {
    launch(id, order, LaunchState::Journalled)
}

fn launch(id: &str, order: LaunchOrder, state: LaunchState) -> Operation {
    let request = LaunchRequest {
        token: id.into(),
        launch_template: "lt".into(),
        launch_template_version: "1".into(),
        subnet: order.subnet.clone(),
        market: order.market,
        instance_types: order.instance_types.clone(),
        count: order.count,
        tags: BTreeMap::new(),
    };
    Operation::Launch(Launch { id: id.into(), epoch: Epoch(1), created: start(), updated: start(), order, request, state })
}

/// Spot instances for one pod that waits.
fn order(count: u32) -> LaunchOrder {
    LaunchOrder {
        pool: "workers".into(),
        zone: "a".into(),
        subnet: "subnet-a".into(),
        market: Market::Spot,
        instance_types: vec!["m5.large".into()],
        count,
        price: HourlyPrice(33_600),
        reason: LaunchReason::PendingPods { pods: 1 },
        pods: Vec::new(),
    }
}

/// Gives a node of [`Scene::with_nodes`] back.
fn retire_order(name: &str, reason: RetireReason) -> RetireOrder {
    RetireOrder {
        pool: "workers".into(),
        instance: Some(format!("i-{name}").as_str().into()),
        node: Some(NodeRef { name: name.into(), uid: format!("uid-{name}") }),
        zone: "a".into(),
        market: Market::Spot,
        reason,
        on_timeout: OnDrainTimeout::RollBack,
    }
}

fn retire(name: &str, reason: RetireReason, state: RetireState) -> Operation {
    let id = format!("retire-{name}").as_str().into();
    Operation::Retire(Retire { id, epoch: Epoch(1), created: start(), updated: start(), order: retire_order(name, reason), state })
}

fn underused() -> RetireReason {
    RetireReason::Underused { evidence: String::new() }
}

/// Why the first pool does not follow a rule.
fn held(plan: &Plan, rule: &str) -> Option<Hold> {
    plan.pools[0].findings.iter().find(|finding| finding.rule.as_str() == rule).and_then(|finding| finding.hold.clone())
}
