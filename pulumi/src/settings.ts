/** Reads the stack's configuration, and names everything that is wrong with it at once. */

/** Where a file is to be had, and what it must be. */
export interface Artifact {
    /** `https://…` or `s3://BUCKET/KEY`. */
    readonly source: string;
    /** 64 hexadecimal digits. */
    readonly sha256: string;
}

/** A pool of workers; the daemon's `[[pool]]` and a launch template are made of it. */
export interface Pool {
    readonly name: string;
    readonly instanceTypes: readonly string[];
    readonly min: number;
    readonly max: number;
    readonly onDemandBase: number;
    readonly spotShare: number;
    readonly volumeGib: number;
}

export interface Settings {
    readonly cluster: string;
    readonly region: string;
    /** Servers; each runs the daemon, of which one leads. */
    readonly servers: number;
    readonly serverType: string;
    readonly serverVolumeGib: number;
    readonly k3s: Artifact & { readonly version: string };
    readonly package: Artifact;
    readonly pools: readonly Pool[];
    /** Networks that may reach the API server. None: only the VPC may. */
    readonly apiFrom: readonly string[];
    /** Makes the service-linked roles of EC2 Fleet and spot, which an account has only once. */
    readonly serviceLinkedRoles: boolean;
    readonly natPerZone: boolean;
    readonly flowLogs: boolean;
    /** The daemon tells Slack, whose webhook an operator puts into its secret. */
    readonly slack: boolean;
    readonly alarmEmail: string | undefined;
    readonly imageId: string | undefined;
    /** A KMS key of the account's own that encrypts the volumes. None: AWS's for EBS. */
    readonly kmsKeyId: string | undefined;
    /** Dollars per hour on demand, of types that the daemon's example configuration does not price. */
    readonly prices: Readonly<Record<string, number>>;
}

/** All that is wrong with a configuration. */
export class SettingsError extends Error {
    constructor(readonly problems: readonly string[]) {
        super(`the stack's configuration has ${problems.length} problem(s):\n  ${problems.join("\n  ")}`);
    }
}

export const SETTING_KEYS = [
    "cluster",
    "servers",
    "serverType",
    "serverVolumeGib",
    "k3s",
    "package",
    "pools",
    "apiFrom",
    "serviceLinkedRoles",
    "natPerZone",
    "flowLogs",
    "slack",
    "alarmEmail",
    "imageId",
    "kmsKeyId",
    "prices",
];
const POOL_KEYS = ["name", "instanceTypes", "min", "max", "onDemandBase", "spotShare", "volumeGib"];
// EC2's own names are matched, as far as amd64 goes: the image and the artifacts are built for it.
const INSTANCE_TYPE = /^(?:t3a?|[cmr]\d(?:i|a|id|ad|in|i-flex)?)\.(?:medium|large|\d{0,2}xlarge)$/;
const NAME = /^[a-z](?:[a-z0-9-]{0,22}[a-z0-9])?$/;
const SOURCE = /^(?:https:\/\/[a-zA-Z0-9.-]+(?::\d{1,5})?\/[\w.+%~\/-]+|s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\/[\w.+\/-]+)$/;

const REGION = /^(?!cn-|us-gov-|us-iso|eu-iso)[a-z]{2}(?:-[a-z]+)+-\d$/;
/**
 * K3s gives each node a /24 of the pods' network, which cannot change once the cluster is there; its own default ends
 * at 256 nodes. A few networks are left for nodes that come while others go.
 */
export const POD_NETWORK = "10.48.0.0/12";
const MOST_NODES = 4000;

type Raw = Readonly<Record<string, unknown>>;

/** Takes values one by one, and notes what is wrong with each. */
class Reader {
    readonly problems: string[] = [];

    constructor(
        private readonly raw: Raw,
        private readonly prefix: string,
    ) {}

    value<T>(key: string, fallback: T | undefined, right: string, ok: (value: unknown) => value is T): T {
        const value = this.raw[key] ?? fallback;
        if (ok(value)) {
            return value;
        }
        const found = value === undefined ? "is missing" : `is ${shortened(value)}`;
        this.problems.push(`${this.prefix}${key} ${found}; right would be ${right}`);
        // Never used: a reader with problems ends in an error.
        return fallback as T;
    }

    integer(key: string, fallback: number, least: number, most: number): number {
        const ok = (value: unknown): value is number => Number.isInteger(value) && Number(value) >= least && Number(value) <= most;
        return this.value(key, fallback, `a whole number from ${least} to ${most}`, ok);
    }

    text(key: string, fallback: string | undefined, pattern: RegExp, right: string): string {
        return this.value(key, fallback, right, (value): value is string => typeof value === "string" && pattern.test(value));
    }

    flag(key: string, fallback = false): boolean {
        return this.value(key, fallback, "true or false", (value): value is boolean => typeof value === "boolean");
    }

    unknown(known: readonly string[]): void {
        for (const key of Object.keys(this.raw).filter(key => !known.includes(key))) {
            this.problems.push(`${this.prefix}${key} is unknown; right would be one of ${known.join(", ")}`);
        }
    }
}

function shortened(value: unknown): string {
    const text = JSON.stringify(value) ?? String(value);
    return text.length > 80 ? `${text.slice(0, 80)}…` : text;
}

function isRaw(value: unknown): value is Raw {
    return typeof value === "object" && value !== null && !Array.isArray(value);
}

/**
 * Reads the configuration's values.
 *
 * @throws SettingsError when any of them is wrong, with all that are.
 */
export function read(raw: Raw, region: string): Settings {
    const at = new Reader(raw, "node-fleet:");
    const where = new Reader({ region }, "aws:");
    at.unknown(SETTING_KEYS);
    const cluster = at.text("cluster", "node-fleet", NAME, "up to 24 lower-case letters, digits and dashes");
    const { source, sha256, problems, version } = artifact(at, "k3s", true);
    const daemon = artifact(at, "package", false);
    const apiFrom = at.value("apiFrom", [], 'a list of IPv4 networks like ["203.0.113.0/24"], of at least 16 bits', isNetworks);
    const poolsRaw = at.value("pools", [{ name: "workers" }], "a list of one to ten pools", isPools);
    const pools = (isPools(poolsRaw) ? poolsRaw : []).map((it, index) => pool(it, index));
    const names = pools.map(it => it.pool.name);
    names.forEach((name, index) => {
        if (names.indexOf(name) !== index) {
            at.problems.push(`node-fleet:pools[${index}].name is "${name}", as another pool's; right would be a name of its own`);
        }
    });
    const prices = at.value("prices", {}, 'dollars per hour by type, like {"m7i.large": 0.1008}', isPrices);
    const settings: Settings = {
        prices,
        cluster,
        region: where.text("region", undefined, REGION, "a region like eu-central-1; in those of China, of the US government and the isolated ones services and images have other names"),
        servers: at.integer("servers", 1, 1, 3),
        serverType: at.text("serverType", "t3.large", INSTANCE_TYPE, "an amd64 instance type like t3.large"),
        serverVolumeGib: at.integer("serverVolumeGib", 40, 20, 1000),
        k3s: { source, sha256, version },
        package: { source: daemon.source, sha256: daemon.sha256 },
        pools: pools.map(it => it.pool),
        apiFrom,
        serviceLinkedRoles: at.flag("serviceLinkedRoles", true),
        natPerZone: at.flag("natPerZone"),
        flowLogs: at.flag("flowLogs"),
        slack: at.flag("slack"),
        alarmEmail: optional(at, "alarmEmail", /^[^\s@]+@[^\s@]+\.[^\s@]+$/, "an address like ops@example.com"),
        kmsKeyId: optional(at, "kmsKeyId", keyOf(region), `the ARN of a key in the stack's region, like arn:aws:kms:eu-central-1:123456789012:key/ID`),
        imageId: optional(at, "imageId", /^ami-[0-9a-f]{8,17}$/, "an image like ami-0123456789abcdef0 of Ubuntu 24.04 for amd64"),
    };
    const nodes = settings.pools.reduce((sum, pool) => sum + pool.max, settings.servers);
    if (nodes > MOST_NODES) {
        at.problems.push(`node-fleet:pools come to ${nodes} nodes, with each at its max and the servers; right would be at most ${MOST_NODES}, since the pods' network holds no more`);
    }
    const all = [...where.problems, ...at.problems, ...problems, ...daemon.problems, ...pools.flatMap(it => it.problems)];
    if (all.length > 0) {
        throw new SettingsError(all);
    }
    return settings;
}

function optional(at: Reader, key: string, pattern: RegExp, right: string): string | undefined {
    const ok = (value: unknown): value is string => typeof value === "string" && (value === "" || pattern.test(value));
    return at.value(key, "", right, ok) || undefined;
}

/** An alias may come to mean another key, and a policy cannot name a key by it. */
function keyOf(region: string): RegExp {
    return new RegExp(`^arn:aws:kms:${region.replace(/[^a-z0-9-]/g, "")}:\\d{12}:key/(?:mrk-)?[0-9a-f-]{32,36}$`);
}

function artifact(at: Reader, key: string, versioned: boolean): Artifact & { version: string; problems: string[] } {
    const raw: Raw = at.value(key, undefined, versioned ? "{ version, source, sha256 }" : "{ source, sha256 }", isRaw) ?? {};
    if (!isRaw(raw)) {
        return { source: "", sha256: "", version: "", problems: [] };
    }
    const inner = new Reader(raw, `node-fleet:${key}.`);
    if (Object.keys(raw).length === 0) {
        return { source: "", sha256: "", version: "", problems: [] };
    }
    inner.unknown(versioned ? ["version", "source", "sha256"] : ["source", "sha256"]);
    return {
        version: versioned ? inner.text("version", undefined, /^v1\.\d{2}\.\d{1,2}\+k3s\d{1,2}$/, "a release like v1.34.1+k3s1") : "",
        source: inner.text("source", undefined, SOURCE, "https://HOST/PATH or s3://BUCKET/KEY"),
        sha256: inner.text("sha256", undefined, /^[0-9a-f]{64}$/, "the file's SHA-256: 64 lower-case hexadecimal digits"),
        problems: inner.problems,
    };
}

function pool(raw: Raw, index: number): { pool: Pool; problems: string[] } {
    const at = new Reader(raw, `node-fleet:pools[${index}].`);
    at.unknown(POOL_KEYS);
    const min = at.integer("min", 2, 0, 1000);
    const max = at.integer("max", Math.max(10, min), Math.max(1, min), 1000);
    const share = (value: unknown): value is number => typeof value === "number" && value >= 0 && value <= 1;
    const types = at.value("instanceTypes", ["m5.large", "m6i.large", "m5.xlarge", "m6i.xlarge"], "one to thirty amd64 types like m6i.large", isTypes);
    return {
        pool: {
            name: at.text("name", undefined, NAME, "up to 24 lower-case letters, digits and dashes"),
            instanceTypes: types,
            min,
            max,
            onDemandBase: at.integer("onDemandBase", 1, 0, 1000),
            spotShare: at.value("spotShare", 0.7, "a share from 0 to 1", share),
            volumeGib: at.integer("volumeGib", 30, 20, 1000),
        },
        problems: at.problems,
    };
}

function isTypes(value: unknown): value is readonly string[] {
    const ok = (it: unknown): boolean => typeof it === "string" && INSTANCE_TYPE.test(it);
    return Array.isArray(value) && value.length > 0 && value.length <= 30 && value.every(ok) && new Set(value).size === value.length;
}

function isPools(value: unknown): value is readonly Raw[] {
    return Array.isArray(value) && value.length > 0 && value.length <= 10 && value.every(isRaw);
}

function isPrices(value: unknown): value is Readonly<Record<string, number>> {
    const ok = ([type, price]: [string, unknown]): boolean => INSTANCE_TYPE.test(type) && typeof price === "number" && price > 0 && price < 1000;
    return isRaw(value) && Object.entries(value).every(ok);
}

function isNetworks(value: unknown): value is readonly string[] {
    return Array.isArray(value) && value.length <= 20 && value.every(isNetwork);
}

/** A network of more than 65,536 addresses is taken for a mistake. */
function isNetwork(value: unknown): value is string {
    const found = typeof value === "string" ? /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})\/(\d{1,2})$/.exec(value) : null;
    if (!found) {
        return false;
    }
    const [, ...numbers] = found.map(Number);
    const prefix = numbers[4] ?? 0;
    return numbers.slice(0, 4).every(it => it <= 255) && prefix >= 16 && prefix <= 32;
}
