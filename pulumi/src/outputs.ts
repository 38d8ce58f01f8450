/** What the stack tells of itself. No secret is among it, only where they are. */

import * as pulumi from "@pulumi/pulumi";
import type { Secrets } from "./secrets";
import type { Servers } from "./master";
import type { Template } from "./ec2-worker";

export interface Parts {
    readonly serverName: string;
    readonly servers: Servers;
    readonly templates: readonly Template[];
    readonly secrets: Secrets;
    readonly table: pulumi.Output<string>;
    readonly queueUrl: pulumi.Output<string>;
    readonly alarms: pulumi.Output<string>;
    readonly daemonConfig: pulumi.Output<string>;
}

export function outputs(parts: Parts): Record<string, pulumi.Input<unknown>> {
    const ids = parts.servers.instances.map(instance => instance.id);
    return {
        apiServer: `https://${parts.serverName}:6443`,
        servers: ids,
        serverAddresses: parts.servers.instances.map(instance => instance.publicIp),
        shell: ids[0] ? pulumi.interpolate`aws ssm start-session --target ${ids[0]}` : "",
        launchTemplates: Object.fromEntries(parts.templates.map(({ pool, template }) => [pool, template.id])),
        ledgerTable: parts.table,
        noticesQueue: parts.queueUrl,
        alarmsTopic: parts.alarms,
        slackSecret: parts.secrets.slack.name,
        daemonConfig: parts.daemonConfig,
    };
}
