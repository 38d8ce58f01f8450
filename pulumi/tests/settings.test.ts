/** What the stack's configuration may say. */

import { strict as assert } from "node:assert";
import { test } from "node:test";
import { VPC_CIDR } from "../src/network";
import { POD_NETWORK, read, SettingsError } from "../src/settings";
import { HEX, KEY, MINIMAL, REGION, settings } from "./world";

function problems(more: Record<string, unknown>, region = REGION): readonly string[] {
    try {
        read({ ...MINIMAL, ...more }, region);
    } catch (error) {
        assert.ok(error instanceof SettingsError);
        return error.problems;
    }
    return [];
}

test("the least that must be said is where K3s and the daemon are to be had", () => {
    assert.deepEqual(problems({}), []);
    const { servers, pools, apiFrom } = settings();
    assert.deepEqual([servers, pools.length, apiFrom], [1, 1, []]);
    assert.deepEqual(problems({ k3s: undefined, package: undefined }).map(it => it.split(" ")[0]), ["node-fleet:k3s", "node-fleet:package"]);
});

test("each problem names the key, the value and what would be right", () => {
    const rows: [Record<string, unknown>, RegExp][] = [
        [{ servers: 4 }, /^node-fleet:servers is 4; right would be a whole number from 1 to 3$/],
        [{ servers: "2" }, /servers is "2"/],
        [{ cluster: "Prod!" }, /cluster is "Prod!"; right would be up to 24/],
        [{ serverType: "m6g.large" }, /serverType is "m6g.large"; right would be an amd64/],
        [{ apiFrom: ["0.0.0.0/0"] }, /apiFrom is \["0.0.0.0\/0"\]; right would be a list of IPv4 networks/],
        [{ apiFrom: ["10.0.0.300/24"] }, /apiFrom/],
        [{ apiFrom: "203.0.113.0/24" }, /apiFrom/],
        [{ colour: "red" }, /^node-fleet:colour is unknown; right would be one of cluster, /],
        [{ pools: [] }, /pools is \[\]/],
        [{ pools: [{ name: "a", min: 5, max: 4 }] }, /^node-fleet:pools\[0\].max is 4; right would be a whole number from 5 to/],
        [{ pools: [{ name: "a", spotShare: 70 }] }, /pools\[0\].spotShare is 70; right would be a share/],
        [{ pools: [{ name: "a" }, { name: "a" }] }, /pools\[1\].name is "a", as another pool's/],
        [{ pools: [{ name: "a", instanceTypes: ["m5.large", "m5.large"] }] }, /instanceTypes/],
        [{ pools: [{ name: "a", subnet: "x" }] }, /pools\[0\].subnet is unknown/],
        [{ package: { source: "http://x/y.deb", sha256: HEX } }, /package.source is "http:\/\/x\/y.deb"; right would be https:/],
        [{ package: { source: "https://x/$(id)", sha256: HEX } }, /package.source/],
        [{ package: { source: "https://x/y.deb", sha256: "beef" } }, /package.sha256 is "beef"/],
        [{ k3s: { version: "latest", source: "https://x/k3s", sha256: HEX } }, /k3s.version is "latest"; right would be a release/],
        [{ alarmEmail: "nobody" }, /alarmEmail/],
        [{ imageId: "ubuntu" }, /imageId/],
        [{ kmsKeyId: "alias/mine" }, /kmsKeyId is "alias\/mine"; right would be the ARN of a key in the stack's region/],
        [{ kmsKeyId: KEY.replace(REGION, "us-east-1") }, /kmsKeyId/],
        [{ servers: 3, pools: [{ name: "a", max: 1000 }, { name: "b", max: 1000 }, { name: "c", max: 1000 }, { name: "d", max: 998 }] }, /pools come to 4001 nodes, .*; right would be at most 4000/],
        [{ prices: { "m5.large": -1 } }, /prices/],
    ];
    for (const [row, wanted] of rows) {
        const found = problems(row);
        assert.equal(found.length, 1, `${JSON.stringify(row)}: ${found.join("; ")}`);
        assert.match(found[0] ?? "", wanted);
    }
    assert.match(problems({}, "mars")[0] ?? "", /^aws:region is "mars"/);
    for (const region of ["cn-north-1", "cn-northwest-1", "us-gov-west-1", "us-iso-east-1", "us-isob-east-1"]) {
        assert.match(problems({}, region)[0] ?? "", new RegExp(`^aws:region is "${region}"; right would be a region like eu-central-1`));
    }
    assert.deepEqual(["us-east-1", "ap-southeast-2"].flatMap(region => problems({}, region)), []);
});

test("the pods' network holds every node, and lies beside the VPC's and that of the services", () => {
    const range = (network: string): [number, number] => {
        const [address = "", prefix = ""] = network.split("/");
        const first = address.split(".").reduce((sum, it) => sum * 256 + Number(it), 0);
        return [first, first + 2 ** (32 - Number(prefix))];
    };
    const [first, end] = range(POD_NETWORK);
    assert.ok((end - first) / 256 >= 4000 && first % (end - first) === 0);
    for (const other of [VPC_CIDR, "10.43.0.0/16"]) {
        const [from, to] = range(other);
        assert.ok(to <= first || end <= from, other);
    }
    assert.deepEqual(problems({ pools: [{ name: "a", max: 1000 }, { name: "b", max: 1000 }, { name: "c", max: 1000 }, { name: "d", max: 999 }] }), []);
});

test("all problems are told at once, and a long value is shortened", () => {
    const found = problems({ servers: 9, cluster: "x".repeat(5000), pools: [{ name: "A" }] });
    assert.equal(found.length, 3);
    assert.ok(found.every(it => it.length < 250));
});
