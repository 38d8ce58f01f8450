//! `node-fleet demo`: a fleet in memory that lives at a chosen speed, with the daemon that runs in production.

mod lines;
mod view;
mod world;

use super::fuzz::{Faults, faults};
use crate::control::status::{COMMANDS_WAITING, Handle, Status};
use crate::http::{self, AdminSocket, Pulse, Surface};
use crate::observability;
use crate::sim::front::{Picture, Scenario};
use crate::sim::{Fault, Planned, Trace};
use anyhow::{Context, anyhow, bail};
use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use world::{Desk, World};

/// Faults that are asked for come after this time of the world, one after the other.
const FIRST_FAULT: Duration = Duration::from_mins(30);
/// How long each of them lasts.
const FAULT_LASTS: Duration = Duration::from_mins(20);
/// Without `--for` the world is as long as anybody could watch.
const LONG: f64 = 24.0 * 365.0;

/// Shows a fleet that lives in memory.
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// How many seconds of the world pass in one of yours.
    #[arg(long, value_name = "FACTOR", default_value_t = 60.0, value_parser = speed)]
    speed: f64,
    /// Ends after so much time of the world (`24h`, `90m`); without it, when it is interrupted.
    #[arg(long = "for", value_name = "TIME", value_parser = span)]
    length: Option<Duration>,
    /// Which world; the same number gives the same one.
    #[arg(long, value_name = "NUMBER", default_value_t = 7)]
    seed: u64,
    /// Faults that come one after the other, by name or number.
    #[arg(long, value_name = "NAME,…", value_parser = faults)]
    fault: Option<Faults>,
    /// Demand that was recorded, in place of the shop's: a CSV file, `timestamp,value`. The world begins at the same
    /// time of the week.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// What the recording is scaled to: the cores that 99.9 % of its values stay below.
    #[arg(long, value_name = "CORES", default_value_t = 12.0, value_parser = cores, requires = "trace")]
    peak: f64,
    /// Where the daemon answers: the page at /, /metrics, /healthz, /api/v1/…
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9477")]
    listen: SocketAddr,
    /// The daemon's Unix socket, for `node-fleet pause --socket PATH` and the like.
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Prints lines as things happen, even on a terminal.
    #[arg(long)]
    lines: bool,
}

fn speed(text: &str) -> Result<f64, String> {
    number_within(text, &(1.0..=100_000.0))
}

fn cores(text: &str) -> Result<f64, String> {
    number_within(text, &(0.1..=1000.0))
}

fn number_within(text: &str, range: &RangeInclusive<f64>) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("`{text}` must be a number from {} to {}", range.start(), range.end()))
}

fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` must be a time from 1m to 366d, like `24h` or `90m`");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let time = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    let fine = (SignedDuration::from_mins(1)..=SignedDuration::from_hours(24 * 366)).contains(&time);
    Duration::try_from(time).ok().filter(|_| fine).ok_or_else(wrong)
}

impl Demo {
    fn scenario(&self) -> anyhow::Result<Scenario> {
        let hours = self.length.map_or(LONG, |length| length.as_secs_f64() / 3600.0);
        let mut scenario = match &self.trace {
            None => Scenario::shop(self.seed, hours),
            Some(path) => {
                let trace = Trace::read(path)?;
                let peak = trace.quantile(0.999);
                anyhow::ensure!(peak > 0.0, "{}: 99.9 % of the values are 0; expected is demand that can be scaled", path.display());
                Scenario::recorded(self.seed, hours, &trace, self.peak / peak)
            }
        };
        scenario.faults.extend(self.planned()?);
        Ok(scenario)
    }

    /// Plans the faults that are asked for, all of which come before the end.
    fn planned(&self) -> anyhow::Result<Vec<Planned>> {
        let asked: &[Fault] = self.fault.as_ref().map_or(&[], |faults| &faults.0);
        let one = |(fault, place): (&Fault, u32)| Planned { fault: *fault, at: FIRST_FAULT + FAULT_LASTS * 2 * place, lasts: FAULT_LASTS };
        let planned: Vec<Planned> = asked.iter().zip(0_u32..).map(one).collect();
        let late = self.length.and_then(|length| planned.iter().find(|planned| planned.at >= length));
        if let (Some(late), Some(last)) = (late, planned.last()) {
            let minutes = |time: Duration| time.as_secs() / 60;
            bail!(
                "--fault {} comes {} minutes after the beginning, when --for has ended the demo; all faults that are asked for need `--for {}m`",
                late.fault,
                minutes(late.at),
                minutes(last.at + last.lasts)
            );
        }
        Ok(planned)
    }

    fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| {
            let folder = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
            folder.join(format!("node-fleet-demo-{}.sock", std::process::id()))
        })
    }
}

/// Lets the world live until it ends or is interrupted, and sums it up. Gives 1 when an invariant has broken.
pub(super) fn execute(demo: &Demo) -> anyhow::Result<ExitCode> {
    let scenario = demo.scenario()?;
    scenario.check().context("this world is impossible")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let first = Status::first(&scenario.settings.cluster, "nobody yet", Timestamp::UNIX_EPOCH);
    let (status, shown) = watch::channel(Arc::new(first));
    let (commands, asked) = mpsc::channel(COMMANDS_WAITING);
    let interval = scenario.settings.policy.interval;
    let (instruments, render) = observability::metrics(shown.clone(), interval);
    let (beat, beats) = watch::channel(0_u64);
    let (stop, stopped) = watch::channel(false);
    let socket = demo.socket();
    let (tcp, admin) = runtime.block_on(async {
        let tcp = TcpListener::bind(demo.listen)
            .await
            .with_context(|| format!("cannot listen on {} (--listen names another address)", demo.listen))?;
        let admin = AdminSocket::bind(&socket).await.context("the daemon's socket")?;
        anyhow::Ok((tcp, admin))
    })?;
    let address = tcp.local_addr()?;
    let pulse = Pulse::new(interval);
    runtime.spawn({
        let (pulse, shown) = (Arc::clone(&pulse), shown.clone());
        async move { pulse.follow(beats, shown).await }
    });
    let handle = Handle { status: shown.clone(), commands: commands.clone() };
    let surface = Surface { handle, pulse, render, token: None };
    let serving = runtime.spawn(http::serve(surface, http::Limits::default(), tcp, Some(admin), stopped));
    let desk = Desk { status, asked, beat };
    let mut world = World::begin(scenario, demo.speed, demo.length, instruments, desk);
    let shown_at = Shown { address, socket: socket.clone(), speed: demo.speed };
    if std::io::stdout().is_terminal() && !demo.lines {
        view::show(&mut world, &shown, &commands, &shown_at)?;
    } else {
        runtime.block_on(lines::print(&mut world, &shown, &shown_at))?;
    }
    let last = world.end()?;
    stop.send_replace(true);
    let _ = runtime.block_on(serving);
    writeln!(std::io::stdout().lock(), "{}", summary(&last))?;
    Ok(if last.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is told about the demonstration itself.
struct Shown {
    address: SocketAddr,
    socket: PathBuf,
    speed: f64,
}

/// Sums a world up for people.
fn summary(last: &Picture) -> String {
    let hours = last.elapsed.as_secs_f64() / 3600.0;
    let saved = if last.peak_spent > 0.0 { (1.0 - last.spent / last.peak_spent) * 100.0 } else { 0.0 };
    let waits = &last.waits;
    let mean = if waits.pods > 0 { waits.total.as_secs_f64() / number(waits.pods) } else { 0.0 };
    let longest = waits.longest.as_secs_f64();
    let mut lines = vec![
        format!("{hours:.1} hours of the world: {:.1} node-hours, ${:.2}", last.node_hours, last.spent),
        format!("a fleet of the largest size at that time, all on demand: ${:.2}, so that {saved:.0} % were saved", last.peak_spent),
        format!("{} pods found no node at first; they waited {mean:.0} s in the mean and {longest:.0} s at most", waits.pods),
    ];
    if let Some(since) = last.waiting_since {
        let waited = Duration::try_from(last.wall.duration_since(since)).unwrap_or_default();
        let begun = moment(last.elapsed.saturating_sub(waited), since);
        lines.push(format!("pods that find no node yet: {}, the first of them since {begun}, for {} s", last.waiting, waited.as_secs()));
    }
    lines.extend(last.violations.iter().map(|violation| format!("a broken invariant: {violation}")));
    lines.join("\n")
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 pods")]
fn number(count: u64) -> f64 {
    count as f64
}

/// Names a time of the world: which day, and what the clock shows.
fn clock(picture: &Picture) -> String {
    moment(picture.elapsed, picture.wall)
}

fn moment(elapsed: Duration, wall: Timestamp) -> String {
    let day = elapsed.as_secs() / 86_400 + 1;
    format!("day {day}, {}", wall.strftime("%H:%M:%S"))
}

/// Gives the last word of the world, or says that it broke.
fn broken(_: Box<dyn std::any::Any + Send>) -> anyhow::Error {
    anyhow!("the world has broken; its last words are above")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::front::{Deaf, Run};
    use crate::sim::{Invariant, Violation};
    use clap::Parser;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        demo: Demo,
    }

    fn demo(words: &[&str]) -> Demo {
        Line::try_parse_from([&["demo"], words].concat()).expect("a command line").demo
    }

    #[test]
    fn a_fault_that_would_come_after_the_end_is_refused() {
        let asked = ["--fault", "partition,spot-storm,killed", "--for"];
        let all_come = demo(&[asked.as_slice(), &["111m"]].concat()).scenario().expect("all of them come");
        assert!([Fault::Partition, Fault::Killed].iter().all(|fault| all_come.faults.iter().any(|planned| planned.fault == *fault)));
        let why = demo(&[asked.as_slice(), &["70m"]].concat()).scenario().expect_err("two do not come").to_string();
        for part in ["--fault spot-storm", "70 minutes", "--for 130m"] {
            assert!(why.contains(part), "{why}");
        }
        assert!(demo(&["--fault", "all"]).scenario().is_ok(), "it ends when somebody says so");
    }

    #[tokio::test(start_paused = true)]
    async fn the_summary_tells_of_pods_that_still_wait_and_of_broken_invariants() {
        let run = Run::begin(Scenario::quiet(1, 1.0, 2), |_| Deaf);
        tokio::time::sleep(Duration::from_hours(1)).await;
        let mut last = Picture::of(&run.universe);
        assert_eq!(summary(&last).lines().count(), 3, "{}", summary(&last));
        last.waiting = 3;
        last.waiting_since = Some(last.wall - SignedDuration::from_secs(125));
        last.violations = vec![Violation { invariant: Invariant(3), at: Duration::from_mins(2), text: "too few".into() }];
        let told = summary(&last);
        assert!(told.contains("no node yet: 3, the first of them since day 1, 00:57:55, for 125 s"), "{told}");
        assert!(told.ends_with("a broken invariant: I3 at 0:02:00: too few"), "{told}");
    }

    #[test]
    fn arguments_that_make_no_sense_are_named() {
        assert_eq!(span("24h"), Ok(Duration::from_hours(24)));
        assert_eq!(span("90m"), Ok(Duration::from_mins(90)));
        for text in ["", "0h", "-3h", "soon", "10y"] {
            assert!(span(text).is_err_and(|why| why.contains("24h")), "{text}");
        }
        for text in ["0", "-1", "fast", "1e9"] {
            assert!(speed(text).is_err(), "{text}");
        }
    }
}
