//! What an engine can be asked, and what a guest can.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use sandbar_model::{Capabilities, Lease, Resources, SandboxId, Usage};

use crate::{AdoptError, BootError, GuestRecord, RemoveError, StopError, UsageError};

/// Runs guests.
#[async_trait]
pub trait Engine: Send + Sync {
    /// What this engine can do, as probed when it was opened.
    fn capabilities(&self) -> &Capabilities;

    /// What will find the guest of `spec` again, before any of it exists. Pure: the same spec gives the
    /// same record. Whoever boots puts it on disk first.
    fn plan(&self, spec: &BootSpec) -> GuestRecord;

    /// Starts a guest and returns once its first program runs.
    ///
    /// # Errors
    /// After any error nothing of the guest is left.
    ///
    /// # Cancel safety
    /// When the future is dropped the start is abandoned, but parts of it may remain: call
    /// [`Engine::remove`] with the planned record, which also waits for a start still on its way.
    async fn boot(&self, spec: BootSpec) -> Result<Box<dyn Guest>, BootError>;

    /// The guest that an earlier process started, if it still runs; `None` if it does not, in which case
    /// something of it may be left for [`Engine::remove`].
    async fn adopt(&self, record: &GuestRecord) -> Result<Option<Box<dyn Guest>>, AdoptError>;

    /// Ends a guest at once, whatever state it is in, and removes everything the engine made for it:
    /// processes, cgroups, files. May be repeated; a guest that never was is already removed.
    async fn remove(&self, record: &GuestRecord) -> Result<(), RemoveError>;
}

/// A guest that was booted or adopted. Dropping it does not end the guest.
#[async_trait]
pub trait Guest: Send + Sync {
    /// What finds this guest again, now with its processes. To be kept in place of the planned record.
    fn record(&self) -> GuestRecord;

    /// Waits until the guest has ended by itself or was ended, and says how. May be called again.
    ///
    /// # Cancel safety
    /// Safe.
    async fn exited(&mut self) -> Exit;

    /// What the guest uses now.
    async fn usage(&self) -> Result<Usage, UsageError>;

    /// The last `max_bytes` of what the first program wrote to its standard output and error. Guest
    /// output: not to be trusted, perhaps not UTF-8.
    async fn console(&self, max_bytes: usize) -> Vec<u8>;

    /// Ends the guest and removes everything the engine made for it, like [`Engine::remove`].
    ///
    /// With a `grace`, its first program gets SIGTERM and that long to end; zero kills at once. A guest
    /// that has already ended is only cleaned up, and its own [`Exit`] returned.
    async fn stop(self: Box<Self>, grace: Duration) -> Result<Exit, StopError>;
}

/// Everything an engine needs to start a guest.
#[derive(Clone, Debug)]
pub struct BootSpec {
    /// The sandbox. Names every kernel object made for it.
    pub id: SandboxId,
    /// Its network. The engine enters the guest's namespace and takes over the link in it.
    pub lease: Lease,
    /// Root directory of the guest; never written to.
    pub root: Utf8PathBuf,
    /// Directory on a file system of the allowed size; everything the guest writes goes there.
    pub scratch: Utf8PathBuf,
    /// Directory for the engine's own files; made by the engine and removed by it.
    pub dir: Utf8PathBuf,
    /// Limits, enforced from outside. `disk` is not: the file system of `scratch` has that size.
    pub resources: Resources,
    /// Host name inside.
    pub hostname: String,
    /// First program and its arguments; runs as root in `/`.
    pub init: Vec<String>,
    /// Its whole environment.
    pub env: BTreeMap<String, String>,
    /// What it reads from its standard input, then end of file. At most [`BootSpec::STDIN_MAX`] bytes.
    pub stdin: Vec<u8>,
}

impl BootSpec {
    /// Longest [`BootSpec::stdin`], in bytes: what a pipe holds without a reader.
    pub const STDIN_MAX: usize = 65_536;
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Its first program ended with this code; 128 + n when signal n ended it.
    Code(i32),
    /// It was killed from outside.
    Killed,
    /// The host killed it because it needed more memory than allowed. (A single process in the guest
    /// that does so is killed alone, and the guest goes on.)
    OutOfMemory,
    /// It ended while nobody could be told how.
    Unknown,
}
