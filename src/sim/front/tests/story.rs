//! A world with one fault in the middle, told by its log.

use crate::model::scheduling::Labels;
use crate::model::{Bytes, MilliCpu, Resources};
use crate::sim::ec2::PoolSpec;
use crate::sim::front::{Outcome, Scenario, run};
use crate::sim::workload::{Curve, Workload};
use crate::sim::{Fault, Planned};
use std::time::Duration;

/// When the fault begins.
pub(super) const AT: Duration = Duration::from_mins(65);
/// How long it lasts.
pub(super) const LASTS: Duration = Duration::from_mins(80);

/// Two controllers and a load that rises and falls by the half hour, so that nodes are bought and given
/// back all the time, and small pods that spread over all of them, so that there is always somebody to
/// move. It ends in peace.
pub(super) fn exercise(seed: u64) -> Scenario {
    let pools = vec![PoolSpec { name: "workers".into(), types: vec!["m5.large", "m6i.large"], labels: Labels::new(), taints: Vec::new() }];
    let requests = Resources { cpu: MilliCpu(900), memory: Bytes(1 << 30), pods: 1, ..Resources::default() };
    let curve = Curve::Oscillating { low: 1.0, high: 11.0, half_period: Duration::from_mins(32) };
    let small = Resources { cpu: MilliCpu(150), memory: Bytes(256 << 20), pods: 1, ..Resources::default() };
    let cache = Workload::new("cache", small, Curve::Constant(0.2), 0.02);
    let mut scenario = Scenario::quiet(seed, 9.0, 2);
    scenario.controllers = 2;
    scenario.pools = pools;
    scenario.settings.policy.pools[0].max = 10;
    let down = &mut scenario.settings.policy.scale_down;
    (down.sustain, down.cooldown, down.min_node_age) = (Duration::from_mins(4), Duration::from_mins(3), Duration::from_mins(4));
    scenario.settings.policy.pools[0].spot_share = 1.0;
    scenario.settings.policy.pools[0].on_demand_base = 2;
    scenario.workloads = vec![Workload::new("web", requests, curve, 0.8), cache];
    scenario.rollouts = [46, 110, 174].map(|minutes| (1, Duration::from_mins(minutes))).to_vec();
    scenario.peace_from = Some(Duration::from_hours(4));
    scenario
}

/// What was seen before, during and after a fault.
pub(super) struct Story {
    pub before: Vec<String>,
    pub during: Vec<String>,
    pub after: Vec<String>,
    pub outcome: Outcome,
    pub fault: Fault,
}

impl Story {
    /// Lives through a world with one fault.
    pub(super) fn of(fault: Fault, change: impl FnOnce(&mut Scenario)) -> Self {
        let mut scenario = exercise(11);
        scenario.faults = vec![Planned { fault, at: AT, lasts: LASTS }];
        change(&mut scenario);
        Self::told(fault, run(&scenario))
    }

    fn told(fault: Fault, outcome: Outcome) -> Self {
        let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
        let (begins, ends) = (format!("fault {fault} begins"), format!("fault {fault} ends"));
        let mut part = &mut before;
        for line in &outcome.log {
            if line.ends_with(&begins) {
                part = &mut during;
            }
            if line.ends_with(&ends) {
                part = &mut after;
            }
            part.push(line.clone());
        }
        Self { before, during, after, outcome, fault }
    }

    /// Counts the lines of a part that contain a text.
    pub(super) fn count(lines: &[String], text: &str) -> usize {
        lines.iter().filter(|line| line.contains(text)).count()
    }

    /// Counts what happened while the fault lasted.
    pub(super) fn during(&self, text: &str) -> usize {
        Self::count(&self.during, text)
    }

    /// Counts what happened after the fault.
    pub(super) fn after(&self, text: &str) -> usize {
        Self::count(&self.after, text)
    }

    /// Counts what happened before the fault.
    pub(super) fn before(&self, text: &str) -> usize {
        Self::count(&self.before, text)
    }

    /// Counts what happened at all.
    pub(super) fn ever(&self, text: &str) -> usize {
        Self::count(&self.outcome.log, text)
    }

    /// Tells the whole story, for a failed test.
    pub(super) fn text(&self) -> String {
        format!("{}\n{}", self.fault, self.outcome.log.join("\n"))
    }
}
