//! What the edge is told by whoever composes the server.

use std::net::SocketAddr;
use std::time::Duration;

use crate::certs::TlsFiles;

/// How the edge listens and what it allows.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen. A port of 0 takes a free one, the same for every address.
    pub listen: Vec<SocketAddr>,
    /// The base domain, with or without a port: sandboxes are `<port>-<id>.<domain>`.
    pub domain: String,
    /// More names on which the routing headers count, such as that of a proxy in front.
    pub proxy_hosts: Vec<String>,
    /// The certificate. Without one, connections that begin with TLS are closed.
    pub tls: Option<TlsFiles>,
    /// Requests that one sandbox may have in flight; unlimited when absent.
    pub connection_limit_per_sandbox: Option<usize>,
    /// Client connections at once; more wait to be accepted.
    pub connections_max: usize,
    /// How long requests in flight may go on once the server stops.
    pub shutdown_grace: Duration,
}

impl Config {
    /// The given addresses and domain, and defaults for the rest.
    pub fn new(listen: Vec<SocketAddr>, domain: impl Into<String>) -> Self {
        Self {
            listen,
            domain: domain.into(),
            proxy_hosts: Vec::new(),
            tls: None,
            connection_limit_per_sandbox: None,
            connections_max: 8192,
            shutdown_grace: Duration::from_secs(5),
        }
    }
}
