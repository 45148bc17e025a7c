//! Lists a directory, to a depth, in the order clients compare.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sandbar_wire::envd::filesystem::EntryInfo;

use super::entry::entry_info;
use super::error::Error;
use crate::accounts::Accounts;

/// Most entries of one answer. Beyond that a listing is of no use and its message too large to send.
const ENTRIES_MAX: usize = 200_000;

/// All entries below `path` down to `depth` levels: depth first, sorted by name within each directory.
///
/// A link to a directory may be listed; its entries stand under the link's own path. Links found on the way are not
/// followed. Entries that disappear meanwhile are left out.
pub(super) fn list(path: &str, depth: u32, accounts: &Accounts) -> Result<Vec<EntryInfo>, Error> {
    let real = fs::canonicalize(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => Error::NotFound(path.to_owned()),
        _ if source.raw_os_error() == Some(libc::ELOOP) => Error::LinkLoop(path.to_owned()),
        _ => Error::Io { action: "resolve", path: path.to_owned(), source },
    })?;
    let failed = |source| Error::Io { action: "read directory", path: path.to_owned(), source };
    if !fs::metadata(&real).map_err(failed)?.is_dir() {
        return Err(Error::NotADirectory(path.to_owned()));
    }

    // One level per element, names still to visit in reverse: a deep tree must not overflow our stack.
    let mut levels =
        vec![Level { directory: PathBuf::from(path), names: sorted_names(&real).map_err(failed)? }];
    let mut entries = Vec::new();
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            levels.pop();
            continue;
        };
        let at = level.directory.join(&name);
        let Ok(entry) = entry_info(&at.to_string_lossy(), accounts) else {
            continue;
        };
        if entries.len() == ENTRIES_MAX {
            let source = io::Error::other(format!("more than {ENTRIES_MAX} entries"));
            return Err(Error::Io { action: "list", path: path.to_owned(), source });
        }
        let descend = levels.len() < depth.max(1) as usize
            && fs::symlink_metadata(&at).is_ok_and(|found| found.is_dir());
        entries.push(entry);
        if descend && let Ok(names) = sorted_names(&at) {
            levels.push(Level { directory: at, names });
        }
    }
    Ok(entries)
}

struct Level {
    directory: PathBuf,
    names: Vec<OsString>,
}

/// Names in a directory, the last one first.
fn sorted_names(directory: &Path) -> io::Result<Vec<OsString>> {
    let mut names: Vec<_> =
        fs::read_dir(directory)?.filter_map(|entry| entry.ok().map(|entry| entry.file_name())).collect();
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(path: &Path, depth: u32) -> Vec<String> {
        let entries = list(path.to_str().unwrap(), depth, &Accounts::default()).unwrap();
        let prefix = format!("{}/", path.display());
        entries.into_iter().map(|entry| entry.path.strip_prefix(&prefix).unwrap().to_owned()).collect()
    }

    #[test]
    fn entries_come_depth_first_and_sorted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        fs::create_dir_all(root.join("subdir1/subdir1_1")).unwrap();
        fs::create_dir_all(root.join("subdir2")).unwrap();
        fs::write(root.join("file1.txt"), "").unwrap();
        fs::write(root.join("subdir1/subdir1_1/deep"), "").unwrap();
        std::os::unix::fs::symlink("subdir1", root.join("link")).unwrap();
        assert_eq!(names(root, 0), ["file1.txt", "link", "subdir1", "subdir2"]);
        assert_eq!(names(root, 2), ["file1.txt", "link", "subdir1", "subdir1/subdir1_1", "subdir2"]);
        assert_eq!(names(root, 9).len(), 6);
        assert_eq!(names(&root.join("link"), 1), ["subdir1_1"]);
    }

    #[test]
    fn what_is_no_directory_has_its_own_error() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        fs::write(at("f"), "").unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        let accounts = Accounts::default();
        assert!(matches!(list(&at("f"), 1, &accounts), Err(Error::NotADirectory(_))));
        assert!(matches!(list(&at("none"), 1, &accounts), Err(Error::NotFound(_))));
        assert!(matches!(list(&at("loop"), 1, &accounts), Err(Error::LinkLoop(_))));
    }
}
