//! What a sandbox may use, and what it uses.

use std::fmt;
use std::num::NonZeroU32;

/// Mebibytes (2^20 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mib(pub u32);

impl Mib {
    /// The same amount in bytes.
    pub const fn bytes(self) -> u64 {
        self.0 as u64 * 1024 * 1024
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} MiB", self.0)
    }
}

/// Limits of one sandbox. Each is enforced from outside of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    /// Processors the guest sees and may keep busy.
    pub vcpus: NonZeroU32,
    /// Memory the guest sees. The engine may need more for itself and adds that on its own.
    pub memory: Mib,
    /// Bytes the guest may write on top of its root file system.
    pub disk: Mib,
    /// Processes and threads in the guest.
    pub pids: u32,
}

/// What one sandbox uses at a moment, as the host sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since the start of the run, in microseconds.
    pub cpu_time_us: u64,
    /// Resident memory, in bytes.
    pub memory_bytes: u64,
    /// Bytes written on top of the root file system.
    pub disk_bytes: u64,
}
