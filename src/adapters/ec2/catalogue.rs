//! What the pools can buy: the configuration joined with what EC2 knows of subnets,
//! launch templates, instance types and where they are offered.

mod spot;

use self::spot::SpotPrices;
use super::super::aws::{Failure, Kind};
use super::super::pricing::{OnDemandPrices, PriceList};
use super::super::retry::retried;
use super::super::system_clock::SystemClock;
use super::cloud_error;
use super::launch::is_template_id;
use crate::config::{PoolLaunch, PricesConfig};
use crate::model::offer::{HourlyPrice, UNKNOWN_STORAGE};
use crate::model::scheduling::{INSTANCE_TYPE_LABEL, Labels, MARKET_LABEL, POOL_LABEL, ZONE_LABEL, kubelet_labels};
use crate::model::{Bytes, InstanceType, Market, MilliCpu, Offer, OfferKey, PoolName, Resources, SubnetId, Zone};
use crate::ports::cloud::Catalogue;
use crate::ports::{Clock, CloudError};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{self as ec2, ArchitectureType, Filter, LocationType, UsageClassType};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tracing::warn;

/// How long a catalogue is given without asking EC2 again.
const REFRESH: Duration = Duration::from_mins(10);
/// How long after a failed refresh the next one is tried.
const REFRESH_AGAIN: Duration = Duration::from_mins(1);
/// The most values of a filter in one request; EC2's own limit is 200.
const VALUES: usize = 100;
/// The most pages of one reading.
const PAGES: u32 = 20;
/// The label that names a node's region.
const REGION_LABEL: &str = "topology.kubernetes.io/region";
/// What hypervisor and kernel keep of an instance's nominal memory, in thousandths.
///
/// EC2 does not tell; Karpenter takes the same share (`vmMemoryOverheadPercent`, 0.075).
const MEMORY_OVERHEAD: u64 = 75;
/// The share of the root volume that pods may fill, in hundredths: the kubelet evicts at
/// a tenth left (`nodefs.available<10%`), and the file system takes a twentieth.
const USABLE_STORAGE: u64 = 85;
/// The root devices of Linux images.
const ROOT_DEVICES: [&str; 3] = ["/dev/xvda", "/dev/sda1", "/dev/sda"];

/// What is at hand when the catalogue is asked for.
pub(super) enum Cached {
    /// One that is good for now.
    Fresh(Arc<Catalogue>),
    /// One that is good, and time to ask EC2 again, which the caller is to do.
    Due(Arc<Catalogue>),
    /// None.
    Nothing,
}

/// Keeps the last good catalogue.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: Mutex<Kept>,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Kept {
    last: Option<(Arc<Catalogue>, Instant)>,
    due: Option<Instant>,
}

impl Cache {
    /// Tells how old the last good catalogue is.
    pub(super) fn age(&self) -> Option<Duration> {
        self.kept().last.as_ref().map(|(_, read)| read.elapsed())
    }

    /// Looks at what is at hand. Only one of those who ask is told that a refresh is due.
    pub(super) fn look(&self) -> Cached {
        let mut kept = self.kept();
        let Some((catalogue, _)) = &kept.last else { return Cached::Nothing };
        let catalogue = Arc::clone(catalogue);
        let now = Instant::now();
        if kept.due.is_some_and(|due| now < due) {
            return Cached::Fresh(catalogue);
        }
        kept.due = Some(now + REFRESH_AGAIN);
        Cached::Due(catalogue)
    }

    /// Keeps what the reading brings. Those who wait for the first reading wait for the same one.
    pub(super) async fn refresh<F>(&self, reading: F) -> Result<Arc<Catalogue>, CloudError>
    where
        F: Future<Output = Result<Catalogue, CloudError>>,
    {
        let asked = Instant::now();
        let _turn = self.refreshing.lock().await;
        if let Some((catalogue, read)) = &self.kept().last
            && *read >= asked
        {
            return Ok(Arc::clone(catalogue));
        }
        let catalogue = Arc::new(Box::pin(reading).await?);
        let now = Instant::now();
        *self.kept() = Kept { last: Some((Arc::clone(&catalogue), now)), due: Some(now + REFRESH) };
        Ok(catalogue)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What EC2 knows of the things that the configuration names.
#[derive(Debug, Default)]
struct Facts {
    subnets: BTreeMap<SubnetId, Subnet>,
    templates: BTreeMap<PoolName, Template>,
    types: BTreeMap<InstanceType, Machine>,
    offered: BTreeSet<(InstanceType, Zone)>,
    /// Spot prices of now, as far as EC2 tells them.
    spot: SpotPrices,
}

/// Where a subnet lies, and how many addresses it has left.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subnet {
    zone: Zone,
    free: u32,
}

/// The version of a launch template that a pool uses.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Template {
    version: String,
    /// The root volume in GiB, where the template names it.
    root_volume: Option<u64>,
}

/// An instance type.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Machine {
    cpus: u64,
    memory_mib: u64,
    /// As Kubernetes names it.
    architecture: &'static str,
    spot: bool,
}

/// Where facts come from.
pub(super) struct Source<'a> {
    pub client: &'a Client,
    pub price_list: &'a PriceList,
    /// The deadline of each request, its repetitions included.
    pub timeout: Duration,
    pub clock: SystemClock,
}

impl Source<'_> {
    /// Asks EC2, and builds the catalogue. What EC2 does not know is left out with a warning.
    pub(super) async fn read(&self, pools: &[PoolLaunch], prices: &PricesConfig, region: &str) -> Result<Catalogue, CloudError> {
        let asked = self.clock.now();
        let types: BTreeSet<InstanceType> = pools.iter().flat_map(|pool| pool.instance_types.iter().cloned()).collect();
        let (subnets, templates, types_known, offered, spot, listed) = tokio::try_join!(
            self.subnets(pools),
            self.templates(pools),
            self.types(&types),
            self.offered(&types),
            self.spot_prices(&types, prices),
            async { Ok(self.list_prices(&types, prices).await) }
        )?;
        let listed_at = self.price_list.read_at().filter(|_| prices.read_on_demand).map(|at| (Market::OnDemand, at));
        let spot_at = (!spot.is_empty()).then_some((Market::Spot, asked));
        let facts = Facts { subnets, templates, types: types_known, offered, spot };
        let (catalogue, doubts) = assemble(pools, &with_list_prices(prices, listed), region, &facts);
        for doubt in doubts {
            warn!(doubt, "an offer is left out of the catalogue");
        }
        Ok(Catalogue { read_at: Some(asked), prices_read: listed_at.into_iter().chain(spot_at).collect(), ..catalogue })
    }

    async fn list_prices(&self, types: &BTreeSet<InstanceType>, prices: &PricesConfig) -> OnDemandPrices {
        if prices.read_on_demand { self.price_list.on_demand(types, self.timeout, self.clock.now()).await } else { OnDemandPrices::new() }
    }

    async fn subnets(&self, pools: &[PoolLaunch]) -> Result<BTreeMap<SubnetId, Subnet>, CloudError> {
        const CALL: &str = "DescribeSubnets";
        let wanted: BTreeSet<&str> = pools.iter().flat_map(|pool| pool.subnets.iter().map(SubnetId::as_str)).collect();
        let mut subnets = BTreeMap::new();
        for values in chunks(&wanted) {
            let answers = self
                .pages(CALL, |next: Option<String>| async {
                    let request = self.client.describe_subnets().filters(filter("subnet-id", &values)).set_next_token(next);
                    let answer = request.send().await.map_err(Failure::from)?;
                    Ok((answer.next_token().map(ToOwned::to_owned), answer))
                })
                .await?;
            let found = answers.iter().flat_map(aws_sdk_ec2::operation::describe_subnets::DescribeSubnetsOutput::subnets);
            subnets.extend(found.filter_map(|it| {
                let free = it.available_ip_address_count().and_then(|free| u32::try_from(free).ok()).unwrap_or(0);
                Some((SubnetId::from(it.subnet_id()?), Subnet { zone: Zone::from(it.availability_zone()?), free }))
            }));
        }
        Ok(subnets)
    }

    async fn types(&self, wanted: &BTreeSet<InstanceType>) -> Result<BTreeMap<InstanceType, Machine>, CloudError> {
        const CALL: &str = "DescribeInstanceTypes";
        let wanted = wanted.iter().map(InstanceType::as_str).collect();
        let mut types = BTreeMap::new();
        for values in chunks(&wanted) {
            // By a filter, since a list of names fails as a whole for one that is unknown.
            let answers = self
                .pages(CALL, |next: Option<String>| async {
                    let request = self.client.describe_instance_types().filters(filter("instance-type", &values)).set_next_token(next);
                    let answer = request.send().await.map_err(Failure::from)?;
                    Ok((answer.next_token().map(ToOwned::to_owned), answer))
                })
                .await?;
            types.extend(
                answers
                    .iter()
                    .flat_map(aws_sdk_ec2::operation::describe_instance_types::DescribeInstanceTypesOutput::instance_types)
                    .filter_map(machine),
            );
        }
        Ok(types)
    }

    async fn offered(&self, wanted: &BTreeSet<InstanceType>) -> Result<BTreeSet<(InstanceType, Zone)>, CloudError> {
        const CALL: &str = "DescribeInstanceTypeOfferings";
        let wanted = wanted.iter().map(InstanceType::as_str).collect();
        let mut offered = BTreeSet::new();
        for values in chunks(&wanted) {
            let answers = self
                .pages(CALL, |next: Option<String>| async {
                    let request = self.client.describe_instance_type_offerings().location_type(LocationType::AvailabilityZone);
                    let request = request.filters(filter("instance-type", &values)).set_next_token(next);
                    let answer = request.send().await.map_err(Failure::from)?;
                    Ok((answer.next_token().map(ToOwned::to_owned), answer))
                })
                .await?;
            let found = answers.iter().flat_map(
                aws_sdk_ec2::operation::describe_instance_type_offerings::DescribeInstanceTypeOfferingsOutput::instance_type_offerings,
            );
            offered.extend(found.filter_map(|it| Some((InstanceType::from(it.instance_type()?.as_str()), Zone::from(it.location()?)))));
        }
        Ok(offered)
    }

    async fn templates(&self, pools: &[PoolLaunch]) -> Result<BTreeMap<PoolName, Template>, CloudError> {
        let mut templates = BTreeMap::new();
        for pool in pools {
            match self.template(&pool.launch_template, pool.launch_template_version.as_deref().unwrap_or("$Default")).await {
                Ok(template) => drop(templates.insert(pool.pool.clone(), template)),
                // One pool's template must not take the others' offers away.
                Err(CloudError::Invalid { why, .. }) => warn!(pool = %pool.pool, why, "the pool's launch template cannot be used"),
                Err(error) => return Err(error),
            }
        }
        Ok(templates)
    }

    /// Resolves the version to its number, since a name would make a repeated request another one.
    async fn template(&self, template: &str, version: &str) -> Result<Template, CloudError> {
        const CALL: &str = "DescribeLaunchTemplateVersions";
        let call = || async {
            let request = self.client.describe_launch_template_versions().versions(version);
            let request =
                if is_template_id(template) { request.launch_template_id(template) } else { request.launch_template_name(template) };
            request.send().await.map_err(Failure::from)
        };
        let answer = retried(self.timeout, call).await.map_err(|failure| cloud_error(CALL, failure))?;
        let unknown = || CloudError::Invalid { call: CALL, why: format!("the launch template {template} has no version {version}") };
        let found = answer.launch_template_versions().first().ok_or_else(unknown)?;
        let number = found.version_number().ok_or_else(unknown)?;
        Ok(Template { version: number.to_string(), root_volume: found.launch_template_data().and_then(root_volume) })
    }

    /// Reads page after page, each within the deadline.
    async fn pages<T, F, Fut>(&self, call: &'static str, page: F) -> Result<Vec<T>, CloudError>
    where
        F: Fn(Option<String>) -> Fut,
        Fut: Future<Output = Result<(Option<String>, T), Failure>>,
    {
        let mut read = Vec::new();
        let mut next: Option<String> = None;
        for _ in 0..PAGES {
            let (after, answer) = retried(self.timeout, || page(next.clone())).await.map_err(|failure| cloud_error(call, failure))?;
            read.push(answer);
            next = after.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(read);
            }
        }
        let failure = Failure { kind: Kind::Rejected, code: String::new(), why: format!("the answer has more than {PAGES} pages") };
        Err(cloud_error(call, failure))
    }
}

/// Lets the price list's prices win over those of the configuration.
fn with_list_prices(prices: &PricesConfig, listed: OnDemandPrices) -> PricesConfig {
    let mut prices = prices.clone();
    prices.on_demand.extend(listed);
    prices
}

fn chunks(values: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let all: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
    all.chunks(VALUES).map(<[String]>::to_vec).collect()
}

fn filter(name: &str, values: &[String]) -> Filter {
    Filter::builder().name(name).set_values(Some(values.to_vec())).build()
}

/// Reads a type; one without the figures that count is as good as unknown.
fn machine(info: &ec2::InstanceTypeInfo) -> Option<(InstanceType, Machine)> {
    let architectures = info.processor_info()?.supported_architectures();
    let architecture = if architectures.contains(&ArchitectureType::X8664) {
        "amd64"
    } else if architectures.contains(&ArchitectureType::Arm64) {
        "arm64"
    } else {
        return None;
    };
    let classes = info.supported_usage_classes();
    let machine = Machine {
        cpus: u64::try_from(info.v_cpu_info()?.default_v_cpus()?).ok()?,
        memory_mib: u64::try_from(info.memory_info()?.size_in_mib()?).ok()?,
        architecture,
        spot: classes.is_empty() || classes.contains(&UsageClassType::Spot),
    };
    Some((InstanceType::from(info.instance_type()?.as_str()), machine))
}

/// Finds the root volume's size in GiB: that of a known root device, or of the only volume.
fn root_volume(data: &ec2::ResponseLaunchTemplateData) -> Option<u64> {
    let mappings = data.block_device_mappings();
    let root = mappings.iter().find(|it| it.device_name().is_some_and(|name| ROOT_DEVICES.contains(&name)));
    let root = root.or_else(|| if mappings.len() == 1 { mappings.first() } else { None })?;
    root.ebs()?.volume_size().and_then(|size| u64::try_from(size).ok()).filter(|size| *size > 0)
}

/// Joins configuration and facts. Gives, besides the catalogue, what had to be left out and why.
fn assemble(pools: &[PoolLaunch], prices: &PricesConfig, region: &str, facts: &Facts) -> (Catalogue, Vec<String>) {
    let mut offers = Vec::new();
    let mut doubts = BTreeSet::new();
    let mut template_versions = BTreeMap::new();
    for pool in pools {
        let name = &pool.pool;
        let Some(template) = facts.templates.get(name) else {
            doubts.insert(format!("pool {name}: the launch template {} is not known", pool.launch_template));
            continue;
        };
        template_versions.insert(name.clone(), template.version.clone());
        let unknown = pool.subnets.iter().filter(|subnet| !facts.subnets.contains_key(*subnet));
        doubts.extend(unknown.map(|subnet| format!("pool {name}: the subnet {subnet} is not known")));
        for (zone, subnet) in widest(pool, facts) {
            for instance_type in &pool.instance_types {
                match offers_of(pool, instance_type, (subnet, zone), template, prices, region, facts) {
                    Ok(found) => offers.extend(found),
                    Err(why) => drop(doubts.insert(format!("pool {name}: {instance_type} {why}"))),
                }
            }
        }
    }
    let prices = Arc::new(all_prices(prices, facts));
    let catalogue = Catalogue { offers: Arc::new(offers), template_versions, prices, ..Catalogue::default() };
    (catalogue, doubts.into_iter().collect())
}

/// Chooses each zone's subnet: of several the one that has the most addresses left, since a fleet refuses two subnets of
/// one zone for one type.
fn widest<'a>(pool: &'a PoolLaunch, facts: &'a Facts) -> BTreeMap<&'a Zone, &'a SubnetId> {
    let mut chosen: BTreeMap<&Zone, (&SubnetId, u32)> = BTreeMap::new();
    for (id, subnet) in pool.subnets.iter().filter_map(|id| Some((id, facts.subnets.get(id)?))) {
        let known = chosen.entry(&subnet.zone).or_insert((id, subnet.free));
        if subnet.free > known.1 {
            *known = (id, subnet.free);
        }
    }
    chosen.into_iter().map(|(zone, (id, _))| (zone, id)).collect()
}

/// Lists what every priced type costs in every zone of the pools, whether a pool may buy it or not: instances of
/// types that no pool buys any more still run.
fn all_prices(prices: &PricesConfig, facts: &Facts) -> BTreeMap<OfferKey, HourlyPrice> {
    let mut known = BTreeMap::new();
    for Subnet { zone, .. } in facts.subnets.values() {
        for (instance_type, on_demand) in &prices.on_demand {
            for (market, price) in markets((instance_type, zone), *on_demand, prices, facts) {
                known.insert(OfferKey { instance_type: instance_type.clone(), zone: zone.clone(), market }, price);
            }
        }
    }
    known
}

fn markets(
    (instance_type, zone): (&InstanceType, &Zone),
    on_demand: HourlyPrice,
    prices: &PricesConfig,
    facts: &Facts,
) -> [(Market, HourlyPrice); 2] {
    let spot = facts.spot.get(&(instance_type.clone(), zone.clone())).copied();
    [(Market::OnDemand, on_demand), (Market::Spot, spot.unwrap_or_else(|| spot_price(on_demand, prices.spot_ratio)))]
}

/// Makes the offers of a type in a subnet, on demand and spot.
fn offers_of(
    pool: &PoolLaunch,
    instance_type: &InstanceType,
    (subnet, zone): (&SubnetId, &Zone),
    template: &Template,
    prices: &PricesConfig,
    region: &str,
    facts: &Facts,
) -> Result<Vec<Offer>, String> {
    let machine = facts.types.get(instance_type).ok_or("is not known, or is no machine that K3s runs on")?;
    let on_demand = *prices.on_demand.get(instance_type).ok_or("has no price, neither in the price list nor under [prices.on_demand]")?;
    if !facts.offered.contains(&(instance_type.clone(), zone.clone())) {
        return Err(format!("is not offered in {zone}"));
    }
    let allocatable = allocatable(pool, machine, template);
    if allocatable.cpu.0 == 0 || allocatable.memory.0 == 0 {
        return Err("has nothing left after the reservations".to_owned());
    }
    let bought = markets((instance_type, zone), on_demand, prices, facts)
        .into_iter()
        .filter(|(market, _)| machine.spot || *market == Market::OnDemand);
    let offers = bought.map(|(market, price)| Offer {
        key: OfferKey { instance_type: instance_type.clone(), zone: zone.clone(), market },
        pool: pool.pool.clone(),
        subnet: subnet.clone(),
        price,
        allocatable: allocatable.clone(),
        labels: labels(pool, instance_type, zone, market, machine, region),
        taints: pool.taints.clone(),
    });
    Ok(offers.collect())
}

/// Reckons what the kubelet will offer.
///
/// Pods are limited by the kubelet's `maxPods` alone: K3s' flannel takes no addresses of
/// the instance's network interfaces, whose limits bind only with the VPC's own CNI.
fn allocatable(pool: &PoolLaunch, machine: &Machine, template: &Template) -> Resources {
    let mib = machine.memory_mib.saturating_sub((machine.memory_mib.saturating_mul(MEMORY_OVERHEAD)).div_ceil(1000));
    let storage = template.root_volume.map(|gib| Bytes(gib.saturating_mul(1 << 30) / 100 * USABLE_STORAGE));
    Resources {
        cpu: MilliCpu(machine.cpus.saturating_mul(1000).saturating_sub(pool.reserved_cpu.0)),
        memory: Bytes(mib.saturating_mul(1 << 20).saturating_sub(pool.reserved_memory.0)),
        ephemeral_storage: storage.unwrap_or(UNKNOWN_STORAGE),
        pods: u64::from(pool.max_pods),
        extended: BTreeMap::new(),
    }
}

/// Gives the labels of the node to be: the configured ones, and those that EC2's facts decide.
fn labels(pool: &PoolLaunch, instance_type: &InstanceType, zone: &Zone, market: Market, machine: &Machine, region: &str) -> Labels {
    let mut labels = pool.labels.clone();
    let facts = [
        (POOL_LABEL, pool.pool.to_string()),
        (MARKET_LABEL, market.to_string()),
        (ZONE_LABEL, zone.to_string()),
        (REGION_LABEL, region.to_owned()),
        (INSTANCE_TYPE_LABEL, instance_type.to_string()),
    ];
    labels.extend(facts.map(|(key, value)| (key.to_owned(), value)));
    labels.extend(kubelet_labels(machine.architecture));
    labels
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "prices are far below 2^53 micro-dollars, and the share is from 0 to 1"
)]
fn spot_price(on_demand: HourlyPrice, ratio: f64) -> HourlyPrice {
    HourlyPrice((on_demand.0 as f64 * ratio.clamp(0.0, 1.0)).round() as u64)
}

#[cfg(test)]
mod tests;
