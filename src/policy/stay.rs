//! Rehearses a removal: whether the pods of nodes that go find places on those that stay.

use super::buying::Empty;
use super::fit::Board;
use super::fleet::Fleet;
use crate::model::{ClusterView, MilliCpu, NodeName, Pod};
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};

/// The nodes that stay, with the pods of those that go, in the two ways in which that may come about: all of them at
/// once and packed as full as can be, and one after the other onto the emptiest node, as the scheduler does it when
/// budgets hold the drain up. Pods that still wait on the node that goes count towards their spread and affinity, and
/// the one that just leaves it towards its affinity. Expendable pods look for no place, and make way for the others.
pub struct Stay<'a> {
    packed: Board<'a>,
    spread: Board<'a>,
    /// The open nodes of `spread`, by their free CPU.
    emptiest: BTreeSet<(Reverse<MilliCpu>, usize)>,
    nodes: BTreeMap<&'a NodeName, usize>,
    /// The pods of the headroom. On `packed` they lie among the others.
    spare: &'a [Pod],
    /// How many of them there is room for on `spread`.
    spared: usize,
    /// Pods below this priority need no place.
    expendable_below: i32,
}

/// The orders in which pods are made to leave. Nobody knows the true one. The last is the worst for most: the smallest
/// take from the nodes on which the largest would fit.
const ORDERS: [fn(&Pod, &Pod) -> Ordering; 3] = [
    |one, other| one.requests.memory.cmp(&other.requests.memory).then_with(|| one.requests.cpu.cmp(&other.requests.cpu)),
    largest_first,
    |one, other| largest_first(other, one),
];

fn largest_first(one: &Pod, other: &Pod) -> Ordering {
    other.requests.cpu.cmp(&one.requests.cpu).then_with(|| other.requests.memory.cmp(&one.requests.memory))
}

impl<'a> Stay<'a> {
    /// Starts from what is there. Pods of nodes that leave already want the same room, and those of the headroom want
    /// some in the end.
    ///
    /// # Errors
    /// The pods of the nodes that leave already find no place.
    pub fn new(
        cluster: &'a ClusterView,
        fleet: &Fleet<'a>,
        spare: &'a [Pod],
        pods: &BTreeMap<&'a NodeName, Vec<&'a Pod>>,
        expendable_below: i32,
    ) -> Result<Self, String> {
        let leaving: BTreeSet<&NodeName> =
            fleet.members().filter(|member| member.leaving.is_some()).filter_map(|member| member.node.map(|node| &node.name)).collect();
        let mut packed = Board::making_way(expendable_below);
        let mut nodes = BTreeMap::new();
        for node in cluster.nodes.values() {
            let index = packed.add_node(node, !leaving.contains(&node.name));
            for pod in pods.get(&node.name).into_iter().flatten() {
                packed.place(pod, index);
            }
            nodes.insert(&node.name, index);
        }
        let spread = packed.clone();
        let open = (0..spread.nodes()).filter(|index| spread.bin(*index).is_open());
        let emptiest = open.map(|index| (Reverse(spread.bin(index).free.cpu), index)).collect();
        let mut stay = Self { packed, spread, emptiest, nodes, spare, spared: 0, expendable_below };
        stay.lose(&leaving.into_iter().collect::<Vec<_>>())?;
        // What has no room now is no reason that a node stays.
        for pod in spare {
            let shape = stay.packed.shape(pod);
            if let Some(index) = stay.packed.first_fit(shape, 0) {
                stay.packed.place(pod, index);
            }
        }
        stay.spared = stay.count_spared();
        Ok(stay)
    }

    /// Adds an empty node.
    pub fn add(&mut self, node: &Empty<'a>) {
        node.add_to(&mut self.packed);
        let index = node.add_to(&mut self.spread);
        self.emptiest.insert((Reverse(self.spread.bin(index).free.cpu), index));
    }

    /// Lets nodes go together, if their pods find a place on those that stay, those included that were moved to them.
    ///
    /// # Errors
    /// Why they may not.
    pub fn lose(&mut self, nodes: &[&NodeName]) -> Result<(), String> {
        let homes: Vec<usize> = nodes.iter().filter_map(|name| self.nodes.get(*name).copied()).collect();
        if homes.len() < nodes.len() {
            return Err("it is not in the cluster".into());
        }
        let was_open: Vec<bool> = homes.iter().map(|home| self.spread.bin(*home).is_open()).collect();
        for home in &homes {
            self.emptiest.remove(&(Reverse(self.spread.bin(*home).free.cpu), *home));
            self.spread.set_open(*home, false);
        }
        let leave: Vec<(&'a Pod, usize)> =
            homes.iter().flat_map(|home| self.movers(&self.spread.bin(*home).pods).into_iter().map(|pod| (pod, *home))).collect();
        let packed: Vec<Vec<&'a Pod>> = homes.iter().map(|home| self.packed.clear(*home)).collect();
        let mut moved = Vec::new();
        let together = packed.iter().flat_map(|pods| self.movers(pods)).collect();
        let goes = self.leave_in_every_order(leave, &mut moved).and_then(|()| self.pack(together, &mut moved)).and_then(|()| {
            let spared = self.count_spared();
            if spared < self.spared { Err("the room that is kept free would be gone".to_owned()) } else { Ok(()) }
        });
        if goes.is_err() {
            self.take_back(&moved);
            for ((home, pods), open) in homes.iter().zip(&packed).zip(was_open) {
                self.packed.restore(*home, pods);
                self.packed.set_open(*home, open);
                if open {
                    self.spread.set_open(*home, true);
                    self.emptiest.insert((Reverse(self.spread.bin(*home).free.cpu), *home));
                }
            }
        }
        goes
    }

    /// Lists the pods that a drain moves and that must find a place.
    fn movers(&self, pods: &[&'a Pod]) -> Vec<&'a Pod> {
        pods.iter().copied().filter(|pod| pod.must_find_a_place(self.expendable_below)).collect()
    }

    /// Counts the pods of the headroom that would find a place if they came last.
    fn count_spared(&mut self) -> usize {
        let mut placed = Vec::new();
        for pod in self.spare {
            let shape = self.spread.shape(pod);
            if let Some(index) = self.spread.first_fit(shape, 0) {
                self.spread.place(pod, index);
                placed.push(index);
            }
        }
        placed.iter().rev().for_each(|index| self.spread.take_last(*index));
        placed.len()
    }

    /// Moves the pods in one order after the other; the last one stays.
    fn leave_in_every_order(&mut self, mut pods: Vec<(&'a Pod, usize)>, moved: &mut Vec<Move<'a>>) -> Result<(), String> {
        for order in ORDERS {
            self.take_back(moved);
            moved.clear();
            pods.sort_by(|(one, _), (other, _)| order(one, other).then_with(|| one.key.cmp(&other.key)));
            self.leave_one_by_one(&pods, moved)?;
        }
        Ok(())
    }

    /// Moves the pods from their nodes, one after the other, each to the emptiest node that takes it.
    fn leave_one_by_one(&mut self, pods: &[(&'a Pod, usize)], moved: &mut Vec<Move<'a>>) -> Result<(), String> {
        for (pod, home) in pods {
            let Some(shape) = self.spread.begin_to_take(pod, *home) else { continue };
            let roomy = self.emptiest.iter().take_while(|(free, _)| free.0 >= pod.requests.cpu).map(|(_, index)| *index);
            let to = roomy.into_iter().find(|index| self.spread.fits(shape, *index).is_ok());
            self.spread.finish_to_take(pod, shape, *home);
            moved.push(Move::OnSpread { pod, home: *home, to });
            let to = to.ok_or_else(|| format!("pod {} may find no place", pod.key))?;
            self.change_spread(to, |board| board.place(pod, to));
        }
        Ok(())
    }

    /// Packs the pods, the largest first.
    fn pack(&mut self, mut pods: Vec<&'a Pod>, moved: &mut Vec<Move<'a>>) -> Result<(), String> {
        pods.sort_by(|one, other| largest_first(one, other).then_with(|| one.key.cmp(&other.key)));
        for pod in pods {
            let shape = self.packed.shape(pod);
            let index = self.packed.first_fit(shape, 0).ok_or_else(|| format!("pod {} would find no place", pod.key))?;
            self.packed.place(pod, index);
            moved.push(Move::OnPacked(index));
        }
        Ok(())
    }

    fn take_back(&mut self, moved: &[Move<'a>]) {
        for done in moved.iter().rev() {
            match *done {
                Move::OnPacked(to) => self.packed.take_last(to),
                Move::OnSpread { pod, home, to } => {
                    if let Some(to) = to {
                        self.change_spread(to, |board| board.take_last(to));
                    }
                    self.spread.place(pod, home);
                }
            }
        }
    }

    fn change_spread(&mut self, index: usize, change: impl FnOnce(&mut Board<'a>)) {
        self.emptiest.remove(&(Reverse(self.spread.bin(index).free.cpu), index));
        change(&mut self.spread);
        self.emptiest.insert((Reverse(self.spread.bin(index).free.cpu), index));
    }
}

/// A pod that [`Stay`] has moved.
enum Move<'a> {
    OnPacked(usize),
    /// Away from its node; `to` is `None` when it found no other.
    OnSpread {
        pod: &'a Pod,
        home: usize,
        to: Option<usize>,
    },
}
