//! What a node needs to start a sandbox.

use std::collections::BTreeMap;

use crate::{BuildId, EgressPolicy, LayerDigest, Resources, SandboxId, Secret, TeamId, TemplateId};

/// One build of a template: what a sandbox's root file system consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateBuild {
    /// The template.
    pub template: TemplateId,
    /// The build.
    pub build: BuildId,
    /// Layers, lowest first.
    pub layers: Vec<LayerDigest>,
    /// Who runs commands, and where, unless the caller says.
    pub defaults: WorkloadDefaults,
}

/// Who runs a command, and where, when the caller does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadDefaults {
    /// A name from the guest's `/etc/passwd`.
    pub user: String,
    /// Absolute; the user's home when absent.
    pub workdir: Option<String>,
}

/// Everything a node needs to start a sandbox. The node asks nobody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxSpec {
    /// The sandbox.
    pub id: SandboxId,
    /// Its owner.
    pub team: TeamId,
    /// What it starts from.
    pub build: TemplateBuild,
    /// Its limits.
    pub resources: Resources,
    /// Environment of every process in the guest.
    pub env: BTreeMap<String, String>,
    /// Token the agent demands on every call; absent for sandboxes that are not secured.
    pub access_token: Option<Secret>,
    /// What it may reach.
    pub egress: EgressPolicy,
}
