//! What a host must have, why, and how to get it.
//!
//! `doctor` prints the findings; `setup` carries out the cures it can.

use std::net::ToSocketAddrs;
use std::path::Path;
use std::time::Duration;

use camino::Utf8Path;
use sandbar_model::InstanceId;

use crate::server::runsc_candidates;

/// How a missing piece can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cure {
    /// A package of the distribution, installed with `apt-get`.
    Package(&'static str),
    /// A current enough `runsc`, put below the data directory.
    Runsc,
    /// Names under `.localhost` by the system's name service switch.
    LocalNames,
    /// Nothing we can do; what the operator can.
    Operator(String),
}

/// What a look at one piece has shown.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) name: &'static str,
    /// Why it is needed.
    pub(crate) why: &'static str,
    pub(crate) state: State,
}

/// Whether a piece is there.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// It is, and this is known of it.
    Present(String),
    /// It is not, and the server cannot run without it.
    Missing(Cure),
    /// It is not, and something works less well without it.
    Lacking(Cure),
}

impl Finding {
    /// The cure, unless the piece is there.
    pub(crate) fn cure(&self) -> Option<&Cure> {
        match &self.state {
            State::Present(_) => None,
            State::Missing(cure) | State::Lacking(cure) => Some(cure),
        }
    }
}

/// Looks at everything that can be looked at without changing anything.
pub(crate) async fn inspect(data_dir: &Utf8Path) -> Vec<Finding> {
    let mut findings = vec![root(), system(), cgroups()];
    findings.extend(FILE_SYSTEMS.iter().map(|(name, why)| file_system(name, why)));
    findings.push(loop_devices());
    findings.extend(PROGRAMS.iter().map(|(program, package, why)| present(program, package, why)));
    findings.push(archive_keys());
    findings.push(runsc(data_dir).await);
    findings.push(local_names());
    findings.extend(foreign_filters().await);
    findings
}

const FILE_SYSTEMS: &[(&str, &str)] = &[
    ("overlay", "root file systems are overlays of layers"),
    ("ext4", "what a sandbox writes is limited by a small ext4 of its own"),
];

/// Program, package that has it, why it is needed.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("nft", "nftables", "filters what a sandbox may reach"),
    ("mkfs.ext4", "e2fsprogs", "makes the first scratch disk"),
    ("mmdebstrap", "mmdebstrap", "builds the stock templates from packages"),
    ("dpkg-deb", "dpkg", "unpacks runsc"),
    ("curl", "curl", "fetches the parts of templates that are no Debian packages"),
];

fn root() -> Finding {
    let state = if nix::unistd::geteuid().is_root() {
        State::Present("running as root".to_owned())
    } else {
        State::Missing(Cure::Operator("run it as root".to_owned()))
    };
    Finding { name: "root", why: "namespaces, cgroups and packet filters belong to root", state }
}

fn system() -> Finding {
    let state = match (std::env::consts::OS, std::env::consts::ARCH, nix::sys::utsname::uname()) {
        ("linux", "x86_64", Ok(name)) => {
            State::Present(format!("Linux {} x86_64", name.release().to_string_lossy()))
        }
        (os, arch, _) => {
            State::Missing(Cure::Operator(format!("this is {os} on {arch}; use Linux on x86_64")))
        }
    };
    Finding { name: "system", why: "guest programs are built for Linux on x86_64", state }
}

fn cgroups() -> Finding {
    let unified = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let lacking = |controller: &&str| {
        !unified.split_whitespace().any(|have| have == *controller)
            && !Path::new("/sys/fs/cgroup").join(controller).join("cgroup.procs").exists()
    };
    let missing: Vec<_> = ["memory", "cpu", "pids"].into_iter().filter(lacking).collect();
    let state = if missing.is_empty() {
        let kind = if unified.is_empty() { "hybrid or version 1" } else { "version 2" };
        State::Present(format!("{kind}, with memory, cpu and pids"))
    } else {
        State::Missing(Cure::Operator(format!(
            "mount the cgroup controllers {} below /sys/fs/cgroup",
            missing.join(", ")
        )))
    };
    Finding { name: "cgroups", why: "the limits of a sandbox are those of its cgroup", state }
}

fn file_system(name: &'static str, why: &'static str) -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let state = if known.lines().any(|line| line.split_whitespace().last() == Some(name)) {
        State::Present("known to the kernel".to_owned())
    } else {
        State::Missing(Cure::Operator(format!("load the kernel module: modprobe {name}")))
    };
    Finding { name, why, state }
}

fn loop_devices() -> Finding {
    let state = if Path::new("/dev/loop-control").exists() {
        State::Present("/dev/loop-control".to_owned())
    } else {
        State::Missing(Cure::Operator("load the kernel module: modprobe loop".to_owned()))
    };
    Finding { name: "loop devices", why: "scratch disks are files mounted through them", state }
}

fn present(program: &'static str, package: &'static str, why: &'static str) -> Finding {
    let state = match find_program(program) {
        Some(path) => State::Present(path),
        None => State::Missing(Cure::Package(package)),
    };
    Finding { name: program, why, state }
}

/// Where a program is: on `PATH` or in the directories of system programs, which `PATH` may lack.
fn find_program(program: &str) -> Option<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .map(|dir| format!("{dir}/{program}"))
        .find(|candidate| Path::new(candidate).is_file())
}

fn archive_keys() -> Finding {
    let path = "/usr/share/keyrings/debian-archive-keyring.gpg";
    let state = if Path::new(path).exists() {
        State::Present(path.to_owned())
    } else {
        State::Missing(Cure::Package("debian-archive-keyring"))
    };
    Finding { name: "archive keys", why: "packages of templates are verified with them", state }
}

async fn runsc(data_dir: &Utf8Path) -> Finding {
    let state = match sandbar_engine::open(engine_config(data_dir)).await {
        Ok(engine) => State::Present(engine.capabilities().engine_version.clone()),
        Err(_none) => State::Missing(Cure::Runsc),
    };
    Finding { name: "runsc", why: "runs sandboxes in gVisor's user-space kernel", state }
}

/// An engine that only looks and runs at most a guest for a test.
pub(crate) fn engine_config(data_dir: &Utf8Path) -> sandbar_engine::Config {
    sandbar_engine::Config {
        instance: InstanceId::from_random(rand::random()),
        runsc: runsc_candidates(&data_dir.join("bin")),
        boot_limit: Duration::from_secs(30),
    }
}

/// Packet filters of others that would stop what sandboxes send to the internet.
async fn foreign_filters() -> Vec<Finding> {
    let found = sandbar_net::findings().await;
    found
        .into_iter()
        .map(|finding| Finding {
            name: "packet filter",
            why: "sandboxes reach the internet through this host",
            state: State::Lacking(Cure::Operator(format!("{}: {}", finding.problem, finding.cure))),
        })
        .collect()
}

/// Whether names under `.localhost` resolve with the system's resolver, which Node and glibc programs use.
fn local_names() -> Finding {
    let addresses = ("49983-probe.sbx.localhost", 0).to_socket_addrs();
    let state = if addresses.is_ok_and(|mut addresses| addresses.any(|address| address.ip().is_loopback())) {
        State::Present("*.localhost is this machine".to_owned())
    } else {
        State::Lacking(Cure::LocalNames)
    };
    Finding { name: "local names", why: "SDKs reach sandboxes as <port>-<id>.sbx.localhost", state }
}
