//! A turn's decision for a pool whose nodes are all alike and whose pods fill one each.
//!
//! There a board is not needed: what [`super::plan()`] decides follows from a few counts, in a microsecond. A replay of
//! a year lets it decide; that it decides as `plan` does is tested where the replay is, on boards made of the same counts.

use super::foreseen;
use super::plan::giving_back::{at_once, cooling, is_within};
use super::plan::{NOISE, OPENED_AT_ONCE, cooling_down, keep_idle, regret};
use super::rules::{self, Demand, NoLoad, PoolLoad};
use super::settings::{PoolSettings, Settings};
use crate::model::memory::PoolMemory;
use crate::model::prospect::Prospect;
use crate::model::{Resources, RuleName};
use jiff::Timestamp;
use serde::Serialize;

/// What a turn sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight<'a> {
    /// Nodes that serve.
    pub ready: u32,
    /// Those of them that are past their minimum age.
    pub grown: u32,
    /// Nodes that boot.
    pub booting: u32,
    /// Pods, each as large as a node.
    pub pods: u32,
    /// Share of the serving nodes' CPU that is in use; `None` in an urgent turn, which does not ask.
    pub cpu: Option<f64>,
    /// What the `[[forecast]]` rule says, if there is one; of others nothing is known.
    pub prospect: Option<(&'a RuleName, &'a Prospect)>,
    /// A removal for economy took pods' room away within the last minute.
    pub displaces: bool,
    /// What a node has.
    pub node: &'a Resources,
    /// What a node costs, in micro-dollars an hour.
    pub price: u64,
}

/// Why nodes were launched or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Pods waited.
    PendingPods,
    /// There were fewer than the minimum.
    BelowMinimum,
    /// CPU was above its threshold for long enough.
    Cpu,
    /// The forecast wanted them.
    Forecast,
    /// There were more than the maximum.
    AboveMaximum,
    /// The pool was idle for long enough.
    Underused,
    /// The pool had room to be made smaller for long enough.
    Consolidated,
}

/// What a turn decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Moves {
    /// Nodes to launch, by cause.
    pub launches: Vec<(Cause, u32)>,
    /// Nodes to give back, the oldest first.
    pub retires: Option<(Cause, u32)>,
}

impl Moves {
    /// Counts the nodes to launch.
    #[must_use]
    pub fn launched(&self) -> u32 {
        self.launches.iter().map(|(_, nodes)| nodes).sum()
    }

    /// Counts the nodes to give back.
    #[must_use]
    pub fn retired(&self) -> u32 {
        self.retires.map_or(0, |(_, nodes)| nodes)
    }
}

/// What forbids removals, beside what the pool itself does.
#[derive(Clone, Copy, Debug, Default)]
struct Say {
    vetoes: bool,
    keeps: u32,
}

/// Decides for the first pool of the settings.
#[must_use]
pub fn turn(settings: &Settings, sight: &Sight<'_>, memory: &mut PoolMemory, now: Timestamp) -> Moves {
    let mut moves = Moves::default();
    let Some(pool) = settings.pools.first() else { return moves };
    let load = sight.load();
    let (mut demands, mut say) = (Vec::new(), Say::default());
    if let Some((demand, vetoes)) = judge_cpu(settings, &load, memory, now) {
        say.vetoes = vetoes;
        demands.extend(demand.map(|demand| (Cause::Cpu, demand)));
    }
    let bounds = pool.bounds(now);
    let total = sight.ready + sight.booting;
    if let Some((rule, prospect)) = sight.prospect {
        let verdict = foreseen::judge_one(settings.predictive.mode, rule, Some(prospect), (total, bounds.max), now);
        say = Say { vetoes: say.vetoes || verdict.vetoes_removal, keeps: verdict.keeps };
        demands.extend(verdict.demand.map(|demand| (Cause::Forecast, demand)));
    }
    keep_idle(settings, &load, memory, now);
    buy(settings, pool, sight, &demands, memory, now, &mut moves);
    moves.retires = give_back(settings, pool, sight, &load, say, &moves, memory, now);
    if moves.retires.is_some() {
        if memory.regretted < memory.last_down {
            memory.regrets = 0;
        }
        memory.last_down = Some(now);
    }
    moves
}

impl Sight<'_> {
    fn load(&self) -> Result<PoolLoad, NoLoad> {
        let Some(cpu) = self.cpu else { return Err(NoLoad::NotAsked) };
        if self.ready == 0 {
            return Err(NoLoad::NoNodes);
        }
        // Summed as the readings of single nodes are, to the last bit.
        let each = self.node.cpu.cores();
        let (mut used, mut cores) = (0.0, 0.0);
        for _ in 0..self.ready {
            used += cpu * each;
            cores += each;
        }
        #[expect(clippy::cast_precision_loss, reason = "memory beyond 2^53 bytes is beyond any node")]
        let bytes = f64::from(self.ready) * self.node.memory.0 as f64;
        Ok(PoolLoad { cpu: used / cores, memory: 0.0, cores, bytes })
    }
}

/// Gives what the rule on CPU wants, and whether it forbids removals.
fn judge_cpu(
    settings: &Settings,
    load: &Result<PoolLoad, NoLoad>,
    memory: &mut PoolMemory,
    now: Timestamp,
) -> Option<(Option<Demand>, bool)> {
    let (rule, up) = (RuleName::from("cpu"), &settings.scale_up);
    match load {
        Ok(load) => {
            let above = load.cpu > up.cpu_above;
            let sustained = rules::sustain(memory, &rule, above, up.cpu_sustain, settings.interval, now);
            Some((sustained.then(|| Demand::Cores(load.cores * (load.cpu / up.cpu_target - 1.0))), above))
        }
        Err(NoLoad::NotAsked) => None,
        Err(NoLoad::NoNodes | NoLoad::Doubtful(_)) => {
            memory.above.remove(&rule);
            None
        }
    }
}

fn buy(
    settings: &Settings,
    pool: &PoolSettings,
    sight: &Sight<'_>,
    demands: &[(Cause, Demand)],
    memory: &mut PoolMemory,
    now: Timestamp,
    moves: &mut Moves,
) {
    let (bounds, total) = (pool.bounds(now), sight.ready + sight.booting);
    let affordable = settings
        .price_ceiling
        .map_or(u32::MAX, |ceiling| u32::try_from(ceiling.0.checked_div(sight.price).unwrap_or(u64::MAX)).unwrap_or(u32::MAX));
    let mut room = bounds.max.min(affordable).saturating_sub(total);
    let mut open = |cause: Cause, nodes: u32| {
        let opened = nodes.min(room);
        room -= opened;
        if opened > 0 {
            moves.launches.push((cause, opened));
        }
        opened
    };
    let mut bought = open(Cause::PendingPods, sight.pods.saturating_sub(total));
    let for_pods = bought > 0;
    bought += open(Cause::BelowMinimum, bounds.min.saturating_sub(total + bought));
    let before_rules = bought;
    for (cause, demand) in demands {
        let each = match demand {
            Demand::Cores(_) => sight.node.cpu.cores(),
            Demand::Bytes(_) | Demand::Nodes(_) => 1.0,
        };
        let there = match demand {
            Demand::Cores(_) | Demand::Bytes(_) => sight.booting + bought,
            Demand::Nodes(_) => total + bought,
        };
        let mut missing = demand.amount() - f64::from(there) * each;
        let noise = NOISE * demand.amount();
        if missing <= noise || cooling_down(memory.last_rule_up, settings.scale_up.cooldown, now).is_some() {
            continue;
        }
        let mut wanted = 0;
        while missing > noise && wanted < OPENED_AT_ONCE {
            wanted += 1;
            missing -= each;
        }
        bought += open(*cause, wanted);
    }
    if bought > 0 {
        memory.last_up = Some(now);
        if bought > before_rules {
            memory.last_rule_up = Some(now);
        }
        if for_pods && sight.displaces {
            regret(memory, now);
        }
    }
}

#[expect(clippy::too_many_arguments, reason = "it is one decision, and each of them forbids it")]
fn give_back(
    settings: &Settings,
    pool: &PoolSettings,
    sight: &Sight<'_>,
    load: &Result<PoolLoad, NoLoad>,
    say: Say,
    moves: &Moves,
    memory: &PoolMemory,
    now: Timestamp,
) -> Option<(Cause, u32)> {
    let (down, bounds) = (&settings.scale_down, pool.bounds(now));
    let load = load.as_ref().ok().filter(|_| down.enabled)?;
    let total = sight.ready + sight.booting;
    let lasted = |streak: &Option<_>, sustain| streak.as_ref().is_some_and(|streak| rules::lasted(streak, sustain, now));
    let roomy = settings.consolidation.as_ref().is_some_and(|rule| lasted(&memory.roomy, rule.sustain));
    // Every node that may go is without pods here.
    let empty = sight.ready.saturating_sub(sight.pods);
    let is_quiet = sight.booting == 0 && moves.launches.is_empty() && sight.ready > bounds.min && empty > 0;
    if !is_quiet || say.vetoes || cooling(down, memory, now).is_some() {
        return None;
    }
    let ways = match () {
        () if total > bounds.max => [Some((Cause::AboveMaximum, "above_maximum", false)), None],
        () if !lasted(&memory.idle, down.sustain) && roomy => {
            [Some((Cause::Underused, "underused", true)), Some((Cause::Consolidated, "consolidated", false))]
        }
        () => [Some((Cause::Underused, "underused", true)), None],
    };
    let surplus = if total > bounds.max { total - bounds.max } else { u32::MAX };
    let spared = |nodes: &u32| {
        is_within(load, &sight.node.times(u64::from(*nodes)), settings.scale_up.cpu_target, settings.scale_up.memory_target).is_ok()
    };
    ways.into_iter().flatten().find_map(|(cause, reason, empty_alone)| {
        let allowed = pool.allows(reason, total, now);
        let most = at_once(settings, pool, total, empty_alone).min(sight.ready - bounds.min).min(surplus).min(allowed);
        let most = most.min(total.saturating_sub(say.keeps)).min(sight.grown).min(empty);
        Some((cause, (1..=most).take_while(&spared).last()?))
    })
}
