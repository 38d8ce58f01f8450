//! Kubernetes for one controller.

use super::super::faults::Fault;
use super::super::plants::Plant;
use super::super::universe::Truth;
use super::{Fate, Sim, Trouble};
use crate::model::plan::NodeRef;
use crate::model::snapshot::Observed;
use crate::model::{ClusterView, InstanceId, Missing, NodeName, OperationId, Pod, PodKey};
use crate::ports::{Cluster, ClusterError, Cordon, Eviction, NodeState, Telemetry};
use std::sync::Arc;
use std::time::Duration;

fn fate(truth: &mut Truth) -> Fate {
    if truth.faults.strikes(Fault::ApiServerDown, 1.0, &mut truth.random.strikes) {
        return Fate::Fails(Trouble::NoAnswer);
    }
    Fate::Answered
}

fn error(call: &'static str, trouble: Trouble) -> ClusterError {
    match trouble {
        Trouble::NoAnswer => ClusterError::Unavailable { call, why: "no answer within 2s".into() },
        Trouble::Throttled => ClusterError::Unavailable { call, why: "429 too many requests".into() },
        Trouble::Denied => ClusterError::Denied { call, why: "403 forbidden".into() },
    }
}

impl<T: Telemetry> Sim<T> {
    fn seen(&self, truth: &mut Truth) -> Arc<ClusterView> {
        match &truth.clients[self.number].stale_view {
            Some(stale) => Arc::clone(stale),
            None => truth.kubernetes.view(),
        }
    }

    /// Changes one node.
    async fn change_node(&self, node: &NodeRef, change: impl FnOnce(&mut Truth, &NodeRef) + Send + 'static) -> Result<(), ClusterError> {
        let call = "patch nodes";
        let (number, reference) = (self.number, node.clone());
        let effect = move |truth: &mut Truth| {
            if truth.faults.strikes(Fault::PatchConflict, 0.7, &mut truth.random.strikes) {
                return Err(ClusterError::Conflict { call });
            }
            if truth.kubernetes.same(&reference).is_none() {
                return Err(ClusterError::Gone { call });
            }
            truth.check_lease(number, call);
            change(truth, &reference);
            truth.tell_changed();
            Ok(())
        };
        self.send(call, fate, effect).await.map_err(|trouble| error(call, trouble))?
    }
}

impl<T: Telemetry> Cluster for Sim<T> {
    async fn view(&self) -> Observed<Arc<ClusterView>> {
        let asked = self.ask("view", fate, |truth| {
            let stale = truth.clients[self.number].stale_view.is_some();
            if stale && truth.faults.is_on(Fault::WatchGap) {
                truth.faults.hit(Fault::WatchGap);
                return Err("the watch of pods has a gap".to_owned());
            }
            if stale {
                truth.faults.hit(Fault::StaleList);
            }
            Ok((self.seen(truth), truth.wall()))
        });
        let answer = asked.await;
        self.universe.with(|truth| truth.clients[self.number].last_view = Some((truth.now, matches!(answer, Ok(Ok(_))))));
        match answer {
            Ok(Ok((value, at))) => Observed::Known { value, at },
            Ok(Err(why)) => Observed::Unknown(Missing::Unreachable { why }),
            Err(trouble) => Observed::Unknown(Missing::Unreachable { why: error("get /readyz", trouble).to_string() }),
        }
    }

    fn cached_view(&self) -> Option<Arc<ClusterView>> {
        Some(self.universe.with(|truth| self.seen(truth)))
    }

    async fn urgent(&self) {
        loop {
            let told = self.universe.urgent.notified();
            let news = self.universe.with(|truth| {
                if !self.is_alive(truth) {
                    return false;
                }
                let marks = truth.marks;
                let client = &mut truth.clients[self.number];
                let news = (client.seen_marks != marks && client.stale_view.is_none()) || client.plant == Some(Plant::HotLoop);
                if news {
                    client.seen_marks = marks;
                }
                news
            });
            if news {
                return;
            }
            told.await;
        }
    }

    async fn changed(&self) {
        self.universe.changed.notified().await;
    }

    async fn read_node(&self, name: &NodeName) -> Result<Option<NodeState>, ClusterError> {
        let call = "get nodes";
        let read = |truth: &mut Truth| {
            let node = truth.kubernetes.nodes().get(name)?.clone();
            if truth.kubernetes.is_unreadable(name) {
                return Some(Err(ClusterError::Invalid { call, why: "allocatable cpu: `many` is no amount".into() }));
            }
            if self.has(truth, Plant::SeesNoPods) {
                return Some(Ok(NodeState { node, pods: Vec::new() }));
            }
            let pods = truth.kubernetes.on(name).map(|pod| Pod::clone(pod)).collect();
            Some(Ok(NodeState { node, pods }))
        };
        self.ask(call, fate, read).await.map_err(|trouble| error(call, trouble))?.transpose()
    }

    async fn node_of(&self, instance: &InstanceId) -> Result<Option<NodeName>, ClusterError> {
        let call = "list nodes";
        let read = |truth: &mut Truth| truth.kubernetes.node_of(instance).map(|node| node.name.clone());
        self.ask(call, fate, read).await.map_err(|trouble| error(call, trouble))
    }

    async fn cordon(&self, node: &NodeRef, cordon: &Cordon) -> Result<(), ClusterError> {
        let (number, operation, taint) = (self.number, cordon.operation.clone(), cordon.taint);
        let change = move |truth: &mut Truth, node: &NodeRef| {
            truth.check_cordon(&node.name);
            let news = truth.kubernetes.same(node).is_some_and(|node| !node.cordoned);
            truth.kubernetes.cordon(&node.name, operation.as_str(), taint);
            if news {
                truth.note(format_args!("controller {number} cordons {}", node.name));
            }
        };
        self.change_node(node, change).await
    }

    async fn uncordon(&self, node: &NodeRef, operation: &OperationId) -> Result<(), ClusterError> {
        let (number, operation) = (self.number, operation.clone());
        let change = move |truth: &mut Truth, node: &NodeRef| {
            let by = truth.kubernetes.same(node).and_then(|node| node.cordoned_by.as_deref());
            if by != Some(operation.as_str()) {
                return;
            }
            truth.kubernetes.uncordon(&node.name);
            truth.note_uncordon(&node.uid);
            truth.note(format_args!("controller {number} uncordons {}", node.name));
            truth.wake_scheduler();
        };
        self.change_node(node, change).await
    }

    async fn evict(&self, pod: &PodKey, uid: &str) -> Result<Eviction, ClusterError> {
        let call = "evict";
        let (number, key, uid) = (self.number, pod.clone(), uid.to_owned());
        let effect = move |truth: &mut Truth| {
            let Some(pod) = truth.kubernetes.pods().get(&key).filter(|pod| pod.uid == uid).cloned() else {
                return Ok(Eviction::Gone);
            };
            if pod.terminating_since.is_some() {
                return Ok(Eviction::Accepted);
            }
            if truth.not_evictable.contains(&key) {
                return Err(ClusterError::Denied { call: "create pods/eviction", why: "a webhook says no".into() });
            }
            if !truth.kubernetes.may_evict(&pod) {
                if truth.faults.is_on(Fault::BudgetNever) {
                    truth.faults.hit(Fault::BudgetNever);
                }
                if truth.kept.insert(uid.clone()) {
                    truth.note(format_args!("a budget keeps {key} where it is"));
                }
                return Ok(Eviction::Blocked);
            }
            truth.check_lease(number, call);
            truth.check_evict(&pod);
            let grace = truth.deployed.get(&key).map_or(Duration::from_secs(10), |workload| truth.workloads[*workload].grace);
            truth.ends_pod(&key, Some(grace));
            Ok(Eviction::Accepted)
        };
        self.send(call, fate, effect).await.map_err(|trouble| error(call, trouble))?
    }

    async fn delete_node(&self, node: &NodeRef) -> Result<(), ClusterError> {
        let call = "delete nodes";
        let (number, reference) = (self.number, node.clone());
        let effect = move |truth: &mut Truth| {
            if truth.kubernetes.same(&reference).is_none() || truth.clients[number].plant == Some(Plant::LeavesNodes) {
                return;
            }
            truth.check_lease(number, call);
            truth.check_delete_node(&reference.name);
            truth.removes_node(&reference.name);
            truth.note(format_args!("controller {number} removes the object of {}", reference.name));
        };
        self.send(call, fate, effect).await.map_err(|trouble| error(call, trouble))
    }
}
