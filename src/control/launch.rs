//! The launch: journal, request, instances, Ready nodes.

use super::driver::{Context, Next, StepError, permit};
use crate::model::node::Node;
use crate::model::operation::{LaunchFailure, LaunchState, LaunchedInstance};
use crate::model::plan::NodeRef;
use crate::model::snapshot::Observed;
use crate::model::{ClusterView, InstanceId, Launch, OfferKey, Operation};
use crate::ports::{Clock, Cloud, Cluster, LaunchError, Measurement, Telemetry, World};
use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

/// Makes the launch's next step.
///
/// # Errors
/// When a port fails or the lease does not allow the step; the same step is then tried again.
pub async fn advance<W: World>(context: &Context<W>, launch: &Launch) -> Result<Next, StepError> {
    match &launch.state {
        LaunchState::Journalled => request(context, launch).await,
        LaunchState::Joining { instances, since } => join(context, launch, instances, *since).await,
        LaunchState::Done { .. } | LaunchState::Failed { .. } => Ok(Next::Wait),
    }
}

/// Sends the request. Whoever sends it again, with the same token, changes nothing.
async fn request<W: World>(context: &Context<W>, launch: &Launch) -> Result<Next, StepError> {
    permit(context)?;
    let answer = context.world.cloud().launch(&launch.request).await;
    let failed = |failure| Ok(state(context, launch, LaunchState::Failed { failure }, Vec::new()));
    match answer {
        Ok(launched) => {
            let key = |instance_type| OfferKey { instance_type, zone: launch.order.zone.clone(), market: launch.request.market };
            let empty: Vec<OfferKey> = launched.without_capacity.into_iter().map(key).collect();
            if launched.instances.is_empty() {
                return Ok(state(context, launch, LaunchState::Failed { failure: LaunchFailure::InsufficientCapacity }, empty));
            }
            info!(operation = %launch.id, zone = %launch.order.zone, market = %launch.request.market, asked = launch.request.count, got = launched.instances.len(), "instances launched");
            let joining = LaunchState::Joining { instances: launched.instances, since: context.world.clock().now() };
            Ok(state(context, launch, joining, empty))
        }
        Err(LaunchError::InsufficientCapacity) => failed(LaunchFailure::InsufficientCapacity),
        Err(LaunchError::Quota { message }) => failed(LaunchFailure::Quota { message }),
        Err(LaunchError::TokenMismatch) => failed(LaunchFailure::TokenMismatch),
        Err(LaunchError::Refused { message }) => failed(LaunchFailure::Refused { message }),
        Err(error @ (LaunchError::Unknown { .. } | LaunchError::Throttled)) => {
            context.world.telemetry().record(Measurement::PortFailed {
                port: "ec2",
                class: if error == LaunchError::Throttled { "throttled" } else { "unavailable" },
            });
            Err(StepError::Blind(error.to_string()))
        }
    }
}

/// Waits until every instance is a Ready node, or gives those back that are late.
async fn join<W: World>(
    context: &Context<W>,
    launch: &Launch,
    instances: &[LaunchedInstance],
    since: Timestamp,
) -> Result<Next, StepError> {
    let now = context.world.clock().now();
    let Some(view) = context.world.cluster().cached_view() else { return Ok(Next::Wait) };
    let mut joined = instances.to_vec();
    let mut news = false;
    for instance in joined.iter_mut().filter(|instance| instance.node.is_none()) {
        if let Some(node) = node_of(&view, &instance.id).filter(|node| node.is_ready()) {
            info!(operation = %launch.id, instance = %instance.id, node = %node.name, "joined");
            let took = std::time::Duration::try_from(now.duration_since(since)).unwrap_or_default();
            context.world.telemetry().record(Measurement::Joined { took });
            instance.node = Some(node.name.clone());
            news = true;
        }
    }
    if joined.iter().all(|instance| instance.node.is_some()) {
        return Ok(state(context, launch, LaunchState::Done { joined, never_joined: Vec::new() }, Vec::new()));
    }
    let limit = SignedDuration::try_from(context.settings.operations.join_timeout).unwrap_or(SignedDuration::MAX);
    if now.duration_since(since) > limit {
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
    let ready = |instance: &LaunchedInstance| instance.node.is_some() || node_of(&view, &instance.id).is_some_and(Node::is_ready);
    let (mut joined, mut late): (Vec<_>, Vec<_>) = instances.into_iter().partition(ready);
    for instance in joined.iter_mut().filter(|instance| instance.node.is_none()) {
        instance.node = node_of(&view, &instance.id).map(|node| node.name.clone());
    }
    if !view.refused_nodes.is_empty() {
        // A node that could not be read may be Ready and at work.
        let mut nowhere = Vec::new();
        for mut instance in late {
            instance.node = match node_of(&view, &instance.id) {
                Some(_) => None,
                None => context.world.cluster().node_of(&instance.id).await?,
            };
            if instance.node.is_some() { joined.push(instance) } else { nowhere.push(instance) }
        }
        late = nowhere;
    }
    for instance in &late {
        warn!(operation = %launch.id, instance = %instance.id, "the instance never became a Ready node and is given back");
        permit(context)?;
        context.world.cloud().terminate(&instance.id).await?;
        if let Some(node) = node_of(&view, &instance.id) {
            permit(context)?;
            context.world.cluster().delete_node(&NodeRef { name: node.name.clone(), uid: node.uid.clone() }).await?;
        }
    }
    let never_joined = late.into_iter().map(|instance| instance.id).collect();
    Ok(state(context, launch, LaunchState::Done { joined, never_joined }, Vec::new()))
}

fn node_of<'a>(view: &'a ClusterView, id: &InstanceId) -> Option<&'a Node> {
    view.nodes.values().find(|node| node.instance.as_ref() == Some(id))
}

fn state<W: World>(context: &Context<W>, launch: &Launch, state: LaunchState, empty: Vec<OfferKey>) -> Next {
    let next = Launch { state, updated: context.world.clock().now(), ..launch.clone() };
    Next::State(Box::new(Operation::Launch(next)), empty)
}
