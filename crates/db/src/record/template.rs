//! What sandboxes start from.

use jiff::Timestamp;
use sandbar_model::{BuildId, LayerDigest, Resources, TeamId, TemplateId, WorkloadDefaults};

/// A template, with what its names and builds say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// Its id.
    pub id: TemplateId,
    /// Its owner.
    pub team: TeamId,
    /// Whether other teams may start from it.
    pub public: bool,
    /// When it was made, to the microsecond.
    pub created_at: Timestamp,
    /// When its builds, names or visibility last changed.
    pub updated_at: Timestamp,
    /// How many sandboxes were started from it.
    pub spawn_count: u64,
    /// When the last one was.
    pub last_spawned_at: Option<Timestamp>,
    /// Its names, in alphabetical order.
    pub names: Vec<TemplateName>,
    /// How many builds it has.
    pub build_count: u32,
    /// The newest build that is ready, or the newest one when none is.
    pub latest: Option<Build>,
}

/// A name of a template.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateName {
    /// The slug of the team that owns the name; absent for names that every team sees.
    pub namespace: Option<String>,
    /// `[a-z0-9_-]+`.
    pub name: String,
}

/// How far a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStatus {
    /// Not begun.
    Waiting,
    /// Its steps are being done.
    Building,
    /// Sandboxes can start from it.
    Ready,
    /// A step failed.
    Failed,
}

/// One build of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its id.
    pub id: BuildId,
    /// The template.
    pub template: TemplateId,
    /// How far it is.
    pub status: BuildStatus,
    /// Layers, lowest first.
    pub layers: Vec<LayerDigest>,
    /// Limits of the sandboxes that start from it.
    pub resources: Resources,
    /// Version of the agent in it, as `x.y.z`.
    pub agent_version: String,
    /// Who runs commands, and where, unless the caller says.
    pub defaults: WorkloadDefaults,
    /// When it was asked for, to the microsecond.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub updated_at: Timestamp,
    /// When it became ready or failed.
    pub finished_at: Option<Timestamp>,
}

/// A build that becomes what a name means, in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// The owner of the template.
    pub team: TeamId,
    /// Whether other teams may start from it.
    pub public: bool,
    /// The name; it keeps its template when it has one, else it names the build's.
    pub name: TemplateName,
    /// The tag that will mean the build.
    pub tag: String,
    /// The build. Its template is made when the name has none.
    pub build: Build,
}
