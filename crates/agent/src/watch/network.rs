//! File systems where what others do is not seen.

use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

/// NFS, CIFS, SMB, SMB2, FUSE. Source: linux include/uapi/linux/magic.h, fs/smb/client/cifsfs.h, fs/fuse/inode.c.
const NETWORK: [FsType; 5] =
    [FsType(0x6969), FsType(0xFF53_4D42), FsType(0x517B), FsType(0xFE53_4D42), FsType(0x6573_5546)];

/// Whether the path is on one of them. One that cannot be asked is not.
pub(super) fn is_network(path: &Path) -> bool {
    statfs(path).is_ok_and(|volume| NETWORK.contains(&volume.filesystem_type()))
}
