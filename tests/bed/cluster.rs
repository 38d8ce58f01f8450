//! The bed's hands in Kubernetes: nodes, workloads, budgets, and waiting for what becomes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::kwok;
use crate::offers::REGION;
use crate::wait::{Seen, until};

/// The namespace of the bed's workloads.
pub const NAMESPACE: &str = "work";

/// The taint of a Kubernetes server.
pub const SERVER_ROLE: &str = "node-role.kubernetes.io/control-plane";

/// A client for the cluster's administrator.
#[derive(Clone)]
pub struct Cluster {
    pub client: kube::Client,
}

/// A node that does not exist, played by kwok.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    pub name: String,
    pub provider_id: String,
    pub address: String,
    pub labels: BTreeMap<String, String>,
    /// As the API has them: key, value, effect.
    pub taints: Vec<Value>,
    pub cpus: u32,
    pub memory_mib: u64,
}

impl Cluster {
    /// Makes the namespace of the workloads.
    pub async fn prepare(&self) -> Result<()> {
        self.create_namespace(NAMESPACE).await
    }

    /// Makes a namespace, unless it is there.
    pub async fn create_namespace(&self, name: &str) -> Result<()> {
        let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let made = Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await;
        ignore(made, 409).with_context(|| format!("create namespace {name}"))
    }

    async fn namespaces(&self) -> Result<Vec<String>> {
        let list = Api::<Namespace>::all(self.client.clone()).list_metadata(&ListParams::default()).await?;
        Ok(list.items.into_iter().filter_map(|namespace| namespace.metadata.name).collect())
    }

    /// All nodes by name.
    pub async fn nodes(&self) -> Result<BTreeMap<String, Node>> {
        let list = self.nodes_api().list(&ListParams::default()).await?;
        Ok(list.items.into_iter().map(|node| (node.metadata.name.clone().unwrap_or_default(), node)).collect())
    }

    /// All nodes that are no servers, by name.
    pub async fn workers(&self) -> Result<BTreeMap<String, Node>> {
        let mut nodes = self.nodes().await?;
        nodes.retain(|_, node| node.metadata.labels.as_ref().is_none_or(|labels| !labels.contains_key(SERVER_ROLE)));
        Ok(nodes)
    }

    /// One node.
    pub async fn node(&self, name: &str) -> Result<Option<Node>> {
        Ok(self.nodes_api().get_opt(name).await?)
    }

    /// Registers a node. K3s reserves 100m and 600 MiB of it.
    pub async fn create_node(&self, spec: &NodeSpec) -> Result<()> {
        let mut labels = spec.labels.clone();
        let fixed = [
            ("kubernetes.io/hostname", spec.name.as_str()),
            ("kubernetes.io/arch", "amd64"),
            ("kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", "amd64"),
            ("beta.kubernetes.io/os", "linux"),
            ("topology.kubernetes.io/region", REGION),
        ];
        labels.extend(fixed.map(|(key, value)| (key.to_owned(), value.to_owned())));
        let resources = |cpu: String, memory: u64| json!({"cpu": cpu, "memory": format!("{memory}Mi"), "pods": "110"});
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": spec.name, "labels": labels, "annotations": {kwok::ANNOTATION: "fake"}},
            "spec": {"providerID": spec.provider_id, "taints": spec.taints},
            "status": {
                "capacity": resources(spec.cpus.to_string(), spec.memory_mib),
                "allocatable": resources(format!("{}m", spec.cpus * 1000 - 100), spec.memory_mib - 600),
                "addresses": [{"type": "InternalIP", "address": spec.address}, {"type": "Hostname", "address": spec.name}],
            },
        }))?;
        let made = self.nodes_api().create(&PostParams::default(), &node).await;
        ignore(made, 409).with_context(|| format!("create node {}", spec.name))
    }

    /// The machine of a node is gone: nobody answers for it, and its object stays.
    pub async fn lose_node(&self, name: &str) -> Result<()> {
        self.set_kubelet(name, "gone", "Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.").await
    }

    /// The node is there and not Ready.
    pub async fn make_unready(&self, name: &str) -> Result<()> {
        self.set_kubelet(name, "sick", "False", "KubeletNotReady", "container runtime is down").await
    }

    /// A lost or unready node is Ready again.
    pub async fn make_ready(&self, name: &str) -> Result<()> {
        self.set_kubelet(name, "fake", "True", "KubeletReady", "kubelet is posting ready status").await
    }

    async fn set_kubelet(&self, name: &str, owner: &str, ready: &str, reason: &str, message: &str) -> Result<()> {
        self.annotate_node(name, kwok::ANNOTATION, Some(owner)).await?;
        let condition = json!({"type": "Ready", "status": ready, "reason": reason, "message": message});
        let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
        ignore(self.nodes_api().patch_status(name, &PatchParams::default(), &patch).await, 404)
    }

    /// Sets or removes an annotation of a node.
    pub async fn annotate_node(&self, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.merge_node(name, json!({"metadata": {"annotations": {key: value}}})).await
    }

    /// Sets or removes a label of a node.
    pub async fn label_node(&self, name: &str, key: &str, value: Option<&str>) -> Result<()> {
        self.merge_node(name, json!({"metadata": {"labels": {key: value}}})).await
    }

    /// Sets the taints of a node.
    pub async fn taint_node(&self, name: &str, taints: &[Value]) -> Result<()> {
        self.merge_node(name, json!({"spec": {"taints": taints}})).await
    }

    /// Marks a node unschedulable or schedulable.
    pub async fn cordon_node(&self, name: &str, unschedulable: bool) -> Result<()> {
        self.merge_node(name, json!({"spec": {"unschedulable": unschedulable}})).await
    }

    async fn merge_node(&self, name: &str, patch: Value) -> Result<()> {
        ignore(self.nodes_api().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await, 404)
    }

    /// Removes a node object.
    pub async fn delete_node(&self, name: &str) -> Result<()> {
        ignore(self.nodes_api().delete(name, &DeleteParams::default()).await, 404)
    }

    /// Waits until a node is as the test wants it (`None`: it does not exist).
    pub async fn wait_for_node(&self, name: &str, what: &str, limit: Duration, test: impl Fn(Option<&Node>) -> bool) -> Result<()> {
        until(&format!("node {name} {what}"), limit, async || {
            let node = self.node(name).await?;
            Ok(if test(node.as_ref()) { Seen::Done(()) } else { Seen::NotYet(describe(node.as_ref())) })
        })
        .await
    }

    /// Waits until exactly `count` workers are Ready, and gives their names.
    pub async fn wait_for_ready_workers(&self, count: usize, limit: Duration) -> Result<Vec<String>> {
        until(&format!("{count} Ready workers"), limit, async || {
            let workers = self.workers().await?;
            let ready: Vec<String> = workers.iter().filter(|(_, node)| is_ready(node)).map(|(name, _)| name.clone()).collect();
            let seen = || workers.values().map(|node| describe(Some(node))).collect::<Vec<_>>().join("; ");
            Ok(if ready.len() == count { Seen::Done(ready) } else { Seen::NotYet(format!("{} Ready of: {}", ready.len(), seen())) })
        })
        .await
    }

    /// The pods of one workload.
    pub async fn pods(&self, workload: &str) -> Result<Vec<Pod>> {
        Ok(self.pods_api().list(&ListParams::default().labels(&format!("app={workload}"))).await?.items)
    }

    /// The pods on one node, of all namespaces.
    pub async fn pods_on(&self, node: &str) -> Result<Vec<Pod>> {
        let all: Api<Pod> = Api::all(self.client.clone());
        Ok(all.list(&ListParams::default().fields(&format!("spec.nodeName={node}"))).await?.items)
    }

    /// Waits until exactly `count` pods of a workload run.
    pub async fn wait_for_running(&self, workload: &str, count: usize, limit: Duration) -> Result<Vec<Pod>> {
        self.wait_for_pods(workload, "running", count, limit, is_running).await
    }

    /// Waits until exactly `count` pods of a workload are marked unschedulable.
    pub async fn wait_for_unschedulable(&self, workload: &str, count: usize, limit: Duration) -> Result<Vec<Pod>> {
        self.wait_for_pods(workload, "unschedulable", count, limit, |pod| unschedulable_since(pod).is_some()).await
    }

    async fn wait_for_pods(
        &self,
        workload: &str,
        what: &str,
        count: usize,
        limit: Duration,
        test: impl Fn(&Pod) -> bool,
    ) -> Result<Vec<Pod>> {
        until(&format!("{count} {what} pods of {workload}"), limit, async || {
            let pods = self.pods(workload).await?;
            let all = pods.len();
            let chosen: Vec<Pod> = pods.into_iter().filter(|pod| test(pod)).collect();
            let seen = format!("{} of {all}", chosen.len());
            Ok(if chosen.len() == count { Seen::Done(chosen) } else { Seen::NotYet(seen) })
        })
        .await
    }

    /// Evicts a pod as `kubectl drain` does; the HTTP status tells what became of it.
    pub async fn evict(&self, pod: &str) -> Result<u16> {
        match self.pods_api().evict(pod, &EvictParams::default()).await {
            Ok(_) => Ok(201),
            Err(kube::Error::Api(status)) => Ok(status.code),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a pod without grace.
    pub async fn kill_pod(&self, pod: &str) -> Result<()> {
        ignore(self.pods_api().delete(pod, &DeleteParams::default().grace_period(0)).await, 404)
    }

    /// Applies manifests of cluster roles, bindings and the like, as `kubectl apply` does.
    pub async fn apply_manifests(&self, text: &str) -> Result<()> {
        for document in text.split("\n---").filter(|document| document.contains("kind:")) {
            let field = |key: &str| {
                let line = document.lines().find(|line| line.trim_start().starts_with(&format!("{key}:")))?;
                Some(line.split_once(':')?.1.trim().trim_matches('"').to_owned())
            };
            let (kind, name) = (field("kind").context("a manifest without kind")?, field("name").context("a manifest without name")?);
            let path = match kind.as_str() {
                "ClusterRole" => format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}"),
                "ClusterRoleBinding" => format!("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{name}"),
                "Namespace" => format!("/api/v1/namespaces/{name}"),
                _ => {
                    let namespace = field("namespace").with_context(|| format!("{kind} {name} without namespace"))?;
                    let (group, plural) = match kind.as_str() {
                        "Role" => ("apis/rbac.authorization.k8s.io/v1", "roles"),
                        "RoleBinding" => ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
                        "ServiceAccount" => ("api/v1", "serviceaccounts"),
                        other => anyhow::bail!("the bed cannot apply a {other}"),
                    };
                    format!("/{group}/namespaces/{namespace}/{plural}/{name}")
                }
            };
            let request = axum::http::Request::patch(format!("{path}?fieldManager=bed&force=true"))
                .header("content-type", "application/apply-patch+yaml")
                .body(document.trim_start_matches("---").as_bytes().to_vec())?;
            self.client.request_text(request).await.with_context(|| format!("apply {kind} {name}"))?;
        }
        Ok(())
    }

    /// Removes all workloads, pods, budgets, nodes and events, and waits until there are no pods and nodes.
    pub async fn clear(&self) -> Result<()> {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::background() };
        let all = ListParams::default();
        for path in ["deployments", "statefulsets", "replicasets", "daemonsets"] {
            self.delete_all(&format!("/apis/apps/v1/namespaces/{NAMESPACE}/{path}")).await?;
            self.delete_all(&format!("/apis/apps/v1/namespaces/kube-system/{path}")).await?;
        }
        self.delete_all(&format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs")).await?;
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), NAMESPACE);
        budgets.delete_collection(&DeleteParams::default(), &all).await?;
        self.nodes_api().delete_collection(&DeleteParams::default(), &all).await?;
        let namespaces = self.namespaces().await?;
        for namespace in &namespaces {
            Api::<Event>::namespaced(self.client.clone(), namespace).delete_collection(&DeleteParams::default(), &all).await?;
        }
        until("all pods and nodes to be gone", Duration::from_secs(60), async || {
            for namespace in &namespaces {
                Api::<Pod>::namespaced(self.client.clone(), namespace).delete_collection(&now, &all).await?;
            }
            let pods = Api::<Pod>::all(self.client.clone()).list_metadata(&all).await?.items.len();
            let nodes = self.nodes_api().list_metadata(&all).await?.items.len();
            Ok(if pods + nodes == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{pods} pods and {nodes} nodes")) })
        })
        .await
    }

    async fn delete_all(&self, path: &str) -> Result<()> {
        let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
        let request = axum::http::Request::delete(path).header("content-type", "application/json").body(serde_json::to_vec(&body)?)?;
        self.client.request_text(request).await.with_context(|| format!("delete {path}"))?;
        Ok(())
    }

    /// The API of nodes.
    pub fn nodes_api(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    /// The API of the workloads' pods.
    pub fn pods_api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// The API of the workloads.
    pub fn deployments_api(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}

/// The status of one condition of a node, if it has it.
pub fn node_condition<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind).map(|condition| condition.status.as_str())
}

/// Is the node Ready?
pub fn is_ready(node: &Node) -> bool {
    node_condition(node, "Ready") == Some("True")
}

/// Is the node cordoned?
pub fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false)
}

/// Does the node carry a taint with this key?
pub fn has_taint(node: &Node, key: &str) -> bool {
    node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|taints| taints.iter().any(|taint| taint.key == key))
}

/// Does the pod run, and is it meant to go on?
pub fn is_running(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Since when the scheduler says that no node takes the pod.
pub fn unschedulable_since(pod: &Pod) -> Option<jiff::Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
    (condition.reason.as_deref() == Some("Unschedulable")).then_some(condition.last_transition_time.as_ref()?.0)
}

fn describe(node: Option<&Node>) -> String {
    let Some(node) = node else { return "no such node".to_owned() };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let taints: Vec<&str> = taints.into_iter().flatten().map(|taint| taint.key.as_str()).collect();
    let cordoned = if is_cordoned(node) { ", cordoned" } else { "" };
    format!("{name} Ready={}{cordoned}, taints [{}]", node_condition(node, "Ready").unwrap_or("none"), taints.join(" "))
}

/// Takes one HTTP status for success.
pub fn ignore<T>(result: kube::Result<T>, status: u16) -> Result<()> {
    match result {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(error)) if error.code == status => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Fails unless exactly these nodes exist.
pub fn ensure_nodes(nodes: &BTreeMap<String, Node>, expected: &[&str]) -> Result<()> {
    let names: Vec<&str> = nodes.keys().map(String::as_str).collect();
    ensure!(names == expected, "nodes are {names:?}, not {expected:?}");
    Ok(())
}
