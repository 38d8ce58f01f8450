//! How long a decision takes with 100 nodes and 3,000 pods: when nothing is to be done, when pods
//! wait, and when nodes may go.

mod cluster;

use cluster::{app, now, on, pod, settings, snapshot, sustained, unschedulable};
use criterion::{Criterion, criterion_group, criterion_main};
use node_fleet::model::{Memory, Pod};
use node_fleet::policy;
use std::hint::black_box;

const NODES: usize = 100;
const PODS_ON_A_NODE: usize = 30;
const WAITING: usize = 200;

fn pods(waiting: usize) -> Vec<Pod> {
    let (web, batch) = (app("web"), app("batch"));
    let running = (0..NODES * PODS_ON_A_NODE).map(|index| on(pod(format!("web-{index}"), &web, 50), index % NODES));
    let waiting = (0..waiting).map(|index| unschedulable(pod(format!("batch-{index}"), &batch, 3000)));
    running.chain(waiting).collect()
}

fn plan(criterion: &mut Criterion) {
    let settings = settings(200);
    let cases = [("nothing to do", 0, 0.5), ("200 pods wait", WAITING, 0.5), ("nodes may go", 0, 0.05)];
    let mut group = criterion.benchmark_group("plan, 100 nodes, 3000 pods");
    for (name, waiting, load) in cases {
        let snapshot = snapshot(NODES, pods(waiting), load);
        let memory = if waiting == 0 { sustained(&settings, &snapshot) } else { Memory::default() };
        let (plan, _) = policy::plan(&settings, &snapshot, &memory, now());
        assert_eq!(plan.actions.is_empty(), name == "nothing to do", "{name}: {:?}", plan.pools);
        group.bench_function(name, |bencher| bencher.iter(|| policy::plan(&settings, black_box(&snapshot), &memory, now())));
    }
    group.finish();
}

criterion_group!(benches, plan);
criterion_main!(benches);
