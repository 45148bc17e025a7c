//! Packages of the distribution that building and testing need, before there is a `sandbar` to ask.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::run::say;

/// Whether to ask before something is installed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    Ask,
    Given,
}

/// A program, the package that has it, and why it is needed.
pub(crate) struct Need {
    probe: &'static [&'static str],
    package: &'static str,
    why: &'static str,
}

/// To build at all.
pub(crate) const FOR_BUILDING: &[Need] =
    &[Need { probe: &["cc", "--version"], package: "gcc libc6-dev", why: "links programs" }];

/// To run every test.
pub(crate) const FOR_TESTING: &[Need] = &[
    Need {
        probe: &["python3", "-c", "import venv, ensurepip"],
        package: "python3 python3-venv",
        why: "runs the Python SDKs",
    },
    Need { probe: &["node", "--version"], package: "nodejs", why: "runs the JavaScript SDKs" },
    Need { probe: &["npm", "--version"], package: "npm", why: "installs the JavaScript SDKs" },
    Need { probe: &["ip", "-V"], package: "iproute2", why: "builds networks for tests" },
    Need { probe: &["curl", "--version"], package: "curl", why: "is a client that is no SDK" },
];

/// Installs what is missing.
pub(crate) fn ensure(needs: &[Need], consent: Consent) -> anyhow::Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| !there(need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    say("missing on this machine:");
    for need in &missing {
        say(&format!("  {:<24} {}", need.package, need.why));
    }
    if consent == Consent::Ask && !agreed()? {
        bail!("nothing was installed; say --yes to install without being asked");
    }
    apt(&["update", "--quiet"])?;
    let packages = missing.iter().flat_map(|need| need.package.split(' '));
    let arguments: Vec<&str> =
        ["install", "--quiet", "--yes", "--no-install-recommends"].into_iter().chain(packages).collect();
    apt(&arguments)
}

fn there(need: &Need) -> bool {
    let status = Command::new(need.probe[0])
        .args(&need.probe[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut out = std::io::stderr();
    write!(out, "install with apt-get now? [Y/n] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("run apt-get; on a system without it, install the packages by hand")?;
    if !output.status.success() {
        bail!("apt-get {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
