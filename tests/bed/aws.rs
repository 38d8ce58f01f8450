//! AWS clients through the bed's proxy, and the account that the daemon finds: network, template, queue, secret.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_ec2::types::{InstanceType, RequestLaunchTemplateData, ResourceType, Tag, TagSpecification};
use aws_sdk_sqs::types::QueueAttributeName;
use serde_json::json;

use crate::events;
use crate::offers::{REGION, ZONES};
use crate::proxy::Upstream;

/// Clients that sign with one access key, by which the call log tells callers apart.
#[derive(Clone)]
pub struct Aws {
    pub ec2: aws_sdk_ec2::Client,
    pub dynamodb: aws_sdk_dynamodb::Client,
    pub sqs: aws_sdk_sqs::Client,
    pub secrets: aws_sdk_secretsmanager::Client,
}

impl Aws {
    /// Clients of `endpoint` for one caller.
    pub fn new(endpoint: &str, caller: &str) -> Self {
        let credentials = Credentials::new(caller, "not-a-secret", None, None, "bed");
        let config = SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(endpoint)
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build();
        Self {
            ec2: aws_sdk_ec2::Client::new(&config),
            dynamodb: aws_sdk_dynamodb::Client::new(&config),
            sqs: aws_sdk_sqs::Client::new(&config),
            secrets: aws_sdk_secretsmanager::Client::new(&config),
        }
    }
}

/// What the account has: what a daemon's configuration names.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// One subnet for each zone.
    pub subnets: BTreeMap<String, String>,
    pub launch_template_id: String,
    pub launch_template_name: String,
    pub queue_url: String,
    pub dead_letter_queue_url: String,
    pub secret_name: String,
    /// The instance of the K3s server.
    pub server_instance: String,
}

/// Makes the account in an empty moto.
pub async fn prepare(aws: &Aws, upstream: &Upstream) -> Result<Account> {
    let subnets = network(&aws.ec2).await.context("make the network")?;
    let launch_template_name = "node-fleet-workers".to_owned();
    let launch_template_id = launch_template(&aws.ec2, &launch_template_name).await.context("make the launch template")?;
    let (queue_url, dead_letter_queue_url) = queues(&aws.sqs).await.context("make the queues")?;
    events::route(upstream, &arn(&aws.sqs, &queue_url).await?).await.context("make the rule of the notices")?;
    let secret_name = "node-fleet/prometheus".to_owned();
    let secret = json!({"username": "node-fleet", "password": "correct horse"}).to_string();
    aws.secrets.create_secret().name(&secret_name).secret_string(secret).send().await.context("make the secret")?;
    let subnet = subnets.get(ZONES[0]).context("no subnet")?.clone();
    let server_instance = run_instance(&aws.ec2, &subnet, &[("Role", "k3s-server"), ("Name", "server-1")]).await?;
    Ok(Account { subnets, launch_template_id, launch_template_name, queue_url, dead_letter_queue_url, secret_name, server_instance })
}

/// Runs one on-demand instance with these tags, beside every daemon: a server, or a stranger.
pub async fn run_instance(ec2: &aws_sdk_ec2::Client, subnet: &str, tags: &[(&str, &str)]) -> Result<String> {
    let run = ec2.run_instances().image_id("ami-12c6146b").instance_type(InstanceType::T3Medium).subnet_id(subnet);
    let tagged = (!tags.is_empty()).then(|| vec![tagged(tags)]);
    let run = run.min_count(1).max_count(1).set_tag_specifications(tagged);
    let answer = run.send().await.context("run an instance")?;
    let id = answer.instances().first().and_then(|instance| instance.instance_id()).context("no instance in the answer")?;
    Ok(id.to_owned())
}

/// The tags of an instance to be.
pub fn tagged(tags: &[(&str, &str)]) -> TagSpecification {
    let list = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    TagSpecification::builder().resource_type(ResourceType::Instance).set_tags(Some(list)).build()
}

async fn network(ec2: &aws_sdk_ec2::Client) -> Result<BTreeMap<String, String>> {
    let vpc = ec2.create_vpc().cidr_block("10.20.0.0/16").send().await?;
    let vpc = vpc.vpc().and_then(|vpc| vpc.vpc_id()).context("no VPC in the answer")?.to_owned();
    let mut subnets = BTreeMap::new();
    for (index, zone) in ZONES.iter().enumerate() {
        let block = format!("10.20.{}.0/20", index * 16);
        let made = ec2.create_subnet().vpc_id(&vpc).availability_zone(*zone).cidr_block(block).send().await?;
        let id = made.subnet().and_then(|subnet| subnet.subnet_id()).context("no subnet in the answer")?;
        subnets.insert((*zone).to_owned(), id.to_owned());
    }
    Ok(subnets)
}

async fn launch_template(ec2: &aws_sdk_ec2::Client, name: &str) -> Result<String> {
    let data = RequestLaunchTemplateData::builder().image_id("ami-12c6146b").instance_type(InstanceType::T3Medium).build();
    let made = ec2.create_launch_template().launch_template_name(name).launch_template_data(data).send().await?;
    let id = made.launch_template().and_then(|template| template.launch_template_id()).context("no template in the answer")?;
    Ok(id.to_owned())
}

async fn queues(sqs: &aws_sdk_sqs::Client) -> Result<(String, String)> {
    let dead = sqs.create_queue().queue_name("node-fleet-notices-dead").send().await?;
    let dead = dead.queue_url().context("no queue in the answer")?.to_owned();
    let dead_arn = arn(sqs, &dead).await?;
    let redrive = json!({"deadLetterTargetArn": dead_arn, "maxReceiveCount": 5}).to_string();
    let queue = sqs.create_queue().queue_name("node-fleet-notices").attributes(QueueAttributeName::RedrivePolicy, redrive);
    let queue = queue.attributes(QueueAttributeName::VisibilityTimeout, "30").send().await?;
    Ok((queue.queue_url().context("no queue in the answer")?.to_owned(), dead))
}

async fn arn(sqs: &aws_sdk_sqs::Client, queue: &str) -> Result<String> {
    let attributes = sqs.get_queue_attributes().queue_url(queue).attribute_names(QueueAttributeName::QueueArn).send().await?;
    Ok(attributes.attributes().and_then(|all| all.get(&QueueAttributeName::QueueArn)).context("a queue without ARN")?.clone())
}
