//! Each fault of the catalogue bites, breaks no invariant, and brings about what the catalogue expects.

use super::story::{LASTS, Story, exercise};
use crate::sim::front::{Scenario, run};
use crate::sim::workload::Curve;
use crate::sim::{Fault, Planned};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

type Change = fn(&mut Scenario);
type Check = fn(&Story) -> bool;

/// How a fault is tried: what the world is like beside it, and what must be seen.
struct Row {
    fault: Fault,
    change: Change,
    /// In words, with the check.
    expected: (&'static str, Check),
}

const fn row(fault: Fault, expected: &'static str, check: Check) -> Row {
    Row { fault, change: |_| {}, expected: (expected, check) }
}

const fn changed(fault: Fault, change: Change, expected: &'static str, check: Check) -> Row {
    Row { fault, change, expected: (expected, check) }
}

fn briefly(scenario: &mut Scenario) {
    scenario.faults[0].lasts = Duration::from_secs(70);
}

/// Pods that want a node come while the fault lasts.
fn with_a_burst(scenario: &mut Scenario) {
    let sale = Curve::FlashSale { at: Duration::from_mins(75), height: 2.0, half_life: Duration::from_mins(10) };
    scenario.settings.policy.pools[0].max = 16;
    scenario.workloads[1].curve = Curve::Sum(vec![Curve::Constant(0.2), sale]);
}

/// The fault comes when a node has just been cordoned and its pods are to go.
fn in_a_drain(scenario: &mut Scenario) {
    let sound = run(&Scenario { faults: Vec::new(), ..scenario.clone() });
    let evicted = sound.log.iter().find(|line| line.contains("a budget keeps")).expect("a drain that a budget holds up");
    let mut parts = evicted.split_whitespace().next().expect("a time").split(':').map(|part| part.parse::<f64>().expect("a number"));
    let mut next = || parts.next().expect("hours, minutes and seconds");
    let seconds = next() * 3600.0 + next() * 60.0 + next();
    scenario.faults[0].at = Duration::from_secs_f64(seconds) + Duration::from_millis(1);
}

/// The load is high when the fault comes.
fn at_the_peak(scenario: &mut Scenario) {
    scenario.faults[0].at = Duration::from_mins(50);
}

fn no_removal(story: &Story) -> bool {
    story.during("cordons") == 0 && story.during("terminates") == 0
}

fn pods_are_served(story: &Story) -> bool {
    story.during("find no node") > 0 && story.during("buys") > 0 && story.during("joins") > 0
}

fn blind_but_serving(story: &Story) -> bool {
    no_removal(story) && pods_are_served(story) && story.after("cordons") > 0
}

/// The fleet still grows and shrinks while the fault lasts.
fn lives_on(story: &Story) -> bool {
    story.during("joins") > 0 && story.during("terminates") > 0
}

/// What follows the words in the lines, each is another, and there is some.
fn once_each(lines: &[String], words: &str) -> bool {
    let told: Vec<&str> = lines.iter().filter_map(|line| line.split(words).nth(1)).collect();
    !told.is_empty() && told.len() == told.iter().collect::<BTreeSet<_>>().len()
}

/// Names the tests in these sources that name the fault.
fn tests_of(fault: Fault) -> Vec<&'static str> {
    const SOURCES: [&str; 8] = [
        include_str!("crashes.rs"),
        include_str!("drains.rs"),
        include_str!("faults.rs"),
        include_str!("interventions.rs"),
        include_str!("launches.rs"),
        include_str!("plants.rs"),
        include_str!("regressions.rs"),
        include_str!("worlds.rs"),
    ];
    let wanted = format!("Fault::{fault:?}");
    let names = |line: &str| line.match_indices(&wanted).any(|(at, _)| !line[at + wanted.len()..].starts_with(char::is_alphanumeric));
    let mut tests: Vec<&str> = Vec::new();
    for source in SOURCES {
        let mut test = "";
        for line in source.lines() {
            if let Some(name) = line.trim_start_matches("async ").strip_prefix("fn ").and_then(|rest| rest.split('(').next()) {
                test = name;
            }
            // The rows stand before every test, and are those of one.
            let own = if line.starts_with("    row(") || line.starts_with("    changed(") { EACH } else { test };
            if names(line) && !tests.contains(&own) {
                tests.push(own);
            }
        }
    }
    tests
}

/// The test of the rows.
const EACH: &str = "each_fault_bites_and_brings_about_what_is_expected";

fn one_leads_on(story: &Story) -> bool {
    story.ever("leads in epoch") >= 2 && story.after("joins") + story.during("joins") > 0
}

#[rustfmt::skip]
const ROWS: [Row; 59] = [
    changed(Fault::PrometheusDown, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    changed(Fault::EmptyVector, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    changed(Fault::NotANumber, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    changed(Fault::StaleSample, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    changed(Fault::PartialScrape, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    row(Fault::NetworkBroke, "nothing is removed although CPU is low", |story| story.during("cordons") == 0),
    row(Fault::OscillatingLoad, "the fleet does not swing with it", |story| story.during("cordons") <= 14 && story.during("buys") <= 14),
    changed(Fault::PrometheusRestart, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    changed(Fault::HugeAnswer, with_a_burst, "nothing is removed, pods are served", blind_but_serving),
    row(Fault::StaleList, "nobody is touched who has changed meanwhile", |story| story.after("joins") > 0),
    row(Fault::WatchGap, "after it the fleet goes on", |story| story.after("buys") > 0 && story.after("cordons") > 0),
    row(Fault::ApiServerDown, "nothing is terminated", |story| story.during("terminates") == 0 && story.after("terminates") > 0),
    row(Fault::PatchConflict, "nodes are cordoned all the same", lives_on),
    row(Fault::CrashBeforeLaunch, "the launch is sent by whoever comes after", |story| story.ever("dies before CreateFleet") > 0 && one_leads_on(story)),
    row(Fault::CrashAfterLaunch, "the launch has one effect", |story| story.ever("dies after CreateFleet") > 0 && one_leads_on(story)),
    row(Fault::LaunchLanded, "the machines become nodes", lives_on),
    row(Fault::TokenMismatch, "other operations bring what is needed", |story| story.during("buys nothing: the client token") > 0 && story.outcome.waits.longest < LASTS),
    row(Fault::ZoneFailover, "the other zone serves", |story| story.during("buys") > 0 && Story::count(&story.during, "in subnet-eu-central-1a") == 0),
    row(Fault::DescribeLag, "the maximum is kept", lives_on),
    row(Fault::TerminateNotFound, "every machine ends in the end", |story| story.after("terminates") > 0),
    changed(Fault::CapacityInOneOffer, |scenario| scenario.zones.truncate(1), "another offer serves", pods_are_served),
    row(Fault::NoSpotAnywhere, "on-demand serves", |story| story.during("on-demand in") > 0),
    changed(Fault::PartialFill, |scenario| scenario.zones.truncate(1), "what did not come is bought again", |story| story.during("buys") > 1),
    changed(Fault::RequestLimit, with_a_burst, "machines come all the same", pods_are_served),
    row(Fault::VcpuQuota, "few requests are sent, and after it machines come", |story| story.during("buys nothing") < 40 && story.after("buys") > 0),
    changed(Fault::AccessDenied, |scenario| scenario.faults[0].lasts = Duration::from_mins(40), "no hot loop, and after it machines come", |story| story.after("joins") > 0),
    row(Fault::NeverJoins, "they are given back, and the offers rest", |story| story.during("terminates") > 0 && story.during("buys") < 40 && story.after("joins") > 0),
    row(Fault::FlappingNode, "the fleet lives on", |story| story.during("is NotReady") > 3),
    row(Fault::HostnameReused, "who cannot join is given back", |story| story.during("terminates") > 0 && story.after("joins") > 0),
    changed(Fault::AddressRecycled, briefly, "the stranger is left alone", |story| story.ever("takes the name") == 1),
    row(Fault::RemovalRepeated, "each machine is given back once", |story| once_each(&story.outcome.log, " begins to give ")),
    changed(Fault::OtherActor, briefly, "it is made up for", |story| story.after("buys") + story.during("buys") > 0),
    changed(Fault::BudgetNever, in_a_drain, "the node is back in service after the deadline, and no other is drained", |story| {
        story.during("uncordons") == 1 && story.during("a budget keeps") <= 4
    }),
    row(Fault::StuckTerminating, "nodes are back in service after the deadline", |story| story.during("uncordons") > 0),
    changed(Fault::CrashInDrain, in_a_drain, "the drain is taken up or taken back", |story| story.ever("dies after evict") > 0 && one_leads_on(story)),
    changed(Fault::InstanceGone, briefly, "the node's object is removed", |story| story.after("removes the object") > 0),
    changed(Fault::NodeObjectGone, briefly, "the instance is reaped", |story| {
        let orphan = story.ever("deletes the object of");
        orphan == 1 && story.after("terminates") > 0
    }),
    changed(Fault::ManyUnready, at_the_peak, "nothing is removed", |story| story.during("cordons") == 0),
    changed(Fault::SpotStorm, at_the_peak, "all are drained and replaced", |story| {
        let wanted = story.during("wants");
        wanted > 0 && story.during("cordons") >= wanted && story.during("the market takes") == 0 && story.during("buys") > 0
    }),
    changed(Fault::DuplicateMessage, |scenario| scenario.reclaims_per_hour = 1.0, "each node is given back once", |story| {
        story.during("wants") > 0 && once_each(&story.during, " begins to give ") && once_each(&story.during, " cordons ")
    }),
    changed(Fault::LateMessage, |scenario| scenario.reclaims_per_hour = 1.0, "what is over is not acted on", |story| story.during("the market takes") > 0 && story.after("joins") > 0),
    row(Fault::ForgedMessage, "strangers and on-demand machines are left alone", lives_on),
    changed(Fault::QueueOutage, |scenario| scenario.reclaims_per_hour = 1.0, "what nodes show is acted on", |story| story.during("the market takes") > 0 && story.during("removes the object") > 0),
    changed(Fault::UndeletableMessage, |scenario| scenario.reclaims_per_hour = 1.0, "messages that come again do nothing", |story| {
        story.during("wants") > 0 && once_each(&story.during, " begins to give ")
    }),
    row(Fault::LedgerOutage, "nothing is changed, and after it the fleet goes on", |story| {
        ["cordons", " buys ", "terminates"].iter().all(|change| story.during(change) == 0) && story.after("joins") > 0
    }),
    row(Fault::RenewalLanded, "the fleet lives on", lives_on),
    changed(Fault::LeaderPaused, |scenario| scenario.faults[0].lasts = Duration::from_secs(75), "the other leads meanwhile", |story| story.during("leads in epoch") == 1),
    row(Fault::WallClockJumps, "nobody else leads", |story| story.ever("leads in epoch") == 1),
    row(Fault::ClockRunsFast, "the fleet lives on", lives_on),
    changed(Fault::LockDeleted, briefly, "the epoch rises", |story| story.during("leads in epoch 2") == 1),
    row(Fault::Partition, "the other leads", |story| story.during("leads in epoch 2") == 1 && lives_on(story)),
    row(Fault::MetadataDown, "after it the fleet goes on", |story| story.after("joins") > 0),
    row(Fault::BadReload, "the old configuration stays", lives_on),
    row(Fault::PauseInOperation, "nothing is begun", |story| {
        let quiet: Vec<&String> = story.during.iter().skip_while(|line| !line.contains("is paused")).collect();
        !quiet.is_empty() && !quiet.iter().any(|line| line.contains("cordons") || line.contains(" buys "))
    }),
    changed(Fault::RestartWhilePaused, |scenario| scenario.controllers = 1, "it is still paused", |story| {
        let quiet: Vec<&String> = story.during.iter().skip_while(|line| !line.contains("is paused")).collect();
        quiet.iter().any(|line| line.contains("leads in epoch 2")) && !quiet.iter().any(|line| line.contains("cordons") || line.contains(" buys "))
    }),
    row(Fault::AdminFlood, "the fleet lives on", lives_on),
    changed(Fault::TagStripped, briefly, "it is left alone", |story| story.ever("takes a tag off") == 1),
    changed(Fault::Killed, briefly, "the other goes on", |story| story.ever("leads in epoch 2") == 1 && story.after("joins") > 0),
    row(Fault::VersionSkew, "who can read the records leads", |story| story.after("joins") > 0),
];

#[test]
fn each_fault_bites_and_brings_about_what_is_expected() {
    let mut covered = BTreeMap::new();
    let mut failed = Vec::new();
    for row in &ROWS {
        let story = Story::of(row.fault, row.change);
        let hits = story.outcome.hits.get(&row.fault).copied().unwrap_or(0);
        let (words, check) = row.expected;
        if hits == 0 {
            failed.push(format!("{} has no effect\n{}", row.fault, story.text()));
        }
        if !story.outcome.violations.is_empty() {
            failed.push(format!("{}: {:?}\n{}", row.fault, story.outcome.violations, story.text()));
        }
        if story.before(" fault ") > 0 || !check(&story) {
            failed.push(format!("{}: expected is that {words}\n{}", row.fault, story.text()));
        }
        covered.insert(row.fault, (hits, words));
    }
    for (fault, (hits, words)) in &covered {
        let tests = tests_of(*fault);
        println!("{:>2} {:<22} {:<4} {hits:>6} times; {words}: {}", fault.number(), fault.name(), fault.held_by(), tests.join(", "));
        assert!(tests.contains(&EACH), "{fault} has no row");
    }
    assert!(failed.is_empty(), "{} of {} failed: {}", failed.len(), ROWS.len(), failed.join("\n\n"));
    assert_eq!(covered.keys().copied().collect::<BTreeSet<_>>(), BTreeSet::from(Fault::ALL), "a fault without a test");
}

#[test]
fn all_faults_at_once_do_no_harm_either() {
    let mut scenario = exercise(3);
    let spread = |fault: Fault| {
        let at = Duration::from_mins(20) + Duration::from_mins(3) * u32::try_from(fault.number()).unwrap_or(0);
        Planned { fault, at, lasts: Duration::from_mins(4) }
    };
    scenario.faults = Fault::ALL.into_iter().map(spread).collect();
    let outcome = run(&scenario);
    assert_eq!(outcome.violations, [], "{}", outcome.log.join("\n"));
}

#[test]
fn a_load_that_swings_slowly_is_followed_and_one_that_swings_fast_is_not() {
    let bought = |half_period| {
        let mut scenario = exercise(11);
        scenario.workloads[0].curve = Curve::Oscillating { low: 1.0, high: 11.0, half_period };
        run(&scenario).launches
    };
    let (slow, fast) = (bought(Duration::from_mins(40)), bought(Duration::from_mins(2)));
    assert!(slow > 10 && fast < slow, "{slow} and {fast}");
}
