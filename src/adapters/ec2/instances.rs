//! The instances of this cluster.

use super::super::aws::Failure;
use super::super::retry::retried;
use super::cloud_error;
use crate::model::ids::Epoch;
use crate::model::instance::{CLUSTER_TAG, EPOCH_TAG, FIXED_TAGS, OPERATION_TAG, TEMPLATE_TAG};
use crate::model::scheduling::POOL_LABEL;
use crate::model::{Instance, InstanceId, InstanceState, InstanceType, Market, OperationId, PoolName, SubnetId, Zone};
use crate::ports::{CloudError, Sight};
use aws_sdk_ec2::Client;
use aws_sdk_ec2::types::{self as ec2, Filter, InstanceLifecycleType, InstanceStateName};
use jiff::Timestamp;
use std::time::Duration;
use tracing::warn;

const CALL: &str = "DescribeInstances";
/// The most instances that EC2 gives on a page.
const PAGE: i32 = 1000;
/// The most pages that are read: a fleet of 20,000 is another program's.
const PAGES: u32 = 20;

/// Lists the instances that carry all of the cluster's tags.
///
/// Terminated ones, which EC2 shows for about an hour, are among them: the policy tells by
/// that that an instance is gone, and not merely not shown yet. Each page has the deadline
/// to itself.
pub(super) async fn list(client: &Client, cluster: &str, deadline: Duration) -> Result<Vec<Instance>, CloudError> {
    let filters = filters(cluster);
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    for _ in 0..PAGES {
        let call = async || {
            let request = client.describe_instances().set_filters(Some(filters.clone())).max_results(PAGE);
            request.set_next_token(next.clone()).send().await.map_err(Failure::from)
        };
        let answer = retried(deadline, call).await.map_err(|failure| cloud_error(CALL, failure))?;
        found.extend(answer.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances).filter_map(|it| sound(it, cluster)));
        next = answer.next_token().filter(|token| !token.is_empty()).map(ToOwned::to_owned);
        if next.is_none() {
            found.sort_by(|a, b| a.id.cmp(&b.id));
            found.dedup_by(|a, b| a.id == b.id);
            return Ok(found);
        }
    }
    Err(CloudError::Invalid { call: CALL, why: format!("there are more than {PAGES} pages of instances") })
}

fn filters(cluster: &str) -> Vec<Filter> {
    let tags = FIXED_TAGS.into_iter().chain([(CLUSTER_TAG, cluster)]);
    tags.map(|(key, value)| Filter::builder().name(format!("tag:{key}")).values(value).build()).collect()
}

/// Reads an instance; leaves out, with a warning, one that is foreign or makes no sense.
fn sound(instance: &ec2::Instance, cluster: &str) -> Option<Instance> {
    let doubt = |why: &&str| warn!(instance = instance.instance_id().unwrap_or("without an id"), why, "an instance is left out");
    read(instance, cluster).inspect_err(doubt).ok()
}

fn read(instance: &ec2::Instance, cluster: &str) -> Result<Instance, &'static str> {
    let state = state(instance)?.unwrap_or(InstanceState::Ending);
    let tag = |name: &str| tag(instance, name);
    // The filters have asked for it; what must never be touched is looked at twice.
    if !is_ours(instance, cluster) {
        return Err("it does not carry the cluster's tags");
    }
    let launched = instance.launch_time().ok_or("it has no launch time")?;
    let launched = i32::try_from(launched.subsec_nanos()).ok().and_then(|nanos| Timestamp::new(launched.secs(), nanos).ok());
    Ok(Instance {
        id: instance.instance_id().filter(|id| id.starts_with("i-")).map(InstanceId::from).ok_or("it has no id")?,
        instance_type: instance.instance_type().map(|it| InstanceType::from(it.as_str())).ok_or("it has no type")?,
        zone: instance.placement().and_then(|it| it.availability_zone()).map(Zone::from).ok_or("it has no zone")?,
        subnet: instance.subnet_id().map(SubnetId::from),
        market: match instance.instance_lifecycle() {
            Some(InstanceLifecycleType::Spot) => Market::Spot,
            // Every other lifecycle is paid at a fixed price and has no interruption notice.
            _ => Market::OnDemand,
        },
        state,
        launched: launched.ok_or("its launch time makes no sense")?,
        ended: instance.state_transition_reason().and_then(ended),
        pool: tag(POOL_LABEL).map(PoolName::from),
        operation: tag(OPERATION_TAG).map(OperationId::from),
        epoch: tag(EPOCH_TAG).and_then(|epoch| epoch.parse().ok()).map(Epoch),
        template: tag(TEMPLATE_TAG).map(ToOwned::to_owned),
    })
}

/// Reads when an instance ended or was stopped: EC2 tells in words, `User initiated (2026-03-02 12:30:00 GMT)`.
fn ended(reason: &str) -> Option<Timestamp> {
    let (_, time) = reason.rsplit_once('(')?;
    let time = time.strip_suffix(')')?.strip_suffix(" GMT")?;
    let civil: jiff::civil::DateTime = time.parse().ok()?;
    civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
}

fn tag<'a>(instance: &'a ec2::Instance, name: &str) -> Option<&'a str> {
    instance.tags().iter().find(|tag| tag.key() == Some(name)).and_then(|tag| tag.value())
}

/// Tells whether an instance carries all tags of the cluster's workers.
fn is_ours(instance: &ec2::Instance, cluster: &str) -> bool {
    FIXED_TAGS.into_iter().chain([(CLUSTER_TAG, cluster)]).all(|(key, value)| tag(instance, key) == Some(value))
}

/// Reads an instance's state and whose it is. `Ok(None)` when it is terminated.
pub(super) fn sight(instance: &ec2::Instance, cluster: &str) -> Result<Option<Sight>, &'static str> {
    Ok(state(instance)?.map(|state| Sight { state, ours: is_ours(instance, cluster) }))
}

/// Reads an instance's state. `Ok(None)` when it is terminated.
fn state(instance: &ec2::Instance) -> Result<Option<InstanceState>, &'static str> {
    match instance.state().and_then(|state| state.name()).ok_or("it has no state")? {
        InstanceStateName::Pending => Ok(Some(InstanceState::Pending)),
        InstanceStateName::Running => Ok(Some(InstanceState::Running)),
        InstanceStateName::ShuttingDown => Ok(Some(InstanceState::Ending)),
        InstanceStateName::Stopping | InstanceStateName::Stopped => Ok(Some(InstanceState::Stopped)),
        InstanceStateName::Terminated => Ok(None),
        _ => Err("its state is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_ec2::primitives::DateTime;

    fn tags(pairs: &[(&str, &str)]) -> Vec<ec2::Tag> {
        pairs.iter().map(|(key, value)| ec2::Tag::builder().key(*key).value(*value).build()).collect()
    }

    fn ours() -> Vec<ec2::Tag> {
        let mut all = tags(&FIXED_TAGS);
        all.extend(tags(&[
            (CLUSTER_TAG, "prod"),
            (POOL_LABEL, "general"),
            (OPERATION_TAG, "op-1"),
            (EPOCH_TAG, "7"),
            (TEMPLATE_TAG, "lt-1:3"),
        ]));
        all
    }

    fn instance(state: InstanceStateName, tags: Vec<ec2::Tag>) -> ec2::Instance {
        ec2::Instance::builder()
            .instance_id("i-0123456789abcdef0")
            .instance_type("m5.large".into())
            .placement(ec2::Placement::builder().availability_zone("eu-central-1a").build())
            .instance_lifecycle(InstanceLifecycleType::Spot)
            .launch_time(DateTime::from_secs(1_700_000_000))
            .state(ec2::InstanceState::builder().name(state).build())
            .set_tags(Some(tags))
            .build()
    }

    #[test]
    fn an_instance_is_read_with_what_its_tags_say() {
        let read = read(&instance(InstanceStateName::Running, ours()), "prod").expect("sound");
        assert_eq!((read.market, read.state, read.epoch), (Market::Spot, InstanceState::Running, Some(Epoch(7))));
        assert_eq!((read.pool, read.operation), (Some("general".into()), Some("op-1".into())));
        assert_eq!(read.template.as_deref(), Some("lt-1:3"));
        assert_eq!(read.launched.as_second(), 1_700_000_000);
    }

    #[test]
    fn states_are_read_as_what_they_mean_for_the_pool() {
        let state = |name| super::state(&instance(name, Vec::new()));
        assert_eq!(state(InstanceStateName::ShuttingDown), Ok(Some(InstanceState::Ending)));
        assert_eq!(state(InstanceStateName::Stopping), Ok(Some(InstanceState::Stopped)));
        assert_eq!(state(InstanceStateName::Terminated), Ok(None));
        assert!(state(InstanceStateName::from("melting")).is_err());
    }

    #[test]
    fn a_terminated_instance_is_listed_as_at_its_end() {
        let read = read(&instance(InstanceStateName::Terminated, ours()), "prod").expect("sound");
        assert_eq!((read.state, read.counts()), (InstanceState::Ending, false));
    }

    #[test]
    fn the_end_of_an_instance_is_read_from_ec2s_words() {
        let second = |reason| ended(reason).map(jiff::Timestamp::as_second);
        assert_eq!(second("User initiated (2023-11-14 22:13:20 GMT)"), Some(1_700_000_000));
        assert_eq!(second("Server.SpotInstanceTermination (2023-11-14 22:13:20 GMT)"), Some(1_700_000_000));
        for other in ["", "User initiated", "User initiated (yesterday GMT)", "User initiated (2023-11-14 22:13:20)"] {
            assert_eq!(second(other), None, "{other}");
        }
    }

    #[test]
    fn an_instance_without_every_tag_is_not_ours() {
        for missing in 0..4 {
            let mut incomplete = ours();
            incomplete.remove(missing);
            assert!(read(&instance(InstanceStateName::Running, incomplete), "prod").is_err(), "without tag {missing}");
        }
        assert!(read(&instance(InstanceStateName::Running, ours()), "staging").is_err());
    }

    #[test]
    fn an_instance_that_lacks_what_it_must_have_is_left_out() {
        let whole = instance(InstanceStateName::Running, ours());
        let breaks: [fn(&mut ec2::Instance); 6] = [
            |found| found.launch_time = None,
            |found| found.placement = None,
            |found| found.instance_type = None,
            |found| found.state = None,
            |found| found.instance_id = Some("server".into()),
            |found| found.launch_time = Some(DateTime::from_secs(i64::MAX)),
        ];
        assert!(sound(&whole, "prod").is_some());
        for damage in breaks {
            let mut broken = whole.clone();
            damage(&mut broken);
            assert_eq!(sound(&broken, "prod"), None);
        }
    }
}
