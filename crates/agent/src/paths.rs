//! From the path a client names to the path that is used, and the directories on the way there.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::{Component, Path, PathBuf};

use crate::accounts::User;

/// A path that names another user's home (`~name`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot expand user-specific home dir")]
pub(crate) struct ForeignHome;

/// The absolute path that `path` means for `user`.
///
/// Absolute paths are used as they are, dots and trailing slashes included, because clients get them back. A
/// relative path starts at the user's home, never at the default directory: that one only replaces an empty path.
pub(crate) fn resolve(path: &str, user: &User, default_workdir: Option<&str>) -> Result<String, ForeignHome> {
    let path = if path.is_empty() { default_workdir.unwrap_or_default() } else { path };
    if path == "~" {
        return Ok(user.home.clone());
    }
    if let Some(rest) = path.strip_prefix("~/") {
        return Ok(clean(&format!("{}/{rest}", user.home)));
    }
    if path.starts_with('~') {
        return Err(ForeignHome);
    }
    if path.starts_with('/') {
        return Ok(path.to_owned());
    }
    Ok(clean(&format!("{}/{path}", user.home)))
}

/// An absolute path without `.`, `..`, double and trailing slashes. Purely textual.
pub(crate) fn clean(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for component in path.split('/') {
        match component {
            "" | "." => {}
            ".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

/// Last component of a path; `/` of the root.
pub(crate) fn base_name(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        Some("") | None => "/",
        Some(name) => name,
    }
}

/// A path without its last component.
pub(crate) fn parent(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    match trimmed.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &trimmed[..at],
    }
}

/// Why a directory could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnsureDirError {
    #[error("path is a file: {}", .0.display())]
    NotADirectory(PathBuf),
    #[error("create directory {}", path.display())]
    Create { path: PathBuf, source: io::Error },
    #[error("change owner of {}", path.display())]
    Chown { path: PathBuf, source: io::Error },
}

impl EnsureDirError {
    /// What the kernel said, if it was the kernel.
    pub(crate) fn io(&self) -> Option<&io::Error> {
        match self {
            Self::NotADirectory(_) => None,
            Self::Create { source, .. } | Self::Chown { source, .. } => Some(source),
        }
    }
}

/// Makes `path` and its missing parents, mode 0755, owned by `user`. What exists is left untouched.
///
/// Several callers may make the same directories at once; each of them succeeds.
pub(crate) fn ensure_dirs(path: &Path, user: &User) -> Result<(), EnsureDirError> {
    if path.is_dir() {
        return Ok(());
    }
    let mut at = PathBuf::new();
    for component in path.components() {
        at.push(component);
        if !matches!(component, Component::Normal(_) | Component::ParentDir) {
            continue;
        }
        match fs::metadata(&at) {
            Ok(found) if found.is_dir() => continue,
            Ok(_) => return Err(EnsureDirError::NotADirectory(at)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(EnsureDirError::Create { path: at, source }),
        }
        match fs::DirBuilder::new().mode(0o755).create(&at) {
            Ok(()) => {}
            // Somebody else makes the same path. Its owner is set again below: both want the same one.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && at.is_dir() => {}
            Err(source) => return Err(EnsureDirError::Create { path: at, source }),
        }
        if let Err(source) = chown(&at, Some(user.uid), Some(user.gid)) {
            return Err(EnsureDirError::Chown { path: at, source });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> User {
        User { name: "user".into(), uid: 1000, gid: 1000, home: "/home/user".into(), shell: String::new() }
    }

    #[track_caller]
    fn check(path: &str, workdir: Option<&str>, want: &str) {
        assert_eq!(resolve(path, &user(), workdir).unwrap(), want);
    }

    #[test]
    fn relative_paths_start_at_home_even_with_a_default_directory() {
        check("", None, "/home/user");
        check("", Some("/app"), "/app");
        check("x/../y/", Some("/app"), "/home/user/y");
        check("~", None, "/home/user");
        check("~/a", None, "/home/user/a");
        check("/home/user/../x/", None, "/home/user/../x/");
    }

    #[test]
    fn another_users_home_is_refused() {
        assert_eq!(resolve("~root/x", &user(), None), Err(ForeignHome));
    }

    #[test]
    fn names_and_parents_ignore_trailing_slashes() {
        assert_eq!((base_name("/a/b/"), parent("/a/b/")), ("b", "/a"));
        assert_eq!((base_name("/a"), parent("/a")), ("a", "/"));
        assert_eq!((base_name("/"), parent("/")), ("/", "/"));
    }
}
