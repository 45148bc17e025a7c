//! A limit on how many processes user code may have.
//!
//! The agent makes one child of the `pids` controller and starts user processes in it; it stays outside itself, so
//! that a fork bomb cannot keep it from answering.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Where the engine mounts the controller in a guest.
const CONTROLLER: &str = "/sys/fs/cgroup/pids";

/// The cgroup that user processes are started in.
#[derive(Clone, Debug)]
pub(crate) struct PidsCgroup {
    /// File that a process writes `0` to in order to enter.
    pub(crate) procs: CString,
}

impl PidsCgroup {
    /// Makes the cgroup, or changes the limit of the one there is.
    ///
    /// # Errors
    /// When the guest has no such controller or will not have it changed.
    pub(crate) fn ensure(pids_max: u32) -> io::Result<Self> {
        let directory = Path::new(CONTROLLER).join("user");
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::write(directory.join("pids.max"), pids_max.to_string())?;
        let procs = directory.join("cgroup.procs");
        Ok(Self { procs: CString::new(procs.as_os_str().as_bytes()).expect("a constant path has no NUL") })
    }
}
