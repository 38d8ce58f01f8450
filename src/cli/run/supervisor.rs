//! What systemd is told: ready, alive, what is going on, stopping.

use crate::control::status::{Role, Status};
use crate::http::Pulse;
use sd_notify::NotifyState;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, interval};
use tracing::debug;

/// How often the status line is refreshed, where it has changed.
const STATUS_PERIOD: Duration = Duration::from_secs(2);

/// Says READY once the loop turns, feeds the watchdog for as long as all is well with it, and keeps the status line.
pub(super) async fn report(mut beat: watch::Receiver<u64>, status: watch::Receiver<Arc<Status>>, pulse: Arc<Pulse>) {
    if beat.changed().await.is_err() {
        return;
    }
    tell(&[NotifyState::Ready]);
    let feeding = sd_notify::watchdog_enabled().map(|limit| limit / 3);
    let mut fed = Instant::now();
    let mut line = String::new();
    let mut status_due = interval(STATUS_PERIOD);
    loop {
        tokio::select! {
            // Only the controller's loop feeds the watchdog, and not while it goes round in vain.
            beaten = beat.changed() => match beaten {
                Ok(()) => {
                    if feeding.is_some_and(|period| fed.elapsed() >= period) && pulse.complaint().is_none() {
                        tell(&[NotifyState::Watchdog]);
                        fed = Instant::now();
                    }
                }
                Err(_) => return,
            },
            _ = status_due.tick() => {
                let now = describe(&status.borrow());
                if now != line {
                    tell(&[NotifyState::Status(&now)]);
                    line = now;
                }
            }
        }
    }
}

/// Says that the daemon stops.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        debug!(%error, "systemd does not listen");
    }
}

/// One line for `systemctl status`.
fn describe(status: &Status) -> String {
    let role = match &status.role {
        Role::Leader { epoch } => format!("leading in epoch {epoch}"),
        Role::Standby { leader: Some(leader) } => format!("standby of {leader}"),
        Role::Standby { leader: None } => "waiting for the lease".to_owned(),
    };
    let pools =
        status.plan.iter().flat_map(|plan| &plan.pools).map(|pool| format!("; {}: {} of {} ready", pool.pool, pool.ready, pool.desired));
    let under_way = status.operations.iter().filter(|operation| !operation.is_over()).count();
    let paused = if status.pause.is_some() { "; paused" } else { "" };
    format!("{role}{}; {under_way} operations under way{paused}", pools.collect::<String>())
}
