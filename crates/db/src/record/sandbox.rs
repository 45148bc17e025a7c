//! Sandboxes: what should exist, and apart from it what was seen.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use jiff::Timestamp;
use sandbar_model::{BuildId, NodeId, Resources, RunId, SandboxId, StopReason, TeamId, TemplateId};

/// A sandbox that should exist, or that is being ended.
///
/// The row is there before the node is asked to start anything and goes when nothing of the sandbox is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub id: SandboxId,
    /// Its owner.
    pub team: TeamId,
    /// What it was started from.
    pub template: TemplateId,
    /// Which build of it.
    pub build: BuildId,
    /// The first name of the template at that time.
    pub alias: Option<String>,
    /// Its limits.
    pub resources: Resources,
    /// What its owner wrote on it.
    pub metadata: BTreeMap<String, String>,
    /// Whether its agent demands a token.
    pub secured: bool,
    /// Whether it may reach the internet, as the caller said it.
    pub internet: Option<bool>,
    /// How long it lives after its start, as given at create.
    pub timeout: Duration,
    /// When it was asked for, to the microsecond.
    pub created_at: Timestamp,
    /// Why it shall end; absent while it shall run.
    pub ending: Option<StopReason>,
    /// Its run, from the end of its start.
    pub run: Option<Run>,
}

/// A run as it was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The run.
    pub id: RunId,
    /// Where it runs.
    pub node: NodeId,
    /// Where the host reaches its ports.
    pub address: Ipv4Addr,
    /// Version of the agent in it, as `x.y.z`.
    pub agent_version: String,
    /// When its agent first answered, to the microsecond.
    pub started_at: Timestamp,
    /// When it shall end, to the microsecond.
    pub deadline: Timestamp,
}
