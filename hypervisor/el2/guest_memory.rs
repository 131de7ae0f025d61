//! A guest's RAM as `vmm` reaches it: by guest address, bounds checked, and the memory of its stage-2 tables.
#![expect(unsafe_code, reason = "copies to and from physical memory")]

use alloc::vec::Vec;
use core::ops::Range;
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU16, AtomicU64, Ordering};
use stage2::{PAGE_SIZE, TableMemory};
use types::access::AccessWidth;
use types::address::{GuestPhys, HostPhys};
use types::ids::MAX_VMS;
use vmm::memory::{GuestFault, GuestMemory};
use vmm::ops;
use vmm::vm::{HotMemory, Vm};

use crate::sysreg::dsb_ishst;
use crate::{cache, memory};

/// Where each VM's RAM is for the host, while it has some; 0 otherwise.
static HOST_RAM: [AtomicU64; MAX_VMS] = [const { AtomicU64::new(0) }; MAX_VMS];

/// What comes and goes besides, of each VM that has ever had RAM.
static HOT: [AtomicPtr<HotMemory>; MAX_VMS] = [const { AtomicPtr::new(ptr::null_mut()) }; MAX_VMS];

/// One contiguous piece of host memory that is a guest's RAM from boot. It stands for what comes and goes too, which is looked up when an
/// address is elsewhere: a third word would cost every access.
#[derive(Clone, Debug)]
pub(crate) struct GuestRam {
    base: GuestPhys,
    /// Where it begins for the host.
    start: u64,
    /// Its size in bytes, whole pages.
    size: u64,
}

impl GuestRam {
    /// Makes a piece of memory from the pool a VM's RAM.
    pub(crate) fn give(vm: &Vm, host: Range<u64>) -> Self {
        HOT[vm.id.index()].store(ptr::from_ref(vm.hot).cast_mut(), Ordering::Release);
        HOST_RAM[vm.id.index()].store(host.start, Ordering::Release);
        Self {
            base: vm.memory.base,
            start: host.start,
            size: host.end - host.start,
        }
    }

    /// Takes a VM's RAM away from it, and returns the piece that it was.
    pub(crate) fn take_back(self, vm: &Vm) -> Range<u64> {
        HOST_RAM[vm.id.index()].store(0, Ordering::Release);
        self.start..self.start + self.size
    }

    /// Returns the RAM that a VM has now, without a lock; empty if it has none.
    pub(crate) fn of(vm: &Vm) -> Self {
        let start = HOST_RAM[vm.id.index()].load(Ordering::Acquire);
        let size = if start == 0 { 0 } else { vm.memory.size };
        Self {
            base: vm.memory.base,
            start,
            size,
        }
    }

    /// Translates the address of 16 bits; an odd one is refused.
    #[inline(always)]
    fn half(&self, address: GuestPhys) -> Result<*mut u16, GuestFault> {
        let offset = address.get().wrapping_sub(self.base.get());
        // Memory is whole pages, so an even address in it has both bytes there.
        let at = match offset < self.size && address.is_aligned(2) {
            true => self.start + offset,
            false => self.hot_half(address)?,
        };
        Ok(at as *mut u16)
    }

    /// Translates the address of 16 bits that is not in the memory from boot, or is odd.
    #[cold]
    #[inline(never)]
    fn hot_half(&self, address: GuestPhys) -> Result<u64, GuestFault> {
        let found = self.find_hot(address).filter(|_| address.is_aligned(2));
        found.map(|(at, _)| at).ok_or(GuestFault { address })
    }

    /// Finds an address in what comes and goes, and how much follows it there.
    #[cold]
    #[inline(never)]
    fn find_hot(&self, address: GuestPhys) -> Option<(u64, u64)> {
        let is_own = |start: &AtomicU64| start.load(Ordering::Acquire) == self.start;
        let vm = HOST_RAM.iter().position(is_own)?;
        // SAFETY: it is null or what `give` has taken from a VM, whose slots stay for ever.
        let hot = unsafe { HOT[vm].load(Ordering::Acquire).as_ref() };
        hot?.find(address)
    }

    /// Translates a guest range to the host's, if all of it is memory from boot.
    #[inline(always)]
    fn boot_memory(&self, address: GuestPhys, bytes: usize) -> Option<u64> {
        let offset = address.get().wrapping_sub(self.base.get());
        let is_inside = offset < self.size && bytes as u64 <= self.size - offset;
        is_inside.then(|| self.start + offset)
    }

    /// Translates a guest range to the host's, if all of it is memory from boot, which is all that a start needs.
    fn translate(&self, address: GuestPhys, bytes: usize) -> Result<u64, GuestFault> {
        self.boot_memory(address, bytes)
            .ok_or(GuestFault { address })
    }

    /// Copies a range that is in several pieces of memory by `copy`, which is told where one is for the host, and which part of the
    /// range. A slot keeps its memory meanwhile, or the range ends there.
    #[cold]
    #[inline(never)]
    fn in_pieces(
        &self,
        address: GuestPhys,
        bytes: usize,
        copy: &mut dyn FnMut(u64, Range<usize>),
    ) -> Result<(), GuestFault> {
        let whole = GuestFault { address };
        // The first pass looks whether all of it is there.
        for is_copy in [false, true] {
            let mut done = 0;
            while done < bytes {
                let at = address.checked_add(done as u64).ok_or(whole)?;
                let offset = at.get().wrapping_sub(self.base.get());
                let (host, left) = match offset < self.size {
                    true => (self.start + offset, self.size - offset),
                    false => self.find_hot(at).ok_or(GuestFault { address: at })?,
                };
                let end = bytes.min(done.saturating_add(left as usize));
                if is_copy {
                    copy(host, done..end);
                }
                done = end;
            }
        }
        Ok(())
    }

    /// Reads what is in several pieces.
    #[cold]
    #[inline(never)]
    fn read_pieces(&self, address: GuestPhys, into: &mut [u8]) -> Result<(), GuestFault> {
        self.in_pieces(address, into.len(), &mut |from, part| {
            let into = &mut into[part];
            // SAFETY: `in_pieces` keeps it within this guest's RAM; else as in `read`.
            unsafe {
                core::ptr::copy_nonoverlapping(from as *const u8, into.as_mut_ptr(), into.len())
            };
        })
    }

    /// Writes what is in several pieces.
    #[cold]
    #[inline(never)]
    fn write_pieces(&self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault> {
        self.in_pieces(address, bytes.len(), &mut |to, part| {
            let bytes = &bytes[part];
            // SAFETY: as above.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        })
    }
}

/// Loads a word of a guest's RAM by one access of 64 bits, as the guest's other CPUs store it.
pub(crate) fn load(at: HostPhys, width: AccessWidth) -> u64 {
    let double = (at.get() & !7) as *const u64;
    // SAFETY: `Vm::ram_word` has found it in a guest's RAM, which is mapped for as long as there are VMs, in whole pages; a guest may
    // write it meanwhile, which a volatile access sees as old or new.
    let value = unsafe { double.read_volatile() };
    value >> (8 * (at.get() & 7)) & width.mask()
}

impl GuestMemory for GuestRam {
    #[inline(always)]
    fn read(&self, address: GuestPhys, into: &mut [u8]) -> Result<(), GuestFault> {
        let Some(from) = self.boot_memory(address, into.len()) else {
            return self.read_pieces(address, into);
        };
        let from = from as *const u8;
        // SAFETY: `boot_memory` keeps it within this guest's RAM, which is mapped and of which EL2 keeps no references, so that the
        // ranges are apart; a guest may write it meanwhile, and whatever mixture of old and new bytes comes of that is as good as
        // any other.
        unsafe { core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    #[inline(always)]
    fn read_half(&self, address: GuestPhys) -> Result<u16, GuestFault> {
        // SAFETY: `half` keeps it within this guest's RAM, which is mapped, and aligned.
        let half = unsafe { AtomicU16::from_ptr(self.half(address)?) };
        Ok(half.load(Ordering::Relaxed))
    }

    #[inline(always)]
    fn write_half(&self, address: GuestPhys, value: u16) -> Result<(), GuestFault> {
        // SAFETY: as above; EL2 keeps no references into guest memory.
        let half = unsafe { AtomicU16::from_ptr(self.half(address)?) };
        half.store(value, Ordering::Relaxed);
        Ok(())
    }

    #[inline(always)]
    fn write(&self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault> {
        let Some(to) = self.boot_memory(address, bytes.len()) else {
            return self.write_pieces(address, bytes);
        };
        // SAFETY: as above.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to as *mut u8, bytes.len()) };
        Ok(())
    }
}

impl ops::GuestRam for GuestRam {
    fn host_start(&self) -> u64 {
        self.start
    }

    fn load(&mut self, address: GuestPhys, bytes: &[u8]) -> Result<(), GuestFault> {
        self.write(address, bytes)?;
        self.clean(address, bytes.len() as u64)
    }

    /// Makes sure that no cache holds a dirty line of a guest range.
    fn clean(&self, address: GuestPhys, bytes: u64) -> Result<(), GuestFault> {
        let at = self.translate(address, bytes as usize)?;
        cache::clean_invalidate(at..at + bytes);
        Ok(())
    }

    /// Fills a guest range with zeros.
    fn zero(&mut self, address: GuestPhys, bytes: u64) -> Result<(), GuestFault> {
        let to = self.translate(address, bytes as usize)?;
        memory::zero(to..to + bytes);
        cache::clean_invalidate(to..to + bytes);
        Ok(())
    }
}

/// The pages of one VM's stage-2 tables: a quota, taken from the pool in one piece.
#[derive(Debug)]
pub(crate) struct TablePages {
    range: Range<u64>,
    free: Vec<u64>,
}

impl TablePages {
    /// Takes a quota of pages; the root's alignment is met because the piece is aligned for it.
    pub(crate) fn take(pages: usize) -> Option<Self> {
        let bytes = pages as u64 * PAGE_SIZE;
        let start = memory::take_pages(bytes, 16 * PAGE_SIZE)?;
        let free = (0..pages as u64)
            .rev()
            .map(|index| start + index * PAGE_SIZE)
            .collect();
        Some(Self {
            range: start..start + bytes,
            free,
        })
    }

    /// Gives the quota back to the pool.
    pub(crate) fn give_back(self) {
        memory::give_back(self.range);
    }

    fn at(&self, table: HostPhys, index: usize) -> *mut u64 {
        assert!(
            self.range.contains(&table.get()) && index < stage2::ENTRIES_PER_TABLE,
            "stage-2 table address"
        );
        (table.get() as *mut u64).wrapping_add(index)
    }
}

impl TableMemory for TablePages {
    fn allocate(&mut self, pages: usize) -> Option<HostPhys> {
        // The root comes first, from the aligned start of the piece; later tables are single pages.
        let at = *self.free.last()?;
        if pages > self.free.len() || !at.is_multiple_of(pages as u64 * PAGE_SIZE) {
            return None;
        }
        self.free.truncate(self.free.len() - pages);
        memory::zero(at..at + pages as u64 * PAGE_SIZE);
        Some(HostPhys::new(at))
    }

    fn free(&mut self, table: HostPhys, pages: usize) {
        for index in (0..pages as u64).rev() {
            self.free.push(table.get() + index * PAGE_SIZE);
        }
    }

    fn read(&self, table: HostPhys, index: usize) -> u64 {
        // SAFETY: `at` has checked that it is an entry of one of this VM's tables.
        unsafe { self.at(table, index).read_volatile() }
    }

    fn write(&mut self, table: HostPhys, index: usize, descriptor: u64) {
        let entry = self.at(table, index);
        // SAFETY: `at` has checked that it is an entry of one of this VM's tables.
        let entry = unsafe { core::sync::atomic::AtomicU64::from_ptr(entry) };
        entry.store(descriptor, core::sync::atomic::Ordering::Release);
    }

    fn publish(&mut self) {
        dsb_ishst();
    }
}
