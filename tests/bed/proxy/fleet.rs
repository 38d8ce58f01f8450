//! `CreateFleet` of type `instant` and `RunInstances` as AWS documents them, over moto's `RunInstances`.
//!
//! moto's own `CreateFleet` chooses no zone, puts spot requests where instances
//! belong, and never lacks capacity. Here each override that is chosen becomes a
//! `RunInstances` call of one type in one subnet.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::Upstream;
use super::answer::Answer;
use super::call::Call;
use super::capacity::Capacity;
use super::xml::Element;
use crate::offers::{INSTANCE_TYPES, Market};

/// What a launch did.
pub struct Launched {
    pub answer: Answer,
    pub instances: Vec<String>,
}

/// One override of a fleet's launch template, resolved to a subnet and its zone.
#[derive(Clone, Debug)]
struct Candidate {
    template: BTreeMap<String, String>,
    instance_type: String,
    subnet: String,
    zone: String,
    priority: f64,
}

/// How many instances of which candidate, or why none.
#[derive(Default)]
struct Choice {
    picks: Vec<(Candidate, Market, usize)>,
    refusals: Vec<(Candidate, Market, String)>,
}

/// Carries out a `CreateFleet`.
pub async fn create_fleet(upstream: &Upstream, capacity: &std::sync::Mutex<Capacity>, call: &Call) -> Result<Launched> {
    if call.parameter("DryRun") == Some("true") {
        let answer = Answer::error(call, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412);
        return Ok(Launched { answer, instances: Vec::new() });
    }
    if call.parameter("Type") != Some("instant") {
        let answer = Answer::error(call, "InvalidParameterValue", "the bed knows fleets of type instant only", 400);
        return Ok(Launched { answer, instances: Vec::new() });
    }
    let candidates = candidates(upstream, call).await?;
    let fleet = format!("fleet-{}", uuid::Uuid::new_v4());
    let choice = choose(capacity, call, &candidates);
    let mut launched = Vec::new();
    for (index, (candidate, market, count)) in choice.picks.iter().enumerate() {
        let token = format!("{fleet}-{index}");
        let answer = run(upstream, call, candidate, *market, *count, &token).await?;
        if !answer.is_success() {
            return Ok(Launched { answer, instances: launched.into_iter().flat_map(|(_, ids)| ids).collect() });
        }
        launched.push((index, instance_ids(&answer)?));
    }
    let instances = launched.iter().flat_map(|(_, ids)| ids.clone()).collect();
    let sets = launched.iter().map(|(index, ids)| fleet_instance(&choice.picks[*index], ids)).collect();
    let errors = choice.refusals.iter().map(fleet_error).collect();
    let children = vec![Element::text("fleetId", fleet), Element::with("errorSet", errors), Element::with("fleetInstanceSet", sets)];
    Ok(Launched { answer: Answer::ec2("CreateFleet", children), instances })
}

/// Carries out a `RunInstances`: all of `MinCount`, or insufficient capacity.
pub async fn run_instances(upstream: &Upstream, capacity: &std::sync::Mutex<Capacity>, call: &Call) -> Result<Launched> {
    let subnets = upstream.subnets().await?;
    let zone_of_subnet = call.parameter("SubnetId").and_then(|id| subnets.get(id).cloned());
    let zone = call.parameter("Placement.AvailabilityZone").map(str::to_owned).or(zone_of_subnet).unwrap_or_default();
    let instance_type = call.parameter("InstanceType").unwrap_or_default();
    let market = if call.parameter("InstanceMarketOptions.MarketType") == Some("spot") { Market::Spot } else { Market::OnDemand };
    let count: usize = call.parameter("MinCount").unwrap_or("1").parse().context("MinCount")?;
    {
        let mut capacity = capacity.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for taken in 0..count {
            if let Err(code) = capacity.take(instance_type, &zone, market) {
                (0..taken).for_each(|_| capacity.give_back(instance_type, &zone, market));
                let message = format!("We currently do not have sufficient {instance_type} capacity in {zone}.");
                return Ok(Launched { answer: Answer::error(call, &code, &message, 500), instances: Vec::new() });
            }
        }
    }
    let answer = upstream.ec2("RunInstances", &call.parameters).await?;
    let instances = if answer.is_success() { instance_ids(&answer)? } else { Vec::new() };
    Ok(Launched { answer, instances })
}

async fn candidates(upstream: &Upstream, call: &Call) -> Result<Vec<Candidate>> {
    let subnets = upstream.subnets().await?;
    let mut found = Vec::new();
    for config in 1.. {
        let prefix = format!("LaunchTemplateConfigs.{config}.");
        let template = call.under(&format!("{prefix}LaunchTemplateSpecification."));
        if template.is_empty() {
            break;
        }
        for index in 1.. {
            let one = call.under(&format!("{prefix}Overrides.{index}."));
            if one.is_empty() {
                break;
            }
            found.push(candidate(&subnets, &template, &one)?);
        }
    }
    if found.is_empty() {
        bail!("CreateFleet without overrides: the bed wants a type and a subnet or zone in each");
    }
    Ok(found)
}

fn candidate(subnets: &BTreeMap<String, String>, template: &BTreeMap<String, String>, one: &BTreeMap<String, String>) -> Result<Candidate> {
    let instance_type = one.get("InstanceType").context("an override without InstanceType")?.clone();
    let subnet = match (one.get("SubnetId"), one.get("AvailabilityZone")) {
        (Some(subnet), _) => subnet.clone(),
        (None, Some(zone)) => subnets.iter().find(|(_, own)| *own == zone).map(|(id, _)| id.clone()).context("a zone without subnet")?,
        (None, None) => bail!("an override without SubnetId and AvailabilityZone"),
    };
    let zone = subnets.get(&subnet).with_context(|| format!("unknown subnet {subnet}"))?.clone();
    let priority = one.get("Priority").and_then(|text| text.parse().ok()).unwrap_or(f64::MAX);
    Ok(Candidate { template: template.clone(), instance_type, subnet, zone, priority })
}

/// Walks the candidates of each market, cheapest or first in priority first.
fn choose(capacity: &std::sync::Mutex<Capacity>, call: &Call, candidates: &[Candidate]) -> Choice {
    let number = |key: &str| call.parameter(key).and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    let total = number("TargetCapacitySpecification.TotalTargetCapacity");
    let mut spot = number("TargetCapacitySpecification.SpotTargetCapacity");
    let mut on_demand = number("TargetCapacitySpecification.OnDemandTargetCapacity");
    let rest = total.saturating_sub(spot + on_demand);
    match call.parameter("TargetCapacitySpecification.DefaultTargetCapacityType") {
        Some("spot") => spot += rest,
        _ => on_demand += rest,
    }
    let mut capacity = capacity.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut choice = Choice::default();
    for (market, wanted, options) in [(Market::OnDemand, on_demand, "OnDemandOptions"), (Market::Spot, spot, "SpotOptions")] {
        let strategy = call.parameter(&format!("{options}.AllocationStrategy")).unwrap_or_default();
        let mut order: Vec<&Candidate> = candidates.iter().collect();
        order.sort_by(|left, right| rank(left, market, strategy).total_cmp(&rank(right, market, strategy)));
        let part = fill(&mut capacity, &order, market, wanted);
        let filled: usize = part.picks.iter().map(|(_, _, count)| count).sum();
        if filled < number(&format!("{options}.MinTargetCapacity")) {
            for (candidate, market, count) in &part.picks {
                (0..*count).for_each(|_| capacity.give_back(&candidate.instance_type, &candidate.zone, *market));
            }
        } else {
            choice.picks.extend(part.picks);
        }
        choice.refusals.extend(part.refusals);
    }
    choice
}

fn rank(candidate: &Candidate, market: Market, strategy: &str) -> f64 {
    if strategy.contains("prioritized") {
        return candidate.priority;
    }
    INSTANCE_TYPES.get(&candidate.instance_type).map_or(f64::MAX, |kind| kind.price(market, &candidate.zone))
}

fn fill(capacity: &mut Capacity, order: &[&Candidate], market: Market, wanted: usize) -> Choice {
    let mut choice = Choice::default();
    let mut missing = wanted;
    for candidate in order {
        let mut count = 0;
        while missing > 0 {
            if let Err(code) = capacity.take(&candidate.instance_type, &candidate.zone, market) {
                choice.refusals.push(((*candidate).clone(), market, code));
                break;
            }
            count += 1;
            missing -= 1;
        }
        if count > 0 {
            choice.picks.push(((*candidate).clone(), market, count));
        }
    }
    choice
}

async fn run(upstream: &Upstream, call: &Call, candidate: &Candidate, market: Market, count: usize, token: &str) -> Result<Answer> {
    let mut parameters = BTreeMap::from([
        ("InstanceType".to_owned(), candidate.instance_type.clone()),
        ("SubnetId".to_owned(), candidate.subnet.clone()),
        ("MinCount".to_owned(), count.to_string()),
        ("MaxCount".to_owned(), count.to_string()),
        ("ClientToken".to_owned(), token.to_owned()),
    ]);
    parameters.extend(candidate.template.iter().map(|(key, value)| (format!("LaunchTemplate.{key}"), value.clone())));
    if market == Market::Spot {
        parameters.insert("InstanceMarketOptions.MarketType".to_owned(), "spot".to_owned());
    }
    for index in 1.. {
        let specification = call.under(&format!("TagSpecification.{index}."));
        match specification.get("ResourceType").map(String::as_str) {
            None => break,
            Some("instance") => {
                parameters.extend(specification.into_iter().map(|(key, value)| (format!("TagSpecification.1.{key}"), value)));
            }
            Some(_) => {}
        }
    }
    upstream.ec2("RunInstances", &parameters).await
}

fn instance_ids(answer: &Answer) -> Result<Vec<String>> {
    let root = Element::parse(&answer.text())?;
    let ids: Vec<String> = root.items("instancesSet").iter().map(|item| item.at(&["instanceId"]).to_owned()).collect();
    if ids.is_empty() || ids.iter().any(String::is_empty) {
        bail!("RunInstances answered without instances: {}", answer.text());
    }
    Ok(ids)
}

fn fleet_instance((candidate, market, _): &(Candidate, Market, usize), ids: &[String]) -> Element {
    let ids = ids.iter().map(|id| Element::text("item", id)).collect();
    let mut children = described(candidate, *market);
    children.push(Element::with("instanceIds", ids));
    children.push(Element::text("instanceType", &candidate.instance_type));
    Element::with("item", children)
}

fn fleet_error((candidate, market, code): &(Candidate, Market, String)) -> Element {
    let message = format!("There is no {} capacity for {} in {}.", market.name(), candidate.instance_type, candidate.zone);
    let mut children = described(candidate, *market);
    children.push(Element::text("errorCode", code));
    children.push(Element::text("errorMessage", message));
    Element::with("item", children)
}

fn described(candidate: &Candidate, market: Market) -> Vec<Element> {
    let text = |name: &str, key: &str| candidate.template.get(key).map(|value| Element::text(name, value));
    let names = [("launchTemplateId", "LaunchTemplateId"), ("launchTemplateName", "LaunchTemplateName"), ("version", "Version")];
    let specification = names.into_iter().filter_map(|(name, key)| text(name, key)).collect();
    let overrides = vec![
        Element::text("instanceType", &candidate.instance_type),
        Element::text("subnetId", &candidate.subnet),
        Element::text("availabilityZone", &candidate.zone),
    ];
    let both = vec![Element::with("launchTemplateSpecification", specification), Element::with("overrides", overrides)];
    vec![Element::with("launchTemplateAndOverrides", both), Element::text("lifecycle", market.name())]
}
