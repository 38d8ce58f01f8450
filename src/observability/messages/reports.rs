//! Renders the daily cost report and the weekly recommendations.

use super::super::tally::{PoolTally, Tally};
use super::texts::{amount, clipped, escaped, listed, spoken};
use super::{Part, assembled};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

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

/// Renders what a day has cost.
#[must_use]
pub fn daily(cluster: &str, tally: &Tally, now: Timestamp) -> Value {
    let dollars: f64 = tally.pools.values().map(|pool| pool.dollars).sum();
    let nodes: f64 = tally.pools.values().map(|pool| pool.node_hours).sum();
    let mut parts =
        vec![Part { title: format!(":moneybag: Cost: {} for {nodes:.0} node-hours", amount(dollars)), lines: vec![coverage(tally, now)] }];
    parts.extend(tally.pools.iter().map(|(name, pool)| Part { title: format!("Pool {}", escaped(name.as_str())), lines: lines(pool) }));
    report(cluster, "Daily report", &parts, now)
}

/// Renders what a week suggests.
#[must_use]
pub fn weekly(cluster: &str, tally: &Tally, now: Timestamp) -> Value {
    let dollars: f64 = tally.pools.values().map(|pool| pool.dollars).sum();
    let mut parts = vec![Part { title: format!(":calendar: The week: {}", amount(dollars)), lines: vec![coverage(tally, now)] }];
    for (name, pool) in &tally.pools {
        let mut lines = recommendations(pool);
        if lines.is_empty() {
            lines.push("Nothing stands out.".to_owned());
        }
        parts.push(Part { title: format!("Pool {}", escaped(name.as_str())), lines });
    }
    if !tally.alerts.is_empty() {
        let alerts = listed(tally.alerts.iter().map(|(name, times)| format!("{} ({times} ×)", escaped(name))));
        parts.push(Part { title: "Conditions that asked for a look".to_owned(), lines: vec![alerts] });
    }
    report(cluster, "Weekly recommendations", &parts, now)
}

fn report(cluster: &str, name: &str, parts: &[Part], now: Timestamp) -> Value {
    let mut message = assembled(cluster, &now.to_string(), parts);
    let header = clipped(&format!("{name}: {}", escaped(cluster)), super::HEADER);
    message["blocks"][0]["text"]["text"] = header.into();
    message
}

fn coverage(tally: &Tally, now: Timestamp) -> String {
    let span = now.duration_since(tally.since);
    let (seen, all) = (tally.hours(), span.as_secs_f64() / 3600.0);
    let share = if all > 0.0 { (seen / all).min(1.0) } else { 0.0 };
    let whole = if share < WHOLE { format!("; seen for {seen:.1} of {all:.1} hours, and counted for these") } else { String::new() };
    format!("Estimated from list prices over {}{whole}.", spoken(SignedDuration::from_secs(span.as_secs())))
}

fn lines(pool: &PoolTally) -> Vec<String> {
    let mut lines = Vec::new();
    let (least, most) = pool.range.unwrap_or_default();
    let hourly = if pool.hours > 0.0 { pool.dollars / pool.hours } else { 0.0 };
    lines.push(format!("{} ({}/h), {least} to {most} nodes, {:.0} node-hours", amount(pool.dollars), amount(hourly), pool.node_hours));
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
        lines.push(format!(
            "*Time to join:* {:.0} s on average, {:.0} s at most",
            all.as_secs_f64() / f64::from(number),
            longest.as_secs_f64()
        ));
    }
    lines
}

fn push(lines: &mut Vec<String>, label: &str, text: &str) {
    if !text.is_empty() {
        lines.push(format!("*{label}:* {text}"));
    }
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
