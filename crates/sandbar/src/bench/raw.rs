//! The same work done with `runsc` alone: what everything else is measured against.
//!
//! A guest is started as a person would do it by hand, with the same root file system, a network made
//! beforehand, and the same first program.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::{EgressPolicy, Lease};
use sandbar_net::Networks;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Enters the guest's network, hides what this version of `runsc` stumbles over, and becomes `runsc`.
const LAUNCH: &str = "mount -t tmpfs none /proc/sys/net/core && exec \"$@\"";

/// How long a guest may take to answer before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// `runsc`, a root file system and networks.
#[derive(Clone)]
pub(crate) struct RawHost {
    pub(crate) runsc: Utf8PathBuf,
    /// The mounted root file system.
    pub(crate) root: Utf8PathBuf,
    /// Where state, bundles and writes go.
    pub(crate) dir: Utf8PathBuf,
    pub(crate) networks: Arc<Networks>,
    next: Arc<AtomicU32>,
}

/// A guest run by `runsc` alone.
pub(crate) struct RawGuest {
    host: RawHost,
    id: String,
    lease: Lease,
}

impl RawHost {
    pub(crate) fn new(
        runsc: Utf8PathBuf,
        root: Utf8PathBuf,
        dir: Utf8PathBuf,
        networks: Arc<Networks>,
    ) -> Self {
        Self { runsc, root, dir, networks, next: Arc::new(AtomicU32::new(0)) }
    }

    /// A network, made before the clock runs.
    pub(crate) async fn lease(&self) -> anyhow::Result<Lease> {
        Ok(self.networks.lease(EgressPolicy::Internet).await?)
    }

    /// Starts a guest; returns when its first program answers.
    pub(crate) async fn run(&self, lease: Lease) -> anyhow::Result<RawGuest> {
        let id = format!("raw{}", self.next.fetch_add(1, Ordering::Relaxed));
        let bundle = self.dir.join(&id);
        let scratch = bundle.join("scratch");
        std::fs::create_dir_all(&scratch)?;
        std::fs::write(bundle.join("config.json"), self.config(&lease, &id).to_string())?;
        let status = Command::new("nsenter")
            .arg(format!("--net={}", lease.guest_netns))
            .args(["unshare", "--mount", "sh", "-c", LAUNCH, "sh", self.runsc.as_str()])
            .args(["--root", self.state().as_str(), &format!("--overlay2=root:dir={scratch}")])
            .args(["run", "-detach", "-bundle", bundle.as_str(), &id])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .await
            .context("run nsenter")?;
        let guest = RawGuest { host: self.clone(), id, lease };
        if !status.success() {
            guest.delete().await;
            bail!("runsc run ended with {status}");
        }
        answers(guest.lease.host_address).await?;
        Ok(guest)
    }

    /// Removes the cgroup that the guests' own were in; `runsc` makes it on the way and leaves it.
    pub(crate) fn remove_cgroups(&self) {
        let Ok(roots) = Utf8Path::new(CGROUPS).read_dir_utf8() else { return };
        let roots = roots.filter_map(Result::ok).map(|entry| entry.into_path());
        for root in roots.chain([CGROUPS.into()]) {
            // Only one of the two kinds of hierarchy is there, and one that holds a guest stays.
            let _ = std::fs::remove_dir(root.join(cgroup_parent()));
        }
    }

    fn state(&self) -> Utf8PathBuf {
        self.dir.join("state")
    }

    /// The cgroup of a guest, below each hierarchy.
    fn cgroup(&self, id: &str) -> String {
        format!("{}/{id}", cgroup_parent())
    }

    fn config(&self, lease: &Lease, id: &str) -> serde_json::Value {
        let capabilities: Vec<&str> = vec![
            "CAP_CHOWN",
            "CAP_DAC_OVERRIDE",
            "CAP_FOWNER",
            "CAP_FSETID",
            "CAP_KILL",
            "CAP_SETGID",
            "CAP_SETUID",
            "CAP_SETPCAP",
            "CAP_NET_BIND_SERVICE",
            "CAP_SYS_CHROOT",
            "CAP_SYS_ADMIN",
            "CAP_SYS_PTRACE",
            "CAP_SYS_NICE",
            "CAP_SYS_RESOURCE",
            "CAP_NET_ADMIN",
        ];
        json!({
            "ociVersion": "1.0.2",
            "process": {
                "user": { "uid": 0, "gid": 0 },
                "args": ["/usr/bin/sandbar-agent"],
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "cwd": "/",
                "capabilities": {
                    "bounding": capabilities, "effective": capabilities, "permitted": capabilities,
                },
            },
            "root": { "path": self.root, "readonly": false },
            "hostname": id,
            "mounts": [{ "destination": "/proc", "type": "proc", "source": "proc" }],
            "linux": {
                "namespaces": [
                    { "type": "pid" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" },
                    { "type": "network", "path": lease.guest_netns },
                ],
                "cgroupsPath": format!("/{}", self.cgroup(id)),
                "resources": { "memory": { "limit": 1_u64 << 30 } },
            },
        })
    }
}

impl RawGuest {
    /// Runs a program in the guest, with input, and waits for its end.
    pub(crate) async fn exec(&self, arguments: &[&str], input: &[u8]) -> anyhow::Result<Vec<u8>> {
        let mut child = Command::new(&self.host.runsc)
            .args(["--root", self.host.state().as_str(), "exec", &self.id])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("run runsc exec")?;
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        let feed = async move {
            // A program that does not read its input ends before it has it all.
            let _ = stdin.write_all(input).await;
            drop(stdin);
        };
        let (_, output) = tokio::join!(feed, child.wait_with_output());
        let output = output?;
        if !output.status.success() {
            bail!("runsc exec ended with {}", output.status);
        }
        Ok(output.stdout)
    }

    /// The cgroup of this guest.
    pub(crate) fn cgroup(&self) -> String {
        self.host.cgroup(&self.id)
    }

    /// Ends the guest.
    pub(crate) async fn delete(self) {
        let delete = Command::new(&self.host.runsc)
            .args(["--root", self.host.state().as_str(), "delete", "-force", &self.id])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if let Err(error) = delete.await {
            tracing::warn!(%error, "raw guest was not deleted");
        }
        if let Err(error) = self.host.networks.release(self.lease.slot).await {
            tracing::warn!(%error, "network of a raw guest was not released");
        }
    }
}

/// Where cgroup hierarchies are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";

fn cgroup_parent() -> String {
    format!("sandbar-bench-{}", std::process::id())
}

/// Waits until the agent in a guest answers.
async fn answers(address: Ipv4Addr) -> anyhow::Result<()> {
    let address = SocketAddr::from((address, sandbar_wire::envd::PORT));
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        if matches!(tokio::time::timeout(Duration::from_secs(5), health(address)).await, Ok(Ok(()))) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    bail!("the agent of a raw guest did not answer within {PATIENCE:?}")
}

async fn health(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: raw\r\nConnection: close\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    if answer.ends_with(b"204") { Ok(()) } else { Err(io::Error::other("not healthy")) }
}

/// Resident memory of all processes of a cgroup, in bytes; pages shared by several count in parts.
pub(crate) fn resident_bytes(cgroup: &str) -> anyhow::Result<u64> {
    let roots = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"].map(Utf8Path::new);
    let procs = roots.iter().map(|root| root.join(cgroup).join("cgroup.procs")).find(|path| path.exists());
    let procs = procs.with_context(|| format!("cgroup {cgroup} is not there"))?;
    let pids = std::fs::read_to_string(&procs).with_context(|| format!("read {procs}"))?;
    let mut total = 0;
    for pid in pids.lines() {
        // A process may end while we look.
        let Ok(rollup) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
        let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: u64 = pss.and_then(|pss| pss.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0);
        total += kib * 1024;
    }
    Ok(total)
}
