//! Is the daemon alive, and is it of use?

use super::{Surface, failure};
use crate::control::status::{Role, Status};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// The loop goes round several times in this time; after so long without, it hangs.
const BEAT_LIMIT: Duration = Duration::from_mins(1);
/// A leader that makes no turn for so many evaluation intervals is stuck.
const INTERVALS: u32 = 3;

/// When the loop was last seen to go round, on this process's own clock.
#[derive(Debug)]
pub struct Pulse {
    interval: Duration,
    seen: Mutex<Seen>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    beat_at: Instant,
    turns: u64,
    leading: bool,
    /// When a leader made its latest turn, or took the lead.
    turn_at: Instant,
}

impl Pulse {
    /// Begins now, for a loop that evaluates this often.
    #[must_use]
    pub fn new(interval: Duration) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(Self { interval, seen: Mutex::new(Seen { beat_at: now, turns: 0, leading: false, turn_at: now }) })
    }

    /// Follows the loop until it is gone.
    pub async fn follow(&self, mut beat: watch::Receiver<u64>, mut status: watch::Receiver<Arc<Status>>) {
        loop {
            tokio::select! {
                changed = beat.changed() => match changed {
                    Ok(()) => self.seen.lock().unwrap_or_else(PoisonError::into_inner).beat_at = Instant::now(),
                    Err(_) => return,
                },
                changed = status.changed() => match changed {
                    Ok(()) => self.note(&status.borrow_and_update().clone()),
                    Err(_) => return,
                },
            }
        }
    }

    fn note(&self, status: &Status) {
        let leading = matches!(status.role, Role::Leader { .. });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if status.turns != seen.turns || leading != seen.leading {
            seen.turn_at = Instant::now();
        }
        (seen.turns, seen.leading) = (status.turns, leading);
    }

    /// Says what is the matter with the loop, if anything.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let seen = *self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (beat, turn) = (seen.beat_at.elapsed(), seen.turn_at.elapsed());
        // A turn waits for its sources, each with a deadline below the beat's limit.
        let patience = self.interval.saturating_mul(INTERVALS).max(BEAT_LIMIT);
        if beat > BEAT_LIMIT {
            Some(format!("the loop has not gone round for {} s", beat.as_secs()))
        } else if seen.leading && turn > patience {
            Some(format!("this leader has not made a turn for {} s", turn.as_secs()))
        } else {
            None
        }
    }
}

/// `GET /healthz`
pub(super) async fn alive(State(surface): State<Surface>) -> Response {
    match surface.pulse.complaint() {
        None => axum::Json(json!({ "alive": true })).into_response(),
        Some(complaint) => failure(StatusCode::SERVICE_UNAVAILABLE, complaint),
    }
}

/// `GET /readyz`
pub(super) async fn ready(State(surface): State<Surface>) -> Response {
    let status = surface.handle.status.borrow().clone();
    match unready(&status) {
        None => axum::Json(json!({ "ready": true })).into_response(),
        Some(why) => failure(StatusCode::SERVICE_UNAVAILABLE, why),
    }
}

/// Says why the daemon is of no use now. A standby that knows its leader is: it can take over.
fn unready(status: &Status) -> Option<String> {
    let needed: &[&str] = match &status.role {
        Role::Leader { .. } => &["kubernetes", "dynamodb"],
        Role::Standby { leader: Some(_) } => &[],
        Role::Standby { leader: None } => return Some("it is not known yet who leads".to_owned()),
    };
    // What a standby has seen of its sources counts as well, where it has looked.
    let looked = ["kubernetes", "dynamodb"];
    looked.iter().find_map(|name| match status.sources.get(name) {
        Some(source) if source.ok => None,
        Some(source) => Some(format!("{name}: {}", source.why.as_deref().unwrap_or("it does not answer"))),
        None => needed.contains(name).then(|| format!("{name} has not been asked yet")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::status::SourceStatus;
    use crate::http::tests::status;
    use crate::model::ids::Epoch;

    fn source(ok: bool) -> SourceStatus {
        SourceStatus { ok, why: (!ok).then(|| "refused".to_owned()), last_ok: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_stops_going_round_is_told_of_and_forgiven() {
        let (beats, beat) = watch::channel(0_u64);
        let (statuses, shown) = watch::channel(Arc::new(status()));
        let pulse = Pulse::new(Duration::from_mins(2));
        let follower = Arc::clone(&pulse);
        let follow = tokio::spawn(async move { follower.follow(beat, shown).await });
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(pulse.complaint(), None);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(pulse.complaint().as_deref(), Some("the loop has not gone round for 61 s"));
        beats.send_replace(1);
        tokio::task::yield_now().await;
        assert_eq!(pulse.complaint(), None);
        drop((beats, statuses));
        follow.await.expect("it ends with the loop");
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_must_make_turns_and_a_standby_need_not() {
        let (beats, beat) = watch::channel(0_u64);
        let (statuses, shown) = watch::channel(Arc::new(status()));
        let pulse = Pulse::new(Duration::from_mins(2));
        let follower = Arc::clone(&pulse);
        tokio::spawn(async move { follower.follow(beat, shown).await });
        let live = async |seconds: u64| {
            for _ in 0..seconds {
                tokio::time::sleep(Duration::from_secs(1)).await;
                beats.send_modify(|beat| *beat += 1);
            }
            tokio::task::yield_now().await;
        };
        live(1000).await;
        assert_eq!(pulse.complaint(), None, "a standby");
        statuses.send_replace(Arc::new(Status { role: Role::Leader { epoch: Epoch(1) }, ..status() }));
        live(350).await;
        assert_eq!(pulse.complaint(), None, "a leader within three intervals");
        live(20).await;
        assert!(pulse.complaint().is_some_and(|complaint| complaint.contains("has not made a turn")));
        statuses.send_replace(Arc::new(Status { role: Role::Leader { epoch: Epoch(1) }, turns: 1, ..status() }));
        live(1).await;
        assert_eq!(pulse.complaint(), None);
    }

    #[test]
    fn ready_is_a_leader_that_sees_and_a_standby_that_knows_its_leader() {
        let leader = |sources: &[(&'static str, bool)]| Status {
            role: Role::Leader { epoch: Epoch(1) },
            sources: sources.iter().map(|(name, ok)| (*name, source(*ok))).collect(),
            ..status()
        };
        assert_eq!(unready(&leader(&[("kubernetes", true), ("dynamodb", true), ("prometheus", false)])), None);
        assert_eq!(unready(&leader(&[("dynamodb", true)])).as_deref(), Some("kubernetes has not been asked yet"));
        assert_eq!(unready(&leader(&[("kubernetes", true), ("dynamodb", false)])).as_deref(), Some("dynamodb: refused"));
        let standby = |name: Option<&str>| Status { role: Role::Standby { leader: name.map(Into::into) }, ..status() };
        assert_eq!(unready(&standby(Some("server-2"))), None);
        assert!(unready(&standby(None)).is_some());
    }
}
