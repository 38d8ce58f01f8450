//! The loop in a small world of values: one ledger, one cloud and one cluster in memory,
//! shared by as many controllers as a test wants, under tokio's paused clock.

mod life;
mod retirement;
mod succession;

use super::controller::{Controller, Inputs};
use super::lease::{self, Leadership};
use super::settings::{Lease, Operations, Settings, Template};
use super::status::{Command, Handle, Role, Status};
use crate::model::ids::Epoch;
use crate::model::instance::{InstanceState, OPERATION_TAG};
use crate::model::offer::HourlyPrice;
use crate::model::operation::{LaunchRequest, LaunchedInstance};
use crate::model::plan::{NodeRef, OnDrainTimeout};
use crate::model::reading::Utilisation;
use crate::model::scheduling::{Labels, POOL_LABEL, ZONE_LABEL};
use crate::model::snapshot::{Observed, Pause, UtilisationReport};
use crate::model::{
    Bytes, ClusterView, Instance, InstanceId, Market, Memory, MilliCpu, Missing, Node, NodeName, Offer, OfferKey, Operation, OperationId,
    Pod, PodKey, PodPhase, Readiness, Reading, Resources, RuleName,
};
use crate::policy::{OfferRest, PoolSettings, ScaleDown, ScaleUp, Settings as Policy};
use crate::ports::cloud::Catalogue;
use crate::ports::ledger::StateSummary;
use crate::ports::*;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

/// How long an instance takes to become a Ready node.
const BOOT: Duration = Duration::from_secs(40);

/// What is true, whoever looks.
#[derive(Default)]
struct Truth {
    lock: Option<LockRecord>,
    epoch: u64,
    /// The last epoch that was given back.
    released: u64,
    journal: BTreeMap<OperationId, Operation>,
    memory: Memory,
    pause: Option<Pause>,
    view: ClusterView,
    instances: Vec<Instance>,
    /// Requests that took effect, by token.
    launched: BTreeMap<OperationId, Vec<LaunchedInstance>>,
    /// How often a request arrived, by token.
    requests: BTreeMap<OperationId, u32>,
    terminated: Vec<InstanceId>,
    evicted: Vec<PodKey>,
    never_joins: bool,
    /// Pods whose eviction is refused, by name.
    not_evictable: BTreeSet<String>,
    /// Instances that start from now on become nodes that make no sense.
    unreadable: bool,
    /// The watches do not deliver.
    blind: bool,
    /// How often somebody asked for the view.
    views: u32,
    /// How long the ledger takes to say whether the fleet is paused, after it has looked.
    slow_pause: Duration,
}

/// What all controllers of a test share.
struct Shared {
    truth: Mutex<Truth>,
    changed: Notify,
    begin: Instant,
    ids: AtomicU64,
}

impl Shared {
    fn truth(&self) -> MutexGuard<'_, Truth> {
        self.truth.lock().expect("no test panics while it holds the lock")
    }

    fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-03-02T12:00:00Z".parse().expect("a timestamp");
        start + SignedDuration::try_from(self.begin.elapsed()).expect("a short test")
    }
}

/// The world as one controller sees it.
struct Small {
    shared: Arc<Shared>,
    /// The ledger answers this controller.
    ledger_up: AtomicBool,
    /// CreateFleet takes effect, but the answer is lost.
    answers_lost: AtomicBool,
    urgent: Notify,
}

impl Small {
    fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), ledger_up: AtomicBool::new(true), answers_lost: AtomicBool::new(false), urgent: Notify::new() }
    }

    fn reach(&self) -> Result<MutexGuard<'_, Truth>, LedgerError> {
        if self.ledger_up.load(Ordering::SeqCst) {
            return Ok(self.shared.truth());
        }
        Err(LedgerError::Unavailable { call: "GetItem", why: "cut off".into() })
    }

    fn fenced(&self, grant: &Grant) -> Result<MutexGuard<'_, Truth>, LedgerError> {
        let truth = self.reach()?;
        let held = truth.lock.as_ref().is_some_and(|lock| lock.owner == grant.owner && lock.epoch == grant.epoch);
        if held { Ok(truth) } else { Err(LedgerError::LeaseLost) }
    }
}

impl World for Small {
    type Cluster = Self;
    type Cloud = Self;
    type Metrics = Self;
    type Ledger = Self;
    type Notices = Self;
    type Clock = Self;
    type Entropy = Self;
    type Telemetry = Self;

    fn cluster(&self) -> &Self {
        self
    }
    fn cloud(&self) -> &Self {
        self
    }
    fn metrics(&self) -> &Self {
        self
    }
    fn ledger(&self) -> &Self {
        self
    }
    fn notices(&self) -> &Self {
        self
    }
    fn clock(&self) -> &Self {
        self
    }
    fn entropy(&self) -> &Self {
        self
    }
    fn telemetry(&self) -> &Self {
        self
    }
}

impl Clock for Small {
    fn now(&self) -> Timestamp {
        self.shared.now()
    }
    fn monotonic(&self) -> Monotonic {
        Monotonic(self.shared.begin.elapsed())
    }
}

impl Entropy for Small {
    fn operation_id(&self) -> OperationId {
        OperationId::new(format!("op-{}", self.shared.ids.fetch_add(1, Ordering::SeqCst)))
    }
    fn record_version(&self) -> String {
        format!("v-{}", self.shared.ids.fetch_add(1, Ordering::SeqCst))
    }
    fn fraction(&self) -> f64 {
        0.5
    }
}

impl Telemetry for Small {
    fn record(&self, _: Measurement) {}
}

impl Notices for Small {
    async fn receive(&self) -> Result<Vec<Delivery>, NoticeError> {
        std::future::pending().await
    }
    async fn delete(&self, _: &str) -> Result<(), NoticeError> {
        Ok(())
    }
}

impl Metrics for Small {
    async fn utilisation(&self) -> Observed<UtilisationReport> {
        let value = |value| Reading::Value { value, sampled: self.shared.now() };
        let load = |name: &NodeName| (name.clone(), Utilisation { cpu: value(0.1), memory: value(0.1) });
        let nodes = self.shared.truth().view.nodes.keys().map(load).collect();
        Observed::Known { value: UtilisationReport { nodes, warming_up: false }, at: self.shared.now() }
    }
    async fn query(&self, _: &RuleName, _: &str) -> Reading {
        Reading::Missing(Missing::Empty)
    }
}

impl Ledger for Small {
    async fn lock(&self) -> Result<Lock, LedgerError> {
        let truth = self.reach()?;
        Ok(match &truth.lock {
            Some(lock) => Lock::Held(lock.clone()),
            None if truth.released == truth.epoch => Lock::Free,
            None => Lock::Vanished { epoch: Epoch(truth.epoch) },
        })
    }
    async fn acquire(&self, claim: &Claim) -> Result<Grant, LedgerError> {
        let mut truth = self.reach()?;
        if truth.lock.as_ref().map(|lock| lock.version.clone()) != claim.replaces {
            return Err(LedgerError::Conflict);
        }
        truth.epoch += 1;
        let epoch = Epoch(truth.epoch);
        truth.lock = Some(LockRecord { owner: claim.owner.clone(), duration: claim.duration, version: claim.version.clone(), epoch });
        Ok(Grant { owner: claim.owner.clone(), epoch })
    }
    async fn heartbeat(&self, grant: &Grant, version: &str, _: Timestamp) -> Result<(), LedgerError> {
        let mut truth = self.fenced(grant)?;
        if let Some(lock) = &mut truth.lock {
            lock.version = version.to_owned();
        }
        Ok(())
    }
    async fn release(&self, grant: &Grant) -> Result<(), LedgerError> {
        let mut truth = self.fenced(grant)?;
        truth.lock = None;
        truth.released = truth.epoch;
        Ok(())
    }
    async fn load(&self) -> Result<LedgerState, LedgerError> {
        let truth = self.reach()?;
        let operations = truth.journal.values().cloned().collect();
        Ok(LedgerState { memory: truth.memory.clone(), pause: truth.pause.clone(), last_scale: None, operations })
    }
    async fn record(&self, grant: &Grant, operation: &Operation) -> Result<(), LedgerError> {
        self.fenced(grant)?.journal.insert(operation.id().clone(), operation.clone());
        Ok(())
    }
    async fn forget(&self, grant: &Grant, operation: &OperationId) -> Result<(), LedgerError> {
        self.fenced(grant)?.journal.remove(operation);
        Ok(())
    }
    async fn remember(&self, grant: &Grant, memory: &Memory, _: StateSummary) -> Result<(), LedgerError> {
        self.fenced(grant)?.memory = memory.clone();
        Ok(())
    }
    async fn set_pause(&self, pause: Option<&Pause>) -> Result<(), LedgerError> {
        self.reach()?.pause = pause.cloned();
        Ok(())
    }
    async fn pause(&self) -> Result<Option<Pause>, LedgerError> {
        let (pause, slow) = {
            let truth = self.reach()?;
            (truth.pause.clone(), truth.slow_pause)
        };
        tokio::time::sleep(slow).await;
        Ok(pause)
    }
}

impl Cloud for Small {
    async fn instances(&self) -> Result<Vec<Instance>, CloudError> {
        Ok(self.shared.truth().instances.clone())
    }
    async fn state_of(&self, id: &InstanceId) -> Result<Option<InstanceState>, CloudError> {
        Ok(self.shared.truth().instances.iter().find(|instance| instance.id == *id).map(|instance| instance.state))
    }
    async fn catalogue(&self) -> Result<Arc<Catalogue>, CloudError> {
        Ok(Arc::new(Catalogue { offers: Arc::new(offers()), ..Catalogue::default() }))
    }
    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, LaunchError> {
        let launched = {
            let mut truth = self.shared.truth();
            *truth.requests.entry(request.token.clone()).or_default() += 1;
            match truth.launched.get(&request.token) {
                Some(known) => known.clone(),
                None => self.start(&mut truth, request),
            }
        };
        tokio::time::sleep(Duration::from_millis(300)).await;
        if self.answers_lost.load(Ordering::SeqCst) {
            return Err(LaunchError::Unknown { why: "the connection was cut".into() });
        }
        Ok(Launched { instances: launched, without_capacity: Vec::new() })
    }
    async fn terminate(&self, id: &InstanceId) -> Result<(), CloudError> {
        let mut truth = self.shared.truth();
        truth.terminated.push(id.clone());
        truth.instances.retain(|instance| instance.id != *id);
        Ok(())
    }
}

impl Small {
    fn start(&self, truth: &mut Truth, request: &LaunchRequest) -> Vec<LaunchedInstance> {
        let mut launched = Vec::new();
        for _ in 0..request.count {
            let name = format!("n{}", self.shared.ids.fetch_add(1, Ordering::SeqCst));
            let instance = Instance {
                operation: request.tags.get(OPERATION_TAG).map(|id| OperationId::from(id.as_str())),
                market: request.market,
                launched: self.shared.now(),
                ..instance(&name, zone_of(request.subnet.as_str()))
            };
            launched.push(LaunchedInstance { id: instance.id.clone(), instance_type: "m5.large".into(), node: None });
            if !truth.never_joins {
                let (shared, zone) = (Arc::clone(&self.shared), zone_of(request.subnet.as_str()).to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(BOOT).await;
                    let node = Node { created: shared.now(), ..node(&name, &zone) };
                    let mut truth = shared.truth();
                    if truth.unreadable {
                        truth.view.refused_nodes.insert(node.name);
                    } else {
                        truth.view.nodes.insert(node.name.clone(), node);
                    }
                    drop(truth);
                    shared.changed.notify_waiters();
                });
            }
            truth.instances.push(instance);
        }
        truth.launched.insert(request.token.clone(), launched.clone());
        launched
    }
}

fn zone_of(subnet: &str) -> &str {
    subnet.trim_start_matches("subnet-")
}

impl Cluster for Small {
    async fn view(&self) -> Observed<Arc<ClusterView>> {
        let mut truth = self.shared.truth();
        truth.views += 1;
        if truth.blind {
            return Observed::Unknown(Missing::Unreachable { why: "the watches do not deliver".into() });
        }
        Observed::Known { value: Arc::new(truth.view.clone()), at: self.shared.now() }
    }
    fn cached_view(&self) -> Option<Arc<ClusterView>> {
        Some(Arc::new(self.shared.truth().view.clone()))
    }
    async fn urgent(&self) {
        self.urgent.notified().await;
    }
    async fn changed(&self) {
        self.shared.changed.notified().await;
    }
    async fn read_node(&self, name: &NodeName) -> Result<Option<NodeState>, ClusterError> {
        let truth = self.shared.truth();
        if truth.view.refused_nodes.contains(name) {
            return Err(ClusterError::Invalid { call: "get nodes", why: "it makes no sense".into() });
        }
        let pods = truth.view.pods.iter().filter(|pod| pod.node.as_ref() == Some(name)).map(|pod| Pod::clone(pod)).collect();
        Ok(truth.view.nodes.get(name).cloned().map(|node| NodeState { node, pods }))
    }
    async fn node_of(&self, instance: &InstanceId) -> Result<Option<NodeName>, ClusterError> {
        let truth = self.shared.truth();
        let named = |name: &&NodeName| format!("i-{name}") == instance.as_str();
        Ok(truth.view.nodes.keys().chain(&truth.view.refused_nodes).find(named).cloned())
    }
    async fn cordon(&self, node: &NodeRef, cordon: &Cordon) -> Result<(), ClusterError> {
        self.set_cordoned(node, Some(cordon.operation.to_string()))
    }
    async fn uncordon(&self, node: &NodeRef) -> Result<(), ClusterError> {
        self.set_cordoned(node, None)
    }
    async fn evict(&self, pod: &PodKey, _: &str) -> Result<Eviction, ClusterError> {
        let mut truth = self.shared.truth();
        if truth.not_evictable.contains(&pod.name) {
            return Err(ClusterError::Denied { call: "create pods/eviction", why: "a webhook says no".into() });
        }
        truth.evicted.push(pod.clone());
        truth.view.pods.retain(|other| other.key != *pod);
        Ok(Eviction::Accepted)
    }
    async fn delete_node(&self, node: &NodeRef) -> Result<(), ClusterError> {
        self.shared.truth().view.nodes.remove(&node.name);
        Ok(())
    }
}

impl Small {
    fn set_cordoned(&self, node: &NodeRef, by: Option<String>) -> Result<(), ClusterError> {
        let mut truth = self.shared.truth();
        let found = truth.view.nodes.get_mut(&node.name).ok_or(ClusterError::Gone { call: "patch node" })?;
        found.cordoned = by.is_some();
        found.cordoned_by = by;
        Ok(())
    }
}

fn capacity() -> Resources {
    Resources { cpu: MilliCpu(2000), memory: Bytes(8 << 30), ephemeral_storage: Bytes(100 << 30), pods: 110, extended: BTreeMap::new() }
}

fn offers() -> Vec<Offer> {
    let offer = |zone: &str, market| Offer {
        key: OfferKey { instance_type: "m5.large".into(), zone: zone.into(), market },
        pool: "workers".into(),
        subnet: format!("subnet-{zone}").as_str().into(),
        price: HourlyPrice(96_000),
        allocatable: capacity(),
        labels: Labels::from([(POOL_LABEL.into(), "workers".into()), (ZONE_LABEL.into(), zone.into())]),
        taints: Vec::new(),
    };
    ["a", "b"].iter().flat_map(|zone| [offer(zone, Market::OnDemand), offer(zone, Market::Spot)]).collect()
}

fn node(name: &str, zone: &str) -> Node {
    let long_ago: Timestamp = "2026-03-02T10:00:00Z".parse().expect("a timestamp");
    Node {
        name: name.into(),
        uid: format!("uid-{name}"),
        instance: Some(format!("i-{name}").as_str().into()),
        labels: Labels::from([(POOL_LABEL.into(), "workers".into()), (ZONE_LABEL.into(), zone.into())]),
        taints: Vec::new(),
        cordoned: false,
        cordoned_by: None,
        readiness: Readiness::Ready { since: long_ago },
        allocatable: capacity(),
        created: long_ago,
        control_plane: false,
        keep: None,
    }
}

fn instance(name: &str, zone: &str) -> Instance {
    Instance {
        id: format!("i-{name}").as_str().into(),
        instance_type: "m5.large".into(),
        zone: zone.into(),
        subnet: None,
        market: Market::OnDemand,
        state: InstanceState::Running,
        launched: "2026-03-02T10:00:00Z".parse().expect("a timestamp"),
        pool: Some("workers".into()),
        operation: None,
        epoch: None,
    }
}

fn settings(owner: &str) -> Settings {
    let minutes = Duration::from_mins;
    Settings {
        cluster: "test".into(),
        owner: owner.into(),
        lease: Lease { duration: Duration::from_secs(20), heartbeat: Duration::from_secs(3) },
        operations: Operations {
            request_timeout: Duration::from_secs(5),
            join_timeout: minutes(5),
            drain_timeout: minutes(5),
            retry: Duration::from_secs(1),
            interruption_margin: Duration::from_secs(30),
        },
        templates: BTreeMap::from([("workers".into(), Template { template: "lt".into(), version: Some("1".into()) })]),
        policy: Policy {
            pools: vec![PoolSettings {
                name: "workers".into(),
                min: 2,
                max: 10,
                schedules: Vec::new(),
                on_demand_base: 10,
                spot_share: 0.0,
                on_drain_timeout: OnDrainTimeout::RollBack,
            }],
            metrics: Vec::new(),
            scale_up: ScaleUp {
                cpu_above: 0.7,
                cpu_target: 0.6,
                cpu_sustain: minutes(4),
                memory_above: 0.75,
                memory_target: 0.65,
                memory_sustain: minutes(4),
                cooldown: minutes(5),
            },
            scale_down: ScaleDown {
                enabled: true,
                cpu_below: 0.3,
                memory_below: 0.5,
                sustain: minutes(10),
                cooldown: minutes(10),
                longest_cooldown: Duration::from_hours(6),
                min_node_age: minutes(10),
            },
            rest: OfferRest {
                first: minutes(1),
                longest: minutes(30),
                stop_after_never_joined: 3,
                stopped: Duration::from_hours(48),
                node: minutes(15),
            },
            interval: minutes(2),
            max_unready_share: 0.2,
            min_coverage: 1.0,
            price_ceiling: None,
            replace_interrupted_while_paused: false,
            stray_grace: minutes(10),
            unhealthy_after: minutes(15),
            join_timeout: minutes(5),
            startup_taints: BTreeSet::new(),
            critical_priority: 1_000_000_000,
            expendable_below: -10,
        },
    }
}

fn shared(nodes: usize) -> Arc<Shared> {
    let mut truth = Truth::default();
    for index in 0..nodes {
        let (name, zone) = (format!("s{index}"), if index % 2 == 0 { "a" } else { "b" });
        truth.view.nodes.insert(name.as_str().into(), node(&name, zone));
        truth.instances.push(instance(&name, zone));
    }
    Arc::new(Shared { truth: Mutex::new(truth), changed: Notify::new(), begin: Instant::now(), ids: AtomicU64::new(0) })
}

/// One running controller with its lease.
struct Daemon {
    world: Arc<Small>,
    handle: Handle,
    stop: watch::Sender<bool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Keep the senders' ends open.
    _ends: (mpsc::Sender<Delivery>, mpsc::Sender<Result<Settings, String>>),
}

impl Daemon {
    fn start(shared: &Arc<Shared>, owner: &str) -> Self {
        let world = Arc::new(Small::new(shared));
        let settings = settings(owner);
        let (stop, stopped) = watch::channel(false);
        let (leads, leadership) = watch::channel(Leadership::default());
        let (tick, ticks) = mpsc::channel(1);
        let (deliver, deliveries) = mpsc::channel(8);
        let (command, commands) = mpsc::channel(8);
        let (reload, reloads) = mpsc::channel(1);
        let (resign, resigned) = mpsc::channel(1);
        let initial = Status {
            version: "test",
            cluster: "test".into(),
            owner: owner.into(),
            role: Role::Standby { leader: None },
            started: shared.now(),
            last_turn: None,
            turns: 0,
            pause: None,
            plan: None,
            operations: Vec::new(),
            sources: BTreeMap::new(),
            reload_error: None,
            decisions: std::collections::VecDeque::new(),
        };
        let (publish, status) = watch::channel(Arc::new(initial));
        let (beat, _) = watch::channel(0);
        let inputs = Inputs { leadership, resign, ticks, deliveries, commands, reloads, stop: stopped.clone() };
        let controller = Controller::new(Arc::clone(&world), settings.clone(), inputs, publish, beat);
        let interval = settings.policy.interval;
        let tasks = vec![
            tokio::spawn(lease::keep(Arc::clone(&world), owner.to_owned(), settings.lease, leads, resigned, stopped)),
            tokio::spawn(controller.run()),
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(interval).await;
                    let _ = tick.try_send(());
                }
            }),
        ];
        Self { world, handle: Handle { status, commands: command }, stop, tasks, _ends: (deliver, reload) }
    }

    /// Ends it as SIGKILL does: nothing is finished, nothing is given back.
    fn kill(self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

    fn leads(&self) -> bool {
        matches!(self.handle.status.borrow().role, Role::Leader { .. })
    }

    fn urge(&self) {
        self.world.urgent.notify_one();
    }
}

fn pending_pod(shared: &Shared, name: &str, milli_cpu: u64) {
    let pod = Pod {
        key: PodKey { namespace: "default".into(), name: name.into() },
        uid: format!("uid-{name}"),
        owner: crate::model::pod::Owner::Controller,
        phase: PodPhase::Pending,
        unschedulable_since: Some(shared.now()),
        requests: Resources { cpu: MilliCpu(milli_cpu), pods: 1, ..Resources::default() },
        ..Pod::default()
    };
    shared.truth().view.pods.push(Arc::new(pod));
}

impl Daemon {
    async fn pause(&self) {
        let (done, told) = oneshot::channel();
        let command = Command::Pause { by: "ada".into(), reason: "maintenance".into(), done };
        self.handle.commands.send(command).await.expect("the controller listens");
        told.await.expect("an answer").expect("the pause holds");
    }

    async fn resume(&self) {
        let (done, told) = oneshot::channel();
        self.handle.commands.send(Command::Resume { by: "ada".into(), done }).await.expect("the controller listens");
        told.await.expect("an answer").expect("it goes on");
    }

    fn is_paused(&self) -> bool {
        self.handle.status.borrow().pause.is_some()
    }
}

async fn seconds(number: u64) {
    tokio::time::sleep(Duration::from_secs(number)).await;
}
