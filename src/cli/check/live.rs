//! `node-fleet check --live` and `--create-table`: does the world agree with the configuration?
//!
//! Everything here reads or is a dry run, but for the making of the table.

use crate::adapters::aws;
use crate::adapters::dynamodb::DynamoDb;
use crate::adapters::ec2::Ec2;
use crate::adapters::kubernetes::Kubernetes;
use crate::adapters::pricing::PriceList;
use crate::adapters::prometheus::Prometheus;
use crate::adapters::secrets_manager::Secrets;
use crate::adapters::sqs::Sqs;
use crate::adapters::system_clock::{SystemClock, SystemEntropy};
use crate::config::{Config, PrometheusAuth, SecretRef};
use crate::model::ids::Epoch;
use crate::model::{LaunchRequest, Offer, instance};
use crate::ports::cloud::Catalogue;
use crate::ports::{Cloud, Entropy};
use anyhow::Context;
use aws_config::SdkConfig;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What was looked at, and what is the matter with it.
pub(super) struct Finding {
    /// The system and the thing in it.
    pub what: String,
    /// `Ok` may carry a remark.
    pub outcome: Result<Option<String>, String>,
}

fn finding(what: impl Into<String>, outcome: Result<(), String>) -> Finding {
    Finding { what: what.into(), outcome: outcome.map(|()| None) }
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// Makes the ledger's table, unless it is there.
pub(super) fn create_table(config: &Config) -> anyhow::Result<()> {
    runtime()?.block_on(async {
        let sdk = aws::load(&config.cluster.region).await;
        DynamoDb::new(&sdk, config).create_table().await.with_context(|| format!("the table {} (ledger.table)", config.ledger.table))
    })
}

/// Asks every system for what the daemon will want of it.
pub(super) fn probe(config: &Config) -> anyhow::Result<Vec<Finding>> {
    runtime()?.block_on(async {
        let sdk = aws::load(&config.cluster.region).await;
        let (kubernetes, prometheus, others, offers, prices) = tokio::join!(
            kubernetes(config),
            prometheus(config, &sdk),
            ledger_queue_secrets(config, &sdk),
            ec2(config, &sdk),
            prices(config, &sdk)
        );
        Ok([kubernetes, prometheus, others, offers, prices].into_iter().flatten().collect())
    })
}

async fn kubernetes(config: &Config) -> Vec<Finding> {
    match Kubernetes::unwatched(&config.kubernetes, SystemClock::new()).await {
        Ok(kubernetes) => {
            let permissions = kubernetes.permissions().await;
            permissions.into_iter().map(|(what, granted)| finding(format!("kubernetes: {what}"), granted)).collect()
        }
        Err(error) => vec![finding("kubernetes", Err(error.to_string()))],
    }
}

async fn prometheus(config: &Config, sdk: &SdkConfig) -> Vec<Finding> {
    let what = "prometheus";
    match Prometheus::new(&config.prometheus, Arc::new(Secrets::new(sdk))) {
        Ok(prometheus) => match prometheus.probe().await {
            Ok(()) => vec![finding(what, Ok(()))],
            Err(lines) => lines.into_iter().map(|line| finding(what, Err(line))).collect(),
        },
        Err(error) => vec![finding(what, Err(error.to_string()))],
    }
}

async fn ledger_queue_secrets(config: &Config, sdk: &SdkConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    let outcome = match DynamoDb::new(sdk, config).probe().await {
        Ok(table) if table.expires => Ok(None),
        Ok(_) => Ok(Some("its time to live is off; `check --create-table` turns it on".to_owned())),
        Err(error) => Err(error.to_string()),
    };
    findings.push(Finding { what: format!("dynamodb: table {}", config.ledger.table), outcome });
    if let Some(queue) = &config.notices.queue_url {
        let outcome = Sqs::new(sdk, config).probe().await.map_err(|error| error.to_string());
        findings.push(Finding { what: format!("sqs: {queue}"), outcome });
    }
    let secrets = Secrets::new(sdk);
    for (key, reference) in references(config) {
        let resolved = secrets.resolve(reference).await.map(drop).map_err(|error| error.to_string());
        findings.push(finding(format!("secret: {key}"), resolved));
    }
    findings
}

/// Lists the secrets that the configuration refers to, with their keys.
fn references(config: &Config) -> Vec<(&'static str, &SecretRef)> {
    let prometheus = config.prometheus.auth.as_ref().map(|auth| match auth {
        PrometheusAuth::Basic { password, .. } => ("prometheus.auth.password", password),
        PrometheusAuth::Bearer { token } => ("prometheus.auth.token", token),
    });
    let others = [("http.token", &config.http.token), ("slack.webhook", &config.slack.webhook)];
    let others = others.into_iter().filter_map(|(key, reference)| Some((key, reference.as_ref()?)));
    prometheus.into_iter().chain(others).collect()
}

/// Asks for the price of one type: what is refused for one is refused for all.
async fn prices(config: &Config, sdk: &SdkConfig) -> Vec<Finding> {
    let first = config.pools.iter().flat_map(|pool| &pool.instance_types).next();
    let Some(instance_type) = first.filter(|_| config.prices.read_on_demand) else { return Vec::new() };
    let answer = PriceList::new(sdk, &config.cluster.region).probe(instance_type, config.operations.request_timeout).await;
    let outcome = match answer {
        Ok(Some(price)) => Ok(Some(format!("{instance_type} costs {price} on demand"))),
        Ok(None) => Ok(Some(format!("it has no price of {instance_type} in {}", config.cluster.region))),
        Err(why) => Err(why),
    };
    vec![Finding { what: "pricing: the price list".to_owned(), outcome }]
}

async fn ec2(config: &Config, sdk: &SdkConfig) -> Vec<Finding> {
    let ec2 = Ec2::new(sdk, config);
    let mut findings = vec![finding("ec2: the cluster's instances", ec2.instances().await.map(drop).map_err(|error| error.to_string()))];
    let catalogue = match ec2.catalogue().await {
        Ok(catalogue) => catalogue,
        Err(error) => {
            findings.push(finding("ec2: launch templates, subnets and instance types", Err(error.to_string())));
            return findings;
        }
    };
    for pool in &config.pools {
        let offers: Vec<&Offer> = catalogue.offers.iter().filter(|offer| offer.pool == pool.pool).collect();
        let what = format!("ec2: pool {}", pool.pool);
        if offers.is_empty() {
            findings.push(finding(what, Err("none of its instance types is offered in its subnets' zones".to_owned())));
            continue;
        }
        let mut subnets: BTreeMap<_, Vec<&Offer>> = BTreeMap::new();
        for offer in offers {
            subnets.entry(offer.subnet.clone()).or_default().push(offer);
        }
        for (subnet, offers) in subnets {
            let what = format!("{what}: a launch in {subnet} (dry run)");
            findings.push(finding(what, dry_run(config, &ec2, &catalogue, &offers).await));
        }
    }
    findings
}

/// Asks EC2 whether it would launch the first of the offers.
async fn dry_run(config: &Config, ec2: &Ec2, catalogue: &Catalogue, offers: &[&Offer]) -> Result<(), String> {
    let Some(offer) = offers.first() else { return Ok(()) };
    let Some(pool) = config.pools.iter().find(|pool| pool.pool == offer.pool) else { return Ok(()) };
    let version = pool.launch_template_version.clone().or_else(|| catalogue.template_versions.get(&offer.pool).cloned());
    let version = version.ok_or("the launch template has no default version")?;
    let template = instance::template_tag(&pool.launch_template, &version);
    let token = SystemEntropy.operation_id();
    let request = LaunchRequest {
        launch_template: pool.launch_template.clone(),
        launch_template_version: version,
        subnet: offer.subnet.clone(),
        market: offer.key.market,
        instance_types: vec![offer.key.instance_type.clone()],
        count: 1,
        tags: instance::tags(&config.cluster.id, &offer.pool, &token, Epoch(0), &template),
        token,
    };
    ec2.dry_run(&request).await.map_err(|error| error.to_string())
}
