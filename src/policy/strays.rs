//! Finds what nobody accounts for: instances that are no nodes, nodes without an instance.

use super::fleet::{Fleet, nodes_by_instance};
use super::settings::Settings;
use crate::model::memory::Memory;
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireOrder, RetireReason};
use crate::model::{ClusterView, Instance, InstanceId, Market, Node, Operation, Readiness};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How many strays are removed in one turn.
const REMOVED_AT_ONCE: usize = 5;

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
    let grace = SignedDuration::try_from(settings.stray_grace).unwrap_or(SignedDuration::MAX);
    let busy = busy_nodes(operations);
    // An instance without a node may be that of a node that could not be read.
    let mut found = if cluster.refused_nodes.is_empty() { leaked(fleet) } else { Vec::new() };
    found.extend(orphaned(settings, cluster, instances, &busy));
    let known = std::mem::take(&mut memory.strays);
    let mut orders = Vec::new();
    for (key, order) in found {
        let since = known.get(&key).copied().unwrap_or(now);
        if now.duration_since(since) >= grace && orders.len() < REMOVED_AT_ONCE {
            orders.push(order);
        }
        memory.strays.insert(key, since);
    }
    orders
}

/// Instances of ours that run, belong to no launch that is under way and are no node.
fn leaked(fleet: &Fleet<'_>) -> Vec<(String, RetireOrder)> {
    let strays = fleet.members().filter_map(|member| {
        let instance = member.instance?;
        let stray = member.node.is_none() && member.launch.is_none() && member.leaving.is_none();
        stray.then(|| {
            let order = RetireOrder {
                pool: instance.pool.clone().unwrap_or_default(),
                instance: Some(instance.id.clone()),
                node: None,
                zone: instance.zone.clone(),
                market: instance.market,
                reason: RetireReason::Leaked,
                on_timeout: OnDrainTimeout::Force,
            };
            (format!("instance {}", instance.id), order)
        })
    });
    strays.collect()
}

/// Worker nodes of our pools that are not ready and whose instance EC2 does not list.
///
/// Execution asks EC2 for that very instance before it removes the node's object: one that
/// lost its tags is not in the list, runs all the same, and is not to be touched.
fn orphaned(settings: &Settings, cluster: &ClusterView, instances: &[Instance], busy: &BTreeSet<&str>) -> Vec<(String, RetireOrder)> {
    let listed: BTreeSet<&InstanceId> = instances.iter().filter(|instance| instance.counts()).map(|instance| &instance.id).collect();
    let by_instance = nodes_by_instance(cluster);
    let strays = by_instance.into_iter().filter(|(id, node)| {
        let ours = node.pool().is_some_and(|pool| settings.pools.iter().any(|known| known.name == pool));
        ours && !node.control_plane && silent(node) && !listed.contains(id) && !busy.contains(node.uid.as_str())
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
    strays.map(|(_, node)| (format!("node {} {}", node.name, node.uid), order(node))).collect()
}

fn silent(node: &Node) -> bool {
    match node.readiness {
        Readiness::Ready { .. } => false,
        Readiness::NotReady { .. } => true,
    }
}

fn busy_nodes(operations: &BTreeMap<crate::model::OperationId, Operation>) -> BTreeSet<&str> {
    let retiring = operations.values().filter(|operation| !operation.is_over()).filter_map(|operation| match operation {
        Operation::Retire(retire) => retire.order.node.as_ref().map(|node| node.uid.as_str()),
        Operation::Launch(_) => None,
    });
    retiring.collect()
}
