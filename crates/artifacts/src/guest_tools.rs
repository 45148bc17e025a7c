//! The programs of ours that every guest has, as a layer on top of its template.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::LayerDigest;
use sha2::{Digest, Sha256};

use crate::recipe::chain;
use crate::store::set_mode;
use crate::{LayerStore, Reporter, StoreError};

/// Where the agent is in a guest.
const AGENT: &str = "usr/bin/sandbar-agent";
/// Names under which the agent is called besides its own: what the E2B base image calls it, and `sudo`, because a
/// setuid program gains nothing in a guest whose kernel ignores the bit.
const OTHER_NAMES: [&str; 2] = ["usr/bin/envd", "usr/bin/sudo"];

/// A directory that keeps `/tmp` from being empty: on an empty one gVisor mounts a file system in memory, and what
/// is written there would count as the guest's memory instead of its disk.
const IN_TMP: &str = "tmp/.X11-unix";

/// Why the guest tools could not be made a layer.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store is no good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file could not be used.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Makes a layer of the agent, a static binary. The same bytes give the same layer. Blocks.
///
/// # Errors
/// When the binary cannot be read or the layer not be written.
pub fn import_tools(store: &LayerStore, agent_binary: &Utf8Path) -> Result<LayerDigest, ImportError> {
    let failed = |doing, path: &Utf8Path| {
        let path = path.to_owned();
        move |source| ImportError::Io { doing, path, source }
    };
    let binary = fs::read(agent_binary).map_err(failed("read", agent_binary))?;
    let content = hex::encode(Sha256::digest(&binary));

    let mut described = vec!["guest tools", AGENT, &content];
    described.extend(OTHER_NAMES);
    described.push(IN_TMP);
    let digest = chain(&described);
    store.ensure(&digest, &Reporter::silent(), |staging, _| {
        let agent = staging.tree.join(AGENT);
        let dir = agent.parent().expect("the agent lies in a directory");
        fs::create_dir_all(dir).map_err(failed("make", dir))?;
        // The mode of a directory in the topmost layer is the one that guests see.
        for dir in dir.ancestors().take_while(|dir| dir.starts_with(&staging.tree)) {
            set_mode(dir, 0o755).map_err(failed("set the mode of", dir))?;
        }
        fs::write(&agent, &binary).map_err(failed("write", &agent))?;
        set_mode(&agent, 0o755).map_err(failed("set the mode of", &agent))?;
        let target = agent.file_name().expect("the agent has a name");
        for name in OTHER_NAMES {
            let link = staging.tree.join(name);
            symlink(target, &link).map_err(failed("link", &link))?;
        }
        let in_tmp = staging.tree.join(IN_TMP);
        fs::create_dir_all(&in_tmp).map_err(failed("make", &in_tmp))?;
        for dir in [in_tmp.as_path(), in_tmp.parent().expect("it lies in /tmp")] {
            set_mode(dir, 0o1777).map_err(failed("set the mode of", dir))?;
        }
        Ok::<_, ImportError>(())
    })?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_agent_is_there_under_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(dir.path()).unwrap();
        let store = LayerStore::open(dir).unwrap();
        let binary = dir.join("agent");
        fs::write(&binary, "one").unwrap();
        let first = import_tools(&store, &binary).unwrap();
        assert_eq!(import_tools(&store, &binary).unwrap(), first);
        for name in [AGENT, OTHER_NAMES[0], OTHER_NAMES[1]] {
            let path = store.path(&first).join(name);
            assert_eq!(fs::read_to_string(&path).unwrap(), "one", "{name}");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755, "{name}");
        }
        let tmp = fs::metadata(store.path(&first).join("tmp")).unwrap();
        assert_eq!(tmp.permissions().mode() & 0o7777, 0o1777);
        fs::write(&binary, "two").unwrap();
        assert_ne!(import_tools(&store, &binary).unwrap(), first);
    }
}
