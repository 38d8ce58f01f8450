//! Finds room for pods that wait: on nodes that exist, that are on their way, or that are bought.

use super::buying::{Buyer, LOOK_AHEAD, Refusal};
use super::fit::{Board, Misfit};
use super::fleet::count;
use super::settings::Settings;
use super::topology::Shape;
use crate::model::plan::{Alert, Finding, Hold, LaunchReason, Unplaceable};
use crate::model::{Pod, PodKey, PoolName, Resources, RuleName};
use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::rc::Rc;

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

/// Pods of one kind and one priority, in the order of their names.
struct Run<'a> {
    shape: Shape,
    entries: Vec<Waiting<'a>>,
}

/// Places the pods, the largest first, and opens nodes for those that find no room.
///
/// A pod for which a node is on its way already comes before all others and to that node, so that a
/// plan which is being carried out asks for nothing more. Nodes up to `existing` on the board have
/// joined; later ones boot or are bought.
pub fn place<'a>(
    settings: &Settings,
    board: &mut Board<'a>,
    buyer: &mut Buyer<'a>,
    waiting: Vec<Waiting<'a>>,
    promises: &Promises<'a>,
    existing: usize,
    now: Timestamp,
) -> Outcome {
    let mut packing = Packing { settings, existing, bought_from: board.nodes(), now, outcome: Outcome::default() };
    let mut runs = runs(board, waiting);
    // In the order in which they were packed when their nodes were bought: in another one they might not fit.
    for run in &mut runs {
        run.entries.retain(|entry| {
            let Some(nodes) = promises.get(&entry.pod.key) else { return true };
            let Some(index) = nodes.iter().find(|index| board.fits(run.shape, **index).is_ok()) else { return true };
            packing.put(board, entry, *index);
            false
        });
    }
    runs.retain(|run| !run.entries.is_empty());
    for (number, run) in runs.iter().enumerate() {
        packing.place_run(board, buyer, run, &runs[number + 1..]);
    }
    packing.outcome
}

struct Packing<'s> {
    settings: &'s Settings,
    existing: usize,
    bought_from: usize,
    now: Timestamp,
    outcome: Outcome,
}

impl Packing<'_> {
    /// Places pods of one kind; `later` are those that come after them.
    fn place_run<'a>(&mut self, board: &mut Board<'a>, buyer: &mut Buyer<'a>, run: &Run<'a>, later: &[Run<'a>]) {
        let shape = run.shape;
        let local = board.is_local(shape);
        let mut from = 0;
        for (position, entry) in run.entries.iter().enumerate() {
            let index = match board.first_fit(shape, from) {
                Some(index) => index,
                None if buys(self.settings, entry.pod) => {
                    let reason = match entry.leaves {
                        Some(node) => LaunchReason::Replacement { node: node.clone() },
                        None => LaunchReason::PendingPods { pods: 1 },
                    };
                    let own = (shape, count(run.entries.len() - position));
                    let waiting: Vec<(Shape, u32)> = std::iter::once(own)
                        .chain(later.iter().map(|run| (run.shape, count(run.entries.len()))))
                        .take(LOOK_AHEAD)
                        .collect();
                    match buyer.open_for(board, &waiting, &reason) {
                        Ok(index) => index,
                        Err(refusal) if local => {
                            run.entries[position..].iter().for_each(|entry| self.note(entry, refusal.clone()));
                            return;
                        }
                        Err(refusal) => {
                            self.note(entry, refusal);
                            continue;
                        }
                    }
                }
                None => continue,
            };
            self.put(board, entry, index);
            // Nodes without room never get any, and those that refused a pod for itself alone refuse the next one.
            from = if local { index } else { board.first_with_room(shape, from) };
        }
    }

    fn put<'a>(&mut self, board: &mut Board<'a>, entry: &Waiting<'a>, index: usize) {
        let pod = entry.pod;
        board.place(pod, index);
        let outcome = &mut self.outcome;
        outcome.wanting += u32::from(entry.leaves.is_none() && buys(self.settings, pod));
        if index >= self.bought_from {
            outcome.served += 1;
            return;
        }
        outcome.covered += 1;
        let waits_long = pod.unschedulable_since.is_some_and(|since| self.now.duration_since(since) > DISAGREEMENT);
        if index < self.existing && waits_long {
            outcome.disagreements += 1;
            if outcome.disagreements == 1 {
                let node = board.bin(index).name.map(ToString::to_string).unwrap_or_default();
                outcome.disagreement = format!("pod {} is unschedulable although node {node} seems to have room", pod.key);
            }
        }
    }

    fn note(&mut self, entry: &Waiting<'_>, refusal: Refusal) {
        let outcome = &mut self.outcome;
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
}

/// Tells whether the pod may buy a node at all.
fn buys(settings: &Settings, pod: &Pod) -> bool {
    pod.priority >= settings.expendable_below
}

fn never(misfit: &Misfit) -> String {
    format!("no node that can be launched would take it: {misfit}")
}

/// The pod's priority: the highest comes first.
type Importance = Reverse<i32>;
/// Its larger share in millionths, its CPU and its memory: the largest comes first.
type Size = Reverse<(u128, u64, u64)>;

/// Groups the pods by importance, then size, then kind. They come in the order of their keys.
fn runs<'a>(board: &mut Board<'a>, waiting: Vec<Waiting<'a>>) -> Vec<Run<'a>> {
    let most = |value: fn(&Resources) -> u64| waiting.iter().map(|entry| value(&entry.pod.requests)).max().unwrap_or(0).max(1);
    let (most_cpu, most_memory) = (most(|r| r.cpu.0), most(|r| r.memory.0));
    let size = |pod: &Pod| {
        let share = |part: u64, whole: u64| u128::from(part) * 1_000_000 / u128::from(whole);
        share(pod.requests.cpu.0, most_cpu).max(share(pod.requests.memory.0, most_memory))
    };
    // Where the larger share is the same, for a memory that all of them ask for say, the rest decides.
    let order = |pod: &Pod| (Reverse(pod.priority), Reverse((size(pod), pod.requests.cpu.0, pod.requests.memory.0)));
    let mut runs: BTreeMap<(Importance, Size, Shape), Run<'a>> = BTreeMap::new();
    for entry in waiting {
        let shape = board.shape(entry.pod);
        let (priority, size) = order(entry.pod);
        let key = (priority, size, shape);
        runs.entry(key).or_insert_with(|| Run { shape, entries: Vec::new() }).entries.push(entry);
    }
    runs.into_values().collect()
}
