//! What the scenarios share: a fleet at its minimum, calls found in the log, and nodes watched over time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::bed::Bed;
use crate::cluster::{Cluster, is_cordoned, unschedulable_since};
use crate::configuration::Configuration;
use crate::daemon::{Daemon, access_key};
use crate::proxy::call::Call;
use crate::proxy::faults::Matcher;
use crate::wait::{Seen, until};

/// Long enough for what takes a second or two.
pub const SOON: Duration = Duration::from_secs(20);
/// Long enough for a sustain time, a cooldown and a drain.
pub const LATER: Duration = Duration::from_secs(90);
/// The name of the pool.
pub const POOL: &str = "workers";

/// Makes the table, starts a daemon and waits until the pool has its minimum of Ready nodes.
pub async fn fleet(bed: &mut Bed, configuration: &Configuration) -> Result<Daemon> {
    let toml = configuration.toml(bed);
    create_table(bed, &toml).await?;
    let mut daemon = bed.start_daemon("alpha", &toml)?;
    daemon.ready(SOON).await?;
    bed.cluster.wait_for_ready_workers(configuration.min as usize, LATER).await?;
    quiet(&daemon).await?;
    Ok(daemon)
}

/// Makes the ledger's table as an operator does.
pub async fn create_table(bed: &Bed, toml: &str) -> Result<()> {
    let made = bed.run_command(toml, &["check", "--config", "{config}", "--create-table"]).await?;
    ensure!(made.code == 0, "node-fleet check --create-table: {}{}", made.stdout, made.stderr);
    Ok(())
}

/// Waits until no operation is under way.
pub async fn quiet(daemon: &Daemon) -> Result<()> {
    daemon.wait_for_status("no operation under way", LATER, |status| under_way(status).is_empty().then_some(())).await
}

/// The operations that are under way, as the status has them.
pub fn under_way(status: &Value) -> Vec<&Value> {
    let over = ["done", "failed", "rolled_back"];
    let all = status["operations"].as_array().map_or(&[][..], Vec::as_slice);
    all.iter().filter(|operation| !operation["state"].as_str().is_some_and(|state| over.contains(&state))).collect()
}

/// Waits until this daemon leads.
pub async fn leads(daemon: &Daemon, limit: Duration) -> Result<()> {
    daemon.wait_for_status("to lead", limit, |status| (status["role"]["role"] == "leader").then_some(())).await
}

/// The finished CreateFleet calls that took effect after call number `mark`.
pub fn launches_since(bed: &Bed, mark: usize) -> Vec<Call> {
    bed.proxy.launches().into_iter().filter(|call| call.number > mark && call.action == "CreateFleet").collect()
}

/// How many instances were launched after call number `mark`.
pub fn launched_since(bed: &Bed, mark: usize) -> usize {
    launches_since(bed, mark).iter().map(|call| call.instances.len()).sum()
}

/// The instances that calls after `mark` terminated.
pub fn terminated_since(bed: &Bed, mark: usize) -> BTreeSet<String> {
    let calls = bed.proxy.calls_of("TerminateInstances");
    let effective = calls.iter().filter(|call| call.number > mark && call.took_effect());
    effective.flat_map(|call| call.under("InstanceId.").into_values()).collect()
}

/// Waits until an instance is asked to end.
pub async fn termination(bed: &Bed, mark: usize, limit: Duration) -> Result<String> {
    until("a termination", limit, async || {
        Ok(terminated_since(bed, mark).into_iter().next().map_or_else(|| Seen::NotYet("none".to_owned()), Seen::Done))
    })
    .await
}

/// Calls that write this state of a launch or a retirement into the journal.
pub fn journal(kind: &'static str, state: &'static str) -> Matcher {
    let says = |call: &Call, text: &str| call.parameters.values().any(|value| value == text);
    Matcher::action("TransactWriteItems").and(move |call| says(call, kind) && says(call, state))
}

/// Calls of this daemon.
pub fn calls_by(bed: &Bed, daemon: &str) -> Vec<Call> {
    let key = access_key(daemon);
    bed.proxy.calls().into_iter().filter(|call| call.caller == key).collect()
}

/// The oldest `Unschedulable` condition among a workload's pods.
pub async fn oldest_unschedulable(cluster: &Cluster, workload: &str) -> Result<Option<Timestamp>> {
    Ok(cluster.pods(workload).await?.iter().filter_map(unschedulable_since).min())
}

/// The findings of the latest plan about a rule.
pub fn finding<'a>(status: &'a Value, rule: &str) -> Option<&'a Value> {
    status["plan"]["pools"][0]["findings"].as_array()?.iter().find(|finding| finding["rule"] == rule)
}

/// Nodes watched over time: when each was first seen cordoned, and gone.
pub struct Timeline {
    watching: JoinHandle<BTreeMap<String, Life>>,
    stop: tokio::sync::watch::Sender<bool>,
}

/// What was seen of a node.
#[derive(Clone, Copy, Debug, Default)]
pub struct Life {
    pub cordoned: Option<Instant>,
    pub gone: Option<Instant>,
}

impl Timeline {
    /// Looks every 50 ms.
    pub fn start(cluster: &Cluster) -> Self {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let cluster = cluster.clone();
        let watching = tokio::spawn(async move {
            let mut lives: BTreeMap<String, Life> = BTreeMap::new();
            while !*stopped.borrow() {
                // A look that fails is made again.
                if let Ok(nodes) = cluster.nodes().await {
                    for (name, node) in &nodes {
                        let life = lives.entry(name.clone()).or_default();
                        if is_cordoned(node) {
                            life.cordoned.get_or_insert_with(Instant::now);
                        }
                    }
                    for (name, life) in &mut lives {
                        if !nodes.contains_key(name) {
                            life.gone.get_or_insert_with(Instant::now);
                        }
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            lives
        });
        Self { watching, stop }
    }

    /// What was seen.
    pub async fn end(self) -> Result<BTreeMap<String, Life>> {
        self.stop.send_replace(true);
        self.watching.await.context("the watching of the nodes")
    }
}
