/** The servers: K3s with embedded etcd, the monitoring, and the daemon, of which one leads. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import type { Bundle } from "./bundle";
import { METADATA } from "./ec2-worker";
import type { Role } from "./iam";
import { tags } from "./names";
import type { Network } from "./network";
import type { Settings } from "./settings";
import { packed, serverScript, type ServerValues } from "./user-data";

/** How long a node goes on asking a server's address that is no more. */
const DNS_SECONDS = 30;

/** A bucket that nobody but this account reaches, and that with TLS alone. */
export function artifacts(settings: Settings): aws.s3.Bucket {
    const bucket = new aws.s3.Bucket("artifacts", { bucketPrefix: `${settings.cluster}-`, forceDestroy: true, tags: tags(settings, "artifacts") });
    new aws.s3.BucketPublicAccessBlock("artifacts", {
        bucket: bucket.id,
        blockPublicAcls: true,
        blockPublicPolicy: true,
        ignorePublicAcls: true,
        restrictPublicBuckets: true,
    });
    new aws.s3.BucketServerSideEncryptionConfiguration("artifacts", {
        bucket: bucket.id,
        rules: [{ applyServerSideEncryptionByDefault: { sseAlgorithm: "AES256" } }],
    });
    new aws.s3.BucketPolicy("artifacts", {
        bucket: bucket.id,
        policy: bucket.arn.apply(arn =>
            JSON.stringify({
                Version: "2012-10-17",
                Statement: [
                    {
                        Sid: "OnlyTls",
                        Effect: "Deny",
                        Principal: "*",
                        Action: "s3:*",
                        Resource: [arn, `${arn}/*`],
                        Condition: { Bool: { "aws:SecureTransport": "false" } },
                    },
                ],
            }),
        ),
    });
    return bucket;
}

/** Puts the bundle under a key that stays, so that the role can name it; the checksum tells versions apart. */
export function upload(settings: Settings, bucket: aws.s3.Bucket, bundle: pulumi.Output<Bundle>): aws.s3.BucketObjectv2 {
    return new aws.s3.BucketObjectv2("bundle", {
        bucket: bucket.id,
        key: "server.json",
        content: bundle.text,
        contentType: "application/json",
        tags: tags(settings, "bundle"),
    });
}

export interface Servers {
    readonly instances: readonly aws.ec2.Instance[];
}

export function servers(
    settings: Settings,
    network: Network,
    role: Role,
    imageId: pulumi.Input<string>,
    values: pulumi.Output<ServerValues>,
    after: pulumi.Resource[],
): Servers {
    // Where the API is open to networks outside, servers need addresses there.
    const open = settings.apiFrom.length > 0;
    const subnets = open ? network.publicSubnets : network.privateSubnets;
    // Otherwise the account's default: whoever runs the program has the right to it.
    const key = settings.kmsKeyId ? { kmsKeyId: settings.kmsKeyId } : {};
    const instances: aws.ec2.Instance[] = [];
    for (let index = 0; index < settings.servers; index++) {
        const subnet = subnets[index % subnets.length];
        if (!subnet) {
            throw new Error("the network has no subnets");
        }
        const own = tags(settings, `server-${index}`, { Role: "k3s-server" });
        const arguments_: aws.ec2.InstanceArgs = {
            ami: imageId,
            instanceType: settings.serverType,
            subnetId: subnet.id,
            associatePublicIpAddress: open,
            vpcSecurityGroupIds: [network.serverGroup.id],
            iamInstanceProfile: role.profile.name,
            metadataOptions: METADATA,
            disableApiTermination: true,
            instanceInitiatedShutdownBehavior: "stop",
            rootBlockDevice: { volumeType: "gp3", volumeSize: settings.serverVolumeGib, encrypted: true, tags: own, ...key },
            userDataBase64: values.apply(it => packed(serverScript(settings, index, it))),
            userDataReplaceOnChange: false,
            tags: own,
        };
        // A server holds the cluster's state: neither a newer image nor other user data nor a key replaces it.
        const options = { dependsOn: [...after, ...instances], ignoreChanges: ["ami", "userDataBase64", "rootBlockDevice.kmsKeyId"] };
        instances.push(new aws.ec2.Instance(`server-${index}`, arguments_, options));
    }
    new aws.route53.Record("server", {
        zoneId: network.zone.zoneId,
        name: network.serverName,
        type: "A",
        ttl: DNS_SECONDS,
        records: instances.map(instance => instance.privateIp),
    });
    return { instances };
}
