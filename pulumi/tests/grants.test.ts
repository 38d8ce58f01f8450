/** The daemon's actions and the calls of its code, held against each other from both sides. */

import { strict as assert } from "node:assert";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { REPOSITORY } from "../src/daemon-config";
import { type Grant, GRANTS, KEY_GRANTS, OPERATORS, TRANSACTION } from "../src/grants";
import { attached, KEY, run, settings } from "./world";

interface Call {
    readonly call: string;
    readonly file: string;
    readonly line: number;
}

/** Reads a source file without its tests. */
function source(file: string): string {
    return readFileSync(join(REPOSITORY, file), "utf8").split(/^#\[cfg\(test\)\]/m)[0] ?? "";
}

/** Finds every call of an AWS client, and every part of a DynamoDB transaction, in the text. */
function callsIn(text: string, file: string): Call[] {
    // A call with arguments is none of an AWS operation's, and every SDK client is a `client`.
    const operations = [...text.matchAll(/\bclient\s*\.\s*([a-z_]+)\(\)/g)].filter(([, name]) => name !== "clone");
    const parts = [...text.matchAll(/TransactWriteItem::builder\(\)\s*\.\s*([a-z_]+)\(/g)];
    // A form that the daemon writes and signs itself.
    const forms = [...text.matchAll(/"Action"\.to_owned\(\), "([A-Za-z]+)"/g)];
    const line = (index: number): number => text.slice(0, index).split("\n").length;
    const at = (match: RegExpMatchArray): number => line((match.index ?? 0) + match[0].lastIndexOf(match[1] ?? ""));
    return [
        ...operations.map(it => ({ call: it[1] ?? "", file, line: at(it) })),
        ...parts.map(it => ({ call: `transaction: ${it[1]}`, file, line: at(it) })),
        ...forms.map(it => ({ call: `form: ${it[1]}`, file, line: at(it) })),
    ];
}

function calls(): Call[] {
    const files = readdirSync(join(REPOSITORY, "src"), { recursive: true, encoding: "utf8" })
        .map(name => `src/${name}`)
        .filter(name => name.endsWith(".rs") && !/(^|\/)tests(\/|\.rs$)/.test(name) && !name.startsWith("src/sim/"));
    // The clients of a file or of the module that it belongs to are AWS's.
    const aws = files.filter(name => /aws_sdk_|aws_sigv4|super::Source|TransactWriteItem/.test(source(name)));
    return aws.flatMap(name => callsIn(source(name), name));
}

const same = (a: { call: string; file: string }, b: { call: string; file: string }): boolean => a.call === b.call && a.file === b.file;

test("no call of the daemon's code lacks a grant", () => {
    const found = calls();
    assert.ok(found.length >= 20, `${found.length} calls`);
    const lacking = found.filter(call => call.call !== TRANSACTION && ![...GRANTS, ...OPERATORS].some(grant => same(grant, call)));
    assert.deepEqual(lacking, [], "add the action to policies.ts and its reason to grants.ts");
});

test("no grant and no exception lacks its call", context => {
    const found = calls();
    const line = (grant: Grant): string => {
        const call = found.find(it => same(it, grant));
        return call ? `${call.file}:${call.line}` : "nowhere";
    };
    for (const grant of GRANTS) {
        context.diagnostic(`${grant.action.padEnd(40)} ${line(grant)}  ${grant.call}`);
    }
    assert.deepEqual([...GRANTS, ...KEY_GRANTS, ...OPERATORS].filter(grant => !found.some(call => same(grant, call))), []);
});

test("the daemon's policy grants exactly the actions that have a reason", async () => {
    for (const [more, reasons] of [[{}, GRANTS], [{ kmsKeyId: KEY }, [...GRANTS, ...KEY_GRANTS]]] as const) {
        const statements = attached(await run(settings(more)), "server").flatMap(policy => policy.Statement);
        const granted = new Set<string>(statements.flatMap((it: { Action: string[] }) => it.Action));
        assert.deepEqual([...granted].sort(), [...new Set(reasons.map(grant => grant.action))].sort());
    }
});

test("a call that was overlooked would be found, wherever rustfmt breaks its line", () => {
    const text = "let request = self\n    .client\n    .modify_instance_attribute()\n    .send();\nclient.clone();\nTransactWriteItem::builder().put(it)\n(\"Action\".to_owned(), \"PutAlarm\".to_owned())";
    assert.deepEqual(callsIn(text, "x.rs").map(({ call, line }) => [call, line]), [["modify_instance_attribute", 3], ["transaction: put", 6], ["form: PutAlarm", 7]]);
});

test("the servers' and workers' own actions each have a call in the user data", async () => {
    const made = await run(settings({ k3s: { version: "v1.34.1+k3s1", source: "s3://releases/k3s", sha256: "ab".repeat(32) } }));
    const read = (name: string): string => readFileSync(join(__dirname, "..", "userdata", name), "utf8");
    const said: Record<string, RegExp> = {
        "secretsmanager:GetSecretValue": /secrets_manager GetSecretValue/,
        "secretsmanager:PutSecretValue": /secrets_manager PutSecretValue/,
        "s3:GetObject": /signed s3 /,
        "sns:Publish": /signed sns .*Action=Publish/,
    };
    for (const role of ["server", "worker"]) {
        const script = read("common.sh") + read(`${role}.sh`);
        const policy = JSON.parse(made.one("aws:iam/rolePolicy:RolePolicy", role).inputs["policy"]);
        const granted: string[] = policy.Statement.flatMap((it: { Action: string[] }) => it.Action);
        // Session Manager's agent, which the image brings, makes these.
        const own = [...new Set(granted.filter(it => !it.startsWith("ssm")))].sort();
        const used = Object.keys(said).filter(action => said[action]?.test(script)).sort();
        assert.deepEqual(own, used, role);
    }
});
