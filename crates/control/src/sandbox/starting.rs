//! From the reservation to the answer of the agent.

use std::pin::pin;

use sandbar_db::record;
use sandbar_model::{RunId, StartError, Started, StopReason};
use tracing::info;

use super::{Command, SandboxTask, Start, Waiter, after};
use crate::error::CreateError;

impl SandboxTask {
    /// Records what shall exist, has it started, records what came of it, and answers.
    ///
    /// On an error the sandbox shall end for the reason returned, and the creator is answered after that.
    pub(super) async fn start(&mut self, start: Start) -> Result<(), StopReason> {
        let Start { spec, reply } = start;
        let (started, exited) = match self.attempt(spec).await {
            Ok(done) => done,
            Err((reason, error)) => {
                self.waiters.push(Waiter::Creator(reply, error));
                return Err(reason);
            }
        };

        let now = self.shared.now();
        let run = record::Run {
            id: started.run,
            node: self.shared.node.id().clone(),
            address: started.address,
            agent_version: self.shared.node.agent_version().to_owned(),
            started_at: now,
            deadline: after(now, self.record.timeout),
        };
        if let Err(source) = self.shared.db.insert_run(self.id(), &run).await {
            let error = CreateError::Db { id: self.id().clone(), source };
            self.waiters.push(Waiter::Creator(reply, error));
            return Err(StopReason::StartFailed);
        }
        self.record.run = Some(run);
        self.announce();
        info!(template_id = %self.record.template, "sandbox started");
        // Whoever hung up has a sandbox all the same; it ends when its time is up.
        drop(reply.send(Ok((self.record.clone(), started.stages))));

        match exited {
            Some((run, reason)) if run == started.run => Err(reason),
            _ => Ok(()),
        }
    }

    /// The start itself, with what the node said about a run meanwhile; or why to end, and what to say.
    async fn attempt(
        &mut self,
        spec: sandbar_model::SandboxSpec,
    ) -> Result<(Started, Option<(RunId, StopReason)>), (StopReason, CreateError)> {
        if let Err(source) = self.shared.db.insert_sandbox(&self.record).await {
            return Err((StopReason::StartFailed, CreateError::Db { id: self.id().clone(), source }));
        }

        let limit = self.shared.config.start_timeout;
        let node = self.shared.node.clone();
        let mut starting = pin!(node.start(spec));
        let mut too_late = pin!(tokio::time::sleep(limit));
        let mut exited = None;
        loop {
            // The node owns the start: leaving the future behind leaves the start to the end that follows.
            let command = tokio::select! {
                biased;
                started = &mut starting => return match started {
                    Ok(started) => Ok((started, exited)),
                    Err(StartError::Killed { id }) => {
                        Err((StopReason::Requested, CreateError::Killed(id)))
                    }
                    Err(error) => Err((StopReason::StartFailed, CreateError::Start(error))),
                },
                command = self.inbox.recv() => command,
                () = self.shared.shutdown.cancelled(), if self.leave().is_some() => {
                    return Err((StopReason::Requested, CreateError::Draining));
                }
                () = &mut too_late => {
                    let error = CreateError::TimedOut { id: self.id().clone(), limit };
                    return Err((StopReason::StartFailed, error));
                }
            };
            match command {
                Some(Command::Kill { reason, done }) => {
                    self.waiters.push(Waiter::Killer(done));
                    return Err((reason, CreateError::Killed(self.id().clone())));
                }
                Some(change @ Command::Change { .. }) => self.deferred.push(change),
                // The run may have ended before we hear that it began.
                Some(Command::Exited { run, reason }) => exited = Some((run, reason)),
                // The registry holds a sender for as long as this task has not released its place.
                None => return Err((StopReason::Lost, CreateError::Draining)),
            }
        }
    }
}
