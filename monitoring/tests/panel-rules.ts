// Prints the expressions of all panels: as recording rules, for promtool, or with `--lines` one a line.

import { stringify } from 'yaml';
import { panelExpressions } from './expressions.js';

const all = panelExpressions();
if (process.argv.includes('--lines')) {
  console.log(all.map(({ place, text }) => `${place}\t${text}`).join('\n'));
} else {
  const rules = all.map(({ text }, index) => ({ record: `panel_${index}`, expr: text }));
  console.log(stringify({ groups: [{ name: 'panels', rules }] }));
}
