//! Rows behind one trait.
//!
//! [`Database`] says what can be asked, [`record`] what a row is, [`open`] gives a store by its URL. Stores are
//! private: `sqlite::memory:` and `sqlite:<path>` exist, PostgreSQL is meant to be the second behind the same
//! trait. Each store passes the one suite in `conformance`.
//!
//! Every method is one transaction and durable when it returns. A record is what is stored, not what clients see
//! and not what the domain works with: it changes with migrations only.
//!
//! Not here: who may see a row, what follows from it (`control`).

#[cfg(test)]
mod conformance;
mod database;
mod error;
mod open;
pub mod record;
mod sqlite;

pub use database::{Database, Order, PageAfter, SandboxFilter};
pub use error::DbError;
pub use open::{OpenError, open};
