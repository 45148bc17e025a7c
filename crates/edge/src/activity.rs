//! What happens on one client connection, so that an idle one can be told from a busy one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How long a client may take for its first request. Clients that open connections ahead must be ready to
/// lose them anyway.
const FIRST_REQUEST: Duration = Duration::from_secs(30);

/// How long a connection is kept without a request. Source: contract network.md §11 (edge); clients reuse
/// connections that were idle for up to five minutes, so this must be longer.
pub(crate) const IDLE: Duration = Duration::from_secs(610);

/// Shared by a connection's socket, its watchdog and its requests.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    served: AtomicBool,
    /// Milliseconds after `opened`.
    last_end: AtomicU64,
    tunnel: AtomicBool,
}

/// One request in flight; it is over when this is dropped.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

/// Whether a connection may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It may.
    Keep,
    /// It has not sent a first request in time.
    Mute,
    /// It was idle for too long.
    Idle,
}

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            in_flight: AtomicUsize::new(0),
            served: AtomicBool::new(false),
            last_end: AtomicU64::new(0),
            tunnel: AtomicBool::new(false),
        })
    }

    /// A request began.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Whether the connection may stay at `now`.
    pub(crate) fn verdict(&self, now: Instant) -> Verdict {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Verdict::Keep;
        }
        let age = now.saturating_duration_since(self.opened);
        let idle = age.saturating_sub(Duration::from_millis(self.last_end.load(Ordering::Relaxed)));
        match self.served.load(Ordering::Relaxed) {
            false if age > FIRST_REQUEST => Verdict::Mute,
            true if idle > IDLE => Verdict::Idle,
            _ => Verdict::Keep,
        }
    }
}

impl Busy {
    /// The connection no longer speaks HTTP.
    pub(crate) fn becomes_tunnel(&self) {
        self.0.tunnel.store(true, Ordering::Relaxed);
    }
}

impl Activity {
    /// Whether the connection no longer speaks HTTP.
    pub(crate) fn is_tunnel(&self) -> bool {
        self.tunnel.load(Ordering::Relaxed)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let now = self.0.opened.elapsed().as_millis().try_into().unwrap_or(u64::MAX);
        self.0.last_end.store(now, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_must_ask_soon_and_then_may_be_idle_for_minutes() {
        const SECOND: Duration = Duration::from_secs(1);
        let activity = Activity::new();
        let after = |time| activity.verdict(activity.opened + time);
        assert_eq!(after(FIRST_REQUEST), Verdict::Keep);
        assert_eq!(after(FIRST_REQUEST + SECOND), Verdict::Mute);

        let busy = activity.begin();
        assert_eq!(after(IDLE * 10), Verdict::Keep, "a request may take hours");
        drop(busy);
        assert_eq!(after(IDLE), Verdict::Keep);
        assert_eq!(after(IDLE + FIRST_REQUEST), Verdict::Idle);
    }
}
