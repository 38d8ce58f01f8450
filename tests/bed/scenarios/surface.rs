//! What operators and systemd see and do: check, status, pause, evaluate, reload, metrics; ready, watchdog, stop.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use kube::ResourceExt as _;
use tokio::net::UnixDatagram;

use super::fleet::{SOON, create_table, fleet, launched_since, leads, settled};
use crate::bed::Bed;
use crate::cluster::NAMESPACE;
use crate::configuration::Configuration;
use crate::daemon::Daemon;
use crate::offers::INSTANCE_TYPES;
use crate::proxy::faults::{Matcher, When};
use crate::wait::{Seen, until};
use crate::workload::Workload;

/// systemd kills what has not ended by then.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The command line and the HTTP surface agree with the world and with each other.
pub async fn operators(bed: &mut Bed) -> Result<()> {
    let secret = format!(
        "[prometheus.auth]\nusername = \"node-fleet\"\npassword = {{ secrets_manager = \"{}\", key = \"password\" }}\n",
        bed.account.secret_name
    );
    let min_node_age = "10m".to_owned();
    let configuration = Configuration { min: 1, max: 4, min_node_age, read_prices: true, more: secret, ..Configuration::default() };
    let toml = configuration.toml(bed);
    let missing = bed.run_command(&toml, &["check", "--config", "{config}", "--live"]).await?;
    ensure!(missing.code == 1 && missing.stdout.contains("FAIL  dynamodb"), "without its table: {missing:?}");
    let mut daemon = fleet(bed, &configuration).await?;
    let checked = bed.run_command(&toml, &["check", "--config", "{config}", "--live"]).await?;
    ensure!(checked.code == 0, "check --live: {}{}", checked.stdout, checked.stderr);
    println!("  {}", checked.stdout.lines().last().unwrap_or_default());
    ensure!(!checked.stdout.contains("correct horse"), "the secret is shown");
    let first = &configuration.instance_types[0];
    let listed = format!("{first} costs ${:.4}/h on demand", INSTANCE_TYPES[first].on_demand);
    ensure!(checked.stdout.contains(&listed), "the price list does not say that {listed}: {}", checked.stdout);

    let socket = daemon.socket().to_string_lossy().into_owned();
    let cli = async |bed: &Bed, arguments: &[&str]| {
        let all: Vec<&str> = arguments.iter().copied().chain(["--socket", &socket]).collect();
        let outcome = bed.run_command(&toml, &all).await?;
        ensure!(outcome.code == 0, "{arguments:?}: {outcome:?}");
        Ok(outcome.stdout)
    };
    // What is shown is the latest turn's, and the node has joined since.
    until("a status with the node", SOON, async || {
        let status = cli(bed, &["status"]).await?;
        let found = status.contains("leader in epoch 1") && status.contains("pool workers: 1 ready of 1 wanted");
        Ok(if found { Seen::Done(()) } else { Seen::NotYet(status) })
    })
    .await?;
    costs_what_the_price_list_says(bed, &daemon).await?;
    cli(bed, &["pause", "--reason", "a look around"]).await?;
    let status = cli(bed, &["status"]).await?;
    ensure!(status.contains("PAUSED") && status.contains("a look around"), "{status}");
    ensure!(cli(bed, &["evaluate"]).await?.contains("[held: paused"), "an evaluation says nothing of the pause");
    cli(bed, &["resume"]).await?;
    ensure!(!cli(bed, &["status"]).await?.contains("PAUSED"), "still paused");

    bed.cluster.apply(&Workload::new("giant", 1, "500", "1Gi")).await?;
    let giant = bed.cluster.wait_for_unschedulable("giant", 1, SOON).await?.remove(0).name_any();
    until("an explanation of a pod that nothing can take", SOON, async || {
        let told = cli(bed, &["explain", "pod", &format!("{NAMESPACE}/{giant}")]).await.unwrap_or_else(|error| error.to_string());
        let found = told.contains("no node that can be launched would take it: not enough cpu");
        Ok(if found { Seen::Done(()) } else { Seen::NotYet(told) })
    })
    .await?;
    let node = bed.cluster.wait_for_ready_workers(1, SOON).await?.remove(0);
    let told = cli(bed, &["explain", "node", &node]).await?;
    ensure!(told.starts_with(&format!("node {node}: it stays: it is younger than")), "{told}");
    let told = cli(bed, &["explain", "offers"]).await?;
    ensure!(told.contains(" offers can be bought"), "{told}");
    let nobody = bed.run_command(&toml, &["explain", "node", "nobody", "--socket", &socket]).await?;
    ensure!(nobody.code != 0 && nobody.stderr.contains("there is no node nobody"), "{nobody:?}");
    bed.cluster.remove("giant").await?;

    let refused = reqwest::Client::new().post(format!("{}/api/v1/pause", daemon.url())).send().await?.status();
    ensure!(refused == 403, "a change over TCP without a token: {refused}");
    until("the metrics of a fleet whose sources answer", SOON, async || {
        cli(bed, &["evaluate"]).await?;
        let (code, metrics) = daemon.get("/metrics").await?;
        ensure!(code == 200 && metrics.ends_with("# EOF\n"), "{code} {metrics:.200}");
        let samples = [
            "node_fleet_leader 1",
            "node_fleet_nodes{pool=\"workers\",state=\"ready\"} 1",
            "node_fleet_source_up{source=\"prometheus\"} 1",
        ];
        let missing: Vec<&str> = samples.into_iter().filter(|sample| !metrics.contains(sample)).collect();
        Ok(if missing.is_empty() { Seen::Done(()) } else { Seen::NotYet(format!("without {missing:?}")) })
    })
    .await?;
    reload(&daemon, &toml).await?;
    let ledger = settled(bed, &daemon).await?;
    ensure!(!ledger.state.is_paused && ledger.operations.len() == 1, "one node was to be bought: {:?}", ledger.operations);
    let code = daemon.terminate(STOP_LIMIT).await?;
    ensure!(code == 0, "SIGTERM ended it with {code}");
    let lock = bed.ledger().await?.lock;
    ensure!(lock.is_none(), "the lease was not given back: {lock:?}");
    Ok(())
}

/// systemd is told that the daemon is ready, that it lives for as long as it does, and that it stops.
pub async fn under_systemd(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, interval: "1s".to_owned(), scale_down: false, ..Configuration::default() };
    let toml = configuration.toml(bed);
    create_table(bed, &toml).await?;
    let path = bed.folder().join("notify.sock");
    let socket = UnixDatagram::bind(&path).context("the socket of systemd")?;
    // It is to be fed every second.
    let environment = [("NOTIFY_SOCKET", path.to_string_lossy().into_owned()), ("WATCHDOG_USEC", "3000000".to_owned())];
    let mut daemon = bed.start_daemon_under("alpha", &toml, &environment)?;
    let mut told = Vec::new();
    hear(&socket, &mut told, "READY=1", 1).await?;
    ensure!(!told.iter().any(|line| line == "WATCHDOG=1"), "the watchdog was fed before it was ready: {told:?}");
    hear(&socket, &mut told, "WATCHDOG=1", 3).await?;
    until("a status line for a leader", SOON, async || {
        let fed = told.iter().filter(|line| *line == "WATCHDOG=1").count();
        hear(&socket, &mut told, "WATCHDOG=1", fed + 1).await?;
        let leads = told.iter().any(|line| line.starts_with("STATUS=leading in epoch 1"));
        Ok(if leads { Seen::Done(()) } else { Seen::NotYet(format!("{told:?}")) })
    })
    .await?;
    ensure!(!told.iter().any(|line| line == "STOPPING=1"), "it stops unasked: {told:?}");
    let code = daemon.terminate(STOP_LIMIT).await?;
    ensure!(code == 0, "SIGTERM ended it with {code}");
    hear(&socket, &mut told, "STOPPING=1", 1).await?;
    ensure!(told.iter().filter(|line| *line == "READY=1").count() == 1, "it was ready more than once: {told:?}");
    Ok(())
}

/// Listens until systemd has been told something so many times in all.
async fn hear(socket: &UnixDatagram, told: &mut Vec<String>, what: &str, times: usize) -> Result<()> {
    let mut buffer = [0; 4096];
    let listening = async {
        while told.iter().filter(|line| *line == what).count() < times {
            let length = socket.recv(&mut buffer).await?;
            told.extend(String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned));
        }
        anyhow::Ok(())
    };
    let heard = tokio::time::timeout(SOON, listening).await.unwrap_or_else(|_| Err(anyhow!("it did not come")));
    heard.with_context(|| format!("{what} was to be told to systemd {times} times, which was told {told:?}"))
}

/// SIGTERM while a launch waits for EC2's answer: over in time, and a successor finishes the launch.
pub async fn stopped_in_the_middle(bed: &mut Bed) -> Result<()> {
    let configuration = Configuration { min: 1, max: 4, scale_down: false, ..Configuration::default() }.blind_to_cpu();
    let toml = configuration.toml(bed);
    let mut daemon = fleet(bed, &configuration).await?;
    bed.cluster.apply(&Workload::new("shop", 1, "1500m", "256Mi")).await?;
    bed.cluster.wait_for_running("shop", 1, SOON).await?;
    let before = settled(bed, &daemon).await?;
    let mark = bed.proxy.mark();
    let hold = bed.proxy.faults.hold(Matcher::action("CreateFleet"), When::Before);
    bed.cluster.scale("shop", 2).await?;
    let sent = hold.reached(SOON).await?;
    let asked = Instant::now();
    let code = daemon.terminate(STOP_LIMIT).await?;
    println!("  ended {:.1} s after SIGTERM, with a launch in hand", asked.elapsed().as_secs_f64());
    ensure!(code == 0, "SIGTERM ended it with {code}");
    let lock = bed.ledger().await?.lock;
    ensure!(lock.is_none(), "the lease was not given back: {lock:?}");
    // What is on its way takes effect, whoever is left to hear of it.
    hold.release();
    let successor = bed.start_daemon("beta", &toml)?;
    leads(&successor, SOON).await?;
    bed.cluster.wait_for_running("shop", 2, SOON).await?;
    let after = settled(bed, &successor).await?;
    let launch = after.operation(sent.parameter("ClientToken").context("no client token")?)?;
    ensure!(launch.state == "done" && (launch.epoch, launch.writer_epoch) == (1, 2), "the successor was to finish it: {launch}");
    ensure!(after.operations.len() == before.operations.len() + 1, "{:?}", after.operations);
    ensure!(launched_since(bed, mark) == 1, "one node was needed: {} were bought", launched_since(bed, mark));
    Ok(())
}

/// A bad file keeps the old settings and says so; a good one is taken.
async fn reload(daemon: &crate::daemon::Daemon, toml: &str) -> Result<()> {
    let file = daemon.log().with_extension("toml");
    ensure!(file.exists(), "{} is not the daemon's configuration", file.display());
    fs::write(&file, toml.replace("max = 4", "max = 0"))?;
    daemon.reload()?;
    let error = daemon.wait_for_status("a refused reload", SOON, |status| status["reload_error"].as_str().map(str::to_owned)).await?;
    ensure!(error.contains("pool.workers.max = 0"), "{error}");
    ensure!(daemon.metric("node_fleet_config_reload_failed", &[]).await? == Some(1.0), "no metric says it");
    fs::write(&file, toml.replace("max = 4", "max = 5").replace("table = \"node-fleet\"", "table = \"another\""))?;
    daemon.reload()?;
    daemon.wait_for_status("a refused table", SOON, |status| status["reload_error"].as_str()?.contains("[ledger]").then_some(())).await?;
    fs::write(&file, toml.replace("max = 4", "max = 5"))?;
    daemon.reload()?;
    until("the new maximum", SOON, async || {
        let status = daemon.get_json("/api/v1/status").await?;
        let max = &status["plan"]["pools"][0]["max"];
        Ok(if *max == 5 && status["reload_error"].is_null() { Seen::Done(()) } else { Seen::NotYet(format!("{max}")) })
    })
    .await
}

/// The pool's one node, which is on demand, costs what the price list says, and not what the table says.
async fn costs_what_the_price_list_says(bed: &Bed, daemon: &Daemon) -> Result<()> {
    let workers = bed.cluster.workers().await?;
    let labels = workers.values().next().and_then(|node| node.metadata.labels.as_ref()).context("a worker with labels")?;
    let kind = labels.get("node.kubernetes.io/instance-type").context("its type")?;
    let listed = INSTANCE_TYPES[kind].on_demand;
    let status = daemon.get_json("/api/v1/status").await?;
    let price = &status["plan"]["pools"][0]["price"];
    ensure!(price.as_f64().is_some_and(|price| (price / 1e6 - listed).abs() < 2e-6), "{kind} costs {listed}, and not {price}");
    Ok(())
}
