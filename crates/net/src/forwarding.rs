//! The host's `net.ipv4.ip_forward`: switched on for the first instance, put back after the last.
//!
//! What it was is written down before it is changed, in the runtime directory, because whoever closes last need
//! not be who opened first. Callers hold the lock of [`Registry`](crate::claim::Registry).

use std::fs;
use std::io;

use camino::{Utf8Path, Utf8PathBuf};

/// Why the setting could not be read or changed.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}")]
pub(crate) struct ForwardingError {
    doing: &'static str,
    path: Utf8PathBuf,
    source: io::Error,
}

/// The setting and the note of what it was.
pub(crate) struct Forwarding {
    setting: Utf8PathBuf,
    note: Utf8PathBuf,
    boot: Utf8PathBuf,
}

impl Forwarding {
    /// The host's own.
    pub(crate) fn of_host(runtime_dir: &Utf8Path) -> Self {
        Self {
            setting: "/proc/sys/net/ipv4/ip_forward".into(),
            note: runtime_dir.join("ip_forward"),
            boot: "/proc/sys/kernel/random/boot_id".into(),
        }
    }

    /// Switches it on, unless it is.
    pub(crate) fn ensure_on(&self) -> Result<(), ForwardingError> {
        if self.read(&self.setting)?.trim() == "1" {
            return Ok(());
        }
        // A boot resets the setting, so the note holds for this boot only.
        let boot = self.read(&self.boot)?;
        self.write(&self.note, boot.trim())?;
        self.write(&self.setting, "1")
    }

    /// Switches it off if it was us who switched it on.
    pub(crate) fn put_back(&self) -> Result<(), ForwardingError> {
        let noted = match fs::read_to_string(&self.note) {
            Ok(noted) => noted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(self.failed("read", &self.note, source)),
        };
        if noted.trim() == self.read(&self.boot)?.trim() {
            self.write(&self.setting, "0")?;
        }
        fs::remove_file(&self.note).map_err(|source| self.failed("remove", &self.note, source))
    }

    fn read(&self, path: &Utf8Path) -> Result<String, ForwardingError> {
        fs::read_to_string(path).map_err(|source| self.failed("read", path, source))
    }

    fn write(&self, path: &Utf8Path, value: &str) -> Result<(), ForwardingError> {
        fs::write(path, value).map_err(|source| self.failed("write", path, source))
    }

    fn failed(&self, doing: &'static str, path: &Utf8Path, source: io::Error) -> ForwardingError {
        ForwardingError { doing, path: path.to_owned(), source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goes through `steps` (`on`, `back`, `boot`) with the setting at `before`; says what it is then.
    #[track_caller]
    fn check(before: &str, steps: &str, want: &str) {
        let dir = tempfile::tempdir().expect("a temp dir");
        let path = |name: &str| Utf8PathBuf::from_path_buf(dir.path().join(name)).expect("ASCII");
        let forwarding = Forwarding { setting: path("setting"), note: path("note"), boot: path("boot") };
        fs::write(&forwarding.setting, before).expect("write");
        fs::write(&forwarding.boot, "first\n").expect("write");
        for step in steps.split(' ') {
            match step {
                "on" => forwarding.ensure_on().expect("on"),
                "back" => forwarding.put_back().expect("back"),
                "boot" => fs::write(&forwarding.boot, "second\n").expect("write"),
                other => panic!("no such step: {other}"),
            }
        }
        assert_eq!(fs::read_to_string(&forwarding.setting).expect("read").trim(), want, "after {steps:?}");
    }

    #[test]
    fn what_was_off_is_off_again_and_what_was_on_stays() {
        check("0\n", "on", "1");
        check("0\n", "on on back", "0");
        check("1\n", "on back", "1");
    }

    #[test]
    fn a_note_from_before_a_boot_says_nothing() {
        check("0\n", "on boot back", "1");
    }
}
