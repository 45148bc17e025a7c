//! The work on slots: each function is a task that runs to its end, whoever waits for it.

use std::sync::Arc;
use std::time::Duration;

use sandbar_model::{EgressPolicy, Lease, SlotIndex};

use super::error::{Cause, LeaseError, PolicyError, ReleaseError};
use super::table::{Hold, State};
use super::{Pending, Shared};
use crate::dns::Forwarder;
use crate::slot::{self, BUILT_WITH, Plan};

/// After a slot could not be built ahead, before the next attempt.
const BACK_OFF: Duration = Duration::from_secs(2);

/// Keeps slots ready until the networks are closed.
pub(super) async fn keep_ready(shared: Arc<Shared>) {
    while !shared.stop.is_cancelled() {
        let pause = match fill(&shared).await {
            Ok(()) => None,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "slot not built ahead");
                Some(BACK_OFF)
            }
        };
        let wake = async {
            match pause {
                Some(pause) => tokio::time::sleep(pause).await,
                None => shared.few_ready.notified().await,
            }
        };
        let _ = shared.stop.run_until_cancelled(wake).await;
    }
}

/// Builds one slot after the other until the upper mark is reached or no more may exist.
async fn fill(shared: &Shared) -> Result<(), LeaseError> {
    while !shared.stop.is_cancelled() && shared.table.counts().ready < shared.ready.max {
        let _turn = shared.build_ahead.acquire().await.map_err(|_| LeaseError::Closing)?;
        match build(shared, BUILT_WITH).await {
            Ok((hold, forwarder, _)) => hold.put(State::Ready(forwarder)),
            // Sandboxes need all there may be; the next one released makes room.
            Err(LeaseError::Full(_)) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Leases a slot that is ready, with its policy changed, or builds one.
pub(super) async fn lease(shared: Arc<Shared>, policy: EgressPolicy) -> Result<Pending, LeaseError> {
    // Those that wait here while others build may find a slot ready afterwards.
    let _permit = shared.builds.acquire().await.map_err(|_| LeaseError::Closing)?;
    let (hold, forwarder, plan) = match ready_or_built(&shared, policy).await {
        // The last one there may be is perhaps being built ahead at this moment.
        Err(LeaseError::Full(_)) => {
            let _turn = shared.build_ahead.acquire().await.map_err(|_| LeaseError::Closing)?;
            ready_or_built(&shared, policy).await?
        }
        other => other?,
    };
    hold.put(State::Leased(forwarder));
    Ok(Pending::new(Arc::clone(&shared), shared.lease_of(&plan)))
}

async fn ready_or_built(
    shared: &Shared,
    policy: EgressPolicy,
) -> Result<(Hold, Forwarder, Plan), LeaseError> {
    let Some((hold, forwarder)) = shared.table.take_ready() else { return build(shared, policy).await };
    shared.ask_for_more();
    let plan = shared.plan(hold.slot()).expect("the table gives numbers of the block only");
    if policy != BUILT_WITH {
        if let Err(error) = slot::change_policy(plan.clone(), policy).await {
            forwarder.stop().await;
            undo(shared, hold).await;
            return Err(LeaseError::Prepare { slot: plan.slot, source: error.into() });
        }
        forwarder.set_policy(policy);
    }
    Ok((hold, forwarder, plan))
}

/// Takes over a slot of an earlier run.
pub(super) async fn adopt(
    shared: Arc<Shared>,
    slot: SlotIndex,
    policy: EgressPolicy,
) -> Result<Option<Lease>, LeaseError> {
    let Some((hold, state)) = shared.table.take(slot).await else {
        return Ok(None);
    };
    let State::Kept = state else {
        hold.put(state);
        return Err(LeaseError::NotAdoptable(slot));
    };
    let reopened = match shared.plan(slot) {
        Some(plan) => reopen(&shared, plan, policy).await,
        None => Ok(None),
    };
    match reopened {
        Ok(Some((forwarder, lease))) => {
            hold.put(State::Leased(forwarder));
            Ok(Some(lease))
        }
        Ok(None) => {
            hold.put(State::Kept);
            Ok(None)
        }
        Err(source) => {
            hold.put(State::Kept);
            Err(LeaseError::Prepare { slot, source })
        }
    }
}

async fn reopen(
    shared: &Shared,
    plan: Plan,
    policy: EgressPolicy,
) -> Result<Option<(Forwarder, Lease)>, Cause> {
    let Some(sockets) = slot::reopen(plan.clone(), policy).await? else {
        return Ok(None);
    };
    let upstream = Arc::clone(&shared.upstream);
    let forwarder = Forwarder::start(sockets, plan.addresses.guest.address, policy, upstream)?;
    Ok(Some((forwarder, shared.lease_of(&plan))))
}

/// Changes the policy of a leased slot.
pub(super) async fn set_policy(
    shared: Arc<Shared>,
    slot: SlotIndex,
    policy: EgressPolicy,
) -> Result<(), PolicyError> {
    let (hold, state) = shared.table.take(slot).await.ok_or(PolicyError::NotLeased(slot))?;
    let State::Leased(forwarder) = state else {
        hold.put(state);
        return Err(PolicyError::NotLeased(slot));
    };
    let plan = shared.plan(slot).expect("only slots of the block are leased");
    let changed = slot::change_policy(plan, policy).await;
    if changed.is_ok() {
        forwarder.set_policy(policy);
    }
    hold.put(State::Leased(forwarder));
    changed.map_err(|error| PolicyError::Change { slot, source: error.into() })
}

/// Destroys a slot, whatever its state.
pub(super) async fn release(shared: Arc<Shared>, slot: SlotIndex) -> Result<(), ReleaseError> {
    let Some((hold, state)) = shared.table.take(slot).await else {
        return Ok(());
    };
    // Its sockets keep the router namespace alive.
    if let State::Leased(forwarder) | State::Ready(forwarder) = state {
        forwarder.stop().await;
    }
    let destroyed = slot::destroy(&shared.links, &shared.names, slot).await;
    match destroyed {
        Ok(()) => hold.remove(),
        Err(_) => hold.put(State::Broken),
    }
    shared.ask_for_more();
    destroyed.map_err(|error| ReleaseError { slot, source: error.into() })
}

/// Builds a slot. The caller decides what it is for.
async fn build(shared: &Shared, policy: EgressPolicy) -> Result<(Hold, Forwarder, Plan), LeaseError> {
    let hold = shared.table.reserve().ok_or_else(|| LeaseError::Full(shared.table.max()))?;
    let plan = shared.plan(hold.slot()).expect("the table gives numbers of the block only");
    let started = std::time::Instant::now();
    match start(shared, plan.clone(), policy).await {
        Ok(forwarder) => {
            tracing::debug!(slot = plan.slot.0, elapsed_us = started.elapsed().as_micros(), "slot built");
            Ok((hold, forwarder, plan))
        }
        Err(source) => {
            undo(shared, hold).await;
            Err(LeaseError::Prepare { slot: plan.slot, source })
        }
    }
}

async fn start(shared: &Shared, plan: Plan, policy: EgressPolicy) -> Result<Forwarder, Cause> {
    let guest = plan.addresses.guest.address;
    let sockets = slot::build(plan, policy).await?;
    Ok(Forwarder::start(sockets, guest, policy, Arc::clone(&shared.upstream))?)
}

/// Removes what there is of a slot that did not come to be.
pub(super) async fn undo(shared: &Shared, hold: Hold) {
    match slot::destroy(&shared.links, &shared.names, hold.slot()).await {
        Ok(()) => hold.remove(),
        Err(error) => {
            let slot = hold.slot().0;
            tracing::error!(slot, error = &error as &dyn std::error::Error, "slot not removed");
            hold.put(State::Broken);
        }
    }
}
