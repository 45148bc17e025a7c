//! Everything on one host: one task per sandbox, the journal, adoption after a restart.
//!
//! [`LocalNode`] implements the `Node` port. It keeps a task per sandbox, and that task is the only writer
//! of the sandbox's state: it does the steps of the start, watches the engine, and gives everything back.
//! What must be found again after a crash is in the [`journal`] before it is acted on; [`adopt`] reads it.
//!
//! ```text
//!  start ──▶ registry ──▶ sandbox task: lease ▸ root ▸ scratch ▸ journal ▸ boot ▸ agent ▸ Running
//!  stop  ──▶ ending   ──▶      └──────────── undone in reverse, then forgotten ─────────────┘
//! ```
//!
//! Not here: which sandboxes should exist and until when (`control`), how a guest is run (`engine`), what
//! its network and disks are made of (`net`, `artifacts`).

mod adopt;
mod agent;
mod disks;
mod held;
mod journal;
mod local;
mod network;
mod parts;
mod sandbox;

pub use agent::AgentError;
pub use disks::{HostDisks, OpenDisksError};
pub use journal::JournalError;
pub use local::{AtShutdown, Config, Earlier, LocalNode, OpenError};
pub use network::HostNetwork;
pub use parts::{BoxError, Disks, Network, Parts};
