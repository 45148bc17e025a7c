//! How a guest is run: gVisor, and a fake that passes the same suite.
//!
//! An [`Engine`] turns a root directory, a network and limits into a running [`Guest`], and finds or
//! removes again what an earlier process of ours started. A guest outlives the process that booted it:
//! what is needed to find it is a [`GuestRecord`], made *before* anything starts, so that its owner can
//! put it on disk first.
//!
//! ```text
//!  plan ──▶ record on disk ──▶ boot ──▶ Guest ──exited / stop──▶ Exit
//!                                         ▲                        │
//!          (server restarted) adopt ──────┘          remove ◀──────┘  also after a boot that failed
//! ```
//!
//! Concrete engines are private. The suite that all of them pass is `tests/conformance`.
//!
//! Not here: when and why a guest runs (`node`), its network (`net`), its root and scratch disk
//! (`artifacts`), what happens inside (`agent`).

mod cgroup;
mod error;
mod fake;
mod guest;
mod gvisor;
mod probe;
mod process;
mod record;

pub use error::{AdoptError, BootError, OpenError, RemoveError, StopError, UsageError};
pub use fake::{Fake, FakeStep, fake};
pub use guest::{BootSpec, Engine, Exit, Guest};
pub use gvisor::{Config, open};
pub use probe::{Probe, ProbeError, probe};
pub use record::{GuestRecord, ProcessRecord};
