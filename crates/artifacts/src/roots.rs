//! Read-only root file systems, each the overlay of a list of layers, shared by the sandboxes that use it.
//!
//! ```text
//!  <data_dir>/roots/<digest of the list>/   the mount
//!  <data_dir>/roots/empty/                  below a single layer, because an overlay has at least two
//! ```
//!
//! A root is mounted while a sandbox holds it. Who holds what is known to this process alone; after a crash the
//! mounts are still there, sandboxes that live on hold their roots again, and [`Roots::sweep`] removes the rest.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, mount};
use sandbar_model::{LayerDigest, SandboxId};

use crate::recipe::chain;
use crate::{LayerStore, mounts, overlay};

/// Why a root cannot be had or be removed.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A root without any layer.
    #[error("a root needs at least one layer")]
    NoLayers,
    /// The store does not have this layer.
    #[error("layer {0} is not in the store")]
    NoSuchLayer(LayerDigest),
    /// More than one mount can take.
    #[error("a root of {count} layers is more than the kernel mounts at once")]
    TooManyLayers {
        /// How many there are.
        count: usize,
    },
    /// The sandbox holds another root.
    #[error("sandbox {0} holds another root already")]
    HoldsAnother(SandboxId),
    /// The kernel or the file system refused.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The thread that did the work died.
    #[error("the work on a root was cut short")]
    CutShort,
}

impl RootError {
    fn io(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// The roots of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Roots {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    store: LayerStore,
    dir: Utf8PathBuf,
    holders: Mutex<Holders>,
}

/// Who holds which root.
#[derive(Debug, Default)]
struct Holders {
    /// Every root that is mounted, also those that nobody holds since a crash.
    mounted: HashMap<LayerDigest, HashSet<SandboxId>>,
    /// The root of each sandbox.
    held: HashMap<SandboxId, LayerDigest>,
}

impl Roots {
    /// Opens the roots below `data_dir`. What is mounted there is known from now on and held by nobody. Blocks.
    ///
    /// # Errors
    /// When the directories cannot be made or the mounts not be listed.
    pub fn open(data_dir: &Utf8Path, store: LayerStore) -> Result<Self, RootError> {
        let dir = data_dir.join("roots");
        let empty = dir.join("empty");
        fs::create_dir_all(&empty).map_err(RootError::io("make", &empty))?;
        // Mounts are listed under their real path.
        let dir = dir.canonicalize_utf8().map_err(RootError::io("find", &dir))?;
        let mut holders = Holders::default();
        for path in mounts::below(&dir).map_err(RootError::io("list mounts below", &dir))? {
            if let Some(digest) = path.file_name().and_then(|name| name.parse().ok()) {
                holders.mounted.insert(digest, HashSet::new());
            }
        }
        Ok(Self { inner: Arc::new(Inner { store, dir, holders: Mutex::new(holders) }) })
    }

    /// Returns the root made of `layers` (lowest first), which the sandbox holds until it is released. Holding the
    /// same root again changes nothing.
    ///
    /// # Errors
    /// After an error the sandbox holds nothing new.
    ///
    /// # Cancel safety
    /// If the caller goes away the sandbox may hold the root; [`Roots::release`] is right in any case.
    pub async fn hold(&self, id: &SandboxId, layers: &[LayerDigest]) -> Result<Utf8PathBuf, RootError> {
        let (id, layers) = (id.clone(), layers.to_vec());
        self.blocking(move |inner| inner.hold(&id, &layers)).await
    }

    /// Gives back what a sandbox holds; the last one unmounts. A sandbox that holds nothing is fine.
    ///
    /// # Errors
    /// When the kernel does not unmount; [`Roots::sweep`] tries again.
    pub async fn release(&self, id: &SandboxId) -> Result<(), RootError> {
        let id = id.clone();
        self.blocking(move |inner| inner.release(&id)).await
    }

    /// Removes every root that no sandbox holds. To be called once those that survived a restart hold theirs,
    /// and before any other sandbox does.
    ///
    /// # Errors
    /// The first one; the other roots are tried nevertheless.
    pub async fn sweep(&self) -> Result<(), RootError> {
        self.blocking(Inner::sweep).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, RootError> + Send + 'static,
    ) -> Result<T, RootError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or(Err(RootError::CutShort))
    }
}

impl Inner {
    fn hold(&self, id: &SandboxId, layers: &[LayerDigest]) -> Result<Utf8PathBuf, RootError> {
        let described: Vec<_> = ["root"].into_iter().chain(layers.iter().map(LayerDigest::as_str)).collect();
        let digest = chain(&described);
        let path = self.dir.join(digest.as_str());
        let mut holders = self.holders();
        if holders.held.get(id).is_some_and(|held| *held != digest) {
            return Err(RootError::HoldsAnother(id.clone()));
        }
        if !holders.mounted.contains_key(&digest) {
            self.mount(layers, &path)?;
        }
        holders.mounted.entry(digest.clone()).or_default().insert(id.clone());
        holders.held.insert(id.clone(), digest);
        Ok(path)
    }

    fn release(&self, id: &SandboxId) -> Result<(), RootError> {
        let mut holders = self.holders();
        let Some(digest) = holders.held.remove(id) else {
            return Ok(());
        };
        let unused = holders.mounted.get_mut(&digest).is_some_and(|by| {
            by.remove(id);
            by.is_empty()
        });
        if unused { self.unmount(&mut holders, &digest) } else { Ok(()) }
    }

    fn sweep(&self) -> Result<(), RootError> {
        let mut holders = self.holders();
        let unused: Vec<_> = holders
            .mounted
            .iter()
            .filter(|(_, by)| by.is_empty())
            .map(|(digest, _)| digest.clone())
            .collect();
        let mut result = Ok(());
        for digest in unused {
            result = result.and(self.unmount(&mut holders, &digest));
        }
        // A crash between making a directory and mounting on it, or between the two steps of `unmount`.
        let entries = self.dir.read_dir_utf8().map_err(RootError::io("list", &self.dir))?;
        for path in entries.filter_map(Result::ok).map(|entry| entry.path().to_owned()) {
            let digest = path.file_name().and_then(|name| name.parse::<LayerDigest>().ok());
            if digest.is_some_and(|digest| !holders.mounted.contains_key(&digest)) {
                result = result.and(fs::remove_dir(&path).map_err(RootError::io("remove", &path)));
            }
        }
        result
    }

    fn mount(&self, layers: &[LayerDigest], path: &Utf8Path) -> Result<(), RootError> {
        if layers.is_empty() {
            return Err(RootError::NoLayers);
        }
        let mut lower = Vec::with_capacity(layers.len() + 1);
        if layers.len() == 1 {
            lower.push(self.dir.join("empty"));
        }
        for layer in layers {
            if !self.store.contains(layer) {
                return Err(RootError::NoSuchLayer(layer.clone()));
            }
            lower.push(self.store.path(layer));
        }
        fs::create_dir_all(path).map_err(RootError::io("make", path))?;
        mount_overlay(&lower, path)
    }

    fn unmount(&self, holders: &mut Holders, digest: &LayerDigest) -> Result<(), RootError> {
        let path = self.dir.join(digest.as_str());
        mounts::detach(&path).map_err(RootError::io("unmount", &path))?;
        holders.mounted.remove(digest);
        match fs::remove_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(RootError::io("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    fn holders(&self) -> MutexGuard<'_, Holders> {
        // Every change of the two maps is made after what can fail; they agree with each other at any time.
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn mount_overlay(lowest_first: &[Utf8PathBuf], path: &Utf8Path) -> Result<(), RootError> {
    let mut option = overlay::lower(lowest_first);
    let mut open = Vec::new();
    if option.len() > overlay::OPTIONS_BYTES_MAX {
        // Too long as paths: the same directories by the shorter names that they have while they are open.
        for dir in lowest_first {
            open.push(File::open(dir).map_err(RootError::io("open", dir))?);
        }
        let short: Vec<Utf8PathBuf> =
            open.iter().map(|dir| format!("/proc/self/fd/{}", dir.as_raw_fd()).into()).collect();
        option = overlay::lower(&short);
        if option.len() > overlay::OPTIONS_BYTES_MAX {
            return Err(RootError::TooManyLayers { count: lowest_first.len() });
        }
    }
    // Programs of the guest are mapped from here, so it is not NOEXEC.
    let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
    let option = std::ffi::CString::new(option).expect("a path has no NUL byte");
    mount("overlay", path.as_str(), "overlay", flags, option.as_c_str())
        .map_err(|error| RootError::io("mount an overlay at", path)(error.into()))
}

#[cfg(test)]
mod tests;
