//! The loop. One task owns everything that changes; nothing in it waits for the world.
//!
//! Observations, steps of operations and ledger writes run as futures beside one another and
//! report back here, so a call that hangs delays nothing else: a spot notice is acted on
//! while CreateFleet waits for its answer.

use super::driver::{Context, Drive, Stepped, step};
use super::lease::{Fence, Leadership};
use super::observe::{Observation, observe};
use super::settings::Settings;
use super::status::{Command, Decision, Role, SourceStatus, Status};
use crate::model::ids::Epoch;
use crate::model::instance::tags;
use crate::model::operation::{LaunchState, RetireState};
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireReason};
use crate::model::snapshot::{Observed, Pause};
use crate::model::{
    Action, Instance, InstanceId, Launch, LaunchOrder, LaunchRequest, Memory, Operation, OperationId, Plan, Retire, RetireOrder, Snapshot,
};
use crate::policy;
use crate::ports::ledger::StateSummary;
use crate::ports::{
    Clock, Cloud, Cluster, Delivery, Entropy, Grant, Ledger, LedgerError, LedgerState, Measurement, Notice, Notices, Telemetry, World,
};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

/// Pods that become unschedulable together are served together: so long the loop waits for more.
const BATCH_IDLE: Duration = Duration::from_millis(100);
/// Operations that are over are kept this long: EC2's and Kubernetes' lists lag behind them.
const KEPT_WHEN_OVER: SignedDuration = SignedDuration::from_mins(15);
/// A spot instance ends this long after its notice.
const SPOT_NOTICE: SignedDuration = SignedDuration::from_secs(120);
/// After a failed turn, how soon an urgent one is tried again.
const URGENT_AGAIN: Duration = Duration::from_secs(5);

/// What reaches the loop from outside.
pub struct Inputs {
    /// The lease.
    pub leadership: watch::Receiver<Leadership>,
    /// The evaluation's clockwork.
    pub ticks: mpsc::Receiver<()>,
    /// EC2's notices.
    pub deliveries: mpsc::Receiver<Delivery>,
    /// What operators ask.
    pub commands: mpsc::Receiver<Command>,
    /// New settings, or why they were refused.
    pub reloads: mpsc::Receiver<Result<Settings, String>>,
    /// Set when the daemon is to end.
    pub stop: watch::Receiver<bool>,
}

/// What is running beside the loop.
enum Event {
    Loaded(Grant, Result<LedgerState, LedgerError>),
    Observed(&'static str, Box<Observation>),
    Stepped(Epoch, Box<Stepped>),
    Paused(Option<Pause>, Result<(), LedgerError>, oneshot::Sender<Result<(), String>>),
    Remembered(Result<(), LedgerError>),
    Looked(Delivery, InstanceId, Timestamp, Option<Box<Instance>>),
    Woke,
    Nothing,
}

/// The controller of one world.
pub struct Controller<W: World> {
    context: Context<W>,
    inputs: Inputs,
    status: watch::Sender<Arc<Status>>,
    beat: watch::Sender<u64>,
    running: FuturesUnordered<BoxFuture<'static, Event>>,
    /// The lease under which everything below was learnt; `None` on a standby.
    grant: Option<Grant>,
    loading: bool,
    memory: Memory,
    pause: Option<Pause>,
    operations: BTreeMap<OperationId, Operation>,
    /// New reasons for retirements that are being driven.
    amended: BTreeMap<OperationId, RetireReason>,
    /// Messages to delete once their operation's effect is recorded.
    receipts: BTreeMap<OperationId, Vec<(String, crate::ports::Monotonic)>>,
    instances: Vec<Instance>,
    observing: bool,
    again: Option<&'static str>,
    evaluations: Vec<oneshot::Sender<Result<Arc<Decision>, String>>>,
    decisions: VecDeque<Arc<Decision>>,
    shown: Status,
}

impl<W: World> Controller<W> {
    /// Builds a controller. `beat` counts the turns of its loop, for a watchdog.
    pub fn new(world: Arc<W>, settings: Settings, inputs: Inputs, status: watch::Sender<Arc<Status>>, beat: watch::Sender<u64>) -> Self {
        let shown = (**status.borrow()).clone();
        let context = Context { world, fence: Fence::new(inputs.leadership.clone()), settings: Arc::new(settings) };
        Self {
            context,
            inputs,
            status,
            beat,
            running: FuturesUnordered::new(),
            grant: None,
            loading: false,
            memory: Memory::default(),
            pause: None,
            operations: BTreeMap::new(),
            amended: BTreeMap::new(),
            receipts: BTreeMap::new(),
            instances: Vec::new(),
            observing: false,
            again: None,
            evaluations: Vec::new(),
            decisions: VecDeque::new(),
            shown,
        }
    }

    /// Runs until it is stopped. Steps that are in hand then are finished up to their journal entry.
    pub async fn run(mut self) {
        let world = Arc::clone(&self.context.world);
        self.follow_lease();
        loop {
            self.beat.send_modify(|beat| *beat = beat.wrapping_add(1));
            tokio::select! {
                biased;
                () = stopped(&mut self.inputs.stop) => break,
                changed = self.inputs.leadership.changed() => match changed {
                    Ok(()) => self.follow_lease(),
                    Err(_) => break,
                },
                Some(delivery) = self.inputs.deliveries.recv() => self.deliver(delivery),
                Some(event) = self.running.next(), if !self.running.is_empty() => self.handle(event),
                Some(command) = self.inputs.commands.recv() => self.command(command),
                Some(reload) = self.inputs.reloads.recv() => self.reload(reload),
                () = world.cluster().urgent() => {
                    tokio::time::sleep(BATCH_IDLE).await;
                    self.turn("pods");
                }
                Some(()) = self.inputs.ticks.recv() => self.turn("tick"),
                // The watchdog is fed by a loop that turns, also when there is nothing to do.
                () = tokio::time::sleep(Duration::from_secs(1)) => {}
            }
        }
        self.finish().await;
    }

    /// Lets what is in hand report, within a bound, so that the journal has it.
    async fn finish(&mut self) {
        info!(running = self.running.len(), "stopping");
        let limit = tokio::time::sleep(self.context.settings.operations.request_timeout);
        tokio::pin!(limit);
        self.grant = None;
        while !self.running.is_empty() {
            tokio::select! {
                biased;
                event = self.running.next() => if let Some(event) = event { self.handle(event) },
                () = &mut limit => break,
            }
        }
    }

    fn now(&self) -> Timestamp {
        self.context.world.clock().now()
    }

    fn spawn(&self, future: impl Future<Output = Event> + Send + 'static) {
        self.running.push(Box::pin(future));
    }

    // ---- leadership -------------------------------------------------------------------------

    fn follow_lease(&mut self) {
        let leadership = self.inputs.leadership.borrow_and_update().clone();
        match &leadership {
            Leadership::Leader { grant, .. } => {
                self.shown.role = Role::Leader { epoch: grant.epoch };
                if self.grant.as_ref() != Some(grant) && !self.loading {
                    self.step_down();
                    self.load(grant.clone());
                }
            }
            Leadership::Standby { leader } => {
                self.shown.role = Role::Standby { leader: Some(leader.clone()) };
                self.step_down();
            }
            Leadership::Unknown => {
                self.shown.role = Role::Standby { leader: None };
                self.step_down();
            }
        }
        self.publish();
    }

    /// Forgets everything that only a leader may know: the journal has it.
    fn step_down(&mut self) {
        if self.grant.take().is_some() {
            warn!("this instance no longer acts");
        }
        self.running.clear();
        self.loading = false;
        self.observing = false;
        self.operations.clear();
        self.amended.clear();
        self.receipts.clear();
        for waiting in self.evaluations.drain(..) {
            let _ = waiting.send(Err("this instance does not lead".into()));
        }
    }

    fn load(&mut self, grant: Grant) {
        self.loading = true;
        let world = Arc::clone(&self.context.world);
        self.spawn(async move {
            let state = world.ledger().load().await;
            if state.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Event::Loaded(grant, state)
        });
    }

    fn loaded(&mut self, grant: Grant, state: Result<LedgerState, LedgerError>) {
        self.loading = false;
        match state {
            Ok(state) => {
                info!(epoch = %grant.epoch, operations = state.operations.len(), "the journal is read");
                self.source("dynamodb", Ok(()));
                self.grant = Some(grant);
                self.memory = state.memory;
                self.pause = state.pause;
                for operation in state.operations {
                    self.adopt(operation, false);
                }
                self.turn("start");
            }
            Err(why) => {
                error!(error = %why, "the journal cannot be read, so nothing is done");
                self.source("dynamodb", Err(why.to_string()));
                if self.inputs.leadership.borrow().grant() == Some(&grant) {
                    self.load(grant);
                }
            }
        }
    }

    // ---- turns ------------------------------------------------------------------------------

    fn turn(&mut self, trigger: &'static str) {
        if self.grant.is_none() {
            return;
        }
        if self.observing {
            self.again = Some(match self.again {
                Some("tick") => "tick",
                Some(_) | None => trigger,
            });
            return;
        }
        self.observing = true;
        let (world, settings) = (Arc::clone(&self.context.world), Arc::clone(&self.context.settings));
        let urgent = matches!(trigger, "pods" | "notice");
        self.spawn(async move {
            let before = world.clock().monotonic();
            let observation = observe(Arc::clone(&world), settings, urgent).await;
            world.telemetry().record(Measurement::Turn { trigger, took: world.clock().monotonic().since(before) });
            Event::Observed(trigger, Box::new(observation))
        });
    }

    fn observed(&mut self, trigger: &'static str, observation: Observation) {
        self.observing = false;
        let Some(grant) = self.grant.clone() else { return };
        self.note_sources(&observation);
        match &observation.pause {
            Ok(pause) => self.pause.clone_from(pause),
            // Whether an operator has paused the fleet is not known, so nothing is started.
            Err(why) => return self.after_turn(trigger, &Err(format!("the ledger does not say whether the fleet is paused: {why}"))),
        }
        if let Observed::Known { value, .. } = &observation.instances {
            self.instances.clone_from(value);
        }
        let versions = observation.catalogue.known().map(|catalogue| catalogue.template_versions.clone()).unwrap_or_default();
        let snapshot = self.snapshot(observation);
        let now = self.now();
        let before = self.context.world.clock().monotonic();
        let (plan, memory) = policy::plan(&self.context.settings.policy, &snapshot, &self.memory, now);
        self.context.world.telemetry().record(Measurement::Planned { took: self.context.world.clock().monotonic().since(before) });
        let violations = policy::audit(&self.context.settings.policy, &snapshot, &plan, now);
        let refused: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let mut begun = Vec::new();
        if violations.is_empty() {
            self.memory = memory;
            for action in &plan.actions {
                begun.extend(self.begin(action, &grant, &versions, &snapshot));
            }
        } else {
            for violation in &violations {
                error!(%violation, "the plan would break an invariant and is refused");
                self.context.world.telemetry().record(Measurement::AuditRefused { invariant: violation.invariant.name() });
            }
        }
        self.remember(&grant, &plan);
        self.forget_old(&grant);
        let decision = Arc::new(Decision { at: now, trigger, plan, refused, operations: begun });
        self.after_turn(trigger, &Ok(decision));
    }

    fn after_turn(&mut self, trigger: &'static str, decision: &Result<Arc<Decision>, String>) {
        self.shown.turns += 1;
        self.shown.last_turn = Some(self.now());
        match decision {
            Ok(decision) => {
                self.shown.plan = Some(Arc::new(decision.plan.clone()));
                self.decisions.push_front(Arc::clone(decision));
                self.decisions.truncate(super::status::DECISIONS_KEPT);
            }
            Err(why) => warn!(%why, "no plan was made"),
        }
        for waiting in self.evaluations.drain(..) {
            let _ = waiting.send(decision.clone());
        }
        let blind = decision.as_ref().is_ok_and(|decision| decision.plan.pools.is_empty()) || decision.is_err();
        if blind && trigger != "tick" {
            // What made the turn urgent is still there when the sources answer again.
            self.spawn(async {
                tokio::time::sleep(URGENT_AGAIN).await;
                Event::Woke
            });
        }
        if let Some(again) = self.again.take() {
            self.turn(again);
        }
        self.publish();
    }

    fn snapshot(&self, observation: Observation) -> Snapshot {
        Snapshot {
            cluster: observation.cluster,
            instances: observation.instances,
            offers: match observation.catalogue {
                Observed::Known { value, at } => Observed::Known { value: Arc::clone(&value.offers), at },
                Observed::Unknown(why) => Observed::Unknown(why),
            },
            utilisation: observation.utilisation,
            metrics: observation.metrics,
            operations: self.operations.clone(),
            pause: self.pause.clone(),
        }
    }

    fn note_sources(&mut self, observation: &Observation) {
        fn outcome<T>(observed: &Observed<T>) -> Result<(), String> {
            match observed {
                Observed::Known { .. } => Ok(()),
                Observed::Unknown(why) => Err(why.to_string()),
            }
        }
        self.source("kubernetes", outcome(&observation.cluster));
        self.source("ec2", outcome(&observation.instances).and(outcome(&observation.catalogue)));
        if !matches!(observation.utilisation, Observed::Unknown(crate::model::Missing::NotAsked)) {
            self.source("prometheus", outcome(&observation.utilisation));
        }
        self.source("dynamodb", observation.pause.as_ref().map(|_| ()).map_err(ToString::to_string));
    }

    fn source(&mut self, name: &'static str, outcome: Result<(), String>) {
        let now = self.now();
        let entry = self.shown.sources.entry(name).or_insert(SourceStatus { ok: false, why: None, last_ok: None });
        entry.ok = outcome.is_ok();
        if entry.ok {
            entry.last_ok = Some(now);
        }
        entry.why = outcome.err();
    }

    // ---- operations -------------------------------------------------------------------------

    fn begin(
        &mut self,
        action: &Action,
        grant: &Grant,
        versions: &BTreeMap<crate::model::PoolName, String>,
        snapshot: &Snapshot,
    ) -> Option<String> {
        let operation = match action {
            Action::Launch(order) => self.new_launch(order, grant, versions, snapshot)?,
            Action::Retire(order) => self.new_retire(order.clone(), grant),
        };
        let id = operation.id().to_string();
        self.adopt(operation, true);
        Some(id)
    }

    fn new_launch(
        &self,
        order: &LaunchOrder,
        grant: &Grant,
        versions: &BTreeMap<crate::model::PoolName, String>,
        snapshot: &Snapshot,
    ) -> Option<Operation> {
        let template = self.context.settings.templates.get(&order.pool)?;
        let Some(version) = template.version.clone().or_else(|| versions.get(&order.pool).cloned()) else {
            error!(pool = %order.pool, "the launch template's version is not known, so nothing is launched");
            return None;
        };
        let id = self.context.world.entropy().operation_id();
        let request = LaunchRequest {
            token: id.clone(),
            launch_template: template.template.clone(),
            launch_template_version: version,
            subnet: order.subnet.clone(),
            market: order.market,
            instance_types: order.instance_types.clone(),
            count: order.count,
            tags: tags(&self.context.settings.cluster, &order.pool, &id, grant.epoch),
        };
        info!(operation = %id, pool = %order.pool, zone = %order.zone, market = %order.market, count = order.count, reason = %order.reason, "scaling up");
        self.measure_urgency(order, snapshot);
        self.context.world.telemetry().record(Measurement::ScaledUp {
            pool: order.pool.to_string(),
            market: order.market,
            instances: order.count,
        });
        let now = self.now();
        Some(Operation::Launch(Launch {
            id,
            epoch: grant.epoch,
            created: now,
            updated: now,
            order: order.clone(),
            request,
            state: LaunchState::Journalled,
        }))
    }

    /// Measures how long the oldest of the order's pods has waited.
    fn measure_urgency(&self, order: &LaunchOrder, snapshot: &Snapshot) {
        let Some(cluster) = snapshot.cluster.known() else { return };
        let named: BTreeSet<_> = order.pods.iter().collect();
        let oldest = cluster.pods.iter().filter(|pod| named.contains(&pod.key)).filter_map(|pod| pod.unschedulable_since).min();
        if let Some(since) = oldest {
            let took = Duration::try_from(self.now().duration_since(since)).unwrap_or_default();
            self.context.world.telemetry().record(Measurement::UnschedulableToLaunch { took });
        }
    }

    fn new_retire(&self, order: RetireOrder, grant: &Grant) -> Operation {
        let id = self.context.world.entropy().operation_id();
        let now = self.now();
        info!(operation = %id, pool = %order.pool, instance = ?order.instance, node = ?order.node, reason = %order.reason, "giving back");
        Operation::Retire(Retire { id, epoch: grant.epoch, created: now, updated: now, order, state: RetireState::Journalled })
    }

    /// Takes an operation into the table and begins to drive it.
    fn adopt(&mut self, operation: Operation, fresh: bool) {
        let over = operation.is_over();
        self.operations.insert(operation.id().clone(), operation.clone());
        if !over {
            self.drive(Drive { operation, fresh, failures: 0 });
        }
    }

    fn drive(&self, drive: Drive) {
        let Some(grant) = &self.grant else { return };
        let (context, epoch) = (self.context.clone(), grant.epoch);
        self.spawn(async move { Event::Stepped(epoch, Box::new(step(context, drive).await)) });
    }

    fn stepped(&mut self, epoch: Epoch, stepped: Stepped) {
        if self.grant.as_ref().map(|grant| grant.epoch) != Some(epoch) {
            return;
        }
        if stepped.lost {
            warn!("the journal refuses this instance; another one leads");
            return;
        }
        let mut drive = stepped.drive;
        self.amend(&mut drive);
        let now = self.now();
        let id = drive.operation.id().clone();
        let journalled = !drive.fresh;
        if journalled {
            let moved = self.operations.get(&id).is_none_or(|known| known.state_name() != drive.operation.state_name());
            self.operations.insert(id.clone(), drive.operation.clone());
            self.settle_receipts(&drive.operation);
            let over = drive.operation.is_over();
            if over || !stepped.without_capacity.is_empty() {
                self.memory = policy::learn(
                    &self.context.settings.policy,
                    std::mem::take(&mut self.memory),
                    &drive.operation,
                    &stepped.without_capacity,
                    now,
                );
            }
            if over && moved {
                self.ended(&drive.operation);
                self.publish();
                return;
            }
            if moved {
                self.publish();
            }
        }
        self.drive(drive);
    }

    /// Gives a retirement its new reason; the journal hears of it with the next step.
    fn amend(&mut self, drive: &mut Drive) {
        let Operation::Retire(retire) = &mut drive.operation else { return };
        if let Some(reason) = self.amended.remove(&retire.id) {
            let restart = matches!(retire.state, RetireState::RollingBack { .. });
            retire.order.reason = reason;
            retire.order.on_timeout = OnDrainTimeout::Force;
            if restart || matches!(retire.state, RetireState::Draining { .. }) {
                retire.state = RetireState::Journalled;
            }
            drive.fresh = true;
        }
    }

    fn ended(&mut self, operation: &Operation) {
        let telemetry = self.context.world.telemetry();
        match operation {
            Operation::Launch(launch) => match &launch.state {
                LaunchState::Failed { failure } => {
                    let failure = match failure {
                        crate::model::operation::LaunchFailure::InsufficientCapacity => "insufficient_capacity",
                        crate::model::operation::LaunchFailure::Quota { .. } => "quota",
                        crate::model::operation::LaunchFailure::TokenMismatch => "token_mismatch",
                        crate::model::operation::LaunchFailure::Refused { .. } => "refused",
                    };
                    warn!(operation = %launch.id, failure, "the launch failed");
                    telemetry.record(Measurement::OperationFailed { kind: "launch", failure });
                    // The need is still there, and other offers may serve it.
                    self.turn("notice");
                }
                LaunchState::Done { never_joined, .. } if !never_joined.is_empty() => {
                    telemetry.record(Measurement::OperationFailed { kind: "launch", failure: "never_joined" });
                    self.turn("notice");
                }
                LaunchState::Done { .. } | LaunchState::Journalled | LaunchState::Joining { .. } => {}
            },
            Operation::Retire(retire) => match &retire.state {
                RetireState::RolledBack { .. } => telemetry.record(Measurement::RolledBack { pool: retire.order.pool.to_string() }),
                RetireState::Done => {
                    let reason = match retire.order.reason {
                        RetireReason::Underused { .. } => "underused",
                        RetireReason::AboveMaximum => "above_maximum",
                        RetireReason::SpotInterruption { .. } => "spot_interruption",
                        RetireReason::NeverJoined => "never_joined",
                        RetireReason::Leaked => "leaked",
                        RetireReason::InstanceGone => "instance_gone",
                    };
                    telemetry.record(Measurement::ScaledDown { pool: retire.order.pool.to_string(), reason });
                }
                RetireState::Journalled
                | RetireState::Draining { .. }
                | RetireState::Drained { .. }
                | RetireState::Terminated
                | RetireState::RollingBack { .. } => {}
            },
        }
    }

    /// Writes the memory down, beside the loop.
    fn remember(&self, grant: &Grant, plan: &Plan) {
        let summary = StateSummary {
            node_count: plan.pools.iter().map(|pool| pool.owned + pool.in_flight).sum(),
            scaling_in_progress: self.operations.values().any(|operation| !operation.is_over()),
            last_scale: self.memory.pools.values().flat_map(|pool| [pool.last_up, pool.last_down]).flatten().max(),
        };
        let (world, grant, memory) = (Arc::clone(&self.context.world), grant.clone(), self.memory.clone());
        self.spawn(async move { Event::Remembered(world.ledger().remember(&grant, &memory, summary).await) });
    }

    /// Forgets operations that have been over for long.
    fn forget_old(&mut self, grant: &Grant) {
        let now = self.now();
        let old: Vec<OperationId> = self
            .operations
            .values()
            .filter(|operation| operation.is_over() && now.duration_since(operation.updated()) > KEPT_WHEN_OVER)
            .map(|operation| operation.id().clone())
            .collect();
        for id in old {
            self.operations.remove(&id);
            let (world, grant) = (Arc::clone(&self.context.world), grant.clone());
            self.spawn(async move { Event::Remembered(world.ledger().forget(&grant, &id).await) });
        }
    }

    // ---- notices ----------------------------------------------------------------------------

    fn deliver(&mut self, delivery: Delivery) {
        if self.grant.is_none() {
            return; // It becomes visible again and reaches whoever leads then.
        }
        let received = |kind| self.context.world.telemetry().record(Measurement::NoticeReceived { kind });
        match delivery.notice.clone() {
            Err(why) => {
                received("malformed");
                warn!(%why, "a malformed notice is left to the dead-letter queue");
            }
            Ok(Notice::SpotInterruption { instance, at }) => {
                received("spot_interruption");
                self.interrupted(delivery, instance, at);
            }
            Ok(Notice::RebalanceRecommendation { instance }) => {
                received("rebalance_recommendation");
                info!(%instance, "EC2 recommends to rebalance");
                self.acknowledge(delivery.handle);
            }
            Ok(Notice::StateChange { instance, state }) => {
                received("state_change");
                let ours = self.instances.iter().any(|known| known.id == instance);
                info!(%instance, state, ours, "an instance has changed its state");
                self.acknowledge(delivery.handle);
                if ours {
                    self.turn("notice");
                }
            }
            Ok(Notice::ScheduledChange { instances }) => {
                received("scheduled_change");
                warn!(?instances, "AWS has scheduled maintenance");
                self.acknowledge(delivery.handle);
            }
        }
    }

    fn interrupted(&mut self, delivery: Delivery, id: InstanceId, at: Timestamp) {
        let known = self.instances.iter().find(|instance| instance.id == id).cloned();
        if let Some(instance) = known {
            return self.interrupt(delivery, &instance, at);
        }
        // Not seen yet, or not ours: EC2 is asked before anything is believed.
        let world = Arc::clone(&self.context.world);
        self.spawn(async move {
            match world.cloud().instances().await {
                Ok(list) => {
                    let found = list.into_iter().find(|instance| instance.id == id).map(Box::new);
                    Event::Looked(delivery, id, at, found)
                }
                Err(error) => {
                    warn!(%error, instance = %id, "whose instance is interrupted cannot be told; the message comes again");
                    Event::Nothing
                }
            }
        });
    }

    fn interrupt(&mut self, delivery: Delivery, instance: &Instance, at: Timestamp) {
        let now = self.now();
        // An old message is no warning any more, and an on-demand instance gets none.
        if !instance.counts() || instance.market != crate::model::Market::Spot || now.duration_since(at) > SPOT_NOTICE * 2 {
            info!(instance = %instance.id, %at, "the notice does not fit the instance and changes nothing");
            return self.acknowledge(delivery.handle);
        }
        let gone = |retire: &Retire| retire.order.instance.as_ref() == Some(&instance.id) && retire.state == RetireState::Done;
        if self.operations.values().any(|operation| matches!(operation, Operation::Retire(retire) if gone(retire))) {
            // The list of instances is older than the end of its retirement.
            return self.acknowledge(delivery.handle);
        }
        let reason = RetireReason::SpotInterruption { deadline: at + SPOT_NOTICE };
        let received = self.context.world.clock().monotonic();
        let open = self.operations.values().find_map(|operation| match operation {
            Operation::Retire(retire) if retire.order.instance.as_ref() == Some(&instance.id) && !operation.is_over() => Some(retire),
            Operation::Retire(_) | Operation::Launch(_) => None,
        });
        let receipt = (delivery.handle, received);
        if let Some(retire) = open {
            if retire.order.reason.is_voluntary() {
                self.amended.insert(retire.id.clone(), reason);
            }
            self.receipts.entry(retire.id.clone()).or_default().push(receipt);
            let operation = self.operations[&retire.id.clone()].clone();
            return self.settle_receipts(&operation);
        }
        let Some(grant) = self.grant.clone() else { return };
        let view = self.context.world.cluster().cached_view();
        let node = view.as_ref().and_then(|view| view.nodes.values().find(|node| node.instance.as_ref() == Some(&instance.id)));
        if node.is_some_and(|node| node.control_plane) {
            return self.acknowledge(receipt.0);
        }
        let operation = self.new_retire(
            RetireOrder {
                pool: instance.pool.clone().unwrap_or_default(),
                instance: Some(instance.id.clone()),
                node: node.map(|node| NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
                zone: instance.zone.clone(),
                market: instance.market,
                reason,
                on_timeout: OnDrainTimeout::Force,
            },
            &grant,
        );
        self.receipts.entry(operation.id().clone()).or_default().push(receipt);
        self.adopt(operation, true);
        self.turn("notice");
    }

    /// Deletes the messages of an operation whose effect is in the journal.
    fn settle_receipts(&mut self, operation: &Operation) {
        let Operation::Retire(retire) = operation else { return };
        if retire.state == RetireState::Journalled || self.amended.contains_key(&retire.id) {
            return;
        }
        for (handle, received) in self.receipts.remove(&retire.id).unwrap_or_default() {
            let took = self.context.world.clock().monotonic().since(received);
            self.context.world.telemetry().record(Measurement::NoticeToCordon { took });
            self.acknowledge(handle);
        }
    }

    fn acknowledge(&self, handle: String) {
        let world = Arc::clone(&self.context.world);
        self.spawn(async move {
            if let Err(error) = world.notices().delete(&handle).await {
                warn!(%error, "the message could not be deleted; it comes again and changes nothing");
                world.telemetry().record(Measurement::PortFailed { port: "sqs", class: "delete" });
            }
            Event::Nothing
        });
    }

    // ---- operators --------------------------------------------------------------------------

    fn command(&mut self, command: Command) {
        match command {
            Command::Pause { by, reason, done } => self.set_pause(Some(Pause { since: self.now(), by, reason }), done),
            Command::Resume { by, done } => {
                info!(%by, "resuming");
                self.set_pause(None, done);
            }
            Command::Evaluate { done } if self.grant.is_none() => {
                let _ = done.send(Err("this instance does not lead; ask the leader".into()));
            }
            Command::Evaluate { done } => {
                self.evaluations.push(done);
                self.turn("operator");
            }
        }
    }

    fn set_pause(&mut self, pause: Option<Pause>, done: oneshot::Sender<Result<(), String>>) {
        if let Some(pause) = &pause {
            info!(by = %pause.by, reason = %pause.reason, "pausing");
            // From this moment nothing is started, whatever the ledger's answer.
            self.pause = Some(pause.clone());
        }
        let world = Arc::clone(&self.context.world);
        self.spawn(async move {
            let outcome = world.ledger().set_pause(pause.as_ref()).await;
            Event::Paused(pause, outcome, done)
        });
    }

    fn paused(&mut self, pause: Option<Pause>, outcome: Result<(), LedgerError>, done: oneshot::Sender<Result<(), String>>) {
        if outcome.is_ok() {
            self.pause = pause;
            self.publish();
            self.turn("operator");
        }
        let _ = done.send(outcome.map_err(|error| error.to_string()));
    }

    fn reload(&mut self, reload: Result<Settings, String>) {
        match reload {
            Ok(settings) => {
                info!("the new configuration is in force");
                self.context.settings = Arc::new(settings);
                self.shown.reload_error = None;
                self.turn("operator");
            }
            Err(why) => {
                error!(%why, "the new configuration is refused; the old one stays in force");
                self.shown.reload_error = Some(why);
            }
        }
        self.publish();
    }

    // ---- events -----------------------------------------------------------------------------

    fn handle(&mut self, event: Event) {
        match event {
            Event::Loaded(grant, state) => self.loaded(grant, state),
            Event::Observed(trigger, observation) => self.observed(trigger, *observation),
            Event::Stepped(epoch, stepped) => self.stepped(epoch, *stepped),
            Event::Paused(pause, outcome, done) => self.paused(pause, outcome, done),
            Event::Remembered(Ok(())) | Event::Nothing => {}
            Event::Remembered(Err(error)) => {
                warn!(%error, "the ledger could not be written");
                self.source("dynamodb", Err(error.to_string()));
            }
            Event::Looked(delivery, id, at, Some(instance)) => {
                info!(instance = %id, "an instance that was not in the latest list is interrupted");
                self.instances.push((*instance).clone());
                self.interrupt(delivery, &instance, at);
            }
            Event::Looked(delivery, id, _, None) => {
                self.context.world.telemetry().record(Measurement::NoticeReceived { kind: "foreign" });
                info!(instance = %id, "the notice is about an instance of somebody else and changes nothing");
                self.acknowledge(delivery.handle);
            }
            Event::Woke => self.turn("pods"),
        }
    }

    fn publish(&mut self) {
        self.shown.pause.clone_from(&self.pause);
        let mut operations: Vec<Operation> = self.operations.values().cloned().collect();
        operations.sort_by(|a, b| a.is_over().cmp(&b.is_over()).then(b.updated().cmp(&a.updated())).then_with(|| a.id().cmp(b.id())));
        self.shown.operations = operations;
        self.shown.decisions.clone_from(&self.decisions);
        self.status.send_replace(Arc::new(self.shown.clone()));
    }
}

/// Waits until the daemon is to end; an end of the sender is one, too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
