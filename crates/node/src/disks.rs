//! Root file systems and scratch disks of this host, as its sandboxes' tasks use them.

use std::collections::HashSet;

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use sandbar_artifacts::{LayerStore, RootError, Roots, ScratchDisks, ScratchError, ScratchSettings};
use sandbar_model::{LayerDigest, Mib, SandboxId};

use crate::held::Chain;
use crate::parts::{BoxError, Disks};

/// `artifacts` behind the [`Disks`] port.
#[derive(Debug)]
pub struct HostDisks {
    roots: Roots,
    scratch: ScratchDisks,
}

/// Why the disks could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenDisksError {
    /// Roots.
    #[error("open roots")]
    Roots(#[from] RootError),
    /// Scratch disks.
    #[error("open scratch disks")]
    Scratch(#[from] ScratchError),
}

impl HostDisks {
    /// Opens the disks below `data_dir`. Scratch disks of sandboxes that are not in `keep` are removed.
    pub async fn open(
        store: LayerStore,
        data_dir: &Utf8Path,
        settings: ScratchSettings,
        keep: &[SandboxId],
    ) -> Result<Self, OpenDisksError> {
        let roots = Roots::open(data_dir, store)?;
        let scratch = ScratchDisks::open(data_dir, settings)?;
        scratch.sweep(&keep.iter().cloned().collect::<HashSet<_>>()).await?;
        Ok(Self { roots, scratch })
    }
}

#[async_trait]
impl Disks for HostDisks {
    async fn hold_root(&self, id: &SandboxId, layers: &[LayerDigest]) -> Result<Utf8PathBuf, BoxError> {
        Ok(self.roots.hold(id, layers).await?)
    }

    async fn release_root(&self, id: &SandboxId) -> Result<(), BoxError> {
        Ok(self.roots.release(id).await?)
    }

    async fn make_scratch(&self, id: &SandboxId, size: Mib) -> Result<Utf8PathBuf, BoxError> {
        Ok(self.scratch.claim(id, size).await?)
    }

    async fn adopt_scratch(&self, id: &SandboxId) -> Result<(), BoxError> {
        match self.scratch.find(id).await? {
            Some(_path) => Ok(()),
            None => Err(format!("the scratch disk of {id} is gone").into()),
        }
    }

    async fn remove_scratch(&self, id: &SandboxId) -> Result<(), BoxError> {
        Ok(self.scratch.remove(id).await?)
    }

    async fn sweep(&self) -> Result<(), BoxError> {
        Ok(self.roots.sweep().await?)
    }

    async fn close(&self) {
        if let Err(error) = self.scratch.close().await {
            // They are found and wiped at the next start.
            tracing::error!(error = %Chain(&error), "scratch disks made ahead were not removed");
        }
    }
}
