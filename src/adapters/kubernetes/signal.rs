//! A bell that may be rung while nobody listens.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Counts its rings. A ring between two waits ends the next one at once; many count as one.
#[derive(Debug)]
pub(super) struct Signal {
    rung: watch::Sender<u64>,
    heard: AtomicU64,
}

impl Default for Signal {
    fn default() -> Self {
        Self { rung: watch::Sender::new(0), heard: AtomicU64::new(0) }
    }
}

impl Signal {
    /// Rings it.
    pub(super) fn ring(&self) {
        self.rung.send_modify(|rings| *rings += 1);
    }

    /// Waits for a ring that no finished wait has heard. Everyone who waits already hears it, and
    /// a wait that is given up hears nothing.
    pub(super) async fn wait(&self) {
        let heard = self.heard.load(Ordering::Acquire);
        let mut rung = self.rung.subscribe();
        // The sender lives as long as `self`, so the wait ends only with a ring.
        let rings = rung.wait_for(|rings| *rings > heard).await.map_or(heard, |rings| *rings);
        self.heard.fetch_max(rings, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_ring_between_two_waits_is_not_lost() {
        let signal = Signal::default();
        assert!(signal.wait().now_or_never().is_none());
        signal.ring();
        signal.ring();
        assert!(signal.wait().now_or_never().is_some());
        assert!(signal.wait().now_or_never().is_none(), "many rings count as one");
    }

    #[tokio::test]
    async fn everyone_who_waits_hears_it() {
        let signal = Signal::default();
        let ring = async {
            tokio::task::yield_now().await;
            signal.ring();
        };
        tokio::join!(signal.wait(), signal.wait(), ring);
        assert!(signal.wait().now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_wait_that_is_given_up_hears_nothing() {
        let signal = Signal::default();
        let mut given_up = Box::pin(signal.wait());
        assert!((&mut given_up).now_or_never().is_none());
        signal.ring();
        drop(given_up);
        assert!(signal.wait().now_or_never().is_some());
    }
}
