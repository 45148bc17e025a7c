//! What a guest can reach and use, tried from inside.

use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use nix::ifaddrs::getifaddrs;
use reqwest::Method;
use sandbar_e2e::{Answer, Guest, Server};
use serde_json::{Value, json};

use crate::suite::shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("isolation::the_internet_is_reachable_by_name", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Where the packages of the stock template come from.
            let status =
                guest.out("curl -sS -o /dev/null -w '%{http_code}' http://deb.debian.org/debian/").await?;
            ensure!(status == "200", "{status}");
            let status =
                guest.out("curl -sS -o /dev/null -w '%{http_code}' https://deb.debian.org/debian/").await?;
            ensure!(status == "200", "{status}");
            server.api().kill(&guest.id).await
        }),
        shared("isolation::the_host_is_not_reachable_at_any_of_its_addresses", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Both listen on all addresses of the host: one that is ours and one that belongs to the test.
            let listener = TcpListener::bind("0.0.0.0:0")?;
            let ports = [server.address().port(), listener.local_addr()?.port(), 22, 53];
            let mut targets = Vec::new();
            for address in host_addresses()? {
                targets.extend(ports.map(|port| (address.clone(), port)));
            }
            ensure!(!targets.is_empty(), "the host has no address");
            unreachable(&guest, &targets).await?;
            server.api().kill(&guest.id).await
        }),
        shared("isolation::private_and_special_ranges_are_not_reachable", async |server| {
            let guest = server.api().create(json!({})).await?;
            let targets: Vec<_> = [
                "169.254.169.254",
                "169.254.0.1",
                "10.0.0.1",
                "10.255.255.254",
                "172.16.0.1",
                "192.168.0.1",
                "100.64.0.1",
                "127.0.0.2",
                "0.0.0.0",
                "224.0.0.1",
                "240.0.0.1",
            ]
            .into_iter()
            .flat_map(|address| [(address.to_owned(), 80), (address.to_owned(), 53)])
            .collect();
            unreachable(&guest, &targets).await?;
            server.api().kill(&guest.id).await
        }),
        shared("isolation::the_gateway_answers_for_names_only", async |server| {
            let guest = server.api().create(json!({})).await?;
            ensure!(guest.out("getent hosts deb.debian.org | wc -l").await? != "0");
            let targets: Vec<_> = [22, 80, 443, 3000, 49983, server.address().port()]
                .into_iter()
                .map(|port| ("169.254.0.22".to_owned(), port))
                .collect();
            unreachable(&guest, &targets).await?;
            server.api().kill(&guest.id).await
        }),
        shared("isolation::sandboxes_do_not_reach_each_other", async |server| {
            let api = server.api();
            let (first, second) = (api.create(json!({})).await?, api.create(json!({})).await?);
            second.start("python3 -m http.server 8000 --bind 0.0.0.0").await?;
            ensure!(
                second
                    .out(&format!("until {}; do sleep 0.1; done; echo up", probe("127.0.0.1", 8000)))
                    .await?
                    == "up"
            );
            // Every address that the host knows a way to, in all the networks that slots may have.
            let mut targets = Vec::new();
            for address in neighbours(server)? {
                targets.extend([8000, 49983].map(|port| (address.clone(), port)));
            }
            ensure!(targets.len() >= 4, "the host has ways to fewer than two sandboxes: {targets:?}");
            unreachable(&first, &targets).await?;
            api.kill(&first.id).await?;
            api.kill(&second.id).await
        }),
        shared("isolation::user_code_cannot_use_the_control_channel", async |server| {
            let guest = server.api().create(json!({})).await?;
            for (user, address) in
                [(None, "127.0.0.1"), (Some("root"), "127.0.0.1"), (Some("root"), "169.254.0.21")]
            {
                let command = format!(
                    "curl -s -o /tmp/answer -w '%{{http_code}}' -X POST -H 'Content-Type: application/json' \
                     -d '{{\"accessToken\":\"mine\",\"envVars\":{{\"A\":\"1\"}}}}' http://{address}:49983/init"
                );
                let status = guest.run_as(user, &command).await?.stdout;
                ensure!(["401", "403", "404"].contains(&status.as_str()), "{user:?} {address}: {status}");
            }
            // The secret is nowhere that user code can look.
            let leaks =
                "cat /proc/1/environ /proc/1/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -ci secret; true";
            ensure!(guest.run_as(Some("root"), leaks).await?.stdout.trim() == "0");
            // And the token is still the old one.
            ensure!(guest.out("echo same").await? == "same");
            server.api().kill(&guest.id).await
        }),
        shared("isolation::sudo_gives_root_and_behaves_like_the_real_one", async |server| {
            let guest = server.api().create(json!({})).await?;
            ensure!(guest.out("sudo whoami").await? == "root");
            ensure!(guest.out("sudo id -u").await? == "0");
            ensure!(guest.run("sudo sh -c 'exit 42'").await?.code == 42);
            ensure!(guest.out("echo text | sudo cat").await? == "text");
            ensure!(guest.out("sudo -u user whoami").await? == "user");
            ensure!(guest.out("cd /tmp && sudo pwd").await? == "/tmp");
            ensure!(guest.out("sudo touch /root/made && sudo stat -c %U /root/made").await? == "root");
            ensure!(guest.run("touch /root/not").await?.code != 0);
            ensure!(guest.out("sudo sh -c 'sleep 0.2; echo late' & wait; echo done").await? == "late\ndone");
            ensure!(guest.run("sudo sh -c 'echo err >&2'").await?.stderr == "err\n");
            ensure!(guest.out("sudo bash -c 'kill -TERM $$'; echo $?").await? == "143");
            let apt = guest.run("sudo apt-get --version").await?;
            ensure!(apt.code == 0, "{apt:?}");
            server.api().kill(&guest.id).await
        }),
        shared("isolation::memory_has_a_limit_that_bites", async |server| {
            let (guest, detail) = with_detail(server).await?;
            let limit = detail["memoryMB"].as_u64().context("memoryMB")?;
            let total =
                guest.out("awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo").await?.parse::<u64>()?;
            ensure!(total.abs_diff(limit) <= limit / 8, "the guest sees {total} MiB of {limit}");
            let hungry = format!("python3 -c 'b = bytearray({limit} * 2 << 20); print(len(b))'");
            let eaten = guest.run(&hungry).await;
            // Either the process dies, or the whole guest does; it never gets the memory.
            if let Ok(output) = eaten {
                ensure!(output.code != 0, "{output:?}");
            }
            // Whoever shares the host goes on.
            let other = server.api().create(json!({})).await?;
            ensure!(other.out("echo fine").await? == "fine");
            server.api().kill(&other.id).await?;
            drop(server.api().delete(&format!("/sandboxes/{}", guest.id)).await?);
            Ok(())
        }),
        shared("isolation::processors_have_a_limit_that_bites", async |server| {
            let (guest, detail) = with_detail(server).await?;
            let count = detail["cpuCount"].as_u64().context("cpuCount")?;
            ensure!(guest.out("nproc").await?.parse::<u64>()? == count, "nproc");
            // The kernel enforces it: time of all processors per period, for the whole group of the sandbox.
            let group = server.traces()?.cgroups.into_iter().find_map(|group| quota(&group, &guest.id));
            let quota = group.context("a group with a limit of processor time")??;
            ensure!((quota - count as f64).abs() < 0.01, "{quota} processors instead of {count}");
            // And a guest that uses all of it still answers.
            guest.start("for i in 1 2 3 4 5 6 7 8; do (while :; do :; done) & done; wait").await?;
            let started = Instant::now();
            ensure!(guest.out("echo fine").await? == "fine");
            ensure!(started.elapsed() < Duration::from_secs(10), "no answer while it is busy");
            server.api().kill(&guest.id).await
        }),
        shared("isolation::processes_have_a_limit_that_bites", async |server| {
            let guest = server.api().create(json!({})).await?;
            // Many sleepers at once, bounded so that an unlimited guest fails the test and not the host.
            let command = "python3 -c '
import subprocess
kept = []
try:
    for _ in range(20000): kept.append(subprocess.Popen([\"sleep\", \"1000\"]))
except OSError: print(\"refused\")
finally:
    print(len(kept))
    for each in kept: each.kill()
'";
            let output = tokio::time::timeout(Duration::from_secs(80), guest.run(command)).await;
            // A guest that died of it is bounded too.
            if let Ok(Ok(output)) = output {
                let stopped = output.stdout.contains("refused") || output.code != 0;
                ensure!(stopped, "20000 processes: {output:?}");
            }
            let other = server.api().create(json!({})).await?;
            ensure!(other.out("echo fine").await? == "fine");
            server.api().kill(&other.id).await?;
            drop(server.api().delete(&format!("/sandboxes/{}", guest.id)).await?);
            Ok(())
        }),
        shared("isolation::the_disk_has_a_limit_that_bites", async |server| {
            let (guest, detail) = with_detail(server).await?;
            let limit = detail["diskSizeMB"].as_u64().context("diskSizeMB")?;
            // Allocated, not written: this must not take as long as the disk is large. In two places, because what is
            // kept in memory would end the guest instead.
            let fill = "mkdir -p /tmp/full ~/full; i=0; while fallocate -l 256M $( ((i % 2)) && echo ~ || echo /tmp)/full/$i \
                        2>/tmp/why; do i=$((i+1)); [ $i -gt 400 ] && break; done; echo $i; cat /tmp/why";
            let said = guest.out(fill).await?;
            let blocks: u64 = said.lines().next().context("a count")?.parse()?;
            ensure!(
                blocks * 256 <= limit && blocks < 400,
                "{blocks} blocks of 256 MiB on {limit} MiB: {said}"
            );
            // Full for uploads too (envd.md, row 97), and the guest still works.
            guest.run("dd if=/dev/zero of=/tmp/rest bs=1M 2>/dev/null").await?;
            let upload = guest.agent(Method::POST, "/files?path=/tmp/more");
            let upload = upload.header("Content-Type", "application/octet-stream").body(vec![7; 8 << 20]);
            Answer::of(upload).await?.expect_error(507, "")?;
            ensure!(
                guest.out("rm -rf /tmp/full ~/full /tmp/rest; echo again > /tmp/a; cat /tmp/a").await?
                    == "again"
            );
            server.api().kill(&guest.id).await
        }),
        shared("isolation::the_template_has_what_it_promises", async |server| {
            let guest = server.api().create(json!({})).await?;
            for program in
                ["bash", "git", "curl", "python3", "pip3", "node", "npm", "gcc", "make", "ip", "ps", "sudo"]
            {
                ensure!(guest.run(&format!("command -v {program}")).await?.code == 0, "{program} is missing");
            }
            ensure!(
                guest.out("python3 -m venv /tmp/venv && /tmp/venv/bin/python -c 'print(1)'").await? == "1"
            );
            ensure!(guest.out("node -e 'console.log(1+1)'").await? == "2");
            let c = "echo 'int main(){return 9;}' > /tmp/a.c && gcc -o /tmp/a.out /tmp/a.c && /tmp/a.out; echo $?";
            ensure!(guest.out(c).await? == "9");
            ensure!(guest.out("stat -c '%a' /code").await? == "777");
            ensure!(guest.out("touch /usr/local/mine && echo ok").await? == "ok");
            ensure!(guest.out("hostname && cat /etc/hosts | grep -c localhost").await?.lines().count() == 2);
            server.api().kill(&guest.id).await
        }),
        shared("isolation::what_one_sandbox_writes_no_other_sees", async |server| {
            let api = server.api();
            let (first, second) = (api.create(json!({})).await?, api.create(json!({})).await?);
            first.run_as(Some("root"), "echo mine > /etc/mark; rm -rf /usr/bin/git").await?;
            ensure!(second.run("cat /etc/mark").await?.code != 0);
            ensure!(second.run("git --version").await?.code == 0);
            api.kill(&first.id).await?;
            api.kill(&second.id).await
        }),
    ]
}

async fn with_detail(server: &Server) -> Result<(Guest, Value)> {
    let guest = server.api().create(json!({})).await?;
    let detail = server.api().get(&format!("/sandboxes/{}", guest.id)).await?.expect(200)?.json()?;
    Ok((guest, detail))
}

/// The processors that a sandbox's own group may keep busy, if this is that group and limits them.
fn quota(group: &Path, sandbox: &str) -> Option<Result<f64>> {
    let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
    let parts = match read("cpu.max") {
        Some(max) => max,
        None => format!("{} {}", read("cpu.cfs_quota_us")?.trim(), read("cpu.cfs_period_us")?.trim()),
    };
    if !group.ends_with(sandbox) || parts.starts_with("max") || parts.starts_with('-') {
        return None;
    }
    let (quota, period) = parts.trim().split_once(' ')?;
    Some(quota.parse::<f64>().and_then(|quota| Ok(quota / period.parse::<f64>()?)).map_err(Into::into))
}

/// A shell condition that is true when the port accepts a connection.
fn probe(address: &str, port: u16) -> String {
    format!("timeout 2 bash -c 'echo > /dev/tcp/{address}/{port}' 2>/dev/null")
}

/// Tries all targets at once; none may accept a connection.
async fn unreachable(guest: &Guest, targets: &[(String, u16)]) -> Result<()> {
    let mut script = String::new();
    for (address, port) in targets {
        script += &format!("({} && echo {address}:{port}) &\n", probe(address, *port));
    }
    let reached = guest.out(&format!("{script}wait")).await?;
    ensure!(reached.is_empty(), "reached:\n{reached}");
    Ok(())
}

/// IPv4 addresses of the host's own links. Loopback means the guest inside, and link-local the guest's own link.
fn host_addresses() -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    for link in getifaddrs()? {
        let Some(address) = link.address.as_ref().and_then(|address| address.as_sockaddr_in()) else {
            continue;
        };
        if !address.ip().is_loopback() && !address.ip().is_link_local() {
            addresses.push(IpAddr::V4(address.ip()).to_string());
        }
    }
    Ok(addresses)
}

/// Addresses behind the links of this instance, from the host's routing table.
fn neighbours(server: &Server) -> Result<Vec<String>> {
    let prefix = format!("sb{}-", server.instance());
    let table = std::fs::read_to_string("/proc/net/route")?;
    let mut addresses = Vec::new();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        let &[link, destination, _, _, _, _, _, mask, ..] = fields.as_slice() else {
            continue;
        };
        if !link.starts_with(&prefix) {
            continue;
        }
        // In the byte order of the machine.
        let network = u32::from_str_radix(destination, 16)?.swap_bytes();
        let size = (!u32::from_str_radix(mask, 16)?.swap_bytes()).min(15);
        addresses.extend((0..=size).map(|offset| std::net::Ipv4Addr::from(network + offset).to_string()));
    }
    Ok(addresses)
}
