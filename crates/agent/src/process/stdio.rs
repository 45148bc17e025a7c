//! The ends of pipes and terminals that stay with the agent.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;

use crate::accounts::Accounts;

/// The program's end of its standard streams, and ours.
#[derive(Debug)]
pub(super) struct Pipes {
    /// Standard input, output and error of the program.
    pub(super) program: [OwnedFd; 3],
    /// Absent when the program reads nothing.
    pub(super) stdin: Option<pipe::Sender>,
    pub(super) stdout: pipe::Receiver,
    pub(super) stderr: pipe::Receiver,
}

impl Pipes {
    /// Three pipes, or two and `/dev/null` for a program without input.
    pub(super) fn open(with_stdin: bool) -> io::Result<Self> {
        let (stdout, program_stdout) = half_async_pipe()?;
        let (stderr, program_stderr) = half_async_pipe()?;
        let (program_stdin, stdin) = if with_stdin {
            let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
            (read, Some(pipe::Sender::from_owned_fd(nonblocking(write)?)?))
        } else {
            (open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?, None)
        };
        Ok(Self { program: [program_stdin, program_stdout, program_stderr], stdin, stdout, stderr })
    }
}

fn half_async_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((pipe::Receiver::from_owned_fd(nonblocking(read)?)?, write))
}

fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL)?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(flags))?;
    Ok(fd)
}

/// A new terminal: our side, and the side the program gets.
pub(super) fn open_terminal(size: Winsize, uid: u32) -> io::Result<(Terminal, OwnedFd)> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let master = posix_openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let program = open(name.as_str(), OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())?;
    // As a login would: the user may open its terminal by name. Nothing depends on it in a guest without devpts.
    let tty_gid = Accounts::load().gid("tty");
    let _ = nix::unistd::fchown(&program, Some(uid.into()), tty_gid.map(Into::into));
    // SAFETY: from the library's type to the standard one, the descriptor is owned once.
    let master = unsafe {
        <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(std::os::fd::IntoRawFd::into_raw_fd(master))
    };
    // SAFETY: an owned descriptor stays the same one until it is dropped, which the terminal does last.
    let master = unsafe { AsyncFd::register(master) }.map_err(|error| error.into_parts().1)?;
    let terminal = Terminal { master };
    terminal.resize(size)?;
    Ok((terminal, program))
}

nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);

/// Our side of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    master: AsyncFd<OwnedFd>,
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }
}

impl Terminal {
    /// Changes the window.
    pub(super) fn resize(&self, size: Winsize) -> io::Result<()> {
        // SAFETY: an open terminal and a structure that lives through the call.
        unsafe { set_window_size(self.master.get_ref().as_raw_fd(), &size)? };
        Ok(())
    }

    /// What the programs wrote; 0 bytes once the last of them has closed its side.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.master.readable().await?;
            let got =
                ready.try_io(|master| nix::unistd::read(master.get_ref(), buffer).map_err(io::Error::from));
            match got {
                // A terminal whose other side is closed says so by an error.
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::EIO as i32) => return Ok(0),
                Ok(done) => return done,
                Err(_would_block) => {}
            }
        }
    }

    /// Types all of it.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut ready = self.master.writable().await?;
            let put =
                ready.try_io(|master| nix::unistd::write(master.get_ref(), bytes).map_err(io::Error::from));
            match put {
                Ok(count) => bytes = &bytes[count?..],
                Err(_would_block) => {}
            }
        }
        Ok(())
    }
}
