//! Images of empty file systems: formatted once for each size, then cloned.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use camino::Utf8Path;
use rustix::fs::{SeekFrom, ioctl_ficlone, seek};
use rustix::io::Errno;
use sandbar_model::Mib;

use super::ScratchError;
use crate::Reporter;
use crate::program::Program;

/// Takes milliseconds; a host that is that busy will not start a sandbox either.
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);

/// Formats a new image of `size` at `path`.
pub(super) fn format(path: &Utf8Path, size: Mib) -> Result<(), ScratchError> {
    // Formatted under another name, so that nothing incomplete is ever cloned.
    let unfinished = path.with_extension("tmp");
    let failed = |source| ScratchError::io("make", &unfinished)(source);
    File::create(&unfinished).and_then(|file| file.set_len(size.bytes())).map_err(failed)?;
    Program::new("/usr/sbin/mkfs.ext4", FORMAT_DEADLINE)
        .args(["-q", "-F", "-O", "^has_journal,^resize_inode", "-m", "0"])
        // A sandbox's writes are in a handful of files: few inodes make small tables, which can then be written here
        // instead of by a kernel thread in each clone.
        .args(["-N", "1024", "-E", "lazy_itable_init=0,nodiscard"])
        .args([unfinished.as_str()])
        .run("scratch", &Reporter::silent())
        .map_err(|source| ScratchError::Format { size, source })?;
    fs::rename(&unfinished, path).map_err(ScratchError::io("name", path))
}

/// Makes `to` a sparse copy of `from`; shares its blocks where the file system can do that.
pub(super) fn clone(from: &Utf8Path, to: &Utf8Path) -> io::Result<()> {
    let source = File::open(from)?;
    // What a sandbox writes is nobody else's business on the host.
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    if ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let size = source.metadata()?.len();
    target.set_len(size)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut position = 0;
    while let Some((start, end)) = next_extent(&source, position)? {
        position = start;
        while position < end {
            let piece = (end - position).min(buffer.len() as u64) as usize;
            source.read_exact_at(&mut buffer[..piece], position)?;
            target.write_all_at(&buffer[..piece], position)?;
            position += piece as u64;
        }
    }
    Ok(())
}

/// Where data begins and ends, at or after `position`.
fn next_extent(file: &File, position: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match seek(file, SeekFrom::Data(position)) {
        // Nothing but a hole up to the end.
        Err(Errno::NXIO) => return Ok(None),
        start => start?,
    };
    Ok(Some((start, seek(file, SeekFrom::Hole(start))?)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use camino::Utf8PathBuf;

    use super::*;

    #[test]
    fn a_clone_has_the_same_data_and_the_same_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| Utf8PathBuf::from_path_buf(dir.path().join(name)).unwrap();
        let (from, to) = (path("from"), path("to"));
        let source = File::create(&from).unwrap();
        source.set_len(64 << 20).unwrap();
        source.write_all_at(&[7; 300_000], 10 << 20).unwrap();
        source.write_all_at(b"end", (64 << 20) - 3).unwrap();
        clone(&from, &to).unwrap();
        let (mut want, mut got) = (vec![0; 1 << 20], vec![0; 1 << 20]);
        let target = File::open(&to).unwrap();
        let source = File::open(&from).unwrap();
        for at in [0, 10 << 20, 63 << 20] {
            source.read_exact_at(&mut want, at).unwrap();
            target.read_exact_at(&mut got, at).unwrap();
            assert!(want == got, "differs at {at}");
        }
        let metadata = fs::metadata(&to).unwrap();
        assert_eq!(metadata.len(), 64 << 20);
        assert!(metadata.blocks() * 512 < 1 << 20, "the clone is not sparse");
    }
}
