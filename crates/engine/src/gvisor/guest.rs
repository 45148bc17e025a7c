//! A guest that runs in gVisor.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use camino::Utf8Path;
use sandbar_model::Usage;

use super::Host;
use super::bundle::{Files, tail};
use crate::process::{Ended, Process};
use crate::{Exit, Guest, GuestRecord, StopError, UsageError};

pub(super) struct GvisorGuest {
    host: Arc<Host>,
    record: GuestRecord,
    /// The sentry.
    process: Process,
    /// Once it is known.
    exit: Option<Exit>,
}

impl GvisorGuest {
    /// `record` is that of `process`.
    pub(super) fn new(host: Arc<Host>, record: GuestRecord, process: Process) -> Self {
        Self { host, record, process, exit: None }
    }

    /// What the end of the sentry says about the end of the guest.
    fn explain(&self, ended: Ended) -> Exit {
        let out_of_memory =
            || self.host.cgroups.group(&self.record.cgroup).oom_kills().is_ok_and(|count| count > 0);
        match ended {
            // The sentry passes the code of the first program on as its own.
            Ended::Code(code) => Exit::Code(code),
            Ended::Signal(libc::SIGKILL) | Ended::Unknown if out_of_memory() => Exit::OutOfMemory,
            Ended::Signal(_) => Exit::Killed,
            Ended::Unknown => Exit::Unknown,
        }
    }
}

#[async_trait]
impl Guest for GvisorGuest {
    fn record(&self) -> GuestRecord {
        self.record.clone()
    }

    async fn exited(&mut self) -> Exit {
        if let Some(exit) = self.exit {
            return exit;
        }
        let ended = self.process.ended().await.unwrap_or_else(|error| {
            tracing::warn!(sandbox_id = %self.record.id, error = &error as &dyn std::error::Error, "end of guest could not be watched");
            Ended::Unknown
        });
        let exit = self.explain(ended);
        self.exit = Some(exit);
        exit
    }

    async fn usage(&self) -> Result<Usage, UsageError> {
        let group = self.host.cgroups.group(&self.record.cgroup);
        let failed = |controller: &str, name: &str| {
            let path = group.file(controller, name);
            move |source| UsageError { path, source }
        };
        Ok(Usage {
            cpu_time_us: group.cpu_time_us().map_err(failed("cpuacct", ""))?,
            memory_bytes: group.memory_bytes().map_err(failed("memory", ""))?,
            disk_bytes: disk_bytes(self.process.pid(), &self.record.scratch)?,
        })
    }

    async fn console(&self, max_bytes: usize) -> Vec<u8> {
        // Without a file there is nothing to show.
        tail(&Files::of(&self.record).console, max_bytes).unwrap_or_default()
    }

    async fn stop(mut self: Box<Self>, grace: Duration) -> Result<Exit, StopError> {
        let mut exit = tokio::time::timeout(Duration::ZERO, self.exited()).await.ok();
        if exit.is_none() && !grace.is_zero() {
            self.host.runsc.terminate(&self.record.id, &Files::of(&self.record)).await;
            exit = tokio::time::timeout(grace, self.exited()).await.ok();
        }
        let removed = self.host.clone().remove(self.record.clone()).await;
        removed.map_err(|source| StopError { id: self.record.id.clone(), source })?;
        Ok(exit.unwrap_or(Exit::Killed))
    }
}

/// Bytes that the guest's writes take on its scratch disk. The file has no name: only the sentry has it.
fn disk_bytes(sentry: i32, scratch: &Utf8Path) -> Result<u64, UsageError> {
    let failed = |path: &Utf8Path| {
        let path = path.to_owned();
        move |source| UsageError { path, source }
    };
    let disk = std::fs::metadata(scratch).map_err(failed(scratch))?.dev();
    let open = camino::Utf8PathBuf::from(format!("/proc/{sentry}/fd"));
    let mut seen = HashSet::new();
    let mut bytes = 0;
    for entry in std::fs::read_dir(&open).map_err(failed(&open))? {
        // Files come and go; one that has just been closed is not one that counts.
        let Ok(file) = entry.and_then(|entry| std::fs::metadata(entry.path())) else {
            continue;
        };
        if file.is_file() && file.dev() == disk && seen.insert(file.ino()) {
            bytes += file.blocks() * 512;
        }
    }
    Ok(bytes)
}
