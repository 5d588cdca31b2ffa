//! A map's rows as memory: one slice, shared with the kernel or, in tests, on the heap.
//!
//! A mapping of a BPF array is populated at once, whole, and counts as the agent's resident memory though the kernel has it once. So
//! arrays that are large and seldom read are mapped [on demand](Rows::map_on_demand): whole when something borrows
//! the slice, until the next [`release`](Rows::release), or [in part](Rows::part) for as long as the part is held.

use std::alloc::{Layout, handle_alloc_error};
use std::ffi::c_void;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, Range};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use rustix::mm::{self, MapFlags, ProtFlags};

/// A row of a map: fixed layout, valid for all bit patterns, without drop glue.
///
/// # Safety
///
/// Zeroed memory, and whatever the kernel program writes, must be a valid value.
pub(crate) unsafe trait Row {}

/// The rows of one array.
///
/// Memory that cannot be had for a mapping on demand ends the process, as it does for any allocation; packets are balanced on.
pub(crate) struct Rows<T: Row> {
    source: Source<T>,
    length: usize,
}

enum Source<T: Row> {
    /// Mapped as long as the rows live.
    Kept(Mapping<T>),
    /// A `BPF_F_MMAPABLE` array that is mapped when it is asked for.
    OnDemand { array: OwnedFd, whole: OnceLock<Mapping<T>> },
}

/// Rows of an array, for as long as this lives.
pub(crate) struct Part<'a, T: Row> {
    rows: NonNull<[T]>,
    /// Where they are not of a mapping that is there anyhow.
    _own: Option<Mapping<T>>,
    _of: PhantomData<&'a [T]>,
}

/// Rows in memory that is unmapped at the end.
struct Mapping<T: Row> {
    rows: NonNull<[T]>,
    base: NonNull<c_void>,
    bytes: usize,
}

// SAFETY: rows hold plain data and atomics; the mapping belongs to the process, not to a thread.
unsafe impl<T: Row + Send> Send for Mapping<T> {}
// SAFETY: as above; shared references allow reads and atomic operations only.
unsafe impl<T: Row + Sync> Sync for Mapping<T> {}

impl<T: Row> Rows<T> {
    /// Maps a `BPF_F_MMAPABLE` array of `length` rows.
    pub(crate) fn map(array: impl AsFd, length: u32) -> io::Result<Self> {
        let length = length as usize;
        Ok(Self { source: Source::Kept(Mapping::of_array(array.as_fd(), 0..length)?), length })
    }

    /// Will map such an array when it is needed; fails now if that cannot be.
    pub(crate) fn map_on_demand(array: impl AsFd, length: u32) -> io::Result<Self> {
        let (array, length) = (array.as_fd().try_clone_to_owned()?, length as usize);
        // An array that is shorter, or that cannot be mapped, shows at its end.
        Mapping::<T>::of_array(array.as_fd(), length.saturating_sub(1)..length)?;
        Ok(Self { source: Source::OnDemand { array, whole: OnceLock::new() }, length })
    }

    /// As many rows of zeros, shared with nobody.
    #[cfg(test)]
    pub(crate) fn private(length: u32) -> io::Result<Self> {
        let length = length as usize;
        Ok(Self { source: Source::Kept(Mapping::of_zeros(length)?), length })
    }

    /// How many there are. Maps nothing.
    pub(crate) const fn count(&self) -> usize {
        self.length
    }

    /// Gives up the mapping of an array that is mapped on demand.
    pub(crate) fn release(&mut self) {
        if let Source::OnDemand { whole, .. } = &mut self.source {
            whole.take();
        }
    }

    /// Some of the rows, mapped while they are held unless all are mapped anyhow. Cut to the rows that there are.
    pub(crate) fn part(&self, range: Range<usize>) -> Part<'_, T> {
        let range = range.start.min(self.length)..range.end.min(self.length);
        match &self.source {
            Source::OnDemand { array, whole } if whole.get().is_none() && !range.is_empty() => {
                let own = on_demand(array.as_fd(), range);
                Part { rows: own.rows, _own: Some(own), _of: PhantomData }
            }
            _ => Part { rows: self.whole().slice(range), _own: None, _of: PhantomData },
        }
    }

    /// Writes a row that no packet can reach.
    pub(crate) fn write(&mut self, index: usize, row: T) {
        self.write_all(index, std::iter::once(row));
    }

    /// Writes rows that no packet can reach, one after another from `first` on.
    pub(crate) fn write_all(&mut self, first: usize, rows: impl ExactSizeIterator<Item = T>) {
        let end = first + rows.len();
        assert!(end <= self.length, "row {} of {}", end.saturating_sub(1), self.length);
        let part = self.part(first..end);
        for (index, row) in rows.enumerate().take(part.len()) {
            // SAFETY: in bounds, and `&mut self` says that no reference to a row is alive in this process. The pointer is the
            // mapping's own, which may be written. Volatile, since the reader is outside of what the compiler can see.
            unsafe { part.rows.cast::<T>().add(index).write_volatile(row) }
        }
    }

    fn whole(&self) -> &Mapping<T> {
        match &self.source {
            Source::Kept(mapping) => mapping,
            Source::OnDemand { array, whole } => {
                whole.get_or_init(|| on_demand(array.as_fd(), 0..self.length))
            }
        }
    }
}

fn on_demand<T: Row>(array: BorrowedFd<'_>, range: Range<usize>) -> Mapping<T> {
    let layout = Layout::array::<T>(range.len()).unwrap_or(Layout::new::<T>());
    Mapping::of_array(array, range).unwrap_or_else(|_| handle_alloc_error(layout))
}

impl<T: Row> Mapping<T> {
    /// Maps the pages that have these rows. The kernel rounds an array's elements up to 8 bytes, which every row is a multiple
    /// of, and its whole to pages.
    fn of_array(array: BorrowedFd<'_>, range: Range<usize>) -> io::Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let page = rustix::param::page_size();
        let begin = range.start * size_of::<T>();
        let offset = begin - begin % page;
        let bytes = (range.end * size_of::<T>()).next_multiple_of(page) - offset;
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mm::mmap(ptr::null_mut(), bytes, protection, flags, array, offset as u64)? };
        Self::over(base, bytes, begin - offset, range.len())
    }

    #[cfg(test)]
    fn of_zeros(length: usize) -> io::Result<Self> {
        let bytes = (length * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mm::mmap_anonymous(ptr::null_mut(), bytes, protection, MapFlags::PRIVATE)? };
        Self::over(base, bytes, 0, length)
    }

    /// `skipped` bytes of the mapping are of rows before.
    fn over(base: *mut c_void, bytes: usize, skipped: usize, length: usize) -> io::Result<Self> {
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: inside of the mapping, which begins with the page that has the first row.
        let first = unsafe { base.cast::<u8>().add(skipped) }.cast();
        Ok(Self { rows: NonNull::slice_from_raw_parts(first, length), base, bytes })
    }

    /// Some of the rows; in bounds, as the caller has cut the range.
    fn slice(&self, range: Range<usize>) -> NonNull<[T]> {
        let length = self.rows.len();
        let (start, end) = (range.start.min(length), range.end.min(length));
        // SAFETY: not beyond the end.
        let first = unsafe { self.rows.cast::<T>().add(start) };
        NonNull::slice_from_raw_parts(first, end.saturating_sub(start))
    }
}

impl<T: Row> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made, and nothing borrows from it any more.
        // Failing to unmap would only leak address space.
        let _ = unsafe { mm::munmap(self.base.as_ptr(), self.bytes) };
    }
}

impl<T: Row> Deref for Rows<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped for as long as `self` is borrowed, initialised (zeros at least), aligned as rows are in their array.
        unsafe { self.whole().rows.as_ref() }
    }
}

impl<T: Row> Deref for Part<'_, T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: of a mapping that lives as long as this, its own or that of the rows that it borrows.
        unsafe { self.rows.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt as _;

    use lb_common::atomic::Word;
    use lb_common::slot::SlotLine;

    use super::*;

    /// A file stands for the array: mapped by the same call.
    fn numbered(rows: u64) -> File {
        let file = tempfile();
        for row in 0..rows {
            file.write_all_at(&row.to_ne_bytes(), row * 8).unwrap();
        }
        file.set_len((rows * 8).next_multiple_of(4096)).unwrap();
        file
    }

    fn tempfile() -> File {
        let fd = rustix::fs::memfd_create("rows", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        File::from(fd)
    }

    fn words(rows: &[Word]) -> Vec<u64> {
        rows.iter().map(Word::load).collect()
    }

    #[test]
    fn a_written_row_reads_back() {
        let mut rows: Rows<SlotLine> = Rows::private(3).unwrap();
        rows.write(2, SlotLine { backends: [7; 32] });
        assert_eq!(rows.iter().map(|line| line.backends[31]).collect::<Vec<_>>(), [0, 0, 7]);
    }

    #[test]
    #[should_panic(expected = "row 3 of 3")]
    fn a_write_beyond_the_end_is_caught() {
        Rows::<SlotLine>::private(3).unwrap().write(3, SlotLine::default());
    }

    #[test]
    fn a_part_has_the_rows_that_it_is_asked_for_mapped_or_not() {
        let mut rows: Rows<Word> = Rows::map_on_demand(numbered(3000), 3000).unwrap();
        for _ in 0..2 {
            for range in [0..3, 511..514, 1023..1025, 2999..3000] {
                let numbers: Vec<_> = (range.start as u64..range.end as u64).collect();
                assert_eq!(words(&rows.part(range)), numbers);
            }
            assert_eq!(words(&rows.part(2998..9999)), [2998, 2999]);
            assert!(rows.part(3000..3001).is_empty());
            // The second time round all is mapped.
            assert_eq!(words(&rows).len(), 3000);
        }
        rows.release();
        assert_eq!(words(&rows.part(7..8)), [7]);
    }

    #[test]
    fn what_is_written_in_parts_is_in_the_array() {
        let file = numbered(2000);
        let mut rows: Rows<Word> = Rows::map_on_demand(&file, 2000).unwrap();
        rows.write_all(510, [1, 2, 3].map(Word::from).into_iter());
        rows[1999].store(5);
        rows.write(0, 9.into());
        rows.release();
        let read = |row: u64| {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, row * 8).unwrap();
            u64::from_ne_bytes(bytes)
        };
        assert_eq!([0, 509, 510, 511, 512, 513, 1999].map(read), [9, 509, 1, 2, 3, 513, 5]);
    }

    #[test]
    fn an_array_is_resident_only_while_it_is_used() {
        let rows = 1 << 16;
        let mut rows: Rows<Word> = Rows::map_on_demand(numbered(rows), rows as u32).unwrap();
        let is_mapped = || {
            let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
            // Other tests have mappings of theirs: that of this size is this one.
            maps.lines().filter(|line| line.contains("memfd:rows")).any(|line| {
                let ends: Vec<_> = line.split([' ', '-']).take(2).collect();
                let end = |index: usize| u64::from_str_radix(ends[index], 16).unwrap();
                end(1) - end(0) == 8 << 16
            })
        };
        assert!(!is_mapped());
        assert_eq!(rows.len(), 1 << 16);
        assert!(is_mapped());
        rows.release();
        assert!(!is_mapped());
    }
}
