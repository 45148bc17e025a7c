//! The real agent, over the real wire, in a guest made of namespaces.
//!
//! Needs root: every test starts its own agent as process 1 of private mount, pid and host-name namespaces, with its
//! own `/etc`, `/home`, `/root` and `/run`, and nothing of the host is touched. The numbers in comments are the cases
//! of the conformance table of the protocol's contract.

mod auth;
mod client;
mod control;
mod files;
mod filesystem;
mod forward;
mod guest;
mod process;
mod protocol;
mod sudo;
mod watch;
