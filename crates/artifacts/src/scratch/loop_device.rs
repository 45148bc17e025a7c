//! An image as a block device, and its file system as a mount that is nowhere yet.

use std::fs::{File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};

use camino::{Utf8Path, Utf8PathBuf};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};

/// How often the device that the kernel names may be gone to somebody else before we can take it.
const TRIES: u32 = 64;

// Source: include/uapi/linux/loop.h.
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

const _: () = assert!(mem::size_of::<LoopInfo>() == 232 && mem::size_of::<LoopConfig>() == 304);

/// A loop device. It is free again when it is closed here and no longer mounted.
pub(super) struct LoopDevice {
    path: Utf8PathBuf,
    _open: File,
}

impl LoopDevice {
    pub(super) fn attach(image: &Utf8Path) -> io::Result<Self> {
        let image = OpenOptions::new().read(true).write(true).open(image)?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let mut last = io::Error::from(io::ErrorKind::ResourceBusy);
        for _ in 0..TRIES {
            // SAFETY: the request takes no argument and returns a number.
            let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
            if number < 0 {
                return Err(io::Error::last_os_error());
            }
            let path = Utf8PathBuf::from(format!("/dev/loop{number}"));
            let device = match OpenOptions::new().read(true).write(true).open(&path) {
                // Between the two calls somebody took the device and removed it.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => {
                    last = error;
                    continue;
                }
                device => device?,
            };
            // Without direct I/O every byte is cached twice, and an unmount waits until the second copy is made.
            let configured = configure(&device, &image, LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO)
                // Not every file system can do it.
                .or_else(|error| match error.raw_os_error() {
                    Some(libc::EINVAL) => configure(&device, &image, LO_FLAGS_AUTOCLEAR),
                    _ => Err(error),
                });
            match configured {
                Ok(()) => return Ok(Self { path, _open: device }),
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// Mounts the device's file system without a place.
    pub(super) fn mount(self) -> io::Result<Detached> {
        let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "source", self.path.as_str())?;
        fsconfig_set_flag(&context, "nobarrier")?;
        fsconfig_create(&context)?;
        // The engine maps the guest's memory from a file on it, programs included, so it is not NOEXEC.
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NOATIME;
        Ok(Detached(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?))
    }
}

fn configure(device: &File, image: &File, flags: u32) -> io::Result<()> {
    // SAFETY: both are plain integers and arrays of them, for which zero is a value.
    let mut config: LoopConfig = unsafe { mem::zeroed() };
    config.fd = u32::try_from(image.as_raw_fd()).expect("an open descriptor is not negative");
    config.info.flags = flags;
    // SAFETY: `config` is laid out as the kernel's structure and lives longer than the call.
    match unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A mount that only this descriptor refers to; gone when it is closed before it gets a place.
#[derive(Debug)]
pub(super) struct Detached(OwnedFd);

impl Detached {
    /// Gives the mount its place.
    pub(super) fn attach(self, path: &Utf8Path) -> io::Result<()> {
        Ok(move_mount(&self.0, "", CWD, path.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
    }
}
