//! VMIDs by generation: a VM takes a new number at each start and keeps it until its next one; a number that was used is used again
//! only in the next generation, which begins when all have been, behind one flush of every TLB.
//!
//! So no number ever stands for two VMs, or for two lives of one, and the end of a VM needs no TLB maintenance of its own
//! (Arm ARM D8.16; the width is ID_AA64MMFR1_EL1.VMIDBits). Numbers that VMs hold when it begins are passed
//! over, so there must be more than VMs.

/// How many bits a VMID has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmidWidth {
    /// 255 starts a generation.
    Bits8,
    /// 65,535 starts a generation; VTCR_EL2.VS is set.
    Bits16,
}

impl VmidWidth {
    const fn last(self) -> u16 {
        match self {
            Self::Bits8 => u8::MAX as u16,
            Self::Bits16 => u16::MAX,
        }
    }
}

/// The number for VTTBR_EL2.VMID. Zero is never handed out: it stands for "no VM".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vmid(u16);

impl Vmid {
    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// Hands out VMIDs to this many VMs. Shared by all CPUs, so under a lock.
#[derive(Debug)]
pub struct VmidAllocator<const VMS: usize> {
    last: u16,
    used: u16,
    held: [u16; VMS],
    /// What was held when the generation began: used in it, whichever VM has it now.
    carried: [u16; VMS],
}

impl<const VMS: usize> VmidAllocator<VMS> {
    /// Makes an allocator in its first generation. The TLBs have been flushed since power-on.
    #[must_use]
    pub const fn new(width: VmidWidth) -> Self {
        const { assert!(VMS < VmidWidth::Bits8.last() as usize) };
        Self {
            last: width.last(),
            used: 0,
            held: [0; VMS],
            carried: [0; VMS],
        }
    }

    /// Returns the VMID for the next life of a VM, of which nothing runs; there are none from `VMS` on.
    ///
    /// `flush` is called when a new generation begins: `TLBI ALLE1IS` and `DSB ISH`, which other VMs may run through.
    pub fn assign(&mut self, vm: usize, mut flush: impl FnMut()) -> Option<Vmid> {
        loop {
            if self.used == self.last {
                self.used = 0;
                self.carried = self.held;
                flush();
            }
            self.used += 1;
            if !self.carried.contains(&self.used) {
                *self.held.get_mut(vm)? = self.used;
                return Some(Vmid(self.used));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Starts VMs in an order and fails when a TLB could hold a number's entries for another life than the one that has it.
    fn churn<const VMS: usize>(mut allocator: VmidAllocator<VMS>, starts: &[usize]) -> usize {
        let mut tagged: BTreeMap<u16, usize> = BTreeMap::new();
        let mut live: BTreeMap<usize, (u16, usize)> = BTreeMap::new();
        let mut flushes = 0;
        for (life, &vm) in starts.iter().enumerate() {
            let last = allocator.last;
            let vmid = allocator.assign(vm, || {
                tagged.clear();
                flushes += 1;
            });
            let number = vmid.expect("a VM").number();
            assert!(number != 0 && number <= last);
            live.remove(&vm);
            assert_eq!(tagged.get(&number), None, "used again without a flush");
            live.insert(vm, (number, life));
            for (number, life) in live.values() {
                assert_eq!(*tagged.entry(*number).or_insert(*life), *life);
            }
        }
        flushes
    }

    #[test]
    fn numbers_wrap() {
        let narrow = || VmidAllocator::<4>::new(VmidWidth::Bits8);
        assert_eq!(churn(narrow(), &[0; 255]), 0);
        assert_eq!(churn(narrow(), &[0; 300]), 1);
        let wide = VmidAllocator::<4>::new(VmidWidth::Bits16);
        assert_eq!(churn(wide, &[3; 70_000]), 1);
    }

    /// VM 1 keeps 2 through the flush and gives it up after: 2 is not free before the next one.
    #[test]
    fn what_was_carried_into_a_generation_is_used_in_it() {
        let narrow = VmidAllocator::<2> {
            last: 4,
            ..VmidAllocator::new(VmidWidth::Bits8)
        };
        assert_eq!(churn(narrow, &[0, 1, 0, 0, 1, 1, 0, 0]), 2);
    }

    #[test]
    fn what_a_vm_holds_is_passed_over_and_strangers_get_nothing() {
        let mut allocator = VmidAllocator::<2>::new(VmidWidth::Bits8);
        let held = allocator.assign(0, || ()).map(Vmid::number);
        for _ in 0..600 {
            let other = allocator.assign(1, || ()).map(Vmid::number);
            assert_ne!(other, held);
        }
        assert_eq!(allocator.assign(2, || ()), None);
    }

    proptest! {
        /// As few numbers as there can be.
        #[test]
        fn no_number_stands_for_two_lives(
            spare in 1..4_u16,
            starts in prop::collection::vec(0..5_usize, 1..200),
        ) {
            let allocator = VmidAllocator::<5> {
                last: 5 + spare,
                ..VmidAllocator::new(VmidWidth::Bits8)
            };
            churn(allocator, &starts);
        }
    }
}
