//! The official CLI.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use sandbar_e2e::{Environment, Server, Transport};

use crate::suite::shared;

/// Node.js needs a second to start it.
const RUN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    [(Transport::Tls, "tls"), (Transport::Http, "http")]
        .into_iter()
        .map(|(transport, name)| {
            shared(&format!("cli::creates_lists_runs_and_kills::{name}"), async move |server| {
                let cli = Environment::npm("cli-2.19.0")?;
                smoke(&Cli { environment: &cli, server, transport })
            })
        })
        .collect()
}

/// Source: contract/cli.md §5 and §12, rows 6, 33, 39 to 43.
fn smoke(cli: &Cli<'_>) -> Result<()> {
    let id = cli.succeed(&["sandbox", "create", "--detach", "base"], "")?.trim().to_owned();
    ensure!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id:?}");
    ensure!(cli.succeed(&["sandbox", "list"], "")?.contains(&id));
    let list: serde_json::Value =
        serde_json::from_str(&cli.succeed(&["sandbox", "list", "-f", "json"], "")?)?;
    ensure!(
        list.as_array().is_some_and(|list| list.iter().any(|entry| entry["sandboxId"] == id.as_str())),
        "{list}"
    );
    ensure!(cli.succeed(&["sandbox", "info", &id], "")?.contains(&id));
    let ran = cli.run(&["sandbox", "exec", &id, "echo hi; exit 7"], "")?;
    ensure!(ran.code == Some(7) && ran.stdout == "hi\n", "{ran:?}");
    let options =
        ["sandbox", "exec", "-u", "root", "-c", "/tmp", "-e", "A=1", &id, "sh", "-c", "whoami; pwd; echo $A"];
    ensure!(cli.succeed(&options, "")? == "root\n/tmp\n1\n");
    ensure!(cli.succeed(&["sandbox", "exec", &id, "wc -c"], "abc")?.trim() == "3");
    let templates = cli.succeed(&["template", "list", "-f", "json"], "")?;
    ensure!(templates.contains("\"base\""), "{templates}");
    cli.succeed(&["sandbox", "kill", &id], "")?;
    let again = cli.run(&["sandbox", "kill", &id], "")?;
    ensure!(again.code == Some(0) && again.stderr.contains("wasn't found"), "{again:?}");
    ensure!(!cli.succeed(&["sandbox", "list"], "")?.contains(&id));
    Ok(())
}

struct Cli<'a> {
    environment: &'a Environment,
    server: &'a Server,
    transport: Transport,
}

impl Cli<'_> {
    fn run(&self, arguments: &[&str], input: &str) -> Result<sandbar_e2e::Ended> {
        let program = self.environment.program("e2b")?.against(self.server, self.transport);
        program.args(arguments).run(input, RUN_WITHIN)
    }

    fn succeed(&self, arguments: &[&str], input: &str) -> Result<String> {
        let ended = self.run(arguments, input)?;
        ensure!(ended.code == Some(0), "{arguments:?}: {ended:?}");
        Ok(ended.stdout)
    }
}
