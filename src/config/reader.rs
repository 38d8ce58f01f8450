//! Reads the merged tree by its schema, strictly, and collects every problem on the way.
//!
//! A value that is wrong gives its problem and a stand-in, so that the reading goes
//! on; a configuration with a problem is never handed out.

use super::layers::{Tree, is_date, is_environment, origin, unknown};
use super::problem::{Origin, Problem};
use super::secret::SecretRef;
use config::{Value, ValueKind};
use jiff::SignedDuration;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What a text must be: in words, and as a test.
pub(super) type Rule = (&'static str, fn(&str) -> bool);

/// The problems so far, and what has been read where.
pub(super) struct Report {
    file: String,
    problems: RefCell<Vec<Problem>>,
    read: RefCell<BTreeMap<String, (Option<String>, Origin)>>,
}

impl Report {
    /// Starts with the problems that are known already.
    pub(super) fn new(file: &str, problems: Vec<Problem>) -> Self {
        Self { file: file.to_owned(), problems: RefCell::new(problems), read: RefCell::default() }
    }

    /// Adds a problem with a key that has been read. Says nothing when one of the keys that
    /// take part has a problem of its own: its value is a stand-in.
    pub(super) fn contradiction(&self, key: &str, others: &[&str], expected: String) {
        let involved = |problem: &Problem| problem.key == key || others.contains(&problem.key.as_str());
        if self.problems.borrow().iter().any(involved) {
            return;
        }
        let (value, origin) = self.read.borrow().get(key).cloned().unwrap_or((None, self.somewhere()));
        self.add(Problem { key: key.to_owned(), value, expected, origin });
    }

    /// Ends with everything that was found.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    fn add(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    fn somewhere(&self) -> Origin {
        Origin::File { name: self.file.clone(), line: None }
    }
}

/// One table of the tree, being read.
pub(super) struct Section<'a> {
    report: &'a Report,
    path: String,
    table: Option<&'a Tree>,
    origin: Origin,
    known: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    /// Begins with the tree itself.
    pub(super) fn root(report: &'a Report, tree: &'a Tree) -> Self {
        Self { report, path: String::new(), table: Some(tree), origin: report.somewhere(), known: RefCell::default() }
    }

    /// Enters the table of this name; an absent one is empty.
    pub(super) fn table(&self, key: &'static str) -> Self {
        let value = self.get(key);
        let table = value.and_then(|value| match &value.kind {
            ValueKind::Table(table) => Some(table),
            _ => {
                self.wrong(key, Some(value), "must be a table".to_owned());
                None
            }
        });
        let origin = value.map_or_else(|| self.origin.clone(), |value| origin(value, &self.report.file));
        Self { report: self.report, path: self.path_of(key), table, origin, known: RefCell::default() }
    }

    /// Enters each table of the list of this name. Its path carries its name where that is
    /// a text of its own, otherwise its place, counted from 0.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Self> {
        let entries = match self.get(key).map(|value| (value, &value.kind)) {
            None => return Vec::new(),
            Some((_, ValueKind::Array(entries))) => entries,
            Some((value, _)) => {
                self.wrong(key, Some(value), format!("must be a list of tables, each written [[{}]]", self.path_of(key)));
                return Vec::new();
            }
        };
        let names: Vec<Option<&str>> = entries.iter().map(name_of).collect();
        let mut sections = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let unique = names[index].filter(|name| names.iter().filter(|other| **other == Some(name)).count() == 1);
            let path = match unique {
                Some(name) => format!("{}.{name}", self.path_of(key)),
                None => format!("{}[{index}]", self.path_of(key)),
            };
            let origin = origin(entry, &self.report.file);
            match &entry.kind {
                ValueKind::Table(table) => {
                    sections.push(Self { report: self.report, path, table: Some(table), origin, known: RefCell::default() });
                }
                _ => self.report.add(Problem { key: path, value: Some(show(entry)), expected: "must be a table".to_owned(), origin }),
            }
        }
        sections
    }

    /// Gives the full path of a key.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Gives the report.
    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// Tells whether the key is there.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    /// Says what is wrong with a key of this table.
    pub(super) fn problem(&self, key: &'static str, expected: String) {
        self.wrong(key, self.get(key), expected);
    }

    /// Says that a key of this table contradicts others of it.
    pub(super) fn contradiction(&self, key: &str, others: &[&str], expected: String) {
        let others: Vec<String> = others.iter().map(|other| self.path_of(other)).collect();
        self.report.contradiction(&self.path_of(key), &others.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }

    /// Reads a whole number.
    pub(super) fn integer(&self, key: &'static str, range: RangeInclusive<i64>) -> i64 {
        let expected = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.required(key, &expected, |value| match &value.kind {
            ValueKind::I64(number) => Some(*number),
            ValueKind::String(text) if is_environment(value) && is_decimal(text, false) => text.parse().ok(),
            _ => None,
        })
        .filter(|number| range.contains(number) || self.out_of_range(key, &expected))
        .unwrap_or(*range.start())
    }

    /// Reads a count.
    pub(super) fn count(&self, key: &'static str, range: RangeInclusive<u32>) -> u32 {
        let number = self.integer(key, i64::from(*range.start())..=i64::from(*range.end()));
        u32::try_from(number).unwrap_or(*range.start())
    }

    /// Reads a number, within what `rule` allows.
    pub(super) fn number(&self, key: &'static str, rule: (&str, fn(f64) -> bool)) -> f64 {
        self.required(key, rule.0, |value| as_number(value).filter(|number| rule.1(*number))).unwrap_or(1.0)
    }

    /// Reads a share above 0, up to 1.
    pub(super) fn share(&self, key: &'static str) -> f64 {
        self.number(key, ("must be a share above 0, at most 1, like 0.75", |share| share > 0.0 && share <= 1.0))
    }

    /// Reads a share that may be 0.
    pub(super) fn share_or_none(&self, key: &'static str) -> f64 {
        self.number(key, ("must be a share from 0 to 1, like 0.75", |share| (0.0..=1.0).contains(&share)))
    }

    /// Refuses a duration of which a part of a second would be lost.
    pub(super) fn whole_seconds(&self, key: &'static str, duration: Duration) {
        if duration.subsec_nanos() > 0 {
            self.contradiction(key, &[], "must be whole seconds".into());
        }
    }

    /// Reads `true` or `false`.
    pub(super) fn flag(&self, key: &'static str) -> bool {
        self.required(key, "must be true or false", |value| match &value.kind {
            ValueKind::Boolean(flag) => Some(*flag),
            ValueKind::String(text) if is_environment(value) => text.parse().ok(),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// Reads a text that obeys the rule.
    pub(super) fn text(&self, key: &'static str, rule: Rule) -> String {
        self.parsed(key, rule.0, |text| rule.1(text).then(|| text.to_owned())).unwrap_or_default()
    }

    /// Reads a text of which `parse` makes something.
    pub(super) fn parsed<T>(&self, key: &'static str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        self.required(key, expected, |value| as_text(value).and_then(parse))
    }

    /// Reads a day, as text or as TOML's own date.
    pub(super) fn day(&self, key: &'static str) -> String {
        self.required(key, "must be a day like \"2025-06-01\"", |value| match &value.kind {
            ValueKind::String(text) => text.parse::<jiff::civil::Date>().ok().map(|day| day.to_string()),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// Reads one of some names.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&str, T)]) -> T {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let expected = format!("must be {}", names.join(" or "));
        let pick = |text: &str| choices.iter().find(|(name, _)| *name == text).map(|(_, choice)| *choice);
        self.parsed(key, &expected, pick).unwrap_or(choices[0].1)
    }

    /// Reads a number within the range, or one that has a name.
    pub(super) fn number_or_choice(&self, key: &'static str, range: RangeInclusive<f64>, choices: &[(&str, f64)]) -> f64 {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let expected = format!("must be {} or a number from {} to {}", names.join(" or "), range.start(), range.end());
        let pick = |text: &str| choices.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        let read = |value: &Value| as_number(value).filter(|number| range.contains(number)).or_else(|| as_text(value).and_then(pick));
        self.required(key, &expected, read).unwrap_or(choices[0].1)
    }

    /// Reads a duration, a text with a unit.
    pub(super) fn duration(&self, key: &'static str, range: RangeInclusive<Duration>) -> Duration {
        let bounds = format!("from {} to {}", spoken(*range.start()), spoken(*range.end()));
        let right = match self.get(key).map(|value| &value.kind) {
            Some(ValueKind::I64(number)) if *number >= 0 => format!("\"{number}s\" for seconds, \"{number}m\" for minutes"),
            _ => "\"90s\" or \"4m\"".to_owned(),
        };
        let expected = format!("must be a duration as text with its unit, like {right}, {bounds}");
        self.parsed(key, &expected, |text| as_duration(text).filter(|duration| range.contains(duration))).unwrap_or(*range.start())
    }

    /// Reads a list of texts that obey the rule, none twice.
    pub(super) fn texts(&self, key: &'static str, rule: Rule) -> Vec<String> {
        let Some(value) = self.present(key, &format!("must be a list of texts, each {}", rule.0)) else { return Vec::new() };
        let ValueKind::Array(items) = &value.kind else {
            let hint = if is_environment(value) { " (the environment cannot set it)" } else { "" };
            self.wrong(key, Some(value), format!("must be a list of texts{hint}, each {}", rule.0));
            return Vec::new();
        };
        let mut texts: Vec<String> = Vec::new();
        for item in items {
            match as_text(item).filter(|text| rule.1(text)) {
                None => self.wrong(key, Some(item), format!("each {}", rule.0)),
                Some(text) if texts.iter().any(|other| other == text) => self.wrong(key, Some(item), "stands there twice".to_owned()),
                Some(text) => texts.push(text.to_owned()),
            }
        }
        texts
    }

    /// Lists the entries of a table whose keys are free, with the values unread.
    pub(super) fn free(&self, key: &'static str) -> Vec<(&'a str, &'a Value)> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let ValueKind::Table(table) = &value.kind else {
            self.wrong(key, Some(value), "must be a table".to_owned());
            return Vec::new();
        };
        let mut entries: Vec<_> = table.iter().map(|(name, value)| (name.as_str(), value)).collect();
        entries.sort_by_key(|(name, _)| *name);
        entries
    }

    /// Says what is wrong with an entry that [`Self::free`] gave.
    pub(super) fn entry_problem(&self, key: &'static str, entry: &str, value: &Value, expected: &str) {
        let origin = origin(value, &self.report.file);
        let key = format!("{}.{}", self.path_of(key), quoted(entry));
        self.report.add(Problem { key, value: Some(show(value)), expected: expected.to_owned(), origin });
    }

    /// Reads a reference to a secret. Whatever else stands there is not repeated.
    pub(super) fn secret(&self, key: &'static str) -> Option<SecretRef> {
        const FORMS: &str = "{ secrets_manager = \"NAME\", key = \"KEY\" }, { credential = \"NAME\" } or { file = \"/PATH\" }";
        const NAME: Rule = ("must be a name", |text| !text.trim().is_empty());
        let value = self.present(key, &format!("must be one of {FORMS}"))?;
        if !matches!(value.kind, ValueKind::Table(_)) {
            self.hidden(key, value, format!("must say where the secret is, not the secret itself: {FORMS}"));
            return None;
        }
        let form = self.table(key);
        let found = match (form.has("secrets_manager"), form.has("credential"), form.has("file")) {
            (true, false, false) => {
                let key = form.has("key").then(|| form.text("key", NAME));
                Some(SecretRef::SecretsManager { name: form.text("secrets_manager", NAME), key })
            }
            (false, true, false) => {
                let rule: Rule =
                    ("must be a name without a slash", |text| !text.is_empty() && !text.contains('/') && !text.starts_with('.'));
                Some(SecretRef::Credential { name: form.text("credential", rule) })
            }
            (false, false, true) => {
                Some(SecretRef::File { path: form.text("file", ("must be an absolute path", |text| text.starts_with('/'))).into() })
            }
            _ => {
                self.hidden(key, value, format!("must be exactly one of {FORMS}"));
                None
            }
        };
        form.finish();
        found
    }

    /// Reports the keys that nothing has asked for. Their values are not shown: one may be a
    /// secret under a misspelt name.
    pub(super) fn finish(self) {
        self.finish_ref();
    }

    /// Does what [`Self::finish`] does, for a section that is only borrowed.
    pub(super) fn finish_ref(&self) {
        let Some(table) = self.table else { return };
        let known = self.known.borrow();
        let mut strangers: Vec<_> = table.iter().filter(|(key, _)| !known.contains(key.as_str())).collect();
        strangers.sort_by_key(|(key, _)| key.as_str());
        for (key, value) in strangers {
            let origin = origin(value, &self.report.file);
            let expected = unknown(key, known.iter().copied());
            self.report.add(Problem { key: self.path_of(&quoted(key)), value: None, expected, origin });
        }
    }

    fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.known.borrow_mut().insert(key);
        self.table.and_then(|table| table.get(key))
    }

    /// Gets a value that must be there, and notes where it stands.
    fn present(&self, key: &'static str, expected: &str) -> Option<&'a Value> {
        let value = self.get(key);
        match value {
            Some(value) => {
                let noted = (Some(show(value)), origin(value, &self.report.file));
                self.report.read.borrow_mut().insert(self.path_of(key), noted);
            }
            None => self.wrong(key, None, format!("is missing; {expected}")),
        }
        value
    }

    fn required<T>(&self, key: &'static str, expected: &str, read: impl FnOnce(&'a Value) -> Option<T>) -> Option<T> {
        let value = self.present(key, expected)?;
        let found = read(value);
        if found.is_none() {
            self.wrong(key, Some(value), expected.to_owned());
        }
        found
    }

    fn out_of_range(&self, key: &'static str, expected: &str) -> bool {
        self.problem(key, expected.to_owned());
        false
    }

    fn wrong(&self, key: &'static str, value: Option<&Value>, expected: String) {
        let origin = value.map_or_else(|| self.origin.clone(), |value| origin(value, &self.report.file));
        self.report.add(Problem { key: self.path_of(key), value: value.map(show), expected, origin });
    }

    fn hidden(&self, key: &'static str, value: &Value, expected: String) {
        let origin = origin(value, &self.report.file);
        self.report.add(Problem { key: self.path_of(key), value: None, expected, origin });
    }
}

/// Writes a duration as the configuration would.
pub(super) fn spoken(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| format!("{duration:?}"), |signed| format!("{signed:#}"))
}

/// Reads a number, where one stands.
pub(super) fn as_number(value: &Value) -> Option<f64> {
    match &value.kind {
        ValueKind::Float(number) => Some(*number),
        #[expect(clippy::cast_precision_loss, reason = "no number of the configuration comes near 2^53")]
        ValueKind::I64(number) => Some(*number as f64),
        ValueKind::String(text) if is_environment(value) && is_decimal(text, true) => text.parse().ok(),
        _ => None,
    }
}

/// Reads a text, where one stands.
pub(super) fn as_text(value: &Value) -> Option<&str> {
    match &value.kind {
        ValueKind::String(text) if !is_date(value) => Some(text),
        _ => None,
    }
}

fn as_duration(text: &str) -> Option<Duration> {
    jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text).ok()
}

/// Tells whether a text is a plain decimal number: no sign but `-`, no leading zero.
fn is_decimal(text: &str, fraction: bool) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, rest) = unsigned.split_once('.').map_or((unsigned, None), |(whole, rest)| (whole, Some(rest)));
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && rest.is_none_or(|rest| fraction && digits(rest))
}

fn name_of(entry: &Value) -> Option<&str> {
    match &entry.kind {
        ValueKind::Table(table) => as_text(table.get("name")?).filter(|name| is_label(name)),
        _ => None,
    }
}

/// Tells whether a text may name a pool: a DNS label.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    !text.is_empty() && text.len() <= 63 && text.bytes().all(plain) && !text.starts_with(['-', '_']) && !text.ends_with(['-', '_'])
}

fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if bare { key.to_owned() } else { format!("\"{}\"", shortened(key)) }
}

/// Shows a value as TOML would write it, in short.
fn show(value: &Value) -> String {
    match &value.kind {
        ValueKind::Nil => "nothing".to_owned(),
        ValueKind::Boolean(flag) => flag.to_string(),
        ValueKind::I64(number) => number.to_string(),
        ValueKind::I128(number) => number.to_string(),
        ValueKind::U64(number) => number.to_string(),
        ValueKind::U128(number) => number.to_string(),
        ValueKind::Float(number) => format!("{number:?}"),
        ValueKind::String(text) if is_date(value) => shortened(text),
        // A URL in which a password may stand.
        ValueKind::String(text) if text.find('@').is_some_and(|place| place > 0) => "\"…\"".to_owned(),
        ValueKind::String(text) => format!("\"{}\"", shortened(text)),
        ValueKind::Table(_) => "{…}".to_owned(),
        ValueKind::Array(items) if items.is_empty() => "[]".to_owned(),
        ValueKind::Array(_) => "[…]".to_owned(),
    }
}

fn shortened(text: &str) -> String {
    const LENGTH: usize = 60;
    let mut short: String = text.chars().take(LENGTH).flat_map(char::escape_debug).collect();
    if text.chars().nth(LENGTH).is_some() {
        short.push('…');
    }
    short
}
