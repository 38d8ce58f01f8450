//! Makes a failing world smaller, so that a person can read it: fewer faults, less time.

use super::run::{Outcome, run};
use super::scenario::Scenario;

/// How often a world is tried again while it is made smaller.
const TRIES: u32 = 60;

/// Gives the smallest world found in which the same invariant breaks, and its outcome.
#[must_use]
pub fn shrink(scenario: &Scenario, outcome: Outcome) -> (Scenario, Outcome) {
    let Some(invariant) = outcome.violations.first().map(|violation| violation.invariant) else { return (scenario.clone(), outcome) };
    let (mut smallest, mut shown) = (scenario.clone(), outcome);
    let mut tries = 0;
    let mut again = true;
    while again && tries < TRIES {
        again = false;
        for candidate in smaller(&smallest, shown.violations.first().map_or(0.0, |violation| violation.at.as_secs_f64() / 3600.0)) {
            tries += 1;
            let outcome = run(&candidate);
            if outcome.violations.iter().any(|violation| violation.invariant == invariant) {
                (smallest, shown) = (candidate, outcome);
                again = true;
                break;
            }
            if tries >= TRIES {
                break;
            }
        }
    }
    (smallest, shown)
}

/// Lists worlds that are a little smaller: one fault less, one workload less, no rollouts, a shorter time.
fn smaller(scenario: &Scenario, broke_at: f64) -> Vec<Scenario> {
    let mut candidates = Vec::new();
    for index in 0..scenario.faults.len() {
        let mut candidate = scenario.clone();
        candidate.faults.remove(index);
        candidates.push(candidate);
    }
    if !scenario.rollouts.is_empty() {
        candidates.push(Scenario { rollouts: Vec::new(), ..scenario.clone() });
    }
    if scenario.reclaims_per_hour > 0.0 {
        candidates.push(Scenario { reclaims_per_hour: 0.0, ..scenario.clone() });
    }
    if scenario.peace_from.is_some() && broke_at + 0.2 < scenario.hours * 0.6 {
        // It broke before peace had come: what comes after is of no interest.
        candidates.push(Scenario { hours: broke_at + 0.1, peace_from: None, ..scenario.clone() });
    }
    candidates
}
