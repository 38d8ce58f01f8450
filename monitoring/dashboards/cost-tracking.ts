// What the fleet costs, by pool, and against fleets that do not scale. List and market prices, not the bill.

import { bars, dashboard, grown, latest, lines, number, row, stacked } from './panels.js';

const LAUNCHED = 'node_fleet_instances_launched_total{pool=~"$pool"}';
const LAUNCHED_SPOT = 'node_fleet_instances_launched_total{pool=~"$pool", market="spot"}';

export const costTracking = dashboard('node-fleet-cost', 'node-fleet / Cost tracking', 'What the instances of the pools cost at list prices, on-demand or spot as they run')
  .time({ from: 'now-7d', to: 'now' })
  .withPanel(number('An hour now', 'All pools', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"})').span(3))
  .withPanel(number('A month at this rate', '730 hours', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}) * 730').span(3))
  .withPanel(number('Today', 'The ledger, all pools, from midnight UTC', 'currencyUSD', 'max(node_fleet:spend_dollars:max{period="today", basis="actual"})').span(3))
  .withPanel(number('This month', 'The ledger, all pools, in UTC', 'currencyUSD', 'max(node_fleet:spend_dollars:max{period="month", basis="actual"})').span(3))
  .withPanel(
    number(
      'Saved against a static peak',
      'The share of this month that a fleet always as large as at its largest would have cost more, on demand',
      'percentunit',
      '1 - max(node_fleet:spend_dollars:max{period="month", basis="actual"}) / max(node_fleet:spend_dollars:max{period="month", basis="static_peak"})',
    ),
  )
  .withPanel(
    number(
      'Saved against on-demand',
      'The share of this month that the same instances would have cost more on demand',
      'percentunit',
      '1 - max(node_fleet:spend_dollars:max{period="month", basis="actual"}) / max(node_fleet:spend_dollars:max{period="month", basis="on_demand"})',
    ),
  )
  .withPanel(
    number('A worker an hour', 'The mean price of a worker that is there', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}) / sum(node_fleet:nodes:sum{pool=~"$pool", state=~"ready|booting|not_ready"})'),
  )
  .withRow(row('Spend'))
  .withPanel(stacked('Hourly spend by pool', 'List prices of what runs', 'currencyUSD', [['node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}', '{{pool}}']]).span(24))
  .withPanel(
    lines('Spend against a static peak', 'What there is, and what a fleet of the week\'s peak would cost', 'currencyUSD', [
      ['sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"})', 'this fleet'],
      ['sum(max_over_time(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}[7d]))', 'static peak'],
    ]),
  )
  .withPanel(
    lines('A day\'s spend', 'Of the 24 hours before', 'currencyUSD', [['avg_over_time(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}[1d]) * 24', '{{pool}}']]),
  )
  .withPanel(
    lines('Month by month', 'What the month comes to so far, what the same instances would on demand, and a static peak', 'currencyUSD', [
      ['node_fleet:spend_dollars:max{period="month"}', '{{basis}}'],
    ]),
  )
  .withPanel(
    stacked('Spend by market and zone', 'Dollars an hour, from the ledger', 'currencyUSD', [
      ['sum by (market, zone) (rate(node_fleet:cost_dollars:total{pool=~"$pool"}[1h])) * 3600', '{{market}} {{zone}}'],
    ]),
  )
  .withPanel(
    stacked('Nodes by instance type', 'The mean of an hour, from the ledger', 'short', [
      ['sum by (instance_type) (rate(node_fleet:node_seconds:total{pool=~"$pool"}[1h]))', '{{instance_type}}'],
    ]),
  )
  .withRow(row('Who it is for'))
  .withPanel(
    stacked(
      'Hourly spend by namespace',
      'What the workers cost, by what the running pods of each namespace request of them: the mean of their shares of cores and memory. Takes kube-state-metrics',
      'currencyUSD',
      [
        ['namespace:cost_dollars_per_hour:requests', '{{namespace}}'],
        ['sum(node_fleet:cost_dollars_per_hour:max) - sum(namespace:cost_dollars_per_hour:requests)', 'not requested'],
      ],
    ),
  )
  .withPanel(
    latest(
      'A month by namespace, at the rate of the day before',
      '30 days of what the namespace has come to in the last 24 hours',
      'currencyUSD',
      'avg_over_time(namespace:cost_dollars_per_hour:requests[1d]) * 24 * 30',
    ),
  )
  .withRow(row('What it buys'))
  .withPanel(
    lines('Price of a busy core hour', 'Dollars an hour for each core that works', 'currencyUSD', [
      ['sum(node_fleet:cost_dollars_per_hour:max) / sum(node:cpu_busy:cores)', 'a busy core'],
    ]),
  )
  .withPanel(
    bars('Instances by market', 'Launched in a day', 'short', [[`sum by (market) (${grown(LAUNCHED, '1d')})`, '{{market}}']]),
  )
  .withPanel(
    lines('Share of spot among launches', 'In a day; interruptions and a shortage lower it', 'percentunit', [
      [
        `sum(${grown(LAUNCHED_SPOT, '1d')}) / (sum(${grown(LAUNCHED, '1d')}) > 0)`,
        'spot',
      ],
    ]).max(1),
  )
  .withPanel(latest('Pools', 'Dollars an hour now', 'currencyUSD', 'node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}'));
