//! The price list and the spot price history, from the recorded prices of the bed.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::answer::Answer;
use super::call::Call;
use super::xml::Element;
use crate::offers::{INSTANCE_TYPES, InstanceType, Market, REGION, ZONES};

/// `GetProducts` of the price list, filtered by instance type.
pub fn products(call: &Call) -> Answer {
    let wanted: Vec<&str> = call
        .parameters
        .iter()
        .filter(|(_, value)| *value == "instanceType")
        .filter_map(|(key, _)| call.parameter(&key.replace(".Field", ".Value")))
        .collect();
    let chosen = INSTANCE_TYPES.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(&name.as_str()));
    let list: Vec<Value> = chosen.map(|(name, kind)| Value::String(product(name, kind).to_string())).collect();
    Answer::json(&json!({"FormatVersion": "aws_v1", "PriceList": list}))
}

fn product(name: &str, kind: &InstanceType) -> Value {
    let dimension = json!({
        "unit": "Hrs", "beginRange": "0", "endRange": "Inf", "appliesTo": [],
        "description": format!("${} per On Demand Linux {name} Instance Hour", kind.on_demand),
        "pricePerUnit": {"USD": format!("{:.10}", kind.on_demand)},
    });
    json!({
        "serviceCode": "AmazonEC2",
        "product": {
            "productFamily": "Compute Instance",
            "sku": name,
            "attributes": {
                "instanceType": name, "regionCode": REGION, "location": "US East (N. Virginia)",
                "operatingSystem": "Linux", "tenancy": "Shared", "capacitystatus": "Used", "preInstalledSw": "NA",
                "vcpu": kind.vcpu.to_string(), "memory": format!("{} GiB", kind.memory_mib / 1024),
            },
        },
        "terms": {"OnDemand": {format!("{name}.JRTCKXETXF"): {"priceDimensions": {format!("{name}.6YS6EN2CT7"): dimension}}}},
    })
}

/// `DescribeSpotPriceHistory`: one price of now for each type and zone.
pub fn spot_history(call: &Call) -> Answer {
    let wanted = call.under("InstanceType.");
    let zone = call.parameter("AvailabilityZone");
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    let mut items = Vec::new();
    for (name, kind) in INSTANCE_TYPES.iter().filter(|(name, _)| wanted.is_empty() || wanted.values().any(|own| own == *name)) {
        for place in ZONES.iter().filter(|place| zone.is_none_or(|own| own == **place)) {
            items.push(Element::with(
                "item",
                vec![
                    Element::text("instanceType", name),
                    Element::text("productDescription", "Linux/UNIX"),
                    Element::text("spotPrice", format!("{:.6}", kind.price(Market::Spot, place))),
                    Element::text("timestamp", &now),
                    Element::text("availabilityZone", *place),
                ],
            ));
        }
    }
    Answer::ec2("DescribeSpotPriceHistory", vec![Element::with("spotPriceHistorySet", items), Element::text("nextToken", "")])
}
