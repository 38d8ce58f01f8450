// The metrics that there are: the daemon's, by the table of README.md, and those of others.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { HERE, rules, selectors } from './expressions.js';

/** What others export, with the labels that are used here. */
const OTHERS: Record<string, readonly string[]> = {
  // Prometheus
  up: [],
  // node_exporter
  node_cpu_seconds_total: ['cpu', 'mode'],
  node_memory_MemAvailable_bytes: [],
  node_memory_MemTotal_bytes: [],
  // kube-state-metrics
  kube_node_role: ['node', 'role'],
  kube_node_spec_unschedulable: ['node'],
  kube_node_status_allocatable: ['node', 'resource', 'unit'],
  kube_pod_container_resource_requests: ['namespace', 'pod', 'container', 'node', 'resource', 'unit'],
  kube_pod_status_phase: ['namespace', 'pod', 'phase'],
};

/** What a scrape adds to every metric. */
const SCRAPED = ['job', 'instance'];

/** The names under which Prometheus keeps what a row of the table tells of. */
function names(metric: string, kind: string): string[] {
  return kind === 'histogram' ? ['_bucket', '_sum', '_count'].map((suffix) => metric + suffix) : [metric];
}

/** Every metric with its labels. */
export function known(): Map<string, ReadonlySet<string>> {
  const readme = readFileSync(join(HERE, '..', 'README.md'), 'utf8');
  const table = readme.split('<!-- metrics:begin -->')[1]?.split('<!-- metrics:end -->')[0] ?? '';
  const found = new Map<string, ReadonlySet<string>>();
  for (const line of table.split('\n')) {
    const [, metric, kind, labels] = /^\| `(\w+)` \| (\w+) \| ([^|]*) \|/.exec(line) ?? [];
    if (metric !== undefined && kind !== undefined) {
      const own = [...(labels ?? '').matchAll(/`(\w+)`/g)].map((match) => match[1] ?? '');
      for (const name of names(metric, kind)) {
        found.set(name, new Set([...own, ...SCRAPED, ...(kind === 'histogram' ? ['le'] : [])]));
      }
    }
  }
  if (found.size === 0) {
    throw new Error('README.md has no table of metrics between its marks');
  }
  for (const [name, labels] of Object.entries(OTHERS)) {
    found.set(name, new Set([...labels, ...SCRAPED]));
  }
  return found;
}

/** What the recording rules make, with any label of what they read. */
export function recorded(): Map<string, ReadonlySet<string>> {
  const from = known();
  return new Map(
    rules().flatMap((rule) => {
      const labels = selectors({ place: rule.record ?? '', text: rule.expr }).flatMap(({ metric }) => [...(from.get(metric) ?? [])]);
      return rule.record === undefined ? [] : [[rule.record, new Set(labels)] as const];
    }),
  );
}
