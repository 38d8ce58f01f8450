//! Reads the configuration again on SIGHUP.

use crate::adapters::live::Live;
use crate::cli::settings;
use crate::config::{Config, load};
use crate::control::Settings;
use crate::observability::Instruments;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::{Notify, mpsc};

/// Follows the signal. What cannot be changed in a running daemon, and every file with a
/// problem, changes nothing and is reported. The token is read anew whatever the file says.
pub(super) async fn follow(
    path: PathBuf,
    mut config: Config,
    owner: String,
    world: Arc<Live<Instruments>>,
    mut hang_up: Signal,
    token: Arc<Notify>,
    reloads: mpsc::Sender<Result<Settings, String>>,
) {
    while hang_up.recv().await.is_some() {
        token.notify_one();
        let reloaded = match again(&path, &config) {
            Ok(new) => {
                config = new;
                world.reconfigure(&config);
                Ok(settings(&config, &owner))
            }
            Err(why) => Err(why),
        };
        if reloads.send(reloaded).await.is_err() {
            return;
        }
    }
}

fn again(path: &Path, old: &Config) -> Result<Config, String> {
    let new = load(path, super::super::environment()).map_err(|problems| problems.to_string())?;
    let fixed = fixed(old, &new);
    if fixed.is_empty() {
        return Ok(new);
    }
    Err(format!("{} cannot be changed while the daemon runs; restart it (systemctl restart node-fleet)", fixed.join(", ")))
}

/// Names what differs and takes a restart.
fn fixed(old: &Config, new: &Config) -> Vec<&'static str> {
    let parts = [
        ("[cluster]", old.cluster != new.cluster),
        ("[kubernetes]", old.kubernetes != new.kubernetes),
        ("[prometheus]", old.prometheus != new.prometheus),
        ("[ledger]", old.ledger != new.ledger),
        ("[notices]", old.notices != new.notices),
        ("[http]", old.http != new.http),
        ("[log]", old.log != new.log),
        ("[slack]", old.slack != new.slack),
        ("[cloudwatch]", old.cloudwatch != new.cloudwatch),
        ("evaluation.interval", old.policy.interval != new.policy.interval),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const EXAMPLE: &str = include_str!("../../../config/node-fleet.toml");

    fn example() -> Config {
        crate::config::parse(EXAMPLE, "f", []).unwrap_or_else(|problems| panic!("{problems}"))
    }

    #[test]
    fn what_takes_a_restart_is_named_and_the_rest_is_taken() {
        let old = example();
        let mut new = example();
        new.policy.pools[0].max = 20;
        new.operations.join_timeout = Duration::from_secs(1);
        assert_eq!(fixed(&old, &new), Vec::<&str>::new());
        new.ledger.table = "another".into();
        new.policy.interval = Duration::from_mins(5);
        assert_eq!(fixed(&old, &new), ["[ledger]", "evaluation.interval"]);
    }

    #[test]
    fn a_bad_file_is_refused_with_all_its_problems() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("node-fleet.toml");
        std::fs::write(&path, EXAMPLE.replace("max = 10", "max = 1").replace("cpu_above = 0.70", "cpu_above = 70")).expect("a file");
        let why = again(&path, &example()).expect_err("it is bad");
        assert!(why.contains("scale_up.cpu_above") && why.contains("pool.workers"), "{why}");
    }
}
