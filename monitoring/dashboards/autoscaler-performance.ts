// The daemon itself: how fast it decides, what it decides and why, and what it could not do.

import { bars, dashboard, durations, grown, latest, lines, number, row, swings } from './panels.js';

const SCALE_EVENTS = [
  ['sum by (pool) (node_fleet:launches:increase15m{pool=~"$pool"})', '{{pool}} launched'],
  ['-sum by (pool) (node_fleet:retirements:increase15m{pool=~"$pool"})', '{{pool}} given back'],
] as const;

export const autoscalerPerformance = dashboard('node-fleet-autoscaler', 'node-fleet / Autoscaler performance', 'How fast and how well the daemon decides')
  .withPanel(number('Since the last turn', 'Of the leader; a turn comes at least with every interval', 's', 'time() - max(node_fleet_last_turn_timestamp_seconds)', [300, 'yellow'], [600, 'red']))
  .withPanel(number('Evaluation, 95th percentile', 'From the beginning of a turn to the execution of its plan', 's', 'node_fleet:turn_duration:p95', [5, 'yellow'], [15, 'red']))
  .withPanel(number('Pod to launch, 95th percentile', 'From the Unschedulable condition to the request to EC2, in an hour', 's', 'node_fleet:unschedulable_to_launch:p95', [2, 'yellow'], [15, 'red']))
  .withPanel(number('Launch to Ready, 90th percentile', 'From the request to the Ready node, in an hour', 's', 'node_fleet:join_duration:p90', [240, 'yellow'], [300, 'red']))
  .withPanel(number('Failures in 15 minutes', 'Launches and retirements that failed', 'short', 'sum(node_fleet:operation_failures:increase15m) or vector(0)', [1, 'yellow'], [3, 'red']))
  .withPanel(number('Paused', '1 while nothing is started', 'short', 'max(node_fleet_paused)', [1, 'yellow']))
  .withRow(row('Evaluation and scale events'))
  .withPanel(durations('Evaluation', 'How long turns take', 'sum by (le) (increase(node_fleet_turn_duration_seconds_bucket[$__rate_interval]))'))
  .withPanel(
    lines('Evaluation against scale events', 'The 95th percentile of a turn, in seconds, and the instances of the 15 minutes before', 'short', [
      ['node_fleet:turn_duration:p95', 'evaluation (s)'],
      ['sum(node_fleet:launches:increase15m{pool=~"$pool"}) or vector(0)', 'launched'],
      ['sum(node_fleet:retirements:increase15m{pool=~"$pool"}) or vector(0)', 'given back'],
    ]),
  )
  .withPanel(swings('Scale events', 'Instances launched (up) and given back (down)', 'short', SCALE_EVENTS))
  .withPanel(
    lines('Turns by what began them', 'Each minute', 'short', [
      ['sum by (trigger) (rate(node_fleet_turn_duration_seconds_count[$__rate_interval])) * 60', '{{trigger}}'],
    ]),
  )
  .withPanel(durations('Plans', 'How long the computation of a plan takes', 'sum by (le) (increase(node_fleet_plan_duration_seconds_bucket[$__rate_interval]))'))
  .withPanel(durations('Launch to Ready', 'How long instances take to join', 'sum by (le) (increase(node_fleet_join_duration_seconds_bucket[$__rate_interval]))'))
  .withRow(row('Decisions'))
  .withPanel(bars('Given back, by reason', 'Instances in 15 minutes', 'short', [['sum by (reason) (node_fleet:retirements:increase15m{pool=~"$pool"})', '{{reason}}']]))
  .withPanel(bars('Launched, by market', 'Instances in 15 minutes', 'short', [['sum by (market) (node_fleet:launches:increase15m{pool=~"$pool"})', '{{market}}']]))
  .withPanel(
    lines('Holds', 'Why the latest plan did not do what a rule wanted; without a pool, for the whole fleet', 'short', [
      ['sum by (pool, rule, hold) (node_fleet_holds{pool=~"$pool|"})', '{{pool}} {{rule}}: {{hold}}'],
    ]),
  )
  .withPanel(latest('To look at', 'Conditions that last; the runbook has a section for each', 'short', 'max by (name) (node_fleet_alert) == 1'))
  .withRow(row('Forecast'))
  .withPanel(
    lines('Forecast against actual demand', 'By rule: what there is, and what was expected for the minute that is bought for', 'short', [
      ['max by (rule, value) (node_fleet_forecast_demand)', '{{rule}}: {{value}}'],
    ]),
  )
  .withPanel(
    lines('Nodes by forecast', 'Up to which a forecast buys and down to which it holds, against the wanted ones; a gap means that it has no say', 'short', [
      ['max by (pool, rule, bound) (node_fleet_forecast_nodes{pool=~"$pool"})', '{{pool}} {{rule}}: {{bound}}'],
      ['max by (pool) (node_fleet_nodes_desired{pool=~"$pool"})', '{{pool}}: wanted'],
    ]),
  )
  .withPanel(
    lines('Ways that are followed', 'By how many of the nodes that a forecast would hold: reactive ways need no forecast, the others do', 'short', [
      ['max by (pool, rule, way) (node_fleet_forecast_following_nodes{pool=~"$pool"})', '{{pool}} {{rule}}: {{way}}'],
    ]),
  )
  .withPanel(
    lines('Loss of forecasts', 'Of about a day, as a share of the better naive forecast\'s: below 1 it earns its place. Trusted is 1 while it has a say', 'short', [
      ['max by (rule) (node_fleet_forecast_loss_ratio)', '{{rule}}: loss'],
      ['max by (rule) (node_fleet_forecast_trusted)', '{{rule}}: trusted'],
    ]),
  )
  .withPanel(
    lines('Coverage of forecasts', 'Share of the minutes of about a day whose demand stayed below the quantile: p90 belongs at 0.9', 'percentunit', [
      ['max by (rule, quantile) (node_fleet_forecast_coverage_ratio)', '{{rule}}: {{quantile}}'],
    ]).max(1),
  )
  .withRow(row('Operations'))
  .withPanel(lines('Under way', 'Launches and retirements by state', 'short', [['sum by (kind, state) (node_fleet_operations)', '{{kind}} {{state}}']]))
  .withPanel(bars('Failures', 'Launches and retirements that failed, in 15 minutes', 'short', [['node_fleet:operation_failures:increase15m', '{{kind}}: {{failure}}']]))
  .withPanel(
    bars('Drains rolled back', 'Those that did not end in time, in 15 minutes', 'short', [
      [`sum by (pool) (${grown('node_fleet_drain_rollbacks_total{pool=~"$pool"}', '15m')})`, '{{pool}}'],
    ]),
  )
  .withPanel(bars('Plans refused by the audit', 'Each of them is a defect', 'short', [[`sum by (invariant) (${grown('node_fleet_audit_refusals_total', '15m')})`, '{{invariant}}']]))
  .withRow(row('Sources and notices'))
  .withPanel(lines('Sources', '1 when the source answered last time', 'short', [['min by (source) (node_fleet_source_up)', '{{source}}']]).max(1))
  .withPanel(bars('Failed calls', 'By system and class, in 15 minutes', 'short', [[`sum by (port, class) (${grown('node_fleet_port_failures_total', '15m')})`, '{{port}}: {{class}}']]))
  .withPanel(bars('Notices', 'Messages of the queue, by what they announce, in 15 minutes', 'short', [[`sum by (kind) (${grown('node_fleet_notices_total', '15m')})`, '{{kind}}']]))
  .withPanel(bars('Messages', 'What went to Slack, CloudWatch and Kubernetes Events, and what was dropped, in 15 minutes', 'short', [[`sum by (outlet, outcome) (${grown('node_fleet_told_total', '15m')})`, '{{outlet}}: {{outcome}}']]))
  .withPanel(lines('Age of prices', 'Since they were read from AWS; without a line those of the configuration hold', 's', [['time() - max by (market) (node_fleet_prices_read_timestamp_seconds)', '{{market}}']]))
  .withPanel(bars('Interruptions', 'Instances that EC2 takes back, in 15 minutes', 'short', [[`sum by (pool) (${grown('node_fleet_interruptions_total{pool=~"$pool"}', '15m')})`, '{{pool}}']]))
  .withPanel(durations('Interruption to cordon', 'EC2 gives two minutes', 'sum by (le) (increase(node_fleet_notice_to_cordon_seconds_bucket[$__rate_interval]))'))
  .withRow(row('The process'))
  .withPanel(lines('Resident memory', 'The unit allows a gigabyte', 'bytes', [['process_resident_memory_bytes{job="node-fleet"}', '{{instance}}']]))
  .withPanel(lines('Lead', 'Who acts', 'short', [['node_fleet_leader', '{{instance}}'], ['node_fleet_config_reload_failed', '{{instance}}: reload refused']]))
  .withPanel(lines('Age', 'Since the daemon started', 's', [['time() - process_start_time_seconds{job="node-fleet"}', '{{instance}}']]))
  .withPanel(latest('Builds', 'The versions that run', 'short', 'node_fleet_build_info'));
