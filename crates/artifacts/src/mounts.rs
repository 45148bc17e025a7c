//! What is mounted, and the two ways to be rid of it: unmount it, or mount it where it dies with its thread.
//!
//! A new mount namespace (a build's, an engine's) starts with a copy of every mount, and a copy keeps a file system
//! and its loop device alive. What ends the copies is the removal of the directory that was mounted on: the kernel
//! then detaches, in every namespace, whatever is mounted there. So who unmounts also removes the directory.

use std::fs;
use std::io;
use std::panic;
use std::thread;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Mount points at or below `dir`, in the order they were mounted. A path mounted twice is listed twice.
pub(crate) fn below(dir: &Utf8Path) -> io::Result<Vec<Utf8PathBuf>> {
    // The thread's, which are not those of the process in `privately`.
    let mountinfo = fs::read_to_string("/proc/thread-self/mountinfo")?;
    Ok(mountinfo.lines().filter_map(mount_point).filter(|path| path.starts_with(dir)).collect())
}

/// The mount point of one line of `/proc/self/mountinfo`: its fifth field (proc(5)).
fn mount_point(line: &str) -> Option<Utf8PathBuf> {
    line.split(' ').nth(4).map(|field| unescape(field).into())
}

/// The kernel writes blank, tab, newline, backslash (and `#`) as `\` and three octal digits.
fn unescape(field: &str) -> String {
    let mut text = String::with_capacity(field.len());
    let mut rest = field;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok()) {
            Some(byte) if byte.is_ascii() => {
                text.push(char::from(byte));
                rest = &after[3..];
            }
            _ => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

/// Unmounts everything that is mounted exactly at `path`; nothing there is fine.
///
/// A mount that is still in use goes away from the path now and altogether with its last user.
pub(crate) fn detach(path: &Utf8Path) -> io::Result<()> {
    loop {
        // Without DETACH first: it returns only when the file system is really gone, with its loop device.
        let result = match unmount(path.as_str(), UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) => unmount(path.as_str(), UnmountFlags::NOFOLLOW | UnmountFlags::DETACH),
            result => result,
        };
        match result {
            Ok(()) => {}
            // Not a mount point, or not there at all.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs `work` in a mount namespace of its own, so that all it mounts is gone when it is done or killed.
///
/// `unshared` turns the failure to make the namespace into the caller's error.
pub(crate) fn privately<T: Send, E: Send>(
    unshared: impl FnOnce(io::Error) -> E + Send,
    work: impl FnOnce() -> Result<T, E> + Send,
) -> Result<T, E> {
    let enter = || {
        // SAFETY: only the mount namespace (and with it root and working directory) of this thread changes; file
        // descriptors stay shared.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }?;
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)
    };
    thread::scope(|scope| {
        let thread = scope.spawn(|| match enter() {
            Ok(()) => work(),
            Err(error) => Err(unshared(error.into())),
        });
        thread.join().unwrap_or_else(|panicked| panic::resume_unwind(panicked))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_mount_points_are_read_back() {
        let line = r"36 35 98:0 /mnt1 /mnt\040two\134x rw,noatime master:1 - ext4 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), r"/mnt two\x");
        assert_eq!(unescape(r"a\04"), r"a\04");
        assert_eq!(unescape(r"a\999ü"), r"a\999ü");
    }
}
