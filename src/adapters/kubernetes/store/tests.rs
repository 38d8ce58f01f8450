//! The stores, fed by hand.

use super::super::wire;
use super::*;
use futures::FutureExt;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

fn list<K: Watched>(hub: &Hub, objects: Vec<Value>) {
    hub.apply::<K>(Event::Init);
    for value in objects {
        hub.apply::<K>(Event::InitApply(object(value)));
    }
    hub.apply::<K>(Event::InitDone);
}

/// A hub whose watches have all listed, with these pods.
pub(in crate::adapters::kubernetes) fn listed(pods: Vec<Value>) -> Hub {
    let hub = Hub::default();
    list::<wire::Pod>(&hub, pods);
    list::<wire::Node>(&hub, vec![]);
    list::<wire::Budget>(&hub, vec![]);
    list::<wire::DaemonSet>(&hub, vec![]);
    list::<wire::PersistentVolume>(&hub, vec![]);
    list::<wire::PersistentVolumeClaim>(&hub, vec![]);
    list::<wire::StorageClass>(&hub, vec![]);
    list::<wire::CsiNode>(&hub, vec![]);
    hub
}

fn pod(name: &str, uid: &str) -> Value {
    json!({"metadata": {"namespace": "n", "name": name, "uid": uid}, "spec": {}, "status": {"phase": "Pending"}})
}

fn unschedulable(name: &str, uid: &str) -> Value {
    let mut pod = pod(name, uid);
    pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]);
    pod
}

fn bound(name: &str, uid: &str) -> Value {
    let mut pod = pod(name, uid);
    pod["spec"]["nodeName"] = json!("w1");
    pod
}

fn rang(signal: &Signal) -> bool {
    signal.wait().now_or_never().is_some()
}

#[test]
fn there_is_no_view_before_every_watch_has_listed() {
    let hub = Hub::default();
    list::<wire::Pod>(&hub, vec![pod("a", "1")]);
    assert!(matches!(hub.health(), Health::Starting(_)));
    assert_eq!(hub.cached_view(), None);
    let hub = listed(vec![pod("a", "1")]);
    assert_eq!(hub.health(), Health::Healthy);
    assert_eq!(hub.view().expect("a view").pods.len(), 1);
}

#[test]
fn a_failing_watch_hides_the_view_until_its_next_list_is_complete() {
    let hub = listed(vec![pod("a", "1")]);
    hub.failed(Source::Budgets, "403");
    assert!(hub.view().is_err_and(|why| why.contains("disruption budgets") && why.contains("403")));
    assert!(hub.cached_view().is_some());
    hub.apply::<wire::Budget>(Event::Init);
    assert!(hub.view().is_err());
    hub.apply::<wire::Budget>(Event::InitDone);
    assert!(hub.view().is_ok());
}

#[test]
fn pods_stand_in_the_order_of_their_keys() {
    let other = json!({"metadata": {"namespace": "n-b", "name": "a"}});
    let hub = listed(vec![other, pod("b", "2"), pod("a", "1")]);
    let names: Vec<_> = hub.view().expect("a view").pods.iter().map(|pod| pod.key.to_string()).collect();
    assert_eq!(names, ["n/a", "n/b", "n-b/a"]);
}

#[test]
fn the_view_is_made_anew_only_when_something_has_changed() {
    let hub = listed(vec![bound("a", "1")]);
    let before = hub.view().expect("a view");
    let mut same = bound("a", "1");
    same["metadata"]["resourceVersion"] = json!("99");
    same["status"]["startTime"] = json!("2026-01-01T00:00:00Z");
    hub.apply::<wire::Pod>(Event::Apply(object(same)));
    assert!(Arc::ptr_eq(&before, &hub.view().expect("a view")));
    hub.apply::<wire::Pod>(Event::Delete(object(bound("a", "1"))));
    assert!(hub.view().expect("a view").pods.is_empty());
}

#[test]
fn a_pod_is_urgent_once_and_its_successor_again() {
    let hub = listed(vec![]);
    assert!(!rang(&hub.urgent));
    hub.apply::<wire::Pod>(Event::Apply(object(pod("a", "1"))));
    assert!(!rang(&hub.urgent));
    hub.apply::<wire::Pod>(Event::Apply(object(unschedulable("a", "1"))));
    assert!(rang(&hub.urgent));
    hub.apply::<wire::Pod>(Event::Apply(object(unschedulable("a", "1"))));
    list::<wire::Pod>(&hub, vec![unschedulable("a", "1")]);
    assert!(!rang(&hub.urgent));
    hub.apply::<wire::Pod>(Event::Apply(object(unschedulable("a", "2"))));
    assert!(rang(&hub.urgent));
}

#[test]
fn what_is_urgent_waits_until_all_watches_deliver() {
    let hub = Hub::default();
    list::<wire::Pod>(&hub, vec![unschedulable("a", "1")]);
    assert!(!rang(&hub.urgent));
    let hub = listed(vec![unschedulable("a", "1")]);
    assert!(rang(&hub.urgent));
    hub.failed(Source::Nodes, "down");
    hub.apply::<wire::Pod>(Event::Apply(object(unschedulable("b", "2"))));
    assert!(!rang(&hub.urgent));
    list::<wire::Node>(&hub, vec![]);
    assert!(rang(&hub.urgent));
}

#[test]
fn an_operation_hears_of_bindings_deletions_and_nodes_only() {
    let hub = listed(vec![pod("a", "1")]);
    assert!(rang(&hub.changed), "the watches have begun to deliver");
    hub.apply::<wire::Pod>(Event::Apply(object(unschedulable("a", "1"))));
    assert!(!rang(&hub.changed));
    hub.apply::<wire::Pod>(Event::Apply(object(bound("a", "1"))));
    assert!(rang(&hub.changed));
    let mut leaving = bound("a", "1");
    leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    hub.apply::<wire::Pod>(Event::Apply(object(leaving.clone())));
    assert!(rang(&hub.changed));
    hub.apply::<wire::Pod>(Event::Delete(object(leaving)));
    assert!(rang(&hub.changed));
    hub.apply::<wire::Node>(Event::Apply(object(json!({"metadata": {"name": "w1"}}))));
    assert!(rang(&hub.changed));
}

#[test]
fn a_pod_that_ends_leaves_the_index() {
    let hub = listed(vec![bound("a", "1")]);
    let mut ended = bound("a", "1");
    ended["status"]["phase"] = json!("Succeeded");
    hub.apply::<wire::Pod>(Event::Apply(object(ended)));
    assert!(hub.view().expect("a view").pods.is_empty());
}

#[test]
fn an_object_that_makes_no_sense_is_named_and_left_out() {
    let mut odd = bound("odd", "1");
    odd["spec"]["containers"] = json!([{"name": "c", "resources": {"requests": {"cpu": "-1"}}}]);
    let hub = listed(vec![bound("a", "2"), odd]);
    let view = hub.view().expect("a view");
    assert_eq!(view.pods.len(), 1);
    assert!(matches!(view.refused.as_slice(), [why] if why.starts_with("pod n/odd: container `c`: cpu: `-1`")), "{:?}", view.refused);
    hub.apply::<wire::Pod>(Event::Apply(object(bound("odd", "1"))));
    assert!(hub.view().expect("a view").refused.is_empty());
}

#[test]
fn names_no_more_refusals_than_fit() {
    let odd = |n: usize| json!({"metadata": {"name": format!("w{n}")}, "status": {"allocatable": {"cpu": "?"}}});
    let hub = listed(vec![]);
    list::<wire::Node>(&hub, (0..50).map(odd).collect());
    let view = hub.view().expect("a view");
    assert_eq!((view.refused.len(), view.refused_nodes.len()), (NAMED_REFUSALS, 50));
}

#[test]
fn a_claim_that_is_bound_later_constrains_its_pod_and_makes_it_urgent() {
    let mut waiting = unschedulable("a", "1");
    waiting["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]);
    let hub = listed(vec![waiting]);
    assert!(rang(&hub.urgent));
    let constraints = || Arc::clone(&hub.view().expect("a view").pods[0].constraints);
    assert_eq!(constraints().unmodelled.len(), 1);
    let zone = json!([{"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["a"]}]}]);
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": zone}}}});
    hub.apply::<wire::PersistentVolume>(Event::Apply(object(volume)));
    assert!(!rang(&hub.urgent));
    let claim = json!({"metadata": {"namespace": "n", "name": "data"}, "spec": {"volumeName": "pv"}});
    hub.apply::<wire::PersistentVolumeClaim>(Event::Apply(object(claim)));
    assert!(rang(&hub.urgent));
    assert!(constraints().unmodelled.is_empty());
    assert_eq!(constraints().volume_zones, [BTreeSet::from(["a".into()])]);
}

#[test]
fn a_node_attaches_as_many_volumes_as_its_drivers_say() {
    let hub = listed(vec![]);
    list::<wire::Node>(&hub, vec![json!({"metadata": {"name": "w1"}})]);
    let limits = || hub.view().expect("a view").nodes[&NodeName::new("w1")].allocatable.attachments();
    assert!(limits().is_empty());
    let drivers = json!([{"name": "ebs.csi.aws.com", "nodeID": "i", "allocatable": {"count": 25}}]);
    let csi = json!({"metadata": {"name": "w1"}, "spec": {"drivers": drivers}});
    hub.apply::<wire::CsiNode>(Event::Apply(object(csi.clone())));
    assert_eq!(limits(), [("attachable-volumes-csi-ebs.csi.aws.com".to_owned(), 25)].into());
    hub.apply::<wire::CsiNode>(Event::Delete(object(csi)));
    assert!(limits().is_empty());
}

#[test]
fn a_role_that_does_not_grant_csi_nodes_yet_costs_the_limits_and_not_the_view() {
    let hub = listed(vec![]);
    hub.failed(Source::CsiNodes, "403");
    let view = hub.view().expect("a view");
    assert!(matches!(view.refused.as_slice(), [why] if why.contains("CSI nodes") && why.contains("403")), "{:?}", view.refused);
    list::<wire::CsiNode>(&hub, vec![]);
    assert!(hub.view().expect("a view").refused.is_empty());
    let hub = Hub::default();
    assert!(Source::ALL.into_iter().filter(|source| !source.is_vital()).eq([Source::CsiNodes]));
    assert!(matches!(hub.health(), Health::Starting(_)));
}

#[test]
fn volumes_that_change_while_pods_are_listed_are_known_when_the_list_is_complete() {
    let mut waiting = unschedulable("a", "1");
    waiting["spec"]["volumes"] = json!([{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]);
    let hub = listed(vec![]);
    hub.apply::<wire::Pod>(Event::Init);
    hub.apply::<wire::Pod>(Event::InitApply(object(waiting)));
    hub.apply::<wire::PersistentVolume>(Event::Apply(object(json!({"metadata": {"name": "pv"}}))));
    let claim = json!({"metadata": {"namespace": "n", "name": "data"}, "spec": {"volumeName": "pv"}});
    hub.apply::<wire::PersistentVolumeClaim>(Event::Apply(object(claim)));
    hub.apply::<wire::Pod>(Event::InitDone);
    assert_eq!(hub.view().expect("a view").pods[0].constraints.unmodelled, [] as [String; 0]);
    assert!(rang(&hub.urgent));
}

#[test]
fn replicas_share_their_labels_and_constraints() {
    let hub = listed(vec![pod("a", "1"), pod("b", "2")]);
    let view = hub.view().expect("a view");
    assert!(Arc::ptr_eq(&view.pods[0].labels, &view.pods[1].labels));
    assert!(Arc::ptr_eq(&view.pods[0].constraints, &view.pods[1].constraints));
}
