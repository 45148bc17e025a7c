//! The networks of this host, as its sandboxes' tasks use them.

use async_trait::async_trait;
use sandbar_model::{EgressPolicy, Lease, SlotIndex};
use sandbar_net::Networks;

use crate::parts::{BoxError, Network};

/// `net` behind the [`Network`] port.
#[derive(Debug)]
pub struct HostNetwork(Networks);

impl HostNetwork {
    /// Opens the networks of this instance; the slots `in_use` are kept for adoption, all others removed.
    pub async fn open(
        config: sandbar_net::Config,
        in_use: Vec<SlotIndex>,
    ) -> Result<Self, sandbar_net::OpenError> {
        Ok(Self(sandbar_net::open(config, in_use).await?))
    }
}

#[async_trait]
impl Network for HostNetwork {
    async fn lease(&self, policy: EgressPolicy) -> Result<Lease, BoxError> {
        Ok(self.0.lease(policy).await?)
    }

    async fn adopt(&self, slot: SlotIndex, policy: EgressPolicy) -> Result<Option<Lease>, BoxError> {
        Ok(self.0.adopt(slot, policy).await?)
    }

    async fn release(&self, slot: SlotIndex) -> Result<(), BoxError> {
        Ok(self.0.release(slot).await?)
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
