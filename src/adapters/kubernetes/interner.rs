//! Lets equal labels and constraints share one place in memory.

use crate::model::scheduling::{Constraints, Labels};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Shares what the replicas of a workload have in common.
#[derive(Debug, Default)]
pub(super) struct Interner {
    labels: Shared<Labels>,
    constraints: Shared<Constraints>,
}

impl Interner {
    /// Gives the shared copy of the labels.
    pub(super) fn labels(&mut self, labels: Labels) -> Arc<Labels> {
        self.labels.share(labels)
    }

    /// Gives the shared copy of the constraints.
    pub(super) fn constraints(&mut self, constraints: Constraints) -> Arc<Constraints> {
        self.constraints.share(constraints)
    }
}

/// Below this size a sweep is not worth its time.
const SMALLEST_SWEEP: usize = 256;

#[derive(Debug)]
struct Shared<T> {
    values: BTreeSet<Arc<T>>,
    sweep_at: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { values: BTreeSet::new(), sweep_at: SMALLEST_SWEEP }
    }
}

impl<T: Ord> Shared<T> {
    fn share(&mut self, value: T) -> Arc<T> {
        if let Some(shared) = self.values.get(&value) {
            return Arc::clone(shared);
        }
        // Sweeping whenever the set has doubled keeps it within twice what is in use,
        // at a constant cost for each value.
        if self.values.len() >= self.sweep_at {
            self.values.retain(|shared| Arc::strong_count(shared) > 1);
            self.sweep_at = SMALLEST_SWEEP.max(2 * self.values.len());
        }
        let shared = Arc::new(value);
        self.values.insert(Arc::clone(&shared));
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_one_place() {
        let mut shared = Shared::default();
        let first = shared.share("a".to_owned());
        assert!(Arc::ptr_eq(&first, &shared.share("a".to_owned())));
        assert!(!Arc::ptr_eq(&first, &shared.share("b".to_owned())));
    }

    #[test]
    fn forgets_what_nobody_uses_any_more() {
        let mut shared = Shared::default();
        let kept = shared.share(0);
        for value in 1..100_000 {
            shared.share(value);
        }
        assert!(shared.values.len() <= SMALLEST_SWEEP + 1);
        assert!(Arc::ptr_eq(&kept, &shared.share(0)));
    }
}
