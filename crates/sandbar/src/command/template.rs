//! `sandbar template …`: the stock templates of this host.

use std::process::ExitCode;

use camino::Utf8PathBuf;
use clap::{Args, Subcommand};
use sandbar_artifacts::{LayerStore, stock as recipes};
use serde_json::json;

use crate::output::{self, Format};
use crate::settings::DataDir;
use crate::stock;

/// Build and list stock templates.
#[derive(Args, Debug)]
pub(crate) struct TemplateArgs {
    #[command(flatten)]
    data: DataDir,
    /// Directory of layers; below the data directory by default.
    #[arg(long, env = "SANDBAR_ARTIFACTS_DIR", global = true)]
    artifacts_dir: Option<Utf8PathBuf>,
    /// How results are shown: a table on a terminal, JSON otherwise.
    #[arg(long, value_enum, global = true)]
    output: Option<Format>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Build a stock template, unless it is built.
    Build {
        /// Its name.
        name: String,
        /// Do not make guests trust what this host trusts.
        #[arg(long)]
        no_host_ca: bool,
    },
    /// List the names of stock templates.
    List,
}

impl TemplateArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let format = Format::choose(self.output);
        match self.verb {
            Verb::Build { name, no_host_ca } => {
                let dir = self.artifacts_dir.unwrap_or_else(|| self.data.data_dir.join("artifacts"));
                stock::announce(&name);
                let image = stock::ensure(&LayerStore::open(&dir)?, &name, !no_host_ca).await?;
                let layers: Vec<String> = image.layers.iter().map(ToString::to_string).collect();
                match format {
                    Format::Json => output::json(&json!({ "name": image.name, "layers": layers }))?,
                    Format::Table => output::line(&format!("{}: {} layers", image.name, layers.len()))?,
                }
            }
            Verb::List => match format {
                Format::Json => output::json(&recipes::names().collect::<Vec<_>>())?,
                Format::Table => {
                    for name in recipes::names() {
                        output::line(name)?;
                    }
                }
            },
        }
        Ok(ExitCode::SUCCESS)
    }
}
