//! What shim and session say to each other, and descriptors passed along.
//!
//! A message is its length (four bytes, big endian) and JSON. Descriptors travel on a byte of their own, before or
//! after a message as the order of the conversation says.

use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Most bytes of a message: arguments and variables of a command, written as lists of numbers.
const MESSAGE_BYTES_MAX: u32 = 32 << 20;

/// A command to run. Texts are bytes: the kernel wants no encoding.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Absolute.
    pub(super) program: Vec<u8>,
    pub(super) argv: Vec<Vec<u8>>,
    pub(super) envs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) cwd: Vec<u8>,
    pub(super) umask: u32,
    /// Which of the three standard streams are terminals, if the caller has a terminal at all.
    pub(super) terminal: Option<[bool; 3]>,
    /// Whether the command goes on when the shim goes away.
    pub(super) background: bool,
}

/// From the shim.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToSession {
    /// First; the three standard streams follow.
    Run(Box<Run>),
    /// The terminal is set up.
    Ready,
    /// A signal for the command.
    Signal(i32),
}

/// From the agent or the session.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ToShim {
    /// The caller may not, or it cannot be done. Last.
    Refused(String),
    /// The command gets a terminal, whose other side follows.
    Terminal,
    /// The command runs.
    Started,
    /// A signal stopped the command.
    Stopped,
    /// Last.
    Exited(i32),
    /// Last.
    Killed(i32),
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Line {
    stream: UnixStream,
}

impl Line {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream }
    }

    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()? })
    }

    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    pub(super) fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let mut stream = &self.stream;
        stream.write_all(&length.to_be_bytes())?;
        stream.write_all(&bytes)
    }

    /// The next message; an error of kind `UnexpectedEof` when the other side is gone.
    pub(super) fn receive<M: DeserializeOwned>(&self) -> io::Result<M> {
        let mut stream = &self.stream;
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("message is too large"));
        }
        let mut bytes = vec![0; length as usize];
        stream.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    pub(super) fn send_fds(&self, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let control = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(self.stream.as_raw_fd(), &[IoSlice::new(b"f")], &control, MsgFlags::empty(), None)?;
        Ok(())
    }

    /// Exactly `N` descriptors, closed in programs started later.
    pub(super) fn receive_fds<const N: usize>(&self) -> io::Result<[OwnedFd; N]> {
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        let mut space = nix::cmsg_space!([i32; 8]);
        let fd = self.stream.as_raw_fd();
        let received = recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        let mut fds = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these descriptors for us.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        fds.try_into().map_err(|_| io::Error::other("descriptors are missing"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;

    #[test]
    fn messages_and_descriptors_arrive_in_order() {
        let (a, b) = UnixStream::pair().unwrap();
        let (a, b) = (Line::new(a), Line::new(b));
        let (read, write) = nix::unistd::pipe().unwrap();
        a.send(&ToShim::Terminal).unwrap();
        a.send_fds(&[write.as_fd()]).unwrap();
        a.send(&ToShim::Exited(3)).unwrap();
        drop(a);
        assert_eq!(b.receive::<ToShim>().unwrap(), ToShim::Terminal);
        let [passed] = b.receive_fds::<1>().unwrap();
        assert_eq!(b.receive::<ToShim>().unwrap(), ToShim::Exited(3));
        assert_eq!(b.receive::<ToShim>().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        drop(write);
        nix::unistd::write(&passed, b"x").unwrap();
        assert_eq!(nix::unistd::read(&read, &mut [0; 2]).unwrap(), 1);
    }
}
