/**
 * The pools' launch templates. No worker is made here: the daemon buys the first ones at its first
 * turn, since a pool below its `min` acts at once, and so every worker has one owner.
 */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { Role } from "./iam";
import { POOL_TAG, tags } from "./names";
import type { Network } from "./network";
import type { Settings } from "./settings";
import { packed, workerScript } from "./user-data";

/** IMDSv2 alone; one hop, so that pods with a network of their own do not reach the role's credentials. */
export const METADATA = { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1, instanceMetadataTags: "disabled" } as const;

/** The newest image of Ubuntu 24.04 by Canonical, unless the configuration names one. */
export function image(settings: Settings): pulumi.Output<string> {
    if (settings.imageId) {
        return pulumi.output(settings.imageId);
    }
    return aws.ec2.getAmiOutput({
        mostRecent: true,
        owners: ["099720109477"],
        filters: [
            { name: "name", values: ["ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"] },
            { name: "architecture", values: ["x86_64"] },
            { name: "virtualization-type", values: ["hvm"] },
        ],
    }).id;
}

/**
 * The key of the workers' volumes. Without one EC2 takes the account's default, for which the daemon has no right where it
 * is a key of the account's own: instances then end at once, and no answer to a launch says why. AWS's key needs no right.
 */
export function volumeKey(settings: Settings, account: pulumi.Output<string>): pulumi.Output<string> {
    const aws_ = aws.getPartitionOutput().partition;
    // The whole name: the provider takes no alias without one.
    return settings.kmsKeyId ? pulumi.output(settings.kmsKeyId) : pulumi.interpolate`arn:${aws_}:kms:${settings.region}:${account}:alias/aws/ebs`;
}

export interface Template {
    readonly pool: string;
    readonly template: aws.ec2.LaunchTemplate;
}

export function templates(
    settings: Settings,
    network: Network,
    worker: Role,
    imageId: pulumi.Input<string>,
    agentToken: pulumi.Input<string>,
    key: pulumi.Input<string>,
): Template[] {
    return settings.pools.map(pool => {
        const own = tags(settings, pool.name, { [POOL_TAG]: pool.name });
        const template = new aws.ec2.LaunchTemplate(`pool-${pool.name}`, {
            name: `${settings.cluster}-${pool.name}`,
            description: `node-fleet's workers of the pool ${pool.name}`,
            // The daemon takes the default version, and replaces nodes of another one by and by.
            updateDefaultVersion: true,
            imageId,
            iamInstanceProfile: { arn: worker.profile.arn },
            instanceInitiatedShutdownBehavior: "terminate",
            metadataOptions: METADATA,
            // The daemon names the subnet; a public address nobody can ask for.
            networkInterfaces: [
                { deviceIndex: 0, associatePublicIpAddress: "false", deleteOnTermination: "true", securityGroups: [network.workerGroup.id] },
            ],
            blockDeviceMappings: [
                {
                    deviceName: "/dev/sda1",
                    ebs: { volumeType: "gp3", volumeSize: pool.volumeGib, encrypted: "true", kmsKeyId: key, deleteOnTermination: "true" },
                },
            ],
            // What the daemon adds makes an instance the fleet's: one that a person launches is not.
            tagSpecifications: ["instance", "volume", "network-interface"].map(resourceType => ({ resourceType, tags: own })),
            userData: pulumi.output(agentToken).apply(token => packed(workerScript(settings, pool, network.serverName, token))),
            tags: own,
        });
        return { pool: pool.name, template };
    });
}
