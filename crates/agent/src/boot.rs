//! The first thing the agent does: takes what its host says before anybody else can.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, Read as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

use anyhow::Context as _;
use sandbar_wire::envd::boot::{Boot, LINE_BYTES_MAX};

use crate::control::RUN_DIR;

/// Reads the boot line from standard input and closes that, so that no process started later can read on.
pub(crate) fn read_control_line() -> anyhow::Result<Boot> {
    let mut line = String::new();
    let bounded = io::stdin().lock().take(LINE_BYTES_MAX as u64);
    io::BufReader::with_capacity(LINE_BYTES_MAX, bounded).read_line(&mut line).context("read boot line")?;
    let boot = Boot::from_line(line.trim_end()).map_err(|_| anyhow::anyhow!("boot line is not one"))?;
    let null = File::open("/dev/null").context("open /dev/null")?;
    nix::unistd::dup2_stdin(null).context("replace standard input")?;
    Ok(boot)
}

/// Keeps descriptors that the engine left open from every program started later.
pub(crate) fn hide_inherited_descriptors() {
    // SAFETY: no memory is involved. Kernels that do not know the call leave things as they are.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
}

/// Makes the directory of identity files and says in it what kind of guest this is.
pub(crate) fn write_run_dir(hosted: bool) -> io::Result<()> {
    fs::create_dir_all(RUN_DIR)?;
    fs::set_permissions(RUN_DIR, fs::Permissions::from_mode(0o755))?;
    let path = format!("{RUN_DIR}/.E2B_SANDBOX");
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(path)?;
    io::Write::write_all(&mut file, hosted.to_string().as_bytes())
}
