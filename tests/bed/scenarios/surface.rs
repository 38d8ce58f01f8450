//! What operators see and do: check, status, pause, evaluate, reload, metrics.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::fleet::{SOON, fleet};
use crate::bed::Bed;
use crate::configuration::Configuration;
use crate::wait::{Seen, until};

/// The command line and the HTTP surface agree with the world and with each other.
pub async fn operators(bed: &mut Bed) -> Result<()> {
    let secret = format!(
        "[prometheus.auth]\nusername = \"node-fleet\"\npassword = {{ secrets_manager = \"{}\", key = \"password\" }}\n",
        bed.account.secret_name
    );
    let configuration = Configuration { min: 1, max: 4, more: secret, ..Configuration::default() };
    let toml = configuration.toml(bed);
    let missing = bed.run_command(&toml, &["check", "--config", "{config}", "--live"]).await?;
    ensure!(missing.code == 1 && missing.stdout.contains("FAIL  dynamodb"), "without its table: {missing:?}");
    let mut daemon = fleet(bed, &configuration).await?;
    let checked = bed.run_command(&toml, &["check", "--config", "{config}", "--live"]).await?;
    ensure!(checked.code == 0, "check --live: {}{}", checked.stdout, checked.stderr);
    println!("  {}", checked.stdout.lines().last().unwrap_or_default());
    ensure!(!checked.stdout.contains("correct horse"), "the secret is shown");

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
    cli(bed, &["pause", "--reason", "a look around"]).await?;
    let status = cli(bed, &["status"]).await?;
    ensure!(status.contains("PAUSED") && status.contains("a look around"), "{status}");
    ensure!(cli(bed, &["evaluate"]).await?.contains("[held: paused"), "an evaluation says nothing of the pause");
    cli(bed, &["resume"]).await?;
    ensure!(!cli(bed, &["status"]).await?.contains("PAUSED"), "still paused");

    let refused = reqwest::Client::new().post(format!("{}/api/v1/pause", daemon.url())).send().await?.status();
    ensure!(refused == 403, "a change over TCP without a token: {refused}");
    let (code, metrics) = daemon.get("/metrics").await?;
    ensure!(code == 200 && metrics.ends_with("# EOF\n"), "{code} {metrics:.200}");
    for sample in
        ["node_fleet_leader 1", "node_fleet_nodes{pool=\"workers\",state=\"ready\"} 1", "node_fleet_source_up{source=\"prometheus\"} 1"]
    {
        ensure!(metrics.contains(sample), "/metrics lacks {sample}:\n{metrics}");
    }
    reload(&daemon, &toml).await?;
    let code = daemon.terminate(Duration::from_secs(10)).await?;
    ensure!(code == 0, "SIGTERM ended it with {code}");
    let held = bed.aws.dynamodb.get_item().table_name("node-fleet");
    let key = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let lock = held.key("cluster_id", key(&bed.cluster_id)).key("record", key("lock")).send().await?;
    ensure!(lock.item().is_none(), "the lease was not given back: {:?}", lock.item());
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
