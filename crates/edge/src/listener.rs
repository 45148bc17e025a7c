//! Listens on all addresses and serves what comes, until told to stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use sandbar_model::Routes;
use sandbar_wire::host::OwnNames;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::activity::Activity;
use crate::client_socket::ClientSocket;
use crate::config::Config;
use crate::connection::Door;
use crate::forward::Forwarder;
use crate::gateway::{ApiService, Gateway};
use crate::socket_options;
use crate::tasks::Tasks;
use crate::tls::{self, TlsError};
use crate::upstream::Upstreams;

/// Connections the kernel holds for us before they are accepted.
const BACKLOG: u32 = 1024;

/// How often a free port is looked for that all addresses have.
const PORT_ATTEMPTS: usize = 16;

/// Why the edge cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// No address was given.
    #[error("no address to listen on")]
    NoAddress,
    /// An address cannot be used.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The certificate cannot be used.
    #[error("prepare TLS")]
    Tls(#[source] TlsError),
}

/// An edge that listens but does not answer yet.
pub struct Bound {
    config: Config,
    listeners: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
    tls: Option<TlsAcceptor>,
}

/// Listens on the configured addresses. Clients that connect wait until [`Bound::serve`].
///
/// # Errors
/// When an address cannot be had or the certificate cannot be used.
pub async fn bind(config: Config) -> Result<Bound, BindError> {
    let tls = config.tls.as_ref().map(tls::acceptor).transpose().map_err(BindError::Tls)?;
    let listeners = listen_on_all(&config.listen)?;
    let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>();
    let addresses = addresses.map_err(|source| BindError::Listen { address: config.listen[0], source })?;
    Ok(Bound { config, listeners, addresses, tls })
}

impl Bound {
    /// Where it listens, with the ports that were taken.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Answers until `stop`, then lets requests in flight go on for the configured grace and cuts the rest.
    ///
    /// When this returns, nothing of the edge is left running.
    pub async fn serve(self, api: ApiService, routes: Arc<dyn Routes>, stop: CancellationToken) {
        let (clients, guests) = (Tasks::default(), Tasks::default());
        let upstreams = Upstreams::new(guests.clone());
        let sweeper = upstreams.clone();
        guests.spawn(async move { sweeper.sweep().await });

        let mut own_names = OwnNames::new(&self.config.domain);
        self.config.proxy_hosts.iter().for_each(|host| own_names.add(host));
        let forwarder = Forwarder {
            routes: routes.clone(),
            upstreams,
            connection_limit: self.config.connection_limit_per_sandbox,
            tasks: clients.clone(),
        };
        let door = Arc::new(Door {
            gateway: Arc::new(Gateway { own_names, api, routes, forwarder }),
            tls: self.tls,
            tasks: clients.clone(),
            stop: stop.clone(),
        });
        let places = Arc::new(Semaphore::new(self.config.connections_max));
        for listener in self.listeners {
            clients.spawn(accept(listener, door.clone(), places.clone()));
        }

        stop.cancelled().await;
        if tokio::time::timeout(self.config.shutdown_grace, clients.done()).await.is_err() {
            tracing::info!("cut the requests still in flight");
        }
        clients.cut().await;
        guests.cut().await;
    }
}

/// Accepts connections until the server stops. One that finds no place waits for it, and those behind it
/// wait in the kernel.
async fn accept(listener: TcpListener, door: Arc<Door>, places: Arc<Semaphore>) {
    loop {
        let accepted = tokio::select! {
            () = door.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Mostly a client that is gone already, or no file descriptors left: others may close theirs.
                tracing::debug!(error = &error as &dyn std::error::Error, "did not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let place = tokio::select! {
            () = door.stop.cancelled() => return,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        if let Err(error) = socket_options::apply(&stream) {
            tracing::debug!(error = &error as &dyn std::error::Error, "client was gone at once");
            continue;
        }
        let activity = Activity::new();
        let socket = ClientSocket::new(stream, activity.clone(), place);
        door.tasks.spawn(door.clone().serve(socket, activity));
    }
}

fn listen_on_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        match listen_once(addresses) {
            // The port that was free for the first address is taken for another one.
            Err(BindError::Listen { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse
                    && attempt < PORT_ATTEMPTS
                    && addresses.iter().any(|address| address.port() == 0) => {}
            other => return other,
        }
    }
}

fn listen_once(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut free_port = 0;
    for address in addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(free_port);
        }
        let listener = match listen(address) {
            Ok(listener) => listener,
            // A host without IPv6 has no `::1`, and the default asks for it beside 127.0.0.1.
            Err(error) if is_absent_ipv6(address, &error) && addresses.len() > 1 => {
                tracing::info!(%address, "not listening: this host has no IPv6");
                continue;
            }
            Err(source) => return Err(BindError::Listen { address, source }),
        };
        if free_port == 0 {
            free_port = listener.local_addr().map(|bound| bound.port()).unwrap_or(0);
        }
        listeners.push(listener);
    }
    if listeners.is_empty() { Err(BindError::NoAddress) } else { Ok(listeners) }
}

fn is_absent_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    address.is_ipv6()
        && (error.kind() == io::ErrorKind::AddrNotAvailable
            || error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            // So that `[::]` and `0.0.0.0` can be listened on side by side.
            setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
