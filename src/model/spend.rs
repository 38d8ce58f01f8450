//! What the fleet has cost: kept in the memory, so that the day's figures outlive a restart.

use super::ids::{InstanceId, InstanceType, PoolName, Zone};
use super::instance::Market;
use super::offer::HourlyPrice;
use jiff::Timestamp;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Micro-dollars an hour, times seconds: sums of prices that change stay exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PriceSeconds(pub u64);

impl PriceSeconds {
    /// Gives what a price comes to in so many seconds.
    #[must_use]
    pub fn of(price: HourlyPrice, seconds: u64) -> Self {
        Self(price.0.saturating_mul(seconds))
    }

    /// Gives the sum in dollars.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a millionth of a dollar is not missed in two million")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 3.6e9
    }

    /// Adds another sum.
    pub fn add(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0);
    }
}

/// What ran, and what it came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How long instances ran, together.
    pub seconds: u64,
    /// What they cost.
    pub paid: PriceSeconds,
    /// What the same instances would have cost on demand.
    pub on_demand: PriceSeconds,
}

impl Tally {
    /// Adds another tally.
    pub fn add(&mut self, other: Self) {
        self.seconds = self.seconds.saturating_add(other.seconds);
        self.paid.add(other.paid);
        self.on_demand.add(other.on_demand);
    }
}

/// What instances are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Series {
    /// Their pool; empty where no tag names one.
    pub pool: PoolName,
    /// How they are paid for.
    pub market: Market,
    /// Their zone.
    pub zone: Zone,
    /// Their type.
    pub instance_type: InstanceType,
}

/// How far an instance is billed. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Meter {
    /// Up to when.
    pub to: i64,
    /// When its current hour began: a spot instance pays for an hour what the market asked at the hour's beginning.
    pub hour: i64,
    /// What it pays in this hour; `None` while no source has told.
    pub rate: Option<HourlyPrice>,
    /// Seconds that ran while the price was not known.
    pub owed: u64,
    /// It has ended and is billed to its end. It is kept while EC2 shows it, so that it is not billed twice.
    pub over: bool,
}

/// A meter as it is written: there is one for each instance, in a record that must stay small.
type Written = (i64, i64, Option<HourlyPrice>, u64, bool);

impl From<Written> for Meter {
    fn from((to, hour, rate, owed, over): Written) -> Self {
        Self { to, hour, rate, owed, over }
    }
}

impl From<Meter> for Written {
    fn from(meter: Meter) -> Self {
        (meter.to, meter.hour, meter.rate, meter.owed, meter.over)
    }
}

/// A day or a month, in UTC, as EC2's bills have them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// Its first day.
    pub begins: Date,
    /// The most that the instances of one moment would have cost on demand.
    #[serde(default)]
    pub peak: HourlyPrice,
    /// By pool and market.
    #[serde(with = "super::offer::pairs")]
    pub by: BTreeMap<(PoolName, Market), Tally>,
}

impl Period {
    /// Begins a period in which nothing has run yet.
    #[must_use]
    pub fn new(begins: Date) -> Self {
        Self { begins, peak: HourlyPrice(0), by: BTreeMap::new() }
    }

    /// Sums it up.
    #[must_use]
    pub fn sum(&self) -> Tally {
        let mut sum = Tally::default();
        self.by.values().for_each(|tally| sum.add(*tally));
        sum
    }
}

/// All that is kept of what the fleet has cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Spend {
    /// The first look: nothing is billed of what ran before it.
    pub since: Option<Timestamp>,
    /// Up to when it is known.
    pub at: Option<Timestamp>,
    /// How far each instance that EC2 shows is billed.
    pub meters: BTreeMap<InstanceId, Meter>,
    /// Since the beginning.
    #[serde(with = "super::offer::pairs")]
    pub totals: BTreeMap<Series, Tally>,
    /// The current day.
    pub today: Option<Period>,
    /// The one before it.
    pub yesterday: Option<Period>,
    /// The current month.
    pub month: Option<Period>,
    /// The one before it.
    pub last_month: Option<Period>,
    /// Seconds of instances that ended before anybody knew their price.
    pub unpriced: u64,
}

/// What a period came to, for people and machines outside.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeriodCost {
    /// Its first day, in UTC.
    pub begins: Date,
    /// Node-hours.
    pub node_hours: f64,
    /// What they cost.
    pub dollars: f64,
    /// What the same instances would have cost on demand.
    pub on_demand_dollars: f64,
    /// What a fleet would have cost that had been as large as this one at its largest all the time, on demand.
    pub static_peak_dollars: f64,
    /// By pool and market.
    pub by: Vec<ShareCost>,
}

/// The part of a pool and a market in a period.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShareCost {
    /// The pool.
    pub pool: PoolName,
    /// The market.
    pub market: Market,
    /// Node-hours.
    pub node_hours: f64,
    /// What they cost.
    pub dollars: f64,
}

/// What instances of one kind have come to since the beginning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeriesCost {
    /// Which.
    #[serde(flatten)]
    pub series: Series,
    /// How long they ran.
    pub node_seconds: u64,
    /// What they cost.
    pub dollars: f64,
}

/// The report of what the fleet has cost: an estimate from list and market prices, before discounts and taxes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Since when it is known.
    pub since: Timestamp,
    /// Up to when it is known.
    pub as_of: Timestamp,
    /// The current day.
    pub today: PeriodCost,
    /// The one before it.
    pub yesterday: Option<PeriodCost>,
    /// The current month.
    pub month: PeriodCost,
    /// The one before it.
    pub last_month: Option<PeriodCost>,
    /// Seconds of instances that ended before their price was known, which the dollars lack.
    pub unpriced_node_seconds: u64,
    /// Since the beginning.
    pub totals: Vec<SeriesCost>,
}
