//! How long large decisions take: many pods that wait, many nodes that may go.
//!
//! The first three have the shapes in which cluster-autoscaler and Karpenter measure themselves.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to whoever runs it")]

mod cluster;

use cluster::{app, now, offers, on, pod, resources, settings, snapshot, sustained, unschedulable};
use criterion::{Criterion, criterion_group, criterion_main};
use node_fleet::model::offer::HourlyPrice;
use node_fleet::model::scheduling::{
    Constraints, HOSTNAME_LABEL, Operator, PodAffinityTerm, Requirement, Selector, SpreadConstraint, ZONE_LABEL,
};
use node_fleet::model::snapshot::Observed;
use node_fleet::model::{Action, Bytes, Memory, Offer, OfferKey, Pod, Resources, Snapshot};
use node_fleet::policy::{self, Settings};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

fn equal_pods(number: usize, milli_cpu: u64) -> Vec<Pod> {
    let labels = app("web");
    (0..number).map(|index| unschedulable(pod(format!("web-{index:07}"), &labels, milli_cpu))).collect()
}

/// One sixth each: plain, spread over zones, spread over hosts, together on a host, together in a zone, apart on hosts.
fn diverse_pods(number: usize) -> Vec<Pod> {
    let is = |app: &str| Selector(vec![Requirement { key: "app".into(), operator: Operator::In([app.to_owned()].into()) }]);
    let spread = |app: &str, key: &str| SpreadConstraint {
        topology_key: key.into(),
        max_skew: 1,
        selector: is(app),
        min_domains: None,
        ignores_node_affinity: false,
        honors_taints: false,
    };
    let term = |app: &str, key: &str| PodAffinityTerm { selector: Some(is(app)), namespaces: None, topology_key: key.into() };
    // As many groups of each kind as Karpenter's own benchmark makes.
    let mut kinds: Vec<(String, Constraints)> = Vec::new();
    for letter in ["a", "b", "c", "d", "e", "f", "g"] {
        let name = |kind: &str| format!("{kind}-{letter}");
        let with = |kind: &str, change: &dyn Fn(&str, &mut Constraints)| {
            let mut constraints = Constraints::default();
            change(&name(kind), &mut constraints);
            (name(kind), constraints)
        };
        kinds.push(with("plain", &|_, _| {}));
        kinds.push(with("zones", &|app, it| it.spread.push(spread(app, ZONE_LABEL))));
        kinds.push(with("hosts", &|app, it| it.spread.push(spread(app, HOSTNAME_LABEL))));
        kinds.push(with("near", &|app, it| it.pod_affinity.push(term(app, HOSTNAME_LABEL))));
        kinds.push(with("zone", &|app, it| it.pod_affinity.push(term(app, ZONE_LABEL))));
        kinds.push(with("apart", &|app, it| it.pod_anti_affinity.push(term(app, HOSTNAME_LABEL))));
    }
    let kinds: Vec<_> = kinds.into_iter().map(|(name, constraints)| (app(&name), Arc::new(constraints))).collect();
    let cpu = [100, 250, 500, 1000, 1500];
    let make = |index: usize| {
        let (labels, constraints) = &kinds[index % kinds.len()];
        let pod = pod(format!("pod-{index:06}"), labels, cpu[(index / kinds.len()) % cpu.len()]);
        unschedulable(Pod { constraints: Arc::clone(constraints), ..pod })
    };
    (0..number).map(make).collect()
}

/// Nodes of which three in five can go: a pod of a third of the room on each.
fn sparse(nodes: usize) -> Vec<Pod> {
    let labels = app("web");
    (0..nodes).map(|index| on(pod(format!("web-{index:05}"), &labels, 1300), index)).collect()
}

/// Puts so many types on offer, of several sizes and prices, in each zone and market.
fn with_types(mut snapshot: Snapshot, types: u64) -> Snapshot {
    let offers = (0..types).flat_map(|number| {
        offers().into_iter().filter(|offer| offer.key.instance_type.as_str() == "m5.large").map(move |offer| {
            let size = 1 + number % 16;
            let price = HourlyPrice(offer.price.0 * size * (95 + number % 11) / 100);
            let key = OfferKey { instance_type: format!("type{number}.x").as_str().into(), ..offer.key };
            let allocatable = Resources { ephemeral_storage: Bytes(1 << 40), ..resources(1900 * size, 7600 * size, 110) };
            Offer { key, price, allocatable, ..offer }
        })
    });
    snapshot.offers = Observed::Known { value: Arc::new(offers.collect()), at: now() };
    snapshot
}

fn decide(settings: &Settings, snapshot: &Snapshot, memory: &Memory) -> (u32, usize) {
    let (plan, _) = policy::plan(settings, black_box(snapshot), memory, now());
    let bought = plan.actions.iter().map(|action| match action {
        Action::Launch(order) => order.count,
        Action::Retire(_) => 0,
    });
    (bought.sum(), plan.actions.iter().filter(|action| matches!(action, Action::Retire(_))).count())
}

fn packing(criterion: &mut Criterion) {
    let mut roomy = settings(1_000_000);
    (roomy.scale_down.share_at_once, roomy.scale_down.most_at_once) = (1.0, u32::MAX);
    let mut group = criterion.benchmark_group("packing");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(5));
    let buys = [
        ("50000 equal pods", equal_pods(50_000, 75)),
        ("10000 diverse pods", diverse_pods(10_000)),
        ("1000 equal pods", equal_pods(1_000, 75)),
        ("4000 equal pods", equal_pods(4_000, 75)),
        ("16000 equal pods", equal_pods(16_000, 75)),
        ("64000 equal pods", equal_pods(64_000, 75)),
        ("1000000 equal pods", equal_pods(1_000_000, 450)),
    ];
    for (name, pods) in buys {
        let snapshot = snapshot(0, pods, 0.5);
        let before = resident_megabytes();
        let (nodes, _) = decide(&roomy, &snapshot, &Memory::default());
        println!("{name}: {nodes} nodes, {} MB more at the peak", peak_megabytes().saturating_sub(before));
        group.bench_function(name, |bencher| bencher.iter(|| decide(&roomy, &snapshot, &Memory::default())));
    }
    let many = with_types(snapshot(0, diverse_pods(10_000), 0.5), 400);
    println!("10000 diverse pods, 400 types: {} nodes", decide(&roomy, &many, &Memory::default()).0);
    group.bench_function("10000 diverse pods, 400 types", |bencher| bencher.iter(|| decide(&roomy, &many, &Memory::default())));
    let idle = snapshot(2000, sparse(2000), 0.1);
    let memory = sustained(&roomy, &idle);
    let (_, gone) = decide(&roomy, &idle, &memory);
    println!("2000 nodes, a third full: {gone} go");
    group.bench_function("2000 nodes, a third full", |bencher| bencher.iter(|| decide(&roomy, &idle, &memory)));
    group.finish();
}

fn status(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap_or_default();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() / 1024
}

fn resident_megabytes() -> u64 {
    // The peak starts anew, so that it is this decision's own.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
    status("VmRSS")
}

fn peak_megabytes() -> u64 {
    status("VmHWM")
}

criterion_group!(benches, packing);
criterion_main!(benches);
