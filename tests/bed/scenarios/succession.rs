//! Two daemons, of which one acts, whatever happens to it and at whatever moment.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::fleet::{
    LATER, SOON, calls_by, faces, fleet, journal, launched_since, launches_since, leads, pause, quiet, resume, settled, terminated_since,
    under_way,
};
use crate::bed::Bed;
use crate::cluster::is_cordoned;
use crate::configuration::Configuration;
use crate::daemon::{Daemon, access_key};
use crate::exporter::Load;
use crate::ledger::Ledger;
use crate::proxy::call::Call;
use crate::proxy::capacity::Offers;
use crate::proxy::faults::{Hold, Matcher, When};
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

/// A leader and its standby.
struct Pair {
    toml: String,
    leader: Daemon,
    standby: Daemon,
    number: usize,
    kills: usize,
    slowest: Duration,
}

impl Pair {
    /// One node, one pod on it, and two daemons.
    async fn start(bed: &mut Bed, configuration: &Configuration) -> Result<Self> {
        let toml = configuration.toml(bed);
        bed.exporter.set_load_of_all(Load::Fixed { cpu: 0.1, memory: 0.1 });
        let leader = fleet(bed, configuration).await?;
        let mut number = 0;
        let standby = another(bed, &toml, &mut number).await?;
        bed.cluster.apply(&Workload::new("shop", 1, "1500m", "256Mi")).await?;
        bed.cluster.wait_for_running("shop", 1, SOON).await?;
        settled(bed, &leader).await?;
        Ok(Self { toml, leader, standby, number, kills: 0, slowest: Duration::ZERO })
    }

    /// Kills the leader while one of its calls is held, and waits until the standby leads.
    async fn kill(&mut self, hold: Hold) -> Result<()> {
        self.leader.kill()?;
        let killed = Instant::now();
        hold.cut();
        leads(&self.standby, TAKEOVER).await?;
        self.slowest = self.slowest.max(killed.elapsed());
        self.kills += 1;
        Ok(())
    }

    /// Holds the world against the ledger once the standby has finished what the leader began, and starts the next one.
    async fn succeed(&mut self, bed: &mut Bed, before: &Ledger, count: usize) -> Result<Ledger> {
        let after = settled(bed, &self.standby).await?;
        ensure!(after.epoch == before.epoch + 1, "one takeover led from epoch {} to {}", before.epoch, after.epoch);
        consistent(bed, count).await?;
        let next = another(bed, &self.toml, &mut self.number).await?;
        self.leader = std::mem::replace(&mut self.standby, next);
        Ok(after)
    }

    fn tell(&self) {
        println!("  {} kills; the slowest takeover took {:.1} s", self.kills, self.slowest.as_secs_f64());
    }
}

/// How many operations of a kind have come to this end since.
fn more(after: &Ledger, before: &Ledger, kind: &str, state: &str) -> usize {
    after.of(kind, state).len().saturating_sub(before.of(kind, state).len())
}

/// SIGKILL of the leader at each journalled step of a launch and of a retirement.
pub async fn killed_at_every_step(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 4, node_rest: "2s".to_owned(), ..Configuration::default().hasty().short_lease() };
    let mut pair = Pair::start(bed, &configuration).await?;
    for (name, launch, retire) in moments() {
        for when in [When::Before, When::After] {
            let what = format!("killed at a launch ({name}, {when:?})");
            let (mark, before) = (bed.proxy.mark(), bed.ledger().await?);
            let hold = bed.proxy.faults.hold(launch.clone(), when);
            bed.cluster.scale("shop", 2).await?;
            hold.reached(LATER).await.with_context(|| what.clone())?;
            pair.kill(hold).await.with_context(|| what.clone())?;
            bed.cluster.wait_for_running("shop", 2, LATER).await.with_context(|| what.clone())?;
            let after = pair.succeed(bed, &before, 2).await.with_context(|| what.clone())?;
            ensure!(launched_since(bed, mark) == 1, "{what}: {} instances were launched, not 1", launched_since(bed, mark));
            let ended = (more(&after, &before, "launch", "done"), after.operations.len() - before.operations.len());
            ensure!(ended == (1, 1), "{what}: {} launches and {} operations instead of one", ended.0, ended.1);

            let what = format!("killed at a retirement ({name}, {when:?})");
            let (mark, before) = (bed.proxy.mark(), after);
            let hold = bed.proxy.faults.hold(retire.clone(), when);
            bed.cluster.scale("shop", 1).await?;
            hold.reached(LATER).await.with_context(|| what.clone())?;
            pair.kill(hold).await.with_context(|| what.clone())?;
            one_worker(bed).await.with_context(|| what.clone())?;
            let after = pair.succeed(bed, &before, 1).await.with_context(|| what.clone())?;
            ensure!(terminated_since(bed, mark).len() == 1, "{what}: {:?} were terminated, not one", terminated_since(bed, mark));
            ensure!(launched_since(bed, mark) == 0, "{what}: something was bought");
            let ended = (more(&after, &before, "retire", "done"), more(&after, &before, "retire", "rolled_back"));
            // A decision that nobody has begun to carry out is too old by then, and is made anew.
            ensure!(ended.0 == 1 && ended.1 <= 1, "{what}: {} retirements were done and {} rolled back", ended.0, ended.1);
            ensure!(after.operations.len() - before.operations.len() == ended.0 + ended.1, "{what}: {:?}", after.operations);
            bed.cluster.wait_for_running("shop", 1, SOON).await?;
        }
    }
    pair.tell();
    Ok(())
}

/// SIGKILL of the leader where a launch fails and where a retirement turns back.
pub async fn killed_when_it_goes_wrong(bed: &mut Bed) -> Result<()> {
    let rest = "2s".to_owned();
    let configuration =
        Configuration { min: 1, max: 4, offer_rest: rest.clone(), node_rest: rest, ..Configuration::default().hasty().short_lease() };
    let mut pair = Pair::start(bed, &configuration).await?;
    for when in [When::Before, When::After] {
        let what = format!("killed at a launch that failed ({when:?})");
        let (mark, before) = (bed.proxy.mark(), bed.ledger().await?);
        bed.proxy.limit_capacity(Offers::all(), 0);
        let hold = bed.proxy.faults.hold(journal("launch", "failed"), when);
        bed.cluster.scale("shop", 2).await?;
        hold.reached(LATER).await.with_context(|| what.clone())?;
        bed.proxy.unlimited_capacity();
        pair.kill(hold).await.with_context(|| what.clone())?;
        bed.cluster.wait_for_running("shop", 2, LATER).await.with_context(|| what.clone())?;
        let after = pair.succeed(bed, &before, 2).await.with_context(|| what.clone())?;
        ensure!(launched_since(bed, mark) == 1, "{what}: {} instances were launched, not 1", launched_since(bed, mark));
        let ended = (more(&after, &before, "launch", "failed"), more(&after, &before, "launch", "done"));
        ensure!(ended == (1, 1), "{what}: {} launches failed and {} went well, instead of one each", ended.0, ended.1);

        let what = format!("killed at a retirement that turned back ({when:?})");
        let (mark, before) = (bed.proxy.mark(), after);
        let begun = bed.proxy.faults.hold(journal("retire", "draining"), When::Before);
        bed.cluster.scale("shop", 1).await?;
        begun.reached(LATER).await.with_context(|| what.clone())?;
        let node = cordoned(bed).await.with_context(|| what.clone())?;
        let hold = bed.proxy.faults.hold(journal("retire", "rolling_back"), when);
        bed.cluster.annotate_node(&node, KEEP, Some("true")).await?;
        begun.release();
        hold.reached(LATER).await.with_context(|| what.clone())?;
        pair.kill(hold).await.with_context(|| what.clone())?;
        bed.cluster.wait_for_node(&node, "to be back in service", LATER, |node| node.is_some_and(|node| !is_cordoned(node))).await?;
        let instance = node.trim_start_matches("worker-");
        ensure!(!terminated_since(bed, mark).contains(instance), "{what}: {instance} was terminated all the same");
        bed.cluster.annotate_node(&node, KEEP, None).await?;
        one_worker(bed).await.with_context(|| what.clone())?;
        let after = pair.succeed(bed, &before, 1).await.with_context(|| what.clone())?;
        ensure!(launched_since(bed, mark) == 0, "{what}: something was bought");
        let ended = (more(&after, &before, "retire", "rolled_back"), more(&after, &before, "retire", "done"));
        ensure!(ended == (1, 1), "{what}: {} retirements turned back and {} did not, instead of one each", ended.0, ended.1);
        bed.cluster.wait_for_running("shop", 1, SOON).await?;
    }
    pair.tell();
    Ok(())
}

const KEEP: &str = "node-fleet.io/do-not-remove";

/// The node that is out of service.
async fn cordoned(bed: &Bed) -> Result<String> {
    until("a cordoned node", SOON, async || {
        let workers = bed.cluster.workers().await?;
        let found = workers.into_iter().find(|(_, node)| is_cordoned(node));
        Ok(found.map_or_else(|| Seen::NotYet("none".to_owned()), |(name, _)| Seen::Done(name)))
    })
    .await
}

async fn one_worker(bed: &Bed) -> Result<()> {
    until("one worker", LATER, async || {
        let left = bed.cluster.workers().await?.len();
        Ok(if left == 1 { Seen::Done(()) } else { Seen::NotYet(format!("{left}")) })
    })
    .await
}

/// With the times that are shipped, too, a standby takes over in time.
pub async fn shipped_lease(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 4, scale_down: false, ..Configuration::default().shipped_lease() };
    let mut pair = Pair::start(bed, &configuration).await?;
    let before = bed.ledger().await?;
    let hold = bed.proxy.faults.hold(Matcher::action("CreateFleet"), When::After);
    bed.cluster.scale("shop", 2).await?;
    hold.reached(SOON).await?;
    pair.kill(hold).await?;
    bed.cluster.wait_for_running("shop", 2, LATER).await?;
    let after = pair.succeed(bed, &before, 2).await?;
    ensure!(more(&after, &before, "launch", "done") == 1, "{:?}", after.operations);
    pair.tell();
    Ok(())
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

/// When a leader falls asleep, and when what it has sent goes on.
struct Sleep {
    what: &'static str,
    call: Matcher,
    when: When,
    /// The held call goes on after the takeover, and not at once.
    is_late: bool,
}

/// The moments at which a leader falls asleep.
fn sleeps() -> [Sleep; 3] {
    let create = || Matcher::action("CreateFleet");
    [
        Sleep { what: "before it sends", call: journal("launch", "journalled"), when: When::After, is_late: false },
        Sleep { what: "before it hears", call: create(), when: When::After, is_late: true },
        Sleep { what: "while its request is on its way", call: create(), when: When::Before, is_late: true },
    ]
}

/// A leader that is stopped for longer than its lease and goes on does nothing any more, and what it had sent has one effect.
pub async fn awakened(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 6, scale_down: false, ..Configuration::default().short_lease() };
    let Pair { mut leader, mut standby, .. } = Pair::start(bed, &configuration).await?;
    for (index, sleep) in sleeps().into_iter().enumerate() {
        let pods = index + 2;
        asleep(bed, &leader, &standby, pods, sleep).await?;
        std::mem::swap(&mut leader, &mut standby);
    }
    Ok(())
}

/// One sleep of the leader, while it launches a node for one pod more.
async fn asleep(bed: &Bed, sleeper: &Daemon, successor: &Daemon, pods: usize, sleep: Sleep) -> Result<()> {
    let Sleep { what, call, when, is_late } = sleep;
    let (mark, before) = (bed.proxy.mark(), bed.ledger().await?);
    let hold = bed.proxy.faults.hold(call.by(&access_key(&sleeper.name)), when);
    bed.cluster.scale("shop", pods).await?;
    let sent = hold.reached(SOON).await.context(what)?;
    sleeper.freeze().await?;
    let fell_asleep = Instant::now();
    let late = if is_late {
        Some(hold)
    } else {
        hold.release();
        None
    };
    leads(successor, TAKEOVER).await?;
    println!("  {what}: taken over {:.1} s after the leader fell asleep", fell_asleep.elapsed().as_secs_f64());
    bed.cluster.wait_for_running("shop", pods, LATER).await?;
    if let Some(hold) = late {
        hold.release();
        let goes_on = |call: &Call| call.number == sent.number;
        bed.proxy.wait_for("the call to go on", mark, SOON, goes_on).await?;
    }
    let after = settled(bed, successor).await?;
    ensure!(after.epoch == before.epoch + 1, "{what}: from epoch {} to {}", before.epoch, after.epoch);
    ensure!(more(&after, &before, "launch", "done") == 1, "{what}: {:?}", after.operations);

    let (calls, nodes) = (calls_by(bed, &sleeper.name).len(), faces(&bed.cluster).await?);
    sleeper.thaw()?;
    sleeper.wait_for_status("to stand by", SOON, |status| (status["role"]["role"] == "standby").then_some(())).await?;
    holds("the awakened one does nothing", Duration::from_secs(5), async || {
        let all = calls_by(bed, &sleeper.name);
        let acts = all[calls..].iter().find(|call| {
            matches!(call.action.as_str(), "CreateFleet" | "TerminateInstances")
                || (call.action == "TransactWriteItems" && call.took_effect())
        });
        let changed = faces(&bed.cluster).await? != nodes;
        Ok(match acts {
            Some(call) => Seen::NotYet(call.to_string()),
            None if changed => Seen::NotYet("a node was changed".to_owned()),
            None => Seen::Done(()),
        })
    })
    .await
    .context(what)?;
    ensure!(launched_since(bed, mark) == 1, "{what}: one node was needed: {} were bought", launched_since(bed, mark));
    let end = settled(bed, successor).await?;
    ensure!(end.operations.len() == after.operations.len() && end.epoch == after.epoch, "{what}: {:?}", end.operations);
    consistent(bed, pods).await
}

/// The connection breaks before and after CreateFleet took effect: exactly one instance each time.
pub async fn cut_connections(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 6, scale_down: false, ..Configuration::default() }.blind_to_cpu();
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
        let ledger = settled(bed, &daemon).await?;
        let token = tokens.into_iter().next().flatten().context("no client token")?;
        ensure!(ledger.operation(&token)?.state == "done", "{when:?}: {:?}", ledger.operations);
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
    pause(&alpha, "maintenance").await?;
    hold.release();
    bed.cluster.wait_for_running("shop", 2, SOON).await.context("what was in flight was to finish")?;
    quiet(&alpha).await?;

    bed.cluster.scale("shop", 4).await?;
    bed.cluster.wait_for_unschedulable("shop", 2, SOON).await?;
    nothing_starts(bed, mark, 1, "while paused").await?;
    let ledger = settled(bed, &alpha).await?;
    ensure!(ledger.state.is_paused && ledger.epoch == 1, "{:?} in epoch {}", ledger.state, ledger.epoch);
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
    let before = settled(bed, &standby).await?;
    ensure!(before.epoch == 3 && before.operations.len() == ledger.operations.len(), "{:?}", before.operations);
    resume(&standby).await?;
    bed.cluster.wait_for_running("shop", 4, SOON).await?;
    ensure!(launched_since(bed, mark) == 3, "{} instances", launched_since(bed, mark));
    let after = settled(bed, &standby).await?;
    ensure!(!after.state.is_paused, "the ledger has the pause still");
    let new = after.operations.iter().filter(|operation| before.operation(&operation.id).is_err());
    ensure!(new.clone().all(|operation| operation.epoch == 3 && operation.kind == "launch"), "{:?}", new.collect::<Vec<_>>());
    Ok(())
}

async fn nothing_starts(bed: &Bed, mark: usize, launched: usize, what: &str) -> Result<()> {
    holds(&format!("nothing starts {what}"), Duration::from_secs(6), async || {
        let (now, gone) = (launched_since(bed, mark), terminated_since(bed, mark));
        Ok(if now == launched && gone.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("{now} launched, {gone:?} terminated")) })
    })
    .await
}
