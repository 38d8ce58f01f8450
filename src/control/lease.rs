//! The lease: one instance acts, and knows when it no longer may.
//!
//! No wall clock is compared. A rival waits a whole lease on its own monotonic clock
//! without seeing the record change; the holder trusts only half of it, counted from the
//! moment before its last successful heartbeat was sent.

use super::settings::Lease as Times;
use crate::model::ids::Epoch;
use crate::ports::{Claim, Clock, Entropy, Grant, Ledger, LedgerError, Lock, LockRecord, Measurement, Monotonic, Telemetry, World};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
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
        /// When it must stop unless a heartbeat succeeds before. Kept up to date without
        /// waking those who wait for a change.
        valid_until: Monotonic,
    },
    /// This one did, and no heartbeat has succeeded in time. It does nothing until one does,
    /// or until it is known that another instance leads.
    Lapsed {
        /// What it would act under again.
        grant: Grant,
    },
}

impl Leadership {
    /// Gives the grant, when this instance leads.
    #[must_use]
    pub fn grant(&self) -> Option<&Grant> {
        match self {
            Self::Leader { grant, .. } => Some(grant),
            Self::Unknown | Self::Standby { .. } | Self::Lapsed { .. } => None,
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
            Leadership::Leader { .. } | Leadership::Standby { .. } | Leadership::Lapsed { .. } | Leadership::Unknown => Err(Fenced),
        }
    }
}

/// After a resignation another instance has so many leases' time to take over.
const RESIGNED_FOR: u32 = 3;

/// Keeps the lease, or waits for it, until `stop` is set; then gives it back.
///
/// A message on `resign` gives it back at once: this instance cannot use it, and another one might.
pub async fn keep<W: World>(
    world: Arc<W>,
    owner: String,
    times: Times,
    state: watch::Sender<Leadership>,
    mut resign: mpsc::Receiver<()>,
    mut stop: watch::Receiver<bool>,
) {
    let mut keeper = Keeper { world, owner, times, state, watched: None };
    loop {
        let pause = keeper.turn().await;
        let resigned = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            Some(()) = resign.recv() => true,
            () = tokio::time::sleep(pause) => false,
        };
        if resigned {
            keeper.release().await;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return,
                () = tokio::time::sleep(times.duration * RESIGNED_FOR) => {}
            }
        }
    }
    keeper.release().await;
}

/// What a rival has seen of the lock and since when it has not changed.
struct Watched {
    what: Seen,
    since: Monotonic,
}

/// What stays the same only for as long as nobody does anything with the lock.
#[derive(PartialEq, Eq)]
enum Seen {
    /// A record of this version.
    Record(String),
    /// No record, since it vanished in this epoch.
    Vanished(Epoch),
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
            Leadership::Leader { grant, valid_until } => self.renew(&grant, Some(valid_until)).await,
            Leadership::Lapsed { grant } => self.renew(&grant, None).await,
            Leadership::Standby { .. } | Leadership::Unknown => self.rival().await,
        }
    }

    /// Sends a heartbeat. `valid_until` is `None` once the lease has lapsed.
    async fn renew(&mut self, grant: &Grant, valid_until: Option<Monotonic>) -> Duration {
        let before = self.world.clock().monotonic();
        let version = self.world.entropy().record_version();
        match self.world.ledger().heartbeat(grant, &version, self.world.clock().now()).await {
            Ok(()) => {
                self.lead(grant, before);
                self.times.heartbeat
            }
            Err(LedgerError::LeaseLost | LedgerError::Conflict) => {
                warn!(epoch = %grant.epoch, "the lease is lost");
                self.state.send_replace(Leadership::Standby { leader: "another instance".into() });
                self.watched = None;
                self.times.heartbeat
            }
            Err(error) => {
                let left = valid_until.map(|until| until.since(self.world.clock().monotonic())).unwrap_or_default();
                warn!(%error, left_ms = left.as_millis(), "the heartbeat failed");
                self.failed(&error);
                if valid_until.is_some() && left.is_zero() {
                    warn!(epoch = %grant.epoch, "the lease has lapsed; nothing is done until a heartbeat succeeds");
                    self.state.send_replace(Leadership::Lapsed { grant: grant.clone() });
                }
                self.times.heartbeat / 3
            }
        }
    }

    fn lead(&self, grant: &Grant, since: Monotonic) {
        let until = since + self.times.duration / 2;
        self.state.send_if_modified(|state| match state {
            Leadership::Leader { grant: held, valid_until } if held == grant => {
                *valid_until = until;
                false
            }
            Leadership::Leader { .. } | Leadership::Lapsed { .. } | Leadership::Standby { .. } | Leadership::Unknown => {
                *state = Leadership::Leader { grant: grant.clone(), valid_until: until };
                true
            }
        });
    }

    async fn rival(&mut self) -> Duration {
        match self.world.ledger().lock().await {
            Ok(free @ Lock::Free { .. }) => self.take(free).await,
            // Whoever held it may still trust it.
            Ok(Lock::Vanished { epoch }) => match self.unchanged_for(Seen::Vanished(epoch), self.times.duration) {
                true => self.take(Lock::Vanished { epoch }).await,
                false => self.times.heartbeat,
            },
            Ok(Lock::Held(record)) => {
                match self.unchanged_for(Seen::Record(record.version.clone()), record.duration.max(self.times.duration)) {
                    true => self.take(Lock::Held(record)).await,
                    false => self.follow(&record),
                }
            }
            Err(error) => {
                warn!(%error, "the lock cannot be read");
                self.failed(&error);
                self.times.heartbeat
            }
        }
    }

    /// Tells whether the lock has been seen unchanged for a whole lease.
    fn unchanged_for(&mut self, what: Seen, lease: Duration) -> bool {
        let now = self.world.clock().monotonic();
        match &self.watched {
            Some(watched) if watched.what == what => now.since(watched.since) >= lease,
            Some(_) | None => {
                self.watched = Some(Watched { what, since: now });
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
        self.times.heartbeat
    }

    async fn take(&mut self, looked_at: Lock) -> Duration {
        let before = self.world.clock().monotonic();
        let claim = Claim {
            owner: self.owner.clone(),
            duration: self.times.duration,
            version: self.world.entropy().record_version(),
            looked_at,
            now: self.world.clock().now(),
        };
        match self.world.ledger().acquire(&claim).await {
            Ok(grant) => {
                info!(epoch = %grant.epoch, owner = %self.owner, "the lease is taken");
                self.watched = None;
                self.lead(&grant, before);
                self.times.heartbeat
            }
            Err(LedgerError::Conflict | LedgerError::LeaseLost) => {
                self.watched = None;
                self.times.heartbeat
            }
            Err(error) => {
                warn!(%error, "the lease cannot be taken");
                self.failed(&error);
                self.times.heartbeat
            }
        }
    }

    fn failed(&self, error: &LedgerError) {
        self.world.telemetry().record(Measurement::PortFailed { port: "dynamodb", class: error.class() });
    }

    async fn release(&self) {
        let held = match &*self.state.borrow() {
            Leadership::Leader { grant, .. } | Leadership::Lapsed { grant } => Some(grant.clone()),
            Leadership::Standby { .. } | Leadership::Unknown => None,
        };
        if let Some(grant) = held {
            self.state.send_replace(Leadership::Unknown);
            if let Err(error) = self.world.ledger().release(&grant).await {
                warn!(%error, "the lease could not be given back; a standby waits for its end");
            }
        }
    }
}
