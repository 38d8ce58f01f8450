//! Counts pods by where they lie, so that affinity and spread are looked up and not counted anew.
//!
//! A [`Shape`] is a kind of pod: equal in all that decides where it may go. A group counts the pods that one
//! condition speaks of, domain by domain: the values of a node label, or the nodes themselves.

use super::fit::{Misfit, selector_accepts, tolerates_all, tolerates_closed};
use super::kind::Kind;
use crate::model::scheduling::{Constraints, HOSTNAME_LABEL, Labels, PodAffinityTerm, Taint, ZONE_LABEL};
use crate::model::{NodeName, Pod};
use std::collections::BTreeMap;

/// A kind of pod on a board.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape(pub(super) u32);

impl Shape {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a node must tell to be counted.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) name: Option<&'a NodeName>,
    pub(super) labels: &'a Labels,
    pub(super) taints: &'a [Taint],
    /// It is cordoned, or will be as it leaves.
    pub(super) cordoned: bool,
    /// It is not Ready.
    pub(super) unready: bool,
    /// It is a place at all.
    pub(super) counts: bool,
}

/// Which pods a group counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What<'a> {
    /// Those that a term selects.
    Selected(&'a PodAffinityTerm),
    /// Those that carry a term of anti-affinity.
    Carriers(&'a PodAffinityTerm),
    /// Those that all of the terms select, by the label of one of them.
    Together(&'a [PodAffinityTerm], usize),
    /// Those that a spread constraint counts, of a pod in this namespace.
    Spread(&'a str, &'a Constraints, usize),
}

impl<'a> What<'a> {
    fn key(&self) -> &'a str {
        match self {
            Self::Selected(term) | Self::Carriers(term) => &term.topology_key,
            Self::Together(terms, index) => &terms[*index].topology_key,
            Self::Spread(_, constraints, index) => &constraints.spread[*index].topology_key,
        }
    }

    fn is_of_spread(&self) -> bool {
        match self {
            Self::Spread(..) => true,
            Self::Selected(_) | Self::Carriers(_) | Self::Together(..) => false,
        }
    }

    /// Tells whether it depends on a node's taints, and on what closes it.
    fn honors_taints(&self) -> bool {
        match self {
            Self::Spread(_, constraints, index) => constraints.spread[*index].honors_taints,
            Self::Selected(_) | Self::Carriers(_) | Self::Together(..) => false,
        }
    }

    fn counts(&self, pod: &Pod) -> bool {
        match self {
            Self::Selected(term) => selects(term, pod),
            Self::Carriers(term) => pod.constraints.pod_anti_affinity.contains(term),
            Self::Together(terms, _) => terms.iter().all(|term| selects(term, pod)),
            Self::Spread(namespace, constraints, index) => {
                pod.key.namespace == *namespace
                    && pod.terminating_since.is_none()
                    // The scheduler counts no pod where the selector is empty.
                    && !constraints.spread[*index].selector.0.is_empty()
                    && constraints.spread[*index].selector.matches(&pod.labels)
            }
        }
    }

    /// Tells whether pods on this node, and the node itself as a place to be, count at all.
    fn looks_at(&self, place: Place<'_>) -> bool {
        if !place.counts {
            return false;
        }
        match self {
            Self::Selected(_) | Self::Carriers(_) | Self::Together(..) => true,
            Self::Spread(_, constraints, index) => {
                let spread = &constraints.spread[*index];
                let has = |key: &str| key == HOSTNAME_LABEL || place.labels.contains_key(key);
                let tolerates =
                    || tolerates_all(constraints, place.taints).is_ok() && tolerates_closed(constraints, place.cordoned, place.unready);
                constraints.spread.iter().all(|spread| has(&spread.topology_key))
                    && (spread.ignores_node_affinity || selector_accepts(constraints, place.name, place.labels).is_ok())
                    && (!spread.honors_taints || tolerates())
            }
        }
    }
}

/// How many pods one condition counts in each domain.
#[derive(Clone, Debug)]
struct Group<'a> {
    what: What<'a>,
    domains: usize,
    /// Pods, by domain.
    pods: Vec<u32>,
    /// Nodes that are looked at, by domain.
    nodes: Vec<u32>,
    /// Whether each node is looked at.
    looked_at: Vec<bool>,
    /// How many domains with a node have so many pods.
    histogram: BTreeMap<u32, u32>,
    total: u32,
}

impl Group<'_> {
    fn grow(&mut self, domain: usize) {
        if self.pods.len() <= domain {
            self.pods.resize(domain + 1, 0);
            self.nodes.resize(domain + 1, 0);
        }
    }

    fn add_node(&mut self, domain: Option<usize>, looked_at: bool) {
        let looked_at = looked_at && domain.is_some();
        self.looked_at.push(looked_at);
        if let Some(domain) = domain.filter(|_| looked_at) {
            self.enter(domain);
        }
    }

    /// One more node of the domain is looked at.
    fn enter(&mut self, domain: usize) {
        self.grow(domain);
        self.nodes[domain] += 1;
        if self.nodes[domain] == 1 {
            *self.histogram.entry(self.pods[domain]).or_default() += 1;
        }
    }

    /// Forgets the last node, which must be empty.
    fn drop_node(&mut self, domain: Option<usize>) {
        let looked_at = self.looked_at.pop() == Some(true);
        if let Some(domain) = domain.filter(|_| looked_at) {
            self.quit(domain);
        }
    }

    /// Looks at a node with so many pods that count, or no longer.
    fn look_at(&mut self, node: usize, domain: usize, pods: u32, looked_at: bool) {
        if looked_at {
            self.looked_at[node] = true;
            self.enter(domain);
            self.change(node, Some(domain), |before| before.saturating_add(pods));
        } else {
            self.change(node, Some(domain), |before| before.saturating_sub(pods));
            self.looked_at[node] = false;
            self.quit(domain);
        }
    }

    /// One node less of the domain is looked at.
    fn quit(&mut self, domain: usize) {
        self.nodes[domain] -= 1;
        if self.nodes[domain] == 0 {
            self.leave(self.pods[domain]);
        }
    }

    fn leave(&mut self, pods: u32) {
        if let Some(domains) = self.histogram.get_mut(&pods) {
            *domains -= 1;
            if *domains == 0 {
                self.histogram.remove(&pods);
            }
        }
    }

    fn change(&mut self, node: usize, domain: Option<usize>, change: impl Fn(u32) -> u32) {
        let Some(domain) = domain.filter(|_| self.looked_at[node]) else { return };
        let before = self.pods[domain];
        let after = change(before);
        self.pods[domain] = after;
        self.total = self.total - before + after;
        self.leave(before);
        *self.histogram.entry(after).or_default() += 1;
    }

    fn pods_in(&self, domain: usize) -> u32 {
        self.pods.get(domain).copied().unwrap_or(0)
    }
}

/// The values of one node label, as numbers. Of the host's name, each node is its own value.
#[derive(Clone, Debug)]
struct Domains<'a> {
    key: &'a str,
    numbers: BTreeMap<&'a str, usize>,
    of_node: Vec<Option<usize>>,
}

impl<'a> Domains<'a> {
    fn add_node(&mut self, labels: &'a Labels) {
        let next = self.numbers.len();
        let domain = if self.key == HOSTNAME_LABEL {
            Some(self.of_node.len())
        } else {
            labels.get(self.key).map(|value| *self.numbers.entry(value).or_insert(next))
        };
        self.of_node.push(domain);
    }
}

/// What a shape asks of the pods around it: numbers of groups.
#[derive(Clone, Debug, Default)]
struct Asks {
    /// Domains with such a pod are forbidden.
    apart: Vec<usize>,
    /// Only domains with such a pod are allowed.
    near: Vec<usize>,
    /// It would itself be such a pod.
    is_near_itself: bool,
    /// The groups of its spread constraints, and whether it counts itself.
    spread: Vec<(usize, bool)>,
    /// The groups that count it.
    counted: Vec<usize>,
}

/// All groups that the pods of a board ask about.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology<'a> {
    shapes: Vec<(&'a Pod, Asks)>,
    numbers: BTreeMap<Kind<'a>, Shape>,
    latest: Option<Shape>,
    domains: Vec<Domains<'a>>,
    groups: Vec<Group<'a>>,
    known: BTreeMap<What<'a>, usize>,
    /// Pods below this priority make way for others.
    makes_way_below: Option<i32>,
}

impl<'a> Topology<'a> {
    pub(super) fn making_way(below: i32) -> Self {
        Self { makes_way_below: Some(below), ..Self::default() }
    }

    /// Tells whether the scheduler takes the pod's room for others. What belongs to a node comes back to it.
    pub(super) fn makes_way(&self, pod: &Pod) -> bool {
        self.makes_way_below.is_some_and(|below| pod.is_expendable(below) && !pod.stays_with_node())
    }

    fn kind(&self, pod: &'a Pod) -> Kind<'a> {
        Kind { pod, makes_way: self.makes_way(pod) }
    }

    /// Finds the pod's shape. A new one makes the groups that it asks about, from `nodes`: what lies on each.
    pub(super) fn shape(&mut self, pod: &'a Pod, nodes: &[(Place<'a>, &[(Shape, u32)])]) -> Shape {
        if let Some(shape) = self.known(pod) {
            return shape;
        }
        let shape = Shape(u32::try_from(self.shapes.len()).unwrap_or(u32::MAX));
        self.numbers.insert(self.kind(pod), shape);
        self.latest = Some(shape);
        let counted = (0..self.groups.len()).filter(|group| self.groups[*group].what.counts(pod)).collect();
        self.shapes.push((pod, Asks { counted, ..Asks::default() }));
        let constraints = &*pod.constraints;
        let mut asks = Asks::default();
        for term in &constraints.pod_anti_affinity {
            asks.apart.push(self.group(What::Selected(term), nodes));
            self.group(What::Carriers(term), nodes);
        }
        for index in 0..constraints.pod_affinity.len() {
            asks.near.push(self.group(What::Together(&constraints.pod_affinity, index), nodes));
        }
        for (index, spread) in constraints.spread.iter().enumerate() {
            let group = self.group(What::Spread(&pod.key.namespace, constraints, index), nodes);
            asks.spread.push((group, spread.selector.matches(&pod.labels)));
        }
        asks.is_near_itself = constraints.pod_affinity.iter().all(|term| selects(term, pod));
        let repelled =
            self.groups.iter().enumerate().filter(|(_, group)| matches!(&group.what, What::Carriers(term) if selects(term, pod)));
        asks.apart.extend(repelled.map(|(group, _)| group));
        let own = &mut self.shapes[shape.index()].1;
        asks.counted = std::mem::take(&mut own.counted);
        *own = asks;
        shape
    }

    /// Finds the pod's shape where it is known.
    pub(super) fn known(&mut self, pod: &'a Pod) -> Option<Shape> {
        let kind = self.kind(pod);
        if let Some(latest) = self.latest.filter(|shape| kind.is_same_as(self.kind(self.shapes[shape.index()].0))) {
            return Some(latest);
        }
        self.latest = self.numbers.get(&kind).copied().or(self.latest);
        self.numbers.get(&kind).copied()
    }

    /// Gives a pod of the shape.
    pub(super) fn example(&self, shape: Shape) -> &'a Pod {
        self.shapes[shape.index()].0
    }

    /// Tells whether only the node itself decides: then a node that refused such a pod will not take another one.
    pub(super) fn is_local(&self, shape: Shape) -> bool {
        let asks = &self.shapes[shape.index()].1;
        asks.near.is_empty() && asks.spread.is_empty()
    }

    /// Tells whether the pods around it are no matter at all.
    pub(super) fn is_alone(&self, shape: Shape) -> bool {
        self.is_local(shape) && self.shapes[shape.index()].1.apart.is_empty()
    }

    pub(super) fn add_node(&mut self, place: Place<'a>) {
        self.domains.iter_mut().for_each(|domains| domains.add_node(place.labels));
        for group in &mut self.groups {
            let domain = self.domains[group.domains].of_node.last().copied().flatten();
            group.add_node(domain, group.what.looks_at(place));
        }
    }

    /// Forgets the last node, from which every pod must have been taken.
    pub(super) fn drop_node(&mut self) {
        for group in &mut self.groups {
            group.drop_node(self.domains[group.domains].of_node.last().copied().flatten());
        }
        for domains in &mut self.domains {
            domains.of_node.pop();
        }
    }

    /// A node with such pods on it has been closed or opened: spread that honours taints looks at it no longer, or again.
    pub(super) fn revise(&mut self, node: usize, place: Place<'a>, shapes: &[(Shape, u32)]) {
        let Self { groups, domains, shapes: known, .. } = self;
        for (number, group) in groups.iter_mut().enumerate().filter(|(_, group)| group.what.honors_taints()) {
            let Some(domain) = domains[group.domains].of_node[node] else { continue };
            let looked_at = group.what.looks_at(place);
            if looked_at != group.looked_at[node] {
                let counts = |shape: &Shape| known[shape.index()].1.counted.contains(&number);
                let pods = shapes.iter().filter(|(shape, _)| counts(shape)).map(|(_, pods)| pods).sum();
                group.look_at(node, domain, pods, looked_at);
            }
        }
    }

    pub(super) fn add_pods(&mut self, shape: Shape, pods: u32, node: usize) {
        self.change(shape, node, |before| before.saturating_add(pods));
    }

    pub(super) fn take_pods(&mut self, shape: Shape, pods: u32, node: usize) {
        self.change(shape, node, |before| before.saturating_sub(pods));
    }

    /// Takes away what no longer counts of a pod that ends but is still there: spread passes it over, affinity does not.
    pub(super) fn begin_to_take(&mut self, shape: Shape, node: usize) {
        self.change_some(shape, node, |before| before.saturating_sub(1), What::is_of_spread);
    }

    /// Takes away what [`Self::begin_to_take`] has left.
    pub(super) fn finish_to_take(&mut self, shape: Shape, node: usize) {
        self.change_some(shape, node, |before| before.saturating_sub(1), |what| !what.is_of_spread());
    }

    fn change(&mut self, shape: Shape, node: usize, change: impl Fn(u32) -> u32) {
        self.change_some(shape, node, change, |_| true);
    }

    fn change_some(&mut self, shape: Shape, node: usize, change: impl Fn(u32) -> u32, which: impl Fn(&What<'a>) -> bool) {
        for group in &self.shapes[shape.index()].1.counted {
            let group = &mut self.groups[*group];
            if which(&group.what) {
                let domain = self.domains[group.domains].of_node[node];
                group.change(node, domain, &change);
            }
        }
    }

    /// Tells whether the pods around a node let another one of this shape come.
    ///
    /// # Errors
    /// The first condition that refuses it.
    pub(super) fn fits(&self, shape: Shape, node: usize) -> Result<(), Misfit> {
        let asks = &self.shapes[shape.index()].1;
        let at = |group: &Group<'_>| self.domains[group.domains].of_node[node];
        for group in asks.apart.iter().map(|group| &self.groups[*group]) {
            if at(group).is_some_and(|domain| group.pods_in(domain) > 0) {
                return Err(Misfit::PodAntiAffinity);
            }
        }
        // The first pod of a group that wants to be together has nobody to be near.
        let is_first = asks.is_near_itself && asks.near.iter().all(|group| self.groups[*group].total == 0);
        for group in asks.near.iter().map(|group| &self.groups[*group]) {
            let domain = at(group).ok_or(Misfit::PodAffinity)?;
            if !is_first && group.pods_in(domain) == 0 {
                return Err(Misfit::PodAffinity);
            }
        }
        for (group, counts_itself) in &asks.spread {
            self.spreads(&self.groups[*group], *counts_itself, node)?;
        }
        Ok(())
    }

    fn spreads(&self, group: &Group<'_>, counts_itself: bool, node: usize) -> Result<(), Misfit> {
        let What::Spread(_, constraints, index) = &group.what else { return Ok(()) };
        let spread = &constraints.spread[*index];
        let refused = || Misfit::Spread(spread.topology_key.clone());
        let domain = self.domains[group.domains].of_node[node].ok_or_else(refused)?;
        let domains: u32 = group.histogram.values().sum();
        let too_few = spread.min_domains.is_some_and(|least| domains < least);
        let emptiest = group.histogram.keys().next().copied().filter(|_| !too_few).unwrap_or(0);
        let skew = (group.pods_in(domain) + u32::from(counts_itself)).saturating_sub(emptiest);
        if skew > spread.max_skew { Err(refused()) } else { Ok(()) }
    }

    fn group(&mut self, what: What<'a>, nodes: &[(Place<'a>, &[(Shape, u32)])]) -> usize {
        if let Some(number) = self.known.get(&what) {
            return *number;
        }
        let number = self.groups.len();
        let domains = self.domains_of(what.key(), nodes);
        let of_node = &self.domains[domains].of_node;
        let counted: Vec<bool> = self.shapes.iter().map(|(pod, _)| what.counts(pod)).collect();
        let mut group = Group {
            what: what.clone(),
            domains,
            pods: Vec::new(),
            nodes: Vec::new(),
            looked_at: Vec::new(),
            histogram: BTreeMap::new(),
            total: 0,
        };
        for (node, (place, shapes)) in nodes.iter().enumerate() {
            group.add_node(of_node[node], what.looks_at(*place));
            let pods: u32 = shapes.iter().filter(|(shape, _)| counted[shape.index()]).map(|(_, pods)| pods).sum();
            if pods > 0 {
                group.change(node, of_node[node], |before| before.saturating_add(pods));
            }
        }
        for ((pod, asks), counted) in self.shapes.iter_mut().zip(counted) {
            if counted {
                asks.counted.push(number);
            }
            if matches!(&what, What::Carriers(term) if selects(term, pod)) {
                asks.apart.push(number);
            }
        }
        self.groups.push(group);
        self.known.insert(what, number);
        number
    }

    fn domains_of(&mut self, key: &'a str, nodes: &[(Place<'a>, &[(Shape, u32)])]) -> usize {
        if let Some(number) = self.domains.iter().position(|domains| domains.key == key) {
            return number;
        }
        let mut domains = Domains { key, numbers: BTreeMap::new(), of_node: Vec::with_capacity(nodes.len()) };
        for (place, _) in nodes {
            domains.add_node(place.labels);
        }
        self.domains.push(domains);
        self.domains.len() - 1
    }

    /// Tells whether the labels that the shape's conditions speak of are the zone's and the host's alone.
    pub(super) fn asks_about_zones_and_hosts_only(&self, shape: Shape) -> bool {
        let asks = &self.shapes[shape.index()].1;
        let groups = asks.apart.iter().chain(&asks.near).chain(asks.spread.iter().map(|(group, _)| group));
        groups.map(|group| self.domains[self.groups[*group].domains].key).all(|key| key == HOSTNAME_LABEL || key == ZONE_LABEL)
    }
}

fn selects(term: &PodAffinityTerm, other: &Pod) -> bool {
    let namespace = term.namespaces.as_ref().is_none_or(|names| names.contains(&other.key.namespace));
    namespace && term.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
}
