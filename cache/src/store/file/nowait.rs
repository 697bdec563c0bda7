//! Reading what is in the page cache, and nothing else.

use std::fs::File;
use std::io;

#[cfg(target_os = "linux")]
use std::io::IoSliceMut;
use std::sync::atomic::AtomicBool;
#[cfg(target_os = "linux")]
use std::sync::atomic::Ordering;

/// Reads without waiting, where the file system can.
#[derive(Debug, Default)]
pub(super) struct NoWait {
    /// It cannot: it is not asked again.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux is ever asked")
    )]
    impossible: AtomicBool,
    /// It cannot because it has no disk: no read waits there, unless memory is so short that it is swapped out.
    #[cfg_attr(
        not(target_os = "linux"),
        expect(dead_code, reason = "only Linux is ever asked")
    )]
    is_memory: AtomicBool,
}

impl NoWait {
    /// Fills the buffer from that offset. `None`: some of it is not in memory, or that cannot be told.
    #[cfg(target_os = "linux")]
    pub(super) fn read(
        &self,
        file: &File,
        buffer: &mut [u8],
        offset: u64,
    ) -> Option<io::Result<()>> {
        use rustix::io::{Errno, ReadWriteFlags, preadv2};
        if self.impossible.load(Ordering::Relaxed) {
            return None;
        }
        let wanted = buffer.len();
        let flags = if self.is_memory.load(Ordering::Relaxed) {
            ReadWriteFlags::empty()
        } else {
            ReadWriteFlags::NOWAIT
        };
        match preadv2(file, &mut [IoSliceMut::new(buffer)], offset, flags) {
            Ok(read) if read == wanted => Some(Ok(())),
            // A part is there, or the file ends: a read that waits will tell.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => None,
            Err(Errno::OPNOTSUPP) if flags == ReadWriteFlags::NOWAIT && lies_in_memory(file) => {
                self.is_memory.store(true, Ordering::Relaxed);
                self.read(file, buffer, offset)
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                self.impossible.store(true, Ordering::Relaxed);
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    /// There is no such read here.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read(&self, _: &File, _: &mut [u8], _: u64) -> Option<io::Result<()>> {
        None
    }
}

/// Whether a file lies on a tmpfs.
#[cfg(target_os = "linux")]
fn lies_in_memory(file: &File) -> bool {
    /// `TMPFS_MAGIC` of linux/magic.h.
    const TMPFS: u64 = 0x0102_1994;
    rustix::fs::fstatfs(file).is_ok_and(|statistics| statistics.f_type as u64 == TMPFS)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_memory_is_read_without_waiting() {
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else {
            return;
        };
        io::Write::write_all(&mut file, b"abc").unwrap();
        let mut read = [0; 2];
        let nowait = NoWait::default();
        assert!(
            nowait
                .read(&file, &mut read, 1)
                .is_some_and(|it| it.is_ok())
        );
        assert_eq!(&read, b"bc");
        assert!(nowait.read(&file, &mut read, 2).is_none(), "beyond the end");
    }
}
