/** The roles of servers and workers. The third, EventBridge's, is beside its rules. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { tags } from "./names";
import { daemonPolicies, type Document, type Names, server, trust, worker } from "./policies";
import type { Settings } from "./settings";

export interface Role {
    readonly role: aws.iam.Role;
    readonly profile: aws.iam.InstanceProfile;
}

/** Makes a role without rights, and the profile by which instances take it on. */
function role(settings: Settings, name: "server" | "worker", description: string): Role {
    const made = new aws.iam.Role(name, {
        name: `${settings.cluster}-${settings.region}-${name}`,
        description,
        assumeRolePolicy: JSON.stringify(trust()),
        tags: tags(settings, name),
    });
    const profile = new aws.iam.InstanceProfile(name, { name: made.name, role: made.name, tags: tags(settings, name) });
    return { role: made, profile };
}

export function serverRole(settings: Settings): Role {
    return role(settings, "server", "K3s servers with the node-fleet daemon");
}

export function workerRole(settings: Settings): Role {
    return role(settings, "worker", "K3s workers: they read the agent's token, and no more");
}

/** Gives the roles their rights, once all that these name is there. */
export function grant(settings: Settings, serverRole: Role, workerRole: Role, names: pulumi.Output<Names>): pulumi.Resource[] {
    const inline = (name: string, to: Role, make: (names: Names) => Document): pulumi.Resource =>
        new aws.iam.RolePolicy(name, { role: to.role.id, policy: names.apply(it => JSON.stringify(make(it))) });
    const daemon = daemonPolicies(settings).map(({ name, make }) => {
        const policy = new aws.iam.Policy(name, {
            name: `${settings.cluster}-${settings.region}-${name}`,
            description: "What the node-fleet daemon may do, or a part of it",
            policy: names.apply(it => JSON.stringify(make(it))),
            tags: tags(settings, name),
        });
        return new aws.iam.RolePolicyAttachment(name, { role: serverRole.role.name, policyArn: policy.arn });
    });
    return [...daemon, inline("server", serverRole, server), inline("worker", workerRole, worker)];
}

/** The roles that EC2 itself needs for fleets and for spot; an account has each once, whoever made it. */
export function serviceRoles(settings: Settings): aws.iam.ServiceLinkedRole[] {
    const services = settings.serviceLinkedRoles ? ["ec2fleet", "spot"] : [];
    // Other fleets of the account may have come to need it.
    return services.map(
        service => new aws.iam.ServiceLinkedRole(service, { awsServiceName: `${service}.amazonaws.com`, tags: tags(settings, service) }, { retainOnDelete: true }),
    );
}

/** Lets spot instances use a key of the account's own: their volumes are made by the service's role. */
export function keyGrant(settings: Settings, account: pulumi.Output<string>, after: pulumi.Resource[]): pulumi.Resource[] {
    if (!settings.kmsKeyId) {
        return [];
    }
    const role = pulumi.interpolate`arn:${aws.getPartitionOutput().partition}:iam::${account}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot`;
    const operations = ["CreateGrant", "Decrypt", "DescribeKey", "Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "ReEncryptFrom", "ReEncryptTo"];
    return [new aws.kms.Grant("spot", { name: `${settings.cluster}-spot`, keyId: settings.kmsKeyId, granteePrincipal: role, operations }, { dependsOn: after })];
}
