//! EC2: machines, what they cost, client tokens, capacity and the spot market.

use crate::model::instance::{CLUSTER_TAG, EPOCH_TAG, FIXED_TAGS, InstanceState, OPERATION_TAG, TEMPLATE_TAG};
use crate::model::offer::HourlyPrice;
use crate::model::operation::{LaunchRequest, LaunchedInstance};
use crate::model::resources::ATTACHABLE_VOLUMES;
use crate::model::scheduling::{HOSTNAME_LABEL, INSTANCE_TYPE_LABEL, Labels, MARKET_LABEL, POOL_LABEL, Taint, ZONE_LABEL, kubelet_labels};
use crate::model::{
    Bytes, Instance, InstanceId, InstanceType, Market, MilliCpu, Offer, OfferKey, OperationId, PoolName, Resources, SubnetId, Zone,
};
use crate::ports::{LaunchError, Launched};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_hours(1);
/// EC2 bills a machine for this long at least.
const LEAST_BILLED: Duration = Duration::from_mins(1);
/// How long EC2 shows a terminated instance.
const SHOWN_AFTER_END: Duration = Duration::from_hours(1);
/// What the kubelet and the system keep of each node.
const RESERVED_MILLI_CPU: u64 = 100;
const RESERVED_MIB: u64 = 512;
const MIB: u64 = 1 << 20;

/// An instance type as EC2 describes it, with its list price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Its processors, in thousandths.
    pub milli_cpu: u64,
    /// Its memory.
    pub mib: u64,
    /// How many pods its network takes.
    pub pods: u64,
    /// Its list price.
    pub price: HourlyPrice,
}

/// The types that the world sells, with their prices in us-east-1.
pub const KINDS: [Kind; 8] = [
    Kind { name: "t3.medium", milli_cpu: 2_000, mib: 4 << 10, pods: 17, price: HourlyPrice(41_600) },
    Kind { name: "m5.large", milli_cpu: 2_000, mib: 8 << 10, pods: 29, price: HourlyPrice(96_000) },
    Kind { name: "m6i.large", milli_cpu: 2_000, mib: 8 << 10, pods: 29, price: HourlyPrice(96_000) },
    Kind { name: "c5.xlarge", milli_cpu: 4_000, mib: 8 << 10, pods: 58, price: HourlyPrice(170_000) },
    Kind { name: "m5.xlarge", milli_cpu: 4_000, mib: 16 << 10, pods: 58, price: HourlyPrice(192_000) },
    Kind { name: "m6i.xlarge", milli_cpu: 4_000, mib: 16 << 10, pods: 58, price: HourlyPrice(192_000) },
    Kind { name: "r5.large", milli_cpu: 2_000, mib: 16 << 10, pods: 29, price: HourlyPrice(126_000) },
    Kind { name: "m5.2xlarge", milli_cpu: 8_000, mib: 32 << 10, pods: 58, price: HourlyPrice(384_000) },
];

/// Names the resource that stands for the volumes of the world's one CSI driver.
#[must_use]
pub fn volumes() -> String {
    format!("{ATTACHABLE_VOLUMES}ebs.csi.aws.com")
}

impl Kind {
    /// Looks a type up.
    pub fn named(name: &str) -> Option<Self> {
        KINDS.into_iter().find(|kind| kind.name == name)
    }

    /// Gives what a node of this type offers to pods, daemon sets included.
    pub fn allocatable(&self) -> Resources {
        Resources {
            cpu: MilliCpu(self.milli_cpu - RESERVED_MILLI_CPU),
            memory: Bytes((self.mib - RESERVED_MIB) * MIB),
            ephemeral_storage: Bytes(20 << 30),
            pods: self.pods,
            extended: BTreeMap::new(),
        }
    }
}

/// What a pool may buy, and how its nodes look.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolSpec {
    /// Its name.
    pub name: PoolName,
    /// The types it may buy.
    pub types: Vec<&'static str>,
    /// Labels that its user data adds.
    pub labels: Labels,
    /// Taints that its user data adds.
    pub taints: Vec<Taint>,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Its id.
    pub id: InstanceId,
    /// Its type.
    pub kind: Kind,
    /// Its zone.
    pub zone: Zone,
    /// How it is paid for.
    pub market: Market,
    /// Where it stands.
    pub state: InstanceState,
    /// When it was launched.
    pub launched: Duration,
    /// From when on lists show it.
    pub visible: Duration,
    /// When it stopped being paid for.
    pub ended: Option<Duration>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// What an hour of it cost when it was launched.
    pub price: HourlyPrice,
    /// What its hours that are over have cost, in dollars.
    pub billed: f64,
    /// When its current hour began, and what that costs: the market's price at the hour's beginning.
    pub hour: (Duration, HourlyPrice),
    /// When the market takes it back, once that is announced.
    pub reclaimed_at: Option<Duration>,
}

impl Machine {
    /// Tells whether it exists: it is not on its way out.
    pub fn lives(&self) -> bool {
        match self.state {
            InstanceState::Pending | InstanceState::Running | InstanceState::Stopped => true,
            InstanceState::Ending => false,
        }
    }

    /// Gives the pool that its tag names.
    pub fn pool(&self) -> Option<&str> {
        self.tags.get(POOL_LABEL).map(String::as_str)
    }

    /// Tells whether it carries the tags of this cluster's workers.
    pub fn is_ours(&self, cluster: &str) -> bool {
        self.tags.get(CLUSTER_TAG).is_some_and(|name| name == cluster)
            && FIXED_TAGS.iter().all(|(key, value)| self.tags.get(*key).is_some_and(|found| found == value))
    }

    /// Gives what it has cost until `now`, in dollars.
    pub fn cost(&self, now: Duration) -> f64 {
        let end = self.ended.unwrap_or(now).min(now).max(self.launched + LEAST_BILLED);
        let (began, price) = self.hour;
        self.billed + price.dollars() * end.saturating_sub(began).as_secs_f64() / 3600.0
    }

    /// Closes the hours that are over; the next ones cost what the market asks.
    fn close_hours(&mut self, market: HourlyPrice, now: Duration) {
        let end = self.ended.unwrap_or(now).min(now);
        while self.hour.0 + HOUR <= end {
            self.billed += self.hour.1.dollars();
            self.hour = (self.hour.0 + HOUR, market);
        }
    }
}

/// A request that has been answered.
#[derive(Clone, Debug)]
struct Sold {
    request: LaunchRequest,
    answer: Result<Launched, LaunchError>,
}

/// EC2 in one region.
#[derive(Debug)]
pub struct Ec2 {
    /// The cluster whose tags mark our instances.
    pub cluster: String,
    /// The zones, each with one subnet.
    pub zones: Vec<Zone>,
    /// What each pool may buy.
    pub pools: Vec<PoolSpec>,
    /// Every machine that ever was.
    pub machines: BTreeMap<InstanceId, Machine>,
    /// Machines that are still shown.
    shown: BTreeSet<InstanceId>,
    /// Spot prices as a share of the list price, by type and zone.
    pub spot_ratio: BTreeMap<(InstanceType, Zone), f64>,
    /// How many instances an offer can still give; absent is without a limit.
    pub capacity: BTreeMap<OfferKey, u32>,
    /// How many instances the account may still launch.
    pub quota: Option<u32>,
    /// Requests are filled only in part.
    pub halves_requests: bool,
    /// How long lists lag behind launches.
    pub lag: Duration,
    /// When the launch templates get a second version.
    pub new_template_at: Option<Duration>,
    /// EC2 recommends to replace a machine before the market takes it back.
    pub recommends: bool,
    /// How many volumes of the one CSI driver a node attaches, which shows once it is there; `None` is as many as it likes.
    pub attaches: Option<u64>,
    sold: BTreeMap<OperationId, Sold>,
    numbered: u64,
    offers: Option<Arc<Vec<Offer>>>,
}

/// Names the subnet of a zone.
pub fn subnet_of(zone: &Zone) -> SubnetId {
    SubnetId::new(format!("subnet-{zone}"))
}

impl Ec2 {
    /// Opens a region.
    pub fn new(cluster: &str, zones: Vec<Zone>, pools: Vec<PoolSpec>) -> Self {
        Self {
            cluster: cluster.to_owned(),
            zones,
            pools,
            machines: BTreeMap::new(),
            shown: BTreeSet::new(),
            spot_ratio: BTreeMap::new(),
            capacity: BTreeMap::new(),
            quota: None,
            new_template_at: None,
            recommends: false,
            attaches: None,
            halves_requests: false,
            lag: Duration::ZERO,
            sold: BTreeMap::new(),
            numbered: 0,
            offers: None,
        }
    }

    /// Gives what the account can launch. One value is shared until prices move.
    pub fn offers(&mut self) -> Arc<Vec<Offer>> {
        if let Some(offers) = &self.offers {
            return Arc::clone(offers);
        }
        let mut offers = Vec::new();
        for pool in &self.pools {
            for kind in pool.types.iter().filter_map(|name| Kind::named(name)) {
                for zone in &self.zones {
                    for market in [Market::OnDemand, Market::Spot] {
                        let key = OfferKey { instance_type: kind.name.into(), zone: zone.clone(), market };
                        offers.push(Offer {
                            pool: pool.name.clone(),
                            subnet: subnet_of(zone),
                            price: self.price(&key, kind),
                            allocatable: kind.allocatable(),
                            labels: node_labels(pool, kind, zone, market, None),
                            taints: pool.taints.clone(),
                            key,
                        });
                    }
                }
            }
        }
        let offers = Arc::new(offers);
        self.offers = Some(Arc::clone(&offers));
        offers
    }

    /// Closes the hours of spot machines at the market's prices, before those move.
    pub fn close_hours(&mut self, now: Duration) {
        let spot = |machine: &&Machine| machine.market == Market::Spot;
        let due: Vec<_> = self.living().filter(spot).map(|it| (it.id.clone(), it.kind, it.zone.clone())).collect();
        for (id, kind, zone) in due {
            let price = self.price(&OfferKey { instance_type: kind.name.into(), zone, market: Market::Spot }, kind);
            if let Some(machine) = self.machines.get_mut(&id) {
                machine.close_hours(price, now);
            }
        }
    }

    /// Moves a spot price.
    pub fn set_spot_ratio(&mut self, instance_type: InstanceType, zone: Zone, ratio: f64) {
        self.spot_ratio.insert((instance_type, zone), ratio);
        self.offers = None;
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a price is small and positive"
    )]
    fn price(&self, key: &OfferKey, kind: Kind) -> HourlyPrice {
        match key.market {
            Market::OnDemand => kind.price,
            Market::Spot => {
                let ratio = self.spot_ratio.get(&(key.instance_type.clone(), key.zone.clone())).copied().unwrap_or(0.35);
                HourlyPrice((kind.price.0 as f64 * ratio) as u64)
            }
        }
    }

    /// Answers `CreateFleet` of type `instant`. A token that was used before gets the answer it got then.
    pub fn create_fleet(&mut self, request: &LaunchRequest, now: Duration) -> Result<Launched, LaunchError> {
        if let Some(sold) = self.sold.get(&request.token) {
            return if sold.request == *request { sold.answer.clone() } else { Err(LaunchError::TokenMismatch) };
        }
        let answer = self.fill(request, now);
        self.sold.insert(request.token.clone(), Sold { request: request.clone(), answer: answer.clone() });
        answer
    }

    /// Uses a token for something else, as another actor might.
    pub fn take_token(&mut self, token: &OperationId, request: &LaunchRequest) {
        let other = LaunchRequest { count: request.count + 1, ..request.clone() };
        self.sold.insert(token.clone(), Sold { request: other, answer: Err(LaunchError::InsufficientCapacity) });
    }

    fn fill(&mut self, request: &LaunchRequest, now: Duration) -> Result<Launched, LaunchError> {
        let zone = self.zones.iter().find(|zone| subnet_of(zone) == request.subnet).cloned();
        let Some(zone) = zone else {
            return Err(LaunchError::Refused { message: format!("the subnet {} does not exist", request.subnet) });
        };
        let mut wanted = request.count;
        if self.halves_requests && wanted > 1 {
            wanted = wanted.div_ceil(2);
        }
        let mut launched = Launched::default();
        let mut over_quota = false;
        let mut kinds: Vec<Kind> = request.instance_types.iter().filter_map(|name| Kind::named(name.as_str())).collect();
        if request.market == Market::Spot {
            // price-capacity-optimized, where all capacity is equal: the cheapest.
            kinds.sort_by_key(|kind| {
                self.price(&OfferKey { instance_type: kind.name.into(), zone: zone.clone(), market: Market::Spot }, *kind)
            });
        }
        for kind in kinds {
            let key = OfferKey { instance_type: kind.name.into(), zone: zone.clone(), market: request.market };
            while launched.instances.len() < wanted as usize {
                if self.quota == Some(0) {
                    over_quota = true;
                    break;
                }
                if !self.take_capacity(&key) {
                    launched.without_capacity.push(key.instance_type.clone());
                    break;
                }
                let id = self.start(kind, &key, &request.tags, now);
                launched.instances.push(LaunchedInstance { id, instance_type: key.instance_type.clone(), node: None });
            }
        }
        if !launched.instances.is_empty() {
            return Ok(launched);
        }
        if over_quota {
            return Err(LaunchError::Quota { message: "VcpuLimitExceeded: the account may have no more".into() });
        }
        Err(LaunchError::InsufficientCapacity)
    }

    fn take_capacity(&mut self, key: &OfferKey) -> bool {
        match self.capacity.get_mut(key) {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        if let Some(quota) = &mut self.quota {
            *quota = quota.saturating_sub(1);
        }
        true
    }

    fn start(&mut self, kind: Kind, key: &OfferKey, tags: &BTreeMap<String, String>, now: Duration) -> InstanceId {
        let price = self.price(key, kind);
        self.add(kind, key.zone.clone(), key.market, price, tags.clone(), now)
    }

    /// Starts a machine, whoever asked for it.
    pub fn add(
        &mut self,
        kind: Kind,
        zone: Zone,
        market: Market,
        price: HourlyPrice,
        tags: BTreeMap<String, String>,
        now: Duration,
    ) -> InstanceId {
        self.numbered += 1;
        let id = InstanceId::new(format!("i-{:017x}", self.numbered));
        let machine = Machine {
            id: id.clone(),
            kind,
            zone,
            market,
            state: InstanceState::Pending,
            launched: now,
            visible: now + self.lag,
            ended: None,
            tags,
            price,
            billed: 0.0,
            hour: (now, price),
            reclaimed_at: None,
        };
        self.machines.insert(id.clone(), machine);
        self.shown.insert(id.clone());
        id
    }

    /// Ends a machine. Tells whether it lived.
    pub fn end(&mut self, id: &InstanceId, now: Duration) -> bool {
        let Some(machine) = self.machines.get_mut(id) else { return false };
        let lived = machine.lives();
        machine.state = InstanceState::Ending;
        machine.ended.get_or_insert(now);
        lived
    }

    /// Lists the instances that carry the cluster's tags, as `DescribeInstances` shows them at `now`.
    pub fn list(&mut self, now: Duration, start: Timestamp) -> Vec<Instance> {
        let machines = &self.machines;
        self.shown.retain(|id| machines[id].ended.is_none_or(|ended| now < ended + SHOWN_AFTER_END));
        let ours = self.shown.iter().map(|id| &machines[id]).filter(|machine| machine.visible <= now && machine.is_ours(&self.cluster));
        ours.map(|machine| describe(machine, start)).collect()
    }

    /// Lists everybody's instances as if they were of the first pool.
    pub fn list_everybody(&self, start: Timestamp) -> Vec<Instance> {
        let pool = self.pools.first().map(|pool| pool.name.clone());
        self.shown.iter().map(|id| Instance { pool: pool.clone(), ..describe(&self.machines[id], start) }).collect()
    }

    /// Tells whether a machine runs that lists do not show yet.
    pub fn hides_something(&self, now: Duration) -> bool {
        self.living().any(|machine| machine.visible > now)
    }

    /// Lists the machines that live.
    pub fn living(&self) -> impl Iterator<Item = &Machine> {
        self.shown.iter().map(|id| &self.machines[id]).filter(|machine| machine.lives())
    }

    /// Counts the living members of a pool.
    pub fn count(&self, pool: &PoolName) -> usize {
        self.living().filter(|machine| machine.is_ours(&self.cluster) && machine.pool() == Some(pool.as_str())).count()
    }

    /// Counts the machines that a request with this token brought.
    pub fn brought_by(&self, token: &OperationId) -> usize {
        self.machines.values().filter(|machine| machine.tags.get(OPERATION_TAG).is_some_and(|id| id == token.as_str())).count()
    }

    /// Tells whether a request with this token has been answered before.
    pub fn has_answered(&self, token: &OperationId) -> bool {
        self.sold.contains_key(token)
    }

    /// Sums what everything of ours costs in an hour.
    pub fn hourly(&self) -> HourlyPrice {
        HourlyPrice(self.living().filter(|machine| machine.is_ours(&self.cluster)).map(|machine| machine.price.0).sum())
    }
}

fn describe(machine: &Machine, start: Timestamp) -> Instance {
    Instance {
        id: machine.id.clone(),
        instance_type: machine.kind.name.into(),
        zone: machine.zone.clone(),
        subnet: Some(subnet_of(&machine.zone)),
        market: machine.market,
        state: machine.state,
        launched: moment(start, machine.launched),
        ended: machine.ended.map(|ended| moment(start, ended)),
        pool: machine.pool().map(PoolName::from),
        operation: machine.tags.get(OPERATION_TAG).map(|id| OperationId::from(id.as_str())),
        epoch: machine.tags.get(EPOCH_TAG).and_then(|epoch| epoch.parse().ok()).map(crate::model::ids::Epoch),
        template: machine.tags.get(TEMPLATE_TAG).cloned(),
    }
}

fn moment(start: Timestamp, after: Duration) -> Timestamp {
    start + SignedDuration::try_from(after).unwrap_or(SignedDuration::MAX)
}

/// Gives the labels of a pool's node.
pub fn node_labels(pool: &PoolSpec, kind: Kind, zone: &Zone, market: Market, hostname: Option<&str>) -> Labels {
    let mut labels = pool.labels.clone();
    let own = [
        (POOL_LABEL, pool.name.as_str()),
        (ZONE_LABEL, zone.as_str()),
        (INSTANCE_TYPE_LABEL, kind.name),
        (MARKET_LABEL, if market == Market::Spot { "spot" } else { "on-demand" }),
    ];
    labels.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
    labels.extend(kubelet_labels("amd64"));
    if let Some(hostname) = hostname {
        labels.insert(HOSTNAME_LABEL.to_owned(), hostname.to_owned());
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::instance::tags;

    fn region() -> Ec2 {
        let pool = PoolSpec { name: "workers".into(), types: vec!["m5.large", "m6i.large"], labels: Labels::new(), taints: Vec::new() };
        Ec2::new("c", vec!["a".into(), "b".into()], vec![pool])
    }

    fn request(token: &str, count: u32) -> LaunchRequest {
        LaunchRequest {
            token: token.into(),
            launch_template: "lt".into(),
            launch_template_version: "1".into(),
            subnet: "subnet-a".into(),
            market: Market::Spot,
            instance_types: vec!["m5.large".into(), "m6i.large".into()],
            count,
            tags: tags("c", &"workers".into(), &token.into(), crate::model::ids::Epoch(1), "lt:1"),
        }
    }

    #[test]
    fn a_token_has_one_effect_and_refuses_other_parameters() {
        let mut ec2 = region();
        let first = ec2.create_fleet(&request("t", 2), Duration::ZERO).expect("two machines");
        assert_eq!(ec2.create_fleet(&request("t", 2), Duration::from_secs(5)).as_ref(), Ok(&first));
        assert_eq!(ec2.create_fleet(&request("t", 3), Duration::from_secs(6)), Err(LaunchError::TokenMismatch));
        assert_eq!((ec2.count(&"workers".into()), ec2.brought_by(&"t".into())), (2, 2));
    }

    #[test]
    fn capacity_runs_out_by_offer_and_is_named() {
        let mut ec2 = region();
        let key = |name: &str| OfferKey { instance_type: name.into(), zone: "a".into(), market: Market::Spot };
        ec2.capacity = BTreeMap::from([(key("m5.large"), 0), (key("m6i.large"), 1)]);
        let partly = ec2.create_fleet(&request("t", 2), Duration::ZERO).expect("one machine");
        assert_eq!((partly.instances.len(), partly.without_capacity.len()), (1, 2));
        assert_eq!(ec2.create_fleet(&request("u", 1), Duration::ZERO), Err(LaunchError::InsufficientCapacity));
        // The answer belongs to the token, although there is capacity again.
        ec2.capacity.clear();
        assert_eq!(ec2.create_fleet(&request("u", 1), Duration::ZERO), Err(LaunchError::InsufficientCapacity));
        ec2.quota = Some(0);
        assert!(matches!(ec2.create_fleet(&request("v", 1), Duration::ZERO), Err(LaunchError::Quota { .. })));
    }

    #[test]
    fn lists_lag_and_show_the_dead_for_an_hour() {
        let mut ec2 = region();
        ec2.lag = Duration::from_secs(20);
        let start = Timestamp::UNIX_EPOCH;
        let id = ec2.create_fleet(&request("t", 1), Duration::ZERO).expect("a machine").instances[0].id.clone();
        assert_eq!(ec2.list(Duration::from_secs(19), start), []);
        assert_eq!(ec2.list(Duration::from_secs(20), start).len(), 1);
        assert!(ec2.end(&id, Duration::from_mins(1)) && !ec2.end(&id, Duration::from_secs(61)));
        assert_eq!(ec2.list(Duration::from_secs(61), start)[0].state, InstanceState::Ending);
        assert_eq!(ec2.list(Duration::from_secs(3700), start), []);
    }

    #[test]
    fn a_machine_is_billed_by_the_second_and_for_a_minute_at_least() {
        let mut ec2 = region();
        let id = ec2.add(KINDS[1], "a".into(), Market::OnDemand, HourlyPrice(3_600_000), BTreeMap::new(), Duration::ZERO);
        ec2.end(&id, Duration::from_secs(10));
        assert!((ec2.machines[&id].cost(Duration::from_secs(1000)) - 0.06).abs() < 1e-9);
    }
}
