// What dashboards, rules and the runbook say of each other and of the daemon.

import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { HERE, dashboards, panelExpressions, ruleExpressions, rules, selectors } from './expressions.js';
import { known, recorded } from './metrics.js';
import { greatest, seconds } from './shipped.js';

test('every metric of a panel or a rule is one that there is, with the labels by which it is selected', () => {
  const metrics = new Map([...known(), ...recorded()]);
  for (const expression of [...panelExpressions(), ...ruleExpressions()]) {
    const found = selectors(expression);
    assert.ok(found.length > 0, `${expression.place} selects nothing`);
    for (const { metric, labels } of found) {
      const has = metrics.get(metric);
      assert.ok(has, `${expression.place}: ${metric} is no metric of README.md's table and of none that others export`);
      for (const label of labels) {
        assert.ok(has.has(label), `${expression.place}: ${metric} has no label ${label}`);
      }
    }
  }
});

test('the pages that stand in for what the demonstration does not have say only what there is', () => {
  const metrics = known();
  const folder = join(HERE, 'tests', 'pages');
  const lines = readdirSync(folder).flatMap((file) => readFileSync(join(folder, file), 'utf8').split('\n')).filter((line) => line !== '' && !line.startsWith('#'));
  assert.ok(lines.length > 20);
  for (const line of lines) {
    const [, metric = '', labels = ''] = /^(\w+)(?:\{(.*)\})? [\d.e+]+$/.exec(line) ?? [];
    const names = [...labels.matchAll(/(\w+)="/g)].map(([, name]) => name ?? '');
    assert.ok(metrics.has(metric) && names.every((name) => metrics.get(metric)?.has(name)), line);
  }
});

test('a metric, a label and an expression that are wrong are found', () => {
  const metrics = known();
  assert.ok(!metrics.has('node_fleet_turn_duration_seconds'), 'a histogram is kept under its suffixes only');
  assert.ok(!metrics.get('node_fleet_nodes')?.has('zone'));
  const [selector] = selectors({ place: '', text: 'sum by (pool) (rate(node_fleet_x_total{zone="a"}[5m] offset 1h))' });
  assert.deepEqual(selector, { metric: 'node_fleet_x_total', labels: ['zone'] });
  assert.throws(() => selectors({ place: 'here', text: 'sum(node_fleet_nodes' }), /here.*no PromQL/);
});

test('every metric of the daemon is shown or watched', () => {
  // The buckets tell what sums and counts tell; the epoch is for the log, the number of a leader.
  const silent = new Set(['node_fleet_epoch']);
  const used = new Set([...panelExpressions(), ...ruleExpressions()].flatMap((expression) => selectors(expression).map(({ metric }) => metric)));
  const own = [...known().keys()].filter((name) => name.startsWith('node_fleet_') && !/_(sum|count)$/.test(name));
  assert.deepEqual(own.filter((name) => !used.has(name) && !silent.has(name)), []);
});

test('every alert has its section in the runbook, and every section its alert', () => {
  const runbook = readFileSync(join(HERE, 'runbook.md'), 'utf8');
  const alerts = rules().flatMap(({ alert }) => (alert === undefined ? [] : [alert]));
  const sections = runbook.split('\n## ').slice(1).filter((section) => section.startsWith('NodeFleet'));
  assert.deepEqual(sections.map((section) => section.split('\n')[0]).sort(), [...alerts].sort());
  for (const section of sections) {
    for (const part of ['**Means**', '**Look**', '**Do**']) {
      assert.ok(section.includes(part), `${section.split('\n')[0]} has no ${part}`);
    }
  }
  for (const { alert, annotations } of rules().filter((rule) => rule.alert !== undefined)) {
    assert.equal(annotations?.runbook, `monitoring/runbook.md#${alert?.toLowerCase()}`);
  }
});

test('every condition that the daemon wants a human to look at is in the runbook', () => {
  const runbook = readFileSync(join(HERE, 'runbook.md'), 'utf8');
  const gauges = readFileSync(join(HERE, '..', 'src', 'observability', 'gauges.rs'), 'utf8');
  const list = /KNOWN_ALERTS: \[&str; \d+\] = \[([^\]]*)\]/.exec(gauges)?.[1] ?? '';
  const conditions = [...list.matchAll(/"(\w+)"/g)].map((match) => match[1] ?? '');
  assert.ok(conditions.length > 0, 'gauges.rs has its list');
  for (const condition of conditions) {
    assert.ok(runbook.includes(`\n### ${condition}\n`), `the runbook has no section on ${condition}`);
  }
});

test('every command of the runbook is one that root has on a K3s server', () => {
  const runbook = readFileSync(join(HERE, 'runbook.md'), 'utf8');
  const commands = runbook.split('`').filter((_, index) => index % 2 === 1);
  const live = commands.filter((command) => /node-fleet check .*--live/.test(command));
  assert.ok(live.length >= 3 && commands.some((command) => command.startsWith('k3s kubectl ')));
  // There is no kubectl but that of K3s, and root has no kubeconfig by itself.
  assert.deepEqual(commands.filter((command) => /(^|[|;&\n] *)kubectl /.test(command)), []);
  assert.deepEqual(live.filter((command) => !command.startsWith('KUBECONFIG=/etc/node-fleet/kubeconfig ')), []);
});

test('no counter is asked for its increase alone, which leaves out the first event, nor taken for new after a gap', () => {
  const expressions = [...panelExpressions(), ...ruleExpressions()];
  const increases = expressions.flatMap(({ place, text }) =>
    [...text.matchAll(/increase\((node_fleet_\w+_total(?:\{[^}]*\})?)\[(\w+)\]\)/g)].map(([, counter, window]) => ({ place, text: text.replace(/\s+/g, ' '), counter, window })),
  );
  assert.ok(increases.length >= 12, `${increases.length}`);
  const grown = (counter: string, window: string): string => {
    const before = `max_over_time(${counter}[${window}] offset ${window}) and on (instance) time() - process_start_time_seconds > ${2 * seconds(window)}`;
    return `(${counter} unless ${counter} offset ${window} unless (${before})) or increase(${counter}[${window}])`;
  };
  const alone = increases.filter(({ text, counter = '', window = '' }) => !text.replaceAll('( ', '(').replaceAll(' )', ')').includes(grown(counter, window)));
  assert.deepEqual(alone.map(({ place }) => place), []);
});

test("every alert's threshold can be reached with what is shipped", () => {
  const reach = greatest();
  const thresholds = rules().flatMap(({ alert, expr }) => {
    // Beyond nothing is always possible, and the age of the daemon is no threshold.
    const numbers = [...expr.replace(/process_start_time_seconds > \d+/g, '').matchAll(/> ([\d.e]+)/g)].map(([, number]) => Number(number));
    const above = numbers.filter((number) => number > 0);
    return alert === undefined || above.length === 0 ? [] : [[alert, Math.max(...above)] as const];
  });
  assert.deepEqual(thresholds.map(([alert]) => alert).sort(), Object.keys(reach).sort(), 'shipped.ts says of each what is the most');
  for (const [alert, threshold] of thresholds) {
    assert.ok((reach[alert] ?? 0) > threshold, `${alert} looks for more than ${threshold}, and there is never more than ${reach[alert]}`);
  }
});

test('every alert is tested: silent, firing, and silent again', () => {
  const tests = readFileSync(join(HERE, 'prometheus', 'tests.yml'), 'utf8');
  for (const { alert } of rules()) {
    if (alert !== undefined) {
      assert.ok((tests.match(new RegExp(`alertname: ${alert}\\b`, 'g'))?.length ?? 0) >= 3, alert);
    }
  }
});

test('panels have a title and say what they show, and no two of a dashboard lie on each other', () => {
  for (const { file, panels } of dashboards()) {
    const places = new Set<string>();
    for (const panel of panels as readonly { title?: string; type?: string; description?: string; gridPos?: { x: number; y: number } }[]) {
      assert.ok(panel.title, `${file}: a panel without a title`);
      assert.ok(panel.type === 'row' || panel.description, `${file}: ${panel.title} does not say what it shows`);
      const place = `${panel.gridPos?.x} ${panel.gridPos?.y}`;
      assert.ok(!places.has(place), `${file}: ${panel.title} lies on another panel at ${place}`);
      places.add(place);
    }
  }
});
