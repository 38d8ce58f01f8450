/** SNS and the CloudWatch alarms on what the daemon sends. */

import * as aws from "@pulumi/aws";
import * as pulumi from "@pulumi/pulumi";
import { DIMENSIONS, type Metric, NAMESPACE, POOL_DIMENSION } from "./metrics";
import { tags } from "./names";
import type { Settings } from "./settings";

/** One alarm: `periods` of `seconds` in a row. */
export interface Alarm {
    readonly name: string;
    readonly metric: Metric;
    /** Watches this pool alone; without it the cluster as a whole. */
    readonly pool?: string;
    readonly statistic: "Average" | "Maximum" | "Minimum" | "Sum";
    readonly comparison: "GreaterThanThreshold" | "GreaterThanOrEqualToThreshold" | "LessThanThreshold";
    readonly threshold: number;
    readonly seconds: number;
    readonly periods: number;
    /** What silence means. Only the heartbeat's is a fault: without the daemon all others are silent too. */
    readonly silence: "breaching" | "notBreaching" | "missing";
    readonly meaning: string;
}

/**
 * The alarms of a stack whose pools have these bounds. The bounds that schedules set are the daemon's alone:
 * `NodeFleetAtMaximum` of its metrics knows them.
 */
export function alarms(settings: Settings): readonly Alarm[] {
    const above = { statistic: "Average", comparison: "GreaterThanThreshold", silence: "missing" } as const;
    return [
        {
            name: "scaling-failures", metric: "ScalingFailures", statistic: "Sum", comparison: "GreaterThanOrEqualToThreshold",
            threshold: 3, seconds: 900, periods: 1, silence: "notBreaching", meaning: "Three launches or drains failed within 15 minutes",
        },
        { name: "cpu-high", metric: "ClusterCPUUtilization", ...above, threshold: 90, seconds: 60, periods: 5, meaning: "CPU above 90 % for 5 minutes" },
        // One of a fixed size is always at its maximum.
        ...settings.pools.filter(pool => pool.min < pool.max).map((pool): Alarm => ({
            name: `at-maximum-${pool.name}`, metric: "CurrentNodeCount", pool: pool.name, statistic: "Minimum", comparison: "GreaterThanOrEqualToThreshold",
            threshold: pool.max, seconds: 60, periods: 10, silence: "missing", meaning: `The pool ${pool.name} at its maximum for 10 minutes`,
        })),
        {
            name: "join-slow", metric: "NodeJoinLatency", statistic: "Maximum", comparison: "GreaterThanThreshold",
            threshold: 300, seconds: 300, periods: 1, silence: "notBreaching", meaning: "A node took more than 300 s from launch to Ready",
        },
        { name: "memory-high", metric: "ClusterMemoryUtilization", ...above, threshold: 80, seconds: 60, periods: 10, meaning: "Memory above 80 % for 10 minutes" },
        {
            name: "pods-pending", metric: "PendingPods", statistic: "Minimum", comparison: "GreaterThanThreshold",
            threshold: 0, seconds: 60, periods: 6, silence: "missing", meaning: "Pods could not be scheduled for 6 minutes",
        },
        {
            name: "no-heartbeat", metric: "Heartbeat", statistic: "Sum", comparison: "LessThanThreshold",
            threshold: 1, seconds: 60, periods: 5, silence: "breaching", meaning: "No daemon has been heard for 5 minutes",
        },
        {
            name: "interruptions", metric: "SpotInterruptions", statistic: "Sum", comparison: "GreaterThanOrEqualToThreshold",
            threshold: 3, seconds: 900, periods: 1, silence: "notBreaching", meaning: "The market took three nodes back within 15 minutes",
        },
    ];
}

/** The topic. Of AWS's services only CloudWatch may publish, and only for this account's alarms. */
export function topic(settings: Settings, account: pulumi.Input<string>): aws.sns.Topic {
    // Without a key of its own: CloudWatch cannot publish through AWS's managed one, and alarms carry no secrets.
    const made = new aws.sns.Topic("alarms", { tags: tags(settings, "alarms") });
    new aws.sns.TopicPolicy("alarms", {
        arn: made.arn,
        policy: pulumi.all([made.arn, account]).apply(([arn, id]) =>
            JSON.stringify({
                Version: "2012-10-17",
                Statement: [
                    {
                        Sid: "Alarms",
                        Effect: "Allow",
                        Principal: { Service: "cloudwatch.amazonaws.com" },
                        Action: "sns:Publish",
                        Resource: arn,
                        Condition: { StringEquals: { "aws:SourceAccount": id } },
                    },
                ],
            }),
        ),
    });
    if (settings.alarmEmail) {
        new aws.sns.TopicSubscription("alarm-email", { topic: made.arn, protocol: "email", endpoint: settings.alarmEmail });
    }
    return made;
}

export function watch(settings: Settings, to: aws.sns.Topic): void {
    const [cluster] = DIMENSIONS;
    for (const alarm of alarms(settings)) {
        new aws.cloudwatch.MetricAlarm(alarm.name, {
            name: `${settings.cluster}-${alarm.name}`,
            alarmDescription: alarm.meaning,
            namespace: NAMESPACE,
            metricName: alarm.metric,
            dimensions: { [cluster]: settings.cluster, ...(alarm.pool === undefined ? {} : { [POOL_DIMENSION]: alarm.pool }) },
            statistic: alarm.statistic,
            comparisonOperator: alarm.comparison,
            threshold: alarm.threshold,
            period: alarm.seconds,
            evaluationPeriods: alarm.periods,
            treatMissingData: alarm.silence,
            alarmActions: [to.arn],
            okActions: [to.arn],
            tags: tags(settings, alarm.name),
        });
    }
}

/** What five receipts could not read lies in the dead-letter queue: an event of a new form, or a daemon that fails over it. */
export function watchDeadLetters(settings: Settings, to: aws.sns.Topic, queue: aws.sqs.Queue): void {
    new aws.cloudwatch.MetricAlarm("dead-letters", {
        name: `${settings.cluster}-dead-letters`,
        alarmDescription: "Notices that the daemon could not read lie in the dead-letter queue",
        namespace: "AWS/SQS",
        metricName: "ApproximateNumberOfMessagesVisible",
        dimensions: { QueueName: queue.name },
        statistic: "Maximum",
        comparisonOperator: "GreaterThanThreshold",
        threshold: 0,
        period: 300,
        evaluationPeriods: 1,
        // SQS tells nothing of a queue that nobody has used for hours.
        treatMissingData: "notBreaching",
        alarmActions: [to.arn],
        okActions: [to.arn],
        tags: tags(settings, "dead-letters"),
    });
}
