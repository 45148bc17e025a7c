//! The server's own command line.

use std::time::Duration;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use sandbar_e2e::{Ended, SdkRun, Server};
use serde_json::Value;

use crate::suite::shared;

const RUN_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("native::prints_json_into_pipes_and_tables_on_request", async |server| {
            let created: Value = serde_json::from_str(&succeed(server, &["create", "--timeout", "60"])?)?;
            let id = created["sandboxID"].as_str().unwrap_or_default().to_owned();
            let list: Value = serde_json::from_str(&succeed(server, &["list"])?)?;
            let listed = list
                .as_array()
                .is_some_and(|list| list.iter().any(|entry| entry["sandboxID"] == id.as_str()));
            ensure!(listed, "{list}");
            let table = succeed(server, &["list", "--output", "table"])?;
            ensure!(table.starts_with("ID ") && table.contains(&id), "{table}");
            let info: Value = serde_json::from_str(&succeed(server, &["info", &id])?)?;
            ensure!(info["state"] == "running", "{info}");
            let logs: Value = serde_json::from_str(&succeed(server, &["logs", &id])?)?;
            ensure!(logs.as_array().is_some_and(|logs| !logs.is_empty()), "{logs}");
            succeed(server, &["kill", &id])?;
            for gone in [["info", id.as_str()], ["kill", id.as_str()]] {
                let ended = run(server, &gone, "")?;
                ensure!(
                    ended.code == Some(1) && ended.stderr.contains(&id) && ended.stdout.is_empty(),
                    "{ended:?}"
                );
            }
            Ok(())
        }),
        shared("native::exec_is_the_command_it_runs", async |server| {
            let id = create(server)?;
            let ended = run(server, &["exec", &id, "echo out; echo err >&2; exit 7"], "")?;
            let seen = (ended.code, ended.stdout.as_str(), ended.stderr.as_str());
            ensure!(seen == (Some(7), "out\n", "err\n"), "{ended:?}");
            let ended =
                run(server, &["exec", "-u", "root", "-c", "/tmp", &id, "sh", "-c", "whoami; pwd"], "")?;
            ensure!((ended.code, ended.stdout.as_str()) == (Some(0), "root\n/tmp\n"), "{ended:?}");
            let ended = run(server, &["exec", &id, "wc -c"], "abc")?;
            ensure!(ended.stdout.trim() == "3", "{ended:?}");
            succeed(server, &["kill", &id])?;
            Ok(())
        }),
        shared("native::connect_is_a_terminal_inside", async |server| {
            let id = create(server)?;
            let terminal = SdkRun::own(server, "sandbox")?.args(&["connect", &id]).in_terminal()?;
            let typed =
                "test -t 0 && echo is''-a-terminal $TERM; sudo id -u > /tmp/uid; cat /tmp/uid; exit\n";
            let ended = terminal.run(typed, RUN_WITHIN)?;
            ensure!(ended.stdout.contains("is-a-terminal xterm"), "{ended:?}");
            let ended = run(server, &["exec", &id, "cat /tmp/uid"], "")?;
            ensure!(ended.stdout == "0\n", "{ended:?}");
            succeed(server, &["kill", &id])?;
            Ok(())
        }),
        shared("native::doctor_finds_nothing_missing_where_a_server_runs", async |server| {
            let ended = SdkRun::own(server, "doctor")?.run("", RUN_WITHIN)?;
            ensure!(ended.code == Some(0), "{ended:?}");
            Ok(())
        }),
    ]
}

fn create(server: &Server) -> Result<String> {
    // A table of one value is the value.
    Ok(succeed(server, &["create", "--timeout", "120", "--output", "table"])?.trim().to_owned())
}

fn run(server: &Server, arguments: &[&str], input: &str) -> Result<Ended> {
    SdkRun::own(server, "sandbox")?.args(arguments).run(input, RUN_WITHIN)
}

fn succeed(server: &Server, arguments: &[&str]) -> Result<String> {
    let ended = run(server, arguments, "")?;
    ensure!(ended.code == Some(0), "{arguments:?}: {ended:?}");
    Ok(ended.stdout)
}
