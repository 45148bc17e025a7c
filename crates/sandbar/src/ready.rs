//! `server.json`: what a running server says of itself in its data directory.

use std::net::SocketAddr;

use anyhow::Context;
use camino::Utf8Path;
use serde::{Deserialize, Serialize};

use crate::identity::write_private;

/// Written once the server answers, removed when it stops cleanly.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Ready {
    pub(crate) pid: u32,
    pub(crate) listen: Vec<SocketAddr>,
    /// Domain of sandboxes with the port, as SDKs want it in `E2B_DOMAIN`.
    pub(crate) domain: String,
}

const FILE: &str = "server.json";

impl Ready {
    /// Says that the server answers.
    pub(crate) fn write(&self, data_dir: &Utf8Path) -> anyhow::Result<()> {
        write_private(&data_dir.join(FILE), &serde_json::to_string(self)?)
    }

    /// What the server on this data directory says.
    pub(crate) fn read(data_dir: &Utf8Path) -> anyhow::Result<Self> {
        let path = data_dir.join(FILE);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("read {path}; is a server running? start one with `sandbar up`"))?;
        serde_json::from_str(&text).with_context(|| format!("read {path}"))
    }

    /// Says that no server runs. One that is not there is removed already.
    pub(crate) fn remove(data_dir: &Utf8Path) {
        // A stale file only names a server that does not answer, and the next start replaces it.
        let _ = std::fs::remove_file(data_dir.join(FILE));
    }

    /// URL of the server without TLS, for programs on the same host.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        let address = self.listen.first().context("the server listens nowhere")?;
        Ok(format!("http://{}", reachable(*address)))
    }
}

/// An address that means all interfaces is reached on loopback.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}
