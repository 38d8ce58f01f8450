//! Kills the controller at every call, before and after its effect; it is restarted, or the standby takes over.

use super::story::exercise;
use crate::sim::front::{Run, Scenario};
use crate::sim::universe::Crash;
use crate::sim::{Fault, Planned};
use std::time::Duration;

/// The calls that change something: killed before and after their effect.
const CHANGES: [&str; 12] = [
    "CreateFleet",
    "TerminateInstances",
    "patch nodes",
    "evict",
    "delete nodes",
    "record",
    "forget",
    "remember",
    "acquire",
    "heartbeat",
    "set_pause",
    "delete",
];
/// The calls on which decisions rest.
const READS: [&str; 9] = ["receive", "load", "DescribeInstances", "view", "query", "get nodes", "lock", "pause", "catalogue"];
/// How often each call is let through before it is the last, at most.
const DEEPEST: u64 = 8;
/// Calls with which a controller begins count from the beginning, all others from when the load rises.
const BEGINNING: [&str; 3] = ["load", "acquire", "catalogue"];
const RISES: Duration = Duration::from_mins(31);

fn scenario(controllers: usize) -> Scenario {
    let mut scenario = exercise(5);
    scenario.controllers = controllers;
    scenario.hours = 3.5;
    scenario.peace_from = Some(Duration::from_mins(75));
    // Something to hear of, and to be told: messages, and a pause that is lifted again.
    scenario.faults = vec![
        Planned { fault: Fault::SpotStorm, at: Duration::from_mins(50), lasts: Duration::from_mins(5) },
        Planned { fault: Fault::PauseInOperation, at: Duration::from_mins(56), lasts: Duration::from_mins(5) },
    ];
    scenario
}

#[test]
fn a_kill_at_any_call_before_or_after_its_effect_is_survived() {
    let rows = CHANGES.iter().flat_map(|call| [(*call, false), (*call, true)]).chain(READS.map(|call| (call, false)));
    let mut kills = 0;
    for (call, with_effect) in rows {
        let mut of_this = 0;
        for controllers in [1, 2] {
            for after in 0..DEEPEST {
                let from = if BEGINNING.contains(&call) { Duration::ZERO } else { RISES };
                let crash = Crash { call: Some(call), from, after, with_effect, fault: None };
                of_this += u32::from(dies_and_goes_on(&scenario(controllers), crash));
            }
        }
        println!("{of_this:>3} kills {} {call}", if with_effect { "after" } else { "before" });
        assert!(of_this > 0, "no controller dies at {call}");
        kills += of_this;
    }
    println!("{kills:>3} kills");
}

/// Tells whether the kill came about.
fn dies_and_goes_on(scenario: &Scenario, crash: Crash) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let mut run = Run::begin(scenario.clone(), |_| crate::sim::front::Deaf);
        run.universe.with(|truth| truth.clients.iter_mut().for_each(|client| client.crashes.push(crash)));
        let outcome = run.to_the_end().await;
        assert_eq!(outcome.violations, [], "{crash:?} with {} controllers\n{}", scenario.controllers, outcome.log.join("\n"));
        outcome.log.iter().any(|line| line.contains(" dies "))
    })
}
