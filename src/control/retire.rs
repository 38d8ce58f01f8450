//! The retirement: revalidate, cordon, evict, terminate, remove the node's object.

use super::driver::{self, Context, Next, StepError, Termination, fenced};
use super::waves::{Wave, waves};
use crate::model::instance::InstanceState;
use crate::model::operation::RetireState;
use crate::model::plan::{NodeRef, OnDrainTimeout, RetireReason};
use crate::model::snapshot::DisruptionBudget;
use crate::model::{Operation, Pod, PodKey, Retire};
use crate::policy::{self, Budgets};
use crate::ports::{Clock, Cloud, CloudError, Cluster, ClusterError, Cordon, Eviction, NodeState, World};
use futures::{StreamExt, stream};
use jiff::SignedDuration;
use std::time::Duration;
use tracing::{info, warn};

/// Why a removal for economy ends where its node's object has gone or changed: whether pods run there cannot be told.
const LOST_SIGHT: &str = "the node is gone, or another has its name";

/// Why a removal ends whose instance somebody has taken the tags off.
const NOT_OURS: &str = "the instance has lost the tags of node-fleet";

/// How many pods are asked to leave at once.
const EVICTIONS_AT_ONCE: usize = 10;

/// Makes the retirement's next step. `spent` is how long this process has seen it in its state.
///
/// # Errors
/// When a port fails or the lease does not allow the step; the same step is then tried again.
pub async fn advance<W: World>(context: &Context<W>, retire: &Retire, spent: Duration) -> Result<Next, StepError> {
    match &retire.state {
        RetireState::Journalled => begin(context, retire).await,
        RetireState::Draining { .. } => drain(context, retire, spent).await,
        RetireState::Drained { forced } => terminate(context, retire, *forced, spent).await,
        RetireState::Terminated => remove(context, retire).await,
        RetireState::RollingBack { reason } => roll_back(context, retire, reason).await,
        RetireState::Done | RetireState::RolledBack { .. } => Ok(Next::Wait),
    }
}

/// Looks at the node past every cache, and takes it out of service if it is still the one that was meant.
async fn begin<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    let Some(node) = &retire.order.node else { return without_node(context, retire).await };
    let found = match context.world.cluster().read_node(&node.name).await {
        Ok(found) => found,
        Err(error) => {
            let reason = outdated(context, retire).ok_or(error)?;
            return Ok(state(context, retire, RetireState::RollingBack { reason }));
        }
    };
    let Some(found) = found else {
        return Ok(match &retire.order.instance {
            Some(_) if !retire.order.reason.is_voluntary() => state(context, retire, RetireState::Drained { forced: 0 }),
            Some(_) => rolled_back(context, retire, "the node is gone"),
            None => state(context, retire, RetireState::Done),
        });
    };
    if mistaken(retire, node, &found) {
        // EC2 takes the instance back all the same, so the node that it is now is looked for.
        return Ok(aimed_at(context, retire, None));
    }
    let foreign = lost_tags(context, retire).await?.then(|| NOT_OURS.to_owned());
    if let Some(reason) = foreign.or_else(|| objection(context, retire, node, &found)).or_else(|| outdated(context, retire)) {
        // A predecessor may have cordoned it and ended before the journal knew, or a cordon without an answer has landed.
        return Ok(state(context, retire, RetireState::RollingBack { reason }));
    }
    if retire.order.instance.is_none() {
        return node_object_alone(context, retire, &found).await;
    }
    let interrupted = retire.order.reason.is_interruption();
    let cordon = Cordon { operation: retire.id.clone(), taint: interrupted };
    match fenced(context, &retire.id, "patch nodes", context.world.cluster().cordon(node, &cordon)).await? {
        Ok(()) => {}
        Err(ClusterError::Gone { .. }) => return Ok(Next::Wait),
        Err(error) => return Err(error.into()),
    }
    info!(operation = %retire.id, node = %node.name, reason = %retire.order.reason, "cordoned");
    Ok(state(context, retire, RetireState::Draining { since: context.world.clock().now() }))
}

/// An instance that is no node: nothing to drain, if it still is none.
async fn without_node<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    let Some(instance) = &retire.order.instance else { return Ok(state(context, retire, RetireState::Drained { forced: 0 })) };
    let Some(name) = context.world.cluster().node_of(instance).await? else {
        return Ok(state(context, retire, RetireState::Drained { forced: 0 }));
    };
    if !retire.order.reason.is_interruption() {
        return Ok(rolled_back(context, retire, &format!("the instance is the node {name}")));
    }
    let found = context.world.cluster().read_node(&name).await?;
    Ok(found.map_or(Next::Wait, |found| aimed_at(context, retire, Some(NodeRef { name, uid: found.node.uid }))))
}

/// Tells whether the node of an interrupted instance is another one than the order says.
fn mistaken(retire: &Retire, node: &NodeRef, found: &NodeState) -> bool {
    let interrupted = retire.order.reason.is_interruption();
    interrupted && (found.node.uid != node.uid || found.node.instance != retire.order.instance)
}

/// Gives the retirement another node to remove; the journal hears of it before anything is done.
fn aimed_at<W: World>(context: &Context<W>, retire: &Retire, node: Option<NodeRef>) -> Next {
    let mut next = Retire { updated: context.world.clock().now(), ..retire.clone() };
    next.order.node = node;
    Next::State(Box::new(Operation::Retire(next)), Vec::new())
}

/// Says whether a decision that nobody has begun to carry out is too old to be still true.
fn outdated<W: World>(context: &Context<W>, retire: &Retire) -> Option<String> {
    let good_for = context.settings.policy.interval.saturating_mul(2);
    let age = context.world.clock().now().duration_since(retire.created);
    (retire.order.reason.is_voluntary() && age > signed(good_for)).then(|| format!("the decision is older than {good_for:?}"))
}

/// A node's object without an instance: it goes only when EC2 says that the instance is gone.
async fn node_object_alone<W: World>(context: &Context<W>, retire: &Retire, found: &NodeState) -> Result<Next, StepError> {
    let Some(instance) = &found.node.instance else { return Ok(rolled_back(context, retire, "the node names no instance")) };
    if found.node.is_ready() {
        return Ok(rolled_back(context, retire, "the node is ready"));
    }
    if context.world.cloud().look(instance).await?.is_some() {
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
    if matches!(retire.order.reason, RetireReason::Unhealthy { .. }) && found.node.is_ready() {
        return Some("the node is Ready again".into());
    }
    if !retire.order.reason.is_voluntary() {
        return None;
    }
    if let Some(annotation) = &found.node.keep {
        return Some(format!("the node is annotated {annotation}"));
    }
    // Budgets are the Eviction API's to judge from here on; those that cover nothing else are left out.
    let budgets = context.world.cluster().cached_view().map(|view| view.budgets.clone()).unwrap_or_default();
    let lenient = |budget: DisruptionBudget| DisruptionBudget { allowed: budget.allowed.max(1), ..budget };
    let lenient: Vec<DisruptionBudget> = budgets.into_iter().map(lenient).collect();
    let budgets = Budgets::of(&lenient);
    let mut staying = found.pods.iter().filter(|pod| pod.terminating_since.is_none());
    staying.find_map(|pod| policy::forbids(&context.settings.policy, pod, &budgets))
}

/// Evicts what a drain moves, waits for what will not go yet, and ends at the deadline.
async fn drain<W: World>(context: &Context<W>, retire: &Retire, spent: Duration) -> Result<Next, StepError> {
    let Some(node) = &retire.order.node else { return Ok(state(context, retire, RetireState::Drained { forced: 0 })) };
    let overdue = overdue(context, retire, spent);
    let found = match context.world.cluster().read_node(&node.name).await {
        Ok(Some(found)) if found.node.uid == node.uid => found,
        Ok(_) if retire.order.reason.is_voluntary() => return Ok(rolled_back(context, retire, LOST_SIGHT)),
        Ok(_) => return Ok(state(context, retire, RetireState::Drained { forced: 0 })),
        Err(error) if overdue && retire.order.reason.is_voluntary() => {
            let reason = format!("the node could not be read until the drain's time was up: {error}");
            return Ok(state(context, retire, RetireState::RollingBack { reason }));
        }
        // The end of a spot instance does not wait for the API server.
        Err(error) if overdue => {
            warn!(operation = %retire.id, %error, "the API server does not answer and the time is up");
            return Ok(state(context, retire, RetireState::Drained { forced: 0 }));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(objection) = objection(context, retire, node, &found).or_else(|| countermand(retire, &found)) {
        return Ok(state(context, retire, RetireState::RollingBack { reason: objection }));
    }
    // What would come straight back is not asked to leave: it ends with the machine, where that must go.
    let voluntary = retire.order.reason.is_voluntary();
    let moves = |pod: &&Pod| pod.holds_resources() && !pod.stays_with_node() && (voluntary || !pod.tolerates_a_cordon());
    let left: Vec<&Pod> = found.pods.iter().filter(moves).collect();
    if left.is_empty() {
        return Ok(state(context, retire, RetireState::Drained { forced: 0 }));
    }
    if overdue {
        return Ok(end(context, retire, &left));
    }
    if left.iter().all(|pod| pod.terminating_since.is_some()) {
        return Ok(Next::Wait);
    }
    let left: Vec<&Pod> = left.into_iter().filter(|pod| !pod.tolerates_a_cordon()).collect();
    if left.is_empty() {
        return Ok(Next::Pause);
    }
    if lost_tags(context, retire).await? {
        return Ok(state(context, retire, RetireState::RollingBack { reason: NOT_OURS.into() }));
    }
    // What EC2 takes back has no time for an order, and neither has a drain that has used half of its time.
    let hurries = retire.order.reason.is_interruption();
    let waves = if hurries || spent > context.settings.operations.drain_timeout / 2 { vec![Wave::of_all(&left)] } else { waves(&left) };
    let (mut blocked, mut failed) = (false, None);
    for wave in waves {
        match evict(context, retire, node, &wave.asked).await {
            Ok(true) => return Ok(Next::Wait),
            Ok(false) if wave.leaving => return Ok(Next::Wait),
            // Nobody of them may leave now: they do not hold up the others.
            Ok(false) => blocked = true,
            Err(error) => {
                if let Some(other) = failed.replace(error) {
                    other.count(context);
                }
            }
        }
    }
    match failed {
        Some(error) if !blocked => Err(error),
        Some(error) => {
            error.count(context);
            Ok(Next::Pause)
        }
        None => Ok(Next::Pause),
    }
}

/// Tells whether the instance is no longer ours. What EC2 takes back does not wait for its answer: it is asked before
/// the termination.
async fn lost_tags<W: World>(context: &Context<W>, retire: &Retire) -> Result<bool, StepError> {
    let interrupted = retire.order.reason.is_interruption();
    let Some(instance) = retire.order.instance.as_ref().filter(|_| !interrupted) else { return Ok(false) };
    match driver::is_foreign(context, instance).await {
        Err(error) if !retire.order.reason.is_voluntary() => {
            warn!(operation = %retire.id, %instance, %error, "whether the instance still has its tags is not known");
            Ok(false)
        }
        known => known,
    }
}

/// Asks these pods to leave, a few at a time, and tells whether one of them does.
async fn evict<W: World>(context: &Context<W>, retire: &Retire, node: &NodeRef, pods: &[&Pod]) -> Result<bool, StepError> {
    let asked: Vec<_> = pods.iter().map(|pod| evict_one(context, retire, node, pod.key.clone(), pod.uid.clone())).collect();
    let answers: Vec<Result<Eviction, StepError>> = stream::iter(asked).buffered(EVICTIONS_AT_ONCE).collect().await;
    // One pod that cannot be evicted, for a webhook's sake say, does not hold up the others.
    if answers.iter().all(Result::is_err) {
        return answers.into_iter().find_map(Result::err).map_or(Ok(false), Err);
    }
    answers.iter().filter_map(|answer| answer.as_ref().err()).for_each(|error| error.count(context));
    Ok(answers.iter().any(|answer| matches!(answer, Ok(Eviction::Accepted | Eviction::Gone))))
}

async fn evict_one<W: World>(
    context: &Context<W>,
    retire: &Retire,
    node: &NodeRef,
    pod: PodKey,
    uid: String,
) -> Result<Eviction, StepError> {
    match fenced(context, &retire.id, "create pods/eviction", context.world.cluster().evict(&pod, &uid)).await? {
        Ok(answer) => {
            if answer == Eviction::Accepted {
                info!(operation = %retire.id, node = %node.name, %pod, "evicted");
            }
            Ok(answer)
        }
        Err(error) => {
            warn!(operation = %retire.id, node = %node.name, %pod, %error, "not evicted");
            Err(error.into())
        }
    }
}

/// Says whether somebody has put the node back into service, which ends a removal that is for economy only.
fn countermand(retire: &Retire, found: &NodeState) -> Option<String> {
    (retire.order.reason.is_voluntary() && !found.node.cordoned).then(|| "somebody has put the node back into service".into())
}

/// Tells whether the drain's time is up.
fn overdue<W: World>(context: &Context<W>, retire: &Retire, spent: Duration) -> bool {
    let operations = &context.settings.operations;
    match retire.order.reason.deadline() {
        Some(deadline) => deadline.duration_since(context.world.clock().now()) <= signed(operations.interruption_margin),
        None => spent > operations.drain_timeout,
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
async fn terminate<W: World>(context: &Context<W>, retire: &Retire, forced: u32, spent: Duration) -> Result<Next, StepError> {
    if let Some(node) = retire.order.node.as_ref().filter(|_| retire.order.reason.is_voluntary() && forced == 0) {
        let found = match context.world.cluster().read_node(&node.name).await {
            Err(error) if spent > context.settings.operations.drain_timeout => {
                let reason = format!("the node could not be read until the drain's time was up: {error}");
                return Ok(state(context, retire, RetireState::RollingBack { reason }));
            }
            answer => answer?,
        };
        let found = match found {
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
    let Some(instance) = &retire.order.instance else { return Ok(state(context, retire, RetireState::Terminated)) };
    match driver::terminate(context, &retire.id, instance).await {
        Ok(Termination::Ends) => info!(operation = %retire.id, %instance, reason = %retire.order.reason, "terminated"),
        Ok(Termination::Gone) => info!(operation = %retire.id, %instance, "the instance is gone already"),
        Ok(Termination::NotOurs) => {
            return Ok(state(context, retire, RetireState::RollingBack { reason: NOT_OURS.into() }));
        }
        // Termination protection, say: nobody but an operator can lift it, and what is open holds other removals.
        Err(StepError::Cloud(error @ (CloudError::Denied { .. } | CloudError::Invalid { .. })))
            if !retire.order.reason.is_interruption() && spent > context.settings.operations.drain_timeout =>
        {
            return Ok(state(context, retire, RetireState::RollingBack { reason: error.to_string() }));
        }
        Err(error) => return Err(error),
    }
    Ok(state(context, retire, RetireState::Terminated))
}

/// Tells whether the instance ends already: a predecessor may have done it before the journal knew.
async fn already_ending<W: World>(context: &Context<W>, retire: &Retire) -> Result<bool, StepError> {
    let Some(instance) = &retire.order.instance else { return Ok(true) };
    Ok(context.world.cloud().look(instance).await?.is_none_or(|sight| sight.state == InstanceState::Ending))
}

/// Removes the node's object. While the instance still runs down, the pods on it may still write: what
/// Kubernetes starts elsewhere when the node is gone must not find them alive.
async fn remove<W: World>(context: &Context<W>, retire: &Retire) -> Result<Next, StepError> {
    if let Some(node) = &retire.order.node {
        if let Some(instance) = &retire.order.instance
            && context.world.cloud().look(instance).await?.is_some()
            && let Some(found) = context.world.cluster().read_node(&node.name).await?
            && found.node.uid == node.uid
            && found.pods.iter().any(|pod| pod.holds_resources() && !pod.stays_with_node())
        {
            return Ok(Next::Pause);
        }
        match fenced(context, &retire.id, "delete nodes", context.world.cluster().delete_node(node)).await? {
            Ok(()) | Err(ClusterError::Gone { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(state(context, retire, RetireState::Done))
}

async fn roll_back<W: World>(context: &Context<W>, retire: &Retire, reason: &str) -> Result<Next, StepError> {
    if let Some(node) = &retire.order.node {
        match fenced(context, &retire.id, "patch nodes", context.world.cluster().uncordon(node, &retire.id)).await? {
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
