//! What the nodes that came teach about those that would come: what they have for pods, and where they are not what
//! their offers say.

use super::fleet::{Fleet, Member};
use super::settings::Settings;
use crate::model::memory::{Allocatable, Difference, Memory};
use crate::model::plan::Alert;
use crate::model::pod::Owner;
use crate::model::scheduling::{Taint, TaintEffect};
use crate::model::{ClusterView, InstanceType, Node, NodeName, Offer, Pod, PodKey, PoolName, Resources, Snapshot};
use jiff::{SignedDuration, Timestamp};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Only so young nodes tell of differences, and so long the first one is believed. Then it is tried again; where that shows
/// the same, it is believed for twice as long as before, up to [`LONGEST_BELIEVED`].
const BELIEVED: SignedDuration = SignedDuration::from_hours(1);
/// The longest that a difference is believed.
const LONGEST_BELIEVED: SignedDuration = SignedDuration::from_hours(24);

/// Learns from the nodes that serve.
pub fn learn(settings: &Settings, snapshot: &Snapshot, cluster: &ClusterView, fleet: &Fleet<'_>, memory: &mut Memory, now: Timestamp) {
    learn_allocatable(settings, cluster, fleet, memory, now);
    let offers = snapshot.offers.known().map_or(&[][..], |offers| offers.as_slice());
    for pool in &settings.pools {
        // What came from another launch template says nothing of what would come.
        let is_current = |member: &&Member<'_>| {
            let has = member.instance.and_then(|instance| instance.template.as_ref());
            has.zip(snapshot.templates.get(&pool.name)).is_none_or(|(has, now)| has == now)
        };
        let is_young =
            |node: &&Node| now.duration_since(node.created) < BELIEVED && memory.trusted_from.is_none_or(|from| node.created > from);
        let serving = fleet.pool(&pool.name).iter().filter(|member| member.serves()).filter(is_current);
        let young = serving.filter_map(|member| member.node.filter(is_young).map(|node| (member, node)));
        let Some((newest, node)) = young.max_by(|(_, one), (_, other)| (one.created, &one.name).cmp(&(other.created, &other.name))) else {
            continue;
        };
        let Some(offer) = offers.iter().find(|offer| offer.pool == pool.name && offer.key == newest.offer()) else { continue };
        let known = memory.differences.get(&pool.name);
        let lacks = |(key, value): &(&String, &String)| node.labels.get(*key) != Some(value);
        let labels: BTreeSet<String> = offer.labels.iter().filter(lacks).map(|(key, _)| key.clone()).collect();
        let taints = unpromised(settings, offer, node, known.filter(|known| known.node == node.name), now);
        if labels.is_empty() && taints.is_empty() {
            memory.differences.remove(&pool.name);
            continue;
        }
        let failures = known.map_or(1, |known| if known.node == node.name { known.failures } else { known.failures.saturating_add(1) });
        let doubled = BELIEVED.checked_mul(1 << failures.saturating_sub(1).min(16)).unwrap_or(LONGEST_BELIEVED);
        let until = node.created + doubled.min(LONGEST_BELIEVED);
        memory.differences.insert(pool.name.clone(), Difference { node: node.name.clone(), labels, taints, failures, until });
    }
}

/// Lists the taints of a node that its offer does not have and that its pool seems to give: those with which nodes start
/// and that it has kept, and those that it had as soon as it came. Later ones may be a human's.
fn unpromised(settings: &Settings, offer: &Offer, node: &Node, known: Option<&Difference>, now: Timestamp) -> Vec<Taint> {
    let starts = SignedDuration::try_from(settings.join_timeout).unwrap_or(SignedDuration::MAX);
    let has_come = now.duration_since(node.created) <= starts;
    let is_the_pools = |taint: &&Taint| {
        has_come || settings.startup_taints.contains(&taint.key) || known.is_some_and(|known| known.taints.contains(taint))
    };
    let keeps_away = |taint: &&Taint| match taint.effect {
        TaintEffect::NoSchedule | TaintEffect::NoExecute => true,
        TaintEffect::PreferNoSchedule => false,
    };
    let is_a_condition = |taint: &&Taint| taint.key.starts_with("node.kubernetes.io/");
    let new = node.taints.iter().filter(|taint| keeps_away(taint) && !is_a_condition(taint) && !offer.taints.contains(taint));
    new.filter(is_the_pools).cloned().collect()
}

/// Gives the offers as the nodes of their pools were seen to be: pods that ask for what these lack would buy nodes without
/// end.
#[must_use]
pub fn believed<'o>(offers: &'o [Offer], memory: &Memory, now: Timestamp) -> Cow<'o, [Offer]> {
    if !memory.differences.values().any(|difference| difference.until > now) {
        return Cow::Borrowed(offers);
    }
    let corrected = |offer: &Offer| {
        let mut offer = offer.clone();
        if let Some(difference) = memory.differences.get(&offer.pool).filter(|difference| difference.until > now) {
            offer.labels.retain(|key, _| !difference.labels.contains(key));
            offer.taints.extend(difference.taints.iter().cloned());
        }
        offer
    };
    Cow::Owned(offers.iter().map(corrected).collect())
}

/// Says which pools get other nodes than they should.
pub fn alerts(memory: &Memory, now: Timestamp) -> impl Iterator<Item = Alert> {
    memory.differences.iter().filter(move |(_, difference)| difference.until > now).map(|(pool, difference)| {
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
/// nodes without end.
///
/// Of what a node has, the newest one tells. Extended resources are left out, since they appear later than the node, but
/// for the most volumes that it attaches: those are remembered of the node before until it says them.
fn learn_allocatable(settings: &Settings, cluster: &ClusterView, fleet: &Fleet<'_>, memory: &mut Memory, now: Timestamp) {
    let mut newest: BTreeMap<(PoolName, InstanceType), &Node> = BTreeMap::new();
    let mut types: BTreeMap<&NodeName, (&PoolName, &InstanceType)> = BTreeMap::new();
    for pool in &settings.pools {
        for member in fleet.pool(&pool.name).iter().filter(|member| member.serves()) {
            let Some(node) = member.node else { continue };
            types.insert(&node.name, (&pool.name, &member.instance_type));
            let known = newest.entry((pool.name.clone(), member.instance_type.clone())).or_insert(node);
            // Older ones may come from an older launch template.
            if (node.created, &node.name) > (known.created, &known.name) {
                *known = node;
            }
        }
    }
    let names = names(cluster);
    let mut daemons = learn_daemons(cluster, &names, &types);
    let exist: BTreeSet<&String> = names.values().flat_map(BTreeMap::values).collect();
    for (key, node) in newest {
        let before = memory.allocatable.remove(&key);
        let mut extended = node.allocatable.attachments();
        let mut sets = BTreeMap::new();
        if let Some(before) = before {
            // Between two pods of a set there is none for a moment.
            sets.extend(before.sets);
            if extended.is_empty() {
                extended = before.has.extended;
            }
        }
        let has = Resources { extended, ..node.allocatable.clone() };
        let Daemons { sets: seen, others } = daemons.remove(&types[&node.name]).unwrap_or_default();
        sets.extend(seen.into_iter().map(|(set, least)| (set.to_owned(), least)));
        sets.retain(|name, _| exist.contains(name));
        memory.allocatable.insert(key, Allocatable { has, sets, others, seen: now });
    }
}

/// What pods ask for that stay with the nodes of a type.
#[derive(Default)]
struct Daemons<'n> {
    /// A pod of each daemon set, by the set.
    sets: BTreeMap<&'n str, Resources>,
    /// The others of one node, in all.
    others: Resources,
}

/// Finds, for nodes of each type, what a pod of each daemon set asks for, and what all others ask for that stay with a node.
/// The pods count, and not what their sets say: a namespace's defaults and webhooks add to it.
///
/// It is the least of what was seen. A set that comes to a few nodes alone, for a label that somebody has given them, says
/// nothing about those that would come; neither does a static pod of one node.
fn learn_daemons<'t, 'n>(
    cluster: &ClusterView,
    names: &'n Names<'_>,
    types: &BTreeMap<&NodeName, (&'t PoolName, &'t InstanceType)>,
) -> BTreeMap<(&'t PoolName, &'t InstanceType), Daemons<'n>> {
    let mut learned: BTreeMap<_, Daemons<'n>> = BTreeMap::new();
    let mut others: BTreeMap<&NodeName, Resources> = types.keys().map(|node| (*node, Resources::default())).collect();
    for pod in cluster.pods.iter().filter(|pod| pod.stays_with_node() && pod.holds_resources()) {
        let Some((node, of)) = pod.node.as_ref().and_then(|node| types.get_key_value(node)) else { continue };
        if let Some(set) = set_of(pod, names) {
            let sets = &mut learned.entry(*of).or_default().sets;
            match sets.get_mut(set) {
                Some(least) => least.lower_to(&pod.requests),
                None => drop(sets.insert(set, pod.requests.clone())),
            }
        } else if let Some(sum) = others.get_mut(*node) {
            sum.add(&pod.requests);
        }
    }
    let mut seen = BTreeSet::new();
    for (node, sum) in others {
        let of = types[node];
        let daemons = learned.entry(of).or_default();
        if seen.insert(of) { daemons.others = sum } else { daemons.others.lower_to(&sum) }
    }
    learned
}

/// Daemon sets by namespace, and by what the names of their pods begin with.
type Names<'c> = BTreeMap<&'c str, BTreeMap<String, String>>;

/// The API server ends the name of a daemon's pod in so many characters of its own,
const SUFFIX: usize = 5;
/// and leaves so many of what is before them.
const LONGEST_STEM: usize = 58;

fn names(cluster: &ClusterView) -> Names<'_> {
    let mut names = Names::new();
    for set in &cluster.daemon_sets {
        let stem = set.name.chars().chain(['-']).take(LONGEST_STEM).collect();
        // As the pod is named that is made of it for the nodes to come.
        let key = PodKey { namespace: set.namespace.clone(), name: set.name.clone() };
        names.entry(&set.namespace).or_default().insert(stem, key.to_string());
    }
    names
}

/// Finds the daemon set of a pod, if it is of one that is known.
fn set_of<'n>(pod: &Pod, names: &'n Names<'_>) -> Option<&'n str> {
    if pod.owner != Owner::DaemonSet {
        return None;
    }
    let stem = pod.key.name.get(..pod.key.name.len().checked_sub(SUFFIX)?)?;
    names.get(pod.key.namespace.as_str())?.get(stem).map(String::as_str)
}
