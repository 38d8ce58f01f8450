//! Sends figures to CloudWatch: how the fleet stands, once an interval, and what happens, when it does.
//!
//! Each figure carries the time at which it was true, so that an outage of CloudWatch loses nothing for an hour
//! ([`LONGEST_KEPT`], [`KEPT`]); what is older is dropped and counted. Only the leader's figures are sent. Between two
//! turns the fleet stands as the latest plan found it, so that alarms see no gap; a plan that no turn has followed for
//! [`INTERVALS`] says nothing any more, and without a turn for so long the heartbeat ceases. What is not known is not
//! sent, and neither is a zero of what is counted: each name costs by the hour in which it is used.
//!
//! `PutMetricData` knows no token: a call whose answer was lost is repeated, so sums may count what happened twice. That
//! no alarm heard of it would be worse. How the fleet stands is repeated as the same value for the same time, which
//! alarms on a period's least and greatest do not notice, and those on its mean hardly.

use super::leads;
use super::outlets::{Line, Next, bounded, stopped, unheard};
use crate::control::status::Status;
use crate::model::happening::Milestone;
use crate::model::{Happening, Plan, PoolReport, What};
use crate::ports::outlets::{DATA_AT_ONCE, Datum, Unit};
use crate::ports::{Clock, Entropy, MetricStore, Telemetry};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior};

/// A figure's name and unit.
type Metric = (&'static str, Unit);

/// Every figure there is, with the dimension `Cluster`. Those of [`BY_POOL`] also come with `Cluster` and `Pool`.
pub const METRICS: [Metric; 12] = [
    CURRENT_NODE_COUNT,
    CLUSTER_CPU,
    CLUSTER_MEMORY,
    PENDING_PODS,
    SCALE_UPS,
    SCALE_DOWNS,
    FAILURES,
    JOIN_LATENCY,
    COST,
    SPOT_SHARE,
    HEARTBEAT,
    INTERRUPTIONS,
];
/// Those that come for each pool as well.
pub const BY_POOL: [Metric; 4] = [CURRENT_NODE_COUNT, CLUSTER_CPU, CLUSTER_MEMORY, COST];
/// The dimension of every figure.
pub const CLUSTER: &str = "Cluster";
/// The second dimension of a pool's.
pub const POOL: &str = "Pool";

const CURRENT_NODE_COUNT: Metric = ("CurrentNodeCount", Unit::Count);
const CLUSTER_CPU: Metric = ("ClusterCPUUtilization", Unit::Percent);
const CLUSTER_MEMORY: Metric = ("ClusterMemoryUtilization", Unit::Percent);
const PENDING_PODS: Metric = ("PendingPods", Unit::Count);
const SCALE_UPS: Metric = ("ScaleUpEvents", Unit::Count);
const SCALE_DOWNS: Metric = ("ScaleDownEvents", Unit::Count);
const FAILURES: Metric = ("ScalingFailures", Unit::Count);
const JOIN_LATENCY: Metric = ("NodeJoinLatency", Unit::Seconds);
/// Dollars per hour, by list prices.
const COST: Metric = ("CostEstimates", Unit::None);
const SPOT_SHARE: Metric = ("SpotShare", Unit::Percent);
const HEARTBEAT: Metric = ("Heartbeat", Unit::Count);
const INTERRUPTIONS: Metric = ("SpotInterruptions", Unit::Count);

/// How many figures wait at most: an hour of ten pools, twice a minute.
pub const KEPT: usize = 6000;
/// Between two calls: a single happening does not become a call of its own when others follow it.
const PACE: Duration = Duration::from_secs(1);
/// No figure waits longer.
pub const LONGEST_KEPT: SignedDuration = SignedDuration::from_hours(1);

/// The loop hangs when it has made no turn for so many evaluation intervals, as `/healthz` has it.
pub const INTERVALS: u32 = 3;
/// A turn waits for its sources: it may take so long however short the interval is.
const LONGEST_TURN: Duration = Duration::from_mins(1);

/// Gives how the fleet stands; nothing on a standby, nor where the latest turn is longer ago than `patience`.
#[must_use]
pub fn standing(status: &Status, at: Timestamp, patience: Duration) -> Vec<Datum> {
    let is_late = |then: Timestamp| SignedDuration::try_from(patience).is_ok_and(|patience| at.duration_since(then) > patience);
    if !leads(status) || status.last_turn.is_none_or(is_late) {
        return Vec::new();
    }
    let datum = |(name, unit): Metric, pool: Option<&PoolReport>, value: f64| Datum {
        name,
        unit,
        pool: pool.map(|report| report.pool.clone()),
        at,
        value,
    };
    let mut data = vec![datum(HEARTBEAT, None, 1.0)];
    // Where a turn makes no plan, or Kubernetes or EC2 does not answer, nobody knows how it stands.
    let is_old = status.decisions.front().is_none_or(|latest| is_late(latest.at));
    let Some(plan) = status.plan.as_deref().filter(|plan| !is_old && !plan.pools.is_empty()) else { return data };
    let nodes: u32 = plan.pools.iter().map(|report| report.owned).sum();
    data.push(datum(CURRENT_NODE_COUNT, None, f64::from(nodes)));
    // Those that no node could take would keep the alarm on for ever.
    data.push(datum(PENDING_PODS, None, f64::from(plan.pending.saturating_sub(plan.unplaceable_pods))));
    data.push(datum(COST, None, plan.pools.iter().map(|report| report.price.dollars()).sum()));
    if nodes > 0 {
        let spot: u32 = plan.pools.iter().map(|report| report.spot).sum();
        data.push(datum(SPOT_SHARE, None, 100.0 * f64::from(spot) / f64::from(nodes)));
    }
    for (metric, share) in [(CLUSTER_CPU, (|report| report.cpu) as Share), (CLUSTER_MEMORY, |report| report.memory)] {
        data.extend(mean(plan, share).map(|share| datum(metric, None, 100.0 * share)));
        data.extend(plan.pools.iter().filter_map(|report| Some(datum(metric, Some(report), 100.0 * share(report)?))));
    }
    for report in &plan.pools {
        data.push(datum(CURRENT_NODE_COUNT, Some(report), f64::from(report.owned)));
        data.push(datum(COST, Some(report), report.price.dollars()));
    }
    // CloudWatch refuses a whole call for one of these.
    data.retain(|datum| datum.value.is_finite());
    data
}

type Share = fn(&PoolReport) -> Option<f64>;

/// Gives the mean over all Ready nodes; `None` where a pool that has some does not know its own.
fn mean(plan: &Plan, share: Share) -> Option<f64> {
    let mut sum = 0.0;
    let mut nodes = 0.0;
    for report in plan.pools.iter().filter(|report| report.ready > 0) {
        sum += share(report)? * f64::from(report.ready);
        nodes += f64::from(report.ready);
    }
    (nodes > 0.0).then(|| sum / nodes)
}

/// Gives the figures of something that has happened.
#[must_use]
pub fn figures(happening: &Happening) -> Vec<Datum> {
    let one = |(name, unit): Metric, value: f64| Datum { name, unit, pool: None, at: happening.at, value };
    match &happening.what {
        What::Moved { operation, begins, .. } => match Milestone::of(operation, *begins) {
            Milestone::Launched => vec![one(SCALE_UPS, 1.0)],
            Milestone::LaunchFailed | Milestone::RolledBack => vec![one(FAILURES, 1.0)],
            Milestone::Left => vec![one(SCALE_DOWNS, 1.0)],
            Milestone::Interrupted => vec![one(INTERRUPTIONS, 1.0)],
            Milestone::Arrived | Milestone::Leaves | Milestone::Step => Vec::new(),
        },
        What::Joined { took, .. } => vec![one(JOIN_LATENCY, took.as_secs_f64())],
        What::TookOver { .. }
        | What::Paused { .. }
        | What::Resumed { .. }
        | What::Waiting { .. }
        | What::Alerted { .. }
        | What::Refused { .. } => Vec::new(),
    }
}

/// What reaches the sender.
pub struct Sources {
    /// What happens.
    pub happenings: broadcast::Receiver<Arc<Happening>>,
    /// How the fleet stands.
    pub status: watch::Receiver<Arc<Status>>,
    /// Set when the daemon is to end and the loop has ended.
    pub stop: watch::Receiver<bool>,
}

/// Sends every `interval` until it is stopped. A turn is made every `evaluation`. What waits at the end is sent while that
/// works; the rest is lost, and counted.
pub async fn keep<S: MetricStore, K: Clock + Entropy, T: Telemetry>(
    interval: Duration,
    evaluation: Duration,
    store: S,
    world: K,
    mut line: Line<T>,
    mut sources: Sources,
) {
    let patience = evaluation.saturating_mul(INTERVALS).max(LONGEST_TURN);
    let mut waiting: VecDeque<Datum> = VecDeque::new();
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut not_before = Instant::now();
    let stop = sources.stop.clone();
    let work = async {
        loop {
            tokio::select! {
                biased;
                () = stopped(&mut sources.stop) => break,
                heard = sources.happenings.recv() => match heard {
                    Ok(happening) => waiting.extend(figures(&happening)),
                    Err(RecvError::Lagged(number)) => line.dropped(usize::try_from(number).unwrap_or(usize::MAX)),
                    Err(RecvError::Closed) => break,
                },
                _ = ticks.tick() => waiting.extend(standing(&sources.status.borrow(), world.now(), patience)),
                () = tokio::time::sleep_until(not_before), if !waiting.is_empty() => {
                    line.dropped(forget(&mut waiting, world.now()));
                    not_before = Instant::now() + send(&mut waiting, &store, &world, &mut line).await;
                }
            }
            line.dropped(forget(&mut waiting, world.now()));
        }
        hear_rest(&mut sources.happenings, &mut waiting, &line);
        while !waiting.is_empty() {
            send(&mut waiting, &store, &world, &mut line).await;
            if !line.works() {
                break;
            }
        }
    };
    bounded(stop, work).await;
    // What came while the last call hung is counted, too.
    hear_rest(&mut sources.happenings, &mut waiting, &line);
    line.dropped(waiting.len());
}

/// Takes what has been told already.
fn hear_rest<T: Telemetry>(happenings: &mut broadcast::Receiver<Arc<Happening>>, waiting: &mut VecDeque<Datum>, line: &Line<T>) {
    let (rest, lost) = unheard(happenings);
    line.dropped(usize::try_from(lost).unwrap_or(usize::MAX));
    waiting.extend(rest.iter().flat_map(|happening| figures(happening)));
}

/// Forgets what is too old or too much, oldest first, and gives how much that was.
fn forget(waiting: &mut VecDeque<Datum>, now: Timestamp) -> usize {
    let before = waiting.len();
    waiting.drain(..before.saturating_sub(KEPT));
    while waiting.front().is_some_and(|datum| now.duration_since(datum.at) > LONGEST_KEPT) {
        waiting.pop_front();
    }
    before - waiting.len()
}

/// Sends the oldest figures, and gives how long to wait before the next ones.
async fn send<S: MetricStore, K: Entropy, T: Telemetry>(
    waiting: &mut VecDeque<Datum>,
    store: &S,
    world: &K,
    line: &mut Line<T>,
) -> Duration {
    let batch: Vec<Datum> = waiting.iter().take(DATA_AT_ONCE).cloned().collect();
    match store.put(&batch).await {
        Ok(()) => {
            waiting.drain(..batch.len());
            line.sent(batch.len());
            PACE
        }
        Err(error) => match line.failed(&error, batch.len(), world.fraction()) {
            Next::Wait(pause) => pause,
            Next::Drop => {
                waiting.drain(..batch.len());
                PACE
            }
        },
    }
}

#[cfg(test)]
mod tests;
