//! What a pod requests, as the scheduler reckons it.

use super::wire::{Container, ContainerStatus, PodSpec, PodStatus};
use crate::model::{Resources, quantity};
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

/// Reckons what a pod requests of its node.
///
/// Containers and sidecars run together; an init container runs beside the sidecars that were
/// started before it. The larger of the two, and the pod's overhead on top. A container that is being resized in place
/// counts with the largest of what it asks for, what the kubelet has granted and what it has.
///
/// # Errors
/// When an amount is no quantity, is negative or is too large.
pub(super) fn pod_requests(spec: &PodSpec, status: &PodStatus) -> Result<Resources, String> {
    let mut running = Resources::default();
    for container in spec.containers.iter().flatten() {
        running.add(&container_requests(container, status.container_statuses.as_deref())?);
    }
    let mut sidecars = Resources::default();
    let mut starting = Resources::default();
    for container in spec.init_containers.iter().flatten() {
        let mut moment = container_requests(container, status.init_container_statuses.as_deref())?;
        if is_sidecar(container) {
            running.add(&moment);
            sidecars.add(&moment);
            starting.raise_to(&sidecars);
        } else {
            moment.add(&sidecars);
            starting.raise_to(&moment);
        }
    }
    running.raise_to(&starting);
    if let Some(pod_level) = &spec.resources {
        let containers = || spec.containers.iter().flatten().chain(spec.init_containers.iter().flatten());
        let of_containers = |name: &String| {
            let mut stated = containers().filter_map(|container| container.resources.as_ref());
            stated.any(|requirements| requested(requirements).contains_key(name))
        };
        override_with(&mut running, pod_level, of_containers)?;
    }
    if let Some(overhead) = &spec.overhead {
        running.add(&resources(overhead.iter()).map_err(|error| format!("overhead: {error}"))?);
    }
    running.pods = 1;
    Ok(running)
}

/// Tells whether an init container keeps running beside the containers.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Reads a map of amounts. Those that are zero are left out of the extended resources.
///
/// # Errors
/// When an amount is no quantity, is negative or is too large.
pub(super) fn resources<'a>(amounts: impl Iterator<Item = (&'a String, &'a Quantity)>) -> Result<Resources, String> {
    let mut sum = Resources::default();
    for (name, Quantity(amount)) in amounts {
        let units = || quantity::bytes(amount).map_err(|error| format!("{name}: {error}"));
        match name.as_str() {
            "cpu" => sum.cpu = quantity::cpu(amount).map_err(|error| format!("{name}: {error}"))?,
            "memory" => sum.memory = units()?,
            "ephemeral-storage" => sum.ephemeral_storage = units()?,
            "pods" => sum.pods = units()?.0,
            _ => {
                let units = units()?.0;
                if units > 0 {
                    sum.extended.insert(name.clone(), units);
                }
            }
        }
    }
    Ok(sum)
}

fn container_requests(container: &Container, statuses: Option<&[ContainerStatus]>) -> Result<Resources, String> {
    let in_container = |error: String| format!("container `{}`: {error}", container.name.as_deref().unwrap_or_default());
    let mut most = match &container.resources {
        Some(requirements) => resources(requested(requirements).into_iter()).map_err(in_container)?,
        None => Resources::default(),
    };
    let Some(status) = statuses.into_iter().flatten().find(|status| status.name == container.name) else { return Ok(most) };
    let actual = status.resources.as_ref().and_then(|actual| actual.requests.as_ref());
    for has in status.allocated_resources.as_ref().into_iter().chain(actual) {
        most.raise_to(&resources(has.iter()).map_err(in_container)?);
    }
    Ok(most)
}

/// Gives the requests, and the limits where no request is stated: the API server fills them in so
/// when it makes a pod, but not in the template of a daemon set.
fn requested(requirements: &ResourceRequirements) -> BTreeMap<&String, &Quantity> {
    requirements.limits.iter().flatten().chain(requirements.requests.iter().flatten()).collect()
}

/// Puts requests of the pod as a whole in the place of its containers' sums.
///
/// Of cores and bytes a limit alone leaves those sums as they are, where there is one: the API server then takes them for
/// the pod's requests when it makes a pod, but not in the template of a daemon set.
fn override_with(sum: &mut Resources, pod_level: &ResourceRequirements, of_containers: impl Fn(&String) -> bool) -> Result<(), String> {
    let stated = requested(pod_level);
    let amounts = resources(stated.clone().into_iter()).map_err(|error| format!("resources of the pod: {error}"))?;
    for name in stated.into_keys() {
        let is_requested = pod_level.requests.as_ref().is_some_and(|requests| requests.contains_key(name));
        match name.as_str() {
            "cpu" | "memory" if !is_requested && of_containers(name) => {}
            "cpu" => sum.cpu = amounts.cpu,
            "memory" => sum.memory = amounts.memory,
            huge if huge.starts_with("hugepages-") => {
                sum.extended.insert(huge.to_owned(), amounts.extended.get(huge).copied().unwrap_or(0));
            }
            // The API server allows no others at this level.
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Bytes, MilliCpu};
    use serde_json::{Value, json};

    fn requests(spec: Value) -> Result<Resources, String> {
        pod_requests(&serde_json::from_value(spec).expect("a pod spec"), &PodStatus::default())
    }

    fn cpu(milli: &str) -> Value {
        json!({"requests": {"cpu": milli}})
    }

    #[test]
    fn sums_containers_and_counts_one_pod() {
        let sum = requests(json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "1Gi", "nvidia.com/gpu": "1", "hugepages-2Mi": "0"}}},
            {"name": "b", "resources": {"requests": {"cpu": "1", "ephemeral-storage": "1k"}}},
            {"name": "c"},
        ]}))
        .expect("quantities");
        assert_eq!(sum.cpu, MilliCpu(1250));
        assert_eq!(sum.memory, Bytes(1 << 30));
        assert_eq!(sum.ephemeral_storage, Bytes(1000));
        assert_eq!(sum.extended, BTreeMap::from([("nvidia.com/gpu".to_owned(), 1)]));
        assert_eq!(sum.pods, 1);
    }

    #[test]
    fn an_init_container_runs_beside_the_sidecars_before_it() {
        let spec = |init: Value| requests(json!({"containers": [{"resources": cpu("500m")}], "initContainers": init}));
        let sidecar = |milli: &str| json!({"restartPolicy": "Always", "resources": cpu(milli)});
        let init = |milli: &str| json!({"resources": cpu(milli)});
        for (containers, expected) in [
            (json!([]), 500),
            (json!([init("400m")]), 500),
            (json!([init("800m"), init("600m")]), 800),
            (json!([sidecar("200m")]), 700),
            (json!([sidecar("200m"), init("600m")]), 800),
            (json!([init("600m"), sidecar("200m")]), 700),
            (json!([sidecar("100m"), sidecar("100m"), init("500m"), sidecar("50m")]), 750),
        ] {
            assert_eq!(spec(containers.clone()).expect("quantities").cpu, MilliCpu(expected), "{containers}");
        }
    }

    #[test]
    fn adds_the_overhead_after_everything_else() {
        let sum = requests(json!({
            "containers": [{"resources": cpu("500m")}],
            "resources": {"requests": {"cpu": "300m"}},
            "overhead": {"cpu": "10m", "memory": "5"},
        }))
        .expect("quantities");
        assert_eq!(sum.cpu, MilliCpu(310));
        assert_eq!(sum.memory, Bytes(5));
    }

    #[test]
    fn a_container_that_is_resized_in_place_counts_with_the_largest_of_what_it_asks_for_is_granted_and_has() {
        let spec = json!({
            "containers": [{"name": "web", "resources": cpu("1")}],
            "initContainers": [{"name": "side", "restartPolicy": "Always", "resources": cpu("100m")}],
        });
        let web = |granted: &str, has: &str| json!({"containerStatuses": [{"name": "web", "allocatedResources": {"cpu": granted}, "resources": cpu(has)}]});
        for (status, expected) in [
            (json!({}), 1100),
            (web("1", "1"), 1100),
            (web("4", "2"), 4100),
            (web("500m", "3"), 3100),
            (web("500m", "500m"), 1100),
            (json!({"containerStatuses": [{"name": "other", "allocatedResources": {"cpu": "4"}}]}), 1100),
            (json!({"initContainerStatuses": [{"name": "side", "resources": cpu("300m")}]}), 1300),
        ] {
            let spec = serde_json::from_value(spec.clone()).expect("a pod spec");
            let sum = pod_requests(&spec, &serde_json::from_value(status.clone()).expect("a status")).expect("quantities");
            assert_eq!(sum.cpu, MilliCpu(expected), "{status}");
        }
        let odd = serde_json::from_value(web("-1", "1")).expect("a status");
        let error = pod_requests(&serde_json::from_value(spec).expect("a pod spec"), &odd).expect_err("an amount below zero");
        assert!(error.contains("container `web`: cpu"), "{error}");
    }

    #[test]
    fn a_limit_stands_in_for_a_missing_request() {
        let sum = requests(json!({"containers": [{"resources": {"limits": {"cpu": "2", "memory": "7"}, "requests": {"cpu": "1"}}}]}));
        let sum = sum.expect("quantities");
        assert_eq!((sum.cpu, sum.memory), (MilliCpu(1000), Bytes(7)));
    }

    #[test]
    fn a_limit_of_the_whole_pod_is_no_request_where_a_container_states_one() {
        let sum = |field: &str, pod_level: Value| {
            let spec = json!({field: [{"restartPolicy": "Always", "resources": cpu("100m")}], "resources": pod_level});
            let sum = requests(spec).expect("quantities");
            (sum.cpu, sum.memory)
        };
        let limits = json!({"limits": {"cpu": "4", "memory": "5"}});
        assert_eq!(sum("containers", limits.clone()), (MilliCpu(100), Bytes(5)), "of memory nobody states a request");
        assert_eq!(sum("initContainers", limits.clone()), (MilliCpu(100), Bytes(5)));
        let both = json!({"limits": {"cpu": "4", "memory": "5"}, "requests": {"cpu": "2"}});
        assert_eq!(sum("containers", both), (MilliCpu(2000), Bytes(5)), "a request of the pod wins");
        assert_eq!(requests(json!({"containers": [{}], "resources": limits})).expect("quantities").cpu, MilliCpu(4000));
    }

    #[test]
    fn refuses_an_amount_that_makes_no_sense_and_says_where() {
        for amount in ["-1", "much", "", "1.2.3", "99999999999999999999Ei"] {
            let error = requests(json!({"containers": [{"name": "web", "resources": cpu(amount)}]})).expect_err(amount);
            assert!(error.contains("container `web`: cpu"), "{error}");
        }
    }
}
