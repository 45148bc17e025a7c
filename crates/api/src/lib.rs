//! The E2B REST surface.
//!
//! [`router`] gives an axum router over a [`Control`](sandbar_control::Control). Handlers authenticate, parse, call
//! the control plane and answer; what they say and read is spelled in `sandbar_wire::rest`, and nothing they call
//! depends on their being awaited to the end.
//!
//! Every answer that is not a success is JSON from the one table in `wire`, also for unknown routes, wrong methods,
//! large bodies and panics. Documented operations that do not exist yet stand in [`later`] and say so.
//!
//! Not here: listening, TLS, and telling calls of this API from traffic for sandboxes (`edge`).

mod auth;
mod body;
mod cors;
mod create;
mod domain;
mod failure;
mod first_key;
mod guard;
mod health;
pub mod later;
mod lifetime;
mod lists;
mod logs;
mod router;
mod segment;
mod templates;
mod view;

pub use first_key::{FirstKeyError, ensure_first_key};
pub use router::{ApiState, router};
