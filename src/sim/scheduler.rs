//! The Kubernetes scheduler: its filters as far as they are modelled, and the emptiest node of those that pass.
//!
//! Written apart from the policy's own model of the filters, so that each is held against the other.

use super::kubernetes::Kubernetes;
use crate::model::scheduling::{
    NOT_READY_TAINT, NodeSelectorTerm, PodAffinityTerm, SpreadConstraint, Taint, TaintEffect, UNSCHEDULABLE_TAINT, ZONE_LABEL,
};
use crate::model::{Node, NodeName, Offer, Pod, PodKey, Readiness, Resources};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Finds nodes for the pods that wait, the most important and then the oldest first.
///
/// Gives the pods with their nodes, and those that no node takes.
pub fn schedule(cluster: &Kubernetes) -> (Vec<(PodKey, NodeName)>, Vec<PodKey>) {
    let repels = |pod: &&Arc<Pod>| !pod.constraints.pod_anti_affinity.is_empty();
    let repelling = cluster.pods().values().filter(repels).filter_map(|pod| Some((pod.node.clone()?, pod))).collect();
    let mut pass = Pass { cluster, taken: BTreeMap::new(), placed: BTreeMap::new(), repelling, hopeless: BTreeSet::new() };
    let mut queue: Vec<&Arc<Pod>> = cluster.waiting().filter(|pod| !pod.gated && pod.terminating_since.is_none()).collect();
    queue.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.key.cmp(&b.key)));
    let (mut bound, mut left) = (Vec::new(), Vec::new());
    for pod in queue {
        match pass.place(pod) {
            Some(node) => bound.push((pod.key.clone(), node)),
            None => left.push(pod.key.clone()),
        }
    }
    (bound, left)
}

type Shape = (u64, u64, u64, usize);

struct Pass<'a> {
    cluster: &'a Kubernetes,
    /// What this pass has put on nodes.
    taken: BTreeMap<NodeName, Resources>,
    placed: BTreeMap<NodeName, Vec<&'a Arc<Pod>>>,
    /// Bound pods that keep others away.
    repelling: Vec<(NodeName, &'a Arc<Pod>)>,
    /// Shapes of pods without relations to other pods that found no node in this pass.
    hopeless: BTreeSet<Shape>,
}

impl<'a> Pass<'a> {
    fn place(&mut self, pod: &'a Arc<Pod>) -> Option<NodeName> {
        let constraints = &pod.constraints;
        let alone = constraints.pod_affinity.is_empty()
            && constraints.pod_anti_affinity.is_empty()
            && constraints.spread.is_empty()
            && constraints.host_ports.is_empty();
        let shape = (pod.requests.cpu.0, pod.requests.memory.0, pod.requests.ephemeral_storage.0, Arc::as_ptr(constraints) as usize);
        if alone && self.hopeless.contains(&shape) {
            return None;
        }
        let fitting = self.cluster.nodes().values().filter(|node| self.fits(pod, node));
        let best = fitting.max_by(|a, b| self.room(a).cpu.cmp(&self.room(b).cpu).then_with(|| b.name.cmp(&a.name)));
        let Some(name) = best.map(|node| node.name.clone()) else {
            if alone {
                self.hopeless.insert(shape);
            }
            return None;
        };
        self.taken.entry(name.clone()).or_default().add(&pod.requests);
        self.placed.entry(name.clone()).or_default().push(pod);
        if !pod.constraints.pod_anti_affinity.is_empty() {
            self.repelling.push((name.clone(), pod));
        }
        Some(name)
    }

    fn room(&self, node: &Node) -> Resources {
        let mut room = self.cluster.free(&node.name).cloned().unwrap_or_default();
        if let Some(taken) = self.taken.get(&node.name) {
            room.subtract(taken);
        }
        room
    }

    fn fits(&self, pod: &Pod, node: &Node) -> bool {
        node.is_ready()
            && !node.cordoned
            && pod.requests.fits_in(&self.room(node))
            && admits(pod, node)
            && !self.port_taken(pod, node)
            && self.apart(pod, node)
            && pod.constraints.pod_affinity.iter().all(|term| self.together(pod, node, term))
            && pod.constraints.spread.iter().all(|spread| self.even(pod, node, spread))
    }

    fn on(&self, name: &NodeName) -> impl Iterator<Item = &'a Arc<Pod>> {
        self.cluster.on(name).chain(self.placed.get(name).into_iter().flatten().copied())
    }

    fn port_taken(&self, pod: &Pod, node: &Node) -> bool {
        let wanted = &pod.constraints.host_ports;
        !wanted.is_empty()
            && self
                .on(&node.name)
                .any(|other| other.constraints.host_ports.iter().any(|port| wanted.iter().any(|it| it.conflicts_with(port))))
    }

    /// Neither the pod's own anti-affinity nor that of a pod that is there forbids the node.
    fn apart(&self, pod: &Pod, node: &Node) -> bool {
        let own = &pod.constraints.pod_anti_affinity;
        own.iter().all(|term| !self.is_near(node, term))
            && self.repelling.iter().all(|(name, other)| {
                let there = self.cluster.nodes().get(name);
                let mut terms = other.constraints.pod_anti_affinity.iter();
                there.is_none_or(|there| terms.all(|term| !(same_domain(there, node, &term.topology_key) && selects(term, pod))))
            })
    }

    fn together(&self, pod: &Pod, node: &Node, term: &PodAffinityTerm) -> bool {
        if !node.labels.contains_key(&term.topology_key) {
            return false;
        }
        if self.is_near(node, term) {
            return true;
        }
        // The first of a group that wants to be together may go anywhere.
        selects(term, pod) && !self.cluster.nodes().keys().any(|name| self.on(name).any(|other| selects(term, other)))
    }

    fn even(&self, pod: &Pod, node: &Node, spread: &SpreadConstraint) -> bool {
        let Some(here) = node.labels.get(&spread.topology_key) else { return false };
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        let looks_at = |there: &&Node| {
            (spread.ignores_node_affinity || matches_affinity(pod, there)) && (!spread.honors_taints || tolerates(pod, there))
        };
        for there in self.cluster.nodes().values().filter(looks_at) {
            let Some(domain) = there.labels.get(&spread.topology_key) else { continue };
            let alike = self.on(&there.name).filter(|other| {
                other.key.namespace == pod.key.namespace && other.terminating_since.is_none() && spread.selector.matches(&other.labels)
            });
            *counts.entry(domain).or_default() += u32::try_from(alike.count()).unwrap_or(u32::MAX);
        }
        let few = spread.min_domains.is_some_and(|least| counts.len() < least as usize);
        let emptiest = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let own = u32::from(spread.selector.matches(&pod.labels));
        counts.get(here.as_str()).copied().unwrap_or(0) + own <= emptiest + spread.max_skew
    }

    /// Tells whether a pod that the term selects lies in the node's domain.
    fn is_near(&self, node: &Node, term: &PodAffinityTerm) -> bool {
        let mut there = self.cluster.nodes().values().filter(|there| same_domain(there, node, &term.topology_key));
        there.any(|there| self.on(&there.name).any(|other| selects(term, other)))
    }
}

fn same_domain(a: &Node, b: &Node, key: &str) -> bool {
    matches!((a.labels.get(key), b.labels.get(key)), (Some(x), Some(y)) if x == y)
}

fn selects(term: &PodAffinityTerm, pod: &Pod) -> bool {
    pod.terminating_since.is_none()
        && term.namespaces.as_ref().is_none_or(|names| names.contains(&pod.key.namespace))
        && term.selector.as_ref().is_some_and(|selector| selector.matches(&pod.labels))
}

/// Labels, taints and volumes of a node that does not exist yet.
pub fn offer_admits(pod: &Pod, offer: &Offer) -> bool {
    let node = Node {
        name: "new".into(),
        uid: String::new(),
        instance: None,
        labels: offer.labels.clone(),
        taints: offer.taints.clone(),
        cordoned: false,
        cordoned_by: None,
        readiness: Readiness::Ready { since: Timestamp::UNIX_EPOCH },
        allocatable: offer.allocatable.clone(),
        created: Timestamp::UNIX_EPOCH,
        control_plane: false,
        keep: None,
    };
    admits(pod, &node)
}

/// Labels, taints and volumes.
pub fn admits(pod: &Pod, node: &Node) -> bool {
    let zone = node.labels.get(ZONE_LABEL);
    tolerates_taints(pod, node)
        && matches_affinity(pod, node)
        && pod.constraints.volume_zones.iter().all(|zones| zone.is_some_and(|zone| zones.contains(zone.as_str())))
        && pod.constraints.volume_affinity.iter().all(|terms| any(terms, node))
}

/// Tells whether the pod minds nothing of the node: no taint, no cordon, and not that it is not Ready.
fn tolerates(pod: &Pod, node: &Node) -> bool {
    let tolerates = |key: &str| {
        let taint = Taint { key: key.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
        pod.constraints.tolerations.iter().any(|it| it.tolerates(&taint))
    };
    let minds_nothing = (!node.cordoned || tolerates(UNSCHEDULABLE_TAINT)) && (node.is_ready() || tolerates(NOT_READY_TAINT));
    minds_nothing && tolerates_taints(pod, node)
}

fn tolerates_taints(pod: &Pod, node: &Node) -> bool {
    node.taints.iter().all(|taint| match taint.effect {
        TaintEffect::PreferNoSchedule => true,
        TaintEffect::NoSchedule | TaintEffect::NoExecute => pod.constraints.tolerations.iter().any(|it| it.tolerates(taint)),
    })
}

fn matches_affinity(pod: &Pod, node: &Node) -> bool {
    let affinity = &pod.constraints.node_affinity;
    pod.constraints.node_selector.matches(&node.labels) && (affinity.is_empty() || any(affinity, node))
}

fn any(terms: &[NodeSelectorTerm], node: &Node) -> bool {
    let name = BTreeMap::from([("metadata.name".to_owned(), node.name.to_string())]);
    terms.iter().any(|term| {
        let says_something = !term.labels.0.is_empty() || !term.fields.0.is_empty();
        says_something && term.labels.matches(&node.labels) && term.fields.matches(&name)
    })
}
