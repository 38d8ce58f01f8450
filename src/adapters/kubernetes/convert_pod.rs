//! Makes the model's pods from Kubernetes' pods.

use super::interner::Interner;
use super::requests::pod_requests;
use super::scheduling::{constraints, preferred};
use super::volumes::Volumes;
use super::wire::{self, KEEP_POD, MIRROR, PodSpec, PodStatus, SAFE_TO_EVICT, annotation};
use crate::model::pod::Owner;
use crate::model::resources::ATTACHABLE_VOLUMES;
use crate::model::scheduling::Constraints;
use crate::model::{NodeName, Pod, PodKey, PodPhase};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use std::sync::Arc;

/// A pod with what it takes to reckon anew where its volumes allow it to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodEntry {
    /// The pod, its volumes' constraints included.
    pub(super) pod: Arc<Pod>,
    /// Its constraints without those of its volumes.
    base: Arc<Constraints>,
    /// The same with its preferences, where it has some.
    preferred: Option<Arc<Constraints>>,
    /// The claims that its volumes stand for.
    claims: Box<[String]>,
}

impl PodEntry {
    /// Reckons the constraints of the pod's volumes, and how many it attaches. Tells whether they have changed.
    pub(super) fn resolve(&mut self, volumes: &Volumes, interner: &mut Interner) -> bool {
        if self.claims.is_empty() {
            return false;
        }
        let constraints = volumes.constrain(&self.pod.key.namespace, &self.claims, &self.base);
        let attachments = volumes.attachments(&self.pod.key.namespace, &self.claims);
        if constraints == *self.pod.constraints && attachments == self.pod.requests.attachments() {
            return false;
        }
        let pod = Arc::make_mut(&mut self.pod);
        pod.constraints = interner.constraints(constraints);
        pod.requests.extended.retain(|name, _| !name.starts_with(ATTACHABLE_VOLUMES));
        pod.requests.extended.extend(attachments);
        pod.preferring = None;
        if let Some(preferred) = &self.preferred {
            let preferred = volumes.constrain(&pod.key.namespace, &self.claims, preferred);
            self.prefer(interner.constraints(preferred));
        }
        true
    }

    fn prefer(&mut self, constraints: Arc<Constraints>) {
        let preferring = Pod { constraints, ..(*self.pod).clone() };
        Arc::make_mut(&mut self.pod).preferring = Some(Arc::new(preferring));
    }
}

/// Reads a pod. `None` says that it has ended and holds nothing any more.
///
/// # Errors
/// When it asks for an amount or a port that makes no sense.
pub(super) fn pod(object: wire::Pod, volumes: &Volumes, interner: &mut Interner) -> Option<Result<PodEntry, String>> {
    let status = object.status.unwrap_or_default();
    let phase = phase(status.phase.as_deref());
    match phase {
        PodPhase::Succeeded | PodPhase::Failed => None,
        PodPhase::Pending | PodPhase::Running | PodPhase::Unknown => {
            Some(living_pod(object.metadata, &object.spec.unwrap_or_default(), &status, phase, volumes, interner))
        }
    }
}

fn living_pod(
    meta: ObjectMeta,
    spec: &PodSpec,
    status: &PodStatus,
    phase: PodPhase,
    volumes: &Volumes,
    interner: &mut Interner,
) -> Result<PodEntry, String> {
    let waiting = waiting(&meta, spec, status);
    let owner = owner(&meta);
    let keep = KEEP_POD.iter().any(|name| annotation(&meta, name) == Some("true"));
    let safe_to_evict = annotation(&meta, SAFE_TO_EVICT).and_then(|value| value.parse().ok());
    let terminating_since = terminating_since(&meta);
    let labels = interner.labels(meta.labels.unwrap_or_default());
    let key = PodKey { namespace: meta.namespace.unwrap_or_default(), name: meta.name.unwrap_or_default() };
    let base = interner.constraints(constraints(spec, &key.namespace, &labels)?);
    let preferred = preferred(&base, spec, &key.namespace, &labels);
    let preferred = preferred.map(|preferred| interner.constraints(preferred));
    let claims = claims(spec, &key.name);
    let named = |name: Option<&String>| name.filter(|name| !name.is_empty()).map(|name| NodeName::from(name.as_str()));
    let pod = Pod {
        uid: meta.uid.unwrap_or_default(),
        owner,
        node: named(spec.node_name.as_ref()),
        phase,
        unschedulable_since: waiting.unschedulable_since,
        gated: waiting.gated,
        nominated_node: named(status.nominated_node_name.as_ref()),
        terminating_since,
        requests: pod_requests(spec, status)?,
        priority: spec.priority.unwrap_or(0),
        never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
        labels,
        constraints: Arc::clone(&base),
        preferring: None,
        safe_to_evict,
        do_not_disrupt: keep,
        key,
    };
    let mut entry = PodEntry { pod: Arc::new(pod), base, preferred: preferred.clone(), claims };
    if !entry.resolve(volumes, interner)
        && let Some(preferred) = preferred
    {
        entry.prefer(preferred);
    }
    Ok(entry)
}

fn phase(text: Option<&str>) -> PodPhase {
    match text {
        None | Some("" | "Pending") => PodPhase::Pending,
        Some("Running") => PodPhase::Running,
        Some("Succeeded") => PodPhase::Succeeded,
        Some("Failed") => PodPhase::Failed,
        Some(_) => PodPhase::Unknown,
    }
}

fn owner(meta: &ObjectMeta) -> Owner {
    if annotation(meta, MIRROR).is_some() {
        return Owner::Node;
    }
    let controller = meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let node = meta.owner_references.iter().flatten().any(|owner| owner.kind == "Node");
    match controller.map(|owner| owner.kind.as_str()) {
        Some("DaemonSet") => Owner::DaemonSet,
        Some("Node") => Owner::Node,
        None if node => Owner::Node,
        Some(_) => Owner::Controller,
        None => Owner::Nobody,
    }
}

struct Waiting {
    unschedulable_since: Option<Timestamp>,
    gated: bool,
}

fn waiting(meta: &ObjectMeta, spec: &PodSpec, status: &PodStatus) -> Waiting {
    let scheduled = status.conditions.iter().flatten().find(|condition| condition.type_ == "PodScheduled");
    let refused = scheduled.filter(|condition| condition.status == "False");
    let reason = refused.and_then(|condition| condition.reason.as_deref());
    let since = || {
        let transition = refused.and_then(|condition| condition.last_transition_time.as_ref());
        transition.or(meta.creation_timestamp.as_ref()).map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    };
    Waiting {
        unschedulable_since: (reason == Some("Unschedulable")).then(since),
        gated: reason == Some("SchedulingGated") || spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()),
    }
}

/// Gives the time at which the deletion was asked for: `deletionTimestamp` is when it is over.
fn terminating_since(meta: &ObjectMeta) -> Option<Timestamp> {
    let end = meta.deletion_timestamp.as_ref()?.0;
    let grace = SignedDuration::from_secs(meta.deletion_grace_period_seconds.unwrap_or(0).max(0));
    Some(end.checked_sub(grace).unwrap_or(end))
}

fn claims(spec: &PodSpec, pod_name: &str) -> Box<[String]> {
    let claim_of = |volume: &wire::Volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone().unwrap_or_default()),
        (None, Some(_)) => Some(format!("{pod_name}-{}", volume.name.as_deref().unwrap_or_default())),
        (None, None) => None,
    };
    spec.volumes.iter().flatten().filter_map(claim_of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MilliCpu;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(object: Value) -> Option<Result<PodEntry, String>> {
        pod(serde_json::from_value(object).expect("a pod"), &Volumes::default(), &mut Interner::default())
    }

    fn living(object: Value) -> Pod {
        Arc::unwrap_or_clone(read(object).expect("a living pod").expect("a sound pod").pod)
    }

    #[test]
    fn reads_an_unschedulable_pod() {
        let pod = living(json!({
            "metadata": {
                "name": "a", "namespace": "n", "uid": "u", "labels": {"app": "a"},
                "annotations": {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"},
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "r", "controller": true}],
            },
            "spec": {"priority": 7, "preemptionPolicy": "Never", "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"phase": "Pending", "conditions": [{
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "lastTransitionTime": "2026-01-02T03:04:05Z",
            }]},
        }));
        assert!(pod.wants_a_node());
        assert_eq!(pod.unschedulable_since, "2026-01-02T03:04:05Z".parse().ok());
        assert_eq!(pod.requests.cpu, MilliCpu(1000));
        assert_eq!((pod.priority, pod.owner, pod.safe_to_evict, pod.do_not_disrupt), (7, Owner::Controller, Some(false), true));
        assert!(pod.never_preempts && !living(json!({"spec": {"preemptionPolicy": "PreemptLowerPriority"}})).never_preempts);
    }

    #[test]
    fn what_a_pod_prefers_stands_beside_what_it_must_have() {
        let spread = json!([{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]);
        let pod = living(json!({"metadata": {"name": "a"}, "spec": {"topologySpreadConstraints": spread}}));
        let preferring = pod.preferring.expect("a preference");
        assert_eq!((pod.constraints.spread.len(), preferring.constraints.spread.len()), (0, 1));
        assert_eq!(living(json!({"metadata": {"name": "a"}, "spec": {}})).preferring, None);
    }

    #[test]
    fn a_pod_waits_for_a_node_only_when_the_scheduler_says_so() {
        let condition = |status: &str, reason: &str| json!([{"type": "PodScheduled", "status": status, "reason": reason}]);
        for (status, spec) in [
            (json!({"phase": "Pending"}), json!({})),
            (json!({"phase": "Pending", "conditions": condition("True", "")}), json!({"nodeName": "w1"})),
            (json!({"phase": "Pending", "conditions": condition("False", "SchedulerError")}), json!({})),
            (json!({"phase": "Pending", "conditions": condition("False", "SchedulingGated")}), json!({"schedulingGates": [{"name": "g"}]})),
            (json!({"phase": "Pending", "conditions": condition("False", "Unschedulable"), "nominatedNodeName": "w1"}), json!({})),
        ] {
            let pod = living(json!({"metadata": {"name": "a"}, "spec": spec, "status": status}));
            assert!(!pod.wants_a_node(), "{pod:?}");
        }
    }

    #[test]
    fn a_pod_that_has_ended_is_dropped() {
        for phase in ["Succeeded", "Failed"] {
            assert_eq!(read(json!({"status": {"phase": phase}})), None);
        }
        assert!(read(json!({"status": {"phase": "Unknown"}})).is_some());
    }

    #[test]
    fn knows_who_replaces_a_pod() {
        let owned =
            |kind: &str, controller: bool| json!([{"apiVersion": "v1", "kind": kind, "name": "o", "uid": "o", "controller": controller}]);
        for (metadata, expected) in [
            (json!({}), Owner::Nobody),
            (json!({"ownerReferences": owned("ConfigMap", false)}), Owner::Nobody),
            (json!({"ownerReferences": owned("StatefulSet", true)}), Owner::Controller),
            (json!({"ownerReferences": owned("DaemonSet", true)}), Owner::DaemonSet),
            (json!({"ownerReferences": owned("Node", true)}), Owner::Node),
            (json!({"ownerReferences": owned("Node", false)}), Owner::Node),
            (json!({"annotations": {MIRROR: "hash"}}), Owner::Node),
        ] {
            assert_eq!(living(json!({"metadata": metadata})).owner, expected, "{metadata}");
        }
    }

    #[test]
    fn a_deletion_began_before_its_grace_period() {
        let metadata = json!({"deletionTimestamp": "2026-01-01T00:00:30Z", "deletionGracePeriodSeconds": 30});
        assert_eq!(living(json!({"metadata": metadata})).terminating_since, "2026-01-01T00:00:00Z".parse().ok());
    }

    #[test]
    fn names_the_claims_of_its_volumes() {
        let spec = json!({"volumes": [
            {"name": "data", "persistentVolumeClaim": {"claimName": "data-0"}},
            {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "config", "configMap": {"name": "c"}},
        ]});
        let entry = read(json!({"metadata": {"name": "web-0"}, "spec": spec})).expect("a living pod").expect("a sound pod");
        assert_eq!(*entry.claims, ["data-0".to_owned(), "web-0-scratch".to_owned()]);
        assert_eq!(entry.pod.constraints.unmodelled.len(), 2);
    }

    /// Odd values of any JSON type, quantities and operators among them.
    fn odd() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "-?[0-9.]{0,40}(m|k|Ki|Ei|e[0-9]{1,3})?".prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            prop_oneof![Just("In"), Just("Gt"), Just("Always"), Just("DoNotSchedule"), Just("Exists")].prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("cpu|memory|name|key|operator|values|requests|[a-z]{1,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn an_odd_object_never_panics(value in odd(), amount in "-?[0-9.]{0,40}[a-zA-Z]{0,3}", port in any::<i32>(), number in any::<i64>()) {
            let spec = |part: &str| json!({"metadata": {"name": "a"}, "spec": {part: value}});
            let objects = [
                value.clone(),
                json!({"metadata": value, "spec": value, "status": value}),
                spec("affinity"), spec("containers"), spec("tolerations"), spec("topologySpreadConstraints"), spec("volumes"),
                json!({
                    "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": number},
                    "spec": {
                        "hostNetwork": true,
                        "overhead": {"memory": amount},
                        "containers": [{
                            "name": "c",
                            "resources": {"requests": {"cpu": amount, "example.com/x": amount}},
                            "ports": [{"containerPort": port, "hostPort": port}],
                        }],
                        "topologySpreadConstraints": [{"maxSkew": port, "minDomains": port, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}],
                    },
                }),
            ];
            for object in objects {
                if let Ok(object) = serde_json::from_value::<wire::Pod>(object) {
                    let _ = pod(object, &Volumes::default(), &mut Interner::default());
                }
            }
        }
    }
}
