//! Users who come and go, by the real k6.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::{interval, sleep};

use super::fleet::{LATER, SOON, fleet, launched_since, quiet, settled};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::exporter::{Exporter, Load};
use crate::processes::Process;
use crate::tools::in_repository;
use crate::wait::{Seen, until};

/// How many times as fast as written the users of `tests/load/load-test.js` come and go.
const SPEED: u32 = 10;
/// How many users there are at the height.
const USERS: u32 = 100;
/// How long the workload works for one request.
const WORK: Duration = Duration::from_millis(400);
/// How many nodes' CPU the height keeps busy: above 70 % of three nodes, and below 70 % of four.
const HEIGHT: f64 = 2.35;

/// A small HTTP workload: how many requests it works for at this moment.
#[derive(Clone, Default)]
struct Shop(Arc<AtomicU32>);

impl Shop {
    /// Serves on a free port for as long as the process lives, and gives its address.
    async fn open(&self) -> Result<String> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().route("/", get(serve)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(format!("http://{address}/"))
    }

    /// Spreads what it costs to serve over the Ready workers, for as long as the task lives.
    async fn burden(self, bed: crate::cluster::Cluster, exporter: Exporter) {
        let mut beat = interval(Duration::from_millis(250));
        // Of each user's time the shop works for this share.
        let busy = WORK.as_secs_f64() / (WORK + Duration::from_millis(100)).as_secs_f64();
        let mut users = 0.0;
        loop {
            beat.tick().await;
            users += (f64::from(self.0.load(Ordering::Relaxed)) / busy - users) / 4.0;
            let Ok(workers) = bed.workers().await else { continue };
            let ready = workers.values().filter(|node| crate::cluster::is_ready(node)).count().max(1);
            let cpu = users / f64::from(USERS) * HEIGHT / ready as f64;
            exporter.set_load_of_all(Load::Fixed { cpu: cpu.clamp(0.02, 1.0), memory: 0.2 });
        }
    }
}

/// One request that is worked for; it counts until it is answered, or nobody waits for it any more.
struct Working(Arc<AtomicU32>);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(State(shop): State<Shop>) -> &'static str {
    shop.0.fetch_add(1, Ordering::Relaxed);
    let _working = Working(shop.0);
    sleep(WORK).await;
    "sold"
}

/// A hundred users come, stay and leave: the fleet goes from two nodes to four, and back to two.
pub async fn users_come_and_go(bed: &mut Bed) -> Result<()> {
    let shop = Shop::default();
    let target = shop.open().await?;
    let configuration = Configuration { max: 4, ..Configuration::default().hasty() };
    let burden = tokio::spawn(shop.burden(bed.cluster.clone(), bed.exporter.clone()));
    let outcome = follow(bed, &configuration, &target).await;
    burden.abort();
    outcome
}

async fn follow(bed: &mut Bed, configuration: &Configuration, target: &str) -> Result<()> {
    let daemon = fleet(bed, configuration).await?;
    let mark = bed.proxy.mark();
    let script = in_repository("tests/load/load-test.js").canonicalize().context("the load test")?;
    let variables = [("TARGET", target.to_owned()), ("USERS", USERS.to_string()), ("SPEED", SPEED.to_string())];
    let arguments: Vec<String> = ["run", "--quiet", "--no-color", "--no-usage-report", "--address", ""].map(str::to_owned).to_vec();
    let arguments = arguments.into_iter().chain(variables.iter().flat_map(|(key, value)| ["-e".to_owned(), format!("{key}={value}")]));
    let arguments: Vec<String> = arguments.chain([script.display().to_string()]).collect();
    let mut k6 = Process::start("k6", &bed.tools.k6, &arguments, &[], &bed.folder().join("k6.log"))?;
    let most = bed.cluster.wait_for_ready_workers(4, LATER).await?;
    println!("  {} nodes while the users are there", most.len());
    let code =
        until("k6 to end", LATER + SOON, async || Ok(k6.exit_code()?.map_or_else(|| Seen::NotYet("it runs".to_owned()), Seen::Done)))
            .await?;
    let said = std::fs::read_to_string(k6.log()).context("what k6 says")?;
    ensure!(code == 0, "k6 ends with {code}: {said}");
    let lines = said.lines().filter(|line| line.contains("http_reqs") || line.contains("http_req_duration")).map(str::trim);
    println!("  k6: {}", lines.collect::<Vec<_>>().join("; "));
    bed.cluster.wait_for_ready_workers(2, LATER).await?;
    quiet(&daemon).await?;
    let ledger = settled(bed, &daemon).await?;
    let (launched, retired) = (launched_since(bed, mark), ledger.of("retire", "done").len());
    // While new nodes warm up the old ones are as busy as before: one more may come, and goes again.
    ensure!((2..=3).contains(&launched) && retired == launched, "{launched} launched, {retired} retired: {:?}", ledger.operations);
    println!("  {launched} nodes came and went");
    Ok(())
}
