//! `DescribeInstances` as EC2 answers it: late, pending at first, and with the filters that moto lacks.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::Upstream;
use super::answer::Answer;
use super::call::Call;
use super::xml::Element;

/// Filters that the proxy applies itself: moto fails on them, or does not know the proxy's states.
const OWN_FILTERS: [&str; 5] = ["client-token", "instance-lifecycle", "launch-time", "instance-state-name", "instance-state-code"];

/// A filter's name and the values that pass.
type NamedFilter = (String, Vec<String>);

/// How late EC2 is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Delays {
    /// Until describe calls show a new instance.
    pub visible: Duration,
    /// Until a new instance is `running`; it is `pending` before.
    pub running: Duration,
}

/// Carries out a `DescribeInstances`; `ages` has the instances launched through the proxy.
pub async fn instances(upstream: &Upstream, delays: Delays, ages: &BTreeMap<String, Duration>, call: &Call) -> Result<Answer> {
    let (own, parameters) = split_filters(call);
    let hidden = |id: &str| ages.get(id).is_some_and(|age| *age < delays.visible);
    let asked = call.parameters.iter().filter(|(key, _)| key.starts_with("InstanceId."));
    if let Some((_, id)) = asked.into_iter().find(|(_, id)| hidden(id)) {
        let message = format!("The instance ID '{id}' does not exist");
        return Ok(Answer::error(call, "InvalidInstanceID.NotFound", &message, 400));
    }
    let mut answer = upstream.ec2("DescribeInstances", &parameters).await?;
    if !answer.is_success() {
        return Ok(answer);
    }
    let mut root = Element::parse(&answer.text())?;
    for reservations in root.children.iter_mut().filter(|child| child.name == "reservationSet") {
        for reservation in &mut reservations.children {
            for list in reservation.children.iter_mut().filter(|child| child.name == "instancesSet") {
                list.children.retain(|instance| !hidden(instance.at(&["instanceId"])));
                for instance in &mut list.children {
                    let young = ages.get(instance.at(&["instanceId"])).is_some_and(|age| *age < delays.running);
                    if young && instance.at(&["instanceState", "name"]) == "running" {
                        make_pending(instance);
                    }
                }
                list.children.retain(|instance| own.iter().all(|(name, values)| passes(instance, name, values)));
            }
        }
        reservations.children.retain(|reservation| !reservation.items("instancesSet").is_empty());
    }
    answer.body = root.document().into();
    Ok(answer)
}

fn make_pending(instance: &mut Element) {
    if let Some(state) = instance.children.iter_mut().find(|child| child.name == "instanceState") {
        state.set("code", "0");
        state.set("name", "pending");
    }
}

/// The filters for the proxy, and the parameters for moto without them.
fn split_filters(call: &Call) -> (Vec<NamedFilter>, BTreeMap<String, String>) {
    let mut parameters = call.parameters.clone();
    parameters.retain(|key, _| !key.starts_with("Filter."));
    let (mut own, mut kept) = (Vec::new(), 0);
    for index in 1.. {
        let filter = call.under(&format!("Filter.{index}."));
        let Some(name) = filter.get("Name") else { break };
        if OWN_FILTERS.contains(&name.as_str()) {
            let values = filter.iter().filter(|(key, _)| key.starts_with("Value.")).map(|(_, value)| value.clone()).collect();
            own.push((name.clone(), values));
        } else {
            kept += 1;
            parameters.extend(filter.into_iter().map(|(key, value)| (format!("Filter.{kept}.{key}"), value)));
        }
    }
    (own, parameters)
}

fn passes(instance: &Element, filter: &str, values: &[String]) -> bool {
    let actual = match filter {
        "client-token" => instance.at(&["clientToken"]),
        "instance-lifecycle" => instance.at(&["instanceLifecycle"]),
        "launch-time" => instance.at(&["launchTime"]),
        "instance-state-name" => instance.at(&["instanceState", "name"]),
        _ => instance.at(&["instanceState", "code"]),
    };
    values.iter().any(|pattern| like(pattern, actual))
}

/// EC2's wildcards: `*` for any text.
fn like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
