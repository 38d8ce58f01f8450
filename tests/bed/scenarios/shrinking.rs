//! What makes the fleet shrink, and what must not.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::fleet::{LATER, SOON, Timeline, fleet, journal, launched_since, quiet, terminated_since, termination};
use crate::bed::{Bed, SERVER_NODE};
use crate::cluster::{is_cordoned, is_running};
use crate::configuration::Configuration;
use crate::exporter::{Ailment, Load};
use crate::proxy::faults::When;
use crate::wait::{Seen, holds, until};
use crate::workload::Workload;

const KEEP: &str = "node-fleet.io/do-not-remove";

/// Load falls: the right nodes go, one after the other, with the budget honoured; those that must stay, stay.
pub async fn load_falls(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { max: 6, ..Configuration::default().hasty() };
    let daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    let filling = Workload::new("filling", 6, "1500m", "256Mi");
    bed.cluster.apply(&filling).await?;
    let running = bed.cluster.wait_for_running("filling", 6, SOON).await?;
    quiet(&daemon).await?;
    let workers: Vec<String> = bed.cluster.workers().await?.into_keys().collect();
    ensure!(workers.len() == 6 && running.len() == 6, "6 pods need 6 nodes: {workers:?}");
    let (kept, critical) = (&workers[0], &workers[1]);
    bed.cluster.annotate_node(kept, KEEP, Some("true")).await?;
    let on = |node: &String| serde_json::json!({"kubernetes.io/hostname": node});
    let vip = Workload::new("vip", 1, "50m", "64Mi").with("priorityClassName", "system-cluster-critical".into());
    bed.cluster.apply(&vip.with("nodeSelector", on(critical))).await?;
    bed.cluster.wait_for_running("vip", 1, SOON).await?;
    bed.cluster.apply(&Workload::new("web", 6, "150m", "64Mi").ending_in("1s")).await?;
    bed.cluster.keep_available("web", 5).await?;
    bed.cluster.wait_for_running("web", 6, SOON).await?;

    drop(daemon);
    let mark = bed.proxy.mark();
    let timeline = Timeline::start(&bed.cluster);
    let daemon = bed.start_daemon("alpha", &configuration.toml(bed))?;
    bed.cluster.remove("filling").await?;
    let mut fewest = usize::MAX;
    until("the fleet at its minimum", Duration::from_secs(150), async || {
        let web = bed.cluster.pods("web").await?.iter().filter(|pod| is_running(pod)).count();
        fewest = fewest.min(web);
        let left = bed.cluster.workers().await?.len();
        Ok(if left == 2 { Seen::Done(()) } else { Seen::NotYet(format!("{left} workers, {web} pods of web")) })
    })
    .await?;
    ensure!(fewest >= 5, "the budget keeps 5 pods, and {fewest} ran");
    holds("the minimum", Duration::from_secs(8), async || {
        let left = bed.cluster.workers().await?.len();
        Ok(if left == 2 { Seen::Done(()) } else { Seen::NotYet(format!("{left} workers")) })
    })
    .await?;
    let left: BTreeSet<String> = bed.cluster.workers().await?.into_keys().collect();
    ensure!(left == BTreeSet::from([kept.clone(), critical.clone()]), "the wrong nodes stayed: {left:?}, not {kept} and {critical}");
    bed.cluster.wait_for_running("web", 6, SOON).await?;
    ensure!(launched_since(bed, mark) == 0, "something was bought while the load fell");

    let lives = timeline.end().await?;
    for call in bed.proxy.calls_of("TerminateInstances").iter().filter(|call| call.number > mark) {
        for id in call.under("InstanceId.").values() {
            let life = lives.get(&format!("worker-{id}")).with_context(|| format!("{id} was no worker"))?;
            ensure!(
                life.cordoned.is_some_and(|at| at < call.at + Duration::from_millis(100)),
                "{id} was terminated before its cordon was seen"
            );
            ensure!(life.gone.is_some(), "the node of {id} is still there");
        }
    }
    ensure!(terminated_since(bed, mark).len() == 4, "4 were to go: {:?}", terminated_since(bed, mark));
    ensure!(lives.get(SERVER_NODE).is_some_and(|life| life.cordoned.is_none() && life.gone.is_none()), "the server was touched");
    drop(daemon);
    Ok(())
}

/// Prometheus is down, or its answers are empty, stale or partial: nothing is given back, and pods are served all the same.
pub async fn blind_is_careful(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { max: 8, ..Configuration::default().hasty() };
    let daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    bed.cluster.apply(&Workload::new("shop", 4, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 4, SOON).await?;
    quiet(&daemon).await?;
    bed.cluster.scale("shop", 1).await?;
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.05, memory: 0.1 });
    drop(daemon);
    let first = bed.cluster.workers().await?.into_keys().next().context("no worker")?;
    let mark = bed.proxy.mark();

    bed.prometheus.stop();
    let daemon = bed.start_daemon("alpha", &configuration.toml(bed))?;
    careful(bed, mark, "while Prometheus is down").await?;
    bed.exporter.set_ailment_of_all(Some(Ailment::Absent));
    bed.prometheus.restart()?;
    bed.prometheus.ready().await?;
    careful(bed, mark, "while Prometheus has no node").await?;
    bed.exporter.set_ailment_of_all(None);
    bed.exporter.set_ailment(&first, Some(Ailment::Absent));
    careful(bed, mark, "while one node is missing").await?;
    bed.exporter.set_ailment_of_all(Some(Ailment::Frozen));
    tokio::time::sleep(Duration::from_secs(1)).await;
    careful(bed, mark, "while the samples are stale").await?;

    let before = launched_since(bed, mark);
    bed.cluster.scale("shop", 5).await?;
    bed.cluster.wait_for_running("shop", 5, SOON).await?;
    ensure!(launched_since(bed, mark) == before + 1, "the fifth pod needed one node");
    ensure!(daemon.metric("node_fleet_holds", &["bad_data"]).await?.is_some(), "no metric says that the data is bad");

    // And that it was the data that held it:
    bed.cluster.scale("shop", 1).await?;
    bed.exporter.set_ailment_of_all(None);
    let gone = termination(bed, mark, LATER).await?;
    println!("  with good data again, {gone} was given back");
    Ok(())
}

async fn careful(bed: &Bed, mark: usize, what: &str) -> Result<()> {
    holds(&format!("nothing goes {what}"), Duration::from_secs(9), async || {
        let cordoned: Vec<String> =
            bed.cluster.workers().await?.iter().filter(|(_, node)| is_cordoned(node)).map(|(name, _)| name.clone()).collect();
        let gone = terminated_since(bed, mark);
        Ok(if cordoned.is_empty() && gone.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("{cordoned:?} {gone:?}")) })
    })
    .await
}

/// A budget forbids the drain for ever: back into service after the limit, reported, and another node is chosen.
pub async fn drain_rolls_back(bed: &mut Bed) -> Result<()> {
    let configuration =
        Configuration { min: 1, max: 4, drain_timeout: "6s".to_owned(), node_rest: "60s".to_owned(), ..Configuration::default().hasty() };
    let (daemon, stuck, mark) = stuck_drain(bed, &configuration).await?;
    let cordoned = Instant::now();
    until("the node to be back in service", Duration::from_secs(30), async || {
        let node = bed.cluster.node(&stuck).await?.context("the node is gone")?;
        Ok(if is_cordoned(&node) { Seen::NotYet("it is still cordoned".to_owned()) } else { Seen::Done(()) })
    })
    .await?;
    let after = cordoned.elapsed().as_secs_f64();
    println!("  back in service {after:.1} s after the drain began, with a limit of 6 s");
    ensure!((4.0..12.0).contains(&after), "{after} s");
    until("the metric of rollbacks", SOON, async || {
        let value = daemon.metric("node_fleet_drain_rollbacks_total", &[]).await?;
        Ok(if value == Some(1.0) { Seen::Done(()) } else { Seen::NotYet(format!("{value:?}")) })
    })
    .await?;
    bed.cluster.remove_budget("web").await?;
    let other = termination(bed, mark, LATER).await?;
    ensure!(format!("worker-{other}") != stuck, "the stuck node was terminated all the same");
    let node = bed.cluster.node(&stuck).await?.context("the node is gone")?;
    ensure!(!is_cordoned(&node), "the stuck node is cordoned again while it rests");
    Ok(())
}

/// The same with `force`: terminated at the limit.
pub async fn drain_is_forced(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration {
        min: 1,
        max: 4,
        drain_timeout: "6s".to_owned(),
        on_drain_timeout: "force".to_owned(),
        ..Configuration::default().hasty()
    };
    let (_daemon, stuck, mark) = stuck_drain(bed, &configuration).await?;
    let began = Instant::now();
    let gone = termination(bed, mark, Duration::from_secs(30)).await?;
    ensure!(format!("worker-{gone}") == stuck, "{gone} went instead of {stuck}");
    println!("  terminated {:.1} s after the drain began, with a limit of 6 s", began.elapsed().as_secs_f64());
    bed.cluster.wait_for_node(&stuck, "to be gone", SOON, |node| node.is_none()).await
}

/// A fleet of three nodes whose first drain meets a budget that forbids every eviction from that moment on.
/// The node's name, and the mark before its retirement.
async fn stuck_drain(bed: &mut Bed, configuration: &Configuration) -> Result<(crate::daemon::Daemon, String, usize)> {
    let daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    bed.cluster.apply(&Workload::new("filling", 3, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("filling", 3, SOON).await?;
    quiet(&daemon).await?;
    // Each node gets a pod, so that whichever is chosen has one to evict.
    bed.cluster
        .apply(&Workload::new("web", 3, "150m", "64Mi").with(
            "topologySpreadConstraints",
            serde_json::json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"app": "web"}}}]),
        ))
        .await?;
    bed.cluster.wait_for_running("web", 3, SOON).await?;
    drop(daemon);
    let mark = bed.proxy.mark();
    let hold = bed.proxy.faults.hold(journal("retire", "draining"), When::Before);
    let daemon = bed.start_daemon("alpha", &configuration.toml(bed))?;
    bed.cluster.remove("filling").await?;
    hold.reached(LATER).await.context("no drain began")?;
    bed.cluster.allow_unavailable("web", 0).await?;
    until("the budget to forbid everything", SOON, async || {
        let allowed = bed.cluster.allowed_disruptions("web").await?;
        Ok(if allowed == Some(0) { Seen::Done(()) } else { Seen::NotYet(format!("{allowed:?}")) })
    })
    .await?;
    hold.release();
    let stuck = until("a cordoned node", SOON, async || {
        let workers = bed.cluster.workers().await?;
        let cordoned = workers.iter().find(|(_, node)| is_cordoned(node)).map(|(name, _)| name.clone());
        Ok(cordoned.map_or_else(|| Seen::NotYet("none".to_owned()), Seen::Done))
    })
    .await?;
    let pods = bed.cluster.pods_on(&stuck).await?;
    ensure!(pods.iter().any(is_running), "nothing runs on {stuck}, so nothing hinders its drain");
    Ok((daemon, stuck, mark))
}
