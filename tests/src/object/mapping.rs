//! An array map as memory that the kernel's programs see too.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::AsFd;
use std::ptr::{self, NonNull};

use anyhow::{Context, Result, ensure};
use rustix::mm::{self, MapFlags, ProtFlags};

/// The rows of a `BPF_F_MMAPABLE` array.
///
/// What packets change is made of shared words; everything else is written while no program runs.
pub(crate) struct Mapping<T> {
    base: NonNull<T>,
    length: usize,
    bytes: usize,
    rows: PhantomData<T>,
}

// SAFETY: the mapping belongs to the process, not to a thread.
unsafe impl<T: Send> Send for Mapping<T> {}

impl<T> Mapping<T> {
    /// Maps `length` rows of an array.
    ///
    /// # Safety
    ///
    /// `T` is `repr(C)` without padding, valid for all bit patterns, and as large as the array's values.
    pub(crate) unsafe fn map(array: impl AsFd, length: u32) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && !std::mem::needs_drop::<T>()) };
        let length = length as usize;
        let bytes = (length * size_of::<T>()).next_multiple_of(rustix::param::page_size());
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mm::mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, array, 0) }
            .with_context(|| format!("cannot map {length} rows of {} bytes into memory", size_of::<T>()))?;
        let base = NonNull::new(base.cast()).context("mapped at address 0")?;
        Ok(Self { base, length, bytes, rows: PhantomData })
    }

    /// Writes a whole row, while no program runs.
    pub(crate) fn write(&mut self, index: usize, row: T) -> Result<()> {
        ensure!(index < self.length, "row {index} of an array of {}", self.length);
        // SAFETY: in bounds; `&mut self` says that nobody in this process looks. Volatile, since the reader is
        // outside of what the compiler sees.
        unsafe { self.base.add(index).write_volatile(row) };
        Ok(())
    }

    /// All rows, to be written as they like by who sees to it that no program runs meanwhile.
    pub(crate) fn slice(&mut self) -> &mut [T] {
        // SAFETY: mapped for as long as `self`, zeros at least, aligned to a page; exclusive in this process by the
        // borrow, and the kernel's side runs only when this process makes it.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.length) }
    }
}

impl<T> Deref for Mapping<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: mapped for as long as `self`, zeros at least, aligned to a page.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.length) }
    }
}

impl<T> Drop for Mapping<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made, from which nobody borrows any more. A failure leaks address space.
        let _ = unsafe { mm::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}
