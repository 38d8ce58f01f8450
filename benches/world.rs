//! How fast the embedded world lives: a quiet month, clusters with faults, and a large cluster.
#![expect(clippy::print_stdout, reason = "a benchmark speaks to whoever runs it")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use node_fleet::sim::Fault;
use node_fleet::sim::front::{Scenario, run};
use std::hint::black_box;
use std::time::Duration;

/// Ten nodes, one controller, the faults that a seed plans.
fn troubled(seed: u64) -> Scenario {
    let mut scenario = Scenario::quiet(seed, 24.0, 10);
    let faults = Scenario::from_seed(seed, 24.0, &Fault::ALL).faults;
    scenario.faults = faults;
    scenario
}

fn worlds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("world");
    group.sample_size(10).measurement_time(Duration::from_secs(15));
    group.throughput(Throughput::Elements(720));
    group.bench_function("a quiet month of ten nodes, in cluster-hours", |bencher| {
        let month = Scenario::quiet(1, 720.0, 10);
        bencher.iter(|| run(black_box(&month)));
    });
    group.throughput(Throughput::Elements(24));
    let mut seed = 0;
    group.bench_function("ten nodes under faults, in cluster-hours", |bencher| {
        bencher.iter_with_setup(
            || {
                seed += 1;
                troubled(seed)
            },
            |scenario| {
                let outcome = run(&scenario);
                assert!(outcome.violations.is_empty(), "{:?}", outcome.violations);
                outcome
            },
        );
    });
    group.throughput(Throughput::Elements(1800));
    group.bench_function("1000 nodes and 30000 pods for half an hour, in seconds", |bencher| {
        let large = Scenario::large(1, 0.5, 1000, 30_000);
        bencher.iter(|| run(black_box(&large)));
    });
    group.finish();
    println!("most memory at once: {} MB", peak_megabytes());
}

/// Reads the largest resident set of this process so far.
fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() / 1024
}

criterion_group!(benches, worlds);
criterion_main!(benches);
