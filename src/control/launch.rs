//! The launch: journal, request, instances, Ready nodes.

use super::driver::{Context, Next, StepError, Termination, fenced, permit, terminate};
use crate::model::node::Node;
use crate::model::operation::{LaunchFailure, LaunchState, LaunchedInstance};
use crate::model::plan::NodeRef;
use crate::model::snapshot::Observed;
use crate::model::{ClusterView, InstanceId, Launch, NodeName, OfferKey, Operation};
use crate::ports::{Clock, Cloud, CloudError, Cluster, ClusterError, LaunchError, Launched, Measurement, Telemetry, World};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::time::Duration;
use tracing::{info, warn};

/// Makes the launch's next step. `spent` is how long this process has seen it in its state, `first` that it has not tried
/// the step before.
///
/// # Errors
/// When a port fails or the lease does not allow the step; the same step is then tried again.
pub async fn advance<W: World>(context: &Context<W>, launch: &Launch, spent: Duration, first: bool) -> Result<Next, StepError> {
    match &launch.state {
        LaunchState::Journalled => request(context, launch, spent, first).await,
        LaunchState::Joining { instances, since } => join(context, launch, instances, *since, spent).await,
        LaunchState::Done { .. } | LaunchState::Failed { .. } => Ok(Next::Wait),
    }
}

/// Ends a launch that the journal could not be told of before its decision was too old to be still true. Nothing
/// has been sent for it.
pub fn outdated<W: World>(context: &Context<W>, launch: &Launch) -> Option<Operation> {
    let good_for = context.settings.policy.interval.saturating_mul(2);
    let age = context.world.clock().now().duration_since(launch.created);
    let too_old = launch.state == LaunchState::Journalled && age > SignedDuration::try_from(good_for).unwrap_or(SignedDuration::MAX);
    let failure = LaunchFailure::Busy { message: format!("the journal could not be written for {good_for:?}") };
    too_old.then(|| {
        Operation::Launch(Launch { state: LaunchState::Failed { failure }, updated: context.world.clock().now(), ..launch.clone() })
    })
}

/// Sends the request. Whoever sends it again, with the same token, changes nothing.
async fn request<W: World>(context: &Context<W>, launch: &Launch, spent: Duration, first: bool) -> Result<Next, StepError> {
    let grant = permit(context, &launch.id, "launch")?;
    if first && grant.epoch == launch.epoch {
        measure_urgency(context, launch);
    }
    match context.world.cloud().launch(&launch.request).await {
        Ok(launched) => Ok(launched_state(context, launch, launched)),
        Err(LaunchError::InsufficientCapacity) => Ok(failed(context, launch, LaunchFailure::InsufficientCapacity)),
        // These may be the answer to a repetition of a request that has taken effect.
        Err(LaunchError::Quota { message }) => ended(context, launch, LaunchFailure::Quota { message }).await,
        Err(LaunchError::TokenMismatch) => ended(context, launch, LaunchFailure::TokenMismatch).await,
        Err(LaunchError::Refused { message }) => ended(context, launch, LaunchFailure::Refused { message }).await,
        Err(LaunchError::Busy { message }) => ended(context, launch, LaunchFailure::Busy { message }).await,
        Err(error @ LaunchError::Unknown { .. }) => again(context, launch, spent, "unavailable", &error).await,
        Err(error @ LaunchError::Denied { .. }) => again(context, launch, spent, "denied", &error).await,
        Err(error @ LaunchError::Throttled) => again(context, launch, spent, "throttled", &error).await,
    }
}

/// Lets the same request be sent again, for as long as an instance may take to join.
async fn again<W: World>(
    context: &Context<W>,
    launch: &Launch,
    spent: Duration,
    class: &'static str,
    error: &LaunchError,
) -> Result<Next, StepError> {
    context.world.telemetry().record(Measurement::PortFailed { port: "ec2", class });
    if spent > context.settings.operations.join_timeout {
        return ended(context, launch, LaunchFailure::Unanswered { message: error.to_string() }).await;
    }
    Err(StepError::Blind(error.to_string()))
}

/// Measures how long the oldest of the order's pods has waited until the request is sent.
fn measure_urgency<W: World>(context: &Context<W>, launch: &Launch) {
    let Some(view) = context.world.cluster().cached_view() else { return };
    let named: BTreeSet<_> = launch.order.pods.iter().collect();
    let oldest = view.pods.iter().filter(|pod| named.contains(&pod.key)).filter_map(|pod| pod.unschedulable_since).min();
    if let Some(since) = oldest {
        let took = Duration::try_from(context.world.clock().now().duration_since(since)).unwrap_or_default();
        context.world.telemetry().record(Measurement::UnschedulableToLaunch { took });
    }
}

fn launched_state<W: World>(context: &Context<W>, launch: &Launch, launched: Launched) -> Next {
    let key = |instance_type| OfferKey { instance_type, zone: launch.order.zone.clone(), market: launch.request.market };
    let empty: Vec<OfferKey> = launched.without_capacity.into_iter().map(key).collect();
    if launched.instances.is_empty() {
        return state(context, launch, LaunchState::Failed { failure: LaunchFailure::InsufficientCapacity }, empty);
    }
    let got = launched.instances.len();
    info!(operation = %launch.id, zone = %launch.order.zone, market = %launch.request.market, asked = launch.request.count, got, "instances launched");
    context.world.telemetry().record(Measurement::ScaledUp {
        pool: launch.order.pool.to_string(),
        market: launch.order.market,
        instances: u32::try_from(got).unwrap_or(u32::MAX),
    });
    let joining = LaunchState::Joining { instances: launched.instances, since: context.world.clock().now() };
    state(context, launch, joining, empty)
}

/// Ends the launch without an instance, unless EC2 shows that an earlier sending of the request brought some.
async fn ended<W: World>(context: &Context<W>, launch: &Launch, failure: LaunchFailure) -> Result<Next, StepError> {
    let listed = context.world.cloud().instances().await?;
    let own = listed.into_iter().filter(|instance| instance.operation.as_ref() == Some(&launch.id));
    let instances: Vec<LaunchedInstance> =
        own.map(|instance| LaunchedInstance { id: instance.id, instance_type: instance.instance_type, node: None }).collect();
    if instances.is_empty() {
        return Ok(failed(context, launch, failure));
    }
    warn!(operation = %launch.id, failure = failure.name(), found = instances.len(), "the request had taken effect before");
    Ok(launched_state(context, launch, Launched { instances, without_capacity: Vec::new() }))
}

fn failed<W: World>(context: &Context<W>, launch: &Launch, failure: LaunchFailure) -> Next {
    state(context, launch, LaunchState::Failed { failure }, Vec::new())
}

/// Waits until every instance is a Ready node, or gives those back that are late.
async fn join<W: World>(
    context: &Context<W>,
    launch: &Launch,
    instances: &[LaunchedInstance],
    since: Timestamp,
    spent: Duration,
) -> Result<Next, StepError> {
    let now = context.world.clock().now();
    let Some(view) = context.world.cluster().cached_view() else { return Ok(Next::Wait) };
    let mut joined = instances.to_vec();
    let mut news = false;
    for instance in joined.iter_mut().filter(|instance| instance.node.is_none()) {
        if let Some(node) = node_of(&view, &instance.id).filter(|node| node.is_ready()) {
            info!(operation = %launch.id, instance = %instance.id, node = %node.name, "joined");
            let took = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            context.world.telemetry().record(Measurement::Joined { took });
            instance.node = Some(node.name.clone());
            news = true;
        }
    }
    if joined.iter().all(|instance| instance.node.is_some()) {
        return Ok(state(context, launch, LaunchState::Done { joined, never_joined: Vec::new(), left: Vec::new() }, Vec::new()));
    }
    if spent > context.settings.operations.join_timeout {
        return give_back(context, launch, joined).await;
    }
    if news {
        return Ok(state(context, launch, LaunchState::Joining { instances: joined, since }, Vec::new()));
    }
    Ok(Next::Wait)
}

/// Terminates the instances that are no Ready nodes at their limit, and removes what they left in Kubernetes.
async fn give_back<W: World>(context: &Context<W>, launch: &Launch, instances: Vec<LaunchedInstance>) -> Result<Next, StepError> {
    // Only a live API server can say that a node is not there.
    let view = match context.world.cluster().view().await {
        Observed::Known { value, .. } => value,
        Observed::Unknown(why) => return Err(StepError::Blind(format!("Kubernetes does not say whether the nodes have joined: {why}"))),
    };
    let (mut joined, mut late, mut left) = (Vec::new(), Vec::new(), Vec::new());
    if view.unidentified().next().is_some() {
        // One of those nodes, at work perhaps, may be an instance that seems to be late.
        warn!(operation = %launch.id, "a node without a provider id of EC2 may be the instance that is late: nothing is given back");
        let (there, missing): (Vec<_>, Vec<_>) = instances.into_iter().partition(|instance| instance.node.is_some());
        left.extend(missing);
        return Ok(state(context, launch, LaunchState::Done { joined: there, never_joined: Vec::new(), left }, Vec::new()));
    }
    for mut instance in instances {
        let known = instance.node.is_some();
        let node = if known { None } else { live_node(context, &instance.id).await? };
        match node {
            None if known => joined.push(instance),
            // It is late, but it works, or nobody can tell whether it does.
            Some((name, None)) => {
                instance.node = Some(name);
                joined.push(instance);
            }
            Some((_, Some(unready))) => late.push((instance, Some(unready))),
            None => late.push((instance, None)),
        }
    }
    let (mut never_joined, mut again) = (Vec::new(), None);
    for (instance, node) in late {
        warn!(operation = %launch.id, instance = %instance.id, "the instance never became a Ready node and is given back");
        match give_back_one(context, launch, &instance, node.as_ref()).await {
            Ok(()) => never_joined.push(instance),
            // Termination protection, say. It is not forgotten: it is a stray from here on.
            Err(StepError::Cloud(error @ (CloudError::Denied { .. } | CloudError::Invalid { .. }))) => {
                warn!(operation = %launch.id, instance = %instance.id, %error, "EC2 refuses to end the instance");
                left.push(instance);
            }
            // One that cannot be given back now does not keep the others.
            Err(error) => {
                warn!(operation = %launch.id, instance = %instance.id, %error, "not given back");
                again.get_or_insert(error);
            }
        }
    }
    match again {
        Some(error) => Err(error),
        None => Ok(state(context, launch, LaunchState::Done { joined, never_joined, left }, Vec::new())),
    }
}

/// Reads past the cache which node an instance is: its name, and the node itself where it is not Ready.
/// One that cannot be read counts as one that works.
async fn live_node<W: World>(context: &Context<W>, instance: &InstanceId) -> Result<Option<(NodeName, Option<NodeRef>)>, StepError> {
    let Some(name) = context.world.cluster().node_of(instance).await? else { return Ok(None) };
    match context.world.cluster().read_node(&name).await {
        Ok(Some(found)) if found.node.is_ready() => Ok(Some((name, None))),
        Ok(Some(found)) => {
            let unready = NodeRef { name: name.clone(), uid: found.node.uid };
            Ok(Some((name, Some(unready))))
        }
        Ok(None) => Err(StepError::Blind(format!("node {name} has gone while it was read"))),
        Err(ClusterError::Invalid { .. }) => Ok(Some((name, None))),
        Err(error) => Err(error.into()),
    }
}

async fn give_back_one<W: World>(
    context: &Context<W>,
    launch: &Launch,
    instance: &LaunchedInstance,
    node: Option<&NodeRef>,
) -> Result<(), StepError> {
    let what = terminate(context, &launch.id, &instance.id).await?;
    if let Some(node) = node.filter(|_| what != Termination::NotOurs) {
        fenced(context, &launch.id, "delete nodes", context.world.cluster().delete_node(node)).await??;
    }
    Ok(())
}

fn node_of<'a>(view: &'a ClusterView, id: &InstanceId) -> Option<&'a Node> {
    view.nodes.values().find(|node| node.instance.as_ref() == Some(id))
}

fn state<W: World>(context: &Context<W>, launch: &Launch, state: LaunchState, empty: Vec<OfferKey>) -> Next {
    let next = Launch { state, updated: context.world.clock().now(), ..launch.clone() };
    Next::State(Box::new(Operation::Launch(next)), empty)
}
