//! From the decision that a sandbox shall end until nothing of it is left.

use std::pin::pin;
use std::time::Duration;

use sandbar_model::{StopError, StopReason};
use tracing::{error, info, warn};

use super::{Command, SandboxTask, Waiter};
use crate::error::ChangeError;

/// How long those who wait for the end are kept waiting. The end is recorded and the sandbox out of reach by then.
const PATIENCE: Duration = Duration::from_secs(10);

const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(60);

impl SandboxTask {
    /// Puts the sandbox out of reach, records its end, has the node give everything back, and forgets it.
    ///
    /// Goes on trying until the node has done it; only the end of the server leaves that to the next one, which
    /// finds the row.
    pub(super) async fn end(mut self, reason: StopReason) {
        self.shared.routes.withdraw(self.id());
        if let Err(error) = self.shared.db.set_ending(self.id(), reason).await {
            // It ends all the same. After a crash meanwhile the next server would see a sandbox that was lost.
            error!(error = &error as &dyn std::error::Error, "end of sandbox was not recorded");
        }

        let mut wait = RETRY_FIRST;
        while let Err(error) = self.stop(reason).await {
            error!(error = &error as &dyn std::error::Error, "sandbox was not stopped, trying again");
            self.answer_waiters();
            if self.shared.shutdown.is_cancelled() {
                return;
            }
            self.serve_for(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }

        if let Err(error) = self.shared.db.delete_sandbox(self.id()).await {
            // The row says that it shall end: nobody sees it, and the next server removes it.
            error!(error = &error as &dyn std::error::Error, "row of ended sandbox was not removed");
        }
        self.shared.registry.release(self.id());
        info!(?reason, "sandbox ended");
        self.answer_waiters();
        self.inbox.close();
        while let Some(command) = self.inbox.recv().await {
            self.refuse(command);
        }
        self.answer_waiters();
    }

    /// One attempt to stop, during which whoever wants the end joins.
    async fn stop(&mut self, reason: StopReason) -> Result<(), StopError> {
        let node = self.shared.node.clone();
        let id = self.record.id.clone();
        let mut stopping = pin!(node.stop(&id, reason));
        let mut patience = pin!(tokio::time::sleep(PATIENCE));
        let mut patient = true;
        loop {
            // Every branch is cancel safe.
            let command = tokio::select! {
                biased;
                stopped = &mut stopping => return stopped,
                Some(command) = self.inbox.recv() => command,
                () = &mut patience, if patient => {
                    warn!("sandbox takes long to stop");
                    patient = false;
                    self.answer_waiters();
                    continue;
                }
            };
            self.refuse(command);
        }
    }

    /// Waits, and answers whoever asks meanwhile.
    async fn serve_for(&mut self, wait: Duration) {
        let mut over = pin!(tokio::time::sleep(wait));
        loop {
            let command = tokio::select! {
                () = &mut over => return,
                () = self.shared.shutdown.cancelled() => return,
                Some(command) = self.inbox.recv() => command,
            };
            self.refuse(command);
            self.answer_waiters();
        }
    }

    /// What a sandbox that is being ended says to a command.
    fn refuse(&mut self, command: Command) {
        match command {
            Command::Kill { done, .. } => self.waiters.push(Waiter::Killer(done)),
            Command::Change { reply, .. } => {
                drop(reply.send(Err(ChangeError::Ending(self.record.id.clone()))));
            }
            Command::Exited { .. } => {}
        }
    }

    fn answer_waiters(&mut self) {
        for deferred in std::mem::take(&mut self.deferred) {
            self.refuse(deferred);
        }
        for waiter in self.waiters.drain(..) {
            waiter.answer();
        }
    }
}
