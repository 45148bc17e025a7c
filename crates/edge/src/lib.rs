//! The one door: listen, tell TLS from plain and API from sandbox traffic, forward the latter.
//!
//! ```text
//!              first byte          address                      Routes
//!  client ──▶ connection ──▶ gateway ──┬─ names a sandbox ──▶ forward ──▶ upstream ──▶ guest, HTTP/1.1
//!             TLS or plain             │                         └─ 101 ──▶ tunnel
//!             HTTP/1.1 or 2            └─ names none ──▶ the API's service
//! ```
//!
//! What a client sends is passed on as it comes and never held back: bodies stream both ways, answers may
//! come before the question is over, and nothing has a total time limit. When a sandbox ends, or an answer
//! breaks off on the way, the client's stream is broken off too: a clean end would look like success.
//!
//! Not here: what a host name means and what errors say (`wire`), where sandboxes are
//! ([`Routes`](sandbar_model::Routes)), REST (`api`), who may use a sandbox (the agent asks for its token).

mod activity;
mod body;
pub mod certs;
mod client_socket;
mod config;
mod connection;
mod error_page;
mod forward;
mod gateway;
mod headers;
mod listener;
mod socket_options;
mod tasks;
mod tls;
mod tunnel;
mod upstream;

pub use certs::TlsFiles;
pub use config::Config;
pub use gateway::{ApiService, api_service};
pub use listener::{BindError, Bound, bind};
pub use tls::TlsError;
