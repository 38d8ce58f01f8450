//! Reckons what the fleet costs, from what EC2 shows of each instance: when it was launched, and when it ended.
//!
//! Billed is by the second, a minute at least, from the launch on; EC2 itself begins when the instance runs, some
//! seconds later. What ran before the first look is left out, since nobody knows what else ran then, nor how much at
//! most: so all figures of a period are of the same time. A spot instance pays for each of its hours what the market asked when the hour began. Each instance
//! has a meter that says how far it is billed, so a daemon that was down loses nothing of what still runs, or ended
//! within the hour for which EC2 shows it; what ended and vanished meanwhile is billed up to where it was last seen.

use crate::model::offer::HourlyPrice;
use crate::model::spend::{Cost, Meter, Period, PeriodCost, PriceSeconds, Series, SeriesCost, ShareCost, Spend, Tally};
use crate::model::{Instance, InstanceState, Market, OfferKey};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use std::collections::BTreeMap;

/// EC2 bills an instance for so many seconds at least.
const LEAST_BILLED: i64 = 60;
/// A meter is kept so many seconds after its instance was last seen: EC2's list may lag, and shows what has ended for an hour.
const KEPT_UNSEEN: i64 = 2 * HOUR;
/// An instance is in EC2's list so many seconds after its launch, at the latest.
const SHOWN_LATE: i64 = 600;
/// So many meters are kept: with them the ledger's item stays well below the 400 KB that DynamoDB takes.
const METERS_KEPT: usize = 3000;
/// So many kinds of instances are told apart; what comes beyond is summed up as `other`.
const SERIES_KEPT: usize = 400;
/// What zone and type of those are called.
const OTHER: &str = "other";
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// What offers cost.
type Prices = BTreeMap<OfferKey, HourlyPrice>;

/// Bills what ran since the last time. `instances` is EC2's whole list as it was `at` that moment; an older list than
/// the last one changes nothing.
pub fn account(spend: &mut Spend, instances: &[Instance], prices: &Prices, at: Timestamp) {
    let last = spend.at;
    if last.is_some_and(|last| at <= last) {
        return;
    }
    roll(spend, date(at.as_second()));
    let since = *spend.since.get_or_insert(at);
    spend.at = Some(at);
    let is_full = spend.meters.len() >= METERS_KEPT;
    let looks = Looks { is_full, first: since.as_second(), before: last.unwrap_or(since).as_second(), now: at.as_second() };
    let mut peak = 0_u64;
    for instance in instances {
        if !is_settled(spend, instance, last.unwrap_or(since)) {
            bill(spend, instance, prices, &looks);
        }
        peak = peak.saturating_add(on_demand(instance, prices).filter(|_| runs(instance)).map_or(0, |price| price.0));
    }
    for period in [&mut spend.today, &mut spend.month].into_iter().flatten() {
        period.peak = period.peak.max(HourlyPrice(peak));
    }
    // What has ended and says when is settled, and known for it without a meter.
    let shown: BTreeMap<_, bool> = instances.iter().map(|it| (&it.id, it.ended.is_some_and(|ended| ended <= at))).collect();
    spend.meters.retain(|id, meter| match shown.get(id) {
        Some(says_when) => !(meter.over && *says_when),
        None => at.as_second() - meter.to <= KEPT_UNSEEN,
    });
    let surplus = spend.meters.len().saturating_sub(METERS_KEPT);
    if surplus > 0 {
        let mut oldest: Vec<_> = spend.meters.iter().map(|(id, meter)| (meter.to, id.clone())).collect();
        oldest.sort();
        for (_, id) in oldest.into_iter().take(surplus) {
            spend.meters.remove(&id);
        }
    }
}

/// Tells whether an instance was billed to its end before: it ended before the last look, and its meter is gone.
fn is_settled(spend: &Spend, instance: &Instance, last: Timestamp) -> bool {
    let ended_before = instance.ended.is_some_and(|ended| ended <= last);
    instance.state == InstanceState::Ending && ended_before && !spend.meters.contains_key(&instance.id)
}

/// Tells whether an instance is paid for now.
fn runs(instance: &Instance) -> bool {
    match instance.state {
        InstanceState::Pending | InstanceState::Running => true,
        InstanceState::Ending | InstanceState::Stopped => false,
    }
}

fn key(instance: &Instance, market: Market) -> OfferKey {
    OfferKey { instance_type: instance.instance_type.clone(), zone: instance.zone.clone(), market }
}

fn on_demand(instance: &Instance, prices: &Prices) -> Option<HourlyPrice> {
    prices.get(&key(instance, Market::OnDemand)).copied()
}

/// When the first look was, the one before this one, and this one; in seconds.
struct Looks {
    first: i64,
    before: i64,
    now: i64,
    /// There were more instances than meters: one without may have been billed before, however young it is.
    is_full: bool,
}

/// Bills one instance up to now, or to its end. Nothing is billed of the time before the first look.
fn bill(spend: &mut Spend, instance: &Instance, prices: &Prices, looks: &Looks) {
    let now = looks.now;
    let launched = instance.launched.as_second().min(now);
    let asked = prices.get(&key(instance, instance.market)).copied();
    let mut meter = spend.meters.get(&instance.id).copied().unwrap_or_else(|| {
        // One without a meter that is no newcomer was billed up to the look before.
        let late = if looks.is_full { 0 } else { SHOWN_LATE };
        let is_new = launched + late >= looks.before;
        let to = if is_new { launched.max(looks.first) } else { looks.before };
        Meter { to, hour: to - (to - launched) % HOUR, rate: asked, owed: 0, over: false }
    });
    // It was stopped and came back.
    if launched > meter.to {
        (meter.to, meter.hour) = (launched, launched);
    }
    let until = match instance.state {
        InstanceState::Pending | InstanceState::Running => now,
        // Where EC2 does not say when, it ended when it was first seen so.
        InstanceState::Ending if meter.over => meter.to,
        InstanceState::Ending => instance.ended.map_or(now, Timestamp::as_second).clamp(launched, now),
        InstanceState::Stopped => instance.ended.map_or(meter.to, Timestamp::as_second).min(now).max(meter.to),
    };
    let series = series(spend, instance);
    let charge = |spend: &mut Spend, from: i64, to: i64, rate: HourlyPrice, counts: bool| {
        let list = on_demand(instance, prices).unwrap_or(rate);
        add(spend, &series, from, to, rate, list, counts);
    };
    if let (None, Some(price)) = (meter.rate, asked) {
        meter.rate = Some(price);
        charge(spend, meter.to - seconds_of(meter.owed), meter.to, price, false);
        meter.owed = 0;
    }
    while meter.to < until {
        let to = until.min(meter.hour + HOUR);
        charge(spend, meter.to, to, meter.rate.unwrap_or_default(), true);
        if meter.rate.is_none() {
            meter.owed += (to - meter.to).unsigned_abs();
        }
        meter.to = to;
        if to == meter.hour + HOUR {
            (meter.hour, meter.rate) = (to, asked.or(meter.rate));
        }
    }
    if instance.state == InstanceState::Ending && !meter.over {
        meter.over = true;
        let rest = LEAST_BILLED - (until - launched);
        if rest > 0 {
            charge(spend, until, until + rest, meter.rate.unwrap_or_default(), true);
        }
        spend.unpriced = spend.unpriced.saturating_add(std::mem::take(&mut meter.owed));
    }
    if instance.state == InstanceState::Stopped {
        // Time passes and costs nothing.
        meter.to = meter.to.max(now);
    }
    spend.meters.insert(instance.id.clone(), meter);
}

fn seconds_of(owed: u64) -> i64 {
    i64::try_from(owed).unwrap_or(i64::MAX)
}

/// Gives what an instance is counted among.
fn series(spend: &Spend, instance: &Instance) -> Series {
    let series = Series {
        pool: instance.pool.clone().unwrap_or_default(),
        market: instance.market,
        zone: instance.zone.clone(),
        instance_type: instance.instance_type.clone(),
    };
    if spend.totals.len() < SERIES_KEPT || spend.totals.contains_key(&series) {
        return series;
    }
    Series { zone: OTHER.into(), instance_type: OTHER.into(), ..series }
}

/// Adds a time that ran at one price to all that it belongs to. `counts` is `false` for time that is counted already.
fn add(spend: &mut Spend, series: &Series, mut from: i64, to: i64, rate: HourlyPrice, list: HourlyPrice, counts: bool) {
    while from < to {
        let end = to.min((from.div_euclid(DAY) + 1) * DAY);
        let seconds = (end - from).unsigned_abs();
        let tally = Tally {
            seconds: if counts { seconds } else { 0 },
            paid: PriceSeconds::of(rate, seconds),
            on_demand: PriceSeconds::of(list, seconds),
        };
        spend.totals.entry(series.clone()).or_default().add(tally);
        let day = date(from);
        let days = [&mut spend.today, &mut spend.yesterday].into_iter().flatten().filter(|period| period.begins == day);
        let months = [&mut spend.month, &mut spend.last_month].into_iter().flatten().filter(|period| period.begins == day.first_of_month());
        for period in days.chain(months) {
            period.by.entry((series.pool.clone(), series.market)).or_default().add(tally);
        }
        from = end;
    }
}

/// Makes the periods those of a day. Yesterday and the last month are there from the beginning, since instances may be older.
fn roll(spend: &mut Spend, today: Date) {
    let month = today.first_of_month();
    roll_one(&mut spend.today, &mut spend.yesterday, today, today.yesterday().unwrap_or(today));
    let last = month.yesterday().unwrap_or(month).first_of_month();
    roll_one(&mut spend.month, &mut spend.last_month, month, last);
}

fn roll_one(current: &mut Option<Period>, previous: &mut Option<Period>, begins: Date, before: Date) {
    if current.as_ref().is_some_and(|period| period.begins == begins) {
        return;
    }
    let over = current.replace(Period::new(begins)).filter(|period| period.begins == before);
    *previous = Some(over.unwrap_or_else(|| Period::new(before)));
}

/// Gives the day, in UTC, of a second since 1970.
fn date(second: i64) -> Date {
    Timestamp::from_second(second).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

/// Gives the first second of a day in UTC.
fn midnight(day: Date) -> i64 {
    day.to_zoned(TimeZone::UTC).map_or(0, |zoned| zoned.timestamp().as_second())
}

/// Reports what is known; `None` before anything is.
#[must_use]
pub fn report(spend: &Spend) -> Option<Cost> {
    let (since, as_of) = (spend.since?, spend.at?);
    let (today, month) = (spend.today.as_ref()?, spend.month.as_ref()?);
    let span = (since.as_second(), as_of.as_second());
    let past = |period: &Option<Period>, end: Date| {
        let period = period.as_ref().filter(|_| midnight(end) > span.0)?;
        Some(period_cost(period, end, span))
    };
    let totals = spend.totals.iter().map(|(series, tally)| SeriesCost {
        series: series.clone(),
        node_seconds: tally.seconds,
        dollars: tally.paid.dollars(),
    });
    Some(Cost {
        since,
        as_of,
        today: period_cost(today, today.begins.tomorrow().unwrap_or(Date::MAX), span),
        yesterday: past(&spend.yesterday, today.begins),
        month: period_cost(month, month.begins.last_of_month().tomorrow().unwrap_or(Date::MAX), span),
        last_month: past(&spend.last_month, month.begins),
        unpriced_node_seconds: spend.unpriced,
        totals: totals.collect(),
    })
}

/// Sums a period up. It ends before the day `end`; `span` is what is known at all.
fn period_cost(period: &Period, end: Date, span: (i64, i64)) -> PeriodCost {
    let sum = period.sum();
    let known = midnight(end).min(span.1) - midnight(period.begins).max(span.0);
    let by = period.by.iter().map(|((pool, market), tally)| ShareCost {
        pool: pool.clone(),
        market: *market,
        node_hours: hours(tally.seconds),
        dollars: tally.paid.dollars(),
    });
    PeriodCost {
        begins: period.begins,
        node_hours: hours(sum.seconds),
        dollars: sum.paid.dollars(),
        on_demand_dollars: sum.on_demand.dollars(),
        static_peak_dollars: PriceSeconds::of(period.peak, known.max(0).unsigned_abs()).dollars(),
        by: by.collect(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "2^53 seconds are beyond any fleet")]
fn hours(seconds: u64) -> f64 {
    seconds as f64 / 3600.0
}
