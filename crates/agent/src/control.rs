//! The agent's own state: set by the host (`/init`), shown to programs and the platform (`/envs`, `/metrics`).

mod ca_bundle;
mod clock;
mod hosts;
mod init;
mod metrics;

pub(crate) use init::{RUN_DIR, init};
pub(crate) use metrics::Meter;
