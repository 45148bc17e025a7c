//! Why an operation on the networks did not work.

use std::error::Error;

use camino::Utf8PathBuf;
use sandbar_model::{ErrorKind, InstanceId, SlotIndex};

/// What the kernel or a program said, with its context; for people.
pub type Cause = Box<dyn Error + Send + Sync>;

/// Why an instance's networks could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the instance open.
    #[error("instance {0} is open in another process")]
    Held(InstanceId),
    /// Another data directory has the same instance id.
    #[error("instance {instance} belongs to {data_dir}")]
    Taken {
        /// The id that both have.
        instance: InstanceId,
        /// The other's data directory.
        data_dir: Utf8PathBuf,
    },
    /// Every block of addresses is claimed, or in use by other software.
    #[error("all blocks of addresses in 198.18.0.0/15 are in use")]
    NoBlock,
    /// The host did not do its part.
    #[error("{doing}")]
    Host {
        /// What was being done.
        doing: &'static str,
        /// Why it did not work.
        source: Cause,
    },
}

impl OpenError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Held(_) | Self::Taken { .. } => ErrorKind::Conflict,
            Self::NoBlock => ErrorKind::Capacity,
            Self::Host { .. } => ErrorKind::Internal,
        }
    }

    pub(super) fn host(doing: &'static str) -> impl FnOnce(Cause) -> Self {
        move |source| Self::Host { doing, source }
    }
}

/// Why there is no lease.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// As many slots as allowed exist.
    #[error("all {0} network slots are in use")]
    Full(u16),
    /// The networks are being closed.
    #[error("networks are being closed")]
    Closing,
    /// Only a slot that was named in use at the opening, and not adopted since, can be adopted.
    #[error("network slot {} is not there to be adopted", .0.0)]
    NotAdoptable(SlotIndex),
    /// The host did not do its part. Nothing is left of the attempt, or it is tried again at the next opening.
    #[error("prepare network slot {}", slot.0)]
    Prepare {
        /// Which slot.
        slot: SlotIndex,
        /// Why it did not work.
        source: Cause,
    },
}

impl LeaseError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full(_) => ErrorKind::Capacity,
            Self::Closing => ErrorKind::Unavailable,
            Self::NotAdoptable(_) => ErrorKind::Conflict,
            Self::Prepare { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a policy was not changed. The one before is in force.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The slot is not leased.
    #[error("network slot {} is not leased", .0.0)]
    NotLeased(SlotIndex),
    /// The host did not do its part.
    #[error("change policy of network slot {}", slot.0)]
    Change {
        /// Which slot.
        slot: SlotIndex,
        /// Why it did not work.
        source: Cause,
    },
}

impl PolicyError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotLeased(_) => ErrorKind::NotFound,
            Self::Change { .. } => ErrorKind::Internal,
        }
    }
}

/// Why a slot was not released whole. Releasing it again continues.
#[derive(Debug, thiserror::Error)]
#[error("release network slot {}", slot.0)]
pub struct ReleaseError {
    pub(super) slot: SlotIndex,
    pub(super) source: Cause,
}

impl ReleaseError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}
