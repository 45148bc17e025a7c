//! Teams and API keys.

use sqlx::{FromRow, SqlitePool};

use super::value::{Column, micros};
use crate::DbError;
use crate::record::{ApiKey, Team};

pub(super) async fn insert_team(pool: &SqlitePool, team: &Team) -> Result<(), DbError> {
    sqlx::query("INSERT INTO teams (id, slug, name, is_default, created_at) VALUES (?, ?, ?, ?, ?)")
        .bind(team.id.to_string())
        .bind(&team.slug)
        .bind(&team.name)
        .bind(team.is_default)
        .bind(micros(team.created_at))
        .execute(pool)
        .await
        .map_err(DbError::query("add team"))?;
    Ok(())
}

pub(super) async fn default_team(pool: &SqlitePool) -> Result<Option<Team>, DbError> {
    sqlx::query_as::<_, TeamRow>("SELECT * FROM teams WHERE is_default = 1")
        .fetch_optional(pool)
        .await
        .map_err(DbError::query("find default team"))?
        .map(Team::try_from)
        .transpose()
}

pub(super) async fn insert_api_key(pool: &SqlitePool, key: &ApiKey) -> Result<(), DbError> {
    sqlx::query(
        "INSERT INTO api_keys \
         (id, team_id, name, hash, mask_prefix, value_length, mask_first, mask_last, created_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(key.id.to_string())
    .bind(key.team.to_string())
    .bind(&key.name)
    .bind(key.hash.as_slice())
    .bind(&key.mask.prefix)
    .bind(i64::from(key.mask.value_length))
    .bind(&key.mask.first)
    .bind(&key.mask.last)
    .bind(micros(key.created_at))
    .execute(pool)
    .await
    .map_err(DbError::query("add API key"))?;
    Ok(())
}

pub(super) async fn has_api_keys(pool: &SqlitePool) -> Result<bool, DbError> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM api_keys)")
        .fetch_one(pool)
        .await
        .map_err(DbError::query("look for API keys"))
}

pub(super) async fn team_of_key(pool: &SqlitePool, hash: &[u8; 32]) -> Result<Option<Team>, DbError> {
    sqlx::query_as::<_, TeamRow>(
        "SELECT teams.* FROM teams JOIN api_keys ON api_keys.team_id = teams.id WHERE api_keys.hash = ?",
    )
    .bind(hash.as_slice())
    .fetch_optional(pool)
    .await
    .map_err(DbError::query("find API key"))?
    .map(Team::try_from)
    .transpose()
}

#[derive(FromRow)]
struct TeamRow {
    id: String,
    slug: String,
    name: String,
    is_default: bool,
    created_at: i64,
}

impl TryFrom<TeamRow> for Team {
    type Error = DbError;

    fn try_from(row: TeamRow) -> Result<Self, DbError> {
        Ok(Self {
            id: Column("teams", "id").parse(&row.id)?,
            slug: row.slug,
            name: row.name,
            is_default: row.is_default,
            created_at: Column("teams", "created_at").time(row.created_at)?,
        })
    }
}
