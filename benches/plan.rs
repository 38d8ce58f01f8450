//! How long a decision takes, with 100 nodes and 3,000 pods and with 5,000 nodes and 150,000: when nothing is to be
//! done, when pods wait, when they wait at the pool's maximum, when nodes may go, and when one is replaced.

mod cluster;

use cluster::{app, now, on, pod, settings, snapshot, sustained, unschedulable};
use criterion::{Criterion, criterion_group, criterion_main};
use node_fleet::model::snapshot::Observed;
use node_fleet::model::{Memory, Pod, Snapshot};
use node_fleet::policy;
use std::hint::black_box;

const PODS_ON_A_NODE: usize = 30;

fn pods(nodes: usize, waiting: usize) -> Vec<Pod> {
    let (web, batch) = (app("web"), app("batch"));
    let running = (0..nodes * PODS_ON_A_NODE).map(|index| on(pod(format!("web-{index}"), &web, 50), index % nodes));
    let waiting = (0..waiting).map(|index| unschedulable(pod(format!("batch-{index}"), &batch, 3000)));
    running.chain(waiting).collect()
}

/// The launch template has got another version since the nodes were launched.
fn drifted(mut snapshot: Snapshot) -> Snapshot {
    if let Observed::Known { value: instances, .. } = &mut snapshot.instances {
        for instance in instances {
            instance.template = Some("workers:1".into());
        }
    }
    snapshot.templates = [("workers".into(), "workers:2".into())].into();
    snapshot
}

fn plan(criterion: &mut Criterion) {
    for nodes in [100, 5000] {
        let max = u32::try_from(nodes).expect("few");
        let cases = [
            ("nothing to do", 0, 0.5, 2 * max),
            ("pods wait", 2 * nodes, 0.5, 4 * max),
            ("pods wait at the maximum", 2 * nodes, 0.5, max),
            ("nodes may go", 0, 0.05, 2 * max),
            ("one is replaced", 0, 0.5, 2 * max),
        ];
        let mut group = criterion.benchmark_group(format!("plan, {nodes} nodes, {} pods", nodes * PODS_ON_A_NODE));
        group.sample_size(if nodes > 1000 { 10 } else { 100 });
        for (name, waiting, load, max) in cases {
            let settings = settings(max);
            let snapshot = snapshot(nodes, pods(nodes, waiting), load);
            let snapshot = if name == "one is replaced" { drifted(snapshot) } else { snapshot };
            let memory = if waiting == 0 { sustained(&settings, &snapshot) } else { Memory::default() };
            let (plan, _) = policy::plan(&settings, &snapshot, &memory, now());
            let quiet = matches!(name, "nothing to do" | "pods wait at the maximum");
            assert_eq!(plan.actions.is_empty(), quiet, "{name}: {:?}", plan.pools);
            group.bench_function(name, |bencher| bencher.iter(|| policy::plan(&settings, black_box(&snapshot), &memory, now())));
        }
        group.finish();
    }
}

criterion_group!(benches, plan);
criterion_main!(benches);
