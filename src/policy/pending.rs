//! Finds room for pods that wait: on nodes that exist, that are on their way, or that are bought.

use super::buying::{Buyer, LOOK_AHEAD, Refusal, Way};
use super::fit::{Board, Misfit};
use super::fleet::count;
use super::headroom;
use super::settings::Settings;
use super::topology::Shape;
use crate::model::offer::HourlyPrice;
use crate::model::plan::{Alert, Finding, Hold, LaunchReason, Unplaceable};
use crate::model::{Pod, PodKey, PoolName, Resources, RuleName};
use jiff::{SignedDuration, Timestamp};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

/// How many pods are named as unplaceable at most.
const UNPLACEABLE_NAMED: usize = 50;
/// A pod that is unschedulable for longer, although a node seems to have room, buys none:
/// the scheduler knows something that the model does not.
const DISAGREEMENT: SignedDuration = SignedDuration::from_secs(60);
/// A pod that waits for longer keeps no node from going: one that never runs would hold a whole fleet.
const PATIENCE: SignedDuration = SignedDuration::from_mins(10);

/// What is the same for every way of placing.
#[derive(Clone, Copy)]
pub struct Context<'c, 'a> {
    /// The settings.
    pub settings: &'c Settings,
    /// The nodes that are on their way.
    pub promises: &'c Promises<'a>,
    /// Of each node on the board that has joined, since when it is Ready; later ones boot or are bought.
    pub ready: &'c [Option<Timestamp>],
    /// Nodes up to this one on the board exist or boot; later ones are bought.
    pub bought_from: usize,
    /// The time of the turn.
    pub now: Timestamp,
    /// A pod whose fate is wanted.
    pub asked: Option<&'c PodKey>,
}

/// A pod that wants room, and why.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The node that it has to leave, when it lies on one that EC2 takes back.
    pub leaves: Option<&'a crate::model::NodeName>,
}

/// Pods for which nodes are bought already, in the order in which they were packed, with these nodes by their index on
/// the board.
pub type Promises<'a> = Vec<(&'a PodKey, Rc<[usize]>)>;

/// What became of one pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Fate {
    /// It goes to this node of the board.
    Placed(usize),
    /// No node that can be launched could take it.
    Never(Misfit),
    /// A pool of which a node could take it buys none now.
    Held(PoolName, Hold),
}

/// What became of the pods that wait.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How many pods find no place, by their importance.
    unserved: BTreeMap<Class, u32>,
    /// Pods of the headroom for which there is no room, by pool, and why none is bought.
    pub short: BTreeMap<PoolName, (u32, Hold)>,
    /// Pods that a node which exists or is on its way will take.
    pub covered: u32,
    /// Pods that bought nodes.
    pub served: u32,
    /// Pods for which nothing can be bought now, by pool and reason.
    pub held: BTreeMap<PoolName, (u32, Hold)>,
    /// Pods that no node of ours could take (bounded).
    pub unplaceable: Vec<Unplaceable>,
    /// How many of the pods that wait no node of ours could take; pods of nodes that leave are named, and do not wait yet.
    pub unplaceable_pods: u32,
    /// Nodes that exist, by their index on the board, and will take pods that wait and are not expendable.
    pub expecting: BTreeSet<usize>,
    /// Unschedulable pods that a node which exists will take.
    settling: u32,
    /// Unschedulable pods that a node of the pool would take which cannot be had now.
    wanting: BTreeMap<PoolName, u32>,
    /// Pods that are unschedulable although a node seems to have room for them.
    disagreements: u32,
    /// The first of them, in words.
    disagreement: String,
    /// What became of the pod that was asked about.
    pub fate: Option<Fate>,
    /// Ways of buying that were tried and are not followed, the cheapest first (bounded).
    passed_over: Vec<String>,
}

impl Outcome {
    /// Tells whether every pod has found room.
    #[must_use]
    pub fn serves_all(&self) -> bool {
        self.unserved.is_empty()
    }

    /// Counts the pods for which a node of the pool must not go yet.
    #[must_use]
    pub fn wanting(&self, pool: &PoolName) -> u32 {
        self.settling + self.wanting.get(pool).copied().unwrap_or(0)
    }

    /// Says what a human should look at.
    #[must_use]
    pub fn alert(&self) -> Option<Alert> {
        let others = self.disagreements.checked_sub(1)?;
        let text = format!("{}; it buys no node, and neither do {others} others like it", self.disagreement);
        Some(Alert { name: "scheduler_disagrees".into(), subject: String::new(), text })
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
            passed_over: if bought > 0 { self.passed_over.clone() } else { Vec::new() },
        }
    }
}

/// Pods of one kind and one priority, in the order of their names.
struct Run<'a> {
    shape: Shape,
    entries: Vec<Waiting<'a>>,
    /// The first that has not been dealt with.
    next: usize,
    /// They may buy nodes.
    buys: bool,
}

impl<'a> Run<'a> {
    fn first(&self) -> Option<Waiting<'a>> {
        self.entries.get(self.next).copied()
    }

    fn left(&self) -> &[Waiting<'a>] {
        &self.entries[self.next..]
    }
}

/// How many pods are placed in all when one packing after the other is tried.
const PLACED_IN_ALL: usize = 20_000;
/// How many looks of a kind of pod at a node that takes in all.
const LOOKED_AT_IN_ALL: usize = 2_000_000;
/// Up to so many pods first fit decreasing is tried in any case: it takes less than what is tried before it.
const DECREASING_PLACED: usize = 200_000;
/// How many looks of a kind of pod at a node that exists may take.
const DECREASING_LOOKED_AT: usize = 20_000_000;
/// How many types are tried as the one that is bought wherever it will do.
const TYPES_TRIED: usize = 12;
/// How many of the ways that are not followed are told.
const WAYS_TOLD: usize = 3;

/// Gives pods the room that there is, and buys nodes for the others in the cheapest of a few ways. The fewer pods and
/// nodes there are, the more ways are tried.
///
/// A way that serves more pods, the most important first, is better than a cheaper one. What is bought never costs more than
/// first fit decreasing would, at the prices of the types that the nodes are bought as, up to 200,000 pods that find no
/// room and 20 million pairs of a kind of these and a node that exists or boots: beyond, it is not tried.
pub fn place_cheaply<'a>(context: Context<'_, 'a>, board: &mut Board<'a>, buyer: &mut Buyer<'a>, waiting: Vec<Waiting<'a>>) -> Outcome {
    let mut best = Packing { context, outcome: Outcome::default() };
    let left = best.use_room(board, waiting, context.promises);
    if left.is_empty() {
        return best.outcome;
    }
    let kinds: BTreeSet<Shape> = left.iter().map(|entry| board.shape(entry.pod)).collect();
    let looks = kinds.len().saturating_mul(board.nodes());
    let tries = (PLACED_IN_ALL / left.len()).min(LOOKED_AT_IN_ALL / looks.max(1));
    if left.len() > DECREASING_PLACED || looks > DECREASING_LOOKED_AT {
        best.buy(board, buyer, left);
        return best.outcome;
    }
    let (first_board, first_buyer, first) = (board.clone(), buyer.clone(), best.clone());
    best.buy(board, buyer, left.clone());
    if buyer.bill().1 == 0 {
        return best.outcome;
    }
    let mut outcomes = vec![Tried::of(&best.outcome, buyer, &first_buyer)];
    let types = first_buyer.types_worth_trying(buyer, TYPES_TRIED).into_iter().map(Way::Prefer);
    for way in std::iter::once(Way::FirstFitDecreasing).chain(types).take(tries.max(1)) {
        let (mut other_board, mut other_buyer, mut other) = (first_board.clone(), first_buyer.going(way), first.clone());
        other.buy(&mut other_board, &mut other_buyer, left.clone());
        outcomes.push(Tried::of(&other.outcome, &other_buyer, &first_buyer));
        let order = compare_unserved(&other.outcome.unserved, &best.outcome.unserved);
        if order.then_with(|| other_buyer.bill().cmp(&buyer.bill())).is_lt() {
            (*board, *buyer, best) = (other_board, other_buyer, other);
        }
    }
    best.outcome.passed_over = not_followed(outcomes, buyer.way());
    best.outcome
}

/// A way of buying, and what it comes to.
struct Tried {
    way: Way,
    unserved: u32,
    price: HourlyPrice,
    nodes: usize,
}

impl Tried {
    fn of(outcome: &Outcome, buyer: &Buyer<'_>, before: &Buyer<'_>) -> Self {
        let ((price, nodes), (price_before, nodes_before)) = (buyer.bill(), before.bill());
        let price = HourlyPrice(price.0.saturating_sub(price_before.0));
        Self { way: buyer.way().clone(), unserved: outcome.unserved.values().sum(), price, nodes: nodes - nodes_before }
    }
}

/// Says what speaks against the ways that were tried beside the one that is followed.
fn not_followed(mut tried: Vec<Tried>, followed: &Way) -> Vec<String> {
    let Some(at) = tried.iter().position(|way| way.way == *followed) else { return Vec::new() };
    let best = tried.remove(at);
    tried.retain(|way| (way.unserved, way.price, way.nodes) != (best.unserved, best.price, best.nodes));
    tried.sort_by_key(|way| (way.unserved, way.price, way.nodes));
    let words = |Tried { way, unserved, price, nodes }: Tried| {
        if unserved > best.unserved {
            return format!("{way}: {unserved} pods would find no place, and so {} do not", best.unserved);
        }
        format!("{way}: {nodes} nodes for {price}, instead of {} for {}", best.nodes, best.price)
    };
    tried.into_iter().take(WAYS_TOLD).map(words).collect()
}

/// Compares what two ways leave alone, the most important pods first.
fn compare_unserved(one: &BTreeMap<Class, u32>, other: &BTreeMap<Class, u32>) -> Ordering {
    let of = |unserved: &BTreeMap<Class, u32>, class: &Class| unserved.get(class).copied().unwrap_or(0);
    let classes: BTreeSet<&Class> = one.keys().chain(other.keys()).collect();
    classes.into_iter().map(|class| of(one, class).cmp(&of(other, class))).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

#[derive(Clone)]
struct Packing<'c, 'p> {
    context: Context<'c, 'p>,
    outcome: Outcome,
}

impl Packing<'_, '_> {
    /// Places the pods that have room on a node that exists or is on its way, the largest first, and gives the others:
    /// who has room already says nothing about what is to be bought.
    ///
    /// A pod for which a node is on its way comes before all others and to that node, so that a plan which is being
    /// carried out asks for nothing more.
    fn use_room<'a>(&mut self, board: &mut Board<'a>, waiting: Vec<Waiting<'a>>, promises: &Promises<'a>) -> Vec<Waiting<'a>> {
        let waiting = self.keep_promises(board, waiting, promises);
        let mut left = Vec::new();
        for mut run in runs(self.context.settings, board, waiting, &Way::Mixed) {
            self.place_on_board(board, &mut run);
            left.extend_from_slice(run.left());
        }
        left
    }

    /// Opens nodes for the pods, the largest first.
    fn buy<'a>(&mut self, board: &mut Board<'a>, buyer: &mut Buyer<'a>, left: Vec<Waiting<'a>>) {
        let mut runs = runs(self.context.settings, board, left, buyer.way());
        for number in 0..runs.len() {
            self.place_run(board, buyer, &mut runs[number..]);
        }
    }

    /// Puts pods on the nodes that are on their way for them, in the order in which they were packed when these were
    /// bought: in another one they might not fit. Gives the others.
    fn keep_promises<'a>(&mut self, board: &mut Board<'a>, waiting: Vec<Waiting<'a>>, promises: &Promises<'a>) -> Vec<Waiting<'a>> {
        if promises.is_empty() {
            return waiting;
        }
        let keys: BTreeSet<&PodKey> = promises.iter().map(|(key, _)| *key).collect();
        let (expecting, mut others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|entry| keys.contains(&entry.pod.key));
        let mut by_key: BTreeMap<&PodKey, Waiting<'a>> = expecting.into_iter().map(|entry| (&entry.pod.key, entry)).collect();
        for (key, nodes) in promises {
            let Some(entry) = by_key.get(key).copied() else { continue };
            let shape = board.shape(entry.pod);
            if let Some(index) = nodes.iter().find(|index| board.fits(shape, **index).is_ok()) {
                by_key.remove(key);
                self.put(board, &entry, *index);
            }
        }
        others.extend(by_key.into_values());
        others.sort_by(|one, other| one.pod.key.cmp(&other.pod.key));
        others
    }

    /// Places pods of a kind on nodes that exist or boot. Nothing changes between two that are equal: where the first
    /// finds no place, none does.
    fn place_on_board<'a>(&mut self, board: &mut Board<'a>, run: &mut Run<'a>) {
        let local = board.is_local(run.shape);
        let mut from = 0;
        while let Some((entry, index)) = run.first().zip(board.first_fit(run.shape, from)) {
            run.next += 1;
            self.put(board, &entry, index);
            // Nodes without room never get any, and those that refused a pod for itself alone refuse the next one.
            from = if local { index } else { board.first_with_room(run.shape, from) };
        }
    }

    /// Places the pods of the first run on nodes that are bought; one that is opened for them is filled with those of
    /// the others too.
    fn place_run<'a>(&mut self, board: &mut Board<'a>, buyer: &mut Buyer<'a>, runs: &mut [Run<'a>]) {
        let Some(shape) = runs.first().map(|run| run.shape) else { return };
        let mut from = if board.is_local(shape) { self.context.bought_from } else { 0 };
        while let Some(entry) = runs[0].first() {
            let index = match board.first_fit(shape, from) {
                Some(index) => index,
                None if !runs[0].buys => return,
                None => match open_for(board, buyer, &entry, runs) {
                    Ok(index) => {
                        debug_assert!(board.fits(shape, index).is_ok(), "{} is not taken by the node bought for it", entry.pod.key);
                        runs[0].next += 1;
                        self.put(board, &entry, index);
                        if *buyer.way() != Way::FirstFitDecreasing {
                            self.fill(board, runs, index);
                        }
                        from = if board.is_local(shape) { index } else { board.first_with_room(shape, from) };
                        continue;
                    }
                    Err(refusal) => {
                        runs[0].left().iter().for_each(|entry| self.note(entry, &refusal));
                        return;
                    }
                },
            };
            runs[0].next += 1;
            self.put(board, &entry, index);
            from = if board.is_local(shape) { index } else { board.first_with_room(shape, from) };
        }
    }

    /// Fills a node that was opened with the pods that it was chosen for.
    fn fill<'a>(&mut self, board: &mut Board<'a>, runs: &mut [Run<'a>], index: usize) {
        for run in runs.iter_mut().filter(|run| run.buys && !run.left().is_empty()).take(LOOK_AHEAD) {
            while let Some(entry) = run.first().filter(|_| board.fits(run.shape, index).is_ok()) {
                run.next += 1;
                self.put(board, &entry, index);
            }
        }
    }

    fn put<'a>(&mut self, board: &mut Board<'a>, entry: &Waiting<'a>, index: usize) {
        let pod = entry.pod;
        board.place(pod, index);
        let Context { settings, ready, bought_from, now, asked, .. } = self.context;
        let outcome = &mut self.outcome;
        if headroom::pool_of(pod).is_some() {
            return;
        }
        if asked == Some(&pod.key) {
            outcome.fate = Some(Fate::Placed(index));
        }
        if index >= bought_from {
            outcome.served += 1;
            return;
        }
        outcome.covered += 1;
        // What boots or is bought for it is under way in its pool, which is reason enough there.
        let Some(ready) = ready.get(index) else { return };
        if buys(settings, pod) {
            outcome.expecting.insert(index);
        }
        let is_hopeless = waited(pod, *ready, now).is_some_and(|span| span > PATIENCE);
        outcome.settling += u32::from(entry.leaves.is_none() && !is_hopeless && buys(settings, pod));
        if disagrees(pod, *ready, now) {
            outcome.disagreements += 1;
            if outcome.disagreements == 1 {
                let node = board.bin(index).name.map(ToString::to_string).unwrap_or_default();
                outcome.disagreement = format!("pod {} is unschedulable although node {node} seems to have room", pod.key);
            }
        }
    }

    fn note(&mut self, entry: &Waiting<'_>, refusal: &Refusal) {
        let outcome = &mut self.outcome;
        *outcome.unserved.entry(class(entry.pod)).or_default() += 1;
        if self.context.asked == Some(&entry.pod.key) {
            outcome.fate = Some(match refusal {
                Refusal::Never(misfit) => Fate::Never(misfit.clone()),
                Refusal::Now { pool, hold, .. } => Fate::Held(pool.clone(), hold.clone()),
            });
        }
        if let Some(pool) = headroom::pool_of(entry.pod) {
            let hold = || match refusal {
                Refusal::Never(misfit) => Hold::NoOffer { why: never(misfit) },
                Refusal::Now { hold, .. } => hold.clone(),
            };
            outcome.short.entry(pool).or_insert_with(|| (0, hold())).0 += 1;
            return;
        }
        match refusal {
            Refusal::Never(misfit) => {
                outcome.unplaceable_pods += u32::from(entry.leaves.is_none());
                if outcome.unplaceable.len() < UNPLACEABLE_NAMED {
                    outcome.unplaceable.push(Unplaceable { pod: entry.pod.key.clone(), why: never(misfit) });
                }
            }
            Refusal::Now { pool, hold, of } => {
                // Where no more may be had, a node that goes makes way for its own.
                let makes_way = matches!(hold, Hold::AtMaximum { .. });
                let is_patient = waited(entry.pod, None, self.context.now).is_none_or(|span| span <= PATIENCE);
                let holds = entry.leaves.is_none() && !makes_way && is_patient;
                for pool in of.iter().filter(|_| holds) {
                    *outcome.wanting.entry(pool.clone()).or_default() += 1;
                }
                outcome.held.entry(pool.clone()).or_insert_with(|| (0, hold.clone())).0 += 1;
            }
        }
    }
}

/// Opens a node for a pod of the first run; what it holds of the others decides about its type.
fn open_for<'a>(board: &mut Board<'a>, buyer: &mut Buyer<'a>, entry: &Waiting<'a>, runs: &[Run<'a>]) -> Result<usize, Refusal> {
    let reason = match entry.leaves {
        _ if headroom::pool_of(entry.pod).is_some() => LaunchReason::Headroom,
        Some(node) => LaunchReason::Replacement { node: node.clone() },
        None => LaunchReason::PendingPods { pods: 1 },
    };
    let wait = runs.iter().filter(|run| run.buys && !run.left().is_empty());
    let waiting: Vec<(Shape, u32)> = wait.map(|run| (run.shape, count(run.left().len()))).take(LOOK_AHEAD).collect();
    buyer.open_for(board, &waiting, &reason)
}

/// Gives for how long a pod has been unschedulable; a node that has been Ready for less has not refused it for longer.
fn waited(pod: &Pod, ready: Option<Timestamp>, now: Timestamp) -> Option<SignedDuration> {
    pod.unschedulable_since.map(|since| now.duration_since(ready.map_or(since, |ready| ready.max(since))))
}

/// Tells whether the scheduler must know of something that keeps the pod from a node, Ready since `ready`, with room for it.
#[must_use]
pub fn disagrees(pod: &Pod, ready: Option<Timestamp>, now: Timestamp) -> bool {
    waited(pod, ready, now).is_some_and(|span| span > DISAGREEMENT)
}

/// Tells whether the pod may buy a node at all.
fn buys(settings: &Settings, pod: &Pod) -> bool {
    !pod.is_expendable(settings.expendable_below)
}

/// Says that no node could ever take a pod.
#[must_use]
pub fn never(misfit: &Misfit) -> String {
    format!("no node that can be launched would take it: {misfit}")
}

/// Headroom comes last, and the highest priority first.
type Class = (bool, Reverse<i32>);

fn class(pod: &Pod) -> Class {
    (headroom::pool_of(pod).is_some(), Reverse(pod.priority))
}

/// Its larger share in millionths, its CPU and its memory: the largest comes first.
type Size = Reverse<(u128, u64, u64)>;

/// Groups the pods by importance, then size, then kind. They come in the order of their keys.
fn runs<'a>(settings: &Settings, board: &mut Board<'a>, waiting: Vec<Waiting<'a>>, way: &Way) -> Vec<Run<'a>> {
    let most = |value: fn(&Resources) -> u64| waiting.iter().map(|entry| value(&entry.pod.requests)).max().unwrap_or(0).max(1);
    let (most_cpu, most_memory) = (most(|r| r.cpu.0), most(|r| r.memory.0));
    let size = |pod: &Pod| {
        if *way == Way::FirstFitDecreasing {
            return u128::from(pod.requests.cpu.0);
        }
        let share = |part: u64, whole: u64| u128::from(part) * 1_000_000 / u128::from(whole);
        share(pod.requests.cpu.0, most_cpu).max(share(pod.requests.memory.0, most_memory))
    };
    // Where the larger share is the same, for a memory that all of them ask for say, the rest decides.
    let size = |pod: &Pod| Reverse((size(pod), pod.requests.cpu.0, pod.requests.memory.0));
    let mut runs: BTreeMap<(Class, Size, Shape), Run<'a>> = BTreeMap::new();
    for entry in waiting {
        let shape = board.shape(entry.pod);
        let run = runs.entry((class(entry.pod), size(entry.pod), shape));
        run.or_insert_with(|| Run { shape, entries: Vec::new(), next: 0, buys: buys(settings, entry.pod) }).entries.push(entry);
    }
    runs.into_values().collect()
}
