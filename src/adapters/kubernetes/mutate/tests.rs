//! Requests to Kubernetes, against an API server of a few lines.

use super::fake::ApiServer;
use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn requests(server: &ApiServer) -> Requests {
    Requests { client: server.client(), deadline: Duration::from_secs(5) }
}

fn meant() -> NodeRef {
    NodeRef { name: "w1".into(), uid: "u1".into() }
}

fn cordon(taint: bool) -> Cordon {
    Cordon { operation: "op-1".into(), taint }
}

fn node_json(spec: &Value, annotations: &Value) -> Value {
    json!({"metadata": {"name": "w1", "uid": "u1", "resourceVersion": "7", "annotations": annotations}, "spec": spec})
}

fn object(spec: &Value, annotations: &Value) -> wire::Node {
    serde_json::from_value(node_json(spec, annotations)).expect("a node")
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

#[test]
fn a_cordon_keeps_the_taints_of_others() {
    let theirs = json!({"key": "team", "value": "red", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"});
    let patch = cordon_patch(&object(&json!({"taints": [theirs]}), &json!({})), &cordon(true)).expect("a patch");
    assert_eq!(patch["spec"]["taints"], json!([theirs, {"key": INTERRUPTED_TAINT, "effect": "NoSchedule"}]));
    assert_eq!(patch["spec"]["unschedulable"], json!(true));
    assert_eq!(patch["metadata"]["annotations"][CORDONED_BY], json!("op-1"));
    let patch = cordon_patch(&object(&json!({"taints": [theirs]}), &json!({})), &cordon(false)).expect("a patch");
    assert!(patch["spec"].get("taints").is_none());
}

#[test]
fn cordoning_twice_changes_nothing_and_a_taint_can_follow() {
    let ours = json!({ CORDONED_BY: "op-1" });
    let cordoned = json!({"unschedulable": true});
    assert_eq!(cordon_patch(&object(&cordoned, &ours), &cordon(false)), None);
    assert!(cordon_patch(&object(&cordoned, &ours), &cordon(true)).is_some());
    assert!(cordon_patch(&object(&json!({}), &ours), &cordon(false)).is_some(), "someone has uncordoned it");
    let tainted = json!({"unschedulable": true, "taints": [{"key": INTERRUPTED_TAINT, "effect": "NoSchedule"}]});
    assert_eq!(cordon_patch(&object(&tainted, &ours), &cordon(true)), None);
}

#[test]
fn uncordoning_takes_back_only_what_is_ours() {
    let cordoned =
        json!({"unschedulable": true, "taints": [{"key": "a", "effect": "NoExecute"}, {"key": INTERRUPTED_TAINT, "effect": "NoSchedule"}]});
    let patch = uncordon_patch(&object(&cordoned, &json!({ CORDONED_BY: "op-1" })), &"op-1".into()).expect("a patch");
    assert_eq!(patch["spec"], json!({"unschedulable": null, "taints": [{"key": "a", "effect": "NoExecute"}]}));
    assert_eq!(patch["metadata"]["annotations"], json!({CORDONED_BY: null, WAS_CORDONED: null}));
    assert_eq!(uncordon_patch(&object(&json!({"unschedulable": true}), &json!({})), &"op-1".into()), None);
    assert_eq!(uncordon_patch(&object(&cordoned, &json!({ CORDONED_BY: "op-2" })), &"op-1".into()), None, "of another operation");
    let patch = uncordon_patch(&object(&cordoned, &json!({})), &"op-1".into()).expect("a patch");
    assert_eq!(patch["spec"], json!({"taints": [{"key": "a", "effect": "NoExecute"}]}), "a taint that nobody has taken back");
}

#[test]
fn a_node_that_someone_else_had_cordoned_stays_so() {
    let patch = cordon_patch(&object(&json!({"unschedulable": true}), &json!({})), &cordon(false)).expect("a patch");
    assert_eq!(patch["metadata"]["annotations"][WAS_CORDONED], json!("true"));
    let both = json!({CORDONED_BY: "op-1", WAS_CORDONED: "true"});
    let patch = uncordon_patch(&object(&json!({"unschedulable": true}), &both), &"op-1".into()).expect("a patch");
    assert_eq!(patch["spec"], json!({}));
}

#[tokio::test]
async fn a_conflict_is_tried_again_from_the_latest_version() {
    let attempts = AtomicUsize::new(0);
    let server = ApiServer::new(move |request| match request.method.as_str() {
        "PATCH" if attempts.fetch_add(1, Ordering::Relaxed) == 0 => (409, status(409, "Conflict", "changed")),
        _ => (200, node_json(&json!({}), &json!({}))),
    });
    assert_eq!(requests(&server).cordon(&meant(), &cordon(false)).await, Ok(()));
    let methods: Vec<_> = server.asked().iter().map(|request| request.method.clone()).collect();
    assert_eq!(methods, ["GET", "PATCH", "GET", "PATCH"]);
    let body = &server.asked()[1].body;
    assert_eq!((&body["metadata"]["resourceVersion"], &body["metadata"]["uid"]), (&json!("7"), &json!("u1")));
}

#[tokio::test]
async fn a_conflict_without_end_is_reported() {
    let server = ApiServer::new(|request| match request.method.as_str() {
        "PATCH" => (409, status(409, "Conflict", "changed")),
        _ => (200, node_json(&json!({}), &json!({}))),
    });
    let outcome = requests(&server).cordon(&meant(), &cordon(false)).await;
    assert_eq!(outcome, Err(ClusterError::Conflict { call: "patch nodes" }));
    assert_eq!(server.asked().len(), 2 * ATTEMPTS);
}

#[tokio::test]
async fn a_node_of_the_same_name_is_not_hit() {
    let server = ApiServer::new(|_| (200, json!({"metadata": {"name": "w1", "uid": "another", "resourceVersion": "9"}})));
    let requests = requests(&server);
    let gone = Err(ClusterError::Gone { call: "patch nodes" });
    assert_eq!(requests.cordon(&meant(), &cordon(true)).await, gone);
    assert_eq!(requests.uncordon(&meant(), &"op-1".into()).await, gone);
    assert!(server.asked().iter().all(|request| request.method == "GET"));
}

#[tokio::test]
async fn an_eviction_names_the_pods_unique_id_where_the_api_server_looks_for_it() {
    let server = ApiServer::new(|_| (201, json!({"kind": "Status", "status": "Success"})));
    let pod = PodKey { namespace: "n".into(), name: "a".into() };
    assert_eq!(requests(&server).evict(&pod, "u1").await, Ok(Eviction::Accepted));
    let asked = &server.asked()[0];
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/api/v1/namespaces/n/pods/a/eviction"));
    assert_eq!(asked.body["apiVersion"], json!("policy/v1"));
    assert_eq!(asked.body["deleteOptions"]["preconditions"], json!({"uid": "u1"}));
}

#[tokio::test]
async fn every_refusal_of_an_eviction_means_something() {
    let pod = PodKey { namespace: "n".into(), name: "a".into() };
    let budget = "Cannot evict pod as it would violate the pod's disruption budget.";
    for (code, answer, expected) in [
        (429, status(429, "TooManyRequests", budget), Ok(Eviction::Blocked)),
        (404, status(404, "NotFound", "pods \"a\" not found"), Ok(Eviction::Gone)),
        (
            500,
            status(
                500,
                "InternalError",
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
            ),
            Ok(Eviction::Blocked),
        ),
        (429, json!("Too many requests, please try again later."), Err("Unavailable")),
        (403, status(403, "Forbidden", "no"), Err("Denied")),
        (500, status(500, "InternalError", "no"), Err("Unavailable")),
    ] {
        let server = ApiServer::new(move |_| (code, answer.clone()));
        let outcome = requests(&server).evict(&pod, "u1").await;
        match (&outcome, expected) {
            (Ok(outcome), Ok(expected)) => assert_eq!(*outcome, expected, "{code}"),
            (Err(error), Err(expected)) => assert!(format!("{error:?}").starts_with(expected), "{error:?}"),
            (outcome, expected) => panic!("{code}: {outcome:?} instead of {expected:?}"),
        }
    }
}

#[tokio::test]
async fn a_conflict_of_an_eviction_is_told_by_the_pod_that_has_the_name_now() {
    let upstream = "the UID in the precondition (u1) does not match the UID in record (u2). \
                    The object might have been deleted and then recreated";
    let conflict = Err(ClusterError::Conflict { call: "create pods/eviction" });
    for (words, now, expected) in [
        (upstream, Some("u2"), Ok(Eviction::Gone)),
        (upstream, None, Ok(Eviction::Gone)),
        ("the object has been modified; please apply your changes to the latest version", Some("u1"), conflict.clone()),
        (upstream, Some("u1"), conflict),
    ] {
        let server = ApiServer::new(move |request| match request.method.as_str() {
            "POST" => (409, status(409, "Conflict", words)),
            _ => {
                let pods: Vec<_> = now.iter().map(|uid| json!({"metadata": {"namespace": "n", "name": "a", "uid": uid}})).collect();
                (200, json!({"metadata": {"resourceVersion": "1"}, "items": pods}))
            }
        });
        let pod = PodKey { namespace: "n".into(), name: "a".into() };
        assert_eq!(requests(&server).evict(&pod, "u1").await, expected, "{words} {now:?}");
        let asked = &server.asked()[1];
        assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/api/v1/namespaces/n/pods"));
        assert!(asked.query.contains("fieldSelector=metadata.name") && !asked.query.contains("resourceVersion"), "{}", asked.query);
    }
}

#[tokio::test]
async fn a_list_without_end_is_given_up() {
    let server = ApiServer::new(|_| (200, json!({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []})));
    let outcome = requests(&server).node_of(&"i-00000001".into()).await;
    assert!(matches!(outcome, Err(ClusterError::Invalid { .. })), "{outcome:?}");
    assert_eq!(server.asked().len(), PAGES);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_is_for_a_call_as_a_whole() {
    let page = json!({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": []});
    let server = ApiServer::new(move |_| (200, page.clone())).after(Duration::from_secs(2));
    let start = tokio::time::Instant::now();
    let late = ClusterError::Unavailable { call: "list nodes", why: "no answer within 5s".into() };
    assert_eq!(requests(&server).node_of(&"i-00000001".into()).await, Err(late));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    let server = ApiServer::new(|request| match request.method.as_str() {
        "PATCH" => (409, status(409, "Conflict", "changed")),
        _ => (200, node_json(&json!({}), &json!({}))),
    });
    let start = tokio::time::Instant::now();
    assert!(requests(&server.after(Duration::from_secs(2))).cordon(&meant(), &cordon(false)).await.is_err());
    assert_eq!(start.elapsed(), Duration::from_secs(5));
}

#[tokio::test]
async fn deleting_a_node_that_is_gone_is_a_success() {
    for (code, now) in [(404, None), (409, Some("another")), (409, None)] {
        let server = ApiServer::new(move |request| match (request.method.as_str(), now) {
            ("GET", Some(uid)) => (200, json!({"metadata": {"name": "w1", "uid": uid}})),
            ("GET", None) => (404, status(404, "NotFound", "no")),
            _ => (code, status(code, "", "no")),
        });
        assert_eq!(requests(&server).delete_node(&meant()).await, Ok(()), "{code} {now:?}");
        assert_eq!(server.asked()[0].body["preconditions"], json!({"uid": "u1"}));
    }
    let server = ApiServer::new(|request| match request.method.as_str() {
        "GET" => (200, node_json(&json!({}), &json!({}))),
        _ => (409, status(409, "Conflict", "no")),
    });
    assert_eq!(requests(&server).delete_node(&meant()).await, Err(ClusterError::Conflict { call: "delete nodes" }));
}

#[tokio::test]
async fn finds_the_node_of_an_instance_on_any_page_even_one_that_makes_no_sense() {
    let server = ApiServer::new(|request| {
        let more = request.query.contains("continue=more");
        let next = if more { "" } else { "more" };
        let name = if more { "w2" } else { "w1" };
        let node = json!({
            "metadata": {"name": name},
            "spec": {"providerID": format!("aws:///a/i-0000000{}", &name[1..])},
            "status": {"allocatable": {"cpu": "?"}},
        });
        (200, json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": [node]}))
    });
    let requests = requests(&server);
    assert_eq!(requests.node_of(&"i-00000001".into()).await, Ok(Some("w1".into())));
    assert_eq!(requests.node_of(&"i-00000002".into()).await, Ok(Some("w2".into())));
    assert_eq!(requests.node_of(&"i-00000003".into()).await, Ok(None));
    assert!(server.asked().iter().all(|request| !request.query.contains("resourceVersion")), "past every cache");
}

#[tokio::test]
async fn reads_a_node_with_all_pages_of_its_pods() {
    let server = ApiServer::new(|request| match (request.path.as_str(), request.query.contains("continue=more")) {
        ("/api/v1/nodes/w1", _) => (200, node_json(&json!({}), &json!({}))),
        ("/api/v1/pods", more) => {
            let name = if more { "a" } else { "b" };
            let next = if more { "" } else { "more" };
            let pod = json!({"metadata": {"namespace": "n", "name": name}, "spec": {"nodeName": "w1"}});
            (200, json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": [pod]}))
        }
        _ => (404, status(404, "NotFound", "no")),
    });
    let requests = requests(&server);
    let state = requests.read_node(&"w1".into(), &Hub::default()).await.expect("an answer").expect("a node");
    assert_eq!(state.pods.iter().map(|pod| pod.key.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(server.asked().iter().all(|request| !request.query.contains("resourceVersion")), "past every cache");
    assert_eq!(requests.read_node(&"w2".into(), &Hub::default()).await, Ok(None));
}
