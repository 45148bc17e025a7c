//! `sandbar serve`: the server, until SIGTERM or Ctrl-C.

use std::process::ExitCode;

use clap::Args;

use crate::server;
use crate::settings::{DataDir, ServeFlags, Settings};
use crate::signals::Signals;

/// Run the server.
#[derive(Args, Debug)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    data: DataDir,
    #[command(flatten)]
    flags: ServeFlags,
}

impl ServeArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        server::start_logging(server::LIFE_EVENTS);
        let settings = Settings::read(&self.data.data_dir, self.flags)?;
        let mut signals = Signals::listen()?;
        let server = server::Server::start(settings, &mut signals).await?;
        server.run_until(&mut signals).await?;
        Ok(ExitCode::SUCCESS)
    }
}
