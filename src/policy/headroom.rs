//! Room that is kept free: pods that do not exist and find a place all the same, after all others.

use super::settings::Settings;
use crate::model::scheduling::{Constraints, Labels, Operator, POOL_LABEL, Requirement, Selector, Taint, Toleration};
use crate::model::{Offer, Pod, PodKey, PoolName};
use jiff::Timestamp;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The namespace of pods that do not exist. No real one may have such a name.
const NAMESPACE: &str = "node-fleet.io/headroom";

/// Makes the pods of the headroom in force at `now`, pool by pool. They tolerate the taints that the pool's nodes are
/// bought with, and no others: under these nobody could use the room. They
/// take no placeholder's room, which is none that is free.
#[must_use]
pub fn pods(settings: &Settings, offers: &[Offer], now: Timestamp) -> Vec<Pod> {
    let mut pods = Vec::new();
    for pool in settings.pools.iter().filter(|pool| !pool.headroom.is_empty()) {
        let name = pool.name.to_string();
        let taints: BTreeSet<&Taint> = offers.iter().filter(|offer| offer.pool == pool.name).flat_map(|offer| &offer.taints).collect();
        let tolerates =
            |taint: &Taint| Toleration { key: Some(taint.key.clone()), value: Some(taint.value.clone()), effect: Some(taint.effect) };
        let constraints = Arc::new(Constraints {
            node_selector: Selector(vec![Requirement { key: POOL_LABEL.into(), operator: Operator::In([name.clone()].into()) }]),
            tolerations: taints.into_iter().map(tolerates).collect(),
            ..Constraints::default()
        });
        let labels = Arc::new(Labels::from([(POOL_LABEL.into(), name.clone())]));
        let in_force = pool.headroom.iter().filter(|headroom| headroom.schedule.as_ref().is_none_or(|schedule| schedule.is_active(now)));
        for (kind, headroom) in in_force.enumerate() {
            pods.extend((0..headroom.pods).map(|number| Pod {
                key: PodKey { namespace: NAMESPACE.into(), name: format!("{name}-{kind}-{number:04}") },
                requests: headroom.each.clone(),
                priority: settings.expendable_below,
                never_preempts: true,
                labels: Arc::clone(&labels),
                constraints: Arc::clone(&constraints),
                ..Pod::default()
            }));
        }
    }
    pods
}

/// Names the pool whose headroom the pod stands for, if it is one of [`pods`].
#[must_use]
pub fn pool_of(pod: &Pod) -> Option<PoolName> {
    let pool = pod.labels.get(POOL_LABEL).filter(|_| pod.key.namespace == NAMESPACE)?;
    Some(PoolName::from(pool.as_str()))
}
