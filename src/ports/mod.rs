//! What the controller needs of the world, as traits, and their errors, named by
//! what the caller does about them.
//!
//! Live adapters and the simulated world implement the same traits. Every call
//! has its own deadline inside the adapter and ends.

pub mod clock;
pub mod cloud;
pub mod cluster;
pub mod ledger;
pub mod metrics;
pub mod notices;
pub mod outlets;
pub mod telemetry;

pub use clock::{Clock, Entropy, Monotonic};
pub use cloud::{Cloud, CloudError, LaunchError, Launched, Sight};
pub use cluster::{Cluster, ClusterError, Cordon, Eviction, NodeState};
pub use ledger::{Claim, Grant, Ledger, LedgerError, LedgerState, Lock, LockRecord};
pub use metrics::Metrics;
pub use notices::{Delivery, Notice, NoticeError, Notices};
pub use outlets::{Chat, EventBoard, MetricStore, OutletError};
pub use telemetry::{Measurement, Telemetry};

/// One world: all ports together.
pub trait World: Send + Sync + 'static {
    /// Kubernetes.
    type Cluster: Cluster;
    /// EC2.
    type Cloud: Cloud;
    /// Prometheus.
    type Metrics: Metrics;
    /// DynamoDB.
    type Ledger: Ledger;
    /// SQS.
    type Notices: Notices;
    /// Time.
    type Clock: Clock;
    /// Randomness.
    type Entropy: Entropy;
    /// Where measurements go.
    type Telemetry: Telemetry;

    /// Gives Kubernetes.
    fn cluster(&self) -> &Self::Cluster;
    /// Gives EC2.
    fn cloud(&self) -> &Self::Cloud;
    /// Gives Prometheus.
    fn metrics(&self) -> &Self::Metrics;
    /// Gives DynamoDB.
    fn ledger(&self) -> &Self::Ledger;
    /// Gives SQS.
    fn notices(&self) -> &Self::Notices;
    /// Gives time.
    fn clock(&self) -> &Self::Clock;
    /// Gives randomness.
    fn entropy(&self) -> &Self::Entropy;
    /// Gives the place where measurements go.
    fn telemetry(&self) -> &Self::Telemetry;
}
