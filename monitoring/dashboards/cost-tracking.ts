// What the fleet costs, by pool, and against fleets that do not scale. List prices, not the bill.

import { bars, dashboard, latest, lines, number, row, stacked } from './panels.js';

export const costTracking = dashboard('node-fleet-cost', 'node-fleet / Cost tracking', 'What the instances of the pools cost at list prices, on-demand or spot as they run')
  .time({ from: 'now-7d', to: 'now' })
  .withPanel(number('An hour now', 'All pools', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"})'))
  .withPanel(number('A month at this rate', '730 hours', 'currencyUSD', 'sum(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}) * 730'))
  .withPanel(number('Spent in the last day', 'The mean of the day, times 24 hours', 'currencyUSD', 'sum(avg_over_time(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}[1d])) * 24'))
  .withPanel(number('Spent in the last week', 'The mean of the week, times 168 hours', 'currencyUSD', 'sum(avg_over_time(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}[7d])) * 168'))
  .withPanel(
    number(
      'Saved against a static peak',
      'The share that a fleet of the week\'s peak would have cost more',
      'percentunit',
      '1 - sum(avg_over_time(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}[7d])) / sum(max_over_time(node_fleet:cost_dollars_per_hour:max{pool=~"$pool"}[7d]))',
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
