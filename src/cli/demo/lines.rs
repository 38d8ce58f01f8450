//! The demonstration as lines, for a file or another program.

use super::world::{FRAME, World};
use super::{Shown, clock};
use crate::control::status::Status;
use crate::sim::front::Picture;
use jiff::Timestamp;
use std::io::Write;
use std::sync::Arc;
use tokio::sync::watch;

/// Prints what happens, until the world ends or somebody interrupts.
pub(super) async fn print(world: &mut World, status: &watch::Receiver<Arc<Status>>, shown: &Shown) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{}", introduction(shown))?;
    let mut teller = Teller::default();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            biased;
            _ = &mut interrupted => return Ok(()),
            changed = world.pictures.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(FRAME) => if world.is_over() { return Ok(()) },
        }
        let picture = world.pictures.borrow_and_update().clone();
        if let Some(picture) = picture {
            let lines = teller.news(&picture, &status.borrow());
            let mut out = std::io::stdout().lock();
            for line in lines {
                writeln!(out, "{line}")?;
            }
        }
    }
}

fn introduction(shown: &Shown) -> String {
    format!(
        "a fleet in memory, {} times as fast as yours; its daemon answers on http://{}/ and on {}",
        shown.speed,
        shown.address,
        shown.socket.display()
    )
}

/// Knows what has been told.
#[derive(Debug, Default)]
struct Teller {
    lines: u64,
    hours: u64,
    decided: Option<Timestamp>,
}

impl Teller {
    /// Lists what has not been told yet: events, decisions with their reasons, and the fleet once an hour.
    fn news(&mut self, picture: &Picture, status: &Status) -> Vec<String> {
        let mut news = Vec::new();
        let (count, latest) = &picture.log;
        let new = usize::try_from(count.saturating_sub(self.lines)).unwrap_or(usize::MAX).min(latest.len());
        news.extend(latest[latest.len() - new..].iter().cloned());
        self.lines = *count;
        for decision in status.decisions.iter().rev().filter(|decision| self.decided.is_none_or(|at| decision.at > at)) {
            news.extend(decision.plan.actions.iter().map(|action| format!("              decided: {action}")));
        }
        self.decided = status.decisions.front().map(|decision| decision.at).or(self.decided);
        let hour = picture.elapsed.as_secs() / 3600;
        if hour > self.hours {
            self.hours = hour;
            news.push(format!(
                "{}: {} nodes, {:.1} of {:.1} cores asked for, {} pods run, {} wait, ${:.3}/h, ${:.2} so far",
                clock(picture),
                picture.machines.len(),
                picture.demand,
                picture.capacity,
                picture.running,
                picture.waiting,
                picture.hourly,
                picture.spent
            ));
        }
        news
    }
}
