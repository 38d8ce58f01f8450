//! SQS: EventBridge's announcements, long polled.

use super::aws::{Failure, Kind};
use super::quoted;
use super::retry::{once, retried};
use super::system_clock::SystemClock;
use crate::config::Config;
use crate::model::InstanceId;
use crate::ports::{Clock, Delivery, Notice, NoticeError, Notices};
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::types::QueueAttributeName;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::Instant;

/// The longest poll that SQS allows.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// What a poll may take beyond its wait.
const GRACE: Duration = Duration::from_secs(5);
/// The deadline of a deletion.
const DELETE_TIMEOUT: Duration = Duration::from_secs(5);
/// The most messages that SQS gives at once.
const BATCH: i32 = 10;
/// The pause after a poll that was empty before its time.
const EMPTY_PAUSE: Duration = Duration::from_secs(1);
/// How far ahead of this machine's clock an event's may be.
const MOST_AHEAD: SignedDuration = SignedDuration::from_mins(5);
/// For how many seconds a received message should be hidden: long enough for its effect to be recorded,
/// short enough for the successor of a leader that has died to see a warning of two minutes in time.
const HIDDEN_SECONDS: RangeInclusive<u32> = 10..=60;
/// EventBridge's own limit of an event.
const LARGEST: usize = 256 * 1024;
/// The names that EC2 has for an instance's states.
const STATES: [&str; 6] = ["pending", "running", "shutting-down", "terminated", "stopping", "stopped"];

/// SQS as the controller's [`Notices`].
#[derive(Clone, Debug)]
pub struct Sqs {
    client: Client,
    queue_url: Option<String>,
    region: String,
    wait: Duration,
    clock: SystemClock,
}

impl Sqs {
    /// Listens to the queue of `[notices]`, for events of the cluster's region.
    #[must_use]
    pub fn new(sdk: &SdkConfig, config: &Config) -> Self {
        Self {
            client: Client::new(sdk),
            queue_url: config.notices.queue_url.clone(),
            region: config.cluster.region.clone(),
            wait: config.notices.wait.min(LONGEST_WAIT),
            clock: SystemClock::new(),
        }
    }

    /// Asks for the queue's own attributes, which shows that it is there and may be read. `Ok` may carry a remark
    /// on what is not as it should be.
    ///
    /// # Errors
    /// When it is not there, or the daemon may not read it.
    pub async fn probe(&self) -> Result<Option<String>, NoticeError> {
        let Some(queue) = &self.queue_url else { return Ok(None) };
        let call = async || {
            let request = self.client.get_queue_attributes().queue_url(queue).attribute_names(QueueAttributeName::RedrivePolicy);
            request.attribute_names(QueueAttributeName::VisibilityTimeout).send().await.map_err(Failure::from)
        };
        let answer = retried(DELETE_TIMEOUT, call).await.map_err(|failure| error("GetQueueAttributes", failure))?;
        Ok(answer.attributes().and_then(remark))
    }
}

/// Says what is not as it should be with a queue of these attributes.
fn remark(attributes: &HashMap<QueueAttributeName, String>) -> Option<String> {
    let mut remarks = Vec::new();
    if !attributes.contains_key(&QueueAttributeName::RedrivePolicy) {
        remarks.push("it has no dead-letter queue (RedrivePolicy), so messages that make no sense come back until they expire".to_owned());
    }
    let hidden = attributes.get(&QueueAttributeName::VisibilityTimeout).and_then(|text| text.parse::<u32>().ok());
    if let Some(hidden) = hidden.filter(|hidden| !HIDDEN_SECONDS.contains(hidden)) {
        let (least, most) = (*HIDDEN_SECONDS.start(), *HIDDEN_SECONDS.end());
        remarks.push(format!("its VisibilityTimeout is {hidden} s; {least} s to {most} s would be right"));
    }
    (!remarks.is_empty()).then(|| remarks.join("; "))
}

/// Tells how long to wait after a poll. A queue that is not asked to wait would else be asked without a pause.
fn pause_after(messages: usize, took: Duration, wait: Duration) -> Duration {
    if messages == 0 && took < wait / 2 { EMPTY_PAUSE } else { Duration::ZERO }
}

impl Notices for Sqs {
    async fn receive(&self) -> Result<Vec<Delivery>, NoticeError> {
        let Some(queue) = &self.queue_url else { return std::future::pending().await };
        let wait = i32::try_from(self.wait.as_secs()).unwrap_or_default();
        let call = async {
            let request = self.client.receive_message().queue_url(queue).wait_time_seconds(wait).max_number_of_messages(BATCH);
            request.send().await.map_err(Failure::from)
        };
        let asked = Instant::now();
        let answer = once(self.wait + GRACE, call).await.map_err(|failure| error("ReceiveMessage", failure))?;
        tokio::time::sleep(pause_after(answer.messages().len(), asked.elapsed(), self.wait)).await;
        let now = self.clock.now();
        let deliveries = answer.messages().iter().filter_map(|message| {
            let handle = message.receipt_handle()?.to_owned();
            let notice = message.body().ok_or_else(|| "the message has no body".to_owned());
            let notice = notice.and_then(|body| parse(body, &self.region, now));
            Some(Delivery { handle, notice })
        });
        Ok(deliveries.collect())
    }

    async fn delete(&self, handle: &str) -> Result<(), NoticeError> {
        let Some(queue) = &self.queue_url else { return Ok(()) };
        let call = async || self.client.delete_message().queue_url(queue).receipt_handle(handle).send().await.map_err(Failure::from);
        retried(DELETE_TIMEOUT, call).await.map(|_| ()).map_err(|failure| error("DeleteMessage", failure))
    }
}

fn error(call: &'static str, failure: Failure) -> NoticeError {
    match failure.kind {
        Kind::NoAnswer | Kind::Fault | Kind::Throttled | Kind::Unsigned => NoticeError::Unavailable { call, why: failure.why },
        Kind::Denied | Kind::Rejected => NoticeError::Denied { call, why: failure.why },
    }
}

/// EventBridge's envelope.
#[derive(Deserialize)]
struct Event {
    source: String,
    region: String,
    #[serde(rename = "detail-type")]
    detail_type: String,
    time: String,
    detail: serde_json::Value,
}

/// The detail of EC2's own events.
#[derive(Deserialize)]
struct InstanceDetail {
    #[serde(rename = "instance-id")]
    instance: String,
    state: Option<String>,
}

/// The detail of an AWS Health event.
#[derive(Deserialize)]
struct HealthDetail {
    service: String,
    #[serde(rename = "eventTypeCategory")]
    category: String,
    #[serde(rename = "affectedEntities", default)]
    entities: Vec<HealthEntity>,
}

#[derive(Deserialize)]
struct HealthEntity {
    #[serde(rename = "entityValue")]
    value: String,
}

/// Reads one message. `Err` says why it makes no sense; it quotes the message only in short pieces.
fn parse(body: &str, region: &str, now: Timestamp) -> Result<Notice, String> {
    if body.len() > LARGEST {
        return Err(format!("the message has {} bytes, more than {LARGEST}", body.len()));
    }
    let event: Event = serde_json::from_str(body).map_err(|error| quoted(&format!("the message is no EventBridge event: {error}")))?;
    if event.region != region {
        return Err(quoted(&format!("the event is from region `{}`, not {region}", event.region)));
    }
    let at = event.time.parse::<Timestamp>().map_err(|_| quoted(&format!("`{}` is no time", event.time)))?;
    if at.duration_since(now) > MOST_AHEAD {
        return Err(format!("the event is from {at}, which is yet to come"));
    }
    match (event.source.as_str(), event.detail_type.as_str()) {
        ("aws.ec2", "EC2 Spot Instance Interruption Warning") => Ok(Notice::SpotInterruption { instance: detail(event.detail)?.0, at }),
        ("aws.ec2", "EC2 Instance Rebalance Recommendation") => Ok(Notice::RebalanceRecommendation { instance: detail(event.detail)?.0 }),
        ("aws.ec2", "EC2 Instance State-change Notification") => {
            let (instance, state) = detail(event.detail)?;
            let state = state.ok_or("the event names no state")?;
            if !STATES.contains(&state.as_str()) {
                return Err(quoted(&format!("`{state}` is no state of an instance")));
            }
            Ok(Notice::StateChange { instance, state })
        }
        ("aws.health", "AWS Health Event") => scheduled_change(event.detail),
        (source, kind) => Err(quoted(&format!("`{kind}` of `{source}` is no event that is listened to"))),
    }
}

fn detail(detail: serde_json::Value) -> Result<(InstanceId, Option<String>), String> {
    let detail: InstanceDetail =
        serde_json::from_value(detail).map_err(|error| quoted(&format!("the event's detail is malformed: {error}")))?;
    Ok((instance_id(&detail.instance)?, detail.state))
}

fn scheduled_change(detail: serde_json::Value) -> Result<Notice, String> {
    let detail: HealthDetail =
        serde_json::from_value(detail).map_err(|error| quoted(&format!("the event's detail is malformed: {error}")))?;
    if detail.service != "EC2" || detail.category != "scheduledChange" {
        return Err(quoted(&format!("`{}` of `{}` is no scheduled change of EC2", detail.category, detail.service)));
    }
    let instances = detail.entities.iter().map(|entity| instance_id(&entity.value)).collect::<Result<Vec<_>, _>>()?;
    if instances.is_empty() {
        Err("the scheduled change affects no instance".to_owned())
    } else {
        Ok(Notice::ScheduledChange { instances })
    }
}

/// Accepts `i-` with 8 or 17 lower-case hexadecimal digits, or any number between.
fn instance_id(text: &str) -> Result<InstanceId, String> {
    InstanceId::read(text).ok_or_else(|| quoted(&format!("`{text}` is no instance id")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const REGION: &str = "eu-central-1";
    const ID: &str = "i-0123456789abcdef0";

    fn now() -> Timestamp {
        "2026-03-01T12:00:03Z".parse().expect("a time")
    }

    fn parse(body: &str, region: &str) -> Result<Notice, String> {
        super::parse(body, region, now())
    }

    fn event(source: &str, kind: &str, detail: &serde_json::Value) -> String {
        json!({
            "version": "0", "id": "1", "detail-type": kind, "source": source, "account": "123456789012",
            "time": "2026-03-01T12:00:00Z", "region": REGION, "resources": [], "detail": detail,
        })
        .to_string()
    }

    #[test]
    fn every_kind_of_event_is_read() {
        let spot = event("aws.ec2", "EC2 Spot Instance Interruption Warning", &json!({"instance-id": ID, "instance-action": "terminate"}));
        let at = "2026-03-01T12:00:00Z".parse().expect("a time");
        assert_eq!(parse(&spot, REGION), Ok(Notice::SpotInterruption { instance: ID.into(), at }));
        let rebalance = event("aws.ec2", "EC2 Instance Rebalance Recommendation", &json!({"instance-id": ID}));
        assert_eq!(parse(&rebalance, REGION), Ok(Notice::RebalanceRecommendation { instance: ID.into() }));
        let state = event("aws.ec2", "EC2 Instance State-change Notification", &json!({"instance-id": ID, "state": "stopping"}));
        assert_eq!(parse(&state, REGION), Ok(Notice::StateChange { instance: ID.into(), state: "stopping".into() }));
        let health = json!({"service": "EC2", "eventTypeCategory": "scheduledChange", "affectedEntities": [{"entityValue": ID}]});
        assert_eq!(
            parse(&event("aws.health", "AWS Health Event", &health), REGION),
            Ok(Notice::ScheduledChange { instances: vec![ID.into()] })
        );
    }

    #[test]
    fn forged_foreign_and_malformed_events_say_why_in_few_words() {
        let warning = "EC2 Spot Instance Interruption Warning";
        let good = json!({"instance-id": ID});
        let rows = [
            String::new(),
            "{}".to_owned(),
            "[1,2]".to_owned(),
            event("aws.ec2", warning, &json!({})),
            event("aws.ec2", warning, &json!({"instance-id": "i-XYZ"})),
            event("aws.ec2", warning, &json!({"instance-id": "i-0123456789abcdef01"})),
            event("aws.ec2", warning, &json!({"instance-id": 7})),
            event("custom.app", warning, &good),
            event("aws.health", warning, &good),
            event("aws.ec2", &"x".repeat(9000), &good),
            event("aws.ec2", warning, &good).replace(REGION, "us-east-1"),
            event("aws.ec2", warning, &good).replace("2026-03", "yesterday"),
            event("aws.ec2", warning, &good).replace("2026-03", "2027-03"),
            event("aws.ec2", warning, &good).replace("12:00:00Z", "12:05:04Z"),
            event("aws.ec2", "EC2 Instance Rebalance Recommendation", &good).replace("2026-03", "2027-03"),
            event("aws.ec2", "EC2 Instance State-change Notification", &json!({"instance-id": ID, "state": "gone"})),
            event("aws.ec2", "EC2 Instance State-change Notification", &good),
            event("aws.health", "AWS Health Event", &json!({"service": "RDS", "eventTypeCategory": "scheduledChange"})),
            event("aws.health", "AWS Health Event", &json!({"service": "EC2", "eventTypeCategory": "scheduledChange"})),
            event("aws.ec2", warning, &json!({"instance-id": ID, "padding": "x".repeat(LARGEST)})),
        ];
        for row in rows {
            let why = parse(&row, REGION).expect_err(&row);
            assert!(!why.is_empty() && why.chars().count() <= 301, "{why}");
        }
    }

    #[test]
    fn an_events_clock_may_be_a_little_ahead() {
        let ahead = event("aws.ec2", "EC2 Spot Instance Interruption Warning", &json!({"instance-id": ID}));
        assert!(parse(&ahead.replace("12:00:00Z", "12:05:03Z"), REGION).is_ok());
    }

    #[test]
    fn a_queue_without_a_dead_letter_queue_or_with_an_odd_timeout_is_remarked_upon() {
        let queue = |redrive: bool, hidden: &str| {
            let redrive = redrive.then(|| (QueueAttributeName::RedrivePolicy, "{}".to_owned()));
            let attributes = redrive.into_iter().chain([(QueueAttributeName::VisibilityTimeout, hidden.to_owned())]);
            remark(&attributes.collect())
        };
        assert_eq!(queue(true, "30"), None);
        assert!(queue(false, "30").is_some_and(|remark| remark.contains("RedrivePolicy")));
        for odd in ["0", "3600"] {
            assert!(queue(true, odd).is_some_and(|remark| remark.contains("VisibilityTimeout")), "{odd}");
        }
    }

    #[test]
    fn an_empty_answer_before_its_time_is_followed_by_a_pause() {
        let wait = Duration::from_secs(20);
        assert_eq!(pause_after(0, Duration::from_millis(5), wait), EMPTY_PAUSE);
        assert_eq!(pause_after(1, Duration::from_millis(5), wait), Duration::ZERO);
        assert_eq!(pause_after(0, wait, wait), Duration::ZERO);
    }

    #[test]
    fn a_queue_that_does_not_exist_is_for_the_operator_to_mend() {
        let failure = Failure::service("AWS.SimpleQueueService.NonExistentQueue", "no such queue", 400);
        assert!(matches!(error("ReceiveMessage", failure), NoticeError::Denied { .. }));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,400}") {
            let _ = parse(&text, REGION);
        }

        #[test]
        fn no_detail_makes_it_panic(kind in 0..4_usize, key in "(instance-id|state|service|affectedEntities|.{0,8})", value in ".{0,40}") {
            let (source, name) = [
                ("aws.ec2", "EC2 Spot Instance Interruption Warning"),
                ("aws.ec2", "EC2 Instance Rebalance Recommendation"),
                ("aws.ec2", "EC2 Instance State-change Notification"),
                ("aws.health", "AWS Health Event"),
            ][kind];
            let _ = parse(&event(source, name, &json!({ key: value })), REGION);
        }
    }
}
