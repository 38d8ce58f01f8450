//! Daemons that come to some offers of a pool alone, by architecture, market or type: what they take there, and whom they keep away.

use super::*;
use crate::model::InstanceType;
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
    launches(plan).into_iter().map(|order| (order.market, order.instance_types.iter().map(InstanceType::as_str).collect())).collect()
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

/// A pod of a daemon set, by its own name or one that the API server has given it, that asks for so much.
fn its_pod(name: &str, milli_cpu: u64, on: &str) -> Pod {
    let mut pod = Pod { owner: Owner::DaemonSet, ..running(name, milli_cpu, on) };
    (pod.key.namespace, pod.requests.memory) = ("kube-system".into(), Bytes(0));
    pod
}

/// The most that a pod may ask for and still be served by a node of `m5.large`, which has 1900m, in this market.
fn most_served(scene: &Scene, market: Market) -> u64 {
    let serves = |milli_cpu: u64| {
        let mut scene = scene.clone();
        scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large" && offer.key.market == market);
        scene.turn(start());
        launched(&scene.pods([pending("w", milli_cpu)]).turn(after(2))) == 1
    };
    (1..=19).map(|hundreds| hundreds * 100).take_while(|milli_cpu| serves(*milli_cpu)).last().unwrap_or(0)
}

#[test]
fn a_daemon_that_is_on_one_node_alone_takes_nothing_from_those_that_would_come() {
    let everywhere = || daemon("agent", ("", ""), Constraints::default(), 100);
    let labelled = || daemon("debug", ("debug", "true"), Constraints::default(), 1500);
    let of_spot = || daemon("spot", (MARKET_LABEL, "spot"), Constraints::default(), 100);
    let fixed = |name: &str, on: &str| Pod { owner: Owner::Node, ..its_pod(name, 600, on) };
    let rows = [
        ("nothing but the set", vec![everywhere()], vec![], 1800, 1800),
        ("more than its set says", vec![everywhere()], vec![its_pod("agent-abcde", 300, "n1")], 1600, 1600),
        ("less than its set says", vec![everywhere()], vec![its_pod("agent-abcde", 50, "n1")], 1800, 1800),
        (
            "more on one node than on the other",
            vec![everywhere()],
            vec![its_pod("agent-abcde", 200, "n0"), its_pod("agent-fghij", 1500, "n1")],
            1700,
            1700,
        ),
        ("for a label that a human has given one node", vec![labelled()], vec![its_pod("debug-abcde", 1500, "n1")], 1900, 1900),
        ("spot alone", vec![of_spot()], vec![its_pod("spot-abcde", 400, "n1")], 1500, 1900),
        ("a static pod of one node", vec![], vec![fixed("etcd-n1", "n1")], 1900, 1900),
        ("a static pod of each node", vec![], vec![fixed("etcd-n0", "n0"), fixed("etcd-n1", "n1")], 1300, 1300),
        ("of a set that is not known", vec![], vec![its_pod("lost-abcde", 500, "n0"), its_pod("lost-fghij", 400, "n1")], 1500, 1500),
    ];
    for (what, sets, pods, spot, on_demand) in rows {
        let scene = scene(sets).pods(pods);
        assert_eq!((most_served(&scene, Market::Spot), most_served(&scene, Market::OnDemand)), (spot, on_demand), "{what}");
    }
    // Of a type with a single node, too.
    let mut single = scene([labelled()]).pods([its_pod("debug-abcde", 1500, "n1")]);
    (single.instances[0].instance_type, single.settings.pools[0].min) = ("m5.xlarge".into(), 0);
    assert_eq!(most_served(&single, Market::Spot), 1900);
}

#[test]
fn what_a_daemon_takes_is_known_while_its_pod_is_replaced_and_is_forgotten_with_its_set() {
    let long = "a-name-that-is-cut-off-to-make-room-for-what-the-server-adds-to-it";
    let set = daemon(long, ("", ""), Constraints::default(), 100);
    let mut scene = scene([set]).pods([its_pod(&format!("{}abcde", &long[..58]), 300, "n1")]);
    let served = |scene: &Scene| most_served(scene, Market::Spot);
    assert_eq!(served(&scene), 1600);
    scene.turn(start());
    scene.view.pods.retain(|pod| pod.owner != Owner::DaemonSet);
    assert_eq!(served(&scene), 1600, "between two pods");
    let set = scene.view.daemon_sets.pop();
    scene.turn(start());
    scene.view.daemon_sets.extend(set);
    assert_eq!(served(&scene), 1800, "it is made anew");
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
