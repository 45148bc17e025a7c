//! Prints what a guest costs, beside what it costs when `runsc` is called by hand. Not a check:
//! `cargo test -p sandbar-engine --release --test conformance -- --ignored --nocapture measure::figures`

use std::fs;
use std::io::Read;
use std::num::NonZeroU32;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use camino::Utf8Path;
use sandbar_engine::BootSpec;

use crate::gvisor::{GvisorStage, config, open};
use crate::suite::Stage;

const ROUNDS: usize = 15;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn figures() {
    let Some(stage) = open().await else { return };
    let mut rows: [Vec<Duration>; 4] = Default::default();
    let mut memory = Vec::new();
    for _ in 0..ROUNDS {
        rows[0].push(raw(&stage).await);
        let (first_byte, booted, stopped, resident) = ours(&stage).await;
        rows[1].push(first_byte);
        rows[2].push(booted);
        rows[3].push(stopped);
        memory.push(resident);
    }
    let middle = rows.map(|mut row| {
        row.sort();
        row[ROUNDS / 2]
    });
    memory.sort_unstable();
    println!("median of {ROUNDS}");
    println!("runsc run by hand, to first byte  {:?}", middle[0]);
    println!(
        "boot(), to first byte             {:?}, ratio {:.2}",
        middle[1],
        middle[1].as_secs_f64() / middle[0].as_secs_f64()
    );
    println!("boot(), to its return             {:?}", middle[2]);
    println!("stop()                            {:?}", middle[3]);
    println!("memory of an idle guest           {} KiB", memory[ROUNDS / 2] / 1024);
}

/// To the first byte, to the return of `boot`, and for `stop`; and bytes of memory.
async fn ours(stage: &GvisorStage) -> (Duration, Duration, Duration, u64) {
    let mut spec = stage.spec();
    spec.resources.vcpus = NonZeroU32::new(2).unwrap();
    let console = spec.scratch.join("console.log");
    let began = Instant::now();
    let watch = tokio::task::spawn_blocking(move || {
        while fs::metadata(&console).map_or(0, |file| file.len()) == 0 {
            std::thread::sleep(Duration::from_micros(500));
        }
        began.elapsed()
    });
    let guest = stage.engine().boot(spec.clone()).await.unwrap();
    let booted = began.elapsed();
    let first_byte = watch.await.unwrap();
    assert!(stage.answers(&spec).await);
    let memory = guest.usage().await.unwrap().memory_bytes;
    let began = Instant::now();
    guest.stop(Duration::ZERO).await.unwrap();
    (first_byte, booted, began.elapsed(), memory)
}

/// To the first byte of the same program, with the same limits and network, without us.
async fn raw(stage: &GvisorStage) -> Duration {
    let mut spec = stage.spec();
    spec.resources.vcpus = NonZeroU32::new(2).unwrap();
    // What the engine writes is what is measured, but for names.
    let guest = stage.engine().boot(spec.clone()).await.unwrap();
    let bundle = fs::read_to_string(spec.dir.join("config.json")).unwrap();
    guest.stop(Duration::ZERO).await.unwrap();
    let again = stage.spec();
    fs::create_dir_all(&again.dir).unwrap();
    let bundle = bundle.replace(spec.lease.guest_netns.as_str(), again.lease.guest_netns.as_str());
    let bundle = bundle.replace(&format!("/{}\"", spec.id), &format!("/{}\"", again.id));
    fs::write(again.dir.join("config.json"), bundle).unwrap();
    let record = stage.engine().plan(&again);
    let took = tokio::task::spawn_blocking(move || run(&again)).await.unwrap();
    stage.engine().remove(&record).await.unwrap();
    took
}

fn run(spec: &BootSpec) -> Duration {
    let runsc = config("0000".parse().unwrap()).runsc;
    let runsc = runsc.iter().find(|path| path.is_file()).expect("an absolute path");
    let began = Instant::now();
    let mut child = Command::new("nsenter")
        .arg(format!("--net={}", spec.lease.guest_netns))
        .args(["unshare", "-m", "sh", "-c", "mount -t tmpfs none /proc/sys/net/core && exec \"$@\"", "sh"])
        .arg(runsc)
        .arg(format!("--root={}", spec.dir.join("runsc")))
        .arg(format!("--overlay2=root:dir={}", spec.scratch))
        .args(["run", "-bundle", spec.dir.as_str(), spec.id.as_str()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = [0];
    child.stdout.take().unwrap().read_exact(&mut byte).unwrap();
    let took = began.elapsed();
    end(&spec.dir);
    child.wait().unwrap();
    took
}

/// Ends what runs below a directory; `runsc run` ends with it.
fn end(dir: &Utf8Path) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        if line.starts_with("runsc-sandbox") && line.contains(dir.as_str()) {
            let pid = entry.file_name().to_str().unwrap().parse().unwrap();
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        }
    }
}
