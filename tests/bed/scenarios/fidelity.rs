//! The scheduling model against the scheduler itself: random pods are put to both, one at a time, on random nodes
//! with random residents. Where the two differ, the model is wrong.
//!
//! The model knows nodes and pods from the daemon's own adapter, so what that makes of them is under test, too.

mod manifests;
mod volumes;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use node_fleet::adapters::kubernetes::Kubernetes;
use node_fleet::adapters::system_clock::SystemClock;
use node_fleet::config::KubernetesConfig;
use node_fleet::model::{self, ClusterView, NodeName, PodKey};
use node_fleet::policy::{Misfit, survey};
use node_fleet::ports::Cluster as _;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use self::manifests::NAMESPACES;
use crate::bed::{Bed, SERVER_NODE};
use crate::cluster::{Cluster, ignore, is_ready};
use crate::wait::{Seen, until};

/// How many pods are tried.
const CASES: (&str, u64) = ("NODE_FLEET_BED_FIDELITY_CASES", 300);
/// What they are drawn from.
const SEED: (&str, u64) = ("NODE_FLEET_BED_FIDELITY_SEED", 20_250_601);
/// The streams of randomness from here on are for clusters, those before for cases.
const CLUSTERS: u64 = 1 << 32;
/// The longest wait for anything.
const LIMIT: Duration = Duration::from_secs(20);
/// What a case takes at most on average, its share of a cluster included.
const CASE: Duration = Duration::from_millis(600);
/// So many disagreements are told in full.
const TOLD: usize = 5;

/// Pods go where the model says that they fit, and wait where it says that they do not.
pub async fn pods_fit_where_the_model_says(bed: &mut Bed) -> Result<()> {
    let (seed, cases) = (setting(SEED)?, setting(CASES)?);
    println!("  {cases} cases from seed {seed}");
    let mut trial = Trial::begin(bed).await?;
    let mut tally = Tally::default();
    let (mut clusters, mut left) = (0, 0);
    for case in 0..cases {
        if left == 0 {
            let mut random = open(seed, CLUSTERS + clusters);
            trial.set_up(&mut random, clusters).await.with_context(|| format!("cluster {clusters}"))?;
            left = random.random_range(20..=30);
            clusters += 1;
        }
        left -= 1;
        let outcome = trial.try_pod(&mut open(seed, case), case).await.with_context(|| format!("case {case}"))?;
        tally.count(outcome);
    }
    tally.close(cases)
}

/// How long all cases may take.
pub fn limit() -> Duration {
    // A bad number is told by the scenario.
    let cases = setting(CASES).unwrap_or(CASES.1);
    CASE.saturating_mul(u32::try_from(cases).unwrap_or(u32::MAX))
}

/// Reads a number from the environment, or gives the usual one.
fn setting((variable, usual): (&str, u64)) -> Result<u64> {
    let Some(text) = std::env::var_os(variable) else { return Ok(usual) };
    let number = text.to_str().and_then(|text| text.parse::<u64>().ok()).filter(|number| *number > 0);
    let text = text.display();
    number.with_context(|| format!("{variable}=`{text}` is no whole number above zero; right would be `{usual}`, or nothing for the same"))
}

/// Opens a stream of randomness: a case draws the same whatever came before it.
fn open(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(stream);
    random
}

/// The cluster in which pods are tried, and what was made in it.
struct Trial {
    cluster: Cluster,
    kubernetes: Kubernetes,
    /// What scheduling looks at of each node.
    nodes: BTreeMap<String, Value>,
    residents: BTreeMap<PodKey, Resident>,
    /// How many volumes nodes attach, of those that say so.
    limits: BTreeMap<String, i32>,
}

/// A pod that lies on a node.
struct Resident {
    uid: String,
    node: String,
    is_terminating: bool,
    manifest: Value,
}

/// What the scheduler says of a pod.
enum Verdict {
    Bound(String),
    Unschedulable(String),
}

/// What the model says of each node that takes pods.
type Opinion = BTreeMap<NodeName, Result<(), Misfit>>;

enum Outcome {
    Agree { bound: bool },
    Unmodelled,
    Disagree(String),
}

impl Trial {
    /// Makes the namespaces and lets the daemon's adapter watch, with the daemon's own rights.
    async fn begin(bed: &Bed) -> Result<Self> {
        for namespace in NAMESPACES {
            bed.cluster.create_namespace(namespace).await?;
        }
        let settings =
            KubernetesConfig { kubeconfig: Some(bed.control_plane.daemon.clone()), timeout: Duration::from_secs(5), events: false };
        let kubernetes = Kubernetes::connect(&settings, SystemClock::new()).await.context("the daemon's adapter")?;
        Ok(Self { cluster: bed.cluster.clone(), kubernetes, nodes: BTreeMap::new(), residents: BTreeMap::new(), limits: BTreeMap::new() })
    }

    /// Replaces the cluster by a new one, with residents, that the scheduler knows.
    async fn set_up(&mut self, random: &mut ChaCha8Rng, number: u64) -> Result<()> {
        self.tear_down().await?;
        let names: Vec<String> = (0..random.random_range(4..=8)).map(|node| format!("fidelity-{number}-{node}")).collect();
        for name in &names {
            let node: Node = serde_json::from_value(manifests::node(random, name))?;
            self.cluster.nodes_api().create(&PostParams::default(), &node).await.with_context(|| format!("create node {name}"))?;
        }
        for name in &names {
            if let Some(limit) = volumes::limit(random) {
                volumes::set_limit(&self.cluster.client, name, limit).await?;
                self.limits.insert(name.clone(), limit);
            }
        }
        let nodes = self.settled_nodes(names.len() + 1).await?;
        for (name, node) in &nodes {
            self.probe(name, node).await?;
        }
        self.nodes = nodes.iter().map(|(name, node)| (name.clone(), traits(node))).collect();
        for name in &names {
            for resident in 0..random.random_range(0..=3) {
                let manifest = manifests::resident(random, &format!("resident-{resident}-of-{name}"), name);
                let is_terminating = random.random_bool(0.1);
                self.move_in(manifest, name, is_terminating).await?;
            }
        }
        Ok(())
    }

    /// Removes all pods, and all nodes but the server.
    async fn tear_down(&mut self) -> Result<()> {
        let now = DeleteParams::default().grace_period(0);
        for namespace in NAMESPACES {
            self.pods(namespace).delete_collection(&now, &ListParams::default()).await?;
        }
        for name in self.cluster.nodes().await?.keys().filter(|name| *name != SERVER_NODE) {
            self.cluster.delete_node(name).await?;
        }
        volumes::clear(&self.cluster.client, &NAMESPACES).await?;
        self.residents.clear();
        self.limits.clear();
        self.nodes = BTreeMap::from([(SERVER_NODE.to_owned(), Value::Null)]);
        self.view().await?;
        Ok(())
    }

    /// Waits until all nodes are Ready and no controller has a taint on them.
    async fn settled_nodes(&self, count: usize) -> Result<BTreeMap<String, Node>> {
        until(&format!("{count} settled nodes"), LIMIT, async || {
            let nodes = self.cluster.nodes().await?;
            let settled = nodes.values().filter(|node| is_settled(node)).count();
            let seen = format!("{settled} of {}", nodes.len());
            Ok(if settled == count && nodes.len() == count { Seen::Done(nodes) } else { Seen::NotYet(seen) })
        })
        .await
    }

    /// Waits until the scheduler knows a node as it is: news of nodes and of pods come to it on different ways.
    async fn probe(&self, name: &str, node: &Node) -> Result<()> {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        let manifest = manifests::probe(name, &json!(taints));
        until(&format!("the scheduler to know node {name}"), LIMIT, async || {
            let key = key_of(&self.create(&manifest).await?);
            let verdict = self.verdict(&key).await;
            self.kill(&key).await?;
            Ok(match verdict? {
                Verdict::Bound(_) => Seen::Done(()),
                Verdict::Unschedulable(why) => Seen::NotYet(why),
            })
        })
        .await
    }

    /// Puts a pod on a node, past the scheduler.
    async fn move_in(&mut self, manifest: Value, node: &str, is_terminating: bool) -> Result<()> {
        let pod = self.create(&manifest).await?;
        let key = key_of(&pod);
        if is_terminating {
            self.pods(&key.namespace).delete(&key.name, &DeleteParams::default()).await?;
        }
        let uid = pod.metadata.uid.unwrap_or_default();
        self.residents.insert(key, Resident { uid, node: node.to_owned(), is_terminating, manifest });
        Ok(())
    }

    /// Puts a random pod to the scheduler and to the model. Now and then it stays where it was bound.
    async fn try_pod(&mut self, random: &mut ChaCha8Rng, case: u64) -> Result<Outcome> {
        let nodes: Vec<String> = self.nodes.keys().cloned().collect();
        let manifest = manifests::pod(random, &format!("case-{case}"), &nodes);
        let stays = random.random_bool(0.4);
        let view = self.view().await?;
        let key = key_of(&self.create(&manifest).await?);
        let verdict = self.verdict(&key).await?;
        let pod = self.shown(&key).await?;
        let opinion = survey(&view, &pod);
        let outcome = if !pod.constraints.unmodelled.is_empty() {
            Outcome::Unmodelled
        } else if verdict.is_confirmed_by(&opinion) {
            Outcome::Agree { bound: matches!(verdict, Verdict::Bound(_)) }
        } else {
            Outcome::Disagree(format!("case {case}: {verdict}\n{}", self.tell(&manifest, &opinion)))
        };
        match verdict {
            // A pod that is not modelled could repel others, of which the model would know nothing.
            Verdict::Bound(node) if stays && matches!(outcome, Outcome::Agree { .. }) => {
                let uid = pod.uid.clone();
                self.residents.insert(key, Resident { uid, node, is_terminating: false, manifest });
            }
            Verdict::Bound(_) | Verdict::Unschedulable(_) => self.kill(&key).await?,
        }
        Ok(outcome)
    }

    /// Waits until the adapter shows exactly what was made, and gives its view.
    async fn view(&self) -> Result<Arc<ClusterView>> {
        until("the adapter to show what was made, and nothing else", LIMIT, async || {
            let Some(view) = self.kubernetes.cached_view() else { return Ok(Seen::NotYet("no view".to_owned())) };
            let pods = view.pods.iter().filter(|pod| self.residents.get(&pod.key).is_some_and(|resident| resident.is(pod))).count();
            let is_whole = |node: &&model::Node| {
                let limit = node.allocatable.attachments().into_values().next();
                let made = self.limits.get(node.name.as_str()).and_then(|limit| u64::try_from(*limit).ok());
                node.is_ready() && self.nodes.contains_key(node.name.as_str()) && limit == made
            };
            let nodes = view.nodes.values().filter(is_whole).count();
            let whole = (nodes, pods) == (self.nodes.len(), self.residents.len());
            if whole && (view.nodes.len(), view.pods.len()) == (nodes, pods) {
                return Ok(Seen::Done(view));
            }
            let of = |seen: usize, made: usize, shown: usize| format!("{seen} of {made} among {shown}");
            let (nodes, pods) = (of(nodes, self.nodes.len(), view.nodes.len()), of(pods, self.residents.len(), view.pods.len()));
            Ok(Seen::NotYet(format!("nodes: {nodes}; pods: {pods}; refused: {:?}", view.refused)))
        })
        .await
    }

    /// Waits until the adapter shows a pod, and gives it.
    async fn shown(&self, key: &PodKey) -> Result<Arc<model::Pod>> {
        until(&format!("the adapter to show pod {key}"), LIMIT, async || {
            let Some(view) = self.kubernetes.cached_view() else { return Ok(Seen::NotYet("no view".to_owned())) };
            let pod = view.pods.iter().find(|pod| pod.key == *key).cloned();
            let pod = pod.filter(|pod| !pod.constraints.unmodelled.iter().any(|why| why.starts_with("claim")));
            Ok(pod.map_or_else(|| Seen::NotYet(format!("refused: {:?}", view.refused)), Seen::Done))
        })
        .await
    }

    /// Waits until the scheduler has bound a pod or given it up.
    async fn verdict(&self, key: &PodKey) -> Result<Verdict> {
        until(&format!("the scheduler's word on pod {key}"), LIMIT, async || {
            let pod = self.pods(&key.namespace).get(&key.name).await?;
            Ok(Verdict::of(&pod).map_or_else(|| Seen::NotYet("neither bound nor unschedulable".to_owned()), Seen::Done))
        })
        .await
    }

    async fn create(&self, manifest: &Value) -> Result<Pod> {
        volumes::make(&self.cluster.client, manifest).await?;
        let pod: Pod = serde_json::from_value(manifest.clone())?;
        let created = self.pods(&key_of(&pod).namespace).create(&PostParams::default(), &pod).await;
        created.with_context(|| format!("create pod {manifest}"))
    }

    async fn kill(&self, key: &PodKey) -> Result<()> {
        ignore(self.pods(&key.namespace).delete(&key.name, &DeleteParams::default().grace_period(0)).await, 404)
    }

    fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), namespace)
    }

    /// Tells of a pod, of each node with what the model says of it, and of what lies there.
    fn tell(&self, manifest: &Value, opinion: &Opinion) -> String {
        let mut lines = vec![format!("  pod {manifest}")];
        for (name, node) in &self.nodes {
            let says = match opinion.get(name.as_str()) {
                Some(Ok(())) => "it fits".to_owned(),
                Some(Err(misfit)) => misfit.to_string(),
                None => "the node takes no pods".to_owned(),
            };
            lines.push(format!("  the model of {name}: {says}; {node}"));
        }
        for resident in self.residents.values() {
            let state = if resident.is_terminating { "terminating on" } else { "on" };
            lines.push(format!("  {state} {}: {}", resident.node, resident.manifest));
        }
        lines.join("\n")
    }
}

impl Resident {
    fn is(&self, pod: &model::Pod) -> bool {
        let node = pod.node.as_ref().map(NodeName::as_str);
        pod.uid == self.uid && node == Some(self.node.as_str()) && pod.terminating_since.is_some() == self.is_terminating
    }
}

impl Verdict {
    /// Reads it from a pod, once there is one.
    fn of(pod: &Pod) -> Option<Self> {
        if let Some(node) = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()) {
            return Some(Self::Bound(node));
        }
        let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
        let refused = conditions.find(|it| it.type_ == "PodScheduled" && it.reason.as_deref() == Some("Unschedulable"))?;
        // The scheduler has not seen the pod's volumes yet, and will look again.
        if refused.message.as_ref().is_some_and(|message| message.contains("not found")) {
            return None;
        }
        Some(Self::Unschedulable(refused.message.clone().unwrap_or_default()))
    }

    /// Tells whether the model says the same.
    fn is_confirmed_by(&self, opinion: &Opinion) -> bool {
        match self {
            Self::Bound(node) => opinion.get(node.as_str()).is_some_and(Result::is_ok),
            Self::Unschedulable(_) => opinion.values().all(Result::is_err),
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(node) => write!(formatter, "the scheduler has bound it to {node}"),
            Self::Unschedulable(why) => write!(formatter, "the scheduler says: {why}"),
        }
    }
}

/// What has come of the cases so far.
#[derive(Default)]
struct Tally {
    agree: u64,
    bound: u64,
    unmodelled: u64,
    disagreements: Vec<String>,
}

impl Tally {
    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Agree { bound } => {
                self.agree += 1;
                self.bound += u64::from(bound);
            }
            Outcome::Unmodelled => self.unmodelled += 1,
            Outcome::Disagree(text) => self.disagreements.push(text),
        }
    }

    /// Sums up, and fails when the model was wrong or had too little to say.
    fn close(self, cases: u64) -> Result<()> {
        let Self { agree, bound, unmodelled, disagreements } = self;
        let sum = format!("{cases} cases, {agree} agree, {unmodelled} unmodelled, {} disagree", disagreements.len());
        println!("  {sum}; of those that agree {bound} were bound");
        let (full, rest) = disagreements.split_at(disagreements.len().min(TOLD));
        let told: Vec<&str> = full.iter().map(String::as_str).chain(rest.iter().filter_map(|text| text.lines().next())).collect();
        ensure!(disagreements.is_empty(), "{sum}:\n{}", told.join("\n"));
        ensure!(unmodelled * 10 < cases, "{sum}: fewer than a tenth may be unmodelled");
        Ok(())
    }
}

fn key_of(pod: &Pod) -> PodKey {
    PodKey { namespace: pod.metadata.namespace.clone().unwrap_or_default(), name: pod.metadata.name.clone().unwrap_or_default() }
}

fn is_settled(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    is_ready(node) && taints.all(|taint| !taint.key.starts_with("node.kubernetes.io/"))
}

/// Gives what scheduling looks at of a node.
fn traits(node: &Node) -> Value {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    json!({"labels": node.metadata.labels, "taints": taints, "allocatable": allocatable})
}
