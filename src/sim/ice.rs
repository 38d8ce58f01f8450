//! Stops a controller as SIGSTOP does: nothing of it runs until it goes on, while time does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

/// Whether a controller is stopped, and who wants to go on.
#[derive(Debug, Default)]
pub struct Ice {
    frozen: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Ice {
    /// Stops the controller.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::SeqCst);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::SeqCst);
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// A future that stands still while its controller is stopped.
pub struct Freezable<F> {
    ice: Arc<Ice>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Freezable<F> {
    /// Makes a future stand still with the controller that it is of.
    pub fn new(ice: Arc<Ice>, inner: F) -> Self {
        Self { ice, inner: Box::pin(inner) }
    }
}

impl<F: Future> Future for Freezable<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.ice.frozen.load(Ordering::SeqCst) {
            self.ice.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(context.waker().clone());
            return Poll::Pending;
        }
        self.inner.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn a_stopped_future_goes_on_where_it_stood() {
        let ice = Arc::new(Ice::default());
        let task = tokio::spawn(Freezable::new(Arc::clone(&ice), tokio::time::sleep(Duration::from_secs(1))));
        tokio::task::yield_now().await;
        ice.freeze();
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert!(!task.is_finished());
        ice.thaw();
        tokio::time::timeout(Duration::from_millis(1), task).await.expect("it goes on at once").expect("it ends");
    }
}
