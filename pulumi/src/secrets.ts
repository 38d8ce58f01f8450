/**
 * Entries of Secrets Manager. No value passes through this program or its state: the first server
 * makes the tokens and the Prometheus credentials at its first boot, and an operator puts the
 * Slack webhook there.
 */

import * as aws from "@pulumi/aws";
import { tags } from "./names";
import type { Settings } from "./settings";

/** A deleted secret can be had back for so long. */
const RECOVERY_DAYS = 7;

export interface Secrets {
    /** The server's token: who has it may join as a server, and so has the cluster. */
    readonly serverToken: aws.secretsmanager.Secret;
    /** The agent's token: who has it may join as a worker. */
    readonly agentToken: aws.secretsmanager.Secret;
    /** JSON with `username` and `password`. */
    readonly prometheus: aws.secretsmanager.Secret;
    /** What whoever changes something over TCP must show to the daemon. */
    readonly daemonToken: aws.secretsmanager.Secret;
    /** The webhook's URL. */
    readonly slack: aws.secretsmanager.Secret;
}

export function secrets(settings: Settings): Secrets {
    const entry = (name: string, description: string): aws.secretsmanager.Secret =>
        new aws.secretsmanager.Secret(name, {
            name: `${settings.cluster}/${name}`,
            description,
            recoveryWindowInDays: RECOVERY_DAYS,
            tags: tags(settings, name),
        });
    return {
        serverToken: entry("k3s-server-token", "Joins servers to K3s; the first server makes it"),
        agentToken: entry("k3s-agent-token", "Joins workers to K3s; the first server makes it"),
        prometheus: entry("prometheus", "username and password of Prometheus, as JSON; the first server makes them"),
        daemonToken: entry("daemon-token", "http.token of the daemon; the first server makes it"),
        slack: entry("slack", "The Slack webhook; put there by an operator"),
    };
}
