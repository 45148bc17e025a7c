//! An engine that runs nothing, for tests of what is built on engines.
//!
//! It keeps the contract (the suite in `tests/conformance` holds it to that) and can be told to fail at a
//! step, to wait at one, or to let a guest end. Guests live in [`Fake`] and not in an engine: each
//! [`Fake::engine`] is what a restarted server would open.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8PathBuf;
use sandbar_model::{Capabilities, SandboxId, Usage};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    AdoptError, BootError, BootSpec, Engine, Exit, Guest, GuestRecord, ProcessRecord, RemoveError, StopError,
    UsageError,
};

const NAME: &str = "fake";

/// Makes a host with no guests.
pub fn fake() -> Fake {
    Fake::default()
}

/// A host whose guests are only noted down. Clones are the same host.
#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Host>>);

#[derive(Default)]
struct Host {
    guests: HashMap<SandboxId, Entry>,
    /// How often the next calls of a step fail.
    failures: HashMap<FakeStep, u32>,
    /// Steps that wait while the value is true.
    held: HashMap<FakeStep, watch::Sender<bool>>,
    started: u64,
}

enum Entry {
    Starting(CancellationToken),
    Started(Box<Started>),
}

struct Started {
    spec: BootSpec,
    process: ProcessRecord,
    exit: watch::Sender<Option<Exit>>,
}

/// A call that can be made to fail or wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FakeStep {
    /// [`Engine::boot`].
    Boot,
    /// [`Engine::adopt`].
    Adopt,
    /// [`Engine::remove`].
    Remove,
    /// [`Guest::stop`].
    Stop,
    /// [`Guest::usage`].
    Usage,
}

impl Fake {
    /// An engine on this host.
    pub fn engine(&self) -> Arc<dyn Engine> {
        let capabilities = Capabilities {
            engine: NAME,
            engine_version: "0".to_owned(),
            hardware_isolation: false,
            memory_snapshot: false,
            setuid: true,
        };
        Arc::new(FakeEngine { host: self.clone(), capabilities })
    }

    /// Lets the next `times` calls of a step fail.
    pub fn fail(&self, step: FakeStep, times: u32) {
        self.lock().failures.insert(step, times);
    }

    /// Lets all calls of a step wait, before they do anything, until [`Fake::release`].
    pub fn hold(&self, step: FakeStep) {
        self.lock().held.entry(step).or_default().send_replace(true);
    }

    /// Lets the calls of a step go on.
    pub fn release(&self, step: FakeStep) {
        self.lock().held.entry(step).or_default().send_replace(false);
    }

    /// Lets a guest end. One that has ended, or never was, stays as it is.
    pub fn end(&self, id: &SandboxId, exit: Exit) {
        if let Some(Entry::Started(started)) = self.lock().guests.get(id) {
            started.end(exit);
        }
    }

    /// The spec a guest was booted with, while something of it is left.
    pub fn booted(&self, id: &SandboxId) -> Option<BootSpec> {
        match self.lock().guests.get(id) {
            Some(Entry::Started(started)) => Some(started.spec.clone()),
            _ => None,
        }
    }

    /// All guests of which something is left: that are being started, run, or ended and were not removed.
    pub fn left(&self) -> Vec<SandboxId> {
        self.lock().guests.keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Host> {
        self.0.lock().expect("nothing panics while holding it")
    }

    /// Waits if the step is held, then fails if it shall.
    async fn pass(&self, step: FakeStep) -> io::Result<()> {
        let mut held = self.lock().held.entry(step).or_default().subscribe();
        // The sender lives as long as the host.
        let _ = held.wait_for(|held| !held).await;
        match self.lock().failures.get_mut(&step) {
            Some(times) if *times > 0 => {
                *times -= 1;
                Err(io::Error::other("injected"))
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, id: &SandboxId) {
        match self.lock().guests.remove(id) {
            Some(Entry::Starting(cancel)) => cancel.cancel(),
            Some(Entry::Started(started)) => started.end(Exit::Killed),
            None => {}
        }
    }
}

impl Started {
    /// The first end counts.
    fn end(&self, exit: Exit) {
        self.exit.send_if_modified(|known| known.is_none() && known.replace(exit).is_none());
    }

    fn guest(&self, host: &Fake, record: GuestRecord) -> FakeGuest {
        FakeGuest { host: host.clone(), record, exit: self.exit.subscribe() }
    }
}

struct FakeEngine {
    host: Fake,
    capabilities: Capabilities,
}

/// Undoes a start whose future is dropped.
struct StartGuard<'a> {
    host: &'a Fake,
    id: SandboxId,
}

impl Drop for StartGuard<'_> {
    fn drop(&mut self) {
        let mut host = self.host.lock();
        if let Some(Entry::Starting(_)) = host.guests.get(&self.id) {
            host.guests.remove(&self.id);
        }
    }
}

#[async_trait]
impl Engine for FakeEngine {
    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn plan(&self, spec: &BootSpec) -> GuestRecord {
        GuestRecord {
            version: GuestRecord::VERSION,
            engine: NAME.to_owned(),
            id: spec.id.clone(),
            dir: spec.dir.clone(),
            scratch: spec.scratch.clone(),
            cgroup: Utf8PathBuf::from(format!("fake/{}", spec.id)),
            process: None,
        }
    }

    async fn boot(&self, spec: BootSpec) -> Result<Box<dyn Guest>, BootError> {
        let mut record = self.plan(&spec);
        let cancel = CancellationToken::new();
        self.host.lock().guests.insert(spec.id.clone(), Entry::Starting(cancel.clone()));
        let guard = StartGuard { host: &self.host, id: spec.id.clone() };
        let passed = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                return Err(BootError::Ended { reason: "it was removed".to_owned() });
            }
            passed = self.host.pass(FakeStep::Boot) => passed,
        };
        passed.map_err(|error| BootError::Failed { reason: error.to_string() })?;

        let mut host = self.host.lock();
        if cancel.is_cancelled() {
            return Err(BootError::Ended { reason: "it was removed".to_owned() });
        }
        host.started += 1;
        // No real process has pid 0.
        let process = ProcessRecord { pid: 0, start_time: host.started, boot_id: NAME.to_owned() };
        record.process = Some(process.clone());
        let started = Started { spec, process, exit: watch::Sender::default() };
        let guest = started.guest(&self.host, record.clone());
        host.guests.insert(record.id, Entry::Started(Box::new(started)));
        drop(host);
        drop(guard);
        Ok(Box::new(guest))
    }

    async fn adopt(&self, record: &GuestRecord) -> Result<Option<Box<dyn Guest>>, AdoptError> {
        if record.engine != NAME || record.version != GuestRecord::VERSION {
            return Err(AdoptError::Foreign { engine: record.engine.clone(), version: record.version });
        }
        self.host.pass(FakeStep::Adopt).await.map_err(|source| AdoptError::Look { pid: 0, source })?;
        Ok(match self.host.lock().guests.get(&record.id) {
            Some(Entry::Started(started))
                if Some(&started.process) == record.process.as_ref() && started.exit.borrow().is_none() =>
            {
                Some(Box::new(started.guest(&self.host, record.clone())))
            }
            _ => None,
        })
    }

    async fn remove(&self, record: &GuestRecord) -> Result<(), RemoveError> {
        if record.engine != NAME || record.version != GuestRecord::VERSION {
            return Err(RemoveError::Foreign { engine: record.engine.clone(), version: record.version });
        }
        self.host.pass(FakeStep::Remove).await.map_err(|source| RemoveError::Kill { source })?;
        self.host.remove(&record.id);
        Ok(())
    }
}

struct FakeGuest {
    host: Fake,
    record: GuestRecord,
    exit: watch::Receiver<Option<Exit>>,
}

#[async_trait]
impl Guest for FakeGuest {
    fn record(&self) -> GuestRecord {
        self.record.clone()
    }

    async fn exited(&mut self) -> Exit {
        let known = self.exit.wait_for(Option::is_some).await;
        // The guest was removed, and its sender with it, only after its end was sent.
        known.ok().and_then(|exit| *exit).unwrap_or(Exit::Unknown)
    }

    async fn usage(&self) -> Result<Usage, UsageError> {
        let passed = self.host.pass(FakeStep::Usage).await;
        passed.map_err(|source| UsageError { path: self.record.cgroup.clone(), source })?;
        Ok(Usage::default())
    }

    async fn console(&self, max_bytes: usize) -> Vec<u8> {
        let text = b"fake guest\n";
        text[text.len().saturating_sub(max_bytes)..].to_vec()
    }

    async fn stop(mut self: Box<Self>, _grace: Duration) -> Result<Exit, StopError> {
        let id = self.record.id.clone();
        let passed = self.host.pass(FakeStep::Stop).await;
        passed.map_err(|source| StopError { id: id.clone(), source: RemoveError::Kill { source } })?;
        self.host.remove(&id);
        Ok(self.exited().await)
    }
}
