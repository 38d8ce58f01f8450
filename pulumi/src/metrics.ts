/** The metrics that the daemon sends, of which alarms watch some: a test of the daemon holds names and units against its own. */

export const NAMESPACE = "node-fleet";

/** Every metric comes for the cluster as a whole; some come by pool as well. */
export const DIMENSIONS = ["Cluster"] as const;
export const POOL_DIMENSION = "Pool";

export const METRICS = {
    CurrentNodeCount: "Count",
    ClusterCPUUtilization: "Percent",
    ClusterMemoryUtilization: "Percent",
    PendingPods: "Count",
    ScaleUpEvents: "Count",
    ScaleDownEvents: "Count",
    ScalingFailures: "Count",
    NodeJoinLatency: "Seconds",
    CostEstimates: "None",
    SpotShare: "Percent",
    Heartbeat: "Count",
    SpotInterruptions: "Count",
} as const;

export type Metric = keyof typeof METRICS;

/** Those that come with both dimensions as well. */
export const BY_POOL: readonly Metric[] = ["CurrentNodeCount", "ClusterCPUUtilization", "ClusterMemoryUtilization", "CostEstimates"];
