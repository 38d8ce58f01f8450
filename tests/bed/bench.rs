//! Figures of the daemon on the bed: how fast, and how large. `tests/run bench` prints them.
//!
//! The times are those of this machine, with the whole control plane beside the daemon on it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::StreamExt;
use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};

use crate::bed::Bed;
use crate::cluster::{NAMESPACE, unschedulable_since};
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::exporter::Load;
use crate::scenarios::fleet::{LATER, SOON, create_table, quiet};
use crate::wait::{Seen, until};
use crate::workload::Workload;

/// The size of the large cluster.
const NODES: u32 = 100;
const PODS: usize = 3000;
/// How often the reaction is measured.
const ROUNDS: usize = 100;
/// The pods of the peers' burst.
const BURST: usize = 1000;

/// One measurement by its name.
type Measurement = (&'static str, fn(&mut Bed) -> LocalBoxFuture<'_, Result<()>>);

/// All of them, in their order.
const ALL: [Measurement; 4] = [
    ("start", |bed| Box::pin(start_and_idle(bed))),
    ("one", |bed| Box::pin(one_pod(bed))),
    ("burst", |bed| Box::pin(burst(bed))),
    ("large", |bed| Box::pin(large(bed))),
];

/// Makes the measurements of these names, all without any, and prints a line for each figure.
pub async fn run(bed: &mut Bed, names: &[String]) -> Result<()> {
    if let Some(unknown) = names.iter().find(|name| !ALL.iter().any(|(known, _)| known == name)) {
        bail!("no measurement is called {unknown}; there are {}", ALL.map(|(name, _)| name).join(", "));
    }
    for (index, (_, measure)) in ALL.iter().filter(|(name, _)| names.is_empty() || names.iter().any(|chosen| chosen == name)).enumerate() {
        if index > 0 {
            bed.reset().await?;
        }
        measure(bed).await?;
    }
    Ok(())
}

/// A configuration whose ticks and removals do not disturb.
fn calm(min: u32, max: u32) -> Configuration {
    let long = || "10m".to_owned();
    Configuration {
        min,
        max,
        interval: long(),
        up_sustain: long(),
        down_sustain: long(),
        up_cooldown: long(),
        down_cooldown: long(),
        join_timeout: "5m".to_owned(),
        ..Configuration::default()
    }
}

async fn start_and_idle(bed: &mut Bed) -> Result<()> {
    let toml = calm(2, 10).toml(bed);
    create_table(bed, &toml).await?;
    let mut times = Vec::new();
    for round in 0..5 {
        let began = Instant::now();
        let mut daemon = bed.start_daemon(&format!("start{round}"), &toml)?;
        daemon.healthy(SOON).await?;
        let healthy = began.elapsed();
        daemon.ready(SOON).await?;
        times.push((healthy, began.elapsed()));
        ensure!(daemon.terminate(Duration::from_secs(10)).await? == 0, "it did not end well");
    }
    let mean =
        |pick: fn(&(Duration, Duration)) -> Duration| times.iter().map(|time| pick(time).as_secs_f64()).sum::<f64>() / times.len() as f64;
    println!("start to healthy {:.2} s, to ready {:.2} s (mean of {})", mean(|time| time.0), mean(|time| time.1), times.len());
    let daemon = bed.start_daemon("idle", &toml)?;
    bed.cluster.wait_for_ready_workers(2, LATER).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("resident memory, idle with 2 nodes: {:.1} MB", megabytes(&daemon)?);
    Ok(())
}

/// The peers' first case: one pod, from Unschedulable to the object of its node, on machines that boot at once.
async fn one_pod(bed: &mut Bed) -> Result<()> {
    let toml = calm(1, 30).toml(bed);
    create_table(bed, &toml).await?;
    bed.joiner.set_boot(Duration::ZERO);
    let daemon = bed.start_daemon("onepod", &toml)?;
    bed.cluster.wait_for_ready_workers(1, LATER).await?;
    let watch = Watch::start(bed);
    let mut times = Vec::new();
    for round in 0..10 {
        quiet(&daemon).await?;
        let nodes: Vec<String> = watch.nodes().into_keys().collect();
        let name = format!("one-{round}");
        bed.cluster.apply(&Workload::new(&name, 1, "1800m", "256Mi")).await?;
        let joined = until("a new node", SOON, async || {
            let new = watch.nodes().into_iter().find(|(node, _)| !nodes.contains(node));
            Ok(new.map_or_else(|| Seen::NotYet("none".to_owned()), |(_, at)| Seen::Done(at)))
        });
        match joined.await {
            Ok(at) => times.push(between(watch.unschedulable(&name).context("the pod found room")?, at)),
            // The first pods find room on the first node.
            Err(_) if round == 0 => {}
            Err(error) => return Err(error),
        }
    }
    println!("one pod, Unschedulable to Node object: {} (the machines boot at once and are looked at every 200 ms)", spread(times));
    Ok(())
}

/// The peers' second case: 1,000 pods of half a core on nodes of 4 cores, to the last node's object.
async fn burst(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { instance_types: vec!["m5.xlarge".to_owned()], ..calm(1, 200) };
    let toml = configuration.toml(bed);
    create_table(bed, &toml).await?;
    bed.joiner.set_boot(Duration::ZERO);
    let daemon = bed.start_daemon("burst", &toml)?;
    bed.cluster.wait_for_ready_workers(1, LATER).await?;
    quiet(&daemon).await?;
    let watch = Watch::start(bed);
    bed.cluster.apply(&Workload::new("burst", BURST, "500m", "64Mi")).await?;
    bed.cluster.wait_for_running("burst", BURST, Duration::from_secs(300)).await?;
    let first = watch.first_unschedulable().context("no pod was unschedulable")?;
    let nodes = watch.nodes();
    let last = nodes.values().max().context("no node")?;
    println!(
        "{BURST} pods, first Unschedulable to the last of {} nodes: {:.1} s; resident memory {:.1} MB",
        nodes.len() - 1,
        last.duration_since(first).as_secs_f64(),
        megabytes(&daemon)?
    );
    Ok(())
}

/// 100 nodes and 3,000 pods: memory, and the time from Unschedulable to CreateFleet.
async fn large(bed: &mut Bed) -> Result<()> {
    let toml = calm(NODES, 300).toml(bed);
    create_table(bed, &toml).await?;
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.5, memory: 0.5 });
    let daemon = bed.start_daemon("large", &toml)?;
    bed.cluster.wait_for_ready_workers(NODES as usize, Duration::from_secs(120)).await?;
    bed.cluster.apply(&Workload::new("many", PODS, "10m", "16Mi")).await?;
    bed.cluster.wait_for_running("many", PODS, Duration::from_secs(300)).await?;
    quiet(&daemon).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("resident memory with {NODES} nodes and {PODS} pods: {:.1} MB", megabytes(&daemon)?);
    let watch = Watch::start(bed);
    let begin = bed.proxy.mark();
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let mark = bed.proxy.mark();
        let name = format!("urgent-{round}");
        // Only a new node has so much room.
        bed.cluster.apply(&Workload::new(&name, 1, "1700m", "64Mi")).await?;
        let call = bed.proxy.wait_for("CreateFleet", mark, SOON, |call| call.action == "CreateFleet").await?;
        let since = until("the condition", SOON, async || {
            Ok(watch.unschedulable(&name).map_or_else(|| Seen::NotYet("not seen".to_owned()), Seen::Done))
        });
        times.push(between(since.await?, call.at));
        bed.cluster.wait_for_running(&name, 1, SOON).await?;
        quiet(&daemon).await?;
    }
    println!("Unschedulable to CreateFleet with {NODES} nodes and {PODS} pods: {}", spread(times));
    let listings = bed.proxy.calls_of("DescribeInstances").into_iter().filter(|call| call.number > begin && call.status.is_some());
    println!("of which the bed's EC2 takes to list the instances: {}", spread(listings.map(|call| call.took.as_secs_f64()).collect()));
    println!("resident memory afterwards: {:.1} MB", megabytes(&daemon)?);
    Ok(())
}

fn megabytes(daemon: &Daemon) -> Result<f64> {
    Ok(daemon.resident_bytes()? as f64 / 1e6)
}

/// Seconds from one moment to another, below zero when the other was seen first.
fn between(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() - from.saturating_duration_since(to).as_secs_f64()
}

/// Median, 99th percentile and longest, in seconds; and how many make no sense, since the bed's own watch was late.
fn spread(mut times: Vec<f64>) -> String {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index below the number of times")]
        let index = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len().max(1)) - 1;
        times.get(index).copied().unwrap_or(f64::NAN)
    };
    let mut text = format!("median {:.3} s, p99 {:.3} s, longest {:.3} s of {}", at(0.5), at(0.99), at(1.0), times.len());
    let early = times.iter().filter(|time| **time < 0.0).count();
    if early > 0 {
        text.push_str(&format!(" ({early} below zero, down to {:.3} s: the watch saw the cause late)", at(0.0)));
    }
    text
}

/// When something was first seen, by a watch of its own: conditions have whole seconds.
#[derive(Clone, Default)]
struct Watch {
    seen: Arc<Mutex<Sightings>>,
}

#[derive(Default)]
struct Sightings {
    /// By workload.
    unschedulable: BTreeMap<String, Instant>,
    nodes: BTreeMap<String, Instant>,
}

impl Watch {
    fn start(bed: &Bed) -> Self {
        let watch = Self::default();
        let pods: Api<Pod> = Api::namespaced(bed.cluster.client.clone(), NAMESPACE);
        let seen = Arc::clone(&watch.seen);
        tokio::spawn(async move {
            let mut events = watcher(pods, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let Ok(pod) = event else { continue };
                let workload = pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).cloned().unwrap_or_default();
                if unschedulable_since(&pod).is_some() {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).unschedulable.entry(workload).or_insert_with(Instant::now);
                }
            }
        });
        let nodes: Api<Node> = Api::all(bed.cluster.client.clone());
        let seen = Arc::clone(&watch.seen);
        tokio::spawn(async move {
            let mut events = watcher(nodes, watcher::Config::default()).default_backoff().applied_objects().boxed();
            while let Some(event) = events.next().await {
                let Ok(node) = event else { continue };
                let name = node.metadata.name.clone().unwrap_or_default();
                seen.lock().unwrap_or_else(PoisonError::into_inner).nodes.entry(name).or_insert_with(Instant::now);
            }
        });
        watch
    }

    fn unschedulable(&self, workload: &str) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).unschedulable.get(workload).copied()
    }

    fn first_unschedulable(&self) -> Option<Instant> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).unschedulable.values().min().copied()
    }

    /// Worker nodes by name.
    fn nodes(&self) -> BTreeMap<String, Instant> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.nodes.iter().filter(|(name, _)| name.starts_with("worker-")).map(|(name, at)| (name.clone(), *at)).collect()
    }
}
