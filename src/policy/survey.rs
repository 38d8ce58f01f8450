//! Asks every node that exists whether it takes one pod: the model of the scheduler by itself, for those who compare
//! it with the real one.

use super::fit::{Board, Misfit};
use super::scale_down::pods_by_node;
use crate::model::{ClusterView, NodeName, Pod};
use std::collections::BTreeMap;

/// Tells of each node that takes new pods whether this pod fits it now, beside the pods that lie there.
///
/// Nodes that are cordoned or not Ready are left out. The pod must not be bound in the view, nor
/// nominated: it would count against itself.
#[must_use]
pub fn survey(cluster: &ClusterView, pod: &Pod) -> BTreeMap<NodeName, Result<(), Misfit>> {
    let residents = pods_by_node(cluster);
    let mut board = Board::default();
    for node in cluster.nodes.values() {
        let index = board.add_node(node, true);
        residents.get(&node.name).into_iter().flatten().for_each(|resident| board.place(resident, index));
    }
    let shape = board.shape(pod);
    let asked = (0..board.nodes()).filter(|index| board.bin(*index).is_open());
    asked.filter_map(|index| Some((board.bin(index).name?.clone(), board.fits(shape, index)))).collect()
}
