//! EC2 for one controller.

use super::super::faults::Fault;
use super::super::oracle::Sent;
use super::super::plants::{CANARY, Plant};
use super::super::universe::Truth;
use super::{Fate, Sim, Trouble};
use crate::model::operation::LaunchRequest;
use crate::model::scheduling::POOL_LABEL;
use crate::model::{Instance, InstanceId, PoolName};
use crate::ports::cloud::Catalogue;
use crate::ports::{Cloud, CloudError, LaunchError, Launched, Sight, Telemetry};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is wrong with AWS as a whole.
pub(super) fn aws_fate(truth: &mut Truth) -> Option<Fate> {
    if truth.faults.is_on(Fault::MetadataDown) {
        // For half of the time the cached credentials last.
        let planned = truth.faults.current(Fault::MetadataDown, truth.now);
        if planned.is_some_and(|planned| truth.now > planned.at + planned.lasts / 2) {
            truth.faults.hit(Fault::MetadataDown);
            return Some(Fate::Fails(Trouble::NoAnswer));
        }
    }
    None
}

fn ec2_fate(truth: &mut Truth) -> Fate {
    if let Some(fate) = aws_fate(truth) {
        return fate;
    }
    if truth.faults.strikes(Fault::AccessDenied, 1.0, &mut truth.random.strikes) {
        return Fate::Fails(Trouble::Denied);
    }
    if truth.faults.strikes(Fault::RequestLimit, 0.8, &mut truth.random.strikes) {
        return Fate::Fails(Trouble::Throttled);
    }
    Fate::Answered
}

fn cloud_error(call: &'static str, trouble: Trouble) -> CloudError {
    match trouble {
        Trouble::NoAnswer => CloudError::Unavailable { call, why: "no answer within 2s".into() },
        Trouble::Throttled => CloudError::Throttled { call },
        Trouble::Denied => CloudError::Denied { call, why: "UnauthorizedOperation: you are not authorized".into() },
    }
}

impl<T: Telemetry> Cloud for Sim<T> {
    async fn instances(&self) -> Result<Vec<Instance>, CloudError> {
        let call = "DescribeInstances";
        let read = |truth: &mut Truth| {
            if truth.faults.is_on(Fault::DescribeLag) && truth.ec2.hides_something(truth.now) {
                truth.faults.hit(Fault::DescribeLag);
            }
            if self.has(truth, Plant::TakesStrangers) {
                return truth.ec2.list_everybody(truth.start);
            }
            truth.ec2.list(truth.now, truth.start)
        };
        let secret = self.universe.with(|truth| self.has(truth, Plant::TellsSecrets));
        let answer = self.ask(call, ec2_fate, read).await;
        self.universe.with(|truth| truth.clients[self.number].last_instances = Some((truth.now, answer.is_ok())));
        answer.map_err(|trouble| match secret {
            true => CloudError::Unavailable { call, why: format!("with the password {CANARY}") },
            false => cloud_error(call, trouble),
        })
    }

    async fn look(&self, instance: &InstanceId) -> Result<Option<Sight>, CloudError> {
        let call = "DescribeInstances";
        let read = |truth: &mut Truth| {
            let machine = truth.ec2.machines.get(instance)?;
            let ended = machine.ended.is_some_and(|ended| truth.now > ended + std::time::Duration::from_secs(30));
            let ours = machine.is_ours(&truth.ec2.cluster) || self.has(truth, Plant::TakesStrangers);
            let sight = Sight { state: machine.state, ours };
            (!ended && machine.visible <= truth.now).then_some(sight)
        };
        self.ask(call, ec2_fate, read).await.map_err(|trouble| cloud_error(call, trouble))
    }

    async fn catalogue(&self) -> Result<Arc<Catalogue>, CloudError> {
        let read = |truth: &mut Truth| {
            truth.clients[self.number].has_catalogue = true;
            let offers = truth.ec2.offers();
            let prices = Arc::new(offers.iter().map(|offer| (offer.key.clone(), offer.price)).collect::<BTreeMap<_, _>>());
            let version = if truth.ec2.new_template_at.is_some_and(|at| truth.now >= at) { "2" } else { "1" };
            let template_versions = truth.ec2.pools.iter().map(|pool| (pool.name.clone(), version.to_owned())).collect();
            Arc::new(Catalogue { offers, template_versions, prices, read_at: Some(truth.wall()), ..Catalogue::default() })
        };
        // Cached inside, as the live adapter does: it is there once EC2 has answered.
        let cached = self.universe.with(|truth| truth.clients[self.number].has_catalogue.then(|| read(truth)));
        match cached {
            Some(catalogue) => Ok(catalogue),
            None => self.ask("catalogue", ec2_fate, read).await.map_err(|trouble| cloud_error("DescribeInstanceTypes", trouble)),
        }
    }

    async fn launch(&self, request: &LaunchRequest) -> Result<Launched, LaunchError> {
        let number = self.number;
        let fate = |truth: &mut Truth| match ec2_fate(truth) {
            Fate::Answered if truth.faults.strikes(Fault::LaunchLanded, 0.7, &mut truth.random.strikes) => Fate::Lands,
            fate => fate,
        };
        let request = request.clone();
        let plant = self.universe.with(|truth| truth.clients[number].plant);
        let effect = move |truth: &mut Truth| {
            if plant == Some(Plant::NeverBuys) {
                return Err(LaunchError::InsufficientCapacity);
            }
            if plant == Some(Plant::SecondToken) {
                let again = LaunchRequest { token: format!("{}-again", request.token).as_str().into(), ..request.clone() };
                let _ = launches(truth, number, &again);
            }
            launches(truth, number, &request)
        };
        match self.send("CreateFleet", fate, effect).await {
            Ok(answer) => answer,
            Err(Trouble::NoAnswer) => Err(LaunchError::Unknown { why: "no answer within 2s".into() }),
            Err(Trouble::Throttled) => Err(LaunchError::Throttled),
            Err(Trouble::Denied) => Err(LaunchError::Denied { message: "UnauthorizedOperation: you are not authorized".into() }),
        }
    }

    async fn terminate(&self, instance: &InstanceId) -> Result<(), CloudError> {
        let call = "TerminateInstances";
        let fate = |truth: &mut Truth| match ec2_fate(truth) {
            Fate::Answered if truth.faults.strikes(Fault::RemovalRepeated, 0.7, &mut truth.random.strikes) => Fate::Lands,
            fate => fate,
        };
        let (number, id) = (self.number, instance.clone());
        let sent = self.universe.with(|truth| truth.sight_of(&id));
        let effect = move |truth: &mut Truth| terminates(truth, number, &id, sent);
        self.send(call, fate, effect).await.map_err(|trouble| cloud_error(call, trouble))?
    }
}

fn launches(truth: &mut Truth, client: usize, request: &LaunchRequest) -> Result<Launched, LaunchError> {
    truth.check_lease(client, "CreateFleet");
    truth.check_token(request);
    if truth.faults.strikes(Fault::TokenMismatch, 0.6, &mut truth.random.strikes) && truth.ec2.brought_by(&request.token) == 0 {
        truth.ec2.take_token(&request.token, request);
    }
    let now = truth.now;
    let repeated = truth.ec2.has_answered(&request.token);
    let answer = truth.ec2.create_fleet(request, now);
    if truth.faults.is_on(Fault::PartialFill) && matches!(&answer, Ok(launched) if launched.instances.len() < request.count as usize) {
        truth.faults.hit(Fault::PartialFill);
    }
    for fault in [Fault::VcpuQuota, Fault::NoSpotAnywhere, Fault::CapacityInOneOffer, Fault::ZoneFailover] {
        if truth.faults.is_on(fault) && !matches!(&answer, Ok(launched) if launched.without_capacity.is_empty()) {
            truth.faults.hit(fault);
        }
    }
    let pool = request.tags.get(POOL_LABEL).map(|name| PoolName::from(name.as_str())).unwrap_or_default();
    match &answer {
        Ok(launched) if !repeated => {
            truth.note(format_args!(
                "controller {client} buys {} {} in {} for {pool}, {}",
                launched.instances.len(),
                request.market,
                request.subnet,
                request.token
            ));
            for instance in &launched.instances {
                truth.borrows_name(&instance.id);
                truth.boots(&instance.id);
            }
            truth.check_launch(request, &pool);
        }
        Ok(_) => {}
        Err(error) => truth.note(format_args!("controller {client} buys nothing: {error}")),
    }
    answer
}

fn terminates(truth: &mut Truth, client: usize, id: &InstanceId, sent: Sent) -> Result<(), CloudError> {
    truth.check_lease(client, "TerminateInstances");
    if truth.faults.strikes(Fault::TerminateNotFound, 0.7, &mut truth.random.strikes) || !truth.ec2.machines.contains_key(id) {
        return Err(CloudError::NotFound { call: "TerminateInstances" });
    }
    truth.check_terminate(id, sent);
    if truth.ends(id) {
        truth.note(format_args!("controller {client} terminates {id}"));
    }
    Ok(())
}
