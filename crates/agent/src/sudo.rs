//! `sudo` where the kernel honours no setuid bit.
//!
//! The agent's own binary, started under the name `sudo`, is the *shim*: it understands the options, works out the
//! command's environment and asks the agent over a socket. The agent looks who is asking and starts a *session* (its
//! binary again, as root) on the connection. The session runs the command on the shim's own descriptors and tells how
//! it ends.
//!
//! ```text
//!  caller's shell ─▶ shim ══ socket ══▶ agent: may this user?
//!                     ║                   │ starts
//!                     ╚══════════════▶ session ─▶ command (root, descriptors of the shim)
//! ```
//!
//! A process cannot join another's session, so a command whose caller has a terminal gets one of its own, led by the
//! session; the shim relays between the two. That is also what the real program does (`use_pty`).
//!
//! Whoever may use this may run anything as anybody: the one check is on the caller, made by the kernel's word.

mod environment;
mod message;
mod options;
mod server;
mod session;
mod shim;
mod terminal;

pub(crate) use server::serve;

/// Where the agent takes requests.
const SOCKET: &str = "/run/sandbar/sudo.sock";

/// Name that makes this binary the shim.
const SHIM_NAME: &str = "sudo";

/// Name that makes this binary a session.
const SESSION_NAME: &str = "sandbar-sudo-session";

/// What this process is, by the name it was started under; `None` for the agent itself.
pub(crate) fn role(argv0: &std::ffi::OsStr) -> Option<fn() -> !> {
    match std::path::Path::new(argv0).file_name()?.to_str()? {
        SHIM_NAME => Some(shim::main),
        SESSION_NAME => Some(session::main),
        _ => None,
    }
}
