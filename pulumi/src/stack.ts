/** Puts the parts together. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { topic, watch, watchDeadLetters } from "./alarms";
import { type Bundle, bundle } from "./bundle";
import { daemonConfig } from "./daemon-config";
import { image, templates, type Template, volumeKey } from "./ec2-worker";
import { events } from "./events";
import { grant, keyGrant, type Role, serverRole, serviceRoles, workerRole } from "./iam";
import { artifacts, servers, upload } from "./master";
import { network, type Network } from "./network";
import { outputs } from "./outputs";
import { instanceTypes, type Names } from "./policies";
import { type Secrets, secrets } from "./secrets";
import type { Artifact, Settings } from "./settings";
import { ledger } from "./state";

export function stack(settings: Settings): Record<string, pulumi.Input<unknown>> {
    const account = aws.getCallerIdentityOutput().accountId;
    const net = network(settings, account);
    const table = ledger(settings);
    const entries = secrets(settings);
    const { queue, deadLetters } = events(settings, account);
    const alarms = topic(settings, account);
    watch(settings, alarms);
    watchDeadLetters(settings, alarms, deadLetters);
    const serverSide = serverRole(settings);
    const workerSide = workerRole(settings);
    const granted = keyGrant(settings, account, serviceRoles(settings));
    const imageId = image(settings);
    const pools = templates(settings, net, workerSide, imageId, entries.agentToken.name, volumeKey(settings, account));
    const bucket = artifacts(settings);
    const config = pulumi
        .all([table.name, queue.url, entries.prometheus.name, entries.daemonToken.name, entries.slack.name, pulumi.all(net.privateSubnets.map(it => it.id)), pulumi.all(pools.map(it => it.template.id))])
        .apply(([name, queueUrl, prometheusSecret, daemonToken, slackSecret, subnets, ids]) => {
            const byPool = Object.fromEntries(pools.map(({ pool }, index) => [pool, ids[index] ?? ""]));
            return daemonConfig(settings, { table: name, queueUrl, prometheusSecret, daemonToken, slackSecret, subnets, templates: byPool });
        });
    const packedUp: pulumi.Output<Bundle> = config.apply(bundle);
    const object = upload(settings, bucket, packedUp);
    const names = naming(settings, account, {
        net, pools, serverSide, workerSide, entries, imageId, table: table.arn, queue: queue.arn, alarms: alarms.arn,
        bundle: pulumi.interpolate`${bucket.arn}/${object.key}`,
    });
    const rights = grant(settings, serverSide, workerSide, names);
    const values = pulumi.output({
        serverName: net.serverName,
        serverToken: entries.serverToken.name,
        agentToken: entries.agentToken.name,
        prometheus: entries.prometheus.name,
        daemonToken: entries.daemonToken.name,
        alarms: alarms.arn,
        bundle: pulumi.interpolate`s3://${bucket.bucket}/${object.key}`,
        bundleSha256: packedUp.sha256,
    });
    const made = servers(settings, net, serverSide, imageId, values, [...rights, ...granted, object, ...net.routes]);
    return outputs(settings, {
        serverName: net.serverName, servers: made, templates: pools, secrets: entries,
        table: table.name, queueUrl: queue.url, alarms: alarms.arn, daemonConfig: config,
        imageId, bundleSha256: packedUp.sha256,
    });
}

interface Named {
    readonly net: Network;
    readonly pools: readonly Template[];
    readonly serverSide: Role;
    readonly workerSide: Role;
    readonly entries: Secrets;
    readonly imageId: pulumi.Output<string>;
    readonly table: pulumi.Output<string>;
    readonly queue: pulumi.Output<string>;
    readonly alarms: pulumi.Output<string>;
    readonly bundle: pulumi.Output<string>;
}

/** Collects what the policies speak of. */
function naming(settings: Settings, account: pulumi.Output<string>, of: Named): pulumi.Output<Names> {
    const partition = aws.getPartitionOutput().partition;
    const inS3 = (...all: Artifact[]): pulumi.Output<string[]> =>
        partition.apply(it => all.filter(({ source }) => source.startsWith("s3://")).map(({ source }) => `arn:${it}:s3:::${source.slice(5)}`));
    return pulumi.output({
        partition,
        region: settings.region,
        account,
        cluster: settings.cluster,
        templates: of.pools.map(it => it.template.arn),
        subnets: of.net.privateSubnets.map(it => it.arn),
        workerGroup: of.net.workerGroup.arn,
        // Images have no account in their names.
        image: pulumi.interpolate`arn:${partition}:ec2:${settings.region}::image/${of.imageId}`,
        instanceTypes: instanceTypes(settings),
        workerRole: of.workerSide.role.arn,
        workerProfile: of.workerSide.profile.arn,
        table: of.table,
        queue: of.queue,
        alarms: of.alarms,
        serverToken: of.entries.serverToken.arn,
        agentToken: of.entries.agentToken.arn,
        prometheus: of.entries.prometheus.arn,
        daemonToken: of.entries.daemonToken.arn,
        slack: of.entries.slack.arn,
        bundle: of.bundle,
        key: settings.kmsKeyId,
        artifacts: { server: inS3(settings.k3s, settings.package), worker: inS3(settings.k3s) },
    });
}
