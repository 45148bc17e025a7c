//! Need root: loop devices and mounts are real.

use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::{Mib, SandboxId};
use tempfile::TempDir;

use super::{ScratchDisks, ScratchError, ScratchSettings};
use crate::mounts;

const SIZE: Mib = Mib(64);

struct Host {
    dir: TempDir,
    disks: ScratchDisks,
}

impl Host {
    fn new(ready_min: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disks = open(dir.path().to_str().unwrap().into(), ready_min);
        Self { dir, disks }
    }

    fn data_dir(&self) -> &Utf8Path {
        self.dir.path().to_str().unwrap().into()
    }

    /// Every mount below the data directory, and every loop device with an image in it.
    fn traces(&self) -> Vec<String> {
        let mut traces: Vec<_> =
            mounts::below(self.data_dir()).unwrap().into_iter().map(Utf8PathBuf::into_string).collect();
        for device in fs::read_dir("/sys/block").unwrap() {
            let backing = fs::read_to_string(device.unwrap().path().join("loop/backing_file"));
            traces.extend(backing.ok().filter(|image| image.starts_with(self.data_dir().as_str())));
        }
        traces
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Also after a failure: the directory cannot be removed while anything is mounted in it.
        for path in mounts::below(self.data_dir()).unwrap_or_default().iter().rev() {
            let _ = mounts::detach(path);
        }
    }
}

fn open(data_dir: &Utf8Path, ready_min: usize) -> ScratchDisks {
    ScratchDisks::open(data_dir, ScratchSettings { size: SIZE, ready_min }).unwrap()
}

fn id(text: &str) -> SandboxId {
    text.parse().unwrap()
}

fn fill(dir: &Utf8Path) -> (u64, std::io::Error) {
    let mut file = fs::File::create(dir.join("big")).unwrap();
    let mut written = 0;
    loop {
        match file.write(&[1; 1 << 20]) {
            Ok(bytes) => written += bytes as u64,
            Err(error) => return (written, error),
        }
    }
}

#[tokio::test]
async fn as_root_a_disk_holds_its_size_and_no_byte_more() {
    let host = Host::new(0);
    let path = host.disks.claim(&id("a"), SIZE).await.unwrap();
    let (written, error) = fill(&path);
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert!(written <= SIZE.bytes() && written > SIZE.bytes() * 95 / 100, "{written} bytes fit");
    host.disks.remove(&id("a")).await.unwrap();
    host.disks.close().await.unwrap();
    assert_eq!(host.traces(), [""; 0]);
}

#[tokio::test]
async fn as_root_a_disk_that_is_ready_is_as_good_as_one_of_another_size() {
    let host = Host::new(2);
    let ready = host.disks.claim(&id("a"), SIZE).await.unwrap();
    let made = host.disks.claim(&id("b"), Mib(32)).await.unwrap();
    let size = |path: &Utf8Path| rustix::fs::statvfs(path.as_str()).unwrap();
    assert!(size(&made).f_blocks < size(&ready).f_blocks);
    assert!(matches!(host.disks.claim(&id("a"), SIZE).await, Err(ScratchError::Exists(_))));
    assert_eq!(host.disks.find(&id("a")).await.unwrap(), Some(ready));
    assert_eq!(host.disks.find(&id("c")).await.unwrap(), None);
}

#[tokio::test]
async fn as_root_a_hundred_disks_leave_nothing() {
    let host = Host::new(3);
    for round in 0..100 {
        let id = id(&format!("s{round}"));
        let path = host.disks.claim(&id, SIZE).await.unwrap();
        fs::write(path.join("file"), [1; 100_000]).unwrap();
        host.disks.remove(&id).await.unwrap();
        host.disks.remove(&id).await.unwrap();
        assert_eq!(host.disks.find(&id).await.unwrap(), None);
    }
    host.disks.close().await.unwrap();
    assert_eq!(host.traces(), [""; 0]);
    let left: Vec<_> = host.data_dir().join("scratch").read_dir_utf8().unwrap().collect();
    assert_eq!(left.len(), 1, "more than the template is left: {left:?}");
}

#[tokio::test]
async fn as_root_twenty_disks_at_once_get_a_device_each() {
    let host = Host::new(2);
    let ids: Vec<_> = (0..20).map(|number| id(&format!("s{number}"))).collect();
    let claims = ids.iter().map(|id| {
        let (disks, id) = (host.disks.clone(), id.clone());
        tokio::spawn(async move { disks.claim(&id, SIZE).await })
    });
    for claim in claims.collect::<Vec<_>>() {
        claim.await.unwrap().unwrap();
    }
    host.disks.sweep(&HashSet::new()).await.unwrap();
    host.disks.close().await.unwrap();
    assert_eq!(host.traces(), [""; 0]);
}

#[tokio::test]
async fn as_root_a_disk_in_use_is_removed_and_its_device_goes_with_the_last_user() {
    let host = Host::new(0);
    let path = host.disks.claim(&id("a"), SIZE).await.unwrap();
    let user = fs::File::create(path.join("open")).unwrap();
    host.disks.remove(&id("a")).await.unwrap();
    assert_eq!(host.disks.find(&id("a")).await.unwrap(), None);
    assert_eq!(host.traces().len(), 1, "the device is in use");
    drop(user);
    host.disks.close().await.unwrap();
    let started = Instant::now();
    while !host.traces().is_empty() {
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", host.traces());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn as_root_another_mount_namespace_does_not_keep_a_disk() {
    let host = Host::new(0);
    let path = host.disks.claim(&id("a"), SIZE).await.unwrap();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (leave, may_leave) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        mounts::privately(
            |error| error,
            move || {
                entered.send(mounts::below(&path)?.len()).unwrap();
                let _ = may_leave.recv();
                Ok(())
            },
        )
    });
    assert_eq!(has_entered.recv(), Ok(1), "the namespace has a copy of the mount");
    host.disks.remove(&id("a")).await.unwrap();
    let traces = host.traces();
    drop(leave);
    other.join().unwrap().unwrap();
    assert_eq!(traces, [""; 0]);
}

#[tokio::test]
async fn as_root_a_sweep_after_a_crash_keeps_what_lives() {
    let host = Host::new(1);
    let alive = host.disks.claim(&id("alive"), SIZE).await.unwrap();
    fs::write(alive.join("file"), "data").unwrap();
    host.disks.claim(&id("dead"), SIZE).await.unwrap();
    let scratch = host.data_dir().join("scratch");
    // Cut short after the image got its name.
    fs::write(scratch.join("half.ext4"), "").unwrap();
    fs::write(scratch.join("ready-77.ext4"), "").unwrap();

    let again = open(host.data_dir(), 0);
    let keep = HashSet::from([id("alive")]);
    again.sweep(&keep).await.unwrap();
    again.sweep(&keep).await.unwrap();
    assert_eq!(fs::read_to_string(alive.join("file")).unwrap(), "data");
    for gone in ["dead", "dead.ext4", "half.ext4", "ready-77.ext4"] {
        assert!(!scratch.join(gone).exists(), "{gone}");
    }
    again.remove(&id("alive")).await.unwrap();
}

/// Prints what a claim and a removal take: `cargo test -p sandbar-artifacts -- --ignored --nocapture claim_takes`.
#[tokio::test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
async fn as_root_what_a_claim_takes() {
    let host = Host::new(4);
    for (name, size) in [("ready", SIZE), ("made now", Mib(10 * 1024))] {
        let (mut claims, mut removals) = (Vec::new(), Vec::new());
        for round in 0..50 {
            let id = id(&format!("s{round}"));
            // The maker runs behind; a claim every 30 ms is what it keeps up with.
            tokio::time::sleep(Duration::from_millis(30)).await;
            let started = Instant::now();
            host.disks.claim(&id, size).await.unwrap();
            claims.push(started.elapsed());
            let started = Instant::now();
            host.disks.remove(&id).await.unwrap();
            removals.push(started.elapsed());
        }
        for (what, mut times) in [("claim", claims), ("removal", removals)] {
            times.sort();
            println!("{name}: {what} median {:?}, p95 {:?}", times[25], times[47]);
        }
    }
    host.disks.close().await.unwrap();
}
