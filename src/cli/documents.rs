//! `node-fleet man` and `node-fleet completions`: what the command line says of itself, for the package and for shells.

use anyhow::Context;
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

/// Writes a man page for the program and for each command into the folder, which must be there.
pub(super) fn man(folder: &Path) -> anyhow::Result<ExitCode> {
    clap_mangen::generate_to(command(), folder)
        .with_context(|| format!("cannot write the man pages into {}; right would be a folder that is there", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the script by which a shell completes commands and options.
pub(super) fn completions(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "node-fleet", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The command line without `help`, whose page would say less than `--help` does.
fn command() -> Command {
    super::Cli::command().disable_help_subcommand(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_that_is_shown_has_a_man_page_with_its_options() {
        let folder = tempfile::tempdir().expect("a folder");
        man(folder.path()).expect("it is there");
        let page = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        for shown in command().get_subcommands().filter(|command| !command.is_hide_set()) {
            assert!(
                page("node-fleet.1").contains(&format!("node\\-fleet\\-{}(1)", shown.get_name().replace('-', "\\-"))),
                "{}",
                shown.get_name()
            );
            assert!(page(&format!("node-fleet-{}.1", shown.get_name())).contains("node\\-fleet"), "{}", shown.get_name());
        }
        assert!(page("node-fleet-check.1").contains("\\-\\-config"));
        assert!(page("node-fleet-explain-pod.1").contains("NAMESPACE/NAME"));
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = man(Path::new("/nowhere/at/all")).expect_err("there is none");
        assert!(format!("{error:#}").contains("/nowhere/at/all"), "{error:#}");
    }
}
