//! gVisor: one `runsc` sandbox per guest, started in the guest's network namespace.
//!
//! ```text
//!  write bundle ─▶ launch `runsc run -detach` ─▶ wait for it ─▶ settle limits ─▶ Guest (holds a pidfd)
//!                  (a thread in namespaces        (reason in
//!                   of its own, no fork of us)     its log)
//! ```
//!
//! Two processes remain, the sentry (the guest's kernel) and the gofer (its eyes on the root directory);
//! none of ours. They are in a session and a cgroup of their own and go on when we end. The sentry
//! ends with the guest's first program and has its exit code.

mod bundle;
mod guest;
mod launch;
mod runsc;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::{Capabilities, InstanceId, SandboxId};
use tokio::sync::OwnedMutexGuard;

use crate::cgroup::{Cgroups, Settled};
use crate::process::{self, Process};
use crate::{AdoptError, BootError, BootSpec, Engine, Guest, GuestRecord, OpenError, RemoveError};
use bundle::{Files, Processors};
use guest::GvisorGuest;
use launch::{Launch, Netns};
use runsc::Runsc;

/// The engine's name in records and capabilities.
const NAME: &str = "gvisor";

/// Memory a guest's engine may need beyond what the guest sees: sentry, gofer, page tables and the
/// stub processes that run guest code (about 300 KiB for each process in the guest).
const OVERHEAD_BYTES: u64 = 160 << 20;

/// How long processes get to die and cgroups to empty.
const REMOVE_LIMIT: Duration = Duration::from_secs(10);

/// How gVisor is set up on this host.
#[derive(Clone, Debug)]
pub struct Config {
    /// Part of the names of all cgroups.
    pub instance: InstanceId,
    /// Where `runsc` may be, best first. A name without `/` is looked for on `PATH`. The first that is
    /// new enough is taken.
    pub runsc: Vec<Utf8PathBuf>,
    /// How long a guest may take to start.
    pub boot_limit: Duration,
}

/// Opens the gVisor engine: finds `runsc`, asks for its version and flags once, looks at the cgroups.
///
/// # Errors
/// [`OpenError`] names the cure. That guests really start here is not tried: see [`probe`](crate::probe()).
pub async fn open(config: Config) -> Result<Arc<dyn Engine>, OpenError> {
    let runsc = Runsc::find(&config.runsc).await?;
    let cgroups = Cgroups::find().map_err(|reason| OpenError::Cgroups { reason })?;
    let processors =
        Processors::online().map_err(|error| OpenError::Cgroups { reason: error.to_string() })?;
    let capabilities = Capabilities {
        engine: NAME,
        engine_version: runsc.version.clone(),
        hardware_isolation: false,
        memory_snapshot: false,
        setuid: runsc.allow_suid,
    };
    let host = Host { config, runsc, cgroups, processors };
    Ok(Arc::new(Gvisor { host: Arc::new(host), capabilities, launches: Launches::default() }))
}

struct Gvisor {
    host: Arc<Host>,
    capabilities: Capabilities,
    launches: Launches,
}

/// What is known about the host; shared by the engine and its guests.
struct Host {
    config: Config,
    runsc: Runsc,
    cgroups: Cgroups,
    processors: Processors,
}

/// Keeps a removal from overtaking a launch whose future was dropped while its thread was at work.
#[derive(Default)]
struct Launches(Mutex<HashMap<SandboxId, Weak<tokio::sync::Mutex<()>>>>);

impl Launches {
    async fn lock(&self, id: &SandboxId) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.0.lock().expect("nothing panics while holding it");
            locks.retain(|_, lock| lock.strong_count() > 0);
            let known = locks.get(id).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(id.clone(), Arc::downgrade(&lock));
                lock
            })
        };
        lock.lock_owned().await
    }
}

#[async_trait]
impl Engine for Gvisor {
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
            cgroup: format!("sandbar-{}/{}", self.host.config.instance, spec.id).into(),
            process: None,
        }
    }

    async fn boot(&self, spec: BootSpec) -> Result<Box<dyn Guest>, BootError> {
        let plan = self.plan(&spec);
        bundle::check(&spec)?;
        let result = self.start(&spec, plan.clone()).await;
        if result.is_err()
            && let Err(error) = self.remove(&plan).await
        {
            tracing::error!(sandbox_id = %spec.id, error = &error as &dyn std::error::Error, "failed start was not cleaned up");
        }
        Ok(Box::new(result?))
    }

    async fn adopt(&self, record: &GuestRecord) -> Result<Option<Box<dyn Guest>>, AdoptError> {
        if !is_ours(record) {
            return Err(AdoptError::Foreign { engine: record.engine.clone(), version: record.version });
        }
        let Some(known) = &record.process else {
            return Ok(None);
        };
        let found = Process::find(known).map_err(|source| AdoptError::Look { pid: known.pid, source })?;
        Ok(found.map(|process| -> Box<dyn Guest> {
            Box::new(GvisorGuest::new(self.host.clone(), record.clone(), process))
        }))
    }

    async fn remove(&self, record: &GuestRecord) -> Result<(), RemoveError> {
        if !is_ours(record) {
            return Err(RemoveError::Foreign { engine: record.engine.clone(), version: record.version });
        }
        let _no_launch = self.launches.lock(&record.id).await;
        self.host.clone().remove(record.clone()).await
    }
}

fn is_ours(record: &GuestRecord) -> bool {
    record.engine == NAME && record.version == GuestRecord::VERSION
}

impl Gvisor {
    async fn start(&self, spec: &BootSpec, mut record: GuestRecord) -> Result<GvisorGuest, BootError> {
        let host = &self.host;
        let files = Files::of(&record);
        let netns = Netns::of(&spec.lease.guest_netns);
        let group = host.cgroups.group(&record.cgroup);
        group.prepare().map_err(|source| BootError::Limits { source })?;
        let output = bundle::write(spec, &record, &host.processors, &netns)?;
        let launch = Launch {
            program: host.runsc.path.clone(),
            args: host.runsc.run_args(&spec.id, &record.scratch, &files),
            netns,
            stdin: spec.stdin.clone(),
            output,
        };
        let limit = host.config.boot_limit;
        let starting = async {
            let mut runsc = launch.start(self.launches.lock(&spec.id).await).await?;
            runsc.wait().await.map_err(|source| BootError::Launch { step: "wait for runsc", source })
        };
        let status =
            tokio::time::timeout(limit, starting).await.map_err(|_| BootError::Timeout { limit })??;
        if !status.success() {
            let reason = files.reason().unwrap_or_else(|| format!("{status}, no reason given"));
            return Err(BootError::Failed { reason });
        }
        let process = files.sentry().and_then(Process::open).ok().flatten();
        let process = process.ok_or_else(|| BootError::Ended { reason: files.last_words() })?;
        let settled = Settled {
            memory_bytes: spec.resources.memory.bytes() + OVERHEAD_BYTES,
            cpus: host.processors.all().to_owned(),
            vcpus: spec.resources.vcpus.get(),
        };
        group.settle(&settled).map_err(|source| BootError::Limits { source })?;
        record.process =
            process.record().map_err(|source| BootError::Launch { step: "look at the sentry", source })?;
        if record.process.is_none() {
            return Err(BootError::Ended { reason: files.last_words() });
        }
        Ok(GvisorGuest::new(host.clone(), record, process))
    }
}

impl Host {
    /// Ends and removes everything of a guest. The only remover: also after a start that failed half-way,
    /// after a guest that ended by itself, and after nothing at all.
    async fn remove(self: Arc<Self>, record: GuestRecord) -> Result<(), RemoveError> {
        tokio::task::spawn_blocking(move || self.remove_blocking(&record))
            .await
            .expect("the remover does not panic and is not cancelled")
    }

    fn remove_blocking(&self, record: &GuestRecord) -> Result<(), RemoveError> {
        let deadline = Instant::now() + REMOVE_LIMIT;
        let files = Files::of(record);
        match &record.process {
            Some(process) => kill_sentry(process).map_err(|source| RemoveError::Kill { source })?,
            // The start may have been cut off before anything was in the cgroup.
            None => kill_with_argument(&files.root_argument(), deadline)?,
        }
        let group = self.cgroups.group(&record.cgroup);
        group.kill(deadline)?;
        group.remove(deadline)?;
        remove_path(&files.console, fs::remove_file(&files.console))?;
        remove_path(&record.dir, fs::remove_dir_all(&record.dir))
    }
}

impl Drop for Host {
    /// The parent of all our cgroups goes with the last guest and the engine; with guests alive it stays.
    fn drop(&mut self) {
        let parent = Utf8PathBuf::from(format!("sandbar-{}", self.config.instance));
        // Busy while guests live on, which is as it should be.
        let _ = self.cgroups.group(&parent).remove(Instant::now());
    }
}

fn kill_sentry(record: &crate::ProcessRecord) -> io::Result<()> {
    // Not through `Process::find`, which needs the runtime's reactor.
    process::kill_if(record.pid, || process::is_same(record))
}

fn kill_with_argument(argument: &str, deadline: Instant) -> Result<(), RemoveError> {
    loop {
        let pids = process::with_argument(argument).map_err(|source| RemoveError::Kill { source })?;
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(RemoveError::StillRunning { pids });
        }
        for pid in pids {
            process::kill_if(pid, || process::has_argument(pid, argument))
                .map_err(|source| RemoveError::Kill { source })?;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn remove_path(path: &Utf8Path, result: io::Result<()>) -> Result<(), RemoveError> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(|source| RemoveError::Remove { path: path.to_owned(), source }),
    }
}
