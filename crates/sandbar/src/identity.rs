//! What makes a data directory one installation: its instance id, its seed, its lock.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, bail};
use camino::Utf8Path;
use nix::fcntl::{Flock, FlockArg};
use sandbar_model::InstanceId;

/// One installation, locked for this process until it is dropped.
pub(crate) struct Identity {
    /// Part of the name of every kernel object of this installation.
    pub(crate) instance: InstanceId,
    /// Tokens of sandboxes are derived from it: a new one invalidates those of all sandboxes.
    pub(crate) seed: [u8; 32],
    _lock: Flock<fs::File>,
}

impl Identity {
    /// Takes the data directory, making what is missing.
    pub(crate) fn take(data_dir: &Utf8Path) -> anyhow::Result<Self> {
        fs::create_dir_all(data_dir).with_context(|| format!("make {data_dir}"))?;
        let path = data_dir.join("lock");
        let file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {path}"))?;
        let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("another server is using {data_dir}; stop it, or choose another with --data-dir")
            }
            Err((_, errno)) => return Err(errno).with_context(|| format!("lock {path}")),
        };
        let instance =
            read_or_make(&data_dir.join("instance"), || InstanceId::from_random(rand::random()).to_string())?;
        let seed = read_or_make(&data_dir.join("seed"), || hex::encode(rand::random::<[u8; 32]>()))?;
        Ok(Self {
            instance: instance.parse().with_context(|| format!("read {data_dir}/instance"))?,
            seed: hex::decode(&seed)
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
                .with_context(|| format!("{data_dir}/seed must be 64 hex digits"))?,
            _lock: lock,
        })
    }
}

/// The content of a small file, made once when it is missing. It is never half there: its name appears last.
fn read_or_make(path: &Utf8Path, make: impl FnOnce() -> String) -> anyhow::Result<String> {
    match fs::File::open(path) {
        Ok(file) => {
            let mut text = String::new();
            file.take(4096).read_to_string(&mut text).with_context(|| format!("read {path}"))?;
            Ok(text.trim().to_owned())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = make();
            write_private(path, &text)?;
            Ok(text)
        }
        Err(error) => Err(error).with_context(|| format!("open {path}")),
    }
}

/// Writes a file that only root may read, durably and never half.
pub(crate) fn write_private(path: &Utf8Path, text: &str) -> anyhow::Result<()> {
    let write = || -> std::io::Result<()> {
        let temporary = path.with_extension("tmp");
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        writeln!(file, "{text}")?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let dir = path.parent().expect("a file lies in a directory");
        fs::File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("write {path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_installation_keeps_its_identity_and_admits_one_server() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let first = Identity::take(dir).unwrap();
        let refused = Identity::take(dir).err().expect("the first still holds it").to_string();
        assert!(refused.contains("another server is using"), "{refused}");
        let (instance, seed) = (first.instance.clone(), first.seed);
        drop(first);
        let again = Identity::take(dir).unwrap();
        assert_eq!((again.instance.clone(), again.seed), (instance, seed));
    }
}
