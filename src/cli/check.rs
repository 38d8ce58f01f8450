//! `node-fleet check`: what is wrong with a configuration, or what it says, and whether the world agrees.

#[cfg(feature = "live")]
mod live;

use super::read;
use crate::config::Config;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What to check.
#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The configuration file.
    #[arg(long, value_name = "FILE", default_value = super::CONFIG)]
    config: PathBuf,
    /// Asks Kubernetes, Prometheus, DynamoDB, EC2, SQS and Secrets Manager as well, by reads and dry runs.
    #[cfg(feature = "live")]
    #[arg(long)]
    live: bool,
    /// Makes the DynamoDB table, unless it is there.
    #[cfg(feature = "live")]
    #[arg(long)]
    create_table: bool,
}

/// Checks the file under the environment of this process.
pub(super) fn run(check: &Check) -> anyhow::Result<ExitCode> {
    let path = &check.config;
    let config = match read(path)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    write!(std::io::stdout().lock(), "{}", summary(path, &config))?;
    #[cfg(feature = "live")]
    {
        if check.create_table {
            live::create_table(&config)?;
            writeln!(std::io::stdout().lock(), "  table {} is there", config.ledger.table)?;
        }
        if check.live {
            return world(&config);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a line for each thing that was asked for.
#[cfg(feature = "live")]
fn world(config: &Config) -> anyhow::Result<ExitCode> {
    let findings = live::probe(config)?;
    let mut out = std::io::stdout().lock();
    for finding in &findings {
        match &finding.outcome {
            Ok(None) => writeln!(out, "  ok    {}", finding.what)?,
            Ok(Some(remark)) => writeln!(out, "  ok    {}; {remark}", finding.what)?,
            Err(why) => writeln!(out, "  FAIL  {}: {why}", finding.what)?,
        }
    }
    let failed = findings.iter().filter(|finding| finding.outcome.is_err()).count();
    writeln!(out, "{} of {} checks passed", findings.len() - failed, findings.len())?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary(path: &Path, config: &Config) -> String {
    let head = format!("{} is fine\n  cluster {} in {}\n", path.display(), config.cluster.id, config.cluster.region);
    let pools = config.policy.pools.iter().zip(&config.pools).map(|(pool, launch)| {
        let types: Vec<&str> = launch.instance_types.iter().map(crate::model::InstanceType::as_str).collect();
        format!(
            "  pool {}: {} to {} workers, {:.0} % spot above {} on-demand, {} subnets, {}\n",
            pool.name,
            pool.min,
            pool.max,
            pool.spot_share * 100.0,
            pool.on_demand_base,
            launch.subnets.len(),
            types.join(", ")
        )
    });
    let turn = format!("  a turn every {:?}, lease {:?}, table {}\n", config.policy.interval, config.ledger.lease, config.ledger.table);
    let prices = &config.prices;
    let listed = prices.on_demand.len();
    let share = prices.spot_ratio * 100.0;
    let spot = if prices.read_spot { "as EC2 says, or else at" } else { "at" };
    let first = if prices.read_on_demand { "the price list's, or else those" } else { "those" };
    let prices = format!("  prices: {first} of {} for {listed} types; spot {spot} {share:.0} % of them\n", prices.as_of);
    std::iter::once(head).chain(pools).chain([turn, prices]).collect()
}
