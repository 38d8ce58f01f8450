//! Renders the daily cost report and the weekly recommendations.

use super::super::tally::{PoolTally, Tally};
use super::texts::{amount, clipped, escaped, listed, moment, spoken};
use super::{Part, assembled, labelled};
use crate::model::PoolName;
use crate::model::spend::{Cost, PeriodCost, ShareCost};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::collections::BTreeSet;

/// Less than this share of a span seen makes its sums no sums of the span.
const WHOLE: f64 = 0.99;
/// A pool that was at its maximum for a larger share of the time may need a higher one.
const OFTEN_AT_MAXIMUM: f64 = 0.05;
/// A pool that was at its minimum for a larger share of the time, and little used, may do with a lower one.
const OFTEN_AT_MINIMUM: f64 = 0.50;
/// Little used: what scale-down itself would call idle by default.
const IDLE_CPU: f64 = 0.30;
/// Little used memory.
const IDLE_MEMORY: f64 = 0.50;
/// Interruptions for each hundred node-hours that make more types worth their while.
const MANY_INTERRUPTIONS: f64 = 2.0;
/// A mean time to join that is worth a look at the image.
const SLOW_JOIN: f64 = 240.0;

/// Renders what the last whole day in UTC has cost, or the day so far where none is known, and what has happened since
/// the last report. `cost` is the ledger's; `None` before it is known.
#[must_use]
pub fn daily(cluster: &str, cost: Option<&Cost>, tally: &Tally, now: Timestamp) -> Value {
    // The ledger's own day may be the one that has just ended.
    let last = now.to_zoned(TimeZone::UTC).date().yesterday().ok();
    let whole = cost.and_then(|cost| [Some(&cost.today), cost.yesterday.as_ref()].into_iter().flatten().find(|it| Some(it.begins) == last));
    let day = whole.or_else(|| cost.map(|cost| &cost.today));
    let so_far = if whole.is_none() { " so far" } else { "" };
    let title = day.map_or_else(unknown, |day| format!(":moneybag: {} (UTC){so_far}: {}", day.begins, sum(day.dollars, day.node_hours)));
    let mut parts = vec![Part::new(title, [cost.map(month).unwrap_or_default(), coverage(tally, now)])];
    let paid = day.into_iter().flat_map(|day| &day.by).map(|share| &share.pool);
    for name in tally.pools.keys().chain(paid).collect::<BTreeSet<_>>() {
        let cost = labelled("Cost", day.map(|day| paid_for(day, name)).unwrap_or_default());
        let seen = tally.pools.get(name).map(lines).unwrap_or_default();
        parts.push(Part::new(pool_title(name), std::iter::once(cost).chain(seen)));
    }
    report(cluster, "Daily report", &parts, now)
}

/// Renders what a week suggests. `cost` is the ledger's; `None` before it is known.
#[must_use]
pub fn weekly(cluster: &str, cost: Option<&Cost>, tally: &Tally, now: Timestamp) -> Value {
    let title = ":calendar: What the week suggests".to_owned();
    let mut parts = vec![Part::new(title, [cost.map_or_else(unknown, month), coverage(tally, now)])];
    for (name, pool) in &tally.pools {
        let mut lines = recommendations(pool);
        if lines.is_empty() {
            lines.push("Nothing stands out.".to_owned());
        }
        parts.push(Part::new(pool_title(name), lines));
    }
    if !tally.alerts.is_empty() {
        let alerts = listed(tally.alerts.iter().map(|(name, times)| format!("{} ({times} ×)", escaped(name))));
        parts.push(Part::new("Conditions that asked for a look".to_owned(), [alerts]));
    }
    report(cluster, "Weekly recommendations", &parts, now)
}

fn unknown() -> String {
    "What the fleet costs is not known yet".to_owned()
}

fn sum(dollars: f64, node_hours: f64) -> String {
    format!("{} for {node_hours:.1} node-hours", amount(dollars))
}

/// Says what the month comes to, and what it would with other fleets.
fn month(cost: &Cost) -> String {
    let month = &cost.month;
    let (paid, begins) = (sum(month.dollars, month.node_hours), moment(cost.since.max(midnight(month.begins))));
    let (list, peak) = (amount(month.on_demand_dollars), amount(month.static_peak_dollars));
    format!("*This month, from {begins} on:* {paid}; the same instances on demand {list}, a fleet always as large as at its peak {peak}")
}

fn midnight(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map(|zoned| zoned.timestamp()).unwrap_or_default()
}

/// Says what a pool has cost in a period, and on which market; empty where nothing of it ran.
fn paid_for(period: &PeriodCost, pool: &PoolName) -> String {
    let shares: Vec<&ShareCost> = period.by.iter().filter(|share| share.pool == *pool && share.node_hours > 0.0).collect();
    let markets = listed(shares.iter().map(|share| format!("{} {}", share.market, amount(share.dollars))));
    let (dollars, node_hours) = shares.iter().fold((0.0, 0.0), |(paid, ran), share| (paid + share.dollars, ran + share.node_hours));
    if shares.is_empty() { String::new() } else { format!("{} ({markets})", sum(dollars, node_hours)) }
}

fn pool_title(name: &PoolName) -> String {
    if name.as_str().is_empty() { "Without a pool".to_owned() } else { format!("Pool {}", escaped(name.as_str())) }
}

fn report(cluster: &str, name: &str, parts: &[Part], now: Timestamp) -> Value {
    let mut message = assembled(cluster, &moment(now), parts);
    let header = clipped(&format!("{name}: {}", escaped(cluster)), super::HEADER);
    message["blocks"][0]["text"]["text"] = header.into();
    message
}

/// Says of which time all is that is not from the ledger.
fn coverage(tally: &Tally, now: Timestamp) -> String {
    let span = now.duration_since(tally.since);
    let (seen, all) = (tally.hours(), span.as_secs_f64() / 3600.0);
    let share = if all > 0.0 { (seen / all).min(1.0) } else { 0.0 };
    let whole = if share < WHOLE { format!(", of which this instance saw {seen:.1} of {all:.1} h") } else { String::new() };
    format!(
        "Dollars are estimated from list and market prices. All else is of the last {}{whole}.",
        spoken(SignedDuration::from_secs(span.as_secs()))
    )
}

fn lines(pool: &PoolTally) -> Vec<String> {
    let mut lines = Vec::new();
    push(&mut lines, "Nodes", &pool.range.map(|(least, most)| format!("{least} to {most}")).unwrap_or_default());
    let shares = [("CPU", pool.mean_cpu()), ("memory", pool.mean_memory())];
    let used = shares.into_iter().filter_map(|(name, share)| Some(format!("{name} {:.0} %", share? * 100.0))).collect::<Vec<_>>();
    push(&mut lines, "Used", &used.join(", "));
    push(&mut lines, "Launched", &listed(pool.launched.iter().map(|(market, number)| format!("{number} {market}"))));
    push(&mut lines, "Given back", &listed(pool.retired.iter().map(|(reason, number)| format!("{number} {reason}"))));
    push(&mut lines, "Failed", &listed(pool.failed.iter().map(|(failure, number)| format!("{number} {failure}"))));
    let troubles = [("spot interruptions", pool.interrupted), ("drains rolled back", pool.rolled_back)];
    let troubles = troubles.into_iter().filter(|(_, number)| *number > 0).map(|(name, number)| format!("{name}: {number}"));
    push(&mut lines, "Trouble", &listed(troubles));
    let (number, all, longest) = pool.joined;
    if number > 0 {
        let mean = all.as_secs_f64() / f64::from(number);
        push(&mut lines, "Time to join", &format!("{mean:.0} s on average, {:.0} s at most", longest.as_secs_f64()));
    }
    lines
}

fn push(lines: &mut Vec<String>, label: &str, text: &str) {
    lines.extend(Some(labelled(label, text.to_owned())).filter(|line| !line.is_empty()));
}

/// Says what an operator might change, each with what speaks for it. Nothing of it happens by itself.
fn recommendations(pool: &PoolTally) -> Vec<String> {
    if pool.hours <= 0.0 {
        return vec!["Nothing was seen of it.".to_owned()];
    }
    let (min, max) = pool.bounds;
    let percent = |hours: f64| 100.0 * hours / pool.hours;
    let mut found = Vec::new();
    if pool.hours_at_maximum / pool.hours > OFTEN_AT_MAXIMUM {
        let share = percent(pool.hours_at_maximum);
        found.push(format!(
            "• Raise `max` above {max}: the pool was at it for {share:.0} % of the time, and what it needed more it did not get."
        ));
    }
    let idle = pool.mean_cpu().is_some_and(|cpu| cpu < IDLE_CPU) && pool.mean_memory().is_some_and(|memory| memory < IDLE_MEMORY);
    if idle && pool.hours_at_minimum / pool.hours > OFTEN_AT_MINIMUM {
        let share = percent(pool.hours_at_minimum);
        found.push(format!(
            "• Lower `min` below {min}, at least by a schedule: the pool was at it for {share:.0} % of the time with {:.0} % CPU and {:.0} % memory in use.",
            100.0 * pool.mean_cpu().unwrap_or_default(),
            100.0 * pool.mean_memory().unwrap_or_default()
        ));
    }
    if f64::from(pool.interrupted) > MANY_INTERRUPTIONS * pool.node_hours / 100.0 {
        let number = pool.interrupted;
        found.push(format!(
            "• Name more instance types, or lower `spot_share`: {number} spot interruptions in {:.0} node-hours.",
            pool.node_hours
        ));
    }
    let failed: u32 = pool.failed.values().sum();
    if failed > 0 {
        let which = listed(pool.failed.iter().map(|(failure, number)| format!("{number} {failure}")));
        found.push(format!("• Look at the launches that failed ({which}): more types or subnets help against a lack of capacity, a raised quota against limits."));
    }
    if pool.rolled_back > 0 {
        let number = pool.rolled_back;
        found.push(format!(
            "• Look at disruption budgets and grace periods: drains that did not end in time and were rolled back: {number}."
        ));
    }
    let (number, all, _) = pool.joined;
    let mean = if number > 0 { all.as_secs_f64() / f64::from(number) } else { 0.0 };
    if mean > SLOW_JOIN {
        found.push(format!("• Look at the image and user data: a node took {mean:.0} s on average to join."));
    }
    found
}
