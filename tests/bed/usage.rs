//! Tells the exporter which nodes there are and what their pods ask for.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};

use crate::cluster::is_ready;
use crate::exporter::{Exporter, Machine};

/// Watches nodes and pods for as long as the process lives.
pub fn start(client: &kube::Client, exporter: Exporter) {
    let nodes = follow::<Node>(Api::all(client.clone()));
    let pods = follow::<Pod>(Api::all(client.clone()));
    tokio::spawn(async move {
        loop {
            exporter.set_machines(&machines(&nodes, &pods));
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
}

fn follow<K>(api: Api<K>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let stream = reflector::reflector(writer, watcher(api, watcher::Config::default()).default_backoff());
    tokio::spawn(async move { stream.for_each(|_| std::future::ready(())).await });
    store
}

fn machines(nodes: &Store<Node>, pods: &Store<Pod>) -> BTreeMap<String, Machine> {
    let mut machines = BTreeMap::new();
    for node in nodes.state().iter().filter(|node| is_ready(node)) {
        let capacity = node.status.as_ref().and_then(|status| status.capacity.as_ref());
        let amount = |key: &str| capacity.and_then(|all| all.get(key)).map_or(0.0, amount);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and positive, as the bed made them")]
        let (cpus, memory_bytes) = (amount("cpu") as u32, amount("memory") as u64);
        let machine = Machine { cpus, memory_bytes, requested_cpu: 0.0, requested_memory: 0.0 };
        machines.insert(node.metadata.name.clone().unwrap_or_default(), machine);
    }
    for pod in pods.state() {
        let Some(spec) = pod.spec.as_ref() else { continue };
        let Some(machine) = spec.node_name.as_ref().and_then(|name| machines.get_mut(name)) else { continue };
        for requests in spec.containers.iter().filter_map(|container| container.resources.as_ref()?.requests.as_ref()) {
            let asked = |key: &str| requests.get(key).map_or(0.0, amount);
            machine.requested_cpu += asked("cpu") / f64::from(machine.cpus.max(1));
            machine.requested_memory += asked("memory") / (machine.memory_bytes.max(1) as f64);
        }
    }
    machines
}

/// `500m`, `2`, `256Mi`, `1G`.
fn amount(quantity: &Quantity) -> f64 {
    let text = quantity.0.as_str();
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "m" => 0.001,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => 1.0,
    };
    digits.parse::<f64>().unwrap_or(0.0) * factor
}
