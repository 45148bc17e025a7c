//! What the REST surface answers when it does not do what was asked: one table.
//!
//! Clients match on statuses, on the number in the body and on some of the texts. Sources: contract/control-api.md
//! §2.1, §2.2, §4.2, §5; contract/client-versions.md §1.7, §1.8 and §2.2 rules 9 and 12. The phrases `was not found`
//! and `port is not open` belong to the edge's answers and must not occur here (rule 15).

use serde::Serialize;

/// Why a call was not done. Each variant is a row of the table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No `X-API-KEY`.
    #[error("authorization header is missing")]
    NoCredential,
    /// The key does not begin as keys do.
    #[error("authorization header is malformed")]
    MalformedCredential,
    /// The key is not one, or not ours.
    #[error("Invalid API key, please visit https://e2b.dev/docs/api-key for more information.\n{reason}")]
    InvalidApiKey {
        /// Why.
        reason: &'static str,
    },

    /// No operation has this path.
    #[error("There is no route {method} {path}")]
    UnknownRoute {
        /// As sent.
        method: String,
        /// As sent.
        path: String,
    },
    /// The path is known, the method is not.
    #[error("Method {method} is not allowed for {path}")]
    MethodNotAllowed {
        /// As sent.
        method: String,
        /// As sent.
        path: String,
    },
    /// A documented operation that we do not have yet.
    #[error("{operation} is not available in this version of Sandbar")]
    OperationNotAvailable {
        /// `POST /volumes`.
        operation: String,
    },
    /// A documented option that we do not have yet.
    #[error("The option '{option}' is not available in this version of Sandbar")]
    OptionNotAvailable {
        /// `network.allowOut`.
        option: &'static str,
    },

    /// The body is larger than the limit.
    #[error("The request body is larger than {limit_bytes} bytes")]
    BodyTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// The body did not arrive in time.
    #[error("The request body did not arrive within {limit_secs} seconds")]
    BodyTooSlow {
        /// The limit.
        limit_secs: u64,
    },
    /// The connection ended within the body.
    #[error("Error when parsing request: the body is incomplete")]
    BodyIncomplete,
    /// The body is not JSON.
    #[error("Error when parsing request: {detail}")]
    MalformedBody {
        /// What the parser says.
        detail: String,
    },
    /// The body or query is not what the schema says.
    #[error("validation error: {detail}")]
    Validation {
        /// What is wrong with it.
        detail: String,
    },
    /// `nextToken` is not one of ours, or one of the other order.
    #[error("Invalid next token")]
    InvalidNextToken,
    /// `metadata` of a query is not a list of pairs.
    #[error("Error parsing metadata")]
    MalformedMetadata,
    /// `template` of a query names a tag.
    #[error("Invalid template: tags are not supported here because sandboxes are not tag-scoped")]
    TaggedTemplateFilter,
    /// `teamID` of a query is not the key's team.
    #[error("Team ID param mismatch with the API key")]
    TeamMismatch,

    /// The path does not name a sandbox.
    #[error("Invalid sandbox ID")]
    InvalidSandboxId,
    /// Unknown, another team's, or ended.
    #[error("Sandbox \"{id}\" doesn't exist or you don't have access to it")]
    SandboxNotFound {
        /// The sandbox.
        id: String,
    },
    /// It is being ended.
    #[error("Sandbox \"{id}\" is being killed")]
    SandboxBeingKilled {
        /// The sandbox.
        id: String,
    },
    /// It runs, and only a paused one can be resumed.
    #[error("Sandbox {id} is already running")]
    SandboxAlreadyRunning {
        /// The sandbox.
        id: String,
    },
    /// A sandbox would end before it began.
    #[error("Timeout must be greater than 0")]
    TimeoutTooSmall,
    /// A sandbox would live longer than it may.
    #[error("Timeout cannot be greater than {hours} hours")]
    TimeoutTooLong {
        /// How long it may live.
        hours: u64,
    },
    /// `autoPauseMemory: false` alone.
    #[error("autoPauseMemory=false only applies when autoPause is true.")]
    AutoPauseMemoryAlone,
    /// `autoPauseMemory: false` with automatic resume.
    #[error("autoPauseMemory=false (filesystem-only auto-pause) cannot be combined with autoResume.")]
    AutoPauseMemoryWithAutoResume,

    /// The reference to a template is outside the grammar.
    #[error("Invalid template reference: {detail}")]
    InvalidTemplateReference {
        /// What is wrong with it.
        detail: String,
    },
    /// Nothing to start from under this name.
    #[error("template '{template}' not found")]
    TemplateNotFound {
        /// As the caller wrote it.
        template: String,
    },
    /// The template has no such tag.
    #[error("tag '{tag}' does not exist for template '{template}'")]
    TagNotFound {
        /// As the caller wrote it, without the tag.
        template: String,
        /// The tag.
        tag: String,
    },
    /// No template to tell about.
    #[error("Template {template} not found")]
    NoSuchTemplate {
        /// As the caller wrote it.
        template: String,
    },
    /// An alias to look up is outside the grammar.
    #[error("Invalid alias format: {detail}")]
    InvalidAlias {
        /// What is wrong with it.
        detail: String,
    },

    /// The team has as many sandboxes as it may have.
    #[error(
        "you have reached the maximum number of concurrent E2B sandboxes ({max}). If you need more, please visit 'https://e2b.dev/docs/billing'"
    )]
    ConcurrentLimit {
        /// How many those are.
        max: u32,
    },
    /// No room now; nothing was done.
    #[error("Failed to place sandbox: {detail}")]
    NoCapacity {
        /// Why.
        detail: String,
    },
    /// The start did not end well. Nothing of the sandbox is left.
    #[error("Failed to create sandbox: {detail}")]
    CreateFailed {
        /// Why.
        detail: String,
    },
    /// The server is ending and takes no calls; nothing was done.
    #[error("The server is shutting down")]
    Draining,
    /// Our fault. What went wrong is in the server's log only.
    #[error("Internal server error")]
    Internal,
}

/// What a client's automatic retry may do (`Should-Retry` and `Retry-After`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// What it thinks right.
    Unsaid,
    /// Nothing: the call may have had an effect, or repeating is useless.
    Never,
    /// Repeat after so many seconds: certainly nothing was done.
    AfterSecs(u32),
}

/// The body of every error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorBody {
    /// The HTTP status; JavaScript clients decide by this number.
    pub code: u16,
    /// For people, and for a few clients.
    pub message: String,
    /// For programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<&'static str>,
}

impl ApiError {
    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Self::OptionNotAvailable { .. }
            | Self::BodyIncomplete
            | Self::MalformedBody { .. }
            | Self::Validation { .. }
            | Self::InvalidNextToken
            | Self::MalformedMetadata
            | Self::TaggedTemplateFilter
            | Self::TeamMismatch
            | Self::InvalidSandboxId
            | Self::TimeoutTooSmall
            | Self::TimeoutTooLong { .. }
            | Self::AutoPauseMemoryAlone
            | Self::AutoPauseMemoryWithAutoResume
            | Self::InvalidTemplateReference { .. }
            | Self::InvalidAlias { .. } => 400,
            Self::NoCredential | Self::MalformedCredential | Self::InvalidApiKey { .. } => 401,
            Self::UnknownRoute { .. }
            | Self::SandboxNotFound { .. }
            | Self::TemplateNotFound { .. }
            | Self::TagNotFound { .. }
            | Self::NoSuchTemplate { .. } => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::BodyTooSlow { .. } => 408,
            Self::SandboxBeingKilled { .. } | Self::SandboxAlreadyRunning { .. } => 409,
            Self::BodyTooLarge { .. } => 413,
            Self::ConcurrentLimit { .. } => 429,
            Self::CreateFailed { .. } | Self::Internal => 500,
            Self::OperationNotAvailable { .. } => 501,
            Self::NoCapacity { .. } | Self::Draining => 503,
        }
    }

    /// The word for programs, where there is one.
    pub fn error_code(&self) -> Option<&'static str> {
        match self {
            Self::NoCapacity { .. } => Some("sandbox_capacity_unavailable"),
            Self::CreateFailed { .. } => Some("sandbox_create_failed"),
            Self::Internal => Some("internal_server_error"),
            _ => None,
        }
    }

    /// What a client's automatic retry may do.
    pub fn retry(&self) -> Retry {
        match self {
            Self::NoCapacity { .. } | Self::Draining => Retry::AfterSecs(1),
            Self::ConcurrentLimit { .. } | Self::CreateFailed { .. } | Self::Internal => Retry::Never,
            _ => Retry::Unsaid,
        }
    }

    /// The body.
    pub fn body(&self) -> ErrorBody {
        ErrorBody { code: self.status(), message: self.to_string(), error_code: self.error_code() }
    }
}

#[cfg(test)]
mod tests;
