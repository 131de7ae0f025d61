//! Who is where: the places of one physical CPU, claimed from anywhere without a lock, and each virtual CPU's note of its place.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::set::{MAX_SLOTS, Slot, WORDS};
use crate::ids::{PcpuId, VcpuId, VmId};

/// A virtual CPU among those of all VMs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// The VM it belongs to.
    pub vm: VmId,
    /// Its index there.
    pub vcpu: VcpuId,
}

/// How far the upper one of two ids is shifted in a word that holds both.
const UPPER_SHIFT: u32 = 16;
/// The word of nobody and of nowhere: no VM, CPU or slot has these numbers.
const NONE: u32 = u32::MAX;

impl Member {
    const fn pack(self) -> u32 {
        (self.vm.get() as u32) << UPPER_SHIFT | self.vcpu.get() as u32
    }

    const fn unpack(word: u32) -> Option<Self> {
        if word == NONE {
            return None;
        }
        Some(Self {
            vm: VmId::new((word >> UPPER_SHIFT) as u16),
            vcpu: VcpuId::new(word as u16),
        })
    }
}

/// The slots of one physical CPU and who has them.
#[derive(Debug)]
pub struct SlotTable {
    used: [AtomicU64; WORDS],
    live: AtomicU32,
    members: [AtomicU32; MAX_SLOTS],
}

impl Default for SlotTable {
    fn default() -> Self {
        Self::new()
    }
}

impl SlotTable {
    /// Makes a table with every slot free.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            used: [const { AtomicU64::new(0) }; WORDS],
            live: AtomicU32::new(0),
            members: [const { AtomicU32::new(NONE) }; MAX_SLOTS],
        }
    }

    /// Claims the lowest free slot for a virtual CPU that is being turned on; `None` when all are taken.
    ///
    /// The owner attaches it to its queue when it next drains its wake-ups.
    #[must_use]
    pub fn claim(&self, member: Member) -> Option<Slot> {
        for (word, used) in self.used.iter().enumerate() {
            let mut now = used.load(Ordering::Relaxed);
            while now != u64::MAX {
                let slot = Slot::from_bit(word, now.trailing_ones());
                now = used.fetch_or(slot.mask(), Ordering::AcqRel);
                if now & slot.mask() == 0 {
                    self.members[slot.index()].store(member.pack(), Ordering::Release);
                    self.live.fetch_add(1, Ordering::Relaxed);
                    return Some(slot);
                }
            }
        }
        None
    }

    /// Gives a slot back; returns who had it. Called by the owner once the virtual CPU is off its queue.
    pub fn release(&self, slot: Slot) -> Option<Member> {
        let member = Member::unpack(self.members[slot.index()].swap(NONE, Ordering::AcqRel))?;
        self.used[slot.word()].fetch_and(!slot.mask(), Ordering::Release);
        self.live.fetch_sub(1, Ordering::Relaxed);
        Some(member)
    }

    /// Returns who has the slot.
    #[inline]
    #[must_use]
    pub fn member(&self, slot: Slot) -> Option<Member> {
        Member::unpack(self.members[slot.index()].load(Ordering::Acquire))
    }

    /// Returns how many slots are taken: the load that placement weighs.
    #[inline]
    #[must_use]
    pub fn live(&self) -> u32 {
        self.live.load(Ordering::Relaxed)
    }
}

/// Where a virtual CPU that is on has its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Home {
    /// The physical CPU it runs on.
    pub cpu: PcpuId,
    /// Its slot there.
    pub slot: Slot,
}

/// A virtual CPU's home for all to read; nowhere while it is off.
///
/// Who wants to wake it makes its reason visible (a pending interrupt, say) before reading the home; who gives it a home looks for
/// reasons after storing it. So whichever comes first, the other one sees it, and no wake-up is lost.
#[derive(Debug)]
pub struct HomeCell(AtomicU32);

impl Default for HomeCell {
    fn default() -> Self {
        Self::new()
    }
}

impl HomeCell {
    /// Makes the home of a virtual CPU that is off.
    #[must_use]
    pub const fn new() -> Self {
        Self(AtomicU32::new(NONE))
    }

    /// Returns where the virtual CPU is, if it is anywhere.
    #[inline]
    #[must_use]
    pub fn get(&self) -> Option<Home> {
        let word = self.0.load(Ordering::SeqCst);
        if word == NONE {
            return None;
        }
        let slot = Slot::new(word as u16 as usize)?;
        Some(Home {
            cpu: PcpuId::new((word >> UPPER_SHIFT) as u16),
            slot,
        })
    }

    /// Says where the virtual CPU is from now on.
    #[inline]
    pub fn set(&self, home: Option<Home>) {
        let word = match home {
            Some(home) => u32::from(home.cpu.get()) << UPPER_SHIFT | home.slot.index() as u32,
            None => NONE,
        };
        self.0.store(word, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{Home, HomeCell, MAX_SLOTS, Member, Slot, SlotTable};
    use crate::ids::{PcpuId, VcpuId, VmId};
    use alloc::vec::Vec;
    use std::thread;

    fn member(vm: u16, vcpu: u16) -> Member {
        Member {
            vm: VmId::new(vm),
            vcpu: VcpuId::new(vcpu),
        }
    }

    #[test]
    fn the_lowest_free_slot_is_given_and_comes_back() {
        let table = SlotTable::new();
        let slots: Vec<_> = (0..3)
            .map(|index| table.claim(member(1, index)).expect("free"))
            .collect();
        assert_eq!(
            slots.iter().map(|slot| slot.index()).collect::<Vec<_>>(),
            [0, 1, 2]
        );
        assert_eq!(table.member(slots[1]), Some(member(1, 1)));
        assert_eq!(table.release(slots[1]), Some(member(1, 1)));
        assert_eq!(table.release(slots[1]), None, "given back once only");
        assert_eq!(table.live(), 2);
        assert_eq!(table.claim(member(2, 9)), Some(slots[1]));
    }

    #[test]
    fn a_full_table_refuses() {
        let table = SlotTable::new();
        for index in 0..MAX_SLOTS {
            assert!(table.claim(member(0, index as u16)).is_some());
        }
        assert_eq!(table.claim(member(1, 0)), None);
        assert!(table.release(Slot::new(300).expect("a slot")).is_some());
        assert_eq!(table.claim(member(1, 0)).map(Slot::index), Some(300));
    }

    #[test]
    fn racing_claims_get_different_slots() {
        let table = SlotTable::new();
        let mut all: Vec<_> = thread::scope(|scope| {
            let claimers: Vec<_> = (0..2)
                .map(|vm| {
                    let table = &table;
                    scope.spawn(move || {
                        (0..200)
                            .map(|vcpu| table.claim(member(vm, vcpu)).expect("free").index())
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            claimers
                .into_iter()
                .flat_map(|claimer| claimer.join().expect("claimer"))
                .collect()
        });
        all.sort_unstable();
        assert_eq!(all, (0..400).collect::<Vec<_>>());
        assert_eq!(table.live(), 400);
    }

    #[test]
    fn a_home_is_nowhere_until_set() {
        let cell = HomeCell::new();
        assert_eq!(cell.get(), None);
        let home = Home {
            cpu: PcpuId::new(511),
            slot: Slot::new(MAX_SLOTS - 1).expect("a slot"),
        };
        cell.set(Some(home));
        assert_eq!(cell.get(), Some(home));
        cell.set(None);
        assert_eq!(cell.get(), None);
    }
}
