//! All slots of one instance: opened, leased, changed, released, closed.
//!
//! Work on a slot runs in tasks of its own, which the handle owns and [`Networks::close`] waits for: a caller that
//! goes away leaves nothing half done, and a lease nobody waits for any more is released again. A task keeps slots
//! ready: when fewer than the lower mark are, it builds until the upper mark is reached.

mod error;
mod lease;
mod open;
mod table;

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use camino::Utf8PathBuf;
use sandbar_model::{EgressPolicy, InstanceId, Lease, SlotIndex};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::block::Block;
use crate::claim::Claim;
use crate::dns::Upstream;
use crate::link::Links;
use crate::name::{Names, netns_path};
use crate::nft::Nft;
use crate::slot::{BUILT_WITH, Plan};

pub use error::{Cause, LeaseError, OpenError, PolicyError, ReleaseError};
pub use table::SlotCounts;

use table::Table;

/// What an instance's networks are like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Whose they are; part of all names.
    pub instance: InstanceId,
    /// The instance's data directory. It tells whose a claimed block of addresses is; nothing is stored there.
    pub data_dir: Utf8PathBuf,
    /// What instances on this host share, usually `/run/sandbar`. It must be the same for all of them.
    pub runtime_dir: Utf8PathBuf,
    /// With fewer slots ready than this, more are built.
    pub slots_ready_min: u16,
    /// Up to this many are built ahead.
    pub slots_ready_max: u16,
    /// Slots there may be in all, leased, ready or being removed; a block has room for 4093.
    pub slots_max: u16,
    /// Where the DNS forwarder asks; as `/etc/resolv.conf` says when empty.
    pub nameservers: Vec<IpAddr>,
}

/// The networks of an instance. Dropping the handle without [`close`](Self::close) leaves everything on the host
/// as a crash would.
#[derive(Debug)]
pub struct Networks {
    shared: Arc<Shared>,
}

/// Opens an instance's networks. Removes everything an earlier run has left but the slots `in_use`, which keep
/// working and wait to be [adopted](Networks::adopt) or [released](Networks::release).
///
/// Waits a few seconds for an earlier process of the same instance that is about to end.
///
/// # Errors
/// When another process has the instance, no block of addresses is free, or the host does not do its part.
pub async fn open(config: Config, in_use: Vec<SlotIndex>) -> Result<Networks, OpenError> {
    let shared = open::open(config, in_use.into_iter().collect::<BTreeSet<_>>()).await?;
    shared.tasks.spawn(lease::keep_ready(Arc::clone(&shared)));
    Ok(Networks { shared })
}

impl Networks {
    /// Leases a slot: one that is ready, else one that is built now. Takes microseconds when one is ready and the
    /// policy is [`EgressPolicy::Internet`].
    ///
    /// # Cancel safety
    /// Safe: a lease that nobody receives is released.
    pub async fn lease(&self, policy: EgressPolicy) -> Result<Lease, LeaseError> {
        if policy == BUILT_WITH
            && let Some(lease) = self.shared.lease_ready()
        {
            return Ok(lease);
        }
        let leasing = lease::lease(Arc::clone(&self.shared), policy);
        let pending = self.shared.run(leasing).await.ok_or(LeaseError::Closing)??;
        Ok(pending.accept())
    }

    /// Takes over a slot that was `in_use` when the networks were opened; `None` when it is not whole any more
    /// (then release it).
    ///
    /// # Cancel safety
    /// Safe: the slot is taken over or not, and can be released either way.
    pub async fn adopt(&self, slot: SlotIndex, policy: EgressPolicy) -> Result<Option<Lease>, LeaseError> {
        let adopting = lease::adopt(Arc::clone(&self.shared), slot, policy);
        self.shared.run(adopting).await.ok_or(LeaseError::Closing)?
    }

    /// Changes what a sandbox may reach, as one step. Connections that exist live on.
    ///
    /// # Cancel safety
    /// Safe: the change is made or not.
    pub async fn set_policy(&self, lease: &Lease, policy: EgressPolicy) -> Result<(), PolicyError> {
        let slot = lease.slot;
        let changing = lease::set_policy(Arc::clone(&self.shared), slot, policy);
        self.shared.run(changing).await.ok_or(PolicyError::NotLeased(slot))?
    }

    /// Destroys a slot. Returns when nothing of it can be found; a slot that does not exist is released already.
    ///
    /// # Cancel safety
    /// Safe: it goes on.
    pub async fn release(&self, slot: SlotIndex) -> Result<(), ReleaseError> {
        let closing = || ReleaseError { slot, source: LeaseError::Closing.into() };
        self.shared.run(lease::release(Arc::clone(&self.shared), slot)).await.ok_or_else(closing)?
    }

    /// How many slots are in which state.
    pub fn counts(&self) -> SlotCounts {
        self.shared.table.counts()
    }

    /// Ends the instance's networks. Slots that are in use go on, without names being resolved, and with them stay
    /// the filter of the host and the claim of addresses; without any, nothing is left. What cannot be removed is
    /// logged.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
        open::close(&self.shared).await;
    }
}

/// A lease on its way to whoever asked for it; released again when it does not arrive.
struct Pending {
    shared: Arc<Shared>,
    lease: Option<Lease>,
}

impl Pending {
    fn new(shared: Arc<Shared>, lease: Lease) -> Self {
        Self { shared, lease: Some(lease) }
    }

    fn accept(mut self) -> Lease {
        self.lease.take().expect("taken only here and when dropped")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let releasing = lease::release(Arc::clone(&self.shared), lease.slot);
            self.shared.tasks.spawn(async move {
                if let Err(error) = releasing.await {
                    tracing::error!(error = &error as &dyn std::error::Error, "unclaimed slot not removed");
                }
            });
        }
    }
}

impl Drop for Networks {
    fn drop(&mut self) {
        self.shared.stop.cancel();
    }
}

/// What the handle and its tasks share.
struct Shared {
    names: Names,
    block: Block,
    /// Of the links of slots, in bytes.
    mtu: u32,
    nft: Nft,
    /// Of the host's namespace.
    links: Links,
    upstream: Arc<Upstream>,
    ready: ReadyMarks,
    runtime_dir: Utf8PathBuf,
    claim: Mutex<Option<Claim>>,
    table: Table,
    /// Fewer slots than the lower mark are ready.
    few_ready: Notify,
    /// Leases being prepared at once.
    builds: Semaphore,
    /// One permit: whoever builds ahead has it, and who has it knows that nobody does.
    build_ahead: Semaphore,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("names", &self.names)
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

/// Between how many ready slots to stay.
#[derive(Clone, Copy, Debug)]
struct ReadyMarks {
    min: usize,
    max: usize,
}

impl Shared {
    /// Runs work in a task of its own; `None` when closing has begun or the work panicked.
    async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        if self.tasks.is_closed() {
            return None;
        }
        let (done, outcome) = oneshot::channel();
        self.tasks.spawn(async move {
            // The caller may have gone; the work is done all the same.
            let _ = done.send(work.await);
        });
        outcome.await.ok()
    }

    fn lease_ready(&self) -> Option<Lease> {
        if self.tasks.is_closed() {
            return None;
        }
        let slot = self.table.lease_ready()?;
        self.ask_for_more();
        let plan = self.plan(slot).expect("the table gives numbers of the block only");
        Some(self.lease_of(&plan))
    }

    fn ask_for_more(&self) {
        if self.table.counts().ready < self.ready.min {
            self.few_ready.notify_one();
        }
    }

    /// `None` for a number that no slot of a block has.
    fn plan(&self, slot: SlotIndex) -> Option<Plan> {
        let addresses = self.block.slot(slot)?;
        Some(Plan { names: self.names.clone(), slot, addresses, mtu: self.mtu, nft: self.nft })
    }

    fn lease_of(&self, plan: &Plan) -> Lease {
        Lease {
            slot: plan.slot,
            guest_netns: netns_path(&self.names.guest_netns(plan.slot)),
            host_address: plan.addresses.block,
            guest: plan.addresses.guest,
        }
    }
}
