//! Rules on utilisation and on applications' metrics: when they fire, and what they want.

use super::fleet::{Fleet, Member, count};
use super::settings::{MetricGoal, MetricRule, PoolSettings, Settings};
use crate::model::memory::{PoolMemory, Streak};
use crate::model::plan::Hold;
use crate::model::reading::Utilisation;
use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{Missing, Reading, RuleName, Snapshot};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How busy a pool is as a whole.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolLoad {
    /// CPU in use as a share of what the pool's serving nodes can give.
    pub cpu: f64,
    /// Memory in use as a share of what the pool's serving nodes can give.
    pub memory: f64,
    /// CPU of the serving nodes, in cores.
    pub cores: f64,
    /// Memory of the serving nodes, in bytes.
    pub bytes: f64,
}

/// Why a pool's load is not known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoLoad {
    /// The turn did not ask: nothing follows.
    NotAsked,
    /// It is missing or doubtful: streaks break.
    Doubtful(String),
    /// The pool has no serving node.
    NoNodes,
}

/// Computes a pool's load from its serving nodes, weighed by their size.
///
/// # Errors
/// When too few of the nodes have a usable reading.
pub fn pool_load(settings: &Settings, members: &[Member<'_>], utilisation: &Observed<UtilisationReport>) -> Result<PoolLoad, NoLoad> {
    let report = usable(utilisation)?;
    let nodes: Vec<_> = members.iter().filter(|member| member.serves()).filter_map(|member| member.node).collect();
    if nodes.is_empty() {
        return Err(NoLoad::NoNodes);
    }
    let (mut known, mut first_gap) = (0_u32, None);
    let (mut used_cpu, mut used_memory, mut cores, mut bytes) = (0.0, 0.0, 0.0, 0.0);
    for node in &nodes {
        let (weight_cpu, weight_memory) = (node.allocatable.cpu.cores(), to_float(node.allocatable.memory.0));
        match both(report.nodes.get(&node.name)) {
            Ok((cpu, memory)) => {
                known += 1;
                used_cpu += cpu * weight_cpu;
                used_memory += memory * weight_memory;
                cores += weight_cpu;
                bytes += weight_memory;
            }
            Err(why) => first_gap = first_gap.or(Some(format!("node {}: {why}", node.name))),
        }
    }
    let total = count(nodes.len());
    if !covers(settings, known, total) || cores <= 0.0 || bytes <= 0.0 {
        return Err(too_few(known, total, first_gap));
    }
    Ok(PoolLoad { cpu: used_cpu / cores, memory: used_memory / bytes, cores, bytes })
}

/// Tells whether the answer shows enough of all pools' nodes: one with holes is doubtful as a whole, also for a pool
/// of which it shows every node.
///
/// # Errors
/// When too few of the nodes have a usable reading.
pub fn coverage(settings: &Settings, fleet: &Fleet<'_>, utilisation: &Observed<UtilisationReport>) -> Result<(), NoLoad> {
    let report = usable(utilisation)?;
    // Those that leave are still scraped; those that start are not yet.
    let nodes = fleet.members().filter(|member| !member.starts).filter_map(|member| member.node).filter(|node| node.is_ready());
    let (mut known, mut total, mut first_gap) = (0, 0, None);
    for node in nodes {
        total += 1;
        match both(report.nodes.get(&node.name)) {
            Ok(_) => known += 1,
            Err(why) => first_gap = first_gap.or(Some(format!("node {}: {why}", node.name))),
        }
    }
    if covers(settings, known, total) { Ok(()) } else { Err(too_few(known, total, first_gap)) }
}

fn usable(utilisation: &Observed<UtilisationReport>) -> Result<&UtilisationReport, NoLoad> {
    match utilisation {
        Observed::Known { value, .. } if value.warming_up => Err(NoLoad::Doubtful("Prometheus has only just started".into())),
        Observed::Known { value, .. } => Ok(value),
        Observed::Unknown(Missing::NotAsked) => Err(NoLoad::NotAsked),
        Observed::Unknown(why) => Err(NoLoad::Doubtful(why.to_string())),
    }
}

fn covers(settings: &Settings, known: u32, total: u32) -> bool {
    known > 0 && f64::from(known) >= settings.min_coverage * f64::from(total)
}

fn too_few(known: u32, total: u32, first_gap: Option<String>) -> NoLoad {
    NoLoad::Doubtful(format!("only {known} of {total} nodes have usable metrics ({})", first_gap.unwrap_or_default()))
}

#[expect(clippy::cast_precision_loss, reason = "memory beyond 2^53 bytes is beyond any node")]
fn to_float(bytes: u64) -> f64 {
    bytes as f64
}

fn both(utilisation: Option<&Utilisation>) -> Result<(f64, f64), String> {
    let value = |reading: &Reading, what: &str| match reading {
        Reading::Value { value, .. } => Ok(*value),
        Reading::Missing(why) => Err(format!("{what}: {why}")),
    };
    let utilisation = utilisation.ok_or_else(|| "it is not in Prometheus's answer".to_owned())?;
    Ok((value(&utilisation.cpu, "cpu")?, value(&utilisation.memory, "memory")?))
}

/// What a rule wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// So many more cores than the pool has.
    Cores(f64),
    /// So many more bytes of memory than the pool has.
    Bytes(f64),
    /// So many nodes in all.
    Nodes(u32),
}

impl Demand {
    /// Gives how much it is, in its own unit.
    #[must_use]
    pub fn amount(&self) -> f64 {
        match self {
            Self::Cores(amount) | Self::Bytes(amount) => *amount,
            Self::Nodes(nodes) => f64::from(*nodes),
        }
    }
}

/// What a rule saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Which rule.
    pub rule: RuleName,
    /// What it read, in words.
    pub evidence: String,
    /// What it wants, when it has fired.
    pub demand: Option<Demand>,
    /// Why it has not fired.
    pub hold: Option<Hold>,
    /// It forbids that a node is given back.
    pub vetoes_removal: bool,
    /// Removals leave at least so many nodes.
    pub keeps: u32,
}

/// Judges CPU and memory.
pub fn utilisation(settings: &Settings, load: &Result<PoolLoad, NoLoad>, memory: &mut PoolMemory, now: Timestamp) -> Vec<Verdict> {
    let up = &settings.scale_up;
    let cpu = Judged { rule: "cpu", above: up.cpu_above, sustain: up.cpu_sustain };
    let ram = Judged { rule: "memory", above: up.memory_above, sustain: up.memory_sustain };
    vec![
        cpu.verdict(settings, load.as_ref().map(|load| load.cpu), memory, now, |share| {
            load.as_ref().ok().map(|load| Demand::Cores(load.cores * (share / up.cpu_target - 1.0)))
        }),
        ram.verdict(settings, load.as_ref().map(|load| load.memory), memory, now, |share| {
            load.as_ref().ok().map(|load| Demand::Bytes(load.bytes * (share / up.memory_target - 1.0)))
        }),
    ]
}

struct Judged {
    rule: &'static str,
    above: f64,
    sustain: Duration,
}

impl Judged {
    fn verdict(
        &self,
        settings: &Settings,
        share: Result<f64, &NoLoad>,
        memory: &mut PoolMemory,
        now: Timestamp,
        demand: impl Fn(f64) -> Option<Demand>,
    ) -> Verdict {
        let rule = RuleName::from(self.rule);
        match share {
            Ok(share) => {
                let above = share > self.above;
                let sustained = sustain(memory, &rule, above, self.sustain, settings.interval, now);
                Verdict {
                    evidence: format!("{} {:.1} %, threshold {:.1} % for {:?}", self.rule, share * 100.0, self.above * 100.0, self.sustain),
                    demand: if sustained { demand(share) } else { None },
                    hold: (!sustained).then(|| Hold::NotSustained { since: memory.above.get(&rule).map(|streak| streak.since) }),
                    vetoes_removal: above,
                    keeps: 0,
                    rule,
                }
            }
            Err(NoLoad::NotAsked) => silent(rule, "not asked in an urgent turn", None),
            Err(NoLoad::NoNodes) => {
                memory.above.remove(&rule);
                silent(rule, "no node serves", None)
            }
            Err(NoLoad::Doubtful(why)) => {
                memory.above.remove(&rule);
                silent(rule, why, Some(Hold::BadData { why: why.clone() }))
            }
        }
    }
}

pub(super) fn silent(rule: RuleName, evidence: &str, hold: Option<Hold>) -> Verdict {
    Verdict { rule, evidence: evidence.to_owned(), demand: None, vetoes_removal: hold.is_some(), keeps: 0, hold }
}

/// How many members of a pool a rule on an application's metric has to reckon with.
#[derive(Clone, Copy, Debug)]
pub struct Strength {
    /// Those that stay, booting ones included.
    pub total: u32,
    /// Those that serve, and so have brought about what the metric shows.
    pub serving: u32,
}

/// Judges the `[[metric]]` rules of a pool.
pub fn metrics(
    settings: &Settings,
    pool: &PoolSettings,
    snapshot: &Snapshot,
    strength: Strength,
    memory: &mut PoolMemory,
    now: Timestamp,
) -> Vec<Verdict> {
    let rules = settings.metrics.iter().filter(|rule| rule.pool == pool.name);
    rules.map(|rule| metric(settings, rule, snapshot.metrics.get(&rule.name), strength, memory, now)).collect()
}

fn metric(
    settings: &Settings,
    rule: &MetricRule,
    reading: Option<&Reading>,
    strength: Strength,
    memory: &mut PoolMemory,
    now: Timestamp,
) -> Verdict {
    let value = match reading {
        Some(Reading::Value { value, .. }) => *value,
        Some(Reading::Missing(Missing::NotAsked)) | None => return silent(rule.name.clone(), "not asked in an urgent turn", None),
        Some(Reading::Missing(why)) => {
            memory.above.remove(&rule.name);
            return silent(rule.name.clone(), &why.to_string(), Some(Hold::BadData { why: why.to_string() }));
        }
    };
    let Strength { total, serving } = strength;
    let (wanted, keeps, goal) = match rule.goal {
        MetricGoal::PerNode(share) => (nodes(value / share), nodes(value / share), format!("{share} for each node")),
        MetricGoal::Threshold(limit) => {
            // What boots already does not show in the value yet.
            let needed = nodes(f64::from(serving) * value / limit).max(serving.saturating_add(1));
            let wanted = if value > limit { needed.max(total) } else { total };
            // With fewer of them, each would have more of it.
            (wanted, nodes(f64::from(total.max(1)) * value / limit), format!("threshold {limit}"))
        }
    };
    let above = match rule.goal {
        MetricGoal::PerNode(_) => wanted > total,
        MetricGoal::Threshold(limit) => value > limit,
    };
    let sustained = sustain(memory, &rule.name, above, rule.sustain, settings.interval, now);
    Verdict {
        rule: rule.name.clone(),
        evidence: format!("{value}, {goal}, for {:?}", rule.sustain),
        demand: sustained.then_some(Demand::Nodes(wanted)),
        hold: (!sustained).then(|| Hold::NotSustained { since: memory.above.get(&rule.name).map(|streak| streak.since) }),
        vetoes_removal: above || (keeps > 0 && total <= keeps),
        keeps,
    }
}

/// Rounds a wish up to whole nodes. An absurd one is cut to what a `u32` holds; the maximum cuts it further.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the value is clamped to the range of u32 first")]
pub(super) fn nodes(wish: f64) -> u32 {
    wish.ceil().clamp(0.0, f64::from(u32::MAX)) as u32
}

/// Keeps the rule's streak and tells whether its condition has been met by every reading
/// over the whole of `sustain`, of which there must have been two.
pub(super) fn sustain(memory: &mut PoolMemory, rule: &RuleName, met: bool, sustain: Duration, interval: Duration, now: Timestamp) -> bool {
    let streak = memory.above.remove(rule);
    let Some(streak) = extend(streak, met, interval, now) else { return false };
    let sustained = lasted(&streak, sustain, now);
    memory.above.insert(rule.clone(), streak);
    sustained
}

/// Adds a reading to a streak. A hole of three turns ends it: nobody knows what was in between.
#[must_use]
pub fn extend(streak: Option<Streak>, met: bool, interval: Duration, now: Timestamp) -> Option<Streak> {
    let hole = SignedDuration::try_from(interval.saturating_mul(3)).unwrap_or(SignedDuration::MAX);
    match streak {
        _ if !met => None,
        Some(old) if now.duration_since(old.latest) <= hole && now >= old.latest => {
            let readings = if now == old.latest { old.readings } else { old.readings.saturating_add(1) };
            Some(Streak { latest: now, readings, ..old })
        }
        Some(_) | None => Some(Streak { since: now, latest: now, readings: 1 }),
    }
}

/// Tells whether a streak has lasted.
#[must_use]
pub fn lasted(streak: &Streak, sustain: Duration, now: Timestamp) -> bool {
    let needed = SignedDuration::try_from(sustain).unwrap_or(SignedDuration::MAX);
    streak.readings >= 2 && now.duration_since(streak.since) >= needed
}
