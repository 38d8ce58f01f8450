//! The layers of the configuration, merged into one tree in which each value knows its origin.

use super::problem::{Origin, Problem};
use config::{Config, ConfigError, Map, Source, Value, ValueKind};
use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// The documented example: the source of the defaults.
pub(super) const EXAMPLE: &str = include_str!("../../config/node-fleet.toml");
/// What a variable that overrides a key begins with.
pub(super) const PREFIX: &str = "NODE_FLEET__";

/// Top-level tables.
const SECTIONS: [&str; 18] = [
    "cluster",
    "kubernetes",
    "prometheus",
    "ledger",
    "notices",
    "operations",
    "http",
    "log",
    "slack",
    "cloudwatch",
    "evaluation",
    "scale_up",
    "scale_down",
    "consolidation",
    "replacement",
    "predictive",
    "rest",
    "prices",
];
/// Top-level arrays of tables, whose entries have a `name`.
const LISTS: [&str; 3] = ["pool", "metric", "forecast"];
/// What the example shows without meaning it as a default.
const REQUIRED: [(&str, &str); 3] = [("cluster", "id"), ("cluster", "region"), ("prometheus", "endpoints")];
/// What a pool of the file takes from the example's when it says nothing.
const POOL_DEFAULTS: [&str; 8] =
    ["min", "max", "on_demand_base", "spot_share", "on_drain_timeout", "reserved_cpu", "reserved_memory", "max_pods"];

/// A tree of values, each with an origin that [`origin`] reads.
pub(super) type Tree = Map<String, Value>;

/// Merges defaults, file and environment, in this order.
pub(super) fn merged(text: &str, name: &str, env: BTreeMap<String, String>) -> (Tree, Vec<Problem>) {
    let (mut defaults, _) = tree(EXAMPLE, "");
    let pool_defaults = take_pool_defaults(&mut defaults);
    for (section, key) in REQUIRED {
        if let Some(ValueKind::Table(table)) = defaults.get_mut(section).map(|value| &mut value.kind) {
            table.remove(key);
        }
    }
    let (mut file, mut problems) = tree(text, name);
    keep_known_shapes(&mut file, name, &mut problems);
    add_pool_defaults(&mut file, &pool_defaults);
    let environment = environment(env, &file, &mut problems);
    let merged = Config::builder()
        .add_source(Layer(relabelled(defaults)))
        .add_source(Layer(file))
        .add_source(Layer(environment))
        .build()
        .and_then(|merged| merged.cache.into_table());
    match merged {
        Ok(tree) => (tree, problems),
        Err(error) => {
            problems.push(whole_file(name, None, error.to_string()));
            (Tree::new(), problems)
        }
    }
}

/// Reads the origin of a value, or of the first value in it that has one.
pub(super) fn origin(value: &Value, file: &str) -> Origin {
    let in_file = |line| Origin::File { name: file.to_owned(), line };
    match value.origin().map(|text| text.split_once(' ').unwrap_or((text, ""))) {
        Some(("default", _)) => Origin::Default,
        Some(("env", variable)) => Origin::Environment { variable: variable.to_owned() },
        Some((_, line)) => in_file(line.parse().ok()),
        None => match &value.kind {
            ValueKind::Table(table) => table.values().map(|inner| origin(inner, file)).find(|origin| *origin != in_file(None)),
            ValueKind::Array(array) => array.first().map(|inner| origin(inner, file)),
            _ => None,
        }
        .unwrap_or_else(|| in_file(None)),
    }
}

/// Tells whether a value was written as a TOML date, which the tree keeps as text.
pub(super) fn is_date(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with("date "))
}

/// Tells whether a value came as the text of an environment variable.
pub(super) fn is_environment(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with("env "))
}

/// One source for the merge.
#[derive(Clone, Debug)]
struct Layer(Tree);

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Tree, ConfigError> {
        Ok(self.0.clone())
    }
}

fn whole_file(name: &str, line: Option<usize>, expected: String) -> Problem {
    Problem { key: String::new(), value: None, expected, origin: Origin::File { name: name.to_owned(), line } }
}

/// Parses TOML. A text that is no TOML gives its faults, all of them, and an empty tree.
fn tree(text: &str, name: &str) -> (Tree, Vec<Problem>) {
    let lines = Lines::of(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return (lines.table(table.into_inner()), Vec::new());
    }
    // The parser's first word on a line is the cause, the rest is its consequence.
    let mut faults = BTreeMap::new();
    for error in errors {
        faults.entry(error.span().map(|span| lines.number(span.start))).or_insert_with(|| error.message().to_owned());
    }
    let problems = faults.into_iter().map(|(line, message)| whole_file(name, line, format!("this is not TOML: {message}"))).collect();
    (Tree::new(), problems)
}

/// Finds lines by offset.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(offset, _)| offset).collect())
    }

    fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }

    fn table(&self, table: DeTable<'_>) -> Tree {
        let entry = |(key, value): (toml::Spanned<toml::de::DeString<'_>>, toml::Spanned<DeValue<'_>>)| {
            let line = self.number(key.span().start);
            (key.into_inner().into_owned(), self.value(value.into_inner(), line))
        };
        table.into_iter().map(entry).collect()
    }

    fn value(&self, value: DeValue<'_>, line: usize) -> Value {
        let origin = format!("line {line}");
        let number = |text: &str| ValueKind::Float(text.parse().unwrap_or(f64::NAN));
        let kind = match value {
            DeValue::String(text) => ValueKind::String(text.into_owned()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => ValueKind::I64(integer),
                // Beyond 64 bits: no key allows it, whatever its value exactly.
                Err(_) => number(integer.as_str()),
            },
            DeValue::Float(float) => number(float.as_str()),
            DeValue::Boolean(flag) => ValueKind::Boolean(flag),
            DeValue::Datetime(date) => return Value::new(Some(&format!("date {line}")), date.to_string()),
            DeValue::Array(array) => ValueKind::Array(
                array
                    .into_iter()
                    .map(|item| {
                        let line = self.number(item.span().start);
                        self.value(item.into_inner(), line)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => ValueKind::Table(self.table(table)),
        };
        Value::new(Some(&origin), kind)
    }
}

/// Drops what no section or list is, so that the merge sees only what it can merge.
fn keep_known_shapes(file: &mut Tree, name: &str, problems: &mut Vec<Problem>) {
    let mut refused: Vec<(Origin, Problem)> = Vec::new();
    file.retain(|key, value| {
        let expected = match (&value.kind, SECTIONS.contains(&key.as_str()), LISTS.contains(&key.as_str())) {
            (ValueKind::Table(_), true, _) => return true,
            (ValueKind::Array(entries), _, true) if entries.iter().all(|entry| matches!(entry.kind, ValueKind::Table(_))) => return true,
            (_, true, _) => format!("must be a table, written [{key}]"),
            (_, _, true) => format!("must be a list of tables, each written [[{key}]]"),
            _ => unknown(key, SECTIONS.into_iter().chain(LISTS)),
        };
        let origin = origin(value, name);
        refused.push((origin.clone(), Problem { key: key.clone(), value: None, expected, origin }));
        false
    });
    refused.sort_by_key(|(origin, _)| match origin {
        Origin::File { line, .. } => *line,
        Origin::Environment { .. } | Origin::Default => None,
    });
    problems.extend(refused.into_iter().map(|(_, problem)| problem));
}

/// Says that a key is unknown, with the nearest of those that are known.
pub(super) fn unknown<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    let near = known.map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
    match near {
        Some((distance, name)) if distance <= 3 && distance < name.len() => format!("is unknown; did you mean `{name}`?"),
        _ => "is unknown".to_owned(),
    }
}

fn take_pool_defaults(defaults: &mut Tree) -> Tree {
    let pool = defaults.remove("pool");
    defaults.remove("metric");
    defaults.remove("forecast");
    let Some(ValueKind::Array(mut entries)) = pool.map(|value| value.kind) else { return Tree::new() };
    match entries.pop().map(|entry| entry.kind) {
        Some(ValueKind::Table(table)) => relabelled(table).into_iter().filter(|(key, _)| POOL_DEFAULTS.contains(&key.as_str())).collect(),
        _ => Tree::new(),
    }
}

fn add_pool_defaults(file: &mut Tree, defaults: &Tree) {
    let Some(ValueKind::Array(pools)) = file.get_mut("pool").map(|value| &mut value.kind) else { return };
    for pool in pools {
        if let ValueKind::Table(table) = &mut pool.kind {
            for (key, value) in defaults {
                table.entry(key.clone()).or_insert_with(|| value.clone());
            }
        }
    }
}

/// Marks every value as a default.
fn relabelled(tree: Tree) -> Tree {
    let relabel = |value: Value| match value.kind {
        ValueKind::Table(table) => Value::new(None, relabelled(table)),
        kind => Value::new(Some(&"default".to_owned()), kind),
    };
    tree.into_iter().map(|(key, value)| (key, relabel(value))).collect()
}

/// Turns variables into paths of the tree. A pool or metric is addressed by its name.
fn environment(env: BTreeMap<String, String>, file: &Tree, problems: &mut Vec<Problem>) -> Tree {
    let mut layer = Tree::new();
    for (variable, value) in env {
        let Some(rest) = variable.strip_prefix(PREFIX) else { continue };
        let rest = rest.to_lowercase();
        match path(&rest.split("__").collect::<Vec<_>>(), file) {
            Ok(path) => {
                layer.insert(path, Value::new(Some(&format!("env {variable}")), value));
            }
            Err(expected) => {
                let key = rest.replace("__", ".");
                problems.push(Problem { key, value: None, expected, origin: Origin::Environment { variable } });
            }
        }
    }
    layer
}

fn path(segments: &[&str], file: &Tree) -> Result<String, String> {
    let plain = |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match segments {
        [list, name, key @ ..] if LISTS.contains(list) && !key.is_empty() && key.iter().all(plain) => {
            let index = position(file, list, name).ok_or_else(|| format!("the file has no [[{list}]] of this name"))?;
            Ok(format!("{list}[{index}].{}", key.join(".")))
        }
        [list, ..] if LISTS.contains(list) => Err(format!("is set entry by entry: {PREFIX}{}__NAME__KEY", list.to_uppercase())),
        [section, key @ ..] if SECTIONS.contains(section) && !key.is_empty() && key.iter().all(plain) => Ok(segments.join(".")),
        [section, ..] if SECTIONS.contains(section) => Err(format!("must name a key: {PREFIX}{}__KEY", section.to_uppercase())),
        [section, ..] => Err(unknown(section, SECTIONS.into_iter().chain(LISTS))),
        [] => Err("is unknown".to_owned()),
    }
}

fn position(file: &Tree, list: &str, name: &str) -> Option<usize> {
    let ValueKind::Array(entries) = &file.get(list)?.kind else { return None };
    entries.iter().position(|entry| match &entry.kind {
        ValueKind::Table(table) => match table.get("name").map(|value| &value.kind) {
            Some(ValueKind::String(text)) => text.to_lowercase().replace('-', "_") == name,
            _ => false,
        },
        _ => false,
    })
}
