//! The terminal we are started from.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anyhow::Context;
use nix::sys::termios::{self, SetArg, Termios};
use sandbar_wire::envd::process::PtySize;

nix::ioctl_read_bad!(window_size, nix::libc::TIOCGWINSZ, nix::libc::winsize);

/// Whether both input and output are a terminal.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Its size; 80 × 24 when it does not say.
pub(crate) fn size() -> PtySize {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is our standard input, open for the process's life, and `size` outlives the call.
    let asked = unsafe { window_size(nix::libc::STDIN_FILENO, &raw mut size) };
    if asked.is_err() || size.ws_col == 0 || size.ws_row == 0 {
        return PtySize { cols: 80, rows: 24 };
    }
    PtySize { cols: size.ws_col.into(), rows: size.ws_row.into() }
}

/// Every key is handed on as it is, until this is dropped.
pub(crate) struct Raw {
    before: Termios,
}

impl Raw {
    /// Switches the terminal over.
    pub(crate) fn enter() -> anyhow::Result<Self> {
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(stdin.as_fd()).context("read terminal settings")?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSADRAIN, &raw).context("change terminal settings")?;
        Ok(Self { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = termios::tcsetattr(std::io::stdin().as_fd(), SetArg::TCSADRAIN, &self.before);
    }
}
