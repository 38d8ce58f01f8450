//! What the end of an operation teaches: offers that failed rest, nodes that did not drain are left alone.

use super::settings::{OfferRest, Settings};
use crate::model::memory::{Memory, Rest};
use crate::model::operation::{LaunchFailure, LaunchState, RetireState};
use crate::model::{Launch, OfferKey, Operation};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Takes the end of an operation into account. `without_capacity` are offers that EC2 named as empty.
#[must_use]
pub fn learn(settings: &Settings, mut memory: Memory, operation: &Operation, without_capacity: &[OfferKey], now: Timestamp) -> Memory {
    for offer in without_capacity {
        rest(&settings.rest, &mut memory, offer, "insufficient capacity", now);
    }
    match operation {
        Operation::Launch(launch) => learn_launch(settings, &mut memory, launch, without_capacity, now),
        Operation::Retire(retire) => match (&retire.state, &retire.order.node) {
            (RetireState::RolledBack { .. }, Some(node)) => {
                memory.resting_nodes.insert(node.name.clone(), now + signed(settings.rest.node));
            }
            (
                RetireState::Journalled
                | RetireState::Draining { .. }
                | RetireState::Drained { .. }
                | RetireState::Terminated
                | RetireState::RollingBack { .. }
                | RetireState::Done
                | RetireState::RolledBack { .. },
                _,
            ) => {}
        },
    }
    memory
}

fn learn_launch(settings: &Settings, memory: &mut Memory, launch: &Launch, without_capacity: &[OfferKey], now: Timestamp) {
    match &launch.state {
        LaunchState::Failed { failure } => {
            let why = match failure {
                LaunchFailure::InsufficientCapacity => "insufficient capacity".to_owned(),
                LaunchFailure::Quota { message } => format!("account limit: {message}"),
                LaunchFailure::TokenMismatch => "the client token was used otherwise".to_owned(),
                LaunchFailure::Refused { message } => format!("refused: {message}"),
            };
            for offer in launch.offers().filter(|offer| !without_capacity.contains(offer)) {
                rest(&settings.rest, memory, &offer, &why, now);
            }
        }
        LaunchState::Done { joined, never_joined } => {
            let key = |instance_type| OfferKey { instance_type, zone: launch.order.zone.clone(), market: launch.request.market };
            for instance in joined {
                let offer = key(instance.instance_type.clone());
                memory.offers.remove(&offer);
                memory.never_joined.remove(&offer);
            }
            // The types of instances that never joined are not kept apart: all types of the order are suspect.
            if !never_joined.is_empty() && joined.is_empty() {
                for offer in launch.offers() {
                    never_joined_again(&settings.rest, memory, &offer, now);
                }
            }
        }
        LaunchState::Journalled | LaunchState::Joining { .. } => {}
    }
}

fn never_joined_again(settings: &OfferRest, memory: &mut Memory, offer: &OfferKey, now: Timestamp) {
    let failures = memory.never_joined.entry(offer.clone()).or_default();
    *failures = failures.saturating_add(1);
    let failures = *failures;
    rest(settings, memory, offer, "its instances never joined", now);
    if failures >= settings.stop_after_never_joined
        && let Some(entry) = memory.offers.get_mut(offer)
    {
        entry.until = None;
        entry.why = format!("{failures} launches in a row never joined");
    }
}

/// Lets an offer rest: the first pause, doubled with each failure in a row, up to the longest.
fn rest(settings: &OfferRest, memory: &mut Memory, offer: &OfferKey, why: &str, now: Timestamp) {
    let failures = memory.offers.get(offer).map_or(0, |rest| rest.failures).saturating_add(1);
    let pause = settings.first.saturating_mul(1 << (failures - 1).min(16)).min(settings.longest);
    memory.offers.insert(offer.clone(), Rest { until: Some(now + signed(pause)), failures, why: why.to_owned() });
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
