//! Makes the model's disruption budgets and daemon sets from Kubernetes' own.

use super::requests::pod_requests;
use super::scheduling::constraints;
use super::selectors::label_selector;
use super::wire;
use crate::model::snapshot::{DaemonSet, DisruptionBudget};

/// Reads a disruption budget.
///
/// # Errors
/// When its selector uses an operator that is unknown here.
pub(super) fn budget(object: wire::Budget) -> Result<DisruptionBudget, String> {
    let status = object.status.unwrap_or_default();
    // The controller has not seen the latest change: what it allowed before says nothing.
    let current = status.observed_generation.unwrap_or(0) >= object.metadata.generation.unwrap_or(0);
    let allowed = u32::try_from(status.disruptions_allowed.unwrap_or(0)).unwrap_or(0);
    let selector = object.spec.unwrap_or_default().selector;
    Ok(DisruptionBudget {
        namespace: object.metadata.namespace.unwrap_or_default(),
        name: object.metadata.name.unwrap_or_default(),
        selector: selector.as_ref().map(label_selector).transpose()?,
        allowed: if current { allowed } else { 0 },
    })
}

/// Reads a daemon set.
///
/// # Errors
/// When its pods ask for an amount or a port that makes no sense.
pub(super) fn daemon_set(object: wire::DaemonSet) -> Result<DaemonSet, String> {
    let template = object.spec.unwrap_or_default().template.unwrap_or_default();
    let labels = template.metadata.unwrap_or_default().labels.unwrap_or_default();
    let spec = template.spec.unwrap_or_default();
    let namespace = object.metadata.namespace.unwrap_or_default();
    Ok(DaemonSet {
        name: object.metadata.name.unwrap_or_default(),
        requests: pod_requests(&spec, &wire::PodStatus::default())?,
        constraints: constraints(&spec, &namespace, &labels)?,
        labels,
        namespace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MilliCpu;
    use crate::model::scheduling::Labels;
    use serde_json::json;

    fn read_budget(generation: i64, observed: i64, allowed: i64) -> DisruptionBudget {
        let object = json!({
            "metadata": {"namespace": "n", "name": "b", "generation": generation},
            "spec": {"selector": {"matchLabels": {"app": "web"}}},
            "status": {"observedGeneration": observed, "disruptionsAllowed": allowed},
        });
        budget(serde_json::from_value(object).expect("a budget")).expect("a sound budget")
    }

    #[test]
    fn a_budget_allows_what_its_controller_says_of_its_latest_form() {
        assert_eq!(read_budget(2, 2, 3).allowed, 3);
        assert_eq!(read_budget(3, 2, 3).allowed, 0);
        assert_eq!(read_budget(2, 2, -1).allowed, 0);
    }

    #[test]
    fn a_budget_without_a_status_allows_nothing_and_without_a_selector_covers_nothing() {
        let object = json!({"metadata": {"namespace": "n", "generation": 1}});
        let budget = budget(serde_json::from_value(object).expect("a budget")).expect("a sound budget");
        assert_eq!((budget.allowed, budget.covers("n", &Labels::new())), (0, false));
        assert!(read_budget(1, 1, 1).covers("n", &Labels::from([("app".into(), "web".into())])));
    }

    #[test]
    fn a_daemon_set_asks_what_its_template_asks() {
        let object = json!({
            "metadata": {"namespace": "kube-system", "name": "agent"},
            "spec": {"template": {
                "metadata": {"labels": {"app": "agent"}, "creationTimestamp": null},
                "spec": {
                    "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}],
                    "tolerations": [{"operator": "Exists"}],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                },
            }},
        });
        let set = daemon_set(serde_json::from_value(object).expect("a daemon set")).expect("a sound daemon set");
        assert_eq!((set.requests.cpu, set.requests.pods), (MilliCpu(100), 1));
        assert_eq!((set.constraints.tolerations.len(), set.constraints.node_selector.0.len()), (1, 1));
    }
}
