//! Scratch disks: all that a sandbox may write, in a file system that is exactly as large as allowed.
//!
//! ```text
//!  <data_dir>/scratch/template-<MiB>.ext4   an empty file system, cloned for each disk of its size
//!  <data_dir>/scratch/ready-<n>.ext4        a disk made ahead: attached and mounted, but nowhere
//!  <data_dir>/scratch/<id>.ext4             the disk of a sandbox, a sparse file
//!  <data_dir>/scratch/<id>/                 where it is mounted
//! ```
//!
//! A disk made ahead is a mount that only a file descriptor refers to: it costs its claimer a rename and one
//! system call, and a crash leaves no trace of it in the kernel. A loop device goes away with its mount.
//!
//! The data is worthless once its sandbox is gone, so nothing here is ever flushed: no journal, no barriers.

mod image;
mod loop_device;
mod pool;

use std::collections::HashSet;
use std::fs;
use std::io;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::{Mib, SandboxId};

use self::pool::Pool;
use crate::{ProgramError, mounts};

/// What is made ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScratchSettings {
    /// Size of the disks made ahead. Others are made when they are claimed.
    pub size: Mib,
    /// How many are kept ready; 0 makes none ahead.
    pub ready_min: usize,
}

/// Why a scratch disk cannot be had or be removed.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The sandbox has one.
    #[error("sandbox {0} has a scratch disk already")]
    Exists(SandboxId),
    /// The file system could not be made.
    #[error("make a file system of {size}")]
    Format {
        /// Its size.
        size: Mib,
        /// What `mkfs.ext4` said.
        source: ProgramError,
    },
    /// No loop device could be had.
    #[error("attach {image} to a loop device")]
    Attach {
        /// The image.
        image: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
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
    #[error("the work on a scratch disk was cut short")]
    CutShort,
}

impl ScratchError {
    fn io(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// The scratch disks of one server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ScratchDisks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: Utf8PathBuf,
    pool: Pool,
}

impl ScratchDisks {
    /// Opens the disks below `data_dir` and begins to make some ahead. Disks of sandboxes are left as they are.
    /// Blocks.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(data_dir: &Utf8Path, settings: ScratchSettings) -> Result<Self, ScratchError> {
        let dir = data_dir.join("scratch");
        fs::create_dir_all(&dir).map_err(ScratchError::io("make", &dir))?;
        // Mounts are listed under their real path.
        let dir = dir.canonicalize_utf8().map_err(ScratchError::io("find", &dir))?;
        let pool = Pool::open(dir.clone(), settings)?;
        Ok(Self { inner: Arc::new(Inner { dir, pool }) })
    }

    /// Gives a sandbox an empty disk of this size, mounted at the path returned.
    ///
    /// # Errors
    /// After an error [`ScratchDisks::remove`] removes what there is of it.
    ///
    /// # Cancel safety
    /// If the caller goes away the sandbox may have the disk; [`ScratchDisks::remove`] is right in any case.
    pub async fn claim(&self, id: &SandboxId, size: Mib) -> Result<Utf8PathBuf, ScratchError> {
        let id = id.clone();
        self.blocking(move |inner| inner.claim(&id, size)).await
    }

    /// The mounted disk of a sandbox, if it has one. Reads a list of all mounts.
    ///
    /// # Errors
    /// When mounts cannot be listed.
    pub async fn find(&self, id: &SandboxId) -> Result<Option<Utf8PathBuf>, ScratchError> {
        let id = id.clone();
        self.blocking(move |inner| {
            let path = inner.mount_point(&id);
            let mounted = mounts::below(&path).map_err(ScratchError::io("list mounts below", &path))?;
            Ok(mounted.contains(&path).then_some(path))
        })
        .await
    }

    /// Removes a sandbox's disk with all that is on it. No disk is fine; half a disk too.
    ///
    /// # Errors
    /// When the kernel or the file system refuses; may be tried again.
    pub async fn remove(&self, id: &SandboxId) -> Result<(), ScratchError> {
        let id = id.clone();
        self.blocking(move |inner| inner.remove(&id)).await
    }

    /// Removes the disk of every sandbox that is not in `keep`.
    ///
    /// # Errors
    /// The first one; the other disks are tried nevertheless.
    pub async fn sweep(&self, keep: &HashSet<SandboxId>) -> Result<(), ScratchError> {
        let keep = keep.clone();
        self.blocking(move |inner| inner.sweep(&keep)).await
    }

    /// Stops making disks ahead and removes those that are ready. Disks of sandboxes are left as they are.
    ///
    /// # Errors
    /// When the work was cut short; what is left is removed when the disks are opened next.
    pub async fn close(&self) -> Result<(), ScratchError> {
        self.blocking(|inner| {
            inner.pool.close();
            Ok(())
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ScratchError> + Send + 'static,
    ) -> Result<T, ScratchError> {
        let inner = Arc::clone(&self.inner);
        tokio::task::spawn_blocking(move || work(&inner)).await.unwrap_or(Err(ScratchError::CutShort))
    }
}

impl Inner {
    fn mount_point(&self, id: &SandboxId) -> Utf8PathBuf {
        self.dir.join(id.as_str())
    }

    fn claim(&self, id: &SandboxId, size: Mib) -> Result<Utf8PathBuf, ScratchError> {
        let path = self.mount_point(id);
        let image = path.with_extension("ext4");
        if fs::exists(&image).map_err(ScratchError::io("look for", &image))? {
            return Err(ScratchError::Exists(id.clone()));
        }
        let disk = self.pool.take(size)?;
        // The image first: it is what a sweep looks for.
        if let Err(source) = fs::rename(&disk.image, &image) {
            disk.discard();
            return Err(ScratchError::io("name", &image)(source));
        }
        fs::create_dir_all(&path).map_err(ScratchError::io("make", &path))?;
        disk.mount.attach(&path).map_err(ScratchError::io("mount a scratch disk at", &path))?;
        Ok(path)
    }

    fn remove(&self, id: &SandboxId) -> Result<(), ScratchError> {
        let path = self.mount_point(id);
        // What is deleted before the unmount is not written to the image by it.
        empty(&path).map_err(ScratchError::io("empty", &path))?;
        mounts::detach(&path).map_err(ScratchError::io("unmount", &path))?;
        let image = path.with_extension("ext4");
        gone(fs::remove_file(&image)).map_err(ScratchError::io("remove", &image))?;
        gone(fs::remove_dir(&path)).map_err(ScratchError::io("remove", &path))
    }

    fn sweep(&self, keep: &HashSet<SandboxId>) -> Result<(), ScratchError> {
        let entries = self.dir.read_dir_utf8().map_err(ScratchError::io("list", &self.dir))?;
        // The image and the place of a disk have the same stem; those of the pool have none that is an id.
        let ids = entries.filter_map(Result::ok).filter_map(|entry| entry.path().file_stem()?.parse().ok());
        let unwanted: HashSet<SandboxId> = ids.filter(|id| !keep.contains(id)).collect();
        unwanted.iter().map(|id| self.remove(id)).fold(Ok(()), Result::and)
    }
}

/// Removes all that is in a directory. No directory is fine.
fn empty(dir: &Utf8Path) -> io::Result<()> {
    let entries = match dir.read_dir_utf8() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let removed = match entry.file_type()?.is_dir() {
            true => fs::remove_dir_all(entry.path()),
            false => fs::remove_file(entry.path()),
        };
        gone(removed)?;
    }
    Ok(())
}

/// What is not there is removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
