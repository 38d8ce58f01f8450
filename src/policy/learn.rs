//! What the end of an operation teaches: offers that failed rest, nodes that did not drain are left alone.

use super::settings::{OfferRest, Settings};
use super::strays;
use crate::model::memory::{Incident, Memory, Rest, Succession};
use crate::model::offer::Quota;
use crate::model::operation::{LaunchFailure, LaunchState, RetireState};
use crate::model::plan::{LaunchReason, RetireReason};
use crate::model::{InstanceType, Launch, OfferKey, Operation, PoolName, Retire};
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long an incident is shown.
const INCIDENT_SHOWN: SignedDuration = SignedDuration::from_hours(1);
/// So long a node that was to be replaced and could not go stays where it is.
pub const GIVEN_UP: SignedDuration = SignedDuration::from_hours(24);
/// So many launches of a pool tell how long a boot takes.
const BOOTS_KEPT: usize = 20;
/// A launch that was begun so soon after the pool's last growth is that growth.
const SAME_TURN: SignedDuration = SignedDuration::from_secs(60);

/// Takes the end of an operation into account. `without_capacity` are offers that EC2 named as empty.
#[must_use]
pub fn learn(settings: &Settings, mut memory: Memory, operation: &Operation, without_capacity: &[OfferKey], now: Timestamp) -> Memory {
    for offer in without_capacity {
        rest(&settings.rest, &mut memory.offers, offer, "insufficient capacity", now);
    }
    match operation {
        Operation::Launch(launch) => learn_launch(settings, &mut memory, launch, without_capacity, now),
        Operation::Retire(retire) => match &retire.state {
            RetireState::RolledBack { reason } => learn_roll_back(settings, &mut memory, retire, reason, now),
            RetireState::Journalled
            | RetireState::Draining { .. }
            | RetireState::Drained { .. }
            | RetireState::Terminated
            | RetireState::RollingBack { .. } => {}
            RetireState::Done => {
                let taken_back = retire.order.instance.iter().filter(|_| retire.order.reason.is_interruption());
                memory.reclaimed.extend(taken_back.map(|id| (id.clone(), now)));
            }
        },
    }
    memory
}

fn learn_launch(settings: &Settings, memory: &mut Memory, launch: &Launch, without_capacity: &[OfferKey], now: Timestamp) {
    match &launch.state {
        LaunchState::Failed { failure } => {
            no_successor(settings, memory, launch, now);
            learn_failure(settings, memory, launch, failure, without_capacity, now);
        }
        LaunchState::Done { joined, never_joined, left } => {
            let key = |instance_type| OfferKey { instance_type, zone: launch.order.zone.clone(), market: launch.request.market };
            for instance in joined {
                let offer = key(instance.instance_type.clone());
                disprove(&mut memory.quotas, &offer.quota(), launch.created);
                disprove(&mut memory.offers, &offer, launch.created);
                let of_pool = (launch.order.pool.clone(), offer);
                disprove(&mut memory.pool_offers, &of_pool, launch.created);
                memory.never_joined_by_pool.remove(&of_pool);
            }
            if !joined.is_empty() && never_joined.is_empty() && left.is_empty() {
                let took = launch.updated.duration_since(launch.created).as_secs();
                let boots = &mut memory.pools.entry(launch.order.pool.clone()).or_default().boots;
                boots.extend(u32::try_from(took));
                boots.drain(..boots.len().saturating_sub(BOOTS_KEPT));
            }
            if joined.is_empty() {
                no_successor(settings, memory, launch, now);
            }
            // What EC2 took back while it booted says nothing about its offer.
            let failed = never_joined.iter().filter(|instance| !memory.reclaimed.contains_key(&instance.id)).chain(left);
            let joins = |instance_type: &InstanceType| joined.iter().any(|instance| instance.instance_type == *instance_type);
            let suspects: BTreeSet<&InstanceType> = failed.map(|instance| &instance.instance_type).filter(|it| !joins(it)).collect();
            for suspect in suspects {
                never_joined_again(&settings.rest, memory, &(launch.order.pool.clone(), key(suspect.clone())), now);
            }
        }
        LaunchState::Journalled | LaunchState::Joining { .. } => {}
    }
}

/// The node that was to be replaced is left alone for a while.
fn no_successor(settings: &Settings, memory: &mut Memory, launch: &Launch, now: Timestamp) {
    if let LaunchReason::Successor { node, .. } = &launch.order.reason
        && let Some(succession) = memory.successions.get_mut(node)
    {
        (succession.failed, succession.until) = (true, now + signed(settings.rest.longest));
    }
}

fn learn_failure(
    settings: &Settings,
    memory: &mut Memory,
    launch: &Launch,
    failure: &LaunchFailure,
    without_capacity: &[OfferKey],
    now: Timestamp,
) {
    match failure {
        LaunchFailure::InsufficientCapacity => {
            for offer in launch.offers().filter(|offer| !without_capacity.contains(offer)) {
                rest(&settings.rest, &mut memory.offers, &offer, "insufficient capacity", now);
            }
        }
        // What is wrong with a pool's template or subnet says nothing about the other pools.
        LaunchFailure::Refused { message } => rest_of_pool(&settings.rest, memory, launch, &format!("refused: {message}"), now),
        LaunchFailure::Unanswered { message } => {
            rest_of_pool(&settings.rest, memory, launch, &format!("EC2 did not answer: {message}"), now);
        }
        LaunchFailure::Quota { message } => {
            let reached: BTreeSet<Quota> = launch.offers().map(|offer| offer.quota()).collect();
            for quota in reached {
                let failures = memory.quotas.get(&quota).map_or(0, |rest| rest.failures).saturating_add(1);
                let until = now + pause(&settings.rest, failures);
                let why = format!("account limit: {message}");
                memory.quotas.insert(quota, Rest { until, failures, since: now, why, stopped: false });
            }
        }
        LaunchFailure::TokenMismatch => {
            let text = format!("the client token {} was used for something else; nothing was launched with it", launch.id);
            memory.incidents.insert("token_mismatch".into(), Incident { text, until: now + INCIDENT_SHOWN });
        }
        LaunchFailure::Busy { .. } => {}
    }
    // What was not bought is no reason to wait before another offer is tried.
    if let (LaunchReason::Rule { .. }, Some(pool)) = (&launch.order.reason, memory.pools.get_mut(&launch.order.pool)) {
        let own = |up: &Timestamp| launch.created.duration_since(*up).abs() <= SAME_TURN;
        pool.last_up = pool.last_up.filter(|up| !own(up));
        pool.last_rule_up = pool.last_rule_up.filter(|up| !own(up));
    }
}

fn learn_roll_back(settings: &Settings, memory: &mut Memory, retire: &Retire, reason: &str, now: Timestamp) {
    if let Some(node) = &retire.order.node {
        memory.resting_nodes.insert(node.name.clone(), now + signed(settings.rest.node));
    }
    if let (RetireReason::Replaced { cause, evidence }, Some(node)) = (&retire.order.reason, &retire.order.node) {
        // Its successor is there for nothing; another one would be, too.
        let (pool, until) = (retire.order.pool.clone(), now + GIVEN_UP);
        let succession = Succession { pool, cause: *cause, evidence: evidence.clone(), since: now, failed: true, until };
        memory.successions.insert(node.name.clone(), succession);
    }
    match retire.order.reason {
        RetireReason::Underused { .. }
        | RetireReason::Consolidated { .. }
        | RetireReason::Replaced { .. }
        | RetireReason::AboveMaximum
        | RetireReason::SpotInterruption { .. } => {
            let node = retire.order.node.as_ref().map(|node| node.name.to_string()).unwrap_or_default();
            let text = format!("the removal of node {node} was rolled back: {reason}");
            memory.incidents.insert("drain_failed".into(), Incident { text, until: now + INCIDENT_SHOWN });
        }
        // It is looked at again after another time of grace.
        RetireReason::NeverJoined | RetireReason::Leaked | RetireReason::InstanceGone | RetireReason::Unhealthy { .. } => {
            if let Some(key) = strays::key(&retire.order) {
                memory.strays.insert(key.clone(), now);
                let text = format!("{key} is not accounted for and is left alone: {reason}");
                memory.incidents.insert("stray_left_alone".into(), Incident { text, until: now + INCIDENT_SHOWN });
            }
        }
    }
}

fn never_joined_again(settings: &OfferRest, memory: &mut Memory, offer: &(PoolName, OfferKey), now: Timestamp) {
    let failures = memory.never_joined_by_pool.entry(offer.clone()).or_default();
    *failures = failures.saturating_add(1);
    let failures = *failures;
    rest(settings, &mut memory.pool_offers, offer, "its instances never joined", now);
    if failures >= settings.stop_after_never_joined
        && let Some(entry) = memory.pool_offers.get_mut(offer)
    {
        entry.until = now + signed(settings.stopped);
        entry.why = format!("{failures} launches in a row never joined");
        entry.stopped = true;
    }
}

/// Lets the offers of a launch rest for its pool.
fn rest_of_pool(settings: &OfferRest, memory: &mut Memory, launch: &Launch, why: &str, now: Timestamp) {
    for offer in launch.offers() {
        rest(settings, &mut memory.pool_offers, &(launch.order.pool.clone(), offer), why, now);
    }
}

/// Ends a rest, since an instance has joined whose launch was begun at `asked`.
///
/// What failed after that moment is younger evidence: EC2 had one instance then, and may have none since. Only a stop,
/// which says that instances do not join, ends with any that does.
fn disprove<K: Ord>(rests: &mut BTreeMap<K, Rest>, key: &K, asked: Timestamp) {
    if rests.get(key).is_some_and(|rest| rest.stopped || rest.since <= asked) {
        rests.remove(key);
    }
}

/// Lets an offer rest, longer with each failure in a row.
fn rest<K: Ord + Clone>(settings: &OfferRest, rests: &mut BTreeMap<K, Rest>, offer: &K, why: &str, now: Timestamp) {
    let failures = rests.get(offer).map_or(0, |rest| rest.failures).saturating_add(1);
    let until = now + pause(settings, failures);
    // A stop outlasts what fails besides.
    if let Some(stopped) = rests.get_mut(offer).filter(|rest| rest.stopped && rest.until > until) {
        (stopped.failures, stopped.since) = (failures, now);
        return;
    }
    rests.insert(offer.clone(), Rest { until, failures, since: now, why: why.to_owned(), stopped: false });
}

/// The first pause, doubled with each further failure, up to the longest.
fn pause(settings: &OfferRest, failures: u32) -> SignedDuration {
    signed(settings.first.saturating_mul(1 << (failures.saturating_sub(1)).min(16)).min(settings.longest))
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
