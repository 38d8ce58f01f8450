//! One turn's decision: from a snapshot and a memory to a plan and the next memory.

mod explaining;
pub(super) mod giving_back;
mod replacing;

pub use explaining::explain;

use super::buying::{self, Bounds, Buyer};
use super::fit::Board;
use super::fleet::{Fleet, count, prices};
use super::foreseen;
use super::headroom;
use super::pending::{self, Outcome, Promises, Waiting};
use super::rules::{self, Demand, NoLoad, PoolLoad, Strength, Verdict};
use super::scale_down;
use super::seen;
use super::settings::{PoolSettings, Settings};
use crate::model::memory::{Memory, PoolMemory, Rest};
use crate::model::offer::HourlyPrice;
use crate::model::operation::RetireState;
use crate::model::plan::{Alert, Finding, Hold, LaunchReason};
use crate::model::snapshot::Observed;
use crate::model::{
    Action, ClusterView, Instance, Launch, LaunchOrder, Node, NodeName, Offer, OfferKey, Operation, OperationId, Plan, Pod, PoolName,
    PoolReport, Resources, RuleName, Snapshot,
};
use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// How many nodes one rule may open in one turn; the maximum bounds them further.
pub(super) const OPENED_AT_ONCE: u32 = 1000;
/// So long after a node has gone its pods may still look for a place.
const DISPLACED: SignedDuration = SignedDuration::from_mins(1);
/// So small a part of a demand is the noise of division.
pub(super) const NOISE: f64 = 1e-9;
/// How many nodes an alert names.
const NODES_NAMED: usize = 5;

/// What a turn buys, and what it was chosen on.
struct Basket<'a> {
    board: Board<'a>,
    buyer: Buyer<'a>,
    orders: Vec<LaunchOrder>,
}

impl Basket<'_> {
    /// Gives why offers are not bought, by their index, of the pools of which others are.
    fn passed_over(&self) -> BTreeMap<usize, String> {
        let pools: BTreeSet<&PoolName> = self.orders.iter().map(|order| &order.pool).collect();
        let of_pool = |pool: &PoolName| {
            let orders: Vec<&LaunchOrder> = self.orders.iter().filter(|order| order.pool == *pool).collect();
            self.buyer.not_bought(&self.board, &orders)
        };
        pools.into_iter().flat_map(of_pool).collect()
    }
}

/// Decides. Same input, same output, on every machine.
///
/// The returned memory is to be kept if the plan is followed, and also if there was nothing to follow.
#[must_use]
pub fn plan(settings: &Settings, snapshot: &Snapshot, memory: &Memory, now: Timestamp) -> (Plan, Memory) {
    let mut memory = forget(memory, now);
    let mut plan = Plan::default();
    if let Some(pause) = &snapshot.pause {
        plan.holds.push(Hold::Paused { reason: format!("{} by {}", pause.reason, pause.by) });
    }
    let (cluster, instances) = match (&snapshot.cluster, &snapshot.instances) {
        (Observed::Known { value: cluster, .. }, Observed::Known { value: instances, .. }) => (cluster, instances),
        (Observed::Unknown(why), _) => return blind(plan, memory, format!("Kubernetes: {why}")),
        (_, Observed::Unknown(why)) => return blind(plan, memory, format!("EC2: {why}")),
    };
    let fleet = Fleet::new(settings, snapshot);
    seen::learn(settings, snapshot, cluster, &fleet, &mut memory, now);
    let known = memory.clone();
    let imagined = Imagined::new(settings, snapshot, cluster, &known, now);
    let mut turn = Turn { plan, ..Turn::new(settings, snapshot, cluster, instances, fleet, &imagined, now) };
    let verdicts = turn.judge(&mut memory);
    turn.buy(&known, &mut memory, &verdicts);
    turn.give_back(&mut memory, &verdicts);
    turn.replace(&known, &mut memory, &verdicts);
    turn.sum_up();
    turn.plan.alerts.extend(alerts(cluster, &memory, now));
    turn.plan.alerts.extend(foreseen::alerts(settings, snapshot, now));
    (turn.plan, memory)
}

/// What a turn thinks of besides what it has read.
struct Imagined<'a> {
    offers: Cow<'a, [Offer]>,
    /// The pods of the headroom.
    spare: Vec<Pod>,
    /// One pod of each daemon set.
    daemons: Vec<Pod>,
}

impl<'a> Imagined<'a> {
    fn new(settings: &Settings, snapshot: &'a Snapshot, cluster: &ClusterView, memory: &Memory, now: Timestamp) -> Self {
        let offers = seen::believed(known_offers(snapshot), memory, now);
        // Taints that the pool should not have are none that its headroom tolerates.
        let spare = headroom::pods(settings, known_offers(snapshot), now);
        Self { offers, spare, daemons: buying::daemons(cluster) }
    }
}

fn known_offers(snapshot: &Snapshot) -> &[Offer] {
    snapshot.offers.known().map_or(&[], |offers| offers.as_slice())
}

/// Drops what has run out.
fn forget(memory: &Memory, now: Timestamp) -> Memory {
    let mut memory = memory.clone();
    memory.resting_nodes.retain(|_, until| *until > now);
    // An offer whose rest is long over starts again with the shortest pause.
    let day = SignedDuration::from_hours(24);
    let lately = |rest: &Rest| now.duration_since(rest.until) < day;
    memory.offers.retain(|_, rest| lately(rest));
    memory.pool_offers.retain(|_, rest| lately(rest));
    memory.quotas.retain(|_, rest| lately(rest));
    memory.successions.retain(|_, succession| !succession.failed || succession.until > now);
    // By then the market has taken it, or does not want it any more.
    memory.at_risk.retain(|_, since| now.duration_since(*since) < day);
    // Launches that they belonged to are over by then.
    memory.reclaimed.retain(|_, at| now.duration_since(*at) < SignedDuration::from_hours(1));
    memory.incidents.retain(|_, incident| incident.until > now);
    memory.differences.retain(|_, difference| now.duration_since(difference.until) < day);
    // The launch template may have changed meanwhile.
    memory.allocatable.retain(|_, allocatable| now.duration_since(allocatable.seen) < day);
    memory
}

fn blind(mut plan: Plan, memory: Memory, why: String) -> (Plan, Memory) {
    plan.holds.push(Hold::Blind { why });
    (plan, memory)
}

/// Conditions that last.
fn alerts(cluster: &ClusterView, memory: &Memory, now: Timestamp) -> Vec<Alert> {
    let stopped = memory.pool_offers.iter().filter(|(_, rest)| rest.stopped && rest.until > now);
    let stopped = stopped.map(|((pool, offer), rest)| Alert {
        name: "offer_stopped".into(),
        subject: format!("{offer} for pool {pool}"),
        text: format!("{offer} is not bought for pool {pool} before {}: {} (`node-fleet reset-offers` forgets it)", rest.until, rest.why),
    });
    let quotas = memory.quotas.iter().filter(|(_, rest)| rest.until > now);
    let quotas = quotas.map(|(quota, rest)| Alert {
        name: "account_limit".into(),
        subject: quota.to_string(),
        text: format!("nothing {quota} is bought before {}: {}", rest.until, rest.why),
    });
    let refused = cluster.refused.iter().map(|why| Alert {
        name: "object_refused".into(),
        subject: why.clone(),
        text: format!("left out of the plan: {why}"),
    });
    let incidents = memory.incidents.iter().map(|(name, incident)| Alert {
        name: name.clone(),
        subject: incident.text.clone(),
        text: incident.text.clone(),
    });
    let unidentified: Vec<&str> = cluster.unidentified().map(|node| node.name.as_str()).take(NODES_NAMED).collect();
    let unidentified = (!unidentified.is_empty()).then(|| Alert {
        name: "node_unidentified".into(),
        subject: String::new(),
        text: format!(
            "no instance is given back for being no node, since these nodes have no provider id of EC2 (--kubelet-arg=provider-id=aws:///ZONE/INSTANCE): {}",
            unidentified.join(", ")
        ),
    });
    stopped.chain(quotas).chain(refused).chain(incidents).chain(unidentified).chain(seen::alerts(memory, now)).collect()
}

/// Why no node of a pool goes now: what was read, and what stands in the way.
type Refusal = (String, Option<Hold>);

/// What the rules of each pool said.
type Verdicts = BTreeMap<PoolName, (Result<PoolLoad, NoLoad>, Vec<Verdict>)>;

struct Turn<'a> {
    settings: &'a Settings,
    snapshot: &'a Snapshot,
    cluster: &'a ClusterView,
    instances: &'a [Instance],
    /// The pods on each node.
    pods: BTreeMap<&'a NodeName, Vec<&'a Pod>>,
    /// The pods of the headroom.
    spare: &'a [Pod],
    /// One pod of each daemon set.
    daemons: &'a [Pod],
    offers: &'a [Offer],
    fleet: Fleet<'a>,
    prices: BTreeMap<&'a OfferKey, HourlyPrice>,
    now: Timestamp,
    plan: Plan,
    /// For how many unschedulable pods a node of the pool must not go yet.
    wanting: BTreeMap<PoolName, u32>,
    /// Nodes on which pods that wait have room.
    expecting: BTreeSet<&'a NodeName>,
}

impl<'a> Turn<'a> {
    fn new(
        settings: &'a Settings,
        snapshot: &'a Snapshot,
        cluster: &'a ClusterView,
        instances: &'a [Instance],
        fleet: Fleet<'a>,
        imagined: &'a Imagined<'a>,
        now: Timestamp,
    ) -> Self {
        let Imagined { offers, spare, daemons } = imagined;
        let prices = prices(offers, &snapshot.prices);
        let pods = scale_down::pods_by_node(cluster);
        let (plan, wanting, expecting) = (Plan::default(), BTreeMap::new(), BTreeSet::new());
        Self { settings, snapshot, cluster, instances, pods, spare, daemons, offers, fleet, prices, now, plan, wanting, expecting }
    }

    /// Lets every rule see the world, so that streaks are kept whatever is done.
    fn judge(&self, memory: &mut Memory) -> Verdicts {
        let judge = |pool: &PoolSettings| {
            let kept = memory.pools.entry(pool.name.clone()).or_default();
            let load = rules::pool_load(self.settings, self.fleet.pool(&pool.name), &self.snapshot.utilisation);
            let mut verdicts = rules::utilisation(self.settings, &load, kept, self.now);
            let serving = count(self.fleet.pool(&pool.name).iter().filter(|member| member.serves()).count());
            let strength = Strength { total: self.fleet.staying(&pool.name), serving };
            verdicts.extend(rules::metrics(self.settings, pool, self.snapshot, strength, kept, self.now));
            verdicts.extend(foreseen::judge(self.settings, pool, self.snapshot, strength.total, self.now));
            keep_idle(self.settings, &load, kept, self.now);
            (pool.name.clone(), (load, verdicts))
        };
        self.settings.pools.iter().map(judge).collect()
    }

    fn buy(&mut self, known: &'a Memory, memory: &mut Memory, verdicts: &Verdicts) {
        for order in self.choose(known, memory, verdicts).orders {
            let kept = memory.pools.entry(order.pool.clone()).or_default();
            kept.last_up = Some(self.now);
            if matches!(order.reason, LaunchReason::Rule { .. }) {
                kept.last_rule_up = Some(self.now);
            }
            if matches!(order.reason, LaunchReason::PendingPods { .. } | LaunchReason::Headroom) && self.displaces(&order.pool) {
                regret(kept, self.now);
            }
            self.plan.actions.push(Action::Launch(order));
        }
    }

    /// Chooses what is bought, and reports what each rule had to say.
    fn choose(&mut self, known: &'a Memory, memory: &mut Memory, verdicts: &Verdicts) -> Basket<'a> {
        let mut board = Board::default();
        let ready = self.set_up(&mut board);
        let mut buyer = self.buyer(known);
        let promises = self.add_booting(&mut board, &buyer);
        self.plan.pending = count(self.waiting().iter().filter(|entry| entry.leaves.is_none()).count());
        let waiting = self.wanting_room();
        let (settings, bought_from, now) = (self.settings, board.nodes(), self.now);
        let context = pending::Context { settings, promises: &promises, ready: &ready, bought_from, now, asked: None };
        let outcome = pending::place_cheaply(context, &mut board, &mut buyer, waiting);
        for pool in &self.settings.pools {
            let mut findings = Vec::new();
            let bounds = pool.bounds(self.now);
            findings.push(outcome.finding(&pool.name, buyer.bought(&pool.name)));
            findings.extend(headroom_finding(pool, &outcome, &buyer));
            findings.push(self.fill_to_minimum(&mut board, &mut buyer, pool, bounds));
            let (_, pool_verdicts) = &verdicts[&pool.name];
            let kept = memory.pools.entry(pool.name.clone()).or_default();
            for verdict in pool_verdicts {
                findings.push(self.follow(&mut board, &mut buyer, pool, verdict, kept));
            }
            self.plan.pools.push(self.report(pool, bounds, &verdicts[&pool.name].0, findings));
        }
        self.plan.alerts.extend(outcome.alert());
        self.wanting = self.settings.pools.iter().map(|pool| (pool.name.clone(), outcome.wanting(&pool.name))).collect();
        self.expecting = outcome.expecting.iter().filter_map(|index| board.bin(*index).name).chain(self.nominated()).collect();
        self.plan.unplaceable_pods = outcome.unplaceable_pods;
        self.plan.unplaceable = outcome.unplaceable;
        self.spot_alert(known);
        let mut orders = buyer.orders(&board);
        if self.snapshot.pause.is_some() {
            orders.retain(|order| self.settings.replace_interrupted_while_paused && !order.reason_is_discretionary());
        }
        let basket = Basket { board, buyer, orders };
        self.tell_passed_over(&basket);
        basket
    }

    /// Tells, with the finding of each rule that buys, which offers were passed over.
    fn tell_passed_over(&mut self, basket: &Basket<'a>) {
        for report in &mut self.plan.pools {
            for finding in &mut report.findings {
                let of_rule = |order: &&LaunchOrder| order.pool == report.pool && order.reason.rule() == finding.rule;
                let orders: Vec<&LaunchOrder> = basket.orders.iter().filter(of_rule).collect();
                finding.passed_over.extend(basket.buyer.passed_over(&basket.board, &orders));
            }
        }
    }

    /// Lists what room is to be found for: pods, and the headroom. What is bought for growth under a pause would be
    /// dropped, and with it the room of those that must move.
    fn wanting_room(&self) -> Vec<Waiting<'a>> {
        let mut waiting = self.waiting();
        waiting.extend(self.spare.iter().map(|pod| Waiting { pod, leaves: None }));
        if self.snapshot.pause.is_some() {
            waiting.retain(|entry| entry.leaves.is_some());
        }
        waiting
    }

    /// Names the nodes on which the scheduler has made room for pods that wait.
    fn nominated(&self) -> impl Iterator<Item = &'a NodeName> {
        let waits = |pod: &&'a Arc<Pod>| pod.node.is_none() && pod.must_find_a_place(self.settings.expendable_below);
        self.cluster.pods.iter().filter(waits).filter_map(|pod| pod.has_room_on())
    }

    /// Puts the nodes that exist on the board, with their pods, and gives of each since when it is Ready.
    fn set_up(&self, board: &mut Board<'a>) -> Vec<Option<Timestamp>> {
        let leaving: Vec<&NodeName> = self
            .fleet
            .members()
            .filter(|member| member.leaving.is_some())
            .filter_map(|member| member.node.map(|node| &node.name))
            .collect();
        let booting: BTreeSet<&NodeName> =
            self.fleet.members().filter(|member| member.boots()).filter_map(|member| member.node.map(|node| &node.name)).collect();
        for node in self.cluster.nodes.values() {
            if booting.contains(&node.name) {
                // It comes with the others that are on their way.
                board.add_shadow(&node.name, &node.labels, &node.taints);
                continue;
            }
            let index = board.add_node(node, !leaving.contains(&&node.name));
            self.pods.get(&node.name).into_iter().flatten().for_each(|pod| board.place(pod, index));
        }
        self.cluster.nodes.values().map(Node::ready_since).collect()
    }

    /// Adds the nodes that are on their way, as their offers describe them, and gives what they were bought for.
    fn add_booting(&self, board: &mut Board<'a>, buyer: &Buyer<'a>) -> Promises<'a> {
        let joined: BTreeMap<&NodeName, usize> = self.cluster.nodes.keys().zip(0..).collect();
        let mut nodes: BTreeMap<&OperationId, (&'a Launch, Vec<usize>)> = BTreeMap::new();
        for pool in &self.settings.pools {
            for member in self.fleet.pool(&pool.name) {
                let index = if member.boots() {
                    let index = buyer.empty_of(&member.offer(), &pool.name).map(|empty| empty.add_to(board));
                    let residents = member.node.and_then(|node| self.pods.get(&node.name)).into_iter().flatten();
                    if let Some(index) = index {
                        // Those that stay with the node are there already.
                        residents.filter(|pod| !pod.stays_with_node()).for_each(|pod| board.place(pod, index));
                    }
                    index
                } else {
                    member.node.filter(|_| member.serves()).and_then(|node| joined.get(&node.name)).copied()
                };
                if let (Some(launch), Some(index)) = (member.launch, index) {
                    nodes.entry(&launch.id).or_insert((launch, Vec::new())).1.push(index);
                }
            }
        }
        let promises = nodes.into_values().flat_map(|(launch, nodes)| {
            let nodes: Rc<[usize]> = nodes.into();
            launch.order.pods.iter().map(move |pod| (pod, Rc::clone(&nodes)))
        });
        promises.collect()
    }

    /// Lists the pods that want room: the unschedulable, and those on nodes that EC2 takes back.
    fn waiting(&self) -> Vec<Waiting<'a>> {
        let interrupted: BTreeSet<&NodeName> = self.interrupted().collect();
        let of_pod = |pod: &'a Pod| {
            if pod.wants_a_node() {
                return Some(Waiting { pod, leaves: None });
            }
            let node = interrupted.get(pod.node.as_ref()?)?;
            let moves = pod.holds_resources() && !pod.stays_with_node() && pod.terminating_since.is_none();
            moves.then_some(Waiting { pod, leaves: Some(*node) })
        };
        self.cluster.pods.iter().filter_map(|pod| of_pod(pod)).collect()
    }

    /// Names the nodes that EC2 takes back.
    fn interrupted(&self) -> impl Iterator<Item = &'a NodeName> {
        self.snapshot.operations.values().filter_map(|operation| match operation {
            Operation::Retire(retire) => {
                let interrupted = retire.order.reason.is_interruption();
                let over = matches!(retire.state, RetireState::Done | RetireState::RolledBack { .. });
                retire.order.node.as_ref().filter(|_| interrupted && !over).map(|node| &node.name)
            }
            Operation::Launch(_) => None,
        })
    }

    fn fill_to_minimum(&self, board: &mut Board<'a>, buyer: &mut Buyer<'a>, pool: &PoolSettings, bounds: Bounds) -> Finding {
        let have = self.fleet.staying(&pool.name) + buyer.bought(&pool.name);
        let missing = bounds.min.saturating_sub(have);
        let mut hold = None;
        let mut opened = 0;
        while opened < missing {
            match buyer.open_any(board, pool, &LaunchReason::BelowMinimum, |_| 1.0) {
                Ok(_) => opened += 1,
                Err(why) => {
                    hold = Some(why);
                    break;
                }
            }
        }
        let evidence = format!("{have} workers stay or come, {} to {} allowed", bounds.min, bounds.max);
        Finding { rule: RuleName::from("bounds"), evidence, wants: i64::from(missing), hold, passed_over: Vec::new() }
    }

    /// Buys what a rule wants beyond what boots already.
    fn follow(&self, board: &mut Board<'a>, buyer: &mut Buyer<'a>, pool: &PoolSettings, verdict: &Verdict, memory: &PoolMemory) -> Finding {
        let mut finding = Finding {
            rule: verdict.rule.clone(),
            evidence: verdict.evidence.clone(),
            wants: 0,
            hold: verdict.hold.clone(),
            passed_over: Vec::new(),
        };
        let Some(demand) = &verdict.demand else { return finding };
        let mut open = self.open_demand(demand, pool, buyer);
        let noise = NOISE * demand.amount();
        if open <= noise {
            finding.hold = self.covering(pool);
            return finding;
        }
        finding.wants = 1;
        if let Some(until) = cooling_down(memory.last_rule_up, self.settings.scale_up.cooldown, self.now) {
            finding.hold = Some(Hold::CoolingDown { until });
            return finding;
        }
        let reason = LaunchReason::Rule { rule: verdict.rule.clone(), evidence: verdict.evidence.clone() };
        let mut opened = 0;
        while open > noise && opened < OPENED_AT_ONCE {
            match buyer.open_any(board, pool, &reason, |room| measure(demand, room)) {
                Ok(capacity) => {
                    opened += 1;
                    open -= measure(demand, &capacity);
                }
                Err(why) => {
                    finding.hold = Some(why);
                    break;
                }
            }
        }
        finding.wants = i64::from(opened.max(1));
        finding
    }

    /// Tells whether a removal for economy takes pods' room away just now.
    fn displaces(&self, pool: &PoolName) -> bool {
        self.snapshot.operations.values().any(|operation| match operation {
            Operation::Retire(retire) => {
                let lately = !operation.is_over() || self.now.duration_since(retire.updated) <= DISPLACED;
                retire.order.pool == *pool && retire.order.reason.is_voluntary() && lately
            }
            Operation::Launch(_) => false,
        })
    }

    /// Gives what is left of a demand once the nodes that boot or are bought in this turn are taken off.
    fn open_demand(&self, demand: &Demand, pool: &PoolSettings, buyer: &Buyer<'a>) -> f64 {
        let booting: f64 = self
            .fleet
            .pool(&pool.name)
            .iter()
            .filter(|member| member.boots())
            .filter_map(|member| buyer.allocatable_of(&member.offer(), &pool.name))
            .map(|has| measure(demand, has))
            .sum();
        match demand {
            Demand::Cores(cores) => cores - booting - buyer.bought_capacity(&pool.name).cpu.cores(),
            Demand::Bytes(bytes) => bytes - booting - to_float(buyer.bought_capacity(&pool.name).memory.0),
            Demand::Nodes(nodes) => f64::from(*nodes) - f64::from(self.fleet.staying(&pool.name) + buyer.bought(&pool.name)),
        }
    }

    fn covering(&self, pool: &PoolSettings) -> Option<Hold> {
        let launch = self.fleet.pool(&pool.name).iter().find_map(|member| member.launch.filter(|_| member.boots()))?;
        Some(Hold::Underway { operation: launch.id.clone() })
    }

    fn report(&self, pool: &PoolSettings, bounds: Bounds, load: &Result<PoolLoad, NoLoad>, findings: Vec<Finding>) -> PoolReport {
        let members = self.fleet.pool(&pool.name);
        let known = &self.prices;
        let seen = members.iter().filter(|member| member.instance.is_some());
        PoolReport {
            pool: pool.name.clone(),
            owned: count(seen.clone().count()),
            spot: count(seen.filter(|member| member.offer().market == crate::model::Market::Spot).count()),
            in_flight: count(members.iter().filter(|member| member.instance.is_none()).count()),
            ready: count(members.iter().filter(|member| member.serves()).count()),
            min: bounds.min,
            max: bounds.max,
            desired: 0,
            price: HourlyPrice(members.iter().filter_map(|member| known.get(&member.offer())).map(|price| price.0).sum()),
            price_after: HourlyPrice(0),
            cpu: load.as_ref().ok().map(|load| load.cpu),
            memory: load.as_ref().ok().map(|load| load.memory),
            findings,
        }
    }

    /// Says what each pool will have and cost once the plan is carried out.
    fn sum_up(&mut self) {
        for report in &mut self.plan.pools {
            let mut price = report.price.0;
            let mut desired = self.fleet.staying(&report.pool);
            for action in &self.plan.actions {
                match action {
                    Action::Launch(order) if order.pool == report.pool => {
                        price = price.saturating_add(order.price.0.saturating_mul(u64::from(order.count)));
                        desired = desired.saturating_add(order.count);
                    }
                    Action::Retire(order) if order.pool == report.pool => {
                        let gone = self.fleet.pool(&report.pool).iter().find(|member| member.id.is_some() && member.id == order.instance);
                        desired = desired.saturating_sub(u32::from(gone.is_some()));
                        let gone = gone.and_then(|member| self.prices.get(&member.offer()));
                        price = price.saturating_sub(gone.map_or(0, |gone| gone.0));
                    }
                    Action::Launch(_) | Action::Retire(_) => {}
                }
            }
            (report.price_after, report.desired) = (HourlyPrice(price), desired);
        }
    }

    /// Tells when every spot offer of a pool that wants spot rests.
    fn spot_alert(&mut self, memory: &Memory) {
        for pool in self.settings.pools.iter().filter(|pool| pool.spot_share > 0.0) {
            let mut spot =
                self.offers.iter().filter(|offer| offer.pool == pool.name && offer.key.market == crate::model::Market::Spot).peekable();
            let rests = |rest: Option<&Rest>| rest.is_some_and(|rest| rest.until > self.now);
            let resting = |offer: &Offer| rests(memory.quotas.get(&offer.key.quota())) || rests(memory.rest(&offer.pool, &offer.key));
            if spot.peek().is_some() && spot.all(resting) {
                let text = format!("no spot offer of pool {} can be bought; on-demand takes its place", pool.name);
                self.plan.alerts.push(Alert { name: "spot_exhausted".into(), subject: pool.name.to_string(), text });
            }
        }
    }
}

/// Tells how much of the pool's headroom there is, if it is to have one.
fn headroom_finding(pool: &PoolSettings, outcome: &Outcome, buyer: &Buyer<'_>) -> Option<Finding> {
    if pool.headroom.is_empty() {
        return None;
    }
    let (short, hold) = outcome.short.get(&pool.name).map_or((0, None), |(short, hold)| (*short, Some(hold.clone())));
    let evidence = format!("{short} pods of the headroom have no room");
    Some(Finding {
        rule: RuleName::from("headroom"),
        evidence,
        wants: i64::from(buyer.bought_for_headroom(&pool.name)),
        hold,
        passed_over: Vec::new(),
    })
}

/// Notes that pods buy what is being given back: the next removal waits longer, and longer each
/// time, until one is not regretted.
pub(super) fn regret(memory: &mut PoolMemory, now: Timestamp) {
    if memory.regretted < memory.last_down {
        memory.regrets = memory.regrets.saturating_add(1);
        memory.regretted = Some(now);
    }
}

/// Keeps the streaks of readings in which the pool is idle, or has room to be consolidated.
pub(super) fn keep_idle(settings: &Settings, load: &Result<PoolLoad, NoLoad>, memory: &mut PoolMemory, now: Timestamp) {
    let (down, consolidation) = (&settings.scale_down, &settings.consolidation);
    let (idle, roomy) = match load {
        Ok(load) => (
            load.cpu < down.cpu_below && load.memory < down.memory_below,
            consolidation.as_ref().is_some_and(|rule| load.cpu < rule.cpu_below && load.memory < rule.memory_below),
        ),
        Err(NoLoad::NotAsked) => return,
        Err(NoLoad::Doubtful(_) | NoLoad::NoNodes) => (false, false),
    };
    memory.idle = rules::extend(memory.idle.take(), idle, settings.interval, now);
    memory.roomy = rules::extend(memory.roomy.take(), roomy, settings.interval, now);
}

pub(super) fn cooling_down(last: Option<Timestamp>, cooldown: Duration, now: Timestamp) -> Option<Timestamp> {
    let until = last? + SignedDuration::try_from(cooldown).unwrap_or(SignedDuration::MAX);
    (until > now).then_some(until)
}

/// Measures a node's capacity in the unit of a demand.
fn measure(demand: &Demand, has: &Resources) -> f64 {
    match demand {
        Demand::Cores(_) => has.cpu.cores(),
        Demand::Bytes(_) => to_float(has.memory.0),
        Demand::Nodes(_) => 1.0,
    }
}

#[expect(clippy::cast_precision_loss, reason = "memory beyond 2^53 bytes is beyond any node")]
fn to_float(bytes: u64) -> f64 {
    bytes as f64
}
