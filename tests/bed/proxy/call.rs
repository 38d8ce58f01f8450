//! One call of the AWS interface: which service, which action, with which parameters, by whom.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use hyper::HeaderMap;
use jiff::Timestamp;
use serde_json::Value;

/// A call as the log keeps it.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counts from 1, in the order of arrival.
    pub number: usize,
    pub at: Instant,
    pub wall: Timestamp,
    /// Access key of the caller: each daemon of the bed has its own.
    pub caller: String,
    /// `ec2`, `dynamodb`, `sqs`, `secretsmanager`, `pricing`, `sts`.
    pub service: String,
    /// `CreateFleet`, `TransactWriteItems`.
    pub action: String,
    /// Flattened: `LaunchTemplateConfigs.1.Overrides.1.SubnetId`, `Item.owner.S`.
    pub parameters: BTreeMap<String, String>,
    /// What its effect answered, whether the caller heard it or not; none while it
    /// is under way and when it was cut before its effect.
    pub status: Option<u16>,
    /// The caller got no answer.
    pub cut: bool,
    pub error: Option<String>,
    /// The instances that it created; of a replay, those of the first call.
    pub instances: Vec<String>,
    /// The answer was the first one's, without a second effect.
    pub replayed: bool,
    pub took: Duration,
}

impl Call {
    /// Reads a request of any of the protocols: EC2's form, or JSON with a target header.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Self {
        let (caller, scope) = credential(headers);
        let mut call = Self {
            number: 0,
            at: Instant::now(),
            wall: Timestamp::now(),
            caller,
            service: scope,
            action: String::new(),
            parameters: BTreeMap::new(),
            status: None,
            cut: false,
            error: None,
            instances: Vec::new(),
            replayed: false,
            took: Duration::ZERO,
        };
        if let Some(target) = headers.get("x-amz-target").and_then(|value| value.to_str().ok()) {
            let (service, action) = target.rsplit_once('.').unwrap_or(("", target));
            action.clone_into(&mut call.action);
            call.service = service_of_target(service, &call.service).to_owned();
            if let Ok(value) = serde_json::from_slice::<Value>(body) {
                flatten("", &value, &mut call.parameters);
            }
        } else {
            call.parameters = read_form(body);
            call.action = call.parameters.remove("Action").unwrap_or_default();
            call.parameters.remove("Version");
        }
        call
    }

    /// A parameter, or nothing.
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.parameters.get(key).map(String::as_str)
    }

    /// All parameters whose key starts with `prefix`, without it.
    pub fn under(&self, prefix: &str) -> BTreeMap<String, String> {
        let inside = self.parameters.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?.to_owned(), value.clone())));
        inside.collect()
    }

    /// Did it take effect? A replay took none of its own.
    pub fn took_effect(&self) -> bool {
        !self.replayed && self.status.is_some_and(|status| status < 300)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = self.wall.strftime("%H:%M:%S%.3f");
        let status = self.status.map_or_else(|| "no effect".to_owned(), |status| status.to_string());
        write!(
            out,
            "{clock} #{} {} {}.{} -> {status} in {} ms",
            self.number,
            self.caller,
            self.service,
            self.action,
            self.took.as_millis()
        )?;
        if let Some(error) = &self.error {
            write!(out, " {error}")?;
        }
        if self.cut {
            write!(out, " (cut)")?;
        }
        if self.replayed {
            write!(out, " (replayed)")?;
        }
        if !self.instances.is_empty() {
            write!(out, " [{}]", self.instances.join(" "))?;
        }
        let mut shown = String::new();
        for (key, value) in self.parameters.iter().take(60) {
            shown.push_str(&format!(" {key}={value:.60}"));
        }
        write!(out, "{shown:.900}")
    }
}

/// The key and the service in `Credential=KEY/DATE/REGION/SERVICE/aws4_request`.
fn credential(headers: &HeaderMap) -> (String, String) {
    let header = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let scope = header.split("Credential=").nth(1).unwrap_or_default().split(',').next().unwrap_or_default();
    let mut parts = scope.split('/');
    let caller = parts.next().unwrap_or_default().to_owned();
    (caller, parts.nth(2).unwrap_or_default().to_owned())
}

fn service_of_target<'a>(target: &str, scope: &'a str) -> &'a str {
    match target.split('_').next().unwrap_or_default() {
        "DynamoDB" => "dynamodb",
        "AmazonSQS" => "sqs",
        "AWSPriceListService" => "pricing",
        "AWSEvents" => "events",
        "secretsmanager" => "secretsmanager",
        _ => scope,
    }
}

fn read_form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (decode(key), decode(value))).collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        match first {
            b'+' => bytes.push(b' '),
            b'%' if rest.len() >= 2 => {
                let pair = std::str::from_utf8(&rest[..2]).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
                bytes.push(pair.unwrap_or(b'%'));
                rest = if pair.is_some() { &rest[2..] } else { rest };
            }
            other => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Writes a form; the inverse of [`read_form`].
pub fn write_form(action: &str, parameters: &BTreeMap<String, String>) -> String {
    let mut form = format!("Action={action}&Version=2016-11-15");
    for (key, value) in parameters {
        form.push_str(&format!("&{}={}", encode(key), encode(value)));
    }
    form
}

fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => encoded.push(char::from(byte)),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

fn flatten(path: &str, value: &Value, into: &mut BTreeMap<String, String>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| flatten(&below(key), value, into)),
        Value::Array(list) => list.iter().enumerate().for_each(|(index, value)| flatten(&below(&index.to_string()), value, into)),
        Value::String(text) => drop(into.insert(path.to_owned(), text.clone())),
        Value::Null | Value::Bool(_) | Value::Number(_) => drop(into.insert(path.to_owned(), value.to_string())),
    }
}
