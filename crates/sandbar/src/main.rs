//! The Sandbar server and command line: the one place that names concrete parts.
//!
//! `serve` puts the parts together and runs them; `up` prepares the host first and shows a first sandbox;
//! everything else is a client of a running server or looks at the host.

mod bench {
    pub(crate) mod raw;
    pub(crate) mod samples;
}
mod client;
mod command {
    pub(crate) mod bench;
    pub(crate) mod doctor;
    pub(crate) mod sandbox;
    pub(crate) mod serve;
    pub(crate) mod setup;
    pub(crate) mod template;
    pub(crate) mod up;
}
mod host;
mod identity;
mod output;
mod process;
mod progress;
mod ready;
mod server;
mod settings;
mod setup;
mod signals;
mod stock;
mod terminal;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser, Debug)]
#[command(name = "sandbar", version, about = "Sandboxes for AI agents on your own machine")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Up(command::up::UpArgs),
    Serve(command::serve::ServeArgs),
    Setup(command::setup::SetupArgs),
    Doctor(command::doctor::DoctorArgs),
    Template(command::template::TemplateArgs),
    #[command(visible_alias = "sbx")]
    Sandbox(command::sandbox::SandboxArgs),
    Bench(command::bench::BenchArgs),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::note(&format!("error: start the runtime: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(arguments.command.run());
    // Not dropped: that would wait for a thread that reads standard input, which may never get a byte.
    runtime.shutdown_background();
    result.unwrap_or_else(|error| {
        output::note(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

impl Command {
    async fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Up(arguments) => arguments.run().await,
            Self::Serve(arguments) => arguments.run().await,
            Self::Setup(arguments) => arguments.run().await,
            Self::Doctor(arguments) => arguments.run().await,
            Self::Template(arguments) => arguments.run().await,
            Self::Sandbox(arguments) => arguments.run().await,
            Self::Bench(arguments) => arguments.run().await,
        }
    }
}
