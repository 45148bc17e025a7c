//! Tells whether guests really start on this host, by starting one.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::{Capabilities, GuestNetwork, Lease, Mib, Resources, SandboxId, SlotIndex};

use crate::{BootError, BootSpec, Config, OpenError, StopError};

/// A guest started and was removed again.
#[derive(Clone, Debug)]
pub struct Probe {
    /// What the engine can do.
    pub capabilities: Capabilities,
    /// From the call until the guest's first program ran.
    pub booted_in: Duration,
    /// From the call until nothing of it was left.
    pub stopped_in: Duration,
}

/// Why no guest starts here.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// There is no engine.
    #[error("open the engine")]
    Open(#[from] OpenError),
    /// The guest's files could not be written.
    #[error("prepare {path}")]
    Prepare {
        /// The directory.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guest does not start.
    #[error("start a guest")]
    Boot(#[from] BootError),
    /// The guest started and cannot be removed.
    #[error("remove the guest")]
    Stop(#[from] StopError),
}

/// Starts a guest that only waits, and removes it. Takes about 200 ms and needs root.
///
/// Files are made below `work` and removed again.
///
/// # Errors
/// What is wrong with this host, as the engine says it.
pub async fn probe(config: Config, work: &Utf8Path) -> Result<Probe, ProbeError> {
    let engine = crate::open(config).await?;
    let name = format!("probe{}", std::process::id());
    let dir = work.join(&name);
    let result = async {
        let spec =
            prepare(&dir, &name).map_err(|source| ProbeError::Prepare { path: dir.clone(), source })?;
        let began = Instant::now();
        let guest = engine.boot(spec).await?;
        let booted_in = began.elapsed();
        let began = Instant::now();
        guest.stop(Duration::ZERO).await?;
        Ok(Probe { capabilities: engine.capabilities().clone(), booted_in, stopped_in: began.elapsed() })
    }
    .await;
    match fs::remove_dir_all(&dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            result.and(Err(ProbeError::Prepare { path: dir, source: error }))
        }
        _ => result,
    }
}

fn prepare(dir: &Utf8Path, name: &str) -> io::Result<BootSpec> {
    let (root, scratch) = (dir.join("root"), dir.join("scratch"));
    fs::create_dir_all(&root)?;
    fs::create_dir_all(&scratch)?;
    let init = root.join("init");
    fs::write(&init, program())?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let lease = Lease {
        slot: SlotIndex(0),
        // None: the engine then makes an empty one.
        guest_netns: Utf8PathBuf::new(),
        host_address: Ipv4Addr::LOCALHOST,
        guest: GuestNetwork::STANDARD,
    };
    let id: SandboxId = name.parse().expect("letters and digits are an id");
    Ok(BootSpec {
        id,
        lease,
        root,
        scratch,
        dir: dir.join("engine"),
        resources: Resources { vcpus: NonZeroU32::MIN, memory: Mib(256), disk: Mib(16), pids: 16 },
        hostname: "probe".to_owned(),
        init: vec!["/init".to_owned()],
        env: BTreeMap::new(),
        stdin: Vec::new(),
    })
}

/// A static ELF program that waits for ever, so that the probe needs no file from anywhere.
fn program() -> Vec<u8> {
    const LOADED_AT: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // (machine, code)
    #[cfg(target_arch = "x86_64")]
    const MACHINE: (u16, &[u8]) = (
        62,
        // again: mov eax, 34 (pause); syscall; jmp again
        &[0xb8, 0x22, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7],
    );
    #[cfg(target_arch = "aarch64")]
    const MACHINE: (u16, &[u8]) = (
        183,
        // again: mov x0, 0; mov x1, 0; mov x2, 0; mov x3, 0; mov x8, 73 (ppoll); svc 0; b again
        &[
            0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2,
            0x28, 0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
        ],
    );
    let (machine, code) = MACHINE;
    let size = HEADERS + code.len() as u64;
    let mut elf = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |elf: &mut Vec<u8>, values: &[u16]| elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, values: &[u64]| elf.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    // Type (executable), machine; version; entry, program headers at, section headers at; flags; sizes.
    half(&mut elf, &[2, machine]);
    word(&mut elf, &[1]);
    long(&mut elf, &[LOADED_AT + HEADERS, 64, 0]);
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]);
    // One segment: load, readable and executable, the whole file.
    word(&mut elf, &[1, 5]);
    long(&mut elf, &[0, LOADED_AT, LOADED_AT, size, size, 0x1000]);
    elf.extend_from_slice(code);
    elf
}
