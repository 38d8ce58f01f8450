//! Reads label selectors and node selector terms.

use crate::model::scheduling::{HOSTNAME_LABEL, NodeSelectorTerm, Operator, Requirement, Selector};
use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use std::collections::BTreeSet;

/// Reads a label selector. An empty one selects everything.
///
/// # Errors
/// When it uses an operator that is unknown here.
pub(super) fn label_selector(selector: &LabelSelector) -> Result<Selector, String> {
    let labels = selector.match_labels.iter().flatten().map(|(key, value)| Ok(equals(key, value)));
    let expressions = selector.match_expressions.iter().flatten();
    let expressions = expressions.map(|e| requirement(&e.key, &e.operator, e.values.as_deref().unwrap_or_default()));
    labels.chain(expressions).collect::<Result<_, _>>().map(Selector)
}

/// Reads the terms of a node selector: alternatives, of which a node must meet one.
///
/// A term without conditions selects nothing and is left out. When none is left, the one term
/// that no node meets stands for them, since no terms at all mean no constraint.
///
/// # Errors
/// When a term uses an operator that is unknown here.
pub(super) fn node_terms(selector: &NodeSelector) -> Result<Vec<NodeSelectorTerm>, String> {
    let mut terms = Vec::new();
    for term in &selector.node_selector_terms {
        let labels = requirements(term.match_expressions.as_deref().unwrap_or_default())?;
        let fields = requirements(term.match_fields.as_deref().unwrap_or_default())?;
        if !labels.0.is_empty() || !fields.0.is_empty() {
            terms.push(NodeSelectorTerm { labels, fields });
        }
    }
    if terms.is_empty() {
        terms.push(NodeSelectorTerm { labels: nothing(), fields: Selector::default() });
    }
    Ok(terms)
}

/// Asks for one value of a label.
pub(super) fn equals(key: &str, value: &str) -> Requirement {
    Requirement { key: key.to_owned(), operator: Operator::In(BTreeSet::from([value.to_owned()])) }
}

/// Makes a selector that selects nothing.
pub(super) fn nothing() -> Selector {
    Selector(vec![Requirement { key: HOSTNAME_LABEL.to_owned(), operator: Operator::In(BTreeSet::new()) }])
}

fn requirements(expressions: &[NodeSelectorRequirement]) -> Result<Selector, String> {
    let read = |e: &NodeSelectorRequirement| requirement(&e.key, &e.operator, e.values.as_deref().unwrap_or_default());
    expressions.iter().map(read).collect::<Result<_, _>>().map(Selector)
}

fn requirement(key: &str, operator: &str, values: &[String]) -> Result<Requirement, String> {
    let set = || values.iter().cloned().collect();
    // Kubernetes lets a bound that is no integer match nothing.
    let bound = |bounded: fn(i64) -> Operator| match values {
        [value] => value.parse().map_or_else(|_| Operator::In(BTreeSet::new()), bounded),
        _ => Operator::In(BTreeSet::new()),
    };
    let operator = match operator {
        "In" => Operator::In(set()),
        "NotIn" => Operator::NotIn(set()),
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => bound(Operator::GreaterThan),
        "Lt" => bound(Operator::LessThan),
        other => return Err(format!("the operator `{}` on {key}", other.chars().take(32).collect::<String>())),
    };
    Ok(Requirement { key: key.to_owned(), operator })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::scheduling::Labels;
    use serde_json::{Value, json};

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn terms(value: &Value) -> Result<Vec<NodeSelectorTerm>, String> {
        node_terms(&serde_json::from_value(json!({"nodeSelectorTerms": value})).expect("a node selector"))
    }

    #[test]
    fn joins_labels_and_expressions_of_a_selector() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["test"]}],
        });
        let selector = label_selector(&serde_json::from_value(selector).expect("a selector")).expect("known operators");
        assert!(selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "test")])));
        assert!(!selector.matches(&labels(&[])));
    }

    #[test]
    fn an_empty_selector_selects_everything_and_an_empty_term_nothing() {
        let everything = label_selector(&LabelSelector::default()).expect("no operators");
        assert!(everything.matches(&labels(&[("a", "b")])));
        for empty in [json!([]), json!([{}]), json!([{"matchExpressions": []}])] {
            let terms = terms(&empty).expect("no operators");
            assert_eq!(terms.len(), 1);
            assert!(!terms[0].labels.matches(&labels(&[(HOSTNAME_LABEL, "w1")])));
        }
    }

    #[test]
    fn a_bound_is_an_integer_or_matches_nothing() {
        for (operator, bound, matches) in [("Gt", "7", true), ("Lt", "7", false), ("Gt", "seven", false), ("Lt", "", false)] {
            let terms = terms(&json!([{"matchExpressions": [{"key": "cores", "operator": operator, "values": [bound]}]}]));
            assert_eq!(terms.expect("known operators")[0].labels.matches(&labels(&[("cores", "8")])), matches, "{operator} {bound}");
        }
    }

    #[test]
    fn names_an_operator_it_does_not_know() {
        let error = terms(&json!([{"matchExpressions": [{"key": "k", "operator": "Near", "values": ["1"]}]}]));
        assert_eq!(error, Err("the operator `Near` on k".to_owned()));
    }
}
