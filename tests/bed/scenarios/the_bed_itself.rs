//! The bed without the daemon: that its parts do what the other scenarios build on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use aws_sdk_ec2::operation::create_fleet::CreateFleetOutput;
use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, Filter, FleetLaunchTemplateConfigRequest, FleetLaunchTemplateOverridesRequest,
    FleetLaunchTemplateSpecificationRequest, FleetType, InstanceType, TargetCapacitySpecificationRequest,
};

use crate::aws::{Aws, tagged};
use crate::bed::{Bed, SERVER_NODE};
use crate::cluster::{ensure_nodes, is_ready, node_condition};
use crate::events;
use crate::exporter::Load;
use crate::offers::Market;
use crate::proxy::Delays;
use crate::proxy::capacity::Offers;
use crate::proxy::faults::{Matcher, When};
use crate::wait::{Seen, until};
use crate::workload::Workload;

const CALLER: &str = "SELFTEST";
const LIMIT: Duration = Duration::from_secs(20);

/// Runs all parts of the self-test.
pub async fn run(bed: &mut Bed) -> Result<()> {
    let aws = bed.aws_as(CALLER);
    let instance = part("client tokens", tokens_make_one_instance(bed, &aws)).await?;
    part("capacity", capacity_runs_out(bed, &aws)).await?;
    part("cut connections", cut_connections_leave_their_effect(bed, &aws)).await?;
    part("delays", new_instances_come_late(bed, &aws)).await?;
    let node = format!("worker-{instance}");
    part("pods and budgets", pods_run_and_budgets_hold(bed, &node)).await?;
    part("metrics", metrics_follow_the_load(bed, &node)).await?;
    part("conditional writes", conditions_hold_in_the_ledger(bed, &aws)).await?;
    part("notices", notices_arrive(bed, &aws)).await?;
    part("termination", a_terminated_instance_leaves_its_node(bed, &aws, &instance)).await?;
    part("reset", nothing_is_left_after_a_reset(bed)).await
}

/// One part, with its time told and its limit.
async fn part<T>(name: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let started = Instant::now();
    let done = tokio::time::timeout(Duration::from_secs(60), work).await.with_context(|| format!("{name}: not over after 60 s"))?;
    let done = done.with_context(|| name.to_owned())?;
    println!("  {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(done)
}

/// A fleet of `count` in both zones.
struct Request {
    token: String,
    count: i32,
    market: DefaultTargetCapacityType,
    types: Vec<InstanceType>,
}

impl Request {
    fn new(token: &str, count: i32) -> Self {
        Self { token: token.to_owned(), count, market: DefaultTargetCapacityType::Spot, types: vec![InstanceType::T3Medium] }
    }

    async fn send(&self, bed: &Bed, aws: &Aws) -> Result<CreateFleetOutput, (String, String)> {
        let mut config = FleetLaunchTemplateConfigRequest::builder().launch_template_specification(
            FleetLaunchTemplateSpecificationRequest::builder()
                .launch_template_id(&bed.account.launch_template_id)
                .version("$Default")
                .build(),
        );
        for kind in &self.types {
            for subnet in bed.account.subnets.values() {
                let one = FleetLaunchTemplateOverridesRequest::builder().instance_type(kind.clone()).subnet_id(subnet);
                config = config.overrides(one.build());
            }
        }
        let capacity = TargetCapacitySpecificationRequest::builder()
            .total_target_capacity(self.count)
            .default_target_capacity_type(self.market.clone())
            .build();
        let tags = [("Role", "k3s-worker"), ("Project", "node-fleet"), ("node-fleet.io/pool", "default")];
        let request = aws.ec2.create_fleet().r#type(FleetType::Instant).client_token(&self.token).launch_template_configs(config.build());
        let answer = request.target_capacity_specification(capacity).tag_specifications(tagged(&tags)).send().await;
        answer.map_err(|error| {
            let code = aws_sdk_ec2::error::ProvideErrorMetadata::code(&error).unwrap_or("none").to_owned();
            (code, format!("{:#}", anyhow::Error::from(error)))
        })
    }
}

fn told((code, text): (String, String)) -> anyhow::Error {
    anyhow::anyhow!("{code}: {text}")
}

fn ids(answer: &CreateFleetOutput) -> Vec<String> {
    answer.instances().iter().flat_map(|set| set.instance_ids().to_vec()).collect()
}

async fn tokens_make_one_instance(bed: &Bed, aws: &Aws) -> Result<String> {
    let request = Request::new("token-1", 1);
    let first = request.send(bed, aws).await.map_err(told)?;
    let made = ids(&first);
    ensure!(made.len() == 1, "one instance was asked for: {first:?}");
    let set = first.instances().first().context("no instance set")?;
    ensure!(set.lifecycle().is_some_and(|lifecycle| lifecycle.as_str() == "spot"), "not spot: {set:?}");
    let second = request.send(bed, aws).await.map_err(told)?;
    ensure!(ids(&second) == made, "the replay made {:?} and not {made:?}", ids(&second));
    let mismatch = Request::new("token-1", 2).send(bed, aws).await.err().map(|(code, _)| code);
    ensure!(mismatch.as_deref() == Some("IdempotentParameterMismatch"), "same token, other parameters: {mismatch:?}");
    ensure!(bed.proxy.launches().len() == 1, "one launch took effect");
    ensure!(bed.proxy.calls_of("CreateFleet").iter().filter(|call| call.replayed).count() == 1, "one replay");

    let filters = [("tag:Role", "k3s-worker"), ("instance-lifecycle", "spot"), ("instance-state-name", "running")];
    let filters = filters.map(|(name, value)| Filter::builder().name(name).values(value).build()).to_vec();
    let found = aws.ec2.describe_instances().set_filters(Some(filters)).send().await?;
    let instance = found.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances).next().context("not described")?;
    let tag = |key: &str| instance.tags().iter().find(|tag| tag.key() == Some(key)).and_then(|tag| tag.value());
    ensure!(tag("Project") == Some("node-fleet") && tag("node-fleet.io/pool") == Some("default"), "tags: {:?}", instance.tags());
    ensure!(instance.instance_type() == Some(&InstanceType::T3Medium), "type: {:?}", instance.instance_type());
    made.into_iter().next().context("no id")
}

async fn capacity_runs_out(bed: &Bed, aws: &Aws) -> Result<()> {
    bed.proxy.limit_capacity(Offers::all().in_zone("us-east-1a"), 1);
    bed.proxy.limit_capacity(Offers::all().on(Market::Spot).in_zone("us-east-1b"), 0);
    let partial = Request::new("partial", 2).send(bed, aws).await.map_err(told)?;
    ensure!(ids(&partial).len() == 1, "one of two was to be had: {partial:?}");
    let codes: Vec<_> = partial.errors().iter().filter_map(aws_sdk_ec2::types::CreateFleetError::error_code).collect();
    ensure!(codes == ["InsufficientInstanceCapacity"; 2], "errors: {codes:?}");
    let none = Request::new("none", 1).send(bed, aws).await.map_err(told)?;
    ensure!(ids(&none).is_empty() && none.errors().len() == 2, "nothing was to be had: {none:?}");
    bed.proxy.unlimited_capacity();
    bed.proxy.faults.fail_next(Matcher::action("CreateFleet").by(CALLER), 1, "VcpuLimitExceeded", 400);
    let refused = Request::new("quota", 1).send(bed, aws).await.err().map(|(code, _)| code);
    ensure!(refused.as_deref() == Some("VcpuLimitExceeded"), "quota: {refused:?}");
    Ok(())
}

async fn cut_connections_leave_their_effect(bed: &Bed, aws: &Aws) -> Result<()> {
    let before = bed.proxy.launches().len();
    bed.proxy.faults.cut_next(Matcher::action("CreateFleet"), When::After);
    let mark = bed.proxy.mark();
    // The client tries again by itself, with the same token.
    let answer = Request::new("cut", 1).send(bed, aws).await.map_err(told)?;
    let calls: Vec<_> = bed.proxy.calls_of("CreateFleet").into_iter().filter(|call| call.number > mark).collect();
    ensure!(calls.len() == 2 && calls[0].cut && calls[1].replayed, "a cut and a replay: {calls:?}");
    ensure!(ids(&answer) == calls[0].instances, "the replay's instance is the first one's");
    ensure!(bed.proxy.launches().len() == before + 1, "one launch took effect");

    let hold = bed.proxy.faults.hold(Matcher::action("CreateFleet"), When::Before);
    let request = Request::new("held", 1);
    let (answer, launches) = tokio::join!(request.send(bed, aws), async {
        let call = hold.reached(LIMIT).await;
        let launches = bed.proxy.launches().len();
        hold.release();
        call.map(|_| launches)
    });
    ensure!(launches? == before + 1, "a held call took effect before its release");
    ensure!(answer.map_err(told)?.instances().len() == 1, "a released call takes effect");
    Ok(())
}

async fn new_instances_come_late(bed: &Bed, aws: &Aws) -> Result<()> {
    bed.proxy.set_delays(Delays { visible: Duration::from_secs(2), running: Duration::from_secs(5) });
    let answer = Request::new("late", 1).send(bed, aws).await.map_err(told)?;
    let id = ids(&answer).pop().context("no instance")?;
    let early = aws.ec2.describe_instances().instance_ids(&id).send().await;
    ensure!(early.is_err(), "a new instance is not to be seen at once");
    for state in ["pending", "running"] {
        until(&format!("{id} to be {state}"), LIMIT, async || {
            let found = aws.ec2.describe_instances().instance_ids(&id).send().await?;
            let instance = found.reservations().iter().flat_map(aws_sdk_ec2::types::Reservation::instances).next();
            let name = instance.and_then(|instance| instance.state()?.name()).map_or("none", |name| name.as_str()).to_owned();
            Ok(if name == state { Seen::Done(()) } else { Seen::NotYet(name) })
        })
        .await?;
    }
    bed.proxy.set_delays(Delays::default());
    Ok(())
}

async fn pods_run_and_budgets_hold(bed: &Bed, node: &str) -> Result<()> {
    bed.cluster.wait_for_node(node, "to be Ready", LIMIT, |node| node.is_some_and(is_ready)).await?;
    let pinned = serde_json::json!({"kubernetes.io/hostname": node});
    let workload = Workload::new("web", 3, "500m", "256Mi").with("nodeSelector", pinned);
    bed.cluster.apply(&workload).await?;
    let pods = bed.cluster.wait_for_running("web", 3, LIMIT).await?;
    bed.cluster.scale("web", 5).await?;
    bed.cluster.wait_for_unschedulable("web", 2, LIMIT).await?;
    bed.cluster.scale("web", 3).await?;
    bed.cluster.wait_for_unschedulable("web", 0, LIMIT).await?;
    bed.cluster.keep_available("web", 3).await?;
    until("the budget to be counted", LIMIT, async || {
        let allowed = bed.cluster.allowed_disruptions("web").await?;
        Ok(if allowed == Some(0) { Seen::Done(()) } else { Seen::NotYet(format!("{allowed:?} allowed")) })
    })
    .await?;
    let name = pods[0].metadata.name.as_deref().unwrap_or_default();
    let refused = bed.cluster.evict(name).await?;
    ensure!(refused == 429, "an eviction against the budget answers {refused}");
    bed.cluster.remove_budget("web").await?;
    until("the eviction to pass", LIMIT, async || {
        let status = bed.cluster.evict(name).await?;
        Ok(if status == 201 || status == 404 { Seen::Done(()) } else { Seen::NotYet(status.to_string()) })
    })
    .await?;
    bed.cluster.wait_for_running("web", 3, LIMIT).await?;
    let daemon = bed.control_plane.daemon_client().await?;
    let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> = kube::Api::namespaced(daemon, "work");
    let forbidden = deployments.delete("web", &kube::api::DeleteParams::default()).await;
    ensure!(matches!(&forbidden, Err(kube::Error::Api(status)) if status.code == 403), "the daemon may delete workloads: {forbidden:?}");
    Ok(())
}

async fn metrics_follow_the_load(bed: &Bed, node: &str) -> Result<()> {
    let query = "1 - avg by (node) (rate(node_cpu_seconds_total{mode=\"idle\"}[10s]))";
    near(bed, query, node, 0.75, "three pods of half a core on two cores").await?;
    bed.exporter.set_load(node, Load::Fixed { cpu: 0.4, memory: 0.6 });
    near(bed, query, node, 0.4, "the load as it was set").await?;
    near(bed, "1 - node_memory_MemAvailable_bytes / node_memory_MemTotal_bytes", node, 0.6, "the memory as it was set").await?;
    let server = bed.prometheus.value_of_node(query, SERVER_NODE).await?;
    ensure!(server.is_some(), "the server has an exporter as well");
    bed.exporter.set_gauge("queue_depth", Some(42.0));
    until("the application's gauge", LIMIT, async || {
        let result = bed.prometheus.query("queue_depth").await?;
        let value = result.first().and_then(|series| series["value"][1].as_str()).unwrap_or("none").to_owned();
        Ok(if value == "42" { Seen::Done(()) } else { Seen::NotYet(value) })
    })
    .await
}

async fn near(bed: &Bed, query: &str, node: &str, expected: f64, what: &str) -> Result<()> {
    until(&format!("{what}: {expected}"), LIMIT, async || {
        let value = bed.prometheus.value_of_node(query, node).await?;
        let is_near = value.is_some_and(|value| (value - expected).abs() < 0.03);
        Ok(if is_near { Seen::Done(()) } else { Seen::NotYet(format!("{value:?}")) })
    })
    .await
}

async fn conditions_hold_in_the_ledger(bed: &Bed, aws: &Aws) -> Result<()> {
    let table = format!("self-test-{}", bed.cluster_id);
    let attribute = AttributeDefinition::builder().attribute_name("key").attribute_type(ScalarAttributeType::S).build()?;
    let key = KeySchemaElement::builder().attribute_name("key").key_type(KeyType::Hash).build()?;
    let create = aws.dynamodb.create_table().table_name(&table).attribute_definitions(attribute).key_schema(key);
    create.billing_mode(BillingMode::PayPerRequest).send().await?;
    let put = || {
        let item = aws.dynamodb.put_item().table_name(&table).item("key", AttributeValue::S("lock".to_owned()));
        item.condition_expression("attribute_not_exists(#k)").expression_attribute_names("#k", "key").send()
    };
    put().await?;
    let second = put().await.err().and_then(|error| error.into_service_error().is_conditional_check_failed_exception().then_some(()));
    ensure!(second.is_some(), "the second conditional write must fail");
    let logged = bed.proxy.calls_of("PutItem");
    ensure!(logged.len() == 2 && logged.iter().all(|call| call.caller == CALLER), "the call log has both: {logged:?}");
    aws.dynamodb.delete_table().table_name(&table).send().await?;
    Ok(())
}

async fn notices_arrive(bed: &Bed, aws: &Aws) -> Result<()> {
    let receive = aws.sqs.receive_message().queue_url(&bed.account.queue_url).wait_time_seconds(10).send();
    let (received, sent) = tokio::join!(receive, async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        bed.notify(&events::spot_interruption("i-0")).await
    });
    sent?;
    let received = received?;
    let message = received.messages().first().context("no message")?;
    let body = message.body().unwrap_or_default();
    ensure!(body.contains("EC2 Spot Instance Interruption Warning"), "the message is {body}");
    ensure!(bed.pending_notices().await? == 1, "the message is in the queue until it is deleted");
    let receipt = message.receipt_handle().unwrap_or_default();
    aws.sqs.delete_message().queue_url(&bed.account.queue_url).receipt_handle(receipt).send().await?;
    ensure!(bed.pending_notices().await? == 0, "the message is deleted");
    Ok(())
}

async fn a_terminated_instance_leaves_its_node(bed: &Bed, aws: &Aws, instance: &str) -> Result<()> {
    let node = format!("worker-{instance}");
    bed.cluster.make_unready(&node).await?;
    bed.cluster.wait_for_node(&node, "not to be Ready", LIMIT, |node| node.is_some_and(|node| !is_ready(node))).await?;
    bed.cluster.make_ready(&node).await?;
    bed.cluster.wait_for_node(&node, "to be Ready again", LIMIT, |node| node.is_some_and(is_ready)).await?;
    aws.ec2.terminate_instances().instance_ids(instance).send().await?;
    let is_unknown =
        |node: Option<&k8s_openapi::api::core::v1::Node>| node.and_then(|node| node_condition(node, "Ready")) == Some("Unknown");
    bed.cluster.wait_for_node(&node, "to be Unknown", LIMIT, is_unknown).await?;
    bed.cluster.delete_node(&node).await?;
    bed.cluster.wait_for_node(&node, "to be gone", LIMIT, |node| node.is_none()).await
}

async fn nothing_is_left_after_a_reset(bed: &mut Bed) -> Result<()> {
    bed.reset().await?;
    ensure_nodes(&bed.cluster.nodes().await?, &[SERVER_NODE])?;
    ensure!(bed.joiner.living_workers().await?.is_empty(), "workers are left");
    ensure!(bed.joiner.instances().await?.len() == 1, "only the server's instance is there");
    ensure!(bed.proxy.calls().is_empty() && bed.pending_notices().await? == 0, "calls or notices are left");
    Ok(())
}
