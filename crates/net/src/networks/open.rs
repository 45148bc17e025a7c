//! Opening and closing an instance's networks: what it has on the host besides slots.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use camino::Utf8Path;
use sandbar_model::{InstanceId, SlotIndex};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::error::{Cause, OpenError};
use super::table::{State, Table};
use super::{Config, ReadyMarks, Shared};
use crate::claim::{Claim, ClaimError, Claimed, Owner, Registry, Sighting};
use crate::dns::Upstream;
use crate::forwarding::Forwarding;
use crate::link::Links;
use crate::name::Names;
use crate::nft::Nft;
use crate::resolver::Resolvers;
use crate::{leftover, namespace, ruleset};

/// How long an earlier process of the same instance may take to end.
const HANDOVER: Duration = Duration::from_secs(5);
const HANDOVER_POLL: Duration = Duration::from_millis(50);

/// Slots built at once. The kernel does most of it under one lock, so more gain nothing.
const BUILDS_MAX: usize = 4;

/// Without a default route there is no better guess.
const MTU: u32 = 1500;

pub(super) async fn open(config: Config, in_use: BTreeSet<SlotIndex>) -> Result<Arc<Shared>, OpenError> {
    let nft = Nft::find().map_err(Cause::from).map_err(OpenError::host("find the packet filter"))?;
    let failed = OpenError::host("prepare the directory of namespaces");
    blocking(namespace::prepare_dir).await.map_err(failed)?;
    let failed = OpenError::host("look at the links of the host");
    let (links, mtu) = look_at_links().await.map_err(failed)?;

    let names = Names::new(config.instance.clone());
    let owner = Owner { instance: config.instance.clone(), data_dir: config.data_dir.clone() };
    let claim = claim_block(&owner, &config.runtime_dir, &links, nft).await?;

    let upstream = Arc::new(Upstream::new(Resolvers::new(&config.nameservers)));
    let slots_ready_max = config.slots_ready_max.max(config.slots_ready_min);
    let shared = Shared {
        block: claim.block,
        mtu,
        nft,
        links,
        upstream,
        ready: ReadyMarks { min: config.slots_ready_min.into(), max: slots_ready_max.into() },
        runtime_dir: config.runtime_dir,
        claim: Mutex::new(Some(claim)),
        table: Table::new(in_use.iter().copied(), config.slots_max),
        few_ready: Notify::new(),
        builds: Semaphore::new(BUILDS_MAX),
        build_ahead: Semaphore::new(1),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        names,
    };
    if let Err(error) = prepare(&shared, &in_use).await {
        close(&shared).await;
        return Err(error);
    }
    tracing::info!(block = %shared.block, kept = in_use.len(), "networks opened");
    Ok(Arc::new(shared))
}

/// Leaves of this instance's objects only what is in use, and puts the host's filter in place.
async fn prepare(shared: &Shared, in_use: &BTreeSet<SlotIndex>) -> Result<(), OpenError> {
    leftover::sweep_slots(&shared.links, &shared.names, in_use)
        .await
        .map_err(Cause::from)
        .map_err(OpenError::host("remove slots of an earlier run"))?;
    shared
        .nft
        .apply(&ruleset::host(&shared.names, shared.block))
        .await
        .map_err(Cause::from)
        .map_err(OpenError::host("filter the host's links"))
}

/// Removes what nobody uses any more. All tasks have ended.
pub(super) async fn close(shared: &Shared) {
    for slot in shared.table.slots() {
        let Some((hold, state)) = shared.table.take(slot).await else {
            continue;
        };
        match state {
            State::Ready(forwarder) => {
                forwarder.stop().await;
                super::lease::undo(shared, hold).await;
            }
            State::Leased(forwarder) => {
                forwarder.stop().await;
                hold.put(State::Kept);
            }
            state => hold.put(state),
        }
    }
    let left = shared.table.slots().len();
    if left > 0 {
        // The claim's file stays and says whose the addresses are; its lock goes.
        drop(shared.claim.lock().expect("nobody panics holding it").take());
        tracing::info!(slots = left, "slots in use left alone");
        return;
    }
    if let Err(error) = leave(shared).await {
        tracing::error!(error = &*error as &dyn std::error::Error, "networks not removed whole");
    }
}

/// Gives up what the instance shares with the host: filter, claim, forwarding.
async fn leave(shared: &Shared) -> Result<(), Cause> {
    shared.nft.apply(&ruleset::remove_host(&shared.names)).await?;
    let Some(claim) = shared.claim.lock().expect("nobody panics holding it").take() else {
        return Ok(());
    };
    let runtime_dir = shared.runtime_dir.clone();
    blocking(move || {
        let registry = Registry::lock(&runtime_dir)?;
        if registry.release(claim)? {
            Forwarding::of_host(&runtime_dir).put_back()?;
            registry.remove_if_empty();
        }
        Ok::<_, Cause>(())
    })
    .await
}

/// Claims a block of addresses and, as long as there are claims, forwarding on this host.
async fn claim_block(
    owner: &Owner,
    runtime_dir: &Utf8Path,
    links: &Links,
    nft: Nft,
) -> Result<Claim, OpenError> {
    let deadline = Instant::now() + HANDOVER;
    loop {
        let Claimed { outcome, abandoned } = try_claim(owner, runtime_dir, links)
            .await
            .map_err(OpenError::host("claim a block of addresses"))?;
        let swept = !abandoned.is_empty();
        for instance in abandoned {
            sweep_abandoned(links, nft, instance).await;
        }
        match outcome {
            Ok(claim) => return Ok(claim),
            Err(ClaimError::Held(_)) if Instant::now() < deadline => sleep(HANDOVER_POLL).await,
            Err(ClaimError::NoBlock) if swept && Instant::now() < deadline => {}
            Err(ClaimError::Held(instance)) => return Err(OpenError::Held(instance)),
            Err(ClaimError::Taken { instance, data_dir }) => {
                return Err(OpenError::Taken { instance, data_dir });
            }
            Err(ClaimError::NoBlock) => return Err(OpenError::NoBlock),
            Err(error @ ClaimError::Io { .. }) => {
                return Err(OpenError::host("claim a block of addresses")(error.into()));
            }
        }
    }
}

async fn try_claim(owner: &Owner, runtime_dir: &Utf8Path, links: &Links) -> Result<Claimed, Cause> {
    let mut names = links.names().await?;
    names.extend(namespace::pinned()?);
    let sighting = Sighting { names, networks: links.networks_in_use().await? };
    let (owner, runtime_dir) = (owner.clone(), runtime_dir.to_owned());
    blocking(move || {
        let registry = Registry::lock(&runtime_dir)?;
        let claimed = registry.claim(&owner, &sighting);
        if claimed.outcome.is_ok() {
            Forwarding::of_host(&runtime_dir).ensure_on()?;
        }
        Ok::<_, Cause>(claimed)
    })
    .await
}

/// Nobody else ever would; but it is not our business either when it does not work.
async fn sweep_abandoned(links: &Links, nft: Nft, instance: InstanceId) {
    match leftover::sweep(links, nft, &Names::new(instance.clone())).await {
        Ok(()) => tracing::info!(%instance, "networks of an instance without data removed"),
        Err(error) => {
            tracing::warn!(%instance, error = &error as &dyn std::error::Error, "abandoned networks not removed");
        }
    }
}

async fn look_at_links() -> Result<(Links, u32), Cause> {
    let links = Links::open()?;
    let mtu = links.default_route_mtu().await?.unwrap_or(MTU);
    Ok((links, mtu))
}

async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, Cause>
where
    T: Send + 'static,
    E: Into<Cause> + Send + 'static,
{
    tokio::task::spawn_blocking(work).await?.map_err(Into::into)
}
