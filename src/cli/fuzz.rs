//! `node-fleet fuzz`: thousands of clusters from seeds, each with its troubles, under the eyes of the oracle.

use crate::sim::Fault;
use crate::sim::front::{Outcome, Scenario, run, shrink};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How many failing seeds are shown before the rest is only counted.
const FAILURES_SHOWN: usize = 5;
/// How many lines of a failing world's log are shown.
const LINES_SHOWN: usize = 40;

/// Lives through simulated clusters with faults, and looks whether an invariant breaks.
#[derive(Debug, clap::Args)]
pub(super) struct Fuzz {
    /// The seeds, from the first to before the last, or one alone.
    #[arg(long, value_name = "FROM..TO", default_value = "0..1000", value_parser = seeds)]
    seeds: Range<u64>,
    /// How long each cluster lives.
    #[arg(long, value_name = "HOURS", default_value_t = 24.0, value_parser = hours)]
    hours: f64,
    /// Which faults may come: `all`, `none`, or names or numbers of the catalogue, separated by commas.
    #[arg(long, value_name = "NAME,…", default_value = "all", value_parser = faults)]
    faults: Faults,
    /// How many clusters live at once; as many as there are processors by default.
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Gives the controllers a bug, which the oracle must see.
    #[cfg(test)]
    #[arg(long, value_name = "NAME")]
    plant: Option<crate::sim::Plant>,
    /// Shows the whole log of each cluster's last events, also when nothing breaks.
    #[arg(long)]
    log: bool,
}

impl Fuzz {
    fn scenario(&self, seed: u64) -> Scenario {
        #[cfg_attr(not(test), expect(unused_mut, reason = "only tests plant bugs"))]
        let mut scenario = Scenario::from_seed(seed, self.hours, &self.faults.0);
        #[cfg(test)]
        {
            scenario.plant = self.plant;
        }
        scenario
    }
}

/// Faults as the command line names them.
#[derive(Clone, Debug)]
pub(super) struct Faults(pub(super) Vec<Fault>);

fn seeds(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("`{text}` must be a range like `0..1000`, or one number");
    let number = |part: &str| part.trim().parse::<u64>().map_err(|_| wrong());
    let range = match text.split_once("..") {
        Some((from, to)) => number(from)?..number(to)?,
        None => {
            let only = number(text)?;
            only..only.saturating_add(1)
        }
    };
    if range.is_empty() { Err(format!("{}; the first must be below the last", wrong())) } else { Ok(range) }
}

fn hours(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('h').unwrap_or(text).parse::<f64>();
    let fine = |hours: &f64| *hours >= 0.1 && *hours <= 24.0 * 366.0;
    number.ok().filter(fine).ok_or_else(|| format!("`{text}` must be a number of hours from 0.1 to 8784"))
}

pub(super) fn faults(text: &str) -> Result<Faults, String> {
    match text {
        "all" => Ok(Faults(Fault::ALL.to_vec())),
        "none" => Ok(Faults(Vec::new())),
        names => names.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Faults),
    }
}

/// What all threads share.
struct Shared {
    next: AtomicU64,
    enough: AtomicBool,
    progress: ProgressBar,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    failures: Vec<(u64, Outcome)>,
    failed: u64,
    hits: BTreeMap<Fault, u64>,
    launches: usize,
    calls: u64,
}

/// Runs all seeds. Gives 1 when an invariant has broken.
pub(super) fn execute(fuzz: &Fuzz) -> anyhow::Result<ExitCode> {
    let number = fuzz.seeds.end - fuzz.seeds.start;
    let shared =
        Shared { next: AtomicU64::new(fuzz.seeds.start), enough: AtomicBool::new(false), progress: bar(number)?, found: Mutex::default() };
    let jobs = fuzz.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get)).max(1);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(fuzz, &shared));
        }
    });
    shared.progress.finish_and_clear();
    let found = shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(fuzz, number, shared.progress.elapsed(), &found)
}

fn bar(number: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} clusters, {per_sec}, {eta} left; {msg}").context("the progress bar")?;
    let bar = ProgressBar::new(number).with_style(style);
    bar.set_message("nothing has broken");
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

fn work(fuzz: &Fuzz, shared: &Shared) {
    loop {
        let seed = shared.next.fetch_add(1, Ordering::SeqCst);
        if seed >= fuzz.seeds.end || shared.enough.load(Ordering::SeqCst) {
            return;
        }
        let outcome = run(&fuzz.scenario(seed));
        if fuzz.log {
            let lines = outcome.log.join("\n");
            shared.progress.suspend(|| {
                let _ = writeln!(std::io::stdout().lock(), "seed {seed}\n{lines}");
            });
        }
        let mut found = shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        for (fault, hits) in &outcome.hits {
            *found.hits.entry(*fault).or_default() += hits;
        }
        found.launches += outcome.launches;
        found.calls += outcome.calls;
        if !outcome.violations.is_empty() {
            found.failed += 1;
            shared.progress.set_message(format!("{} clusters have broken an invariant", found.failed));
            if found.failures.len() < FAILURES_SHOWN {
                found.failures.push((seed, outcome));
            }
        }
        drop(found);
        shared.progress.inc(1);
    }
}

fn report(fuzz: &Fuzz, number: u64, took: Duration, found: &Found) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for (seed, outcome) in &found.failures {
        show_failure(&mut out, fuzz, *seed, outcome)?;
    }
    let seconds = took.as_secs_f64();
    let hours = fuzz.hours * number_of(number);
    writeln!(
        out,
        "{number} clusters, {hours:.0} simulated hours in {seconds:.1} s ({:.0} cluster-hours a second), {} calls, {} machines",
        hours / seconds.max(0.001),
        found.calls,
        found.launches,
    )?;
    let silent: Vec<&str> = fuzz.faults.0.iter().filter(|fault| !found.hits.contains_key(fault)).map(|fault| fault.name()).collect();
    if !silent.is_empty() {
        writeln!(out, "without an effect in these clusters: {}", silent.join(", "))?;
    }
    if found.failed == 0 {
        writeln!(out, "every invariant has held")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} clusters have broken an invariant", found.failed)?;
    Ok(ExitCode::FAILURE)
}

fn show_failure(out: &mut impl Write, fuzz: &Fuzz, seed: u64, outcome: &Outcome) -> anyhow::Result<()> {
    let scenario = fuzz.scenario(seed);
    let Some(first) = outcome.violations.first() else { bail!("seed {seed} has failed without a violation") };
    writeln!(out, "seed {seed}: {first}")?;
    let (small, shown) = shrink(&scenario, outcome.clone());
    let faults: Vec<String> = small.faults.iter().map(ToString::to_string).collect();
    let shown_first = shown.violations.first().unwrap_or(first);
    writeln!(
        out,
        "  smallest: {:.1} hours, {} controllers, faults [{}]: {shown_first}",
        small.hours,
        small.controllers,
        faults.join(", ")
    )?;
    let lines: Vec<&String> = shown.log.iter().collect();
    let at = lines.iter().position(|line| line.contains("VIOLATION")).unwrap_or(lines.len().saturating_sub(1));
    for line in &lines[at.saturating_sub(LINES_SHOWN)..(at + 3).min(lines.len())] {
        writeln!(out, "  {line}")?;
    }
    let names: Vec<&str> = fuzz.faults.0.iter().map(|fault| fault.name()).collect();
    let faults = if names.len() == Fault::ALL.len() {
        "all".to_owned()
    } else if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(",")
    };
    writeln!(out, "  again: node-fleet fuzz --seeds {seed} --hours {} --faults {faults} --log\n", fuzz.hours)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "nobody runs 2^53 clusters")]
fn number_of(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_planted_bug_is_found_and_its_smallest_world_is_told() {
        use clap::Parser;
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            fuzz: Fuzz,
        }
        let fuzz = |words: &[&str]| Line::try_parse_from([&["fuzz"], words].concat()).expect("a command line").fuzz;
        let sound = fuzz(&["--seeds", "0..2", "--hours", "3", "--faults", "none", "--jobs", "1"]);
        assert_eq!(execute(&sound).expect("it runs"), ExitCode::SUCCESS);
        let broken = fuzz(&["--seeds", "0..2", "--hours", "3", "--faults", "none", "--jobs", "1", "--plant", "hot-loop"]);
        assert_eq!(execute(&broken).expect("it runs"), ExitCode::FAILURE);
    }

    #[test]
    fn arguments_that_make_no_sense_are_named() {
        assert_eq!(seeds("5..9"), Ok(5..9));
        assert_eq!(seeds("7"), Ok(7..8));
        for text in ["", "9..5", "a..b", "-1..3"] {
            assert!(seeds(text).is_err_and(|why| why.contains(text)), "{text}");
        }
        assert_eq!(hours("24h"), Ok(24.0));
        for text in ["0", "-3", "long", "1e9"] {
            assert!(hours(text).is_err(), "{text}");
        }
        assert_eq!(faults("spot-storm, 16").map(|faults| faults.0), Ok(vec![Fault::SpotStorm, Fault::LaunchLanded]));
        assert!(faults("spot-strom").is_err_and(|why| why.contains("spot-storm")));
    }
}
