//! One entry, described for a client.

use std::fs::{self, FileType as KernelType, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use sandbar_wire::envd::Timestamp;
use sandbar_wire::envd::filesystem::{EntryInfo, FileType};

use super::permissions::permissions;
use crate::accounts::Accounts;
use crate::metadata;
use crate::paths::base_name;

/// Permission bits without the special ones.
const PERMISSION_BITS: u32 = 0o777;

/// Describes the entry at `path`, a link as itself.
///
/// Its type and mode are those of what it finally points to: clients only know files and directories.
pub(crate) fn entry_info(path: &str, accounts: &Accounts) -> io::Result<EntryInfo> {
    let found = fs::symlink_metadata(path)?;
    let mut entry = EntryInfo {
        name: base_name(path).to_owned(),
        path: path.to_owned(),
        size: i64::try_from(found.size()).unwrap_or(i64::MAX),
        permissions: permissions(&found),
        owner: accounts.user_name(found.uid()),
        group: accounts.group_name(found.gid()),
        modified_time: modified(&found),
        metadata: metadata::load(Path::new(path)),
        ..EntryInfo::default()
    };
    if found.file_type().is_symlink() {
        entry.is_symlink = true;
        match fs::canonicalize(path).and_then(|target| Ok((fs::metadata(&target)?, target))) {
            Ok((target_found, target)) => {
                entry.r#type = kind(target_found.file_type()) as i32;
                entry.mode = target_found.permissions().mode() & PERMISSION_BITS;
                entry.symlink_target = Some(lossy(&target));
            }
            // Broken or a loop: the link stands for itself.
            Err(_) => entry.symlink_target = Some(path.to_owned()),
        }
    } else {
        entry.r#type = kind(found.file_type()) as i32;
        entry.mode = found.permissions().mode() & PERMISSION_BITS;
    }
    Ok(entry)
}

/// What the first protocol version knew of an entry. Its Python client refuses anything else.
pub(super) fn reduced_for_legacy(entry: EntryInfo) -> EntryInfo {
    EntryInfo { name: entry.name, r#type: entry.r#type, path: entry.path, ..EntryInfo::default() }
}

fn kind(kind: KernelType) -> FileType {
    if kind.is_file() {
        FileType::File
    } else if kind.is_dir() {
        FileType::Directory
    } else {
        FileType::Unspecified
    }
}

fn modified(found: &Metadata) -> Option<Timestamp> {
    let at = Timestamp { seconds: found.mtime(), nanos: i32::try_from(found.mtime_nsec()).unwrap_or(0) };
    (at != Timestamp::default()).then_some(at)
}

/// Names that are not UTF-8 reach clients with replacement characters: JSON can carry nothing else.
fn lossy(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
