//! Which nodes a turn gives back: strays, and what the pools do not need.

use super::{Refusal, Turn, Verdicts, cooling_down, to_float};
use crate::model::memory::{Memory, PoolMemory, Streak};
use crate::model::plan::{Finding, Hold, NodeRef, RetireReason};
use crate::model::{Action, Node, OperationId, Resources, RetireOrder, RuleName};
use crate::policy::budgets::Budgets;
use crate::policy::buying::Bounds;
use crate::policy::fleet::{Member, count};
use crate::policy::rules::{self, NoLoad, PoolLoad, Verdict};
use crate::policy::scale_down::{Chooser, REFUSALS_TOLD, Which, whole};
use crate::policy::settings::{PoolSettings, ScaleDown, Settings};
use crate::policy::strays;
use jiff::Timestamp;
use std::time::Duration;

/// A reason for which nodes of a pool may go.
struct Way {
    reason: RetireReason,
    /// The same in words.
    evidence: String,
    /// Only those without pods that would have to move.
    empty: bool,
}

impl<'a> Turn<'a> {
    pub(super) fn give_back(&mut self, memory: &mut Memory, verdicts: &Verdicts) {
        let strays = strays::find(self.settings, self.cluster, self.instances, &self.snapshot.operations, &self.fleet, memory, self.now);
        if self.snapshot.pause.is_none() {
            self.plan.actions.extend(strays.into_iter().map(Action::Retire));
        }
        for pool in &self.settings.pools {
            let bounds = pool.bounds(self.now);
            let kept = memory.pools.get(&pool.name).cloned().unwrap_or_default();
            let (load, pool_verdicts) = &verdicts[&pool.name];
            let rule = RuleName::from("scale_down");
            let finding = match self.removals(pool, bounds, load, pool_verdicts, &kept, memory) {
                Ok((orders, passed_over)) => {
                    let kept = memory.pools.entry(pool.name.clone()).or_default();
                    if kept.regretted < kept.last_down {
                        kept.regrets = 0;
                    }
                    kept.last_down = Some(self.now);
                    let number = count(orders.len());
                    let evidence = orders.first().map(|order| order.reason.to_string()).unwrap_or_default();
                    self.plan.actions.extend(orders.into_iter().map(Action::Retire));
                    Finding { rule, evidence, wants: -i64::from(number), hold: None, passed_over }
                }
                Err((evidence, hold)) => Finding { rule, evidence, wants: 0, hold, passed_over: Vec::new() },
            };
            if let Some(report) = self.plan.pools.iter_mut().find(|report| report.pool == pool.name) {
                report.findings.push(finding);
            }
        }
    }

    /// Decides which nodes of the pool go, if any. Every condition must agree.
    fn removals(
        &self,
        pool: &PoolSettings,
        bounds: Bounds,
        load: &Result<PoolLoad, NoLoad>,
        verdicts: &[Verdict],
        kept: &PoolMemory,
        memory: &Memory,
    ) -> Result<(Vec<RetireOrder>, Vec<String>), Refusal> {
        let down = &self.settings.scale_down;
        let staying = self.fleet.staying(&pool.name);
        let above_maximum = staying > bounds.max;
        if !down.enabled {
            return Err(("scale-down is switched off".into(), None));
        }
        let load = self.sound(load)?;
        let against = |cpu_below: f64, memory_below: f64, sustain: Duration| {
            let (cpu, memory) = (load.cpu * 100.0, load.memory * 100.0);
            let (cpu_below, memory_below) = (cpu_below * 100.0, memory_below * 100.0);
            format!(
                "cpu {cpu:.1} % (below {cpu_below:.1} %), memory {memory:.1} % (below {memory_below:.1} %) for {sustain:?}, {staying} workers stay"
            )
        };
        let evidence = against(down.cpu_below, down.memory_below, down.sustain);
        if self.snapshot.pause.is_some() {
            return Err((evidence, None));
        }
        let lasted = |streak: &Option<Streak>, sustain| streak.as_ref().is_some_and(|streak| rules::lasted(streak, sustain, self.now));
        let roomy = self.settings.consolidation.as_ref().filter(|rule| lasted(&kept.roomy, rule.sustain));
        let mut ways = Vec::new();
        if above_maximum {
            ways.push(Way { evidence: evidence.clone(), reason: RetireReason::AboveMaximum, empty: false });
        } else {
            if self.has_empty(pool) {
                let (cpu, memory) = (load.cpu * 100.0, load.memory * 100.0);
                let evidence = format!("no pod has to move, cpu {cpu:.1} %, memory {memory:.1} %, {staying} workers stay");
                ways.push(Way { reason: RetireReason::Underused { evidence: evidence.clone() }, evidence, empty: true });
            }
            if lasted(&kept.idle, down.sustain) {
                let reason = RetireReason::Underused { evidence: evidence.clone() };
                ways.push(Way { evidence: evidence.clone(), reason, empty: false });
            } else if let Some(rule) = roomy {
                let evidence = against(rule.cpu_below, rule.memory_below, rule.sustain);
                ways.push(Way { reason: RetireReason::Consolidated { evidence: evidence.clone() }, evidence, empty: false });
            }
        }
        let since = kept.idle.iter().chain(&kept.roomy).map(|streak| streak.since).min();
        let mut refusal = (evidence, Some(Hold::NotSustained { since }));
        let Some(first) = ways.first() else { return Err(refusal) };
        if let Some(hold) = self.nothing_goes(pool, bounds, verdicts, kept, memory) {
            return Err((first.evidence.clone(), Some(hold)));
        }
        for way in ways {
            match self.go(pool, bounds, load, verdicts, memory, &way) {
                Ok(gone) => return Ok(gone),
                Err(hold) => refusal = (way.evidence, Some(hold)),
            }
        }
        Err(refusal)
    }

    /// Says what keeps every node of the pool, whatever it is like.
    fn nothing_goes(&self, pool: &PoolSettings, bounds: Bounds, verdicts: &[Verdict], kept: &PoolMemory, memory: &Memory) -> Option<Hold> {
        if let Some((node, _)) = memory.successions.iter().find(|(_, succession)| succession.pool == pool.name && !succession.failed) {
            return Some(Hold::Replacing { node: node.clone() });
        }
        if self.carrying(pool) <= bounds.min {
            return Some(Hold::AtMinimum { min: bounds.min });
        }
        self.unrest(pool).or_else(|| vetoed(verdicts)).or_else(|| self.cooling(kept))
    }

    /// Chooses the nodes that go for one reason.
    fn go(
        &self,
        pool: &PoolSettings,
        bounds: Bounds,
        load: &PoolLoad,
        verdicts: &[Verdict],
        memory: &Memory,
        way: &Way,
    ) -> Result<(Vec<RetireOrder>, Vec<String>), Hold> {
        let Way { reason, empty, .. } = way;
        let staying = self.fleet.staying(&pool.name);
        let above_maximum = staying > bounds.max;
        let allowed = pool.allows(reason.name(), staying, self.now);
        if allowed == 0 {
            return Err(Hold::Budget { reason: reason.name().into() });
        }
        let surplus = if above_maximum { staying - bounds.max } else { u32::MAX };
        let kept_for = verdicts.iter().map(|verdict| verdict.keeps).max().unwrap_or(0);
        let most = at_once(self.settings, pool, staying, *empty)
            .min(self.carrying(pool).saturating_sub(bounds.min))
            .min(surplus)
            .min(allowed)
            .min(staying.saturating_sub(kept_for));
        // Above the maximum nothing can be kept free.
        let chooser = Chooser { spare: if above_maximum { &[] } else { self.spare }, ..self.chooser(memory) };
        let which = Which { most: most as usize, empty: *empty, told: REFUSALS_TOLD, ..self.which(above_maximum, bounds) };
        let chosen = chooser.choose(pool, which, |gone| self.is_spared(load, gone)).map_err(|why| Hold::NoCandidate { why })?;
        let orders = chosen.going.into_iter().map(|(member, node)| order(pool, member, node, reason.clone()));
        Ok((orders.collect(), chosen.passed_over))
    }

    /// Says which nodes go at all: above the maximum the pool keeps nothing for its balance, or for pods that wait.
    pub(super) fn which(&self, above_maximum: bool, bounds: Bounds) -> Which<'_, 'a> {
        let (keeps, expecting) = ((!above_maximum).then_some(bounds.min), (!above_maximum).then_some(&self.expecting));
        Which { most: usize::MAX, empty: false, keeps, expecting, told: usize::MAX }
    }

    /// Tells whether a node of the pool has no pods that would have to move.
    fn has_empty(&self, pool: &PoolSettings) -> bool {
        let mut serving = self.fleet.pool(&pool.name).iter().filter(|member| member.serves()).filter_map(|member| member.node);
        let moves =
            |node: &Node| self.pods.get(&node.name).into_iter().flatten().any(|pod| pod.must_find_a_place(self.settings.expendable_below));
        serving.any(|node| !moves(node) && !self.expecting.contains(&node.name))
    }

    /// Gives the pool's load where a removal may rest on it.
    pub(super) fn sound<'l>(&self, load: &'l Result<PoolLoad, NoLoad>) -> Result<&'l PoolLoad, Refusal> {
        let coverage = || rules::coverage(self.settings, &self.fleet, &self.snapshot.utilisation);
        match load.as_ref().map_err(Clone::clone).and_then(|load| coverage().map(|()| load)) {
            Ok(load) => Ok(load),
            Err(NoLoad::NotAsked) => Err(("not asked in an urgent turn".into(), None)),
            Err(NoLoad::NoNodes) => Err(("no node serves".into(), None)),
            Err(NoLoad::Doubtful(why)) => Err(("utilisation is not known".into(), Some(Hold::BadData { why }))),
        }
    }

    /// Counts the pool's nodes that take pods: only they are a reason that another may go.
    pub(super) fn carrying(&self, pool: &PoolSettings) -> u32 {
        count(self.fleet.pool(&pool.name).iter().filter(|member| member.serves()).count())
    }

    /// Says what must be over before a node of the pool goes.
    pub(super) fn unrest(&self, pool: &PoolSettings) -> Option<Hold> {
        if let Some(pods) = self.wanting.get(&pool.name).copied().filter(|pods| *pods > 0) {
            return Some(Hold::PodsWaiting { pods });
        }
        if let Some((unready, total)) = self.too_many_unready() {
            return Some(Hold::UnreadyNodes { unready, total });
        }
        self.underway(pool).map(|operation| Hold::Underway { operation })
    }

    /// Says until when the pool is left alone after what has been done to it.
    pub(super) fn cooling(&self, kept: &PoolMemory) -> Option<Hold> {
        cooling(&self.settings.scale_down, kept, self.now).map(|until| Hold::CoolingDown { until })
    }

    pub(super) fn chooser<'t>(&'t self, memory: &'t Memory) -> Chooser<'t, 'a> {
        let (settings, cluster, prices) = (self.settings, self.cluster, &self.prices);
        let budgets = Budgets::of(&cluster.budgets);
        Chooser { settings, cluster, budgets, fleet: &self.fleet, spare: self.spare, prices, memory, now: self.now }
    }

    /// Tells whether the nodes that stay would be within their targets without so much capacity.
    pub(super) fn is_spared(&self, load: &PoolLoad, gone: &Resources) -> Result<(), String> {
        let up = &self.settings.scale_up;
        is_within(load, gone, up.cpu_target, up.memory_target)
    }

    /// Tells whether the nodes that stay when one has been replaced would ask for no more capacity.
    pub(super) fn is_replaced(&self, load: &PoolLoad, gone: &Resources) -> Result<(), String> {
        let up = &self.settings.scale_up;
        is_within(load, gone, up.cpu_above, up.memory_above)
    }

    fn too_many_unready(&self) -> Option<(u32, u32)> {
        let joined =
            self.fleet.members().filter(|member| member.launch.is_none() && member.leaving.is_none()).filter_map(|member| member.node);
        let (unready, total) = joined.fold((0, 0), |(unready, total), node| (unready + u32::from(!node.is_ready()), total + 1));
        (f64::from(unready) > self.settings.max_unready_share * f64::from(total)).then_some((unready, total))
    }

    /// Names an operation that must end before the next removal of the pool: one of its own, or what another pool gives
    /// back in this turn, since both would count on the same room and the same budgets.
    fn underway(&self, pool: &PoolSettings) -> Option<OperationId> {
        let bought = self.plan.actions.iter().any(|action| match action {
            Action::Launch(order) => order.pool == pool.name,
            Action::Retire(_) => true,
        });
        let open = self.snapshot.operations.values().find(|operation| !operation.is_over() && *operation.pool() == pool.name);
        open.map(|operation| operation.id().clone()).or_else(|| bought.then(|| "of this turn".into()))
    }
}

/// Says until when a pool is left alone after what has been done to it.
pub(in crate::policy) fn cooling(down: &ScaleDown, kept: &PoolMemory, now: Timestamp) -> Option<Timestamp> {
    let doubled = down.cooldown.saturating_mul(1 << kept.regrets.min(16)).min(down.longest_cooldown.max(down.cooldown));
    let last = [(kept.last_up, down.cooldown), (kept.last_down, down.cooldown), (kept.regretted, doubled)];
    last.into_iter().filter_map(|(last, cooldown)| cooling_down(last, cooldown, now)).max()
}

/// Gives the number of nodes that may leave together, of so many: at least one. Where they are empty, no pod is disrupted.
pub(in crate::policy) fn at_once(settings: &Settings, pool: &PoolSettings, nodes: u32, empty: bool) -> u32 {
    // A metric's rule says whether the fleet could do without one node, and no more.
    let has_rule = settings.metrics.iter().any(|rule| rule.pool == pool.name);
    let most = if has_rule { 1 } else { settings.scale_down.most_at_once.max(1) };
    if empty { most } else { whole(settings.scale_down.share_at_once * f64::from(nodes)).clamp(1, most) }
}

/// Tells whether a pool would be within these shares without so much capacity.
pub(in crate::policy) fn is_within(load: &PoolLoad, gone: &Resources, cpu: f64, memory: f64) -> Result<(), String> {
    let busier = load.cpu * load.cores / (load.cores - gone.cpu.cores()).max(0.001);
    let fuller = load.memory * load.bytes / (load.bytes - to_float(gone.memory.0)).max(1.0);
    if busier > cpu || fuller > memory {
        return Err(format!("without it cpu would be {:.1} % and memory {:.1} %", busier * 100.0, fuller * 100.0));
    }
    Ok(())
}

/// Says which rule keeps every node.
pub(super) fn vetoed(verdicts: &[Verdict]) -> Option<Hold> {
    let verdict = verdicts.iter().find(|verdict| verdict.vetoes_removal)?;
    Some(match &verdict.hold {
        Some(bad @ Hold::BadData { .. }) => bad.clone(),
        Some(_) | None => Hold::Wanted { rule: verdict.rule.clone() },
    })
}

pub(super) fn order(pool: &PoolSettings, member: Member<'_>, node: &Node, reason: RetireReason) -> RetireOrder {
    RetireOrder {
        pool: pool.name.clone(),
        instance: member.id,
        node: Some(NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
        zone: member.zone,
        market: member.market,
        reason,
        on_timeout: pool.on_drain_timeout,
    }
}
