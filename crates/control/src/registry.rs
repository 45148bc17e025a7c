//! Who is in charge of which sandbox, and how many a team has.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use sandbar_model::{SandboxId, TeamId};
use tokio::sync::mpsc;

use crate::sandbox::Command;

/// Every sandbox that a task of this server owns, from the reservation until nothing of it is left.
#[derive(Default)]
pub(crate) struct Registry {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    owners: HashMap<SandboxId, Owner>,
    of_team: HashMap<TeamId, u32>,
}

struct Owner {
    team: TeamId,
    inbox: mpsc::Sender<Command>,
}

/// The team has as many sandboxes as it may have.
#[derive(Debug)]
pub(crate) struct LimitReached;

impl Registry {
    /// Takes one of the team's places, unless all `max` are taken.
    pub(crate) fn reserve(
        &self,
        id: &SandboxId,
        team: TeamId,
        inbox: mpsc::Sender<Command>,
        max: u32,
    ) -> Result<(), LimitReached> {
        let mut inner = self.lock();
        let count = inner.of_team.entry(team).or_default();
        if *count >= max {
            return Err(LimitReached);
        }
        *count += 1;
        inner.owners.insert(id.clone(), Owner { team, inbox });
        Ok(())
    }

    /// Gives the place back.
    pub(crate) fn release(&self, id: &SandboxId) {
        let mut inner = self.lock();
        let Some(owner) = inner.owners.remove(id) else {
            return;
        };
        if let Some(count) = inner.of_team.get_mut(&owner.team) {
            *count -= 1;
            if *count == 0 {
                inner.of_team.remove(&owner.team);
            }
        }
    }

    /// The task in charge, whoever owns the sandbox.
    pub(crate) fn find(&self, id: &SandboxId) -> Option<mpsc::Sender<Command>> {
        self.lock().owners.get(id).map(|owner| owner.inbox.clone())
    }

    /// The task in charge, if the sandbox is the team's.
    pub(crate) fn find_of(&self, team: TeamId, id: &SandboxId) -> Option<mpsc::Sender<Command>> {
        self.lock().owners.get(id).filter(|owner| owner.team == team).map(|owner| owner.inbox.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no code panics with this lock held")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_team_has_its_places_and_gets_them_back() {
        let registry = Registry::default();
        let (team, other) = (TeamId(uuid::Uuid::from_u128(1)), TeamId(uuid::Uuid::from_u128(2)));
        let (a, b): (SandboxId, SandboxId) = ("ia".parse().unwrap(), "ib".parse().unwrap());
        let inbox = mpsc::channel(1).0;

        registry.reserve(&a, team, inbox.clone(), 1).unwrap();
        assert!(registry.reserve(&b, team, inbox.clone(), 1).is_err());
        registry.reserve(&b, other, inbox.clone(), 1).unwrap();
        assert!(registry.find_of(other, &a).is_none());
        assert!(registry.find_of(team, &a).is_some());

        registry.release(&a);
        registry.release(&a);
        assert!(registry.find(&a).is_none());
        registry.reserve(&a, team, inbox, 1).unwrap();
    }
}
