//! The kinds of objects that are watched, and what a change of each means.

use super::convert_node::node;
use super::convert_pod::{PodEntry, pod};
use super::convert_workload::{budget, daemon_set};
use super::store::{Index, Table};
use super::volumes::{Claim, Class, Volume, attach_limits, claim, class, volume};
use super::wire;
use crate::model::snapshot::{DaemonSet, DisruptionBudget};
use crate::model::{Node, NodeName};
use kube::Resource;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::BitOrAssign;

/// Names a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Pods,
    Nodes,
    Budgets,
    DaemonSets,
    Volumes,
    Claims,
    Classes,
    CsiNodes,
}

impl Source {
    /// Every watch there is.
    pub(super) const ALL: [Self; 8] =
        [Self::Pods, Self::Nodes, Self::Budgets, Self::DaemonSets, Self::Volumes, Self::Claims, Self::Classes, Self::CsiNodes];

    /// Tells whether nothing can be decided without it. A node whose CSI drivers are not known attaches what it likes.
    pub(super) fn is_vital(self) -> bool {
        match self {
            Self::Pods | Self::Nodes | Self::Budgets | Self::DaemonSets | Self::Volumes | Self::Claims | Self::Classes => true,
            Self::CsiNodes => false,
        }
    }

    /// Names one object of the kind.
    pub(super) fn singular(self) -> &'static str {
        match self {
            Self::Pods => "pod",
            Self::Nodes => "node",
            Self::Budgets => "disruption budget",
            Self::DaemonSets => "daemon set",
            Self::Volumes => "persistent volume",
            Self::Claims => "persistent volume claim",
            Self::Classes => "storage class",
            Self::CsiNodes => "CSI node",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if *self == Self::Classes { "es" } else { "s" };
        write!(formatter, "{}{plural}", self.singular())
    }
}

/// What a change sets off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Effect {
    /// A pod begins to want a node.
    pub(super) urgent: bool,
    /// Something changes that an operation may wait for.
    pub(super) changed: bool,
    /// Pods with claims must be reckoned anew.
    pub(super) volumes: bool,
}

impl BitOrAssign for Effect {
    fn bitor_assign(&mut self, other: Self) {
        self.urgent |= other.urgent;
        self.changed |= other.changed;
        self.volumes |= other.volumes;
    }
}

/// A kind of objects that is watched.
pub(super) trait Watched: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + 'static {
    /// Which watch it is.
    const SOURCE: Source;
    /// The objects to leave out, as a field selector.
    const FIELDS: Option<&'static str> = None;
    /// What is kept of an object.
    type Entry: PartialEq;

    /// Gives what is kept of it; `None` keeps nothing, an error says why it makes no sense.
    fn entry(self, index: &mut Index) -> Option<Result<Self::Entry, String>>;

    /// Gives the place where it is kept.
    fn table(index: &mut Index) -> &mut Table<Self::Entry>;

    /// Tells what a change from `old` to `new` sets off.
    fn effect(old: Option<&Self::Entry>, new: Option<&Self::Entry>) -> Effect;
}

impl Watched for wire::Pod {
    const SOURCE: Source = Source::Pods;
    // A pod that ends is then reported as deleted.
    const FIELDS: Option<&'static str> = Some("status.phase!=Succeeded,status.phase!=Failed");
    type Entry = PodEntry;

    fn entry(self, index: &mut Index) -> Option<Result<PodEntry, String>> {
        pod(self, &index.volumes, &mut index.interner)
    }

    fn table(index: &mut Index) -> &mut Table<PodEntry> {
        &mut index.pods
    }

    fn effect(old: Option<&PodEntry>, new: Option<&PodEntry>) -> Effect {
        let wanted_by = |entry: &PodEntry| entry.pod.wants_a_node().then(|| entry.pod.uid.clone());
        let wanted = new.and_then(wanted_by);
        Effect {
            urgent: wanted.is_some() && wanted != old.and_then(wanted_by),
            changed: old.and_then(binding) != new.and_then(binding),
            volumes: false,
        }
    }
}

/// Which node a pod is on, and whether it is leaving.
fn binding(entry: &PodEntry) -> Option<(&str, &NodeName, bool)> {
    let pod = &entry.pod;
    Some((pod.uid.as_str(), pod.node.as_ref()?, pod.terminating_since.is_some()))
}

impl Watched for wire::Node {
    const SOURCE: Source = Source::Nodes;
    type Entry = Node;

    fn entry(self, _: &mut Index) -> Option<Result<Node, String>> {
        Some(node(self))
    }

    fn table(index: &mut Index) -> &mut Table<Node> {
        &mut index.nodes
    }

    fn effect(_: Option<&Node>, _: Option<&Node>) -> Effect {
        Effect { changed: true, ..Effect::default() }
    }
}

/// Implements [`Watched`] for a kind whose changes nobody waits for.
macro_rules! quiet {
    ($wire:ty, $source:ident, $entry:ty, $read:expr, $($table:ident).+, $volumes:literal) => {
        impl Watched for $wire {
            const SOURCE: Source = Source::$source;
            type Entry = $entry;

            fn entry(self, _: &mut Index) -> Option<Result<$entry, String>> {
                Some($read(self))
            }

            fn table(index: &mut Index) -> &mut Table<$entry> {
                &mut index.$($table).+
            }

            fn effect(_: Option<&$entry>, _: Option<&$entry>) -> Effect {
                Effect { volumes: $volumes, ..Effect::default() }
            }
        }
    };
}

quiet!(wire::Budget, Budgets, DisruptionBudget, budget, budgets, false);
quiet!(wire::DaemonSet, DaemonSets, DaemonSet, daemon_set, daemon_sets, false);
quiet!(wire::PersistentVolume, Volumes, Volume, |object| Ok(volume(object)), volumes.persistent, true);
quiet!(wire::PersistentVolumeClaim, Claims, Claim, |object| Ok(claim(object)), volumes.claims, true);
quiet!(wire::StorageClass, Classes, Class, |object: Self| Ok(class(&object)), volumes.classes, true);
quiet!(wire::CsiNode, CsiNodes, BTreeMap<String, u64>, |object| Ok(attach_limits(object)), attach_limits, false);
