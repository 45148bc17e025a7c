//! One sandbox's network, as others need to know it.

use std::net::Ipv4Addr;

use camino::Utf8PathBuf;

/// Number of a network slot on its host; part of the names of all its kernel objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotIndex(pub u16);

/// The network as every guest sees it: the same in each, so that a restored guest needs no re-addressing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestNetwork {
    /// The guest's own address.
    pub address: Ipv4Addr,
    /// Length of the network prefix.
    pub prefix: u8,
    /// The gateway; the DNS forwarder listens there on port 53.
    pub gateway: Ipv4Addr,
}

impl GuestNetwork {
    /// `169.254.0.21/30` behind `169.254.0.22`.
    pub const STANDARD: Self =
        Self { address: Ipv4Addr::new(169, 254, 0, 21), prefix: 30, gateway: Ipv4Addr::new(169, 254, 0, 22) };
}

/// A network that one sandbox holds from start to stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Which slot it is.
    pub slot: SlotIndex,
    /// Path of the network namespace the engine enters, under `/run/netns`.
    pub guest_netns: Utf8PathBuf,
    /// Where the host reaches the guest: every port of this address is that port of the guest.
    pub host_address: Ipv4Addr,
    /// What the guest sees.
    pub guest: GuestNetwork,
}

/// What a sandbox may reach.
///
/// Whatever it says: loopback, private, link-local, carrier-grade-NAT and metadata ranges, the host
/// itself and other sandboxes are never reachable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressPolicy {
    /// Everything that is not always denied.
    #[default]
    Internet,
    /// Nothing, and no name resolves.
    Nothing,
}
