//! A device that is slow, or broken: a file system of the test's own (FUSE). `slow` takes 100 ms for
//! each read, `bad` fails with an I/O error behind its first 64 KiB.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyEntry, Request,
};

use crate::common::Scratch;

/// Length of either file.
pub const LEN: u64 = 1 << 20;
/// Bytes of `bad` that can be read.
pub const GOOD: u64 = 64 << 10;
pub const SLOWNESS: Duration = Duration::from_millis(100);

const SLOW: INodeNo = INodeNo(2);
const BAD: INodeNo = INodeNo(3);

struct Device;

fn attributes(ino: INodeNo) -> FileAttr {
    let is_root = ino == INodeNo::ROOT;
    FileAttr {
        ino,
        size: if is_root { 0 } else { LEN },
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_root { FileType::Directory } else { FileType::RegularFile },
        perm: if is_root { 0o755 } else { 0o444 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Device {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match name.to_str() {
            Some("slow") => reply.entry(&Duration::ZERO, &attributes(SLOW), Generation(0)),
            Some("bad") => reply.entry(&Duration::ZERO, &attributes(BAD), Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&Duration::ZERO, &attributes(ino));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // Reads ahead that touch the bad part fail as a whole; the kernel then asks page by page.
        if ino == BAD && offset + u64::from(size) > GOOD {
            return reply.error(Errno::EIO);
        }
        if ino == SLOW {
            std::thread::sleep(SLOWNESS);
        }
        reply.data(&vec![b'd'; size as usize]);
    }
}

/// The device, mounted as long as the value lives.
pub struct Mounted {
    place: Scratch,
    session: Option<BackgroundSession>,
}

impl Mounted {
    /// `None`, said loudly, where this cannot be had.
    pub fn new(name: &str) -> Option<Mounted> {
        let place = Scratch::new(name);
        let mut config = Config::default();
        config.n_threads = Some(4);
        match fuser::spawn_mount(Device, &place.0, &config) {
            Ok(session) => Some(Mounted { place, session: Some(session) }),
            Err(error) => {
                println!("!!! SKIPPED: a device of one's own (FUSE) cannot be mounted: {error}");
                None
            }
        }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.place.0.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Files may be open still; the kernel ends it when they are not.
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
    }
}
