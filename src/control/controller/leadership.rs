//! Following the lease: what is loaded when this instance begins to act, and forgotten when it stops.

use super::super::lease::Leadership;
use super::super::status::Role;
use super::turns::LookingAround;
use super::{Controller, Event, Remembering};
use crate::ports::{Grant, Ledger, LedgerError, LedgerState, World};
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info, warn};

impl<W: World> Controller<W> {
    pub(super) fn follow_lease(&mut self) {
        let leadership = self.inputs.leadership.borrow_and_update().clone();
        match &leadership {
            Leadership::Leader { grant, .. } => {
                self.shown.role = Role::Leader { epoch: grant.epoch };
                if self.grant.as_ref() != Some(grant) && !self.loading {
                    self.step_down();
                    self.load(grant.clone());
                }
            }
            Leadership::Standby { leader } => {
                self.shown.role = Role::Standby { leader: Some(leader.clone()) };
                self.step_down();
            }
            // The lease of a leader that cannot reach the ledger may be somebody else's by now.
            Leadership::Lapsed { .. } | Leadership::Unknown => {
                self.shown.role = Role::Standby { leader: None };
                self.step_down();
            }
        }
        self.publish();
    }

    /// Forgets everything that only a leader may know: the journal has it.
    pub(super) fn step_down(&mut self) {
        if self.grant.take().is_some() {
            warn!("this instance no longer acts");
        }
        // What a leader saw of the fleet is not what a standby sees.
        self.shown.plan = None;
        (self.seen, self.measured) = (None, None);
        self.shown.sources.clear();
        self.shown.cost = None;
        self.running.clear();
        self.prospects.clear();
        self.shown.forecasts.clear();
        self.wake_at = None;
        self.write_word();
        self.loading = false;
        (self.urgent_look, self.full_look) = (LookingAround::default(), LookingAround::default());
        (self.remembering, self.node_count) = (Remembering::Idle, None);
        self.looking = false;
        self.unknown.clear();
        self.operations.clear();
        self.amended.clear();
        self.receipts.clear();
        for waiting in self.evaluations.drain(..).chain(self.answering.drain(..)) {
            let _ = waiting.send(Err("this instance does not lead".into()));
        }
    }

    pub(super) fn load(&mut self, grant: Grant) {
        self.loading = true;
        let (world, heard) = (Arc::clone(&self.context.world), self.heard);
        self.spawn(async move {
            let state = world.ledger().load().await;
            if state.is_err() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Event::Loaded(grant, heard, state.map(Box::new))
        });
    }

    pub(super) fn loaded(&mut self, grant: Grant, heard: u64, state: Result<Box<LedgerState>, LedgerError>) {
        self.loading = false;
        match state {
            Ok(state) => {
                info!(epoch = %grant.epoch, operations = state.operations.len(), "the journal is read");
                self.source("dynamodb", Ok(()));
                self.grant = Some(grant);
                self.memory = state.memory;
                self.believe(heard, state.pause.as_ref());
                self.tell_takeover(&state.operations);
                self.note_outlets();
                for operation in state.operations {
                    self.adopt(operation, false);
                }
                self.turn("start");
            }
            Err(why) => {
                error!(error = %why, "the journal cannot be read, so nothing is done");
                self.source("dynamodb", Err(why.to_string()));
                if self.inputs.leadership.borrow().grant() != Some(&grant) {
                    return;
                }
                match why {
                    // Another build, or another role, may be able to read it.
                    LedgerError::Unreadable { .. } | LedgerError::Denied { .. } | LedgerError::NoTable { .. } => {
                        warn!("the lease is given back");
                        let _ = self.inputs.resign.try_send(());
                    }
                    LedgerError::Unavailable { .. } | LedgerError::LeaseLost | LedgerError::Conflict => self.load(grant),
                }
            }
        }
    }
}
