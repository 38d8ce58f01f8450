//! The README says what is there.

use clap::CommandFactory;
use node_fleet::observability::catalogue;

const BEGIN: &str = "<!-- metrics:begin -->\n";
const END: &str = "<!-- metrics:end -->";

#[test]
fn the_table_of_metrics_is_the_catalogue() {
    let readme = include_str!("../README.md");
    let (_, rest) = readme.split_once(BEGIN).expect("the README has the mark before its table of metrics");
    let (table, _) = rest.split_once(END).expect("the README has the mark after its table of metrics");
    let expected = catalogue::markdown();
    assert_eq!(table.trim(), expected.trim(), "put this between the marks of README.md:\n{expected}");
}

/// Gives every key of the documented configuration, those that are commented out included, as `section.key`.
fn keys() -> std::collections::BTreeSet<String> {
    let mut section = String::new();
    let mut keys = std::collections::BTreeSet::new();
    for line in include_str!("../config/node-fleet.toml").lines() {
        let line = line.strip_prefix('#').unwrap_or(line);
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.trim_start_matches('[').split(']').next()) {
            name.clone_into(&mut section);
            keys.insert(section.clone());
        } else if let Some((key, _)) = line.split_once(" = ")
            && key.chars().all(|character| character.is_ascii_lowercase() || character == '_')
        {
            keys.insert(format!("{section}.{key}"));
        }
    }
    keys
}

/// Gives what a document puts between backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    let outside_blocks = text.split("```").step_by(2);
    outside_blocks.flat_map(|part| part.split('`').skip(1).step_by(2))
}

/// Gives the command lines of the daemon's program, of the text and of its blocks, from the subcommand on.
fn commands(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(str::lines).map(|line| line.split_once(" #").map_or(line, |(command, _)| command).trim());
    let all = quoted(text).chain(lines);
    all.filter_map(|line| {
        let line = line.strip_prefix("sudo ").unwrap_or(line);
        let line = if line.starts_with("KUBECONFIG=") { line.split_once(' ')?.1 } else { line };
        line.strip_prefix("node-fleet ")
    })
}

const DOCUMENTS: [(&str, &str); 6] = [
    ("migration.md", include_str!("../packaging/migration.md")),
    ("security.md", include_str!("../packaging/security.md")),
    ("packaging/README.md", include_str!("../packaging/README.md")),
    ("pulumi/README.md", include_str!("../pulumi/README.md")),
    ("runbook.md", include_str!("../monitoring/runbook.md")),
    ("README.md", include_str!("../README.md")),
];

#[test]
fn every_key_that_the_documents_name_is_one_of_the_configuration() {
    let keys = keys();
    let sections: Vec<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let mut seen = 0;
    for (file, text) in DOCUMENTS {
        for word in quoted(text) {
            let key = word.trim_matches(['[', ']']);
            let is_key = word.starts_with('[') || key.split_once('.').is_some_and(|(section, _)| sections.contains(&section));
            if is_key && !key.contains(['/', ' ', '-']) {
                seen += 1;
                assert!(keys.contains(key), "{file}: `{word}` is no key of config/node-fleet.toml");
            }
        }
    }
    assert!(seen > 30, "only {seen} keys were found");
}

#[test]
fn every_annotation_that_is_said_to_be_kept_is_one_that_the_daemon_reads() {
    let code = [include_str!("../src/adapters/kubernetes/wire.rs"), include_str!("../src/model/scheduling.rs")].concat();
    let table = DOCUMENTS[0].1.split("## Pods and nodes keep their annotations").nth(1).and_then(|rest| rest.split("## From").next());
    let (table, _) = table.and_then(|rest| rest.split_once("Selectors")).expect("the table of annotations");
    let names: Vec<&str> = quoted(table).filter(|word| word.contains('/')).collect();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        assert!(code.contains(&format!("\"{name}\"")), "`{name}` is read nowhere");
    }
}

#[test]
fn every_command_that_the_documents_name_is_there_with_its_arguments() {
    let command_line = node_fleet::cli::Cli::command();
    let mut seen = 0;
    for (file, text) in DOCUMENTS {
        for command in commands(text) {
            let mut words = command.split(' ');
            let name = words.next().unwrap_or_default();
            let Some(known) = command_line.find_subcommand(name) else {
                // The daemon comes with the adapters.
                assert!(name == "run" && !cfg!(feature = "live"), "{file}: `node-fleet {command}`");
                continue;
            };
            for option in words.filter_map(|word| word.strip_prefix("--")) {
                // What asks the world comes with the adapters.
                let has = !cfg!(feature = "live") || known.get_arguments().any(|argument| argument.get_long() == Some(option));
                assert!(has, "{file}: `node-fleet {command}` has no --{option}");
            }
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} commands were found");
}
