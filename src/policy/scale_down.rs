//! Which nodes may go: provably without harm, least disruption for each dollar saved first.

use super::budgets::Budgets;
use super::buying::Empty;
use super::fleet::{Fleet, Member};
use super::settings::{AtOnce, Disruption, PoolSettings, Settings};
use super::sharing::Shared;
use super::stay::Stay;
use crate::model::memory::Memory;
use crate::model::offer::HourlyPrice;
use crate::model::pod::Owner;
use crate::model::snapshot::DisruptionBudget;
use crate::model::{ClusterView, Market, Node, NodeName, OfferKey, Pod, Resources, Zone};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How many refusals are told in a plan.
pub const REFUSALS_TOLD: usize = 10;

/// Tells why a pod forbids that its node goes, if it does.
///
/// `budgets` are those of the whole cluster.
#[must_use]
pub fn forbids(settings: &Settings, pod: &Pod, budgets: &Budgets<'_>) -> Option<String> {
    if pod.stays_with_node() || !pod.holds_resources() {
        return None;
    }
    let because = |why: &str| Some(format!("pod {} {why}", pod.key));
    let covering: Vec<&DisruptionBudget> = budgets.covering(pod).map(|(_, budget)| budget).collect();
    if pod.priority >= settings.critical_priority {
        return because("has a critical priority");
    }
    if pod.safe_to_evict == Some(false) {
        return because("is annotated safe-to-evict: false");
    }
    if pod.do_not_disrupt {
        return because("is annotated do-not-disrupt");
    }
    if pod.tolerates_a_cordon() {
        return because("tolerates a cordon, and would come back to the node");
    }
    if pod.owner == Owner::Nobody && pod.safe_to_evict != Some(true) {
        return because("has no controller that would replace it");
    }
    if pod.key.namespace == "kube-system" && covering.is_empty() && pod.safe_to_evict != Some(true) {
        return because("is in kube-system without a disruption budget");
    }
    // The eviction API cannot reckon with two, whatever they allow.
    if let [one, other, ..] = covering[..] {
        return because(&format!("is covered by the budgets {} and {}, so that nothing can evict it", one.name, other.name));
    }
    let used_up = covering.into_iter().find(|budget| budget.allowed == 0);
    used_up.and_then(|budget| because(&format!("has the budget {} that allows no disruption now", budget.name)))
}

impl PoolSettings {
    /// Gives how many of so many nodes may go together now for this reason, as far as the pool's own budgets say.
    #[must_use]
    pub fn allows(&self, reason: &str, nodes: u32, now: Timestamp) -> u32 {
        let speaks = |budget: &&Disruption| {
            budget.reasons.as_ref().is_none_or(|reasons| reasons.contains(reason))
                && budget.schedule.as_ref().is_none_or(|schedule| schedule.is_active(now))
        };
        self.disruption.iter().filter(speaks).map(|budget| budget.nodes.of(nodes)).min().unwrap_or(u32::MAX)
    }
}

impl AtOnce {
    fn of(self, nodes: u32) -> u32 {
        match self {
            Self::Nodes(most) => most,
            Self::Share(share) => {
                let (share, nodes) = (share * f64::from(nodes), f64::from(nodes));
                whole((share - 1e-9).ceil().clamp(0.0, nodes))
            }
        }
    }
}

/// Rounds a share of a number of nodes down. One of exactly so many must not be lost to rounding.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of nodes is one itself")]
pub fn whole(share: f64) -> u32 {
    (share + 1e-9).floor() as u32
}

/// Nodes that go together.
pub struct Choice<'a> {
    /// They themselves.
    pub going: Vec<(Member<'a>, &'a Node)>,
    /// Why others do not (bounded).
    pub passed_over: Vec<String>,
}

/// Which nodes are to be chosen.
#[derive(Clone, Copy, Debug)]
pub struct Which<'w, 'a> {
    /// So many at most.
    pub most: usize,
    /// Only those without pods that would have to move.
    pub empty: bool,
    /// The pool is to keep its base of on-demand and, with so many nodes at least, one in each zone.
    pub keeps: Option<u32>,
    /// Not these, on which pods that wait have room.
    pub expecting: Option<&'w BTreeSet<&'a NodeName>>,
    /// So many refusals are told.
    pub told: usize,
}

/// What a choice of nodes is made from.
pub struct Chooser<'c, 'a> {
    /// The settings.
    pub settings: &'c Settings,
    /// The cluster.
    pub cluster: &'a ClusterView,
    /// Its disruption budgets.
    pub budgets: Budgets<'a>,
    /// The workers.
    pub fleet: &'c Fleet<'a>,
    /// The pods of the headroom.
    pub spare: &'a [Pod],
    /// What offers cost.
    pub prices: &'c BTreeMap<&'a OfferKey, HourlyPrice>,
    /// What is known from earlier turns.
    pub memory: &'c Memory,
    /// The time of the turn.
    pub now: Timestamp,
}

impl<'a> Chooser<'_, 'a> {
    /// Chooses up to `most` nodes of a pool that go together: least disruption for each dollar saved first, each of
    /// them and all of them together only if their pods find places in more than one order. `is_spared` tells whether
    /// the pool's load allows it that so much capacity goes. Gives besides why others were passed over (bounded).
    ///
    /// # Errors
    /// Why none may go: the reasons of the first candidates (bounded).
    pub fn choose(
        &self,
        pool: &PoolSettings,
        which: Which<'_, 'a>,
        is_spared: impl Fn(&Resources) -> Result<(), String>,
    ) -> Result<Choice<'a>, Vec<String>> {
        let pods = pods_by_node(self.cluster);
        let Which { most, empty, .. } = which;
        let (mut candidates, mut refusals) = self.candidates(pool, &pods);
        if let Some(expecting) = which.expecting {
            let expects = |candidate: &Candidate<'a, '_>| expecting.contains(&candidate.node.name);
            let held = candidates.iter().filter(|candidate| expects(candidate));
            refusals.extend(held.map(|candidate| format!("{}: a pod that waits has room on it", candidate.node.name)));
            candidates.retain(|candidate| !expects(candidate));
        }
        if empty {
            let must_move = |pod: &&Pod| pod.must_find_a_place(self.settings.expendable_below);
            let is_empty = |candidate: &Candidate<'a, '_>| !candidate.pods.iter().any(must_move);
            let busy = candidates.iter().filter(|candidate| !is_empty(candidate));
            refusals
                .extend(busy.map(|candidate| format!("{}: it has pods, and the pool is not idle for long enough", candidate.node.name)));
            candidates.retain(is_empty);
        }
        let mut balance = Balance::of(self.fleet, pool);
        let mut serving = Balance::of_those(self.fleet, pool, true);
        let mut shared = Shared::of(self, &pods);
        let new_stay = || Stay::new(self.cluster, self.fleet, self.spare, &pods, self.settings.expendable_below);
        let mut gone = Resources::default();
        let mut stay: Option<Result<Stay<'a>, String>> = None;
        let mut chosen: Vec<(Member<'a>, &'a Node)> = Vec::new();
        while chosen.len() < most && !candidates.is_empty() {
            let next = candidates.iter().enumerate().min_by_key(|(position, candidate)| (balance.without(candidate.member), *position));
            let candidate = candidates.remove(next.map_or(0, |(position, _)| position));
            let mut with_it = gone.clone();
            with_it.add(&candidate.node.allocatable);
            let needs = shared.needs(candidate.pods);
            let may = which.keeps.map_or(Ok(()), |least| serving.may_lose(candidate.member, least));
            let goes = may.and_then(|()| is_spared(&with_it)).and_then(|()| shared.allow(&needs)).and_then(|()| {
                let stay = stay.get_or_insert_with(new_stay);
                stay.as_mut().map_err(|why| why.clone())?.lose(&[&candidate.node.name])
            });
            match goes {
                Ok(()) => {
                    gone = with_it;
                    balance.lose(candidate.member);
                    serving.lose(candidate.member);
                    shared.take(needs);
                    chosen.push((candidate.member.clone(), candidate.node));
                }
                Err(why) => refusals.push(format!("{}: {why}", candidate.node.name)),
            }
        }
        // Each of them may go after those before it. Drained at the same time, their pods mix.
        while chosen.len() > 1 {
            let names: Vec<&NodeName> = chosen.iter().map(|(_, node)| &node.name).collect();
            if new_stay().is_ok_and(|mut stay| stay.lose(&names).is_ok()) {
                break;
            }
            chosen.truncate(chosen.len() / 2);
        }
        refusals.truncate(which.told);
        if chosen.is_empty() { Err(refusals) } else { Ok(Choice { going: chosen, passed_over: refusals }) }
    }

    /// Gives the node of the pool, if it may go and its pods would find places on the nodes that stay, or on `more` that
    /// are bought.
    ///
    /// # Errors
    /// Why it may not.
    pub fn may_go_alone(&self, pool: &PoolSettings, name: &NodeName, more: &[Rc<Empty<'a>>]) -> Result<(Member<'a>, &'a Node), String> {
        let pods = pods_by_node(self.cluster);
        let on_it = pods.get(name).map_or(&[][..], Vec::as_slice);
        let members = self.fleet.pool(&pool.name).iter().filter_map(|member| Some((member, member.node?)));
        let (member, node) = members.into_iter().find(|(_, node)| node.name == *name).ok_or("it is not in the pool")?;
        may_go(self.settings, &self.budgets, self.memory, member, node, on_it, self.now)?;
        let shared = Shared::of(self, &pods);
        shared.allow(&shared.needs(on_it))?;
        let mut stay = Stay::new(self.cluster, self.fleet, self.spare, &pods, self.settings.expendable_below)?;
        for bought in more {
            stay.add(bought);
        }
        stay.lose(&[name])?;
        Ok((member.clone(), node))
    }

    /// Lists the nodes of the pool that may go, were it for their own pods.
    pub fn replaceable(&self, pool: &PoolSettings) -> Vec<(&Member<'a>, &'a Node)> {
        let pods = pods_by_node(self.cluster);
        let may_go = |member: &Member<'a>, node: &Node| {
            let on_it = pods.get(&node.name).map_or(&[][..], Vec::as_slice);
            may_go(self.settings, &self.budgets, self.memory, member, node, on_it, self.now).is_ok()
        };
        let members = self.fleet.pool(&pool.name).iter().filter_map(|member| Some((member, member.node?)));
        members.filter(|(member, node)| may_go(member, node)).collect()
    }

    /// Lists the nodes that may go, were it for their own pods, and why the others may not.
    fn candidates<'p>(
        &'p self,
        pool: &PoolSettings,
        pods: &'p BTreeMap<&'a NodeName, Vec<&'a Pod>>,
    ) -> (Vec<Candidate<'a, 'p>>, Vec<String>) {
        let mut refusals = Vec::new();
        let mut candidates = Vec::new();
        for member in self.fleet.pool(&pool.name) {
            let Some(node) = member.node else { continue };
            let on_it = pods.get(&node.name).map_or(&[][..], Vec::as_slice);
            match may_go(self.settings, &self.budgets, self.memory, member, node, on_it, self.now) {
                Ok(()) => {
                    let worth = disruption_for_a_dollar(node, on_it, self.prices.get(&member.offer()), self.settings.expendable_below);
                    candidates.push(Candidate { member, node, pods: on_it, worth });
                }
                Err(why) => refusals.push(format!("{}: {why}", node.name)),
            }
        }
        candidates.sort_by(|one, other| one.worth.total_cmp(&other.worth).then_with(|| one.node.name.cmp(&other.node.name)));
        (candidates, refusals)
    }
}

/// A node that may go, were it for its own pods.
struct Candidate<'a, 'p> {
    member: &'p Member<'a>,
    node: &'a Node,
    pods: &'p [&'a Pod],
    worth: f64,
}

/// Gives the disruption that the node's removal is, for each dollar an hour that it saves. Less is better.
fn disruption_for_a_dollar(node: &Node, pods: &[&Pod], price: Option<&HourlyPrice>, expendable_below: i32) -> f64 {
    // A node without pods is not free either: something may be on its way to it.
    const LEAST: f64 = 0.05;
    let missed: Vec<&Pod> = pods.iter().copied().filter(|pod| !pod.is_expendable(expendable_below)).collect();
    (LEAST + load(node, &missed)) / price.map_or(1.0, |price| price.dollars()).max(1e-6)
}

/// How a pool lies over zones and markets.
struct Balance {
    zones: BTreeMap<Zone, u32>,
    total: u32,
    on_demand: u32,
    base: u32,
    spot_share: f64,
}

impl Balance {
    fn of(fleet: &Fleet<'_>, pool: &PoolSettings) -> Self {
        Self::of_those(fleet, pool, false)
    }

    /// Counts the members that serve, or all that stay.
    fn of_those(fleet: &Fleet<'_>, pool: &PoolSettings, serving: bool) -> Self {
        let mut balance = Self { zones: BTreeMap::new(), total: 0, on_demand: 0, base: pool.on_demand_base, spot_share: pool.spot_share };
        for member in fleet.pool(&pool.name).iter().filter(|it| if serving { it.serves() } else { it.leaving.is_none() }) {
            *balance.zones.entry(member.zone.clone()).or_default() += 1;
            balance.total += 1;
            balance.on_demand += u32::from(member.market == Market::OnDemand);
        }
        balance
    }

    /// Tells what would be out of balance without a member: its zone, the on-demand share.
    fn without(&self, member: &Member<'_>) -> (bool, bool) {
        let here = self.zones.get(&member.zone).copied().unwrap_or(0).saturating_sub(1);
        let most = self.zones.iter().filter(|(name, _)| **name != member.zone).map(|(_, nodes)| *nodes).max().unwrap_or(here);
        let total = self.total.saturating_sub(1);
        let above_base = f64::from(total.saturating_sub(self.base)) * (1.0 - self.spot_share);
        let wanted = f64::from(self.base.min(total)) + (above_base + 1e-9).floor();
        let lacks = member.market == Market::OnDemand && f64::from(self.on_demand.saturating_sub(1)) < wanted;
        (most > here + 1, lacks)
    }

    /// Tells whether a pool of at least so many nodes may lose a member.
    fn may_lose(&self, member: &Member<'_>, least: u32) -> Result<(), String> {
        let zones = self.zones.values().filter(|nodes| **nodes > 0).count();
        if self.zones.get(&member.zone).copied().unwrap_or(0) <= 1 && least as usize >= zones {
            return Err(format!("it is the last one in zone {}", member.zone));
        }
        let on_demand = self.on_demand.saturating_sub(1);
        if member.market == Market::OnDemand && on_demand < self.base.min(self.total.saturating_sub(1)) {
            return Err(format!("only {on_demand} on-demand nodes would be left of the base of {}", self.base));
        }
        Ok(())
    }

    fn lose(&mut self, member: &Member<'_>) {
        if let Some(nodes) = self.zones.get_mut(&member.zone) {
            *nodes = nodes.saturating_sub(1);
        }
        self.total = self.total.saturating_sub(1);
        self.on_demand -= u32::from(member.market == Market::OnDemand).min(self.on_demand);
    }
}

/// Tells whether the pool would have too little on-demand without the member.
#[must_use]
pub fn lacks_on_demand(fleet: &Fleet<'_>, pool: &PoolSettings, member: &Member<'_>) -> bool {
    Balance::of(fleet, pool).without(member).1
}

/// Groups the pods that hold resources by the node on which they have room.
#[must_use]
pub fn pods_by_node(cluster: &ClusterView) -> BTreeMap<&NodeName, Vec<&Pod>> {
    let mut by_node: BTreeMap<&NodeName, Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| pod.holds_resources()) {
        if let Some(node) = pod.has_room_on() {
            by_node.entry(node).or_default().push(pod);
        }
    }
    by_node
}

fn may_go(
    settings: &Settings,
    budgets: &Budgets<'_>,
    memory: &Memory,
    member: &Member<'_>,
    node: &Node,
    pods: &[&Pod],
    now: Timestamp,
) -> Result<(), String> {
    let young = SignedDuration::try_from(settings.scale_down.min_node_age).unwrap_or(SignedDuration::MAX);
    if member.instance.is_none() {
        return Err("EC2 does not show its instance".into());
    }
    if node.control_plane {
        return Err("it is a server".into());
    }
    if member.leaving.is_some() {
        return Err("it is being retired already".into());
    }
    if member.launch.is_some() {
        return Err("its launch is not over".into());
    }
    if let Some(annotation) = &node.keep {
        return Err(format!("it is annotated {annotation}"));
    }
    if node.cordoned {
        return Err("somebody else has cordoned it".into());
    }
    if !node.is_ready() {
        return Err("it is not ready".into());
    }
    if now.duration_since(node.created) < young {
        return Err(format!("it is younger than {:?}", settings.scale_down.min_node_age));
    }
    if let Some(until) = memory.resting_nodes.get(&node.name).filter(|until| **until > now) {
        return Err(format!("its last drain failed; it is left alone until {until}"));
    }
    pods.iter().find_map(|pod| forbids(settings, pod, budgets)).map_or(Ok(()), Err)
}

/// Gives the larger of the CPU and memory shares that pods request, those that leave with the node left out.
#[must_use]
pub fn load(node: &Node, pods: &[&Pod]) -> f64 {
    let (mut cpu, mut memory) = (0_u64, 0_u64);
    for pod in pods.iter().filter(|pod| !pod.stays_with_node()) {
        cpu = cpu.saturating_add(pod.requests.cpu.0);
        memory = memory.saturating_add(pod.requests.memory.0);
    }
    f64::max(share(cpu, node.allocatable.cpu.0), share(memory, node.allocatable.memory.0))
}

#[expect(clippy::cast_precision_loss, reason = "only the order of the shares matters")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
