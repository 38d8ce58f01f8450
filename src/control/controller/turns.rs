//! One turn: observe, plan, audit, begin.

use super::super::observe::{Observation, observe};
use super::super::status::{DECISIONS_KEPT, Decision, SourceStatus};
use super::{Controller, Event};
use crate::model::offer::HourlyPrice;
use crate::model::snapshot::Observed;
use crate::model::{OfferKey, Plan, Snapshot};
use crate::policy;
use crate::ports::{Clock, Measurement, Telemetry, World};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{error, warn};

/// After a failed turn, how soon an urgent one is tried again.
pub(super) const URGENT_AGAIN: Duration = Duration::from_secs(5);

/// Whether a turn's observation is under way, and what wants another one after it.
#[derive(Debug, Default)]
pub(super) struct LookingAround {
    now: bool,
    again: Option<&'static str>,
}

impl<W: World> Controller<W> {
    pub(super) fn turn(&mut self, trigger: &'static str) {
        if self.grant.is_none() {
            return;
        }
        let urgent = is_urgent(trigger);
        // One of each kind at a time: who is in a hurry does not wait for Prometheus, which the other may be waiting for.
        let looking = self.looking_around(urgent);
        if looking.now {
            looking.again = Some(trigger);
            return;
        }
        looking.now = true;
        let (world, settings) = (Arc::clone(&self.context.world), Arc::clone(&self.context.settings));
        if !urgent {
            self.answering.append(&mut self.evaluations);
        }
        let forecasts = (!urgent).then(|| {
            let mut forecasts = self.forecasts.take().unwrap_or_default();
            forecasts.follow(&settings, &self.memory);
            forecasts
        });
        let heard = self.heard;
        self.spawn(async move {
            let before = world.clock().monotonic();
            let observation = observe(Arc::clone(&world), settings, forecasts, trigger == "pods").await;
            world.telemetry().record(Measurement::Turn { trigger, took: world.clock().monotonic().since(before) });
            Event::Observed(trigger, heard, Box::new(observation))
        });
    }

    pub(super) fn observed(&mut self, trigger: &'static str, heard: u64, mut observation: Observation) {
        self.looking_around(is_urgent(trigger)).now = false;
        if let Some(forecasts) = observation.forecasts.take() {
            let now = self.now();
            self.prospects = forecasts.prospects(now);
            self.shown.forecasts = forecasts.shown(&self.context.settings, now);
            self.forecasts = Some(forecasts);
        }
        let Some(grant) = self.grant.clone() else { return };
        self.note_sources(&observation);
        match &observation.pause {
            Ok(pause) => {
                self.believe(heard, pause.as_ref());
                self.tell_pause();
            }
            // Whether an operator has paused the fleet is not known, so nothing is started.
            Err(why) => return self.after_turn(trigger, &Err(format!("the ledger does not say whether the fleet is paused: {why}"))),
        }
        if let Observed::Known { value, .. } = &observation.catalogue {
            self.shown.prices_read.clone_from(&value.prices_read);
        }
        let versions = observation.catalogue.known().map(|catalogue| catalogue.template_versions.clone()).unwrap_or_default();
        let prices = observation.catalogue.known().map(|catalogue| Arc::clone(&catalogue.prices)).unwrap_or_default();
        if let Observed::Known { value, at } = &observation.instances {
            self.instances.clone_from(value);
            policy::account(&mut self.memory.spend, value, &prices, *at);
            self.shown.cost = policy::report(&self.memory.spend).map(Arc::new);
        }
        let templates = self.context.settings.templates_now(&versions);
        let snapshot = Snapshot { templates, ..self.snapshot(observation, prices) };
        let now = self.now();
        let before = self.context.world.clock().monotonic();
        let (plan, memory) = policy::plan(&self.context.settings.policy, &snapshot, &self.memory, now);
        self.context.world.telemetry().record(Measurement::Planned { took: self.context.world.clock().monotonic().since(before) });
        let violations = policy::audit(&self.context.settings.policy, &snapshot, &plan, now);
        let refused: Vec<String> = violations.iter().map(ToString::to_string).collect();
        let mut begun = Vec::new();
        if violations.is_empty() {
            self.memory = memory;
            for action in &plan.actions {
                begun.extend(self.begin(action, &plan, &grant, &versions));
            }
        } else {
            for violation in &violations {
                error!(%violation, "the plan would break an invariant and is refused");
                self.context.world.telemetry().record(Measurement::AuditRefused { invariant: violation.invariant.name() });
            }
        }
        // Where Kubernetes or EC2 does not answer, nobody knows how many there are.
        if !plan.pools.is_empty() {
            self.node_count = Some(plan.pools.iter().map(|pool| pool.owned + pool.in_flight).sum());
        }
        self.tell_plan(&snapshot, &plan, &refused);
        self.remember();
        self.forget_old(&grant);
        self.keep_demands(&grant);
        self.see(snapshot);
        let decision = Arc::new(Decision { at: now, trigger, plan, refused, operations: begun });
        self.after_turn(trigger, &Ok(decision));
    }

    /// Keeps what a turn saw, for questions.
    fn see(&mut self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        if !matches!(snapshot.utilisation, Observed::Unknown(crate::model::Missing::NotAsked)) {
            self.measured = Some(Arc::clone(&snapshot));
        }
        self.seen = Some(snapshot);
    }

    pub(super) fn after_turn(&mut self, trigger: &'static str, decision: &Result<Arc<Decision>, String>) {
        self.shown.turns += 1;
        self.shown.last_turn = Some(self.now());
        match decision {
            Ok(decision) => {
                let mut plan = decision.plan.clone();
                if is_urgent(trigger) {
                    keep_readings(&mut plan, self.shown.plan.as_deref());
                }
                self.shown.plan = Some(Arc::new(plan));
                self.decisions.push_front(Arc::clone(decision));
                self.decisions.truncate(DECISIONS_KEPT);
            }
            Err(why) => warn!(%why, "no plan was made"),
        }
        let urgent = is_urgent(trigger);
        if !urgent {
            for waiting in self.answering.drain(..) {
                let _ = waiting.send(decision.clone());
            }
        }
        let blind = decision.as_ref().is_ok_and(|decision| decision.plan.pools.is_empty()) || decision.is_err();
        if blind && trigger != "tick" {
            // What made the turn urgent is still there when the sources answer again.
            self.wake_at.get_or_insert_with(|| Instant::now() + URGENT_AGAIN);
        }
        if let Some(again) = self.looking_around(urgent).again.take() {
            self.turn(again);
        }
        self.publish();
    }

    fn looking_around(&mut self, urgent: bool) -> &mut LookingAround {
        if urgent { &mut self.urgent_look } else { &mut self.full_look }
    }

    pub(super) fn snapshot(&self, observation: Observation, prices: Arc<BTreeMap<OfferKey, HourlyPrice>>) -> Snapshot {
        Snapshot {
            cluster: observation.cluster,
            instances: observation.instances,
            offers: match observation.catalogue {
                Observed::Known { value, at } => Observed::Known { value: Arc::clone(&value.offers), at },
                Observed::Unknown(why) => Observed::Unknown(why),
            },
            prices,
            utilisation: observation.utilisation,
            metrics: observation.metrics,
            prospects: self.prospects.clone(),
            operations: self.operations.clone(),
            templates: BTreeMap::new(),
            pause: self.pause.clone(),
        }
    }

    pub(super) fn note_sources(&mut self, observation: &Observation) {
        fn outcome<T>(observed: &Observed<T>) -> Result<(), String> {
            match observed {
                Observed::Known { .. } => Ok(()),
                Observed::Unknown(why) => Err(why.to_string()),
            }
        }
        self.source("kubernetes", outcome(&observation.cluster));
        self.source("ec2", outcome(&observation.instances).and(outcome(&observation.catalogue)));
        if !matches!(observation.utilisation, Observed::Unknown(crate::model::Missing::NotAsked)) {
            self.source("prometheus", outcome(&observation.utilisation));
        }
        self.source("dynamodb", observation.pause.as_ref().map(|_| ()).map_err(ToString::to_string));
    }

    /// Shows how it stands with those who are told; a standby tells nobody.
    pub(super) fn note_outlets(&mut self) {
        let outlets = self.inputs.outlets.borrow_and_update().clone();
        if self.grant.is_some() {
            for (name, outcome) in outlets {
                // Only what is news: the others have not answered anew.
                let known = self.shown.sources.get(name);
                if known.is_none_or(|known| known.ok != outcome.is_ok() || known.why.as_ref() != outcome.as_ref().err()) {
                    self.source(name, outcome);
                }
            }
        }
    }

    pub(super) fn source(&mut self, name: &'static str, outcome: Result<(), String>) {
        let now = self.now();
        let entry = self.shown.sources.entry(name).or_insert(SourceStatus { ok: false, why: None, last_ok: None });
        entry.ok = outcome.is_ok();
        if entry.ok {
            entry.last_ok = Some(now);
        }
        entry.why = outcome.err();
    }
}

/// Shows with an urgent turn's plan what Prometheus said in the latest full turn, which is at most an interval ago.
fn keep_readings(plan: &mut Plan, before: Option<&Plan>) {
    for report in &mut plan.pools {
        let known = before.and_then(|before| before.pools.iter().find(|it| it.pool == report.pool));
        report.cpu = report.cpu.or(known.and_then(|known| known.cpu));
        report.memory = report.memory.or(known.and_then(|known| known.memory));
    }
}

/// Tells whether the turn is for somebody who does not wait for Prometheus.
fn is_urgent(trigger: &str) -> bool {
    matches!(trigger, "pods" | "notice")
}
