//! What node-fleet reads past its watches, and what it changes.
//!
//! Each change is bound to the object's unique id or version, so that a successor of the same
//! name is never hit, and each can be repeated without harm.

use super::convert_node::node;
use super::convert_pod::pod;
use super::errors::{ask, classify, whole, within};
use super::store::Hub;
use super::wire::{self, CORDONED_BY, WAS_CORDONED, annotation};
use crate::model::node::instance_of_provider_id;
use crate::model::plan::NodeRef;
use crate::model::scheduling::INTERRUPTED_TAINT;
use crate::model::{InstanceId, NodeName, OperationId, Pod, PodKey};
use crate::ports::{ClusterError, Cordon, Eviction, NodeState};
use k8s_openapi::api::core::v1::Taint;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta, Preconditions as UidPrecondition};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How often a change is tried again that someone else's change came before.
const ATTEMPTS: usize = 3;

/// Pods or nodes in one page of a list.
const PAGE: u32 = 250;

/// The most pages of one list: more than any cluster has pods on a node, or nodes.
const PAGES: usize = 400;

/// Requests to the API server. The deadline is for each call as a whole, however many requests it takes.
#[derive(Clone)]
pub(super) struct Requests {
    pub(super) client: Client,
    pub(super) deadline: Duration,
}

impl fmt::Debug for Requests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Requests").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

impl Requests {
    /// Reads a node and its living pods. Without a resource version both are the latest there are.
    pub(super) async fn read_node(&self, name: &NodeName, hub: &Hub) -> Result<Option<NodeState>, ClusterError> {
        let call = "get nodes";
        let reading = async {
            let Some(object) = self.get_node(name).await? else {
                return Ok(None);
            };
            let read = node(object).map_err(|why| ClusterError::Invalid { call, why })?;
            Ok(Some(NodeState { node: read, pods: self.pods_of(name, hub).await? }))
        };
        whole(self.deadline, call, reading).await
    }

    async fn pods_of(&self, name: &NodeName, hub: &Hub) -> Result<Vec<Pod>, ClusterError> {
        let call = "list pods";
        let api: Api<wire::Pod> = Api::all(self.client.clone());
        let fields = format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed");
        let mut pods = Vec::new();
        let take = |objects: Vec<wire::Pod>| {
            for object in objects {
                let name = object.metadata.name.clone().unwrap_or_default();
                match hub.with_volumes(|volumes, interner| pod(object, volumes, interner)) {
                    None => {}
                    Some(Ok(entry)) => pods.push(Arc::unwrap_or_clone(entry.pod)),
                    Some(Err(why)) => return Err(ClusterError::Invalid { call, why: format!("pod {name}: {why}") }),
                }
            }
            Ok(None::<()>)
        };
        self.pages(call, &api, ListParams::default().fields(&fields), take).await?;
        pods.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(pods)
    }

    /// Reads a list page by page until `take` has found what it looks for.
    async fn pages<K, T>(
        &self,
        call: &'static str,
        api: &Api<K>,
        params: ListParams,
        mut take: impl FnMut(Vec<K>) -> Result<Option<T>, ClusterError>,
    ) -> Result<Option<T>, ClusterError>
    where
        K: Clone + DeserializeOwned + fmt::Debug,
    {
        let mut params = params.limit(PAGE);
        for _ in 0..PAGES {
            let page = ask(self.deadline, call, api.list(&params)).await?;
            if let Some(found) = take(page.items)? {
                return Ok(Some(found));
            }
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(None),
            }
        }
        Err(ClusterError::Invalid { call, why: format!("the list has more than {PAGES} pages") })
    }

    /// Looks for the node of an instance among all nodes, by nothing but their provider ids.
    pub(super) async fn node_of(&self, instance: &InstanceId) -> Result<Option<NodeName>, ClusterError> {
        let call = "list nodes";
        let is_it = |object: &wire::Node| {
            let id = object.spec.as_ref().and_then(|spec| spec.provider_id.as_deref()).and_then(instance_of_provider_id);
            id.as_ref() == Some(instance)
        };
        let take = |objects: Vec<wire::Node>| {
            let found = objects.into_iter().find(is_it);
            Ok(found.map(|object| NodeName::new(object.metadata.name.unwrap_or_default())))
        };
        let nodes = self.nodes();
        whole(self.deadline, call, self.pages(call, &nodes, ListParams::default(), take)).await
    }

    /// Takes a node out of service.
    pub(super) async fn cordon(&self, node: &NodeRef, cordon: &Cordon) -> Result<(), ClusterError> {
        self.patch_node(node, |object| cordon_patch(object, cordon)).await
    }

    /// Takes back what [`Self::cordon`] did for the operation. A node that it has not cordoned stays as it is.
    pub(super) async fn uncordon(&self, node: &NodeRef, operation: &OperationId) -> Result<(), ClusterError> {
        self.patch_node(node, |object| uncordon_patch(object, operation)).await
    }

    /// Asks for the eviction of the pod with this unique id.
    pub(super) async fn evict(&self, pod: &PodKey, uid: &str) -> Result<Eviction, ClusterError> {
        let call = "create pods/eviction";
        let api: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        // kube's own `evict` writes the field as `delete_options`, which the API server ignores,
        // and with it the precondition.
        let eviction = policy::Eviction {
            metadata: ObjectMeta { name: Some(pod.name.clone()), namespace: Some(pod.namespace.clone()), ..ObjectMeta::default() },
            delete_options: Some(DeleteOptions {
                preconditions: Some(UidPrecondition { uid: Some(uid.to_owned()), resource_version: None }),
                ..DeleteOptions::default()
            }),
        };
        let params = PostParams::default();
        let asking = async {
            let request = api.create_subresource::<_, Value>("eviction", &pod.name, &params, &eviction);
            match within(self.deadline, call, request).await? {
                Ok(_) => Ok(Eviction::Accepted),
                // Either another pod has the name by now, or someone changes it at this moment.
                Err(kube::Error::Api(status)) if status.code == 409 => match self.uid_of(pod).await? {
                    Some(now) if now == uid => Err(ClusterError::Conflict { call }),
                    Some(_) | None => Ok(Eviction::Gone),
                },
                Err(kube::Error::Api(status)) => match refused_eviction(&status) {
                    Some(outcome) => Ok(outcome),
                    None => Err(classify(call, &kube::Error::Api(status))),
                },
                Err(error) => Err(classify(call, &error)),
            }
        };
        whole(self.deadline, call, asking).await
    }

    /// Reads the unique id of the pod that has this name: by a list, for which the permission is there.
    async fn uid_of(&self, pod: &PodKey) -> Result<Option<String>, ClusterError> {
        let api: Api<wire::Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let params = ListParams::default().fields(&format!("metadata.name={}", pod.name));
        self.pages("list pods", &api, params, |objects| Ok(objects.into_iter().find_map(|object| object.metadata.uid))).await
    }

    /// Deletes a node's object, if it is still the one meant.
    pub(super) async fn delete_node(&self, node: &NodeRef) -> Result<(), ClusterError> {
        let call = "delete nodes";
        let preconditions = Some(Preconditions { uid: Some(node.uid.clone()), resource_version: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        let nodes = self.nodes();
        let deleting = async {
            match ask(self.deadline, call, nodes.delete(node.name.as_str(), &params)).await {
                Ok(_) | Err(ClusterError::Gone { .. }) => Ok(()),
                // Either another node has its name by now, or someone changes it at this moment.
                Err(conflict @ ClusterError::Conflict { .. }) => match self.get_node(&node.name).await? {
                    Some(object) if object.metadata.uid.as_deref() == Some(node.uid.as_str()) => Err(conflict),
                    Some(_) | None => Ok(()),
                },
                Err(error) => Err(error),
            }
        };
        whole(self.deadline, call, deleting).await
    }

    /// Changes the node by a patch that is made from what it is.
    async fn patch_node(&self, node: &NodeRef, make: impl Fn(&wire::Node) -> Option<Value>) -> Result<(), ClusterError> {
        let call = "patch nodes";
        whole(self.deadline, call, self.read_and_patch(call, node, make)).await
    }

    /// Reads the node, makes a patch from it and sends it, bound to the version that was read.
    async fn read_and_patch(
        &self,
        call: &'static str,
        node: &NodeRef,
        make: impl Fn(&wire::Node) -> Option<Value>,
    ) -> Result<(), ClusterError> {
        for _ in 0..ATTEMPTS {
            let object = self.get_node(&node.name).await?.ok_or(ClusterError::Gone { call })?;
            if object.metadata.uid.as_deref() != Some(node.uid.as_str()) {
                return Err(ClusterError::Gone { call });
            }
            let Some(version) = &object.metadata.resource_version else {
                return Err(ClusterError::Invalid { call, why: "the node has no resource version".to_owned() });
            };
            let Some(mut patch) = make(&object) else {
                return Ok(());
            };
            patch["metadata"]["resourceVersion"] = json!(version);
            patch["metadata"]["uid"] = json!(node.uid);
            let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
            match ask(self.deadline, call, self.nodes().patch(node.name.as_str(), &params, &patch)).await {
                Ok(_) => return Ok(()),
                Err(ClusterError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ClusterError::Conflict { call })
    }

    async fn get_node(&self, name: &NodeName) -> Result<Option<wire::Node>, ClusterError> {
        ask(self.deadline, "get nodes", self.nodes().get_opt(name.as_str())).await
    }

    fn nodes(&self) -> Api<wire::Node> {
        Api::all(self.client.clone())
    }
}

/// Makes the patch that takes a node out of service; `None` when nothing is left to do.
fn cordon_patch(object: &wire::Node, cordon: &Cordon) -> Option<Value> {
    let cordoned_by = annotation(&object.metadata, CORDONED_BY);
    let cordoned = is_cordoned(object);
    let taints = taints(object);
    let add_taint = cordon.taint && !taints.iter().any(is_ours);
    if cordoned && cordoned_by == Some(cordon.operation.as_str()) && !add_taint {
        return None;
    }
    let mut annotations = json!({ CORDONED_BY: cordon.operation });
    if !cordoned {
        annotations[WAS_CORDONED] = Value::Null;
    } else if cordoned_by.is_none() {
        // Someone else has cordoned it: it must stay so when node-fleet takes back its own part.
        annotations[WAS_CORDONED] = json!("true");
    }
    let mut patch = json!({"metadata": {"annotations": annotations}, "spec": {"unschedulable": true}});
    if add_taint {
        let ours = Taint { key: INTERRUPTED_TAINT.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() };
        let all: Vec<&Taint> = taints.iter().chain([&ours]).collect();
        patch["spec"]["taints"] = json!(all);
    }
    Some(patch)
}

/// Makes the patch that takes back what the operation did; `None` when it has done nothing.
fn uncordon_patch(object: &wire::Node, operation: &OperationId) -> Option<Value> {
    let taints = taints(object);
    let tainted = taints.iter().any(is_ours);
    let cordoned_by = annotation(&object.metadata, CORDONED_BY);
    let cordoned_by_us = cordoned_by == Some(operation.as_str());
    if cordoned_by.map_or(!tainted, |_| !cordoned_by_us) {
        return None;
    }
    let mut patch = json!({"metadata": {"annotations": {CORDONED_BY: null, WAS_CORDONED: null}}, "spec": {}});
    if cordoned_by_us && annotation(&object.metadata, WAS_CORDONED) != Some("true") {
        patch["spec"]["unschedulable"] = Value::Null;
    }
    if tainted {
        let others: Vec<&Taint> = taints.iter().filter(|taint| !is_ours(taint)).collect();
        patch["spec"]["taints"] = if others.is_empty() { Value::Null } else { json!(others) };
    }
    Some(patch)
}

fn is_cordoned(object: &wire::Node) -> bool {
    object.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

fn taints(object: &wire::Node) -> &[Taint] {
    object.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn is_ours(taint: &Taint) -> bool {
    taint.key == INTERRUPTED_TAINT
}

/// Tells what a refusal means for an eviction; `None` when it is a failure.
fn refused_eviction(status: &Status) -> Option<Eviction> {
    match status.code {
        404 => Some(Eviction::Gone),
        // Flow control answers 429 as well, but in plain text and about the caller, not about the pod.
        429 if status.reason == "TooManyRequests" => Some(Eviction::Blocked),
        // A pod of two budgets cannot be evicted for as long as it is.
        500 if status.message.contains("more than one PodDisruptionBudget") => Some(Eviction::Blocked),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod fake {
    //! An API server that answers from a function and remembers what it was asked.

    use kube::Client;
    use kube::client::Body;
    use serde_json::Value;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    /// An answer that never comes.
    pub(in super::super) const HANGS: (u16, Value) = (0, Value::Null);

    #[derive(Clone, Debug, PartialEq)]
    pub(in super::super) struct Request {
        pub(in super::super) method: String,
        pub(in super::super) path: String,
        pub(in super::super) query: String,
        pub(in super::super) body: Value,
    }

    type Answer = dyn Fn(&Request) -> (u16, Value) + Send + Sync;

    #[derive(Clone)]
    pub(in super::super) struct ApiServer {
        answer: Arc<Answer>,
        asked: Arc<Mutex<Vec<Request>>>,
        delay: Duration,
    }

    impl ApiServer {
        pub(in super::super) fn new(answer: impl Fn(&Request) -> (u16, Value) + Send + Sync + 'static) -> Self {
            Self { answer: Arc::new(answer), asked: Arc::default(), delay: Duration::ZERO }
        }

        /// Lets every answer take so long.
        pub(in super::super) fn after(self, delay: Duration) -> Self {
            Self { delay, ..self }
        }

        pub(in super::super) fn client(&self) -> Client {
            let server = self.clone();
            let service = tower::service_fn(move |request: hyper::Request<Body>| {
                let server = server.clone();
                async move {
                    let (parts, body) = request.into_parts();
                    let body = body.collect_bytes().await?;
                    let request = Request {
                        method: parts.method.to_string(),
                        path: parts.uri.path().to_owned(),
                        query: parts.uri.query().unwrap_or_default().to_owned(),
                        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                    };
                    let (code, answer) = (server.answer)(&request);
                    server.asked.lock().expect("no panic").push(request);
                    if code == 0 {
                        std::future::pending::<()>().await;
                    }
                    if !server.delay.is_zero() {
                        tokio::time::sleep(server.delay).await;
                    }
                    let response = hyper::Response::builder().status(code).body(Body::from(answer.to_string().into_bytes()));
                    Ok::<_, tower::BoxError>(response.expect("a response"))
                }
            });
            Client::new(service, "default")
        }

        pub(in super::super) fn asked(&self) -> Vec<Request> {
            self.asked.lock().expect("no panic").clone()
        }
    }
}

#[cfg(test)]
mod tests;
