//! The configuration: one TOML file, overridden by the environment, validated as a whole.

mod layers;
pub mod load;
mod pools;
pub mod problem;
mod reader;
pub mod secret;
mod sections;

pub use crate::policy::schedule::Recurrence;
pub use load::{load, parse};
pub use problem::{Origin, Problem, Problems};
pub use secret::{Secret, SecretRef};
pub use sections::wrong_endpoint;

use crate::model::offer::HourlyPrice;
use crate::model::{InstanceType, PoolName, SubnetId};
use crate::policy::Settings;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What must be left of the lease beyond the deadline of a request that is sent.
pub const REQUEST_MARGIN: Duration = Duration::from_millis(500);

/// Everything an operator has decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// `[cluster]`.
    pub cluster: ClusterConfig,
    /// `[kubernetes]`.
    pub kubernetes: KubernetesConfig,
    /// `[prometheus]`.
    pub prometheus: PrometheusConfig,
    /// `[ledger]`.
    pub ledger: LedgerConfig,
    /// `[notices]`.
    pub notices: NoticesConfig,
    /// `[operations]`.
    pub operations: OperationsConfig,
    /// `[http]`.
    pub http: HttpConfig,
    /// `[log]`.
    pub log: LogConfig,
    /// `[slack]`.
    pub slack: SlackConfig,
    /// `[cloudwatch]`.
    pub cloudwatch: CloudWatchConfig,
    /// What each `[[pool]]` needs beyond the policy's part.
    pub pools: Vec<PoolLaunch>,
    /// `[prices]`.
    pub prices: PricesConfig,
    /// `[evaluation]`, `[scale_up]`, `[scale_down]`, `[[metric]]` and the policy's part of `[[pool]]`.
    pub policy: Settings,
}

/// `[cluster]`: which cluster this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// The cluster's id: a tag of its instances and its key in the ledger.
    pub id: String,
    /// The AWS region.
    pub region: String,
}

/// `[kubernetes]`: how the API server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// The kubeconfig; `None` takes `KUBECONFIG` or the service account.
    pub kubeconfig: Option<PathBuf>,
    /// The deadline of one call, however many requests it takes.
    pub timeout: Duration,
    /// Events are written on pods and nodes.
    pub events: bool,
}

/// `[prometheus]`: where metrics come from and what is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusConfig {
    /// Base URLs, tried in this order.
    pub endpoints: Vec<String>,
    /// How the daemon proves who it is.
    pub auth: Option<PrometheusAuth>,
    /// A PEM file with the private CA.
    pub ca_file: Option<PathBuf>,
    /// The deadline of one query.
    pub timeout: Duration,
    /// A larger answer is refused.
    pub max_response_bytes: usize,
    /// An older sample is stale.
    pub max_sample_age: Duration,
    /// A sample further in the future than this is refused.
    pub max_clock_skew: Duration,
    /// The window of `rate()` in the shipped CPU query.
    pub rate_window: Duration,
    /// The label that names the node; its value is the node's name, with or without a port.
    pub node_label: String,
    /// Replaces the shipped query; must give a share per node.
    pub cpu_query: Option<String>,
    /// Replaces the shipped query; must give a share per node.
    pub memory_query: Option<String>,
}

/// How the daemon proves to Prometheus who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrometheusAuth {
    /// HTTP basic authentication.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: SecretRef,
    },
    /// A bearer token.
    Bearer {
        /// The token.
        token: SecretRef,
    },
}

/// `[ledger]`: the DynamoDB table and the lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerConfig {
    /// The table.
    pub table: String,
    /// What a rival waits without seeing a heartbeat. The holder trusts half of it.
    pub lease: Duration,
    /// Between two heartbeats.
    pub heartbeat: Duration,
    /// The deadline of one call, its repetitions included.
    pub timeout: Duration,
}

/// `[notices]`: the SQS queue that EventBridge fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticesConfig {
    /// The queue; `None` listens to none.
    pub queue_url: Option<String>,
    /// How long one poll waits: whole seconds, from 1 s to 20 s.
    pub wait: Duration,
}

/// `[operations]`: deadlines of launches and retirements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationsConfig {
    /// The deadline of one request to EC2.
    pub request_timeout: Duration,
    /// From launch to Ready; later the instance is given back.
    pub join_timeout: Duration,
    /// From cordon to empty; later the drain is rolled back or forced.
    pub drain_timeout: Duration,
    /// How often a drain looks again at what it waits for.
    pub retry: Duration,
    /// How long before a spot instance's end the drain stops waiting.
    pub interruption_margin: Duration,
    /// How long a purchase for pods that cannot be scheduled waits for more of them.
    pub batch: Duration,
}

/// `[http]`: where the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// The TCP address of reads. Loopback unless an operator opens it.
    pub listen: SocketAddr,
    /// The Unix socket of changes; `None` opens none.
    pub socket: Option<PathBuf>,
    /// The bearer token that allows changes over TCP; `None` allows none.
    pub token: Option<SecretRef>,
}

/// `[log]`: how the daemon speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A `tracing` filter (`info`, `node_fleet=debug`).
    pub level: String,
    /// Where to and how.
    pub format: LogFormat,
}

/// Where the log goes and how it looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// To journald under systemd, otherwise text on stderr.
    Auto,
    /// Text on stderr.
    Text,
    /// One JSON object a line on stderr.
    Json,
    /// Fields to journald.
    Journald,
}

/// `[slack]`: who is told what happens.
#[derive(Clone, Debug, PartialEq)]
pub struct SlackConfig {
    /// The incoming webhook; `None` tells nobody.
    pub webhook: Option<SecretRef>,
    /// When the day's cost is told; `None` is never.
    pub daily_report: Option<Recurrence>,
    /// When the week's recommendations are told; `None` is never.
    pub weekly_report: Option<Recurrence>,
}

/// `[cloudwatch]`: which figures go to CloudWatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudWatchConfig {
    /// They are sent at all.
    pub enabled: bool,
    /// The namespace of their names.
    pub namespace: String,
    /// How often it is told how the fleet stands.
    pub interval: Duration,
}

/// What EC2 must be told to launch a worker of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolLaunch {
    /// The pool.
    pub pool: PoolName,
    /// The launch template's id (`lt-…`) or name.
    pub launch_template: String,
    /// Its version; `None` is the default version at the time of the launch.
    pub launch_template_version: Option<String>,
    /// The subnets; each brings its zone. Of several in one zone the one with the most free addresses is used.
    pub subnets: Vec<SubnetId>,
    /// The types that the pool may buy.
    pub instance_types: Vec<InstanceType>,
    /// Labels that the launch template's user data gives the node.
    pub labels: BTreeMap<String, String>,
    /// Taints that it gives the node, as `key=value:Effect`.
    pub taints: Vec<crate::model::scheduling::Taint>,
    /// CPU that the kubelet and the system keep for themselves.
    pub reserved_cpu: crate::model::MilliCpu,
    /// Memory that they keep, the eviction threshold included.
    pub reserved_memory: crate::model::Bytes,
    /// The kubelet's `maxPods`.
    pub max_pods: u32,
}

/// `[prices]`: what instances cost.
#[derive(Clone, Debug, PartialEq)]
pub struct PricesConfig {
    /// The day on which the table was true.
    pub as_of: String,
    /// On-demand price by instance type.
    pub on_demand: BTreeMap<InstanceType, HourlyPrice>,
    /// The price list is asked for on-demand prices, which then win over the table.
    pub read_on_demand: bool,
    /// EC2 is asked for the spot prices of the zones.
    pub read_spot: bool,
    /// The expected spot price as a share of the on-demand price, where EC2 does not tell.
    pub spot_ratio: f64,
}
