//! Says of a purchase which other offers there were, and why none of them was bought.

use super::orders::{need_of, pods_of};
use super::{Buyer, Purchase};
use crate::model::plan::LaunchOrder;
use crate::model::{Offer, Pod, Resources};
use crate::policy::fit::{Board, Misfit, node_accepts};
use std::collections::{BTreeMap, BTreeSet};

/// How many reasons are told.
pub const REASONS_TOLD: usize = 10;
/// How many offers a reason names.
const NAMED: usize = 3;

/// A node that was bought, with what an offer in its place would have to do.
struct Bought<'b, 'a> {
    order: &'b LaunchOrder,
    offer: &'a Offer,
    /// The same by its index.
    index: usize,
    /// What its pods ask for, daemons left aside; of one for no pods, what it has.
    need: Resources,
    pods: Vec<&'a Pod>,
    /// Nothing but resources, labels and taints decides about the pods.
    is_plain: bool,
}

impl<'a> Buyer<'a> {
    /// Says why the other offers of the pool are not bought in place of these orders of it (bounded): each reason with the
    /// first offers that it holds for.
    #[must_use]
    pub fn passed_over(&self, board: &Board<'a>, orders: &[&LaunchOrder]) -> Vec<String> {
        let mut by_reason: BTreeMap<String, (Vec<String>, usize)> = BTreeMap::new();
        for (index, why) in self.not_bought(board, orders) {
            let (names, number) = by_reason.entry(why).or_default();
            *number += 1;
            if names.len() < NAMED {
                names.push(self.described(index));
            }
        }
        let mut reasons: Vec<_> = by_reason.into_iter().collect();
        // Those that hold for most offers first.
        reasons.sort_by(|(_, (_, one)), (_, (_, other))| other.cmp(one));
        let line = |(why, (names, number)): (String, (Vec<String>, usize))| {
            let others = number - names.len();
            let others = if others > 0 { format!(" and {others} others") } else { String::new() };
            format!("{}{others}: {why}", names.join(", "))
        };
        reasons.into_iter().take(REASONS_TOLD).map(line).collect()
    }

    /// Names an offer with its price.
    pub(in crate::policy) fn described(&self, index: usize) -> String {
        let offer = &self.offers[index];
        format!("{} at {}", offer.key, offer.price)
    }

    /// Gives the offers of the pool, by their index, that none of these orders of it lets EC2 choose, each with its reason.
    pub(in crate::policy) fn not_bought(&self, board: &Board<'a>, orders: &[&LaunchOrder]) -> Vec<(usize, String)> {
        let keys = self.counted_by(board);
        let bought: Vec<Bought<'_, 'a>> = orders.iter().filter_map(|order| self.bought_by(board, order)).collect();
        let Some(first) = bought.first() else { return Vec::new() };
        let may_come = |offer: &Offer| bought.iter().any(|node| node.names(offer));
        let others = self.by_pool.get(&first.offer.pool).into_iter().flatten().copied();
        let others = others.filter(|index| !may_come(&self.offers[*index]));
        others.map(|index| (index, self.why_not(index, &bought, first, &keys))).collect()
    }

    /// Finds the first node that was bought by an order.
    fn bought_by<'b>(&self, board: &Board<'a>, order: &'b LaunchOrder) -> Option<Bought<'b, 'a>> {
        let is_of = |purchase: &&Purchase| {
            let offer = &self.offers[purchase.offer];
            offer.pool == order.pool
                && offer.key.zone == order.zone
                && offer.key.market == order.market
                && order.instance_types.first() == Some(&offer.key.instance_type)
        };
        let purchase = self.purchases.iter().find(is_of)?;
        let kinds = pods_of(board, purchase.bin);
        let offer = &self.offers[purchase.offer];
        let pods = kinds.iter().map(|(shape, _)| board.example(*shape)).collect();
        let is_plain = kinds.iter().all(|(shape, _)| board.is_alone(*shape));
        Some(Bought { order, offer, index: purchase.offer, need: need_of(board, offer, &kinds), pods, is_plain })
    }

    fn why_not(&self, index: usize, bought: &[Bought<'_, 'a>], first: &Bought<'_, 'a>, keys: &BTreeSet<&str>) -> String {
        let offer = &self.offers[index];
        if let Some(why) = self.rests(offer) {
            return why.strip_prefix(&format!("{} ", offer.key)).map(ToOwned::to_owned).unwrap_or(why);
        }
        let node = bought.iter().find(|node| node.offer.key.zone == offer.key.zone && node.offer.key.market == offer.key.market);
        let node = node.unwrap_or(first);
        let accepts = |pod: &&Pod| node_accepts(&pod.constraints, None, &offer.labels, &offer.taints).map_err(|why| (pod.key.clone(), why));
        if let Err((pod, why)) = node.pods.iter().try_for_each(accepts) {
            return format!("would not take {pod}: {why}");
        }
        let key = &node.offer.key;
        if offer.key.market != key.market {
            return format!("the pool's next node is to be {}", key.market);
        }
        if offer.key.zone != key.zone {
            let why = if node.is_plain { "where the pool has fewest" } else { "where its pods have their place" };
            return format!("the node is to be in {}, {why}", key.zone);
        }
        let ours = format!("{} at {}", key.instance_type, node.offer.price);
        let room = self.room_for(index, node.pods.is_empty());
        if !node.need.fits_in(room) {
            return format!("{} to stand in for {ours}", Misfit::Resources(node.need.shortages(room)));
        }
        if let Some(what) = self.differs(node.is_plain, keys, node.index, index) {
            return format!("has {what} than {ours}, which may not do for its pods");
        }
        if let Some(ceiling) = self.settings.price_ceiling.filter(|ceiling| self.price.0 - node.offer.price.0 + offer.price.0 > ceiling.0) {
            return format!("the price ceiling of {ceiling} would be exceeded");
        }
        if offer.price > node.offer.price {
            return format!("costs more than {ours}");
        }
        format!("nodes of {ours} are worth more to all that is bought for")
    }
}

impl Bought<'_, '_> {
    /// Tells whether EC2 may choose the offer.
    fn names(&self, offer: &Offer) -> bool {
        offer.key.zone == self.order.zone
            && offer.key.market == self.order.market
            && self.order.instance_types.contains(&offer.key.instance_type)
    }
}
