//! The program `runsc`: where it is, what it can do, how it is called.

use std::process::Stdio;
use std::time::Duration;

use camino::{Utf8Path, Utf8PathBuf};
use sandbar_model::SandboxId;
use tokio::process::Command;

use super::bundle::Files;
use crate::OpenError;

/// Oldest release that does what we need.
const OLDEST: u32 = 20_240_729;

/// Flags without which we cannot work.
const NEEDED_FLAGS: [&str; 6] = ["root", "log", "log-format", "overlay2", "directfs", "panic-log"];

/// How long it may take to print its version or flags.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A `runsc` that is new enough.
#[derive(Clone, Debug)]
pub(super) struct Runsc {
    pub(super) path: Utf8PathBuf,
    /// As it says itself, such as `0.0~20240729.0`.
    pub(super) version: String,
    /// Whether it can honour setuid programs in the guest.
    pub(super) allow_suid: bool,
}

impl Runsc {
    /// The first of `candidates` that is there, works and is new enough; else why the best of them is not.
    pub(super) async fn find(candidates: &[Utf8PathBuf]) -> Result<Self, OpenError> {
        let mut refused = None;
        let mut searched = Vec::new();
        for candidate in candidates {
            searched.push(candidate.to_string());
            let Some(path) = locate(candidate) else { continue };
            match Self::ask(&path).await {
                Ok(runsc) => return Ok(runsc),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or(OpenError::NotFound { searched }))
    }

    async fn ask(path: &Utf8Path) -> Result<Self, OpenError> {
        let broken = |reason: String| OpenError::Broken { path: path.to_owned(), reason };
        let text = answer(path, "--version").await.map_err(&broken)?;
        let version = parse_version(&text).ok_or_else(|| broken(format!("no version in {text:?}")))?;
        if release_date(version).is_none_or(|date| date < OLDEST) {
            let version = version.to_owned();
            return Err(OpenError::TooOld { path: path.to_owned(), version, needed: OLDEST });
        }
        let flags = answer(path, "flags").await.map_err(&broken)?;
        if let Some(missing) = NEEDED_FLAGS.iter().find(|flag| !has_flag(&flags, flag)) {
            return Err(broken(format!("it has no flag -{missing}")));
        }
        Ok(Self {
            path: path.to_owned(),
            version: version.to_owned(),
            allow_suid: has_flag(&flags, "allow-suid"),
        })
    }

    /// Arguments that start a guest from the bundle in `files` and return once its first program runs.
    pub(super) fn run_args(&self, id: &SandboxId, scratch: &Utf8Path, files: &Files) -> Vec<String> {
        let mut args = vec![
            files.root_argument(),
            format!("--overlay2=root:dir={scratch}"),
            // Files are opened by the gofer alone; the sentry, which guests attack, is nobody without rights.
            "--directfs=false".to_owned(),
            format!("--log={}", files.log),
            "--log-format=json".to_owned(),
            format!("--panic-log={}", files.panic_log),
        ];
        if self.allow_suid {
            args.push("--allow-suid".to_owned());
        }
        args.extend(["run", "-detach", "-pid-file"].map(str::to_owned));
        args.extend([files.pid.to_string(), "-bundle".to_owned(), files.bundle.to_string(), id.to_string()]);
        args
    }

    /// Sends SIGTERM to the guest's first program. That it could not be told is nothing: it will be killed.
    pub(super) async fn terminate(&self, id: &SandboxId, files: &Files) {
        let mut command = Command::new(&self.path);
        command
            .arg(files.root_argument())
            .args(["kill", id.as_str(), "TERM"])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true);
        if let Ok(mut child) = command.spawn() {
            let _ = tokio::time::timeout(ANSWER_LIMIT, child.wait()).await;
        }
    }
}

/// The file meant by `candidate`: a path, or a name on `PATH`.
fn locate(candidate: &Utf8Path) -> Option<Utf8PathBuf> {
    if candidate.as_str().contains('/') {
        return candidate.is_file().then(|| candidate.to_owned());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':').map(|dir| Utf8Path::new(dir).join(candidate)).find(|file| file.is_file())
}

async fn answer(program: &Utf8Path, argument: &str) -> Result<String, String> {
    let mut command = Command::new(program);
    command.arg(argument).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(ANSWER_LIMIT, command.output())
        .await
        .map_err(|_| format!("no answer to {argument} within {} s", ANSWER_LIMIT.as_secs()))?
        .map_err(|error| error.to_string())?;
    // `runsc flags` prints to standard error.
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{}: {}", output.status, text.trim())) }
}

/// `runsc version release-20240729.0` and the like.
fn parse_version(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("runsc version "))?.split_ascii_whitespace().next()
}

/// The date in a version: its first run of eight digits.
fn release_date(version: &str) -> Option<u32> {
    let mut runs = version.split(|letter: char| !letter.is_ascii_digit());
    runs.find(|run| run.len() == 8)?.parse().ok()
}

/// Whether the output of `runsc flags` lists a flag. Lines are `  -name value` or `  -name`.
fn has_flag(flags: &str, name: &str) -> bool {
    flags.lines().any(|line| {
        line.trim_start().strip_prefix('-').and_then(|line| line.split_ascii_whitespace().next())
            == Some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_all_publishers_are_dated() {
        for (version, date) in [
            ("0.0~20240729.0", Some(20_240_729)),
            ("release-20250203.0-12-gabcdef012345", Some(20_250_203)),
            ("0.0~20220222.0", Some(20_220_222)),
            ("VERSION_MISSING", None),
        ] {
            assert_eq!(release_date(version), date, "{version}");
        }
        assert_eq!(parse_version("runsc version release-1\nspec: 1.2.0\n"), Some("release-1"));
        assert_eq!(parse_version("hello"), None);
    }

    #[test]
    fn a_flag_is_found_by_its_whole_name() {
        let flags = "  -log string\n    \tfile path\n  -log-format string\n  -overlay2 value\n";
        assert!(has_flag(flags, "log"));
        assert!(!has_flag(flags, "overlay"));
    }

    /// A program that answers like a `runsc` of this version.
    fn stand_in(dir: &Utf8Path, name: &str, version: &str) -> Utf8PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = dir.join(name);
        let flags = NEEDED_FLAGS.map(|flag| format!("echo '  -{flag} x' >&2")).join("\n");
        let text =
            format!("#!/bin/sh\nif [ $1 = flags ]; then {flags}\nelse echo runsc version {version}; fi\n");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn the_first_that_is_new_enough_is_taken_and_refusals_name_the_cure() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Utf8Path::from_path(temp.path()).unwrap();
        let old = stand_in(dir, "old", "0.0~20220222.0");
        let new = stand_in(dir, "new", "release-20250203.0");
        let none = dir.join("none");

        let found = Runsc::find(&[none.clone(), old.clone(), new.clone()]).await.unwrap();
        assert_eq!((found.path, found.allow_suid), (new, false));
        let error = Runsc::find(&[none.clone(), old]).await.unwrap_err();
        assert!(matches!(error, OpenError::TooOld { .. }), "{error}");
        let error = Runsc::find(&[none]).await.unwrap_err();
        assert!(error.to_string().contains("/none"), "{error}");
        let error = Runsc::find(&["/bin/false".into()]).await.unwrap_err();
        assert!(matches!(error, OpenError::Broken { .. }), "{error}");
    }
}
