//! How machines, nodes and pods live: each event, and what follows from it.

use super::ec2::{Kind, node_labels, volumes};
use super::kubernetes::Budget;
use super::prometheus::WORKERS;
use super::scheduler;
use super::universe::{Event, Truth};
use super::workload::{Curve, TICK};
use crate::model::instance::InstanceState;
use crate::model::pod::Owner;
use crate::model::scheduling::{Requirement, Selector};
use crate::model::{InstanceId, Market, Node, NodeName, Pod, PodKey, PodPhase, Readiness};
use crate::ports::Notice;
use rand::RngExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// A machine's kernel has booted after so long.
const TO_RUNNING: Duration = Duration::from_secs(8);
/// A node is called `NotReady` when nothing has been heard of it for so long.
const UNTIL_NOT_READY: Duration = Duration::from_secs(40);
/// How long a pod takes to end unless its workload says otherwise.
const USUAL_GRACE: Duration = Duration::from_secs(30);
/// The pods of a node that is `NotReady` for so long are given up.
const UNTIL_GIVEN_UP: Duration = Duration::from_mins(5);
/// So long before the market's own notice EC2 recommends to replace a machine.
const FORESIGHT: Duration = Duration::from_mins(10);
/// The market gives this much notice.
const NOTICE: Duration = Duration::from_mins(2);
/// Spot prices move this often.
const MARKET_PERIOD: Duration = Duration::from_mins(10);
/// One pod of a rollout is replaced this often.
const ROLL_PERIOD: Duration = Duration::from_secs(20);

impl Truth {
    /// Sets the first events going.
    pub fn begin(&mut self) {
        self.after(Duration::ZERO, Event::Minute);
        self.after(MARKET_PERIOD, Event::MarketMoves);
        self.after(Duration::from_mins(1), Event::OracleLooks);
        for (index, at) in self.faults.beginnings() {
            self.after(at, Event::FaultBegins(index));
        }
    }

    /// Lets one thing happen.
    pub fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives(effect) => effect(self),
            Event::Runs(id) => self.runs(&id),
            Event::Joins(id) => self.joins(&id),
            Event::FallsSilent(name, uid) => self.falls_silent(&name, &uid),
            Event::GivesUp(name, uid) => self.gives_up(&name, &uid),
            Event::PodRuns(key, uid) => self.pod_runs(&key, &uid),
            Event::PodEnds(key, uid) => self.pod_ends(&key, &uid),
            Event::Schedules => self.schedules(),
            Event::Minute => self.minute(),
            Event::MarketMoves => self.market_moves(),
            Event::Wants(id) => self.reclaim(&id),
            Event::Reclaims(id) => self.reclaimed(&id),
            Event::RollsOut(workload) => self.begin_rollout(workload),
            Event::Rolls(workload, left) => self.rolls(workload, left),
            Event::MessageDue => self.tell_message(),
            Event::FaultBegins(index) => self.fault_begins(index),
            Event::FaultEnds(index) => self.fault_ends(index),
            Event::Flaps(name, index) => self.flaps(&name, index),
            Event::OracleLooks => {
                self.look_around();
                self.after(Duration::from_mins(1), Event::OracleLooks);
            }
        }
    }

    /// Lets a machine that was started become a node, if nothing keeps it.
    pub fn boots(&mut self, id: &InstanceId) {
        let (least, most) = self.boot;
        let delay = Self::between(&mut self.random.boot, least, most);
        self.after(TO_RUNNING, Event::Runs(id.clone()));
        let barren = self.barren > 0;
        self.barren = self.barren.saturating_sub(1);
        if !barren && self.faults.lets_join() {
            self.after(TO_RUNNING.max(delay), Event::Joins(id.clone()));
        }
    }

    fn runs(&mut self, id: &InstanceId) {
        if let Some(machine) = self.ec2.machines.get_mut(id)
            && machine.state == InstanceState::Pending
        {
            machine.state = InstanceState::Running;
            self.announce(&Notice::StateChange { instance: id.clone(), state: "running".into() });
        }
    }

    /// Registers a machine's node.
    pub fn joins(&mut self, id: &InstanceId) {
        let Some(machine) = self.ec2.machines.get(id).filter(|machine| machine.lives()) else { return };
        let Some(pool) = self.ec2.pools.iter().find(|pool| Some(pool.name.as_str()) == machine.pool()) else { return };
        let name = self.faults.name_for(id).unwrap_or_else(|| name_of(id));
        // K3s refuses a node whose name is taken: the password of the first one does not match.
        if self.kubernetes.nodes().contains_key(&name) {
            self.faults.refused_join();
            self.after(Duration::from_secs(10), Event::Joins(id.clone()));
            return;
        }
        let (kind, zone, market) = (machine.kind, machine.zone.clone(), machine.market);
        let labels = node_labels(pool, kind, &zone, market, Some(name.as_str()));
        let taints = pool.taints.clone();
        let node = self.new_node(name, Some(id.clone()), kind, labels, taints);
        self.adds_node(node);
        self.note(format_args!("{id} joins as {} in {zone}", name_or_own(&self.kubernetes, id)));
    }

    /// Describes a node that is Ready from now on.
    pub fn new_node(
        &mut self,
        name: NodeName,
        instance: Option<InstanceId>,
        kind: Kind,
        labels: crate::model::scheduling::Labels,
        taints: Vec<crate::model::scheduling::Taint>,
    ) -> Node {
        let now = self.wall();
        let mut allocatable = kind.allocatable();
        allocatable.extended.extend(self.ec2.attaches.map(|most| (volumes(), most)));
        Node {
            name,
            uid: self.kubernetes.uid(),
            instance,
            labels,
            taints,
            cordoned: false,
            cordoned_by: None,
            readiness: Readiness::Ready { since: now },
            allocatable,
            created: now,
            control_plane: false,
            keep: None,
        }
    }

    /// Adds a node with the daemon sets' pods.
    pub fn adds_node(&mut self, node: Node) {
        let daemons: Vec<Pod> = self
            .kubernetes
            .daemon_sets
            .iter()
            .map(|set| Pod {
                key: PodKey { namespace: set.namespace.clone(), name: format!("{}-{}", set.name, node.name) },
                uid: format!("{}-{}", set.name, node.uid),
                owner: Owner::DaemonSet,
                node: Some(node.name.clone()),
                phase: PodPhase::Running,
                labels: Arc::new(set.labels.clone()),
                requests: set.requests.clone(),
                constraints: Arc::new(set.constraints.clone()),
                ..Pod::default()
            })
            .filter(|pod| scheduler::admits(pod, &node))
            .collect();
        self.kubernetes.add_node(node);
        for pod in daemons {
            self.kubernetes.add_pod(pod);
        }
        self.tell_changed();
        self.wake_scheduler();
    }

    /// Ends a machine, whoever wants it. Its node falls silent.
    pub fn ends(&mut self, id: &InstanceId) -> bool {
        let now = self.now;
        if !self.ec2.end(id, now) {
            return false;
        }
        self.announce(&Notice::StateChange { instance: id.clone(), state: "shutting-down".into() });
        if let Some(node) = self.kubernetes.node_of(id) {
            let (name, uid) = (node.name.clone(), node.uid.clone());
            self.after(UNTIL_NOT_READY, Event::FallsSilent(name, uid));
        }
        true
    }

    fn falls_silent(&mut self, name: &NodeName, uid: &str) {
        if self.kubernetes.nodes().get(name).is_none_or(|node| node.uid != uid) {
            return;
        }
        let now = self.wall();
        if self.kubernetes.set_ready(name, false, now) {
            self.note(format_args!("node {name} is NotReady"));
            self.after(UNTIL_GIVEN_UP, Event::GivesUp(name.clone(), uid.to_owned()));
            self.tell_changed();
        }
    }

    /// Calls a node ready again, or not.
    pub fn set_ready(&mut self, name: &NodeName, ready: bool) {
        let now = self.wall();
        if self.kubernetes.set_ready(name, ready, now) {
            self.note(format_args!("node {name} is {}", if ready { "Ready" } else { "NotReady" }));
            if ready {
                self.ends_what_was_given_up(name);
                self.wake_scheduler();
            } else if let Some(node) = self.kubernetes.nodes().get(name) {
                let uid = node.uid.clone();
                self.after(UNTIL_GIVEN_UP, Event::GivesUp(name.clone(), uid));
            }
            self.tell_changed();
        }
    }

    /// Gives up the pods of a node that is still silent: others take their place, and they end with the node.
    fn gives_up(&mut self, name: &NodeName, uid: &str) {
        let Some(node) = self.kubernetes.nodes().get(name) else { return };
        let Readiness::NotReady { since } = node.readiness else { return };
        if node.uid != uid || self.wall().duration_since(since) < jiff::SignedDuration::from_secs(299) {
            return;
        }
        let keys: Vec<PodKey> = self
            .kubernetes
            .on(name)
            .filter(|pod| !pod.stays_with_node() && pod.terminating_since.is_none())
            .map(|pod| pod.key.clone())
            .collect();
        for key in keys {
            self.ends_pod(&key, None);
        }
    }

    /// A kubelet that is back hears which of its pods are to end.
    fn ends_what_was_given_up(&mut self, name: &NodeName) {
        let given_up = self.kubernetes.on(name).filter(|pod| pod.terminating_since.is_some());
        let given_up: Vec<_> = given_up.map(|pod| (pod.key.clone(), pod.uid.clone())).collect();
        for (key, uid) in given_up {
            self.after(USUAL_GRACE, Event::PodEnds(key, uid));
        }
    }

    /// Removes a node's object with the pods that lay on it.
    pub fn removes_node(&mut self, name: &NodeName) {
        let gone = self.kubernetes.remove_node(name);
        let owners: BTreeSet<usize> = gone.iter().filter_map(|pod| self.lose(&pod.key)).collect();
        for workload in owners {
            self.top_up(workload);
        }
        self.broken.remove(name);
        self.tell_changed();
    }

    /// Forgets that a pod belongs to its workload. Gives which that was.
    fn lose(&mut self, key: &PodKey) -> Option<usize> {
        let workload = self.deployed.remove(key)?;
        self.workloads[workload].pods.remove(key);
        Some(workload)
    }

    /// Begins the end of a pod, which takes `grace`, or for ever on a node that is silent.
    pub fn ends_pod(&mut self, key: &PodKey, grace: Option<Duration>) {
        let now = self.wall();
        let Some(pod) = self.kubernetes.pods().get(key) else { return };
        let (uid, bound) = (pod.uid.clone(), pod.node.is_some());
        self.kubernetes.change_pod(key, |pod| pod.terminating_since = Some(now));
        let workload = self.lose(key);
        match grace {
            Some(grace) if bound => self.after(grace, Event::PodEnds(key.clone(), uid)),
            None if bound => {}
            Some(_) | None => {
                self.kubernetes.remove_pod(key);
            }
        }
        if let Some(workload) = workload {
            self.top_up(workload);
        }
        self.tell_changed();
    }

    /// Tells whether the machine that a pod is bound to still lives.
    fn has_machine(&self, key: &PodKey) -> bool {
        self.kubernetes.pods().get(key).and_then(|pod| pod.node.as_ref()).is_some_and(|node| self.lives(node))
    }

    fn pod_ends(&mut self, key: &PodKey, uid: &str) {
        if self.kubernetes.pods().get(key).is_none_or(|pod| pod.uid != uid) || !self.has_machine(key) {
            return;
        }
        if self.faults.keeps_from_ending() {
            self.after(Duration::from_secs(30), Event::PodEnds(key.clone(), uid.to_owned()));
            return;
        }
        self.kubernetes.remove_pod(key);
        self.tell_changed();
        if self.kubernetes.waits() > 0 {
            self.wake_scheduler();
        }
    }

    fn pod_runs(&mut self, key: &PodKey, uid: &str) {
        let fine = self.kubernetes.pods().get(key).is_some_and(|pod| pod.uid == uid && pod.terminating_since.is_none());
        if fine && self.has_machine(key) {
            self.kubernetes.change_pod(key, |pod| pod.phase = PodPhase::Running);
        }
    }

    fn schedules(&mut self) {
        self.scheduler_wakes();
        let (bound, left) = scheduler::schedule(&self.kubernetes);
        let now = self.wall();
        let news = !bound.is_empty();
        for (key, node) in bound {
            let Some(pod) = self.kubernetes.pods().get(&key) else { continue };
            if let Some(since) = pod.unschedulable_since {
                let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
                self.waits.pods += 1;
                self.waits.total += waited;
                self.waits.longest = self.waits.longest.max(waited);
            }
            let uid = pod.uid.clone();
            self.kubernetes.bind(&key, &node);
            self.after(Duration::from_secs(2), Event::PodRuns(key, uid));
        }
        let mut marked = 0_u32;
        for key in left {
            marked += u32::from(self.kubernetes.mark_unschedulable(&key, now));
        }
        if marked > 0 {
            self.note(format_args!("{marked} pods find no node"));
            self.tell_urgent();
        }
        if news || marked > 0 {
            self.tell_changed();
        }
    }

    /// Lets Prometheus see the load as it is now.
    pub fn measure(&mut self) {
        let demands: Vec<f64> = self.workloads.iter().map(|workload| workload.curve.at(self.now, self.phase)).collect();
        self.scrape(&demands);
    }

    fn minute(&mut self) {
        let factor = self.faults.load_factor(self.now);
        let mut demands = Vec::with_capacity(self.workloads.len());
        for index in 0..self.workloads.len() {
            let workload = &mut self.workloads[index];
            let demand = workload.curve.at(self.now, self.phase) * factor;
            workload.wanted_pods = workload.wanted(demand);
            demands.push(demand);
            self.shrink(index);
            self.top_up(index);
        }
        self.scrape(&demands);
        let ours: Vec<_> =
            self.ec2.living().filter(|machine| machine.is_ours(&self.ec2.cluster)).map(|it| it.kind.price.dollars()).collect();
        self.most_nodes = self.most_nodes.max(ours.len());
        self.peak_hourly = self.peak_hourly.max(ours.iter().sum());
        self.after(TICK, Event::Minute);
    }

    /// Makes pods until the workload has what it wants.
    pub fn top_up(&mut self, index: usize) {
        let workload = &mut self.workloads[index];
        let missing = (workload.wanted_pods as usize).saturating_sub(workload.pods.len());
        if missing == 0 {
            return;
        }
        let mut made = Vec::with_capacity(missing);
        for _ in 0..missing {
            let key = workload.next_key();
            workload.pods.insert(key.clone());
            self.deployed.insert(key.clone(), index);
            made.push(Pod {
                key,
                owner: Owner::Controller,
                phase: PodPhase::Pending,
                requests: workload.requests.clone(),
                priority: workload.priority,
                safe_to_evict: workload.safe_to_evict,
                do_not_disrupt: workload.do_not_disrupt,
                labels: Arc::clone(&workload.labels),
                constraints: Arc::clone(&workload.constraints),
                ..Pod::default()
            });
        }
        self.write_budget(index);
        for pod in made {
            let uid = self.kubernetes.uid();
            self.kubernetes.add_pod(Pod { uid, ..pod });
        }
        self.wake_scheduler();
    }

    /// Ends pods until the workload has no more than it wants, as a replica set does: those that wait
    /// first, then those that share their node with most others of their kind, the youngest of them.
    pub fn shrink(&mut self, index: usize) {
        let workload = &self.workloads[index];
        let many = workload.pods.len().saturating_sub(workload.wanted_pods as usize);
        if many == 0 {
            return;
        }
        let grace = workload.grace;
        let node_of = |key: &PodKey| self.kubernetes.pods().get(key).and_then(|pod| pod.node.as_ref());
        let mut related: BTreeMap<&NodeName, usize> = BTreeMap::new();
        for node in workload.pods.iter().filter_map(node_of) {
            *related.entry(node).or_default() += 1;
        }
        // As the replica set's controller does: pods without a node, then those with the most siblings beside them, then
        // the youngest.
        let rank = |key: &PodKey| node_of(key).map_or(usize::MAX, |node| related[node]);
        let mut ranked: Vec<(usize, usize, &PodKey)> = workload.pods.iter().enumerate().map(|(age, key)| (rank(key), age, key)).collect();
        ranked.sort_unstable_by(|one, other| other.cmp(one));
        let chosen: Vec<PodKey> = ranked.into_iter().take(many).map(|(_, _, key)| key.clone()).collect();
        for key in chosen {
            self.ends_pod(&key, Some(grace));
        }
        self.write_budget(index);
    }

    fn write_budget(&mut self, index: usize) {
        let workload = &self.workloads[index];
        let Some(max_unavailable) = workload.max_unavailable else { return };
        let key = (workload.namespace.clone(), workload.name.clone());
        let one =
            Requirement { key: "app".into(), operator: crate::model::scheduling::Operator::In(BTreeSet::from([workload.name.clone()])) };
        let budget = Budget {
            namespace: key.0.clone(),
            name: key.1.clone(),
            selector: Selector(vec![one]),
            max_unavailable: if self.faults.forbids_evictions() { 0 } else { max_unavailable },
            expected: workload.wanted_pods,
        };
        self.kubernetes.set_budget(key, budget);
    }

    /// Writes every workload's budget anew.
    pub fn write_budgets(&mut self) {
        for index in 0..self.workloads.len() {
            self.write_budget(index);
        }
    }

    /// Plans a rollout.
    pub fn plan_rollout(&mut self, workload: usize, at: Duration) {
        self.after(at, Event::RollsOut(workload));
    }

    /// Lets the load stay as it is from now on, and the market take nothing more.
    pub fn make_peace(&mut self) {
        let (now, phase) = (self.now, self.phase);
        for workload in &mut self.workloads {
            workload.curve = Curve::Constant(workload.curve.at(now, phase));
        }
        self.reclaims_per_hour = 0.0;
        self.note(format_args!("peace comes"));
    }

    /// Begins to replace the pods of a workload, one after the other.
    pub fn begin_rollout(&mut self, workload: usize) {
        let pods = u32::try_from(self.workloads.get(workload).map_or(0, |it| it.pods.len())).unwrap_or(0);
        if pods > 0 {
            self.after(ROLL_PERIOD, Event::Rolls(workload, pods));
        }
    }

    fn rolls(&mut self, index: usize, left: u32) {
        let Some(workload) = self.workloads.get(index) else { return };
        let grace = workload.grace;
        if let Some(oldest) = workload.pods.first().cloned() {
            self.ends_pod(&oldest, Some(grace));
        }
        if left > 1 {
            self.after(ROLL_PERIOD, Event::Rolls(index, left - 1));
        }
    }

    /// Scrapes every node: what its pods use of it.
    fn scrape(&mut self, demands: &[f64]) {
        self.prometheus.sample_demand(self.wall(), demands.iter().sum());
        let mut running = vec![0_u32; self.workloads.len()];
        let nodes = self.kubernetes.nodes();
        let serving =
            |pod: &Pod| pod.phase == PodPhase::Running && pod.node.as_ref().is_some_and(|name| nodes.get(name).is_some_and(Node::is_ready));
        for (key, index) in &self.deployed {
            if self.kubernetes.pods().get(key).is_some_and(|pod| serving(pod)) {
                running[*index] += 1;
            }
        }
        let mut use_of: BTreeMap<&NodeName, (f64, f64)> = nodes.keys().map(|name| (name, (0.05, 0.1))).collect();
        for (key, index) in &self.deployed {
            let Some(pod) = self.kubernetes.pods().get(key).filter(|pod| serving(pod)) else { continue };
            let workload = &self.workloads[*index];
            let fair = demands[*index] / f64::from(running[*index].max(1));
            let cores = fair.min(workload.requests.cpu.cores().max(0.05) * 1.5) * self.faults.traffic();
            if let Some(sum) = pod.node.as_ref().and_then(|name| use_of.get_mut(name)) {
                sum.0 += cores;
                sum.1 += to_float(workload.requests.memory.0) * workload.memory_share;
            }
        }
        let samples: Vec<(NodeName, f64, f64)> = use_of
            .into_iter()
            .filter(|(name, _)| nodes[*name].is_ready())
            .map(|(name, (cores, bytes))| {
                let whole = &nodes[name].allocatable;
                (name.clone(), cores / whole.cpu.cores().max(0.001), bytes / to_float(whole.memory.0).max(1.0))
            })
            .collect();
        for (name, cpu, memory) in samples {
            self.prometheus.sample(&name, cpu, memory);
        }
        let nodes = self.kubernetes.nodes();
        self.prometheus.keep(|name| nodes.contains_key(name));
    }

    fn market_moves(&mut self) {
        self.ec2.close_hours(self.now);
        let moves: Vec<_> = self.ec2.spot_ratio.iter().map(|(key, ratio)| (key.clone(), *ratio)).collect();
        for ((instance_type, zone), ratio) in moves {
            let price = (ratio * self.random.market.random_range(0.93..1.08)).clamp(0.2, 0.9);
            self.ec2.set_spot_ratio(instance_type, zone, price);
        }
        let hazard = self.reclaims_per_hour * MARKET_PERIOD.as_secs_f64() / 3600.0;
        let spot: Vec<InstanceId> = self
            .ec2
            .living()
            .filter(|machine| machine.market == Market::Spot && machine.reclaimed_at.is_none())
            .map(|it| it.id.clone())
            .collect();
        for id in spot {
            if hazard > 0.0 && self.random.market.random_bool(hazard.min(1.0)) {
                if self.ec2.recommends {
                    self.announce(&Notice::RebalanceRecommendation { instance: id.clone() });
                    self.after(FORESIGHT, Event::Wants(id));
                } else {
                    self.reclaim(&id);
                }
            }
        }
        self.after(MARKET_PERIOD, Event::MarketMoves);
    }

    /// Announces that the market takes a machine back, and takes it two minutes later.
    pub fn reclaim(&mut self, id: &InstanceId) {
        let now = self.now;
        let at = self.wall();
        let Some(machine) = self.ec2.machines.get_mut(id).filter(|machine| machine.lives() && machine.reclaimed_at.is_none()) else {
            return;
        };
        machine.reclaimed_at = Some(now + NOTICE);
        self.note_loss(id);
        self.note(format_args!("the market wants {id} back"));
        self.after(NOTICE, Event::Reclaims(id.clone()));
        self.announce(&Notice::SpotInterruption { instance: id.clone(), at });
    }

    fn reclaimed(&mut self, id: &InstanceId) {
        if self.ends(id) {
            self.note(format_args!("the market takes {id}"));
        }
    }

    /// Lets EventBridge put a notice into the queue.
    pub fn announce(&mut self, notice: &Notice) {
        let jitter = Self::between(&mut self.random.messages, Duration::from_millis(200), Duration::from_millis(1500));
        let delay = jitter + self.faults.message_delay(&mut self.random.messages);
        let copies = self.faults.message_copies(&mut self.random.messages);
        for copy in 0..copies {
            let delay = delay + Duration::from_secs(7) * copy;
            self.messages.send(Ok(notice.clone()), self.now + delay);
            self.after(delay, Event::MessageDue);
        }
    }
}

/// Gives the name under which a machine's node registers.
pub fn name_of(id: &InstanceId) -> NodeName {
    let digits = id.as_str().trim_start_matches("i-").trim_start_matches('0');
    NodeName::new(format!("{WORKERS}{digits}"))
}

fn name_or_own(cluster: &super::kubernetes::Kubernetes, id: &InstanceId) -> String {
    cluster.node_of(id).map_or_else(|| name_of(id).to_string(), |node| node.name.to_string())
}

#[expect(clippy::cast_precision_loss, reason = "memory beyond 2^53 bytes is beyond any node")]
fn to_float(bytes: u64) -> f64 {
    bytes as f64
}
