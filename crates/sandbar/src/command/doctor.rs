//! `sandbar doctor`: what this host has, what it lacks, why that matters and how to cure it.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::host::{Cure, Finding, State, engine_config, inspect};
use crate::output::{self, Format};
use crate::settings::DataDir;

/// Explain what this host lacks, and the cure.
#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    data: DataDir,
    /// How results are shown: a table on a terminal, JSON otherwise.
    #[arg(long, value_enum)]
    output: Option<Format>,
    /// Leave out the test that boots a guest.
    #[arg(long)]
    no_boot: bool,
}

impl DoctorArgs {
    /// Exit code 1 when something is missing without which the server cannot run.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let data_dir = &self.data.data_dir;
        let mut findings = inspect(data_dir).await;
        let ready = !findings.iter().any(|finding| matches!(finding.state, State::Missing(_)));
        if ready && !self.no_boot {
            findings.push(boot(data_dir).await);
        }
        match Format::choose(self.output) {
            Format::Json => output::json(&findings.iter().map(as_json).collect::<Vec<_>>())?,
            Format::Table => show(&findings)?,
        }
        let well = !findings.iter().any(|finding| matches!(finding.state, State::Missing(_)));
        Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether the engine really runs a guest here: what a host claims to have is not proof.
async fn boot(data_dir: &camino::Utf8Path) -> Finding {
    let state = match sandbar_engine::probe(engine_config(data_dir), WORK_DIR.into()).await {
        Ok(probe) => State::Present(format!("a first guest booted in {} ms", probe.booted_in.as_millis())),
        Err(error) => State::Missing(Cure::Operator(chain(&error))),
    };
    Finding { name: "guest", why: "everything above is for this", state }
}

/// Where the test guest's files are made; on a disk, as those of sandboxes.
const WORK_DIR: &str = "/var/tmp";

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

fn show(findings: &[Finding]) -> std::io::Result<()> {
    let rows: Vec<[String; 4]> = findings
        .iter()
        .map(|finding| {
            let (mark, detail) = match &finding.state {
                State::Present(detail) => ("ok", detail.clone()),
                State::Missing(cure) => ("MISSING", cure_text(cure)),
                State::Lacking(cure) => ("lacking", cure_text(cure)),
            };
            [finding.name.to_owned(), mark.to_owned(), detail, finding.why.to_owned()]
        })
        .collect();
    output::table(["PIECE", "STATE", "DETAIL OR CURE", "WHY"], &rows)
}

fn as_json(finding: &Finding) -> serde_json::Value {
    let (state, detail, cure) = match &finding.state {
        State::Present(detail) => ("ok", Some(detail.clone()), None),
        State::Missing(cure) => ("missing", None, Some(cure_text(cure))),
        State::Lacking(cure) => ("lacking", None, Some(cure_text(cure))),
    };
    json!({ "name": finding.name, "why": finding.why, "state": state, "detail": detail, "cure": cure })
}

fn cure_text(cure: &Cure) -> String {
    match cure {
        Cure::Package(package) => format!("sandbar setup, or: apt-get install {package}"),
        Cure::Runsc => "sandbar setup (installs runsc below the data directory)".to_owned(),
        Cure::LocalNames => {
            "sandbar setup, or: apt-get install libnss-myhostname and add myhostname to hosts in nsswitch.conf"
                .to_owned()
        }
        Cure::Operator(cure) => cure.clone(),
    }
}
