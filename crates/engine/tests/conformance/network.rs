//! A network for one guest of a test: two namespaces and a link between them. Made with `ip`, so that this
//! suite does not depend on how the product does it.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use sandbar_model::{GuestNetwork, Lease, SlotIndex};

/// Goes when it is dropped.
pub(crate) struct Network {
    name: String,
}

impl Network {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("sbt{}-{number}", std::process::id()) };
        let (guest, router) = (network.guest(), network.router());
        ip(&format!("netns add {guest}"));
        ip(&format!("netns add {router}"));
        ip(&format!("-n {router} link add gate type veth peer name eth0 netns {guest}"));
        ip(&format!("-n {guest} link set lo up"));
        ip(&format!("-n {guest} addr add 169.254.0.21/30 dev eth0"));
        ip(&format!("-n {guest} link set eth0 up"));
        ip(&format!("-n {router} addr add 169.254.0.22/30 dev gate"));
        ip(&format!("-n {router} link set gate up"));
        ip(&format!("-n {guest} route add default via 169.254.0.22"));
        network
    }

    fn guest(&self) -> String {
        format!("{}-g", self.name)
    }

    fn router(&self) -> String {
        format!("{}-r", self.name)
    }

    pub(crate) fn lease(&self, slot: u16) -> Lease {
        Lease {
            slot: SlotIndex(slot),
            guest_netns: format!("/run/netns/{}", self.guest()).into(),
            host_address: GuestNetwork::STANDARD.address,
            guest: GuestNetwork::STANDARD,
        }
    }

    /// Connects to a port of the guest, from the other end of its link. Blocks.
    pub(crate) fn connect(&self, port: u16, patience: Duration) -> io::Result<TcpStream> {
        let router = File::open(format!("/run/netns/{}", self.router()))?;
        let address = SocketAddr::from((GuestNetwork::STANDARD.address, port));
        // The thread is in the namespace; the socket stays in it.
        let thread = std::thread::spawn(move || {
            setns(router, CloneFlags::CLONE_NEWNET)?;
            TcpStream::connect_timeout(&address, patience)
        });
        thread.join().expect("no panic")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in [self.guest(), self.router()] {
            // May be absent when setting up failed.
            let _ = Command::new("ip").args(["netns", "del", &name]).output();
        }
    }
}

fn ip(line: &str) {
    let output = Command::new("ip").args(line.split(' ')).output().expect("the ip command");
    assert!(output.status.success(), "ip {line}: {}", String::from_utf8_lossy(&output.stderr));
}
