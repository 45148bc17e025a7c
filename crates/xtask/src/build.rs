//! The release build: the server, and beside it the programs of the guest.

use std::path::PathBuf;

use anyhow::Context;

use crate::run::{cargo, say};

/// Guest programs are static: they run in images of which we know nothing. The C library's own target is
/// used, because a toolchain has it without being asked.
const GUEST_TARGET: &str = "x86_64-unknown-linux-gnu";

/// What a release build leaves.
pub(crate) struct Built {
    /// The server; `sandbar-agent` lies beside it.
    pub(crate) server: Utf8Path,
}

/// A path as text.
pub(crate) struct Utf8Path(String);

impl Utf8Path {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn as_std_path(&self) -> &std::path::Path {
        std::path::Path::new(&self.0)
    }
}

/// Builds everything in release mode.
pub(crate) fn release() -> anyhow::Result<Built> {
    say("building the server and the guest's agent");
    cargo("build")
        .args(["--release", "--package", "sandbar-agent", "--target", GUEST_TARGET])
        // Not `RUSTFLAGS`, which would also apply to build scripts of the host.
        .env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static")
        .run()?;
    cargo("build").args(["--release", "--package", "sandbar"]).run()?;
    let target = target_dir()?;
    let agent = target.join(GUEST_TARGET).join("release/sandbar-agent");
    let beside = target.join("release/sandbar-agent");
    // A running server may have the old one open: replace the name, not the content.
    let temporary = target.join("release/.sandbar-agent.new");
    std::fs::copy(&agent, &temporary).with_context(|| format!("copy {}", agent.display()))?;
    std::fs::rename(&temporary, &beside).with_context(|| format!("replace {}", beside.display()))?;
    let server = target.join("release/sandbar");
    let server = server.to_str().context("the build directory's name is not UTF-8")?.to_owned();
    Ok(Built { server: Utf8Path(server) })
}

/// Where cargo builds; it may be set by environment or configuration, so cargo is asked.
fn target_dir() -> anyhow::Result<PathBuf> {
    #[derive(serde::Deserialize)]
    struct Metadata {
        target_directory: PathBuf,
    }
    let text = cargo("metadata").args(["--no-deps", "--format-version", "1"]).output()?;
    let metadata: Metadata = serde_json::from_slice(&text).context("read cargo metadata")?;
    Ok(metadata.target_directory)
}
