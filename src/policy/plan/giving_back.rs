//! Which nodes a turn gives back: strays, and what the pools do not need.

use super::{Turn, Verdicts, cooling_down, to_float};
use crate::model::memory::{Memory, PoolMemory, Streak};
use crate::model::plan::{Finding, Hold, NodeRef, RetireReason};
use crate::model::{Action, Node, OperationId, Resources, RetireOrder, RuleName};
use crate::policy::buying::Bounds;
use crate::policy::fleet::{Member, count};
use crate::policy::rules::{self, NoLoad, PoolLoad, Verdict};
use crate::policy::scale_down::Chooser;
use crate::policy::settings::PoolSettings;
use crate::policy::strays;
use std::time::Duration;

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
                Ok(orders) => {
                    let kept = memory.pools.entry(pool.name.clone()).or_default();
                    if kept.regretted < kept.last_down {
                        kept.regrets = 0;
                    }
                    kept.last_down = Some(self.now);
                    let number = count(orders.len());
                    let evidence = orders.first().map(|order| order.reason.to_string()).unwrap_or_default();
                    self.plan.actions.extend(orders.into_iter().map(Action::Retire));
                    Finding { rule, evidence, wants: -i64::from(number), hold: None }
                }
                Err((evidence, hold)) => Finding { rule, evidence, wants: 0, hold },
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
    ) -> Result<Vec<RetireOrder>, (String, Option<Hold>)> {
        let down = &self.settings.scale_down;
        let staying = self.fleet.staying(&pool.name);
        let above_maximum = staying > bounds.max;
        if !down.enabled {
            return Err(("scale-down is switched off".into(), None));
        }
        let coverage = || rules::coverage(self.settings, &self.fleet, &self.snapshot.utilisation);
        let load = match load.as_ref().map_err(Clone::clone).and_then(|load| coverage().map(|()| load)) {
            Ok(load) => load,
            Err(NoLoad::NotAsked) => return Err(("not asked in an urgent turn".into(), None)),
            Err(NoLoad::NoNodes) => return Err(("no node serves".into(), None)),
            Err(NoLoad::Doubtful(why)) => return Err(("utilisation is not known".into(), Some(Hold::BadData { why: why.clone() }))),
        };
        let against = |cpu_below: f64, memory_below: f64, sustain: Duration| {
            let (cpu, memory) = (load.cpu * 100.0, load.memory * 100.0);
            let (cpu_below, memory_below) = (cpu_below * 100.0, memory_below * 100.0);
            format!(
                "cpu {cpu:.1} % (below {cpu_below:.1} %), memory {memory:.1} % (below {memory_below:.1} %) for {sustain:?}, {staying} workers stay"
            )
        };
        let mut evidence = against(down.cpu_below, down.memory_below, down.sustain);
        if self.snapshot.pause.is_some() {
            return Err((evidence, None));
        }
        let lasted = |streak: &Option<Streak>, sustain| streak.as_ref().is_some_and(|streak| rules::lasted(streak, sustain, self.now));
        let roomy = self.settings.consolidation.as_ref().filter(|rule| lasted(&kept.roomy, rule.sustain));
        let reason = if above_maximum {
            RetireReason::AboveMaximum
        } else if lasted(&kept.idle, down.sustain) {
            RetireReason::Underused { evidence: evidence.clone() }
        } else if let Some(rule) = roomy {
            evidence = against(rule.cpu_below, rule.memory_below, rule.sustain);
            RetireReason::Consolidated { evidence: evidence.clone() }
        } else {
            let since = kept.idle.iter().chain(&kept.roomy).map(|streak| streak.since).min();
            return Err((evidence, Some(Hold::NotSustained { since })));
        };
        let hold = |hold| Err((evidence.clone(), Some(hold)));
        // Only nodes that take pods are a reason that another may go.
        let carrying = count(self.fleet.pool(&pool.name).iter().filter(|member| member.serves()).count());
        if carrying <= bounds.min {
            return hold(Hold::AtMinimum { min: bounds.min });
        }
        if self.wanting > 0 {
            return hold(Hold::PodsWaiting { pods: self.wanting });
        }
        if let Some((unready, total)) = self.too_many_unready() {
            return hold(Hold::UnreadyNodes { unready, total });
        }
        if let Some(verdict) = verdicts.iter().find(|verdict| verdict.vetoes_removal) {
            return hold(match &verdict.hold {
                Some(bad @ Hold::BadData { .. }) => bad.clone(),
                Some(_) | None => Hold::Wanted { rule: verdict.rule.clone() },
            });
        }
        if let Some(operation) = self.underway(pool) {
            return hold(Hold::Underway { operation });
        }
        let doubled = down.cooldown.saturating_mul(1 << kept.regrets.min(16)).min(down.longest_cooldown.max(down.cooldown));
        let last = [(kept.last_up, down.cooldown), (kept.last_down, down.cooldown), (kept.regretted, doubled)];
        let until = last.into_iter().filter_map(|(last, cooldown)| cooling_down(last, cooldown, self.now)).max();
        if let Some(until) = until {
            return hold(Hold::CoolingDown { until });
        }
        let surplus = if above_maximum { staying - bounds.max } else { u32::MAX };
        let most = self.at_once(pool, staying).min(carrying - bounds.min).min(surplus);
        let chooser = Chooser {
            settings: self.settings,
            cluster: self.cluster,
            fleet: &self.fleet,
            // Above the maximum nothing can be kept free.
            spare: if above_maximum { &[] } else { self.spare },
            prices: &self.prices,
            memory,
            now: self.now,
        };
        let chosen = chooser.choose(pool, most as usize, |gone| self.is_spared(load, gone));
        let chosen = chosen.map_err(|why| (evidence.clone(), Some(Hold::NoCandidate { why })))?;
        let order = |(member, node): (Member<'a>, &Node)| RetireOrder {
            pool: pool.name.clone(),
            instance: member.id,
            node: Some(NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
            zone: member.zone,
            market: member.market,
            reason: reason.clone(),
            on_timeout: pool.on_drain_timeout,
        };
        Ok(chosen.into_iter().map(order).collect())
    }

    /// Gives the number of nodes that may leave together, of so many: at least one.
    fn at_once(&self, pool: &PoolSettings, nodes: u32) -> u32 {
        let share = self.settings.scale_down.share_at_once * f64::from(nodes);
        // A share of exactly one node must not be lost to rounding.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a number of nodes is one itself")]
        let whole = (share + 1e-9).floor() as u32;
        // A metric's rule says whether the fleet could do without one node, and no more.
        let has_rule = self.settings.metrics.iter().any(|rule| rule.pool == pool.name);
        let most = if has_rule { 1 } else { self.settings.scale_down.most_at_once.max(1) };
        whole.clamp(1, most)
    }

    /// Tells whether the nodes that stay would be within their targets without so much capacity.
    fn is_spared(&self, load: &PoolLoad, gone: &Resources) -> Result<(), String> {
        let busier = load.cpu * load.cores / (load.cores - gone.cpu.cores()).max(0.001);
        let fuller = load.memory * load.bytes / (load.bytes - to_float(gone.memory.0)).max(1.0);
        let up = &self.settings.scale_up;
        if busier > up.cpu_target || fuller > up.memory_target {
            return Err(format!("without it cpu would be {:.1} % and memory {:.1} %", busier * 100.0, fuller * 100.0));
        }
        Ok(())
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
