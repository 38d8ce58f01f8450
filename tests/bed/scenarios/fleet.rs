//! What the scenarios share: a fleet at its minimum, calls found in the log, and what must hold at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::cluster::{Cluster, unschedulable_since};
use crate::configuration::Configuration;
use crate::daemon::{Daemon, access_key};
use crate::events;
use crate::ledger::Ledger;
use crate::proxy::call::Call;
use crate::proxy::faults::Matcher;
use crate::wait::{Seen, until};
use crate::workload::Workload;

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

/// POSTs what must succeed.
async fn ask(daemon: &Daemon, path: &str, body: &str) -> Result<()> {
    let (code, answer) = daemon.post(path, body).await?;
    ensure!(code == 200, "POST {path} of {}: {code} {answer}", daemon.name);
    Ok(())
}

/// Pauses the fleet.
pub async fn pause(daemon: &Daemon, reason: &str) -> Result<()> {
    ask(daemon, "/api/v1/pause", &json!({ "reason": reason }).to_string()).await
}

/// Lets it go on.
pub async fn resume(daemon: &Daemon) -> Result<()> {
    ask(daemon, "/api/v1/resume", "").await
}

/// Waits until all is over, and holds the ledger against the leader, EC2 and the call log.
pub async fn settled(bed: &Bed, leader: &Daemon) -> Result<Ledger> {
    quiet(leader).await?;
    // A turn writes the state's record, and the next one may be minutes away.
    ask(leader, "/api/v1/evaluate", "").await?;
    let ledger = until("the ledger to say that all is over", LATER, async || {
        let ledger = bed.ledger().await?;
        let workers = bed.joiner.living_workers_of(&bed.cluster_id).await?.len();
        Ok(ledger.unsettled(workers).map_or(Seen::Done(ledger), Seen::NotYet))
    })
    .await?;
    let status = leader.get_json("/api/v1/status").await?;
    let (owner, epoch) = ledger.lock.as_ref().context("nobody holds the lock")?;
    ensure!(status["owner"] == owner.as_str(), "{owner} holds the lock, and not {}", status["owner"]);
    ensure!(status["role"]["epoch"] == *epoch && ledger.epoch == *epoch, "epoch {epoch} of the lock, {} of the record", ledger.epoch);
    ensure!(ledger.last_scale()? <= Timestamp::now(), "{:?} is still to come", ledger.state.last_scale_time);
    ledger.account_for(&bed.proxy.calls())?;
    Ok(ledger)
}

/// All of each node that somebody else than its kubelet changes.
pub async fn faces(cluster: &Cluster) -> Result<BTreeMap<String, Value>> {
    let face = |node: Node| {
        let metadata = node.metadata;
        json!({"uid": metadata.uid, "labels": metadata.labels, "annotations": metadata.annotations, "spec": node.spec})
    };
    Ok(cluster.nodes().await?.into_iter().map(|(name, node)| (name, face(node))).collect())
}

/// Four pods get their nodes, one of which is interrupted and replaced.
pub async fn interrupted_shop(bed: &Bed, daemon: &Daemon) -> Result<()> {
    bed.cluster.apply(&Workload::new("shop", 4, "1500m", "256Mi")).await?;
    let pods = bed.cluster.wait_for_running("shop", 4, LATER).await?;
    let node = pods[0].spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a pod without a node")?;
    bed.notify(&events::spot_interruption(node.trim_start_matches("worker-"))).await?;
    bed.cluster.wait_for_node(&node, "to be gone", LATER, |node| node.is_none()).await?;
    quiet(daemon).await
}
