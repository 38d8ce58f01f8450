//! The triggers of the periodic evaluation and of the looks whether a report is due, by `tokio-cron-scheduler`.

use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tracing::warn;

/// The scheduler could not be started.
#[derive(Debug, thiserror::Error)]
#[error("nothing can be scheduled: {0}")]
pub struct CronError(#[from] JobSchedulerError);

/// A running scheduler that sends a trigger every interval.
///
/// The scheduler reckons by the wall clock. When that is set, it would fall silent or
/// make up for hours. So its triggers pass a gate on the monotonic clock, which lets none
/// through before half an interval is over and makes one itself after an interval and a half.
pub struct Ticks {
    scheduler: JobScheduler,
    gate: JoinHandle<()>,
}

impl Ticks {
    /// Starts the scheduler. The first trigger comes after one interval; the scheduler's
    /// steps are whole seconds, so a fraction of one counts as a whole.
    ///
    /// A trigger is dropped while the one before still waits to be taken.
    ///
    /// # Errors
    /// When the scheduler does not start.
    pub async fn start(interval: Duration) -> Result<(Self, mpsc::Receiver<()>), CronError> {
        let interval = Duration::from_secs(interval.as_secs() + u64::from(interval.subsec_nanos() > 0)).max(Duration::from_secs(1));
        let (ring, rings) = mpsc::channel(1);
        let (trigger, triggers) = mpsc::channel(1);
        let job = Job::new_repeated_async(interval, move |_, _| {
            // A full channel means that a trigger waits already.
            let _ = ring.try_send(());
            Box::pin(std::future::ready(()))
        })?;
        let scheduler = JobScheduler::new().await?;
        scheduler.add(job).await?;
        scheduler.start().await?;
        let gate = tokio::spawn(keep_pace(interval, rings, trigger));
        Ok((Self { scheduler, gate }, triggers))
    }

    /// Stops the triggers.
    pub async fn stop(mut self) {
        self.gate.abort();
        if let Err(error) = self.scheduler.shutdown().await {
            warn!(%error, "the scheduler did not stop");
        }
    }
}

impl std::fmt::Debug for Ticks {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ticks").finish_non_exhaustive()
    }
}

/// Passes the scheduler's rings on, at a pace that the wall clock cannot disturb.
async fn keep_pace(interval: Duration, mut rings: mpsc::Receiver<()>, trigger: mpsc::Sender<()>) {
    let mut last = Instant::now();
    loop {
        tokio::select! {
            biased;
            ring = rings.recv() => {
                if ring.is_none() {
                    return;
                }
                if last.elapsed() < interval / 2 {
                    continue;
                }
            }
            () = tokio::time::sleep_until(last + interval + interval / 2) => {
                warn!("the scheduler is late, since the wall clock was set or the machine is short of time");
            }
        }
        last = Instant::now();
        if let Err(mpsc::error::TrySendError::Closed(())) = trigger.try_send(()) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_mins(2);

    #[tokio::test(start_paused = true)]
    async fn a_silent_scheduler_is_stood_in_for_and_an_eager_one_held_back() {
        let (ring, rings) = mpsc::channel(1);
        let (trigger, mut triggers) = mpsc::channel(1);
        let gate = tokio::spawn(keep_pace(INTERVAL, rings, trigger));
        let start = Instant::now();
        assert_eq!(triggers.recv().await, Some(()));
        assert_eq!(start.elapsed(), INTERVAL * 3 / 2);
        for _ in 0..10 {
            ring.send(()).await.expect("the gate listens");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(triggers.try_recv().is_err(), "rings right after a trigger are dropped");
        tokio::time::sleep(INTERVAL).await;
        ring.send(()).await.expect("the gate listens");
        assert_eq!(triggers.recv().await, Some(()));
        drop(ring);
        gate.await.expect("the gate ends with the scheduler");
    }

    #[tokio::test]
    async fn the_scheduler_rings() {
        let (ticks, mut triggers) = Ticks::start(Duration::from_millis(10)).await.expect("it starts");
        assert_eq!(triggers.recv().await, Some(()));
        ticks.stop().await;
        assert_eq!(triggers.recv().await, None);
    }
}
