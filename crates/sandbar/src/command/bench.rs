//! `sandbar bench`: what things cost on this host, as ratios to `runsc` alone in the same run.
//!
//! It starts a server of its own in a temporary directory, so that nothing else is disturbed and nothing is
//! left. Ours and raw take turns, so that a noisy host is noisy for both.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use camino::{Utf8Path, Utf8PathBuf};
use clap::Args;
use futures::future::join_all;
use reqwest::Method;
use sandbar_artifacts::{LayerStore, Roots};
use sandbar_model::InstanceId;
use serde::Serialize;
use serde_json::{Value, json};

use crate::bench::raw::{RawGuest, RawHost, resident_bytes};
use crate::bench::samples::{Samples, Summary};
use crate::client::{Access, Client};
use crate::output::{self, Format, note};
use crate::process::{self, Command};
use crate::server::{self, Server};
use crate::settings::{DataDir, ServeFlags, Settings};
use crate::signals::Signals;

/// Measure what create, run and file transfers cost here, against raw runsc.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    data: DataDir,
    /// Directory of layers; below the data directory by default.
    #[arg(long, env = "SANDBAR_ARTIFACTS_DIR")]
    artifacts_dir: Option<Utf8PathBuf>,
    /// How often each thing is done.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// How results are shown: a table on a terminal, JSON otherwise.
    #[arg(long, value_enum)]
    output: Option<Format>,
}

/// One line of the result.
#[derive(Debug, Serialize)]
struct Row {
    what: &'static str,
    ours: Figure,
    raw: Option<Figure>,
    /// Ours as a multiple of raw: of medians where there are any.
    ratio: Option<f64>,
    /// What is promised, for people.
    promise: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
enum Figure {
    Times(Summary),
    Value { value: f64, unit: &'static str },
    Text(String),
}

/// Moved in one file transfer.
const FILE_MIB: usize = 100;

/// Started at the same moment.
const AT_ONCE: usize = 20;

impl BenchArgs {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        server::start_logging("warn");
        let artifacts = self.artifacts_dir.clone().unwrap_or_else(|| self.data.data_dir.join("artifacts"));
        let scratch = Temporary::make()?;
        let flags = ServeFlags {
            listen: vec!["127.0.0.1:0".parse().expect("a valid address")],
            artifacts_dir: Some(artifacts.clone()),
            ..ServeFlags::default()
        };
        let mut settings = Settings::read(&scratch.0.join("server"), flags)?;
        settings.runsc_dir = self.data.data_dir.join("bin");
        let mut signals = Signals::listen()?;
        let server = Server::start(settings, &mut signals).await?;
        let rows = tokio::select! {
            rows = measure(&server, &artifacts, &scratch.0, self.rounds) => rows,
            signal = signals.next() => Err(anyhow::anyhow!("{signal} received; raw guests may be left")),
        };
        server.stop().await?;
        match Format::choose(self.output) {
            Format::Json => output::json(&rows?)?,
            Format::Table => show(&rows?)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A directory that goes away with its owner.
struct Temporary(Utf8PathBuf);

impl Temporary {
    fn make() -> anyhow::Result<Self> {
        // Not on a memory file system, where /tmp may lie: files of sandboxes belong on a disk.
        let dir = Utf8PathBuf::from(format!("/var/tmp/sandbar-bench-{}", std::process::id()));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {dir}"))?;
        Ok(Self(dir))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Left behind at worst: a directory with our name and pid in a place for temporary things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn measure(
    server: &Server,
    artifacts: &Utf8Path,
    scratch: &Utf8Path,
    rounds: u32,
) -> anyhow::Result<Vec<Row>> {
    let client = Client::new(server.ready().url()?, server.api_key()?)?;
    let store = LayerStore::open(artifacts)?;
    let roots = Roots::open(&scratch.join("raw"), store)?;
    let holder = "raw".parse().expect("a valid id");
    let root = roots.hold(&holder, server.base_layers()).await?;
    let networks = sandbar_net::open(
        sandbar_net::Config {
            instance: InstanceId::from_random(rand::random()),
            data_dir: scratch.join("raw"),
            runtime_dir: server::RUNTIME_DIR.into(),
            slots_ready_min: 2,
            slots_ready_max: 4,
            slots_max: 100,
            nameservers: Vec::new(),
        },
        Vec::new(),
    )
    .await?;
    let networks = Arc::new(networks);
    let raw = RawHost::new(find_runsc(server)?, root, scratch.join("raw"), networks);
    let rows = Bench { client, raw: raw.clone(), server, rounds }.rows().await;
    raw.remove_cgroups();
    roots.release(&holder).await?;
    let RawHost { networks, .. } = raw;
    match Arc::try_unwrap(networks) {
        Ok(networks) => networks.close().await,
        Err(_) => note("networks of raw guests are still in use"),
    }
    rows
}

/// The `runsc` that the server uses.
fn find_runsc(server: &Server) -> anyhow::Result<Utf8PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs: Vec<&Utf8Path> = path.split(':').map(Utf8Path::new).collect();
    server::runsc_candidates(&server.settings().runsc_dir)
        .into_iter()
        // A bare name is looked for on PATH; joining leaves an absolute one as it is.
        .flat_map(|candidate| dirs.iter().map(move |dir| dir.join(&candidate)).collect::<Vec<_>>())
        .find(|candidate| candidate.is_file())
        .context("there is no runsc")
}

struct Bench<'a> {
    client: Client,
    raw: RawHost,
    server: &'a Server,
    rounds: u32,
}

impl Bench<'_> {
    async fn rows(&self) -> anyhow::Result<Vec<Row>> {
        // The first of each pays for what later ones find ready: page cache, pools, connections.
        let warm = self.create().await?;
        self.kill(&warm).await?;
        self.raw.run(self.raw.lease().await?).await?.delete().await;

        let mut rows = self.creates().await?;
        let sandbox = self.create().await?;
        let guest = self.raw.run(self.raw.lease().await?).await?;
        rows.push(self.memory(&sandbox, &guest)?);
        rows.extend(self.commands(&sandbox, &guest).await?);
        rows.extend(self.files(&sandbox, &guest).await?);
        self.kill(&sandbox).await?;
        guest.delete().await;
        rows.push(self.at_once().await?);
        Ok(rows)
    }

    async fn create(&self) -> anyhow::Result<Access> {
        let body = json!({ "templateID": "base", "timeout": 600 });
        let created: Value = self.client.call(Method::POST, "/v2/sandboxes", Some(&body)).await?;
        Ok(Access::of(&created))
    }

    async fn kill(&self, sandbox: &Access) -> anyhow::Result<()> {
        self.client.command(Method::DELETE, &format!("/sandboxes/{}", sandbox.id), None).await
    }

    async fn run(&self, sandbox: &Access, line: &str) -> anyhow::Result<Vec<u8>> {
        let mut process = process::start(&self.client, sandbox, Command::shell(line)).await?;
        let mut said = Vec::new();
        while let Some(event) = process.next().await? {
            said.extend(event.data.and_then(|data| data.stdout).unwrap_or_default());
            if let Some(end) = event.end
                && end.exit_code != 0
            {
                bail!("{line}: {}", end.status);
            }
        }
        Ok(said)
    }

    /// Create until the API answers, and until the first command's result.
    async fn creates(&self) -> anyhow::Result<Vec<Row>> {
        note("measuring create");
        let [mut answer, mut first, mut raw_answer, mut raw_first] =
            [const { None::<Samples> }; 4].map(Option::unwrap_or_default);
        for _ in 0..self.rounds {
            let began = Instant::now();
            let sandbox = self.create().await?;
            answer.add(began.elapsed());
            self.run(&sandbox, "true").await?;
            first.add(began.elapsed());
            self.kill(&sandbox).await?;

            let lease = self.raw.lease().await?;
            let began = Instant::now();
            let guest = self.raw.run(lease).await?;
            raw_answer.add(began.elapsed());
            guest.exec(&["/bin/bash", "-l", "-c", "true"], b"").await?;
            raw_first.add(began.elapsed());
            guest.delete().await;
        }
        Ok(vec![
            times("create until the API answers (K3)", &answer, &raw_answer, "≤ 1.3 × raw"),
            times("create until the first command's result (K4)", &first, &raw_first, ""),
        ])
    }

    /// The round trip of a command, and what of it is not the process itself.
    async fn commands(&self, sandbox: &Access, guest: &RawGuest) -> anyhow::Result<Vec<Row>> {
        note("measuring commands");
        let [mut ours, mut raw] = [Samples::default(), Samples::default()];
        for _ in 0..self.rounds {
            let began = Instant::now();
            self.run(sandbox, "true").await?;
            ours.add(began.elapsed());
            let began = Instant::now();
            guest.exec(&["/bin/bash", "-l", "-c", "true"], b"").await?;
            raw.add(began.elapsed());
        }
        let inside = self.run(sandbox, PROCESS_ITSELF).await?;
        let inside =
            String::from_utf8_lossy(&inside).trim().parse::<f64>().context("time of a process inside")?;
        let round_trip = ours.summary().context("no rounds")?.median_ms;
        Ok(vec![
            times("commands.run('true') round trip", &ours, &raw, ""),
            Row {
                what: "of that, beside the process itself",
                ours: Figure::Value { value: round_trip - inside, unit: "ms" },
                raw: Some(Figure::Value { value: inside, unit: "ms inside" }),
                ratio: None,
                promise: "≤ 5 ms",
            },
        ])
    }

    async fn files(&self, sandbox: &Access, guest: &RawGuest) -> anyhow::Result<Vec<Row>> {
        note("measuring files");
        let content = vec![0x5a_u8; FILE_MIB * 1024 * 1024];
        let path = "/files?path=/tmp/bench";
        let [mut up, mut down, mut raw_up, mut raw_down] =
            [const { None::<Samples> }; 4].map(Option::unwrap_or_default);
        for _ in 0..self.rounds.clamp(1, 5) {
            let began = Instant::now();
            let request = self.client.sandbox_request(Method::POST, sandbox, path);
            let request = request.header("content-type", "application/octet-stream").body(content.clone());
            crate::client::success(request.send().await?).await?;
            up.add(began.elapsed());

            let began = Instant::now();
            let request = self.client.sandbox_request(Method::GET, sandbox, path);
            let got = crate::client::success(request.send().await?).await?.bytes().await?;
            down.add(began.elapsed());
            anyhow::ensure!(got.len() == content.len(), "got {} bytes back", got.len());

            let began = Instant::now();
            guest.exec(&["/bin/sh", "-c", "cat > /tmp/bench"], &content).await?;
            raw_up.add(began.elapsed());
            let began = Instant::now();
            guest.exec(&["/bin/cat", "/tmp/bench"], b"").await?;
            raw_down.add(began.elapsed());
        }
        Ok(vec![speed("100 MiB file up", &up, &raw_up), speed("100 MiB file down", &down, &raw_down)])
    }

    fn memory(&self, sandbox: &Access, guest: &RawGuest) -> anyhow::Result<Row> {
        let mib = |bytes: u64| bytes as f64 / 1024.0 / 1024.0;
        let ours = mib(resident_bytes(&format!("sandbar-{}/{}", self.server.instance(), sandbox.id))?);
        let raw = mib(resident_bytes(&guest.cgroup())?);
        Ok(Row {
            what: "resident memory of an idle sandbox",
            ours: Figure::Value { value: ours, unit: "MiB" },
            raw: Some(Figure::Value { value: raw, unit: "MiB" }),
            ratio: Some(ours / raw),
            promise: "",
        })
    }

    async fn at_once(&self) -> anyhow::Result<Row> {
        note("measuring creates at once");
        let began = Instant::now();
        let created = join_all((0..AT_ONCE).map(|_| self.create())).await;
        let took = began.elapsed();
        let sandboxes: Vec<Access> = created.into_iter().filter_map(Result::ok).collect();
        for sandbox in &sandboxes {
            self.kill(sandbox).await?;
        }
        let mut leases = Vec::new();
        for _ in 0..AT_ONCE {
            leases.push(self.raw.lease().await?);
        }
        let began = Instant::now();
        let guests = join_all(leases.into_iter().map(|lease| self.raw.run(lease))).await;
        let raw_took = began.elapsed();
        let guests: Vec<RawGuest> = guests.into_iter().filter_map(Result::ok).collect();
        let raw_count = guests.len();
        join_all(guests.into_iter().map(RawGuest::delete)).await;
        let text = |count: usize, took: Duration| {
            Figure::Text(format!("{count} of {AT_ONCE} in {:.2} s", took.as_secs_f64()))
        };
        Ok(Row {
            what: "20 creates at once",
            ours: text(sandboxes.len(), took),
            raw: Some(text(raw_count, raw_took)),
            ratio: Some(took.as_secs_f64() / raw_took.as_secs_f64()),
            promise: "20 of 20",
        })
    }
}

/// Prints the milliseconds that the process of `commands.run('true')` takes when started inside, at the rhythm of
/// our own rounds: a guest that was idle for a moment takes twice as long as one that is kept busy.
const PROCESS_ITSELF: &str = "python3 -c \"
import subprocess, time
took = []
for _ in range(20):
    time.sleep(0.05)
    began = time.perf_counter()
    subprocess.run(['/bin/bash', '-l', '-c', 'true'])
    took.append(time.perf_counter() - began)
print(sorted(took)[10] * 1000)
\"";

fn times(what: &'static str, ours: &Samples, raw: &Samples, promise: &'static str) -> Row {
    let (ours, raw) = (ours.summary(), raw.summary());
    let ratio = ours.zip(raw).map(|(ours, raw)| ours.median_ms / raw.median_ms);
    let figure = |summary: Option<Summary>| summary.map(Figure::Times);
    Row { what, ours: figure(ours).unwrap_or(Figure::Text(String::new())), raw: figure(raw), ratio, promise }
}

fn speed(what: &'static str, ours: &Samples, raw: &Samples) -> Row {
    let speed = |samples: &Samples| {
        samples.summary().map_or(0.0, |summary| FILE_MIB as f64 / (summary.median_ms / 1000.0))
    };
    let (ours, raw) = (speed(ours), speed(raw));
    Row {
        what,
        ours: Figure::Value { value: ours, unit: "MiB/s" },
        raw: Some(Figure::Value { value: raw, unit: "MiB/s" }),
        ratio: Some(ours / raw),
        promise: "≥ 300 MiB/s",
    }
}

fn show(rows: &[Row]) -> std::io::Result<()> {
    let figure = |figure: &Figure| match figure {
        Figure::Times(times) => {
            format!("{:.1} / {:.1} / {:.1} ms", times.median_ms, times.p95_ms, times.p99_ms)
        }
        Figure::Value { value, unit } => format!("{value:.1} {unit}"),
        Figure::Text(text) => text.clone(),
    };
    let rows: Vec<[String; 5]> = rows
        .iter()
        .map(|row| {
            [
                row.what.to_owned(),
                figure(&row.ours),
                row.raw.as_ref().map(figure).unwrap_or_default(),
                row.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
                row.promise.to_owned(),
            ]
        })
        .collect();
    output::table(["WHAT", "OURS (median / p95 / p99)", "RAW RUNSC", "RATIO", "PROMISE"], &rows)
}
