//! The counted topology against one that counts anew each time.

use super::*;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint, Taint, TaintEffect,
};
use crate::policy::fit::{Board, node_accepts, selector_accepts, tolerates_all};
use proptest::prelude::*;

/// A board that remembers pods by node and nothing else.
struct Naive<'a> {
    nodes: Vec<(&'a Node, Vec<&'a Pod>)>,
    /// Those that are closed. No pod of these tests tolerates that.
    closed: BTreeSet<usize>,
}

impl Naive<'_> {
    fn domain(&self, node: usize, key: &str) -> Option<String> {
        let (node, _) = &self.nodes[node];
        if key == HOSTNAME_LABEL { Some(node.name.to_string()) } else { node.labels.get(key).cloned() }
    }

    fn together<'b>(&'b self, at: usize, key: &'b str) -> impl Iterator<Item = &'b Pod> + 'b {
        let here = self.domain(at, key);
        let near = move |node: &usize| here.is_some() && self.domain(*node, key) == here;
        (0..self.nodes.len()).filter(near).flat_map(|node| self.nodes[node].1.iter().copied())
    }

    fn fits(&self, pod: &Pod, at: usize) -> bool {
        let selects = |term: &PodAffinityTerm, other: &Pod| {
            let named = term.namespaces.as_ref().is_none_or(|names| names.contains(&other.key.namespace));
            named && term.selector.as_ref().is_some_and(|selector| selector.matches(&other.labels))
        };
        let constraints = &*pod.constraints;
        let (node, _) = self.nodes[at];
        let apart =
            constraints.pod_anti_affinity.iter().all(|term| !self.together(at, &term.topology_key).any(|other| selects(term, other)));
        let unrepelled = (0..self.nodes.len()).all(|from| {
            self.nodes[from].1.iter().flat_map(|other| &other.constraints.pod_anti_affinity).filter(|term| selects(term, pod)).all(|term| {
                let (here, there) = (self.domain(at, &term.topology_key), self.domain(from, &term.topology_key));
                here.is_none() || here != there
            })
        });
        let all = |other: &Pod| constraints.pod_affinity.iter().all(|term| selects(term, other));
        let labelled = |key: &str| (0..self.nodes.len()).filter(|node| self.domain(*node, key).is_some()).collect::<Vec<_>>();
        let anybody = constraints
            .pod_affinity
            .iter()
            .any(|term| labelled(&term.topology_key).into_iter().any(|node| self.nodes[node].1.iter().any(|other| all(other))));
        let near = constraints.pod_affinity.iter().all(|term| {
            let first = !anybody && all(pod);
            self.domain(at, &term.topology_key).is_some() && (first || self.together(at, &term.topology_key).any(all))
        });
        node_accepts(constraints, Some(&node.name), &node.labels, &node.taints).is_ok()
            && apart
            && unrepelled
            && near
            && constraints.spread.iter().all(|spread| self.spreads(pod, at, spread))
    }

    fn spreads(&self, pod: &Pod, at: usize, spread: &SpreadConstraint) -> bool {
        let Some(here) = self.domain(at, &spread.topology_key) else { return false };
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for (index, (node, pods)) in self.nodes.iter().enumerate() {
            let all_keys = pod.constraints.spread.iter().all(|spread| self.domain(index, &spread.topology_key).is_some());
            let admitted = spread.ignores_node_affinity || selector_accepts(&pod.constraints, Some(&node.name), &node.labels).is_ok();
            let accepted = || !self.closed.contains(&index) && tolerates_all(&pod.constraints, &node.taints).is_ok();
            let tolerated = !spread.honors_taints || accepted();
            if let Some(domain) = self.domain(index, &spread.topology_key).filter(|_| all_keys && admitted && tolerated) {
                let alike = pods.iter().filter(|other| {
                    other.key.namespace == pod.key.namespace && other.terminating_since.is_none() && spread.selector.matches(&other.labels)
                });
                *counts.entry(domain).or_default() += count(alike.count());
            }
        }
        let few = spread.min_domains.is_some_and(|least| count(counts.len()) < least);
        let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
        let own = u32::from(spread.selector.matches(&pod.labels));
        counts.get(&here).copied().unwrap_or(0) + own <= least + spread.max_skew
    }
}

fn app_is(app: u8) -> Selector {
    Selector(vec![Requirement { key: "app".into(), operator: Operator::In([format!("app-{app}")].into()) }])
}

prop_compose! {
    fn terms()(terms in prop::collection::vec((0_u8..3, prop::sample::select(vec![ZONE_LABEL, HOSTNAME_LABEL, "rack"]), any::<bool>()), 0..3)) -> Vec<PodAffinityTerm> {
        terms.into_iter().map(|(app, key, everywhere)| PodAffinityTerm {
            selector: Some(app_is(app)),
            namespaces: (!everywhere).then(|| ["default".to_owned()].into()),
            topology_key: key.into(),
        }).collect()
    }
}

prop_compose! {
    fn spreads()(spreads in prop::collection::vec((0_u8..3, prop::sample::select(vec![ZONE_LABEL, HOSTNAME_LABEL, "rack"]), 1_u32..3, prop::option::of(1_u32..4), any::<bool>(), any::<bool>()), 0..3)) -> Vec<SpreadConstraint> {
        spreads.into_iter().map(|(app, key, max_skew, min_domains, ignores_node_affinity, honors_taints)| SpreadConstraint {
            topology_key: key.into(), max_skew, selector: app_is(app), min_domains, ignores_node_affinity, honors_taints,
        }).collect()
    }
}

prop_compose! {
    fn pods()(app in 0_u8..3, other in any::<bool>(), near in terms(), apart in terms(), spread in spreads(), only in prop::option::weighted(0.2, 0_u8..2), terminating in any::<bool>(), seldom in 0_u8..4) -> Pod {
        let mut constraints = Constraints { spread, ..Constraints::default() };
        if seldom == 0 { constraints.pod_affinity = near; }
        if seldom == 1 { constraints.pod_anti_affinity = apart; }
        if let Some(zone) = only {
            constraints.node_selector = Selector(vec![Requirement { key: ZONE_LABEL.into(), operator: Operator::In([format!("z{zone}")].into()) }]);
        }
        Pod {
            key: PodKey { namespace: if other { "other" } else { "default" }.into(), name: "pod".into() },
            labels: Arc::new(Labels::from([("app".into(), format!("app-{app}"))])),
            constraints: Arc::new(constraints),
            terminating_since: (terminating && seldom == 3).then(start),
            requests: Resources { cpu: MilliCpu(1), pods: 1, ..Resources::default() },
            ..Pod::default()
        }
    }
}

prop_compose! {
    fn places()(zone in prop::option::weighted(0.9, 0_u8..3), rack in prop::option::of(0_u8..2), tainted in prop::bool::weighted(0.1)) -> Node {
        let mut place = node("n", "a");
        place.labels = Labels::new();
        place.labels.extend(zone.map(|zone| (ZONE_LABEL.to_owned(), format!("z{zone}"))));
        place.labels.extend(rack.map(|rack| ("rack".to_owned(), format!("r{rack}"))));
        if tainted {
            place.taints.push(Taint { key: "team".into(), value: String::new(), effect: TaintEffect::NoSchedule });
        }
        place
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_counted_is_what_one_would_count(
        places in prop::collection::vec(places(), 1..7),
        pods in prop::collection::vec((pods(), 0_usize..7, 0_u8..9), 0..25),
        late in places(),
    ) {
        let mut places = places;
        for (index, place) in places.iter_mut().enumerate() {
            place.name = format!("n{index}").as_str().into();
        }
        let room = capacity(1_000_000, 1000);
        let (mut board, mut naive) = (Board::default(), Naive { nodes: Vec::new(), closed: BTreeSet::new() });
        for place in &places {
            board.add(Some(&place.name), &place.labels, &place.taints, &room, true);
            naive.nodes.push((place, Vec::new()));
        }
        for (pod, at, act) in &pods {
            let shape = board.shape(pod);
            for node in 0..places.len() {
                prop_assert_eq!(board.fits(shape, node).is_ok(), naive.fits(pod, node), "{:?} on n{}", pod, node);
            }
            let at = at % places.len();
            match act {
                0 => {
                    let lay = board.clear(at);
                    prop_assert_eq!(lay.len(), naive.nodes[at].1.len());
                    naive.nodes[at].1.clear();
                    naive.closed.insert(at);
                }
                1 => {
                    board.take_last(at);
                    naive.nodes[at].1.pop();
                }
                2 => {
                    let lay = board.clear(at);
                    board.restore(at, &lay);
                    naive.closed.remove(&at);
                }
                3 => {
                    // A node that is looked at and dropped again leaves nothing behind.
                    let bin = board.add(None, &late.labels, &late.taints, &room, true);
                    board.place(pod, bin);
                    board.truncate(bin);
                }
                4 => {
                    let is_open = board.bin(at).is_open();
                    board.set_open(at, !is_open);
                    if is_open { naive.closed.insert(at) } else { naive.closed.remove(&at) };
                }
                _ => {
                    board.place(pod, at);
                    naive.nodes[at].1.push(pod);
                }
            }
        }
    }
}
