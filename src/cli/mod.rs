//! The command line.

mod check;
mod client;
mod demo;
mod documents;
mod fuzz;
#[cfg(feature = "live")]
mod run;
mod settings;
mod simulate;

pub use settings::settings;

use crate::config::{Config, load};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Where the configuration is looked for.
const CONFIG: &str = "/etc/node-fleet/node-fleet.toml";

/// Keeps the worker instances of a K3s cluster on EC2 right.
#[derive(Debug, Parser)]
#[command(name = "node-fleet", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the daemon until SIGTERM; SIGHUP makes it read its configuration again.
    #[cfg(feature = "live")]
    Run {
        /// The configuration file.
        #[arg(long, value_name = "FILE", default_value = CONFIG)]
        config: std::path::PathBuf,
    },
    /// Shows a fleet that lives in memory, with its workload, its market and its daemon: no account is needed.
    Demo(demo::Demo),
    /// Lives through thousands of simulated clusters with faults, and looks whether an invariant breaks.
    Fuzz(fuzz::Fuzz),
    /// Replays a demand under node-fleet, imitations of what others have, and the optimum, and tells what each would have cost.
    Simulate(simulate::Simulate),
    /// Reads a configuration and names everything that is wrong with it at once.
    Check(check::Check),
    /// Shows what the running daemon sees and does.
    Status(client::Socket),
    /// Stops the running daemon from starting anything; what is in flight finishes.
    Pause {
        /// Why, for those who wonder later.
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        socket: client::Socket,
    },
    /// Lets the running daemon start things again.
    Resume(client::Socket),
    /// Lets the running daemon try offers again that rest after failures.
    ResetOffers(client::Socket),
    /// Asks the running daemon why a pod waits, why a node stays, or what can be bought.
    Explain {
        #[command(subcommand)]
        what: client::What,
        #[command(flatten)]
        socket: client::Socket,
    },
    /// Makes the running daemon decide now, and shows what it decided.
    Evaluate(client::Socket),
    /// Writes the script by which a shell completes this command line to the standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Writes the man pages into a folder.
    #[command(hide = true)]
    Man {
        /// The folder, which must be there.
        #[arg(value_name = "FOLDER")]
        folder: std::path::PathBuf,
    },
}

impl Cli {
    /// Does what was asked for. `Ok` carries the exit code: 0, or 1 when something is wrong with what was asked about.
    ///
    /// # Errors
    /// When it could not be done.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            #[cfg(feature = "live")]
            Command::Run { config } => run::run(&config),
            Command::Demo(demo) => demo::execute(&demo),
            Command::Fuzz(fuzz) => fuzz::execute(&fuzz),
            Command::Simulate(simulate) => simulate::execute(&simulate),
            Command::Check(check) => check::run(&check),
            Command::Status(socket) => client::status(&socket),
            Command::Pause { reason, socket } => client::pause(&socket, reason.as_deref()),
            Command::Resume(socket) => client::resume(&socket),
            Command::ResetOffers(socket) => client::reset_offers(&socket),
            Command::Explain { what, socket } => client::explain(&socket, &what),
            Command::Evaluate(socket) => client::evaluate(&socket),
            Command::Completions { shell } => documents::completions(shell),
            Command::Man { folder } => documents::man(&folder),
        }
    }
}

/// Reads the file under the environment of this process; what is wrong with it goes to stderr, and the exit code comes back.
fn read(path: &Path) -> anyhow::Result<Result<Config, ExitCode>> {
    match load(path, environment()) {
        Ok(config) => Ok(Ok(config)),
        Err(problems) => {
            let mut out = std::io::stderr().lock();
            writeln!(out, "{problems}")?;
            let number = problems.0.len();
            writeln!(out, "{number} problem{}", if number == 1 { "" } else { "s" })?;
            Ok(Err(ExitCode::FAILURE))
        }
    }
}

/// The variables of this process that are text.
fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}
