//! The kernel's events of a directory, or of a whole tree, as changes with names relative to its root.
//!
//! The kernel watches single directories. A tree is watched by watching each of its directories, and by adding new
//! ones as they appear. Between a directory's creation and its watch, entries may be made in it: they are looked for,
//! and told as creations. What is then told twice is told once.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use sandbar_wire::envd::filesystem::EventType;

/// One change in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// Relative to the root; `.` is the root itself.
    pub(super) name: String,
    pub(super) kind: EventType,
}

/// Why a tree cannot be watched any more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TreeError {
    #[error("inotify: {0}")]
    Kernel(#[from] Errno),
    #[error("events came faster than they were read")]
    Overflow,
}

/// A watched directory, with those below it if so wanted.
#[derive(Debug)]
pub(super) struct Tree {
    inotify: Inotify,
    root: PathBuf,
    recursive: bool,
    /// Watched directories, relative to the root; the root itself is empty.
    directories: HashMap<WatchDescriptor, PathBuf>,
    /// Told as created because they were found, in this reading and the one before: the kernel's own word comes behind
    /// the entry, and may come late.
    found: [HashSet<PathBuf>; 2],
}

/// What is remembered while the kernel's queue is read to its end.
#[derive(Default)]
struct Reading {
    changes: Vec<Change>,
    /// Directories that left a name, by the number that their arrival elsewhere would carry.
    departed: HashMap<u32, PathBuf>,
}

impl Tree {
    pub(super) fn watch(root: &Path, recursive: bool) -> Result<Self, TreeError> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let mut tree = Self {
            inotify,
            root: root.to_owned(),
            recursive,
            directories: HashMap::new(),
            found: Default::default(),
        };
        let descriptor = tree.inotify.add_watch(root, mask())?;
        tree.directories.insert(descriptor, PathBuf::new());
        if recursive {
            tree.add_below(Path::new(""), |_| {})?;
        }
        Ok(tree)
    }

    /// Reads the kernel's queue to its end. Never waits.
    pub(super) fn take(&mut self) -> Result<Vec<Change>, TreeError> {
        let mut reading = Reading::default();
        self.found.swap(0, 1);
        self.found[0].clear();
        loop {
            match self.inotify.read_events() {
                Ok(events) => {
                    for event in events {
                        self.read(event, &mut reading)?;
                    }
                }
                Err(Errno::EAGAIN) => break,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // Whatever did not arrive under another name has left the tree.
        for (_, gone) in std::mem::take(&mut reading.departed) {
            self.remove_below(&gone);
        }
        Ok(reading.changes)
    }

    fn read(&mut self, event: InotifyEvent, reading: &mut Reading) -> Result<(), TreeError> {
        let mask = event.mask;
        if mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
            return Err(TreeError::Overflow);
        }
        let Some(directory) = self.directories.get(&event.wd) else {
            return Ok(()); // an event from before a watch was removed
        };
        if mask.contains(AddWatchFlags::IN_IGNORED) {
            self.directories.remove(&event.wd);
            return Ok(());
        }
        let Some(name) = event.name else {
            // Of directories below the root the parent tells the same.
            if directory.as_os_str().is_empty() {
                reading.changes.extend(kinds(mask).map(|kind| Change { name: ".".to_owned(), kind }));
                if mask.contains(AddWatchFlags::IN_MOVE_SELF) {
                    self.remove_below(Path::new(""));
                }
            }
            return Ok(());
        };
        let at = directory.join(name);
        let appeared = mask.intersects(AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO);
        // Whatever happens to it next, its creation was this event or can no longer come.
        let was_found = self.found.iter_mut().any(|found| found.remove(&at));
        if !(appeared && was_found) {
            let name = at.to_string_lossy().into_owned();
            reading.changes.extend(kinds(mask).map(|kind| Change { name: name.clone(), kind }));
        }
        if self.recursive && mask.contains(AddWatchFlags::IN_ISDIR) {
            if mask.contains(AddWatchFlags::IN_MOVED_FROM) {
                reading.departed.insert(event.cookie, at);
            } else if appeared {
                match reading.departed.remove(&event.cookie).filter(|_| event.cookie != 0) {
                    Some(old) => self.rename_below(&old, &at),
                    None => self.adopt(&at, reading)?,
                }
            }
        }
        Ok(())
    }

    /// Watches a directory that has appeared, and tells what is in it already.
    fn adopt(&mut self, at: &Path, reading: &mut Reading) -> Result<(), TreeError> {
        if !self.add(at)? {
            return Ok(());
        }
        let mut found = Vec::new();
        self.add_below(at, |entry| found.push(entry.to_owned()))?;
        for entry in found {
            let name = entry.to_string_lossy().into_owned();
            reading.changes.push(Change { name, kind: EventType::Create });
            self.found[0].insert(entry);
        }
        Ok(())
    }

    /// Watches all directories below `top`, and shows every entry on the way.
    fn add_below(&mut self, top: &Path, mut show: impl FnMut(&Path)) -> Result<(), TreeError> {
        let mut waiting = vec![top.to_owned()];
        while let Some(directory) = waiting.pop() {
            let Ok(entries) = fs::read_dir(self.root.join(&directory)) else {
                continue; // gone again, or not ours to read
            };
            for entry in entries.flatten() {
                let at = directory.join(entry.file_name());
                show(&at);
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && self.add(&at)? {
                    waiting.push(at);
                }
            }
        }
        Ok(())
    }

    /// Watches one directory; `false` when it cannot be, because it is gone or not readable.
    fn add(&mut self, at: &Path) -> Result<bool, TreeError> {
        let flags = mask() | AddWatchFlags::IN_ONLYDIR | AddWatchFlags::IN_DONT_FOLLOW;
        match self.inotify.add_watch(&self.root.join(at), flags) {
            Ok(descriptor) => {
                self.directories.insert(descriptor, at.to_owned());
                Ok(true)
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES | Errno::ELOOP) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn rename_below(&mut self, old: &Path, new: &Path) {
        for directory in self.directories.values_mut() {
            if let Ok(rest) = directory.strip_prefix(old) {
                // Joining an empty rest would leave a slash at the end.
                *directory = if rest.as_os_str().is_empty() { new.to_owned() } else { new.join(rest) };
            }
        }
    }

    fn remove_below(&mut self, top: &Path) {
        let inotify = &self.inotify;
        self.directories.retain(|descriptor, directory| {
            let gone = directory.starts_with(top);
            if gone {
                let _ = inotify.rm_watch(*descriptor); // deleted meanwhile: the kernel has removed it
            }
            !gone
        });
    }
}

impl AsFd for Tree {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

fn mask() -> AddWatchFlags {
    AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ATTRIB
}

/// What one event of the kernel says, in the order clients expect.
fn kinds(mask: AddWatchFlags) -> impl Iterator<Item = EventType> {
    const KINDS: [(AddWatchFlags, EventType); 5] = [
        (AddWatchFlags::IN_CREATE.union(AddWatchFlags::IN_MOVED_TO), EventType::Create),
        (AddWatchFlags::IN_MOVED_FROM.union(AddWatchFlags::IN_MOVE_SELF), EventType::Rename),
        (AddWatchFlags::IN_ATTRIB, EventType::Chmod),
        (AddWatchFlags::IN_MODIFY, EventType::Write),
        (AddWatchFlags::IN_DELETE.union(AddWatchFlags::IN_DELETE_SELF), EventType::Remove),
    ];
    KINDS.into_iter().filter(move |(bits, _)| mask.intersects(*bits)).map(|(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use EventType::{Chmod, Create, Remove, Rename, Write};
    use std::os::unix::fs::PermissionsExt as _;

    struct Watched {
        directory: tempfile::TempDir,
        tree: Tree,
    }

    fn watched(recursive: bool) -> Watched {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("sub")).unwrap();
        let tree = Tree::watch(directory.path(), recursive).unwrap();
        Watched { directory, tree }
    }

    impl Watched {
        fn at(&self, name: &str) -> PathBuf {
            self.directory.path().join(name)
        }

        #[track_caller]
        fn check(&mut self, want: &[(EventType, &str)]) {
            let got = self.tree.take().unwrap();
            let got: Vec<_> = got.iter().map(|change| (change.kind, change.name.as_str())).collect();
            assert_eq!(got, want);
        }
    }

    #[test]
    fn changes_of_entries_are_told_in_order() {
        let mut w = watched(false);
        fs::write(w.at("f"), "x").unwrap();
        w.check(&[(Create, "f"), (Write, "f")]);
        fs::set_permissions(w.at("f"), fs::Permissions::from_mode(0o600)).unwrap();
        w.check(&[(Chmod, "f")]);
        fs::rename(w.at("f"), w.at("g")).unwrap();
        w.check(&[(Rename, "f"), (Create, "g")]);
        fs::remove_file(w.at("g")).unwrap();
        w.check(&[(Remove, "g")]);
        fs::write(w.at("sub/deep"), "x").unwrap();
        w.check(&[]);
    }

    #[test]
    fn the_root_itself_is_a_dot_and_silent_once_it_is_gone() {
        let mut w = watched(true);
        fs::set_permissions(w.directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
        w.check(&[(Chmod, ".")]);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(w.directory.path(), elsewhere.path().join("moved")).unwrap();
        w.check(&[(Rename, ".")]);
        fs::write(elsewhere.path().join("moved/f"), "x").unwrap();
        w.check(&[]);
    }

    #[test]
    fn a_removed_root_is_told_once() {
        let mut w = watched(true);
        fs::remove_dir(w.at("sub")).unwrap();
        fs::remove_dir(w.directory.path()).unwrap();
        w.check(&[(Remove, "sub"), (Remove, ".")]);
    }

    #[test]
    fn directories_below_are_told_by_their_parents_only() {
        let mut w = watched(true);
        fs::write(w.at("sub/f"), "x").unwrap();
        w.check(&[(Create, "sub/f"), (Write, "sub/f")]);
        fs::set_permissions(w.at("sub"), fs::Permissions::from_mode(0o700)).unwrap();
        w.check(&[(Chmod, "sub")]);
        fs::remove_dir_all(w.at("sub")).unwrap();
        w.check(&[(Remove, "sub/f"), (Remove, "sub")]);
    }

    #[test]
    fn what_was_made_before_its_directory_was_watched_is_told_once() {
        let mut w = watched(true);
        fs::create_dir_all(w.at("x/y/z")).unwrap();
        fs::write(w.at("x/y/z/f"), "x").unwrap();
        w.check(&[(Create, "x"), (Create, "x/y"), (Create, "x/y/z"), (Create, "x/y/z/f")]);
        fs::write(w.at("x/y/z/g"), "x").unwrap();
        w.check(&[(Create, "x/y/z/g"), (Write, "x/y/z/g")]);
    }

    #[test]
    fn a_directory_is_followed_within_the_tree_and_not_out_of_it() {
        let mut w = watched(true);
        fs::create_dir(w.at("sub/deep")).unwrap();
        w.check(&[(Create, "sub/deep")]);
        fs::rename(w.at("sub"), w.at("new")).unwrap();
        w.check(&[(Rename, "sub"), (Create, "new")]);
        fs::write(w.at("new/deep/f"), "").unwrap();
        w.check(&[(Create, "new/deep/f")]);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::rename(w.at("new"), elsewhere.path().join("out")).unwrap();
        w.check(&[(Rename, "new")]);
        fs::write(elsewhere.path().join("out/deep/g"), "").unwrap();
        w.check(&[]);
    }
}
