/** The daemon's ledger: one DynamoDB table, as `src/adapters/dynamodb/schema.rs` expects it. */

import * as aws from "@pulumi/aws";
import { tags } from "./names";
import type { Settings } from "./settings";

export function ledger(settings: Settings): aws.dynamodb.Table {
    const arguments_: aws.dynamodb.TableArgs = {
        name: `${settings.cluster}-ledger`,
        billingMode: "PAY_PER_REQUEST",
        hashKey: "cluster_id",
        rangeKey: "record",
        attributes: [
            { name: "cluster_id", type: "S" },
            { name: "record", type: "S" },
        ],
        ttl: { attributeName: "expires_at", enabled: true },
        pointInTimeRecovery: { enabled: true },
        serverSideEncryption: { enabled: true },
        deletionProtectionEnabled: true,
        tags: tags(settings, "ledger"),
    };
    return new aws.dynamodb.Table("ledger", arguments_);
}
