//! Writes Events (`events.k8s.io/v1`) on pods and nodes.
//!
//! Not by kube's `Recorder`: it keeps the first words about a thing for six minutes and needs leave to patch. Who
//! writes here says each thing once, so leave to create is enough.

use super::Kubernetes;
use super::errors::{classify, within};
use super::mutate::Requests;
use super::store::Hub;
use crate::ports::outlets::{Note, Subject};
use crate::ports::{ClusterError, EventBoard, OutletError};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::Api;
use kube::api::PostParams;
use std::sync::Arc;

const OUTLET: &str = "events";
/// Who reports, as `kubectl describe` shows it.
const REPORTER: &str = "node-fleet";
/// Where Events about things without a namespace live.
const DEFAULT: &str = "default";
/// The API server's limit of the reporter's instance.
const INSTANCE: usize = 128;
/// Its limit of an object's name, a DNS subdomain of RFC 1123.
const LONGEST_NAME: usize = 253;

/// The Events of a cluster, as an [`EventBoard`].
#[derive(Clone, Debug)]
pub struct Events {
    requests: Requests,
    hub: Arc<Hub>,
    owner: String,
}

impl Kubernetes {
    /// Gives the way to write Events. `owner` is this instance's identity.
    #[must_use]
    pub fn events(&self, owner: &str) -> Events {
        Events { requests: self.requests.clone(), hub: Arc::clone(&self.hub), owner: owner.chars().take(INSTANCE).collect() }
    }
}

impl Events {
    /// Points to the subject.
    ///
    /// # Errors
    /// Where it is not there any more, or nobody knows yet whether it is.
    fn regarding(&self, subject: &Subject) -> Result<ObjectReference, OutletError> {
        let (kind, name, namespace, uid) = match subject {
            Subject::Pod(key) => {
                let unlisted = || OutletError::Unavailable { outlet: OUTLET, why: "the pods are not listed yet".to_owned() };
                // As it was known last, while the watches fail.
                let view = self.hub.cached_view().ok_or_else(unlisted)?;
                let pod = view.pods.iter().find(|pod| pod.key == *key).ok_or(OutletError::Gone { outlet: OUTLET })?;
                ("Pod", key.name.clone(), Some(key.namespace.clone()), pod.uid.clone())
            }
            Subject::Node(node) => ("Node", node.name.to_string(), None, node.uid.clone()),
        };
        Ok(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some(kind.to_owned()),
            name: Some(name),
            namespace,
            uid: Some(uid),
            ..ObjectReference::default()
        })
    }
}

impl EventBoard for Events {
    async fn write(&self, note: &Note) -> Result<(), OutletError> {
        let regarding = self.regarding(&note.about)?;
        let namespace = regarding.namespace.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let api: Api<Event> = Api::namespaced(self.requests.client.clone(), &namespace);
        let event = event(note, regarding, &namespace, &self.owner);
        let call = "create events";
        let outcome = match within(self.requests.deadline, call, api.create(&PostParams::default(), &event)).await {
            Ok(Err(error)) if is_terminating(&error) => Err(ClusterError::Gone { call }),
            Ok(outcome) => outcome.map_err(|error| classify(call, &error)),
            Err(late) => Err(late),
        };
        match outcome {
            // Its name says what it is and when: it is there already.
            Ok(_) | Err(ClusterError::Conflict { .. }) => Ok(()),
            Err(ClusterError::Gone { .. }) => Err(OutletError::Gone { outlet: OUTLET }),
            Err(ClusterError::Unavailable { why, .. }) => Err(OutletError::Unavailable { outlet: OUTLET, why }),
            Err(error @ ClusterError::Denied { .. }) => Err(OutletError::Denied { outlet: OUTLET, why: error.to_string() }),
            Err(ClusterError::Invalid { why, .. }) => Err(OutletError::Unacceptable { outlet: OUTLET, why }),
        }
    }
}

/// Tells whether the namespace is being deleted: the API server forbids to create anything in it.
fn is_terminating(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == "NamespaceTerminating")
}

/// Names an Event as kube and client-go do: the thing, as far as there is room, and the time. The reason keeps two of one
/// moment apart.
fn name(about: &str, note: &Note) -> String {
    let end = format!(".{}.{:x}", note.reason.to_lowercase(), note.at.as_nanosecond());
    let about: String = about.chars().take(LONGEST_NAME - end.len()).collect();
    // Each part of a name ends with a letter or a digit.
    about.trim_end_matches(['.', '-']).to_owned() + &end
}

fn event(note: &Note, regarding: ObjectReference, namespace: &str, owner: &str) -> Event {
    let name = name(regarding.name.as_deref().unwrap_or_default(), note);
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace.to_owned()), ..ObjectMeta::default() },
        action: Some(note.action.to_owned()),
        reason: Some(note.reason.to_owned()),
        note: Some(note.text.clone()),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        event_time: Some(MicroTime(note.at)),
        regarding: Some(regarding),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(owner.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::mutate::fake::ApiServer;
    use super::super::store::tests::listed;
    use super::*;
    use crate::model::PodKey;
    use crate::model::plan::NodeRef;
    use jiff::Timestamp;
    use serde_json::json;
    use std::time::Duration;

    fn note(about: Subject) -> Note {
        let (reason, action, text) = ("ScaleDown", "ScaleDown", "the pool needs less".to_owned());
        Note { about, warning: false, reason, action, text, at: Timestamp::UNIX_EPOCH }
    }

    fn node() -> Subject {
        Subject::Node(NodeRef { name: "worker-1".into(), uid: "u-1".into() })
    }

    fn events(server: &ApiServer) -> Events {
        let requests = Requests { client: server.client(), deadline: Duration::from_secs(1) };
        Events { requests, hub: Arc::default(), owner: "server-1".to_owned() }
    }

    #[tokio::test]
    async fn an_event_of_a_node_is_created_where_describe_looks_for_it() {
        let server = ApiServer::new(|request| (201, request.body.clone()));
        assert_eq!(events(&server).write(&note(node())).await, Ok(()));
        let asked = server.asked();
        assert_eq!(asked[0].path, "/apis/events.k8s.io/v1/namespaces/default/events");
        let body = &asked[0].body;
        assert_eq!((&body["reason"], &body["regarding"]["uid"], &body["type"]), (&json!("ScaleDown"), &json!("u-1"), &json!("Normal")));
        assert_eq!(body["metadata"]["name"], "worker-1.scaledown.0");
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_is_not_written_about() {
        let server = ApiServer::new(|_| (500, json!({})));
        let about = || note(Subject::Pod(PodKey::default()));
        let unknown = events(&server).write(&about()).await.expect_err("nothing is listed");
        assert_eq!(unknown.class(), "unavailable", "it is tried again");
        let listed = Events { hub: Arc::new(listed(Vec::new())), ..events(&server) };
        assert_eq!(listed.write(&about()).await, Err(OutletError::Gone { outlet: OUTLET }));
        assert!(server.asked().is_empty());
    }

    #[tokio::test]
    async fn a_refusal_names_the_role_and_a_repetition_is_a_success() {
        let refused = ApiServer::new(|_| (403, json!({"kind": "Status", "code": 403, "message": "no", "reason": "Forbidden"})));
        let error = events(&refused).write(&note(node())).await.expect_err("it is refused");
        assert!(error.class() == "denied" && error.to_string().contains("rbac.yaml"), "{error}");
        let again = ApiServer::new(|_| (409, json!({"kind": "Status", "code": 409, "message": "exists", "reason": "AlreadyExists"})));
        assert_eq!(events(&again).write(&note(node())).await, Ok(()));
    }

    #[tokio::test]
    async fn a_namespace_that_goes_or_is_gone_is_no_lack_of_rights() {
        let causes = json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace", "message": "it is being terminated"}]);
        let going = json!({"kind": "Status", "code": 403, "reason": "Forbidden", "message": "no", "details": {"causes": causes}});
        let gone = json!({"kind": "Status", "code": 404, "reason": "NotFound", "message": "no"});
        for (code, body) in [(403, going), (404, gone)] {
            let server = ApiServer::new(move |_| (code, body.clone()));
            assert_eq!(events(&server).write(&note(node())).await, Err(OutletError::Gone { outlet: OUTLET }));
        }
    }

    #[test]
    fn a_name_keeps_the_servers_limit_and_form() {
        let note = note(node());
        assert_eq!(name("worker-1", &note), "worker-1.scaledown.0");
        for about in ["a".repeat(253), "a.".repeat(126) + "a", format!("a{}aa", "a-".repeat(125))] {
            let name = name(&about, &note);
            assert!((250..=253).contains(&name.len()) && name.ends_with("a.scaledown.0"), "{name}");
        }
    }
}
