//! A world in which somebody acts while it lives: scripted scenarios.

use super::run::{Deaf, Run};
use super::scenario::Scenario;
use crate::model::{InstanceId, Market, OfferKey, Operation};
use crate::sim::client::Mishap;
use crate::sim::universe::Truth;
use crate::sim::workload::Curve;
use std::time::Duration;

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A living world. It needs a paused clock and a runtime of one thread.
pub struct Stage(pub(super) Run);

impl Stage {
    /// Lets a world begin.
    #[must_use]
    pub fn begin(scenario: Scenario) -> Self {
        Self(Run::begin(scenario, |_| Deaf))
    }

    pub(super) fn with<T>(&self, act: impl FnOnce(&mut Truth) -> T) -> T {
        self.0.universe.with(act)
    }

    pub(super) fn log(&self) -> String {
        self.with(|truth| truth.log.lines().collect::<Vec<_>>().join("\n"))
    }

    pub(super) async fn is_so(&self, what: &str, limit: Duration, is: impl Fn(&mut Truth) -> bool) -> Result<(), String> {
        let waiting = async {
            while !self.with(&is) {
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(limit, waiting).await;
        waited.map_err(|_| format!("{what} did not come within {limit:?}\n{}", self.log()))
    }

    /// Gives a workload so many pods, each of which is busy with all that it requests.
    pub fn scale(&self, workload: &str, replicas: u32) {
        self.with(|truth| {
            let Some(index) = truth.workloads.iter().position(|it| it.name == workload) else { return };
            let workload = &mut truth.workloads[index];
            workload.curve = Curve::Constant(f64::from(replicas) * workload.cores_per_pod);
            (workload.least, workload.most, workload.wanted_pods) = (replicas, replicas, replicas);
            truth.top_up(index);
            truth.shrink(index);
            truth.measure();
        });
    }

    /// Takes the capacity of every offer away that is of this type and on this market, where one is named.
    pub fn lack(&self, instance_type: Option<&str>, market: Option<Market>) {
        self.with(|truth| {
            let fits = |key: &&OfferKey| {
                instance_type.is_none_or(|name| key.instance_type.as_str() == name) && market.is_none_or(|market| key.market == market)
            };
            let offers = truth.ec2.offers();
            let keys: Vec<OfferKey> = offers.iter().map(|offer| &offer.key).filter(fits).cloned().collect();
            truth.ec2.capacity.extend(keys.into_iter().map(|key| (key, 0)));
        });
    }

    /// Keeps the next so many machines from becoming nodes.
    pub fn never_join(&self, machines: u32) {
        self.with(|truth| truth.barren = machines);
    }

    /// Lets the next `CreateFleet` have its effect, and its answer be lost.
    pub fn lose_launch_answer(&self) {
        self.with(|truth| truth.clients[0].mishaps.push(("CreateFleet", Mishap::AnswerLost)));
    }

    /// Lets EC2 refuse the next so many calls of `CreateFleet` for their number.
    pub fn throttle_launches(&self, times: usize) {
        self.with(|truth| truth.clients[0].mishaps.extend(vec![("CreateFleet", Mishap::Throttled); times]));
    }

    /// Announces that the market takes its first spot machine back, and names it.
    ///
    /// # Errors
    /// When there is none.
    pub fn interrupt(&self) -> Result<InstanceId, String> {
        self.with(|truth| {
            let spot = truth.ec2.living().find(|machine| machine.market == Market::Spot && machine.pool().is_some());
            let id = spot.map(|machine| machine.id.clone()).ok_or("there is no spot machine")?;
            truth.reclaim(&id);
            Ok(id)
        })
    }

    /// Ends the daemon as SIGKILL does; another one starts after some seconds.
    pub fn kill(&self) {
        self.with(|truth| truth.kill(0));
    }

    /// Waits until so many pods of all workloads run, and no operation is under way.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn running(&self, pods: usize, limit: Duration) -> Result<(), String> {
        self.is_so(&format!("{pods} running pods"), limit, |truth| {
            let all = truth.workloads.iter().flat_map(|workload| &workload.pods);
            let run = all.filter(|key| truth.kubernetes.pods().get(key).is_some_and(|pod| pod.phase == crate::model::PodPhase::Running));
            run.count() == pods && truth.is_quiet()
        })
        .await
    }

    /// Waits until the pool has so many Ready nodes that take pods, and no operation is under way.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn workers(&self, nodes: usize, limit: Duration) -> Result<(), String> {
        self.is_so(&format!("{nodes} workers"), limit, |truth| {
            let serve = truth.kubernetes.nodes().values().filter(|node| node.pool().is_some() && node.is_ready() && !node.cordoned);
            serve.count() == nodes && truth.ec2.living().filter(|machine| machine.pool().is_some()).count() == nodes && truth.is_quiet()
        })
        .await
    }

    /// Waits until a machine is gone.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn ended(&self, machine: &InstanceId, limit: Duration) -> Result<(), String> {
        self.is_so("the machine's end", limit, |truth| truth.ec2.machines.get(machine).is_none_or(|machine| !machine.lives())).await
    }

    /// Waits until a removal was taken back.
    ///
    /// # Errors
    /// When that takes longer than `limit`.
    pub async fn rolled_back(&self, limit: Duration) -> Result<(), String> {
        self.is_so("a removal that is taken back", limit, |truth| {
            truth.table.journal.values().any(|entry| entry.operation.state_name() == "rolled_back")
        })
        .await
    }

    /// Gives the operations in the journal.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.with(|truth| truth.table.journal.values().map(|entry| entry.operation.clone()).collect())
    }

    /// Names the invariants that were broken.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        self.with(|truth| truth.oracle.violations().iter().map(ToString::to_string).collect())
    }
}
