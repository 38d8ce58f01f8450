//! `node-fleet simulate`: a demand that was recorded or made up, under policies side by side.

#[cfg(feature = "live")]
mod history;
mod operator;
#[cfg(any(test, feature = "live"))]
mod past;
mod report;
mod tune;
mod words;

use crate::sim::replay::{
    Boot, Conditions, Parts, Path, PodsAsNodes, Progress, Rates, Recording, Repairs, Shape, SideBySide, side_by_side, work,
};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::SignedDuration;
use serde::Serialize;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use words::{bounded_by, remarks, summary, table};

/// How long a demand that is made up is: two weeks to warm up, two that count.
const SYNTHETIC_DAYS: usize = 28;
/// More nodes than these make a replay long and tell nothing else.
const MOST_NODES: f64 = 10_000.0;

/// A demand that never needs more of a node than this needs none.
const LEAST_PEAK: f64 = 1e-3;
/// Sizes and prices lie between one over this and this.
const LARGEST: f64 = 1e30;

/// More minutes times nodes than this are decided from counts, which takes a hundredth of the time of a plan.
const LONGEST_PLANNED: f64 = 2e6;

/// Replays a demand under node-fleet, imitations of what others have, and the optimum.
#[derive(Debug, clap::Args)]
pub(super) struct Simulate {
    /// Demand that was recorded: a CSV or Parquet file of `timestamp,value`, times in ISO 8601, values in any unit; or
    /// pods under `start,end,cpu` or `start,end,cpu,memory`, in the order of their starts, with the cores they request. At
    /// most six million rows.
    #[arg(long, value_name = "FILE", conflicts_with = "synthetic")]
    #[cfg_attr(not(feature = "live"), arg(required_unless_present = "synthetic"))]
    #[cfg_attr(feature = "live", arg(required_unless_present_any = ["synthetic", "config"]))]
    trace: Option<PathBuf>,
    /// Demand that is made up, 28 days of it.
    #[arg(long, value_name = "SHAPE", value_parser = shape)]
    synthetic: Option<Shape>,
    #[command(flatten)]
    configured: operator::Configured,
    #[cfg(feature = "live")]
    #[command(flatten)]
    history: history::History,
    /// Scales the demand: so many nodes suffice in 99.9 % of its minutes. 20 where neither this, nor `--node-size`, nor a
    /// configuration says how large a node is.
    #[arg(long, value_name = "NUMBER", value_parser = nodes, conflicts_with = "node_size", allow_negative_numbers = true)]
    nodes: Option<f64>,
    /// Leaves the demand as it is: one node serves so much of it. With a configuration it is the rule's `per_node`.
    #[arg(long, value_name = "DEMAND", value_parser = positive, allow_negative_numbers = true)]
    node_size: Option<f64>,
    /// The memory of a node, in the unit of the pods' memory in `--trace`; how many cores it has is the size of a node.
    #[arg(long, value_name = "MEMORY", value_parser = positive, allow_negative_numbers = true, requires = "trace", conflicts_with = "nodes")]
    node_memory: Option<f64>,
    /// What pods use of the CPU that they request, 0 to 1: so busy the rules on CPU see a full node.
    #[arg(long, value_name = "SHARE", default_value_t = 0.4, value_parser = share, allow_negative_numbers = true)]
    cpu_use: f64,
    /// How long a node boots (`120s`), or the shortest and the longest (`60s..180s`); then 2 % of launches fail. By default
    /// it is the configuration's `predictive.boot`.
    #[arg(long, value_name = "TIME", value_parser = boot)]
    boot: Option<Boot>,
    /// What a node-minute of demand that waits is worth, in node-minutes that are paid; 20 where neither this nor a
    /// configuration says.
    #[arg(long, value_name = "FACTOR", value_parser = price, allow_negative_numbers = true)]
    price_of_waiting: Option<f64>,
    /// Dollars for a node and an hour on demand; on spot it is `prices.spot_ratio` of that. By default what
    /// `[prices.on_demand]` has for the pool's first type.
    #[arg(long, value_name = "DOLLARS", value_parser = positive, allow_negative_numbers = true)]
    node_price: Option<f64>,
    /// Seeks settings that cost less, on the first two thirds of the days, and shows them on the rest beside your own.
    #[arg(long)]
    tune: bool,
    /// For what is drawn: the demand made up, boot times, the days of the intervals.
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
    /// Prints JSON in place of the table.
    #[arg(long)]
    json: bool,
    /// Writes a page with plots, too, which needs no network.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report<'a> {
    summary: &'a str,
    demand: String,
    repairs: Repairs,
    price_of_waiting: f64,
    rates: Rates,
    conditions: Circumstances<'a>,
    #[serde(flatten)]
    found: &'a SideBySide,
}

/// With what a replay is repeated, beside its demand, the price of waiting and those of nodes.
#[derive(Debug, Clone, Serialize)]
struct Circumstances<'a> {
    /// The file, or the shipped defaults.
    configuration: &'a str,
    /// The `[[forecast]]` whose demand it is.
    rule: &'a str,
    /// `predictive.mode`.
    mode: &'static str,
    /// How node-fleet's turns were decided.
    decided_by: Path,
    /// The shortest boot and the longest.
    boot_seconds: [u32; 2],
    /// The share of launches that never become ready.
    failing_launches: f64,
    scale: Scale,
    /// The memory of a node, where it counts.
    node_memory: Option<f64>,
    cpu_use: f64,
    seed: u64,
}

/// How a demand becomes nodes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Scale {
    /// So many suffice in 99.9 % of its minutes.
    Nodes(f64),
    /// One serves so much of it.
    NodeSize(f64),
}

fn shape(text: &str) -> Result<Shape, String> {
    let names = || Shape::ALL.map(Shape::name).join(", ");
    Shape::ALL.into_iter().find(|shape| shape.name() == text).ok_or_else(|| format!("expected one of {}", names()))
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

fn positive(text: &str) -> Result<f64, String> {
    let is_usual = |number: &f64| (1.0 / LARGEST..=LARGEST).contains(number);
    number(text).filter(is_usual).ok_or_else(|| format!("expected a number above 0, at most {LARGEST:e}"))
}

fn share(text: &str) -> Result<f64, String> {
    number(text).filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| "expected a number from 0 to 1".into())
}

fn nodes(text: &str) -> Result<f64, String> {
    number(text).filter(|number| (1.0..=MOST_NODES).contains(number)).ok_or_else(|| format!("expected a number from 1 to {MOST_NODES}"))
}

fn price(text: &str) -> Result<f64, String> {
    number(text).filter(|number| (1.0..=10_000.0).contains(number)).ok_or_else(|| "expected a number from 1 to 10000".into())
}

fn boot(text: &str) -> Result<Boot, String> {
    let seconds = |text: &str| {
        let length = text.parse::<SignedDuration>().ok();
        // Half an hour is as far as is looked ahead.
        length.map(|it| it.as_secs()).and_then(|it| u32::try_from(it).ok()).filter(|it| (60..=1740).contains(it))
    };
    let expected = || "expected a time from 60s to 29m, or two of them, as in `60s..180s`".to_owned();
    match text.split_once("..") {
        None => seconds(text).map(Boot::Fixed).ok_or_else(expected),
        Some((least, most)) => {
            let (least, most) = seconds(least).zip(seconds(most)).filter(|(least, most)| least <= most).ok_or_else(expected)?;
            Ok(Boot::Spread { least, most, failing: 0.02 })
        }
    }
}

/// Replays the demand and prints what was found.
///
/// # Errors
/// When the file cannot be read, or is no recording.
pub(super) fn execute(simulate: &Simulate) -> anyhow::Result<ExitCode> {
    let told = match simulate.configured.read()? {
        Ok(told) => told,
        Err(code) => return Ok(code),
    };
    let (name, recording) = match simulate.demand(&told)? {
        Ok(demand) => demand,
        Err(code) => return Ok(code),
    };
    simulate.may_write_page()?;
    if simulate.tune {
        return tune::execute(simulate, &told, &name, &recording);
    }
    let conditions = simulate.conditions(&told, &recording)?;
    let bar = progress_bar(work(&recording, &conditions))?;
    let found = side_by_side(&recording, &conditions, &mut Bar(&bar));
    bar.finish_and_clear();
    let summary = summary(&found) + &bounded_by(&conditions, &recording).unwrap_or_default();
    simulate.write_page(&summary, &name, &told, &recording, &conditions, &found)?;
    let text = if simulate.json {
        let report = Report {
            summary: &summary,
            demand: name,
            repairs: recording.repairs,
            price_of_waiting: conditions.price_of_waiting,
            rates: conditions.rates,
            conditions: simulate.circumstances(&told, &conditions),
            found: &found,
        };
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        format!("{summary}\n\n{}{}", table(&found), remarks(&told, &conditions, &recording, &found))
    };
    print(&mut std::io::stdout().lock(), &text)?;
    Ok(ExitCode::SUCCESS)
}

/// Writes out what was found. A reader that has read enough, as `head` does, is no failure.
fn print(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Nodes of a demand whose unit nobody knows.
const NODES: f64 = 20.0;

fn progress_bar(work: u64) -> anyhow::Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:40} {percent} %, {eta} left; {msg}").context("the progress bar")?;
    let bar = ProgressBar::new(work).with_style(style);
    bar.enable_steady_tick(Duration::from_millis(250));
    Ok(bar)
}

impl Simulate {
    /// Looks whether the page can be written, before a replay that may take minutes. What the file has stays until then.
    fn may_write_page(&self) -> anyhow::Result<()> {
        let Some(path) = &self.html else { return Ok(()) };
        let opened = File::options().append(true).create(true).open(path);
        opened.map(drop).with_context(|| format!("--html {}", path.display()))
    }

    /// Writes the page with plots, where one is asked for.
    fn write_page(
        &self,
        summary: &str,
        demand: &str,
        told: &operator::Told,
        recording: &Recording,
        conditions: &Conditions,
        found: &SideBySide,
    ) -> anyhow::Result<()> {
        let Some(path) = &self.html else { return Ok(()) };
        let page = report::Page {
            summary,
            demand,
            repairs: recording.repairs,
            price_of_waiting: conditions.price_of_waiting,
            rates: conditions.rates,
            conditions: self.circumstances(told, conditions),
            found,
        };
        std::fs::write(path, report::page(&page)?).with_context(|| format!("--html {}", path.display()))
    }

    fn circumstances<'a>(&self, told: &'a operator::Told, conditions: &Conditions) -> Circumstances<'a> {
        let (boot_seconds, failing_launches) = match conditions.boot {
            Boot::Fixed(seconds) => ([seconds; 2], 0.0),
            Boot::Spread { least, most, failing } => ([least, most], failing),
        };
        Circumstances {
            configuration: &told.name,
            rule: told.rule.name.as_str(),
            mode: told.config.policy.predictive.mode.name(),
            decided_by: conditions.path,
            boot_seconds,
            failing_launches,
            scale: self.scale(told),
            node_memory: self.node_memory,
            cpu_use: self.cpu_use,
            seed: self.seed,
        }
    }

    /// Says how the demand becomes nodes: as the command line has it, or the configuration's rule.
    fn scale(&self, told: &operator::Told) -> Scale {
        let per_node = self.configured.config.as_ref().filter(|_| self.synthetic.is_none()).map(|_| told.rule.per_node);
        match (self.nodes, self.node_size.or(per_node)) {
            (None, Some(size)) => Scale::NodeSize(size),
            (nodes, _) => Scale::Nodes(nodes.unwrap_or(NODES)),
        }
    }

    /// Gives how long nodes boot: as the command line has it, or the configuration.
    fn boot(&self, told: &operator::Told) -> Boot {
        let configured = told.config.policy.predictive.boot.as_secs();
        self.boot.unwrap_or(Boot::Fixed(u32::try_from(configured).unwrap_or(u32::MAX)))
    }

    /// Finds the demand in nodes, and its name. An exit code instead ends the command.
    fn demand(&self, told: &operator::Told) -> anyhow::Result<Result<(String, Recording), ExitCode>> {
        let configured = self.configured.config.as_ref().map(|_| told.rule.per_node);
        let (name, recording) = match (&self.trace, self.synthetic) {
            (Some(path), _) => {
                let name = path.display().to_string();
                let file = File::open(path).with_context(|| format!("--trace {name}"))?;
                let cores = self.node_size.or(configured);
                let memory =
                    self.node_memory.map(|memory| cores.map(|cores| cores / memory).context("--node-memory: expected --node-size, too"));
                let no_cores = configured.filter(|_| self.nodes.or(self.node_size).is_none()).and_then(|_| told.no_cores());
                let node = PodsAsNodes { cores_per_memory: memory.transpose()?, no_cores };
                (name.clone(), Recording::read_file(&name, file, &node)?)
            }
            (None, Some(shape)) => (shape.name().to_owned(), shape.days(SYNTHETIC_DAYS, self.seed)),
            (None, None) => match self.past(told)? {
                Ok(recording) => (told.rule.name.to_string(), recording),
                Err(code) => return Ok(Err(code)),
            },
        };
        // What is held out has no say in how large the demand is that is searched on.
        let minutes = recording.values.len();
        let first = if self.tune { Parts::of(minutes).with_context(|| format!("--tune: {name}"))?.searched } else { minutes };
        let scaled = match self.scale(told) {
            Scale::Nodes(nodes) => recording.scaled_by(first, nodes),
            Scale::NodeSize(size) => recording.divided(size),
        };
        let scaled = bounded(&name, scaled)?;
        Ok(Ok((name, scaled)))
    }

    #[cfg(feature = "live")]
    fn past(&self, told: &operator::Told) -> anyhow::Result<Result<Recording, ExitCode>> {
        self.history.past(told)
    }

    #[cfg(not(feature = "live"))]
    #[expect(clippy::unused_self, reason = "with the live adapters it reads the history")]
    fn past(&self, _: &operator::Told) -> anyhow::Result<Result<Recording, ExitCode>> {
        anyhow::bail!("expected --trace FILE or --synthetic SHAPE")
    }

    fn conditions(&self, told: &operator::Told, recording: &Recording) -> anyhow::Result<Conditions> {
        let minutes = u32::try_from(recording.values.len()).unwrap_or(u32::MAX);
        let peak = recording.carried().into_iter().fold(0.0_f32, f32::max);
        let is_short = f64::from(minutes) * f64::from(peak) <= LONGEST_PLANNED;
        Ok(Conditions {
            boot: self.boot(told),
            price_of_waiting: self.price_of_waiting.unwrap_or(told.config.policy.predictive.price_of_waiting),
            rates: told.rates(self.node_price),
            seed: self.seed,
            operator: told.operator(self.cpu_use, self.boot(told).longest())?,
            path: if is_short { Path::Plan } else { Path::Counts },
        })
    }
}

/// Refuses a demand whose replay would take for ever, and one that never needs a node.
fn bounded(name: &str, recording: Recording) -> anyhow::Result<Recording> {
    let peak = f64::from(recording.carried().into_iter().fold(0.0_f32, f32::max));
    // A single minute may lie far above the rest.
    let most = 6.0 * MOST_NODES;
    if peak > most {
        let peak = if peak.is_finite() { format!("{peak:.0}") } else { "more than 1e38".to_owned() };
        anyhow::bail!("{name}: the peak is {peak} nodes; expected at most {most}, with larger nodes or fewer of them");
    }
    if peak < LEAST_PEAK {
        anyhow::bail!("{name}: the peak is {peak:e} nodes; expected at least {LEAST_PEAK}, with smaller nodes");
    }
    Ok(recording)
}

struct Bar<'a>(&'a ProgressBar);

impl Progress for Bar<'_> {
    fn begins(&mut self, name: &str) {
        self.0.set_message(name.to_owned());
    }

    fn passed(&mut self, minutes: u64) {
        self.0.inc(minutes);
    }
}

#[cfg(test)]
mod tests {
    use super::words::{billed, compared, coverage, lost, spoken};
    use super::*;
    use crate::sim::replay::{Outcome, Pinball};
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        simulate: Simulate,
    }

    pub(super) fn defaults() -> operator::Told {
        let Ok(told) = operator::Configured { config: None, rule: None }.read().expect("they are valid") else { panic!("they are valid") };
        told
    }

    pub(super) fn simulate(words: &[&str]) -> Result<Simulate, String> {
        let line = Line::try_parse_from(["simulate"].iter().chain(words)).map_err(|error| error.to_string())?;
        Ok(line.simulate)
    }

    #[test]
    fn arguments_that_make_no_sense_are_named_with_what_would_be_right() {
        for (words, expected) in [
            (&[][..], "--trace"),
            (&["--trace", "a.csv", "--synthetic", "daily"], "cannot be used with"),
            (&["--synthetic", "dayly"], "daily, bursty, cron, flash-sale"),
            (&["--synthetic", "daily", "--nodes", "0"], "from 1 to 10000"),
            (&["--synthetic", "daily", "--nodes", "many"], "from 1 to 10000"),
            (&["--synthetic", "daily", "--nodes", "4", "--node-size", "3"], "cannot be used with"),
            (&["--synthetic", "daily", "--node-size", "-1"], "above 0"),
            (&["--synthetic", "daily", "--node-size", "1e300"], "at most 1e30"),
            (&["--synthetic", "daily", "--boot", "2"], "60s to 29m"),
            (&["--synthetic", "daily", "--boot", "180s..60s"], "60s..180s"),
            (&["--synthetic", "daily", "--boot", "2h"], "60s to 29m"),
            (&["--synthetic", "daily", "--price-of-waiting", "0.5"], "from 1 to 10000"),
        ] {
            let error = simulate(words).expect_err(&words.join(" "));
            assert!(error.contains(expected), "{words:?}: {error}");
        }
        assert_eq!(simulate(&["--synthetic", "daily"]).expect("it is right").boot(&defaults()), Boot::Fixed(120));
        let spread = simulate(&["--synthetic", "daily", "--boot", "60s..3m"]).expect("it is right").boot(&defaults());
        assert_eq!(spread, Boot::Spread { least: 60, most: 180, failing: 0.02 });
    }

    #[test]
    fn a_file_that_is_not_there_or_no_recording_is_named() {
        let missing = simulate(&["--trace", "/nowhere/demand.csv"]).expect("it is right").demand(&defaults());
        assert!(missing.is_err_and(|error| format!("{error:#}").contains("/nowhere/demand.csv")));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("demand.csv");
        std::fs::write(&path, "when,what\n").expect("it is written");
        let wrong = simulate(&["--trace", path.to_str().expect("text")]).expect("it is right").demand(&defaults());
        assert!(wrong.is_err_and(|error| error.to_string().contains("demand.csv, line 1: the header is `when,what`")));
    }

    #[test]
    fn a_rule_that_counts_no_cores_does_not_say_how_many_a_node_has() {
        let folder = tempfile::tempdir().expect("a folder");
        let (pods, config) = (folder.path().join("pods.csv"), folder.path().join("fleet.toml"));
        std::fs::write(&pods, "start,end,cpu\n2026-01-05T00:00:00Z,2026-01-05T00:02:00Z,2\n").expect("it is written");
        let demand = |query: &str, words: &[&str]| {
            let text = format!("{EXAMPLE}[[forecast]]\nname = \"demand\"\npool = \"workers\"\nquery = '{query}'\nper_node = 4.0\n");
            std::fs::write(&config, text).expect("it is written");
            let files = ["--trace", pods.to_str().expect("text"), "--config", config.to_str().expect("text")];
            let simulate = simulate(&[&files[..], words].concat()).expect("it is right");
            let Ok(told) = simulate.configured.read().expect("it is valid") else { panic!("it is valid") };
            simulate.demand(&told).map(|demand| demand.expect("there is one").1.values).map_err(|error| error.to_string())
        };
        let cores = r#"sum(kube_pod_container_resource_requests{resource="cpu"})"#;
        assert_eq!(demand(cores, &[]), Ok(vec![Some(0.5); 2]));
        let orders = demand("sum(orders_waiting)", &[]);
        let orders = orders.expect_err("four orders are no four cores");
        assert!(orders.contains("pods.csv, line 1") && orders.contains("`sum(orders_waiting)`"), "{orders}");
        assert!(orders.contains("forecast.demand.per_node = 4") && orders.contains("expected --node-size"), "{orders}");
        assert_eq!(demand("sum(orders_waiting)", &["--node-size", "8"]), Ok(vec![Some(0.25); 2]));
    }

    #[test]
    fn a_demand_of_no_nodes_or_of_too_many_is_refused_with_its_peak() {
        let demand = |size: &str| {
            let simulate = simulate(&["--synthetic", "daily", "--node-size", size]).expect("it is right");
            simulate.demand(&defaults()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(demand("1"), Ok(()));
        assert!(demand("1e20").is_err_and(|error| error.contains("e-20 nodes; expected at least 0.001")));
        assert!(demand("1e-20").is_err_and(|error| error.contains("expected at most 60000")));
        let infinite = Recording::whole(crate::policy::forecast::Minute(0), &[1.0, f32::INFINITY]);
        assert!(bounded("f", infinite).is_err_and(|error| error.to_string().contains("more than 1e38 nodes")));
    }

    #[test]
    fn a_page_that_cannot_be_written_is_refused_before_the_replay_and_an_old_one_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("old.html");
        std::fs::write(&path, "old").expect("it is written");
        let page =
            |path: &std::path::Path| simulate(&["--synthetic", "daily", "--html", path.to_str().expect("text")]).expect("it is right");
        let error = execute(&page(&folder.path().join("none/x.html"))).map(|_| ()).expect_err("there is no such folder");
        assert!(format!("{error:#}").contains("--html") && format!("{error:#}").contains("none/x.html"), "{error:#}");
        page(&path).may_write_page().expect("it can be written");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "old");
    }

    #[test]
    fn a_reader_that_has_read_enough_is_no_failure_and_a_full_disk_is() {
        struct Fails(std::io::ErrorKind);
        impl Write for Fails {
            fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        assert!(print(&mut Fails(std::io::ErrorKind::BrokenPipe), "text").is_ok());
        assert!(print(&mut Fails(std::io::ErrorKind::StorageFull), "text").is_err());
    }

    #[test]
    fn a_report_says_with_what_it_is_repeated() {
        let mut told = defaults();
        told.config = told.followed_by("[predictive]\nboot = \"4m\"\nmode = \"shadow\"\n").expect("it is valid");
        let recording = Shape::Daily.days(1, 1).scaled(4.0);
        let said = |words: &[&str]| {
            let simulate = simulate(&[&["--synthetic", "daily"], words].concat()).expect("it is right");
            let conditions = simulate.conditions(&told, &recording).expect("it is right");
            serde_json::to_value(simulate.circumstances(&told, &conditions)).expect("it is JSON")
        };
        let (usual, other) = (said(&[]), said(&["--boot", "60s..180s", "--node-size", "0.25", "--seed", "3", "--cpu-use", "0.5"]));
        assert_eq!((&usual["boot_seconds"], &usual["scale"]), (&serde_json::json!([240, 240]), &serde_json::json!({ "nodes": 20.0 })));
        assert_eq!((&usual["mode"], &usual["decided_by"]), (&"shadow".into(), &"plan".into()));
        assert_eq!((&usual["configuration"], &usual["rule"]), (&"the shipped defaults".into(), &"demand".into()));
        assert_eq!((&other["boot_seconds"], &other["failing_launches"]), (&serde_json::json!([60, 180]), &serde_json::json!(0.02)));
        assert_eq!((&other["scale"], &other["seed"]), (&serde_json::json!({ "node_size": 0.25 }), &serde_json::json!(3)));
        assert_eq!(other["cpu_use"], serde_json::json!(0.5));
    }

    #[test]
    fn pods_become_nodes_by_the_size_that_is_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pods.csv");
        let rows = "2026-01-05T00:00:00Z,2026-01-05T00:02:00Z,2,4\n2026-01-05T00:01:00Z,2026-01-05T00:02:00Z,2,28\n";
        std::fs::write(&path, format!("start,end,cpu,memory\n{rows}")).expect("it is written");
        let path = path.to_str().expect("text");
        let demand = |words: &[&str]| {
            let simulate = simulate(&[&["--trace", path][..], words].concat()).expect("it is right");
            simulate.demand(&defaults()).map(|demand| demand.expect("there is one").1.values).map_err(|error| error.to_string())
        };
        assert_eq!(demand(&["--node-size", "4", "--node-memory", "16"]), Ok(vec![Some(0.5), Some(2.0)]));
        assert!(demand(&["--node-size", "4"]).is_err_and(|error| error.contains("pods.csv, line 1") && error.contains("--node-memory")));
        assert!(demand(&["--node-memory", "16"]).is_err_and(|error| error.contains("expected --node-size")));
    }

    const EXAMPLE: &str = include_str!("../../config/node-fleet.toml");
    const RATES: Rates = Rates { on_demand: 1.0, spot: 0.35, on_demand_base: 1, spot_share: 0.7 };

    fn found(recording: &Recording) -> SideBySide {
        struct Silent;
        impl Progress for Silent {
            fn begins(&mut self, _: &str) {}
            fn passed(&mut self, _: u64) {}
        }
        let conditions = simulate(&["--synthetic", "cron"]).expect("it is right").conditions(&defaults(), recording).expect("it is right");
        side_by_side(recording, &conditions, &mut Silent)
    }

    fn circumstances(told: &operator::Told) -> Circumstances<'_> {
        let (simulate, recording) = (simulate(&["--synthetic", "cron"]).expect("it is right"), Shape::Cron.days(1, 1));
        simulate.circumstances(told, &simulate.conditions(told, &recording).expect("it is right"))
    }

    /// Gives the data of a page.
    fn data(page: &str) -> serde_json::Value {
        let json = page.split_once("id=\"data\">").and_then(|(_, rest)| rest.split_once("</script>")).expect("the data is there").0;
        serde_json::from_str(json).expect("it is JSON")
    }

    #[test]
    fn nodes_are_billed_on_the_markets_that_the_pool_buys_from() {
        let configured = defaults().followed_by("[prices]\nspot_ratio = 0.5\n[prices.on_demand]\n\"m5.xlarge\" = 0.2\n");
        let mut told = defaults();
        told.config = configured.expect("it is valid");
        let expected = Rates { on_demand: 0.2, spot: 0.1, on_demand_base: 1, spot_share: 0.7 };
        assert_eq!(told.rates(None), expected);
        assert_eq!(told.rates(Some(3.0)), Rates { on_demand: 3.0, spot: 1.5, ..expected });
        assert!(billed(&expected).contains("1 node is on demand, and of those above 70 % on spot"), "{}", billed(&expected));
        assert_eq!(billed(&Rates::on_demand_only(0.2)), "A node costs $0.2000 an hour, on demand.");
    }

    #[test]
    fn days_without_demand_are_told_of_without_ratios_to_nothing() {
        let mut quiet = Shape::Cron.days(2, 1).scaled(8.0);
        quiet.values[1440..].fill(Some(0.0));
        let (told, mut never) = (defaults(), quiet.clone());
        never.values.fill(Some(0.0));
        for recording in [quiet, never.scaled(8.0)] {
            let found = found(&recording);
            let sentence = summary(&found);
            let table = table(&found);
            assert!(!format!("{sentence}{table}").contains("NaN") && !format!("{sentence}{table}").contains("inf"), "{sentence}\n{table}");
            let page = report::Page {
                summary: &sentence,
                demand: "none",
                repairs: Repairs::default(),
                price_of_waiting: 20.0,
                rates: RATES,
                conditions: circumstances(&told),
                found: &found,
            };
            let data = data(&report::page(&page).expect("it can be made"));
            for outcome in data["found"]["outcomes"].as_array().expect("a list") {
                for figure in ["node_hours", "dollars", "unmet_share", "unmet_node_minutes", "minutes_over", "launches", "cost"] {
                    assert!(outcome[figure].is_number(), "{figure} of {outcome}");
                }
                assert!(outcome["ours_to_this"].is_null() || outcome["ours_to_this"]["ratio"].is_number(), "{outcome}");
            }
        }
    }

    #[test]
    fn what_the_forecast_lost_stands_beside_the_naive_ones() {
        let told = lost(Pinball { forecast: 0.25, persistence: 0.5, seasonal: Some(0.75) });
        assert!(told.contains("was 0.250 nodes, against 0.500 of") && told.contains("and 0.750 of one that says"), "{told}");
        assert!(!lost(Pinball { forecast: 0.25, persistence: 0.5, seasonal: None }).contains("yesterday"));
        let found = found(&Shape::Cron.days(2, 1).scaled(8.0));
        assert!(coverage(&found).is_some_and(|told| told.contains("pinball")));
    }

    #[test]
    fn few_days_are_told_in_hours() {
        assert_eq!([0.5, 1.0, 2.0, 13.9].map(spoken), ["12 hours", "24 hours", "2 days", "14 days"]);
    }

    #[test]
    fn dollars_saved_by_letting_more_wait_are_not_praised() {
        let found = found(&Shape::Cron.days(2, 1).scaled(8.0));
        let outcome = |dollars: f64, waiting: f64| Outcome {
            dollars,
            unmet_node_minutes: waiting,
            unmet_share: waiting / 10_000.0,
            ..found.outcomes[0].clone()
        };
        for (dollars, waiting, words) in [
            (56.0, 1160.0, "less than a threshold with its $100.00, but only by serving less: that one leaves 50 waiting"),
            (56.0, 54.0, "44 % less than a threshold, which leaves 50 waiting"),
            (56.0, 0.0, "44 % less than a threshold, which leaves 50 waiting"),
            (100.1, 1160.0, "as much as a threshold, which leaves 50 waiting"),
            (130.0, 1160.0, "30 % more than a threshold, which leaves 50 waiting"),
        ] {
            assert_eq!(compared(&outcome(dollars, waiting), &outcome(100.0, 50.0), "a threshold"), words);
        }
    }

    #[test]
    fn bounds_that_hold_for_node_fleet_alone_are_told_of_where_they_are_felt() {
        let recording = Recording::whole(crate::policy::forecast::Minute(0), &[7.5; 2880]);
        let mut conditions =
            simulate(&["--synthetic", "cron"]).expect("it is right").conditions(&defaults(), &recording).expect("it is right");
        assert_eq!(bounded_by(&conditions, &recording), None);
        let pool = &mut conditions.operator.settings_mut().pools[0];
        (pool.min, pool.max) = (2, 5);
        let told = bounded_by(&conditions, &recording).expect("they are felt");
        assert!(told.contains("(at least 2 nodes, at most 5 nodes, where the peak needs 8)") && told.contains("alone"), "{told}");
    }

    #[test]
    fn the_table_and_the_sentence_hold_what_was_found() {
        let (told, found) = (defaults(), found(&Shape::Cron.days(2, 1).scaled(8.0)));
        let table = table(&found);
        assert_eq!(table.lines().count(), 1 + found.outcomes.len());
        for name in ["node-fleet ", "static peak", "Karpenter-like", "AWS-predictive-like", "best in hindsight", "clairvoyant optimum"] {
            assert!(table.contains(name), "{name}\n{table}");
        }
        let sentence = summary(&found);
        assert!(sentence.starts_with("On these 24 hours node-fleet would have cost $"), "{sentence}");
        assert!(sentence.contains("than a 70/30 threshold") && sentence.ends_with('.'), "{sentence}");
        assert!(table.contains("(too short)"), "a day is too short for an interval\n{table}");
        let repairs = Repairs { gaps: 3, missing_minutes: 500, ..Repairs::default() };
        let hostile = "</script><script>alert(1)</script>";
        let page = report::Page {
            summary: &sentence,
            demand: hostile,
            repairs,
            price_of_waiting: 20.0,
            rates: RATES,
            conditions: circumstances(&told),
            found: &found,
        };
        let page = report::page(&page).expect("it can be made");
        assert!(!page.contains(hostile) && !page.contains("{{data}}") && page.matches("</script>").count() == 4);
        let data = data(&page);
        assert_eq!(
            (data["demand"].as_str(), data["trajectories"].as_array().map(Vec::len)),
            (Some(hostile), Some(found.outcomes.len() - 1))
        );
        assert_eq!((data["repairs"]["gaps"].as_u64(), data["repairs"]["missing_minutes"].as_u64()), (Some(3), Some(500)));
        assert!(page.contains("data.repairs.gaps"), "the page speaks of gaps");
        assert!(data["steps"].as_array().is_some_and(|steps| !steps.is_empty()));
        let ours = &data["found"]["outcomes"][0];
        let figure = |name: &str| ours[name].as_f64().expect("a figure");
        let (on_demand, spot) = (figure("on_demand_dollars"), figure("spot_dollars"));
        assert!(on_demand > 0.0 && spot > 0.0 && (on_demand + spot - figure("dollars")).abs() < 1e-6, "{ours}");
        // A day counts, from midnight to midnight: the hours are what the day costs.
        let hours = ours["dollars_by_hour"].as_array().expect("hours").iter();
        let sum: f64 = hours.map(|hour| hour["on_demand"].as_f64().unwrap_or(0.0) + hour["spot"].as_f64().unwrap_or(0.0)).sum();
        assert!((sum - figure("dollars")).abs() < 1e-6, "{sum} {ours}");
    }
}
