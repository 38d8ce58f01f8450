//! The parts of Kubernetes objects that are decoded at all.
//!
//! Managed fields, images, environments and most annotations are several times as
//! large as what a decision needs. They are skipped while the JSON is read, so
//! that a page of a list never stands in memory in full.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::core::v1::{
    Affinity, ContainerPort, NodeCondition, PodCondition, ResourceRequirements, Taint, Toleration, TopologySelectorTerm,
    TopologySpreadConstraint, VolumeNodeAffinity,
};
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::storage::v1 as storage;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// Names the operation that cordoned a node.
pub(super) const CORDONED_BY: &str = "node-fleet.io/cordoned-by";
/// Says that the node had been cordoned by someone else before.
pub(super) const WAS_CORDONED: &str = "node-fleet.io/was-cordoned";
/// Annotations that forbid a node's removal.
pub(super) const KEEP_NODE: [&str; 3] =
    ["node-fleet.io/do-not-remove", "cluster-autoscaler.kubernetes.io/scale-down-disabled", "karpenter.sh/do-not-disrupt"];
/// Annotations that forbid a pod's eviction.
pub(super) const KEEP_POD: [&str; 2] = ["node-fleet.io/do-not-disrupt", "karpenter.sh/do-not-disrupt"];
/// Allows or forbids a pod's eviction.
pub(super) const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
/// Marks a node's static pod.
pub(super) const MIRROR: &str = "kubernetes.io/config.mirror";

/// Tells whether an annotation is kept.
fn is_kept(annotation: &str) -> bool {
    [CORDONED_BY, WAS_CORDONED, SAFE_TO_EVICT, MIRROR].contains(&annotation)
        || KEEP_NODE.contains(&annotation)
        || KEEP_POD.contains(&annotation)
}

/// Declares an object of the API server with the fields that are decoded.
macro_rules! object {
    ($(#[$doc:meta])* $name:ident is $kubernetes:ty { $($field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name {
            #[serde(default, deserialize_with = "trimmed")]
            pub(super) metadata: ObjectMeta,
            $(pub(super) $field: Option<$type>,)*
        }

        impl Resource for $name {
            type DynamicType = ();
            type Scope = <$kubernetes as Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$kubernetes as Resource>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$kubernetes as Resource>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$kubernetes as Resource>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$kubernetes as Resource>::plural(&())
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// Declares a part of an object with the fields that are decoded.
macro_rules! part {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub(super) struct $name {
            $($(#[$attribute])* pub(super) $field: Option<$type>,)*
        }
    };
}

object!(
    /// A pod.
    Pod is core::Pod { spec: PodSpec, status: PodStatus }
);
part!(
    /// What a pod asks for.
    PodSpec {
        affinity: Affinity,
        containers: Vec<Container>,
        host_network: bool,
        init_containers: Vec<Container>,
        node_name: String,
        node_selector: BTreeMap<String, String>,
        overhead: BTreeMap<String, Quantity>,
        preemption_policy: String,
        priority: i32,
        resource_claims: Vec<IgnoredAny>,
        resources: ResourceRequirements,
        scheduling_gates: Vec<IgnoredAny>,
        scheduling_group: IgnoredAny,
        tolerations: Vec<Toleration>,
        topology_spread_constraints: Vec<TopologySpreadConstraint>,
        volumes: Vec<Volume>,
    }
);
part!(
    /// One container of a pod.
    Container { name: String, ports: Vec<ContainerPort>, resources: ResourceRequirements, restart_policy: String }
);
part!(
    /// One volume of a pod.
    Volume { name: String, persistent_volume_claim: ClaimSource, ephemeral: IgnoredAny, aws_elastic_block_store: IgnoredAny }
);
part!(
    /// The claim that a volume stands for.
    ClaimSource { claim_name: String }
);
part!(
    /// How a pod fares.
    PodStatus {
        phase: String,
        conditions: Vec<PodCondition>,
        container_statuses: Vec<ContainerStatus>,
        init_container_statuses: Vec<ContainerStatus>,
        nominated_node_name: String,
    }
);
part!(
    /// What a container has on its node: until a resize in place is over it is not what it asks for.
    ContainerStatus { name: String, allocated_resources: BTreeMap<String, Quantity>, resources: ResourceRequirements }
);

object!(
    /// A node.
    Node is core::Node { spec: NodeSpec, status: NodeStatus }
);
part!(
    /// What a node is meant to be.
    NodeSpec {
        #[serde(rename = "providerID")]
        provider_id: String,
        taints: Vec<Taint>,
        unschedulable: bool,
    }
);
part!(
    /// How a node fares.
    NodeStatus { allocatable: BTreeMap<String, Quantity>, conditions: Vec<NodeCondition> }
);

object!(
    /// A pod disruption budget.
    Budget is policy::PodDisruptionBudget { spec: BudgetSpec, status: BudgetStatus }
);
part!(
    /// Which pods a budget speaks of.
    BudgetSpec { selector: LabelSelector }
);
part!(
    /// What a budget allows now.
    BudgetStatus { disruptions_allowed: i64, observed_generation: i64 }
);

object!(
    /// A daemon set.
    DaemonSet is apps::DaemonSet { spec: DaemonSetSpec }
);
part!(
    /// What a daemon set makes.
    DaemonSetSpec { template: PodTemplate }
);
part!(
    /// The pods of a daemon set.
    PodTemplate { metadata: TemplateMeta, spec: PodSpec }
);
part!(
    /// The metadata of a daemon set's pods.
    TemplateMeta { labels: BTreeMap<String, String> }
);

object!(
    /// A persistent volume.
    PersistentVolume is core::PersistentVolume { spec: PersistentVolumeSpec }
);
part!(
    /// From where a volume can be reached, and who attaches it.
    PersistentVolumeSpec { aws_elastic_block_store: IgnoredAny, csi: CsiSource, node_affinity: VolumeNodeAffinity }
);
part!(
    /// The CSI driver of a volume.
    CsiSource { driver: String }
);

object!(
    /// What the CSI drivers on a node say.
    CsiNode is storage::CSINode { spec: CsiNodeSpec }
);
part!(
    /// The CSI drivers on a node.
    CsiNodeSpec { drivers: Vec<CsiDriver> }
);
part!(
    /// One of them.
    CsiDriver { name: String, allocatable: CsiAllocatable }
);
part!(
    /// How many volumes it attaches.
    CsiAllocatable { count: i64 }
);

object!(
    /// A persistent volume claim.
    PersistentVolumeClaim is core::PersistentVolumeClaim { spec: PersistentVolumeClaimSpec }
);
part!(
    /// What a claim is bound to, or of which class it will be.
    PersistentVolumeClaimSpec { volume_name: String, storage_class_name: String }
);

object!(
    /// A storage class.
    StorageClass is storage::StorageClass {
        allowed_topologies: Vec<TopologySelectorTerm>,
        provisioner: String,
        volume_binding_mode: String,
    }
);

part!(
    /// The metadata that is kept.
    Meta {
        annotations: Annotations,
        creation_timestamp: Time,
        deletion_grace_period_seconds: i64,
        deletion_timestamp: Time,
        generation: i64,
        labels: BTreeMap<String, String>,
        name: String,
        namespace: String,
        owner_references: Vec<OwnerReference>,
        resource_version: String,
        uid: String,
    }
);

/// Reads an object's metadata without what nobody asks for.
fn trimmed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let meta = Option::<Meta>::deserialize(deserializer)?.unwrap_or_default();
    Ok(ObjectMeta {
        annotations: meta.annotations.map(|kept| kept.0),
        creation_timestamp: meta.creation_timestamp,
        deletion_grace_period_seconds: meta.deletion_grace_period_seconds,
        deletion_timestamp: meta.deletion_timestamp,
        generation: meta.generation,
        labels: meta.labels,
        name: meta.name,
        namespace: meta.namespace,
        owner_references: meta.owner_references,
        resource_version: meta.resource_version,
        uid: meta.uid,
        ..ObjectMeta::default()
    })
}

/// The annotations that mean something to node-fleet.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Annotations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Kept;

        impl<'de> Visitor<'de> for Kept {
            type Value = Annotations;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map of annotations")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Annotations, A::Error> {
                let mut kept = BTreeMap::new();
                while let Some(key) = map.next_key::<String>()? {
                    if is_kept(&key) {
                        kept.insert(key, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(Annotations(kept))
            }
        }

        deserializer.deserialize_map(Kept)
    }
}

/// Gives an annotation's value.
pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keeps_only_what_a_decision_needs_of_the_metadata() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "long", SAFE_TO_EVICT: "false"},
                "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:metadata": {}}}],
            },
            "spec": {"containers": null, "nodeName": "w1"},
        }))
        .expect("a pod");
        assert_eq!(annotation(&pod.metadata, SAFE_TO_EVICT), Some("false"));
        assert_eq!(pod.metadata.annotations.as_ref().map(BTreeMap::len), Some(1));
        assert_eq!(pod.metadata.managed_fields, None);
        assert_eq!(pod.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(pod.spec.and_then(|spec| spec.node_name).as_deref(), Some("w1"));
    }

    #[test]
    fn asks_for_the_same_addresses_as_the_full_types() {
        assert_eq!(Pod::url_path(&(), None), core::Pod::url_path(&(), None));
        assert_eq!(Budget::url_path(&(), None), policy::PodDisruptionBudget::url_path(&(), None));
        assert_eq!(StorageClass::url_path(&(), None), "/apis/storage.k8s.io/v1/storageclasses");
    }

    #[test]
    fn reads_the_provider_id_under_its_odd_name() {
        let node: Node = serde_json::from_value(json!({"spec": {"providerID": "aws:///z/i-1"}})).expect("a node");
        assert_eq!(node.spec.and_then(|spec| spec.provider_id).as_deref(), Some("aws:///z/i-1"));
    }
}
