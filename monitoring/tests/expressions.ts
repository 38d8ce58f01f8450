// Every PromQL expression of the dashboards and rules, and what it names.

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parser } from '@prometheus-io/lezer-promql';
import { parse } from 'yaml';

/** The folder `monitoring`; the tests run in it. */
export const HERE = process.cwd();

export interface Expression {
  /** Where it stands, for people. */
  readonly place: string;
  readonly text: string;
}

interface Panel {
  readonly title?: string;
  readonly targets?: readonly { readonly expr?: string }[];
  readonly panels?: readonly Panel[];
}

export interface Rule {
  readonly record?: string;
  readonly alert?: string;
  readonly expr: string;
  readonly annotations?: { readonly runbook?: string };
}

export function dashboards(): { readonly file: string; readonly panels: readonly Panel[] }[] {
  const folder = join(HERE, 'grafana-dashboards');
  return readdirSync(folder).sort().map((file) => {
    const { panels } = JSON.parse(readFileSync(join(folder, file), 'utf8')) as { panels: Panel[] };
    return { file, panels: panels.flatMap((panel) => [panel, ...(panel.panels ?? [])]) };
  });
}

/** What Grafana puts in the place of its variables. */
function substituted(text: string): string {
  return text.replaceAll('$__rate_interval', '4m').replaceAll('$pool', '.*');
}

export function panelExpressions(): Expression[] {
  return dashboards().flatMap(({ file, panels }) =>
    panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => ({ place: `${file}: ${panel.title}`, text: substituted(expr ?? '') }))),
  );
}

export function rules(): Rule[] {
  return ['recording.yml', 'alerts.yml'].flatMap((file) => {
    const { groups } = parse(readFileSync(join(HERE, 'prometheus', file), 'utf8')) as { groups: { rules: Rule[] }[] };
    return groups.flatMap((group) => group.rules);
  });
}

export function ruleExpressions(): Expression[] {
  return rules().map((rule) => ({ place: rule.alert ?? rule.record ?? '', text: rule.expr }));
}

/** What an expression selects, as it is written there, without windows and offsets. */
export function selections(text: string): string[] {
  const found: string[] = [];
  parser.parse(text).iterate({
    enter(node) {
      if (node.name === 'VectorSelector') {
        found.push(text.slice(node.from, node.to));
      }
    },
  });
  return found;
}

/** The metrics that an expression selects, each with the labels by which it does; throws where it does not parse. */
export function selectors(expression: Expression): { readonly metric: string; readonly labels: readonly string[] }[] {
  const found: { metric: string; labels: string[] }[] = [];
  parser.parse(expression.text).iterate({
    enter(node) {
      const words = expression.text.slice(node.from, node.to);
      if (node.type.isError) {
        throw new Error(`${expression.place}: \`${expression.text}\` is no PromQL at character ${node.from}`);
      }
      if (node.name === 'VectorSelector') {
        found.push({ metric: '', labels: [] });
      }
      const selector = found.at(-1);
      if (node.name === 'Identifier' && node.node.parent?.name === 'VectorSelector' && selector !== undefined) {
        selector.metric = words;
      }
      if (node.name === 'LabelName' && node.node.parent?.name === 'UnquotedLabelMatcher' && selector !== undefined) {
        selector.labels.push(words);
      }
    },
  });
  return found;
}
