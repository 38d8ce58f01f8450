//! Spot interruptions and everything else that comes through the queue.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_sqs::types::QueueAttributeName;

use super::fleet::{LATER, SOON, faces, fleet, launched_since, quiet, settled, terminated_since};
use crate::bed::{Bed, SERVER_NODE};
use crate::cluster::{has_taint, is_cordoned, is_ready, is_running};
use crate::configuration::Configuration;
use crate::events;
use crate::exporter::Load;
use crate::offers::ZONES;
use crate::proxy::call::Call;
use crate::wait::{Seen, holds, until};
use crate::workload::Workload;

/// Interruption: cordon and taint within two seconds, replacement before the drain ends, message deleted.
pub async fn interruption(bed: &mut Bed) -> Result<()> {
    // A message that is not deleted is back after 3 s, and in the dead-letter queue after 5 times.
    let soon = bed.aws.sqs.set_queue_attributes().queue_url(&bed.account.queue_url).attributes(QueueAttributeName::VisibilityTimeout, "3");
    soon.send().await.context("set the visibility timeout")?;
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.4, memory: 0.4 });
    let configuration = Configuration { on_demand_base: 0, spot_share: 1.0, scale_down: false, ..Configuration::default() };
    let daemon = fleet(bed, &configuration).await?;
    bed.cluster.apply(&Workload::new("shop", 2, "1500m", "256Mi").ending_in("6s")).await?;
    let pods = bed.cluster.wait_for_running("shop", 2, SOON).await?;
    let node = pods[0].spec.as_ref().and_then(|spec| spec.node_name.clone()).context("a pod without a node")?;
    let instance = node.trim_start_matches("worker-").to_owned();

    let mark = bed.proxy.mark();
    let event = events::spot_interruption(&instance);
    let told = Instant::now();
    bed.notify(&event).await?;
    let cordoned = until("the node to be cordoned and tainted", SOON, async || {
        let node = bed.cluster.node(&node).await?.context("the node is gone")?;
        let done = is_cordoned(&node) && has_taint(&node, "node-fleet.io/interrupted");
        Ok(if done { Seen::Done(told.elapsed()) } else { Seen::NotYet(format!("{:?}", node.spec)) })
    })
    .await?;
    println!("  cordoned and tainted {:.2} s after the message", cordoned.as_secs_f64());
    ensure!(cordoned < Duration::from_secs(2), "the cordon took {cordoned:?}");
    // The same once more, while the first is worked on.
    bed.notify(&event).await?;
    let launch =
        bed.proxy.wait_for("the replacement", mark, SOON, |call| call.action == "CreateFleet" && !call.instances.is_empty()).await?;
    let end = bed.proxy.wait_for("the termination", mark, LATER, |call| call.action == "TerminateInstances").await?;
    ensure!(launch.at < end.at, "the replacement came after the end of the drain");
    println!(
        "  replacement after {:.2} s, terminated after {:.2} s",
        launch.at.duration_since(told).as_secs_f64(),
        end.at.duration_since(told).as_secs_f64()
    );
    bed.cluster.wait_for_node(&node, "to be gone", SOON, |node| node.is_none()).await?;
    bed.cluster.wait_for_running("shop", 2, SOON).await?;
    quiet(&daemon).await?;
    acknowledged(bed, mark, 2).await?;
    // And again when all is over.
    bed.notify(&event).await?;
    acknowledged(bed, mark, 3).await?;
    ensure!(launched_since(bed, mark) == 1, "one replacement was needed, not {}", launched_since(bed, mark));
    let ended = bed.proxy.calls_of("TerminateInstances").into_iter().filter(|call| call.number > mark).count();
    ensure!(ended == 1 && terminated_since(bed, mark).into_iter().eq([instance]), "{ended}: {:?}", terminated_since(bed, mark));
    let ledger = settled(bed, &daemon).await?;
    let done = ledger.of("retire", "done");
    let is_ours = done.len() == 1 && done[0].node() == Some(node.as_str()) && done[0].why() == "spot_interruption";
    ensure!(is_ours && ledger.of("retire", "rolled_back").is_empty(), "{:?}", ledger.operations);
    let replacement = ledger.operation(launch.parameter("ClientToken").context("no client token")?)?;
    ensure!(replacement.state == "done", "{replacement}");

    strange_messages(bed).await?;
    let after = settled(bed, &daemon).await?;
    ensure!(after.operations.len() == ledger.operations.len(), "strange messages began operations: {:?}", after.operations);
    Ok(())
}

/// Messages that are malformed, forged or about others change nothing; poison ends in the dead-letter queue.
async fn strange_messages(bed: &Bed) -> Result<()> {
    let mark = bed.proxy.mark();
    let stranger = bed.run_stranger(ZONES[0], &[("Name", "somebody's database")]).await?;
    let mine = bed.joiner.living_workers_of(&bed.cluster_id).await?.pop().context("no worker")?;
    bed.notify(&events::spot_interruption(&stranger)).await?;
    bed.notify(&events::spot_interruption(&bed.account.server_instance)).await?;
    bed.notify(&events::spot_interruption("i-00000000000000000")).await?;
    bed.notify(&events::rebalance_recommendation(&mine.id)).await?;
    bed.notify(&events::state_change(&mine.id, "running")).await?;
    bed.notify(&events::scheduled_maintenance(&mine.id)).await?;
    acknowledged(bed, mark, 6).await?;
    // The rule lets no such message through: these are put into the queue by somebody who may.
    bed.notify_raw("this is no JSON").await?;
    let mut forged = events::spot_interruption(&mine.id);
    forged["source"] = "com.example".into();
    bed.notify_raw(&forged.to_string()).await?;
    let mut elsewhere = events::spot_interruption(&mine.id);
    elsewhere["detail"]["instance-id"] = 7.into();
    bed.notify_raw(&elsewhere.to_string()).await?;
    until("three messages in the dead-letter queue", Duration::from_secs(60), async || {
        let dead = bed.dead_notices().await?;
        Ok(if dead == 3 { Seen::Done(()) } else { Seen::NotYet(format!("{dead} there, {} in the queue", bed.pending_notices().await?)) })
    })
    .await?;
    holds("nothing changes", Duration::from_secs(3), async || {
        let cordoned: Vec<String> =
            bed.cluster.nodes().await?.into_iter().filter(|(_, node)| is_cordoned(node)).map(|(name, _)| name).collect();
        let calm = cordoned.is_empty() && launched_since(bed, mark) == 0 && terminated_since(bed, mark).is_empty();
        Ok(if calm { Seen::Done(()) } else { Seen::NotYet(format!("{cordoned:?} cordoned")) })
    })
    .await
}

/// Waits until the daemon has deleted so many messages since, and sees that none is left and none was given up.
async fn acknowledged(bed: &Bed, mark: usize, messages: usize) -> Result<()> {
    let deleted = |call: &Call| call.number > mark && call.took_effect();
    until(&format!("{messages} messages to be deleted"), SOON, async || {
        let done = bed.proxy.calls_of("DeleteMessage").iter().filter(|call| deleted(call)).count();
        let left = bed.pending_notices().await?;
        Ok(if done >= messages && left == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{done} deleted, {left} left")) })
    })
    .await?;
    let dead = bed.dead_notices().await?;
    ensure!(dead == 0, "{dead} messages ended in the dead-letter queue instead of being deleted");
    Ok(())
}

/// Foreign and untagged instances and nodes live through a fleet that grows, shrinks, loses a node and clears up leaks.
pub async fn strangers_live(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 5, ..Configuration::default().hasty() };
    let own = bed.cluster_id.clone();
    let untagged = bed.run_stranger(ZONES[0], &[]).await?;
    let other = [
        ("Project", "node-fleet"),
        ("ManagedBy", "node-fleet"),
        ("Role", "k3s-worker"),
        ("node-fleet.io/cluster", "another"),
        ("node-fleet.io/pool", "workers"),
    ];
    let others = bed.run_stranger(ZONES[1], &other).await?;
    let half = bed.run_stranger(ZONES[1], &[("ManagedBy", "node-fleet"), ("Role", "database")]).await?;
    let node = |name: &str, provider: String| crate::cluster::NodeSpec {
        name: name.to_owned(),
        provider_id: provider,
        address: "10.20.0.77".to_owned(),
        labels: [("topology.kubernetes.io/zone".to_owned(), ZONES[0].to_owned())].into(),
        taints: vec![serde_json::json!({"key": "dedicated", "value": "somebody", "effect": "NoSchedule"})],
        cpus: 4,
        memory_mib: 8192,
    };
    bed.cluster.create_node(&node("a-machine-in-the-cellar", String::new())).await?;
    bed.cluster.create_node(&node("an-agent-by-hand", format!("aws:///{}/{untagged}", ZONES[0]))).await?;
    let strangers = [SERVER_NODE, "a-machine-in-the-cellar", "an-agent-by-hand"];
    for name in strangers {
        bed.cluster.wait_for_node(name, "to be Ready", SOON, |node| node.is_some_and(is_ready)).await?;
    }

    let daemon = fleet_beside(bed, &configuration).await?;
    let (mark, faces_before) = (bed.proxy.mark(), faces(&bed.cluster).await?);
    bed.cluster.apply(&Workload::new("shop", 3, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 3, SOON).await?;
    for instance in [&untagged, &others, &half, &bed.account.server_instance] {
        bed.notify(&events::spot_interruption(instance)).await?;
    }
    // One of ours is taken away by EC2 without a word, and one appears that no journal knows.
    let lost = bed.joiner.living_workers_of(&own).await?.pop().context("no worker")?;
    bed.take_away(&lost.id).await?;
    bed.joiner.never_join(1);
    let leak = [
        ("Project", "node-fleet"),
        ("ManagedBy", "node-fleet"),
        ("Role", "k3s-worker"),
        ("node-fleet.io/cluster", own.as_str()),
        ("node-fleet.io/pool", "workers"),
    ];
    let leaked = bed.run_stranger(ZONES[0], &leak).await?;
    bed.cluster.lose_node(&lost.node_name()).await?;
    until("the leak to be terminated", LATER, async || {
        Ok(if terminated_since(bed, mark).contains(&leaked) {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{:?}", terminated_since(bed, mark)))
        })
    })
    .await?;
    bed.cluster.wait_for_node(&lost.node_name(), "to be gone", LATER, |node| node.is_none()).await?;
    until("all pods of shop to run", LATER, async || {
        let running = bed.cluster.pods("shop").await?.iter().filter(|pod| is_running(pod)).count();
        Ok(if running >= 3 { Seen::Done(()) } else { Seen::NotYet(format!("{running} run")) })
    })
    .await?;
    bed.cluster.remove("shop").await?;
    until("one worker", LATER, async || {
        let left = bed.joiner.living_workers_of(&own).await?.len();
        Ok(if left == 1 { Seen::Done(()) } else { Seen::NotYet(format!("{left} workers")) })
    })
    .await?;
    quiet(&daemon).await?;
    acknowledged(bed, mark, 4).await?;
    let living: Vec<String> =
        bed.joiner.instances().await?.into_iter().filter(crate::joiner::Instance::is_alive).map(|instance| instance.id).collect();
    // Those that EC2 refused as well.
    let attempts = bed.proxy.calls_of("TerminateInstances");
    for instance in [&untagged, &others, &half, &bed.account.server_instance] {
        ensure!(living.contains(instance), "{instance} was terminated");
        let attempt = attempts.iter().find(|call| call.under("InstanceId.").values().any(|named| named == instance));
        ensure!(attempt.is_none(), "somebody tried to terminate {instance}: {attempt:?}");
    }
    let faces_after = faces(&bed.cluster).await?;
    for name in strangers {
        let (before, after) = (faces_before.get(name), faces_after.get(name));
        ensure!(before.is_some() && before == after, "{name} was {before:?} and is {after:?}");
    }
    let ledger = settled(bed, &daemon).await?;
    let whys: Vec<&str> = ledger.of("retire", "done").into_iter().map(crate::ledger::Operation::why).collect();
    ensure!(whys.contains(&"leaked") && whys.contains(&"instance_gone"), "the leak and the lost node were to be cleared up: {whys:?}");
    let foreign = [&untagged, &others, &half, &bed.account.server_instance].map(String::as_str);
    let touched = ledger.operations.iter().find(|operation| {
        let order = &operation.body["order"];
        operation.node().is_some_and(|node| strangers.contains(&node)) || order["instance"].as_str().is_some_and(|id| foreign.contains(&id))
    });
    ensure!(touched.is_none(), "an operation is about a stranger: {touched:?}");
    Ok(())
}

/// A fleet in a cluster that has other nodes, which is why nodes are not counted.
async fn fleet_beside(bed: &mut Bed, configuration: &Configuration) -> Result<crate::daemon::Daemon> {
    let toml = configuration.toml(bed);
    super::fleet::create_table(bed, &toml).await?;
    let mut daemon = bed.start_daemon("alpha", &toml)?;
    daemon.ready(SOON).await?;
    quiet(&daemon).await?;
    Ok(daemon)
}
