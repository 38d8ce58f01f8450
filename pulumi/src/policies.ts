/**
 * The policy documents of the roles, as plain functions of the names of things.
 *
 * Every statement names its resources. Where EC2 makes the resource (an instance, a volume) or
 * has no permissions by resource (`Describe…`), the statement's conditions bound it. The keys are
 * those that AWS documents for the action and the resource; the tests hold them against its list.
 */

import { NAMESPACE } from "./metrics";
import { CLUSTER_TAG, PROJECT, WORKER_TAGS } from "./names";
import type { Settings } from "./settings";

export interface Statement {
    readonly Sid: string;
    readonly Effect: "Allow";
    readonly Action: readonly string[];
    readonly Resource: readonly string[];
    readonly Condition?: Readonly<Record<string, Readonly<Record<string, string | readonly string[]>>>>;
}

export interface Document {
    readonly Version: "2012-10-17";
    readonly Statement: readonly Statement[];
}

/** What the policies speak of. */
export interface Names {
    readonly partition: string;
    readonly region: string;
    readonly account: string;
    readonly cluster: string;
    readonly templates: readonly string[];
    readonly subnets: readonly string[];
    readonly workerGroup: string;
    readonly image: string;
    readonly instanceTypes: readonly string[];
    readonly workerRole: string;
    readonly workerProfile: string;
    readonly table: string;
    readonly queue: string;
    readonly alarms: string;
    readonly serverToken: string;
    readonly agentToken: string;
    readonly prometheus: string;
    readonly daemonToken: string;
    readonly slack: string;
    readonly bundle: string;
    /** The key of the volumes, where it is the account's own. */
    readonly key: string | undefined;
    /** The Debian package and K3s, where they lie in S3. */
    readonly artifacts: { readonly server: readonly string[]; readonly worker: readonly string[] };
}

/** Makes the ARN of any EC2 resource of a kind in this account and region. */
function any(names: Names, kind: string): string {
    return `arn:${names.partition}:ec2:${names.region}:${names.account}:${kind}/*`;
}

/** The tags that a launch must set: those by which the daemon, and its right to terminate, know the instance. */
function requestTags(names: Names): Record<string, string> {
    const all = { ...PROJECT, ...WORKER_TAGS, [CLUSTER_TAG]: names.cluster };
    return Object.fromEntries(Object.entries(all).map(([key, value]) => [`aws:RequestTag/${key}`, value]));
}

function resourceTags(names: Names): Record<string, string> {
    const all = { ...PROJECT, ...WORKER_TAGS, [CLUSTER_TAG]: names.cluster };
    return Object.fromEntries(Object.entries(all).map(([key, value]) => [`aws:ResourceTag/${key}`, value]));
}

function allow(sid: string, actions: readonly string[], resources: readonly string[], condition?: Statement["Condition"]): Statement {
    const statement = { Sid: sid, Effect: "Allow", Action: actions, Resource: resources } as const;
    return condition ? { ...statement, Condition: condition } : statement;
}

function document(statements: readonly Statement[]): Document {
    return { Version: "2012-10-17", Statement: statements.filter(it => it.Resource.length > 0) };
}

/** So many types stand in one statement: more would not fit into a managed policy beside ten templates. */
const TYPES_AT_ONCE = 200;

/**
 * What the daemon may do, in managed policies: IAM takes 6,144 characters of each, and 10,240 of all that stands
 * in a role itself, which a few pools with many types outgrow. How many there are depends on the settings alone.
 * `grants.ts` names the code that needs each action.
 */
export function daemonPolicies(settings: Settings): readonly { readonly name: string; readonly make: (names: Names) => Document }[] {
    const groups = Array.from({ length: Math.ceil(instanceTypes(settings).length / TYPES_AT_ONCE) }, (_, index) => index);
    return [
        { name: "daemon", make: names => document([...reading(names), ...fleet(names), ...giving(names), ...data(names)]) },
        { name: "daemon-places", make: names => document(places(names)) },
        { name: "daemon-parts", make: names => document([...parts(names), ...key(names)]) },
        ...groups.map(index => ({
            name: `daemon-instances-${index}`,
            make: (names: Names) => document([instances(names, names.instanceTypes.slice(index * TYPES_AT_ONCE, (index + 1) * TYPES_AT_ONCE))]),
        })),
    ];
}

/** All types of all pools, each once. */
export function instanceTypes(settings: Settings): string[] {
    return [...new Set(settings.pools.flatMap(pool => pool.instanceTypes))];
}

function reading(names: Names): Statement[] {
    return [
        // None of these has permissions by resource.
        allow(
            "Look",
            [
                "ec2:DescribeFleets",
                "ec2:DescribeInstances",
                "ec2:DescribeInstanceTypeOfferings",
                "ec2:DescribeInstanceTypes",
                "ec2:DescribeLaunchTemplateVersions",
                "ec2:DescribeSpotPriceHistory",
                "ec2:DescribeSubnets",
            ],
            ["*"],
            { StringEquals: { "ec2:Region": names.region } },
        ),
        // The public price list, which knows neither resources nor conditions.
        allow("Prices", ["pricing:GetProducts"], ["*"]),
    ];
}

/** CreateFleet is judged on what it refers to and on what it makes. */
function fleet(names: Names): Statement[] {
    const action = ["ec2:CreateFleet"];
    return [
        allow("FleetOfOurTemplates", action, [names.image, ...names.templates, ...names.subnets]),
        // A fleet names several types at once; RunInstances is judged on the one that it takes.
        allow("FleetWithTags", action, ["fleet", "instance", "volume"].map(kind => any(names, kind)), { StringEquals: requestTags(names) }),
    ];
}

/** A fleet of type `instant` runs its instances with the caller's own rights, so RunInstances is judged as well. */
function places(names: Names): Statement[] {
    const action = ["ec2:RunInstances"];
    const ours = { "ec2:LaunchTemplate": names.templates };
    return [
        allow("RunOurTemplates", action, names.templates, { ArnEquals: ours }),
        // Each of these is named whole, so that a request which overrides the template's can only name the same.
        allow("RunInOurPlaces", action, [...names.subnets, names.image, names.workerGroup], { ArnEquals: ours }),
    ];
}

function instances(names: Names, types: readonly string[]): Statement {
    return allow("RunTaggedInstances", ["ec2:RunInstances"], [any(names, "instance")], {
        ArnEquals: { "ec2:LaunchTemplate": names.templates, "ec2:InstanceProfile": names.workerProfile },
        StringEquals: { ...requestTags(names), "ec2:InstanceType": types, "ec2:MetadataHttpTokens": "required" },
    });
}

function parts(names: Names): Statement[] {
    const action = ["ec2:RunInstances"];
    const ours = { "ec2:LaunchTemplate": names.templates };
    return [
        allow("RunWithEncryptedTaggedVolumes", action, [any(names, "volume")], {
            ArnEquals: ours,
            Bool: { "ec2:Encrypted": "true" },
            StringEquals: requestTags(names),
        }),
        allow("RunWithoutPublicAddress", action, [any(names, "network-interface")], {
            ArnEquals: { ...ours, "ec2:Subnet": names.subnets },
            Bool: { "ec2:AssociatePublicIpAddress": "false" },
        }),
        // EC2 makes it for spot; there is no key to bound it by, and it gives nothing without the instance.
        allow("RunOnSpot", action, [any(names, "spot-instances-request")]),
        allow("TagWhatALaunchMakes", ["ec2:CreateTags"], ["fleet", "instance", "volume"].map(kind => any(names, kind)), {
            StringEquals: { "ec2:CreateAction": ["CreateFleet", "RunInstances"], ...requestTags(names) },
        }),
        // The template alone tags these, with what it says of every worker.
        allow("TagNetworkInterfaces", ["ec2:CreateTags"], [any(names, "network-interface")], {
            StringEquals: {
                "ec2:CreateAction": ["CreateFleet", "RunInstances"],
                "aws:RequestTag/Project": PROJECT.Project,
                [`aws:RequestTag/${CLUSTER_TAG}`]: names.cluster,
            },
        }),
        allow("PassTheWorkersRole", ["iam:PassRole"], [names.workerRole], {
            StringEquals: { "iam:PassedToService": "ec2.amazonaws.com" },
        }),
    ];
}

/**
 * A volume under a key of the account's own: EC2 uses it with the caller's rights, and keeps a grant for as long as the
 * volume is there. Spot has a grant of its own, see `keyGrant` in `iam.ts`.
 */
function key(names: Names): Statement[] {
    const keys = names.key ? [names.key] : [];
    const byEc2 = { "kms:ViaService": `ec2.${names.region}.amazonaws.com` };
    return [
        allow("EncryptVolumes", ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext"], keys, { StringEquals: byEc2 }),
        allow("LetVolumesKeepTheirKey", ["kms:CreateGrant"], keys, { Bool: { "kms:GrantIsForAWSResource": "true" }, StringEquals: byEc2 }),
    ];
}

function giving(names: Names): Statement[] {
    return [
        allow("TerminateOurWorkers", ["ec2:TerminateInstances"], [any(names, "instance")], { StringEquals: resourceTags(names) }),
    ];
}

function data(names: Names): Statement[] {
    return [
        allow(
            "KeepTheLedger",
            ["dynamodb:ConditionCheckItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query", "dynamodb:UpdateItem"],
            [names.table],
            // ForAllValues holds where the key is absent; Null asks that it is there.
            { "ForAllValues:StringEquals": { "dynamodb:LeadingKeys": [names.cluster] }, Null: { "dynamodb:LeadingKeys": "false" } },
        ),
        allow("LookAtTheTable", ["dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"], [names.table]),
        allow("TakeNotices", ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"], [names.queue]),
        // It has no permissions by resource; the namespace bounds it.
        allow("SendFigures", ["cloudwatch:PutMetricData"], ["*"], { StringEquals: { "cloudwatch:namespace": NAMESPACE } }),
        allow("ReadTheDaemonsSecrets", ["secretsmanager:GetSecretValue"], [names.prometheus, names.daemonToken, names.slack]),
    ];
}

/** What the server itself may do at its boot, beyond the daemon: `userdata/server.sh` says where. */
export function server(names: Names): Document {
    return document([
        allow("ReadTheClustersTokens", ["secretsmanager:GetSecretValue"], [names.serverToken, names.agentToken]),
        // The first boot makes their values.
        allow("MakeSecrets", ["secretsmanager:PutSecretValue"], [names.serverToken, names.agentToken, names.prometheus, names.daemonToken]),
        allow("ReadTheBundle", ["s3:GetObject"], [names.bundle, ...names.artifacts.server]),
        allow("SayThatABootFailed", ["sns:Publish"], [names.alarms]),
        ...sessions(names),
    ]);
}

/** What a worker may do: read the agent's token, and what it is installed from. */
export function worker(names: Names): Document {
    return document([
        allow("ReadTheAgentsToken", ["secretsmanager:GetSecretValue"], [names.agentToken]),
        allow("ReadK3s", ["s3:GetObject"], names.artifacts.worker),
        ...sessions(names),
    ]);
}

/**
 * Shells by Session Manager, in place of SSH. AWS's own policy for it also reads every parameter
 * of the account, so this names what a session needs.
 */
function sessions(names: Names): Statement[] {
    return [
        // AWS sees to it that an instance's credentials register that instance alone.
        allow("Register", ["ssm:UpdateInstanceInformation"], [any(names, "instance")]),
        // These have no permissions by resource.
        allow(
            "Sessions",
            [
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
            { StringEquals: { "aws:RequestedRegion": names.region } },
        ),
    ];
}

/**
 * What AWS says that a flow log must be able to do, with its own group alone. CloudWatch Logs judges some calls by the
 * group's name, others with the stream behind it.
 */
export function flowLogWriter(group: string): Document {
    return document([
        // It has no permissions by resource.
        allow("FindTheGroup", ["logs:DescribeLogGroups"], ["*"]),
        allow("KeepTheGroup", ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams"], [group, `${group}:log-stream:*`]),
        allow("WriteFlows", ["logs:PutLogEvents"], [`${group}:log-stream:*`]),
    ]);
}

/** The flow logs of this account and region alone may take the role on. */
export function flowLogTrust(settings: Settings, account: string, group: string): object {
    const partition = group.split(":")[1];
    return {
        Version: "2012-10-17",
        Statement: [
            {
                Effect: "Allow",
                Principal: { Service: "vpc-flow-logs.amazonaws.com" },
                Action: "sts:AssumeRole",
                Condition: {
                    StringEquals: { "aws:SourceAccount": account },
                    ArnLike: { "aws:SourceArn": `arn:${partition}:ec2:${settings.region}:${account}:vpc-flow-log/*` },
                },
            },
        ],
    };
}

/** EC2 alone may take the role on. */
export function trust(): object {
    return {
        Version: "2012-10-17",
        Statement: [{ Effect: "Allow", Principal: { Service: "ec2.amazonaws.com" }, Action: "sts:AssumeRole" }],
    };
}
