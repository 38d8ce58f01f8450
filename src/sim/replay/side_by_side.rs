//! One demand under every policy, side by side.

use super::bill::{Bill, HourlyDollars, Rates};
use super::clairvoyant::{clairvoyant_paths, layers};
use super::contestants::Contestant;
use super::course::{Band, Bins, Course, Headroomed};
use super::coverage::{Coverage, Pinball};
use super::daemon::{Daemon, Operator, Path, Step};
use super::fleet::{Boot, Fleet, Tick};
use super::judge::{Elasticity, Ratio, Tally, compare, ratio};
use super::policies::{Policy, View};
use super::recording::Recording;
use crate::policy::forecast::{Rests, whole_nodes};
use serde::Serialize;

/// So many days warm up, or half of the recording where it is shorter than twice that.
const WARM_UP_DAYS: usize = 14;
/// So many layers of the optimum take about the time of one policy.
const LAYERS_AS_A_POLICY: usize = 50;

/// Under which conditions a demand is replayed.
#[derive(Debug, Clone, PartialEq)]
pub struct Conditions {
    /// How long nodes boot.
    pub boot: Boot,
    /// What a node-minute of unmet demand costs in node-minutes: every policy is judged by it, and those that ask steer by it.
    pub price_of_waiting: f64,
    /// What nodes cost.
    pub rates: Rates,
    /// For what is drawn: boot times, failures, days of the intervals.
    pub seed: u64,
    /// What this daemon is told.
    pub operator: Operator,
    /// How its turns are decided.
    pub path: Path,
}

impl Conditions {
    /// Counts the minutes by which demand is bought ahead: a boot and an evaluation.
    pub(super) fn bought_ahead(&self) -> usize {
        self.boot.minutes().saturating_add(Rests::of(self.operator.settings()).every)
    }
}

/// What a policy came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outcome {
    /// Its name.
    pub policy: String,
    /// Hours of nodes that were paid for, boots included.
    pub node_hours: f64,
    /// What they cost.
    pub dollars: f64,
    /// The part of it that was on demand.
    pub on_demand_dollars: f64,
    /// The part of it that was on spot.
    pub spot_dollars: f64,
    /// What each hour of the day (UTC) cost in the mean.
    pub dollars_by_hour: Vec<HourlyDollars>,
    /// Share of demand that waited, 0 to 1.
    pub unmet_share: f64,
    /// Node-minutes of demand that waited.
    pub unmet_node_minutes: f64,
    /// Minutes in which demand exceeded what was ready.
    pub minutes_over: u64,
    /// Nodes that were launched.
    pub launches: u64,
    /// Those of each hour of the day, 0 to 23 (UTC).
    pub launches_by_hour: Vec<u64>,
    /// How closely capacity followed need; `None` for the optimum, which is found layer by layer.
    pub elasticity: Option<Elasticity>,
    /// Node-minutes, and those unmet at the price of waiting.
    pub cost: f64,
    /// That cost over the optimum's; `None` where that is nothing.
    pub to_clairvoyant: Option<f64>,
    /// Cost of node-fleet over this one's; `None` for the optimum, and where this one cost nothing.
    pub ours_to_this: Option<Ratio>,
}

/// All that a replay found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SideBySide {
    /// Days that count, as far as they were measured.
    pub days: f64,
    /// Days before them that only taught, likewise.
    pub warm_up_days: f64,
    /// Each policy: node-fleet as the operator runs it, those of the table, the best reactive one in hindsight, the optimum.
    /// "node-fleet, with its forecast" is among them where the forecast takes no part in some of what counts.
    pub outcomes: Vec<Outcome>,
    /// Share of minutes whose demand was at most the forecast's quantile at the lead of a launch, for 0.90 and 0.95;
    /// `None` when no forecast was made.
    pub coverage: Option<[f64; 2]>,
    /// How much it lost beside those that need no model; likewise.
    pub pinball: Option<Pinball>,
    /// How it went, for plots.
    #[serde(skip)]
    pub course: Course,
}

/// Tells how far a replay is.
pub trait Progress {
    /// Another policy begins.
    fn begins(&mut self, name: &str);
    /// So many of its minutes have passed since the last call.
    fn passed(&mut self, minutes: u64);
}

/// Counts how many minutes of policies a replay lets pass in all.
#[must_use]
pub fn work(recording: &Recording, conditions: &Conditions) -> u64 {
    let warm_up = warm_up(recording);
    let replays = Contestant::table(recording, warm_up, conditions).len() + Contestant::tuned().count();
    (recording.values.len() * replays) as u64 + work_of_optimum(&measured(recording, warm_up))
}

/// Gives the demand of the minutes that count; gaps are left out, as if the minutes around them met.
pub(super) fn measured(recording: &Recording, warm_up: usize) -> Vec<f32> {
    recording.values[warm_up..].iter().flatten().copied().collect()
}

/// Counts the work of the optimum in minutes of policies: a layer's minute takes a fiftieth of one.
pub(super) fn work_of_optimum(demand: &[f32]) -> u64 {
    (layers(demand) * layer_work(demand)) as u64
}

fn layer_work(demand: &[f32]) -> usize {
    demand.len().div_ceil(LAYERS_AS_A_POLICY)
}

/// Counts the minutes that only teach.
fn warm_up(recording: &Recording) -> usize {
    (WARM_UP_DAYS * 1440).min(recording.values.len() / 2)
}

/// Replays a demand in nodes under every policy.
#[must_use]
pub fn side_by_side(recording: &Recording, conditions: &Conditions, progress: &mut dyn Progress) -> SideBySide {
    let (demand, warm_up) = (recording.carried(), warm_up(recording));
    let run = Run { recording, demand: &demand, warm_up, conditions };
    let mut coverage = Coverage::new(conditions.bought_ahead(), Band::new(demand.len() - warm_up));
    let mut course = Course::of(recording, warm_up);
    let table = Contestant::table(recording, warm_up, conditions);
    let mut tallies: Vec<(Contestant, Tally)> = Vec::new();
    for contestant in table.iter().copied() {
        progress.begins(&contestant.name());
        let drawn = Drawn { leads: contestant.leads(&table), course: &mut course };
        let tally = match contestant.daemon(recording, conditions) {
            Some(daemon) => {
                // The first that forecasts is the one whose forecasts are looked at.
                let looked_at = (daemon.forecaster().is_some() && !coverage.has_begun()).then_some(&mut coverage);
                let (tally, steps) = run.followed(daemon, &contestant.name(), looked_at, drawn, progress);
                if contestant == Contestant::Ours {
                    course.steps = steps;
                }
                tally
            }
            None => run.contestant(contestant, Some(drawn), progress),
        };
        tallies.push((contestant, tally));
    }
    let price = conditions.price_of_waiting;
    let tuned = Contestant::tuned().map(|contestant| {
        progress.begins(&contestant.name());
        (contestant, run.contestant(contestant, None, progress))
    });
    let tuned: Vec<(Contestant, Tally)> = tuned.collect();
    course.headrooms = tuned.iter().map(|(contestant, tally)| Headroomed::of(contestant.name(), tally, &conditions.rates)).collect();
    let best = tuned.into_iter().min_by(|(_, one), (_, other)| one.sum().cost(price).total_cmp(&other.sum().cost(price)));
    let optimum = run.optimum(&mut course, progress);
    let least = optimum.cost;
    let ours = tallies[0].1.days.clone();
    let outcome = |name: String, tally: &Tally| run.outcome(name, tally, least, compare(&ours, &tally.days, price, conditions.seed));
    let mut outcomes: Vec<Outcome> = tallies.iter().map(|(contestant, tally)| outcome(contestant.name(), tally)).collect();
    outcomes.extend(best.map(|(contestant, tally)| outcome(format!("best in hindsight: {}", contestant.name()), &tally)));
    outcomes.push(optimum);
    let (days, warm_up_days) = run.days();
    course.band = coverage.band.finished();
    SideBySide { days, warm_up_days, outcomes, coverage: coverage.shares(), pinball: coverage.pinball(), course }
}

/// Where a policy's nodes are drawn.
pub(super) struct Drawn<'a> {
    pub course: &'a mut Course,
    pub leads: bool,
}

/// A demand, and the minutes of it that count.
pub(super) struct Run<'a> {
    pub recording: &'a Recording,
    /// What policies see of it.
    pub demand: &'a [f32],
    /// The minutes before the first that counts.
    pub warm_up: usize,
    pub conditions: &'a Conditions,
}

impl Run<'_> {
    fn contestant(&self, contestant: Contestant, drawn: Option<Drawn<'_>>, progress: &mut dyn Progress) -> Tally {
        let mut policy = contestant.policy(self.recording, self.conditions);
        let Some(drawn) = drawn else { return self.replay(&mut *policy, |_, _, _| {}, progress) };
        let mut bins = self.bins();
        let tally = self.replay(&mut *policy, |minute, _, tick| self.bin(&mut bins, minute, tick.ready), progress);
        drawn.course.trajectories.push(bins.finished(contestant.name(), drawn.leads, tally.days.clone()));
        tally
    }

    /// Lets a daemon follow the demand, and draws its nodes; gives its steps, too. Where it is asked for, its forecasts are
    /// looked at.
    pub(super) fn followed(
        &self,
        mut daemon: Daemon,
        name: &str,
        mut coverage: Option<&mut Coverage>,
        drawn: Drawn<'_>,
        progress: &mut dyn Progress,
    ) -> (Tally, Vec<Step>) {
        let mut bins = self.bins();
        let look = |minute: usize, daemon: &Daemon, tick: Tick| {
            self.bin(&mut bins, minute, tick.ready);
            if let Some(coverage) = &mut coverage {
                let value = self.recording.values[minute];
                coverage.minute(daemon.forecaster(), self.recording.start.plus(minute as i64), value, minute.checked_sub(self.warm_up));
            }
        };
        let tally = self.replay(&mut daemon, look, progress);
        let Drawn { course, leads } = drawn;
        course.trajectories.push(bins.finished(name.to_owned(), leads, tally.days.clone()));
        (tally, daemon.steps)
    }

    /// Counts the days that were measured: of those that count, and of those before them.
    pub(super) fn days(&self) -> (f64, f64) {
        let (before, counted) = self.recording.values.split_at(self.warm_up);
        let days = |values: &[Option<f32>]| values.iter().flatten().count() as f64 / 1440.0;
        (days(counted), days(before))
    }

    fn bins(&self) -> Bins {
        Bins::new(self.demand.len() - self.warm_up)
    }

    fn bin(&self, bins: &mut Bins, minute: usize, ready: u32) {
        if let (Some(at), Some(_)) = (minute.checked_sub(self.warm_up), self.recording.values[minute]) {
            bins.add(at, ready);
        }
    }

    pub(super) fn replay<P: Policy + ?Sized>(
        &self,
        policy: &mut P,
        mut look: impl FnMut(usize, &P, Tick),
        progress: &mut dyn Progress,
    ) -> Tally {
        const STEP: usize = 1440;
        let (demand, values) = (self.demand, &self.recording.values);
        let first = whole_nodes(f64::from(demand[0]));
        let mut fleet = Fleet::new(self.conditions.boot, first, self.conditions.seed);
        let mut tally = Tally::default();
        let mut served = first;
        for minute in 0..demand.len() {
            fleet.begin();
            let measured = minute > 0 && values[minute - 1].is_some();
            let view = View { demand: &demand[..minute], measured, served, fleet: &fleet };
            let tick: Tick = if minute == 0 {
                // No full minute is known: what there is stays.
                fleet.pass(0, u32::MAX)
            } else {
                let want = policy.decide(&view);
                fleet.pass(want.buy, want.hold)
            };
            served = tick.ready;
            look(minute, policy, tick);
            if minute >= self.warm_up && values[minute].is_some() {
                tally.count((minute - self.warm_up) / 1440, f64::from(demand[minute]), tick);
                let at = self.recording.start.0 + minute as i64;
                tally.bill.count(at, tick.paid, &self.conditions.rates);
                tally.bill.launch(at, tick.launched);
            }
            if (minute + 1) % STEP == 0 {
                progress.passed(STEP as u64);
            }
        }
        progress.passed((demand.len() % STEP) as u64);
        tally
    }

    pub(super) fn outcome(&self, policy: String, tally: &Tally, least: f64, ours_to_this: Option<Ratio>) -> Outcome {
        let sum = tally.sum();
        let cost = sum.cost(self.conditions.price_of_waiting);
        let (on_demand_dollars, spot_dollars) = tally.bill.dollars(&self.conditions.rates);
        Outcome {
            policy,
            node_hours: sum.paid / 60.0,
            dollars: on_demand_dollars + spot_dollars,
            on_demand_dollars,
            spot_dollars,
            dollars_by_hour: tally.bill.by_hour(&self.conditions.rates),
            unmet_share: sum.unmet / tally.demand.max(f64::MIN_POSITIVE),
            unmet_node_minutes: sum.unmet,
            minutes_over: tally.minutes_over,
            launches: tally.launches,
            launches_by_hour: tally.bill.launches_by_hour(),
            elasticity: Some(tally.elasticity()),
            cost,
            to_clairvoyant: ratio(cost, least),
            ours_to_this,
        }
    }

    /// Finds the optimum of the minutes that count, and draws it.
    pub(super) fn optimum(&self, course: &mut Course, progress: &mut dyn Progress) -> Outcome {
        const NAME: &str = "clairvoyant optimum";
        progress.begins(NAME);
        let counted = || (self.warm_up..self.demand.len()).filter(|minute| self.recording.values[*minute].is_some());
        let at = |minute: usize| self.recording.start.0 + minute as i64;
        let demand = measured(self.recording, self.warm_up);
        let minutes: Vec<i64> = counted().map(at).collect();
        let mut capacity = vec![0_u16; demand.len()];
        let (boot, price, rates) = (self.conditions.boot.mean_minutes(), self.conditions.price_of_waiting, &self.conditions.rates);
        let mut bill = Bill::default();
        let is_on = |layer: usize, minute: usize, starts: bool| {
            capacity[minute] += 1;
            if starts {
                // Launched a boot before it serves.
                bill.launch(minutes[minute] - self.conditions.boot.minutes() as i64, 1);
                bill.count_boot(minutes[minute], u32::try_from(layer).unwrap_or(u32::MAX - 1), boot, rates);
            }
        };
        let found = clairvoyant_paths(&demand, boot, price, is_on, || progress.passed(layer_work(&demand) as u64));
        minutes.iter().zip(&capacity).for_each(|(minute, nodes)| bill.count(*minute, u32::from(*nodes), rates));
        let mut bins = self.bins();
        counted().zip(&capacity).for_each(|(minute, nodes)| self.bin(&mut bins, minute, u32::from(*nodes)));
        course.trajectories.push(bins.finished(NAME.into(), false, Vec::new()));
        let (on_demand_dollars, spot_dollars) = bill.dollars(rates);
        let over =
            demand.iter().zip(&capacity).filter(|(demand, capacity)| whole_nodes(f64::from(**demand)) > u32::from(**capacity)).count();
        let total: f64 = demand.iter().map(|value| f64::from(*value)).sum();
        Outcome {
            policy: NAME.into(),
            node_hours: found.node_minutes / 60.0,
            dollars: on_demand_dollars + spot_dollars,
            on_demand_dollars,
            spot_dollars,
            dollars_by_hour: bill.by_hour(rates),
            unmet_share: found.unmet / total.max(f64::MIN_POSITIVE),
            unmet_node_minutes: found.unmet,
            minutes_over: over as u64,
            launches: found.launches,
            launches_by_hour: bill.launches_by_hour(),
            elasticity: None,
            cost: found.cost(price),
            to_clairvoyant: Some(1.0),
            ours_to_this: None,
        }
    }
}
