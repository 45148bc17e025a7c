//! Makes programs in the guest trust certificates that the host names.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where most programs look. Source: ca-certificates of Debian.
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where the distribution's own tool finds it again when it rebuilds the bundle.
const SOURCE: &str = "/usr/local/share/ca-certificates/e2b-ca.crt";

/// Adds `pem` to the bundle in place of what was added before. Nothing is written when it is there already.
pub(super) fn install(pem: &str) -> io::Result<()> {
    install_at(pem, Path::new(BUNDLE), Path::new(SOURCE))
}

fn install_at(pem: &str, bundle: &Path, source: &Path) -> io::Result<()> {
    let pem = format!("{}\n", pem.trim_end());
    // An image may have a link here; its target is what programs read.
    let bundle = fs::canonicalize(bundle).unwrap_or_else(|_| bundle.to_owned());
    let before = fs::read_to_string(source).unwrap_or_default();
    let old = fs::read_to_string(&bundle).unwrap_or_default();
    if before != pem {
        write_whole(source, &pem)?;
    }
    let mut new = if before.is_empty() { old.clone() } else { old.replacen(&before, "", 1) };
    if !new.is_empty() && !new.ends_with('\n') {
        new.push('\n');
    }
    if !new.contains(&pem) {
        new.push_str(&pem);
    }
    if new == old || (before == pem && old.contains(&pem)) {
        return Ok(());
    }
    write_whole(&bundle, &new)
}

/// Replaces a file at once: a program that reads it meanwhile gets the old one or the new one.
fn write_whole(path: &Path, content: &str) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut next = path.as_os_str().to_owned();
    next.push(".next");
    let next = PathBuf::from(next);
    fs::write(&next, content)?;
    fs::set_permissions(&next, fs::Permissions::from_mode(0o644))?;
    fs::rename(&next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_certificate_replaces_the_one_before() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("certs/bundle.crt");
        let source = directory.path().join("source/ca.crt");
        let installed = |pem: &str| {
            install_at(pem, &bundle, &source).unwrap();
            fs::read_to_string(&bundle).unwrap()
        };
        assert_eq!(installed("A\n\n"), "A\n");
        fs::write(&bundle, "SYSTEM\nA\n").unwrap();
        assert_eq!(installed("A"), "SYSTEM\nA\n");
        assert_eq!(installed("B"), "SYSTEM\nB\n");
        // An update of the distribution's bundle that dropped ours.
        fs::write(&bundle, "SYSTEM 2\n").unwrap();
        assert_eq!(installed("B"), "SYSTEM 2\nB\n");
    }
}
