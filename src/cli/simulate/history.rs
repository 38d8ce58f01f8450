//! A demand's past, read from the Prometheus that the configuration names.

use super::super::read;
use crate::adapters::aws;
use crate::adapters::prometheus::Prometheus;
use crate::adapters::secrets_manager::Secrets;
use crate::adapters::system_clock::SystemClock;
use crate::config::Config;
use crate::policy::ForecastRule;
use crate::ports::{Clock, Metrics};
use crate::sim::replay::Recording;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// As much as is read at once: a week of minutes is what Prometheus gives.
const SLICE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// Where the past comes from.
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// Your own history: the past of a `[[forecast]]` rule of this configuration, from its Prometheus, in nodes of its `per_node`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["nodes", "node_size"])]
    config: Option<PathBuf>,
    /// Which rule, where the configuration has several.
    #[arg(long, value_name = "NAME", requires = "config")]
    rule: Option<String>,
    /// How many days of it.
    #[arg(long, value_name = "NUMBER", default_value_t = 28, requires = "config", value_parser = clap::value_parser!(u16).range(1..=366))]
    days: u16,
    /// Shows what Prometheus would be asked, and asks nothing.
    #[arg(long, requires = "config")]
    dry_run: bool,
}

/// What is to be replayed.
pub(super) struct Past {
    /// The rule's name.
    pub name: String,
    /// In the query's unit.
    pub recording: Recording,
    /// How much of it one node serves.
    pub per_node: f64,
    /// What waiting is worth, as the configuration has it.
    pub price_of_waiting: f64,
}

impl History {
    /// Reads the past; `None` where it is not asked for. An exit code instead ends the command.
    ///
    /// # Errors
    /// When the rule is not to be found, Prometheus does not give its past, or there is none.
    pub(super) fn past(&self) -> anyhow::Result<Option<Result<Past, ExitCode>>> {
        let Some(path) = &self.config else { return Ok(None) };
        let config = match read(path)? {
            Ok(config) => config,
            Err(code) => return Ok(Some(Err(code))),
        };
        let rule = rule(&config, path, self.rule.as_deref())?;
        let now = SystemClock::new().now();
        let slices = slices(now, i64::from(self.days));
        if self.dry_run {
            let mut out = std::io::stdout().lock();
            for (first, last) in slices {
                writeln!(
                    out,
                    "query_range from {first} to {last}, step 60s, at {}\n  {}",
                    config.prometheus.endpoints.join(", "),
                    rule.query
                )?;
            }
            return Ok(Some(Err(ExitCode::SUCCESS)));
        }
        let samples = fetch(&config, rule, &slices)?;
        let recording = Recording::of_samples(&format!("the past of forecast.{}", rule.name), &samples)?;
        let (name, per_node) = (rule.name.to_string(), rule.per_node);
        Ok(Some(Ok(Past { name, recording, per_node, price_of_waiting: config.policy.predictive.price_of_waiting })))
    }
}

/// Finds the rule: the one that is named, or the only one.
fn rule<'c>(config: &'c Config, path: &Path, name: Option<&str>) -> anyhow::Result<&'c ForecastRule> {
    let rules = &config.policy.forecasts;
    let names = rules.iter().map(|rule| rule.name.as_str()).collect::<Vec<_>>().join(", ");
    let found = match (name, rules.as_slice()) {
        (None, [only]) => Some(only),
        (None, _) => None,
        (Some(name), rules) => rules.iter().find(|rule| rule.name.as_str() == name),
    };
    found.with_context(|| match (name, rules.len()) {
        (_, 0) => format!("{} has no [[forecast]]; expected one, with the query of the demand", path.display()),
        (Some(name), _) => format!("--rule {name}: expected one of {names}"),
        (None, _) => format!("expected --rule with one of {names}"),
    })
}

/// Cuts the days before now into what is read at once.
fn slices(now: Timestamp, days: i64) -> Vec<(Timestamp, Timestamp)> {
    let whole = |at: Timestamp| Timestamp::from_second(at.as_second().div_euclid(60) * 60).unwrap_or(at);
    let minute = SignedDuration::from_mins(1);
    let end = whole(now);
    let mut slices = Vec::new();
    let mut first = end.saturating_sub(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MIN);
    while first < end {
        let last = first.saturating_add(SLICE).unwrap_or(end).min(end);
        slices.push((first, last));
        first = last.saturating_add(minute).unwrap_or(end);
    }
    slices
}

fn fetch(config: &Config, rule: &ForecastRule, slices: &[(Timestamp, Timestamp)]) -> anyhow::Result<Vec<(Timestamp, f64)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let style = ProgressStyle::with_template("{bar:40} {percent} % of the history is read").context("the progress bar")?;
    let bar = ProgressBar::new(slices.len() as u64).with_style(style);
    runtime.block_on(async {
        let sdk = aws::load(&config.cluster.region).await;
        let prometheus = Prometheus::new(&config.prometheus, Arc::new(Secrets::new(&sdk)))?;
        let mut samples = Vec::new();
        for (first, last) in slices {
            let answer = prometheus.history(&rule.query, *first, *last).await;
            samples.extend(answer.map_err(|missing| anyhow::anyhow!("forecast.{}, from {first} to {last}: {missing}", rule.name))?);
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(samples)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_past_is_cut_into_whole_minutes_that_follow_one_another() {
        let now: Timestamp = "2026-03-20T10:20:45Z".parse().expect("a time");
        let cut = slices(now, 16);
        assert_eq!(cut.len(), 3);
        assert_eq!(cut[2].1.to_string(), "2026-03-20T10:20:00Z");
        assert_eq!(cut[0].0.to_string(), "2026-03-04T10:20:00Z");
        for pair in cut.windows(2) {
            assert_eq!(pair[1].0.duration_since(pair[0].1), SignedDuration::from_mins(1));
        }
        assert!(cut.iter().all(|(first, last)| last.duration_since(*first) <= SLICE && last >= first));
    }

    #[test]
    fn a_rule_that_is_not_there_is_named_with_those_that_are() {
        let example = include_str!("../../../config/node-fleet.toml");
        let added = "[[forecast]]\nname = \"cores\"\npool = \"workers\"\nquery = \"q\"\nper_node = 1.0\n";
        let parse = |text: &str| crate::config::parse(text, "f", []).unwrap_or_else(|problems| panic!("{problems}"));
        let (none, one) = (parse(example), parse(&format!("{example}\n{added}")));
        let two = parse(&format!("{example}\n{added}{}", added.replace("cores", "orders")));
        let path = Path::new("f.toml");
        let told = |config: &Config, name| rule(config, path, name).map(|rule| rule.name.to_string()).map_err(|error| error.to_string());
        assert!(told(&none, None).is_err_and(|error| error.contains("f.toml has no [[forecast]]")));
        assert_eq!(told(&one, None), Ok("cores".to_owned()));
        assert_eq!(told(&two, Some("orders")), Ok("orders".to_owned()));
        assert_eq!(told(&two, Some("order")), Err("--rule order: expected one of cores, orders".to_owned()));
        assert_eq!(told(&two, None), Err("expected --rule with one of cores, orders".to_owned()));
    }
}
