//! Opens nodes that may be bought: which pool, market, zone and type, within the bounds.

mod orders;

use super::fit::{Board, Misfit, node_accepts};
use super::fleet::{Fleet, Member, cost, count};
use super::settings::{PoolSettings, Settings};
use super::topology::Shape;
use super::worth::Worth;
use crate::model::memory::Memory;
use crate::model::offer::HourlyPrice;
use crate::model::plan::{Hold, LaunchReason};
use crate::model::snapshot::DaemonSet;
use crate::model::{InstanceType, Market, Offer, OfferKey, Pod, PoolName, Resources, Zone};
use jiff::Timestamp;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// So many types that rest in one zone, half of those that it has, say that the zone itself is short.
const BREAKS: usize = 3;
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

/// A node that is to be bought.
#[derive(Clone, Debug)]
struct Purchase {
    /// The index of its offer.
    offer: usize,
    /// Its index on the board.
    bin: usize,
    reason: LaunchReason,
}

/// Decides what can still be bought, and keeps count of what has been.
#[derive(Clone)]
pub struct Buyer<'a> {
    settings: &'a Settings,
    offers: &'a [Offer],
    memory: &'a Memory,
    now: Timestamp,
    /// What an empty node of each offer has for pods, daemon sets taken off; made when somebody asks.
    room: Vec<OnceCell<Resources>>,
    /// What its nodes have, daemon sets left on; made when somebody asks.
    allocatable: Vec<OnceCell<Resources>>,
    /// One pod of each daemon set.
    daemons: Vec<Pod>,
    zones: BTreeMap<PoolName, BTreeMap<Zone, u32>>,
    markets: BTreeMap<PoolName, BTreeMap<Market, u32>>,
    totals: BTreeMap<PoolName, u32>,
    price: HourlyPrice,
    /// A member whose price nobody knows, so that no ceiling can be kept.
    unpriced: Option<OfferKey>,
    purchases: Vec<Purchase>,
    /// The offers, pool by pool.
    by_pool: BTreeMap<&'a PoolName, Vec<usize>>,
    holders: BTreeMap<Shape, Rc<Holders>>,
    way: Way,
}

/// Which offers hold a kind of pod on an empty node, pool by pool; the pods around it are left aside.
#[derive(Debug, Default)]
struct Holders {
    offers: Vec<Vec<usize>>,
    /// Why the offer that came nearest does not.
    misfit: Option<Misfit>,
}

/// How many of the offers of one market in one zone there are, and how many of them rest.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    offers: usize,
    resting: usize,
}

impl Health {
    fn count(&mut self, rests: bool) {
        self.offers += 1;
        self.resting += usize::from(rests);
    }

    /// Tells whether the zone itself seems to have nothing of the market: what is left there is tried last.
    fn is_broken(&self) -> bool {
        self.resting >= BREAKS && 2 * self.resting >= self.offers
    }
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
        daemon_sets: &[DaemonSet],
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
            room: offers.iter().map(|_| OnceCell::new()).collect(),
            allocatable: offers.iter().map(|_| OnceCell::new()).collect(),
            daemons: daemon_sets.iter().map(daemon).collect(),
            zones: BTreeMap::new(),
            markets: BTreeMap::new(),
            totals: settings.pools.iter().map(|pool| (pool.name.clone(), fleet.total(&pool.name))).collect(),
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

    /// Lists the offers of what has been bought, with what an empty node of each has for pods.
    #[must_use]
    pub fn nodes(&self) -> Vec<(&'a Offer, Resources)> {
        self.purchases.iter().map(|purchase| (&self.offers[purchase.offer], self.room(purchase.offer).clone())).collect()
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
            pools.contains(&offer.pool) && self.rests(&offer.key).is_none()
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

    /// Gives the offer's room for pods on an empty node.
    #[must_use]
    pub fn room_of(&self, key: &OfferKey, pool: &PoolName) -> Option<(&'a Offer, &Resources)> {
        let index = self.index_of(key, pool)?;
        Some((&self.offers[index], self.room(index)))
    }

    /// Gives what a node of the offer has for pods and daemon sets.
    #[must_use]
    pub fn allocatable_of(&self, key: &OfferKey, pool: &PoolName) -> Option<&Resources> {
        self.index_of(key, pool).map(|index| self.allocatable(index))
    }

    fn index_of(&self, key: &OfferKey, pool: &PoolName) -> Option<usize> {
        self.offers.iter().position(|offer| offer.key == *key && offer.pool == *pool)
    }

    /// What nodes of the type really have is known better than what they should have.
    fn allocatable(&self, index: usize) -> &Resources {
        self.allocatable[index].get_or_init(|| {
            let offer = &self.offers[index];
            let estimate = offer.allocatable.clone();
            let learned = self.memory.allocatable.get(&(offer.pool.clone(), offer.key.instance_type.clone()));
            let Some(learned) = learned else { return estimate };
            let extended = estimate.extended.into_iter().chain(learned.has.extended.clone()).collect();
            Resources { extended, ..learned.has.clone() }
        })
    }

    fn room(&self, index: usize) -> &Resources {
        self.room[index].get_or_init(|| {
            let offer = &self.offers[index];
            let mut room = self.allocatable(index).clone();
            for pod in &self.daemons {
                if node_accepts(&pod.constraints, None, &offer.labels, &offer.taints).is_ok() {
                    room.subtract(&pod.requests);
                }
            }
            room
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

    /// Chooses the offer for a pod of this kind that holds most of what waits for its price.
    fn choose_for(&mut self, board: &mut Board<'a>, shape: Shape, waiting: &[(Shape, u32)]) -> Result<usize, Refusal> {
        let holders = self.holders(board, shape);
        let (mut first, mut of) = (None, Vec::new());
        let mut misfit = holders.misfit.clone();
        for (pool, holders) in self.settings.pools.iter().zip(&holders.offers) {
            let fitting = match self.fitting(board, holders, shape) {
                Ok(fitting) => fitting,
                Err(why) => {
                    misfit = why.map(|why| nearer(misfit.take(), why)).or(misfit);
                    continue;
                }
            };
            let mut worth: Option<Worth> = None;
            let cost = |buyer: &Self, index: usize| {
                if buyer.way == Way::FirstFitDecreasing {
                    return buyer.offers[index].price.dollars() / buyer.room(index).cpu.cores().max(0.001);
                }
                let worth = *worth.get_or_insert_with(|| buyer.worth(board, index, waiting));
                buyer.cost_per_value(board, index, waiting, worth)
            };
            match self.choose(pool, fitting, cost) {
                Ok(index) => return Ok(index),
                Err(hold) => {
                    first = first.or_else(|| Some((pool.name.clone(), hold)));
                    of.push(pool.name.clone());
                }
            }
        }
        Err(match (first, misfit) {
            (Some((pool, hold)), _) => Refusal::Now { pool, hold, of },
            (None, Some(misfit)) => Refusal::Never(misfit),
            (None, None) => {
                let of: Vec<PoolName> = self.settings.pools.iter().map(|pool| pool.name.clone()).collect();
                let hold = Hold::NoOffer { why: "what can be launched is not known yet".into() };
                Refusal::Now { pool: of.first().cloned().unwrap_or_default(), hold, of }
            }
        })
    }

    /// Opens a node of a pool for its capacity alone, the cheapest by the core, and gives its CPU and memory.
    ///
    /// # Errors
    /// Why there is none.
    pub fn open_any(&mut self, board: &mut Board<'a>, pool: &PoolSettings, reason: &LaunchReason) -> Result<Resources, Hold> {
        let offers = self.by_pool.get(&pool.name).cloned().unwrap_or_default();
        let below_minimum = matches!(reason, LaunchReason::BelowMinimum);
        let index = self.choose(pool, offers, |buyer, index| {
            let offer = &buyer.offers[index];
            if below_minimum { offer.price.dollars() } else { offer.price.dollars() / buyer.room(index).cpu.cores().max(0.001) }
        })?;
        let allocatable = self.allocatable(index).clone();
        self.buy(board, index, reason.clone());
        Ok(allocatable)
    }

    /// Finds the offers whose empty node holds such a pod, wherever the other pods lie.
    fn holders(&mut self, board: &Board<'a>, shape: Shape) -> Rc<Holders> {
        if let Some(known) = self.holders.get(&shape) {
            return Rc::clone(known);
        }
        let pod = board.example(shape);
        let mut found = Holders::default();
        for pool in &self.settings.pools {
            let mut holding = Vec::new();
            for index in self.by_pool.get(&pool.name).into_iter().flatten() {
                let (offer, room) = (&self.offers[*index], self.room(*index));
                // Where it is the size alone, the offer came nearest.
                let accepts = node_accepts(&pod.constraints, None, &offer.labels, &offer.taints);
                let holds = accepts
                    .and_then(|()| if pod.requests.fits_in(room) { Ok(()) } else { Err(Misfit::Resources(pod.requests.shortages(room))) });
                match holds {
                    Ok(()) => holding.push(*index),
                    Err(why) => found.misfit = Some(nearer(found.misfit.take(), why)),
                }
            }
            found.offers.push(holding);
        }
        let found = Rc::new(found);
        self.holders.insert(shape, Rc::clone(&found));
        found
    }

    /// Keeps the offers whose new node would be in the right place for such a pod, as the others lie now.
    ///
    /// # Errors
    /// When there is none: why the one that came nearest is not, if there was one.
    fn fitting(&self, board: &mut Board<'a>, holders: &[usize], shape: Shape) -> Result<Vec<usize>, Option<Misfit>> {
        if holders.is_empty() {
            return Err(None);
        }
        if board.is_alone(shape) {
            return Ok(holders.to_vec());
        }
        let by_zone = board.sees_zones_and_hosts_only(shape);
        let mut zones: BTreeMap<&Zone, Result<(), Misfit>> = BTreeMap::new();
        let mut fitting = Vec::new();
        let mut misfit = None;
        for index in holders {
            let offer = &self.offers[*index];
            let fits = match zones.get(&offer.key.zone).filter(|_| by_zone) {
                Some(known) => known.clone(),
                None => self.on_trial(board, *index, |board, bin| board.fits(shape, bin)),
            };
            zones.insert(&offer.key.zone, fits.clone());
            match fits {
                Ok(()) => fitting.push(*index),
                Err(why) => misfit = Some(nearer(misfit, why)),
            }
        }
        if fitting.is_empty() { Err(misfit) } else { Ok(fitting) }
    }

    /// Looks at the board with an empty node of the offer.
    fn on_trial<T>(&self, board: &mut Board<'a>, index: usize, look: impl FnOnce(&mut Board<'a>, usize) -> T) -> T {
        let offer = &self.offers[index];
        let length = board.nodes();
        let bin = board.add(None, &offer.labels, &offer.taints, self.room(index), true);
        let seen = look(board, bin);
        board.truncate(length);
        seen
    }

    /// Finds what a core and a byte are worth to what waits, from the offers that compete with this one.
    fn worth(&self, board: &Board<'a>, index: usize, ahead: &[(Shape, u32)]) -> Worth {
        let mut demand = Resources::default();
        for (shape, number) in ahead {
            demand.add(&board.example(*shape).requests.times(u64::from(*number)));
        }
        let competing = self.by_pool.get(&self.offers[index].pool).into_iter().flatten();
        let competing =
            competing.filter(|other| self.group(**other) == self.group(index) && self.rests(&self.offers[**other].key).is_none());
        Worth::of(competing.map(|other| (self.room(*other), self.offers[*other].price)), &demand)
    }

    /// Dollars an hour for what the pods are worth that an empty node of the offer would take.
    fn cost_per_value(&self, board: &mut Board<'a>, index: usize, ahead: &[(Shape, u32)], worth: Worth) -> f64 {
        let value = if ahead.iter().all(|(shape, _)| board.is_alone(*shape)) {
            self.value_of_simple_pods(board, index, ahead, worth)
        } else {
            self.on_trial(board, index, |board, bin| value_of_pods(board, bin, ahead, worth))
        };
        self.offers[index].price.dollars() / f64::max(value, 1e-9)
    }

    /// Fills an empty node with pods that ask nothing of those around them.
    fn value_of_simple_pods(&self, board: &Board<'a>, index: usize, ahead: &[(Shape, u32)], worth: Worth) -> f64 {
        let offer = &self.offers[index];
        let mut free = self.room(index).clone();
        let mut value = 0.0;
        for (shape, number) in ahead {
            let pod = board.example(*shape);
            let taken = pod.requests.times_in(&free).min(u64::from(*number));
            if taken > 0 && node_accepts(&pod.constraints, None, &offer.labels, &offer.taints).is_ok() {
                free.subtract(&pod.requests.times(taken));
                value += worth.value(&pod.requests) * f64::from(u32::try_from(taken).unwrap_or(u32::MAX));
            }
        }
        value
    }

    /// Chooses among offers: the market that the spot share wants, the emptiest zone that is not broken, then the lowest `cost`.
    fn choose(&self, pool: &PoolSettings, mut offers: Vec<usize>, mut cost: impl FnMut(&Self, usize) -> f64) -> Result<usize, Hold> {
        let bounds = pool.bounds(self.now);
        if self.totals.get(&pool.name).copied().unwrap_or(0) >= bounds.max {
            return Err(Hold::AtMaximum { max: bounds.max });
        }
        let before = offers.len();
        let mut resting = BTreeSet::new();
        let mut health: BTreeMap<(Market, &Zone), Health> = BTreeMap::new();
        offers.retain(|index| {
            let why = self.rests(&self.offers[*index].key);
            if !self.memory.offers.is_empty() {
                health.entry(self.group(*index)).or_default().count(why.is_some());
            }
            let available = why.is_none();
            resting.extend(why);
            available
        });
        if offers.is_empty() {
            let why = if before == 0 { "the pool has none".to_owned() } else { resting.into_iter().take(3).collect::<Vec<_>>().join("; ") };
            return Err(Hold::NoOffer { why });
        }
        if let Some(ceiling) = self.settings.price_ceiling {
            if let Some(offer) = &self.unpriced {
                return Err(Hold::NoOffer {
                    why: format!("the price of {offer} is not known, so that the ceiling of {ceiling} cannot be kept"),
                });
            }
            offers.retain(|index| self.price.0 + self.offers[*index].price.0 <= ceiling.0);
            if offers.is_empty() {
                return Err(Hold::NoOffer { why: format!("the price ceiling of {ceiling} is reached at {}", self.price) });
            }
        }
        let group = self.best_group(pool, &offers, &health);
        offers.retain(|index| self.group(*index) == group);
        let is_preferred = |index: &usize| match &self.way {
            Way::Prefer(instance_type) => self.offers[*index].key.instance_type == *instance_type,
            Way::Mixed | Way::FirstFitDecreasing => false,
        };
        if offers.iter().any(is_preferred) {
            offers.retain(is_preferred);
        }
        let mut scored: Vec<(f64, usize)> = offers.into_iter().map(|index| (cost(self, index), index)).collect();
        scored.sort_by(|(a, i), (b, j)| a.total_cmp(b).then_with(|| self.offers[*i].key.cmp(&self.offers[*j].key)));
        scored.first().map(|(_, index)| *index).ok_or_else(|| Hold::NoOffer { why: "the pool has none".into() })
    }

    fn group(&self, index: usize) -> (Market, &'a Zone) {
        let key = &self.offers[index].key;
        (key.market, &key.zone)
    }

    fn best_group(&self, pool: &PoolSettings, offers: &[usize], health: &BTreeMap<(Market, &Zone), Health>) -> (Market, &'a Zone) {
        let wanted = self.wanted_market(pool);
        let zones = self.zones.get(&pool.name);
        let rank = |index: &usize| {
            let (market, zone) = self.group(*index);
            let is_broken = health.get(&(market, zone)).is_some_and(Health::is_broken);
            (market != wanted, is_broken, zones.and_then(|zones| zones.get(zone)).copied().unwrap_or(0), zone, market)
        };
        offers.iter().map(rank).min().map_or((wanted, &self.offers[0].key.zone), |(_, _, _, zone, market)| (market, zone))
    }

    /// Gives the market of the next instance so that on-demand keeps its base and its share above it.
    fn wanted_market(&self, pool: &PoolSettings) -> Market {
        let markets = self.markets.get(&pool.name);
        let of = |market| markets.and_then(|markets| markets.get(&market)).copied().unwrap_or(0);
        let (on_demand, spot) = (of(Market::OnDemand), of(Market::Spot));
        let above_base = f64::from((on_demand + spot + 1).saturating_sub(pool.on_demand_base));
        let on_demand_wanted = f64::from(pool.on_demand_base) + above_base * (1.0 - pool.spot_share);
        // A share of exactly one on-demand instance must not be lost to rounding.
        if f64::from(on_demand) + 1.0 <= on_demand_wanted + 1e-9 || on_demand < pool.on_demand_base {
            Market::OnDemand
        } else {
            Market::Spot
        }
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

    fn rests(&self, key: &OfferKey) -> Option<String> {
        let quota = (!self.memory.quotas.is_empty()).then(|| key.quota());
        if let Some((quota, rest)) = quota.and_then(|quota| Some((quota, self.memory.quotas.get(&quota).filter(|it| it.until > self.now)?)))
        {
            return Some(format!("what is {quota} rests until {}: {}", rest.until, rest.why));
        }
        let rest = self.memory.offers.get(key).filter(|rest| rest.until > self.now)?;
        let verb = if rest.stopped { "is stopped" } else { "rests" };
        Some(format!("{key} {verb} until {}: {}", rest.until, rest.why))
    }

    fn buy(&mut self, board: &mut Board<'a>, index: usize, reason: LaunchReason) -> usize {
        let offer = &self.offers[index];
        let bin = board.add(None, &offer.labels, &offer.taints, self.room(index), true);
        *self.zones.entry(offer.pool.clone()).or_default().entry(offer.key.zone.clone()).or_default() += 1;
        *self.markets.entry(offer.pool.clone()).or_default().entry(offer.key.market).or_default() += 1;
        *self.totals.entry(offer.pool.clone()).or_default() += 1;
        self.price.0 += offer.price.0;
        self.purchases.push(Purchase { offer: index, bin, reason });
        bin
    }
}

/// Fills the node `bin` with what waits.
fn value_of_pods(board: &mut Board<'_>, bin: usize, ahead: &[(Shape, u32)], worth: Worth) -> f64 {
    let mut value = 0.0;
    for (shape, number) in ahead {
        let alone = board.is_alone(*shape);
        let mut left = *number;
        while left > 0 && board.fits(*shape, bin).is_ok() {
            let pod = board.example(*shape);
            let most = if alone { pod.requests.times_in(&board.bin(bin).free) } else { 1 };
            let taken = left.min(u32::try_from(most).unwrap_or(u32::MAX));
            board.load(*shape, taken, bin);
            value += worth.value(&pod.requests) * f64::from(taken);
            left -= taken;
        }
    }
    value
}

/// Makes a pod of a daemon set, which comes to every node that takes it.
fn daemon(set: &DaemonSet) -> Pod {
    Pod { requests: set.requests.clone(), constraints: std::sync::Arc::new(set.constraints.clone()), ..Pod::default() }
}

/// Keeps the misfit that came nearer: one that is about size alone, of these the one short of fewer things.
fn nearer(known: Option<Misfit>, new: Misfit) -> Misfit {
    match (known, new) {
        (None, new) => new,
        (Some(Misfit::Resources(old)), Misfit::Resources(new)) => Misfit::Resources(if new.len() < old.len() { new } else { old }),
        (Some(Misfit::Resources(old)), _) => Misfit::Resources(old),
        (Some(_), Misfit::Resources(new)) => Misfit::Resources(new),
        (Some(old), _) => old,
    }
}
