//! A connection that no longer speaks HTTP: bytes both ways until either side, or the sandbox, ends.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional_with_sizes;
use tokio_util::sync::CancellationToken;

/// How long each side may take from its last byte of HTTP to the new protocol.
const HANDOVER: Duration = Duration::from_secs(10);

/// Bytes held for each direction.
const BUFFER: usize = 64 * 1024;

/// Joins both sides once they have left HTTP. When the run ends, both are dropped as they are.
pub(crate) async fn tunnel(client: OnUpgrade, guest: OnUpgrade, ended: CancellationToken) {
    let both = tokio::time::timeout(HANDOVER, async { tokio::try_join!(client, guest) });
    let (client, guest) = match both.await {
        Ok(Ok(both)) => both,
        Ok(Err(error)) => {
            tracing::debug!(error = &error as &dyn std::error::Error, "upgrade was not completed");
            return;
        }
        Err(_late) => {
            tracing::debug!("upgrade was not completed in time");
            return;
        }
    };
    let (mut client, mut guest) = (TokioIo::new(client), TokioIo::new(guest));
    tokio::select! {
        () = ended.cancelled() => {}
        result = copy_bidirectional_with_sizes(&mut client, &mut guest, BUFFER, BUFFER) => {
            if let Err(error) = result {
                tracing::debug!(error = &error as &dyn std::error::Error, "tunnel broke");
            }
        }
    }
}
