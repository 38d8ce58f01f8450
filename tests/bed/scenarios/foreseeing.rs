//! What the daemon makes of the past of a demand, read from a real Prometheus.

use std::f64::consts::TAU;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;

use super::fleet::{LATER, SOON, create_table, launched_since, settled};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::wait::{Seen, until};

/// From the scenario's begin to the rise, at least: within it 28 days are read and learnt from, and nodes boot.
const AHEAD: i64 = 200;

/// A demand has risen every hour for 28 days, at the same second: the nodes are there when it does so again.
pub async fn a_rise_is_bought_for(bed: &mut Bed) -> Result<()> {
    let rise = (Timestamp::now().as_second() + AHEAD).div_euclid(60) * 60 + 60;
    let query = format!("vector(1.5) + 4 * ((vector(time() - {}) % 3600) < bool 1200)", rise.rem_euclid(3600));
    let forecast = format!(
        "[predictive]\nmode = \"on\"\nboot = \"1m\"\n\
         [[forecast]]\nname = \"orders\"\npool = \"workers\"\nquery = \"{query}\"\nper_node = 1.0\n"
    );
    let configuration = Configuration { scale_down: false, more: forecast, ..Configuration::default() };
    let mark = bed.proxy.mark();
    let toml = configuration.toml(bed);
    create_table(bed, &toml).await?;
    let mut daemon = bed.start_daemon("alpha", &toml)?;
    daemon.ready(SOON).await?;
    let left = Duration::from_secs(u64::try_from(rise - Timestamp::now().as_second()).unwrap_or(0));
    until("six nodes before the demand rises", left, async || {
        let (nodes, shown) = (bed.cluster.workers().await?.len(), daemon.get_json("/api/v1/forecast").await?);
        Ok(if nodes == 6 { Seen::Done(()) } else { Seen::NotYet(format!("{nodes} nodes; {shown}")) })
    })
    .await?;
    let early = rise - Timestamp::now().as_second();
    ensure!(launched_since(bed, mark) == 6, "6 nodes serve 5.5, and {} were bought", launched_since(bed, mark));
    let ledger = settled(bed, &daemon).await?;
    let (foreseen, others): (Vec<_>, Vec<_>) =
        ledger.of("launch", "done").into_iter().partition(|launch| launch.body["order"]["reason"]["rule"] == "orders");
    let foreseen: usize = foreseen.iter().map(|launch| launch.launched().len()).sum();
    ensure!(foreseen == 4, "2 nodes are the minimum, so 4 are to be bought for orders, not {foreseen}: {others:?}");
    let shown = daemon.get_json("/api/v1/forecast").await?;
    let orders = &shown["forecasts"]["orders"];
    ensure!(orders["standing"] == "trusted" && orders["known_minutes"].as_u64() > Some(40_000), "{shown}");
    let trusted = daemon.metric("node_fleet_forecast_trusted", &["rule=\"orders\""]).await?;
    ensure!(trusted == Some(1.0), "node_fleet_forecast_trusted is {trusted:?}");
    let mut following = 0.0;
    for way in ["reactive", "quantiles", "balance"] {
        let labels = ["rule=\"orders\"".to_owned(), format!("way=\"{way}\"")];
        following +=
            daemon.metric("node_fleet_forecast_following_nodes", &labels.each_ref().map(String::as_str)).await?.unwrap_or_default();
    }
    ensure!((following - 6.0).abs() < 0.1, "{following} nodes follow some way, not 6: {shown}");
    println!("  {} minutes of the past; 4 nodes were Ready {early} s before the rise: {}", orders["known_minutes"], orders["says"]);
    drop(daemon);
    bed.prometheus.stop();
    knows_it_from_the_ledger(bed, &toml).await
}

/// Whoever takes over while Prometheus is away knows the past of the demand.
async fn knows_it_from_the_ledger(bed: &mut Bed, toml: &str) -> Result<()> {
    let mut daemon = bed.start_daemon("beta", toml)?;
    daemon.ready(LATER).await?;
    until("the past of the demand", SOON, async || {
        let shown = daemon.get_json("/api/v1/forecast").await?;
        let known = shown["forecasts"]["orders"]["known_minutes"].as_u64();
        Ok(if known > Some(40_000) { Seen::Done(()) } else { Seen::NotYet(shown.to_string()) })
    })
    .await
}

/// A past of 28 days lies in Prometheus: it is replayed by its address, with a page of plots, and costs what the same
/// demand costs when it is read from a file.
pub async fn a_past_is_replayed(bed: &mut Bed) -> Result<()> {
    let end = Timestamp::now().as_second().div_euclid(60) * 60;
    let demand = past(end);
    bed.prometheus.backfill(&open_metrics(&demand)).await?;
    let rule = "[predictive]\nmode = \"on\"\nboot = \"2m\"\n\
         [[forecast]]\nname = \"orders\"\npool = \"workers\"\nquery = \"sum(orders_open)\"\nper_node = 1.0\n";
    // The replay lives in minutes, and so does what it boots.
    let configuration = Configuration { join_timeout: "5m".to_owned(), max: 20, more: rule.to_owned(), ..Configuration::default() };
    let [page, file] = ["report.html", "orders.csv"].map(|name| bed.folder().join(name).to_string_lossy().into_owned());
    let toml = configuration.toml(bed);
    let begun = Instant::now();
    let url = bed.prometheus.url();
    let arguments = ["simulate", "--config", "{config}", "--prometheus", &url, "--html", &page, "--json"];
    let read = replayed(bed, &toml, &arguments).await?;
    let took = begun.elapsed();
    let repairs = &read["repairs"];
    // For five minutes Prometheus gives what it had before.
    let missing = repairs["missing_minutes"].as_i64().unwrap_or_default();
    ensure!(repairs["gaps"] == 1 && (OUTAGE - 6..=OUTAGE).contains(&missing), "an outage of {OUTAGE} minutes is a gap: {repairs}");
    ensure!(read["days"].as_f64().is_some_and(|days| days > 13.7), "28 days are to be read, of which half count: {read}");
    let rows: Vec<String> =
        demand.iter().map(|(at, value)| format!("{},{value}\n", Timestamp::from_second(*at).expect("a time"))).collect();
    std::fs::write(&file, format!("timestamp,value\n{}", rows.concat()))?;
    let recorded = replayed(bed, &toml, &["simulate", "--config", "{config}", "--trace", &file, "--json"]).await?;
    for policy in ["node-fleet", "cluster-autoscaler-like", "Karpenter-like", "clairvoyant optimum"] {
        let [one, other] = [dollars(&read, policy)?, dollars(&recorded, policy)?];
        // While both are read a minute passes at one end and the other, and the outage is some minutes longer in the file.
        ensure!((one / other - 1.0).abs() < 0.01, "{policy} costs {one} as Prometheus has it and {other} in a file");
    }
    let written = std::fs::read_to_string(&page).context("the page of the replay")?;
    ensure!(written.contains("</html>"), "no page: {} bytes", written.len());
    println!("  {} samples, replayed in {:.1} s: {}", 2 * demand.len(), took.as_secs_f64(), read["summary"]);
    Ok(())
}

/// Minutes of the past for which nothing was scraped.
const OUTAGE: i64 = 360;

/// A demand of 28 days up to a time: more by day than at night, with noise that is the same each time, and an outage.
fn past(end: i64) -> Vec<(i64, f64)> {
    let minutes = -28 * 1440..=0;
    let scraped = minutes.filter(|minute| !(-5 * 1440 - OUTAGE..-5 * 1440).contains(minute));
    let value = |minute: i64| {
        let day = (minute as f64 / 1440.0 * TAU).sin();
        let noise = (minute.wrapping_mul(2_654_435_761).rem_euclid(1000)) as f64 / 1000.0;
        ((6.0 + 4.0 * day + noise) * 1000.0).round() / 1000.0
    };
    scraped.map(|minute| (end + 60 * minute, value(minute))).collect()
}

/// The demand as two shops' gauges, one of which has two thirds of it.
fn open_metrics(demand: &[(i64, f64)]) -> String {
    let mut text = "# TYPE orders_open gauge\n".to_owned();
    for (shop, share) in [("north", 2.0 / 3.0), ("south", 1.0 / 3.0)] {
        let lines = demand.iter().map(|(at, value)| format!("orders_open{{shop=\"{shop}\"}} {} {at}\n", value * share));
        text.extend(lines);
    }
    text + "# EOF\n"
}

async fn replayed(bed: &Bed, toml: &str, arguments: &[&str]) -> Result<Value> {
    let outcome = bed.run_command(toml, arguments).await?;
    ensure!(outcome.code == 0, "node-fleet {arguments:?}: {}{}", outcome.stdout, outcome.stderr);
    serde_json::from_str(&outcome.stdout).with_context(|| format!("no JSON: {}", outcome.stdout))
}

fn dollars(replay: &Value, policy: &str) -> Result<f64> {
    let row = replay["outcomes"].as_array().and_then(|rows| rows.iter().find(|row| row["policy"] == policy));
    row.and_then(|row| row["dollars"].as_f64()).with_context(|| format!("no row for {policy}"))
}
