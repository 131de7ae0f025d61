//! Memory that comes and goes while a guest runs: which of its slots has memory, and where the host has that.
//!
//! A slot's host address is what its `_STA` says, what devices reach and what stage 2 maps: it is set when all of that is ready, and
//! taken away before any of it is undone. The lock of the VM's resizes of memory orders all else about a slot.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use psci::{PowerCell, Role};
use types::address::GuestPhys;
use types::hotplug::OST_SOURCE_SHIFT;
use types::ids::VcpuId;
use types::layout::Slots;

/// One slot.
#[derive(Debug)]
pub struct Slot {
    /// What the resizes know of it.
    pub cell: PowerCell,
    /// Where its memory begins for the host; 0 while it is absent.
    host: AtomicU64,
    /// What the guest last said of it, as the OST register has it; 0 for nothing.
    last_ost: AtomicU32,
}

/// The memory slots of one VM.
#[derive(Debug)]
pub struct HotMemory {
    /// Where they are for the guest.
    pub slots: Slots,
    /// Each of them.
    pub all: Box<[Slot]>,
}

impl HotMemory {
    /// Makes slots of which none has memory.
    #[must_use]
    pub fn new(slots: Slots) -> Self {
        let slot = |_| Slot {
            cell: PowerCell::new(Role::Hotplug),
            host: AtomicU64::new(0),
            last_ost: AtomicU32::new(0),
        };
        Self {
            slots,
            all: (0..slots.count).map(slot).collect(),
        }
    }

    /// Finds a slot.
    #[must_use]
    pub fn slot(&self, id: VcpuId) -> Option<&Slot> {
        self.all.get(id.index())
    }

    /// Returns where the host has a guest address, and how many bytes from there on are in the same slot; `None` outside the slots
    /// that have memory.
    #[cold]
    #[inline(never)]
    #[must_use]
    pub fn find(&self, address: GuestPhys) -> Option<(u64, u64)> {
        let (slot, offset) = self.slots.find(address)?;
        let host = self.all.get(usize::from(slot))?.host()?;
        Some((
            host.wrapping_add(offset),
            self.slots.block.wrapping_sub(offset),
        ))
    }

    /// Returns how many bytes the guest has in them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let present = self.all.iter().filter(|slot| slot.host().is_some());
        self.slots.block * present.count() as u64
    }
}

impl Slot {
    /// Returns where its memory begins for the host, while it has some.
    #[must_use]
    pub fn host(&self) -> Option<u64> {
        Some(self.host.load(Ordering::Acquire)).filter(|host| *host != 0)
    }

    /// Notes what the guest says of it by `_OST`.
    pub fn note(&self, event: u16, status: u16) {
        let said = u32::from(event) << OST_SOURCE_SHIFT | u32::from(status);
        self.last_ost.store(said, Ordering::Relaxed);
    }

    /// Returns what the guest last said of it.
    #[must_use]
    pub fn last_ost(&self) -> u32 {
        self.last_ost.load(Ordering::Relaxed)
    }

    /// Shows its memory, which is cleared and mapped.
    pub fn show(&self, host: u64) {
        self.host.store(host, Ordering::Release);
    }

    /// Hides its memory; of several that do, one is told where it begins.
    #[must_use]
    pub fn hide(&self) -> Option<u64> {
        Some(self.host.swap(0, Ordering::AcqRel)).filter(|host| *host != 0)
    }
}
