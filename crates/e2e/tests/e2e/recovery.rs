//! What a server leaves, finds again, and takes along. Each of these tests has servers of its own.

use std::collections::HashSet;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sandbar_e2e::{Server, Traces, until};
use serde_json::json;

use crate::suite::{own, own_with};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        own("recovery::sandboxes_outlive_a_crash_and_are_adopted", async |server| {
            let api = server.api();
            let guest = api.create(json!({ "metadata": { "kept": "yes" }, "envVars": { "A": "1" } })).await?;
            let short = api.create(json!({ "timeout": 600 })).await?;
            guest.out("echo before > /tmp/file").await?;
            let pid = guest.start("until [ -e /tmp/go ]; do sleep 0.05; done; echo late; exit 4").await?;
            let detail = api.get(&format!("/sandboxes/{}", guest.id)).await?.json()?;
            api.post(&format!("/sandboxes/{}/timeout", short.id), json!({ "timeout": 2 }))
                .await?
                .expect(204)?;
            server.crash_and_restart(|server| {
                ensure!(!server.traces()?.processes.is_empty(), "the sandboxes ended with the server");
                Ok(())
            })?;

            // The port may be another one; ids, tokens and keys are the same.
            let api = server.api();
            let again = api
                .post(&format!("/v2/sandboxes/{}/connect", guest.id), json!({}))
                .await?
                .expect(200)?
                .parse()?;
            let after = api.guest(&again);
            ensure!(after.token == guest.token, "another token");
            let now = api.get(&format!("/sandboxes/{}", guest.id)).await?.json()?;
            for member in ["startedAt", "metadata", "templateID", "state", "cpuCount", "memoryMB"] {
                ensure!(now[member] == detail[member], "{member}: {} became {}", detail[member], now[member]);
            }
            ensure!(after.out("cat /tmp/file; echo $A").await? == "before\n1");
            // The command from before can be joined, and its end is heard.
            let (end, touched) = tokio::join!(after.connect(pid), async {
                tokio::time::sleep(Duration::from_millis(300)).await;
                after.out("touch /tmp/go").await
            });
            touched?;
            let end = end?;
            ensure!((end.stdout.as_str(), end.code) == ("late\n", 4), "{end:?}");
            // Expiry that fell into the time without a server, or comes now, is honoured.
            until("expiry of the other sandbox", Duration::from_secs(5), async || {
                Ok((api.get(&format!("/sandboxes/{}", short.id)).await?.status == 404).then_some(()))
            })
            .await?;
            // New ones do not collide with what was adopted.
            let next = api.create(json!({})).await?;
            ensure!(next.out("echo new").await? == "new" && next.id != guest.id);
            api.kill(&next.id).await?;
            api.kill(&guest.id).await?;
            ensure!(api.get("/v2/sandboxes").await?.json()? == json!([]), "something is left");
            Ok(())
        }),
        own("recovery::after_all_processes_have_gone_the_state_is_clean", async |server| {
            // As after a reboot: the records are there, the processes are not.
            let api = server.api();
            let ids = [api.create(json!({})).await?.id, api.create(json!({})).await?.id];
            server.crash_and_restart(|server| {
                for process in server.traces()?.processes {
                    let pid = process.split(' ').next().context("a pid")?.parse()?;
                    // Some end with their parents.
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                Ok(())
            })?;
            let api = server.api();
            until("a list without what has gone", Duration::from_secs(10), async || {
                Ok((api.get("/v2/sandboxes").await?.expect(200)?.json()? == json!([])).then_some(()))
            })
            .await?;
            for id in ids {
                api.get(&format!("/sandboxes/{id}")).await?.expect_error(404, "")?;
            }
            let guest = api.create(json!({})).await?;
            ensure!(guest.out("echo new").await? == "new");
            api.kill(&guest.id).await
        }),
        own("recovery::a_crash_during_a_start_leaves_nothing_half_done", async |server| {
            let api = server.api();
            let mut creates = Vec::new();
            for _ in 0..3 {
                let api = api.clone();
                creates.push(tokio::spawn(async move { api.create(json!({ "timeout": 300 })).await }));
            }
            tokio::time::sleep(Duration::from_millis(80)).await;
            server.crash_and_restart(|_| Ok(()))?;
            for create in creates {
                // Nobody got an answer, or a good one.
                drop(create.await?);
            }
            let api = server.api();
            // Whatever is listed works; whatever does not is gone.
            let list = api.get("/v2/sandboxes").await?.expect(200)?.json()?;
            for entry in list.as_array().context("a list")? {
                let id = entry["sandboxID"].as_str().context("an id")?;
                let answer =
                    api.post(&format!("/v2/sandboxes/{id}/connect"), json!({})).await?.expect(200)?;
                ensure!(api.guest(&answer.parse()?).out("echo works").await? == "works");
                api.kill(id).await?;
            }
            Ok(())
        }),
        own("recovery::an_orderly_end_and_a_new_start_keep_keys_and_names", async |server| {
            let (key, bundle) = (server.api_key().to_owned(), fs::read(server.ca())?);
            let gone = server.api().create(json!({})).await?.id;
            server.restart()?;
            ensure!(fs::read(server.ca())? == bundle, "another authority");
            let api = server.api();
            ensure!(fs::read_to_string(server.data_dir().join("api-key"))?.trim() == key, "another key");
            let guest = api.create(json!({})).await?;
            ensure!(guest.out("echo new").await? == "new");
            api.kill(&guest.id).await?;
            // Killed with the server or kept over it: a list never shows what cannot be reached.
            if api.get(&format!("/sandboxes/{gone}")).await?.status == 200 {
                api.kill(&gone).await?;
            }
            Ok(())
        }),
        own("recovery::two_servers_side_by_side_do_not_touch_each_other", async |server| {
            let other = Server::start()?;
            ensure!(other.instance() != server.instance(), "the same instance id");
            let (here, there) = (server.api().create(json!({})).await?, other.api().create(json!({})).await?);
            server
                .api()
                .with_key(other.api_key())
                .get("/v2/sandboxes")
                .await?
                .expect_error(401, "Invalid API key")?;
            ensure!(server.api().get(&format!("/sandboxes/{}", there.id)).await?.status == 404);
            other.stop()?;
            ensure!(here.out("echo still here").await? == "still here");
            server.api().kill(&here.id).await
        }),
        own("recovery::a_failed_test_leaves_nothing_to_the_next", async |_| {
            // The harness's own broom: tests rely on it after one of them has failed.
            let other = Server::start()?;
            other.api().create(json!({})).await?;
            let (instance, data) = (other.instance().to_owned(), other.data_dir().to_owned());
            kill(other.pid(), Signal::SIGKILL)?;
            drop(other);
            let traces = Traces::find(&instance, &data)?;
            ensure!(traces.is_empty(), "{traces:#?}");
            Ok(())
        }),
        own("recovery::files_of_the_server_are_nobody_elses", async |server| {
            use std::os::unix::fs::PermissionsExt;
            let mode = |name: &str| {
                anyhow::Ok(fs::metadata(server.data_dir().join(name))?.permissions().mode() & 0o777)
            };
            ensure!(mode("api-key")? == 0o600, "api-key has mode {:o}", mode("api-key")?);
            for secret in fs::read_dir(server.data_dir().join("tls"))? {
                let name = secret?.file_name().to_string_lossy().into_owned();
                if name.contains("key") {
                    let mode = mode(&format!("tls/{name}"))?;
                    ensure!(mode == 0o600, "tls/{name} has mode {mode:o}");
                }
            }
            let key = server.api_key();
            ensure!(key.len() == 44 && key.starts_with("e2b_"), "{key}");
            ensure!(
                key[4..].bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)),
                "{key}"
            );
            Ok(())
        }),
        own_with(
            "recovery::a_hundred_creates_and_kills_leave_the_host_as_before",
            FEW_SPARES,
            async |server| {
                // The first few fill pools and caches.
                create_and_kill(server, 4).await?;
                let before = Held::by(server)?;
                create_and_kill(server, 100).await?;
                until("the host as before", Duration::from_secs(15), async || {
                    Ok(Held::by(server)?.is_no_more_than(&before).then_some(()))
                })
                .await
                .with_context(|| format!("{before:?} became {:?}", Held::by(server)))
            },
        ),
    ]
}

/// Networks made ahead are one or two then, and not any number from eight to sixteen.
const FEW_SPARES: &str = "[limits]\nnetworks_ready = 1\n";

/// What a server holds when it is idle.
#[derive(Debug)]
struct Held {
    traces: Traces,
    files: usize,
    resident_kib: u64,
}

impl Held {
    fn by(server: &Server) -> Result<Self> {
        let process = format!("/proc/{}", server.pid());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        Ok(Self {
            traces: server.traces()?,
            files: fs::read_dir(format!("{process}/fd"))?.count(),
            resident_kib: resident.trim().trim_end_matches(" kB").parse()?,
        })
    }
}

impl Held {
    /// Whether nothing has grown: but for one network more or less, and memory that an allocator keeps.
    fn is_no_more_than(&self, before: &Self) -> bool {
        let [mut most, now] = [before.traces.counts(), self.traces.counts()];
        most[0] += 2;
        most[1] += 1;
        now.iter().zip(most).all(|(now, most)| *now <= most)
            && self.files <= before.files + 2
            && self.resident_kib <= before.resident_kib + 16 * 1024
    }
}

/// Two at a time, each used once.
async fn create_and_kill(server: &Server, count: usize) -> Result<()> {
    let api = server.api();
    let mut seen = HashSet::new();
    for _ in 0..count / 2 {
        let one = async || {
            let guest = api.create(json!({})).await?;
            ensure!(guest.out("echo $E2B_SANDBOX_ID").await? == guest.id);
            api.kill(&guest.id).await?;
            Ok(guest.id)
        };
        let (first, second) = tokio::join!(one(), one());
        ensure!(seen.insert(first?) && seen.insert(second?), "an id was used twice");
    }
    Ok(())
}
