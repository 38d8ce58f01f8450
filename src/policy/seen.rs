//! What the nodes that came teach about those that would come: what they have for pods, and where they are not what
//! their offers say.

use super::fleet::{Fleet, Member};
use super::settings::Settings;
use crate::model::memory::{Allocatable, Difference, Memory};
use crate::model::plan::Alert;
use crate::model::scheduling::{Taint, TaintEffect};
use crate::model::{ClusterView, InstanceType, Node, NodeName, Offer, PoolName, Resources};
use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// So long after its node came a difference is believed: then one more node is bought to see whether it has been mended.
const BELIEVED: SignedDuration = SignedDuration::from_hours(1);

/// Learns from the nodes that serve.
pub fn learn(settings: &Settings, cluster: &ClusterView, offers: &[Offer], fleet: &Fleet<'_>, memory: &mut Memory, now: Timestamp) {
    learn_allocatable(settings, cluster, fleet, memory, now);
    for pool in &settings.pools {
        let young = |node: &Node| now.duration_since(node.created) < BELIEVED;
        let serving = fleet.pool(&pool.name).iter().filter(|member| member.serves());
        let mut young: Vec<(&Member<'_>, &Node)> =
            serving.filter_map(|member| Some((member, member.node.filter(|node| young(node))?))).collect();
        young.sort_by_key(|(_, node)| (node.created, &node.name));
        let Some((newest, node)) = young.last() else { continue };
        let Some(offer) = offers.iter().find(|offer| offer.pool == pool.name && offer.key == newest.offer()) else { continue };
        let lacks = |(key, value): &(&String, &String)| node.labels.get(*key) != Some(value);
        let labels: BTreeSet<String> = offer.labels.iter().filter(lacks).map(|(key, _)| key.clone()).collect();
        let nodes: Vec<&Node> = young.iter().map(|(_, node)| *node).collect();
        let taints = unpromised(settings, offer, node, &nodes);
        if labels.is_empty() && taints.is_empty() {
            memory.differences.remove(&pool.name);
        } else {
            let difference = Difference { node: node.name.clone(), labels, taints, until: node.created + BELIEVED };
            memory.differences.insert(pool.name.clone(), difference);
        }
    }
}

/// Lists the taints of the newest node that its offer does not have and that its pool seems to give: those with which
/// nodes start and that it has kept, and those that all of several young nodes have. One node alone may have been tainted
/// by a human.
fn unpromised(settings: &Settings, offer: &Offer, newest: &Node, young: &[&Node]) -> Vec<Taint> {
    let is_the_pools = |taint: &&Taint| {
        let has_it = |node: &&Node| node.taints.contains(taint);
        settings.startup_taints.contains(&taint.key) || (young.len() > 1 && young.iter().all(has_it))
    };
    let keeps_away = |taint: &&Taint| match taint.effect {
        TaintEffect::NoSchedule | TaintEffect::NoExecute => true,
        TaintEffect::PreferNoSchedule => false,
    };
    let is_a_condition = |taint: &&Taint| taint.key.starts_with("node.kubernetes.io/");
    let new = newest.taints.iter().filter(|taint| keeps_away(taint) && !is_a_condition(taint) && !offer.taints.contains(taint));
    new.filter(is_the_pools).cloned().collect()
}

/// Gives the offers as the nodes of their pools were seen to be: pods that ask for what these lack would buy nodes without
/// end.
#[must_use]
pub fn believed<'o>(offers: &'o [Offer], memory: &Memory) -> Cow<'o, [Offer]> {
    if memory.differences.is_empty() {
        return Cow::Borrowed(offers);
    }
    let corrected = |offer: &Offer| {
        let Some(difference) = memory.differences.get(&offer.pool) else { return offer.clone() };
        let mut offer = offer.clone();
        offer.labels.retain(|key, _| !difference.labels.contains(key));
        offer.taints.extend(difference.taints.iter().cloned());
        offer
    };
    Cow::Owned(offers.iter().map(corrected).collect())
}

/// Says which pools get other nodes than they should.
pub fn alerts(memory: &Memory) -> impl Iterator<Item = Alert> {
    memory.differences.iter().map(|(pool, difference)| {
        let labels = difference.labels.iter().map(|key| format!("lacks the label {key} that its offer promises"));
        let taints = difference.taints.iter().map(|taint| format!("has the taint {}={}", taint.key, taint.value));
        let what = labels.chain(taints).collect::<Vec<_>>().join(", ");
        let text = format!(
            "node {} of pool {pool} {what}: pods that cannot do with that buy no node of the pool before {} (its user data and [[pool]] should agree)",
            difference.node, difference.until
        );
        Alert { name: "node_differs".into(), subject: pool.to_string(), text }
    })
}

/// Remembers what the nodes that serve have for pods, and what daemons take of it: an estimate that is too high would buy
/// nodes without end. Of daemons the pods count, and not what their sets say: a namespace's defaults, webhooks and static
/// pods add to it.
/// Extended resources are left out, since they appear later than the node, but for the most volumes that it attaches:
/// those are remembered of the node before until it says them.
fn learn_allocatable(settings: &Settings, cluster: &ClusterView, fleet: &Fleet<'_>, memory: &mut Memory, now: Timestamp) {
    let mut newest: BTreeMap<(PoolName, InstanceType), &Node> = BTreeMap::new();
    for pool in &settings.pools {
        for member in fleet.pool(&pool.name).iter().filter(|member| member.serves()) {
            let Some(node) = member.node else { continue };
            let known = newest.entry((pool.name.clone(), member.instance_type.clone())).or_insert(node);
            // Older ones may come from an older launch template.
            if (node.created, &node.name) > (known.created, &known.name) {
                *known = node;
            }
        }
    }
    let mut daemons: BTreeMap<&NodeName, Resources> = newest.values().map(|node| (&node.name, Resources::default())).collect();
    for pod in cluster.pods.iter().filter(|pod| pod.stays_with_node() && pod.holds_resources()) {
        if let Some(sum) = pod.node.as_ref().and_then(|node| daemons.get_mut(node)) {
            sum.add(&pod.requests);
        }
    }
    for (key, node) in newest {
        let mut extended = node.allocatable.attachments();
        if extended.is_empty() {
            extended = memory.allocatable.remove(&key).map(|known| known.has.extended).unwrap_or_default();
        }
        let has = Resources { extended, ..node.allocatable.clone() };
        let daemons = daemons.remove(&node.name).unwrap_or_default();
        memory.allocatable.insert(key, Allocatable { has, daemons, seen: now });
    }
}
