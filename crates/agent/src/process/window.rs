//! Tells programs on a terminal that its window has changed.
//!
//! Linux does that by itself. gVisor up to 2024 does not, nor does it say there which process group is in front; so
//! everybody in the terminal's session is told. Who does not care ignores it, and being told twice does no harm.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends SIGWINCH to every process of the session that `leader` leads.
pub(super) fn tell_session(leader: u32) {
    let Ok(entries) = fs::read_dir("/proc") else {
        return;
    };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if session_of(&stat) == Some(leader) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGWINCH); // gone meanwhile is fine
        }
    }
}

/// The session in a line of `/proc/PID/stat`. The name before it may contain anything. Source: proc_pid_stat(5).
fn session_of(stat: &str) -> Option<u32> {
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_is_found_behind_any_name() {
        assert_eq!(session_of("15 (a) b 7 ) S 14 15 13 0 0"), Some(13));
        assert_eq!(session_of(""), None);
    }
}
