/** What the stack tells of itself. No secret is among it, only where they are. */

import * as pulumi from "@pulumi/pulumi";
import type { Secrets } from "./secrets";
import type { Servers } from "./master";
import type { Settings } from "./settings";
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
    readonly imageId: pulumi.Output<string>;
    readonly bundleSha256: pulumi.Output<string>;
}

/** Where cloud-init keeps the user data that a server booted with, unpacked. */
const BOOT_SCRIPT = "/var/lib/cloud/instance/scripts/part-001";

/** What brings a server to the versions and the bundle of the configuration; `upgrade` of `userdata/server.sh` takes it. */
function upgrade({ k3s, package: daemon }: Settings, bundleSha256: string): string {
    const values = [k3s.version, k3s.source, k3s.sha256, daemon.source, daemon.sha256, bundleSha256];
    return `sudo ${BOOT_SCRIPT} upgrade ${values.join(" ")}`;
}

export function outputs(settings: Settings, parts: Parts): Record<string, pulumi.Input<unknown>> {
    const ids = parts.servers.instances.map(instance => instance.id);
    return {
        apiServer: `https://${parts.serverName}:6443`,
        servers: ids,
        serverAddresses: parts.servers.instances.map(instance => instance.publicIp),
        shell: ids[0] ? pulumi.interpolate`aws ssm start-session --region ${settings.region} --target ${ids[0]}` : "",
        upgrade: parts.bundleSha256.apply(sha256 => upgrade(settings, sha256)),
        imageId: parts.imageId,
        launchTemplates: Object.fromEntries(parts.templates.map(({ pool, template }) => [pool, template.id])),
        ledgerTable: parts.table,
        noticesQueue: parts.queueUrl,
        alarmsTopic: parts.alarms,
        slackSecret: parts.secrets.slack.name,
        daemonConfig: parts.daemonConfig,
    };
}
