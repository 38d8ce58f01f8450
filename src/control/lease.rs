//! The lease: one instance acts, and knows when it no longer may.
//!
//! No wall clock is compared. A rival waits a whole lease on its own monotonic clock
//! without seeing the record change; the holder trusts only half of it, counted from the
//! moment before its last successful heartbeat was sent.

use super::settings::Lease as Times;
use crate::ports::{Claim, Clock, Entropy, Grant, Ledger, LedgerError, LockRecord, Measurement, Monotonic, Telemetry, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// A request is not sent when less than this is left of the lease beyond its own deadline.
const MARGIN: Duration = Duration::from_millis(500);

/// Who acts, as far as this instance knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// Another instance does.
    Standby {
        /// Which.
        leader: String,
    },
    /// This one does.
    Leader {
        /// What fences its writes.
        grant: Grant,
        /// When it must stop unless a heartbeat succeeds before.
        valid_until: Monotonic,
    },
}

impl Leadership {
    /// Gives the grant, when this instance leads.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Leader { grant, .. } => Some(grant),
            Self::Unknown | Self::Standby { .. } => None,
        }
    }
}

/// The lease does not last for the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease does not outlast the request")]
pub struct Fenced;

/// What every effect asks before it is sent.
#[derive(Clone, Debug)]
pub struct Fence {
    leadership: watch::Receiver<Leadership>,
}

impl Fence {
    /// Watches the lease.
    #[must_use]
    pub fn new(leadership: watch::Receiver<Leadership>) -> Self {
        Self { leadership }
    }

    /// Allows a request with this deadline, or not.
    ///
    /// # Errors
    /// When this instance does not lead, or not for long enough.
    pub fn permit(&self, clock: &impl Clock, deadline: Duration) -> Result<Grant, Fenced> {
        match &*self.leadership.borrow() {
            Leadership::Leader { grant, valid_until } if clock.monotonic() + deadline + MARGIN < *valid_until => Ok(grant.clone()),
            Leadership::Leader { .. } | Leadership::Standby { .. } | Leadership::Unknown => Err(Fenced),
        }
    }
}

/// Keeps the lease, or waits for it, until `stop` is set; then gives it back.
pub async fn keep<W: World>(world: Arc<W>, owner: String, times: Times, state: watch::Sender<Leadership>, mut stop: watch::Receiver<bool>) {
    let mut keeper = Keeper { world, owner, times, state, watched: None };
    loop {
        let pause = keeper.turn().await;
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    keeper.release().await;
}

/// A rival's record and since when it has not changed.
struct Watched {
    version: String,
    since: Monotonic,
}

struct Keeper<W: World> {
    world: Arc<W>,
    owner: String,
    times: Times,
    state: watch::Sender<Leadership>,
    watched: Option<Watched>,
}

impl<W: World> Keeper<W> {
    /// Makes one step and gives the time until the next.
    async fn turn(&mut self) -> Duration {
        let leadership = self.state.borrow().clone();
        match leadership {
            Leadership::Leader { grant, valid_until } => self.renew(&grant, valid_until).await,
            Leadership::Standby { .. } | Leadership::Unknown => self.rival().await,
        }
    }

    async fn renew(&mut self, grant: &Grant, valid_until: Monotonic) -> Duration {
        let before = self.world.clock().monotonic();
        let version = self.world.entropy().record_version();
        match self.world.ledger().heartbeat(grant, &version, self.world.clock().now()).await {
            Ok(()) => {
                self.lead(grant.clone(), before);
                self.times.heartbeat
            }
            Err(LedgerError::LeaseLost | LedgerError::Conflict) => {
                warn!(epoch = %grant.epoch, "the lease is lost");
                self.state.send_replace(Leadership::Standby { leader: "another instance".into() });
                self.watched = None;
                self.times.heartbeat
            }
            Err(error) => {
                let left = valid_until.since(self.world.clock().monotonic());
                warn!(%error, left_ms = left.as_millis(), "the heartbeat failed");
                self.failed(&error);
                self.times.heartbeat / 3
            }
        }
    }

    fn lead(&self, grant: Grant, since: Monotonic) {
        self.state.send_replace(Leadership::Leader { grant, valid_until: since + self.times.duration / 2 });
    }

    async fn rival(&mut self) -> Duration {
        match self.world.ledger().lock().await {
            Ok(None) => self.take(None).await,
            Ok(Some(record)) => match self.expired(&record) {
                true => self.take(Some(record.version)).await,
                false => self.follow(&record),
            },
            Err(error) => {
                warn!(%error, "the lock cannot be read");
                self.failed(&error);
                self.times.heartbeat
            }
        }
    }

    /// Tells whether the record has not changed for a whole lease.
    fn expired(&mut self, record: &LockRecord) -> bool {
        let now = self.world.clock().monotonic();
        match &self.watched {
            Some(watched) if watched.version == record.version => now.since(watched.since) >= record.duration.max(self.times.duration),
            Some(_) | None => {
                self.watched = Some(Watched { version: record.version.clone(), since: now });
                false
            }
        }
    }

    fn follow(&self, record: &LockRecord) -> Duration {
        let standby = Leadership::Standby { leader: record.owner.clone() };
        self.state.send_if_modified(|state| {
            let changed = *state != standby;
            if changed {
                *state = standby;
            }
            changed
        });
        // Often enough that the end of a lease is seen soon after it.
        self.times.heartbeat.min(Duration::from_secs(1))
    }

    async fn take(&mut self, replaces: Option<String>) -> Duration {
        let before = self.world.clock().monotonic();
        let claim = Claim {
            owner: self.owner.clone(),
            duration: self.times.duration,
            version: self.world.entropy().record_version(),
            replaces,
            now: self.world.clock().now(),
        };
        match self.world.ledger().acquire(&claim).await {
            Ok(grant) => {
                info!(epoch = %grant.epoch, owner = %self.owner, "the lease is taken");
                self.watched = None;
                self.lead(grant, before);
                self.times.heartbeat
            }
            Err(LedgerError::Conflict | LedgerError::LeaseLost) => {
                self.watched = None;
                self.times.heartbeat.min(Duration::from_secs(1))
            }
            Err(error) => {
                warn!(%error, "the lease cannot be taken");
                self.failed(&error);
                self.times.heartbeat
            }
        }
    }

    fn failed(&self, error: &LedgerError) {
        self.world.telemetry().record(Measurement::PortFailed { port: "dynamodb", class: class(error) });
    }

    async fn release(&self) {
        let grant = self.state.borrow().grant().cloned();
        if let Some(grant) = grant {
            self.state.send_replace(Leadership::Unknown);
            if let Err(error) = self.world.ledger().release(&grant).await {
                warn!(%error, "the lease could not be given back; a standby waits for its end");
            }
        }
    }
}

/// Names the class of a ledger's error, as metrics show it.
#[must_use]
pub fn class(error: &LedgerError) -> &'static str {
    match error {
        LedgerError::LeaseLost => "lease_lost",
        LedgerError::Conflict => "conflict",
        LedgerError::Unavailable { .. } => "unavailable",
        LedgerError::Denied { .. } => "denied",
        LedgerError::Unreadable { .. } => "unreadable",
        LedgerError::NoTable { .. } => "no_table",
    }
}
