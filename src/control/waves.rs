//! In which order the pods of a node are asked to leave when there is time for an order.

use crate::model::Pod;
use std::collections::BTreeMap;

/// The label that a stateful set's controller gives its pods.
const STATEFUL: &str = "statefulset.kubernetes.io/pod-name";

/// Pods of one priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wave<'p> {
    /// Those that are to be asked now.
    pub asked: Vec<&'p Pod>,
    /// Others of the wave are on their way out.
    pub leaving: bool,
}

impl<'p> Wave<'p> {
    /// Asks everybody who has not been asked.
    #[must_use]
    pub fn of_all(pods: &[&'p Pod]) -> Self {
        let (asked, leaving): (Vec<_>, Vec<_>) = pods.iter().copied().partition(|pod| pod.terminating_since.is_none());
        Self { asked, leaving: !leaving.is_empty() }
    }
}

/// Orders the pods that are still there: the least important first, and of a stateful set one pod at a time, the one
/// with the highest number first, as its controller does.
#[must_use]
pub fn waves<'p>(pods: &[&'p Pod]) -> Vec<Wave<'p>> {
    let mut by_priority: BTreeMap<i32, Vec<&'p Pod>> = BTreeMap::new();
    for pod in pods {
        by_priority.entry(pod.priority).or_default().push(pod);
    }
    by_priority.into_values().map(|pods| in_turn(&pods)).collect()
}

fn in_turn<'p>(pods: &[&'p Pod]) -> Wave<'p> {
    let mut wave = Wave::default();
    let mut sets: BTreeMap<(&str, &str), Vec<(u32, &'p Pod)>> = BTreeMap::new();
    for pod in pods {
        match ordinal(pod) {
            Some((set, number)) => sets.entry(set).or_default().push((number, pod)),
            None if pod.terminating_since.is_some() => wave.leaving = true,
            None => wave.asked.push(pod),
        }
    }
    for pods in sets.into_values() {
        if pods.iter().any(|(_, pod)| pod.terminating_since.is_some()) {
            wave.leaving = true;
        } else {
            wave.asked.extend(pods.into_iter().max_by_key(|(number, _)| *number).map(|(_, pod)| pod));
        }
    }
    wave
}

/// Gives the stateful set that a pod belongs to, and its number in it.
fn ordinal(pod: &Pod) -> Option<((&str, &str), u32)> {
    pod.labels.get(STATEFUL)?;
    let (set, number) = pod.key.name.rsplit_once('-')?;
    Some(((pod.key.namespace.as_str(), set), number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PodKey;
    use crate::model::scheduling::Labels;
    use jiff::Timestamp;
    use std::sync::Arc;

    fn pod(name: &str, priority: i32) -> Pod {
        Pod { key: PodKey { namespace: "default".into(), name: name.into() }, priority, ..Pod::default() }
    }

    fn stateful(name: &str) -> Pod {
        let labels = Labels::from([(STATEFUL.to_owned(), name.to_owned())]);
        Pod { labels: Arc::new(labels), ..pod(name, 0) }
    }

    fn ending(pod: Pod) -> Pod {
        Pod { terminating_since: Some(Timestamp::UNIX_EPOCH), ..pod }
    }

    /// The names of each wave, and whether others of it are leaving.
    fn told(pods: &[Pod]) -> Vec<(Vec<String>, bool)> {
        let pods: Vec<&Pod> = pods.iter().collect();
        let names = |wave: Wave<'_>| (wave.asked.iter().map(|pod| pod.key.name.clone()).collect(), wave.leaving);
        waves(&pods).into_iter().map(names).collect()
    }

    fn wave(names: &[&str], leaving: bool) -> (Vec<String>, bool) {
        (names.iter().map(|name| (*name).to_owned()).collect(), leaving)
    }

    #[test]
    fn the_least_important_leave_first() {
        let pods = [pod("web", 0), pod("batch", -5), pod("db", 1000), pod("cache", 0)];
        assert_eq!(told(&pods), [wave(&["batch"], false), wave(&["web", "cache"], false), wave(&["db"], false)]);
        assert_eq!(told(&[ending(pod("a", 0)), pod("b", 0), pod("c", 1)]), [wave(&["b"], true), wave(&["c"], false)]);
        assert_eq!(told(&[]), []);
    }

    #[test]
    fn of_a_stateful_set_one_leaves_at_a_time_the_highest_number_first() {
        let pods = [stateful("db-2"), stateful("db-10"), stateful("queue-0"), pod("web", 0)];
        assert_eq!(told(&pods), [wave(&["web", "db-10", "queue-0"], false)]);
        let pods = [stateful("db-2"), ending(stateful("db-10")), stateful("queue-0")];
        assert_eq!(told(&pods), [wave(&["queue-0"], true)]);
        // A pod of that name that is none of a stateful set.
        assert_eq!(told(&[pod("db-1", 0), pod("db-2", 0)]), [wave(&["db-1", "db-2"], false)]);
    }

    #[test]
    fn in_a_hurry_everybody_is_asked() {
        let pods = [stateful("db-1"), stateful("db-2"), pod("web", 7), ending(pod("old", 0))];
        let wave = Wave::of_all(&pods.iter().collect::<Vec<_>>());
        assert_eq!((wave.asked.len(), wave.leaving), (3, true));
    }
}
