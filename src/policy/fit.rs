//! Whether a pod fits a node: the scheduler's filters, as far as they decide it.
//!
//! A [`Board`] is the cluster as a plan imagines it: nodes that exist, nodes that are
//! on their way and nodes that it may buy, each with the pods that lie on it.
//!
//! # What is not modelled
//!
//! A pod with one of these neither buys a node nor lets its own be removed, and is named where somebody asks:
//! dynamic resource claims; scheduling groups; a disk that the pod itself names; a claim that does not exist, has lost
//! its volume, or waits for a class that binds at once; a namespace selector by labels in a term of pod affinity (of
//! anti-affinity it keeps the pods of every namespace away); an operator that is unknown here.
//!
//! A pod that asks for a device (`nvidia.com/gpu`) has a place on nodes that have it, and buys none: what devices a type
//! brings is not known. Not looked at are other schedulers (`schedulerName`), the capacity that a storage driver has left,
//! and `ReadWriteOncePod`: such pods may wait for what no node changes, buy one where there is no room, and are then told
//! of as those on which the scheduler disagrees.
//!
//! Five things are modelled roughly. Two pods that share a volume count it twice against what a node attaches. Taints
//! with `PreferNoSchedule` are passed over. Preferences choose which node is bought for a pod, not that one is bought,
//! and are given up together where no offer meets all of them. An expendable pod whose room others take counts towards
//! their affinity and spread as if it stayed. A pod that is resized in place as a whole, and not container by container,
//! counts with what it asks for.

use super::topology::{Place, Shape, Topology};
use crate::model::scheduling::{
    Constraints, Labels, NOT_READY_TAINT, NodeSelectorTerm, Taint, TaintEffect, UNSCHEDULABLE_TAINT, ZONE_LABEL,
};
use crate::model::{Node, NodeName, Pod, Resources};
use std::borrow::Cow;
use std::fmt;

/// Why a pod does not fit a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// The node lacks these resources.
    Resources(Vec<String>),
    /// The pod does not tolerate this taint.
    Taint(Taint),
    /// The node's labels do not match the pod's node selector.
    NodeSelector,
    /// The node matches none of the pod's required node affinity terms.
    NodeAffinity,
    /// A volume cannot be reached from the node.
    Volume,
    /// A port of the node is taken.
    HostPort(u16),
    /// A pod that this one must be near is not.
    PodAffinity,
    /// A pod that this one must be apart from is near.
    PodAntiAffinity,
    /// The pods would lie too unevenly over this label.
    Spread(String),
    /// The pod has a constraint that is not modelled.
    Unmodelled(String),
}

impl fmt::Display for Misfit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resources(names) => write!(formatter, "not enough {}", names.join(", ")),
            Self::Taint(taint) => write!(formatter, "the taint {}={} is not tolerated", taint.key, taint.value),
            Self::NodeSelector => formatter.write_str("the node selector does not match"),
            Self::NodeAffinity => formatter.write_str("the required node affinity does not match"),
            Self::Volume => formatter.write_str("a volume is bound elsewhere"),
            Self::HostPort(port) => write!(formatter, "host port {port} is taken"),
            Self::PodAffinity => formatter.write_str("no pod that it must be near is there"),
            Self::PodAntiAffinity => formatter.write_str("a pod that it must be apart from is there"),
            Self::Spread(key) => write!(formatter, "it would lie unevenly over {key}"),
            Self::Unmodelled(what) => write!(formatter, "{what} is not modelled"),
        }
    }
}

/// One node of a [`Board`].
#[derive(Clone, Debug)]
pub struct Bin<'a> {
    /// Its name, when it exists.
    pub name: Option<&'a NodeName>,
    /// Its labels.
    pub labels: &'a Labels,
    /// Its taints.
    pub taints: &'a [Taint],
    /// What is left on it, the room of pods that make way included.
    pub free: Resources,
    /// What pods hold that make way.
    yielding: Resources,
    /// The pods on it.
    pub pods: Vec<&'a Pod>,
    /// It is cordoned, or on its way out.
    cordoned: bool,
    /// It is not Ready.
    unready: bool,
    /// It is on the board once more, and is no place here.
    is_shadow: bool,
    /// What kinds of pods lie on it, and how many of each.
    shapes: Vec<(Shape, u32)>,
}

impl<'a> Bin<'a> {
    /// Takes the room of pods, who make way or do not.
    fn fill(&mut self, requests: &Resources, makes_way: bool) {
        if makes_way { self.yielding.add(requests) } else { self.free.subtract(requests) }
    }

    /// Undoes [`Self::fill`].
    fn vacate(&mut self, requests: &Resources, makes_way: bool) {
        if makes_way { self.yielding.subtract(requests) } else { self.free.give_back(requests) }
    }

    /// Gives the room that there is for the pod: one that preempts nobody has none where others make way.
    fn room_for(&self, pod: &Pod) -> Cow<'_, Resources> {
        let mut room = Cow::Borrowed(&self.free);
        if pod.never_preempts && self.yielding != Resources::default() {
            room.to_mut().subtract(&self.yielding);
        }
        room
    }

    fn place(&self) -> Place<'a> {
        let Self { name, labels, taints, cordoned, unready, .. } = *self;
        Place { name, labels, taints, cordoned, unready, counts: !self.is_shadow }
    }

    /// Tells whether it takes new pods: Ready, not cordoned, not on its way out.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.cordoned && !self.unready
    }

    /// Lists the kinds of pods that lie on it, and how many of each.
    #[must_use]
    pub fn shapes(&self) -> &[(Shape, u32)] {
        &self.shapes
    }
}

/// The cluster as a plan imagines it.
#[derive(Clone, Debug, Default)]
pub struct Board<'a> {
    bins: Vec<Bin<'a>>,
    topology: Topology<'a>,
}

impl<'a> Board<'a> {
    /// Begins a board on which pods below a priority make way for others, as the scheduler lets them: their room is
    /// free for all but those that never preempt. They still count towards affinity, spread and ports.
    #[must_use]
    pub fn making_way(below: i32) -> Self {
        Self { bins: Vec::new(), topology: Topology::making_way(below) }
    }

    /// Adds a node and gives its index. `capacity` is what it holds in all.
    pub fn add(&mut self, name: Option<&'a NodeName>, labels: &'a Labels, taints: &'a [Taint], capacity: &Resources, open: bool) -> usize {
        let (free, yielding, pods, shapes) = (capacity.clone(), Resources::default(), Vec::new(), Vec::new());
        self.push(Bin { name, labels, taints, free, yielding, pods, cordoned: !open, unready: false, is_shadow: false, shapes })
    }

    /// Adds a node that exists, without its pods. It takes others if it is Ready, is not cordoned and `stays`.
    pub fn add_node(&mut self, node: &'a Node, stays: bool) -> usize {
        let Node { name, labels, taints, .. } = node;
        let (free, yielding, pods, shapes) = (node.allocatable.clone(), Resources::default(), Vec::new(), Vec::new());
        let (name, cordoned, unready) = (Some(name), node.cordoned || !stays, !node.is_ready());
        self.push(Bin { name, labels, taints, free, yielding, pods, cordoned, unready, is_shadow: false, shapes })
    }

    /// Adds a node that takes no pods and is no place to be: the board has it once more, as what it will be.
    pub fn add_shadow(&mut self, name: &'a NodeName, labels: &'a Labels, taints: &'a [Taint]) -> usize {
        let (free, yielding, pods, shapes) = (Resources::default(), Resources::default(), Vec::new(), Vec::new());
        self.push(Bin { name: Some(name), labels, taints, free, yielding, pods, cordoned: true, unready: false, is_shadow: true, shapes })
    }

    fn push(&mut self, bin: Bin<'a>) -> usize {
        self.topology.add_node(bin.place());
        self.bins.push(bin);
        self.bins.len() - 1
    }

    /// Finds the kind of a pod: all pods of one kind fit the same nodes.
    pub fn shape(&mut self, pod: &'a Pod) -> Shape {
        if let Some(shape) = self.topology.known(pod) {
            return shape;
        }
        let nodes: Vec<(Place<'a>, &[(Shape, u32)])> = self.bins.iter().map(|bin| (bin.place(), bin.shapes.as_slice())).collect();
        self.topology.shape(pod, &nodes)
    }

    /// Gives a pod of this kind.
    #[must_use]
    pub fn example(&self, shape: Shape) -> &'a Pod {
        self.topology.example(shape)
    }

    /// Tells whether only the node itself decides about such pods: one that refused the first will not take the second.
    #[must_use]
    pub fn is_local(&self, shape: Shape) -> bool {
        self.topology.is_local(shape)
    }

    /// Tells whether nothing but resources, labels and taints decides about such pods.
    #[must_use]
    pub fn is_alone(&self, shape: Shape) -> bool {
        self.topology.is_alone(shape) && self.example(shape).constraints.host_ports.is_empty()
    }

    /// Tells whether two new nodes in one zone are the same to such pods, whatever else their labels say.
    #[must_use]
    pub fn sees_zones_and_hosts_only(&self, shape: Shape) -> bool {
        self.topology.asks_about_zones_and_hosts_only(shape)
    }

    /// Puts a pod on a node without asking whether it fits.
    pub fn place(&mut self, pod: &'a Pod, index: usize) {
        let shape = self.shape(pod);
        self.load(shape, 1, index);
        self.bins[index].pods.push(pod);
    }

    /// Counts so many pods of a kind on a node, without saying which.
    pub fn load(&mut self, shape: Shape, pods: u32, index: usize) {
        let example = self.topology.example(shape);
        let makes_way = self.topology.makes_way(example);
        let bin = &mut self.bins[index];
        if pods == 1 {
            bin.fill(&example.requests, makes_way);
        } else {
            bin.fill(&example.requests.times(u64::from(pods)), makes_way);
        }
        match bin.shapes.iter_mut().rev().find(|(known, _)| *known == shape) {
            Some((_, number)) => *number += pods,
            None => bin.shapes.push((shape, pods)),
        }
        self.topology.add_pods(shape, pods, index);
    }

    /// Takes the pod away that was placed on a node last.
    pub fn take_last(&mut self, index: usize) {
        if let Some(pod) = self.bins[index].pods.last() {
            self.take(pod, index);
        }
    }

    /// Takes a pod away from a node.
    pub fn take(&mut self, pod: &'a Pod, index: usize) {
        if let Some(shape) = self.begin_to_take(pod, index) {
            self.finish_to_take(pod, shape, index);
        }
    }

    /// Lets a pod end, if it lies on the node: its room, its ports and its neighbourhood are taken until it has ended.
    pub fn begin_to_take(&mut self, pod: &'a Pod, index: usize) -> Option<Shape> {
        let at = self.bins[index].pods.iter().rposition(|other| std::ptr::eq(*other, pod))?;
        self.bins[index].pods.remove(at);
        let shape = self.shape(pod);
        self.topology.begin_to_take(shape, index);
        Some(shape)
    }

    /// The pod that [`Self::begin_to_take`] was told of has ended.
    pub fn finish_to_take(&mut self, pod: &'a Pod, shape: Shape, index: usize) {
        let makes_way = self.topology.makes_way(pod);
        let bin = &mut self.bins[index];
        bin.vacate(&pod.requests, makes_way);
        if let Some(at) = bin.shapes.iter().position(|(known, _)| *known == shape) {
            bin.shapes[at].1 -= 1;
            if bin.shapes[at].1 == 0 {
                bin.shapes.remove(at);
            }
        }
        self.topology.finish_to_take(shape, index);
    }

    /// Takes the node's pods away and closes it, as when it is removed.
    pub fn clear(&mut self, index: usize) -> Vec<&'a Pod> {
        self.empty(index);
        self.set_open(index, false);
        std::mem::take(&mut self.bins[index].pods)
    }

    /// Undoes [`Self::clear`].
    pub fn restore(&mut self, index: usize, pods: &[&'a Pod]) {
        for pod in pods {
            self.place(pod, index);
        }
        self.set_open(index, true);
    }

    /// Lets a node take pods, or no longer, as when it is cordoned.
    pub fn set_open(&mut self, index: usize, open: bool) {
        self.bins[index].cordoned = !open;
        let bin = &self.bins[index];
        self.topology.revise(index, bin.place(), &bin.shapes);
    }

    fn empty(&mut self, index: usize) {
        for (shape, pods) in std::mem::take(&mut self.bins[index].shapes) {
            let example = self.topology.example(shape);
            self.bins[index].vacate(&example.requests.times(u64::from(pods)), self.topology.makes_way(example));
            self.topology.take_pods(shape, pods, index);
        }
    }

    /// Drops the nodes from `length` on.
    pub fn truncate(&mut self, length: usize) {
        while self.bins.len() > length {
            self.empty(self.bins.len() - 1);
            self.bins.pop();
            self.topology.drop_node();
        }
    }

    /// Counts the nodes.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.bins.len()
    }

    /// Gives a node.
    #[must_use]
    pub fn bin(&self, index: usize) -> &Bin<'a> {
        &self.bins[index]
    }

    /// Finds the first open node from `from` on that takes such a pod.
    #[must_use]
    pub fn first_fit(&self, shape: Shape, from: usize) -> Option<usize> {
        let requests = &self.example(shape).requests;
        let has_room = |bin: &Bin<'_>| bin.is_open() && requests.fits_in(&bin.free);
        (from..self.bins.len()).find(|index| has_room(&self.bins[*index]) && self.fits(shape, *index).is_ok())
    }

    /// Finds the first open node from `from` on that has the resources for such a pod, or the end.
    #[must_use]
    pub fn first_with_room(&self, shape: Shape, from: usize) -> usize {
        let requests = &self.example(shape).requests;
        (from..self.bins.len())
            .find(|index| self.bins[*index].is_open() && requests.fits_in(&self.bins[*index].free))
            .unwrap_or(self.bins.len())
    }

    /// Tells whether such a pod fits the node.
    ///
    /// # Errors
    /// The first filter that refuses it.
    pub fn fits(&self, shape: Shape, index: usize) -> Result<(), Misfit> {
        let bin = &self.bins[index];
        let pod = self.topology.example(shape);
        let room = bin.room_for(pod);
        if !pod.requests.fits_in(&room) {
            return Err(Misfit::Resources(pod.requests.shortages(&room)));
        }
        node_accepts(&pod.constraints, bin.name, bin.labels, bin.taints)?;
        for wanted in &pod.constraints.host_ports {
            let mut taken = bin.shapes.iter().flat_map(|(shape, _)| &self.topology.example(*shape).constraints.host_ports);
            if taken.any(|taken| taken.conflicts_with(wanted)) {
                return Err(Misfit::HostPort(wanted.port));
            }
        }
        self.topology.fits(shape, index)
    }
}

/// Tells whether a node with these labels and taints accepts a pod, its other pods and its load left aside.
///
/// # Errors
/// The first filter that refuses it.
pub fn node_accepts(constraints: &Constraints, name: Option<&NodeName>, labels: &Labels, taints: &[Taint]) -> Result<(), Misfit> {
    if let Some(what) = constraints.unmodelled.first() {
        return Err(Misfit::Unmodelled(what.clone()));
    }
    tolerates_all(constraints, taints)?;
    selector_accepts(constraints, name, labels)?;
    let reachable = constraints.volume_zones.iter().all(|zones| labels.get(ZONE_LABEL).is_some_and(|zone| zones.contains(zone.as_str())));
    let attachable = constraints.volume_affinity.iter().all(|terms| any_term(terms, name, labels));
    if reachable && attachable { Ok(()) } else { Err(Misfit::Volume) }
}

/// Tells whether a pod may come to a node with these taints.
///
/// # Errors
/// The first taint that it does not tolerate.
pub(super) fn tolerates_all(constraints: &Constraints, taints: &[Taint]) -> Result<(), Misfit> {
    for taint in taints {
        match taint.effect {
            TaintEffect::PreferNoSchedule => {}
            TaintEffect::NoSchedule | TaintEffect::NoExecute => {
                if !constraints.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
                    return Err(Misfit::Taint(taint.clone()));
                }
            }
        }
    }
    Ok(())
}

/// Tells whether a pod tolerates the taints of a node that is cordoned or not Ready.
pub(super) fn tolerates_closed(constraints: &Constraints, cordoned: bool, unready: bool) -> bool {
    let closed = [(cordoned, UNSCHEDULABLE_TAINT), (unready, NOT_READY_TAINT)];
    closed.into_iter().filter(|(is_so, _)| *is_so).all(|(_, key)| {
        let taint = Taint { key: key.to_owned(), value: String::new(), effect: TaintEffect::NoSchedule };
        tolerates_all(constraints, &[taint]).is_ok()
    })
}

/// Tells whether a pod's node selector and required node affinity admit a node.
///
/// # Errors
/// Which of them does not.
pub(super) fn selector_accepts(constraints: &Constraints, name: Option<&NodeName>, labels: &Labels) -> Result<(), Misfit> {
    if !constraints.node_selector.matches(labels) {
        return Err(Misfit::NodeSelector);
    }
    let affinity = &constraints.node_affinity;
    if affinity.is_empty() || any_term(affinity, name, labels) { Ok(()) } else { Err(Misfit::NodeAffinity) }
}

fn any_term(terms: &[NodeSelectorTerm], name: Option<&NodeName>, labels: &Labels) -> bool {
    terms.iter().any(|term| {
        // A term without any condition matches nothing, as in Kubernetes.
        let empty = term.labels.0.is_empty() && term.fields.0.is_empty();
        let fields = || Labels::from_iter(name.map(|name| ("metadata.name".to_owned(), name.as_str().to_owned())));
        !empty && term.labels.matches(labels) && (term.fields.0.is_empty() || term.fields.matches(&fields()))
    })
}
