/** What the program makes, and with which inputs. */

import { strict as assert } from "node:assert";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { alarms } from "../src/alarms";
import { REPOSITORY } from "../src/daemon-config";
import { PATTERNS } from "../src/events";
import { BY_POOL, METRICS, NAMESPACE, POOL_DIMENSION } from "../src/metrics";
import { OPENINGS } from "../src/network";
import { ACCOUNT, HEX, KEY, type Made, MINIMAL, REGION, run, settings } from "./world";

/** What AWS does not let one tag. */
const UNTAGGED = new Set([
    "aws:cloudwatch/eventTarget:EventTarget",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:iam/rolePolicy:RolePolicy",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
    "aws:kms/grant:Grant",
    "aws:route53/record:Record",
    "aws:s3/bucketPolicy:BucketPolicy",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration",
    "aws:sns/topicPolicy:TopicPolicy",
    "aws:sns/topicSubscription:TopicSubscription",
    "aws:sqs/queuePolicy:QueuePolicy",
    "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy",
]);

const EVERYTHING = {
    servers: 3,
    apiFrom: ["203.0.113.0/24"],
    natPerZone: true,
    flowLogs: true,
    slack: true,
    alarmEmail: "ops@example.com",
    kmsKeyId: KEY,
    pools: [{ name: "workers" }, { name: "batch", instanceTypes: ["c6i.large"], min: 0, max: 5 }],
};

function ours(made: readonly Made[]): Made[] {
    return made.filter(it => it.type.startsWith("aws:"));
}

test("every resource that can be tagged carries project and cluster", async () => {
    for (const configuration of [{}, EVERYTHING]) {
        const made = ours((await run(settings(configuration))).made);
        assert.ok(made.length > 60, `${made.length}`);
        const bare = made.filter(it => !UNTAGGED.has(it.type));
        const wrong = bare.filter(it => it.inputs["tags"]?.Project !== "node-fleet" || it.inputs["tags"]?.["node-fleet.io/cluster"] !== "prod");
        assert.deepEqual(wrong.map(it => `${it.type} ${it.name}`), []);
    }
});

test("nothing is open to the world, and without apiFrom to no network at all", async () => {
    const made = await run(settings());
    const rules = made.of("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule");
    assert.equal(rules.length, OPENINGS.length);
    assert.ok(rules.every(it => it.inputs["referencedSecurityGroupId"] && !it.inputs["cidrIpv4"] && !it.inputs["cidrIpv6"]));
    for (const group of made.of("aws:ec2/securityGroup:SecurityGroup")) {
        assert.equal(group.inputs["ingress"], undefined);
    }
    assert.deepEqual(made.one("aws:ec2/defaultSecurityGroup:DefaultSecurityGroup", "default").inputs["ingress"], []);
    for (const subnet of made.of("aws:ec2/subnet:Subnet")) {
        assert.equal(subnet.inputs["mapPublicIpOnLaunch"], false);
    }
    assert.equal(made.one("aws:ec2/instance:Instance", "server-0").inputs["associatePublicIpAddress"], false);
});

test("apiFrom opens the API server alone, to these networks alone", async () => {
    const made = await run(settings(EVERYTHING));
    const open = made.of("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule").filter(it => it.inputs["cidrIpv4"]);
    assert.deepEqual(open.map(it => [it.inputs["cidrIpv4"], it.inputs["fromPort"], it.inputs["toPort"], it.inputs["ipProtocol"]]), [
        ["203.0.113.0/24", 6443, 6443, "tcp"],
    ]);
    const apiFromServers = made.one("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", "server-from-server-tcp-6443");
    assert.equal(open[0]?.inputs["securityGroupId"], apiFromServers.inputs["securityGroupId"]);
});

test("only servers reach etcd, daemons and exporters of servers, and no port of a worker is open to all of the VPC", () => {
    const from = (side: string, port: number): string[] => OPENINGS.filter(it => it.to === side && it.first <= port && port <= it.last).map(it => it.from).sort();
    assert.deepEqual(from("server", 2379), ["server"]);
    assert.deepEqual(from("worker", 9100), ["server"]);
    assert.deepEqual(from("server", 9477), ["server"]);
    assert.deepEqual(from("worker", 6443), []);
    assert.deepEqual(from("server", 22), []);
    assert.deepEqual(from("worker", 8472), ["server", "worker"]);
});

test("the network has two zones, with NAT in one or in each, and endpoints for DynamoDB and S3", async () => {
    for (const [natPerZone, nats] of [[false, 1], [true, 2]] as const) {
        const made = await run(settings({ natPerZone }));
        assert.equal(made.of("aws:ec2/vpc:Vpc")[0]?.inputs["cidrBlock"], "10.0.0.0/16");
        assert.deepEqual(new Set(made.of("aws:ec2/subnet:Subnet").map(it => it.inputs["availabilityZone"])), new Set(["eu-central-1a", "eu-central-1b"]));
        assert.equal(made.of("aws:ec2/natGateway:NatGateway").length, nats);
        const services = made.of("aws:ec2/vpcEndpoint:VpcEndpoint").map(it => it.inputs["serviceName"]);
        assert.deepEqual(services.sort(), ["com.amazonaws.eu-central-1.dynamodb", "com.amazonaws.eu-central-1.s3"]);
        assert.equal(made.of("aws:ec2/flowLog:FlowLog").length, 0);
    }
    assert.equal((await run(settings({ flowLogs: true }))).of("aws:ec2/flowLog:FlowLog").length, 1);
});

test("the ledger is the table that the daemon expects", async () => {
    const table = (await run(settings())).one("aws:dynamodb/table:Table", "ledger").inputs;
    assert.deepEqual([table["hashKey"], table["rangeKey"], table["billingMode"]], ["cluster_id", "record", "PAY_PER_REQUEST"]);
    assert.deepEqual(table["ttl"], { attributeName: "expires_at", enabled: true });
    assert.ok(table["pointInTimeRecovery"].enabled && table["serverSideEncryption"].enabled && table["deletionProtectionEnabled"]);
});

test("the queue has a dead-letter queue and a timeout that the daemon accepts", async () => {
    const made = await run(settings());
    const queue = made.one("aws:sqs/queue:Queue", "notices").inputs;
    assert.ok(queue["visibilityTimeoutSeconds"] >= 10 && queue["visibilityTimeoutSeconds"] <= 60);
    const redrive = JSON.parse(queue["redrivePolicy"]);
    assert.equal(redrive.deadLetterTargetArn, made.one("aws:sqs/queue:Queue", "dead-letters").state["arn"]);
    assert.ok(made.of("aws:sqs/queue:Queue").every(it => it.inputs["sqsManagedSseEnabled"]));
});

test("every event that the daemon reads has a rule into the queue", async () => {
    const made = await run(settings());
    const patterns = made.of("aws:cloudwatch/eventRule:EventRule").map(it => JSON.parse(it.inputs["eventPattern"]));
    assert.deepEqual(patterns, Object.values(PATTERNS).map(it => JSON.parse(JSON.stringify(it))));
    const queue = made.one("aws:sqs/queue:Queue", "notices").state["arn"];
    assert.ok(made.of("aws:cloudwatch/eventTarget:EventTarget").every(it => it.inputs["arn"] === queue));
});

test("secrets are made without values", async () => {
    const made = await run(settings());
    const names = made.of("aws:secretsmanager/secret:Secret").map(it => it.inputs["name"]);
    assert.deepEqual(names.sort(), ["prod/daemon-token", "prod/k3s-agent-token", "prod/k3s-server-token", "prod/prometheus", "prod/slack"]);
    assert.deepEqual(made.of("aws:secretsmanager/secretVersion:SecretVersion"), []);
});

test("every pool's template demands IMDSv2, encrypts, tags and gives no public address", async () => {
    const made = await run(settings(EVERYTHING));
    const templates = made.of("aws:ec2/launchTemplate:LaunchTemplate");
    assert.deepEqual(templates.map(it => it.name), ["pool-workers", "pool-batch"]);
    for (const { inputs } of templates) {
        assert.deepEqual([inputs["metadataOptions"].httpTokens, inputs["metadataOptions"].httpPutResponseHopLimit], ["required", 1]);
        const [volume] = inputs["blockDeviceMappings"];
        assert.deepEqual([volume.ebs.volumeType, volume.ebs.encrypted, volume.ebs.deleteOnTermination], ["gp3", "true", "true"]);
        assert.equal(inputs["networkInterfaces"][0].associatePublicIpAddress, "false");
        assert.equal(inputs["instanceInitiatedShutdownBehavior"], "terminate");
        for (const { resourceType, tags } of inputs["tagSpecifications"]) {
            assert.equal(tags.Project, "node-fleet", resourceType);
            assert.equal(tags.Role ?? tags.ManagedBy, undefined, "what the template alone makes is not the fleet's");
        }
        assert.deepEqual(inputs["tagSpecifications"].map((it: any) => it.resourceType), ["instance", "volume", "network-interface"]);
    }
});

test("workers' volumes have a key by its whole name: AWS's, whatever the account's default is, or the configuration's", async () => {
    const keys = async (more: Record<string, unknown>): Promise<string[]> => {
        const made = await run(settings(more));
        const templates = made.of("aws:ec2/launchTemplate:LaunchTemplate").flatMap(it => it.inputs["blockDeviceMappings"].map((volume: any) => volume.ebs.kmsKeyId));
        const servers = made.of("aws:ec2/instance:Instance").map(it => it.inputs["rootBlockDevice"].kmsKeyId);
        return [...templates, ...servers];
    };
    assert.deepEqual(await keys({}), [`arn:aws:kms:${REGION}:${ACCOUNT}:alias/aws/ebs`, undefined]);
    assert.deepEqual(await keys({ kmsKeyId: KEY }), [KEY, KEY]);
});

test("spot's service-linked role has a grant on a key of the account's own, and none on AWS's", async () => {
    assert.deepEqual((await run(settings())).of("aws:kms/grant:Grant"), []);
    const grant = (await run(settings({ kmsKeyId: KEY }))).one("aws:kms/grant:Grant", "spot").inputs;
    assert.equal(grant["keyId"], KEY);
    assert.equal(grant["granteePrincipal"], `arn:aws:iam::${ACCOUNT}:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot`);
    assert.ok(["CreateGrant", "Decrypt", "GenerateDataKeyWithoutPlaintext"].every(it => grant["operations"].includes(it)));
});

test("servers are protected, in private subnets of different zones, under one private name", async () => {
    const made = await run(settings({ servers: 2 }));
    const servers = made.of("aws:ec2/instance:Instance");
    assert.equal(servers.length, 2);
    assert.equal(new Set(servers.map(it => it.inputs["subnetId"])).size, 2);
    for (const { inputs } of servers) {
        assert.ok(inputs["disableApiTermination"] && inputs["rootBlockDevice"].encrypted);
        assert.equal(inputs["metadataOptions"].httpTokens, "required");
        assert.equal(inputs["tags"].Role, "k3s-server");
        assert.equal(inputs["tags"].ManagedBy, undefined);
    }
    const record = made.one("aws:route53/record:Record", "server").inputs;
    assert.deepEqual([record["name"], record["records"].length], ["server.prod.node-fleet.internal", 2]);
    assert.equal(made.of("aws:route53/zone:Zone")[0]?.inputs["vpcs"].length, 1);
});

test("the bucket is private and encrypted", async () => {
    const made = await run(settings());
    const block = made.one("aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock", "artifacts").inputs;
    assert.ok(["blockPublicAcls", "blockPublicPolicy", "ignorePublicAcls", "restrictPublicBuckets"].every(key => block[key] === true));
    assert.equal(made.of("aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration").length, 1);
});

test("the alarms are those of the list, on the metrics of the one list of names", async () => {
    const made = await run(settings());
    const watching = made.of("aws:cloudwatch/metricAlarm:MetricAlarm").filter(it => it.name !== "dead-letters");
    const found = watching.map(({ name, inputs }) => {
        const seconds = inputs["period"] * inputs["evaluationPeriods"];
        return [name, inputs["metricName"], inputs["threshold"], seconds, inputs["treatMissingData"]];
    });
    // The order in which they are made says nothing.
    assert.deepEqual(found.sort(), [
        ["at-maximum-workers", "CurrentNodeCount", 10, 600, "missing"],
        ["cpu-high", "ClusterCPUUtilization", 90, 300, "missing"],
        ["interruptions", "SpotInterruptions", 3, 900, "notBreaching"],
        ["join-slow", "NodeJoinLatency", 300, 300, "notBreaching"],
        ["memory-high", "ClusterMemoryUtilization", 80, 600, "missing"],
        ["no-heartbeat", "Heartbeat", 1, 300, "breaching"],
        ["pods-pending", "PendingPods", 0, 360, "missing"],
        ["scaling-failures", "ScalingFailures", 3, 900, "notBreaching"],
    ]);
    const topic = made.one("aws:sns/topic:Topic", "alarms").state["arn"];
    for (const { inputs } of watching) {
        assert.equal(inputs["namespace"], NAMESPACE);
        const byPool = inputs["metricName"] === "CurrentNodeCount";
        assert.deepEqual(inputs["dimensions"], { Cluster: "prod", ...(byPool ? { Pool: "workers" } : {}) });
        assert.deepEqual(inputs["alarmActions"], [topic]);
    }
    for (const { metric } of alarms(settings())) {
        assert.ok(metric in METRICS, `the daemon sends ${metric}`);
    }
});

test("a notice in the dead-letter queue raises an alarm, by the name that SQS has for the queue", async () => {
    const made = await run(settings());
    const alarm = made.one("aws:cloudwatch/metricAlarm:MetricAlarm", "dead-letters").inputs;
    assert.deepEqual([alarm["namespace"], alarm["metricName"], alarm["threshold"]], ["AWS/SQS", "ApproximateNumberOfMessagesVisible", 0]);
    assert.deepEqual(alarm["dimensions"], { QueueName: made.one("aws:sqs/queue:Queue", "dead-letters").state["name"] });
    assert.deepEqual(alarm["alarmActions"], [made.one("aws:sns/topic:Topic", "alarms").state["arn"]]);
});

test("each pool has an alarm of its own at its own maximum, on a figure that the daemon sends by pool", async () => {
    const made = await run(settings(EVERYTHING));
    const found = made.of("aws:cloudwatch/metricAlarm:MetricAlarm").filter(it => it.inputs["dimensions"].Pool);
    assert.deepEqual(found.map(({ name, inputs }) => [name, inputs["dimensions"], inputs["threshold"]]), [
        ["at-maximum-workers", { Cluster: "prod", Pool: "workers" }, 10],
        ["at-maximum-batch", { Cluster: "prod", Pool: "batch" }, 5],
    ]);
    const all = settings(EVERYTHING);
    assert.ok(alarms({ ...all, pools: all.pools.map(pool => ({ ...pool, min: pool.max })) }).every(it => it.pool === undefined));
    const figures = readFileSync(join(REPOSITORY, "src/observability/figures.rs"), "utf8");
    const [, constants = ""] = /BY_POOL: \[Metric; \d+\] = \[([^\]]*)\]/.exec(figures) ?? [];
    const names = constants.split(",").map(it => it.trim()).map(it => new RegExp(`const ${it}: Metric = \\("(\\w+)"`).exec(figures)?.[1]);
    assert.deepEqual(names, [...BY_POOL]);
    assert.ok(figures.includes(`POOL: &str = "${POOL_DIMENSION}"`));
    assert.ok(found.every(it => BY_POOL.includes(it.inputs["metricName"])));
});

test("no output is a secret, and the outputs say how to get in", async () => {
    const { outputs } = await run(settings());
    assert.equal(outputs["apiServer"], "https://server.prod.node-fleet.internal:6443");
    assert.match(outputs["shell"], /^aws ssm start-session --region eu-central-1 --target i-/);
    assert.equal(outputs["imageId"], "ami-0123456789abcdef0");
    assert.match(outputs["slackSecret"], /^prod\/slack$/);
    // As userdata/server.sh takes it.
    const sha256 = createHash("sha256").update((await run(settings())).one("aws:s3/bucketObjectv2:BucketObjectv2", "bundle").inputs["content"]).digest("hex");
    const [sudo, script, ...rest] = outputs["upgrade"].split(" ");
    assert.deepEqual([sudo, script], ["sudo", "/var/lib/cloud/instance/scripts/part-001"]);
    assert.deepEqual(rest, ["upgrade", MINIMAL.k3s.version, MINIMAL.k3s.source, HEX, MINIMAL.package.source, HEX, sha256]);
    assert.ok(!/token|password"?:/i.test(JSON.stringify({ ...outputs, daemonConfig: "" })));
});

test("service-linked roles are made where the account has none, and left alone where it has", async () => {
    const names = (it: Made): string => it.inputs["awsServiceName"];
    const type = "aws:iam/serviceLinkedRole:ServiceLinkedRole";
    assert.deepEqual((await run(settings())).of(type).map(names), ["ec2fleet.amazonaws.com", "spot.amazonaws.com"]);
    assert.deepEqual((await run(settings({ serviceLinkedRoles: false }))).of(type), []);
});
