// The cluster at a glance: are there enough nodes, are they used, and does somebody wait?

import { dashboard, latest, lines, number, row, shares, stacked } from './panels.js';

export const clusterOverview = dashboard('node-fleet-cluster', 'node-fleet / Cluster overview', 'Nodes, load and waiting pods of the fleet')
  .withPanel(number('Ready workers', 'Workers with a Ready node, in all pools', 'short', 'sum(node_fleet:nodes:sum{pool=~"$pool", state="ready"})'))
  .withPanel(number('Wanted workers', 'What the pools should have after the latest plan', 'short', 'sum(max by (pool) (node_fleet_nodes_desired{pool=~"$pool"}))'))
  .withPanel(number('Pending pods', 'Pods that wait for a node', 'short', 'max(node_fleet_pending_pods)', [1, 'yellow'], [20, 'red']))
  .withPanel(number('Unplaceable pods', 'Pods that wait and that no node of ours could take', 'short', 'max(node_fleet_unplaceable_pods)', [1, 'yellow'], [5, 'red']))
  .withPanel(number('Leaders', 'Daemons that act: one is right', 'short', 'sum(node_fleet_leader)', [0, 'red'], [1, 'green'], [2, 'red']))
  .withPanel(number('Things to look at', 'Conditions that the daemon wants a human to look at', 'short', 'sum(max by (name) (node_fleet_alert))', [1, 'yellow'], [3, 'red']))
  .withRow(row('Nodes'))
  .withPanel(
    stacked('Workers by state', 'Ready, not Ready, and asked for but not seen yet', 'short', [
      ['sum by (state) (node_fleet:nodes:sum{pool=~"$pool"})', '{{state}}'],
    ]),
  )
  .withPanel(
    lines('Wanted workers and their bounds', 'The bounds in force: schedules change them', 'short', [
      ['max by (pool) (node_fleet_nodes_desired{pool=~"$pool"})', '{{pool}} wanted'],
      ['max by (pool) (node_fleet_nodes_min{pool=~"$pool"})', '{{pool}} least'],
      ['max by (pool) (node_fleet_nodes_max{pool=~"$pool"})', '{{pool}} most'],
    ]),
  )
  .withRow(row('Load'))
  .withPanel(shares('CPU by node', 'The share of each node\'s cores that is busy', ['node:cpu_utilisation:ratio', '{{instance}}']))
  .withPanel(shares('Memory by node', 'The share of each node\'s memory that is not available', ['node:memory_utilisation:ratio', '{{instance}}']))
  .withPanel(
    lines('CPU by pool', 'As the daemon sees it; a gap means that it does not trust the figures', 'percentunit', [
      ['max by (pool) (node_fleet_cpu_utilisation_ratio{pool=~"$pool"})', '{{pool}}'],
    ]).max(1),
  )
  .withPanel(
    lines('Memory by pool', 'As the daemon sees it; a gap means that it does not trust the figures', 'percentunit', [
      ['max by (pool) (node_fleet_memory_utilisation_ratio{pool=~"$pool"})', '{{pool}}'],
    ]).max(1),
  )
  .withRow(row('Pods'))
  .withPanel(
    lines('Pods that wait', 'Pending: for a node. Unplaceable: no node of ours could take them', 'short', [
      ['max(node_fleet_pending_pods)', 'pending'],
      ['max(node_fleet_unplaceable_pods)', 'unplaceable'],
    ]),
  )
  .withPanel(
    lines('Pods by phase', 'As kube-state-metrics counts them', 'short', [['sum by (phase) (kube_pod_status_phase)', '{{phase}}']]),
  )
  .withPanel(
    latest('Nodes that are cordoned', 'Nodes that take no pods, by whomever', 'short', 'kube_node_spec_unschedulable == 1'),
  )
  .withPanel(
    lines('Cores that are asked for', 'The requests of pods against what the nodes have to give', 'short', [
      ['sum(kube_pod_container_resource_requests{resource="cpu"})', 'requested'],
      ['sum(kube_node_status_allocatable{resource="cpu"})', 'allocatable'],
    ]),
  );
