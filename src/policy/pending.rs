//! Finds room for pods that wait: on nodes that exist, that are on their way, or that are bought.

use super::buying::{Buyer, Refusal};
use super::fit::{Board, Misfit};
use super::settings::Settings;
use crate::model::plan::{Alert, Finding, Hold, LaunchReason, Unplaceable};
use crate::model::scheduling::Constraints;
use crate::model::{Pod, PodKey, PoolName, Resources, RuleName};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// How many pods are named as unplaceable at most.
const UNPLACEABLE_NAMED: usize = 50;
/// A pod that is unschedulable for longer, although a node seems to have room, buys none:
/// the scheduler knows something that the model does not.
const DISAGREEMENT: SignedDuration = SignedDuration::from_secs(60);

/// A pod that wants room, and why.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The node that it has to leave, when it lies on one that EC2 takes back.
    pub leaves: Option<&'a crate::model::NodeName>,
}

/// The nodes that are bought for a pod already, by their index on the board.
pub type Promises<'a> = BTreeMap<&'a PodKey, Rc<[usize]>>;

/// What became of the pods that wait.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Pods that a node which exists or is on its way will take.
    pub covered: u32,
    /// Pods that bought nodes.
    pub served: u32,
    /// Pods for which nothing can be bought now, by pool and reason.
    pub held: BTreeMap<PoolName, (u32, Hold)>,
    /// Pods that no node of ours could take (bounded).
    pub unplaceable: Vec<Unplaceable>,
    /// How many these are in all.
    pub unplaceable_pods: u32,
    /// Unschedulable pods that a node which exists, or one of ours that can be had, would take.
    pub wanting: u32,
    /// Pods that are unschedulable although a node seems to have room for them.
    disagreements: u32,
    /// The first of them, in words.
    disagreement: String,
}

impl Outcome {
    /// Says what a human should look at.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        let others = self.disagreements.checked_sub(1)?;
        let text = format!("{}; it buys no node, and neither do {others} others like it", self.disagreement);
        Some(Alert { name: "scheduler_disagrees".into(), text })
    }

    /// Says it as the finding of a rule. `bought` counts the pool's new nodes.
    #[must_use]
    pub fn finding(&self, pool: &PoolName, bought: u32) -> Finding {
        let (waiting, hold) = self.held.get(pool).map_or((0, None), |(pods, hold)| (*pods, Some(hold.clone())));
        Finding {
            rule: RuleName::from("pending_pods"),
            evidence: format!("{} pods covered by nodes that exist or boot, {} buy nodes, {waiting} held", self.covered, self.served),
            wants: i64::from(bought),
            hold,
        }
    }
}

/// What makes two pods the same to the packing.
type Shape<'a> = (u64, u64, u64, *const Constraints, *const BTreeMap<String, String>, &'a str);

/// Places the pods, the largest first, and opens nodes for those that find no room.
///
/// A pod for which a node is on its way already comes before all others and to that node, so that a
/// plan which is being carried out asks for nothing more. Nodes up to `existing` on the board have
/// joined; later ones boot or are bought.
pub fn place<'a>(
    settings: &Settings,
    board: &mut Board<'a>,
    buyer: &mut Buyer<'a>,
    mut waiting: Vec<Waiting<'a>>,
    promises: &Promises<'a>,
    existing: usize,
    now: Timestamp,
) -> Outcome {
    sort(&mut waiting);
    let mut outcome = Outcome::default();
    let bought_from = board.nodes();
    waiting.retain(|entry| {
        let pod = entry.pod;
        let kept = promises.get(&pod.key).and_then(|nodes| nodes.iter().find(|index| board.fits(pod, **index).is_ok()));
        let Some(index) = kept else { return true };
        board.place(pod, *index);
        outcome.wanting += u32::from(entry.leaves.is_none() && buys(settings, pod));
        count_placed(&mut outcome, pod, *index, existing, bought_from, board, now);
        false
    });
    let order: Vec<&'a Pod> = waiting.iter().map(|entry| entry.pod).collect();
    let mut hints: BTreeMap<Shape<'a>, Result<usize, Refusal>> = BTreeMap::new();
    for (position, entry) in waiting.iter().enumerate() {
        let pod = entry.pod;
        let shape = shape(pod);
        let from = match hints.get(&shape) {
            Some(Err(refusal)) => {
                note(&mut outcome, entry, refusal.clone());
                continue;
            }
            Some(Ok(hint)) => *hint,
            None => 0,
        };
        let start = if is_local(&pod.constraints) { from } else { 0 };
        let reason = match entry.leaves {
            Some(node) => LaunchReason::Replacement { node: node.clone() },
            None => LaunchReason::PendingPods { pods: 1 },
        };
        let found = match board.first_fit(pod, start) {
            Some(index) => Ok(index),
            None if buys(settings, pod) => buyer.open_for(board, &order[position..], &reason),
            None => continue,
        };
        match found {
            Ok(index) => {
                board.place(pod, index);
                outcome.wanting += u32::from(entry.leaves.is_none() && buys(settings, pod));
                count_placed(&mut outcome, pod, index, existing, bought_from, board, now);
                hints.insert(shape, Ok(index));
            }
            Err(refusal) => {
                note(&mut outcome, entry, refusal.clone());
                if is_local(&pod.constraints) {
                    hints.insert(shape, Err(refusal));
                }
            }
        }
    }
    outcome
}

/// Tells whether the pod may buy a node at all.
fn buys(settings: &Settings, pod: &Pod) -> bool {
    pod.priority >= settings.expendable_below
}

fn count_placed(outcome: &mut Outcome, pod: &Pod, index: usize, existing: usize, bought_from: usize, board: &Board<'_>, now: Timestamp) {
    if index >= bought_from {
        outcome.served += 1;
        return;
    }
    outcome.covered += 1;
    let waits_long = pod.unschedulable_since.is_some_and(|since| now.duration_since(since) > DISAGREEMENT);
    if index < existing && waits_long {
        outcome.disagreements += 1;
        if outcome.disagreements == 1 {
            let node = board.bin(index).name.map(ToString::to_string).unwrap_or_default();
            outcome.disagreement = format!("pod {} is unschedulable although node {node} seems to have room", pod.key);
        }
    }
}

fn note(outcome: &mut Outcome, entry: &Waiting<'_>, refusal: Refusal) {
    match refusal {
        Refusal::Never(misfit) => {
            outcome.unplaceable_pods += 1;
            if outcome.unplaceable.len() < UNPLACEABLE_NAMED {
                outcome.unplaceable.push(Unplaceable { pod: entry.pod.key.clone(), why: never(&misfit) });
            }
        }
        Refusal::Now(pool, hold) => {
            outcome.wanting += u32::from(entry.leaves.is_none());
            outcome.held.entry(pool).or_insert((0, hold)).0 += 1;
        }
    }
}

fn never(misfit: &Misfit) -> String {
    format!("no node that can be launched would take it: {misfit}")
}

/// Tells whether only the node itself decides: then a node that refused an equal pod refuses this one.
fn is_local(constraints: &Constraints) -> bool {
    constraints.pod_affinity.is_empty() && constraints.spread.is_empty()
}

fn shape(pod: &Pod) -> Shape<'_> {
    let Resources { cpu, memory, ephemeral_storage, .. } = &pod.requests;
    (cpu.0, memory.0, ephemeral_storage.0, Arc::as_ptr(&pod.constraints), Arc::as_ptr(&pod.labels), &pod.key.namespace)
}

/// Sorts by importance, then size, then name. Pods of one shape end up side by side.
fn sort(waiting: &mut [Waiting<'_>]) {
    let most = |value: fn(&Resources) -> u64| waiting.iter().map(|entry| value(&entry.pod.requests)).max().unwrap_or(0).max(1);
    let (most_cpu, most_memory) = (most(|r| r.cpu.0), most(|r| r.memory.0));
    let size = |pod: &Pod| {
        let share = |part: u64, whole: u64| u128::from(part) * 1_000_000 / u128::from(whole);
        share(pod.requests.cpu.0, most_cpu).max(share(pod.requests.memory.0, most_memory))
    };
    waiting.sort_by(|a, b| {
        b.pod.priority.cmp(&a.pod.priority).then_with(|| size(b.pod).cmp(&size(a.pod))).then_with(|| a.pod.key.cmp(&b.pod.key))
    });
}
