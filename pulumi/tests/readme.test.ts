/** The README says what the program does. */

import { strict as assert } from "node:assert";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { parse } from "yaml";
import { GRANTS } from "../src/grants";
import { read, SETTING_KEYS, SettingsError } from "../src/settings";

const ROOT = join(__dirname, "..");
const README = readFileSync(join(ROOT, "README.md"), "utf8");

test("the README's table has exactly the daemon's actions", () => {
    const [, section = ""] = README.split("### Why the daemon has each right");
    const table = (section.split("## What it costs")[0] ?? "").split("\n").filter(line => line.startsWith("| `"));
    const said = table.flatMap(line => [...(line.split("|")[1] ?? "").matchAll(/`([a-z0-9]+:\w+)`/g)].map(([, action]) => action));
    assert.deepEqual(said.sort(), [...new Set(GRANTS.map(grant => grant.action))].sort());
});

test("the README names every key of the configuration and no other", () => {
    const [, section = ""] = README.split("\n## Configuration\n");
    const table = (section.split("### Opening it up")[0] ?? "").split("\n").filter(line => line.startsWith("| `"));
    const said = table.flatMap(line => [...(line.split("|")[1] ?? "").matchAll(/`(\w+)`/g)].map(([, key]) => key));
    assert.deepEqual(said.sort(), [...SETTING_KEYS].sort());
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
