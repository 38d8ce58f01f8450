//! From which nodes a pod's volumes can be reached, and how many of them a node attaches.

use super::selectors::{node_terms, nothing};
use super::store::Table;
use super::wire::{CsiNode, PersistentVolume, PersistentVolumeClaim, StorageClass};
use crate::model::resources::ATTACHABLE_VOLUMES;
use crate::model::scheduling::{Constraints, NodeSelectorTerm, Operator, Requirement, Selector, ZONE_LABEL};
use crate::model::{PodKey, Zone};
use k8s_openapi::api::core::v1::TopologySelectorTerm;
use std::collections::{BTreeMap, BTreeSet};

/// Labels whose value is the zone. The CSI driver of EBS has its own, which a node that does not
/// exist yet does not carry.
const ZONE_LABELS: [&str; 3] = [ZONE_LABEL, "topology.ebs.csi.aws.com/zone", "failure-domain.beta.kubernetes.io/zone"];
/// Labels whose value is the region. A zone says more.
const REGION_LABELS: [&str; 2] = ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"];
/// The driver of the volumes that Kubernetes once managed itself, which it hands to the driver's successor.
const EBS_DRIVER: &str = "ebs.csi.aws.com";
/// The name that such a class calls its provisioner.
const IN_TREE_EBS: &str = "kubernetes.io/aws-ebs";
/// The provisioner of classes whose volumes someone makes by hand.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// From where a volume can be reached.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reach {
    /// From every node.
    Anywhere,
    /// From nodes in one of these zones.
    Zones(BTreeSet<Zone>),
    /// From nodes that meet one of these terms.
    Terms(Vec<NodeSelectorTerm>),
    /// That cannot be told.
    Unknown(String),
}

/// A volume: from where it can be reached, and which CSI driver attaches it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Volume {
    reach: Reach,
    driver: Option<String>,
}

/// A claim: what it is bound to, or of which class it will be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    volume: Option<String>,
    class: Option<String>,
}

/// A storage class.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Class {
    /// It binds a claim only when its pod has a node.
    waits: bool,
    /// It makes volumes on demand.
    provisions: bool,
    reach: Reach,
    /// The CSI driver that attaches its volumes, as far as the provisioner's name tells.
    driver: Option<String>,
}

/// Persistent volumes, claims and storage classes.
#[derive(Debug, Default)]
pub(super) struct Volumes {
    pub(super) persistent: Table<Volume>,
    pub(super) claims: Table<Claim>,
    pub(super) classes: Table<Class>,
}

impl Volumes {
    /// Adds to a pod's constraints what its claims ask.
    pub(super) fn constrain(&self, namespace: &str, claims: &[String], base: &Constraints) -> Constraints {
        let mut constraints = base.clone();
        for claim in claims {
            match self.reach_of(namespace, claim) {
                Reach::Anywhere => {}
                Reach::Zones(zones) => constraints.volume_zones.push(zones),
                Reach::Terms(terms) => constraints.volume_affinity.push(terms),
                Reach::Unknown(why) => constraints.unmodelled.push(format!("claim `{claim}`: {why}")),
            }
        }
        constraints
    }

    /// Counts the volumes that a pod attaches, by the resource that stands for their driver.
    ///
    /// Two pods that share one volume count it twice, where the scheduler counts it once on a node: a node is
    /// then taken to hold too few of them, never too many.
    pub(super) fn attachments(&self, namespace: &str, claims: &[String]) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for driver in claims.iter().filter_map(|claim| self.driver_of(namespace, claim)) {
            *counts.entry(attachable(driver)).or_insert(0) += 1;
        }
        counts
    }

    fn driver_of(&self, namespace: &str, name: &str) -> Option<&str> {
        let claim = self.claims.get(&PodKey { namespace: namespace.to_owned(), name: name.to_owned() })?;
        match (&claim.volume, &claim.class) {
            (Some(volume), _) => self.persistent.get(&cluster_wide(volume))?.driver.as_deref(),
            (None, Some(class)) => self.classes.get(&cluster_wide(class))?.driver.as_deref(),
            (None, None) => None,
        }
    }

    fn reach_of(&self, namespace: &str, name: &str) -> Reach {
        let Some(claim) = self.claims.get(&PodKey { namespace: namespace.to_owned(), name: name.to_owned() }) else {
            return Reach::Unknown("it does not exist".to_owned());
        };
        if let Some(volume) = &claim.volume {
            return match self.persistent.get(&cluster_wide(volume)) {
                Some(volume) => volume.reach.clone(),
                None => Reach::Unknown(format!("no volume `{volume}`")),
            };
        }
        let Some(class) = &claim.class else {
            return Reach::Unknown("it is unbound and of no class".to_owned());
        };
        match self.classes.get(&cluster_wide(class)) {
            None => Reach::Unknown(format!("no storage class `{class}`")),
            Some(found) if !found.provisions => Reach::Unknown(format!("class `{class}` makes no volumes")),
            Some(found) if !found.waits => Reach::Unknown(format!("class `{class}` has not bound it yet")),
            Some(found) => found.reach.clone(),
        }
    }
}

fn cluster_wide(name: &str) -> PodKey {
    PodKey { namespace: String::new(), name: name.to_owned() }
}

/// Names the resource that stands for the volumes of a driver on a node.
fn attachable(driver: &str) -> String {
    format!("{ATTACHABLE_VOLUMES}{driver}")
}

/// Reads how many volumes of each driver a node attaches. A driver that names no number sets no limit.
pub(super) fn attach_limits(object: CsiNode) -> BTreeMap<String, u64> {
    let drivers = object.spec.and_then(|spec| spec.drivers).unwrap_or_default();
    let limit = |driver: super::wire::CsiDriver| {
        let most = u64::try_from(driver.allocatable?.count?).ok()?;
        Some((attachable(&driver.name?), most))
    };
    drivers.into_iter().filter_map(limit).collect()
}

/// Reads a volume.
pub(super) fn volume(object: PersistentVolume) -> Volume {
    let spec = object.spec.unwrap_or_default();
    let of_ebs = spec.aws_elastic_block_store.map(|_| EBS_DRIVER.to_owned());
    let driver = spec.csi.and_then(|source| source.driver).or(of_ebs);
    if let Some(required) = spec.node_affinity.and_then(|affinity| affinity.required) {
        let reach = match node_terms(&required) {
            Ok(terms) => reach(terms),
            Err(why) => Reach::Unknown(why),
        };
        return Volume { reach, driver };
    }
    // Volumes from before node affinity carry their zones as a label, joined by two underscores.
    let labels = object.metadata.labels.unwrap_or_default();
    let reach = match ZONE_LABELS.iter().find_map(|label| labels.get(*label)) {
        Some(zones) => Reach::Zones(zones.split("__").map(Zone::from).collect()),
        None => Reach::Anywhere,
    };
    Volume { reach, driver }
}

/// Reads a claim.
pub(super) fn claim(object: PersistentVolumeClaim) -> Claim {
    let spec = object.spec.unwrap_or_default();
    let named = |name: Option<String>| name.filter(|name| !name.is_empty());
    Claim { volume: named(spec.volume_name), class: named(spec.storage_class_name) }
}

/// Reads a storage class.
pub(super) fn class(object: &StorageClass) -> Class {
    let provisioner = object.provisioner.as_deref();
    let topologies = object.allowed_topologies.as_deref().unwrap_or_default();
    Class {
        waits: object.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
        provisions: provisioner != Some(NO_PROVISIONER),
        driver: match provisioner {
            Some(NO_PROVISIONER) | None => None,
            Some(IN_TREE_EBS) => Some(EBS_DRIVER.to_owned()),
            Some(driver) => Some(driver.to_owned()),
        },
        reach: if topologies.is_empty() { Reach::Anywhere } else { reach(topologies.iter().map(topology_term).collect()) },
    }
}

fn topology_term(term: &TopologySelectorTerm) -> NodeSelectorTerm {
    let expressions = term.match_label_expressions.iter().flatten();
    let labels = expressions.map(|e| Requirement { key: e.key.clone(), operator: Operator::In(e.values.iter().cloned().collect()) });
    let labels = Selector(labels.collect());
    NodeSelectorTerm { labels: if labels.0.is_empty() { nothing() } else { labels }, fields: Selector::default() }
}

/// Puts terms into the simplest form: a set of zones where they speak of nothing else.
fn reach(mut terms: Vec<NodeSelectorTerm>) -> Reach {
    terms.iter_mut().for_each(simplify);
    match terms.iter().map(only_zones).collect::<Option<Vec<_>>>() {
        Some(zones) => Reach::Zones(zones.into_iter().flatten().map(|zone| Zone::from(zone.as_str())).collect()),
        None => Reach::Terms(terms),
    }
}

/// Gives every label for the zone its common name, and leaves the region out where there is a zone.
fn simplify(term: &mut NodeSelectorTerm) {
    let labels = &mut term.labels.0;
    for requirement in labels.iter_mut() {
        if ZONE_LABELS.contains(&requirement.key.as_str()) {
            ZONE_LABEL.clone_into(&mut requirement.key);
        }
    }
    labels.sort();
    labels.dedup();
    if labels.iter().any(|r| r.key == ZONE_LABEL && matches!(r.operator, Operator::In(_))) {
        labels.retain(|r| !REGION_LABELS.contains(&r.key.as_str()));
    }
}

fn only_zones(term: &NodeSelectorTerm) -> Option<&BTreeSet<String>> {
    match (term.labels.0.as_slice(), term.fields.0.as_slice()) {
        ([Requirement { key, operator: Operator::In(zones) }], []) if key == ZONE_LABEL => Some(zones),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn volume_with(terms: &Value) -> Reach {
        let object = json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
        volume(serde_json::from_value(object).expect("a volume")).reach
    }

    fn is_in(key: &str, values: &[&str]) -> Value {
        json!({"key": key, "operator": "In", "values": values})
    }

    fn zones(names: &[&str]) -> Reach {
        Reach::Zones(names.iter().map(|name| Zone::from(*name)).collect())
    }

    fn volumes() -> Volumes {
        let mut volumes = Volumes::default();
        let claim_of = |spec: Value| claim(serde_json::from_value(json!({"spec": spec})).expect("a claim"));
        let class_of = |class_json: Value| class(&serde_json::from_value(class_json).expect("a class"));
        let named = |name: &str| PodKey { namespace: "n".into(), name: name.into() };
        volumes.persistent.insert(cluster_wide("pv"), Volume { reach: zones(&["a"]), driver: Some(EBS_DRIVER.to_owned()) });
        volumes.claims.insert(named("bound"), claim_of(json!({"volumeName": "pv", "storageClassName": "late"})));
        volumes.claims.insert(named("lost"), claim_of(json!({"volumeName": "gone"})));
        volumes.claims.insert(named("classless"), claim_of(json!({"storageClassName": ""})));
        for name in ["late", "late-zoned", "at-once", "by-hand", "missing"] {
            volumes.claims.insert(named(name), claim_of(json!({"storageClassName": name})));
        }
        let wait = "WaitForFirstConsumer";
        let topologies = json!([{"matchLabelExpressions": [{"key": ZONE_LABEL, "values": ["a", "b"]}]}]);
        for (name, object) in [
            ("late", json!({"provisioner": "p", "volumeBindingMode": wait})),
            ("late-zoned", json!({"provisioner": "p", "volumeBindingMode": wait, "allowedTopologies": topologies})),
            ("at-once", json!({"provisioner": "p", "volumeBindingMode": "Immediate"})),
            ("by-hand", json!({"provisioner": NO_PROVISIONER, "volumeBindingMode": wait})),
        ] {
            volumes.classes.insert(cluster_wide(name), class_of(object));
        }
        volumes
    }

    #[test]
    fn an_affinity_to_zones_alone_becomes_a_set_of_zones() {
        let ebs = "topology.ebs.csi.aws.com/zone";
        for (terms, expected) in [
            (json!([{"matchExpressions": [is_in(ZONE_LABEL, &["a"])]}]), &["a"][..]),
            (json!([{"matchExpressions": [is_in(ebs, &["a"])]}, {"matchExpressions": [is_in(ZONE_LABEL, &["b"])]}]), &["a", "b"]),
            (json!([{"matchExpressions": [is_in(ebs, &["a"]), is_in(ZONE_LABEL, &["a"])]}]), &["a"]),
            (json!([{"matchExpressions": [is_in(ZONE_LABEL, &["a"]), is_in(REGION_LABELS[0], &["r"])]}]), &["a"]),
        ] {
            assert_eq!(volume_with(&terms), zones(expected), "{terms}");
        }
    }

    #[test]
    fn a_local_volume_keeps_its_terms() {
        let reach = volume_with(&json!([{"matchExpressions": [is_in("kubernetes.io/hostname", &["w1"])]}]));
        assert!(matches!(reach, Reach::Terms(terms) if terms.len() == 1));
    }

    #[test]
    fn an_old_volume_is_zoned_by_its_label() {
        let object = json!({"metadata": {"labels": {"failure-domain.beta.kubernetes.io/zone": "a__b"}}});
        assert_eq!(volume(serde_json::from_value(object).expect("a volume")).reach, zones(&["a", "b"]));
        assert_eq!(volume(PersistentVolume::default()), Volume { reach: Reach::Anywhere, driver: None });
    }

    #[test]
    fn a_claim_asks_for_what_its_volume_or_class_can_reach() {
        let volumes = volumes();
        let constraints = volumes.constrain("n", &["bound".into(), "late".into(), "late-zoned".into()], &Constraints::default());
        assert_eq!(constraints.volume_zones, [BTreeSet::from([Zone::from("a")]), BTreeSet::from([Zone::from("a"), Zone::from("b")])]);
        assert!(constraints.volume_affinity.is_empty() && constraints.unmodelled.is_empty());
    }

    #[test]
    fn volumes_are_counted_by_the_driver_that_attaches_them() {
        let volumes = volumes();
        let claims = ["bound", "late", "late-zoned", "by-hand", "classless", "absent"].map(str::to_owned);
        let expected = [("attachable-volumes-csi-ebs.csi.aws.com".to_owned(), 1), ("attachable-volumes-csi-p".to_owned(), 2)];
        assert_eq!(volumes.attachments("n", &claims), expected.into());
        for (spec, driver) in [
            (json!({"csi": {"driver": "efs.csi.aws.com"}}), Some("efs.csi.aws.com")),
            (json!({"awsElasticBlockStore": {"volumeID": "vol-1"}}), Some(EBS_DRIVER)),
            (json!({"local": {"path": "/data"}}), None),
        ] {
            let read = volume(serde_json::from_value(json!({"spec": spec})).expect("a volume"));
            assert_eq!(read.driver.as_deref(), driver, "{spec}");
        }
        let in_tree: StorageClass = serde_json::from_value(json!({"provisioner": IN_TREE_EBS})).expect("a class");
        assert_eq!(class(&in_tree).driver.as_deref(), Some(EBS_DRIVER));
    }

    #[test]
    fn a_node_attaches_as_many_as_its_drivers_say() {
        let drivers = json!([
            {"name": "a", "nodeID": "n", "allocatable": {"count": 25}}, {"name": "b", "nodeID": "n"},
            {"name": "c", "nodeID": "n", "allocatable": {"count": -1}}, {"name": "d", "nodeID": "n", "allocatable": {"count": 0}},
        ]);
        let limits = attach_limits(serde_json::from_value(json!({"spec": {"drivers": drivers}})).expect("a CSI node"));
        assert_eq!(limits, [("attachable-volumes-csi-a".to_owned(), 25), ("attachable-volumes-csi-d".to_owned(), 0)].into());
    }

    #[test]
    fn a_claim_that_cannot_be_placed_is_unmodelled_by_name() {
        let volumes = volumes();
        for name in ["absent", "lost", "classless", "at-once", "by-hand", "missing"] {
            let constraints = volumes.constrain("n", &[name.to_owned()], &Constraints::default());
            assert!(matches!(constraints.unmodelled.as_slice(), [why] if why.contains(name)), "{name}: {constraints:?}");
        }
    }
}
