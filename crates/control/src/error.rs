//! Why an operation did not happen.

use std::time::Duration;

use sandbar_db::DbError;
use sandbar_model::{ErrorKind, SandboxId, StartError, TemplateRef, UsageError};

/// Why a template reference means nothing that can be used.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// No such template, or it is private to another team.
    #[error("template {0} not found")]
    NotFound(TemplateRef),
    /// The template has no such tag.
    #[error("template {template} has no tag {tag}")]
    TagNotFound {
        /// The template, as the caller wrote it.
        template: TemplateRef,
        /// The tag.
        tag: String,
    },
    /// The database did not answer.
    #[error("look up template")]
    Db(#[source] DbError),
}

impl TemplateError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) | Self::TagNotFound { .. } => ErrorKind::NotFound,
            Self::Db(error) => error.kind(),
        }
    }
}

/// Why a sandbox was not made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The template cannot be used.
    #[error("find template")]
    Template(#[source] TemplateError),
    /// It would end before it began.
    #[error("timeout is zero")]
    TimeoutZero,
    /// It would live too long.
    #[error("timeout is longer than {max:?}")]
    TimeoutTooLong {
        /// The longest.
        max: Duration,
    },
    /// The team has as many sandboxes as it may have.
    #[error("team has {max} sandboxes already")]
    LimitReached {
        /// How many those are.
        max: u32,
    },
    /// The server takes no new sandboxes; nothing was done.
    #[error("server is shutting down")]
    Draining,
    /// The database did not take it.
    #[error("record sandbox {id}")]
    Db {
        /// The sandbox.
        id: SandboxId,
        /// Why.
        #[source]
        source: DbError,
    },
    /// The node did not start it.
    #[error("start sandbox")]
    Start(#[source] StartError),
    /// The start took too long.
    #[error("start of sandbox {id} took longer than {limit:?}")]
    TimedOut {
        /// The sandbox.
        id: SandboxId,
        /// How long it may take.
        limit: Duration,
    },
    /// It was killed before it was ready.
    #[error("sandbox {0} was killed while it was being started")]
    Killed(SandboxId),
}

impl CreateError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Template(error) => error.kind(),
            Self::TimeoutZero | Self::TimeoutTooLong { .. } => ErrorKind::Invalid,
            Self::LimitReached { .. } => ErrorKind::QuotaExceeded,
            Self::Draining => ErrorKind::Capacity,
            Self::Db { source, .. } => source.kind(),
            Self::Start(error) => error.kind(),
            Self::TimedOut { .. } => ErrorKind::Internal,
            Self::Killed(_) => ErrorKind::NotFound,
        }
    }
}

/// Why a sandbox could not be told about.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// Unknown, another team's, or ended.
    #[error("sandbox {0} not found")]
    NotFound(SandboxId),
    /// The database did not answer.
    #[error("look up sandbox")]
    Db(#[source] DbError),
    /// The sandbox's node could not tell.
    #[error("ask the node of the sandbox")]
    Node(#[source] UsageError),
}

impl LookupError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Db(error) => error.kind(),
            Self::Node(_) => ErrorKind::Internal,
        }
    }
}

/// Why a sandbox was not killed.
#[derive(Debug, thiserror::Error)]
pub enum KillError {
    /// Unknown, another team's, or ended.
    #[error("sandbox {0} not found")]
    NotFound(SandboxId),
}

impl KillError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
        }
    }
}

/// Why a sandbox's life was not made longer or shorter. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Unknown, another team's, or ended.
    #[error("sandbox {0} not found")]
    NotFound(SandboxId),
    /// It is being ended.
    #[error("sandbox {0} is being killed")]
    Ending(SandboxId),
    /// It would live too long.
    #[error("timeout is longer than {max:?}")]
    TimeoutTooLong {
        /// The longest.
        max: Duration,
    },
    /// The database did not take it.
    #[error("record deadline")]
    Db(#[source] DbError),
}

impl ChangeError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::Ending(_) => ErrorKind::Conflict,
            Self::TimeoutTooLong { .. } => ErrorKind::Invalid,
            Self::Db(error) => error.kind(),
        }
    }
}

/// Why a list or a question about an account was not answered.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct ReadError {
    /// What was being done.
    pub(crate) doing: &'static str,
    /// Why it failed.
    pub(crate) source: DbError,
}

impl ReadError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        self.source.kind()
    }

    /// For `map_err`: names what was being done.
    pub(crate) fn of(doing: &'static str) -> impl FnOnce(DbError) -> Self {
        move |source| Self { doing, source }
    }
}
