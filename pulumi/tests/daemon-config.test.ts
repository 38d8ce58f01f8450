/** The daemon's own check reads the configuration that the servers are given. */

import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Alarm, alarms } from "../src/alarms";
import { REPOSITORY } from "../src/daemon-config";
import type { Metric } from "../src/metrics";
import { run, settings } from "./world";

function check(text: string): { status: number | null; said: string } {
    const program = process.env["NODE_FLEET"];
    assert.ok(program, "NODE_FLEET names the daemon; `pulumi/test` sets it");
    const directory = mkdtempSync(join(tmpdir(), "node-fleet-"));
    try {
        const file = join(directory, "node-fleet.toml");
        writeFileSync(file, text);
        const ran = spawnSync(program, ["check", "--config", file], { encoding: "utf8" });
        return { status: ran.status, said: `${ran.stdout}${ran.stderr}` };
    } finally {
        rmSync(directory, { recursive: true });
    }
}

test("the configuration that the bundle carries is valid for the daemon, and names what was made", async () => {
    const made = await run(settings());
    const bundle = JSON.parse(made.one("aws:s3/bucketObjectv2:BucketObjectv2", "bundle").inputs["content"]);
    const text: string = bundle["daemon/node-fleet.toml"];
    const { status, said } = check(text);
    assert.equal(status, 0, said);
    assert.match(said, /prod/);
    const parts = [
        made.one("aws:ec2/launchTemplate:LaunchTemplate", "pool-workers").id,
        made.one("aws:ec2/subnet:Subnet", "private-0").id,
        made.one("aws:ec2/subnet:Subnet", "private-1").id,
        made.one("aws:sqs/queue:Queue", "notices").id,
        "prod-ledger",
        "prod/prometheus",
        "prod/daemon-token",
    ];
    assert.deepEqual(parts.filter(part => !text.includes(`"${part}"`)), []);
    assert.ok(!text.includes(made.one("aws:ec2/subnet:Subnet", "public-0").id));
});

test("several pools with types of their own prices are valid, too", async () => {
    const pools = [{ name: "web", min: 0, max: 50, spotShare: 1 / 3 }, { name: "gpu-less", instanceTypes: ["r7i.large"], onDemandBase: 0, spotShare: 1 }];
    const made = await run(settings({ pools, prices: { "r7i.large": 0.1323 }, servers: 3 }));
    const { status, said } = check(made.outputs["daemonConfig"]);
    assert.equal(status, 0, said);
});

test("the schedule by which a migration begins holds the pool at nothing, and is valid", async () => {
    const guide = readFileSync(join(REPOSITORY, "packaging", "migration.md"), "utf8");
    const [, schedule = ""] = /```toml\n(\s*\[\[pool\.schedule\]\].*?)```/s.exec(guide) ?? [];
    assert.match(schedule, /^\s*max = 0$/m);
    const { outputs } = await run(settings({ pools: [{ name: "workers", min: 0 }] }));
    const { status, said } = check(outputs["daemonConfig"].replace("[prices.on_demand]", `${schedule}\n[prices.on_demand]`));
    assert.equal(status, 0, said);
});

test("Slack is told where that is wished, by the webhook in its secret", async () => {
    const webhook = 'webhook = { secrets_manager = "prod/slack" }';
    for (const slack of [true, false]) {
        const { outputs } = await run(settings({ slack }));
        const { status, said } = check(outputs["daemonConfig"]);
        assert.equal(status, 0, said);
        assert.equal(outputs["daemonConfig"].includes(webhook), slack);
    }
});

test("a type without a price is refused before anything is made", async () => {
    const { daemonConfig } = await import("../src/daemon-config");
    const of = settings({ pools: [{ name: "workers", instanceTypes: ["r7i.48xlarge"] }] });
    const made = { table: "t", queueUrl: "q", prometheusSecret: "s", daemonToken: "d", slackSecret: "w", subnets: [], templates: { workers: "lt-1" } };
    assert.throws(() => daemonConfig(of, made), /node-fleet:prices has no price for r7i.48xlarge; right would be/);
});

/** The time in which an instance must have joined, in seconds: the stack's, or else the daemon's own default. */
function joinTimeout(text: string): number {
    const example = readFileSync(join(REPOSITORY, "config", "node-fleet.toml"), "utf8");
    const [, number, unit] = /^join_timeout = "(\d+)([sm])"$/m.exec(`${text}\n${example}`) ?? [];
    assert.ok(number && unit, "the example sets operations.join_timeout in seconds or minutes");
    return Number(number) * (unit === "m" ? 60 : 1);
}

/** The most that an alarm's figure can come to, in the time over which the alarm takes it together. */
function greatest(alarm: Alarm, joins: number, max: number): number | undefined {
    const most: Partial<Record<Metric, number>> = {
        CurrentNodeCount: max,
        ClusterCPUUtilization: 100,
        ClusterMemoryUtilization: 100,
        PendingPods: Infinity,
        // At this age an instance is given back and tells nothing any more.
        NodeJoinLatency: joins,
        // Launches that never join, one after the other.
        ScalingFailures: 1 + Math.floor(alarm.seconds / joins),
        SpotInterruptions: Infinity,
    };
    return most[alarm.metric];
}

test("each alarm's threshold can be reached with the configuration that the servers are given", async () => {
    const of = settings();
    const { outputs } = await run(of);
    const joins = joinTimeout(outputs["daemonConfig"]);
    for (const alarm of alarms(of)) {
        const pool = of.pools.find(it => it.name === alarm.pool);
        if (alarm.comparison === "LessThanThreshold") {
            assert.ok(alarm.threshold > 0, `${alarm.name} is about less than nothing`);
            continue;
        }
        const most = greatest(alarm, joins, pool?.max ?? 0);
        assert.ok(most !== undefined, `what is the most that ${alarm.metric} can come to?`);
        const reached = alarm.comparison === "GreaterThanThreshold" ? most > alarm.threshold : most >= alarm.threshold;
        assert.ok(reached, `${alarm.name} waits for ${alarm.threshold}, and ${alarm.metric} is ${most} at most`);
    }
});

test("a stack whose nodes are given back at five minutes has alarms that cannot be reached, and the test would see it", () => {
    const slow = alarms(settings()).find(it => it.name === "join-slow");
    assert.ok(slow);
    assert.equal(greatest(slow, joinTimeout('join_timeout = "5m"'), 0), slow.threshold);
});

test("the check would see a mistake", async () => {
    const { outputs } = await run(settings());
    const { status, said } = check(outputs["daemonConfig"].replace("[notices]\nqueue_url", "[notices]\nqueue"));
    assert.notEqual(status, 0);
    assert.match(said, /queue/);
});
