//! `node-fleet run`: the daemon, put together.

mod outlets;
mod reload;
mod supervisor;
mod token;

use super::{read, settings};
use crate::adapters::aws;
use crate::adapters::cron::Ticks;
use crate::adapters::live::Live;
use crate::adapters::secrets_manager::Secrets;
use crate::adapters::system_clock::{SystemClock, SystemEntropy};
use crate::config::Config;
use crate::control::status::{COMMANDS_WAITING, Handle, Status};
use crate::control::{Controller, Inputs, Leadership, lease, notices};
use crate::http::{self, AdminSocket, Pulse, Surface};
use crate::observability::{self, Instruments};
use crate::ports::{Clock, Entropy};
use anyhow::{Context, anyhow};
use aws_config::SdkConfig;
use outlets::{Outlets, Parts};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{error, info};

/// systemd is told that the daemon stops, and it has ended this long after.
const STOP_LIMIT: Duration = Duration::from_millis(9500);

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
    let (status, shown) = watch::channel(Arc::new(Status::first(&config.cluster.id, &owner, SystemClock::new().now())));
    let (instruments, render) = observability::metrics(shown.clone(), config.policy.interval);
    // In a task of its own: what it asks for may block its thread, and a signal does not wait for it.
    let mut opening = tokio::spawn(open(config.clone(), instruments));
    let opened = tokio::select! {
        biased;
        _ = terminate.recv() => Err("SIGTERM"),
        _ = interrupt.recv() => Err("SIGINT"),
        opened = &mut opening => Ok(opened??),
    };
    let Outside { tcp, admin, secrets, sdk, world } = match opened {
        Ok(outside) => outside,
        Err(signal) => {
            info!(signal, "stopping: nothing has been begun");
            supervisor::stopping();
            opening.abort();
            return Ok(());
        }
    };

    let (stop, stopped) = watch::channel(false);
    let (end_lease, lease_ends) = watch::channel(false);
    let (leadership, leads) = watch::channel(Leadership::Unknown);
    let (leading, is_leading) = watch::channel(false);
    let (resign, resignation) = mpsc::channel(1);
    let (delivered, deliveries) = mpsc::channel(notices::DELIVERIES_WAITING);
    let (commanded, commands) = mpsc::channel(COMMANDS_WAITING);
    let (reloaded, reloads) = mpsc::channel(1);
    let (beats, beat) = watch::channel(0_u64);
    let (outlet_states, outlets_seen) = watch::channel(BTreeMap::new());
    let (ticks, ticking) = Ticks::start(config.policy.interval).await?;

    let settings = settings(&config, &owner);
    let inputs = Inputs {
        leadership: leads.clone(),
        resign,
        ticks: ticking,
        deliveries,
        commands,
        reloads,
        outlets: outlets_seen,
        stop: stopped.clone(),
    };
    let parts =
        Parts { config: &config, sdk: &sdk, secrets: &secrets, world: &world, owner: &owner, status: &shown, states: outlet_states };
    let outlets = Outlets::start(parts).await?;
    let pulse = Pulse::new(config.policy.interval);
    let mut helpers = JoinSet::new();
    let token_again = Arc::new(Notify::new());
    let token = config.http.token.clone().map(|reference| {
        let (token, watched) = watch::channel(None);
        helpers.spawn(token::keep(secrets, reference, token, Arc::clone(&token_again)));
        watched
    });
    let surface = Surface { handle: Handle { status: shown.clone(), commands: commanded }, pulse: Arc::clone(&pulse), render, token };

    let lease = tokio::spawn(lease::keep(Arc::clone(&world), owner.clone(), settings.lease, leadership, resignation, lease_ends));
    let controller = tokio::spawn(Controller::new(Arc::clone(&world), settings, inputs, status, beats).run());
    let http = tokio::spawn(http::serve(surface, http::Limits::default(), tcp, admin, stopped.clone()));
    helpers.spawn(notices::follow_leadership(leads, leading));
    helpers.spawn(notices::listen(Arc::clone(&world), is_leading, delivered));
    helpers.spawn({
        let (pulse, beat, shown) = (Arc::clone(&pulse), beat.clone(), shown.clone());
        async move { pulse.follow(beat, shown).await }
    });
    helpers.spawn(supervisor::report(beat, shown, pulse));
    let path = path.to_owned();
    helpers.spawn(reload::follow(path, config, owner, Arc::clone(&world), hang_up, token_again, reloaded));

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
        // A standby that waits for the lease does not wait for last words.
        tokio::join!(work.finish_rest(), outlets.finish());
    };
    // Outlets that have not ended by then are dropped: nothing is lost but words.
    let _ = timeout(STOP_LIMIT, stopping).await;
    let in_time = work.has_ended();
    work.helpers.shutdown().await;
    ended?;
    if in_time { Ok(()) } else { Err(anyhow!("not everything ended within {STOP_LIMIT:?}; the journal says where to go on")) }
}

/// Where the daemon meets the outside.
struct Outside {
    tcp: TcpListener,
    admin: Option<AdminSocket>,
    secrets: Arc<Secrets>,
    sdk: SdkConfig,
    world: Arc<Live<Instruments>>,
}

/// Opens what the daemon answers on and finds the ways to the real systems.
async fn open(config: Config, instruments: Instruments) -> anyhow::Result<Outside> {
    let listen = config.http.listen;
    let tcp = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen} (http.listen)"))?;
    let admin = match &config.http.socket {
        Some(path) => Some(AdminSocket::bind(path).await?),
        None => None,
    };
    let sdk = aws::load(&config.cluster.region).await;
    let secrets = Arc::new(Secrets::new(&sdk));
    let world = Arc::new(Live::connect(&config, &sdk, Arc::clone(&secrets), instruments).await?);
    Ok(Outside { tcp, admin, secrets, sdk, world })
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

    fn has_ended(&self) -> bool {
        [&self.lease, &self.controller, &self.http].iter().all(|task| task.is_finished())
    }

    async fn finish_rest(&mut self) {
        for task in [&mut self.lease, &mut self.http] {
            if !task.is_finished() {
                let _ = task.await;
            }
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
