//! Two daemons, of which one acts, whatever happens to it and at whatever moment.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::fleet::{LATER, SOON, calls_by, fleet, journal, launched_since, launches_since, leads, quiet, terminated_since, under_way};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::exporter::Load;
use crate::proxy::faults::{Matcher, When};
use crate::wait::{Seen, holds, until};
use crate::workload::Workload;

/// A standby takes over in less.
const TAKEOVER: Duration = Duration::from_secs(30);

/// The calls of a launch and of a retirement at which the leader is killed, each before and after its effect.
fn moments() -> Vec<(&'static str, Matcher, Matcher)> {
    let create = Matcher::action("CreateFleet");
    let terminate = Matcher::action("TerminateInstances");
    vec![
        ("journalled", journal("launch", "journalled"), journal("retire", "journalled")),
        ("sent", create.clone(), journal("retire", "draining")),
        ("joining, drained", journal("launch", "joining"), journal("retire", "drained")),
        ("done, terminating", journal("launch", "done"), terminate),
        ("sent, terminated", create, journal("retire", "terminated")),
        ("joining, done", journal("launch", "joining"), journal("retire", "done")),
    ]
}

/// SIGKILL of the leader at each journalled step of a launch and of a retirement.
pub async fn killed_at_every_step(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 4, ..Configuration::default().hasty().short_lease() };
    let toml = configuration.toml(bed);
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.1, memory: 0.1 });
    let mut leader = fleet(bed, &configuration).await?;
    let mut number = 0;
    let mut standby = another(bed, &toml, &mut number).await?;
    bed.cluster.apply(&Workload::new("shop", 1, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 1, SOON).await?;
    let mut slowest = Duration::ZERO;
    let mut kills = 0;
    for (name, launch, retire) in moments() {
        for when in [When::Before, When::After] {
            let what = format!("killed at a launch ({name}, {when:?})");
            let mark = bed.proxy.mark();
            let hold = bed.proxy.faults.hold(launch.clone(), when);
            bed.cluster.scale("shop", 2).await?;
            hold.reached(LATER).await.with_context(|| what.clone())?;
            let took = kill(&mut leader, &standby, hold).await.with_context(|| what.clone())?;
            bed.cluster.wait_for_running("shop", 2, LATER).await.with_context(|| what.clone())?;
            quiet(&standby).await?;
            ensure!(launched_since(bed, mark) == 1, "{what}: {} instances were launched, not 1", launched_since(bed, mark));
            consistent(bed, 2).await.with_context(|| what.clone())?;
            (slowest, kills) = (slowest.max(took), kills + 1);
            leader = standby;
            standby = another(bed, &toml, &mut number).await?;

            let what = format!("killed at a retirement ({name}, {when:?})");
            let mark = bed.proxy.mark();
            let hold = bed.proxy.faults.hold(retire.clone(), when);
            bed.cluster.scale("shop", 1).await?;
            hold.reached(LATER).await.with_context(|| what.clone())?;
            let took = kill(&mut leader, &standby, hold).await.with_context(|| what.clone())?;
            until("one worker", LATER, async || {
                let left = bed.cluster.workers().await?.len();
                Ok(if left == 1 { Seen::Done(()) } else { Seen::NotYet(format!("{left}")) })
            })
            .await
            .with_context(|| what.clone())?;
            quiet(&standby).await?;
            ensure!(terminated_since(bed, mark).len() == 1, "{what}: {:?} were terminated, not one", terminated_since(bed, mark));
            ensure!(launched_since(bed, mark) == 0, "{what}: something was bought");
            consistent(bed, 1).await.with_context(|| what.clone())?;
            bed.cluster.wait_for_running("shop", 1, SOON).await?;
            (slowest, kills) = (slowest.max(took), kills + 1);
            leader = standby;
            standby = another(bed, &toml, &mut number).await?;
        }
    }
    println!("  {kills} kills; the slowest takeover took {:.1} s", slowest.as_secs_f64());
    Ok(())
}

/// Kills the leader while one of its calls is held, and waits until the standby leads.
async fn kill(leader: &mut Daemon, standby: &Daemon, hold: crate::proxy::faults::Hold) -> Result<Duration> {
    leader.kill()?;
    let killed = Instant::now();
    hold.cut();
    leads(standby, TAKEOVER).await?;
    Ok(killed.elapsed())
}

/// Starts the next daemon, which follows the one that leads.
async fn another(bed: &mut Bed, toml: &str, number: &mut usize) -> Result<Daemon> {
    *number += 1;
    let mut daemon = bed.start_daemon(&format!("standby{number}"), toml)?;
    daemon.ready(SOON).await?;
    Ok(daemon)
}

/// As many living instances as nodes, each the other's.
async fn consistent(bed: &Bed, count: usize) -> Result<()> {
    until(&format!("{count} instances that are the {count} nodes"), SOON, async || {
        let instances: Vec<String> = bed.joiner.living_workers().await?.iter().map(crate::joiner::Instance::node_name).collect();
        let nodes: Vec<String> = bed.cluster.workers().await?.into_keys().collect();
        let same = instances.len() == count && nodes.len() == count && instances.iter().all(|instance| nodes.contains(instance));
        Ok(if same { Seen::Done(()) } else { Seen::NotYet(format!("instances {instances:?}, nodes {nodes:?}")) })
    })
    .await
}

/// A leader that is stopped for longer than its lease and goes on does nothing any more.
pub async fn awakened(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 4, scale_down: false, ..Configuration::default().short_lease() };
    let toml = configuration.toml(bed);
    let sleeper = fleet(bed, &configuration).await?;
    let mut number = 0;
    let successor = another(bed, &toml, &mut number).await?;
    let mark = bed.proxy.mark();
    // Asleep with the journal written and the request not sent; and then with the request sent and no answer read.
    let hold = bed.proxy.faults.hold(journal("launch", "journalled"), When::After);
    bed.cluster.apply(&Workload::new("shop", 2, "1500m", "256Mi")).await?;
    hold.reached(SOON).await?;
    sleeper.freeze()?;
    hold.release();
    let asleep = Instant::now();
    leads(&successor, TAKEOVER).await?;
    println!("  taken over {:.1} s after the leader fell asleep", asleep.elapsed().as_secs_f64());
    bed.cluster.wait_for_running("shop", 2, LATER).await?;
    quiet(&successor).await?;
    let before = calls_by(bed, "alpha").len();
    sleeper.thaw()?;
    sleeper.wait_for_status("to stand by", SOON, |status| (status["role"]["role"] == "standby").then_some(())).await?;
    holds("the awakened one does nothing", Duration::from_secs(5), async || {
        let calls = calls_by(bed, "alpha");
        let acts = calls[before..].iter().find(|call| {
            matches!(call.action.as_str(), "CreateFleet" | "TerminateInstances")
                || (call.action == "TransactWriteItems" && call.took_effect())
        });
        Ok(acts.map_or(Seen::Done(()), |call| Seen::NotYet(call.to_string())))
    })
    .await?;
    ensure!(launched_since(bed, mark) == 1, "one node was needed: {} were bought", launched_since(bed, mark));
    consistent(bed, 2).await
}

/// The connection breaks before and after CreateFleet took effect: exactly one instance each time.
pub async fn cut_connections(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 6, scale_down: false, ..Configuration::default() };
    let daemon = fleet(bed, &configuration).await?;
    bed.cluster.apply(&Workload::new("shop", 1, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 1, SOON).await?;
    for (pods, when) in [(2, When::Before), (3, When::After)] {
        let mark = bed.proxy.mark();
        bed.proxy.faults.cut_next(Matcher::action("CreateFleet"), when);
        bed.cluster.scale("shop", pods).await?;
        bed.cluster.wait_for_running("shop", pods, LATER).await?;
        quiet(&daemon).await?;
        let calls: Vec<_> = bed.proxy.calls_of("CreateFleet").into_iter().filter(|call| call.number > mark).collect();
        ensure!(calls.len() >= 2, "{when:?}: the cut call was not repeated");
        let tokens: std::collections::BTreeSet<_> = calls.iter().map(|call| call.parameter("ClientToken").map(str::to_owned)).collect();
        ensure!(tokens.len() == 1, "{when:?}: the repetition had another token: {tokens:?}");
        ensure!(launched_since(bed, mark) == 1, "{when:?}: {:?}", launches_since(bed, mark));
        consistent(bed, pods).await?;
    }
    Ok(())
}

/// Paused: nothing starts and what was in flight finishes; still paused after a restart and after a failover.
pub async fn paused(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 5, ..Configuration::default().hasty().short_lease() };
    let toml = configuration.toml(bed);
    bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.1, memory: 0.1 });
    let mut alpha = fleet(bed, &configuration).await?;
    bed.cluster.apply(&Workload::new("shop", 1, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 1, SOON).await?;
    let mark = bed.proxy.mark();
    let hold = bed.proxy.faults.hold(Matcher::action("CreateFleet"), When::After);
    bed.cluster.scale("shop", 2).await?;
    hold.reached(SOON).await?;
    let (code, body) = alpha.post("/api/v1/pause", r#"{"reason":"maintenance"}"#).await?;
    ensure!(code == 200, "{code} {body}");
    hold.release();
    bed.cluster.wait_for_running("shop", 2, SOON).await.context("what was in flight was to finish")?;
    quiet(&alpha).await?;

    bed.cluster.scale("shop", 4).await?;
    bed.cluster.wait_for_unschedulable("shop", 2, SOON).await?;
    nothing_starts(bed, mark, 1, "while paused").await?;
    let code = alpha.terminate(Duration::from_secs(10)).await?;
    ensure!(code == 0, "SIGTERM ended it with {code}");
    let mut alpha = bed.start_daemon("alpha", &toml)?;
    leads(&alpha, SOON).await?;
    nothing_starts(bed, mark, 1, "after a restart").await?;
    let mut number = 0;
    let standby = another(bed, &toml, &mut number).await?;
    alpha.kill()?;
    leads(&standby, TAKEOVER).await?;
    nothing_starts(bed, mark, 1, "after a failover").await?;
    let status = standby.get_json("/api/v1/status").await?;
    ensure!(status["pause"]["reason"] == "maintenance", "{}", status["pause"]);
    ensure!(under_way(&status).is_empty(), "{status}");
    let (code, body) = standby.post("/api/v1/resume", "").await?;
    ensure!(code == 200, "{code} {body}");
    bed.cluster.wait_for_running("shop", 4, SOON).await?;
    ensure!(launched_since(bed, mark) == 3, "{} instances", launched_since(bed, mark));
    Ok(())
}

async fn nothing_starts(bed: &Bed, mark: usize, launched: usize, what: &str) -> Result<()> {
    holds(&format!("nothing starts {what}"), Duration::from_secs(6), async || {
        let (now, gone) = (launched_since(bed, mark), terminated_since(bed, mark));
        Ok(if now == launched && gone.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("{now} launched, {gone:?} terminated")) })
    })
    .await
}
