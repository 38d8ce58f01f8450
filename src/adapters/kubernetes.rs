//! Kubernetes: watches that keep a trimmed picture of the cluster, and the few changes that
//! node-fleet makes to it.
//!
//! One task for each kind of objects feeds the index (`store`); readers take one shared view of
//! it, which is made anew only when something has changed. Objects are decoded into what a
//! decision needs (`wire`) and turned into the model at once; no Kubernetes object is kept.

mod convert_node;
mod convert_pod;
mod convert_workload;
mod errors;
pub mod events;
mod interner;
mod mutate;
mod probe;
mod requests;
mod scheduling;
mod selectors;
mod signal;
mod store;
mod volumes;
mod watch;
mod watched;
mod wire;

use self::mutate::Requests;
use self::store::Hub;
use super::chain;
use super::system_clock::SystemClock;
use crate::config::KubernetesConfig;
use crate::model::plan::NodeRef;
use crate::model::snapshot::Observed;
use crate::model::{ClusterView, InstanceId, Missing, NodeName, OperationId, PodKey};
use crate::ports::{Clock, Cluster, ClusterError, Cordon, Eviction, NodeState};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Why there is no client for the API server. Nothing has been asked of it yet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig, or what stands in for it, cannot be used.
    #[error("cannot read how to reach the API server from {from}: {why}; set `kubernetes.kubeconfig` to a kubeconfig file")]
    Kubeconfig {
        /// Where it was looked for.
        from: String,
        /// What is wrong with it.
        why: String,
    },
    /// It names an address or credentials that no client can be made of.
    #[error("cannot make a client for the API server: {why}")]
    Client {
        /// What is wrong.
        why: String,
    },
}

/// A cluster's API server. Its watches end when this is dropped.
#[derive(Debug)]
pub struct Kubernetes {
    requests: Requests,
    hub: Arc<Hub>,
    clock: SystemClock,
    watches: JoinSet<()>,
}

impl Kubernetes {
    /// Makes a client and starts the watches. Does not wait for the API server.
    ///
    /// # Errors
    /// When the configuration names no usable way to the API server.
    pub async fn connect(config: &KubernetesConfig, clock: SystemClock) -> Result<Self, ConnectError> {
        let mut kubernetes = Self::unwatched(config, clock).await?;
        kubernetes.start_watches();
        Ok(kubernetes)
    }

    /// Makes a client without watches, for questions that need none; it never has a view.
    ///
    /// # Errors
    /// When the configuration names no usable way to the API server.
    pub async fn unwatched(config: &KubernetesConfig, clock: SystemClock) -> Result<Self, ConnectError> {
        install_crypto();
        let client = Client::try_from(client_config(config).await?).map_err(|error| ConnectError::Client { why: errors::words(&error) })?;
        Ok(Self::over(client, config.timeout, clock))
    }

    /// Asks whether each permission that is used has been granted, by name.
    pub async fn permissions(&self) -> Vec<(String, Result<(), String>)> {
        self.requests.permissions().await
    }

    fn over(client: Client, deadline: Duration, clock: SystemClock) -> Self {
        Self { requests: Requests { client, deadline }, hub: Arc::default(), clock, watches: JoinSet::new() }
    }

    fn start_watches(&mut self) {
        let Requests { client, deadline } = &self.requests;
        let (client, hub, deadline) = (|| client.clone(), || Arc::clone(&self.hub), *deadline);
        self.watches.spawn(watch::keep::<wire::Pod>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::Node>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::Budget>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::DaemonSet>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::PersistentVolume>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::PersistentVolumeClaim>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::StorageClass>(client(), hub(), deadline));
        self.watches.spawn(watch::keep::<wire::CsiNode>(client(), hub(), deadline));
    }
}

impl Cluster for Kubernetes {
    async fn view(&self) -> Observed<Arc<ClusterView>> {
        let unknown = |why: String| Observed::Unknown(Missing::Unreachable { why });
        // Right after the start the first lists are under way; without them there is nothing to say.
        let _ = timeout(self.requests.deadline, self.hub.started()).await;
        if let Err(why) = self.hub.view() {
            return unknown(why);
        }
        // The watches may be quiet because nothing happens or because nobody is there: this tells.
        let at = self.clock.now();
        if let Err(error) = self.requests.ready().await {
            return unknown(error.to_string());
        }
        match self.hub.view() {
            Ok(value) => Observed::Known { value, at },
            Err(why) => unknown(why),
        }
    }

    fn cached_view(&self) -> Option<Arc<ClusterView>> {
        self.hub.cached_view()
    }

    async fn urgent(&self) {
        self.hub.urgent.wait().await;
    }

    async fn changed(&self) {
        self.hub.changed.wait().await;
    }

    async fn read_node(&self, name: &NodeName) -> Result<Option<NodeState>, ClusterError> {
        self.requests.read_node(name, &self.hub).await
    }

    async fn node_of(&self, instance: &InstanceId) -> Result<Option<NodeName>, ClusterError> {
        self.requests.node_of(instance).await
    }

    async fn cordon(&self, node: &NodeRef, cordon: &Cordon) -> Result<(), ClusterError> {
        self.requests.cordon(node, cordon).await
    }

    async fn uncordon(&self, node: &NodeRef, operation: &OperationId) -> Result<(), ClusterError> {
        self.requests.uncordon(node, operation).await
    }

    async fn evict(&self, pod: &PodKey, uid: &str) -> Result<Eviction, ClusterError> {
        self.requests.evict(pod, uid).await
    }

    async fn delete_node(&self, node: &NodeRef) -> Result<(), ClusterError> {
        self.requests.delete_node(node).await
    }
}

/// Makes ring the process's cryptography, where nothing else is yet.
fn install_crypto() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // It fails only when another thread was faster, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

async fn client_config(settings: &KubernetesConfig) -> Result<Config, ConnectError> {
    let found = if let Some(path) = &settings.kubeconfig {
        let failed = |why: String| ConnectError::Kubeconfig { from: path.display().to_string(), why };
        let kubeconfig = Kubeconfig::read_from(path).map_err(|error| failed(chain(&error)))?;
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| failed(chain(&error)))
    } else {
        let from = || "KUBECONFIG or the service account".to_owned();
        Config::infer().await.map_err(|error| ConnectError::Kubeconfig { from: from(), why: chain(&error) })
    };
    let mut config = found?;
    // A refused eviction is the caller's to repeat, and every caller has a deadline.
    config.default_retry = false;
    config.connect_timeout = Some(settings.timeout);
    // A connection that says nothing for longer than a watch lasts is dead.
    config.read_timeout = Some(watch::QUIET);
    config.reset_reader_on_write = true;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::mutate::fake;
    use super::*;
    use serde_json::json;
    use std::io::Write;

    fn settings(kubeconfig: &std::path::Path) -> KubernetesConfig {
        KubernetesConfig { kubeconfig: Some(kubeconfig.to_owned()), timeout: Duration::from_secs(1), events: false }
    }

    #[tokio::test]
    async fn an_unusable_kubeconfig_is_named() {
        let error = Kubernetes::connect(&settings("/does/not/exist".as_ref()), SystemClock::new()).await.expect_err("no such file");
        assert!(error.to_string().contains("/does/not/exist"), "{error}");
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        writeln!(file, "current-context: none").expect("written");
        let error = Kubernetes::connect(&settings(file.path()), SystemClock::new()).await.expect_err("no such context");
        assert!(matches!(error, ConnectError::Kubeconfig { .. }), "{error}");
    }

    #[tokio::test]
    async fn an_api_server_that_is_not_there_gives_no_view() {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        write!(
            file,
            "{}",
            json!({
                "current-context": "c",
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
            })
        )
        .expect("written");
        let kubernetes = Kubernetes::connect(&settings(file.path()), SystemClock::new()).await.expect("a client");
        let Observed::Unknown(Missing::Unreachable { why }) = kubernetes.view().await else { panic!("nobody is there") };
        assert!(why.contains("the watch of"), "{why}");
        assert_eq!(kubernetes.cached_view(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_view_needs_an_api_server_that_is_ready() {
        for (ready, known) in [(200, true), (500, false)] {
            let fake = fake::ApiServer::new(move |request| match request.path.as_str() {
                "/readyz" => (ready, json!("ok")),
                _ if request.query.contains("watch=") => fake::HANGS,
                _ => {
                    let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "1", "resourceVersion": "1"}});
                    (200, json!({"metadata": {"resourceVersion": "1"}, "items": [object]}))
                }
            });
            let mut kubernetes = Kubernetes::over(fake.client(), Duration::from_secs(1), SystemClock::new());
            kubernetes.start_watches();
            let view = kubernetes.view().await;
            assert_eq!(view.known().is_some(), known, "{view:?}");
            let cached = kubernetes.cached_view().expect("everything is listed");
            assert_eq!((cached.pods.len(), cached.nodes.len(), cached.budgets.len(), cached.daemon_sets.len()), (1, 1, 1, 1));
        }
    }
}
