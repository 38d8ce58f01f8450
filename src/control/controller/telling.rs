//! What people are told, and when: [`crate::model::happening`] says what is promised.

use super::Controller;
use crate::model::happening::{LATELY, Milestone, PoolChange, WAITING_NAMED, WaitingPod};
use crate::model::operation::LaunchedInstance;
use crate::model::plan::{Alert, LaunchOrder};
use crate::model::snapshot::Pause;
use crate::model::{Happening, LaunchState, Operation, OperationId, Plan, PodKey, Snapshot, What};
use crate::ports::{Measurement, Telemetry, World};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A condition that was not there for so long is told of again when it comes back.
const ALERT_AGAIN: SignedDuration = SignedDuration::from_hours(1);

/// What has been told, as far as it decides what is told next.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// What the decisions meant for the pools of operations that are under way.
    changes: BTreeMap<OperationId, PoolChange>,
    pause: Option<Pause>,
    /// Who has asked for the resumption that is not told yet.
    resumed_by: Option<String>,
    /// When each condition, by its name and whom it concerns, was there last.
    alerts: BTreeMap<(String, String), Timestamp>,
    /// What the audit said of the latest plan that it refused, until it accepts one.
    refused: Vec<String>,
}

impl<W: World> Controller<W> {
    fn tell(&self, what: What) {
        if self.grant.is_some() {
            self.context.world.telemetry().tell(Happening { at: self.now(), what });
        }
    }

    /// Tells that this instance leads, and of what the one before may have told nobody.
    pub(super) fn tell_takeover(&mut self, operations: &[Operation]) {
        let Some(grant) = &self.grant else { return };
        let now = self.now();
        self.telling = Telling { pause: self.pause.clone(), ..Telling::default() };
        let (over, under_way): (Vec<Operation>, Vec<Operation>) = operations.iter().cloned().partition(Operation::is_over);
        let lately = over.into_iter().filter(|operation| now.duration_since(operation.updated()) <= LATELY).collect();
        self.tell(What::TookOver { owner: grant.owner.clone(), epoch: grant.epoch, pause: self.pause.clone(), under_way, lately });
    }

    /// Keeps what a decision means for the pool of an operation that it begins.
    pub(super) fn note_change(&mut self, operation: &Operation, plan: &Plan) {
        if let Some(report) = plan.pools.iter().find(|report| report.pool == *operation.pool()) {
            let change = PoolChange {
                before: report.owned + report.in_flight,
                after: report.desired,
                price_before: report.price,
                price_after: report.price_after,
            };
            self.telling.changes.insert(operation.id().clone(), change);
        }
    }

    /// Tells what has become of an operation, once the journal has it.
    pub(super) fn tell_move(&mut self, known: Option<&Operation>, operation: &Operation) {
        self.tell_joined(known, operation);
        let state = known.map(Operation::state_name);
        let amended = match (known, operation) {
            (Some(Operation::Retire(known)), Operation::Retire(retire)) => known.order.reason != retire.order.reason,
            (Some(_) | None, _) => false,
        };
        // One that is only written down has no effect yet, for its new reason neither.
        if operation.state_name() == "journalled" || (state == Some(operation.state_name()) && !amended) {
            return;
        }
        let change = match operation.is_over() {
            true => self.telling.changes.remove(operation.id()),
            false => self.telling.changes.get(operation.id()).cloned(),
        };
        let begins = amended || state.is_none_or(|state| state == "journalled");
        if Milestone::of(operation, begins) == Milestone::Interrupted {
            self.context.world.telemetry().record(Measurement::Interrupted { pool: operation.pool().to_string() });
        }
        self.tell(What::Moved { operation: operation.clone(), begins, change });
    }

    /// Tells of the instances of a launch that have become Ready nodes.
    fn tell_joined(&self, known: Option<&Operation>, operation: &Operation) {
        let (Some(Operation::Launch(known)), Operation::Launch(launch)) = (known, operation) else { return };
        let LaunchState::Joining { instances: before, since } = &known.state else { return };
        let nodes = match &launch.state {
            LaunchState::Joining { instances, .. } | LaunchState::Done { joined: instances, .. } => instances,
            LaunchState::Journalled | LaunchState::Failed { .. } => return,
        };
        let was_node = |instance: &LaunchedInstance| before.iter().any(|it| it.id == instance.id && it.node.is_some());
        for instance in nodes.iter().filter(|instance| !was_node(instance)) {
            let Some(node) = instance.node.clone() else { continue };
            let took = Duration::try_from(launch.updated.duration_since(*since)).unwrap_or_default();
            let (pool, instance_type) = (launch.order.pool.clone(), instance.instance_type.clone());
            self.tell(What::Joined { pool, instance: instance.id.clone(), instance_type, node, took });
        }
    }

    /// Tells of the pause where it is another one than was told, once the ledger has every word that was said.
    pub(super) fn tell_pause(&mut self) {
        if self.grant.is_none() || !self.words.is_empty() || self.pause == self.telling.pause {
            return;
        }
        self.telling.pause.clone_from(&self.pause);
        let by = self.telling.resumed_by.take();
        self.tell(match self.pause.clone() {
            Some(pause) => What::Paused { pause },
            None => What::Resumed { by },
        });
    }

    pub(super) fn note_resumer(&mut self, by: &str) {
        self.telling.resumed_by = Some(by.to_owned());
    }

    /// The resumption did not come about.
    pub(super) fn forget_resumer(&mut self) {
        self.telling.resumed_by = None;
    }

    /// Tells what a turn's plan says to people, beyond the operations that it begins.
    pub(super) fn tell_plan(&mut self, snapshot: &Snapshot, plan: &Plan, refused: &[String]) {
        if self.telling.refused != refused {
            self.telling.refused = refused.to_vec();
            if !refused.is_empty() {
                self.tell(What::Refused { violations: refused.to_vec() });
            }
        }
        for alert in &plan.alerts {
            self.tell_alert(alert);
        }
        let pods = waiting(snapshot, plan, &self.operations);
        if !pods.is_empty() {
            self.tell(What::Waiting { pods });
        }
    }

    fn tell_alert(&mut self, alert: &Alert) {
        let now = self.now();
        self.telling.alerts.retain(|_, last| now.duration_since(*last) <= ALERT_AGAIN);
        if self.telling.alerts.insert((alert.name.clone(), alert.subject.clone()), now).is_none() {
            self.tell(What::Alerted { alert: alert.clone() });
        }
    }
}

/// Lists the pods for which nothing is bought, each with the reason.
///
/// A plan names the pods that no node could take. Of those that are held back it names the reasons pool by pool; they
/// are taken to be the unschedulable ones that no launch is for.
fn waiting(snapshot: &Snapshot, plan: &Plan, operations: &BTreeMap<OperationId, Operation>) -> Vec<WaitingPod> {
    let mut found: Vec<WaitingPod> =
        plan.unplaceable.iter().map(|it| WaitingPod { pod: it.pod.clone(), why: format!("no node could take it: {}", it.why) }).collect();
    let why = holds(plan);
    let view = snapshot.cluster.known().filter(|_| !why.is_empty());
    let named = |order: &LaunchOrder| order.pods.clone();
    let mut served: BTreeSet<PodKey> = found.iter().map(|it| it.pod.clone()).collect();
    served.extend(operations.values().flat_map(|operation| match operation {
        Operation::Launch(launch) if !operation.is_over() => named(&launch.order),
        Operation::Launch(_) | Operation::Retire(_) => Vec::new(),
    }));
    for pod in view.iter().flat_map(|view| &view.pods) {
        if found.len() >= WAITING_NAMED {
            break;
        }
        if pod.wants_a_node() && !served.contains(&pod.key) {
            found.push(WaitingPod { pod: pod.key.clone(), why: why.clone() });
        }
    }
    found.truncate(WAITING_NAMED);
    found
}

/// Says why nothing is bought for pods that a node of ours could take; empty where nothing holds them back.
fn holds(plan: &Plan) -> String {
    let fleet = plan.holds.iter().map(ToString::to_string);
    let pools = plan.pools.iter().flat_map(|report| {
        let held = report.findings.iter().filter(|finding| finding.rule.as_str() == "pending_pods");
        held.filter_map(|finding| finding.hold.as_ref()).map(|hold| format!("pool {}: {hold}", report.pool))
    });
    fleet.chain(pools).collect::<Vec<_>>().join("; ")
}
