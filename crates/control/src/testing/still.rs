//! Time that passes when a test says so.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use jiff::Timestamp;
use sandbar_model::Clock;
use tokio::time::Instant;

/// A clock that goes with the runtime's timers, so that both pass when a test lets them.
#[derive(Clone, Debug)]
pub struct RuntimeClock {
    began: Instant,
    epoch: Timestamp,
    ahead_secs: Arc<AtomicU64>,
}

impl RuntimeClock {
    /// Begins on the first day of 2026.
    pub fn new() -> Self {
        let epoch = "2026-01-01T00:00:00Z".parse().expect("this is a time");
        Self { began: Instant::now(), epoch, ahead_secs: Arc::default() }
    }

    /// Somebody sets the clock forward; the timers do not notice.
    pub fn set_forward(&self, secs: u64) {
        self.ahead_secs.fetch_add(secs, Ordering::Relaxed);
    }
}

impl Default for RuntimeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        let ahead = Duration::from_secs(self.ahead_secs.load(Ordering::Relaxed));
        self.epoch.checked_add(self.began.elapsed() + ahead).unwrap_or(Timestamp::MAX)
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
