//! Other programs: run, waited for, and their failure reported.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// A line for the person who started us.
pub(crate) fn say(line: &str) {
    // Nobody reads it any more: the work goes on.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The cargo that runs us, with a subcommand.
pub(crate) fn cargo(subcommand: &str) -> Cargo {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.arg(subcommand);
    // Set by the cargo that runs us; they would make every build of ours look different to the next one.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    Cargo(command)
}

/// A cargo command being put together.
pub(crate) struct Cargo(Command);

impl Cargo {
    pub(crate) fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.0.args(args);
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        finish(&mut self.0)
    }

    pub(crate) fn output(mut self) -> anyhow::Result<Vec<u8>> {
        let output = self.0.stderr(std::process::Stdio::inherit()).output().context("run cargo")?;
        if !output.status.success() {
            bail!("{:?} ended with {}", self.0, output.status);
        }
        Ok(output.stdout)
    }
}

/// Runs a program to its end.
pub(crate) fn program(program: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    finish(Command::new(program).args(arguments))
}

/// Becomes another program; returns only when that was not possible.
pub(crate) fn replace_by(program: &Path, arguments: &[String]) -> anyhow::Error {
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::new(error).context(format!("run {}", program.display()))
}

fn finish(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("run {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{:?} ended with {status}", command.get_program());
    }
    Ok(())
}
