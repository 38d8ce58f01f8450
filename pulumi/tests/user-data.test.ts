/** The scripts that nodes boot with, run for real against services of loopback. */

import { strict as assert } from "node:assert";
import { spawn, spawnSync } from "node:child_process";
import { createHash, createHmac } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { gunzipSync } from "node:zlib";
import { parse } from "yaml";
import { type Pool } from "../src/settings";
import { LIMIT, packed, quoted, type ServerValues, serverScript, workerScript } from "../src/user-data";
import { HEX, run, settings } from "./world";

const K3S = '#!/bin/sh\n[ "$1" != --version ] && echo ok || printf "k3s version v1.34.1+k3s1 (24fc436e)\\ngo version go1.24.6\\n"\n';
const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

let aws: Server;
let port = 0;
let root = "";
/** Secrets by name; one without a value is undefined. */
let secrets: Record<string, string | undefined> = {};
let objects: Record<string, string> = {};
let asked: string[] = [];
let failures = 0;
/** How often another server is asked for in vain before it answers. */
let silent = Infinity;
/** So many values are put whose answers do not come. */
let lostAnswers = 0;

before(async () => {
    aws = createServer((request, response) => {
        const chunks: Buffer[] = [];
        request.on("data", chunk => chunks.push(chunk));
        request.on("end", () => {
            const { status, body } = answer(request.method ?? "", request.url ?? "", request.headers, Buffer.concat(chunks).toString());
            response.writeHead(status);
            response.end(body);
        });
    });
    await new Promise<void>(resolve => aws.listen(0, "127.0.0.1", resolve));
    port = (aws.address() as AddressInfo).port;
});
after(() => aws.close());
beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), "node-fleet-boot-"));
    asked = [];
    failures = 0;
    silent = Infinity;
    lostAnswers = 0;
    outputs = OUTPUTS;
    secrets = { "prod/k3s-agent-token": "agent-token-1", "prod/k3s-server-token": undefined, "prod/prometheus": undefined, "prod/daemon-token": undefined };
    objects = { "/releases/v1.34.1+k3s1/k3s": K3S };
});

type Answer = { status: number; body: string };
type Headers = Readonly<Record<string, string | string[] | undefined>>;

function answer(method: string, url: string, headers: Headers, body: string): Answer {
    const facts: Record<string, string> = {
        "meta-data/instance-id": "i-0123456789abcdef0",
        "meta-data/placement/availability-zone": "eu-central-1a",
        "meta-data/instance-type": "m5.large",
        "meta-data/instance-life-cycle": "spot",
        "meta-data/public-ipv4": "198.51.100.7",
        "meta-data/iam/security-credentials/": "worker",
        "meta-data/iam/security-credentials/worker": JSON.stringify({ AccessKeyId: "AKIDEXAMPLE", SecretAccessKey: "canary-key", Token: "session-1" }),
    };
    if (url === "/latest/api/token") {
        return method === "PUT" ? { status: 200, body: "imds-session" } : { status: 405, body: "" };
    }
    const fact = /^\/latest\/(.*)$/.exec(url)?.[1];
    if (fact !== undefined) {
        // IMDSv2 alone: without a session nothing is told.
        const known = headers["x-aws-ec2-metadata-token"] === "imds-session";
        return known && facts[fact] !== undefined ? { status: 200, body: facts[fact] } : { status: 401, body: "" };
    }
    if (url === "/healthz") {
        return { status: 200, body: "ok" };
    }
    if (url === "/ping") {
        asked.push("ping");
        silent -= 1;
        return silent < 0 ? { status: 200, body: "pong" } : { status: 503, body: "" };
    }
    if (!isSigned(method, url, headers, body) || headers["x-amz-security-token"] !== "session-1") {
        return { status: 403, body: "unsigned" };
    }
    if (failures > 0) {
        failures -= 1;
        return { status: 503, body: "{}" };
    }
    return method === "GET" ? object(url) : call(String(headers["x-amz-target"] ?? ""), body);
}

/** Reckons the signature as AWS does: of the path as the service understands it, escaped anew. */
function isSigned(method: string, url: string, headers: Headers, body: string): boolean {
    const pattern = /^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE\/(\d{8}\/eu-central-1\/(?:secretsmanager|s3|sns)\/aws4_request), *SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})$/;
    const [, scope = "", names = "", given] = pattern.exec(String(headers["authorization"])) ?? [];
    const path = understood(url).split("/").map(encodeURIComponent).join("/");
    const signed = names.split(";").map(name => `${name}:${String(headers[name] ?? "").trim()}\n`).join("");
    const payload = headers["x-amz-content-sha256"] ?? sha256(body);
    const request = [method, path, "", signed, names, payload].join("\n");
    const text = ["AWS4-HMAC-SHA256", headers["x-amz-date"], scope, sha256(request)].join("\n");
    const hmac = (key: string | Buffer, of: string): Buffer => createHmac("sha256", key).update(of).digest();
    return hmac(scope.split("/").reduce(hmac, Buffer.from("AWS4canary-key")), text).toString("hex") === given;
}

/** A path as S3 reads it. */
function understood(url: string): string {
    return decodeURIComponent(url.replaceAll("+", " "));
}

function object(url: string): Answer {
    asked.push(`GET ${url}`);
    const found = objects[understood(url)];
    return found === undefined ? { status: 403, body: "" } : { status: 200, body: found };
}

function call(target: string, body: string): Answer {
    if (target === "") {
        asked.push(new URLSearchParams(body).get("Action") ?? "nothing");
        return { status: 200, body: "" };
    }
    const { SecretId, SecretString } = JSON.parse(body);
    asked.push(`${target.split(".")[1]} ${SecretId}`);
    if (!(SecretId in secrets)) {
        return { status: 400, body: '{"__type":"AccessDeniedException","Message":"no"}' };
    }
    if (SecretString !== undefined) {
        secrets[SecretId] = SecretString;
        if (lostAnswers > 0) {
            lostAnswers -= 1;
            return { status: 500, body: "{}" };
        }
        return { status: 200, body: "{}" };
    }
    const value = secrets[SecretId];
    return value === undefined
        ? { status: 400, body: '{"__type":"ResourceNotFoundException"}' }
        : { status: 200, body: JSON.stringify({ Name: SecretId, SecretString: value }) };
}

/** What programs print. */
let outputs: Record<string, string> = {};
const OUTPUTS: Record<string, string> = { ip: "echo 'default via 10.0.64.1 dev ens5 proto dhcp src 10.0.64.10 metric 100'", getent: "echo '10.0.64.10 STREAM server'" };

/** Programs that only a booted machine has; each notes its call, and the broken ones fail. */
function programs(broken: readonly string[]): string {
    const directory = join(root, "programs");
    rmSync(directory, { recursive: true, force: true });
    rmSync(join(root, "called"), { force: true });
    mkdirSync(directory);
    for (const name of ["systemctl", "apt-get", "node-fleet", "node-fleet-kubeconfig", "resolvectl", "ip", "getent"]) {
        const status = broken.includes(name) ? 1 : 0;
        writeFileSync(join(directory, name), `#!/bin/sh\necho "${name} $*" >>"${root}/called"\n${outputs[name] ?? ""}\nexit ${status}\n`);
        chmodSync(join(directory, name), 0o755);
    }
    return directory;
}

interface Boot {
    readonly status: number | null;
    readonly said: string;
    readonly called: string[];
    read(path: string): string;
}

async function boot(script: string, broken: readonly string[] = [], more: { args?: readonly string[]; env?: Record<string, string> } = {}): Promise<Boot> {
    const at = `http://127.0.0.1:${port}`;
    const env = {
        PATH: `${programs(broken)}:${process.env["PATH"]}`,
        NF_ROOT: root,
        NF_METADATA: at,
        NF_KUBELET: at,
        NF_API: at,
        NF_PAUSE: "0.01",
        NF_TRIES: "4",
        AWS_ENDPOINT_URL: at,
        ...more.env,
    };
    const child = spawn("bash", ["-s", "--", ...(more.args ?? [])], { env, stdio: ["pipe", "pipe", "pipe"] });
    let said = "";
    child.stdout.on("data", chunk => (said += chunk));
    child.stderr.on("data", chunk => (said += chunk));
    child.stdin.end(script);
    const status = await new Promise<number | null>(resolve => child.on("close", resolve));
    const read = (path: string): string => readFileSync(join(root, path), "utf8");
    const called = existsSync(join(root, "called")) ? read("called").trim().split("\n") : [];
    return { status, said, called, read };
}

const of = (more: Record<string, unknown> = {}) =>
    settings({
        k3s: { version: "v1.34.1+k3s1", source: "s3://releases/v1.34.1+k3s1/k3s", sha256: sha256(K3S) },
        package: { source: "s3://releases/node-fleet.deb", sha256: sha256("deb") },
        ...more,
    });
const pool = (): Pool => of().pools[0] as Pool;
const worker = (more: Record<string, unknown> = {}): string => workerScript(of(more), pool(), "server.prod.node-fleet.internal", "prod/k3s-agent-token");

const BUNDLE = JSON.stringify({ "manifests/monitoring-x.yaml": "kind: X\n", "daemon/node-fleet.toml": "[cluster]\n" });
const values = (more: Partial<ServerValues> = {}): ServerValues => ({
    serverName: "127.0.0.1",
    serverToken: "prod/k3s-server-token",
    agentToken: "prod/k3s-agent-token",
    prometheus: "prod/prometheus",
    daemonToken: "prod/daemon-token",
    alarms: "arn:aws:sns:eu-central-1:123456789012:alarms",
    bundle: "s3://prod-artifacts/server.json",
    bundleSha256: sha256(BUNDLE),
    ...more,
});
const KNOWN_SECRETS = {
    "prod/k3s-server-token": "s", "prod/k3s-agent-token": "a", "prod/daemon-token": "d", "prod/prometheus": '{"username":"node-fleet","password":"p"}',
};
const withBundle = (): void => {
    objects = { ...objects, "/prod-artifacts/server.json": BUNDLE, "/releases/node-fleet.deb": "deb" };
};

test("a worker joins with its provider id, labels and a name of its own", async () => {
    const { status, said, called, read } = await boot(worker());
    assert.equal(status, 0, said);
    const config = parse(read("etc/rancher/k3s/config.yaml"));
    assert.equal(config.server, "https://server.prod.node-fleet.internal:6443");
    assert.equal(config.token, "agent-token-1");
    assert.equal(config["node-name"], "workers-i-0123456789abcdef0");
    assert.ok(config["kubelet-arg"].includes("provider-id=aws:///eu-central-1a/i-0123456789abcdef0"));
    // In the kubelet's file K3s before 1.32 overrules it.
    assert.ok(config["kubelet-arg"].some((it: string) => it.startsWith("eviction-hard=memory.available<100Mi,")));
    assert.deepEqual(config["node-label"], [
        "topology.kubernetes.io/region=eu-central-1",
        "topology.kubernetes.io/zone=eu-central-1a",
        "node.kubernetes.io/instance-type=m5.large",
        "node-fleet.io/market=spot",
        "node-fleet.io/pool=workers",
    ]);
    assert.equal(statSync(join(root, "etc/rancher/k3s/config.yaml")).mode & 0o077, 0, "the token is root's alone");
    const kubelet = parse(read("etc/rancher/k3s/kubelet.yaml"));
    assert.deepEqual([kubelet.shutdownGracePeriod, kubelet.maxPods], ["60s", 110]);
    // Else the image's 30 s stand, and the kubelet delays no shutdown.
    assert.equal(readlinkSync(join(root, "etc/systemd/logind.conf.d/unattended-upgrades-logind-maxdelay.conf")), "/dev/null");
    assert.deepEqual(called, ["systemctl restart systemd-logind.service", "systemctl daemon-reload", "systemctl enable --now --no-block k3s-agent.service"]);
    assert.ok(!/agent-token-1|canary-key|session-1/.test(said), "no secret is said");
});

test("a worker waits for the token while services stumble", async () => {
    failures = 3;
    const { status, said } = await boot(worker());
    assert.equal(status, 0, said);
});

test("a K3s that is not the one of the checksum is never run, and the instance goes", async () => {
    objects["/releases/v1.34.1+k3s1/k3s"] = "#!/bin/sh\necho evil\n";
    const { status, said, called } = await boot(worker());
    assert.equal(status, 1);
    assert.match(said, /s3:\/\/releases\/v1\.34\.1\+k3s1\/k3s is not the file with the checksum/);
    assert.ok(!existsSync(join(root, "usr/local/bin/k3s")));
    assert.deepEqual(called, ["systemctl poweroff --no-block"]);
});

test("a K3s of another version than the configuration's is never started", async () => {
    const other = K3S.replace("v1.34.1+k3s1 ", "v1.34.1+k3s10 ");
    objects["/releases/v1.34.1+k3s1/k3s"] = other;
    const k3s = { version: "v1.34.1+k3s1", source: "s3://releases/v1.34.1+k3s1/k3s", sha256: sha256(other) };
    const { status, said, called } = await boot(worker({ k3s }));
    assert.equal(status, 1);
    assert.match(said, /is k3s version v1\.34\.1\+k3s10 \(24fc436e\); right would be v1\.34\.1\+k3s1/);
    assert.deepEqual(called, ["systemctl poweroff --no-block"]);
});

test("a worker without its token gives its instance back and says so", async () => {
    secrets = {};
    const { status, said, called } = await boot(worker());
    assert.equal(status, 1);
    assert.match(said, /FAILED with status 1 on the way into the cluster prod/);
    assert.deepEqual(called, ["systemctl poweroff --no-block"]);
});

test("the first server makes the secrets, lays out the bundle, and starts K3s when the daemon is installed and checked", async () => {
    withBundle();
    secrets["prod/k3s-agent-token"] = undefined;
    const { status, said, called, read } = await boot(serverScript(of({ servers: 3 }), 0, values()));
    assert.equal(status, 0, said);
    assert.match(secrets["prod/k3s-server-token"] ?? "", /^[0-9a-f]{64}$/);
    assert.notEqual(secrets["prod/k3s-agent-token"], secrets["prod/k3s-server-token"]);
    assert.match(secrets["prod/daemon-token"] ?? "", /^[0-9a-f]{64}$/);
    const { username, password } = JSON.parse(secrets["prod/prometheus"] ?? "{}");
    assert.equal(username, "node-fleet");
    const config = parse(read("etc/rancher/k3s/config.yaml"));
    assert.deepEqual([config["cluster-init"], config.server, config.token], [true, undefined, secrets["prod/k3s-server-token"]]);
    assert.deepEqual(config["tls-san"], ["127.0.0.1"]);
    assert.equal(config["cluster-cidr"], "10.48.0.0/12");
    assert.deepEqual(config["node-taint"], ["CriticalAddonsOnly=true:NoExecute"]);
    assert.equal(read("var/lib/rancher/k3s/server/manifests/monitoring-x.yaml"), "kind: X\n");
    assert.equal(read("etc/node-fleet/node-fleet.toml"), "[cluster]\n");
    assert.equal(statSync(join(root, "etc/node-fleet/node-fleet.toml")).mode & 0o777, 0o644, "the daemon's own user reads it");
    const web = read("var/lib/rancher/k3s/server/manifests/monitoring-secrets.yaml").split("---\n").map(it => parse(it));
    assert.deepEqual(web.map(it => it.metadata.name), ["prometheus-web", "prometheus-credentials", "grafana-admin"]);
    assert.deepEqual(web[1].stringData, { username, password });
    const hash: string = parse(web[0].stringData["web.yml"]).basic_auth_users["node-fleet"];
    const crypted = spawnSync("perl", ["-e", "print crypt($ARGV[0], $ARGV[1])", password, hash], { encoding: "utf8" });
    assert.equal(crypted.stdout, hash, "bcrypt of the password");
    assert.deepEqual(called.map(it => it.split(" ").slice(0, 2).join(" ")), [
        "apt-get install",
        "node-fleet check",
        "ip -o",
        "systemctl restart",
        "resolvectl flush-caches",
        "systemctl daemon-reload",
        "systemctl enable",
        "node-fleet-kubeconfig ",
        "systemctl enable",
    ]);
    const dropIn = "etc/systemd/system/node-fleet.service.d/interfaces.conf";
    assert.equal(read(dropIn), "[Service]\nRestrictNetworkInterfaces=lo ens5\n", "no pod's network reaches the daemon");
    assert.match(called[0] ?? "", / -o DPkg::Lock::Timeout=600 /, "the first boot's own upgrades hold the lock");
    for (const secret of [password, secrets["prod/k3s-server-token"], secrets["prod/k3s-agent-token"], "canary-key"]) {
        assert.ok(!said.includes(secret ?? "?"), "no secret is said");
    }
});

test("a server whose API is open answers with a certificate for its public address as well", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    const { status, said, read } = await boot(serverScript(of({ apiFrom: ["203.0.113.0/24"] }), 0, values()));
    assert.equal(status, 0, said);
    assert.deepEqual(parse(read("etc/rancher/k3s/config.yaml"))["tls-san"], ["127.0.0.1", "198.51.100.7"]);
});

test("the only server of a stack that is replaced founds a cluster, and keeps the secrets that there are", async () => {
    withBundle();
    secrets = { ...KNOWN_SECRETS, "prod/k3s-server-token": "old" };
    const { status, said, read } = await boot(serverScript(of(), 0, values()));
    assert.equal(status, 0, said);
    assert.deepEqual(secrets["prod/k3s-server-token"], "old");
    assert.ok(!asked.some(it => it.startsWith("PutSecretValue")));
    const config = parse(read("etc/rancher/k3s/config.yaml"));
    assert.deepEqual([config["cluster-init"], config.server, config.token], [true, undefined, "old"]);
});

const joins = "https://127.0.0.1:6443";

test("the first of several servers founds the cluster with the token that it makes, though the answer to its making is lost", async () => {
    withBundle();
    secrets = { ...KNOWN_SECRETS, "prod/k3s-server-token": undefined };
    lostAnswers = 1;
    const { status, said, read } = await boot(serverScript(of({ servers: 3 }), 0, values()));
    assert.equal(status, 0, said);
    assert.equal(lostAnswers, 0);
    const config = parse(read("etc/rancher/k3s/config.yaml"));
    assert.deepEqual([config["cluster-init"], config.server, config.token], [true, undefined, secrets["prod/k3s-server-token"]]);
});

test("a first server that is replaced joins the others, however late they answer", async () => {
    for (const [servers, late] of [[1, 0], [3, 3]]) {
        rmSync(root, { recursive: true });
        mkdirSync(root);
        withBundle();
        secrets = KNOWN_SECRETS;
        silent = late ?? 0;
        const { status, said, read } = await boot(serverScript(of({ servers }), 0, values()));
        assert.equal(status, 0, said);
        const config = parse(read("etc/rancher/k3s/config.yaml"));
        assert.deepEqual([config["cluster-init"], config.server, config.token], [undefined, joins, "s"], `${servers} servers, ${late} times silent`);
    }
});

test("a first server that is replaced founds no second cluster while nobody answers, and says what to do", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    const script = serverScript(of({ servers: 3 }), 0, values());
    const first = await boot(script);
    assert.equal(first.status, 1);
    assert.match(first.said, /no server answers at 127\.0\.0\.1, and this one founds no cluster beside it: see "Replace a server" in pulumi\/README\.md/);
    assert.ok(!first.read("etc/rancher/k3s/config.yaml").includes("cluster-init"));
    assert.ok(!first.called.some(it => it.includes("k3s.service")), first.called.join("; "));
    assert.equal(asked.at(-1), "Publish", "the topic is told");
    // The word of an operator founds it on the same machine, but never beside a cluster that answers.
    const told = await boot(script, [], { env: { NF_FOUND: "true" } });
    assert.equal(told.status, 0, told.said);
    assert.equal(parse(told.read("etc/rancher/k3s/config.yaml"))["cluster-init"], true);
    silent = 0;
    const mistaken = await boot(script, [], { env: { NF_FOUND: "true" } });
    assert.equal(mistaken.status, 0, mistaken.said);
    assert.equal(parse(mistaken.read("etc/rancher/k3s/config.yaml")).server, joins);
});

test("a server of a stack that was alone when its user data was written founds nothing where the name knows others", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    outputs = { ...OUTPUTS, getent: "printf '10.0.64.10 STREAM server\\n10.0.64.10 DGRAM\\n10.0.128.11 STREAM\\n'" };
    const { status, said, read } = await boot(serverScript(of(), 0, values()));
    assert.equal(status, 1, said);
    assert.ok(!read("etc/rancher/k3s/config.yaml").includes("cluster-init"));
});

test("a further server never founds a cluster, whatever it is told", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    const { status, read } = await boot(serverScript(of({ servers: 3 }), 1, values()), [], { env: { NF_FOUND: "true" } });
    assert.equal(status, 1);
    assert.ok(!read("etc/rancher/k3s/config.yaml").includes("cluster-init"));
});

test("a server that may not read a secret makes no value for it", async () => {
    withBundle();
    secrets = { "prod/k3s-agent-token": undefined, "prod/prometheus": undefined };
    const { status, said } = await boot(serverScript(of(), 0, values()));
    assert.equal(status, 1);
    assert.match(said, /AccessDeniedException/);
    assert.ok(!asked.some(it => it.startsWith("PutSecretValue")));
});

test("a server whose boot fails before K3s joins never starts it, and tells the topic", async () => {
    secrets = KNOWN_SECRETS;
    const first = await boot(serverScript(of(), 0, values()));
    assert.equal(first.status, 1, "the bundle is not there");
    assert.deepEqual(first.called, ["systemctl disable --now node-fleet.service"]);
    assert.equal(asked.at(-1), "Publish");
    // Whatever of the daemon is wrong: its package, apt, its configuration.
    for (const broken of ["package", "apt-get", "node-fleet"]) {
        rmSync(root, { recursive: true });
        mkdirSync(root);
        withBundle();
        if (broken === "package") {
            objects["/releases/node-fleet.deb"] = "another";
        }
        const { status, called } = await boot(serverScript(of(), 0, values()), [broken]);
        assert.equal(status, 1, broken);
        assert.ok(!called.some(it => it.includes("k3s.service")), `${broken}: ${called.join("; ")}`);
        assert.equal(asked.at(-1), "Publish");
    }
});

test("a server that fails after it has joined leaves K3s running, since etcd counts on it", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    const { status, called } = await boot(serverScript(of(), 0, values()), ["node-fleet-kubeconfig"]);
    assert.equal(status, 1);
    assert.deepEqual(called.filter(it => it.includes("able --now")), ["systemctl enable --now --no-block k3s.service", "systemctl disable --now node-fleet.service"]);
    assert.equal(asked.at(-1), "Publish");
});

test("a further server asks for the others anew each time, for longer than a resolver remembers that there are none", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    const { status, said, called } = await boot(serverScript(of({ servers: 2 }), 1, values()));
    assert.equal(status, 1);
    assert.match(said, /gave up after 4 tries: cluster_exists/);
    assert.equal(called.filter(it => it === "resolvectl flush-caches").length, 4);
    const [, tries = "0"] = /retry (\d+) cluster_exists/.exec(serverScript(of(), 1, values())) ?? [];
    assert.ok(Number(tries) * 5 > 900, "the negative answers of a private zone are kept for 900 s");
});

test("a server that runs is brought to other versions and a newer bundle by its own script, K3s first", async () => {
    withBundle();
    secrets = KNOWN_SECRETS;
    const script = serverScript(of(), 0, values());
    assert.equal((await boot(script)).status, 0);
    const [newer, bundle] = [K3S.replace("v1.34.1+", "v1.35.0+"), BUNDLE.replace("kind: X", "kind: Y")];
    objects = { ...objects, "/releases/k3s-1.35": newer, "/releases/2.deb": "deb 2", "/prod-artifacts/server.json": bundle };
    const versions = ["v1.35.0+k3s1", "s3://releases/k3s-1.35", sha256(newer), "s3://releases/2.deb", sha256("deb 2"), sha256(bundle)];
    const { status, said, called, read } = await boot(script, [], { args: ["upgrade", ...versions] });
    assert.equal(status, 0, said);
    assert.equal(read("usr/local/bin/k3s"), newer);
    assert.equal(read("var/lib/rancher/k3s/server/manifests/monitoring-x.yaml"), "kind: Y\n");
    assert.deepEqual(called.map(it => it.split(" ").slice(0, 3).join(" ")).filter(it => /apt-get|k3s\.service|node-fleet/.test(it)), [
        "systemctl restart k3s.service",
        "apt-get install -y",
        "node-fleet check --config",
        "systemctl restart node-fleet.service",
    ]);
    // A file that is not what it should be changes nothing.
    for (const wrong of [2, 5]) {
        const bad = versions.map((it, index) => (index === wrong ? HEX : it));
        const before = read("usr/local/bin/k3s");
        const refused = await boot(script, [], { args: ["upgrade", ...bad] });
        assert.notEqual(refused.status, 0);
        assert.match(refused.said, /is not the file with the checksum abab/);
        assert.ok(!refused.called.some(it => it.includes("k3s.service")));
        assert.equal(read("usr/local/bin/k3s"), before);
    }
    const other = await boot(script, [], { args: ["upgrade", "v1.36.0+k3s1", ...versions.slice(1)] });
    assert.match(other.said, /is k3s version v1\.35\.0\+k3s1 \(24fc436e\); right would be v1\.36\.0\+k3s1/);
    assert.ok(!other.called.some(it => it.includes("k3s.service")));
    for (const args of [["upgrade", "v1.35.0+k3s1"], ["upgrde"]]) {
        const mistaken = await boot(script, [], { args });
        assert.equal(mistaken.status, 2);
        assert.match(mistaken.said, /right would be/);
        assert.deepEqual(mistaken.called, []);
    }
});

test("a password that was changed in Secrets Manager comes to the monitoring by the server's own script", async () => {
    withBundle();
    secrets = { ...KNOWN_SECRETS };
    const script = serverScript(of(), 0, values());
    assert.equal((await boot(script)).status, 0);
    secrets["prod/prometheus"] = '{"username":"node-fleet","password":"another-1"}';
    const { status, said, called, read } = await boot(script, [], { args: ["credentials"] });
    assert.equal(status, 0, said);
    assert.deepEqual(called, []);
    assert.ok(read("var/lib/rancher/k3s/server/manifests/monitoring-secrets.yaml").includes('password: "another-1"'));
    assert.ok(!said.includes("another-1"));
});

test("a bundle cannot write beside its places", async () => {
    const bad = JSON.stringify({ "manifests/../../../../../etc/passwd": "x" });
    withBundle();
    objects["/prod-artifacts/server.json"] = bad;
    secrets = KNOWN_SECRETS;
    const { status, said } = await boot(serverScript(of(), 0, values({ bundleSha256: sha256(bad) })));
    assert.equal(status, 1);
    assert.match(said, /right would be KIND\/FILE/);
    assert.ok(!existsSync(join(root, "etc/passwd")));
});

test("values reach the shell as they are, whatever is in them", () => {
    for (const text of ["plain", "it's", "$(id) `id` \"x\" \\ \n end", "';id;'"]) {
        const ran = spawnSync("bash", ["-c", `printf %s ${quoted(text)}`], { encoding: "utf8" });
        assert.equal(ran.stdout, text);
    }
});

test("user data is what is packed, fits, and carries neither secret nor bundle", async () => {
    const made = await run(settings({ servers: 2 }));
    const all = [
        ...made.of("aws:ec2/instance:Instance").map(it => it.inputs["userDataBase64"]),
        ...made.of("aws:ec2/launchTemplate:LaunchTemplate").map(it => it.inputs["userData"]),
    ];
    assert.equal(all.length, 3);
    for (const data of all) {
        const bytes = Buffer.from(data, "base64");
        assert.ok(bytes.length < LIMIT);
        const script = gunzipSync(bytes).toString();
        assert.match(script, /^#!\/usr\/bin\/env bash\nNF_CLUSTER='prod'\n/);
        assert.ok(script.includes(`NF_K3S_SHA256='${HEX}'`));
        assert.equal(spawnSync("bash", ["-n"], { input: script }).status, 0);
    }
    assert.throws(() => packed(Array.from({ length: 30_000 }, (_, index) => sha256(String(index))).join("")), /EC2 takes 16384/);
});

afterEach(() => rmSync(root, { recursive: true, force: true }));
