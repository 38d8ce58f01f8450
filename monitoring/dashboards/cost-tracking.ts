// What the fleet costs, by pool, and against fleets that do not scale. List and market prices, not the bill.

import { bars, dashboard, latest, lines, number, row, stacked } from './panels.js';

export const costTracking = dashboard('node-fleet-cost', 'node-fleet / Cost tracking', 'What the instances of the pools cost at list prices, on-demand or spot as they run')
  .time({ from: 'now-7d', to: 'now' })
  .withPanel(number('An hour now', 'All pools', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"})'))
  .withPanel(number('A month at this rate', '730 hours', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}) * 730'))
  .withPanel(number('Today', 'The ledger, all pools, from midnight UTC', 'currencyUSD', 'max(node_fleet:spend_dollars:max{period="today", basis="actual"})'))
  .withPanel(number('This month', 'The ledger, all pools, in UTC', 'currencyUSD', 'max(node_fleet:spend_dollars:max{period="month", basis="actual"})'))
  .withPanel(
    number(
      'Saved against a static peak',
      'The share of this month that a fleet always as large as at its largest would have cost more, on demand',
      'percentunit',
      '1 - max(node_fleet:spend_dollars:max{period="month", basis="actual"}) / max(node_fleet:spend_dollars:max{period="month", basis="static_peak"})',
    ),
  )
  .withPanel(
    number('A worker an hour', 'The mean price of a worker that is there', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}) / sum(node_fleet:nodes:sum{pool=~"$pool", state=~"ready|not_ready"})'),
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
  .withRow(row('What it buys'))
  .withPanel(
    lines('Price of a busy core hour', 'Dollars an hour for each core that works', 'currencyUSD', [
      ['sum(node_fleet:cost_dollars_per_hour:max) / sum(node:cpu_busy:cores)', 'a busy core'],
    ]),
  )
  .withPanel(
    bars('Instances by market', 'Launched in a day', 'short', [['sum by (market) (increase(node_fleet_instances_launched_total{pool=~"$pool"}[1d]))', '{{market}}']]),
  )
  .withPanel(
    lines('Share of spot among launches', 'In a day; interruptions and a shortage lower it', 'percentunit', [
      [
        'sum(increase(node_fleet_instances_launched_total{pool=~"$pool", market="spot"}[1d])) / (sum(increase(node_fleet_instances_launched_total{pool=~"$pool"}[1d])) > 0)',
        'spot',
      ],
    ]).max(1),
  )
  .withPanel(latest('Pools', 'Dollars an hour now', 'currencyUSD', 'node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}'));
