//! What a core and a byte are worth, so that a node for pods that want memory is not judged by its cores.
//!
//! The prices are those of the linear program that covers the demand with the offers: at them no offer is worth more
//! than it costs, and the demand is worth as much as it can be. With two resources, the offers that matter are two
//! neighbours on the hull of what a dollar buys, those between which the demand lies.

use crate::model::Resources;
use crate::model::offer::HourlyPrice;

/// What one more pod counts that asks for nothing.
const POD: f64 = 1e-4;

/// Dollars an hour for a core and for a byte.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Worth {
    core: f64,
    byte: f64,
}

impl Worth {
    /// Finds what they are worth to a demand, from what empty nodes hold and cost. Without offers both are worth nothing.
    pub(super) fn of<'o>(offers: impl Iterator<Item = (&'o Resources, HourlyPrice)>, demand: &Resources) -> Self {
        let wants = (demand.cpu.cores(), bytes(demand));
        // What a dollar buys: cores and bytes.
        let mut bought: Vec<(f64, f64)> = offers
            .map(|(room, price)| {
                let dollars = price.dollars().max(1e-9);
                (room.cpu.cores() / dollars, bytes(room) / dollars)
            })
            .collect();
        bought.sort_by(|one, other| one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1)));
        let mut hull: Vec<(f64, f64)> = Vec::new();
        for point in bought {
            while hull.last().is_some_and(|last| last.1 <= point.1)
                || (hull.len() > 1 && bends(hull[hull.len() - 2], hull[hull.len() - 1], point))
            {
                hull.pop();
            }
            hull.push(point);
        }
        let Some((first, last)) = hull.first().zip(hull.last()) else { return Self { core: 0.0, byte: 0.0 } };
        // Steeper than every offer in memory, or in cores: the other resource is there in plenty.
        let steeper = |one: (f64, f64), other: (f64, f64)| one.1 * other.0 >= other.1 * one.0;
        if steeper(wants, *first) {
            return Self { core: 0.0, byte: 1.0 / first.1.max(1e-9) };
        }
        if steeper(*last, wants) {
            return Self { core: 1.0 / last.0.max(1e-9), byte: 0.0 };
        }
        let between = hull.windows(2).find(|pair| steeper(pair[0], wants) && steeper(wants, pair[1]));
        let Some([left, right]) = between else { return Self { core: 1.0 / last.0.max(1e-9), byte: 0.0 } };
        let across = left.0 * right.1 - right.0 * left.1;
        Self { core: (right.1 - left.1) / across, byte: (left.0 - right.0) / across }
    }

    /// Gives what requests are worth, in dollars an hour.
    pub(super) fn value(self, requests: &Resources) -> f64 {
        POD + self.core * requests.cpu.cores() + self.byte * bytes(requests)
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 bytes are beyond any node")]
fn bytes(resources: &Resources) -> f64 {
    resources.memory.0 as f64
}

/// Tells whether the middle of three points lies under the line between the others.
fn bends(one: (f64, f64), middle: (f64, f64), other: (f64, f64)) -> bool {
    (middle.0 - one.0) * (other.1 - one.1) - (middle.1 - one.1) * (other.0 - one.0) >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, MilliCpu};

    const GIB: u64 = 1 << 30;

    fn room(cpu: u64, gib: u64) -> Resources {
        Resources { cpu: MilliCpu(cpu), memory: Bytes(gib * GIB), ..Resources::default() }
    }

    fn worth(offers: &[(Resources, u64)], demand: &Resources) -> Worth {
        Worth::of(offers.iter().map(|(room, price)| (room, HourlyPrice(*price))), demand)
    }

    fn close(one: f64, other: f64) -> bool {
        (one - other).abs() < 1e-9
    }

    #[test]
    fn a_demand_between_two_offers_is_worth_what_both_cost() {
        let offers = [(room(2000, 4), 85_000), (room(2000, 16), 126_000), (room(2000, 8), 200_000)];
        let worth = worth(&offers, &room(10_000, 50));
        for (offer, price) in &offers[..2] {
            assert!(close(worth.value(offer) - POD, f64::from(u32::try_from(*price).expect("small")) / 1e6), "{worth:?}");
        }
        assert!(worth.value(&offers[2].0) < 0.2, "the third is too dear");
    }

    #[test]
    fn what_is_there_in_plenty_is_worth_nothing() {
        let offers = [(room(2000, 4), 80_000), (room(2000, 16), 120_000)];
        assert!(close(worth(&offers, &room(8000, 1)).byte, 0.0));
        assert!(close(worth(&offers, &room(8000, 1)).core, 0.04));
        assert!(close(worth(&offers, &room(100, 64)).core, 0.0));
        assert!(close(worth(&offers, &room(100, 64)).byte * 16.0 * 1024.0_f64.powi(3), 0.12));
    }

    #[test]
    fn no_offer_is_worth_more_than_it_costs() {
        let offers = [
            (room(1900, 3), 41_600),
            (room(1900, 7), 83_200),
            (room(3900, 7), 170_000),
            (room(1900, 15), 126_000),
            (room(7900, 31), 384_000),
        ];
        for demand in [room(1000, 1), room(1000, 2), room(1000, 4), room(1000, 7), room(1000, 9), room(0, 1), room(1, 0)] {
            let worth = worth(&offers, &demand);
            for (offer, price) in &offers {
                let value = worth.value(offer) - POD;
                assert!(value <= f64::from(u32::try_from(*price).expect("small")) / 1e6 + 1e-9, "{demand:?} {offer:?} {value} {worth:?}");
            }
        }
    }

    #[test]
    fn without_offers_nothing_is_worth_anything() {
        assert!(close(worth(&[], &room(1, 1)).value(&room(1000, 1)), POD));
    }
}
