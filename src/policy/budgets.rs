//! Disruption budgets, found by the pods that they cover.

use crate::model::Pod;
use crate::model::snapshot::DisruptionBudget;
use std::collections::BTreeMap;

/// The disruption budgets of a cluster, by their namespace: a pod is held against those of its own alone, however many
/// there are elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Budgets<'a> {
    by_namespace: BTreeMap<&'a str, Vec<(usize, &'a DisruptionBudget)>>,
}

impl<'a> Budgets<'a> {
    /// Arranges them.
    #[must_use]
    pub fn of(budgets: &'a [DisruptionBudget]) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (index, budget) in budgets.iter().enumerate() {
            by_namespace.entry(&budget.namespace).or_default().push((index, budget));
        }
        Self { by_namespace }
    }

    /// Gives those that cover a pod, each with its place among all.
    pub fn covering(&self, pod: &Pod) -> impl Iterator<Item = (usize, &'a DisruptionBudget)> {
        let of_namespace = self.by_namespace.get(pod.key.namespace.as_str()).into_iter().flatten();
        of_namespace.copied().filter(|(_, budget)| budget.covers(&pod.key.namespace, &pod.labels))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodKey;
    use crate::model::scheduling::{Labels, Operator, Requirement, Selector};
    use std::sync::Arc;

    #[test]
    fn a_pod_is_covered_by_the_budgets_of_its_namespace_that_select_it_in_their_order() {
        let budget = |namespace: &str, app: Option<&str>| {
            let is = |app: &str| Requirement { key: "app".into(), operator: Operator::In([app.to_owned()].into()) };
            let selector = app.map(|app| Selector(vec![is(app)]));
            DisruptionBudget { namespace: namespace.into(), name: "b".into(), selector, allowed: 1 }
        };
        let all = [budget("other", Some("x")), budget("here", Some("x")), budget("here", Some("y")), budget("here", None)];
        let all = [&all[..], &[budget("here", Some("x"))]].concat();
        let budgets = Budgets::of(&all);
        let covering = |namespace: &str, app: &str| {
            let key = PodKey { namespace: namespace.into(), name: "p".into() };
            let pod = Pod { key, labels: Arc::new(Labels::from([("app".into(), app.into())])), ..Pod::default() };
            budgets.covering(&pod).map(|(index, budget)| (index, *budget == all[index])).collect::<Vec<_>>()
        };
        assert_eq!(covering("here", "x"), [(1, true), (4, true)]);
        assert_eq!((covering("here", "y"), covering("other", "x")), (vec![(2, true)], vec![(0, true)]));
        assert_eq!((covering("here", "z"), covering("nowhere", "x")), (vec![], vec![]));
    }
}
