//! What nodes that go together have in common.

use super::budgets::Budgets;
use super::scale_down::Chooser;
use crate::model::snapshot::DisruptionBudget;
use crate::model::{NodeName, Pod};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What nodes that go together share: the disruption budgets of their pods, and workloads that no budget protects.
pub(super) struct Shared<'a> {
    all: &'a [DisruptionBudget],
    budgets: Budgets<'a>,
    /// Pods below this priority may all be away at once.
    expendable_below: i32,
    /// How many pods of each workload there are.
    workloads: BTreeMap<Workload<'a>, u32>,
    taken: BTreeMap<Share<'a>, u32>,
}

/// A disruption budget by its index, or a workload without one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Share<'a> {
    Budget(usize),
    Workload(Workload<'a>),
}

/// The replicas of one workload carry the same labels in one namespace, but for those that number them or name their
/// revision.
pub(super) type Workload<'a> = (&'a str, Vec<(&'a str, &'a str)>);

fn workload(pod: &Pod) -> Workload<'_> {
    const OWN: [&str; 7] = [
        "apps.kubernetes.io/pod-index",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-completion-index",
        "controller-revision-hash",
        "controller-uid",
        "pod-template-hash",
        "statefulset.kubernetes.io/pod-name",
    ];
    let labels = pod.labels.iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    (&pod.key.namespace, labels.map(|(key, value)| (key.as_str(), value.as_str())).collect())
}

impl<'a> Shared<'a> {
    /// Nodes that leave already, of whatever pool, have taken their part.
    pub(super) fn of(chooser: &Chooser<'_, 'a>, pods: &BTreeMap<&'a NodeName, Vec<&'a Pod>>) -> Self {
        let Chooser { settings, cluster, fleet, .. } = *chooser;
        let mut workloads: BTreeMap<Workload<'a>, u32> = BTreeMap::new();
        let stays =
            |pod: &&Arc<Pod>| pod.node.is_some() && pod.holds_resources() && !pod.stays_with_node() && pod.terminating_since.is_none();
        for pod in cluster.pods.iter().filter(stays) {
            *workloads.entry(workload(pod)).or_default() += 1;
        }
        let expendable_below = settings.expendable_below;
        let budgets = chooser.budgets.clone();
        let mut shared = Self { all: &cluster.budgets, budgets, expendable_below, workloads, taken: BTreeMap::new() };
        let leaving = fleet.members().filter(|member| member.leaving.is_some()).filter_map(|member| pods.get(&member.node?.name));
        for pods in leaving {
            let needs = shared.needs(pods);
            shared.take(needs);
        }
        shared
    }

    /// Counts what pods that are moved take of it.
    pub(super) fn needs(&self, pods: &[&'a Pod]) -> BTreeMap<Share<'a>, u32> {
        let mut needs: BTreeMap<Share<'a>, u32> = BTreeMap::new();
        for pod in pods.iter().filter(|pod| pod.node.is_some() && !pod.stays_with_node() && pod.terminating_since.is_none()) {
            let mut shares: Vec<Share<'a>> = self.budgets.covering(pod).map(|(index, _)| Share::Budget(index)).collect();
            if shares.is_empty() && !pod.is_expendable(self.expendable_below) {
                shares.push(Share::Workload(workload(pod)));
            }
            for share in shares {
                *needs.entry(share).or_default() += 1;
            }
        }
        needs
    }

    /// A drain waits for its budgets. Two that wait for the same one would be half done for longer than one. And what
    /// no budget protects is not all away at once, unless it lies on one node.
    pub(super) fn allow(&self, needs: &BTreeMap<Share<'a>, u32>) -> Result<(), String> {
        for (share, pods) in needs {
            let taken = self.taken.get(share).copied().unwrap_or(0);
            if taken == 0 {
                continue;
            }
            match share {
                Share::Budget(index) if taken + pods > self.all[*index].allowed => {
                    let budget = &self.all[*index];
                    return Err(format!(
                        "the budget {} allows {} disruptions, and nodes that go first need {taken}",
                        budget.name, budget.allowed
                    ));
                }
                Share::Workload(workload) if self.workloads.get(workload).is_none_or(|all| taken + pods >= *all) => {
                    return Err(format!("a workload in {} would be without any of its {} pods", workload.0, taken + pods));
                }
                Share::Budget(_) | Share::Workload(_) => {}
            }
        }
        Ok(())
    }

    /// A node goes whose pods take so much.
    pub(super) fn take(&mut self, needs: BTreeMap<Share<'a>, u32>) {
        for (share, pods) in needs {
            *self.taken.entry(share).or_default() += pods;
        }
    }
}
