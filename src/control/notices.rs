//! Listens for EC2's notices and hands them to the loop, one long poll after another.

use super::lease::Leadership;
use crate::ports::{Delivery, Measurement, NoticeError, Notices, Telemetry, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tracing::warn;

/// How many deliveries may wait for the loop; the queue keeps the rest.
pub const DELIVERIES_WAITING: usize = 64;
/// The first pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause after failures: a notice that has waited for its end has not lost much of its two minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Passes on whether this instance leads, until the lease's keeper is gone.
pub async fn follow_leadership(mut leads: watch::Receiver<Leadership>, leading: watch::Sender<bool>) {
    loop {
        let now = leads.borrow_and_update().grant().is_some();
        leading.send_if_modified(|before| std::mem::replace(before, now) != now);
        if leads.changed().await.is_err() {
            return;
        }
    }
}

/// Receives until `stop` is set. Only a leader takes messages: a standby would hide them from it.
pub async fn listen<W: World>(world: Arc<W>, mut leads: watch::Receiver<bool>, deliveries: mpsc::Sender<Delivery>) {
    let mut pause = FIRST_PAUSE;
    while leads.wait_for(|leads| *leads).await.is_ok() {
        let received = tokio::select! {
            biased;
            changed = leads.wait_for(|leads| !*leads) => {
                if changed.is_err() {
                    return;
                }
                continue;
            }
            received = world.notices().receive() => received,
        };
        match received {
            Ok(messages) => {
                pause = FIRST_PAUSE;
                for message in messages {
                    if deliveries.send(message).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) => {
                let class = match error {
                    NoticeError::Unavailable { .. } => "unavailable",
                    NoticeError::Denied { .. } => "denied",
                };
                warn!(%error, pause_s = pause.as_secs(), "no notices can be received");
                world.telemetry().record(Measurement::PortFailed { port: "sqs", class });
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}
