//! Memory that processes share.

use std::fmt;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::ftruncate;

/// A memfd of a fixed size, mapped. All that has a descriptor of it can change its words at any time, and nothing else about
/// it.
pub(super) struct SharedWords {
    start: NonNull<AtomicU64>,
    count: usize,
    descriptor: OwnedFd,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only reached as atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Zeroes.
    pub(super) fn create(name: &str, count: usize) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let descriptor = memfd_create(name, flags)?;
        let length = count
            .checked_mul(size_of::<AtomicU64>())
            .ok_or(io::ErrorKind::InvalidInput)?;
        ftruncate(
            &descriptor,
            length.try_into().map_err(|_| io::ErrorKind::InvalidInput)?,
        )?;
        // Whoever gets the descriptor, a script perhaps, could else shorten the memory under the others' feet: SIGBUS.
        fcntl(&descriptor, FcntlArg::F_ADD_SEALS(seals()))?;
        Self::map(descriptor, count)
    }

    /// What another process created.
    pub(super) fn open(descriptor: OwnedFd) -> io::Result<Self> {
        let sealed = SealFlag::from_bits_truncate(fcntl(&descriptor, FcntlArg::F_GET_SEALS)?);
        if !sealed.contains(seals()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "shared memory whose size may change",
            ));
        }
        let length = usize::try_from(fstat(&descriptor)?.st_size)
            .map_err(|_| io::ErrorKind::InvalidInput)?;
        Self::map(descriptor, length / size_of::<AtomicU64>())
    }

    fn map(descriptor: OwnedFd, count: usize) -> io::Result<Self> {
        let length =
            NonZeroUsize::new(count * size_of::<AtomicU64>()).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no other memory. The file has `length` bytes,
        // and its seals keep it so.
        let start = unsafe {
            mmap(
                None,
                length,
                protection,
                MapFlags::MAP_SHARED,
                &descriptor,
                0,
            )
        }?;
        Ok(Self {
            start: start.cast(),
            count,
            descriptor,
        })
    }

    pub(super) fn words(&self) -> &[AtomicU64] {
        // SAFETY: `map` mapped `count` words, aligned to a page and readable and writable until `drop`; the bits of an
        // AtomicU64 may be any, and other processes change them by atomic stores.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.count) }
    }
}

fn seals() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: `map` mapped exactly this, and no slice of it outlives `self`.
        let _ = unsafe { munmap(self.start.cast(), self.count * size_of::<AtomicU64>()) };
    }
}

impl AsFd for SharedWords {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl fmt::Debug for SharedWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedWords")
            .field("count", &self.count)
            .field("descriptor", &self.descriptor)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn two_mappings_are_one_memory() {
        let one = SharedWords::create("test", 1000).unwrap();
        let two = SharedWords::open(one.as_fd().try_clone_to_owned().unwrap()).unwrap();
        one.words()[999].store(7, Ordering::Relaxed);
        assert_eq!(two.words()[999].load(Ordering::Relaxed), 7);
        assert_eq!(two.words().len(), 1000);
    }

    #[test]
    fn nobody_can_take_the_memory_away() {
        let words = SharedWords::create("test", 1000).unwrap();
        assert!(ftruncate(&words, 0).is_err());
        assert!(ftruncate(&words, 1 << 20).is_err());
    }

    #[test]
    fn memory_that_may_shrink_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        assert!(SharedWords::open(file.into()).is_err());
    }
}
