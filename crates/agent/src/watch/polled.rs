//! Watchers that collect events until they are asked for them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sandbar_wire::envd::filesystem::FilesystemEvent;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Wanted, Watch, WatchError, told};

/// Events kept for a client that does not fetch them. Beyond that its watcher fails.
const EVENTS_MAX: usize = 1_000_000;

/// All watchers, by id. They belong to nobody's connection.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    by_id: Mutex<HashMap<String, Watcher>>,
    /// Owns the task of every watcher.
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Watcher {
    collected: Arc<Mutex<Collected>>,
    removed: CancellationToken,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.removed.cancel();
    }
}

#[derive(Debug)]
struct Collected {
    watch: Watch,
    events: Vec<FilesystemEvent>,
    /// Set once nothing more can be collected.
    failed: Option<WatchError>,
}

impl Collected {
    fn collect(&mut self) {
        if self.failed.is_some() {
            return;
        }
        match self.watch.take() {
            Ok(events) if self.events.len() + events.len() > EVENTS_MAX => {
                self.events = Vec::new();
                self.failed = Some(WatchError::TooMany(self.watch.wanted.path.clone()));
            }
            Ok(events) => self.events.extend(events),
            Err(error) => self.failed = Some(error),
        }
    }
}

impl Watchers {
    /// Arms a watch and returns its id. Blocks while the directories are walked.
    pub(crate) fn create(&self, wanted: Wanted) -> Result<String, WatchError> {
        let watch = Watch::arm(wanted)?;
        let signal = watch.signal()?;
        let collected = Arc::new(Mutex::new(Collected { watch, events: Vec::new(), failed: None }));
        let removed = CancellationToken::new();
        let id = new_id();
        let (of_task, until) = (collected.clone(), removed.clone());
        // The kernel's queue is short: it is emptied all the time, not only when a client asks.
        self.tasks.spawn(async move {
            let collecting = async {
                while told(&signal).await.is_ok() {
                    let of_task = of_task.clone();
                    let collected = tokio::task::spawn_blocking(move || lock(&of_task).collect());
                    if collected.await.is_err() {
                        return;
                    }
                }
            };
            let _ = until.run_until_cancelled(collecting).await;
        });
        self.lock().insert(id.clone(), Watcher { collected, removed });
        Ok(id)
    }

    /// Everything that has happened since the last call, up to this very moment. Blocks shortly.
    pub(crate) fn take(&self, id: &str) -> Result<Vec<FilesystemEvent>, WatchError> {
        let found = self.lock().get(id).map(|watcher| watcher.collected.clone());
        let collected = found.ok_or_else(|| WatchError::NoWatcher(id.to_owned()))?;
        let mut collected = lock(&collected);
        collected.collect();
        match &collected.failed {
            Some(failed) => Err(WatchError::Ended(failed.to_string())),
            None => Ok(std::mem::take(&mut collected.events)),
        }
    }

    pub(crate) fn remove(&self, id: &str) -> Result<(), WatchError> {
        self.lock().remove(id).map(drop).ok_or_else(|| WatchError::NoWatcher(id.to_owned()))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Watcher>> {
        lock(&self.by_id)
    }
}

/// A half-done collection is as good as one that was interrupted by nothing worse than a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `w` and twenty characters that nobody guesses.
fn new_id() -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let random: [u8; 20] = rand::random();
    let characters = random.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()]));
    std::iter::once('w').chain(characters).collect()
}
