//! The tenth invariant: once nothing goes wrong any more, the fleet comes to rest, and keeps no more than it needs.

use super::super::dynamodb::Entry;
use super::super::kubernetes::moves_in_a_drain;
use super::super::scheduler;
use super::super::universe::Truth;
use crate::model::operation::LaunchRequest;
use crate::model::plan::{LaunchReason, ReplacementCause};
use crate::model::scheduling::{MARKET_LABEL, ZONE_LABEL};
use crate::model::{Node, NodeName, Operation, OperationId, PoolName};
use crate::policy::{MetricGoal, PoolSettings};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long a worker may be empty, once nothing happens: the longest pause after a regret, and what leads to a decision.
const IDLE_STAYS: Duration = Duration::from_hours(7);
/// How far below the thresholds of a removal the use has to be, so that nothing hangs on how it is measured.
const CLEARLY: f64 = 0.9;
/// How often a node may be cordoned once nothing happens: a drain may be taken back.
const MOST_CORDONS: u32 = 3;
/// How often each node of a pool may be replaced by a better one once nothing happens.
const MOST_SUCCESSORS: u32 = 2;
/// What is under way, or waits, for longer does not come to its end.
const OPERATIONS_LAST: Duration = Duration::from_mins(30);

/// How it was when the fleet had to be as it should be.
#[derive(Debug)]
pub(super) struct Settled {
    at: Duration,
    /// The bounds of each pool.
    bounds: BTreeMap<PoolName, (u32, u32)>,
    /// How often each node has been cordoned since, by unique id.
    cordons: BTreeMap<String, u32>,
    /// How many nodes that could have stayed were replaced since.
    successors: u32,
}

impl Truth {
    /// Once the fleet is as it should be and nothing happens, nothing is a reason to buy.
    pub(super) fn check_need(&mut self, request: &LaunchRequest, pool: &PoolName) {
        let Some(settled) = &self.oracle.settled else { return };
        let (at, before) = (settled.at, settled.bounds.get(pool).copied());
        let bounds = self.oracle.promises.policy.pools.iter().find(|it| it.name == *pool).map(|it| it.bounds(self.wall()));
        let changed = bounds.map(|bounds| (bounds.min, bounds.max)) != before;
        if let Some(cause) = self.succeeds(&request.token) {
            // Age has no end; everything else can only come about so often.
            let settled = self.oracle.settled.as_mut().map(|settled| &mut settled.successors);
            let number = settled.map_or(0, |number| {
                *number += u32::from(cause != ReplacementCause::Expired);
                *number
            });
            let most = MOST_SUCCESSORS * u32::try_from(self.ec2.count(pool)).unwrap_or(u32::MAX);
            if number > most {
                self.violated(10, format!("nothing happens, and {number} nodes have been replaced"));
            }
            return;
        }
        // A price that falls lets the fleet have what a ceiling has kept from it; and a forecast expects more than nothing.
        if !changed && !self.is_foreseen(&request.token) && self.oracle.promises.policy.price_ceiling.is_none() {
            let since = self.now.saturating_sub(at);
            self.violated(10, format!("nothing happens and, {since:?} after it had settled, the fleet buys: {}", request.token));
        }
    }

    /// Tells whether a forecast buys: it does so for what once was at this hour.
    fn is_foreseen(&self, operation: &OperationId) -> bool {
        let forecasts = &self.oracle.promises.policy.forecasts;
        match self.table.journal.get(operation).map(|entry| &entry.operation) {
            Some(Operation::Launch(launch)) => {
                matches!(&launch.order.reason, LaunchReason::Rule { rule, .. } if forecasts.iter().any(|it| it.name == *rule))
            }
            Some(Operation::Retire(_)) | None => false,
        }
    }

    /// Tells whether the pool follows a forecast: it holds what its rule asks for.
    fn is_forecast(&self, pool: &PoolName) -> bool {
        self.oracle.promises.policy.forecasts.iter().any(|rule| rule.pool == *pool)
    }

    /// Says why the operation buys a successor, if it does.
    fn succeeds(&self, operation: &OperationId) -> Option<ReplacementCause> {
        match &self.table.journal.get(operation)?.operation {
            Operation::Launch(launch) => match launch.order.reason {
                LaunchReason::Successor { cause, .. } => Some(cause),
                _ => None,
            },
            Operation::Retire(_) => None,
        }
    }

    /// Counts how often a node is cordoned, once nothing happens.
    pub(super) fn count_cordon(&mut self, name: &NodeName, uid: String) {
        let Some(settled) = &mut self.oracle.settled else { return };
        let times = settled.cordons.entry(uid).or_default();
        *times += 1;
        if *times == MOST_CORDONS + 1 {
            self.violated(10, format!("nothing happens, and node {name} is cordoned more than {MOST_CORDONS} times"));
        }
    }

    /// From now on the fleet is as it should be.
    pub fn settles(&mut self) {
        let now = self.wall();
        let bounds = |pool: &crate::policy::PoolSettings| {
            let bounds = pool.bounds(now);
            (pool.name.clone(), (bounds.min, bounds.max))
        };
        let bounds = self.oracle.promises.policy.pools.iter().map(bounds).collect();
        self.oracle.settled = Some(Settled { at: self.now, bounds, cordons: BTreeMap::new(), successors: 0 });
    }

    /// Looks at the end, once the fleet had settled, whether it still is as it should be, and for workers that should
    /// have been given back long ago.
    pub fn check_at_rest(&mut self) {
        if self.oracle.settled.is_none() {
            return;
        }
        if let Some(why) = self.unsettled() {
            self.violated(10, format!("nothing happens, and still {why}"));
        }
        if !self.oracle.promises.policy.scale_down.enabled {
            return;
        }
        let late: Vec<(NodeName, Duration)> = self
            .oracle
            .idle
            .values()
            .map(|(name, since)| (name.clone(), self.now.saturating_sub(*since)))
            .filter(|(_, idle)| *idle > IDLE_STAYS)
            .collect();
        for (name, idle) in late {
            let Some(pool) = self.kubernetes.nodes().get(&name).and_then(Node::pool) else { continue };
            let (have, least) = (self.ec2.count(&pool), self.highest_minimum(&pool));
            if have > least as usize {
                self.violated(
                    10,
                    format!("nothing happens, {name} has been empty for {idle:?}, and pool {pool} keeps {have}, at least {least}"),
                );
            }
        }
    }

    /// Tells whether a pool of so many nodes clearly has one more than its rules on metrics want just now.
    fn metrics_spare_one(&self, pool: &PoolName, nodes: usize) -> bool {
        let nodes = f64::from(u32::try_from(nodes).unwrap_or(u32::MAX));
        self.oracle.promises.policy.metrics.iter().filter(|rule| rule.pool == *pool).all(|rule| {
            let wanted = match rule.goal {
                MetricGoal::PerNode(share) => self.prometheus.demand().unwrap_or(0.0) / share,
                MetricGoal::Threshold(limit) => nodes * self.prometheus.mean_cpu() / limit,
            };
            wanted <= CLEARLY * (nodes - 1.0)
        })
    }

    /// Gives the highest minimum that a pool ever has.
    fn highest_minimum(&self, pool: &PoolName) -> u32 {
        let pool = self.oracle.promises.policy.pools.iter().find(|it| it.name == *pool);
        pool.map_or(0, |pool| pool.schedules.iter().map(|schedule| schedule.min).chain([pool.min]).max().unwrap_or(0))
    }

    /// Notes which workers nothing lies on that would move, while their pool could clearly do without one.
    pub(super) fn note_idle(&mut self) {
        let mut idle: BTreeMap<String, NodeName> = BTreeMap::new();
        // An empty one may be the headroom, or what is held for a demand to come.
        let pools = self.oracle.promises.policy.pools.iter().filter(|pool| pool.headroom.is_empty() && !self.is_forecast(&pool.name));
        for pool in pools.filter(|_| self.kubernetes.waits() == 0) {
            let ours = |node: &&Node| {
                let protected = node.instance.as_ref().is_some_and(|id| self.oracle.protected.contains(id));
                node.pool().as_ref() == Some(&pool.name) && !node.control_plane && node.is_ready() && !protected
            };
            let nodes: Vec<&Node> = self.kubernetes.nodes().values().filter(ours).collect();
            if self.could_spare_one(&nodes) && self.metrics_spare_one(&pool.name, nodes.len()) {
                let empty = |node: &&&Node| {
                    let keeps = node.keep.is_some() || must_have(pool, pool.bounds(self.wall()).min, &nodes, node);
                    !keeps && !self.kubernetes.on(&node.name).any(|pod| moves_in_a_drain(pod))
                };
                idle.extend(nodes.iter().filter(empty).map(|node| (node.uid.clone(), node.name.clone())));
            }
        }
        let now = self.now;
        self.oracle.idle.retain(|uid, _| idle.contains_key(uid));
        for (uid, name) in idle {
            self.oracle.idle.entry(uid).or_insert((name, now));
        }
    }

    /// Tells whether these workers are clearly used as little as a removal needs, and would be used no more than a
    /// purchase aims at without the largest of them.
    fn could_spare_one(&self, nodes: &[&Node]) -> bool {
        let (down, up) = (&self.oracle.promises.policy.scale_down, &self.oracle.promises.policy.scale_up);
        let clearly = |whole: fn(&Node) -> f64, share: fn((f64, f64)) -> f64, below: f64, target: f64| {
            let used = |node: &&Node| self.prometheus.shares_of(&node.name).map_or(0.0, share) * whole(node);
            let (used, all) = (nodes.iter().map(used).sum::<f64>(), nodes.iter().map(|node| whole(node)).sum::<f64>());
            let largest = nodes.iter().map(|node| whole(node)).fold(0.0, f64::max);
            used < below * CLEARLY * all && used < target * CLEARLY * (all - largest)
        };
        clearly(|node| node.allocatable.cpu.cores(), |(cpu, _)| cpu, down.cpu_below, up.cpu_target)
            && clearly(|node| mib(node.allocatable.memory.0), |(_, memory)| memory, down.memory_below, up.memory_target)
    }

    /// Tells whether the price ceiling leaves room for one more of the pool.
    fn could_pay_for(&mut self, pool: &PoolName) -> bool {
        let Some(ceiling) = self.oracle.promises.policy.price_ceiling else { return true };
        let cheapest = self.ec2.offers().iter().filter(|offer| offer.pool == *pool).map(|offer| offer.price.0).min();
        cheapest.is_some_and(|price| self.ec2.hourly().0.saturating_add(price) <= ceiling.0)
    }

    /// Says what is still to be done before the fleet is as it should be, once nothing is wrong any more.
    pub fn unsettled(&mut self) -> Option<String> {
        if self.table.pause.is_some() {
            return Some("the fleet is paused".into());
        }
        let now = self.wall();
        let late = |since: jiff::Timestamp| Duration::try_from(now.duration_since(since)).is_ok_and(|age| age > OPERATIONS_LAST);
        let unfinished = |entry: &&Entry| !entry.operation.is_over();
        if let Some(entry) = self.table.journal.values().filter(unfinished).find(|entry| late(entry.operation.created())) {
            return Some(format!("operation {} is {}", entry.operation.id(), entry.operation.state_name()));
        }
        let pools = self.oracle.promises.policy.pools.clone();
        let mut full = BTreeSet::new();
        for pool in &pools {
            let have = self.ec2.count(&pool.name);
            // Bounds that a schedule has just changed are still to be acted on.
            let bounds = [now, now - OPERATIONS_LAST].map(|time| pool.bounds(time));
            let (min, max) = (bounds[0].min.min(bounds[1].min), bounds[0].max.min(bounds[1].max));
            if have >= max as usize {
                full.insert(pool.name.clone());
            }
            if have < min as usize && self.could_pay_for(&pool.name) {
                return Some(format!("pool {} has {have} of at least {min}", pool.name));
            }
        }
        let at_work = |node: &&Node| {
            let operation = node.cordoned_by.as_deref().and_then(|id| self.table.journal.get(&OperationId::from(id)));
            operation.is_some_and(|entry| !entry.operation.is_over())
        };
        if let Some(node) = self.kubernetes.nodes().values().find(|node| node.cordoned && !at_work(node)) {
            return Some(format!("node {} is cordoned", node.name));
        }
        if self.oracle.promises.policy.price_ceiling.is_some() {
            return None;
        }
        let offers = self.ec2.offers();
        let could = |pod: &crate::model::Pod| {
            let takes = |offer: &&crate::model::Offer| {
                !full.contains(&offer.pool) && pod.requests.fits_in(&offer.allocatable) && scheduler::offer_admits(pod, offer)
            };
            offers.iter().any(|offer| takes(&offer))
        };
        let mut waiting = self.kubernetes.waiting().filter(|pod| pod.unschedulable_since.is_some_and(late));
        waiting.find(|pod| could(pod)).map(|pod| format!("pod {} waits", pod.key))
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory beyond 2^53 bytes is beyond any node")]
fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

/// Tells whether a node is of the pool's base of on-demand, or the last one in its zone where the minimum allows one in
/// each: such a node stays although it is empty.
fn must_have(pool: &PoolSettings, min: u32, nodes: &[&Node], node: &Node) -> bool {
    let alike = |key: &str| nodes.iter().filter(|other| other.labels.get(key) == node.labels.get(key)).count();
    let is_on_demand = node.labels.get(MARKET_LABEL).is_some_and(|market| market == "on-demand");
    let is_base = is_on_demand && alike(MARKET_LABEL) <= pool.on_demand_base as usize && alike(MARKET_LABEL) < nodes.len();
    let zones: BTreeSet<Option<&String>> = nodes.iter().map(|node| node.labels.get(ZONE_LABEL)).collect();
    is_base || (alike(ZONE_LABEL) == 1 && min as usize >= zones.len())
}
