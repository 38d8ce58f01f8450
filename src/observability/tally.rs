//! Adds up what happens to the fleet over a day or a week, for reports.
//!
//! A tally is this instance's own: it knows what was while it led, and says how long that was. What the fleet costs is
//! not its matter: [`crate::model::spend`] outlives an instance. A span without a turn is left out after
//! [`LONGEST_STEP`], since nobody knows what was in it.

use super::leads;
use crate::control::status::Status;
use crate::model::happening::Milestone;
use crate::model::{Happening, Market, Operation, PoolName, PoolReport, What};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::time::Duration;

/// What was seen last is taken to be so for at most so long.
pub const LONGEST_STEP: SignedDuration = SignedDuration::from_mins(5);

/// What has happened since it was begun.
#[derive(Clone, Debug, PartialEq)]
pub struct Tally {
    /// When it was begun.
    pub since: Timestamp,
    /// The latest look at the fleet: when, and how it stood.
    last: Option<(Timestamp, Vec<PoolReport>)>,
    /// Each pool.
    pub pools: BTreeMap<PoolName, PoolTally>,
    /// Conditions that came up, and how often.
    pub alerts: BTreeMap<String, u32>,
}

/// What has happened to one pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PoolTally {
    /// Hours for which it was seen.
    pub hours: f64,
    /// Instances times hours.
    pub node_hours: f64,
    /// The fewest and the most instances.
    pub range: Option<(u32, u32)>,
    /// Hours at the maximum in force, with less than that wanted by nobody.
    pub hours_at_maximum: f64,
    /// Hours at the minimum in force, where that is above none.
    pub hours_at_minimum: f64,
    /// The bounds in force at the latest look.
    pub bounds: (u32, u32),
    /// CPU utilisation times hours, and the hours for which it was known.
    pub cpu: (f64, f64),
    /// Memory utilisation times hours, and the hours for which it was known.
    pub memory: (f64, f64),
    /// Instances launched, by market.
    pub launched: BTreeMap<Market, u32>,
    /// Nodes given back, by reason.
    pub retired: BTreeMap<&'static str, u32>,
    /// Launches that failed, by failure.
    pub failed: BTreeMap<&'static str, u32>,
    /// Drains that were rolled back.
    pub rolled_back: u32,
    /// Spot interruptions.
    pub interrupted: u32,
    /// Nodes that joined, the time of all of them, and the longest.
    pub joined: (u32, Duration, Duration),
}

impl Tally {
    /// Begins a tally.
    #[must_use]
    pub fn begin(now: Timestamp) -> Self {
        Self { since: now, last: None, pools: BTreeMap::new(), alerts: BTreeMap::new() }
    }

    /// Ends this tally and begins the next one, which goes on from the latest look.
    #[must_use]
    pub fn turn_over(&mut self, now: Timestamp) -> Self {
        self.pass(now);
        let next = Self { last: self.last.clone(), ..Self::begin(now) };
        std::mem::replace(self, next)
    }

    /// Looks at the fleet. On a standby there is nothing to see.
    pub fn look(&mut self, status: &Status, now: Timestamp) {
        self.pass(now);
        let pools = status.plan.as_ref().filter(|plan| leads(status) && !plan.pools.is_empty()).map(|plan| plan.pools.clone());
        self.last = pools.map(|pools| (now, pools));
    }

    /// Counts the time since the latest look.
    fn pass(&mut self, now: Timestamp) {
        let Some((at, pools)) = &mut self.last else { return };
        let hours = now.duration_since(*at).clamp(SignedDuration::ZERO, LONGEST_STEP).as_secs_f64() / 3600.0;
        *at = now.max(*at);
        for report in pools.iter() {
            self.pools.entry(report.pool.clone()).or_default().pass(report, hours);
        }
    }

    /// Counts something that has happened.
    pub fn hear(&mut self, happening: &Happening) {
        match &happening.what {
            What::Moved { operation, begins, .. } => {
                let pool = self.pools.entry(operation.pool().clone()).or_default();
                pool.moved(operation, Milestone::of(operation, *begins));
            }
            What::Joined { pool, took, .. } => {
                let (number, all, longest) = &mut self.pools.entry(pool.clone()).or_default().joined;
                (*number, *all, *longest) = (*number + 1, *all + *took, (*longest).max(*took));
            }
            What::Alerted { alert } => *self.alerts.entry(alert.name.clone()).or_default() += 1,
            What::TookOver { .. } | What::Paused { .. } | What::Resumed { .. } | What::Waiting { .. } | What::Refused { .. } => {}
        }
    }

    /// Gives the hours for which the fleet was seen.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.pools.values().map(|pool| pool.hours).fold(0.0, f64::max)
    }
}

impl PoolTally {
    fn pass(&mut self, report: &PoolReport, hours: f64) {
        let nodes = report.owned;
        self.hours += hours;
        self.node_hours += f64::from(nodes) * hours;
        let (least, most) = self.range.unwrap_or((nodes, nodes));
        self.range = Some((least.min(nodes), most.max(nodes)));
        self.bounds = (report.min, report.max);
        if nodes >= report.max {
            self.hours_at_maximum += hours;
        }
        if nodes <= report.min && report.min > 0 {
            self.hours_at_minimum += hours;
        }
        for (known, (sum, time)) in [(report.cpu, &mut self.cpu), (report.memory, &mut self.memory)] {
            if let Some(share) = known {
                *sum += share * hours;
                *time += hours;
            }
        }
    }

    fn moved(&mut self, operation: &Operation, milestone: Milestone) {
        match (operation, milestone) {
            (Operation::Launch(launch), Milestone::Launched) => {
                *self.launched.entry(launch.request.market).or_default() += launch.in_flight();
            }
            (Operation::Launch(launch), Milestone::LaunchFailed) => {
                *self.failed.entry(launch.failure_name()).or_default() += 1;
            }
            (Operation::Retire(retire), Milestone::Left) => *self.retired.entry(retire.order.reason.name()).or_default() += 1,
            (Operation::Retire(_), Milestone::RolledBack) => self.rolled_back += 1,
            (Operation::Retire(_), Milestone::Interrupted) => self.interrupted += 1,
            (Operation::Launch(_), Milestone::Step | Milestone::Arrived) | (Operation::Retire(_), Milestone::Step | Milestone::Leaves) => {}
            (Operation::Launch(_), Milestone::Leaves | Milestone::Left | Milestone::RolledBack | Milestone::Interrupted)
            | (Operation::Retire(_), Milestone::Launched | Milestone::Arrived | Milestone::LaunchFailed) => {
                debug_assert!(false, "{milestone:?} is nothing that such an operation comes to");
            }
        }
    }

    /// Gives the mean CPU utilisation, where it was known.
    #[must_use]
    pub fn mean_cpu(&self) -> Option<f64> {
        mean(self.cpu)
    }

    /// Gives the mean memory utilisation, where it was known.
    #[must_use]
    pub fn mean_memory(&self) -> Option<f64> {
        mean(self.memory)
    }
}

fn mean((sum, time): (f64, f64)) -> Option<f64> {
    (time > 0.0).then(|| sum / time)
}
