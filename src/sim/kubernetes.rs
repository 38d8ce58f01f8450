//! The API server's objects: nodes, pods, budgets, daemon sets, and one shared reading of them.

use crate::model::plan::NodeRef;
use crate::model::pod::Owner;
use crate::model::scheduling::{INTERRUPTED_TAINT, Selector, Taint, TaintEffect};
use crate::model::snapshot::{DaemonSet, DisruptionBudget};
use crate::model::{ClusterView, InstanceId, Node, NodeName, Pod, PodKey, PodPhase, Readiness, Resources};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A disruption budget as somebody wrote it.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pods it speaks of.
    pub selector: Selector,
    /// How many of them may be missing.
    pub max_unavailable: u32,
    /// How many of them there should be.
    pub expected: u32,
}

/// The objects.
#[derive(Debug, Default)]
pub struct Kubernetes {
    nodes: BTreeMap<NodeName, Node>,
    pods: BTreeMap<PodKey, Arc<Pod>>,
    by_node: BTreeMap<NodeName, BTreeSet<PodKey>>,
    free: BTreeMap<NodeName, Resources>,
    waiting: BTreeSet<PodKey>,
    /// By namespace and name.
    budgets: BTreeMap<(String, String), Budget>,
    /// What comes to every node.
    pub daemon_sets: Vec<DaemonSet>,
    view: Option<Arc<ClusterView>>,
    /// Nodes that make no sense to who reads them.
    unreadable: BTreeSet<NodeName>,
    spoils_new_nodes: bool,
    new_nodes_fail: bool,
    /// Unique ids of nodes that a person had cordoned before a controller did.
    cordoned_before: BTreeSet<String>,
    uids: u64,
}

impl Kubernetes {
    /// Makes an id that no object ever had.
    pub fn uid(&mut self) -> String {
        self.uids += 1;
        format!("uid-{}", self.uids)
    }

    /// Gives the nodes.
    pub fn nodes(&self) -> &BTreeMap<NodeName, Node> {
        &self.nodes
    }

    /// Gives the pods.
    pub fn pods(&self) -> &BTreeMap<PodKey, Arc<Pod>> {
        &self.pods
    }

    /// Gives a node if it is still the one that is meant.
    pub fn same(&self, reference: &NodeRef) -> Option<&Node> {
        self.nodes.get(&reference.name).filter(|node| node.uid == reference.uid)
    }

    /// Finds the node that an instance is.
    pub fn node_of(&self, instance: &InstanceId) -> Option<&Node> {
        self.nodes.values().find(|node| node.instance.as_ref() == Some(instance))
    }

    /// Changes a node.
    pub fn change_node(&mut self, name: &NodeName, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.nodes.get_mut(name) {
            change(node);
            self.view = None;
        }
    }

    /// Lets every node that joins from now on make no sense to who reads it.
    pub fn make_new_nodes_unreadable(&mut self) {
        self.spoils_new_nodes = true;
    }

    /// Lets every node that joins from here on be Ready, or not.
    pub fn let_new_nodes_be_ready(&mut self, ready: bool) {
        self.new_nodes_fail = !ready;
    }

    /// Tells whether a node makes no sense to who reads it.
    pub fn is_unreadable(&self, name: &NodeName) -> bool {
        self.unreadable.contains(name)
    }

    /// Adds a node, in the place of one of the same name.
    pub fn add_node(&mut self, mut node: Node) {
        self.free.insert(node.name.clone(), node.allocatable.clone());
        self.by_node.entry(node.name.clone()).or_default();
        if self.spoils_new_nodes {
            self.unreadable.insert(node.name.clone());
        }
        if self.new_nodes_fail {
            node.readiness = Readiness::NotReady { since: node.created };
        }
        self.nodes.insert(node.name.clone(), node);
        self.view = None;
    }

    /// Removes a node's object and gives the pods that lay on it, which are gone with it.
    pub fn remove_node(&mut self, name: &NodeName) -> Vec<Arc<Pod>> {
        self.nodes.remove(name);
        self.free.remove(name);
        self.view = None;
        let keys = self.by_node.remove(name).unwrap_or_default();
        keys.into_iter().filter_map(|key| self.pods.remove(&key)).collect()
    }

    /// Adds a pod, bound or not.
    pub fn add_pod(&mut self, pod: Pod) {
        self.view = None;
        match &pod.node {
            Some(node) => self.occupy(&node.clone(), &pod),
            None => {
                self.waiting.insert(pod.key.clone());
            }
        }
        self.pods.insert(pod.key.clone(), Arc::new(pod));
    }

    fn occupy(&mut self, node: &NodeName, pod: &Pod) {
        self.by_node.entry(node.clone()).or_default().insert(pod.key.clone());
        if let Some(free) = self.free.get_mut(node) {
            free.subtract(&pod.requests);
        }
    }

    /// Removes a pod.
    pub fn remove_pod(&mut self, key: &PodKey) -> Option<Arc<Pod>> {
        let pod = self.pods.remove(key)?;
        self.view = None;
        self.waiting.remove(key);
        if let Some(node) = &pod.node {
            if let Some(keys) = self.by_node.get_mut(node) {
                keys.remove(key);
            }
            if let Some(free) = self.free.get_mut(node) {
                free.give_back(&pod.requests);
            }
        }
        Some(pod)
    }

    /// Changes a pod in what does not decide where it lies.
    pub fn change_pod(&mut self, key: &PodKey, change: impl FnOnce(&mut Pod)) {
        if let Some(pod) = self.pods.get_mut(key) {
            change(Arc::make_mut(pod));
            self.view = None;
        }
    }

    /// Takes a node out of service for an operation.
    pub fn cordon(&mut self, name: &NodeName, operation: &str, taint: bool) {
        if let Some(node) = self.nodes.get(name).filter(|node| node.cordoned && node.cordoned_by.is_none()) {
            self.cordoned_before.insert(node.uid.clone());
        }
        self.change_node(name, |node| {
            node.cordoned = true;
            node.cordoned_by = Some(operation.to_owned());
            if taint && !node.taints.iter().any(|taint| taint.key == INTERRUPTED_TAINT) {
                node.taints.push(Taint { key: INTERRUPTED_TAINT.into(), value: String::new(), effect: TaintEffect::NoSchedule });
            }
        });
    }

    /// Takes back what operations did to a node. What a person has cordoned stays so.
    pub fn uncordon(&mut self, name: &NodeName) {
        let stays = self.nodes.get(name).is_some_and(|node| self.cordoned_before.remove(&node.uid));
        self.change_node(name, |node| {
            node.cordoned = stays;
            node.cordoned_by = None;
            node.taints.retain(|taint| taint.key != INTERRUPTED_TAINT);
        });
    }

    /// Binds a waiting pod to a node.
    pub fn bind(&mut self, key: &PodKey, node: &NodeName) {
        if let Some(pod) = self.pods.get_mut(key) {
            let bound = Arc::make_mut(pod);
            bound.node = Some(node.clone());
            bound.unschedulable_since = None;
            let pod = Arc::clone(pod);
            self.waiting.remove(key);
            self.occupy(node, &pod);
            self.view = None;
        }
    }

    /// Marks a waiting pod as one that no node takes. Tells whether that is news.
    pub fn mark_unschedulable(&mut self, key: &PodKey, now: Timestamp) -> bool {
        let Some(pod) = self.pods.get_mut(key) else { return false };
        if pod.unschedulable_since.is_some() {
            return false;
        }
        Arc::make_mut(pod).unschedulable_since = Some(now);
        self.view = None;
        true
    }

    /// Lists the pods that are bound nowhere.
    pub fn waiting(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.waiting.iter().map(|key| &self.pods[key])
    }

    /// Counts the pods that are bound nowhere.
    pub fn waits(&self) -> usize {
        self.waiting.len()
    }

    /// Lists the pods of a node.
    pub fn on(&self, node: &NodeName) -> impl Iterator<Item = &Arc<Pod>> {
        self.by_node.get(node).into_iter().flatten().map(|key| &self.pods[key])
    }

    /// Gives what a node has left.
    pub fn free(&self, node: &NodeName) -> Option<&Resources> {
        self.free.get(node)
    }

    /// Writes a budget.
    pub fn set_budget(&mut self, key: (String, String), budget: Budget) {
        self.budgets.insert(key, budget);
        self.view = None;
    }

    /// Tells how many pods of a budget may be evicted now.
    pub fn allowed(&self, budget: &Budget) -> u32 {
        let healthy = self.pods.values().filter(|pod| {
            pod.key.namespace == budget.namespace
                && pod.phase == PodPhase::Running
                && pod.terminating_since.is_none()
                && budget.selector.matches(&pod.labels)
                && pod.node.as_ref().and_then(|node| self.nodes.get(node)).is_some_and(Node::is_ready)
        });
        let healthy = u32::try_from(healthy.count()).unwrap_or(u32::MAX);
        healthy.saturating_sub(budget.expected.saturating_sub(budget.max_unavailable))
    }

    /// Tells whether every budget that speaks of the pod allows its eviction now.
    pub fn may_evict(&self, pod: &Pod) -> bool {
        let mut covering = self.budgets.values().filter(|it| it.namespace == pod.key.namespace && it.selector.matches(&pod.labels));
        covering.all(|budget| self.allowed(budget) > 0)
    }

    /// Gives one consistent reading of all objects. It is made anew only after a change.
    pub fn view(&mut self) -> Arc<ClusterView> {
        if let Some(view) = &self.view {
            return Arc::clone(view);
        }
        let budget = |budget: &Budget| DisruptionBudget {
            namespace: budget.namespace.clone(),
            name: budget.name.clone(),
            selector: Some(budget.selector.clone()),
            allowed: self.allowed(budget),
        };
        let view = Arc::new(ClusterView {
            nodes: self
                .nodes
                .iter()
                .filter(|(name, _)| !self.unreadable.contains(*name))
                .map(|(name, node)| (name.clone(), node.clone()))
                .collect(),
            pods: self.pods.values().cloned().collect(),
            budgets: self.budgets.values().map(budget).collect(),
            daemon_sets: self.daemon_sets.clone(),
            refused: self.unreadable.iter().map(|name| format!("node {name}")).collect(),
            refused_nodes: self.unreadable.clone(),
        });
        self.view = Some(Arc::clone(&view));
        view
    }

    /// Marks a node as ready or not. Tells whether that is news.
    pub fn set_ready(&mut self, name: &NodeName, ready: bool, since: Timestamp) -> bool {
        let Some(node) = self.nodes.get_mut(name) else { return false };
        if node.is_ready() == ready {
            return false;
        }
        node.readiness = if ready { Readiness::Ready { since } } else { Readiness::NotReady { since } };
        self.view = None;
        true
    }
}

/// Tells whether a drain has to move the pod.
pub fn moves_in_a_drain(pod: &Pod) -> bool {
    match pod.owner {
        Owner::Nobody | Owner::Controller => pod.holds_resources(),
        Owner::DaemonSet | Owner::Node => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MilliCpu;
    use crate::model::scheduling::Labels;

    fn node(name: &str) -> Node {
        Node {
            name: name.into(),
            uid: format!("uid-{name}"),
            instance: Some(format!("i-{name}").as_str().into()),
            labels: Labels::new(),
            taints: Vec::new(),
            cordoned: false,
            cordoned_by: None,
            readiness: Readiness::Ready { since: Timestamp::UNIX_EPOCH },
            allocatable: Resources { cpu: MilliCpu(1000), pods: 10, ..Resources::default() },
            created: Timestamp::UNIX_EPOCH,
            control_plane: false,
            keep: None,
        }
    }

    fn pod(name: &str) -> Pod {
        Pod {
            key: PodKey { namespace: "default".into(), name: name.into() },
            owner: Owner::Controller,
            phase: PodPhase::Running,
            requests: Resources { cpu: MilliCpu(300), pods: 1, ..Resources::default() },
            ..Pod::default()
        }
    }

    #[test]
    fn what_is_free_follows_what_lies_on_a_node() {
        let mut cluster = Kubernetes::default();
        let free = |cluster: &Kubernetes| cluster.free(&"n".into()).map(|free| free.cpu.0);
        cluster.add_node(node("n"));
        cluster.add_pod(pod("p"));
        assert_eq!((free(&cluster), cluster.waits()), (Some(1000), 1));
        cluster.bind(&pod("p").key, &"n".into());
        assert_eq!((free(&cluster), cluster.waits()), (Some(700), 0));
        cluster.remove_pod(&pod("p").key);
        assert_eq!(free(&cluster), Some(1000));
        cluster.add_pod(Pod { node: Some("n".into()), ..pod("q") });
        assert_eq!(cluster.remove_node(&"n".into()).len(), 1);
        assert!(cluster.pods().is_empty());
    }

    #[test]
    fn a_budget_counts_healthy_pods_only() {
        let mut cluster = Kubernetes::default();
        cluster.add_node(node("n"));
        for name in ["p", "q"] {
            cluster.add_pod(Pod { node: Some("n".into()), ..pod(name) });
        }
        let budget =
            Budget { namespace: "default".into(), name: "b".into(), selector: Selector::default(), max_unavailable: 1, expected: 2 };
        cluster.set_budget(("default".into(), "b".into()), budget.clone());
        assert_eq!(cluster.allowed(&budget), 1);
        cluster.change_pod(&pod("p").key, |pod| pod.terminating_since = Some(Timestamp::UNIX_EPOCH));
        assert!(!cluster.may_evict(&pod("q")));
        cluster.set_ready(&"n".into(), false, Timestamp::UNIX_EPOCH);
        assert_eq!(cluster.allowed(&budget), 0);
    }

    #[test]
    fn a_view_is_shared_until_something_changes() {
        let mut cluster = Kubernetes::default();
        cluster.add_node(node("n"));
        let before = cluster.view();
        assert!(Arc::ptr_eq(&before, &cluster.view()));
        cluster.add_pod(pod("p"));
        assert_eq!((before.pods.len(), cluster.view().pods.len()), (0, 1));
    }
}
