//! Room that is kept free: pods that do not exist and find a place all the same, after all others.

use super::settings::Settings;
use crate::model::scheduling::{Constraints, Operator, POOL_LABEL, Requirement, Selector, Toleration};
use crate::model::{Pod, PodKey};
use jiff::Timestamp;
use std::sync::Arc;

/// The namespace of pods that do not exist. No real one may have such a name.
const NAMESPACE: &str = "node-fleet.io/headroom";

/// Makes the pods of the headroom in force at `now`, pool by pool.
#[must_use]
pub fn pods(settings: &Settings, now: Timestamp) -> Vec<Pod> {
    let mut pods = Vec::new();
    for pool in &settings.pools {
        let only = Requirement { key: POOL_LABEL.into(), operator: Operator::In([pool.name.to_string()].into()) };
        let constraints = Arc::new(Constraints {
            node_selector: Selector(vec![only]),
            tolerations: vec![Toleration { key: None, value: None, effect: None }],
            ..Constraints::default()
        });
        let in_force = pool.headroom.iter().filter(|headroom| headroom.schedule.as_ref().is_none_or(|schedule| schedule.is_active(now)));
        for (kind, headroom) in in_force.enumerate() {
            pods.extend((0..headroom.pods).map(|number| Pod {
                key: PodKey { namespace: NAMESPACE.into(), name: format!("{}-{kind}-{number:04}", pool.name) },
                requests: headroom.each.clone(),
                priority: settings.expendable_below,
                constraints: Arc::clone(&constraints),
                ..Pod::default()
            }));
        }
    }
    pods
}

/// Tells whether the pod is one of [`pods`].
#[must_use]
pub fn is_headroom(pod: &Pod) -> bool {
    pod.key.namespace == NAMESPACE
}
