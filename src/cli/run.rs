//! `node-fleet run`: the daemon, put together.

mod reload;
mod supervisor;

use super::read;
use crate::adapters::aws;
use crate::adapters::cron::Ticks;
use crate::adapters::live::Live;
use crate::adapters::secrets_manager::Secrets;
use crate::adapters::system_clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::control::status::{COMMANDS_WAITING, Handle, Role, Status};
use crate::control::{self, Controller, Inputs, Leadership, lease, notices};
use crate::http::{self, AdminSocket, Pulse, Surface, Token};
use crate::observability;
use crate::ports::{Clock, Entropy};
use anyhow::{Context, anyhow};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{error, info};

/// systemd is told that the daemon stops, and it has ended this long after.
const STOP_LIMIT: Duration = Duration::from_millis(9500);
/// How long the secret of the HTTP token may take at the start.
const SECRET_LIMIT: Duration = Duration::from_secs(10);

/// Runs until SIGTERM or SIGINT.
pub(super) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let config = match read(path)? {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    observability::log::init(&config.log)?;
    // The daemon waits far more than it computes.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(daemon(path, config));
    // A name lookup that hangs in a thread of its own holds nobody up.
    runtime.shutdown_timeout(Duration::from_millis(100));
    if let Err(why) = &outcome {
        error!(error = format!("{why:#}"), "the daemon ends");
    }
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn daemon(path: &Path, config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hang_up = signal(SignalKind::hangup())?;

    let owner = owner();
    info!(version = env!("CARGO_PKG_VERSION"), cluster = %config.cluster.id, %owner, "starting");
    let (status, shown) = watch::channel(Arc::new(first_status(&config, &owner)));
    let (instruments, render) = observability::metrics(shown.clone());
    let tcp =
        TcpListener::bind(config.http.listen).await.with_context(|| format!("cannot listen on {} (http.listen)", config.http.listen))?;
    let admin = match &config.http.socket {
        Some(path) => Some(AdminSocket::bind(path).await?),
        None => None,
    };

    let sdk = aws::load(&config.cluster.region).await;
    let secrets = Arc::new(Secrets::new(&sdk));
    let token = token(&config, &secrets).await?;
    let world = Arc::new(Live::connect(&config, &sdk, secrets, instruments).await?);

    let (stop, stopped) = watch::channel(false);
    let (end_lease, lease_ends) = watch::channel(false);
    let (leadership, leads) = watch::channel(Leadership::Unknown);
    let (leading, is_leading) = watch::channel(false);
    let (delivered, deliveries) = mpsc::channel(notices::DELIVERIES_WAITING);
    let (commanded, commands) = mpsc::channel(COMMANDS_WAITING);
    let (reloaded, reloads) = mpsc::channel(1);
    let (beats, beat) = watch::channel(0_u64);
    let (ticks, ticking) = Ticks::start(config.policy.interval).await?;

    let settings = settings(&config, &owner);
    let inputs = Inputs { leadership: leads.clone(), ticks: ticking, deliveries, commands, reloads, stop: stopped.clone() };
    let pulse = Pulse::new(config.policy.interval);
    let surface = Surface { handle: Handle { status: shown.clone(), commands: commanded }, pulse: Arc::clone(&pulse), render, token };

    let lease = tokio::spawn(lease::keep(Arc::clone(&world), owner.clone(), settings.lease, leadership, lease_ends));
    let controller = tokio::spawn(Controller::new(Arc::clone(&world), settings, inputs, status, beats).run());
    let http = tokio::spawn(http::serve(surface, http::Limits::default(), tcp, admin, stopped.clone()));
    let mut helpers = JoinSet::new();
    helpers.spawn(tell_leading(leads, leading));
    helpers.spawn(notices::listen(Arc::clone(&world), is_leading, delivered));
    helpers.spawn({
        let (pulse, beat, shown) = (Arc::clone(&pulse), beat.clone(), shown.clone());
        async move { pulse.follow(beat, shown).await }
    });
    helpers.spawn(supervisor::report(beat, shown));
    let path = path.to_owned();
    helpers.spawn(reload::follow(path, config, owner, Arc::clone(&world), hang_up, reloaded));

    let mut work = Work { lease, controller, http, helpers };
    let ended = tokio::select! {
        biased;
        _ = terminate.recv() => Ok("SIGTERM"),
        _ = interrupt.recv() => Ok("SIGINT"),
        why = work.broke() => Err(why),
    };
    match &ended {
        Ok(signal) => info!(signal, "stopping: steps in hand are finished, the lease is given back"),
        Err(why) => error!(error = format!("{why:#}"), "stopping, since a part of the daemon has ended"),
    }
    supervisor::stopping();
    let stopping = async {
        ticks.stop().await;
        stop.send_replace(true);
        // The journal's last entries need the lease.
        work.finish_controller().await;
        end_lease.send_replace(true);
        work.finish_rest().await;
    };
    let in_time = timeout(STOP_LIMIT, stopping).await.is_ok();
    work.helpers.shutdown().await;
    ended?;
    if in_time { Ok(()) } else { Err(anyhow!("not everything ended within {STOP_LIMIT:?}; the journal says where to go on")) }
}

/// The tasks without which there is no daemon.
struct Work {
    lease: JoinHandle<()>,
    controller: JoinHandle<()>,
    http: JoinHandle<()>,
    /// Those that listen and report; they end with what they listen to.
    helpers: JoinSet<()>,
}

impl Work {
    /// Waits until one of them ends, which none does unasked.
    async fn broke(&mut self) -> anyhow::Error {
        let (name, outcome) = tokio::select! {
            outcome = &mut self.lease => ("the lease's keeper", outcome),
            outcome = &mut self.controller => ("the control loop", outcome),
            outcome = &mut self.http => ("the HTTP server", outcome),
            Some(outcome) = self.helpers.join_next() => ("a helper of the control loop", outcome),
        };
        match outcome {
            Ok(()) => anyhow!("{name} has ended"),
            Err(error) => anyhow::Error::from(error).context(format!("{name} has failed")),
        }
    }

    async fn finish_controller(&mut self) {
        if !self.controller.is_finished() {
            let _ = (&mut self.controller).await;
        }
    }

    async fn finish_rest(&mut self) {
        for task in [&mut self.lease, &mut self.http] {
            if !task.is_finished() {
                let _ = task.await;
            }
        }
    }
}

/// Passes on whether this instance leads.
async fn tell_leading(mut leads: watch::Receiver<Leadership>, leading: watch::Sender<bool>) {
    loop {
        let now = leads.borrow_and_update().grant().is_some();
        leading.send_if_modified(|before| std::mem::replace(before, now) != now);
        if leads.changed().await.is_err() {
            return;
        }
    }
}

/// Makes the identity under which this process holds the lease: who it is, for people, and
/// something that no other process ever had, for the ledger.
fn owner() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
    format!("{host}/{}/{}", std::process::id(), SystemEntropy.operation_id())
}

async fn token(config: &Config, secrets: &Secrets) -> anyhow::Result<Option<Arc<Token>>> {
    let Some(reference) = &config.http.token else { return Ok(None) };
    let secret = timeout(SECRET_LIMIT, secrets.resolve(reference)).await.map_err(|_| anyhow!("no answer within {SECRET_LIMIT:?}"));
    let secret = secret.and_then(|resolved| resolved.map_err(Into::into)).context("the token of http.token cannot be had")?;
    let token = Token::new(secret.expose()).context("the token of http.token is empty")?;
    Ok(Some(Arc::new(token)))
}

fn first_status(config: &Config, owner: &str) -> Status {
    Status {
        version: env!("CARGO_PKG_VERSION"),
        cluster: config.cluster.id.clone(),
        owner: owner.to_owned(),
        role: Role::Standby { leader: None },
        started: SystemClock::new().now(),
        last_turn: None,
        turns: 0,
        pause: None,
        plan: None,
        operations: Vec::new(),
        sources: BTreeMap::new(),
        reload_error: None,
        decisions: VecDeque::new(),
    }
}

/// Takes what the control loop needs from the configuration.
fn settings(config: &Config, owner: &str) -> control::Settings {
    let operations = &config.operations;
    let template = |pool: &crate::config::PoolLaunch| control::settings::Template {
        template: pool.launch_template.clone(),
        version: pool.launch_template_version.clone(),
    };
    control::Settings {
        cluster: config.cluster.id.clone(),
        owner: owner.to_owned(),
        policy: config.policy.clone(),
        lease: control::settings::Lease { duration: config.ledger.lease, heartbeat: config.ledger.heartbeat },
        operations: control::settings::Operations {
            request_timeout: operations.request_timeout,
            join_timeout: operations.join_timeout,
            drain_timeout: operations.drain_timeout,
            retry: operations.retry,
            interruption_margin: operations.interruption_margin,
        },
        templates: config.pools.iter().map(|pool| (pool.pool.clone(), template(pool))).collect(),
    }
}
