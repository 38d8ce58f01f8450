//! The whole bed: every server, an account, a cluster with its server node, ready for a scenario.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::aws::{self, Account, Aws};
use crate::cluster::{Cluster, NodeSpec, SERVER_ROLE, is_ready};
use crate::control_plane::ControlPlane;
use crate::daemon::{self, Daemon, Outcome, Surroundings};
use crate::dynamodb::DynamoDb;
use crate::events;
use crate::exporter::Exporter;
use crate::joiner::Joiner;
use crate::kwok;
use crate::ledger::Ledger;
use crate::moto::Moto;
use crate::offers::ZONES;
use crate::processes::{Process, tail};
use crate::prometheus::Prometheus;
use crate::proxy::{BED_KEY, Proxy};
use crate::tools::{Tools, in_repository};
use crate::usage;

/// The node of the K3s server, which nobody may touch.
pub const SERVER_NODE: &str = "server-1";

/// How long a new instance boots unless a scenario says otherwise.
pub const BOOT: Duration = Duration::from_secs(1);

/// The bed. A scenario has it for itself; [`Bed::reset`] comes between two of them.
pub struct Bed {
    // Dropped in this order: first those who call, then those who are called.
    pub prometheus: Prometheus,
    kwok: Process,
    pub control_plane: ControlPlane,
    moto: Moto,
    dynamodb: DynamoDb,
    /// Kubernetes, as the administrator.
    pub cluster: Cluster,
    /// AWS for the daemon: call log, faults, capacity.
    pub proxy: Proxy,
    pub exporter: Exporter,
    pub joiner: Joiner,
    /// AWS for the bed: not in the call log.
    pub aws: Aws,
    pub account: Account,
    /// This scenario's own: tag of its instances and key in the ledger.
    pub cluster_id: String,
    pub tools: Tools,
    daemon_logs: Vec<(String, PathBuf)>,
    scenarios: usize,
    folder: TempDir,
}

impl Bed {
    /// Starts everything; about ten seconds.
    pub async fn start() -> Result<Self> {
        let tools = Tools::from_environment()?;
        let folder = tempfile::Builder::new().prefix("node-fleet-bed-").tempdir()?;
        let path = folder.path().to_owned();
        let client = reqwest::Client::new();
        let mut moto = Moto::start(&tools, &path, &client)?;
        let mut dynamodb = DynamoDb::start(&tools, &path)?;
        let exporter = Exporter::start().await?;
        let mut prometheus = Prometheus::start(&tools, &path.join("prometheus"), &exporter.url(), &client)?;
        let control_plane = ControlPlane::start(&tools, &path.join("kubernetes")).await?;
        let kwok = kwok::start(&tools, &path, &control_plane.admin)?;
        moto.ready().await?;
        dynamodb.ready(&client).await?;
        prometheus.ready().await?;

        let cluster = Cluster { client: control_plane.client().await? };
        cluster.prepare().await?;
        cluster.apply_manifests(&fs::read_to_string(in_repository("packaging/kubernetes/rbac.yaml"))?).await?;
        usage::start(&cluster.client, exporter.clone());
        let proxy = Proxy::start(client, &moto.url, &dynamodb.url).await?;
        let joiner = Joiner::start(proxy.clone(), cluster.clone(), BOOT);
        let aws = Aws::new(&proxy.url(), BED_KEY);
        let mut bed = Self {
            prometheus,
            kwok,
            control_plane,
            moto,
            dynamodb,
            cluster,
            proxy,
            exporter,
            joiner,
            aws,
            account: Account::default(),
            cluster_id: String::new(),
            tools,
            daemon_logs: Vec::new(),
            scenarios: 0,
            folder,
        };
        bed.furnish().await?;
        Ok(bed)
    }

    /// Makes the bed as it was at the start, with another cluster id. Daemons must be dropped before.
    pub async fn reset(&mut self) -> Result<()> {
        self.control_plane.must_run()?;
        self.kwok.must_run()?;
        self.moto.process.must_run()?;
        self.dynamodb.process.must_run()?;
        self.joiner.pause(true);
        self.moto.reset().await?;
        self.proxy.reset().await;
        self.exporter.reset();
        self.prometheus.reset()?;
        self.prometheus.ready().await?;
        self.cluster.clear().await?;
        self.joiner.reset(BOOT);
        self.daemon_logs.clear();
        self.furnish().await
    }

    async fn furnish(&mut self) -> Result<()> {
        self.scenarios += 1;
        self.cluster_id = format!("bed-{}", self.scenarios);
        self.account = aws::prepare(&self.aws, self.proxy.upstream()).await?;
        let server = NodeSpec {
            name: SERVER_NODE.to_owned(),
            provider_id: format!("aws:///{}/{}", ZONES[0], self.account.server_instance),
            address: "10.20.0.4".to_owned(),
            labels: BTreeMap::from([
                (SERVER_ROLE.to_owned(), "true".to_owned()),
                ("topology.kubernetes.io/zone".to_owned(), ZONES[0].to_owned()),
                ("node.kubernetes.io/instance-type".to_owned(), "t3.medium".to_owned()),
            ]),
            taints: vec![json!({"key": SERVER_ROLE, "effect": "NoSchedule"})],
            cpus: 2,
            memory_mib: 4096,
        };
        self.cluster.create_node(&server).await?;
        self.cluster.wait_for_node(SERVER_NODE, "to be Ready", Duration::from_secs(20), |node| node.is_some_and(is_ready)).await
    }

    /// Starts a daemon with this configuration (TOML); its name is its access key in the call log.
    pub fn start_daemon(&mut self, name: &str, configuration: &str) -> Result<Daemon> {
        self.start_daemon_under(name, configuration, &[])
    }

    /// The same with more in its environment.
    pub fn start_daemon_under(&mut self, name: &str, configuration: &str, environment: &[(&str, String)]) -> Result<Daemon> {
        let daemon = Daemon::start(name, configuration, &self.surroundings(), environment)?;
        let entry = (name.to_owned(), daemon.log().to_owned());
        if !self.daemon_logs.contains(&entry) {
            self.daemon_logs.push(entry);
        }
        Ok(daemon)
    }

    /// Runs another command of node-fleet to its end; `{config}` in an argument stands for the file.
    pub async fn run_command(&self, configuration: &str, arguments: &[&str]) -> Result<Outcome> {
        daemon::command("command", configuration, arguments, &self.surroundings()).await
    }

    fn surroundings(&self) -> Surroundings {
        let folder = self.folder.path().join(format!("scenario-{}", self.scenarios));
        Surroundings { aws: self.proxy.url(), kubeconfig: self.control_plane.daemon.clone(), folder }
    }

    /// What the ledger says now.
    pub async fn ledger(&self) -> Result<Ledger> {
        Ledger::read(&self.aws.dynamodb, &self.cluster_id).await
    }

    /// AWS clients for another caller, whose calls are in the log.
    pub fn aws_as(&self, caller: &str) -> Aws {
        Aws::new(&self.proxy.url(), caller)
    }

    /// Publishes an event; the account's rule brings it to the notices queue.
    pub async fn notify(&self, event: &Value) -> Result<()> {
        events::publish(self.proxy.upstream(), event).await
    }

    /// Puts any text into the notices queue, past EventBridge.
    pub async fn notify_raw(&self, body: &str) -> Result<()> {
        events::send(&self.aws.sqs, &self.account.queue_url, body).await
    }

    /// How many messages wait in the notices queue or are worked on.
    pub async fn pending_notices(&self) -> Result<usize> {
        events::messages_in(&self.aws.sqs, &self.account.queue_url).await
    }

    /// How many messages are in the dead-letter queue.
    pub async fn dead_notices(&self) -> Result<usize> {
        events::messages_in(&self.aws.sqs, &self.account.dead_letter_queue_url).await
    }

    /// EC2 takes an instance away, as it does at the end of a spot notice.
    pub async fn take_away(&self, instance: &str) -> Result<()> {
        self.aws.ec2.terminate_instances().instance_ids(instance).send().await.context("terminate as EC2")?;
        Ok(())
    }

    /// Runs an instance that is none of the daemon's, with these tags.
    pub async fn run_stranger(&self, zone: &str, tags: &[(&str, &str)]) -> Result<String> {
        let subnet = self.account.subnets.get(zone).with_context(|| format!("no subnet in {zone}"))?;
        aws::run_instance(&self.aws.ec2, subnet, tags).await
    }

    /// The folder with all logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Keeps the folder after the end, and gives its path.
    pub fn keep_folder(&mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.folder.path().to_owned()
    }

    /// What a failed scenario leaves to look at.
    pub fn evidence(&self) -> String {
        let mut text = String::new();
        for (name, log) in &self.daemon_logs {
            text.push_str(&format!("--- end of the log of {name}\n{}\n", tail(log, 40)));
        }
        let calls = self.proxy.calls();
        let quiet = ["DescribeInstances", "ReceiveMessage", "GetItem", "UpdateItem"];
        let shown: Vec<_> = calls.iter().filter(|call| !quiet.contains(&call.action.as_str())).collect();
        text.push_str(&format!("--- last AWS calls of {}, without {}\n", calls.len(), quiet.join(", ")));
        for call in &shown[shown.len().saturating_sub(25)..] {
            text.push_str(&format!("{call}\n"));
        }
        text
    }

    /// Stops everything in order.
    pub fn stop(mut self) {
        self.prometheus.stop();
        self.kwok.stop(Duration::from_millis(500));
        self.control_plane.stop();
        self.moto.process.stop(Duration::from_millis(500));
        self.dynamodb.process.stop(Duration::from_millis(500));
    }
}

/// Starts the bed and says how long it took.
pub async fn start_timed() -> Result<(Bed, Duration)> {
    let started = Instant::now();
    let bed = Bed::start().await.context("start the bed")?;
    Ok((bed, started.elapsed()))
}
