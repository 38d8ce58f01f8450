//! What EC2 announces, and above all that it takes an instance back.

use super::{Controller, Event, Unknown};
use crate::model::operation::RetireState;
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireReason};
use crate::model::{Instance, InstanceId, Operation, Retire, RetireOrder};
use crate::ports::{Clock, Cloud, CloudError, Cluster, Delivery, Measurement, Notice, Notices, Telemetry, World};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use tracing::{info, warn};

/// A spot instance ends this long after its notice.
const SPOT_NOTICE: SignedDuration = SignedDuration::from_secs(120);

impl<W: World> Controller<W> {
    pub(super) fn deliver(&mut self, delivery: Delivery) {
        if self.grant.is_none() {
            return; // It becomes visible again and reaches whoever leads then.
        }
        let received = |kind| self.context.world.telemetry().record(Measurement::NoticeReceived { kind });
        match delivery.notice.clone() {
            Err(why) => {
                received("malformed");
                warn!(%why, "a malformed notice is left to the dead-letter queue");
            }
            Ok(Notice::SpotInterruption { instance, at }) => {
                received("spot_interruption");
                self.interrupted(delivery, instance, at);
            }
            Ok(Notice::RebalanceRecommendation { instance }) => {
                received("rebalance_recommendation");
                let ours = self.instances.iter().any(|known| known.id == instance);
                info!(%instance, ours, "EC2 recommends to rebalance");
                self.acknowledge(delivery.handle);
                if ours && self.context.settings.policy.replacement.as_ref().is_some_and(|rule| rule.recommended) {
                    self.memory.at_risk.insert(instance, self.now());
                    self.turn("recommendation");
                }
            }
            Ok(Notice::StateChange { instance, state }) => {
                received("state_change");
                let ours = self.instances.iter().any(|known| known.id == instance);
                info!(%instance, state, ours, "an instance has changed its state");
                self.acknowledge(delivery.handle);
                if ours {
                    self.turn("notice");
                }
            }
            Ok(Notice::ScheduledChange { instances }) => {
                received("scheduled_change");
                warn!(?instances, "AWS has scheduled maintenance");
                self.acknowledge(delivery.handle);
            }
        }
    }

    pub(super) fn interrupted(&mut self, delivery: Delivery, id: InstanceId, at: Timestamp) {
        let known = self.instances.iter().find(|instance| instance.id == id).cloned();
        if let Some(instance) = known {
            return self.interrupt(delivery, &instance, at);
        }
        // Not seen yet, or not ours: EC2 is asked before anything is believed.
        self.unknown.push(Unknown { delivery, instance: id, at });
        self.look();
    }

    /// Asks EC2 about all instances that nobody knows, one question at a time.
    fn look(&mut self) {
        if self.looking || self.unknown.is_empty() {
            return;
        }
        self.looking = true;
        let (world, asked) = (Arc::clone(&self.context.world), std::mem::take(&mut self.unknown));
        self.spawn(async move { Event::Looked(asked, world.cloud().instances().await) });
    }

    pub(super) fn looked(&mut self, asked: Vec<Unknown>, answer: Result<Vec<Instance>, CloudError>) {
        self.looking = false;
        match answer {
            Ok(list) => asked.into_iter().for_each(|unknown| self.identify(unknown, &list)),
            Err(error) => warn!(%error, messages = asked.len(), "whose instances are interrupted cannot be told; the messages come again"),
        }
        self.look();
    }

    fn identify(&mut self, unknown: Unknown, list: &[Instance]) {
        let Unknown { delivery, instance: id, at } = unknown;
        match list.iter().find(|instance| instance.id == id) {
            Some(instance) => {
                info!(instance = %id, "an instance that was not in the latest list is interrupted");
                self.instances.push(instance.clone());
                self.interrupt(delivery, instance, at);
            }
            None => {
                self.context.world.telemetry().record(Measurement::NoticeReceived { kind: "foreign" });
                info!(instance = %id, "the notice is about an instance of somebody else and changes nothing");
                self.acknowledge(delivery.handle);
            }
        }
    }

    pub(super) fn interrupt(&mut self, delivery: Delivery, instance: &Instance, at: Timestamp) {
        let now = self.now();
        // A clock that is ahead of ours gives no instance a longer life.
        let at = at.min(now);
        // An old message is no warning any more, and an on-demand instance gets none.
        if !instance.counts() || instance.market != crate::model::Market::Spot || now.duration_since(at) > SPOT_NOTICE * 2 {
            info!(instance = %instance.id, %at, "the notice does not fit the instance and changes nothing");
            return self.acknowledge(delivery.handle);
        }
        let gone = |retire: &Retire| retire.order.instance.as_ref() == Some(&instance.id) && retire.state == RetireState::Done;
        if self.operations.values().any(|operation| matches!(operation, Operation::Retire(retire) if gone(retire))) {
            // The list of instances is older than the end of its retirement.
            return self.acknowledge(delivery.handle);
        }
        let reason = RetireReason::SpotInterruption { deadline: at + SPOT_NOTICE };
        let received = self.context.world.clock().monotonic();
        let open = self.operations.values().find_map(|operation| match operation {
            Operation::Retire(retire) if retire.order.instance.as_ref() == Some(&instance.id) && !operation.is_over() => Some(retire),
            Operation::Retire(_) | Operation::Launch(_) => None,
        });
        let receipt = (delivery.handle, received);
        if let Some(retire) = open {
            if retire.order.reason.is_voluntary() {
                self.amended.insert(retire.id.clone(), reason);
                self.amendments.send_modify(|number| *number = number.wrapping_add(1));
            }
            self.receipts.entry(retire.id.clone()).or_default().push(receipt);
            let operation = self.operations[&retire.id.clone()].clone();
            return self.settle_receipts(&operation);
        }
        let Some(grant) = self.grant.clone() else { return };
        let view = self.context.world.cluster().cached_view();
        let node = view.as_ref().and_then(|view| view.nodes.values().find(|node| node.instance.as_ref() == Some(&instance.id)));
        if node.is_some_and(|node| node.control_plane) {
            return self.acknowledge(receipt.0);
        }
        let operation = self.new_retire(
            RetireOrder {
                pool: instance.pool.clone().unwrap_or_default(),
                instance: Some(instance.id.clone()),
                node: node.map(|node| NodeRef { name: node.name.clone(), uid: node.uid.clone() }),
                zone: instance.zone.clone(),
                market: instance.market,
                reason,
                on_timeout: OnDrainTimeout::Force,
            },
            &grant,
        );
        self.receipts.entry(operation.id().clone()).or_default().push(receipt);
        self.adopt(operation, true);
        self.turn("notice");
    }

    /// Deletes the messages of an operation whose effect is in the journal.
    pub(super) fn settle_receipts(&mut self, operation: &Operation) {
        let Operation::Retire(retire) = operation else { return };
        if retire.state == RetireState::Journalled || self.amended.contains_key(&retire.id) {
            return;
        }
        for (handle, received) in self.receipts.remove(&retire.id).unwrap_or_default() {
            let took = self.context.world.clock().monotonic().since(received);
            self.context.world.telemetry().record(Measurement::NoticeToCordon { took });
            self.acknowledge(handle);
        }
    }

    pub(super) fn acknowledge(&self, handle: String) {
        let world = Arc::clone(&self.context.world);
        self.spawn(async move {
            if let Err(error) = world.notices().delete(&handle).await {
                warn!(%error, "the message could not be deleted; it comes again and changes nothing");
                world.telemetry().record(Measurement::PortFailed { port: "sqs", class: "delete" });
            }
            Event::Nothing
        });
    }
}
