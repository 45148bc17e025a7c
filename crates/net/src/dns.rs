//! The DNS forwarder of a slot: the only resolver a guest is told of.
//!
//! Its sockets are bound in the router namespace, at the gateway's port 53; the tasks that serve them and ask
//! upstream live in the host's namespace, so the host's resolvers are reached as the host reaches them. Queries
//! and answers pass as they are. A guest that may reach nothing is refused without anyone being asked.
//!
//! Not here: deciding by name. What an answer points to is for the packet filter to allow.

mod message;
mod tcp;
mod udp;
mod upstream;

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::Arc;

use sandbar_model::EgressPolicy;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::resolver::PORT;

pub(crate) use upstream::Upstream;

/// The forwarder's sockets, bound in a router namespace and usable from anywhere.
#[derive(Debug)]
pub(crate) struct Sockets {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Sockets {
    /// Binds both in the calling thread's namespace.
    pub(crate) fn bind(gateway: Ipv4Addr) -> io::Result<Self> {
        Self::bind_port(gateway, PORT)
    }

    fn bind_port(address: Ipv4Addr, port: u16) -> io::Result<Self> {
        let udp = UdpSocket::bind((address, port))?;
        udp.set_nonblocking(true)?;
        let tcp = TcpListener::bind((address, udp.local_addr()?.port()))?;
        tcp.set_nonblocking(true)?;
        Ok(Self { udp, tcp })
    }
}

/// What both transports need to serve one guest.
#[derive(Clone, Debug)]
struct Guest {
    /// Whoever else asks gets no answer.
    address: Ipv4Addr,
    policy: watch::Receiver<EgressPolicy>,
    upstream: Arc<Upstream>,
}

impl Guest {
    fn may_ask(&self) -> bool {
        match *self.policy.borrow() {
            EgressPolicy::Internet => true,
            EgressPolicy::Nothing => false,
        }
    }
}

/// A running forwarder. Dropping it stops it too, without waiting.
#[derive(Debug)]
pub(crate) struct Forwarder {
    policy: watch::Sender<EgressPolicy>,
    tasks: JoinSet<()>,
}

impl Forwarder {
    /// Serves `guest` on the sockets until stopped. Must be called within a runtime.
    pub(crate) fn start(
        sockets: Sockets,
        guest: Ipv4Addr,
        policy: EgressPolicy,
        upstream: Arc<Upstream>,
    ) -> io::Result<Self> {
        let (policy, watched) = watch::channel(policy);
        let guest = Guest { address: guest, policy: watched, upstream };
        let udp = tokio::net::UdpSocket::from_std(sockets.udp)?;
        let tcp = tokio::net::TcpListener::from_std(sockets.tcp)?;
        let mut tasks = JoinSet::new();
        tasks.spawn(udp::serve(udp, guest.clone()));
        tasks.spawn(tcp::serve(tcp, guest));
        Ok(Self { policy, tasks })
    }

    /// Decides queries that come from now on.
    pub(crate) fn set_policy(&self, policy: EgressPolicy) {
        self.policy.send_replace(policy);
    }

    /// Stops serving; the sockets are closed when this returns.
    pub(crate) async fn stop(mut self) {
        // Every await in these tasks may be the last: they own nothing but sockets.
        self.tasks.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
