/**
 * What the server lays out at its boot, in one object: manifests for K3s to apply and the daemon's
 * configuration. User data has room for 16 KiB; dashboards alone are more.
 */

import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { stringify } from "yaml";
import { REPOSITORY } from "./daemon-config";

export interface Bundle {
    readonly text: string;
    readonly sha256: string;
}

/** The largest ConfigMap that the API server takes, with room for its metadata. */
const LARGEST_DASHBOARD = 900_000;

function files(directory: string, ending: string): [string, string][] {
    if (!existsSync(directory)) {
        return [];
    }
    const names = readdirSync(directory).filter(name => name.endsWith(ending));
    return names.sort().map(name => [name, readFileSync(join(directory, name), "utf8")]);
}

/** The manifests by name: the monitoring, its dashboards and rules, and the daemon's own Kubernetes role. */
export function manifests(repository: string = REPOSITORY): Record<string, string> {
    const monitoring = files(join(repository, "pulumi", "manifests"), ".yaml").map(([name, text]) => [`monitoring-${name}`, text]);
    const role = files(join(repository, "packaging", "kubernetes"), ".yaml").map(([name, text]) => [`node-fleet-${name}`, text]);
    const boards = dashboards(files(join(repository, "monitoring", "grafana-dashboards"), ".json"));
    return Object.fromEntries([...monitoring, ...role, ["monitoring-dashboards.yaml", boards], ["monitoring-rules.yaml", rules(repository)]]);
}

/** Prometheus' ConfigMap of recording and alert rules, as `monitoring/` has them. */
function rules(repository: string): string {
    const read = (name: string): string => readFileSync(join(repository, "monitoring", "prometheus", name), "utf8");
    const metadata = { name: "prometheus-rules", namespace: "monitoring" };
    // Its other file is their test.
    const data = Object.fromEntries(["recording.yml", "alerts.yml"].map(name => [name, read(name)]));
    return stringify({ apiVersion: "v1", kind: "ConfigMap", metadata, data });
}

/** Grafana's ConfigMap of dashboards, in which it looks for them. */
export function dashboards(found: readonly (readonly [string, string])[]): string {
    const size = found.reduce((sum, [, text]) => sum + text.length, 0);
    if (size > LARGEST_DASHBOARD) {
        throw new Error(`the dashboards have ${size} bytes; right would be at most ${LARGEST_DASHBOARD}`);
    }
    const metadata = { name: "grafana-dashboards", namespace: "monitoring" };
    return stringify({ apiVersion: "v1", kind: "ConfigMap", metadata, data: Object.fromEntries(found) });
}

export function bundle(daemonConfig: string): Bundle {
    const entries = Object.entries(manifests()).map(([name, text]) => [`manifests/${name}`, text]);
    const text = JSON.stringify(Object.fromEntries([...entries, ["daemon/node-fleet.toml", daemonConfig]]));
    return { text, sha256: createHash("sha256").update(text).digest("hex") };
}
