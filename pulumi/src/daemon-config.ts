/** The daemon's configuration, of the stack's. What is not said here has the daemon's own default. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { NAMESPACE } from "./metrics";
import { DAEMON_PORT } from "./network";
import type { Pool, Settings } from "./settings";

/** Where the repository lies: the daemon's example configuration and Kubernetes role are taken from it. */
export const REPOSITORY = join(__dirname, "..", "..");

/** What the stack knows only once it is made. */
export interface Made {
    readonly table: string;
    readonly queueUrl: string;
    readonly prometheusSecret: string;
    readonly daemonToken: string;
    readonly slackSecret: string;
    readonly subnets: readonly string[];
    /** Launch templates by pool. */
    readonly templates: Readonly<Record<string, string>>;
}

/** JSON's texts and lists of texts are TOML's as well. */
const quote = JSON.stringify;

/**
 * Renders the configuration.
 *
 * @throws Error when a type has no price.
 */
export function daemonConfig(settings: Settings, made: Made): string {
    const lines = [
        "# Written by Pulumi at this server's first boot.",
        "[cluster]",
        `id = ${quote(settings.cluster)}`,
        `region = ${quote(settings.region)}`,
        "",
        "# Each server has its own, on loopback.",
        "[prometheus]",
        'endpoints = ["http://127.0.0.1:9090"]',
        "",
        "[prometheus.auth]",
        'username = "node-fleet"',
        `password = { secrets_manager = ${quote(made.prometheusSecret)}, key = "password" }`,
        "",
        "[ledger]",
        `table = ${quote(made.table)}`,
        "",
        "[notices]",
        `queue_url = ${quote(made.queueUrl)}`,
        "",
        "# The Prometheus of each server reads /metrics of all; whoever would know or do more needs the token.",
        "[http]",
        `listen = "0.0.0.0:${DAEMON_PORT}"`,
        `token = { secrets_manager = ${quote(made.daemonToken)} }`,
        "",
        "# What the alarms watch.",
        "[cloudwatch]",
        "enabled = true",
        `namespace = ${quote(NAMESPACE)}`,
        "",
        ...(settings.slack ? ["[slack]", `webhook = { secrets_manager = ${quote(made.slackSecret)} }`, ""] : []),
        ...settings.pools.flatMap(pool => poolSection(pool, made)),
        "[prices.on_demand]",
        ...priceLines(settings),
    ];
    return `${lines.join("\n")}\n`;
}

function poolSection(pool: Pool, made: Made): string[] {
    const template = made.templates[pool.name];
    if (template === undefined) {
        throw new Error(`the pool ${pool.name} has no launch template`);
    }
    return [
        "[[pool]]",
        `name = ${quote(pool.name)}`,
        `launch_template = ${quote(template)}`,
        `subnets = ${quote(made.subnets)}`,
        `instance_types = ${quote(pool.instanceTypes)}`,
        `min = ${pool.min}`,
        `max = ${pool.max}`,
        `on_demand_base = ${pool.onDemandBase}`,
        `spot_share = ${pool.spotShare.toFixed(4)}`,
        // As userdata/common.sh tells the kubelet.
        'reserved_cpu = "100m"',
        'reserved_memory = "512Mi"',
        "max_pods = 110",
        "",
    ];
}

function priceLines(settings: Settings): string[] {
    const known = { ...listPrices(), ...settings.prices };
    const types = [...new Set(settings.pools.flatMap(pool => pool.instanceTypes))].sort();
    return types.map(type => {
        const price = known[type];
        if (price === undefined) {
            throw new Error(`node-fleet:prices has no price for ${type}; right would be its dollars per hour on demand, like {"${type}": 0.1}`);
        }
        return `${quote(type)} = ${price}`;
    });
}

/** The prices of the daemon's example configuration. */
function listPrices(): Record<string, number> {
    const text = readFileSync(join(REPOSITORY, "config", "node-fleet.toml"), "utf8");
    const [, section = ""] = text.split("[prices.on_demand]\n");
    const found = [...section.matchAll(/^"([a-z0-9.-]+)" = ([0-9.]+)$/gm)];
    return Object.fromEntries(found.map(([, type = "", price]) => [type, Number(price)]));
}
