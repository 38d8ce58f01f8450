//! The import law of `src/lib.rs`, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may name.
fn law() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let all = ["adapters", "cli", "config", "control", "http", "model", "observability", "policy", "ports"];
    BTreeMap::from([
        ("model", BTreeSet::new()),
        ("policy", BTreeSet::from(["model"])),
        ("ports", BTreeSet::from(["model"])),
        ("control", BTreeSet::from(["model", "policy", "ports"])),
        ("adapters", BTreeSet::from(["model", "ports", "config"])),
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

/// Lists what a source text names behind `crate::`, comments left out: modules, and of
/// `control` the part, since some may know its status and nothing else.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let inner = group.split('}').next().unwrap_or_default();
            names.extend(inner.split(',').map(|item| name(item.trim())));
        } else {
            names.insert(name(part));
        }
    }
    names.remove("");
    names
}

fn name(path: &str) -> String {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let first = word(path);
    match path.strip_prefix("control::").map(word) {
        Some(part) if part == "status" => format!("{first}::{part}"),
        _ => first,
    }
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
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
        for name in named(&text) {
            seen += 1;
            let top = name.split("::").next().unwrap_or_default();
            let may = top == module || allowed.contains(top) || allowed.contains(name.as_str());
            if law.contains_key(top) && !may {
                broken.push(format!("{} names crate::{name}", file.display()));
            }
        }
    }
    assert!(seen > 50, "the scan has found next to nothing");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_scan_sees_paths_and_groups_but_no_comments() {
    let text = "use crate::ports::World;\n// crate::adapters\nuse crate::{model::Pod, control};\nuse crate::control::status::Handle;\nlet x = crate::policy::plan();";
    let expected = ["control", "control::status", "model", "policy", "ports"];
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), expected);
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
