//! What kind of file system a file is on.

use std::fs::File;
use std::os::fd::AsFd as _;

use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, fstatfs};

/// Source: linux include/uapi/linux/magic.h.
const SYSFS_MAGIC: FsType = FsType(0x6265_6572);

/// Whether the file is the kernel's: made up as it is read, of no known size, without attributes.
pub(super) fn is_virtual(file: &File) -> bool {
    fstatfs(file.as_fd())
        .is_ok_and(|volume| [PROC_SUPER_MAGIC, SYSFS_MAGIC].contains(&volume.filesystem_type()))
}
