//! Daemons that come to some offers of a pool alone, by architecture, market or type: what they take there, and whom they keep away.

use super::*;
use crate::model::operation::LaunchedInstance;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, HostPort, MARKET_LABEL, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint,
};
use crate::model::snapshot::DaemonSet;
use proptest::prelude::*;

fn value(key: &str, value: &str) -> Selector {
    Selector(vec![Requirement { key: key.into(), operator: Operator::In(BTreeSet::from([value.to_owned()])) }])
}

fn labelled(name: &str) -> Labels {
    Labels::from([("app".to_owned(), name.to_owned())])
}

fn at_port(port: u16) -> Constraints {
    Constraints { host_ports: vec![HostPort { ip: String::new(), protocol: "TCP".into(), port }], ..Constraints::default() }
}

fn term(app: &str, key: &str) -> Vec<PodAffinityTerm> {
    vec![PodAffinityTerm { selector: Some(value("app", app)), namespaces: None, topology_key: key.into() }]
}

fn apart_from(app: &str) -> Constraints {
    Constraints { pod_anti_affinity: term(app, HOSTNAME_LABEL), ..Constraints::default() }
}

fn near(app: &str) -> Constraints {
    Constraints { pod_affinity: term(app, HOSTNAME_LABEL), ..Constraints::default() }
}

fn spread_over(key: &str) -> Constraints {
    let spread = SpreadConstraint {
        topology_key: key.into(),
        max_skew: 1,
        selector: value("app", "web"),
        min_domains: None,
        ignores_node_affinity: false,
        honors_taints: false,
    };
    Constraints { spread: vec![spread], ..Constraints::default() }
}

/// A daemon of the nodes that have this label.
fn daemon(name: &str, (key, of): (&str, &str), constraints: Constraints, milli_cpu: u64) -> DaemonSet {
    let node_selector = if key.is_empty() { Selector::default() } else { value(key, of) };
    DaemonSet {
        namespace: "kube-system".into(),
        name: name.into(),
        labels: labelled(name),
        requests: Resources { cpu: MilliCpu(milli_cpu), pods: 1, ..Resources::default() },
        constraints: Constraints { node_selector, ..constraints },
    }
}

/// A pod of the workload `web`.
fn web(name: &str, constraints: Constraints) -> Pod {
    Pod { constraints: Arc::new(constraints), labels: Arc::new(labelled("web")), ..pending(name, 400) }
}

/// Two full nodes. What can be bought comes of two architectures and in both markets; the next node is to be spot.
fn scene(daemons: impl IntoIterator<Item = DaemonSet>) -> Scene {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1900, "n0"), running("b", 1900, "n1")]);
    // Either architecture is there before anything is bought.
    scene = scene.with("n0", |node| drop(node.labels.insert(ARCH_LABEL.into(), "amd64".into())));
    scene = scene.with("n1", |node| drop(node.labels.insert(ARCH_LABEL.into(), "arm64".into())));
    scene.offers.clear();
    for zone in ["a", "b"] {
        for (kind, arch, cpu, gib, price) in
            [("m5.large", "amd64", 1900, 7, 960), ("m6g.large", "arm64", 1900, 7, 770), ("m5.xlarge", "amd64", 3900, 15, 1920)]
        {
            for (market, percent) in [(Market::OnDemand, 100), (Market::Spot, 35)] {
                let mut offer = offer(kind, zone, market, price * percent, capacity(cpu, gib));
                offer.labels.insert(ARCH_LABEL.into(), arch.into());
                offer.labels.insert(MARKET_LABEL.into(), market.to_string());
                scene.offers.push(offer);
            }
        }
    }
    scene.view.daemon_sets.extend(daemons);
    scene
}

/// What was bought, and the types that EC2 may choose from.
fn bought(plan: &Plan) -> Vec<(Market, Vec<&str>)> {
    launches(plan).into_iter().map(|order| (order.market, order.instance_types.iter().map(|name| name.as_str()).collect())).collect()
}

#[test]
fn what_a_daemon_does_on_the_offers_that_it_comes_to_says_nothing_about_the_others() {
    let (spot, on_demand, arm) = ((MARKET_LABEL, "spot"), (MARKET_LABEL, "on-demand"), (ARCH_LABEL, "arm64"));
    let (amd, own_type) = ((ARCH_LABEL, "amd64"), (INSTANCE_TYPE_LABEL, "m6g.large"));
    let port = || at_port(8080);
    let rows = [
        ("a port, on spot", daemon("d", spot, port(), 0), port(), Market::OnDemand, vec!["m6g.large", "m5.large"]),
        ("a port, on demand", daemon("d", on_demand, port(), 0), port(), Market::Spot, vec!["m6g.large", "m5.large"]),
        ("a port, on arm64", daemon("d", arm, port(), 0), port(), Market::Spot, vec!["m5.large"]),
        ("a port, on amd64", daemon("d", amd, port(), 0), port(), Market::Spot, vec!["m6g.large"]),
        ("a port, of a type", daemon("d", own_type, port(), 0), port(), Market::Spot, vec!["m5.large"]),
        ("apart from it", daemon("d", spot, port(), 0), apart_from("d"), Market::OnDemand, vec!["m6g.large", "m5.large"]),
        ("near it", daemon("d", arm, port(), 0), near("d"), Market::Spot, vec!["m6g.large"]),
        ("near it, on demand", daemon("d", on_demand, port(), 0), near("d"), Market::OnDemand, vec!["m6g.large", "m5.large"]),
        ("it keeps away", daemon("d", spot, apart_from("web"), 0), Constraints::default(), Market::OnDemand, vec!["m6g.large", "m5.large"]),
        ("it keeps away, arm64", daemon("d", arm, apart_from("web"), 0), Constraints::default(), Market::Spot, vec!["m5.large"]),
        ("plain, whatever comes", daemon("d", arm, port(), 0), Constraints::default(), Market::Spot, vec!["m6g.large", "m5.large"]),
    ];
    for (what, set, constraints, market, types) in rows {
        let plan = scene([set]).pods([web("w", constraints)]).turn(start());
        assert_eq!((bought(&plan), plan.unplaceable_pods), (vec![(market, types)], 0), "{what}");
    }
}

#[test]
fn types_stand_in_for_each_other_where_the_labels_that_pods_speak_of_are_the_same() {
    let rows = [
        ("the zone", spread_over(ZONE_LABEL), vec!["m6g.large", "m5.large"]),
        ("the market", spread_over(MARKET_LABEL), vec!["m6g.large", "m5.large"]),
        ("the architecture", spread_over(ARCH_LABEL), vec!["m6g.large"]),
        ("the type", spread_over(INSTANCE_TYPE_LABEL), vec!["m6g.large"]),
        (
            "apart by the architecture",
            Constraints { pod_anti_affinity: term("other", ARCH_LABEL), ..Constraints::default() },
            vec!["m6g.large"],
        ),
    ];
    for (what, constraints, types) in rows {
        let plan = scene([]).pods([web("w", constraints)]).turn(start());
        assert_eq!(bought(&plan), [(Market::Spot, types)], "{what}");
    }
}

/// What a daemon has, or a pod wants.
#[derive(Clone, Copy, Debug)]
enum Trait {
    Plain,
    Port,
    OtherPort,
    /// Apart from the workload, or near a daemon.
    Apart,
    Near,
    OnePerNode,
}

fn daemons() -> impl Strategy<Value = Vec<DaemonSet>> {
    let limits = prop::sample::select(vec![
        ("", ""),
        (ARCH_LABEL, "amd64"),
        (ARCH_LABEL, "arm64"),
        (MARKET_LABEL, "spot"),
        (MARKET_LABEL, "on-demand"),
        (INSTANCE_TYPE_LABEL, "m5.large"),
    ]);
    let traits = prop::sample::select(vec![Trait::Plain, Trait::Port, Trait::OtherPort, Trait::Apart]);
    prop::collection::vec((limits, traits, 0_u64..600), 0..4).prop_map(|sets| {
        let of = |(number, (limit, what, cpu)): (usize, ((&str, &str), Trait, u64))| {
            let constraints = match what {
                Trait::Port => at_port(8080),
                Trait::OtherPort => at_port(8081),
                Trait::Apart => apart_from("web"),
                Trait::Plain | Trait::Near | Trait::OnePerNode => Constraints::default(),
            };
            daemon(&format!("d{number}"), limit, constraints, cpu)
        };
        sets.into_iter().enumerate().map(of).collect()
    })
}

fn pods() -> impl Strategy<Value = Vec<Pod>> {
    let traits = vec![Trait::Plain, Trait::Port, Trait::OtherPort, Trait::Apart, Trait::Near, Trait::OnePerNode];
    prop::collection::vec((prop::sample::select(traits), 50_u64..1500, any::<bool>()), 1..8).prop_map(|pods| {
        let of = |(number, (what, cpu, is_web)): (usize, (Trait, u64, bool))| {
            let constraints = match what {
                Trait::Plain => Constraints::default(),
                Trait::Port => at_port(8080),
                Trait::OtherPort => at_port(8081),
                Trait::Apart => apart_from("d0"),
                Trait::Near => near("d0"),
                Trait::OnePerNode => apart_from("web"),
            };
            let labels = Arc::new(labelled(if is_web { "web" } else { "other" }));
            Pod { labels, constraints: Arc::new(constraints), ..pending(&format!("w{number}"), cpu) }
        };
        pods.into_iter().enumerate().map(of).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases(400)) })]

    #[test]
    fn a_node_takes_the_pods_that_it_was_bought_for_whichever_type_comes(
        daemons in daemons(), pods in pods(), choices in prop::collection::vec(any::<prop::sample::Index>(), 10),
    ) {
        let mut scene = scene(daemons).pods(pods);
        let plan = scene.turn(start());
        let mut choices = choices.into_iter();
        for (number, order) in launches(&plan).into_iter().enumerate() {
            let id = format!("op-{number}");
            let mut instances = Vec::new();
            for copy in 0..order.count {
                let choice = choices.next().expect("at most ten nodes");
                let (name, kind) = (format!("{id}-{copy}"), choice.get(&order.instance_types));
                let arrived = instance(&name, order.zone.as_str(), order.market);
                let operation = Some(id.as_str().into());
                scene.instances.push(Instance { instance_type: kind.clone(), operation, launched: start(), ..arrived });
                instances.push(LaunchedInstance { id: format!("i-{name}").as_str().into(), instance_type: kind.clone(), node: None });
            }
            let joining = LaunchState::Joining { since: start(), instances };
            scene.snapshot.operations.insert(id.as_str().into(), launch(&id, order.clone(), joining));
        }
        let again = scene.turn(later(30));
        prop_assert_eq!(launches(&again).len(), 0, "{:?} after {:?}", again.actions, plan.actions);
    }
}
