//! What makes two pods the same to the scheduler.

use crate::model::Pod;
use std::cmp::Ordering;
use std::sync::Arc;

/// A pod by all that decides where it may go. What is shared is compared by its address first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind<'a> {
    pub(super) pod: &'a Pod,
    /// Others may take its room.
    pub(super) makes_way: bool,
}

impl Kind<'_> {
    /// Tells at a glance that two are the same. Others may be the same as well.
    pub(super) fn is_same_as(self, other: Self) -> bool {
        let same_way = self.makes_way == other.makes_way;
        let (one, other) = (self.pod, other.pod);
        same_way
            && Arc::ptr_eq(&one.constraints, &other.constraints)
            && one.preferring.is_none()
            && other.preferring.is_none()
            && Arc::ptr_eq(&one.labels, &other.labels)
            && one.requests == other.requests
            && one.key.namespace == other.key.namespace
            && one.terminating_since.is_some() == other.terminating_since.is_some()
            && one.never_preempts == other.never_preempts
    }
}

impl Ord for Kind<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        fn shared<T: Ord>(one: &Arc<T>, other: &Arc<T>) -> Ordering {
            if Arc::ptr_eq(one, other) { Ordering::Equal } else { one.cmp(other) }
        }
        let ways = self.makes_way.cmp(&other.makes_way);
        let (one, other) = (self.pod, other.pod);
        let preferred = |one: &Option<Arc<Pod>>, other: &Option<Arc<Pod>>| match (one, other) {
            (Some(one), Some(other)) => shared(&one.constraints, &other.constraints),
            (None | Some(_), None) | (None, Some(_)) => one.is_some().cmp(&other.is_some()),
        };
        one.requests
            .cmp(&other.requests)
            .then_with(|| shared(&one.constraints, &other.constraints))
            .then_with(|| shared(&one.labels, &other.labels))
            .then_with(|| one.key.namespace.cmp(&other.key.namespace))
            .then_with(|| one.terminating_since.is_some().cmp(&other.terminating_since.is_some()))
            .then_with(|| preferred(&one.preferring, &other.preferring))
            .then_with(|| one.never_preempts.cmp(&other.never_preempts))
            .then(ways)
    }
}

impl PartialOrd for Kind<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Kind<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Kind<'_> {}
