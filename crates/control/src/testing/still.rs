//! Time that passes when a test says so.

use std::sync::mpsc;

use jiff::Timestamp;
use sandbar_model::Clock;
use tokio::time::Instant;

/// A clock that goes with the runtime's timers, so that both pass when a test lets them.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeClock {
    began: Instant,
    epoch: Timestamp,
}

impl RuntimeClock {
    /// Begins on the first day of 2026.
    pub fn new() -> Self {
        Self { began: Instant::now(), epoch: "2026-01-01T00:00:00Z".parse().expect("this is a time") }
    }
}

impl Default for RuntimeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        self.epoch.checked_add(self.began.elapsed()).unwrap_or(Timestamp::MAX)
    }
}

/// Holds paused time still until it is dropped.
///
/// A paused runtime jumps to the next timer when it has nothing to do, and a database that answers from a thread of
/// its own is nothing to do. A blocking task keeps it from that: time then passes only by `tokio::time::advance`.
pub struct Still {
    _release: mpsc::Sender<()>,
}

impl Still {
    /// Within a runtime whose time is paused.
    pub fn new() -> Self {
        let (release, held) = mpsc::channel::<()>();
        tokio::task::spawn_blocking(move || {
            // Ends when the sender is dropped.
            let _ = held.recv();
        });
        Self { _release: release }
    }
}

impl Default for Still {
    fn default() -> Self {
        Self::new()
    }
}
