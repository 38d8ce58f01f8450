//! Which node may go: provably without harm, the least loaded first.

use super::fit::Board;
use super::fleet::{Fleet, Member};
use super::settings::Settings;
use crate::model::memory::Memory;
use crate::model::pod::Owner;
use crate::model::scheduling::Taint;
use crate::model::snapshot::DisruptionBudget;
use crate::model::{ClusterView, Node, NodeName, Pod, PoolName, Zone};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// How many refusals are told.
const REFUSALS_TOLD: usize = 10;

/// Tells why a pod forbids that its node goes, if it does.
///
/// `budgets` are those of the whole cluster.
#[must_use]
pub fn forbids(settings: &Settings, pod: &Pod, budgets: &[DisruptionBudget]) -> Option<String> {
    if pod.stays_with_node() || !pod.holds_resources() {
        return None;
    }
    let because = |why: &str| Some(format!("pod {} {why}", pod.key));
    let mut covering = budgets.iter().filter(|budget| budget.covers(&pod.key.namespace, &pod.labels)).peekable();
    if pod.priority >= settings.critical_priority {
        return because("has a critical priority");
    }
    if pod.safe_to_evict == Some(false) {
        return because("is annotated safe-to-evict: false");
    }
    if pod.do_not_disrupt {
        return because("is annotated do-not-disrupt");
    }
    if pod.owner == Owner::Nobody && pod.safe_to_evict != Some(true) {
        return because("has no controller that would replace it");
    }
    if pod.key.namespace == "kube-system" && covering.peek().is_none() && pod.safe_to_evict != Some(true) {
        return because("is in kube-system without a disruption budget");
    }
    covering
        .find(|budget| budget.allowed == 0)
        .and_then(|budget| because(&format!("has the budget {} that allows no disruption now", budget.name)))
}

/// Finds the node of a pool that goes first, or why none may.
///
/// # Errors
/// The reasons of the first candidates (bounded).
pub fn candidate<'a>(
    settings: &Settings,
    cluster: &'a ClusterView,
    fleet: &Fleet<'a>,
    memory: &Memory,
    pool: &PoolName,
    now: Timestamp,
) -> Result<Member<'a>, Vec<String>> {
    let pods = pods_by_node(cluster);
    let mut refusals = Vec::new();
    let mut candidates = Vec::new();
    for member in fleet.pool(pool) {
        let Some(node) = member.node else { continue };
        let on_it = pods.get(&node.name).map_or(&[][..], Vec::as_slice);
        match may_go(settings, cluster, memory, member, node, on_it, now) {
            Ok(()) => candidates.push((member, node, on_it)),
            Err(why) => refusals.push(format!("{}: {why}", node.name)),
        }
    }
    let zones = zone_counts(fleet, pool);
    candidates.sort_by(|(a, node_a, pods_a), (b, node_b, pods_b)| {
        let rank = |member: &Member<'_>, node: &Node, pods: &[&Pod]| (unbalances(&zones, &member.zone), load(node, pods));
        let ((skew_a, load_a), (skew_b, load_b)) = (rank(a, node_a, pods_a), rank(b, node_b, pods_b));
        skew_a.cmp(&skew_b).then(load_a.total_cmp(&load_b)).then_with(|| node_a.name.cmp(&node_b.name))
    });
    for (member, node, _) in candidates {
        match everything_fits_elsewhere(cluster, fleet, node, &pods) {
            Ok(()) => return Ok(member.clone()),
            Err(why) => refusals.push(format!("{}: {why}", node.name)),
        }
    }
    refusals.truncate(REFUSALS_TOLD);
    Err(refusals)
}

/// Groups the pods that hold resources by their node.
#[must_use]
pub fn pods_by_node(cluster: &ClusterView) -> BTreeMap<&NodeName, Vec<&Pod>> {
    let mut by_node: BTreeMap<&NodeName, Vec<&Pod>> = BTreeMap::new();
    for pod in cluster.pods.iter().filter(|pod| pod.holds_resources()) {
        if let Some(node) = &pod.node {
            by_node.entry(node).or_default().push(pod);
        }
    }
    by_node
}

fn may_go(
    settings: &Settings,
    cluster: &ClusterView,
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
    pods.iter().find_map(|pod| forbids(settings, pod, &cluster.budgets)).map_or(Ok(()), Err)
}

/// Gives the larger of the CPU and memory shares that pods request, those that leave with the node left out.
fn load(node: &Node, pods: &[&Pod]) -> f64 {
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

fn zone_counts(fleet: &Fleet<'_>, pool: &PoolName) -> BTreeMap<Zone, u32> {
    let mut counts = BTreeMap::new();
    for member in fleet.pool(pool).iter().filter(|member| member.leaving.is_none()) {
        *counts.entry(member.zone.clone()).or_default() += 1;
    }
    counts
}

/// Tells whether the zones would differ by more than one without a node of this one.
fn unbalances(zones: &BTreeMap<Zone, u32>, zone: &Zone) -> bool {
    let here = zones.get(zone).copied().unwrap_or(0).saturating_sub(1);
    let most = zones.iter().filter(|(name, _)| *name != zone).map(|(_, nodes)| *nodes).max().unwrap_or(here);
    most > here + 1
}

/// Simulates the node's removal: every pod that a drain would move must find a place on the nodes that stay.
fn everything_fits_elsewhere(
    cluster: &ClusterView,
    fleet: &Fleet<'_>,
    leaving: &Node,
    pods: &BTreeMap<&NodeName, Vec<&Pod>>,
) -> Result<(), String> {
    let mut board = Board::default();
    let mut gone = None;
    let leaving_too: Vec<&NodeName> =
        fleet.members().filter(|member| member.leaving.is_some()).filter_map(|member| member.node.map(|node| &node.name)).collect();
    for node in cluster.nodes.values() {
        let open = node.is_ready() && !node.cordoned && !leaving_too.contains(&&node.name);
        let taints: &[Taint] = &node.taints;
        let index = board.add(Some(&node.name), &node.labels, taints, &node.allocatable, open);
        for pod in pods.get(&node.name).into_iter().flatten() {
            board.place(pod, index);
        }
        if node.name == leaving.name {
            gone = Some(index);
        }
        // Pods of nodes that leave anyway want the same room.
    }
    let Some(gone) = gone else { return Err("it is not in the cluster".into()) };
    let mut homeless = board.clear(gone);
    for name in leaving_too {
        homeless.extend(pods.get(name).into_iter().flatten().copied());
    }
    homeless.retain(|pod| !pod.stays_with_node());
    // The scheduler fills the emptiest node first, in an order that nobody knows: what only the best
    // packing can hold may find no place.
    let mut spread = board.clone();
    for pod in &homeless {
        let index = spread.emptiest_fit(pod).ok_or_else(|| format!("pod {} may find no place", pod.key))?;
        spread.place(pod, index);
    }
    homeless.sort_by(|a, b| {
        b.requests.cpu.cmp(&a.requests.cpu).then(b.requests.memory.cmp(&a.requests.memory)).then_with(|| a.key.cmp(&b.key))
    });
    for pod in homeless {
        let index = board.first_fit(pod, 0).ok_or_else(|| format!("pod {} would find no place", pod.key))?;
        board.place(pod, index);
    }
    Ok(())
}
