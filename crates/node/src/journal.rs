//! What must be found again after the server was killed: one file per sandbox.
//!
//! A record is written (temporary file, fsync, rename, fsync of the directory) before the step it describes
//! is taken, and removed when nothing of the sandbox is left. Files are `<sandbox id>.json`, mode 0600: a
//! record holds the agent's control secret.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_engine::GuestRecord;
use sandbar_model::{EgressPolicy, RunId, SandboxId, SlotIndex};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

/// The format this server writes; it reads this one only.
const VERSION: u32 = 1;

/// What is known of a sandbox on this host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    version: u32,
    id: String,
    run: String,
    phase: Phase,
    slot: u16,
    internet: bool,
    layers: Vec<String>,
    pub(crate) control_secret: String,
    pub(crate) guest: GuestRecord,
}

/// How far the sandbox had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Being started: after a crash it is removed, since nobody was told that it runs.
    Starting,
    /// Answered to its caller: after a crash it is adopted.
    Running,
}

/// The parts of a new record.
pub(crate) struct NewRecord<'a> {
    pub(crate) id: &'a SandboxId,
    pub(crate) run: RunId,
    pub(crate) slot: SlotIndex,
    pub(crate) egress: EgressPolicy,
    pub(crate) layers: &'a [sandbar_model::LayerDigest],
    pub(crate) control_secret: &'a str,
    pub(crate) guest: GuestRecord,
}

impl Record {
    pub(crate) fn new(new: NewRecord<'_>) -> Self {
        Self {
            version: VERSION,
            id: new.id.to_string(),
            run: new.run.to_string(),
            phase: Phase::Starting,
            slot: new.slot.0,
            internet: new.egress == EgressPolicy::Internet,
            layers: new.layers.iter().map(ToString::to_string).collect(),
            control_secret: new.control_secret.to_owned(),
            guest: new.guest,
        }
    }

    /// The same record once the guest runs.
    pub(crate) fn running(mut self, guest: GuestRecord) -> Self {
        self.phase = Phase::Running;
        self.guest = guest;
        self
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// `None` when the record names no run: then nobody can be told that it goes on.
    pub(crate) fn run(&self) -> Option<RunId> {
        self.run.parse().ok()
    }

    pub(crate) fn slot(&self) -> SlotIndex {
        SlotIndex(self.slot)
    }

    pub(crate) fn egress(&self) -> EgressPolicy {
        if self.internet { EgressPolicy::Internet } else { EgressPolicy::Nothing }
    }

    /// The layers, as far as they are digests; a record with others is from nobody.
    pub(crate) fn layers(&self) -> Vec<sandbar_model::LayerDigest> {
        self.layers.iter().filter_map(|digest| digest.parse().ok()).collect()
    }
}

/// Why the journal could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The directory.
    #[error("open journal {path}")]
    Open {
        /// The directory.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record.
    #[error("write journal record {path}")]
    Write {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record.
    #[error("remove journal record {path}")]
    Remove {
        /// The file.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directory of records.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    dir: Utf8PathBuf,
}

/// One file of the journal as found at start.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) id: SandboxId,
    /// `None` when the file cannot be read as a record of this version.
    pub(crate) record: Option<Record>,
}

impl Journal {
    /// Opens the directory, making it where it is missing.
    pub(crate) fn open(dir: Utf8PathBuf) -> Result<Self, JournalError> {
        fs::create_dir_all(&dir).map_err(|source| JournalError::Open { path: dir.clone(), source })?;
        Ok(Self { dir })
    }

    /// Every record, readable or not. Files that are no records (temporary ones) are removed.
    pub(crate) fn load(&self) -> Result<Vec<Found>, JournalError> {
        let open = |source| JournalError::Open { path: self.dir.clone(), source };
        let mut found = Vec::new();
        for entry in self.dir.read_dir_utf8().map_err(open)? {
            let entry = entry.map_err(open)?;
            let id = entry.file_name().strip_suffix(".json").and_then(|stem| stem.parse().ok());
            match id {
                Some(id) => found.push(Found { id, record: read(entry.path()) }),
                None => fs::remove_file(entry.path()).map_err(open)?,
            }
        }
        Ok(found)
    }

    /// The place of one sandbox's record.
    pub(crate) fn entry(&self, id: &SandboxId) -> Entry {
        Entry { path: self.dir.join(format!("{id}.json")), turn: Arc::default() }
    }
}

/// The place of one sandbox's record. Its owner is the sandbox's task.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    path: Utf8PathBuf,
    /// Held until the disk is done, so that a write whose future was dropped cannot bring back a record that
    /// was removed after it.
    turn: Arc<Mutex<()>>,
}

impl Entry {
    /// Writes the record; when this returns it is on disk.
    ///
    /// # Cancel safety
    /// The write goes on without its caller; whatever is asked next waits for it.
    pub(crate) async fn write(&self, record: &Record) -> Result<(), JournalError> {
        let path = self.path.clone();
        let text = serde_json::to_vec(record).expect("a record has string keys only");
        self.blocking(move || {
            write_durably(&path, &text).map_err(|source| JournalError::Write { path, source })
        })
        .await
    }

    /// Removes the record; one that is not there is removed already.
    pub(crate) async fn remove(&self) -> Result<(), JournalError> {
        let path = self.path.clone();
        // Without fsync: a record that comes back after a crash of the host names a guest that is gone, and
        // adoption removes it again.
        self.blocking(move || match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(JournalError::Remove { path, source })
            }
            _ => Ok(()),
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let work = move || {
            let done = work();
            drop(turn);
            done
        };
        tokio::task::spawn_blocking(work).await.expect("journal I/O does not panic")
    }
}

fn read(path: &Utf8Path) -> Option<Record> {
    let text = fs::read(path).ok()?;
    serde_json::from_slice::<Record>(&text).ok().filter(|record| record.version == VERSION)
}

fn write_durably(path: &Utf8Path, text: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let dir = path.parent().expect("a record lies in the journal's directory");
    fs::File::open(dir)?.sync_all()
}
