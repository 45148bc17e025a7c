//! The REST surface: bodies, queries, paths and errors of the control plane.
//!
//! Field names and defaults are E2B's. Sources: e2b-dev/E2B spec/openapi.yml, contract/control-api.md,
//! contract/client-versions.md. What each endpoint does with them is `api`'s business.

pub mod cors;
mod error;
mod logs;
mod metadata;
mod page;
mod path;
mod query;
mod request;
mod response;

pub use error::{ApiError, ErrorBody, Retry};
pub use logs::{LogEntry, LogLine, SandboxLogs};
pub use metadata::{MalformedMetadata, parse_metadata};
pub use page::{Direction, MalformedToken, PageToken};
pub use path::parse_sandbox_id;
pub use query::{ListSandboxes, PageOf, Query, States};
pub use request::{Connect, NewSandbox, Refresh, Resume, SetTimeout, Version};
pub use response::{
    CLIENT_ID, Lifecycle, ListedSandbox, Sandbox, SandboxDetail, SandboxState, Template, TemplateAlias,
    TemplateBuild, TemplateBuildStatus, TemplateWithBuilds,
};
