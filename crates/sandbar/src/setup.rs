//! Carries out the cures of [`host`](crate::host): asks first, says what and why, and can be repeated.

use std::io::{BufRead, IsTerminal, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use camino::Utf8Path;
use sandbar_artifacts::Mirrors;

use crate::host::{Cure, Finding, State, inspect};

/// Whether to ask before something is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    /// On the terminal.
    Ask,
    /// It was given on the command line.
    Given,
}

/// Brings the host into a state in which the server can run.
///
/// # Errors
/// Names what is missing and cannot be had by us.
pub(crate) async fn prepare(data_dir: &Utf8Path, consent: Consent) -> anyhow::Result<()> {
    let findings = inspect(data_dir).await;
    refuse_what_only_the_operator_can_cure(&findings)?;
    let wanted: Vec<&Finding> = findings.iter().filter(|finding| finding.cure().is_some()).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    say("This host lacks:");
    for finding in &wanted {
        say(&format!("  {:<14} {}", finding.name, finding.why));
    }
    if consent == Consent::Ask && !agreed()? {
        bail!("nothing was installed; say --yes to install without being asked");
    }
    // Packages first: the other cures need them.
    let packages: Vec<&str> = wanted.iter().filter_map(|finding| package(finding)).collect();
    if !packages.is_empty() {
        install(&packages)?;
    }
    for finding in wanted {
        match finding.cure() {
            Some(Cure::Runsc) => install_runsc(data_dir).await?,
            Some(Cure::LocalNames) => install_local_names()?,
            _ => {}
        }
    }
    match inspect(data_dir).await.into_iter().find(|finding| matches!(finding.state, State::Missing(_))) {
        None => Ok(()),
        Some(finding) => bail!("{} is still missing after the installation", finding.name),
    }
}

fn package(finding: &Finding) -> Option<&'static str> {
    match finding.cure() {
        Some(Cure::Package(package)) => Some(package),
        _ => None,
    }
}

fn refuse_what_only_the_operator_can_cure(findings: &[Finding]) -> anyhow::Result<()> {
    let mut hopeless = Vec::new();
    for finding in findings {
        if let State::Missing(Cure::Operator(cure)) = &finding.state {
            hopeless.push(format!("{}: {cure} ({})", finding.name, finding.why));
        }
    }
    if hopeless.is_empty() {
        Ok(())
    } else {
        bail!("this host cannot run Sandbar:\n  - {}", hopeless.join("\n  - "))
    }
}

fn agreed() -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    let mut out = std::io::stderr();
    write!(out, "Install it now? [Y/n] ")?;
    out.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

fn install(packages: &[&str]) -> anyhow::Result<()> {
    say(&format!("Installing {}", packages.join(", ")));
    // Package lists may be missing or old on a fresh machine; without them apt finds nothing.
    apt(&["update", "--quiet"])?;
    let mut arguments = vec!["install", "--quiet", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
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

async fn install_runsc(data_dir: &Utf8Path) -> anyhow::Result<()> {
    say("Installing runsc");
    let (report, shown) = crate::progress::reporter();
    let path = sandbar_artifacts::ensure_runsc(&data_dir.join("bin"), &Mirrors::default(), &report).await;
    drop(shown);
    let path = path.context("install runsc")?;
    say(&format!("  {path}"));
    Ok(())
}

/// `libnss-myhostname` answers for every name under `.localhost` with the loopback addresses (nss-myhostname(8)).
fn install_local_names() -> anyhow::Result<()> {
    say("Making names under .localhost resolve (libnss-myhostname)");
    // Its package adds it to /etc/nsswitch.conf, but only where systemd runs.
    install(&["libnss-myhostname"])?;
    let path = Utf8Path::new("/etc/nsswitch.conf");
    let text = std::fs::read_to_string(path).with_context(|| format!("read {path}"))?;
    if let Some(changed) = with_myhostname(&text) {
        let temporary = path.with_extension("conf.sandbar");
        std::fs::write(&temporary, changed).with_context(|| format!("write {temporary}"))?;
        std::fs::rename(&temporary, path).with_context(|| format!("replace {path}"))?;
    }
    Ok(())
}

/// The file with `myhostname` right after `files` among the services for hosts; `None` when it is there.
fn with_myhostname(text: &str) -> Option<String> {
    let mut changed = false;
    let lines: Vec<String> = text
        .lines()
        .map(|line| match line.strip_prefix("hosts:") {
            Some(services) if !services.split_whitespace().any(|service| service == "myhostname") => {
                changed = true;
                let mut words: Vec<&str> = services.split_whitespace().collect();
                let after_files = words.iter().position(|word| *word == "files").map_or(0, |at| at + 1);
                words.insert(after_files, "myhostname");
                format!("hosts:          {}", words.join(" "))
            }
            _ => line.to_owned(),
        })
        .collect();
    changed.then(|| lines.join("\n") + "\n")
}

fn say(line: &str) {
    crate::output::note(line);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn myhostname_comes_after_files_and_only_once() {
        let changed = with_myhostname("passwd: files\nhosts:          files dns\n").unwrap();
        assert_eq!(changed, "passwd: files\nhosts:          files myhostname dns\n");
        assert_eq!(with_myhostname(&changed), None);
    }
}
