//! The queue of notices: at least once, in no order, poison set aside.

use crate::ports::{Delivery, Notice};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a received message is hidden.
const VISIBILITY: Duration = Duration::from_secs(30);
/// After so many receives a message goes to the dead-letter queue.
const MOST_RECEIVES: u32 = 5;
/// The most messages of one receive.
const BATCH: usize = 10;

#[derive(Clone, Debug)]
struct Message {
    notice: Result<Notice, String>,
    visible: Duration,
    receives: u32,
}

/// The queue.
#[derive(Debug, Default)]
pub struct Queue {
    messages: BTreeMap<u64, Message>,
    numbered: u64,
    /// Messages that nobody could make sense of.
    pub dead: u32,
    /// Messages that were deleted.
    pub deleted: u32,
}

impl Queue {
    /// Puts a message into the queue, to be seen from `visible` on.
    pub fn send(&mut self, notice: Result<Notice, String>, visible: Duration) {
        self.numbered += 1;
        self.messages.insert(self.numbered, Message { notice, visible, receives: 0 });
    }

    /// Gives what is visible, and hides it for a while.
    pub fn receive(&mut self, now: Duration) -> Vec<Delivery> {
        let poison: Vec<u64> = self.visible(now).filter(|(_, message)| message.receives >= MOST_RECEIVES).map(|(id, _)| id).collect();
        for id in poison {
            self.messages.remove(&id);
            self.dead += 1;
        }
        let ids: Vec<u64> = self.visible(now).map(|(id, _)| id).take(BATCH).collect();
        let mut taken = Vec::new();
        for id in ids {
            if let Some(message) = self.messages.get_mut(&id) {
                message.receives += 1;
                message.visible = now + VISIBILITY;
                taken.push(Delivery { handle: format!("{id}/{}", message.receives), notice: message.notice.clone() });
            }
        }
        taken
    }

    fn visible(&self, now: Duration) -> impl Iterator<Item = (u64, &Message)> {
        self.messages.iter().filter(move |(_, message)| message.visible <= now).map(|(id, message)| (*id, message))
    }

    /// Deletes a message by the handle of its latest receive.
    pub fn delete(&mut self, handle: &str) {
        let id = handle.split('/').next().and_then(|id| id.parse().ok());
        if let Some(id) = id
            && self.messages.remove(&id).is_some()
        {
            self.deleted += 1;
        }
    }

    /// Tells when the next message becomes visible.
    pub fn next_visible(&self) -> Option<Duration> {
        self.messages.values().map(|message| message.visible).min()
    }

    /// Counts the messages.
    pub fn len(&self) -> usize {
        self.messages.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice() -> Notice {
        Notice::RebalanceRecommendation { instance: "i-1".into() }
    }

    #[test]
    fn a_message_comes_again_until_it_is_deleted() {
        let mut queue = Queue::default();
        queue.send(Ok(notice()), Duration::from_secs(5));
        assert!(queue.receive(Duration::from_secs(4)).is_empty());
        let first = queue.receive(Duration::from_secs(5));
        assert!(queue.receive(Duration::from_secs(34)).is_empty());
        let second = queue.receive(Duration::from_secs(35));
        assert_eq!((first.len(), second.len()), (1, 1));
        assert_ne!(first[0].handle, second[0].handle);
        queue.delete(&second[0].handle);
        assert_eq!((queue.len(), queue.deleted), (0, 1));
    }

    #[test]
    fn poison_ends_in_the_dead_letter_queue() {
        let mut queue = Queue::default();
        queue.send(Err("no event".into()), Duration::ZERO);
        let receives: usize = (0..10).map(|round| queue.receive(Duration::from_secs(round * 60)).len()).sum();
        assert_eq!((receives, queue.dead, queue.len()), (5, 1, 0));
    }
}
