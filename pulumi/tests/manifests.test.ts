/** What K3s applies by itself on a server. */

import { strict as assert } from "node:assert";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse, parseAllDocuments } from "yaml";
import { dashboards, manifests } from "../src/bundle";
import { REPOSITORY } from "../src/daemon-config";
import { DAEMON_PORT, OPENINGS } from "../src/network";
import { run, settings } from "./world";

type Thing = Record<string, any>;

function things(): Thing[] {
    return Object.entries(manifests()).flatMap(([name, text]) =>
        parseAllDocuments(text).map(document => {
            assert.deepEqual(document.errors, [], name);
            return document.toJS() as Thing;
        }),
    );
}

const workloads = (): Thing[] => things().filter(it => ["DaemonSet", "Deployment"].includes(it["kind"]));
const one = (kind: string, name: string): Thing => {
    const found = things().find(it => it["kind"] === kind && it["metadata"].name === name);
    assert.ok(found, `${kind} ${name}`);
    return found;
};
const containers = (it: Thing): Thing[] => [...(it["spec"].template.spec.initContainers ?? []), ...it["spec"].template.spec.containers];

test("every object is named once, in a namespace that is there", () => {
    const names = things().map(it => `${it["kind"]} ${it["metadata"].namespace ?? ""}/${it["metadata"].name}`);
    assert.equal(new Set(names).size, names.length, names.join("\n"));
    const namespaces = new Set(things().map(it => it["metadata"].namespace).filter(Boolean));
    assert.deepEqual([...namespaces].sort(), ["kube-system", "monitoring"]);
    assert.ok(one("Namespace", "monitoring"));
});

test("the daemon's role is the one of packaging/, untouched", () => {
    assert.equal(manifests()["node-fleet-rbac.yaml"], readFileSync(join(REPOSITORY, "packaging/kubernetes/rbac.yaml"), "utf8"));
});

test("every image has a version, and every container gives up what it does not need", () => {
    const found = workloads();
    assert.deepEqual(found.map(it => it["metadata"].name).sort(), ["grafana", "kube-state-metrics", "node-exporter", "prometheus"]);
    for (const workload of found) {
        for (const container of containers(workload)) {
            assert.match(container["image"], /^[a-z0-9.-]+\.[a-z]+\/[a-z0-9/-]+:v?\d+\.\d+\.\d+$/);
            assert.equal(container["securityContext"].allowPrivilegeEscalation, false);
            assert.deepEqual(container["securityContext"].capabilities.drop, ["ALL"]);
            assert.ok(!container["securityContext"].privileged);
        }
        for (const container of workload["spec"].template.spec.containers) {
            assert.ok(container.resources.limits.memory && container.resources.requests.cpu, container.name);
        }
        assert.equal(workload["spec"].template.spec.securityContext.runAsNonRoot, true);
        assert.equal(workload["spec"].template.spec.securityContext.seccompProfile.type, "RuntimeDefault");
    }
});

test("Prometheus and Grafana listen on a server's loopback alone, and Prometheus asks for a password", () => {
    const prometheus = one("DaemonSet", "prometheus")["spec"].template.spec;
    const [container] = prometheus.containers;
    assert.ok(prometheus.hostNetwork);
    assert.deepEqual(prometheus.nodeSelector, { "node-role.kubernetes.io/control-plane": "true" });
    assert.ok(container.args.includes("--web.listen-address=127.0.0.1:9090"));
    assert.ok(container.args.includes("--web.config.file=/etc/prometheus-web/web.yml"));
    const grafana = one("DaemonSet", "grafana")["spec"].template.spec;
    assert.deepEqual(grafana.nodeSelector, prometheus.nodeSelector);
    assert.equal(grafana.containers[0].env.find((it: Thing) => it["name"] === "GF_SERVER_HTTP_ADDR").value, "127.0.0.1");
    assert.deepEqual(things().filter(it => ["Service", "Ingress"].includes(it["kind"])), []);
});

test("no role of the monitoring may write, or see secrets", () => {
    const roles = things().filter(it => it["kind"] === "ClusterRole" && it["metadata"].name.startsWith("monitoring-"));
    assert.equal(roles.length, 2);
    for (const rule of roles.flatMap(it => it["rules"])) {
        assert.deepEqual(rule.verbs, ["list", "watch"]);
        assert.ok(!rule.resources.some((it: string) => it === "*" || it.startsWith("secrets") || it === "configmaps"));
    }
});

test("Prometheus itself accepts its configuration and the web configuration that a server writes", () => {
    assert.ok(!spawnSync("promtool", ["--version"]).error, "promtool is missing: apt-get install prometheus");
    const directory = mkdtempSync(join(tmpdir(), "node-fleet-"));
    const check = (what: string[], text: string): string => {
        const file = join(directory, "file.yml");
        writeFileSync(file, text);
        const ran = spawnSync("promtool", ["check", ...what, file], { encoding: "utf8" });
        return ran.status === 0 ? "" : `${ran.stdout}${ran.stderr}`;
    };
    const web = "basic_auth_users:\n  node-fleet: $2b$10$V2JR7W2kmF.tiW3.lZ3j..ZscGIhFI8mWfKZHS53mAlV3/luhp3/m\n";
    try {
        // Debian builds Prometheus without the discovery of Kubernetes.
        const text: string = one("ConfigMap", "prometheus")["data"]["prometheus.yml"];
        const discovery = /kubernetes_sd_configs:\n\s+- role: pod\n\s+namespaces:\n\s+names: \[monitoring\]/g;
        assert.equal(text.match(discovery)?.length, 3);
        assert.equal(check(["config", "--syntax-only"], text.replace(discovery, "static_configs: []")), "");
        assert.equal(check(["web-config"], web), "");
        assert.notEqual(check(["web-config"], web.replace("basic_auth_users", "basic_auth_user")), "");
    } finally {
        rmSync(directory, { recursive: true });
    }
});

/** The rule files that Prometheus loads, by the paths at which it sees them. */
function loadedRules(): [string, string][] {
    const { rule_files: patterns } = parse(one("ConfigMap", "prometheus")["data"]["prometheus.yml"]);
    const { containers: [container], volumes } = one("DaemonSet", "prometheus")["spec"].template.spec;
    const mounted: [string, string][] = container.volumeMounts.flatMap(({ name, mountPath }: Thing) => {
        const map = volumes.find((it: Thing) => it["name"] === name)?.configMap;
        return map ? Object.entries(one("ConfigMap", map.name)["data"]).map(([file, text]) => [`${mountPath}/${file}`, text]) : [];
    });
    return mounted.filter(([path]) => patterns.some((pattern: string) => matchesGlob(path, pattern)));
}

const matchesGlob = (path: string, pattern: string): boolean => new RegExp(`^${pattern.replaceAll(".", "\\.").replaceAll("*", "[^/]*")}$`).test(path);

test("Prometheus loads every recording that a dashboard asks for, and the alerts", () => {
    const rules = loadedRules().flatMap(([, text]) => parse(text).groups.flatMap((group: Thing) => group["rules"]));
    const recorded = new Set(rules.map((it: Thing) => it["record"]));
    const boards = Object.values(one("ConfigMap", "grafana-dashboards")["data"] as Record<string, string>);
    const asked = new Set(boards.flatMap(board => [...board.matchAll(/\b[a-z_]+(?::[a-z0-9_]+)+/g)].map(([name]) => name).filter(name => !name.startsWith("http"))));
    assert.ok(asked.size >= 10, [...asked].join(" "));
    assert.deepEqual([...asked].filter(name => !recorded.has(name)), []);
    const alerts = parse(readFileSync(join(REPOSITORY, "monitoring/prometheus/alerts.yml"), "utf8")).groups.flatMap((it: Thing) => it["rules"]);
    assert.deepEqual(rules.map((it: Thing) => it["alert"]).filter(Boolean), alerts.map((it: Thing) => it["alert"]));
});

test("every Prometheus scrapes the daemons of all servers, where they listen and the security group lets it", async () => {
    const { scrape_configs: jobs } = parse(one("ConfigMap", "prometheus")["data"]["prometheus.yml"]);
    const { relabel_configs: labels } = jobs.find((it: Thing) => it["job_name"] === "node-fleet");
    // One pod of it is on each server, in the server's own network.
    assert.deepEqual([labels[0].source_labels, labels[0].regex, labels[0].action], [
        ["__meta_kubernetes_pod_label_app", "__meta_kubernetes_pod_container_name"], "prometheus;prometheus", "keep",
    ]);
    const { spec, metadata } = one("DaemonSet", "prometheus")["spec"].template;
    assert.deepEqual([metadata.labels.app, spec.containers[0].name, spec.hostNetwork], ["prometheus", "prometheus", true]);
    const address = labels.find((it: Thing) => it["target_label"] === "__address__");
    assert.deepEqual([address.source_labels, address.replacement], [["__meta_kubernetes_pod_host_ip"], `$1:${DAEMON_PORT}`]);
    const { outputs } = await run(settings({ servers: 3 }));
    assert.ok(outputs["daemonConfig"].includes(`listen = "0.0.0.0:${DAEMON_PORT}"`));
    assert.ok(OPENINGS.some(it => it.to === "server" && it.from === "server" && it.first === DAEMON_PORT));
});

test("the exporter's series carry the node's name, as the daemon reads them", () => {
    const { scrape_configs: jobs } = parseAllDocuments(one("ConfigMap", "prometheus")["data"]["prometheus.yml"])[0]?.toJS() as Thing;
    const job = jobs.find((it: Thing) => it["job_name"] === "node-exporter");
    assert.ok(job.relabel_configs.some((it: Thing) => it["target_label"] === "instance" && it["source_labels"][0] === "__meta_kubernetes_pod_node_name"));
    const ports = one("DaemonSet", "node-exporter")["spec"].template.spec.containers[0].ports;
    assert.deepEqual(ports, [{ name: "metrics", containerPort: 9100 }]);
});

test("dashboards become one ConfigMap, and too many of them are refused before anything is made", () => {
    const [map] = parseAllDocuments(dashboards([["cost.json", '{"title":"Cost"}']]));
    assert.deepEqual(map?.toJS().data, { "cost.json": '{"title":"Cost"}' });
    assert.throws(() => dashboards([["a.json", "x".repeat(1_000_000)]]), /right would be at most/);
});
