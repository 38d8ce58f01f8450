//! EC2: what runs, what can be bought, and the two calls that change it.

mod catalogue;
mod instances;
mod launch;

use super::aws::{Failure, Kind};
use super::pricing::PriceList;
use super::retry::{once, retried};
use super::system_clock::SystemClock;
use crate::config::{Config, PoolLaunch, PricesConfig};
use crate::model::operation::LaunchRequest;
use crate::model::{Instance, InstanceId};
use crate::ports::cloud::Catalogue;
use crate::ports::{Cloud, CloudError, LaunchError, Launched, Sight};
use aws_config::SdkConfig;
use aws_sdk_ec2::Client;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tracing::warn;

/// EC2's code for an instance that it does not know, or does not know everywhere yet.
const UNKNOWN_INSTANCE: &str = "InvalidInstanceID.NotFound";

/// EC2 as the controller's [`Cloud`].
///
/// A launch is sent once within `[operations] request_timeout`: whether to repeat it is
/// the operation's decision. A termination and each page of a reading are repeated within
/// that time while their errors may pass.
#[derive(Debug)]
pub struct Ec2 {
    inner: RwLock<Arc<Inner>>,
}

#[derive(Debug)]
struct Inner {
    client: Client,
    cluster: String,
    region: String,
    timeout: Duration,
    pools: Vec<PoolLaunch>,
    prices: PricesConfig,
    clock: SystemClock,
    cache: Arc<catalogue::Cache>,
    price_list: Arc<PriceList>,
}

impl Ec2 {
    /// Speaks for the cluster and its pools. Sends nothing yet.
    #[must_use]
    pub fn new(sdk: &SdkConfig, config: &Config) -> Self {
        Self { inner: RwLock::new(Arc::new(Inner::new(Client::new(sdk), Arc::new(PriceList::new(sdk, &config.cluster.region)), config))) }
    }

    /// Takes the pools, prices and deadlines of another configuration. Calls under way end with the old
    /// ones; the next catalogue is read anew where it would be another one.
    pub fn reconfigure(&self, config: &Config) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let mut new = Inner::new(inner.client.clone(), Arc::clone(&inner.price_list), config);
        if new.has_the_catalogue_of(&inner) {
            new.cache = Arc::clone(&inner.cache);
        }
        *inner = Arc::new(new);
    }

    fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells how old the catalogue is that [`Cloud::catalogue`] gives; `None` when there is none.
    #[must_use]
    pub fn catalogue_age(&self) -> Option<Duration> {
        self.inner().cache.age()
    }

    /// Asks EC2 whether the daemon might launch the request, without launching it.
    ///
    /// # Errors
    /// When it might not.
    pub async fn dry_run(&self, request: &LaunchRequest) -> Result<(), LaunchError> {
        launch::check(request)?;
        let inner = self.inner();
        let sending = async { launch::fleet(&inner.client, request).dry_run(true).send().await.map(|_| ()).map_err(Failure::from) };
        match once(inner.timeout, sending).await {
            Ok(()) => Ok(()),
            Err(failure) if failure.code == "DryRunOperation" => Ok(()),
            Err(failure) => Err(launch::error(failure)),
        }
    }
}

impl Cloud for Ec2 {
    async fn instances(&self) -> Result<Vec<Instance>, CloudError> {
        let inner = self.inner();
        instances::list(&inner.client, &inner.cluster, inner.timeout).await
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Sight>, CloudError> {
        const CALL: &str = "DescribeInstances";
        let inner = self.inner();
        let call = async || inner.client.describe_instances().instance_ids(instance.as_str()).send().await.map_err(Failure::from);
        match retried(inner.timeout, call).await {
            // A state that cannot be read is an error: "gone" would take the node's object away.
            Ok(answer) => match answer.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances).next() {
                Some(found) => {
                    instances::sight(found, &inner.cluster).map_err(|why| CloudError::Invalid { call: CALL, why: why.to_owned() })
                }
                None => Ok(None),
            },
            Err(failure) if failure.code == UNKNOWN_INSTANCE => Ok(None),
            Err(failure) => Err(cloud_error(CALL, failure)),
        }
    }

    async fn catalogue(&self) -> Result<Arc<Catalogue>, CloudError> {
        let inner = self.inner();
        let state = inner.cache.look();
        match state {
            catalogue::Cached::Fresh(catalogue) => Ok(catalogue),
            // A turn that pods wait for does not wait for a refresh.
            catalogue::Cached::Due(catalogue) => {
                tokio::spawn(async move {
                    if let Err(error) = inner.refresh().await {
                        warn!(%error, age = ?inner.cache.age(), "the catalogue could not be refreshed; the last one stays in use");
                    }
                });
                Ok(catalogue)
            }
            catalogue::Cached::Nothing => inner.refresh().await,
        }
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, LaunchError> {
        let inner = self.inner();
        launch::launch(&inner.client, request, inner.timeout).await
    }

    async fn terminate(&self, instance: &InstanceId) -> Result<(), CloudError> {
        let inner = self.inner();
        let call = async || inner.client.terminate_instances().instance_ids(instance.as_str()).send().await.map_err(Failure::from);
        match retried(inner.timeout, call).await {
            Ok(_) => Ok(()),
            Err(failure) => Err(cloud_error("TerminateInstances", failure)),
        }
    }
}

impl Inner {
    fn new(client: Client, price_list: Arc<PriceList>, config: &Config) -> Self {
        Self {
            client,
            cluster: config.cluster.id.clone(),
            region: config.cluster.region.clone(),
            timeout: config.operations.request_timeout,
            pools: config.pools.clone(),
            prices: config.prices.clone(),
            clock: SystemClock::new(),
            cache: Arc::default(),
            price_list,
        }
    }

    /// Tells whether what can be bought is the same as under the other configuration.
    fn has_the_catalogue_of(&self, other: &Self) -> bool {
        self.pools == other.pools && self.prices == other.prices && self.region == other.region
    }

    async fn refresh(&self) -> Result<Arc<Catalogue>, CloudError> {
        let source = catalogue::Source { client: &self.client, price_list: &self.price_list, timeout: self.timeout, clock: self.clock };
        self.cache.refresh(async { source.read(&self.pools, &self.prices, &self.region).await }).await
    }
}

/// Names a failure by what the controller does about it.
fn cloud_error(call: &'static str, failure: Failure) -> CloudError {
    match failure.kind {
        Kind::NoAnswer | Kind::Fault | Kind::Unsigned => CloudError::Unavailable { call, why: failure.why },
        Kind::Throttled => CloudError::Throttled { call },
        Kind::Denied => CloudError::Denied { call, why: failure.why },
        // Termination protection: only an operator can lift it.
        Kind::Rejected if failure.code == "OperationNotPermitted" => CloudError::Denied { call, why: failure.why },
        Kind::Rejected if failure.code == UNKNOWN_INSTANCE => CloudError::NotFound { call },
        Kind::Rejected => CloudError::Invalid { call, why: failure.why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_named_by_what_follows() {
        let error = |code: &str, status| cloud_error("DescribeInstances", Failure::service(code, "words", status));
        assert_eq!(error("RequestLimitExceeded", 503), CloudError::Throttled { call: "DescribeInstances" });
        assert!(matches!(error("UnauthorizedOperation", 403), CloudError::Denied { .. }));
        assert!(matches!(error("OperationNotPermitted", 400), CloudError::Denied { .. }));
        assert!(matches!(error("InvalidParameterValue", 400), CloudError::Invalid { .. }));
        assert!(matches!(error("InternalError", 500), CloudError::Unavailable { .. }));
        let unknown = cloud_error("TerminateInstances", Failure::service(UNKNOWN_INSTANCE, "words", 400));
        assert_eq!(unknown, CloudError::NotFound { call: "TerminateInstances" });
    }

    #[tokio::test]
    async fn the_catalogue_outlives_a_reload_that_does_not_change_it() {
        let example = include_str!("../../config/node-fleet.toml");
        let config = || crate::config::parse(example, "node-fleet.toml", []).unwrap_or_else(|problems| panic!("{problems}"));
        let sdk = SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("us-east-1"))
            .build();
        let ec2 = Ec2::new(&sdk, &config());
        ec2.inner().cache.refresh(async { Ok(Catalogue::default()) }).await.expect("a catalogue");
        let mut later = config();
        later.operations.request_timeout = Duration::from_secs(3);
        ec2.reconfigure(&later);
        assert_eq!(ec2.inner().timeout, Duration::from_secs(3));
        assert!(ec2.catalogue_age().is_some());
        let mut dearer = config();
        dearer.prices.spot_ratio = 0.5;
        ec2.reconfigure(&dearer);
        assert!(ec2.catalogue_age().is_none(), "its prices are the old ones");
    }
}
