/** Runs the program under Pulumi's mocks and gives what it would make. */

import * as pulumi from "@pulumi/pulumi";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { read, type Settings } from "../src/settings";

export const ACCOUNT = "123456789012";
export const REGION = "eu-central-1";
export const HEX = "ab".repeat(32);
/** A key of the account's own. */
export const KEY = `arn:aws:kms:${REGION}:${ACCOUNT}:key/0d2a5c3e-1111-2222-3333-444455556666`;

export interface Made {
    readonly type: string;
    readonly name: string;
    readonly id: string;
    readonly inputs: Record<string, any>;
    readonly state: Record<string, any>;
}

/** A configuration with what has no default. */
export const MINIMAL = {
    cluster: "prod",
    k3s: { version: "v1.34.1+k3s1", source: "https://downloads.example/k3s/v1.34.1%2Bk3s1/k3s", sha256: HEX },
    package: { source: "s3://releases/node-fleet_0.1.0_amd64.deb", sha256: HEX },
};

export function settings(more: Record<string, unknown> = {}): Settings {
    return read({ ...MINIMAL, ...more }, REGION);
}

/** What AWS would name a resource. */
function named(type: string, name: string, inputs: Record<string, any>): { id: string; more: Record<string, string> } {
    const arn = (service: string, rest: string, region = REGION): string => `arn:aws:${service}:${region}:${ACCOUNT}:${rest}`;
    const digits = createHash("sha256").update(name).digest("hex").slice(0, 17);
    const ec2 = (prefix: string, kind: string) => ({ id: `${prefix}-${digits}`, more: { arn: arn("ec2", `${kind}/${prefix}-${digits}`) } });
    switch (type) {
        case "aws:ec2/subnet:Subnet":
            return ec2("subnet", "subnet");
        case "aws:ec2/vpc:Vpc":
            return ec2("vpc", "vpc");
        case "aws:ec2/securityGroup:SecurityGroup":
            return ec2("sg", "security-group");
        case "aws:ec2/launchTemplate:LaunchTemplate":
            return ec2("lt", "launch-template");
        case "aws:ec2/instance:Instance":
            return { ...ec2("i", "instance"), more: { privateIp: "10.0.64.10", publicIp: "" } };
        case "aws:iam/role:Role":
            return { id: inputs["name"] ?? name, more: { arn: arn("iam", `role/${inputs["name"] ?? name}`, ""), name: inputs["name"] ?? name } };
        case "aws:iam/policy:Policy":
            return { id: arn("iam", `policy/${inputs["name"]}`, ""), more: { arn: arn("iam", `policy/${inputs["name"]}`, "") } };
        case "aws:iam/instanceProfile:InstanceProfile":
            return { id: inputs["name"], more: { arn: arn("iam", `instance-profile/${inputs["name"]}`, "") } };
        case "aws:dynamodb/table:Table":
            return { id: inputs["name"], more: { arn: arn("dynamodb", `table/${inputs["name"]}`) } };
        case "aws:sqs/queue:Queue": {
            const url = `https://sqs.${REGION}.amazonaws.com/${ACCOUNT}/prod-${name}`;
            return { id: url, more: { arn: arn("sqs", `prod-${name}`), url, name: `prod-${name}` } };
        }
        case "aws:sns/topic:Topic":
            return { id: arn("sns", name), more: { arn: arn("sns", `prod-${name}`) } };
        case "aws:secretsmanager/secret:Secret":
            return { id: name, more: { arn: arn("secretsmanager", `secret:${inputs["name"]}-AbCdEf`) } };
        case "aws:cloudwatch/eventRule:EventRule":
            return { id: name, more: { arn: arn("events", `rule/prod-${name}`), name: `prod-${name}` } };
        case "aws:cloudwatch/logGroup:LogGroup":
            return { id: `${name}-1a2b`, more: { arn: arn("logs", `log-group:${name}-1a2b`) } };
        case "aws:s3/bucket:Bucket":
            return { id: "prod-artifacts", more: { arn: "arn:aws:s3:::prod-artifacts", bucket: "prod-artifacts" } };
        case "aws:route53/zone:Zone":
            return { id: "Z1", more: { zoneId: "Z1" } };
        default:
            return { id: `${name}-id`, more: { arn: arn("other", `${type}/${name}`) } };
    }
}

/** The documents of the managed policies that a role has. */
export function attached(made: Run, role: string): any[] {
    const name = made.one("aws:iam/role:Role", role).inputs["name"];
    const arns = made.of("aws:iam/rolePolicyAttachment:RolePolicyAttachment").filter(it => it.inputs["role"] === name).map(it => it.inputs["policyArn"]);
    return made.of("aws:iam/policy:Policy").filter(it => arns.includes(it.state["arn"])).map(it => JSON.parse(it.inputs["policy"]));
}

let recorded: Made[] = [];

export const mocks: pulumi.runtime.Mocks = {
    newResource(args) {
        const { id, more } = named(args.type, args.name, args.inputs);
        const state = { ...args.inputs, ...more };
        recorded.push({ type: args.type, name: args.name, id, inputs: args.inputs, state });
        return { id, state };
    },
    call(args) {
        switch (args.token) {
            case "aws:index/getAvailabilityZones:getAvailabilityZones":
                return { names: ["eu-central-1a", "eu-central-1b", "eu-central-1c"] };
            case "aws:index/getCallerIdentity:getCallerIdentity":
                return { accountId: ACCOUNT };
            case "aws:index/getPartition:getPartition":
                return { partition: "aws" };
            case "aws:ec2/getAmi:getAmi":
                return { id: "ami-0123456789abcdef0" };
            default:
                throw new Error(`the program asks for ${args.token}`);
        }
    },
};

export interface Run {
    readonly made: readonly Made[];
    readonly outputs: Record<string, any>;
    of(type: string): Made[];
    one(type: string, name: string): Made;
}

const runs = new Map<string, Promise<Run>>();
let last: Promise<unknown> = Promise.resolve();

/** Runs the program with the settings; once for the same ones, and one run after the other. */
export function run(of: Settings): Promise<Run> {
    const key = JSON.stringify(of);
    const known = runs.get(key);
    if (known) {
        return known;
    }
    const next = last.then(() => fresh(of));
    last = next.catch(() => undefined);
    runs.set(key, next);
    return next;
}

async function fresh(of: Settings): Promise<Run> {
    recorded = [];
    await pulumi.runtime.setMocks(mocks, "node-fleet", "test");
    const { stack } = await import("../src/stack");
    const all = pulumi.output(stack(of)) as unknown as pulumi.Output<Record<string, any>>;
    const outputs = await new Promise<Record<string, any>>(resolve => all.apply(resolve));
    await quiet();
    const made = recorded;
    return {
        made,
        outputs,
        of: type => made.filter(it => it.type === type),
        one: (type, name) => {
            const found = made.find(it => it.type === type && it.name === name);
            if (!found) {
                throw new Error(`the program makes no ${type} named ${name}`);
            }
            return found;
        },
    };
}

/** Waits until nothing more is registered. */
async function quiet(): Promise<void> {
    let before = -1;
    while (before !== recorded.length) {
        before = recorded.length;
        await new Promise(resolve => setTimeout(resolve, 150));
    }
}

/** Runs a program of the virtual environment with JSON in and out. */
export function python(script: string, input: unknown): any {
    const interpreter = process.env["NODE_FLEET_POLICY_PYTHON"];
    if (!interpreter) {
        throw new Error("NODE_FLEET_POLICY_PYTHON is not set; `pulumi/test` sets it");
    }
    const ran = spawnSync(interpreter, [join(__dirname, script)], { input: JSON.stringify(input), encoding: "utf8", maxBuffer: 1 << 24 });
    if (ran.status !== 0) {
        throw new Error(`${script} ended with ${ran.status}: ${ran.stderr}`);
    }
    return JSON.parse(ran.stdout);
}
