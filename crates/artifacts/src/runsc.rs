//! Finding a `runsc` that is new enough, or getting one.
//!
//! Debian's package is a static binary and runs on older releases too, so it is taken from there whatever the
//! host's own release is, with package lists and sources apart from the host's.

use std::cmp::Ordering;
use std::env;
use std::fmt;
use std::fs;
use std::io;
use std::process;
use std::str::FromStr;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};

use crate::build::{DEBIAN_KEYRING, debian_sources};
use crate::program::Program;
use crate::store::set_mode;
use crate::{Mirrors, ProgramError, Reporter};

/// The release of Debian whose package is taken.
const SUITE: &str = "trixie";
/// A binary that does not even say its version by then is not one we want.
const VERSION_DEADLINE: Duration = Duration::from_secs(20);
/// Package lists and package together are about 30 MB.
const DOWNLOAD_DEADLINE: Duration = Duration::from_secs(15 * 60);

/// A release of gVisor: its date as a number and the count on that date.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RunscVersion {
    /// Year, month and day, as 20240729.
    pub date: u32,
    /// Which release of that day.
    pub patch: u32,
}

impl RunscVersion {
    /// The oldest one that does all that is needed here.
    pub const OLDEST: Self = Self { date: 20_240_729, patch: 0 };
}

impl fmt::Display for RunscVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.date, self.patch)
    }
}

impl FromStr for RunscVersion {
    type Err = ();

    /// Reads what `runsc --version` says: `runsc version release-20240729.0`, or `0.0~20240729.0` from Debian.
    fn from_str(said: &str) -> Result<Self, ()> {
        let word = said.lines().find_map(|line| line.trim().strip_prefix("runsc version ")).ok_or(())?;
        let numbers = word.trim().trim_start_matches("release-").trim_start_matches("0.0~");
        let mut parts = numbers.split(|letter: char| !letter.is_ascii_digit());
        let date = parts.next().filter(|date| date.len() == 8).ok_or(())?;
        let patch = parts.next().and_then(|patch| patch.parse().ok()).unwrap_or(0);
        Ok(Self { date: date.parse().map_err(|_| ())?, patch })
    }
}

/// Why there is no `runsc` that can be used.
#[derive(Debug, thiserror::Error)]
pub enum RunscError {
    /// The host cannot install packages of Debian.
    #[error(
        "no runsc of {} or newer was found, and {missing} is missing to install one: \
         install gVisor from https://gvisor.dev/docs/user_guide/install/",
        RunscVersion::OLDEST
    )]
    CannotInstall {
        /// The file that is missing.
        missing: &'static str,
    },
    /// Getting the package failed.
    #[error("install runsc: {doing}")]
    Install {
        /// What was being done.
        doing: &'static str,
        /// What happened, with the last lines of output.
        source: ProgramError,
    },
    /// The package is there but what is in it does not run or is too old.
    #[error("the installed {path} is not usable: it {said}")]
    Unusable {
        /// The binary.
        path: Utf8PathBuf,
        /// What is wrong with it.
        said: String,
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
    /// The thread that installs died.
    #[error("the installation of runsc was cut short")]
    CutShort,
}

/// Returns the path of a `runsc` that is new enough: one on `PATH`, else `<dir>/runsc`, installed first if it is
/// not there or too old.
///
/// # Errors
/// With the last lines of what a tool said.
///
/// # Cancel safety
/// Safe: `<dir>/runsc` is always a whole binary.
pub async fn ensure_runsc(
    dir: &Utf8Path,
    mirrors: &Mirrors,
    report: &Reporter,
) -> Result<Utf8PathBuf, RunscError> {
    let (dir, mirrors, report) = (dir.to_owned(), mirrors.clone(), report.clone());
    let work = tokio::task::spawn_blocking(move || ensure_blocking(&dir, &mirrors, &report));
    work.await.unwrap_or(Err(RunscError::CutShort))
}

fn ensure_blocking(dir: &Utf8Path, mirrors: &Mirrors, report: &Reporter) -> Result<Utf8PathBuf, RunscError> {
    let on_path = env::var("PATH").unwrap_or_default();
    let ours = dir.join("runsc");
    let candidates = env::split_paths(&on_path)
        .filter_map(|dir| Utf8PathBuf::from_path_buf(dir).ok())
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("runsc"))
        .chain([ours.clone()]);
    for path in candidates.filter(|path| path.is_file()) {
        match check(&path) {
            Ok(_) => return Ok(path),
            Err(said) => report.line("runsc", format!("{path} {said}")),
        }
    }
    install(dir, &ours, mirrors, report)?;
    Ok(ours)
}

/// The version of a binary that is new enough, else what is wrong with it.
fn check(path: &Utf8Path) -> Result<RunscVersion, String> {
    let said = Program::new(path, VERSION_DEADLINE)
        .args(["--version"])
        .run("runsc", &Reporter::silent())
        .map_err(|error| format!("does not run: {error}"))?;
    match said.parse::<RunscVersion>() {
        Ok(version) if version.cmp(&RunscVersion::OLDEST) == Ordering::Less => {
            Err(format!("is of {version}; {} is needed", RunscVersion::OLDEST))
        }
        Ok(version) => Ok(version),
        Err(()) => Err("does not say its version".to_owned()),
    }
}

fn install(
    dir: &Utf8Path,
    target: &Utf8Path,
    mirrors: &Mirrors,
    report: &Reporter,
) -> Result<(), RunscError> {
    for needed in ["/usr/bin/apt-get", "/usr/bin/dpkg-deb", DEBIAN_KEYRING] {
        if !Utf8Path::new(needed).is_file() {
            return Err(RunscError::CannotInstall { missing: needed });
        }
    }
    let work = dir.join(format!("tmp-runsc-{}", process::id()));
    let installed = fetch(&work, mirrors, report).and_then(|binary| {
        set_mode(&binary, 0o755).map_err(failed("set the mode of", &binary))?;
        check(&binary).map_err(|said| RunscError::Unusable { path: binary.clone(), said })?;
        fs::File::open(&binary).and_then(|file| file.sync_all()).map_err(failed("sync", &binary))?;
        fs::rename(&binary, target).map_err(failed("name", target))
    });
    if let Err(error) = fs::remove_dir_all(&work) {
        tracing::warn!(path = %work, error = &error as &dyn std::error::Error, "download directory not removed");
    }
    installed
}

/// Downloads and unpacks the package below `work`; returns the path of the binary in it.
fn fetch(work: &Utf8Path, mirrors: &Mirrors, report: &Reporter) -> Result<Utf8PathBuf, RunscError> {
    for part in ["lists/partial", "cache/archives/partial", "download", "package"] {
        let part = work.join(part);
        fs::create_dir_all(&part).map_err(failed("make", &part))?;
    }
    let write = |name: &str, text: &str| {
        let path = work.join(name);
        fs::write(&path, text).map_err(failed("write", &path))
    };
    write("sources.list", &(debian_sources(mirrors, SUITE).join("\n") + "\n"))?;
    write("status", "")?;

    let run = |doing, program: Program| {
        program.run("runsc", report).map_err(|source| RunscError::Install { doing, source })
    };
    let apt = || {
        Program::new("/usr/bin/apt-get", DOWNLOAD_DEADLINE).current_dir(&work.join("download")).args([
            "-q".to_owned(),
            format!("-oDir::Etc::sourcelist={work}/sources.list"),
            "-oDir::Etc::sourceparts=-".to_owned(),
            format!("-oDir::State={work}"),
            format!("-oDir::State::lists={work}/lists"),
            format!("-oDir::State::status={work}/status"),
            format!("-oDir::Cache={work}/cache"),
            "-oAPT::Sandbox::User=root".to_owned(),
            "-oAcquire::Retries=5".to_owned(),
            "-oAcquire::Languages=none".to_owned(),
            // Descriptions for software centres; the host may have asked for them.
            "-oAcquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ])
    };
    run("read Debian's package lists", apt().args(["update"]))?;
    run("download the package", apt().args(["download", "runsc"]))?;

    let download = work.join("download");
    let package = download
        .read_dir_utf8()
        .map_err(failed("list", &download))?
        .filter_map(Result::ok)
        .map(|entry| entry.path().to_owned())
        .find(|path| path.extension() == Some("deb"))
        .ok_or_else(|| failed("find the package in", &download)(io::ErrorKind::NotFound.into()))?;
    let unpacked = work.join("package");
    let unpack = Program::new("/usr/bin/dpkg-deb", DOWNLOAD_DEADLINE);
    run("unpack the package", unpack.args(["-x", package.as_str(), unpacked.as_str()]))?;
    Ok(unpacked.join("usr/bin/runsc"))
}

fn failed(doing: &'static str, path: &Utf8Path) -> impl FnOnce(io::Error) -> RunscError {
    let path = path.to_owned();
    move |source| RunscError::Io { doing, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_build() {
        let read = |said: &str| said.parse::<RunscVersion>().map(|version| version.to_string());
        assert_eq!(read("runsc version release-20250407.0\nspec: 1.1.0\n"), Ok("20250407.0".to_owned()));
        assert_eq!(read("runsc version 0.0~20240729.0\nspec: 1.1.0-rc.1"), Ok("20240729.0".to_owned()));
        assert_eq!(read("runsc version release-20241007.1-5-gabc"), Ok("20241007.1".to_owned()));
        assert_eq!(read("runsc version VERSION_MISSING"), Err(()));
        assert_eq!(read(""), Err(()));
    }

    #[test]
    fn versions_are_ordered_by_date() {
        let version = |date, patch| RunscVersion { date, patch };
        assert!(version(20_221_206, 9) < RunscVersion::OLDEST);
        assert!(version(20_240_729, 1) > RunscVersion::OLDEST);
    }

    #[test]
    fn a_binary_that_is_too_old_or_no_runsc_is_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = Utf8PathBuf::from_path_buf(dir.path().join("runsc")).unwrap();
        let says = |text: &str| {
            fs::write(&path, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
            set_mode(&path, 0o755).unwrap();
            check(&path).map(|version| version.to_string())
        };
        assert_eq!(says("runsc version release-20990101.0"), Ok("20990101.0".to_owned()));
        assert_eq!(
            says("runsc version 0.0~20221206.0"),
            Err("is of 20221206.0; 20240729.0 is needed".to_owned())
        );
        assert_eq!(says("hello"), Err("does not say its version".to_owned()));
    }
}
