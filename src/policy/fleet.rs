//! Counts what each pool has: instances that exist, that are on their way, that leave.

use super::settings::Settings;
use crate::model::offer::HourlyPrice;
use crate::model::operation::{LaunchState, RetireState};
use crate::model::snapshot::Observed;
use crate::model::{
    ClusterView, Instance, InstanceId, InstanceType, Launch, Market, Node, Offer, OfferKey, Operation, OperationId, PoolName, Retire,
    Snapshot, Zone,
};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// How long EC2's own list may lag behind what EC2 has answered before.
const DESCRIBE_LAG: SignedDuration = SignedDuration::from_secs(60);

/// One worker of a pool, or one that is asked for.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Its id; `None` while EC2 has not told.
    pub id: Option<InstanceId>,
    /// Its instance, once EC2 shows it.
    pub instance: Option<&'a Instance>,
    /// Its node, once that exists.
    pub node: Option<&'a Node>,
    /// Its type: the first choice of the order while EC2 has not told.
    pub instance_type: InstanceType,
    /// Its zone.
    pub zone: Zone,
    /// Its market.
    pub market: Market,
    /// The launch it comes from, while that is under way.
    pub launch: Option<&'a Launch>,
    /// The retirement that takes it away.
    pub leaving: Option<&'a Retire>,
    /// Its launch has taken longer than it may: nobody should count on it.
    pub late: bool,
    /// Its node still carries a taint that it started with.
    pub starts: bool,
}

impl Member<'_> {
    /// Gives the offer that it was bought from.
    #[must_use]
    pub fn offer(&self) -> OfferKey {
        OfferKey { instance_type: self.instance_type.clone(), zone: self.zone.clone(), market: self.market }
    }

    /// Tells whether its node takes pods.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.leaving.is_none() && !self.starts && self.node.is_some_and(|node| node.is_ready() && !node.cordoned)
    }

    /// Tells whether it is on its way to become a node that takes pods.
    #[must_use]
    pub fn boots(&self) -> bool {
        self.leaving.is_none() && (self.starts || (self.launch.is_some() && !self.late && !self.node.is_some_and(Node::is_ready)))
    }
}

/// The members of all pools.
#[derive(Clone, Debug, Default)]
pub struct Fleet<'a> {
    pools: BTreeMap<PoolName, Vec<Member<'a>>>,
}

impl<'a> Fleet<'a> {
    /// Joins EC2's list, the nodes and the journal.
    #[must_use]
    pub fn new(settings: &Settings, snapshot: &'a Snapshot) -> Self {
        let mut pools: BTreeMap<PoolName, Vec<Member<'a>>> = settings.pools.iter().map(|pool| (pool.name.clone(), Vec::new())).collect();
        let (Observed::Known { value: cluster, .. }, Observed::Known { value: instances, at }) = (&snapshot.cluster, &snapshot.instances)
        else {
            return Self { pools };
        };
        let journal = Journal::read(&snapshot.operations, *at);
        let nodes = nodes_by_instance(cluster);
        let eyes = Eyes { settings, now: *at };
        for instance in instances.iter().filter(|instance| instance.counts() && !journal.gone.contains(&instance.id)) {
            let Some(pool) = &instance.pool else { continue };
            let launch = instance.operation.as_ref().and_then(|id| journal.launches.get(id)).copied();
            let node = nodes.get(&instance.id).copied();
            pools.entry(pool.clone()).or_default().push(Member {
                id: Some(instance.id.clone()),
                instance: Some(instance),
                node,
                instance_type: instance.instance_type.clone(),
                zone: instance.zone.clone(),
                market: instance.market,
                launch,
                leaving: journal.leaving.get(&instance.id).copied(),
                late: launch.is_some_and(|launch| eyes.is_late(launch)),
                starts: node.is_some_and(|node| eyes.starts(node)),
            });
        }
        for launch in journal.launches.values().chain(&journal.just_launched) {
            let members = pools.entry(launch.order.pool.clone()).or_default();
            members.extend(unseen(launch, instances, &journal, &nodes, &eyes));
        }
        Self { pools }
    }

    /// Gives the members of a pool, those that leave included.
    #[must_use]
    pub fn pool(&self, name: &PoolName) -> &[Member<'a>] {
        self.pools.get(name).map_or(&[], Vec::as_slice)
    }

    /// Counts the members of a pool.
    #[must_use]
    pub fn total(&self, name: &PoolName) -> u32 {
        count(self.pool(name).len())
    }

    /// Counts the members of a pool that stay.
    #[must_use]
    pub fn staying(&self, name: &PoolName) -> u32 {
        count(self.pool(name).iter().filter(|member| member.leaving.is_none()).count())
    }

    /// Gives the members of all pools.
    pub fn members(&self) -> impl Iterator<Item = &Member<'a>> {
        self.pools.values().flatten()
    }
}

/// Counts as the model does.
#[must_use]
pub fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Looks prices up: those of offers, and of what is in the list besides.
#[must_use]
pub fn prices<'p>(offers: &'p [Offer], list: &'p BTreeMap<OfferKey, HourlyPrice>) -> BTreeMap<&'p OfferKey, HourlyPrice> {
    let others = list.iter().map(|(key, price)| (key, *price));
    others.chain(offers.iter().map(|offer| (&offer.key, offer.price))).collect()
}

/// Sums what the members cost.
///
/// # Errors
/// An offer whose price is not known.
pub fn cost(fleet: &Fleet<'_>, known: &BTreeMap<&OfferKey, HourlyPrice>) -> Result<HourlyPrice, OfferKey> {
    let mut sum = HourlyPrice(0);
    for member in fleet.members() {
        let offer = member.offer();
        sum.0 = sum.0.saturating_add(known.get(&offer).ok_or(offer)?.0);
    }
    Ok(sum)
}

/// Joins nodes to instances by their provider id. Names are not looked at: they are reused.
#[must_use]
pub fn nodes_by_instance(cluster: &ClusterView) -> BTreeMap<&InstanceId, &Node> {
    cluster.nodes.values().filter_map(|node| Some((node.instance.as_ref()?, node))).collect()
}

/// What the journal says of instances.
#[derive(Default)]
struct Journal<'a> {
    /// Launches that are under way.
    launches: BTreeMap<OperationId, &'a Launch>,
    /// Launches that ended so lately that EC2's list may not show their instances yet.
    just_launched: Vec<&'a Launch>,
    /// Retirements that are under way, by instance.
    leaving: BTreeMap<InstanceId, &'a Retire>,
    /// Instances that EC2 has taken back, whatever its list says.
    gone: BTreeSet<InstanceId>,
}

impl<'a> Journal<'a> {
    fn read(operations: &'a BTreeMap<OperationId, Operation>, listed: Timestamp) -> Self {
        let mut journal = Self::default();
        for operation in operations.values() {
            match operation {
                Operation::Launch(launch) => match &launch.state {
                    LaunchState::Journalled | LaunchState::Joining { .. } => {
                        journal.launches.insert(launch.id.clone(), launch);
                    }
                    LaunchState::Done { never_joined, .. } => {
                        journal.gone.extend(never_joined.iter().map(|instance| instance.id.clone()));
                        if launch.updated + DESCRIBE_LAG > listed {
                            journal.just_launched.push(launch);
                        }
                    }
                    LaunchState::Failed { .. } => {}
                },
                Operation::Retire(retire) => {
                    let Some(instance) = &retire.order.instance else { continue };
                    match retire.state {
                        RetireState::Journalled
                        | RetireState::Draining { .. }
                        | RetireState::Drained { .. }
                        | RetireState::RollingBack { .. } => {
                            journal.leaving.insert(instance.clone(), retire);
                        }
                        RetireState::Terminated | RetireState::Done => {
                            journal.gone.insert(instance.clone());
                        }
                        RetireState::RolledBack { .. } => {}
                    }
                }
            }
        }
        journal
    }
}

/// How members are judged.
struct Eyes<'s> {
    settings: &'s Settings,
    now: Timestamp,
}

impl Eyes<'_> {
    /// Tells whether the launch has taken longer than an instance may, and the time that EC2's list may lag.
    fn is_late(&self, launch: &Launch) -> bool {
        let limit = SignedDuration::try_from(self.settings.join_timeout).unwrap_or(SignedDuration::MAX);
        match &launch.state {
            LaunchState::Joining { since, .. } => self.now.duration_since(*since) > limit.saturating_add(DESCRIBE_LAG),
            LaunchState::Journalled | LaunchState::Done { .. } | LaunchState::Failed { .. } => false,
        }
    }

    /// Tells whether the node is young and not yet rid of a taint that nodes start with.
    fn starts(&self, node: &Node) -> bool {
        let limit = SignedDuration::try_from(self.settings.join_timeout).unwrap_or(SignedDuration::MAX);
        self.now.duration_since(node.created) <= limit && node.taints.iter().any(|taint| self.settings.startup_taints.contains(&taint.key))
    }
}

/// Lists the members of a launch that EC2's list does not show.
fn unseen<'a>(
    launch: &'a Launch,
    instances: &'a [Instance],
    journal: &Journal<'a>,
    nodes: &BTreeMap<&InstanceId, &'a Node>,
    eyes: &Eyes<'_>,
) -> Vec<Member<'a>> {
    let listed: BTreeSet<&InstanceId> =
        instances.iter().filter(|instance| instance.operation.as_ref() == Some(&launch.id)).map(|instance| &instance.id).collect();
    let member = |id: Option<&InstanceId>, instance_type: InstanceType| {
        let node = id.and_then(|id| nodes.get(id)).copied();
        Member {
            id: id.cloned(),
            instance: None,
            node,
            instance_type,
            zone: launch.order.zone.clone(),
            market: launch.request.market,
            launch: Some(launch),
            leaving: id.and_then(|id| journal.leaving.get(id)).copied(),
            late: eyes.is_late(launch),
            starts: node.is_some_and(|node| eyes.starts(node)),
        }
    };
    let left = match &launch.state {
        LaunchState::Done { left, .. } => left.as_slice(),
        LaunchState::Journalled | LaunchState::Joining { .. } | LaunchState::Failed { .. } => &[],
    };
    match &launch.state {
        LaunchState::Journalled => {
            let expected = launch.request.instance_types.first().cloned().unwrap_or_default();
            (listed.len()..launch.request.count as usize).map(|_| member(None, expected.clone())).collect()
        }
        LaunchState::Joining { instances: launched, .. } | LaunchState::Done { joined: launched, .. } => launched
            .iter()
            .chain(left)
            .filter(|launched| !listed.contains(&launched.id) && !journal.gone.contains(&launched.id))
            .map(|launched| member(Some(&launched.id), launched.instance_type.clone()))
            .collect(),
        LaunchState::Failed { .. } => Vec::new(),
    }
}
