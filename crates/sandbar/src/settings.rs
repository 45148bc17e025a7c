//! What the operator wants: defaults, then the file, then environment and flags.
//!
//! Read once, checked whole, then passed down as plain values.

use std::net::SocketAddr;
use std::num::NonZeroU32;

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use sandbar_model::{Mib, Resources};
use serde::Deserialize;

/// Where everything lies unless told otherwise.
pub(crate) const DATA_DIR: &str = "/var/lib/sandbar";

/// Flags and environment of every command that works on a server's data.
#[derive(Args, Clone, Debug)]
pub(crate) struct DataDir {
    /// Directory of everything the server keeps.
    #[arg(long, env = "SANDBAR_DATA_DIR", default_value = DATA_DIR, global = true)]
    pub(crate) data_dir: Utf8PathBuf,
}

/// Flags of `serve` and `up`; each overrides the file.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ServeFlags {
    /// Address to listen on; may be repeated. A loopback address brings the one of the other family along.
    #[arg(long, env = "SANDBAR_LISTEN", value_delimiter = ',')]
    pub(crate) listen: Vec<SocketAddr>,
    /// Domain under which sandboxes get their names, without a port.
    #[arg(long, env = "SANDBAR_DOMAIN")]
    pub(crate) domain: Option<String>,
    /// Directory of layers; may be shared by several servers. Below the data directory by default.
    #[arg(long, env = "SANDBAR_ARTIFACTS_DIR")]
    pub(crate) artifacts_dir: Option<Utf8PathBuf>,
    /// What happens to running sandboxes when the server stops.
    #[arg(long, value_enum)]
    pub(crate) at_shutdown: Option<AtShutdown>,
}

/// What happens to running sandboxes when the server stops.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum AtShutdown {
    /// They are ended.
    Kill,
    /// They go on, and the next server takes them over.
    Keep,
}

/// `sandbar.toml` in the data directory, as the operator wrote it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    listen: Vec<SocketAddr>,
    domain: String,
    artifacts_dir: Option<Utf8PathBuf>,
    at_shutdown: AtShutdown,
    /// Trust in guests what the host trusts.
    install_host_ca: bool,
    limits: Limits,
    sandbox: Sandbox,
}

/// `[limits]`: of this server.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    /// Sandboxes at once on this host.
    pub(crate) sandboxes: usize,
    /// Sandboxes at once of one team.
    pub(crate) sandboxes_per_team: u32,
    /// The longest a sandbox may be asked to live, in hours.
    pub(crate) timeout_hours: u32,
    /// Networks made ahead of need.
    pub(crate) networks_ready: u16,
}

/// `[sandbox]`: what one sandbox of a stock template gets.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Sandbox {
    /// Processors.
    pub(crate) vcpus: NonZeroU32,
    /// Memory in MiB.
    pub(crate) memory_mib: u32,
    /// Bytes it may write, in MiB.
    pub(crate) disk_mib: u32,
    /// Processes and threads.
    pub(crate) pids: u32,
}

impl Default for File {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 3000))],
            domain: "sbx.localhost".to_owned(),
            artifacts_dir: None,
            at_shutdown: AtShutdown::Kill,
            install_host_ca: true,
            limits: Limits::default(),
            sandbox: Sandbox::default(),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { sandboxes: 2000, sandboxes_per_team: 1000, timeout_hours: 24, networks_ready: 8 }
    }
}

impl Default for Sandbox {
    fn default() -> Self {
        let vcpus = NonZeroU32::new(2).expect("two is not zero");
        Self { vcpus, memory_mib: 1024, disk_mib: 10 * 1024, pids: 4096 }
    }
}

impl Sandbox {
    /// The same as the domain's type.
    pub(crate) fn resources(&self) -> Resources {
        Resources {
            vcpus: self.vcpus,
            memory: Mib(self.memory_mib),
            disk: Mib(self.disk_mib),
            pids: self.pids,
        }
    }
}

/// Everything a server is told, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) data_dir: Utf8PathBuf,
    pub(crate) artifacts_dir: Utf8PathBuf,
    /// Where `runsc` is when the host has none on `PATH`.
    pub(crate) runsc_dir: Utf8PathBuf,
    /// Never empty.
    pub(crate) listen: Vec<SocketAddr>,
    /// Without port.
    pub(crate) domain: String,
    pub(crate) at_shutdown: AtShutdown,
    pub(crate) install_host_ca: bool,
    pub(crate) limits: Limits,
    pub(crate) sandbox: Sandbox,
}

impl Settings {
    /// Reads and checks everything. All mistakes are in one report.
    pub(crate) fn read(data_dir: &Utf8Path, flags: ServeFlags) -> anyhow::Result<Self> {
        let path = data_dir.join("sandbar.toml");
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => toml::from_str(&text).with_context(|| format!("read {path}"))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => File::default(),
            Err(error) => return Err(error).with_context(|| format!("read {path}")),
        };
        let listen = if flags.listen.is_empty() { file.listen } else { flags.listen };
        let settings = Self {
            artifacts_dir: flags
                .artifacts_dir
                .or(file.artifacts_dir)
                .unwrap_or_else(|| data_dir.join("artifacts")),
            data_dir: data_dir.to_owned(),
            runsc_dir: data_dir.join("bin"),
            listen: with_both_loopbacks(listen),
            domain: flags.domain.unwrap_or(file.domain),
            at_shutdown: flags.at_shutdown.unwrap_or(file.at_shutdown),
            install_host_ca: file.install_host_ca,
            limits: file.limits,
            sandbox: file.sandbox,
        };
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> anyhow::Result<()> {
        let mut mistakes = Vec::new();
        if !self.data_dir.is_absolute() {
            mistakes.push(format!("data directory {} must be absolute", self.data_dir));
        }
        if self.listen.is_empty() {
            mistakes.push("listen must name at least one address".to_owned());
        }
        let label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !self.domain.split('.').all(label) {
            mistakes.push(format!("domain '{}' must be a lower-case host name without port", self.domain));
        }
        if self.sandbox.memory_mib < 128 {
            mistakes.push(format!("sandbox.memory_mib is {}, must be at least 128", self.sandbox.memory_mib));
        }
        if self.sandbox.disk_mib < 64 {
            mistakes.push(format!("sandbox.disk_mib is {}, must be at least 64", self.sandbox.disk_mib));
        }
        if self.sandbox.pids < 64 {
            mistakes.push(format!("sandbox.pids is {}, must be at least 64", self.sandbox.pids));
        }
        if self.limits.timeout_hours == 0 {
            mistakes.push("limits.timeout_hours must be at least 1".to_owned());
        }
        if mistakes.is_empty() { Ok(()) } else { bail!("settings:\n  - {}", mistakes.join("\n  - ")) }
    }
}

/// `localhost` may resolve to either family first, so a server on one loopback address listens on both
/// (contract/control-api.md §1.3). A free port (0) is chosen once for all addresses.
fn with_both_loopbacks(listen: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let mut all = Vec::new();
    for address in listen {
        let twin = match address {
            SocketAddr::V4(v4) if v4.ip().is_loopback() => {
                Some(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, v4.port())))
            }
            SocketAddr::V6(v6) if v6.ip().is_loopback() => {
                Some(SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, v6.port())))
            }
            _ => None,
        };
        for address in [Some(address), twin].into_iter().flatten() {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loopback_address_brings_its_twin() {
        let got = with_both_loopbacks(vec!["127.0.0.1:3000".parse().unwrap()]);
        assert_eq!(got, ["127.0.0.1:3000".parse().unwrap(), "[::1]:3000".parse::<SocketAddr>().unwrap()]);
        let both = with_both_loopbacks(got.clone());
        assert_eq!(both, got);
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(dir.join("sandbar.toml"), "domain = 'A:1'\n[sandbox]\npids = 1\n").unwrap();
        let error = Settings::read(dir, ServeFlags::default()).unwrap_err().to_string();
        assert!(error.contains("domain 'A:1'") && error.contains("sandbox.pids is 1"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        std::fs::write(dir.join("sandbar.toml"), "lissen = []\n").unwrap();
        let error = format!("{:#}", Settings::read(dir, ServeFlags::default()).unwrap_err());
        assert!(error.contains("lissen"), "{error}");
    }
}
