//! A tree as the root directory of programs: what a step of a recipe runs in.

use std::fs;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};

use super::{BuildError, Builder, STEP_DEADLINE};
use crate::overlay;
use crate::program::Program;
use crate::store::{Staging, set_mode};

/// Where a step finds its files, inside of the tree. Below a tmpfs, so that nothing of it stays in the layer.
const FILES: &str = "run/build";

/// A tree with what programs expect of a system mounted in it. Lives on a thread with private mounts.
pub(super) struct Chroot {
    root: Utf8PathBuf,
}

impl Chroot {
    /// Programs write into `tree` itself.
    pub(super) fn at(tree: &Utf8Path) -> Result<Self, BuildError> {
        let chroot = Self { root: tree.to_owned() };
        chroot.furnish()?;
        Ok(chroot)
    }

    /// Programs see the layers `lower` (lowest first) and write what differs into the staging tree.
    pub(super) fn over(lower: &[Utf8PathBuf], staging: &Staging) -> Result<Self, BuildError> {
        let [root, work] = ["merged", "overlay"].map(|name| staging.work.join(name));
        for dir in [&root, &work] {
            fs::create_dir(dir).map_err(BuildError::io("make", dir))?;
        }
        let data = format!("{},upperdir={},workdir={work}", overlay::lower(lower), staging.tree);
        mount_at("overlay", &root, MountFlags::empty(), &data)?;
        let chroot = Self { root };
        chroot.furnish()?;
        Ok(chroot)
    }

    /// The tree as programs see it.
    pub(super) fn root(&self) -> &Utf8Path {
        &self.root
    }

    fn furnish(&self) -> Result<(), BuildError> {
        let hidden = MountFlags::NOSUID | MountFlags::NODEV;
        for dir in ["run", "tmp"] {
            mount_at("tmpfs", &self.root.join(dir), hidden, "mode=1777")?;
        }
        let dev = self.root.join("dev");
        mount_bind_recursive("/dev", dev.as_str()).map_err(|error| BuildError::Mount {
            what: "/dev",
            path: dev,
            source: error.into(),
        })?;
        let files = self.root.join(FILES);
        fs::create_dir(&files).map_err(BuildError::io("make", &files))
    }

    /// Puts a file where programs find it as the path returned, which is one inside of the tree.
    pub(super) fn lend(&self, name: &str, bytes: &[u8]) -> Result<Utf8PathBuf, BuildError> {
        let inside = Utf8Path::new(FILES).join(name);
        let path = self.root.join(&inside);
        fs::write(&path, bytes).map_err(BuildError::io("write", &path))?;
        set_mode(&path, 0o644).map_err(BuildError::io("set the mode of", &path))?;
        Ok(Utf8Path::new("/").join(inside))
    }

    /// Runs a program of the tree as root.
    pub(super) fn program(
        &self,
        builder: &Builder<'_>,
        step: &str,
        path: &str,
        args: &[&str],
    ) -> Result<(), BuildError> {
        builder.program(step, Program::new(path, STEP_DEADLINE).args(args).chroot(&self.root).contained())
    }

    /// Runs a script with the tree's bash; the first command that fails ends it.
    pub(super) fn script(&self, builder: &Builder<'_>, name: &str, text: &str) -> Result<(), BuildError> {
        let path = self.lend("script", text.as_bytes())?;
        self.program(builder, name, "/bin/bash", &["-euo", "pipefail", path.as_str()])
    }
}

fn mount_at(kind: &'static str, path: &Utf8Path, flags: MountFlags, data: &str) -> Result<(), BuildError> {
    let data = std::ffi::CString::new(data).expect("mount options have no NUL byte");
    mount(kind, path.as_str(), kind, flags, data.as_c_str()).map_err(|error| BuildError::Mount {
        what: kind,
        path: path.to_owned(),
        source: error.into(),
    })
}
