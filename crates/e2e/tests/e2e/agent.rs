//! The agent's protocol where the real guest matters: users, signals, terminals, limits of the engine.
//!
//! Source: contract/envd.md §19; the numbers are its rows. What needs no guest is tested in `agent` itself.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use reqwest::Method;
use sandbar_e2e::{Answer, Guest};
use serde_json::{Value, json};

use crate::suite::shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("agent::commands_run_as_the_user_who_was_named", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Rows 26 to 28, 37 and 64.
            let bad =
                guest.agent(Method::POST, "/filesystem.Filesystem/Stat").basic_auth("nobody-x", Some(""));
            let bad = Answer::of(bad.json(&json!({ "path": "/" }))).await?.expect(401)?.json()?;
            ensure!(bad["code"] == "unauthenticated", "{bad}");
            ensure!(
                format!("{:?}", guest.run_as(Some("nobody-x"), "true").await).contains("unauthenticated")
            );
            ensure!(guest.run_as(Some("root"), "cd ~ && pwd").await?.stdout == "/root\n");
            let groups = guest.out("id -Gn").await?;
            ensure!(groups.split(' ').any(|group| group == "sudo"), "{groups}");
            // A user who did not exist before.
            guest.run_as(Some("root"), "useradd -m newcomer").await?;
            ensure!(
                guest.run_as(Some("newcomer"), "whoami; pwd").await?.stdout == "newcomer\n/home/newcomer\n"
            );
            server.api().kill(&guest.id).await
        }),
        shared("agent::ends_of_commands_are_told_exactly", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Rows 29 to 32, 54, 55 and 65.
            ensure!(guest.run("exit 7").await?.code == 7);
            ensure!(guest.run("kill -9 $$").await?.code == -1);
            let started = Instant::now();
            ensure!(guest.out("sleep 60 >/dev/null 2>&1 & echo a").await? == "a");
            ensure!(started.elapsed() < Duration::from_secs(5), "waited for what runs behind");
            ensure!(guest.out("sleep 1.5 & echo a").await? == "a");
            ensure!(guest.out("yes | head -1").await? == "y");
            ensure!(guest.out("head -c 10000000 /dev/zero | tr '\\0' x").await?.len() == 10_000_000);
            server.api().kill(&guest.id).await
        }),
        shared("agent::a_signal_ends_a_command_and_its_pid_is_forgotten", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Rows 45, 51 to 53.
            let pid = guest.start("sleep 100").await?;
            let signal = |pid: u64, signal: &str| json!({ "process": { "pid": pid }, "signal": signal });
            guest.call("process.Process/SendSignal", signal(pid, "SIGNAL_SIGKILL")).await?.expect(200)?;
            let list = guest.call("process.Process/List", json!({})).await?.expect(200)?.json()?;
            let running = list["processes"].as_array().map_or(0, Vec::len);
            ensure!(running == 0, "{list}");
            let gone = guest.call("process.Process/SendSignal", signal(999_999, "SIGNAL_SIGKILL")).await?;
            ensure!(gone.expect(404)?.json()?["code"] == "not_found");
            let pid = guest.start("exit 5").await?;
            ensure!(guest.connect(pid).await?.code == 5);
            server.api().kill(&guest.id).await
        }),
        shared("agent::a_command_goes_on_when_nobody_listens", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Row 50.
            guest.start("for i in $(seq 300000); do echo $i; done; touch /tmp/done").await?;
            ensure!(guest.out("until [ -e /tmp/done ]; do sleep 0.1; done; echo ok").await? == "ok");
            server.api().kill(&guest.id).await
        }),
        shared("agent::files_have_owners_modes_and_links", async |server| {
            let guest = server.api().create(json!({})).await?;
            let stat = async |path: &str| {
                let answer = guest.call("filesystem.Filesystem/Stat", json!({ "path": path })).await?;
                anyhow::Ok(answer.expect(200)?.json()?["entry"].clone())
            };
            // Rows 67 to 72, 78 and 79.
            let entry = stat("/home/user/.bashrc").await?;
            ensure!(
                entry["type"] == "FILE_TYPE_FILE" && entry["owner"] == "user" && entry["size"].is_string(),
                "{entry}"
            );
            guest.out("ln -s .bashrc l; ln -s nowhere broken; mkdir d; ln -s d ld").await?;
            let entry = stat("/home/user/l").await?;
            ensure!(entry["symlinkTarget"] == "/home/user/.bashrc", "{entry}");
            ensure!(entry["permissions"].as_str().is_some_and(|text| text.starts_with('L')), "{entry}");
            ensure!(
                stat("/home/user/broken")
                    .await?
                    .get("type")
                    .is_none_or(|kind| kind == "FILE_TYPE_UNSPECIFIED")
            );
            ensure!(stat("/tmp").await?["permissions"] == "dtrwxrwxrwx");
            ensure!(stat("/dev/null").await?["permissions"] == "Dcrw-rw-rw-");
            let missing = guest.call("filesystem.Filesystem/Stat", json!({ "path": "/no/such" })).await?;
            ensure!(missing.expect(404)?.json()?["code"] == "not_found");
            let make =
                async |path: &str| guest.call("filesystem.Filesystem/MakeDir", json!({ "path": path })).await;
            make("a/b/c").await?.expect(200)?;
            ensure!(guest.out("stat -c '%U:%G %a' a a/b a/b/c").await? == ["user:user 755"; 3].join("\n"));
            ensure!(make("a/b/c").await?.expect(409)?.json()?["code"] == "already_exists");
            let remove =
                async |path: &str| guest.call("filesystem.Filesystem/Remove", json!({ "path": path })).await;
            remove("ld").await?.expect(200)?;
            ensure!(guest.out("stat -c %F d").await? == "directory");
            ensure!(make("~root/x").await?.expect(400)?.json()?["code"] == "invalid_argument");
            server.api().kill(&guest.id).await
        }),
        shared("agent::uploads_and_downloads_in_every_form", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Rows 88, 92 to 94, 98 to 103.
            let put = async |path: &str, kind: &str, body: &'static str| {
                Answer::of(guest.agent(Method::POST, path).header("Content-Type", kind).body(body)).await
            };
            let multipart = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhello\r\n--x--\r\n";
            let answer = put("/files?path=d/x.txt", "multipart/form-data; boundary=x", multipart)
                .await?
                .expect(200)?;
            let want = json!([{ "path": "/home/user/d/x.txt", "name": "x.txt", "type": "file" }]);
            ensure!(answer.json()? == want, "{answer:?}");
            put("/files", "application/octet-stream", "x").await?.expect_error(400, "")?;
            put("/files?path=/tmp", "application/octet-stream", "x").await?.expect_error(400, "")?;
            let missing = Answer::of(guest.agent(Method::GET, "/files?path=demo/test.txt")).await?;
            missing.expect_error(404, "path '/home/user/demo/test.txt' does not exist")?;
            let range = guest.agent(Method::GET, "/files?path=d/x.txt").header("Range", "bytes=1-3");
            let range = Answer::of(range).await?.expect(206)?;
            ensure!(range.text == "ell" && range.header("content-range") == "bytes 1-3/5", "{range:?}");
            let zipped =
                guest.agent(Method::GET, "/files?path=/etc/services").header("Accept-Encoding", "gzip");
            let zipped = Answer::of(zipped).await?.expect(200)?;
            ensure!(zipped.header("content-encoding") == "gzip", "{:?}", zipped.headers);
            let info =
                Answer::of(guest.agent(Method::GET, "/files?path=/proc/cpuinfo")).await?.expect(200)?;
            ensure!(info.text.contains("processor"), "{info:?}");
            guest.run_as(Some("root"), "echo old > /tmp/owned; chmod 600 /tmp/owned").await?;
            put("/files?path=/tmp/owned", "application/octet-stream", "new").await?.expect(200)?;
            ensure!(guest.out("stat -c '%U %a' /tmp/owned; cat /tmp/owned").await? == "user 600\nnew");
            server.api().kill(&guest.id).await
        }),
        shared("agent::a_deadline_kills_the_command_even_without_its_client", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Rows 57 and 58.
            let message =
                json!({ "process": { "cmd": "/bin/sleep", "args": ["77.5"] }, "stdin": false }).to_string();
            let length = u32::try_from(message.len())?.to_be_bytes();
            let body = [&[0], length.as_slice(), message.as_bytes()].concat();
            let request = guest
                .agent(Method::POST, "/process.Process/Start")
                .header("Content-Type", "application/connect+json")
                .header("Connect-Timeout-Ms", "1000")
                .body(body);
            // Dropped as soon as the head of the answer is here.
            drop(request.send().await?);
            ensure!(processes(&guest).await? == 1, "it did not start");
            let gone = sandbar_e2e::until("end of the command", Duration::from_secs(5), async || {
                Ok((processes(&guest).await? == 0).then_some(()))
            });
            gone.await?;
            server.api().kill(&guest.id).await
        }),
        shared("agent::an_answer_is_whole_although_the_question_ends_late", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Row 4, as Python clients since 2.35 send it: in chunks, and the last of them on its own.
            for pause in [0, 20, 500].map(Duration::from_millis) {
                let (send, receive) = futures::channel::mpsc::unbounded::<Result<Vec<u8>, std::io::Error>>();
                let command =
                    json!({ "process": { "cmd": "/usr/bin/seq", "args": ["200000"] }, "stdin": false });
                send.unbounded_send(Ok(envelope(&command)?))?;
                let request = guest
                    .agent(Method::POST, "/process.Process/Start")
                    .header("Content-Type", "application/connect+json")
                    .body(reqwest::Body::wrap_stream(receive));
                let late = async {
                    tokio::time::sleep(pause).await;
                    drop(send);
                };
                let (answer, ()) = tokio::join!(Answer::of(request), late);
                let answer = answer.with_context(|| format!("end after {pause:?}"))?.expect(200)?;
                ensure!(
                    answer.text.ends_with("{}") && answer.text.len() > 1_288_894,
                    "cut off after {pause:?}"
                );
            }
            server.api().kill(&guest.id).await
        }),
        shared("agent::metrics_and_environment_are_told", async |server| {
            let guest = server.api().create(json!({ "envVars": { "MINE": "1" } })).await?;
            // Rows 17 and 117.
            let metrics = Answer::of(guest.agent(Method::GET, "/metrics")).await?.expect(200)?.json()?;
            let number = |name: &str| metrics[name].as_f64().with_context(|| format!("{name} of {metrics}"));
            ensure!(number("mem_used")? <= number("mem_total")?, "{metrics}");
            ensure!((0.0..=100.0).contains(&number("cpu_used_pct")?), "{metrics}");
            for name in ["ts", "cpu_count", "mem_total_mib", "mem_used_mib", "disk_used", "disk_total"] {
                number(name)?;
            }
            let environment = Answer::of(guest.agent(Method::GET, "/envs")).await?.expect(200)?.json()?;
            ensure!(environment["MINE"] == "1", "{environment}");
            Answer::of(guest.without_token().agent(Method::GET, "/envs")).await?.expect_error(401, "")?;
            Answer::of(guest.without_token().agent(Method::GET, "/health")).await?.expect(204)?;
            server.api().kill(&guest.id).await
        }),
    ]
}

/// A message of the streaming protocol.
fn envelope(message: &Value) -> Result<Vec<u8>> {
    let message = message.to_string();
    let length = u32::try_from(message.len())?.to_be_bytes();
    Ok([&[0], length.as_slice(), message.as_bytes()].concat())
}

/// Commands that the agent knows of.
async fn processes(guest: &Guest) -> Result<usize> {
    let list: Value = guest.call("process.Process/List", json!({})).await?.expect(200)?.json()?;
    Ok(list["processes"].as_array().map_or(0, Vec::len))
}
