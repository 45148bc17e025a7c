//! Teams and the keys they show.

use std::collections::HashMap;
use std::sync::RwLock;

use sandbar_db::Database;
use sandbar_db::record::{ApiKey, KeyMask, Team};
use sandbar_model::{ApiKeyId, TeamId};
use uuid::Uuid;

use crate::Control;
use crate::error::ReadError;
use crate::sandbox::Shared;

/// A key that is to be known from now on.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// For people.
    pub name: String,
    /// SHA-256 of the decoded key.
    pub hash: [u8; 32],
    /// What may be shown of it.
    pub mask: KeyMask,
}

/// Keys that were looked up before. Only those that exist are kept, so that it cannot grow by guessing.
#[derive(Default)]
pub(crate) struct KnownKeys(RwLock<HashMap<[u8; 32], Team>>);

impl KnownKeys {
    fn find(&self, hash: &[u8; 32]) -> Option<Team> {
        self.0.read().expect("no code panics with this lock held").get(hash).cloned()
    }

    fn remember(&self, hash: [u8; 32], team: Team) {
        self.0.write().expect("no code panics with this lock held").insert(hash, team);
    }
}

impl Control {
    /// The team a key speaks for, by the SHA-256 of the decoded key.
    pub async fn team_of_key(&self, hash: &[u8; 32]) -> Result<Option<Team>, ReadError> {
        if let Some(team) = self.known_keys.find(hash) {
            return Ok(Some(team));
        }
        let team = self.shared.db.team_of_key(hash).await.map_err(ReadError::of("look up API key"))?;
        if let Some(team) = &team {
            self.known_keys.remember(*hash, team.clone());
        }
        Ok(team)
    }

    /// Whether anybody could authenticate.
    pub async fn has_api_keys(&self) -> Result<bool, ReadError> {
        self.shared.db.has_api_keys().await.map_err(ReadError::of("look for API keys"))
    }

    /// Adds a key for the default team.
    pub async fn add_api_key(&self, new: NewApiKey) -> Result<(), ReadError> {
        let key = ApiKey {
            id: ApiKeyId(Uuid::new_v4()),
            team: self.default_team.id,
            name: new.name,
            hash: new.hash,
            mask: new.mask,
            created_at: self.shared.now(),
        };
        self.shared.db.insert_api_key(&key).await.map_err(ReadError::of("add API key"))
    }
}

/// The default team; made when there is none yet.
pub(crate) async fn ensure_default_team(shared: &Shared) -> Result<Team, sandbar_db::DbError> {
    let db: &dyn Database = &*shared.db;
    if let Some(team) = db.default_team().await? {
        return Ok(team);
    }
    let team = Team {
        id: TeamId(Uuid::new_v4()),
        slug: "default".to_owned(),
        name: "Default".to_owned(),
        is_default: true,
        created_at: shared.now(),
    };
    db.insert_team(&team).await?;
    Ok(team)
}
