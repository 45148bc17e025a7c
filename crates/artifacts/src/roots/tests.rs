//! Need root: mounts are real.

use std::fs;
use std::os::unix::fs::MetadataExt;

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::{LayerDigest, SandboxId};
use tempfile::TempDir;

use super::{RootError, Roots};
use crate::recipe::chain;
use crate::store::Staging;
use crate::{LayerStore, Reporter, StoreError, mounts};

struct Host {
    dir: TempDir,
    store: LayerStore,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = LayerStore::open(Utf8Path::from_path(dir.path()).unwrap()).unwrap();
        Self { dir, store }
    }

    fn data_dir(&self) -> &Utf8Path {
        self.dir.path().to_str().unwrap().into()
    }

    fn roots(&self) -> Roots {
        Roots::open(self.data_dir(), self.store.clone()).unwrap()
    }

    /// A layer with the files `own` and `common`, both of which say its name.
    fn layer(&self, name: &str) -> LayerDigest {
        let digest = chain(&["test", name]);
        self.store
            .ensure(&digest, &Reporter::silent(), |Staging { tree, .. }, _| {
                for file in [format!("own-{name}"), "common".to_owned()] {
                    fs::write(tree.join(&file), name).map_err(StoreError::io("write", file))?;
                }
                Ok::<_, StoreError>(())
            })
            .unwrap();
        digest
    }

    fn mounted(&self) -> Vec<Utf8PathBuf> {
        mounts::below(self.data_dir()).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for path in mounts::below(self.data_dir()).unwrap_or_default().iter().rev() {
            let _ = mounts::detach(path);
        }
    }
}

fn id(text: &str) -> SandboxId {
    text.parse().unwrap()
}

#[tokio::test]
async fn as_root_a_root_shows_the_topmost_file_and_cannot_be_written() {
    let host = Host::new();
    let roots = host.roots();
    let layers = ["low", "middle", "top"].map(|name| host.layer(name));
    let path = roots.hold(&id("a"), &layers).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("common")).unwrap(), "top");
    assert_eq!(fs::read_to_string(path.join("own-low")).unwrap(), "low");
    let error = fs::write(path.join("new"), "").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);

    let other = roots.hold(&id("b"), &layers[..2]).await.unwrap();
    assert_ne!(other, path);
    assert_eq!(fs::read_to_string(other.join("common")).unwrap(), "middle");
}

#[tokio::test]
async fn as_root_a_root_is_mounted_while_somebody_holds_it() {
    let host = Host::new();
    let roots = host.roots();
    let layers = [host.layer("only")];
    let path = roots.hold(&id("a"), &layers).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("common")).unwrap(), "only");
    assert_eq!(roots.hold(&id("a"), &layers).await.unwrap(), path);
    assert_eq!(roots.hold(&id("b"), &layers).await.unwrap(), path);
    assert_eq!(host.mounted().len(), 1);
    roots.release(&id("a")).await.unwrap();
    roots.release(&id("a")).await.unwrap();
    assert_eq!(host.mounted().len(), 1);
    roots.release(&id("b")).await.unwrap();
    assert_eq!(host.mounted(), [""; 0]);
    assert!(!path.exists());
}

#[tokio::test]
async fn as_root_after_a_crash_roots_are_taken_over_or_swept() {
    let host = Host::new();
    let [alive, dead] = ["alive", "dead"].map(|name| host.layer(name));
    let before = host.roots();
    let path = before.hold(&id("a"), std::slice::from_ref(&alive)).await.unwrap();
    before.hold(&id("b"), &[dead]).await.unwrap();
    let open = fs::File::open(path.join("common")).unwrap();
    let half_made = host.data_dir().join("roots").join(chain(&["half"]).as_str());
    fs::create_dir(&half_made).unwrap();

    let after = host.roots();
    assert_eq!(after.hold(&id("a"), std::slice::from_ref(&alive)).await.unwrap(), path);
    after.sweep().await.unwrap();
    after.sweep().await.unwrap();
    assert_eq!(host.mounted(), std::slice::from_ref(&path));
    assert!(!half_made.exists());
    // The same mount as before: a file that was open on it is still the one below the path.
    assert_eq!(open.metadata().unwrap().dev(), fs::metadata(path.join("common")).unwrap().dev());
}

#[tokio::test]
async fn as_root_more_layers_than_fit_as_paths_are_mounted_nevertheless() {
    let host = Host::new();
    let roots = host.roots();
    let layers: Vec<_> = (0..100).map(|number| host.layer(&format!("n{number}"))).collect();
    let path = roots.hold(&id("a"), &layers).await.unwrap();
    assert_eq!(fs::read_to_string(path.join("common")).unwrap(), "n99");
    assert!(path.join("own-n0").exists());
    let too_many: Vec<_> = layers.iter().cycle().take(1000).cloned().collect();
    let error = roots.hold(&id("b"), &too_many).await.unwrap_err();
    assert!(matches!(error, RootError::TooManyLayers { count: 1000 }), "{error}");
}

#[tokio::test]
async fn as_root_what_cannot_be_held_is_refused() {
    let host = Host::new();
    let roots = host.roots();
    let [one, two] = ["one", "two"].map(|name| host.layer(name));
    let missing = chain(&["missing"]);
    assert!(matches!(roots.hold(&id("a"), &[]).await, Err(RootError::NoLayers)));
    let error = roots.hold(&id("a"), &[one.clone(), missing.clone()]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("layer {missing} is not in the store"));
    roots.hold(&id("a"), &[one]).await.unwrap();
    assert!(matches!(roots.hold(&id("a"), &[two]).await, Err(RootError::HoldsAnother(_))));
}
