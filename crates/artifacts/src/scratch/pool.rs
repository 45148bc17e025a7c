//! Disks made ahead, by a thread that does nothing else.

use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use camino::Utf8PathBuf;
use sandbar_model::Mib;

use super::loop_device::{Detached, LoopDevice};
use super::{ScratchError, ScratchSettings, image};

/// How long the maker rests after it could not make one. Claims make their own meanwhile.
const REST: Duration = Duration::from_secs(5);

// With a dash, which no sandbox id has: the files of the pool and of sandboxes are told apart by it.
const TEMPLATE: &str = "template-";
const READY: &str = "ready-";

/// A disk that no sandbox has yet. Its mount goes away when it is dropped; its image does not.
#[derive(Debug)]
pub(super) struct ReadyDisk {
    pub(super) image: Utf8PathBuf,
    pub(super) mount: Detached,
}

impl ReadyDisk {
    /// Removes the disk of nobody. What is left if that fails is removed when the pool is opened next.
    pub(super) fn discard(self) {
        drop(self.mount);
        let _ = fs::remove_file(self.image);
    }
}

/// The disks that are ready, and how more are made.
pub(super) struct Pool {
    shared: Arc<Shared>,
    maker: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    dir: Utf8PathBuf,
    settings: ScratchSettings,
    next: AtomicU64,
    /// Held while a template is made, so that it is made once.
    formatting: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<ReadyDisk>,
    closed: bool,
}

impl Pool {
    /// Removes what an earlier pool left in `dir` and starts the maker.
    pub(super) fn open(dir: Utf8PathBuf, settings: ScratchSettings) -> Result<Self, ScratchError> {
        // Templates of another version, and disks of a server that died, whose mounts died with it.
        for entry in dir.read_dir_utf8().map_err(ScratchError::io("list", &dir))?.filter_map(Result::ok) {
            if [TEMPLATE, READY].iter().any(|prefix| entry.file_name().starts_with(prefix)) {
                super::gone(fs::remove_file(entry.path()))
                    .map_err(ScratchError::io("remove", entry.path()))?;
            }
        }
        let shared = Arc::new(Shared {
            dir,
            settings,
            next: AtomicU64::new(0),
            formatting: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let maker = Arc::clone(&shared);
        let maker = match settings.ready_min {
            0 => None,
            _ => Some(
                thread::Builder::new()
                    .name("scratch-pool".to_owned())
                    .spawn(move || maker.keep_full())
                    .map_err(ScratchError::io("start the maker of disks in", &shared.dir))?,
            ),
        };
        Ok(Self { shared, maker: Mutex::new(maker) })
    }

    /// A disk of this size: one that is ready, else one made now.
    pub(super) fn take(&self, size: Mib) -> Result<ReadyDisk, ScratchError> {
        if size == self.shared.settings.size
            && let Some(disk) = self.shared.state().ready.pop_front()
        {
            self.shared.changed.notify_all();
            return Ok(disk);
        }
        self.shared.make(size)
    }

    /// Ends the maker and removes what is ready. May be called twice.
    pub(super) fn close(&self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
        let maker = self.maker.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(maker) = maker {
            // A panic of the maker has been printed by itself.
            let _ = maker.join();
        }
        let ready = std::mem::take(&mut self.shared.state().ready);
        ready.into_iter().for_each(ReadyDisk::discard);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl Shared {
    fn keep_full(&self) {
        let mut state = self.state();
        while !state.closed {
            if state.ready.len() >= self.settings.ready_min {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let made = self.make(self.settings.size);
            state = self.state();
            match made {
                Ok(disk) => state.ready.push_back(disk),
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "scratch disk not made ahead");
                    let rested = self.changed.wait_timeout(state, REST);
                    state = rested.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    fn make(&self, size: Mib) -> Result<ReadyDisk, ScratchError> {
        let template = self.template(size)?;
        let image = self.dir.join(format!("{READY}{}.ext4", self.next.fetch_add(1, Ordering::Relaxed)));
        let made = image::clone(&template, &image)
            .map_err(ScratchError::io("make", &image))
            .and_then(|()| {
                LoopDevice::attach(&image)
                    .map_err(|source| ScratchError::Attach { image: image.clone(), source })
            })
            .and_then(|device| device.mount().map_err(ScratchError::io("mount", &image)));
        match made {
            Ok(mount) => Ok(ReadyDisk { image, mount }),
            Err(error) => {
                // The first error says more than that this fails, too.
                let _ = super::gone(fs::remove_file(&image));
                Err(error)
            }
        }
    }

    fn template(&self, size: Mib) -> Result<Utf8PathBuf, ScratchError> {
        let path = self.dir.join(format!("{TEMPLATE}{}.ext4", size.0));
        let _formatting = self.formatting.lock().unwrap_or_else(PoisonError::into_inner);
        match fs::metadata(&path) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => image::format(&path, size)?,
            Err(error) => return Err(ScratchError::io("look for", &path)(error)),
        }
        Ok(path)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Disks are pushed and popped whole; there is no state in between.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
