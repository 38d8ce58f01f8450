//! Events of EC2: published on EventBridge, whose rule brings them to the queue, and put there by hand.

use anyhow::{Context, Result, ensure};
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::{Timestamp, ToSpan};
use serde_json::{Value, json};

use crate::offers::REGION;
use crate::proxy::Upstream;

/// The account id of moto.
pub const ACCOUNT: &str = "123456789012";

/// The rule that brings the daemon its notices.
const RULE: &str = "node-fleet-notices";

const INTERRUPTION: &str = "EC2 Spot Instance Interruption Warning";
const REBALANCE: &str = "EC2 Instance Rebalance Recommendation";
const STATE_CHANGE: &str = "EC2 Instance State-change Notification";
const HEALTH: &str = "AWS Health Event";

/// EC2 takes the spot instance back in two minutes.
pub fn spot_interruption(instance: &str) -> Value {
    ec2(INTERRUPTION, instance, &json!({"instance-id": instance, "instance-action": "terminate"}))
}

/// The spot instance is at an elevated risk of interruption.
pub fn rebalance_recommendation(instance: &str) -> Value {
    ec2(REBALANCE, instance, &json!({"instance-id": instance}))
}

/// The instance is `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
pub fn state_change(instance: &str, state: &str) -> Value {
    ec2(STATE_CHANGE, instance, &json!({"instance-id": instance, "state": state}))
}

/// AWS Health announces maintenance of the instance in an hour.
pub fn scheduled_maintenance(instance: &str) -> Value {
    let start = Timestamp::now() + 1.hour();
    let detail = json!({
        "eventArn": format!("arn:aws:health:{REGION}::event/EC2/AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED/1"),
        "service": "EC2", "eventTypeCode": "AWS_EC2_INSTANCE_REBOOT_MAINTENANCE_SCHEDULED",
        "eventTypeCategory": "scheduledChange", "eventScopeCode": "ACCOUNT_SPECIFIC", "statusCode": "upcoming",
        "startTime": start.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        "eventDescription": [{"language": "en_US", "latestDescription": "A reboot is scheduled."}],
        "affectedEntities": [{"entityValue": instance}],
    });
    event("aws.health", HEALTH, &[instance.to_owned()], &detail)
}

fn ec2(kind: &str, instance: &str, detail: &Value) -> Value {
    event("aws.ec2", kind, &[format!("arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}")], detail)
}

fn event(source: &str, kind: &str, resources: &[String], detail: &Value) -> Value {
    json!({
        "version": "0", "id": uuid::Uuid::new_v4().to_string(), "detail-type": kind, "source": source, "account": ACCOUNT,
        "time": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(), "region": REGION,
        "resources": resources, "detail": detail,
    })
}

/// Makes the rule that brings the announcements of EC2 and AWS Health to a queue, as an operator's account has it.
pub async fn route(upstream: &Upstream, queue_arn: &str) -> Result<()> {
    let pattern = json!({"source": ["aws.ec2", "aws.health"], "detail-type": [INTERRUPTION, REBALANCE, STATE_CHANGE, HEALTH]});
    let rule = json!({"Name": RULE, "EventPattern": pattern.to_string(), "State": "ENABLED"});
    upstream.json("events", "AWSEvents.PutRule", &rule).await?;
    let targets = json!({"Rule": RULE, "Targets": [{"Id": "queue", "Arn": queue_arn}]});
    let answer = upstream.json("events", "AWSEvents.PutTargets", &targets).await?;
    ensure!(answer["FailedEntryCount"] == 0, "PutTargets: {answer}");
    Ok(())
}

/// Publishes an event.
pub async fn publish(upstream: &Upstream, event: &Value) -> Result<()> {
    let text = |key: &str| event[key].as_str().with_context(|| format!("the event has no {key}: {event}"));
    let time: Timestamp = text("time")?.parse().context("the event's time")?;
    let entry = json!({
        "Source": text("source")?, "DetailType": text("detail-type")?, "Detail": event["detail"].to_string(),
        "Resources": event["resources"], "Time": time.as_second(),
    });
    let answer = upstream.json("events", "AWSEvents.PutEvents", &json!({"Entries": [entry]})).await?;
    ensure!(answer["FailedEntryCount"] == 0, "PutEvents: {answer}");
    Ok(())
}

/// Puts a text into a queue: an event, or what is none.
pub async fn send(sqs: &aws_sdk_sqs::Client, queue: &str, body: &str) -> Result<()> {
    sqs.send_message().queue_url(queue).message_body(body).send().await.context("send a message")?;
    Ok(())
}

/// How many messages are in a queue, those that somebody works on included.
pub async fn messages_in(sqs: &aws_sdk_sqs::Client, queue: &str) -> Result<usize> {
    let names = [QueueAttributeName::ApproximateNumberOfMessages, QueueAttributeName::ApproximateNumberOfMessagesNotVisible];
    let request = sqs.get_queue_attributes().queue_url(queue).set_attribute_names(Some(names.to_vec()));
    let answer = request.send().await.context("look into the queue")?;
    let count = |name| answer.attributes().and_then(|all| all.get(name)).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    Ok(names.iter().map(count).sum())
}
