/** The README says what the program does. */

import { strict as assert } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { GRANTS, KEY_GRANTS } from "../src/grants";
import { BY_POOL, METRICS } from "../src/metrics";
import { read, SETTING_KEYS, SettingsError } from "../src/settings";
import { run, settings } from "./world";

const ROOT = join(__dirname, "..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");

test("the README's table has exactly the daemon's actions", () => {
    const [, section = ""] = README.split("### Why the daemon has each right");
    const table = (section.split("## What it costs")[0] ?? "").split("\n").filter(line => line.startsWith("| `"));
    const said = table.flatMap(line => [...(line.split("|")[1] ?? "").matchAll(/`([a-z0-9]+:\w+)`/g)].map(([, action]) => action));
    assert.deepEqual(said.sort(), [...new Set([...GRANTS, ...KEY_GRANTS].map(grant => grant.action))].sort());
});

test("the README names every key of the configuration and no other", () => {
    const [, section = ""] = README.split("\n## Configuration\n");
    const table = (section.split("### Opening it up")[0] ?? "").split("\n").filter(line => line.startsWith("| `"));
    const said = table.flatMap(line => [...(line.split("|")[1] ?? "").matchAll(/`(\w+)`/g)].map(([, key]) => key));
    assert.deepEqual(said.sort(), [...SETTING_KEYS].sort());
});

test("the README frees the name of every secret before the cluster is made anew", async () => {
    const made = await run(settings());
    const names = made.of("aws:secretsmanager/secret:Secret").map(it => it.inputs["name"].replace("prod/", ""));
    const [, loop = ""] = /for name in ([a-z0-9 -]+); do\n\s+aws secretsmanager delete-secret --region "\$\(pulumi config get aws:region\)" --secret-id "CLUSTER\/\$name" --force-delete-without-recovery\n/.exec(README) ?? [];
    assert.deepEqual(loop.split(" ").sort(), names.sort());
});

test("the README's table of costs counts what is made, and its sum is right", async () => {
    const [, section = ""] = README.split("## What it costs");
    const rows = section.split("\n").filter(line => /^\| [^|]+ \| (?:below )?[\d.]/.test(line));
    const cost = (row: string): number => Number(/\| (?:below )?([\d.]+)/.exec(row)?.[1]);
    const of = (pattern: RegExp): number => cost(rows.find(row => pattern.test(row)) ?? "");
    const made = await run(settings());
    assert.equal(of(/secrets/), 0.4 * made.of("aws:secretsmanager/secret:Secret").length);
    assert.equal(of(/alarms/), 0.1 * made.of("aws:cloudwatch/metricAlarm:MetricAlarm").length);
    assert.ok(Math.abs(of(/metrics/) - 0.3 * (Object.keys(METRICS).length + BY_POOL.length)) < 0.01);
    const sum = rows.reduce((total, row) => total + cost(row), 0);
    assert.ok(Math.abs(Number(/About (\d+) in all/.exec(section)?.[1]) - sum) < 1, `${sum}`);
});

test("every command of the README says what it needs: its region, a stack's output, a word that the servers' script knows", async () => {
    const commands = [...README.matchAll(/```sh\n(.*?)\n\s*```/gs)].flatMap(([, text]) => (text ?? "").split("\n").map(it => it.trim()));
    const calls = commands.filter(it => /^aws (?!s3 )/.test(it));
    assert.ok(calls.length >= 4);
    assert.deepEqual(calls.filter(it => !/ --region "\$/.test(it)), []);
    const { outputs } = await run(settings());
    const named = [...README.matchAll(/pulumi stack output (\w+)/g)].map(([, name]) => name ?? "");
    assert.ok(named.length >= 6);
    assert.deepEqual(named.filter(name => !(name in outputs)), []);
    const script = readFileSync(join(ROOT, "userdata", "server.sh"), "utf8");
    const words = [...README.matchAll(/part-001 (\w+)/g)].map(([, word]) => word ?? "");
    assert.ok(words.includes("credentials"));
    assert.deepEqual(words.filter(word => !new RegExp(`^    boot .*\\b${word}\\b.*\\)`, "m").test(script)), []);
    assert.ok(script.includes('see \\"Replace a server\\" in pulumi/README.md'));
    assert.ok(README.includes("\n## Replace a server\n"));
});

test("every file that the README names is there", () => {
    const named = [...README.matchAll(/`((?:src|tests|userdata|manifests)\/[\w.-]*)`/g)].map(([, name]) => name ?? "");
    // `src/adapters/` is the daemon's.
    const missing = named.filter(name => !existsSync(join(ROOT, name)) && !existsSync(join(ROOT, "..", name)));
    assert.ok(named.length >= 12);
    assert.deepEqual(missing, []);
});

test("the example configuration lacks only what nobody else can fill in", () => {
    const example = parse(readFileSync(join(ROOT, "Pulumi.example.yaml"), "utf8"));
    const values = Object.entries(example.config as Record<string, unknown>);
    const own = Object.fromEntries(values.filter(([key]) => key.startsWith("node-fleet:")).map(([key, value]) => [key.slice(11), value]));
    assert.throws(() => read(own, example.config["aws:region"]), (error: unknown) => {
        assert.ok(error instanceof SettingsError);
        assert.deepEqual(error.problems.map(it => it.split(" ")[0]).sort(), ["node-fleet:k3s.sha256", "node-fleet:package.sha256", "node-fleet:package.source"]);
        return true;
    });
});
