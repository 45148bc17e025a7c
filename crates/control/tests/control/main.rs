//! The control plane over a database in memory and a node that runs nothing.
//!
//! Time stands still unless a test lets it pass: no test waits for a duration.

mod creating;
mod ending;
mod expiry;
mod restart;
mod server;
mod templates;
