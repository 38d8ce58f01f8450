//! The table of operations: begun, driven step by step, and learnt from when they are over.

use super::super::driver::{self, Drive, Stepped, step};
use super::super::forecasts::to_be_kept;
use super::turns::URGENT_AGAIN;
use super::{Controller, Event, Remembering};
use crate::model::ids::Epoch;
use crate::model::instance::{tags, template_tag};
use crate::model::operation::{LaunchFailure, LaunchState, RetireState};
use crate::model::plan::{LaunchReason, OnDrainTimeout};
use crate::model::{Action, Launch, LaunchOrder, LaunchRequest, Operation, OperationId, Plan, Retire, RetireOrder};
use crate::policy;
use crate::ports::ledger::StateSummary;
use crate::ports::{Clock, Entropy, Grant, Ledger, Measurement, Telemetry, World};
use jiff::SignedDuration;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::{error, info, warn};

/// Operations that are over are kept this long: EC2's and Kubernetes' lists lag behind them.
const KEPT_WHEN_OVER: SignedDuration = SignedDuration::from_mins(15);
/// How many of them a turn takes out of the journal, each by a transaction of its own: after a storm there are many.
const FORGOTTEN_IN_A_TURN: usize = 25;

impl<W: World> Controller<W> {
    pub(super) fn begin(
        &mut self,
        action: &Action,
        plan: &Plan,
        grant: &Grant,
        versions: &BTreeMap<crate::model::PoolName, String>,
    ) -> Option<String> {
        let operation = match action {
            Action::Launch(order) => self.new_launch(order, grant, versions)?,
            Action::Retire(order) => self.new_retire(order.clone(), grant),
        };
        let id = operation.id().to_string();
        self.note_change(&operation, plan);
        self.adopt(operation, true);
        Some(id)
    }

    pub(super) fn new_launch(
        &self,
        order: &LaunchOrder,
        grant: &Grant,
        versions: &BTreeMap<crate::model::PoolName, String>,
    ) -> Option<Operation> {
        let template = self.context.settings.templates.get(&order.pool)?;
        let Some(version) = template.version_of(&order.pool, versions) else {
            error!(pool = %order.pool, "the launch template's version is not known, so nothing is launched");
            return None;
        };
        let id = self.context.world.entropy().operation_id();
        let request = LaunchRequest {
            token: id.clone(),
            launch_template: template.template.clone(),
            subnet: order.subnet.clone(),
            market: order.market,
            instance_types: order.instance_types.clone(),
            count: order.count,
            tags: tags(&self.context.settings.cluster, &order.pool, &id, grant.epoch, &template_tag(&template.template, &version)),
            launch_template_version: version,
        };
        info!(operation = %id, pool = %order.pool, zone = %order.zone, market = %order.market, count = order.count, reason = %order.reason, "scaling up");
        let now = self.now();
        Some(Operation::Launch(Launch {
            id,
            epoch: grant.epoch,
            created: now,
            updated: now,
            order: order.clone(),
            request,
            state: LaunchState::Journalled,
        }))
    }

    pub(super) fn new_retire(&self, order: RetireOrder, grant: &Grant) -> Operation {
        let id = self.context.world.entropy().operation_id();
        let now = self.now();
        info!(operation = %id, pool = %order.pool, instance = ?order.instance, node = ?order.node, reason = %order.reason, "giving back");
        Operation::Retire(Retire { id, epoch: grant.epoch, created: now, updated: now, order, state: RetireState::Journalled })
    }

    /// Takes an operation into the table and begins to drive it.
    pub(super) fn adopt(&mut self, operation: Operation, fresh: bool) {
        let over = operation.is_over();
        self.operations.insert(operation.id().clone(), operation.clone());
        if !over {
            self.drive(Drive::new(operation, fresh, self.context.world.clock().monotonic()));
        }
    }

    pub(super) fn drive(&self, drive: Drive) {
        let Some(grant) = &self.grant else { return };
        let (mut context, epoch) = (self.context.clone(), grant.epoch);
        // What comes from now on is heard by this step.
        context.amended.mark_unchanged();
        self.spawn(async move { Event::Stepped(epoch, Box::new(step(context, drive).await)) });
    }

    pub(super) fn stepped(&mut self, epoch: Epoch, stepped: Stepped) {
        if self.grant.as_ref().map(|grant| grant.epoch) != Some(epoch) {
            return;
        }
        if stepped.lost {
            warn!("the journal refuses this instance; another one leads");
            return;
        }
        let mut drive = stepped.drive;
        self.amend(&mut drive);
        let now = self.now();
        let id = drive.operation.id().clone();
        let journalled = !drive.fresh;
        if journalled {
            let known = self.operations.insert(id.clone(), drive.operation.clone());
            let moved = known.as_ref().is_none_or(|known| known.state_name() != drive.operation.state_name());
            self.tell_move(known.as_ref(), &drive.operation);
            self.settle_receipts(&drive.operation);
            let over = drive.operation.is_over();
            if over || !stepped.without_capacity.is_empty() {
                self.memory = policy::learn(
                    &self.context.settings.policy,
                    std::mem::take(&mut self.memory),
                    &drive.operation,
                    &stepped.without_capacity,
                    now,
                );
            }
            if over && moved {
                self.ended(&drive.operation);
                self.remember();
                self.publish();
                return;
            }
            if moved {
                self.partly_filled(&drive.operation);
                self.publish();
            }
        }
        self.drive(drive);
    }

    /// Where EC2 has given less than was asked for, the need is still there.
    fn partly_filled(&mut self, operation: &Operation) {
        if let Operation::Launch(launch) = operation
            && let LaunchState::Joining { instances, .. } = &launch.state
        {
            self.busy = 0;
            if instances.len() < launch.request.count as usize {
                self.turn(retry_of(launch));
            }
        }
    }

    /// Gives a retirement its new reason; the journal hears of it with the next step.
    pub(super) fn amend(&mut self, drive: &mut Drive) {
        let Operation::Retire(retire) = &mut drive.operation else { return };
        if let Some(reason) = self.amended.remove(&retire.id) {
            retire.order.reason = reason;
            retire.order.on_timeout = OnDrainTimeout::Force;
            match retire.state {
                RetireState::Draining { .. } | RetireState::RollingBack { .. } | RetireState::RolledBack { .. } => {
                    retire.state = RetireState::Journalled;
                }
                RetireState::Journalled | RetireState::Drained { .. } | RetireState::Terminated | RetireState::Done => {}
            }
            drive.fresh = true;
            self.turn("notice");
        }
    }

    pub(super) fn ended(&mut self, operation: &Operation) {
        let telemetry = self.context.world.telemetry();
        match operation {
            Operation::Launch(launch) => match &launch.state {
                LaunchState::Failed { failure } => {
                    let name = failure.name();
                    warn!(operation = %launch.id, failure = name, "the launch failed");
                    telemetry.record(Measurement::OperationFailed { kind: "launch", failure: name });
                    // The need is still there, and other offers may serve it, but for where EC2 itself is at its limit.
                    if matches!(failure, LaunchFailure::Busy { .. }) {
                        self.busy = self.busy.saturating_add(1);
                        let pause = driver::pause(URGENT_AGAIN, self.busy, self.context.world.entropy().fraction());
                        self.wake_at.get_or_insert_with(|| Instant::now() + pause);
                    } else {
                        self.turn(retry_of(launch));
                    }
                }
                LaunchState::Done { never_joined, left, .. } if !(never_joined.is_empty() && left.is_empty()) => {
                    telemetry.record(Measurement::OperationFailed { kind: "launch", failure: "never_joined" });
                    self.turn(retry_of(launch));
                }
                LaunchState::Done { .. } | LaunchState::Journalled | LaunchState::Joining { .. } => {}
            },
            Operation::Retire(retire) => match &retire.state {
                RetireState::RolledBack { .. } => {
                    telemetry.record(Measurement::OperationFailed { kind: "retire", failure: "rolled_back" });
                    telemetry.record(Measurement::RolledBack { pool: retire.order.pool.to_string() });
                }
                RetireState::Done => {
                    let (pool, reason) = (retire.order.pool.to_string(), retire.order.reason.name());
                    telemetry.record(Measurement::ScaledDown { pool, reason });
                }
                RetireState::Journalled
                | RetireState::Draining { .. }
                | RetireState::Drained { .. }
                | RetireState::Terminated
                | RetireState::RollingBack { .. } => {}
            },
        }
    }

    /// Writes the memory down, beside the loop. One write follows the other, so that the last one holds.
    pub(super) fn remember(&mut self) {
        let Some(grant) = self.grant.clone() else { return };
        if self.remembering != Remembering::Idle {
            self.remembering = Remembering::Again;
            return;
        }
        self.remembering = Remembering::Busy;
        let summary = StateSummary {
            node_count: self.node_count,
            scaling_in_progress: self.operations.values().any(|operation| !operation.is_over()),
            last_scale: self.memory.pools.values().flat_map(|pool| [pool.last_up, pool.last_down]).flatten().max(),
        };
        let (world, memory) = (Arc::clone(&self.context.world), self.memory.clone());
        self.spawn(async move { Event::Remembered(world.ledger().remember(&grant, &memory, summary).await) });
    }

    /// Lets the ledger keep what is known of the demands, now and then.
    pub(super) fn keep_demands(&mut self, grant: &Grant) {
        let now = self.now();
        let demands = self.forecasts.as_mut().map(|forecasts| forecasts.due_for_keeping(now)).unwrap_or_default();
        for (rule, query, history) in demands {
            let (world, grant) = (Arc::clone(&self.context.world), grant.clone());
            self.spawn(async move {
                let demand = to_be_kept(query, &history, now);
                Event::Kept(world.ledger().keep_demand(&grant, &rule, &demand).await)
            });
        }
    }

    /// Forgets operations that have been over for long.
    pub(super) fn forget_old(&mut self, grant: &Grant) {
        let now = self.now();
        let old: Vec<OperationId> = self
            .operations
            .values()
            .filter(|operation| operation.is_over() && now.duration_since(operation.updated()) > KEPT_WHEN_OVER)
            .map(|operation| operation.id().clone())
            .take(FORGOTTEN_IN_A_TURN)
            .collect();
        for id in old {
            self.operations.remove(&id);
            let (world, grant) = (Arc::clone(&self.context.world), grant.clone());
            self.spawn(async move { Event::Forgotten(world.ledger().forget(&grant, &id).await) });
        }
    }
}

/// Names the turn that tries again what a launch was for: rules and removals need Prometheus, pods do not wait for it.
fn retry_of(launch: &Launch) -> &'static str {
    match launch.order.reason {
        LaunchReason::Rule { .. } | LaunchReason::Successor { .. } => "failure",
        LaunchReason::PendingPods { .. } | LaunchReason::BelowMinimum | LaunchReason::Headroom | LaunchReason::Replacement { .. } => {
            "notice"
        }
    }
}
