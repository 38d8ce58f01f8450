//! What makes the fleet shrink, and what must not.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::fleet::{
    LATER, SOON, faces, finding, fleet, journal, launched_since, pause, quiet, resume, settled, terminated_since, termination,
};
use crate::bed::{Bed, SERVER_NODE};
use crate::cluster::{is_cordoned, is_running};
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::exporter::{Ailment, Load};
use crate::proxy::call::Call;
use crate::proxy::faults::{Hold, Matcher, When};
use crate::wait::{Seen, holds, until};
use crate::workload::Workload;
use crate::wrong_clock::WrongClock;

const KEEP: &str = "node-fleet.io/do-not-remove";

/// How many nodes a fleet has before the load falls.
const CROWD: usize = 6;

/// Removals within seconds, of nodes that differ by their load alone.
fn alike(min: u32, max: u32) -> Configuration {
    Configuration { min, max, on_demand_base: 0, spot_share: 1.0, ..Configuration::default().hasty() }
}

/// Load falls: the least loaded node goes first, with the budget honoured, down to the minimum and no further.
pub async fn load_falls(bed: &mut Bed) -> Result<()> {
    let configuration = alike(2, 6);
    let crowd = Crowd::gather(bed, &configuration).await?;
    let kept = crowd.nodes[0].clone();
    bed.cluster.annotate_node(&kept, KEEP, Some("true")).await?;
    let (daemon, left) = crowd.shrink(bed, &configuration, &BTreeSet::from([kept.clone()]), 2).await?;
    ensure!(left.contains(&kept), "{kept} was to stay: {left:?}");
    held(&daemon, "at_minimum").await
}

/// The same where more nodes must stay than the minimum asks for: an annotated one, one with a critical
/// pod, and one with a pod that is not safe to evict.
pub async fn protected_nodes_stay(bed: &mut Bed) -> Result<()> {
    // With a minimum of two the last node in a zone would stay besides.
    let configuration = alike(1, 6);
    let crowd = Crowd::gather(bed, &configuration).await?;
    let [kept, critical, unsafe_to_evict] = [0, 1, 2].map(|index: usize| crowd.nodes[index].clone());
    bed.cluster.annotate_node(&kept, KEEP, Some("true")).await?;
    let on = |node: &String| json!({"kubernetes.io/hostname": node});
    let vip = Workload::new("vip", 1, "50m", "16Mi").with("priorityClassName", "system-cluster-critical".into());
    bed.cluster.apply(&vip.with("nodeSelector", on(&critical))).await?;
    let fragile = Workload::new("fragile", 1, "50m", "16Mi").annotated("cluster-autoscaler.kubernetes.io/safe-to-evict", "false");
    bed.cluster.apply(&fragile.with("nodeSelector", on(&unsafe_to_evict))).await?;
    bed.cluster.wait_for_running("vip", 1, SOON).await?;
    bed.cluster.wait_for_running("fragile", 1, SOON).await?;
    let protected = BTreeSet::from([kept, critical, unsafe_to_evict]);
    let (daemon, left) = crowd.shrink(bed, &configuration, &protected, 3).await?;
    ensure!(left == protected, "the wrong nodes stayed: {left:?}, not {protected:?}");
    held(&daemon, "no_candidate").await
}

/// Waits until this is what keeps the pool from getting smaller.
async fn held(daemon: &Daemon, hold: &str) -> Result<()> {
    let found = |status: &Value| (finding(status, "scale_down")?["hold"]["hold"] == hold).then_some(());
    daemon.wait_for_status(&format!("no removal, for {hold}"), SOON, found).await
}

/// A fleet whose nodes carry less and less, the first the most.
struct Crowd {
    nodes: Vec<String>,
}

impl Crowd {
    /// Fills the nodes with pods that will go, and gives each its own share of pods that stay.
    async fn gather(bed: &mut Bed, configuration: &Configuration) -> Result<Self> {
        let daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
        bed.cluster.apply(&Workload::new("filling", CROWD, "1500m", "256Mi")).await?;
        bed.cluster.wait_for_running("filling", CROWD, SOON).await?;
        quiet(&daemon).await?;
        let nodes: Vec<String> = bed.cluster.workers().await?.into_keys().collect();
        ensure!(nodes.len() == CROWD, "{CROWD} pods need {CROWD} nodes: {nodes:?}");
        for (index, node) in nodes.iter().enumerate() {
            let likes = json!({"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]});
            let likes = json!([{"weight": 100, "preference": likes}]);
            let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": likes}});
            let workload = Workload::new(&ballast(index), 1, &format!("{}m", ballast_milli_cpu(index)), "16Mi");
            bed.cluster.apply(&workload.with("affinity", affinity)).await?;
        }
        bed.cluster.apply(&Workload::new("web", CROWD, &format!("{WEB_MILLI_CPU}m"), "16Mi").ending_in("1s")).await?;
        bed.cluster.keep_available("web", CROWD - 1).await?;
        bed.cluster.wait_for_running("web", CROWD, SOON).await?;
        for index in 0..CROWD {
            bed.cluster.wait_for_running(&ballast(index), 1, SOON).await?;
        }
        Ok(Self { nodes })
    }

    /// Lets the load fall, and looks at every removal at its last moment, until so many nodes are left.
    async fn shrink(
        &self,
        bed: &mut Bed,
        configuration: &Configuration,
        protected: &BTreeSet<String>,
        left: usize,
    ) -> Result<(Daemon, BTreeSet<String>)> {
        let loads = self.loads(bed).await?;
        let lightest = loads.iter().filter(|(node, _)| !protected.contains(*node)).min_by_key(|(_, load)| **load);
        let lightest = lightest.context("every node is protected")?.0.clone();
        let first = self.nodes.iter().find(|node| !protected.contains(*node));
        ensure!(first != Some(&lightest), "the lightest is the first by name, which proves nothing: {loads:?}");
        let (mark, server) = (bed.proxy.mark(), faces(&bed.cluster).await?.remove(SERVER_NODE));
        let begun = Timestamp::now();
        let hold = bed.proxy.faults.hold(Matcher::action("TerminateInstances"), When::Before);
        let daemon = bed.start_daemon("alpha", &configuration.toml(bed))?;
        bed.cluster.remove("filling").await?;
        let (gone, ()) = tokio::try_join!(removals(bed, hold, CROWD - left), served(bed, left))?;
        ensure!(gone.first() == Some(&lightest), "{gone:?} went in this order, and {lightest} is the lightest: {loads:?}");
        holds("so many nodes", Duration::from_secs(8), async || {
            let now = bed.cluster.workers().await?.len();
            Ok(if now == left { Seen::Done(()) } else { Seen::NotYet(format!("{now} workers")) })
        })
        .await?;
        bed.cluster.wait_for_running("web", CROWD, SOON).await?;
        ensure!(launched_since(bed, mark) == 0, "something was bought while the load fell");
        ensure!(terminated_since(bed, mark).len() == gone.len(), "{:?} were terminated", terminated_since(bed, mark));
        ensure!(faces(&bed.cluster).await?.remove(SERVER_NODE) == server, "the server was touched");

        let ledger = settled(bed, &daemon).await?;
        let done = ledger.of("retire", "done");
        ensure!(done.iter().all(|operation| operation.epoch == 2 && operation.why() == "underused"), "{done:?}");
        let names: BTreeSet<&str> = done.iter().filter_map(|operation| operation.node()).collect();
        let expected: BTreeSet<&str> = gone.iter().map(String::as_str).collect();
        ensure!(names == expected, "the journal has removed {names:?}, and not {gone:?}");
        ensure!(ledger.of("launch", "done").iter().all(|operation| operation.epoch == 1), "{:?}", ledger.operations);
        ensure!(ledger.last_scale()? > begun, "last scaled at {:?}, before {begun}", ledger.state.last_scale_time);
        Ok((daemon, bed.cluster.workers().await?.into_keys().collect()))
    }

    /// What the pods that stay ask for on each node, in thousandths of a core.
    async fn loads(&self, bed: &Bed) -> Result<BTreeMap<String, u32>> {
        let mut loads: BTreeMap<String, u32> = self.nodes.iter().map(|node| (node.clone(), 0)).collect();
        let ballasts = (0..CROWD).map(|index| (ballast(index), ballast_milli_cpu(index)));
        for (workload, milli_cpu) in ballasts.chain([("web".to_owned(), WEB_MILLI_CPU)]) {
            for pod in bed.cluster.pods(&workload).await? {
                let node = pod.spec.and_then(|spec| spec.node_name).context("a pod without a node")?;
                *loads.get_mut(&node).with_context(|| format!("{node} is no worker"))? += milli_cpu;
            }
        }
        Ok(loads)
    }
}

/// What one pod of the web asks for.
const WEB_MILLI_CPU: u32 = 50;

fn ballast(index: usize) -> String {
    format!("ballast-{index}")
}

/// No two sums of a ballast and some pods of the web are the same.
fn ballast_milli_cpu(index: usize) -> u32 {
    [186, 155, 124, 93, 62, 31][index]
}

/// Holds each termination until it has looked at the node, and gives the nodes in their order.
async fn removals(bed: &Bed, first: Hold, count: usize) -> Result<Vec<String>> {
    let mut gone = Vec::new();
    let mut hold = Some(first);
    while let Some(held) = hold.take() {
        let call = held.reached(LATER).await.with_context(|| format!("after {gone:?} no more went"))?;
        let node = format!("worker-{}", call.parameter("InstanceId.1").context("a termination of nothing")?);
        let found = bed.cluster.node(&node).await?.with_context(|| format!("{node} is gone before its instance"))?;
        let pods = bed.cluster.pods_on(&node).await?;
        ensure!(is_cordoned(&found) && pods.is_empty(), "{node} is terminated with {} pods, cordoned: {}", pods.len(), is_cordoned(&found));
        gone.push(node);
        // The next one before this one goes on, so that none slips through.
        hold = (gone.len() < count).then(|| bed.proxy.faults.hold(Matcher::action("TerminateInstances"), When::Before));
        held.release();
    }
    Ok(gone)
}

/// Watches that enough pods of the web and enough nodes are there until so many nodes are left.
async fn served(bed: &Bed, left: usize) -> Result<()> {
    let mut fewest = usize::MAX;
    until("the fleet to be small", Duration::from_secs(180), async || {
        let web = bed.cluster.pods("web").await?.iter().filter(|pod| is_running(pod)).count();
        fewest = fewest.min(web);
        let workers = bed.cluster.workers().await?.len();
        Ok(if workers <= left { Seen::Done(()) } else { Seen::NotYet(format!("{workers} workers, {web} pods of web")) })
    })
    .await?;
    ensure!(fewest >= CROWD - 1, "the budget keeps {} pods, and {fewest} ran", CROWD - 1);
    Ok(())
}

/// Prometheus is down, or its answers are empty, partial, stale, no numbers or from the future: nothing is given
/// back, and pods are served all the same.
pub async fn blind_is_careful(bed: &mut Bed) -> Result<()> {
    // So wide a window that the samples that are late fill most of it.
    let configuration = Configuration { max: 12, rate_window: "30s".to_owned(), ..Configuration::default().hasty() };
    let daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    bed.cluster.apply(&Workload::new("shop", 4, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 4, SOON).await?;
    quiet(&daemon).await?;
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.05, memory: 0.1 });
    pause(&daemon, "between two faults").await?;
    drop(daemon);
    let mut daemon = bed.start_daemon("alpha", &configuration.toml(bed))?;
    daemon.ready(SOON).await?;
    bed.cluster.scale("shop", 1).await?;
    sighted(&daemon).await?;

    bed.prometheus.stop();
    careful(bed, &daemon, "while Prometheus is down", "the source does not answer").await?;
    bed.prometheus.restart()?;
    bed.prometheus.ready().await?;
    sighted(&daemon).await?;

    bed.exporter.set_ailment_of_all(Some(Ailment::Absent));
    careful(bed, &daemon, "while Prometheus knows no node", "the source has no such value").await?;
    bed.exporter.set_ailment_of_all(None);
    sighted(&daemon).await?;

    let workers: Vec<String> = bed.cluster.workers().await?.into_keys().collect();
    bed.exporter.set_ailment(&workers[0], Some(Ailment::Absent));
    let partial = format!("only {} of {} nodes have usable metrics", workers.len() - 1, workers.len());
    careful(bed, &daemon, "while one node is missing", &partial).await?;
    bed.exporter.set_ailment_of_all(None);
    sighted(&daemon).await?;

    bed.exporter.set_ailment_of_all(Some(Ailment::NotANumber));
    careful(bed, &daemon, "while the memory is no number", "`NaN` makes no sense").await?;
    bed.exporter.set_ailment_of_all(None);
    sighted(&daemon).await?;

    // 5 s is the oldest that is believed.
    bed.exporter.set_ailment_of_all(Some(Ailment::Late(7)));
    careful(bed, &daemon, "while the samples are stale", "is too old").await?;
    bed.exporter.set_ailment_of_all(None);
    sighted(&daemon).await?;

    let clock = WrongClock::start(bed.prometheus.url()).await?;
    clock.set_ahead(60);
    ensure!(daemon.terminate(Duration::from_secs(10)).await? == 0, "SIGTERM did not end it well");
    let daemon = bed.start_daemon("alpha", &Configuration { prometheus: Some(clock.url()), ..configuration }.toml(bed))?;
    careful(bed, &daemon, "while the samples are from the future", "is from the future").await?;
    clock.set_ahead(0);
    sighted(&daemon).await?;

    // And that it was the data that held it:
    let mark = bed.proxy.mark();
    resume(&daemon).await?;
    let gone = termination(bed, mark, LATER).await?;
    println!("  with good data again, {gone} was given back");
    pause(&daemon, "the end").await?;
    let ledger = settled(bed, &daemon).await?;
    ensure!(ledger.state.is_paused && ledger.of("launch", "failed").is_empty(), "{:?}", ledger.operations);
    ensure!(ledger.of("retire", "rolled_back").is_empty() && !ledger.of("retire", "done").is_empty(), "{:?}", ledger.operations);
    Ok(())
}

/// Waits until nothing is held for bad data any more, and the fleet is seen to be idle.
async fn sighted(daemon: &Daemon) -> Result<()> {
    daemon
        .wait_for_status("good data of an idle fleet", LATER, |status| {
            let pool = &status["plan"]["pools"][0];
            let held = finding(status, "scale_down")?["hold"]["hold"] == "bad_data";
            // A node is seen to be busy while its samples do not fill the window.
            (pool["cpu"].as_f64()? < 0.25 && pool["memory"].as_f64()? < 0.25 && !held).then_some(())
        })
        .await
}

/// Waits until the daemon is held for this reason, and then lets it act: pods get their node, and nothing goes.
///
/// It is paused before and afterwards, so that the fault is all that ever keeps an idle fleet as it is.
async fn careful(bed: &Bed, daemon: &Daemon, what: &str, reason: &str) -> Result<()> {
    let hold = |status: &Value| {
        let hold = &finding(status, "scale_down")?["hold"];
        (hold["hold"] == "bad_data").then(|| hold["why"].as_str().unwrap_or_default().to_owned())
    };
    let for_it = |status: &Value| hold(status).filter(|why| why.contains(reason));
    let told = daemon.wait_for_status(&format!("held {what}: {reason}"), Duration::from_secs(30), for_it).await?;
    let mark = bed.proxy.mark();
    resume(daemon).await?;
    let before = bed.cluster.workers().await?.len();
    bed.cluster.scale("shop", before + 1).await?;
    bed.cluster.wait_for_running("shop", before + 1, SOON).await.with_context(|| format!("pods are to be served {what}"))?;
    ensure!(launched_since(bed, mark) == 1, "{what}: one node was needed, and {} were bought", launched_since(bed, mark));
    bed.cluster.scale("shop", 1).await?;
    holds(&format!("nothing goes {what}"), Duration::from_secs(7), async || {
        let cordoned: Vec<String> =
            bed.cluster.workers().await?.iter().filter(|(_, node)| is_cordoned(node)).map(|(name, _)| name.clone()).collect();
        let gone = terminated_since(bed, mark);
        Ok(if cordoned.is_empty() && gone.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("{cordoned:?} {gone:?}")) })
    })
    .await?;
    quiet(daemon).await?;
    daemon.wait_for_status(&format!("still held {what}"), SOON, hold).await?;
    ensure!(daemon.metric("node_fleet_holds", &["bad_data"]).await?.is_some(), "no metric says that the data is bad");
    pause(daemon, "between two faults").await?;
    println!("  {what}: {told:.140}");
    Ok(())
}

/// A budget forbids the drain for ever: back into service after the limit, reported, and another node is chosen.
pub async fn drain_rolls_back(bed: &mut Bed) -> Result<()> {
    let configuration =
        Configuration { min: 1, max: 4, drain_timeout: "6s".to_owned(), node_rest: "60s".to_owned(), ..Configuration::default().hasty() };
    let (daemon, stuck, mark) = stuck_drain(bed, &configuration).await?;
    until("the node to be back in service", Duration::from_secs(30), async || {
        let node = bed.cluster.node(&stuck).await?.context("the node is gone")?;
        Ok(if is_cordoned(&node) { Seen::NotYet("it is still cordoned".to_owned()) } else { Seen::Done(()) })
    })
    .await?;
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
    // The fleet would go on shrinking.
    pause(&daemon, "the end").await?;
    let ledger = settled(bed, &daemon).await?;
    let back = ledger.of("retire", "rolled_back");
    ensure!(back.len() == 1 && back[0].node() == Some(stuck.as_str()), "one drain was to be rolled back: {back:?}");
    let began = time(&entry(bed, mark, "draining", &stuck)?, "since")?;
    let lasted = time(&back[0].body, "updated")?.duration_since(began).as_secs_f64();
    println!("  back in service {lasted:.1} s after the cordon, with a limit of 6 s");
    ensure!((6.0..12.0).contains(&lasted), "rolled back after {lasted} s, with a limit of 6 s");
    ensure!(ledger.of("retire", "done").iter().all(|operation| operation.node() != Some(stuck.as_str())), "{:?}", ledger.operations);
    Ok(())
}

/// The entry of the journal that brought a node's retirement into this state.
fn entry(bed: &Bed, mark: usize, state: &str, node: &str) -> Result<Value> {
    let written = bed.proxy.calls_of("TransactWriteItems").into_iter().filter(|call| call.number > mark && call.took_effect());
    let bodies = written.flat_map(|call| call.parameters).filter(|(key, _)| key.ends_with(".Item.body.S"));
    let mut entries = bodies.filter_map(|(_, text)| serde_json::from_str::<Value>(&text).ok());
    let found = entries.find(|body| body["state"] == state && body["order"]["node"]["name"] == node);
    found.with_context(|| format!("nobody wrote that the retirement of {node} is {state}"))
}

fn time(body: &Value, field: &str) -> Result<Timestamp> {
    body[field].as_str().and_then(|text| text.parse().ok()).with_context(|| format!("{field} is no time: {body}"))
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
    let (daemon, stuck, mark) = stuck_drain(bed, &configuration).await?;
    // What is under way goes on, and nothing else begins.
    pause(&daemon, "the end").await?;
    // The part of EC2 that is asked first does not know the instance: it is asked again, and the instance is not taken for gone.
    bed.proxy.faults.fail_next(Matcher::action("TerminateInstances"), 1, "InvalidInstanceID.NotFound", 400);
    let ends = |call: &Call| call.action == "TerminateInstances" && call.took_effect();
    let end = bed.proxy.wait_for("the termination", mark, Duration::from_secs(30), ends).await?;
    let asked = bed.proxy.calls_of("TerminateInstances").into_iter().filter(|call| call.number > mark).count();
    ensure!(asked == 2, "it was to be asked twice, not {asked} times");
    let gone = terminated_since(bed, mark);
    ensure!(gone.iter().map(|id| format!("worker-{id}")).eq([stuck.clone()]), "{gone:?} went instead of {stuck}");
    let lasted = end.wall.duration_since(time(&entry(bed, mark, "draining", &stuck)?, "since")?).as_secs_f64();
    println!("  terminated {lasted:.1} s after the cordon, with a limit of 6 s");
    ensure!((6.0..12.0).contains(&lasted), "terminated {lasted} s after the cordon, with a limit of 6 s");
    let drained = entry(bed, mark, "drained", &stuck)?;
    ensure!(drained["forced"].as_u64().is_some_and(|pods| pods > 0), "no pod was left, so nothing was forced: {drained}");
    bed.cluster.wait_for_node(&stuck, "to be gone", SOON, |node| node.is_none()).await?;
    let ledger = settled(bed, &daemon).await?;
    let done = ledger.of("retire", "done");
    ensure!(done.len() == 1 && done[0].node() == Some(stuck.as_str()), "{:?}", ledger.operations);
    Ok(())
}

/// A fleet of three nodes whose first drain meets a budget that forbids every eviction from that moment on.
/// The node's name, and the mark before its retirement.
async fn stuck_drain(bed: &mut Bed, configuration: &Configuration) -> Result<(Daemon, String, usize)> {
    let daemon = fleet(bed, &Configuration { scale_down: false, ..configuration.clone() }).await?;
    bed.cluster.apply(&Workload::new("filling", 3, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("filling", 3, SOON).await?;
    quiet(&daemon).await?;
    // Each node gets a pod, so that whichever is chosen has one to evict.
    bed.cluster
        .apply(&Workload::new("web", 3, "150m", "64Mi").with(
            "topologySpreadConstraints",
            json!([{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
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
