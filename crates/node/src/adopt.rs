//! What an earlier server left: adopted where it is alive and was promised to somebody, removed otherwise.

use std::sync::Arc;

use sandbar_model::{Observed, RunId};

use crate::held::{Chain, Held};
use crate::journal::{Found, Phase, Record};
use crate::local::Shared;
use crate::parts::BoxError;

/// A sandbox that runs on.
pub(crate) struct Adopted {
    pub(crate) run: RunId,
    pub(crate) observed: Observed,
    pub(crate) held: Held,
}

/// Adopts one entry of the journal, or removes what it names.
#[tracing::instrument(name = "adopt", skip_all, fields(sandbox_id = %found.id))]
pub(crate) async fn adopt(shared: &Arc<Shared>, found: Found) -> Option<Adopted> {
    let Some(record) = found.record else {
        tracing::error!("journal record is damaged; what it names is removed by name");
        let held = Held {
            scratch: true,
            root: true,
            journal: Some(shared.journal.entry(&found.id)),
            ..Held::default()
        };
        held.release(&found.id, &shared.parts).await;
        return None;
    };
    // From here on everything is held, and either goes with the sandbox or is given back.
    let mut held = Held {
        slot: Some(record.slot()),
        root: true,
        scratch: true,
        journal: Some(shared.journal.entry(&found.id)),
        planned: Some(record.guest.clone()),
        guest: None,
    };
    match revive(shared, &found.id, &record, &mut held).await {
        Ok(Some(observed)) => {
            tracing::info!("sandbox adopted");
            Some(Adopted { run: observed.run, observed, held })
        }
        Ok(None) => {
            tracing::info!("sandbox of an earlier server removed");
            held.release(&found.id, &shared.parts).await;
            None
        }
        Err(error) => {
            tracing::error!(error = %Chain(&*error), "sandbox was not adopted");
            held.release(&found.id, &shared.parts).await;
            None
        }
    }
}

/// Takes the parts of a living sandbox over; `None` when it is not alive or was never promised.
async fn revive(
    shared: &Arc<Shared>,
    id: &sandbar_model::SandboxId,
    record: &Record,
    held: &mut Held,
) -> Result<Option<Observed>, BoxError> {
    let Some(run) = record.run().filter(|_| record.phase() == Phase::Running) else {
        return Ok(None);
    };
    let parts = &shared.parts;
    let Some(guest) = parts.engine.adopt(&record.guest).await? else {
        return Ok(None);
    };
    held.guest = Some(guest);
    let Some(lease) = parts.network.adopt(record.slot(), record.egress()).await? else {
        return Ok(None);
    };
    parts.disks.hold_root(id, &record.layers()).await?;
    parts.disks.adopt_scratch(id).await?;
    Ok(Some(Observed { id: id.clone(), run, address: lease.host_address }))
}
