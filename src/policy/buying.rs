//! Opens nodes that may be bought: which pool, market, zone and type, within the bounds.

mod choosing;
mod orders;
mod passing_over;

use super::fit::{Board, Misfit, node_accepts};
use super::fleet::{Fleet, Member, cost, count};
use super::settings::{PoolSettings, Settings};
use super::topology::Shape;
use super::worth::Worth;
use crate::model::memory::Memory;
use crate::model::offer::{HourlyPrice, UNKNOWN_STORAGE};
use crate::model::plan::{Hold, LaunchReason};
use crate::model::pod::Owner;
use crate::model::snapshot::DaemonSet;
use crate::model::{Bytes, ClusterView, InstanceType, Market, Offer, OfferKey, Pod, PodKey, PoolName, Resources, Zone};
use choosing::Holders;
use jiff::Timestamp;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// How many kinds of pods that still wait a type is tried on when types are compared.
pub(super) const LOOK_AHEAD: usize = 64;

/// The bounds in force for a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The fewest workers.
    pub min: u32,
    /// The most workers.
    pub max: u32,
}

impl PoolSettings {
    /// Gives the bounds in force at `now`: those of the last schedule that is active, else the pool's own.
    #[must_use]
    pub fn bounds(&self, now: Timestamp) -> Bounds {
        let scheduled = self.schedules.iter().rev().find(|entry| entry.schedule.is_active(now));
        scheduled.map_or(Bounds { min: self.min, max: self.max }, |entry| Bounds { min: entry.min, max: entry.max })
    }
}

/// How types are chosen for pods, and pods for nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// Each node is of the type that pays best for what is left, and is filled with it.
    Mixed,
    /// Each node is of this type, wherever it will do.
    Prefer(InstanceType),
    /// The largest pod comes first; its node is of the type that is cheapest by the core.
    FirstFitDecreasing,
}

impl fmt::Display for Way {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mixed => formatter.write_str("each node of the type that pays best for what is left"),
            Self::Prefer(instance_type) => write!(formatter, "nodes of {instance_type} wherever they will do"),
            Self::FirstFitDecreasing => formatter.write_str("first fit decreasing"),
        }
    }
}

/// A node that is to be bought.
#[derive(Clone, Debug)]
struct Purchase {
    /// The index of its offer.
    offer: usize,
    /// Its index on the board.
    bin: usize,
    reason: LaunchReason,
}

/// An empty node of an offer: the pods of daemon sets are there before all others.
#[derive(Clone, Debug)]
pub struct Empty<'a> {
    /// The offer.
    pub offer: &'a Offer,
    /// What it has for pods, daemon sets taken off.
    pub room: Resources,
    /// The daemons that come to it.
    daemons: Vec<&'a Pod>,
    /// The same by their numbers among all: two offers with the same ones differ in their daemons by nothing.
    sets: Vec<usize>,
    /// What it has for pods and for these.
    capacity: Resources,
}

impl<'a> Empty<'a> {
    /// Adds it to a board and gives its index there.
    pub fn add_to(&self, board: &mut Board<'a>) -> usize {
        let bin = board.add(None, &self.offer.labels, &self.offer.taints, &self.capacity, true);
        for daemon in &self.daemons {
            let shape = board.shape(daemon);
            board.load(shape, 1, bin);
        }
        bin
    }
}

/// Decides what can still be bought, and keeps count of what has been.
#[derive(Clone)]
pub struct Buyer<'a> {
    settings: &'a Settings,
    offers: &'a [Offer],
    memory: &'a Memory,
    now: Timestamp,
    /// An empty node of each offer; made when somebody asks.
    empty: Vec<OnceCell<Rc<Empty<'a>>>>,
    /// What its nodes have, daemon sets left on; made when somebody asks.
    allocatable: Vec<OnceCell<Resources>>,
    /// One pod of each daemon set.
    daemons: &'a [Pod],
    zones: BTreeMap<PoolName, BTreeMap<Zone, u32>>,
    markets: BTreeMap<PoolName, BTreeMap<Market, u32>>,
    totals: BTreeMap<PoolName, u32>,
    /// The most workers of each pool at this hour: its schedules are asked once, and not for each node that is opened.
    most: BTreeMap<&'a PoolName, u32>,
    price: HourlyPrice,
    /// A member whose price nobody knows, so that no ceiling can be kept.
    unpriced: Option<OfferKey>,
    purchases: Vec<Purchase>,
    /// The offers, pool by pool.
    by_pool: BTreeMap<&'a PoolName, Vec<usize>>,
    holders: BTreeMap<Shape, Rc<Holders>>,
    way: Way,
}

/// Why no node was opened for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No offer of any pool could ever hold it.
    Never(Misfit),
    /// Something stands in the way now.
    Now {
        /// The first pool whose node would hold it.
        pool: PoolName,
        /// What stands in the way there.
        hold: Hold,
        /// All pools whose node would hold it.
        of: Vec<PoolName>,
    },
}

impl<'a> Buyer<'a> {
    /// Starts from what the fleet has. Members that leave still count towards the maximum and the price.
    #[must_use]
    pub fn new(
        settings: &'a Settings,
        offers: &'a [Offer],
        prices: &BTreeMap<&OfferKey, HourlyPrice>,
        daemons: &'a [Pod],
        memory: &'a Memory,
        fleet: &Fleet<'_>,
        now: Timestamp,
    ) -> Self {
        let (price, unpriced) = match cost(fleet, prices) {
            Ok(price) => (price, None),
            Err(offer) => (HourlyPrice(0), Some(offer)),
        };
        let mut buyer = Self {
            settings,
            offers,
            memory,
            now,
            empty: offers.iter().map(|_| OnceCell::new()).collect(),
            allocatable: offers.iter().map(|_| OnceCell::new()).collect(),
            daemons,
            zones: BTreeMap::new(),
            markets: BTreeMap::new(),
            totals: settings.pools.iter().map(|pool| (pool.name.clone(), fleet.total(&pool.name))).collect(),
            most: settings.pools.iter().map(|pool| (&pool.name, pool.bounds(now).max)).collect(),
            price,
            unpriced,
            purchases: Vec::new(),
            by_pool: BTreeMap::new(),
            holders: BTreeMap::new(),
            way: Way::Mixed,
        };
        for (index, offer) in offers.iter().enumerate() {
            buyer.by_pool.entry(&offer.pool).or_default().push(index);
            buyer.zones.entry(offer.pool.clone()).or_default().entry(offer.key.zone.clone()).or_default();
        }
        for pool in &settings.pools {
            for member in fleet.pool(&pool.name).iter().filter(|member| member.leaving.is_none()) {
                *buyer.zones.entry(pool.name.clone()).or_default().entry(member.zone.clone()).or_default() += 1;
                *buyer.markets.entry(pool.name.clone()).or_default().entry(member.market).or_default() += 1;
            }
        }
        buyer
    }

    /// Makes a buyer that has bought what this one has and goes on in another way.
    #[must_use]
    pub fn going(&self, way: Way) -> Self {
        Self { way, ..self.clone() }
    }

    /// Chooses zones and markets as if the member had gone. It counts towards the maximum and the price all the same.
    pub fn disregard(&mut self, pool: &PoolName, member: &Member<'_>) {
        let less = |nodes: &mut u32| *nodes = nodes.saturating_sub(1);
        self.zones.get_mut(pool).and_then(|zones| zones.get_mut(&member.zone)).map(less);
        self.markets.get_mut(pool).and_then(|markets| markets.get_mut(&member.market)).map(less);
    }

    /// Lists what has been bought, as empty nodes.
    #[must_use]
    pub fn nodes(&self) -> Vec<Rc<Empty<'a>>> {
        self.purchases.iter().map(|purchase| Rc::clone(self.empty(purchase.offer))).collect()
    }

    /// Gives the way in which it chooses types.
    #[must_use]
    pub fn way(&self) -> &Way {
        &self.way
    }

    /// Names types that may be cheaper than the mixture that `other` has bought: the cheapest for its cores and bytes,
    /// at what these are worth to the pods that it has bought for.
    #[must_use]
    pub fn types_worth_trying(&self, other: &Self, most: usize) -> Vec<InstanceType> {
        let mut demand = Resources::default();
        other.purchases.iter().for_each(|purchase| demand.add(other.room(purchase.offer)));
        let pools: BTreeSet<&PoolName> = other.purchases.iter().map(|purchase| &other.offers[purchase.offer].pool).collect();
        let is_available = |index: &usize| {
            let offer = &self.offers[*index];
            pools.contains(&offer.pool) && self.rests(offer).is_none()
        };
        let available: Vec<usize> = (0..self.offers.len()).filter(is_available).collect();
        let worth = Worth::of(available.iter().map(|index| (self.room(*index), self.offers[*index].price)), &demand);
        let mut costs: BTreeMap<&InstanceType, f64> = BTreeMap::new();
        for index in available {
            let (offer, room) = (&self.offers[index], self.room(index));
            let cost = offer.price.dollars() / worth.value(room).max(1e-9);
            costs.entry(&offer.key.instance_type).and_modify(|least| *least = least.min(cost)).or_insert(cost);
        }
        let mut types: Vec<(&InstanceType, f64)> = costs.into_iter().collect();
        types.sort_by(|(_, one), (_, other)| one.total_cmp(other));
        types.into_iter().take(most).map(|(name, _)| name.clone()).collect()
    }

    /// Names the offer of the node that was bought as this one of the board.
    #[must_use]
    pub fn offer_of(&self, bin: usize) -> Option<&'a OfferKey> {
        self.purchases.iter().find(|purchase| purchase.bin == bin).map(|purchase| &self.offers[purchase.offer].key)
    }

    /// Gives the price of everything, and how many nodes are bought.
    #[must_use]
    pub fn bill(&self) -> (HourlyPrice, usize) {
        (self.price, self.purchases.len())
    }

    /// Gives the empty node that one which boots will be.
    #[must_use]
    pub fn empty_of(&self, key: &OfferKey, pool: &PoolName) -> Option<&Empty<'a>> {
        self.index_of(key, pool).map(|index| &**self.empty(index))
    }

    /// Gives what a node of the offer that boots will have for pods and daemon sets.
    #[must_use]
    pub fn allocatable_of(&self, key: &OfferKey, pool: &PoolName) -> Option<&Resources> {
        self.index_of(key, pool).map(|index| self.allocatable(index))
    }

    /// Finds the offer of a node that boots. One that can no longer be had is as the largest of its pool, or else its pods
    /// would buy a second one.
    fn index_of(&self, key: &OfferKey, pool: &PoolName) -> Option<usize> {
        let exact = self.offers.iter().position(|offer| offer.key == *key && offer.pool == *pool);
        exact.or_else(|| {
            let near = |offer: &Offer| (offer.key.zone == key.zone, offer.key.market == key.market, offer.allocatable.cpu);
            self.by_pool.get(pool)?.iter().copied().max_by_key(|index| near(&self.offers[*index]))
        })
    }

    /// What nodes of the type really have is known better than what they should have.
    fn allocatable(&self, index: usize) -> &Resources {
        self.allocatable[index].get_or_init(|| {
            let offer = &self.offers[index];
            let mut estimate = offer.allocatable.clone();
            let learned = self.memory.allocatable.get(&(offer.pool.clone(), offer.key.instance_type.clone()));
            let Some(learned) = learned else {
                if estimate.ephemeral_storage == UNKNOWN_STORAGE {
                    estimate.ephemeral_storage = self.least_storage(&offer.pool).unwrap_or(UNKNOWN_STORAGE);
                }
                return estimate;
            };
            let extended = estimate.extended.into_iter().chain(learned.has.extended.clone()).collect();
            Resources { extended, ..learned.has.clone() }
        })
    }

    /// Gives the least local storage that nodes of the pool were seen to have: all types of it start from one template, and
    /// so from one image. Else each type would be bought once for a pod that asks for more.
    fn least_storage(&self, pool: &PoolName) -> Option<Bytes> {
        let of_pool = self.memory.allocatable.iter().filter(|((of, _), _)| of == pool);
        // A kubelet that has not looked at its disk yet says nothing of it.
        of_pool.map(|(_, seen)| seen.has.ephemeral_storage).filter(|storage| *storage > Bytes(0)).min()
    }

    fn room(&self, index: usize) -> &Resources {
        &self.empty(index).room
    }

    fn empty(&self, index: usize) -> &Rc<Empty<'a>> {
        self.empty[index].get_or_init(|| {
            let offer = &self.offers[index];
            let comes = |(_, pod): &(usize, &Pod)| node_accepts(&pod.constraints, None, &offer.labels, &offer.taints).is_ok();
            let (sets, daemons): (Vec<usize>, Vec<&Pod>) = self.daemons.iter().enumerate().filter(comes).unzip();
            let learned = self.memory.allocatable.get(&(offer.pool.clone(), offer.key.instance_type.clone()));
            let (mut asked, mut taken) = (Resources::default(), Resources::default());
            for daemon in &daemons {
                asked.add(&daemon.requests);
                let mut most = daemon.requests.clone();
                if let Some(seen) = learned.and_then(|learned| learned.sets.get(&daemon.key.to_string())) {
                    most.raise_to(seen);
                }
                taken.add(&most);
            }
            if let Some(learned) = learned {
                taken.add(&learned.others);
            }
            let mut room = self.allocatable(index).clone();
            room.subtract(&taken);
            let mut capacity = room.clone();
            capacity.add(&asked);
            Rc::new(Empty { offer, room, daemons, sets, capacity })
        })
    }

    /// Counts what has been bought for a pool.
    #[must_use]
    pub fn bought(&self, pool: &PoolName) -> u32 {
        count(self.purchases_for(pool).count())
    }

    /// Counts what has been bought for a pool to keep its headroom.
    #[must_use]
    pub fn bought_for_headroom(&self, pool: &PoolName) -> u32 {
        count(self.purchases_for(pool).filter(|purchase| purchase.reason == LaunchReason::Headroom).count())
    }

    /// Sums what has been bought for a pool.
    #[must_use]
    pub fn bought_capacity(&self, pool: &PoolName) -> Resources {
        let mut sum = Resources::default();
        self.purchases_for(pool).for_each(|purchase| sum.add(self.allocatable(purchase.offer)));
        sum
    }

    fn purchases_for(&self, pool: &PoolName) -> impl Iterator<Item = &Purchase> {
        self.purchases.iter().filter(move |purchase| self.offers[purchase.offer].pool == *pool)
    }

    /// Opens a node for a pod of the first of the kinds that wait, each with its number, and gives its index on the board.
    ///
    /// # Errors
    /// Why there is no node for it.
    pub fn open_for(&mut self, board: &mut Board<'a>, waiting: &[(Shape, u32)], reason: &LaunchReason) -> Result<usize, Refusal> {
        let Some((shape, _)) = waiting.first().copied() else {
            return Err(Refusal::Never(Misfit::Unmodelled("no pod".into())));
        };
        if let Some(preferring) = board.example(shape).preferring.as_deref() {
            let preferring = board.shape(preferring);
            if let Ok(index) = self.choose_for(board, preferring, waiting) {
                return Ok(self.buy(board, index, reason.clone()));
            }
        }
        self.choose_for(board, shape, waiting).map(|index| self.buy(board, index, reason.clone()))
    }

    /// Opens a node of a pool for its capacity alone, the cheapest for its `worth`, and gives what it has for pods and
    /// daemon sets. `worth` tells of the room of an empty node how much of what is wanted it is.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open_any(
        &mut self,
        board: &mut Board<'a>,
        pool: &PoolSettings,
        reason: &LaunchReason,
        worth: impl Fn(&Resources) -> f64,
    ) -> Result<Resources, Hold> {
        let offers = self.by_pool.get(&pool.name).cloned().unwrap_or_default();
        let index = self
            .choose(pool, offers, |buyer, index| buyer.offers[index].price.dollars() / worth(buyer.room(index)).max(f64::MIN_POSITIVE))?;
        let allocatable = self.allocatable(index).clone();
        self.buy(board, index, reason.clone());
        Ok(allocatable)
    }

    /// Tells of every offer whether it can be bought now, and, where a kind of pod is given, whether its empty node would
    /// take it.
    pub fn explain(&mut self, board: &mut Board<'a>, shape: Option<Shape>) -> Vec<(String, Result<(), String>)> {
        let outcome = |buyer: &Self, board: &mut Board<'a>, index: usize| {
            let offer = &buyer.offers[index];
            if let Some(shape) = shape {
                buyer.on_trial(board, index, |board, bin| board.fits(shape, bin)).map_err(|why| why.to_string())?;
            }
            let pool = buyer.settings.pools.iter().find(|pool| pool.name == offer.pool).ok_or("its pool is not configured")?;
            buyer.choose(pool, vec![index], |_, _| 0.0).map(|_| ()).map_err(|hold| hold.to_string())
        };
        (0..self.offers.len())
            .map(|index| {
                let offer = &self.offers[index];
                (format!("{} at {} for pool {}", offer.key, offer.price, offer.pool), outcome(self, board, index))
            })
            .collect()
    }

    fn buy(&mut self, board: &mut Board<'a>, index: usize, reason: LaunchReason) -> usize {
        let offer = &self.offers[index];
        let bin = self.empty(index).add_to(board);
        *self.zones.entry(offer.pool.clone()).or_default().entry(offer.key.zone.clone()).or_default() += 1;
        *self.markets.entry(offer.pool.clone()).or_default().entry(offer.key.market).or_default() += 1;
        *self.totals.entry(offer.pool.clone()).or_default() += 1;
        self.price.0 += offer.price.0;
        self.purchases.push(Purchase { offer: index, bin, reason });
        bin
    }
}

/// Makes a pod of each daemon set, which comes to every node that takes it.
#[must_use]
pub fn daemons(cluster: &ClusterView) -> Vec<Pod> {
    let daemon = |set: &DaemonSet| Pod {
        key: PodKey { namespace: set.namespace.clone(), name: set.name.clone() },
        owner: Owner::DaemonSet,
        labels: Arc::new(set.labels.clone()),
        requests: set.requests.clone(),
        constraints: Arc::new(set.constraints.clone()),
        ..Pod::default()
    };
    cluster.daemon_sets.iter().map(daemon).collect()
}
