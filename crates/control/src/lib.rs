//! What should exist and where.
//!
//! [`Control`] is what the API calls: it keeps the desired state of every sandbox in the database, asks the node to
//! make it so, ends sandboxes when their time is up, and knows the way to those that run ([`RouteTable`]). One task
//! owns each sandbox and is the only writer of its row; requests send it a command and await the answer, so that a
//! client that hangs up changes nothing. When a server starts, the same tasks take over what they find.
//!
//! ```text
//!  create ──▶ Starting ──▶ Live ── kill, expiry, exit ──▶ Ending ──▶ gone, row and all
//!  restart ─────┼──────────▶ Live (still there)              ▲
//!               └────────────────────────────────────────────┘ (lost, half started, half ended)
//! ```
//!
//! Not here: how a sandbox is run (`node`), what a row looks like (`db`), words of the E2B protocol (`wire`, `api`).

mod config;
mod control;
mod error;
mod identity;
mod open;
mod registry;
mod routes;
mod sandbox;
mod templates;
#[cfg(feature = "testing")]
pub mod testing;
mod token;

pub use config::{Config, OnShutdown};
pub use control::{Control, Created, NewSandbox, Page, Sandbox, SandboxQuery};
pub use error::{ChangeError, CreateError, KillError, LookupError, ReadError, TemplateError};
pub use identity::NewApiKey;
pub use open::OpenError;
pub use routes::RouteTable;
pub use sandbar_db::record::{Build, BuildStatus, KeyMask, Team, Template, TemplateName};
pub use sandbar_db::{Order, PageAfter};
pub use templates::{StockTemplate, TemplatePage};
pub use token::TokenSeed;
