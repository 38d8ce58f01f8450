/** What EC2 announces: EventBridge rules into a queue with a dead-letter queue. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { tags } from "./names";
import type { Settings } from "./settings";

/** The daemon accepts 10 to 60 seconds (`src/adapters/sqs.rs`): a successor must see a warning of two minutes in time. */
const VISIBILITY_SECONDS = 30;
/** A warning that is an hour old is about an instance that is gone. */
const RETENTION_SECONDS = 3600;
const DEAD_RETENTION_SECONDS = 14 * 24 * 3600;
/** So often a message may come back before it counts as poison. */
const MOST_RECEIVES = 5;

/** The events that `src/adapters/sqs.rs` reads. */
export const PATTERNS = {
    "spot-interruption": { source: ["aws.ec2"], "detail-type": ["EC2 Spot Instance Interruption Warning"] },
    rebalance: { source: ["aws.ec2"], "detail-type": ["EC2 Instance Rebalance Recommendation"] },
    "state-change": { source: ["aws.ec2"], "detail-type": ["EC2 Instance State-change Notification"] },
    "scheduled-change": {
        source: ["aws.health"],
        "detail-type": ["AWS Health Event"],
        detail: { service: ["EC2"], eventTypeCategory: ["scheduledChange"] },
    },
} as const;

export interface Events {
    readonly queue: aws.sqs.Queue;
    readonly deadLetters: aws.sqs.Queue;
}

export function events(settings: Settings, account: pulumi.Input<string>): Events {
    const deadLetters = new aws.sqs.Queue("dead-letters", {
        messageRetentionSeconds: DEAD_RETENTION_SECONDS,
        sqsManagedSseEnabled: true,
        tags: tags(settings, "dead-letters"),
    });
    const queue = new aws.sqs.Queue("notices", {
        messageRetentionSeconds: RETENTION_SECONDS,
        visibilityTimeoutSeconds: VISIBILITY_SECONDS,
        receiveWaitTimeSeconds: 20,
        sqsManagedSseEnabled: true,
        redrivePolicy: pulumi.jsonStringify({ deadLetterTargetArn: deadLetters.arn, maxReceiveCount: MOST_RECEIVES }),
        tags: tags(settings, "notices"),
    });
    new aws.sqs.RedriveAllowPolicy("dead-letters", {
        queueUrl: deadLetters.id,
        redriveAllowPolicy: pulumi.jsonStringify({ redrivePermission: "byQueue", sourceQueueArns: [queue.arn] }),
    });
    // Shared by the rules, as the third role: EventBridge takes it on to send, and nobody else may send.
    const role = new aws.iam.Role("events", {
        description: "EventBridge puts EC2's announcements into node-fleet's queue",
        assumeRolePolicy: pulumi.output(account).apply(id =>
            JSON.stringify({
                Version: "2012-10-17",
                Statement: [
                    {
                        Effect: "Allow",
                        Principal: { Service: "events.amazonaws.com" },
                        Action: "sts:AssumeRole",
                        Condition: { StringEquals: { "aws:SourceAccount": id } },
                    },
                ],
            }),
        ),
        tags: tags(settings, "events"),
    });
    const rules = Object.entries(PATTERNS).map(([name, pattern]) => {
        const rule = new aws.cloudwatch.EventRule(name, {
            description: `EC2's announcements for node-fleet: ${name}`,
            eventPattern: JSON.stringify(pattern),
            tags: tags(settings, name),
        });
        new aws.cloudwatch.EventTarget(name, { rule: rule.name, arn: queue.arn, roleArn: role.arn });
        return rule;
    });
    new aws.iam.RolePolicy("events", {
        role: role.id,
        policy: queue.arn.apply(arn =>
            JSON.stringify({
                Version: "2012-10-17",
                Statement: [{ Sid: "Send", Effect: "Allow", Action: "sqs:SendMessage", Resource: arn }],
            }),
        ),
    });
    new aws.sqs.QueuePolicy("notices", {
        queueUrl: queue.id,
        policy: pulumi
            .all([queue.arn, role.arn, pulumi.all(rules.map(rule => rule.arn))])
            .apply(([queueArn, roleArn, ruleArns]) => JSON.stringify(queuePolicy(queueArn, roleArn, ruleArns))),
    });
    return { queue, deadLetters };
}

/** EventBridge alone may send: by its role, or itself for our rules. What comes without TLS is refused. */
export function queuePolicy(queue: string, role: string, rules: readonly string[]): object {
    return {
        Version: "2012-10-17",
        Statement: [
            { Sid: "Rules", Effect: "Allow", Principal: { Service: "events.amazonaws.com" }, Action: "sqs:SendMessage", Resource: queue,
              Condition: { ArnEquals: { "aws:SourceArn": rules } } },
            { Sid: "NobodyElseSends", Effect: "Deny", Principal: "*", Action: "sqs:SendMessage", Resource: queue,
              Condition: { ArnNotEquals: { "aws:PrincipalArn": role, "aws:SourceArn": rules } } },
            { Sid: "OnlyTls", Effect: "Deny", Principal: "*", Action: "sqs:*", Resource: queue,
              Condition: { Bool: { "aws:SecureTransport": "false" } } },
        ],
    };
}
