/** What all parts of the stack call things by, and the tags that everything carries. */

import type { Settings } from "./settings";

/** The tags by which the daemon knows its instances; `src/model/instance.rs` has the same. */
export const PROJECT = { Project: "node-fleet" } as const;
export const CLUSTER_TAG = "node-fleet.io/cluster";
export const POOL_TAG = "node-fleet.io/pool";
/** Beyond these and the cluster's tag an instance is the fleet's only with both of them. */
export const WORKER_TAGS = { ManagedBy: "node-fleet", Role: "k3s-worker" } as const;

/** The tags of everything in the stack. */
export function tags(settings: Settings, name: string, more: Readonly<Record<string, string>> = {}): Record<string, string> {
    return { ...PROJECT, [CLUSTER_TAG]: settings.cluster, Name: `${settings.cluster}-${name}`, ...more };
}

/** The private zone in which servers are found. */
export function zoneName(settings: Settings): string {
    return `${settings.cluster}.node-fleet.internal`;
}

/** The name under which every node reaches the API server. */
export function serverName(settings: Settings): string {
    return `server.${zoneName(settings)}`;
}
