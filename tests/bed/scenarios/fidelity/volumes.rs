//! Volumes that CSI drivers attach, and how many of them a node takes.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::CSINode;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::LIMIT;
use crate::wait::{Seen, until};

/// The drivers: one sets a limit on most nodes, the other on none.
const DRIVERS: [&str; 2] = ["limited.example.com", "unlimited.example.com"];

/// Draws how many volumes of the limited driver a node attaches; `None` says that it does not tell.
pub fn limit(random: &mut ChaCha8Rng) -> Option<i32> {
    random.random_bool(0.7).then(|| random.random_range(0..=2))
}

/// Gives a pod some volumes of its own. Their claims' names end in the number of their driver.
pub fn add(random: &mut ChaCha8Rng, pod: &mut Value) {
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut volumes = Vec::new();
    for number in 0..random.random_range(1..=2) {
        let claim = format!("{name}-{number}-{}", usize::from(random.random_bool(0.2)));
        volumes.push(json!({"name": format!("volume-{number}"), "persistentVolumeClaim": {"claimName": claim}}));
    }
    pod["spec"]["volumes"] = Value::Array(volumes);
}

/// Makes the claims of a pod, each with a volume of its own, and waits until they are bound.
pub async fn make(client: &Client, pod: &Value) -> Result<()> {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let mut names = Vec::new();
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
        let claim = volume["persistentVolumeClaim"]["claimName"].as_str().context("a volume without a claim")?;
        let driver = DRIVERS[usize::from(claim.ends_with('1'))];
        let name = format!("{namespace}-{claim}");
        let (space, modes) = (json!({"storage": "1Gi"}), json!(["ReadWriteOnce"]));
        let object: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "capacity": space, "accessModes": modes, "storageClassName": "",
                "claimRef": {"namespace": namespace, "name": claim}, "csi": {"driver": driver, "volumeHandle": name},
            },
        }))?;
        volumes.create(&PostParams::default(), &object).await.with_context(|| format!("create volume {name}"))?;
        let object: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": claim},
            "spec": {"accessModes": modes, "storageClassName": "", "volumeName": name, "resources": {"requests": space}},
        }))?;
        claims.create(&PostParams::default(), &object).await.with_context(|| format!("create claim {claim}"))?;
        names.push(claim);
    }
    for name in names {
        until(&format!("claim {name} to be bound"), LIMIT, async || {
            let phase = claims.get(name).await?.status.and_then(|status| status.phase).unwrap_or_default();
            Ok(if phase == "Bound" { Seen::Done(()) } else { Seen::NotYet(phase) })
        })
        .await?;
    }
    Ok(())
}

/// Lets a node say how many volumes it attaches.
pub async fn set_limit(client: &Client, node: &str, limit: i32) -> Result<()> {
    let driver = json!({"name": DRIVERS[0], "nodeID": node, "allocatable": {"count": limit}});
    let object: CSINode = serde_json::from_value(json!({"metadata": {"name": node}, "spec": {"drivers": [driver]}}))?;
    Api::<CSINode>::all(client.clone()).create(&PostParams::default(), &object).await.with_context(|| format!("create CSI node {node}"))?;
    Ok(())
}

/// Removes all of it.
pub async fn clear(client: &Client, namespaces: &[&str]) -> Result<()> {
    let (delete, all) = (DeleteParams::default(), ListParams::default());
    for namespace in namespaces {
        Api::<PersistentVolumeClaim>::namespaced(client.clone(), namespace).delete_collection(&delete, &all).await?;
    }
    Api::<PersistentVolume>::all(client.clone()).delete_collection(&delete, &all).await?;
    Api::<CSINode>::all(client.clone()).delete_collection(&delete, &all).await?;
    Ok(())
}
