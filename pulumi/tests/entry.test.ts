/** The program as Pulumi starts it, with the configuration that Pulumi hands over: texts, structured values as JSON. */

import * as pulumi from "@pulumi/pulumi";
import { strict as assert } from "node:assert";
import { test } from "node:test";
import { MINIMAL, mocks, REGION } from "./world";

test("the entry reads the stack's configuration and exports the outputs", async () => {
    const structured = { ...MINIMAL, servers: 2, pools: [{ name: "web" }] };
    const texts = Object.entries(structured).map(([key, value]) => [`node-fleet:${key}`, typeof value === "string" ? value : JSON.stringify(value)]);
    pulumi.runtime.setAllConfig({ "aws:region": REGION, ...Object.fromEntries(texts) });
    await pulumi.runtime.setMocks(mocks, "node-fleet", "test");
    const program: any = await import("../src/index");
    const outputs = program.default;
    assert.equal(outputs["apiServer"], "https://server.prod.node-fleet.internal:6443");
    assert.equal(outputs["servers"].length, 2);
    assert.deepEqual(Object.keys(outputs["launchTemplates"]), ["web"]);
});
