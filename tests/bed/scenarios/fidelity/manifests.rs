//! Random nodes and pods: all that the scheduler looks at, in every form that the API has for it.

use node_fleet::model::scheduling::{HOSTNAME_LABEL, ZONE_LABEL};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

use super::volumes;
use crate::kwok;

/// The namespaces of the pods.
pub const NAMESPACES: [&str; 3] = ["fidelity-a", "fidelity-b", "fidelity-c"];

const GPU: &str = "example.com/gpu";
/// Labels of nodes and their values; a node lacks some of them.
const NODE_LABELS: [(&str, &[&str]); 4] =
    [(ZONE_LABEL, &["us-east-1a", "us-east-1b", "us-east-1c"]), ("disk", &["ssd", "hdd"]), ("team", &["red", "blue"]), CORES];
/// The label that is compared as a number, and is none on some nodes.
const CORES: (&str, &[&str]) = ("cores", &["2", "4", "8", "many"]);
const TAINT_KEYS: [&str; 2] = ["dedicated", "interruptible"];
const TAINT_VALUES: [&str; 3] = ["", "db", "batch"];
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const APPS: [&str; 3] = ["web", "db", "cache"];
const TIERS: [&str; 2] = ["front", "back"];
/// No selector speaks of this label: keys that are matched by the pod's own value must not be in the selector, too.
const REVISION: &str = "revision";
const PORTS: [u16; 3] = [8080, 8081, 9090];
/// What a container requests of the CPU, as it is written and in thousandths.
const CPU: [(&str, u64); 7] = [("0", 0), ("50m", 50), ("0.25", 250), ("500m", 500), ("1", 1000), ("1500m", 1500), ("3", 3000)];
const MEMORY: [&str; 6] = ["64Mi", "0.3Gi", "512Mi", "1Gi", "2G", "3Gi"];

/// Makes a node of any size, with any labels and taints.
pub fn node(random: &mut ChaCha8Rng, name: &str) -> Value {
    let mut labels = json!({HOSTNAME_LABEL: name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"});
    for (key, values) in NODE_LABELS {
        if random.random_bool(0.8) {
            labels[key] = json!(one(random, values));
        }
    }
    let mut taints = Vec::new();
    for key in TAINT_KEYS {
        if random.random_bool(0.3) {
            taints.push(json!({"key": key, "value": one(random, &TAINT_VALUES), "effect": one(random, &EFFECTS)}));
        }
    }
    let mut amounts = json!({
        "cpu": one(random, &["900m", "1900m", "3900m", "7900m"]),
        "memory": one(random, &["900Mi", "3500Mi", "7500Mi"]),
        "pods": one(random, &["4", "8", "110"]),
    });
    if random.random_bool(0.8) {
        amounts["ephemeral-storage"] = json!("20Gi");
    }
    if random.random_bool(0.4) {
        amounts[GPU] = json!(one(random, &["1", "2"]));
    }
    json!({
        "metadata": {"name": name, "labels": labels, "annotations": {kwok::ANNOTATION: "fake"}},
        "spec": {"taints": taints},
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "addresses": [{"type": "InternalIP", "address": "10.30.0.1"}, {"type": "Hostname", "address": name}],
        },
    })
}

/// Makes a pod that only this node may take, and does when the scheduler knows it as it is.
pub fn probe(node: &str, taints: &Value) -> Value {
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    json!({
        "metadata": {"name": format!("probe-{node}"), "namespace": NAMESPACES[0]},
        "spec": {
            "containers": [{"name": "main", "image": "bed"}],
            // A taint is written like the toleration that is equal to it.
            "tolerations": taints,
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}},
        },
    })
}

/// Makes a pod that lies on a node without having been asked whether it fits. It takes ten minutes to end.
pub fn resident(random: &mut ChaCha8Rng, name: &str, node: &str) -> Value {
    let labels = labels(random);
    let mut spec = json!({
        "nodeName": node, "terminationGracePeriodSeconds": 600, "containers": [container(random, "main", &mut 0)],
        // Else the taints of its node would evict it.
        "tolerations": [{"operator": "Exists"}],
    });
    if random.random_bool(0.3) {
        add_host_ports(random, &mut spec);
    }
    if random.random_bool(0.3) {
        spec["affinity"]["podAntiAffinity"] = required(&pod_terms(random, &labels));
    }
    json!({
        "metadata": {
            "name": name, "namespace": one(random, &NAMESPACES), "labels": labels,
            "annotations": {"bed.node-fleet.io/termination": "600s"},
        },
        "spec": spec,
    })
}

/// Makes a pod with any constraints, for a cluster of these nodes.
pub fn pod(random: &mut ChaCha8Rng, name: &str, nodes: &[String]) -> Value {
    let labels = labels(random);
    let mut spec = containers(random);
    if random.random_bool(0.25) {
        add_host_ports(random, &mut spec);
    }
    if random.random_bool(0.2) {
        let (key, values) = *one(random, &NODE_LABELS);
        spec["nodeSelector"] = json!({key: one(random, values)});
    }
    if random.random_bool(0.3) {
        let terms: Vec<Value> = (0..random.random_range(1..=2)).map(|_| node_term(random, nodes)).collect();
        spec["affinity"]["nodeAffinity"] = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    }
    if random.random_bool(0.5) {
        spec["tolerations"] = (0..random.random_range(1..=2)).map(|_| toleration(random)).collect();
    }
    if random.random_bool(0.2) {
        spec["affinity"]["podAffinity"] = required(&pod_terms(random, &labels));
    }
    if random.random_bool(0.25) {
        spec["affinity"]["podAntiAffinity"] = required(&pod_terms(random, &labels));
    }
    if random.random_bool(0.35) {
        spec["topologySpreadConstraints"] = spread(random, &labels);
    }
    if random.random_bool(0.02) {
        // Which namespaces have a label is not modelled.
        let namespaces = json!({"matchLabels": {"kubernetes.io/metadata.name": one(random, &NAMESPACES)}});
        let term = json!({"topologyKey": HOSTNAME_LABEL, "labelSelector": {}, "namespaceSelector": namespaces});
        spec["affinity"]["podAntiAffinity"] = required(&[term]);
    }
    let mut pod = json!({"metadata": {"name": name, "namespace": one(random, &NAMESPACES), "labels": labels}, "spec": spec});
    if random.random_bool(0.25) {
        volumes::add(random, &mut pod);
    }
    pod
}

/// Draws one of them.
fn one<'a, T>(random: &mut ChaCha8Rng, of: &'a [T]) -> &'a T {
    &of[random.random_range(0..of.len())]
}

/// Draws one or two of them.
fn some<'a, T>(random: &mut ChaCha8Rng, of: &'a [T]) -> Vec<&'a T> {
    (0..random.random_range(1..=2)).map(|_| one(random, of)).collect()
}

fn required(terms: &[Value]) -> Value {
    json!({"requiredDuringSchedulingIgnoredDuringExecution": terms})
}

fn labels(random: &mut ChaCha8Rng) -> Value {
    let mut labels = json!({"app": one(random, &APPS)});
    if random.random_bool(0.5) {
        labels["tier"] = json!(one(random, &TIERS));
    }
    if random.random_bool(0.5) {
        labels[REVISION] = json!(one(random, &["1", "2"]));
    }
    labels
}

/// Makes the part of a spec that says what the pod requests.
fn containers(random: &mut ChaCha8Rng) -> Value {
    let mut millis = 0;
    let main = (0..random.random_range(1..=2)).map(|number| container(random, &format!("main-{number}"), &mut millis));
    let mut spec = json!({"containers": main.collect::<Vec<_>>()});
    if random.random_bool(0.35) {
        let mut init = Vec::new();
        for number in 0..random.random_range(1..=3) {
            let mut container = container(random, &format!("init-{number}"), &mut millis);
            if random.random_bool(0.5) {
                container["restartPolicy"] = json!("Always");
            }
            init.push(container);
        }
        spec["initContainers"] = Value::Array(init);
    }
    if random.random_bool(0.06) {
        // What the pod requests as a whole must not be less than its containers do.
        let millis = millis + *one(random, &[0, 250]);
        spec["resources"] = json!({"requests": {"cpu": format!("{millis}m")}});
    }
    spec
}

/// Makes a container, and adds what it requests of the CPU to `millis`.
fn container(random: &mut ChaCha8Rng, name: &str, millis: &mut u64) -> Value {
    let mut amounts = json!({});
    if random.random_bool(0.8) {
        let (cpu, thousandths) = *one(random, &CPU);
        amounts["cpu"] = json!(cpu);
        *millis += thousandths;
    }
    if random.random_bool(0.7) {
        amounts["memory"] = json!(one(random, &MEMORY));
    }
    if random.random_bool(0.1) {
        amounts["ephemeral-storage"] = json!(one(random, &["1Gi", "15Gi"]));
    }
    // Where there is no request, the limit stands for it.
    let kind = if random.random_bool(0.1) { "limits" } else { "requests" };
    let mut resources = json!({kind: amounts});
    if random.random_bool(0.06) {
        for kind in ["limits", "requests"] {
            resources[kind][GPU] = json!("1");
        }
    }
    json!({"name": name, "image": "bed", "resources": resources})
}

fn add_host_ports(random: &mut ChaCha8Rng, spec: &mut Value) {
    let first = random.random_range(0..PORTS.len());
    let mut ports = Vec::new();
    for number in 0..random.random_range(1..=2) {
        let port = PORTS[(first + number) % PORTS.len()];
        let mut port = json!({"containerPort": port, "hostPort": port, "protocol": one(random, &["TCP", "TCP", "UDP"])});
        if random.random_bool(0.4) {
            port["hostIP"] = json!(one(random, &["0.0.0.0", "127.0.0.1", "10.0.0.1", "::"]));
        }
        ports.push(port);
    }
    let init = spec["initContainers"].is_array() && random.random_bool(0.5);
    let place = if init { "initContainers" } else { "containers" };
    spec[place][0]["ports"] = Value::Array(ports);
    if random.random_bool(0.1) {
        spec["hostNetwork"] = json!(true);
    }
}

fn node_term(random: &mut ChaCha8Rng, nodes: &[String]) -> Value {
    // A term without conditions matches nothing.
    let mut term = json!({});
    if random.random_bool(0.9) {
        term["matchExpressions"] = (0..random.random_range(1..=2)).map(|_| node_expression(random)).collect();
    }
    if random.random_bool(0.25) {
        let operator = one(random, &["In", "NotIn"]);
        term["matchFields"] = json!([{"key": "metadata.name", "operator": operator, "values": [one(random, nodes)]}]);
    }
    term
}

fn node_expression(random: &mut ChaCha8Rng) -> Value {
    let (key, values) = *one(random, &NODE_LABELS);
    let operator = *one(random, &["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]);
    match operator {
        "Exists" | "DoesNotExist" => json!({"key": key, "operator": operator}),
        "Gt" | "Lt" => json!({"key": CORES.0, "operator": operator, "values": [one(random, &["1", "3", "4", "few"])]}),
        _ => json!({"key": key, "operator": operator, "values": some(random, values)}),
    }
}

fn toleration(random: &mut ChaCha8Rng) -> Value {
    let key = *one(random, &TAINT_KEYS);
    let mut toleration = match random.random_range(0..10) {
        0 => json!({"operator": "Exists"}),
        1..=4 => json!({"key": key, "operator": "Exists"}),
        5..=7 => json!({"key": key, "operator": "Equal", "value": one(random, &TAINT_VALUES)}),
        _ => json!({"key": key, "value": one(random, &TAINT_VALUES)}),
    };
    if random.random_bool(0.4) {
        toleration["effect"] = json!(one(random, &EFFECTS));
    }
    toleration
}

/// Makes conditions on other pods for a pod with these labels.
fn pod_terms(random: &mut ChaCha8Rng, own: &Value) -> Vec<Value> {
    (0..random.random_range(1..=2)).map(|_| pod_term(random, own)).collect()
}

fn pod_term(random: &mut ChaCha8Rng, own: &Value) -> Value {
    let mut term = json!({"topologyKey": one(random, &[ZONE_LABEL, HOSTNAME_LABEL])});
    if let Some(selector) = selector(random, own) {
        term["labelSelector"] = selector;
        match random.random_range(0..6) {
            0 => term["matchLabelKeys"] = json!([REVISION]),
            1 => term["mismatchLabelKeys"] = json!([one(random, &["tier", REVISION])]),
            _ => {}
        }
    }
    match random.random_range(0..6) {
        0 | 1 => term["namespaces"] = json!(some(random, &NAMESPACES)),
        2 => term["namespaceSelector"] = json!({}),
        // Without either it speaks of the pod's own.
        _ => {}
    }
    term
}

/// Makes a selector of pods; half of the time it selects the pod's own kind. `None` selects none.
fn selector(random: &mut ChaCha8Rng, own: &Value) -> Option<Value> {
    match random.random_range(0..20) {
        0 => None,
        1 => Some(json!({})),
        2..=10 => Some(json!({"matchLabels": {"app": own["app"]}})),
        11..=15 => Some(json!({"matchLabels": {"app": one(random, &APPS)}})),
        _ => Some(json!({"matchExpressions": [pod_expression(random)]})),
    }
}

fn pod_expression(random: &mut ChaCha8Rng) -> Value {
    let (key, values): (&str, &[&str]) = if random.random_bool(0.5) { ("app", &APPS) } else { ("tier", &TIERS) };
    let operator = *one(random, &["In", "NotIn", "Exists", "DoesNotExist"]);
    match operator {
        "Exists" | "DoesNotExist" => json!({"key": key, "operator": operator}),
        _ => json!({"key": key, "operator": operator, "values": some(random, values)}),
    }
}

fn spread(random: &mut ChaCha8Rng, own: &Value) -> Value {
    let keys: &[&str] = match random.random_range(0..3) {
        0 => &[ZONE_LABEL],
        1 => &[HOSTNAME_LABEL],
        _ => &[ZONE_LABEL, HOSTNAME_LABEL],
    };
    keys.iter().map(|key| spread_over(random, key, own)).collect()
}

fn spread_over(random: &mut ChaCha8Rng, key: &str, own: &Value) -> Value {
    let hard = random.random_bool(0.9);
    let when = if hard { "DoNotSchedule" } else { "ScheduleAnyway" };
    let mut spread = json!({"topologyKey": key, "maxSkew": random.random_range(1..=2), "whenUnsatisfiable": when});
    if hard && random.random_bool(0.3) {
        spread["minDomains"] = json!(random.random_range(1..=4));
    }
    if let Some(selector) = selector(random, own) {
        spread["labelSelector"] = selector;
        if random.random_bool(0.2) {
            spread["matchLabelKeys"] = json!([REVISION]);
        }
    }
    for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        if random.random_bool(0.4) {
            spread[policy] = json!(one(random, &["Honor", "Ignore"]));
        }
    }
    spread
}
