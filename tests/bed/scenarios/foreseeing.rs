//! What the daemon makes of the past of a demand, read from a real Prometheus.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;

use super::fleet::{SOON, create_table, launched_since, settled};
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
    println!("  {} minutes of the past; 4 nodes were Ready {early} s before the rise: {}", orders["known_minutes"], orders["says"]);
    drop(daemon);
    replayed(bed, &configuration).await
}

/// The same past is replayed by the operator's configuration, with a page of plots.
async fn replayed(bed: &Bed, configuration: &Configuration) -> Result<()> {
    let page = bed.folder().join("report.html");
    // The replay lives in minutes, and so does what it boots.
    let configuration = Configuration { join_timeout: "5m".to_owned(), ..configuration.clone() };
    let arguments = ["simulate", "--config", "{config}", "--html", &page.to_string_lossy()];
    let begun = Instant::now();
    let outcome = bed.run_command(&configuration.toml(bed), &arguments).await?;
    ensure!(outcome.code == 0, "node-fleet simulate: {}{}", outcome.stdout, outcome.stderr);
    ensure!(outcome.stdout.starts_with("On these 14 days"), "28 days are to be read, of which half count: {}", outcome.stdout);
    for row in ["node-fleet", "cluster-autoscaler-like", "Karpenter-like", "optimum"] {
        ensure!(outcome.stdout.contains(row), "no row for {row} in\n{}", outcome.stdout);
    }
    let written = std::fs::read_to_string(&page).context("the page of the replay")?;
    ensure!(written.contains("</html>"), "no page: {} bytes", written.len());
    println!("  replayed in {:.1} s: {}", begun.elapsed().as_secs_f64(), outcome.stdout.lines().next().unwrap_or_default());
    Ok(())
}
