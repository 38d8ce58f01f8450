//! `node-fleet check`: what is wrong with a configuration, or what it says.

use crate::config::{Config, load};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Checks the file under the environment of this process.
pub(super) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let env = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    match load(path, env) {
        Ok(config) => {
            write!(std::io::stdout().lock(), "{}", summary(path, &config))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(problems) => {
            let mut out = std::io::stderr().lock();
            writeln!(out, "{problems}")?;
            let number = problems.0.len();
            writeln!(out, "{number} problem{}", if number == 1 { "" } else { "s" })?;
            Ok(ExitCode::FAILURE)
        }
    }
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
    std::iter::once(head).chain(pools).chain([turn]).collect()
}
