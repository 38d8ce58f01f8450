// The kinds of panels that the dashboards are made of, so that like things look alike.

import { VisibilityMode } from '@grafana/grafana-foundation-sdk/common';
import { DashboardBuilder, DashboardCursorSync, DatasourceVariableBuilder, QueryVariableBuilder, RowBuilder, ThresholdsConfigBuilder, ThresholdsMode, VariableRefresh } from '@grafana/grafana-foundation-sdk/dashboard';
import * as heatmap from '@grafana/grafana-foundation-sdk/heatmap';
import { DataqueryBuilder, PromQueryFormat } from '@grafana/grafana-foundation-sdk/prometheus';
import * as stat from '@grafana/grafana-foundation-sdk/stat';
import * as table from '@grafana/grafana-foundation-sdk/table';
import * as timeseries from '@grafana/grafana-foundation-sdk/timeseries';
import { LegendDisplayMode, LegendPlacement, GraphDrawStyle, StackingMode, LineInterpolation } from '@grafana/grafana-foundation-sdk/common';
import * as common from '@grafana/grafana-foundation-sdk/common';

/** A query with the name of its line. */
export type Query = readonly [expression: string, legend: string];

const SOURCE = { type: 'prometheus', uid: '${source}' };

function queries(list: readonly Query[]): DataqueryBuilder[] {
  return list.map(([expression, legend], index) =>
    new DataqueryBuilder()
      .refId(String.fromCharCode('A'.charCodeAt(0) + index))
      .expr(expression)
      .legendFormat(legend)
      .datasource(SOURCE),
  );
}

/** Windows by their length in seconds. */
const WINDOWS = { '15m': 900, '1d': 86_400 } as const;

/**
 * How much a counter has grown. One that appears with its first event has no increase yet: all of its value is news,
 * unless it was there a window ago, or, where a scrape has failed just then, at any time in the window before. The latter
 * is asked once the daemon is two windows old: what was there before its start was another counter.
 */
export function grown(counter: string, window: keyof typeof WINDOWS): string {
  const before = `max_over_time(${counter}[${window}] offset ${window}) and on (instance) time() - process_start_time_seconds > ${2 * WINDOWS[window]}`;
  return `(${counter} unless ${counter} offset ${window} unless (${before})) or increase(${counter}[${window}])`;
}

/** Lines over time, wherever they go. */
function free(title: string, description: string, unit: string, list: readonly Query[]): timeseries.PanelBuilder {
  return new timeseries.PanelBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .unit(unit)
    .targets(queries(list))
    .lineInterpolation(LineInterpolation.StepAfter)
    .legend(new common.VizLegendOptionsBuilder().displayMode(LegendDisplayMode.List).placement(LegendPlacement.Bottom).showLegend(true))
    .tooltip(new common.VizTooltipOptionsBuilder().mode(common.TooltipDisplayMode.Multi).sort(common.SortOrder.Descending))
    .height(8)
    .span(12);
}

function pile(panel: timeseries.PanelBuilder): timeseries.PanelBuilder {
  return panel.fillOpacity(40).stacking(new common.StackingConfigBuilder().mode(StackingMode.Normal));
}

function upright(panel: timeseries.PanelBuilder): timeseries.PanelBuilder {
  return pile(panel).drawStyle(GraphDrawStyle.Bars).fillOpacity(80);
}

/** Lines over time, from zero. */
export function lines(title: string, description: string, unit: string, list: readonly Query[]): timeseries.PanelBuilder {
  return free(title, description, unit, list).min(0);
}

/** Lines that add up. */
export function stacked(title: string, description: string, unit: string, list: readonly Query[]): timeseries.PanelBuilder {
  return pile(lines(title, description, unit, list));
}

/** Bars for what happens now and then. */
export function bars(title: string, description: string, unit: string, list: readonly Query[]): timeseries.PanelBuilder {
  return upright(lines(title, description, unit, list));
}

/** Bars above and below zero. */
export function swings(title: string, description: string, unit: string, list: readonly Query[]): timeseries.PanelBuilder {
  return upright(free(title, description, unit, list));
}

/** From which value on a number has which colour; below the first it is green. */
export type Step = readonly [value: number, color: 'green' | 'yellow' | 'red'];

/** One number. */
export function number(title: string, description: string, unit: string, query: string, ...steps: readonly Step[]): stat.PanelBuilder {
  return new stat.PanelBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .unit(unit)
    .targets(queries([[query, title]]))
    .reduceOptions(new common.ReduceDataOptionsBuilder().calcs(['lastNotNull']))
    .colorMode(common.BigValueColorMode.Value)
    .graphMode(common.BigValueGraphMode.Area)
    .thresholds(new ThresholdsConfigBuilder().mode(ThresholdsMode.Absolute).steps([{ value: null, color: 'green' }, ...steps.map(([value, color]) => ({ value, color }))]))
    .height(4)
    .span(4);
}

/** A row of cells for each series, the darker the greater: shares from 0 to 1. */
export function shares(title: string, description: string, query: Query): heatmap.PanelBuilder {
  return new heatmap.PanelBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .targets(queries([query]))
    .calculate(false)
    // Each series is a row of its own, by its name.
    .rowsFrame(new heatmap.RowsHeatmapOptionsBuilder().layout(common.HeatmapCellLayout.Auto))
    .color(new heatmap.HeatmapColorOptionsBuilder().mode(heatmap.HeatmapColorMode.Scheme).scheme('YlOrRd').steps(64).min(0).max(1).reverse(false).exponent(1).fill('dark-red'))
    .cellValues(new heatmap.CellValuesBuilder().unit('percentunit'))
    .yAxis(new heatmap.YAxisConfigBuilder().unit('short'))
    .showValue(VisibilityMode.Never)
    .cellGap(1)
    .showLegend()
    .height(9)
    .span(12);
}

/** How long things took, as a heat map of the buckets of a histogram. */
export function durations(title: string, description: string, query: string): heatmap.PanelBuilder {
  const target = new DataqueryBuilder().refId('A').expr(query).legendFormat('{{le}}').format(PromQueryFormat.Heatmap).datasource(SOURCE);
  return new heatmap.PanelBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .targets([target])
    .calculate(false)
    .color(new heatmap.HeatmapColorOptionsBuilder().mode(heatmap.HeatmapColorMode.Scheme).scheme('Blues').steps(64).reverse(false).exponent(0.5).fill('dark-blue'))
    .yAxis(new heatmap.YAxisConfigBuilder().unit('s'))
    .showValue(VisibilityMode.Never)
    .cellGap(1)
    .height(8)
    .span(12);
}

/** The latest values, a row for each series. */
export function latest(title: string, description: string, unit: string, query: string): table.PanelBuilder {
  const target = new DataqueryBuilder().refId('A').expr(query).format(PromQueryFormat.Table).instant().datasource(SOURCE);
  return new table.PanelBuilder()
    .title(title)
    .description(description)
    .datasource(SOURCE)
    .unit(unit)
    .targets([target])
    .withTransformation({ id: 'organize', options: { excludeByName: { Time: true, instance: true, job: true, __name__: true } } })
    .height(8)
    .span(12);
}

/** A headline over the panels that follow. */
export function row(title: string): RowBuilder {
  return new RowBuilder(title);
}

/** A dashboard with the choice of the Prometheus and of the pools. */
export function dashboard(uid: string, title: string, description: string): DashboardBuilder {
  return new DashboardBuilder(title)
    .uid(uid)
    .description(description)
    .tags(['node-fleet'])
    .timezone('browser')
    .tooltip(DashboardCursorSync.Crosshair)
    .refresh('1m')
    .time({ from: 'now-6h', to: 'now' })
    .readonly()
    .withVariable(new DatasourceVariableBuilder('source').label('Prometheus').type('prometheus'))
    .withVariable(
      new QueryVariableBuilder('pool')
        .label('Pool')
        .datasource(SOURCE)
        .query({ query: 'label_values(node_fleet_nodes_desired, pool)', refId: 'pools' })
        .refresh(VariableRefresh.OnTimeRangeChanged)
        .multi(true)
        .includeAll(true)
        .allValue('.*'),
    );
}
