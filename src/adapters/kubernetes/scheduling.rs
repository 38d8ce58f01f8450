//! Reads where a pod may go.

use super::requests::is_sidecar;
use super::selectors::{equals, label_selector, node_terms, nothing};
use super::wire::PodSpec;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, HostPort, Labels, NodeSelectorTerm, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint,
    TaintEffect, Toleration,
};
use k8s_openapi::api::core::v1::{self as core, Affinity};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeSet;

/// Reads where a pod may go, its volumes left aside. What is not modelled is named.
///
/// # Errors
/// When it asks for a port that is none.
pub(super) fn constraints(spec: &PodSpec, namespace: &str, labels: &Labels) -> Result<Constraints, String> {
    let mut constraints = Constraints {
        node_selector: Selector(spec.node_selector.iter().flatten().map(|(key, value)| equals(key, value)).collect()),
        host_ports: host_ports(spec)?,
        ..Constraints::default()
    };
    add_tolerations(&mut constraints, spec.tolerations.as_deref().unwrap_or_default());
    if let Some(affinity) = &spec.affinity {
        add_affinity(&mut constraints, affinity, namespace, labels);
    }
    for spread in spec.topology_spread_constraints.iter().flatten() {
        if spread.when_unsatisfiable == "DoNotSchedule" {
            match read_spread(spread, labels) {
                Ok(spread) => constraints.spread.push(spread),
                Err(why) => constraints.unmodelled.push(format!("topology spread: {why}")),
            }
        }
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        constraints.unmodelled.push("dynamic resource claims".to_owned());
    }
    if spec.scheduling_group.is_some() {
        constraints.unmodelled.push("scheduling group".to_owned());
    }
    for volume in spec.volumes.iter().flatten().filter(|volume| volume.aws_elastic_block_store.is_some()) {
        constraints.unmodelled.push(format!("volume `{}` names an EBS disk itself", volume.name.as_deref().unwrap_or_default()));
    }
    Ok(constraints)
}

/// Adds to a pod's constraints what it prefers: even spread, no pod near that it would rather be apart from, the pods
/// that it would most like to be near, and the nodes that it likes most. `None` when it prefers nothing that is modelled.
///
/// Of preferences that may contradict each other the heaviest is taken, the first of equal ones.
pub(super) fn preferred(base: &Constraints, spec: &PodSpec, namespace: &str, labels: &Labels) -> Option<Constraints> {
    let mut wish = base.clone();
    let soft = spec.topology_spread_constraints.iter().flatten().filter(|spread| spread.when_unsatisfiable == "ScheduleAnyway");
    wish.spread.extend(soft.filter_map(|spread| read_spread(spread, labels).ok()));
    let affinity = spec.affinity.as_ref();
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    let apart = apart.and_then(|apart| apart.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    wish.pod_anti_affinity.extend(apart.iter().filter_map(|it| read_pod_term(&it.pod_affinity_term, namespace, labels).ok()));
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let near = near.and_then(|near| near.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    // No node that is new has a neighbour.
    let near = near.iter().filter(|it| it.pod_affinity_term.topology_key != HOSTNAME_LABEL);
    let heaviest = near.rev().max_by_key(|it| it.weight);
    wish.pod_affinity.extend(heaviest.and_then(|it| read_pod_term(&it.pod_affinity_term, namespace, labels).ok()));
    let nodes = affinity.and_then(|affinity| affinity.node_affinity.as_ref());
    let nodes = nodes.and_then(|nodes| nodes.preferred_during_scheduling_ignored_during_execution.as_deref()).unwrap_or_default();
    if let Some(liked) = nodes.iter().rev().max_by_key(|it| it.weight) {
        let selector = core::NodeSelector { node_selector_terms: vec![liked.preference.clone()] };
        let liked = node_terms(&selector).ok().and_then(|terms| terms.into_iter().next());
        let all = |required: &[NodeSelectorTerm], liked: NodeSelectorTerm| match required {
            [] => vec![liked],
            required => required.iter().map(|term| both(term, &liked)).collect(),
        };
        wish.node_affinity = liked.map_or_else(|| base.node_affinity.clone(), |liked| all(&base.node_affinity, liked));
    }
    (wish != *base).then_some(wish)
}

fn both(one: &NodeSelectorTerm, other: &NodeSelectorTerm) -> NodeSelectorTerm {
    let join = |one: &Selector, other: &Selector| Selector(one.0.iter().chain(&other.0).cloned().collect());
    NodeSelectorTerm { labels: join(&one.labels, &other.labels), fields: join(&one.fields, &other.fields) }
}

/// Reads a taint's effect.
pub(super) fn effect(text: &str) -> Option<TaintEffect> {
    match text {
        "NoSchedule" => Some(TaintEffect::NoSchedule),
        "PreferNoSchedule" => Some(TaintEffect::PreferNoSchedule),
        "NoExecute" => Some(TaintEffect::NoExecute),
        _ => None,
    }
}

fn add_tolerations(constraints: &mut Constraints, tolerations: &[core::Toleration]) {
    for toleration in tolerations {
        let key = toleration.key.clone().filter(|key| !key.is_empty());
        let effect_text = toleration.effect.as_deref().filter(|text| !text.is_empty());
        let effect = effect_text.and_then(effect);
        if effect_text.is_some() != effect.is_some() {
            // It tolerates an effect that no taint here has.
            continue;
        }
        match toleration.operator.as_deref().unwrap_or_default() {
            "Exists" => constraints.tolerations.push(Toleration { key, value: None, effect }),
            "" | "Equal" => {
                // Without a key only `Exists` means something.
                if key.is_some() {
                    let value = Some(toleration.value.clone().unwrap_or_default());
                    constraints.tolerations.push(Toleration { key, value, effect });
                }
            }
            other => constraints.unmodelled.push(format!("toleration operator `{}`", other.chars().take(32).collect::<String>())),
        }
    }
}

fn add_affinity(constraints: &mut Constraints, affinity: &Affinity, namespace: &str, labels: &Labels) {
    let required = affinity.node_affinity.as_ref().and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    match required.map(node_terms) {
        None => {}
        Some(Ok(terms)) => constraints.node_affinity = terms,
        Some(Err(why)) => constraints.unmodelled.push(format!("node affinity: {why}")),
    }
    let together = affinity.pod_affinity.as_ref().and_then(|pod| pod.required_during_scheduling_ignored_during_execution.as_ref());
    for term in together.into_iter().flatten() {
        match read_pod_term(term, namespace, labels) {
            Ok(term) => constraints.pod_affinity.push(term),
            Err(why) => constraints.unmodelled.push(format!("pod affinity: {why}")),
        }
    }
    let apart = affinity.pod_anti_affinity.as_ref().and_then(|pod| pod.required_during_scheduling_ignored_during_execution.as_ref());
    for term in apart.into_iter().flatten() {
        match read_pod_term(term, namespace, labels) {
            Ok(term) => constraints.pod_anti_affinity.push(term),
            Err(why) => {
                constraints.unmodelled.push(format!("pod anti-affinity: {why}"));
                // It keeps others away all the same: rather too many than too few.
                let selector = term_selector(term, labels).unwrap_or_else(|_| Some(Selector::default()));
                constraints.pod_anti_affinity.push(PodAffinityTerm { selector, namespaces: None, topology_key: term.topology_key.clone() });
            }
        }
    }
}

fn term_selector(term: &core::PodAffinityTerm, labels: &Labels) -> Result<Option<Selector>, String> {
    let mut selector = term.label_selector.as_ref().map(label_selector).transpose()?;
    if let Some(selector) = &mut selector {
        selector.0.extend(own_values(term.match_label_keys.as_ref(), labels, Operator::In));
        selector.0.extend(own_values(term.mismatch_label_keys.as_ref(), labels, Operator::NotIn));
    }
    Ok(selector)
}

fn read_pod_term(term: &core::PodAffinityTerm, namespace: &str, labels: &Labels) -> Result<PodAffinityTerm, String> {
    let selector = term_selector(term, labels)?;
    let named: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    let namespaces = match &term.namespace_selector {
        None if named.is_empty() => Some(BTreeSet::from([namespace.to_owned()])),
        None => Some(named),
        Some(every) if *every == LabelSelector::default() => None,
        Some(every) if label_selector(every)? == Selector::default() => None,
        Some(_) => return Err("namespaceSelector".to_owned()),
    };
    Ok(PodAffinityTerm { selector, namespaces, topology_key: term.topology_key.clone() })
}

fn read_spread(spread: &core::TopologySpreadConstraint, labels: &Labels) -> Result<SpreadConstraint, String> {
    let honors = |key: &str, policy: Option<&String>, usual: bool| match policy.map(String::as_str) {
        None => Ok(usual),
        Some("Honor") => Ok(true),
        Some("Ignore") => Ok(false),
        Some(other) => Err(format!("{key} `{}`", other.chars().take(32).collect::<String>())),
    };
    // Without a selector no pod is counted.
    let mut selector = spread.label_selector.as_ref().map_or_else(|| Ok(nothing()), label_selector)?;
    selector.0.extend(own_values(spread.match_label_keys.as_ref(), labels, Operator::In));
    Ok(SpreadConstraint {
        topology_key: spread.topology_key.clone(),
        max_skew: u32::try_from(spread.max_skew).unwrap_or(0).max(1),
        selector,
        min_domains: spread.min_domains.and_then(|domains| u32::try_from(domains).ok()),
        ignores_node_affinity: !honors("nodeAffinityPolicy", spread.node_affinity_policy.as_ref(), true)?,
        honors_taints: honors("nodeTaintsPolicy", spread.node_taints_policy.as_ref(), false)?,
    })
}

/// Asks of other pods the values that the pod itself has under these keys; a key it lacks says nothing.
fn own_values(keys: Option<&Vec<String>>, labels: &Labels, operator: fn(BTreeSet<String>) -> Operator) -> Vec<Requirement> {
    let own = |key: &String| Some(Requirement { key: key.clone(), operator: operator(BTreeSet::from([labels.get(key)?.clone()])) });
    keys.into_iter().flatten().filter_map(own).collect()
}

fn host_ports(spec: &PodSpec) -> Result<Vec<HostPort>, String> {
    let on_host = spec.host_network == Some(true);
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let mut taken = BTreeSet::new();
    for port in spec.containers.iter().flatten().chain(sidecars).flat_map(|container| container.ports.iter().flatten()) {
        // On the host's network a port of the container is one of the host.
        let number = port.host_port.filter(|number| *number != 0).or_else(|| on_host.then_some(port.container_port));
        let Some(number) = number else { continue };
        taken.insert(HostPort {
            ip: port.host_ip.clone().unwrap_or_default(),
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            port: u16::try_from(number).map_err(|_| format!("host port {number} is none"))?,
        });
    }
    Ok(taken.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scheduling::Taint;
    use serde_json::{Value, json};

    fn read(spec: Value) -> Constraints {
        let labels = Labels::from([("app".to_owned(), "web".to_owned()), ("hash".to_owned(), "1".to_owned())]);
        constraints(&serde_json::from_value(spec).expect("a pod spec"), "own", &labels).expect("sound constraints")
    }

    fn anti_affinity(term: Value) -> Constraints {
        let mut term = term;
        term["topologyKey"] = json!("kubernetes.io/hostname");
        read(json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}}))
    }

    #[test]
    fn a_toleration_means_what_the_scheduler_makes_of_it() {
        let taint = Taint { key: "team".into(), value: "red".into(), effect: TaintEffect::NoExecute };
        for (toleration, tolerates) in [
            (json!({"operator": "Exists"}), true),
            (json!({"key": "", "operator": "Exists", "effect": ""}), true),
            (json!({"key": "team", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}), true),
            (json!({"key": "team", "value": "red"}), true),
            (json!({"key": "team", "operator": "Equal", "value": "blue"}), false),
            (json!({"key": "team", "operator": "Equal"}), false),
            (json!({"value": "red"}), false),
            (json!({"key": "team", "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "team", "operator": "Exists", "effect": "Never"}), false),
        ] {
            let constraints = read(json!({"tolerations": [toleration]}));
            assert_eq!(constraints.tolerations.iter().any(|t| t.tolerates(&taint)), tolerates, "{toleration}");
            assert!(constraints.unmodelled.is_empty());
        }
        assert_eq!(read(json!({"tolerations": [{"key": "k", "operator": "Gt", "value": "1"}]})).unmodelled, ["toleration operator `Gt`"]);
    }

    #[test]
    fn an_affinity_speaks_of_the_pods_own_namespace_unless_it_names_others() {
        let selector = json!({"matchLabels": {"app": "web"}});
        for (term, expected) in [
            (json!({"labelSelector": selector}), Some(vec!["own"])),
            (json!({"labelSelector": selector, "namespaces": ["a", "b"]}), Some(vec!["a", "b"])),
            (json!({"labelSelector": selector, "namespaceSelector": {}}), None),
        ] {
            let constraints = anti_affinity(term);
            let namespaces = constraints.pod_anti_affinity[0].namespaces.clone();
            assert_eq!(namespaces, expected.map(|names| names.into_iter().map(str::to_owned).collect()));
        }
        let selected = anti_affinity(json!({"labelSelector": selector, "namespaceSelector": {"matchLabels": {"team": "red"}}}));
        assert_eq!(selected.unmodelled, ["pod anti-affinity: namespaceSelector"]);
        let everywhere = anti_affinity(json!({"labelSelector": selector, "namespaceSelector": {}}));
        assert_eq!(selected.pod_anti_affinity, everywhere.pod_anti_affinity, "it keeps the pods of every namespace away");
    }

    #[test]
    fn preferences_become_constraints_the_heaviest_where_they_may_contradict() {
        let wish = |spec: Value| {
            let labels = Labels::from([("app".to_owned(), "web".to_owned())]);
            let spec = serde_json::from_value(spec).expect("a pod spec");
            let base = constraints(&spec, "own", &labels).expect("sound constraints");
            preferred(&base, &spec, "own", &labels)
        };
        let zone = "topology.kubernetes.io/zone";
        let likes = |weight: i32, value: &str| {
            let expression = json!({"key": "disk", "operator": "In", "values": [value]});
            json!({"weight": weight, "preference": {"matchExpressions": [expression]}})
        };
        let must = json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "arch", "operator": "Exists"}]}]});
        let nodes = json!({
            "preferredDuringSchedulingIgnoredDuringExecution": [likes(1, "hdd"), likes(9, "ssd"), likes(9, "nvme")],
            "requiredDuringSchedulingIgnoredDuringExecution": must,
        });
        let found = wish(json!({"affinity": {"nodeAffinity": nodes}})).expect("a preference");
        let node = |disk: &str| Labels::from([("disk".to_owned(), disk.to_owned()), ("arch".to_owned(), "arm64".to_owned())]);
        let accepts = |disk: &str| found.node_affinity.iter().any(|term| term.labels.matches(&node(disk)));
        assert_eq!(["ssd", "nvme", "hdd"].map(accepts), [true, false, false]);
        assert!(!found.node_affinity[0].labels.matches(&Labels::from([("disk".to_owned(), "ssd".to_owned())])), "what is required stays");
        let term = |weight: i32, key: &str| json!({"weight": weight, "podAffinityTerm": {"topologyKey": key, "labelSelector": {}}});
        let terms = json!({"preferredDuringSchedulingIgnoredDuringExecution": [term(9, HOSTNAME_LABEL), term(1, zone)]});
        let spread = json!([{"maxSkew": 1, "topologyKey": zone, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}]);
        let found = wish(json!({"affinity": {"podAffinity": terms, "podAntiAffinity": terms}, "topologySpreadConstraints": spread}));
        let found = found.expect("preferences");
        assert_eq!((found.pod_affinity.len(), found.pod_anti_affinity.len(), found.spread.len()), (1, 2, 1));
        assert_eq!(found.pod_affinity[0].topology_key, zone, "no node that is new has a neighbour");
        assert_eq!(wish(json!({"nodeSelector": {"disk": "ssd"}})), None);
    }

    #[test]
    fn an_affinity_without_a_selector_matches_no_pod() {
        assert_eq!(anti_affinity(json!({})).pod_anti_affinity[0].selector, None);
    }

    #[test]
    fn label_keys_stand_for_the_pods_own_values() {
        let term = json!({"labelSelector": {}, "matchLabelKeys": ["hash", "absent"], "mismatchLabelKeys": ["app"]});
        let constraints = anti_affinity(term);
        let selector = constraints.pod_anti_affinity[0].selector.as_ref().expect("a selector");
        let labels = |app: &str, hash: &str| Labels::from([("app".into(), app.into()), ("hash".into(), hash.into())]);
        assert!(selector.matches(&labels("db", "1")));
        assert!(!selector.matches(&labels("web", "1")));
        assert!(!selector.matches(&labels("db", "2")));
    }

    #[test]
    fn only_a_hard_spread_counts() {
        let spread = |when: &str, more: Value| {
            let mut constraint = json!({"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": when, "minDomains": 3});
            for (key, value) in more.as_object().into_iter().flatten() {
                constraint[key] = value.clone();
            }
            read(json!({"topologySpreadConstraints": [constraint]}))
        };
        assert_eq!(spread("ScheduleAnyway", json!({})), Constraints::default());
        let hard =
            spread("DoNotSchedule", json!({"nodeAffinityPolicy": "Honor", "nodeTaintsPolicy": "Ignore", "matchLabelKeys": ["hash"]}));
        assert_eq!((hard.spread[0].max_skew, hard.spread[0].min_domains), (2, Some(3)));
        assert!(!hard.spread[0].selector.matches(&Labels::new()));
        assert!(!hard.spread[0].ignores_node_affinity && !hard.spread[0].honors_taints);
        let other = spread("DoNotSchedule", json!({"nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"}));
        assert!(other.spread[0].ignores_node_affinity && other.spread[0].honors_taints);
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let constraints = spread("DoNotSchedule", json!({policy: "Maybe"}));
            assert!(constraints.spread.is_empty());
            assert_eq!(constraints.unmodelled, [format!("topology spread: {policy} `Maybe`")]);
        }
    }

    #[test]
    fn host_ports_are_those_of_containers_and_sidecars() {
        let port = |container: i32, host: i32| json!([{"containerPort": container, "hostPort": host}]);
        let constraints = read(json!({
            "containers": [{"ports": port(80, 8080)}, {"ports": port(80, 8080)}, {"ports": [{"containerPort": 81}]}],
            "initContainers": [{"ports": port(1, 1)}, {"restartPolicy": "Always", "ports": port(2, 2)}],
        }));
        assert_eq!(constraints.host_ports.iter().map(|port| port.port).collect::<Vec<_>>(), [2, 8080]);
        let on_host = read(json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 81}]}]}));
        assert_eq!(on_host.host_ports[0].port, 81);
    }

    #[test]
    fn a_port_out_of_range_refuses_the_pod() {
        let spec = json!({"containers": [{"ports": [{"containerPort": 1, "hostPort": 70000}]}]});
        let error = constraints(&serde_json::from_value(spec).expect("a pod spec"), "own", &Labels::new());
        assert_eq!(error, Err("host port 70000 is none".to_owned()));
    }

    #[test]
    fn names_what_is_not_modelled() {
        let constraints = read(json!({
            "resourceClaims": [{"name": "gpu", "resourceClaimName": "gpu"}],
            "schedulingGroup": {"podGroupName": "g"},
            "volumes": [{"name": "disk", "awsElasticBlockStore": {"volumeID": "vol-1"}}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Near"}]}],
            }}},
        }));
        assert_eq!(
            constraints.unmodelled,
            [
                "node affinity: the operator `Near` on k",
                "dynamic resource claims",
                "scheduling group",
                "volume `disk` names an EBS disk itself"
            ]
        );
    }
}
