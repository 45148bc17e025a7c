//! Why an engine or a guest could not do what was asked.

use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use sandbar_model::{ErrorKind, SandboxId};

/// Why no engine could be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no `runsc`.
    #[error("runsc not found (looked for {}); `cargo xtask up` installs it", searched.join(", "))]
    NotFound {
        /// Where it was looked for.
        searched: Vec<String>,
    },
    /// There is only a `runsc` that is too old.
    #[error("{path} is version {version}, but {needed} or newer is needed; `cargo xtask up` installs one")]
    TooOld {
        /// The program.
        path: Utf8PathBuf,
        /// Its version, as it says itself.
        version: String,
        /// Date of the oldest release that will do, as `yyyymmdd`.
        needed: u32,
    },
    /// There is a `runsc`, but it does not tell its version and flags.
    #[error("{path} does not work here: {reason}")]
    Broken {
        /// The program.
        path: Utf8PathBuf,
        /// What it said.
        reason: String,
    },
    /// The host's cgroups cannot be used.
    #[error("cgroups are not usable: {reason}")]
    Cgroups {
        /// What is missing.
        reason: String,
    },
}

impl OpenError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

/// Why a guest could not be started. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The spec cannot be honoured by this engine.
    #[error("boot of {id} refused: {reason}")]
    Refused {
        /// The sandbox.
        id: SandboxId,
        /// What is wrong with its spec.
        reason: String,
    },
    /// The engine's files could not be written.
    #[error("write {path}")]
    Write {
        /// The file or directory.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The engine's program could not be started.
    #[error("{step}")]
    Launch {
        /// What was being done.
        step: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The engine's program said no.
    #[error("runsc could not start the guest: {reason}")]
    Failed {
        /// What it said.
        reason: String,
    },
    /// The guest's program was started and cannot be found any more.
    #[error("the guest ended while it was being started: {reason}")]
    Ended {
        /// What is known.
        reason: String,
    },
    /// Its limits could not be set.
    #[error("set the limits of the guest")]
    Limits {
        /// Why.
        source: io::Error,
    },
    /// It took too long.
    #[error("the guest did not start within {} s", limit.as_secs())]
    Timeout {
        /// How long it had.
        limit: Duration,
    },
}

impl BootError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { .. } => ErrorKind::Invalid,
            Self::Write { .. }
            | Self::Launch { .. }
            | Self::Failed { .. }
            | Self::Ended { .. }
            | Self::Limits { .. } => ErrorKind::Internal,
            Self::Timeout { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Why it cannot be told whether a guest still runs.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Another engine, or another version of this code, made the record.
    #[error("record of {engine}, version {version}, is not ours")]
    Foreign {
        /// The engine in the record.
        engine: String,
        /// The version of the record.
        version: u32,
    },
    /// The kernel could not be asked.
    #[error("look for process {pid}")]
    Look {
        /// The process.
        pid: i32,
        /// Why.
        source: io::Error,
    },
}

/// Why something of a guest is left. To be tried again.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// Another engine, or another version of this code, made the record.
    #[error("record of {engine}, version {version}, is not ours")]
    Foreign {
        /// The engine in the record.
        engine: String,
        /// The version of the record.
        version: u32,
    },
    /// Processes do not end.
    #[error("processes {pids:?} of the guest do not end")]
    StillRunning {
        /// Some of them.
        pids: Vec<i32>,
    },
    /// A process could not be looked at or killed.
    #[error("end the processes of the guest")]
    Kill {
        /// Why.
        source: io::Error,
    },
    /// A cgroup, file or directory could not be removed.
    #[error("remove {path}")]
    Remove {
        /// What.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Why a guest could not be stopped. To be tried again with [`Engine::remove`](crate::Engine::remove).
#[derive(Debug, thiserror::Error)]
#[error("stop guest {id}")]
pub struct StopError {
    /// The sandbox.
    pub id: SandboxId,
    /// Why.
    pub source: RemoveError,
}

/// Why a guest's usage could not be told.
#[derive(Debug, thiserror::Error)]
#[error("read usage from {path}")]
pub struct UsageError {
    /// What was being read.
    pub path: Utf8PathBuf,
    /// Why.
    pub source: io::Error,
}
