//! Prometheus and SQS for one controller.

use super::super::faults::Fault;
use super::super::plants::Plant;
use super::super::prometheus::CORES;
use super::super::universe::Truth;
use super::cloud::aws_fate;
use super::{Fate, Sim, Trouble};
use crate::model::snapshot::{Observed, UtilisationReport};
use crate::model::{Missing, Reading, RuleName};
use crate::ports::{Delivery, Metrics, NoticeError, Notices, Telemetry};
use jiff::Timestamp;
use std::time::Duration;

/// The longest poll: longer than SQS allows, since nothing comes of an empty one.
const POLL: Duration = Duration::from_mins(5);

impl<T: Telemetry> Metrics for Sim<T> {
    async fn utilisation(&self) -> Observed<UtilisationReport> {
        let read = |truth: &mut Truth| {
            let trouble = truth.faults.prometheus(truth.now);
            let (now, wall) = (truth.now, truth.wall());
            let answer = truth.prometheus.utilisation(trouble, wall);
            if truth.faults.is_on(Fault::NetworkBroke) {
                truth.faults.hit(Fault::NetworkBroke);
            }
            truth.clients[self.number].last_utilisation = Some((now, trouble.is_none()));
            if trouble.is_some() && self.has(truth, Plant::MissingIsZero) {
                return truth.prometheus.zeros(wall);
            }
            answer
        };
        match self.ask("query", |_| Fate::Answered, read).await {
            Ok(answer) => answer,
            Err(_) => Observed::Unknown(Missing::Unreachable { why: "no answer within 2s".into() }),
        }
    }

    async fn query(&self, _: &RuleName, query: &str) -> Reading {
        let demand = query == CORES;
        let read = move |truth: &mut Truth| match truth.faults.prometheus(truth.now) {
            Some(_) => Reading::Missing(Missing::Empty),
            None if demand => {
                truth.prometheus.demand().map_or(Reading::Missing(Missing::Empty), |value| Reading::Value { value, sampled: truth.wall() })
            }
            None => Reading::Value { value: truth.prometheus.mean_cpu(), sampled: truth.wall() },
        };
        self.ask("query", |_| Fate::Answered, read).await.unwrap_or(Reading::Missing(Missing::Empty))
    }

    async fn history(&self, _: &str, first: Timestamp, last: Timestamp) -> Result<Vec<(Timestamp, f64)>, Missing> {
        let read = |truth: &mut Truth| match truth.faults.prometheus(truth.now) {
            Some(_) => Err(Missing::Unreachable { why: "no answer within 2s".into() }),
            None => Ok(truth.prometheus.history(first, last)),
        };
        let answer = self.ask("query", |_| Fate::Answered, read).await;
        answer.unwrap_or_else(|_| Err(Missing::Unreachable { why: "no answer within 2s".into() }))
    }
}

fn fate(truth: &mut Truth) -> Fate {
    if let Some(fate) = aws_fate(truth) {
        return fate;
    }
    if truth.faults.strikes(Fault::QueueOutage, 1.0, &mut truth.random.strikes) {
        return Fate::Fails(Trouble::NoAnswer);
    }
    Fate::Answered
}

impl<T: Telemetry> Notices for Sim<T> {
    async fn receive(&self) -> Result<Vec<Delivery>, NoticeError> {
        let deadline = tokio::time::sleep(POLL);
        tokio::pin!(deadline);
        loop {
            let told = self.universe.message.notified();
            let asked = self.ask("receive", fate, |truth| truth.messages.receive(truth.now)).await;
            match asked {
                Err(_) => return Err(NoticeError::Unavailable { call: "ReceiveMessage", why: "no answer within 2s".into() }),
                Ok(messages) if !messages.is_empty() => return Ok(messages),
                Ok(_) => {}
            }
            let hidden = self.universe.with(|truth| truth.messages.next_visible().map(|at| at.saturating_sub(truth.now)));
            let shown = async {
                match hidden {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = told => {}
                () = shown => {}
                () = &mut deadline => return Ok(Vec::new()),
            }
        }
    }

    async fn delete(&self, handle: &str) -> Result<(), NoticeError> {
        let stays = |truth: &mut Truth| {
            if truth.faults.strikes(Fault::UndeletableMessage, 0.8, &mut truth.random.strikes) {
                Fate::Fails(Trouble::NoAnswer)
            } else {
                fate(truth)
            }
        };
        let handle = handle.to_owned();
        let effect = move |truth: &mut Truth| truth.messages.delete(&handle);
        let failed = |_| NoticeError::Unavailable { call: "DeleteMessage", why: "no answer within 2s".into() };
        self.send("delete", stays, effect).await.map_err(failed)
    }
}
