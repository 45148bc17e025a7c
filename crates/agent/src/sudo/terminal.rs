//! Terminals: a new one for a command, and the caller's own while it is relayed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

use nix::fcntl::{OFlag, open as open_fd};
use nix::pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::stat::Mode;
use nix::sys::termios::{LocalFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, getpgrp, tcgetpgrp};

nix::ioctl_read_bad!(get_window_size, libc::TIOCGWINSZ, Winsize);
nix::ioctl_write_ptr_bad!(set_window_size, libc::TIOCSWINSZ, Winsize);
nix::ioctl_write_int_bad!(set_controlling, libc::TIOCSCTTY);

/// A new terminal: the side that stays, and the command's side, owned by its user.
pub(super) fn open(uid: u32) -> io::Result<(OwnedFd, OwnedFd)> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let slave = open_fd(name.as_str(), OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty())?;
    let _ = nix::unistd::fchown(&slave, Some(uid.into()), None); // only matters to who opens it by name
    // SAFETY: from the library's type to the standard one, the descriptor is owned once.
    Ok((unsafe { OwnedFd::from_raw_fd(master.into_raw_fd()) }, slave))
}

/// Makes it the controlling terminal of this session.
pub(super) fn control(slave: &OwnedFd) -> io::Result<()> {
    // SAFETY: an open terminal.
    unsafe { set_controlling(slave.as_raw_fd(), 0)? };
    Ok(())
}

/// Whether the stream is open on a terminal. Looked at by name: opening a pipe would take part in it.
fn is_terminal(stream: &str) -> bool {
    std::fs::read_link(stream).is_ok_and(|target| target.starts_with("/dev/pts"))
}

/// The process group in front of this terminal of ours, as a target of `kill`.
pub(super) fn in_front(terminal: &OwnedFd) -> Option<Pid> {
    let front = tcgetpgrp(terminal).ok()?;
    (front.as_raw() > 1).then(|| Pid::from_raw(-front.as_raw()))
}

/// The caller's terminal.
#[derive(Debug)]
pub(super) struct CallersTerminal {
    tty: File,
    /// As it was found.
    modes: Termios,
}

impl CallersTerminal {
    /// `None` for a caller without a terminal.
    ///
    /// gVisor up to 2024 cannot open `/dev/tty`; there a standard stream must tell which terminal it is.
    pub(super) fn find() -> Option<Self> {
        let streams = [0, 1, 2].map(|at| format!("/proc/self/fd/{at}"));
        let paths = std::iter::once("/dev/tty").chain(streams.iter().map(String::as_str));
        paths.into_iter().find_map(|path| {
            // A description of our own, so that not waiting on it does not change it for the caller's shell.
            let tty = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK | libc::O_CLOEXEC)
                .open(Some(path).filter(|path| *path == "/dev/tty" || is_terminal(path))?)
                .ok()?;
            tcgetpgrp(&tty).ok()?; // it controls us
            let modes = tcgetattr(&tty).ok()?;
            Some(Self { tty, modes })
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.tty
    }

    /// Whether what is typed is meant for our process group.
    pub(super) fn is_ours(&self) -> bool {
        tcgetpgrp(&self.tty).is_ok_and(|foreground| foreground == getpgrp())
    }

    /// Passes every key on as it is; the command's terminal interprets it.
    pub(super) fn make_raw(&self) {
        let mut raw = self.modes.clone();
        cfmakeraw(&mut raw);
        let _ = tcsetattr(&self.tty, SetArg::TCSADRAIN, &raw); // cooked keys work too, only later
    }

    pub(super) fn restore(&self) {
        let _ = tcsetattr(&self.tty, SetArg::TCSADRAIN, &self.modes);
    }

    /// Gives the command's terminal our modes and window. `echo` is off where ours will echo already.
    pub(super) fn copy_to(&self, command: impl AsFd, echo: bool) {
        let mut modes = self.modes.clone();
        if !echo {
            modes.local_flags.remove(LocalFlags::ECHO);
        }
        let _ = tcsetattr(&command, SetArg::TCSANOW, &modes); // the defaults of a new terminal do as well
        self.copy_window_to(command);
    }

    pub(super) fn copy_window_to(&self, command: impl AsFd) {
        let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: open terminals and a structure that lives through the calls.
        unsafe {
            if get_window_size(self.tty.as_raw_fd(), &mut size).is_ok() {
                let _ = set_window_size(command.as_fd().as_raw_fd(), &size);
            }
        }
    }
}

impl Drop for CallersTerminal {
    fn drop(&mut self) {
        if self.is_ours() {
            self.restore();
        }
    }
}
