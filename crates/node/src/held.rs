//! What a sandbox holds on the host, and how it is given back.

use std::time::Duration;

use futures::future::BoxFuture;
use sandbar_engine::{Guest, GuestRecord};
use sandbar_model::{SandboxId, SlotIndex};

use crate::journal::Entry;
use crate::parts::{BoxError, Parts};

/// How often a remover is tried before the rest is left to the next start of the server.
const TRIES: u32 = 3;

/// How long a guest may take to end by itself. Nobody waits for it to say goodbye: its memory goes away.
const STOP_GRACE: Duration = Duration::ZERO;

/// Everything a sandbox holds, in the order it was taken.
#[derive(Default)]
pub(crate) struct Held {
    pub(crate) slot: Option<SlotIndex>,
    pub(crate) root: bool,
    pub(crate) scratch: bool,
    pub(crate) journal: Option<Entry>,
    /// Set before the boot begins, so that a boot that fails half-way is cleaned up by name.
    pub(crate) planned: Option<GuestRecord>,
    pub(crate) guest: Option<Box<dyn Guest>>,
}

/// A step of giving back that did not work.
pub(crate) struct Leftover {
    pub(crate) step: &'static str,
    pub(crate) source: BoxError,
}

impl Held {
    /// Gives everything back, last taken first. What could not be given back stays in the journal, and the
    /// first such step is returned; all other steps are done nevertheless.
    pub(crate) async fn release(self, id: &SandboxId, parts: &Parts) -> Option<Leftover> {
        let mut leftover = None;
        let mut note = |step, result: Result<(), BoxError>| {
            if let Err(source) = result {
                tracing::error!(step, error = %Chain(&*source), "sandbox was not released");
                leftover.get_or_insert(Leftover { step, source });
            }
        };
        if let Some(guest) = self.guest
            && let Err(error) = guest.stop(STOP_GRACE).await
        {
            // `remove` below ends what is left by name; it decides whether this matters.
            tracing::warn!(error = %Chain(&error), "guest did not stop");
        }
        if let Some(record) = &self.planned {
            note("remove guest", repeat(|| parts.engine.remove(record)).await);
        }
        if self.scratch {
            note("remove scratch disk", repeat(|| parts.disks.remove_scratch(id)).await);
        }
        if self.root {
            note("release root", repeat(|| parts.disks.release_root(id)).await);
        }
        if let Some(slot) = self.slot {
            note("release network", repeat(|| parts.network.release(slot)).await);
        }
        if let Some(journal) = self.journal
            && leftover.is_none()
            && let Err(error) = journal.remove().await
        {
            tracing::error!(error = %Chain(&error), "journal record was not removed");
            leftover = Some(Leftover { step: "remove journal record", source: error.into() });
        }
        leftover
    }
}

async fn repeat<'a, E: Into<BoxError>>(
    step: impl Fn() -> BoxFuture<'a, Result<(), E>>,
) -> Result<(), BoxError> {
    let mut pause = Duration::from_millis(20);
    for _ in 1..TRIES {
        if step().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause *= 5;
    }
    step().await.map_err(Into::into)
}

/// Prints an error and its sources in one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}
