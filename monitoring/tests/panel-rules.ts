// Prints the expressions of all panels as recording rules, for promtool; or with `--lines` all that Prometheus is to be
// asked, one a line: what must give data, what may be empty, and where it stands.

import { stringify } from 'yaml';
import { type Expression, panelExpressions, rules, selections } from './expressions.js';

const panels = panelExpressions();

/** The alerts may be silent, but what they look at is there. */
function asked(): string[] {
  const line = (kind: 'data' | 'any', { place, text }: Expression): string => [kind, place, text.replace(/\s+/g, ' ')].join('\t');
  const recordings = rules().flatMap(({ record, expr }) => (record === undefined ? [] : [line('data', { place: record, text: expr })]));
  const alerts = rules().flatMap(({ alert, expr }) =>
    alert === undefined ? [] : [line('any', { place: alert, text: expr }), ...new Set(selections(expr).map((text) => line('data', { place: alert, text })))],
  );
  return [...panels.map((panel) => line('data', panel)), ...recordings, ...alerts];
}

if (process.argv.includes('--lines')) {
  console.log(asked().join('\n'));
} else {
  const all = panels.map(({ text }, index) => ({ record: `panel_${index}`, expr: text }));
  console.log(stringify({ groups: [{ name: 'panels', rules: all }] }));
}
