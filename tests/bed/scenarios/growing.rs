//! What makes the fleet grow: pods that find no node, and utilisation that lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::fleet::{LATER, SOON, finding, fleet, launched_since, launches_since, oldest_unschedulable, quiet, settled};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::exporter::Load;
use crate::ledger::Operation;
use crate::offers::{Market, ZONES};
use crate::proxy::call::Call;
use crate::proxy::capacity::Offers;
use crate::wait::{Seen, holds};
use crate::workload::Workload;

/// Pods become unschedulable, nodes join, pods run: on the watch event, and not on the tick, which is 10 minutes away.
pub async fn pods_get_nodes(bed: &mut Bed) -> Result<()> {
    let ten_minutes = || "10m".to_owned();
    let configuration = Configuration {
        interval: ten_minutes(),
        up_sustain: ten_minutes(),
        down_sustain: ten_minutes(),
        up_cooldown: ten_minutes(),
        down_cooldown: ten_minutes(),
        ..Configuration::default()
    };
    let daemon = fleet(bed, &configuration).await?;
    let mark = bed.proxy.mark();
    // The pods still wait when it is asked since when.
    bed.joiner.set_boot(Duration::from_secs(5));
    bed.cluster.apply(&Workload::new("shop", 7, "1500m", "256Mi")).await?;
    let call = bed.proxy.wait_for("CreateFleet", mark, SOON, |call| call.action == "CreateFleet").await?;
    let since = oldest_unschedulable(&bed.cluster, "shop").await?.context("no pod is unschedulable any more")?;
    // The condition's time has whole seconds: the true time is up to one second less. The next turn is ten minutes away.
    let waited = call.wall.duration_since(since).as_secs_f64();
    ensure!(waited < 10.0, "CreateFleet came {waited:.2} s after the Unschedulable condition");
    println!("  from Unschedulable (whole seconds) to CreateFleet: {waited:.2} s");
    bed.cluster.wait_for_running("shop", 7, LATER).await?;
    quiet(&daemon).await?;
    ensure!(launched_since(bed, mark) == 5, "2 nodes hold 2 of 7 pods, so 5 are to be bought, not {}", launched_since(bed, mark));

    let workers = bed.joiner.living_workers().await?;
    let mut zones: BTreeMap<&str, usize> = ZONES.iter().map(|zone| (*zone, 0)).collect();
    for worker in &workers {
        *zones.entry(worker.zone.as_str()).or_default() += 1;
        for (key, value) in [("Project", "node-fleet"), ("ManagedBy", "node-fleet"), ("Role", "k3s-worker")] {
            ensure!(worker.tags.get(key).is_some_and(|tag| tag == value), "{} lacks the tag {key}: {:?}", worker.id, worker.tags);
        }
        for key in ["node-fleet.io/pool", "node-fleet.io/operation", "node-fleet.io/epoch"] {
            ensure!(worker.tags.contains_key(key), "{} lacks the tag {key}: {:?}", worker.id, worker.tags);
        }
        ensure!(worker.tags.get("node-fleet.io/cluster") == Some(&bed.cluster_id), "{}: {:?}", worker.id, worker.tags);
    }
    let (least, most) = (zones.values().min().copied().unwrap_or(0), zones.values().max().copied().unwrap_or(0));
    ensure!(most - least <= 1, "the zones are out of balance: {zones:?}");
    let spot = workers.iter().filter(|worker| worker.is_spot).count();
    ensure!((4..=5).contains(&spot), "70 % of the 6 above the base are 4.2, and {spot} of {} are spot", workers.len());
    let ledger = settled(bed, &daemon).await?;
    ensure!(ledger.operations.iter().all(|operation| operation.kind == "launch" && operation.epoch == 1), "{:?}", ledger.operations);
    for worker in &workers {
        let (operation, epoch) = (&worker.tags["node-fleet.io/operation"], &worker.tags["node-fleet.io/epoch"]);
        let own = ledger.operation(operation)?;
        ensure!(own.launched().contains(&worker.id) && own.epoch.to_string() == *epoch, "{} is not of {own}", worker.id);
    }

    let mark = bed.proxy.mark();
    bed.cluster.apply(&Workload::new("giant", 1, "64", "256Mi")).await?;
    bed.cluster.apply(&Workload::new("lost", 1, "100m", "64Mi").with("nodeSelector", json!({"disk": "tape"}))).await?;
    daemon
        .wait_for_status("two pods that no node of ours can take", SOON, |status| {
            (status["plan"]["unplaceable"].as_array()?.len() == 2).then_some(())
        })
        .await?;
    holds("nothing is bought for them", Duration::from_secs(3), async || {
        Ok(if launches_since(bed, mark).is_empty() { Seen::Done(()) } else { Seen::NotYet("a launch".to_owned()) })
    })
    .await?;
    let after = settled(bed, &daemon).await?;
    ensure!(after.operations.len() == ledger.operations.len(), "operations for pods that no node can take: {:?}", after.operations);
    Ok(())
}

/// How long a threshold must be exceeded in [`cpu_must_last`]: 4 minutes at a clock that runs 10 times as fast.
const SUSTAIN: Duration = Duration::from_secs(24);

/// CPU at 71 % for the sustain time buys, a spike of half that time does not, and 69 % never does.
///
/// `rate()` draws a spike out by the part of its window that pulls the mean above the threshold: from
/// 50 % to 100 % and back to 40 %, a spike of 12 s is seen for 13 s with a window of 10 s.
pub async fn cpu_must_last(bed: &mut Bed) -> Result<()> {
    let load = |cpu| Load::Fixed { cpu, memory: 0.2 };
    bed.exporter.set_load_of_all(load(0.5));
    let configuration = Configuration {
        interval: "1s".to_owned(),
        up_sustain: format!("{}s", SUSTAIN.as_secs()),
        up_cooldown: "5s".to_owned(),
        scale_down: false,
        ..Configuration::default()
    };
    let daemon = fleet(bed, &configuration).await?;
    daemon.wait_for_status("a CPU of 50 %", SOON, |status| near(status, 0.5)).await?;
    let mark = bed.proxy.mark();
    let nothing = async |bed: &Bed, what: &str, span: Duration| {
        holds(what, span, async || {
            let launched = launched_since(bed, mark);
            Ok(if launched == 0 { Seen::Done(()) } else { Seen::NotYet(format!("{launched} instances were launched")) })
        })
        .await
    };
    bed.exporter.set_load_of_all(load(0.69));
    daemon.wait_for_status("a CPU of 69 %", SOON, |status| near(status, 0.69)).await?;
    nothing(bed, "69 % buys nothing", SUSTAIN * 3 / 2).await?;
    bed.exporter.set_load_of_all(load(0.5));
    daemon.wait_for_status("a CPU of 50 %", SOON, |status| near(status, 0.5)).await?;
    let spike = Instant::now();
    bed.exporter.set_load_of_all(load(1.0));
    let peak = daemon.wait_for_status("the spike above the threshold", SOON, |status| {
        (status["plan"]["pools"][0]["cpu"].as_f64()? > 0.72).then_some(())
    });
    peak.await?;
    tokio::time::sleep((SUSTAIN / 2).saturating_sub(spike.elapsed())).await;
    let peak = daemon.wait_for_status("the height of the spike", SOON, |status| status["plan"]["pools"][0]["cpu"].as_f64()).await?;
    bed.exporter.set_load_of_all(load(0.4));
    nothing(bed, "a spike buys nothing", SUSTAIN).await?;
    bed.exporter.set_load_of_all(load(0.71));
    daemon.wait_for_status("a CPU of 71 %", SOON, |status| near(status, 0.71)).await?;
    let above = Instant::now();
    let call = bed.proxy.wait_for("CreateFleet", mark, SUSTAIN + LATER, |call| call.action == "CreateFleet").await?;
    ensure!(call.instances.len() == 1, "2 nodes at 71 % are 2.4 at 60 %: one more, not {}", call.instances.len());
    let waited = call.at.saturating_duration_since(above);
    // The mean passes the threshold a second or two before it is at 71 %.
    ensure!(waited + Duration::from_secs(4) > SUSTAIN, "bought {waited:?} after 71 % were seen, which must last for {SUSTAIN:?}");
    let evidence = daemon.get_json("/api/v1/decisions?limit=200").await?;
    let bought = evidence["decisions"].as_array().into_iter().flatten().find(|decision| {
        decision["operations"].as_array().is_some_and(|begun| !begun.is_empty())
            && decision["plan"]["pools"][0]["findings"].as_array().is_some_and(|all| {
                all.iter().any(|finding| finding["rule"] == "cpu" && finding["wants"].as_i64().is_some_and(|wants| wants > 0))
            })
    });
    let bought = bought.context("no decision says that it buys for CPU")?;
    println!("  the spike reached {:.0} %; bought for: {}", peak * 100.0, bought["plan"]["pools"][0]["findings"]);
    // The third node shares the load.
    bed.exporter.set_load_of_all(load(0.45));
    let ledger = settled(bed, &daemon).await?;
    let token = call.parameter("ClientToken").context("no client token")?;
    let why = &ledger.operation(token)?.body["order"]["reason"];
    ensure!(why["why"] == "rule" && why["rule"] == "cpu", "bought for {why}");
    Ok(())
}

fn near(status: &serde_json::Value, cpu: f64) -> Option<()> {
    let _ = finding(status, "cpu")?;
    let seen = status["plan"]["pools"][0]["cpu"].as_f64()?;
    ((seen - cpu).abs() < 0.006).then_some(())
}

/// No capacity of one offer: another one. No spot anywhere: on-demand, with an alert.
pub async fn capacity_runs_out(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { scale_down: false, ..Configuration::default() }.blind_to_cpu();
    let daemon = fleet(bed, &configuration).await?;
    bed.cluster.apply(&Workload::new("shop", 2, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 2, SOON).await?;

    bed.proxy.limit_capacity(Offers::all().of_type("t3.medium"), 0);
    bed.cluster.scale("shop", 4).await?;
    bed.cluster.wait_for_running("shop", 4, SOON).await?;
    let kinds: Vec<String> = bed.joiner.living_workers().await?.into_iter().map(|worker| worker.kind).collect();
    ensure!(kinds.iter().filter(|kind| *kind != "t3.medium").count() == 2, "another type was to be bought: {kinds:?}");

    quiet(&daemon).await?;
    ensure!(daemon.metric("node_fleet_alert", &["spot_exhausted"]).await? == Some(0.0), "the alert is there already");
    bed.proxy.limit_capacity(Offers::all().on(Market::Spot), 0);
    let before = bed.joiner.living_workers().await?.len();
    bed.cluster.scale("shop", 7).await?;
    bed.cluster.wait_for_running("shop", 7, Duration::from_secs(40)).await?;
    let workers = bed.joiner.living_workers().await?;
    ensure!(workers.len() == before + 3, "three were to be bought: {workers:?}");
    let spot = workers.iter().filter(|worker| worker.is_spot).count();
    println!("  {spot} spot and {} on-demand after spot ran out", workers.len() - spot);
    ensure!(spot <= before, "there was no spot to be had: {workers:?}");
    crate::wait::until("the alert spot_exhausted", SOON, async || {
        let value = daemon.metric("node_fleet_alert", &["spot_exhausted"]).await?;
        Ok(if value == Some(1.0) { Seen::Done(()) } else { Seen::NotYet(format!("{value:?}")) })
    })
    .await?;
    let ledger = settled(bed, &daemon).await?;
    let failed = ledger.of("launch", "failed");
    let lacked_capacity = failed.iter().all(|operation| operation.body["failure"]["failure"] == "insufficient_capacity");
    ensure!(!failed.is_empty() && lacked_capacity, "{failed:?}");
    Ok(())
}

/// An instance that never joins is terminated at its limit and its offer rests; three in a row stop the offer.
pub async fn some_never_join(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration {
        scale_down: false,
        spot_share: 0.0,
        instance_types: vec!["t3.medium".to_owned()],
        join_timeout: "5s".to_owned(),
        offer_rest: "2s".to_owned(),
        max: 3,
        ..Configuration::default()
    };
    let daemon = fleet(bed, &configuration).await?;
    // The next node can only be bought in one zone and on one market, so that each launch is of the same offer.
    bed.proxy.limit_capacity(Offers::all().on(Market::Spot), 0);
    bed.joiner.never_join(3);
    let mark = bed.proxy.mark();
    let shop = Workload::new("shop", 3, "1500m", "256Mi");
    bed.cluster.apply(&shop.with("nodeSelector", json!({"topology.kubernetes.io/zone": ZONES[1]}))).await?;
    let (mut lives, mut rests) = (Vec::new(), Vec::new());
    let mut ended = None;
    for round in 1..=3 {
        let made = |call: &Call| call.action == "CreateFleet" && !call.instances.is_empty();
        let call = bed.proxy.wait_for("a launch", last_launch(bed, mark), Duration::from_secs(60), made).await;
        let call = call.with_context(|| format!("launch {round}"))?;
        rests.extend(ended.map(|ended| call.at.duration_since(ended).as_secs_f64()));
        let id = call.instances.first().context("no instance")?;
        let end = bed.proxy.wait_for("its termination", call.number, Duration::from_secs(30), |end| {
            end.action == "TerminateInstances" && end.under("InstanceId.").values().any(|ended| ended == id)
        });
        let end = end.await?.at;
        lives.push(end.duration_since(call.at).as_secs_f64());
        ended = Some(end);
    }
    println!("  lives of instances that never joined: {lives:.1?} s, with a limit of 5 s; the offer rested {rests:.1?} s");
    ensure!(lives.iter().all(|life| (5.0..12.0).contains(life)), "{lives:?}");
    ensure!(rests.len() == 2 && rests[0] >= 2.0 && rests[1] >= 4.0, "the offer was to rest 2 s, then 4 s: {rests:?}");
    crate::wait::until("the alert offer_stopped", SOON, async || {
        let value = daemon.metric("node_fleet_alert", &["offer_stopped"]).await?;
        Ok(if value == Some(1.0) { Seen::Done(()) } else { Seen::NotYet(format!("{value:?}")) })
    })
    .await?;
    let launches = launches_since(bed, mark).len();
    holds("the stopped offer is not bought", Duration::from_secs(15), async || {
        let now = launches_since(bed, mark).len();
        Ok(if now == launches { Seen::Done(()) } else { Seen::NotYet(format!("{now} launches instead of {launches}")) })
    })
    .await?;
    let ledger = settled(bed, &daemon).await?;
    let late: Vec<String> = ledger.operations.iter().flat_map(Operation::never_joined).collect();
    ensure!(late.len() == 3, "three instances never joined, and the journal knows of {late:?}");
    Ok(())
}

fn last_launch(bed: &Bed, mark: usize) -> usize {
    launches_since(bed, mark).last().map_or(mark, |call| call.number)
}
