//! Chooses the offer of the next node: what would hold a pod, in which market and zone, and what pays best.

use super::{Buyer, Refusal, Way};
use crate::model::plan::Hold;
use crate::model::{Market, Offer, PoolName, Resources, Zone};
use crate::policy::fit::{Board, Misfit, node_accepts};
use crate::policy::settings::PoolSettings;
use crate::policy::topology::Shape;
use crate::policy::worth::Worth;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// So many types that rest in one zone, half of those that it has, say that the zone itself is short.
const BREAKS: usize = 3;
/// Which offers hold a kind of pod on an empty node, pool by pool; the pods around it are left aside.
#[derive(Debug, Default)]
pub(super) struct Holders {
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

impl<'a> Buyer<'a> {
    /// Chooses the offer for a pod of this kind that holds most of what waits for its price.
    pub(super) fn choose_for(&mut self, board: &mut Board<'a>, shape: Shape, waiting: &[(Shape, u32)]) -> Result<usize, Refusal> {
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

    /// Finds the offers whose empty node holds such a pod, wherever the other pods lie.
    fn holders(&mut self, board: &mut Board<'a>, shape: Shape) -> Rc<Holders> {
        if let Some(known) = self.holders.get(&shape) {
            return Rc::clone(known);
        }
        // A daemon that keeps pods away does so from the first node on that it comes to.
        for daemon in self.daemons.iter().filter(|daemon| !daemon.constraints.pod_anti_affinity.is_empty()) {
            board.shape(daemon);
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
        // Where labels of zone and host decide alone, two offers of a zone with the same daemons are the same.
        let by_zone = board.sees_zones_and_hosts_only(shape);
        let mut tried: BTreeMap<(&Zone, &[usize]), Result<(), Misfit>> = BTreeMap::new();
        let mut fitting = Vec::new();
        let mut misfit = None;
        for index in holders {
            let like = (&self.offers[*index].key.zone, self.empty(*index).sets.as_slice());
            let fits = match tried.get(&like).filter(|_| by_zone) {
                Some(known) => known.clone(),
                None => self.on_trial(board, *index, |board, bin| board.fits(shape, bin)),
            };
            tried.insert(like, fits.clone());
            match fits {
                Ok(()) => fitting.push(*index),
                Err(why) => misfit = Some(nearer(misfit, why)),
            }
        }
        if fitting.is_empty() { Err(misfit) } else { Ok(fitting) }
    }

    /// Looks at the board with an empty node of the offer.
    pub(super) fn on_trial<T>(&self, board: &mut Board<'a>, index: usize, look: impl FnOnce(&mut Board<'a>, usize) -> T) -> T {
        let length = board.nodes();
        let bin = self.empty(index).add_to(board);
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
        let competing = competing.filter(|other| self.group(**other) == self.group(index) && self.rests(&self.offers[**other]).is_none());
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
    pub(super) fn choose(
        &self,
        pool: &PoolSettings,
        mut offers: Vec<usize>,
        mut cost: impl FnMut(&Self, usize) -> f64,
    ) -> Result<usize, Hold> {
        let max = self.most.get(&pool.name).copied().unwrap_or(0);
        if self.totals.get(&pool.name).copied().unwrap_or(0) >= max {
            return Err(Hold::AtMaximum { max });
        }
        let before = offers.len();
        let mut resting = BTreeSet::new();
        let mut health: BTreeMap<(Market, &Zone), Health> = BTreeMap::new();
        offers.retain(|index| {
            let why = self.rests(&self.offers[*index]);
            if !self.memory.offers.is_empty() || !self.memory.pool_offers.is_empty() {
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

    pub(super) fn rests(&self, offer: &Offer) -> Option<String> {
        let key = &offer.key;
        let quota = (!self.memory.quotas.is_empty()).then(|| key.quota());
        if let Some((quota, rest)) = quota.and_then(|quota| Some((quota, self.memory.quotas.get(&quota).filter(|it| it.until > self.now)?)))
        {
            return Some(format!("what is {quota} rests until {}: {}", rest.until, rest.why));
        }
        let rest = self.memory.rest(&offer.pool, key).filter(|rest| rest.until > self.now)?;
        let verb = if rest.stopped { "is stopped" } else { "rests" };
        Some(format!("{key} {verb} until {}: {}", rest.until, rest.why))
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
