//! The daemon's own decision, on a cluster made of a replay's counts: nodes of one kind, and pods that fill one each.

use super::fleet::Fleet;
use crate::model::ids::Epoch;
use crate::model::instance::InstanceState;
use crate::model::offer::HourlyPrice;
use crate::model::operation::LaunchedInstance;
use crate::model::plan::{LaunchReason, RetireReason};
use crate::model::pod::Owner;
use crate::model::reading::Utilisation;
use crate::model::scheduling::{Labels, POOL_LABEL, ZONE_LABEL};
use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{
    Action, ClusterView, Instance, InstanceType, Launch, LaunchOrder, LaunchRequest, LaunchState, Market, Memory, Missing, Node, NodeName,
    Offer, OfferKey, Operation, Plan, Pod, PodKey, PodPhase, PoolName, Readiness, Reading, Resources, Retire, RetireState, Snapshot, Zone,
};
use crate::policy::uniform::{Cause, Moves, Sight};
use crate::policy::{Settings, audit, plan};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What the journal says of a removal is of interest for so long after it.
const REMEMBERED: SignedDuration = SignedDuration::from_secs(60);

/// Turns counts into a snapshot, lets [`plan`] decide, and keeps the journal between the turns.
#[derive(Debug, Default)]
pub struct Board {
    /// The orders of launches that are under way, by the minute of the launch.
    orders: BTreeMap<i64, LaunchOrder>,
    /// Removals of the last minute.
    retires: Vec<Retire>,
    /// What broke an invariant; the plan was refused.
    pub violations: Vec<String>,
}

impl Board {
    /// Decides as the daemon does, in minute `minute` of a replay that began at `start`.
    pub fn turn(
        &mut self,
        settings: &Settings,
        sight: &Sight<'_>,
        fleet: &Fleet,
        minute: i64,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Moves {
        let Some(pool) = settings.pools.first().map(|pool| pool.name.clone()) else { return Moves::default() };
        let begin = now.saturating_sub(SignedDuration::from_mins(minute)).unwrap_or(Timestamp::MIN);
        self.retires.retain(|retire| now.duration_since(retire.updated) <= REMEMBERED);
        self.orders.retain(|launched, _| *launched == minute || fleet.batches().any(|batch| batch.minute == *launched));
        let at = |minute: i64| begin.saturating_add(SignedDuration::from_mins(minute)).unwrap_or(Timestamp::MAX);
        let snapshot = Scene { settings, pool: &pool, sight, fleet, now }.snapshot(&self.orders, &self.retires, minute, at);
        let (plan, next) = plan(settings, &snapshot, memory, now);
        let violations = audit(settings, &snapshot, &plan, now);
        if !violations.is_empty() {
            self.violations.extend(violations.iter().map(ToString::to_string));
            return Moves::default();
        }
        *memory = next;
        self.begin(&plan, minute, now)
    }

    /// Takes the plan's orders into the journal.
    fn begin(&mut self, plan: &Plan, minute: i64, now: Timestamp) -> Moves {
        let mut moves = Moves::default();
        for action in &plan.actions {
            match action {
                Action::Launch(order) => {
                    moves.launches.push((cause_of_launch(&order.reason), order.count));
                    match self.orders.get_mut(&minute) {
                        Some(known) => {
                            known.count += order.count;
                            known.pods.extend(order.pods.iter().cloned());
                        }
                        None => drop(self.orders.insert(minute, order.clone())),
                    }
                }
                Action::Retire(order) => {
                    let (_, nodes) = moves.retires.get_or_insert((cause_of_removal(&order.reason), 0));
                    *nodes += 1;
                    let id = format!("retire-{minute}-{nodes}").as_str().into();
                    let retire = Retire { id, epoch: Epoch(1), created: now, updated: now, order: order.clone(), state: RetireState::Done };
                    self.retires.push(retire);
                }
            }
        }
        moves
    }
}

fn cause_of_launch(reason: &LaunchReason) -> Cause {
    match reason {
        LaunchReason::PendingPods { .. } | LaunchReason::Headroom | LaunchReason::Replacement { .. } | LaunchReason::Successor { .. } => {
            Cause::PendingPods
        }
        LaunchReason::BelowMinimum => Cause::BelowMinimum,
        LaunchReason::Rule { rule, .. } if rule.as_str() == "cpu" => Cause::Cpu,
        LaunchReason::Rule { .. } => Cause::Forecast,
    }
}

fn cause_of_removal(reason: &RetireReason) -> Cause {
    match reason {
        RetireReason::AboveMaximum => Cause::AboveMaximum,
        RetireReason::Consolidated { .. } => Cause::Consolidated,
        RetireReason::Underused { .. }
        | RetireReason::Replaced { .. }
        | RetireReason::SpotInterruption { .. }
        | RetireReason::NeverJoined
        | RetireReason::Leaked
        | RetireReason::InstanceGone
        | RetireReason::Unhealthy { .. } => Cause::Underused,
    }
}

/// What one turn's snapshot is made of.
struct Scene<'a> {
    settings: &'a Settings,
    pool: &'a PoolName,
    sight: &'a Sight<'a>,
    fleet: &'a Fleet,
    now: Timestamp,
}

impl Scene<'_> {
    fn snapshot(&self, orders: &BTreeMap<i64, LaunchOrder>, retires: &[Retire], minute: i64, at: impl Fn(i64) -> Timestamp) -> Snapshot {
        let mut cluster = ClusterView::default();
        let mut instances = Vec::new();
        for joined in self.fleet.joined() {
            let created = at(joined.minute);
            for number in joined.gone..joined.all {
                // Names in the order of their age.
                let name = format!("n{:09}-{number:06}", joined.minute + 1440);
                instances.push(self.instance(&name, created, InstanceState::Running, None));
                cluster.nodes.insert(name.as_str().into(), self.node(&name, created));
            }
        }
        cluster.pods = self.pods(&cluster);
        let mut operations: BTreeMap<_, _> = retires.iter().map(|retire| (retire.id.clone(), Operation::Retire(retire.clone()))).collect();
        for (launched, order) in orders {
            let launch = self.launch(*launched, order, minute, at(*launched), &mut instances);
            operations.insert(launch.id.clone(), Operation::Launch(launch));
        }
        let known = |minutes| Observed::Known { value: minutes, at: self.now };
        Snapshot {
            utilisation: self.utilisation(&cluster),
            cluster: Observed::Known { value: Arc::new(cluster), at: self.now },
            instances: known(instances),
            offers: Observed::Known { value: Arc::new(vec![self.offer()]), at: self.now },
            prices: Arc::default(),
            metrics: BTreeMap::new(),
            prospects: self.sight.prospect.map(|(rule, prospect)| (rule.clone(), prospect.clone())).into_iter().collect(),
            operations,
            templates: BTreeMap::new(),
            pause: None,
        }
    }

    fn labels(&self, name: Option<&str>) -> Labels {
        let common = [(POOL_LABEL.to_owned(), self.pool.to_string()), (ZONE_LABEL.to_owned(), "a".to_owned())];
        common.into_iter().chain(name.map(|name| ("kubernetes.io/hostname".to_owned(), name.to_owned()))).collect()
    }

    fn offer(&self) -> Offer {
        Offer {
            key: OfferKey { instance_type: kind(), zone: zone(), market: Market::OnDemand },
            pool: self.pool.clone(),
            subnet: "subnet-a".into(),
            price: HourlyPrice(self.sight.price),
            allocatable: self.sight.node.clone(),
            labels: self.labels(None),
            taints: Vec::new(),
        }
    }

    fn node(&self, name: &str, created: Timestamp) -> Node {
        Node {
            name: name.into(),
            uid: name.to_owned(),
            instance: Some(instance_id(name)),
            labels: self.labels(Some(name)),
            taints: Vec::new(),
            cordoned: false,
            cordoned_by: None,
            readiness: Readiness::Ready { since: created },
            allocatable: self.sight.node.clone(),
            created,
            control_plane: false,
            keep: None,
        }
    }

    fn instance(&self, name: &str, launched: Timestamp, state: InstanceState, operation: Option<&str>) -> Instance {
        Instance {
            id: instance_id(name),
            instance_type: kind(),
            zone: zone(),
            subnet: None,
            market: Market::OnDemand,
            state,
            launched,
            ended: None,
            pool: Some(self.pool.clone()),
            operation: operation.map(Into::into),
            epoch: None,
            template: None,
        }
    }

    /// The youngest nodes have the pods, so that those that are past their minimum age are the ones to go.
    fn pods(&self, cluster: &ClusterView) -> Vec<Arc<Pod>> {
        let mut nodes = cluster.nodes.keys().rev();
        let pod = |number: u32| {
            let node = nodes.next().cloned();
            let waits = node.is_none();
            Arc::new(Pod {
                key: PodKey { namespace: "replay".into(), name: format!("p{number:06}") },
                uid: number.to_string(),
                owner: Owner::Controller,
                phase: if waits { PodPhase::Pending } else { PodPhase::Running },
                unschedulable_since: waits.then_some(self.now),
                node,
                requests: Resources { cpu: self.sight.node.cpu, pods: 1, ..Resources::default() },
                priority: self.settings.expendable_below,
                ..Pod::default()
            })
        };
        (0..self.sight.pods).map(pod).collect()
    }

    /// Writes down a launch: of this minute, none of whose instances are seen yet, or of an earlier one.
    fn launch(&self, launched: i64, order: &LaunchOrder, minute: i64, created: Timestamp, instances: &mut Vec<Instance>) -> Launch {
        let id = format!("launch-{launched}");
        let state = if launched == minute {
            LaunchState::Journalled
        } else {
            let coming = self.fleet.batches().find(|batch| batch.minute == launched).map_or(0, |batch| batch.coming);
            let launch = |number: u32| {
                let name = format!("b{launched:09}-{number:06}");
                instances.push(self.instance(&name, created, InstanceState::Pending, Some(&id)));
                LaunchedInstance { id: instance_id(&name), instance_type: kind(), node: None }
            };
            LaunchState::Joining { instances: (0..coming).map(launch).collect(), since: created }
        };
        let request = LaunchRequest {
            token: id.as_str().into(),
            launch_template: String::new(),
            launch_template_version: String::new(),
            subnet: order.subnet.clone(),
            market: order.market,
            instance_types: order.instance_types.clone(),
            count: order.count,
            tags: BTreeMap::new(),
        };
        Launch { id: id.as_str().into(), epoch: Epoch(1), created, updated: created, order: order.clone(), request, state }
    }

    fn utilisation(&self, cluster: &ClusterView) -> Observed<UtilisationReport> {
        let Some(cpu) = self.sight.cpu else { return Observed::Unknown(Missing::NotAsked) };
        let value = |value| Reading::Value { value, sampled: self.now };
        let nodes =
            cluster.nodes.keys().map(|name: &NodeName| (name.clone(), Utilisation { cpu: value(cpu), memory: value(0.0) })).collect();
        Observed::Known { value: UtilisationReport { nodes, warming_up: false }, at: self.now }
    }
}

fn kind() -> InstanceType {
    "uniform".into()
}

fn zone() -> Zone {
    "a".into()
}

fn instance_id(name: &str) -> crate::model::InstanceId {
    format!("i-{name}").as_str().into()
}
