//! `sandbar setup`: installs what `doctor` finds missing.

use std::process::ExitCode;

use clap::Args;

use crate::settings::DataDir;
use crate::setup::{Consent, prepare};

/// Install what this host lacks.
#[derive(Args, Debug)]
pub(crate) struct SetupArgs {
    #[command(flatten)]
    data: DataDir,
    /// Install without being asked.
    #[arg(long)]
    yes: bool,
}

impl SetupArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let consent = if self.yes { Consent::Given } else { Consent::Ask };
        prepare(&self.data.data_dir, consent).await?;
        Ok(ExitCode::SUCCESS)
    }
}
