//! What is bought for pods that want more than room, and what is given back when pods fit on fewer nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::fleet::{LATER, SOON, fleet, launched_since, launches_since, quiet, settled, terminated_since};
use crate::bed::Bed;
use crate::cluster::is_running;
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::exporter::Load;
use crate::offers::{INSTANCE_TYPES, Market, ZONES};
use crate::proxy::call::Call;
use crate::wait::{Seen, holds, until};
use crate::workload::Workload;

/// EC2 bills so many seconds at least.
const LEAST_BILLED: f64 = 60.0;
/// Costs may be so far from the call log's: EC2 tells times in whole seconds, and the daemon that knew the table only
/// took spot to cost the same in all zones.
const TOLERANCE: f64 = 0.05;

/// A pool gets what pods need that must lie evenly over the zones, apart from each other, or where their volume is; pods
/// below the cutoff of priorities get nothing bought.
pub async fn mixed_pods(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 2, max: 12, scale_down: false, up_sustain: "10m".to_owned(), ..Configuration::default() };
    let daemon = fleet(bed, &configuration).await?;
    let mark = bed.proxy.mark();
    bed.cluster.make_volume("data", ZONES[1]).await?;
    bed.cluster.make_priority_class("placeholder", -100).await?;
    let is = |app: &str| json!({"matchLabels": {"app": app}});
    let evenly = json!([{"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": is("even")}]);
    let apart = json!([{"topologyKey": "kubernetes.io/hostname", "labelSelector": is("apart")}]);
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": apart}});
    let volume = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    bed.cluster.apply(&Workload::new("even", 5, "900m", "64Mi").with("topologySpreadConstraints", evenly)).await?;
    bed.cluster.apply(&Workload::new("apart", 4, "200m", "64Mi").with("affinity", apart)).await?;
    bed.cluster.apply(&Workload::new("bound", 1, "1500m", "64Mi").with("volumes", volume)).await?;
    let mut places: BTreeMap<&str, Vec<Pod>> = BTreeMap::new();
    for (workload, pods) in [("even", 5), ("apart", 4), ("bound", 1)] {
        places.insert(workload, bed.cluster.wait_for_running(workload, pods, LATER).await?);
    }
    quiet(&daemon).await?;

    let zones = zones_of_nodes(bed).await?;
    let zone = |pod: &Pod| zones.get(node(pod)).cloned().unwrap_or_default();
    let mut even: BTreeMap<String, usize> = ZONES.iter().map(|zone| ((*zone).to_owned(), 0)).collect();
    places["even"].iter().for_each(|pod| *even.entry(zone(pod)).or_default() += 1);
    ensure!(even.values().max() <= even.values().min().map(|least| least + 1).as_ref(), "the pods lie unevenly: {even:?}");
    let hosts: BTreeSet<&str> = places["apart"].iter().map(node).collect();
    ensure!(hosts.len() == 4, "four pods that must lie apart are on {hosts:?}");
    ensure!(zone(&places["bound"][0]) == ZONES[1], "the volume is in {}, and its pod in {}", ZONES[1], zone(&places["bound"][0]));
    let bought = launched_since(bed, mark);
    println!("  {bought} nodes bought for 10 pods that are particular");
    // Of 900m two fit on a node, and 1500m and 900m do not.
    ensure!((2..=4).contains(&bought), "{bought} nodes were bought: 7.3 cores need four nodes of 1.9, and three in one zone are not even");

    let mark = bed.proxy.mark();
    let placeholder = Workload::new("placeholder", 20, "1500m", "64Mi").with("priorityClassName", "placeholder".into());
    bed.cluster.apply(&placeholder).await?;
    until("placeholders that find no room", SOON, async || {
        let waiting = bed.cluster.pods("placeholder").await?.iter().filter(|pod| !is_running(pod)).count();
        Ok(if waiting > 0 { Seen::Done(()) } else { Seen::NotYet("none".to_owned()) })
    })
    .await?;
    holds("nothing is bought for placeholders", Duration::from_secs(6), async || {
        Ok(if launches_since(bed, mark).is_empty() { Seen::Done(()) } else { Seen::NotYet("a launch".to_owned()) })
    })
    .await?;
    settled(bed, &daemon).await?;
    Ok(())
}

/// Three nodes that are half empty become two, at a load at which the pool is not idle, and with a budget honoured.
pub async fn three_half_empty_nodes_become_two(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 2, max: 6, ..Configuration::default().hasty() };
    let mut daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    // One for each node, and beside it there is room for one of the others.
    bed.cluster.apply(&Workload::new("filling", 3, "1000m", "64Mi")).await?;
    bed.cluster.wait_for_running("filling", 3, SOON).await?;
    quiet(&daemon).await?;
    bed.cluster.apply(&Workload::new("half", 3, "700m", "64Mi").ending_in("2s")).await?;
    bed.cluster.keep_available("half", 2).await?;
    let pods = bed.cluster.wait_for_running("half", 3, SOON).await?;
    bed.cluster.remove("filling").await?;
    let nodes: BTreeSet<&str> = pods.iter().map(node).collect();
    ensure!(nodes.len() == 3, "the pods are not one for each node: {nodes:?}");
    daemon.terminate(SOON).await?;

    // Above the 30 % at which a pool is idle; two nodes would have 57 %, and three pods of 700m fit on two nodes.
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.38, memory: 0.2 });
    let more = "[consolidation]\nsustain = \"5s\"\n".to_owned();
    let toml = Configuration { more, ..configuration }.toml(bed);
    let mark = bed.proxy.mark();
    let mut daemon = bed.start_daemon("beta", &toml)?;
    daemon.ready(SOON).await?;
    let mut fewest = usize::MAX;
    until("two nodes", LATER, async || {
        let pods = bed.cluster.pods("half").await?;
        fewest = fewest.min(pods.iter().filter(|pod| is_running(pod) && pod.metadata.deletion_timestamp.is_none()).count());
        let left = bed.cluster.workers().await?.len();
        Ok(if left == 2 { Seen::Done(()) } else { Seen::NotYet(format!("{left} nodes")) })
    })
    .await?;
    ensure!(fewest >= 2, "the budget asks for two pods, and {fewest} ran");
    bed.cluster.wait_for_running("half", 3, SOON).await?;
    let ledger = settled(bed, &daemon).await?;
    let retired = ledger.of("retire", "done");
    ensure!(retired.len() == 1 && terminated_since(bed, mark).len() == 1, "one node was to go: {:?}", ledger.operations);
    let reason = retired[0].body["order"]["reason"].to_string();
    ensure!(reason.contains("consolidated"), "it went for another reason: {reason}");
    let price = |status: &Value, key: &str| status["plan"]["pools"][0][key].as_u64();
    let status = daemon.get_json("/api/v1/status").await?;
    ensure!(price(&status, "price").context("the price")? > 0, "{status}");
    println!("  three nodes became two; never fewer than {fewest} of 3 pods ran");
    holds("the fleet rests", Duration::from_secs(8), async || {
        let left = bed.cluster.workers().await?.len();
        Ok(if left == 2 && launched_since(bed, mark) == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{left} nodes")) })
    })
    .await
}

/// The pool's only on-demand node may be spot after all: its successor comes first, then its pod moves, and it goes.
pub async fn a_dear_node_is_replaced(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 4, spot_share: 1.0, ..Configuration::default().hasty() };
    let mut daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    bed.cluster.apply(&Workload::new("web", 2, "1000m", "64Mi").ending_in("2s")).await?;
    bed.cluster.wait_for_running("web", 2, SOON).await?;
    quiet(&daemon).await?;
    let dear = bed.cluster.workers().await?;
    ensure!(dear.len() == 2, "not one node for each pod: {:?}", dear.keys());
    daemon.terminate(SOON).await?;

    // With three nodes, too: the two that stay have 68 % then, which asks for no more.
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.45, memory: 0.2 });
    let toml = Configuration { on_demand_base: 0, replacement: true, read_prices: true, ..configuration }.toml(bed);
    let mark = bed.proxy.mark();
    let mut daemon = bed.start_daemon("beta", &toml)?;
    daemon.ready(SOON).await?;
    let mut most = 0;
    until("the on-demand node's end", LATER, async || {
        most = most.max(bed.cluster.workers().await?.len());
        Ok(if terminated_since(bed, mark).len() == 1 { Seen::Done(()) } else { Seen::NotYet(format!("{most} nodes")) })
    })
    .await?;
    ensure!(most == 3, "the successor did not come before the end: {most} nodes at most");
    bed.cluster.wait_for_running("web", 2, SOON).await?;
    let ledger = settled(bed, &daemon).await?;
    let (bought, retired) = (ledger.of("launch", "done"), ledger.of("retire", "done"));
    let successors: Vec<_> = bought.iter().filter(|launch| launch.body["order"]["reason"]["why"] == "successor").collect();
    ensure!(successors.len() == 1 && successors[0].body["order"]["market"] == "spot", "{:?}", ledger.operations);
    let (zone, price) = (&successors[0].body["order"]["zone"], &successors[0].body["order"]["price"]);
    let kind = successors[0].body["order"]["instance_types"][0].as_str().unwrap_or_default();
    let told = INSTANCE_TYPES[kind].price(Market::Spot, zone.as_str().unwrap_or_default());
    ensure!(price.as_f64().is_some_and(|price| (price / 1e6 - told).abs() < 2e-6), "spot costs {told} in {zone}, and not {price}");
    ensure!(retired.len() == 1 && retired[0].body["order"]["market"] == "on-demand", "{:?}", ledger.operations);
    ensure!(retired[0].body["order"]["reason"]["cause"] == "cheaper", "{}", retired[0].body);
    let status = daemon.get_json("/api/v1/status").await?;
    println!("  the on-demand node is spot now: {} micro-dollars an hour", status["plan"]["pools"][0]["price"]);
    holds("the fleet rests", Duration::from_secs(8), async || {
        let left = bed.cluster.workers().await?.len();
        Ok(if left == 2 && launched_since(bed, mark) == 1 { Seen::Done(()) } else { Seen::NotYet(format!("{left} nodes")) })
    })
    .await?;
    costs_what_the_calls_come_to(bed, &daemon).await
}

/// The report of costs says what the call log comes to: each instance from its launch to its end, a minute at least, at
/// the prices that the bed serves.
async fn costs_what_the_calls_come_to(bed: &Bed, daemon: &Daemon) -> Result<()> {
    let cost = daemon.get_json("/api/v1/cost").await?["cost"].take();
    let as_of: Timestamp = cost["as_of"].as_str().context("up to when the costs are known")?.parse()?;
    ensure!(cost["unpriced_node_seconds"] == 0, "{cost}");
    let launches = launches_since(bed, 0);
    let ends = bed.proxy.calls_of("TerminateInstances");
    let mut known = bed.joiner.instances().await?;
    known.retain(|instance| instance.tags.get("node-fleet.io/cluster").is_some_and(|tag| *tag == bed.cluster_id));
    let (mut expected, mut ended) = (0.0, 0);
    for instance in &known {
        let launch = launches.iter().find(|call| call.instances.contains(&instance.id));
        let begin = launch.with_context(|| format!("no call has launched {}", instance.id))?.wall;
        let ends_it = |call: &&Call| call.took_effect() && call.under("InstanceId.").values().any(|id| *id == instance.id);
        let end = ends.iter().find(ends_it).map(|call| call.wall);
        // A later report has the end; this one is of seconds after it.
        ensure!(end.is_none_or(|end| end < as_of), "the report is of {as_of}, and {} has ended later", instance.id);
        let lived = end.unwrap_or(as_of).duration_since(begin).as_secs_f64();
        let billed = if end.is_some() { lived.max(LEAST_BILLED) } else { lived };
        let market = if instance.is_spot { Market::Spot } else { Market::OnDemand };
        let kind = INSTANCE_TYPES.get(&instance.kind).with_context(|| format!("no price of {}", instance.kind))?;
        expected += kind.price(market, &instance.zone) * billed / 3600.0;
        ended += usize::from(end.is_some());
    }
    ensure!((known.len(), ended) == (3, 1), "{} instances, {ended} of which have ended: {known:?}", known.len());
    let totals = cost["totals"].as_array().context("the costs of each kind")?;
    let told: f64 = totals.iter().filter_map(|series| series["dollars"].as_f64()).sum();
    println!("  {} instances have cost ${told:.6}, and ${expected:.6} by the call log", known.len());
    ensure!((told - expected).abs() <= TOLERANCE * expected, "the report says ${told:.6}, and the calls come to ${expected:.6}: {cost}");
    Ok(())
}

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

async fn zones_of_nodes(bed: &Bed) -> Result<BTreeMap<String, String>> {
    let workers = bed.cluster.workers().await?;
    let zone = |node: &k8s_openapi::api::core::v1::Node| node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").cloned();
    Ok(workers.iter().map(|(name, node)| (name.clone(), zone(node).unwrap_or_default())).collect())
}
