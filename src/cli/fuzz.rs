//! `node-fleet fuzz`: thousands of clusters from seeds, each with its troubles, under the eyes of the oracle.

use crate::sim::front::{Outcome, Scenario, attempt, shrink};
use crate::sim::{Fault, Planned};
use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How many failing seeds are shown with all that is known of them.
const FAILURES_SHOWN: usize = 5;
/// How many failing seeds are listed before the rest is only counted.
const SEEDS_LISTED: usize = 1000;
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
    /// Exactly these faults, in place of what the one seed draws: `none`, or one like `spot-storm@35480s+53s` after the
    /// other: which, when it begins, how long it lasts.
    #[arg(long, value_name = "PLAN", value_parser = plan, conflicts_with = "faults")]
    plan: Option<Plan>,
    /// How many controllers there are, 1 or 2, in place of what the one seed draws.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u8).range(1..=2))]
    controllers: Option<u8>,
    /// Leaves the one seed's cluster after so many hours, without the peace at its end; unlike --hours it changes
    /// nothing of what happens until then.
    #[arg(long, value_name = "HOURS", value_parser = hours)]
    until: Option<f64>,
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
    /// Looks whether what changes one world is given with one seed.
    fn check(&self) -> anyhow::Result<()> {
        let changes = [("--plan", self.plan.is_some()), ("--controllers", self.controllers.is_some()), ("--until", self.until.is_some())];
        let given = changes.iter().find(|(_, is_given)| *is_given);
        if let Some((name, _)) = given
            && self.number() != 1
        {
            bail!("{name} changes one world, and these are {}; name its seed, as with `--seeds {}`", self.number(), self.seeds.start);
        }
        self.check_times()
    }

    /// Looks whether what is given belongs before the peace at the one world's end.
    fn check_times(&self) -> anyhow::Result<()> {
        let Some(peace) = Scenario::from_seed(self.seeds.start, self.hours, &[]).peace_from else { return Ok(()) };
        let late = |planned: &&Planned| planned.at + planned.lasts > peace;
        if let Some(planned) = self.plan.iter().flat_map(|plan| &plan.0).find(late).filter(|_| self.until.is_none()) {
            bail!(
                "--plan: `{planned}` ends in the peace that reigns from {} s on, where nothing may go wrong; let it end before",
                peace.as_secs()
            );
        }
        let hours = peace.as_secs_f64() / 3600.0;
        if let Some(until) = self.until.filter(|until| *until > hours) {
            bail!("--until {until}: peace comes after {hours:.2} of {} hours; name an end before that, or leave it out", self.hours);
        }
        Ok(())
    }

    fn number(&self) -> u64 {
        self.seeds.end - self.seeds.start
    }

    /// Gives the faults that may come.
    fn possible(&self) -> BTreeSet<Fault> {
        match &self.plan {
            Some(plan) => plan.0.iter().map(|planned| planned.fault).collect(),
            None => self.faults.0.iter().copied().collect(),
        }
    }

    fn scenario(&self, seed: u64) -> Scenario {
        let mut scenario = Scenario::from_seed(seed, self.hours, &self.faults.0);
        if let Some(plan) = &self.plan {
            scenario.faults.clone_from(&plan.0);
        }
        if let Some(controllers) = self.controllers {
            scenario.controllers = controllers.into();
        }
        if let Some(until) = self.until {
            scenario = scenario.until(until);
        }
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

/// Faults with their times, as the command line names them.
#[derive(Clone, Debug)]
struct Plan(Vec<Planned>);

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

fn plan(text: &str) -> Result<Plan, String> {
    match text {
        "none" => Ok(Plan(Vec::new())),
        list => list.split(',').map(|planned| planned.trim().parse()).collect::<Result<_, _>>().map(Plan),
    }
}

/// What all threads share.
struct Shared {
    next: AtomicU64,
    progress: ProgressBar,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    /// The first seeds that failed, with what became of them.
    failures: BTreeMap<u64, Result<Outcome, String>>,
    /// Seeds that failed, the first of them.
    seeds: BTreeSet<u64>,
    /// How many did.
    failed: usize,
    hits: BTreeMap<Fault, u64>,
    launches: usize,
    calls: u64,
}

impl Found {
    fn add(&mut self, seed: u64, lived: Result<Outcome, String>) {
        if let Ok(outcome) = &lived {
            for (fault, hits) in &outcome.hits {
                *self.hits.entry(*fault).or_default() += hits;
            }
            self.launches += outcome.launches;
            self.calls += outcome.calls;
            if outcome.violations.is_empty() {
                return;
            }
        }
        self.failed += 1;
        self.seeds.insert(seed);
        if self.seeds.len() > SEEDS_LISTED {
            self.seeds.pop_last();
        }
        self.failures.insert(seed, lived);
        if self.failures.len() > FAILURES_SHOWN {
            self.failures.pop_last();
        }
    }

    /// Lists the seeds that failed.
    fn list(&self) -> String {
        let seeds = self.seeds.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match self.failed - self.seeds.len() {
            0 => seeds,
            more => format!("{seeds} and {more} more"),
        }
    }
}

/// Runs all seeds. Gives 1 when an invariant has broken, or a world has panicked or is impossible.
pub(super) fn execute(fuzz: &Fuzz) -> anyhow::Result<ExitCode> {
    fuzz.check()?;
    let shared = Shared { next: AtomicU64::new(fuzz.seeds.start), progress: bar(fuzz.number())?, found: Mutex::default() };
    let jobs = fuzz.jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, std::num::NonZero::get)).max(1);
    thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| work(fuzz, &shared));
        }
    });
    shared.progress.finish_and_clear();
    let found = shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    report(fuzz, shared.progress.elapsed(), &found)
}

fn bar(number: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} clusters, {per_sec}, {eta} left; {msg}").context("the progress bar")?;
    let bar = ProgressBar::new(number).with_style(style);
    bar.set_message("none has failed");
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

fn work(fuzz: &Fuzz, shared: &Shared) {
    loop {
        let seed = shared.next.fetch_add(1, Ordering::SeqCst);
        if seed >= fuzz.seeds.end {
            return;
        }
        let lived = attempt(&fuzz.scenario(seed));
        if fuzz.log
            && let Ok(outcome) = &lived
        {
            let lines = outcome.log.join("\n");
            shared.progress.suspend(|| {
                let _ = writeln!(std::io::stdout().lock(), "seed {seed}\n{lines}");
            });
        }
        let mut found = shared.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.add(seed, lived);
        if found.failed > 0 {
            shared.progress.set_message(format!("{} clusters have failed", found.failed));
        }
        drop(found);
        shared.progress.inc(1);
    }
}

fn report(fuzz: &Fuzz, took: Duration, found: &Found) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    for (seed, lived) in &found.failures {
        match lived {
            Ok(outcome) => show_failure(&mut out, fuzz, *seed, outcome)?,
            Err(why) => writeln!(out, "seed {seed}: {why}\n  again: {}\n", again(fuzz, *seed, &fuzz.scenario(*seed)))?,
        }
    }
    let seconds = took.as_secs_f64();
    let hours = fuzz.until.unwrap_or(fuzz.hours) * number_of(fuzz.number());
    writeln!(
        out,
        "{} clusters, {hours:.0} simulated hours in {seconds:.1} s ({:.0} cluster-hours a second), {} calls, {} machines",
        fuzz.number(),
        hours / seconds.max(0.001),
        found.calls,
        found.launches,
    )?;
    let silent: Vec<&str> = fuzz.possible().into_iter().filter(|fault| !found.hits.contains_key(fault)).map(Fault::name).collect();
    if !silent.is_empty() {
        writeln!(out, "without an effect in these clusters: {}", silent.join(", "))?;
    }
    if found.failed == 0 {
        writeln!(out, "every invariant has held")?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "{} clusters have failed, those of the seeds {}", found.failed, found.list())?;
    Ok(ExitCode::FAILURE)
}

fn show_failure(out: &mut impl Write, fuzz: &Fuzz, seed: u64, outcome: &Outcome) -> anyhow::Result<()> {
    let scenario = fuzz.scenario(seed);
    let Some(first) = outcome.violations.first() else { bail!("seed {seed} has failed without a violation") };
    writeln!(out, "seed {seed}: {first}")?;
    let (small, shown) = shrink(&scenario, outcome.clone());
    let shown_first = shown.violations.first().unwrap_or(first);
    writeln!(out, "  smallest: {:.1} hours, {} controllers, faults {}: {shown_first}", small.hours, small.controllers, plan_of(&small))?;
    let lines: Vec<&String> = shown.log.iter().collect();
    let at = lines.iter().position(|line| line.contains("VIOLATION")).unwrap_or(lines.len().saturating_sub(1));
    for line in &lines[at.saturating_sub(LINES_SHOWN)..(at + 3).min(lines.len())] {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "  again: {}\n", again(fuzz, seed, &small))?;
    Ok(())
}

/// Gives the command that lives through a seed's world again, as it is or as it was made smaller.
fn again(fuzz: &Fuzz, seed: u64, world: &Scenario) -> String {
    let until = if world.peace_from.is_none() { format!(" --until {}", world.hours) } else { String::new() };
    let (hours, plan, controllers) = (fuzz.hours, plan_of(world), world.controllers);
    format!("node-fleet fuzz --seeds {seed} --hours {hours} --plan {plan} --controllers {controllers}{until} --log")
}

/// Writes the faults of a world as `--plan` takes them.
fn plan_of(world: &Scenario) -> String {
    if world.faults.is_empty() {
        return "none".to_owned();
    }
    world.faults.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[expect(clippy::cast_precision_loss, reason = "nobody runs 2^53 clusters")]
fn number_of(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        fuzz: Fuzz,
    }

    fn fuzz(words: &[&str]) -> Fuzz {
        Line::try_parse_from([&["fuzz"], words].concat()).expect("a command line").fuzz
    }

    #[test]
    fn a_planted_bug_is_found_and_its_smallest_world_is_told() {
        let sound = fuzz(&["--seeds", "0..2", "--hours", "3", "--faults", "none", "--jobs", "1"]);
        assert_eq!(execute(&sound).expect("it runs"), ExitCode::SUCCESS);
        let broken = fuzz(&["--seeds", "0..2", "--hours", "3", "--faults", "none", "--jobs", "1", "--plant", "hot-loop"]);
        assert_eq!(execute(&broken).expect("it runs"), ExitCode::FAILURE);
    }

    #[test]
    fn the_command_that_is_printed_lives_through_the_smallest_world_again() {
        let planted = ["--plant", "tells-secrets"];
        let broken = (0_u64..30).find_map(|seed| {
            let number = seed.to_string();
            let words = ["--seeds", &number, "--hours", "12", "--faults", "access-denied,spot-storm,killed"];
            let fuzz = fuzz(&[words.as_slice(), &planted].concat());
            let outcome = attempt(&fuzz.scenario(seed)).expect("it lives");
            (!outcome.violations.is_empty()).then_some((fuzz, seed, outcome))
        });
        let (found, seed, outcome) = broken.expect("a world that tells a secret");
        let first = outcome.violations[0].clone();
        let whole = found.scenario(seed);
        let (small, shown) = shrink(&whole, outcome);
        assert_eq!(shown.violations[0].invariant, first.invariant);
        assert!(small.faults.len() < whole.faults.len() || small.controllers < whole.controllers || small.hours < whole.hours);
        let replay = |world: &Scenario| {
            let command = again(&found, seed, world);
            let words: Vec<&str> = command.trim_start_matches("node-fleet fuzz ").split(' ').chain(planted).collect();
            let repeated = fuzz(&words);
            repeated.check().expect("one seed");
            (attempt(&repeated.scenario(seed)).expect("it lives"), command)
        };
        let (replayed, command) = replay(&small);
        assert_eq!((replayed.violations, replayed.digest), (shown.violations, shown.digest), "{command}");
        // A world that was not made smaller is replayed by the same means.
        let (replayed, command) = replay(&whole);
        assert_eq!(replayed.violations.first(), Some(&first), "{command}");
    }

    #[test]
    fn what_changes_one_world_needs_one_seed() {
        for words in [["--plan", "none"], ["--controllers", "1"], ["--until", "3"]] {
            assert!(fuzz(&words).check().is_err_and(|why| why.to_string().contains(words[0])), "{words:?}");
            fuzz(&[["--seeds", "7"], words].concat()).check().expect("one seed");
        }
        fuzz(&["--seeds", "0..9"]).check().expect("nothing is changed");
        let both = ["fuzz", "--seeds", "7", "--plan", "none", "--faults", "all"];
        assert!(Line::try_parse_from(both).is_err_and(|why| why.to_string().contains("--plan")));
    }

    #[test]
    fn what_has_failed_is_listed_and_the_first_of_it_is_kept() {
        let mut found = Found::default();
        for seed in (0..1200).rev() {
            found.add(seed, Err(format!("panicked in {seed}")));
        }
        assert_eq!(found.failures.keys().copied().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
        let list = found.list();
        assert!(list.starts_with("0, 1, 2, 3, 4, 5, ") && list.ends_with(", 998, 999 and 200 more"), "{list}");
        assert_eq!(report(&fuzz(&["--seeds", "0..1200"]), Duration::from_secs(1), &found).expect("it is told"), ExitCode::FAILURE);
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
        let planned = Planned { fault: Fault::SpotStorm, at: Duration::from_secs(35_480), lasts: Duration::from_secs(53) };
        assert_eq!(plan("spot-storm@35480s+53s").map(|plan| plan.0), Ok(vec![planned]));
        assert_eq!(plan("none").map(|plan| plan.0), Ok(Vec::new()));
        assert!(plan("killed@60s+1s,spot-storm@soon").is_err_and(|why| why.contains("`spot-storm@soon`")));
    }
}
