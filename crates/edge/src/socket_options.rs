//! Options that every TCP socket of the edge has.

use std::io;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpStream;

/// Sends small writes at once, and finds out within about a minute that the peer is gone.
///
/// Source for the 20 seconds: contract network.md §11.
pub(crate) fn apply(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &20)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &10)?;
    setsockopt(stream, sockopt::TcpKeepCount, &4)?;
    Ok(())
}
