//! The domain of Sandbar in pure Rust.
//!
//! Ids, units, what a sandbox is and which of its states follows which, what a host (`Node`) can be
//! asked to do. Everything here is a value or a trait: no I/O, no clock, no serialisation, and none of
//! the words of the E2B protocol (those live in `wire`).
//!
//! Other crates depend on this one; it depends on none of ours.

mod error;
mod id;
mod network;
mod port;
mod resources;
mod sandbox;
mod secret;
mod spec;
mod stages;
mod template;

pub use error::ErrorKind;
pub use id::{ApiKeyId, BuildId, IdError, InstanceId, NodeId, RunId, SandboxId, TeamId, TemplateId};
pub use network::{EgressPolicy, GuestNetwork, Lease, SlotIndex};
pub use port::{
    Capabilities, Clock, Node, NodeEvent, Observed, Refusal, Route, Routes, StartError, Started, StopError,
    SystemClock, UsageError,
};
pub use resources::{Mib, Resources, Usage};
pub use sandbox::{Effect, Event, Refused, State, StopReason};
pub use secret::Secret;
pub use spec::{SandboxSpec, TemplateBuild, WorkloadDefaults};
pub use stages::Stages;
pub use template::{LayerDigest, Namespace, TemplateName, TemplateRef, TemplateRefError};
