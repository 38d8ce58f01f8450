/** What the roles may and may not do, decided by a policy simulator over the documents that the program makes. */

import { strict as assert } from "node:assert";
import { before, test } from "node:test";
import { ACCOUNT, attached, KEY, python, REGION, type Run, run, settings } from "./world";

interface Case {
    readonly what: string;
    readonly role?: "server" | "worker" | "events" | "flowLogs" | "stranger";
    readonly service?: string;
    readonly action: string;
    readonly resource: string;
    readonly context?: Record<string, unknown>;
    readonly resourcePolicy?: unknown;
}

const ec2 = (kind: string, id: string): string => `arn:aws:ec2:${REGION}:${ACCOUNT}:${kind}/${id}`;
const FOREIGN_TEMPLATE = ec2("launch-template", "lt-0fffffffffffffff1");
const TAGS = { Project: "node-fleet", ManagedBy: "node-fleet", Role: "k3s-worker", "node-fleet.io/cluster": "prod" };
const requested = (tags: Record<string, string> = TAGS): Record<string, string> =>
    Object.fromEntries(Object.entries(tags).map(([key, value]) => [`aws:RequestTag/${key}`, value]));
const carried = (tags: Record<string, string> = TAGS): Record<string, string> =>
    Object.fromEntries(Object.entries(tags).map(([key, value]) => [`aws:ResourceTag/${key}`, value]));
const without = (key: string): Record<string, string> => Object.fromEntries(Object.entries(TAGS).filter(([name]) => name !== key));

let made: Run;
let arns: Record<string, string>;
let documents: Record<string, { arn: string; policies: unknown[] }>;

before(async () => {
    // With all that has statements of its own.
    made = await run(settings({ kmsKeyId: KEY, flowLogs: true }));
    const arn = (type: string, name: string): string => made.one(type, name).state["arn"];
    arns = {
        template: arn("aws:ec2/launchTemplate:LaunchTemplate", "pool-workers"),
        subnet: arn("aws:ec2/subnet:Subnet", "private-0"),
        other: arn("aws:ec2/subnet:Subnet", "private-1"),
        open: arn("aws:ec2/subnet:Subnet", "public-0"),
        group: arn("aws:ec2/securityGroup:SecurityGroup", "worker"),
        serverGroup: arn("aws:ec2/securityGroup:SecurityGroup", "server"),
        profile: arn("aws:iam/instanceProfile:InstanceProfile", "worker"),
        serverProfile: arn("aws:iam/instanceProfile:InstanceProfile", "server"),
        workerRole: arn("aws:iam/role:Role", "worker"),
        serverRole: arn("aws:iam/role:Role", "server"),
        eventsRole: arn("aws:iam/role:Role", "events"),
        table: arn("aws:dynamodb/table:Table", "ledger"),
        queue: arn("aws:sqs/queue:Queue", "notices"),
        dead: arn("aws:sqs/queue:Queue", "dead-letters"),
        topic: arn("aws:sns/topic:Topic", "alarms"),
        rule: arn("aws:cloudwatch/eventRule:EventRule", "spot-interruption"),
        serverToken: arn("aws:secretsmanager/secret:Secret", "k3s-server-token"),
        agentToken: arn("aws:secretsmanager/secret:Secret", "k3s-agent-token"),
        prometheus: arn("aws:secretsmanager/secret:Secret", "prometheus"),
        daemonToken: arn("aws:secretsmanager/secret:Secret", "daemon-token"),
        slack: arn("aws:secretsmanager/secret:Secret", "slack"),
        image: `arn:aws:ec2:${REGION}::image/ami-0123456789abcdef0`,
        logs: arn("aws:cloudwatch/logGroup:LogGroup", "flow-logs"),
        flowLogsRole: arn("aws:iam/role:Role", "flow-logs"),
        bundle: "arn:aws:s3:::prod-artifacts/server.json",
    };
    const policy = (name: string): unknown => JSON.parse(made.one("aws:iam/rolePolicy:RolePolicy", name).inputs["policy"]);
    documents = {
        server: { arn: a("serverRole"), policies: [...attached(made, "server"), policy("server")] },
        worker: { arn: a("workerRole"), policies: [policy("worker")] },
        events: { arn: a("eventsRole"), policies: [policy("events")] },
        flowLogs: { arn: a("flowLogsRole"), policies: [policy("flow-logs")] },
        // One who may send anywhere as far as its own policy goes.
        stranger: {
            arn: `arn:aws:iam::${ACCOUNT}:role/stranger`,
            policies: [{ Version: "2012-10-17", Statement: [{ Effect: "Allow", Action: "sqs:*", Resource: "*" }] }],
        },
    };
});

const a = (name: string): string => {
    const arn = arns[name];
    assert.ok(arn, name);
    return arn;
};

/** A case of the server's role. */
const daemon = (what: string, action: string, resource: string, context: Record<string, unknown> = {}): Case => ({ what, role: "server", action, resource, context });

/** What EC2 says of an instance that is about to run as it should. */
const running = (): Record<string, unknown> => ({
    ...requested(),
    "ec2:LaunchTemplate": a("template"),
    "ec2:InstanceProfile": a("profile"),
    "ec2:InstanceType": "m5.large",
    "ec2:MetadataHttpTokens": "required",
});
const interfaceOf = (): Record<string, unknown> => ({ "ec2:LaunchTemplate": a("template"), "ec2:Subnet": a("subnet"), "ec2:AssociatePublicIpAddress": "false" });
/** What KMS says of a use by EC2 with the daemon's rights. */
const byEc2 = { "kms:ViaService": `ec2.${REGION}.amazonaws.com` };
const OTHER_KEY = KEY.replace("0d2a5c3e", "ffffffff");
const OTHER_LOGS = `arn:aws:logs:${REGION}:${ACCOUNT}:log-group:orders`;
/** A case of the flow logs' role. */
const flows = (what: string, action: string, resource: string): Case => ({ what, role: "flowLogs", action, resource });
const ledger = { "dynamodb:LeadingKeys": ["prod"] };

const denied = (): Case[] => [
    // Terminating
    daemon("a foreign instance without tags", "ec2:TerminateInstances", ec2("instance", "i-0f"), {}),
    daemon("another cluster's worker", "ec2:TerminateInstances", ec2("instance", "i-0f"), carried({ ...TAGS, "node-fleet.io/cluster": "test" })),
    daemon("a server of its own cluster", "ec2:TerminateInstances", ec2("instance", "i-0f"), carried({ ...TAGS, Role: "k3s-server" })),
    daemon("an instance of the project that a person manages", "ec2:TerminateInstances", ec2("instance", "i-0f"), carried(without("ManagedBy"))),
    daemon("an instance of another project", "ec2:TerminateInstances", ec2("instance", "i-0f"), carried({ ...TAGS, Project: "shop" })),
    daemon("an instance in another account", "ec2:TerminateInstances", `arn:aws:ec2:${REGION}:999999999999:instance/i-0f`, carried()),
    daemon("an instance in another region", "ec2:TerminateInstances", `arn:aws:ec2:us-east-1:${ACCOUNT}:instance/i-0f`, carried()),
    daemon("stopping its own worker", "ec2:StopInstances", ec2("instance", "i-0f"), carried()),
    // Tagging
    daemon("tagging a running instance", "ec2:CreateTags", ec2("instance", "i-0f"), requested()),
    daemon("making a foreign instance its own by tags", "ec2:CreateTags", ec2("instance", "i-0f"), { ...requested(), ...carried({ Project: "shop" }) }),
    daemon("tags at another creation", "ec2:CreateTags", ec2("instance", "i-0f"), { ...requested(), "ec2:CreateAction": "CreateImage" }),
    daemon("tags of another cluster at a launch", "ec2:CreateTags", ec2("instance", "*"), { ...requested({ ...TAGS, "node-fleet.io/cluster": "test" }), "ec2:CreateAction": "CreateFleet" }),
    daemon("tags of a server at a launch", "ec2:CreateTags", ec2("instance", "*"), { ...requested({ ...TAGS, Role: "k3s-server" }), "ec2:CreateAction": "RunInstances" }),
    ...Object.keys(TAGS).map(key => daemon(`tags at a launch without ${key}`, "ec2:CreateTags", ec2("volume", "*"), { ...requested(without(key)), "ec2:CreateAction": "RunInstances" })),
    daemon("tagging an interface that is there", "ec2:CreateTags", ec2("network-interface", "eni-1"), requested()),
    ...["Project", "node-fleet.io/cluster"].map(key => daemon(`tags of an interface without ${key}`, "ec2:CreateTags", ec2("network-interface", "*"), { ...requested(without(key)), "ec2:CreateAction": "RunInstances" })),
    daemon("tagging a security group", "ec2:CreateTags", ec2("security-group", "sg-1"), { ...requested(), "ec2:CreateAction": "RunInstances" }),
    daemon("taking tags away", "ec2:DeleteTags", ec2("instance", "i-0f"), carried()),
    // Fleets
    ...Object.keys(TAGS).map(key => daemon(`a fleet's instance without the tag ${key}`, "ec2:CreateFleet", ec2("instance", "*"), requested(without(key)))),
    daemon("a fleet without tags", "ec2:CreateFleet", ec2("fleet", "*")),
    daemon("a fleet's volume without tags", "ec2:CreateFleet", ec2("volume", "*")),
    daemon("a fleet of a foreign template", "ec2:CreateFleet", FOREIGN_TEMPLATE),
    daemon("a fleet in a public subnet", "ec2:CreateFleet", a("open")),
    daemon("a fleet of another image", "ec2:CreateFleet", `arn:aws:ec2:${REGION}::image/ami-0ffffffffffffffff`),
    // Running
    ...Object.keys(TAGS).map(key => daemon(`an instance without the tag ${key}`, "ec2:RunInstances", ec2("instance", "*"), { ...running(), [`aws:RequestTag/${key}`]: "" })),
    daemon("an instance without a template", "ec2:RunInstances", ec2("instance", "*"), { ...running(), "ec2:LaunchTemplate": "" }),
    daemon("an instance of a foreign template", "ec2:RunInstances", ec2("instance", "*"), { ...running(), "ec2:LaunchTemplate": FOREIGN_TEMPLATE }),
    daemon("an instance with the server's profile", "ec2:RunInstances", ec2("instance", "*"), { ...running(), "ec2:InstanceProfile": a("serverProfile") }),
    daemon("an instance with IMDSv1", "ec2:RunInstances", ec2("instance", "*"), { ...running(), "ec2:MetadataHttpTokens": "optional" }),
    daemon("an instance of a type that no pool has", "ec2:RunInstances", ec2("instance", "*"), { ...running(), "ec2:InstanceType": "p4d.24xlarge" }),
    daemon("a public address", "ec2:RunInstances", ec2("network-interface", "*"), { ...interfaceOf(), "ec2:AssociatePublicIpAddress": "true" }),
    daemon("an interface in a public subnet", "ec2:RunInstances", ec2("network-interface", "*"), { ...interfaceOf(), "ec2:Subnet": a("open") }),
    daemon("an interface that says nothing of its address", "ec2:RunInstances", ec2("network-interface", "*"), { "ec2:LaunchTemplate": a("template"), "ec2:Subnet": a("subnet") }),
    daemon("a public subnet", "ec2:RunInstances", a("open"), { "ec2:LaunchTemplate": a("template") }),
    daemon("another image than the template's", "ec2:RunInstances", `arn:aws:ec2:${REGION}::image/ami-0ffffffffffffffff`, { "ec2:LaunchTemplate": a("template") }),
    daemon("the servers' security group", "ec2:RunInstances", a("serverGroup"), { "ec2:LaunchTemplate": a("template") }),
    daemon("a foreign security group", "ec2:RunInstances", ec2("security-group", "sg-0ffffffffffffffff"), { "ec2:LaunchTemplate": a("template") }),
    daemon("the worker's security group without a template", "ec2:RunInstances", a("group")),
    daemon("the image of a foreign template", "ec2:RunInstances", a("image"), { "ec2:LaunchTemplate": FOREIGN_TEMPLATE }),
    daemon("its subnet for a foreign template", "ec2:RunInstances", a("subnet"), { "ec2:LaunchTemplate": FOREIGN_TEMPLATE }),
    daemon("a volume without encryption", "ec2:RunInstances", ec2("volume", "*"), { ...requested(), "ec2:LaunchTemplate": a("template"), "ec2:Encrypted": "false" }),
    daemon("a volume without tags", "ec2:RunInstances", ec2("volume", "*"), { "ec2:LaunchTemplate": a("template"), "ec2:Encrypted": "true" }),
    ...Object.keys(TAGS).map(key => daemon(`a volume without the tag ${key}`, "ec2:RunInstances", ec2("volume", "*"), { ...requested(without(key)), "ec2:LaunchTemplate": a("template"), "ec2:Encrypted": "true" })),
    daemon("a volume without a template", "ec2:RunInstances", ec2("volume", "*"), { ...requested(), "ec2:Encrypted": "true" }),
    daemon("an interface without a template", "ec2:RunInstances", ec2("network-interface", "*"), { ...interfaceOf(), "ec2:LaunchTemplate": "" }),
    daemon("its template beside another one", "ec2:RunInstances", a("template"), { "ec2:LaunchTemplate": FOREIGN_TEMPLATE }),
    // Kinds of things that no launch of the daemon's has, with all that bounds the others.
    daemon("a fleet in a placement group", "ec2:CreateFleet", ec2("placement-group", "pg"), requested()),
    daemon("a capacity reservation", "ec2:RunInstances", ec2("capacity-reservation", "cr-1"), running()),
    daemon("a snapshot", "ec2:RunInstances", ec2("snapshot", "snap-1"), { ...requested(), "ec2:LaunchTemplate": a("template"), "ec2:Encrypted": "true" }),
    daemon("a placement group", "ec2:RunInstances", ec2("placement-group", "pg"), interfaceOf()),
    daemon("a key pair", "ec2:RunInstances", ec2("key-pair", "mine"), { "ec2:LaunchTemplate": a("template") }),
    daemon("a foreign template itself", "ec2:RunInstances", FOREIGN_TEMPLATE, { "ec2:LaunchTemplate": FOREIGN_TEMPLATE }),
    // Escalation
    daemon("passing the server's role", "iam:PassRole", a("serverRole"), { "iam:PassedToService": "ec2.amazonaws.com" }),
    daemon("passing any other role", "iam:PassRole", `arn:aws:iam::${ACCOUNT}:role/admin`, { "iam:PassedToService": "ec2.amazonaws.com" }),
    daemon("passing the worker's role to Lambda", "iam:PassRole", a("workerRole"), { "iam:PassedToService": "lambda.amazonaws.com" }),
    daemon("changing its template", "ec2:CreateLaunchTemplateVersion", a("template")),
    daemon("changing which version is the default", "ec2:ModifyLaunchTemplate", a("template")),
    daemon("reading user data", "ec2:DescribeInstanceAttribute", ec2("instance", "i-0f"), carried()),
    daemon("opening a port", "ec2:AuthorizeSecurityGroupIngress", a("group")),
    daemon("looking into another region", "ec2:DescribeInstances", "*", { "ec2:Region": "us-east-1" }),
    // The volumes' key
    ...["Decrypt", "GenerateDataKeyWithoutPlaintext", "DescribeKey"].flatMap(name => [
        daemon(`${name} under another key`, `kms:${name}`, OTHER_KEY, byEc2),
        daemon(`${name} itself, without EC2`, `kms:${name}`, KEY),
        daemon(`${name} by another service`, `kms:${name}`, KEY, { "kms:ViaService": `secretsmanager.${REGION}.amazonaws.com` }),
    ]),
    daemon("a grant on another key", "kms:CreateGrant", OTHER_KEY, { ...byEc2, "kms:GrantIsForAWSResource": "true" }),
    daemon("a grant to whomever it likes", "kms:CreateGrant", KEY, { ...byEc2, "kms:GrantIsForAWSResource": "false" }),
    daemon("a grant of its own making", "kms:CreateGrant", KEY, { "kms:GrantIsForAWSResource": "true" }),
    daemon("a data key to read", "kms:GenerateDataKey", KEY, byEc2),
    daemon("deleting the key", "kms:ScheduleKeyDeletion", KEY, byEc2),
    daemon("changing who may use the key", "kms:PutKeyPolicy", KEY, byEc2),
    { what: "a worker reads what the key encrypts", role: "worker", action: "kms:Decrypt", resource: KEY, context: byEc2 },
    // Flow logs
    flows("writing into another log", "logs:PutLogEvents", `${OTHER_LOGS}:log-stream:eni-1-all`),
    flows("a stream in another log", "logs:CreateLogStream", `${OTHER_LOGS}:log-stream:eni-1-all`),
    flows("looking at another log's streams", "logs:DescribeLogStreams", `${OTHER_LOGS}:log-stream:`),
    flows("making another log", "logs:CreateLogGroup", OTHER_LOGS),
    flows("reading its log", "logs:GetLogEvents", `${a("logs")}:log-stream:eni-1-all`),
    flows("deleting its log", "logs:DeleteLogGroup", a("logs")),
    flows("reading secrets", "secretsmanager:GetSecretValue", a("serverToken")),
    daemon("writing into the flow logs", "logs:PutLogEvents", `${a("logs")}:log-stream:eni-1-all`),
    // The ledger
    daemon("another cluster's record", "dynamodb:GetItem", a("table"), { "dynamodb:LeadingKeys": ["test"] }),
    daemon("writing another cluster's lock", "dynamodb:PutItem", a("table"), { "dynamodb:LeadingKeys": ["test"] }),
    daemon("both clusters' records at once", "dynamodb:Query", a("table"), { "dynamodb:LeadingKeys": ["prod", "test"] }),
    daemon("a read that names no key", "dynamodb:Query", a("table")),
    daemon("reading the table through", "dynamodb:Scan", a("table"), ledger),
    daemon("another table", "dynamodb:GetItem", `arn:aws:dynamodb:${REGION}:${ACCOUNT}:table/orders`, ledger),
    daemon("looking at another table", "dynamodb:DescribeTable", `arn:aws:dynamodb:${REGION}:${ACCOUNT}:table/orders`),
    daemon("deleting the table", "dynamodb:DeleteTable", a("table")),
    daemon("switching expiry off", "dynamodb:UpdateTimeToLive", a("table")),
    // Secrets
    daemon("another secret", "secretsmanager:GetSecretValue", `arn:aws:secretsmanager:${REGION}:${ACCOUNT}:secret:prod/database-AbCdEf`),
    daemon("overwriting the Slack webhook", "secretsmanager:PutSecretValue", a("slack")),
    daemon("deleting a secret", "secretsmanager:DeleteSecret", a("serverToken")),
    daemon("listing secrets", "secretsmanager:ListSecrets", "*"),
    // Figures
    daemon("figures into another namespace", "cloudwatch:PutMetricData", "*", { "cloudwatch:namespace": "billing" }),
    daemon("figures without a namespace", "cloudwatch:PutMetricData", "*"),
    daemon("silencing an alarm", "cloudwatch:DeleteAlarms", `arn:aws:cloudwatch:${REGION}:${ACCOUNT}:alarm:prod-no-heartbeat`),
    daemon("reading figures", "cloudwatch:GetMetricData", "*"),
    { what: "a worker sends figures", role: "worker", action: "cloudwatch:PutMetricData", resource: "*", context: { "cloudwatch:namespace": "node-fleet" } },
    // Queue, topic, bucket
    daemon("the dead-letter queue", "sqs:ReceiveMessage", a("dead")),
    daemon("emptying the queue at once", "sqs:PurgeQueue", a("queue")),
    daemon("forging a notice", "sqs:SendMessage", a("queue")),
    daemon("another topic", "sns:Publish", `arn:aws:sns:${REGION}:${ACCOUNT}:billing`),
    daemon("another object", "s3:GetObject", "arn:aws:s3:::prod-artifacts/other.json"),
    daemon("replacing what servers boot from", "s3:PutObject", a("bundle")),
    daemon("another parameter", "ssm:GetParameter", `arn:aws:ssm:${REGION}:${ACCOUNT}:parameter/db`),
    daemon("becoming an administrator", "iam:AttachRolePolicy", a("serverRole")),
    // Workers
    { what: "a worker reads the server's token", role: "worker", action: "secretsmanager:GetSecretValue", resource: a("serverToken") },
    { what: "a worker reads the Prometheus password", role: "worker", action: "secretsmanager:GetSecretValue", resource: a("prometheus") },
    { what: "a worker reads the daemon's token", role: "worker", action: "secretsmanager:GetSecretValue", resource: a("daemonToken") },
    { what: "a worker reads the Slack webhook", role: "worker", action: "secretsmanager:GetSecretValue", resource: a("slack") },
    { what: "a worker changes the agent's token", role: "worker", action: "secretsmanager:PutSecretValue", resource: a("agentToken") },
    { what: "a worker terminates a worker", role: "worker", action: "ec2:TerminateInstances", resource: ec2("instance", "i-0f"), context: carried() },
    { what: "a worker launches", role: "worker", action: "ec2:RunInstances", resource: ec2("instance", "*"), context: running() },
    { what: "a worker looks at instances", role: "worker", action: "ec2:DescribeInstances", resource: "*", context: { "ec2:Region": REGION } },
    { what: "a worker takes the lock", role: "worker", action: "dynamodb:PutItem", resource: a("table"), context: ledger },
    { what: "a worker swallows a notice", role: "worker", action: "sqs:DeleteMessage", resource: a("queue") },
    { what: "a worker reads the servers' bundle", role: "worker", action: "s3:GetObject", resource: a("bundle") },
    { what: "a worker reads parameters", role: "worker", action: "ssm:GetParameter", resource: `arn:aws:ssm:${REGION}:${ACCOUNT}:parameter/db` },
    { what: "a worker passes a role", role: "worker", action: "iam:PassRole", resource: a("workerRole"), context: { "iam:PassedToService": "ec2.amazonaws.com" } },
    // EventBridge's role, and who else would send
    { what: "the events' role reads the queue", role: "events", action: "sqs:ReceiveMessage", resource: a("queue") },
    { what: "the events' role sends elsewhere", role: "events", action: "sqs:SendMessage", resource: a("dead") },
    { what: "a principal with all of SQS sends a notice", role: "stranger", action: "sqs:SendMessage", resource: a("queue"), resourcePolicy: queue() },
    { what: "another rule of EventBridge sends", service: "events.amazonaws.com", action: "sqs:SendMessage", resource: a("queue"),
      context: { "aws:SourceArn": `arn:aws:events:${REGION}:${ACCOUNT}:rule/other` }, resourcePolicy: queue() },
    { what: "another service sends", service: "s3.amazonaws.com", action: "sqs:SendMessage", resource: a("queue"), context: { "aws:SourceArn": a("rule") }, resourcePolicy: queue() },
    { what: "a send without TLS", service: "events.amazonaws.com", action: "sqs:SendMessage", resource: a("queue"),
      context: { "aws:SourceArn": a("rule"), "aws:SecureTransport": "false" }, resourcePolicy: queue() },
];

const allowed = (): Case[] => [
    daemon("its own worker is terminated", "ec2:TerminateInstances", ec2("instance", "i-0a"), carried()),
    daemon("a fleet of its template", "ec2:CreateFleet", a("template")),
    daemon("a fleet in a private subnet", "ec2:CreateFleet", a("subnet")),
    daemon("a fleet in the other private subnet", "ec2:CreateFleet", a("other")),
    daemon("a fleet of the template's image", "ec2:CreateFleet", a("image")),
    daemon("a fleet with its tags", "ec2:CreateFleet", ec2("fleet", "*"), requested()),
    daemon("a fleet's instances with their tags", "ec2:CreateFleet", ec2("instance", "*"), requested()),
    daemon("a fleet's volumes with their tags", "ec2:CreateFleet", ec2("volume", "*"), requested()),
    daemon("an instance as it should be", "ec2:RunInstances", ec2("instance", "*"), running()),
    daemon("its volume", "ec2:RunInstances", ec2("volume", "*"), { ...requested(), "ec2:LaunchTemplate": a("template"), "ec2:Encrypted": "true" }),
    daemon("its interface", "ec2:RunInstances", ec2("network-interface", "*"), interfaceOf()),
    daemon("its template", "ec2:RunInstances", a("template"), { "ec2:LaunchTemplate": a("template") }),
    daemon("its subnet, which the request chooses", "ec2:RunInstances", a("subnet"), { "ec2:LaunchTemplate": a("template") }),
    daemon("its image", "ec2:RunInstances", a("image"), { "ec2:LaunchTemplate": a("template") }),
    daemon("its security group", "ec2:RunInstances", a("group"), { "ec2:LaunchTemplate": a("template") }),
    daemon("its spot request", "ec2:RunInstances", ec2("spot-instances-request", "*")),
    ...["fleet", "instance", "volume"].map(kind => daemon(`tags of a ${kind} at its creation`, "ec2:CreateTags", ec2(kind, "*"), { ...requested(), "ec2:CreateAction": "CreateFleet" })),
    daemon("tags of an instance as RunInstances makes it", "ec2:CreateTags", ec2("instance", "*"), { ...requested(), "ec2:CreateAction": "RunInstances" }),
    daemon("the template's tags of an interface", "ec2:CreateTags", ec2("network-interface", "*"), {
        ...requested({ Project: "node-fleet", "node-fleet.io/cluster": "prod" }), "ec2:CreateAction": "RunInstances",
    }),
    ...["Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext"].map(name => daemon(`${name} for a volume`, `kms:${name}`, KEY, byEc2)),
    daemon("the grant by which a volume keeps its key", "kms:CreateGrant", KEY, { ...byEc2, "kms:GrantIsForAWSResource": "true" }),
    flows("finding its log", "logs:DescribeLogGroups", `arn:aws:logs:${REGION}:${ACCOUNT}:log-group::log-stream:`),
    flows("making its log anew", "logs:CreateLogGroup", a("logs")),
    flows("making its log anew, as CloudWatch Logs names it", "logs:CreateLogGroup", `${a("logs")}:log-stream:`),
    flows("a stream of its log", "logs:CreateLogStream", `${a("logs")}:log-stream:eni-1-all`),
    flows("its log's streams", "logs:DescribeLogStreams", `${a("logs")}:log-stream:`),
    flows("its log's streams, by the log's name", "logs:DescribeLogStreams", a("logs")),
    flows("writing into its log", "logs:PutLogEvents", `${a("logs")}:log-stream:eni-1-all`),
    daemon("passing the worker's role to EC2", "iam:PassRole", a("workerRole"), { "iam:PassedToService": "ec2.amazonaws.com" }),
    ...["DescribeFleets", "DescribeInstances", "DescribeInstanceTypeOfferings", "DescribeInstanceTypes", "DescribeLaunchTemplateVersions", "DescribeSpotPriceHistory", "DescribeSubnets"]
        .map(name => daemon(name, `ec2:${name}`, "*", { "ec2:Region": REGION })),
    daemon("list prices", "pricing:GetProducts", "*"),
    ...["ConditionCheckItem", "DeleteItem", "GetItem", "PutItem", "Query", "UpdateItem"].map(name => daemon(`${name} under its key`, `dynamodb:${name}`, a("table"), ledger)),
    daemon("looking at its table", "dynamodb:DescribeTable", a("table")),
    daemon("looking at its table's expiry", "dynamodb:DescribeTimeToLive", a("table")),
    ...["ReceiveMessage", "DeleteMessage", "GetQueueAttributes"].map(name => daemon(`${name} of its queue`, `sqs:${name}`, a("queue"))),
    daemon("the Prometheus password", "secretsmanager:GetSecretValue", a("prometheus")),
    daemon("the Slack webhook", "secretsmanager:GetSecretValue", a("slack")),
    daemon("the daemon's token", "secretsmanager:GetSecretValue", a("daemonToken")),
    daemon("a server makes the daemon's token", "secretsmanager:PutSecretValue", a("daemonToken")),
    daemon("figures in its namespace", "cloudwatch:PutMetricData", "*", { "cloudwatch:namespace": "node-fleet" }),
    daemon("a server makes the agent's token", "secretsmanager:PutSecretValue", a("agentToken")),
    daemon("a server reads the server's token", "secretsmanager:GetSecretValue", a("serverToken")),
    daemon("a server reads its bundle", "s3:GetObject", a("bundle")),
    daemon("a server reads the daemon's package", "s3:GetObject", "arn:aws:s3:::releases/node-fleet_0.1.0_amd64.deb"),
    daemon("a server says that its boot failed", "sns:Publish", a("topic")),
    { what: "a worker reads the agent's token", role: "worker", action: "secretsmanager:GetSecretValue", resource: a("agentToken") },
    { what: "a worker offers a shell by Session Manager", role: "worker", action: "ssmmessages:OpenDataChannel", resource: "*", context: { "aws:RequestedRegion": REGION } },
    { what: "EventBridge sends by its role", role: "events", action: "sqs:SendMessage", resource: a("queue"), resourcePolicy: queue() },
    { what: "our rule sends", service: "events.amazonaws.com", action: "sqs:SendMessage", resource: a("queue"), context: { "aws:SourceArn": a("rule") }, resourcePolicy: queue() },
];

function queue(): unknown {
    return JSON.parse(made.one("aws:sqs/queuePolicy:QueuePolicy", "notices").inputs["policy"]);
}

function decide(cases: readonly Case[]): boolean[] {
    return python("evaluate.py", { roles: documents, cases: cases.map(it => ({ context: {}, ...it })) });
}

function unlike(cases: readonly Case[], wanted: boolean): string[] {
    const results = decide(cases);
    return cases.filter((_, index) => results[index] !== wanted).map(it => `${it.what} (${it.action})`);
}

test("what must not be is denied", context => {
    context.diagnostic(`${denied().length} cases`);
    assert.deepEqual(unlike(denied(), false), []);
});

test("what the daemon, the servers, the workers and the events need is allowed", context => {
    context.diagnostic(`${allowed().length} cases`);
    assert.ok(allowed().length + denied().length >= 60);
    assert.deepEqual(unlike(allowed(), true), []);
});

/** The policy without one of its bounds: a condition's key, or a statement's resources. */
function loosened(policy: any): [string, unknown][] {
    const mutants: [string, unknown][] = [];
    policy.Statement.forEach((statement: any, index: number) => {
        const change = (what: string, edit: (it: any) => void): void => {
            const copy = structuredClone(policy);
            edit(copy.Statement[index]);
            mutants.push([`${statement.Sid} without ${what}`, copy]);
        };
        for (const [operator, keys] of Object.entries<object>(statement.Condition ?? {})) {
            for (const key of Object.keys(keys)) {
                change(`${operator} ${key}`, it => delete it.Condition[operator][key]);
            }
        }
        if (!statement.Resource.includes("*")) {
            change("resources", it => (it.Resource = ["*"]));
        }
    });
    return mutants;
}

test("no bound of the daemon's policy can go without a denied case becoming an allowed one", context => {
    const policies = documents["server"]?.policies ?? [];
    const ofDaemon = attached(made, "server").length;
    const mutants = policies.slice(0, ofDaemon).flatMap((policy, index) =>
        loosened(policy).map(([what, mutant]): [string, unknown[]] => [what, policies.map((it, at) => (at === index ? mutant : it))]),
    );
    const cases = denied().filter(it => it.role === "server");
    const roles = Object.fromEntries(mutants.map(([what, mutant]) => [what, { arn: a("serverRole"), policies: mutant }]));
    const all = mutants.flatMap(([what]) => cases.map(it => ({ context: {}, ...it, role: what })));
    const results: boolean[] = python("evaluate.py", { roles, cases: all });
    context.diagnostic(`${mutants.length} bounds`);
    assert.ok(mutants.length >= 40);
    const useless = mutants.filter((_, index) => !results.slice(index * cases.length, (index + 1) * cases.length).some(Boolean));
    assert.deepEqual(useless.map(([what]) => what), []);
});

test("no bound of the flow logs' policy can go either", () => {
    const policy = documents["flowLogs"]?.policies[0];
    const cases = denied().filter(it => it.role === "flowLogs");
    for (const [what, mutant] of loosened(policy)) {
        const roles = { flowLogs: { arn: a("flowLogsRole"), policies: [mutant] } };
        const results: boolean[] = python("evaluate.py", { roles, cases: cases.map(it => ({ context: {}, ...it })) });
        assert.ok(results.some(Boolean), what);
    }
});

test("the policies say only what AWS documents: actions, resources, condition keys, no needless wildcard", () => {
    const policies = [...made.of("aws:iam/rolePolicy:RolePolicy"), ...made.of("aws:iam/policy:Policy")].map(it => JSON.parse(it.inputs["policy"]));
    const list = (value: string | string[]): string[] => (Array.isArray(value) ? value : [value]);
    const statements = policies.flatMap(it => it.Statement).map(it => ({ ...it, Action: list(it.Action), Resource: list(it.Resource) }));
    assert.ok(statements.length >= 20);
    assert.ok(statements.every((it: any) => it.Effect === "Allow" && it.Action.every((action: string) => !action.includes("*"))));
    assert.deepEqual(python("documented.py", statements), []);
    const planted = [
        { Sid: "Planted", Action: ["ec2:CreateFleet"], Resource: ["*"], Condition: { ArnEquals: { "ec2:LaunchTemplate": "x" } } },
        { Sid: "Typo", Action: ["ec2:CreateFleets"], Resource: ["*"] },
    ];
    assert.equal(python("documented.py", planted).length, 3, "the check itself sees a wildcard, a key that the action lacks and a typo");
});

test("the largest configuration fits into what IAM takes", async () => {
    const families = ["c5", "c5a", "c6i", "c6a", "c6id", "m5", "m5a", "m5ad", "m6i", "m6a", "m6id", "m7i", "m7i-flex", "r5", "r5a", "r6i", "r6id", "r7i"];
    const sizes = ["medium", "large", "xlarge", ...Array.from({ length: 20 }, (_, index) => `${index + 10}xlarge`)];
    const types = families.flatMap(family => sizes.map(size => `${family}.${size}`)).sort((one, other) => other.length - one.length);
    const pools = Array.from({ length: 10 }, (_, index) => ({ name: `p${index}`, instanceTypes: types.slice(index * 30, index * 30 + 30) }));
    const largest = await run(settings({ cluster: "c".repeat(24), kmsKeyId: KEY, pools, prices: Object.fromEntries(types.map(type => [type, 1])) }));
    // The longest names of a partition and a region.
    const size = (policy: unknown): number => JSON.stringify(policy).replaceAll("arn:aws:", "arn:aws-us-gov:").replaceAll(REGION, "ap-southeast-2").length;
    const managed = attached(largest, "server");
    const granted = managed.flatMap(it => it.Statement).filter(it => it.Sid === "RunTaggedInstances").flatMap(it => it.Condition.StringEquals["ec2:InstanceType"]);
    assert.deepEqual(granted.sort(), pools.flatMap(it => it.instanceTypes).sort());
    assert.ok(managed.length <= 10, `${managed.length} policies`);
    assert.deepEqual(managed.map(size).filter(it => it > 6144), []);
    for (const role of ["server", "worker"]) {
        const own = size(JSON.parse(largest.one("aws:iam/rolePolicy:RolePolicy", role).inputs["policy"]));
        assert.ok(own <= 10_240, `${role}: ${own}`);
    }
});

test("each role is taken on by its service alone", () => {
    const trusts = made.of("aws:iam/role:Role").map(it => [it.name, JSON.parse(it.inputs["assumeRolePolicy"]).Statement.map((s: any) => s.Principal)]);
    assert.deepEqual(Object.fromEntries(trusts), {
        server: [{ Service: "ec2.amazonaws.com" }],
        worker: [{ Service: "ec2.amazonaws.com" }],
        events: [{ Service: "events.amazonaws.com" }],
        "flow-logs": [{ Service: "vpc-flow-logs.amazonaws.com" }],
    });
    // Services that act for whoever asks them are bound to this account.
    for (const name of ["events", "flow-logs"]) {
        const [statement] = JSON.parse(made.one("aws:iam/role:Role", name).inputs["assumeRolePolicy"]).Statement;
        assert.equal(statement.Condition.StringEquals["aws:SourceAccount"], ACCOUNT, name);
    }
});
