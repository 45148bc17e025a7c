//! All kernel objects of one slot: built in one go, found again after a restart, destroyed by name.

use std::fs;
use std::io;

use sandbar_model::{EgressPolicy, SlotIndex};
use tokio::runtime::Runtime;

use crate::block::SlotAddresses;
use crate::dns::Sockets;
use crate::link::{LinkError, Links, Pair};
use crate::name::Names;
use crate::namespace::{self, Namespace, NamespaceError, on_own_thread};
use crate::nft::{Nft, NftError};
use crate::ruleset;

/// What slots are built with before they are leased: what most sandboxes want, so that most leases cost nothing.
pub(crate) const BUILT_WITH: EgressPolicy = EgressPolicy::Internet;

/// Why a slot could not be built, opened again or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SlotError {
    #[error("start a thread")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Nft(#[from] NftError),
    #[error("write {path}")]
    Sysctl { path: String, source: io::Error },
    #[error("open DNS sockets")]
    Sockets(#[source] io::Error),
    #[error("namespace {0} is gone")]
    Gone(String),
}

/// Why a slot could not be destroyed. What could be removed, was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DestroyError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error("start a thread")]
    Thread(#[source] io::Error),
}

/// Everything that decides how a slot looks.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) names: Names,
    pub(crate) slot: SlotIndex,
    pub(crate) addresses: SlotAddresses,
    /// Of every link of the slot, in bytes.
    pub(crate) mtu: u32,
    pub(crate) nft: Nft,
}

/// Builds a slot; on an error a part of it may be there, for [`destroy`].
///
/// Gives the sockets of the DNS forwarder, which were opened in the router namespace.
pub(crate) async fn build(plan: Plan, policy: EgressPolicy) -> Result<Sockets, SlotError> {
    let work = move |rt: &Runtime| rt.block_on(build_here(&plan, policy));
    on_own_thread("build slot", work).await.map_err(SlotError::Thread)?
}

/// Opens the forwarder's sockets of a slot that an earlier run of the server built, and applies the policy anew.
/// `None` when the slot is not complete any more.
pub(crate) async fn reopen(plan: Plan, policy: EgressPolicy) -> Result<Option<Sockets>, SlotError> {
    let work = move |rt: &Runtime| rt.block_on(reopen_here(&plan, policy));
    on_own_thread("reopen slot", work).await.map_err(SlotError::Thread)?
}

/// Changes the policy of a slot that has a ruleset.
pub(crate) async fn change_policy(plan: Plan, policy: EgressPolicy) -> Result<(), SlotError> {
    let work = move |rt: &Runtime| {
        let name = plan.names.router_netns(plan.slot);
        Namespace::find(&name)?.ok_or(SlotError::Gone(name))?.enter()?;
        rt.block_on(plan.nft.apply(&ruleset::policy_change(policy)))?;
        Ok(())
    };
    on_own_thread("change policy", work).await.map_err(SlotError::Thread)?
}

/// Removes everything of a slot, however much there is of it. `links` is of the host's namespace.
pub(crate) async fn destroy(links: &Links, names: &Names, slot: SlotIndex) -> Result<(), DestroyError> {
    // The kernel takes namespaces apart later, at its leisure; the link must be gone when we say so, or the next
    // route to this address meets it.
    let link = links.delete(&names.link(slot)).await;
    let (router, guest) = (names.router_netns(slot), names.guest_netns(slot));
    let namespaces = tokio::task::spawn_blocking(move || {
        let router = namespace::remove(&router);
        namespace::remove(&guest).and(router)
    });
    namespaces.await.map_err(|panic| DestroyError::Thread(panic.into()))??;
    link?;
    Ok(())
}

async fn build_here(plan: &Plan, policy: EgressPolicy) -> Result<Sockets, SlotError> {
    let Plan { names, slot, addresses, mtu, .. } = plan;
    let (guest, mtu) = (&addresses.guest, *mtu);
    let host_netns = Namespace::of_host()?;
    let host = Links::open()?;

    let guest_netns = Namespace::create(&names.guest_netns(*slot))?;
    disable_ipv6()?;
    // Some settings begin as they are on the host, where this one is on.
    write_sysctl("net/ipv4/ip_forward", "0")?;
    let inside = Links::open()?;

    let router_netns = Namespace::create(&names.router_netns(*slot))?;
    disable_ipv6()?;
    write_sysctl("net/ipv4/ip_forward", "1")?;
    let router = Links::open()?;

    let host_link = names.link(*slot);
    router.add_pair(Pair { name: "up", peer: &host_link, peer_netns: &host_netns, mtu }).await?;
    router.add_pair(Pair { name: "down", peer: "eth0", peer_netns: &guest_netns, mtu }).await?;

    host_netns.enter()?;
    disable_ipv6_of(&host_link)?;
    router_netns.enter()?;

    // The filter is in place before the first packet can pass.
    plan.nft.apply(&ruleset::router(addresses, policy)).await?;

    let index = host.bring_up(&host_link, Some((addresses.host, 32))).await?;
    host.add_host_route(addresses.block, index, addresses.host).await?;

    router.bring_up("lo", None).await?;
    router.bring_up("down", Some((guest.gateway, guest.prefix))).await?;
    let up = router.bring_up("up", Some((addresses.block, 32))).await?;
    router.add_default_route(addresses.host, up).await?;

    inside.bring_up("lo", None).await?;
    let eth0 = inside.bring_up("eth0", Some((guest.address, guest.prefix))).await?;
    inside.add_default_route(guest.gateway, eth0).await?;

    host.wait_running(&host_link).await?;
    router.wait_running("up").await?;
    router.wait_running("down").await?;
    inside.wait_running("eth0").await?;
    Sockets::bind(guest.gateway).map_err(SlotError::Sockets)
}

async fn reopen_here(plan: &Plan, policy: EgressPolicy) -> Result<Option<Sockets>, SlotError> {
    let link = plan.names.link(plan.slot);
    let reachable = Links::open()?.has_address(&link, plan.addresses.host).await?;
    let guest = Namespace::find(&plan.names.guest_netns(plan.slot))?;
    let (true, Some(_), Some(router)) =
        (reachable, guest, Namespace::find(&plan.names.router_netns(plan.slot))?)
    else {
        return Ok(None);
    };
    router.enter()?;
    plan.nft.apply(&ruleset::router(&plan.addresses, policy)).await?;
    Sockets::bind(plan.addresses.guest.gateway).map(Some).map_err(SlotError::Sockets)
}

/// Before any link exists in the calling thread's namespace, so that none ever gets an IPv6 address.
fn disable_ipv6() -> Result<(), SlotError> {
    disable_ipv6_of("all")?;
    disable_ipv6_of("default")
}

fn disable_ipv6_of(link: &str) -> Result<(), SlotError> {
    match write_sysctl(&format!("net/ipv6/conf/{link}/disable_ipv6"), "1") {
        // A kernel without IPv6.
        Err(SlotError::Sysctl { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Writes a setting of the calling thread's namespace.
fn write_sysctl(name: &str, value: &str) -> Result<(), SlotError> {
    let path = format!("/proc/sys/{name}");
    fs::write(&path, value).map_err(|source| SlotError::Sysctl { path, source })
}
