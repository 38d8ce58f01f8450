//! `CreateFleet` of type `instant`, and what its answers mean.

use super::super::aws::{Failure, Kind, kind_of};
use super::super::quoted;
use super::super::retry::once;
use crate::model::instance::{CLUSTER_TAG, FIXED_TAGS};
use crate::model::operation::{LaunchRequest, LaunchedInstance};
use crate::model::{InstanceType, Market};
use crate::ports::{LaunchError, Launched};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::create_fleet::builders::CreateFleetFluentBuilder;
use aws_sdk_ec2::types::{
    self as ec2, DefaultTargetCapacityType, FleetLaunchTemplateConfigRequest, FleetLaunchTemplateOverridesRequest,
    FleetLaunchTemplateSpecificationRequest, FleetOnDemandAllocationStrategy, FleetType, OnDemandOptionsRequest, ResourceType,
    SpotAllocationStrategy, SpotOptionsRequest, TagSpecification, TargetCapacitySpecificationRequest,
};
use std::time::Duration;

/// The most instances of one request; EC2's own limit of an instant fleet is higher.
const MOST_INSTANCES: u32 = 1000;

/// Sends the request once.
pub(super) async fn launch(client: &Client, request: &LaunchRequest, deadline: Duration) -> Result<Launched, LaunchError> {
    check(request)?;
    once(deadline, send(client, request)).await.map_err(error).and_then(|answer| outcome(request, answer))
}

/// Refuses what would make an instance that is nobody's, or no instance.
pub(super) fn check(request: &LaunchRequest) -> Result<(), LaunchError> {
    let refused = |message: String| Err(LaunchError::Refused { message });
    if let Some((key, value)) = FIXED_TAGS.into_iter().find(|(key, value)| request.tags.get(*key).map(String::as_str) != Some(*value)) {
        return refused(format!("the request lacks the tag {key}={value}"));
    }
    if request.tags.get(CLUSTER_TAG).is_none_or(String::is_empty) {
        return refused(format!("the request lacks the tag {CLUSTER_TAG}"));
    }
    if request.instance_types.is_empty() || request.count == 0 || request.count > MOST_INSTANCES {
        return refused(format!("the request asks for {} instances of {} types", request.count, request.instance_types.len()));
    }
    Ok(())
}

/// Builds the request. The same [`LaunchRequest`] always gives the same bytes.
pub(super) fn fleet(client: &Client, request: &LaunchRequest) -> CreateFleetFluentBuilder {
    let fleet = client
        .create_fleet()
        .r#type(FleetType::Instant)
        .client_token(request.token.as_str())
        .launch_template_configs(template(request))
        .target_capacity_specification(capacity(request));
    let fleet = match request.market {
        Market::Spot => {
            fleet.spot_options(SpotOptionsRequest::builder().allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized).build())
        }
        // The plan has put the types into order: EC2 is to choose nothing.
        Market::OnDemand => fleet
            .on_demand_options(OnDemandOptionsRequest::builder().allocation_strategy(FleetOnDemandAllocationStrategy::Prioritized).build()),
    };
    [ResourceType::Instance, ResourceType::Volume, ResourceType::Fleet].into_iter().fold(fleet, |fleet, resource| {
        let tags = request.tags.iter().map(|(key, value)| ec2::Tag::builder().key(key).value(value).build()).collect();
        fleet.tag_specifications(TagSpecification::builder().resource_type(resource).set_tags(Some(tags)).build())
    })
}

fn template(request: &LaunchRequest) -> FleetLaunchTemplateConfigRequest {
    let specification = FleetLaunchTemplateSpecificationRequest::builder().version(&request.launch_template_version);
    let specification = if is_template_id(&request.launch_template) {
        specification.launch_template_id(&request.launch_template)
    } else {
        specification.launch_template_name(&request.launch_template)
    };
    let overrides = request.instance_types.iter().zip(0_u32..).map(|(instance_type, place)| {
        let one = FleetLaunchTemplateOverridesRequest::builder()
            .instance_type(ec2::InstanceType::from(instance_type.as_str()))
            .subnet_id(request.subnet.as_str());
        match request.market {
            Market::OnDemand => one.priority(f64::from(place)).build(),
            Market::Spot => one.build(),
        }
    });
    FleetLaunchTemplateConfigRequest::builder()
        .launch_template_specification(specification.build())
        .set_overrides(Some(overrides.collect()))
        .build()
}

fn capacity(request: &LaunchRequest) -> TargetCapacitySpecificationRequest {
    let market = match request.market {
        Market::Spot => DefaultTargetCapacityType::Spot,
        Market::OnDemand => DefaultTargetCapacityType::OnDemand,
    };
    // `check` has bounded the count.
    let count = i32::try_from(request.count).unwrap_or(i32::MAX);
    TargetCapacitySpecificationRequest::builder().total_target_capacity(count).default_target_capacity_type(market).build()
}

/// Tells a launch template's id from its name.
pub(super) fn is_template_id(text: &str) -> bool {
    let digits = text.strip_prefix("lt-").unwrap_or_default();
    (8..=17).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a fleet's answer says, whichever call gave it.
#[derive(Debug, Default)]
struct Answer {
    instances: Vec<LaunchedInstance>,
    errors: Vec<OfferError>,
}

/// Why one of the types brought nothing.
#[derive(Debug)]
struct OfferError {
    instance_type: Option<InstanceType>,
    code: String,
    message: String,
}

/// Sends the request. Where EC2 repeats the answer to a token without its instances, the fleet is asked for them.
async fn send(client: &Client, request: &LaunchRequest) -> Result<Answer, Failure> {
    let output = fleet(client, request).send().await?;
    let mut answer = Answer::default();
    for instance in output.instances() {
        answer.add_instances(instance.instance_ids(), instance.instance_type());
    }
    for error in output.errors() {
        answer.add_error(error.launch_template_and_overrides(), error.error_code(), error.error_message());
    }
    if !answer.instances.is_empty() || !answer.errors.is_empty() {
        return Ok(answer);
    }
    let Some(id) = output.fleet_id() else { return Ok(answer) };
    // The fleet exists, so whatever this call fails with, the outcome is unknown.
    let unknown = |failure: Failure| Failure { kind: Kind::NoAnswer, code: String::new(), why: format!("of fleet {id}: {}", failure.why) };
    let described = client.describe_fleets().fleet_ids(id).send().await.map_err(|error| unknown(error.into()))?;
    for fleet in described.fleets().iter().filter(|fleet| fleet.fleet_id() == Some(id)) {
        for instance in fleet.instances() {
            answer.add_instances(instance.instance_ids(), instance.instance_type());
        }
        for error in fleet.errors() {
            answer.add_error(error.launch_template_and_overrides(), error.error_code(), error.error_message());
        }
    }
    Ok(answer)
}

impl Answer {
    fn add_instances(&mut self, ids: &[String], instance_type: Option<&ec2::InstanceType>) {
        let instance_type = instance_type.map(|it| InstanceType::from(it.as_str())).unwrap_or_default();
        let launched = |id: &String| LaunchedInstance { id: id.as_str().into(), instance_type: instance_type.clone(), node: None };
        self.instances.extend(ids.iter().map(launched));
    }

    fn add_error(&mut self, place: Option<&ec2::LaunchTemplateAndOverridesResponse>, code: Option<&str>, message: Option<&str>) {
        let instance_type = place.and_then(|it| it.overrides()).and_then(|it| it.instance_type()).map(|it| InstanceType::from(it.as_str()));
        let code = code.unwrap_or("no code").to_owned();
        self.errors.push(OfferError { instance_type, message: quoted(&format!("{code}: {}", message.unwrap_or_default())), code });
    }
}

/// What an error code means for the launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    /// The offer has none to give now.
    Capacity,
    /// The account may have no more.
    Quota,
    /// The token is taken.
    Token,
    /// EC2 had too much to do.
    Busy,
    /// Anything else.
    Other,
}

/// The codes of `CreateFleet`, which EC2 documents under "Error codes for the Amazon EC2 API".
fn meaning(code: &str) -> Meaning {
    match code {
        "InsufficientInstanceCapacity"
        | "InsufficientHostCapacity"
        | "InsufficientReservedInstanceCapacity"
        | "InsufficientCapacity"
        | "InsufficientCapacityOnHost"
        | "ReservationCapacityExceeded"
        | "UnfulfillableCapacity"
        | "SpotMaxPriceTooLow"
        // The type is not offered in this zone.
        | "Unsupported" => Meaning::Capacity,
        "MaxSpotInstanceCountExceeded"
        | "MaxSpotFleetRequestCountExceeded"
        | "MaxFleetCountExceeded"
        | "VcpuLimitExceeded"
        | "InstanceLimitExceeded"
        | "VolumeLimitExceeded"
        | "MaxIOPSLimitExceeded" => Meaning::Quota,
        "IdempotentParameterMismatch" | "InvalidClientToken" => Meaning::Token,
        _ if kind_of(code, 200) == Kind::Throttled => Meaning::Busy,
        _ => Meaning::Other,
    }
}

/// Reads the answer. Any instance makes it a success, for that is what counts towards the pool.
///
/// Without one the errors decide, and all of them are final for this token: a repetition
/// would get the same answer. Where a type has no capacity the offers rest, whatever else
/// the other types lack, since a rest of exactly these offers is right for all of them.
/// That EC2 was too busy comes before a refusal: it might have served what it did not get to.
fn outcome(request: &LaunchRequest, answer: Answer) -> Result<Launched, LaunchError> {
    let is = |error: &OfferError, what| meaning(&error.code) == what;
    let mut without_capacity: Vec<InstanceType> = Vec::new();
    for error in answer.errors.iter().filter(|error| is(error, Meaning::Capacity)) {
        let named: Vec<_> = match &error.instance_type {
            Some(instance_type) => vec![instance_type.clone()],
            None if answer.instances.is_empty() => request.instance_types.clone(),
            None => Vec::new(),
        };
        without_capacity.extend(named);
    }
    without_capacity.sort();
    without_capacity.dedup();
    if !answer.instances.is_empty() {
        return Ok(Launched { instances: answer.instances, without_capacity });
    }
    if let Some(error) = answer.errors.iter().find(|error| is(error, Meaning::Token)) {
        tracing::debug!(message = %error.message, "the client token is taken");
        return Err(LaunchError::TokenMismatch);
    }
    if !without_capacity.is_empty() {
        return Err(LaunchError::InsufficientCapacity);
    }
    match answer.errors.into_iter().max_by_key(|error| (is(error, Meaning::Quota), is(error, Meaning::Busy))) {
        Some(error) if is(&error, Meaning::Quota) => Err(LaunchError::Quota { message: error.message }),
        Some(error) if is(&error, Meaning::Busy) => Err(LaunchError::Busy { message: error.message }),
        Some(error) => Err(LaunchError::Refused { message: error.message }),
        None => Err(LaunchError::Unknown { why: "EC2 names neither instances nor errors".to_owned() }),
    }
}

/// Reads the failure of the call as a whole.
pub(super) fn error(failure: Failure) -> LaunchError {
    match meaning(&failure.code) {
        Meaning::Capacity => return LaunchError::InsufficientCapacity,
        Meaning::Quota => return LaunchError::Quota { message: failure.why },
        Meaning::Token => return LaunchError::TokenMismatch,
        Meaning::Busy | Meaning::Other => {}
    }
    match failure.kind {
        Kind::NoAnswer | Kind::Fault => LaunchError::Unknown { why: failure.why },
        Kind::Throttled => LaunchError::Throttled,
        Kind::Denied | Kind::Unsigned => LaunchError::Denied { message: failure.why },
        Kind::Rejected => LaunchError::Refused { message: failure.why },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn request() -> LaunchRequest {
        let mut tags: BTreeMap<String, String> = FIXED_TAGS.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        tags.insert(CLUSTER_TAG.into(), "prod".into());
        LaunchRequest {
            token: "op-1".into(),
            launch_template: "lt-0123456789abcdef0".into(),
            launch_template_version: "3".into(),
            subnet: "subnet-a".into(),
            market: Market::Spot,
            instance_types: vec!["m5.large".into(), "m6i.large".into()],
            count: 2,
            tags,
        }
    }

    fn errors(rows: &[(&str, &str)]) -> Answer {
        let error = |(instance_type, code): &(&str, &str)| OfferError {
            instance_type: (!instance_type.is_empty()).then(|| InstanceType::from(*instance_type)),
            code: (*code).to_owned(),
            message: format!("{code}: words"),
        };
        Answer { instances: Vec::new(), errors: rows.iter().map(error).collect() }
    }

    #[test]
    fn a_request_without_every_fixed_tag_is_never_sent() {
        assert_eq!(check(&request()), Ok(()));
        for tag in ["Project", "ManagedBy", "Role", CLUSTER_TAG] {
            let mut bare = request();
            bare.tags.remove(tag);
            assert!(matches!(check(&bare), Err(LaunchError::Refused { message }) if message.contains(tag)));
        }
        for (count, types) in [(0, request().instance_types), (1001, request().instance_types), (1, Vec::new())] {
            assert!(check(&LaunchRequest { count, instance_types: types, ..request() }).is_err());
        }
    }

    #[tokio::test]
    async fn a_request_carries_its_token_asks_for_an_instant_fleet_and_tags_all_that_it_makes() {
        let sdk = aws_config::SdkConfig::builder()
            .behavior_version(aws_config::BehaviorVersion::latest())
            .region(aws_config::Region::new("us-east-1"))
            .build();
        let request = request();
        let sent = fleet(&Client::new(&sdk), &request);
        let sent = sent.as_input();
        assert_eq!(sent.get_client_token().as_deref(), Some("op-1"));
        assert_eq!(sent.get_type(), &Some(FleetType::Instant));
        let tagged = sent.get_tag_specifications().as_deref().unwrap_or_default();
        let resources: Vec<_> = tagged.iter().map(TagSpecification::resource_type).collect();
        assert_eq!(resources, [Some(&ResourceType::Instance), Some(&ResourceType::Volume), Some(&ResourceType::Fleet)]);
        for specification in tagged {
            let pairs = specification.tags().iter().filter_map(|tag| Some((tag.key()?.to_owned(), tag.value()?.to_owned())));
            assert_eq!(pairs.collect::<BTreeMap<_, _>>(), request.tags);
        }
    }

    #[test]
    fn the_order_of_the_types_is_ec2s_priority_on_demand_and_no_ones_on_spot() {
        let on_demand = template(&LaunchRequest { market: Market::OnDemand, ..request() });
        assert_eq!(
            on_demand.overrides().iter().map(aws_sdk_ec2::types::FleetLaunchTemplateOverridesRequest::priority).collect::<Vec<_>>(),
            [Some(0.0), Some(1.0)]
        );
        assert!(template(&request()).overrides().iter().all(|it| it.priority().is_none() && it.subnet_id() == Some("subnet-a")));
    }

    #[test]
    fn a_template_is_named_by_id_or_by_name() {
        let named = template(&LaunchRequest { launch_template: "lt-workers".into(), ..request() });
        assert_eq!(named.launch_template_specification().and_then(|it| it.launch_template_name()), Some("lt-workers"));
        let by_id = template(&request());
        assert_eq!(by_id.launch_template_specification().and_then(|it| it.launch_template_id()), Some("lt-0123456789abcdef0"));
    }

    #[test]
    fn a_partial_fill_is_a_success_that_says_what_was_missing() {
        let mut answer = errors(&[("m6i.large", "InsufficientInstanceCapacity"), ("", "InsufficientInstanceCapacity")]);
        answer.add_instances(&["i-1".to_owned()], Some(&ec2::InstanceType::M5Large));
        let launched = outcome(&request(), answer).expect("one instance");
        assert_eq!(launched.instances, [LaunchedInstance { id: "i-1".into(), instance_type: "m5.large".into(), node: None }]);
        assert_eq!(launched.without_capacity, ["m6i.large".into()]);
    }

    #[test]
    fn errors_without_an_instance_are_named_by_what_follows() {
        let of = |rows: &[(&str, &str)]| outcome(&request(), errors(rows)).expect_err("no instance");
        assert_eq!(of(&[("m5.large", "InsufficientInstanceCapacity")]), LaunchError::InsufficientCapacity);
        assert_eq!(of(&[("m5.large", "Unsupported"), ("m6i.large", "VcpuLimitExceeded")]), LaunchError::InsufficientCapacity);
        assert_eq!(of(&[("", "UnfulfillableCapacity")]), LaunchError::InsufficientCapacity);
        assert!(matches!(
            of(&[("m5.large", "InvalidParameter"), ("m6i.large", "MaxSpotInstanceCountExceeded")]),
            LaunchError::Quota { .. }
        ));
        for spent in ["UnauthorizedOperation", "ExpiredToken", "InvalidParameter"] {
            assert!(matches!(of(&[("m5.large", spent)]), LaunchError::Refused { .. }), "{spent}: the token is spent");
        }
        for busy in ["RequestLimitExceeded", "EC2ThrottledException", "Throttling"] {
            let expected = LaunchError::Busy { message: format!("{busy}: words") };
            assert_eq!(of(&[("m5.large", busy)]), expected);
            assert_eq!(of(&[("m5.large", busy), ("m6i.large", "InvalidParameter")]), expected);
        }
        assert!(matches!(of(&[("m5.large", "RequestLimitExceeded"), ("m6i.large", "VcpuLimitExceeded")]), LaunchError::Quota { .. }));
        assert!(matches!(of(&[]), LaunchError::Unknown { .. }));
    }

    #[test]
    fn a_failed_call_is_repeated_only_when_that_can_help() {
        let of = |code: &str, status| error(Failure::service(code, "words", status));
        assert_eq!(of("RequestLimitExceeded", 503), LaunchError::Throttled);
        assert_eq!(of("IdempotentParameterMismatch", 400), LaunchError::TokenMismatch);
        assert_eq!(of("InsufficientInstanceCapacity", 500), LaunchError::InsufficientCapacity);
        assert!(matches!(of("VcpuLimitExceeded", 400), LaunchError::Quota { .. }));
        assert!(matches!(of("InternalError", 500), LaunchError::Unknown { .. }));
        assert!(matches!(of("UnauthorizedOperation", 403), LaunchError::Denied { .. }), "an earlier sending may have landed");
        assert!(matches!(of("ExpiredToken", 400), LaunchError::Denied { .. }));
        assert!(matches!(of("InvalidLaunchTemplateId.NotFound", 400), LaunchError::Refused { .. }));
    }
}
