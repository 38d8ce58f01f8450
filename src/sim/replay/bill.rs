//! What nodes cost, by market and by the hour of the day.

use serde::Serialize;

const HOURS: usize = 24;

/// What a node and an hour cost on each market, and which nodes of a pool are bought where.
///
/// Policies are billed alike: a replay decides how many nodes there are, and the pool of which market they are. Spot
/// interruptions are left out, and the price of spot stays what it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rates {
    /// Dollars for a node and an hour on demand.
    pub on_demand: f64,
    /// Dollars for a node and an hour on spot.
    pub spot: f64,
    /// So many nodes are on demand.
    pub on_demand_base: u32,
    /// The share of the nodes above them that is on spot, 0 to 1.
    pub spot_share: f64,
}

impl Rates {
    /// Gives those of a pool that buys on demand alone, in dollars for a node and an hour.
    #[must_use]
    pub fn on_demand_only(dollars: f64) -> Self {
        Self { on_demand: dollars, spot: dollars, on_demand_base: 0, spot_share: 0.0 }
    }

    /// Counts those of so many nodes that are on demand: the base, and above it what the share leaves, as a pool buys that
    /// grows node by node.
    #[must_use]
    pub fn on_demand_of(&self, nodes: u32) -> u32 {
        let base = nodes.min(self.on_demand_base);
        // A share of exactly one node must not be lost to rounding.
        let above = (f64::from(nodes - base) * (1.0 - self.spot_share) + 1e-9).floor();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of nodes")]
        let above = above as u32;
        base + above.min(nodes - base)
    }
}

/// Node-minutes that were paid for, by the hour of the day (UTC) and by market.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Bill {
    hours: [Paid; HOURS],
    launches: [u64; HOURS],
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct Paid {
    on_demand: f64,
    spot: f64,
    /// Minutes that were billed.
    minutes: u32,
}

/// What an hour of the day costs in the mean, in dollars.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct HourlyDollars {
    /// The hour of the day, 0 to 23 (UTC).
    pub hour: usize,
    /// On demand.
    pub on_demand: f64,
    /// On spot.
    pub spot: f64,
}

impl Bill {
    /// Bills the nodes of a minute, which is counted since 1970.
    pub fn count(&mut self, minute: i64, nodes: u32, rates: &Rates) {
        let on_demand = rates.on_demand_of(nodes);
        let paid = self.hour(minute);
        paid.on_demand += f64::from(on_demand);
        paid.spot += f64::from(nodes - on_demand);
        paid.minutes += 1;
    }

    /// Bills the boot of the node above so many others: `node_minutes` before the minute from which it serves.
    pub fn count_boot(&mut self, minute: i64, others: u32, node_minutes: f64, rates: &Rates) {
        let is_on_demand = rates.on_demand_of(others + 1) > rates.on_demand_of(others);
        let paid = self.hour(minute);
        *(if is_on_demand { &mut paid.on_demand } else { &mut paid.spot }) += node_minutes;
    }

    /// Counts nodes that were launched in a minute.
    pub fn launch(&mut self, minute: i64, nodes: u32) {
        self.launches[hour_of(minute)] += u64::from(nodes);
    }

    fn hour(&mut self, minute: i64) -> &mut Paid {
        &mut self.hours[hour_of(minute)]
    }

    /// Gives the nodes that were launched in each hour of the day, 0 to 23 (UTC).
    #[must_use]
    pub fn launches_by_hour(&self) -> Vec<u64> {
        self.launches.to_vec()
    }

    /// Gives the dollars for what was on demand and for what was on spot.
    #[must_use]
    pub fn dollars(&self, rates: &Rates) -> (f64, f64) {
        let sum = |of: fn(&Paid) -> f64| self.hours.iter().map(of).sum::<f64>() / 60.0;
        (sum(|paid| paid.on_demand) * rates.on_demand, sum(|paid| paid.spot) * rates.spot)
    }

    /// Gives what each hour of the day cost in the mean of the days.
    #[must_use]
    pub fn by_hour(&self, rates: &Rates) -> Vec<HourlyDollars> {
        let mean = |(hour, paid): (usize, &Paid)| {
            let minutes = f64::from(paid.minutes.max(1));
            HourlyDollars { hour, on_demand: paid.on_demand / minutes * rates.on_demand, spot: paid.spot / minutes * rates.spot }
        };
        self.hours.iter().enumerate().map(mean).collect()
    }
}

/// Gives the hour of the day in which a minute since 1970 lies.
fn hour_of(minute: i64) -> usize {
    usize::try_from(minute.div_euclid(60).rem_euclid(HOURS as i64)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: Rates = Rates { on_demand: 1.0, spot: 0.25, on_demand_base: 2, spot_share: 0.75 };

    #[test]
    fn the_base_is_on_demand_and_so_is_what_the_share_leaves_above_it() {
        let split: Vec<u32> = (0..=10).map(|nodes| RATES.on_demand_of(nodes)).collect();
        assert_eq!(split, [0, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4]);
        assert_eq!(Rates::on_demand_only(1.0).on_demand_of(7), 7);
        let all_spot = Rates { on_demand_base: 0, spot_share: 1.0, ..RATES };
        assert_eq!(all_spot.on_demand_of(7), 0);
    }

    #[test]
    fn minutes_are_billed_at_their_hour_and_on_their_market() {
        let mut bill = Bill::default();
        // Two days: six nodes at one in the night, half of them on spot by base and share; one at noon of the second.
        for day in 0..2 {
            for minute in 60..120 {
                bill.count(day * 1440 + minute, 6, &RATES);
            }
        }
        bill.count(1440 + 720, 1, &RATES);
        bill.count_boot(1440 + 720, 0, 2.0, &RATES);
        bill.count_boot(1440 + 720, 2, 2.0, &RATES);
        let (on_demand, spot) = bill.dollars(&RATES);
        assert!((on_demand - (2.0 * 3.0 + 3.0 / 60.0)).abs() < 1e-9, "{on_demand}");
        assert!((spot - (2.0 * 3.0 + 2.0 / 60.0) * 0.25).abs() < 1e-9, "{spot}");
        let hours = bill.by_hour(&RATES);
        assert_eq!(hours[1], HourlyDollars { hour: 1, on_demand: 3.0, spot: 0.75 });
        assert_eq!(hours[0], HourlyDollars { hour: 0, on_demand: 0.0, spot: 0.0 });
        assert_eq!(hours[12], HourlyDollars { hour: 12, on_demand: 3.0, spot: 0.5 });
    }

    #[test]
    fn a_minute_before_1970_has_its_hour() {
        let mut bill = Bill::default();
        bill.count(-1, 1, &Rates::on_demand_only(6.0));
        assert!((bill.by_hour(&Rates::on_demand_only(6.0))[23].on_demand - 6.0).abs() < 1e-9);
    }

    #[test]
    fn launches_count_in_the_hour_of_their_minute() {
        let mut bill = Bill::default();
        for (minute, nodes) in [(59, 1), (60, 2), (1440 + 119, 4), (-1, 8)] {
            bill.launch(minute, nodes);
        }
        let hours = bill.launches_by_hour();
        assert_eq!((hours.len(), hours[0], hours[1], hours[23], hours.iter().sum()), (24, 1, 6, 8, 15));
    }
}
