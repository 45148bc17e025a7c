//! Mode bits in letters, the way Go's `fs.FileMode` prints them.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

/// Type and special bits first, one letter each (`-` for none), then the nine permission bits.
pub(super) fn permissions(found: &std::fs::Metadata) -> String {
    let kind = found.file_type();
    let mode = found.mode();
    // In the order in which Go has its bits: `dalTLDpSugct?`.
    let letters = [
        ('d', kind.is_dir()),
        ('L', kind.is_symlink()),
        ('D', kind.is_block_device() || kind.is_char_device()),
        ('p', kind.is_fifo()),
        ('S', kind.is_socket()),
        ('u', mode & libc::S_ISUID != 0),
        ('g', mode & libc::S_ISGID != 0),
        ('c', kind.is_char_device()),
        ('t', mode & libc::S_ISVTX != 0),
    ];
    let mut text: String = letters.iter().filter(|(_, set)| *set).map(|(letter, _)| *letter).collect();
    if text.is_empty() {
        text.push('-');
    }
    for (at, letter) in "rwxrwxrwx".chars().enumerate() {
        text.push(if mode & (0o400 >> at) != 0 { letter } else { '-' });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    #[track_caller]
    fn check(path: &std::path::Path, want: &str) {
        assert_eq!(permissions(&fs::symlink_metadata(path).unwrap()), want);
    }

    #[test]
    fn letters_say_type_special_bits_and_permissions() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "").unwrap();
        for (mode, want) in
            [(0o644, "-rw-r--r--"), (0o4755, "urwxr-xr-x"), (0o2711, "grwx--x--x"), (0o000, "----------")]
        {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            check(&file, want);
        }
        let link = directory.path().join("l");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        check(&link, "Lrwxrwxrwx");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o1777)).unwrap();
        check(directory.path(), "dtrwxrwxrwx");
        check(std::path::Path::new("/dev/null"), "Dcrw-rw-rw-");
    }
}
