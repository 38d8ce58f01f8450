//! The retirement: revalidate, cordon, evict, terminate, remove the node's object.

use super::driver::{Context, Next, StepError, permit};
use crate::model::instance::InstanceState;
use crate::model::operation::RetireState;
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireReason};
use crate::model::{Operation, Pod, Retire};
use crate::policy;
use crate::ports::{Clock, Cloud, Cluster, ClusterError, Cordon, Eviction, NodeState, World};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;
use tracing::{info, warn};

/// Why a removal for economy ends where its node's object has gone or changed: whether pods run there cannot be told.
const LOST_SIGHT: &str = "the node is gone, or another has its name";

/// Makes the retirement's next step.
///
/// # Errors
/// When a port fails or the lease does not allow the step; the same step is then tried again.
pub async fn advance<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    match &retire.state {
        RetireState::Journalled => begin(context, retire).await,
        RetireState::Draining { since } => drain(context, retire, *since).await,
        RetireState::Drained { forced } => terminate(context, retire, *forced).await,
        RetireState::Terminated => remove(context, retire).await,
        RetireState::RollingBack { reason } => roll_back(context, retire, reason).await,
        RetireState::Done | RetireState::RolledBack { .. } => Ok(Next::Wait),
    }
}

/// Looks at the node past every cache, and takes it out of service if it is still the one that was meant.
async fn begin<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    let Some(node) = &retire.order.node else { return without_node(context, retire).await };
    let Some(found) = context.world.cluster().read_node(&node.name).await? else {
        return Ok(match &retire.order.instance {
            Some(_) if !retire.order.reason.is_voluntary() => state(context, retire, RetireState::Drained { forced: 0 }),
            Some(_) => rolled_back(context, retire, "the node is gone"),
            None => state(context, retire, RetireState::Done),
        });
    };
    if let Some(reason) = objection(context, retire, node, &found) {
        // A predecessor may have cordoned it and ended before the journal knew.
        let touched = found.node.cordoned_by.as_deref() == Some(retire.id.as_str());
        return Ok(if touched {
            state(context, retire, RetireState::RollingBack { reason })
        } else {
            rolled_back(context, retire, &reason)
        });
    }
    if retire.order.instance.is_none() {
        return node_object_alone(context, retire, &found).await;
    }
    permit(context)?;
    let interrupted = matches!(retire.order.reason, RetireReason::SpotInterruption { .. });
    match context.world.cluster().cordon(node, &Cordon { operation: retire.id.clone(), taint: interrupted }).await {
        Ok(()) => {}
        Err(ClusterError::Gone { .. }) => return Ok(Next::Wait),
        Err(error) => return Err(error.into()),
    }
    info!(operation = %retire.id, node = %node.name, reason = %retire.order.reason, "cordoned");
    Ok(state(context, retire, RetireState::Draining { since: context.world.clock().now() }))
}

/// An instance that is no node: nothing to drain, if it still is none.
async fn without_node<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    if let Some(instance) = &retire.order.instance
        && let Some(node) = context.world.cluster().node_of(instance).await?
    {
        return Ok(rolled_back(context, retire, &format!("the instance is the node {node}")));
    }
    Ok(state(context, retire, RetireState::Drained { forced: 0 }))
}

/// A node's object without an instance: it goes only when EC2 says that the instance is gone.
async fn node_object_alone<W: World>(context: &Context<W>, retire: &Retire, found: &NodeState) -> Result<Next, StepError> {
    let Some(instance) = &found.node.instance else { return Ok(rolled_back(context, retire, "the node names no instance")) };
    if found.node.is_ready() {
        return Ok(rolled_back(context, retire, "the node is ready"));
    }
    if context.world.cloud().state_of(instance).await?.is_some() {
        return Ok(rolled_back(context, retire, "the instance exists, without the tags of node-fleet; it is left alone"));
    }
    Ok(state(context, retire, RetireState::Terminated))
}

/// Says why the node may not go after all.
fn objection<W: World>(context: &Context<W>, retire: &Retire, node: &NodeRef, found: &NodeState) -> Option<String> {
    if found.node.uid != node.uid {
        return Some("another node has taken the name".into());
    }
    if found.node.control_plane {
        return Some("the node is a server".into());
    }
    if retire.order.instance.is_some() && found.node.instance != retire.order.instance {
        return Some("the node belongs to another instance".into());
    }
    if !retire.order.reason.is_voluntary() {
        return None;
    }
    if let Some(annotation) = &found.node.keep {
        return Some(format!("the node is annotated {annotation}"));
    }
    // Budgets are the Eviction API's to judge from here on; those that cover nothing else are left out.
    found.pods.iter().filter(|pod| pod.terminating_since.is_none()).find_map(|pod| {
        let budgets = context.world.cluster().cached_view().map(|view| view.budgets.clone()).unwrap_or_default();
        let lenient: Vec<_> = budgets
            .into_iter()
            .map(|budget| crate::model::snapshot::DisruptionBudget { allowed: budget.allowed.max(1), ..budget })
            .collect();
        policy::forbids(&context.settings.policy, pod, &lenient)
    })
}

/// Evicts what a drain moves, waits for what will not go yet, and ends at the deadline.
async fn drain<W: World>(context: &Context<W>, retire: &Retire, since: Timestamp) -> Result<Next, StepError> {
    let Some(node) = &retire.order.node else { return Ok(state(context, retire, RetireState::Drained { forced: 0 })) };
    let found = match context.world.cluster().read_node(&node.name).await {
        Ok(Some(found)) if found.node.uid == node.uid => found,
        Ok(_) if retire.order.reason.is_voluntary() => return Ok(rolled_back(context, retire, LOST_SIGHT)),
        Ok(_) => return Ok(state(context, retire, RetireState::Drained { forced: 0 })),
        // The end of a spot instance does not wait for the API server.
        Err(error) if overdue(context, retire, since) && !retire.order.reason.is_voluntary() => {
            warn!(operation = %retire.id, %error, "the API server does not answer and the time is up");
            return Ok(state(context, retire, RetireState::Drained { forced: 0 }));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(objection) = objection(context, retire, node, &found).or_else(|| countermand(retire, &found)) {
        return Ok(state(context, retire, RetireState::RollingBack { reason: objection }));
    }
    let left: Vec<&Pod> = found.pods.iter().filter(|pod| pod.holds_resources() && !pod.stays_with_node()).collect();
    if left.is_empty() {
        return Ok(state(context, retire, RetireState::Drained { forced: 0 }));
    }
    if overdue(context, retire, since) {
        return Ok(end(context, retire, &left));
    }
    let mut failed = None;
    for pod in left.into_iter().filter(|pod| pod.terminating_since.is_none()) {
        permit(context)?;
        match context.world.cluster().evict(&pod.key, &pod.uid).await {
            Ok(Eviction::Accepted) => info!(operation = %retire.id, node = %node.name, pod = %pod.key, "evicted"),
            Ok(Eviction::Blocked | Eviction::Gone) => {}
            // One pod that cannot be evicted, for a webhook's sake say, does not keep the others.
            Err(error) => {
                warn!(operation = %retire.id, node = %node.name, pod = %pod.key, %error, "not evicted");
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(Next::Wait), |error| Err(error.into()))
}

/// Says whether somebody has put the node back into service, which ends a removal that is for economy only.
fn countermand(retire: &Retire, found: &NodeState) -> Option<String> {
    (retire.order.reason.is_voluntary() && !found.node.cordoned).then(|| "somebody has put the node back into service".into())
}

fn overdue<W: World>(context: &Context<W>, retire: &Retire, since: Timestamp) -> bool {
    let operations = &context.settings.operations;
    let now = context.world.clock().now();
    match &retire.order.reason {
        RetireReason::SpotInterruption { deadline } => now >= *deadline - signed(operations.interruption_margin),
        RetireReason::Underused { .. }
        | RetireReason::AboveMaximum
        | RetireReason::NeverJoined
        | RetireReason::Leaked
        | RetireReason::InstanceGone => now.duration_since(since) > signed(operations.drain_timeout),
    }
}

fn end<W: World>(context: &Context<W>, retire: &Retire, left: &[&Pod]) -> Next {
    let names: Vec<String> = left.iter().take(5).map(|pod| pod.key.to_string()).collect();
    let forced = u32::try_from(left.len()).unwrap_or(u32::MAX);
    let roll_back = retire.order.reason.is_voluntary() && retire.order.on_timeout == OnDrainTimeout::RollBack;
    warn!(operation = %retire.id, pods = forced, first = %names.join(", "), roll_back, "the drain did not end in time");
    if roll_back {
        let reason = format!(
            "the drain did not end within {:?}: {forced} pods are left ({})",
            context.settings.operations.drain_timeout,
            names.join(", ")
        );
        return state(context, retire, RetireState::RollingBack { reason });
    }
    state(context, retire, RetireState::Drained { forced })
}

/// Terminates the instance. A voluntary removal looks once more whether the node is really empty.
async fn terminate<W: World>(context: &Context<W>, retire: &Retire, forced: u32) -> Result<Next, StepError> {
    if let Some(node) = retire.order.node.as_ref().filter(|_| retire.order.reason.is_voluntary() && forced == 0) {
        let found = match context.world.cluster().read_node(&node.name).await? {
            Some(found) if found.node.uid == node.uid => found,
            _ if already_ending(context, retire).await? => return Ok(state(context, retire, RetireState::Terminated)),
            _ => return Ok(rolled_back(context, retire, LOST_SIGHT)),
        };
        if let Some(countermand) = countermand(retire, &found) {
            return Ok(state(context, retire, RetireState::RollingBack { reason: countermand }));
        }
        if found.pods.iter().any(|pod| pod.holds_resources() && !pod.stays_with_node()) {
            return Ok(state(context, retire, RetireState::Draining { since: context.world.clock().now() }));
        }
    }
    if let Some(instance) = &retire.order.instance {
        permit(context)?;
        context.world.cloud().terminate(instance).await?;
        info!(operation = %retire.id, %instance, reason = %retire.order.reason, "terminated");
    }
    Ok(state(context, retire, RetireState::Terminated))
}

/// Tells whether the instance ends already: a predecessor may have done it before the journal knew.
async fn already_ending<W: World>(context: &Context<W>, retire: &Retire) -> Result<bool, StepError> {
    let Some(instance) = &retire.order.instance else { return Ok(true) };
    Ok(match context.world.cloud().state_of(instance).await? {
        None | Some(InstanceState::Ending) => true,
        Some(InstanceState::Pending | InstanceState::Running | InstanceState::Stopped) => false,
    })
}

async fn remove<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    if let Some(node) = &retire.order.node {
        permit(context)?;
        match context.world.cluster().delete_node(node).await {
            Ok(()) | Err(ClusterError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(state(context, retire, RetireState::Done))
}

async fn roll_back<W: World>(context: &Context<W>, retire: &Retire, reason: &str) -> Result<Next, StepError> {
    if let Some(node) = &retire.order.node {
        permit(context)?;
        match context.world.cluster().uncordon(node).await {
            Ok(()) | Err(ClusterError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rolled_back(context, retire, reason))
}

fn rolled_back<W: World>(context: &Context<W>, retire: &Retire, reason: &str) -> Next {
    warn!(operation = %retire.id, reason, "rolled back");
    state(context, retire, RetireState::RolledBack { reason: reason.to_owned() })
}

fn state<W: World>(context: &Context<W>, retire: &Retire, state: RetireState) -> Next {
    let next = Retire { state, updated: context.world.clock().now(), ..retire.clone() };
    Next::State(Box::new(Operation::Retire(next)), Vec::new())
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
