//! The import law of `src/lib.rs`, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The nouns of the policy: its settings, and what its audit finds. Its decisions are not among them.
const POLICY_NOUNS: [&str; 21] = [
    "policy::audit",
    "policy::Invariant",
    "policy::Violation",
    "policy::settings",
    "policy::schedule",
    "policy::Settings",
    "policy::PoolSettings",
    "policy::BoundsSchedule",
    "policy::ScaleUp",
    "policy::ScaleDown",
    "policy::AtOnce",
    "policy::Consolidation",
    "policy::Disruption",
    "policy::Headroom",
    "policy::Replacement",
    "policy::OfferRest",
    "policy::MetricRule",
    "policy::ForecastRule",
    "policy::Predictive",
    "policy::PredictiveMode",
    "policy::MetricGoal",
];

/// What the files of a place may name beyond what their module may.
const EXCEPTIONS: [(&str, &[&str]); 2] = [
    // The simulator's front door runs the real controller.
    ("sim/front", &["control"]),
    // A replay lets the real policy decide, with its forecast, and holds it against others.
    ("sim/replay", &["policy::forecast", "policy::plan", "policy::uniform"]),
];

/// Which modules, or parts of modules, a module may name.
fn law() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let all = ["adapters", "cli", "config", "control", "http", "model", "observability", "policy", "ports", "sim"];
    BTreeMap::from([
        ("model", BTreeSet::new()),
        ("policy", BTreeSet::from(["model"])),
        ("ports", BTreeSet::from(["model"])),
        ("control", BTreeSet::from(["model", "policy", "ports"])),
        ("adapters", BTreeSet::from(["model", "ports", "config"])),
        ("sim", BTreeSet::from(["model", "ports"]).into_iter().chain(POLICY_NOUNS).collect()),
        ("config", BTreeSet::from(["model", "policy"])),
        ("http", BTreeSet::from(["model", "control::status"])),
        ("observability", BTreeSet::from(["model", "ports", "config", "control::status"])),
        ("cli", BTreeSet::from(all)),
    ])
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("the entry can be read").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Gives the top-level module a source file belongs to; `None` for `lib.rs` and `main.rs`.
fn module_of(root: &Path, file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root).expect("the file lies in src");
    let first = inside.components().next()?.as_os_str().to_str()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "main").then(|| name.to_owned())
}

/// Tells whether a file may name this module or part of one.
fn may(inside: &Path, module: &str, allowed: &BTreeSet<&str>, name: &str) -> bool {
    let top = name.split("::").next().unwrap_or_default();
    let place = inside.with_extension("");
    let mut excepted = EXCEPTIONS.iter().filter(|(folder, _)| place.starts_with(folder)).flat_map(|(_, names)| *names);
    top == module || [top, name].iter().any(|it| allowed.contains(it)) || excepted.any(|it| *it == top || *it == name)
}

/// Lists what a source text names behind `crate::`, comments left out, to the second word:
/// of some modules only a part may be known.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    code.split("crate::").skip(1).for_each(|tree| expand("", tree, &mut names));
    names
}

/// Adds the paths of the tree that the text begins with, each below the module given.
fn expand(module: &str, tree: &str, names: &mut BTreeSet<String>) {
    if let Some(group) = tree.strip_prefix('{') {
        for member in members(group) {
            expand(module, member, names);
        }
        return;
    }
    let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tree.len());
    let (word, rest) = tree.split_at(end);
    if let Some(below) = rest.strip_prefix("::").filter(|_| module.is_empty()) {
        return expand(word, below, names);
    }
    let path = match (module, word) {
        // A star stands for the whole module, and so does `self`.
        (module, "" | "self") => module.to_owned(),
        ("", word) => word.to_owned(),
        (module, word) => format!("{module}::{word}"),
    };
    if !path.is_empty() {
        names.insert(path);
    }
}

/// Splits a group whose opening brace has been taken off at the commas that belong to it.
fn members(group: &str) -> Vec<&str> {
    let (mut depth, mut from, mut found) = (0_usize, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth > 0 => {}
            ',' | '}' => {
                found.push(group[from..at].trim());
                from = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|member| !member.is_empty());
    found
}

/// Tells whether a file leaves its top-level module by `super::` after `super::`: as many of
/// them as the module is deep reach the crate's root.
fn escapes(root: &Path, file: &Path, text: &str) -> bool {
    let inside = file.strip_prefix(root).expect("the file lies in src");
    let own = usize::from(inside.file_name().is_some_and(|name| name != "mod.rs"));
    // Inside `mod tests { … }` one more leads to the file itself.
    let depth = inside.components().count() - 1 + own;
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let outside_tests = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let reaches = |code: &str, supers: usize| code.contains(&"super::".repeat(supers));
    reaches(outside_tests, depth.max(1)) || reaches(&code, depth.max(1) + 1)
}

#[test]
fn every_module_names_only_what_it_may() {
    // Cargo says it when it runs the tests; they may have been built in another checkout.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("src");
    let law = law();
    let mut broken = Vec::new();
    let mut seen = 0;
    for file in sources(&root) {
        let Some(module) = module_of(&root, &file) else { continue };
        let allowed = law.get(module.as_str()).unwrap_or_else(|| panic!("{} is in no room of the house", file.display()));
        let text = fs::read_to_string(&file).expect("the file can be read");
        if escapes(&root, &file, &text) {
            broken.push(format!("{} leaves its module by super::", file.display()));
        }
        let inside = file.strip_prefix(&root).expect("the file lies in src");
        for name in named(&text) {
            seen += 1;
            let is_module = law.contains_key(name.split("::").next().unwrap_or_default());
            if is_module && !may(inside, &module, allowed, &name) {
                broken.push(format!("{} names crate::{name}", file.display()));
            }
        }
    }
    assert!(seen > 50, "the scan has found next to nothing");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_scan_sees_paths_and_groups_but_no_comments() {
    for (text, expected) in [
        ("use crate::ports::World;\n// crate::adapters\nuse crate::control::status::Handle;", &["control::status", "ports::World"][..]),
        ("use crate::{model::Pod, control};", &["control", "model::Pod"]),
        ("use crate::{model::{A, b::{C, D}}, control};", &["control", "model::A", "model::b"]),
        ("use crate::policy::{self, settings::{Settings, ScaleUp}};", &["policy", "policy::settings"]),
        ("use crate::{\n    http::*,\n    cli::{\n        run,\n    },\n};", &["cli::run", "http"]),
        ("let x = crate::policy::plan(); let y = crate::model::Pod { a: 1, b: 2 };", &["model::Pod", "policy::plan"]),
        ("const X: &str = \"crate::\";", &[]),
    ] {
        assert_eq!(named(text).into_iter().collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn the_law_knows_parts_of_modules_and_places_with_exceptions() {
    let law = law();
    for (file, name, allowed) in [
        ("http/status.rs", "control::status", true),
        ("http/status.rs", "control", false),
        ("http/status.rs", "control::lease", false),
        ("http.rs", "http::server", true),
        ("sim/oracle.rs", "policy::audit", true),
        ("sim/oracle.rs", "policy::Settings", true),
        ("sim/oracle.rs", "policy::plan", false),
        ("sim/oracle.rs", "policy", false),
        ("sim/ec2.rs", "control::Controller", false),
        ("sim/front.rs", "control::Controller", true),
        ("sim/front/run.rs", "control::lease", true),
        ("sim/front/run.rs", "adapters::live", false),
        ("sim/frontier.rs", "control::lease", false),
        ("sim/replay/policies.rs", "policy::forecast", true),
        ("sim/replay/board.rs", "policy::plan", true),
        ("sim/replay/board.rs", "policy::learn", false),
        ("sim/ec2.rs", "policy::forecast", false),
    ] {
        let module = file.split(['/', '.']).next().unwrap_or_default();
        assert_eq!(may(Path::new(file), module, &law[module], name), allowed, "{file}: {name}");
    }
}

#[test]
fn a_path_by_super_is_caught_where_it_reaches_the_root() {
    let root = Path::new("src");
    for (file, text, out) in [
        ("policy.rs", "use super::adapters::X;", true),
        ("policy/mod.rs", "use super::adapters::X;", true),
        ("policy/plan.rs", "use super::fleet::X;", false),
        ("policy/plan.rs", "use super::super::adapters::X;", true),
        ("policy/plan.rs", "#[cfg(test)]\nmod tests {\n use super::super::fleet::X;\n}", false),
        ("policy/plan.rs", "#[cfg(test)]\nmod tests {\n use super::super::super::adapters::X;\n}", true),
        ("adapters/ec2/launch.rs", "use super::super::retry::X;", false),
    ] {
        assert_eq!(escapes(root, &root.join(file), text), out, "{file}: {text}");
    }
}
