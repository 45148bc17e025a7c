//! What a sandbox's task is given to work with.
//!
//! The two traits exist so that the steps of a start can be tested with failures at each of them; on a host
//! they are thin adapters over `net` and `artifacts`.

use std::sync::Arc;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use sandbar_engine::Engine;
use sandbar_model::{EgressPolicy, LayerDigest, Lease, Mib, SandboxId, SlotIndex};

/// An error of a part, on its way to the caller as the source of ours.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Networks of sandboxes. Every remover may run twice.
#[async_trait]
pub trait Network: Send + Sync {
    /// Claims a network with this policy.
    async fn lease(&self, policy: EgressPolicy) -> Result<Lease, BoxError>;

    /// Takes over the network of a sandbox that survived a restart of the server; `None` when it is gone.
    async fn adopt(&self, slot: SlotIndex, policy: EgressPolicy) -> Result<Option<Lease>, BoxError>;

    /// Destroys a network.
    async fn release(&self, slot: SlotIndex) -> Result<(), BoxError>;

    /// Removes what belongs to no sandbox, at a clean stop of the server.
    async fn close(&self);
}

/// Root file systems and scratch disks. Every remover may run twice.
#[async_trait]
pub trait Disks: Send + Sync {
    /// The read-only root made of these layers, held for this sandbox until it is released.
    async fn hold_root(&self, id: &SandboxId, layers: &[LayerDigest]) -> Result<Utf8PathBuf, BoxError>;

    /// Gives a root back.
    async fn release_root(&self, id: &SandboxId) -> Result<(), BoxError>;

    /// A directory of limited size for what the sandbox writes.
    async fn make_scratch(&self, id: &SandboxId, size: Mib) -> Result<Utf8PathBuf, BoxError>;

    /// Takes over the scratch disk of a sandbox that survived a restart of the server.
    async fn adopt_scratch(&self, id: &SandboxId) -> Result<(), BoxError>;

    /// Removes a scratch disk and all that is on it.
    async fn remove_scratch(&self, id: &SandboxId) -> Result<(), BoxError>;

    /// Removes roots that nobody holds: after adoption, and at a clean stop of the server.
    async fn sweep(&self) -> Result<(), BoxError>;

    /// Stops making disks ahead, at a clean stop of the server.
    async fn close(&self);
}

/// All parts of one host.
#[derive(Clone)]
pub struct Parts {
    /// How guests are run.
    pub engine: Arc<dyn Engine>,
    /// Their networks.
    pub network: Arc<dyn Network>,
    /// Their disks.
    pub disks: Arc<dyn Disks>,
}
