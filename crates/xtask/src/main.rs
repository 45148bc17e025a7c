//! Builds guest programs, runs suites, checks import directions.
//!
//! `cargo xtask up` and `cargo xtask test` each work alone on a fresh machine that has nothing but Rust.

mod build;
mod directions;
mod packages;
mod run;

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};

use crate::packages::Consent;
use crate::run::cargo;

#[derive(Parser)]
#[command(about = "Builds, sets up, tests and checks Sandbar")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Installs what is missing, builds everything, and runs the server with a first sandbox.
    Up {
        /// Install without being asked.
        #[arg(long)]
        yes: bool,
        /// Passed on to `sandbar up`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Builds everything in release mode: the server and the programs of the guest.
    Build,
    /// Installs what the tests need and runs all of them.
    Test {
        /// Passed on to `cargo test`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Checks format, lints and import directions.
    Check,
}

fn main() -> ExitCode {
    match Arguments::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

impl Task {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Up { yes, rest } => up(if yes { Consent::Given } else { Consent::Ask }, rest),
            Self::Build => build::release().map(|_| ()),
            Self::Test { rest } => test(rest),
            Self::Check => check(),
        }
    }
}

fn up(consent: Consent, rest: Vec<String>) -> anyhow::Result<()> {
    packages::ensure(packages::FOR_BUILDING, consent)?;
    let built = build::release()?;
    let mut arguments = vec!["up".to_owned()];
    if consent == Consent::Given {
        arguments.push("--yes".to_owned());
    }
    arguments.extend(rest);
    // The server takes our place, so that Ctrl-C and the exit code are its own.
    Err(run::replace_by(built.server.as_std_path(), &arguments))
}

fn test(rest: Vec<String>) -> anyhow::Result<()> {
    packages::ensure(packages::FOR_BUILDING, Consent::Given)?;
    packages::ensure(packages::FOR_TESTING, Consent::Given)?;
    let built = build::release()?;
    let artifacts = std::env::var("SANDBAR_ARTIFACTS_DIR").unwrap_or_else(|_| TEST_ARTIFACTS.to_owned());
    let server = built.server.as_std_path();
    // The same steps a user's first start takes; the templates are shared by all servers of the tests.
    run::program(server, &["setup", "--yes", "--data-dir", TEST_DATA]).context("set the host up")?;
    run::program(server, &["template", "build", "base", "--artifacts-dir", &artifacts])
        .context("build the base template")?;
    cargo("test")
        .args(["--workspace", "--no-fail-fast"])
        .args(rest)
        .env("SANDBAR_BIN", built.server.as_str())
        .env("SANDBAR_RUNSC", runsc()?)
        .env("SANDBAR_ARTIFACTS_DIR", artifacts)
        .run()
}

/// Where the tests' servers find their templates. Outside of the build directory, because it outlives it.
const TEST_ARTIFACTS: &str = "/var/cache/sandbar/artifacts";

/// Where the tests' `runsc` is.
const TEST_DATA: &str = "/var/cache/sandbar";

/// The `runsc` that the set-up found or installed.
fn runsc() -> anyhow::Result<String> {
    let own = format!("{TEST_DATA}/bin/runsc");
    if std::path::Path::new(&own).exists() {
        return Ok(own);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .map(|dir| format!("{dir}/runsc"))
        .find(|candidate| std::path::Path::new(candidate).exists())
        .context("the set-up left no runsc")
}

fn check() -> anyhow::Result<()> {
    cargo("fmt").args(["--all", "--check"]).run()?;
    cargo("clippy").args(["--workspace", "--all-targets", "--", "-D", "warnings"]).run()?;
    directions::check()
}
