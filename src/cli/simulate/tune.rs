//! `node-fleet simulate --tune`: settings that would have been cheaper, sought on the first part of a demand and shown on
//! the rest.

use super::operator::Told;
use super::words::{coverage, repaired, table};
use super::{Bar, Circumstances, Simulate, print, progress_bar};
use crate::policy::{PredictiveMode, Settings};
use crate::sim::replay::{
    Changes, Conditions, Dial, LEAST_SAVING, Operator, Parts, Rates, Recording, Repairs, SideBySide, Tuned, held_out, held_out_work, tune,
};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// A key that is searched: its present value, as the environment would set it, and those that are tried beside it.
///
/// They are those on which a replay of one demand depends. What a change costs that a replay does not show, pods that move
/// and Prometheus that is asked more often, keeps the values within what is usual; bounds, budgets and the price of waiting
/// are the operator's, and stay.
struct Key {
    dial: Dial,
    now: fn(&Settings) -> Option<String>,
}

const KEYS: [Key; 8] = [
    key("predictive.mode", &[], |it| Some(it.predictive.mode.name().to_owned())),
    key("evaluation.interval", &["1m", "2m"], |it| time(it.interval)),
    key("scale_up.cpu_target", &["0.45", "0.55", "0.65", "0.75"], |it| Some(it.scale_up.cpu_target.to_string())),
    key("scale_up.cpu_above", &["0.5", "0.6", "0.7", "0.8", "0.9"], |it| Some(it.scale_up.cpu_above.to_string())),
    key("scale_up.cpu_sustain", &["2m", "4m", "8m"], |it| time(it.scale_up.cpu_sustain)),
    key("scale_up.cooldown", &["2m", "5m", "10m"], |it| time(it.scale_up.cooldown)),
    key("scale_down.cooldown", &["2m", "5m", "10m", "20m"], |it| time(it.scale_down.cooldown)),
    key("scale_down.min_node_age", &["2m", "10m", "30m"], |it| time(it.scale_down.min_node_age)),
];

const fn key(key: &'static str, values: &'static [&'static str], now: fn(&Settings) -> Option<String>) -> Key {
    Key { dial: Dial { key, values }, now }
}

fn time(time: Duration) -> Option<String> {
    SignedDuration::try_from(time).ok().map(|time| format!("{time:#}").replace(' ', ""))
}

/// Gives the keys with the values that are tried. A forecast that takes part may be switched off, and one that does not, on.
fn dials(settings: &Settings) -> Vec<Dial> {
    let switched: &[&str] = match settings.predictive.mode {
        PredictiveMode::On | PredictiveMode::Auto => &["off"],
        PredictiveMode::Shadow | PredictiveMode::Off => &["auto"],
    };
    let dial = |key: &Key| if key.dial.key == "predictive.mode" { Dial { values: switched, ..key.dial.clone() } } else { key.dial.clone() };
    KEYS.iter().map(dial).collect()
}

/// A key that is worth changing, with its values as TOML has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Change {
    key: &'static str,
    old: String,
    new: String,
}

fn changes(tuned: &Changes, settings: &Settings) -> Vec<Change> {
    let change = |key: &Key| {
        let new = toml(tuned.get(key.dial.key)?);
        Some(Change { key: key.dial.key, old: toml(&(key.now)(settings).unwrap_or_default()), new })
    };
    KEYS.iter().filter_map(change).collect()
}

/// Writes a value as TOML has it: numbers as they are, the rest as text.
fn toml(value: &str) -> String {
    if value.parse::<f64>().is_ok() { value.to_owned() } else { format!("\"{value}\"") }
}

/// Writes the changes as a part of the configuration's file, section by section.
fn as_file(changes: &[Change]) -> String {
    let (mut text, mut last) = (String::new(), "");
    for Change { key, old, new } in changes {
        let (section, key) = key.split_once('.').unwrap_or(("", key));
        if section != last {
            let _ = writeln!(text, "{}[{section}]", if last.is_empty() { "" } else { "\n" });
            last = section;
        }
        let _ = writeln!(text, "{key} = {new}  # was {old}");
    }
    text
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    summary: &'a str,
    demand: &'a str,
    repairs: Repairs,
    price_of_waiting: f64,
    rates: Rates,
    conditions: Circumstances<'a>,
    searched: Searched,
    changes: &'a [Change],
    /// What is held out; its rows are the tuned settings, where there are any, the operator's own, and the optimum.
    held_out: &'a SideBySide,
}

/// Where settings were sought, and how many were tried.
#[derive(Debug, Serialize)]
struct Searched {
    from: Timestamp,
    to: Timestamp,
    /// The days before this only taught the forecast.
    counted_from: Timestamp,
    configurations: usize,
    cost_before: f64,
    cost_after: f64,
}

/// Tunes, and prints what was found.
///
/// # Errors
/// When the demand is too short, or the page cannot be written.
pub(super) fn execute(simulate: &Simulate, told: &Told, name: &str, recording: &Recording) -> anyhow::Result<ExitCode> {
    let parts = Parts::of(recording.values.len()).with_context(|| format!("--tune: {name}"))?;
    let conditions = simulate.conditions(told, recording)?;
    let tuned = search(simulate, told, recording, &parts, &conditions)?;
    let bar = progress_bar(held_out_work(recording, &parts, &tuned))?;
    let found = held_out(recording, &parts, &conditions, &tuned, &mut Bar(&bar));
    bar.finish_and_clear();
    let changes = changes(&tuned.changes, &told.config.policy);
    let days = Days { recording, parts: &parts };
    let summary = summary(&days, &tuned, &found);
    simulate.write_page(&summary, name, told, recording, &conditions, &found)?;
    let text = if simulate.json {
        let report = Report {
            summary: &summary,
            demand: name,
            repairs: recording.repairs,
            price_of_waiting: conditions.price_of_waiting,
            rates: conditions.rates,
            conditions: simulate.circumstances(told, &conditions),
            searched: days.searched(&tuned),
            changes: if carries_over(&found) { &changes } else { &[] },
            held_out: &found,
        };
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        let file = if simulate.configured.config.is_some() { &told.name } else { "a configuration file" };
        let lines = if carries_over(&found) { format!("\nIn {file}:\n\n{}", as_file(&changes)) } else { String::new() };
        format!("{summary}\n\n{}{lines}\n{}", table(&found), remarks(told, &conditions, recording, &found))
    };
    print(&mut std::io::stdout().lock(), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Seeks settings, with a line on the standard error that says how far it is.
fn search(simulate: &Simulate, told: &Told, recording: &Recording, parts: &Parts, conditions: &Conditions) -> anyhow::Result<Tuned> {
    let style = ProgressStyle::with_template("{bar:40} {pos} configurations tried of {len} at most; {msg}").context("the progress bar")?;
    let bar = ProgressBar::new(0).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    bar.set_message("the forecast learns");
    let mut watch = |tried: usize, most: usize, saves: f64| {
        bar.set_length(most as u64);
        bar.set_position(tried as u64);
        bar.set_message(format!("the best saves {:.1} %", 100.0 * saves));
    };
    let with = |changes: &Changes| operator(simulate, told, changes);
    let tuned = tune(recording, parts, conditions, &dials(&told.config.policy), &with, &mut watch);
    bar.finish_and_clear();
    Ok(tuned)
}

/// Gives what is decided by under changes; `None` where they make no valid configuration.
fn operator(simulate: &Simulate, told: &Told, changes: &Changes) -> Option<Operator> {
    let told = told.with(changes)?;
    told.operator(simulate.cpu_use, simulate.boot(&told).longest()).ok()
}

/// The days of a recording, for people.
struct Days<'a> {
    recording: &'a Recording,
    parts: &'a Parts,
}

impl Days<'_> {
    fn at(&self, minute: usize) -> Timestamp {
        let minute = i64::try_from(minute).unwrap_or(i64::MAX);
        Timestamp::from_second(self.recording.start.plus(minute).0.saturating_mul(60)).unwrap_or(Timestamp::MAX)
    }

    fn spoken(&self, from: usize, to: usize) -> String {
        let time = |minute| self.at(minute).strftime("%Y-%m-%d %H:%M").to_string();
        #[expect(clippy::cast_precision_loss, reason = "minutes of some years")]
        let days = (to - from) as f64 / 1440.0;
        format!("the {days:.1} days from {} to {} UTC", time(from), time(to))
    }

    fn searched(&self, tuned: &Tuned) -> Searched {
        Searched {
            from: self.at(0),
            to: self.at(self.parts.searched),
            counted_from: self.at(self.parts.taught),
            configurations: tuned.tried,
            cost_before: tuned.cost_before,
            cost_after: tuned.cost_after,
        }
    }
}

/// Tells whether tuned settings are there and were worth it on what was held out, too.
fn carries_over(found: &SideBySide) -> bool {
    // Without tuned settings the row after the operator's own is the optimum's, and the last.
    matches!(&found.outcomes[..], [tuned, own, _] if tuned.cost <= (1.0 - LEAST_SAVING) * own.cost)
}

/// Says which days were used for what, and what came out on those that were held out.
fn summary(days: &Days<'_>, tuned: &Tuned, found: &SideBySide) -> String {
    let parts = days.parts;
    let taught = parts.taught / 1440;
    let sought = format!(
        "Settings were sought on {}, the first {taught} of which only taught the forecast; the table is of {} alone, at which the search did not look.",
        days.spoken(0, parts.searched),
        days.spoken(parts.searched, parts.minutes)
    );
    let saved = 100.0 * (1.0 - tuned.cost_after / tuned.cost_before.max(f64::MIN_POSITIVE));
    let (tried, nothing) = (tuned.tried, "Nothing is worth changing");
    if tuned.changes.is_empty() {
        return format!("{nothing}: the best of {tried} configurations cost {:.1} % less on the days searched.\n{sought}", saved.max(0.0));
    }
    let (with, own) = (&found.outcomes[0], &found.outcomes[1]);
    let held = 100.0 * (1.0 - with.cost / own.cost.max(f64::MIN_POSITIVE));
    let came = format!(
        "the best of {tried} configurations costs {:.1} % {} on the days held out (${:.2} and {:.0} node-minutes waiting, against ${:.2} and {:.0}), after {saved:.1} % less on the days searched",
        held.abs(),
        if held >= 0.0 { "less" } else { "more" },
        with.dollars,
        with.unmet_node_minutes,
        own.dollars,
        own.unmet_node_minutes
    );
    if carries_over(found) {
        format!("T{}.\n{sought}", &came[1..])
    } else {
        format!("{nothing}: {came}: what was found does not carry over.\n{sought}")
    }
}

fn remarks(told: &Told, conditions: &Conditions, recording: &Recording, found: &SideBySide) -> String {
    let cost = format!(
        "Cost is node-minutes paid, and {} for each that was unmet: that price is yours, and was not searched.",
        conditions.price_of_waiting
    );
    let whose = format!(
        "Configured is {}, with predictive.mode = \"{}\"; pods use {:.0} % of what they request.\nLeft out: other pods' sizes, zones, spot interruptions, headroom, [[metric]] rules, how long a drain takes and what it costs to move pods.",
        told.name,
        told.config.policy.predictive.mode.name(),
        100.0 * conditions.operator.cpu_use
    );
    let lines = [Some(cost), Some(whose), coverage(found)].into_iter().chain(repaired(recording.repairs));
    lines.flatten().fold(String::new(), |text, line| text + &line + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::operator::Configured;
    use super::super::tests::{defaults, simulate};
    use super::*;
    use crate::sim::replay::Progress;
    use std::path::Path;

    struct Silent;

    impl Progress for Silent {
        fn begins(&mut self, _: &str) {}
        fn passed(&mut self, _: u64) {}
    }

    /// A file of so many days with a value an hour; from `odd` on the values are others.
    fn recording(folder: &Path, days: i64, odd: i64) -> String {
        let begin: Timestamp = "2026-01-05T00:00:00Z".parse().expect("a time");
        let row = |hour: i64| {
            let at = begin + SignedDuration::from_hours(hour);
            format!("{at},{}\n", if hour >= 24 * odd { 50 + hour % 7 } else { 1 + hour % 5 })
        };
        let text = (0..24 * days).fold("timestamp,value\n".to_owned(), |text, hour| text + &row(hour));
        let path = folder.join(format!("{days}-{odd}.csv"));
        std::fs::write(&path, text).expect("it is written");
        path.to_str().expect("text").to_owned()
    }

    fn demand(path: &str) -> anyhow::Result<Recording> {
        let simulate = simulate(&["--tune", "--trace", path]).expect("it is right");
        Ok(simulate.demand(&defaults())?.expect("there is one").1)
    }

    #[test]
    fn a_history_that_is_too_short_is_refused_with_its_name_and_its_length() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = recording(folder.path(), 13, 99);
        let error = demand(&path).map(|_| ()).expect_err("it is too short");
        let told = format!("{error:#}");
        assert!(told.contains(&format!("--tune: {path}: 13.0 days")) && told.contains("expected 14 or more"), "{told}");
        assert!(demand(&recording(folder.path(), 14, 99)).is_ok());
    }

    #[test]
    fn what_is_held_out_does_not_scale_what_is_searched_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let [one, other] = [99, 9].map(|odd| demand(&recording(folder.path(), 14, odd)).expect("it can be read"));
        let searched = Parts::of(one.values.len()).expect("it is long enough").searched;
        assert_eq!(one.values[..searched], other.values[..searched]);
        assert_ne!(one.values[searched..], other.values[searched..]);
    }

    #[test]
    fn the_present_value_of_each_key_is_one_that_the_configuration_takes() {
        let told = defaults();
        for key in &KEYS {
            let now: &'static str = (key.now)(&told.config.policy).expect("it has one").leak();
            let same = told.with(&Changes::from([(key.dial.key, now)])).expect("it is valid");
            assert_eq!(same.config, told.config, "{} = {now}", key.dial.key);
        }
        for dial in dials(&told.config.policy) {
            let valid = |value: &&&'static str| told.with(&Changes::from([(dial.key, **value)])).is_some();
            assert!(dial.values.iter().any(|value| valid(&value)), "{} has no valid value", dial.key);
        }
        assert!(told.with(&Changes::from([("scale_up.cpu_above", "2")])).is_none());
    }

    /// Peaks of twenty minutes, again and again: with the shipped settings their nodes stay for half as long after each.
    fn peaks() -> Recording {
        let value = |minute: usize| if minute % 97 < 20 { 30.0 } else { 2.0 };
        let values: Vec<f32> = (0..3 * 1440).map(value).collect();
        Recording::whole(crate::policy::forecast::Minute(29_459_520), &values)
    }

    #[test]
    fn where_the_shipped_settings_wait_too_long_better_ones_are_found_and_can_be_put_into_the_file() {
        let told = Configured { config: None, rule: None }.read().expect("they are valid");
        let Ok(told) = told else { panic!("they are valid") };
        let (simulate, recording) = (simulate(&["--synthetic", "daily", "--price-of-waiting", "1"]).expect("it is right"), peaks());
        let parts = Parts { taught: 0, searched: 2 * 1440, minutes: 3 * 1440 };
        let conditions = simulate.conditions(&told, &recording).expect("it is right");
        let dials: Vec<Dial> = dials(&told.config.policy).into_iter().filter(|dial| dial.key.starts_with("scale_down")).collect();
        let tuned = tune(&recording, &parts, &conditions, &dials, &|changes| operator(&simulate, &told, changes), &mut |_, _, _| {});
        assert!(tuned.cost_after < 0.92 * tuned.cost_before, "{tuned:?}");
        let found = held_out(&recording, &parts, &conditions, &tuned, &mut Silent);
        assert!(found.outcomes[0].cost < 0.95 * found.outcomes[1].cost, "{:?}", found.outcomes);
        assert!((found.days - 1.0).abs() < 1e-9);
        let summary = summary(&Days { recording: &recording, parts: &parts }, &tuned, &found);
        assert!(
            summary.starts_with("The best of ") && summary.contains("the 2.0 days from 2026-01-05 00:00 to 2026-01-07 00:00"),
            "{summary}"
        );
        let written = as_file(&changes(&tuned.changes, &told.config.policy));
        let tuned = told.with(&tuned.changes).expect("it is valid").config;
        let read = told.followed_by(&written).expect("it can be put into the file");
        assert_eq!(read, tuned, "{written}");
        assert!(written.contains("  # was "), "{written}");
    }
}
