//! Bodies of answers: every field that any client needs, to everyone.
//!
//! Fields that are objects are left out rather than `null`; Python's generated clients raise otherwise. Sources:
//! contract/control-api.md §2.4, §3, §7; contract/client-versions.md §1.11.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// A constant that clients demand and nobody uses. Source: contract/control-api.md §2.5.
pub const CLIENT_ID: &str = "6532622b";

/// The answer to create, connect and resume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// What it was started from.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Its id.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// [`CLIENT_ID`].
    #[serde(rename = "clientID")]
    pub client_id: &'static str,
    /// Version of its agent, `x.y.z`: clients decide by it what the agent can do.
    #[serde(rename = "envdVersion")]
    pub envd_version: String,
    /// First name of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// What the agent demands in `X-Access-Token`.
    #[serde(rename = "envdAccessToken", skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// What sandboxes without public traffic demand.
    #[serde(rename = "trafficAccessToken")]
    pub traffic_access_token: Option<String>,
    /// Base domain of its host names, with the port unless that is 443.
    pub domain: Option<String>,
}

/// Whether a sandbox runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// It does.
    Running,
    /// It is saved.
    Paused,
}

/// What becomes of a sandbox when its time is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lifecycle {
    /// `kill` or `pause`.
    #[serde(rename = "onTimeout")]
    pub on_timeout: &'static str,
    /// Whether traffic resumes it.
    #[serde(rename = "autoResume")]
    pub auto_resume: bool,
}

/// An entry of a list of sandboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ListedSandbox {
    /// What it was started from.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// First name of the template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
    /// Its id.
    #[serde(rename = "sandboxID")]
    pub sandbox_id: String,
    /// [`CLIENT_ID`].
    #[serde(rename = "clientID")]
    pub client_id: &'static str,
    /// Start of the current run.
    #[serde(rename = "startedAt", serialize_with = "rfc3339")]
    pub started_at: Timestamp,
    /// When it will end.
    #[serde(rename = "endAt", serialize_with = "rfc3339")]
    pub end_at: Timestamp,
    /// Processors.
    #[serde(rename = "cpuCount")]
    pub cpu_count: u32,
    /// Mebibytes.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Mebibytes.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    /// Left out when none was given.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// Whether it runs.
    pub state: SandboxState,
    /// Version of its agent.
    #[serde(rename = "envdVersion")]
    pub envd_version: String,
    /// None yet.
    #[serde(rename = "volumeMounts")]
    pub volume_mounts: Vec<()>,
}

/// The answer to `GET /sandboxes/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SandboxDetail {
    /// What lists say, too.
    #[serde(flatten)]
    pub listed: ListedSandbox,
    /// What the agent demands in `X-Access-Token`.
    #[serde(rename = "envdAccessToken", skip_serializing_if = "Option::is_none")]
    pub envd_access_token: Option<String>,
    /// As given at create.
    #[serde(rename = "allowInternetAccess")]
    pub allow_internet_access: Option<bool>,
    /// Base domain of its host names, with the port unless that is 443.
    pub domain: Option<String>,
    /// What becomes of it.
    pub lifecycle: Lifecycle,
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateBuildStatus {
    /// Not begun.
    Waiting,
    /// Begun.
    Building,
    /// Can be started from.
    Ready,
    /// Failed.
    Error,
}

/// An entry of a list of templates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Template {
    /// Its id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// The newest build that is ready.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// Processors.
    #[serde(rename = "cpuCount")]
    pub cpu_count: u32,
    /// Mebibytes.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Mebibytes.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    /// Whether other teams may start from it.
    pub public: bool,
    /// Names without their namespaces.
    pub aliases: Vec<String>,
    /// Names with their namespaces.
    pub names: Vec<String>,
    /// When it was made.
    #[serde(rename = "createdAt", serialize_with = "rfc3339")]
    pub created_at: Timestamp,
    /// When it changed.
    #[serde(rename = "updatedAt", serialize_with = "rfc3339")]
    pub updated_at: Timestamp,
    /// Always `null`: teams have no users here.
    #[serde(rename = "createdBy")]
    pub created_by: Option<()>,
    /// When a sandbox was last started from it.
    #[serde(rename = "lastSpawnedAt", serialize_with = "rfc3339_or_null")]
    pub last_spawned_at: Option<Timestamp>,
    /// How many sandboxes were started from it.
    #[serde(rename = "spawnCount")]
    pub spawn_count: u64,
    /// How many builds it has.
    #[serde(rename = "buildCount")]
    pub build_count: u32,
    /// Version of the agent in its build.
    #[serde(rename = "envdVersion")]
    pub envd_version: String,
    /// How far its build is.
    #[serde(rename = "buildStatus")]
    pub build_status: TemplateBuildStatus,
}

/// One build of a template.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplateBuild {
    /// Its id.
    #[serde(rename = "buildID")]
    pub build_id: String,
    /// How far it is.
    pub status: TemplateBuildStatus,
    /// When it was asked for.
    #[serde(rename = "createdAt", serialize_with = "rfc3339")]
    pub created_at: Timestamp,
    /// When it changed.
    #[serde(rename = "updatedAt", serialize_with = "rfc3339")]
    pub updated_at: Timestamp,
    /// When it ended.
    #[serde(
        rename = "finishedAt",
        serialize_with = "rfc3339_or_null",
        skip_serializing_if = "Option::is_none"
    )]
    pub finished_at: Option<Timestamp>,
    /// Processors.
    #[serde(rename = "cpuCount")]
    pub cpu_count: u32,
    /// Mebibytes.
    #[serde(rename = "memoryMB")]
    pub memory_mb: u32,
    /// Mebibytes.
    #[serde(rename = "diskSizeMB")]
    pub disk_size_mb: u32,
    /// Version of the agent in it.
    #[serde(rename = "envdVersion")]
    pub envd_version: String,
}

/// The answer to `GET /templates/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplateWithBuilds {
    /// Its id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Whether other teams may start from it.
    pub public: bool,
    /// Names without their namespaces.
    pub aliases: Vec<String>,
    /// Names with their namespaces.
    pub names: Vec<String>,
    /// When it was made.
    #[serde(rename = "createdAt", serialize_with = "rfc3339")]
    pub created_at: Timestamp,
    /// When it changed.
    #[serde(rename = "updatedAt", serialize_with = "rfc3339")]
    pub updated_at: Timestamp,
    /// When a sandbox was last started from it.
    #[serde(rename = "lastSpawnedAt", serialize_with = "rfc3339_or_null")]
    pub last_spawned_at: Option<Timestamp>,
    /// How many sandboxes were started from it.
    #[serde(rename = "spawnCount")]
    pub spawn_count: u64,
    /// Newest first.
    pub builds: Vec<TemplateBuild>,
}

/// The answer to `GET /templates/aliases/{alias}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TemplateAlias {
    /// What the alias means.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Whether other teams may start from it.
    pub public: bool,
}

fn rfc3339<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

fn rfc3339_or_null<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}
