//! One controller with its tasks, as `node-fleet run` puts them together.

use super::super::client::Sim;
use super::super::ice::{Freezable, Ice};
use crate::control::status::{COMMANDS_WAITING, Handle, Status};
use crate::control::{Controller, Inputs, Leadership, Settings, lease, notices};
use crate::ports::{Clock, Telemetry};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};

/// A controller that runs in the embedded world.
pub struct Daemon {
    /// What HTTP would hold of it.
    pub handle: Handle,
    /// Gives it new settings, or says why they are refused.
    pub reload: mpsc::Sender<Result<Settings, String>>,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    end_lease: watch::Sender<bool>,
}

/// What a controller is made of.
pub struct Parts<T> {
    /// Its world.
    pub world: Arc<Sim<T>>,
    /// Its settings.
    pub settings: Settings,
    /// Stops all of it at once.
    pub ice: Arc<Ice>,
    /// Where its status appears.
    pub status: watch::Sender<Arc<Status>>,
}

impl Daemon {
    /// Starts a controller.
    #[must_use]
    pub fn start<T: Telemetry + 'static>(parts: Parts<T>) -> Self {
        let Parts { world, mut settings, ice, status } = parts;
        settings.owner = world.owner();
        let shown = status.subscribe();
        status.send_replace(Arc::new(Status::first(&settings.cluster, &settings.owner, world.now())));
        let (stop, stopped) = watch::channel(false);
        let (end_lease, lease_ends) = watch::channel(false);
        let (leadership, leads) = watch::channel(Leadership::default());
        let (leading, is_leading) = watch::channel(false);
        let (resign, resigned) = mpsc::channel(1);
        let (tick, ticks) = mpsc::channel(1);
        let (delivered, deliveries) = mpsc::channel(notices::DELIVERIES_WAITING);
        let (commanded, commands) = mpsc::channel(COMMANDS_WAITING);
        let (reload, reloads) = mpsc::channel(1);
        let (beat, _) = watch::channel(0);
        // Nobody is outside of this world.
        let (_, outlets) = watch::channel(BTreeMap::new());
        let inputs = Inputs { leadership: leads.clone(), resign, ticks, deliveries, commands, reloads, outlets, stop: stopped };

        let interval = settings.policy.interval;
        let mut tasks = JoinSet::new();
        let mut spawn = |task: Task| tasks.spawn(Freezable::new(Arc::clone(&ice), task));
        spawn(Box::pin(lease::keep(Arc::clone(&world), settings.owner.clone(), settings.lease, leadership, resigned, lease_ends)));
        spawn(Box::pin(Controller::new(Arc::clone(&world), settings, inputs, status, beat).run()));
        spawn(Box::pin(notices::follow_leadership(leads, leading)));
        spawn(Box::pin(notices::listen(world, is_leading, delivered)));
        spawn(Box::pin(ticks_of(interval, tick)));
        Self { handle: Handle { status: shown, commands: commanded }, reload, tasks, stop, end_lease }
    }

    /// Waits until one of its tasks ends by itself.
    ///
    /// # Errors
    /// How it ended, where that was a panic.
    pub async fn ended(&mut self) -> Result<(), JoinError> {
        match self.tasks.join_next().await {
            Some(end) => end,
            None => std::future::pending().await,
        }
    }

    /// Ends it as SIGKILL does: nothing is finished, nothing is given back.
    pub async fn kill(mut self) {
        shut_down(&mut self.tasks).await;
    }

    /// Ends it as SIGTERM does: steps in hand are finished, the lease is given back.
    pub async fn terminate(mut self, limit: Duration) {
        self.stop.send_replace(true);
        tokio::time::sleep(limit).await;
        self.end_lease.send_replace(true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        shut_down(&mut self.tasks).await;
    }
}

/// Ends all tasks. The panic of one goes on here.
pub(super) async fn shut_down(tasks: &mut JoinSet<()>) {
    tasks.abort_all();
    while let Some(end) = tasks.join_next().await {
        pass_on(end);
    }
}

/// Lets a task's panic go on in whoever waits for it.
pub(super) fn pass_on(end: Result<(), JoinError>) {
    if let Err(error) = end
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// The evaluation's clockwork.
async fn ticks_of(interval: Duration, tick: mpsc::Sender<()>) {
    loop {
        tokio::time::sleep(interval).await;
        // One that waits already is as good.
        let _ = tick.try_send(());
    }
}
