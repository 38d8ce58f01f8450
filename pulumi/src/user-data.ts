/** User data: the values of the stack, then the scripts of `userdata/`. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { type Pool, POD_NETWORK, type Settings } from "./settings";

/** EC2's limit, before base64. */
export const LIMIT = 16_384;

type Values = Readonly<Record<string, string>>;

/** Quotes a text for the shell, whatever is in it. */
export function quoted(text: string): string {
    return `'${text.replaceAll("'", `'\\''`)}'`;
}

function script(role: "server" | "worker", values: Values): string {
    const read = (name: string): string => readFileSync(join(__dirname, "..", "userdata", name), "utf8");
    const lines = Object.entries(values).map(([name, value]) => `${name}=${quoted(value)}`);
    return `#!/usr/bin/env bash\n${lines.join("\n")}\n${read("common.sh")}${read(`${role}.sh`)}`;
}

function common(settings: Settings, serverName: string): Values {
    return {
        NF_CLUSTER: settings.cluster,
        NF_REGION: settings.region,
        NF_SERVER: serverName,
        NF_K3S_VERSION: settings.k3s.version,
        NF_K3S_SOURCE: settings.k3s.source,
        NF_K3S_SHA256: settings.k3s.sha256,
    };
}

export function workerScript(settings: Settings, pool: Pool, serverName: string, agentToken: string): string {
    return script("worker", { ...common(settings, serverName), NF_POOL: pool.name, NF_AGENT_TOKEN: agentToken });
}

export interface ServerValues {
    readonly serverName: string;
    readonly serverToken: string;
    readonly agentToken: string;
    readonly prometheus: string;
    readonly daemonToken: string;
    readonly alarms: string;
    readonly bundle: string;
    readonly bundleSha256: string;
}

export function serverScript(settings: Settings, index: number, values: ServerValues): string {
    return script("server", {
        ...common(settings, values.serverName),
        NF_INDEX: String(index),
        NF_SERVERS: String(settings.servers),
        NF_POD_NETWORK: POD_NETWORK,
        NF_OPEN: String(settings.apiFrom.length > 0),
        NF_SERVER_TOKEN: values.serverToken,
        NF_AGENT_TOKEN: values.agentToken,
        NF_PROMETHEUS: values.prometheus,
        NF_DAEMON_TOKEN: values.daemonToken,
        NF_ALARMS: values.alarms,
        NF_BUNDLE: values.bundle,
        NF_BUNDLE_SHA256: values.bundleSha256,
        NF_PACKAGE_SOURCE: settings.package.source,
        NF_PACKAGE_SHA256: settings.package.sha256,
    });
}

/**
 * Packs a script as EC2 takes it; cloud-init unpacks it.
 *
 * @throws Error when it is too large.
 */
export function packed(text: string): string {
    const bytes = gzipSync(text, { level: 9 });
    if (bytes.length > LIMIT) {
        throw new Error(`the user data has ${bytes.length} bytes; EC2 takes ${LIMIT}`);
    }
    return bytes.toString("base64");
}
