//! Makes a failing world smaller, so that a person can read it: fewer faults, one controller, less time.

use super::run::{Outcome, attempt};
use super::scenario::Scenario;
use std::time::Duration;

/// How often a world is tried again while it is made smaller.
const TRIES: u32 = 60;
/// How much is kept of what comes after the failure, in hours.
const AFTERWARDS: f64 = 0.1;

impl Scenario {
    /// Gives this world, watched for so many hours and without the peace before its end. Until then it is the same.
    #[must_use]
    pub fn until(self, hours: f64) -> Self {
        Self { hours, peace_from: None, ..self }
    }
}

/// Gives the smallest world found that breaks the same invariant first, and its outcome.
///
/// It differs from the given one in no more than its faults, its controllers and [`Scenario::until`], so that these
/// and the seed are all that it takes to live through it again.
#[must_use]
pub fn shrink(scenario: &Scenario, outcome: Outcome) -> (Scenario, Outcome) {
    shrink_with(scenario, outcome, |candidate| attempt(candidate).ok())
}

fn shrink_with(scenario: &Scenario, outcome: Outcome, live: impl Fn(&Scenario) -> Option<Outcome>) -> (Scenario, Outcome) {
    let broken = |outcome: &Outcome| outcome.violations.first().map(|violation| violation.invariant);
    let Some(invariant) = broken(&outcome) else { return (scenario.clone(), outcome) };
    let (mut smallest, mut shown) = (scenario.clone(), outcome);
    let mut tries = 0;
    let mut again = true;
    while again && tries < TRIES {
        again = false;
        for candidate in smaller(&smallest, shown.violations.first().map_or(Duration::ZERO, |violation| violation.at)) {
            tries += 1;
            if let Some(outcome) = live(&candidate).filter(|outcome| broken(outcome) == Some(invariant)) {
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

/// Lists worlds that are a little smaller: one fault less, one controller, an end soon after the failure.
fn smaller(scenario: &Scenario, broke_at: Duration) -> Vec<Scenario> {
    let mut candidates = Vec::new();
    for index in 0..scenario.faults.len() {
        let mut candidate = scenario.clone();
        candidate.faults.remove(index);
        candidates.push(candidate);
    }
    if scenario.controllers > 1 {
        candidates.push(Scenario { controllers: 1, ..scenario.clone() });
    }
    // To the hundredth of an hour, for those who read it.
    let end = ((broke_at.as_secs_f64() / 3600.0 + AFTERWARDS) * 100.0).ceil() / 100.0;
    let before_peace = scenario.peace_from.is_none_or(|peace| end * 3600.0 < peace.as_secs_f64());
    if before_peace && end < scenario.hours {
        candidates.push(scenario.clone().until(end));
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::front::run;
    use crate::sim::{Fault, Invariant, Planned, Violation};

    #[test]
    fn a_smaller_world_that_breaks_another_invariant_first_is_not_taken() {
        let planned = |fault, hour| Planned { fault, at: Duration::from_hours(hour), lasts: Duration::from_mins(10) };
        let mut scenario = Scenario::quiet(1, 24.0, 2);
        scenario.controllers = 2;
        scenario.faults = vec![planned(Fault::Killed, 1), planned(Fault::SpotStorm, 2), planned(Fault::PrometheusDown, 3)];
        let lived = run(&Scenario::quiet(1, 0.1, 2));
        // Without a storm another invariant breaks, and without Prometheus' absence another one breaks before.
        let live = |candidate: &Scenario| {
            let has = |fault| candidate.faults.iter().any(|planned| planned.fault == fault);
            let order: &[u8] = match (has(Fault::SpotStorm), has(Fault::PrometheusDown)) {
                (true, true) => &[3, 4],
                (true, false) => &[4, 3],
                (false, _) => &[4],
            };
            let violation = |number: &u8| Violation { invariant: Invariant(*number), at: Duration::from_hours(5), text: "it broke".into() };
            Some(Outcome { violations: order.iter().map(violation).collect(), ..lived.clone() })
        };
        let outcome = live(&scenario).expect("it lives");
        let (small, shown) = shrink_with(&scenario, outcome, live);
        assert_eq!(small.faults.iter().map(|planned| planned.fault).collect::<Vec<_>>(), [Fault::SpotStorm, Fault::PrometheusDown]);
        assert_eq!(shown.violations.first().map(|violation| violation.invariant), Some(Invariant(3)));
        assert_eq!(small.controllers, 1);
        assert!((5.05..5.2).contains(&small.hours), "{}", small.hours);
    }
}
