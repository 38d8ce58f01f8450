//! Starts those who tell outside what happens: Slack, CloudWatch, Kubernetes' Events. None of them can end the daemon.

use crate::adapters::cloudwatch::CloudWatch;
use crate::adapters::cron::Ticks;
use crate::adapters::live::Live;
use crate::adapters::secrets_manager::Secrets;
use crate::adapters::slack::Slack;
use crate::adapters::system_clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::control::status::{self, Status};
use crate::model::OperationId;
use crate::observability::outlets::Line;
use crate::observability::{Instruments, chat, figures, notes};
use crate::ports::{Clock, Entropy, Monotonic, World};
use anyhow::Context;
use aws_config::SdkConfig;
use jiff::Timestamp;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

/// A report is told at most so long after it is due.
const LOOK: Duration = Duration::from_secs(10);

/// The machine's clock and randomness.
#[derive(Clone, Copy, Debug)]
struct Machine(SystemClock);

impl Clock for Machine {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Monotonic {
        self.0.monotonic()
    }
}

impl Entropy for Machine {
    fn operation_id(&self) -> OperationId {
        SystemEntropy.operation_id()
    }

    fn record_version(&self) -> String {
        SystemEntropy.record_version()
    }

    fn fraction(&self) -> f64 {
        SystemEntropy.fraction()
    }
}

/// What the outlets are made of.
pub(super) struct Parts<'a> {
    pub config: &'a Config,
    pub sdk: &'a SdkConfig,
    pub secrets: &'a Arc<Secrets>,
    pub world: &'a Arc<Live<Instruments>>,
    pub owner: &'a str,
    pub status: &'a watch::Receiver<Arc<Status>>,
    pub states: watch::Sender<status::Outlets>,
}

/// The outlets that are configured.
pub(super) struct Outlets {
    tasks: JoinSet<()>,
    hush: watch::Sender<bool>,
    /// Says when to look whether a report is due.
    looks: Option<Ticks>,
}

impl Outlets {
    /// Starts them. Each hears of what happens from now on.
    ///
    /// # Errors
    /// When one of them is configured and cannot be made.
    pub(super) async fn start(parts: Parts<'_>) -> anyhow::Result<Self> {
        let (hush, hushed) = watch::channel(false);
        let mut outlets = Self { tasks: JoinSet::new(), hush, looks: None };
        let instruments = parts.world.telemetry();
        let machine = Machine(SystemClock::new());
        let line = |name| Line::new(name, instruments.clone(), parts.states.clone());
        if let Some(webhook) = &parts.config.slack.webhook {
            let slack = Slack::new(webhook.clone(), Arc::clone(parts.secrets)).context("[slack]")?;
            let (looks, ticks) = Ticks::start(LOOK).await.context("[slack]")?;
            outlets.looks = Some(looks);
            let status = parts.status.clone();
            let sources = chat::Sources { happenings: instruments.happenings(), status, ticks, stop: hushed.clone() };
            let (cluster, config) = (parts.config.cluster.id.clone(), parts.config.slack.clone());
            outlets.spawn("slack", &parts.states, chat::keep(cluster, config, slack, machine, line("slack"), sources));
        }
        if parts.config.cloudwatch.enabled {
            let store = CloudWatch::new(parts.sdk, parts.config).context("[cloudwatch]")?;
            let sources = figures::Sources { happenings: instruments.happenings(), status: parts.status.clone(), stop: hushed.clone() };
            let (interval, evaluation) = (parts.config.cloudwatch.interval, parts.config.policy.interval);
            outlets.spawn("cloudwatch", &parts.states, figures::keep(interval, evaluation, store, machine, line("cloudwatch"), sources));
        }
        if parts.config.kubernetes.events {
            let board = parts.world.cluster().events(parts.owner);
            outlets.spawn("events", &parts.states, notes::keep(board, machine, line("events"), instruments.happenings(), hushed));
        }
        Ok(outlets)
    }

    /// Runs one; should it fail, the log and the status say so, and everything else goes on.
    fn spawn(&mut self, name: &'static str, states: &watch::Sender<status::Outlets>, task: impl Future<Output = ()> + Send + 'static) {
        let (task, states) = (tokio::spawn(task), states.clone());
        self.tasks.spawn(async move {
            if let Err(failure) = task.await {
                error!(outlet = name, error = %failure, "nothing more is told by this outlet; a restart brings it back");
                states.send_modify(|states| drop(states.insert(name, Err(format!("it has failed: {failure}; restart the daemon")))));
            }
        });
    }

    /// Lets them say their last words, which are bounded.
    pub(super) async fn finish(mut self) {
        self.hush.send_replace(true);
        if let Some(looks) = self.looks.take() {
            looks.stop().await;
        }
        while self.tasks.join_next().await.is_some() {}
    }
}
