//! Finds what nobody accounts for: instances that are no nodes, nodes without an instance, nodes that are never Ready again.

use super::fleet::{Fleet, count, nodes_by_instance};
use super::settings::Settings;
use crate::model::memory::Memory;
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireOrder, RetireReason};
use crate::model::{ClusterView, Instance, InstanceId, Market, Node, Operation, Readiness};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How many strays are being removed at once, at most, beyond [`REMOVED_SHARE`].
const REMOVED_AT_ONCE: u32 = 5;
/// The share of the fleet that is being removed as strays at once, at most, but one always: should
/// a mistake make every node look like a stray, most of them outlive it until somebody looks.
const REMOVED_SHARE: f64 = 0.2;

/// Names a stray, as the memory keeps it.
pub(super) fn key(order: &RetireOrder) -> Option<String> {
    match (&order.instance, &order.node) {
        (_, Some(node)) => Some(format!("node {} {}", node.name, node.uid)),
        (Some(instance), None) => Some(format!("instance {instance}")),
        (None, None) => None,
    }
}

/// Lists the strays that have been there for the whole grace time, and remembers the younger ones.
pub fn find(
    settings: &Settings,
    cluster: &ClusterView,
    instances: &[Instance],
    operations: &BTreeMap<crate::model::OperationId, Operation>,
    fleet: &Fleet<'_>,
    memory: &mut Memory,
    now: Timestamp,
) -> Vec<RetireOrder> {
    let grace = signed(settings.stray_grace);
    let busy = busy_nodes(operations);
    let mut found = if cluster.may_hide_a_node() { Vec::new() } else { leaked(fleet) };
    found.extend(orphaned(settings, cluster, instances, &busy));
    found.extend(unhealthy(settings, fleet, now));
    let known = std::mem::take(&mut memory.strays);
    let mut room = room(operations, fleet);
    let mut orders = Vec::new();
    for order in found {
        let Some(key) = key(&order) else { continue };
        let since = known.get(&key).copied().unwrap_or(now);
        if now.duration_since(since) >= grace && room > 0 {
            room -= 1;
            orders.push(order);
        }
        memory.strays.insert(key, since);
    }
    orders
}

/// How many more strays may be removed now.
fn room(operations: &BTreeMap<crate::model::OperationId, Operation>, fleet: &Fleet<'_>) -> u32 {
    let going = operations.values().filter(|operation| !operation.is_over()).filter(|operation| match operation {
        Operation::Retire(retire) => match retire.order.reason {
            RetireReason::Leaked | RetireReason::InstanceGone | RetireReason::Unhealthy { .. } => true,
            RetireReason::Underused { .. }
            | RetireReason::Consolidated { .. }
            | RetireReason::Replaced { .. }
            | RetireReason::AboveMaximum
            | RetireReason::SpotInterruption { .. }
            | RetireReason::NeverJoined => false,
        },
        Operation::Launch(_) => false,
    });
    let fleet = f64::from(count(fleet.members().count()));
    let share = super::rules::nodes(fleet * REMOVED_SHARE).clamp(1, REMOVED_AT_ONCE);
    share.saturating_sub(count(going.count()))
}

/// Instances of ours that run, belong to no launch that is under way and are no node.
fn leaked(fleet: &Fleet<'_>) -> Vec<RetireOrder> {
    let strays = fleet.members().filter_map(|member| {
        let instance = member.instance?;
        let stray = member.node.is_none() && member.launch.is_none() && member.leaving.is_none();
        stray.then(|| RetireOrder {
            pool: instance.pool.clone().unwrap_or_default(),
            instance: Some(instance.id.clone()),
            node: None,
            zone: instance.zone.clone(),
            market: instance.market,
            reason: RetireReason::Leaked,
            on_timeout: OnDrainTimeout::Force,
        })
    });
    strays.collect()
}

/// Nodes of ours that run and have not been Ready for long. Too many of them at once are no sick
/// nodes but a sick network, and nothing is done.
fn unhealthy(settings: &Settings, fleet: &Fleet<'_>, now: Timestamp) -> Vec<RetireOrder> {
    let joined = fleet.members().filter(|member| member.launch.is_none() && member.leaving.is_none());
    let nodes: Vec<_> = joined.filter_map(|member| Some((member, member.node?))).collect();
    let unready = count(nodes.iter().filter(|(_, node)| !node.is_ready()).count());
    let bearable = super::rules::nodes(settings.max_unready_share * f64::from(count(nodes.len()))).max(1);
    if unready > bearable {
        return Vec::new();
    }
    let sick = nodes.into_iter().filter_map(|(member, node)| match node.readiness {
        Readiness::NotReady { since }
            if now.duration_since(since) >= signed(settings.unhealthy_after) && node.keep.is_none() && !node.control_plane =>
        {
            Some((member, node, since))
        }
        Readiness::NotReady { .. } | Readiness::Ready { .. } => None,
    });
    let orders = sick.filter_map(|(member, node, since)| {
        Some(RetireOrder {
            pool: member.instance?.pool.clone().unwrap_or_default(),
            instance: member.id.clone(),
            node: Some(NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
            zone: member.zone.clone(),
            market: member.market,
            reason: RetireReason::Unhealthy { since },
            on_timeout: OnDrainTimeout::Force,
        })
    });
    orders.collect()
}

/// Worker nodes of our pools that are not ready and whose instance EC2 does not list.
///
/// Execution asks EC2 for that very instance before it removes the node's object: one that
/// lost its tags is not in the list, runs all the same, and is not to be touched.
fn orphaned(settings: &Settings, cluster: &ClusterView, instances: &[Instance], busy: &BTreeSet<&str>) -> Vec<RetireOrder> {
    let listed: BTreeSet<&InstanceId> = instances.iter().filter(|instance| instance.counts()).map(|instance| &instance.id).collect();
    let by_instance = nodes_by_instance(cluster);
    let strays = by_instance.into_iter().filter(|(id, node)| {
        let ours = node.pool().is_some_and(|pool| settings.pools.iter().any(|known| known.name == pool));
        ours && !node.control_plane && !node.is_ready() && !listed.contains(id) && !busy.contains(node.uid.as_str())
    });
    let order = |node: &Node| RetireOrder {
        pool: node.pool().unwrap_or_default(),
        instance: None,
        node: Some(NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
        zone: node.zone().unwrap_or_default(),
        market: Market::OnDemand,
        reason: RetireReason::InstanceGone,
        on_timeout: OnDrainTimeout::Force,
    };
    strays.map(|(_, node)| order(node)).collect()
}

fn busy_nodes(operations: &BTreeMap<crate::model::OperationId, Operation>) -> BTreeSet<&str> {
    let retiring = operations.values().filter(|operation| !operation.is_over()).filter_map(|operation| match operation {
        Operation::Retire(retire) => retire.order.node.as_ref().map(|node| node.uid.as_str()),
        Operation::Launch(_) => None,
    });
    retiring.collect()
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
