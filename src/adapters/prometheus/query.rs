//! The queries, and how a node is told from a label's value.

use crate::config::PrometheusConfig;
use crate::model::NodeName;

/// A query, and the one that tells when the samples behind its values were taken.
///
/// The value of an instant query carries the time of its evaluation, however old the
/// samples are that it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Timed {
    pub value: String,
    pub time: String,
    /// The query is the operator's: nothing tells the samples' time once it has reckoned with them.
    pub own: bool,
}

impl Timed {
    /// Takes an operator's query.
    pub(super) fn own(query: &str) -> Self {
        Self { value: query.to_owned(), time: stamped(query), own: true }
    }
}

/// The queries for utilisation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queries {
    /// The label that names the node.
    pub label: String,
    pub cpu: Timed,
    pub memory: Timed,
}

impl Queries {
    pub(super) fn new(config: &PrometheusConfig) -> Self {
        let label = &config.node_label;
        let window = config.rate_window.as_secs().max(1);
        let cpu = Timed {
            value: format!(r#"1 - avg by ({label}) (rate(node_cpu_seconds_total{{mode="idle"}}[{window}s]))"#),
            time: format!(r#"min by ({label}) (timestamp(node_cpu_seconds_total{{mode="idle"}}))"#),
            own: false,
        };
        let memory = Timed {
            value: format!("1 - avg by ({label}) (node_memory_MemAvailable_bytes) / avg by ({label}) (node_memory_MemTotal_bytes)"),
            time: format!("min by ({label}) (timestamp(node_memory_MemAvailable_bytes))"),
            own: false,
        };
        let or = |own: &Option<String>, shipped: Timed| match own {
            Some(query) => Timed::own(query),
            None => shipped,
        };
        Self { label: label.clone(), cpu: or(&config.cpu_query, cpu), memory: or(&config.memory_query, memory) }
    }
}

/// Asks for the time of a query's samples: their own where it is a plain selector, that of
/// the evaluation otherwise. The line break ends a comment that the query may end with.
fn stamped(query: &str) -> String {
    format!("timestamp({query}\n)")
}

/// Takes the node's name from a label's value: a port at its end is not part of it. An address
/// stays one, and is no node's name.
pub(super) fn node_of(value: &str) -> Option<NodeName> {
    let bracketed = value.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    let name = match (bracketed, value.rsplit_once(':')) {
        (Some(address), _) => address,
        (None, Some((name, port))) if !name.contains(':') && !port.is_empty() && port.bytes().all(|it| it.is_ascii_digit()) => name,
        (None, _) => value,
    };
    (!name.is_empty()).then(|| NodeName::from(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_a_nodes_name() {
        let rows = [
            ("worker-1", "worker-1"),
            ("worker-1:9100", "worker-1"),
            ("10.0.0.7:9100", "10.0.0.7"),
            ("[fd00::7]:9100", "fd00::7"),
            ("fd00::7", "fd00::7"),
            ("worker-1:metrics", "worker-1:metrics"),
        ];
        for (value, name) in rows {
            assert_eq!(node_of(value), Some(name.into()), "{value}");
        }
        assert_eq!(node_of(""), None);
        assert_eq!(node_of(":9100"), None);
    }
}
