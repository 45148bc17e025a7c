//! Making one layer: from packages or on top of other layers, then npm packages, then scripts.
//!
//! Everything runs on a thread whose mounts nobody else sees, so that neither an error nor a crash leaves a
//! mount behind, and a half-made tree can be removed without fear of what might be mounted in it.

mod chroot;
mod debian;
pub(crate) mod host_ca;
mod npm;

use std::fs;
use std::io;
use std::time::Duration;

use camino::Utf8PathBuf;
use sandbar_model::ErrorKind;

use self::chroot::Chroot;
pub(crate) use self::debian::{KEYRING as DEBIAN_KEYRING, sources as debian_sources};
use crate::recipe::{Origin, Recipe};
use crate::store::Staging;
use crate::{BuildOptions, ProgramError, RecipeError, Reporter, StoreError, mounts};

/// A step downloads at most some hundred megabytes; a slow line gets the time for it.
const STEP_DEADLINE: Duration = Duration::from_secs(45 * 60);

/// Why a template could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe is no good.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The store is no good.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Trees with many owners can only be made by root.
    #[error("templates are built by root only")]
    NotRoot,
    /// The host cannot check what Debian signed.
    #[error("{path} is missing: install the package debian-archive-keyring")]
    NoKeyring {
        /// Where it should be.
        path: &'static str,
    },
    /// A program failed.
    #[error("build template {template}: {step}")]
    Program {
        /// The template.
        template: String,
        /// What was being done.
        step: String,
        /// What happened, with the last lines of output.
        source: ProgramError,
    },
    /// What the npm registry sent is not what the recipe wants.
    #[error("npm package {package} is not the one that the recipe wants: want {want}, got {got}")]
    Integrity {
        /// The package.
        package: String,
        /// The hash in the recipe.
        want: String,
        /// The hash of what came.
        got: String,
    },
    /// The kernel refused a mount.
    #[error("mount {what} at {path}")]
    Mount {
        /// Kind of file system.
        what: &'static str,
        /// Where.
        path: Utf8PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file or directory could not be used.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: Utf8PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The thread that builds died.
    #[error("the build of template {template} was cut short")]
    CutShort {
        /// The template.
        template: String,
    },
}

impl BuildError {
    /// What the caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Recipe(RecipeError::Unknown(_)) => ErrorKind::NotFound,
            Self::Program { .. } | Self::Integrity { .. } | Self::NoKeyring { .. } => ErrorKind::Unavailable,
            _ => ErrorKind::Internal,
        }
    }

    pub(crate) fn io(doing: &'static str, path: impl Into<Utf8PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}

/// One template in the making.
pub(crate) struct Builder<'a> {
    pub(crate) template: &'a str,
    pub(crate) options: &'a BuildOptions,
    pub(crate) report: &'a Reporter,
}

impl Builder<'_> {
    /// Makes the layer of `recipe` on top of `lower`, which is lowest first and empty for a Debian recipe.
    pub(crate) fn recipe_layer(
        &self,
        recipe: &Recipe,
        lower: &[Utf8PathBuf],
        staging: &Staging,
    ) -> Result<(), BuildError> {
        self.privately(|| {
            let chroot = match &recipe.origin {
                Origin::Debian(debian) => {
                    debian::bootstrap(self, debian, &staging.tree)?;
                    Chroot::at(&staging.tree)?
                }
                Origin::From(_) => Chroot::over(lower, staging)?,
            };
            for package in &recipe.npm {
                npm::unpack(self, package, &chroot, &staging.work)?;
            }
            for script in &recipe.scripts {
                chroot.script(self, &script.name, &script.text)?;
            }
            Ok(())
        })
    }

    /// Makes a layer on top of `lower` that adds `certificates` (PEM) to those the guest trusts.
    pub(crate) fn certificates_layer(
        &self,
        certificates: &[host_ca::Certificate],
        lower: &[Utf8PathBuf],
        staging: &Staging,
    ) -> Result<(), BuildError> {
        self.privately(|| {
            let chroot = Chroot::over(lower, staging)?;
            let dir = chroot.root().join("usr/local/share/ca-certificates");
            fs::create_dir_all(&dir).map_err(BuildError::io("make", &dir))?;
            for certificate in certificates {
                let path = dir.join(certificate.file_name());
                fs::write(&path, certificate.pem()).map_err(BuildError::io("write", &path))?;
            }
            chroot.script(self, "certificates of the host", "update-ca-certificates\n")
        })
    }

    fn privately(&self, work: impl FnOnce() -> Result<(), BuildError> + Send) -> Result<(), BuildError> {
        if !rustix::process::geteuid().is_root() {
            return Err(BuildError::NotRoot);
        }
        mounts::privately(
            |source| BuildError::Mount { what: "private namespace", path: "/".into(), source },
            work,
        )
    }

    fn program(&self, step: &str, program: crate::program::Program) -> Result<(), BuildError> {
        let shown = format!("{}: {step}", self.template);
        program.run(&shown, self.report).map(drop).map_err(|source| BuildError::Program {
            template: self.template.to_owned(),
            step: step.to_owned(),
            source,
        })
    }
}
