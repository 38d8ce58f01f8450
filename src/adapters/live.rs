//! The world as it is: every port by its real system.

use super::dynamodb::DynamoDb;
use super::ec2::Ec2;
use super::kubernetes::{ConnectError, Kubernetes};
use super::prometheus::{Prometheus, PrometheusError};
use super::secrets_manager::Secrets;
use super::sqs::Sqs;
use super::system_clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::ports::{Telemetry, World};
use aws_config::SdkConfig;
use std::sync::Arc;

/// Why the world cannot be reached, before anything has been asked of it.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// Kubernetes.
    #[error(transparent)]
    Kubernetes(#[from] ConnectError),
    /// Prometheus.
    #[error(transparent)]
    Prometheus(#[from] PrometheusError),
}

/// The real systems. `T` takes the measurements.
#[derive(Debug)]
pub struct Live<T> {
    kubernetes: Kubernetes,
    ec2: Ec2,
    prometheus: Prometheus,
    dynamodb: DynamoDb,
    sqs: Sqs,
    clock: SystemClock,
    entropy: SystemEntropy,
    telemetry: T,
}

impl<T> Live<T> {
    /// Makes the clients and starts the watches. Waits for nobody.
    ///
    /// # Errors
    /// When the configuration names no usable way to Kubernetes or Prometheus.
    pub async fn connect(config: &Config, sdk: &SdkConfig, secrets: Arc<Secrets>, telemetry: T) -> Result<Self, LiveError> {
        let clock = SystemClock::new();
        Ok(Self {
            kubernetes: Kubernetes::connect(&config.kubernetes, clock).await?,
            ec2: Ec2::new(sdk, config),
            prometheus: Prometheus::new(&config.prometheus, secrets)?,
            dynamodb: DynamoDb::new(sdk, config),
            sqs: Sqs::new(sdk, config),
            clock,
            entropy: SystemEntropy,
            telemetry,
        })
    }

    /// Takes what may change while the daemon runs: pools, prices and deadlines.
    pub fn reconfigure(&self, config: &Config) {
        self.ec2.reconfigure(config);
    }
}

impl<T: Telemetry + 'static> World for Live<T> {
    type Cluster = Kubernetes;
    type Cloud = Ec2;
    type Metrics = Prometheus;
    type Ledger = DynamoDb;
    type Notices = Sqs;
    type Clock = SystemClock;
    type Entropy = SystemEntropy;
    type Telemetry = T;

    fn cluster(&self) -> &Kubernetes {
        &self.kubernetes
    }

    fn cloud(&self) -> &Ec2 {
        &self.ec2
    }

    fn metrics(&self) -> &Prometheus {
        &self.prometheus
    }

    fn ledger(&self) -> &DynamoDb {
        &self.dynamodb
    }

    fn notices(&self) -> &Sqs {
        &self.sqs
    }

    fn clock(&self) -> &SystemClock {
        &self.clock
    }

    fn entropy(&self) -> &SystemEntropy {
        &self.entropy
    }

    fn telemetry(&self) -> &T {
        &self.telemetry
    }
}
