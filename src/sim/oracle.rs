//! What must hold whatever happens: the invariants, looked at with every effect and once a minute.

mod rest;

use self::rest::Settled;
use super::faults::Fault;
use super::kubernetes::moves_in_a_drain;
use super::universe::Truth;
use crate::model::instance::OPERATION_TAG;
use crate::model::operation::{LaunchRequest, Operation};
use crate::model::plan::{LaunchReason, OnDrainTimeout};
use crate::model::{InstanceId, Node, NodeName, OperationId, Pod, PoolName};
use crate::policy::Settings;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::time::Duration;

/// How many violations are kept.
const VIOLATIONS_KEPT: usize = 20;
/// A pause that a controller may not have heard of yet is no reason.
const PAUSE_SPREADS: Duration = Duration::from_secs(20);
/// How long what nobody accounts for may stay once nothing is wrong any more.
const STRAYS_STAY: Duration = Duration::from_mins(75);
/// How far a list of EC2 may be behind what is true.
const LISTS_LAG: Duration = Duration::from_mins(3);
/// How long the pods on a machine may still work after its end has begun.
const RUNS_DOWN: Duration = Duration::from_secs(20);
/// By how much the market may have moved prices since a launch was decided on: one step.
const PRICES_MOVE: f64 = 1.08;
/// How old what a removal is decided on may be.
const EVIDENCE_LASTS: Duration = Duration::from_mins(1);

/// An invariant of the catalogue, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Invariant(pub u8);

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 12] =
        [Self(1), Self(2), Self(3), Self(4), Self(5), Self(6), Self(7), Self(8), Self(9), Self(10), Self(11), Self(12)];
}

impl fmt::Display for Invariant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "I{}", self.0)
    }
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When.
    pub at: Duration,
    /// How.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_secs();
        write!(formatter, "{} at {}:{:02}:{:02}: {}", self.invariant, seconds / 3600, seconds / 60 % 60, seconds % 60, self.text)
    }
}

/// What the daemon promises, as far as the oracle has to know it.
#[derive(Clone, Debug)]
pub struct Promises {
    /// The policy's settings.
    pub policy: Settings,
    /// From cordon to empty.
    pub drain_timeout: Duration,
    /// How long before a spot instance's end its drain stops waiting.
    pub interruption_margin: Duration,
    /// How long the lease lives after it was taken or renewed.
    pub lease: Duration,
}

/// What was so when a request was sent: it may arrive seconds later.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    /// The instance was ours.
    pub ours: bool,
    /// Its node was Ready.
    pub ready: bool,
}

/// Keeps what it needs to judge.
#[derive(Debug)]
pub struct Oracle {
    promises: Promises,
    violations: Vec<Violation>,
    protected: BTreeSet<InstanceId>,
    cordoned: BTreeMap<String, Duration>,
    lost: VecDeque<(Duration, PoolName, InstanceId)>,
    strays: BTreeMap<String, Duration>,
    calls: Vec<Calls>,
    paused_since: Option<Duration>,
    /// Workers on which nothing lies that would move, by unique id, and since when.
    idle: BTreeMap<String, (NodeName, Duration)>,
    settled: Option<Settled>,
}

impl Oracle {
    /// Watches over these promises.
    pub fn new(promises: Promises) -> Self {
        Self {
            promises,
            violations: Vec::new(),
            protected: BTreeSet::new(),
            cordoned: BTreeMap::new(),
            lost: VecDeque::new(),
            strays: BTreeMap::new(),
            calls: Vec::new(),
            paused_since: None,
            idle: BTreeMap::new(),
            settled: None,
        }
    }

    /// Declares an instance as one that must never be touched.
    pub fn protect(&mut self, id: &InstanceId) {
        self.protected.insert(id.clone());
    }

    /// Lists what did not hold.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Gives the widest bounds that were in force lately, as far as a clock that is an hour wrong sees them.
    fn in_force(&self, pool: &PoolName, now: jiff::Timestamp, doubtful_clocks: bool) -> (u32, u32) {
        let hour = if doubtful_clocks { 60 } else { 0 };
        let times = [0, -10, -hour, hour].map(|minutes| now + jiff::SignedDuration::from_mins(minutes));
        let Some(pool) = self.promises.policy.pools.iter().find(|it| it.name == *pool) else { return (0, 0) };
        let bounds = times.map(|time| pool.bounds(time));
        (bounds.iter().map(|it| it.min).min().unwrap_or(0), bounds.iter().map(|it| it.max).max().unwrap_or(0))
    }

    fn forces(&self, pool: &PoolName) -> bool {
        self.promises.policy.pools.iter().any(|it| it.name == *pool && it.on_drain_timeout == OnDrainTimeout::Force)
    }
}

/// How often a controller has made a call in a minute.
#[derive(Debug)]
struct Calls {
    client: usize,
    call: &'static str,
    minute: u64,
    number: u32,
}

/// The most calls of a kind that one controller may make in a minute.
fn most_calls(call: &str) -> u32 {
    match call {
        "CreateFleet" => 60,
        "TerminateInstances" => 120,
        "evict" => 6000,
        "DescribeInstances" | "query" | "catalogue" => 240,
        _ => 1500,
    }
}

impl Truth {
    /// Notes that an invariant does not hold.
    pub fn violated(&mut self, invariant: u8, text: String) {
        let violation = Violation { invariant: Invariant(invariant), at: self.now, text };
        self.note(format_args!("VIOLATION {violation}"));
        if self.oracle.violations.len() < VIOLATIONS_KEPT {
            self.oracle.violations.push(violation);
        }
    }

    /// A plan was refused by the audit that guards the daemon: its policy has made a bad one.
    pub fn refused(&mut self, texts: &[String]) {
        for text in texts {
            let number = text.strip_prefix('I').and_then(|rest| rest.split(':').next()).and_then(|number| number.parse().ok());
            self.violated(number.unwrap_or(2), format!("a plan was made that the audit refuses: {text}"));
        }
    }

    fn in_force(&self, pool: &PoolName) -> (u32, u32) {
        self.oracle.in_force(pool, self.wall(), self.faults.hits(Fault::WallClockJumps) > 0)
    }

    /// Counts a call of a controller.
    pub fn count_call(&mut self, client: usize, call: &'static str) {
        self.calls += 1;
        let minute = self.now.as_secs() / 60;
        let calls = &mut self.oracle.calls;
        let known = calls.iter().position(|it| it.client == client && it.call == call);
        let place = known.unwrap_or_else(|| {
            calls.push(Calls { client, call, minute, number: 0 });
            calls.len() - 1
        });
        let entry = &mut calls[place];
        if entry.minute != minute {
            (entry.minute, entry.number) = (minute, 0);
        }
        entry.number += 1;
        if entry.number == most_calls(call) + 1 {
            self.violated(9, format!("controller {client} makes {call} more than {} times in a minute", most_calls(call)));
        }
    }

    /// Every change of the world asks this first: does the controller that makes it hold the lock?
    pub fn check_lease(&mut self, client: usize, call: &str) {
        let own = self.clients[client].owner.as_str();
        let fine = match self.table.owner() {
            Some(owner) => owner == own,
            // Somebody removed the record, and its holder cannot know it yet.
            None => self.table.last_owner() == Some(own),
        };
        let age = self.now.saturating_sub(self.table.renewed);
        if fine && age > self.oracle.promises.lease {
            self.violated(5, format!("controller {client} does {call} {age:?} after its lease was taken or renewed"));
        }
        if !fine {
            let holder = self.table.owner().unwrap_or("nobody").to_owned();
            self.violated(5, format!("controller {client} does {call} while {holder} holds the lease"));
        }
    }

    /// A launch has taken effect.
    pub fn check_launch(&mut self, request: &LaunchRequest, pool: &PoolName) {
        let operation = request.tags.get(OPERATION_TAG).map_or(request.token.as_str(), String::as_str);
        let brought = self.ec2.brought_by(&operation.into());
        if brought > request.count as usize {
            self.violated(1, format!("operation {operation} has brought {brought} instances of {}", request.count));
        }
        self.check_need(request, pool);
        let (have, (_, max)) = (self.ec2.count(pool), self.in_force(pool));
        if have > max as usize {
            self.violated(2, format!("pool {pool} has {have} of at most {max}"));
        }
        if let Some(ceiling) = self.oracle.promises.policy.price_ceiling
            && self.ec2.hourly().dollars() > ceiling.dollars() * PRICES_MOVE
        {
            let cost = self.ec2.hourly();
            self.violated(2, format!("the fleet costs {cost} of at most {ceiling}"));
        }
    }

    /// One instance has two launches: the operations of both are under way for the same need, or the token is not the operation's.
    pub fn check_token(&mut self, request: &LaunchRequest) {
        let known = self.table.journal.contains_key(&request.token);
        if !known {
            self.violated(1, format!("a launch with the token {} is in no journal", request.token));
        }
    }

    /// A node is being taken out of service.
    pub fn check_cordon(&mut self, name: &NodeName) {
        let Some(node) = self.kubernetes.nodes().get(name) else { return };
        let uid = node.uid.clone();
        if let Some(why) = self.untouchable(name) {
            self.violated(4, format!("node {name} is cordoned, {why}"));
        }
        let now = self.now;
        self.oracle.cordoned.entry(uid.clone()).or_insert(now);
        self.count_cordon(name, uid);
    }

    /// A node is back in service.
    pub fn note_uncordon(&mut self, uid: &str) {
        self.oracle.cordoned.remove(uid);
    }

    /// Says why a node must not be touched.
    fn untouchable(&self, name: &NodeName) -> Option<&'static str> {
        let node = self.kubernetes.nodes().get(name)?;
        if node.control_plane {
            return Some("which is a server");
        }
        if node.pool().is_none() {
            return Some("which is of no pool");
        }
        let protected = node.instance.as_ref().is_some_and(|id| self.oracle.protected.contains(id));
        protected.then_some("whose instance is somebody else's")
    }

    /// A pod is being evicted.
    pub fn check_evict(&mut self, pod: &Pod) {
        let Some(node) = &pod.node else { return };
        if let Some(why) = self.untouchable(node) {
            self.violated(4, format!("a pod of node {node} is evicted, {why}"));
        }
        let critical = pod.priority >= self.oracle.promises.policy.critical_priority;
        let keeps = critical || pod.do_not_disrupt || pod.safe_to_evict == Some(false);
        let instance = self.kubernetes.nodes().get(node).and_then(|node| node.instance.clone());
        if keeps && instance.is_some_and(|id| self.is_for_economy(&id)) {
            self.violated(4, format!("pod {} is evicted for economy although it keeps its node", pod.key));
        }
    }

    /// A node's object is being removed.
    pub fn check_delete_node(&mut self, name: &NodeName) {
        let Some(node) = self.kubernetes.nodes().get(name).cloned() else { return };
        let lives = node.instance.as_ref().and_then(|id| self.ec2.machines.get(id)).is_some_and(super::ec2::Machine::lives);
        // What is left of an instance that is gone may go, whoever has touched its tags.
        if let Some(why) = self.untouchable(name).filter(|_| lives || node.pool().is_none() || node.control_plane) {
            self.violated(4, format!("the object of node {name} is removed, {why}"));
            return;
        }
        if lives && node.is_ready() {
            self.violated(4, format!("the object of node {name} is removed although its instance runs and it is Ready"));
        }
        let machine = node.instance.as_ref().and_then(|id| self.ec2.machines.get(id));
        let runs = machine.is_some_and(|machine| machine.ended.is_none_or(|ended| self.now < ended + RUNS_DOWN));
        let pods = self.kubernetes.on(name).filter(|pod| moves_in_a_drain(pod)).count();
        if runs && pods > 0 {
            self.violated(7, format!("the object of node {name} is removed while {pods} pods may run on it"));
        }
    }

    /// Notes what a controller that sends a request about an instance could know at that moment.
    pub fn sight_of(&self, id: &InstanceId) -> Sent {
        let ours = self.ec2.machines.get(id).is_some_and(|it| it.is_ours(&self.ec2.cluster)) && !self.oracle.protected.contains(id);
        Sent { ours, ready: self.kubernetes.node_of(id).is_some_and(Node::is_ready) }
    }

    /// An instance is being terminated.
    pub fn check_terminate(&mut self, id: &InstanceId, sent: Sent) {
        let Some(machine) = self.ec2.machines.get(id) else { return };
        if !machine.lives() {
            return;
        }
        let (pool, reclaimed_at) = (machine.pool().map(PoolName::from), machine.reclaimed_at);
        if !sent.ours {
            self.violated(4, format!("instance {id}, which is not ours, is terminated"));
            return;
        }
        let Some(pool) = pool else { return };
        let Some(node) = self.kubernetes.node_of(id).cloned() else { return };
        if node.control_plane {
            self.violated(4, format!("the server {} is terminated", node.name));
        }
        let pods = self.kubernetes.on(&node.name).filter(|pod| moves_in_a_drain(pod)).count();
        let cordoned = self.oracle.cordoned.get(&node.uid).copied();
        match reclaimed_at {
            Some(at) => {
                let early = self.now + self.oracle.promises.interruption_margin + Duration::from_secs(3) < at;
                if pods > 0 && early {
                    self.violated(7, format!("{} ends with {pods} pods before its notice has run out", node.name));
                }
            }
            None if sent.ready || self.is_for_economy(id) => self.check_voluntary(&pool, &node, pods, cordoned),
            None => {}
        }
    }

    /// Tells whether a removal that nothing forces is under way for this instance.
    fn is_for_economy(&self, id: &InstanceId) -> bool {
        self.table.journal.values().any(|entry| match &entry.operation {
            Operation::Retire(retire) => {
                retire.order.instance.as_ref() == Some(id) && retire.order.reason.is_voluntary() && !entry.operation.is_over()
            }
            Operation::Launch(_) => false,
        })
    }

    fn check_voluntary(&mut self, pool: &PoolName, node: &Node, pods: usize, cordoned: Option<Duration>) {
        if let Some(keep) = &node.keep {
            self.violated(4, format!("{} is terminated although it is annotated {keep}", node.name));
        }
        let Some(cordoned) = cordoned else {
            self.violated(7, format!("{} is terminated without a cordon", node.name));
            return;
        };
        let waited = self.now.saturating_sub(cordoned) + Duration::from_secs(5) >= self.oracle.promises.drain_timeout;
        if pods > 0 && !(self.oracle.forces(pool) && waited) {
            self.violated(7, format!("{} is terminated with {pods} pods", node.name));
        }
        // One that the market wants back is among those that are lost, unless its notice may have been lost.
        let notices = self.faults.hits(Fault::LateMessage) + self.faults.hits(Fault::QueueOutage) == 0;
        let stays = |machine: &super::ec2::Machine| machine.lives() && !(notices && machine.reclaimed_at.is_some());
        let staying = self.ec2.living().filter(|machine| {
            machine.pool() == Some(pool.as_str())
                && machine.is_ours(&self.ec2.cluster)
                && Some(&machine.id) != node.instance.as_ref()
                && stays(machine)
        });
        let since = cordoned.saturating_sub(LISTS_LAG);
        let is_lost = |id: &InstanceId| !self.ec2.machines.get(id).is_some_and(stays);
        let lost = self.oracle.lost.iter().filter(|(at, of, id)| *at >= since && of == pool && is_lost(id)).count();
        let (left, (min, _)) = (staying.count() + lost, self.in_force(pool));
        if left < min as usize {
            self.violated(3, format!("without {} pool {pool} has {left} of at least {min}", node.name));
        }
    }

    /// A machine of ours has been lost by no wish of ours.
    pub fn note_loss(&mut self, id: &InstanceId) {
        let Some(pool) = self.ec2.machines.get(id).and_then(super::ec2::Machine::pool).map(PoolName::from) else { return };
        let now = self.now;
        self.oracle.lost.push_back((now, pool, id.clone()));
        while self.oracle.lost.front().is_some_and(|(at, ..)| *at + Duration::from_hours(1) < now) {
            self.oracle.lost.pop_front();
        }
    }

    /// An operation is being written for the first time.
    pub fn check_begun(&mut self, client: usize, operation: &Operation) {
        let id: OperationId = operation.id().clone();
        if self.table.journal.contains_key(&id) {
            return;
        }
        match operation {
            Operation::Launch(launch) => self.note(format_args!("controller {client} begins to buy: {}", launch.order.reason)),
            Operation::Retire(retire) => {
                let node = retire.order.node.as_ref().map(|node| node.name.as_str());
                let what = node.or(retire.order.instance.as_ref().map(InstanceId::as_str)).unwrap_or_default();
                self.note(format_args!("controller {client} begins to give {what} back: {}", retire.order.reason.name()));
            }
        }
        let paused = self.oracle.paused_since.is_some_and(|since| self.now >= since + PAUSE_SPREADS);
        let replaces = self.oracle.promises.policy.replace_interrupted_while_paused;
        match operation {
            Operation::Launch(launch) => {
                let growth = match launch.order.reason {
                    LaunchReason::PendingPods { .. }
                    | LaunchReason::BelowMinimum
                    | LaunchReason::Headroom
                    | LaunchReason::Rule { .. }
                    | LaunchReason::Successor { .. } => true,
                    LaunchReason::Replacement { .. } => !replaces,
                };
                if paused && growth {
                    self.violated(11, format!("the launch {id} is begun although the fleet is paused"));
                }
            }
            Operation::Retire(retire) if retire.order.reason.is_voluntary() => {
                if paused {
                    self.violated(11, format!("the removal {id} is begun although the fleet is paused"));
                }
                let controller = &self.clients[client];
                let seen = [
                    ("utilisation", controller.last_utilisation),
                    ("a view of Kubernetes", controller.last_view),
                    ("a list of instances", controller.last_instances),
                ];
                let sound =
                    |seen: Option<(Duration, bool)>| seen.is_some_and(|(at, good)| good && self.now.saturating_sub(at) <= EVIDENCE_LASTS);
                if let Some((what, _)) = seen.into_iter().find(|(_, seen)| !sound(*seen)) {
                    self.violated(6, format!("the removal {id} is begun on {what} that is missing or doubtful"));
                }
            }
            Operation::Retire(retire) => {
                let interrupted = retire.order.reason.is_interruption();
                if paused && !interrupted {
                    self.violated(11, format!("the removal {id} is begun although the fleet is paused"));
                }
            }
        }
    }

    /// The pause has been set or lifted.
    pub fn note_pause(&mut self, paused: bool) {
        let now = self.now;
        self.oracle.paused_since = paused.then(|| self.oracle.paused_since.unwrap_or(now));
    }

    /// Looks at what lasts: instances and nodes that nobody accounts for.
    pub fn look_around(&mut self) {
        let mut found = BTreeSet::new();
        for machine in
            self.ec2.living().filter(|machine| machine.is_ours(&self.ec2.cluster) && !self.oracle.protected.contains(&machine.id))
        {
            if self.kubernetes.node_of(&machine.id).is_none() {
                found.insert(format!("instance {}", machine.id));
            }
        }
        for node in self.kubernetes.nodes().values().filter(|node| node.pool().is_some() && !node.control_plane) {
            let lives = node.instance.as_ref().and_then(|id| self.ec2.machines.get(id)).is_some_and(super::ec2::Machine::lives);
            if !lives {
                found.insert(format!("node {} {}", node.name, node.uid));
            }
        }
        let now = self.now;
        self.note_idle();
        self.oracle.strays.retain(|key, _| found.contains(key));
        for key in found {
            self.oracle.strays.entry(key).or_insert(now);
        }
        if self.faults.any() || self.oracle.paused_since.is_some() {
            return;
        }
        let quiet_since = self.faults.last;
        let late: Vec<String> = self
            .oracle
            .strays
            .iter()
            .filter(|(_, since)| now > (**since).max(quiet_since) + STRAYS_STAY)
            .map(|(key, _)| key.clone())
            .collect();
        for key in late {
            self.oracle.strays.remove(&key);
            self.violated(8, format!("{key} is accounted for by nobody for more than {STRAYS_STAY:?}"));
        }
    }
}
