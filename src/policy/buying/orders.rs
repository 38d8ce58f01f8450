//! Turns what was bought into orders, with the types that will do as well.

use super::Buyer;
use crate::model::offer::HourlyPrice;
use crate::model::plan::{LaunchOrder, LaunchReason, PODS_NAMED};
use crate::model::pod::Owner;
use crate::model::scheduling::{HOSTNAME_LABEL, ZONE_LABEL};
use crate::model::{InstanceType, Offer, Pod, Resources};
use crate::policy::fit::{Bin, Board, node_accepts};
use crate::policy::fleet::count;
use crate::policy::headroom;
use crate::policy::topology::Shape;
use std::collections::{BTreeMap, BTreeSet};

/// A type whose price exceeds the chosen one's by more than this factor is no alternative to it.
const ALTERNATIVE_PRICE: f64 = 1.5;
/// EC2 starts so many instances by one request.
const MOST_IN_AN_ORDER: u32 = 1000;

impl<'a> Buyer<'a> {
    /// Turns what was bought into orders, one for each group of equal nodes.
    #[must_use]
    pub fn orders(&self, board: &Board<'a>) -> Vec<LaunchOrder> {
        let mut orders: Vec<LaunchOrder> = Vec::new();
        let mut alternatives = BTreeMap::new();
        let keys = self.counted_by(board);
        for purchase in &self.purchases {
            let bin = board.bin(purchase.bin);
            let pods: Vec<&Pod> = bin.pods.iter().copied().filter(|pod| headroom::pool_of(pod).is_none()).collect();
            let offer = &self.offers[purchase.offer];
            let mut kinds = pods_of(board, purchase.bin);
            kinds.sort_unstable();
            let like = alternatives.entry((purchase.offer, kinds));
            let instance_types = like.or_insert_with_key(|(chosen, kinds)| self.alternatives(board, *chosen, kinds, &keys)).clone();
            let reason = match &purchase.reason {
                LaunchReason::PendingPods { .. } => LaunchReason::PendingPods { pods: count(pods.len()) },
                other @ (LaunchReason::BelowMinimum
                | LaunchReason::Headroom
                | LaunchReason::Successor { .. }
                | LaunchReason::Rule { .. }
                | LaunchReason::Replacement { .. }) => other.clone(),
            };
            let same = orders.iter_mut().find(|order| {
                order.count < MOST_IN_AN_ORDER
                    && order.pool == offer.pool
                    && order.zone == offer.key.zone
                    && order.market == offer.key.market
                    && order.subnet == offer.subnet
                    && order.instance_types == instance_types
                    && std::mem::discriminant(&order.reason) == std::mem::discriminant(&reason)
            });
            let named = pods.iter().map(|pod| pod.key.clone());
            if let Some(order) = same {
                order.count += 1;
                if let (LaunchReason::PendingPods { pods: sum }, LaunchReason::PendingPods { pods }) = (&mut order.reason, &reason) {
                    *sum += pods;
                }
                let free = PODS_NAMED.saturating_sub(order.pods.len());
                order.pods.extend(named.take(free));
            } else {
                orders.push(LaunchOrder {
                    pool: offer.pool.clone(),
                    zone: offer.key.zone.clone(),
                    subnet: offer.subnet.clone(),
                    market: offer.key.market,
                    price: self.dearest(offer, &instance_types),
                    instance_types,
                    count: 1,
                    reason,
                    pods: named.take(PODS_NAMED).collect(),
                });
            }
        }
        orders
    }

    /// Lists the types that could stand in for the chosen one: they hold its pods, at a like price, cheapest first.
    fn alternatives(&self, board: &Board<'a>, index: usize, kinds: &[(Shape, u32)], keys: &BTreeSet<&str>) -> Vec<InstanceType> {
        let chosen = &self.offers[index];
        let need = need_of(board, chosen, kinds);
        let pods: Vec<&Pod> = kinds.iter().map(|(shape, _)| board.example(*shape)).collect();
        let alone = kinds.iter().all(|(shape, _)| board.is_alone(*shape));
        let accepts_all = |offer: &Offer| pods.iter().all(|pod| node_accepts(&pod.constraints, None, &offer.labels, &offer.taints).is_ok());
        let limit = chosen.price.dollars() * ALTERNATIVE_PRICE;
        let mut types: Vec<(&Offer, bool)> = Vec::new();
        for (other, offer) in self.offers.iter().enumerate() {
            let same_place = offer.pool == chosen.pool && offer.key.zone == chosen.key.zone && offer.key.market == chosen.key.market;
            if !same_place || offer.subnet != chosen.subnet || self.rests(offer).is_some() || offer.price.dollars() > limit {
                continue;
            }
            let holds = || need.fits_in(self.room_for(other, pods.is_empty())) && accepts_all(offer);
            if offer.key == chosen.key || (holds() && self.differs(alone, keys, index, other).is_none()) {
                types.push((offer, offer.key == chosen.key));
            }
        }
        types.sort_by(|(a, _), (b, _)| a.price.cmp(&b.price).then_with(|| a.key.cmp(&b.key)));
        // The chosen type leads: it is the one that the packing was made for.
        types.sort_by_key(|(_, is_chosen)| !is_chosen);
        let mut names: Vec<InstanceType> = types.into_iter().map(|(offer, _)| offer.key.instance_type.clone()).collect();
        if let Some(ceiling) = self.settings.price_ceiling {
            let dearest_allowed = ceiling.0.saturating_sub(self.price.0 - chosen.price.0);
            let price = |name: &InstanceType| self.price_in(chosen, name);
            names.retain(|name| *name == chosen.key.instance_type || price(name).0 <= dearest_allowed.min(chosen.price.0));
        }
        names
    }

    /// Lists the labels by which pods on the nodes that are bought count those around them, the zone's and the host's own
    /// left out: offers that stand in for each other do not differ in those.
    ///
    /// One node with another value is another place to be, and with it the pods of the other nodes might have to lie
    /// elsewhere.
    pub(super) fn counted_by(&self, board: &Board<'a>) -> BTreeSet<&'a str> {
        let bins = self.purchases.iter().map(|purchase| board.bin(purchase.bin));
        let kinds: BTreeSet<Shape> = bins.flat_map(Bin::shapes).map(|(shape, _)| *shape).collect();
        let (mut keys, mut asks) = (BTreeSet::new(), false);
        for shape in kinds.into_iter().filter(|shape| !board.sees_zones_and_hosts_only(*shape)) {
            let constraints = &board.example(shape).constraints;
            keys.extend(constraints.pod_affinity.iter().map(|term| term.topology_key.as_str()));
            keys.extend(constraints.spread.iter().map(|spread| spread.topology_key.as_str()));
            asks = true;
        }
        // A term of anti-affinity counts for the pods that it selects.
        if asks {
            keys.extend(repelling_keys(board));
        }
        keys.retain(|key| *key != HOSTNAME_LABEL && *key != ZONE_LABEL);
        keys
    }

    /// Says in what a node of the other offer is another place to pods than one of the chosen offer, resources and what
    /// each of them asks for itself left aside. `alone` are pods about which neither others nor ports decide.
    pub(super) fn differs(&self, alone: bool, keys: &BTreeSet<&str>, chosen: usize, other: usize) -> Option<String> {
        if !alone && self.empty(chosen).sets != self.empty(other).sets {
            return Some("other daemons".to_owned());
        }
        let value = |index: usize, key: &str| self.offers[index].labels.get(key);
        keys.iter().find(|key| value(chosen, key) != value(other, key)).map(|key| format!("another {key}"))
    }

    /// Gives what a node of the offer has for pods; where it is bought for none, what it should have as a whole.
    pub(super) fn room_for(&self, index: usize, no_pods: bool) -> &Resources {
        if no_pods { &self.offers[index].allocatable } else { self.room(index) }
    }

    fn price_in(&self, place: &Offer, instance_type: &InstanceType) -> HourlyPrice {
        let found = self.offers.iter().find(|offer| {
            offer.pool == place.pool
                && offer.key.zone == place.key.zone
                && offer.key.market == place.key.market
                && offer.key.instance_type == *instance_type
        });
        found.map_or(place.price, |offer| offer.price)
    }

    fn dearest(&self, place: &Offer, names: &[InstanceType]) -> HourlyPrice {
        names.iter().map(|name| self.price_in(place, name)).max().unwrap_or(place.price)
    }
}

fn repelling_keys<'a>(board: &Board<'a>) -> impl Iterator<Item = &'a str> {
    let kinds: BTreeSet<Shape> = (0..board.nodes()).flat_map(|bin| board.bin(bin).shapes()).map(|(shape, _)| *shape).collect();
    let terms = kinds.into_iter().flat_map(|shape| &board.example(shape).constraints.pod_anti_affinity);
    terms.map(|term| term.topology_key.as_str())
}

/// Lists the kinds of pods on a node that is bought, without the daemons: an offer has room for those besides.
pub(super) fn pods_of(board: &Board<'_>, bin: usize) -> Vec<(Shape, u32)> {
    board.bin(bin).shapes().iter().copied().filter(|(shape, _)| board.example(*shape).owner != Owner::DaemonSet).collect()
}

/// Gives what another node would have to hold in the place of one that is bought.
pub(super) fn need_of(board: &Board<'_>, bought: &Offer, kinds: &[(Shape, u32)]) -> Resources {
    if kinds.is_empty() {
        // Estimate is held against estimate: what is known better of one type says nothing about its likeness to others.
        let Resources { cpu, memory, .. } = bought.allocatable;
        return Resources { cpu, memory, ..Resources::default() };
    }
    let mut need = Resources::default();
    for (shape, number) in kinds {
        need.add(&board.example(*shape).requests.times(u64::from(*number)));
    }
    need
}
