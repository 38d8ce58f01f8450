//! Drives one operation by one step: an effect, then the journal.
//!
//! Steps are repeatable. Whoever holds the lease may run any step again, from the journal alone.

use super::lease::{Fence, Fenced};
use super::settings::Settings;
use super::{launch, retire};
use crate::model::operation::RetireState;
use crate::model::{InstanceId, InstanceState, OfferKey, Operation, OperationId};
use crate::ports::{
    Clock, Cloud, CloudError, Cluster, ClusterError, Entropy, Grant, Ledger, LedgerError, Measurement, Monotonic, Telemetry, World,
};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// What a step needs.
pub struct Context<W: World> {
    /// The world.
    pub world: Arc<W>,
    /// The lease.
    pub fence: Fence,
    /// Deadlines.
    pub settings: Arc<Settings>,
    /// Changes when an operation that is being driven gets another reason.
    pub amended: watch::Receiver<u64>,
}

impl<W: World> Clone for Context<W> {
    fn clone(&self) -> Self {
        let Self { world, fence, settings, amended } = self;
        Self { world: Arc::clone(world), fence: fence.clone(), settings: Arc::clone(settings), amended: amended.clone() }
    }
}

/// Why a step did not get through.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StepError {
    /// The lease does not allow it.
    #[error(transparent)]
    Fenced(#[from] Fenced),
    /// The journal.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Kubernetes.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// EC2.
    #[error(transparent)]
    Cloud(#[from] CloudError),
    /// What the step needs to know is not known.
    #[error("{0}")]
    Blind(String),
}

impl StepError {
    /// Counts the failure of the port that it is about.
    pub fn count<W: World>(&self, context: &Context<W>) {
        if let Some(measurement) = self.measurement() {
            context.world.telemetry().record(measurement);
        }
    }

    fn measurement(&self) -> Option<Measurement> {
        let (port, class) = match self {
            Self::Fenced(_) | Self::Blind(_) => return None,
            Self::Ledger(error) => ("dynamodb", error.class()),
            Self::Cluster(error) => ("kubernetes", error.class()),
            Self::Cloud(error) => ("ec2", error.class()),
        };
        Some(Measurement::PortFailed { port, class })
    }
}

/// What an operation is driven with, besides itself.
#[derive(Clone, Debug)]
pub struct Drive {
    /// The operation, as it is to be after the journal's next write.
    pub operation: Operation,
    /// It is not in the journal yet.
    pub fresh: bool,
    /// Steps in a row that failed.
    pub failures: u32,
    /// Offers that EC2 has named as empty, until the journal has the answer.
    pub without_capacity: Vec<OfferKey>,
    /// When this process first saw the operation in its state, a drain with its end being one. Deadlines
    /// count from here: neither a clock that is set nor a time without a leader uses them up.
    pub entered: Monotonic,
}

impl Drive {
    /// Begins to drive an operation. `fresh` says that the journal does not have it yet.
    pub fn new(operation: Operation, fresh: bool, now: Monotonic) -> Self {
        Self { operation, fresh, failures: 0, without_capacity: Vec::new(), entered: now }
    }

    fn enter(&mut self, operation: Operation, now: Monotonic) {
        let drains = |operation: &Operation| match operation {
            Operation::Retire(retire) => matches!(retire.state, RetireState::Draining { .. } | RetireState::Drained { .. }),
            Operation::Launch(_) => false,
        };
        let same = operation.state_name() == self.operation.state_name() || (drains(&operation) && drains(&self.operation));
        if !same {
            self.entered = now;
        }
        self.operation = operation;
    }
}

/// What a step brought.
pub struct Stepped {
    /// The operation, with its failures so far.
    pub drive: Drive,
    /// Offers that EC2 named as empty.
    pub without_capacity: Vec<OfferKey>,
    /// The lease is gone: nothing more is to be done with it here.
    pub lost: bool,
}

/// What follows a step.
pub enum Next {
    /// A new state, which the journal has to hear of.
    State(Box<Operation>, Vec<OfferKey>),
    /// Nothing yet; look again when something changes.
    Wait,
    /// Nothing yet, and what it waits for is seldom heard of: look again after a while.
    Pause,
}

/// The log's target for every request that changes something, at the level `debug`.
pub const CALLS: &str = "node_fleet::calls";
/// How many times the pause before a retry it takes until what [`Next::Pause`] waits for is looked at again.
const SELDOM: u32 = 5;
/// The longest pause between two tries of a step.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Runs the operation's next step, after a pause where the last one failed or waits.
pub async fn step<W: World>(context: Context<W>, mut drive: Drive) -> Stepped {
    let mut amended = context.amended.clone();
    let lost = match attempt(&context, &mut drive, &mut amended).await {
        Ok(()) => {
            drive.failures = 0;
            false
        }
        Err(StepError::Ledger(LedgerError::LeaseLost)) => true,
        Err(error) => {
            error.count(&context);
            drive.failures = drive.failures.saturating_add(1);
            warn!(operation = %drive.operation.id(), state = drive.operation.state_name(), failures = drive.failures, %error, "the step failed and is tried again");
            let pause = pause(context.settings.operations.retry, drive.failures, context.world.entropy().fraction());
            let pause = pause.min(time_left(&drive.operation, context.world.clock().now(), context.settings.operations.retry));
            sleep_unless(&mut amended, pause).await;
            false
        }
    };
    let without_capacity = if drive.fresh { Vec::new() } else { std::mem::take(&mut drive.without_capacity) };
    Stepped { drive, without_capacity, lost }
}

/// Sleeps, but not over an order's new reason.
async fn sleep_unless(amended: &mut watch::Receiver<u64>, pause: Duration) {
    tokio::select! {
        biased;
        Ok(()) = amended.changed() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

/// Gives half the time that is left until EC2 takes the operation's instance back: a pause is not longer.
fn time_left(operation: &Operation, now: Timestamp, retry: Duration) -> Duration {
    let deadline = match operation {
        Operation::Retire(retire) => retire.order.reason.deadline(),
        Operation::Launch(_) => None,
    };
    deadline.map_or(Duration::MAX, |deadline| (Duration::try_from(deadline.duration_since(now)).unwrap_or_default() / 2).max(retry))
}

async fn attempt<W: World>(context: &Context<W>, drive: &mut Drive, amended: &mut watch::Receiver<u64>) -> Result<(), StepError> {
    if drive.fresh {
        if let Operation::Launch(operation) = &drive.operation
            && let Some(outdated) = launch::outdated(context, operation)
        {
            drive.operation = outdated;
        }
        journal(context, &drive.operation).await?;
        drive.fresh = false;
    }
    let spent = context.world.clock().monotonic().since(drive.entered);
    let next = match &drive.operation {
        Operation::Launch(operation) => launch::advance(context, operation, spent, drive.failures == 0).await?,
        Operation::Retire(operation) => retire::advance(context, operation, spent).await?,
    };
    match next {
        Next::State(operation, empty) => {
            drive.without_capacity = empty;
            drive.enter(*operation, context.world.clock().monotonic());
            // Should the write fail, the effect is repeated from the state that the journal knows:
            // effects are idempotent, and this copy carries on with the write alone.
            drive.fresh = true;
            journal(context, &drive.operation).await?;
            drive.fresh = false;
        }
        Next::Pause => sleep_unless(amended, context.settings.operations.retry * SELDOM).await,
        Next::Wait => {
            tokio::select! {
                biased;
                () = context.world.cluster().changed() => {
                    // A change seldom comes alone.
                    tokio::time::sleep(context.settings.operations.retry / 4).await;
                }
                () = tokio::time::sleep(context.settings.operations.retry) => {}
            }
        }
    }
    Ok(())
}

async fn journal<W: World>(context: &Context<W>, operation: &Operation) -> Result<(), StepError> {
    let grant = permit(context, operation.id(), "record")?;
    context.world.ledger().record(&grant, operation).await?;
    info!(operation = %operation.id(), pool = %operation.pool(), state = operation.state_name(), epoch = %grant.epoch, "journalled");
    Ok(())
}

/// Asks the lease for one request that changes something; all of them come by here.
///
/// # Errors
/// When it does not outlast the request.
pub fn permit<W: World>(context: &Context<W>, operation: &OperationId, call: &'static str) -> Result<Grant, StepError> {
    let grant = context.fence.permit(context.world.clock(), context.settings.operations.request_timeout)?;
    debug!(target: CALLS, %operation, call, epoch = %grant.epoch, "permitted");
    Ok(grant)
}

/// Sends a request to Kubernetes if the lease outlasts it, and gives it up before the lease could end.
///
/// # Errors
/// When the lease does not outlast the request.
pub async fn fenced<W: World, T>(
    context: &Context<W>,
    operation: &OperationId,
    call: &'static str,
    request: impl Future<Output = Result<T, ClusterError>>,
) -> Result<Result<T, ClusterError>, StepError> {
    permit(context, operation, call)?;
    let limit = context.settings.operations.request_timeout;
    let gave_up = |_| Err(ClusterError::Unavailable { call, why: format!("no answer within {limit:?}") });
    Ok(tokio::time::timeout(limit, request).await.unwrap_or_else(gave_up))
}

/// What became of an instance that was to be terminated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Termination {
    /// It ends.
    Ends,
    /// It had gone already.
    Gone,
    /// It lives, without the tags that make it ours: it is left alone.
    NotOurs,
}

/// Tells whether an instance lives without the tags that make it ours.
///
/// # Errors
/// When EC2 does not answer.
pub async fn is_foreign<W: World>(context: &Context<W>, instance: &InstanceId) -> Result<bool, StepError> {
    let sight = context.world.cloud().look(instance).await?;
    Ok(sight.is_some_and(|sight| !sight.ours && sight.state != InstanceState::Ending))
}

/// Terminates an instance, unless a look at it right before shows that it is no longer ours.
///
/// # Errors
/// When EC2 does not answer or refuses, when only a part of EC2 knows the instance yet, or when the lease does not allow it.
pub async fn terminate<W: World>(context: &Context<W>, operation: &OperationId, instance: &InstanceId) -> Result<Termination, StepError> {
    if is_foreign(context, instance).await? {
        warn!(%operation, %instance, "the instance has lost the tags of node-fleet and is left alone");
        return Ok(Termination::NotOurs);
    }
    permit(context, operation, "terminate")?;
    match context.world.cloud().terminate(instance).await {
        Ok(()) => Ok(Termination::Ends),
        Err(CloudError::NotFound { .. }) if is_gone(context, instance).await? => Ok(Termination::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether an instance that EC2 does not know is gone, and not so young that only a part of EC2 knows it.
///
/// # Errors
/// When EC2 does not answer.
pub async fn is_gone<W: World>(context: &Context<W>, instance: &InstanceId) -> Result<bool, StepError> {
    if context.world.cloud().look(instance).await?.is_some() {
        return Ok(false);
    }
    let listed = context.world.cloud().instances().await?;
    Ok(!listed.iter().any(|known| known.id == *instance && known.counts()))
}

/// Doubles the pause with each failure, up to a bound. `fraction` draws it from the upper half, so that those who failed
/// together do not come back together.
pub(super) fn pause(retry: Duration, failures: u32, fraction: f64) -> Duration {
    let longest = retry.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + fraction / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::Epoch;
    use crate::model::plan::{OnDrainTimeout, RetireReason};
    use crate::model::{Market, Retire, RetireOrder};

    fn retirement(state: RetireState) -> Operation {
        Operation::Retire(Retire {
            id: "o-1".into(),
            epoch: Epoch(1),
            created: Timestamp::UNIX_EPOCH,
            updated: Timestamp::UNIX_EPOCH,
            order: RetireOrder {
                pool: "workers".into(),
                zone: "a".into(),
                market: Market::Spot,
                node: None,
                instance: None,
                reason: RetireReason::AboveMaximum,
                on_timeout: OnDrainTimeout::Force,
            },
            state,
        })
    }

    #[test]
    fn a_pause_doubles_up_to_its_bound_and_is_drawn_from_the_upper_half() {
        let pauses = |fraction| [0, 1, 2, 3, 40].map(|failures| pause(Duration::from_secs(1), failures, fraction).as_millis());
        assert_eq!(pauses(1.0), [1_000, 2_000, 4_000, 8_000, 30_000]);
        assert_eq!(pauses(0.0), [500, 1_000, 2_000, 4_000, 15_000]);
        assert_eq!(pauses(0.5)[1], 1_500);
    }

    #[test]
    fn a_pause_takes_half_the_time_that_ec2_leaves_at_most() {
        let second = |second| Timestamp::from_second(second).expect("a time");
        let mut operation = retirement(RetireState::Journalled);
        let left = |operation: &Operation, now| time_left(operation, second(now), Duration::from_secs(1));
        assert_eq!(left(&operation, 0), Duration::MAX, "nothing presses");
        if let Operation::Retire(retire) = &mut operation {
            retire.order.reason = RetireReason::SpotInterruption { deadline: second(120) };
        }
        assert_eq!([0, 100, 119, 200].map(|now| left(&operation, now).as_secs()), [60, 10, 1, 1]);
    }

    #[test]
    fn a_deadline_counts_from_the_state_and_a_drain_with_its_end_is_one() {
        let at = |seconds| Monotonic(Duration::from_secs(seconds));
        let draining = || retirement(RetireState::Draining { since: Timestamp::UNIX_EPOCH });
        let drained = || retirement(RetireState::Drained { forced: 0 });
        let mut drive = Drive::new(retirement(RetireState::Journalled), false, at(0));
        let steps = [
            (retirement(RetireState::Journalled), 0),
            (draining(), 2),
            (draining(), 2),
            (drained(), 2),
            (retirement(RetireState::Terminated), 5),
            (retirement(RetireState::Terminated), 5),
        ];
        for (second, (operation, since)) in (1..).zip(steps) {
            drive.enter(operation.clone(), at(second));
            assert_eq!((&drive.operation, drive.entered), (&operation, at(since)), "at {second}");
        }
    }
}
