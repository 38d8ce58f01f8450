//! Nodes that are to come: what daemon sets put on them, the moment in which they are seen twice, and pools whose nodes
//! are not what their offers say.

use super::*;
use crate::model::operation::LaunchedInstance;
use crate::model::scheduling::{
    Constraints, HOSTNAME_LABEL, HostPort, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint, Taint, TaintEffect,
};
use crate::model::snapshot::DaemonSet;

fn app(name: &str) -> Selector {
    Selector(vec![Requirement { key: "app".into(), operator: Operator::In(BTreeSet::from([name.to_owned()])) }])
}

fn labelled(name: &str) -> Arc<Labels> {
    Arc::new(Labels::from([("app".to_owned(), name.to_owned())]))
}

fn at_port(port: u16) -> Constraints {
    Constraints { host_ports: vec![HostPort { ip: String::new(), protocol: "TCP".into(), port }], ..Constraints::default() }
}

fn near(name: &str, apart: bool) -> Constraints {
    let term = PodAffinityTerm { selector: Some(app(name)), namespaces: None, topology_key: HOSTNAME_LABEL.into() };
    if apart {
        Constraints { pod_anti_affinity: vec![term], ..Constraints::default() }
    } else {
        Constraints { pod_affinity: vec![term], ..Constraints::default() }
    }
}

fn asking(name: &str, constraints: Constraints) -> Pod {
    Pod { constraints: Arc::new(constraints), ..pending(name, 100) }
}

/// Two full nodes, and a daemon at port 80 of every node.
fn with_proxy() -> Scene {
    let mut scene = Scene::with_nodes(2).pods([running("a", 1900, "n0"), running("b", 1900, "n1")]);
    scene.view.daemon_sets.push(DaemonSet {
        namespace: "kube-system".into(),
        name: "proxy".into(),
        labels: Labels::clone(&labelled("proxy")),
        requests: Resources { cpu: MilliCpu(50), pods: 1, ..Resources::default() },
        constraints: at_port(80),
    });
    scene
}

#[test]
fn daemons_are_on_a_new_node_before_the_pods_that_it_is_bought_for() {
    let rows = [
        ("a port that the daemon takes", at_port(80), 0),
        ("another port", at_port(81), 1),
        ("apart from the daemon", near("proxy", true), 0),
        ("together with the daemon", near("proxy", false), 1),
        ("together with somebody else", near("other", false), 0),
    ];
    for (what, constraints, bought) in rows {
        let plan = with_proxy().pods([asking("w", constraints)]).turn(start());
        assert_eq!((launched(&plan), plan.unplaceable.len()), (bought, 1 - bought as usize), "{what}");
    }
    let plan = with_proxy().pods([asking("w", at_port(80))]).turn(start());
    assert_eq!(plan.unplaceable[0].why, "no node that can be launched would take it: host port 80 is taken");
}

#[test]
fn a_daemon_is_counted_once_on_a_new_node() {
    // Nodes of 1900 millicores, of which the daemon takes 50.
    for (millis, large) in [(1850, true), (1851, false)] {
        let mut scene = with_proxy().pods([pending("w", millis)]);
        scene.offers.retain(|offer| offer.key.instance_type.as_str() == "m5.large");
        assert_eq!(launched(&scene.turn(start())) == 1, large, "{millis}");
    }
}

/// Pods of which at most one more may lie on a node than on any other.
fn spread(name: &str) -> Pod {
    let spread = SpreadConstraint {
        topology_key: HOSTNAME_LABEL.into(),
        max_skew: 1,
        selector: app("web"),
        min_domains: None,
        ignores_node_affinity: false,
        honors_taints: false,
    };
    Pod {
        labels: labelled("web"),
        constraints: Arc::new(Constraints { spread: vec![spread], ..Constraints::default() }),
        ..pending(name, 200)
    }
}

#[test]
fn a_node_that_boots_is_one_place_also_when_its_object_is_there() {
    // Two nodes with two each, and no room; a third one is bought for three more.
    let mut scene = Scene::with_nodes(2);
    for (index, on) in ["n0", "n0", "n1", "n1"].into_iter().enumerate() {
        let pod = Pod { phase: PodPhase::Running, node: Some(on.into()), unschedulable_since: None, ..spread(&format!("r{index}")) };
        scene = scene.pods([pod]);
    }
    let scene = scene.pods([running("a", 1500, "n0"), running("b", 1500, "n1")]);
    let scene = scene.pods((0..3).map(|index| spread(&format!("w{index}"))));
    let mut order = order(1);
    order.pods = (0..3).map(|index| spread(&format!("w{index}")).key).collect();
    let joining = LaunchState::Joining {
        since: start(),
        instances: vec![LaunchedInstance { id: "i-n2".into(), instance_type: "m5.large".into(), node: None }],
    };
    let mut scene = scene.under_way(launch("op", order, joining));
    scene.instances.push(Instance { operation: Some("op".into()), launched: start(), ..instance("n2", "a", Market::Spot) });
    assert_eq!(launched(&scene.clone().turn(later(30))), 0, "before its object is there");
    let mut young = Node { readiness: Readiness::NotReady { since: start() }, created: start(), ..node("n2", "a") };
    scene.view.nodes.insert("n2".into(), young.clone());
    assert_eq!(launched(&scene.clone().turn(later(30))), 0, "not Ready");
    young.readiness = Readiness::Ready { since: start() };
    young.taints.push(Taint { key: "init".into(), value: String::new(), effect: TaintEffect::NoSchedule });
    scene.settings.startup_taints.insert("init".into());
    scene.view.nodes.insert("n2".into(), young);
    assert_eq!(launched(&scene.clone().turn(later(30))), 0, "Ready, with a taint of the start");
    let early = |name: &str| Pod { phase: PodPhase::Running, node: Some("n2".into()), unschedulable_since: None, ..spread(name) };
    assert_eq!(launched(&scene.clone().pods([early("e0")]).turn(later(30))), 1, "one of its places is taken");
    // What is full already is so on the board, too.
    let heavy = |name: &str| running(name, 600, "n2");
    let crowded = scene.pods(["h0", "h1", "h2"].map(heavy));
    assert_eq!(
        launched(&crowded.clone().turn(later(30))),
        3,
        "1800m of 1900m are taken, and a place that is empty forbids a second pod elsewhere"
    );
    let daemon = |name: &str| Pod { owner: Owner::Node, ..running(name, 900, "n2") };
    let mut alone = crowded;
    alone.view.pods.retain(|pod| !pod.key.name.starts_with('h'));
    assert_eq!(launched(&alone.pods([daemon("static")]).turn(later(30))), 0, "what stays with a node is reckoned with for its type");
}

/// A pod that asks for a label of the pool, and a young node of it that may lack the label.
fn pool_with_label(has_it: bool) -> Scene {
    let wants = Constraints { node_selector: app("web"), ..Constraints::default() };
    let mut scene = Scene::with_nodes(3).pods([running("a", 1800, "n0"), running("b", 1800, "n1")]).pods([asking("w", wants)]);
    for offer in &mut scene.offers {
        offer.labels.insert("app".into(), "web".into());
    }
    let labels = scene.offers[0].labels.clone();
    scene.with("n2", |node| {
        node.created = start();
        node.labels.extend(labels);
        if !has_it {
            node.labels.remove("app");
        }
    })
}

fn differs(plan: &Plan) -> Option<&str> {
    plan.alerts.iter().find(|alert| alert.name == "node_differs").map(|alert| alert.text.as_str())
}

#[test]
fn a_label_that_the_pools_nodes_lack_buys_no_second_node_for_an_hour() {
    let mut scene = pool_with_label(false);
    scene.instances[2].zone = "a".into();
    scene.instances[2].market = Market::OnDemand;
    let plan = scene.turn(after(3));
    assert_eq!((launched(&plan), plan.unplaceable.len()), (0, 1));
    let told = "node n2 of pool workers lacks the label app that its offer promises: pods that cannot do with that buy no node of the \
                pool before 2026-03-02T13:00:00Z (its user data and [[pool]] should agree)";
    assert_eq!(differs(&plan), Some(told));
    // The node goes, and what it taught stays for the rest of the hour.
    scene.view.nodes.remove("n2");
    scene.instances.pop();
    assert_eq!(launched(&scene.turn(after(59))), 0);
    let plan = scene.turn(after(60));
    assert_eq!((launched(&plan), differs(&plan)), (1, None), "it is tried again");
}

#[test]
fn a_difference_is_believed_for_twice_as_long_each_time_that_a_new_node_shows_it() {
    let mut scene = pool_with_label(false);
    let mut hours = Vec::new();
    for days in 0..6 {
        let created = after(days * 24 * 60);
        scene = scene.with("n2", |node| (node.created, node.name) = (created, format!("n2-{days}").as_str().into()));
        scene.turn(created + SignedDuration::from_mins(3));
        scene.turn(created + SignedDuration::from_mins(5));
        hours.push(scene.memory.differences["workers"].until.duration_since(created).as_hours());
    }
    assert_eq!(hours, [1, 2, 4, 8, 16, 24]);
}

#[test]
fn nodes_from_before_a_reset_and_of_another_launch_template_are_not_asked() {
    let differs = |change: fn(&mut Scene)| {
        let mut scene = pool_with_label(false);
        scene.snapshot.templates.insert("workers".into(), "lt-1:2".into());
        change(&mut scene);
        !scene.turn(after(3)).alerts.iter().all(|alert| alert.name != "node_differs")
    };
    assert!(differs(|_| {}));
    assert!(differs(|scene| scene.instances[2].template = Some("lt-1:2".into())));
    assert!(!differs(|scene| scene.instances[2].template = Some("lt-1:1".into())));
    assert!(!differs(|scene| scene.memory.trusted_from = Some(start())));
    assert!(differs(|scene| scene.memory.trusted_from = Some(later(-1))));
}

#[test]
fn a_newer_node_that_is_as_it_should_be_ends_the_doubt() {
    let mut scene = pool_with_label(false);
    scene.turn(after(3));
    let labels = scene.offers[0].labels.clone();
    let mut newer = Node { created: after(4), ..node("n3", "b") };
    newer.labels.extend(labels.into_iter().filter(|(key, _)| key != ZONE_LABEL));
    newer.labels.insert(INSTANCE_TYPE_LABEL.into(), "m5.large".into());
    scene.view.nodes.insert("n3".into(), newer);
    scene.instances.push(instance("n3", "b", Market::Spot));
    let plan = scene.turn(after(6));
    assert_eq!((differs(&plan), scene.memory.differences.len()), (None, 0));
}

#[test]
fn taints_are_the_pools_when_they_are_of_the_start_or_were_there_when_the_node_came() {
    let taint = |key: &str| Taint { key: key.into(), value: String::new(), effect: TaintEffect::NoSchedule };
    let differs_at = |key: &str, minutes: &[i64]| {
        let mut scene = Scene::with_nodes(4).pods([running("a", 1800, "n0"), running("b", 1800, "n1"), pending("w", 1000)]);
        let labels = scene.offers.iter().find(|offer| offer.key.zone.as_str() == "b").expect("an offer").labels.clone();
        scene = scene.with("n3", |node| {
            node.created = start();
            node.labels.extend(labels);
            node.taints.extend((!key.is_empty()).then(|| taint(key)));
        });
        scene.settings.startup_taints.insert("init".into());
        let mut told = Vec::new();
        for minute in minutes {
            told.push(differs(&scene.turn(after(*minute))).is_some());
        }
        told
    };
    assert_eq!(differs_at("team", &[5, 6, 59]), [true, true, true], "it came with it");
    assert_eq!(differs_at("team", &[6]), [false], "somebody has put it there since");
    assert_eq!(differs_at("init", &[5, 6]), [false, true], "it was to go and has stayed");
    assert_eq!(differs_at("node.kubernetes.io/disk-pressure", &[1]), [false], "a condition");
    assert_eq!(differs_at("", &[1]), [false]);
}

#[test]
fn a_memory_of_offers_that_never_joined_whatever_their_pool_is_read_without_them() {
    let old = r#"{"never_joined": [[{"instance_type": "m5.large", "zone": "a", "market": "spot"}, 2]], "offers": []}"#;
    assert_eq!(serde_json::from_str::<Memory>(old).expect("it is read"), Memory::default());
}
