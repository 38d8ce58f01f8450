//! Writes Events (`events.k8s.io/v1`) on pods and nodes.
//!
//! Not by kube's `Recorder`: it keeps the first words about a thing for six minutes and needs leave to patch. Who
//! writes here says each thing once, so leave to create is enough.

use super::Kubernetes;
use super::errors::ask;
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
/// The API server's limits of two fields.
const INSTANCE: usize = 128;

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
    /// Points to the subject; `None` where it is not there any more.
    fn regarding(&self, subject: &Subject) -> Option<ObjectReference> {
        let (kind, name, namespace, uid) = match subject {
            Subject::Pod(key) => {
                let view = self.hub.view().ok()?;
                let pod = view.pods.iter().find(|pod| pod.key == *key)?;
                ("Pod", key.name.clone(), Some(key.namespace.clone()), pod.uid.clone())
            }
            Subject::Node(node) => ("Node", node.name.to_string(), None, node.uid.clone()),
        };
        Some(ObjectReference {
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
        let Some(regarding) = self.regarding(&note.about) else { return Ok(()) };
        let namespace = regarding.namespace.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let api: Api<Event> = Api::namespaced(self.requests.client.clone(), &namespace);
        let event = event(note, regarding, &namespace, &self.owner);
        match ask(self.requests.deadline, "create events", api.create(&PostParams::default(), &event)).await {
            // Its name says what it is and when: it is there already, or its namespace is going.
            Ok(_) | Err(ClusterError::Conflict { .. } | ClusterError::Gone { .. }) => Ok(()),
            Err(ClusterError::Unavailable { why, .. }) => Err(OutletError::Unavailable { outlet: OUTLET, why }),
            Err(error @ ClusterError::Denied { .. }) => Err(OutletError::Denied { outlet: OUTLET, why: error.to_string() }),
            Err(ClusterError::Invalid { why, .. }) => Err(OutletError::Unacceptable { outlet: OUTLET, why }),
        }
    }
}

fn event(note: &Note, regarding: ObjectReference, namespace: &str, owner: &str) -> Event {
    let about = regarding.name.clone().unwrap_or_default();
    // As kube and client-go name them: the thing and the time. The reason keeps two of one moment apart.
    let name = format!("{about}.{}.{:x}", note.reason.to_lowercase(), note.at.as_nanosecond());
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
        assert_eq!(events(&server).write(&note(Subject::Pod(PodKey::default()))).await, Ok(()));
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
}
