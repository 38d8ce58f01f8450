/** The program that Pulumi runs. */

import * as pulumi from "@pulumi/pulumi";
import { read, SETTING_KEYS } from "./settings";
import { stack } from "./stack";

/** Structured values come as JSON, plain ones as text; a text that is no JSON is itself. */
function value(text: string): unknown {
    try {
        return JSON.parse(text);
    } catch {
        return text;
    }
}

const config = new pulumi.Config("node-fleet");
const found = SETTING_KEYS.flatMap(key => {
    const text = config.get(key);
    return text === undefined ? [] : [[key, value(text)]];
});
const settings = read(Object.fromEntries(found), new pulumi.Config("aws").require("region"));

module.exports = stack(settings);
