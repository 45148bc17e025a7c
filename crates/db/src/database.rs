//! What can be asked of a store.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use sandbar_model::{SandboxId, StopReason, TeamId, TemplateId};

use crate::DbError;
use crate::record::{ApiKey, Build, Publication, Run, Sandbox, Team, Template};

/// A store. Each method is one transaction, and durable when it returns.
#[async_trait]
pub trait Database: Send + Sync {
    /// Adds a team.
    async fn insert_team(&self, team: &Team) -> Result<(), DbError>;

    /// The default team, once there is one.
    async fn default_team(&self) -> Result<Option<Team>, DbError>;

    /// Adds an API key.
    async fn insert_api_key(&self, key: &ApiKey) -> Result<(), DbError>;

    /// Whether anybody could authenticate.
    async fn has_api_keys(&self) -> Result<bool, DbError>;

    /// The team a key speaks for, by the SHA-256 of the key.
    async fn team_of_key(&self, hash: &[u8; 32]) -> Result<Option<Team>, DbError>;

    /// Makes a build what a name and tag mean. Returns the template that the name means.
    async fn publish(&self, publication: &Publication) -> Result<TemplateId, DbError>;

    /// The template a name means, in a namespace or (without one) among the names that every team sees.
    async fn find_template(&self, namespace: Option<&str>, name: &str)
    -> Result<Option<TemplateId>, DbError>;

    /// A template by its id.
    async fn template(&self, id: &TemplateId) -> Result<Option<Template>, DbError>;

    /// A team's templates, newest first, at most `limit`.
    async fn templates(
        &self,
        team: TeamId,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<Vec<Template>, DbError>;

    /// A template's builds, newest first, at most `limit`.
    async fn builds(
        &self,
        template: &TemplateId,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<Vec<Build>, DbError>;

    /// The build a tag of a template means.
    async fn tagged_build(&self, template: &TemplateId, tag: &str) -> Result<Option<Build>, DbError>;

    /// Adds a sandbox that shall run, without a run.
    async fn insert_sandbox(&self, sandbox: &Sandbox) -> Result<(), DbError>;

    /// Records that a sandbox's start ended well, and counts it for its template.
    async fn insert_run(&self, id: &SandboxId, run: &Run) -> Result<(), DbError>;

    /// Moves the deadline of a run. Returns whether there is one.
    async fn set_deadline(&self, id: &SandboxId, deadline: Timestamp) -> Result<bool, DbError>;

    /// Records that a sandbox shall end. The first reason stays. Returns whether the sandbox was there.
    async fn set_ending(&self, id: &SandboxId, reason: StopReason) -> Result<bool, DbError>;

    /// Removes a sandbox of which nothing is left. Removing one that is not there succeeds.
    async fn delete_sandbox(&self, id: &SandboxId) -> Result<(), DbError>;

    /// A sandbox by its id, whatever its state.
    async fn sandbox(&self, id: &SandboxId) -> Result<Option<Sandbox>, DbError>;

    /// Every sandbox, whatever its state and owner.
    async fn all_sandboxes(&self) -> Result<Vec<Sandbox>, DbError>;

    /// Sandboxes that run and shall run, in the order of their start, at most `limit`.
    async fn running(
        &self,
        filter: &SandboxFilter,
        order: Order,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<Vec<Sandbox>, DbError>;

    /// How many sandboxes run and shall run.
    async fn count_running(&self, filter: &SandboxFilter) -> Result<u64, DbError>;

    /// Writes what is still in memory and lets go of the store. No other method may follow.
    async fn close(&self);
}

/// Which sandboxes are wanted. All conditions must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxFilter {
    /// Of this team.
    pub team: TeamId,
    /// With these pairs in their metadata, exactly.
    pub metadata: BTreeMap<String, String>,
    /// Started from this template.
    pub template: Option<TemplateId>,
    /// Started at this time or later.
    pub started_after: Option<Timestamp>,
}

/// The direction of a list. Rows of the same time are ordered by id, in the same direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

/// The last row of the page before: what follows it in the list's order is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAfter {
    /// The time it is ordered by, to the microsecond.
    pub at: Timestamp,
    /// Its id.
    pub id: String,
}
