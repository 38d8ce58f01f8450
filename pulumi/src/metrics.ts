/** The metrics that the alarms watch: the one place of their names, units and dimensions. */

export const NAMESPACE = "node-fleet";

/** Every metric is watched for the cluster as a whole. */
export const DIMENSIONS = ["Cluster"] as const;

export const METRICS = {
    CurrentNodeCount: "Count",
    ClusterCPUUtilization: "Percent",
    ClusterMemoryUtilization: "Percent",
    PendingPods: "Count",
    ScalingFailures: "Count",
    NodeJoinLatency: "Seconds",
    Heartbeat: "Count",
    SpotInterruptions: "Count",
} as const;

export type Metric = keyof typeof METRICS;
