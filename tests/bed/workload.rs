//! Workloads of the bed: deployments with requests, budgets over them, and what grows and shrinks.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::ResourceExt as _;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::cluster::{Cluster, NAMESPACE, ignore};

/// A deployment in the making.
#[derive(Clone, Debug)]
pub struct Workload {
    name: String,
    replicas: usize,
    cpu: String,
    memory: String,
    annotations: BTreeMap<String, String>,
    /// Merged into the pod's spec.
    pod: Value,
}

impl Workload {
    /// A deployment of `replicas` pods with these requests (`500m`, `256Mi`).
    pub fn new(name: &str, replicas: usize, cpu: &str, memory: &str) -> Self {
        let (cpu, memory) = (cpu.to_owned(), memory.to_owned());
        Self { name: name.to_owned(), replicas, cpu, memory, annotations: BTreeMap::new(), pod: json!({}) }
    }

    /// Annotates the pods.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// The pods take this long to end (`5s`).
    #[must_use]
    pub fn ending_in(self, duration: &str) -> Self {
        self.annotated("bed.node-fleet.io/termination", duration)
    }

    /// Sets a field of the pods' spec: `nodeSelector`, `affinity`, `priorityClassName`, `tolerations`.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.pod[field] = value;
        self
    }

    fn manifest(&self) -> Value {
        let labels = json!({"app": self.name});
        let requests = json!({"cpu": self.cpu, "memory": self.memory});
        let mut pod = self.pod.clone();
        pod["containers"] = json!([{"name": "main", "image": "bed", "resources": {"requests": requests}}]);
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": self.name, "labels": labels},
            "spec": {
                "replicas": self.replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels, "annotations": self.annotations}, "spec": pod},
            },
        })
    }
}

impl Cluster {
    /// Creates or changes a deployment.
    pub async fn apply(&self, workload: &Workload) -> Result<()> {
        let deployments: Api<Deployment> = self.deployments_api();
        let patch = Patch::Apply(workload.manifest());
        let applied = deployments.patch(&workload.name, &PatchParams::apply("bed").force(), &patch).await;
        applied.with_context(|| format!("apply {}", workload.name))?;
        Ok(())
    }

    /// Changes the number of a deployment's pods.
    pub async fn scale(&self, name: &str, replicas: usize) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.deployments_api().patch(name, &PatchParams::default(), &patch).await.with_context(|| format!("scale {name}"))?;
        Ok(())
    }

    /// Has a workload's pods leave evenly over the nodes when it shrinks: Kubernetes leaves that to chance.
    pub async fn leave_evenly(&self, workload: &str) -> Result<()> {
        let mut on_node: BTreeMap<String, usize> = BTreeMap::new();
        for pod in self.pods(workload).await? {
            let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
            let before = on_node.entry(node).or_default();
            let patch = json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": format!("-{before}")}}});
            *before += 1;
            self.pods_api().patch(&pod.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(())
    }

    /// Makes a volume in a zone, with the claim of the same name that is bound to it.
    pub async fn make_volume(&self, name: &str, zone: &str) -> Result<()> {
        let space = json!({"storage": "1Gi"});
        let modes = json!(["ReadWriteOnce"]);
        let there = json!([{"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
            "spec": {
                "capacity": space, "accessModes": modes, "storageClassName": "", "nfs": {"server": "bed", "path": "/"},
                "claimRef": {"namespace": NAMESPACE, "name": name},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": there}]}},
            },
        });
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": modes, "storageClassName": "", "volumeName": name, "resources": {"requests": space}},
        });
        let parameters = PatchParams::apply("bed").force();
        Api::<PersistentVolume>::all(self.client.clone()).patch(name, &parameters, &Patch::Apply(volume)).await.context("the volume")?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), NAMESPACE);
        claims.patch(name, &parameters, &Patch::Apply(claim)).await.context("the claim")?;
        Ok(())
    }

    /// Makes a class of priorities.
    pub async fn make_priority_class(&self, name: &str, value: i32) -> Result<()> {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value});
        let classes: Api<PriorityClass> = Api::all(self.client.clone());
        classes.patch(name, &PatchParams::apply("bed").force(), &Patch::Apply(class)).await.context("the priority class")?;
        Ok(())
    }

    /// Removes a deployment with its pods.
    pub async fn remove(&self, name: &str) -> Result<()> {
        ignore(self.deployments_api().delete(name, &DeleteParams::background()).await, 404)
    }

    /// A disruption budget over the pods of a workload: so many must stay.
    pub async fn keep_available(&self, workload: &str, min_available: usize) -> Result<()> {
        self.budget(workload, json!({"minAvailable": min_available})).await
    }

    /// A disruption budget over the pods of a workload: so many may be away.
    pub async fn allow_unavailable(&self, workload: &str, max_unavailable: usize) -> Result<()> {
        self.budget(workload, json!({"maxUnavailable": max_unavailable})).await
    }

    /// Removes the budget of a workload.
    pub async fn remove_budget(&self, workload: &str) -> Result<()> {
        ignore(self.budgets_api().delete(workload, &DeleteParams::default()).await, 404)
    }

    /// How many pods the budget of a workload lets go now; none until the controller has looked.
    pub async fn allowed_disruptions(&self, workload: &str) -> Result<Option<i32>> {
        let budget = self.budgets_api().get(workload).await?;
        let current = budget.status.as_ref().filter(|status| status.observed_generation == budget.metadata.generation);
        Ok(current.and_then(|status| status.disruptions_allowed))
    }

    async fn budget(&self, workload: &str, limit: Value) -> Result<()> {
        let mut manifest = json!({
            "apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": workload},
            "spec": {"selector": {"matchLabels": {"app": workload}}},
        });
        for (key, value) in limit.as_object().into_iter().flatten() {
            manifest["spec"][key] = value.clone();
        }
        let parameters = PatchParams::apply("bed").force();
        self.budgets_api().patch(workload, &parameters, &Patch::Apply(manifest)).await.with_context(|| format!("budget of {workload}"))?;
        Ok(())
    }

    fn budgets_api(&self) -> Api<PodDisruptionBudget> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }
}
