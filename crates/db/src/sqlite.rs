//! The store in one SQLite file, or in memory.
//!
//! A file has one connection that writes and a few that only read: SQLite lets readers and one writer work side by
//! side in WAL mode, and writers that queue in our pool wait for each other instead of failing as busy. `FULL`
//! makes a commit wait for the disk: what was acknowledged survives a power cut, keys and templates included.

mod sandboxes;
mod teams;
mod templates;
mod value;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use sandbar_model::{SandboxId, StopReason, TeamId, TemplateId};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::record::{ApiKey, Build, Publication, Run, Sandbox, Team, Template};
use crate::{Database, DbError, OpenError, Order, PageAfter, SandboxFilter};

/// Connections that only read. More would not help: each holds a page cache and a thread.
const READERS: u32 = 4;

pub(crate) struct Sqlite {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Sqlite {
    pub(crate) async fn in_memory() -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new().in_memory(true).foreign_keys(true);
        // The data lives in the connection: there is one, and it is never replaced.
        let pool = SqlitePoolOptions::new()
            .min_connections(1)
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(OpenError::Connect)?;
        Self { writer: pool.clone(), readers: pool }.migrated().await
    }

    pub(crate) async fn on_file(path: &str) -> Result<Self, OpenError> {
        // SQLite would make it readable for everybody; it holds metadata that is nobody else's business.
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path)
            .map_err(|source| OpenError::File { path: path.to_owned(), source })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            // For another program that looks into the file while we write.
            .busy_timeout(Duration::from_secs(5));
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(OpenError::Connect)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.read_only(true))
            .await
            .map_err(OpenError::Connect)?;
        Self { writer, readers }.migrated().await
    }

    async fn migrated(self) -> Result<Self, OpenError> {
        sqlx::migrate!("migrations/sqlite").run(&self.writer).await.map_err(OpenError::Migrate)?;
        Ok(self)
    }
}

#[async_trait]
impl Database for Sqlite {
    async fn insert_team(&self, team: &Team) -> Result<(), DbError> {
        teams::insert_team(&self.writer, team).await
    }

    async fn default_team(&self) -> Result<Option<Team>, DbError> {
        teams::default_team(&self.readers).await
    }

    async fn insert_api_key(&self, key: &ApiKey) -> Result<(), DbError> {
        teams::insert_api_key(&self.writer, key).await
    }

    async fn has_api_keys(&self) -> Result<bool, DbError> {
        teams::has_api_keys(&self.readers).await
    }

    async fn team_of_key(&self, hash: &[u8; 32]) -> Result<Option<Team>, DbError> {
        teams::team_of_key(&self.readers, hash).await
    }

    async fn publish(&self, publication: &Publication) -> Result<TemplateId, DbError> {
        templates::publish(&self.writer, publication).await
    }

    async fn find_template(
        &self,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Option<TemplateId>, DbError> {
        templates::find(&self.readers, namespace, name).await
    }

    async fn template(&self, id: &TemplateId) -> Result<Option<Template>, DbError> {
        templates::load(&self.readers, id).await
    }

    async fn templates(
        &self,
        team: TeamId,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<Vec<Template>, DbError> {
        templates::of_team(&self.readers, team, after, limit).await
    }

    async fn builds(
        &self,
        template: &TemplateId,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<Vec<Build>, DbError> {
        templates::builds(&self.readers, template, after, limit).await
    }

    async fn tagged_build(&self, template: &TemplateId, tag: &str) -> Result<Option<Build>, DbError> {
        templates::tagged_build(&self.readers, template, tag).await
    }

    async fn insert_sandbox(&self, sandbox: &Sandbox) -> Result<(), DbError> {
        sandboxes::insert(&self.writer, sandbox).await
    }

    async fn insert_run(&self, id: &SandboxId, run: &Run) -> Result<(), DbError> {
        sandboxes::insert_run(&self.writer, id, run).await
    }

    async fn set_deadline(&self, id: &SandboxId, deadline: Timestamp) -> Result<bool, DbError> {
        sandboxes::set_deadline(&self.writer, id, deadline).await
    }

    async fn set_ending(&self, id: &SandboxId, reason: StopReason) -> Result<bool, DbError> {
        sandboxes::set_ending(&self.writer, id, reason).await
    }

    async fn delete_sandbox(&self, id: &SandboxId) -> Result<(), DbError> {
        sandboxes::delete(&self.writer, id).await
    }

    async fn sandbox(&self, id: &SandboxId) -> Result<Option<Sandbox>, DbError> {
        sandboxes::load(&self.readers, id).await
    }

    async fn all_sandboxes(&self) -> Result<Vec<Sandbox>, DbError> {
        sandboxes::all(&self.readers).await
    }

    async fn running(
        &self,
        filter: &SandboxFilter,
        order: Order,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<Vec<Sandbox>, DbError> {
        sandboxes::running(&self.readers, filter, order, after, limit).await
    }

    async fn count_running(&self, filter: &SandboxFilter) -> Result<u64, DbError> {
        sandboxes::count_running(&self.readers, filter).await
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}
