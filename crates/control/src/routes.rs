//! The way to every sandbox that can be reached now.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::RwLock;

use async_trait::async_trait;
use sandbar_model::{Refusal, Route, Routes, RunId, SandboxId};
use tokio_util::sync::CancellationToken;

use crate::TokenSeed;

/// Routes in memory, as the sandboxes' tasks announce and withdraw them.
///
/// A route is there from the end of the start until the end was decided; then it goes at once, before anything is
/// torn down, and open connections are cut.
pub struct RouteTable {
    seed: TokenSeed,
    inner: RwLock<Inner>,
}

#[derive(Default)]
struct Inner {
    routes: HashMap<SandboxId, Entry>,
    /// By [`TokenSeed::index_of`] the token; secured sandboxes only.
    by_token: HashMap<[u8; 32], SandboxId>,
}

struct Entry {
    route: Route,
    token: Option<[u8; 32]>,
}

/// What is known of a run that can be reached.
pub(crate) struct Announced {
    pub(crate) run: RunId,
    pub(crate) address: Ipv4Addr,
    pub(crate) secured: bool,
}

impl RouteTable {
    pub(crate) fn new(seed: TokenSeed) -> Self {
        Self { seed, inner: RwLock::default() }
    }

    pub(crate) fn announce(&self, id: &SandboxId, announced: Announced) {
        let token = announced.secured.then(|| self.seed.index_of(self.seed.access_token(id).expose()));
        let route = Route { run: announced.run, address: announced.address, ended: CancellationToken::new() };
        let mut inner = self.write();
        if let Some(token) = token {
            inner.by_token.insert(token, id.clone());
        }
        if let Some(before) = inner.routes.insert(id.clone(), Entry { route, token }) {
            before.route.ended.cancel();
        }
    }

    pub(crate) fn withdraw(&self, id: &SandboxId) {
        let mut inner = self.write();
        if let Some(entry) = inner.routes.remove(id) {
            if let Some(token) = entry.token {
                inner.by_token.remove(&token);
            }
            entry.route.ended.cancel();
        }
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Inner> {
        self.inner.write().expect("no code panics with this lock held")
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Inner> {
        self.inner.read().expect("no code panics with this lock held")
    }
}

#[async_trait]
impl Routes for RouteTable {
    async fn find(&self, id: &SandboxId) -> Result<Route, Refusal> {
        self.read().routes.get(id).map(|entry| entry.route.clone()).ok_or(Refusal::NotFound)
    }

    async fn find_by_token(&self, token: &str) -> Option<SandboxId> {
        let index = self.seed.index_of(token);
        self.read().by_token.get(&index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_route_ends_when_it_is_withdrawn_and_its_token_with_it() {
        let seed = TokenSeed::new([3; 32]);
        let table = RouteTable::new(seed.clone());
        let id: SandboxId = "iabc".parse().unwrap();
        let token = seed.access_token(&id);
        let run = RunId(uuid::Uuid::from_u128(1));
        table.announce(&id, Announced { run, address: Ipv4Addr::LOCALHOST, secured: true });

        let route = table.find(&id).await.unwrap();
        assert_eq!(route.run, run);
        assert_eq!(table.find_by_token(token.expose()).await, Some(id.clone()));
        assert_eq!(table.find_by_token("guess").await, None);

        table.withdraw(&id);
        table.withdraw(&id);
        assert!(route.ended.is_cancelled());
        assert_eq!(table.find(&id).await.unwrap_err(), Refusal::NotFound);
        assert_eq!(table.find_by_token(token.expose()).await, None);
    }

    #[tokio::test]
    async fn a_sandbox_without_a_token_is_not_found_by_one() {
        let seed = TokenSeed::new([3; 32]);
        let table = RouteTable::new(seed.clone());
        let id: SandboxId = "iabc".parse().unwrap();
        let run = RunId(uuid::Uuid::from_u128(1));
        table.announce(&id, Announced { run, address: Ipv4Addr::LOCALHOST, secured: false });
        assert_eq!(table.find_by_token(seed.access_token(&id).expose()).await, None);
    }
}
