//! A demand's past, read from the Prometheus that the configuration names.

use super::operator::Told;
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
use std::process::ExitCode;
use std::sync::Arc;

/// As much as is read at once: a week of minutes is what Prometheus gives.
const SLICE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How much of the past is read.
#[derive(Debug, clap::Args)]
pub(super) struct History {
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
        let slices = slices(SystemClock::new().now(), i64::from(self.days));
        if self.dry_run {
            let endpoints = told.config.prometheus.endpoints.join(", ");
            let mut out = std::io::stdout().lock();
            for (first, last) in slices {
                writeln!(out, "query_range from {first} to {last}, step 60s, at {endpoints}\n  {}", told.rule.query)?;
            }
            return Ok(Err(ExitCode::SUCCESS));
        }
        let samples = fetch(&told.config, &told.rule, &slices)?;
        Ok(Ok(Recording::of_samples(&format!("the past of forecast.{}", told.rule.name), &samples)?))
    }
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
}
