//! What the operator decided about sandboxes.

use std::time::Duration;

use crate::TokenSeed;

/// Limits and secrets of the control plane.
#[derive(Clone, Debug)]
pub struct Config {
    /// From which every access token is computed. A new one makes the tokens of running sandboxes worthless.
    pub seed: TokenSeed,
    /// Sandboxes a team may have at once, those being started and ended included.
    pub concurrent_max: u32,
    /// How long a sandbox may run from its start, whatever its owner asks for.
    pub run_max: Duration,
    /// How long a start may take before it is given up.
    pub start_timeout: Duration,
    /// What becomes of running sandboxes when the server ends in good order.
    pub on_shutdown: OnShutdown,
}

impl Config {
    /// 1000 sandboxes a team, 24 hours each, 50 seconds for a start: clients give up after 60.
    pub fn new(seed: TokenSeed) -> Self {
        Self {
            seed,
            concurrent_max: 1000,
            run_max: Duration::from_secs(24 * 60 * 60),
            start_timeout: Duration::from_secs(50),
            on_shutdown: OnShutdown::Keep,
        }
    }
}

/// What becomes of running sandboxes when the server ends in good order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnShutdown {
    /// They go on; the next server adopts them.
    Keep,
    /// They end.
    Kill,
}
