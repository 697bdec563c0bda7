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
        let buffers = &mut [IoSliceMut::new(buffer)];
        match preadv2(file, buffers, offset, ReadWriteFlags::NOWAIT) {
            Ok(read) if read == wanted => Some(Ok(())),
            // A part is there, or the file ends: a read that waits will tell.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => None,
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
