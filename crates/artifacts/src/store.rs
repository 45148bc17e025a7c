//! The store of layers: directory trees named by what they are.
//!
//! ```text
//!  <dir>/layers/<digest>/       a finished layer, never written again
//!  <dir>/layers/tmp-<digest>-…  one being made: tree/ becomes the layer, work/ is thrown away
//!  <dir>/locks/<digest>         held while it is made; holds the news of the maker for those who wait
//! ```
//!
//! A name without `tmp-` always holds complete data: the tree is on disk before the rename that names it.
//! Several servers may share a store; what two of them want at once is made once.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::process;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::LayerDigest;

use crate::Reporter;

/// How often a waiter looks for the lock and for news.
const WAIT_STEP: Duration = Duration::from_millis(100);
/// Longer than any maker may take, all its steps together.
const WAIT_MAX: Duration = Duration::from_secs(2 * 3600);

/// Why the store could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory of the store could not be used.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Somebody else is making the layer and does not finish.
    #[error("another process has been making layer {digest} for more than {} minutes", WAIT_MAX.as_secs() / 60)]
    Stuck {
        /// The layer.
        digest: LayerDigest,
    },
}

impl StoreError {
    pub(crate) fn io(doing: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

/// A layer in the making.
pub(crate) struct Staging {
    /// Becomes the layer. Exists, is empty, and belongs to root with mode 0755.
    pub(crate) tree: Utf8PathBuf,
    /// For whatever else is needed meanwhile, on the same file system. Exists and is empty.
    pub(crate) work: Utf8PathBuf,
}

/// The layers below one artifacts directory. Cheap to clone.
#[derive(Clone, Debug)]
pub struct LayerStore {
    layers: Arc<Utf8Path>,
    locks: Arc<Utf8Path>,
}

impl LayerStore {
    /// Opens the store below `artifacts_dir` and makes its directories where they are missing.
    ///
    /// # Errors
    /// When a directory cannot be made.
    pub fn open(artifacts_dir: &Utf8Path) -> Result<Self, StoreError> {
        let store =
            Self { layers: artifacts_dir.join("layers").into(), locks: artifacts_dir.join("locks").into() };
        for dir in [&store.layers, &store.locks] {
            fs::create_dir_all(&**dir).map_err(StoreError::io("make", &**dir))?;
        }
        // Layers hold setuid programs, which must be out of reach for the users of the host.
        set_mode(&store.layers, 0o700).map_err(StoreError::io("set the mode of", &*store.layers))?;
        Ok(store)
    }

    /// Where the tree of a layer is, or would be.
    pub fn path(&self, digest: &LayerDigest) -> Utf8PathBuf {
        self.layers.join(digest.as_str())
    }

    /// Whether the layer is here.
    pub fn contains(&self, digest: &LayerDigest) -> bool {
        self.path(digest).is_dir()
    }

    /// Returns once the layer is here; `make` fills its tree if nobody else has done so or is doing it.
    ///
    /// Blocks. After an error nothing has the layer's name.
    pub(crate) fn ensure<E: From<StoreError>>(
        &self,
        digest: &LayerDigest,
        report: &Reporter,
        make: impl FnOnce(&Staging, &Reporter) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.contains(digest) {
            return Ok(());
        }
        let lock = Arc::new(self.lock(digest, report)?);
        if self.contains(digest) {
            return Ok(());
        }
        let made = self.stage(digest).map_err(E::from).and_then(|staging| {
            make(&staging, &tee(report, Arc::clone(&lock)))?;
            Ok(self.commit(&staging.tree, digest)?)
        });
        // What is left here is found by its name and removed when the layer is made next.
        if let Err(error) = self.remove_staged(digest) {
            tracing::warn!(%digest, error = &error as &dyn std::error::Error, "staging directory not removed");
        }
        drop(lock);
        made
    }

    /// Takes the layer's lock; while another process has it, its news is reported here.
    ///
    /// The lock ends with the last copy of the file, at the latest with the process.
    fn lock(&self, digest: &LayerDigest, report: &Reporter) -> Result<File, StoreError> {
        let path = self.locks.join(digest.as_str());
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let started = Instant::now();
        let mut waiting = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(source)) => return Err(StoreError::io("lock", &path)(source)),
                Err(TryLockError::WouldBlock) => {}
            }
            if !waiting {
                report.line("wait", "another process is making this; its news follows");
                waiting = true;
            }
            if started.elapsed() > WAIT_MAX {
                return Err(StoreError::Stuck { digest: digest.clone() });
            }
            thread::sleep(WAIT_STEP);
            // A read may end inside a line; the rest of it comes as another piece of news.
            let mut news = Vec::new();
            file.read_to_end(&mut news).map_err(StoreError::io("read", &path))?;
            for line in String::from_utf8_lossy(&news).lines() {
                let (step, line) = line.split_once('\t').unwrap_or(("wait", line));
                report.line(step, line);
            }
        }
        file.set_len(0).map_err(StoreError::io("empty", &path))?;
        Ok(file)
    }

    /// We hold the lock: whatever is there belongs to a maker that died.
    fn stage(&self, digest: &LayerDigest) -> Result<Staging, StoreError> {
        self.remove_staged(digest)?;
        // Of our own, so that nothing a dead maker has started can still write into it.
        let dir = self.layers.join(format!("tmp-{digest}-{}", process::id()));
        let staging = Staging { tree: dir.join("tree"), work: dir.join("work") };
        for path in [&staging.tree, &staging.work] {
            fs::create_dir_all(path).map_err(StoreError::io("make", path))?;
            set_mode(path, 0o755).map_err(StoreError::io("set the mode of", path))?;
        }
        Ok(staging)
    }

    fn remove_staged(&self, digest: &LayerDigest) -> Result<(), StoreError> {
        let prefix = format!("tmp-{digest}-");
        let entries = self.layers.read_dir_utf8().map_err(StoreError::io("list", &*self.layers))?;
        for entry in entries.filter_map(Result::ok).filter(|entry| entry.file_name().starts_with(&prefix)) {
            fs::remove_dir_all(entry.path()).map_err(StoreError::io("remove", entry.path()))?;
        }
        Ok(())
    }

    /// Data first, then the name, then the name's own durability.
    fn commit(&self, tree: &Utf8Path, digest: &LayerDigest) -> Result<(), StoreError> {
        let open = |path: &Utf8Path| File::open(path).map_err(StoreError::io("open", path));
        // One call for the whole file system instead of one for each of some ten thousand files.
        rustix::fs::syncfs(open(tree)?).map_err(|error| StoreError::io("sync", tree)(error.into()))?;
        let path = self.path(digest);
        fs::rename(tree, &path).map_err(StoreError::io("name", &path))?;
        open(&self.layers)?.sync_all().map_err(StoreError::io("sync", &*self.layers))
    }
}

pub(crate) fn set_mode(path: &Utf8Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))
}

/// News goes to our own caller and into the lock's file, where those who wait read it.
fn tee(report: &Reporter, lock: Arc<File>) -> Reporter {
    let report = report.clone();
    Reporter::new(move |news| {
        // Only waiters miss it if it cannot be written; the work itself does not depend on it.
        let _ = (&*lock).write_all(format!("{}\t{}\n", news.step, news.line).as_bytes());
        report.line(&news.step, &*news.line);
    })
}

#[cfg(test)]
mod tests;
