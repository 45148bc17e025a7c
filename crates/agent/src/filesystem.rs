//! Entries of the guest's file system, as clients list, inspect, make, move and remove them.
//!
//! Everything here runs with the agent's own privileges; the caller's user decides where relative paths start and who
//! owns what is made.

mod entry;
mod error;
mod list;
mod permissions;
mod service;

pub(crate) use entry::entry_info;
pub(crate) use service::Service;
