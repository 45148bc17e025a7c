//! The REST surface over a database in memory and a node that runs nothing.
//!
//! Time stands still unless a test lets it pass.

mod answers;
mod connect;
mod create;
mod lists;
mod logs;
mod server;
mod templates;
