//! What carries an instance's name on this host, and removing it.

use std::collections::BTreeSet;

use sandbar_model::{InstanceId, SlotIndex};

use crate::link::{LinkError, Links};
use crate::name::Names;
use crate::namespace::{self, NamespaceError};
use crate::nft::{Nft, NftError};
use crate::ruleset;
use crate::slot::{self, DestroyError};

/// Why the host could not be searched.
#[derive(Debug, thiserror::Error)]
#[error("look for network objects of instance {instance}")]
pub struct LeftoverError {
    instance: InstanceId,
    source: SearchError,
}

/// Which part of the search failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SearchError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// Every kernel object on this host that carries the instance's name, as `kind name`; empty when all is clean.
///
/// # Errors
/// When links, namespaces or nft tables cannot be listed.
pub async fn leftovers(instance: &InstanceId) -> Result<Vec<String>, LeftoverError> {
    search(&Names::new(instance.clone()))
        .await
        .map_err(|source| LeftoverError { instance: instance.clone(), source })
}

async fn search(names: &Names) -> Result<Vec<String>, SearchError> {
    let mut found = Vec::new();
    for link in Links::open()?.names().await? {
        if names.slot_of_link(&link).is_some() {
            found.push(format!("link {link}"));
        }
    }
    for netns in namespace::pinned()? {
        if names.slot_of_netns(&netns).is_some() {
            found.push(format!("netns {netns}"));
        }
    }
    for table in Nft::find()?.inet_tables().await? {
        if table == names.table() {
            found.push(format!("table {table}"));
        }
    }
    Ok(found)
}

/// The slots of which anything is left.
pub(crate) async fn slots(links: &Links, names: &Names) -> Result<BTreeSet<SlotIndex>, SearchError> {
    let links = links.names().await?;
    let by_link = links.iter().filter_map(|name| names.slot_of_link(name));
    let pinned = namespace::pinned()?;
    let by_netns = pinned.iter().filter_map(|name| names.slot_of_netns(name));
    Ok(by_link.chain(by_netns).collect())
}

/// Why an instance could not be cleaned up whole.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error(transparent)]
    Search(#[from] SearchError),
    #[error("destroy slot {}", slot.0)]
    Destroy { slot: SlotIndex, source: DestroyError },
    #[error(transparent)]
    Nft(#[from] NftError),
}

/// Destroys all slots of an instance but those to keep.
pub(crate) async fn sweep_slots(
    links: &Links,
    names: &Names,
    keep: &BTreeSet<SlotIndex>,
) -> Result<(), SweepError> {
    for slot in slots(links, names).await?.difference(keep) {
        slot::destroy(links, names, *slot)
            .await
            .map_err(|source| SweepError::Destroy { slot: *slot, source })?;
        tracing::info!(slot = slot.0, "leftover slot removed");
    }
    Ok(())
}

/// Destroys everything of an instance.
pub(crate) async fn sweep(links: &Links, nft: Nft, names: &Names) -> Result<(), SweepError> {
    sweep_slots(links, names, &BTreeSet::new()).await?;
    Ok(nft.apply(&ruleset::remove_host(names)).await?)
}
