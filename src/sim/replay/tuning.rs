//! Settings that would have been cheaper: sought on the first part of a recording, judged on the rest.

use super::course::{Band, Course};
use super::coverage::Coverage;
use super::daemon::{Daemon, Operator, Path};
use super::foresight::Foresight;
use super::judge::{Tally, compare};
use super::recording::Recording;
use super::side_by_side::{Conditions, Drawn, Progress, Run, SideBySide, measured, work_of_optimum};
use crate::policy::PredictiveMode;
use serde::Serialize;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Of fewer days than these, a third tells nothing of the weeks to come.
const FEWEST_DAYS: usize = 14;
/// So many days at most only teach the forecast.
const TAUGHT_DAYS: usize = 7;
/// More configurations than these are not tried.
const MOST_TRIED: usize = 300;
/// All keys are gone through so many times at most.
const ROUNDS: usize = 5;
/// A change that saves less than this share is not made: it would be chance.
const LEAST_STEP: f64 = 0.002;
/// Changes that save less than this share together are not worth an operator's time.
pub const LEAST_SAVING: f64 = 0.01;

/// The names of the rows.
const TUNED: &str = "node-fleet, tuned";
const CONFIGURED: &str = "node-fleet, as configured";

/// The parts of a recording, in minutes from its first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Parts {
    /// Before this minute, demand only teaches the forecast.
    pub taught: usize,
    /// From there to before this one, settings are sought. What comes then is held out.
    pub searched: usize,
    /// The minutes of the whole recording.
    pub minutes: usize,
}

/// A recording is too short to be parted.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{days:.1} days of demand are too few; expected {FEWEST_DAYS} or more: two thirds are searched on, and the rest is held out")]
pub struct TooShort {
    /// The days that there are, cut to a tenth.
    pub days: f64,
}

impl Parts {
    /// Parts a recording of so many minutes: two thirds of its days to search on, of which up to a week, or the first half,
    /// only teaches; the rest is held out.
    ///
    /// # Errors
    /// When there are fewer than 14 days.
    pub fn of(minutes: usize) -> Result<Self, TooShort> {
        let days = minutes / 1440;
        if days < FEWEST_DAYS {
            return Err(TooShort { days: (minutes * 10 / 1440) as f64 / 10.0 });
        }
        let searched = days * 2 / 3;
        Ok(Self { taught: (searched / 2).min(TAUGHT_DAYS) * 1440, searched: searched * 1440, minutes })
    }
}

/// A key of the configuration, and the values that are tried for it beside the one it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dial {
    /// The key, with its section: `scale_up.cooldown`.
    pub key: &'static str,
    /// The values, as the environment would set them.
    pub values: &'static [&'static str],
}

/// Values by key.
pub type Changes = BTreeMap<&'static str, &'static str>;

/// What a search came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuned {
    /// What is worth changing; empty where nothing is.
    pub changes: Changes,
    /// What is decided by then.
    pub operator: Operator,
    /// Configurations that were replayed.
    pub tried: usize,
    /// What the days that were searched on cost with the operator's own settings, in node-minutes and those unmet at their price.
    pub cost_before: f64,
    /// What they cost with the best settings found, whether these are worth changing or not.
    pub cost_after: f64,
}

/// Seeks settings that cost less on the first part of a recording; what comes after it is not looked at.
///
/// One key after the other takes the value that is cheapest with the others as they are, until a round changes nothing.
/// `with` gives what is decided by under changes, and `None` where they make no valid configuration. `watch` is told how
/// many configurations were tried, of how many at most, and which share of the cost the best one saves.
pub fn tune(
    recording: &Recording,
    parts: &Parts,
    conditions: &Conditions,
    dials: &[Dial],
    with: &dyn Fn(&Changes) -> Option<Operator>,
    watch: &mut dyn FnMut(usize, usize, f64),
) -> Tuned {
    let recording = recording.first(parts.searched);
    let demand = recording.carried();
    let run = Run { recording: &recording, demand: &demand, warm_up: parts.taught, conditions };
    let mut operator = conditions.operator.clone();
    operator.settings_mut().predictive.price_of_waiting = conditions.price_of_waiting;
    let foresight = Rc::new(Foresight::new(recording.clone(), operator.forecast(1)));
    let own = conditions.operator.clone();
    let first = replayed(&run, &own, Some(&foresight));
    let mut search = Search { run: &run, foresight, with, watch, first, tried: 1 };
    let (changes, operator) = search.descend(dials, own.clone());
    let tried = search.tried;
    // The choice was made on forecasts that know the boot from the first minute; what counts are the daemon's own.
    let cost_before = replayed(&run, &own, None);
    let cost_after = if changes.is_empty() { cost_before } else { replayed(&run, &operator, None) };
    if cost_after > (1.0 - LEAST_SAVING) * cost_before {
        return Tuned { changes: Changes::new(), operator: own, tried, cost_before, cost_after };
    }
    Tuned { changes, operator, tried, cost_before, cost_after }
}

/// Gives what the minutes that count cost under these settings. A forecast that acts of itself once it knows a week does so
/// from the beginning: settings are sought for the time after its trial, in which what is held out lies.
fn replayed(run: &Run<'_>, operator: &Operator, foresight: Option<&Rc<Foresight>>) -> f64 {
    let mut operator = operator.clone();
    let mode = &mut operator.settings_mut().predictive.mode;
    *mode = if *mode == PredictiveMode::Auto { PredictiveMode::On } else { *mode };
    let mut daemon = daemon(run.recording, run.conditions, &operator, Path::Counts);
    if let Some(foresight) = foresight {
        daemon = daemon.foreseeing(foresight);
    }
    run.replay(&mut daemon, |_, _, _| {}, &mut Silent).sum().cost(run.conditions.price_of_waiting)
}

/// Makes the daemon that runs with these settings, at the price of waiting by which it is judged.
fn daemon(recording: &Recording, conditions: &Conditions, operator: &Operator, path: Path) -> Daemon {
    let mut operator = operator.clone();
    operator.settings_mut().predictive.price_of_waiting = conditions.price_of_waiting;
    Daemon::new(&operator, conditions.rates.on_demand, recording.start, path)
}

struct Silent;

impl Progress for Silent {
    fn begins(&mut self, _: &str) {}
    fn passed(&mut self, _: u64) {}
}

struct Search<'a> {
    run: &'a Run<'a>,
    foresight: Rc<Foresight>,
    with: &'a dyn Fn(&Changes) -> Option<Operator>,
    watch: &'a mut dyn FnMut(usize, usize, f64),
    /// What the operator's own settings cost.
    first: f64,
    tried: usize,
}

/// Settings, and what they cost.
#[derive(Clone)]
struct Candidate {
    changes: Changes,
    operator: Operator,
    cost: f64,
}

impl Search<'_> {
    fn descend(&mut self, dials: &[Dial], own: Operator) -> (Changes, Operator) {
        let mut best = Candidate { changes: Changes::new(), operator: own, cost: self.first };
        for _ in 0..ROUNDS {
            let before = best.cost;
            for dial in dials {
                best = self.turned(dial, &best);
            }
            if best.cost >= before {
                break;
            }
        }
        let best = self.pruned(best);
        (best.changes, best.operator)
    }

    /// Tries all values of a key, its own among them, and gives the best.
    fn turned(&mut self, dial: &Dial, begun: &Candidate) -> Candidate {
        let mut best = begun.clone();
        let mut seen = vec![begun.operator.clone()];
        for value in std::iter::once(None).chain(dial.values.iter().map(Some)) {
            let mut changes = begun.changes.clone();
            match value {
                Some(value) => changes.insert(dial.key, value),
                None => changes.remove(dial.key),
            };
            // A value that the key has already, or that another one is cut to, is not tried twice.
            let Some(operator) = (self.with)(&changes).filter(|operator| !seen.contains(operator)) else { continue };
            seen.push(operator.clone());
            let Some(cost) = self.cost(&operator, best.cost) else { break };
            if cost < (1.0 - LEAST_STEP) * best.cost {
                best = Candidate { changes, operator, cost };
            }
        }
        best
    }

    /// Takes changes back that save next to nothing beside the others.
    fn pruned(&mut self, mut best: Candidate) -> Candidate {
        for key in best.changes.keys().copied().collect::<Vec<_>>() {
            let mut changes = best.changes.clone();
            changes.remove(key);
            let Some(operator) = (self.with)(&changes) else { continue };
            let Some(cost) = self.cost(&operator, best.cost) else { break };
            if cost <= best.cost / (1.0 - LEAST_STEP) {
                best = Candidate { changes, operator, cost };
            }
        }
        best
    }

    /// Gives what settings cost; `None` when enough was tried.
    fn cost(&mut self, operator: &Operator, best: f64) -> Option<f64> {
        if self.tried >= MOST_TRIED {
            return None;
        }
        self.tried += 1;
        let cost = replayed(self.run, operator, Some(&self.foresight));
        (self.watch)(self.tried, MOST_TRIED, 1.0 - best.min(cost) / self.first.max(f64::MIN_POSITIVE));
        Some(cost)
    }
}

/// Counts how many minutes of replays [`held_out`] lets pass.
#[must_use]
pub fn held_out_work(recording: &Recording, parts: &Parts, tuned: &Tuned) -> u64 {
    let replays = if tuned.changes.is_empty() { 1 } else { 2 };
    (replays * recording.values.len()) as u64 + work_of_optimum(&measured(recording, parts.searched))
}

/// Replays what is held out under the tuned settings and under the operator's own, with the optimum. What comes before
/// teaches the forecast, as it would have. Where nothing is worth changing, the operator's own stand alone.
pub fn held_out(recording: &Recording, parts: &Parts, conditions: &Conditions, tuned: &Tuned, progress: &mut dyn Progress) -> SideBySide {
    let (demand, warm_up) = (recording.carried(), parts.searched);
    let run = Run { recording, demand: &demand, warm_up, conditions };
    let mut coverage = Coverage::new(conditions.bought_ahead(), Band::new(demand.len() - warm_up));
    let mut course = Course::of(recording, warm_up);
    let daemon = |operator: &Operator| daemon(recording, conditions, operator, conditions.path);
    let name = if tuned.changes.is_empty() { CONFIGURED } else { TUNED };
    progress.begins(name);
    let (ours, steps) =
        run.followed(daemon(&tuned.operator), name, Some(&mut coverage), Drawn { course: &mut course, leads: true }, progress);
    course.steps = steps;
    let mut rows = vec![(name, ours)];
    if !tuned.changes.is_empty() {
        progress.begins(CONFIGURED);
        let drawn = Drawn { course: &mut course, leads: true };
        rows.push((CONFIGURED, run.followed(daemon(&conditions.operator), CONFIGURED, None, drawn, progress).0));
    }
    let optimum = run.optimum(&mut course, progress);
    let days = rows[0].1.days.clone();
    let ratio = |tally: &Tally| compare(&days, &tally.days, conditions.price_of_waiting, conditions.seed);
    let outcome = |(name, tally): &(&str, Tally)| run.outcome((*name).to_owned(), tally, optimum.cost, ratio(tally));
    let mut outcomes: Vec<_> = rows.iter().map(outcome).collect();
    outcomes.push(optimum);
    let (days, warm_up_days) = run.days();
    course.band = coverage.band.finished();
    SideBySide { days, warm_up_days, outcomes, coverage: coverage.shares(), pinball: coverage.pinball(), course }
}
