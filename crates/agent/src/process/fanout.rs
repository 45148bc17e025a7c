//! Hands every piece of output to every listener.
//!
//! Without listeners output is dropped, so that a process never waits for nobody. A listener that is slow makes the
//! process wait, one that is gone does not, and neither keeps a piece from the others.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use sandbar_wire::envd::process::EndEvent;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// Pieces a listener may lag behind before the process has to wait. Source: e2b-dev/infra packages/envd.
const LAG_MAX: usize = 64;

/// What listeners are told.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Stdout(Bytes),
    Stderr(Bytes),
    Pty(Bytes),
    /// The last one.
    End(EndEvent),
}

/// The listeners of one process.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    listeners: Mutex<Vec<mpsc::Sender<Event>>>,
}

impl Fanout {
    /// A new listener, which is told everything from now on.
    pub(super) fn listen(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(LAG_MAX);
        self.lock().push(sender);
        receiver
    }

    /// Tells all listeners; returns when each has room for more or is gone.
    pub(super) async fn tell(&self, event: Event) {
        let mut full = Vec::new();
        self.lock().retain(|listener| match listener.try_send(event.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                full.push(listener.clone());
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
        for listener in full {
            drop(listener.send(event.clone()).await); // a listener that went away meanwhile is the next call's concern
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Event>>> {
        self.listeners.lock().expect("nothing that holds this lock can panic")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &'static str) -> Event {
        Event::Stdout(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn nobody_listening_is_no_reason_to_wait() {
        let fanout = Fanout::default();
        for _ in 0..10 * LAG_MAX {
            fanout.tell(piece("x")).await;
        }
    }

    #[tokio::test]
    async fn a_full_listener_delays_the_process_but_not_the_others() {
        let fanout = Fanout::default();
        let stalled = fanout.listen();
        let mut quick = fanout.listen();
        for _ in 0..LAG_MAX {
            fanout.tell(piece("x")).await;
            assert!(quick.recv().await.is_some());
        }
        let last = fanout.tell(piece("y"));
        tokio::pin!(last);
        assert!(futures::poll!(&mut last).is_pending());
        assert!(quick.recv().await.is_some());
        drop(stalled);
        last.await;
    }
}
