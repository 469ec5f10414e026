//! Memory as a data path wants it: large tables that cost nothing until they are used, on huge pages
//! where they are offered, and hints that a cache line will be needed.
//!
//! What the tables hold is for their users to say; [`crate::memory`] is something else.

use std::{
    fmt, io,
    num::NonZeroUsize,
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

use nix::{
    errno::Errno,
    sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap},
};

mod sealed {
    pub trait Sealed {}
}

/// Plain words: any bytes are a value, and all zeros are one.
///
/// # Safety
/// Every bit pattern is a valid value, and dropping one does nothing.
pub unsafe trait Words: sealed::Sealed + Copy + Send + Sync + 'static {}

impl<const N: usize> sealed::Sealed for [u32; N] {}
impl<const N: usize> sealed::Sealed for [u64; N] {}
// SAFETY: arrays of integers have neither invalid bit patterns nor anything to drop.
unsafe impl<const N: usize> Words for [u32; N] {}
// SAFETY: as above.
unsafe impl<const N: usize> Words for [u64; N] {}

/// A table of zeros with a fixed number of places, of which each page takes memory when it is first
/// written to.
///
/// It begins at a page, so that places of 64 bytes are cache lines. It never moves and never grows:
/// there is nothing to wait for while it fills, but that the kernel clears a page.
pub struct Table<T: Words> {
    start: NonNull<T>,
    len: usize,
    bytes: NonZeroUsize,
}

/// When a [`Table`] takes its memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Commit {
    /// Page by page, as they are first written to.
    #[default]
    Lazily,
    /// All at once, on huge pages where the kernel offers them (`madvise` or `always` in
    /// `/sys/kernel/mm/transparent_hugepage/enabled`): nothing is waited for later.
    AtOnce,
}

impl<T: Words> Table<T> {
    /// A table of `len` places, all zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::OutOfMemory`] if the address space or, at once, the memory is not to be
    /// had.
    pub fn new(len: usize, commit: Commit) -> io::Result<Self> {
        let bytes = len.max(1).checked_mul(size_of::<T>()).and_then(NonZeroUsize::new);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // Without a reserve: what is never used is not to be refused for want of memory.
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no other memory.
        let start = unsafe { mmap_anonymous(None, bytes, access, flags) }?;
        let table = Self { start: start.cast(), len, bytes };
        if commit == Commit::AtOnce {
            table.advise(MmapAdvise::MADV_HUGEPAGE).or_else(|errno| match errno {
                // A kernel without huge pages has ordinary ones.
                Errno::EINVAL => Ok(()),
                errno => Err(errno),
            })?;
            table.populate()?;
        }
        Ok(table)
    }

    /// Bytes of address space: what it takes when all is written to.
    pub fn bytes(&self) -> usize {
        self.bytes.get()
    }

    fn advise(&self, advice: MmapAdvise) -> nix::Result<()> {
        // SAFETY: the range is our own mapping, and the advice changes no byte in it.
        unsafe { madvise(self.start.cast(), self.bytes.get(), advice) }
    }

    fn populate(&self) -> io::Result<()> {
        // SAFETY: as above: pages are made present, and their bytes stay what they are.
        let done = unsafe {
            libc::madvise(self.start.as_ptr().cast(), self.bytes.get(), libc::MADV_POPULATE_WRITE)
        };
        match Errno::result(done) {
            // Before Linux 5.14: page by page, then.
            Ok(_) | Err(Errno::EINVAL) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

// SAFETY: it owns its mapping as a box does, and what lies there may go between threads.
unsafe impl<T: Words> Send for Table<T> {}
// SAFETY: shared, it is only read.
unsafe impl<T: Words> Sync for Table<T> {}

impl<T: Words> Deref for Table<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is at least so long, aligned to a page, readable, and any bytes are
        // `T`s; it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl<T: Words> DerefMut for Table<T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as for reading, and nobody else has it while `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl<T: Words> Drop for Table<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and no borrow of it outlives `self`.
        let unmapped = unsafe { munmap(self.start.cast(), self.bytes.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of our own");
    }
}

impl<T: Words> fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table")
            .field("start", &self.start)
            .field("len", &self.len)
            .field("bytes", &self.bytes)
            .finish()
    }
}

/// Has the processor fetch the cache line in which `place` begins, for reading soon. It waits for
/// nothing and changes nothing; where it is not known how, it does nothing.
#[inline]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, and every x86-64 processor knows it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}

/// For each word of a cache line, from the lowest bit on, whether its bits under `mask` are those of
/// `wanted`.
#[inline]
pub fn alike(line: &[u32; 16], mask: u32, wanted: u32) -> u16 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_loadu_si128, _mm_movemask_epi8,
            _mm_packs_epi16, _mm_packs_epi32, _mm_set1_epi32,
        };
        // SAFETY: SSE2 is part of x86-64, and the loads lie within `line`: four words each, at 0, 4,
        // 8 and 12.
        unsafe {
            let (mask, wanted) =
                (_mm_set1_epi32(mask.cast_signed()), _mm_set1_epi32(wanted.cast_signed()));
            let quarter = |at: usize| {
                #[expect(clippy::cast_ptr_alignment, reason = "this load takes any address")]
                let words = _mm_loadu_si128(line.as_ptr().add(at).cast::<__m128i>());
                _mm_cmpeq_epi32(_mm_and_si128(words, mask), wanted)
            };
            let low = _mm_packs_epi32(quarter(0), quarter(4));
            let high = _mm_packs_epi32(quarter(8), quarter(12));
            _mm_movemask_epi8(_mm_packs_epi16(low, high)).cast_unsigned() as u16
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let bits = line.iter().enumerate();
        bits.fold(0, |bits, (bit, word)| bits | u16::from(word & mask == wanted) << bit)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_table_is_zeros_and_remembers() {
        for commit in [Commit::Lazily, Commit::AtOnce] {
            let mut table = Table::<[u64; 8]>::new(100_000, commit).unwrap();
            assert_eq!(table.len(), 100_000);
            assert!(table.iter().all(|place| *place == [0; 8]));
            table[99_999][7] = 3;
            prefetch(&table[99_999]);
            assert_eq!((table[99_999][7], table[99_998][7], table.bytes()), (3, 0, 6_400_000));
            assert_eq!(table.as_ptr() as usize % 4096, 0);
        }
    }

    #[test]
    fn an_empty_table_is_one() {
        assert!(Table::<[u32; 16]>::new(0, Commit::AtOnce).unwrap().is_empty());
    }

    #[test]
    fn what_is_not_used_takes_no_memory() {
        // More than most machines have: 1 TiB.
        let mut table = Table::<[u64; 8]>::new(1 << 34, Commit::Lazily).unwrap();
        table[(1 << 34) - 1][0] = 1;
        assert_eq!(table[(1 << 34) - 1][0], 1);
    }

    #[test]
    fn too_much_is_an_error() {
        let error = Table::<[u64; 8]>::new(usize::MAX / 64, Commit::Lazily).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert!(Table::<[u64; 8]>::new(usize::MAX, Commit::Lazily).is_err());
    }

    proptest! {
        #[test]
        fn alike_is_word_by_word(line: [u32; 16], mask: u32, from in 0usize..16, flip: u32) {
            for wanted in [line[from] & mask, flip & mask, flip] {
                for (bit, word) in line.iter().enumerate() {
                    let expected = word & mask == wanted;
                    prop_assert_eq!(alike(&line, mask, wanted) >> bit & 1 == 1, expected);
                }
            }
        }
    }
}
