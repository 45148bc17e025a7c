//! The product through the real SDKs and over the real wire: the harness.
//!
//! The tests themselves are one binary, `tests/e2e`; `COVERAGE.md` says which case of the contract is where. They
//! need root, `runsc`, Node.js and Python, and the release binaries. They run a server of their own on a port of its
//! own with a data directory of its own, and what is left on the host afterwards fails them.
//!
//! ```text
//!  tests/e2e ──▶ server     one `sandbar serve`, from start to a clean end
//!      │   └───▶ host       what an instance has on the host, by its names
//!      ├───────▶ api, guest the two planes, spoken by hand
//!      └───────▶ matrix ──▶ sdk ──▶ report     the official clients, their versions and checks
//! ```
//!
//! Not here: tests of a single crate, which need no server.

mod api;
mod guest;
mod host;
mod matrix;
mod report;
mod sdk;
mod server;
mod wait;

pub use api::{Answer, Api, Created};
pub use guest::{Guest, Output};
pub use host::Traces;
pub use matrix::{Client, Generation, Transport, VERSIONS, Version};
pub use report::check_report;
pub use sdk::{Ended, Environment, SdkRun};
pub use server::Server;
pub use wait::{until, until_sync};
