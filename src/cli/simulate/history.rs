//! A demand's past, read from the Prometheus that the configuration names.

use super::operator::Told;
use super::past::past;
use super::print;
use crate::adapters::aws;
use crate::adapters::prometheus::Prometheus;
use crate::adapters::secrets_manager::Secrets;
use crate::adapters::system_clock::SystemClock;
use crate::config::{Config, wrong_endpoint};
use crate::control::slices::{Slices, whole_minute};
use crate::policy::ForecastRule;
use crate::ports::Clock;
use crate::sim::replay::Recording;
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::{SignedDuration, Timestamp};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

/// How much of the past is read.
#[derive(Debug, clap::Args)]
pub(super) struct History {
    /// Asks this Prometheus for the rule's past, in place of the configuration's endpoints; the authentication stays that of
    /// the configuration.
    #[arg(long, value_name = "URL", requires = "config", conflicts_with_all = ["trace", "synthetic"], value_parser = endpoint)]
    prometheus: Option<String>,
    /// How many days of the rule's past are read from Prometheus.
    #[arg(long, value_name = "NUMBER", default_value_t = 28, requires = "config", conflicts_with_all = ["trace", "synthetic"], value_parser = clap::value_parser!(u16).range(1..=366))]
    days: u16,
    /// Shows what Prometheus would be asked, and asks nothing.
    #[arg(long, requires = "config", conflicts_with_all = ["trace", "synthetic"])]
    dry_run: bool,
}

impl History {
    /// Reads the past of the rule, in its query's unit. An exit code instead ends the command.
    ///
    /// # Errors
    /// When Prometheus does not give the rule's past, or there is none.
    pub(super) fn past(&self, told: &Told) -> anyhow::Result<Result<Recording, ExitCode>> {
        let latest = whole_minute(SystemClock::new().now());
        let begin = latest.saturating_sub(SignedDuration::from_hours(24 * i64::from(self.days))).unwrap_or(Timestamp::MIN);
        let config = self.pointed(&told.config);
        if self.dry_run {
            print(&mut std::io::stdout().lock(), &queries(&config, &told.rule, begin, latest))?;
            return Ok(Err(ExitCode::SUCCESS));
        }
        let samples = fetch(&config, &told.rule, begin, latest)?;
        Ok(Ok(Recording::of_samples(&format!("the past of forecast.{}", told.rule.name), &samples)?))
    }

    /// Gives the configuration with the Prometheus that is asked.
    fn pointed(&self, config: &Config) -> Config {
        let mut config = config.clone();
        if let Some(url) = &self.prometheus {
            config.prometheus.endpoints = vec![url.clone()];
        }
        config
    }
}

fn endpoint(url: &str) -> Result<String, String> {
    wrong_endpoint(url).map_or_else(|| Ok(url.to_owned()), |must_be| Err(must_be.to_owned()))
}

/// Lists what is asked where the endpoints answer in time.
fn queries(config: &Config, rule: &ForecastRule, begin: Timestamp, latest: Timestamp) -> String {
    let (endpoints, mut read, mut text) = (config.prometheus.endpoints.join(", "), begin, String::new());
    while let Some((first, last)) = Slices::default().after(read, latest) {
        let _ = writeln!(text, "query_range from {first} to {last}, step 60s, at {endpoints}\n  {}", rule.query);
        read = last;
    }
    text
}

fn fetch(config: &Config, rule: &ForecastRule, begin: Timestamp, latest: Timestamp) -> anyhow::Result<Vec<(Timestamp, f64)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let style = ProgressStyle::with_template("{bar:40} {percent} % of the history is read").context("the progress bar")?;
    let minutes = |to: Timestamp| u64::try_from(to.duration_since(begin).as_mins()).unwrap_or(0);
    let bar = ProgressBar::new(minutes(latest)).with_style(style);
    runtime.block_on(async {
        let sdk = aws::load(&config.cluster.region).await;
        let prometheus = Prometheus::new(&config.prometheus, Arc::new(Secrets::new(&sdk)))?;
        let samples = past(&prometheus, &rule.query, begin, latest, |read| bar.set_position(minutes(read))).await;
        bar.finish_and_clear();
        samples.with_context(|| format!("forecast.{}", rule.name))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{defaults, simulate};
    use super::*;

    #[test]
    fn another_prometheus_is_an_url_and_is_the_one_that_is_asked() {
        let line = |url| simulate(&["--config", "f.toml", "--prometheus", url]);
        for url in ["prometheus:9090", "ftp://prometheus", "http://user:secret@prometheus"] {
            assert!(line(url).is_err_and(|error| error.contains("must be an http or https URL")), "{url}");
        }
        assert!(simulate(&["--synthetic", "daily", "--prometheus", "http://127.0.0.1:9"]).is_err());
        let told = defaults();
        let config = line("http://127.0.0.1:9").expect("it is right").history.pointed(&told.config);
        let begin: Timestamp = "2026-03-04T10:20:00Z".parse().expect("a time");
        let asked = queries(&config, &told.rule, begin, begin + SignedDuration::from_hours(28 * 24));
        assert_eq!(asked.lines().count(), 8);
        assert!(
            asked.starts_with("query_range from 2026-03-04T10:21:00Z to 2026-03-11T10:20:00Z, step 60s, at http://127.0.0.1:9\n  demand\n"),
            "{asked}"
        );
    }
}
