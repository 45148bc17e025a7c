//! A tree of Debian packages, by `mmdebstrap`.

use std::fs;

use camino::Utf8Path;

use super::{BuildError, Builder, STEP_DEADLINE};
use crate::program::Program;
use crate::recipe::Debian;
use crate::stock::Mirrors;

/// Debian's signing keys, of all releases, from the package debian-archive-keyring.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Fills the empty directory `tree`.
pub(super) fn bootstrap(builder: &Builder<'_>, debian: &Debian, tree: &Utf8Path) -> Result<(), BuildError> {
    if !fs::exists(KEYRING).map_err(BuildError::io("look for", KEYRING))? {
        return Err(BuildError::NoKeyring { path: KEYRING });
    }
    let excludes = debian.exclude.iter().map(|pattern| format!("--dpkgopt=path-exclude={pattern}"));
    let program = Program::new("/usr/bin/mmdebstrap", STEP_DEADLINE)
        .args(["--mode=root", "--format=directory", "--variant=minbase"])
        // The tree is worth nothing before it is complete, and is written to disk as a whole then.
        .args([
            "--dpkgopt=force-unsafe-io",
            "--aptopt=Acquire::Retries \"5\"",
            "--aptopt=Acquire::Languages \"none\"",
        ])
        .args(excludes)
        .args([format!("--include={}", debian.packages.join(","))])
        .args([debian.suite.as_str(), tree.as_str()])
        .args(sources(&builder.options.mirrors, &debian.suite));
    builder.program("packages", program.contained())
}

/// The release, its updates and its security fixes, as lines of a `sources.list`.
pub(crate) fn sources(mirrors: &Mirrors, suite: &str) -> [String; 3] {
    let line = |mirror: &str, suite: &str| format!("deb [signed-by={KEYRING}] {mirror} {suite} main");
    [
        line(&mirrors.debian, suite),
        line(&mirrors.debian, &format!("{suite}-updates")),
        line(&mirrors.debian_security, &format!("{suite}-security")),
    ]
}
