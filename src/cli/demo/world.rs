//! The world of the demonstration, in a thread of its own that holds it back to the chosen speed.

use super::broken;
use crate::control::status::{Command, Handle, Role, Status};
use crate::observability::Instruments;
use crate::sim::front::{Picture, Run, Scenario};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The world is looked at this often.
pub(super) const FRAME: Duration = Duration::from_millis(50);

/// Where the daemon's surface meets the world.
pub(super) struct Desk {
    /// Where the leader's status appears.
    pub status: watch::Sender<Arc<Status>>,
    /// What operators ask.
    pub asked: mpsc::Receiver<Command>,
    /// Counts the looks at the world.
    pub beat: watch::Sender<u64>,
}

/// What the world is told.
enum Order {
    Speed(f64),
    Stop,
}

/// A world that lives.
pub(super) struct World {
    /// The latest picture; `None` before the first.
    pub pictures: watch::Receiver<Option<Picture>>,
    orders: Sender<Order>,
    thread: Option<JoinHandle<Picture>>,
}

impl World {
    /// Lets a world begin.
    pub(super) fn begin(scenario: Scenario, speed: f64, length: Option<Duration>, instruments: Instruments, desk: Desk) -> Self {
        let (tell, pictures) = watch::channel(None);
        let (orders, told) = channel();
        let thread = thread::spawn(move || live(scenario, speed, length, &instruments, desk, &tell, &told));
        Self { pictures, orders, thread: Some(thread) }
    }

    /// Lets it live faster or slower.
    pub(super) fn set_speed(&self, speed: f64) {
        let _ = self.orders.send(Order::Speed(speed));
    }

    /// Tells whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, and gives the last picture.
    pub(super) fn end(mut self) -> anyhow::Result<Picture> {
        let _ = self.orders.send(Order::Stop);
        match self.thread.take() {
            Some(thread) => thread.join().map_err(broken),
            None => anyhow::bail!("the world has ended before"),
        }
    }
}

fn live(
    scenario: Scenario,
    mut speed: f64,
    length: Option<Duration>,
    instruments: &Instruments,
    desk: Desk,
    pictures: &watch::Sender<Option<Picture>>,
    orders: &Receiver<Order>,
) -> Picture {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.unwrap_or_else(|error| panic!("a runtime with nothing but time: {error}"));
    runtime.block_on(async {
        let run = Run::begin(scenario, |_| instruments.clone());
        let Desk { status, asked, beat } = desk;
        tokio::spawn(attend(run.handles.clone(), status, asked));
        loop {
            let left = length.map(|length| length.saturating_sub(run.universe.elapsed()));
            let step = FRAME.mul_f64(speed).min(left.unwrap_or(Duration::MAX));
            tokio::time::sleep(step).await;
            let picture = Picture::of(&run.universe);
            pictures.send_replace(Some(picture.clone()));
            beat.send_modify(|beat| *beat += 1);
            if length.is_some_and(|length| picture.elapsed >= length) {
                return picture;
            }
            match orders.recv_timeout(FRAME) {
                Ok(Order::Speed(new)) => speed = new,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Order::Stop) | Err(RecvTimeoutError::Disconnected) => return picture,
            }
        }
    })
}

/// Shows the leader's status, and passes on to it what operators ask.
async fn attend(handles: Vec<watch::Receiver<Option<Handle>>>, status: watch::Sender<Arc<Status>>, mut asked: mpsc::Receiver<Command>) {
    loop {
        let leads = |handle: &Handle| matches!(handle.status.borrow().role, Role::Leader { .. });
        let running: Vec<Handle> = handles.iter().filter_map(|handle| handle.borrow().clone()).collect();
        let chosen = running.iter().find(|handle| leads(handle)).or(running.first());
        if let Some(handle) = chosen {
            let latest = Arc::clone(&handle.status.borrow());
            status.send_if_modified(|shown| {
                let news = !Arc::ptr_eq(shown, &latest);
                *shown = latest;
                news
            });
        }
        tokio::select! {
            biased;
            Some(command) = asked.recv() => {
                // With nobody there the question is dropped, and its asker is told so.
                if let Some(handle) = chosen {
                    let _ = handle.commands.try_send(command);
                }
            }
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}
