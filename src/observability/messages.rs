//! Renders what happens as messages of Slack's Block Kit. Pure: same happenings, same message.
//!
//! Names and words of others are escaped (`&`, `<`, `>`), so that none becomes a link or calls `<!channel>`, and lose
//! their control characters. Every text keeps Slack's limits: 150 characters in a header, 3000 in a section, 50 blocks.

mod reports;
mod texts;

pub use reports::{daily, weekly};

use crate::model::happening::PoolChange;
use crate::model::{Happening, InstanceId, Launch, LaunchState, Operation, Retire, RetireState, What};
use serde_json::{Value, json};
use texts::{amount, clipped, escaped, listed, moment, spoken};

/// Parts shown in one message; more are counted. Those who send put fewer happenings together.
const PARTS: usize = 21;
/// Slack's limit of a header.
const HEADER: usize = 150;
/// The longest text of one happening: what fits so often into one message (Slack refuses one of 40,000 characters).
const TEXT: usize = 1500;
/// The longest text that notifications show.
const FALLBACK: usize = 600;

/// One happening as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The first line, escaped.
    pub title: String,
    /// The rest, in Slack's markup.
    pub lines: Vec<String>,
}

impl Part {
    fn new(title: String, lines: impl IntoIterator<Item = String>) -> Self {
        Self { title, lines: lines.into_iter().filter(|line| !line.is_empty()).collect() }
    }
}

/// Renders happenings as one message. `lost` counts those that there was no room for before them.
///
/// `None` where none of them is for people.
#[must_use]
pub fn message<'a>(cluster: &str, happenings: impl IntoIterator<Item = &'a Happening>, lost: u64) -> Option<Value> {
    let happenings: Vec<&Happening> = happenings.into_iter().collect();
    let mut parts: Vec<Part> = happenings.iter().filter_map(|happening| part(happening)).collect();
    if lost > 0 {
        let title = format!(":heavy_minus_sign: {lost} earlier messages could not be sent");
        parts.insert(0, Part::new(title, ["The log and `node-fleet status` have what happened.".to_owned()]));
    }
    let at = happenings.last().map(|happening| moment(happening.at)).unwrap_or_default();
    (!parts.is_empty()).then(|| assembled(cluster, &at, &parts))
}

/// Puts parts together: the only one's title is the header; of several each has its own.
fn assembled(cluster: &str, at: &str, parts: &[Part]) -> Value {
    let titles: Vec<&str> = parts.iter().map(|part| part.title.as_str()).collect();
    let section = |text: &str| json!({"type": "section", "text": {"type": "mrkdwn", "verbatim": true, "text": clipped(text, TEXT)}});
    let mut blocks = Vec::new();
    let header = match titles.as_slice() {
        [title] => (*title).to_owned(),
        titles => format!("{}: {} messages", escaped(cluster), titles.len()),
    };
    blocks.push(json!({"type": "header", "text": {"type": "plain_text", "text": clipped(&header, HEADER), "emoji": true}}));
    for part in parts.iter().take(PARTS) {
        let title = (parts.len() > 1).then(|| format!("*{}*", part.title));
        let text: Vec<String> = title.into_iter().chain(part.lines.iter().cloned()).collect();
        if !text.is_empty() {
            blocks.push(section(&text.join("\n")));
        }
    }
    if let Some(more) = parts.len().checked_sub(PARTS).filter(|more| *more > 0) {
        blocks.push(section(&format!("… and {more} more; `node-fleet status` shows them")));
    }
    let context = format!("cluster *{}* · {}", escaped(cluster), escaped(at));
    blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "verbatim": true, "text": clipped(&context, TEXT)}]}));
    json!({"text": clipped(&format!("{}: {}", escaped(cluster), titles.join("; ")), FALLBACK), "blocks": blocks})
}

/// Renders one happening; `None` where it is not for people.
#[must_use]
pub fn part(happening: &Happening) -> Option<Part> {
    match &happening.what {
        What::TookOver { owner, epoch, pause, under_way, lately } => {
            let told = |what: &str, operations: &[Operation]| labelled(what, listed(operations.iter().map(summary)));
            let paused = pause.as_ref().map(|pause| format!("*Paused* by {}: {}", escaped(&pause.by), escaped(&pause.reason)));
            let lines =
                [paused.unwrap_or_default(), told("Carried on with", under_way), told("Ended lately (may have been told before)", lately)];
            Some(Part::new(format!(":crown: {} leads, epoch {epoch}", escaped(owner)), lines))
        }
        What::Moved { operation: Operation::Launch(launch), change, .. } => bought(launch, change.as_ref()),
        What::Moved { operation: Operation::Retire(retire), begins, change } => given_back(retire, *begins, change.as_ref()),
        What::Paused { pause } => {
            let lines = [format!("*Why:* {}", escaped(&pause.reason)), "What is in flight finishes, nothing is started.".to_owned()];
            Some(Part::new(format!(":double_vertical_bar: Paused by {}", escaped(&pause.by)), lines))
        }
        What::Resumed { by } => {
            let by = by.as_ref().map(|by| format!(" by {}", escaped(by))).unwrap_or_default();
            Some(Part::new(format!(":arrow_forward: Resumed{by}"), []))
        }
        What::Alerted { alert } => {
            Some(Part::new(format!(":rotating_light: Look at this: {}", escaped(&alert.name)), [escaped(&alert.text)]))
        }
        What::Refused { violations } => {
            let title = ":no_entry: A plan would have broken an invariant and was refused".to_owned();
            Some(Part::new(title, [listed(violations.iter().map(|violation| escaped(violation)))]))
        }
        // The nodes of a launch are told of together; pods that wait are told of by their Events.
        What::Joined { .. } | What::Waiting { .. } => None,
    }
}

/// Says what has become of a launch.
fn bought(launch: &Launch, change: Option<&PoolChange>) -> Option<Part> {
    let order = &launch.order;
    let pool = escaped(order.pool.as_str());
    let zone = escaped(order.zone.as_str());
    let types = listed(launch.request.instance_types.iter().map(|it| escaped(it.as_str())));
    let asked = format!("*Asked for:* {} × {} in {}: {}", order.count, launch.request.market, zone, types);
    let wanted = format!("*Wanted because:* {}", escaped(&order.reason.to_string()));
    match &launch.state {
        LaunchState::Journalled => None,
        LaunchState::Joining { instances, .. } => {
            let got = listed(instances.iter().map(|it| format!("{} ({})", escaped(it.id.as_str()), escaped(it.instance_type.as_str()))));
            let short = (instances.len() < order.count as usize)
                .then(|| format!("EC2 had only {} of {}; the rest is tried elsewhere.", instances.len(), order.count));
            let pods = labelled("For", listed(order.pods.iter().map(|pod| escaped(&pod.to_string()))));
            let each = format!("each new node at most {}", order.price);
            let launched = format!("*Launched:* {} × {} in {zone}: {got}", instances.len(), launch.request.market);
            let why = format!("*Why:* {}", escaped(&order.reason.to_string()));
            let lines = [launched, short.unwrap_or_default(), why, price(change, &each), pods];
            Some(Part::new(format!(":arrow_up: Scale-up: {pool}{}", counts(change)), lines))
        }
        LaunchState::Done { joined, never_joined, left } if never_joined.is_empty() && left.is_empty() => {
            let nodes = listed(joined.iter().filter_map(|it| it.node.as_ref()).map(|node| escaped(node.as_str())));
            let took = spoken(launch.updated.duration_since(launch.created));
            Some(Part::new(format!(":white_check_mark: Scale-up done: {pool}"), [format!("{nodes}: Ready {took} after the decision")]))
        }
        LaunchState::Done { joined, never_joined, left } => {
            let lines = [
                format!("{} of {} instances became nodes in time", joined.len(), joined.len() + never_joined.len() + left.len()),
                labelled("Given back", listed(never_joined.iter().map(|instance| escaped(instance.id.as_str())))),
                labelled("Left alone, look after them", listed(left.iter().map(|it| escaped(it.id.as_str())))),
                asked,
                wanted,
            ];
            Some(Part::new(format!(":x: Nodes never joined: {pool}"), lines))
        }
        LaunchState::Failed { failure } => {
            let lines = [format!("*Failure:* {}", texts::failure(failure)), asked, wanted];
            Some(Part::new(format!(":x: Scale-up failed: {pool}"), lines))
        }
    }
}

/// Says what has become of a retirement; `begins` as in [`What::Moved`].
fn given_back(retire: &Retire, begins: bool, change: Option<&PoolChange>) -> Option<Part> {
    let order = &retire.order;
    let pool = escaped(order.pool.as_str());
    let name = name_of(retire);
    let instance = order.instance.as_ref().map_or("without an instance", InstanceId::as_str);
    let what = format!("*Node:* {name} (pool {pool}, {}, {}, {})", escaped(instance), order.market, escaped(order.zone.as_str()));
    let why = format!("*Why:* {}", escaped(&order.reason.to_string()));
    match &retire.state {
        RetireState::Done => {
            let took = spoken(retire.updated.duration_since(retire.created));
            Some(Part::new(format!(":white_check_mark: Scale-down done: {pool}"), [format!("{name} is gone {took} after the decision")]))
        }
        RetireState::RolledBack { reason } => {
            let was_to_go = format!("*It was to go because:* {}", escaped(&order.reason.to_string()));
            let lines = [format!("*What happened:* {}", escaped(reason)), what, was_to_go];
            Some(Part::new(format!(":leftwards_arrow_with_hook: Rolled back: {name} stays"), lines))
        }
        RetireState::Journalled
        | RetireState::Draining { .. }
        | RetireState::Drained { .. }
        | RetireState::Terminated
        | RetireState::RollingBack { .. }
            if !begins =>
        {
            None
        }
        RetireState::Journalled
        | RetireState::Draining { .. }
        | RetireState::Drained { .. }
        | RetireState::Terminated
        | RetireState::RollingBack { .. } => Some(if order.reason.is_interruption() {
            let next = "Its pods are evicted before that, and room that they lack elsewhere is bought at once.".to_owned();
            Part::new(format!(":warning: Spot interruption: {name}"), [what, why, next])
        } else {
            Part::new(format!(":arrow_down: Scale-down: {pool}{}", counts(change)), [what, why, price(change, "")])
        }),
    }
}

/// Names a node that goes, or what there is of it.
fn name_of(retire: &Retire) -> String {
    let node = retire.order.node.as_ref().map(|node| node.name.as_str());
    escaped(node.or(retire.order.instance.as_ref().map(InstanceId::as_str)).unwrap_or("a node"))
}

/// Puts a label before a text, where there is one.
fn labelled(label: &str, text: String) -> String {
    if text.is_empty() { text } else { format!("*{label}:* {text}") }
}

fn counts(change: Option<&PoolChange>) -> String {
    change.map(|it| format!(" {} → {} nodes", it.before, it.after)).unwrap_or_default()
}

fn price(change: Option<&PoolChange>, each: &str) -> String {
    let change = change.map(|it| format!("the pool {}/h → {}/h", amount(it.price_before.dollars()), amount(it.price_after.dollars())));
    let words: Vec<String> = change.into_iter().chain((!each.is_empty()).then(|| each.to_owned())).collect();
    labelled("Price", words.join(", "))
}

/// Says in a few words what an operation is and where it stands.
fn summary(operation: &Operation) -> String {
    match operation {
        Operation::Launch(launch) => {
            let (order, state) = (&launch.order, operation.state_name());
            format!("launch of {} × {} for {} ({state})", order.count, launch.request.market, escaped(order.pool.as_str()))
        }
        Operation::Retire(retire) => {
            format!("removal of {}: {} ({})", name_of(retire), retire.order.reason.name(), operation.state_name())
        }
    }
}

#[cfg(test)]
mod tests;
