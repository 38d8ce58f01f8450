//! The embedded world against reality: the same scripts, played here and there, lead to the same decisions
//! and the same calls. Where they do not, the embedded world is wrong.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use node_fleet::model::Market as Buys;
use node_fleet::model::{Bytes, MilliCpu, Resources};
use node_fleet::sim::front::{Scenario, Stage};
use serde_json::Value;
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::fleet::{LATER, SOON, create_table, quiet};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::events::spot_interruption;
use crate::offers::{Market, ZONES};
use crate::proxy::capacity::Offers;
use crate::proxy::faults::{Matcher, When};
use crate::wait::{Seen, until};
use crate::workload::Workload;

/// What the daemon says of every request that changes something.
const CALLS: &str = "node_fleet::calls=debug";
const TYPES: [&str; 2] = ["m5.large", "m6i.large"];
const MIB: u64 = 1 << 20;
/// The workload that grows and shrinks.
const SHOP: &str = "shop";
/// One that keeps a node busy when the other is gone from it.
const TILL: &str = "till";
/// One that does as well, and whose pods take longer to end than any drain waits.
const VAULT: &str = "vault";

/// What happens in a script, one after the other.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A workload gets so many pods.
    Scale(&'static str, u32),
    /// So many pods of all workloads run, and no operation is under way.
    Running(u32),
    /// There are so many workers, and no operation is under way.
    Workers(usize),
    /// A removal was taken back.
    RolledBack,
    /// EC2 has nothing of this type, or on this market.
    Lacks(Option<&'static str>, Option<Buys>),
    /// The next machine becomes no node.
    NeverJoins,
    /// EC2 takes the spot machine back.
    Interrupt,
    /// The next launch takes effect, and its answer is lost.
    LoseAnswer,
    /// The next launch is refused for too many calls.
    Throttle,
}

struct Script {
    /// What each pod requests: thousandths of a core, and MiB.
    pod: (u64, u64),
    change: fn(Configuration) -> Configuration,
    steps: &'static [Step],
    /// Only the first so many operations are compared: later ones depend on when one looks.
    operations: usize,
}

const ALL: usize = usize::MAX;
/// One such pod fits on a node, by its cores.
const WIDE: (u64, u64) = (1500, 256);
/// Three such pods fit on a node, by their memory.
const TALL: (u64, u64) = (300, 1950);

fn growing(configuration: Configuration) -> Configuration {
    Configuration { scale_down: false, up_sustain: "10m".to_owned(), offer_rest: "60s".to_owned(), ..configuration }
}

fn shrinking(configuration: Configuration) -> Configuration {
    Configuration { up_sustain: "10m".to_owned(), node_rest: "10m".to_owned(), ..configuration.hasty() }
}

/// Pods that find no node get nodes, over zones and markets.
pub async fn pods_get_nodes(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Scale(SHOP, 5), Step::Running(5)];
    compare(bed, &Script { pod: WIDE, change: growing, steps, operations: ALL }).await
}

/// Many pods reach the maximum.
pub async fn the_maximum_holds(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Scale(SHOP, 7), Step::Workers(4)];
    let change = |configuration| Configuration { max: 4, ..growing(configuration) };
    compare(bed, &Script { pod: WIDE, change, steps, operations: ALL }).await
}

/// Empty nodes go down to the minimum.
pub async fn empty_nodes_go(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Scale(SHOP, 4), Step::Running(4), Step::Scale(SHOP, 0), Step::Workers(2)];
    compare(bed, &Script { pod: WIDE, change: shrinking, steps, operations: ALL }).await
}

/// A node with a pod is drained.
pub async fn a_node_is_drained(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Scale(SHOP, 6), Step::Running(6), Step::Scale(TILL, 1), Step::Running(7), Step::Scale(SHOP, 4), Step::Workers(2)];
    compare(bed, &Script { pod: TALL, change: shrinking, steps, operations: ALL }).await
}

/// A pod that does not end, and the drain is taken back.
pub async fn a_drain_is_taken_back(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Scale(SHOP, 6), Step::Running(6), Step::Scale(VAULT, 1), Step::Running(7), Step::Scale(SHOP, 4), Step::RolledBack];
    compare(bed, &Script { pod: TALL, change: shrinking, steps, operations: 4 }).await
}

/// A type is sold out.
pub async fn a_type_is_sold_out(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Lacks(Some("m5.large"), None), Step::Scale(SHOP, 4), Step::Running(4)];
    compare(bed, &Script { pod: WIDE, change: growing, steps, operations: ALL }).await
}

/// Spot is sold out.
pub async fn spot_is_sold_out(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Lacks(None, Some(Buys::Spot)), Step::Scale(SHOP, 3), Step::Running(3)];
    compare(bed, &Script { pod: WIDE, change: growing, steps, operations: ALL }).await
}

/// A machine never becomes a node.
pub async fn a_machine_never_joins(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::NeverJoins, Step::Scale(SHOP, 3), Step::Running(3)];
    let change = |configuration| Configuration { join_timeout: "12s".to_owned(), ..growing(configuration) };
    compare(bed, &Script { pod: WIDE, change, steps, operations: ALL }).await
}

/// EC2 takes a spot machine back.
pub async fn a_machine_is_interrupted(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Scale(SHOP, 2), Step::Running(2), Step::Interrupt, Step::Running(2), Step::Workers(2)];
    compare(bed, &Script { pod: WIDE, change: growing, steps, operations: ALL }).await
}

/// The answer to a launch is lost.
pub async fn an_answer_is_lost(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::LoseAnswer, Step::Scale(SHOP, 3), Step::Running(3)];
    compare(bed, &Script { pod: WIDE, change: growing, steps, operations: ALL }).await
}

/// EC2 is asked too often.
pub async fn a_launch_is_throttled(bed: &mut Bed) -> Result<()> {
    let steps = &[Step::Throttle, Step::Scale(SHOP, 3), Step::Running(3)];
    compare(bed, &Script { pod: WIDE, change: growing, steps, operations: ALL }).await
}

async fn compare(bed: &mut Bed, script: &Script) -> Result<()> {
    let configuration = (script.change)(Configuration { instance_types: TYPES.map(str::to_owned).to_vec(), ..Configuration::default() });
    let toml = configuration.toml(bed);
    let real = play_on_the_bed(bed, script, &configuration, &toml).await.context("on the bed")?;
    let imagined = play_in_the_world(script, &toml, configuration.min as usize).context("in the embedded world")?;
    for line in &real {
        println!("  {line}");
    }
    ensure!(real == imagined, "the embedded world does otherwise:\n  {}", imagined.join("\n  "));
    Ok(())
}

async fn play_on_the_bed(bed: &mut Bed, script: &Script, configuration: &Configuration, toml: &str) -> Result<Vec<String>> {
    create_table(bed, toml).await?;
    let log = [("NODE_FLEET__LOG__LEVEL", format!("info,{CALLS}")), ("NODE_FLEET__LOG__FORMAT", "json".to_owned())];
    let mut daemon = bed.start_daemon_under("alpha", toml, &log)?;
    daemon.ready(SOON).await?;
    workers(bed, &daemon, configuration.min as usize).await?;
    let (cpu, memory) = (format!("{}m", script.pod.0), format!("{}Mi", script.pod.1));
    let mut pods = BTreeMap::new();
    for step in script.steps {
        match *step {
            Step::Scale(workload, replicas) => {
                pods.insert(workload, replicas as usize);
                bed.cluster
                    .apply(&Workload::new(workload, replicas as usize, &cpu, &memory).ending_in(&format!("{}s", grace(workload).as_secs())))
                    .await?;
            }
            Step::Running(_) => {
                for (workload, pods) in &pods {
                    bed.cluster.wait_for_running(workload, *pods, LATER).await?;
                    bed.cluster.leave_evenly(workload).await?;
                }
                quiet(&daemon).await?;
            }
            Step::Workers(nodes) => workers(bed, &daemon, nodes).await?,
            Step::RolledBack => rolled_back(bed).await?,
            Step::Lacks(name, market) => {
                let mut offers = Offers::all();
                offers = name.into_iter().fold(offers, Offers::of_type);
                let market = market.map(|market| if market == Buys::Spot { Market::Spot } else { Market::OnDemand });
                bed.proxy.limit_capacity(market.into_iter().fold(offers, Offers::on), 0);
            }
            Step::NeverJoins => bed.joiner.never_join(1),
            Step::Interrupt => {
                let spot = bed.joiner.living_workers().await?.into_iter().find(|worker| worker.is_spot).context("no spot machine")?;
                bed.notify(&spot_interruption(&spot.id)).await?;
                until("the machine to end", LATER, async || {
                    let gone = bed.joiner.living_workers().await?.iter().all(|worker| worker.id != spot.id);
                    Ok(if gone { Seen::Done(()) } else { Seen::NotYet("it lives".to_owned()) })
                })
                .await?;
            }
            Step::LoseAnswer => bed.proxy.faults.cut_next(Matcher::action("CreateFleet"), When::After),
            Step::Throttle => bed.proxy.faults.fail_next(Matcher::action("CreateFleet"), 1, "RequestLimitExceeded", 503),
        }
    }
    let ledger = bed.ledger().await?;
    let operations = ledger.operations.into_iter().map(|it| (it.id, it.kind, it.state, it.body)).collect();
    let calls = calls(&std::fs::read_to_string(daemon.log())?);
    // What the daemon says that it sends is what arrives.
    for (said, arrived) in [("launch", "CreateFleet"), ("terminate", "TerminateInstances")] {
        let said = calls.values().flatten().filter(|call| *call == said).count();
        let arrived = bed.proxy.calls_of(arrived).len();
        ensure!(said == arrived, "the daemon permits itself {said} calls where {arrived} arrive at EC2");
    }
    Ok(tell(operations, &calls, script.operations))
}

/// How long the pods of a workload take to end.
fn grace(workload: &str) -> Duration {
    Duration::from_secs(if workload == VAULT { 600 } else { 1 })
}

async fn workers(bed: &Bed, daemon: &Daemon, nodes: usize) -> Result<()> {
    bed.cluster.wait_for_ready_workers(nodes, LATER).await?;
    quiet(daemon).await?;
    until("so many machines", LATER, async || {
        let living = bed.joiner.living_workers().await?.len();
        Ok(if living == nodes { Seen::Done(()) } else { Seen::NotYet(living.to_string()) })
    })
    .await
}

async fn rolled_back(bed: &Bed) -> Result<()> {
    until("a removal that is taken back", LATER, async || {
        let ledger = bed.ledger().await?;
        Ok(if ledger.of("retire", "rolled_back").is_empty() { Seen::NotYet("none".to_owned()) } else { Seen::Done(()) })
    })
    .await
}

/// Plays a script in memory, on a thread of its own: its clock is paused.
fn play_in_the_world(script: &Script, toml: &str, minimum: usize) -> Result<Vec<String>> {
    let config = node_fleet::config::parse(toml, "the bed's configuration", []).map_err(|problems| anyhow!("{problems}"))?;
    let (cpu, memory) = script.pod;
    let requests = Resources { cpu: MilliCpu(cpu), memory: Bytes(memory * MIB), pods: 1, ..Resources::default() };
    let workloads = [SHOP, TILL, VAULT].map(|workload| (workload, requests.clone(), grace(workload)));
    let scenario = Scenario::bare(node_fleet::cli::settings(&config, "alpha"), &ZONES, TYPES.to_vec(), &workloads);
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(EnvFilter::new(CALLS)).with_writer(log.clone()).finish();
    let steps = script.steps;
    let lived = std::thread::spawn(move || {
        tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?;
            runtime.block_on(live(scenario, steps, minimum))
        })
    });
    let operations = lived.join().map_err(|_| anyhow!("the world ended in a panic"))??;
    let operations = operations
        .into_iter()
        .map(|operation| {
            let body = serde_json::to_value(&operation)?;
            let kind = body["kind"].as_str().unwrap_or_default().to_owned();
            Ok((operation.id().to_string(), kind, operation.state_name().to_owned(), body))
        })
        .collect::<Result<_>>()?;
    Ok(tell(operations, &calls(&log.text()), script.operations))
}

async fn live(scenario: Scenario, steps: &[Step], minimum: usize) -> Result<Vec<node_fleet::model::Operation>> {
    const LIMIT: Duration = Duration::from_secs(600);
    let stage = Stage::begin(scenario);
    stage.workers(minimum, LIMIT).await.map_err(|error| anyhow!("{error}"))?;
    for step in steps {
        let done = match *step {
            Step::Scale(workload, replicas) => {
                stage.scale(workload, replicas);
                Ok(())
            }
            Step::Running(pods) => stage.running(pods as usize, LIMIT).await,
            Step::Workers(nodes) => stage.workers(nodes, LIMIT).await,
            Step::RolledBack => stage.rolled_back(LIMIT).await,
            Step::Lacks(name, market) => {
                stage.lack(name, market);
                Ok(())
            }
            Step::NeverJoins => {
                stage.never_join(1);
                Ok(())
            }
            Step::Interrupt => match stage.interrupt() {
                Ok(id) => stage.ended(&id, LIMIT).await,
                Err(error) => Err(error),
            },
            Step::LoseAnswer => {
                stage.lose_launch_answer();
                Ok(())
            }
            Step::Throttle => {
                stage.throttle_launches(1);
                Ok(())
            }
        };
        done.map_err(|error| anyhow!("{step:?}: {error}"))?;
    }
    let violations = stage.violations();
    ensure!(violations.is_empty(), "{violations:?}");
    Ok(stage.operations())
}

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Reads from a daemon's log which requests each operation has sent, in their order.
fn calls(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut calls: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if let (Some(operation), Some(call)) = (line["operation"].as_str(), line["call"].as_str()) {
            let of_this = calls.entry(operation.to_owned()).or_default();
            // How often a pod is asked to go, and how many nodes join at a time, are matters of the moment.
            let collapses = matches!(call, "record" | "create pods/eviction");
            if !(collapses && of_this.last().is_some_and(|last| last == call)) {
                of_this.push(call.to_owned());
            }
        }
    }
    calls
}

/// Tells what was decided and what was done about it, a line for each machine. Operations that began together are
/// carried out side by side, so the lines are sorted.
fn tell(mut operations: Vec<(String, String, String, Value)>, calls: &BTreeMap<String, Vec<String>>, first: usize) -> Vec<String> {
    let created = |body: &Value| body["created"].as_str().unwrap_or_default().to_owned();
    operations.sort_by_key(|(_, _, _, body)| created(body));
    let interrupted = operations.iter().find(|(_, _, _, body)| body["order"]["reason"]["why"] == "spot_interruption");
    let lost_since = interrupted.map(|(_, _, _, body)| created(body));
    let mut lines = Vec::new();
    for (id, kind, state, body) in operations.into_iter().take(first) {
        let order = &body["order"];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let [zone, market, mut why] = [&order["zone"], &order["market"], &order["reason"]["why"]].map(text);
        // The notice, the pods that wait and the minimum all ask for the same node; which comes first is a matter of
        // the moment.
        if kind == "launch" && lost_since.as_ref().is_some_and(|since| *since <= created(&body)) {
            "what was lost".clone_into(&mut why);
        }
        let calls = calls.get(&id).map(|calls| calls.join(", ")).unwrap_or_default();
        let end = body["failure"]["failure"].as_str().map_or(state, |failure| format!("failed: {failure}"));
        let what = match kind.as_str() {
            "launch" => format!("launch {market} in {zone} of {} for {why}", order["instance_types"]),
            // Which of equal nodes goes is a matter of their names.
            _ => format!("retire for {why}"),
        };
        let machines = order["count"].as_u64().unwrap_or(1);
        lines.extend((0..machines).map(|_| format!("{what}; {calls}; {end}")));
    }
    lines.sort();
    lines
}
