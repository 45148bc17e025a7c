//! Keeps the guest's clock near the host's.

use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

/// A guest's clock may lag by so much before it is set. Source: e2b-dev/infra packages/envd.
const BEHIND_MAX: Duration = Duration::from_millis(50);

/// It may run ahead by so much: setting it back harms programs more. Source: e2b-dev/infra packages/envd.
const AHEAD_MAX: Duration = Duration::from_secs(5);

/// Whether a clock showing `ours` should be set to `theirs`.
pub(super) fn is_off(ours: jiff::Timestamp, theirs: jiff::Timestamp) -> bool {
    let lag = theirs.as_nanosecond() - ours.as_nanosecond();
    lag > BEHIND_MAX.as_nanos() as i128 || -lag > AHEAD_MAX.as_nanos() as i128
}

/// Sets the clock. Guests whose kernel follows the host's clock refuse that, and need it least.
pub(super) fn set(to: jiff::Timestamp) {
    let at = TimeSpec::new(to.as_second(), to.subsec_nanosecond().into());
    if let Err(errno) = clock_settime(ClockId::CLOCK_REALTIME, at) {
        tracing::debug!(%errno, "clock was not set");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(ahead_ms: i64, want: bool) {
        let host = jiff::Timestamp::from_second(1_800_000_000).unwrap();
        let guest = jiff::Timestamp::from_millisecond(1_800_000_000_000 + ahead_ms).unwrap();
        assert_eq!(is_off(guest, host), want, "{ahead_ms}");
    }

    #[test]
    fn a_clock_is_set_when_late_or_far_ahead() {
        check(-1000, true);
        check(-51, true);
        check(-50, false);
        check(3000, false);
        check(10_000, true);
    }
}
