//! What operators ask: pause, resume, evaluate, and a new configuration.

use super::super::settings::Settings;
use super::super::status::Command;
use super::{Controller, Event};
use crate::model::snapshot::Pause;
use crate::ports::{Ledger, LedgerError, World};
use std::sync::Arc;
use tokio::sync::oneshot;
use tracing::{error, info};

impl<W: World> Controller<W> {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Pause { by, reason, done } => self.set_pause(Some(Pause { since: self.now(), by, reason }), done),
            Command::Resume { by, done } => {
                info!(%by, "resuming");
                self.set_pause(None, done);
            }
            Command::Evaluate { done } if self.grant.is_none() => {
                let _ = done.send(Err("this instance does not lead; ask the leader".into()));
            }
            Command::Evaluate { done } => {
                self.evaluations.push(done);
                self.turn("operator");
            }
        }
    }

    pub(super) fn set_pause(&mut self, pause: Option<Pause>, done: oneshot::Sender<Result<(), String>>) {
        if let Some(pause) = &pause {
            info!(by = %pause.by, reason = %pause.reason, "pausing");
            // From this moment nothing is started, whatever the ledger's answer.
            self.pause = Some(pause.clone());
        }
        let world = Arc::clone(&self.context.world);
        self.spawn(async move {
            let outcome = world.ledger().set_pause(pause.as_ref()).await;
            Event::Paused(pause, outcome, done)
        });
    }

    pub(super) fn paused(&mut self, pause: Option<Pause>, outcome: Result<(), LedgerError>, done: oneshot::Sender<Result<(), String>>) {
        if outcome.is_ok() {
            self.pause = pause;
            self.publish();
            self.turn("operator");
        }
        let _ = done.send(outcome.map_err(|error| error.to_string()));
    }

    pub(super) fn reload(&mut self, reload: Result<Settings, String>) {
        match reload {
            Ok(settings) => {
                info!("the new configuration is in force");
                self.context.settings = Arc::new(settings);
                self.shown.reload_error = None;
                self.turn("operator");
            }
            Err(why) => {
                error!(%why, "the new configuration is refused; the old one stays in force");
                self.shown.reload_error = Some(why);
            }
        }
        self.publish();
    }
}
