//! The import law of `src/lib.rs`, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which modules a module may name.
fn law() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let all = ["adapters", "cli", "config", "control", "model", "policy", "ports"];
    BTreeMap::from([
        ("model", BTreeSet::new()),
        ("policy", BTreeSet::from(["model"])),
        ("ports", BTreeSet::from(["model"])),
        ("control", BTreeSet::from(["model", "policy", "ports"])),
        ("adapters", BTreeSet::from(["model", "ports", "config"])),
        ("config", BTreeSet::from(["model", "policy"])),
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

/// Lists what a source text names behind `crate::`, comments left out.
fn named(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut names = BTreeSet::new();
    for part in code.split("crate::").skip(1) {
        if let Some(group) = part.strip_prefix('{') {
            let inner = group.split('}').next().unwrap_or_default();
            names.extend(inner.split(',').map(|item| item.trim().split("::").next().unwrap_or_default().to_owned()));
        } else {
            names.insert(part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names.remove("");
    names
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
        for name in named(&fs::read_to_string(&file).expect("the file can be read")) {
            seen += 1;
            let known = law.contains_key(name.as_str());
            if known && name != module && !allowed.contains(name.as_str()) {
                broken.push(format!("{} names crate::{name}", file.display()));
            }
        }
    }
    assert!(seen > 50, "the scan has found next to nothing");
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_scan_sees_paths_and_groups_but_no_comments() {
    let text = "use crate::ports::World;\n// crate::adapters\nuse crate::{model::Pod, control};\nlet x = crate::policy::plan();";
    let expected = ["control", "model", "policy", "ports"];
    assert_eq!(named(text).into_iter().collect::<Vec<_>>(), expected);
}
