//! Whether a pod fits a node: the scheduler's filters, as far as they decide it.
//!
//! A [`Board`] is the cluster as a plan imagines it: nodes that exist, nodes that are
//! on their way and nodes that it may buy, each with the pods that lie on it.

use crate::model::scheduling::{
    HOSTNAME_LABEL, Labels, NodeSelectorTerm, PodAffinityTerm, SpreadConstraint, Taint, TaintEffect, ZONE_LABEL,
};
use crate::model::{NodeName, Pod, Resources};
use std::borrow::Cow;
use std::collections::BTreeMap;
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
    /// What is left on it.
    pub free: Resources,
    /// The pods on it.
    pub pods: Vec<&'a Pod>,
    /// It takes new pods: Ready, not cordoned, not on its way out.
    pub open: bool,
    /// What tells it from all others where its name does not.
    hostname: String,
}

impl Bin<'_> {
    fn domain(&self, key: &str) -> Option<Cow<'_, str>> {
        if key == HOSTNAME_LABEL {
            return Some(Cow::Borrowed(&self.hostname));
        }
        self.labels.get(key).map(|value| Cow::Borrowed(value.as_str()))
    }
}

/// The cluster as a plan imagines it.
#[derive(Clone, Debug, Default)]
pub struct Board<'a> {
    bins: Vec<Bin<'a>>,
    /// Bins with a pod that has required anti-affinity: the only ones that can repel.
    repelling: Vec<(usize, &'a Pod)>,
}

impl<'a> Board<'a> {
    /// Adds a node and gives its index. `capacity` is what it holds in all.
    pub fn add(&mut self, name: Option<&'a NodeName>, labels: &'a Labels, taints: &'a [Taint], capacity: &Resources, open: bool) -> usize {
        let index = self.bins.len();
        let hostname = name.map_or_else(|| format!("new-{index}"), |name| name.as_str().to_owned());
        self.bins.push(Bin { name, labels, taints, free: capacity.clone(), pods: Vec::new(), open, hostname });
        index
    }

    /// Puts a pod on a node without asking whether it fits.
    pub fn place(&mut self, pod: &'a Pod, index: usize) {
        self.bins[index].free.subtract(&pod.requests);
        self.bins[index].pods.push(pod);
        if !pod.constraints.pod_anti_affinity.is_empty() {
            self.repelling.push((index, pod));
        }
    }

    /// Takes the node's pods away and closes it, as when it is removed.
    pub fn clear(&mut self, index: usize) -> Vec<&'a Pod> {
        self.repelling.retain(|(at, _)| *at != index);
        self.bins[index].open = false;
        std::mem::take(&mut self.bins[index].pods)
    }

    /// Drops the nodes from `length` on, none of which may hold a pod of an earlier one.
    pub fn truncate(&mut self, length: usize) {
        self.repelling.retain(|(at, _)| *at < length);
        self.bins.truncate(length);
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

    /// Finds the first open node from `from` on that takes the pod.
    #[must_use]
    pub fn first_fit(&self, pod: &Pod, from: usize) -> Option<usize> {
        (from..self.bins.len()).find(|index| self.bins[*index].open && self.fits(pod, *index).is_ok())
    }

    /// Finds the open node with the most free CPU that takes the pod.
    #[must_use]
    pub fn emptiest_fit(&self, pod: &Pod) -> Option<usize> {
        let open = (0..self.bins.len()).filter(|index| self.bins[*index].open && self.fits(pod, *index).is_ok());
        open.max_by_key(|index| (self.bins[*index].free.cpu, std::cmp::Reverse(*index)))
    }

    /// Tells whether the pod fits the node.
    ///
    /// # Errors
    /// The first filter that refuses it.
    pub fn fits(&self, pod: &Pod, index: usize) -> Result<(), Misfit> {
        let bin = &self.bins[index];
        let constraints = &*pod.constraints;
        if !pod.requests.fits_in(&bin.free) {
            return Err(Misfit::Resources(pod.requests.shortages(&bin.free)));
        }
        node_accepts(pod, bin.name, bin.labels, bin.taints)?;
        for wanted in &constraints.host_ports {
            if bin.pods.iter().any(|other| other.constraints.host_ports.iter().any(|taken| taken.conflicts_with(wanted))) {
                return Err(Misfit::HostPort(wanted.port));
            }
        }
        self.affinity(pod, index)?;
        constraints.spread.iter().try_for_each(|spread| self.spread(pod, index, spread))
    }

    fn affinity(&self, pod: &Pod, index: usize) -> Result<(), Misfit> {
        for term in &pod.constraints.pod_anti_affinity {
            if self.near(index, term) {
                return Err(Misfit::PodAntiAffinity);
            }
        }
        let here = |key: &str| self.bins[index].domain(key);
        for (at, other) in &self.repelling {
            let repels = other.constraints.pod_anti_affinity.iter().any(|term| {
                let together = here(&term.topology_key).is_some_and(|value| self.bins[*at].domain(&term.topology_key) == Some(value));
                together && selects(term, pod)
            });
            if repels {
                return Err(Misfit::PodAntiAffinity);
            }
        }
        for term in &pod.constraints.pod_affinity {
            if here(&term.topology_key).is_none() {
                return Err(Misfit::PodAffinity);
            }
            // The first pod of a group that wants to be together has nobody to be near.
            let first_of_its_kind = selects(term, pod) && !self.bins.iter().flat_map(|bin| &bin.pods).any(|other| selects(term, other));
            if !first_of_its_kind && !self.near(index, term) {
                return Err(Misfit::PodAffinity);
            }
        }
        Ok(())
    }

    fn near(&self, index: usize, term: &PodAffinityTerm) -> bool {
        let Some(value) = self.bins[index].domain(&term.topology_key) else { return false };
        let holds = |bin: &Bin<'_>| bin.pods.iter().any(|other| selects(term, other));
        if term.topology_key == HOSTNAME_LABEL {
            return holds(&self.bins[index]);
        }
        self.bins.iter().any(|bin| bin.domain(&term.topology_key).as_ref() == Some(&value) && holds(bin))
    }

    fn spread(&self, pod: &Pod, index: usize, spread: &SpreadConstraint) -> Result<(), Misfit> {
        let refused = || Misfit::Spread(spread.topology_key.clone());
        let here = self.bins[index].domain(&spread.topology_key).ok_or_else(refused)?;
        let mut counts: BTreeMap<Cow<'_, str>, u32> = BTreeMap::new();
        for bin in &self.bins {
            let Some(value) = bin.domain(&spread.topology_key) else { continue };
            // Only nodes that the pod's own node affinity admits count as places to be.
            if selector_accepts(pod, bin.name, bin.labels).is_err() {
                continue;
            }
            let alike = bin.pods.iter().filter(|other| {
                other.key.namespace == pod.key.namespace && other.terminating_since.is_none() && spread.selector.matches(&other.labels)
            });
            let count = u32::try_from(alike.count()).unwrap_or(u32::MAX);
            let sum = counts.entry(value).or_default();
            *sum = sum.saturating_add(count);
        }
        let domains = u32::try_from(counts.len()).unwrap_or(u32::MAX);
        let emptiest =
            if spread.min_domains.is_some_and(|least| domains < least) { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let own = u32::from(spread.selector.matches(&pod.labels));
        let skew = (counts.get(&here).copied().unwrap_or(0) + own).saturating_sub(emptiest);
        if skew > spread.max_skew { Err(refused()) } else { Ok(()) }
    }
}

/// Tells whether a node with these labels and taints accepts the pod, its other pods and its load left aside.
///
/// # Errors
/// The first filter that refuses it.
pub fn node_accepts(pod: &Pod, name: Option<&NodeName>, labels: &Labels, taints: &[Taint]) -> Result<(), Misfit> {
    if let Some(what) = pod.constraints.unmodelled.first() {
        return Err(Misfit::Unmodelled(what.clone()));
    }
    for taint in taints {
        match taint.effect {
            TaintEffect::PreferNoSchedule => {}
            TaintEffect::NoSchedule | TaintEffect::NoExecute => {
                if !pod.constraints.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
                    return Err(Misfit::Taint(taint.clone()));
                }
            }
        }
    }
    selector_accepts(pod, name, labels)?;
    let zone = labels.get(ZONE_LABEL);
    let reachable = pod.constraints.volume_zones.iter().all(|zones| zone.is_some_and(|zone| zones.contains(zone.as_str())));
    let attachable = pod.constraints.volume_affinity.iter().all(|terms| any_term(terms, name, labels));
    if reachable && attachable { Ok(()) } else { Err(Misfit::Volume) }
}

fn selector_accepts(pod: &Pod, name: Option<&NodeName>, labels: &Labels) -> Result<(), Misfit> {
    if !pod.constraints.node_selector.matches(labels) {
        return Err(Misfit::NodeSelector);
    }
    let affinity = &pod.constraints.node_affinity;
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

fn selects(term: &PodAffinityTerm, other: &Pod) -> bool {
    let namespace = term.namespaces.as_ref().is_none_or(|names| names.contains(&other.key.namespace));
    namespace && other.terminating_since.is_none() && term.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
}
