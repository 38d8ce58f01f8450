//! What the dashboards and the alerts ask, asked of a Prometheus that scrapes a daemon at work.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;

use super::fleet::{LATER, SOON, fleet, interrupted_shop};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::proxy::faults::Matcher;
use crate::tools::in_repository;
use crate::wait::{Seen, until};

/// A query, and where it stands.
type Query = (String, String);

/// A node's life, an interruption and a launch that fails: each query of a panel and each recording gives data, and each
/// alert can be evaluated. What no bed has comes from the pages of `monitoring/tests/pages`.
pub async fn each_query_gives_data(bed: &mut Bed) -> Result<()> {
    let configuration =
        Configuration { on_demand_base: 0, spot_share: 1.0, join_timeout: "5s".to_owned(), read_prices: true, ..Configuration::default() };
    let configuration = Configuration { max: 6, ..configuration.hasty() };
    let daemon = fleet(bed, &configuration).await?;
    let address = daemon.url();
    let files = ["monitoring/prometheus/recording.yml", "monitoring/prometheus/alerts.yml"].map(in_repository);
    bed.prometheus.configure(&jobs(address.trim_start_matches("http://"), &serve_pages().await?), &files)?;
    bed.prometheus.ready().await?;
    until("the daemon to be scraped", SOON, async || {
        let up = bed.prometheus.query("node_fleet_leader").await?.len();
        Ok(if up > 0 { Seen::Done(()) } else { Seen::NotYet("no leader".to_owned()) })
    })
    .await?;

    bed.proxy.faults.fail_next(Matcher::action("DescribeInstances"), 1, "UnauthorizedOperation", 403);
    bed.joiner.never_join(1);
    interrupted_shop(bed, &daemon).await?;

    let queries = [panels()?, recordings(bed).await?].concat();
    ensure!(queries.len() > 90, "{} queries are listed", queries.len());
    let count = queries.len();
    let mut silent = queries;
    until("each query to give data", LATER, async || {
        let mut still = Vec::new();
        for (place, query) in std::mem::take(&mut silent) {
            let lately = bed.prometheus.query(&format!("max_over_time(({query})[2m:1s])")).await.context(place.clone());
            let numbers = lately?.into_iter().filter(|series| series["value"][1] != "NaN").count();
            still.extend((numbers == 0).then_some((place, query)));
        }
        silent = still;
        Ok(if silent.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("no data for {silent:#?}")) })
    })
    .await?;
    let alerts = rules(bed, "alerting").await?;
    ensure!(alerts.len() > 20, "{} alerts are listed", alerts.len());
    let ill: Vec<&Value> = alerts.iter().filter(|alert| alert["health"] != "ok").collect();
    ensure!(ill.is_empty(), "{ill:#?}");
    let firing = alerts.iter().filter(|alert| alert["state"] != "inactive").filter_map(|alert| alert["name"].as_str());
    println!("  {count} queries give data, {} alerts are evaluated; begun: {}", alerts.len(), firing.collect::<Vec<_>>().join(", "));
    Ok(())
}

/// The daemon, and what stands in for kube-state-metrics and for troubles that this daemon does not have.
fn jobs(daemon: &str, pages: &str) -> String {
    format!(
        "- job_name: node-fleet\n  static_configs:\n  - targets: ['{daemon}']\n\
         - job_name: trouble\n  metrics_path: /trouble.txt\n  static_configs:\n\
         \x20 - targets: ['{pages}']\n    labels: {{ job: node-fleet, instance: trouble }}\n\
         - job_name: kube-state-metrics\n  metrics_path: /kube-state-metrics.txt\n  static_configs:\n  - targets: ['{pages}']\n"
    )
}

/// Serves the pages on a free port for as long as the process lives, and gives its address.
async fn serve_pages() -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let mut router = Router::new();
    for name in ["trouble.txt", "kube-state-metrics.txt"] {
        let page = fs::read_to_string(in_repository("monitoring/tests/pages").join(name)).context(name)?;
        router = router.route(&format!("/{name}"), get(async move || page));
    }
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(address.to_string())
}

/// The queries of all panels, with what Grafana puts in the place of its variables.
fn panels() -> Result<Vec<Query>> {
    fn collect(panels: &Value, file: &str, queries: &mut Vec<Query>) {
        for panel in panels.as_array().into_iter().flatten() {
            let place = format!("{file}: {}", panel["title"].as_str().unwrap_or_default());
            let expressions = panel["targets"].as_array().into_iter().flatten().filter_map(|target| target["expr"].as_str());
            queries.extend(expressions.map(|text| (place.clone(), text.replace("$__rate_interval", "4m").replace("$pool", ".*"))));
            collect(&panel["panels"], file, queries);
        }
    }
    let mut queries = Vec::new();
    for entry in fs::read_dir(in_repository("monitoring/grafana-dashboards"))? {
        let path = entry?.path();
        let dashboard: Value = serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        collect(&dashboard["panels"], &path.file_name().unwrap_or_default().to_string_lossy(), &mut queries);
    }
    Ok(queries)
}

async fn recordings(bed: &Bed) -> Result<Vec<Query>> {
    let text = |rule: &Value, key: &str| rule[key].as_str().unwrap_or_default().to_owned();
    Ok(rules(bed, "recording").await?.iter().map(|rule| (text(rule, "name"), text(rule, "query"))).collect())
}

/// The rules of a kind, once each has been evaluated.
async fn rules(bed: &Bed, kind: &str) -> Result<Vec<Value>> {
    until("all rules to be evaluated", Duration::from_secs(60), async || {
        let all = bed.prometheus.all_rules().await?;
        let waits = all.iter().filter(|rule| rule["health"] == "unknown").count();
        let chosen = all.into_iter().filter(|rule| rule["type"] == kind).collect();
        Ok(if waits == 0 { Seen::Done(chosen) } else { Seen::NotYet(format!("{waits} wait")) })
    })
    .await
}
