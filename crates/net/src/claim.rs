//! Which instance on this host has which block of addresses.
//!
//! One file per block in the runtime directory, named after the block, says who claimed it. Its owner holds a
//! file lock on it for as long as it lives. A claim outlives its owner's crash, so that the owner gets the same
//! block back and its running sandboxes keep their addresses. It is stale when nobody holds the lock and either
//! nothing named after the instance is left on the host, or its data directory is gone.
//!
//! Everything here happens under one lock on the directory, and never waits otherwise.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use ipnet::Ipv4Net;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use sandbar_model::InstanceId;
use serde::{Deserialize, Serialize};

use crate::block::Block;
use crate::name::Names;

/// Of a claim's file, in bytes; a longer one is not ours.
const RECORD_MAX: u64 = 64 * 1024;

/// Why an instance got no block.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClaimError {
    /// Another process has the instance open.
    #[error("instance {0} is open in another process")]
    Held(InstanceId),
    /// Another data directory has the same instance id.
    #[error("instance {instance} belongs to {data_dir}")]
    Taken { instance: InstanceId, data_dir: Utf8PathBuf },
    /// Every block is claimed, or its addresses are in use on this host.
    #[error("all blocks of addresses are in use")]
    NoBlock,
    /// The runtime directory does not work.
    #[error("{doing} {path}")]
    Io { doing: &'static str, path: Utf8PathBuf, source: io::Error },
}

/// Who claims.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) instance: InstanceId,
    pub(crate) data_dir: Utf8PathBuf,
}

/// What is on the host, to tell stale claims from live ones and free blocks from those of other software.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sighting {
    /// Names of links and of pinned namespaces.
    pub(crate) names: Vec<String>,
    /// Addresses and routes.
    pub(crate) networks: Vec<Ipv4Net>,
}

/// A block that is ours until this is dropped or the process ends.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) block: Block,
    path: Utf8PathBuf,
    _lock: Flock<File>,
}

/// What claiming came to.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) outcome: Result<Claim, ClaimError>,
    /// Instances whose data directory is gone and of which something is left: for the caller to clean up.
    pub(crate) abandoned: Vec<InstanceId>,
}

/// The locked directory of claims.
pub(crate) struct Registry {
    dir: Utf8PathBuf,
    _lock: Flock<File>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    instance: String,
    data_dir: Utf8PathBuf,
}

/// A claim's file as found.
struct Entry {
    block: Block,
    path: Utf8PathBuf,
    owner: Option<Owner>,
}

impl Registry {
    /// Waits for the lock; whoever has it keeps it for milliseconds.
    pub(crate) fn lock(runtime_dir: &Utf8Path) -> Result<Self, ClaimError> {
        let dir = runtime_dir.join("blocks");
        let failed = |doing, source| ClaimError::Io { doing, path: dir.clone(), source };
        loop {
            fs::create_dir_all(&dir).map_err(|source| failed("create directory", source))?;
            let file = File::open(&dir).map_err(|source| failed("open directory", source))?;
            let opened = file.metadata().map_err(|source| failed("look at directory", source))?.ino();
            let lock = Flock::lock(file, FlockArg::LockExclusive)
                .map_err(|(_, errno)| failed("lock directory", errno.into()))?;
            // The last instance to close removes the directory; a lock on what was removed is worth nothing.
            match fs::metadata(&dir) {
                Ok(now) if now.ino() == opened => return Ok(Self { dir, _lock: lock }),
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("look at directory", error));
                }
                _ => {}
            }
        }
    }

    /// Claims the owner's block of before, else a free one.
    pub(crate) fn claim(&self, owner: &Owner, sighting: &Sighting) -> Claimed {
        let mut abandoned = Vec::new();
        let outcome = self.claim_noting(owner, sighting, &mut abandoned);
        Claimed { outcome, abandoned }
    }

    fn claim_noting(
        &self,
        owner: &Owner,
        sighting: &Sighting,
        abandoned: &mut Vec<InstanceId>,
    ) -> Result<Claim, ClaimError> {
        let mut taken = Vec::new();
        for entry in self.entries()? {
            let is_ours = entry.owner.as_ref().is_some_and(|other| other.instance == owner.instance);
            match (try_lock(&entry.path)?, &entry.owner) {
                (None, Some(other)) if is_ours && other.data_dir == owner.data_dir => {
                    return Err(ClaimError::Held(owner.instance.clone()));
                }
                (Some(lock), Some(other)) if is_ours && other.data_dir == owner.data_dir => {
                    return Ok(Claim { block: entry.block, path: entry.path, _lock: lock });
                }
                (lock, Some(other)) if is_ours && (lock.is_none() || other.data_dir.exists()) => {
                    let Owner { instance, data_dir } = other.clone();
                    return Err(ClaimError::Taken { instance, data_dir });
                }
                (None, _) => taken.push(entry.block),
                (Some(_), Some(other)) if sighting.has_any_of(&other.instance) => {
                    taken.push(entry.block);
                    if !other.data_dir.exists() {
                        abandoned.push(other.instance.clone());
                    }
                }
                // Nothing is left of it, or its owner did not live to write its name.
                (Some(_), _) => remove_file(&entry.path)?,
            }
        }
        let is_free = |block: &Block| !taken.contains(block) && !sighting.uses(block.network());
        let block = Block::all().find(is_free).ok_or(ClaimError::NoBlock)?;
        self.create(block, owner)
    }

    /// Gives a claim back. True when it was the last one on this host.
    pub(crate) fn release(&self, claim: Claim) -> Result<bool, ClaimError> {
        remove_file(&claim.path)?;
        Ok(self.entries()?.is_empty())
    }

    /// Removes the directory when nothing is in it, and its parent likewise.
    pub(crate) fn remove_if_empty(self) {
        // Others' files keep it, and then it is theirs to remove.
        let _ = fs::remove_dir(&self.dir);
        if let Some(parent) = self.dir.parent() {
            let _ = fs::remove_dir(parent);
        }
    }

    fn create(&self, block: Block, owner: &Owner) -> Result<Claim, ClaimError> {
        // A slash cannot be in a file name.
        let path = self.dir.join(block.to_string().replace('/', "-"));
        let failed = |doing, source| ClaimError::Io { doing, path: path.clone(), source };
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(|source| failed("create claim", source))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|(_, errno)| failed("lock claim", errno.into()))?;
        let record =
            Record { version: 1, instance: owner.instance.to_string(), data_dir: owner.data_dir.clone() };
        let text = serde_json::to_string(&record).expect("a record has no map with keys that are not text");
        lock.write_all(text.as_bytes()).map_err(|source| failed("write claim", source))?;
        Ok(Claim { block, path, _lock: lock })
    }

    fn entries(&self) -> Result<Vec<Entry>, ClaimError> {
        let failed = |source| ClaimError::Io { doing: "list", path: self.dir.clone(), source };
        let mut entries = Vec::new();
        for file in self.dir.read_dir_utf8().map_err(failed)? {
            let file = file.map_err(failed)?;
            // What is not named after a block is not a claim.
            if let Ok(block) = file.file_name().replace('-', "/").parse() {
                let path = file.into_path();
                entries.push(Entry { block, owner: read_owner(&path)?, path });
            }
        }
        Ok(entries)
    }
}

impl Sighting {
    fn has_any_of(&self, instance: &InstanceId) -> bool {
        let names = Names::new(instance.clone());
        self.names
            .iter()
            .any(|name| names.slot_of_link(name).is_some() || names.slot_of_netns(name).is_some())
    }

    fn uses(&self, block: Ipv4Net) -> bool {
        self.networks.iter().any(|network| block.contains(network))
    }
}

/// The owner a claim names; `None` when its text is not one of ours.
fn read_owner(path: &Utf8Path) -> Result<Option<Owner>, ClaimError> {
    let failed = |source| ClaimError::Io { doing: "read claim", path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    io::Read::read_to_string(&mut io::Read::take(file, RECORD_MAX), &mut text).map_err(failed)?;
    Ok(serde_json::from_str(&text).ok().and_then(|record: Record| {
        let instance = record.instance.parse().ok()?;
        Some(Owner { instance, data_dir: record.data_dir })
    }))
}

/// `None` when somebody else has the lock.
fn try_lock(path: &Utf8Path) -> Result<Option<Flock<File>>, ClaimError> {
    let failed = |doing, source| ClaimError::Io { doing, path: path.to_owned(), source };
    let file = File::open(path).map_err(|source| failed("open claim", source))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(failed("lock claim", errno.into())),
    }
}

fn remove_file(path: &Utf8Path) -> Result<(), ClaimError> {
    fs::remove_file(path).map_err(|source| ClaimError::Io {
        doing: "remove claim",
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Host {
        dir: tempfile::TempDir,
        sighting: Sighting,
    }

    impl Host {
        fn new() -> Self {
            Self { dir: tempfile::tempdir().expect("a temp dir"), sighting: Sighting::default() }
        }

        fn path(&self) -> &Utf8Path {
            Utf8Path::from_path(self.dir.path()).expect("temp dirs are named in ASCII")
        }

        fn owner(&self, instance: &str) -> Owner {
            let data_dir = self.path().join(instance);
            fs::create_dir_all(&data_dir).expect("create data dir");
            Owner { instance: instance.parse().expect("well-formed"), data_dir }
        }

        fn claim(&self, owner: &Owner) -> Claimed {
            Registry::lock(&self.path().join("run")).expect("lock").claim(owner, &self.sighting)
        }

        #[track_caller]
        fn check(&self, owner: &Owner, want: &str) -> Option<Claim> {
            match self.claim(owner).outcome {
                Ok(claim) => {
                    assert_eq!(claim.block.to_string(), want);
                    Some(claim)
                }
                Err(error) => {
                    assert_eq!(error.to_string(), want);
                    None
                }
            }
        }
    }

    #[test]
    fn instances_side_by_side_have_different_blocks() {
        let host = Host::new();
        let _a = host.check(&host.owner("aaaa"), "198.18.0.0/20");
        let _b = host.check(&host.owner("bbbb"), "198.18.16.0/20");
        host.check(&host.owner("aaaa"), "instance aaaa is open in another process");
    }

    #[test]
    fn a_crashed_instance_of_which_something_is_left_gets_its_block_back() {
        let mut host = Host::new();
        drop(host.check(&host.owner("aaaa"), "198.18.0.0/20"));
        host.sighting.names = vec!["sb-aaaa-7-r".to_owned()];
        let _b = host.check(&host.owner("bbbb"), "198.18.16.0/20");
        host.check(&host.owner("aaaa"), "198.18.0.0/20");
    }

    #[test]
    fn a_claim_of_which_nothing_is_left_is_free() {
        let host = Host::new();
        drop(host.check(&host.owner("aaaa"), "198.18.0.0/20"));
        host.check(&host.owner("bbbb"), "198.18.0.0/20");
    }

    #[test]
    fn an_instance_whose_data_is_gone_is_named_for_cleaning() {
        let mut host = Host::new();
        let gone = host.owner("aaaa");
        drop(host.claim(&gone));
        fs::remove_dir(&gone.data_dir).expect("remove data dir");
        host.sighting.names = vec!["sbaaaa-7".to_owned()];
        let claimed = host.claim(&host.owner("bbbb"));
        assert_eq!(claimed.abandoned, [gone.instance]);
    }

    #[test]
    fn the_same_id_in_another_place_is_refused() {
        let host = Host::new();
        let first = host.owner("aaaa");
        let _held = host.claim(&first);
        let second = Owner { data_dir: host.path().join("elsewhere"), ..first.clone() };
        host.check(&second, &format!("instance aaaa belongs to {}", first.data_dir));
    }

    #[test]
    fn blocks_with_addresses_of_other_software_are_left_alone() {
        let mut host = Host::new();
        host.sighting.networks =
            vec!["198.18.3.0/24".parse().expect("a network"), "0.0.0.0/0".parse().expect("a network")];
        host.check(&host.owner("aaaa"), "198.18.16.0/20");
    }

    #[test]
    fn the_last_to_leave_is_told_so_and_removes_the_directory() {
        let host = Host::new();
        let a = host.check(&host.owner("aaaa"), "198.18.0.0/20").expect("claimed");
        let b = host.check(&host.owner("bbbb"), "198.18.16.0/20").expect("claimed");
        let run = host.path().join("run");
        let registry = Registry::lock(&run).expect("lock");
        assert!(!registry.release(a).expect("release"));
        assert!(registry.release(b).expect("release"));
        registry.remove_if_empty();
        assert!(!run.exists());
    }
}
