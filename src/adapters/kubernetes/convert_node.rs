//! Makes the model's nodes from Kubernetes' nodes.

use super::requests::resources;
use super::scheduling::effect;
use super::wire::{self, CORDONED_BY, KEEP_NODE, annotation};
use crate::model::node::instance_of_provider_id;
use crate::model::scheduling::{INTERRUPTED_TAINT, Labels, Taint};
use crate::model::{Node, NodeName, Readiness};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{self as core, NodeCondition};

/// Roles of servers. A node that has one is never touched.
const SERVER_ROLES: [&str; 3] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master", "node-role.kubernetes.io/etcd"];

/// Taints that Kubernetes or node-fleet puts on a node for what [`Node`] says besides (it is cordoned, not Ready, or
/// leaves), or for the moment in which its network comes up. Pressure is none of these: such a node is Ready, and its
/// taint is all that keeps pods away.
const PASSING_TAINTS: [&str; 5] = [
    "node.kubernetes.io/unschedulable",
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
    "node.kubernetes.io/network-unavailable",
    INTERRUPTED_TAINT,
];

/// Reads a node.
///
/// # Errors
/// When it offers an amount that makes no sense.
pub(super) fn node(object: wire::Node) -> Result<Node, String> {
    let meta = object.metadata;
    let spec = object.spec.unwrap_or_default();
    let status = object.status.unwrap_or_default();
    let created = meta.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let keep = KEEP_NODE.into_iter().find(|name| annotation(&meta, name) == Some("true")).map(str::to_owned);
    let cordoned_by = annotation(&meta, CORDONED_BY).map(str::to_owned);
    let labels: Labels = meta.labels.unwrap_or_default();
    Ok(Node {
        name: NodeName::new(meta.name.unwrap_or_default()),
        uid: meta.uid.unwrap_or_default(),
        instance: spec.provider_id.as_deref().and_then(instance_of_provider_id),
        control_plane: SERVER_ROLES.iter().any(|role| labels.contains_key(*role)),
        labels,
        taints: spec.taints.into_iter().flatten().filter_map(lasting_taint).collect(),
        cordoned: spec.unschedulable == Some(true),
        cordoned_by,
        readiness: readiness(status.conditions.as_deref().unwrap_or_default(), created),
        allocatable: resources(status.allocatable.iter().flatten()).map_err(|error| format!("allocatable {error}"))?,
        created,
        keep,
    })
}

fn lasting_taint(taint: core::Taint) -> Option<Taint> {
    if PASSING_TAINTS.contains(&taint.key.as_str()) {
        return None;
    }
    Some(Taint { effect: effect(&taint.effect)?, key: taint.key, value: taint.value.unwrap_or_default() })
}

fn readiness(conditions: &[NodeCondition], created: Timestamp) -> Readiness {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let since = ready.and_then(|condition| condition.last_transition_time.as_ref()).map_or(created, |time| time.0);
    if ready.is_some_and(|condition| condition.status == "True") { Readiness::Ready { since } } else { Readiness::NotReady { since } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scheduling::TaintEffect;
    use crate::model::{Bytes, MilliCpu};
    use serde_json::{Value, json};

    fn read(object: Value) -> Node {
        node(serde_json::from_value(object).expect("a node")).expect("a sound node")
    }

    #[test]
    fn reads_a_worker() {
        let node = read(json!({
            "metadata": {
                "name": "w1", "uid": "u1", "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"topology.kubernetes.io/zone": "eu-central-1a", "node-fleet.io/pool": "general"},
                "annotations": {CORDONED_BY: "op-1", "cluster-autoscaler.kubernetes.io/scale-down-disabled": "true"},
            },
            "spec": {"providerID": "aws:///eu-central-1a/i-0abc1234", "unschedulable": true},
            "status": {
                "allocatable": {"cpu": "3920m", "memory": "7Gi", "pods": "110", "ephemeral-storage": "50Gi", "hugepages-1Gi": "0"},
                "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"}],
            },
        }));
        assert_eq!(node.instance, Some("i-0abc1234".into()));
        assert_eq!(node.zone(), Some("eu-central-1a".into()));
        assert_eq!((node.cordoned, node.cordoned_by.as_deref(), node.control_plane), (true, Some("op-1"), false));
        assert_eq!(node.keep.as_deref(), Some("cluster-autoscaler.kubernetes.io/scale-down-disabled"));
        assert_eq!((node.allocatable.cpu, node.allocatable.memory, node.allocatable.pods), (MilliCpu(3920), Bytes(7 << 30), 110));
        assert!(node.allocatable.extended.is_empty());
        assert_eq!(node.readiness, Readiness::Ready { since: "2026-01-01T00:01:00Z".parse().expect("a time") });
    }

    #[test]
    fn a_node_is_ready_only_when_it_says_so() {
        let created = "2026-01-01T00:00:00Z";
        for conditions in [json!([]), json!([{"type": "Ready", "status": "Unknown"}]), json!([{"type": "Other", "status": "True"}])] {
            let node = read(json!({"metadata": {"creationTimestamp": created}, "status": {"conditions": conditions}}));
            assert_eq!(node.readiness, Readiness::NotReady { since: created.parse().expect("a time") });
        }
    }

    #[test]
    fn drops_the_taints_that_pass_and_keeps_the_others() {
        let taint = |key: &str, effect: &str| json!({"key": key, "effect": effect});
        let node = read(json!({"spec": {"taints": [
            taint("node.kubernetes.io/unschedulable", "NoSchedule"),
            taint("node.kubernetes.io/not-ready", "NoExecute"),
            taint(INTERRUPTED_TAINT, "NoSchedule"),
            taint("node.kubernetes.io/out-of-service", "NoExecute"),
            taint("node.kubernetes.io/disk-pressure", "NoSchedule"),
            {"key": "team", "value": "red", "effect": "PreferNoSchedule"},
            taint("odd", "Sometimes"),
        ]}}));
        assert_eq!(
            node.taints,
            [
                Taint { key: "node.kubernetes.io/out-of-service".into(), value: String::new(), effect: TaintEffect::NoExecute },
                Taint { key: "node.kubernetes.io/disk-pressure".into(), value: String::new(), effect: TaintEffect::NoSchedule },
                Taint { key: "team".into(), value: "red".into(), effect: TaintEffect::PreferNoSchedule },
            ]
        );
    }

    #[test]
    fn every_server_role_marks_a_server() {
        for role in SERVER_ROLES {
            assert!(read(json!({"metadata": {"labels": {role: "true"}}})).control_plane, "{role}");
        }
    }

    #[test]
    fn an_annotation_keeps_a_node_only_when_it_is_true() {
        for name in KEEP_NODE {
            assert_eq!(read(json!({"metadata": {"annotations": {name: "true"}}})).keep.as_deref(), Some(name));
            assert_eq!(read(json!({"metadata": {"annotations": {name: "false"}}})).keep, None);
        }
    }

    #[test]
    fn refuses_an_amount_that_makes_no_sense() {
        let object = json!({"status": {"allocatable": {"memory": "-1"}}});
        let error = node(serde_json::from_value(object).expect("a node")).expect_err("a negative amount");
        assert!(error.starts_with("allocatable memory: `-1`"), "{error}");
    }
}
