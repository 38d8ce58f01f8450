//! The command line.

mod check;

use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Keeps the worker instances of a K3s cluster on EC2 right.
#[derive(Debug, Parser)]
#[command(name = "node-fleet", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Reads a configuration and names everything that is wrong with it at once.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = "/etc/node-fleet/node-fleet.toml")]
        config: PathBuf,
    },
}

impl Cli {
    /// Does what was asked for. `Ok` carries the exit code: 0, or 1 when something is wrong with what was asked about.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Check { config } => check::run(&config),
        }
    }
}
