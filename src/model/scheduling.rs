//! What the Kubernetes scheduler asks of a node before it places a pod.

use super::ids::Zone;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Label keys and values.
pub type Labels = BTreeMap<String, String>;

/// The label that names a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// The label that names a node itself.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// The label that names a node's instance type.
pub const INSTANCE_TYPE_LABEL: &str = "node.kubernetes.io/instance-type";
/// The label that names a node's processor architecture.
pub const ARCH_LABEL: &str = "kubernetes.io/arch";
/// The label that names a node's operating system.
pub const OS_LABEL: &str = "kubernetes.io/os";
/// Gives the labels with which every kubelet on Linux registers its node: what runs on it, under today's names and under
/// those of old, by which charts still select.
#[must_use]
pub fn kubelet_labels(architecture: &str) -> [(String, String); 4] {
    let labels =
        [(ARCH_LABEL, architecture), (OS_LABEL, "linux"), ("beta.kubernetes.io/arch", architecture), ("beta.kubernetes.io/os", "linux")];
    labels.map(|(key, value)| (key.to_owned(), value.to_owned()))
}

/// The taint that Kubernetes gives to a node that is cordoned.
pub const UNSCHEDULABLE_TAINT: &str = "node.kubernetes.io/unschedulable";
/// The taint of a node that is not Ready.
pub const NOT_READY_TAINT: &str = "node.kubernetes.io/not-ready";
/// The taint of a node whose instance EC2 takes back.
pub const INTERRUPTED_TAINT: &str = "node-fleet.io/interrupted";
/// The label and the instance tag that name the pool a worker belongs to.
pub const POOL_LABEL: &str = "node-fleet.io/pool";
/// The label that says whether a node was bought as `spot` or `on-demand`.
pub const MARKET_LABEL: &str = "node-fleet.io/market";

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TaintEffect {
    /// New pods stay away.
    NoSchedule,
    /// New pods stay away if they can.
    PreferNoSchedule,
    /// New pods stay away and running ones leave.
    NoExecute,
}

/// A mark on a node that pods must tolerate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Taint {
    /// Its key.
    pub key: String,
    /// Its value; empty when it has none.
    #[serde(default)]
    pub value: String,
    /// What it does.
    pub effect: TaintEffect,
}

/// A pod's permission to sit on tainted nodes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Toleration {
    /// The key it is for; `None` (with `Exists`) is every key.
    pub key: Option<String>,
    /// The value it asks for; `None` is the operator `Exists`.
    pub value: Option<String>,
    /// The effect it is for; `None` is every effect.
    pub effect: Option<TaintEffect>,
}

impl Toleration {
    /// Tells whether it makes up for the taint.
    #[must_use]
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.effect.is_none_or(|effect| effect == taint.effect)
            && self.key.as_ref().is_none_or(|key| *key == taint.key)
            && self.value.as_ref().is_none_or(|value| *value == taint.value)
    }
}

/// One condition on a label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of its value.
    pub operator: Operator,
}

/// What a [`Requirement`] asks of a label's value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// The value is one of these.
    In(BTreeSet<String>),
    /// The label is absent, or its value is none of these.
    NotIn(BTreeSet<String>),
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The value is an integer above this.
    GreaterThan(i64),
    /// The value is an integer below this.
    LessThan(i64),
}

impl Requirement {
    /// Tells whether the labels meet it.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|text| text.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|v| values.contains(v)),
            Operator::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Operator::LessThan(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

/// Conditions on labels that must all hold. Empty, it selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(pub Vec<Requirement>);

impl Selector {
    /// Tells whether the labels meet every condition.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }
}

/// One alternative of a pod's required node affinity (or of a volume's).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeSelectorTerm {
    /// Conditions on the node's labels.
    pub labels: Selector,
    /// Conditions on `metadata.name`, with the name under that key.
    pub fields: Selector,
}

/// Where pods of a kind must, or must not, be together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PodAffinityTerm {
    /// Which pods are meant; `None` matches none of them.
    pub selector: Option<Selector>,
    /// The namespaces they live in; `None` is every namespace.
    pub namespaces: Option<BTreeSet<String>>,
    /// The node label whose equal value means "together".
    pub topology_key: String,
}

/// How evenly pods of a kind must lie over the values of a node label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SpreadConstraint {
    /// The node label whose values are counted.
    pub topology_key: String,
    /// The largest allowed difference between a value and the emptiest one.
    pub max_skew: u32,
    /// Which pods are counted, in the pod's own namespace.
    pub selector: Selector,
    /// With fewer values than this, the emptiest counts as zero.
    pub min_domains: Option<u32>,
    /// Nodes count that the pod's own node affinity does not admit (`nodeAffinityPolicy: Ignore`).
    #[serde(default)]
    pub ignores_node_affinity: bool,
    /// Nodes whose taints the pod does not tolerate do not count (`nodeTaintsPolicy: Honor`).
    #[serde(default)]
    pub honors_taints: bool,
}

/// A port of the node that a pod takes for itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostPort {
    /// The address it binds; empty or `0.0.0.0` is every address.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The number.
    pub port: u16,
}

impl HostPort {
    /// Tells whether the two cannot be on one node.
    #[must_use]
    pub fn conflicts_with(&self, other: &Self) -> bool {
        // To the scheduler `::` is an address like any other.
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0";
        self.port == other.port && self.protocol == other.protocol && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// Everything besides resources that decides where a pod may go.
///
/// Replicas of one workload share it behind an `Arc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Constraints {
    /// `nodeSelector`, as conditions.
    pub node_selector: Selector,
    /// Required node affinity: one of these must hold. Empty when the pod has none.
    pub node_affinity: Vec<NodeSelectorTerm>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Required pod affinity: all of these must hold.
    pub pod_affinity: Vec<PodAffinityTerm>,
    /// Required pod anti-affinity: none of these may hold.
    pub pod_anti_affinity: Vec<PodAffinityTerm>,
    /// Hard topology spread (`DoNotSchedule`).
    pub spread: Vec<SpreadConstraint>,
    /// Ports of the node it takes.
    pub host_ports: Vec<HostPort>,
    /// The zones that its volumes can be reached from, volume by volume.
    /// Each set must hold the node's zone.
    pub volume_zones: Vec<BTreeSet<Zone>>,
    /// Node affinity of its bound volumes beyond the zone: each volume's terms are alternatives.
    pub volume_affinity: Vec<Vec<NodeSelectorTerm>>,
    /// Constraints of this pod that node-fleet does not model, by name. Such a pod
    /// neither buys a node nor lets its own be removed.
    pub unmodelled: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn every_operator_treats_an_absent_label_as_kubernetes_does() {
        let one = || BTreeSet::from(["1".to_owned()]);
        let present = labels(&[("k", "1")]);
        let absent = labels(&[]);
        let rows = [
            (Operator::In(one()), true, false),
            (Operator::NotIn(one()), false, true),
            (Operator::Exists, true, false),
            (Operator::DoesNotExist, false, true),
            (Operator::GreaterThan(0), true, false),
            (Operator::GreaterThan(1), false, false),
            (Operator::LessThan(2), true, false),
            (Operator::LessThan(1), false, false),
        ];
        for (operator, with, without) in rows {
            let requirement = Requirement { key: "k".into(), operator };
            assert_eq!(requirement.matches(&present), with, "{requirement:?} with the label");
            assert_eq!(requirement.matches(&absent), without, "{requirement:?} without the label");
        }
    }

    #[test]
    fn a_toleration_is_as_wide_as_what_it_leaves_out() {
        let taint = Taint { key: "team".into(), value: "red".into(), effect: TaintEffect::NoSchedule };
        let toleration =
            |key: Option<&str>, value: Option<&str>, effect| Toleration { key: key.map(Into::into), value: value.map(Into::into), effect };
        assert!(toleration(None, None, None).tolerates(&taint));
        assert!(toleration(Some("team"), None, None).tolerates(&taint));
        assert!(toleration(Some("team"), Some("red"), Some(TaintEffect::NoSchedule)).tolerates(&taint));
        assert!(!toleration(Some("team"), Some("blue"), None).tolerates(&taint));
        assert!(!toleration(Some("other"), None, None).tolerates(&taint));
        assert!(!toleration(Some("team"), None, Some(TaintEffect::NoExecute)).tolerates(&taint));
    }

    #[test]
    fn host_ports_conflict_on_the_wildcard_address() {
        let port = |ip: &str, port| HostPort { ip: ip.into(), protocol: "TCP".into(), port };
        assert!(port("", 80).conflicts_with(&port("10.0.0.1", 80)));
        assert!(!port("10.0.0.2", 80).conflicts_with(&port("10.0.0.1", 80)));
        assert!(!port("", 80).conflicts_with(&port("", 81)));
    }
}
