/** Why the daemon's role has each of its actions: the call that needs it, and the file where that is. */

export interface Grant {
    readonly action: string;
    /** The SDK's call, the part of a transaction of DynamoDB, or the action of a form that the daemon signs itself. */
    readonly call: string;
    readonly file: string;
}

const EC2 = "src/adapters/ec2.rs";
const CATALOGUE = "src/adapters/ec2/catalogue.rs";
const LAUNCH = "src/adapters/ec2/launch.rs";
const LEDGER = "src/adapters/dynamodb.rs";
const JOURNAL = "src/adapters/dynamodb/journal.rs";
const LOCK = "src/adapters/dynamodb/lock.rs";
const SCHEMA = "src/adapters/dynamodb/schema.rs";
const SQS = "src/adapters/sqs.rs";

export const GRANTS: readonly Grant[] = [
    { action: "ec2:CreateFleet", call: "create_fleet", file: LAUNCH },
    // An instant fleet does these with its caller's rights.
    { action: "ec2:RunInstances", call: "create_fleet", file: LAUNCH },
    { action: "ec2:CreateTags", call: "create_fleet", file: LAUNCH },
    { action: "iam:PassRole", call: "create_fleet", file: LAUNCH },
    { action: "ec2:DescribeFleets", call: "describe_fleets", file: LAUNCH },
    { action: "ec2:DescribeInstances", call: "describe_instances", file: "src/adapters/ec2/instances.rs" },
    { action: "ec2:DescribeInstances", call: "describe_instances", file: EC2 },
    { action: "ec2:DescribeInstanceTypeOfferings", call: "describe_instance_type_offerings", file: CATALOGUE },
    { action: "ec2:DescribeInstanceTypes", call: "describe_instance_types", file: CATALOGUE },
    { action: "ec2:DescribeLaunchTemplateVersions", call: "describe_launch_template_versions", file: CATALOGUE },
    { action: "ec2:DescribeSpotPriceHistory", call: "describe_spot_price_history", file: "src/adapters/ec2/catalogue/spot.rs" },
    { action: "ec2:DescribeSubnets", call: "describe_subnets", file: CATALOGUE },
    { action: "pricing:GetProducts", call: "get_products", file: "src/adapters/pricing.rs" },
    { action: "ec2:TerminateInstances", call: "terminate_instances", file: EC2 },
    { action: "dynamodb:GetItem", call: "get_item", file: LEDGER },
    { action: "dynamodb:Query", call: "query", file: JOURNAL },
    { action: "dynamodb:Query", call: "query", file: LOCK },
    { action: "dynamodb:UpdateItem", call: "update_item", file: JOURNAL },
    { action: "dynamodb:UpdateItem", call: "update_item", file: LOCK },
    // A transaction is judged by its parts.
    { action: "dynamodb:ConditionCheckItem", call: "transaction: condition_check", file: LEDGER },
    { action: "dynamodb:PutItem", call: "transaction: put", file: JOURNAL },
    { action: "dynamodb:PutItem", call: "transaction: put", file: LOCK },
    { action: "dynamodb:UpdateItem", call: "transaction: update", file: JOURNAL },
    { action: "dynamodb:UpdateItem", call: "transaction: update", file: LOCK },
    { action: "dynamodb:DeleteItem", call: "transaction: delete", file: JOURNAL },
    { action: "dynamodb:DeleteItem", call: "transaction: delete", file: LOCK },
    { action: "dynamodb:DescribeTable", call: "describe_table", file: SCHEMA },
    { action: "dynamodb:DescribeTimeToLive", call: "describe_time_to_live", file: SCHEMA },
    { action: "sqs:GetQueueAttributes", call: "get_queue_attributes", file: SQS },
    { action: "sqs:ReceiveMessage", call: "receive_message", file: SQS },
    { action: "sqs:DeleteMessage", call: "delete_message", file: SQS },
    { action: "cloudwatch:PutMetricData", call: "form: PutMetricData", file: "src/adapters/cloudwatch.rs" },
    { action: "secretsmanager:GetSecretValue", call: "get_secret_value", file: "src/adapters/secrets_manager.rs" },
];

/** What a launch needs besides where `kmsKeyId` names a key: EC2 uses it with its caller's rights. */
export const KEY_GRANTS: readonly Grant[] = ["CreateGrant", "Decrypt", "DescribeKey", "GenerateDataKeyWithoutPlaintext"].map(name => ({
    action: `kms:${name}`,
    call: "create_fleet",
    file: LAUNCH,
}));

/** Calls that need no grant of the daemon's: `check --create-table` runs with an operator's rights, and the table is there. */
export const OPERATORS: readonly { readonly call: string; readonly file: string }[] = [
    { call: "create_table", file: SCHEMA },
    { call: "update_time_to_live", file: SCHEMA },
];

/** The call that stands for its parts. */
export const TRANSACTION = "transact_write_items";
